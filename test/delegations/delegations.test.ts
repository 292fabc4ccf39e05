/** The lease file over kill -9: 300 clients here, ten thousand with `npm run delegations`. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { workerSource } from '../lib/worker-source.ts';
import { delegate } from './run.ts';

let child: ReturnType<typeof workerSource>;
beforeAll(() => {
  child = workerSource('test/delegations/child.ts');
});
afterAll(() => child.remove());

test('no lease that a client was told is lost, none is given twice', async () => {
  const result = await delegate(fileURLToPath(child.url), 300, 1);
  expect(result).toMatchObject({ told: 300, lost: [] });
  expect(result.prefixes).toBe(result.leases);
  // A lease may be written whose Reply never left; not more of them than one burst a kill.
  expect(result.leases).toBeLessThanOrEqual(300 + 64);
});
