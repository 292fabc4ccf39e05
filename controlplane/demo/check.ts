/**
 * Check: one step of the demo that can fail, and what became of it. A list of checks is run in order; a failed one does
 * not end the list, because the next ones say where the trouble is.
 */

/** What a check throws when the router did not do what it should: the house's form of errors, in parts. */
export class CheckError extends Error {
  readonly expected: string;
  readonly got: string;
  readonly advice: string;

  constructor(expected: string, got: string, advice: string) {
    super(`expected ${expected}, got ${got}; ${advice}`);
    this.name = 'CheckError';
    this.expected = expected;
    this.got = got;
    this.advice = advice;
  }
}

export interface Check<W> {
  name: string;
  /** Resolves to what was seen, a few words; throws CheckError, or whatever a program's failure throws. */
  run(world: W): Promise<string>;
}

/** A check that has run: the entries of `checks` in the summary of `--json`. */
export interface CheckResult {
  name: string;
  passed: boolean;
  seconds: number;
  /** What was seen; when it failed, the whole message. */
  seen: string;
  expected?: string;
  got?: string;
  advice?: string;
}

/** Runs one check; never throws. */
export async function runCheck<W>(check: Check<W>, world: W): Promise<CheckResult> {
  const begin = performance.now();
  const seconds = () => Math.round(performance.now() - begin) / 1000;
  try {
    const seen = await check.run(world);
    return { name: check.name, passed: true, seconds: seconds(), seen };
  } catch (error) {
    const result = { name: check.name, passed: false, seconds: seconds(), seen: (error as Error).message };
    if (!(error instanceof CheckError)) return result;
    const { expected, got, advice } = error;
    return { ...result, expected, got, advice };
  }
}

/** Lines for people: `ok   0.41 s  name: seen`, and for a failure what was expected, what came and what to do. */
export function formatResult(result: CheckResult): string {
  const time = `${result.seconds.toFixed(2).padStart(6)} s`;
  if (result.passed) return `  ok   ${time}  ${result.name}: ${result.seen}`;
  const head = `  FAIL ${time}  ${result.name}`;
  const indent = ' '.repeat(18);
  if (result.expected === undefined) return `${head}\n${indent}${result.seen.replaceAll('\n', `\n${indent}`)}`;
  return [
    head,
    `${indent}expected    ${result.expected}`,
    `${indent}got         ${result.got}`,
    `${indent}what to do  ${result.advice}`,
  ].join('\n');
}
