/**
 * `sluice nat who ADDRESS:PORT`: which inside address was behind an outside endpoint.
 *
 * Asks the running router, or without one works out the answer from its configuration (deterministic NAT needs no more)
 * and its block log. Exit codes: 0 found, 1 nobody or no router, 2 usage or configuration.
 */
import { parseAddress } from '../../dataplane/wire/address.ts';
import { ApiError, askShow } from '../api/client.ts';
import { socketPath } from '../api/socket.ts';
import { EXIT_FAILED, EXIT_OK, parseArguments, UsageError } from '../cli/args.ts';
import { type Config, loadConfig } from '../config/index.ts';
import { type BlockEvent, readLog } from './log.ts';
import { findSubscriber, type Subscriber, whoLine } from './who.ts';

const COMMAND = 'sluice nat';

export const NAT_USAGE = `Usage: sluice nat who ADDRESS:PORT [--at TIME] [--config FILE] [--log FILE] [--socket PATH] [-j]

Names the inside address that an outside address and port stood for.

  --at TIME       when: ISO 8601 such as 2026-11-22T00:42:32Z, or seconds since 1970 (default: now)
  --config FILE   answer by this configuration and its nat.log instead of asking a running router
  --log FILE      answer by this block log
  --socket PATH   control socket of the router (default: ${socketPath()})
  -j, --json      JSON
`;

/** ADDRESS:PORT of IPv4. @throws UsageError */
export function parseEndpoint(text: string): { address: string; port: number } {
  const match = /^([\d.]+):(\d{1,5})$/.exec(text);
  const parsed = match === null ? null : parseAddress(match[1]);
  if (match === null || parsed === null || parsed.family !== 4 || Number(match[2]) > 65535)
    throw new UsageError(COMMAND, `expected ADDRESS:PORT such as 203.0.113.5:40123, got "${text}"`);
  return { address: match[1], port: Number(match[2]) };
}

/** Milliseconds since 1970. @throws UsageError */
export function parseTime(text: string): number {
  const time = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text);
  if (Number.isNaN(time))
    throw new UsageError(
      COMMAND,
      `--at: expected a time such as 2026-11-22T00:42:32Z or seconds since 1970, got "${text}"`,
    );
  return time;
}

/**
 * The events of a block log. A log of the configuration that is not there holds nothing: nobody has had a block yet.
 * @throws UsageError
 */
function eventsOf(file: string, mayBeMissing: boolean): BlockEvent[] {
  try {
    return readLog(file);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' && mayBeMissing) return [];
    throw new UsageError(COMMAND, `${file}: expected a block log that can be read, got ${code ?? message}`);
  }
}

/** Runs the command with the arguments behind `nat`; resolves to the exit code. @throws UsageError, ConfigError */
export async function natCommand(argv: readonly string[]): Promise<number> {
  const { operands, flags, values } = parseArguments(COMMAND, argv, {
    at: { kind: 'value', expected: 'a time' },
    config: { kind: 'value', expected: 'a configuration file' },
    log: { kind: 'value', expected: 'a block log' },
    socket: { kind: 'value', expected: 'the path of a control socket' },
    json: { kind: 'flag', alias: 'j' },
  });
  if (flags.has('help')) {
    process.stdout.write(NAT_USAGE);
    return EXIT_OK;
  }
  if (operands[0] !== 'who' || operands.length !== 2)
    throw new UsageError(COMMAND, `expected "who ADDRESS:PORT", got "${operands.join(' ')}"; see ${COMMAND} --help`);
  const { address, port } = parseEndpoint(operands[1]);
  const at = values.get('at');
  const time = at === undefined ? undefined : parseTime(at);
  let found: Subscriber | null;
  if (values.has('config') || values.has('log')) {
    const file = values.get('config');
    const config: Config | null = file === undefined ? null : loadConfig(file);
    const log = values.get('log') ?? config?.nat.log ?? '';
    found = findSubscriber(
      config,
      log === '' ? [] : eventsOf(log, !values.has('log')),
      address,
      port,
      time ?? Number.POSITIVE_INFINITY,
    );
  } else {
    try {
      const filters: Record<string, string> = { address, port: String(port) };
      if (time !== undefined) filters.at = String(time);
      found = (await askShow(values.get('socket') ?? socketPath(), 'who', filters)).json as Subscriber | null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      process.stderr.write(`${error.message}\n`);
      return EXIT_FAILED;
    }
  }
  process.stdout.write(flags.has('json') ? `${JSON.stringify(found)}\n` : `${whoLine(found, address, port)}\n`);
  return found === null ? EXIT_FAILED : EXIT_OK;
}
