/**
 * Watch block: what the control plane asks those who watch in the workers (watch.ts) to record, in shared memory.
 *
 *   0 GENERATION  grows with every change: a worker looks at this one word in each turn of its loop
 *   1 MODE        OFF, DROPS (captures of drops), FRAMES (others), STAGES_TOO (traces, captures by stage, times of stages)
 *   2 TRACE_STAGE + 1 (0: none)   3 TRACE_LEFT  packets still to be traced, by all workers together
 *   4 TIMES       1: the stages are timed
 *   16 + 24 s     session s of SESSIONS: what one capture wants
 *      0 ACTIVE   1, 2 PORTS (a bit each; both 0: all)   3 DROPS only   4 STAGE + 1 (0: any)   5 SNAP, bytes of a frame
 *      6 FLOW     FLOW_* that are compared (0: any packet)   7 PROTO (0 any)   8 FAMILY (0 any)
 *      9–12 SRC  13–16 DST   17 SPORT  18 DPORT   raw; either direction of the flow matches
 *   128 + …       of each worker, doubles: packets through each stage, packets timed, nanoseconds of these
 *
 * Records that the workers write to their rings: WATCH_FRAME (a frame of a capture) and WATCH_TRACE; words R_* of either.
 */
import { MAX_WORKERS } from '../conntrack/table.ts';
import { STAGES } from './drop.ts';

export const GENERATION = 0;
export const MODE = 1;
export const TRACE_STAGE = 2;
export const TRACE_LEFT = 3;
export const TIMES = 4;
export const OFF = 0;
export const DROPS = 1;
export const FRAMES = 2;
export const STAGES_TOO = 3;

export const SESSIONS = 4;
export const S_ACTIVE = 0;
export const S_PORTS = 1;
export const S_DROPS = 3;
export const S_STAGE = 4;
export const S_SNAP = 5;
export const S_FLOW = 6;
export const S_PROTO = 7;
export const S_FAMILY = 8;
export const S_SRC = 9;
export const S_DST = 13;
export const S_SPORT = 17;
export const S_DPORT = 18;
const SESSION_WORDS = 24;

/** Bits of FLOW. */
export const FLOW_ON = 1;
export const FLOW_SRC = 2;
export const FLOW_DST = 4;
export const FLOW_SPORT = 8;
export const FLOW_DPORT = 16;

const TIMES_AT = 128;
/** Doubles of a worker's row: packets, packets timed, nanoseconds of each stage. */
export const TIME_DOUBLES = 3 * STAGES.length;

/** Word index of a session. */
export function sessionAt(session: number): number {
  return 16 + session * SESSION_WORDS;
}

export function createWatchBlock(): SharedArrayBuffer {
  return new SharedArrayBuffer(TIMES_AT * 4 + MAX_WORKERS * TIME_DOUBLES * 8);
}

/** A worker's row of times. */
export function timesOf(block: SharedArrayBuffer, worker: number): Float64Array {
  return new Float64Array(block, TIMES_AT * 4 + worker * TIME_DOUBLES * 8, TIME_DOUBLES);
}

/** Bytes of a worker's ring to the control plane; memory only once something is watched. */
export const WATCH_RING = 1 << 22;

export const WATCH_FRAME = 1;
export const WATCH_TRACE = 2;

/** Words of a record, of both kinds. Addresses and ports raw. */
export const R_SESSIONS = 0; // bits; of a trace 0
export const R_DIRECTION = 1; // DIRECTION_*
export const R_ID = 2; // number of the packet, the same for what came of it
export const R_SECONDS = 3; // since 1970
export const R_NANOS = 4;
export const R_LENGTH = 5; // of the frame, before it was cut
export const R_VERDICT = 6; // of what came in
export const R_STAGE = 7;
export const R_DETAIL = 8;
export const R_FLAGS = 9; // RF_*
export const R_KEY = 10; // protocol | family << 8; 0: not parsed
export const R_RSRC = 11; // received source, 4 words; then received destination, ports
export const R_RDST = 15;
export const R_RPORTS = 19;
export const R_SRC = 20; // effective
export const R_DST = 24;
export const R_PORTS = 28;
export const R_ANSWERS = 29; // number of the packet that this own one answers; 0 none
export const R_CT = 30; // connection + 1
export const R_CTINFO = 31; // CT_* | direction << 8
export const R_OUT = 32; // egress port + 1
export const R_NEXT = 33; // next hop's address, 4 words
export const R_COUNT = 37; // stages, then their numbers, one byte each
export const R_STAGES = 38;
export const MAX_STAGES = 24;
export const R_WORDS = R_STAGES + MAX_STAGES / 4;

/** The engine forwarded it; the router made it; it had waited for a neighbour. */
export const RF_ENGINE = 1;
export const RF_OWN = 2;
export const RF_RESUMED = 4;
/** From this bit on: why the engine has left it to the slow path (EX_*). */
export const RF_WHY = 8;

export const DIRECTION_NONE = 0;
export const DIRECTION_IN = 1;
export const DIRECTION_OUT = 2;
