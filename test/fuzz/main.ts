/**
 * `npm run fuzz -- --seconds N --target X --seed S`: mutated inputs into one target, or into all of them one after the
 * other (N seconds each). Prints a line for each; the exit status is 1 when something was found, with the seed that
 * shows it again.
 */
import { parseArgs } from 'node:util';
import { fuzz } from './fuzz.ts';
import { TARGETS } from './targets.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '10' },
    target: { type: 'string' },
    seed: { type: 'string', default: '1' },
    inputs: { type: 'string' },
  },
});
const names = values.target === undefined ? Object.keys(TARGETS) : [values.target];
for (const name of names)
  if (!(name in TARGETS)) {
    console.error(`fuzz: --target: expected one of ${Object.keys(TARGETS).join(', ')}, got "${name}"`);
    process.exit(2);
  }

let found = 0;
for (const name of names) {
  const target = TARGETS[name]();
  try {
    const limit = values.inputs ? { inputs: Number(values.inputs) } : { seconds: Number(values.seconds) };
    const { inputs, slowest, growth } = await fuzz(target, Number(values.seed), limit);
    console.log(
      `${name}: ${inputs} inputs, nothing found; slowest ${slowest.toFixed(1)} ms, ${(growth / 1024).toFixed(0)} KiB more in use`,
    );
  } catch (error) {
    found++;
    console.error(error);
  } finally {
    await target.close?.();
  }
}
process.exitCode = found > 0 ? 1 : 0;
