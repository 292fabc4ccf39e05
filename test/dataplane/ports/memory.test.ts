/** Memory port: copies in, copies out, metadata beside them, bounded queues, and every slot accounted for. */
import { describe, expect, test } from 'vitest';
import {
  FRAME_NEEDS_CSUM,
  Frames,
  GSO_TCPV4,
  LARGE_ROOM,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_HDRLEN,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
  SMALL_ROOM,
} from '../../../dataplane/frames.ts';
import { MemoryPort } from '../../../dataplane/ports/memory.ts';

const slots = new Int32Array(256);
const numbered = (n: number, length = 60) => Uint8Array.from({ length }, (_, i) => (n + i) & 0xff);
const free = (frames: Frames) => [frames.freeSmallCount, frames.freeLargeCount];

describe('MemoryPort', () => {
  test('frames arrive in order, as copies, with port, length and time stamp', () => {
    const frames = new Frames(8, 1);
    const port = new MemoryPort('lan', 3);
    const first = numbered(1);
    port.push(first, 7, 8);
    first.fill(0);
    port.push(numbered(2, 61), 9, 10);
    expect(port.waiting).toBe(2);
    expect(port.rxBurst(frames, slots, 1)).toBe(1);
    expect([port.seconds, port.nanoseconds]).toEqual([7, 8]);
    const m = slots[0] * META_WORDS;
    expect([frames.meta[m + META_PORT], frames.meta[m + META_LEN]]).toEqual([3, 60]);
    expect(frames.u8.slice(frames.meta[m + META_OFF], frames.meta[m + META_OFF] + 60)).toEqual(numbered(1));
    expect(port.rxBurst(frames, slots, 256)).toBe(1);
    expect(frames.meta[slots[0] * META_WORDS + META_LEN]).toBe(61);
    expect(port.rxBurst(frames, slots, 256)).toBe(0);
    expect(port.counters).toMatchObject({ rxPackets: 2, rxBytes: 121, rxErrors: 0 });
  });

  test('a super-frame keeps its metadata in and out, and its slot is freed', () => {
    const frames = new Frames(2, 2);
    const lan = new MemoryPort('lan', 1);
    const wan = new MemoryPort('wan', 2);
    const meta = { flags: FRAME_NEEDS_CSUM, gso: GSO_TCPV4 | (1448 << 16), csum: 34 | (16 << 16), hdrlen: 66 };
    lan.push(numbered(5, 65_000), 1, 2, meta);
    expect(lan.rxBurst(frames, slots, 256)).toBe(1);
    const m = slots[0] * META_WORDS;
    expect([META_FLAGS, META_GSO, META_CSUM, META_HDRLEN].map((word) => frames.meta[m + word])).toEqual(
      Object.values(meta),
    );
    wan.txBurst(frames, slots, 1);
    expect(free(frames)).toEqual([2, 2]);
    expect(wan.takeWithMeta()).toEqual([{ frame: numbered(5, 65_000), seconds: 0, nanoseconds: 0, ...meta }]);
    expect(wan.take()).toEqual([]);
    expect(wan.counters).toMatchObject({ txPackets: 1, txBytes: 65_000 });
  });

  test('what was taken does not change when the slot is used again, and honours OFF', () => {
    const frames = new Frames(1, 0);
    const port = new MemoryPort('x', 0);
    port.push(numbered(1));
    port.rxBurst(frames, slots, 1);
    frames.meta[slots[0] * META_WORDS + META_OFF] += 4; // a stage took 4 bytes off the front
    frames.meta[slots[0] * META_WORDS + META_LEN] -= 4;
    port.txBurst(frames, slots, 1);
    const [frame] = port.take();
    frames.u8.fill(0);
    expect(frame).toEqual(numbered(5, 56));
  });

  test('waits when no slot is free, and goes on when one comes back', () => {
    const frames = new Frames(2, 0);
    const port = new MemoryPort('x', 0);
    for (let n = 0; n < 5; n++) port.push(numbered(n));
    expect(port.rxBurst(frames, slots, 256)).toBe(2);
    expect(port.rxBurst(frames, slots.subarray(2), 256)).toBe(0);
    port.txBurst(frames, slots, 2);
    expect(port.rxBurst(frames, slots, 256)).toBe(2);
    port.txBurst(frames, slots, 2);
    expect(port.rxBurst(frames, slots, 256)).toBe(1);
    port.txBurst(frames, slots, 1);
    expect(port.take()).toEqual([0, 1, 2, 3, 4].map((n) => numbered(n)));
    expect(frames.freeSmallCount).toBe(2);
  });

  test('both queues are bounded and count what they lose', () => {
    const frames = new Frames(8, 0);
    const port = new MemoryPort('x', 0, { limit: 3 });
    expect([1, 2, 3, 4].map((n) => port.push(numbered(n)))).toEqual([true, true, true, false]);
    expect(port.rxOverflows).toBe(1);
    expect(port.rxBurst(frames, slots, 256)).toBe(3);
    expect(port.push(numbered(5))).toBe(true);
    port.rxBurst(frames, slots.subarray(3), 1);
    port.txBurst(frames, slots, 4);
    expect([port.left, port.txOverflows, port.counters.txErrors, frames.freeSmallCount]).toEqual([3, 1, 1, 8]);
  });

  test('a frame that no slot can hold is an error, the largest one is not', () => {
    const frames = new Frames(1, 1);
    const port = new MemoryPort('x', 0);
    expect(port.push(new Uint8Array(LARGE_ROOM + 1))).toBe(false);
    expect(port.counters.rxErrors).toBe(1);
    expect(port.push(new Uint8Array(LARGE_ROOM))).toBe(true);
    expect(port.push(new Uint8Array(SMALL_ROOM))).toBe(true);
    expect(port.rxBurst(frames, slots, 2)).toBe(2);
  });

  test('a link that is down takes and gives nothing; frames sent are freed', () => {
    const frames = new Frames(2, 0);
    const port = new MemoryPort('x', 0);
    port.push(numbered(1));
    port.push(numbered(2));
    port.rxBurst(frames, slots, 1);
    port.linkUp = false;
    expect(port.push(numbered(3))).toBe(false);
    expect(port.rxBurst(frames, slots.subarray(1), 1)).toBe(0);
    port.txBurst(frames, slots, 1);
    expect(port.take()).toEqual([]);
    expect([port.counters.txErrors, frames.freeSmallCount]).toEqual([1, 2]);
    port.linkUp = true;
    expect(port.rxBurst(frames, slots, 1)).toBe(1);
    port.close();
    expect(port.rxBurst(frames, slots, 1)).toBe(0);
  });

  test('a long queue stays in order over many bursts', () => {
    const frames = new Frames(64, 0);
    const port = new MemoryPort('x', 0);
    let sent = 0;
    let seen = 0;
    for (let turn = 0; turn < 300; turn++) {
      for (let n = 0; n < 20; n++, sent++) port.push(Uint8Array.of(sent & 0xff, sent >> 8));
      const got = port.rxBurst(frames, slots, 13);
      port.txBurst(frames, slots, got);
      for (const frame of port.take()) expect(frame[0] | (frame[1] << 8)).toBe(seen++);
    }
    expect([seen, port.waiting]).toEqual([300 * 13, 300 * 7]);
  });
});
