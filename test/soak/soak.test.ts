/** Ten seconds of `npm run soak`: churn, flushes, flaps and faults; nothing leaks, nothing established is lost. */
import { describe, expect, it } from 'vitest';
import { soakInline } from './inline.ts';

describe('soak', () => {
  it('10 s of churn, faults and flushes, seed 1: nothing lost, nothing grows, the counters add up', {
    timeout: 90_000,
  }, () => {
    const result = soakInline(10, 1);
    expect(result.checks).toBeGreaterThan(5);
    expect(result.connections).toBeGreaterThan(1000);
    expect(result.faults).toBeGreaterThan(1000);
    expect(result.applied).toBeGreaterThan(0);
  });
});
