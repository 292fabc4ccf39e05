/** The frame arena: alignment, classes, no slot in two hands, and every byte of a slot its own. */
import { describe, expect, it } from 'vitest';
import { Frames, HEADROOM, LARGE_ROOM, META_HDRLEN, META_OFF, META_WORDS, SMALL_ROOM } from '../../dataplane/frames.ts';
import { groundFrames, layOut, regionOf } from '../../dataplane/ground.ts';
import { compiledBurst } from '../../dataplane/ports/compiled.ts';
import { Random } from '../lib/build.ts';

const offset = (frames: Frames, slot: number) => frames.meta[slot * META_WORDS + META_OFF];

describe('slots', () => {
  it('begin 2 modulo 4, so that the IP header is aligned behind 14 and 18 bytes, with headroom in front', () => {
    const frames = new Frames(5, 3);
    for (let slot = 0; slot < 8; slot++) {
      expect(frames.start(slot) & 3).toBe(2);
      expect(frames.start(slot)).toBeGreaterThanOrEqual(HEADROOM);
    }
  });

  it('do not overlap: what is written into one, headroom and room, is in no other', () => {
    const frames = new Frames(4, 2);
    const slots = Array.from({ length: 6 }, (_, n) => frames.alloc(n < 4 ? 100 : SMALL_ROOM + 1));
    expect(new Set(slots).size).toBe(6);
    for (const slot of slots) {
      const at = offset(frames, slot);
      frames.u8.fill(slot + 1, at - HEADROOM, at + frames.room(slot));
    }
    for (const slot of slots) {
      const at = offset(frames, slot);
      expect(frames.room(slot)).toBe(slot < 4 ? SMALL_ROOM : LARGE_ROOM);
      expect(frames.u8.subarray(at - HEADROOM, at + frames.room(slot)).every((b) => b === slot + 1)).toBe(true);
    }
  });

  it('a large one serves when there is no small one; nothing serves what is too large', () => {
    const frames = new Frames(1, 1);
    expect([frames.alloc(10), frames.alloc(10), frames.alloc(10)]).toEqual([0, 1, -1]);
    frames.free(1);
    expect(frames.alloc(LARGE_ROOM + 1)).toBe(-1);
    expect(frames.alloc(LARGE_ROOM)).toBe(1);
  });

  it('come with clean metadata, whatever the last owner left', () => {
    const frames = new Frames(1, 0);
    const slot = frames.alloc(10);
    frames.meta.fill(-7, slot * META_WORDS, (slot + 1) * META_WORDS - 1);
    frames.free(slot);
    frames.alloc(10);
    expect(Array.from(frames.meta)).toEqual([frames.start(0), 0, 0, 0, 0, 0, 0, 0]);
  });
});

it('any order of taking and giving back: no slot twice, the counts right (seed 2)', () => {
  const random = new Random(2);
  const frames = new Frames(40, 6);
  const held = new Set<number>();
  for (let step = 0; step < 20_000; step++) {
    if (random.chance(0.5)) {
      const slot = frames.alloc(random.chance(0.2) ? SMALL_ROOM + 1 : 60);
      if (slot >= 0) {
        expect(held.has(slot)).toBe(false);
        held.add(slot);
      }
    } else if (held.size > 0) {
      const slot = random.pick([...held]);
      held.delete(slot);
      frames.free(slot);
    }
    expect(frames.freeSmallCount + frames.freeLargeCount).toBe(46 - held.size);
  }
});

describe('slots of a burst', () => {
  const SIZE = { small: 40, large: 6 };
  const own = () => ({ frames: new Frames(SIZE.small, SIZE.large), list: new Int32Array(64) });
  /** On the ground, where compiled code takes and frees them. */
  const onGround = () => {
    const { ground } = layOut({ module: compiledBurst()!, ...SIZE }, 1, 0, 64, 64);
    const list = ground!.first + regionOf(SIZE.small, SIZE.large).slots;
    return {
      frames: new Frames(SIZE.small, SIZE.large, groundFrames(ground!, 0)),
      list: new Int32Array(ground!.memory.buffer, list, 64),
    };
  };

  it.each([
    ['JavaScript', own],
    ['compiled', onGround],
  ])('%s: those that one by one would be, with the metadata that they would have (seed 3)', (_, make) => {
    const random = new Random(3);
    const { frames, list } = make();
    const single = new Frames(SIZE.small, SIZE.large);
    const held: number[] = [];
    for (let step = 0; step < 5000; step++) {
      const n = random.int(0, 20);
      if (random.chance(0.5)) {
        const taken = frames.takeBurst(list, n);
        const expected = Array.from({ length: n }, () => single.alloc(60)).filter((slot) => slot >= 0);
        expect(Array.from(list.subarray(0, taken))).toEqual(expected);
        for (const slot of expected) {
          const m = slot * META_WORDS;
          const [off, ...rest] = frames.meta.subarray(m, m + META_HDRLEN + 1);
          expect([off, ...rest.filter((word) => word !== 0)]).toEqual([frames.start(slot)]);
          frames.meta.fill(-7, m, m + META_WORDS);
          held.push(slot);
        }
      } else {
        const given = held.splice(random.int(0, held.length), n);
        list.set(given);
        frames.freeBurst(list, given.length);
        for (const slot of given) single.free(slot);
      }
      expect([frames.freeSmallCount, frames.freeLargeCount]).toEqual([single.freeSmallCount, single.freeLargeCount]);
    }
  });
});
