/**
 * Sender of router advertisements: one state per LAN port (RFC 4861 §6.2, RFC 4191, RFC 8106, RFC 9096).
 *
 * What is announced follows the address book: every prefix that the port has an address in, with what is left of its
 * lifetimes; so whoever gives the port an address (configuration, the gateway with a delegated prefix) need not tell
 * this file. A prefix that goes away is announced with lifetimes of 0 until no host can still hold it (RFC 9096 §3.5),
 * and every change is announced at once, three times over. Prefixes that were delegated to the router are announced as
 * routes through it (RFC 7084 L-3), as the gateway's event `gateway.prefixes` tells.
 *
 * Timing: the first three advertisements at most 16 s apart, then random between the two ends of `interval`; answers to
 * solicitations within half a second; never two to all nodes within 3 s (§6.2.6). With `default: routed` the router
 * announces itself as default router only while it has a default route of its own (RFC 7084 G-4), and to no hosts that
 * have unique local prefixes alone (ULA-5).
 *
 * Not here: unicast answers, what other routers on the link announce (only noticed, §6.2.7), home agents.
 */
import { IF_MAC_HI, IF_MAC_LO, IF_MTU, type InterfaceTable } from '../../dataplane/interfaces.ts';
import { formatCidr, formatIpv6, networkWords, parseCidr, type Words } from '../../dataplane/wire/address.ts';
import * as icmpv6 from '../../dataplane/wire/icmpv6.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import { type Addresses, isUsable } from '../neighbour/addresses.ts';
import { type Action, type Event, FAREWELLS, type Protocol } from '../protocol.ts';
import { type RandomSource, uniform } from '../random.ts';
import { ALL_NODES, discoveryFrame, readDiscovery } from './frame.ts';
import {
  type Advertisement,
  INFINITE,
  type Preference,
  type PrefixOption,
  type RouteOption,
  readAdvertisement,
  writeAdvertisement,
} from './message.ts';

/** What one port announces; times in seconds where nothing else is said. */
export interface RaSenderConfig {
  managed: boolean;
  other: boolean;
  /** Shortest and longest time between two unsolicited advertisements. */
  interval: readonly [number, number];
  /** Router lifetime. */
  lifetime: number;
  /** `routed`: lifetime 0 while the router has no default route itself, or the port no prefix that is more than local. */
  default: 'always' | 'routed';
  preference: Preference;
  hopLimit: number;
  /** Milliseconds; 0: unspecified. */
  reachable: number;
  retransmit: number;
  /** Announce the port's MTU. */
  mtu: boolean;
  /** Lifetimes of prefixes of configured addresses, and the longest of any other. */
  preferred: number;
  valid: number;
  autonomous: boolean;
  onLink: boolean;
  /** Resolvers; `router`: the port's own address. */
  rdnss: readonly Words[] | 'router';
  dnssl: readonly string[];
  routes: readonly RouteOption[];
}

/** RFC 4861 §6.2.1 and §10, milliseconds. */
const MAX_INITIAL_INTERVAL = 16_000;
const MAX_INITIAL = 3;
const MIN_DELAY_BETWEEN_RAS = 3_000;
const MAX_RA_DELAY = 500;
/** Longest lifetime of a route to a delegated prefix, seconds: less than RFC 9096 §3.4 allows a prefix. */
const ROUTE_LIFETIME = 1800;
/**
 * Prefixes, and routes, that are gone and still taken back: a provider that renumbers all the time must not make the advertisement
 * longer than the link takes. Those that went first have been told the longest.
 */
const MAX_STALE = 16;
/** Seconds: as long as the clock can count. */
const LONGEST = 2_000_000;
/** Other routers on a link that are remembered, so as to complain about each once. */
const MAX_STRANGERS = 64;

interface Announced {
  words: Words;
  prefixLength: number;
}

interface Lan {
  port: number;
  config: RaSenderConfig;
  /** Clock of the next advertisement; null: the port cannot speak yet. */
  at: number | null;
  /** Of the initial ones, how many are still to come. */
  initial: number;
  lastSent: number | null;
  /** What the last advertisement said, without what passes by itself: to notice changes. */
  said: string;
  /** Whether the router had a default route then. */
  hadDefault: boolean;
  prefixes: Map<string, Announced>;
  /** Prefixes that are gone, and until when that is said. */
  stale: Map<string, Announced & { until: number }>;
  /** Delegated prefixes, and until when they are the router's; null: for ever. */
  routes: Map<string, Announced & { until: number | null }>;
  /** Those that are gone, and until when that is said. */
  staleRoutes: Map<string, Announced & { until: number }>;
}

export class RaSender implements Protocol {
  readonly name = 'ra';
  readonly counters = { sent: 0, solicited: 0, invalid: 0, foreign: 0 };
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly random: RandomSource;
  private readonly hasDefault: () => boolean;
  private readonly translates: boolean;
  private readonly lans = new Map<number, Lan>();
  private readonly strangers = new Set<string>();
  /** The router ends: final advertisements only. */
  private ended = false;

  /**
   * @param hasDefault whether the router has an IPv6 default route now
   * @param translates unique local addresses become others on their way out (NPTv6)
   */
  constructor(
    interfaces: InterfaceTable,
    addresses: Addresses,
    ports: ReadonlyMap<number, RaSenderConfig>,
    options: { random: RandomSource; hasDefault: () => boolean; translates: boolean },
  ) {
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.random = options.random;
    this.hasDefault = options.hasDefault;
    this.translates = options.translates;
    for (const [port, config] of ports)
      this.lans.set(port, {
        port,
        config,
        at: null,
        initial: MAX_INITIAL,
        lastSent: null,
        said: '',
        hadDefault: false,
        prefixes: new Map(),
        stale: new Map(),
        routes: new Map(),
        staleRoutes: new Map(),
      });
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    if (event.kind === 'frame') this.receive(now, event, out);
    else if (event.kind === 'link') {
      const lan = this.lans.get(event.port);
      // §6.2.4: an interface that becomes an advertising one begins with the initial advertisements.
      if (lan !== undefined) {
        lan.initial = MAX_INITIAL;
        lan.at = null;
      }
    } else if (event.kind === 'event' && event.name === 'router.stop') {
      this.ended = true;
      for (const lan of this.lans.values()) this.farewell(now, lan, out);
    }
    if (this.ended) return out;
    if (event.kind === 'event' && event.name === 'ra.cease') this.cease(now, Number(event.data.port), out);
    if (event.kind === 'event' && event.name === 'gateway.prefixes') this.learn(now, event.data);
    for (const lan of this.lans.values()) this.turn(now, lan, out);
    return out;
  }

  next(now: number): number {
    let next = -1;
    for (const lan of this.lans.values()) {
      if (lan.at === null || this.ended) continue;
      // RFC 7084 G-5: the routing table is somebody else's, who may have changed it without an event.
      if (lan.config.default === 'routed' && lan.hadDefault !== this.hasDefault()) return 0;
      const wait = Math.max(0, (lan.at - now) | 0);
      if (next < 0 || wait < next) next = wait;
    }
    return next;
  }

  /** What each port announces: prefixes, and those that it takes back. */
  view(): { port: number; prefixes: string[]; withdrawn: string[] }[] {
    const texts = (list: Iterable<Announced>) =>
      Array.from(list, ({ words, prefixLength }) => formatCidr(6, words, prefixLength));
    return [...this.lans.values()].map(({ port, prefixes, stale }) => ({
      port,
      prefixes: texts(prefixes.values()),
      withdrawn: texts(stale.values()),
    }));
  }

  /** What was delegated to the router now: { ports, prefixes: [{ prefix, valid }] }, all of it. */
  private learn(now: number, { ports, prefixes }: Record<string, unknown>): void {
    const routes: Lan['routes'] = new Map();
    for (const { prefix, valid } of prefixes as { prefix: string; valid: number | null }[]) {
      const cidr = parseCidr(prefix);
      if (cidr?.family !== 6) continue;
      const { words, prefixLength } = cidr;
      routes.set(keyOf(cidr), { words, prefixLength, until: valid === null ? null : deadline(now, valid) });
    }
    for (const port of ports as number[]) {
      const lan = this.lans.get(port);
      if (lan === undefined) continue;
      const until = (now + ROUTE_LIFETIME * 1000) | 0;
      for (const [key, gone] of lan.routes) if (!routes.has(key)) lan.staleRoutes.set(key, { ...gone, until });
      for (const key of routes.keys()) lan.staleRoutes.delete(key);
      lan.routes = routes;
      bound(lan.staleRoutes);
    }
  }

  private turn(now: number, lan: Lan, out: Action[]): void {
    if (!this.interfaces.isUp(lan.port) || this.source(lan.port) === null) {
      lan.at = null;
      return;
    }
    const message = this.compose(now, lan);
    const said = summary(message);
    if (said !== lan.said) {
      // §6.2.4: changed information may be sent like the initial advertisements.
      lan.said = said;
      lan.initial = MAX_INITIAL;
      this.schedule(now, lan, now);
    } else if (lan.at === null) this.schedule(now, lan, now);
    if (lan.at === null || ((lan.at - now) | 0) > 0) return;
    this.send(lan, message, out);
    lan.lastSent = now;
    const [low, high] = lan.config.interval;
    let wait = uniform(this.random, low * 1000, high * 1000);
    if (lan.initial > 0) {
      lan.initial--;
      wait = Math.min(wait, MAX_INITIAL_INTERVAL);
    }
    lan.at = (now + wait) | 0;
  }

  /** Sends no later than `at`, but not within 3 s of the last one. */
  private schedule(now: number, lan: Lan, at: number): void {
    const soonest = lan.lastSent === null ? now : (lan.lastSent + MIN_DELAY_BETWEEN_RAS) | 0;
    const when = ((at - soonest) | 0) < 0 ? soonest : at;
    if (lan.at === null || ((when - lan.at) | 0) < 0) lan.at = when;
  }

  private receive(now: number, event: Extract<Event, { kind: 'frame' }>, out: Action[]): void {
    const lan = this.lans.get(event.port);
    if (lan === undefined) return;
    const message = readDiscovery(this.interfaces, event);
    if (message === null) return;
    if (message === 'invalid') {
      this.counters.invalid++;
      return;
    }
    if (message.type === icmpv6.ROUTER_SOLICITATION) {
      this.counters.solicited++;
      // §6.2.6: a random delay, so that two routers do not answer at once; the answer goes to all nodes.
      if (lan.at !== null) this.schedule(now, lan, (now + uniform(this.random, 0, MAX_RA_DELAY)) | 0);
      return;
    }
    this.compare(lan, readAdvertisement(event.frame, message.at, message.end).message, message.source, out);
  }

  /** §6.2.7: another router on our LAN; what it says against us is for a person to look at. */
  private compare(lan: Lan, theirs: Advertisement, source: Words, out: Action[]): void {
    this.counters.foreign++;
    const who = formatIpv6(...source);
    if (this.strangers.has(who) || this.strangers.size >= MAX_STRANGERS) return;
    this.strangers.add(who);
    const { config } = lan;
    const differences: string[] = [];
    if (theirs.managed !== config.managed) differences.push(`M ${Number(theirs.managed)}`);
    if (theirs.other !== config.other) differences.push(`O ${Number(theirs.other)}`);
    for (const prefix of theirs.prefixes)
      if (!lan.prefixes.has(keyOf(prefix)))
        differences.push(`prefix ${formatCidr(6, prefix.words, prefix.prefixLength)}`);
    const what = differences.length === 0 ? 'the same as we do' : differences.join(', ');
    const message = `ra: port ${lan.port}: ${who} advertises itself too: lifetime ${theirs.lifetime} s, ${what}`;
    out.push({ kind: 'log', level: 'warn', message });
    out.push({ kind: 'event', name: 'ra.foreign', data: { port: lan.port, router: who, differences } });
  }

  /** What is to be said now; keeps the lists of live and of stale prefixes. */
  private compose(now: number, lan: Lan): Advertisement {
    const { config } = lan;
    const prefixes: PrefixOption[] = [];
    const live = new Map<string, Announced>();
    for (const own of this.addresses.ofPort(lan.port)) {
      if (own.family !== 6 || !isUsable(own) || isLinkLocal(own.words[0]) || own.prefixLength > 126) continue;
      const words = networkWords(6, own.words, own.prefixLength);
      const known = { words, prefixLength: own.prefixLength };
      if (live.has(keyOf(known))) continue;
      live.set(keyOf(known), known);
      const valid = left(now, own.lifetimes?.valid, config.valid);
      const preferred =
        own.state === 'deprecated' ? 0 : Math.min(valid, left(now, own.lifetimes?.preferred, config.preferred));
      // RFC 4862 §5.5.3: identifiers have 64 bits, so only a /64 is for autonomous configuration.
      const autonomous = config.autonomous && own.prefixLength === 64;
      prefixes.push({ ...known, onLink: config.onLink, autonomous, valid, preferred });
    }
    for (const [key, gone] of lan.prefixes)
      if (!live.has(key)) lan.stale.set(key, { ...gone, until: (now + Math.min(config.valid, LONGEST) * 1000) | 0 });
    bound(lan.stale);
    lan.prefixes = live;
    for (const [key, gone] of lan.stale) {
      if (live.has(key) || ((gone.until - now) | 0) <= 0) lan.stale.delete(key);
      else {
        // RFC 9096 §3.5: both lifetimes 0 and the flags as before, until nobody can have the prefix any more.
        const { words, prefixLength } = gone;
        prefixes.push({
          words,
          prefixLength,
          onLink: config.onLink,
          autonomous: config.autonomous && prefixLength === 64,
          valid: 0,
          preferred: 0,
        });
      }
    }
    const w = this.interfaces.words;
    const at = this.interfaces.at(lan.port);
    // RFC 7084 ULA-5, L-4: for unique local addresses there is no way out, unless they are translated.
    const isLocal = live.size > 0 && [...live.values()].every(({ words }) => (words[0] & 0xfe) === 0xfc);
    lan.hadDefault = this.hasDefault();
    const isDefault = config.default === 'always' || (lan.hadDefault && (this.translates || !isLocal));
    const servers = config.rdnss === 'router' ? this.resolver(lan.port) : [...config.rdnss];
    return {
      hopLimit: config.hopLimit,
      managed: config.managed,
      other: config.other,
      preference: config.preference,
      lifetime: isDefault ? config.lifetime : 0,
      reachable: config.reachable,
      retransmit: config.retransmit,
      mac: { lo: w[at + IF_MAC_LO], hi: w[at + IF_MAC_HI] },
      mtu: config.mtu ? w[at + IF_MTU] : 0,
      prefixes,
      routes: this.routesOf(now, lan),
      // RFC 8106 §5.1: at least the longest interval; three times that survives a lost message.
      rdnss: servers.length === 0 ? [] : [{ servers, lifetime: 3 * config.interval[1] }],
      dnssl: config.dnssl.length === 0 ? [] : [{ domains: [...config.dnssl], lifetime: 3 * config.interval[1] }],
    };
  }

  /** Configured routes, and those to delegated prefixes; what was taken back has a lifetime of 0. */
  private routesOf(now: number, lan: Lan): RouteOption[] {
    const routes = [...lan.config.routes];
    const tell = ({ words, prefixLength }: Announced, lifetime: number): void => {
      if (!lan.config.routes.some((route) => keyOf(route) === keyOf({ words, prefixLength })))
        routes.push({ words, prefixLength, preference: 'medium', lifetime });
    };
    for (const route of lan.routes.values()) tell(route, left(now, route.until, ROUTE_LIFETIME));
    for (const [key, gone] of lan.staleRoutes)
      if (((gone.until - now) | 0) <= 0) lan.staleRoutes.delete(key);
      else tell(gone, 0);
    return routes;
  }

  /** The router's own address that hosts shall ask: a unique local one, which outlives renumbering, before others. */
  private resolver(port: number): Words[] {
    let best: Words | null = null;
    for (const own of this.addresses.ofPort(port)) {
      if (own.family !== 6 || own.state !== 'preferred') continue;
      if ((own.words[0] & 0xfe) === 0xfc) return [own.words];
      if (best === null || isLinkLocal(best[0])) best = own.words;
    }
    return best === null ? [] : [best];
  }

  private send(lan: Lan, message: Advertisement, out: Action[]): void {
    const source = this.source(lan.port);
    if (source === null) return;
    const frame = discoveryFrame(this.interfaces, lan.port, source, ALL_NODES, writeAdvertisement(message));
    this.counters.sent++;
    out.push({ kind: 'send', port: lan.port, frame });
  }

  /** §6.2.5: the port is to be an advertising interface no more, while the router goes on. */
  private cease(now: number, port: number, out: Action[]): void {
    const lan = this.lans.get(port);
    if (lan === undefined) return;
    for (let n = 0; n < FAREWELLS; n++) this.farewell(now, lan, out);
    this.lans.delete(port);
  }

  /**
   * §6.2.5: a router that ceases to be one says so with a lifetime of 0, and takes back what else leads to it. Once for each
   * event `router.stop`: whoever stops the router sends it MAX_FINAL_RTR_ADVERTISEMENTS times.
   */
  private farewell(now: number, lan: Lan, out: Action[]): void {
    if (lan.lastSent === null || !this.interfaces.isUp(lan.port)) return;
    const message = this.compose(now, lan);
    const gone = <T extends { lifetime: number }>(options: readonly T[]): T[] =>
      options.map((option) => ({ ...option, lifetime: 0 }));
    const { routes, rdnss, dnssl } = message;
    this.send(lan, { ...message, lifetime: 0, routes: gone(routes), rdnss: gone(rdnss), dnssl: gone(dnssl) }, out);
  }

  /** The port's link-local address, once it has passed duplicate address detection. */
  private source(port: number): Words | null {
    for (const own of this.addresses.ofPort(port))
      if (own.family === 6 && isUsable(own) && isLinkLocal(own.words[0])) return own.words;
    return null;
  }
}

/** Seconds left of a lifetime, at most `limit`; `until` absent: a configured address, null: for ever. */
function left(now: number, until: number | null | undefined, limit: number): number {
  if (until === undefined || until === null) return limit;
  return Math.min(limit, Math.max(0, Math.floor(((until - now) | 0) / 1000)));
}

/** Keeps the latest of what is gone. */
function bound(stale: Map<string, unknown>): void {
  for (const key of [...stale.keys()].slice(0, Math.max(0, stale.size - MAX_STALE))) stale.delete(key);
}

/** Clock at which a lifetime of seconds ends; null: later than the clock can count, by when it has been told again. */
function deadline(now: number, seconds: number): number | null {
  return seconds > LONGEST ? null : (now + seconds * 1000) | 0;
}

function keyOf(prefix: { words: Words; prefixLength: number }): string {
  return `${prefix.words.join()}/${prefix.prefixLength}`;
}

/** What makes an advertisement another one; lifetimes that run down do not, one that has ended does. */
function summary(message: Advertisement): string {
  const time = (seconds: number) => (seconds === 0 ? 0 : seconds === INFINITE ? 'inf' : 1);
  return JSON.stringify({
    ...message,
    prefixes: message.prefixes.map((p) => [p.words, p.prefixLength, time(p.valid), time(p.preferred)]),
    routes: message.routes.map((r) => [r.words, r.prefixLength, r.preference, time(r.lifetime)]),
  });
}
