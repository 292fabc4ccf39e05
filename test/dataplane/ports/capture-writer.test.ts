/** Capture writer: exact bytes, what is written is read again, files and descriptors, targets that fail, Wireshark's view. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { CaptureReader, openCapture } from '../../../dataplane/ports/capture-reader.ts';
import {
  CaptureClock,
  CaptureWriter,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
} from '../../../dataplane/ports/capture-writer.ts';

const folder = mkdtempSync(join(tmpdir(), 'sluice-capture-'));
afterAll(() => rmSync(folder, { recursive: true }));

const FRAME = Uint8Array.of(0xff, 0xaa, 0xbb, 0xcc, 0xff);
const hex = (file: Uint8Array) => Buffer.from(file).toString('hex');
const squeeze = (...parts: string[]) => parts.join('').replace(/\s+/g, '');

function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * below);
  };
}

describe('exact bytes', () => {
  test('pcap, nanoseconds', () => {
    const writer = new CaptureWriter(null);
    writer.write(FRAME, 1, 3, 60, 0xfedcba98, 999_999_999);
    expect(hex(writer.toBytes())).toBe(
      squeeze('4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000', '98badcfe ffc99a3b 03000000 3c000000 aabbcc'),
    );
    expect(writer.bytes).toBe(24 + 16 + 3);
  });

  test('pcap, microseconds, cut to the snap length', () => {
    const writer = new CaptureWriter(null, { resolution: 'micro', snapLength: 2, linkType: 101 });
    writer.write(FRAME, 1, 3, 3, 1, 2999);
    expect(hex(writer.toBytes())).toBe(
      squeeze('d4c3b2a1 0200 0400 00000000 00000000 02000000 65000000', '01000000 02000000 02000000 03000000 aabb'),
    );
  });

  test('pcapng with everything', () => {
    const writer = new CaptureWriter(null, {
      format: 'pcapng',
      interfaces: ['lan'],
      hardware: 'x',
      userApplication: 'sluice',
    });
    expect(writer.addInterface('', 101)).toBe(1);
    // 2^32 + 2 ns
    writer.write(FRAME, 1, 3, 60, 4, 294_967_298, 1, DIRECTION_OUTBOUND, 4294967296 + 7, 'né');
    writer.write(FRAME, 0, 4, 4, 0, 1);
    expect(hex(writer.toBytes())).toBe(
      squeeze(
        '0a0d0d0a 34000000 4d3c2b1a 0100 0000 ffffffffffffffff',
        '0200 0100 78000000 0400 0600 736c756963650000 0000 0000 34000000',
        '01000000 28000000 0100 0000 00000400 0200 0300 6c616e00 0900 0100 09000000 0000 0000 28000000',
        '01000000 20000000 6500 0000 00000400 0900 0100 09000000 0000 0000 20000000',
        '06000000 44000000 01000000 01000000 02000000 03000000 3c000000 aabbcc00',
        '0200 0400 02000000 0500 0800 07000000 01000000 0100 0300 6ec3a900 0000 0000 44000000',
        '06000000 24000000 00000000 00000000 01000000 04000000 04000000 ffaabbcc 24000000',
      ),
    );
    expect(writer.bytes).toBe(writer.toBytes().length);
  });

  test('a frame on an interface that was never declared is dropped, and the file stays readable', () => {
    const writer = new CaptureWriter(null, { format: 'pcapng' });
    writer.write(FRAME, 0, 5, 5, 0, 0);
    expect([writer.frames, writer.dropped]).toEqual([0, 1]);
    const reader = CaptureReader.fromBytes('empty', writer.toBytes());
    expect(reader.next()).toBe(false);
    expect(reader.error).toBeNull();
  });
});

describe('what is written is read again', () => {
  test.each([
    ['pcap', 'nano'],
    ['pcap', 'micro'],
    ['pcapng', 'nano'],
  ] as const)('%s, %s', (format, resolution) => {
    const random = generator(42);
    const writer = new CaptureWriter(null, { format, resolution, interfaces: ['a', 'b', 'c'] });
    const noise = Uint8Array.from({ length: 70_000 }, () => random(256));
    const frames = Array.from({ length: 400 }, (_, index) => {
      const length = index % 50 === 0 ? random(70_000) : random(1600);
      const offset = random(noise.length - length + 1);
      return {
        offset,
        length,
        original: length + random(3),
        seconds: random(4294967296),
        nanoseconds: random(1e9),
        interfaceId: format === 'pcap' ? 0 : random(3),
        flags: random(3),
        packetId: random(2) === 0 ? -1 : random(2 ** 52),
        comment: random(3) === 0 ? 'dropped: CT_INVALID → état '.repeat(random(5)) : '',
      };
    });
    for (const f of frames) {
      const { offset, length, original, seconds, nanoseconds } = f;
      writer.write(
        noise,
        offset,
        length,
        original,
        seconds,
        nanoseconds,
        f.interfaceId,
        f.flags,
        f.packetId,
        f.comment,
      );
    }
    expect(writer.frames).toBe(400);
    const reader = CaptureReader.fromBytes('again', writer.toBytes());
    for (const f of frames) {
      expect(reader.next()).toBe(true);
      const frame = reader.data.subarray(reader.offset, reader.offset + reader.capturedLength);
      expect(Buffer.compare(frame, noise.subarray(f.offset, f.offset + f.length))).toBe(0);
      expect(reader.originalLength).toBe(f.original);
      expect(reader.seconds).toBe(f.seconds);
      expect(reader.nanoseconds).toBe(resolution === 'micro' ? f.nanoseconds - (f.nanoseconds % 1000) : f.nanoseconds);
      expect(reader.interfaceId).toBe(f.interfaceId);
      if (format === 'pcap') continue;
      expect(reader.flags).toBe(f.flags);
      expect(reader.packetIdHigh * 4294967296 + reader.packetIdLow).toBe(Math.max(0, f.packetId));
      expect(reader.comment).toBe(f.comment);
    }
    expect(reader.next()).toBe(false);
    expect(reader.error).toBeNull();
    expect(reader.interfaces.map((one) => one.name)).toEqual(format === 'pcap' ? [''] : ['a', 'b', 'c']);
  });

  test('a comment beyond 64 KiB is cut between characters', () => {
    const writer = new CaptureWriter(null, { format: 'pcapng', interfaces: ['a'] });
    writer.write(FRAME, 0, 5, 5, 0, 0, 0, 0, -1, 'é'.repeat(50_000));
    writer.write(FRAME, 0, 5, 5, 0, 1);
    const reader = CaptureReader.fromBytes('long', writer.toBytes());
    expect(reader.next()).toBe(true);
    expect(reader.comment).toBe('é'.repeat(32_766));
    expect(reader.next()).toBe(true);
  });
});

describe('targets', () => {
  function fill(writer: CaptureWriter, count: number): void {
    const frame = new Uint8Array(1500).fill(0x5a);
    for (let i = 0; i < count; i++) writer.write(frame, 0, 1500, 1500, i, i);
  }

  test('memory, a path and a descriptor get the same bytes, whatever the buffering', () => {
    const memory = new CaptureWriter(null);
    fill(memory, 1000);
    const path = join(folder, 'path.pcap');
    const file = new CaptureWriter(path);
    fill(file, 1000);
    expect(readFileSync(path).length).toBeGreaterThan(1_000_000); // the buffer is bounded
    file.close();
    file.close();
    const other = join(folder, 'descriptor.pcap');
    const descriptor = openSync(other, 'w');
    const handed = new CaptureWriter(descriptor);
    fill(handed, 1000);
    handed.close();
    expect(writeSync(descriptor, 'x')).toBe(1); // a descriptor that was handed in stays open
    closeSync(descriptor);
    expect(readFileSync(path).equals(memory.toBytes())).toBe(true);
    expect(readFileSync(other).subarray(0, -1).equals(memory.toBytes())).toBe(true);
    const reader = openCapture(path);
    while (reader.next());
    expect([reader.frames, reader.error]).toEqual([1000, null]);
  });

  test('frames after close are counted, not written', () => {
    const writer = new CaptureWriter(join(folder, 'closed.pcap'));
    writer.close();
    writer.write(FRAME, 0, 5, 5, 0, 0);
    expect([writer.frames, writer.dropped]).toEqual([0, 1]);
  });

  test('a capture that anybody could read: a new file is its owner’s alone, one that was there keeps its mode', () => {
    const [fresh, shared] = [join(folder, 'owner.pcap'), join(folder, 'shared.pcap')];
    writeFileSync(shared, '');
    chmodSync(shared, 0o644);
    for (const path of [fresh, shared]) new CaptureWriter(path).close();
    expect([fresh, shared].map((path) => statSync(path).mode & 0o777)).toEqual([0o600, 0o644]);
  });

  test('a path that cannot be created throws, with its name', () => {
    const path = join(folder, 'no', 'such', 'folder.pcap');
    expect(() => new CaptureWriter(path)).toThrow(`${path}: at byte 0: expected a file that can be written`);
  });

  test('a full disk sets the error once and never throws', (context) => {
    if (!existsSync('/dev/full')) return context.skip('no /dev/full here');
    const writer = new CaptureWriter('/dev/full');
    fill(writer, 1000);
    writer.close();
    expect(writer.error?.message).toMatch(/^\/dev\/full: at byte 0: expected room to write, got ENOSPC/);
    expect(writer.dropped).toBeGreaterThan(500);
  });
});

test("Wireshark shows interface, direction, packet id, comment and the time's last nanosecond", (context) => {
  if (spawnSync('tshark', ['--version']).status !== 0) return context.skip('tshark is not installed');
  const path = join(folder, 'wireshark.pcapng');
  const writer = new CaptureWriter(path, { format: 'pcapng', interfaces: ['lan', 'wan'], userApplication: 'sluice' });
  const frame = new Uint8Array(60);
  writer.write(frame, 0, 60, 60, 1_700_000_000, 123_456_789, 0, DIRECTION_INBOUND, 1, 'forward-filter: dropped');
  writer.write(frame, 0, 60, 60, 1_700_000_001, 1, 1, DIRECTION_OUTBOUND, 2);
  writer.close();
  const fields = ['interface_name', 'packet_flags_direction', 'packet_id', 'comment', 'time_epoch'];
  const shown = spawnSync(
    'tshark',
    ['-r', path, '-T', 'fields', '-E', 'separator=|', ...fields.flatMap((field) => ['-e', `frame.${field}`])],
    { encoding: 'utf8' },
  );
  const lines = shown.stdout.trim().split('\n');
  expect(lines[0]).toMatch(/^lan\|(1|0x0*1)\|1\|forward-filter: dropped\|1700000000\.123456789$/);
  expect(lines[1]).toMatch(/^wan\|(2|0x0*2)\|2\|\|1700000001\.000000001$/);
});

describe('CaptureClock', () => {
  test('adds the nanoseconds to the origin and carries', () => {
    let now = 0;
    const clock = new CaptureClock(() => now, 1_700_000_000, 999_999_999);
    clock.read();
    expect([clock.seconds, clock.nanoseconds]).toEqual([1_700_000_000, 999_999_999]);
    now = 2_000_000_001;
    clock.read();
    expect([clock.seconds, clock.nanoseconds]).toEqual([1_700_000_003, 0]);
    expect(clock.nanosAt(1_700_000_003, 0)).toBe(now);
  });

  test('takes the earliest capture as its origin, unless it has one', () => {
    const free = new CaptureClock(() => 0);
    free.startAt(10, 5);
    free.startAt(10, 4);
    free.startAt(11, 0);
    expect([free.originSeconds, free.originNanos]).toEqual([10, 4]);
    const fixed = new CaptureClock(() => 0, 20);
    fixed.startAt(10, 0);
    expect([fixed.originSeconds, fixed.originNanos]).toEqual([20, 0]);
  });

  test('the wall clock agrees with Date', () => {
    const clock = CaptureClock.wall();
    const before = Date.now();
    clock.read();
    const milliseconds = clock.seconds * 1000 + clock.nanoseconds / 1e6;
    // Node sets timeOrigin once: a clock stepped since by more than a second would show.
    expect(Math.abs(milliseconds - before)).toBeLessThan(1000);
  });
});
