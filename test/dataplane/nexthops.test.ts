/** Next hops: deduplication, references, groups that spread flows and move only those of a dead member. */
import { describe, expect, it } from 'vitest';
import {
  NEXTHOP_WORDS,
  NextHopTable,
  NextHopWriter,
  NH_CONNECTED,
  NH_FREE,
  NH_GATEWAY_WORD,
  NH_GROUP,
  NH_MTU_WORD,
  NH_PORT_WORD,
  NH_UNREACHABLE,
  NH_VIA,
} from '../../dataplane/nexthops.ts';

function fresh(capacity = 32): { table: NextHopTable; writer: NextHopWriter } {
  const table = new NextHopTable(new SharedArrayBuffer(NextHopTable.bytes(capacity)));
  return { table, writer: new NextHopWriter(table) };
}

const via = (port: number, gateway: number) => ({ kind: NH_VIA, port, family: 4 as const, gateway: [gateway] });

describe('records', () => {
  it('never gives out number 0, and writes what the specification says', () => {
    const { table, writer } = fresh();
    const n = writer.acquire({ kind: NH_VIA, port: 3, family: 6, gateway: [1, -2, 3, -4], mtu: 1280 });
    expect(n).toBeGreaterThan(0);
    const r = table.at(n);
    expect(table.kind(n)).toBe(NH_VIA);
    expect(table.words[r + NH_PORT_WORD]).toBe(3);
    expect([...table.words.subarray(r + NH_GATEWAY_WORD, r + NH_GATEWAY_WORD + 4)]).toEqual([1, -2, 3, -4]);
    expect(table.words[r + NH_MTU_WORD]).toBe(1280);
    expect(table.words[writer.table.at(writer.acquire({ kind: NH_UNREACHABLE })) + NH_PORT_WORD]).toBe(-1);
    expect(table.words.subarray(0, NEXTHOP_WORDS).every((w) => w === 0)).toBe(true);
  });

  it('the same specification is the same record until the last reference is gone', () => {
    const { table, writer } = fresh();
    const a = writer.acquire(via(1, 7));
    expect(writer.acquire(via(1, 7))).toBe(a);
    expect(writer.acquire(via(1, 8))).not.toBe(a);
    expect(writer.acquire({ ...via(1, 7), mtu: 1400 })).not.toBe(a);
    writer.release(a);
    expect(writer.referencesTo(a)).toBe(1);
    writer.release(a);
    // Still readable, no longer found.
    expect(table.kind(a)).toBe(NH_VIA);
    expect(writer.acquire(via(1, 7))).not.toBe(a);
    writer.release(a); // one too many does no harm
    expect(writer.reclaim()).toBe(1);
    expect(table.kind(a)).toBe(NH_FREE);
    expect(writer.acquire(via(9, 9))).toBe(a);
  });

  it('two groups had one key when the weights of one were the last members of the other', () => {
    const { writer } = fresh();
    const [a, b] = [writer.acquire(via(1, 7)), writer.acquire(via(2, 8))];
    const weighted = writer.acquire({ kind: NH_GROUP, members: [a, b], weights: [b, a] });
    expect(weighted).toBeGreaterThan(0);
    expect(writer.acquire({ kind: NH_GROUP, members: [a, b, b, a] })).not.toBe(weighted);
  });

  it('answers 0 when full, and room returns with reclaim up to the mark', () => {
    const { writer } = fresh(2);
    const a = writer.acquire(via(1, 1));
    const b = writer.acquire(via(1, 2));
    expect(writer.acquire(via(1, 3))).toBe(0);
    writer.release(a);
    const mark = writer.mark();
    writer.release(b);
    expect(writer.acquire(via(1, 3))).toBe(0);
    expect(writer.reclaim(mark)).toBe(1);
    expect(writer.acquire(via(1, 3))).toBe(a);
    expect(writer.acquire(via(1, 4))).toBe(0);
  });
});

describe('groups', () => {
  const hashes = Array.from({ length: 12_000 }, (_, n) => Math.imul(n + 1, 0x9e3779b1) ^ Math.imul(n, 0x85ebca6b));

  it('a single next hop selects itself', () => {
    const { table, writer } = fresh();
    const n = writer.acquire({ kind: NH_CONNECTED, port: 2 });
    for (const h of [0, -1, 0x7fffffff]) expect(table.select(n, h)).toBe(n);
  });

  it('spreads flows evenly, always the same way', () => {
    const { table, writer } = fresh();
    const members = [1, 2, 3].map((g) => writer.acquire(via(g, g)));
    const group = writer.acquire({ kind: NH_GROUP, members });
    for (const m of members) {
      const share = hashes.filter((h) => table.select(group, h) === m).length;
      expect(share).toBeGreaterThan(3_800);
      expect(share).toBeLessThan(4_200);
    }
    expect(table.select(group, 0)).toBe(members[0]);
    expect(table.select(group, -1)).toBe(members[2]);
  });

  it('when a port goes down only its flows move, evenly, and they come back', () => {
    const { table, writer } = fresh();
    const members = [1, 2, 3].map((g) => writer.acquire(via(g, g)));
    const group = writer.acquire({ kind: NH_GROUP, members });
    const before = hashes.map((h) => table.select(group, h));
    expect(writer.setPort(2, false)).toBe(1);
    const during = hashes.map((h) => table.select(group, h));
    let moved = 0;
    let toFirst = 0;
    before.forEach((m, n) => {
      if (m !== members[1]) expect(during[n]).toBe(m);
      else {
        moved++;
        expect(during[n]).not.toBe(members[1]);
        if (during[n] === members[0]) toFirst++;
      }
    });
    expect(toFirst / moved).toBeGreaterThan(0.45);
    expect(toFirst / moved).toBeLessThan(0.55);
    writer.setPort(2, true);
    expect(hashes.map((h) => table.select(group, h))).toEqual(before);
  });

  it('no member up: no next hop; a member made while its port is down is down', () => {
    const { table, writer } = fresh();
    writer.setPort(1, false);
    const member = writer.acquire(via(1, 1));
    const group = writer.acquire({ kind: NH_GROUP, members: [member] });
    expect(table.select(group, 12345)).toBe(0);
    expect(writer.setPort(1, true)).toBe(1);
    expect(table.select(group, 12345)).toBe(member);
    expect(writer.setDown(member, true)).toBe(true);
    expect(writer.setDown(member, true)).toBe(false);
    expect(table.select(group, 12345)).toBe(0);
  });

  it('holds its members, and refuses groups of groups, of nothing, of too many, of the dead', () => {
    const { writer } = fresh();
    const a = writer.acquire(via(1, 1));
    const group = writer.acquire({ kind: NH_GROUP, members: [a] });
    writer.release(a);
    expect(writer.referencesTo(a)).toBe(1);
    expect(writer.acquire({ kind: NH_GROUP, members: [group] })).toBe(0);
    expect(writer.acquire({ kind: NH_GROUP, members: [] })).toBe(0);
    expect(writer.acquire({ kind: NH_GROUP, members: [a, a, a, a, a, a, a] })).toBe(0);
    expect(writer.acquire({ kind: NH_GROUP, members: [a + 20] })).toBe(0);
    writer.release(group);
    expect(writer.referencesTo(a)).toBe(0);
    expect(writer.reclaim()).toBe(2);
  });
});
