/**
 * Two threads hammer one connection table for some seconds: creating, finding, deleting, expiring, and the same
 * connection at the same moment. No living connection is ever not found, none is there twice, the count is right, and
 * every record comes back. Then the same with a thread that is killed again and again in the middle of its work.
 *
 * SLUICE_HAMMER_SECONDS lengthens the first.
 */
import { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, it } from 'vitest';
import { Aging } from '../../conntrack/aging.ts';
import * as R from '../../conntrack/record.ts';
import { type ConntrackBuffers, ConntrackTable } from '../../conntrack/table.ts';
import { Random } from '../lib/build.ts';
import { workerSource } from '../lib/worker-source.ts';
import * as W from './hammer-worker.ts';

const SECONDS = Number(process.env.SLUICE_HAMMER_SECONDS ?? 12);
const MAX = 512;
const OWN = 200;
const PERMANENT = 64;
const KILLS = 40;
/** Worker number of this thread: it only makes and unmakes the permanent connections. */
const MAIN = 2;

const source = workerSource('test/property/hammer-worker.ts');
afterAll(() => source.remove());

function start(seed: number) {
  const buffers = ConntrackTable.create(MAX, seed);
  const table = new ConntrackTable(buffers, MAIN);
  const shared = new SharedArrayBuffer(W.WORDS * 4);
  const wheels = new SharedArrayBuffer(Aging.bytes(3));
  const aging = new Aging(table, wheels, MAIN, 0);
  for (let n = 0; n < PERMANENT; n++) {
    const index = table.alloc(0, 0);
    W.fill(table, index, W.tupleOf(9, n), W.NEVER);
    aging.claim(index);
    expect(table.insert(index, table.hashOf(index, 0), table.hashOf(index, 1), 0)).toBe(true);
  }
  const run = (me: number, seedOfWorker: number, meets: boolean) => {
    const workerData: W.HammerData = {
      buffers,
      wheels,
      shared,
      me,
      seed: seedOfWorker,
      own: OWN,
      permanent: PERMANENT,
      drain: table.capacity - PERMANENT,
      meets,
    };
    const worker = new Worker(source.url, { workerData });
    const result = new Promise<W.HammerResult>((done, failed) => {
      worker.once('message', done);
      worker.once('error', failed);
      worker.once('exit', () => failed(new Error(`worker ${me} ended without a result`)));
    });
    result.catch(() => {});
    return { worker, result };
  };
  return { buffers, table, shared: new Int32Array(shared), run };
}

/** Walks every chain as a reader does: ends, records in their right buckets, both halves there. Returns the connections. */
function audit(buffers: ConntrackBuffers): Set<number> {
  const table = new ConntrackTable(buffers, MAIN);
  const heads = new Int32Array(buffers.heads);
  const halves = [new Set<number>(), new Set<number>()];
  for (let bucket = 0; bucket < heads.length; bucket++) {
    let steps = 0;
    for (let link = heads[bucket]; link !== 0; ) {
      const index = (link - 1) >> 1;
      const dir = (link - 1) & 1;
      expect(++steps, `bucket ${bucket} ends`).toBeLessThan(2 * table.capacity);
      expect(table.hashOf(index, dir) & (heads.length - 1), 'the bucket of a tuple').toBe(bucket);
      expect(halves[dir].has(index), `record ${index} is there once`).toBe(false);
      halves[dir].add(index);
      link = table.words[index * R.CT_WORDS + R.CT_NEXT + dir];
    }
  }
  const living = (set: Set<number>) =>
    new Set([...set].filter((index) => (table.words[index * R.CT_WORDS + R.CT_STATUS] & R.IPS_DYING) === 0));
  expect(living(halves[0])).toEqual(living(halves[1]));
  return living(halves[0]);
}

describe('two threads and one connection table', () => {
  it(`${SECONDS} seconds: nothing lost, nothing doubled, everything back`, {
    timeout: SECONDS * 1000 + 180_000,
  }, async () => {
    const { buffers, table, shared, run } = start(1);
    const workers = [run(0, 11, true), run(1, 12, true)];
    try {
      await Promise.race([
        new Promise((done) => setTimeout(done, SECONDS * 1000)),
        ...workers.map((w) => w.result.then(() => Promise.reject(new Error('a worker ended early')))),
      ]);
      Atomics.store(shared, W.STOP, 1);
      const results = await Promise.all(workers.map((w) => w.result));
      for (const r of results) {
        expect(r.created).toBe(r.deleted + r.expired);
        expect(r.operations).toBeGreaterThan(10_000);
        expect(r.expired).toBeGreaterThan(100);
      }
      expect(results[0].meetings).toBe(results[1].meetings);
      expect(results[0].meetings).toBeGreaterThan(100);
      expect(results[0].won + results[1].won).toBe(results[0].meetings);
      // Both threads were there in earnest: each was first at times.
      expect(Math.min(results[0].won, results[1].won)).toBeGreaterThan(0);

      expect(audit(buffers).size).toBe(PERMANENT);
      expect(table.count).toBe(PERMANENT);
      const { inserted, deleted } = table.statistics();
      expect(inserted - deleted).toBe(PERMANENT);
      const records = [...results[0].drained, ...results[1].drained];
      expect(new Set(records).size, 'no record is in two hands').toBe(records.length);
      expect(records.length, 'every record came back').toBe(table.capacity - PERMANENT);
    } finally {
      for (const w of workers) await w.worker.terminate();
    }
  });

  it(`a thread killed ${KILLS} times in the middle of its work, and repaired (seed 5)`, {
    timeout: 300_000,
  }, async () => {
    const { buffers, table, shared, run } = start(2);
    const random = new Random(5);
    const steady = run(0, 21, false);
    const progress = async (worker: number, more: number) => {
      const from = Atomics.load(shared, W.OPERATIONS + worker);
      const until = Date.now() + 60_000;
      while (Atomics.load(shared, W.OPERATIONS + worker) - from < more) {
        if (Date.now() > until) throw new Error(`worker ${worker} stands still`);
        await Promise.race([new Promise((done) => setTimeout(done, 1)), steady.result]);
      }
    };
    let broken = 0;
    let doomed = run(1, 100, false);
    try {
      for (let kill = 0; kill < KILLS; kill++) {
        Atomics.store(shared, W.OPERATIONS + 1, 0);
        await progress(1, random.int(1000, 20_000));
        await doomed.worker.terminate();
        await expect(doomed.result).rejects.toThrow(/worker 1 ended without a result/);
        broken += table.repair(1);
        // What the dead had made lives on; it is ended here, so that the next one finds its tuples free.
        table.quiet(); // from here to `offline` this thread is a reader: no record that it stands on is used again
        for (let n = 0; n < OWN; n++) {
          const found = W.find(table, W.tupleOf(1, n), false, 0);
          if (found < 0) continue;
          // One that expires may be ended by the steady worker, which looks at the others' connections, at any moment.
          const lasting = table.words[(found >> 1) * R.CT_WORDS + R.CT_DEADLINE] === W.NEVER;
          if (lasting) expect(W.find(table, W.tupleOf(1, n), true, 0), `reply of ${n}, kill ${kill}`).toBe(found | 1);
          const ended = table.delete(found >> 1);
          if (lasting) expect(ended, `deletion of ${n}, kill ${kill}`).toBe(true);
        }
        table.offline();
        // The successor first, as in life: the dead one may have had all records that are free.
        doomed = run(1, 101 + kill, false);
        await progress(0, 2000); // nobody waits for a lock that the dead one held
      }
      // The last one has begun: at the end each takes all records that are free, and one that begins then finds none.
      Atomics.store(shared, W.OPERATIONS + 1, 0);
      await progress(1, 1000);
      Atomics.store(shared, W.STOP, 1);
      for (const r of [await steady.result, await doomed.result]) expect(r.created).toBe(r.deleted + r.expired);
      expect(audit(buffers).size).toBe(PERMANENT);
      // A death between linking and counting leaves the count off by one; no more than that.
      expect(Math.abs(table.count - PERMANENT)).toBeLessThanOrEqual(KILLS);
      expect(new Int32Array(buffers.control).subarray(-4096).every((lock) => lock === 0)).toBe(true);
      expect(broken).toBeLessThanOrEqual(2 * KILLS);
    } finally {
      await steady.worker.terminate();
      await doomed.worker.terminate();
    }
  });
});

describe('repair, step by step', () => {
  const tuple = W.tupleOf(1, 2);
  /** A worker that dies with its locks held: right after it has linked (or unlinked) both tuples. */
  function dyingTable(buffers: ConntrackBuffers): ConntrackTable {
    const table = new ConntrackTable(buffers, 1);
    (table as unknown as { unlockTwo: () => void }).unlockTwo = () => {
      throw new Error('dead');
    };
    return table;
  }
  function insert(table: ConntrackTable): number {
    const index = table.alloc(0, 0);
    W.fill(table, index, tuple, W.NEVER);
    expect(() => table.insert(index, table.hashOf(index, 0), table.hashOf(index, 1), 0)).toThrow('dead');
    return index;
  }

  it('dead with both tuples linked: the locks are broken, the connection stays', () => {
    const buffers = ConntrackTable.create(MAX, 3);
    const index = insert(dyingTable(buffers));
    const table = new ConntrackTable(buffers, 0);
    expect(table.repair(1)).toBe(2);
    expect(table.repair(1)).toBe(0);
    expect([W.find(table, tuple, false, 0), W.find(table, tuple, true, 0)]).toEqual([index << 1, (index << 1) | 1]);
  });

  it('dead between the two links: the half that is there goes, and the tuple is free again', () => {
    const buffers = ConntrackTable.create(MAX, 3);
    const dead = dyingTable(buffers);
    const index = insert(dead);
    const heads = new Int32Array(buffers.heads);
    const bucket = dead.hashOf(index, 1) & (heads.length - 1);
    expect(heads[bucket]).toBe(((index << 1) | 1) + 1);
    heads[bucket] = 0; // the second link had not been made yet
    const table = new ConntrackTable(buffers, 0);
    expect(table.repair(1)).toBe(2);
    expect([W.find(table, tuple, false, 0), W.find(table, tuple, true, 0)]).toEqual([-1, -1]);
    expect(audit(buffers).size).toBe(0);
    const again = table.alloc(0, 0);
    W.fill(table, again, tuple, W.NEVER);
    expect(table.insert(again, table.hashOf(again, 0), table.hashOf(again, 1), 0)).toBe(true);
  });

  it('dead in the middle of a deletion: what it had marked is taken out', () => {
    const buffers = ConntrackTable.create(MAX, 3);
    const healthy = new ConntrackTable(buffers, 0);
    const index = healthy.alloc(0, 0);
    W.fill(healthy, index, tuple, W.NEVER);
    healthy.insert(index, healthy.hashOf(index, 0), healthy.hashOf(index, 1), 0);
    const dead = dyingTable(buffers);
    (dead as unknown as { unlink: () => void }).unlink = () => {
      throw new Error('dead');
    };
    expect(() => dead.delete(index)).toThrow('dead');
    expect(healthy.repair(1)).toBe(2);
    expect(new Int32Array(buffers.heads).every((head) => head === 0)).toBe(true);
  });

  it('dead with the lock of a connection or of the free list: others get on', () => {
    const buffers = ConntrackTable.create(MAX, 3);
    const dead = new ConntrackTable(buffers, 1);
    const table = new ConntrackTable(buffers, 0);
    const index = table.alloc(0, 0);
    dead.lock(index * R.CT_WORDS + R.CT_LOCK, dead.words);
    dead.quiet();
    table.repair(1);
    table.lock(index * R.CT_WORDS + R.CT_LOCK, table.words);
    expect(table.words[index * R.CT_WORDS + R.CT_LOCK]).toBe(1);
  });
});
