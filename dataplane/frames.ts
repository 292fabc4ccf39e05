/**
 * Frames: the arena of frame slots that one worker owns.
 *
 * A plain ArrayBuffer (bulk copies in a SharedArrayBuffer are several times slower in V8) or, inline with the compiled
 * burst, a piece of the ground (ground.ts), cut into two classes of
 * slots: small ones for ordinary frames, large ones for GSO super-frames. A frame starts HEADROOM bytes into its slot,
 * at an offset ≡ 2 (mod 4), so that after a 14- or 18-byte link header the IP header is 4-aligned and is read as
 * int32 words. Slot strides are an odd number of cache lines, so that equal offsets of neighbouring slots do not fall
 * into the same cache set.
 *
 *   slot          start (= slot base + HEADROOM + 2)
 *   |<- headroom ->|<- frame, meta[LEN] bytes ->|<- tailroom ->|
 *
 * Metadata beside each slot, META_WORDS int32 words:
 *
 *   0 OFF    absolute byte offset of the frame's first byte     4 GSO     type | size << 16
 *   1 LEN    frame length in bytes, no FCS                      5 CSUM    start | offset << 16 (from frame start)
 *   2 PORT   ingress port number                                6 HDRLEN  length of all headers of a super-frame
 *   3 FLAGS  FRAME_* (virtio's NEEDS_CSUM 1, DATA_VALID 2)      7         not used
 *
 * Free slots are two stacks, of which the last freed, whose lines a cache still has, is taken first. Bursts are taken and
 * freed by the compiled burst (compiled/slots.ts) where the arena lies on the ground.
 *
 * Ownership: whoever holds a slot number owns the slot until it passes it on (txBurst takes ownership) or frees it.
 * Not thread safe: one arena, one worker.
 */
import { privateAligned } from './wire/aligned.ts';

export const META_WORDS = 8;
export const META_OFF = 0;
export const META_LEN = 1;
export const META_PORT = 2;
export const META_FLAGS = 3;
export const META_GSO = 4;
export const META_CSUM = 5;
export const META_HDRLEN = 6;

/** The checksum field holds only the folded pseudo-header sum; the sender of the frame must complete it. */
export const FRAME_NEEDS_CSUM = 1;
/** The receiver has verified the transport checksum. */
export const FRAME_DATA_VALID = 2;

/** GSO types, virtio's numbers. */
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
export const GSO_ECN = 0x80;

export const HEADROOM = 128;
export const SMALL_STRIDE = 33 * 64; // 2112: 130 bytes of headroom, 1982 for the frame
export const LARGE_STRIDE = 1033 * 64; // 66112: a 65535-byte datagram, its link header, and room to spare

/** Largest frame that fits a small and a large slot, bytes. */
export const SMALL_ROOM = SMALL_STRIDE - HEADROOM - 2;
export const LARGE_ROOM = LARGE_STRIDE - HEADROOM - 2;

/** Words of the free slots: how many there are of each class, then the stack of the small and that of the large ones. */
export const FREE_SMALL = 0;
export const FREE_LARGE = 1;
export const FREE_LIST = 16;

/** What compiled/slots.ts exports: takes and frees the slots of a list, given by its address. */
export interface SlotBursts {
  take(list: number, n: number): number;
  give(list: number, n: number): void;
}

/** Memory for an arena that is made elsewhere (an mmap, a piece of the ground: ground.ts). */
export interface FrameMemory {
  /** At least Frames.bytes(small, large) bytes from byte `at` on, which begins a cache line. */
  buffer: ArrayBufferLike;
  at: number;
  meta?: Int32Array;
  /** FREE_LIST + small + large words. */
  free?: Int32Array;
  /** Where that byte and the region of the arena's worker lie on the ground; without them: not there. */
  ground?: number;
  region?: number;
  /** Works on this arena, for lists in `lists`. */
  bursts?: SlotBursts;
  lists?: ArrayBufferLike;
}

export class Frames {
  readonly buffer: ArrayBufferLike;
  /** Byte of `buffer` from which offsets count. */
  readonly at: number;
  /** The same byte, and the region of the arena's worker, on the ground (ground.ts); −1: not there. */
  readonly ground: number;
  readonly region: number;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly meta: Int32Array;
  readonly small: number;
  readonly large: number;
  /** Bytes before the first slot, so that frames begin 2 bytes into a cache line. */
  private readonly lead: number = 0;
  private readonly spare: Int32Array;
  private readonly bursts: SlotBursts | null;
  private readonly lists: ArrayBufferLike | null;

  /**
   * @param small number of small slots   @param large number of large slots
   * @param memory to use; without it, memory of its own
   */
  constructor(small: number, large: number, memory?: FrameMemory) {
    let bytes = Frames.bytes(small, large);
    if (memory === undefined) {
      const own = privateAligned(bytes);
      this.buffer = own.buffer;
      this.lead = own.lead;
      bytes = own.buffer.byteLength;
    } else this.buffer = memory.buffer;
    this.at = memory?.at ?? 0;
    this.ground = memory?.ground ?? -1;
    this.region = memory?.region ?? -1;
    this.small = small;
    this.large = large;
    this.u8 = new Uint8Array(this.buffer, this.at, bytes);
    this.u16 = new Uint16Array(this.buffer, this.at, bytes >> 1);
    this.i32 = new Int32Array(this.buffer, this.at, bytes >> 2);
    this.meta = memory?.meta ?? new Int32Array((small + large) * META_WORDS);
    this.spare = memory?.free ?? new Int32Array(FREE_LIST + small + large);
    this.bursts = memory?.bursts ?? null;
    this.lists = memory?.lists ?? null;
    this.spare[FREE_SMALL] = 0;
    this.spare[FREE_LARGE] = 0;
    for (let slot = small + large - 1; slot >= 0; slot--) this.free(slot);
  }

  /** Slots that are free now, by class. */
  get freeSmallCount(): number {
    return this.spare[FREE_SMALL];
  }

  get freeLargeCount(): number {
    return this.spare[FREE_LARGE];
  }

  static bytes(small: number, large: number): number {
    return small * SMALL_STRIDE + large * LARGE_STRIDE;
  }

  /** Takes a slot with room for `bytes`; its meta is reset, OFF set to the class's start. Returns −1 when none is free. */
  alloc(bytes: number): number {
    const { meta, spare } = this;
    let slot: number;
    let left = spare[FREE_SMALL];
    if (left > 0 && bytes <= SMALL_ROOM) {
      spare[FREE_SMALL] = --left;
      slot = spare[FREE_LIST + left];
    } else {
      left = spare[FREE_LARGE];
      if (left === 0 || bytes > LARGE_ROOM) return -1;
      spare[FREE_LARGE] = --left;
      slot = spare[FREE_LIST + this.small + left];
    }
    const m = slot * META_WORDS;
    meta[m + META_OFF] = this.start(slot);
    meta[m + META_LEN] = 0;
    meta[m + META_PORT] = 0;
    meta[m + META_FLAGS] = 0;
    meta[m + META_GSO] = 0;
    meta[m + META_CSUM] = 0;
    meta[m + META_HDRLEN] = 0;
    return slot;
  }

  /** Gives a slot back. */
  free(slot: number): void {
    const { spare, small } = this;
    if (slot < small) spare[FREE_LIST + spare[FREE_SMALL]++] = slot;
    else spare[FREE_LIST + small + spare[FREE_LARGE]++] = slot;
  }

  /** `alloc` of up to `n` slots for ordinary frames, into `slots` from 0 on. Returns how many there were. */
  takeBurst(slots: Int32Array, n: number): number {
    if (this.bursts !== null && slots.buffer === this.lists) return this.bursts.take(slots.byteOffset, n);
    let taken = 0;
    for (; taken < n; taken++) {
      const slot = this.alloc(SMALL_ROOM);
      if (slot < 0) break;
      slots[taken] = slot;
    }
    return taken;
  }

  /** `free` of slots[0 … n). */
  freeBurst(slots: Int32Array, n: number): void {
    if (this.bursts !== null && slots.buffer === this.lists) this.bursts.give(slots.byteOffset, n);
    else for (let k = 0; k < n; k++) this.free(slots[k]);
  }

  /** Absolute byte offset where a frame in this slot starts by default. */
  start(slot: number): number {
    const base = this.lead + HEADROOM + 2;
    return slot < this.small
      ? base + slot * SMALL_STRIDE
      : base + this.small * SMALL_STRIDE + (slot - this.small) * LARGE_STRIDE;
  }

  /** Bytes from OFF to the end of the slot. */
  room(slot: number): number {
    const end =
      slot < this.small
        ? (slot + 1) * SMALL_STRIDE
        : this.small * SMALL_STRIDE + (slot - this.small + 1) * LARGE_STRIDE;
    return this.lead + end - this.meta[slot * META_WORDS + META_OFF];
  }
}
