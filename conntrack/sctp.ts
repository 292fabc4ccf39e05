/**
 * SCTP (RFC 9260): the state of an association, guessed from its control chunks.
 *
 * A packet carries chunks; each control chunk may move the state, DATA and SACK never do. Every packet also names a
 * verification tag that its receiver chose in INIT or INIT ACK; a wrong one is somebody guessing (§8.5). The states
 * are netfilter's and mean what was *seen*:
 *
 *   CLOSED             nothing that counts, or ABORT or SHUTDOWN COMPLETE     ESTABLISHED        COOKIE ACK
 *   COOKIE_WAIT        INIT ACK                                               SHUTDOWN_SENT      SHUTDOWN, ORIGINAL
 *   COOKIE_ECHOED      COOKIE ECHO                                            SHUTDOWN_RECD      SHUTDOWN, REPLY
 *   SHUTDOWN_ACK_SENT  SHUTDOWN ACK                                           HEARTBEAT_SENT     HEARTBEAT opened it
 *
 * A HEARTBEAT opens a connection because a multi-homed peer probes its other addresses that way. Words of the record:
 * CT_STATE; at CT_TCP the tag expected of ORIGINAL packets, the tag of REPLY packets, and flags. The CRC is not
 * checked here, and one association over several address pairs is several connections.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import {
  assure,
  refresh,
  TRACK_ACCEPT,
  TRACK_IGNORE,
  TRACK_INVALID,
  WHY_SCTP_CHUNKS,
  WHY_SCTP_NEW,
  WHY_SCTP_STATE,
  WHY_SCTP_TAG,
  WHY_TRUNCATED,
} from './generic.ts';
import { CT_STATE, CT_TCP, ORIGINAL, REPLY } from './record.ts';
import { CFG_SCTP } from './timeouts.ts';

export const SCTP = 132;

export const SCTP_STATE_NAMES: readonly string[] = [
  'NONE',
  'CLOSED',
  'COOKIE_WAIT',
  'COOKIE_ECHOED',
  'ESTABLISHED',
  'SHUTDOWN_SENT',
  'SHUTDOWN_RECD',
  'SHUTDOWN_ACK_SENT',
  'HEARTBEAT_SENT',
];
const STATES = 9;
const NONE = 0;
const CLOSED = 1;
const ESTABLISHED = 4;
const SHUTDOWN_SENT = 5;
const SHUTDOWN_ACK_SENT = 7;
const INVALID = 9;

/** Chunk types, RFC 9260 §3.2. */
const DATA = 0;
const INIT = 1;
const INIT_ACK = 2;
const HEARTBEAT = 4;
const HEARTBEAT_ACK = 5;
const ABORT = 6;
const SHUTDOWN_ACK = 8;
const COOKIE_ECHO = 10;
const COOKIE_ACK = 11;
const SHUTDOWN_COMPLETE = 14;
/** Control chunks by number; an empty name moves nothing. */
const CHUNKS = [
  '',
  'INIT',
  'INIT_ACK',
  '',
  'HEARTBEAT',
  'HEARTBEAT_ACK',
  'ABORT',
  'SHUTDOWN',
  'SHUTDOWN_ACK',
  'ERROR',
  'COOKIE_ECHO',
  'COOKIE_ACK',
  '',
  '',
  'SHUTDOWN_COMPLETE',
];
const CHUNK_TYPES = 15;

const HEADER = 12;
/** Flag T of ABORT and SHUTDOWN COMPLETE: the sender had no association, and reflects the tag it was sent (§8.5.1). */
const TAG_REFLECTED = 1;

const TAG = CT_TCP; // + dir: the tag that packets of this direction must carry
const FLAGS = CT_TCP + 2;
const HEARTBEAT_TAG_FAILED = 1;
const FAILED_DIR = 2; // the direction of the heartbeat that failed
const INIT_SEEN = 4; // << dir: an INIT whose handshake is not over yet

/**
 * Exceptions to "a control chunk leaves the state as it is"; for a new connection, to "CLOSED". `dir chunk: states >
 * next`. In the REPLY direction NONE and HEARTBEAT_SENT are INVALID but for heartbeats.
 */
const RULES = `
ORIGINAL INIT: SHUTDOWN_SENT SHUTDOWN_RECD > CLOSED
ORIGINAL INIT: HEARTBEAT_SENT > COOKIE_WAIT
ORIGINAL ABORT: * > CLOSED
ORIGINAL SHUTDOWN: ESTABLISHED > SHUTDOWN_SENT
ORIGINAL SHUTDOWN_ACK: NONE SHUTDOWN_SENT SHUTDOWN_RECD HEARTBEAT_SENT > SHUTDOWN_ACK_SENT
ORIGINAL COOKIE_ECHO: COOKIE_WAIT > COOKIE_ECHOED
ORIGINAL COOKIE_ACK: COOKIE_ECHOED > ESTABLISHED
ORIGINAL SHUTDOWN_COMPLETE: SHUTDOWN_ACK_SENT > CLOSED
ORIGINAL HEARTBEAT: NONE HEARTBEAT_SENT > HEARTBEAT_SENT
ORIGINAL HEARTBEAT_ACK: HEARTBEAT_SENT > HEARTBEAT_SENT
REPLY INIT_ACK: CLOSED > COOKIE_WAIT
REPLY ABORT: CLOSED COOKIE_WAIT COOKIE_ECHOED ESTABLISHED SHUTDOWN_SENT SHUTDOWN_RECD SHUTDOWN_ACK_SENT > CLOSED
REPLY SHUTDOWN: ESTABLISHED > SHUTDOWN_RECD
REPLY SHUTDOWN_ACK: SHUTDOWN_SENT SHUTDOWN_RECD > SHUTDOWN_ACK_SENT
REPLY ERROR: COOKIE_ECHOED > CLOSED
REPLY COOKIE_ECHO: COOKIE_WAIT > COOKIE_ECHOED
REPLY COOKIE_ACK: COOKIE_ECHOED > ESTABLISHED
REPLY SHUTDOWN_COMPLETE: SHUTDOWN_ACK_SENT > CLOSED
REPLY HEARTBEAT: HEARTBEAT_SENT > HEARTBEAT_SENT
REPLY HEARTBEAT_ACK: HEARTBEAT_SENT > ESTABLISHED
`;
const TABLE = parseRules(RULES);

/** The next state, or INVALID. */
export function sctpNextState(dir: number, chunk: number, state: number): number {
  if (chunk >= CHUNK_TYPES || CHUNKS[chunk] === '') return state;
  return TABLE[(dir * CHUNK_TYPES + chunk) * STATES + state];
}

/** True for the states in which early drop may take an ASSURED connection. */
export function sctpEarlyDrop(state: number): boolean {
  return state >= SHUTDOWN_SENT && state <= SHUTDOWN_ACK_SENT;
}

/** The first packet of a connection. */
export function newSctp(w: Int32Array, c: number, p: Packet, u8: Uint8Array, now: number, cfg: Int32Array): number {
  const chunks = readChunks(p, u8);
  if (chunks < 0) return TRACK_INVALID;
  // RFC 9260 §8.4: out of the blue, these are discarded.
  if ((chunks & ((1 << ABORT) | (1 << SHUTDOWN_COMPLETE) | (1 << COOKIE_ACK))) !== 0) return refuse(p, WHY_SCTP_NEW);
  w[c + CT_STATE] = NONE;
  w[c + TAG] = 0;
  w[c + TAG + 1] = 0;
  w[c + FLAGS] = 0;
  const tag = be32(u8, p.l4 + 4);
  for (let at = p.l4 + HEADER; at + 4 <= p.end; at = nextChunk(u8, at)) {
    const chunk = u8[at];
    if (sctpNextState(ORIGINAL, chunk, NONE) === NONE) return refuse(p, WHY_SCTP_NEW);
    if (chunk === INIT) {
      if (tag !== 0) return refuse(p, WHY_SCTP_TAG); // §8.5.1 A
      if (p.end - at < 20) return refuse(p, WHY_SCTP_CHUNKS);
      w[c + TAG + REPLY] = be32(u8, at + 4);
    } else if (chunk === HEARTBEAT) {
      w[c + TAG + ORIGINAL] = tag;
    } else if (chunk === SHUTDOWN_ACK) {
      w[c + TAG + REPLY] = tag; // §8.4 (5): SHUTDOWN COMPLETE answers with the same tag
    }
  }
  return walk(w, c, p, u8, ORIGINAL, now, cfg, chunks, true);
}

/** A packet of a connection in direction `dir`. */
export function trackSctp(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  dir: number,
  now: number,
  cfg: Int32Array,
): number {
  const chunks = readChunks(p, u8);
  if (chunks < 0) return TRACK_INVALID;
  return walk(w, c, p, u8, dir, now, cfg, chunks, false);
}

/** Chunks whose tag has a rule of its own; any of them in a packet lifts the general rule. */
const OWN_TAG_RULE =
  (1 << INIT) |
  (1 << SHUTDOWN_COMPLETE) |
  (1 << COOKIE_ECHO) |
  (1 << ABORT) |
  (1 << SHUTDOWN_ACK) |
  (1 << HEARTBEAT) |
  (1 << HEARTBEAT_ACK);

function walk(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  dir: number,
  now: number,
  cfg: Int32Array,
  chunks: number,
  fresh: boolean,
): number {
  const tag = be32(u8, p.l4 + 4);
  if ((chunks & OWN_TAG_RULE) === 0 && tag !== w[c + TAG + dir]) return refuse(p, WHY_SCTP_TAG);
  let ignore = false;
  let next = NONE;
  for (let at = p.l4 + HEADER; at + 4 <= p.end; at = nextChunk(u8, at)) {
    const chunk = u8[at];
    switch (chunk) {
      case INIT:
        if (tag !== 0) return refuse(p, WHY_SCTP_TAG); // §8.5.1 A
        break;
      case ABORT:
      case SHUTDOWN_COMPLETE: {
        // §8.5.1 B, C: the receiver's tag, or its own when flag T says that it is reflected.
        const reflected = (u8[at + 1] & TAG_REFLECTED) !== 0 ? 1 : 0;
        if (tag !== w[c + TAG + (dir ^ reflected)]) return refuse(p, WHY_SCTP_TAG);
        break;
      }
      case COOKIE_ECHO:
        if (tag !== w[c + TAG + dir]) return refuse(p, WHY_SCTP_TAG); // §8.5.1 D
        break;
      case HEARTBEAT:
      case HEARTBEAT_ACK:
        if (w[c + TAG + dir] === 0) {
          w[c + TAG + dir] = tag;
        } else if (tag !== w[c + TAG + dir]) {
          // A peer that restarted behind us uses a new tag: a heartbeat with it passes, and its answer is believed.
          if ((chunks & (1 << DATA)) !== 0 || ignore) return refuse(p, WHY_SCTP_TAG);
          const failed = w[c + FLAGS];
          if (chunk === HEARTBEAT) {
            w[c + FLAGS] = (failed & ~FAILED_DIR) | HEARTBEAT_TAG_FAILED | (dir * FAILED_DIR);
            ignore = true;
            continue;
          }
          if ((failed & HEARTBEAT_TAG_FAILED) === 0 || ((failed & FAILED_DIR) !== 0 ? REPLY : ORIGINAL) === dir) {
            return refuse(p, WHY_SCTP_TAG);
          }
          w[c + FLAGS] = failed & ~HEARTBEAT_TAG_FAILED;
          w[c + TAG + dir] = tag;
          w[c + TAG + (dir ^ 1)] = 0;
        } else {
          w[c + FLAGS] &= ~HEARTBEAT_TAG_FAILED;
        }
        break;
    }
    const state = w[c + CT_STATE];
    next = sctpNextState(dir, chunk, state);
    if (next === INVALID) return refuse(p, WHY_SCTP_STATE);
    if (chunk === INIT || chunk === INIT_ACK) {
      if (p.end - at < 20) return refuse(p, WHY_SCTP_CHUNKS);
      const announced = be32(u8, at + 4);
      if (chunk === INIT) noteInit(w, c, dir, state, announced);
      else if (staleInitAck(w, c, dir, announced)) return refuse(p, WHY_SCTP_TAG);
      w[c + TAG + (dir ^ 1)] = announced;
      // INITs alone must not keep a connection, and the NAT mapping with it, alive for ever.
      if (chunk === INIT && next === CLOSED && state === CLOSED && !fresh) ignore = true;
    } else if (chunk === COOKIE_ACK) {
      w[c + FLAGS] &= ~(INIT_SEEN | (INIT_SEEN << 1));
    }
    w[c + CT_STATE] = next;
    if (state !== next && next === ESTABLISHED) assure(w, c);
  }
  if (ignore) return TRACK_IGNORE;
  refresh(w, c, now, cfg[CFG_SCTP + next]);
  return TRACK_ACCEPT;
}

/**
 * Both ends may start at once (§5.2.1), and an INIT or INIT ACK of the attempt that lost may come late: what it
 * announces must not replace the tags that the ends have agreed on. So we remember who has an INIT under way.
 */
function noteInit(w: Int32Array, c: number, dir: number, state: number, announced: number): void {
  if (state !== NONE && w[c + TAG + (dir ^ 1)] === announced) return; // sent again, or late: it says nothing new
  const both = INIT_SEEN | (INIT_SEEN << 1);
  let flags = w[c + FLAGS];
  if ((flags & both) === both) flags &= ~(INIT_SEEN << (dir ^ 1));
  w[c + FLAGS] = flags | (INIT_SEEN << dir);
}

/** True for an INIT ACK that would change a tag although its INIT is not under way, or two are. */
function staleInitAck(w: Int32Array, c: number, dir: number, announced: number): boolean {
  const tag = w[c + TAG + (dir ^ 1)];
  if (tag === announced) return false;
  const mine = (w[c + FLAGS] & (INIT_SEEN << dir)) !== 0;
  const theirs = (w[c + FLAGS] & (INIT_SEEN << (dir ^ 1))) !== 0;
  return (!theirs && tag !== 0) || (mine && theirs);
}

/** Which chunks there are, as a bit set of the types below 31; −1 when the packet is malformed (`p.detail`). */
function readChunks(p: Packet, u8: Uint8Array): number {
  if (p.end - p.l4 < HEADER) {
    p.detail = WHY_TRUNCATED;
    return -1;
  }
  let found = 0;
  let count = 0;
  let alone = false;
  for (let at = p.l4 + HEADER; at + 4 <= p.end; at = nextChunk(u8, at), count++) {
    const chunk = u8[at];
    // §6.10: these are never bundled.
    if (chunk === INIT || chunk === INIT_ACK || chunk === SHUTDOWN_COMPLETE) alone = true;
    const first = alone || chunk === COOKIE_ACK || chunk === COOKIE_ECHO; // §5.1: the cookie comes first
    if ((first && count !== 0) || ((u8[at + 2] << 8) | u8[at + 3]) === 0) {
      p.detail = WHY_SCTP_CHUNKS;
      return -1;
    }
    if (chunk < 31) found |= 1 << chunk;
  }
  if (count > 0) return found;
  p.detail = WHY_SCTP_CHUNKS;
  return -1;
}

/** Offset of the chunk after the one at `at`: chunks are padded to 4 bytes (§3.2). */
function nextChunk(u8: Uint8Array, at: number): number {
  return at + ((((u8[at + 2] << 8) | u8[at + 3]) + 3) & ~3);
}

function refuse(p: Packet, why: number): number {
  p.detail = why;
  return TRACK_INVALID;
}

function be32(u8: Uint8Array, at: number): number {
  return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3];
}

function parseRules(text: string): Uint8Array {
  const table = new Uint8Array(2 * CHUNK_TYPES * STATES);
  for (let chunk = 0; chunk < CHUNK_TYPES; chunk++) {
    for (let state = 0; state < STATES; state++) {
      const unopened = state === NONE || state === STATES - 1;
      table[chunk * STATES + state] = unopened ? CLOSED : state;
      table[(CHUNK_TYPES + chunk) * STATES + state] = unopened ? INVALID : state;
    }
  }
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const match = /^(ORIGINAL|REPLY) ([A-Z_]+): ([A-Z_* ]+) > ([A-Z_]+)$/.exec(line);
    const chunk = CHUNKS.indexOf(match?.[2] ?? '-');
    const next = SCTP_STATE_NAMES.indexOf(match?.[4] ?? '');
    if (!match || chunk < 0 || next < 0) throw new Error(`sctp.ts: cannot read the rule "${line}"`);
    const base = ((match[1] === 'REPLY' ? CHUNK_TYPES : 0) + chunk) * STATES;
    const states = match[3] === '*' ? SCTP_STATE_NAMES : match[3].split(' ');
    for (const name of states) table[base + SCTP_STATE_NAMES.indexOf(name)] = next;
  }
  return table;
}
