/**
 * TCP: does this segment belong to the connection, and what does it do to it?
 *
 * Two questions, in this order. The state table (tcp-states.ts) says whether a segment of this kind makes sense now;
 * the window (tcp-window.ts) says whether its numbers do. Between the two stand the segments that are not what they seem:
 * RSTs that may be forged, SYNs on a connection that we still hold, challenge ACKs (RFC 5961).
 *
 * Behaviour is that of nf_conntrack in Linux 6.18, but for connections that come back from the offload engine
 * (`relearnTcp`), which Linux lets pass unchecked from then on.
 *
 * What it does not do: verify checksums, normalise segments, adjust sequence numbers (the caller passes the offset).
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import {
  assure,
  refresh,
  TRACK_ACCEPT,
  TRACK_ACCEPT_LAST,
  TRACK_IGNORE,
  TRACK_INVALID,
  TRACK_REPEAT,
  WHY_TCP_CHALLENGE_ACK,
  WHY_TCP_FLAGS,
  WHY_TCP_IGNORED,
  WHY_TCP_NEW,
  WHY_TCP_NOT_LOOSE,
  WHY_TCP_REFUSED,
  WHY_TCP_REOPEN,
  WHY_TCP_RST_DOUBTFUL,
  WHY_TCP_RST_INEXACT,
  WHY_TCP_RST_OUTSIDE,
  WHY_TCP_RST_RELEARN,
  WHY_TCP_STATE,
} from './generic.ts';
import {
  CT_DEADLINE,
  CT_LAST_ACK,
  CT_LAST_END,
  CT_LAST_SEQ,
  CT_LAST_WIN,
  CT_STATE,
  CT_STATUS,
  CT_TCP,
  CT_TCP_BITS,
  CT_TCP_LAST,
  IPS_ASSURED,
  IPS_FIXED_TIMEOUT,
  IPS_SEEN_REPLY,
  ORIGINAL,
  REPLY,
  TCP_CLOSE,
  TCP_END,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT,
  TCP_LAST_ACK,
  TCP_MAXACK,
  TCP_MAXEND,
  TCP_MAXWIN,
  TCP_NONE,
  TCP_SYN_RECV,
  TCP_SYN_SENT,
  TCP_SYN_SENT2,
  TCP_TIME_WAIT,
  TCPF_BE_LIBERAL,
  TCPF_CLOSE_INIT,
  TCPF_DATA_UNACKNOWLEDGED,
  TCPF_EXP_CHALLENGE_ACK,
  TCPF_MAXACK_SET,
  TCPF_SACK_PERM,
  TCPF_SIMULTANEOUS_OPEN,
  TCPF_WINDOW_SCALE,
} from './record.ts';
import {
  isClosing,
  KIND_ACK,
  KIND_FIN,
  KIND_NONE,
  KIND_RST,
  KIND_SYN,
  KIND_SYNACK,
  packetKind,
  STATE_IGNORE,
  STATE_INVALID,
  stateCell,
  TRANSITIONS,
  validFlags,
} from './tcp-states.ts';
import {
  after,
  applyOptions,
  be32,
  flagsOf,
  inWindow,
  lastFlags,
  plausibleRst,
  setFlags,
  setLastFlags,
  setScale,
  synOptions,
  TOLERANT,
  tcpSeqEnd,
  tolerance,
} from './tcp-window.ts';
import {
  CFG_TCP,
  CFG_TCP_IGNORE_INVALID_RST,
  CFG_TCP_LOOSE,
  CFG_TCP_MAX_RETRANS,
  CFG_TCP_RETRANS,
  CFG_TCP_UNACK,
} from './timeouts.ts';

export { isRelearning, plausibleTcp, relearnTcp, tcpSeqEnd } from './tcp-window.ts';

export const TCP = 6;

/** Closing connections with less than this left are not shortened by an odd FIN or RST. */
const LINGER_MS = 120_000;

// What to do with a RST.
const RST_CHECK = 0; // CLOSE, if it is in the window
const RST_CLOSE = 1; // CLOSE, whatever the window says
const RST_KEEP = 2; // in the window or not, the state stays
const RST_OUTSIDE = 3; // INVALID
const RST_RELEARN = 4; // passes, the state stays
const RST_DOUBTFUL = 5; // INVALID: its sender will repeat it, with a number that is known by then

/**
 * Decides whether this segment may open a connection, and initialises the record's protocol words: a SYN, or with
 * `tcp_loose` an ACK of a connection that is already under way. Then tracks the segment.
 * @returns TRACK_ACCEPT or TRACK_INVALID
 */
export function newTcp(w: Int32Array, c: number, p: Packet, u8: Uint8Array, now: number, cfg: Int32Array): number {
  if (!validFlags(p.tcpFlags)) {
    p.detail = WHY_TCP_FLAGS;
    return TRACK_INVALID;
  }
  const opens = TRANSITIONS[stateCell(ORIGINAL, packetKind(p.tcpFlags), TCP_NONE)];
  if (opens === STATE_INVALID) {
    p.detail = WHY_TCP_NEW;
    return TRACK_INVALID;
  }
  if (opens !== TCP_SYN_SENT && cfg[CFG_TCP_LOOSE] === 0) {
    p.detail = WHY_TCP_NOT_LOOSE;
    return TRACK_INVALID;
  }
  for (let word = CT_TCP; word <= CT_LAST_WIN; word++) w[c + word] = 0;
  w[c + CT_STATE] = TCP_NONE;
  w[c + CT_TCP_LAST] = KIND_NONE << 1;
  const l4 = p.l4;
  const end = tcpSeqEnd(p, u8);
  const window = Math.max(1, (u8[l4 + 14] << 8) | u8[l4 + 15]);
  w[c + CT_TCP + TCP_END] = end;
  w[c + CT_TCP + TCP_MAXWIN] = window;
  if (opens === TCP_SYN_SENT) {
    w[c + CT_TCP + TCP_MAXEND] = end;
    applyOptions(w, c, ORIGINAL, u8, l4);
  } else {
    // We missed the SYNs, and with them the window scale: SACK is assumed, and the window does not judge.
    w[c + CT_TCP + TCP_MAXEND] = (end + window) | 0;
    setFlags(w, c, ORIGINAL, TCPF_SACK_PERM | TCPF_BE_LIBERAL);
    setFlags(w, c, REPLY, TCPF_SACK_PERM | TCPF_BE_LIBERAL);
  }
  return trackTcp(w, c, p, u8, ORIGINAL, now, cfg, 0);
}

/**
 * Brings the record at word `c` of `w` up to date with the segment `p`, which travels in direction `dir`.
 * @param u8 frame memory   @param now clock, ms   @param cfg timeouts.ts
 * @param ackOffset what the router's payload edits have added to the numbers that this segment acknowledges (0: none)
 * @returns TRACK_*; `p.detail` says why it is not a plain TRACK_ACCEPT
 */
export function trackTcp(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  dir: number,
  now: number,
  cfg: Int32Array,
  ackOffset: number,
): number {
  if (!validFlags(p.tcpFlags)) {
    p.detail = WHY_TCP_FLAGS;
    return TRACK_INVALID;
  }
  const l4 = p.l4;
  const kind = packetKind(p.tcpFlags);
  const state = w[c + CT_STATE];
  let next = TRANSITIONS[stateCell(dir, kind, state)];
  let checkWindow = true;

  if (next === STATE_INVALID) {
    p.detail = WHY_TCP_STATE;
    return TRACK_INVALID;
  }
  if (next === STATE_IGNORE || (next === TCP_SYN_SENT && state >= TCP_TIME_WAIT)) {
    if (next === TCP_SYN_SENT && isOver(w, c, dir)) {
      p.detail = WHY_TCP_REOPEN;
      return TRACK_REPEAT;
    }
    if (!answersIgnoredSyn(w, c, kind, dir, be32(u8, l4 + 8))) {
      noteIgnored(w, c, p, u8, kind, dir, state);
      p.detail = WHY_TCP_IGNORED;
      return TRACK_IGNORE;
    }
    // The ends agree on a connection that we took for another: follow them.
    resync(w, c, dir);
    next = TCP_SYN_RECV;
  } else if (next === TCP_TIME_WAIT) {
    if (state === TCP_LAST_ACK && kind === KIND_ACK && isChallengeAck(w, c, dir)) {
      // RFC 5961 §4.2: this ACK answers a SYN that we let through; it acknowledges no FIN.
      setLastFlags(w, c, lastFlags(w, c) & ~TCPF_EXP_CHALLENGE_ACK);
      p.detail = WHY_TCP_CHALLENGE_ACK;
      return TRACK_IGNORE;
    }
  } else if (next === TCP_SYN_SENT2) {
    setLastFlags(w, c, lastFlags(w, c) | TCPF_SIMULTANEOUS_OPEN);
  } else if (next === TCP_SYN_RECV) {
    // In a simultaneous open the ACK of the SYN/ACK may come from either side.
    if (dir === REPLY && kind === KIND_ACK && (lastFlags(w, c) & TCPF_SIMULTANEOUS_OPEN) !== 0) next = TCP_ESTABLISHED;
  } else if (kind === KIND_RST) {
    switch (judgeRst(w, c, p, u8, dir, state, cfg)) {
      case RST_OUTSIDE:
        p.detail = WHY_TCP_RST_OUTSIDE;
        return TRACK_INVALID;
      case RST_DOUBTFUL:
        p.detail = WHY_TCP_RST_DOUBTFUL;
        return TRACK_INVALID;
      case RST_RELEARN:
        refresh(w, c, now, cfg[CFG_TCP + TCP_CLOSE]);
        p.detail = WHY_TCP_RST_RELEARN;
        return TRACK_IGNORE;
      case RST_KEEP:
        next = state;
        p.detail = WHY_TCP_RST_INEXACT;
        break;
      case RST_CLOSE:
        checkWindow = false;
        break;
    }
  }

  if (checkWindow) {
    const verdict = inWindow(w, c, p, u8, dir, kind, cfg, ackOffset);
    if (verdict === TRACK_IGNORE) return TRACK_IGNORE;
    if (verdict === TRACK_INVALID) {
      shorten(w, c, kind, dir, now, cfg);
      return TRACK_INVALID;
    }
  }
  return settle(w, c, p, dir, kind, state, next, now, cfg);
}

/** True for the states in which early drop may take an ASSURED connection. */
export function tcpEarlyDrop(state: number): boolean {
  return isClosing(state);
}

// --- segments that are not what they seem ---------------------------------------------------------------------------

/**
 * RFC 5961 §3.2 asks an end to believe a RST only with the exact next sequence number, and else to answer with a
 * challenge ACK. In the middle we must not be quicker to believe than the ends, or a blind RST tears down our state.
 */
function judgeRst(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  dir: number,
  state: number,
  cfg: Int32Array,
): number {
  const l4 = p.l4;
  // Closing already: the ports may be in use again and our numbers be those of the connection before.
  if (isClosing(state)) return RST_CLOSE;
  // Back from the engine: there is nothing exact to compare with yet, and the window must not be learned from a RST.
  if (tolerance(w, c, dir ^ 1) === TOLERANT) return plausibleRst(w, c, p, u8, cfg) ? RST_RELEARN : RST_DOUBTFUL;
  const seq = be32(u8, l4 + 4);
  const last = w[c + CT_TCP_LAST];
  const lastKind = (last >> 1) & 7;
  const lastDir = last & 1;
  if ((flagsOf(w, c, dir ^ 1) & TCPF_MAXACK_SET) !== 0 && lastKind !== KIND_SYN) {
    const expected = w[c + CT_TCP + ((dir ^ 1) << 2) + TCP_MAXACK];
    const established = state === TCP_ESTABLISHED && (w[c + CT_STATUS] & IPS_ASSURED) !== 0;
    if (seq === 0 && !established) return RST_CHECK; // most likely the answer to a SYN that we let through
    if (after(expected, seq) && cfg[CFG_TCP_IGNORE_INVALID_RST] === 0) return RST_OUTSIDE;
    if (!established || seq === expected) return RST_CHECK;
    // Right behind data of the same sender, which is not acknowledged yet.
    if (lastKind === KIND_ACK && lastDir === dir && seq === w[c + CT_LAST_END]) return RST_CHECK;
    return RST_KEEP;
  }
  if (be32(u8, l4 + 8) === w[c + CT_LAST_END]) {
    // It answers a SYN of the other side, or a reply's ACK, that we had let through: the ends know better than we.
    if (lastKind === KIND_SYN && lastDir !== dir && (w[c + CT_STATUS] & IPS_SEEN_REPLY) !== 0) return RST_CLOSE;
    if (lastKind === KIND_ACK && (w[c + CT_STATUS] & IPS_ASSURED) === 0) return RST_CLOSE;
  }
  // It answers the challenge ACK that a SYN of ours drew from a half-open connection.
  if (state === TCP_SYN_SENT && lastKind === KIND_ACK && lastDir === REPLY && seq === w[c + CT_LAST_ACK])
    return RST_CLOSE;
  return RST_CHECK;
}

/** A SYN may replace the connection: it was closed by FINs that we followed, or this very side has reset it. */
function isOver(w: Int32Array, c: number, dir: number): boolean {
  if (((flagsOf(w, c, ORIGINAL) | flagsOf(w, c, REPLY)) & TCPF_CLOSE_INIT) !== 0) return true;
  const last = w[c + CT_TCP_LAST];
  return (last & 1) === dir && ((last >> 1) & 7) === KIND_RST;
}

/** True for a SYN/ACK that acknowledges the SYN that we ignored last. */
function answersIgnoredSyn(w: Int32Array, c: number, kind: number, dir: number, ack: number): boolean {
  const last = w[c + CT_TCP_LAST];
  return kind === KIND_SYNACK && ((last >> 1) & 7) === KIND_SYN && (last & 1) !== dir && ack === w[c + CT_LAST_END];
}

/**
 * True for a SYN that leaves an ESTABLISHED connection as it is, whether it passes (the end answers it with a challenge
 * ACK, RFC 5961 §4) or not: all but a SYN/ACK that answers one which was let through.
 */
export function isIdleSyn(w: Int32Array, c: number, p: Packet, u8: Uint8Array): boolean {
  const kind = packetKind(p.tcpFlags);
  if (w[c + CT_STATE] !== TCP_ESTABLISHED) return false;
  return kind === KIND_SYN || (kind === KIND_SYNACK && !answersIgnoredSyn(w, c, kind, p.dir, be32(u8, p.l4 + 8)));
}

/** Remembers what passes without effect, so that its answer can be understood. */
function noteIgnored(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  kind: number,
  dir: number,
  state: number,
): void {
  const l4 = p.l4;
  let last = (w[c + CT_TCP_LAST] & ~0x0f) | dir | (kind << 1);
  w[c + CT_LAST_SEQ] = be32(u8, l4 + 4);
  w[c + CT_LAST_END] = tcpSeqEnd(p, u8);
  w[c + CT_LAST_WIN] = (u8[l4 + 14] << 8) | u8[l4 + 15];
  if (kind === KIND_SYN && dir === ORIGINAL) {
    const options = synOptions(u8, l4);
    let flags = options & (TCPF_WINDOW_SCALE | TCPF_SACK_PERM);
    // A challenge ACK to this SYN must not be taken for the ACK of the last FIN.
    if (state === TCP_LAST_ACK) flags |= TCPF_EXP_CHALLENGE_ACK;
    last = (last & 0xff0f) | ((options >> 8) << 16) | (flags << 24);
  }
  w[c + CT_TCP_LAST] = last;
  // The other end may hold a half-open connection; a RST with this number will be its end.
  if (state === TCP_SYN_SENT && kind === KIND_ACK && dir === REPLY) w[c + CT_LAST_ACK] = be32(u8, l4 + 8);
}

/** Takes the ignored SYN for the connection's own; its answer, from `dir`, starts that direction anew. */
function resync(w: Int32Array, c: number, dir: number): void {
  const last = w[c + CT_TCP_LAST];
  const from = last & 1;
  const F = c + CT_TCP + (from << 2);
  w[F + TCP_END] = w[c + CT_LAST_END];
  w[F + TCP_MAXEND] = w[c + CT_LAST_END];
  w[F + TCP_MAXWIN] = Math.max(1, w[c + CT_LAST_WIN]);
  setScale(w, c, from, (last >> 16) & 0xf);
  setLastFlags(w, c, lastFlags(w, c) & ~TCPF_EXP_CHALLENGE_ACK);
  setFlags(w, c, from, lastFlags(w, c));
  const S = c + CT_TCP + (dir << 2);
  w[S + TCP_END] = 0;
  w[S + TCP_MAXEND] = 0;
  w[S + TCP_MAXWIN] = 0;
  w[S + TCP_MAXACK] = 0;
  setScale(w, c, dir, 0);
  setFlags(w, c, dir, flagsOf(w, c, dir) & TCPF_BE_LIBERAL);
}

/** In LAST_ACK, an ACK against a SYN that we let through is a challenge, not the end. */
function isChallengeAck(w: Int32Array, c: number, dir: number): boolean {
  const last = w[c + CT_TCP_LAST];
  return (last & 1) !== dir && ((last >> 1) & 7) === KIND_SYN && (lastFlags(w, c) & TCPF_EXP_CHALLENGE_ACK) !== 0;
}

/**
 * A FIN or RST outside the window was refused. When the other side has sent one as well, the ends are through with each
 * other although we do not understand how: no reason to hold an ESTABLISHED connection for days.
 */
function shorten(w: Int32Array, c: number, kind: number, dir: number, now: number, cfg: Int32Array): void {
  if ((w[c + CT_STATUS] & (IPS_ASSURED | IPS_FIXED_TIMEOUT)) !== IPS_ASSURED) return;
  if (kind !== KIND_RST && kind !== KIND_FIN) return;
  const last = w[c + CT_TCP_LAST];
  const lastKind = (last >> 1) & 7;
  if ((last & 1) !== dir && (lastKind === KIND_FIN || lastKind === KIND_RST)) {
    const left = (w[c + CT_DEADLINE] - now) | 0;
    if (left >= LINGER_MS && left > cfg[CFG_TCP_UNACK]) w[c + CT_DEADLINE] = (now + cfg[CFG_TCP_UNACK]) | 0;
  } else {
    w[c + CT_TCP_LAST] = (last & ~0x0f) | dir | (kind << 1);
  }
}

// --- the result -----------------------------------------------------------------------------------------------------

/** Writes the new state and the deadline that goes with it. */
function settle(
  w: Int32Array,
  c: number,
  p: Packet,
  dir: number,
  kind: number,
  state: number,
  next: number,
  now: number,
  cfg: Int32Array,
): number {
  const last = (w[c + CT_TCP_LAST] & ~0x0f) | dir | (kind << 1);
  w[c + CT_TCP_LAST] = last;
  w[c + CT_STATE] = next;
  if (state !== next && next === TCP_FIN_WAIT) setFlags(w, c, dir, flagsOf(w, c, dir) | TCPF_CLOSE_INIT);

  let timeout = cfg[CFG_TCP + next];
  const unacknowledged = (w[c + CT_TCP_BITS] & (TCPF_DATA_UNACKNOWLEDGED | (TCPF_DATA_UNACKNOWLEDGED << 8))) !== 0;
  if (((last >> 8) & 0xff) >= cfg[CFG_TCP_MAX_RETRANS] && timeout > cfg[CFG_TCP_RETRANS])
    timeout = cfg[CFG_TCP_RETRANS];
  else if (kind === KIND_RST) timeout = cfg[CFG_TCP + TCP_CLOSE];
  else if (unacknowledged && timeout > cfg[CFG_TCP_UNACK]) timeout = cfg[CFG_TCP_UNACK];
  else if (w[c + CT_LAST_WIN] === 0 && timeout > cfg[CFG_TCP_RETRANS]) timeout = cfg[CFG_TCP_RETRANS];

  const status = w[c + CT_STATUS];
  if ((status & IPS_SEEN_REPLY) === 0) {
    if (kind === KIND_RST) {
      p.detail = WHY_TCP_REFUSED;
      return TRACK_ACCEPT_LAST;
    }
    // SYNs alone must not keep a connection, and the NAT mapping with it, alive for ever.
    if (kind === KIND_SYN && state === TCP_SYN_SENT) return TRACK_ACCEPT;
    // Picked up in the middle and never answered: not five days.
    if (next === TCP_ESTABLISHED && timeout > cfg[CFG_TCP_UNACK]) timeout = cfg[CFG_TCP_UNACK];
  } else if (next === TCP_ESTABLISHED && (state === TCP_SYN_RECV || state === TCP_ESTABLISHED)) {
    assure(w, c);
  }
  refresh(w, c, now, timeout);
  return TRACK_ACCEPT;
}
