/**
 * IPv4 header (RFC 791; RFC 2474 and 3168 for the second byte).
 *
 *    0       1      2        4     6               8     9       10         12       16       20
 *   | ver ihl | tos | length | id | flags, offset | ttl | proto | checksum | source | dest.  | options ...
 *
 * `check` once, then the accessors trust. Addresses and the identification are raw; everything else host integers.
 * Not here: options' contents, fragments' reassembly, and what RFC 1812 forbids in addresses (the path's ip-sanity).
 */
import { formatIpv4 } from './address.ts';
import { be16, raw16, raw32, setBe16, setRaw16, setRaw32 } from './bytes.ts';
import { complement, sum16 } from './checksum.ts';

export const TOS = 1;
export const TOTAL_LENGTH = 2;
export const ID = 4;
export const FRAGMENT = 6;
export const TTL = 8;
export const PROTO = 9;
export const CHECKSUM = 10;
export const SRC = 12;
export const DST = 16;
export const HEADER = 20;

/** Bits of the 16-bit word at FRAGMENT, host order; the low 13 are the offset in units of 8 bytes. */
export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;
export const OFFSET_MASK = 0x1fff;

export const PROTO_ICMP = 1;
export const PROTO_TCP = 6;
export const PROTO_UDP = 17;
export const PROTO_GRE = 47;
export const PROTO_SCTP = 132;

/** True when version, header length and total length are consistent with each other and with `len` bytes. */
export function check(u8: Uint8Array, off: number, len: number): boolean {
  if (len < HEADER || u8[off] >> 4 !== 4) return false;
  const header = headerLength(u8, off);
  const total = totalLength(u8, off);
  return header >= HEADER && header <= total && total <= len;
}

/** Bytes, options included. */
export function headerLength(u8: Uint8Array, off: number): number {
  return (u8[off] & 0x0f) << 2;
}

/** DSCP and ECN. */
export function tos(u8: Uint8Array, off: number): number {
  return u8[off + TOS];
}

export function totalLength(u8: Uint8Array, off: number): number {
  return be16(u8, off + TOTAL_LENGTH);
}

/** Identification, raw. */
export function id(u8: Uint8Array, off: number): number {
  return raw16(u8, off + ID);
}

/** Flags and offset as one word: DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET_MASK. */
export function fragmentWord(u8: Uint8Array, off: number): number {
  return be16(u8, off + FRAGMENT);
}

/** Where this fragment's payload belongs, bytes. */
export function fragmentOffset(u8: Uint8Array, off: number): number {
  return (be16(u8, off + FRAGMENT) & OFFSET_MASK) << 3;
}

/** True when this is a part of a datagram: more follow, or the offset is not 0. */
export function isFragment(u8: Uint8Array, off: number): boolean {
  return (be16(u8, off + FRAGMENT) & (MORE_FRAGMENTS | OFFSET_MASK)) !== 0;
}

export function ttl(u8: Uint8Array, off: number): number {
  return u8[off + TTL];
}

export function proto(u8: Uint8Array, off: number): number {
  return u8[off + PROTO];
}

/** Source address, raw. */
export function src(u8: Uint8Array, off: number): number {
  return raw32(u8, off + SRC);
}

/** Destination address, raw. */
export function dst(u8: Uint8Array, off: number): number {
  return raw32(u8, off + DST);
}

/** True when the header checksum is right (RFC 1812 §5.2.2 asks for it). */
export function checksumOk(u8: Uint8Array, off: number): boolean {
  return sum16(u8, off, off + headerLength(u8, off)) === 0xffff;
}

/** Computes and stores the header checksum. */
export function finish(u8: Uint8Array, off: number): void {
  setRaw16(u8, off + CHECKSUM, 0);
  setRaw16(u8, off + CHECKSUM, complement(sum16(u8, off, off + headerLength(u8, off))));
}

/**
 * Writes a header without options, checksum included. `identification` and addresses raw; `fragment` is the word of
 * flags and offset (host order); `length` is the total length in bytes.
 */
export function emit(
  u8: Uint8Array,
  off: number,
  tosByte: number,
  length: number,
  identification: number,
  fragment: number,
  ttlByte: number,
  protocol: number,
  source: number,
  destination: number,
): void {
  u8[off] = 0x45;
  u8[off + TOS] = tosByte;
  setBe16(u8, off + TOTAL_LENGTH, length);
  setRaw16(u8, off + ID, identification);
  setBe16(u8, off + FRAGMENT, fragment);
  u8[off + TTL] = ttlByte;
  u8[off + PROTO] = protocol;
  setRaw32(u8, off + SRC, source);
  setRaw32(u8, off + DST, destination);
  finish(u8, off);
}

/** 224.0.0.0/4 (RFC 5771). Takes a raw address. */
export function isMulticast(address: number): boolean {
  return (address & 0xf0) === 0xe0;
}

/** An address that one host can have: not 0/8, 127/8, 224/4 or 240/4 (RFC 1122 §3.2.1.3). Takes a raw address. */
export function isUnicast(address: number): boolean {
  const first = address & 0xff;
  return first !== 0 && first !== 127 && first < 224;
}

/** `10.0.0.1 > 10.0.0.2 proto 17 ttl 64 length 28`. */
export function text(u8: Uint8Array, off: number): string {
  const way = `${formatIpv4(src(u8, off))} > ${formatIpv4(dst(u8, off))}`;
  return `${way} proto ${proto(u8, off)} ttl ${ttl(u8, off)} length ${totalLength(u8, off)}`;
}
