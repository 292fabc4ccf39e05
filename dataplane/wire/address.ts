/**
 * Addresses: text to raw words and back, for IPv4, IPv6, MAC and CIDR.
 *
 * A raw word is what a little-endian int32 load of the wire's bytes gives: 192.168.1.1 is c0 a8 01 01 on the wire and
 * 0x0101a8c0 here. An IPv4 address is the first of four words, the others are 0; an IPv6 address is all four. A MAC is
 * two words: the first four bytes, and the last two in the low half. Words are signed; nothing here swaps them.
 *
 * Input: dotted decimal with exactly four parts and no leading zero (RFC 6943 §3.1.1 calls the other spellings
 * "loose"; `01.2.3.4` is octal to some and decimal to others), RFC 4291 §2.2 with `::` and embedded IPv4. Output of
 * IPv6: RFC 5952. Parsers return null for anything else and never throw.
 *
 * Not here: scoped addresses (`fe80::1%wan`, RFC 4007), names, classful or hexadecimal IPv4. For people, not for the
 * packet path: these functions allocate.
 */
import { swap16 } from './bytes.ts';

export type Family = 4 | 6;

/** Four raw words. IPv4: the address in word 0, zeros behind it. */
export type Words = readonly [number, number, number, number];

export interface Address {
  family: Family;
  words: Words;
}

/** An address and a prefix length; host bits are kept as they were written. */
export interface Cidr extends Address {
  prefixLength: number;
}

/** A MAC address: `lo` the first four bytes, `hi` the last two, raw. */
export interface Mac {
  lo: number;
  hi: number;
}

/** Bits in an address of the family. */
export function addressBits(family: Family): number {
  return family === 4 ? 32 : 128;
}

/** Dotted decimal to a raw word, or null. Exactly four decimal parts of 0–255, no leading zeros. */
export function parseIpv4(text: string): number | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return null;
  let word = 0;
  for (let n = 0; n < 4; n++) {
    const part = match[n + 1];
    if (part.length > 1 && part[0] === '0') return null;
    const byte = Number(part);
    if (byte > 255) return null;
    word |= byte << (8 * n);
  }
  return word;
}

/** RFC 4291 §2.2 text (all three forms) to four raw words, or null. */
export function parseIpv6(text: string): Words | null {
  // The longest form is 8 × "ffff:" less one colon with an embedded IPv4: 45 characters.
  if (text.length > 45 || !/^[0-9a-fA-F:.]*$/.test(text)) return null;
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const head = groupsOf(halves[0], halves.length === 1);
  if (head === null) return null;
  let groups = head;
  if (halves.length === 2) {
    const tail = groupsOf(halves[1], true);
    if (tail === null) return null;
    // §2.2: "::" indicates one or more groups of zeros.
    const zeros = 8 - head.length - tail.length;
    if (zeros < 1) return null;
    groups = [...head, ...new Array<number>(zeros).fill(0), ...tail];
  }
  if (groups.length !== 8) return null;
  return [pair(groups, 0), pair(groups, 2), pair(groups, 4), pair(groups, 6)];
}

/** The 16-bit groups of one side of a `::`; a dotted quad may stand at the end of the address only. */
function groupsOf(text: string, atEnd: boolean): number[] | null {
  if (text === '') return [];
  const parts = text.split(':');
  const groups: number[] = [];
  for (let n = 0; n < parts.length; n++) {
    const part = parts[n];
    if (part.includes('.')) {
      if (!atEnd || n !== parts.length - 1) return null;
      const word = parseIpv4(part);
      if (word === null) return null;
      groups.push(((word & 0xff) << 8) | ((word >> 8) & 0xff), ((word >> 8) & 0xff00) | (word >>> 24));
    } else {
      if (part.length < 1 || part.length > 4) return null;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}

/** Two host-order groups as one raw word. */
function pair(groups: readonly number[], n: number): number {
  return swap16(groups[n]) | (swap16(groups[n + 1]) << 16);
}

/** An IPv4 or IPv6 address, or null. */
export function parseAddress(text: string): Address | null {
  const word = parseIpv4(text);
  if (word !== null) return { family: 4, words: [word, 0, 0, 0] };
  const words = parseIpv6(text);
  return words === null ? null : { family: 6, words };
}

/** `ADDRESS/LENGTH`, or null. Host bits are kept: mask with `maskWords` for the prefix. The length must be there. */
export function parseCidr(text: string): Cidr | null {
  const slash = text.indexOf('/');
  if (slash < 0) return null;
  const length = text.slice(slash + 1);
  if (!/^(0|[1-9]\d{0,2})$/.test(length)) return null;
  const address = parseAddress(text.slice(0, slash));
  if (address === null || Number(length) > addressBits(address.family)) return null;
  return { family: address.family, words: address.words, prefixLength: Number(length) };
}

/** Six bytes in hexadecimal, two digits each, separated by `:` or by `-`; or null. */
export function parseMac(text: string): Mac | null {
  if (!/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(text) && !/^[0-9a-fA-F]{2}(-[0-9a-fA-F]{2}){5}$/.test(text))
    return null;
  let lo = 0;
  let hi = 0;
  for (let n = 0; n < 6; n++) {
    const byte = Number.parseInt(text.slice(n * 3, n * 3 + 2), 16);
    if (n < 4) lo |= byte << (8 * n);
    else hi |= byte << (8 * (n - 4));
  }
  return { lo, hi };
}

/** A raw word as dotted decimal. */
export function formatIpv4(word: number): string {
  return `${word & 0xff}.${(word >> 8) & 0xff}.${(word >> 16) & 0xff}.${word >>> 24}`;
}

/** Four raw words as RFC 5952 text. */
export function formatIpv6(w0: number, w1: number, w2: number, w3: number): string {
  // RFC 5952 §5: mixed notation where the prefix says that an IPv4 address is inside; here IPv4-mapped (::ffff:0:0/96).
  if (w0 === 0 && w1 === 0 && w2 === (0xffff0000 | 0)) return `::ffff:${formatIpv4(w3)}`;
  const groups: number[] = [];
  for (const word of [w0, w1, w2, w3]) groups.push(swap16(word & 0xffff), swap16(word >>> 16));
  // §4.2.2, §4.2.3: the longest run of zeros, the first of equals, never a single group.
  let best = -1;
  let bestLength = 1;
  for (let n = 0; n < 8; n++) {
    let length = 0;
    while (n + length < 8 && groups[n + length] === 0) length++;
    if (length > bestLength) {
      best = n;
      bestLength = length;
    }
    if (length > 0) n += length - 1;
  }
  // §4.1: no leading zeros; §4.3: lower case. toString(16) gives both.
  const text = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  return best < 0 ? text(0, 8) : `${text(0, best)}::${text(best + bestLength, 8)}`;
}

/** Raw words as text; IPv4 uses w0 only. */
export function formatAddress(family: number, w0: number, w1: number, w2: number, w3: number): string {
  return family === 4 ? formatIpv4(w0) : formatIpv6(w0, w1, w2, w3);
}

/** Raw words and a prefix length as `ADDRESS/LENGTH`; host bits are printed as they are. */
export function formatCidr(family: number, words: Words, prefixLength: number): string {
  return `${formatAddress(family, words[0], words[1], words[2], words[3])}/${prefixLength}`;
}

/** A MAC as six lower-case bytes with colons. */
export function formatMac(lo: number, hi: number): string {
  let text = '';
  for (let n = 0; n < 6; n++) {
    const byte = n < 4 ? (lo >> (8 * n)) & 0xff : (hi >> (8 * (n - 4))) & 0xff;
    text += (n === 0 ? '' : ':') + (byte < 16 ? '0' : '') + byte.toString(16);
  }
  return text;
}

/** The raw mask words of a prefix length: (4, 24) is [0x00ffffff, 0, 0, 0]. */
export function maskWords(family: Family, prefixLength: number): [number, number, number, number] {
  const words: [number, number, number, number] = [0, 0, 0, 0];
  const bits = Math.max(0, Math.min(prefixLength, addressBits(family)));
  for (let bit = 0; bit < bits; bit++) {
    // Bit 0 is the most significant bit of the first byte on the wire: bits 7, 6 … 0, then 15 … 8 of the raw word.
    words[bit >> 5] |= 1 << ((bit & 0x18) | (7 - (bit & 7)));
  }
  return words;
}

/** The prefix: words with all host bits cleared. */
export function networkWords(family: Family, words: Words, prefixLength: number): [number, number, number, number] {
  const mask = maskWords(family, prefixLength);
  return [words[0] & mask[0], words[1] & mask[1], words[2] & mask[2], words[3] & mask[3]];
}

/** True when the address (raw words) lies in the prefix; both must be of the prefix's family. */
export function inPrefix(words: Words, prefix: Cidr): boolean {
  const mask = maskWords(prefix.family, prefix.prefixLength);
  for (let n = 0; n < 4; n++) if (((words[n] ^ prefix.words[n]) & mask[n]) !== 0) return false;
  return true;
}

/** The address as it is on the wire: 4 or 16 bytes. */
export function addressBytes(family: number, words: Words): Uint8Array {
  const bytes = new Uint8Array(family === 4 ? 4 : 16);
  for (let n = 0; n < bytes.length; n++) bytes[n] = words[n >> 2] >> (8 * (n & 3));
  return bytes;
}

/** 4 or 16 bytes of the wire at `at` to raw words. The caller has checked the length. */
export function addressFromBytes(family: number, bytes: Uint8Array, at = 0): [number, number, number, number] {
  const words: [number, number, number, number] = [0, 0, 0, 0];
  for (let n = 0; n < (family === 4 ? 4 : 16); n++) words[n >> 2] |= bytes[at + n] << (8 * (n & 3));
  return words;
}

/** The six bytes of a MAC. */
export function macBytes(lo: number, hi: number): Uint8Array {
  const bytes = new Uint8Array(6);
  for (let n = 0; n < 6; n++) bytes[n] = n < 4 ? lo >> (8 * n) : hi >> (8 * (n - 4));
  return bytes;
}

/** Six bytes at `at` to a MAC's words. The caller has checked the length. */
export function macFromBytes(bytes: Uint8Array, at = 0): Mac {
  return {
    lo: bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24),
    hi: bytes[at + 4] | (bytes[at + 5] << 8),
  };
}
