/**
 * IPv6 header and the walk over its extension headers (RFC 8200; RFC 7045 for which headers a router knows).
 *
 *    0                       4                6      7           8        24            40
 *   | ver, class, flow label | payload length | next | hop limit | source | destination | next header ...
 *
 * Addresses are raw words; everything else host integers.
 * Not here: options inside Hop-by-Hop and Destination headers, reassembly, jumbograms (a payload length of 0 means 0).
 */
import { formatIpv6 } from './address.ts';
import { be16, be32, raw32, setBe16, setBe32, setRaw32 } from './bytes.ts';

export const PAYLOAD_LENGTH = 4;
export const NEXT = 6;
export const HOP_LIMIT = 7;
export const SRC = 8;
export const DST = 24;
export const HEADER = 40;

export const HOP_BY_HOP = 0;
export const ROUTING = 43;
export const FRAGMENT = 44;
export const AUTHENTICATION = 51;
export const NO_NEXT = 59;
export const DESTINATION = 60;
export const MOBILITY = 135;
export const PROTO_ICMPV6 = 58;

/** More headers than this in one packet: nobody sends that, and a walk must end (RFC 8504 §5.3 allows a limit). */
export const MAX_EXTENSIONS = 8;

/** True when the version is 6 and the payload length fits into `len` bytes. */
export function check(u8: Uint8Array, off: number, len: number): boolean {
  return len >= HEADER && u8[off] >> 4 === 6 && HEADER + payloadLength(u8, off) <= len;
}

export function trafficClass(u8: Uint8Array, off: number): number {
  return (be16(u8, off) >> 4) & 0xff;
}

export function flowLabel(u8: Uint8Array, off: number): number {
  return be32(u8, off) & 0xfffff;
}

export function payloadLength(u8: Uint8Array, off: number): number {
  return be16(u8, off + PAYLOAD_LENGTH);
}

export function next(u8: Uint8Array, off: number): number {
  return u8[off + NEXT];
}

export function hopLimit(u8: Uint8Array, off: number): number {
  return u8[off + HOP_LIMIT];
}

/** Word n (0–3) of the source address, raw. */
export function src(u8: Uint8Array, off: number, n: number): number {
  return raw32(u8, off + SRC + 4 * n);
}

/** Word n (0–3) of the destination address, raw. */
export function dst(u8: Uint8Array, off: number, n: number): number {
  return raw32(u8, off + DST + 4 * n);
}

/** Writes the first 8 bytes; the addresses follow with setAddress. `length` is the payload's. */
export function emit(
  u8: Uint8Array,
  off: number,
  trafficClassByte: number,
  flow: number,
  length: number,
  nextHeader: number,
  hops: number,
): void {
  setBe32(u8, off, (6 << 28) | (trafficClassByte << 20) | flow);
  setBe16(u8, off + PAYLOAD_LENGTH, length);
  u8[off + NEXT] = nextHeader;
  u8[off + HOP_LIMIT] = hops;
}

/** Writes four raw words of an address at `at` (for example off + SRC). */
export function setAddress(u8: Uint8Array, at: number, w0: number, w1: number, w2: number, w3: number): void {
  setRaw32(u8, at, w0);
  setRaw32(u8, at + 4, w1);
  setRaw32(u8, at + 8, w2);
  setRaw32(u8, at + 12, w3);
}

/** ff00::/8. Takes word 0. */
export function isMulticast(w0: number): boolean {
  return (w0 & 0xff) === 0xff;
}

/** fe80::/10. Takes word 0. */
export function isLinkLocal(w0: number): boolean {
  return (w0 & 0xc0ff) === 0x80fe;
}

export function isUnspecified(w0: number, w1: number, w2: number, w3: number): boolean {
  return (w0 | w1 | w2 | w3) === 0;
}

/** ::1. */
export function isLoopback(w0: number, w1: number, w2: number, w3: number): boolean {
  return (w0 | w1 | w2) === 0 && w3 === 0x01000000;
}

/** ff02::1:ff00:0/104, where an address listens for solicitations (RFC 4291 §2.7.1). */
export function isSolicitedNode(w0: number, w1: number, w2: number, w3: number): boolean {
  return w0 === 0x02ff && w1 === 0 && w2 === 0x01000000 && (w3 & 0xff) === 0xff;
}

/** What `walk` found; the caller owns it and uses it again. */
export interface Upper {
  /** Next-header value that ended the walk: the transport protocol, or FRAGMENT for a fragment that is not the first. */
  proto: number;
  /** Absolute offset of the byte that named it (where an ICMPv6 parameter problem points), and of the header itself. */
  protoAt: number;
  at: number;
  /** Absolute offset of the fragment header; 0 when there is none. */
  fragment: number;
}

export function newUpper(): Upper {
  return { proto: 0, protoAt: 0, at: 0, fragment: 0 };
}

/**
 * Walks the extension headers of the packet at `off` that ends at `end` (absolute). False when a header is cut short or
 * there are more than MAX_EXTENSIONS. A first fragment is walked through; a later one ends at its fragment header,
 * since what follows is payload. ESP and unknown protocols end the walk too: they are the "transport".
 */
export function walk(u8: Uint8Array, off: number, end: number, upper: Upper): boolean {
  let at = off + HEADER;
  upper.proto = u8[off + NEXT];
  upper.protoAt = off + NEXT;
  upper.fragment = 0;
  for (let headers = 0; headers <= MAX_EXTENSIONS; headers++) {
    const proto = upper.proto;
    upper.at = at;
    if (
      proto !== HOP_BY_HOP &&
      proto !== ROUTING &&
      proto !== DESTINATION &&
      proto !== AUTHENTICATION &&
      proto !== FRAGMENT &&
      proto !== MOBILITY
    )
      return true;
    if (at + 8 > end) return false;
    let length = 8;
    if (proto === FRAGMENT) {
      upper.fragment = at;
      if ((be16(u8, at + 2) & 0xfff8) !== 0) return true;
    } else {
      // RFC 4302 §2.2: the authentication header counts in 4-byte units, minus 2; the others in 8-byte units, minus 1.
      length = proto === AUTHENTICATION ? (u8[at + 1] + 2) << 2 : (u8[at + 1] + 1) << 3;
      // RFC 6275 §6.1.1: nothing follows a mobility header; it is the upper layer when it says so.
      if (proto === MOBILITY && u8[at] === NO_NEXT) return at + length <= end;
    }
    if (at + length > end) return false;
    upper.proto = u8[at];
    upper.protoAt = at;
    at += length;
  }
  return false;
}

/** `2001:db8::1 > 2001:db8::2 next 58 hop 64 length 16`. */
export function text(u8: Uint8Array, off: number): string {
  const from = formatIpv6(src(u8, off, 0), src(u8, off, 1), src(u8, off, 2), src(u8, off, 3));
  const to = formatIpv6(dst(u8, off, 0), dst(u8, off, 1), dst(u8, off, 2), dst(u8, off, 3));
  return `${from} > ${to} next ${next(u8, off)} hop ${hopLimit(u8, off)} length ${payloadLength(u8, off)}`;
}
