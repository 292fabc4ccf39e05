/**
 * `sluice show WHAT`: what a running router knows, asked over its control socket.
 *
 *   sluice show conntrack|nat|offload|route|neigh|link|drops|stages|workers|dhcp6 [-j] [--socket PATH] [FILTER=VALUE ...]
 *
 * Text as the tools that people know print it (conntrack, ip); `-j` prints JSON with iproute2's keys. Exit codes: 0, 1
 * nobody runs there, 2 usage.
 */
import { parseArgs } from 'node:util';
import { ApiError, askShow } from '../api/client.ts';
import { socketPath } from '../api/socket.ts';
import { VIEWS } from '../show/index.ts';

export const SHOW_USAGE = `usage: sluice show WHAT [-j] [--socket PATH] [FILTER=VALUE ...]

WHAT is one of: ${Object.keys(VIEWS).join(' ')}

  -j, --json        JSON, keys as iproute2 names them
  --socket PATH     control socket of the router (default: ${socketPath()})
  FILTER=VALUE      conntrack, nat: family=ipv4|ipv6 proto=tcp|udp|… src=ADDRESS dst=ADDRESS sport=N dport=N
                    route, neigh, offload: family=ipv4|ipv6 dev=PORT; link: dev=PORT
`;

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
      },
    });
    if (values.help) {
      process.stdout.write(SHOW_USAGE);
      return 0;
    }
    const [what, ...rest] = positionals;
    if (what === undefined || !Object.hasOwn(VIEWS, what))
      throw new Error(
        `show: expected one of ${Object.keys(VIEWS).join(', ')}, got ${what === undefined ? 'nothing' : `"${what}"`}`,
      );
    const filters: Record<string, string> = {};
    for (const filter of rest) {
      const at = filter.indexOf('=');
      if (at <= 0) throw new Error(`show ${what}: expected FILTER=VALUE, got "${filter}"`);
      filters[filter.slice(0, at)] = filter.slice(at + 1);
    }
    const answer = await askShow(values.socket ?? socketPath(), what, filters);
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
