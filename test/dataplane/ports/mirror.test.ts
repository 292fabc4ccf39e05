/** Mirror port: what is forwarded is the same with and without it, byte for byte, and the file tells what happened. */
import { describe, expect, test } from 'vitest';
import { Frames, GSO_TCPV4, META_LEN, META_OFF, META_WORDS } from '../../../dataplane/frames.ts';
import { CaptureReader } from '../../../dataplane/ports/capture-reader.ts';
import {
  CaptureClock,
  CaptureWriter,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
} from '../../../dataplane/ports/capture-writer.ts';
import { MemoryPort } from '../../../dataplane/ports/memory.ts';
import { MirrorPort } from '../../../dataplane/ports/mirror.ts';
import type { Port } from '../../../dataplane/ports/port.ts';

const numbered = (n: number, length = 60) => Uint8Array.from({ length }, (_, i) => (n * 7 + i) & 0xff);
const pcapng = () => new CaptureWriter(null, { format: 'pcapng' });
const still = () => new CaptureClock(() => 0, 1000);

interface Seen {
  frame: Uint8Array;
  original: number;
  direction: number;
  id: number;
  comment: string;
  port: string;
  seconds: number;
  nanoseconds: number;
}

function recorded(writer: CaptureWriter): Seen[] {
  const reader = CaptureReader.fromBytes('mirror', writer.toBytes());
  const seen: Seen[] = [];
  while (reader.next())
    seen.push({
      frame: reader.data.slice(reader.offset, reader.offset + reader.capturedLength),
      original: reader.originalLength,
      direction: reader.flags & 3,
      id: reader.packetIdLow,
      comment: reader.comment,
      port: reader.interfaces[reader.interfaceId].name,
      seconds: reader.seconds,
      nanoseconds: reader.nanoseconds,
    });
  expect(reader.error).toBeNull();
  return seen;
}

/** A little router: what comes in on one port leaves on the other, some dropped, all changed. Returns all there is to see. */
function forward(wrap: (port: Port) => Port): unknown[] {
  const frames = new Frames(32, 4);
  const inside = new MemoryPort('lan', 0);
  const outside = new MemoryPort('wan', 1);
  const lan = wrap(inside);
  const wan = wrap(outside);
  const slots = new Int32Array(16);
  const keep = new Int32Array(16);
  const log: unknown[] = [];
  let state = 99;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
  for (let turn = 0; turn < 60; turn++) {
    for (let n = random() % 6; n > 0; n--) {
      const superFrame = random() % 8 === 0;
      const meta = superFrame ? { flags: 1, gso: GSO_TCPV4 | (1000 << 16), csum: 34 | (16 << 16), hdrlen: 54 } : {};
      inside.push(numbered(random(), superFrame ? 5000 : 60 + (random() % 1000)), turn, 0, meta);
    }
    const got = lan.rxBurst(frames, slots, 16);
    log.push(got, Array.from(slots.subarray(0, got)));
    let kept = 0;
    for (let i = 0; i < got; i++) {
      const m = slots[i] * META_WORDS;
      log.push(Array.from(frames.meta.subarray(m, m + META_WORDS)));
      const off = frames.meta[m + META_OFF];
      log.push(frames.u8.slice(off, off + frames.meta[m + META_LEN]));
      if (random() % 4 === 0) frames.free(slots[i]);
      else {
        frames.u8[off] ^= 0xff;
        frames.meta[m + META_OFF] += 2;
        frames.meta[m + META_LEN] -= 2;
        keep[kept++] = slots[i];
      }
    }
    wan.txBurst(frames, keep, kept);
  }
  lan.close();
  wan.close();
  log.push(outside.takeWithMeta(), inside.counters, outside.counters, frames.freeSmallCount, frames.freeLargeCount);
  return log;
}

describe('MirrorPort', () => {
  test('a mirror never changes what is forwarded: slots, order, metadata, bytes', () => {
    const writer = pcapng();
    const clock = still();
    const verdictOf = (slot: number) => `slot ${slot}`;
    expect(forward((port) => new MirrorPort(port, writer, { clock, verdictOf }))).toEqual(forward((port) => port));
    expect(writer.frames).toBeGreaterThan(100);
  });

  test('nor does a mirror whose file cannot be written, or that cuts its frames', () => {
    const closed = pcapng();
    const mirrors: MirrorPort[] = [];
    const wrap = (writer: CaptureWriter, snapLength?: number) => (port: Port) => {
      const mirror = new MirrorPort(port, writer, { clock: still(), snapLength });
      mirrors.push(mirror);
      closed.close();
      return mirror;
    };
    const plain = forward((port) => port);
    expect(forward(wrap(closed))).toEqual(plain);
    expect(mirrors[0].recorded).toBe(0);
    expect(mirrors[0].unrecorded).toBeGreaterThan(50);
    expect(forward(wrap(pcapng(), 40))).toEqual(plain);
  });

  test('records every frame as it was seen, with direction, number, port and time', () => {
    const frames = new Frames(8, 0);
    const writer = pcapng();
    let now = 5;
    const clock = new CaptureClock(() => now, 1000);
    const inside = new MemoryPort('lan', 0);
    const lan = new MirrorPort(inside, writer, { clock });
    const wan = new MirrorPort(new MemoryPort('wan', 1), writer, { clock, interfaceName: 'uplink' });
    const slots = new Int32Array(8);
    inside.push(numbered(1));
    expect(lan.rxBurst(frames, slots, 8)).toBe(1);
    now = 2_000_000_006;
    frames.u8[frames.meta[slots[0] * META_WORDS + META_OFF]] = 0xee;
    wan.txBurst(frames, slots, 1);
    lan.close();
    wan.close();
    const translated = numbered(1);
    translated[0] = 0xee;
    const common = { original: 60, comment: '' };
    expect(recorded(writer)).toEqual([
      {
        ...common,
        frame: numbered(1),
        direction: DIRECTION_INBOUND,
        id: 1,
        port: 'lan',
        seconds: 1000,
        nanoseconds: 5,
      },
      {
        ...common,
        frame: translated,
        direction: DIRECTION_OUTBOUND,
        id: 2,
        port: 'uplink',
        seconds: 1002,
        nanoseconds: 6,
      },
    ]);
  });

  test('received frames carry the verdict that is known when their turn is over; sent ones have none', () => {
    const frames = new Frames(8, 0);
    const writer = pcapng();
    const verdicts = new Map<number, string>();
    const inner = new MemoryPort('lan', 0);
    const port = new MirrorPort(inner, writer, { clock: still(), verdictOf: (slot) => verdicts.get(slot) ?? '' });
    const slots = new Int32Array(8);
    const fates = ['accepted', 'dropped at forward-filter: POLICY', '', 'dropped at ttl: IP_TTL'];
    for (const fate of fates) {
      inner.push(numbered(fate.length));
      expect(port.rxBurst(frames, slots, 8)).toBe(1);
      // The path runs now: only afterwards is there a verdict, and the frame's bytes are gone by then.
      verdicts.set(slots[0], fate);
      frames.u8.fill(0);
      if (fate === 'accepted') {
        frames.meta[slots[0] * META_WORDS + META_LEN] = 30;
        port.txBurst(frames, slots, 1);
      } else frames.free(slots[0]);
    }
    port.close();
    expect(recorded(writer).map(({ frame, direction, comment }) => [frame.length, direction, comment])).toEqual([
      [60, DIRECTION_INBOUND, 'accepted'],
      [30, DIRECTION_OUTBOUND, ''],
      [60, DIRECTION_INBOUND, 'dropped at forward-filter: POLICY'],
      [60, DIRECTION_INBOUND, ''],
      [60, DIRECTION_INBOUND, 'dropped at ttl: IP_TTL'],
    ]);
    expect(recorded(writer)[4].frame).toEqual(numbered(fates[3].length));
  });

  test('settle writes before the verdicts are overwritten', () => {
    const frames = new Frames(8, 0);
    const writer = pcapng();
    let verdict = 'first';
    const inner = new MemoryPort('lan', 0);
    const port = new MirrorPort(inner, writer, { clock: still(), verdictOf: () => verdict });
    inner.push(numbered(1));
    port.rxBurst(frames, new Int32Array(1), 1);
    expect(writer.frames).toBe(0);
    port.settle();
    verdict = 'second';
    port.close();
    expect(recorded(writer).map((one) => one.comment)).toEqual(['first']);
  });

  test('cuts to the snap length and keeps the original length', () => {
    const frames = new Frames(2, 2);
    const writer = pcapng();
    const inner = new MemoryPort('lan', 0);
    const port = new MirrorPort(inner, writer, { clock: still(), snapLength: 96 });
    inner.push(numbered(3, 9000));
    port.rxBurst(frames, new Int32Array(1), 1);
    port.close();
    expect(recorded(writer)).toMatchObject([{ frame: numbered(3, 96), original: 9000 }]);
  });

  test('a turn of many super-frames is recorded whole and in order', () => {
    const frames = new Frames(0, 300);
    const writer = pcapng();
    const inner = new MemoryPort('lan', 0);
    const port = new MirrorPort(inner, writer, { clock: still(), verdictOf: () => 'known' });
    const slots = new Int32Array(600);
    for (let n = 0; n < 300; n++) inner.push(Uint8Array.of(n & 0xff, n >> 8, ...new Uint8Array(1000)));
    expect(port.rxBurst(frames, slots, 600)).toBe(300);
    port.txBurst(frames, slots, 300);
    for (let n = 0; n < 300; n++) inner.push(new Uint8Array(60_000).fill(n & 0xff));
    expect(port.rxBurst(frames, slots, 600)).toBe(300);
    port.txBurst(frames, slots, 300); // 36 MB in one turn: beyond what waits for verdicts
    port.close();
    const seen = recorded(writer);
    expect(seen.map((one) => one.id)).toEqual(Array.from({ length: 1200 }, (_, n) => n + 1));
    expect(seen.map((one) => one.frame[0])).toEqual(Array.from({ length: 1200 }, (_, n) => (n % 300) & 0xff));
    expect(seen.slice(0, 300).every((one) => one.comment === 'known')).toBe(true);
    // A verdict that is not known yet is left out rather than guessed.
    expect(seen[600].comment).toBe('');
  });
});
