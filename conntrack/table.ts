/**
 * The connection table: one hash for all protocols and both families, in shared memory.
 *
 * Theory of operation
 * - A connection is one record (record.ts) that hangs in the hash twice, once for each tuple. A chain link names the
 *   record and the direction: ((index << 1) | dir) + 1; 0 ends a chain.
 * - Readers take no lock and no Atomics.load (a builtin call of some 20 ns in V8): an aligned int32 load does not tear,
 *   and each link is reached through the load before it. A record is filled with plain stores and becomes visible by one
 *   Atomics.store on a bucket head.
 * - Writers lock the stripes of the two buckets in ascending order. The supervisor breaks the locks of a dead worker
 *   (`repair`): a record without CONFIRMED, or with DYING, that a dead owner left in a chain is taken out there.
 * - Where records come from, and when a deleted one may be used again, is record-pool.ts.
 * - What two workers may change at once (both directions of a connection): protocol state under the record's own lock
 *   word, status bits by Atomics.or, the deadline by plain stores (either is right).
 */
import { canEarlyDrop } from './protocols.ts';
import {
  CT_DEADLINE,
  CT_F64,
  CT_HASH,
  CT_KEY,
  CT_LOCK,
  CT_NEXT,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_R_DST,
  CT_R_PORTS,
  CT_R_SRC,
  CT_STATUS,
  CT_WORDS,
  CT6_WORDS,
  IPS_ASSURED,
  IPS_CONFIRMED,
  IPS_DYING,
  IPS_OFFLOAD,
} from './record.ts';
import {
  CONTROL_WORDS,
  createRecords,
  EARLY_DROP,
  FULL,
  type RecordBuffers,
  RecordPool,
  recordBytes,
  SEED,
  W_DELETES,
  W_INSERTS,
} from './record-pool.ts';

export { MAX_WORKERS } from './record-pool.ts';

const STRIPES = 4096;
const ESP = 50;
/** Buckets that early drop looks through, as nf_conntrack's NF_CT_EVICTION_RANGE. */
const EVICTION_RANGE = 8;

/** The records; behind their control words lie the locks of the stripes. */
export interface ConntrackBuffers extends RecordBuffers {
  heads: SharedArrayBuffer;
}

export class ConntrackTable extends RecordPool {
  readonly buffers: ConntrackBuffers;
  /** Bucket heads, and the mask that takes a hash to one (read by dataplane/touch.ts). */
  readonly heads: Int32Array;
  readonly mask: number;
  private readonly locks: Int32Array;
  private readonly seed: number;
  /** Hash of the last tuple that `find4` or `find6` looked up. */
  hash = 0;
  /** Record that the last refused `insert` clashed with, as (index << 1) | dir. */
  clash = -1;

  /** @param worker number of the calling worker, 0 … MAX_WORKERS − 1 (lock owner, free list, limbo) */
  constructor(buffers: ConntrackBuffers, worker: number) {
    super(buffers, worker);
    this.buffers = buffers;
    this.locks = new Int32Array(buffers.control, CONTROL_WORDS * 4, STRIPES);
    this.heads = new Int32Array(buffers.heads);
    this.mask = this.heads.length - 1;
    this.seed = this.control[SEED];
  }

  /** Bytes that a table for `max` connections takes (without the address space reserved for IPv6 addresses). */
  static bytes(max: number): number {
    return recordBytes(max) + (bucketsFor(max) + STRIPES) * 4;
  }

  /** Makes the shared memory of a table. `seed`: any int32, different at each start unless repeatability is wanted. */
  static create(max: number, seed: number): ConntrackBuffers {
    return { ...createRecords(max, seed, STRIPES), heads: new SharedArrayBuffer(bucketsFor(max) * 4) };
  }

  get buckets(): number {
    return this.heads.length;
  }

  // --- hashing -------------------------------------------------------------------------------------------------

  /** Hash of an IPv4 tuple; raw words. */
  hash4(src: number, dst: number, ports: number, key: number): number {
    let h = Math.imul(src ^ this.seed, 0x9e3779b1);
    h = Math.imul((h ^ (h >>> 15)) + dst, 0x85ebca6b);
    h = Math.imul((h ^ (h >>> 13)) + ports, 0xc2b2ae35);
    h = Math.imul((h ^ (h >>> 16)) + key, 0x27d4eb2f);
    return h ^ (h >>> 15);
  }

  /** Hash of an IPv6 tuple; raw words. */
  hash6(
    s0: number,
    s1: number,
    s2: number,
    s3: number,
    d0: number,
    d1: number,
    d2: number,
    d3: number,
    ports: number,
    key: number,
  ): number {
    const s = Math.imul(s0 ^ this.seed, 0x9e3779b1) ^ Math.imul(s1 + 0x165667b1, 0x85ebca6b);
    const t = Math.imul(s2 ^ (s >>> 15), 0xc2b2ae35) ^ Math.imul(s3 + s, 0x27d4eb2f);
    const u = Math.imul(d0 ^ (t >>> 13), 0x9e3779b1) ^ Math.imul(d1 + t, 0x85ebca6b);
    const v = Math.imul(d2 ^ (u >>> 15), 0xc2b2ae35) ^ Math.imul(d3 + u, 0x27d4eb2f);
    return this.hash4(v, v >>> 7, ports, key);
  }

  // --- looking up ------------------------------------------------------------------------------------------------

  /**
   * Finds an IPv4 tuple. Returns (record << 1) | direction, or −1; sets `hash`. An expired connection that is met on
   * the way is deleted, as nf_conntrack does.
   */
  find4(src: number, dst: number, ports: number, key: number, now: number): number {
    const w = this.words;
    const hash = this.hash4(src, dst, ports, key);
    this.hash = hash;
    let link = this.heads[hash & this.mask];
    while (link !== 0) {
      const index = (link - 1) >> 1;
      const dir = (link - 1) & 1;
      const c = index * CT_WORDS;
      const next = w[c + CT_NEXT + dir];
      if (w[c + CT_HASH + dir] === hash) {
        const t = c + (dir << 2);
        if (
          w[t + CT_O_SRC] === src &&
          w[t + CT_O_DST] === dst &&
          w[t + CT_O_PORTS] === ports &&
          w[c + CT_KEY] === key &&
          this.alive(index, c, now)
        )
          return (index << 1) | dir;
      }
      link = next;
    }
    return -1;
  }

  /** As find4, for who may stand on a chain: it only looks. Nothing is deleted, expired or not, and `hash` stays. */
  peek4(src: number, dst: number, ports: number, key: number): number {
    const w = this.words;
    const hash = this.hash4(src, dst, ports, key);
    for (let link = this.heads[hash & this.mask]; link !== 0; ) {
      const index = (link - 1) >> 1;
      const dir = (link - 1) & 1;
      const c = index * CT_WORDS;
      const t = c + (dir << 2);
      link = w[c + CT_NEXT + dir];
      if (
        w[c + CT_HASH + dir] === hash &&
        w[t + CT_O_SRC] === src &&
        w[t + CT_O_DST] === dst &&
        w[t + CT_O_PORTS] === ports &&
        w[c + CT_KEY] === key &&
        (w[c + CT_STATUS] & IPS_DYING) === 0
      )
        return (index << 1) | dir;
    }
    return -1;
  }

  /** Finds an IPv6 tuple; as find4. */
  find6(
    s0: number,
    s1: number,
    s2: number,
    s3: number,
    d0: number,
    d1: number,
    d2: number,
    d3: number,
    ports: number,
    key: number,
    now: number,
  ): number {
    const w = this.words;
    const w6 = this.words6;
    const hash = this.hash6(s0, s1, s2, s3, d0, d1, d2, d3, ports, key);
    this.hash = hash;
    let link = this.heads[hash & this.mask];
    while (link !== 0) {
      const index = (link - 1) >> 1;
      const dir = (link - 1) & 1;
      const c = index * CT_WORDS;
      const next = w[c + CT_NEXT + dir];
      if (w[c + CT_HASH + dir] === hash && w[c + CT_O_PORTS + (dir << 2)] === ports && w[c + CT_KEY] === key) {
        const a = index * CT6_WORDS + (dir << 3);
        if (
          w6[a] === s0 &&
          w6[a + 1] === s1 &&
          w6[a + 2] === s2 &&
          w6[a + 3] === s3 &&
          w6[a + 4] === d0 &&
          w6[a + 5] === d1 &&
          w6[a + 6] === d2 &&
          w6[a + 7] === d3 &&
          this.alive(index, c, now)
        )
          return (index << 1) | dir;
      }
      link = next;
    }
    return -1;
  }

  private alive(index: number, c: number, now: number): boolean {
    const status = this.words[c + CT_STATUS];
    if ((status & IPS_DYING) !== 0) return false;
    if ((status & IPS_OFFLOAD) === 0 && ((this.words[c + CT_DEADLINE] - now) | 0) < 0) {
      this.delete(index);
      return false;
    }
    return true;
  }

  // --- coming and going ------------------------------------------------------------------------------------------

  /**
   * Takes a free record for the calling worker, all words zero but GEN (which grew). When the table is full, one
   * connection near `hash` is given up first; −1 when there is none. The record is private until `insert`.
   */
  alloc(hash: number, now: number): number {
    const index = this.isFull && !this.earlyDrop(hash, now) ? -1 : this.take();
    if (index < 0) Atomics.add(this.control, FULL, 1);
    return index;
  }

  /**
   * Publishes a filled record under both its tuples (`hashOriginal`, `hashReply` of them). Returns true, or false when
   * either tuple is already there: then `clash` names whose it is, and the record stays private.
   */
  insert(index: number, hashOriginal: number, hashReply: number, now: number): boolean {
    const w = this.words;
    const c = index * CT_WORDS;
    const a = hashOriginal & this.mask;
    const b = hashReply & this.mask;
    this.lockTwo(a, b);
    if (this.occupied(a, c, index, 0, hashOriginal, now) || this.occupied(b, c, index, 1, hashReply, now)) {
      this.unlockTwo(a, b);
      return false;
    }
    w[c + CT_HASH] = hashOriginal;
    w[c + CT_HASH + 1] = hashReply;
    w[c + CT_NEXT] = this.heads[a];
    w[c + CT_STATUS] |= IPS_CONFIRMED;
    Atomics.store(this.heads, a, (index << 1) + 1);
    w[c + CT_NEXT + 1] = this.heads[b];
    Atomics.store(this.heads, b, ((index << 1) | 1) + 1);
    this.unlockTwo(a, b);
    this.control[this.mine + W_INSERTS]++;
    return true;
  }

  /** True when the tuple `dir` of the private record at `c` is already in bucket `bucket`. */
  private occupied(bucket: number, c: number, index: number, dir: number, hash: number, now: number): boolean {
    const w = this.words;
    const w6 = this.words6;
    const mine = c + (dir << 2);
    const six = ((w[c + CT_KEY] >> 8) & 15) === 6;
    for (let link = this.heads[bucket]; link !== 0; ) {
      const other = (link - 1) >> 1;
      const otherDir = (link - 1) & 1;
      const o = other * CT_WORDS;
      const t = o + (otherDir << 2);
      link = w[o + CT_NEXT + otherDir];
      if (
        w[o + CT_HASH + otherDir] !== hash ||
        w[t + CT_O_PORTS] !== w[mine + CT_O_PORTS] ||
        w[o + CT_KEY] !== w[c + CT_KEY]
      )
        continue;
      if (six) {
        const x = index * CT6_WORDS + (dir << 3);
        const y = other * CT6_WORDS + (otherDir << 3);
        let same = true;
        for (let n = 0; n < 8 && same; n++) same = w6[x + n] === w6[y + n];
        if (!same) continue;
      } else if (w[t + CT_O_SRC] !== w[mine + CT_O_SRC] || w[t + CT_O_DST] !== w[mine + CT_O_DST]) continue;
      // Who deletes one waits for these locks; lookups pass it by already, so a new one may stand beside it.
      if ((w[o + CT_STATUS] & IPS_DYING) !== 0) continue;
      // An expired one is no obstacle, but it must be gone first; it is not ours to unlink under these locks.
      if ((w[o + CT_STATUS] & IPS_OFFLOAD) === 0 && ((w[o + CT_DEADLINE] - now) | 0) < 0) {
        this.clash = -1;
        return true;
      }
      this.clash = (other << 1) | otherDir;
      return true;
    }
    return false;
  }

  /**
   * Takes a connection out of the hash; its record rests until no reader can stand on it. Returns false when somebody
   * else was first. The caller reports the event before.
   */
  delete(index: number): boolean {
    const w = this.words;
    const c = index * CT_WORDS;
    if ((Atomics.or(w, c + CT_STATUS, IPS_DYING) & (IPS_DYING | IPS_CONFIRMED)) !== IPS_CONFIRMED) return false;
    const a = w[c + CT_HASH] & this.mask;
    const b = w[c + CT_HASH + 1] & this.mask;
    this.lockTwo(a, b);
    this.unlink(a, index << 1);
    this.unlink(b, (index << 1) | 1);
    this.unlockTwo(a, b);
    this.control[this.mine + W_DELETES]++;
    this.onDelete(index);
    return true;
  }

  /** Called for every record that this worker deletes, before it may be reused; aging.ts sets it. */
  onDelete: (index: number) => void = () => {};

  private unlink(bucket: number, handle: number): void {
    const w = this.words;
    let at = -1;
    for (let link = this.heads[bucket]; link !== 0; ) {
      const c = ((link - 1) >> 1) * CT_WORDS + CT_NEXT + ((link - 1) & 1);
      if (link === handle + 1) {
        if (at < 0) Atomics.store(this.heads, bucket, w[c]);
        else Atomics.store(w, at, w[c]);
        return;
      }
      at = c;
      link = w[c];
    }
  }

  /**
   * Gives up one connection near `hash`: one that is not ASSURED (nf_conntrack's early drop), else one that is closing, as
   * its collector does while the table is full. Returns true when one went; its record is free again after the next quiet
   * points.
   */
  earlyDrop(hash: number, now: number): boolean {
    const w = this.words;
    let closing = -1;
    for (let n = 0; n < EVICTION_RANGE; n++) {
      for (let link = Atomics.load(this.heads, (hash + n) & this.mask); link !== 0; ) {
        const index = (link - 1) >> 1;
        const c = index * CT_WORDS;
        const status = w[c + CT_STATUS];
        link = w[c + CT_NEXT + ((link - 1) & 1)];
        const expired = ((w[c + CT_DEADLINE] - now) | 0) < 0;
        if ((status & (IPS_DYING | IPS_OFFLOAD)) !== 0) continue;
        if (expired || (status & IPS_ASSURED) === 0) {
          if (this.giveUp(index)) return true;
        } else if (closing < 0 && canEarlyDrop(w, c)) closing = index;
      }
    }
    return closing >= 0 && this.giveUp(closing);
  }

  private giveUp(index: number): boolean {
    if (!this.delete(index)) return false;
    Atomics.add(this.control, EARLY_DROP, 1);
    return true;
  }

  // --- locks -------------------------------------------------------------------------------------------------------

  private lockTwo(a: number, b: number): void {
    const x = a & (STRIPES - 1);
    const y = b & (STRIPES - 1);
    if (x <= y) {
      this.lock(x, this.locks);
      if (x !== y) this.lock(y, this.locks);
    } else {
      this.lock(y, this.locks);
      this.lock(x, this.locks);
    }
  }

  private unlockTwo(a: number, b: number): void {
    const x = a & (STRIPES - 1);
    const y = b & (STRIPES - 1);
    Atomics.store(this.locks, x, 0);
    if (x !== y) Atomics.store(this.locks, y, 0);
  }

  /**
   * After the death of a worker: breaks the locks that it held and takes half-linked records out of those chains.
   * Called by the supervisor before the worker's task is started again. Returns how many locks were broken.
   */
  repair(deadWorker: number): number {
    const w = this.words;
    let broken = 0;
    this.bury(deadWorker);
    // The chains of other stripes that are walked here go on changing: nothing on them may be used again meanwhile.
    const before = this.stepOn();
    for (let stripe = 0; stripe < STRIPES; stripe++) {
      if (Atomics.load(this.locks, stripe) !== deadWorker + 1) continue;
      broken++;
      for (let bucket = stripe; bucket <= this.mask; bucket += STRIPES) {
        for (let link = this.heads[bucket]; link !== 0; ) {
          const index = (link - 1) >> 1;
          const dir = (link - 1) & 1;
          const c = index * CT_WORDS;
          const next = w[c + CT_NEXT + dir];
          const half = !this.linked(w[c + CT_HASH + (dir ^ 1)] & this.mask, (index << 1) | (dir ^ 1));
          if ((w[c + CT_STATUS] & IPS_DYING) !== 0 || half) {
            this.unlink(bucket, (index << 1) | dir);
            Atomics.or(w, c + CT_STATUS, IPS_DYING);
          }
          link = next;
        }
      }
      Atomics.store(this.locks, stripe, 0);
    }
    this.stepOff(before);
    for (let index = 0; index < this.highWater; index++)
      if (w[index * CT_WORDS + CT_LOCK] === deadWorker + 1) Atomics.store(w, index * CT_WORDS + CT_LOCK, 0);
    return broken;
  }

  private linked(bucket: number, handle: number): boolean {
    for (let link = this.heads[bucket]; link !== 0; ) {
      if (link === handle + 1) return true;
      link = this.words[((link - 1) >> 1) * CT_WORDS + CT_NEXT + ((link - 1) & 1)];
    }
    return false;
  }

  // --- slow readers --------------------------------------------------------------------------------------------------

  /** True when the record holds a connection that is in the hash and has not expired. */
  inUse(index: number, now: number): boolean {
    const c = index * CT_WORDS;
    const status = this.words[c + CT_STATUS];
    return (
      (status & (IPS_CONFIRMED | IPS_DYING)) === IPS_CONFIRMED &&
      ((status & IPS_OFFLOAD) !== 0 || ((this.words[c + CT_DEADLINE] - now) | 0) >= 0)
    );
  }

  /** Adds a packet to the connection's counters. */
  account(index: number, dir: number, packets: number, bytes: number): void {
    const f = index * CT_F64 + dir;
    this.doubles[f + 16] += packets;
    this.doubles[f + 18] += bytes;
  }

  /** Hash of tuple `dir` of a record. */
  hashOf(index: number, dir: number): number {
    const w = this.words;
    const c = index * CT_WORDS;
    const t = c + (dir << 2);
    // An SPI is no part of the hash: esp.ts.
    if ((w[c + CT_KEY] & 0xff) === ESP && ((w[c + CT_KEY] >> 8) & 15) === 4)
      return this.hash4(w[t + CT_O_SRC], w[t + CT_O_DST], 0, w[c + CT_KEY]);
    if (((w[c + CT_KEY] >> 8) & 15) !== 6)
      return this.hash4(w[t + CT_O_SRC], w[t + CT_O_DST], w[t + CT_O_PORTS], w[c + CT_KEY]);
    const a = index * CT6_WORDS + (dir << 3);
    const x = this.words6;
    return this.hash6(
      x[a],
      x[a + 1],
      x[a + 2],
      x[a + 3],
      x[a + 4],
      x[a + 5],
      x[a + 6],
      x[a + 7],
      w[t + CT_O_PORTS],
      w[c + CT_KEY],
    );
  }
}

/** Buckets for `max` connections: a power of two, at least two per connection (each is in the hash twice). */
function bucketsFor(max: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(max, 64) * 2));
}

// Layout that `find` and `occupied` build on: the REPLY tuple lies four words behind the ORIGINAL one.
if (CT_R_SRC - CT_O_SRC !== 4 || CT_R_DST - CT_O_DST !== 4 || CT_R_PORTS - CT_O_PORTS !== 4)
  throw new Error('conntrack/record.ts: expected the REPLY tuple four words behind the ORIGINAL one');
