/** Expectations: the shared table against a list that does the same without hash, chains and record numbers. */
import { describe, expect, it } from 'vitest';
import {
  EXP_ADDRESS,
  EXP_INACTIVE,
  EXP_KEYMAP,
  EXP_PERMANENT,
  EXP_PORT,
  type ExpectSpec,
  ExpectTable,
} from '../../conntrack/expect.ts';
import * as R from '../../conntrack/record.ts';
import { ConntrackTable } from '../../conntrack/table.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import { Random } from '../lib/build.ts';

const CAPACITY = 24;
const KEYS = [6 | (4 << 8), 17 | (4 << 8), 6 | (4 << 8) | (3 << 16)];

class Bench {
  readonly conntrack = new ConntrackTable(ConntrackTable.create(128, 1), 0);
  readonly table = new ExpectTable(new SharedArrayBuffer(ExpectTable.bytes(CAPACITY)), this.conntrack);
  private ports = 0;

  /** A connection that ends at `deadline`; `confirmed` false: still private. */
  master(deadline = 1_000_000, confirmed = true): number {
    const { conntrack } = this;
    const index = conntrack.alloc(0, 0);
    const w = conntrack.words;
    const c = index * R.CT_WORDS;
    w[c + R.CT_KEY] = KEYS[0];
    w[c + R.CT_O_SRC] = w[c + R.CT_R_DST] = 1;
    w[c + R.CT_O_DST] = w[c + R.CT_R_SRC] = 2;
    w[c + R.CT_O_PORTS] = w[c + R.CT_R_PORTS] = ++this.ports;
    w[c + R.CT_DEADLINE] = deadline;
    if (confirmed) this.confirm(index);
    return index;
  }

  confirm(index: number): void {
    const { conntrack } = this;
    expect(conntrack.insert(index, conntrack.hashOf(index, 0), conntrack.hashOf(index, 1), 0)).toBe(true);
  }
}

function spec(master: number, o: Partial<ExpectSpec> & { from?: number; to?: number } = {}): ExpectSpec {
  return {
    key: KEYS[0],
    flags: 0,
    src: Int32Array.of(o.from ?? 0, 0, 0, 0),
    dst: Int32Array.of(o.to ?? 9, 0, 0, 0),
    ports: 0,
    master,
    helper: 0,
    dir: 1,
    savedPort: 0,
    class: 0,
    timeout: 300,
    replyPorts: 0,
    wanted: 1,
    ...o,
  };
}

function packet(from: number, to: number, ports: number): Packet {
  const p = new Packet();
  p.s0 = from;
  p.d0 = to;
  p.ports = ports;
  return p;
}

const ports = (source: number, destination: number) => (destination << 16) | source;

describe('one expectation', () => {
  it('address and port of the source count where the flags say so, zone and protocol always', () => {
    const { table, master } = bench();
    const m = master();
    const n = table.add(spec(m, { flags: EXP_ADDRESS | EXP_PORT, from: 5, ports: ports(20, 4000) }), 0, 0);
    expect(table.match(packet(5, 9, ports(20, 4000)), KEYS[0], 0, 0)).toBe(n);
    for (const [from, to, word, key] of [
      [6, 9, ports(20, 4000), KEYS[0]],
      [5, 8, ports(20, 4000), KEYS[0]],
      [5, 9, ports(21, 4000), KEYS[0]],
      [5, 9, ports(20, 4001), KEYS[0]],
      [5, 9, ports(20, 4000), KEYS[1]],
      [5, 9, ports(20, 4000), KEYS[2]],
    ])
      expect(table.match(packet(from, to, word), key, 0, 0)).toBe(-1);
    // Without the flags the source is anybody, at any port.
    const any = table.add(spec(m, { ports: ports(0, 5000), wanted: 2 }), 0, 0);
    expect(table.match(packet(77, 9, ports(1234, 5000)), KEYS[0], 0, 0)).toBe(any);
  });

  it('two IPv6 sources of one /32 were one source: what the second announced was refused', () => {
    const { table, master } = bench();
    const src = (last: number) => Int32Array.of(0xb80d0120 | 0, 0, 0, last);
    const made = [1, 2].map((last) =>
      table.add(spec(master(), { flags: EXP_ADDRESS, src: src(last), ports: ports(0, 4000) }), 0, 0),
    );
    expect(new Set(made).size).toBe(2);
    expect(Math.min(...made)).toBeGreaterThanOrEqual(0);
    expect(table.add(spec(master(), { flags: EXP_ADDRESS, src: src(2), ports: ports(0, 4000) }), 0, 0)).toBe(-1);
  });

  it('ends with its time, with its master’s time, and with its master; not before the last millisecond', () => {
    const { table, conntrack, master } = bench();
    const seen = (now: number) => table.match(packet(1, 9, ports(1, 2)), KEYS[0], 0, now) >= 0;
    const m = master(1_000_000);
    table.add(spec(m, { ports: ports(0, 2), timeout: 3 }), 0, 100);
    expect([seen(3100), seen(3101)]).toEqual([true, false]);
    table.removeOf(m, -1);
    const brief = master(2000);
    table.add(spec(brief, { ports: ports(0, 2) }), 0, 0);
    expect([seen(2000), seen(2001)]).toEqual([true, false]);
    table.removeOf(brief, -1);
    const gone = master();
    table.add(spec(gone, { ports: ports(0, 2) }), 0, 0);
    conntrack.delete(gone);
    expect(seen(0)).toBe(false);
  });

  it('counts for others once its master is confirmed, for its own master before', () => {
    const b = bench();
    const m = b.master(1_000_000, false);
    const n = b.table.add(spec(m, { ports: ports(0, 2) }), 0, 0);
    expect(b.table.match(packet(1, 9, ports(1, 2)), KEYS[0], 0, 0)).toBe(-1);
    expect(b.table.findAnnounced(m, 1, 6, 0)).toBe(n);
    b.confirm(m);
    expect(b.table.match(packet(1, 9, ports(1, 2)), KEYS[0], 0, 0)).toBe(n);
  });

  it('inactive ones let nobody in until they are prolonged (a registration that was confirmed)', () => {
    const { table, master } = bench();
    const m = master();
    const n = table.add(
      spec(m, { flags: EXP_INACTIVE | EXP_PERMANENT, ports: ports(0, 2), class: 4, timeout: 10 }),
      0,
      0,
    );
    expect(table.match(packet(1, 9, ports(1, 2)), KEYS[0], 0, 0)).toBe(-1);
    table.prolong(m, 3, 3600, 0);
    expect(table.match(packet(1, 9, ports(1, 2)), KEYS[0], 0, 0)).toBe(-1);
    table.prolong(m, 4, 3600, 0);
    expect(table.match(packet(1, 9, ports(1, 2)), KEYS[0], 0, 3_599_000 % 1_000_000)).toBe(n);
  });

  it('keys of a call are not an expectation, have no time of their own, and name the source’s key', () => {
    const { table, master } = bench();
    const m = master();
    const gre = 47 | (4 << 8);
    const call = spec(m, { key: gre, flags: EXP_ADDRESS | EXP_PORT, from: 5, ports: ports(7, 300), timeout: 1 });
    expect(table.add(call, 0, 0)).toBe(0);
    expect(table.add({ ...call, flags: call.flags | EXP_KEYMAP, class: 15 }, 0, 0)).toBe(1);
    expect(table.match(packet(5, 9, ports(7, 300)), gre, 0, 500)).toBe(0);
    expect(table.match(packet(5, 9, ports(7, 300)), gre, EXP_KEYMAP, 900_000)).toBe(1);
    expect(table.match(packet(5, 9, ports(7, 300)), gre, 0, 900_000)).toBe(-1);
    expect(table.greSourceKey(packet(5, 9, ports(0, 300)), gre, 900_000)).toBe(7);
    expect(table.greSourceKey(packet(6, 9, ports(0, 300)), gre, 900_000)).toBe(-1);
  });
});

describe('making them', () => {
  it('an equal tuple is refused to another master, and refreshed for the same', () => {
    const { table, master } = bench();
    const [a, b] = [master(), master()];
    expect(table.add(spec(a, { ports: ports(0, 2), timeout: 10 }), 0, 0)).toBe(0);
    expect(table.add(spec(b, { ports: ports(0, 2) }), 0, 0)).toBe(-1);
    expect(table.add(spec(a, { ports: ports(0, 2), timeout: 10 }), 0, 5000)).toBe(0);
    expect(table.match(packet(1, 9, ports(1, 2)), KEYS[0], 0, 14_000)).toBe(0);
    // Sources that both name and that differ do not meet.
    const from = (n: number) => spec(n === 5 ? a : b, { flags: EXP_ADDRESS, from: n, ports: ports(0, 3) });
    expect([table.add(from(5), 0, 0), table.add(from(6), 0, 0)]).toEqual([1, 2]);
    expect(table.match(packet(6, 9, ports(1, 3)), KEYS[0], 0, 0)).toBe(2);
  });

  it('a master that has as many as it may have gives up the one that ends first; a full table refuses', () => {
    const { table, master } = bench();
    const m = master();
    for (let n = 0; n < 3; n++)
      expect(table.add(spec(m, { ports: ports(0, 10 + n), timeout: 30 - n, wanted: n }), 3, 0)).toBe(n);
    // Of another class: not counted, not given up.
    expect(table.add(spec(m, { ports: ports(0, 20), class: 1 }), 3, 0)).toBe(3);
    expect(table.add(spec(m, { ports: ports(0, 13), wanted: 9 }), 3, 0)).toBe(2);
    expect(table.match(packet(1, 9, ports(1, 12)), KEYS[0], 0, 0)).toBe(-1);
    const other = master();
    for (let n = table.count; n < CAPACITY; n++)
      expect(table.add(spec(other, { ports: ports(0, 100 + n) }), 0, 0)).toBe(n);
    expect(table.add(spec(other, { ports: ports(0, 99) }), 0, 0)).toBe(-2);
    expect(table.statistics()).toEqual({ created: CAPACITY + 1, deleted: 1, refused: 1 });
    // Those of a master that has ended make room.
    table.removeOf(m, 0);
    expect(table.count).toBe(CAPACITY - 3);
    expect(table.add(spec(other, { ports: ports(0, 99) }), 0, 0)).toBeGreaterThanOrEqual(0);
  });
});

interface Known {
  spec: ExpectSpec;
  ends: number;
}

describe('against a list (property)', () => {
  it.each([1, 2, 3])('20,000 steps of adding, meeting, prolonging, removing, and masters that end; seed %d', (seed) => {
    const b = bench();
    const { table, conntrack } = b;
    const random = new Random(seed);
    let now = 0;
    const masters = Array.from({ length: 5 }, () => b.master(0x3fffffff));
    let list: Known[] = [];
    const clone = (s: ExpectSpec) => ({ ...s, src: s.src.slice(), dst: s.dst.slice() });
    const isLive = (k: Known) => masters.includes(k.spec.master) && k.ends - now >= 0;
    const meets = (k: Known, s: ExpectSpec) => {
      const both = k.spec.flags & s.flags;
      return (
        k.spec.key === s.key &&
        k.spec.dst[0] === s.dst[0] &&
        k.spec.ports >>> 16 === s.ports >>> 16 &&
        !((both & EXP_ADDRESS) !== 0 && k.spec.src[0] !== s.src[0]) &&
        !((both & EXP_PORT) !== 0 && ((k.spec.ports ^ s.ports) & 0xffff) !== 0)
      );
    };
    let met = 0;
    for (let step = 0; step < 20_000; step++) {
      const s = spec(random.pick(masters), {
        key: random.pick(KEYS),
        from: random.int(1, 3),
        to: random.int(1, 3),
        flags: random.pick([0, EXP_ADDRESS, EXP_PORT, EXP_ADDRESS | EXP_PORT]),
        ports: ports(random.int(1, 3), random.int(1, 8)),
        class: random.int(0, 1),
        timeout: random.int(1, 20),
        wanted: random.int(1, 4) << 16,
      });
      const what = random.int(0, 99);
      if (what < 40) {
        const limit = random.pick([0, 0, 4]);
        const result = table.add(s, limit, now);
        list = list.filter(isLive);
        const equal = list.filter((k) => meets(k, s));
        const own = list.filter((k) => k.spec.master === s.master && k.spec.class === s.class);
        if (equal.length > 0) {
          // Several may stand in the way (of sources that do not meet each other): whichever is found first decides.
          const mine = equal.filter(
            (k) => k.spec.master === s.master && k.spec.class === s.class && k.spec.wanted === s.wanted,
          );
          if (mine.length === 0) expect(result).toBe(-1);
          else if (mine.length === equal.length) expect(result).toBeGreaterThanOrEqual(0);
          if (result >= 0) {
            const at = mine.find(
              (k) =>
                table.words[table.at(result) + 8] === k.spec.dst[0] &&
                table.words[table.at(result) + 12] === k.spec.ports &&
                table.words[table.at(result) + 3] === k.spec.flags &&
                table.words[table.at(result) + 4] === k.spec.src[0],
            );
            expect(at).toBeDefined();
            at!.ends = now + s.timeout * 1000;
          }
        } else if (limit > 0 && own.length >= limit) {
          expect(result).toBeGreaterThanOrEqual(0);
          const first = own.reduce((x, y) => (y.ends < x.ends ? y : x)).ends;
          // Of several that end at once any may go: the table is asked which.
          const gone = own.filter((k) => k.ends === first).find((k) => !has(table, k));
          expect(gone).toBeDefined();
          list = list.filter((k) => k !== gone);
          list.push({ spec: clone(s), ends: now + s.timeout * 1000 });
        } else if (list.length < CAPACITY) {
          expect(result).toBeGreaterThanOrEqual(0);
          list.push({ spec: clone(s), ends: now + s.timeout * 1000 });
        } else expect(result).toBe(-2);
      } else if (what < 80) {
        const p = packet(s.src[0], s.dst[0], s.ports);
        const found = table.match(p, s.key, 0, now);
        const fits = list.filter(
          (k) =>
            isLive(k) &&
            k.spec.key === s.key &&
            k.spec.dst[0] === p.d0 &&
            k.spec.ports >>> 16 === p.ports >>> 16 &&
            ((k.spec.flags & EXP_ADDRESS) === 0 || k.spec.src[0] === p.s0) &&
            ((k.spec.flags & EXP_PORT) === 0 || ((k.spec.ports ^ p.ports) & 0xffff) === 0),
        );
        // Two that a packet could fulfil meet each other: the table never holds both.
        expect(fits.length).toBeLessThanOrEqual(1);
        expect(found >= 0).toBe(fits.length === 1);
        if (found < 0) continue;
        met++;
        expect(table.words[table.at(found) + 14]).toBe(fits[0].spec.master + 1);
        if (random.chance(0.5)) {
          table.remove(found);
          list = list.filter((k) => k !== fits[0]);
        }
      } else if (what < 85) {
        const which = random.int(-1, 1);
        table.removeOf(s.master, which);
        list = list.filter((k) => k.spec.master !== s.master || (which >= 0 && k.spec.class !== which));
      } else if (what < 90) {
        table.prolong(s.master, s.class, s.timeout, now);
        for (const k of list)
          if (isLive(k) && k.spec.master === s.master && k.spec.class === s.class) k.ends = now + s.timeout * 1000;
      } else if (what < 92) {
        const at = random.int(0, masters.length - 1);
        conntrack.delete(masters[at]);
        list = list.filter((k) => k.spec.master !== masters[at]);
        masters[at] = b.master(0x3fffffff);
      } else now += random.int(1, 3000);
    }
    expect(met).toBeGreaterThan(200);
    for (const m of masters) table.removeOf(m, -1);
    expect(list.filter((k) => isLive(k) && has(table, k))).toEqual([]);
  });
});

/** Whether a record with this tuple, these flags and this end is in the table. */
function has(table: ExpectTable, k: Known): boolean {
  for (let n = 0; n < table.capacity; n++) {
    const r = table.at(n);
    const w = table.words;
    if (
      w[r + 1] === 1 &&
      w[r + 2] === k.spec.key &&
      w[r + 3] === k.spec.flags &&
      w[r + 4] === k.spec.src[0] &&
      w[r + 8] === k.spec.dst[0] &&
      w[r + 12] === k.spec.ports &&
      w[r + 13] === k.ends &&
      w[r + 14] === k.spec.master + 1
    )
      return true;
  }
  return false;
}

function bench() {
  const b = new Bench();
  return {
    table: b.table,
    conntrack: b.conntrack,
    master: (deadline?: number, confirmed?: boolean) => b.master(deadline, confirmed),
    confirm: (index: number) => b.confirm(index),
  };
}
