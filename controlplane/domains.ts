/**
 * Domains: the three domains of the control plane as Control has them, and their life: begun, stepped, restarted, failed, ended.
 *
 * A domain (domain.ts) is made of the configuration, the address book and the shared tables. When it goes, what it had told
 * stays in force for a while, so that the one after it can say it again and no connection ends: learned routes, addresses
 * (`orphans`), and what protocols asked to be kept. One that throws rests for a moment, longer when that happens often,
 * and is made anew. The families' domains are stepped here, or live elsewhere and are spoken to (remote-domain.ts).
 *
 *           begin            throws, hangs
 *   ──────► running ───────► down, resting ──────► running …      restart: running ► down ► running, at once
 *
 * Not here: what a domain's actions do (control.ts), its thread (live/domain-host.ts).
 */
import type { Family, Words } from '../dataplane/wire/address.ts';
import type { Config } from './config/index.ts';
import { Clock } from './dhcp6/deadlines.ts';
import type { Dhcp6 } from './dhcp6/index.ts';
import { DOMAINS, Domain, type DomainName, type DomainParts, type DomainView, familyOf } from './domain.ts';
import type { LearnedRoutes } from './learned-routes.ts';
import type { OwnAddress } from './neighbour/addresses.ts';
import type { Action, Event, Protocol, Told } from './protocol.ts';
import { reasonOf } from './reason.ts';
import type { FromDomain, Remote, RemoteFactory } from './remote-domain.ts';
import { managementServices } from './services.ts';

/** Milliseconds in which a restarted domain learns again what it had told: DHCP and DHCPv6 ask for some seconds. */
const RELEARN = 60_000;

/** Rest of a domain that has failed, milliseconds: doubles from the first to the last; forgotten after a healthy minute. */
const FIRST_REST = 10;
const LAST_REST = 5000;
const HEALTHY = 60_000;

/** What a protocol wants to find again, and when it said so (milliseconds that do not wrap). */
interface Kept {
  value: unknown;
  at: number;
}

/** What the domains ask of Control. */
export interface DomainsHost {
  /** The configuration of now. */
  config(): Config;
  learned: LearnedRoutes;
  /** Does what a protocol wants done; `event`: what it was stepped with. */
  perform(actions: Action[], event: Event, owner?: DomainName): void;
  removeAddress(port: number, family: Family, words: Words, prefixLength: number): void;
  /** Steps everybody, with nothing but the time. */
  tick(): void;
}

export interface DomainsOptions {
  /** Where the domains of the families live; absent: in this thread. */
  remote?: RemoteFactory;
  /** A domain that throws is made anew; else what it throws is the caller's. */
  contain?: boolean;
}

export class Domains {
  /** All that are stepped in this thread, domain by domain, in the order in which they are stepped. */
  readonly protocols: Protocol[] = [];
  private readonly parts: Omit<DomainParts, 'config' | 'kept'>;
  private readonly host: DomainsHost;
  private readonly contain: boolean;
  /** How old is what was kept: by a clock that neither wraps nor is set. */
  private readonly clock: Clock;
  /** The families' domains, and which protocols are theirs: those of nobody are Control's own. */
  private readonly local = new Map<Family, Domain>();
  private readonly owners = new Map<Protocol, DomainName>();
  /** Domains that live elsewhere: none in one thread. */
  private readonly remotes = new Map<Family, Remote>();
  /** Restarts of remote domains, one after the other. */
  private restarting: Promise<void> = Promise.resolve();
  private readonly views: Record<DomainName, DomainView> = {
    ipv4: newView('ipv4'),
    ipv6: newView('ipv6'),
    management: newView('management'),
  };
  /** What protocols want to find again, by domain and name. */
  private readonly kept: Record<DomainName, Map<string, Kept>> = {
    ipv4: new Map(),
    ipv6: new Map(),
    management: new Map(),
  };
  /** Addresses of a domain that is no more, until somebody says them again or `sweepAt` has come. */
  private readonly orphans = new Set<OwnAddress>();
  private readonly sweepAt = new Map<Family, number>();
  /** Domains that rest after a failure, and until when; when each failed last, and how often at short intervals. */
  private readonly reviveAt = new Map<DomainName, number>();
  private readonly failedAt = new Map<DomainName, { at: number; often: number }>();

  /** No domain has begun yet: `begin`. */
  constructor(parts: Omit<DomainParts, 'config' | 'kept'>, host: DomainsHost, { remote, contain }: DomainsOptions) {
    this.parts = parts;
    this.clock = new Clock(parts.tables.now());
    this.host = host;
    this.contain = contain === true;
    if (remote !== undefined)
      for (const family of [4, 6] as const) {
        const name = nameOf(family);
        const failed = (reason: string): void => this.fail(name, reason);
        this.remotes.set(family, remote(family, { heard: (message) => this.heard(name, family, message), failed }));
        this.views[name].thread = 'own';
      }
    parts.addresses.changed = (change) => this.remotes.get(change.family)?.say({ kind: 'book', change });
  }

  // --- life ----------------------------------------------------------------------------------------------------------

  /** Begins all of them. */
  begin(): void {
    for (const name of DOMAINS) void this.make(name);
  }

  /** Makes a domain's protocols, in the place of those that it had. */
  private make(name: DomainName): Promise<void> | undefined {
    this.views[name].state = 'running';
    this.reviveAt.delete(name);
    const now = this.clock.at(this.parts.tables.now());
    const kept = new Map([...this.kept[name]].map(([key, { value, at }]) => [key, { value, age: now - at }]));
    const parts: DomainParts = { ...this.parts, config: this.host.config(), kept };
    let protocols: Protocol[];
    if (name === 'management') protocols = managementServices(parts);
    else {
      const family = familyNamed(name);
      const remote = this.remotes.get(family);
      if (remote !== undefined)
        return remote.begin({ config: parts.config, kept: parts.kept, book: parts.addresses.snapshot(family) });
      const domain = new Domain(family, parts);
      this.local.set(domain.family, domain);
      protocols = domain.protocols;
    }
    const own = this.owned(name);
    const at = own.length === 0 ? this.protocols.length : this.protocols.indexOf(own[0]);
    this.protocols.splice(at, own.length, ...protocols);
    for (const protocol of own) this.owners.delete(protocol);
    for (const protocol of protocols) this.owners.set(protocol, name);
    return undefined;
  }

  private owned(name: DomainName): Protocol[] {
    return this.protocols.filter((protocol) => this.owners.get(protocol) === name);
  }

  /** The domain does nothing from here on. What it had told stays in force for a while (`RELEARN`). */
  private end(name: DomainName, flush: boolean): void {
    this.views[name].state = 'down';
    if (name === 'management') {
      for (const protocol of this.owned(name)) protocol.close?.();
      return;
    }
    const { tables, addresses } = this.parts;
    const family = familyNamed(name);
    const domain = this.local.get(family);
    if (flush) domain?.flush();
    domain?.close();
    this.host.learned.orphan(family);
    for (const own of addresses) if (own.family === family && own.lifetimes !== undefined) this.orphans.add(own);
    this.sweepAt.set(family, (tables.now() + RELEARN) | 0);
    // One in another thread may have ended before it could say which neighbours it had changed.
    const { neighbours } = tables;
    if (this.remotes.has(family)) for (let n = 0; n < neighbours.capacity; n++) neighbours.changed(n);
  }

  /**
   * Makes a domain anew. The other domains do not notice: nothing of theirs is in it. Neighbours that it had learned are
   * forgotten; addresses and routes stay in force until the new one has had time to learn them again, so that connections
   * that use them live on; connections are the packet workers' and stay.
   */
  restart(name: DomainName, reason = 'asked for', flush = true): void | Promise<void> {
    const remote = name === 'management' ? undefined : this.remotes.get(familyNamed(name));
    const again = (): Promise<void> | undefined => {
      this.end(name, flush);
      const begun = this.make(name);
      this.views[name].restarts++;
      this.tellRestart(name, reason);
      this.host.tick();
      return begun;
    };
    if (remote === undefined) return again();
    const restarted = this.restarting.then(async () => {
      this.reviveAt.delete(name);
      await remote.end(flush);
      await again();
    });
    // One that fails is its caller's to tell: those after it, and the end, do not fail with it.
    this.restarting = restarted.catch(() => {});
    return restarted;
  }

  /** A domain has thrown: it rests for a moment, longer when that happens often, and is made anew. It keeps its neighbours. */
  private fail(name: DomainName, reason: string): void {
    const view = this.views[name];
    const now = this.parts.tables.now();
    const last = this.failedAt.get(name);
    const often = last !== undefined && ((now - last.at) | 0) < HEALTHY ? last.often + 1 : 0;
    this.failedAt.set(name, { at: now, often });
    view.restarts++;
    view.failures++;
    this.end(name, false);
    this.reviveAt.set(name, (now + Math.min(FIRST_REST << Math.min(often, 16), LAST_REST)) | 0);
    this.tellRestart(name, reason);
  }

  private tellRestart(name: DomainName, reason: string): void {
    const { restarts, failures } = this.views[name];
    this.views[name].reason = reason;
    const failed = this.views[name].state === 'down';
    const message = failed
      ? `the ${name} domain has failed and starts again: ${reason}`
      : `the ${name} domain starts again: ${reason}`;
    this.parts.log(failed ? 'warn' : 'info', message);
    const told: Told = { kind: 'event', name: 'domain.restarted', data: { domain: name, reason, restarts, failures } };
    this.host.perform([told], { kind: 'tick' });
  }

  /** Takes up domains that have rested, and takes away what restarted ones have not learned again. */
  private look(): void {
    const now = this.parts.tables.now();
    for (const [name, at] of this.reviveAt) if (((at - now) | 0) <= 0) this.make(name);
    for (const [family, at] of this.sweepAt) if (((at - now) | 0) <= 0) this.sweep(family);
  }

  private sweep(family: Family): void {
    const { addresses, log } = this.parts;
    this.sweepAt.delete(family);
    let gone = this.host.learned.sweep(family);
    for (const own of this.orphans) {
      if (own.family !== family) continue;
      this.orphans.delete(own);
      if (addresses.find(own.port, family, own.words) !== own) continue;
      this.host.removeAddress(own.port, family, own.words, own.prefixLength);
      gone++;
    }
    if (gone > 0) log('info', `the ipv${family} domain has not learned ${gone} routes and addresses again`);
  }

  /** Resolves when the restarts that were begun are over. */
  get restarted(): Promise<void> {
    return this.restarting;
  }

  /** Ends the domains that live elsewhere. */
  async close(): Promise<void> {
    await this.restarting;
    await Promise.all([...this.remotes.values()].map((remote) => remote.end(false)));
  }

  // --- what a domain had, for the one after it -----------------------------------------------------------------------

  /** A protocol wants to find this again; null: no more. */
  keep(name: DomainName, key: string, value: unknown): void {
    if (value === null) this.kept[name].delete(key);
    else this.kept[name].set(key, { value, at: this.clock.at(this.parts.tables.now()) });
  }

  /** Somebody has said this address again. */
  adopt(own: OwnAddress): void {
    this.orphans.delete(own);
  }

  /** The lease that a restarted client of the port has now takes the place of the one from before. */
  displace(port: number, by: OwnAddress | undefined): void {
    for (const own of this.orphans)
      if (own.port === port && own.family === 4 && own !== by) {
        this.orphans.delete(own);
        this.host.removeAddress(port, 4, own.words, own.prefixLength);
      }
  }

  // --- stepping ------------------------------------------------------------------------------------------------------

  /** Steps every protocol of this thread that the event is for, and has done what they want. */
  step(event: Event): void {
    const { tables } = this.parts;
    const now = tables.now();
    this.clock.at(now);
    const family = familyOf(event, tables);
    for (const protocol of [...this.protocols]) {
      const owner = this.owners.get(protocol);
      if (owner !== undefined && this.views[owner].state === 'down') continue;
      if (family !== 0 && (owner === 'ipv4' || owner === 'ipv6') && owner !== nameOf(family)) continue;
      let actions: Action[];
      try {
        actions = protocol.step(now, event);
      } catch (error) {
        if (!this.contain || owner === undefined) throw error;
        this.fail(owner, `${protocol.name}, ${event.kind} event: ${reasonOf(error)}`);
        continue;
      }
      this.host.perform(actions, event, owner);
    }
    if (this.sweepAt.size + this.reviveAt.size > 0) this.look();
  }

  /** Milliseconds until one of this thread wants to be stepped; −1: none does. */
  next(): number {
    const now = this.parts.tables.now();
    let next = -1;
    const consider = (wait: number): void => {
      if (wait >= 0 && (next < 0 || wait < next)) next = wait;
    };
    for (const protocol of this.protocols) {
      const owner = this.owners.get(protocol);
      if (owner === undefined || this.views[owner].state === 'running') consider(protocol.next(now));
    }
    for (const waits of [this.sweepAt, this.reviveAt])
      for (const at of waits.values()) consider(Math.max(0, (at - now) | 0));
    return next;
  }

  // --- conversation --------------------------------------------------------------------------------------------------

  /** Says an event to the domains that live elsewhere, but not to the one that it is from. */
  pass(event: Event, from?: DomainName): void {
    for (const [family, remote] of this.remotes) if (nameOf(family) !== from) remote.say({ kind: 'event', event });
  }

  /** What a domain in another thread says. */
  private heard(name: DomainName, family: Family, message: FromDomain): void {
    const { tables, addresses, log } = this.parts;
    if (message.kind === 'actions') {
      this.host.perform(message.actions, { kind: 'tick' }, name);
      this.host.tick();
    } else if (message.kind === 'book') {
      // Of addresses it only knows what duplicate address detection has found; the rest is decided here.
      const { change } = message;
      const own = change.op === 'state' ? addresses.find(change.port, family, change.words) : undefined;
      if (change.op === 'state' && own?.state === 'tentative') addresses.setState(own, change.state);
    } else if (message.kind === 'neighbours') for (const n of message.records) tables.neighbours.changed(n);
    else if (message.kind === 'log') log(message.level, message.message);
  }

  /** A neighbour that a person has named: asked for no more. */
  setNeighbour(port: number, family: Family, words: Words, lo: number, hi: number): void {
    this.remotes.get(family)?.say({ kind: 'neighbour', op: 'set', port, words, lo, hi });
    if (this.local.get(family)?.setNeighbour(port, words, lo, hi) === false)
      this.parts.log('warn', 'neighbors: the neighbour table is full');
  }

  /** Forgets such a neighbour: it is asked for when somebody wants it. */
  forgetNeighbour(port: number, family: Family, words: Words): void {
    this.remotes.get(family)?.say({ kind: 'neighbour', op: 'forget', port, words, lo: 0, hi: 0 });
    this.local.get(family)?.forgetNeighbour(port, words);
  }

  /**
   * Asks a domain what it has to tell about itself (domain.ts, `describe`); one in this thread answers at once.
   * @throws Error when it does not answer
   */
  ask(name: 'ipv4' | 'ipv6', what: string): unknown {
    const family = familyNamed(name);
    return this.remotes.get(family)?.ask(what) ?? this.local.get(family)?.describe(what) ?? null;
  }

  /** Resolves when domains that live elsewhere have done what was said to them, or have not answered for `patience` ms. */
  async caughtUp(patience: number): Promise<void> {
    await Promise.allSettled([...this.remotes.values()].map((remote) => remote.ask('', patience)));
  }

  /** How each domain is doing. */
  get health(): readonly DomainView[] {
    return Object.values(this.views).map((view) => ({ ...view }));
  }

  /** DHCPv6 of this thread; null: no port has it. */
  get dhcp6(): Dhcp6 | null {
    return this.local.get(6)?.dhcp6 ?? null;
  }
}

function nameOf(family: Family): 'ipv4' | 'ipv6' {
  return family === 4 ? 'ipv4' : 'ipv6';
}

function familyNamed(name: 'ipv4' | 'ipv6'): Family {
  return name === 'ipv4' ? 4 : 6;
}

function newView(domain: DomainName): DomainView {
  return { domain, state: 'running', thread: 'main', restarts: 0, failures: 0, reason: '' };
}
