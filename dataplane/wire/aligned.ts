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

let hugeLeadOf = (_buffer: ArrayBufferLike): number => 0;

/** Replaces the guess by knowledge: bytes from the buffer's address to the next cache line, and to the next huge page. */
export function setLead(of: (buffer: ArrayBufferLike) => number, huge = hugeLeadOf): void {
  leadOf = of;
  hugeLeadOf = huge;
}

/** Bytes to leave out of a buffer so that what follows may lie on huge pages: less than 2 MiB; 0 for who does not know. */
export function hugeLead(buffer: ArrayBufferLike): number {
  return hugeLeadOf(buffer);
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
