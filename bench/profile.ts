/**
 * Profile: where a fast-path packet's nanoseconds go. A child runs with --cpu-prof; its samples are counted by the
 * function that was running. Functions that V8 has inlined are shown under the one that they were inlined into, unless
 * the profiler's line table names them.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ForwardAnswer } from './memory.ts';
import { median, type Profile } from './results.ts';
import { type Context, child } from './workload.ts';

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string }; children?: number[] }[];
  samples: number[];
  timeDeltas: number[];
}

/**
 * Self time by function, the largest share first. `under`: only samples taken while a function of this name was running
 * (or called something that was); '' takes all.
 */
export function selfTimes(profile: CpuProfile, under = ''): Profile['rows'] {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const wanted = new Set<number>();
  const take = (id: number): void => {
    wanted.add(id);
    for (const below of nodes.get(id)?.children ?? []) if (!wanted.has(below)) take(below);
  };
  for (const { id, callFrame } of profile.nodes) if (under === '' || callFrame.functionName === under) take(id);
  const rows = new Map<string, Profile['rows'][number]>();
  let counted = 0;
  profile.samples.forEach((id, n) => {
    const frame = nodes.get(id)?.callFrame;
    if (frame === undefined || !wanted.has(id)) return;
    counted += profile.timeDeltas[n];
    const file = frame.url.split('/dist/').at(-1)?.replace(/\.js$/, '.ts') ?? '';
    const key = `${frame.functionName} ${file}`;
    const row = rows.get(key) ?? { share: 0, function: frame.functionName || '(anonymous)', file };
    row.share += profile.timeDeltas[n];
    rows.set(key, row);
  });
  for (const row of rows.values()) row.share /= counted;
  return [...rows.values()].sort((a, b) => b.share - a.share);
}

const PROFILED = [
  { name: 'memory.nat44.engine.1k', family: 4, flows: 1024, engine: true },
  { name: 'memory.nat44.engine.1m', family: 4, flows: 1_048_576, engine: true },
  { name: 'memory.nat44.slow.65k', family: 4, flows: 65_536, engine: false },
] as const;

/** Profiles three workloads; `print` shows the tables too. */
export async function measureProfiles(context: Context, print: boolean): Promise<Profile[]> {
  const profiles: Profile[] = [];
  for (const { name, ...task } of PROFILED) {
    context.progress(`profile of ${name}`);
    const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
    try {
      const window = Math.max(context.window, 1000);
      const answer = await child<ForwardAnswer>({ kind: 'forward', ...task, huge: true, window, windows: 2 }, [
        '--cpu-prof',
        '--cpu-prof-interval=500',
        `--cpu-prof-dir=${folder}`,
      ]);
      const file = readdirSync(folder).find((one) => one.endsWith('.cpuprofile'));
      if (file === undefined) throw new Error(`${name}: expected a profile, got none`);
      const rows = selfTimes(JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile, 'run');
      const nanoseconds = 1e9 / median([...answer.sequence, ...answer.random]);
      profiles.push({ name, nanoseconds, rows: rows.filter(({ share }) => share >= 0.005) });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  if (print) for (const profile of profiles) process.stdout.write(`${formatProfile(profile)}\n`);
  return profiles;
}

export function formatProfile({ name, nanoseconds, rows }: Profile): string {
  const lines = rows.map(
    (row) =>
      `${(row.share * 100).toFixed(1).padStart(6)} % ${(row.share * nanoseconds).toFixed(1).padStart(7)} ns  ${row.function}  ${row.file}`,
  );
  return `${name}: ${nanoseconds.toFixed(1)} ns a packet\n${lines.join('\n')}\n`;
}
