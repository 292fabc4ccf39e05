/**
 * Arena: frame slots at addresses that the kernel may be given.
 *
 * A Frames over mapped memory: slot offsets become addresses by adding `base`, so a port passes `base + offset` to a
 * system call and nothing is copied or allocated. The memory is never unmapped while the process lives (a view of
 * unmapped memory is a crash); a worker that restarts takes the address of its predecessor's memory and starts with
 * all slots free, instead of mapping another piece.
 */
import { Frames } from '../frames.ts';
import { addressOf, mapHuge, viewMemory } from './ffi.ts';

export class LiveFrames extends Frames {
  /** Address of the arena's first byte. */
  readonly base: number;

  constructor(small: number, large: number, buffer: ArrayBuffer, base: number) {
    super(small, large, buffer);
    this.base = base;
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
  return new LiveFrames(small, large, memory.buffer, memory.base);
}

/**
 * Address of an arena's first byte; also for one that is not mapped (V8 never moves the storage of an ArrayBuffer of
 * this size). Not for the hot path: ports call it when the arena they are handed is not the one of the call before.
 */
export function arenaBase(frames: Frames): number {
  return frames instanceof LiveFrames ? frames.base : addressOf(frames.buffer);
}
