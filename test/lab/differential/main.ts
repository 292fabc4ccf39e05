/**
 * `npm run differential`: generated scenarios (seeds S, S + 1, ...) into the Linux kernel and into Sluice, and whether every
 * byte that left was the same. Needs root, nft and ethtool; makes its own namespaces and takes them down. The last line says
 * what was found; the exit status is 1 when a difference is unexplained. USAGE has the options.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRouter } from '../../../controlplane/router.ts';
import { commandLine } from '../../lib/command.ts';
import { labReady } from '../need.ts';
import { generate, TOPOLOGIES } from './generator.ts';
import { Judge } from './judge.ts';
import { explainDifference } from './report.ts';
import { configOf, type Scenario } from './scenario.ts';
import { fixed, save, shrinkList } from './shrink.ts';

const USAGE = `usage: npm run differential [-- OPTION ...]

Generated scenarios into the Linux kernel and into Sluice: every byte that leaves must be the same. Needs root, nft and ethtool.

  --scenarios N     how many (1000)
  --seed S          the first one (1)
  --tables K        compare the connection tables after every K-th of a topology (20; 0: never)
  --stop N          stop after N unexplained differences (20)
  --only TOPOLOGY   only topologies whose name contains this
  --save DIR        where shrunk scenarios are written (nowhere)
`;

const asked = commandLine('differential', USAGE, {
  scenarios: { kind: 'value', expected: 'a number' },
  seed: { kind: 'value', expected: 'a number' },
  tables: { kind: 'value', expected: 'a number' },
  stop: { kind: 'value', expected: 'a number' },
  only: { kind: 'value', expected: 'a part of a topology’s name' },
  save: { kind: 'value', expected: 'a directory' },
});
const count = asked.whole('scenarios', 1000);
const first = asked.whole('seed', 1);
const tables = asked.whole('tables', 20);
const stop = asked.whole('stop', 20, 1);
const saved = asked.values.get('save');
const wanted = asked.chosen(
  'only',
  TOPOLOGIES.map((topology) => topology.name),
);

if (!labReady(['nft', 'ethtool'])) {
  console.log('differential: not run, see above');
  process.exit(2);
}

const judge = new Judge();
const start = performance.now();
const seconds = () => (performance.now() - start) / 1000;
const accepted = new Map<string, number>();
let differences = 0;
let done = 0;
let frames = 0;
let shown = start;

/** Leaves out what does not matter, and reports (and keeps) the rest. */
function report(scenario: Scenario, withTables: boolean): void {
  const differs = (list: Scenario['frames']) => {
    const verdict = judge.judge({ ...scenario, frames: list }, { tables: withTables });
    return verdict.difference !== null && verdict.accepted === null;
  };
  const short = shrinkList(scenario.frames, differs);
  const ports = Object.keys(configOf(scenario.topology).ports);
  const plain = fixed(createRouter(configOf(scenario.topology)), ports, short);
  // A frame that depends on what came before may be another one when it is fixed: then the functions stay.
  const smallest = { ...scenario, frames: differs(plain) ? plain : short };
  const verdict = judge.judge(smallest, { tables: withTables, fresh: true });
  const text = verdict.difference ?? 'only in a router that was used before';
  console.log(
    `\n=== ${scenario.name} (${scenario.frames.length} frames, ${short.length} of them matter)\n${explainDifference(smallest, text)}`,
  );
  if (saved === undefined || smallest.frames !== plain) return;
  mkdirSync(saved, { recursive: true });
  const file = join(saved, `${scenario.name.replace(/\W+/g, '-')}.json`);
  writeFileSync(file, save(smallest, text.split('\n').slice(0, 4).join('\n')));
  console.log(`saved as ${file}`);
}

try {
  for (let n = 0; n < count && differences < stop; n++) {
    const seed = first + n;
    if (!wanted.includes(TOPOLOGIES[seed % TOPOLOGIES.length].name)) continue;
    const scenario = generate(seed);
    const withTables = tables > 0 && ((n / TOPOLOGIES.length) | 0) % tables === 0;
    const verdict = judge.judge(scenario, { tables: withTables });
    done++;
    frames += verdict.frames;
    if (verdict.accepted !== null) accepted.set(verdict.accepted, (accepted.get(verdict.accepted) ?? 0) + 1);
    else if (verdict.difference !== null) {
      differences++;
      report(scenario, withTables);
    }
    if (performance.now() - shown > 2000) {
      shown = performance.now();
      process.stderr.write(
        `differential: ${done} of ${count} scenarios, ${Math.round(done / seconds())} a second, ${differences} differences\n`,
      );
    }
  }
} finally {
  judge.close();
}
const known = [...accepted].map(([name, times]) => `${name} ${times}`).join(', ');
console.log(
  `differential: ${done} scenarios, ${frames} frames, ${differences} unexplained differences` +
    `${known ? `, accepted: ${known}` : ''}; seed ${first}, ${seconds().toFixed(1)} s`,
);
process.exitCode = differences > 0 ? 1 : 0;
