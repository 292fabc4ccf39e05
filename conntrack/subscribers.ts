/**
 * Subscribers: what a carrier-grade NAT keeps of one inside address (RFC 6888): its outside address, its blocks of ports
 * and how many sessions it has. In shared memory, found by open addressing; a subscriber's record is never taken out,
 * so that the table's size is the number of inside addresses that may ever be seen.
 *
 *   head   0 CAPACITY  1 LOCK  2 WRITE  3 READ  4 LOST (log entries)  5 COUNT
 *   record 0 INSIDE raw  1 OUTSIDE raw (0: none now)  2 SESSIONS  3 BLOCKS  4 LOCK  5 REFUSED  6 BASE (first port of block 0)
 *          8 … 23 the blocks: first port | ports << 16
 *   log    0 TIME  1 INSIDE  2 OUTSIDE  3 first port | ports << 16  4 LOG_*     (a ring; full, it loses and counts)
 *
 * Assignments of blocks are logged and nothing else is (RFC 6888 REQ-12: destinations are not; §4: blocks make it little).
 */
export const SUB_WORDS = 24;
export const SUB_INSIDE = 0;
export const SUB_OUTSIDE = 1;
export const SUB_SESSIONS = 2;
export const SUB_BLOCKS = 3;
const SUB_LOCK = 4;
export const SUB_REFUSED = 5;
export const SUB_BASE = 6;
export const SUB_BLOCK = 8;
/** Blocks that one subscriber may have at most. */
export const MAX_BLOCKS = 16;

export const LOG_ASSIGN = 1;
export const LOG_RELEASE = 2;

const HEAD = 8;
const LOCK = 1;
const WRITE = 2;
const READ = 3;
const LOST = 4;
const COUNT = 5;
const LOG_ENTRIES = 4096;
const LOG_WORDS = 5;

/** One line of the log. */
export interface BlockLogEntry {
  time: number;
  inside: number;
  outside: number;
  low: number;
  high: number;
  assigned: boolean;
}

export class Subscribers {
  readonly words: Int32Array;
  readonly capacity: number;
  private readonly head: Int32Array;
  private readonly log: Int32Array;

  private readonly owner: number;

  /** @param buffer Subscribers.bytes(n) bytes, zeroed at first   @param worker number of the calling thread */
  constructor(buffer: SharedArrayBuffer, worker = 0) {
    this.owner = worker + 1;
    const all = new Int32Array(buffer);
    this.head = all.subarray(0, HEAD);
    this.log = all.subarray(HEAD, HEAD + LOG_ENTRIES * LOG_WORDS);
    this.words = all.subarray(HEAD + LOG_ENTRIES * LOG_WORDS);
    this.capacity = Math.floor(this.words.length / SUB_WORDS);
  }

  /** Bytes for `capacity` subscribers. */
  static bytes(capacity: number): number {
    return (HEAD + LOG_ENTRIES * LOG_WORDS + capacity * SUB_WORDS) * 4;
  }

  get count(): number {
    return this.head[COUNT];
  }

  /** Word index of a subscriber's record, made when `make` is set; −1: there is none, or no room. */
  find(inside: number, make: boolean): number {
    const capacity = this.capacity;
    if (capacity === 0) return -1;
    const w = this.words;
    const home = (Math.imul(inside ^ (inside >>> 15), 0x9e3779b1) >>> 1) % capacity;
    for (let n = 0; n < capacity; n++) {
      const at = ((home + n) % capacity) * SUB_WORDS;
      if (w[at] === inside) return at;
      if (w[at] !== 0) continue;
      if (!make) return -1;
      const before = Atomics.compareExchange(w, at, 0, inside);
      if (before === 0) Atomics.add(this.head, COUNT, 1);
      if (before === 0 || before === inside) return at;
    }
    return -1;
  }

  lock(at: number): void {
    while (Atomics.compareExchange(this.words, at + SUB_LOCK, 0, this.owner) !== 0);
  }

  unlock(at: number): void {
    Atomics.store(this.words, at + SUB_LOCK, 0);
  }

  /** Writes a block of the record at `at` into the log. */
  write(at: number, block: number, kind: number, now: number): void {
    const head = this.head;
    while (Atomics.compareExchange(head, LOCK, 0, this.owner) !== 0);
    const write = head[WRITE];
    if (((write - Atomics.load(head, READ)) | 0) >= LOG_ENTRIES) head[LOST]++;
    else {
      const e = (write & (LOG_ENTRIES - 1)) * LOG_WORDS;
      this.log[e] = now;
      this.log[e + 1] = this.words[at + SUB_INSIDE];
      this.log[e + 2] = this.words[at + SUB_OUTSIDE];
      this.log[e + 3] = block;
      this.log[e + 4] = kind;
      Atomics.store(head, WRITE, (write + 1) | 0);
    }
    Atomics.store(head, LOCK, 0);
  }

  /** After the death of a worker: breaks its locks; a block that it was taking may stay taken. Returns how many they were. */
  repair(deadWorker: number): number {
    const dead = deadWorker + 1;
    let broken = 0;
    for (let n = 0; n < this.capacity; n++)
      if (Atomics.compareExchange(this.words, n * SUB_WORDS + SUB_LOCK, dead, 0) === dead) broken++;
    if (Atomics.compareExchange(this.head, LOCK, dead, 0) === dead) broken++;
    return broken;
  }

  /** Log entries that were lost as nobody read. */
  get lost(): number {
    return this.head[LOST];
  }

  /** Takes the oldest entry out of the log; null: there is none. Control plane only. */
  read(): BlockLogEntry | null {
    const head = this.head;
    const read = head[READ];
    if (read === Atomics.load(head, WRITE)) return null;
    const e = (read & (LOG_ENTRIES - 1)) * LOG_WORDS;
    const low = this.log[e + 3] & 0xffff;
    const entry = {
      time: this.log[e],
      inside: this.log[e + 1],
      outside: this.log[e + 2],
      low,
      high: low + (this.log[e + 3] >>> 16) - 1,
      assigned: this.log[e + 4] === LOG_ASSIGN,
    };
    Atomics.store(head, READ, (read + 1) | 0);
    return entry;
  }
}
