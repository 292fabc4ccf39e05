/**
 * Delegation: what all DHCPv6 servers of the router give from. Pools, known clients and their reservations, the leases,
 * and the routes to prefixes that are delegated over a link of the router's own.
 *
 * A route to a delegated prefix goes by the client's link-local address on the port where it asked; it comes with the
 * lease, and goes when the lease ends, is released or given to somebody else. After a restart the leases of the file
 * bring their routes back; without a file leases outlive their domain (action `keep`), not the router.
 */
import { formatAddress, networkWords, type Words } from '../../dataplane/wire/address.ts';
import type { DelegationConfig, Dhcp6ServerConfig, KnownClientConfig } from '../config/index.ts';
import type { JournalRecord } from '../journal.ts';
import type { Action, KeptValues } from '../protocol.ts';
import { sameWords, told } from './context.ts';
import { hexText } from './duid.ts';
import { DECLINED, type Lease, Leases, leaseOf, prefixText, recordOf } from './leases.ts';
import { type Item, Pool } from './pool.ts';

/**
 * Addresses given at most, of all ranges together: a range may be a whole /64, and clients that invent themselves must not fill the
 * memory. Prefixes are as many as their pools have.
 */
export const MAX_ADDRESSES = 65_536;

/** Keys of leases that no file has. */
const KEPT = 'dhcp6-lease ';

export class Delegation {
  readonly leases = new Leases();
  private readonly pools = new Map<string, Pool>();
  private readonly known = new Map<string, KnownClientConfig>();
  /** Who reserved what, by prefix text. */
  private readonly reserved = new Map<string, string>();
  private readonly ports: ReadonlyMap<string, number>;

  /** @param names of the ports, by number */
  constructor(config: DelegationConfig, names: readonly string[]) {
    this.ports = new Map(names.map((name, number) => [name, number]));
    for (const { name, prefix, length } of config.pools)
      this.pools.set(name, Pool.ofPrefix(name, prefix.words, prefix.prefixLength, length));
    for (const client of config.clients) {
      const name = clientName(client.duid, client.remoteId);
      this.known.set(name, client);
      for (const { words, prefixLength } of client.prefixes) this.reserved.set(prefixText(words, prefixLength), name);
      if (client.address !== null) this.reserved.set(prefixText(client.address, 128), name);
    }
  }

  knownClient(name: string): KnownClientConfig | undefined {
    return this.known.get(name);
  }

  isFree(item: Item): boolean {
    const text = prefixText(item.words, item.prefixLength);
    return this.leases.get(item.words, item.prefixLength) === undefined && !this.reserved.has(text);
  }

  /** What the client may have, first choice first: reservations that no other IA of it has, a hint, then the pools. */
  *candidates(client: string, kind: Lease['kind'], hints: readonly Item[], pools: readonly Pool[]): Iterable<Item> {
    const mine = this.known.get(client);
    const own: Item[] =
      kind === 'pd' ? (mine?.prefixes ?? []) : mine?.address ? [{ words: mine.address, prefixLength: 128 }] : [];
    for (const item of own) if (this.leases.get(item.words, item.prefixLength) === undefined) yield item;
    if (!this.hasRoom(kind)) return;
    for (const hint of hints)
      if (pools.some((pool) => pool.contains(hint.words, hint.prefixLength)) && this.isFree(hint)) yield hint;
    // A hint of ::/56 wishes a length (RFC 8415 §18.2.1): pools of that length first.
    const wished = new Set(hints.map((hint) => hint.prefixLength));
    const inOrder = [...pools].sort((a, b) => Number(wished.has(b.prefixLength)) - Number(wished.has(a.prefixLength)));
    for (const pool of inOrder) {
      const offered = new Set<string>();
      for (;;) {
        const item = pool.choose(
          client,
          (one) => this.isFree(one) && !offered.has(prefixText(one.words, one.prefixLength)),
        );
        if (item === null) break;
        offered.add(prefixText(item.words, item.prefixLength));
        yield item;
      }
    }
  }

  /** False when no more may be given to whoever asks. */
  hasRoom(kind: Lease['kind']): boolean {
    return kind === 'pd' || this.leases.addresses < MAX_ADDRESSES;
  }

  /** True when the client may still have it: reserved for it, or in one of these pools and not reserved for another. */
  allows(client: string, item: Item, pools: readonly Pool[]): boolean {
    const owner = this.reserved.get(prefixText(item.words, item.prefixLength));
    if (owner !== undefined) return owner === client;
    return pools.some((pool) => pool.contains(item.words, item.prefixLength));
  }

  /** The pools that a server cuts prefixes from. */
  prefixPools(server: Dhcp6ServerConfig): Pool[] {
    return server.delegate.flatMap((name) => this.pools.get(name) ?? []);
  }

  /** The ranges of addresses that are on the link of `link`; an unspecified one: all. */
  static addressPools(server: Dhcp6ServerConfig): { pool: Pool; network: Words }[] {
    return server.addresses.map(({ first, last }, n) => ({
      pool: new Pool(`addresses ${n}`, first, last, 128),
      network: networkWords(6, first, 64),
    }));
  }

  /** Puts a lease in force and says what follows from it. Throws when it cannot be written. @param now milliseconds since 1970 */
  give(lease: Lease, now: number): Action[] {
    const before = this.leases.get(lease.words, lease.prefixLength);
    this.leases.put(lease);
    const moved = before !== undefined && (before.port !== lease.port || !sameVia(before.via, lease.via));
    return [...this.keep(lease), ...(moved ? this.withdraw(before) : []), ...this.announce(lease, now)];
  }

  end(lease: Lease): Action[] {
    this.leases.end(lease);
    return [...this.keep(lease), ...this.withdraw(lease)];
  }

  decline(lease: Lease, now: number): Action[] {
    this.leases.decline(lease, now);
    return [...this.keep(lease), ...this.withdraw(lease)];
  }

  /** Ends what has run out. */
  expire(now: number): Action[] {
    const actions: Action[] = [];
    for (let lease = this.leases.expired(now); lease !== undefined; lease = this.leases.expired(now))
      actions.push(...this.keep(lease), ...this.withdraw(lease));
    return actions;
  }

  /** What is now known of the lease's prefix is kept for the next domain, unless the file has it. */
  private keep({ words, prefixLength }: Lease): Action[] {
    if (this.leases.stored) return [];
    const lease = this.leases.get(words, prefixLength);
    const value = lease === undefined ? null : recordOf(lease);
    return [{ kind: 'keep', key: `${KEPT}${prefixText(words, prefixLength)}`, value }];
  }

  /**
   * Takes up the leases of the domain before that no file had; one that is there now gets them.
   *
   * @param now milliseconds since 1970
   * @returns what need not be kept any longer
   * @throws Error when they cannot be written
   */
  resume(now: number, kept: KeptValues): Action[] {
    const actions: Action[] = [];
    for (const [key, { value }] of kept) {
      if (!key.startsWith(KEPT)) continue;
      const lease = leaseOf(value as JournalRecord);
      const isInForce = lease !== null && lease.valid > now;
      if (isInForce && this.leases.get(lease.words, lease.prefixLength) === undefined) this.leases.put(lease);
      if (!isInForce || this.leases.stored) actions.push({ kind: 'keep', key, value: null });
    }
    return actions;
  }

  /** Everything that follows from the leases in force: after a restart. */
  restore(now: number): Action[] {
    return [...this.leases].flatMap((lease) => this.announce(lease, now));
  }

  /**
   * The time of day was set: what is left of each lease stays as it was.
   *
   * @param step milliseconds by which the time has become later
   * @throws Error when the leases cannot be written
   */
  shift(step: number): Action[] {
    this.leases.shift(step);
    return [...this.leases].flatMap((lease) => this.keep(lease));
  }

  private announce(lease: Lease, now: number): Action[] {
    const port = this.ports.get(lease.port);
    if (port === undefined || lease.via === null || lease.client === DECLINED) return [];
    const { words, prefixLength, via } = lease;
    const actions: Action[] = [];
    if (lease.kind === 'pd')
      actions.push({ kind: 'route', op: 'add', family: 6, words, prefixLength, via, port, source: 'pd' });
    const seconds = lease.valid === Number.POSITIVE_INFINITY ? null : Math.round((lease.valid - now) / 1000);
    return [...actions, told('dhcp6.delegated', this.dataOf(lease, seconds))];
  }

  private withdraw(lease: Lease): Action[] {
    const port = this.ports.get(lease.port);
    if (port === undefined || lease.via === null) return [];
    const { words, prefixLength, via } = lease;
    const actions: Action[] = [];
    if (lease.kind === 'pd')
      actions.push({ kind: 'route', op: 'remove', family: 6, words, prefixLength, via, port, source: 'pd' });
    return [...actions, told('dhcp6.withdrawn', this.dataOf(lease, null))];
  }

  private dataOf(lease: Lease, valid: number | null) {
    const { client, port, via } = lease;
    return {
      port,
      prefix: prefixText(lease.words, lease.prefixLength),
      via: via === null ? null : formatAddress(6, ...via),
      client,
      valid,
    };
  }
}

function sameVia(a: Words | null, b: Words | null): boolean {
  return a === null || b === null ? a === b : sameWords(a, b);
}

/** What leases are kept under; a remote-id goes before a DUID, which the client makes itself. */
export function clientName(duid: Uint8Array | null, remoteId: Uint8Array | null): string {
  if (remoteId !== null) return `remote-id:${hexText(remoteId)}`;
  return `duid:${hexText(duid ?? new Uint8Array(0))}`;
}
