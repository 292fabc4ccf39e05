/**
 * The Internet checksum: RFC 1071 (computing it), RFC 1624 (updating it), and the pseudo-headers of RFC 9293 §3.1 and
 * RFC 8200 §8.1.
 *
 * Everything works on raw little-endian words. RFC 1071 §2 (B): the one's complement sum does not depend on byte order,
 * as long as the words are loaded and the result stored the same way. So no sum, delta or checksum here is ever
 * swapped, and all of them may be added to each other.
 *
 *   sum      one's complement sum, folded to 16 bits or on its way there; sums add with `fold(a + b)`
 *   delta    the sum ~old + new of what changed; deltas add like sums
 *   check    what the checksum field holds: ~sum
 *
 * A verified datagram sums to 0xffff including its checksum field. The two zeros: fold gives 0 only when every word
 * was 0, so a datagram with any bit set never has 0xffff in its checksum field, except UDP, which sends it in place of
 * 0 (RFC 768).
 *
 * Not here: CRC32c of SCTP, and knowledge of any header: the protocol files know where their fields are.
 */
import { swap16 } from './bytes.ts';

/** Folds a sum of less than 2^32 to 16 bits with end-around carry. */
export function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/**
 * Folded sum of bytes [from, to) plus `initial` (folded or any sum below 2^31). Any alignment and any length up to
 * 64 KiB; an odd last byte counts as if a zero followed (RFC 1071 §4.1). Slow and simple: for headers and control
 * packets.
 */
export function sum16(u8: Uint8Array, from: number, to: number, initial = 0): number {
  let sum = fold(initial);
  let at = from;
  for (; at + 1 < to; at += 2) sum += u8[at] | (u8[at + 1] << 8);
  if (at < to) sum += u8[at];
  return fold(sum);
}

/** Like sum16 for an even `from` and `to`: one load a word. `u16` and the offsets are of the same buffer. */
export function checksumWords(u16: Uint16Array, from: number, to: number, initial: number): number {
  let sum = fold(initial);
  const end = to >> 1;
  for (let n = from >> 1; n < end; n++) sum += u16[n];
  return fold(sum);
}

/**
 * Like sum16 for a `from` that is a multiple of 4, any `to`: the packet path's own. Two lanes of 16 bits in one int32
 * load, four loads a turn; twice the speed of 16-bit loads. `i32` and `u8` view the same buffer. Up to 64 KiB.
 */
export function checksumAligned(i32: Int32Array, u8: Uint8Array, from: number, to: number, initial: number): number {
  let low = fold(initial);
  let high = 0;
  let n = from >> 2;
  const end = to >> 2;
  // A lane takes at most 16384 words of 65535 each: below 2^31.
  for (; n + 4 <= end; n += 4) {
    const a = i32[n];
    const b = i32[n + 1];
    const c = i32[n + 2];
    const d = i32[n + 3];
    low = (low + (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff)) | 0;
    high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
  }
  for (; n < end; n++) {
    const a = i32[n];
    low = (low + (a & 0xffff)) | 0;
    high = (high + (a >>> 16)) | 0;
  }
  let at = end << 2;
  if (at + 1 < to) {
    low += u8[at] | (u8[at + 1] << 8);
    at += 2;
  }
  if (at < to) low += u8[at];
  return fold(fold(low) + fold(high));
}

/** The two halves of a raw word, added: at most 17 bits. */
export function sumWord(word: number): number {
  return (word & 0xffff) + (word >>> 16);
}

/** Sum of the IPv4 pseudo-header: raw addresses; protocol and length (TCP or UDP header and payload) as host integers. */
export function pseudo4(src: number, dst: number, proto: number, length: number): number {
  return fold(sumWord(src) + sumWord(dst) + (proto << 8) + swap16(length));
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
  return fold(
    sumWord(s0) +
      sumWord(s1) +
      sumWord(s2) +
      sumWord(s3) +
      sumWord(d0) +
      sumWord(d1) +
      sumWord(d2) +
      sumWord(d3) +
      (next << 8) +
      swap16(length) +
      swap16(length >>> 16),
  );
}

/** The checksum field for a sum (raw, to be stored as it is). */
export function complement(sum: number): number {
  return ~fold(sum) & 0xffff;
}

/** Delta of a raw word (16 or 32 bits) that changed; folded. Several changes: `fold(a + b)` of their deltas. */
export function checksumDelta(oldWord: number, newWord: number): number {
  return fold(sumWord(~oldWord) + sumWord(newWord));
}

/** RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m'). `check` is the raw field, `delta` folded. */
export function applyDelta(check: number, delta: number): number {
  return ~fold((~check & 0xffff) + delta) & 0xffff;
}

/**
 * applyDelta for UDP: 0 (no checksum) stays 0, and a result of 0 is sent as all ones (RFC 768). In IPv6 a 0 is
 * forwarded as it is too.
 */
export function applyDeltaUdp(check: number, delta: number): number {
  if (check === 0) return 0;
  const result = ~fold((~check & 0xffff) + delta) & 0xffff;
  return result === 0 ? 0xffff : result;
}

/**
 * For a partial checksum (virtio NEEDS_CSUM): the field holds the pseudo-header's sum, not its complement, so only a
 * delta of the addresses may be applied, and it is added.
 */
export function applyDeltaPartial(sum: number, delta: number): number {
  return fold(sum + delta);
}
