/** The Internet checksum against RFC 1071's and RFC 1624's examples and a naive reference. */
import { describe, expect, test } from 'vitest';
import { swap16 } from '../../../dataplane/wire/bytes.ts';
import { complement, pseudo4, pseudo6, sum16 } from '../../../dataplane/wire/checksum.ts';
import { adjust, delta, fold, sumRange } from '../../../dataplane/wire/sum.ts';
import { checksum, concat, hex, ip, pseudoHeader, Random } from '../../lib/build.ts';

/** Four raw words of an address. */
function words(address: string): number[] {
  const bytes = ip(address);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return Array.from({ length: bytes.length / 4 }, (_, n) => view.getInt32(4 * n, true));
}

describe('RFC 1071', () => {
  test('§3: the example sums to ddf2', () => {
    const u8 = hex('00 01 f2 03 f4 f5 f6 f7');
    expect(swap16(sum16(u8, 0, 8))).toBe(0xddf2);
    expect(swap16(complement(sum16(u8, 0, 8)))).toBe(0x220d);
  });

  test('a header from RFC-era captures: 45 00 00 73 ... has b861', () => {
    const u8 = hex('4500 0073 0000 4000 4011 0000 c0a80001 c0a800c7');
    expect(swap16(complement(sum16(u8, 0, 20)))).toBe(0xb861);
    u8.set(hex('b861'), 10);
    expect(sum16(u8, 0, 20)).toBe(0xffff);
  });

  test('both sums agree with the reference at every alignment and length that they take', () => {
    const random = new Random(1071);
    const u8 = random.bytes(4096);
    const u16 = new Uint16Array(u8.buffer);
    const i32 = new Int32Array(u8.buffer);
    for (let round = 0; round < 3000; round++) {
      const from = random.int(0, 64);
      const to = from + random.int(0, round % 10 === 0 ? 4000 : 90);
      const initial = random.int(0, 0xffff);
      const lead = Uint8Array.of(initial & 0xff, initial >> 8);
      const expected = ~checksum(lead, u8.subarray(from, to)) & 0xffff;
      expect(swap16(sum16(u8, from, to, initial))).toBe(expected);
      if (from % 2 === 0) expect(swap16(fold(sumRange(u16, i32, u8, from, to, initial)))).toBe(expected);
    }
  });

  test('64 KiB of ones do not overflow', () => {
    const u8 = new Uint8Array(65536).fill(0xff);
    expect(sum16(u8, 0, 65536, 0xffff)).toBe(0xffff);
    const u16 = new Uint16Array(u8.buffer);
    const i32 = new Int32Array(u8.buffer);
    expect(fold(sumRange(u16, i32, u8, 0, 65536, 0xffff))).toBe(0xffff);
    expect(fold(sumRange(u16, i32, u8, 0, 65535, 0xffff))).toBe(swap16(~checksum(u8.subarray(0, 65535)) & 0xffff));
  });

  test('§2 (B): a word at an odd offset counts swapped', () => {
    const u8 = hex('00 12 34 00');
    expect(sum16(u8, 0, 4)).toBe(swap16(sum16(u8, 1, 3)));
  });
});

describe('pseudo-headers', () => {
  test('RFC 9293 §3.1 and RFC 8200 §8.1, random addresses and lengths', () => {
    const random = new Random(9293);
    for (let round = 0; round < 500; round++) {
      const length = random.int(0, 65535);
      const proto = random.int(0, 255);
      const a4 = random.bytes(8);
      const v4 = new DataView(a4.buffer);
      const header4 = pseudoHeader(a4.subarray(0, 4), a4.subarray(4), proto, length);
      expect(pseudo4(v4.getInt32(0, true), v4.getInt32(4, true), proto, length)).toBe(sum16(header4, 0, 12));
      const a6 = random.bytes(32);
      const v6 = new DataView(a6.buffer);
      const w = Array.from({ length: 8 }, (_, n) => v6.getInt32(4 * n, true));
      const long = random.int(0, 0xfffff);
      const header6 = pseudoHeader(a6.subarray(0, 16), a6.subarray(16), proto, long);
      expect(pseudo6(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], proto, long)).toBe(sum16(header6, 0, 40));
    }
  });
});

describe('RFC 1624', () => {
  test('§4: the example that RFC 1141 gets wrong: HC dd2f, m 5555 to 3285 gives 0000', () => {
    expect(swap16(adjust(swap16(0xdd2f), delta(swap16(0x5555), swap16(0x3285))))).toBe(0x0000);
  });

  test('an update gives what computing anew gives, 16 and 32 bits, several fields in one change', () => {
    const random = new Random(1624);
    for (let round = 0; round < 3000; round++) {
      const u8 = random.bytes(60);
      const view = new DataView(u8.buffer);
      if (round % 5 === 0) u8.fill(round % 2 ? 0xff : 0, 0, 40);
      u8[59] = 1; // the last word is never edited, so the sum is never zero (the case without a unique answer)
      const before = complement(sum16(u8, 0, 60));
      let change = 0;
      for (let edits = random.int(1, 4); edits > 0; edits--) {
        const at = 4 * random.int(0, 13);
        const value = random.chance(0.2) ? 0 : random.next() | 0;
        if (random.chance(0.5)) {
          change += delta(view.getInt32(at, true), value);
          view.setInt32(at, value, true);
        } else {
          change += delta(view.getUint16(at, true), value & 0xffff);
          view.setUint16(at, value & 0xffff, true);
        }
      }
      expect(adjust(before, change)).toBe(complement(sum16(u8, 0, 60)));
    }
  });

  test('NAT of a UDP datagram: address and port, and the partial checksum of a segment yet to be summed', () => {
    const random = new Random(768);
    const [old] = words('192.168.1.10');
    const [outside] = words('203.0.113.1');
    const [server] = words('198.51.100.7');
    for (let round = 0; round < 2000; round++) {
      const port = random.int(0, 0xffff);
      const newPort = random.int(0, 0xffff);
      const body = random.bytes(20);
      const sum = (src: number, p: number) => {
        const u8 = concat(Uint8Array.of(p & 0xff, p >> 8), body);
        return sum16(u8, 0, u8.length, pseudo4(src, server, 17, 22));
      };
      const field = (s: number) => complement(s) || 0xffff;
      const updated = adjust(field(sum(old, port)), delta(old, outside) + delta(port, newPort)) || 0xffff;
      expect(updated).toBe(field(sum(outside, newPort)));
    }
    // A partial checksum is the pseudo-header's sum itself: what its addresses change is added.
    const partial = fold(pseudo4(old, server, 6, 1000) + delta(old, outside));
    expect(partial).toBe(pseudo4(outside, server, 6, 1000));
  });

  test('a result of zero is one (UDP sends it as all ones), and all ones is updated as zero', () => {
    // ~check + change = ffff makes the new checksum 0.
    expect(adjust(0x1234, 0x1234)).toBe(0);
    expect(adjust(0xffff, 0x0001)).toBe(0xfffe);
  });
});
