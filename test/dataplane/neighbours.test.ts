/** The neighbour table: as a map would have it, however many have come and gone. */
import { describe, expect, it } from 'vitest';
import { NeighbourTable, NUD_REACHABLE, NUD_STALE } from '../../dataplane/neighbours.ts';
import { Random } from '../lib/build.ts';

const CAPACITY = 256;
const table = () => new NeighbourTable(new SharedArrayBuffer(NeighbourTable.bytes(CAPACITY)));

describe('the neighbour table', () => {
  it('thousands that come and go: the same as a map (seed 4)', () => {
    const random = new Random(4);
    const t = table();
    const model = new Map<number, number>();
    for (let step = 0; step < 20_000; step++) {
      const address = random.int(1, 300);
      if (random.chance(0.5)) {
        const n = t.ensure(1, 4, address, 0, 0, 0, step);
        if (n >= 0) model.set(address, n);
        else expect(model.size).toBe((CAPACITY * 3) / 4);
      } else if (model.has(address)) {
        t.remove(model.get(address)!);
        model.delete(address);
      }
      const asked = random.int(1, 300);
      expect(t.find(1, 4, asked, 0, 0, 0)).toBe(model.get(asked) ?? -1);
    }
    expect(t.count).toBe(model.size);
  });

  it('a scan left a table of tombstones, which every later question read to its end: a search looks at few places', () => {
    const t = table();
    const stays = t.ensure(1, 6, 1, 2, 3, 4, 0);
    const random = new Random(6);
    const word = () => random.next() | 0;
    const live: number[] = [];
    let most = 0;
    for (let n = 0; n < 50_000; n++) {
      live.push(t.ensure(1, 6, word(), word(), word(), word(), n));
      if (live.length > 64) t.remove(live.shift()!);
      most = Math.max(most, t.searched(1, 6, word(), word(), word(), word()));
    }
    // A quarter of the places is in use.
    expect(most).toBeLessThan(24);
    for (const n of live) t.remove(n);
    let left = 0;
    for (let n = 0; n < 5000; n++) if (t.searched(1, 6, word(), word(), word(), word()) !== 0) left++;
    expect(left).toBeLessThan(60); // one place of 256
    expect(t.find(1, 6, 1, 2, 3, 4)).toBe(stays);
  });

  it('tells apart what those that wait must see at once: a MAC that became usable', () => {
    const t = table();
    const n = t.ensure(1, 4, 1, 0, 0, 0, 0);
    const other = t.ensure(1, 4, 2, 0, 0, 0, 0);
    const before = [t.answers(), t.epoch()];
    t.remove(other);
    expect([t.answers(), t.epoch()]).toEqual([before[0], before[1] + 1]);
    t.update(n, NUD_REACHABLE, 7, 8, 1);
    expect([t.answers(), t.epoch()]).toEqual([before[0] + 1, before[1] + 2]);
    t.update(n, NUD_STALE, 7, 8, 2);
    expect([t.answers(), t.epoch()]).toEqual([before[0] + 1, before[1] + 3]);
  });
});
