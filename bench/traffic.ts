/**
 * Traffic: synthetic flows for the in-memory workloads, and the port that plays them.
 *
 * A master holds every frame once, 64 bytes apart, in arrival order (a randomly visited master costs a cache miss of its
 * own, which no router is to blame for). The port copies each frame into a slot before it is routed and copies what
 * leaves to an output ring, as a packet generator in memory does. Frames are 60 bytes (64 with the FCS), IPv6 62.
 */
import { type Frames, META_LEN, META_OFF, META_PORT, META_WORDS } from '../dataplane/frames.ts';
import type { GroundBuffers } from '../dataplane/ground.ts';
import { newPortCounters, type Port } from '../dataplane/ports/port.ts';
import { CACHE_LINE, privateAligned } from '../dataplane/wire/aligned.ts';
import { type WasmModule, WebAssembly } from '../dataplane/wire/webassembly.ts';

const STRIDE = 16; // words; a frame begins at byte 2, so that its IP header is 4-aligned
const FRAME = 60;
const FRAME6 = 62;
const OUT = 1024;
/** Most slots of a burst, or of what a port is given to send. */
const LIST = 1024;

interface Generator {
  receive(meta: number, frames: number, list: number, n: number, from: number, length: number, port: number): void;
  send(meta: number, frames: number, list: number, n: number, ring: number, at: number, mask: number): void;
}

/** Where on the ground a port has its master, its output ring and the list of a burst's slots (GroundBuffers.room). */
export interface Room {
  ground: GroundBuffers;
  module: WasmModule;
  at: number;
}

export class MasterPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters = newPortCounters();
  readonly pollFd = -1;
  readonly master: Int32Array;
  readonly bytes: Uint8Array;
  readonly count: number;
  readonly length: number;
  /** Frames still to play, round and round the master; an int32, so that counting it down allocates nothing. */
  left = 0;
  /** Frames that left here. */
  sent = 0;
  private at = 0;
  private readonly out: Int32Array;
  private outAt = 0;
  /** Copies by vectors; null: by words, here. */
  private readonly generator: Generator | null;
  private readonly list: Int32Array;
  private readonly listAt: number = 0;
  private readonly masterAt: number = 0;
  private readonly ringAt: number = 0;

  constructor(name: string, number: number, count: number, family: 4 | 6, room: Room | null) {
    this.name = name;
    this.number = number;
    this.count = count;
    this.length = family === 4 ? FRAME : FRAME6;
    let buffer: ArrayBufferLike;
    if (room === null) {
      const memory = privateAligned(MasterPort.room(count));
      buffer = memory.buffer;
      this.listAt = memory.lead;
      this.generator = null;
    } else {
      const { memory } = room.ground;
      buffer = memory.buffer;
      this.listAt = room.at;
      this.generator = new WebAssembly.Instance(room.module, { env: { memory } }).exports as Generator;
    }
    this.ringAt = this.listAt + LIST * 4;
    this.masterAt = this.ringAt + OUT * CACHE_LINE;
    this.list = new Int32Array(buffer, this.listAt, LIST);
    this.out = new Int32Array(buffer, this.ringAt, OUT * STRIDE);
    this.master = new Int32Array(buffer, this.masterAt, count * STRIDE);
    this.bytes = new Uint8Array(buffer, this.masterAt, count * CACHE_LINE);
  }

  /** Bytes that a port with a master of `count` frames takes. */
  static room(count: number): number {
    return LIST * 4 + (OUT + count) * CACHE_LINE;
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    const { list, length, count, left } = this;
    // Up to the master's end; the next burst begins at its beginning.
    let limit = left < max ? left : max;
    if (limit > count - this.at) limit = count - this.at;
    const n = frames.takeBurst(slots, limit);
    const { generator } = this;
    if (generator !== null) {
      let at = slots.byteOffset;
      if (slots.buffer !== list.buffer) {
        at = this.listAt;
        for (let k = 0; k < n; k++) list[k] = slots[k];
      }
      const from = this.masterAt + this.at * CACHE_LINE;
      generator.receive(frames.region, frames.ground, at, n, from, length, this.number);
    } else this.copyIn(frames, slots, n);
    this.at = this.at + n === count ? 0 : this.at + n;
    this.left -= n;
    return n;
  }

  private copyIn(frames: Frames, slots: Int32Array, n: number): void {
    const { meta, i32 } = frames;
    for (let k = 0; k < n; k++) {
      const m = slots[k] * META_WORDS;
      copyLine(i32, (meta[m + META_OFF] - 2) >> 2, this.master, (this.at + k) * STRIDE);
      meta[m + META_LEN] = this.length;
      meta[m + META_PORT] = this.number;
    }
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    const { generator, list } = this;
    if (generator !== null) {
      for (let k = 0; k < n; k++) list[k] = slots[k];
      generator.send(frames.region, frames.ground, this.listAt, n, this.ringAt, this.outAt, OUT - 1);
      frames.freeBurst(list, n);
    } else {
      this.copyOut(frames, slots, n);
      frames.freeBurst(slots, n);
    }
    this.outAt = (this.outAt + n) & (OUT - 1);
    this.sent += n;
  }

  private copyOut(frames: Frames, slots: Int32Array, n: number): void {
    const { meta, i32 } = frames;
    for (let k = 0; k < n; k++) {
      const from = (meta[slots[k] * META_WORDS + META_OFF] - 2) >> 2;
      copyLine(this.out, ((this.outAt + k) & (OUT - 1)) * STRIDE, i32, from);
    }
  }

  /** The last frame that left. */
  last(): Uint8Array {
    const at = ((this.outAt + OUT - 1) & (OUT - 1)) * CACHE_LINE + 2;
    return new Uint8Array(this.out.buffer, this.ringAt + at, this.length);
  }

  /** Puts the master into a random order (Fisher–Yates over an xorshift generator): the same for the same seed. */
  shuffle(seed: number): void {
    const words = this.master;
    let state = seed | 1;
    for (let n = this.count - 1; n > 0; n--) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      const a = n * STRIDE;
      const b = ((state >>> 0) % (n + 1)) * STRIDE;
      for (let k = 0; k < STRIDE; k++) {
        const word = words[a + k];
        words[a + k] = words[b + k];
        words[b + k] = word;
      }
    }
    this.at = 0;
  }

  /** Starts again with the master's first frame. */
  rewind(): void {
    this.at = 0;
  }

  close(): void {}
}

/** Copies 64 bytes. Written out: a loop of 16 turns costs as much again. */
function copyLine(to: Int32Array, at: number, from: Int32Array, start: number): void {
  to[at] = from[start];
  to[at + 1] = from[start + 1];
  to[at + 2] = from[start + 2];
  to[at + 3] = from[start + 3];
  to[at + 4] = from[start + 4];
  to[at + 5] = from[start + 5];
  to[at + 6] = from[start + 6];
  to[at + 7] = from[start + 7];
  to[at + 8] = from[start + 8];
  to[at + 9] = from[start + 9];
  to[at + 10] = from[start + 10];
  to[at + 11] = from[start + 11];
  to[at + 12] = from[start + 12];
  to[at + 13] = from[start + 13];
  to[at + 14] = from[start + 14];
  to[at + 15] = from[start + 15];
}

/** One end of a flow: address bytes and port. */
export interface Endpoint {
  address: number[];
  port: number;
}

/** Writes an Ethernet + IPv4/IPv6 + UDP frame (60 or 62 bytes) as the n-th of a master. */
export function writeUdp(
  port: MasterPort,
  n: number,
  dstMac: number[],
  srcMac: number[],
  src: Endpoint,
  dst: Endpoint,
): void {
  const b = port.bytes;
  const off = n * STRIDE * 4 + 2;
  put(b, off, dstMac);
  put(b, off + 6, srcMac);
  const four = src.address.length === 4;
  const l3 = off + 14;
  const l4 = l3 + (four ? 20 : 40);
  const length = off + port.length - l4;
  if (four) {
    put(b, off + 12, [0x08, 0x00, 0x45, 0, 0, port.length - 14, n >> 8, n, 0, 0, 64, 17, 0, 0]);
    put(b, l3 + 12, src.address);
    put(b, l3 + 16, dst.address);
    put16(b, l3 + 10, ~sum(b, l3, l3 + 20, 0));
  } else {
    put(b, off + 12, [0x86, 0xdd, 0x60, 0, 0, 0, 0, length, 17, 64]);
    put(b, l3 + 8, src.address);
    put(b, l3 + 24, dst.address);
  }
  put16(b, l4, src.port);
  put16(b, l4 + 2, dst.port);
  put16(b, l4 + 4, length);
  put16(b, l4 + 6, 0);
  const pseudo = sum(b, four ? l3 + 12 : l3 + 8, l4, 17 + length);
  put16(b, l4 + 6, ~sum(b, l4, l4 + length, pseudo) || 0xffff);
}

function put(b: Uint8Array, at: number, values: number[]): void {
  for (let n = 0; n < values.length; n++) b[at + n] = values[n];
}

export function put16(b: Uint8Array, at: number, value: number): void {
  b[at] = value >> 8;
  b[at + 1] = value;
}

/** One's complement sum of big-endian halves, folded. */
export function sum(b: Uint8Array, from: number, to: number, initial: number): number {
  let s = initial;
  for (let at = from; at < to; at += 2) s += (b[at] << 8) + (at + 1 < to ? b[at + 1] : 0);
  while (s > 0xffff) s = (s & 0xffff) + (s >>> 16);
  return s;
}
