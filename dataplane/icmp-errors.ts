/**
 * ICMP and ICMPv6 errors of the router's own (RFC 792, RFC 1812 §4.3, RFC 4443 §3): when one may be sent, how often, and
 * its bytes. The quoted packet is the frame as it was received, since the path rewrites frames only at its end.
 *
 * Rate limits as Linux has them: 1,000 a second with bursts of 50 for all together, and one a second with bursts of 6
 * towards one destination; Packet Too Big and Fragmentation Needed are exempt from the second (path MTU discovery).
 */
import { type Frames, META_LEN, META_OFF, META_WORDS } from './frames.ts';
import { ICMP, ICMPV6 } from './parse.ts';
import type { Packet } from './wire/packet.ts';
import { fold, halves, sumRange } from './wire/sum.ts';

const GLOBAL_BURST = 50;
const GLOBAL_INTERVAL = 1; // ms per token
const PEER_BURST = 6;
const PEER_INTERVAL = 1000;
const PEERS = 1024;
/** Bytes of an error's IP packet at most: RFC 1812 §4.3.2.3 and RFC 4443 §3. */
const MAX_ERROR4 = 576;
const MAX_ERROR6 = 1280;

/** Token buckets: the time at which a bucket would be full again, per destination and for all. */
export class ErrorLimiter {
  private readonly peers = new Int32Array(PEERS);
  private global = 0;
  private started = false;
  /** Errors that the limits held back. */
  suppressed = 0;

  /** True when an error may be sent to `destination` (a hash of its address will do) at `now`. */
  allow(destination: number, exempt: boolean, now: number): boolean {
    if (!this.started) {
      this.started = true;
      this.global = now;
      this.peers.fill(now);
    }
    this.global = refill(this.global, now, GLOBAL_BURST * GLOBAL_INTERVAL);
    if (((this.global - now) | 0) > (GLOBAL_BURST - 1) * GLOBAL_INTERVAL) {
      this.suppressed++;
      return false;
    }
    if (!exempt) {
      const n = (Math.imul(destination, 0x9e3779b1) >>> 22) & (PEERS - 1);
      this.peers[n] = refill(this.peers[n], now, PEER_BURST * PEER_INTERVAL);
      if (((this.peers[n] - now) | 0) > (PEER_BURST - 1) * PEER_INTERVAL) {
        this.suppressed++;
        return false;
      }
      this.peers[n] = (this.peers[n] + PEER_INTERVAL) | 0;
    }
    this.global = (this.global + GLOBAL_INTERVAL) | 0;
    return true;
  }
}

/**
 * A bucket's time, not before `now`. One that seems farther ahead than `most` has not been touched for half of the
 * clock's round (24.8 days): it is full, not empty for the next 24.8 days.
 */
function refill(time: number, now: number, most: number): number {
  const ahead = (time - now) | 0;
  return ahead < 0 || ahead > most ? now : time;
}

/**
 * Whether the packet may be answered by an error at all: not an ICMP error itself, not a later fragment, not to or from
 * a group or unspecified address (RFC 1122 §3.2.2, RFC 4443 §2.4(e)).
 */
export function mayAnswer(p: Packet, frames: Frames, type: number): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.family === 4) {
    const s = p.rs0 & 0xff;
    const d = p.rd0 & 0xff;
    if (s === 0 || s >= 224 || d >= 224 || p.groupMac !== 0) return false;
    if (p.proto === ICMP) {
      if (p.end - p.l4 < 1) return false;
      const kind = frames.u8[p.l4];
      if (
        kind !== 0 &&
        kind !== 8 &&
        kind !== 13 &&
        kind !== 14 &&
        kind !== 15 &&
        kind !== 16 &&
        kind !== 17 &&
        kind !== 18
      )
        return false;
    }
    return true;
  }
  if ((p.rs0 | p.rs1 | p.rs2 | p.rs3) === 0) return false;
  // Packet Too Big and the unknown-option Parameter Problem may answer multicast.
  if (((p.rd0 & 0xff) === 0xff || p.groupMac !== 0) && type !== 2 && !(type === 4 && p.errorCode === 2)) return false;
  const kind = icmpv6Type(p, frames.u8);
  return kind < 0 || (kind >= 128 && kind !== 137);
}

/**
 * Type of the ICMPv6 message that the packet carries, or −1. Reads the chain for itself: a packet refused for one of its
 * extension headers was not parsed to its end, and may be an error all the same (RFC 4443 §2.4(e.1)).
 */
function icmpv6Type(p: Packet, u8: Uint8Array): number {
  let proto = u8[p.l3 + 6];
  let at = p.l3 + 40;
  for (let headers = 0; headers < 16; headers++) {
    if (proto === ICMPV6) return at < p.end ? u8[at] : -1;
    if (p.end - at < 8) return -1;
    if (proto === 0 || proto === 43 || proto === 60) {
      proto = u8[at];
      at += (u8[at + 1] + 1) << 3;
    } else if (proto === 51) {
      proto = u8[at];
      at += (u8[at + 1] + 2) << 2;
    } else if (proto === 44) {
      proto = u8[at];
      at += 8;
    } else return -1;
  }
  return -1;
}

/**
 * Builds an error about `p` in slot `slot` (its IP packet begins where a 14-byte link header leaves it 4-aligned).
 * @param param MTU (host order) for Packet Too Big and Fragmentation Needed, pointer for Parameter Problem
 * @param source the router's own address, raw: word 0 for IPv4, four words for IPv6
 * @returns absolute offset of the IP header
 */
export function buildError(
  p: Packet,
  frames: Frames,
  slot: number,
  type: number,
  code: number,
  param: number,
  source: Int32Array,
): number {
  const { u8, u16, i32, meta } = frames;
  const m = slot * META_WORDS;
  const l3 = meta[m + META_OFF] + 14;
  const w = l3 >> 2;
  const header = p.family === 4 ? 20 : 40;
  const limit = p.family === 4 ? MAX_ERROR4 : MAX_ERROR6;
  const quoted = Math.min(p.end - p.l3, limit - header - 8);
  const total = header + 8 + quoted;
  const l4 = l3 + header;
  u8.copyWithin(l4 + 8, p.l3, p.l3 + quoted);
  u8[l4] = type;
  u8[l4 + 1] = code;
  u8[l4 + 2] = u8[l4 + 3] = 0;
  i32[(l4 + 4) >> 2] = 0;
  if (p.family === 4) {
    if (type === 12) u8[l4 + 4] = param;
    else if (type === 3 && code === 4) {
      u8[l4 + 6] = param >> 8;
      u8[l4 + 7] = param;
    }
    u8[l3] = 0x45;
    // RFC 1812 §4.3.2.5: precedence INTERNETWORK CONTROL, the TOS of the packet.
    u8[l3 + 1] = 0xc0 | (p.tos & 0x1e);
    u8[l3 + 2] = total >> 8;
    u8[l3 + 3] = total;
    i32[w + 1] = 0;
    u8[l3 + 8] = 64;
    u8[l3 + 9] = ICMP;
    u8[l3 + 10] = u8[l3 + 11] = 0;
    i32[w + 3] = source[0];
    i32[w + 4] = p.rs0;
    u16[(l3 + 10) >> 1] = ~fold(sumRange(u16, i32, u8, l3, l3 + 20, 0));
    u16[(l4 + 2) >> 1] = ~fold(sumRange(u16, i32, u8, l4, l3 + total, 0));
  } else {
    u8[l4 + 4] = param >>> 24;
    u8[l4 + 5] = param >> 16;
    u8[l4 + 6] = param >> 8;
    u8[l4 + 7] = param;
    const length = total - 40;
    // Traffic class 0, as Linux sends it.
    u8[l3] = 0x60;
    u8[l3 + 1] = 0;
    u8[l3 + 2] = u8[l3 + 3] = 0;
    u8[l3 + 4] = length >> 8;
    u8[l3 + 5] = length;
    u8[l3 + 6] = ICMPV6;
    u8[l3 + 7] = 64;
    let sum = ((length & 0xff) << 8) + (length >> 8) + (ICMPV6 << 8);
    for (let n = 0; n < 4; n++) {
      i32[w + 2 + n] = source[n];
      sum += halves(source[n]);
    }
    i32[w + 6] = p.rs0;
    i32[w + 7] = p.rs1;
    i32[w + 8] = p.rs2;
    i32[w + 9] = p.rs3;
    sum += halves(p.rs0) + halves(p.rs1) + halves(p.rs2) + halves(p.rs3);
    u16[(l4 + 2) >> 1] = ~fold(sumRange(u16, i32, u8, l4, l3 + total, fold(sum)));
  }
  meta[m + META_LEN] = total + 14;
  return l3;
}
