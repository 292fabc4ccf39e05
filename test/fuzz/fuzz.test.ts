/** A short run of every fuzz target; `npm run fuzz` goes on for longer. And that the checks of the checker work. */
import { describe, expect, it } from 'vitest';
import { checked, OutOfBounds } from './checked.ts';
import { fuzz } from './fuzz.ts';
import { TALKS } from './talks.ts';
import { TARGETS } from './targets.ts';

const INPUTS: Record<string, number> = {
  'ip-parse': 20_000,
  'control-socket': 300,
  configuration: 600,
  ...Object.fromEntries(Object.keys(TALKS).map((name) => [name, 120])),
};
const SEED = 1;

describe(`fuzz, seed ${SEED}`, () => {
  it.each(Object.keys(TARGETS))('%s', { timeout: 60_000 }, async (name) => {
    const target = TARGETS[name]();
    const inputs = INPUTS[name] ?? 3000;
    try {
      expect((await fuzz(target, SEED, { inputs })).inputs).toBe(inputs);
    } finally {
      await target.close?.();
    }
  });
});

describe('checked views', () => {
  const memory = new Uint8Array(16).fill(7);
  const view = checked(memory, { from: 4, to: 8 });

  it('let pass what is inside', () => {
    view[5] = 9;
    expect([view[4], view[5], view[7], view.length]).toEqual([7, 9, 7, 16]);
  });

  it.each([3, 8, -1, 1.5, Number.NaN, 1e9])('refuse %d', (at) => {
    expect(() => view[at]).toThrow(OutOfBounds);
  });

  it('an input that is wrong is reported with its seed', async () => {
    const target = {
      name: 'picky',
      run: (random: { next(): number }) => {
        if (random.next() % 7 === 0) throw new Error('seven');
      },
    };
    await expect(fuzz(target, 1, { inputs: 100 })).rejects.toThrow(/fuzz picky, seed \d+ \(from 1 on\): seven/);
  });
});
