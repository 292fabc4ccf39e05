/**
 * Capture port: frames come from a capture file and go to another. For replay and benchmarks.
 *
 * Without a clock a burst takes frames as fast as it is asked; with one, each frame waits for its time. The clock's zero
 * is the time of the earliest first frame among the ports that share the clock, unless the clock was made with an origin.
 * Frames that are no Ethernet get a header (capture-link.ts). Frames leave stamped by the clock, or without one by the time
 * of the frame received last.
 *
 * At the end of the capture (`atEnd`), or at a fault in it (`error` says which), nothing more is received; the link stays
 * up. Does not segment super-frames or complete partial checksums.
 */
import { type Frames, LARGE_ROOM, META_LEN, META_OFF, META_PORT, META_WORDS } from '../frames.ts';
import { type CaptureError, type CaptureReader, ETHERNET_HEADER, ethernetFrame } from './capture-reader.ts';
import type { CaptureClock, CaptureWriter } from './capture-writer.ts';
import { newPortCounters, type Port } from './port.ts';

export interface PcapOptions {
  /** Where frames come from; none: nothing is ever received. */
  reader?: CaptureReader;
  /** Where frames go; none: they are counted and thrown away. The port closes it. */
  writer?: CaptureWriter;
  /** pcapng: the interface of the writer that this port is. */
  interfaceId?: number;
  /** Paces the frames received, and stamps those sent. */
  clock?: CaptureClock;
}

export class PcapPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters = newPortCounters();
  readonly pollFd = -1;
  /** Time stamp of the frame received last. */
  seconds = 0;
  nanoseconds = 0;
  /** Frames of a link type that is no Ethernet and no IP (also in rxErrors). */
  unknownLinkType = 0;

  private readonly reader: CaptureReader | null;
  private readonly writer: CaptureWriter | null;
  private readonly interfaceId: number;
  private readonly clock: CaptureClock | null;
  /** The reader stands on a frame that has not been delivered. */
  private pending = false;
  private ended = false;

  constructor(name: string, number: number, options: PcapOptions) {
    this.name = name;
    this.number = number;
    this.reader = options.reader ?? null;
    this.writer = options.writer ?? null;
    this.interfaceId = options.interfaceId ?? 0;
    this.clock = options.clock ?? null;
    this.advance();
    if (this.pending) this.clock?.startAt(this.reader!.seconds, this.reader!.nanoseconds);
  }

  /** True when every frame of the capture has been received. */
  get atEnd(): boolean {
    return this.ended;
  }

  /** What was wrong with either file, or null. */
  get error(): CaptureError | null {
    return this.reader?.error ?? this.writer?.error ?? null;
  }

  /** When the next frame is due, in the clock's nanoseconds; −1 when none is left or there is no clock. */
  dueNanos(): number {
    if (!this.pending || this.clock === null) return -1;
    return Math.max(0, this.clock.nanosAt(this.reader!.seconds, this.reader!.nanoseconds));
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    const reader = this.reader;
    if (reader === null || !this.linkUp) return 0;
    const now = this.clock === null ? 0 : this.clock.now();
    let count = 0;
    while (count < max && this.pending) {
      if (this.clock !== null && this.clock.nanosAt(reader.seconds, reader.nanoseconds) > now) break;
      const room = reader.capturedLength + ETHERNET_HEADER;
      if (room > LARGE_ROOM) {
        this.counters.rxErrors++;
        this.advance();
        continue;
      }
      const slot = frames.alloc(room);
      if (slot < 0) break; // the frame waits until slots come back
      const m = slot * META_WORDS;
      const length = ethernetFrame(reader, frames.u8, frames.meta[m + META_OFF]);
      this.seconds = reader.seconds;
      this.nanoseconds = reader.nanoseconds;
      this.advance();
      if (length < 0) {
        this.unknownLinkType++;
        this.counters.rxErrors++;
        frames.free(slot);
        continue;
      }
      frames.meta[m + META_LEN] = length;
      frames.meta[m + META_PORT] = this.number;
      this.counters.rxPackets++;
      this.counters.rxBytes += length;
      slots[count++] = slot;
    }
    return count;
  }

  private advance(): void {
    this.pending = this.reader?.next() ?? false;
    this.ended = !this.pending;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    const { writer, clock, counters } = this;
    if (clock !== null) clock.read();
    const seconds = clock === null ? this.seconds : clock.seconds;
    const nanos = clock === null ? this.nanoseconds : clock.nanoseconds;
    for (let i = 0; i < n; i++) {
      const m = slots[i] * META_WORDS;
      const length = frames.meta[m + META_LEN];
      if (writer !== null)
        writer.write(frames.u8, frames.meta[m + META_OFF], length, length, seconds, nanos, this.interfaceId);
      if (!this.linkUp || (writer !== null && writer.error !== null)) counters.txErrors++;
      else {
        counters.txPackets++;
        counters.txBytes += length;
      }
      frames.free(slots[i]);
    }
  }

  /** Closes the writer too. */
  close(): void {
    this.linkUp = false;
    this.pending = false;
    this.ended = true;
    this.writer?.close();
  }
}
