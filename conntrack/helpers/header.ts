/**
 * Header: messages of the SIP and RTSP kind (RFC 3261 §7, RFC 2326 §4): a start line, header lines, a blank line, and a
 * body of Content-Length bytes; and where they begin and end in a TCP stream.
 *
 * Lines may end with CR, LF or both; a header's value goes on in lines that begin with a blank. Offsets are absolute.
 *
 * Framing keeps two words for each direction, so that the rest of a message that a segment cut is not taken for a message:
 *
 *   0 GO_ON   sequence number behind the last segment     1 LEFT   > 0: bytes that the message still has
 *                                                                  < 0: its headers go on; −1 − its Content-Length so far
 *
 * Not here: which headers matter.
 */
import type { HelperContext } from './helper.ts';
import { COLON, CR, decimal, LF, lineEnd, lower, matches, SPACE, skipDigits, TAB, word } from './text.ts';

/** Words of state that the framing of both directions takes. */
export const FRAMING_WORDS = 4;
const GO_ON = 0; // + 2 * dir
const LEFT = 1;

/** Longest body that is believed. */
const MAX_BODY = 1 << 24;

/** One header line: its name, and its value without the blanks in front. */
export interface HeaderLine {
  name: number;
  nameEnd: number;
  value: number;
  valueEnd: number;
}

export function newHeaderLine(): HeaderLine {
  return { name: 0, nameEnd: 0, value: 0, valueEnd: 0 };
}

/** Behind one line end (CR LF, LF, or CR) at `at`. */
export function skipLineEnd(u8: Uint8Array, at: number, to: number): number {
  if (at < to && u8[at] === CR) at++;
  else if (at < to && u8[at] === LF) return at + 1;
  return at < to && u8[at] === LF ? at + 1 : at;
}

/** Behind the blank line that ends the headers which begin at `at` (the start of a line); −1 when it is not in [at, to). */
export function endOfHeaders(u8: Uint8Array, at: number, to: number): number {
  while (at < to) {
    const end = lineEnd(u8, at, to);
    const next = skipLineEnd(u8, end, to);
    if (next === end) return -1;
    if (end === at) return next;
    at = next;
  }
  return -1;
}

/**
 * Reads the header line at `at` with its continuation lines. Returns the offset of the next one, −1 when there is none:
 * at the blank line or at `to`. A line without a colon has an empty name.
 */
export function readHeader(u8: Uint8Array, at: number, to: number, line: HeaderLine): number {
  let end = lineEnd(u8, at, to);
  if (end === at) return -1;
  line.name = line.nameEnd = at;
  line.value = end;
  let colon = at;
  while (colon < end && u8[colon] !== COLON) colon++;
  if (colon < end) {
    line.nameEnd = colon;
    while (line.nameEnd > at && (u8[line.nameEnd - 1] === SPACE || u8[line.nameEnd - 1] === TAB)) line.nameEnd--;
    line.value = colon + 1;
  }
  let next = skipLineEnd(u8, end, to);
  while (next < to && (u8[next] === SPACE || u8[next] === TAB)) {
    end = lineEnd(u8, next, to);
    next = skipLineEnd(u8, end, to);
  }
  line.valueEnd = end;
  line.value = skipWhite(u8, line.value, end);
  return next;
}

/** Behind blanks and, inside a value, line ends: they are followed by a blank there. */
export function skipWhite(u8: Uint8Array, at: number, to: number): number {
  while (at < to && isBlank(u8[at])) at++;
  return at;
}

/** Blanks and line ends: inside a value, a line end is one too. */
function isBlank(c: number): boolean {
  return c === SPACE || c === TAB || c === CR || c === LF;
}

/** True when the line's name is `name`, or the single letter `compact` (0: it has no compact form, RFC 3261 §7.3.3). */
export function isNamed(u8: Uint8Array, line: HeaderLine, name: Uint8Array, compact: number): boolean {
  const length = line.nameEnd - line.name;
  if (length === name.length) return matches(u8, line.name, line.nameEnd, name);
  return length === 1 && compact !== 0 && lower(u8[line.name]) === compact;
}

/**
 * Offset behind `name` (with its `=`) where it begins a `;` parameter in [at, to), or −1. What stands in front of the first
 * `;` is not looked at.
 */
export function parameter(u8: Uint8Array, at: number, to: number, name: Uint8Array): number {
  for (; at < to; at++) {
    if (u8[at] !== 59) continue;
    const start = skipWhite(u8, at + 1, to);
    if (matches(u8, start, to, name)) return start + name.length;
  }
  return -1;
}

const W_CONTENT_LENGTH = word('content-length');
const COMPACT_L = 108;
const line = newHeaderLine();

/** What `contentLength` found: where its digits are (from = to: no such header). */
export const lengthAt = { from: 0, to: 0 };

/** The Content-Length of the header lines in [at, to); 0 when there is none, −1 when it is no number. */
export function contentLength(u8: Uint8Array, at: number, to: number, compact: boolean): number {
  lengthAt.from = lengthAt.to = 0;
  for (let next = at; next >= 0 && next < to; ) {
    next = readHeader(u8, next, to, line);
    if (next < 0) break;
    if (!isNamed(u8, line, W_CONTENT_LENGTH, compact ? COMPACT_L : 0)) continue;
    const length = decimal(u8, line.value, line.valueEnd, MAX_BODY);
    if (length < 0) return -1;
    lengthAt.from = line.value;
    lengthAt.to = skipDigits(u8, line.value, line.valueEnd);
    return length;
  }
  return 0;
}

/**
 * Where in this segment the next message begins, when the last one of its direction was cut: behind its rest. `c.to` when
 * all of the segment is rest; `c.from` when nothing is known. `words`: index of the framing's words in `c.state`.
 */
export function resumeMessages(c: HelperContext, words: number, compact: boolean): number {
  const s = c.state;
  const w = words + 2 * c.dir;
  const left = s[w + LEFT];
  if (left === 0 || s[w + GO_ON] !== c.seq) return c.from;
  if (left > 0) return passBody(c, words, c.from, left);
  // The headers go on; a LF in front is the second half of a line end. A line that was cut is passed over.
  const from = c.u8[c.from] === LF ? c.from + 1 : c.from;
  const end = endOfHeaders(c.u8, from, c.to);
  let length = -1 - left;
  const here = contentLength(c.u8, from, end < 0 ? c.to : end, compact);
  if (here > 0) length = here;
  if (end >= 0) return passBody(c, words, end, length);
  s[w + GO_ON] = (c.seq + c.to - c.from) | 0;
  s[w + LEFT] = -1 - length;
  return c.to;
}

/** Behind `length` bytes from `at`; what the segment does not have of them is remembered, and the answer is `c.to`. */
export function passBody(c: HelperContext, words: number, at: number, length: number): number {
  const w = words + 2 * c.dir;
  if (length <= c.to - at) return at + length;
  c.state[w + GO_ON] = (c.seq + c.to - c.from) | 0;
  c.state[w + LEFT] = length - (c.to - at);
  return c.to;
}

/** The headers that begin at `at` are not all here: the rest of them will be passed over. */
export function cutHeaders(c: HelperContext, words: number, at: number, compact: boolean): void {
  const w = words + 2 * c.dir;
  const length = contentLength(c.u8, at, c.to, compact);
  c.state[w + GO_ON] = (c.seq + c.to - c.from) | 0;
  c.state[w + LEFT] = -1 - (length > 0 ? length : 0);
}

/** Behind the blank lines that may stand between messages (RFC 3261 §7.5, keep-alives of RFC 5626 §3.5.1). */
export function skipBlankLines(u8: Uint8Array, at: number, to: number): number {
  while (at < to && (u8[at] === CR || u8[at] === LF)) at++;
  return at;
}
