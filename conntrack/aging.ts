/**
 * Aging: the wheel that finds expired connections, without cost for those that live.
 *
 * A connection's deadline is a word in its record, moved by every packet with one store. The wheel only says when to
 * look at it again: 64 slots of 1.024 s, each a doubly linked list through CT_TIMER and CT_TIMER_PREV. When a slot comes
 * up, a record whose deadline has moved is filed anew, at most 62 slots ahead, so that a deadline that was shortened
 * (a closed TCP connection) is noticed within about a minute; lookups notice it at once.
 *
 * Each worker owns one wheel and files the connections that it confirmed (CT_PORTS_IO names the owner). Another
 * worker that deletes one may not touch the lists: it puts the record on the owner's RETURNED stack (linked through
 * CT_START, a word that nobody writes any more), and the owner unfiles and releases it at its next turn. So
 * a flood that makes workers give up each other's connections does not run out of records. Wheels are in shared memory:
 * a worker that takes over a dead one's number goes on with its wheel. Work per turn is bounded by the caller.
 *
 * Not here: what happens to connections that the engine carries (IPS_OFFLOAD): they are filed anew; offload/aging
 * extends or ends them.
 */
import {
  CT_DEADLINE,
  CT_PORTS_IO,
  CT_START,
  CT_STATUS,
  CT_TIMER,
  CT_TIMER_PREV,
  CT_WORDS,
  IPS_CONFIRMED,
  IPS_DYING,
  IPS_OFFLOAD,
} from './record.ts';
import type { ConntrackTable } from './table.ts';

const SLOTS = 64;
const TICK_SHIFT = 10;
const FARTHEST = 62;
/**
 * Words per worker: 64 list heads (index + 1), the tick that comes up next, whether the wheel has been started, and the
 * stack of records that others have deleted (index + 1).
 */
const WHEEL_WORDS = SLOTS + 3;
const CURSOR = SLOTS;
const STARTED = SLOTS + 1;
const RETURNED = SLOTS + 2;

export class Aging {
  private readonly table: ConntrackTable;
  private readonly wheel: Int32Array;
  /** All workers' wheels: for their RETURNED words. */
  private readonly wheels: Int32Array;
  private readonly owner: number;
  /** Called with every connection that has expired, before it is deleted. */
  onExpire: (index: number) => void = () => {};

  constructor(table: ConntrackTable, buffer: SharedArrayBuffer, worker: number, now: number) {
    this.table = table;
    this.owner = worker;
    this.wheels = new Int32Array(buffer);
    this.wheel = this.wheels.subarray(worker * WHEEL_WORDS, (worker + 1) * WHEEL_WORDS);
    if (this.wheel[STARTED] === 0) {
      this.wheel[CURSOR] = now >> TICK_SHIFT;
      this.wheel[STARTED] = 1;
    } else this.takeOver();
    table.onDelete = (index) => this.forget(index);
  }

  /**
   * Mends the wheel of a worker that died in the middle of filing: every list is right forwards at every moment (a
   * record is linked before the head names it), so the links back are made anew, and what is in no list is filed.
   */
  private takeOver(): void {
    const { table, wheel } = this;
    const w = table.words;
    const filed = new Uint8Array(table.highWater);
    for (let slot = 0; slot < SLOTS; slot++) {
      let prev = -(slot + 1);
      for (let link = wheel[slot]; link !== 0 && filed[link - 1] === 0; link = w[(link - 1) * CT_WORDS + CT_TIMER]) {
        filed[link - 1] = 1;
        w[(link - 1) * CT_WORDS + CT_TIMER_PREV] = prev;
        prev = link;
      }
    }
    for (let index = 0; index < filed.length; index++) {
      const c = index * CT_WORDS;
      const living = (w[c + CT_STATUS] & (IPS_CONFIRMED | IPS_DYING)) === IPS_CONFIRMED;
      if (living && filed[index] === 0 && ((w[c + CT_PORTS_IO] >> 16) & 0xff) === this.owner)
        this.file(index, c, wheel[CURSOR]);
    }
  }

  static bytes(workers: number): number {
    return workers * WHEEL_WORDS * 4;
  }

  /** Makes this worker the owner of a private record: before it is published, since another may delete it at once. */
  claim(index: number): void {
    const w = this.table.words;
    const c = index * CT_WORDS;
    w[c + CT_PORTS_IO] = (w[c + CT_PORTS_IO] & 0xff00ffff) | (this.owner << 16);
  }

  /** Files a connection of this worker's that has just been confirmed. */
  add(index: number, now: number): void {
    this.file(index, index * CT_WORDS, now >> TICK_SHIFT);
  }

  /** Files a record at the tick of its deadline, 1 to 62 ticks after `from`. */
  private file(index: number, c: number, from: number): void {
    const w = this.table.words;
    let ahead = difference((w[c + CT_DEADLINE] >> TICK_SHIFT) + 1, from);
    if (ahead > FARTHEST) ahead = FARTHEST;
    else if (ahead < 1) ahead = 1;
    const slot = (from + ahead) & (SLOTS - 1);
    const head = this.wheel[slot];
    w[c + CT_TIMER] = head;
    w[c + CT_TIMER_PREV] = -(slot + 1);
    if (head !== 0) w[(head - 1) * CT_WORDS + CT_TIMER_PREV] = index + 1;
    this.wheel[slot] = index + 1;
  }

  private unfile(c: number): void {
    const w = this.table.words;
    const next = w[c + CT_TIMER];
    const prev = w[c + CT_TIMER_PREV];
    if (prev === 0) return; // its worker died before it could file it
    if (prev < 0) this.wheel[-prev - 1] = next;
    else w[(prev - 1) * CT_WORDS + CT_TIMER] = next;
    if (next !== 0) w[(next - 1) * CT_WORDS + CT_TIMER_PREV] = prev;
    w[c + CT_TIMER_PREV] = 0;
  }

  /** A record that this worker has deleted and unlinked: release it when it is filed here, else hand it to its owner. */
  private forget(index: number): void {
    const w = this.table.words;
    const c = index * CT_WORDS;
    const owner = (w[c + CT_PORTS_IO] >> 16) & 0xff;
    if (owner === this.owner) {
      this.unfile(c);
      this.table.release(index);
      return;
    }
    const at = owner * WHEEL_WORDS + RETURNED;
    for (;;) {
      const head = Atomics.load(this.wheels, at);
      w[c + CT_START] = head;
      if (Atomics.compareExchange(this.wheels, at, head, index + 1) === head) return;
    }
  }

  /**
   * Releases what other workers have deleted, one at a time: a death in between costs one record, not all that wait.
   * Nobody else takes from the stack, so the head that is swapped out is the one whose link was read.
   */
  private takeBack(): void {
    const w = this.table.words;
    for (;;) {
      const head = Atomics.load(this.wheel, RETURNED);
      if (head === 0) return;
      const c = (head - 1) * CT_WORDS;
      if (Atomics.compareExchange(this.wheel, RETURNED, head, w[c + CT_START]) !== head) continue;
      this.unfile(c);
      this.table.release(head - 1);
    }
  }

  /** True when others have deleted records of ours that `turn` must take back. */
  get hasReturned(): boolean {
    return this.wheel[RETURNED] !== 0;
  }

  /**
   * Looks at up to `budget` filed connections that have come up. Returns how many it looked at: less than `budget` means
   * that nothing is left to do now.
   */
  turn(now: number, budget: number): number {
    const wheel = this.wheel;
    if (wheel[RETURNED] !== 0) this.takeBack();
    const nowTick = now >> TICK_SHIFT;
    const w = this.table.words;
    let looked = 0;
    while (difference(nowTick, wheel[CURSOR]) >= 0) {
      const tick = wheel[CURSOR];
      const slot = tick & (SLOTS - 1);
      while (wheel[slot] !== 0) {
        if (looked++ >= budget) return budget;
        const index = wheel[slot] - 1;
        const c = index * CT_WORDS;
        const status = w[c + CT_STATUS];
        this.unfile(c);
        // One that dies just now stays filed: whoever deletes it has yet to unlink it, and then hands it back.
        this.file(index, c, tick);
        if ((status & (IPS_OFFLOAD | IPS_DYING)) === 0 && ((w[c + CT_DEADLINE] - now) | 0) < 0) {
          this.onExpire(index);
          this.table.delete(index); // finds it filed and releases it
        }
      }
      wheel[CURSOR] = ((tick + 1) << TICK_SHIFT) >> TICK_SHIFT;
    }
    return looked;
  }
}

/** a − b of two ticks, which have 22 bits and wrap. */
function difference(a: number, b: number): number {
  return ((a - b) << TICK_SHIFT) >> TICK_SHIFT;
}
