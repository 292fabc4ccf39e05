/** Bindings against a naive list: random bindings come and go, and every lookup agrees. */
import { expect, test } from 'vitest';
import { eui64 } from '../../controlplane/ra/identifiers.ts';
import { type Binding, BindingTable, BindingWriter, MAX_KINDS } from '../../dataplane/bindings.ts';
import { inPrefix, networkWords, type Words } from '../../dataplane/wire/address.ts';
import { Random } from '../lib/build.ts';

const LENGTHS = { 4: [32, 24, 0], 6: [128, 64, 60, 56, 10] } as const;

function table(bindings: number): BindingTable {
  return new BindingTable(new SharedArrayBuffer(BindingTable.bytes(bindings)));
}

test('agrees with a list, whatever comes and goes', () => {
  const random = new Random(7);
  const pick = <T>(list: readonly T[]): T => list[random.int(0, list.length - 1)];
  // Few values, so that prefixes overlap and chains of the hash are long.
  const words = (family: 4 | 6): Words =>
    family === 4
      ? [0x0a | (random.int(0, 2) << 24), 0, 0, 0]
      : [0xb80d0120 | 0, random.int(0, 2) << 24, random.int(0, 1), random.int(0, 3) << 24];
  const macs = [1, 2, 3].map((n) => ({ lo: 0x02 | (n << 24), hi: n }));
  const bindings = table(64);
  const writer = new BindingWriter(bindings);
  const known: Binding[] = [];
  for (let round = 0; round < 4000; round++) {
    const family = pick([4, 6] as const);
    if (known.length < 40 && random.int(0, 1) === 0) {
      const prefixLength = pick<number>(LENGTHS[family]);
      const made = family === 6 && prefixLength <= 64 && random.int(0, 2) === 0;
      const network = networkWords(family, words(family), prefixLength);
      const binding = {
        port: random.int(0, 2),
        family,
        words: network,
        prefixLength,
        mac: made ? null : pick(macs),
      };
      expect(writer.add(binding)).toBeNull();
      if (!known.some((other) => JSON.stringify(other) === JSON.stringify(binding))) known.push(binding);
    } else if (known.length > 0 && random.int(0, 1) === 0) {
      const [gone] = known.splice(random.int(0, known.length - 1), 1);
      expect(writer.remove(gone)).toBe(true);
      expect(writer.remove(gone)).toBe(false);
    }
    const port = random.int(0, 2);
    const mac = pick(macs);
    let asked = words(family);
    if (family === 6 && random.int(0, 2) === 0) {
      const id = eui64(mac.lo, mac.hi);
      asked = [asked[0], asked[1], id[0], id[1]];
    }
    const expected = known.some((one) => {
      if (one.port !== port || one.family !== family || !inPrefix(asked, one)) return false;
      if (one.mac !== null) return one.mac.lo === mac.lo && one.mac.hi === mac.hi;
      const id = eui64(mac.lo, mac.hi);
      return asked[2] === id[0] && asked[3] === id[1];
    });
    expect(bindings.allows(port, family, ...(asked as [number, number, number, number]), mac.lo, mac.hi)).toBe(
      expected,
    );
  }
  expect(writer.size).toBe(known.length);
  // What was taken out leaves no trace: a table that is empty again finds an end at once.
  for (const one of known) writer.remove(one);
  const keys = bindings.words.slice(-bindings.records * 8).filter((_, n) => n % 8 === 0);
  expect(new Set(keys)).toEqual(new Set([0]));
});

test('a full table, and more prefix lengths than a port may have, are refused and change nothing', () => {
  const bindings = table(8);
  const writer = new BindingWriter(bindings);
  const mac = { lo: 2, hi: 0 };
  const one = (n: number, prefixLength = 128): Binding => ({
    port: 0,
    family: 6,
    words: [1, 0, 0, n],
    prefixLength,
    mac,
  });
  for (let n = 0; n < 8; n++) expect(writer.add(one(n))).toBeNull();
  expect(writer.add(one(8))).toBe('the table of bindings is full (8)');
  expect(writer.add(one(3))).toBeNull();
  expect(bindings.allows(0, 6, 1, 0, 0, 8, 2, 0)).toBe(false);
  expect(bindings.allows(0, 6, 1, 0, 0, 7, 2, 0)).toBe(true);

  const wide = new BindingWriter(table(64));
  for (let n = 0; n < MAX_KINDS; n++) expect(wide.add({ ...one(0, 32 + n), words: [0, 0, 0, 0] })).toBeNull();
  expect(wide.add({ ...one(0, 100), words: [0, 0, 0, 0] })).toBe('more than 15 prefix lengths on one port');
  expect(wide.add({ ...one(0, 100), words: [0, 0, 0, 0], port: 1 })).toBeNull();
});

test('a record that was taken out and made again looked the same to who was reading it: half of one MAC, half of another', () => {
  const bindings = table(8);
  const writer = new BindingWriter(bindings);
  const one: Binding = { port: 0, family: 4, words: [0x0a, 0, 0, 0], prefixLength: 32, mac: { lo: 1, hi: 1 } };
  // The port's list of prefix lengths comes before the records.
  const keyOfRecord = () => bindings.words.filter((word) => (word & 0xffffff) === (1 | (4 << 8) | (32 << 16))).at(-1)!;
  const seen = new Set<number>();
  for (let round = 0; round < 100; round++) {
    const mac = { lo: round, hi: round };
    expect(writer.add({ ...one, mac })).toBeNull();
    seen.add(keyOfRecord());
    expect(writer.remove({ ...one, mac })).toBe(true);
  }
  expect(seen.size).toBe(100);
});
