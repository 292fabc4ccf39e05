/** Fault port: rates are met, directions are independent, everything repeats from the seed, and no slot is ever lost. */
import { describe, expect, test } from 'vitest';
import {
  FRAME_DATA_VALID,
  FRAME_NEEDS_CSUM,
  Frames,
  META_FLAGS,
  META_LEN,
  META_OFF,
  META_WORDS,
} from '../../../dataplane/frames.ts';
import { type FaultOptions, FaultPort } from '../../../dataplane/ports/fault.ts';
import { MemoryPort } from '../../../dataplane/ports/memory.ts';

const SMALL = 1024;
const LENGTH = 64;

/** A frame that names itself: its number in the first four bytes, the rest made from it. */
function numbered(n: number): Uint8Array {
  const frame = Uint8Array.from({ length: LENGTH }, (_, i) => Math.imul(n + i, 0x9e37) >>> 8);
  new DataView(frame.buffer).setUint32(0, n);
  return frame;
}

const numberOf = (frame: Uint8Array) => new DataView(frame.buffer, frame.byteOffset).getUint32(0);

interface Run {
  port: FaultPort;
  inner: MemoryPort;
  frames: Frames;
  out: Uint8Array[];
}

/** Receives `count` frames in bursts of up to 32, then empty bursts until nothing is held. */
function receive(count: number, options: FaultOptions, max = 32): Run {
  const frames = new Frames(SMALL, 0);
  const inner = new MemoryPort('x', 0);
  const port = new FaultPort(inner, options);
  const slots = new Int32Array(256);
  const out: Uint8Array[] = [];
  for (let n = 0; n < count; n++) inner.push(numbered(n));
  for (let idle = 0; idle < 40; ) {
    const got = port.rxBurst(frames, slots, max);
    expect(got).toBeLessThanOrEqual(max);
    idle = got === 0 ? idle + 1 : 0;
    for (let i = 0; i < got; i++) {
      const m = slots[i] * META_WORDS;
      const off = frames.meta[m + META_OFF];
      out.push(frames.u8.slice(off, off + frames.meta[m + META_LEN]));
      frames.free(slots[i]);
    }
  }
  expect(frames.freeSmallCount).toBe(SMALL);
  return { port, inner, frames, out };
}

/** Sends `count` frames in bursts of 32, with a receive between them as a worker does. */
function send(count: number, options: FaultOptions): Run {
  const frames = new Frames(SMALL, 0);
  const inner = new MemoryPort('x', 0);
  const port = new FaultPort(inner, options);
  const slots = new Int32Array(256);
  for (let n = 0; n < count; ) {
    let batch = 0;
    for (; batch < 32 && n < count; n++) {
      const slot = frames.alloc(LENGTH);
      frames.u8.set(numbered(n), frames.meta[slot * META_WORDS + META_OFF]);
      frames.meta[slot * META_WORDS + META_LEN] = LENGTH;
      slots[batch++] = slot;
    }
    port.txBurst(frames, slots, batch);
    port.rxBurst(frames, slots, 32);
  }
  for (let turn = 0; turn < 40; turn++) port.rxBurst(frames, slots, 32);
  expect(frames.freeSmallCount).toBe(SMALL);
  return { port, inner, frames, out: inner.take() };
}

const upTo = (count: number) => Array.from({ length: count }, (_, n) => n);

describe.each([
  ['rx', receive],
  ['tx', send],
] as const)('FaultPort, %s', (direction, run) => {
  const only = (rates: NonNullable<FaultOptions['rx']>, seed = 1): FaultOptions => ({ seed, [direction]: rates });

  test('without rates every frame passes unchanged and in order', () => {
    const { out, port } = run(500, {});
    expect(out).toEqual(upTo(500).map(numbered));
    expect(port[direction]).toMatchObject({
      frames: 500,
      lost: 0,
      duplicated: 0,
      reordered: 0,
      delayed: 0,
      corrupted: 0,
    });
  });

  test('loss: about the rate, the rest in order', () => {
    const { out, port } = run(4000, only({ loss: 0.25 }));
    expect(port[direction].lost).toBe(4000 - out.length);
    // Four standard deviations of a binomial distribution: √(4000 · ¼ · ¾) = 27.
    expect(Math.abs(port[direction].lost - 1000)).toBeLessThan(110);
    const numbers = out.map(numberOf);
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  });

  test('loss of 1 lets nothing through', () => {
    expect(run(300, only({ loss: 1 })).out).toEqual([]);
  });

  test('duplication: each copy right behind its original, equal to it', () => {
    const all = run(200, only({ duplicate: 1 }));
    expect(all.out).toEqual(upTo(200).flatMap((n) => [numbered(n), numbered(n)]));
    expect(all.port[direction].duplicated).toBe(200);
    const { out, port } = run(4000, only({ duplicate: 0.1 }));
    expect(out.length).toBe(4000 + port[direction].duplicated);
    expect(Math.abs(port[direction].duplicated - 400)).toBeLessThan(80);
  });

  test('reordering: nothing lost, no frame overtaken by more than the depth', () => {
    const { out, port } = run(2000, only({ reorder: 0.1, reorderDepth: 3 }));
    const numbers = out.map(numberOf);
    expect([...numbers].sort((a, b) => a - b)).toEqual(upTo(2000));
    expect(numbers).not.toEqual(upTo(2000));
    expect(port[direction].reordered).toBeGreaterThan(100);
    let overtaken = 0;
    for (const [at, number] of numbers.entries()) {
      const ahead = numbers.slice(0, at).filter((other) => other > number).length;
      if (ahead > 0) overtaken++;
      // Frames held themselves do not count as overtaking, but may do so when they go on.
      expect(ahead).toBeLessThanOrEqual(3 + 3);
    }
    expect(overtaken).toBeGreaterThan(100);
  });

  test('delay: a frame alone is passed by exactly that many', () => {
    // A rate so low that held frames seldom meet: look at those that did not.
    const { out, port } = run(3000, only({ delay: 0.005, delayFrames: 5 }));
    const numbers = out.map(numberOf);
    expect(port[direction].delayed).toBeGreaterThan(4);
    const late = upTo(3000 - 10).filter((number) => numbers.indexOf(number) > number);
    const alone = late.filter((number) => late.every((other) => other === number || Math.abs(other - number) > 12));
    expect(alone.length).toBeGreaterThan(2);
    for (const number of alone) expect(numbers.indexOf(number)).toBe(number + 5);
  });

  test('corruption: exactly one bit of each frame hit', () => {
    const { out, port } = run(1000, only({ corrupt: 0.3 }));
    expect(out).toHaveLength(1000);
    const flips = out.map((frame, n) => {
      const intact = numbered(n);
      return frame.reduce((sum, byte, i) => sum + (byte ^ intact[i]).toString(2).replaceAll('0', '').length, 0);
    });
    expect(new Set(flips)).toEqual(new Set([0, 1]));
    expect(flips.filter((count) => count === 1)).toHaveLength(port[direction].corrupted);
    expect(Math.abs(port[direction].corrupted - 300)).toBeLessThan(60);
    const places = new Set(out.flatMap((frame, n) => upTo(LENGTH).filter((i) => frame[i] !== numbered(n)[i])));
    expect(places.size).toBeGreaterThan(LENGTH / 2); // anywhere in the frame
  });

  test('everything at once repeats from the seed, and differs with another', () => {
    const rates = { loss: 0.1, duplicate: 0.1, reorder: 0.2, corrupt: 0.1, delay: 0.1 };
    const first = run(1000, only(rates, 77));
    expect(run(1000, only(rates, 77)).out).toEqual(first.out);
    expect(run(1000, only(rates, 78)).out).not.toEqual(first.out);
    const { lost, duplicated } = first.port[direction];
    expect(first.out).toHaveLength(1000 - lost + duplicated);
  });

  test('one rate does not change which frames another hits', () => {
    const lost = (rates: NonNullable<FaultOptions['rx']>) => {
      const numbers = new Set(run(500, only(rates)).out.map(numberOf));
      return upTo(500).filter((n) => !numbers.has(n));
    };
    expect(lost({ loss: 0.1, reorder: 0.3, duplicate: 0.3, delay: 0.2 })).toEqual(lost({ loss: 0.1 }));
  });
});

describe('FaultPort', () => {
  test('the directions are independent: faults on sending leave receiving alone', () => {
    expect(receive(300, { tx: { loss: 1, corrupt: 1 } }).out).toEqual(upTo(300).map(numbered));
    expect(send(300, { rx: { loss: 1, corrupt: 1 } }).out).toEqual(upTo(300).map(numbered));
  });

  test('bursts of one frame still deliver every duplicate', () => {
    expect(receive(50, { rx: { duplicate: 1 } }, 1).out).toHaveLength(100);
  });

  test('a held frame goes on after flushBursts turns though nothing follows it', () => {
    const frames = new Frames(4, 0);
    const inner = new MemoryPort('x', 0);
    const port = new FaultPort(inner, { flushBursts: 3, rx: { delay: 1 }, tx: { delay: 1 } });
    const slots = new Int32Array(8);
    inner.push(numbered(1));
    const slot = frames.alloc(LENGTH);
    frames.meta[slot * META_WORDS + META_LEN] = LENGTH;
    slots[0] = slot;
    port.txBurst(frames, slots, 1);
    const turns = upTo(6).map(() => port.rxBurst(frames, slots, 8));
    expect(turns).toEqual([0, 0, 0, 0, 1, 0]); // taken in the first turn, held for three more
    expect(inner.take()).toHaveLength(1);
    expect([port.rx.held, port.tx.held]).toEqual([0, 0]);
  });

  test('close frees what is held in both directions, and duplicates not yet delivered', () => {
    const frames = new Frames(64, 0);
    const inner = new MemoryPort('x', 0);
    const port = new FaultPort(inner, { rx: { duplicate: 1, delay: 0.5 }, tx: { delay: 1, delayFrames: 1000 } });
    const slots = new Int32Array(64);
    for (let n = 0; n < 20; n++) inner.push(numbered(n));
    const got = port.rxBurst(frames, slots, 10);
    expect(got).toBe(10);
    port.txBurst(frames, slots, got);
    expect(frames.freeSmallCount).toBeLessThan(64);
    port.close();
    expect(frames.freeSmallCount).toBe(64);
    expect(inner.linkUp).toBe(false);
  });

  test('when no slot is free the original passes without its copy', () => {
    const frames = new Frames(1, 0);
    const inner = new MemoryPort('x', 0);
    const port = new FaultPort(inner, { rx: { duplicate: 1 } });
    inner.push(numbered(1));
    const slots = new Int32Array(4);
    expect(port.rxBurst(frames, slots, 4)).toBe(1);
    expect(port.rx.duplicated).toBe(0);
  });

  test('no more than 64 frames are held; the others go straight on', () => {
    const frames = new Frames(256, 0);
    const inner = new MemoryPort('x', 0);
    const port = new FaultPort(inner, { rx: { delay: 1, delayFrames: 1_000_000 } });
    for (let n = 0; n < 200; n++) inner.push(numbered(n));
    const slots = new Int32Array(256);
    expect(port.rxBurst(frames, slots, 256)).toBe(136);
    expect(port.rx.held).toBe(64);
    port.close();
  });

  test('damage to a partial checksum cannot be hidden by completing it, and a verified frame is verified no more', () => {
    const frames = new Frames(256, 0);
    const inner = new MemoryPort('x', 0);
    const port = new FaultPort(inner, { rx: { corrupt: 1 } });
    const slots = new Int32Array(64);
    for (let n = 0; n < 32; n++)
      inner.push(numbered(n), 0, 0, { flags: FRAME_NEEDS_CSUM | FRAME_DATA_VALID, csum: 34 | (16 << 16) });
    expect(port.rxBurst(frames, slots, 32)).toBe(32);
    for (let n = 0; n < 32; n++) {
      const m = slots[n] * META_WORDS;
      const off = frames.meta[m + META_OFF];
      const changed = upTo(LENGTH).filter((i) => frames.u8[off + i] !== numbered(n)[i]);
      expect([50, 51]).toContain(changed[0]);
      expect(frames.meta[m + META_FLAGS]).toBe(FRAME_NEEDS_CSUM);
    }
  });

  test('rates can be changed while it runs', () => {
    const frames = new Frames(8, 0);
    const inner = new MemoryPort('x', 0);
    const port = new FaultPort(inner);
    const slots = new Int32Array(8);
    inner.push(numbered(1));
    expect(port.rxBurst(frames, slots, 8)).toBe(1);
    port.rx.setRates({ loss: 1 });
    inner.push(numbered(2));
    expect(port.rxBurst(frames, slots, 8)).toBe(0);
  });

  test('is the inner port to everyone else', () => {
    const inner = new MemoryPort('wan', 7);
    const port = new FaultPort(inner);
    expect([port.name, port.number, port.pollFd, port.counters]).toEqual(['wan', 7, -1, inner.counters]);
    port.linkUp = false;
    expect(inner.linkUp).toBe(false);
  });
});
