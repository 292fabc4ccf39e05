/**
 * Replay over the API: a capture comes in, is played through the running configuration in a process of its own, and the
 * report goes back. The running router is not touched: its threads, tables and clock are not the replay's.
 *
 * The child gets two files of fixed names in a fresh directory and words that were checked here; no shell is in between.
 * It has a minute, a bound on its memory, and its directory is removed whatever happens. One replay at a time.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCidr } from '../../dataplane/wire/address.ts';
import { packageRoot } from '../package-root.ts';
import { Refusal } from './http.ts';
import type { ApiContext, ApiRequest, Route } from './route.ts';

const MAX_CAPTURE = 32 * 1024 * 1024;
const TIME_MS = 60_000;
const MEMORY_MB = 1024;

let busy = false;

/** The command as the build makes it, also when this file is run from source. */
const COMMAND = join(packageRoot(), 'dist', 'controlplane', 'cli', 'main.js');

export interface ReplayAnswer {
  /** As `sluice replay --json` prints it. */
  report: unknown;
  /** False where `sluice replay` ends with 1: the capture is broken and its rest was not played, or the engine disagreed. */
  ok: boolean;
  /** What it said beside it, a line each. */
  notes: string[];
}

export const REPLAY_ROUTE: Route = {
  method: 'POST',
  path: '/v1/replay',
  summary: 'Plays a capture offline through the running configuration',
  tag: 'replay',
  query: {
    inside: { description: 'prefix whose side of the capture is inside: a capture with both sides of the traffic' },
    port: { description: 'the port that all frames of the capture enter by; instead of `inside`' },
  },
  body: {
    types: ['application/octet-stream', 'application/vnd.tcpdump.pcap'],
    limit: MAX_CAPTURE,
    description: 'pcap or pcapng',
  },
  answer: {
    type: 'application/json',
    description: 'The report of `sluice replay --json`, whether that ended with 0, and its notes',
    schema: {
      type: 'object',
      properties: {
        report: { type: 'object' },
        ok: { type: 'boolean' },
        notes: { type: 'array', items: { type: 'string' } },
      },
    },
  },
  handle: async (context, request) => {
    const words = wordsOf(context, request);
    if (context.configuration === null)
      throw new Refusal(501, 'replay: expected a router that runs from a file, got one that a program embeds');
    if (!existsSync(COMMAND))
      throw new Refusal(501, 'replay: expected the build, got sources only; run "npm run build"');
    if (busy) throw new Refusal(429, 'replay: expected one at a time, got another; ask again when it is done');
    busy = true;
    try {
      return { json: await replay(context.configuration.state().text, request.body, words) };
    } finally {
      busy = false;
    }
  },
};

/** The options of `sluice replay`, with CAPTURE where the file's name goes. */
function wordsOf({ source }: ApiContext, { query }: ApiRequest): (file: string) => string[] {
  const inside = query.get('inside');
  const port = query.get('port');
  if ((inside === null) === (port === null))
    throw new Refusal(400, 'replay: expected either "inside" or "port", got ' + (inside === null ? 'neither' : 'both'));
  if (inside !== null) {
    if (parseCidr(inside) === null)
      throw new Refusal(
        400,
        `inside: expected a prefix such as 192.168.1.0/24, got ${JSON.stringify(inside.slice(0, 80))}`,
      );
    return (file) => ['--capture', file, '--inside', inside];
  }
  const names = source.config.ports.map(({ name }) => name);
  const name = names.find((one) => one === port);
  if (name === undefined)
    throw new Refusal(400, `port: expected one of ${names.join(', ')}, got ${JSON.stringify(port?.slice(0, 80))}`);
  return (file) => ['--in', `${name}=${file}`];
}

async function replay(
  configuration: string,
  capture: Buffer,
  words: (file: string) => string[],
): Promise<ReplayAnswer> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-replay-'));
  try {
    const [config, file] = [join(folder, 'configuration.yaml'), join(folder, 'capture')];
    await writeFile(config, configuration, { mode: 0o600 });
    await writeFile(file, capture, { mode: 0o600 });
    const args = [
      `--max-old-space-size=${MEMORY_MB}`,
      COMMAND,
      'replay',
      config,
      ...words(file),
      '--out',
      join(folder, 'out'),
      '--json',
    ];
    const { code, stdout, stderr } = await run(args, folder);
    const notes = stderr
      .split('\n')
      .filter((line) => line !== '')
      // The directory is nobody's business, and gone by now.
      .map((line) => line.replaceAll(`${folder}/`, '').replace(/^sluice replay: /, ''));
    if (code === 2) throw new Refusal(400, notes.join('\n'));
    try {
      return { report: JSON.parse(stdout), ok: code === 0, notes };
    } catch {
      throw new Refusal(422, `replay: expected a report, got none; ${notes.at(-1) ?? 'it ran out of time or memory'}`);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function run(args: string[], cwd: string): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const options = { cwd, timeout: TIME_MS, killSignal: 'SIGKILL' as const, maxBuffer: 4 * 1024 * 1024, env: {} };
    execFile(process.execPath, args, options, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, stdout, stderr });
    });
  });
}
