/**
 * Lease file of a DHCP server: what its pools have promised, kept over a restart and over the death of the process
 * (journal.ts has its form). A record is a lease at the time when it changed; the last one of an address counts.
 *
 * Times in the file are milliseconds since 1970, those of a pool the router's clock. An address that was given back, or whose
 * lease is over, is remembered as its client's own.
 */
import { formatIpv4, parseIpv4 } from '../../dataplane/wire/address.ts';
import { swap32 } from '../../dataplane/wire/bytes.ts';
import { Journal, type JournalRecord } from '../journal.ts';
import { type LeaseState, LONG_AGO, type PoolLease } from './pool.ts';

const STATES: readonly string[] = ['bound', 'declined', 'free'] satisfies LeaseState[];

export class LeaseFile {
  private readonly journal: Journal;
  private readonly wall: (clock: number) => number;

  private constructor(journal: Journal, wall: (clock: number) => number) {
    this.journal = journal;
    this.wall = wall;
  }

  /**
   * Opens the file, made when it is not there.
   *
   * @param now the router's clock
   * @param wall milliseconds since 1970 of a time of the router's clock
   * @returns the leases in it, and what a person should know about it
   * @throws Error when it cannot be used
   */
  static open(
    file: string,
    now: number,
    wall: (clock: number) => number,
  ): { file: LeaseFile; leases: PoolLease[]; notes: string[] } {
    const { journal, recovered } = Journal.open(file);
    const leases = new Map<number, PoolLease>();
    let strange = 0;
    const then = (clock: number) => wall(clock) + recovered.behind;
    for (const record of recovered.records) {
      const lease = leaseOf(record, now, then);
      if (lease === null) strange++;
      else leases.set(lease.address, lease);
    }
    const notes: string[] = [];
    if (recovered.damaged > 0)
      notes.push(`${file}: ${recovered.damaged} bytes behind the last whole record are in ${recovered.aside} now`);
    if (strange > 0) notes.push(`${file}: ${strange} records that are no leases were left out`);
    const own = new LeaseFile(journal, wall);
    own.rewrite([...leases.values()]);
    return { file: own, leases: [...leases.values()], notes };
  }

  /** A lease has changed; `all`: every lease there is, for when the file has grown too long. Throws when it cannot be written. */
  put(lease: PoolLease, all: () => PoolLease[]): void {
    this.journal.append(recordOf(lease, this.wall));
    if (!this.journal.isLong(0)) return;
    const leases = all();
    if (this.journal.isLong(leases.length)) this.rewrite(leases);
  }

  /** Writes every lease there is by the time of day that it is now. Throws when it cannot be written. */
  rewrite(leases: readonly PoolLease[]): void {
    this.journal.rewrite(leases.map((lease) => recordOf(lease, this.wall)));
  }

  /** Returns when all is on the disk. */
  sync(): void {
    this.journal.sync();
  }

  close(): void {
    this.journal.close();
  }
}

/** A lease as plain data, whose times mean something to another process. @param wall milliseconds since 1970 of a clock's time */
export function recordOf({ address, until, ...rest }: PoolLease, wall: (clock: number) => number): JournalRecord {
  return { address: formatIpv4(swap32(address)), until: Math.round(wall(until)), ...rest };
}

/** The lease that such a record is of; null: it is none. @param now the router's clock */
export function leaseOf(record: JournalRecord, now: number, wall: (clock: number) => number): PoolLease | null {
  const { address, client, state, until, hostName, mac, remoteId } = record;
  const word = typeof address === 'string' ? parseIpv4(address) : null;
  if (word === null || typeof client !== 'string' || typeof hostName !== 'string' || typeof until !== 'number')
    return null;
  if (typeof mac !== 'string' || typeof remoteId !== 'string') return null;
  if (typeof state !== 'string' || !STATES.includes(state)) return null;
  const left = Math.max(-LONG_AGO, Math.min(until - wall(now), 0x7fffffff));
  return {
    address: swap32(word) >>> 0,
    client,
    state: state as LeaseState,
    until: (now + left) | 0,
    hostName,
    mac,
    remoteId,
  };
}
