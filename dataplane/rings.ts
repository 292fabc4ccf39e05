/**
 * Rings: how packet workers and the control plane hand each other frames, without messages and without locks.
 *
 * A ring has one writer and one reader, each on a thread of its own. Punt rings go from a worker to the control plane,
 * inject rings the other way. Records have the length of what they carry, so nothing is truncated: a frame for the
 * control plane is at most one MTU long (super-frames are segmented before), and an event takes 32 bytes.
 *
 *   head: 0 WRITE  16 READ  32 LOST     byte positions that wrap at 2^32 (one cache line each); frames that found no room
 *   data: record, record, …             a record that would cross the end is preceded by a filler
 *
 *   0 BYTES  of the payload; −1 filler          3–7  what the kind needs, below
 *   1 KIND   2 PORT                             payload, 2 bytes further (a frame starts at ≡ 2 (mod 4)), padded to 4
 *
 *   punt:   FRAME    3 EtherType  4 offset of the IP or ARP header     inject: SEND    a frame, as it is, out of PORT
 *           RESOLVE  3 family  4–7 address, raw                                OUTPUT  an IP packet; PORT its scope
 *           USED     3 neighbour's number                                      RECEIVE a frame that came in on PORT
 *           TRANSMIT a frame for a device that only the main thread has
 *
 * Publication: payload and words by plain stores, then one Atomics.store of WRITE. A writer that dies in between has
 * published nothing. Who sleeps is woken by others: the main thread by the bell of LiveBlock, a worker by its eventfd.
 * Fragments between workers take the same rings (handover.ts). Super-frames do not fit: nobody hands one over.
 */
import { type Frames, META_LEN, META_OFF, META_WORDS } from './frames.ts';

export const PUNT_FRAME = 1;
export const PUNT_RESOLVE = 2;
export const PUNT_USED = 3;
export const PUNT_TRANSMIT = 4;
export const INJECT_SEND = 1;
export const INJECT_OUTPUT = 2;
export const INJECT_RECEIVE = 3;

const WRITE = 0;
const READ = 16;
const LOST = 32;
const HEAD_WORDS = 64;
const RECORD_WORDS = 8;
const RECORD_BYTES = RECORD_WORDS * 4;
const FILLER = -1;
/** Ring sizes are powers of two, bytes. The default holds some 300 full frames or 16384 events. */
export const RING_BYTES = 1 << 19;

/** Memory of a ring with room for `bytes` bytes, a power of two. */
export function createRing(bytes = RING_BYTES): SharedArrayBuffer {
  return new SharedArrayBuffer(HEAD_WORDS * 4 + bytes);
}

class Ring {
  protected readonly words: Int32Array;
  protected readonly u8: Uint8Array;
  protected readonly size: number;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.u8 = new Uint8Array(buffer);
    this.size = buffer.byteLength - HEAD_WORDS * 4;
  }

  /** Records that found no room, since start. */
  get lost(): number {
    return this.words[LOST] >>> 0;
  }

  get isEmpty(): boolean {
    return Atomics.load(this.words, WRITE) === Atomics.load(this.words, READ);
  }
}

export class RingWriter extends Ring {
  /** Records written since `written` was last set to 0: whether the reader must be woken. */
  written = 0;

  /** Writes a record without a payload. False (and counted) when there is no room. */
  event(kind: number, port: number, a: number, b = 0, c = 0, d = 0, e = 0): boolean {
    const at = this.reserve(0);
    if (at < 0) return false;
    const w = this.words;
    w[at + 4] = b;
    w[at + 5] = c;
    w[at + 6] = d;
    w[at + 7] = e;
    this.publish(at, 0, kind, port, a);
    return true;
  }

  /** Writes the frame in a slot. `a`, `b`: words 3 and 4. */
  frame(kind: number, port: number, frames: Frames, slot: number, a = 0, b = 0): boolean {
    const off = frames.meta[slot * META_WORDS + META_OFF];
    const bytes = frames.meta[slot * META_WORDS + META_LEN];
    const at = this.reserve(bytes);
    if (at < 0) return false;
    const w = this.words;
    w[at + 4] = b;
    if ((off & 3) === 2) {
      // By whole words, which begin two bytes before the frame on both sides.
      const from = frames.i32;
      let source = (off - 2) >> 2;
      const end = at + RECORD_WORDS + ((bytes + 5) >> 2);
      for (let to = at + RECORD_WORDS; to < end; to++) w[to] = from[source++];
    } else {
      const to = (at + RECORD_WORDS) * 4 + 2;
      for (let n = 0; n < bytes; n++) this.u8[to + n] = frames.u8[off + n];
    }
    this.publish(at, bytes, kind, port, a);
    return true;
  }

  /** Writes bytes that are not in an arena. Control plane. */
  bytes(kind: number, port: number, bytes: Uint8Array): boolean {
    const at = this.reserve(bytes.length);
    if (at < 0) return false;
    this.u8.set(bytes, (at + RECORD_WORDS) * 4 + 2);
    this.publish(at, bytes.length, kind, port, 0);
    return true;
  }

  /** Writes the first `count` words of `head`, and u8[off … off + length) behind them. For those who watch (watch.ts). */
  record(
    kind: number,
    port: number,
    head: Int32Array,
    count: number,
    u8: Uint8Array,
    off: number,
    length: number,
  ): boolean {
    const bytes = count * 4 + length;
    const at = this.reserve(bytes);
    if (at < 0) return false;
    for (let n = 0; n < count; n++) this.words[at + RECORD_WORDS + n] = head[n];
    const to = (at + RECORD_WORDS + count) * 4;
    const ring = this.u8;
    for (let n = 0; n < length; n++) ring[to + n] = u8[off + n];
    this.publish(at, bytes, kind, port, 0);
    return true;
  }

  /** Word index of a record for `bytes` bytes, or −1 when there is no room for it (then counted). */
  private reserve(bytes: number): number {
    const w = this.words;
    const need = recordBytes(bytes);
    let write = w[WRITE];
    let room = this.size - ((write - Atomics.load(w, READ)) | 0);
    const toEnd = this.size - (write & (this.size - 1));
    if (need > toEnd) {
      if (need + toEnd > room) return this.refuse();
      w[HEAD_WORDS + ((write & (this.size - 1)) >> 2)] = FILLER;
      write = (write + toEnd) | 0;
      room -= toEnd;
      Atomics.store(w, WRITE, write);
    }
    if (need > room) return this.refuse();
    return HEAD_WORDS + ((write & (this.size - 1)) >> 2);
  }

  private refuse(): number {
    this.words[LOST]++;
    return -1;
  }

  private publish(at: number, bytes: number, kind: number, port: number, a: number): void {
    const w = this.words;
    w[at] = bytes;
    w[at + 1] = kind;
    w[at + 2] = port;
    w[at + 3] = a;
    this.written++;
    Atomics.store(w, WRITE, (w[WRITE] + recordBytes(bytes)) | 0);
  }
}

/** Reads record by record: `next`, then the fields, then `release`. */
export class RingReader extends Ring {
  kind = 0;
  port = 0;
  /** Bytes of the payload. */
  length = 0;
  /** Word index of the record's words 3 … 7 in `words`. */
  private at = 0;

  /** Looks at the next record. False when there is none. */
  next(): boolean {
    const w = this.words;
    for (;;) {
      const read = w[READ];
      if (read === Atomics.load(w, WRITE)) return false;
      const at = HEAD_WORDS + ((read & (this.size - 1)) >> 2);
      if (w[at] === FILLER) {
        Atomics.store(w, READ, (read + this.size - (read & (this.size - 1))) | 0);
        continue;
      }
      this.at = at;
      this.length = w[at];
      this.kind = w[at + 1];
      this.port = w[at + 2];
      return true;
    }
  }

  /** Word 3 + n of the record, n from 0 to 4. */
  word(n: number): number {
    return this.words[this.at + 3 + n];
  }

  /** Copies the payload to `to`, from index `at` on. */
  copy(to: Uint8Array, at: number): void {
    const from = (this.at + RECORD_WORDS) * 4 + 2;
    const { u8, length } = this;
    for (let n = 0; n < length; n++) to[at + n] = u8[from + n];
  }

  /** Word n of a record that `RingWriter.record` has written, and a copy of the bytes behind its first `count` words. */
  headWord(n: number): number {
    return this.words[this.at + RECORD_WORDS + n];
  }

  bytesBehind(count: number): Uint8Array {
    const from = (this.at + RECORD_WORDS + count) * 4;
    return this.u8.slice(from, from + this.length - count * 4);
  }

  /** The record's place may be written again. */
  release(): void {
    const w = this.words;
    Atomics.store(w, READ, (w[READ] + recordBytes(this.length)) | 0);
  }
}

/** Bytes of a record, header and the two bytes in front of the payload included. */
function recordBytes(bytes: number): number {
  return bytes === 0 ? RECORD_BYTES : RECORD_BYTES + ((bytes + 5) & ~3);
}
