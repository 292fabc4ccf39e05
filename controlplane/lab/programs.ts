/**
 * Programs of a lab: what must be installed, running them to their end or in the background, waiting for a condition
 * with a bound. namespace.ts puts them into namespaces; nothing here knows of those.
 */
import { type ChildProcess, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export interface RunOptions {
  /** Milliseconds until the program is killed; default 30000. */
  timeout?: number;
  input?: string;
  env?: Record<string, string>;
  /** false: a failing program is returned, not thrown. */
  check?: boolean;
}
export interface RunResult {
  status: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
  timedOut: boolean;
}

/** A program in the background. Its output is kept, the last mebibyte of each stream. */
export interface LabProcess {
  readonly pid: number;
  readonly ns: string;
  readonly command: string;
  stdout(): string;
  stderr(): string;
  /** False once it has ended. */
  running(): boolean;
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
  /** Ends it and its children: the signal, then SIGKILL after `grace` ms. */
  stop(signal?: NodeJS.Signals, grace?: number): Promise<void>;
}

const KEEP_OUTPUT = 1 << 20;
/** A program that is waited for may say so much; more ends it. */
const MAX_OUTPUT = 1 << 26;

/** A failed lab step, in the one form of errors for people. */
export class LabError extends Error {
  constructor(where: string, expected: string, got: string, advice: string) {
    super(`${where}: expected ${expected}, got ${got}${advice === '' ? '' : `; ${advice}`}`);
    this.name = 'LabError';
  }
}

/** Where a program is, in PATH and the system directories that an ordinary user's PATH lacks; null when nowhere. */
export function findProgram(name: string): string | null {
  for (const dir of [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin']) {
    try {
      const path = join(dir, name);
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // not here
    }
  }
  return null;
}

let probed: string[] | undefined;

/**
 * What keeps a lab from running on this machine, one sentence each; empty when nothing does. `programs` are further
 * commands that the caller needs (curl, nft ...). `tun: true` also asks for TAP devices.
 */
export function requirements(programs: readonly string[] = [], options: { tun?: boolean } = {}): string[] {
  const missing: string[] = [];
  if (process.platform !== 'linux') return [`lab: expected Linux, got ${process.platform}; use a Linux machine`];
  if (probed === undefined) probed = probe();
  missing.push(...probed);
  if (options.tun && !existsSync('/dev/net/tun'))
    missing.push('/dev/net/tun: expected a device, got nothing; run "modprobe tun", or pass it to the container');
  for (const name of programs)
    if (findProgram(name) === null) missing.push(`${name}: expected in PATH, got nothing; install it`);
  return missing;
}

function probe(): string[] {
  if (findProgram('ip') === null) return ['ip: expected in PATH, got nothing; install iproute2'];
  const uid = process.getuid?.() ?? -1;
  const name = `sluice-${process.pid}-0-probe`;
  const add = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8', timeout: 20_000 });
  if (add.status === 0) {
    spawnSync('ip', ['netns', 'del', name], { timeout: 20_000 });
    return [];
  }
  const got = (add.stderr || String(add.error ?? 'no answer')).trim().split('\n')[0];
  return [
    uid === 0
      ? `network namespaces: expected "ip netns add" to work, got "${got}"; give the container CAP_NET_ADMIN and CAP_SYS_ADMIN`
      : `network namespaces: expected root, got user ${uid} ("${got}"); run it with sudo`,
  ];
}

/** Runs one of the system's own tools with text on its standard input; throws LabError when it fails. */
export function tool(where: string, command: string, args: readonly string[], input: string): string {
  const done = spawnSync(command, args, { input, encoding: 'utf8', timeout: 30_000, maxBuffer: 1 << 24 });
  if (done.status === 0) return done.stdout;
  const got = (done.stderr || String(done.error ?? `signal ${done.signal}`)).trim();
  // `ip -batch` names the line of its input that failed.
  const line = /Command failed -:(\d+)/.exec(got);
  const culprit = line ? `"${input.split('\n')[Number(line[1]) - 1]}"` : `${command} ${args.join(' ')}`;
  throw new LabError(where, `${culprit} to succeed`, got.replace(/\s*\n\s*/g, ' '), '');
}

/** Blocks the thread for some milliseconds: only for the synchronous shutdown. */
export function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** A process that has ended but is not yet reaped counts as gone: it holds no namespace. */
export function isGone(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return /^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return true;
  }
}

/** `group`: the whole process group that `pid` leads. */
export function killQuietly(pid: number, signal: NodeJS.Signals, group = false): void {
  if (pid <= 1) return; // a program that never started has no pid, and kill(-1) means everybody
  try {
    process.kill(group ? -pid : pid, signal);
  } catch {
    // it is gone already
  }
}

/**
 * Polls `condition` until it returns something truthy and resolves with that; bounded by `timeout` ms (default 20000).
 * `what` names the thing awaited in the error. Errors thrown by the condition end the wait.
 */
export async function waitFor<T>(
  what: string,
  condition: () => T | Promise<T>,
  options: { timeout?: number; every?: number; detail?: () => string } = {},
): Promise<NonNullable<T>> {
  const timeout = options.timeout ?? 20_000;
  const end = performance.now() + timeout;
  for (;;) {
    const result = await condition();
    if (result) return result as NonNullable<T>;
    if (performance.now() >= end)
      throw new LabError('lab', `${what} within ${timeout} ms`, options.detail?.() || 'nothing', '');
    await new Promise((resolve) => setTimeout(resolve, options.every ?? 5));
  }
}

/**
 * Runs a program to its end. Rejects with LabError (`where`) when it fails or takes too long, unless `check: false`.
 * Its process id, which is also its process group's, is in `pids` for as long as it runs.
 */
export function runProgram(
  where: string,
  argv: readonly string[],
  options: RunOptions = {},
  pids: Set<number> = new Set(),
): Promise<RunResult> {
  const timeout = options.timeout ?? 30_000;
  return new Promise((resolve, reject) => {
    // A process group of its own, so that a shell's children end with it.
    const child = spawn(argv[0], argv.slice(1), {
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    const said = { stdout: '', stderr: '' };
    let timedOut = false;
    let ended = false;
    const kill = (): void => killQuietly(child.pid ?? -1, 'SIGKILL', true);
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, timeout);
    const finish = (status: number | null, signal: string | null): void => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      if (child.pid !== undefined) pids.delete(child.pid);
      const result = { status, signal, ...said, timedOut };
      const failure = options.check === false ? null : failureOf(where, argv, result, timeout);
      if (failure) reject(failure);
      else resolve(result);
    };
    for (const stream of ['stdout', 'stderr'] as const)
      child[stream].setEncoding('utf8').on('data', (text: string) => {
        said[stream] += text;
        if (said[stream].length > MAX_OUTPUT) kill();
      });
    child.on('error', (error) => {
      said.stderr += error.message;
      finish(null, null);
    });
    child.on('close', finish);
    if (child.pid !== undefined) pids.add(child.pid);
    child.stdin.on('error', () => {}); // a program that does not read its input is no error
    child.stdin.end(options.input ?? '');
  });
}

/** The same, synchronously. */
export function runProgramSync(where: string, argv: readonly string[], options: RunOptions = {}): RunResult {
  const timeout = options.timeout ?? 30_000;
  const done: SpawnSyncReturns<string> = spawnSync(argv[0], argv.slice(1), {
    timeout,
    killSignal: 'SIGKILL',
    maxBuffer: 1 << 26,
    encoding: 'utf8',
    input: options.input ?? '',
    env: { ...process.env, ...options.env },
  });
  const timedOut = (done.error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT';
  const stderr = done.stderr || (done.error && !timedOut ? done.error.message : '');
  const result = { status: done.status, signal: done.signal, stdout: done.stdout ?? '', stderr, timedOut };
  const failure = options.check === false ? null : failureOf(where, argv, result, timeout);
  if (failure) throw failure;
  return result;
}

function failureOf(where: string, argv: readonly string[], r: RunResult, timeout: number): LabError | null {
  if (r.status === 0) return null;
  const said = (r.stderr.trim() || r.stdout.trim()).split('\n').slice(-4).join(' / ');
  const got = r.timedOut ? `no end after ${timeout} ms` : r.signal ? `signal ${r.signal}` : `exit code ${r.status}`;
  return new LabError(where, `"${argv.join(' ')}" to succeed`, got, said);
}

/** Starts a program in the background. */
export function background(
  file: string,
  args: readonly string[],
  env: Record<string, string>,
  label: { ns: string; command: string },
): LabProcess {
  // A process group of its own: its children go with it, and a Ctrl-C at the terminal reaches it through close() only.
  const child: ChildProcess = spawn(file, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const kept = { stdout: '', stderr: '' };
  let alive = true;
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream]?.setEncoding('utf8').on('data', (text: string) => {
      kept[stream] = (kept[stream] + text).slice(-KEEP_OUTPUT);
    });
  const pid = child.pid ?? -1;
  const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    const finish = (code: number | null, signal: string | null) => {
      alive = false;
      resolve({ code, signal });
    };
    child.on('error', (error) => {
      kept.stderr += String(error);
      finish(null, null);
    });
    child.on('close', finish);
  });
  return {
    pid,
    ...label,
    stdout: () => kept.stdout,
    stderr: () => kept.stderr,
    running: () => alive,
    exited,
    async stop(signal = 'SIGTERM', grace = 5000) {
      if (!alive || pid < 0) return;
      killQuietly(pid, signal, true);
      const hard = setTimeout(() => killQuietly(pid, 'SIGKILL', true), grace);
      await exited;
      clearTimeout(hard);
    },
  };
}
