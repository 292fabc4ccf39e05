/**
 * Memory port: frames pushed in by the caller, frames that left kept for the caller. For tests and embedding.
 *
 * Both queues are bounded and both hold copies: what is pushed may be changed at once, what is taken never changes.
 * Frames leave as the path made them: a super-frame stays one frame and a partial checksum stays partial, with their
 * metadata beside them (takeWithMeta()). Does not segment, complete checksums, or loop frames back.
 */
import {
  type Frames,
  LARGE_ROOM,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_HDRLEN,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../frames.ts';
import { newPortCounters, type Port } from './port.ts';

/** The offload words of a slot's metadata (see frames.ts): 0 for an ordinary frame. */
export interface FrameMeta {
  /** FRAME_* bits. */
  flags: number;
  /** type | size << 16 */
  gso: number;
  /** start | offset << 16 */
  csum: number;
  /** Length of all headers of a super-frame. */
  hdrlen: number;
}

export interface MemoryFrame extends FrameMeta {
  frame: Uint8Array;
  seconds: number;
  nanoseconds: number;
}

export interface MemoryOptions {
  /** Most frames that wait in each direction. Default 65536. */
  limit?: number;
}

export class MemoryPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters = newPortCounters();
  readonly pollFd = -1;
  /** Frames that push() refused because the queue was full; those that left but found the other queue full. */
  rxOverflows = 0;
  txOverflows = 0;
  /** Time stamp of the frame that rxBurst delivered last. */
  seconds = 0;
  nanoseconds = 0;

  private readonly limit: number;
  private incoming: MemoryFrame[] = [];
  /** First frame of `incoming` that is still to be received: shifting an array costs its length. */
  private head = 0;
  private outgoing: MemoryFrame[] = [];

  constructor(name: string, number: number, options: MemoryOptions = {}) {
    this.name = name;
    this.number = number;
    this.limit = options.limit ?? 65536;
  }

  /** Frames pushed and not yet received; frames that left and were not yet taken. */
  get waiting(): number {
    return this.incoming.length - this.head;
  }

  get left(): number {
    return this.outgoing.length;
  }

  /**
   * Puts a frame (without FCS; copied) on the wire towards the router. False when it is lost: the link is down, the queue
   * is full (rxOverflows), or no slot could ever hold it (rxErrors).
   */
  push(frame: Uint8Array, stampSeconds = 0, stampNanos = 0, meta: Partial<FrameMeta> = {}): boolean {
    if (!this.linkUp) return false;
    if (frame.length > LARGE_ROOM) {
      this.counters.rxErrors++;
      return false;
    }
    if (this.waiting >= this.limit) {
      this.rxOverflows++;
      return false;
    }
    this.incoming.push({
      frame: frame.slice(),
      seconds: stampSeconds,
      nanoseconds: stampNanos,
      flags: meta.flags ?? 0,
      gso: meta.gso ?? 0,
      csum: meta.csum ?? 0,
      hdrlen: meta.hdrlen ?? 0,
    });
    return true;
  }

  /** The frames that left since the last take, in order. */
  take(): Uint8Array[] {
    return this.takeWithMeta().map((entry) => entry.frame);
  }

  /** The same with their metadata. Their time stamp is that of the frame received last. */
  takeWithMeta(): MemoryFrame[] {
    const taken = this.outgoing;
    this.outgoing = [];
    return taken;
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    if (!this.linkUp) return 0;
    let count = 0;
    while (count < max && this.head < this.incoming.length) {
      const entry = this.incoming[this.head];
      const slot = frames.alloc(entry.frame.length);
      if (slot < 0) break; // stays queued until slots come back
      this.head++;
      const m = slot * META_WORDS;
      const meta = frames.meta;
      frames.u8.set(entry.frame, meta[m + META_OFF]);
      meta[m + META_LEN] = entry.frame.length;
      meta[m + META_PORT] = this.number;
      meta[m + META_FLAGS] = entry.flags;
      meta[m + META_GSO] = entry.gso;
      meta[m + META_CSUM] = entry.csum;
      meta[m + META_HDRLEN] = entry.hdrlen;
      this.seconds = entry.seconds;
      this.nanoseconds = entry.nanoseconds;
      this.counters.rxPackets++;
      this.counters.rxBytes += entry.frame.length;
      slots[count++] = slot;
    }
    if (this.head === this.incoming.length) {
      this.incoming.length = 0;
      this.head = 0;
    } else if (this.head >= 1024) {
      this.incoming = this.incoming.slice(this.head);
      this.head = 0;
    }
    return count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    for (let i = 0; i < n; i++) {
      const slot = slots[i];
      if (this.linkUp && this.outgoing.length < this.limit) this.keep(frames, slot);
      else {
        if (this.linkUp) this.txOverflows++;
        this.counters.txErrors++;
      }
      frames.free(slot);
    }
  }

  private keep(frames: Frames, slot: number): void {
    const m = slot * META_WORDS;
    const meta = frames.meta;
    const off = meta[m + META_OFF];
    const length = meta[m + META_LEN];
    this.outgoing.push({
      frame: frames.u8.slice(off, off + length),
      seconds: this.seconds,
      nanoseconds: this.nanoseconds,
      flags: meta[m + META_FLAGS],
      gso: meta[m + META_GSO],
      csum: meta[m + META_CSUM],
      hdrlen: meta[m + META_HDRLEN],
    });
    this.counters.txPackets++;
    this.counters.txBytes += length;
  }

  /** Takes the link down and forgets what still waited to be received; what left can still be taken. */
  close(): void {
    this.linkUp = false;
    this.incoming = [];
    this.head = 0;
  }
}
