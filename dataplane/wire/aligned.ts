/**
 * Aligned: shared memory whose records begin on cache lines.
 *
 * JavaScript does not say where an ArrayBuffer lies. A record that straddles two cache lines costs two misses instead of
 * one, so tables are allocated with a line to spare and begin `lead` bytes into their buffer. Large blocks of glibc's
 * malloc lie 16 bytes behind a page boundary, hence the default; a process that can ask for the address (live mode, the
 * benchmarks) sets the exact function first.
 */
export const CACHE_LINE = 64;

let leadOf = (_buffer: ArrayBufferLike): number => CACHE_LINE - 16;

/** Replaces the guess by knowledge: bytes from the buffer's address to the next cache line. */
export function setLead(of: (buffer: ArrayBufferLike) => number): void {
  leadOf = of;
}

/** A shared buffer with room for `bytes` and, `lead` bytes into it, a cache line's beginning. */
export function sharedAligned(bytes: number): { buffer: SharedArrayBuffer; lead: number } {
  const buffer = new SharedArrayBuffer(bytes + CACHE_LINE);
  return { buffer, lead: leadOf(buffer) & (CACHE_LINE - 4) };
}

/** The same for memory of one thread. */
export function privateAligned(bytes: number): { buffer: ArrayBuffer; lead: number } {
  const buffer = new ArrayBuffer(bytes + CACHE_LINE);
  return { buffer, lead: leadOf(buffer) & (CACHE_LINE - 4) };
}
