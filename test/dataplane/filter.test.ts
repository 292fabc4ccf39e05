/** The filter table by itself: verdicts, order, what it refuses, reload in two copies, counters. */
import { describe, expect, it } from 'vitest';
import { CT_INVALID, CT_NEW, CT_UNTRACKED } from '../../conntrack/record.ts';
import {
  ACCEPT,
  DROP,
  type FilterList,
  type FilterRule,
  FilterTable,
  FilterWriter,
  REJECT,
  SOURCE_ANY,
  ZONE_ANY,
  ZONE_FORWARDED,
  ZONE_ROUTER,
  type ZoneDefaults,
} from '../../dataplane/filter.ts';
import { Packet } from '../../dataplane/wire/packet.ts';

const LAN = 1;
const WAN = 2;

function fresh(capacity = 16, workers = 2): { table: FilterTable; writer: FilterWriter } {
  const table = new FilterTable(new SharedArrayBuffer(FilterTable.bytes(capacity, workers)), workers);
  return { table, writer: new FilterWriter(table) };
}

function rule(id: number, fields: Partial<FilterRule>): FilterRule {
  return {
    id,
    from: ZONE_ANY,
    to: ZONE_ANY,
    fromPort: -1,
    toPort: -1,
    family: 0,
    proto: -1,
    src: null,
    dst: null,
    sport: null,
    dport: null,
    icmpTypes: null,
    icmpCode: -1,
    states: 1 << CT_NEW,
    helper: 0,
    sourceZone: SOURCE_ANY,
    chain: 0,
    verdict: ACCEPT,
    ...fields,
  };
}

function zone(forward: number, input: number, forward6 = forward, input6 = input): ZoneDefaults {
  return { forward4: forward, input4: input, forward6, input6 };
}

const ZONES = [zone(ACCEPT, ACCEPT), zone(ACCEPT, ACCEPT), zone(DROP, REJECT, REJECT, DROP)];

function list(...rules: FilterRule[]): FilterList {
  const count = rules.reduce((most, r) => Math.max(most, r.id + 1), 0);
  return { rules, names: Array.from({ length: count }, (_, id) => `rule ${id}`), zones: ZONES };
}

/** A new packet of 100 bytes; ports as host integers. */
function packet(family: number, proto: number, sport = 0, dport = 0): Packet {
  const p = new Packet();
  p.family = family;
  p.proto = proto;
  p.ports = (sport >> 8) | ((sport & 255) << 8) | ((dport >> 8) << 16) | ((dport & 255) << 24);
  p.l3 = 1000;
  p.end = 1100;
  p.ctinfo = CT_NEW;
  return p;
}

function icmp(family: number, type: number, code = 0): Packet {
  const p = packet(family, family === 4 ? 1 : 58);
  p.ports = 0x1234 | (type << 16) | (code << 24);
  return p;
}

describe('verdicts', () => {
  it('before any list every zone drops; unknown zones always do', () => {
    const { table, writer } = fresh();
    expect(table.evaluate(packet(4, 6), LAN, WAN, 0)).toBe(DROP);
    writer.load(list());
    expect(table.evaluate(packet(4, 6), LAN, WAN, 0)).toBe(ACCEPT);
    expect(table.evaluate(packet(4, 6), 9, WAN, 0)).toBe(DROP);
    expect(table.evaluate(packet(4, 6), -1, WAN, 0)).toBe(DROP);
    expect(table.evaluate(packet(4, 6), 64, WAN, 0)).toBe(DROP);
  });

  it('without a matching rule the zone decides, by family and by forward or input', () => {
    const { table, writer } = fresh();
    writer.load(list(rule(0, { proto: 17 })));
    expect(table.evaluate(packet(4, 6), WAN, LAN, 0)).toBe(DROP);
    expect(table.evaluate(packet(6, 6), WAN, LAN, 0)).toBe(REJECT);
    expect(table.evaluate(packet(4, 6), WAN, ZONE_ROUTER, 0)).toBe(REJECT);
    expect(table.evaluate(packet(6, 6), WAN, ZONE_ROUTER, 0)).toBe(DROP);
    expect(table.rule).toBe(-1);
  });

  it('the first match wins, and is remembered with its helper', () => {
    const { table, writer } = fresh();
    writer.load(
      list(
        rule(0, { proto: 6, dport: [21, 21], helper: 3 }),
        rule(1, { proto: 6, verdict: REJECT }),
        rule(2, { verdict: DROP }),
      ),
    );
    expect(table.evaluate(packet(4, 6, 40000, 21), LAN, WAN, 0)).toBe(ACCEPT);
    expect([table.rule, table.helper]).toEqual([0, 3]);
    expect(table.evaluate(packet(4, 6, 21, 22), LAN, WAN, 0)).toBe(REJECT);
    expect([table.rule, table.helper]).toEqual([1, 0]);
    expect(table.evaluate(packet(4, 17), LAN, WAN, 0)).toBe(DROP);
    expect(table.rule).toBe(2);
  });

  it('to: any means the router too, forwarded does not, and the router is a destination of its own', () => {
    for (const [to, forwarded, local] of [
      [ZONE_ANY, ACCEPT, ACCEPT],
      [ZONE_FORWARDED, ACCEPT, REJECT],
      [ZONE_ROUTER, DROP, ACCEPT],
      [LAN, ACCEPT, REJECT],
    ]) {
      const { table, writer } = fresh();
      writer.load(list(rule(0, { from: WAN, to })));
      expect(table.evaluate(packet(4, 6), WAN, LAN, 0)).toBe(forwarded);
      expect(table.evaluate(packet(4, 6), WAN, ZONE_ROUTER, 0)).toBe(local);
    }
  });

  it('an egress port is never the router, even when the packet still carries an old one', () => {
    const { table, writer } = fresh();
    writer.load(list(rule(0, { toPort: 5 })));
    const p = packet(4, 6);
    p.outPort = 5;
    expect(table.evaluate(p, WAN, LAN, 0)).toBe(ACCEPT);
    expect(table.evaluate(p, WAN, ZONE_ROUTER, 0)).toBe(REJECT);
    p.outPort = 4;
    expect(table.evaluate(p, WAN, LAN, 0)).toBe(DROP);
  });

  it('compares port ranges as numbers, at both ends, above 32767 too', () => {
    const { table, writer } = fresh();
    writer.load(list(rule(0, { proto: 17, sport: [0x00ff, 0x0100], dport: [32768, 65535] })));
    const verdict = (s: number, d: number) => table.evaluate(packet(4, 17, s, d), WAN, LAN, 0);
    expect([verdict(0xff, 32768), verdict(0x100, 65535)]).toEqual([ACCEPT, ACCEPT]);
    expect([verdict(0xfe, 40000), verdict(0x101, 40000), verdict(0xff, 32767)]).toEqual([DROP, DROP, DROP]);
  });

  it('ICMP by type range, and by one type with its code', () => {
    const { table, writer } = fresh();
    writer.load(
      list(
        rule(0, { proto: 58, icmpTypes: [128, 129] }),
        rule(1, { proto: 1, icmpTypes: [3, 3], icmpCode: 0 }),
        rule(2, { proto: 1, icmpTypes: [0, 0] }),
      ),
    );
    const verdict = (p: Packet) => table.evaluate(p, WAN, LAN, 0);
    expect([127, 128, 129, 130].map((t) => verdict(icmp(6, t)))).toEqual([REJECT, ACCEPT, ACCEPT, REJECT]);
    expect([0, 1, 255].map((c) => verdict(icmp(4, 3, c)))).toEqual([ACCEPT, DROP, DROP]);
    expect(verdict(icmp(4, 0, 7))).toBe(ACCEPT);
  });

  it('matches only the states it names', () => {
    const { table, writer } = fresh();
    writer.load(list(rule(0, { states: 1 << CT_NEW }), rule(1, { states: 1 << CT_INVALID, verdict: REJECT })));
    const p = packet(4, 6);
    p.ctinfo = CT_INVALID;
    expect(table.evaluate(p, WAN, LAN, 0)).toBe(REJECT);
    p.ctinfo = CT_UNTRACKED;
    expect(table.evaluate(p, WAN, LAN, 0)).toBe(DROP);
  });
});

describe('what is refused, without a change', () => {
  it.each([
    [rule(0, { proto: 1, dport: [80, 80] }), /protocol that has ports, got 1/],
    [rule(0, { sport: [1, 2] }), /protocol that has ports, got -1/],
    [rule(0, { proto: 6, icmpTypes: [8, 8] }), /icmp or icmpv6/],
    [rule(0, { src: { words: [1, 0, 0, 0], mask: [-1, 0, 0, 0] } }), /expected a family/],
    [rule(0, { verdict: 0 }), /expected a verdict, got 0/],
  ] as const)('%#', (wrong, message) => {
    const { table, writer } = fresh();
    expect(writer.load(list())).toBeNull();
    const generation = table.generation();
    expect(writer.load(list(wrong))).toMatch(message);
    expect(table.generation()).toBe(generation);
    expect(writer.pending).toBe(false);
  });

  it('too many rules, twins of a name, identifiers without one', () => {
    const { table, writer } = fresh(5);
    expect(table.capacity).toBe(8);
    expect(writer.load(list(...Array.from({ length: 9 }, (_, n) => rule(n, {}))))).toMatch(/at most 8 lines, got 9/);
    expect(writer.load({ ...list(rule(0, {}), rule(1, {})), names: ['a', 'a'] })).toMatch(/twice/);
    expect(writer.load({ ...list(rule(3, {})), names: ['a'] })).toMatch(/got 3/);
    expect(writer.load(list(...Array.from({ length: 8 }, (_, n) => rule(n, {}))))).toBeNull();
  });
});

describe('reload', () => {
  it('leaves the copy alone that readers may still use: a second reload waits for reclaim, the last one wins', () => {
    const { table, writer } = fresh();
    writer.load(list(rule(0, { verdict: REJECT })));
    writer.reclaim();
    writer.load(list(rule(0, { verdict: DROP })));
    // A reader that started before that reload is still in the other copy: nothing may be written there.
    const old = table.copyAt((table.generation() & 1) ^ 1);
    const before = table.words.slice(old, old + table.copyWords);
    writer.load(list(rule(0, { verdict: REJECT })));
    writer.load(list());
    expect(writer.pending).toBe(true);
    expect(table.words.slice(old, old + table.copyWords)).toEqual(before);
    expect(table.evaluate(packet(4, 6), LAN, WAN, 0)).toBe(DROP);

    writer.reclaim(table.generation() - 1); // a mark from before the reload proves nothing
    expect(writer.pending).toBe(true);
    writer.reclaim(writer.mark());
    expect(writer.pending).toBe(false);
    expect(table.evaluate(packet(4, 6), LAN, WAN, 0)).toBe(ACCEPT);
    expect(table.rule).toBe(-1);
  });

  it('a shorter list does not keep rules or zones of the longer one before it', () => {
    const { table, writer } = fresh();
    for (const l of [list(rule(0, {}), rule(1, { verdict: DROP })), list(), { ...list(), zones: ZONES.slice(0, 2) }]) {
      writer.load(l);
      writer.reclaim();
    }
    expect(table.evaluate(packet(4, 6), LAN, WAN, 0)).toBe(ACCEPT);
    expect(table.evaluate(packet(4, 6), WAN, LAN, 0)).toBe(DROP); // a zone that is no longer there
    expect(table.evaluate(packet(6, 6), WAN, LAN, 0)).toBe(DROP);
  });
});

describe('counters', () => {
  it('add up over workers, and over lines of one rule', () => {
    const { table, writer } = fresh();
    writer.load(list(rule(0, { proto: 6 }), rule(0, { proto: 17 })));
    table.evaluate(packet(4, 6), WAN, LAN, 0);
    table.evaluate(packet(4, 17), WAN, LAN, 1);
    table.evaluate(packet(4, 17), WAN, LAN, 1);
    table.evaluate(packet(4, 50), WAN, LAN, 1);
    table.evaluate(packet(4, 50), WAN, ZONE_ROUTER, 0);
    expect(writer.counter(0)).toEqual({ packets: 3, bytes: 300 });
    expect(writer.zoneCounter(WAN, false)).toEqual({ packets: 1, bytes: 100 });
    expect(writer.zoneCounter(WAN, true)).toEqual({ packets: 1, bytes: 100 });
    expect(writer.zoneCounter(LAN, false)).toEqual({ packets: 0, bytes: 0 });
  });

  it('follow a rule by its name through reloads, wherever it stands, and end with it', () => {
    const { table, writer } = fresh();
    const tcp = (id: number) => rule(id, { proto: 6 });
    const udp = (id: number) => rule(id, { proto: 17 });
    const load = (rules: FilterRule[], names: string[]) =>
      expect(writer.load({ rules, names, zones: ZONES })).toBeNull();
    load([tcp(0), udp(1)], ['tcp', 'udp']);
    table.evaluate(packet(4, 6), WAN, LAN, 0);
    table.evaluate(packet(4, 50), WAN, LAN, 0);
    writer.reclaim();
    load([udp(0), tcp(1)], ['udp', 'tcp']);
    expect(writer.counter(1).packets).toBe(1); // before the old copy is given up …
    table.evaluate(packet(4, 6), WAN, LAN, 1);
    expect(writer.counter(1).packets).toBe(2);
    writer.reclaim();
    expect(writer.counter(1).packets).toBe(2); // … and after
    expect(writer.counter(0).packets).toBe(0);
    expect(writer.zoneCounter(WAN, false).packets).toBe(1);
    load([udp(0)], ['udp']);
    writer.reclaim();
    load([tcp(0)], ['tcp']);
    writer.reclaim();
    expect(writer.counter(0)).toEqual({ packets: 0, bytes: 0 });
  });
});
