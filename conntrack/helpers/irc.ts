/**
 * IRC: direct client connections (CTCP's DCC), announced inside a message to another user.
 *
 *   PRIVMSG bob :\1DCC SEND notes.txt 3232235778 51221 999\1
 *
 * The address is one decimal number, and it is the sender's own, or the one that the outside knows it by (clients ask the
 * server). Whoever got the message connects, so anyone may (FROM_ANY); only the IRC client may announce. SEND, CHAT, MOVE,
 * TSEND and SCHAT, IPv4, as Linux's helper; beyond it: several messages in a segment, file names in quotes, and a line's
 * second half is not taken for a message: word 0 is the sequence number behind an unfinished line, word 1 the flags.
 *
 * Not here: passive DCC (port 0: nothing to open), RESUME and ACCEPT (they name a port again, without an address), IPv6
 * (there is no common spelling), TLS.
 */
import {
  FIND_EXPECT,
  type Finding,
  FROM_ANY,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  nextFinding,
  UNDERSTOOD,
} from './helper.ts';
import {
  COLON,
  CR,
  copyAddress,
  decimal,
  LF,
  looksLikeHttp,
  matches,
  QUOTE,
  SPACE,
  skipDigits,
  until,
  word,
  writeDecimal,
} from './text.ts';

export const IRC = 3;

/** Words of state. */
const UNFINISHED_AT = 0;
const FLAGS = 1;
const UNFINISHED = 1;
const STOPPED = 2;

/** Longest payload that is searched, as in Linux. RFC 1459 §2.3: a message has 512 bytes. */
const MAX_SEARCH = 4095;

const W_PRIVMSG = word('privmsg ');
const W_DCC = word('\x01dcc ');
const TYPES = [word('send '), word('chat '), word('move '), word('tsend '), word('schat ')];

export const irc: Helper = {
  name: 'irc',
  number: IRC,
  ports: [6667],
  protocols: [6],
  limits: [8], // Linux's max_dcc_channels
  inspect,
  write,
};

function inspect(c: HelperContext): number {
  const s = c.state;
  const flags = c.stateAt + FLAGS;
  if (c.dir !== 0 || c.family !== 4 || c.from >= c.to || (s[flags] & STOPPED) !== 0) return UNDERSTOOD;
  const to = Math.min(c.to, c.from + MAX_SEARCH);
  if (looksLikeHttp(c.u8, c.from, c.to)) {
    s[flags] |= STOPPED;
    return UNDERSTOOD;
  }
  let at = c.from;
  if ((s[flags] & UNFINISHED) !== 0 && s[c.stateAt + UNFINISHED_AT] === c.seq) at = until(c.u8, at, to, LF) + 1;
  let result = UNDERSTOOD;
  while (at < to) {
    const end = until(c.u8, at, to, LF);
    if (!message(c, at, end, end < to)) result = NOT_UNDERSTOOD;
    at = end + 1;
  }
  if (c.u8[c.to - 1] !== LF) {
    s[c.stateAt + UNFINISHED_AT] = (c.seq + c.to - c.from) | 0;
    s[flags] |= UNFINISHED;
  }
  return result;
}

/** Reads the message in [at, to); false when it announces something that cannot be understood or must not be opened. */
function message(c: HelperContext, at: number, to: number, whole: boolean): boolean {
  const u8 = c.u8;
  while (at < to && (u8[at] === SPACE || u8[at] === CR)) at++;
  if (!matches(u8, at, to, W_PRIVMSG)) return true;
  // The text follows the first " :"; CTCP fills all of it, so DCC stands there or nowhere.
  for (at += W_PRIVMSG.length; ; at++) {
    if (at + 1 >= to) return true;
    if (u8[at] === SPACE && u8[at + 1] === COLON) break;
  }
  at += 2;
  if (!matches(u8, at, to, W_DCC)) return true;
  at += W_DCC.length;
  let type = 0;
  while (!matches(u8, at, to, TYPES[type])) if (++type === TYPES.length) return true;
  at += TYPES[type].length;
  // The argument: a file name, in quotes when it has spaces.
  at = at < to && u8[at] === QUOTE ? until(u8, until(u8, at + 1, to, QUOTE), to, SPACE) : until(u8, at, to, SPACE);
  const from = at + 1;
  const endOfAddress = skipDigits(u8, from, to);
  const number = decimal(u8, from, to, 0xffffffff);
  at = endOfAddress;
  while (at < to && u8[at] === SPACE) at++;
  const port = at === endOfAddress ? -1 : decimal(u8, at, to, 65535);
  const end = skipDigits(u8, at, to);
  // Without the line's end, digits may be missing.
  if (!whole || number < 0 || port <= 0) return false;
  const host = number | 0;
  const raw = (host << 24) | ((host & 0xff00) << 8) | ((host >>> 8) & 0xff00) | (host >>> 24);
  // "Forged": another host's address; the inside or the outside one of the sender itself is meant.
  if (raw !== c.src[0] && raw !== c.srcTranslated[0]) return false;
  const f = nextFinding(c, FIND_EXPECT, from, end);
  if (f === null) return false;
  copyAddress(4, c.src, f.address);
  f.port = port;
  f.proto = 6;
  f.who = FROM_ANY;
  return true;
}

/** Address and port as two decimal numbers. */
function write(f: Finding, _family: number, address: Int32Array, port: number, out: Uint8Array, start: number): number {
  if (f.from === f.to) return 0;
  const w = address[0];
  const host = (w << 24) | ((w & 0xff00) << 8) | ((w >>> 8) & 0xff00) | (w >>> 24);
  let at = writeDecimal(out, start, host >>> 0);
  out[at++] = SPACE;
  at = writeDecimal(out, at, port);
  return at - start;
}
