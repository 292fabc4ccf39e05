/**
 * Fault port: a port around a port that loses, duplicates, reorders, delays and corrupts frames. For tests and labs.
 *
 * Each direction has its own rates and its own generator, seeded: the same seed and the same frames give the same faults.
 * Every frame draws the same count of random words whatever the rates are, so that raising one rate does not change which
 * frames the others hit.
 *
 * Reordered and delayed frames are real slots, held in the lane until enough frames have passed them. The lanes are aged by
 * rxBurst (called every turn), so that nothing is held longer than `flushBursts` turns, and emptied by close(). Faults are
 * not errors of the device: they appear in `rx` and `tx`, not in the port's counters.
 *
 * Does not: shape bandwidth or delay by time.
 */
import {
  FRAME_DATA_VALID,
  FRAME_NEEDS_CSUM,
  type Frames,
  META_CSUM,
  META_FLAGS,
  META_LEN,
  META_OFF,
  META_WORDS,
} from '../frames.ts';
import type { Port, PortCounters } from './port.ts';

/** Probabilities from 0 to 1 for every frame of one direction; a missing one is 0. */
export interface FaultRates {
  loss?: number;
  duplicate?: number;
  /** The frame is overtaken by 1 … reorderDepth (default 4) later ones. */
  reorder?: number;
  reorderDepth?: number;
  /** One bit anywhere in the frame is flipped. */
  corrupt?: number;
  /** The frame is overtaken by exactly delayFrames (default 8) later ones. */
  delay?: number;
  delayFrames?: number;
}

export interface FaultOptions {
  seed?: number;
  rx?: FaultRates;
  tx?: FaultRates;
  /** Longest time that a frame is held, in calls of rxBurst. Default 16. */
  flushBursts?: number;
}

/** Frames held at once in each direction; when all places are taken, a frame goes straight on. */
const HOLD = 64;
/** Frames taken from the inner port in one go. */
const BATCH = 256;
/** A batch, all of it twice, and everything held. */
const OUT = BATCH * 2 + HOLD * 2;

/** One direction: its generator, the frames it holds, those ready to go on, and the count of each fault. */
export class FaultLane {
  /** Frames that came in, and the faults done to them. */
  frames = 0;
  lost = 0;
  duplicated = 0;
  reordered = 0;
  delayed = 0;
  corrupted = 0;

  /** Slots ready to go on, out[outHead … outCount). */
  readonly out = new Int32Array(OUT);
  outHead = 0;
  outCount = 0;

  private state: number;
  private loss = 0;
  private duplicate = 0;
  private reorder = 0;
  private corrupt = 0;
  private delay = 0;
  private reorderDepth = 4;
  private delayFrames = 8;
  /** Count of frames that went on without being held: the measure of overtaking. It wraps; only differences count. */
  private passed = 0;
  private readonly heldSlot = new Int32Array(HOLD);
  private readonly heldUntil = new Int32Array(HOLD);
  private readonly heldAge = new Int32Array(HOLD);
  private heldCount = 0;

  constructor(seed: number, rates: FaultRates) {
    this.state = scramble(seed);
    this.setRates(rates);
  }

  /** Changes the rates at once; frames held stay so. */
  setRates(rates: FaultRates): void {
    this.loss = threshold(rates.loss);
    this.duplicate = threshold(rates.duplicate);
    this.reorder = threshold(rates.reorder);
    this.corrupt = threshold(rates.corrupt);
    this.delay = threshold(rates.delay);
    this.reorderDepth = Math.max(1, rates.reorderDepth ?? 4);
    this.delayFrames = Math.max(1, rates.delayFrames ?? 8);
  }

  /** Slots held, not counting those ready. */
  get held(): number {
    return this.heldCount;
  }

  /** xorshift32 (Marsaglia 2003): as unsigned, never 0. */
  private random(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return x >>> 0;
  }

  /** Takes over one slot and puts what becomes of it into `out`, which must have room for HOLD + 2 more. */
  pass(frames: Frames, slot: number): void {
    this.frames++;
    const lose = this.random() < this.loss;
    const twice = this.random() < this.duplicate;
    const late = this.random() < this.reorder;
    const slow = this.random() < this.delay;
    const damage = this.random() < this.corrupt;
    const where = this.random();
    const depth = 1 + (this.random() % this.reorderDepth);
    if (lose) {
      this.lost++;
      frames.free(slot);
      return;
    }
    if (damage) this.flipBit(frames, slot, where);
    const copy = twice ? duplicate(frames, slot) : -1;
    const hold = (late || slow) && this.heldCount < HOLD;
    if (hold) {
      if (late) this.reordered++;
      else this.delayed++;
      this.heldSlot[this.heldCount] = slot;
      this.heldUntil[this.heldCount] = (this.passed + (late ? depth : this.delayFrames)) | 0;
      this.heldAge[this.heldCount++] = 0;
    } else this.out[this.outCount++] = slot;
    if (copy >= 0) {
      this.duplicated++;
      this.out[this.outCount++] = copy;
    }
    if (hold && copy < 0) return;
    this.passed = (this.passed + 1) | 0;
    this.release(0);
  }

  /** Another turn: frames held for more than `turns` turns go on; 0 releases only those overtaken often enough. */
  age(turns: number): void {
    for (let i = 0; i < this.heldCount; i++) this.heldAge[i]++;
    this.release(turns);
  }

  private release(turns: number): void {
    let kept = 0;
    for (let i = 0; i < this.heldCount; i++) {
      const due = ((this.passed - this.heldUntil[i]) | 0) >= 0 || (turns > 0 && this.heldAge[i] > turns);
      if (due) this.out[this.outCount++] = this.heldSlot[i];
      else {
        this.heldSlot[kept] = this.heldSlot[i];
        this.heldUntil[kept] = this.heldUntil[i];
        this.heldAge[kept++] = this.heldAge[i];
      }
    }
    this.heldCount = kept;
  }

  private flipBit(frames: Frames, slot: number, where: number): void {
    const m = slot * META_WORDS;
    const meta = frames.meta;
    const length = meta[m + META_LEN];
    if (length === 0) return;
    let bit = where % (length * 8);
    if ((meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) !== 0) {
      // Completing a partial checksum over the damage would hide it: damage the checksum field itself.
      const field = (meta[m + META_CSUM] & 0xffff) + (meta[m + META_CSUM] >>> 16);
      if (field + 2 <= length) bit = field * 8 + (where & 15);
    }
    frames.u8[meta[m + META_OFF] + (bit >>> 3)] ^= 1 << (bit & 7);
    meta[m + META_FLAGS] &= ~FRAME_DATA_VALID; // whoever verified it saw other bytes
    this.corrupted++;
  }

  /** Frees everything held and ready. */
  drop(frames: Frames): void {
    for (let i = 0; i < this.heldCount; i++) frames.free(this.heldSlot[i]);
    for (let i = this.outHead; i < this.outCount; i++) frames.free(this.out[i]);
    this.heldCount = 0;
    this.outHead = 0;
    this.outCount = 0;
  }
}

export class FaultPort implements Port {
  readonly inner: Port;
  readonly rx: FaultLane;
  readonly tx: FaultLane;
  private readonly flushBursts: number;
  private readonly batch = new Int32Array(BATCH);
  /** The worker's arena, known from the first burst on: close() frees into it. */
  private arena: Frames | null = null;

  constructor(inner: Port, options: FaultOptions = {}) {
    this.inner = inner;
    const seed = (options.seed ?? 1) | 0;
    this.rx = new FaultLane(seed, options.rx ?? {});
    this.tx = new FaultLane(~seed, options.tx ?? {});
    this.flushBursts = Math.max(1, options.flushBursts ?? 16);
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

  /** Frames wait in it, in either direction. */
  get holds(): boolean {
    return this.rx.held + this.tx.held > 0;
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    this.arena = frames;
    if (this.tx.held > 0) {
      this.tx.age(this.flushBursts);
      this.send(frames);
    }
    const lane = this.rx;
    if (lane.outHead === lane.outCount) {
      // Everything ready has gone: there is room for a whole batch.
      lane.outHead = 0;
      lane.outCount = 0;
      lane.age(this.flushBursts);
      const got = this.inner.rxBurst(frames, this.batch, Math.min(max, BATCH));
      for (let i = 0; i < got; i++) lane.pass(frames, this.batch[i]);
    }
    let count = 0;
    while (count < max && lane.outHead < lane.outCount) slots[count++] = lane.out[lane.outHead++];
    return count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    this.arena = frames;
    for (let i = 0; i < n; i++) {
      this.tx.pass(frames, slots[i]);
      if (this.tx.outCount >= OUT - HOLD - 2) this.send(frames);
    }
    this.send(frames);
  }

  private send(frames: Frames): void {
    const lane = this.tx;
    if (lane.outCount > 0) this.inner.txBurst(frames, lane.out, lane.outCount);
    lane.outCount = 0;
  }

  /** Frees the frames held in both directions and closes the inner port. */
  close(): void {
    if (this.arena !== null) {
      this.rx.drop(this.arena);
      this.tx.drop(this.arena);
    }
    this.inner.close();
  }
}

/** A copy of a frame and its metadata in a slot of its own; −1 when there is none. */
function duplicate(frames: Frames, slot: number): number {
  const meta = frames.meta;
  const m = slot * META_WORDS;
  const length = meta[m + META_LEN];
  const copy = frames.alloc(length);
  if (copy < 0) return -1;
  const c = copy * META_WORDS;
  for (let word = META_LEN; word < META_WORDS; word++) meta[c + word] = meta[m + word];
  frames.u8.copyWithin(meta[c + META_OFF], meta[m + META_OFF], meta[m + META_OFF] + length);
  return copy;
}

/** A probability as a bound on a random word: 1 is above them all. */
function threshold(probability = 0): number {
  return Math.round(Math.min(1, Math.max(0, probability)) * 4294967296);
}

/** Spreads a seed over 32 bits (the finalizer of MurmurHash3): xorshift starts badly from small seeds, and dies of 0. */
function scramble(seed: number): number {
  let x = (seed + 0x9e3779b9) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  x ^= x >>> 16;
  return x === 0 ? 1 : x;
}
