/**
 * FTP: the data connections that the control connection announces (RFC 959 PORT and 227, RFC 2428 EPRT and 229).
 *
 *   client  PORT 192,168,1,2,200,21            the server connects to the client (active)
 *           EPRT |1|192.168.1.2|51221|   EPRT |2|2001:db8::2|51221|
 *   server  227 Entering Passive Mode (10,0,0,1,200,21).     the client connects to the server (passive)
 *           229 Entering Extended Passive Mode (|||51221|)
 *
 * A command counts only at the start of a line. TCP has no lines, so the connection's words remember, as Linux's helper
 * does, the last two sequence numbers of each direction at which a line began (two, because a command may be sent again),
 * and the parser's place in a line that a segment left unfinished:
 *
 *   0,1 line starts of the client     2,3 line starts of the server     4 FLAGS
 *   5 sequence number at which the unfinished line goes on              6,7 the parser's registers there
 *
 * So a command may come in any number of pieces, and several may come in one segment. One thing cannot be done on the
 * way: the numbers of a *translated* command that are cut in two, because the first piece has left with the old ones; it
 * is left alone (Linux drops the piece in the hope that it is sent again with the rest).
 *
 * More cautious than Linux: lines inside a multi-line reply are text, whatever they say (RFC 959 §4.2); after `EPSV ALL`
 * nothing else counts (RFC 2428 §4); AUTH that is answered with 234 (RFC 4217) and a client that speaks HTTP end the
 * watching. An endpoint on another host than its sender's is not opened, except with `bounce` (commands, RFC 2577 §3) or
 * `loose` (replies); port 0 never.
 *
 * Not here: the ports below 1024 as such (Linux opens them too: they are the sender's own), the data itself.
 */
import {
  FIND_EXPECT,
  type Finding,
  FROM_PEER,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  nextFinding,
  UNDERSTOOD,
} from './helper.ts';
import {
  COMMA,
  CR,
  copyAddress,
  DOT,
  isDigit,
  LF,
  looksLikeHttp,
  lower,
  matches,
  OPEN_PAREN,
  readIpv6,
  SPACE,
  sameAddress,
  TAB,
  until,
  word,
  writeDecimal,
  writeIpv4,
  writeIpv6Full,
  ZERO,
} from './text.ts';

export const FTP = 1;
/** Spellings of an endpoint (Finding.format): six numbers; address and port between delimiters; port alone. */
export const FTP_NUMBERS = 0;
export const FTP_EXTENDED = 1;
export const FTP_PORT_ONLY = 2;

/** Words of state. */
const STARTS = 0; // + 2 * dir
const FLAGS = 4;
const GO_ON = 5;
const REGISTERS = 6;
const ADDRESS = 7;

/** FLAGS: number of line starts that are known (two bits each), then single bits; the code of a multi-line reply. */
const KNOWN = 0; // shift, + 2 * dir
const STOPPED = 16;
const AWAIT_AUTH = 32;
const AWAIT_ALL = 64;
const EPSV_ALL = 128;
const UNFINISHED = 256;
const MULTILINE = 16; // shift, ten bits

/** Where in a line the parser is: its first four bytes, before the endpoint, in it, or where nothing more matters. */
const VERB = 0;
const BEFORE = 1;
const INSIDE = 2;
const REST = 3;

/** What announces. */
const PORT = 0;
const EPRT = 1;
const PASV = 2;
const EPSV = 3;

/** The parts of an extended endpoint, by index: three delimiters (EPRT: the second is the protocol), address, port. */
const FIRST_PART = 3;
const PORT_PART = 7;

/** Four bytes of a line's start as one number. */
function four(text: string): number {
  let value = 0;
  for (let n = 0; n < 4; n++) value = (value << 8) | text.charCodeAt(n);
  return value;
}
const V_PORT = four('port');
const V_EPRT = four('eprt');
const V_EPSV = four('epsv');
const V_AUTH = four('auth');
const W_ALL = word(' all');

// The parser's registers. They live here and not in an object: they are in use during one call of inspect only.
let stage = VERB;
let kind = PORT;
let index = 0; // of the number being read; in VERB: bytes read
let number = -1; // the number so far, −1: no digit yet
let high = 0; // the fifth number of six
let delimiter = 0;
let verb = 0; // in VERB the bytes so far; later the IPv4 address, raw
let begin = -1; // offset of the endpoint's first byte, −1: in an earlier segment
const address = new Int32Array(4);
let bad = false;

export const ftp: Helper = {
  name: 'ftp',
  number: FTP,
  ports: [21],
  protocols: [6],
  limits: [1],
  inspect,
  write,
};

function inspect(c: HelperContext): number {
  const s = c.state;
  const w = c.stateAt;
  if (c.from >= c.to || (s[w + FLAGS] & STOPPED) !== 0) return UNDERSTOOD;
  bad = false;
  let at = c.from;
  if (c.dir === 0 && looksLikeHttp(c.u8, at, c.to)) {
    s[w + FLAGS] |= STOPPED;
    return UNDERSTOOD;
  }
  newLine();
  if (!isLineStart(c)) {
    if ((s[w + FLAGS] & UNFINISHED) !== 0 && s[w + GO_ON] === c.seq && (s[w + REGISTERS] & 1) === c.dir) at = resume(c);
    else stage = REST; // in the middle of a line, or of we know not what: until the next line
  }
  for (;;) {
    const end = until(c.u8, at, c.to, LF);
    const whole = end < c.to;
    readLine(c, at, end, whole);
    if ((s[w + FLAGS] & STOPPED) !== 0) return UNDERSTOOD;
    if (!whole) break;
    newLine();
    at = end + 1;
    if (at === c.to) break;
  }
  const next = (c.seq + (c.to - c.from)) | 0;
  if (c.u8[c.to - 1] === LF) keepLineStart(c, next);
  else if (stage !== REST) suspend(c, next);
  return bad ? NOT_UNDERSTOOD : UNDERSTOOD;
}

function newLine(): void {
  stage = VERB;
  index = 0;
  verb = 0;
  begin = -1;
}

/**
 * True when a line of this direction is known to begin with this segment. A command that was rewritten is known for longer
 * than two lines: left as it is when it is sent again, it would not be the stream that its receiver has begun to read.
 */
function isLineStart(c: HelperContext): boolean {
  if (c.again) return true;
  const s = c.state;
  const known = (s[c.stateAt + FLAGS] >>> (KNOWN + 2 * c.dir)) & 3;
  const starts = c.stateAt + STARTS + 2 * c.dir;
  return (known > 0 && s[starts] === c.seq) || (known > 1 && s[starts + 1] === c.seq);
}

/** Remembers where the next line begins, in place of the older of two; never goes back (a segment sent again). */
function keepLineStart(c: HelperContext, seq: number): void {
  const s = c.state;
  const flags = c.stateAt + FLAGS;
  const known = (s[flags] >>> (KNOWN + 2 * c.dir)) & 3;
  const starts = c.stateAt + STARTS + 2 * c.dir;
  if ((known > 0 && s[starts] === seq) || (known > 1 && s[starts + 1] === seq)) return;
  if (known < 2) {
    s[starts + known] = seq;
    s[flags] += 1 << (KNOWN + 2 * c.dir);
    return;
  }
  const older = ((s[starts] - s[starts + 1]) | 0) < 0 ? starts : starts + 1;
  if (((seq - s[older]) | 0) > 0) s[older] = seq;
}

/** Keeps the registers for the segment that begins with `seq`: 1 bit direction, 2 stage, 2 kind, 3 index, 7 delimiter, 17 number. */
function suspend(c: HelperContext, seq: number): void {
  const s = c.state;
  const w = c.stateAt;
  // Six numbers: no delimiter, and two bytes to keep; the fifth lies above the sixth.
  const numbers = kind === PORT || kind === PASV ? (number + 1) | (high << 9) : number + 1;
  s[w + GO_ON] = seq;
  s[w + REGISTERS] = c.dir | (stage << 1) | (kind << 3) | (index << 5) | (delimiter << 8) | (numbers << 15);
  s[w + ADDRESS] = verb;
  s[w + FLAGS] |= UNFINISHED;
}

/** Takes the registers up again at the beginning of this segment; returns where to read on. */
function resume(c: HelperContext): number {
  const packed = c.state[c.stateAt + REGISTERS];
  stage = (packed >>> 1) & 3;
  kind = (packed >>> 3) & 3;
  index = (packed >>> 5) & 7;
  delimiter = (packed >>> 8) & 0x7f;
  const numbers = packed >>> 15;
  const six = kind === PORT || kind === PASV;
  number = (six ? numbers & 0x1ff : numbers) - 1;
  high = six ? numbers >>> 9 : 0;
  verb = c.state[c.stateAt + ADDRESS];
  begin = -1;
  if (stage !== INSIDE) return c.from;
  if (index === 0 && number < 0)
    begin = c.from; // cut just before it
  else if (c.nat && kind === PASV)
    // These digits are of the endpoint, which has begun to leave untranslated, or of the text before it, which is well.
    return skipRun(c.u8, c.from, c.to);
  else if (c.nat || (c.family !== 4 && kind === EPRT && index >= FIRST_PART)) fail();
  else if (kind === EPSV) copyAddress(c.family, c.src, address);
  else ipv4();
  return c.from;
}

/** 227: behind digits that turned out to be text ("227 Mode 2 at 10.0.0.1 is ..."), to look for the endpoint again. */
function skipRun(u8: Uint8Array, at: number, to: number): number {
  while (at < to && (isDigit(u8[at]) || u8[at] === COMMA || u8[at] === DOT)) at++;
  announces(PASV);
  return at;
}

/** The four numbers in `verb` are the address. */
function ipv4(): void {
  address[0] = verb;
  address[1] = address[2] = address[3] = 0;
}

/** Nothing to be had from this line. */
function fail(): void {
  stage = REST;
  bad = true;
}

/** Reads the line, or the part of one, in [at, to); `whole`: a LF follows at `to`. */
function readLine(c: HelperContext, at: number, to: number, whole: boolean): void {
  if (stage === VERB) at = readVerb(c, at, to);
  while (stage === BEFORE || stage === INSIDE) {
    if (stage === BEFORE) {
      at = findEndpoint(c.u8, at, to);
      if (stage === BEFORE) {
        if (whole) fail();
        return;
      }
    }
    at = kind === PORT || kind === PASV ? readNumbers(c, at, to, whole) : readExtended(c, at, to, whole);
    if (at === to && stage === INSIDE) {
      if (whole) fail();
      return;
    }
  }
}

/** Reads the first four bytes of a line and decides what it is. */
function readVerb(c: HelperContext, at: number, to: number): number {
  if (index === 0 && c.dir === 0 && looksLikeHttp(c.u8, at, to)) {
    c.state[c.stateAt + FLAGS] |= STOPPED;
    stage = REST;
    return to;
  }
  while (index < 4) {
    if (at === to) return to;
    if (c.u8[at] === CR) {
      stage = REST;
      return at;
    }
    verb = (verb << 8) | lower(c.u8[at++]);
    index++;
  }
  stage = REST;
  if (c.dir === 0) command(c, at, to);
  else reply(c);
  return at;
}

function announces(what: number): void {
  stage = BEFORE;
  kind = what;
  index = 0;
  number = -1;
  high = 0;
  delimiter = 0;
  verb = 0;
}

function command(c: HelperContext, at: number, to: number): void {
  const flags = c.stateAt + FLAGS;
  // The client waits for a reply's end before it goes on: whatever reply we believed to be in is over.
  c.state[flags] &= ~(0x3ff << MULTILINE);
  const all = (c.state[flags] & EPSV_ALL) !== 0;
  if (verb === V_PORT && !all) announces(PORT);
  else if (verb === V_EPRT && !all) announces(EPRT);
  else if (verb === V_EPSV && matches(c.u8, at, to, W_ALL)) c.state[flags] |= AWAIT_ALL;
  else if (verb === V_AUTH) c.state[flags] |= AWAIT_AUTH;
}

function reply(c: HelperContext): void {
  const flags = c.stateAt + FLAGS;
  const code = replyCode(verb);
  const inside = (c.state[flags] >>> MULTILINE) & 0x3ff;
  if (code === 0) return;
  const last = (verb & 0xff) === SPACE;
  if (inside !== 0) {
    // §4.2: the reply ends with the line that has the same code and a space.
    if (code !== inside || !last) return;
    c.state[flags] &= ~(0x3ff << MULTILINE);
  } else if (!last) {
    c.state[flags] |= code << MULTILINE;
    return;
  }
  if (code < 200) return; // preliminary: the answer is still to come
  if ((c.state[flags] & AWAIT_AUTH) !== 0 && code === 234) {
    c.state[flags] |= STOPPED;
    return;
  }
  if ((c.state[flags] & AWAIT_ALL) !== 0 && code < 300) c.state[flags] |= EPSV_ALL;
  c.state[flags] &= ~(AWAIT_AUTH | AWAIT_ALL);
  if (code === 227 && (c.state[flags] & EPSV_ALL) === 0) announces(PASV);
  else if (code === 229) announces(EPSV);
}

/** The code of a reply line's first four bytes, 100–599; 0 when it is none. */
function replyCode(bytes: number): number {
  const separator = bytes & 0xff;
  if (separator !== SPACE && separator !== 45) return 0;
  let code = 0;
  for (let shift = 24; shift >= 8; shift -= 8) {
    const c = (bytes >>> shift) & 0xff;
    if (!isDigit(c)) return 0;
    code = code * 10 + c - ZERO;
  }
  return code >= 100 && code < 600 ? code : 0;
}

/** Looks for the endpoint's first byte; INSIDE when it is there. */
function findEndpoint(u8: Uint8Array, at: number, to: number): number {
  for (; at < to; at++) {
    const c = u8[at];
    if (kind === PASV) {
      // RFC 1123 §4.1.2.6: the parentheses may be missing, so that the first digit must be looked for.
      if (!isDigit(c)) continue;
    } else if (kind === EPSV) {
      if (c !== OPEN_PAREN) continue;
      at++;
    } else {
      if (c === SPACE || c === TAB) continue;
      if (kind === PORT && !isDigit(c)) {
        fail();
        return to;
      }
    }
    stage = INSIDE;
    begin = at;
    index = 0;
    number = -1;
    return at;
  }
  return to;
}

/** Six decimal numbers with commas: h1,h2,h3,h4,p1,p2 (RFC 959 §4.1.2). */
function readNumbers(c: HelperContext, at: number, to: number, whole: boolean): number {
  for (; ; at++) {
    if (at === to && !whole) return to;
    const b = at === to ? LF : c.u8[at];
    if (isDigit(b)) {
      number = (number < 0 ? 0 : number) * 10 + b - ZERO;
      if (number <= 255) continue;
    } else if (b === COMMA && number >= 0 && index < 5) {
      if (index < 4) verb |= number << (8 * index);
      else high = number;
      index++;
      number = -1;
      continue;
    } else if (index === 5 && number >= 0 && (kind === PASV || b === CR || b === LF || b === SPACE)) {
      ipv4();
      announce(c, at, FTP_NUMBERS, (high << 8) | number);
      return at;
    }
    if (kind === PORT || at === to) {
      fail();
      return to;
    }
    return skipRun(c.u8, at, to);
  }
}

/** |1|192.168.1.2|51221|, |2|2001:db8::2|51221| (EPRT) and |||51221| (229): RFC 2428 §2 and §3. */
function readExtended(c: HelperContext, at: number, to: number, whole: boolean): number {
  for (; at < to; at++) {
    const b = c.u8[at];
    if (index === 0) {
      // §2: a printable character; a digit would not delimit.
      if (b < 33 || b > 126 || isDigit(b)) break;
      delimiter = b;
      index = 1;
    } else if (index === 1 && kind === EPRT) {
      if (b !== (c.family === 4 ? 49 : 50)) break; // the family of the control connection, as Linux
      index = 2;
    } else if (index < FIRST_PART) {
      if (b !== delimiter) break;
      index++;
      if (index < FIRST_PART) continue;
      if (kind === EPSV) {
        index = PORT_PART;
        copyAddress(c.family, c.src, address); // §3: the address is the control connection's
      } else if (c.family !== 4) {
        const end = readIpv6(c.u8, at + 1, to, address);
        // Cut in two: sixteen bytes of address do not fit in the connection's words.
        if (end < 0 || end === to || c.u8[end] !== delimiter) break;
        at = end;
        index = PORT_PART;
      }
    } else if (isDigit(b)) {
      number = (number < 0 ? 0 : number) * 10 + b - ZERO;
      if (number > (index === PORT_PART ? 65535 : 255)) break;
    } else if (index < PORT_PART && number >= 0 && b === (index === PORT_PART - 1 ? delimiter : DOT)) {
      verb |= number << (8 * (index - FIRST_PART));
      if (++index === PORT_PART) ipv4();
      number = -1;
    } else if (index === PORT_PART && number >= 0 && b === delimiter) {
      announce(c, at + 1, kind === EPRT ? FTP_EXTENDED : FTP_PORT_ONLY, number);
      return at + 1;
    } else break;
  }
  if (at < to || whole) fail();
  return to;
}

/** The endpoint ends before `end`: reports it, if it may be opened. */
function announce(c: HelperContext, end: number, format: number, port: number): void {
  stage = REST;
  const own = sameAddress(c.family, address, c.src);
  const allowed =
    own ||
    // RFC 2577 §3: a server that is told to connect to another host's well-known port attacks it.
    (c.dir === 0 ? c.bounce && port >= 1024 : c.loose);
  if (port === 0 || !allowed || (c.family !== 4 && format === FTP_NUMBERS)) {
    bad = true;
    return;
  }
  const f =
    begin < 0
      ? nextFinding(c, FIND_EXPECT, c.from, c.from) // its first part is gone, but nothing of it needs to change
      : nextFinding(c, FIND_EXPECT, begin, end);
  if (f === null) {
    bad = true;
    return;
  }
  f.format = format;
  copyAddress(c.family, address, f.address);
  f.port = port;
  f.proto = 6;
  f.who = FROM_PEER;
}

/** Writes an endpoint as Linux's helper does: the delimiter becomes `|`, IPv6 has all its zeros. */
function write(f: Finding, family: number, endpoint: Int32Array, port: number, out: Uint8Array, start: number): number {
  let at = start;
  if (f.format === FTP_NUMBERS) {
    at = writeIpv4(out, at, endpoint[0], COMMA);
    out[at++] = COMMA;
    at = writeDecimal(out, at, port >>> 8);
    out[at++] = COMMA;
    at = writeDecimal(out, at, port & 0xff);
    return at - start;
  }
  out[at++] = BAR;
  if (f.format === FTP_EXTENDED) out[at++] = family === 4 ? 49 : 50;
  out[at++] = BAR;
  if (f.format === FTP_EXTENDED)
    at = family === 4 ? writeIpv4(out, at, endpoint[0], DOT) : writeIpv6Full(out, at, endpoint);
  out[at++] = BAR;
  at = writeDecimal(out, at, port);
  out[at++] = BAR;
  return at - start;
}
const BAR = 124;
