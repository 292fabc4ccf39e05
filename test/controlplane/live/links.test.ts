/** When the router looks at its devices: when it hears of a change and for a moment after it; often for ever when nobody tells. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LinkPace } from '../../../controlplane/live/links.ts';
import { LinkNews } from '../../../dataplane/ports/rtnetlink.ts';

describe('LinkPace', () => {
  let looks = 0;
  let pace: LinkPace;
  const begin = (): void => {
    looks = 0;
    pace = new LinkPace(() => looks++);
  };
  beforeEach(() => {
    vi.useFakeTimers();
    // Devices of this machine may change while the test runs.
    vi.spyOn(LinkNews.prototype, 'open').mockReturnValue(0);
  });
  afterEach(() => {
    pace.close();
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  it('looks at once, then five times a second for two seconds, then not at all', () => {
    begin();
    vi.advanceTimersByTime(60_000);
    expect(looks).toBe(0);
    for (let news = 0; news < 3; news++) {
      looks = 0;
      pace.hear();
      vi.advanceTimersByTime(20);
      expect(looks).toBe(1);
      vi.advanceTimersByTime(1780);
      expect(looks).toBeGreaterThanOrEqual(9);
      vi.advanceTimersByTime(1000);
      expect(looks).toBeLessThanOrEqual(12);
      const settled = looks;
      vi.advanceTimersByTime(3_600_000);
      expect(looks).toBe(settled);
    }
  });

  it('a flood of news does not make it look all the time, and the last of it is followed', () => {
    begin();
    for (let n = 0; n < 1000; n++) {
      pace.hear();
      vi.advanceTimersByTime(1);
    }
    expect(looks).toBeGreaterThanOrEqual(40);
    expect(looks).toBeLessThanOrEqual(51);
    const before = looks;
    pace.hear();
    vi.advanceTimersByTime(20);
    expect(looks).toBe(before + 1);
  });

  it('looks now and then when it is asked to, but not when it has just looked', () => {
    begin();
    vi.advanceTimersByTime(10_000);
    for (let n = 0; n < 30; n++) {
      pace.rest();
      vi.advanceTimersByTime(1000);
    }
    expect(looks).toBe(6);
  });

  it('looks on when nobody tells, until it is closed', () => {
    vi.mocked(LinkNews.prototype.open).mockReturnValue(-1);
    begin();
    pace.hear();
    vi.advanceTimersByTime(60_000);
    expect(looks).toBeGreaterThanOrEqual(299);
    pace.close();
    const before = looks;
    pace.hear();
    vi.advanceTimersByTime(60_000);
    expect(looks).toBe(before);
  });
});
