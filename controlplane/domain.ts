/**
 * Domain: one family's part of the control plane, as a unit that can be stopped and made anew while the rest goes on.
 *
 *   ipv4         ARP, ping, DHCP client, server and relay, the gateway's IPv4 half
 *   ipv6         ND, ping, router advertisements both ways, DHCPv6 in all roles, the gateway's IPv6 half
 *   management   what has no family of its own: the DNS forwarder, and Control itself, which is never restarted
 *
 * A domain knows its configuration, the address book and the shared tables, and nothing of the other domains: what it wants
 * done leaves as actions. So it may live in the same thread as Control or in a worker (live/domain-worker.ts); both step
 * the same object. It is the only writer of its family's neighbours.
 *
 * What outlives it is not in it: leases are in their servers' files, or kept with Control where there are none (action `keep`),
 * neighbours in their shared table, addresses and routes with Control, which keeps those that the new domain says again
 * (domains.ts, `restart`).
 */
import { NUD_PERMANENT } from '../dataplane/neighbours.ts';
import type { Tables } from '../dataplane/tables.ts';
import type { Family, Words } from '../dataplane/wire/address.ts';
import { TYPE_ARP, TYPE_IPV4, TYPE_IPV6 } from '../dataplane/wire/ethernet.ts';
import type { Config } from './config/index.ts';
import { describeCounts, describeGateway, describeLeases4, describeRa } from './describe.ts';
import { describeDhcp6 } from './dhcp6/describe.ts';
import type { Dhcp6 } from './dhcp6/index.ts';
import { Echo } from './echo.ts';
import type { Addresses } from './neighbour/addresses.ts';
import { Arp } from './neighbour/arp.ts';
import { Nd } from './neighbour/nd.ts';
import type { NeighbourCache } from './neighbour/nud.ts';
import type { Event, KeptValues, Protocol, Told } from './protocol.ts';
import type { RandomSource } from './random.ts';
import { familyServices } from './services.ts';

export const DOMAINS = ['ipv4', 'ipv6', 'management'] as const;
export type DomainName = (typeof DOMAINS)[number];

/** What a domain is made of. */
export interface DomainParts {
  tables: Tables;
  /** The address book, or a copy that follows it. */
  addresses: Addresses;
  config: Config;
  /** Nothing is sent unasked (replay, embedding): no services are made that would. */
  quiet: boolean;
  random: RandomSource;
  /** Milliseconds since 1970 of a time of the router's clock. */
  wall: (clock: number) => number;
  log: (level: 'info' | 'warn', message: string) => void;
  kept: KeptValues;
}

/** How a domain is doing, for people. */
export interface DomainView {
  domain: DomainName;
  state: 'running' | 'down';
  /** Where it runs: its own thread, or the one of everything else. */
  thread: 'own' | 'main';
  /** Starts after the first; how many of these because it had failed, and what was said last. */
  restarts: number;
  failures: number;
  reason: string;
}

export class Domain {
  readonly family: Family;
  /** In the order in which they are stepped. */
  readonly protocols: Protocol[];
  readonly cache: NeighbourCache;
  readonly dhcp6: Dhcp6 | null;
  private readonly tables: Tables;
  private readonly names: readonly string[];

  constructor(family: Family, parts: DomainParts) {
    const { tables, addresses, config, quiet } = parts;
    this.family = family;
    this.tables = tables;
    this.names = config.ports.map(({ name }) => name);
    const resolver =
      family === 4
        ? new Arp(tables.neighbours, tables.interfaces, addresses, { quiet })
        : new Nd(tables.neighbours, tables.interfaces, addresses, { quiet });
    this.cache = resolver.cache;
    const services = familyServices(this, parts);
    this.protocols = [resolver, new Echo(addresses), ...services.protocols];
    this.dhcp6 = services.dhcp6;
    for (const { port, ip, mac } of config.neighbors)
      if (ip.family === family && !this.setNeighbour(port, ip.words, mac.lo, mac.hi))
        parts.log('warn', 'neighbors: the neighbour table is full');
  }

  /** A neighbour that a person has named. False when the table is full. */
  setNeighbour(port: number, words: Words, lo: number, hi: number): boolean {
    return this.cache.setPermanent(this.tables.now(), port, words, lo, hi);
  }

  /** Forgets a neighbour: it is asked for when somebody wants it. */
  forgetNeighbour(port: number, words: Words): void {
    const n = this.cache.find(port, words);
    if (n >= 0) this.cache.forget(n);
  }

  /**
   * Forgets every neighbour that was learned. Entries of the engine hold their neighbour's generation: those of this family
   * walk the slow path once more, those of the other one do not notice.
   */
  flush(): void {
    const { cache } = this;
    for (let n = 0; n < cache.table.capacity; n++)
      if (cache.isMine(n) && cache.stateOf(n) !== NUD_PERMANENT) cache.forget(n);
  }

  /** Milliseconds until one of the protocols wants a tick; −1: none does. */
  next(): number {
    const now = this.tables.now();
    const waits = this.protocols.map((protocol) => protocol.next(now)).filter((wait) => wait >= 0);
    return waits.length === 0 ? -1 : Math.min(...waits);
  }

  /** What the domain has to tell about itself, as plain data; null: it knows nothing of this. */
  describe(what: string): unknown {
    const { protocols, names, dhcp6, family } = this;
    const now = this.tables.now();
    switch (what) {
      case 'leases':
        return describeLeases4(protocols, now, names);
      case 'ra':
        return describeRa(protocols, now, names);
      case 'counts':
        return describeCounts(protocols, family, dhcp6, now, names);
      case 'gateway':
        return describeGateway(protocols, family);
      case 'dhcp6':
        return dhcp6 === null ? null : describeDhcp6(dhcp6, now, names);
      default:
        return null;
    }
  }

  /** Gives back what is not memory: lease files. */
  close(): void {
    for (const protocol of this.protocols) protocol.close?.();
  }
}

/** The family that an event belongs to; 0: it is for everybody. */
export function familyOf(event: Event, tables: Tables): 0 | Family {
  if (event.kind === 'resolve') return event.family;
  if (event.kind === 'used') return tables.neighbours.familyOf(event.neighbour);
  if (event.kind !== 'frame') return 0;
  if (event.etherType === TYPE_ARP || event.etherType === TYPE_IPV4) return 4;
  return event.etherType === TYPE_IPV6 ? 6 : 0;
}

/** How often protocols may answer each other's events before the rest waits for the next event. */
export const MAX_ROUNDS = 16;

/** Does an event, then what was told because of it, until nobody tells anything more: a conversation ends. */
export function tellAll(first: Event, step: (event: Event) => Told[]): void {
  let events: Event[] = [first];
  for (let rounds = 0; events.length > 0 && rounds <= MAX_ROUNDS; rounds++) events = events.flatMap(step);
}
