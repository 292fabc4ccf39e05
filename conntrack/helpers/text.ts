/**
 * Text: reading and writing the text protocols' words, numbers and addresses, straight in frame memory.
 *
 * Every reader takes `[at, to)` as absolute offsets in `u8`, never looks outside, allocates nothing and is linear in what
 * it reads. A reader of something returns the offset behind it, or −1 when it is not there; what it read is in the
 * caller's words. Addresses are raw words (see wire/packet.ts): the first character's byte is the lowest.
 *
 * Writers put bytes at `at` of `out` and return the offset behind them; the caller has the room.
 *
 * Not here: what the text means. Names and host names are never resolved: an ALG acts on numbers only.
 */

export const TAB = 9;
export const LF = 10;
export const CR = 13;
export const SPACE = 32;
export const QUOTE = 34;
export const DOLLAR = 36;
export const OPEN_PAREN = 40;
export const COMMA = 44;
export const DASH = 45;
export const DOT = 46;
export const SLASH = 47;
export const ZERO = 48;
export const COLON = 58;
export const SEMICOLON = 59;
export const LESS = 60;
export const EQUALS = 61;
export const GREATER = 62;
export const AT = 64;
export const OPEN_BRACKET = 91;
export const CLOSE_BRACKET = 93;

/** A word to look for, as its lower-case bytes; made once, when a module loads. */
export function word(text: string): Uint8Array {
  return Uint8Array.from(text.toLowerCase(), (c) => c.charCodeAt(0));
}

export function isDigit(c: number): boolean {
  return c >= 48 && c <= 57;
}

/** ASCII letters only: the protocols' names are not localised. */
export function isAlpha(c: number): boolean {
  c |= 32;
  return c >= 97 && c <= 122;
}

/** The lower case of an ASCII byte. */
export function lower(c: number): number {
  return c >= 65 && c <= 90 ? c | 32 : c;
}

/** True when `w` (lower case, from `word`) stands at `at`, in any case. */
export function matches(u8: Uint8Array, at: number, to: number, w: Uint8Array): boolean {
  if (to - at < w.length) return false;
  for (let n = 0; n < w.length; n++) if (lower(u8[at + n]) !== w[n]) return false;
  return true;
}

/** Where `w` first stands in [at, to), in any case; −1 when nowhere. */
export function find(u8: Uint8Array, at: number, to: number, w: Uint8Array): number {
  for (const last = to - w.length; at <= last; at++) if (lower(u8[at]) === w[0] && matches(u8, at, to, w)) return at;
  return -1;
}

/** Offset of the first byte `c` in [at, to), or `to`. */
export function until(u8: Uint8Array, at: number, to: number, c: number): number {
  while (at < to && u8[at] !== c) at++;
  return at;
}

/** Offset of the first CR or LF in [at, to), or `to`. */
export function lineEnd(u8: Uint8Array, at: number, to: number): number {
  while (at < to && u8[at] !== CR && u8[at] !== LF) at++;
  return at;
}

/** Behind spaces and tabs. */
export function skipBlanks(u8: Uint8Array, at: number, to: number): number {
  while (at < to && (u8[at] === SPACE || u8[at] === TAB)) at++;
  return at;
}

/** Behind a run of decimal digits. */
export function skipDigits(u8: Uint8Array, at: number, to: number): number {
  while (at < to && isDigit(u8[at])) at++;
  return at;
}

/**
 * The decimal number whose digits begin at `at` (0 to `max`, which may be up to 2^53); −1 when there is no digit or the
 * number is larger. `skipDigits` gives its end.
 */
export function decimal(u8: Uint8Array, at: number, to: number, max: number): number {
  let value = -1;
  for (; at < to && isDigit(u8[at]); at++) {
    value = (value < 0 ? 0 : value) * 10 + (u8[at] - ZERO);
    if (value > max) return -1;
  }
  return value;
}

/** Value of a hexadecimal digit, or −1. */
function hexDigit(c: number): number {
  if (isDigit(c)) return c - ZERO;
  c |= 32;
  return c >= 97 && c <= 102 ? c - 87 : -1;
}

/**
 * Four decimal numbers of 0–255 with `separator` (a dot; FTP: a comma) between them, to raw word 0 of `out` (the others
 * become 0). Returns the offset behind the last digit, or −1.
 */
export function readIpv4(u8: Uint8Array, at: number, to: number, separator: number, out: Int32Array): number {
  let w = 0;
  for (let n = 0; n < 4; n++) {
    if (n > 0 && (at >= to || u8[at++] !== separator)) return -1;
    const end = skipDigits(u8, at, to);
    const part = end - at > 3 ? -1 : decimal(u8, at, end, 255);
    if (part < 0) return -1;
    w |= part << (8 * n);
    at = end;
  }
  out[0] = w;
  out[1] = out[2] = out[3] = 0;
  return at;
}

/** The 16 bytes of the address being read, as host-order groups; `readIpv6` runs to its end before anything else does. */
const groups = new Int32Array(8);

/**
 * An IPv6 address in any form of RFC 4291 §2.2 to raw words. Returns the offset behind it, or −1. It ends at the first
 * byte that cannot belong to it; what that may be is the caller's matter.
 */
export function readIpv6(u8: Uint8Array, at: number, to: number, out: Int32Array): number {
  let count = 0;
  let gap = -1; // number of groups before "::"
  if (to - at >= 2 && u8[at] === COLON && u8[at + 1] === COLON) {
    gap = 0;
    at += 2;
  }
  while (count < 8) {
    let end = at;
    let value = 0;
    for (let digit = 0; end < to && end - at < 4 && (digit = hexDigit(u8[end])) >= 0; end++) value = value * 16 + digit;
    if (end === at) {
      // Nothing behind "::" is fine; nothing behind a single ":" is not an address.
      if (gap !== count) return -1;
      break;
    }
    if (end < to && u8[end] === DOT) {
      // §2.2 form 3: an IPv4 address stands for the last two groups.
      if (count > 6) return -1;
      const behind = readIpv4(u8, at, to, DOT, out);
      if (behind < 0) return -1;
      groups[count++] = ((out[0] & 0xff) << 8) | ((out[0] >>> 8) & 0xff);
      groups[count++] = ((out[0] >>> 8) & 0xff00) | (out[0] >>> 24);
      at = behind;
      break;
    }
    if (end < to && hexDigit(u8[end]) >= 0) return -1; // a group has at most four digits
    groups[count++] = value;
    at = end;
    if (at >= to || u8[at] !== COLON) break;
    if (at + 1 < to && u8[at + 1] === COLON) {
      if (gap >= 0) return -1; // "::" stands once
      gap = count;
      at += 2;
    } else if (count < 8) at++;
  }
  if (gap < 0 ? count !== 8 : count > 7) return -1;
  for (let n = 0; n < 4; n++) out[n] = 0;
  for (let n = 0; n < count; n++) {
    // Groups behind the gap are the last ones.
    const place = gap >= 0 && n >= gap ? 8 - count + n : n;
    const swapped = ((groups[n] & 0xff) << 8) | (groups[n] >>> 8);
    out[place >> 1] |= swapped << ((place & 1) * 16);
  }
  return at;
}

/** True when two addresses of the family (4 or 6) are the same. */
export function sameAddress(family: number, a: Int32Array, b: Int32Array): boolean {
  if (a[0] !== b[0]) return false;
  return family === 4 || (a[1] === b[1] && a[2] === b[2] && a[3] === b[3]);
}

/** Copies an address of the family; IPv4 leaves the other words 0. */
export function copyAddress(family: number, from: Int32Array, to: Int32Array): void {
  to[0] = from[0];
  to[1] = family === 4 ? 0 : from[1];
  to[2] = family === 4 ? 0 : from[2];
  to[3] = family === 4 ? 0 : from[3];
}

/** True for 0.0.0.0 and ::. */
export function isUnspecified(family: number, a: Int32Array): boolean {
  return a[0] === 0 && (family === 4 || (a[1] | a[2] | a[3]) === 0);
}

/**
 * HTTP speaks to this port: a browser that a page made send other people's text here ("NAT slipstreaming": the body holds
 * what looks like an FTP, IRC or SIP command). None of these is a command of the protocols that are watched.
 */
export function looksLikeHttp(u8: Uint8Array, at: number, to: number): boolean {
  switch (lower(u8[at])) {
    case 103: // g
      return matches(u8, at, to, HTTP_GET);
    case 104:
      return matches(u8, at, to, HTTP_HEAD);
    case 111: // SIP and RTSP have an OPTIONS too, but no path behind it
      return matches(u8, at, to, HTTP_OPTIONS);
    case 112:
      return matches(u8, at, to, HTTP_POST) || matches(u8, at, to, HTTP_PUT) || matches(u8, at, to, HTTP_PATCH);
    case 99:
      return matches(u8, at, to, HTTP_CONNECT);
    default:
      return false;
  }
}
const HTTP_GET = word('get ');
const HTTP_HEAD = word('head ');
const HTTP_OPTIONS = word('options /');
const HTTP_POST = word('post ');
const HTTP_PUT = word('put ');
const HTTP_PATCH = word('patch ');
const HTTP_CONNECT = word('connect ');

/** Writes a decimal number, 0 to 2^32 − 1. */
export function writeDecimal(out: Uint8Array, at: number, value: number): number {
  let digits = 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) digits++;
  for (let n = at + digits - 1; n >= at; n--) {
    out[n] = ZERO + (value % 10);
    value = Math.floor(value / 10);
  }
  return at + digits;
}

/** Writes a raw word as four decimal numbers with `separator` between them. */
export function writeIpv4(out: Uint8Array, at: number, w: number, separator: number): number {
  for (let n = 0; n < 4; n++) {
    if (n > 0) out[at++] = separator;
    at = writeDecimal(out, at, (w >>> (8 * n)) & 0xff);
  }
  return at;
}

/** Writes a group of IPv6 in hexadecimal with at least `least` digits. */
function writeGroup(out: Uint8Array, at: number, value: number, least: number): number {
  for (let digit = 3; digit >= 0; digit--) {
    if (digit >= least && value >>> (4 * digit) === 0) continue;
    const d = (value >>> (4 * digit)) & 15;
    out[at++] = d < 10 ? ZERO + d : 87 + d;
  }
  return at;
}

/** Group `n` of raw words, host order. */
function group(words: Int32Array, n: number): number {
  const half = (words[n >> 1] >>> ((n & 1) * 16)) & 0xffff;
  return ((half & 0xff) << 8) | (half >>> 8);
}

/** Writes an IPv6 address with all its zeros: eight groups of four digits (what Linux's FTP helper writes). */
export function writeIpv6Full(out: Uint8Array, at: number, words: Int32Array): number {
  for (let n = 0; n < 8; n++) {
    if (n > 0) out[at++] = COLON;
    at = writeGroup(out, at, group(words, n), 4);
  }
  return at;
}

/** Writes an IPv6 address as RFC 5952 has it, without the mixed notation of §5. */
export function writeIpv6(out: Uint8Array, at: number, words: Int32Array): number {
  let gap = -1;
  let length = 1; // §4.2.2: a single group of zeros is not shortened
  for (let n = 0; n < 8; n++) {
    let run = 0;
    while (n + run < 8 && group(words, n + run) === 0) run++;
    if (run > length) {
      gap = n;
      length = run;
    }
    if (run > 0) n += run - 1;
  }
  for (let n = 0; n < 8; n++) {
    if (n === gap) {
      out[at++] = COLON;
      out[at++] = COLON;
      n += length - 1;
      continue;
    }
    // Behind "::" there is no further colon; without one, gap + length is 0.
    if (n > 0 && n !== gap + length) out[at++] = COLON;
    at = writeGroup(out, at, group(words, n), 1);
  }
  return at;
}
