/** When a device that was deleted is opened again: at once, but a flapping one not all the time. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Tries } from '../../../controlplane/live/heal.ts';

describe('Tries', () => {
  let tries: Tries;
  let due = 0;
  beforeEach(() => {
    vi.useFakeTimers();
    due = 0;
    tries = new Tries(() => due++);
  });
  afterEach(() => {
    tries.close();
    vi.useRealTimers();
  });

  it('the first is at once, and nothing follows by itself', () => {
    expect(tries.mayTry()).toBe(true);
    vi.advanceTimersByTime(3_600_000);
    expect(due).toBe(0);
  });

  it('a device that flaps a thousand times a second is opened once in five seconds', () => {
    const at: number[] = [];
    for (let now = 0; now < 60_000; now++) {
      if (tries.mayTry()) at.push(now);
      vi.advanceTimersByTime(1);
    }
    const waits = at.slice(1).map((now, n) => now - at[n]);
    expect(waits.slice(0, 7)).toEqual([100, 200, 400, 800, 1600, 3200, 5000]);
    expect(new Set(waits.slice(7))).toEqual(new Set([5000]));
    expect(due).toBe(at.length - 1);
  });

  it('what cannot be opened is tried again, ever more seldom, without anybody asking', () => {
    const at: number[] = [];
    const start = performance.now();
    const open = (): void => {
      if (!tries.mayTry()) return;
      at.push(Math.round(performance.now() - start));
      tries.failed();
    };
    tries.close();
    tries = new Tries(open);
    open();
    vi.advanceTimersByTime(12_000);
    expect(at).toEqual([0, 100, 300, 700, 1500, 3100, 6300, 11_300]);
  });

  it('after a minute of peace it is the first time again', () => {
    for (let n = 0; n < 10; n++) {
      expect(tries.mayTry()).toBe(true);
      vi.advanceTimersByTime(5000);
    }
    vi.advanceTimersByTime(55_000);
    expect(tries.mayTry()).toBe(true);
    vi.advanceTimersByTime(100);
    expect(tries.mayTry()).toBe(true);
  });

  it('one that is closed calls nobody', () => {
    tries.mayTry();
    tries.failed();
    tries.close();
    vi.advanceTimersByTime(60_000);
    expect(due).toBe(0);
  });
});
