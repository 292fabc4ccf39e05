/** Interface table: flags that two threads write. */
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { IF_FLAGS, IFF_LDRA, IFF_PRESENT, IFF_SECURITY, IFF_UP, InterfaceTable } from '../../dataplane/interfaces.ts';

/** Sets and clears a flag of its own, looks at it for a while, and counts how often it does not stay so. */
const OTHER = `
const { words, at, flag, done } = require('node:worker_threads').workerData;
const stays = (value) => {
  for (let n = 0; n < 50; n++) if ((Atomics.load(words, at) & flag) !== value) return 0;
  return 1;
};
let lost = 0;
Atomics.store(done, 0, 1);
for (let n = 0; n < 50000; n++) {
  Atomics.or(words, at, flag);
  lost += 1 - stays(flag);
  Atomics.and(words, at, ~flag);
  lost += 1 - stays(0);
}
Atomics.store(done, 1, lost);
Atomics.store(done, 0, 2);`;

it('flags are set and cleared one by one', () => {
  const interfaces = new InterfaceTable(new SharedArrayBuffer(InterfaceTable.bytes()));
  interfaces.setFlags(3, IFF_PRESENT | IFF_UP, true);
  interfaces.setFlags(3, IFF_SECURITY, true);
  interfaces.setFlags(3, IFF_UP, false);
  expect(interfaces.words[interfaces.at(3) + IF_FLAGS]).toBe(IFF_PRESENT | IFF_SECURITY);
  expect(interfaces.words[interfaces.at(2) + IF_FLAGS] | interfaces.words[interfaces.at(4) + IF_FLAGS]).toBe(0);
});

it('a flag that another thread sets meanwhile is not lost', async () => {
  const interfaces = new InterfaceTable(new SharedArrayBuffer(InterfaceTable.bytes()));
  const done = new Int32Array(new SharedArrayBuffer(8));
  const workerData = { words: interfaces.words, at: interfaces.at(0) + IF_FLAGS, flag: IFF_LDRA, done };
  const other = new Worker(OTHER, { eval: true, workerData });
  const gone = new Promise((resolve) => other.once('exit', resolve));
  const end = performance.now() + 60_000;
  let up = false;
  while (Atomics.load(done, 0) !== 2 && performance.now() < end)
    for (let n = 0; n < 1000; n++) {
      up = !up;
      interfaces.setFlags(0, IFF_UP, up);
    }
  await gone;
  expect([...done]).toEqual([2, 0]);
  expect(interfaces.isUp(0)).toBe(up);
});
