/**
 * Lease store: keeps the leases of a DHCP server beyond its domain. With a lease file (lease-file.ts) they are written
 * there, and answers that promise something wait until it is on the disk: those of one burst wait together, so that one
 * write serves them all. Without one, Control keeps them (action `keep`): they outlive the domain, not the router.
 */
import type { JournalRecord } from '../journal.ts';
import type { Action, KeptValues } from '../protocol.ts';
import { LeaseFile, leaseOf, recordOf } from './lease-file.ts';
import type { PoolLease } from './pool.ts';
import type { Server } from './served.ts';

/** Answers that wait for the disk at most: a burst is no longer. */
const MAX_WAITING = 256;

export interface LeaseStoreOptions {
  /** The router's clock now. */
  now: number;
  /** Milliseconds since 1970 of a time of the router's clock. */
  wall: (clock: number) => number;
  log: (level: 'info' | 'warn', message: string) => void;
  kept: KeptValues;
}

export class LeaseStore {
  private readonly servers: ReadonlyMap<number, Server>;
  private readonly options: LeaseStoreOptions;
  private readonly counters: { notStored: number };
  /** Answers whose leases are written, but perhaps not on the disk yet. */
  private waiting: Action[] = [];
  /** Keys of what was kept and is in a file now. */
  private readonly filed: string[] = [];

  /** @param servers those that are served, also those that come later */
  constructor(servers: ReadonlyMap<number, Server>, options: LeaseStoreOptions, counters: { notStored: number }) {
    this.servers = servers;
    this.options = options;
    this.counters = counters;
  }

  /** Leases come back from the file and from the domain before. @throws Error when the file cannot be used */
  recover(server: Server): void {
    const { now, wall, log, kept } = this.options;
    const known = new Set<number>();
    const restore = (lease: PoolLease): void => {
      known.add(lease.address);
      for (const { pool } of server.pools) pool.restore(lease);
    };
    if (server.config.file !== '') {
      const { file, leases, notes } = LeaseFile.open(server.config.file, now, wall);
      server.file = file;
      leases.forEach(restore);
      for (const note of notes) log('warn', note);
    }
    for (const [key, { value }] of kept) {
      if (!key.startsWith(keyPrefix(server))) continue;
      const lease = leaseOf(value as JournalRecord, now, wall);
      if (lease !== null && !known.has(lease.address)) {
        restore(lease);
        this.write(server, lease);
      }
      if (server.file !== null) this.filed.push(key);
    }
  }

  /** What was kept and has come into a file needs to be kept no more. */
  tellFiled(out: Action[]): void {
    for (const key of this.filed) out.push({ kind: 'keep', key, value: null });
  }

  /** Answers that promise what `put` has written. Sends those that wait when they are too many. */
  hold(answers: readonly Action[], out: Action[]): void {
    this.waiting.push(...answers);
    if (this.waiting.length >= MAX_WAITING) out.push(...this.flush());
  }

  /** True while answers wait for the disk. */
  get waits(): boolean {
    return this.waiting.length > 0;
  }

  /** What waits for the disk may go once all is there; when the disk fails, nobody is promised anything. */
  flush(): Action[] {
    const { waiting } = this;
    this.waiting = [];
    if (waiting.length === 0) return [];
    try {
      for (const { file } of this.servers.values()) file?.sync();
      return waiting;
    } catch (error) {
      return [this.notStored(error)];
    }
  }

  private notStored(error: unknown): Action {
    this.counters.notStored++;
    return { kind: 'log', level: 'warn', message: `dhcp4: ${(error as Error).message}; no answer was given` };
  }

  /** Writes down what has become of a lease, or has it kept; false when that failed. */
  put(server: Server, lease: PoolLease | undefined, out: Action[]): boolean {
    if (lease === undefined) return true;
    if (server.file === null) {
      const value = recordOf(lease, this.options.wall);
      out.push({ kind: 'keep', key: `${keyPrefix(server)}${value.address}`, value });
      return true;
    }
    try {
      this.write(server, lease);
      return true;
    } catch (error) {
      out.push(this.notStored(error));
      return false;
    }
  }

  private write(server: Server, lease: PoolLease): void {
    server.file?.put(lease, () => recorded(server));
  }

  /** The time of day was set: leases go on by the router's clock, and what is written of them must say so. */
  writeAgain(out: Action[]): void {
    for (const server of this.servers.values()) {
      const leases = recorded(server);
      if (server.file === null) for (const lease of leases) this.put(server, lease, out);
      else
        try {
          server.file.rewrite(leases);
        } catch (error) {
          const message = `dhcp4: ${(error as Error).message}; leases in the file have the time of day of before`;
          out.push({ kind: 'log', level: 'warn', message });
        }
    }
  }

  /** Closes the lease files. */
  close(): void {
    for (const { file } of this.servers.values()) file?.close();
  }
}

/** What is written down of a server's leases. */
function recorded(server: Server): PoolLease[] {
  return server.pools.flatMap(({ pool }) => [...pool.leases()].filter(({ state }) => state !== 'offered'));
}

/** What the keys of a port's leases begin with, when they are in no file. */
function keyPrefix({ config }: Server): string {
  return `dhcp4-server ${config.name} `;
}
