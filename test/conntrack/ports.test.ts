/**
 * Port pools: the bitmap search against a naive set, ranges and sets, parity, exhaustion, two threads' views.
 */
import { describe, expect, it } from 'vitest';
import { ANY_PARITY, BITMAP_WORDS, EVEN, ODD, PortPools } from '../../conntrack/ports.ts';
import { parseConfig } from '../../controlplane/config/index.ts';
import { Random } from '../lib/build.ts';

const ADDRESS = 0x0171ccb;

function pools(count = 4): PortPools {
  return new PortPools(new SharedArrayBuffer(PortPools.bytes(count)));
}

describe('a pool', () => {
  it('gives what a naive set would, for ten thousand random takes, searches and returns', () => {
    const p = pools();
    const pool = p.find(ADDRESS, 17, true);
    const taken = new Set<number>();
    const random = new Random(7);
    const reserved = new Int32Array(BITMAP_WORDS);
    for (let n = 0; n < 200; n++) {
      const port = random.int(1, 3000);
      reserved[port >> 5] |= 1 << (port & 31);
    }
    const isReserved = (port: number) => (reserved[port >> 5] & (1 << (port & 31))) !== 0;
    for (let n = 0; n < 10_000; n++) {
      const low = random.int(1, 2900);
      const high = random.int(low, Math.min(3000, low + 200));
      const choice = random.int(0, 2);
      if (choice === 0) {
        expect(p.take(pool, low)).toBe(!taken.has(low));
        taken.add(low);
      } else if (choice === 1 && taken.size > 0 && random.chance(0.7)) {
        const gone = random.pick([...taken]);
        p.give(pool, gone);
        taken.delete(gone);
      } else {
        const start = random.int(low, high);
        const parity = random.pick([ANY_PARITY, EVEN, ODD]);
        const fits = (port: number) =>
          !taken.has(port) && !isReserved(port) && (parity === ANY_PARITY || (port & 1) === (parity === ODD ? 1 : 0));
        let expected = -1;
        for (let k = 0; k <= high - low && expected < 0; k++) {
          const port = low + ((start - low + k) % (high - low + 1));
          if (fits(port)) expected = port;
        }
        const got = p.takeFrom(pool, low, high, start, parity, reserved, null);
        expect(got).toBe(expected);
        if (got >= 0) taken.add(got);
      }
      expect(p.used(pool)).toBe(taken.size);
    }
    for (let port = 0; port <= 3000; port++) expect(p.has(pool, port)).toBe(taken.has(port));
  });

  it('gives every port of 0–65535 once, and finds the last one with at most 2,049 looks', () => {
    const p = pools();
    const pool = p.find(ADDRESS, 6, true);
    for (let n = 0; n < 65535; n++) if (n !== 31337) expect(p.take(pool, n)).toBe(true);
    expect(p.take(pool, 65535)).toBe(true);
    for (const start of [0, 31337, 31338, 65535]) {
      p.probes = 0;
      expect(p.takeFrom(pool, 0, 65535, start, ANY_PARITY, null, null)).toBe(31337);
      expect(p.probes).toBeLessThanOrEqual(BITMAP_WORDS + 1);
      p.give(pool, 31337);
    }
    p.take(pool, 31337);
    expect(p.takeFrom(pool, 0, 65535, 4711, ANY_PARITY, null, null)).toBe(-1);
    expect(p.used(pool)).toBe(65536);
  });

  it('is one for all threads, and one for each address and protocol', () => {
    const buffer = new SharedArrayBuffer(PortPools.bytes(3));
    const a = new PortPools(buffer);
    const b = new PortPools(buffer);
    const pool = a.find(ADDRESS, 17, true);
    expect(b.find(ADDRESS, 17, true)).toBe(pool);
    expect(b.find(ADDRESS, 6, false)).toBe(-1);
    expect(a.take(pool, 5000)).toBe(true);
    expect(b.take(pool, 5000)).toBe(false);
    expect(new Set([pool, b.find(ADDRESS, 6, true), a.find(ADDRESS + 1, 17, true)]).size).toBe(3);
    expect(a.find(ADDRESS + 2, 17, true)).toBe(-1);
    expect(a.count).toBe(3);
  });
});

describe('ports of a MAP-E customer edge (RFC 7597 §5.1)', () => {
  const portsOf = (set: unknown) =>
    parseConfig(
      `ports:\n  wan: { zone: wan, addresses: 203.0.113.1/24 }\nnat: { masquerade: [{ out: wan, ports: ${JSON.stringify(set)} }] }\n`,
      'test',
      { memory: 2 ** 33 },
    ).nat.masquerade[0].ports;

  it('appendix A: offset 6, length 8, PSID 0x34: 63 ranges of four', () => {
    const ports = portsOf({ 'psid-offset': 6, 'psid-length': 8, psid: 0x34 });
    expect(ports).toHaveLength(63);
    expect(ports.slice(0, 3)).toEqual([
      [1232, 1235],
      [2256, 2259],
      [3280, 3283],
    ]);
    expect(ports.at(-1)).toEqual([64720, 64723]);
  });

  it('every port from 1024 on belongs to exactly one PSID', () => {
    const owners = new Uint8Array(65536);
    for (let psid = 0; psid < 16; psid++)
      for (const [low, high] of portsOf({ 'psid-offset': 6, 'psid-length': 4, psid }))
        for (let port = low; port <= high; port++) owners[port]++;
    expect(owners.subarray(0, 1024).every((count) => count === 0)).toBe(true);
    expect(owners.subarray(1024).every((count) => count === 1)).toBe(true);
  });

  it('offset 0: one range', () => {
    expect(portsOf({ 'psid-offset': 0, 'psid-length': 2, psid: 3 })).toEqual([[49152, 65535]]);
  });

  it('refuses what is no set', () => {
    for (const set of [
      { 'psid-length': 8 },
      { 'psid-length': 4, psid: 16 },
      { 'psid-length': 12, psid: 0, 'psid-offset': 6 },
    ])
      expect(() => portsOf(set)).toThrow(/psid-offset 0 to 15/);
  });

  it('a list of ranges is put in order and joined', () => {
    expect(portsOf(['3000-4000', 2000, '2001-2999'])).toEqual([[2000, 4000]]);
  });
});
