/**
 * Plays frames into the kernel router and collects what comes out, frame by frame.
 *
 * One raw socket on the outer end of every link, both to send and to receive. veth and the kernel's forwarding path
 * run in the sender's own softirq: when send returns, the answer is usually in the other socket's queue already. A
 * busy machine puts the softirq off; so a fence follows every frame: one more frame into every port, whose arrival
 * on the next port shows that everything before it is through. The thread is pinned to one processor while it
 * plays, because only then do all frames share one queue and cannot overtake each other. Fences are not tracked.
 *
 * Time: the kernel's clock is real, so a frame's `at` does not delay it; scenarios that depend on timeouts are not
 * for this file.
 */
import koffi from 'koffi';
import * as ffi from '../../../dataplane/ports/ffi.ts';
import { ethernet, get16, get32, ip, ipv4, u32 } from '../../lib/build.ts';
import { RawSocket } from '../kernel/raw-socket.ts';
import { FENCE_MAC, fenceAddress, KernelRouter } from '../kernel/router.ts';
import { FENCE_PROTO, FENCE_SOURCE, type RouterConfig } from '../kernel/ruleset.ts';
import type { Played, ScenarioFrame } from './scenario.ts';

const libc = koffi.load(null);
type Affinity = (pid: number, bytes: number, mask: Uint8Array) => number;
const getcpu = libc.func('int sched_getcpu()') as () => number;
const setaffinity = libc.func('int sched_setaffinity(int pid, size_t bytes, const uint8_t *mask)') as Affinity;
const getaffinity = libc.func('int sched_getaffinity(int pid, size_t bytes, _Out_ uint8_t *mask)') as Affinity;
const MASK_BYTES = 128;

/** A timespec of 1 ms at 0, pollfds (8 bytes each) from 16. */
const memory = ffi.mapMemory(4096);
const view = new DataView(memory.buffer);
view.setInt32(8, 1_000_000, true);
const POLLFDS = 16;

export interface PlayOptions {
  /** Milliseconds to wait for a fence; default 20000. */
  timeout?: number;
}

/** Runs `work` with the calling thread on the processor that it is on now. */
function pinned<T>(work: () => T): T {
  const before = new Uint8Array(MASK_BYTES);
  // A machine with more processors than the mask has bits refuses; then the fence alone must do.
  if (getaffinity(0, MASK_BYTES, before) < 0) return work();
  const here = new Uint8Array(MASK_BYTES);
  const cpu = getcpu();
  here[cpu >> 3] = 1 << (cpu & 7);
  setaffinity(0, MASK_BYTES, here);
  try {
    return work();
  } finally {
    setaffinity(0, MASK_BYTES, before);
  }
}

/** The kernel router with sockets on its links. */
export class KernelPlayer {
  readonly router: KernelRouter;
  private readonly sockets: RawSocket[] = [];
  private readonly macs: string[];
  private fences = 0;

  /** Throws LabError or IoError where no lab can be. */
  constructor(config: RouterConfig) {
    this.router = new KernelRouter(config);
    this.macs = this.router.ports.map((p) => config.ports[p].mac);
    try {
      for (const port of this.router.ports)
        this.sockets.push(new RawSocket(this.router.lab, this.router.outside, port));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Filter, NAT and helpers for the next scenario; the table of connections is empty afterwards. */
  configure(config: RouterConfig): void {
    this.router.configure(config);
  }

  /**
   * Sends the frames in order and returns all that came out, in order for every port, each with the index of the
   * frame after which it appeared. Throws when a port is unknown, the kernel refuses a frame, or a fence is lost.
   */
  play(frames: readonly ScenarioFrame[], options: PlayOptions = {}): Played[] {
    const out: Played[] = [];
    // What an earlier scenario made the kernel say late is none of this one's.
    this.drain([], -1);
    return pinned(() => {
      frames.forEach((f, n) => {
        const port = this.router.ports.indexOf(f.port);
        if (port < 0) throw new Error(`scenario frame ${n}: expected a port of ${this.router.ports}, got "${f.port}"`);
        this.sockets[port].send(typeof f.frame === 'function' ? f.frame(out) : f.frame, `scenario frame ${n}`);
        this.fence(out, n, options.timeout ?? 20_000);
      });
      return out;
    });
  }

  close(): void {
    for (const socket of this.sockets.splice(0)) socket.close();
    this.router.close();
  }

  /** Takes what waits in all sockets. Returns the number of the last fence on every port, 0 where none came. */
  private drain(out: Played[], after: number): number[] {
    return this.sockets.map((socket) => {
      let fence = 0;
      for (let frame = socket.receive(); frame !== null; frame = socket.receive()) {
        const number = fenceNumber(frame);
        if (number > 0) fence = number;
        else out.push({ port: socket.device, frame, after });
      }
      return fence;
    });
  }

  /** Sends a fence into every port, to the next port, and waits until all have come. */
  private fence(out: Played[], after: number, timeout: number): void {
    const number = ++this.fences;
    const count = this.sockets.length;
    this.sockets.forEach((socket, n) => {
      const packet = ipv4({ src: FENCE_SOURCE, dst: fenceAddress((n + 1) % count), proto: FENCE_PROTO }, u32(number));
      socket.send(ethernet({ src: FENCE_MAC, dst: this.macs[n] }, packet), 'fence');
      view.setInt32(POLLFDS + n * 8, socket.fd, true);
      view.setInt16(POLLFDS + n * 8 + 4, 1, true); // POLLIN
    });
    const seen = new Set<string>();
    const end = performance.now() + timeout;
    for (;;) {
      this.drain(out, after).forEach((fence, n) => {
        if (fence === number) seen.add(this.sockets[n].device);
      });
      if (seen.size === count) return;
      if (performance.now() > end) {
        const lost = this.router.ports.filter((port) => !seen.has(port));
        throw new Error(`kernel router: expected the fence on every port within ${timeout} ms, got none on ${lost}`);
      }
      ffi.ppoll(memory.base + POLLFDS, count, memory.base, 0);
    }
  }
}

/** The number in a fence frame, 0 for any other frame. */
function fenceNumber(frame: Uint8Array): number {
  if (frame.length < 38 || get16(frame, 12) !== 0x0800 || frame[23] !== FENCE_PROTO) return 0;
  return get32(frame, 26) === get32(ip(FENCE_SOURCE), 0) ? get32(frame, 34) : 0;
}
