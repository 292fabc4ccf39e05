/**
 * SIP: calls and registrations (RFC 3261), over UDP and TCP.
 *
 *   media        what the SDP of INVITE, UPDATE, ACK, PRACK and their good answers announces (sdp.ts)
 *   signalling   Contact of REGISTER: the registrar will send calls there, as long as the registration lives
 *   addresses    in a translated connection, the two ends of *this* connection wherever a header names them: the sender's
 *                own becomes the translated one; the receiver's, as the sender knows it, becomes what the receiver is.
 *                Request-URI, topmost Via (with maddr, received, rport), every Contact, Route and Record-Route, From, To
 *   length       Content-Length, when the body may change
 *
 * INVITE, BYE, CANCEL and a bad answer to the last INVITE close media that were not used. All as Linux's helper does it,
 * with its defaults: media between those who signal, calls from the registrar only. Beyond Linux: Route and Record-Route
 * (a proxy inside), CANCEL, and that nothing is dropped: what cannot be understood goes on as it is.
 *
 *   words: 0–3 framing (TCP)   4 flags   5 CSeq of the last REGISTER   6 CSeq of the last INVITE
 *
 * TCP: messages that lie in one segment whole, several of them too. Not here: sips (TLS), names instead of addresses
 * (never resolved), phones that send from one port and listen on another (Linux's "forced dport"), third-party
 * registrations, media that a message announces for others.
 */
import {
  contentLength,
  cutHeaders,
  endOfHeaders,
  FRAMING_WORDS,
  isNamed,
  lengthAt,
  newHeaderLine,
  parameter,
  passBody,
  readHeader,
  resumeMessages,
  skipBlankLines,
  skipLineEnd,
  skipWhite,
} from './header.ts';
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_LENGTH,
  FIND_REFRESH,
  FIND_REWRITE,
  type Finding,
  FROM_PEER,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  nextFinding,
  UNDERSTOOD,
} from './helper.ts';
import { CLASS_AUDIO, CLASS_IMAGE, describe, findDescription, SDP_ADDRESS, SDP_PORT } from './sdp.ts';
import {
  AT,
  CLOSE_BRACKET,
  COLON,
  COMMA,
  CR,
  copyAddress,
  DASH,
  DOT,
  decimal,
  find,
  GREATER,
  isAlpha,
  isDigit,
  LESS,
  LF,
  lineEnd,
  looksLikeHttp,
  matches,
  OPEN_BRACKET,
  QUOTE,
  readIpv4,
  readIpv6,
  SEMICOLON,
  SPACE,
  sameAddress,
  skipBlanks,
  skipDigits,
  until,
  word,
  writeDecimal,
  writeIpv4,
  writeIpv6,
} from './text.ts';

export const SIP = 5;
export const SIP_PORT = 5060;
/** Spellings (Finding.format): address:port; address, IPv6 in brackets; address bare; port or length alone. */
export const SIP_ENDPOINT = 0;
export const SIP_HOST = 1;
export const SIP_ADDRESS = SDP_ADDRESS;
export const SIP_NUMBER = SDP_PORT;

/** Expectation class of signalling; media: sdp.ts. */
export const CLASS_SIGNALLING = 0;
/** Longest registration that is believed, seconds. */
const MAX_EXPIRES = 86400;

const FLAGS = FRAMING_WORDS;
const REGISTER_SEQUENCE = FRAMING_WORDS + 1;
const INVITE_SEQUENCE = FRAMING_WORDS + 2;
const STOPPED = 1;

const W_SIP = word('sip:');
const W_VERSION = word('sip/2.0');
const W_MADDR = word('maddr=');
const W_RECEIVED = word('received=');
const W_RPORT = word('rport=');
const W_EXPIRES_PARAMETER = word('expires=');
const W_TRANSPORT = word('transport=');
const W_UDP = word('udp');
const W_TCP = word('tcp');

/** Methods by number; the first four may carry a description. */
const METHODS = ['invite', 'update', 'ack', 'prack', 'bye', 'cancel', 'register'].map(word);
const INVITE = 0;
const UPDATE = 1;

const PRACK = 3;
const BYE = 4;
const CANCEL = 5;
const REGISTER = 6;
const OTHER = 7;

const H_CSEQ = word('cseq');
const H_EXPIRES = word('expires');
const H_VIA = word('via');
const H_CONTACT = word('contact');
const H_FROM = word('from');
const H_TO = word('to');
const H_ROUTE = word('route');
const H_RECORD_ROUTE = word('record-route');
/** Compact forms, RFC 3261 §7.3.3. */
const F = 102;
const T = 116;
const C_M = 109;
const V = 118;

const header = newHeaderLine();
let bad = false;

export const sip: Helper = {
  name: 'sip',
  number: SIP,
  ports: [SIP_PORT],
  protocols: [17, 6],
  limits: [1, 4, 4, 2],
  inspect,
  write,
};

function inspect(c: HelperContext): number {
  const s = c.state;
  const w = c.stateAt;
  if (c.from >= c.to || (s[w + FLAGS] & STOPPED) !== 0) return UNDERSTOOD;
  bad = false;
  if (c.proto !== 6) {
    const at = skipBlankLines(c.u8, c.from, c.to); // keep-alives are blank lines only
    if (at === c.to) return UNDERSTOOD;
    if (!isStart(c.u8, at, c.to)) return NOT_UNDERSTOOD;
    const headers = skipLineEnd(c.u8, lineEnd(c.u8, at, c.to), c.to);
    const end = endOfHeaders(c.u8, headers, c.to);
    if (end < 0) return NOT_UNDERSTOOD;
    const length = contentLength(c.u8, headers, end, true);
    // RFC 3261 §18.3: a datagram may end the body; bytes behind it are nobody's.
    if (length < 0) return NOT_UNDERSTOOD;
    const to = lengthAt.to > lengthAt.from ? Math.min(c.to, end + length) : c.to;
    message(c, at, headers, end, to, length);
    return bad ? NOT_UNDERSTOOD : UNDERSTOOD;
  }
  // A page that makes a browser post "REGISTER ..." to this port: NAT slipstreaming.
  if (looksLikeHttp(c.u8, c.from, c.to)) {
    s[w + FLAGS] |= STOPPED;
    return UNDERSTOOD;
  }
  for (let at = resumeMessages(c, w, true); at < c.to; ) {
    at = skipBlankLines(c.u8, at, c.to);
    if (at === c.to) break;
    if (!isStart(c.u8, at, c.to)) return NOT_UNDERSTOOD;
    const headers = skipLineEnd(c.u8, lineEnd(c.u8, at, c.to), c.to);
    const end = endOfHeaders(c.u8, headers, c.to);
    if (end < 0) {
      cutHeaders(c, w, headers, true);
      return NOT_UNDERSTOOD;
    }
    const length = contentLength(c.u8, headers, end, true);
    // §18.3: over a stream there must be one; without it nobody knows where the next message begins.
    if (length < 0 || lengthAt.to === lengthAt.from) return NOT_UNDERSTOOD;
    if (length > c.to - end) {
      passBody(c, w, end, length);
      return NOT_UNDERSTOOD;
    }
    message(c, at, headers, end, end + length, length);
    at = end + length;
  }
  return bad ? NOT_UNDERSTOOD : UNDERSTOOD;
}

/** True for `SIP/2.0 NNN ...` and for `METHOD uri SIP/2.0`, whole lines. */
function isStart(u8: Uint8Array, at: number, to: number): boolean {
  const end = lineEnd(u8, at, to);
  if (end === to) return false;
  if (matches(u8, at, end, W_VERSION)) return at + 11 <= end && u8[at + 7] === SPACE && isDigit(u8[at + 8]);
  if (!isAlpha(u8[at])) return false;
  // The line may be shorter than the version: what stands before it is not ours to read.
  const version = end - W_VERSION.length;
  return version > at && matches(u8, version, end, W_VERSION) && u8[version - 1] === SPACE;
}

/** The method at `at`, when it is one that matters and ends there. */
function methodAt(u8: Uint8Array, at: number, to: number): number {
  for (let n = 0; n < METHODS.length; n++)
    if (matches(u8, at, to, METHODS[n])) {
      const behind = at + METHODS[n].length;
      return behind === to || u8[behind] <= SPACE ? n : OTHER;
    }
  return OTHER;
}

// What a message is, for the functions that read its headers.
let sequence = -1;
let expires = 0;

/** One message: start line at `at`, headers in [headers, body), body in [body, to) of `length` bytes as the header says. */
function message(c: HelperContext, at: number, headers: number, body: number, to: number, length: number): void {
  const u8 = c.u8;
  const reply = matches(u8, at, headers, W_VERSION);
  const status = reply ? decimal(u8, at + 8, headers, 999) : 0;
  let method = reply ? OTHER : methodAt(u8, at, headers);
  sequence = -1;
  expires = 0;
  for (let next = headers; (next = readHeader(u8, next, body, header)) >= 0; ) {
    if (isNamed(u8, header, H_CSEQ, 0) && sequence < 0) {
      sequence = decimal(u8, header.value, header.valueEnd, 0xffffffff);
      const behind = skipBlanks(u8, skipDigits(u8, header.value, header.valueEnd), header.valueEnd);
      if (reply) method = methodAt(u8, behind, header.valueEnd);
    } else if (isNamed(u8, header, H_EXPIRES, 0))
      expires = Math.max(0, decimal(u8, header.value, header.valueEnd, 0xffffffff));
  }
  // A number that is missing or none: what the message does to others cannot be told.
  if (sequence < 0 || (reply && status < 100)) {
    bad = true;
    return;
  }
  const s = c.state;
  const w = c.stateAt;
  let media = false;
  let registers = false;
  if (!reply) {
    media = method <= PRACK;
    registers = method === REGISTER;
    if (method === INVITE || method === BYE || method === CANCEL) closeMedia(c, at);
    if (method === INVITE) s[w + INVITE_SEQUENCE] = sequence | 0;
  } else if (method === INVITE || method === UPDATE || method === PRACK) {
    if (status < 300) media = true;
    else if (s[w + INVITE_SEQUENCE] === (sequence | 0)) closeMedia(c, at);
  } else if (method === REGISTER && s[w + REGISTER_SEQUENCE] === (sequence | 0) && status >= 200) {
    const lives = status < 300 ? confirmed(c, headers, body) : 0;
    const f = nextFinding(c, lives > 0 ? FIND_REFRESH : FIND_CLOSE, at, at);
    if (f !== null) {
      f.class = CLASS_SIGNALLING;
      f.timeout = lives;
    }
  }
  if (registers) s[w + REGISTER_SEQUENCE] = sequence | 0;

  const description = media ? findDescription(u8, body, to) : -1;
  contentLength(u8, headers, body, true);
  const lengthFrom = description >= 0 && lengthAt.to > lengthAt.from ? lengthAt.from : -1;
  if (c.nat && !reply) requestUri(c, at, headers);
  let via = false;
  let from = false;
  let dest = false;
  for (let next = headers; (next = readHeader(u8, next, body, header)) >= 0; ) {
    const value = header.value;
    const end = header.valueEnd;
    if (isNamed(u8, header, H_CONTACT, C_M)) registers = contact(c, value, end, registers);
    else if (!c.nat) continue;
    else if (!via && isNamed(u8, header, H_VIA, V)) via = topmostVia(c, value, end, reply);
    else if (!from && isNamed(u8, header, H_FROM, F)) from = mapUris(c, value, end);
    else if (!dest && isNamed(u8, header, H_TO, T)) dest = mapUris(c, value, end);
    else if (isNamed(u8, header, H_ROUTE, 0) || isNamed(u8, header, H_RECORD_ROUTE, 0)) mapUris(c, value, end);
    else if (value === lengthFrom) {
      const f = nextFinding(c, FIND_LENGTH, value, skipDigits(u8, value, end));
      if (f === null) continue;
      f.format = SIP_NUMBER;
      f.port = length;
      f.bodyFrom = body;
      f.bodyTo = to;
    }
  }
  if (description >= 0 && !describe(c, description, to)) bad = true;
}

function closeMedia(c: HelperContext, at: number): void {
  for (let what = CLASS_AUDIO; what <= CLASS_IMAGE; what++) {
    const f = nextFinding(c, FIND_CLOSE, at, at);
    if (f !== null) f.class = what;
  }
}

// What readEndpoint found.
const host = new Int32Array(4);
let port = 0;
let endpointEnd = 0;

/** An address (IPv6 in brackets) and perhaps `:port` at `at`; Linux's rule: a port that is named is 1024 or more. */
function readEndpoint(c: HelperContext, at: number, to: number): boolean {
  const end = readHost(c, at, to, true);
  if (end < 0) return false;
  port = SIP_PORT;
  endpointEnd = end;
  if (end >= to || c.u8[end] !== COLON) return true;
  endpointEnd = skipDigits(c.u8, end + 1, to);
  port = decimal(c.u8, end + 1, to, 65535);
  return port >= 1024;
}

/** An address of the connection's family at `at` to `host`; its end, or −1. `brackets`: IPv6 must have them. */
function readHost(c: HelperContext, at: number, to: number, brackets: boolean): number {
  const u8 = c.u8;
  if (c.family === 4) {
    const end = readIpv4(u8, at, to, DOT, host);
    // "10.0.0.1.example" is a name.
    if (end >= 0 && end < to && (isAlpha(u8[end]) || isDigit(u8[end]) || u8[end] === DOT || u8[end] === DASH))
      return -1;
    return end;
  }
  const open = at < to && u8[at] === OPEN_BRACKET;
  if (!open && brackets) return -1;
  const end = readIpv6(u8, open ? at + 1 : at, to, host);
  if (end < 0 || !open) return end;
  return end < to && u8[end] === CLOSE_BRACKET ? end + 1 : -1;
}

/**
 * Reports the endpoint in [at, endpointEnd) (in `host` and `port`) when it is one of the two of this connection; `mask`: 1
 * the sender's counts, 2 the receiver's.
 */
function map(c: HelperContext, at: number, end: number, format: number, mask: number): void {
  const whole = format === SIP_ENDPOINT;
  if ((mask & 1) !== 0 && sameAddress(c.family, host, c.src) && (!whole || port === c.sport)) {
    if (sameAddress(c.family, c.src, c.srcTranslated) && (!whole || c.sport === c.sportTranslated)) return;
    report(c, at, end, format, c.src, c.sport, 0);
  } else if ((mask & 2) !== 0 && sameAddress(c.family, host, c.dst) && (!whole || port === c.dport))
    report(c, at, end, format, c.dst, c.dport, 1);
}

function report(
  c: HelperContext,
  at: number,
  end: number,
  format: number,
  address: Int32Array,
  number: number,
  reverse: number,
): void {
  const f = nextFinding(c, FIND_REWRITE, at, end);
  if (f === null) return;
  f.format = format;
  copyAddress(c.family, address, f.address);
  f.port = number;
  f.reverse = reverse;
}

/** Where the host of the `sip:` URI at `at` begins: behind the user part, if there is one. */
function hostOf(u8: Uint8Array, at: number, to: number): number {
  const start = at + W_SIP.length;
  for (let n = start; n < to; n++) {
    const b = u8[n];
    if (b === AT) return n + 1;
    if (b === GREATER || b === SPACE || b === CR || b === LF) break;
  }
  return start;
}

function requestUri(c: HelperContext, at: number, headers: number): void {
  const end = lineEnd(c.u8, at, headers);
  const uri = find(c.u8, until(c.u8, at, end, SPACE), end, W_SIP);
  if (uri < 0) return;
  const start = hostOf(c.u8, uri, end);
  if (readEndpoint(c, start, end)) map(c, start, endpointEnd, SIP_ENDPOINT, 3);
}

/** Topmost Via: `SIP/2.0/UDP 192.168.1.2:5060;rport;branch=...`. False: not one that could be read, the next may be. */
function topmostVia(c: HelperContext, at: number, to: number, reply: boolean): boolean {
  const u8 = c.u8;
  const mark = find(u8, at, to, c.proto === 6 ? W_TCP : W_UDP);
  if (mark < 0) return false;
  const start = skipWhite(u8, mark + W_UDP.length, to);
  if (!readEndpoint(c, start, to)) return false;
  // A request's is the sender's, a reply's the receiver's; any other is not of this connection.
  if (!sameAddress(c.family, host, reply ? c.dst : c.src) || port !== (reply ? c.dport : c.sport)) return true;
  map(c, start, endpointEnd, SIP_ENDPOINT, reply ? 2 : 1);
  const last = until(u8, endpointEnd, to, COMMA);
  for (let n = until(u8, endpointEnd, last, SEMICOLON); n < last; n = until(u8, n + 1, last, SEMICOLON)) {
    const name = skipWhite(u8, n + 1, last);
    if (matches(u8, name, last, W_MADDR)) {
      const value = name + W_MADDR.length;
      const end = readHost(c, value, last, true);
      if (end >= 0) map(c, value, end, SIP_HOST, 1);
    } else if (matches(u8, name, last, W_RECEIVED)) {
      const value = name + W_RECEIVED.length;
      const end = readHost(c, value, last, false);
      if (end >= 0) map(c, value, end, SIP_ADDRESS, 2);
    } else if (matches(u8, name, last, W_RPORT)) {
      const value = name + W_RPORT.length;
      if (decimal(u8, value, last, 65535) === c.dport)
        report(c, value, skipDigits(u8, value, last), SIP_NUMBER, c.dst, c.dport, 1);
    }
  }
  return true;
}

/**
 * The `sip:` URI of the value in a comma-separated list that begins at `at`: behind a display name, in angle brackets or
 * not. −1 when the value has none; `valueEnd` is where it ends, at a comma or `to`.
 */
function uriOf(u8: Uint8Array, at: number, to: number): number {
  let uri = -1;
  let angle = false;
  for (; at < to; at++) {
    const b = u8[at];
    if (b === QUOTE && !angle) {
      // §25.1: a backslash in a quoted string takes the next byte's meaning away.
      for (at++; at < to && u8[at] !== QUOTE; at++) if (u8[at] === 92) at++;
    } else if (b === LESS) {
      angle = true;
      uri = matches(u8, at + 1, to, W_SIP) ? at + 1 : -1;
    } else if (b === GREATER) angle = false;
    else if (b === COMMA && !angle) break;
    else if (uri < 0 && !angle && matches(u8, at, to, W_SIP)) uri = at;
  }
  valueEnd = Math.min(at, to);
  return uri;
}
let valueEnd = 0;

/** Every URI of a header's value. True, so that a caller can note that it was done. */
function mapUris(c: HelperContext, at: number, to: number): boolean {
  for (let next = at; next < to; next = valueEnd + 1) {
    const uri = uriOf(c.u8, next, to);
    if (uri < 0) continue;
    const start = hostOf(c.u8, uri, valueEnd);
    if (readEndpoint(c, start, valueEnd)) map(c, start, endpointEnd, SIP_ENDPOINT, 3);
  }
  return true;
}

/** Contact. `registers`: this is a REGISTER, and its first readable one counts; returns whether that is still to come. */
function contact(c: HelperContext, at: number, to: number, registers: boolean): boolean {
  for (let next = at; next < to; next = valueEnd + 1) {
    const uri = uriOf(c.u8, next, to);
    if (uri < 0) continue;
    const start = hostOf(c.u8, uri, valueEnd);
    if (!readEndpoint(c, start, valueEnd)) continue;
    const first = registers;
    registers = false;
    if (first && registration(c, start)) continue;
    if (c.nat) map(c, start, endpointEnd, SIP_ENDPOINT, 3);
  }
  return registers;
}

/** Seconds that the binding whose endpoint was just read asks for; −1 when its transport is not this connection's. */
function lifetime(c: HelperContext): number {
  const u8 = c.u8;
  const transport = parameter(u8, endpointEnd, valueEnd, W_TRANSPORT);
  if (transport >= 0 && !matches(u8, transport, valueEnd, c.proto === 6 ? W_TCP : W_UDP)) return -1;
  const own = parameter(u8, endpointEnd, valueEnd, W_EXPIRES_PARAMETER);
  if (own < 0) return Math.min(expires, MAX_EXPIRES);
  const seconds = decimal(u8, own, valueEnd, 0xffffffff);
  if (seconds < 0) bad = true;
  return Math.min(seconds, MAX_EXPIRES);
}

/** REGISTER's Contact (§10.2): calls will come there from the registrar. True when that was reported. */
function registration(c: HelperContext, at: number): boolean {
  if (!sameAddress(c.family, host, c.src)) return false; // a third party's
  const seconds = lifetime(c);
  if (seconds <= 0) return false; // §10.2.2: 0 takes a binding away
  const f = nextFinding(c, FIND_EXPECT, at, endpointEnd);
  if (f === null) return true;
  f.format = SIP_ENDPOINT;
  copyAddress(c.family, host, f.address);
  f.port = port;
  f.proto = c.proto;
  f.who = FROM_PEER;
  f.class = CLASS_SIGNALLING;
  f.timeout = seconds;
  f.permanent = 1;
  f.pending = 1;
  f.helper = SIP;
  // The port that this connection has outside already is the one to be called at.
  if (c.nat && port === c.sport) f.translatedPort = c.sportTranslated;
  return true;
}

/** A good answer to REGISTER lists the bindings (§10.3): seconds that the receiver's has to live; 0: it has none. */
function confirmed(c: HelperContext, headers: number, body: number): number {
  for (let line = headers; (line = readHeader(c.u8, line, body, header)) >= 0; ) {
    if (!isNamed(c.u8, header, H_CONTACT, C_M)) continue;
    for (let next = header.value; next < header.valueEnd; next = valueEnd + 1) {
      const uri = uriOf(c.u8, next, header.valueEnd);
      if (uri < 0 || !readEndpoint(c, hostOf(c.u8, uri, valueEnd), valueEnd)) continue;
      if (!sameAddress(c.family, host, c.dst)) continue;
      const seconds = lifetime(c);
      if (seconds >= 0) return seconds;
    }
  }
  return 0;
}

function write(
  f: Finding,
  family: number,
  address: Int32Array,
  number: number,
  out: Uint8Array,
  start: number,
): number {
  let at = start;
  if (f.format === SIP_NUMBER) return writeDecimal(out, at, number) - start;
  const brackets = family !== 4 && f.format !== SIP_ADDRESS;
  if (brackets) out[at++] = OPEN_BRACKET;
  at = family === 4 ? writeIpv4(out, at, address[0], DOT) : writeIpv6(out, at, address);
  if (brackets) out[at++] = CLOSE_BRACKET;
  if (f.format === SIP_ENDPOINT) {
    out[at++] = COLON;
    at = writeDecimal(out, at, number);
  }
  return at - start;
}
