/**
 * Handover: fragments of one datagram that came by different queues go to the one worker that puts them together.
 *
 * Only with more than one worker, and only for fragments: everything else is walked where it was received, as connections
 * are shared. Whose a fragment is, `fragmentOwner` (reassembly.ts) says from addresses and identification, so that all
 * workers agree without asking.
 *
 *            to worker 0   1   2          one ring (rings.ts) for each ordered pair: one writer, one reader, no locks;
 *   from 0      ·        ring ring        memory that nobody writes to is never touched
 *   from 1     ring       ·   ring
 *   from 2     ring      ring  ·          record: the frame as received; word 3 its flags, word 4 its checksum place
 *
 * A frame is counted as received by who received it, and its end by who walked it. A full ring drops the fragment
 * (NO_BUFFER). A worker that died finds what waits for it when it is started again.
 */
import { type Frames, META_CSUM, META_FLAGS, META_GSO, META_LEN, META_OFF, META_PORT, META_WORDS } from './frames.ts';
import { createRing, RingReader, RingWriter } from './rings.ts';

/** Bytes of a ring: some 160 full frames, three datagrams of the largest size. */
const BYTES = 1 << 18;
const HANDED = 1;

/** `take`: no frame waits; one waited, and there was no slot for it. */
export const NOTHING = -1;
export const LOST = -2;

/** Rings by sender and receiver; null from a worker to itself. */
export type HandoverRings = (SharedArrayBuffer | null)[][];

export function createHandover(workers: number): HandoverRings {
  const rings: HandoverRings = [];
  for (let from = 0; from < workers; from++) {
    rings.push([]);
    for (let to = 0; to < workers; to++) rings[from].push(from === to ? null : createRing(BYTES));
  }
  return rings;
}

/** One worker's ends of all rings. */
export class Handover {
  readonly worker: number;
  readonly workers: number;
  /** Frames given and taken since start, for tests and `show`. */
  given = 0;
  taken = 0;
  private readonly outward: (RingWriter | null)[];
  private readonly inward: (RingReader | null)[];
  private turn = 0;

  constructor(rings: HandoverRings, worker: number) {
    this.worker = worker;
    this.workers = rings.length;
    this.outward = rings[worker].map((ring) => (ring === null ? null : new RingWriter(ring)));
    this.inward = rings.map((row) => {
      const ring = row[worker];
      return ring === null ? null : new RingReader(ring);
    });
  }

  /** Copies the frame in `slot` to worker `to`; the slot stays the caller's. False: no room. */
  give(to: number, frames: Frames, slot: number): boolean {
    const ring = this.outward[to];
    if (ring === null) return false;
    const { meta } = frames;
    const m = slot * META_WORDS;
    if (!ring.frame(HANDED, meta[m + META_PORT], frames, slot, meta[m + META_FLAGS], meta[m + META_CSUM])) return false;
    this.given++;
    return true;
  }

  /** The next frame that another worker gave, in a slot of ours; NOTHING or LOST. Fair between the others. */
  take(frames: Frames): number {
    for (let n = 0; n < this.workers; n++) {
      this.turn = this.turn + 1 < this.workers ? this.turn + 1 : 0;
      const ring = this.inward[this.turn];
      if (ring === null || !ring.next()) continue;
      const slot = frames.alloc(ring.length);
      if (slot >= 0) {
        const { meta } = frames;
        const m = slot * META_WORDS;
        ring.copy(frames.u8, meta[m + META_OFF]);
        meta[m + META_LEN] = ring.length;
        meta[m + META_PORT] = ring.port;
        meta[m + META_FLAGS] = ring.word(0);
        meta[m + META_CSUM] = ring.word(1);
        meta[m + META_GSO] = 0;
        this.taken++;
      }
      // Before it is walked: a frame that kills the worker must not be the first that its successor finds.
      ring.release();
      return slot >= 0 ? slot : LOST;
    }
    return NOTHING;
  }

  /** True when somebody has given something that was not taken yet. */
  get waits(): boolean {
    for (let n = 0; n < this.workers; n++) {
      const ring = this.inward[n];
      if (ring !== null && !ring.isEmpty) return true;
    }
    return false;
  }

  /** Whether `to` was given anything since this was asked last: whether it must be woken. */
  hasNews(to: number): boolean {
    const ring = this.outward[to];
    if (ring === null || ring.written === 0) return false;
    ring.written = 0;
    return true;
  }
}
