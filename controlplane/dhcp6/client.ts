/**
 * DHCPv6 client of one port (RFC 8415 §18.2, RFC 9915): all IAs of the port in one session.
 *
 *   idle ─start→ solicit ─Advertise→ request ─Reply→ bound ─T1→ renew ─T2→ rebind ─last lease ends→ solicit
 *                   └──── Reply with rapid commit ────↗  └─link back: confirm, or rebind with prefixes (§18.2.12)
 *   idle ─start, stateless→ information ─Reply→ informed ─refresh time→ information
 *   bound ─stop→ release ─Reply or 4 tries→ idle
 *
 * What it has is the port's, and is told (effects.ts); what leases a message gives is in held.ts.
 *
 * Started and stopped by the configuration or by the events `dhcp6.start` and `dhcp6.stop` ({ port }).
 */
import type { Words } from '../../dataplane/wire/address.ts';
import type { Dhcp6ClientConfig } from '../config/index.ts';
import type { Action, Event } from '../protocol.ts';
import * as C from './constants.ts';
import type { Context } from './context.ts';
import { sameBytes } from './duid.ts';
import { actionsOf, eventOf } from './effects.ts';
import { type Held, heldOf, isBelievable, isSame, newIa, requestOf } from './held.ts';
import { emitMessage, type Ia, type Message, newMessage, parseMessage } from './message.ts';
import { type Datagram, sendToGroup } from './packet.ts';
import { ReconfigureKey } from './reconfigure.ts';
import { Retransmission } from './retransmission.ts';

export type ClientState =
  | 'idle'
  | 'solicit'
  | 'request'
  | 'bound'
  | 'renew'
  | 'rebind'
  | 'confirm'
  | 'release'
  | 'decline'
  | 'information'
  | 'informed';

const MESSAGES: Readonly<Partial<Record<ClientState, number>>> = {
  solicit: C.SOLICIT,
  request: C.REQUEST,
  renew: C.RENEW,
  rebind: C.REBIND,
  confirm: C.CONFIRM,
  release: C.RELEASE,
  decline: C.DECLINE,
  information: C.INFORMATION_REQUEST,
};
/** While no link-local address may be used yet (duplicate address detection), milliseconds between looks. */
const NO_SOURCE_WAIT = 100;
/** Advertises kept while waiting for a better one: a flood of forged ones costs no more. */
const MAX_ADVERTISES = 16;
const FOREVER = Number.POSITIVE_INFINITY;

interface Offer {
  message: Message;
  preference: number;
  leases: number;
}

export class Client {
  readonly port: number;
  state: ClientState = 'idle';
  /** What the client has now, whatever state it is in. */
  readonly held: Held[] = [];
  /** Server that gave it. */
  serverId: Uint8Array | null = null;
  dns: Words[] = [];
  domains: string[] = [];
  private readonly context: Context;
  private readonly config: Dhcp6ClientConfig;
  private stateless: boolean;
  private exchange: Retransmission | null = null;
  private xid = 0;
  private offers: Offer[] = [];
  /** Advertise that the Request follows. */
  private chosen: Message | null = null;
  private t1 = FOREVER;
  private t2 = FOREVER;
  private refresh = FOREVER;
  private solMaxRt = C.SOLICIT_TIMING.mrt;
  private infMaxRt = C.INFORMATION_TIMING.mrt;
  /** Leases that a Release or Decline gives back. */
  private returned: Held[] = [];
  /** Follows the events; nobody tells of a link that is as it was when the client was made. */
  private linkUp: boolean;
  private readonly key = new ReconfigureKey();
  private addressVersion = -1;

  constructor(context: Context, port: number, config: Dhcp6ClientConfig) {
    this.context = context;
    this.port = port;
    this.config = config;
    this.stateless = config.stateless;
    this.linkUp = context.interfaces.isUp(port);
  }

  /** Begins to ask; nothing when it is at it already. `now`: milliseconds that do not wrap. */
  start(now: number, stateless = this.config.stateless): Action[] {
    // Nothing is left of what a Release is still being sent for: whoever begins anew need not wait for its answer.
    const rests = this.state === 'idle' || this.state === 'release';
    if (!rests && this.stateless === stateless) return [];
    const released = rests ? [] : this.stop(now);
    this.returned = [];
    this.stateless = stateless;
    // §18.2.1 and §18.2.6: not all hosts of a link at once after a power failure.
    if (stateless) this.enter(now, 'information', this.context.random() * C.INF_MAX_DELAY);
    else this.enter(now, 'solicit', this.context.random() * C.SOL_MAX_DELAY);
    return released;
  }

  /** Gives everything back (§18.2.7): it is out of use before the server hears of it. */
  stop(now: number): Action[] {
    if (this.state === 'idle' || this.state === 'release') return [];
    const actions = this.drop(this.held, 'released');
    this.returned = [...this.held];
    this.held.length = 0;
    this.exchange = null;
    this.state = 'idle';
    if (this.returned.length > 0 && this.serverId !== null) {
      this.enter(now, 'release', 0);
      actions.push(...this.send(now));
    }
    return actions;
  }

  /** Milliseconds at which it wants a tick. */
  next(): number {
    let next = FOREVER;
    for (const held of this.held) next = Math.min(next, held.valid, held.deprecated ? FOREVER : held.preferred);
    if (!this.linkUp) return next;
    if (this.state === 'bound') next = Math.min(next, this.t1);
    if (this.state === 'informed') next = Math.min(next, this.refresh);
    return Math.min(next, this.exchange?.due ?? FOREVER);
  }

  link(now: number, up: boolean): Action[] {
    if (up === this.linkUp) return [];
    this.linkUp = up;
    if (!up) return [];
    const actions = this.age(now);
    if (this.state === 'idle' || this.state === 'release' || this.state === 'decline') return actions;
    // §18.2.12: after the link was away the leases are asked about, prefixes by Rebind (Confirm knows addresses only).
    const prefixes = this.held.some((held) => held.kind === 'pd');
    if (this.state === 'informed' || this.state === 'information')
      this.enter(now, 'information', this.context.random() * C.INF_MAX_DELAY);
    else if (this.held.length === 0) this.enter(now, 'solicit', this.context.random() * C.SOL_MAX_DELAY);
    else if (prefixes) this.enter(now, 'rebind', 0, { ...C.REBIND_TIMING, mrd: C.CONFIRM_TIMING.mrd });
    else this.enter(now, 'confirm', this.context.random() * C.CNF_MAX_DELAY);
    return actions;
  }

  tick(now: number): Action[] {
    // Leases end whether or not the link is there; all else waits for it.
    if (!this.linkUp) return this.age(now);
    const actions = [...this.age(now), ...this.checkDuplicates(now)];
    if (this.state === 'bound' && now >= this.t1) this.enter(now, 'renew', 0);
    if (this.state === 'informed' && now >= this.refresh)
      this.enter(now, 'information', this.context.random() * C.INF_MAX_DELAY);
    if (this.exchange !== null && now >= this.exchange.due) actions.push(...this.again(now));
    return actions;
  }

  // --- time ----------------------------------------------------------------------------------------------------------

  private enter(now: number, state: ClientState, delay: number, timing = this.timingOf(state)): void {
    this.state = state;
    this.xid = this.context.transaction();
    // §18.2.4: a Renew ends at T2, §18.2.5: a Rebind when the last lease has ended.
    const lastValid = Math.max(0, ...this.held.map((held) => held.valid));
    const until = state === 'renew' ? this.t2 : state === 'rebind' ? lastValid : FOREVER;
    this.exchange = new Retransmission(
      timing,
      now + Math.round(delay),
      this.context.random,
      state === 'solicit',
      until,
    );
    if (state === 'solicit') this.offers = [];
  }

  private timingOf(state: ClientState): C.Timing {
    switch (state) {
      case 'solicit':
        return { ...C.SOLICIT_TIMING, mrt: this.solMaxRt };
      case 'information':
        return { ...C.INFORMATION_TIMING, mrt: this.infMaxRt };
      case 'request':
        return C.REQUEST_TIMING;
      case 'renew':
        return C.RENEW_TIMING;
      case 'rebind':
        return C.REBIND_TIMING;
      case 'confirm':
        return C.CONFIRM_TIMING;
      case 'decline':
        return C.DECLINE_TIMING;
      default:
        return C.RELEASE_TIMING;
    }
  }

  /** The exchange's time has come: the next transmission, or what follows when it is over. */
  private again(now: number): Action[] {
    const exchange = this.exchange!;
    if (this.state === 'solicit' && exchange.count === 1 && this.offers.length > 0) return this.take(now);
    if (!exchange.isOver(now)) return this.send(now);
    switch (this.state) {
      case 'request':
        // §18.2.2: the next server that had answered, or from the start.
        this.chosen = null;
        if (this.offers.length > 0) return this.take(now);
        this.enter(now, 'solicit', 0);
        break;
      case 'renew':
        this.enter(now, 'rebind', 0);
        return this.send(now);
      case 'confirm':
        // §18.2.3: nobody objects, so the leases are used as before.
        this.settle(now);
        break;
      case 'rebind':
        if (this.held.length > 0) this.settle(now);
        else this.enter(now, 'solicit', 0);
        break;
      case 'decline':
        this.enter(now, this.held.length > 0 ? 'renew' : 'solicit', 0);
        break;
      default:
        this.exchange = null;
        this.returned = [];
        this.state = 'idle';
    }
    return [];
  }

  /** Back to bound with the times that are; overdue ones act at the next tick. */
  private settle(now: number): void {
    this.exchange = null;
    this.state = 'bound';
    if (now >= this.t2) this.enter(now, 'rebind', 0);
  }

  /** Leases whose preferred or valid time is over (RFC 4862 §5.5.4). */
  private age(now: number): Action[] {
    const actions: Action[] = [];
    for (const held of this.held)
      if (!held.deprecated && now >= held.preferred && now < held.valid) {
        held.deprecated = true;
        actions.push(...actionsOf(this.port, held, 'deprecate', now), this.tell('dhcp6.deprecated', [held], now));
      }
    const over = this.held.filter((held) => now >= held.valid);
    if (over.length > 0) actions.push(...this.forget(over, 'expired'));
    if (over.length > 0 && this.held.length === 0 && this.state !== 'release' && this.state !== 'decline')
      this.enter(now, 'solicit', 0);
    return actions;
  }

  /** §18.2.8: an address that another host of the link has goes back with a Decline. */
  private checkDuplicates(now: number): Action[] {
    const { addresses } = this.context;
    if (addresses.version === this.addressVersion) return [];
    this.addressVersion = addresses.version;
    const bad = this.held.filter(
      (held) => held.kind === 'na' && addresses.find(this.port, 6, held.words)?.state === 'duplicate',
    );
    if (bad.length === 0) return [];
    const actions = this.forget(bad, 'duplicate');
    this.returned = bad;
    this.enter(now, 'decline', 0);
    return actions;
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  private send(now: number): Action[] {
    const exchange = this.exchange!;
    const from = this.context.linkLocal(this.port);
    if (from === undefined) {
      exchange.due = now + NO_SOURCE_WAIT;
      return [];
    }
    const message = newMessage(MESSAGES[this.state]!, this.xid);
    message.clientId = this.context.duid(this.config.duid, this.port);
    message.elapsed = exchange.elapsed(now);
    this.compose(message);
    exchange.sent(now);
    this.context.counters.sentMessage(message.type);
    const sent = sendToGroup(this.context.interfaces, {
      port: this.port,
      from,
      to: C.ALL_RELAYS_AND_SERVERS,
      fromPort: C.CLIENT_PORT,
      toPort: C.SERVER_PORT,
      payload: emitMessage(message),
    });
    if (sent === undefined) this.context.counters.fault('too-long');
    return sent === undefined ? [] : [sent];
  }

  private compose(message: Message): void {
    const { state } = this;
    if (state === 'request') message.serverId = this.chosen!.serverId;
    if (state === 'renew' || state === 'release' || state === 'decline') message.serverId = this.serverId;
    if (state === 'release' || state === 'decline') {
      message.ias = this.iasOf(this.returned, false);
      return;
    }
    if (state === 'confirm') {
      message.ias = this.iasOf(
        this.held.filter((held) => held.kind === 'na'),
        false,
      );
      return;
    }
    message.reconfigureAccept = this.config.reconfigureAccept;
    message.request = [C.OPT_DNS_SERVERS, C.OPT_DOMAIN_LIST];
    if (state === 'information') {
      message.request.push(C.OPT_INFORMATION_REFRESH_TIME, C.OPT_INF_MAX_RT);
      return;
    }
    // §21.24: SOL_MAX_RT is asked for in every message that may be answered with it.
    message.request.push(C.OPT_SOL_MAX_RT);
    message.rapidCommit = state === 'solicit' && this.config.rapidCommit;
    if (state === 'request') {
      // §18.2.2: the IAs of the Advertise, with what it offered as hints.
      message.ias = this.iasOf(heldOf(this.chosen!, 0), true);
    } else message.ias = this.iasOf(this.held, true);
  }

  /** The IAs of these leases; with `all` also those that have nothing yet, with the configured wishes. */
  private iasOf(leases: readonly Held[], all: boolean): Ia[] {
    const ias: Ia[] = [];
    const add = (kind: 'na' | 'pd', iaid: number, hint: { words: Words; prefixLength: number } | null) => {
      const mine = leases.filter((held) => held.kind === kind && held.iaid === iaid);
      if (mine.length === 0 && !all) return;
      const ia = newIa(kind, iaid);
      // §18.2.2 and §21.6: T1, T2 and lifetimes are zero: the client has no wish.
      for (const { words, prefixLength } of mine)
        if (kind === 'na') ia.addresses.push({ words, preferred: 0, valid: 0, status: null });
        else ia.prefixes.push({ words, prefixLength, preferred: 0, valid: 0, status: null });
      if (mine.length === 0 && hint !== null) ia.prefixes.push({ ...hint, preferred: 0, valid: 0, status: null });
      ias.push(ia);
    };
    if (this.config.iaNa) add('na', this.iaid(0), null);
    this.config.iaPd.forEach(({ hint }, n) => {
      add('pd', this.iaid(n), hint);
    });
    return ias;
  }

  /** The same after every start (§12): the port's number and the place in the list. */
  private iaid(n: number): number {
    return (this.port + 1) * 256 + n + 1;
  }

  // --- receiving -----------------------------------------------------------------------------------------------------

  /** One datagram to port 546. */
  receive(now: number, datagram: Datagram): Action[] {
    const { counters } = this.context;
    const message = parseMessage(datagram.payload);
    if (datagram.payload.length > 0) counters.gotMessage(datagram.payload[0]);
    if (message === null) {
      counters.fault('malformed');
      return [];
    }
    if (message.type === C.RECONFIGURE) return this.reconfigure(now, message, datagram.payload);
    if (message.type !== C.ADVERTISE && message.type !== C.REPLY) {
      counters.fault('unexpected');
      return [];
    }
    // §16.3 and §16.10: of whom, for whom, and an answer to what was asked last.
    const mine = this.context.duid(this.config.duid, this.port);
    const forMe = sameBytes(message.clientId, mine) || (message.clientId === null && this.state === 'information');
    const asked = this.exchange !== null && this.exchange.count > 0 && message.xid === this.xid;
    if (message.serverId === null || !forMe || !asked) {
      counters.fault('wrong-transaction');
      return [];
    }
    this.learnMaxRt(message);
    if (message.type === C.ADVERTISE) return this.state === 'solicit' ? this.advertised(now, message) : [];
    return this.replied(now, message);
  }

  /** §18.2.9, §18.2.10: also from messages that are of no other use; for the exchange that is under way, too. */
  private learnMaxRt(message: Message): void {
    const fits = (seconds: number | null): seconds is number =>
      seconds !== null && seconds >= C.MAX_RT_LOW && seconds <= C.MAX_RT_HIGH;
    if (fits(message.solMaxRt)) this.solMaxRt = message.solMaxRt * 1000;
    if (fits(message.infMaxRt)) this.infMaxRt = message.infMaxRt * 1000;
    if (this.state === 'solicit') this.exchange?.limit(this.solMaxRt);
    if (this.state === 'information') this.exchange?.limit(this.infMaxRt);
  }

  private advertised(now: number, message: Message): Action[] {
    const leases = heldOf(message, now).length;
    // §18.2.9: without a lease it is ignored.
    if (leases === 0) return [];
    const offer: Offer = { message, preference: message.preference ?? 0, leases };
    if (this.offers.length < MAX_ADVERTISES) this.offers.push(offer);
    // §18.2.9: highest preference first; among equals the one that gives most.
    this.offers.sort((a, b) => b.preference - a.preference || b.leases - a.leases);
    // §18.2.1: the first RT is for collecting, unless nothing better can come.
    return offer.preference === 255 || this.exchange!.count > 1 ? this.take(now) : [];
  }

  /** Requests what the best offer has. */
  private take(now: number): Action[] {
    this.chosen = this.offers.shift()!.message;
    this.enter(now, 'request', 0);
    return this.send(now);
  }

  private replied(now: number, message: Message): Action[] {
    const { state } = this;
    if (state === 'solicit') {
      // §18.2.10: to a Solicit only with rapid commit, and only when that was asked for.
      if (!message.rapidCommit || !this.config.rapidCommit) {
        this.context.counters.fault('unexpected');
        return [];
      }
      this.offers = [];
    }
    switch (state) {
      case 'information':
        return this.informed(now, message);
      case 'release':
        this.exchange = null;
        this.returned = [];
        this.state = 'idle';
        return [];
      case 'decline':
        this.returned = [];
        this.enter(now, this.held.length > 0 ? 'renew' : 'solicit', 0);
        return [];
      case 'confirm':
        if (message.status?.code === C.NOT_ON_LINK) {
          const actions = this.forget([...this.held], 'not on link');
          this.enter(now, 'solicit', 0);
          return actions;
        }
        this.settle(now);
        return [];
    }
    const code = message.status?.code ?? C.SUCCESS;
    // §18.2.10.1: the server has a trouble of its own: it is asked again in its time.
    if (code === C.UNSPEC_FAIL) return [];
    if (code === C.NOT_ON_LINK) {
      const actions = this.forget([...this.held], 'not on link');
      this.enter(now, 'solicit', 0);
      return actions;
    }
    return this.bind(now, message);
  }

  /** Takes over what a Reply gives, renews and takes away (§18.2.10.1). */
  private bind(now: number, message: Message): Action[] {
    const actions: Action[] = [];
    const by = this.state;
    const given = heldOf(message, now, true).filter((lease) => this.isMine(lease));
    const ended: Held[] = [];
    for (const lease of given) {
      const known = this.held.find((held) => isSame(held, lease));
      if (lease.valid <= now) {
        if (known !== undefined) ended.push(known);
        continue;
      }
      if (known === undefined) this.held.push(lease);
      else Object.assign(known, lease);
      const held = known ?? lease;
      held.deprecated = lease.preferred <= now;
      actions.push(...actionsOf(this.port, held, 'add', now));
      if (held.deprecated) actions.push(...actionsOf(this.port, held, 'deprecate', now));
    }
    if (ended.length > 0) actions.push(...this.forget(ended, 'withdrawn'));
    const live = given.filter((lease) => lease.valid > now);
    // §18.2.10.1: the server has forgotten an IA: it is requested anew, from the same server.
    const lost = message.ias.some((ia) => ia.status?.code === C.NO_BINDING);
    if (lost && (by === 'renew' || by === 'rebind')) {
      this.chosen = requestOf(message);
      this.enter(now, 'request', 0);
      return [...actions, ...this.send(now)];
    }
    if (live.length === 0) {
      // Nothing came of it. A Renew or Rebind goes on in its own time; else from the start, and not at once (§18.2.10.1).
      if (by === 'renew' || by === 'rebind') {
        if (this.held.length === 0) this.enter(now, 'solicit', 0);
        return actions;
      }
      this.chosen = null;
      this.enter(now, 'solicit', C.SOLICIT_TIMING.irt);
      return actions;
    }
    this.serverId = message.serverId;
    this.dns = message.dns;
    this.domains = message.domains;
    this.keepKey(message);
    this.schedule(now, message);
    // An IA that has lost all it had is not left so until T1: a Renew asks for what is missing, too (§18.2.4).
    const isEmpty = ({ kind, iaid }: Held) => !this.held.some((held) => held.kind === kind && held.iaid === iaid);
    if (ended.some(isEmpty)) this.t1 = Math.min(this.t1, now + 1000);
    this.exchange = null;
    this.chosen = null;
    this.offers = [];
    this.state = 'bound';
    return [...actions, this.tell('dhcp6.bound', this.held, now, { by })];
  }

  /** T1 and T2: the server's earliest, or ours (§14.2). */
  private schedule(now: number, message: Message): void {
    const ias = message.ias.filter((ia) => isBelievable(ia) && ia.addresses.length + ia.prefixes.length > 0);
    // What is deprecated already (RFC 9096: the prefix of before) has nothing to be renewed for.
    const lasting = this.held.filter((held) => held.preferred > now);
    const ends = lasting.length > 0 ? lasting.map((held) => held.preferred) : this.held.map((held) => held.valid);
    const least = Math.min(...ends) - now;
    const usable = (seconds: number[]) => Math.min(...seconds.map((t) => (t === C.INFINITY ? FOREVER : t * 1000)));
    const t1 = usable(ias.map((ia) => ia.t1).filter((t) => t !== 0));
    const t2 = usable(ias.map((ia) => ia.t2).filter((t) => t !== 0));
    // Math.min of nothing is Infinity: only when all are zero the choice is the client's.
    const free1 = ias.every((ia) => ia.t1 === 0);
    const free2 = ias.every((ia) => ia.t2 === 0);
    // At least a second: a server that says 0 for all lifetimes but one must not make us send without pause.
    this.t1 = now + Math.max(1000, free1 ? least * 0.5 : t1);
    this.t2 = Math.max(this.t1, now + Math.max(1000, free2 ? least * 0.8 : t2));
  }

  private informed(now: number, message: Message): Action[] {
    this.exchange = null;
    this.state = 'informed';
    this.dns = message.dns;
    this.domains = message.domains;
    this.keepKey(message);
    // §21.23.
    const seconds = Math.max(C.IRT_MINIMUM, message.informationRefresh ?? C.IRT_DEFAULT);
    this.refresh = message.informationRefresh === C.INFINITY ? FOREVER : now + seconds * 1000;
    return [this.tell('dhcp6.information', [], now)];
  }

  // --- reconfigure ---------------------------------------------------------------------------------------------------

  private keepKey(message: Message): void {
    if (this.config.reconfigureAccept) this.key.learn(message);
  }

  /** §18.2.11: only what the server proves with the key that it gave, and nothing twice. */
  private reconfigure(now: number, message: Message, bytes: Uint8Array): Action[] {
    const { counters } = this.context;
    const mine = sameBytes(message.clientId, this.context.duid(this.config.duid, this.port));
    const right =
      this.config.reconfigureAccept &&
      mine &&
      (this.serverId === null || sameBytes(message.serverId, this.serverId)) &&
      this.key.proves(message, bytes);
    if (!right || message.reconfigure === null) {
      counters.fault('not-authentic');
      return [];
    }
    // §18.2.11: one at a time; those that come while it is answered are dropped.
    if (this.state !== 'bound' && this.state !== 'informed') return [];
    this.key.use(message);
    if (message.reconfigure === C.INFORMATION_REQUEST) this.enter(now, 'information', 0);
    else if (this.state === 'bound') this.enter(now, message.reconfigure === C.RENEW ? 'renew' : 'rebind', 0);
    return this.state === 'bound' || this.state === 'informed' ? [] : this.send(now);
  }

  // --- what follows from leases --------------------------------------------------------------------------------------

  private isMine(lease: Held): boolean {
    if (lease.kind === 'na') return this.config.iaNa && lease.iaid === this.iaid(0);
    return this.config.iaPd.some((_, n) => lease.iaid === this.iaid(n));
  }

  /** Takes leases out of use and out of the list. */
  private forget(leases: readonly Held[], reason: string): Action[] {
    const actions = this.drop(leases, reason);
    for (const lease of leases) this.held.splice(this.held.indexOf(lease), 1);
    return actions;
  }

  private drop(leases: readonly Held[], reason: string): Action[] {
    if (leases.length === 0) return [];
    return [
      ...leases.flatMap((held) => actionsOf(this.port, held, 'remove', 0)),
      this.tell('dhcp6.lost', leases, 0, { reason }),
    ];
  }

  private tell(name: string, leases: readonly Held[], now: number, more: Record<string, unknown> = {}): Action {
    return eventOf(name, this.context.names[this.port], leases, now, { dns: this.dns, domains: this.domains }, more);
  }

  /** `dhcp6.start` and `dhcp6.stop` for this port, and the end of the router. */
  hear(now: number, event: Extract<Event, { kind: 'event' }>): Action[] {
    if (event.name === 'router.stop') return this.config.release ? this.stop(now) : [];
    if (event.data.port !== this.context.names[this.port]) return [];
    if (event.name === 'dhcp6.start') return this.start(now, event.data.stateless === true || this.config.stateless);
    return event.name === 'dhcp6.stop' ? this.stop(now) : [];
  }
}
