/**
 * Rewrite: the effective addresses of a Packet become the frame's bytes, once, at the end of the path.
 *
 * TTL or hop limit (RFC 1812 §5.3.1), addresses, ports and ICMP identifiers, the packet quoted in an ICMP error
 * (RFC 5508 REQ-4, 5), all checksums incrementally (RFC 1624), and the link header. A UDP checksum of zero stays zero and
 * a computed zero becomes 0xffff (RFC 768); a partial checksum (NEEDS_CSUM) covers the pseudo-header only, so it takes
 * the address delta alone, uncomplemented. SCTP's CRC32c does not cover addresses (RFC 9260 §6.8): it is computed anew
 * when a port changed.
 */
import { FRAME_NEEDS_CSUM, type Frames, META_CSUM, META_LEN, META_OFF, META_WORDS } from './frames.ts';
import { DCCP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE } from './parse.ts';
import { crc32c } from './wire/crc32c.ts';
import type { Packet } from './wire/packet.ts';
import { adjust, delta, fold, halves, sumRange } from './wire/sum.ts';

/** What the path knows of a quoted packet's original tuple: raw addresses (IPv4: first word of each) and ports. */
export interface Quote {
  s: Int32Array;
  d: Int32Array;
  ports: number;
}

/**
 * Writes the packet's effective header fields into its frame. `decrement`: 1 for a forwarded packet, 0 for the
 * router's own.
 */
export function rewriteIp(p: Packet, frames: Frames, decrement: number): void {
  const i32 = frames.i32;
  const u8 = frames.u8;
  const l3 = p.l3;
  const w = l3 >> 2;
  let change = 0;
  if (p.family === 4) {
    let header = 0;
    if (decrement !== 0) {
      // TTL is the low byte of its raw half: the sum falls by one, which is ~1 + ... in one's complement.
      u8[l3 + 8] = p.ttl - 1;
      header += 0xfffe;
    }
    if (p.s0 !== p.rs0) {
      change += delta(p.rs0, p.s0);
      i32[w + 3] = p.s0;
    }
    if (p.d0 !== p.rd0) {
      change += delta(p.rd0, p.d0);
      i32[w + 4] = p.d0;
    }
    header += change;
    if (header !== 0) frames.u16[(l3 + 10) >> 1] = adjust(frames.u16[(l3 + 10) >> 1], header);
  } else {
    if (decrement !== 0) u8[l3 + 7] = p.ttl - 1;
    if (p.s0 !== p.rs0 || p.s1 !== p.rs1 || p.s2 !== p.rs2 || p.s3 !== p.rs3) {
      change += delta(p.rs0, p.s0) + delta(p.rs1, p.s1) + delta(p.rs2, p.s2) + delta(p.rs3, p.s3);
      i32[w + 2] = p.s0;
      i32[w + 3] = p.s1;
      i32[w + 4] = p.s2;
      i32[w + 5] = p.s3;
    }
    if (p.d0 !== p.rd0 || p.d1 !== p.rd1 || p.d2 !== p.rd2 || p.d3 !== p.rd3) {
      change += delta(p.rd0, p.d0) + delta(p.rd1, p.d1) + delta(p.rd2, p.d2) + delta(p.rd3, p.d3);
      i32[w + 6] = p.d0;
      i32[w + 7] = p.d1;
      i32[w + 8] = p.d2;
      i32[w + 9] = p.d3;
    }
  }
  if (change === 0 && p.ports === p.rports) return;
  if (p.fragOffset !== 0) return;
  rewriteTransport(p, frames, change);
}

/** Ports and transport checksum; `change`: delta of the addresses. */
function rewriteTransport(p: Packet, frames: Frames, change: number): void {
  const u16 = frames.u16;
  const l4 = p.l4;
  const h = l4 >> 1;
  const portChange = p.ports === p.rports ? 0 : delta(p.rports, p.ports);
  const partial = (p.flags & FRAME_NEEDS_CSUM) !== 0;
  switch (p.proto) {
    case TCP:
      writePorts(p, frames);
      if (partial) u16[h + 8] = fold(u16[h + 8] + change);
      else u16[h + 8] = adjust(u16[h + 8], change + portChange);
      break;
    case UDP:
    case UDPLITE:
    case DCCP:
      writePorts(p, frames);
      if (u16[h + 3] === 0 && p.proto === UDP && !partial) break;
      if (partial) u16[h + 3] = fold(u16[h + 3] + change);
      else {
        const sum = adjust(u16[h + 3], change + portChange);
        u16[h + 3] = sum === 0 && p.proto !== DCCP ? 0xffff : sum;
      }
      break;
    case SCTP:
      if (p.ports === p.rports) break;
      writePorts(p, frames);
      crc32c(frames.u8, l4, p.end, l4 + 8);
      break;
    case ICMP:
      if (p.ports === p.rports) break;
      u16[h + 2] = p.ports;
      u16[h + 1] = adjust(u16[h + 1], delta(p.rports & 0xffff, p.ports & 0xffff));
      break;
    case ICMPV6: {
      let sum = change;
      if (p.ports !== p.rports) {
        u16[h + 2] = p.ports;
        sum += delta(p.rports & 0xffff, p.ports & 0xffff);
      }
      u16[h + 1] = adjust(u16[h + 1], sum);
      break;
    }
    case GRE:
      // Version 1 (PPTP): the destination's call ID sits at bytes 6 and 7; there is no checksum (RFC 2637 §4.1).
      if (p.ports !== p.rports) u16[h + 3] = p.ports >>> 16;
      break;
  }
}

function writePorts(p: Packet, frames: Frames): void {
  if (p.ports === p.rports) return;
  frames.u16[p.l4 >> 1] = p.ports;
  frames.u16[(p.l4 >> 1) + 1] = p.ports >>> 16;
}

/**
 * Turns the packet that an ICMP error quotes back into what the error's receiver had sent: addresses and ports `quote`.
 * Inner IP checksum, inner transport checksum (as far as the quote holds it) and the ICMP checksum follow. The outer
 * addresses must have been rewritten already (ICMPv6's checksum covers them: it is summed anew).
 */
export function rewriteQuote(p: Packet, frames: Frames, quote: Quote): void {
  const { u8, u16, i32 } = frames;
  const inner = p.innerL3;
  let change = 0;
  if (p.family === 4) {
    change = delta(readWord(u16, inner + 12), quote.s[0]) + delta(readWord(u16, inner + 16), quote.d[0]);
    writeWord(u16, inner + 12, quote.s[0]);
    writeWord(u16, inner + 16, quote.d[0]);
    u16[(inner + 10) >> 1] = adjust(u16[(inner + 10) >> 1], change);
  } else {
    for (let n = 0; n < 4; n++) {
      change +=
        delta(readWord(u16, inner + 8 + 4 * n), quote.s[n]) + delta(readWord(u16, inner + 24 + 4 * n), quote.d[n]);
      writeWord(u16, inner + 8 + 4 * n, quote.s[n]);
      writeWord(u16, inner + 24 + 4 * n, quote.d[n]);
    }
  }
  const l4 = p.innerL4;
  const h = l4 >> 1;
  const room = p.end - l4;
  switch (p.innerProto) {
    case TCP:
    case UDP:
    case UDPLITE:
    case DCCP:
    case SCTP: {
      const ports = delta(readWord(u16, l4), quote.ports);
      writeWord(u16, l4, quote.ports);
      if (p.innerProto === TCP && room >= 20) u16[h + 8] = adjust(u16[h + 8], change + ports);
      else if ((p.innerProto === UDP || p.innerProto === UDPLITE) && room >= 8 && u16[h + 3] !== 0) {
        const sum = adjust(u16[h + 3], change + ports);
        u16[h + 3] = sum === 0 ? 0xffff : sum;
      }
      break;
    }
    case ICMP:
    case ICMPV6: {
      const before = u16[h + 2];
      u16[h + 2] = quote.ports;
      u16[h + 1] = adjust(u16[h + 1], delta(before, quote.ports & 0xffff) + (p.innerProto === ICMPV6 ? change : 0));
      break;
    }
    case GRE:
      if ((u8[l4 + 1] & 7) === 1) u16[h + 3] = quote.ports >>> 16;
      break;
  }
  // The error's own checksum, over all of it.
  const at = (p.l4 + 2) >> 1;
  u16[at] = 0;
  let initial = 0;
  if (p.family === 6) {
    const length = p.end - p.l4;
    initial = ((length & 0xff) << 8) + (length >> 8) + (ICMPV6 << 8);
    initial += halves(p.s0) + halves(p.s1) + halves(p.s2) + halves(p.s3);
    initial += halves(p.d0) + halves(p.d1) + halves(p.d2) + halves(p.d3);
  }
  u16[at] = ~fold(sumRange(u16, i32, u8, p.l4, p.end, initial));
}

function readWord(u16: Uint16Array, at: number): number {
  return u16[at >> 1] | (u16[(at >> 1) + 1] << 16);
}

function writeWord(u16: Uint16Array, at: number, word: number): void {
  u16[at >> 1] = word;
  u16[(at >> 1) + 1] = word >>> 16;
}

/**
 * Puts a link header in front of the IP header: destination and source MAC (raw words), an 802.1Q tag when `vlan` is not
 * 0, EtherType by family. Sets the slot's OFF and LEN; padding behind the datagram is left out, as Linux does.
 */
export function writeLink(
  p: Packet,
  frames: Frames,
  dstLo: number,
  dstHi: number,
  srcLo: number,
  srcHi: number,
  vlan: number,
): void {
  const u16 = frames.u16;
  const off = p.l3 - (vlan !== 0 ? 18 : 14);
  let h = off >> 1;
  u16[h] = dstLo;
  u16[h + 1] = dstLo >>> 16;
  u16[h + 2] = dstHi;
  u16[h + 3] = srcLo;
  u16[h + 4] = srcLo >>> 16;
  u16[h + 5] = srcHi;
  if (vlan !== 0) {
    u16[h + 6] = 0x0081;
    u16[h + 7] = ((vlan & 0xff) << 8) | ((vlan >> 8) & 0x0f);
    h += 2;
  }
  u16[h + 6] = p.family === 4 ? 0x0008 : 0xdd86;
  const m = p.slot * META_WORDS;
  const before = frames.meta[m + META_OFF];
  frames.meta[m + META_OFF] = off;
  frames.meta[m + META_LEN] = p.end - off;
  // The partial checksum's start counts from the frame's first byte.
  if (before !== off && (p.flags & FRAME_NEEDS_CSUM) !== 0) {
    const start = (frames.meta[m + META_CSUM] & 0xffff) + before - off;
    frames.meta[m + META_CSUM] = (frames.meta[m + META_CSUM] & ~0xffff) | start;
  }
  p.off = off;
  p.len = p.end - off;
}
