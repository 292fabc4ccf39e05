/**
 * `sluice show WHAT`: what a running router knows, asked over its control socket.
 *
 *   sluice show WHAT [-j] [--socket PATH] [FILTER=VALUE ...]      conntrack, nat, offload, route, neigh, link, zones, drops, stages,
 *                                     workers, dhcp6, leases, ra, dns, gateway, domains, trace, who
 *   sluice show conntrack -E          events as they happen
 *   sluice show stages --sample 1     after timing the stages for a second
 *
 * Text as the tools that people know print it (conntrack, ip); `-j` prints JSON with iproute2's keys. Exit codes: 0, 1
 * nobody runs there, 2 usage.
 */
import { ask, askEvents, askShow } from '../api/client.ts';
import type { ConntrackEvent } from '../api/feed.ts';
import { socketPath } from '../api/socket.ts';
import { didYouMean, quote } from '../config/errors.ts';
import { connectionFilter } from '../show/conntrack.ts';
import { VIEW_NAMES } from '../show/index.ts';
import { answering } from './answering.ts';
import { EXIT_OK, type OptionSpec, parseArguments, UsageError } from './args.ts';

const COMMAND = 'sluice show';

export const SHOW_USAGE = `Usage: sluice show WHAT [-j] [--socket PATH] [FILTER=VALUE ...]

WHAT is one of: ${VIEW_NAMES.join(' ')}

  -j, --json        JSON, keys as iproute2 names them
  --socket PATH     control socket of the router (default: ${socketPath()})
  -E, --events      conntrack: NEW, UPDATE and DESTROY lines as they happen, until Ctrl-C
  --sample SECONDS  stages: times them for so long first
  FILTER=VALUE      conntrack, nat: family=ipv4|ipv6 proto=tcp|udp|… src=PREFIX dst=PREFIX sport=N dport=N state=STATE zone=N,
                    or as the conntrack tool has them: -f FAMILY -p PROTO -s PREFIX -d PREFIX --sport N --dport N --state STATE
                    expect: family, proto, src, dst; route, neigh, offload: family=ipv4|ipv6 dev=PORT; link: dev=PORT;
                    leases: line=BYTES; who: address=ADDRESS port=PORT at=MILLISECONDS (see sluice nat who)
`;

/** The conntrack tool's own options for its filters. */
const FILTER_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  family: { kind: 'value', alias: 'f', expected: 'ipv4 or ipv6' },
  proto: { kind: 'value', alias: 'p', expected: 'a protocol' },
  src: { kind: 'value', alias: 's', expected: 'an address or a prefix' },
  dst: { kind: 'value', alias: 'd', expected: 'an address or a prefix' },
  sport: { kind: 'value', expected: 'a port' },
  dport: { kind: 'value', expected: 'a port' },
  state: { kind: 'value', expected: 'a state' },
};

/** @throws UsageError for a filter that is none */
function asked(filters: Readonly<Record<string, string>>): ReturnType<typeof connectionFilter> {
  try {
    return connectionFilter(filters);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError(COMMAND, error.message);
  }
}

/** Prints the events of connections that the filters leave, until Ctrl-C. */
async function follow(socket: string, filters: Readonly<Record<string, string>>, json: boolean): Promise<void> {
  const matches = asked(filters);
  const stop = new AbortController();
  const end = (): void => stop.abort();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, end);
  const use = (kind: string, data: unknown): undefined => {
    if (kind === 'lost') process.stderr.write(`${(data as { events: number }).events} events lost\n`);
    if (kind !== 'conntrack') return;
    const event = data as ConntrackEvent;
    if (matches(event.connection)) process.stdout.write(`${json ? JSON.stringify(event) : event.line}\n`);
  };
  await askEvents(socket, ['conntrack'], use, stop.signal);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, end);
}

/** Runs the command with the arguments behind `show`; resolves to the exit code. @throws UsageError */
export async function showCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(COMMAND, argv, {
    json: { kind: 'flag', alias: 'j' },
    socket: { kind: 'value', expected: 'a path' },
    events: { kind: 'flag', alias: 'E' },
    sample: { kind: 'value', expected: 'a number of seconds' },
    ...FILTER_OPTIONS,
  });
  if (args.flags.has('help')) {
    process.stdout.write(SHOW_USAGE);
    return EXIT_OK;
  }
  const [what, ...rest] = args.operands;
  if (what === undefined || !VIEW_NAMES.includes(what)) {
    const near = what === undefined ? '' : didYouMean(what, VIEW_NAMES);
    const got = what === undefined ? 'nothing' : quote(what);
    throw new UsageError(COMMAND, `expected one of ${VIEW_NAMES.join(', ')}, got ${got}${near && `; ${near}`}`);
  }
  const filters: Record<string, string> = {};
  for (const filter of rest) {
    const at = filter.indexOf('=');
    if (at <= 0) throw new UsageError(`${COMMAND} ${what}`, `expected FILTER=VALUE, got ${quote(filter)}`);
    filters[filter.slice(0, at)] = filter.slice(at + 1);
  }
  for (const name of Object.keys(FILTER_OPTIONS)) {
    const value = args.values.get(name);
    if (value !== undefined) filters[name] = value;
  }
  const socket = args.values.get('socket') ?? socketPath();
  const json = args.flags.has('json');
  if (args.flags.has('events')) {
    if (what !== 'conntrack') throw new UsageError(`${COMMAND} ${what}`, `expected -E with conntrack only`);
    return answering(() => follow(socket, filters, json));
  }
  const sample = args.values.get('sample');
  const seconds = Number(sample);
  if (sample !== undefined && (what !== 'stages' || !(seconds >= 0.01 && seconds <= 10)))
    throw new UsageError(
      `${COMMAND} ${what}`,
      `expected --sample with stages and 0.01 to 10 seconds, got ${quote(sample)}`,
    );
  return answering(async () => {
    if (sample !== undefined) {
      const query = { milliseconds: String(Math.round(seconds * 1000)) };
      await ask(socket, '/v1/stages/sample', { method: 'POST', body: '{}', query, timeout: 30_000 });
    }
    const answer = await askShow(socket, what, filters);
    process.stdout.write(json ? `${JSON.stringify(answer.json)}\n` : answer.text === '' ? '' : `${answer.text}\n`);
  });
}
