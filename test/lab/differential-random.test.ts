/**
 * The kernel as judge of generated scenarios: some thousand of them here, more by `npm run differential`. What once
 * differed is in differential/saved/ and played first.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { generate } from './differential/generator.ts';
import { Judge } from './differential/judge.ts';
import { explainDifference } from './differential/report.ts';
import { load, shrinkList } from './differential/shrink.ts';
import { labReady } from './need.ts';

const SAVED = fileURLToPath(new URL('./differential/saved', import.meta.url));
const COUNT = 3000;
const SEED = 700_000;

describe.skipIf(!labReady(['nft', 'ethtool']))('generated scenarios', () => {
  const judge = new Judge();
  afterAll(() => judge.close());

  for (const file of readdirSync(SAVED).filter((name) => name.endsWith('.json'))) {
    const scenario = load(readFileSync(`${SAVED}/${file}`, 'utf8'));
    it(`saved: ${scenario.name}`, () => {
      const { difference, accepted } = judge.judge(scenario, { tables: true, fresh: true });
      expect(accepted ?? difference).toBeNull();
    });
  }

  it(`${COUNT} from seed ${SEED}`, { timeout: 180_000 }, () => {
    for (let seed = SEED; seed < SEED + COUNT; seed++) {
      const scenario = generate(seed);
      const { difference, accepted } = judge.judge(scenario, { tables: seed % 20 < 8 });
      if (difference !== null && accepted === null) expect.fail(explainDifference(scenario, difference));
    }
  });
});

describe('shrinking', () => {
  it('finds the shortest list that still fails', () => {
    const numbers = Array.from({ length: 40 }, (_, n) => n);
    let tries = 0;
    const short = shrinkList(numbers, (list) => {
      tries++;
      return list.includes(3) && list.includes(17) && list.includes(38);
    });
    expect(short).toEqual([3, 17, 38]);
    expect(tries).toBeLessThan(200);
  });

  it('generates the same scenario from the same seed', () => {
    const bytes = (seed: number) =>
      generate(seed).frames.map((f) => (typeof f.frame === 'function' ? 0 : [...f.frame]));
    expect(bytes(77)).toEqual(bytes(77));
    expect(bytes(77)).not.toEqual(bytes(78));
  });
});
