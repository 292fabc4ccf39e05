/**
 * Hold: packets that wait for a neighbour. Each worker has one; the frame keeps its slot, the packet's state is kept
 * beside it, so that the walk goes on behind the neighbour stage as if nothing had happened.
 *
 * Bounded: CAPACITY packets in all, PER_NEIGHBOUR for one next hop; the oldest goes first (as Linux's unres_qlen), but while a
 * scan presses and there is no room the newest (path-egress.ts, isVain). And
 * the questions themselves: QUESTION_BURST unknown next hops of one port at once, then one each QUESTION_INTERVAL, so
 * that a scan of a subnet (RFC 6583 §7.1) costs neither time nor the places of those who would get an answer.
 *
 *   arrival order:   head ↔ older ↔ … ↔ newest ↔ tail           (NEXT, PREVIOUS)
 *   by next hop:     bucket → first packet of a hop → of another  (CHAIN); first → second → … of one hop  (FOLLOWER)
 *   free positions:  a stack                                      (NEXT)
 *
 * Of one next hop the first that came is the first that goes, whether it leaves, fails or gives way: only it is in a chain.
 */
import { MAX_PORTS } from './interfaces.ts';
import type { Packet } from './wire/packet.ts';

export const CAPACITY = 512;
export const PER_NEIGHBOUR = 64;
export const QUESTION_BURST = 64;
/** Milliseconds per question about a next hop that nobody knows. */
export const QUESTION_INTERVAL = 1;
/** Words of a record, and where its next hop is: family, egress port, address. */
export const HOLD_WORDS = 48;
export const HOLD_FAMILY = 7;
export const HOLD_PORT = 20;
export const HOLD_N0 = 21;
const WORDS = HOLD_WORDS;
const GENERATION = 45;
/** Milliseconds in which the control plane takes up a question, so that its entry is in the table. */
const UNDER_WAY = 100;
/** Milliseconds after which a packet without an entry for its next hop waits in vain. */
export const FORGOTTEN = 250;
/** A byte's worth. */
const BUCKETS = 256;
const NONE = -1;

/**
 * Bucket of a next hop; raw address. The upper bits of the product, since only they depend on all bits of the address:
 * the hosts of an IPv4 subnet differ in the last byte, which is the highest of a raw word.
 */
export function holdBucket(port: number, n0: number, n1: number, n2: number, n3: number): number {
  const h = Math.imul(n0 ^ port ^ (n1 << 7), 0x9e3779b1) ^ Math.imul(n3 ^ (n2 << 13), 0x85ebca6b);
  return Math.imul(h ^ (h >>> 15), 0xc2b2ae35) >>> 24;
}

export class Hold {
  /** Records; the words of the next hop may be read. */
  readonly words = new Int32Array(CAPACITY * WORDS);
  private readonly next = new Int32Array(CAPACITY);
  private readonly previous = new Int32Array(CAPACITY);
  private readonly chain = new Int32Array(CAPACITY);
  private readonly follower = new Int32Array(CAPACITY);
  /** Of the first packet of a next hop: the last one, and how many there are. */
  private readonly last = new Int32Array(CAPACITY);
  private readonly waiting = new Int32Array(CAPACITY);
  private readonly buckets = new Int32Array(BUCKETS).fill(NONE);
  /** By port: the time at which all of its questions are allowed again. */
  private readonly asked = new Int32Array(MAX_PORTS);
  private free = 0;
  private head = NONE;
  private tail = NONE;
  private order = 0;
  private started = false;
  /** Time of the last question that was refused. */
  private refused = 0;
  count = 0;

  constructor() {
    for (let n = 0; n < CAPACITY; n++) this.next[n] = n + 1 < CAPACITY ? n + 1 : NONE;
  }

  /** Position of the first packet that waits for this packet's next hop, or NONE. */
  private firstFor(p: Packet): number {
    const w = this.words;
    for (let n = this.buckets[holdBucket(p.outPort, p.n0, p.n1, p.n2, p.n3)]; n !== NONE; n = this.chain[n]) {
      const at = n * WORDS;
      if (
        w[at + HOLD_N0] === p.n0 &&
        w[at + HOLD_N0 + 1] === p.n1 &&
        w[at + HOLD_N0 + 2] === p.n2 &&
        w[at + HOLD_N0 + 3] === p.n3 &&
        w[at + HOLD_PORT] === p.outPort
      )
        return n;
    }
    return NONE;
  }

  get isFull(): boolean {
    return this.free === NONE;
  }

  /** True when a packet waits for this packet's next hop. */
  isWaiting(p: Packet): boolean {
    return this.firstFor(p) !== NONE;
  }

  /**
   * True when the question about this packet's next hop is under way: a packet waits for it, and not for long. One that
   * has waited longer has been asked for in vain, or its entry had to give way to others: that is a question of its own.
   */
  isAsked(p: Packet, now: number): boolean {
    if (this.count === 0) return false;
    const first = this.firstFor(p);
    return first !== NONE && ((now - this.since(first)) | 0) < UNDER_WAY;
  }

  /** True when one more unknown next hop of this port may be asked for; `take` counts the question. */
  mayAsk(port: number, now: number, take: boolean): boolean {
    const { asked } = this;
    if (!this.started) {
      this.started = true;
      asked.fill(now);
    }
    // As in icmp-errors.ts: a time too far ahead is one that the clock's round has overtaken.
    const ahead = (asked[port] - now) | 0;
    const from = ahead < 0 || ahead > QUESTION_BURST * QUESTION_INTERVAL ? now : asked[port];
    if (((from - now) | 0) > (QUESTION_BURST - 1) * QUESTION_INTERVAL) {
      this.refused = now;
      return false;
    }
    if (take) asked[port] = (from + QUESTION_INTERVAL) | 0;
    return true;
  }

  /** True when some port's questions have been refused in this moment: unknown next hops are worth an early look. */
  isPressed(now: number): boolean {
    const ago = (now - this.refused) | 0;
    return this.started && ago >= 0 && ago <= QUESTION_INTERVAL;
  }

  /**
   * Keeps the packet. Returns the slot of an older packet that had to go, −1 when none had to.
   * @param generation of the record of the packet's connection, which may be another's when the wait is over
   */
  keep(p: Packet, now: number, generation = 0): number {
    let first = this.firstFor(p);
    let evicted = -1;
    const tooMany = first !== NONE && this.waiting[first] >= PER_NEIGHBOUR;
    if (tooMany || this.free === NONE) {
      const oldest = first !== NONE ? first : this.head;
      evicted = this.words[oldest * WORDS];
      if (oldest === first) first = this.follower[first];
      this.forget(oldest);
    }
    const n = this.free;
    this.free = this.next[n];
    this.next[n] = NONE;
    this.previous[n] = this.tail;
    if (this.tail === NONE) this.head = n;
    else this.next[this.tail] = n;
    this.tail = n;
    this.follower[n] = NONE;
    if (first === NONE) {
      const bucket = holdBucket(p.outPort, p.n0, p.n1, p.n2, p.n3);
      this.chain[n] = this.buckets[bucket];
      this.buckets[bucket] = n;
      this.last[n] = n;
      this.waiting[n] = 1;
    } else {
      this.follower[this.last[first]] = n;
      this.last[first] = n;
      this.waiting[first]++;
    }
    this.count++;
    this.save(n, p, now);
    this.words[n * WORDS + GENERATION] = generation;
    return evicted;
  }

  private save(n: number, p: Packet, now: number): void {
    const w = this.words;
    const at = n * WORDS;
    w[at] = p.slot;
    w[at + 1] = p.off;
    w[at + 2] = p.len;
    w[at + 3] = p.port;
    w[at + 4] = p.l3;
    w[at + 5] = p.l4;
    w[at + 6] = p.end;
    w[at + HOLD_FAMILY] = p.family;
    w[at + 8] = p.proto;
    w[at + 9] = p.s0;
    w[at + 10] = p.s1;
    w[at + 11] = p.s2;
    w[at + 12] = p.s3;
    w[at + 13] = p.d0;
    w[at + 14] = p.d1;
    w[at + 15] = p.d2;
    w[at + 16] = p.d3;
    w[at + 17] = p.ports;
    w[at + 18] = p.rports;
    w[at + 19] = p.nexthop;
    w[at + HOLD_PORT] = p.outPort;
    w[at + HOLD_N0] = p.n0;
    w[at + 22] = p.n1;
    w[at + 23] = p.n2;
    w[at + 24] = p.n3;
    w[at + 25] = p.ct;
    w[at + 26] = p.dir;
    w[at + 27] = p.ctinfo;
    w[at + 28] = p.ttl;
    w[at + 29] = p.tos;
    w[at + 30] = p.flags;
    w[at + 31] = p.gsoType | (p.gsoSize << 8);
    w[at + 32] = p.innerL3;
    w[at + 33] = p.innerL4;
    w[at + 34] = p.innerProto;
    w[at + 35] = p.innerDir;
    w[at + 36] = p.fragOffset;
    w[at + 37] = p.own;
    w[at + 38] = now;
    w[at + 39] = p.mtu;
    w[at + 40] = this.order = (this.order + 1) | 0;
    w[at + 41] = p.dontFragment;
    w[at + 42] = p.hasOptions;
    w[at + 43] = p.groupMac;
    w[at + 44] = p.tcpFlags;
  }

  /** Restores the packet at position `n` into `p` (frame bytes are still as received); it stays here. */
  restore(n: number, p: Packet, i32: Int32Array): void {
    const w = this.words;
    const at = n * WORDS;
    p.slot = w[at];
    p.off = w[at + 1];
    p.len = w[at + 2];
    p.port = w[at + 3];
    p.l3 = w[at + 4];
    p.l4 = w[at + 5];
    p.end = w[at + 6];
    p.family = w[at + 7];
    p.proto = w[at + 8];
    p.s0 = w[at + 9];
    p.s1 = w[at + 10];
    p.s2 = w[at + 11];
    p.s3 = w[at + 12];
    p.d0 = w[at + 13];
    p.d1 = w[at + 14];
    p.d2 = w[at + 15];
    p.d3 = w[at + 16];
    p.ports = w[at + 17];
    p.rports = w[at + 18];
    p.nexthop = w[at + 19];
    p.outPort = w[at + 20];
    p.n0 = w[at + 21];
    p.n1 = w[at + 22];
    p.n2 = w[at + 23];
    p.n3 = w[at + 24];
    p.ct = w[at + 25];
    p.dir = w[at + 26];
    p.ctinfo = w[at + 27];
    p.ttl = w[at + 28];
    p.tos = w[at + 29];
    p.flags = w[at + 30];
    p.gsoType = w[at + 31] & 0xff;
    p.gsoSize = w[at + 31] >>> 8;
    p.innerL3 = w[at + 32];
    p.innerL4 = w[at + 33];
    p.innerProto = w[at + 34];
    p.innerDir = w[at + 35];
    p.fragOffset = w[at + 36];
    p.own = w[at + 37];
    p.mtu = w[at + 39];
    p.dontFragment = w[at + 41];
    p.hasOptions = w[at + 42];
    p.groupMac = w[at + 43];
    p.tcpFlags = w[at + 44];
    p.fresh = 0;
    p.errorType = 0;
    const l3 = p.l3 >> 2;
    if (p.family === 4) {
      p.rs0 = i32[l3 + 3];
      p.rd0 = i32[l3 + 4];
      p.rs1 = p.rs2 = p.rs3 = p.rd1 = p.rd2 = p.rd3 = 0;
    } else {
      p.rs0 = i32[l3 + 2];
      p.rs1 = i32[l3 + 3];
      p.rs2 = i32[l3 + 4];
      p.rs3 = i32[l3 + 5];
      p.rd0 = i32[l3 + 6];
      p.rd1 = i32[l3 + 7];
      p.rd2 = i32[l3 + 8];
      p.rd3 = i32[l3 + 9];
    }
  }

  /** Positions of the packets that wait, in the order in which they came, into `into`. Returns how many. */
  positions(into: Int32Array): number {
    let count = 0;
    for (let n = this.head; n !== NONE; n = this.next[n]) into[count++] = n;
    return count;
  }

  /** Order number of the packet at position `n`: another one when the position has been given to another packet. */
  orderOf(n: number): number {
    return this.words[n * WORDS + 40];
  }

  /** Clock ms at which the packet at position `n` was kept. */
  since(n: number): number {
    return this.words[n * WORDS + 38];
  }

  /** What `keep` was told of the packet at position `n`. */
  generationOf(n: number): number {
    return this.words[n * WORDS + GENERATION];
  }

  /** Takes out the packet at position `n`, which must be the oldest of its next hop. */
  forget(n: number): void {
    const { next, previous, chain, buckets } = this;
    const w = this.words;
    const at = n * WORDS;
    if (previous[n] === NONE) this.head = next[n];
    else next[previous[n]] = next[n];
    if (next[n] === NONE) this.tail = previous[n];
    else previous[next[n]] = previous[n];
    const heir = this.follower[n];
    if (heir !== NONE) {
      this.last[heir] = this.last[n];
      this.waiting[heir] = this.waiting[n] - 1;
      chain[heir] = chain[n];
    }
    const successor = heir !== NONE ? heir : chain[n];
    const bucket = holdBucket(
      w[at + HOLD_PORT],
      w[at + HOLD_N0],
      w[at + HOLD_N0 + 1],
      w[at + HOLD_N0 + 2],
      w[at + HOLD_N0 + 3],
    );
    if (buckets[bucket] === n) buckets[bucket] = successor;
    else {
      let k = buckets[bucket];
      while (chain[k] !== n) k = chain[k];
      chain[k] = successor;
    }
    // A position that is free has no order number that anybody remembers.
    w[at + 40] = this.order = (this.order + 1) | 0;
    next[n] = this.free;
    this.free = n;
    this.count--;
  }
}
