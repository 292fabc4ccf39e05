/**
 * Session: a router whose every port is a capture, under a virtual clock that follows the captures' time.
 *
 * The clock stands at a frame's time when the frame enters; in between it runs in milliseconds, as the router's timers
 * do. A frame is written with the virtual time at which it left. The same configuration, seed and frames give the same
 * bytes.
 */
import { type Frames, META_LEN, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import type { CaptureError } from '../../dataplane/ports/capture-reader.ts';
import { CaptureWriter } from '../../dataplane/ports/capture-writer.ts';
import type { MemoryPort } from '../../dataplane/ports/memory.ts';
import type { Port, PortCounters } from '../../dataplane/ports/port.ts';
import type { Config } from '../config/index.ts';
import type { Mismatch } from '../offload.ts';
import { Router } from '../router.ts';

/** Called with every frame that leaves: the bytes are u8[offset … offset + length), and only valid during the call. */
export type FrameLeft = (port: number, u8: Uint8Array, offset: number, length: number) => void;

export interface SessionOptions {
  seed: number;
  /** Makes the engine wrong on purpose (FAULT_* of dataplane/shadow.ts). */
  engineFault?: number;
  /** Path of the capture that gets the frames which leave a port; null: into memory (tests). */
  target: (port: string) => string | null;
  /** Resolution of the time stamps written. */
  resolution: 'micro' | 'nano';
  log: (level: 'info' | 'warn', message: string) => void;
  /** Called with both frames of every difference that verify mode finds. */
  mismatch?: (mismatch: Mismatch, milliseconds: number) => void;
}

/** Longest step of the router's clock, ms: its words wrap after 24.8 days, and deadlines are compared by difference. */
const LONGEST_STEP = 86_400_000;

/**
 * Longest time without a frame that the router lives through, ms: a hundred days outlive whatever it knows. What is longer (a
 * clock that was wrong, a damaged time stamp) counts as that for the router; the times that are written stay the capture's.
 */
const LONGEST_PAUSE = 100 * LONGEST_STEP;

/** A port of the session: frames enter through the router's memory port and leave into a capture. */
class SessionPort implements Port {
  private readonly inner: MemoryPort;
  private readonly left: FrameLeft;

  constructor(inner: MemoryPort, left: FrameLeft) {
    this.inner = inner;
    this.left = left;
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

  readonly pollFd = -1;

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    return this.inner.rxBurst(frames, slots, max);
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    for (let k = 0; k < n; k++) {
      const m = slots[k] * META_WORDS;
      const length = frames.meta[m + META_LEN];
      this.left(this.number, frames.u8, frames.meta[m + META_OFF], length);
      this.counters.txPackets++;
      this.counters.txBytes += length;
      frames.free(slots[k]);
    }
  }

  close(): void {
    this.inner.close();
  }
}

export class ReplaySession {
  readonly config: Config;
  readonly router: Router;
  /** Writers by port number. */
  readonly writers: CaptureWriter[] = [];
  /** Called after a frame was written. */
  onLeft: FrameLeft = () => {};
  /** Frames that no slot could hold. */
  tooLong = 0;
  private readonly ports: Port[] = [];
  private started = false;
  private originSeconds = 0;
  private originNanos = 0;
  /** Milliseconds since the origin; the router's own clock word is this modulo 2^32. */
  private elapsed = 0;
  private routerClock = 0;
  /** The time that frames leave with. */
  private seconds = 0;
  private nanoseconds = 0;

  /** @throws CaptureError when an output cannot be made */
  constructor(config: Config, options: SessionOptions) {
    this.config = config;
    for (const port of config.ports)
      this.writers[port.number] = new CaptureWriter(options.target(port.name), { resolution: options.resolution });
    this.router = new Router(config, {
      seed: options.seed,
      engineFault: options.engineFault,
      log: options.log,
      mismatch: options.mismatch,
      port: (_name, _number, inner) => {
        const port = new SessionPort(inner, this.left);
        this.ports.push(port);
        return port;
      },
    });
    this.routerClock = this.router.now;
  }

  /** Writes a frame to its port's capture, and to that of the VLAN port whose tag it has. */
  private readonly left: FrameLeft = (number, u8, offset, length) => {
    this.follow();
    this.write(number, u8, offset, length);
    const tag = vlanOf(u8, offset, length);
    if (tag !== 0)
      for (const port of this.config.ports)
        if (port.parent === number && port.vlan === tag) this.write(port.number, u8, offset, length);
    this.onLeft(number, u8, offset, length);
  };

  private write(number: number, u8: Uint8Array, offset: number, length: number): void {
    this.writers[number].write(u8, offset, length, length, this.seconds, this.nanoseconds);
  }

  /** Takes over what the router's clock has gone while it advanced. */
  private follow(): void {
    const now = this.router === undefined ? this.routerClock : this.router.now;
    if (now === this.routerClock) return;
    this.elapsed += (now - this.routerClock) | 0;
    this.routerClock = now;
    const nanos = this.originNanos + (this.elapsed % 1000) * 1e6;
    const carry = Math.floor(nanos / 1e9);
    const seconds = this.originSeconds + Math.floor(this.elapsed / 1000) + carry;
    const rest = nanos - carry * 1e9;
    // The frame before may have left within this millisecond: time does not go backwards.
    if (seconds < this.seconds || (seconds === this.seconds && rest <= this.nanoseconds)) return;
    this.seconds = seconds;
    this.nanoseconds = rest;
  }

  /**
   * Lets a frame enter a port at its time; a time before the clock's counts as now. The bytes are copied.
   * A VLAN port's frames get its tag when they have none.
   */
  inject(number: number, u8: Uint8Array, length: number, seconds: number, nanoseconds: number): void {
    this.advanceTo(seconds, nanoseconds);
    const port = this.config.ports[number];
    let frame = u8.subarray(0, length);
    let carrier = port;
    if (port.parent >= 0) {
      carrier = this.config.ports[port.parent];
      if (vlanOf(u8, 0, length) === 0) frame = tagged(frame, port.vlan);
    }
    const before = this.router.port(carrier.name).counters.rxErrors;
    this.router.inject(carrier.name, frame, this.seconds, this.nanoseconds);
    if (this.router.port(carrier.name).counters.rxErrors !== before) this.tooLong++;
  }

  /** Moves the clock to a capture's time. */
  advanceTo(seconds: number, nanoseconds: number): void {
    if (!this.started) {
      this.started = true;
      this.originSeconds = seconds;
      this.originNanos = nanoseconds;
      this.seconds = seconds;
      this.nanoseconds = nanoseconds;
      return;
    }
    let wholeSeconds = seconds - this.originSeconds;
    let nanos = nanoseconds - this.originNanos;
    if (nanos < 0) {
      wholeSeconds--;
      nanos += 1e9;
    }
    let pause = wholeSeconds * 1000 + Math.floor(nanos / 1e6) - this.elapsed;
    if (pause > LONGEST_PAUSE) {
      // What the router sends of its own accord meanwhile leaves at its time, before the gap.
      this.advance(LONGEST_PAUSE);
      const skipped = Math.floor((pause - LONGEST_PAUSE) / 1000);
      this.originSeconds += skipped;
      pause -= LONGEST_PAUSE + skipped * 1000;
    }
    this.advance(pause);
    if (seconds < this.seconds || (seconds === this.seconds && nanoseconds <= this.nanoseconds)) return;
    this.seconds = seconds;
    this.nanoseconds = nanoseconds;
  }

  /** Lets virtual time pass, milliseconds. */
  advance(milliseconds: number): void {
    let left = milliseconds;
    while (left > 0) {
      const step = Math.min(left, LONGEST_STEP);
      this.router.advance(step);
      this.follow();
      left -= step;
    }
  }

  /** Ends the replay: what fault ports hold is given up, the captures are closed. Returns what failed in them. */
  close(): CaptureError[] {
    for (const port of this.ports) port.close();
    const errors: CaptureError[] = [];
    for (const writer of this.writers) {
      writer.close();
      if (writer.error !== null) errors.push(writer.error);
    }
    return errors;
  }
}

/** VLAN identifier of a frame's outer tag; 0 when it has none. */
function vlanOf(u8: Uint8Array, offset: number, length: number): number {
  if (length < 18 || u8[offset + 12] !== 0x81 || u8[offset + 13] !== 0) return 0;
  return ((u8[offset + 14] & 15) << 8) | u8[offset + 15];
}

function tagged(frame: Uint8Array, vlan: number): Uint8Array {
  const out = new Uint8Array(frame.length + 4);
  out.set(frame.subarray(0, 12));
  out.set([0x81, 0, vlan >> 8, vlan & 0xff], 12);
  out.set(frame.subarray(12), 16);
  return out;
}
