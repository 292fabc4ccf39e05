/**
 * The Internet checksum of headers and control packets: RFC 1071, and the pseudo-headers of RFC 9293 §3.1 and RFC 8200 §8.1.
 *
 * Built on sum.ts, which has the arithmetic (folding, updating after RFC 1624) and the path's fast sum over frame memory.
 * Here is what does not care how its bytes lie. Everything is raw little-endian words, never swapped: see sum.ts.
 *
 *   sum      one's complement sum, folded to 16 bits or on its way there; sums add with `fold(a + b)`
 *   check    what the checksum field holds: ~sum
 *
 * A verified datagram sums to 0xffff including its checksum field. The two zeros: fold gives 0 only when every word
 * was 0, so a datagram with any bit set never has 0xffff in its checksum field, except UDP, which sends it in place of
 * 0 (RFC 768).
 *
 * Not here: CRC32c of SCTP, and knowledge of any header: the protocol files know where their fields are.
 */
import { swap16 } from './bytes.ts';
import { fold, halves } from './sum.ts';

export { fold } from './sum.ts';

/**
 * Folded sum of bytes [from, to) plus `initial` (folded or any sum below 2^31). Any alignment and any length up to
 * 64 KiB; an odd last byte counts as if a zero followed (RFC 1071 §4.1). Slow and simple.
 */
export function sum16(u8: Uint8Array, from: number, to: number, initial = 0): number {
  let sum = fold(initial);
  let at = from;
  for (; at + 1 < to; at += 2) sum += u8[at] | (u8[at + 1] << 8);
  if (at < to) sum += u8[at];
  return fold(sum);
}

/** Sum of the IPv4 pseudo-header: raw addresses; protocol and length (TCP or UDP header and payload) as host integers. */
export function pseudo4(src: number, dst: number, proto: number, length: number): number {
  return fold(halves(src) + halves(dst) + (proto << 8) + swap16(length));
}

/** Sum of the IPv6 pseudo-header (RFC 8200 §8.1): raw address words; next header and upper-layer length host integers. */
export function pseudo6(
  s0: number,
  s1: number,
  s2: number,
  s3: number,
  d0: number,
  d1: number,
  d2: number,
  d3: number,
  next: number,
  length: number,
): number {
  const addresses =
    halves(s0) + halves(s1) + halves(s2) + halves(s3) + halves(d0) + halves(d1) + halves(d2) + halves(d3);
  return fold(addresses + (next << 8) + swap16(length) + swap16(length >>> 16));
}

/** The checksum field for a sum (raw, to be stored as it is). */
export function complement(sum: number): number {
  return ~fold(sum) & 0xffff;
}
