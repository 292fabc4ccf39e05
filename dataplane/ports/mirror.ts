/**
 * Mirror port: a port around a port that writes everything it receives and sends to a pcapng file.
 *
 * Each frame carries its direction (epb_flags), a number (epb_packetid) and, when received, what became of it: the comment
 * that the caller's verdictOf() gives. The verdict is known only after the path has run, when the frame may have been
 * rewritten or its slot used again. So received frames are copied at once, and all of a turn's frames are written in the
 * order they were seen when the turn is over: at the next rxBurst, at settle() or at close(). A live router's mirrors give no
 * verdictOf(): its text would be made for every frame. `sluice capture` is what says why.
 *
 * A mirror never changes what is forwarded: the same slots, in the same order, with the same metadata. When the file cannot
 * be written, frames still flow. Frames sent are recorded as the path made them: a super-frame is one frame, and a partial
 * checksum looks wrong, as in any capture taken above the NIC.
 */
import { type Frames, META_LEN, META_OFF, META_WORDS } from '../frames.ts';
import { MAX_FRAME } from './capture-reader.ts';
import { type CaptureClock, type CaptureWriter, DIRECTION_INBOUND, DIRECTION_OUTBOUND } from './capture-writer.ts';
import type { Port, PortCounters } from './port.ts';

/** What a mirror writes to: a CaptureWriter, or, live, a MirrorFile. */
export type MirrorWriter = Pick<CaptureWriter, 'frames' | 'nextPacketId' | 'addInterface' | 'write'>;

export interface MirrorOptions {
  clock: CaptureClock;
  /** What became of the frame that this slot held in the turn just over; '' when it is not known. */
  verdictOf?: (slot: number) => string;
  /** Longest part of a frame that is recorded, bytes. Default: all of it. */
  snapLength?: number;
  /** Name of the interface in the file. Default: the inner port's. */
  interfaceName?: string;
}

/** Most bytes of frames, and most frames, that wait for their verdict; a turn that brings more is recorded without verdicts. */
const PENDING_LIMIT = 32 * 1024 * 1024;
const PENDING_FRAMES = 65536;
/** A frame that waits: its slot (−1: sent, no verdict to ask for), length, recorded length, nanoseconds. */
const RECORD_WORDS = 4;

export class MirrorPort implements Port {
  readonly inner: Port;
  readonly writer: MirrorWriter;
  /** Number of this port's interface in the file. */
  readonly interfaceId: number;
  /** Frames recorded, and those that the writer could not take. */
  recorded = 0;
  unrecorded = 0;

  private readonly clock: CaptureClock;
  private readonly verdictOf: (slot: number) => string;
  private readonly snapLength: number;
  private bytes = new Uint8Array(64 * 1024);
  private bytesUsed = 0;
  private records = new Int32Array(256 * RECORD_WORDS);
  private seconds = new Float64Array(256);
  private count = 0;

  /** @param writer a pcapng writer, which several mirrors may share; whoever made it closes it, after the ports */
  constructor(inner: Port, writer: MirrorWriter, options: MirrorOptions) {
    this.inner = inner;
    this.writer = writer;
    this.interfaceId = writer.addInterface(options.interfaceName ?? inner.name);
    this.clock = options.clock;
    this.verdictOf = options.verdictOf ?? (() => '');
    this.snapLength = options.snapLength ?? MAX_FRAME;
  }

  get name(): string {
    return this.inner.name;
  }

  get number(): number {
    return this.inner.number;
  }

  get linkUp(): boolean {
    return this.inner.linkUp;
  }

  set linkUp(up: boolean) {
    this.inner.linkUp = up;
  }

  get counters(): PortCounters {
    return this.inner.counters;
  }

  get pollFd(): number {
    return this.inner.pollFd;
  }

  get ringFd(): number {
    return this.inner.ringFd ?? -1;
  }

  beforeSleep(): void {
    this.inner.beforeSleep?.();
  }

  renew(): void {
    this.inner.renew?.();
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    this.settle();
    const count = this.inner.rxBurst(frames, slots, max);
    if (count > 0) this.clock.read();
    for (let i = 0; i < count; i++) this.record(frames, slots[i], slots[i]);
    return count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    if (n > 0) this.clock.read();
    // Before the inner port has them: afterwards the slots are no longer ours to read.
    for (let i = 0; i < n; i++) this.record(frames, slots[i], -1);
    this.inner.txBurst(frames, slots, n);
  }

  /**
   * Writes what the turn just over has brought, verdicts included. rxBurst does it by itself; call it earlier when the
   * verdicts are about to be overwritten.
   */
  settle(): void {
    this.writePending(true);
  }

  /** Writes what is left and closes the inner port. The writer stays open: others may share it. */
  close(): void {
    this.settle();
    this.inner.close();
  }

  private record(frames: Frames, slot: number, verdictSlot: number): void {
    const m = slot * META_WORDS;
    const off = frames.meta[m + META_OFF];
    const length = frames.meta[m + META_LEN];
    const kept = Math.min(length, this.snapLength);
    if (this.bytesUsed + kept > this.bytes.length || this.count === this.seconds.length) this.grow(kept);
    const { u8 } = frames;
    const { bytes, bytesUsed } = this;
    for (let i = 0; i < kept; i++) bytes[bytesUsed + i] = u8[off + i];
    this.bytesUsed += kept;
    const r = this.count * RECORD_WORDS;
    this.records[r] = verdictSlot;
    this.records[r + 1] = length;
    this.records[r + 2] = kept;
    this.records[r + 3] = this.clock.nanoseconds;
    this.seconds[this.count++] = this.clock.seconds;
  }

  /** Room for one more frame: twice the memory, or, at the limit, what waits is written before its verdict is known. */
  private grow(kept: number): void {
    if (this.bytesUsed + kept > PENDING_LIMIT || this.count === PENDING_FRAMES) this.writePending(false);
    if (this.bytesUsed + kept > this.bytes.length) {
      const bytes = new Uint8Array(Math.max(this.bytes.length * 2, this.bytesUsed + kept));
      bytes.set(this.bytes);
      this.bytes = bytes;
    }
    if (this.count === this.seconds.length) {
      const records = new Int32Array(this.records.length * 2);
      records.set(this.records);
      this.records = records;
      const seconds = new Float64Array(this.seconds.length * 2);
      seconds.set(this.seconds);
      this.seconds = seconds;
    }
  }

  private writePending(verdictsKnown: boolean): void {
    const { writer, records, bytes } = this;
    let at = 0;
    for (let i = 0; i < this.count; i++) {
      const r = i * RECORD_WORDS;
      const slot = records[r];
      const kept = records[r + 2];
      const before = writer.frames;
      writer.write(
        bytes,
        at,
        kept,
        records[r + 1],
        this.seconds[i],
        records[r + 3],
        this.interfaceId,
        slot >= 0 ? DIRECTION_INBOUND : DIRECTION_OUTBOUND,
        writer.nextPacketId++,
        slot >= 0 && verdictsKnown ? this.verdictOf(slot) : '',
      );
      if (writer.frames > before) this.recorded++;
      else this.unrecorded++;
      at += kept;
    }
    this.count = 0;
    this.bytesUsed = 0;
  }
}
