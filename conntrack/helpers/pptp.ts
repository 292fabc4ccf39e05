/**
 * PPTP (RFC 2637): watches the control connection (TCP 1723) and reports the GRE call that it sets up.
 *
 * Control message (RFC 2637 §2): | length 2 | type 2 = 1 | magic cookie 4 | control type 2 | reserved 2 | body … |
 *
 * The client that opened the connection is the PNS, the server the PAC (netfilter supposes the same). Each end chooses
 * a Call ID for a call, and a GRE packet carries the ID that its *receiver* chose (§4.1). With C the client's ID, S the
 * server's, and T what the server is told instead of C when the connection is translated:
 *
 *   client                                  router                                  server
 *   OCRQ   Call ID C                  ──►   C → T (REWRITE)                   ──►   Call ID T
 *   OCRP   Call ID S, Peer's ID C     ◄──   T → C (REWRITE reverse), 2 EXPECT ◄──   Call ID S, Peer's ID T
 *   GRE    key S                      ──►   key unchanged                     ──►   key S
 *   GRE    key C                      ◄──   T → C                             ◄──   key T
 *   CCRQ   Call ID C                  ──►   C → T (REWRITE), CLOSE            ──►   Call ID T
 *   CDN                               ◄──   Call ID := C (REWRITE reverse), CLOSE ◄──
 *
 * T is the source port that the control connection has at the server's side, as netfilter has it. No two connections
 * from one address to one server share it, so two clients that chose the same C are told apart without a search. Not
 * translated: T = C.
 *
 * The two FIND_EXPECT of a call stand in the OCRP (incoming calls: ICCN), have nothing to rewrite (from = to), and
 * exclude each other: the first GRE packet of either direction makes the connection and removes the other expectation.
 *
 *                    expected           to key (wire)        so source key           connection
 *   reverse 0: client → server          port S               peerPort C              original C → S, reply S → T
 *   reverse 1: server → client          translatedPort T     peerPort S              original S → T, reply C → S
 *
 * that is: `port` is the ID that the receiver of the expected GRE chose, `translatedPort` the same as the sender sees
 * it; `peerPort` and `peerTranslatedPort` are the sender's ID. With reverse 0 the endpoint is this packet's sender (the
 * server), with reverse 1 its receiver (the client; `address` is the client as the server knows it, its own address is
 * the master's). Addresses follow the master both ways; only a destination key is ever rewritten in a GRE header. The
 * source key of a GRE packet, which gre.ts leaves 0, is had by looking (source, destination, destination key) up among
 * the expectations first and the master's keys after; no match: no call, the packet is refused. A repeated OCRP repeats
 * the findings. The expected connection lives 10 minutes, once answered 5 hours (netfilter's values for PPTP's GRE).
 *
 * FIND_CLOSE names the call in the client's terms whichever end sent it (port C, translatedPort T, both peer's S): the
 * expectations and the GRE connection of this master end. CLOSE comes with a Call-Clear-Request of the client's call, a
 * Call-Disconnect-Notify, and either side's Stop-Control-Connection-Request.
 *
 * As netfilter: a message that does not fit the state passes untouched; the Call ID of a CDN (which is the server's,
 * §2.13) becomes C on a translated connection, since clients look for their own there. Unlike netfilter: CCRQ and
 * Stop-Request end the call at once, not the CDN alone; a client's ID in an ICRP is translated (netfilter loses it);
 * several messages in one segment are all seen, not the first only.
 *
 * Does not: join a message split over segments (it passes, the messages after it are found again), nor follow more than
 * one call at a time in a control connection.
 */
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_REWRITE,
  type Finding,
  FROM_PEER_PORT,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  nextFinding,
  UNDERSTOOD,
} from './helper.ts';

const TCP = 6;
const GRE = 47;
const HEADER = 12;
const CONTROL = 1;
const COOKIE = 0x1a2b3c4d;

/** Format of a FIND_REWRITE: two bytes, big endian. */
export const CALL_ID = 1;

// Control message types (RFC 2637 §2.1).
const SCCRQ = 1;
const SCCRP = 2;
const STOP_REQUEST = 3;
const STOP_REPLY = 4;
const OCRQ = 7;
const OCRP = 8;
const ICRQ = 9;
const ICRP = 10;
const ICCN = 11;
const CCRQ = 12;
const CDN = 13;
const WEN = 14;
const SLI = 15;
/** Whole length of each message (§2.1 – §2.15). */
const LENGTHS = new Uint8Array([0, 156, 156, 16, 16, 16, 20, 168, 32, 220, 24, 28, 16, 148, 40, 24]);

// Offsets in a message; `FIRST` is the sender's Call ID or, where only the other's is there, the peer's.
const FIRST = 12;
const SECOND = 14;
const RESULT = 16; // OCRP, ICRP
const RESULT_EARLY = 14; // SCCRP, Stop-Reply: after version or alone
const STOP_RESULT = 12;
const OK = 1;
const ICRP_ACCEPT = 1;

/** The words of state. */
export const PPTP_SESSION = 0; // S_* in bits 0–7, K_* in bits 8–15, BOUNDARY_* flags
export const PPTP_CLIENT = 1; // C: the client's Call ID as it sent it, host order
export const PPTP_SERVER = 2; // S: the server's
export const PPTP_TRANSLATED = 3; // T: the client's as the server knows it
const BOUNDARY = 4; // and 5: sequence number where a message of this direction begins

// Control connection (§3.1) and call (§3.2), in netfilter's terms; the order of S_* is used.
const S_NONE = 0;
const S_ERROR = 1;
const S_STOPREQ = 2;
const S_REQUESTED = 3;
const S_CONFIRMED = 4;
const K_NONE = 0;
const K_OUT_REQ = 1;
const K_OUT_CONF = 2;
const K_IN_REQ = 3;
const K_IN_REP = 4;
const K_IN_CONF = 5;
const K_CLEAR_REQ = 6;
const BOUNDARY_KNOWN = 1 << 16; // << direction

function u16(u8: Uint8Array, at: number): number {
  return (u8[at] << 8) | u8[at + 1];
}

function isHeader(u8: Uint8Array, at: number, to: number): boolean {
  return to - at >= HEADER && u16(u8, at + 2) === CONTROL && ((u16(u8, at + 4) << 16) | u16(u8, at + 6)) === COOKIE;
}

function setSession(c: HelperContext, session: number): void {
  const at = c.stateAt + PPTP_SESSION;
  c.state[at] = (c.state[at] & ~0xff) | session;
}

function setCall(c: HelperContext, call: number): void {
  const at = c.stateAt + PPTP_SESSION;
  c.state[at] = (c.state[at] & ~0xff00) | (call << 8);
}

/** Asks for the Call ID at `at` to become what the receiver knows. */
function rewrite(c: HelperContext, at: number, value: number, reverse: number): void {
  if (!c.nat) return;
  const f = nextFinding(c, FIND_REWRITE, at, at + 2);
  if (f === null) return;
  f.format = CALL_ID;
  f.port = u16(c.u8, at);
  f.translatedPort = value;
  f.reverse = reverse;
}

/** The call is there: GRE may come from either end. */
function expectCall(c: HelperContext): void {
  const s = c.state;
  const own = s[c.stateAt + PPTP_CLIENT];
  const server = s[c.stateAt + PPTP_SERVER];
  const translated = s[c.stateAt + PPTP_TRANSLATED];
  for (let reverse = 0; reverse < 2; reverse++) {
    const f = nextFinding(c, FIND_EXPECT, c.from, c.from);
    if (f === null) return;
    f.proto = GRE;
    f.who = FROM_PEER_PORT;
    f.reverse = reverse;
    f.address.set(reverse === 0 ? c.src : c.dst);
    f.port = reverse === 0 ? server : own;
    f.translatedPort = reverse === 0 ? server : translated;
    f.peerPort = reverse === 0 ? own : server;
    f.peerTranslatedPort = reverse === 0 ? translated : server;
  }
}

function close(c: HelperContext): void {
  const f = nextFinding(c, FIND_CLOSE, c.from, c.from);
  if (f === null) return;
  f.proto = GRE;
  f.port = c.state[c.stateAt + PPTP_CLIENT];
  f.translatedPort = c.state[c.stateAt + PPTP_TRANSLATED];
  f.peerPort = f.peerTranslatedPort = c.state[c.stateAt + PPTP_SERVER];
}

/** The client names its call: from here on the server knows it as T. */
function nameCall(c: HelperContext, at: number): void {
  const id = u16(c.u8, at);
  c.state[c.stateAt + PPTP_CLIENT] = id;
  c.state[c.stateAt + PPTP_TRANSLATED] = c.nat ? c.sportTranslated : id;
}

/** A message of the client (PNS → PAC). */
function outbound(c: HelperContext, at: number, type: number): void {
  const s = c.state;
  const session = s[c.stateAt + PPTP_SESSION] & 0xff;
  const call = (s[c.stateAt + PPTP_SESSION] >>> 8) & 0xff;
  const translated = c.stateAt + PPTP_TRANSLATED;
  switch (type) {
    case SCCRQ:
      if (session === S_NONE) setSession(c, S_REQUESTED);
      return;
    case STOP_REQUEST:
      setSession(c, S_STOPREQ);
      if (call !== K_NONE) close(c);
      setCall(c, K_NONE);
      return;
    case OCRQ:
      if (session !== S_CONFIRMED) return;
      setCall(c, K_OUT_REQ);
      nameCall(c, at + FIRST);
      rewrite(c, at + FIRST, s[translated], 0);
      return;
    case ICRP:
      if (call !== K_IN_REQ && call !== K_IN_REP) return;
      if (u16(c.u8, at + SECOND) !== s[c.stateAt + PPTP_SERVER]) return;
      if (c.u8[at + RESULT] !== ICRP_ACCEPT) {
        setCall(c, K_NONE);
        return;
      }
      setCall(c, K_IN_REP);
      nameCall(c, at + FIRST);
      rewrite(c, at + FIRST, s[translated], 0);
      return;
    case CCRQ:
      if (session !== S_CONFIRMED) return;
      // §2.12: the ID is the one that the PNS chose; that of another call ends nothing here.
      if (u16(c.u8, at + FIRST) !== s[c.stateAt + PPTP_CLIENT]) return;
      rewrite(c, at + FIRST, s[translated], 0);
      if (call !== K_NONE) close(c);
      setCall(c, K_CLEAR_REQ);
      return;
    // Set-Link-Info names the server's ID, which is never translated; echo names none (§2.15, §2.5).
    default:
  }
}

/** A message of the server (PAC → PNS). */
function inbound(c: HelperContext, at: number, type: number): void {
  const s = c.state;
  const session = s[c.stateAt + PPTP_SESSION] & 0xff;
  const call = (s[c.stateAt + PPTP_SESSION] >>> 8) & 0xff;
  const own = s[c.stateAt + PPTP_CLIENT];
  switch (type) {
    case SCCRP:
      if (session >= S_REQUESTED) setSession(c, c.u8[at + RESULT_EARLY] === OK ? S_CONFIRMED : S_ERROR);
      return;
    case STOP_REQUEST:
      setSession(c, S_STOPREQ);
      if (call !== K_NONE) close(c);
      setCall(c, K_NONE);
      return;
    case STOP_REPLY:
      if (session <= S_STOPREQ) setSession(c, c.u8[at + STOP_RESULT] === OK ? S_NONE : S_ERROR);
      return;
    case OCRP:
      if (session !== S_CONFIRMED || (call !== K_OUT_REQ && call !== K_OUT_CONF)) return;
      if (u16(c.u8, at + SECOND) !== s[c.stateAt + PPTP_TRANSLATED]) return;
      if (c.u8[at + RESULT] === OK) {
        setCall(c, K_OUT_CONF);
        s[c.stateAt + PPTP_SERVER] = u16(c.u8, at + FIRST);
        expectCall(c);
      } else setCall(c, K_NONE);
      rewrite(c, at + SECOND, own, 1);
      return;
    case ICRQ:
      if (session !== S_CONFIRMED) return;
      setCall(c, K_IN_REQ);
      s[c.stateAt + PPTP_SERVER] = u16(c.u8, at + FIRST);
      return;
    case ICCN:
      if (session !== S_CONFIRMED || (call !== K_IN_REP && call !== K_IN_CONF)) return;
      if (u16(c.u8, at + FIRST) !== s[c.stateAt + PPTP_TRANSLATED]) return;
      setCall(c, K_IN_CONF);
      expectCall(c);
      rewrite(c, at + FIRST, own, 1);
      return;
    case CDN:
      setCall(c, K_NONE);
      rewrite(c, at + FIRST, own, 1);
      close(c);
      return;
    case WEN:
    case SLI: // from the server it names the client's ID
      rewrite(c, at + FIRST, own, 1);
      return;
    default:
  }
}

function inspect(c: HelperContext): number {
  const boundary = c.stateAt + BOUNDARY + c.dir;
  const known = BOUNDARY_KNOWN << c.dir;
  const word = c.stateAt + PPTP_SESSION;
  let at = c.from;
  if (!isHeader(c.u8, at, c.to) && (c.state[word] & known) !== 0) {
    // Perhaps the rest of a message whose beginning passed in an earlier segment: the next one begins after it.
    const skip = (c.state[boundary] - c.seq) | 0;
    if (skip > 0 && skip < c.to - c.from) at += skip;
  }
  let result = NOT_UNDERSTOOD;
  while (isHeader(c.u8, at, c.to)) {
    const length = u16(c.u8, at);
    if (length < HEADER) break;
    c.state[boundary] = (c.seq + (at - c.from) + length) | 0;
    c.state[word] |= known;
    if (length > c.to - at) break;
    result = UNDERSTOOD;
    const type = u16(c.u8, at + 8);
    if (type < LENGTHS.length && length >= LENGTHS[type]) {
      if (c.dir === 0) outbound(c, at, type);
      else inbound(c, at, type);
    }
    at += length;
  }
  return result;
}

/** Writes a Call ID, 2 bytes big endian: the finding's own `translatedPort` (always given here), else `port`. */
function write(f: Finding, _family: number, _address: Int32Array, port: number, out: Uint8Array, at: number): number {
  const id = f.translatedPort >= 0 ? f.translatedPort : port;
  out[at] = id >>> 8;
  out[at + 1] = id;
  return 2;
}

export const pptp: Helper = {
  name: 'pptp',
  number: 6,
  ports: [1723],
  protocols: [TCP],
  // One call, two directions; netfilter's timeout of 300 s is the findings' default.
  limits: [2],
  inspect,
  write,
};
