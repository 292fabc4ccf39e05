/** Capture reader: files built byte by byte, in both byte orders, whole, cut and damaged. */
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { LINKTYPE_LINUX_SLL2, LINKTYPE_NULL, LINKTYPE_RAW } from '../../../dataplane/ports/capture-link.ts';
import { CaptureError, CaptureReader, ethernetFrame, openCapture } from '../../../dataplane/ports/capture-reader.ts';

function bytes(...hex: string[]): Uint8Array {
  const digits = hex.join('').replace(/\s+/g, '');
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

interface Seen {
  frame: string;
  original: number;
  seconds: number;
  nanoseconds: number;
  interfaceId: number;
  linkType: number;
  comment: string;
}

function readAll(reader: CaptureReader): Seen[] {
  const seen: Seen[] = [];
  while (reader.next()) {
    expect(reader.offset + reader.capturedLength).toBeLessThanOrEqual(reader.data.length);
    seen.push({
      frame: Buffer.from(reader.data.subarray(reader.offset, reader.offset + reader.capturedLength)).toString('hex'),
      original: reader.originalLength,
      seconds: reader.seconds,
      nanoseconds: reader.nanoseconds,
      interfaceId: reader.interfaceId,
      linkType: reader.linkType,
      comment: reader.comment,
    });
  }
  return seen;
}

const read = (file: Uint8Array) => readAll(CaptureReader.fromBytes('vector', file));

// Two frames: 4 of 60 bytes at 1.000002(003) s, then 3 of 3 bytes at 0x5f000000 s.
const PCAP: Record<string, Uint8Array> = {
  'micro, little-endian': bytes(
    'd4c3b2a1 0200 0400 00000000 00000000 00000400 01000000',
    '01000000 02000000 04000000 3c000000 aabbccdd',
    '0000005f 3f420f00 03000000 03000000 010203',
  ),
  'micro, big-endian': bytes(
    'a1b2c3d4 0002 0004 00000000 00000000 00040000 00000001',
    '00000001 00000002 00000004 0000003c aabbccdd',
    '5f000000 000f423f 00000003 00000003 010203',
  ),
  'nano, little-endian': bytes(
    '4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000',
    '01000000 d0070000 04000000 3c000000 aabbccdd',
    '0000005f 18c69a3b 03000000 03000000 010203',
  ),
  'nano, big-endian': bytes(
    'a1b23c4d 0002 0004 00000000 00000000 00040000 00000001',
    '00000001 000007d0 00000004 0000003c aabbccdd',
    '5f000000 3b9ac618 00000003 00000003 010203',
  ),
  'modified, little-endian': bytes(
    '34cdb2a1 0200 0400 00000000 00000000 00000400 01000000',
    '01000000 02000000 04000000 3c000000 07000000 0800 00 00 aabbccdd',
    '0000005f 3f420f00 03000000 03000000 07000000 0800 04 00 010203',
  ),
  'version 2.2, lengths swapped': bytes(
    'a1b2c3d4 0002 0002 00000000 00000000 00040000 00000001',
    '00000001 00000002 0000003c 00000004 aabbccdd',
    '5f000000 000f423f 00000003 00000003 010203',
  ),
  'version 2.3, lengths in either order': bytes(
    'a1b2c3d4 0002 0003 00000000 00000000 00040000 00000001',
    '00000001 00000002 0000003c 00000004 aabbccdd',
    '5f000000 000f423f 00000003 00000003 010203',
  ),
};

describe('pcap', () => {
  test.each(Object.keys(PCAP))('%s', (kind) => {
    const seen = read(PCAP[kind]);
    expect(seen).toHaveLength(2);
    expect(seen[0]).toMatchObject({ frame: 'aabbccdd', original: 60, seconds: 1, nanoseconds: 2000, linkType: 1 });
    expect(seen[1]).toMatchObject({ frame: '010203', original: 3, seconds: 0x5f000000, nanoseconds: 999_999_000 });
  });

  test('a fraction of more than a second is carried', () => {
    const file = PCAP['micro, big-endian'].slice();
    file.set([0x00, 0x1e, 0x84, 0x83], 28); // 2 000 003 µs
    expect(read(file)[0]).toMatchObject({ seconds: 3, nanoseconds: 3000 });
  });

  test('the frame check sequence that the header announces is left out of the Ethernet frame', () => {
    const file = bytes(
      'a1b2c3d4 0002 0004 00000000 00000000 00040000 24000001', // FCS present, 2 × 16 bits
      '00000001 00000002 00000006 00000006 aabbccdddeed',
      '00000001 00000002 00000005 00000006 aabbccddde', // one byte of it is cut off already
    );
    const reader = CaptureReader.fromBytes('fcs', file);
    const out = new Uint8Array(32);
    expect(reader.next()).toBe(true);
    expect(reader.linkType).toBe(1);
    expect(ethernetFrame(reader, out, 0)).toBe(2);
    expect(reader.next()).toBe(true);
    expect(ethernetFrame(reader, out, 0)).toBe(2);
  });

  test('a frame beyond 256 KiB is a lost place, not a frame', () => {
    const file = new Uint8Array(24 + 16 + 300_000);
    file.set(PCAP['micro, big-endian'].subarray(0, 40));
    file.set([0x00, 0x04, 0x93, 0xe0], 32); // 300 000
    const reader = CaptureReader.fromBytes('long', file);
    expect(reader.next()).toBe(false);
    expect(reader.error).toMatchObject({ offset: 24, got: '300000' });
  });

  test('rewind starts again', () => {
    const reader = CaptureReader.fromBytes('again', PCAP['nano, big-endian']);
    const first = readAll(reader);
    reader.rewind();
    expect(readAll(reader)).toEqual(first);
    expect(reader.interfaces).toHaveLength(1);
  });
});

// Section 1: interfaces "a" (µs by default, snap length 4) and "b" (ns, raw IP); section 2: interface "c" (2^-10 s).
const NG_LITTLE = bytes(
  '0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000',
  '01000000 20000000 0100 0000 04000000 0200 0100 61000000 0000 0000 20000000',
  '01000000 28000000 6500 0000 00000000 0200 0100 62000000 0900 0100 09000000 0000 0000 28000000',
  // Enhanced, interface 1, 2^32 + 1 ns, 3 of 9 bytes, comments "hi" and "zwei", flags outbound, packet id 0x100000002.
  '06000000 4c000000 01000000 01000000 01000000 03000000 09000000 01020300',
  '0100 0200 68690000 0200 0400 02000000 0500 0800 02000000 01000000 0100 0400 7a776569 0000 0000 4c000000',
  // Simple, 6 bytes on the wire, 4 kept by the snap length.
  '03000000 14000000 06000000 a1a2a3a4 14000000',
  // Name resolution block, skipped.
  '04000000 10000000 00000000 10000000',
  // Obsolete packet block, interface 0, drops 7, 1 000 001 µs.
  '02000000 24000000 0000 0700 00000000 41420f00 01000000 01000000 ff000000 24000000',
);
const NG_BIG = bytes(
  '0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c',
  // "c": 2^-10 s, offset −1 s.
  '00000001 00000034 0001 0000 00000000 0002 0001 63000000 0009 0001 8a000000 000e 0008 ffffffffffffffff 0000 0000',
  '00000034',
  '00000006 00000024 00000000 00000000 00000e00 00000002 00000002 beef0000 00000024',
);
const NG = bytes(Buffer.from(NG_LITTLE).toString('hex'), Buffer.from(NG_BIG).toString('hex'));

describe('pcapng', () => {
  test('two sections of opposite byte order, three interfaces, all packet blocks', () => {
    const reader = CaptureReader.fromBytes('vector', NG);
    expect(readAll(reader)).toEqual([
      {
        frame: '010203',
        original: 9,
        seconds: 4,
        nanoseconds: 294967297,
        interfaceId: 1,
        linkType: 101,
        comment: 'hi\nzwei',
      },
      {
        frame: 'a1a2a3a4',
        original: 6,
        seconds: 4, // a Simple Packet Block has no time
        nanoseconds: 294967297,
        interfaceId: 0,
        linkType: 1,
        comment: '',
      },
      { frame: 'ff', original: 1, seconds: 1, nanoseconds: 1000, interfaceId: 0, linkType: 1, comment: '' },
      // 0xe00 / 1024 = 3.5 s, minus one.
      { frame: 'beef', original: 2, seconds: 2, nanoseconds: 500_000_000, interfaceId: 2, linkType: 1, comment: '' },
    ]);
    expect(reader.error).toBeNull();
    expect(reader.interfaces.map((one) => one.name)).toEqual(['a', 'b', 'c']);
    expect(reader.interfaces.map((one) => one.unitsPerSecond)).toEqual([1e6, 1e9, 1024]);
  });

  test('flags and packet id are read in both byte orders, and do not stick to the next frame', () => {
    const reader = CaptureReader.fromBytes('vector', NG);
    reader.next();
    expect([reader.flags, reader.packetIdHigh, reader.packetIdLow]).toEqual([2, 1, 2]);
    reader.next();
    expect([reader.flags, reader.packetIdHigh, reader.packetIdLow]).toEqual([0, 0, 0]);
    const big = bytes(
      '0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c',
      '00000001 00000014 0001 0000 00000000 00000014',
      '00000006 00000034 00000000 00000000 00000000 00000000 00000000',
      '0002 0004 00000001 0005 0008 00000003 00000004 00000034',
    );
    const other = CaptureReader.fromBytes('big', big);
    expect(other.next()).toBe(true);
    expect([other.flags, other.packetIdHigh, other.packetIdLow]).toEqual([1, 3, 4]);
  });

  test('time stamps of every resolution are split exactly', () => {
    const header = '0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c';
    let state = 7;
    const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
    for (let resolution = 0; resolution < 256; resolution++) {
      const byte = resolution.toString(16).padStart(2, '0');
      const high = random();
      const low = random();
      const hex = (word: number) => word.toString(16).padStart(8, '0');
      const file = bytes(
        header,
        `00000001 00000020 0001 0000 00000000 0009 0001 ${byte}000000 0000 0000 00000020`,
        `00000006 00000020 00000000 ${hex(high)} ${hex(low)} 00000000 00000000 00000020`,
      );
      const stamp = (BigInt(high) << 32n) | BigInt(low);
      const units = resolution < 128 ? 10n ** BigInt(resolution) : 2n ** BigInt(resolution - 128);
      const [seen] = read(file);
      expect(seen.seconds).toBe(Number(stamp / units));
      expect(seen.nanoseconds).toBe(Number(((stamp % units) * 1_000_000_000n) / units));
    }
  });

  test.each([
    ['an interface that was not declared', 8, '02000000', /one of the section's 2 interfaces, got interface 2/],
    ['a block length that is no multiple of 4', 4, '55000000', /multiple of 4, got 85/],
    ['a block length of 0, which would never end', 4, '00000000', /block length ≥ 12/],
    ['a block that is longer than the file', 4, 'f0ffffff', /a block of 4294967280 bytes/],
    ['a captured length one byte beyond its block', 20, '2d000000', /at most the 44 bytes of its block, got 45/],
    ['a captured length beyond its block', 20, 'ffff0000', /got 65535/],
    ['a captured length that is negative as int32', 20, 'ffffffff', /got 4294967295/],
  ])('%s is an error at its place', (_what, at, word, message) => {
    const start = 28 + 32 + 40; // the Enhanced Packet Block
    const file = NG_LITTLE.slice();
    file.set(bytes(word), start + at);
    const reader = CaptureReader.fromBytes('x.pcapng', file);
    expect(reader.next()).toBe(false);
    expect(reader.error).toBeInstanceOf(CaptureError);
    expect(reader.error?.message).toMatch(message);
    expect(reader.error?.message).toMatch(/^x\.pcapng: at byte \d+: expected /);
    expect(reader.error?.offset).toBeGreaterThanOrEqual(start);
    expect(reader.next()).toBe(false);
  });

  test('the trailing length must repeat the leading one', () => {
    const file = NG_LITTLE.slice();
    file[24] = 0x20;
    const reader = CaptureReader.fromBytes('x', file);
    expect(reader.next()).toBe(false);
    expect(reader.error).toMatchObject({ offset: 24, expected: 'the block length 28 again', got: '32' });
  });

  test('a Simple Packet Block holds no more than its block either', () => {
    const start = 28 + 32 + 40 + 76;
    const file = NG_LITTLE.slice();
    file[28 + 12] = 5; // the snap length, which decides what is captured: 5 bytes, where the block has 4
    const reader = CaptureReader.fromBytes('x', file);
    expect(reader.next()).toBe(true);
    expect(reader.next()).toBe(false);
    expect(reader.error).toMatchObject({ offset: start + 8, got: '5' });
  });

  test('an option that overruns its block costs the options, not the frame', () => {
    const file = NG_LITTLE.slice();
    file[28 + 32 + 40 + 28 + 4 + 2] = 0xff; // length of the first comment
    const seen = read(file);
    expect(seen).toHaveLength(3);
    expect(seen[0]).toMatchObject({ frame: '010203', comment: '' });
  });

  test('declares at most 65536 interfaces', () => {
    const one = bytes('01000000 14000000 0100 0000 00000000 14000000');
    const file = new Uint8Array(28 + one.length * 70000);
    file.set(NG_LITTLE.subarray(0, 28));
    for (let at = 28; at < file.length; at += one.length) file.set(one, at);
    const reader = CaptureReader.fromBytes('many', file);
    expect(reader.next()).toBe(false);
    expect(reader.error?.expected).toMatch(/65536 interfaces/);
  });
});

describe('broken files', () => {
  const files: [string, Uint8Array][] = [...Object.entries(PCAP), ['pcapng', NG]];

  test.each(files)(
    '%s, cut at every byte: everything before is delivered, then an error or a clean end',
    (_k, file) => {
      const whole = read(file);
      for (let length = 0; length < file.length; length++) {
        // An exact copy: reading outside would throw a RangeError or find no stale bytes.
        const reader = CaptureReader.fromBytes('cut', file.slice(0, length));
        const seen = readAll(reader);
        expect(seen).toEqual(whole.slice(0, seen.length));
        expect(reader.frames).toBe(seen.length);
        if (reader.error !== null) expect(reader.error.offset).toBeLessThanOrEqual(length);
      }
      const missing = CaptureReader.fromBytes('cut', file.slice(0, file.length - 1));
      expect(readAll(missing)).toHaveLength(whole.length - 1);
      expect(missing.error).not.toBeNull();
    },
  );

  test.each(files)('%s, with random damage: no exception, no frame outside the file', (_kind, file) => {
    let state = 12345;
    const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
    const out = new Uint8Array(64);
    for (let round = 0; round < 3000; round++) {
      const damaged = file.slice();
      for (let n = 1 + (random() % 4); n > 0; n--) damaged[random() % file.length] = random() & 0xff;
      const reader = CaptureReader.fromBytes('damaged', damaged);
      let frames = 0;
      while (reader.next()) {
        expect(++frames).toBeLessThan(file.length);
        expect(reader.offset).toBeGreaterThan(0);
        expect(reader.offset + reader.capturedLength).toBeLessThanOrEqual(damaged.length);
        expect(reader.nanoseconds).toBeGreaterThanOrEqual(0);
        expect(reader.nanoseconds).toBeLessThan(1e9);
        expect(typeof reader.comment).toBe('string');
        expect(ethernetFrame(reader, out, 10)).toBeLessThanOrEqual(54);
      }
    }
  });

  test.each([
    ['', 'an empty file'],
    ['0102', '2 bytes'],
    ['474946383961', '0x47494638'],
    ['a1b2c3d4 0007 0004 00000000 00000000 00040000 00000001', 'version 7.4'],
    ['0a0d0d0a 0000001c deadbeef 0001 0000 ffffffffffffffff 0000001c', '0xdeadbeef'],
    ['0a0d0d0a 0000001c 1a2b3c4d 0002 0000 ffffffffffffffff 0000001c', 'version 2'],
  ])('%s is refused: got %s', (hex, got) => {
    const reader = CaptureReader.fromBytes('junk', bytes(hex));
    expect(reader.next()).toBe(false);
    expect(reader.error?.got).toBe(got);
  });

  test('a file that is not there throws, with its name', () => {
    expect(() => openCapture('/nonexistent/x.pcap')).toThrow(/^\/nonexistent\/x\.pcap: at byte 0: expected .*ENOENT/);
  });

  test('a device that never ends is read up to the limit only', () => {
    expect(() => openCapture('/dev/zero', { limit: 100_000 })).toThrow(/at most 100000 bytes/);
  });
});

describe('gzip', () => {
  const plain = PCAP['nano, little-endian'];
  const frames = read(plain);

  test('is transparent, also in several members', () => {
    expect(read(gzipSync(plain))).toEqual(frames);
    const members = [plain.subarray(0, 30), plain.subarray(30, 31), plain.subarray(31)].map((part) => gzipSync(part));
    expect(read(Buffer.concat(members))).toEqual(frames);
  });

  test('cut at every byte: a prefix of the frames, and an error', () => {
    const zipped = gzipSync(plain);
    for (let length = 2; length < zipped.length; length++) {
      const reader = CaptureReader.fromBytes('cut.gz', zipped.subarray(0, length));
      const seen = readAll(reader);
      expect(seen).toEqual(frames.slice(0, seen.length));
      expect(reader.error?.expected).toBe('sound gzip data');
    }
  });

  test('damage in a later member leaves what comes before it', () => {
    const second = gzipSync(plain.subarray(24));
    const file = Buffer.concat([gzipSync(plain), second]);
    file[file.length - 6] ^= 1; // the CRC of the second member
    const reader = CaptureReader.fromBytes('crc.gz', file);
    const seen = readAll(reader);
    expect(seen.slice(0, 2)).toEqual(frames);
    expect(seen.length).toBeGreaterThanOrEqual(2);
    expect(reader.error?.got).toMatch(/incorrect data check/);
  });

  test('a bomb is refused at the limit', () => {
    const bomb = gzipSync(new Uint8Array(4 << 20));
    expect(bomb.length).toBeLessThan(10_000);
    const reader = CaptureReader.fromBytes('bomb.gz', bomb, { limit: 1 << 20 });
    expect(reader.next()).toBe(false);
    expect(reader.data).toHaveLength(0);
    expect(reader.error?.message).toMatch(/at most 1048576 bytes of capture, got more; split it/);
  });
});

describe('ethernetFrame', () => {
  const V4 = '45000014';
  const V6 = '60000000';
  const NONE = '020000000000 020000000000';

  function convert(linkType: number, payload: string, room = 64): string | number {
    const data = bytes(payload);
    const word = (n: number) => n.toString(16).padStart(8, '0');
    const file = bytes(
      'a1b2c3d4 0002 0004 00000000 00000000 00040000',
      word(linkType),
      '00000000 00000000',
      word(data.length),
      word(data.length),
      payload,
    );
    const reader = CaptureReader.fromBytes('link', file);
    expect(reader.next()).toBe(true);
    const out = new Uint8Array(room).fill(0xee);
    const length = ethernetFrame(reader, out, 3);
    if (length < 0) return length;
    expect([...out.subarray(0, 3)]).toEqual([0xee, 0xee, 0xee]);
    if (3 + length < room) expect(out[3 + length]).toBe(0xee);
    return Buffer.from(out.subarray(3, 3 + length)).toString('hex');
  }

  const hex = (...parts: string[]) => parts.join('').replace(/\s+/g, '');

  test.each([
    ['raw IPv4', LINKTYPE_RAW, V4, hex(NONE, '0800', V4)],
    ['raw IPv6', LINKTYPE_RAW, V6, hex(NONE, '86dd', V6)],
    ['raw, 12', 12, V4, hex(NONE, '0800', V4)],
    ['raw, 14', 14, V6, hex(NONE, '86dd', V6)],
    ['null, little-endian', LINKTYPE_NULL, '02000000' + V4, hex(NONE, '0800', V4)],
    ['null, big-endian, Darwin', LINKTYPE_NULL, '0000001e' + V6, hex(NONE, '86dd', V6)],
    ['null, FreeBSD', LINKTYPE_NULL, '1c000000' + V6, hex(NONE, '86dd', V6)],
    ['loop, OpenBSD', 108, '00000018' + V6, hex(NONE, '86dd', V6)],
    ['cooked, incoming', 113, `0000 0001 0006 0a0b0c0d0e0f 0000 0800 ${V4}`, hex('020000000000 0a0b0c0d0e0f 0800', V4)],
    [
      'cooked, broadcast',
      113,
      `0001 0001 0006 0a0b0c0d0e0f 0000 0806 ${V4}`,
      hex('ffffffffffff 0a0b0c0d0e0f 0806', V4),
    ],
    ['cooked, no address', 113, `0000 0200 0000 0000000000000000 86dd ${V6}`, hex(NONE, '86dd', V6)],
    ['cooked, LLC', 113, '0000 0001 0006 0a0b0c0d0e0f 0000 0004 424203', hex('020000000000 0a0b0c0d0e0f 0003 424203')],
    [
      'cooked 2',
      LINKTYPE_LINUX_SLL2,
      `86dd 0000 00000005 0001 04 06 0a0b0c0d0e0f 0000 ${V6}`,
      hex('020000000000 0a0b0c0d0e0f 86dd', V6),
    ],
    ['Ethernet', 1, '112233445566 778899aabbcc 0800 45', '112233445566778899aabbcc080045'],
  ])('%s', (_name, linkType, payload, expected) => {
    expect(convert(linkType, hex(payload))).toBe(expected);
  });

  test.each([
    ['an unknown link type (802.11)', 105, '0000'],
    ['an unknown address family', LINKTYPE_NULL, '63000000' + V4],
    ['a raw packet that is no IP', LINKTYPE_RAW, '05'],
    ['an empty raw packet', LINKTYPE_RAW, ''],
    ['a cooked header that is cut', 113, '0000 0001 0006 0a0b0c0d0e0f 0000 08'],
    ['a netlink message', 113, '0000 0338 0000 0000000000000000 0000 00'],
    ['CAN', 113, '0000 0118 0000 0000000000000000 000c 00'],
  ])('%s gives −1', (_name, linkType, payload) => {
    expect(convert(linkType, hex(payload))).toBe(-1);
  });

  test('writes nothing where it has no room', () => {
    expect(convert(LINKTYPE_RAW, V4, 3 + 17)).toBe(-1);
    expect(convert(LINKTYPE_RAW, V4, 3 + 18)).not.toBe(-1);
    expect(convert(1, '0011223344', 3 + 4)).toBe(-1);
  });
});
