/**
 * BpfRing: the reading end of a ring that eBPF programs write (BPF_MAP_TYPE_RINGBUF). Reading it takes no system call.
 *
 *   a page with the place of reading; a page with that of writing; then records, in memory that is mapped twice in a row,
 *   so that none is cut in two by the ring's end:  length u32 | BUSY 2^31 | DISCARD 2^30, u32 spare, data, 8-aligned
 *
 * Places count bytes since the ring was made, 64 bits of them. One reader: who takes its place goes on where it has stopped.
 * Source: linux/bpf.h, kernel/bpf/ringbuf.c (Documentation/bpf/ringbuf.rst). Little-endian machines only, as the rest.
 */
import { mapDescriptor, mapReadOnly, viewMemory } from './ffi.ts';

const PAGE = 4096;
const RECORD_HEADER = 8;
const DISCARD = 1 << 30;
const LENGTH = DISCARD - 1;

/** Addresses of the ring's two ends, the same in every thread, and how many bytes of records it has. */
export interface RingTask {
  consumer: number;
  producer: number;
  bytes: number;
}

/** Maps both ends of the ring whose descriptor is `fd`, of `bytes` bytes. Errors: IoError of `where`. */
export function mapRing(fd: number, bytes: number, where: string): RingTask {
  const consumer = mapDescriptor(fd, PAGE, 0, false, where).base;
  return { consumer, producer: mapReadOnly(fd, PAGE + 2 * bytes, PAGE, where).base, bytes };
}

export class BpfRing {
  /** The records, by word and by byte. */
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  private readonly mask: number;
  private readonly written: Int32Array;
  private readonly read: Int32Array;
  private readonly readWhole: BigInt64Array;
  /** Low and high half of the place of reading, the low half of that of writing when it was last looked at. */
  private low: number;
  private high: number;
  private known: number;
  /** Both halves as they were given back last. */
  private given: number;
  private givenHigh: number;
  /** Bytes of the record that `peek` has told, header and padding included. */
  private size = 0;

  constructor(task: RingTask) {
    const consumer = viewMemory(task.consumer, PAGE).buffer;
    const producer = viewMemory(task.producer, PAGE + 2 * task.bytes).buffer;
    this.mask = task.bytes - 1;
    this.written = new Int32Array(producer, 0, 1);
    this.words = new Int32Array(producer, PAGE);
    this.bytes = new Uint8Array(producer, PAGE);
    this.read = new Int32Array(consumer, 0, 2);
    this.readWhole = new BigInt64Array(consumer, 0, 1);
    this.low = this.read[0];
    this.high = this.read[1];
    this.known = this.low;
    this.given = this.low;
    this.givenHigh = this.high;
  }

  /** Byte at which the next record's data begin; −1 when there is none, or its writer is not done with it. */
  peek(): number {
    for (;;) {
      if (this.low === this.known && this.low === (this.known = Atomics.load(this.written, 0))) return -1;
      const at = this.low & this.mask;
      const header = Atomics.load(this.words, at >> 2);
      if (header < 0) return -1;
      this.size = ((header & LENGTH) + RECORD_HEADER + 7) & ~7;
      if ((header & DISCARD) === 0) return at + RECORD_HEADER;
      this.skip();
    }
  }

  /** Goes on behind the record that `peek` has told. Its memory stays what it is until `release`. */
  skip(): void {
    const next = (this.low + this.size) | 0;
    if (this.low < 0 && next >= 0) this.high = (this.high + 1) | 0;
    this.low = next;
  }

  /** Gives all records behind which the reader is back to the writers, those that were discarded as well. */
  release(): void {
    if (this.low === this.given) return;
    this.given = this.low;
    if (this.high === this.givenHigh) {
      Atomics.store(this.read, 0, this.low);
      return;
    }
    // Once in 4 GiB: both halves at once, or a writer in between would take the ring for full.
    this.givenHigh = this.high;
    Atomics.store(this.readWhole, 0, (BigInt(this.high) << 32n) | BigInt(this.low >>> 0));
  }
}
