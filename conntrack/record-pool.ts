/**
 * The records of the connection table: who has which, and when one may be used again. The hash over them is table.ts.
 *
 * Theory of operation
 * - A worker takes records from a free list of its own, without atomics. It fills that list from its limbo, from records
 *   that were never used, from a global list under a lock; a worker that has more than it needs gives to that one.
 * - A deleted record rests in its worker's limbo until every reader has passed a quiet point twice (epochs): a reader
 *   may still stand on it and follow its links. A worker that sleeps, or a domain that only looks in now and then, is
 *   OFFLINE and holds nobody up.
 * - A record is in one list at a time, linked by CT_TIMER; in limbo its CT_TIMER_PREV is the epoch of its deletion. It
 *   leaves one list before it enters the other: a worker that dies in between loses it, and nobody gets it twice.
 * - A lock word holds its owner's number + 1, so that the supervisor can break the locks of a dead worker.
 *
 * Control words:
 *   0 BASE (connections that were there at first: a snapshot's)  1 BUMP (records ever used)  2 FREE (global list)
 *   3 FREE_LOCK  4 EPOCH  5 FULL (times)  6 EARLY_DROP  7 USERS (workers that there have been)  8 HUNGRY (a worker has no
 *   records left: whoever has more than it needs gives some to the global list)  9 SEED
 *   10 MAX (connections; there are more records, as deleted ones rest a while)  11 WANTED (epochs that others wait for)
 *   12 LEAD, 13 LEAD6 (bytes before the first record)  14 CAPACITY (records)  15 always 0, to nap on
 *   16 + 16w, a cache line: of worker w: LOCAL_EPOCH, FREE list, LIMBO head, LIMBO tail, INSERTS, DELETES
 */
import { sharedAligned } from '../dataplane/wire/aligned.ts';
import { CT_F64, CT_GEN, CT_STATUS, CT_TIMER, CT_TIMER_PREV, CT_WORDS, CT6_WORDS } from './record.ts';

export const MAX_WORKERS = 32;
export const BASE = 0;
export const BUMP = 1;
export const FREE = 2;
const FREE_LOCK = 3;
const EPOCH = 4;
export const FULL = 5;
export const EARLY_DROP = 6;
const USERS = 7;
const HUNGRY = 8;
export const SEED = 9;
const MAX = 10;
const WANTED = 11;
const LEAD = 12;
const LEAD6 = 13;
const CAPACITY = 14;
const WORKER = 16;
const WORKER_WORDS = 16;
const W_EPOCH = 0;
const W_FREE = 1;
const W_LIMBO_HEAD = 2;
const W_LIMBO_TAIL = 3;
export const W_INSERTS = 4;
export const W_DELETES = 5;
export const CONTROL_WORDS = WORKER + WORKER_WORDS * MAX_WORKERS;
const OFFLINE = -1;
/** Records fetched from the global list at a time. */
const BATCH = 32;

export interface RecordBuffers {
  control: SharedArrayBuffer;
  words: SharedArrayBuffer;
  addresses6: SharedArrayBuffer;
}

/** Bytes that the records for `max` connections take (without the address space reserved for IPv6 addresses). */
export function recordBytes(max: number): number {
  return capacityFor(max) * CT_WORDS * 4 + CONTROL_WORDS * 4;
}

/**
 * Makes the shared memory of records for `max` connections. `seed`: any int32, of the table's hash; `behind`: words that
 * the caller wants behind the control words.
 */
export function createRecords(max: number, seed: number, behind: number): RecordBuffers {
  const words = sharedAligned(capacityFor(max) * CT_WORDS * 4);
  const six = sharedAligned(capacityFor(max) * CT6_WORDS * 4);
  const buffers = {
    control: new SharedArrayBuffer((CONTROL_WORDS + behind) * 4),
    words: words.buffer,
    addresses6: six.buffer,
  };
  const control = new Int32Array(buffers.control);
  control[SEED] = seed;
  control[MAX] = max;
  control[LEAD] = words.lead;
  control[LEAD6] = six.lead;
  control[CAPACITY] = capacityFor(max);
  control[EPOCH] = 2;
  for (let w = 0; w < MAX_WORKERS; w++) control[WORKER + WORKER_WORDS * w + W_EPOCH] = OFFLINE;
  return buffers;
}

/** Records for `max` connections: deleted ones rest until every reader has passed, workers fetch free ones in batches. */
function capacityFor(max: number): number {
  return max + 1024 + (max >> 6);
}

/** One worker's view of the records; ConntrackTable puts the hash on it. */
export class RecordPool {
  /** Record words; a record starts at index * CT_WORDS. */
  readonly words: Int32Array;
  /** The same memory as doubles, for packet and byte counters; a record starts at index * CT_F64. */
  readonly doubles: Float64Array;
  /** IPv6 addresses; a record starts at index * CT6_WORDS. */
  readonly words6: Int32Array;
  /** Connections that may be tracked, and records that there are. */
  readonly max: number;
  readonly capacity: number;
  protected readonly control: Int32Array;
  /** Number of the calling worker, and the place of its control words. */
  private readonly worker: number;
  protected readonly mine: number;

  /** @param worker number of the calling worker, 0 … MAX_WORKERS − 1 (lock owner, free list, limbo) */
  constructor(buffers: RecordBuffers, worker: number) {
    this.control = new Int32Array(buffers.control, 0, CONTROL_WORDS);
    const capacity = this.control[CAPACITY];
    this.words = new Int32Array(buffers.words, this.control[LEAD], capacity * CT_WORDS);
    this.doubles = new Float64Array(buffers.words, this.control[LEAD], capacity * CT_F64);
    this.words6 = new Int32Array(buffers.addresses6, this.control[LEAD6], capacity * CT6_WORDS);
    this.max = this.control[MAX];
    this.capacity = capacity;
    this.worker = worker;
    this.mine = WORKER + WORKER_WORDS * worker;
    // Counting stops at the last worker that there has been.
    for (;;) {
      const users = Atomics.load(this.control, USERS);
      if (users > worker || Atomics.compareExchange(this.control, USERS, users, worker + 1) === users) break;
    }
  }

  /** Connections: each worker counts what it has inserted and deleted, in a line of its own, without atomics. */
  get count(): number {
    const control = this.control;
    let count = control[BASE];
    const end = WORKER + WORKER_WORDS * control[USERS];
    for (let at = WORKER; at < end; at += WORKER_WORDS)
      count = (count + control[at + W_INSERTS] - control[at + W_DELETES]) | 0;
    return count;
  }

  /** True when a new connection needs the place of another. */
  get isFull(): boolean {
    return this.count >= this.max;
  }

  /** Counters since start: inserted, deleted, times the table was full, connections given up by early drop. */
  statistics(): { inserted: number; deleted: number; full: number; earlyDrop: number } {
    const c = this.control;
    let [inserted, deleted] = [0, 0];
    for (let worker = 0; worker < c[USERS]; worker++) {
      inserted += c[WORKER + WORKER_WORDS * worker + W_INSERTS] >>> 0;
      deleted += c[WORKER + WORKER_WORDS * worker + W_DELETES] >>> 0;
    }
    return { inserted, deleted, full: c[FULL], earlyDrop: c[EARLY_DROP] };
  }

  /** Records 0 … highWater − 1 have been used at some time: what a dump has to look at. */
  get highWater(): number {
    return Math.min(Atomics.load(this.control, BUMP), this.capacity);
  }

  // --- free records -------------------------------------------------------------------------------------------------

  /** Takes a free record for the calling worker, all words zero but GEN (which grew); −1 when there is none. */
  protected take(): number {
    const control = this.control;
    if (control[this.mine + W_FREE] === 0 && !this.refill()) return -1;
    const index = control[this.mine + W_FREE] - 1;
    const w = this.words;
    const c = index * CT_WORDS;
    control[this.mine + W_FREE] = w[c + CT_TIMER];
    const generation = w[c + CT_GEN];
    // Three cache lines; fill() would be a call of 200 ns.
    for (let at = c; at < c + CT_WORDS; at += 8) {
      w[at] = w[at + 1] = w[at + 2] = w[at + 3] = 0;
      w[at + 4] = w[at + 5] = w[at + 6] = w[at + 7] = 0;
    }
    w[c + CT_GEN] = (generation + 1) | 0;
    return index;
  }

  /** Gives back a record that was never inserted. */
  discard(index: number): void {
    const control = this.control;
    this.words[index * CT_WORDS + CT_STATUS] = 0;
    this.words[index * CT_WORDS + CT_TIMER] = control[this.mine + W_FREE];
    control[this.mine + W_FREE] = index + 1;
  }

  /** Fills the worker's free list: from its limbo, from memory never used, from the global list. */
  private refill(): boolean {
    const control = this.control;
    if (this.reclaim() > 0) return true;
    const first = control[BUMP] < this.capacity ? Atomics.add(control, BUMP, BATCH) : this.capacity;
    if (first < this.capacity) {
      const end = Math.min(first + BATCH, this.capacity);
      for (let index = end - 1; index >= first; index--) this.discard(index);
      return true;
    }
    // All records have been used once: the others are asked now, so that they have given before these are used up.
    Atomics.store(control, HUNGRY, 1);
    if (Atomics.load(control, FREE) === 0) return false;
    this.lock(FREE_LOCK, control);
    for (let n = 0; n < BATCH && control[FREE] !== 0; n++) {
      const index = control[FREE] - 1;
      control[FREE] = this.words[index * CT_WORDS + CT_TIMER];
      this.discard(index);
    }
    Atomics.store(control, FREE_LOCK, 0);
    return control[this.mine + W_FREE] !== 0;
  }

  /** Gives records that have rested long enough to the global list: a worker that makes few connections has no use for them. */
  private donate(): void {
    const control = this.control;
    const w = this.words;
    const safe = (Atomics.load(control, EPOCH) - 2) | 0;
    let head = control[this.mine + W_LIMBO_HEAD];
    if (((w[(head - 1) * CT_WORDS + CT_TIMER_PREV] - safe) | 0) > 0) return;
    Atomics.store(control, HUNGRY, 0);
    this.lock(FREE_LOCK, control);
    for (let n = 0; n < 4 * BATCH && head !== 0; n++) {
      const c = (head - 1) * CT_WORDS;
      if (((w[c + CT_TIMER_PREV] - safe) | 0) > 0) break;
      const next = w[c + CT_TIMER];
      control[this.mine + W_LIMBO_HEAD] = next;
      w[c + CT_STATUS] = 0;
      w[c + CT_TIMER] = control[FREE];
      Atomics.store(control, FREE, head);
      head = next;
    }
    Atomics.store(control, FREE_LOCK, 0);
  }

  /** Moves records from limbo to the free list whose epoch every reader has left. Returns how many. */
  private reclaim(): number {
    const control = this.control;
    const w = this.words;
    const safe = (Atomics.load(control, EPOCH) - 2) | 0;
    let moved = 0;
    let head = control[this.mine + W_LIMBO_HEAD];
    while (head !== 0 && moved < 4 * BATCH) {
      const c = (head - 1) * CT_WORDS;
      if (((w[c + CT_TIMER_PREV] - safe) | 0) > 0) break;
      const next = w[c + CT_TIMER];
      control[this.mine + W_LIMBO_HEAD] = next;
      this.discard(head - 1);
      moved++;
      head = next;
    }
    return moved;
  }

  /**
   * Sends a deleted record to limbo, and from there to the free list. A deleted record is still filed in an aging
   * wheel: its owner, who takes it out there, calls this, exactly once.
   */
  release(index: number): void {
    const control = this.control;
    const w = this.words;
    const c = index * CT_WORDS;
    w[c + CT_TIMER] = 0;
    // Not in the deadline: who found the connection just before it went may still write that.
    w[c + CT_TIMER_PREV] = Atomics.load(control, EPOCH);
    // The tail says nothing while the list is empty. In this order, a death in between costs this record and no other.
    if (control[this.mine + W_LIMBO_HEAD] === 0) {
      control[this.mine + W_LIMBO_TAIL] = index + 1;
      control[this.mine + W_LIMBO_HEAD] = index + 1;
    } else {
      w[(control[this.mine + W_LIMBO_TAIL] - 1) * CT_WORDS + CT_TIMER] = index + 1;
      control[this.mine + W_LIMBO_TAIL] = index + 1;
    }
  }

  // --- quiet points -------------------------------------------------------------------------------------------------

  /** The calling worker holds no reference into the table now; called once a burst. */
  quiet(): void {
    const control = this.control;
    const epoch = Atomics.load(control, EPOCH);
    if (control[this.mine + W_EPOCH] !== epoch) Atomics.store(control, this.mine + W_EPOCH, epoch);
    // Only worth advancing when somebody waits for it.
    if (control[this.mine + W_LIMBO_HEAD] === 0 && control[WANTED] === 0) return;
    if (control[HUNGRY] !== 0 && control[this.mine + W_LIMBO_HEAD] !== 0) this.donate();
    for (let n = 0; n < MAX_WORKERS; n++) {
      const seen = control[WORKER + WORKER_WORDS * n + W_EPOCH];
      if (seen !== OFFLINE && seen !== epoch) return;
    }
    if (Atomics.compareExchange(control, EPOCH, epoch, (epoch + 1) & 0x7fffffff) === epoch && control[WANTED] > 0)
      control[WANTED]--;
  }

  /** Number of the epoch; what was unlinked in an epoch is out of everybody's reach two epochs later. */
  epoch(): number {
    return this.control[EPOCH];
  }

  /** Something other than a connection record rests: let the epoch advance at least twice more. */
  wantEpochs(): void {
    this.control[WANTED] = 3;
  }

  /** The calling worker will not look at the table until it calls `quiet` again. */
  offline(): void {
    Atomics.store(this.control, this.mine + W_EPOCH, OFFLINE);
  }

  /** After the death of a worker: breaks its lock of the global list, and waits for it no more. */
  protected bury(deadWorker: number): void {
    if (this.control[FREE_LOCK] === deadWorker + 1) Atomics.store(this.control, FREE_LOCK, 0);
    Atomics.store(this.control, WORKER + WORKER_WORDS * deadWorker + W_EPOCH, OFFLINE);
  }

  /** Until `stepOff` nothing that the calling worker may reach is used again. Returns what `stepOff` wants. */
  protected stepOn(): number {
    const before = this.control[this.mine + W_EPOCH];
    Atomics.store(this.control, this.mine + W_EPOCH, Atomics.load(this.control, EPOCH));
    return before;
  }

  protected stepOff(before: number): void {
    Atomics.store(this.control, this.mine + W_EPOCH, before);
  }

  // --- locks --------------------------------------------------------------------------------------------------------

  /** Locks a word; holds the owner's number + 1. */
  lock(at: number, locks: Int32Array): void {
    const owner = this.worker + 1;
    let spins = 0;
    while (Atomics.compareExchange(locks, at, 0, owner) !== 0) {
      if (++spins > 1000) {
        Atomics.wait(this.control, 15, 0, 0.05); // never notified: a bounded nap
        spins = 0;
      }
    }
  }
}
