/**
 * NPTv6 (RFC 6296): one IPv6 prefix becomes another of the same length, host by host, without state of its own and without
 * a change to any transport checksum.
 *
 * The difference of the prefixes' sums is taken out of one 16-bit word of the address: the subnet's (bits 48 to 63) when the
 * prefix is /48 or shorter (§3.4), else the first word of the interface identifier that is not all ones (§3.5). An
 * address whose word would be all ones cannot be translated (§3.4).
 *
 * One's complement sums come out the same whichever way the bytes lie, so all of this works on raw halves.
 */

/** Sum of the eight halves of a prefix, folded. */
function prefixSum(words: ArrayLike<number>, at: number): number {
  let sum = 0;
  for (let n = 0; n < 4; n++) sum += (words[at + n] & 0xffff) + (words[at + n] >>> 16);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** What must be added to an address's word when the prefix at `from` becomes that at `to`: a raw half. */
export function adjustment(words: ArrayLike<number>, from: number, to: number): number {
  let sum = prefixSum(words, from) + (~prefixSum(words, to) & 0xffff);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** Raw mask of word `n` (0 to 3) of a prefix. */
export function maskWord(length: number, n: number): number {
  const bits = length - 32 * n;
  if (bits >= 32) return -1;
  if (bits <= 0) return 0;
  const mask = -1 << (32 - bits);
  return (mask >>> 24) | ((mask >>> 8) & 0xff00) | ((mask << 8) & 0xff0000) | (mask << 24);
}

/** True when the address at `a[at]` … `a[at + 3]` has the prefix at `words[prefix]` …. */
export function hasPrefix(a: Int32Array, at: number, words: Int32Array, prefix: number, length: number): boolean {
  for (let n = 0; n < 4; n++) if (((a[at + n] ^ words[prefix + n]) & maskWord(length, n)) !== 0) return false;
  return true;
}

/**
 * Rewrites the address at `a[at]` …, which has the prefix at `words[from]`, to have that at `words[to]`. False when this
 * address has no translation; then it is unchanged.
 */
export function translate(
  a: Int32Array,
  at: number,
  words: Int32Array,
  from: number,
  to: number,
  length: number,
): boolean {
  // Halves are numbered 0 to 7 in the order of the wire: half h is in word h >> 1, low for even h.
  let half = 3;
  if (length > 48) for (half = 4; half < 8 && halfOf(a, at, half) === 0xffff; half++);
  if (half === 8 || halfOf(a, at, half) === 0xffff) return false;
  const add = adjustment(words, from, to);
  for (let n = 0; n < 4; n++) {
    const mask = maskWord(length, n);
    a[at + n] = (a[at + n] & ~mask) | (words[to + n] & mask);
  }
  let value = halfOf(a, at, half) + add;
  value = (value & 0xffff) + (value >>> 16);
  // §3.4: all ones is written as zero, which is the same number and has one way back.
  if (value === 0xffff) value = 0;
  const shift = (half & 1) << 4;
  a[at + (half >> 1)] = (a[at + (half >> 1)] & ~(0xffff << shift)) | (value << shift);
  return true;
}

function halfOf(a: Int32Array, at: number, half: number): number {
  return (a[at + (half >> 1)] >>> ((half & 1) << 4)) & 0xffff;
}
