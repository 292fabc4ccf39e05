/**
 * Leases: who has which address or prefix until when, in memory and, when there is a journal, on the disk.
 *
 * Times are milliseconds since 1970, since a lease outlives the process; Infinity never ends. A lease belongs to a client
 * by its name (`duid:…` or `remote-id:…`), the kind and the IAID; a client may have several in one IA. Declined addresses
 * are leases of nobody until their quarantine ends (RFC 8415 §18.3.8).
 */
import { formatAddress, parseCidr, type Words } from '../../dataplane/wire/address.ts';
import { Journal, type JournalRecord } from '../journal.ts';
import { Deadlines } from './deadlines.ts';

export interface Lease {
  client: string;
  kind: 'na' | 'pd';
  iaid: number;
  words: Words;
  prefixLength: number;
  preferred: number;
  valid: number;
  /** Where the client is, when it is on a link of the router's own: port name and its link-local address. */
  port: string;
  via: Words | null;
}

/** Client of a declined address. */
export const DECLINED = 'declined';
/** Quarantine of a declined address: a day. */
const QUARANTINE = 86_400_000;

/** `2001:db8::/60`: also the key of a lease. */
export function prefixText(words: Words, prefixLength: number): string {
  return `${formatAddress(6, ...words)}/${prefixLength}`;
}

export class Leases {
  private readonly byPrefix = new Map<string, Lease>();
  private readonly byClient = new Map<string, Set<Lease>>();
  private readonly ends = new Deadlines();
  /** How many of them are addresses. */
  addresses = 0;
  private journal: Journal | null = null;

  get size(): number {
    return this.byPrefix.size;
  }

  /**
   * Keeps leases in a file from now on; those in it that have not ended come into force.
   *
   * @param now milliseconds since 1970
   * @returns what a person should know; empty when all is well
   * @throws Error when the file cannot be used
   */
  open(file: string, now: number): string[] {
    const { journal, recovered } = Journal.open(file);
    this.journal = journal;
    let strange = 0;
    for (const record of recovered.records) {
      const lease = leaseOf(record);
      if (lease === null) {
        strange++;
        continue;
      }
      lease.preferred -= recovered.behind;
      lease.valid -= recovered.behind;
      if (lease.valid <= now) this.forget(this.get(lease.words, lease.prefixLength));
      else this.keep(lease);
    }
    journal.rewrite([...this.byPrefix.values()].map(recordOf));
    const notes: string[] = [];
    if (recovered.damaged > 0)
      notes.push(`${file}: ${recovered.damaged} bytes behind the last whole record are in ${recovered.aside} now`);
    if (strange > 0) notes.push(`${file}: ${strange} records that are no leases were left out`);
    return notes;
  }

  /** True when promises must wait for `sync`. */
  get stored(): boolean {
    return this.journal !== null;
  }

  get(words: Words, prefixLength: number): Lease | undefined {
    return this.byPrefix.get(prefixText(words, prefixLength));
  }

  /** All leases of a client; `iaid` undefined: of all its IAs. */
  of(client: string, kind?: Lease['kind'], iaid?: number): Lease[] {
    const all = [...(this.byClient.get(client) ?? [])];
    return all.filter((l) => (kind === undefined || l.kind === kind) && (iaid === undefined || l.iaid === iaid));
  }

  [Symbol.iterator](): IterableIterator<Lease> {
    return this.byPrefix.values();
  }

  /** Puts a lease in force, or renews it. Throws when it cannot be written: then nothing has changed. */
  put(lease: Lease): void {
    this.journal?.append(recordOf(lease));
    this.keep(lease);
    this.compact();
  }

  /** Ends a lease now. */
  end(lease: Lease): void {
    this.journal?.append(recordOf({ ...lease, valid: 0, preferred: 0 }));
    this.forget(lease);
    this.compact();
  }

  /** Takes an address that somebody else has on the link out of use for a day. */
  decline(lease: Lease, now: number): void {
    this.put({ ...lease, client: DECLINED, valid: now + QUARANTINE, preferred: 0, via: null });
  }

  /** Every lease ends so many milliseconds later. Throws when that cannot be written; in memory it is so. */
  shift(step: number): void {
    for (const [key, lease] of this.byPrefix) {
      lease.preferred += step;
      lease.valid += step;
      this.ends.set(key, lease.valid);
    }
    this.journal?.rewrite([...this.byPrefix.values()].map(recordOf));
  }

  /** Returns when all is on the disk. */
  sync(): void {
    this.journal?.sync();
  }

  /** The next end of a lease, milliseconds since 1970. */
  next(): number {
    return this.ends.next();
  }

  /** Takes out one lease that has ended; undefined: none. The file needs no record: the time is in it. */
  expired(now: number): Lease | undefined {
    const name = this.ends.take(now);
    const lease = name === undefined ? undefined : this.byPrefix.get(name);
    this.forget(lease);
    return lease;
  }

  close(): void {
    this.journal?.close();
    this.journal = null;
  }

  private keep(lease: Lease): void {
    const key = prefixText(lease.words, lease.prefixLength);
    const before = this.byPrefix.get(key);
    if (before !== undefined && before !== lease) this.forget(before);
    if (before !== lease && lease.kind === 'na') this.addresses++;
    this.byPrefix.set(key, lease);
    let set = this.byClient.get(lease.client);
    if (set === undefined) {
      set = new Set();
      this.byClient.set(lease.client, set);
    }
    set.add(lease);
    this.ends.set(key, lease.valid);
  }

  private forget(lease: Lease | undefined): void {
    if (lease === undefined) return;
    const key = prefixText(lease.words, lease.prefixLength);
    if (this.byPrefix.get(key)?.kind === 'na') this.addresses--;
    this.byPrefix.delete(key);
    this.ends.delete(key);
    const set = this.byClient.get(lease.client);
    set?.delete(lease);
    if (set?.size === 0) this.byClient.delete(lease.client);
  }

  private compact(): void {
    if (this.journal?.isLong(this.byPrefix.size)) this.journal.rewrite([...this.byPrefix.values()].map(recordOf));
  }
}

/** A lease as plain data. JSON has no Infinity: null stands for it. */
export function recordOf(lease: Lease): JournalRecord {
  const { client, kind, iaid, port, via } = lease;
  const time = (end: number) => (end === Number.POSITIVE_INFINITY ? null : Math.round(end));
  return {
    client,
    kind,
    iaid,
    prefix: prefixText(lease.words, lease.prefixLength),
    preferred: time(lease.preferred),
    valid: time(lease.valid),
    port,
    via: via === null ? null : formatAddress(6, ...via),
  };
}

/** The lease that such a record is of; null: it is none. */
export function leaseOf(record: JournalRecord): Lease | null {
  const { client, kind, iaid, prefix, preferred, valid, port, via } = record;
  const cidr = typeof prefix === 'string' ? parseCidr(prefix) : null;
  if (typeof client !== 'string' || (kind !== 'na' && kind !== 'pd') || cidr === null || cidr.family !== 6) return null;
  if (typeof iaid !== 'number' || !isTime(preferred) || !isTime(valid) || typeof port !== 'string') return null;
  const next = typeof via === 'string' ? parseCidr(`${via}/128`) : null;
  return {
    client,
    kind,
    iaid,
    words: cidr.words,
    prefixLength: cidr.prefixLength,
    preferred: (preferred as number | null) ?? Number.POSITIVE_INFINITY,
    valid: (valid as number | null) ?? Number.POSITIVE_INFINITY,
    port,
    via: next?.words ?? null,
  };
}

function isTime(value: unknown): boolean {
  return value === null || typeof value === 'number';
}
