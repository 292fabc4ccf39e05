/**
 * `sluice restart DOMAIN`: makes one domain of a running router's control plane anew, while packets and the other domains
 * go on (docs/architecture.md).
 *
 *   sluice restart ipv4|ipv6|management [-j] [--socket PATH]
 *
 * Exit codes: 0, 1 nobody runs there, 2 usage.
 */
import { ask } from '../api/client.ts';
import { socketPath } from '../api/socket.ts';
import { DOMAINS, type DomainView } from '../domain.ts';
import { answering } from './answering.ts';
import { EXIT_OK, oneOperand, parseArguments, UsageError } from './args.ts';

const COMMAND = 'sluice restart';

export const RESTART_USAGE = `Usage: sluice restart ipv4|ipv6|management [-j] [--socket PATH]

Starts one domain of the control plane again. Connections, the engine and the other domains do not notice. Neighbours that
the domain had learned are forgotten; addresses and routes that it had learned stay until it has learned them again, a
minute at most. Leases that are in a file are read from there.

  -j, --json      print the answer as JSON
  --socket PATH   control socket of the router (default: ${socketPath()})
`;

/** Runs the command with the arguments behind `restart`; resolves to the exit code. */
export async function restartCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(COMMAND, argv, {
    json: { kind: 'flag', alias: 'j' },
    socket: { kind: 'value', expected: 'a path' },
  });
  if (args.flags.has('help')) {
    process.stdout.write(RESTART_USAGE);
    return EXIT_OK;
  }
  const name = oneOperand(COMMAND, args.operands, `a domain: ${DOMAINS.join(', ')}`);
  if (!DOMAINS.some((domain) => domain === name))
    throw new UsageError(COMMAND, `expected one of ${DOMAINS.join(', ')}, got "${name}"`);
  return answering(async () => {
    const socket = args.values.get('socket') ?? socketPath();
    const view = await ask<DomainView>(socket, `/v1/restart/${name}`, { method: 'POST', body: '{}' });
    const text = `${view.domain}: ${view.state}, started again ${view.restarts} times, ${view.failures} of them after a failure`;
    process.stdout.write(`${args.flags.has('json') ? JSON.stringify(view) : text}\n`);
  });
}
