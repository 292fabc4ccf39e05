/**
 * Workload: what main.ts runs. A name, what it needs, and a function that measures; and how a task is run in a child.
 */
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Result, Skipped } from './results.ts';

export interface Context {
  runs: number;
  quick: boolean;
  /** Milliseconds of one timed window. */
  window: number;
  /** Names of all workloads of this run. */
  chosen: ReadonlySet<string>;
  /** Executables that run a peer: called with the workload's name, they print one number in its unit. */
  peers: ReadonlyMap<string, string>;
  /** One line for people about what happens now. */
  progress(text: string): void;
}

export interface Workload {
  name: string;
  /** Part of `--quick`. */
  quick: boolean;
  /** Several results when there are several peers. */
  measure(context: Context): Promise<(Result | Skipped)[]>;
}

const HERE = dirname(fileURLToPath(import.meta.url));
/** The compiled file, also when this one is run from source by a test. */
export const COMPILED = import.meta.url.endsWith('.ts') ? join(HERE, '..', 'dist', 'bench') : HERE;

/** Runs a task of child.ts in a process of its own. Rejects with what it wrote when it failed. */
export function child<T>(task: Record<string, unknown>, nodeOptions: readonly string[] = []): Promise<T> {
  const args = [...nodeOptions, '--max-old-space-size=4096', join(COMPILED, 'child.js'), JSON.stringify(task)];
  return new Promise((resolve, reject) => {
    const process_ = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    process_.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    process_.stderr.setEncoding('utf8').on('data', (text: string) => {
      err = (err + text).slice(-8192);
    });
    process_.on('error', reject);
    process_.on('close', (code) => {
      if (code !== 0) reject(new Error(`${task.kind}: ${messageOf(err) || `exit code ${code}`}`));
      else resolve(JSON.parse(out.trimEnd().split('\n').at(-1) ?? 'null') as T);
    });
  });
}

/** The line of a stack trace that says what happened. */
function messageOf(stderr: string): string {
  const lines = stderr.trim().split('\n');
  return lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1) ?? '';
}

/** Runs a peer's executable and reads its number. */
export function askPeer(file: string, name: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const peer = spawn(file, [name], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    peer.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    peer.on('error', reject);
    peer.on('close', (code) => {
      const value = Number(out.trim().split('\n').at(-1));
      if (code === 0 && value > 0) resolve(value);
      else reject(new Error(`${file} ${name}: expected a number and exit code 0, got "${out.trim()}" and ${code}`));
    });
  });
}
