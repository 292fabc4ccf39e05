/**
 * Profile: where a packet's nanoseconds go. A child or a live router runs with --cpu-prof; the samples are counted by the
 * function that was running; time in the kernel is the system call's function. Functions that V8 has inlined are shown under the one that they were inlined into, unless
 * the profiler's line table names them.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requirements } from '../controlplane/lab/namespace.ts';
import { type Bed, prime, sluiceBed } from './bed.ts';
import { forwardRate, SMALL } from './rate.ts';
import { median, type Profile } from './results.ts';
import { type Context, child } from './workload.ts';

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string }; children?: number[] }[];
  samples: number[];
  timeDeltas: number[];
}

/**
 * Self time by function, the largest share first. `under`: only samples taken while this function was running (or called
 * something that was), as `name file` with the file's path below dist; '' takes all.
 */
export function selfTimes(profile: CpuProfile, under = ''): Profile['rows'] {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const wanted = new Set<number>();
  const take = (id: number): void => {
    wanted.add(id);
    for (const below of nodes.get(id)?.children ?? []) if (!wanted.has(below)) take(below);
  };
  for (const { id, callFrame } of profile.nodes)
    if (under === '' || `${callFrame.functionName} ${fileOf(callFrame.url)}` === under) take(id);
  const rows = new Map<string, Profile['rows'][number]>();
  let counted = 0;
  profile.samples.forEach((id, n) => {
    const frame = nodes.get(id)?.callFrame;
    if (frame === undefined || !wanted.has(id)) return;
    counted += profile.timeDeltas[n];
    const file = fileOf(frame.url);
    const key = `${frame.functionName} ${file}`;
    const row = rows.get(key) ?? { share: 0, function: frame.functionName || '(anonymous)', file };
    row.share += profile.timeDeltas[n];
    rows.set(key, row);
  });
  for (const row of rows.values()) row.share /= counted;
  return [...rows.values()].sort((a, b) => b.share - a.share);
}

/** A module's path below dist, with the source's suffix. */
function fileOf(url: string): string {
  return url.split('/dist/').at(-1)?.replace(/\.js$/, '.ts') ?? '';
}

const FORWARD = { kind: 'forward', under: 'run bench/world.ts' };
const PROFILED = [
  { name: 'memory.nat44.engine.1k', family: 4, flows: 1024, engine: true, ...FORWARD },
  { name: 'memory.nat44.engine.1m', family: 4, flows: 1_048_576, engine: true, ...FORWARD },
  { name: 'memory.ipv6.engine.65k', family: 6, flows: 65_536, engine: true, ...FORWARD },
  { name: 'memory.nat44.slow.65k', family: 4, flows: 65_536, engine: false, ...FORWARD },
  { name: 'memory.new', flows: 1_048_576, kind: 'fresh', under: 'round bench/world.ts' },
] as const;

/** Runs `measure` with the options that make V8 write profiles, and reads what was written, largest file first. */
async function profiled<T>(
  measure: (nodeOptions: string[]) => Promise<T>,
): Promise<{ answer: T; files: CpuProfile[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  try {
    const answer = await measure(['--cpu-prof', '--cpu-prof-interval=500', `--cpu-prof-dir=${folder}`]);
    const texts = readdirSync(folder)
      .filter((one) => one.endsWith('.cpuprofile'))
      .map((one) => readFileSync(join(folder, one), 'utf8'))
      .sort((a, b) => b.length - a.length);
    return { answer, files: texts.map((text) => JSON.parse(text) as CpuProfile) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Profiles what a target rests on, in memory and on devices; `print` shows the tables too. */
export async function measureProfiles(context: Context, print: boolean): Promise<Profile[]> {
  const profiles: Profile[] = [];
  const window = Math.max(context.window, 1000);
  for (const { name, under, ...task } of PROFILED) {
    context.progress(`profile of ${name}`);
    const { answer, files } = await profiled((options) =>
      child<{ sequence: number[]; random: number[] }>({ ...task, huge: true, window, windows: 2 }, options),
    );
    profiles.push(profileOf(name, 1e9 / median([...answer.sequence, ...answer.random]), files, under));
  }
  const missing = requirements([], { tun: true }).join(' | ');
  if (missing === '') {
    const name = 'tap.nat44.64b';
    context.progress(`profile of ${name}`);
    const { answer, files } = await profiled(async (options) => {
      const bed = await profiledBed(options);
      try {
        await prime(bed);
        return (await forwardRate(bed, SMALL, window)).value;
      } finally {
        await bed.close();
      }
    });
    profiles.push(profileOf(name, 1e9 / answer, files, 'run dataplane/worker.ts'));
  }
  if (print) for (const profile of profiles) process.stdout.write(`${formatProfile(profile)}\n`);
  return profiles;
}

/** Node's profiler now and then ends a process with threads when it starts: another attempt. */
async function profiledBed(options: readonly string[]): Promise<Bed> {
  for (let attempt = 1; ; attempt++)
    try {
      return await sluiceBed('tap', options);
    } catch (error) {
      if (attempt === 5) throw error;
    }
}

/** The first of the files that has seen the function. */
function profileOf(name: string, nanoseconds: number, files: readonly CpuProfile[], under: string): Profile {
  for (const file of files) {
    const rows = selfTimes(file, under);
    if (rows.length > 0) return { name, nanoseconds, rows: rows.filter(({ share }) => share >= 0.005) };
  }
  throw new Error(`${name}: expected a profile with ${under}, got none`);
}

export function formatProfile({ name, nanoseconds, rows }: Profile): string {
  const lines = rows.map(
    (row) =>
      `${(row.share * 100).toFixed(1).padStart(6)} % ${(row.share * nanoseconds).toFixed(1).padStart(7)} ns  ${row.function}  ${row.file}`,
  );
  return `${name}: ${nanoseconds.toFixed(1)} ns a packet\n${lines.join('\n')}\n`;
}
