/**
 * TCP's window: do the numbers of a segment belong to the connection, and what do they teach?
 *
 * The window is Guido van Rooij's ("Real Stateful TCP Packet Filtering in IP Filter", 2000) as netfilter has it. For
 * each direction we remember
 *
 *   END     highest sequence number sent + 1               MAXWIN  largest window announced (0: nothing known yet)
 *   MAXEND  highest that the other end allowed             MAXACK  highest number acknowledged
 *
 * and a segment is right when      I    seq      <= sender's MAXEND               (not beyond the receiver's window)
 *                                  II   seq+len  >= sender's END - receiver's MAXWIN   (not older than a window)
 *                                  III  (s)ack   <= receiver's END                (acknowledges what was sent)
 *                                  IV   (s)ack   >= receiver's END - the larger of MAXWIN and 66000
 *
 * where (s)ack is the right edge of the highest SACK block, or ACK without one. I and III are INVALID; II, IV pass
 * without effect. Sequence numbers are int32 and compared by difference (RFC 9293 §3.4).
 *
 * Also here: the options that matter to it, and the bit fields of the record's TCP words.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import {
  TRACK_ACCEPT,
  TRACK_IGNORE,
  TRACK_INVALID,
  WHY_TCP_ACK_ABOVE,
  WHY_TCP_ACK_BELOW,
  WHY_TCP_OVERSHOT,
  WHY_TCP_SEQ_ABOVE,
  WHY_TCP_SEQ_BELOW,
} from './generic.ts';
import {
  CT_LAST_ACK,
  CT_LAST_END,
  CT_LAST_SEQ,
  CT_LAST_WIN,
  CT_STATE,
  CT_TCP,
  CT_TCP_BITS,
  CT_TCP_LAST,
  ORIGINAL,
  REPLY,
  TCP_CLOSE,
  TCP_END,
  TCP_MAXACK,
  TCP_MAXEND,
  TCP_MAXWIN,
  TCP_SYN_RECV,
  TCP_SYN_SENT,
  TCPF_BE_LIBERAL,
  TCPF_CLOSE_INIT,
  TCPF_DATA_UNACKNOWLEDGED,
  TCPF_MAXACK_SET,
  TCPF_SACK_PERM,
  TCPF_WINDOW_SCALE,
} from './record.ts';
import { KIND_ACK, KIND_SYN } from './tcp-states.ts';
import { CFG_TCP_LIBERAL } from './timeouts.ts';

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;
const HEADER = 20;
/** RFC 7323 §2.3. */
const MAX_SCALE = 14;
/** The least allowance for an old ACK (condition IV). */
const MAX_ACK_WINDOW = 66_000;
/** A window that is supposed, at least and at most, where none is known: what was lost before it came here counts, too. */
const LEAST_SLACK = 1 << 20;
const MOST_SLACK = 1 << 24;
/** So far from what is known a number may be that has to speak for itself. */
const NEAR = 1 << 15;

/**
 * Makes the record forget the windows of both directions: the offload engine forwarded segments that we did not see.
 * They are learned again from the next segment of each direction, and for the next 15 ACKs of each direction a jump
 * ahead, no larger than a window, is taken for what the engine carried. Then the check is as strict as before: it is
 * never left off (CVE-2023-30312).
 */
export function relearnTcp(w: Int32Array, c: number): void {
  w[c + CT_TCP + TCP_MAXWIN] = 0;
  w[c + CT_TCP + 4 + TCP_MAXWIN] = 0;
  w[c + CT_TCP_BITS] =
    (w[c + CT_TCP_BITS] & ~(TCPF_MAXACK_SET | (TCPF_MAXACK_SET << 8))) | (TOLERANT << 24) | (TOLERANT << 28);
  // A SYN on a connection that closed under the engine opens a new one.
  if (w[c + CT_STATE] === TCP_CLOSE) setFlags(w, c, ORIGINAL, flagsOf(w, c, ORIGINAL) | TCPF_CLOSE_INIT);
}

/** True from `relearnTcp` until a segment has come: the numbers in the record are those from before the engine. */
export function isRelearning(w: Int32Array, c: number): boolean {
  return (w[c + CT_TCP + TCP_MAXWIN] | w[c + CT_TCP + 4 + TCP_MAXWIN]) === 0;
}

/**
 * Whether a segment may be of a connection of which the tracker knows old numbers only: a FIN or RST of one that the
 * engine carries, the first segment of one that it has given back. Its sequence number must be within reach of the last one seen,
 * what the engine has carried since (`carried` bytes in its direction, at most; −1: not known) and a window; and so must
 * what it acknowledges, by `acknowledged` bytes in the other direction. One of the two is enough when it is near and little was
 * carried: data of the other may have come another way (a capture with gaps, two paths). A RST without ACK has one number
 * only: near, whatever was carried, must do here; it is judged once more by `plausibleRst`. Coarser than RFC 5961 asks of an end,
 * but it costs who guesses thousands of segments, and what is refused changes nothing. A SYN, with ACK or without,
 * chooses its own number; the state table judges it.
 */
export function plausibleTcp(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  cfg: Int32Array,
  carried: number,
  acknowledged: number,
): boolean {
  const { dir, l4, tcpFlags } = p;
  if ((flagsOf(w, c, dir) & TCPF_BE_LIBERAL) !== 0 || cfg[CFG_TCP_LIBERAL] !== 0 || (tcpFlags & SYN) !== 0) return true;
  const ack = be32(u8, l4 + 8);
  // It answers a SYN of the other side that passed without effect (RFC 9293 §3.5.2): who guesses does not know its number.
  const last = w[c + CT_TCP_LAST];
  const answers = ((last >> 1) & 7) === KIND_SYN && (last & 1) !== dir && ack === w[c + CT_LAST_END];
  if ((tcpFlags & RST) !== 0 && answers) return true;
  const S = c + CT_TCP + (dir << 2);
  const ahead = (be32(u8, l4 + 4) - w[S + TCP_END]) | 0;
  const near = isWithin(ahead, carried, NEAR);
  // Some stacks set ACK with number 0 in a RST.
  if ((tcpFlags & ACK) === 0 || ((tcpFlags & RST) !== 0 && ack === 0)) {
    if (near) return true;
  } else {
    const behind = (ack - w[c + CT_TCP + ((dir ^ 1) << 2) + TCP_END]) | 0;
    const allowed = (w[S + TCP_MAXEND] - w[S + TCP_END]) | 0;
    const slack = allowed < LEAST_SLACK ? LEAST_SLACK : allowed > MOST_SLACK ? MOST_SLACK : allowed;
    if (isWithin(ahead, carried, slack) && isWithin(behind, acknowledged, LEAST_SLACK)) return true;
    if (near && carried >= 0 && carried <= LEAST_SLACK) return true;
    if (acknowledged >= 0 && acknowledged <= LEAST_SLACK && isWithin(behind, acknowledged, NEAR)) return true;
  }
  p.detail = ahead > 0 ? WHY_TCP_SEQ_ABOVE : WHY_TCP_SEQ_BELOW;
  return false;
}

/**
 * Whether a RST that `plausibleTcp` lets pass may end a connection whose windows are being learned anew. With ACK both of its
 * numbers were judged. Without, the one that it has must be near what is known: where the engine has carried much that
 * is no more than a guess. What is refused costs its sender nothing: such a RST answers a segment (RFC 9293 §3.10.7.1), which its
 * sender repeats; that one is seen, and the next RST has exactly the number that it acknowledges.
 */
export function plausibleRst(w: Int32Array, c: number, p: Packet, u8: Uint8Array, cfg: Int32Array): boolean {
  const hasAck = (p.tcpFlags & ACK) !== 0 && be32(u8, p.l4 + 8) !== 0;
  const reach = !isRelearning(w, c) ? 0 : hasAck ? -1 : LEAST_SLACK;
  return plausibleTcp(w, c, p, u8, cfg, reach, reach);
}

/** True when a number so far from the last one seen may follow `carried` bytes (−1: nobody knows how many). */
function isWithin(distance: number, carried: number, slack: number): boolean {
  return carried < 0 || (distance <= carried + slack && distance >= -slack);
}

/**
 * Conditions I to IV, and what a segment that meets them teaches.
 * @returns TRACK_ACCEPT, TRACK_IGNORE (II or IV) or TRACK_INVALID (I or III)
 */
export function inWindow(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  dir: number,
  kind: number,
  cfg: Int32Array,
  ackOffset: number,
): number {
  const l4 = p.l4;
  const flags = p.tcpFlags;
  const state = w[c + CT_STATE];
  const S = c + CT_TCP + (dir << 2); // the sender's words
  const R = c + CT_TCP + ((dir ^ 1) << 2); // the receiver's
  const announced = (u8[l4 + 14] << 8) | u8[l4 + 15];
  let seq = be32(u8, l4 + 4);
  let end = tcpSeqEnd(p, u8);
  let ack = be32(u8, l4 + 8);
  let sack = ack;
  if ((flagsOf(w, c, dir ^ 1) & TCPF_SACK_PERM) !== 0) sack = highestSack(u8, l4, ack);
  ack = (ack - ackOffset) | 0;
  sack = (sack - ackOffset) | 0;

  if (w[S + TCP_MAXWIN] === 0) {
    if ((flags & SYN) !== 0) {
      startSender(w, c, dir, u8, l4, end, announced);
      if ((flags & ACK) === 0) return TRACK_ACCEPT; // simultaneous open
    } else {
      // The middle of a connection: its history is not known, so this segment is where we begin.
      const known = w[R + TCP_MAXWIN] !== 0;
      const window = Math.max(1, announced << scaleOf(w, c, dir));
      const maxEnd = (end + window) | 0;
      w[S + TCP_END] = end;
      w[S + TCP_MAXWIN] = window;
      // After the engine the other direction may have come first and has said what it allows.
      if (!(known && tolerance(w, c, dir) > 0 && after(w[S + TCP_MAXEND], maxEnd))) w[S + TCP_MAXEND] = maxEnd;
      if (!known) {
        w[R + TCP_END] = sack;
        w[R + TCP_MAXEND] = sack;
      } else if (sack === ((w[R + TCP_END] + 1) | 0)) {
        w[R + TCP_END] = sack; // the answer to a keepalive, which repeats the last sequence number (RFC 9293 §3.8.4)
      }
    }
  } else if ((flags & SYN) !== 0 && after(end, w[S + TCP_END]) && (state === TCP_SYN_SENT || state === TCP_SYN_RECV)) {
    // Another SYN with a higher number: the sender has started again (RFC 9293 §3.6.1), options and all.
    startSender(w, c, dir, u8, l4, end, announced);
    if (dir === REPLY && (flags & ACK) === 0) return TRACK_ACCEPT;
  }

  if ((flags & ACK) === 0 || ((flags & RST) !== 0 && be32(u8, l4 + 8) === 0)) {
    // Nothing is acknowledged; some stacks also set ACK with number 0 in a RST.
    ack = w[R + TCP_END];
    sack = ack;
  }
  if ((flags & RST) !== 0 && seq === 0 && state === TCP_SYN_SENT) {
    // The answer to a SYN that nobody wanted: a RST of sequence number 0 (RFC 9293 §3.5.2).
    seq = w[S + TCP_END];
    end = seq;
  }

  const ackWindow = largerUnsigned(w[S + TCP_MAXWIN], MAX_ACK_WINDOW);
  const lowestAck = (w[R + TCP_END] - ackWindow - 1) | 0;
  const patience = tolerance(w, c, dir);

  if (after(seq, w[S + TCP_MAXEND])) {
    if (tolerance(w, c, dir ^ 1) === TOLERANT) {
      // Back from the engine, and the receiver has not yet said what it allows now.
      w[S + TCP_MAXEND] = end;
    } else {
      const beyond = (end - w[S + TCP_MAXEND] + 1) | 0;
      const receiverWindow = w[R + TCP_MAXWIN];
      if (
        receiverWindow !== 0 &&
        after(end, (w[S + TCP_END] - receiverWindow - 1) | 0) &&
        after(sack, lowestAck) &&
        !lessUnsigned(receiverWindow, beyond) &&
        !after(sack, w[R + TCP_END])
      ) {
        // Only I fails, and by less than a window: the sender may know of room that we do not. Should the receiver
        // acknowledge this, condition III must let it.
        w[S + TCP_END] = end;
        setFlags(w, c, dir, flagsOf(w, c, dir) | TCPF_DATA_UNACKNOWLEDGED);
        return refuse(w, c, p, dir, cfg, WHY_TCP_OVERSHOT, TRACK_IGNORE);
      }
      return refuse(w, c, p, dir, cfg, WHY_TCP_SEQ_ABOVE, TRACK_INVALID);
    }
  }
  if (after(sack, w[R + TCP_END])) {
    if (patience === 0 || lessUnsigned(ackWindow, (sack - w[R + TCP_END]) | 0)) {
      return refuse(w, c, p, dir, cfg, WHY_TCP_ACK_ABOVE, TRACK_INVALID);
    }
    w[R + TCP_END] = sack; // acknowledges what went through the engine
  }
  if (w[R + TCP_MAXWIN] !== 0 && !after(end, (w[S + TCP_END] - w[R + TCP_MAXWIN] - 1) | 0)) {
    return refuse(w, c, p, dir, cfg, WHY_TCP_SEQ_BELOW, TRACK_IGNORE);
  }
  if (!after(sack, lowestAck)) return refuse(w, c, p, dir, cfg, WHY_TCP_ACK_BELOW, TRACK_IGNORE);

  learn(w, c, S, R, dir, flags, end, ack, sack, announced);
  if (patience > 0 && (flags & (ACK | RST)) === ACK) setTolerance(w, c, dir, patience - 1);
  if (kind === KIND_ACK) countRepeats(w, c, dir, seq, ack, end, announced);
  return TRACK_ACCEPT;
}

/** What a segment in the window says about both directions. */
function learn(
  w: Int32Array,
  c: number,
  S: number,
  R: number,
  dir: number,
  flags: number,
  end: number,
  ack: number,
  sack: number,
  announced: number,
): void {
  // RFC 7323 §2.2: the window of a SYN is never scaled.
  const window = (flags & SYN) !== 0 ? announced : announced << scaleOf(w, c, dir);
  let bits = flagsOf(w, c, dir);
  const reach = (window + (sack - ack)) | 0;
  if (lessUnsigned(w[S + TCP_MAXWIN], reach)) w[S + TCP_MAXWIN] = reach;
  if (after(end, w[S + TCP_END])) {
    w[S + TCP_END] = end;
    bits |= TCPF_DATA_UNACKNOWLEDGED;
  }
  if ((flags & ACK) !== 0 && ((bits & TCPF_MAXACK_SET) === 0 || after(ack, w[S + TCP_MAXACK]))) {
    w[S + TCP_MAXACK] = ack;
    bits |= TCPF_MAXACK_SET;
  }
  setFlags(w, c, dir, bits);

  if (w[R + TCP_MAXWIN] !== 0 && after(end, w[S + TCP_MAXEND])) {
    w[R + TCP_MAXWIN] = (w[R + TCP_MAXWIN] + end - w[S + TCP_MAXEND]) | 0;
  }
  const allows = (sack + window) | 0;
  if (!after(w[R + TCP_MAXEND], allows)) {
    // A closed window still lets a probe of one byte through (RFC 9293 §3.8.6.1).
    w[R + TCP_MAXEND] = window === 0 ? (allows + 1) | 0 : allows;
  }
  if (ack === w[R + TCP_END]) setFlags(w, c, dir ^ 1, flagsOf(w, c, dir ^ 1) & ~TCPF_DATA_UNACKNOWLEDGED);
}

/** Counts ACKs that say the same as the one before: the receiver gets nothing, or the sender gets no answer. */
function countRepeats(
  w: Int32Array,
  c: number,
  dir: number,
  seq: number,
  ack: number,
  end: number,
  announced: number,
): void {
  const last = w[c + CT_TCP_LAST];
  if (
    (last & 1) === dir &&
    w[c + CT_LAST_SEQ] === seq &&
    w[c + CT_LAST_ACK] === ack &&
    w[c + CT_LAST_END] === end &&
    w[c + CT_LAST_WIN] === announced
  ) {
    if ((last & 0xff00) !== 0xff00) w[c + CT_TCP_LAST] = last + 0x100;
    return;
  }
  w[c + CT_TCP_LAST] = (last & ~0xff01) | dir;
  w[c + CT_LAST_SEQ] = seq;
  w[c + CT_LAST_ACK] = ack;
  w[c + CT_LAST_END] = end;
  w[c + CT_LAST_WIN] = announced;
}

/** A SYN or SYN/ACK starts a direction: its number, window and options are the first we know of it. */
function startSender(
  w: Int32Array,
  c: number,
  dir: number,
  u8: Uint8Array,
  l4: number,
  end: number,
  announced: number,
): void {
  const S = c + CT_TCP + (dir << 2);
  w[S + TCP_END] = end;
  w[S + TCP_MAXEND] = end;
  w[S + TCP_MAXWIN] = Math.max(1, announced);
  applyOptions(w, c, dir, u8, l4);
  // RFC 7323 §2.2: both SYNs must carry the option, or nobody scales.
  if (dir === REPLY && (flagsOf(w, c, ORIGINAL) & flagsOf(w, c, REPLY) & TCPF_WINDOW_SCALE) === 0) {
    setScale(w, c, ORIGINAL, 0);
    setScale(w, c, REPLY, 0);
  }
}

/** A segment outside the window: `verdict`, unless the sender or everybody is to be treated liberally. */
function refuse(
  w: Int32Array,
  c: number,
  p: Packet,
  dir: number,
  cfg: Int32Array,
  why: number,
  verdict: number,
): number {
  if ((flagsOf(w, c, dir) & TCPF_BE_LIBERAL) !== 0 || cfg[CFG_TCP_LIBERAL] !== 0) return TRACK_ACCEPT;
  p.detail = why;
  return verdict;
}

/** The sequence number after this segment (SYN and FIN count one each, RFC 9293 §3.4). A super-frame is one segment. */
export function tcpSeqEnd(p: Packet, u8: Uint8Array): number {
  const l4 = p.l4;
  const flags = u8[l4 + 13];
  const data = p.end - l4 - ((u8[l4 + 12] >> 4) << 2);
  return (be32(u8, l4 + 4) + data + ((flags & SYN) >> 1) + (flags & FIN)) | 0;
}

// --- options --------------------------------------------------------------------------------------------------------

/** Window scale << 8 | TCPF_WINDOW_SCALE | TCPF_SACK_PERM, as far as the options of this segment name them. */
export function synOptions(u8: Uint8Array, l4: number): number {
  const stop = l4 + ((u8[l4 + 12] >> 4) << 2);
  let found = 0;
  for (let at = l4 + HEADER; at < stop; ) {
    const option = u8[at];
    if (option === 0) break; // end of list
    if (option === 1) {
      at++; // no operation
      continue;
    }
    if (stop - at < 2) break;
    const length = u8[at + 1];
    if (length < 2 || length > stop - at) break; // malformed: what was read so far counts
    if (option === 4 && length === 2) found |= TCPF_SACK_PERM;
    else if (option === 3 && length === 3)
      found = (found & 0xff) | TCPF_WINDOW_SCALE | (Math.min(MAX_SCALE, u8[at + 2]) << 8);
    at += length;
  }
  return found;
}

/** Stores a SYN's options for its direction. A SYN without any leaves what is there. */
export function applyOptions(w: Int32Array, c: number, dir: number, u8: Uint8Array, l4: number): void {
  if (u8[l4 + 12] >> 4 === HEADER >> 2) return;
  const options = synOptions(u8, l4);
  setFlags(w, c, dir, (flagsOf(w, c, dir) & TCPF_BE_LIBERAL) | (options & 0xff));
  setScale(w, c, dir, options >> 8);
}

/** The highest right edge among the SACK blocks (RFC 2018 §3), or `ack` when none is higher. */
function highestSack(u8: Uint8Array, l4: number, ack: number): number {
  const stop = l4 + ((u8[l4 + 12] >> 4) << 2);
  let highest = ack;
  for (let at = l4 + HEADER; at < stop; ) {
    const option = u8[at];
    if (option === 0) break;
    if (option === 1) {
      at++;
      continue;
    }
    if (stop - at < 2) break;
    const length = u8[at + 1];
    if (length < 2 || length > stop - at) break;
    if (option === 5 && length >= 10 && (length - 2) % 8 === 0) {
      for (let block = at + 2; block < at + length; block += 8) {
        const right = be32(u8, block + 4);
        if (after(right, highest)) highest = right;
      }
      break;
    }
    at += length;
  }
  return highest;
}

// --- small things ---------------------------------------------------------------------------------------------------

/** Value of the tolerance counters just after the engine gave the connection back. */
export const TOLERANT = 15;

/** ACKs of direction `dir` that may still jump ahead: bits 24–27 and 28–31 of TCP_BITS. */
export function tolerance(w: Int32Array, c: number, dir: number): number {
  return (w[c + CT_TCP_BITS] >>> (24 + (dir << 2))) & 0xf;
}

function setTolerance(w: Int32Array, c: number, dir: number, value: number): void {
  const shift = 24 + (dir << 2);
  w[c + CT_TCP_BITS] = (w[c + CT_TCP_BITS] & ~(0xf << shift)) | (value << shift);
}

/** TCPF_* of a direction. */
export function flagsOf(w: Int32Array, c: number, dir: number): number {
  return (w[c + CT_TCP_BITS] >> (dir << 3)) & 0xff;
}

/** Replaces all TCPF_* of a direction. */
export function setFlags(w: Int32Array, c: number, dir: number, flags: number): void {
  const shift = dir << 3;
  w[c + CT_TCP_BITS] = (w[c + CT_TCP_BITS] & ~(0xff << shift)) | (flags << shift);
}

function scaleOf(w: Int32Array, c: number, dir: number): number {
  return (w[c + CT_TCP_BITS] >> (16 + (dir << 2))) & 0xf;
}

/** Sets the window scale that a direction announced, 0 to 14. */
export function setScale(w: Int32Array, c: number, dir: number, scale: number): void {
  const shift = 16 + (dir << 2);
  w[c + CT_TCP_BITS] = (w[c + CT_TCP_BITS] & ~(0xf << shift)) | (scale << shift);
}

/** TCPF_* remembered with the last ignored SYN. */
export function lastFlags(w: Int32Array, c: number): number {
  return w[c + CT_TCP_LAST] >>> 24;
}

/** Replaces them. */
export function setLastFlags(w: Int32Array, c: number, flags: number): void {
  w[c + CT_TCP_LAST] = (w[c + CT_TCP_LAST] & 0xffffff) | (flags << 24);
}

/** Four bytes in network order as an int32. */
export function be32(u8: Uint8Array, at: number): number {
  return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3];
}

/** `a` is behind `b` on the circle of sequence numbers; what is exactly opposite is behind, as in Linux. */
export function after(a: number, b: number): boolean {
  return ((b - a) | 0) < 0;
}

/** a < b, both unsigned. */
function lessUnsigned(a: number, b: number): boolean {
  return (a ^ 0x80000000) < (b ^ 0x80000000);
}

function largerUnsigned(a: number, b: number): number {
  return lessUnsigned(a, b) ? b : a;
}
