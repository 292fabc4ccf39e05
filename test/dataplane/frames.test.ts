/** The frame arena: alignment, classes, no slot in two hands, and every byte of a slot its own. */
import { describe, expect, it } from 'vitest';
import { Frames, HEADROOM, LARGE_ROOM, META_OFF, META_WORDS, SMALL_ROOM } from '../../dataplane/frames.ts';
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
