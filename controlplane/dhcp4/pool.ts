/**
 * Pool: the addresses that one DHCP server gives out of one range, who has which, and until when (RFC 2131 §4.3.1).
 *
 * A client is a key (its identifier, else its MAC). It keeps its address as long as nobody needs it: an address that has
 * expired is given to somebody else only when no other is left, the longest unused first. Addresses are host integers
 * here (they are counted), times are the router's clock, which wraps: `settle` is to be called before it does.
 */

/** How long ago what has ended is said to have ended, at most: the clock cannot count further back than 24 days. */
export const LONG_AGO = 1_000_000_000;

export type LeaseState = 'offered' | 'bound' | 'declined' | 'free';

/** What is known of a client beside its key, from the last message that gave it something. */
export interface Holder {
  /** As it tells it; '' none. */
  hostName: string;
  /** Text. */
  mac: string;
  /** Option 82, sub-option 2, in hexadecimal; '' none: it is on the link itself. */
  remoteId: string;
}

const NOBODY: Holder = { hostName: '', mac: '', remoteId: '' };

export interface PoolLease extends Holder {
  address: number;
  /** '' for an address that nobody may have (declined). */
  client: string;
  state: LeaseState;
  /** Clock at which the state ends. */
  until: number;
}

export class Pool {
  readonly first: number;
  readonly last: number;
  private readonly byAddress = new Map<number, PoolLease>();
  private readonly byClient = new Map<string, PoolLease>();
  /** Addresses that only their client may have. */
  private readonly reserved: ReadonlyMap<number, string>;
  /** Addresses that are somebody's who does not ask: the router's own. */
  private readonly excluded: ReadonlySet<number>;
  private unused: number;

  constructor(first: number, last: number, reserved: ReadonlyMap<number, string>, excluded: ReadonlySet<number>) {
    this.first = first;
    this.last = last;
    this.reserved = reserved;
    this.excluded = excluded;
    this.unused = first;
  }

  /** What a client has, had, or is offered; undefined: nothing. */
  find(client: string): PoolLease | undefined {
    return this.byClient.get(client);
  }

  /** All records, in the order in which they were made. */
  leases(): IterableIterator<PoolLease> {
    return this.byAddress.values();
  }

  /**
   * An address for a client: reserved, its own, the one it asks for (0: none), a fresh one, the longest unused one.
   * 0: the pool is exhausted. Nothing is recorded yet.
   */
  choose(now: number, client: string, wanted: number): number {
    for (const [address, owner] of this.reserved) if (owner === client) return address;
    const own = this.byClient.get(client);
    if (own !== undefined && own.state !== 'declined') return own.address;
    if (this.isFree(now, wanted)) return wanted;
    while (this.unused <= this.last) {
      const address = this.unused;
      if (this.isFree(now, address) && !this.byAddress.has(address)) return address;
      this.unused++;
    }
    let best: PoolLease | null = null;
    for (const lease of this.byAddress.values())
      if (this.isFree(now, lease.address) && (best === null || ((lease.until - best.until) | 0) < 0)) best = lease;
    return best?.address ?? 0;
  }

  /** Records an offer or a lease. The address must be the client's to have (`choose`, or its own). */
  assign(client: string, address: number, state: 'offered' | 'bound', until: number, holder: Holder): PoolLease {
    const before = this.byClient.get(client);
    if (before !== undefined && before.address !== address) this.forget(before);
    const other = this.byAddress.get(address);
    if (other !== undefined && other.client !== client) this.byClient.delete(other.client);
    const lease: PoolLease = { address, client, state, until, ...holder };
    // Taken out first: the map's order is by age.
    this.byAddress.delete(address);
    this.byAddress.set(address, lease);
    this.byClient.set(client, lease);
    return lease;
  }

  /** The client gives its address back; it is still remembered as its own. */
  release(now: number, client: string): void {
    const lease = this.byClient.get(client);
    if (lease === undefined) return;
    lease.state = 'free';
    lease.until = now;
  }

  /** Somebody else uses the client's address: nobody gets it until `until`. Returns what is then recorded. */
  decline(client: string, until: number): PoolLease | undefined {
    const lease = this.byClient.get(client);
    if (lease === undefined) return undefined;
    this.byClient.delete(client);
    const declined: PoolLease = { address: lease.address, client: '', state: 'declined', until, ...NOBODY };
    this.byAddress.set(lease.address, declined);
    return declined;
  }

  /**
   * Says of what is over that it is: an offer that nobody took and a quarantine are forgotten, a lease is its client's own that
   * others may have. Without it the clock would wrap, and call it in force again 24 days later.
   */
  settle(now: number): void {
    for (const lease of [...this.byAddress.values()]) {
      const left = (lease.until - now) | 0;
      if (left > 0 && lease.state !== 'free') continue;
      if (lease.state === 'offered' || lease.state === 'declined') this.forget(lease);
      else {
        lease.state = 'free';
        if (left > 0 || left < -LONG_AGO) lease.until = (now - LONG_AGO) | 0;
      }
    }
  }

  /** The address is as fresh as one that nobody has had. */
  private forget(lease: PoolLease): void {
    this.byAddress.delete(lease.address);
    if (this.byClient.get(lease.client) === lease) this.byClient.delete(lease.client);
    if (lease.address >= this.first) this.unused = Math.min(this.unused, lease.address);
  }

  /** A record of before the restart; left out when the address is no longer in the range. */
  restore(lease: PoolLease): void {
    if (lease.address < this.first || lease.address > this.last || this.excluded.has(lease.address)) return;
    this.byAddress.set(lease.address, lease);
    if (lease.client !== '') this.byClient.set(lease.client, lease);
  }

  /** True when this client may have this address now: it is its own, or nobody's. */
  mayHave(now: number, client: string, address: number): boolean {
    const owner = this.reserved.get(address);
    if (owner !== undefined) return owner === client;
    const lease = this.byAddress.get(address);
    if (lease !== undefined && lease.client === client) return true;
    return this.isFree(now, address);
  }

  private isFree(now: number, address: number): boolean {
    if (address < this.first || address > this.last) return false;
    if (this.reserved.has(address) || this.excluded.has(address)) return false;
    const lease = this.byAddress.get(address);
    return lease === undefined || lease.state === 'free' || ((lease.until - now) | 0) <= 0;
  }
}
