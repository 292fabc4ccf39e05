/**
 * ip-parse and ip-sanity: from a frame's bytes to a Packet, with every length checked here and nowhere later.
 *
 * IPv4 (RFC 791, sanity of RFC 1812 §5.2.2), IPv6 (RFC 8200) with its chain of extension headers, bounded; TCP, UDP,
 * UDP-Lite, SCTP, DCCP, ICMP, ICMPv6 and GRE headers are checked for length; transport checksums are verified unless
 * the device or the sender's stack vouches for them. Every function returns 0 or a drop reason; where the RFC wants an
 * ICMP error, packet.errorType says which.
 *
 * Not here: reassembly (a fragment's transport header is only read when it is in the first one), tracking, routing.
 */

import { grePorts } from '../conntrack/gre.ts';
import {
  FRAG_TINY,
  GSO_MALFORMED,
  ICMP_CSUM,
  IP_CSUM,
  IP_INHDR,
  IP_INVALID_DEST,
  IP_INVALID_SOURCE,
  IPV6_CHAIN,
  IPV6_RH0,
  L4_TRUNCATED,
  PKT_TOO_SMALL,
  TCP_CSUM,
  UDP_CSUM,
} from './drop.ts';
import { CHAIN_AH, CHAIN_ROUTING0 } from './filter.ts';
import type { Frames } from './frames.ts';
import { FRAME_DATA_VALID, FRAME_NEEDS_CSUM } from './frames.ts';
import type { Packet } from './wire/packet.ts';
import { fold, halves, sumRange } from './wire/sum.ts';

export const ICMP = 1;
export const IPIP = 4;
export const TCP = 6;
export const UDP = 17;
export const DCCP = 33;
export const IPV6_IN_IP = 41;
export const GRE = 47;
export const ESP = 50;
export const AH = 51;
export const ICMPV6 = 58;
export const SCTP = 132;
export const UDPLITE = 136;

/** IPv6 extension headers (RFC 8200 §4, RFC 7045). */
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
export const NO_NEXT_HEADER = 59;
const DESTINATION = 60;
const MOBILITY = 135;
/** Destination option of Mobile IPv6. */
const HOME_ADDRESS = 0xc9;

/** Extension headers that a packet may have before it is refused; eight is more than any real use (RFC 8504 §5.3). */
const MAX_EXTENSION_HEADERS = 8;

const ICMPV6_PARAMETER_PROBLEM = 4;
const ICMP_PARAMETER_PROBLEM = 12;

/** Parses the IP header at p.l3; the frame ends at `frameEnd` (absolute). Fills everything but conntrack and route. */
export function parseIp(p: Packet, frames: Frames, frameEnd: number): number {
  p.isFragment = 0;
  p.fragOffset = 0;
  p.fragMore = 0;
  p.hasOptions = 0;
  p.chain = 0;
  p.homeAt = 0;
  p.errorType = 0;
  p.innerL3 = 0;
  p.innerL4 = 0;
  p.tcpFlags = 0;
  p.ports = 0;
  return p.family === 4 ? parseIpv4(p, frames, frameEnd) : parseIpv6(p, frames, frameEnd);
}

function parseIpv4(p: Packet, frames: Frames, frameEnd: number): number {
  const u8 = frames.u8;
  const i32 = frames.i32;
  const l3 = p.l3;
  if (frameEnd - l3 < 20) return PKT_TOO_SMALL;
  const first = u8[l3];
  const headerLength = (first & 15) << 2;
  const total = (u8[l3 + 2] << 8) | u8[l3 + 3];
  if (first >> 4 !== 4 || headerLength < 20) return IP_INHDR;
  if (total < headerLength || total > frameEnd - l3) return total < headerLength ? IP_INHDR : PKT_TOO_SMALL;
  p.end = l3 + total;
  p.l4 = l3 + headerLength;

  const w = l3 >> 2;
  let sum = halves(i32[w]) + halves(i32[w + 1]) + halves(i32[w + 2]) + halves(i32[w + 3]) + halves(i32[w + 4]);
  if (headerLength > 20) {
    for (let at = 5; at < headerLength >> 2; at++) sum += halves(i32[w + at]);
    p.hasOptions = 1;
  }
  if (fold(sum) !== 0xffff) return IP_CSUM;

  p.tos = u8[l3 + 1];
  p.ttl = u8[l3 + 8];
  p.proto = u8[l3 + 9];
  p.protoAt = l3 + 9;
  const source = i32[w + 3];
  const destination = i32[w + 4];
  p.s0 = p.rs0 = source;
  p.d0 = p.rd0 = destination;
  p.s1 = p.s2 = p.s3 = p.d1 = p.d2 = p.d3 = 0;
  p.rs1 = p.rs2 = p.rs3 = p.rd1 = p.rd2 = p.rd3 = 0;

  const flags = u8[l3 + 6];
  p.dontFragment = (flags >> 6) & 1;
  p.fragMore = (flags >> 5) & 1;
  p.fragOffset = (((flags & 0x1f) << 8) | u8[l3 + 7]) << 3;
  p.fragId = u8[l3 + 4] | (u8[l3 + 5] << 8);
  p.fragHeader = 0;

  // RFC 1122 §3.2.1.3, RFC 1812 §5.3.7: who may be a source, and where a packet may go.
  const s = source & 0xff;
  const d = destination & 0xff;
  if (s >= 224 || s === 127 || (s === 0 && (source !== 0 || d < 224))) return IP_INVALID_SOURCE;
  if (d === 127 || d === 0 || (d >= 240 && destination !== -1)) return IP_INVALID_DEST;
  if (p.hasOptions !== 0) {
    const reason = checkIpv4Options(p, u8, l3 + 20, p.l4);
    if (reason !== 0) return reason;
  }
  if ((p.fragOffset | p.fragMore) !== 0) {
    p.isFragment = 1;
    return 0;
  }
  return parseTransport(p, frames);
}

/** Options must be well formed, and source routes are refused (RFC 7126 §4.3, Linux's accept_source_route = 0). */
function checkIpv4Options(p: Packet, u8: Uint8Array, from: number, to: number): number {
  for (let at = from; at < to; ) {
    const kind = u8[at];
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = at + 1 < to ? u8[at + 1] : 0;
    if (length < 2 || at + length > to) {
      p.errorType = ICMP_PARAMETER_PROBLEM;
      p.errorCode = 0;
      p.errorParam = at - p.l3;
      return IP_INHDR;
    }
    if (kind === 131 || kind === 137) return IP_INHDR;
    at += length;
  }
  return 0;
}

function parseIpv6(p: Packet, frames: Frames, frameEnd: number): number {
  const u8 = frames.u8;
  const i32 = frames.i32;
  const l3 = p.l3;
  if (frameEnd - l3 < 40) return PKT_TOO_SMALL;
  if (u8[l3] >> 4 !== 6) return IP_INHDR;
  const payload = (u8[l3 + 4] << 8) | u8[l3 + 5];
  if (payload > frameEnd - l3 - 40) return PKT_TOO_SMALL;
  p.end = l3 + 40 + payload;
  p.tos = ((u8[l3] & 15) << 4) | (u8[l3 + 1] >> 4);
  p.ttl = u8[l3 + 7];
  p.dontFragment = 1;
  const w = l3 >> 2;
  p.s0 = p.rs0 = i32[w + 2];
  p.s1 = p.rs1 = i32[w + 3];
  p.s2 = p.rs2 = i32[w + 4];
  p.s3 = p.rs3 = i32[w + 5];
  p.d0 = p.rd0 = i32[w + 6];
  p.d1 = p.rd1 = i32[w + 7];
  p.d2 = p.rd2 = i32[w + 8];
  p.d3 = p.rd3 = i32[w + 9];

  // RFC 4291 §2.5.3, §2.7: no multicast or loopback source, no loopback or unspecified destination on a link.
  if ((p.s0 & 0xff) === 0xff) return IP_INVALID_SOURCE;
  if ((p.s0 | p.s1 | p.s2) === 0 && p.s3 === 0x01000000) return IP_INVALID_SOURCE;
  if ((p.d0 | p.d1 | p.d2) === 0 && (p.d3 === 0x01000000 || p.d3 === 0)) return IP_INVALID_DEST;
  // RFC 4291 §2.7: scope 0 is reserved, scope 1 never leaves a node.
  if ((p.d0 & 0xff) === 0xff && ((p.d0 >> 8) & 15) <= 1) return IP_INVALID_DEST;

  let proto = u8[l3 + 6];
  let protoAt = l3 + 6;
  let at = l3 + 40;
  const end = p.end;
  for (let headers = 0; ; headers++) {
    let length = 0;
    if (proto === HOP_BY_HOP || proto === ROUTING || proto === DESTINATION || proto === MOBILITY) {
      if (end - at < 8 || end - at < (length = (u8[at + 1] + 1) << 3)) return chainBroken(p);
      if (proto === MOBILITY) break;
      if (proto === DESTINATION) p.homeAt = homeAddressAt(u8, at + 2, at + length) || p.homeAt;
      if (proto === HOP_BY_HOP) {
        // RFC 8200 §4.1: only directly behind the fixed header.
        if (at !== l3 + 40) return parameterProblem(p, 1, protoAt - l3, IPV6_CHAIN);
        const reason = checkHopByHop(p, u8, at + 2, at + length);
        if (reason !== 0) return reason;
      } else if (proto === ROUTING && u8[at + 3] === 0) {
        if (u8[at + 2] === 0) p.chain |= CHAIN_ROUTING0;
      } else if (proto === ROUTING) {
        if (u8[at + 2] === 0) return parameterProblem(p, 0, at + 2 - l3, IPV6_RH0);
        // Checksums cover the final destination, which only the routing type knows (RFC 8200 §8.1): not ours to judge.
        p.flags |= FRAME_DATA_VALID;
      }
    } else if (proto === AH) {
      if (end - at < 12 || end - at < (length = (u8[at + 1] + 2) << 2)) return chainBroken(p);
      p.chain |= CHAIN_AH;
    } else if (proto === FRAGMENT) {
      if (end - at < 8) return chainBroken(p);
      length = 8;
      p.fragOffset = ((u8[at + 2] << 8) | u8[at + 3]) & 0xfff8;
      p.fragMore = u8[at + 3] & 1;
      p.fragId = i32[(at + 4) >> 2];
      p.fragHeader = at;
      // An atomic fragment (RFC 6946) is handled like a whole packet.
      if ((p.fragOffset | p.fragMore) !== 0) p.isFragment = 1;
    } else break;
    if (headers >= MAX_EXTENSION_HEADERS) return IPV6_CHAIN;
    p.hasOptions = 1;
    proto = u8[at];
    protoAt = at;
    at += length;
    if (p.fragOffset !== 0 && p.isFragment !== 0) break;
  }
  p.proto = proto;
  p.protoAt = protoAt;
  p.l4 = at;
  if (proto === NO_NEXT_HEADER || p.fragOffset !== 0) return 0;
  if (p.isFragment !== 0) return end - at < minimumHeader(proto) ? FRAG_TINY : 0;
  return parseTransport(p, frames);
}

/** A chain that does not fit the packet; in a first fragment that is RFC 7112's case, Parameter Problem code 3. */
function chainBroken(p: Packet): number {
  if (p.isFragment !== 0) {
    p.errorType = ICMPV6_PARAMETER_PROBLEM;
    p.errorCode = 3;
    p.errorParam = 0;
    return FRAG_TINY;
  }
  return IPV6_CHAIN;
}

function parameterProblem(p: Packet, code: number, pointer: number, reason: number): number {
  p.errorType = ICMPV6_PARAMETER_PROBLEM;
  p.errorCode = code;
  p.errorParam = pointer;
  return reason;
}

/** Hop-by-Hop options: well formed, and the unknown ones say themselves what to do (RFC 8200 §4.2). */
function checkHopByHop(p: Packet, u8: Uint8Array, from: number, to: number): number {
  for (let at = from; at < to; ) {
    const type = u8[at];
    if (type === 0) {
      at++;
      continue;
    }
    if (at + 1 >= to || at + 2 + u8[at + 1] > to) return IPV6_CHAIN;
    if (type !== 1 && type !== 5 && type >> 6 !== 0) {
      if (type >> 6 === 1) return IPV6_CHAIN;
      if (type >> 6 === 3 && (p.d0 & 0xff) === 0xff) return IPV6_CHAIN;
      return parameterProblem(p, 2, at - p.l3, IPV6_CHAIN);
    }
    at += 2 + u8[at + 1];
  }
  return 0;
}

/** Offset of the address in a Home Address option (RFC 6275 §6.3); 0: there is none, or the options are not well formed. */
function homeAddressAt(u8: Uint8Array, from: number, to: number): number {
  for (let at = from; at + 1 < to; ) {
    if (u8[at] === 0) {
      at++;
      continue;
    }
    const length = u8[at + 1];
    if (u8[at] === HOME_ADDRESS) return length === 16 && at + 18 <= to ? at + 2 : 0;
    at += 2 + length;
  }
  return 0;
}

/** Bytes of transport header that must be there for the protocol to be told apart from garbage. */
export function minimumHeader(proto: number): number {
  switch (proto) {
    case TCP:
      return 20;
    case UDP:
    case UDPLITE:
    case ICMP:
    case ICMPV6:
    case ESP:
      return 8;
    case SCTP:
    case DCCP:
      return 12;
    case GRE:
      return 4;
    default:
      return 0;
  }
}

/**
 * ip-sanity: reads ports and flags of a datagram that is whole, checks the transport header's lengths and checksum.
 * Also called after reassembly.
 */
export function parseTransport(p: Packet, frames: Frames): number {
  const u8 = frames.u8;
  const l4 = p.l4;
  const room = p.end - l4;
  const proto = p.proto;
  p.rports = 0;
  if (room < minimumHeader(proto)) return L4_TRUNCATED;
  let ports = 0;
  switch (proto) {
    case TCP: {
      const offset = (u8[l4 + 12] >> 4) << 2;
      if (offset < 20 || offset > room) return L4_TRUNCATED;
      p.tcpFlags = u8[l4 + 13];
      if (p.gsoType === 0 && !checksumRight(p, frames, room)) return TCP_CSUM;
      ports = frames.i32[l4 >> 2];
      break;
    }
    case UDP: {
      const length = (u8[l4 + 4] << 8) | u8[l4 + 5];
      if (length > room || length < 8) return L4_TRUNCATED;
      // RFC 768: zero says "no checksum"; over IPv6 it is carried as it is (RFC 6936), as Linux does.
      if (p.gsoType === 0 && (u8[l4 + 6] | u8[l4 + 7]) !== 0 && !checksumRight(p, frames, length)) return UDP_CSUM;
      ports = frames.i32[l4 >> 2];
      break;
    }
    case SCTP:
    case UDPLITE:
    case DCCP:
      ports = frames.i32[l4 >> 2];
      break;
    case GRE:
      ports = grePorts(u8, l4, p.end);
      break;
    case ICMP:
      if (p.family !== 4) break;
      if ((p.flags & FRAME_DATA_VALID) === 0 && fold(sumRange(frames.u16, frames.i32, u8, l4, p.end, 0)) !== 0xffff)
        return ICMP_CSUM;
      ports = u8[l4 + 4] | (u8[l4 + 5] << 8) | (u8[l4] << 16) | (u8[l4 + 1] << 24);
      break;
    case ICMPV6:
      if (p.family !== 6) break;
      if (!checksumRight(p, frames, room)) return ICMP_CSUM;
      ports = u8[l4 + 4] | (u8[l4 + 5] << 8) | (u8[l4] << 16) | (u8[l4 + 1] << 24);
      break;
  }
  if (p.gsoType !== 0 && ((proto !== TCP && proto !== UDP) || p.gsoSize === 0)) return GSO_MALFORMED;
  p.ports = p.rports = ports;
  return 0;
}

/** Whether the checksum over pseudo-header and `length` bytes of transport is right, or vouched for. */
function checksumRight(p: Packet, frames: Frames, length: number): boolean {
  if ((p.flags & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID)) !== 0) return true;
  let sum = pseudoHeader(p, length);
  if (p.homeAt !== 0) {
    // RFC 6275 §6.3: the pseudo-header has the home address, not the care-of address that the packet is from.
    const u8 = frames.u8;
    sum -= halves(p.rs0) + halves(p.rs1) + halves(p.rs2) + halves(p.rs3);
    for (let at = p.homeAt; at < p.homeAt + 16; at += 2) sum += u8[at] | (u8[at + 1] << 8);
  }
  return fold(sumRange(frames.u16, frames.i32, frames.u8, p.l4, p.l4 + length, sum)) === 0xffff;
}

/** Sum of the pseudo-header of the received addresses (RFC 793 §3.1, RFC 8200 §8.1); not folded, below 2^21. */
export function pseudoHeader(p: Packet, length: number): number {
  // Length and protocol are big-endian halves on the wire: their raw form is byte-swapped.
  let sum = ((length & 0xff) << 8) + (length >> 8) + (p.proto << 8) + halves(p.rs0) + halves(p.rd0);
  if (p.family === 6) {
    sum += halves(p.rs1) + halves(p.rs2) + halves(p.rs3) + halves(p.rd1) + halves(p.rd2) + halves(p.rd3);
  }
  return sum;
}
