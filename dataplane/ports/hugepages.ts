/**
 * Huge pages, and where memory lies: what JavaScript does not say of a buffer and the operating system knows.
 *
 * A table of a hundred mebibytes that is visited at random costs a TLB miss a visit with 4 KiB pages. Linux gives 2 MiB
 * pages to who asks for them (madvise(2), MADV_HUGEPAGE; /sys/kernel/mm/transparent_hugepage/enabled is `madvise` on most
 * distributions) as long as the memory has not been touched yet. The price: memory appears 2 MiB at a time.
 */
import koffi from 'koffi';
import { CACHE_LINE, setLead } from '../wire/aligned.ts';

const HUGE = 2 * 1024 * 1024;
const MADV_HUGEPAGE = 14;
/** Below this a table fits the TLB with ordinary pages. */
const WORTHWHILE = 4 * HUGE;

const madvise = koffi.load(null).func('int madvise(uintptr_t address, size_t bytes, int advice)') as (
  address: number,
  bytes: number,
  advice: number,
) => number;

/** Address of a buffer's first byte. The caller keeps the buffer alive for as long as the address is used. */
export function bufferAddress(buffer: ArrayBufferLike): number {
  // One byte is view enough, and a view of more than 4 GiB of bytes there cannot be.
  return Number(koffi.address(new Uint8Array(buffer, 0, 1)));
}

/** From here on, aligned memory begins exactly on a cache line, the ground on a huge page. Call it before any table is made. */
export function exactLead(): void {
  const to = (size: number) => (buffer: ArrayBufferLike) => (size - (bufferAddress(buffer) % size)) % size;
  setLead(to(CACHE_LINE), to(HUGE));
}

/**
 * Asks for huge pages under a buffer that has not been written to yet. Returns the bytes that the kernel agreed to:
 * 0 when the buffer is too small to gain from it, or the kernel has none to give.
 */
export function adviseHuge(buffer: ArrayBufferLike): number {
  return buffer.byteLength < WORTHWHILE ? 0 : adviseHugeAt(bufferAddress(buffer), buffer.byteLength);
}

/** The same for the huge pages that lie wholly within `size` bytes at an address, however small. */
export function adviseHugeAt(address: number, size: number): number {
  const from = Math.ceil(address / HUGE) * HUGE;
  const bytes = Math.floor((address + size - from) / HUGE) * HUGE;
  return bytes > 0 && madvise(from, bytes, MADV_HUGEPAGE) === 0 ? bytes : 0;
}

/** The same for every buffer in an object of buffers (TableBuffers and what it holds), once. Returns the bytes in all. */
export function adviseHugeAll(buffers: object, done = new Set<ArrayBufferLike>()): number {
  let bytes = 0;
  for (const value of Object.values(buffers)) {
    if (value instanceof SharedArrayBuffer || value instanceof ArrayBuffer) {
      if (!done.has(value)) bytes += adviseHuge(value);
      done.add(value);
    } else if (value !== null && typeof value === 'object') bytes += adviseHugeAll(value, done);
  }
  return bytes;
}

/** Bytes of the smallest page. */
const PAGE = 4096;

/**
 * Takes the memory under words now, by writing to every page of it (what is there stays): page faults cost a new
 * connection as much as everything else that is done for it. Returns the bytes.
 */
export function prefault(words: Int32Array): number {
  for (let at = 0; at < words.length; at += PAGE / 4) Atomics.or(words, at, 0);
  return words.byteLength;
}
