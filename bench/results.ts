/**
 * Results: what a workload reports, how several runs become one figure, and the file that keeps them.
 *
 * A result is one JSON object: `name`, `value` (median of the runs), `unit`, `peer` ('' none), `ratio` (median of the
 * ratios of neighbouring runs; null without a peer), `runs`, `spread` ((largest − smallest) / median), and beside these
 * `peerValue`, `reference` (the peer's figure is from another run, see reference.json), `note` and `detail`.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type Unit = 'pps' | 'connections/s' | 'bit/s' | 'bytes' | 's' | 'ratio';

export interface Result {
  name: string;
  value: number;
  unit: Unit;
  peer: string;
  peerValue: number | null;
  ratio: number | null;
  /** The peer's value was measured elsewhere. */
  reference: boolean;
  runs: number;
  spread: number;
  note: string;
  detail: Record<string, number>;
}

export interface Skipped {
  name: string;
  skipped: string;
}

export interface Machine {
  cpu: string;
  cores: number;
  memory: number;
  kernel: string;
  node: string;
  date: string;
  commit: string;
}

export interface ResultFile {
  machine: Machine;
  command: string;
  seconds: number;
  results: Result[];
  skipped: Skipped[];
  /** Seconds that each workload took, setting up included. */
  durations?: Record<string, number>;
  limits: Record<string, number>;
  profiles: Profile[];
}

/** Self time by function of one workload, shares of all samples. */
export interface Profile {
  name: string;
  nanoseconds: number;
  rows: { share: number; function: string; file: string }[];
}

/** The repository's root: the first folder above this file that has a package.json. */
export const ROOT = findRoot(dirname(fileURLToPath(import.meta.url)));
export const BENCH = join(ROOT, 'bench');
export const RESULTS = join(BENCH, 'results');

function findRoot(from: string): string {
  for (let at = from; at !== dirname(at); at = dirname(at)) if (existsSync(join(at, 'biome.json'))) return at;
  return process.cwd();
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** (largest − smallest) / median; 0 for a single run and for zeros. */
export function spread(values: readonly number[]): number {
  const middle = median(values);
  if (values.length < 2 || middle === 0) return 0;
  return (Math.max(...values) - Math.min(...values)) / Math.abs(middle);
}

export interface Runs {
  name: string;
  unit: Unit;
  values: readonly number[];
  peer?: string;
  /** One for each of ours, taken directly before or after it. */
  peerValues?: readonly number[];
  note?: string;
  detail?: Record<string, number>;
}

/** One result out of alternating runs. */
export function summarize(runs: Runs): Result {
  const { name, unit, values, peerValues = [] } = runs;
  const paired = peerValues.length > 0;
  if (paired && peerValues.length !== values.length)
    throw new Error(`${name}: expected a peer's run for each of ours, got ${peerValues.length} for ${values.length}`);
  return {
    name,
    value: median(values),
    unit,
    peer: runs.peer ?? '',
    peerValue: paired ? median(peerValues) : null,
    ratio: paired ? median(values.map((value, n) => value / peerValues[n])) : null,
    reference: false,
    runs: values.length,
    spread: spread(values),
    note: runs.note ?? '',
    detail: runs.detail ?? {},
  };
}

export interface Reference {
  name: string;
  peer: string;
  value: number;
  unit: Unit;
  source: string;
}

export function readReferences(): Reference[] {
  return (JSON.parse(readFileSync(join(BENCH, 'reference.json'), 'utf8')) as { references: Reference[] }).references;
}

/** A result beside a figure that was measured elsewhere; both are kept apart from same-run ratios by `reference`. */
export function againstReference(result: Result, reference: Reference): Result {
  if (reference.unit !== result.unit) throw new Error(`reference.json ${reference.name}: unit is not ${result.unit}`);
  return {
    ...result,
    peer: reference.peer,
    peerValue: reference.value,
    ratio: result.value / reference.value,
    reference: true,
    note: [result.note, `reference, other run: ${reference.source}`].filter((text) => text !== '').join('; '),
  };
}

function commandOutput(command: string, args: string[]): string {
  try {
    return execFileSync(command, args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return '';
  }
}

export function machine(): Machine {
  const all = cpus();
  const dirty = commandOutput('git', ['status', '--porcelain', '--untracked-files=no']) === '' ? '' : '+changes';
  return {
    cpu: all[0]?.model ?? 'unknown',
    cores: all.length,
    memory: totalmem(),
    kernel: release(),
    node: process.version,
    date: new Date().toISOString(),
    commit: `${commandOutput('git', ['rev-parse', '--short', 'HEAD']) || 'unknown'}${dirty}`,
  };
}

/**
 * Puts outcomes in the place of those of the same name in the newest full result, each with when and on what commit it was
 * measured. Returns the file's path. Throws when there is no full result, or one was skipped.
 */
export function updateResults(outcomes: readonly (Result | Skipped)[]): string {
  const latest = latestResults();
  if (latest === null) throw new Error('bench/results: expected the result of a full run, got none; run npm run bench');
  const { path, file } = latest;
  const { date, commit } = machine();
  for (const name of new Set(outcomes.map((outcome) => outcome.name))) {
    const fresh = outcomes.filter((outcome) => outcome.name === name);
    const results = fresh.filter((outcome): outcome is Result => !isSkipped(outcome));
    if (results.length < fresh.length) throw new Error(`${name}: expected a figure, got ${JSON.stringify(fresh)}`);
    for (const result of results) result.note += `; measured again ${date}, commit ${commit}`;
    const same = file.results.findIndex((result) => result.name === name);
    const group = name.slice(0, name.lastIndexOf('.') + 1);
    const at = same >= 0 ? same : file.results.findLastIndex((result) => result.name.startsWith(group)) + 1;
    file.results = file.results.filter((result) => result.name !== name);
    file.results.splice(at, 0, ...results);
    file.skipped = file.skipped.filter((skipped) => skipped.name !== name);
  }
  writeFileSync(path, `${JSON.stringify(file, null, 2)}\n`);
  return path;
}

/** Writes the file and returns its path; `label` becomes part of its name (full, quick, only). */
export function writeResults(file: ResultFile, label: string): string {
  mkdirSync(RESULTS, { recursive: true });
  const stamp = file.machine.date.replace(/\.\d+Z$/, 'Z').replaceAll(':', '');
  const path = join(RESULTS, `${stamp}-${label}.json`);
  writeFileSync(path, `${JSON.stringify(file, null, 2)}\n`);
  return path;
}

/** The newest result file of a full run in a folder, and its name; null when there is none. */
export function latestResults(folder = RESULTS): { path: string; file: ResultFile } | null {
  if (!existsSync(folder)) return null;
  const names = readdirSync(folder).filter((name) => name.endsWith('-full.json'));
  const newest = names.sort().at(-1);
  if (newest === undefined) return null;
  const path = join(folder, newest);
  return { path, file: JSON.parse(readFileSync(path, 'utf8')) as ResultFile };
}

const PREFIXES: readonly [number, string][] = [
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
];

/** A figure for people: `23.4 Mpps`, `15.2 Gbit/s`, `82 µs`, `160 bytes`. */
export function formatValue(value: number, unit: Unit): string {
  if (!Number.isFinite(value)) return 'none';
  if (unit === 'ratio') return `${value.toFixed(2)} ×`;
  if (unit === 'bytes') return `${digits(value)} bytes`;
  if (unit === 's') {
    if (value < 1e-3) return `${digits(value * 1e6)} µs`;
    return value < 1 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`;
  }
  const [size, letter] = PREFIXES.find(([least]) => value >= least) ?? [1, ''];
  return `${digits(value / size)} ${letter}${unit === 'connections/s' && letter !== '' ? ' ' : ''}${unit}`;
}

function digits(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size >= 100
    ? value.toFixed(0)
    : size >= 10
      ? value.toFixed(1)
      : size >= 0.01
        ? value.toFixed(2)
        : value.toExponential(1);
}

export function isSkipped(outcome: Result | Skipped): outcome is Skipped {
  return 'skipped' in outcome;
}
