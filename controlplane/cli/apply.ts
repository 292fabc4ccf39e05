/**
 * `sluice apply FILE` and `sluice confirm`: another configuration for a running router, without losing sessions.
 *
 *   sluice apply FILE [--diff] [--confirm SECONDS] [-j] [--socket PATH]
 *   sluice confirm [--socket PATH]
 *
 * Exit codes: 0, 1 nobody runs there or the router cannot change so while it runs, 2 usage or a fault in FILE.
 */

import { ApiError, ask } from '../api/client.ts';
import type { ApplyAnswer } from '../api/configuration.ts';
import { socketPath } from '../api/socket.ts';
import { ConfigError, readConfigText } from '../config/index.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, oneOperand, parseArguments, UsageError } from './args.ts';

export const APPLY_USAGE = `Usage: sluice apply FILE [--diff] [--confirm SECONDS] [-j] [--socket PATH]

Makes FILE the configuration of the running router; connections go on where the new one lets them.

  --diff              only say what would change
  --confirm SECONDS   the configuration before comes back unless "sluice confirm" is said in time (60, 60s, 5m)
  -j, --json          print the answer as JSON
  --socket PATH       control socket of the router (default: ${socketPath()})
`;

export const CONFIRM_USAGE = `Usage: sluice confirm [--socket PATH]

Keeps the configuration that "sluice apply --confirm" has put on probation.
`;

/** Applying waits for the workers and may rebuild large tables. */
const TIMEOUT_MS = 60_000;

/** Runs the command with the arguments behind `apply`; resolves to the exit code. */
export async function applyCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments('sluice apply', argv, {
    diff: { kind: 'flag' },
    confirm: { kind: 'value', expected: 'a time such as 60s' },
    json: { kind: 'flag', alias: 'j' },
    socket: { kind: 'value', expected: 'a path' },
  });
  if (args.flags.has('help')) {
    process.stdout.write(APPLY_USAGE);
    return EXIT_OK;
  }
  const file = oneOperand('sluice apply', args.operands, 'a configuration FILE');
  const given = args.values.get('confirm');
  const confirm = given === undefined ? undefined : String(secondsOf(given));
  const only = args.flags.has('diff');
  if (only && confirm !== undefined)
    throw new UsageError('sluice apply', '--confirm: expected without --diff, which applies nothing');
  const text = readConfigText(file);
  return answering(async () => {
    const answer = await ask<ApplyAnswer>(args.values.get('socket') ?? socketPath(), '/v1/apply', {
      method: 'POST',
      query: { name: file, diff: only ? '1' : undefined, confirm },
      type: 'application/yaml',
      body: text,
      timeout: TIMEOUT_MS,
    });
    for (const warning of answer.warnings) process.stderr.write(`warning: ${warning}\n`);
    if (args.flags.has('json')) process.stdout.write(`${JSON.stringify(answer)}\n`);
    else process.stdout.write(said(answer));
  });
}

function said(answer: ApplyAnswer): string {
  const lines = answer.lines.length === 0 ? ['nothing differs'] : [...answer.lines];
  if (answer.applied) {
    lines.push(`applied; ${answer.ended} connections ended`);
    if (answer.confirm !== null)
      lines.push(`the configuration before comes back in ${answer.confirm} s unless you say: sluice confirm`);
  }
  return `${lines.join('\n')}\n`;
}

/** `60`, `60s`, `5m`, `1h`: seconds from 1 to 86400. @throws UsageError */
function secondsOf(text: string): number {
  const match = /^(\d{1,6})([smh]?)$/.exec(text);
  const seconds =
    match === null ? 0 : Number(match[1]) * { '': 1, s: 1, m: 60, h: 3600 }[match[2] as '' | 's' | 'm' | 'h'];
  if (seconds < 1 || seconds > 86_400)
    throw new UsageError('sluice apply', `--confirm: expected a time from 1s to 24h such as 60s, got "${text}"`);
  return seconds;
}

/** Runs the command with the arguments behind `confirm`; resolves to the exit code. */
export async function confirmCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments('sluice confirm', argv, { socket: { kind: 'value', expected: 'a path' } });
  if (args.flags.has('help')) {
    process.stdout.write(CONFIRM_USAGE);
    return EXIT_OK;
  }
  if (args.operands.length > 0)
    throw new UsageError('sluice confirm', `expected no operand, got "${args.operands[0]}"`);
  return answering(async () => {
    await ask(args.values.get('socket') ?? socketPath(), '/v1/confirm', { method: 'POST', body: '{}' });
    process.stdout.write('confirmed: the running configuration stays\n');
  });
}

async function answering(work: () => Promise<void>): Promise<number> {
  try {
    await work();
    return EXIT_OK;
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    if (!(error instanceof ApiError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return error.status === 400 ? EXIT_USAGE : EXIT_FAILED;
  }
}
