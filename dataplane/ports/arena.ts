/**
 * Arena: frame slots at addresses that the kernel may be given.
 *
 * A Frames over mapped memory: slot offsets become addresses by adding `base`, so a port passes `base + offset` to a
 * system call and nothing is copied or allocated. The memory is never unmapped while the process lives, on the ground while
 * the arena does (a view of unmapped memory is a crash); a worker that restarts takes the address of its predecessor's memory and starts with
 * all slots free, instead of mapping another piece.
 */
import { type FrameMemory, Frames } from '../frames.ts';
import { type GroundBuffers, groundFrames } from '../ground.ts';
import { mapHuge, viewMemory } from './ffi.ts';
import { adviseHugeAt, bufferAddress } from './hugepages.ts';

export class LiveFrames extends Frames {
  /** Address of the arena's first byte. */
  readonly base: number;
  /** Whose memory this is, when it is not this process's for good: it lives as long as the arena. */
  readonly owner: object | null;

  constructor(small: number, large: number, memory: FrameMemory, base: number, owner: object | null = null) {
    super(small, large, memory);
    this.base = base;
    this.owner = owner;
  }
}

/** Maps memory for an arena and returns its address; for `liveArena(small, large, address)` in a worker. */
export function mapArena(small: number, large: number): number {
  return mapHuge(Frames.bytes(small, large)).base;
}

/**
 * An arena of `small` and `large` slots over mapped memory; `base` names memory of an earlier `mapArena` with the same
 * numbers. Large slots cost physical memory only once they are used.
 */
export function liveArena(small: number, large: number, base = -1): LiveFrames {
  const bytes = Frames.bytes(small, large);
  const memory = base < 0 ? mapHuge(bytes) : viewMemory(base, bytes);
  return new LiveFrames(small, large, { buffer: memory.buffer, at: 0 }, memory.base);
}

/** A worker's arena on the ground, by views of one thread: bulk copies in shared memory are several times slower in V8. */
export function groundArena(ground: GroundBuffers, worker: number): LiveFrames {
  const start = bufferAddress(ground.memory.buffer);
  // A worker's first frames are the ones in use; refused: ordinary pages do as well.
  adviseHugeAt(start + ground.first + worker * ground.region, ground.region);
  const memory = groundFrames(ground, worker, (at, bytes) => viewMemory(start + at, bytes).buffer);
  return new LiveFrames(ground.small, ground.large, memory, start + memory.ground!, ground.memory);
}

/**
 * Address of an arena's first byte; also for one that is not mapped (V8 never moves the storage of an ArrayBuffer of
 * this size). Not for the hot path: ports call it when the arena they are handed is not the one of the call before.
 */
export function arenaBase(frames: Frames): number {
  return frames instanceof LiveFrames ? frames.base : bufferAddress(frames.buffer) + frames.at;
}
