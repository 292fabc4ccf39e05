/**
 * SDP: the media that a session description announces (RFC 4566), for the SIP helper.
 *
 *   v=0                                    where the description begins
 *   o=bob 1 1 IN IP4 192.168.1.2           whose it is
 *   c=IN IP4 192.168.1.2                   where media go that do not say it themselves
 *   m=audio 49170 RTP/AVP 0                a medium: RTP at the port, RTCP at the next
 *   c=IN IP4 192.168.1.2                   where this one goes
 *
 * As Linux's helper: audio, video and image, at most three that are active, each a class of its own; the pair begins at
 * the even port; an address other than the sender's opens nothing ("direct media": streams run between those who
 * signal), which includes a call on hold, 0.0.0.0; port 0 is a stream that is refused; ports below 1024 open nothing
 * (Linux drops the packet for them).
 *
 * Unlike Linux, o= and c= become the translated address where they are the sender's own, and o= also when the last medium
 * is: Linux writes the last medium's address over them, even 0.0.0.0.
 *
 * Not here: a=rtcp (RFC 3605), several pairs in one line (`49170/2`), ICE candidates, multicast.
 */
import { skipLineEnd } from './header.ts';
import { FIND_EXPECT, FIND_REWRITE, FROM_PEER, type HelperContext, nextFinding } from './helper.ts';
import {
  copyAddress,
  DOT,
  decimal,
  EQUALS,
  find,
  isDigit,
  lineEnd,
  lower,
  matches,
  readIpv4,
  readIpv6,
  SPACE,
  sameAddress,
  skipDigits,
  word,
} from './text.ts';

/** Finding.format of an address alone, and of a port alone; the SIP helper's numbers. */
export const SDP_ADDRESS = 2;
export const SDP_PORT = 3;

/** Expectation classes, Linux's numbers (0: signalling). */
export const CLASS_AUDIO = 1;
export const CLASS_VIDEO = 2;
export const CLASS_IMAGE = 3;
export const MEDIA_TIMEOUT = 180;

const MAX_MEDIA = 3;
const MEDIA = [word('audio '), word('video '), word('image ')];
const W_IP4 = word('in ip4 ');
const W_IP6 = word('in ip6 ');

const V = 118;
const O = 111;
const C = 99;
const M = 109;

/** Start of the description in [at, to): its v= line; −1 when there is none. */
export function findDescription(u8: Uint8Array, at: number, to: number): number {
  while (at < to) {
    if (isLine(u8, at, to, V) && at + 2 < to && isDigit(u8[at + 2])) return at;
    const end = lineEnd(u8, at, to);
    at = skipLineEnd(u8, end, to);
  }
  return -1;
}

function isLine(u8: Uint8Array, at: number, to: number, type: number): boolean {
  return at + 1 < to && lower(u8[at]) === type && u8[at + 1] === EQUALS;
}

/** Start of the next line of `type` before any line of `stop` (0: none) in [at, to), from the start of a line; −1: none. */
function nextLine(u8: Uint8Array, at: number, to: number, type: number, stop: number): number {
  while (at < to) {
    if (stop !== 0 && isLine(u8, at, to, stop)) return -1;
    if (isLine(u8, at, to, type)) return at;
    at = skipLineEnd(u8, lineEnd(u8, at, to), to);
  }
  return -1;
}

/** What readAddress found; addresses of the session and of a medium. */
const read = new Int32Array(4);
const session = new Int32Array(4);
let readFrom = 0;
let readTo = 0;

/** The address of the o= or c= line at `at`, when it is of the connection's family. */
function readAddress(c: HelperContext, at: number, to: number): boolean {
  const end = lineEnd(c.u8, at, to);
  const mark = find(c.u8, at, end, c.family === 4 ? W_IP4 : W_IP6);
  if (mark < 0) return false;
  readFrom = mark + W_IP4.length;
  readTo = c.family === 4 ? readIpv4(c.u8, readFrom, end, DOT, read) : readIpv6(c.u8, readFrom, end, read);
  return readTo >= 0;
}

// What readMedium found.
let kind = 0;
let port = 0;
let portFrom = 0;
let portTo = 0;

/** The m= line at `at`: true for a medium that is known and not refused (port 0). */
function readMedium(u8: Uint8Array, at: number, to: number): boolean {
  const end = lineEnd(u8, at, to);
  for (kind = 0; kind < MEDIA.length; kind++) if (matches(u8, at + 2, end, MEDIA[kind])) break;
  if (kind === MEDIA.length) return false;
  portFrom = at + 2 + MEDIA[kind].length;
  portTo = skipDigits(u8, portFrom, end);
  if (portTo === portFrom || (portTo < end && u8[portTo] !== SPACE && u8[portTo] !== 47)) return false;
  port = decimal(u8, portFrom, portTo, 65535);
  return port !== 0;
}

/**
 * Reads the description in [at, to) (from its v= line) and reports what it announces, in the order of place. False when it
 * announces something that could not be understood.
 */
export function describe(c: HelperContext, at: number, to: number): boolean {
  const u8 = c.u8;
  const sessionLine = nextLine(u8, at, to, C, M);
  const hasSession = sessionLine >= 0 && readAddress(c, sessionLine, to);
  if (hasSession) copyAddress(c.family, read, session);
  // Whose the last medium is: Linux gives its address to o=.
  let own = hasSession && sameAddress(c.family, session, c.src);
  let media = 0;
  for (let m = nextLine(u8, at, to, M, 0); m >= 0 && media < MAX_MEDIA; m = nextMedium(u8, m, to)) {
    if (!readMedium(u8, m, to)) continue;
    media++;
    own = isOwn(c, m, to, hasSession);
  }

  let understood = true;
  let inSession = true;
  media = 0;
  for (let line = at; line < to; ) {
    if (isLine(u8, line, to, O) && inSession) {
      if (readAddress(c, line, to)) rewrite(c, own || sameAddress(c.family, read, c.src));
    } else if (isLine(u8, line, to, C)) {
      if (readAddress(c, line, to)) rewrite(c, sameAddress(c.family, read, c.src));
    } else if (isLine(u8, line, to, M)) {
      inSession = false;
      if (media < MAX_MEDIA && readMedium(u8, line, to)) {
        media++;
        if (!expectMedium(c, line, to, hasSession)) understood = false;
      }
    }
    line = skipLineEnd(u8, lineEnd(u8, line, to), to);
  }
  return understood;
}

function nextMedium(u8: Uint8Array, at: number, to: number): number {
  return nextLine(u8, skipLineEnd(u8, lineEnd(u8, at, to), to), to, M, 0);
}

/** True when the medium at `m` goes to the sender: by its own c= line, or by the session's. */
function isOwn(c: HelperContext, m: number, to: number, hasSession: boolean): boolean {
  const line = nextLine(c.u8, skipLineEnd(c.u8, lineEnd(c.u8, m, to), to), to, C, M);
  if (line >= 0 && readAddress(c, line, to)) return sameAddress(c.family, read, c.src);
  return hasSession && sameAddress(c.family, session, c.src);
}

function expectMedium(c: HelperContext, m: number, to: number, hasSession: boolean): boolean {
  if (port < 1024) return false; // also −1: no port number at all
  if (!isOwn(c, m, to, hasSession)) return true;
  const f = nextFinding(c, FIND_EXPECT, portFrom, portTo);
  if (f === null) return false;
  f.format = SDP_PORT;
  copyAddress(c.family, c.src, f.address);
  f.port = port & ~1; // RFC 3550 §11: RTP has the even port of the two
  f.count = 2;
  f.even = 1;
  f.proto = 17;
  f.who = FROM_PEER;
  f.class = CLASS_AUDIO + kind;
  f.timeout = MEDIA_TIMEOUT;
  return true;
}

/** The address that readAddress found becomes the sender's translated one. */
function rewrite(c: HelperContext, wanted: boolean): void {
  if (!wanted || !c.nat || sameAddress(c.family, c.src, c.srcTranslated)) return;
  const f = nextFinding(c, FIND_REWRITE, readFrom, readTo);
  if (f === null) return;
  f.format = SDP_ADDRESS;
  copyAddress(c.family, c.src, f.address);
  f.port = c.sport;
}
