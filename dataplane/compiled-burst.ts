/**
 * Compiled burst: an instance of compiled/burst.ts over one worker's frames and the shared tables (ground.ts).
 *
 * fastpath.ts asks it first, and does by itself what it leaves open.
 */
import type { FlowTable } from '../offload/table.ts';
import type { Frames } from './frames.ts';
import { BURST, type GroundBuffers, REPORT_OUT, REPORT_RECEIVED, REPORT_SENT, REPORT_WHY, regionOf } from './ground.ts';
import { WebAssembly } from './wire/webassembly.ts';

/** What the module exports (compiled/burst.ts says what each does). */
interface Exports {
  place(...addresses: number[]): void;
  touch(n: number, port: number, now: number, mac01: number, mac25: number): number;
  run(from: number, n: number, epoch: number): number;
}

export class CompiledBurst {
  /** From where on the entry of each frame of the burst must be, as fastpath.ts has it. */
  readonly homes: Int32Array;
  /** The list of a burst's slots: who receives into it spares a copy. */
  readonly slots: Int32Array;
  private readonly report: Int32Array;
  private readonly module: Exports;

  /** @param frames an arena on this ground   @param flows the first level's table, on it as well */
  constructor(ground: GroundBuffers, frames: Frames, flows: FlowTable) {
    const { memory, small, large } = ground;
    const parts = regionOf(small, large);
    const start = frames.region;
    this.slots = new Int32Array(memory.buffer, start + parts.slots, BURST);
    this.homes = new Int32Array(memory.buffer, start + parts.homes, BURST);
    this.report = new Int32Array(memory.buffer, start + parts.report, 4);
    this.module = new WebAssembly.Instance(ground.module, { env: { memory } }).exports as Exports;
    this.module.place(
      start + parts.meta,
      frames.ground,
      start + parts.slots,
      start + parts.homes,
      start + parts.wanted,
      start + parts.report,
      ground.interfaces,
      ground.neighbours,
      ground.flows4,
      ground.flows6,
      flows.mask,
      flows.seed,
    );
  }

  /** The first pass over `n` frames from `port`. */
  touch(slots: Int32Array, n: number, port: number, now: number, mac01: number, mac25: number): void {
    const own = this.slots;
    if (slots !== own) for (let k = 0; k < n; k++) own[k] = slots[k];
    this.module.touch(n, port, now, mac01, mac25);
  }

  /** The second pass, as FastPath.run; `why` is UNDECIDED where that must look. */
  run(from: number, n: number, epoch: number): number {
    return this.module.run(from, n, epoch);
  }

  get outPort(): number {
    return this.report[REPORT_OUT];
  }

  get received(): number {
    return this.report[REPORT_RECEIVED];
  }

  get sent(): number {
    return this.report[REPORT_SENT];
  }

  get why(): number {
    return this.report[REPORT_WHY];
  }
}
