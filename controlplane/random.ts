/**
 * Random numbers of the control plane: jitter of timers, transaction identifiers, source ports, temporary addresses.
 *
 * A source is a function that gives an int32, all bits usable. Live it is the host's generator, since identifiers and
 * ports must not be guessed (RFC 5452); inline and in a replay it is seeded, so that the same run gives the same frames.
 */
import { randomFillSync } from 'node:crypto';

export type RandomSource = () => number;

/** Unpredictable: the host's generator, asked for 256 numbers at a time. */
export function strongRandom(): RandomSource {
  const pool = new Int32Array(256);
  let at = pool.length;
  return () => {
    if (at === pool.length) {
      randomFillSync(pool);
      at = 0;
    }
    return pool[at++];
  };
}

/** Repeatable: mulberry32 from a seed. */
export function seededRandom(seed: number): RandomSource {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) | 0;
  };
}

/** A whole number from `low` to `high`, both included. */
export function uniform(random: RandomSource, low: number, high: number): number {
  return low + Math.floor(((random() >>> 0) / 0x100000000) * (high - low + 1));
}
