/**
 * The aging wheel against a naive list: nothing goes before its time, everything goes soon after it; under clocks that
 * wrap and leap; and what one worker deletes of another's comes back to its owner.
 */
import { describe, expect, it } from 'vitest';
import { Aging } from '../../conntrack/aging.ts';
import { CT_DEADLINE, CT_KEY, CT_O_SRC, CT_STATUS, CT_WORDS, IPS_OFFLOAD } from '../../conntrack/record.ts';
import { ConntrackTable } from '../../conntrack/table.ts';
import { Random } from '../lib/build.ts';

const KEY = 17 | (4 << 8);
/** A tick is 1.024 s: a deadline that nobody moved is noticed one to two ticks later. */
const GRACE = 2 * 1024;
/** A record is looked at again after 62 ticks at the latest. */
const MINUTE = 63 * 1024;

interface World {
  table: ConntrackTable;
  aging: Aging;
}

function worlds(workers: number, now: number, max = 512): World[] {
  const buffers = ConntrackTable.create(max, 7);
  const wheels = new SharedArrayBuffer(Aging.bytes(workers));
  return Array.from({ length: workers }, (_, n) => {
    const table = new ConntrackTable(buffers, n);
    table.quiet();
    return { table, aging: new Aging(table, wheels, n, now) };
  });
}

let serial = 0;
function create({ table, aging }: World, now: number, deadline: number): number {
  const index = table.alloc(0, now);
  if (index < 0) return index;
  const c = index * CT_WORDS;
  serial++;
  table.words[c + CT_KEY] = KEY;
  table.words.set([serial, 1, 2], c + CT_O_SRC);
  table.words.set([1, serial, 3], c + CT_O_SRC + 4);
  table.words[c + CT_DEADLINE] = deadline;
  aging.claim(index);
  expect(table.insert(index, table.hashOf(index, 0), table.hashOf(index, 1), now)).toBe(true);
  aging.add(index, now);
  return index;
}

const all = (w: World, now: number) => {
  while (w.aging.turn(now, 64) >= 64);
};

describe.each([
  ['from zero', 0],
  ['over the wrap of the clock', 0x7fffffff - 200_000],
  ['negative', -1_000_000],
])('a wheel %s', (_, start) => {
  it('agrees with a list through random creations, extensions and shortenings (seed 3)', () => {
    const random = new Random(3);
    const [world] = worlds(1, start);
    const { table, aging } = world;
    let now = start;
    const list = new Map<number, { deadline: number; moved: boolean }>();
    let expired = 0;
    aging.onExpire = (index) => {
      const entry = list.get(index);
      expect(entry).toBeDefined();
      expect((now - (entry?.deadline ?? 0)) | 0).toBeGreaterThan(0);
      list.delete(index);
      expired++;
    };
    for (let step = 0; step < 20_000; step++) {
      const kind = random.int(0, 9);
      if (kind < 3 && list.size < 400) {
        const deadline = (now + random.pick([10, 900, 5000, 30_000, 120_000, 432_000_000])) | 0;
        const index = create(world, now, deadline);
        if (index >= 0) list.set(index, { deadline, moved: false });
      } else if (kind < 6 && list.size > 0) {
        const [index, entry] = random.pick([...list]);
        // One that a lookup would call expired is not extended: nobody would have found it.
        if (((entry.deadline - now) | 0) >= 0) {
          const deadline = (now + random.pick([10, 2000, 60_000, 200_000])) | 0;
          entry.moved ||= ((deadline - entry.deadline) | 0) < 0;
          entry.deadline = deadline;
          table.words[index * CT_WORDS + CT_DEADLINE] = deadline;
        }
      } else if (kind === 6 && list.size > 0) {
        const [index] = random.pick([...list]);
        expect(table.delete(index)).toBe(true);
        list.delete(index);
      } else {
        now = (now + random.pick([1, 100, 1024, 3000, 20_000])) | 0;
        all(world, now);
        for (const { deadline, moved } of list.values())
          expect((now - deadline) | 0, 'overdue').toBeLessThanOrEqual(moved ? MINUTE : GRACE);
      }
      expect(table.count).toBe(list.size);
      table.quiet();
    }
    expect(expired).toBeGreaterThan(1000);
    // In the end everything goes, and every record comes back.
    now = (now + 432_000_000 + MINUTE) | 0;
    all(world, now);
    expect([list.size, table.count]).toEqual([0, 0]);
    for (let n = 0; n < 8; n++) table.quiet();
    let records = 0;
    while (table.alloc(0, now) >= 0) records++;
    expect(records).toBe(table.capacity);
  });

  it('survives leaps of the clock of hours and days', () => {
    const [world] = worlds(1, start);
    let now = start;
    for (const leap of [70_000, 3_600_000, 86_400_000, 1_000_000_000, 2_000_000_000]) {
      const early = create(world, now, (now + 50_000) | 0);
      const late = create(world, now, (now + leap + 10_000) | 0);
      now = (now + leap) | 0;
      all(world, now);
      expect(world.table.inUse(early, now)).toBe(false);
      expect(world.table.inUse(late, now)).toBe(true);
      expect(world.table.count).toBe(1);
      now = (now + 10_001 + GRACE) | 0;
      all(world, now);
      expect(world.table.count).toBe(0);
    }
  });
});

it('the work of a turn is bounded, and goes on where it stopped', () => {
  const [world] = worlds(1, 0);
  for (let n = 0; n < 100; n++) create(world, 0, 500);
  expect(world.aging.turn(5000, 30)).toBe(30);
  expect(world.table.count).toBe(70);
  expect(world.aging.turn(5000, 30)).toBe(30);
  all(world, 5000);
  expect(world.table.count).toBe(0);
  expect(world.aging.turn(5000, 30)).toBe(0);
});

it('a connection that the engine carries is looked at, but never ended', () => {
  const [world] = worlds(1, 0);
  const index = create(world, 0, 500);
  world.table.words[index * CT_WORDS + CT_STATUS] |= IPS_OFFLOAD;
  all(world, 500_000);
  expect(world.table.count).toBe(1);
  world.table.words[index * CT_WORDS + CT_STATUS] &= ~IPS_OFFLOAD;
  all(world, 500_000 + MINUTE);
  expect(world.table.count).toBe(0);
});

describe('two workers', () => {
  it('a record deleted by the other comes back at once: records ran out while they stayed filed for a minute', () => {
    const [mine, theirs] = worlds(2, 0, 64);
    const quiet = () => {
      for (let n = 0; n < 4; n++) {
        mine.table.quiet();
        theirs.table.quiet();
      }
    };
    // The other worker gives up what this one makes, as early drop does, many times the number of records.
    for (let n = 0; n < 20_000; n++) {
      const index = create(mine, 0, 1_000_000);
      expect(index).toBeGreaterThanOrEqual(0);
      expect(theirs.table.delete(index)).toBe(true);
      if (n % 100 === 99) {
        mine.aging.turn(0, 16);
        quiet();
      }
    }
    expect(mine.table.count).toBe(0);
  });

  it('a connection deleted between its publication and its filing goes back to its owner: it was filed and free', () => {
    const [theirs, mine] = worlds(2, 0, 64);
    for (let n = 0; n < 3000; n++) {
      const index = mine.table.alloc(0, 0);
      expect(index).toBeGreaterThanOrEqual(0);
      mine.table.words.set([++serial, 1, 2, KEY, 1, serial, 3], index * CT_WORDS + CT_O_SRC);
      mine.table.words[index * CT_WORDS + CT_DEADLINE] = 1_000_000;
      mine.aging.claim(index);
      expect(mine.table.insert(index, mine.table.hashOf(index, 0), mine.table.hashOf(index, 1), 0)).toBe(true);
      expect(theirs.table.delete(index)).toBe(true);
      mine.aging.add(index, 0);
      mine.aging.turn(0, 16);
      for (let quiet = 0; quiet < 3; quiet++) {
        mine.table.quiet();
        theirs.table.quiet();
      }
    }
    const records = new Set<number>();
    for (let n = mine.table.alloc(0, 0); n >= 0; n = mine.table.alloc(0, 0)) records.add(n);
    expect(records.size).toBe(mine.table.capacity);
  });

  it('what the other deletes out of the middle of a slot leaves its neighbours filed', () => {
    const [mine, theirs] = worlds(2, 0);
    const records = Array.from({ length: 9 }, () => create(mine, 0, 3000));
    for (const n of [0, 4, 8, 5]) expect(theirs.table.delete(records[n])).toBe(true);
    expect(mine.table.count).toBe(5);
    all(mine, 3000 + GRACE);
    expect(mine.table.count).toBe(0);
  });

  it('a wheel goes on under a new owner of its number', () => {
    const buffers = ConntrackTable.create(64, 7);
    const wheels = new SharedArrayBuffer(Aging.bytes(1));
    const first = new ConntrackTable(buffers, 0);
    first.quiet();
    create({ table: first, aging: new Aging(first, wheels, 0, 0) }, 0, 10_000);
    const second = new ConntrackTable(buffers, 0);
    const aging = new Aging(second, wheels, 0, 5000);
    all({ table: second, aging }, 9000);
    expect(second.count).toBe(1);
    all({ table: second, aging }, 10_001 + GRACE);
    expect(second.count).toBe(0);
  });

  it('a death while taking back what others had deleted lost all that waited, not one record', () => {
    const buffers = ConntrackTable.create(64, 7);
    const wheels = new SharedArrayBuffer(Aging.bytes(2));
    const [mine, theirs] = [0, 1].map((n) => {
      const table = new ConntrackTable(buffers, n);
      table.quiet();
      return { table, aging: new Aging(table, wheels, n, 0) };
    });
    const records = Array.from({ length: 9 }, () => create(mine, 0, 1_000_000));
    for (const index of records) expect(theirs.table.delete(index)).toBe(true);
    mine.table.release = () => {
      throw new Error('dead');
    };
    expect(() => mine.aging.turn(0, 16)).toThrow('dead');
    const heir = new ConntrackTable(buffers, 0);
    heir.repair(0);
    new Aging(heir, wheels, 0, 0).turn(0, 16);
    for (let n = 0; n < 4; n++) for (const table of [heir, theirs.table]) table.quiet();
    const seen = new Set<number>();
    for (let index = heir.alloc(0, 0); index >= 0; index = heir.alloc(0, 0)) seen.add(index);
    expect(seen.size).toBeGreaterThanOrEqual(heir.capacity - 1);
  });

  /** Lets the `n`-th store to these words be the last that this thread makes. */
  function mortal(words: Int32Array, life: { left: number }): Int32Array {
    return new Proxy(words, {
      set(target, key, value) {
        if (--life.left < 0) throw new Error('dead');
        target[Number(key)] = value;
        return true;
      },
      get: (target, key) => Reflect.get(target, key, target),
    });
  }

  it.each(['filing', 'unfiling'])(
    'a death at any store of %s: nothing is forgotten, nothing is there twice',
    (what) => {
      let deaths = 0;
      for (let store = 0; store < 12; store++) {
        const buffers = ConntrackTable.create(64, 7);
        const wheels = new SharedArrayBuffer(Aging.bytes(1));
        const table = new ConntrackTable(buffers, 0);
        table.quiet();
        const world = { table, aging: new Aging(table, wheels, 0, 0) };
        const records = Array.from({ length: 6 }, () => create(world, 0, 10_000));
        // The last one is in the hash, and its worker dies when it files it; or one in the middle is deleted.
        if (what === 'filing') table.delete(records[5]);
        const life = { left: store };
        const dying = world.aging as unknown as { wheel: Int32Array; table: { words: Int32Array } };
        const dead = new ConntrackTable(buffers, 0);
        (dead as { words: Int32Array }).words = mortal(table.words, life);
        dying.wheel = mortal(dying.wheel, life);
        dying.table = dead;
        try {
          if (what === 'filing') create({ table, aging: world.aging }, 0, 10_000);
          else {
            table.onDelete = (index) =>
              (world.aging as unknown as { unfile(c: number): void }).unfile(index * CT_WORDS);
            table.delete(records[2]);
          }
        } catch (error) {
          expect((error as Error).message).toBe('dead');
          deaths++;
        }
        const heir = new ConntrackTable(buffers, 0);
        heir.repair(0);
        const aging = new Aging(heir, wheels, 0, 0);
        all({ table: heir, aging }, 10_001 + GRACE);
        expect(heir.count, `dead at store ${store}`).toBe(0);
        for (let n = 0; n < 4; n++) heir.quiet();
        const seen = new Set<number>();
        for (let index = heir.alloc(0, 0); index >= 0; index = heir.alloc(0, 0)) {
          expect(seen.has(index), `record ${index}, dead at store ${store}`).toBe(false);
          seen.add(index);
        }
        expect(seen.size).toBeGreaterThanOrEqual(heir.capacity - 1);
      }
      expect(deaths).toBeGreaterThan(2);
    },
  );
});
