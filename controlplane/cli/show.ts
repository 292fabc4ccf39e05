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
import { parseArgs } from 'node:util';
import { ApiError, ask, askEvents, askShow } from '../api/client.ts';
import type { ConntrackEvent } from '../api/feed.ts';
import { socketPath } from '../api/socket.ts';
import { connectionFilter } from '../show/conntrack.ts';
import { VIEW_NAMES } from '../show/index.ts';

export const SHOW_USAGE = `Usage: sluice show WHAT [-j] [--socket PATH] [FILTER=VALUE ...]

WHAT is one of: ${VIEW_NAMES.join(' ')}

  -j, --json        JSON, keys as iproute2 names them
  --socket PATH     control socket of the router (default: ${socketPath()})
  -E, --events      conntrack: NEW, UPDATE and DESTROY lines as they happen, until Ctrl-C
  --sample SECONDS  stages: times them for so long first
  FILTER=VALUE      conntrack, nat: family=ipv4|ipv6 proto=tcp|udp|… src=PREFIX dst=PREFIX sport=N dport=N state=STATE zone=N,
                    or as the conntrack tool has them: -f FAMILY -p PROTO -s PREFIX -d PREFIX --sport N --dport N --state STATE
                    route, neigh, offload: family=ipv4|ipv6 dev=PORT; link: dev=PORT; leases: line=BYTES
`;

/** The conntrack tool's own options for its filters. */
const FILTER_OPTIONS = {
  family: { type: 'string', short: 'f' },
  proto: { type: 'string', short: 'p' },
  src: { type: 'string', short: 's' },
  dst: { type: 'string', short: 'd' },
  sport: { type: 'string' },
  dport: { type: 'string' },
  state: { type: 'string' },
} as const;

/** Prints the events of connections that the filters leave, until Ctrl-C. */
async function follow(socket: string, filters: Readonly<Record<string, string>>, json: boolean): Promise<void> {
  const matches = connectionFilter(filters);
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

/** Runs the command with the arguments behind `show`; resolves to the exit code. */
export async function showCommand(argv: readonly string[]): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        json: { type: 'boolean', short: 'j' },
        socket: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
        events: { type: 'boolean', short: 'E' },
        sample: { type: 'string' },
        ...FILTER_OPTIONS,
      },
    });
    if (values.help) {
      process.stdout.write(SHOW_USAGE);
      return 0;
    }
    const [what, ...rest] = positionals;
    if (what === undefined || !VIEW_NAMES.includes(what))
      throw new Error(
        `show: expected one of ${VIEW_NAMES.join(', ')}, got ${what === undefined ? 'nothing' : `"${what}"`}`,
      );
    const filters: Record<string, string> = {};
    for (const filter of rest) {
      const at = filter.indexOf('=');
      if (at <= 0) throw new Error(`show ${what}: expected FILTER=VALUE, got "${filter}"`);
      filters[filter.slice(0, at)] = filter.slice(at + 1);
    }
    for (const name of Object.keys(FILTER_OPTIONS) as (keyof typeof FILTER_OPTIONS)[]) {
      const value = values[name];
      if (value !== undefined) filters[name] = value;
    }
    const socket = values.socket ?? socketPath();
    if (values.events) {
      if (what !== 'conntrack') throw new Error(`show ${what}: expected -E with conntrack only`);
      await follow(socket, filters, values.json ?? false);
      return 0;
    }
    if (values.sample !== undefined) {
      const seconds = Number(values.sample);
      if (what !== 'stages' || !(seconds >= 0.01 && seconds <= 10))
        throw new Error(`show ${what}: expected --sample with stages and 0.01 to 10 seconds, got "${values.sample}"`);
      const query = { milliseconds: String(Math.round(seconds * 1000)) };
      await ask(socket, '/v1/stages/sample', { method: 'POST', body: '{}', query, timeout: 30_000 });
    }
    const answer = await askShow(socket, what, filters);
    process.stdout.write(
      values.json ? `${JSON.stringify(answer.json)}\n` : answer.text === '' ? '' : `${answer.text}\n`,
    );
    return 0;
  } catch (error) {
    if (error instanceof ApiError) {
      process.stderr.write(`${error.message}\n`);
      return error.status === 400 ? 2 : 1;
    }
    process.stderr.write(`${(error as Error).message}\n\n${SHOW_USAGE}`);
    return 2;
  }
}
