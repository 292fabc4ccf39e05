/**
 * Control: the part of the router that decides. It turns the configuration into tables, passes events on to the protocols,
 * and does what they want done. The protocols are in domains, whose life is in domains.ts.
 *
 * One instance, on the main thread (or inline, in the only thread). It is the one writer of interfaces, routes, next hops,
 * filter and NAT rules. It knows no timers: `next` says when it wants to be ticked. What it sends goes
 * through an Outlet, which is the path itself inline, and a ring to a worker live.
 */
import { fillTimeouts } from '../conntrack/timeouts.ts';
import { FilterWriter } from '../dataplane/filter.ts';
import * as IF from '../dataplane/interfaces.ts';
import {
  MAX_MEMBERS,
  type NextHopSpec,
  NextHopWriter,
  NH_BROADCAST,
  NH_CONNECTED,
  NH_GROUP,
  NH_LOCAL,
} from '../dataplane/nexthops.ts';
import { RouteWriter } from '../dataplane/routes.ts';
import { EPOCH_FILTER, EPOCH_LINK, EPOCH_NAT, EPOCH_ROUTE, type Tables } from '../dataplane/tables.ts';
import type { Family, Words } from '../dataplane/wire/address.ts';
import { formatCidr, inPrefix, maskWords, networkWords } from '../dataplane/wire/address.ts';
import { isLinkLocal } from '../dataplane/wire/ipv6.ts';
import { BlockLog } from './carrier/log.ts';
import { fillHelpers, HELPER_NUMBERS } from './compile-helpers.ts';
import { compileNat } from './compile-nat.ts';
import { compileRules, tableZone } from './compile-rules.ts';
import type { Config, PortConfig, PrefixValue, Where } from './config/index.ts';
import { type DomainName, MAX_ROUNDS } from './domain.ts';
import { Domains } from './domains.ts';
import { Hosts } from './hosts.ts';
import { LearnedRoutes } from './learned-routes.ts';
import { NatState } from './nat-state.ts';
import { Addresses, type OwnAddress } from './neighbour/addresses.ts';
import { bestRoutes, type OwnRoute, ownRoutes, type PortAddress } from './own-routes.ts';
import { PolicyRouting } from './policy-routing.ts';
import type { Action, Event, Protocol, Told } from './protocol.ts';
import { type RandomSource, strongRandom } from './random.ts';
import type { RemoteFactory } from './remote-domain.ts';
import { SecurityGroups } from './security-groups.ts';
import { openServices, speaksIpv6 } from './services.ts';

/** Milliseconds that fit into the router's clock, which compares by difference. */
const LONGEST_WAIT = 0x7fffffff;

/** How the control plane sends. */
export interface Outlet {
  /** A complete frame out of a port. */
  send(port: number, frame: Uint8Array): void;
  /** An IP packet into the path at `output`; `scope`: port of a link-local destination. */
  output(packet: Uint8Array, scope: number): void;
}

export interface Mark {
  routes: number;
  /** Of each table beside the main one. */
  policy: number[];
  nexthops: number;
  filter: number;
}

export interface ControlOptions {
  /** Nothing is sent unasked: no DAD, no gratuitous ARP, no probes (replay, embedding). */
  quiet: boolean;
  log: (level: 'info' | 'warn', message: string) => void;
  /** Milliseconds since 1970 of a time of the router's clock, for logs; absent: by the host's clock. */
  wall?: (clock: number) => number;
  /** Hears what protocols tell each other: the user's script. */
  tell?: (told: Told) => void;
  /** Where the domains of the families live; absent: in this thread. */
  remote?: RemoteFactory;
  /** A domain that throws is made anew, which is counted and told; else what it throws is the caller's. */
  contain?: boolean;
  /** Jitter, identifiers, source ports; absent: the host's generator. */
  random?: RandomSource;
}

export class Control {
  readonly tables: Tables;
  readonly addresses = new Addresses();
  readonly routes: RouteWriter;
  readonly nexthops: NextHopWriter;
  /** Tables beside the main one, and who asks them. */
  readonly policyRouting: PolicyRouting;
  readonly filter: FilterWriter;
  /** The protocols: those of the families, and those of the management domain. */
  readonly domains: Domains;
  /** Who has which block of outside ports (carrier-grade NAT). */
  readonly blockLog: BlockLog;
  /** What protocols said about where prefixes are. */
  readonly learned: LearnedRoutes;
  /** Stations with names, and what their addresses are. */
  readonly hosts: Hosts;
  /** Null: no port has a security group, nor had when the router started. */
  readonly securityGroups: SecurityGroups | null = null;
  private readonly natState: NatState;
  /** Told by a protocol, and not yet by all heard. */
  private told: { told: Told; by: DomainName }[] = [];
  /** Ports whose MAC somebody else has too. */
  private readonly disabled6 = new Set<number>();
  config: Config;
  /** Labels and places of filter rules and NAT rules by number, for explain and show. */
  ruleLabels: string[] = [];
  rulePlaces: (Where | null)[] = [];
  natPlaces: Where[] = [];
  private readonly outlet: Outlet;
  private readonly options: ControlOptions;

  /** Configures the tables at once; ports are up as the configuration says (live: until the device says otherwise). */
  constructor(tables: Tables, config: Config, outlet: Outlet, options: ControlOptions) {
    this.tables = tables;
    this.config = config;
    this.outlet = outlet;
    this.options = options;
    this.routes = new RouteWriter(tables.routes);
    this.nexthops = new NextHopWriter(tables.nexthops);
    const warn = (message: string): void => options.log('warn', message);
    this.policyRouting = new PolicyRouting(tables, this.nexthops, (specs) => this.acquire(specs), warn);
    this.filter = new FilterWriter(tables.filter);
    this.natState = new NatState(tables);
    this.learned = new LearnedRoutes({
      has: (family, words, length) => this.routes.get(family, words, length) !== 0,
      add: (family, words, length, specs) => this.installRoute(family, words, length, ...specs),
      remove: (family, words, length) => this.withdrawRoute(family, words, length),
    });
    const wall = options.wall ?? ((clock: number) => Date.now() - ((tables.now() - clock) | 0));
    this.blockLog = new BlockLog(tables.natSubscribers, config.nat.log, wall, (text) => options.log('warn', text));
    this.hosts = new Hosts(this.addresses, config, () => {
      this.loadFilter(this.config);
      this.loadNat(this.config);
    });
    this.configure(config);
    const { quiet, log, remote, contain } = options;
    this.domains = new Domains(
      { tables, addresses: this.addresses, quiet, random: options.random ?? strongRandom(), wall, log },
      {
        config: () => this.config,
        learned: this.learned,
        perform: (actions, event, owner) => this.perform(actions, event, owner),
        removeAddress: (...address) => this.removeAddress(...address),
        tick: () => this.tick(),
      },
      { remote, contain },
    );
    this.protocols.push(this.hosts);
    if (tables.bindings.records > 0) {
      this.securityGroups = new SecurityGroups(tables.bindings, this.addresses, config);
      this.protocols.push(this.securityGroups);
    }
    openServices(tables, config, quiet);
    this.domains.begin();
  }

  /** All that are stepped in this thread, in the order in which they are stepped. */
  get protocols(): Protocol[] {
    return this.domains.protocols;
  }

  // --- configuration -----------------------------------------------------------------------------------------------

  private configure(config: Config): void {
    for (const port of config.ports) this.addPort(port);
    for (const port of config.ports)
      for (const prefix of port.addresses)
        this.addAddress(port.number, prefix.family, prefix.words, prefix.prefixLength);
    for (const port of config.ports) if (speaksIpv6(port)) this.addLinkLocal(port);
    for (const { to, specs } of bestRoutes(config.routes.filter((route) => route.table === 0)))
      this.addRoute(to.family, to.words, to.prefixLength, ...specs);
    this.policyRouting.configure(config);
    this.loadFilter(config);
    this.loadNat(config);
    this.loadHelpers(config);
    this.loadTimeouts(config);
  }

  /**
   * Another configuration is about to come: hosts hear of ports that announce themselves no more in it (RFC 4861 §6.2.5), as long
   * as these have an address to say it from.
   */
  cease(next: Config): void {
    for (const { number, ra } of this.config.ports)
      if (ra !== null && next.ports[number]?.ra === null)
        this.handle({ kind: 'event', name: 'ra.cease', data: { port: number } });
  }

  /** The configuration has become another: the protocols of these domains are made anew from it. Neighbours stay. */
  remake(domains: readonly DomainName[]): void {
    openServices(this.tables, this.config, this.options.quiet);
    const failed = (error: unknown): void => this.options.log('warn', `apply: ${(error as Error).message}`);
    for (const name of domains)
      void Promise.resolve(this.domains.restart(name, 'another configuration', false)).catch(failed);
  }

  loadTimeouts(config: Config): void {
    fillTimeouts(this.tables.timeouts, { ...config.conntrack.timeouts, tcp_be_liberal: config.conntrack.tcpLiberal });
  }

  /** Own routes as they are now: of all addresses that ports have, and of the configuration. */
  ownRoutes(): Map<string, OwnRoute> {
    const configured = new Set<OwnAddress | undefined>();
    for (const { number, addresses } of this.config.ports)
      for (const { family, words } of addresses) configured.add(this.addresses.find(number, family, words));
    configured.delete(undefined);
    for (const address of this.addresses) configured.add(address);
    return ownRoutes(this.config, configured as Set<OwnAddress>);
  }

  /** Makes the routing table hold the own routes of now, where it held those of `before`; the others stay. */
  moveRoutes(before: Map<string, OwnRoute>): void {
    const after = this.ownRoutes();
    for (const [key, { family, words, prefixLength }] of before)
      if (!after.has(key) && this.learned.sourceOf(family, words, prefixLength) === undefined)
        this.removeRoute(family, words, prefixLength);
    for (const route of after.values()) this.settle(route);
  }

  /** Puts an own route into the table, unless it is there already. */
  private settle({ family, words, prefixLength, specs }: OwnRoute): void {
    const n = this.acquire(specs);
    const there = n !== 0 && n === this.routes.get(family, words, prefixLength);
    if (n !== 0) this.nexthops.release(n);
    if (!there) this.addRoute(family, words, prefixLength, ...specs);
  }

  loadFilter(config: Config): void {
    const compiled = compileRules(this.hosts.resolve(config), { helperNumber: (name) => HELPER_NUMBERS[name] });
    const refused = compiled.problems.length > 0 ? compiled.problems[0].expected : this.filter.load(compiled);
    if (refused !== null) this.options.log('warn', `rules: ${refused}; the rules in force stay`);
    this.ruleLabels = compiled.labels;
    this.rulePlaces = compiled.places;
    this.tables.flush(EPOCH_FILTER);
  }

  loadNat(config: Config): void {
    const compiled = compileNat(this.hosts.resolve(config));
    const { natRules } = this.tables;
    natRules.replace(compiled.rules, compiled.lists, compiled.head);
    natRules.clearReserved();
    for (const [proto, low, high] of compiled.reserved) natRules.reserve(proto, low, high);
    this.ownPools(config);
    if (this.tables.conntrack.count > 0) this.natState.endStale();
    this.natPlaces = compiled.places;
    this.tables.flush(EPOCH_NAT);
  }

  /**
   * Addresses that NAT lends out are the router's own: what is sent to a port of them that nobody has ends here instead
   * of going round between the router and its provider (RFC 6888 REQ-1 asks for what RFC 4787 says of one address).
   */
  private ownPools(config: Config): void {
    for (const { out, pool } of config.nat.masquerade) {
      const port = out.ports[0];
      if (port === undefined) continue;
      for (const { family, words, prefixLength } of pool) {
        if (this.routes.get(family, words, prefixLength) === 0)
          this.addRoute(family, words, prefixLength, { kind: NH_LOCAL, port });
        this.addresses.addProxy(port, family, words, prefixLength, false);
      }
    }
  }

  loadHelpers(config: Config): void {
    fillHelpers(this.tables.helperPorts, config);
  }

  private addPort(port: PortConfig): void {
    const w = this.tables.interfaces.words;
    const r = port.number * IF.IF_WORDS;
    const check = port.sourceCheck ? IF.IFF_SOURCE_CHECK : 0;
    w[r + IF.IF_FLAGS] = IF.IFF_PRESENT | (port.up ? IF.IFF_UP : 0) | check;
    w[r + IF.IF_MAC_LO] = port.mac?.lo ?? 0;
    w[r + IF.IF_MAC_HI] = port.mac?.hi ?? 0;
    w[r + IF.IF_MTU] = port.mtu;
    w[r + IF.IF_VLAN] = port.vlan;
    if (port.parent >= 0) {
      w[r + IF.IF_PARENT] = port.parent + 1;
      w[port.parent * IF.IF_WORDS + IF.IF_CHILDREN]++;
      if (port.mac === null)
        this.setMac(
          port.number,
          w[port.parent * IF.IF_WORDS + IF.IF_MAC_LO],
          w[port.parent * IF.IF_WORDS + IF.IF_MAC_HI],
        );
    }
    this.setPort(port);
  }

  /** What a port's configuration says that may change while it runs: zone, filters, MSS clamping. */
  setPort(port: PortConfig): void {
    const w = this.tables.interfaces.words;
    const r = port.number * IF.IF_WORDS;
    w[r + IF.IF_MSS_CLAMP] = port.mssClamp;
    w[r + IF.IF_ZONE] = tableZone(port.zone);
    w[r + IF.IF_FILTER] = port.ethertypes;
    w[r + IF.IF_CT_ZONE] = port.conntrackZone;
    for (let n = 0; n < IF.MAX_SOURCES; n++) {
      const at = this.tables.interfaces.sourceAt(port.number, n);
      w[at] = port.sources[n]?.lo ?? 0;
      w[at + 1] = port.sources[n]?.hi ?? 0;
    }
    this.tables.interfaces.setFlags(port.number, IF.IFF_SECURITY, port.securityGroup !== null);
    // Last: a worker that looks meanwhile finds a list of some of them, never one that lets anybody in.
    w[r + IF.IF_SOURCES] = Math.min(port.sources.length, IF.MAX_SOURCES);
  }

  setMac(port: number, lo: number, hi: number): void {
    const w = this.tables.interfaces.words;
    w[port * IF.IF_WORDS + IF.IF_MAC_LO] = lo;
    w[port * IF.IF_WORDS + IF.IF_MAC_HI] = hi;
  }

  /** fe80::/64 with the modified EUI-64 identifier of the port's MAC (RFC 4291 appendix A). */
  addLinkLocal(port: PortConfig): void {
    const w = this.tables.interfaces.words;
    const r = port.number * IF.IF_WORDS;
    const lo = w[r + IF.IF_MAC_LO];
    const hi = w[r + IF.IF_MAC_HI];
    const words: Words = [
      0x80fe,
      0,
      ((lo & 0xffffff) ^ 0x02) | (0xff << 24),
      0xfe | ((lo >>> 24) << 8) | ((hi & 0xffff) << 16),
    ];
    for (let n = 0; n < 4; n++) w[r + IF.IF_LINKLOCAL6 + n] = words[n];
    if (this.addresses.find(port.number, 6, words) === undefined)
      this.addresses.add(port.number, 6, words, 64, this.options.quiet ? 'preferred' : 'tentative');
  }

  /** The port speaks IPv6 no more. */
  removeLinkLocal(port: number): void {
    const w = this.tables.interfaces.words;
    const r = port * IF.IF_WORDS + IF.IF_LINKLOCAL6;
    this.addresses.remove(port, 6, [w[r], w[r + 1], w[r + 2], w[r + 3]]);
    w.fill(0, r, r + 4);
  }

  /** Gives a port an address: local route, connected route, broadcast routes, and the interface's primary address. */
  addAddress(port: number, family: Family, words: Words, prefixLength: number): void {
    this.addresses.add(
      port,
      family,
      words,
      prefixLength,
      this.options.quiet || family === 4 ? 'preferred' : 'tentative',
    );
    const w = this.tables.interfaces.words;
    const r = port * IF.IF_WORDS;
    const full = family === 4 ? 32 : 128;
    if (prefixLength < full) this.claim(family, words, prefixLength, { kind: NH_CONNECTED, port });
    this.claim(family, words, full, { kind: NH_LOCAL, port });
    if (family === 4) {
      if (w[r + IF.IF_ADDRESS4] === 0) {
        w[r + IF.IF_ADDRESS4] = words[0];
        w[r + IF.IF_PREFIX4] = prefixLength;
      }
      if (prefixLength < 31) {
        const mask = maskWords(4, prefixLength)[0];
        for (const broadcast of [words[0] | ~mask, words[0] & mask])
          if (this.routes.get(4, [broadcast, 0, 0, 0], 32) === 0)
            this.addRoute(4, [broadcast, 0, 0, 0], 32, { kind: NH_BROADCAST, port });
      }
    } else if ((words[0] & 0xc0ff) !== 0x80fe && w[r + IF.IF_GLOBAL6] === 0)
      for (let n = 0; n < 4; n++) w[r + IF.IF_GLOBAL6 + n] = words[n];
    this.tables.flush(EPOCH_ROUTE);
  }

  /** A route of an address; where another address or the configuration has one to the same prefix, that which goes before. */
  private claim(family: Family, words: Words, prefixLength: number, spec: NextHopSpec): void {
    const network = networkWords(family, words, prefixLength);
    const isFree =
      this.routes.get(family, network, prefixLength) === 0 ||
      this.learned.sourceOf(family, network, prefixLength) !== undefined;
    const own = isFree ? undefined : this.ownRoutes().get([family, ...network, prefixLength].join());
    this.settle(own ?? { family, words: network, prefixLength, specs: [spec] });
  }

  /** Takes an address from a port: its routes, and every connection that had used it. Returns the number of these. */
  removeAddress(port: number, family: Family, words: Words, prefixLength: number): number {
    const w = this.tables.interfaces.words;
    const r = port * IF.IF_WORDS;
    if (!this.addresses.remove(port, family, words)) return 0;
    this.abandon(family, words, prefixLength);
    if (family === 6) {
      if (words.every((word, n) => w[r + IF.IF_GLOBAL6 + n] === word)) this.electAddresses(port);
      this.tables.flush(EPOCH_ROUTE);
      return 0;
    }
    if (w[r + IF.IF_ADDRESS4] === words[0]) this.electAddresses(port);
    const ended = this.natState.endAddress(port, words[0]);
    this.tables.flush(EPOCH_NAT);
    return ended;
  }

  /** The routes of an address that is no more; a prefix that another address or the configuration has too is theirs now. */
  private abandon(family: Family, words: Words, prefixLength: number): void {
    const left = this.ownRoutes();
    const full = family === 4 ? 32 : 128;
    const mask = maskWords(family, prefixLength)[0];
    const broadcasts = family === 4 && prefixLength < 31 ? [words[0] | ~mask, words[0] & mask] : [];
    const gone: [Words, number][] = [
      [words, full],
      [networkWords(family, words, prefixLength), prefixLength],
      ...broadcasts.map((word): [Words, number] => [[word, 0, 0, 0], 32]),
    ];
    for (const [prefix, length] of gone) {
      const other = left.get([family, ...prefix, length].join());
      if (other !== undefined) this.settle(other);
      else if (this.learned.sourceOf(family, prefix, length) === undefined) this.removeRoute(family, prefix, length);
    }
  }

  /** Chooses who speaks for a port: its first configured address of each family, else the first that was learned. */
  electAddresses(port: number): void {
    const w = this.tables.interfaces.words;
    const r = port * IF.IF_WORDS;
    const known = this.addresses.ofPort(port);
    const own: readonly Pick<OwnAddress, 'family' | 'words' | 'prefixLength'>[] = [
      ...this.config.ports[port].addresses.filter((one) => this.addresses.find(port, one.family, one.words)),
      ...known.filter(({ state }) => state !== 'duplicate'),
    ];
    const four = own.find(({ family }) => family === 4);
    w[r + IF.IF_ADDRESS4] = four?.words[0] ?? 0;
    w[r + IF.IF_PREFIX4] = four?.prefixLength ?? 0;
    const global = own.find(({ family, words }) => family === 6 && (words[0] & 0xc0ff) !== 0x80fe);
    w.set(global?.words ?? [0, 0, 0, 0], r + IF.IF_GLOBAL6);
  }

  /**
   * A port's address has become another (DHCP, PPP): ends exactly the connections that had used the old one (row N9).
   * Either may be null: an address that came, or went. Returns how many connections ended.
   */
  changeAddress(port: number, old: PrefixValue | null, next: PrefixValue | null): number {
    const same =
      old !== null && next !== null && old.family === next.family && old.words.every((x, n) => x === next.words[n]);
    if (same && old.prefixLength === next.prefixLength) return 0;
    const ended = old === null ? 0 : this.removeAddress(port, old.family, old.words, old.prefixLength);
    if (next !== null) this.addAddress(port, next.family, next.words, next.prefixLength);
    return ended;
  }

  /** Installs a route, replacing one to the same prefix (a learned one waits behind it). False when a table is full. */
  addRoute(family: Family, words: ArrayLike<number>, prefixLength: number, ...specs: readonly NextHopSpec[]): boolean {
    if (!this.installRoute(family, words, prefixLength, ...specs)) return false;
    this.learned.displaced(
      family,
      networkWords(family, [words[0], words[1], words[2], words[3]], prefixLength),
      prefixLength,
    );
    return true;
  }

  /** A next hop, or a group of several, which share the load by their weights. 0: the table is full. */
  private acquire(specs: readonly NextHopSpec[]): number {
    const used = specs.slice(0, MAX_MEMBERS);
    const members = used.map((spec) => this.nexthops.acquire(spec));
    if (members.length === 1) return members[0];
    const weights = used.map(({ weight = 1 }) => weight);
    const isEven = weights.every((weight) => weight === weights[0]);
    const n = this.nexthops.acquire({ kind: NH_GROUP, members, weights: isEven ? [] : weights });
    // The group holds its members; what was acquired to make it is given back.
    for (const member of members) this.nexthops.release(member);
    return n;
  }

  /** Several specs make a group. */
  private installRoute(
    family: Family,
    words: ArrayLike<number>,
    prefixLength: number,
    ...specs: readonly NextHopSpec[]
  ): boolean {
    const before = this.routes.get(family, words, prefixLength);
    const n = this.acquire(specs);
    const refused =
      n === 0 ? 'the table of next hops is full' : this.routes.add(family, words, prefixLength, n)?.message;
    if (refused !== undefined) {
      this.nexthops.release(n);
      this.options.log('warn', `route not installed: ${refused}`);
      return false;
    }
    if (before !== 0) this.nexthops.release(before);
    if (prefixLength === 0) this.tables.setDefault(family, true);
    this.tables.flush(EPOCH_ROUTE);
    return true;
  }

  /** Takes a route away; a learned one to the same prefix comes back. */
  removeRoute(family: Family, words: ArrayLike<number>, prefixLength: number): boolean {
    if (!this.withdrawRoute(family, words, prefixLength)) return false;
    this.learned.vacated(family, words, prefixLength);
    return true;
  }

  private withdrawRoute(family: Family, words: ArrayLike<number>, prefixLength: number): boolean {
    const n = this.routes.remove(family, words, prefixLength);
    if (n === 0) return false;
    this.nexthops.release(n);
    if (prefixLength === 0) this.tables.setDefault(family, false);
    this.tables.flush(EPOCH_ROUTE);
    return true;
  }

  setNeighbour(port: number, family: Family, words: Words, lo: number, hi: number): void {
    this.domains.setNeighbour(port, family, words, lo, hi);
  }

  /** Forgets a static neighbour: it is asked for when somebody wants it. */
  forgetNeighbour(port: number, family: Family, words: Words): void {
    this.domains.forgetNeighbour(port, family, words);
  }

  /** Addresses that NAT lends out no longer: their routes are the caller's. */
  removePool(port: number, { family, words, prefixLength }: PrefixValue): void {
    this.addresses.removeProxy(port, family, words, prefixLength);
  }

  // --- what readers may still use ------------------------------------------------------------------------------------

  /** Routes, next hops and rules that have gone out of use until now; `reclaim` takes it. */
  mark(): Mark {
    return {
      routes: this.routes.mark(),
      policy: this.policyRouting.mark(),
      nexthops: this.nexthops.mark(),
      filter: this.filter.mark(),
    };
  }

  /** True while something waits for `reclaim`. */
  get rests(): boolean {
    return this.routes.rests || this.policyRouting.rests || this.nexthops.rests || this.filter.rests;
  }

  /** Every reader has passed a quiet point since `mark` (default: now): what had gone is free, waiting rules are live. */
  reclaim(mark: Mark = this.mark()): void {
    this.routes.reclaim(mark.routes);
    this.policyRouting.reclaim(mark.policy);
    this.nexthops.reclaim(mark.nexthops);
    const waited = this.filter.pending;
    this.filter.reclaim(mark.filter);
    if (waited && !this.filter.pending) this.tables.flush(EPOCH_FILTER);
  }

  // --- events --------------------------------------------------------------------------------------------------------

  /** A port went up or down: every table that depends on the link hears of it (row L5). */
  setLink(port: number, up: boolean): void {
    const w = this.tables.interfaces.words;
    const r = port * IF.IF_WORDS;
    const was = (w[r + IF.IF_FLAGS] & IF.IFF_UP) !== 0;
    if (was === up) return;
    this.tables.interfaces.setFlags(port, IF.IFF_UP, up);
    Atomics.add(w, r + IF.IF_LINK_GEN, 1);
    this.nexthops.setPort(port, up);
    this.tables.flush(EPOCH_LINK);
    if (up && this.disabled6.has(port)) this.returnToIpv6(this.config.ports[port]);
    this.handle({ kind: 'link', port, up });
    // VLAN ports share the fate of the port under them.
    for (const child of this.config.ports) if (child.parent === port) this.setLink(child.number, up && child.up);
  }

  /** Steps every protocol with the event and does what they say; then with what they tell each other. */
  handle(event: Event): void {
    this.domains.step(event);
    if (event.kind === 'link' || event.kind === 'event') this.domains.pass(event);
    // A conversation among protocols ends: none answers an event by the same event.
    for (let rounds = 0; this.told.length > 0 && rounds < MAX_ROUNDS; rounds++) {
      const heard = this.told;
      this.told = [];
      for (const { told, by } of heard) {
        this.domains.step(told);
        this.domains.pass(told, by);
      }
    }
    this.blockLog.drain();
  }

  /** True when there is somebody who wants to hear that the router ends (STOPPING). */
  get hasFarewell(): boolean {
    return this.config.ports.some(
      ({ ra, dhcp4, dhcp6 }) => ra !== null || dhcp4?.client?.release === true || dhcp6?.client?.release === true,
    );
  }

  tick(): void {
    this.handle({ kind: 'tick' });
  }

  /** Milliseconds until a protocol wants to be ticked; −1: none does. */
  next(): number {
    return this.domains.next();
  }

  private perform(actions: Action[], event: Event, owner: DomainName = 'management'): void {
    for (const action of actions) {
      switch (action.kind) {
        case 'send':
          this.outlet.send(action.port, action.frame);
          break;
        case 'output':
          this.outlet.output(action.packet, action.port ?? (event.kind === 'frame' ? event.port : 0));
          break;
        case 'address':
          this.performAddress(action);
          break;
        case 'route':
          this.learned.perform(action);
          break;
        case 'keep':
          this.domains.keep(owner, action.key, action.value);
          break;
        case 'event':
          if (action.name === 'nd.duplicate' && action.data.disables === true)
            this.leaveIpv6(action.data.port as number);
          this.told.push({ told: action, by: owner });
          this.options.tell?.(action);
          break;
        default:
          this.options.log(action.level, action.message);
      }
    }
  }

  /**
   * A duplicate address that was made of the MAC: IPv6 ends on this port until its link has been down (RFC 4862 §5.4.5).
   * Nothing enters, and no address is left that anything could leave by.
   */
  private leaveIpv6(port: number): void {
    const w = this.tables.interfaces.words;
    const at = port * IF.IF_WORDS + IF.IF_FILTER;
    Atomics.store(w, at, w[at] & ~IF.ALLOW_IPV6);
    for (const own of [...this.addresses.ofPort(port)])
      if (own.family === 6 && own.state !== 'duplicate') this.removeAddress(port, 6, own.words, own.prefixLength);
    this.disabled6.add(port);
    const name = this.config.ports[port]?.name ?? port;
    this.options.log('warn', `ports.${name}: IPv6 is off: the MAC of this port is on its link twice`);
  }

  /** The link has come back, perhaps another one: IPv6 is tried again. */
  private returnToIpv6(port: PortConfig): void {
    this.disabled6.delete(port.number);
    const w = this.tables.interfaces.words;
    w[port.number * IF.IF_WORDS + IF.IF_FILTER] = port.ethertypes;
    for (const own of [...this.addresses.ofPort(port.number)])
      if (own.family === 6) this.addresses.remove(port.number, 6, own.words);
    for (const { family, words, prefixLength } of port.addresses)
      if (family === 6) this.addAddress(port.number, family, words, prefixLength);
    this.addLinkLocal(port);
  }

  private performAddress(action: Extract<Action, { kind: 'address' }>): void {
    const { port, family, words, prefixLength } = action;
    const known = this.addresses.find(port, family, words);
    if (action.op === 'remove') {
      if (known !== undefined) this.removeAddress(port, family, words, known.prefixLength);
      return;
    }
    if (action.op === 'add' && family === 4) this.domains.displace(port, known);
    if (known !== undefined) this.domains.adopt(known);
    if (action.op === 'add' && known?.prefixLength !== prefixLength) {
      if (known !== undefined) this.removeAddress(port, family, words, known.prefixLength);
      this.addAddress(port, family, words, prefixLength);
      if (known === undefined) this.warnOverlap(action);
    }
    const entry = this.addresses.find(port, family, words);
    if (entry === undefined) return;
    if (action.op === 'deprecate' ? entry.state === 'preferred' : entry.state === 'deprecated')
      this.addresses.setState(entry, action.op === 'deprecate' ? 'deprecated' : 'preferred');
    // What lasts longer than the clock can count (24 days) has no end here: who added the address ends it in time.
    const until = (wait: number | undefined) =>
      wait === undefined || wait > LONGEST_WAIT ? null : (this.tables.now() + wait) | 0;
    if (action.op === 'add')
      this.addresses.setLifetimes(entry, { preferred: until(action.preferred), valid: until(action.valid) });
  }

  /** A provider that gives out what the LAN has already, as a modem that is a router itself does. */
  private warnOverlap({ port, family, words, prefixLength }: PortAddress): void {
    const given = { family, words, prefixLength };
    const full = family === 4 ? 32 : 128;
    if (prefixLength === full) return;
    const other = [...this.addresses].find(
      (own) =>
        own.port !== port &&
        own.family === family &&
        own.prefixLength < full &&
        !(family === 6 && isLinkLocal(own.words[0])) &&
        (inPrefix(own.words, given) || inPrefix(words, own)),
    );
    if (other === undefined) return;
    const name = (number: number) => this.config.ports[number]?.name ?? number;
    this.options.log(
      'warn',
      `ports.${name(port)}: the address given to it, ${formatCidr(family, words, prefixLength)}, overlaps ` +
        `${formatCidr(family, other.words, other.prefixLength)} of port ${name(other.port)}; give ${name(other.port)} another subnet`,
    );
  }
}
