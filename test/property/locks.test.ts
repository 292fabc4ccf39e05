/**
 * Locks of dead workers, beside the connection table's (conntrack-hammer.test.ts): expectations, engine entries, port pools
 * and subscribers. A lock holds its owner's number + 1; Tables.repair breaks those of the dead one, nobody else's, and makes
 * lists and counts right again.
 */
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as R from '../../conntrack/record.ts';
import { createTables, DEFAULT_SIZES, Tables } from '../../dataplane/tables.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import type { FlowTable } from '../../offload/table.ts';
import { Random } from '../lib/build.ts';
import { workerSource } from '../lib/worker-source.ts';
import { entry, expectation, type LockWorkerData } from './lock-worker.ts';

const KILLS = 8;

function tablesFor(): { tables: Tables; dead: Tables; master: number } {
  const buffers = createTables(
    { ...DEFAULT_SIZES, connections: 256, flows: 64, expectations: 64, natPools: 4, natSubscribers: 16, workers: 2 },
    9,
  );
  const tables = new Tables(buffers, 0);
  return { tables, dead: new Tables(buffers, 1), master: masterIn(tables) };
}

/** A connection that helpers' expectations may belong to. */
function masterIn(tables: Tables): number {
  const { conntrack } = tables;
  const index = conntrack.alloc(0, 0);
  const c = index * R.CT_WORDS;
  conntrack.words[c + R.CT_KEY] = 6 | (4 << 8);
  conntrack.words[c + R.CT_O_SRC] = conntrack.words[c + R.CT_R_DST] = 1;
  conntrack.words[c + R.CT_O_DST] = conntrack.words[c + R.CT_R_SRC] = 2;
  conntrack.words[c + R.CT_DEADLINE] = 0x3fffffff;
  expect(conntrack.insert(index, conntrack.hashOf(index, 0), conntrack.hashOf(index, 1), 0)).toBe(true);
  return index;
}

/** True when the expectation can be found by a packet that fulfils it. */
function isExpected(tables: Tables, worker: number, n: number): boolean {
  const p = new Packet();
  p.d0 = 0x0a000000 | worker;
  p.ports = (n + 1) << 16;
  return tables.expectations.match(p, 6 | (4 << 8), 0, 0) >= 0;
}

/** Everything that must agree with everything else in an engine's table. */
function auditFlows(flows: FlowTable): void {
  for (const family of [4, 6]) {
    const live = new Set<number>();
    for (let place = 0; place <= flows.mask; place++) if (flows.isLive(family, place)) live.add(place);
    expect(flows.liveCount(family)).toBe(live.size);
    expect(new Set((family === 4 ? flows.live4 : flows.live6).subarray(0, live.size))).toEqual(live);
  }
  expect(flows.count).toBe(flows.liveCount(4) + flows.liveCount(6));
}

/** Makes `method` of an object throw when it is called for the n-th time: the worker's death there. */
function dieAt(object: object, method: string, after = 0): void {
  const target = object as Record<string, (...args: unknown[]) => unknown>;
  const original = target[method];
  let calls = 0;
  target[method] = function (this: unknown, ...args: unknown[]) {
    if (calls++ === after) throw new Error('dead');
    return original.apply(this, args);
  };
}

describe('step by step', () => {
  it('nothing is held: nothing is broken, and a living owner keeps its lock', () => {
    const { tables, dead } = tablesFor();
    expect(tables.repair(1)).toBe(0);
    dieAt(tables.expectations, 'unlock');
    expect(() => tables.expectations.removeOf(-2, 0)).not.toThrow(); // nothing to remove takes no lock
    expect(() => tables.expectations.remove(0)).toThrow('dead');
    expect(dead.repair(1)).toBe(0);
    expect(dead.repair(0)).toBe(1);
  });

  it('dead before the unlock, in the middle of a record, and between taking out and forgetting one', () => {
    const { tables, dead, master } = tablesFor();
    for (let n = 0; n < 6; n++) expect(tables.expectations.add(expectation(0, n, master), 0, 0)).toBe(n);
    // Half of a removal: out of its chain, still counted as live.
    dieAt(dead.expectations, 'unlink', 0);
    expect(() => dead.expectations.remove(2)).toThrow('dead');
    const w = tables.expectations.words;
    for (let head = 16; head < 16 + 256; head++) if (w[head] === 3 + 1) w[head] = 0;
    w[0] = 17;
    expect(tables.repair(1)).toBe(1);
    expect(tables.expectations.count).toBe(6);
    for (let n = 0; n < 6; n++) expect(isExpected(tables, 0, n), `expectation ${n}`).toBe(true);
    // Others get on, and the record that was half made is given again.
    dieAt(dead.expectations, 'write');
    const again = new Tables(tables.buffers, 1);
    dieAt(again.expectations, 'write');
    expect(() => again.expectations.add(expectation(1, 1, master), 0, 0)).toThrow('dead');
    expect(tables.repair(1)).toBe(1);
    expect(isExpected(tables, 1, 1)).toBe(false);
    expect(tables.expectations.add(expectation(1, 1, master), 0, 0)).toBe(6);
    tables.expectations.removeOf(master, -1);
    expect(tables.expectations.count).toBe(0);
  });

  it('engine entries: lists are right again, all is stale, and places can be used', () => {
    const { tables, dead } = tablesFor();
    const flows = tables.flows!;
    for (let n = 0; n < 20; n++) expect(flows.install(entry(0, n), 0, 0)).toBeGreaterThanOrEqual(0);
    dieAt(dead.flows!, 'unlock');
    expect(() => dead.flows!.remove(4, flows.findSpec(entry(0, 4)), 2)).toThrow('dead');
    // As if it had died before the list and the counts were touched.
    flows.control[0] = 99;
    flows.control[4] = 3;
    flows.live6.fill(0);
    expect(tables.repair(1)).toBe(1);
    auditFlows(flows);
    expect(flows.count).toBe(19);
    for (let n = 0; n < 20; n++) {
      const place = flows.findSpec(entry(0, n));
      expect(place >= 0, `entry ${n}`).toBe(n !== 4);
      if (place >= 0) expect((n & 1) === 0 ? flows.words4[place * 16 + 10] : flows.words6[place * 32 + 12]).not.toBe(5);
    }
    for (let n = 4; n < 60; n++) flows.install(entry(0, n), 0, 4);
    auditFlows(flows);
    expect(flows.count).toBe(60);
  });

  it('port pools and subscribers: whoever waits for the dead one’s lock gets it', () => {
    const { tables, dead } = tablesFor();
    const s = dead.natSubscribers.find(7, true);
    dead.natSubscribers.lock(s);
    new Int32Array(tables.buffers.natPools)[0] = 2;
    expect(tables.repair(1)).toBe(2);
    tables.natSubscribers.lock(s);
    tables.natSubscribers.unlock(s);
    expect(tables.natPools.find(5, 17, true)).toBeGreaterThanOrEqual(0);
  });
});

describe('NAT mappings', () => {
  it('a dead worker’s locks were not broken: whoever wanted a mapping of the same stripe waited for ever', () => {
    const buffers = createTables({ ...DEFAULT_SIZES, connections: 64, natMappings: 16, workers: 2 }, 9);
    const [tables, dead] = [new Tables(buffers, 0), new Tables(buffers, 1)];
    const add = ({ natMappings }: Tables) => natMappings.add(1, 1 | (5 << 16), 17 | (1 << 8), 9, 0, 0, 0, 1000, 0);
    dieAt(dead.natMappings, 'unlockTwo');
    expect(() => add(dead)).toThrow('dead');
    expect(tables.repair(1)).toBeGreaterThan(0);
    // It died behind the last store: the mapping stands, and others may end it and make it anew.
    const index = tables.natMappings.findInside(1, 1, 17 | (1 << 8), 0, 0, 0);
    expect(index).toBeGreaterThanOrEqual(0);
    expect(tables.natMappings.expire(index, 0, true)).toBe(true);
    expect(add(tables)).toBeGreaterThanOrEqual(0);
  });
});

describe('threads', () => {
  let source: ReturnType<typeof workerSource>;
  beforeAll(() => {
    source = workerSource('test/property/lock-worker.ts');
  });
  afterAll(() => source.remove());

  it(`a thread killed ${KILLS} times in the middle of its work (seed 12)`, async () => {
    const { tables, master } = tablesFor();
    const flows = tables.flows!;
    const random = new Random(12);
    const progress = new Int32Array(new SharedArrayBuffer(4));
    let broken = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const data: LockWorkerData = {
        buffers: tables.buffers,
        worker: 1,
        master,
        progress: progress.buffer as SharedArrayBuffer,
      };
      const thread = new Worker(source.url, { workerData: data });
      const failed = new Promise<never>((_, reject) => thread.once('error', reject));
      const from = Atomics.load(progress, 0);
      const rounds = random.int(5, 500);
      while (Atomics.load(progress, 0) - from < rounds)
        await Promise.race([new Promise((done) => setImmediate(done)), failed]);
      await thread.terminate();
      broken += tables.repair(1);
      auditFlows(flows);
      // What it left is whole: found by its key, or not there; and taken out by others.
      let expected = 0;
      for (let n = 0; n < 24; n++) if (isExpected(tables, 1, n)) expected++;
      expect(tables.expectations.count).toBe(expected);
      tables.expectations.removeOf(master, -1);
      for (let n = 0; n < 24; n++) {
        const place = flows.findSpec(entry(1, n));
        if (place >= 0) flows.remove((n & 1) === 0 ? 4 : 6, place, 1_000_000);
      }
      expect(tables.expectations.count).toBe(0);
      expect(flows.count).toBe(0);
    }
    expect(broken).toBeLessThanOrEqual(2 * KILLS);
  });
});
