/**
 * Shadow: verify mode's copy of the one frame that the engine has forwarded and the slow path walks now (row O13).
 *
 * The engine works on the copy, the path on the frame itself; when the path sends it, both are compared: egress port,
 * length, every byte, and what the connection has counted. A hit that the slow path does not send is a difference too.
 * The same for a sample of what an engine behind the table has forwarded (dataplane/ports/kernel-samples.ts): then the
 * frame has left long ago, and what the walk sends is compared and no more.
 *
 * Also here: the ways in which a test makes the engine wrong on purpose, to prove that verify notices.
 */
import { CT_F64, CT_F64_PACKETS } from '../conntrack/record.ts';
import { EX_MISMATCH, FAULT_CHECKSUM, FAULT_MAC, FAULT_PROTO41 } from '../offload/engine.ts';
import type { Frames } from './frames.ts';
import { META_LEN, META_OFF, META_WORDS } from './frames.ts';
import { IPV6_IN_IP } from './parse.ts';
import { C_ENGINE } from './tables.ts';

export { FAULT_CHECKSUM, FAULT_MAC, FAULT_PROTO41 };

/** Where the copy begins: so that its IP header is 4-aligned, with room for a VLAN tag. */
const START = 18;
export const SHADOW_HALF = START >> 1;
export const SHADOW_L3 = (START + 14) >> 2;

export class Shadow {
  /** Called with both frames for a difference: (what differs, engine's frame, slow path's frame or null). */
  onMismatch: (what: string, engine: Uint8Array, slow: Uint8Array | null) => void = () => {};
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  private readonly frames: Frames;
  private readonly doubles: Float64Array;
  private readonly counters: Float64Array;
  /** What the engine made of the packet that the path walks now; false when there was no hit. */
  private expected = false;
  private port = 0;
  private length = 0;
  private start = 0;
  /** The frame is a sample of the engine behind the table, which has sent it already: nothing of this walk is sent. */
  private sampled = false;
  /** Bytes of the expected frame that are known. */
  private known = 0;
  private size = 0;
  /** Where the connection counts this packet, and what it must have counted behind it. */
  private countAt = 0;
  private packets = 0;
  private bytes = 0;

  /** `doubles`: the connections' counters; `counters`: this worker's, where differences are counted. */
  constructor(frames: Frames, doubles: Float64Array, counters: Float64Array) {
    const buffer = new ArrayBuffer(65536 + 256);
    this.frames = frames;
    this.doubles = doubles;
    this.counters = counters;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
  }

  /** Copies the frame in bytes [off, end) of the arena; `connection`: (record << 1) | direction. */
  take(connection: number, off: number, end: number): void {
    this.u8.set(this.frames.u8.subarray(off, end), START);
    this.countAt = (connection >> 1) * CT_F64 + CT_F64_PACKETS + (connection & 1);
    this.packets = this.doubles[this.countAt] + 1;
    this.size = end - off - 14;
    this.bytes = this.doubles[this.countAt + 2] + this.size;
  }

  /** The engine is done with the copy: it leaves by `port`, `length` bytes, 4 of them before START when it has a tag. */
  made(port: number, length: number, tagged: boolean): void {
    this.expected = true;
    this.port = port;
    this.length = this.known = length;
    this.start = tagged ? START - 4 : START;
  }

  /**
   * What the engine behind the table has made of the same frame, in place of what was made here: it left by `port`,
   * `length` bytes, the first `known` of them at `from[at …]`, with the tag `tci` beside them (−1: none).
   */
  sample(port: number, from: Uint8Array, at: number, length: number, known: number, tci: number): void {
    const { u8 } = this;
    this.sampled = true;
    this.port = port;
    this.length = length;
    this.known = known;
    this.start = START;
    if (tci < 0) for (let n = 0; n < known; n++) u8[START + n] = from[at + n];
    else {
      this.start = START - 4;
      this.length += 4;
      this.known += 4;
      for (let n = 0; n < 12; n++) u8[START - 4 + n] = from[at + n];
      u8[START + 8] = 0x81;
      u8[START + 9] = 0;
      u8[START + 10] = tci >> 8;
      u8[START + 11] = tci;
      for (let n = 12; n < known; n++) u8[START + n] = from[at + n];
    }
  }

  /** The slow path sends a frame. True: it was only to be compared. */
  compare(slot: number, port: number): boolean {
    if (!this.expected) return this.sampled;
    this.expected = false;
    const { meta, u8 } = this.frames;
    const off = meta[slot * META_WORDS + META_OFF];
    const length = meta[slot * META_WORDS + META_LEN];
    let what = '';
    if (port !== this.port) what = `egress port ${this.port}, slow path ${port}`;
    else if (length !== this.length) what = `length ${this.length}, slow path ${length}`;
    else
      for (let n = 0; n < this.known && what === ''; n++)
        if (this.u8[this.start + n] !== u8[off + n]) what = `byte ${n}`;
    const [packets, bytes] = [this.doubles[this.countAt], this.doubles[this.countAt + 2]];
    if (this.sampled) {
      // It counts once, and as a hit; what else has come meanwhile, this walk cannot know.
      this.doubles[this.countAt] -= 1;
      this.doubles[this.countAt + 2] -= this.size;
    } else if (what === '' && (packets !== this.packets || bytes !== this.bytes))
      what = `counted ${this.packets} packets, ${this.bytes} bytes, slow path ${packets}, ${bytes}`;
    if (what !== '') this.mismatch(what, u8.slice(off, off + length));
    return this.sampled;
  }

  /** The walk is over. */
  settle(reason: string): void {
    this.sampled = false;
    if (!this.expected) return;
    this.expected = false;
    this.mismatch(reason, null);
  }

  private mismatch(what: string, slow: Uint8Array | null): void {
    this.counters[C_ENGINE + EX_MISMATCH]++;
    this.onMismatch(what, this.u8.slice(this.start, this.start + this.length), slow);
  }
}

/**
 * Makes a rewritten frame wrong. `half`, `l3`: where it and its IP header begin, in halves and words; `field`: half-word
 * of the transport checksum, 0 none, and `before` what it held.
 */
export function spoil(
  fault: number,
  u16: Uint16Array,
  i32: Int32Array,
  half: number,
  l3: number,
  proto: number,
  field: number,
  before: number,
): void {
  if (fault === FAULT_MAC) u16[half] ^= 0x100;
  else if (fault === FAULT_CHECKSUM && field !== 0) u16[field] = before;
  else if (fault === FAULT_PROTO41 && proto === IPV6_IN_IP) i32[l3 + 6] ^= 0x100;
}
