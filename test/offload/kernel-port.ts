/**
 * The kernel engine without devices: memory ports whose frames first meet the port's eBPF program in the kernel
 * (BPF_PROG_TEST_RUN). What it forwards leaves by the port that it names; everything else goes up to the router, as with
 * real devices. So every test of the engine runs with this one as well.
 *
 * What a test run cannot do: partial checksums (the lab has them) and verifying transport checksums, which is the one
 * thing that the program leaves to the receiver; such frames go up here, and kernel-engine.test.ts looks at them.
 */
import type { Router, RouterOptions } from '../../controlplane/router.ts';
import { type Frames, META_FLAGS, META_GSO, META_LEN, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { testProgram } from '../../dataplane/ports/bpf.ts';
import { KernelEngine, KernelFlows, kernelEngineRefusal } from '../../dataplane/ports/kernel-engine.ts';
import { KernelSamples } from '../../dataplane/ports/kernel-samples.ts';
import type { MemoryPort } from '../../dataplane/ports/memory.ts';
import type { Port } from '../../dataplane/ports/port.ts';
import type { EngineCounters } from '../../offload/engine.ts';
import { VERDICT_HIT } from '../../offload/kernel/program.ts';
import { ENGINE_IDLE } from '../../offload/policy.ts';
import { verify } from '../lib/build.ts';

/** The engine's tests run with the kernel engine: asked for by SLUICE_ENGINE, and possible here. */
export const WITH_KERNEL = process.env.SLUICE_ENGINE === 'kernel' && isPossible();

function isPossible(): boolean {
  const refusal = kernelEngineRefusal();
  if (refusal !== '') console.warn(`SLUICE_ENGINE=kernel: the emulated engine is tested instead: ${refusal}`);
  return refusal === '';
}

/** The kernel's clock moves in steps of milliseconds; here every hit is counted at its own instant. */
class InstantFlows extends KernelFlows {
  now: () => number = () => 0;

  override read(family: number, place: number, into: EngineCounters): boolean {
    const any = super.read(family, place, into);
    into.last = this.now();
    return any;
  }
}

export class KernelBench {
  /** Frames that the kernel has forwarded. */
  forwarded = 0;
  /** Verify mode: every hit is walked as well. */
  samples: KernelSamples | null = null;
  private readonly verified: boolean;
  private readonly fault: number;
  private readonly oneOf: number;
  private engine: KernelEngine | null = null;
  private kernel: InstantFlows | null = null;
  private router: Router | null = null;
  private readonly inner: MemoryPort[] = [];

  /** `fault`: FAULT_* that the program has. `oneOf`: verify mode shows one hit of so many, a power of two. */
  constructor(verified = false, fault = 0, oneOf = 1) {
    this.verified = verified;
    this.fault = fault;
    this.oneOf = oneOf;
  }

  /** To be given to createRouter. */
  options(): RouterOptions {
    return {
      engineBehind: true,
      engineFault: 0,
      port: (_name, number, inner) => {
        this.inner[number] = inner;
        return this.wrap(inner);
      },
    };
  }

  /** Takes the router that was made with `options`. */
  attach(router: Router): void {
    const { tables } = router;
    if (tables.flows === null) return;
    this.router = router;
    const ports = this.inner.map((_, number) => ({
      number,
      ifname: `test${number}`,
      ifindex: 1,
      peer: false,
      vlans: [],
    }));
    this.engine = new KernelEngine({
      entries: tables.flows.capacity,
      neighbours: tables.neighbours.capacity,
      idle: ENGINE_IDLE,
      ports,
      sample: this.verified ? this.oneOf : 0,
      fault: this.fault,
    });
    if (this.engine.task.samples !== null) this.samples = new KernelSamples(this.engine.task.samples, tables);
    this.engine.follow(tables);
    this.kernel = new InstantFlows(this.engine.task, tables, tables.flows, 0);
    this.kernel.now = () => tables.now();
    this.align();
    tables.flows.behind = this.kernel;
  }

  close(): void {
    this.engine?.close();
    this.engine = null;
  }

  /** The kernel's clock is real, the router's is virtual: now is now. */
  private align(): void {
    if (this.kernel !== null && this.router !== null)
      this.kernel.startedAt = Number(process.hrtime.bigint() / 1000n) / 1000 - this.router.tables.now();
  }

  /** Runs the port's program on the frame in a slot; true when the kernel has forwarded it (the slot is gone then). */
  private offer(port: number, frames: Frames, slot: number): boolean {
    const { meta } = frames;
    const m = slot * META_WORDS;
    const at = meta[m + META_OFF];
    const frame = frames.u8.slice(at, at + meta[m + META_LEN]);
    const program = this.engine?.programs.get(port);
    if (program === undefined || this.router === null || frame.length < 14) return false;
    if (meta[m + META_FLAGS] !== 0 || meta[m + META_GSO] !== 0) return false;
    if (verify(frame).some((text) => /\b(tcp|udp)\b/.test(text))) return false;
    this.align();
    const run = testProgram(program, frame);
    if ((run.verdict & VERDICT_HIT) === 0) return false;
    this.forwarded++;
    frames.u8.set(run.frame, at);
    meta[m + META_LEN] = run.frame.length;
    this.inner[run.verdict & 0xff].txBurst(frames, Int32Array.of(slot), 1);
    this.samples?.drain(this.router.path, 1);
    // At once: the next frame's moment is another one.
    this.router.path.fast?.harvestAll(this.router.tables.now());
    return true;
  }

  private wrap(inner: MemoryPort): Port {
    const offer = this.offer.bind(this);
    return {
      name: inner.name,
      number: inner.number,
      get linkUp() {
        return inner.linkUp;
      },
      set linkUp(up) {
        inner.linkUp = up;
      },
      counters: inner.counters,
      pollFd: -1,
      // What goes up is walked at once, so that frames leave in the order in which they came, whoever forwards them.
      rxBurst: (frames: Frames, slots: Int32Array): number => {
        while (inner.rxBurst(frames, slots, 1) === 1) {
          if (offer(inner.number, frames, slots[0])) continue;
          if (this.router === null) return 1;
          this.router.path.burst(slots, 1);
          this.router.path.flush();
        }
        return 0;
      },
      txBurst: (frames: Frames, slots: Int32Array, n: number) => inner.txBurst(frames, slots, n),
      close: () => inner.close(),
    };
  }
}
