/** Capture port: replays a capture at once or on its clock, and writes what is sent. */
import { describe, expect, test } from 'vitest';
import { Frames, META_LEN, META_OFF, META_PORT, META_WORDS } from '../../../dataplane/frames.ts';
import { CaptureReader } from '../../../dataplane/ports/capture-reader.ts';
import { CaptureClock, CaptureWriter } from '../../../dataplane/ports/capture-writer.ts';
import { PcapPort } from '../../../dataplane/ports/pcap.ts';

const slots = new Int32Array(256);

/** A capture of `count` frames of 60 + n bytes, n milliseconds apart, from 100.5 s on. */
function capture(count: number, linkType = 1, start = 100): CaptureReader {
  const writer = new CaptureWriter(null, { linkType });
  for (let n = 0; n < count; n++)
    writer.write(new Uint8Array(60 + n).fill(n), 0, 60 + n, 60 + n, start, 500_000_000 + n * 1_000_000);
  return CaptureReader.fromBytes('made', writer.toBytes());
}

describe('PcapPort', () => {
  test('without a clock everything comes as fast as it is asked for', () => {
    const frames = new Frames(16, 0);
    const port = new PcapPort('wan', 5, { reader: capture(10) });
    expect(port.rxBurst(frames, slots, 4)).toBe(4);
    expect(port.rxBurst(frames, slots.subarray(4), 100)).toBe(6);
    for (let n = 0; n < 10; n++) {
      const m = slots[n] * META_WORDS;
      const off = frames.meta[m + META_OFF];
      expect([frames.meta[m + META_PORT], frames.meta[m + META_LEN]]).toEqual([5, 60 + n]);
      expect(frames.u8.slice(off, off + 60 + n)).toEqual(new Uint8Array(60 + n).fill(n));
    }
    expect(port.rxBurst(frames, slots, 4)).toBe(0);
    expect([port.atEnd, port.error, port.seconds, port.nanoseconds]).toEqual([true, null, 100, 509_000_000]);
    expect(port.counters).toMatchObject({ rxPackets: 10, rxBytes: 645 });
  });

  test('with a clock each frame waits for its time; the earliest capture is the origin', () => {
    const frames = new Frames(32, 0);
    let now = 0;
    const clock = new CaptureClock(() => now);
    const late = new PcapPort('late', 1, { reader: capture(3, 1, 101), clock });
    const early = new PcapPort('early', 2, { reader: capture(3), clock });
    expect([early.dueNanos(), late.dueNanos()]).toEqual([0, 1_000_000_000]);
    expect([early.rxBurst(frames, slots, 9), late.rxBurst(frames, slots, 9)]).toEqual([1, 0]);
    now = early.dueNanos() - 1;
    expect(early.rxBurst(frames, slots, 9)).toBe(0);
    now = 2_000_000;
    expect(early.rxBurst(frames, slots, 9)).toBe(2);
    expect(early.dueNanos()).toBe(-1);
    now = late.dueNanos();
    expect(late.rxBurst(frames, slots, 9)).toBe(1);
  });

  test('what is sent is written with the clock, its slots freed', () => {
    const frames = new Frames(4, 0);
    let now = 0;
    const clock = new CaptureClock(() => now);
    const out = new CaptureWriter(null);
    const port = new PcapPort('x', 1, { reader: capture(3), writer: out, clock });
    now = 2_000_000;
    expect(port.rxBurst(frames, slots, 9)).toBe(3);
    now = 600_000_123;
    frames.meta[slots[2] * META_WORDS + META_LEN] = 20;
    port.txBurst(frames, slots, 3);
    expect(frames.freeSmallCount).toBe(4);
    port.close();
    const again = CaptureReader.fromBytes('out', out.toBytes());
    const lengths: number[] = [];
    while (again.next()) {
      lengths.push(again.capturedLength);
      expect([again.seconds, again.nanoseconds]).toEqual([101, 100_000_123]);
    }
    expect(lengths).toEqual([60, 61, 20]);
    expect(port.counters).toMatchObject({ txPackets: 3, txBytes: 141, txErrors: 0 });
  });

  test('without a clock what is sent carries the time of the frame received last', () => {
    const frames = new Frames(4, 0);
    const out = new CaptureWriter(null);
    const port = new PcapPort('x', 1, { reader: capture(2), writer: out });
    port.rxBurst(frames, slots, 2);
    port.txBurst(frames, slots, 2);
    const again = CaptureReader.fromBytes('out', out.toBytes());
    again.next();
    expect([again.seconds, again.nanoseconds]).toEqual([100, 501_000_000]);
  });

  test('an arena that is full makes frames wait, not get lost', () => {
    const frames = new Frames(3, 0);
    const port = new PcapPort('x', 1, { reader: capture(8) });
    const lengths: number[] = [];
    for (let turn = 0; turn < 4; turn++) {
      const got = port.rxBurst(frames, slots, 256);
      for (let i = 0; i < got; i++) lengths.push(frames.meta[slots[i] * META_WORDS + META_LEN]);
      port.txBurst(frames, slots, got);
    }
    expect(lengths).toEqual([60, 61, 62, 63, 64, 65, 66, 67]);
    expect(frames.freeSmallCount).toBe(3);
  });

  test('frames of an unknown link type and frames beyond any slot are counted and skipped', () => {
    const frames = new Frames(4, 1);
    const strange = new PcapPort('x', 1, { reader: capture(3, 105) });
    expect(strange.rxBurst(frames, slots, 9)).toBe(0);
    expect([strange.unknownLinkType, strange.counters.rxErrors, strange.atEnd]).toEqual([3, 3, true]);
    const writer = new CaptureWriter(null);
    writer.write(new Uint8Array(70_000), 0, 70_000, 70_000, 0, 0);
    writer.write(new Uint8Array(60), 0, 60, 60, 0, 0);
    const large = new PcapPort('x', 1, { reader: CaptureReader.fromBytes('large', writer.toBytes()) });
    expect(large.rxBurst(frames, slots, 9)).toBe(1);
    expect(large.counters.rxErrors).toBe(1);
    expect([frames.freeSmallCount, frames.freeLargeCount]).toEqual([3, 1]);
  });

  test('a capture that is cut gives its frames and then its error', () => {
    const frames = new Frames(8, 0);
    const whole = capture(3).data;
    const port = new PcapPort('x', 1, { reader: CaptureReader.fromBytes('cut', whole.slice(0, whole.length - 1)) });
    expect(port.rxBurst(frames, slots, 9)).toBe(2);
    expect(port.error?.message).toMatch(/^cut: at byte \d+: expected 62 bytes of frame, got 61$/);
  });
});
