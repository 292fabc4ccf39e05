/**
 * The bench: `npm run bench [-- OPTION ...]`. One command, every figure that the project states.
 *
 * Each workload runs alone, one after the other, alternating with its peers. What is measured and what is left out stands
 * in README.md; results go to bench/results/, and from there into the README's table, the chart and docs/performance.md.
 */
import { parseArgs } from 'node:util';
import { writeDocuments } from './documents.ts';
import { checkBounds } from './guard.ts';
import { memoryWorkloads } from './in-memory.ts';
import { liveWorkloads } from './on-devices.ts';
import { measureProfiles } from './profile.ts';
import {
  isSkipped,
  machine,
  type Profile,
  type Result,
  type ResultFile,
  type Skipped,
  updateResults,
  writeResults,
} from './results.ts';
import { figure } from './table.ts';
import { type Context, child, type Workload } from './workload.ts';

const USAGE = `usage: npm run bench [-- OPTION ...]

  --only PREFIX     only workloads whose name begins so; repeatable
  --list            print the names and end
  --json            one JSON object per line instead of a table
  --quick           a minute's worth for CI: own ratios against bench/bounds.json, exit code 1 on a regression
  --runs N          runs of each workload, alternating with its peer (5)
  --window SECONDS  length of one timed run (2)
  --profile         where a fast-path packet's nanoseconds go: self time by function
  --vpp FILE        executable that measures VPP: called with a workload's name, it prints one number in its unit
  --ovs FILE        the same for Open vSwitch
  --out LABEL       write bench/results/DATE-LABEL.json although this is no full run
  --update          put the results into the newest full result file, marked as measured again, and write the documents anew
  --documents       only write README table, chart and docs/performance.md anew from the newest full result
`;

interface Options {
  help: boolean;
  only: string[];
  list: boolean;
  json: boolean;
  quick: boolean;
  profile: boolean;
  documents: boolean;
  update: boolean;
  runs: number;
  window: number;
  peers: Map<string, string>;
  out: string;
}

class UsageError extends Error {}

export function readOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      only: { type: 'string', multiple: true },
      help: { type: 'boolean', short: 'h' },
      list: { type: 'boolean' },
      json: { type: 'boolean' },
      quick: { type: 'boolean' },
      profile: { type: 'boolean' },
      documents: { type: 'boolean' },
      update: { type: 'boolean' },
      runs: { type: 'string' },
      window: { type: 'string' },
      vpp: { type: 'string' },
      ovs: { type: 'string' },
      out: { type: 'string' },
    },
  });
  const quick = values.quick ?? false;
  const number = (name: 'runs' | 'window', fallback: number, least: number): number => {
    const text = values[name];
    if (text === undefined) return fallback;
    const value = Number(text);
    if (!(value >= least) || (name === 'runs' && !Number.isInteger(value)))
      throw new UsageError(`--${name}: expected a number of at least ${least}, got "${text}"`);
    return value;
  };
  const peers = new Map<string, string>();
  for (const peer of ['vpp', 'ovs'] as const) if (values[peer] !== undefined) peers.set(peer, values[peer]);
  return {
    help: values.help ?? false,
    only: values.only ?? [],
    list: values.list ?? false,
    json: values.json ?? false,
    quick,
    profile: values.profile ?? false,
    documents: values.documents ?? false,
    update: values.update ?? false,
    runs: number('runs', quick ? 3 : 5, 1),
    window: number('window', quick ? 0.4 : 2, 0.05) * 1000,
    peers,
    out: values.out ?? '',
  };
}

/** The workloads that the options ask for. */
export function choose(all: readonly Workload[], options: Pick<Options, 'only' | 'quick'>): Workload[] {
  return all.filter(
    (workload) =>
      (!options.quick || workload.quick) &&
      (options.only.length === 0 || options.only.some((prefix) => workload.name.startsWith(prefix))),
  );
}

function say(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

function printOutcome(outcome: Result | Skipped, json: boolean): void {
  say('');
  if (json) {
    process.stdout.write(`${JSON.stringify(outcome)}\n`);
    return;
  }
  if (isSkipped(outcome)) {
    process.stdout.write(`${outcome.name.padEnd(28)} skipped: ${outcome.skipped}\n`);
    return;
  }
  const { name, peer, ratio, reference, runs, spread } = outcome;
  const beside = ratio === null ? '' : `${ratio.toFixed(2)} × ${peer}${reference ? ' (reference, other run)' : ''}`;
  const doubt = runs > 1 ? `± ${(spread * 50).toFixed(0)} %` : '';
  process.stdout.write(`${name.padEnd(28)} ${figure(outcome).padStart(16)} ${doubt.padStart(6)}  ${beside}\n`);
}

async function measureAll(
  workloads: readonly Workload[],
  context: Context,
  json: boolean,
  durations: Record<string, number>,
): Promise<(Result | Skipped)[]> {
  const outcomes: (Result | Skipped)[] = [];
  for (const workload of workloads) {
    const begin = performance.now();
    let found: (Result | Skipped)[];
    try {
      found = await workload.measure(context);
    } catch (error) {
      // One workload that fails must not cost the others; it is said, and the exit code tells.
      found = [{ name: workload.name, skipped: `failed: ${(error as Error).message}` }];
      process.exitCode = 1;
    }
    for (const outcome of found) {
      outcomes.push(outcome);
      printOutcome(outcome, json);
    }
    durations[workload.name] = Math.round((performance.now() - begin) / 1000);
  }
  return outcomes;
}

async function main(argv: readonly string[]): Promise<void> {
  const options = readOptions(argv);
  if (options.help) {
    process.stdout.write(USAGE);
    return;
  }
  if (options.documents) {
    writeDocuments();
    return;
  }
  const workloads = choose([...memoryWorkloads(), ...liveWorkloads()], options);
  if (options.list) {
    for (const { name } of workloads) process.stdout.write(`${name}\n`);
    return;
  }
  if (workloads.length === 0)
    throw new UsageError(`--only: expected the beginning of a workload's name, got "${options.only}"`);
  const begin = performance.now();
  const context: Context = {
    runs: options.runs,
    quick: options.quick,
    window: options.window,
    chosen: new Set(workloads.map(({ name }) => name)),
    peers: options.peers,
    progress: (text) => say(`${text}  (${((performance.now() - begin) / 1000).toFixed(0)} s)`),
  };
  let profiles: Profile[] = [];
  let outcomes: (Result | Skipped)[] = [];
  const full = !options.quick && options.only.length === 0;
  if (options.profile || full) profiles = await measureProfiles(context, options.profile && !options.json);
  const durations: Record<string, number> = {};
  if (!options.profile) outcomes = await measureAll(workloads, context, options.json, durations);
  let limits: Record<string, number> = {};
  if (full) {
    context.progress('limits of the machine');
    limits = await child<Record<string, number>>({ kind: 'limits', window: 500 });
  }
  say('');
  if (options.quick && !checkBounds(outcomes)) process.exitCode = 1;
  if (options.update) {
    process.stderr.write(`${updateResults(outcomes)}\n`);
    writeDocuments();
    return;
  }
  if ((!full || options.profile) && options.out === '') return;
  const file: ResultFile = {
    machine: machine(),
    command: `npm run bench${argv.length > 0 ? ` -- ${argv.join(' ')}` : ''}`,
    seconds: Math.round((performance.now() - begin) / 1000),
    results: outcomes.filter((outcome): outcome is Result => !isSkipped(outcome)),
    skipped: outcomes.filter(isSkipped),
    durations,
    limits,
    profiles,
  };
  const path = writeResults(file, options.out === '' ? 'full' : options.out);
  process.stderr.write(`${path}\n`);
  if (options.out === '') writeDocuments();
}

if (process.argv[1]?.endsWith('main.js'))
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    const usage = error instanceof UsageError || (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
    process.stderr.write(
      usage ? `bench: ${(error as Error).message}\n\n${USAGE}` : `bench: ${(error as Error).stack}\n`,
    );
    process.exitCode = usage ? 2 : 1;
  }
