/**
 * Guard: `--quick` compares ratios of own workloads with bounds.json. The bounds are wide enough for a noisy, shared
 * machine and narrow enough for a fast path that has lost its speed; both figures are said.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BENCH, formatValue, isSkipped, type Result, type Skipped } from './results.ts';

/** The value of `of`, divided by that of `to` where there is one, must be at least or at most so much. */
export interface Bound {
  name: string;
  of: string;
  to?: string;
  least?: number;
  most?: number;
}

export interface Verdict {
  bound: Bound;
  /** NaN: it was not measured. */
  value: number;
  passed: boolean;
}

export function readBounds(): Bound[] {
  return (JSON.parse(readFileSync(join(BENCH, 'bounds.json'), 'utf8')) as { bounds: Bound[] }).bounds;
}

/** Judges every bound whose workloads were asked for; one that was asked for and gave nothing has failed. */
export function judge(outcomes: readonly (Result | Skipped)[], bounds: readonly Bound[]): Verdict[] {
  const asked = new Set(outcomes.map(({ name }) => name));
  const verdicts: Verdict[] = [];
  for (const bound of bounds) {
    if (!asked.has(bound.of) || (bound.to !== undefined && !asked.has(bound.to))) continue;
    const measured = (name: string): number => {
      const found = outcomes.find((outcome): outcome is Result => outcome.name === name && !isSkipped(outcome));
      return found === undefined ? Number.NaN : found.value;
    };
    const value = bound.to === undefined ? measured(bound.of) : measured(bound.of) / measured(bound.to);
    const passed =
      value >= (bound.least ?? Number.NEGATIVE_INFINITY) && value <= (bound.most ?? Number.POSITIVE_INFINITY);
    verdicts.push({ bound, value, passed });
  }
  return verdicts;
}

/** One line for a person. */
export function describe({ bound, value, passed }: Verdict): string {
  const unit = bound.to === undefined ? 'bytes' : 'ratio';
  const limit =
    bound.least !== undefined
      ? `at least ${formatValue(bound.least, unit)}`
      : `at most ${formatValue(bound.most ?? 0, unit)}`;
  return `${passed ? 'ok' : 'REGRESSION'} ${bound.name}: expected ${limit}, got ${formatValue(value, unit)}`;
}

/** Judges and says so on the standard error; false when a bound is broken. */
export function checkBounds(outcomes: readonly (Result | Skipped)[]): boolean {
  const verdicts = judge(outcomes, readBounds());
  for (const verdict of verdicts) process.stderr.write(`${describe(verdict)}\n`);
  return verdicts.every(({ passed }) => passed);
}
