/**
 * Readers in another thread while the writer works: every lookup answers with a route that the address has, never with
 * a route of other addresses out of a node that was given away too early, and never with none.
 */
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import ts from 'typescript';
import { expect, it } from 'vitest';
import { RouteTable, RouteWriter } from '../../dataplane/routes.ts';

const ROUNDS = 10_000;

/** Words that both threads know: 0 stop, 1 quiet points passed, 2 lookups done (thousands), 3 wrong answers, 4, 5 the last one. */
const READER = `
import { workerData } from 'node:worker_threads';
const table = new RouteTable(workerData.buffer);
const shared = new Int32Array(workerData.shared);
const { address4, address6 } = workerData;
// What each address may answer with: bit n for next hop n.
const check = (answer, allowed, which) => {
  if (answer <= 31 && ((1 << answer) & allowed) !== 0) return;
  Atomics.add(shared, 3, 1);
  shared[4] = which;
  shared[5] = answer;
};
const ALWAYS = 1 << 1, MIDDLE = 1 << 2, LONG = 1 << 3;
while (Atomics.load(shared, 0) === 0) {
  for (let n = 0; n < 250; n++) {
    check(table.lookup4(address4[0]), ALWAYS | MIDDLE | LONG, 1);
    check(table.lookup4(address4[1]), ALWAYS | MIDDLE, 2);
    check(table.lookup4(address4[2]), ALWAYS, 3);
    check(table.lookup6(...address6), ALWAYS | MIDDLE | LONG, 4);
  }
  Atomics.add(shared, 2, 1);
  Atomics.add(shared, 1, 1);
  Atomics.notify(shared, 1);
}
`;

/** 10.1.2.3 and the like as a raw word. */
function raw(a: number, b: number, c: number, d: number): number {
  return a | (b << 8) | (c << 16) | (d << 24);
}

it('every lookup during ten thousand rounds of changes is right', async () => {
  const buffer = new SharedArrayBuffer(RouteTable.bytes(240));
  const shared = new SharedArrayBuffer(32);
  const words = new Int32Array(shared);
  const writer = new RouteWriter(new RouteTable(buffer));
  const inside = [raw(10, 1, 2, 3), 0, 0, 0];
  const inside6 = [raw(0x20, 1, 0x0d, 0xb8), raw(0, 1, 0, 0), 0, raw(0, 0, 0, 9)];
  const stranger6 = [raw(0x20, 2, 0x0d, 0xb8), ...inside6.slice(1)];
  expect(writer.add(4, inside, 8, 1)).toBeNull();
  expect(writer.add(6, inside6, 32, 1)).toBeNull();

  const source = ts.transpileModule(readFileSync(new URL('../../dataplane/routes.ts', import.meta.url), 'utf8'), {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext },
  }).outputText;
  const reader = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source + READER)}`), {
    workerData: {
      buffer,
      shared,
      address4: [inside[0], raw(10, 1, 2, 4), raw(10, 1, 3, 1)],
      address6: inside6,
    },
  });
  const failed = new Promise<never>((_, reject) => reader.once('error', reject));
  try {
    // The reader is at work before the changes begin.
    while (Atomics.load(words, 1) === 0) await Promise.race([failed, new Promise((go) => setImmediate(go))]);
    for (let round = 0; round < ROUNDS; round++) {
      if (writer.available < 72) {
        // A reader that was inside a lookup when the mark was taken is out of it at the second quiet point from now.
        const mark = writer.mark();
        const enough = Atomics.load(words, 1) + 2;
        for (let passed = enough - 2; passed < enough; passed = Atomics.load(words, 1))
          Atomics.wait(words, 1, passed, 1000);
        writer.reclaim(mark);
      }
      writer.add(4, inside, 24, 2);
      writer.add(4, inside, 32, 3);
      writer.add(6, inside6, 64, 2);
      writer.add(6, inside6, 128, 3);
      expect(writer.remove(4, inside, 24)).toBe(2);
      expect(writer.remove(4, inside, 32)).toBe(3);
      expect(writer.remove(6, inside6, 128)).toBe(3);
      expect(writer.remove(6, inside6, 64)).toBe(2);
      // Strangers take the nodes that came free, with the same bits below /16.
      expect(writer.add(6, stranger6, 128, 9)).toBeNull();
      for (let n = 0; n < 4; n++) writer.add(4, [raw(11, n, 2, 3), 0, 0, 0], 24, 9);
      for (let n = 0; n < 4; n++) expect(writer.remove(4, [raw(11, n, 2, 3), 0, 0, 0], 24)).toBe(9);
      expect(writer.remove(6, stranger6, 128)).toBe(9);
    }
    expect([words[3], words[4], words[5]]).toEqual([0, 0, 0]);
    expect(Atomics.load(words, 2)).toBeGreaterThan(100);
  } finally {
    Atomics.store(words, 0, 1);
    await reader.terminate();
  }
});
