/**
 * The mapping table against a naive model: keys, owners of outside ports, sessions, permits, expiry, records that rest;
 * and by four threads at once.
 */
import { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, it } from 'vitest';
import {
  ADDRESS_DEPENDENT,
  INDEPENDENT,
  MappingTable,
  NM_COUNT,
  NM_DEADLINE,
  NM_WORDS,
  PORT_DEPENDENT,
} from '../../conntrack/mapping.ts';
import { ConntrackTable } from '../../conntrack/table.ts';
import { Random } from '../lib/build.ts';
import { workerSource } from '../lib/worker-source.ts';

const source = workerSource('test/conntrack/mapping-worker.ts');
afterAll(() => source.remove());

function tables(capacity: number, views = 1): { mappings: MappingTable; conntrack: ConntrackTable }[] {
  const buffers = ConntrackTable.create(64, 1);
  const shared = MappingTable.create(capacity);
  return Array.from({ length: views }, (_, worker) => {
    const conntrack = new ConntrackTable(buffers, worker);
    return { conntrack, mappings: new MappingTable(shared, conntrack, worker, 77) };
  });
}

interface Known {
  index: number;
  reference: number;
  inside: number;
  port: number;
  key: number;
  outside: number;
  outPort: number;
  remote: number;
  scope: number;
  deadline: number;
  sessions: number[];
}

describe('MappingTable', () => {
  it.each([INDEPENDENT, ADDRESS_DEPENDENT, PORT_DEPENDENT])(
    'five thousand random steps by two views, as a naive model says (filtering %i)',
    (filtering) => {
      const views = tables(200, 2);
      const random = new Random(filtering);
      const known = new Map<string, Known>();
      const expired: number[] = [];
      for (const { mappings } of views) mappings.onExpire = (index) => expired.push(index);
      let now = 0x7fff0000 | 0; // the clock wraps on the way
      let nextPort = 1;
      const isOver = (k: Known) => k.sessions.length === 0 && ((k.deadline - now) | 0) < 0;
      for (let step = 0; step < 5000; step++) {
        const { mappings } = random.pick(views);
        if (step % 3 === 0) for (const view of views) view.conntrack.quiet();
        now = (now + random.int(0, 200)) | 0;
        const inside = random.int(1, 12);
        const port = random.int(1, 4);
        const remote = random.int(0, 3);
        const scope = random.int(0, 1);
        const key = 17 | (ADDRESS_DEPENDENT << 8) | (filtering << 10);
        const name = `${inside} ${port} ${remote} ${scope}`;
        for (const [id, k] of known) if (isOver(k)) known.delete(id);
        const mine = known.get(name);
        const found = mappings.findInside(inside, port, key, remote, scope, now);
        expect(found).toBe(mine?.index ?? -1);
        const choice = random.int(0, 5);
        if (mine === undefined) {
          if (choice > 2) continue;
          const outPort = nextPort++ & 0xffff;
          const deadline = (now + random.int(0, 20_000)) | 0;
          const index = mappings.add(inside, port | (outPort << 16), key, 99, remote, scope, 0, deadline, now);
          if (index < 0) continue;
          const reference = mappings.reference(index);
          known.set(name, {
            index,
            reference,
            inside,
            port,
            key,
            outside: 99,
            outPort,
            remote,
            scope,
            deadline,
            sessions: [],
          });
          expect(mappings.add(inside, port | (1 << 16), key, 98, remote, scope, 0, deadline, now)).toBe(-2);
        } else if (choice === 0) {
          mine.deadline = (now + random.int(0, 20_000)) | 0;
          mappings.words[mine.index * NM_WORDS + NM_DEADLINE] = mine.deadline;
        } else if (choice === 1) {
          const peer = random.int(1, 5);
          mine.sessions.push(peer);
          mappings.use(mine.reference, peer, 1);
        } else if (choice === 2 && mine.sessions.length > 0) {
          mappings.use(mine.reference, mine.sessions.pop()!, -1);
        } else if (choice === 3) {
          mappings.sweep(now, 50);
        } else if (choice === 4 && random.chance(0.2)) {
          const peers = [...mine.sessions];
          expect(mappings.expire(mine.index, now, true)).toBe(true);
          known.delete(name);
          expect(mappings.of(mine.reference)).toBe(-1);
          // Sessions outlive a mapping that was taken from them, and end without harm.
          for (const peer of peers) mappings.use(mine.reference, peer, -1);
        }
        if (step % 10 !== 0) continue;
        const wrong = [...known.values()].filter((k) => {
          if (isOver(k)) return false;
          const peers = filtering === ADDRESS_DEPENDENT ? [1, 2, 3, 4, 5] : [];
          return (
            mappings.findOutside(99, k.outPort, 17, now) !== k.index ||
            mappings.words[k.index * NM_WORDS + NM_COUNT] !== k.sessions.length ||
            peers.some((peer) => mappings.permitted(k.index, peer) !== k.sessions.includes(peer))
          );
        });
        expect([step, wrong]).toEqual([step, []]);
      }
      const { created, expired: ended } = views[0].mappings.statistics();
      expect(created - ended).toBe(views[0].mappings.count);
      expect(expired.length).toBe(ended);
      expect(created).toBeGreaterThan(400);
    },
  );

  it('a record that rests is not used before every reader has passed', () => {
    const [a, b] = tables(1, 2);
    a.conntrack.quiet();
    b.conntrack.quiet();
    const add = () => a.mappings.add(1, 1 | (5 << 16), 17 | (1 << 8), 9, 0, 0, 0, 1000, 0);
    expect(add()).toBe(0);
    a.mappings.expire(0, 0, true);
    for (let n = 0; n < 10; n++) a.conntrack.quiet();
    expect(add()).toBe(-1);
    for (let n = 0; n < 4; n++) {
      b.conntrack.quiet();
      a.conntrack.quiet();
    }
    expect(add()).toBe(0);
  });

  it('a table for none refuses, and looks nowhere', () => {
    const [{ mappings }] = tables(0);
    expect(mappings.add(1, 1, 17, 9, 0, 0, 0, 1000, 0)).toBe(-1);
    expect(mappings.findInside(1, 1, 17, 0, 0, 0)).toBe(-1);
    expect(mappings.sweep(0, 100)).toBe(0);
  });

  it('four threads make and end the same mappings: each inside key has one at a time, and none is lost', async () => {
    const conntrack = ConntrackTable.create(64, 1);
    const mappings = MappingTable.create(512);
    const run = (worker: number) =>
      new Promise<{ made: number; met: number; ended: number }>((resolve, reject) => {
        const thread = new Worker(source.url, { workerData: { conntrack, mappings, worker, steps: 30_000 } });
        thread.once('message', resolve);
        thread.once('error', reject);
      });
    const results = await Promise.all([0, 1, 2, 3].map(run));
    const sum = (key: 'made' | 'ended') => results.reduce((total, result) => total + result[key], 0);
    const view = new MappingTable(mappings, new ConntrackTable(conntrack, 5), 5, 77);
    expect(view.count).toBe(sum('made') - sum('ended'));
    let alive = 0;
    for (let inside = 1; inside <= 50; inside++) if (view.findInside(inside, 1, 17 | 256, 0, 0, 0) >= 0) alive++;
    expect(alive).toBe(view.count);
    // Every record at least once; how often they come back depends on how long a thread without a turn holds the others up.
    expect(sum('made')).toBeGreaterThanOrEqual(512);
  });
});
