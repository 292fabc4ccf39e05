/**
 * One’s complement arithmetic (RFC 1071, RFC 1624), and sums over frame memory in the fast form for the path.
 *
 * Sums are taken over raw little-endian halves: the one's complement sum does not depend on byte order (RFC 1071 §2.B),
 * so nothing is swapped; a result is stored as it is. `from` must be 2-aligned; all offsets are absolute bytes.
 */

/**
 * Sum of the 16-bit halves of bytes [from, to) plus `initial` (a folded or small sum). Not folded; stays below 2^31 for
 * up to 64 KiB. An odd last byte counts as the low half, as RFC 1071 pads with zero.
 */
export function sumRange(
  u16: Uint16Array,
  i32: Int32Array,
  u8: Uint8Array,
  from: number,
  to: number,
  initial: number,
): number {
  let low = initial;
  let high = 0;
  let at = from;
  if ((at & 2) !== 0 && at + 1 < to) {
    low += u16[at >> 1];
    at += 2;
  }
  for (const end = to - 15; at < end; at += 16) {
    const a = i32[at >> 2];
    const b = i32[(at >> 2) + 1];
    const c = i32[(at >> 2) + 2];
    const d = i32[(at >> 2) + 3];
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
  }
  for (const end = to - 3; at < end; at += 4) {
    const word = i32[at >> 2];
    low += word & 0xffff;
    high += word >>> 16;
  }
  if (at + 1 < to) {
    low += u16[at >> 1];
    at += 2;
  }
  if (at < to) low += u8[at];
  low = (low & 0xffff) + (low >>> 16);
  high = (high & 0xffff) + (high >>> 16);
  return low + high;
}

/** Folds a sum to 16 bits. */
export function fold(sum: number): number {
  let s = (sum & 0xffff) + (sum >>> 16);
  s = (s & 0xffff) + (s >>> 16);
  return s;
}

/** Sum of both halves of a raw word. */
export function halves(word: number): number {
  return (word & 0xffff) + (word >>> 16);
}

/**
 * What replacing raw word `before` by `after` adds to the sum of the data (RFC 1624: ~m + m'). To be added to the
 * complement of the checksum field; small (below 2^18), so that many can be added before folding.
 */
export function delta(before: number, after: number): number {
  return (~before & 0xffff) + (~before >>> 16) + (after & 0xffff) + (after >>> 16);
}

/** A checksum field after its data changed by `change` (a sum of deltas): HC' = ~(~HC + ~m + m'), RFC 1624 eq. 3. */
export function adjust(field: number, change: number): number {
  return ~fold((~field & 0xffff) + change) & 0xffff;
}
