/** The route table against a naive longest-prefix match, its edges, exhaustion, and the rest before reuse. */

import { describe, expect, it } from 'vitest';
import { RouteTable, RouteWriter } from '../../dataplane/routes.ts';
import { Random } from '../lib/build.ts';

/** Seeded generator (mulberry32): int32 words. */
function generator(seed: number): () => number {
  const numbers = new Random(seed);
  return () => numbers.next() | 0;
}

/** Raw words of an address given as bytes: what a little-endian load of the wire gives. */
function raw(bytes: readonly number[]): [number, number, number, number] {
  const out = new Int32Array(4);
  const view = new DataView(out.buffer);
  bytes.forEach((b, n) => {
    view.setUint8(n, b);
  });
  return [view.getInt32(0, true), view.getInt32(4, true), view.getInt32(8, true), view.getInt32(12, true)];
}

function v4(text: string): [number, number, number, number] {
  return raw(text.split('.').map(Number));
}

/** Full-form or ::-shortened IPv6 text. */
function v6(text: string): [number, number, number, number] {
  const [head, tail = ''] = text.split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === '' ? [] : tail.split(':');
  const fill = text.includes('::') ? 8 - front.length - back.length : 0;
  const groups = [...front, ...Array(fill).fill('0'), ...back].map((g) => Number.parseInt(g, 16));
  return raw(groups.flatMap((g) => [g >> 8, g & 255]));
}

function fresh(nodes: number): { table: RouteTable; writer: RouteWriter } {
  const table = new RouteTable(new SharedArrayBuffer(RouteTable.bytes(nodes)));
  return { table, writer: new RouteWriter(table) };
}

function lookup(table: RouteTable, family: 4 | 6, w: readonly number[]): [nexthop: number, length: number] {
  const hop = family === 4 ? table.lookup4(w[0]) : table.lookup6(w[0], w[1], w[2], w[3]);
  return [hop, hop === 0 ? -1 : table.length];
}

/** The reference: a list of prefixes as bit strings, searched from the first to the last. */
class Naive {
  routes = new Map<string, number>();

  static bits(bytes: readonly number[]): string {
    return bytes.map((b) => b.toString(2).padStart(8, '0')).join('');
  }

  lookup(bytes: readonly number[]): [number, number] {
    const bits = Naive.bits(bytes);
    let best: [number, number] = [0, -1];
    for (const [prefix, hop] of this.routes)
      if (prefix.length > best[1] && bits.startsWith(prefix)) best = [hop, prefix.length];
    return best;
  }
}

describe.each([4, 6] as const)('IPv%i against a linear search', (family) => {
  const size = family === 4 ? 4 : 16;
  it.each([1, 2])('random adds, changes and removals of nested prefixes, seed %i', (seed) => {
    const random = generator(seed * 100 + family);
    const below = (n: number) => (random() >>> 0) % n;
    const { table, writer } = fresh(20_000);
    const naive = new Naive();
    // Few distinct byte values and random depth: prefixes nest, share nodes and touch the stride borders often.
    const values = [0, 1, 0x7f, 0x80, 0xff, 0x0f];
    const address = () => Array.from({ length: size }, () => values[below(values.length)]);
    const live: { bytes: number[]; length: number }[] = [];
    for (let step = 0; step < 20_000; step++) {
      const removing = live.length > 0 && below(100) < (live.length > 60 ? 70 : 40);
      if (removing) {
        const at = below(live.length);
        const { bytes, length } = live[at];
        live.splice(at, 1);
        const key = Naive.bits(bytes).slice(0, length);
        expect(writer.remove(family, raw(bytes), length)).toBe(naive.routes.get(key) ?? 0);
        naive.routes.delete(key);
      } else {
        // Half of the time a relative of a live prefix, so that longer and shorter ones cover each other.
        const bytes = live.length > 0 && below(2) === 0 ? [...live[below(live.length)].bytes] : address();
        const length = below(8) === 0 ? [0, 1, 15, 16, 17, 20, 21, size * 8][below(8)] : below(size * 8 + 1);
        const hop = 1 + below(1000);
        expect(writer.add(family, raw(bytes), length, hop)).toBeNull();
        naive.routes.set(Naive.bits(bytes).slice(0, length), hop);
        live.push({ bytes, length });
      }
      // Around the last change, at its borders, and anywhere.
      for (let probe = 0; probe < 3; probe++) {
        const bytes = probe < 2 && live.length > 0 ? [...live[below(live.length)].bytes] : address();
        if (probe === 1) bytes[below(size)] ^= 1 << below(8);
        expect(lookup(table, family, raw(bytes))).toEqual(naive.lookup(bytes));
      }
      if (step % 64 === 0) writer.reclaim();
    }
    expect(table.count(family)).toBe(naive.routes.size);
    expect(writer.list().length).toBe(naive.routes.size);

    // With the last prefix gone every node is back and every word of the trie is zero.
    for (const route of writer.list())
      expect(writer.remove(family, route.words, route.prefixLength)).toBe(route.nexthop);
    writer.reclaim();
    expect(table.nodes).toBe(0);
    expect(writer.available).toBe(20_000);
    expect(table.words.subarray(16).every((word) => word === 0)).toBe(true);
  });
});

describe('edges', () => {
  it('/0, /16, /17, /20, /21, /32 each win inside themselves and only there', () => {
    const { table, writer } = fresh(100);
    const prefixes: [string, number][] = [
      ['0.0.0.0', 0],
      ['10.1.0.0', 16],
      ['10.1.128.0', 17],
      ['10.1.240.0', 20],
      ['10.1.248.0', 21],
      ['10.1.255.255', 32],
    ];
    prefixes.forEach(([address, length], n) => {
      expect(writer.add(4, v4(address), length, n + 1)).toBeNull();
    });
    const expected: [string, number, number][] = [
      ['9.255.255.255', 1, 0],
      ['10.1.0.0', 2, 16],
      ['10.1.127.255', 2, 16],
      ['10.1.128.0', 3, 17],
      ['10.1.239.255', 3, 17],
      ['10.1.247.255', 4, 20],
      ['10.1.248.0', 5, 21],
      ['10.1.255.254', 5, 21],
      ['10.1.255.255', 6, 32],
      ['10.2.0.0', 1, 0],
      ['255.255.255.255', 1, 0],
    ];
    for (const [address, hop, length] of expected) expect(lookup(table, 4, v4(address))).toEqual([hop, length]);
  });

  it('IPv6 /0, /64 and /128, with the sign bit of the length', () => {
    const { table, writer } = fresh(100);
    writer.add(6, v6('::'), 0, 1);
    writer.add(6, v6('2001:db8:1::'), 64, 2);
    writer.add(6, v6('2001:db8:1::1'), 128, 0xffffff);
    expect(lookup(table, 6, v6('2001:db8:1::1'))).toEqual([0xffffff, 128]);
    expect(lookup(table, 6, v6('2001:db8:1::2'))).toEqual([2, 64]);
    expect(lookup(table, 6, v6('2001:db8:1:1::1'))).toEqual([1, 0]);
  });

  it('cleans host bits, and does not confuse the families', () => {
    const { table, writer } = fresh(100);
    writer.add(4, v4('192.168.1.77'), 24, 7);
    expect(lookup(table, 4, v4('192.168.1.1'))).toEqual([7, 24]);
    expect(writer.get(4, v4('192.168.1.0'), 24)).toBe(7);
    expect(writer.list()).toEqual([{ family: 4, words: v4('192.168.1.0'), prefixLength: 24, nexthop: 7 }]);
    expect(lookup(table, 6, v4('192.168.1.1'))).toEqual([0, -1]);
    expect(writer.remove(4, v4('192.168.1.200'), 24)).toBe(7);
    expect(lookup(table, 4, v4('192.168.1.1'))).toEqual([0, -1]);
  });

  it('lists by family, unsigned address, then length', () => {
    const { writer } = fresh(200);
    for (const [address, length] of [
      ['200.0.0.0', 8],
      ['10.0.0.0', 16],
      ['10.0.0.0', 8],
      ['0.0.0.0', 0],
    ] as const)
      writer.add(4, v4(address), length, 1);
    writer.add(6, v6('fe80::'), 10, 1);
    writer.add(6, v6('2001:db8::'), 32, 1);
    expect(writer.list().map((r) => [r.family, r.words[0] & 255, r.prefixLength])).toEqual([
      [4, 0, 0],
      [4, 10, 8],
      [4, 10, 16],
      [4, 200, 8],
      [6, 0x20, 32],
      [6, 0xfe, 10],
    ]);
  });

  it('refuses lengths and next hops that do not exist, and says what it expected', () => {
    const { writer } = fresh(10);
    expect(writer.add(4, v4('10.0.0.0'), 33, 1)).toMatchObject({ kind: 'invalid' });
    expect(writer.add(6, v6('::'), 129, 1)?.message).toMatch(/expected a prefix length from 0 to 128 .* got 129/);
    expect(writer.add(4, v4('10.0.0.0'), 8, 0)?.message).toMatch(/expected a next-hop number from 1/);
    expect(writer.remove(4, v4('10.0.0.0'), -1)).toBe(0);
    expect(writer.list()).toEqual([]);
  });
});

describe('nodes', () => {
  it('an addition that does not fit changes nothing, and fits after a removal and reclaim', () => {
    const { table, writer } = fresh(6);
    expect(writer.add(4, v4('10.0.0.1'), 32, 1)).toBeNull(); // 4 nodes
    const before = table.words.slice();
    expect(writer.add(4, v4('11.0.0.1'), 32, 2)).toMatchObject({ kind: 'full' });
    expect(table.words.every((word, n) => word === before[n])).toBe(true);
    expect(writer.get(4, v4('11.0.0.1'), 32)).toBe(0);
    expect(writer.add(4, v4('10.0.0.2'), 32, 3)).toBeNull(); // shares all four
    expect(writer.remove(4, v4('10.0.0.1'), 32)).toBe(1);
    expect(writer.remove(4, v4('10.0.0.2'), 32)).toBe(3);
    expect(writer.add(4, v4('11.0.0.1'), 32, 2)).toMatchObject({ kind: 'full' }); // the old nodes still rest
    expect(writer.reclaim()).toBe(4);
    expect(writer.add(4, v4('11.0.0.1'), 32, 2)).toBeNull();
    expect(lookup(table, 4, v4('11.0.0.1'))).toEqual([2, 32]);
    expect(lookup(table, 4, v4('10.0.0.1'))).toEqual([0, -1]);
  });

  it('reclaims only what had been unlinked at the mark', () => {
    const { writer } = fresh(8);
    writer.add(4, v4('10.0.0.1'), 32, 1);
    writer.add(4, v4('11.0.0.1'), 32, 1);
    writer.remove(4, v4('10.0.0.1'), 32);
    const mark = writer.mark();
    writer.remove(4, v4('11.0.0.1'), 32);
    expect(writer.available).toBe(0);
    expect(writer.reclaim(mark)).toBe(4);
    expect(writer.reclaim(mark)).toBe(0);
    expect(writer.available).toBe(4);
    expect(writer.reclaim()).toBe(4);
    expect(writer.available).toBe(8);
  });

  it('a change of next hop is never an absence, and moves the generation', () => {
    const { table, writer } = fresh(8);
    writer.add(4, v4('10.0.0.0'), 24, 1);
    const generation = table.generation();
    writer.add(4, v4('10.0.0.0'), 24, 2);
    expect(table.count(4)).toBe(1);
    expect(table.generation()).not.toBe(generation);
    expect(lookup(table, 4, v4('10.0.0.9'))).toEqual([2, 24]);
  });

  it('a second view of the same memory sees the same routes', () => {
    const buffer = new SharedArrayBuffer(RouteTable.bytes(50));
    const writer = new RouteWriter(new RouteTable(buffer));
    writer.add(6, v6('2001:db8::'), 32, 5);
    const reader = new RouteTable(buffer);
    expect(lookup(reader, 6, v6('2001:db8::1'))).toEqual([5, 32]);
    expect(reader.capacity).toBe(50);
  });
});
