/**
 * RTSP: the ports of media that SETUP agrees on (RFC 2326 §12.39, the Transport header).
 *
 *   client  SETUP rtsp://server/a RTSP/1.0        Transport: RTP/AVP;unicast;client_port=4588-4589
 *   server  RTSP/1.0 200 OK                       Transport: RTP/AVP;unicast;client_port=4588-4589;server_port=6256-6257
 *
 * client_port: the server sends RTP and RTCP there (class 0). server_port: the client sends there, which matters when the
 * server is the one behind us (class 1). A reply repeats the client's ports as the server knows them; the client must read
 * its own, so SETUP's port is kept by CSeq. `destination` and `source` that name the sender itself are rewritten; those
 * that name another host open nothing (§12.39: a server that sends where it is told to attacks), except with `bounce` and
 * `loose`. TEARDOWN closes what was not used. Linux has no such helper; this follows the RFC.
 *
 *   words: 0–3 framing    4 flags    5–7 CSeq << 16 | client port of up to three SETUPs under way
 *
 * Left alone: interleaved data (`$`, §10.12) and media over TCP, multicast, messages whose headers a segment cuts, RTSP in
 * HTTP, RTSP 2.0's dest_addr.
 */
import {
  contentLength,
  cutHeaders,
  endOfHeaders,
  FRAMING_WORDS,
  isNamed,
  newHeaderLine,
  parameter,
  passBody,
  readHeader,
  resumeMessages,
  skipBlankLines,
  skipLineEnd,
} from './header.ts';
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_REWRITE,
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
  copyAddress,
  DASH,
  DOLLAR,
  DOT,
  decimal,
  find,
  lineEnd,
  looksLikeHttp,
  matches,
  readIpv4,
  readIpv6,
  SEMICOLON,
  sameAddress,
  skipDigits,
  until,
  word,
  writeDecimal,
  writeIpv4,
  writeIpv6,
} from './text.ts';

export const RTSP = 4;
/** Spellings (Finding.format): one port or a pair; an address. */
export const RTSP_PORTS = 0;
export const RTSP_ADDRESS = 1;
/** Expectation classes: towards the client, towards the server. */
export const RTSP_CLIENT = 0;
export const RTSP_SERVER = 1;

const FLAGS = FRAMING_WORDS;
const SETUPS = FRAMING_WORDS + 1;
const SETUPS_KEPT = 3;
const STOPPED = 1;

const W_SETUP = word('setup ');
const W_TEARDOWN = word('teardown ');
const W_VERSION = word('rtsp/1.');
const W_TRANSPORT = word('transport');
const W_CSEQ = word('cseq');
const W_TCP = word('/tcp');
const W_MULTICAST = word('multicast');
const W_CLIENT_PORT = word('client_port=');
const W_SERVER_PORT = word('server_port=');
const W_DESTINATION = word('destination=');
const W_SOURCE = word('source=');

const header = newHeaderLine();
const named = new Int32Array(4);
let bad = false;

export const rtsp: Helper = {
  name: 'rtsp',
  number: RTSP,
  ports: [554],
  protocols: [6],
  limits: [8, 8],
  inspect,
  write,
};

function inspect(c: HelperContext): number {
  const s = c.state;
  const w = c.stateAt;
  if (c.from >= c.to || (s[w + FLAGS] & STOPPED) !== 0) return UNDERSTOOD;
  if (c.dir === 0 && looksLikeHttp(c.u8, c.from, c.to)) {
    s[w + FLAGS] |= STOPPED;
    return UNDERSTOOD;
  }
  bad = false;
  let at = resumeMessages(c, w, false);
  while (at < c.to) {
    if (c.u8[at] === DOLLAR) {
      // §10.12: "$", channel, two bytes of length. A header that is cut leaves nothing to go on with.
      if (c.to - at < 4) return UNDERSTOOD;
      at = passBody(c, w, at, 4 + ((c.u8[at + 2] << 8) | c.u8[at + 3]));
      continue;
    }
    at = skipBlankLines(c.u8, at, c.to);
    if (at === c.to) break;
    if (!isStart(c, at)) return NOT_UNDERSTOOD;
    const headers = skipLineEnd(c.u8, lineEnd(c.u8, at, c.to), c.to);
    const end = endOfHeaders(c.u8, headers, c.to);
    if (end < 0) {
      cutHeaders(c, w, headers, false);
      return NOT_UNDERSTOOD;
    }
    message(c, at, headers, end);
    const length = contentLength(c.u8, headers, end, false);
    if (length < 0) return NOT_UNDERSTOOD;
    at = passBody(c, w, end, length);
  }
  return bad ? NOT_UNDERSTOOD : UNDERSTOOD;
}

/** True when a start line is at `at`: `RTSP/1.0 200 OK`, or a method with RTSP/1. at the end of its line. */
function isStart(c: HelperContext, at: number): boolean {
  return matches(c.u8, at, c.to, W_VERSION) || find(c.u8, at, lineEnd(c.u8, at, c.to), W_VERSION) > at;
}

function message(c: HelperContext, at: number, headers: number, end: number): void {
  if (c.dir === 0) {
    if (matches(c.u8, at, end, W_TEARDOWN)) {
      close(c, at, RTSP_CLIENT);
      close(c, at, RTSP_SERVER);
    }
    if (!matches(c.u8, at, end, W_SETUP)) return;
  } else {
    // "RTSP/1.0 2xx"
    if (!matches(c.u8, at, end, W_VERSION) || c.u8[at + 9] !== 50) return;
  }
  let sequence = -1;
  for (let next = headers; (next = readHeader(c.u8, next, end, header)) >= 0; )
    if (isNamed(c.u8, header, W_CSEQ, 0)) sequence = decimal(c.u8, header.value, header.valueEnd, 0x7fffffff);
  for (let next = headers; (next = readHeader(c.u8, next, end, header)) >= 0; ) {
    if (!isNamed(c.u8, header, W_TRANSPORT, 0)) continue;
    // A list of specifications, in the client's order of preference; a reply has one.
    const to = header.valueEnd;
    for (let spec = header.value; spec < to; ) {
      const specEnd = until(c.u8, spec, to, COMMA);
      transport(c, spec, specEnd, sequence);
      spec = specEnd + 1;
    }
  }
}

function close(c: HelperContext, at: number, what: number): void {
  const f = nextFinding(c, FIND_CLOSE, at, at);
  if (f !== null) f.class = what;
}

/** One transport specification: its parameters that matter, in the order of their place. */
function transport(c: HelperContext, at: number, to: number, sequence: number): void {
  const u8 = c.u8;
  const protocolEnd = until(u8, at, to, SEMICOLON);
  if (find(u8, at, protocolEnd, W_TCP) >= 0 || parameter(u8, at, to, W_MULTICAST) >= 0) return;
  // Where the media shall go, or come from, when that is said: another host than the one that says so is refused.
  const host = parameter(u8, at, to, c.dir === 0 ? W_DESTINATION : W_SOURCE);
  const opens = host < 0 || isSender(c, host, to) || (c.dir === 0 ? c.bounce : c.loose);
  if (!opens) bad = true;
  for (let next = protocolEnd; next < to; next = until(u8, next + 1, to, SEMICOLON)) {
    const name = next + 1;
    if (matches(u8, name, to, W_CLIENT_PORT)) {
      if (c.dir !== 0) sentBack(c, name + W_CLIENT_PORT.length, to, sequence);
      else if (opens) clientPort(c, name + W_CLIENT_PORT.length, to, sequence, host);
    } else if (matches(u8, name, to, W_SERVER_PORT)) {
      if (c.dir !== 0 && opens) expectMedia(c, name + W_SERVER_PORT.length, to, RTSP_SERVER, host);
    } else if (matches(u8, name, to, W_DESTINATION)) rewriteAddress(c, name + W_DESTINATION.length, to);
    else if (matches(u8, name, to, W_SOURCE)) rewriteAddress(c, name + W_SOURCE.length, to);
  }
}

/** Reads the address at `at` into `named`; its end, or −1 (a name). */
function readAddress(c: HelperContext, at: number, to: number): number {
  return c.family === 4 ? readIpv4(c.u8, at, to, DOT, named) : readIpv6(c.u8, at, to, named);
}

function isSender(c: HelperContext, at: number, to: number): boolean {
  return readAddress(c, at, to) >= 0 && sameAddress(c.family, named, c.src);
}

// What readPorts found.
let first = 0;
let count = 0;

/** `a` or `a-b` with b = a + 1. Returns the offset behind it, or −1. */
function readPorts(u8: Uint8Array, at: number, to: number): number {
  first = decimal(u8, at, to, 65535);
  if (first < 1024) return -1; // media have no business at well-known ports
  at = skipDigits(u8, at, to);
  count = 1;
  if (at >= to || u8[at] !== DASH) return at;
  const second = decimal(u8, at + 1, to, 65535);
  if (second !== first + 1) return second === first ? skipDigits(u8, at + 1, to) : -1;
  count = 2;
  return skipDigits(u8, at + 1, to);
}

/** SETUP's client_port. */
function clientPort(c: HelperContext, at: number, to: number, sequence: number, host: number): void {
  if (!expectMedia(c, at, to, RTSP_CLIENT, host)) return;
  const slot = c.stateAt + SETUPS + (sequence < 0 ? 0 : sequence % SETUPS_KEPT);
  // Of several specifications in one SETUP the first is kept: the client likes it best.
  const kept = c.state[slot];
  if (kept === 0 || (((kept >>> 16) ^ sequence) & 0xffff) !== 0) c.state[slot] = (sequence << 16) | first;
}

/** client_port in a reply: the server repeats the ports that it was told; the client looks for those that it asked for. */
function sentBack(c: HelperContext, at: number, to: number, sequence: number): void {
  const end = readPorts(c.u8, at, to);
  const kept = c.state[c.stateAt + SETUPS + (sequence < 0 ? 0 : sequence % SETUPS_KEPT)];
  if (end < 0 || !c.nat || kept === 0 || (((kept >>> 16) ^ sequence) & 0xffff) !== 0) return;
  if ((kept & 0xffff) === first) return;
  const f = nextFinding(c, FIND_REWRITE, at, end);
  if (f === null) return;
  f.format = RTSP_PORTS;
  copyAddress(c.family, c.dst, f.address);
  f.port = first;
  f.count = count;
  f.proto = 17;
  f.reverse = 1;
  f.translatedPort = kept & 0xffff;
}

function expectMedia(c: HelperContext, at: number, to: number, what: number, host: number): boolean {
  const end = readPorts(c.u8, at, to);
  const f = end < 0 ? null : nextFinding(c, FIND_EXPECT, at, end);
  if (f === null) {
    bad = true;
    return false;
  }
  f.format = RTSP_PORTS;
  copyAddress(c.family, host >= 0 && readAddress(c, host, to) >= 0 ? named : c.src, f.address);
  f.port = first;
  f.count = count;
  f.even = count === 2 && (first & 1) === 0 ? 1 : 0;
  f.proto = 17;
  f.who = FROM_PEER;
  f.class = what;
  return true;
}

/** `destination` and `source`: the sender's own address, or the receiver's as the sender knows it. */
function rewriteAddress(c: HelperContext, at: number, to: number): void {
  if (!c.nat) return;
  const end = readAddress(c, at, to);
  if (end < 0) return;
  const own = sameAddress(c.family, named, c.src);
  if (!own && !sameAddress(c.family, named, c.dst)) return;
  const f = nextFinding(c, FIND_REWRITE, at, end);
  if (f === null) return;
  f.format = RTSP_ADDRESS;
  copyAddress(c.family, named, f.address);
  f.port = own ? c.sport : c.dport;
  f.reverse = own ? 0 : 1;
}

function write(f: Finding, family: number, address: Int32Array, port: number, out: Uint8Array, at: number): number {
  const start = at;
  if (f.format === RTSP_ADDRESS)
    return (family === 4 ? writeIpv4(out, at, address[0], DOT) : writeIpv6(out, at, address)) - start;
  if (f.kind === FIND_REWRITE && f.translatedPort >= 0) port = f.translatedPort;
  at = writeDecimal(out, at, port);
  if (f.count === 2) {
    out[at++] = DASH;
    at = writeDecimal(out, at, port + 1);
  }
  return at - start;
}
