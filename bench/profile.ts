/**
 * Profile: where a fast-path packet's nanoseconds go. A child runs with --cpu-prof; its samples are counted by the
 * function that was running. Functions that V8 has inlined are shown under the one that they were inlined into, unless
 * the profiler's line table names them.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ForwardAnswer } from './memory.ts';
import type { Profile } from './results.ts';
import { type Context, child } from './workload.ts';

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number }; children?: number[] }[];
  samples: number[];
  timeDeltas: number[];
}

/** Self time by function, the largest share first. `from`: only samples after so much of the profile's time (0 … 1). */
export function selfTimes(profile: CpuProfile, from = 0): Profile['rows'] {
  const names = new Map<number, string>();
  const files = new Map<string, string>();
  for (const { id, callFrame } of profile.nodes) {
    const file = callFrame.url.split('/dist/').at(-1)?.replace(/\.js$/, '.ts') ?? '';
    const name = callFrame.functionName || '(anonymous)';
    names.set(id, `${name}\0${file}`);
    files.set(`${name}\0${file}`, callFrame.url === '' ? '' : file);
  }
  const total = profile.timeDeltas.reduce((sum, delta) => sum + delta, 0);
  const times = new Map<string, number>();
  let elapsed = 0;
  let counted = 0;
  profile.samples.forEach((id, n) => {
    elapsed += profile.timeDeltas[n];
    if (elapsed < total * from) return;
    counted += profile.timeDeltas[n];
    const key = names.get(id) ?? '';
    times.set(key, (times.get(key) ?? 0) + profile.timeDeltas[n]);
  });
  return [...times]
    .map(([key, time]) => ({ share: time / counted, function: key.split('\0')[0], file: files.get(key) ?? '' }))
    .sort((a, b) => b.share - a.share);
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
      const answer = await child<ForwardAnswer>({ kind: 'forward', ...task, huge: true, window, windows: 4 }, [
        '--cpu-prof',
        '--cpu-prof-interval=500',
        `--cpu-prof-dir=${folder}`,
      ]);
      const file = readdirSync(folder).find((one) => one.endsWith('.cpuprofile'));
      if (file === undefined) throw new Error(`${name}: expected a profile, got none`);
      // The last third of the time is timed windows and nothing else.
      const rows = selfTimes(JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile, 0.67);
      const nanoseconds = 1e9 / Math.max(...answer.random);
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
