/**
 * `npm run fuzz -- --seconds N --target X --seed S`: mutated inputs into one target, or into all of them one after the
 * other (N seconds each). Prints a line for each; the exit status is 1 when something was found, with the seed that
 * shows it again.
 */
import { commandLine } from '../lib/command.ts';
import { fuzz } from './fuzz.ts';
import { TARGETS } from './targets.ts';

const USAGE = `usage: npm run fuzz [-- OPTION ...]

Mutated inputs into everything that reads what others wrote. What is found is printed with the seed that shows it again.

  --seconds N     for each target (10)
  --inputs N      so many inputs instead, however long they take
  --seed S        of the mutations (1)
  --target NAME   only this one: ${Object.keys(TARGETS).join(', ')}
`;

const asked = commandLine('fuzz', USAGE, {
  seconds: { kind: 'value', expected: 'a number' },
  inputs: { kind: 'value', expected: 'a number' },
  seed: { kind: 'value', expected: 'a number' },
  target: { kind: 'value', expected: 'a target’s name' },
});
const seconds = asked.above0('seconds', 10);
const inputs = asked.whole('inputs', 0, 1);
const seed = asked.whole('seed', 1);
const names = asked.chosen('target', Object.keys(TARGETS), true);

let found = 0;
for (const name of names) {
  const target = TARGETS[name]();
  try {
    const done = await fuzz(target, seed, inputs > 0 ? { inputs } : { seconds });
    const { slowest, growth } = done;
    console.log(
      `${name}: ${done.inputs} inputs, nothing found; slowest ${slowest.toFixed(1)} ms, ${(growth / 1024).toFixed(0)} KiB more in use`,
    );
  } catch (error) {
    found++;
    console.error(error);
  } finally {
    await target.close?.();
  }
}
process.exitCode = found > 0 ? 1 : 0;
