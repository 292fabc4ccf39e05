/**
 * Reassembly: fragments wait in their slots until their datagram is whole, then it walks the path as one packet.
 *
 * IPv4 (RFC 791 §3.2, RFC 815 for the bookkeeping's idea), IPv6 (RFC 8200 §4.5, RFC 5722 overlaps, RFC 6946 atomic
 * fragments), as Linux's nf_defrag does it for a router that tracks: keyed by addresses, identification, protocol (IPv4)
 * and conntrack zone; the header is the first fragment's; ECN is merged (RFC 3168 §5.3). The whole datagram lies in a
 * large slot, and its *shape* (largest fragment, ends of all) beside it, so that the `fragment` stage can send it as it came.
 *
 * Bounded: in memory and numbers (reassembly-queues.ts has what waits), and by 30 s (IPv4, as Linux) or 60 s (RFC 8200) from
 * the first fragment to come. Stricter than Linux: an overlap (everything but an exact duplicate) also poisons the
 * identification until the time is up, so that fragments which come later cannot start a new datagram with it (RFC 5722 §4).
 *
 * Not here: cutting (fragment.ts), parsing what was put together (the path calls parseIp again), handing fragments to the
 * worker that `fragmentOwner` names (handover.ts).
 */
import {
  FRAG_DUP,
  FRAG_ECN,
  FRAG_LENGTH,
  FRAG_MEMORY,
  FRAG_OVERLAP,
  FRAG_REASM_TIMEOUT,
  FRAG_TINY,
  FRAG_TOO_FAR,
  IPV6_CHAIN,
} from './drop.ts';
import { FRAME_NEEDS_CSUM, META_CSUM, META_LEN, META_OFF, META_PORT, META_WORDS, SMALL_ROOM } from './frames.ts';
import {
  datagramHash,
  F_BYTES,
  F_DATA,
  F_L3,
  F_NEXT,
  F_OFFSET,
  F_PORT,
  F_SLOT,
  keyHash,
  LAST_IN,
  MAX_FRAGMENTS,
  OWN,
  POISONED,
  Q_BYTES,
  Q_COUNT,
  Q_ECN,
  Q_FIRST,
  Q_LARGEST,
  Q_LARGEST_DF,
  Q_LAST,
  Q_LENGTH,
  Q_SINCE,
  Q_STATE,
  ReassemblyQueues,
} from './reassembly-queues.ts';
import { C_CONSUMED, C_DROPS, C_HELD, C_PORTS, CP_DROPS } from './tables.ts';
import type { Packet } from './wire/packet.ts';
import { fold, sumRange } from './wire/sum.ts';

/** What `gather` answers beside drop reasons: the datagram is whole, or the fragment waits. */
export const WHOLE = 0;
export const KEPT = -1;
/** What `expire` answers beside a slot: a datagram ended without a word; nothing was due. */
export const ENDED = -1;
export const NOTHING_DUE = -2;

/** Bit in Packet.flags: the packet was put together from fragments, its slot has a shape. Survives Hold. */
export const REASSEMBLED = 0x100;

/** Linux's ipfrag_time and nf_conntrack_frag6_timeout; RFC 8200 §4.5 says 60 s. Milliseconds. */
export const TIMEOUT4 = 30_000;
export const TIMEOUT6 = 60_000;

const TCP = 6;
/** RFC 1858 §3: a first fragment must hold the flags of TCP, and so must not a second one. */
const TCP_TINY = 16;
const PARAMETER_PROBLEM = 4;

/** The worker that puts this fragment's datagram together: the same for all its fragments, whatever queue they came by. */
export function fragmentOwner(p: Packet, workers: number): number {
  return ((keyHash(p) >>> 16) * workers) >>> 16;
}

export class Reassembly extends ReassemblyQueues {
  /** About the slot that `expire` returned last: its IP header, its port, 1 when it was the host kernel's. */
  expiredL3 = 0;
  expiredPort = 0;
  expiredOwn = 0;
  /** Where `namedAt` found the fragment header. */
  private headerAt = 0;

  /**
   * Takes a fragment that ip-parse has seen (p.isFragment). Returns KEPT (the slot is the queue's now), WHOLE (p is the
   * datagram now: slot, off, len, l3 are new, the rest is for parseIp to fill), or a drop reason for this fragment, with
   * p.errorType set where an ICMPv6 error is due. What else was dropped with it is counted already.
   */
  gather(p: Packet, zone: number, now: number): number {
    const data = p.family === 4 ? p.l4 : this.payload6(p);
    if (data < 0) return IPV6_CHAIN;
    let bytes = p.end - data;
    const refused = p.family === 4 ? this.check4(p, bytes) : this.check6(p, bytes, data);
    const hash = datagramHash(p, this.seed);
    const key = p.family | ((p.family === 4 ? p.proto : 0) << 4) | (zone << 12);
    let q = this.find(p, hash, key);
    if (refused !== 0) {
      // A length that cannot be ends the datagram as in Linux: nothing after it can be trusted.
      if (refused === FRAG_LENGTH && q >= 0 && (this.queues[q + Q_STATE] & POISONED) === 0) this.discard(q, refused);
      return refused;
    }
    // RFC 791 fragments are cut at multiples of 8; what is behind the last one is left out, as Linux does.
    if (p.family === 4 && p.fragMore !== 0) bytes &= ~7;
    if (q < 0) {
      q = this.open(p, hash, key, now);
      if (q < 0) return FRAG_MEMORY;
    }
    return this.insert(q, p, data, bytes);
  }

  /** RFC 1858 §3 and RFC 3128 for TCP; lengths. */
  private check4(p: Packet, bytes: number): number {
    if (p.proto === TCP && (p.fragOffset === 0 ? bytes < TCP_TINY : p.fragOffset < TCP_TINY)) return FRAG_TINY;
    if (p.l4 - p.l3 + p.fragOffset + bytes > 65535) return FRAG_TOO_FAR;
    return (p.fragMore !== 0 ? bytes & ~7 : bytes) === 0 ? FRAG_LENGTH : 0;
  }

  /** RFC 8200 §4.5: what a fragment's length may be, and what to tell the sender when it is not. */
  private check6(p: Packet, bytes: number, data: number): number {
    if (p.fragMore !== 0 && (bytes & 7) !== 0) return this.problem(p, 4, FRAG_LENGTH);
    if (data - 8 - p.l3 - 40 + p.fragOffset + bytes > 65535) return this.problem(p, data - 6 - p.l3, FRAG_TOO_FAR);
    return bytes === 0 ? FRAG_LENGTH : 0;
  }

  private problem(p: Packet, pointer: number, reason: number): number {
    p.errorType = PARAMETER_PROBLEM;
    p.errorCode = 0;
    p.errorParam = pointer;
    return reason;
  }

  /** Where an IPv6 fragment's payload begins, or −1 when it has more than one fragment header. */
  private payload6(p: Packet): number {
    if (this.namedAt(p.l3) < 0 || this.headerAt !== p.fragHeader) return -1;
    return p.fragHeader + 8;
  }

  /** The Next Header field that names the first fragment header of a chain that ip-parse has checked; −1: none. */
  private namedAt(l3: number): number {
    const u8 = this.frames.u8;
    let field = l3 + 6;
    let at = l3 + 40;
    for (let headers = 0; headers < 16; headers++) {
      const next = u8[field];
      if (next === 44) {
        this.headerAt = at;
        return field;
      }
      if (next !== 0 && next !== 43 && next !== 60 && next !== 51) return -1;
      field = at;
      at += next === 51 ? (u8[at + 1] + 2) << 2 : (u8[at + 1] + 1) << 3;
    }
    return -1;
  }

  /**
   * Takes the fragment header out of an atomic fragment (RFC 6946 §4: a datagram of its own, whatever fragments wait under its
   * identification), in place, as Linux does. False when there is more than one.
   */
  unwrap(p: Packet): boolean {
    const { u8, meta } = this.frames;
    const field = this.namedAt(p.l3);
    const at = this.headerAt;
    if (field < 0 || at !== p.fragHeader) return false;
    u8[field] = u8[at];
    const length = ((u8[p.l3 + 4] << 8) | u8[p.l3 + 5]) - 8;
    u8[p.l3 + 4] = length >> 8;
    u8[p.l3 + 5] = length;
    u8.copyWithin(p.off + 8, p.off, at);
    const m = p.slot * META_WORDS;
    p.off += 8;
    p.len -= 8;
    p.l3 += 8;
    meta[m + META_OFF] = p.off;
    meta[m + META_LEN] = p.len;
    if ((p.flags & FRAME_NEEDS_CSUM) !== 0) meta[m + META_CSUM] -= 8;
    p.fragHeader = 0;
    return true;
  }

  // --- fragments -----------------------------------------------------------------------------------------------------

  private insert(q: number, p: Packet, data: number, bytes: number): number {
    const w = this.queues;
    if ((w[q + Q_STATE] & POISONED) !== 0) return FRAG_OVERLAP;
    const offset = p.fragOffset;
    const end = offset + bytes;
    const f = this.fragments;

    // The place by offset, most often behind the last.
    let before = w[q + Q_LAST];
    let after = -1;
    if (before >= 0 && f[before + F_OFFSET] + f[before + F_BYTES] > offset) {
      before = -1;
      after = w[q + Q_FIRST];
      while (after >= 0 && f[after + F_OFFSET] < offset) {
        before = after;
        after = f[after + F_NEXT];
      }
      if (after >= 0 && this.isDuplicate(q, after, p, data, bytes)) return FRAG_DUP;
      if (
        (before >= 0 && f[before + F_OFFSET] + f[before + F_BYTES] > offset) ||
        (after >= 0 && f[after + F_OFFSET] < end)
      )
        return this.poison(q, FRAG_OVERLAP);
    }
    // An end before what is there already, or beyond or beside the one that was announced.
    const known = (w[q + Q_STATE] & LAST_IN) !== 0;
    const length = w[q + Q_LENGTH];
    if (p.fragMore === 0 ? end < length || (known && end !== length) : known && end > length) {
      // Linux ignores such a fragment of IPv6 and gives up the datagram of IPv4.
      if (p.family === 4) this.discard(q, FRAG_LENGTH);
      return FRAG_LENGTH;
    }

    const large = p.slot >= this.frames.small;
    while (this.freeFragment < 0 || (large && this.heldLarge >= this.maxLarge)) if (!this.evict(q)) return this.full(q);
    if (w[q + Q_COUNT] >= MAX_FRAGMENTS) return this.full(q);
    const at = this.freeFragment;
    this.freeFragment = f[at + F_NEXT];
    this.held++;
    if (large) this.heldLarge++;
    f[at + F_SLOT] = p.slot;
    f[at + F_OFFSET] = offset;
    f[at + F_BYTES] = bytes;
    f[at + F_DATA] = data;
    f[at + F_NEXT] = after;
    f[at + F_L3] = p.l3;
    f[at + F_PORT] = p.port;
    if (before >= 0) f[before + F_NEXT] = at;
    else w[q + Q_FIRST] = at;
    if (after < 0) w[q + Q_LAST] = at;

    w[q + Q_COUNT]++;
    w[q + Q_BYTES] += bytes;
    if (p.fragMore === 0) w[q + Q_STATE] |= LAST_IN;
    if (end > length) w[q + Q_LENGTH] = end;
    // A fragment of IPv4 counts with what was kept of it.
    const size = data + bytes - p.l3;
    if (size > w[q + Q_LARGEST]) w[q + Q_LARGEST] = size;
    if (p.dontFragment !== 0 && size > w[q + Q_LARGEST_DF]) w[q + Q_LARGEST_DF] = size;
    w[q + Q_ECN] |= 1 << (p.tos & 3);
    if ((w[q + Q_STATE] & LAST_IN) !== 0 && w[q + Q_BYTES] === w[q + Q_LENGTH]) return this.assemble(q, p);
    return KEPT;
  }

  /** Nothing to evict but this datagram itself, or it has too many fragments: it is the one that goes. */
  private full(q: number): number {
    this.discard(q, FRAG_MEMORY);
    return FRAG_MEMORY;
  }

  /** Whether the fragment is there already, byte for byte (RFC 8200 §4.5: an exact duplicate is not an overlap). */
  private isDuplicate(q: number, at: number, p: Packet, data: number, bytes: number): boolean {
    const f = this.fragments;
    if (f[at + F_OFFSET] !== p.fragOffset || f[at + F_BYTES] !== bytes) return false;
    const isLast = p.fragOffset + bytes === this.queues[q + Q_LENGTH] && (this.queues[q + Q_STATE] & LAST_IN) !== 0;
    if (isLast !== (p.fragMore === 0)) return false;
    const u8 = this.frames.u8;
    const other = f[at + F_DATA];
    for (let n = 0; n < bytes; n++) if (u8[data + n] !== u8[other + n]) return false;
    return true;
  }

  /** Copies all fragments into a large slot; p becomes the datagram. On failure p keeps its own slot, the others go. */
  private assemble(q: number, p: Packet): number {
    const { frames } = this;
    const { u8, meta } = frames;
    const w = this.queues;
    const f = this.fragments;
    const first = w[q + Q_FIRST];
    const l3 = f[first + F_L3];
    const off = meta[f[first + F_SLOT] * META_WORDS + META_OFF];
    const header = f[first + F_DATA] - l3 - (p.family === 4 ? 0 : 8);
    const length = w[q + Q_LENGTH];
    const total = header + length;
    const merged = ecnOf(w[q + Q_ECN]);
    let reason = 0;
    if (merged < 0) reason = FRAG_ECN;
    else if ((p.family === 4 ? total : total - 40) > 65535) reason = FRAG_TOO_FAR;
    const link = l3 - off;
    // Always a large slot: only those have a shape.
    const slot = reason !== 0 ? -1 : frames.alloc(Math.max(link + total, SMALL_ROOM + 1));
    if (slot < 0) {
      if (reason === 0) reason = FRAG_MEMORY;
      // This fragment is the caller's to drop and to count.
      this.counters[C_DROPS + reason]--;
      this.counters[C_PORTS + p.port * 8 + CP_DROPS]--;
      this.counters[C_HELD]++;
      this.empty(q, reason, p.slot);
      this.close(q);
      return reason;
    }
    const m = slot * META_WORDS;
    const to = meta[m + META_OFF];
    const ip = to + link;
    u8.copyWithin(to, off, l3 + header);
    const shape = this.shapeAt(slot);
    let pieces = 0;
    for (let at = first; at >= 0; ) {
      const next = f[at + F_NEXT];
      const data = f[at + F_DATA];
      const offset = f[at + F_OFFSET];
      u8.copyWithin(ip + header + offset, data, data + f[at + F_BYTES]);
      this.shapes[shape + 2 + pieces] = header + offset + f[at + F_BYTES];
      pieces++;
      frames.free(f[at + F_SLOT]);
      this.release(at);
      at = next;
    }
    w[q + Q_FIRST] = w[q + Q_LAST] = -1;
    this.shapes[shape] = w[q + Q_LARGEST];
    this.shapes[shape + 1] = pieces;
    this.counters[C_HELD] -= pieces - 1;
    this.counters[C_CONSUMED] += pieces - 1;
    const df = w[q + Q_LARGEST_DF] !== 0 && w[q + Q_LARGEST_DF] === w[q + Q_LARGEST];
    this.close(q);

    meta[m + META_LEN] = link + total;
    meta[m + META_PORT] = p.port;
    if (p.family === 4) this.finish4(ip, header, total, df, merged);
    else this.finish6(ip, l3, total, merged);
    p.slot = slot;
    p.off = to;
    p.len = link + total;
    p.l3 = ip;
    p.flags = REASSEMBLED;
    p.fragHeader = 0;
    return WHOLE;
  }

  /** DF only when the largest fragment had it (Linux): it then speaks for the path that the sender knows. */
  private finish4(ip: number, header: number, total: number, df: boolean, ecn: number): void {
    const { u8, u16, i32 } = this.frames;
    u8[ip + 1] |= ecn;
    u8[ip + 2] = total >> 8;
    u8[ip + 3] = total;
    u8[ip + 6] = df ? 0x40 : 0;
    u8[ip + 7] = 0;
    u16[(ip + 10) >> 1] = 0;
    u16[(ip + 10) >> 1] = ~fold(sumRange(u16, i32, u8, ip, ip + header, 0));
  }

  /** The fragment header was left out; who named it names now what it named (of the first fragment, RFC 8200 §4.5). */
  private finish6(ip: number, l3: number, total: number, ecn: number): void {
    const u8 = this.frames.u8;
    const field = this.namedAt(l3); // the first fragment's bytes are still there: free() touches no frame
    u8[ip + field - l3] = u8[this.headerAt];
    u8[ip + 1] |= ecn << 4;
    u8[ip + 4] = (total - 40) >> 8;
    u8[ip + 5] = total - 40;
  }

  // --- time ----------------------------------------------------------------------------------------------------------

  /**
   * Ends one datagram whose time is up. Returns the slot of its first fragment, which is the caller's now (to answer it with
   * Time Exceeded code 1, and to free it), ENDED when there is none, NOTHING_DUE when no datagram's time is up.
   */
  expire(now: number): number {
    for (let list = 0; list < 2; list++) {
      const q = this.oldest[list];
      if (q < 0) continue;
      const w = this.queues;
      if (((now - w[q + Q_SINCE]) | 0) < (list === 0 ? TIMEOUT4 : TIMEOUT6)) continue;
      const first = w[q + Q_FIRST];
      const f = this.fragments;
      const slot = first >= 0 && f[first + F_OFFSET] === 0 ? f[first + F_SLOT] : ENDED;
      if (slot >= 0) {
        this.expiredL3 = f[first + F_L3];
        this.expiredPort = f[first + F_PORT];
        this.expiredOwn = (w[q + Q_STATE] & OWN) !== 0 ? 1 : 0;
      }
      this.empty(q, FRAG_REASM_TIMEOUT, slot);
      this.close(q);
      return slot;
    }
    return NOTHING_DUE;
  }
}

/**
 * What the code points of all fragments make together (RFC 3168 §5.3), as bits to add: CE when one was marked on the way
 * and the others could have been; −1 when Not-ECT is mixed with the others. `seen`: 1 Not-ECT, 2 ECT(1), 4 ECT(0), 8 CE.
 */
function ecnOf(seen: number): number {
  if ((seen & 1) !== 0 && seen !== 1) return -1;
  return (seen & 8) !== 0 && seen !== 8 ? 3 : 0;
}
