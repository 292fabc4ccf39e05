/**
 * Receiver of router advertisements: the host side of RFC 4861 §6.3 on a WAN port, with stateless addresses (RFC 4862
 * §5.5), router preferences and more-specific routes (RFC 4191, a host of type C), load sharing among equal routers
 * (RFC 4311) and resolvers (RFC 8106).
 *
 * What is learned leaves as actions: addresses, routes, and the events
 *
 *   ra.router  a default router came, changed or says something new: { port, router, managed, other, lifetime, mtu }
 *   ra.lost    the port has no default router any more: { port }
 *   ra.dns     the resolvers learned on the port, all of them: { port, servers, domains }
 *   ra.slaac   an address was made from a prefix: { port, address, prefixLength }
 *
 * Solicitations begin when the link-local address has passed duplicate address detection, and go on with longer and
 * longer pauses while nobody answers (RFC 7559). Tables are bounded: a hostile router cannot fill memory, what finds no
 * room is counted. Lifetimes may be longer than the router's clock can count (30 days are usual), so times here are
 * milliseconds that do not wrap.
 *
 * Not here: the link's MTU, hop limit and timers that routers suggest (told in the event only), redirects, SEND.
 */
import { IF_MAC_HI, IF_MAC_LO, IF_MTU, type InterfaceTable } from '../../dataplane/interfaces.ts';
import { formatCidr, formatIpv6, type Words } from '../../dataplane/wire/address.ts';
import * as icmpv6 from '../../dataplane/wire/icmpv6.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import { Clock } from '../dhcp6/deadlines.ts';
import { type Addresses, isUsable } from '../neighbour/addresses.ts';
import type { Action, Event, Protocol } from '../protocol.ts';
import { type RandomSource, uniform } from '../random.ts';
import { ALL_ROUTERS, discoveryFrame, readDiscovery } from './frame.ts';
import { type Advertisement, endOf, type Preference, readAdvertisement, writeSolicitation } from './message.ts';
import { Slaac, type SlaacConfig } from './slaac.ts';

export interface RaReceiverConfig extends SlaacConfig {
  /** Name of the port in the configuration: part of stable identifiers, and of events. */
  name: string;
  /** Take default routes and more-specific ones. */
  routes: boolean;
  /** Take resolvers. */
  dns: boolean;
}

/** RFC 4861 §10, RFC 7559 §2; milliseconds. */
const MAX_RTR_SOLICITATION_DELAY = 1_000;
const RTR_SOLICITATION_INTERVAL = 4_000;
const MAX_SOLICITATION_INTERVAL = 3_600_000;
/** Bounds of what one port remembers. */
const MAX_ROUTERS = 16;
const MAX_ROUTES = 64;
const MAX_SERVERS = 16;
/** How often the reachability of several routers is looked at. */
const REACHABILITY_INTERVAL = 1_000;
/** The router's clock wraps: it must be seen again before. */
const LONGEST_WAIT = 0x3fffffff;

const RANK: Readonly<Record<Preference, number>> = { low: 0, medium: 1, high: 2 };
const PREFERENCES: readonly Preference[] = ['low', 'medium', 'high'];
const DEFAULT: Words = [0, 0, 0, 0];

/** One router's word about one prefix (::/0: it is a default router). */
interface Candidate {
  router: Words;
  words: Words;
  prefixLength: number;
  rank: number;
  /** null: for ever. */
  until: number | null;
}

interface Learned<T> {
  value: T;
  until: number | null;
}

interface Wan {
  port: number;
  config: RaReceiverConfig;
  /** Time of the next solicitation; null: none is wanted. */
  solicitAt: number | null;
  /** Milliseconds to the one after that; 0: none was sent yet. */
  pause: number;
  ready: boolean;
  candidates: Candidate[];
  /** Routes in force: what was told by the actions. */
  installed: Map<string, Candidate>;
  servers: Map<string, Learned<Words>>;
  domains: Map<string, Learned<string>>;
  /** Last events, so that only news is told; by router, in the order in which they began. */
  saidRouter: Map<string, string>;
  saidDns: string;
  hadDefault: boolean;
  checkedAt: number;
  slaac: Slaac;
}

export class RaReceiver implements Protocol {
  readonly name = 'ra-receiver';
  readonly counters = { received: 0, invalid: 0, malformed: 0, solicitations: 0, full: 0, ignored: 0 };
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly random: RandomSource;
  private readonly isDead: (port: number, router: Words) => boolean;
  private readonly wans = new Map<number, Wan>();
  private readonly clock = new Clock(0);

  /** @param isDead whether neighbour unreachability detection has given the router up (RFC 4861 §6.3.6) */
  constructor(
    interfaces: InterfaceTable,
    addresses: Addresses,
    ports: ReadonlyMap<number, RaReceiverConfig>,
    options: { random: RandomSource; isDead: (port: number, router: Words) => boolean },
  ) {
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.random = options.random;
    this.isDead = options.isDead;
    for (const [port, config] of ports)
      this.wans.set(port, {
        port,
        config,
        solicitAt: null,
        pause: 0,
        ready: false,
        candidates: [],
        installed: new Map(),
        servers: new Map(),
        domains: new Map(),
        saidRouter: new Map(),
        saidDns: '',
        hadDefault: false,
        checkedAt: Number.NEGATIVE_INFINITY,
        slaac: new Slaac(port, config, interfaces, addresses, options.random, this.counters),
      });
  }

  /** What routers have told: default routes (::/0) and others, seconds that are left; null: for ever. */
  view(
    clock: number,
  ): { port: number; router: string; prefix: string; preference: Preference; valid: number | null }[] {
    const now = this.clock.at(clock);
    return [...this.wans.values()].flatMap(({ port, candidates }) =>
      candidates.map(({ router, words, prefixLength, rank, until }) => ({
        port,
        router: formatIpv6(...router),
        prefix: formatCidr(6, words, prefixLength),
        preference: PREFERENCES[rank],
        valid: until === null ? null : Math.max(0, Math.round((until - now) / 1000)),
      })),
    );
  }

  step(clock: number, event: Event): Action[] {
    const now = this.clock.at(clock);
    const out: Action[] = [];
    if (event.kind === 'frame') {
      const wan = this.wans.get(event.port);
      if (wan !== undefined) this.receive(now, wan, event, out);
    } else if (event.kind === 'link' && !event.up) {
      const wan = this.wans.get(event.port);
      if (wan !== undefined) this.forget(now, wan, out);
    }
    for (const wan of this.wans.values()) this.turn(now, wan, out);
    return out;
  }

  next(clock: number): number {
    const now = this.clock.at(clock);
    let next = Number.POSITIVE_INFINITY;
    const consider = (at: number | null): void => {
      if (at !== null) next = Math.min(next, Math.max(0, at - now));
    };
    for (const wan of this.wans.values()) {
      consider(wan.solicitAt);
      for (const candidate of wan.candidates) consider(candidate.until);
      for (const { until } of wan.servers.values()) consider(until);
      for (const { until } of wan.domains.values()) consider(until);
      if (wan.candidates.length > 1) consider(wan.checkedAt + REACHABILITY_INTERVAL);
      consider(wan.slaac.next());
    }
    return next === Number.POSITIVE_INFINITY ? -1 : Math.min(next, LONGEST_WAIT);
  }

  private receive(now: number, wan: Wan, event: Extract<Event, { kind: 'frame' }>, out: Action[]): void {
    const found = readDiscovery(this.interfaces, event);
    if (found === null) return;
    if (found === 'invalid') {
      this.counters.invalid++;
      return;
    }
    if (found.type !== icmpv6.ROUTER_ADVERTISEMENT) return;
    this.counters.received++;
    const { message, malformed } = readAdvertisement(event.frame, found.at, found.end);
    this.counters.malformed += malformed;
    // RFC 7559 §2.1: a default router is what the solicitations were for.
    if (message.lifetime > 0) wan.solicitAt = null;
    if (wan.config.routes) this.learnRoutes(now, wan, found.source, message);
    if (wan.config.dns) this.learnResolvers(now, wan, message);
    for (const prefix of message.prefixes) wan.slaac.prefix(now, prefix, out);
    this.tellRouter(wan, found.source, message, out);
  }

  private learnRoutes(now: number, wan: Wan, router: Words, message: Advertisement): void {
    this.learn(now, wan, router, DEFAULT, 0, RANK[message.preference], message.lifetime);
    for (const route of message.routes) {
      // RFC 4191 §3.1: a route option for ::/0 goes before what the header says.
      if (route.prefixLength > 0 && isLinkLocal(route.words[0])) this.counters.ignored++;
      else this.learn(now, wan, router, route.words, route.prefixLength, RANK[route.preference], route.lifetime);
    }
  }

  private learn(now: number, wan: Wan, router: Words, words: Words, length: number, rank: number, lifetime: number) {
    const at = wan.candidates.findIndex(
      (c) => c.prefixLength === length && same(c.words, words) && same(c.router, router),
    );
    if (at >= 0) wan.candidates.splice(at, 1);
    if (lifetime === 0) return;
    const routers = new Set(wan.candidates.map((c) => c.router.join()));
    if (wan.candidates.length >= MAX_ROUTES || (routers.size >= MAX_ROUTERS && !routers.has(router.join()))) {
      this.counters.full++;
      return;
    }
    wan.candidates.push({ router, words, prefixLength: length, rank, until: endOf(now, lifetime) });
  }

  private learnResolvers(now: number, wan: Wan, message: Advertisement): void {
    const put = <T>(map: Map<string, Learned<T>>, key: string, value: T, lifetime: number): void => {
      if (lifetime === 0) map.delete(key);
      else if (map.size >= MAX_SERVERS && !map.has(key)) this.counters.full++;
      else map.set(key, { value, until: endOf(now, lifetime) });
    };
    for (const { servers, lifetime } of message.rdnss)
      for (const words of servers) put(wan.servers, words.join(), words, lifetime);
    for (const { domains, lifetime } of message.dnssl)
      for (const domain of domains) put(wan.domains, domain, domain, lifetime);
  }

  private tellRouter(wan: Wan, router: Words, message: Advertisement, out: Action[]): void {
    const { managed, other, lifetime } = message;
    // RFC 4861 §4.6.4, RFC 8200 §5: an MTU out of these bounds is ignored.
    const linkMtu = this.interfaces.words[this.interfaces.at(wan.port) + IF_MTU];
    const mtu = message.mtu >= 1280 && message.mtu <= linkMtu ? message.mtu : 0;
    const who = formatIpv6(...router);
    const data = { port: wan.config.name, router: who, managed, other, lifetime, mtu };
    const said = JSON.stringify(data);
    if (said === wan.saidRouter.get(who)) return;
    if (wan.saidRouter.size >= MAX_ROUTERS && !wan.saidRouter.has(who)) {
      // The one that spoke first makes room.
      const [first] = wan.saidRouter.keys();
      wan.saidRouter.delete(first);
    }
    wan.saidRouter.set(who, said);
    out.push({ kind: 'event', name: 'ra.router', data });
  }

  /** What is due: solicitations, ends of lifetimes, and the routes that follow. */
  private turn(now: number, wan: Wan, out: Action[]): void {
    const source = this.source(wan.port);
    const ready = source !== null && this.interfaces.isUp(wan.port);
    if (ready !== wan.ready) {
      wan.ready = ready;
      wan.pause = 0;
      // §6.3.7: a random delay before the first.
      wan.solicitAt = ready ? now + uniform(this.random, 0, MAX_RTR_SOLICITATION_DELAY) : null;
    }
    if (ready && wan.solicitAt !== null && wan.solicitAt <= now) this.solicit(now, wan, source, out);
    wan.candidates = wan.candidates.filter(({ until }) => until === null || until > now);
    for (const map of [wan.servers, wan.domains] as Map<string, Learned<unknown>>[])
      for (const [key, { until }] of map) if (until !== null && until <= now) map.delete(key);
    if (wan.candidates.length > 1 && now - wan.checkedAt >= REACHABILITY_INTERVAL) wan.checkedAt = now;
    wan.slaac.turn(now, out);
    this.install(now, wan, out);
    this.tellResolvers(wan, out);
  }

  private solicit(now: number, wan: Wan, source: Words, out: Action[]): void {
    const w = this.interfaces.words;
    const at = this.interfaces.at(wan.port);
    const message = writeSolicitation({ lo: w[at + IF_MAC_LO], hi: w[at + IF_MAC_HI] });
    out.push({
      kind: 'send',
      port: wan.port,
      frame: discoveryFrame(this.interfaces, wan.port, source, ALL_ROUTERS, message),
    });
    this.counters.solicitations++;
    // RFC 7559 §2 with the timers of RFC 8415 §15: doubling, a tenth of randomness, never beyond an hour.
    wan.pause = wan.pause === 0 ? RTR_SOLICITATION_INTERVAL : Math.min(wan.pause * 2, MAX_SOLICITATION_INTERVAL);
    wan.solicitAt = now + uniform(this.random, Math.floor(wan.pause * 0.9), Math.floor(wan.pause * 1.1));
  }

  /**
   * RFC 4191 §3.2: for each prefix the reachable routers of the highest preference; when none is reachable, all count
   * again (§6.3.6 of RFC 4861). Equal ones share the load: they become one group of next hops (RFC 4311 §3).
   */
  private install(now: number, wan: Wan, out: Action[]): void {
    const wanted = new Map<string, Candidate>();
    const byPrefix = new Map<string, Candidate[]>();
    for (const candidate of wan.candidates) {
      const key = `${candidate.words.join()}/${candidate.prefixLength}`;
      const list = byPrefix.get(key);
      if (list === undefined) byPrefix.set(key, [candidate]);
      else list.push(candidate);
    }
    for (const [key, list] of byPrefix) {
      const alive = list.length > 1 ? list.filter((c) => !this.isDead(wan.port, c.router)) : list;
      const usable = alive.length > 0 ? alive : list;
      const best = Math.max(...usable.map((c) => c.rank));
      for (const c of usable) if (c.rank === best) wanted.set(`${key} ${c.router.join()}`, c);
    }
    for (const [key, c] of wan.installed)
      if (!wanted.has(key)) {
        out.push(route('remove', wan.port, c));
        wan.installed.delete(key);
      }
    for (const [key, c] of wanted)
      if (!wan.installed.has(key)) {
        out.push(route('add', wan.port, c));
        wan.installed.set(key, c);
      }
    const hasDefault = [...wanted.values()].some((c) => c.prefixLength === 0);
    if (wan.hadDefault && !hasDefault) {
      wan.saidRouter.clear();
      out.push({ kind: 'event', name: 'ra.lost', data: { port: wan.config.name } });
      if (wan.ready && wan.solicitAt === null) {
        wan.pause = 0;
        wan.solicitAt = now + uniform(this.random, 0, MAX_RTR_SOLICITATION_DELAY);
      }
    }
    wan.hadDefault = hasDefault;
  }

  private tellResolvers(wan: Wan, out: Action[]): void {
    if (!wan.config.dns) return;
    const servers = [...wan.servers.values()].map(({ value }) => formatIpv6(...value));
    const domains = [...wan.domains.keys()];
    const said = JSON.stringify([servers, domains]);
    if (said === (wan.saidDns === '' ? '[[],[]]' : wan.saidDns)) return;
    wan.saidDns = said;
    out.push({ kind: 'event', name: 'ra.dns', data: { port: wan.config.name, servers, domains } });
  }

  /** The link is gone: another one may come, with other routers and prefixes. */
  private forget(now: number, wan: Wan, out: Action[]): void {
    wan.candidates = [];
    wan.servers.clear();
    wan.domains.clear();
    wan.slaac.forget(out);
    wan.ready = false;
    wan.solicitAt = null;
    this.install(now, wan, out);
  }

  private source(port: number): Words | null {
    for (const own of this.addresses.ofPort(port))
      if (own.family === 6 && isUsable(own) && isLinkLocal(own.words[0])) return own.words;
    return null;
  }
}

function route(op: 'add' | 'remove', port: number, c: Candidate): Action {
  const { words, prefixLength, router } = c;
  return { kind: 'route', op, family: 6, words, prefixLength, via: router, port, source: 'ra' };
}

function same(a: Words, b: Words): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2] && a[3] === b[3];
}
