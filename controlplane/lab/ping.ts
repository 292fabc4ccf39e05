/**
 * Echo requests from a lab namespace, one program each. `ping -c3` waits for its last answer only twice as long as the
 * slowest took before, or for its interval: on a busy machine it calls lost what is only late.
 */
import type { Lab } from './namespace.ts';

export interface Echoes {
  /** Answers that came. */
  answers: number;
  /** Milliseconds from request to answer, on average; NaN without one. */
  average: number;
  /** What the programs printed. */
  said: string;
}

/**
 * Asks `target` for `count` echo replies, each as soon as the one before has come. `size`: bytes of data; `wait`: seconds
 * for an answer. Silence is no error. Errors: LabError without the program.
 */
export async function echoes(
  lab: Lab,
  ns: string,
  target: string,
  count: number,
  options: { size?: number; wait?: number } = {},
): Promise<Echoes> {
  const { size = 56, wait = 10 } = options;
  const result: Echoes = { answers: 0, average: Number.NaN, said: '' };
  let total = 0;
  for (let n = 0; n < count; n++) {
    const args = ['-n', '-c1', `-W${wait}`, '-s', String(size), target];
    const { stdout, stderr } = await lab.run(ns, 'ping', args, { check: false, timeout: (wait + 20) * 1000 });
    result.said += stdout + stderr;
    const time = /^\d+ bytes from .* time=([\d.]+) ms$/m.exec(stdout)?.[1];
    if (time === undefined) continue;
    result.answers++;
    total += Number(time);
  }
  if (result.answers > 0) result.average = total / result.answers;
  return result;
}
