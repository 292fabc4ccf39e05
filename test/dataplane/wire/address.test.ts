/** Addresses: text to raw words and back, RFC 4291 input, RFC 5952 output, and what must be refused. */

import { isIPv4, isIPv6 } from 'node:net';
import { describe, expect, it } from 'vitest';
import {
  addressBytes,
  addressFromBytes,
  formatAddress,
  formatCidr,
  formatIpv4,
  formatIpv6,
  formatMac,
  inPrefix,
  macBytes,
  macFromBytes,
  maskWords,
  networkWords,
  parseAddress,
  parseCidr,
  parseIpv4,
  parseIpv6,
  parseMac,
} from '../../../dataplane/wire/address.ts';
import { Random } from '../../lib/build.ts';

/** mulberry32: a small seeded generator, so that a failure can be repeated. */
function random(seed: number): () => number {
  const numbers = new Random(seed);
  return () => numbers.next() / 0x100000000;
}

const canonical = (text: string) => {
  const words = parseIpv6(text);
  return words === null ? null : formatIpv6(...(words as [number, number, number, number]));
};

describe('IPv4', () => {
  it('is the little-endian load of the bytes on the wire', () => {
    expect(parseIpv4('192.168.1.1')).toBe(0x0101a8c0);
    expect(parseIpv4('1.2.3.200')).toBe(0xc8030201 | 0);
    expect(formatIpv4(0xc8030201 | 0)).toBe('1.2.3.200');
    const words = parseAddress('255.255.255.255');
    expect(words).toEqual({ family: 4, words: [-1, 0, 0, 0] });
  });

  it.each(['01.2.3.4', '1.2.3', '1.2.3.4.5', '1.2.3.256', '1.2.3.', '.1.2.3', '1.2.3.4 ', ' 1.2.3.4', '1.2.3.-4'])(
    'rejects %j',
    (text) => expect(parseAddress(text)).toBeNull(),
  );
  it.each(['', '1', '0x7f.0.0.1', '1..2.3', '1.2.3.4/24', '１.2.3.4', '1.2.3.4\n', '1e1.2.3.4', '00.0.0.0'])(
    'rejects %j',
    (text) => expect(parseAddress(text)).toBeNull(),
  );
});

describe('IPv6 input, RFC 4291 §2.2', () => {
  it('reads the examples of the RFC', () => {
    // §2.2 items 1, 2 and 3.
    expect(canonical('ABCD:EF01:2345:6789:ABCD:EF01:2345:6789')).toBe('abcd:ef01:2345:6789:abcd:ef01:2345:6789');
    expect(canonical('2001:DB8:0:0:8:800:200C:417A')).toBe('2001:db8::8:800:200c:417a');
    expect(canonical('FF01::101')).toBe('ff01::101');
    expect(canonical('::1')).toBe('::1');
    expect(canonical('::')).toBe('::');
    expect(parseIpv6('::13.1.68.3')).toEqual([0, 0, 0, 0x0344010d]);
    expect(parseIpv6('0:0:0:0:0:FFFF:129.144.52.38')).toEqual([0, 0, 0xffff0000 | 0, 0x26349081]);
    expect(parseIpv6('2001:db8::1')).toEqual([0xb80d0120 | 0, 0, 0, 0x01000000]);
  });

  it.each([
    ':',
    ':::',
    '::1::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8:9',
    '1:2:3:4:5:6:7:8::',
    '::1:2:3:4:5:6:7:8',
    '12345::',
    'g::',
    '1:',
    ':1',
    '1::2:',
    ':1::2',
    '::1.2.3',
    '::01.2.3.4',
    '::1.2.3.4:5',
    '1.2.3.4::',
    '1:2:3:4:5:6:7:1.2.3.4',
    'fe80::1%wan',
    '::1/64',
    ' ::1',
    '::1\n',
    '-1::',
    '0x1::',
  ])('rejects %j', (text) => expect(parseAddress(text)).toBeNull());
});

describe('IPv6 output, RFC 5952', () => {
  it.each([
    ['2001:0db8::0001', '2001:db8::1'], // §4.1
    ['2001:db8:0:0:0:0:2:1', '2001:db8::2:1'], // §4.2.1
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'], // §4.2.2
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'], // §4.2.3, the longest run
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'], // §4.2.3, the first of equals
    ['2001:DB8::AAAA', '2001:db8::aaaa'], // §4.3
    ['::ffff:c000:0201', '::ffff:192.0.2.1'], // §5
    ['1:0:0:0:0:0:0:0', '1::'],
    ['0:0:1:0:0:0:0:0', '0:0:1::'],
    ['0:1:2:3:4:5:6:7', '0:1:2:3:4:5:6:7'],
  ])('%s is %s', (input, output) => expect(canonical(input)).toBe(output));

  it('round-trips, and agrees with the URL parser of the platform on the compression', () => {
    const next = random(5952);
    for (let n = 0; n < 3000; n++) {
      const bytes = new Uint8Array(16);
      for (let b = 0; b < 16; b += 2) {
        if (next() < 0.5) continue; // many zero groups
        bytes[b] = next() < 0.5 ? 0 : next() * 256;
        bytes[b + 1] = next() * 256;
      }
      const words = addressFromBytes(6, bytes);
      const text = formatIpv6(...words);
      expect(parseIpv6(text)).toEqual(words);
      expect(addressBytes(6, words)).toEqual(bytes);
      // WHATWG URL serialises by the same rules, without mixed notation.
      if (!text.includes('.')) expect(new URL(`http://[${text}]/`).hostname).toBe(`[${text}]`);
    }
  });
});

describe('parsers against the platform', () => {
  it('accepts exactly what node:net accepts, over mutated addresses', () => {
    const next = random(4291);
    const seeds = ['192.168.1.254', '2001:db8::1:2', '::ffff:10.0.0.1', '1:2:3:4:5:6:7:8', 'fe80::', '0.0.0.0'];
    const letters = '0123456789abcdefF:.::..g';
    for (let n = 0; n < 20000; n++) {
      let text = seeds[Math.floor(next() * seeds.length)];
      for (let edits = Math.floor(next() * 4); edits > 0; edits--) {
        const at = Math.floor(next() * (text.length + 1));
        const letter = letters[Math.floor(next() * letters.length)];
        const kind = next();
        if (kind < 0.4) text = text.slice(0, at) + letter + text.slice(at);
        else if (kind < 0.7) text = text.slice(0, at) + text.slice(at + 1);
        else text = text.slice(0, at) + letter + text.slice(at + 1);
      }
      expect([text, parseIpv4(text) !== null]).toEqual([text, isIPv4(text)]);
      expect([text, parseIpv6(text) !== null]).toEqual([text, isIPv6(text)]);
    }
  });
});

describe('CIDR and masks', () => {
  it('keeps host bits', () => {
    expect(parseCidr('192.168.1.1/24')).toEqual({ family: 4, words: [0x0101a8c0, 0, 0, 0], prefixLength: 24 });
    expect(formatCidr(6, parseIpv6('2001:db8::5')!, 64)).toBe('2001:db8::5/64');
  });

  it.each([
    '1.2.3.4',
    '1.2.3.4/',
    '1.2.3.4/33',
    '1.2.3.4/024',
    '1.2.3.4/-1',
    '::/129',
    '::/1/2',
    '::/+1',
    '/0',
    '1.2.3.4/ 8',
  ])('rejects %j', (text) => expect(parseCidr(text)).toBeNull());

  it('masks in the byte order of the wire', () => {
    expect(maskWords(4, 24)).toEqual([0x00ffffff, 0, 0, 0]);
    expect(addressBytes(4, maskWords(4, 20))).toEqual(Uint8Array.of(255, 255, 240, 0));
    expect(maskWords(4, 0)).toEqual([0, 0, 0, 0]);
    expect(maskWords(6, 128)).toEqual([-1, -1, -1, -1]);
    expect(formatAddress(6, ...networkWords(6, parseIpv6('2001:db8:ffff:ffff::1')!, 45))).toBe('2001:db8:fff8::');
    expect(formatAddress(4, ...networkWords(4, [parseIpv4('10.1.2.255')!, 0, 0, 0], 25))).toBe('10.1.2.128');
  });

  it('tells members of a prefix, bit by bit', () => {
    const next = random(7);
    for (let n = 0; n < 2000; n++) {
      const family = next() < 0.5 ? 4 : 6;
      const bits = family === 4 ? 32 : 128;
      const bytes = new Uint8Array(bits / 8).map(() => next() * 256);
      const prefixLength = Math.floor(next() * (bits + 1));
      const flipped = Math.floor(next() * bits);
      const other = bytes.slice();
      other[flipped >> 3] ^= 0x80 >> (flipped & 7);
      const prefix = { family, words: addressFromBytes(family, bytes), prefixLength } as const;
      expect(inPrefix(addressFromBytes(family, other), prefix as never)).toBe(flipped >= prefixLength);
    }
  });
});

describe('MAC', () => {
  it('is the first four bytes and the last two', () => {
    expect(parseMac('02:00:00:00:01:FE')).toEqual({ lo: 2, hi: 0xfe01 });
    expect(parseMac('de-ad-be-ef-00-01')).toEqual({ lo: 0xefbeadde | 0, hi: 0x0100 });
    expect(formatMac(0xefbeadde | 0, 0x0100)).toBe('de:ad:be:ef:00:01');
    expect(macBytes(0xefbeadde | 0, 0x0100)).toEqual(Uint8Array.of(0xde, 0xad, 0xbe, 0xef, 0, 1));
    expect(macFromBytes(Uint8Array.of(9, 0xde, 0xad, 0xbe, 0xef, 0, 1), 1)).toEqual({ lo: 0xefbeadde | 0, hi: 0x0100 });
  });

  it.each([
    '',
    '02:00:00:00:01',
    '02:00:00:00:01:02:03',
    '2:0:0:0:1:2',
    '02:00-00:00:01:02',
    '020000000102',
    'g2:00:00:00:01:02',
  ])('rejects %j', (text) => expect(parseMac(text)).toBeNull());
});
