/**
 * Mappings: which outside address and port stands for an inside one, shared by the sessions that use it (RFC 4787 §4).
 *
 * Theory of operation
 * - A mapping hangs in one hash twice, as a connection does: under its inside key (direction 0) and under its outside
 *   address, port and protocol (direction 1). The inside key holds as much of the destination as the mapping behaviour
 *   asks for: nothing (endpoint-independent), the address, or address and port. A chain link is
 *   ((index << 1) | direction) + 1; 0 ends a chain.
 * - Readers take no lock; writers lock the stripes of both buckets in ascending order. A lock word holds its owner's
 *   number + 1. That no two mappings have one outside port is decided before, by the port's bit (ports.ts).
 * - A mapping lives while a session uses it (COUNT), and until DEADLINE in any case: outbound packets move that
 *   (RFC 4787 REQ-5, REQ-6). Lookups and `sweep` take out what is over. A record taken out rests until every reader has
 *   passed a quiet point: it counts the connection table's epochs. Generations tell a connection that its mapping is
 *   another one now.
 * - Permits say which remote addresses the sessions of a mapping talk to: what address-dependent filtering asks for.
 *   One record for each pair, counted; kept only for mappings that filter so. Ports need no permit: a remote port that
 *   was sent to has a connection, and packets of a connection never come here.
 *
 *   mapping  0,1 NEXT  2,3 HASH (+ direction)   4 INSIDE  5 PORTS (inside low, outside high half, raw)   6 KEY
 *            7 OUTSIDE  8 REMOTE  9 SCOPE   10 COUNT  11 DEADLINE  12 GEN  13 STATUS  14 RULE  15 LINK (free list)
 *            KEY = protocol | mapping << 8 | filtering << 10 | conntrack zone << 16
 *            SCOPE = remote port (raw) | (egress port + 1) << 16;  RULE = (zone + 1) | (port + 1) << 8 of the rule's `out`
 *   permit   0 NEXT (index + 1)  1 MAPPING (reference)  2 ADDRESS  3 COUNT (in a free one: epoch at which it was freed)
 *
 * Not here: which port is chosen (ports.ts), and who is let in (nat.ts).
 */
import type { ConntrackTable } from './table.ts';

export const NM_WORDS = 16;
export const NM_INSIDE = 4;
export const NM_PORTS = 5;
export const NM_KEY = 6;
export const NM_OUTSIDE = 7;
export const NM_REMOTE = 8;
export const NM_SCOPE = 9;
export const NM_COUNT = 10;
export const NM_DEADLINE = 11;
export const NM_GEN = 12;
export const NM_STATUS = 13;
export const NM_RULE = 14;
const NM_LINK = 15;

/** RFC 4787 §4.1 and §5, in KEY. */
export const INDEPENDENT = 1;
export const ADDRESS_DEPENDENT = 2;
export const PORT_DEPENDENT = 3;

const LIVE = 1;
const DYING = 2;

/** Parts of a connection's CT_MAPPING: mapping + 1, generation, and three flags. */
export const MAPPING_INDEX = 0xffffff;
export const MAPPING_GEN_SHIFT = 24;
export const MAPPING_GEN = 0x1f;
/** The mapping is the destination's: an outside host began the session. */
export const MAPPING_INBOUND = 0x20000000;
/** The session counts against its subscriber's limit. */
export const MAPPING_LIMITED = 0x40000000;
/** A hairpinned session: its destination's mapping is in the record's first IPv6 address word. */
export const MAPPING_SECOND = 0x80000000 | 0;

export const PERMIT_WORDS = 4;
const STRIPES = 256;
const COUNT = 0;
/** Control words: records that have been used at some time. */
export const BUMP = 1;
const FREE = 2;
const FREE_TAIL = 3;
const LIST_LOCK = 4;
const CAPACITY = 5;
const CREATED = 6;
const FULL = 7;
export const PERMIT_BUMP = 8;
const PERMIT_FREE = 9;
const PERMIT_TAIL = 10;
const EXPIRED = 11;
const FILTERED = 12;
const CONTROL_WORDS = 16;

export interface MappingBuffers {
  control: SharedArrayBuffer;
  heads: SharedArrayBuffer;
  words: SharedArrayBuffer;
  permits: SharedArrayBuffer;
}

export class MappingTable {
  readonly words: Int32Array;
  readonly capacity: number;
  private readonly control: Int32Array;
  private readonly locks: Int32Array;
  private readonly heads: Int32Array;
  private readonly permitHeads: Int32Array;
  private readonly permits: Int32Array;
  private readonly mask: number;
  private readonly table: ConntrackTable;
  private readonly owner: number;
  private readonly seed: number;
  private cursor = 0;
  /** This thread's mapper gives ports back and hears of connections that end. */
  attached = false;
  /** Called for every mapping that is taken out, before its record rests: gives its port back. */
  onExpire: (index: number, now: number) => void = () => {};

  /** @param table the connection table: its epochs and its naps are used   @param worker number of the calling worker */
  constructor(buffers: MappingBuffers, table: ConntrackTable, worker: number, seed: number) {
    this.control = new Int32Array(buffers.control, 0, CONTROL_WORDS);
    this.locks = new Int32Array(buffers.control, CONTROL_WORDS * 4, STRIPES);
    this.capacity = this.control[CAPACITY];
    const buckets = bucketsFor(this.capacity);
    this.heads = new Int32Array(buffers.heads, 0, buckets);
    this.permitHeads = new Int32Array(buffers.heads, buckets * 4, buckets);
    this.words = new Int32Array(buffers.words);
    this.permits = new Int32Array(buffers.permits);
    this.mask = buckets - 1;
    this.table = table;
    this.owner = worker + 1;
    this.seed = seed;
  }

  /** Makes the shared memory of a table for `capacity` mappings (0: none will ever be made). */
  static create(capacity: number): MappingBuffers {
    const buckets = bucketsFor(capacity);
    const buffers = {
      control: new SharedArrayBuffer((CONTROL_WORDS + STRIPES) * 4),
      heads: new SharedArrayBuffer(2 * buckets * 4),
      words: new SharedArrayBuffer(capacity * NM_WORDS * 4),
      permits: new SharedArrayBuffer(2 * capacity * PERMIT_WORDS * 4),
    };
    new Int32Array(buffers.control)[CAPACITY] = capacity;
    return buffers;
  }

  /** Mappings there are now: while 0, nobody needs to look. */
  get count(): number {
    return this.control[COUNT];
  }

  /** Records 0 … highWater − 1 have been used at some time. */
  get highWater(): number {
    return Math.min(Atomics.load(this.control, BUMP), this.capacity);
  }

  /** Counters since start: made, expired, refused as the table was full, packets that filtering refused. */
  statistics(): { created: number; expired: number; full: number; filtered: number } {
    const c = this.control;
    return { created: c[CREATED], expired: c[EXPIRED], full: c[FULL], filtered: c[FILTERED] };
  }

  /** True for a mapping that stands: for the slow readers, changes nothing. */
  inUse(index: number, now: number): boolean {
    const m = index * NM_WORDS;
    const w = this.words;
    return w[m + NM_STATUS] === LIVE && (w[m + NM_COUNT] > 0 || ((w[m + NM_DEADLINE] - now) | 0) >= 0);
  }

  countFiltered(): void {
    Atomics.add(this.control, FILTERED, 1);
  }

  // --- looking up --------------------------------------------------------------------------------------------------

  /**
   * The mapping of an inside endpoint, or −1. `port` and `remotePort` raw 16 bits; `key` and `scope` as in the record
   * (filtering is not compared); `remote` 0 where the behaviour does not depend on it.
   */
  findInside(inside: number, port: number, key: number, remote: number, scope: number, now: number): number {
    const w = this.words;
    const hash = this.hashInside(inside, port, key, remote, scope);
    for (let link = this.heads[hash & this.mask]; link !== 0; ) {
      const index = (link - 1) >> 1;
      const m = index * NM_WORDS;
      const dir = (link - 1) & 1;
      link = w[m + dir];
      if (
        dir === 0 &&
        w[m + 2] === hash &&
        w[m + NM_INSIDE] === inside &&
        (w[m + NM_PORTS] & 0xffff) === port &&
        ((w[m + NM_KEY] ^ key) & ~0xc00) === 0 &&
        w[m + NM_REMOTE] === remote &&
        w[m + NM_SCOPE] === scope &&
        this.alive(index, now)
      )
        return index;
    }
    return -1;
  }

  /** The mapping that owns an outside address and port (raw), or −1. */
  findOutside(outside: number, port: number, proto: number, now: number): number {
    const w = this.words;
    const hash = this.hashOutside(outside, port, proto);
    for (let link = this.heads[hash & this.mask]; link !== 0; ) {
      const index = (link - 1) >> 1;
      const m = index * NM_WORDS;
      const dir = (link - 1) & 1;
      link = w[m + dir];
      if (
        dir === 1 &&
        w[m + 3] === hash &&
        w[m + NM_OUTSIDE] === outside &&
        w[m + NM_PORTS] >>> 16 === port &&
        (w[m + NM_KEY] & 0xff) === proto &&
        this.alive(index, now)
      )
        return index;
    }
    return -1;
  }

  private hashInside(inside: number, port: number, key: number, remote: number, scope: number): number {
    return this.table.hash4(inside ^ this.seed, remote, port ^ (scope << 16) ^ (scope >>> 16), (key & ~0xc00) | 0x2000);
  }

  private hashOutside(outside: number, port: number, proto: number): number {
    return this.table.hash4(outside ^ this.seed, 0, port, proto | 0x4000);
  }

  private alive(index: number, now: number): boolean {
    const m = index * NM_WORDS;
    const w = this.words;
    if (w[m + NM_STATUS] !== LIVE) return false;
    if (w[m + NM_COUNT] > 0 || ((w[m + NM_DEADLINE] - now) | 0) >= 0) return true;
    return !this.expire(index, now, false);
  }

  // --- making and ending ---------------------------------------------------------------------------------------------

  /**
   * Makes a mapping; the caller owns the outside port. Returns its number, −1 when the table is full, −2 when another
   * worker has just made one for the same inside key.
   */
  add(
    inside: number,
    ports: number,
    key: number,
    outside: number,
    remote: number,
    scope: number,
    rule: number,
    deadline: number,
    now: number,
  ): number {
    const index = this.alloc();
    if (index < 0) {
      Atomics.add(this.control, FULL, 1);
      return -1;
    }
    const w = this.words;
    const m = index * NM_WORDS;
    const h0 = this.hashInside(inside, ports & 0xffff, key, remote, scope);
    const h1 = this.hashOutside(outside, ports >>> 16, key & 0xff);
    w[m + 2] = h0;
    w[m + 3] = h1;
    w[m + NM_INSIDE] = inside;
    w[m + NM_PORTS] = ports;
    w[m + NM_KEY] = key;
    w[m + NM_OUTSIDE] = outside;
    w[m + NM_REMOTE] = remote;
    w[m + NM_SCOPE] = scope;
    w[m + NM_COUNT] = 0;
    w[m + NM_DEADLINE] = deadline;
    w[m + NM_GEN] = (w[m + NM_GEN] + 1) | 0;
    w[m + NM_RULE] = rule;
    const a = h0 & this.mask;
    const b = h1 & this.mask;
    // An expired one under the same key must be gone before the locks are taken.
    this.findInside(inside, ports & 0xffff, key, remote, scope, now);
    this.lockTwo(a, b);
    if (this.sameInside(a, m)) {
      this.unlockTwo(a, b);
      w[m + NM_STATUS] = 0;
      this.free(index);
      return -2;
    }
    w[m + NM_STATUS] = LIVE;
    w[m] = this.heads[a];
    Atomics.store(this.heads, a, (index << 1) + 1);
    w[m + 1] = this.heads[b];
    Atomics.store(this.heads, b, ((index << 1) | 1) + 1);
    this.unlockTwo(a, b);
    Atomics.add(this.control, COUNT, 1);
    Atomics.add(this.control, CREATED, 1);
    return index;
  }

  private sameInside(bucket: number, mine: number): boolean {
    const w = this.words;
    for (let link = this.heads[bucket]; link !== 0; ) {
      const m = ((link - 1) >> 1) * NM_WORDS;
      const dir = (link - 1) & 1;
      link = w[m + dir];
      if (
        dir === 0 &&
        w[m + 2] === w[mine + 2] &&
        w[m + NM_INSIDE] === w[mine + NM_INSIDE] &&
        ((w[m + NM_PORTS] ^ w[mine + NM_PORTS]) & 0xffff) === 0 &&
        ((w[m + NM_KEY] ^ w[mine + NM_KEY]) & ~0xc00) === 0 &&
        w[m + NM_REMOTE] === w[mine + NM_REMOTE] &&
        w[m + NM_SCOPE] === w[mine + NM_SCOPE]
      )
        return true;
    }
    return false;
  }

  /**
   * Takes a mapping out when it is over, or in any case with `force`. Returns true when it went. Sessions that still use
   * it go on by their own tuples.
   */
  expire(index: number, now: number, force: boolean): boolean {
    const w = this.words;
    const m = index * NM_WORDS;
    const a = w[m + 2] & this.mask;
    const b = w[m + 3] & this.mask;
    this.lockTwo(a, b);
    const over = force || (w[m + NM_COUNT] <= 0 && ((w[m + NM_DEADLINE] - now) | 0) < 0);
    if (w[m + NM_STATUS] !== LIVE || !over) {
      this.unlockTwo(a, b);
      return false;
    }
    w[m + NM_STATUS] = DYING;
    this.unlink(a, index << 1);
    this.unlink(b, (index << 1) | 1);
    this.unlockTwo(a, b);
    Atomics.sub(this.control, COUNT, 1);
    Atomics.add(this.control, EXPIRED, 1);
    this.onExpire(index, now);
    this.free(index);
    return true;
  }

  private unlink(bucket: number, handle: number): void {
    const w = this.words;
    let at = -1;
    for (let link = this.heads[bucket]; link !== 0; ) {
      const next = ((link - 1) >> 1) * NM_WORDS + ((link - 1) & 1);
      if (link === handle + 1) {
        if (at < 0) Atomics.store(this.heads, bucket, w[next]);
        else Atomics.store(w, at, w[next]);
        return;
      }
      at = next;
      link = w[next];
    }
  }

  /** Looks at up to `budget` records, a few more each time, and takes out what is over. Returns how many went. */
  sweep(now: number, budget: number): number {
    const high = this.highWater;
    if (high === 0) return 0;
    const w = this.words;
    let gone = 0;
    for (let n = Math.min(budget, high); n > 0; n--) {
      if (this.cursor >= high) this.cursor = 0;
      const index = this.cursor++;
      const m = index * NM_WORDS;
      if (w[m + NM_STATUS] !== LIVE || w[m + NM_COUNT] > 0 || ((w[m + NM_DEADLINE] - now) | 0) >= 0) continue;
      if (this.expire(index, now, false)) gone++;
    }
    return gone;
  }

  private alloc(): number {
    const c = this.control;
    const w = this.words;
    const safe = (this.table.epoch() - 2) | 0;
    this.lock(LIST_LOCK, c);
    let index = -1;
    const head = c[FREE];
    if (head !== 0 && ((w[(head - 1) * NM_WORDS + NM_DEADLINE] - safe) | 0) <= 0) {
      index = head - 1;
      c[FREE] = w[index * NM_WORDS + NM_LINK];
      if (c[FREE] === 0) c[FREE_TAIL] = 0;
    } else if (c[BUMP] < this.capacity) index = c[BUMP]++;
    Atomics.store(c, LIST_LOCK, 0);
    if (index < 0 && head !== 0) this.table.wantEpochs();
    return index;
  }

  /** A record rests at the end of the free list, with the epoch at which it was taken out. */
  private free(index: number): void {
    const c = this.control;
    const w = this.words;
    const m = index * NM_WORDS;
    this.lock(LIST_LOCK, c);
    w[m + NM_DEADLINE] = this.table.epoch();
    w[m + NM_LINK] = 0;
    if (c[FREE_TAIL] === 0) c[FREE] = index + 1;
    else w[(c[FREE_TAIL] - 1) * NM_WORDS + NM_LINK] = index + 1;
    c[FREE_TAIL] = index + 1;
    Atomics.store(c, LIST_LOCK, 0);
    this.table.wantEpochs();
  }

  // --- sessions --------------------------------------------------------------------------------------------------------

  /** What a connection keeps of its mapping. */
  reference(index: number): number {
    return (index + 1) | ((this.words[index * NM_WORDS + NM_GEN] & MAPPING_GEN) << MAPPING_GEN_SHIFT);
  }

  /** The mapping that a connection's word names, or −1 when it has none or that one is gone. */
  of(reference: number): number {
    const index = (reference & MAPPING_INDEX) - 1;
    if (index < 0) return -1;
    const m = index * NM_WORDS;
    const w = this.words;
    if (w[m + NM_STATUS] !== LIVE) return -1;
    return ((reference >>> MAPPING_GEN_SHIFT) & MAPPING_GEN) === (w[m + NM_GEN] & MAPPING_GEN) ? index : -1;
  }

  /**
   * A session begins (+1) or ends (−1) to use the mapping of `reference` (flags are ignored), towards `remote`. Of a
   * mapping that is gone, only the permit is left to give back.
   */
  use(reference: number, remote: number, by: number): void {
    const index = this.of(reference);
    if (index >= 0) {
      const m = index * NM_WORDS;
      Atomics.add(this.words, m + NM_COUNT, by);
      if (((this.words[m + NM_KEY] >> 10) & 3) !== ADDRESS_DEPENDENT) return;
    } else if (by > 0) return;
    this.permit(reference & (MAPPING_INDEX | (MAPPING_GEN << MAPPING_GEN_SHIFT)), remote, by);
  }

  /** True when a session of the mapping talks to this address. */
  permitted(index: number, remote: number): boolean {
    const p = this.permits;
    const reference = this.reference(index);
    for (let link = this.permitHeads[this.permitBucket(reference, remote)]; link !== 0; ) {
      const at = (link - 1) * PERMIT_WORDS;
      if (p[at + 1] === reference && p[at + 2] === remote) return p[at + 3] > 0;
      link = p[at];
    }
    return false;
  }

  private permit(reference: number, remote: number, by: number): void {
    const p = this.permits;
    const bucket = this.permitBucket(reference, remote);
    const stripe = bucket & (STRIPES - 1);
    this.lock(stripe, this.locks);
    let before = -1;
    for (let link = this.permitHeads[bucket]; link !== 0; ) {
      const at = (link - 1) * PERMIT_WORDS;
      if (p[at + 1] === reference && p[at + 2] === remote) {
        p[at + 3] += by;
        if (p[at + 3] <= 0) {
          if (before < 0) Atomics.store(this.permitHeads, bucket, p[at]);
          else Atomics.store(p, before, p[at]);
          this.freePermit(link - 1);
        }
        Atomics.store(this.locks, stripe, 0);
        return;
      }
      before = at;
      link = p[at];
    }
    const free = by > 0 ? this.allocPermit() : -1;
    if (free >= 0) {
      const at = free * PERMIT_WORDS;
      p[at] = this.permitHeads[bucket];
      p[at + 1] = reference;
      p[at + 2] = remote;
      p[at + 3] = by;
      Atomics.store(this.permitHeads, bucket, free + 1);
    }
    Atomics.store(this.locks, stripe, 0);
  }

  private permitBucket(reference: number, remote: number): number {
    return this.table.hash4(reference, remote, 0, this.seed) & this.mask;
  }

  private allocPermit(): number {
    const c = this.control;
    const p = this.permits;
    const safe = (this.table.epoch() - 2) | 0;
    this.lock(LIST_LOCK, c);
    let index = -1;
    const head = c[PERMIT_FREE];
    if (head !== 0 && ((p[(head - 1) * PERMIT_WORDS + 3] - safe) | 0) <= 0) {
      index = head - 1;
      c[PERMIT_FREE] = p[index * PERMIT_WORDS + 2];
      if (c[PERMIT_FREE] === 0) c[PERMIT_TAIL] = 0;
    } else if (c[PERMIT_BUMP] < 2 * this.capacity) index = c[PERMIT_BUMP]++;
    Atomics.store(c, LIST_LOCK, 0);
    return index;
  }

  /** NEXT stays, as a reader may stand here; the free list uses the address word. */
  private freePermit(index: number): void {
    const c = this.control;
    const p = this.permits;
    const at = index * PERMIT_WORDS;
    this.lock(LIST_LOCK, c);
    p[at + 1] = 0;
    p[at + 2] = 0;
    p[at + 3] = this.table.epoch();
    if (c[PERMIT_TAIL] === 0) c[PERMIT_FREE] = index + 1;
    else p[(c[PERMIT_TAIL] - 1) * PERMIT_WORDS + 2] = index + 1;
    c[PERMIT_TAIL] = index + 1;
    Atomics.store(c, LIST_LOCK, 0);
    this.table.wantEpochs();
  }

  // --- locks -------------------------------------------------------------------------------------------------------------

  private lock(at: number, words: Int32Array): void {
    let spins = 0;
    while (Atomics.compareExchange(words, at, 0, this.owner) !== 0) {
      if (++spins > 1000) {
        Atomics.wait(this.control, CONTROL_WORDS - 1, 0, 0.05); // never notified: a bounded nap
        spins = 0;
      }
    }
  }

  private lockTwo(a: number, b: number): void {
    const x = a & (STRIPES - 1);
    const y = b & (STRIPES - 1);
    this.lock(x < y ? x : y, this.locks);
    if (x !== y) this.lock(x < y ? y : x, this.locks);
  }

  private unlockTwo(a: number, b: number): void {
    const x = a & (STRIPES - 1);
    const y = b & (STRIPES - 1);
    Atomics.store(this.locks, x, 0);
    if (x !== y) Atomics.store(this.locks, y, 0);
  }

  /** After the death of a worker: breaks its locks. Half-made mappings stay dead records. Returns how many were broken. */
  repair(deadWorker: number): number {
    let broken = 0;
    for (let at = 0; at < STRIPES; at++)
      if (Atomics.compareExchange(this.locks, at, deadWorker + 1, 0) === deadWorker + 1) broken++;
    if (Atomics.compareExchange(this.control, LIST_LOCK, deadWorker + 1, 0) === deadWorker + 1) broken++;
    return broken;
  }
}

/** Buckets for `capacity` mappings, each of which is in the hash twice: a power of two. */
function bucketsFor(capacity: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(capacity, 32) * 2));
}
