/**
 * `sluice trace`: follow packets through the stages of a running router.
 *
 *   sluice trace add STAGE PACKETS      the next packets that STAGE has to do with
 *   sluice trace show [-j]              what was traced (the same as `sluice show trace`)
 *   sluice trace clear
 *
 * Exit codes: 0, 1 nobody runs there, 2 usage.
 */
import { STAGES } from '../../dataplane/drop.ts';
import { ask, askShow } from '../api/client.ts';
import { socketPath } from '../api/socket.ts';
import { answering } from './answering.ts';
import { EXIT_OK, parseArguments, UsageError, wholeNumber } from './args.ts';

const COMMAND = 'sluice trace';

export const TRACE_USAGE = `Usage: sluice trace add STAGE PACKETS | show [-j] | clear   [--socket PATH]

  add STAGE PACKETS  trace the next PACKETS packets that STAGE has to do with (rx: any)
  show               the distinct ways that packets took, with counts, and the last packets in full
  clear              end tracing, forget what was traced
  --socket PATH      control socket of the router (default: ${socketPath()})

STAGE is one of: ${STAGES.join(' ')}
`;

/** Runs the command with the arguments behind `trace`; resolves to the exit code. */
export async function traceCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(COMMAND, argv, {
    socket: { kind: 'value', expected: 'a path' },
    json: { kind: 'flag', alias: 'j' },
  });
  if (args.flags.has('help')) {
    process.stdout.write(TRACE_USAGE);
    return EXIT_OK;
  }
  const [what, stage, count] = args.operands;
  const socket = args.values.get('socket') ?? socketPath();
  if (what === 'show')
    return answering(async () => {
      const answer = await askShow(socket, 'trace');
      process.stdout.write(`${args.flags.has('json') ? JSON.stringify(answer.json) : answer.text}\n`);
    });
  if (what === 'clear') return answering(() => order(socket, { clear: true }));
  if (what !== 'add' || count === undefined || args.operands.length > 3)
    throw new UsageError(COMMAND, `expected add STAGE PACKETS, show or clear, got "${args.operands.join(' ')}"`);
  const packets = wholeNumber(COMMAND, 'PACKETS', count, 1, 1_000_000);
  return answering(() => order(socket, { stage, packets }));
}

async function order(socket: string, body: object): Promise<void> {
  await ask(socket, '/v1/trace', { method: 'POST', body: JSON.stringify(body) });
}
