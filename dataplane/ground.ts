/**
 * Ground: the one memory that the compiled burst (compiled/burst.ts) can reach, and what lies where in it.
 *
 *   worker 0: metadata | free slots | slots | homes | wanted | report | frames     worker 1: …     interfaces | neighbours | room | IPv4 entries | IPv6 entries
 *
 * WebAssembly addresses one memory of at most 4 GiB. Entries of IPv6 that find no room lie in a buffer of their own, and the
 * burst leaves them to fastpath.ts; where nothing fits, there is no ground. Every access of JavaScript goes through ordinary views, as if these were separate buffers.
 */
import { FlowTable } from '../offload/table.ts';
import { FREE_LIST, type FrameMemory, Frames, META_WORDS, type SlotBursts } from './frames.ts';
import { CACHE_LINE, hugeLead, sharedAligned } from './wire/aligned.ts';
import { type WasmMemory, type WasmModule, WebAssembly } from './wire/webassembly.ts';

/** Most frames of a burst: what is taken from one port per turn, and the length of the compiled burst's lists. */
export const BURST = 256;
/** Mark of an IPv6 flow's home. */
export const HOME6 = 0x40000000;

/** Words of the report that a run leaves: egress port, bytes of its frames as received and as sent, why it stopped. */
export const REPORT_OUT = 0;
export const REPORT_RECEIVED = 1;
export const REPORT_SENT = 2;
export const REPORT_WHY = 3;
const REPORT_WORDS = 16;
/** `why` of a run that stopped at a frame which fastpath.ts must judge. */
export const UNDECIDED = -2;

const PAGE = 65536;
const MOST = 65536 * PAGE;
const HUGE_PAGE = 2 * 1024 * 1024;

/** What a thread is told of the ground; all offsets in bytes. */
export interface GroundBuffers {
  memory: WasmMemory;
  module: WasmModule;
  /** Slots of each worker's arena. */
  small: number;
  large: number;
  /** Where the first worker's region begins, and bytes of each. */
  first: number;
  region: number;
  interfaces: number;
  neighbours: number;
  /** First byte of each family's entries; 0: not here. */
  flows4: number;
  flows6: number;
  /** First byte of what the caller has asked for. */
  room: number;
}

/** What the ground is made for. `module` is the compiled burst, `small` and `large` the slots of a worker's arena. */
export interface Compiled {
  module: WasmModule;
  small: number;
  large: number;
  /** Bytes that the caller wants for itself (the bench's masters). */
  room?: number;
}

/** A piece of shared memory: `bytes` of `buffer`, `lead` bytes into it. */
export interface Piece {
  buffer: SharedArrayBuffer;
  lead: number;
  bytes: number;
}

export interface Pieces {
  ground: GroundBuffers | null;
  interfaces: Piece;
  neighbours: Piece;
  /** For FlowTable.create. */
  four: (bytes: number) => Piece;
  six: (bytes: number) => Piece;
}

/** A piece of its own. */
export function ownPiece(bytes: number): Piece {
  return { ...sharedAligned(bytes), bytes };
}

/**
 * Where tables of these sizes lie: on ground if it was asked for and they fit, each in a buffer of its own otherwise.
 * @param entries of the engine
 */
export function layOut(
  compiled: Compiled | null,
  workers: number,
  entries: number,
  interfaces: number,
  neighbours: number,
): Pieces {
  const apart = () => ({
    ground: null,
    interfaces: ownPiece(interfaces),
    neighbours: ownPiece(neighbours),
    four: ownPiece,
    six: ownPiece,
  });
  if (compiled === null) return apart();
  const { small, large, module, room = 0 } = compiled;
  const region = regionOf(small, large).bytes;
  const { four, six } = entries > 0 ? FlowTable.familyBytes(entries) : { four: 0, six: 0 };
  const neighboursFrom = up(workers * region + interfaces);
  const roomFrom = up(neighboursFrom + neighbours);
  const fourFrom = up(roomFrom + room);
  const sixFrom = fourFrom + four;
  const withSix = sixFrom + six + HUGE_PAGE <= MOST;
  const pages = Math.ceil(((withSix ? sixFrom + six : sixFrom) + HUGE_PAGE) / PAGE);
  if (pages * PAGE > MOST || workers * region > 0x7fffffff - HUGE_PAGE) return apart();
  let memory: WasmMemory;
  try {
    memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch {
    // No address space for it (ulimit -v): the tables need none to spare.
    return apart();
  }
  const { buffer } = memory;
  const first = hugeLead(buffer);
  const at = {
    first,
    interfaces: first + workers * region,
    neighbours: first + neighboursFrom,
    room: first + roomFrom,
    flows4: first + fourFrom,
    flows6: withSix ? first + sixFrom : 0,
  };
  return {
    ground: { memory, module, small, large, region, ...at },
    interfaces: { buffer, lead: at.interfaces, bytes: interfaces },
    neighbours: { buffer, lead: at.neighbours, bytes: neighbours },
    four: (bytes) => ({ buffer, lead: at.flows4, bytes }),
    six: withSix ? (bytes) => ({ buffer, lead: at.flows6, bytes }) : ownPiece,
  };
}

/** Where the parts of a worker's region lie, bytes from its beginning. */
export function regionOf(small: number, large: number) {
  const free = up((small + large) * META_WORDS * 4);
  const slots = free + up((FREE_LIST + small + large) * 4);
  const homes = slots + BURST * 4;
  const wanted = homes + BURST * 4;
  const report = wanted + BURST * 8;
  const frames = report + REPORT_WORDS * 4;
  // A burst reads some bytes beyond a short frame; the last slot has them, too.
  return { meta: 0, free, slots, homes, wanted, report, frames, bytes: up(frames + Frames.bytes(small, large)) };
}

interface SlotExports extends SlotBursts {
  placeSlots(meta: number, free: number, small: number): void;
}

/**
 * Memory for a worker's arena on the ground.
 * @param view gives other views of the memory at an offset, for those who know its address (ports/arena.ts)
 */
export function groundFrames(
  ground: GroundBuffers,
  worker: number,
  view?: (at: number, bytes: number) => ArrayBufferLike,
): FrameMemory {
  const { small, large, region } = ground;
  const parts = regionOf(small, large);
  const start = ground.first + worker * region;
  const bytes = Frames.bytes(small, large);
  const shared = ground.memory.buffer;
  const words = (small + large) * META_WORDS;
  const spare = FREE_LIST + small + large;
  const { exports } = new WebAssembly.Instance(ground.module, { env: { memory: ground.memory } });
  const bursts = exports as SlotExports;
  bursts.placeSlots(start, start + parts.free, small);
  return {
    ...(view === undefined
      ? {
          buffer: shared,
          at: start + parts.frames,
          meta: new Int32Array(shared, start, words),
          free: new Int32Array(shared, start + parts.free, spare),
        }
      : {
          buffer: view(start + parts.frames, bytes),
          at: 0,
          meta: new Int32Array(view(start, words * 4)),
          free: new Int32Array(view(start + parts.free, spare * 4)),
        }),
    ground: start + parts.frames,
    region: start,
    bursts,
    lists: shared,
  };
}

function up(bytes: number): number {
  return Math.ceil(bytes / CACHE_LINE) * CACHE_LINE;
}
