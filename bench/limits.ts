/**
 * Limits: what the machine itself allows, measured as simply as can be.
 *
 * - One visit to memory at random, for sets that fit each level of cache: a chain of pointers, so that no visit begins
 *   before the last has ended. With huge pages and without, as tables of this size have them.
 * - Copying a frame: 64 bytes by a loop over words, 1500 bytes by TypedArray.set.
 * - A system call through FFI: getppid, which does nothing.
 */
import koffi from 'koffi';
import { adviseHuge } from '../dataplane/ports/hugepages.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const LINE = 16; // int32 words of a cache line

/** Nanoseconds of a visit in a set of `bytes`. */
function chase(bytes: number, milliseconds: number, huge: boolean): number {
  const lines = bytes / 64;
  const buffer = new SharedArrayBuffer(bytes + 64);
  if (huge) adviseHuge(buffer);
  const words = new Int32Array(buffer);
  const order = new Int32Array(lines);
  for (let n = 0; n < lines; n++) order[n] = n;
  let state = 0x2545f491;
  for (let n = lines - 1; n > 0; n--) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const other = (state >>> 0) % (n + 1);
    const line = order[n];
    order[n] = order[other];
    order[other] = line;
  }
  for (let n = 0; n < lines; n++) words[order[n] * LINE] = order[(n + 1) % lines] * LINE;
  let at = follow(words, 0, lines);
  let visits = 0;
  const begin = performance.now();
  let now = begin;
  while (now - begin < milliseconds) {
    at = follow(words, at, 100_000);
    visits += 100_000;
    now = performance.now();
  }
  if (at < 0) throw new Error('limits: the chain is broken');
  return ((now - begin) * 1e6) / visits;
}

function follow(words: Int32Array, from: number, steps: number): number {
  let at = from;
  for (let n = 0; n < steps; n++) at = words[at];
  return at;
}

/** Nanoseconds of one call of `work(times)`, which does its thing `times` times. */
function each(milliseconds: number, work: (times: number) => void): number {
  work(100_000);
  let times = 0;
  const begin = performance.now();
  let now = begin;
  while (now - begin < milliseconds) {
    work(20_000);
    times += 20_000;
    now = performance.now();
  }
  return ((now - begin) * 1e6) / times;
}

export interface LimitsTask {
  window: number;
}

/** All limits by name, nanoseconds. */
export function limits(task: LimitsTask): Record<string, number> {
  const { window } = task;
  const i32 = new Int32Array(MIB);
  const bytes = new Uint8Array(4 * MIB);
  const frame = bytes.subarray(0, 1500);
  const getppid = koffi.load(null).func('int getppid()') as () => number;
  return {
    'memory.visit.16k': chase(16 * KIB, window, false),
    'memory.visit.256k': chase(256 * KIB, window, false),
    'memory.visit.8m': chase(8 * MIB, window, true),
    'memory.visit.256m': chase(256 * MIB, window, false),
    'memory.visit.256m.huge': chase(256 * MIB, window, true),
    'copy.64': each(window, (times) => {
      for (let n = 0; n < times; n++) {
        const from = (n & 1023) << 4;
        const to = 32768 + from;
        for (let k = 0; k < 16; k++) i32[to + k] = i32[from + k];
      }
    }),
    'copy.1500': each(window, (times) => {
      for (let n = 0; n < times; n++) bytes.set(frame, 4096 + ((n & 255) << 11));
    }),
    'system-call.ffi': each(window, (times) => {
      for (let n = 0; n < times; n++) getppid();
    }),
  };
}
