/**
 * Datagrams under reassembly: which there are, what has come of each, in which order they end, and how many there may be.
 *
 *   queue (QUEUE_WORDS)                                   fragment (FRAGMENT_WORDS)
 *   0 NEXT  in its hash chain   12 SCOPE  port + 1        0 SLOT             5 L3    of its IP header, absolute
 *   1 HASH                      13 FIRST  fragment        1 OFFSET  bytes    6 PORT
 *   2 KEY family|proto|zone     14 LAST   fragment        2 BYTES
 *   3 ID    raw                 15 COUNT  fragments       3 DATA    payload, absolute
 *   4 SRC … 8 DST … 11          16 LENGTH as known        4 NEXT    by offset
 *   17 STATE  LAST_IN, POISONED, OWN   18 BYTES there     21 ECN  one bit for each code point seen
 *   19 LARGEST  20 LARGEST_DF   IP lengths of fragments   22 SINCE   23 OLDER   24 NEWER
 *
 * Bounded in all: queues, fragments (a quarter of the arena's slots, at most 4 MB as ipfrag_high_thresh), and those in large
 * slots. Who wants more room makes the oldest datagram go. Memory is a worker's own: see handover.ts.
 *
 * Not here: what fragments may look like and how they become one packet (reassembly.ts).
 */
import { FRAG_MEMORY } from './drop.ts';
import { type Frames, SMALL_ROOM } from './frames.ts';
import { C_DROPS, C_HELD, C_PORTS, CP_DROPS } from './tables.ts';
import type { Packet } from './wire/packet.ts';

/** Fragments of one datagram: 64 KiB in pieces of 576 bytes are 119. */
export const MAX_FRAGMENTS = 128;
/** Words of a shape: largest fragment's IP length, how many, then the end of each, counted from the IP header. */
const SHAPE_WORDS = MAX_FRAGMENTS + 2;

const DATAGRAMS = 1024;
const BUCKETS = 2048;
const MAX_HELD_BYTES = 4 << 20;
const QUEUE_WORDS = 25;
const Q_NEXT = 0;
const Q_HASH = 1;
const Q_KEY = 2;
const Q_ID = 3;
const Q_SRC = 4;
const Q_DST = 8;
const Q_SCOPE = 12;
export const Q_FIRST = 13;
export const Q_LAST = 14;
export const Q_COUNT = 15;
export const Q_LENGTH = 16;
export const Q_STATE = 17;
export const Q_BYTES = 18;
export const Q_LARGEST = 19;
export const Q_LARGEST_DF = 20;
export const Q_ECN = 21;
export const Q_SINCE = 22;
const Q_OLDER = 23;
const Q_NEWER = 24;

export const LAST_IN = 1;
export const POISONED = 2;
export const OWN = 4;

const FRAGMENT_WORDS = 7;
export const F_SLOT = 0;
export const F_OFFSET = 1;
export const F_BYTES = 2;
export const F_DATA = 3;
export const F_NEXT = 4;
export const F_L3 = 5;
export const F_PORT = 6;

export interface ReassemblyLimits {
  datagrams?: number;
  fragments?: number;
}

/** Hash of what names a datagram, the same for all workers: whose it is. */
export function keyHash(p: Packet): number {
  let h = Math.imul(p.s0 ^ p.s3 ^ (p.s1 + p.s2), 0x9e3779b1) ^ Math.imul(p.d0 ^ p.d3 ^ (p.d1 + p.d2), 0x85ebca6b);
  h = Math.imul(h ^ p.fragId ^ (h >>> 15), 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 13), 0x27d4eb2f);
  return h ^ (h >>> 16);
}

/** Hash by which a worker finds a datagram. The seed goes in before all else: nobody outside can tell what collides. */
export function datagramHash(p: Packet, seed: number): number {
  let h = Math.imul(p.s0 ^ seed, 0x9e3779b1);
  h = Math.imul((h ^ (h >>> 15)) + p.d0, 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 13)) + p.fragId, 0xc2b2ae35);
  if (p.family !== 4) {
    h = Math.imul((h ^ (h >>> 16)) + p.s1, 0x27d4eb2f);
    h = Math.imul((h ^ (h >>> 15)) + p.s2, 0x9e3779b1);
    h = Math.imul((h ^ (h >>> 13)) + p.s3, 0x85ebca6b);
    h = Math.imul((h ^ (h >>> 16)) + p.d1, 0xc2b2ae35);
    h = Math.imul((h ^ (h >>> 15)) + p.d2, 0x27d4eb2f);
    h = Math.imul((h ^ (h >>> 13)) + p.d3, 0x9e3779b1);
  }
  return h ^ (h >>> 16);
}

export abstract class ReassemblyQueues {
  /** Datagrams under reassembly, poisoned ones included; fragments that wait; of those, in large slots. */
  count = 0;
  held = 0;
  protected heldLarge = 0;
  /** Datagrams that had to make room for others. */
  evicted = 0;
  /** Shapes of the datagrams in large slots: SHAPE_WORDS for each, see `shapeAt`. */
  readonly shapes: Int32Array;

  protected readonly frames: Frames;
  protected readonly counters: Float64Array;
  protected readonly seed: number;
  protected readonly queues: Int32Array;
  protected readonly fragments: Int32Array;
  protected readonly buckets = new Int32Array(BUCKETS).fill(-1);
  protected freeQueue = -1;
  protected freeFragment = -1;
  protected readonly maxLarge: number;
  /** Oldest and newest datagram of each family: 0 IPv4, 1 IPv6. Their times differ, so each list is in order of expiry. */
  protected readonly oldest = new Int32Array(2).fill(-1);
  protected readonly newest = new Int32Array(2).fill(-1);

  /**
   * @param counters a worker's row (tables.ts)   @param seed of the hash, so that chains cannot be made long from outside
   */
  constructor(frames: Frames, counters: Float64Array, seed: number, limits: ReassemblyLimits = {}) {
    this.frames = frames;
    this.counters = counters;
    this.seed = seed;
    const datagrams = limits.datagrams ?? DATAGRAMS;
    const slots = (frames.small + frames.large) >> 2;
    const fragments = limits.fragments ?? Math.max(1, Math.min(slots, Math.floor(MAX_HELD_BYTES / SMALL_ROOM)));
    this.maxLarge = frames.large >> 2;
    this.shapes = new Int32Array(frames.large * SHAPE_WORDS);
    this.queues = new Int32Array(datagrams * QUEUE_WORDS);
    this.fragments = new Int32Array(fragments * FRAGMENT_WORDS);
    for (let n = datagrams - 1; n >= 0; n--) {
      this.queues[n * QUEUE_WORDS + Q_NEXT] = this.freeQueue;
      this.freeQueue = n * QUEUE_WORDS;
    }
    for (let n = fragments - 1; n >= 0; n--) {
      this.fragments[n * FRAGMENT_WORDS + F_NEXT] = this.freeFragment;
      this.freeFragment = n * FRAGMENT_WORDS;
    }
  }

  /** Index in `shapes` of the datagram in a large slot. */
  shapeAt(slot: number): number {
    return (slot - this.frames.small) * SHAPE_WORDS;
  }

  /** IP length of the largest fragment of the datagram in `slot`. */
  largest(slot: number): number {
    return this.shapes[this.shapeAt(slot)];
  }

  // --- queues --------------------------------------------------------------------------------------------------------

  protected find(p: Packet, hash: number, key: number): number {
    const w = this.queues;
    const scope = scopeOf(p);
    for (let q = this.buckets[hash & (BUCKETS - 1)]; q >= 0; q = w[q + Q_NEXT]) {
      if (
        w[q + Q_HASH] === hash &&
        w[q + Q_KEY] === key &&
        w[q + Q_ID] === p.fragId &&
        w[q + Q_SRC] === p.s0 &&
        w[q + Q_SRC + 1] === p.s1 &&
        w[q + Q_SRC + 2] === p.s2 &&
        w[q + Q_SRC + 3] === p.s3 &&
        w[q + Q_DST] === p.d0 &&
        w[q + Q_DST + 1] === p.d1 &&
        w[q + Q_DST + 2] === p.d2 &&
        w[q + Q_DST + 3] === p.d3 &&
        w[q + Q_SCOPE] === scope
      )
        return q;
    }
    return -1;
  }

  protected open(p: Packet, hash: number, key: number, now: number): number {
    if (this.freeQueue < 0 && !this.evict(-1)) return -1;
    const w = this.queues;
    const q = this.freeQueue;
    this.freeQueue = w[q + Q_NEXT];
    const bucket = hash & (BUCKETS - 1);
    w[q + Q_NEXT] = this.buckets[bucket];
    this.buckets[bucket] = q;
    w[q + Q_HASH] = hash;
    w[q + Q_KEY] = key;
    w[q + Q_ID] = p.fragId;
    w[q + Q_SRC] = p.s0;
    w[q + Q_SRC + 1] = p.s1;
    w[q + Q_SRC + 2] = p.s2;
    w[q + Q_SRC + 3] = p.s3;
    w[q + Q_DST] = p.d0;
    w[q + Q_DST + 1] = p.d1;
    w[q + Q_DST + 2] = p.d2;
    w[q + Q_DST + 3] = p.d3;
    w[q + Q_SCOPE] = scopeOf(p);
    w[q + Q_FIRST] = w[q + Q_LAST] = -1;
    w[q + Q_COUNT] = 0;
    w[q + Q_LENGTH] = 0;
    w[q + Q_STATE] = p.own !== 0 ? OWN : 0;
    w[q + Q_BYTES] = 0;
    w[q + Q_LARGEST] = w[q + Q_LARGEST_DF] = 0;
    w[q + Q_ECN] = 0;
    w[q + Q_SINCE] = now;
    const list = p.family === 4 ? 0 : 1;
    const before = this.newest[list];
    w[q + Q_OLDER] = before;
    w[q + Q_NEWER] = -1;
    if (before >= 0) w[before + Q_NEWER] = q;
    else this.oldest[list] = q;
    this.newest[list] = q;
    this.count++;
    return q;
  }

  /** Takes a queue without fragments out of its chain and its list. */
  protected close(q: number): void {
    const w = this.queues;
    const bucket = w[q + Q_HASH] & (BUCKETS - 1);
    if (this.buckets[bucket] === q) this.buckets[bucket] = w[q + Q_NEXT];
    else {
      let at = this.buckets[bucket];
      while (w[at + Q_NEXT] !== q) at = w[at + Q_NEXT];
      w[at + Q_NEXT] = w[q + Q_NEXT];
    }
    const list = (w[q + Q_KEY] & 15) === 4 ? 0 : 1;
    const older = w[q + Q_OLDER];
    const newer = w[q + Q_NEWER];
    if (older >= 0) w[older + Q_NEWER] = newer;
    else this.oldest[list] = newer;
    if (newer >= 0) w[newer + Q_OLDER] = older;
    else this.newest[list] = older;
    w[q + Q_NEXT] = this.freeQueue;
    this.freeQueue = q;
    this.count--;
  }

  /** Drops the fragments of a queue, but not the slot `except`, and counts them. */
  protected empty(q: number, reason: number, except: number): void {
    const w = this.queues;
    const f = this.fragments;
    for (let at = w[q + Q_FIRST]; at >= 0; ) {
      const next = f[at + F_NEXT];
      this.counters[C_DROPS + reason]++;
      this.counters[C_PORTS + f[at + F_PORT] * 8 + CP_DROPS]++;
      this.counters[C_HELD]--;
      if (f[at + F_SLOT] !== except) this.frames.free(f[at + F_SLOT]);
      this.release(at);
      at = next;
    }
    w[q + Q_FIRST] = w[q + Q_LAST] = -1;
    w[q + Q_COUNT] = 0;
  }

  protected release(at: number): void {
    const f = this.fragments;
    this.held--;
    if (f[at + F_SLOT] >= this.frames.small) this.heldLarge--;
    f[at + F_NEXT] = this.freeFragment;
    this.freeFragment = at;
  }

  protected discard(q: number, reason: number): void {
    this.empty(q, reason, -1);
    this.close(q);
  }

  /** Drops what is there, and whatever comes under this identification until the time is up (RFC 5722 §4). */
  protected poison(q: number, reason: number): number {
    this.empty(q, reason, -1);
    this.queues[q + Q_STATE] |= POISONED;
    return reason;
  }

  /** Makes room: the datagram that waits longest goes, whichever family; never `spared`. False when there is none. */
  protected evict(spared: number): boolean {
    const w = this.queues;
    let a = this.oldest[0];
    let b = this.oldest[1];
    if (a >= 0 && a === spared) a = w[a + Q_NEWER];
    if (b >= 0 && b === spared) b = w[b + Q_NEWER];
    if (a < 0 && b < 0) return false;
    const q = a < 0 || (b >= 0 && ((w[b + Q_SINCE] - w[a + Q_SINCE]) | 0) < 0) ? b : a;
    this.evicted++;
    this.discard(q, FRAG_MEMORY);
    return true;
  }
}

/** Link-local and multicast destinations mean something on one link only. */
function scopeOf(p: Packet): number {
  if (p.family === 4) return 0;
  return (p.d0 & 0xff) === 0xff || (p.d0 & 0xc0ff) === 0x80fe ? p.port + 1 : 0;
}
