/** The connection table in one thread: records, both tuples, clashes, expiry at lookup, early drop, rest and return. */
import { beforeEach, describe, expect, it } from 'vitest';
import * as R from '../../conntrack/record.ts';
import { ConntrackTable } from '../../conntrack/table.ts';
import { Random } from '../lib/build.ts';

const UDP4 = 17 | (4 << 8);
const UDP6 = 17 | (6 << 8);
type Words = readonly number[];

/** A tuple as words: IPv4 has one word for each address, IPv6 four. */
interface Tuple {
  s: Words;
  d: Words;
  ports: number;
}

let table: ConntrackTable;
beforeEach(() => {
  table = new ConntrackTable(ConntrackTable.create(64, 12345), 0);
  table.onDelete = (index) => table.release(index);
  table.quiet();
});

const hash = (t: Tuple) =>
  t.s.length === 1
    ? table.hash4(t.s[0], t.d[0], t.ports, UDP4)
    : table.hash6(t.s[0], t.s[1], t.s[2], t.s[3], t.d[0], t.d[1], t.d[2], t.d[3], t.ports, UDP6);
const find = (t: Tuple, now = 0) =>
  t.s.length === 1
    ? table.find4(t.s[0], t.d[0], t.ports, UDP4, now)
    : table.find6(t.s[0], t.s[1], t.s[2], t.s[3], t.d[0], t.d[1], t.d[2], t.d[3], t.ports, UDP6, now);
const turned = (t: Tuple): Tuple => ({ s: t.d, d: t.s, ports: (t.ports << 16) | (t.ports >>> 16) });

/** A filled private record; the reply tuple is the inverse unless given. */
function fill(o: Tuple, r: Tuple = turned(o), deadline = 1000): number {
  const index = table.alloc(hash(o), 0);
  if (index < 0) return index;
  const c = index * R.CT_WORDS;
  const w = table.words;
  w[c + R.CT_KEY] = o.s.length === 1 ? UDP4 : UDP6;
  w[c + R.CT_O_PORTS] = o.ports;
  w[c + R.CT_R_PORTS] = r.ports;
  w[c + R.CT_DEADLINE] = deadline;
  if (o.s.length === 1) w.set([o.s[0], o.d[0]], c + R.CT_O_SRC);
  else table.words6.set([...o.s, ...o.d], index * R.CT6_WORDS);
  if (o.s.length === 1) w.set([r.s[0], r.d[0]], c + R.CT_R_SRC);
  else table.words6.set([...r.s, ...r.d], index * R.CT6_WORDS + 8);
  return index;
}
const insert = (index: number, now = 0) => table.insert(index, table.hashOf(index, 0), table.hashOf(index, 1), now);
function create(o: Tuple, r: Tuple = turned(o), deadline = 1000): number {
  const index = fill(o, r, deadline);
  expect(insert(index)).toBe(true);
  return index;
}
const four = (n: number): Tuple => ({ s: [0x0a000001 + n], d: [0x0b000001], ports: (n << 16) | 53 });
const six = (n: number): Tuple => ({ s: [1, 2, 3, n], d: [5, 6, 7, 8], ports: (n << 16) | 53 });
function assure(index: number): void {
  table.words[index * R.CT_WORDS + R.CT_STATUS] |= R.IPS_ASSURED;
}

describe('a connection', () => {
  it.each([
    ['IPv4', four],
    ['IPv6', six],
  ])('of %s is found by both its tuples, and no longer once it is deleted', (_, tuple) => {
    const a = create(tuple(1));
    const b = create(tuple(2));
    expect([find(tuple(1)), find(turned(tuple(1)))]).toEqual([a << 1, (a << 1) | 1]);
    expect(find(tuple(2))).toBe(b << 1);
    expect(find(tuple(3))).toBe(-1);
    expect(table.delete(a)).toBe(true);
    expect(table.delete(a)).toBe(false);
    expect([find(tuple(1)), find(turned(tuple(1))), find(tuple(2))]).toEqual([-1, -1, b << 1]);
    expect(table.count).toBe(1);
  });

  it('is private until it is inserted, and can be thrown away', () => {
    const index = fill(four(1));
    expect([find(four(1)), table.count]).toEqual([-1, 0]);
    table.discard(index);
    expect(table.alloc(0, 0)).toBe(index);
  });

  it('with a translated reply tuple is found by that, not by the inverse', () => {
    const reply = { s: [0x0b000001], d: [0x0c000001], ports: (53 << 16) | 4000 };
    const index = create(four(1), reply);
    expect(find(reply)).toBe((index << 1) | 1);
    expect(find(turned(four(1)))).toBe(-1);
  });

  it('differs from another by protocol, family and zone', () => {
    const t = four(1);
    const index = create(t);
    expect(table.find4(t.s[0], t.d[0], t.ports, UDP4, 0)).toBe(index << 1);
    for (const key of [6 | (4 << 8), UDP6, UDP4 | (1 << 16)]) {
      expect(table.find4(t.s[0], t.d[0], t.ports, key, 0)).toBe(-1);
    }
  });

  it('whose deadline has passed is deleted by who looks for it; at the deadline itself it still lives', () => {
    const index = create(four(1), undefined, 1000);
    expect(find(four(1), 1000)).toBe(index << 1);
    expect(find(four(1), 1001)).toBe(-1);
    expect(table.count).toBe(0);
  });

  it('expires by difference when the clock wraps', () => {
    const index = create(four(1), undefined, -0x80000000 + 5);
    expect(find(four(1), 0x7fffffff)).toBe(index << 1);
    expect(find(four(1), -0x80000000 + 6)).toBe(-1);
  });

  it('that the engine carries does not expire at a lookup', () => {
    const index = create(four(1));
    table.words[index * R.CT_WORDS + R.CT_STATUS] |= R.IPS_OFFLOAD;
    expect(find(four(1), 500_000)).toBe(index << 1);
  });
});

describe('clashes', () => {
  it('either tuple taken refuses the insert and names who has it', () => {
    const first = create(four(1));
    const same = fill(four(1));
    expect(insert(same)).toBe(false);
    expect(table.clash).toBe(first << 1);
    // Another source that was translated to the same reply tuple.
    const masked = fill(four(2), turned(four(1)));
    expect(insert(masked)).toBe(false);
    expect(table.clash).toBe((first << 1) | 1);
    table.discard(same);
    table.discard(masked);
    expect(table.count).toBe(1);
  });

  it('IPv6 tuples that differ in one word only are no clash', () => {
    create(six(1));
    for (let n = 0; n < 8; n++) {
      const t = { s: [1, 2, 3, 1], d: [5, 6, 7, 8], ports: six(1).ports };
      (n < 4 ? t.s : t.d)[n & 3] ^= 0x10000;
      create(t);
    }
    expect(table.count).toBe(9);
  });

  it('an expired connection in the way is no clash of anybody: it must go first', () => {
    create(four(1), undefined, 10);
    const second = fill(four(1), undefined, 5000);
    expect(insert(second, 100)).toBe(false);
    expect(table.clash).toBe(-1);
    find(four(1), 100);
    expect(insert(second, 100)).toBe(true);
  });

  it('a connection that is being deleted is no obstacle: it was adopted, and its packet lost its connection', () => {
    const old = create(four(1));
    // Another worker has marked it and waits for the locks.
    table.words[old * R.CT_WORDS + R.CT_STATUS] |= R.IPS_DYING;
    const fresh = fill(four(1));
    expect(insert(fresh)).toBe(true);
    expect(find(four(1))).toBe(fresh << 1);
  });
});

describe('a full table', () => {
  it('gives up one connection that is not assured, and only such', () => {
    for (let n = 0; n < 64; n++) assure(create(four(n)));
    expect(table.count).toBe(64);
    expect(table.alloc(hash(four(100)), 0)).toBe(-1);
    expect(table.statistics()).toMatchObject({ full: 1, earlyDrop: 0 });
    // Every bucket is near some hash: walk until the unassured one is met.
    const weak = 17;
    table.words[(find(four(weak)) >> 1) * R.CT_WORDS + R.CT_STATUS] &= ~R.IPS_ASSURED;
    expect(table.alloc(hash(four(weak)), 0)).toBeGreaterThanOrEqual(0);
    expect(find(four(weak))).toBe(-1);
    expect(table.statistics()).toMatchObject({ full: 1, earlyDrop: 1 });
    expect(table.count).toBe(63);
  });

  it('gives up an assured one when it has expired, and never one that the engine carries', () => {
    for (let n = 0; n < 64; n++) assure(create(four(n)));
    const c = (find(four(5)) >> 1) * R.CT_WORDS;
    table.words[c + R.CT_DEADLINE] = -1;
    table.words[c + R.CT_STATUS] |= R.IPS_OFFLOAD;
    expect(table.alloc(hash(four(5)), 0)).toBe(-1);
    table.words[c + R.CT_STATUS] &= ~R.IPS_OFFLOAD;
    expect(table.alloc(hash(four(5)), 0)).toBeGreaterThanOrEqual(0);
  });

  it('keeps going under a flood of unassured connections, with quiet points between bursts', () => {
    for (let n = 0; n < 5000; n++) {
      const index = fill(four(n), undefined, 10_000);
      if (index >= 0) expect(insert(index)).toBe(true);
      if (n % 32 === 0) table.quiet();
    }
    const { inserted, earlyDrop } = table.statistics();
    expect(table.count).toBeLessThanOrEqual(64);
    expect(table.count).toBe(inserted - earlyDrop);
    // Early drop looks at eight buckets only: now and then it finds nothing, but the table does not jam.
    expect(inserted).toBeGreaterThan(4500);
  });
});

describe('deleted records', () => {
  it('rest until every reader has passed two quiet points, then come back with a higher generation', () => {
    const other = new ConntrackTable(table.buffers, 1);
    other.quiet();
    const index = create(four(1));
    const generation = table.words[index * R.CT_WORDS + R.CT_GEN];
    table.delete(index);
    const taken = new Set<number>();
    const drain = () => {
      for (let n = table.alloc(0, 0); n >= 0; n = table.alloc(0, 0)) taken.add(n);
    };
    for (let n = 0; n < 5; n++) table.quiet();
    drain();
    expect(taken.has(index)).toBe(false); // the other reader may stand on it
    expect(table.words[index * R.CT_WORDS + R.CT_O_SRC]).toBe(four(1).s[0]);
    for (let n = 0; n < 3; n++) {
      other.quiet();
      table.quiet();
    }
    drain();
    expect(taken.has(index)).toBe(true);
    expect(taken.size).toBe(table.capacity);
    expect(table.words[index * R.CT_WORDS + R.CT_GEN]).toBe(generation + 1);
  });

  it('are not held up by a reader that is offline', () => {
    const other = new ConntrackTable(table.buffers, 1);
    other.quiet();
    other.offline();
    table.delete(create(four(1)));
    for (let n = 0; n < 4; n++) table.quiet();
    let taken = 0;
    while (table.alloc(0, 0) >= 0) taken++;
    expect(taken).toBe(table.capacity);
  });

  it('whose deadline a late packet moved do not come back early: the rest was stamped there', () => {
    const other = new ConntrackTable(table.buffers, 1);
    other.quiet();
    const index = create(four(1));
    table.delete(index);
    table.words[index * R.CT_WORDS + R.CT_DEADLINE] = -5000; // by the other worker's tracker
    for (let n = 0; n < 4; n++) table.quiet();
    const taken = new Set<number>();
    for (let n = table.alloc(0, 0); n >= 0; n = table.alloc(0, 0)) taken.add(n);
    expect(taken.has(index)).toBe(false);
  });

  it('of a worker that needs none go to one that has none left: all were hoarded', () => {
    const other = new ConntrackTable(table.buffers, 1);
    other.quiet();
    // Worker 0 has had every record and gives them all up.
    const mine: number[] = [];
    for (let n = table.alloc(0, 0); n >= 0; n = table.alloc(0, 0)) mine.push(n);
    expect(mine.length).toBe(table.capacity);
    for (const index of mine) table.release(index);
    expect(other.alloc(0, 0)).toBe(-1);
    const theirs = new Set<number>();
    for (let turns = 0; turns < 200; turns++) {
      table.quiet();
      other.quiet();
      for (let n = other.alloc(0, 0); n >= 0; n = other.alloc(0, 0)) theirs.add(n);
    }
    expect(theirs.size).toBe(table.capacity);
  });
});

it('twenty thousand random steps agree with a map (seed 4)', () => {
  const random = new Random(4);
  const alive = new Map<string, number>();
  const tuples = Array.from({ length: 40 }, (_, n) => (n % 2 ? six(n) : four(n)));
  for (let step = 0; step < 20_000; step++) {
    const t = random.pick(tuples);
    const key = JSON.stringify(t);
    const known = alive.get(key);
    if (random.chance(0.5)) {
      expect(find(t)).toBe(known === undefined ? -1 : known << 1);
      expect(find(turned(t))).toBe(known === undefined ? -1 : (known << 1) | 1);
    } else if (known !== undefined) {
      expect(table.delete(known)).toBe(true);
      alive.delete(key);
    } else {
      alive.set(key, create(t));
    }
    if (random.chance(0.1)) table.quiet();
    expect(table.count).toBe(alive.size);
  }
});
