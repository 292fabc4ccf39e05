/**
 * `sluice capture`: frames of a running router as pcapng, with what became of each, into a file or a pipe.
 *
 *   sluice capture -w FILE|- [--port PORT ...] [--drops] [--flow FLOW] [--stage STAGE] [--snap BYTES]
 *                  [--count FRAMES] [--seconds N] [--socket PATH]
 *
 * Ends at Ctrl-C, when the reader of the pipe has gone, or after FRAMES or N seconds; a file always ends with a whole
 * block, a pipe unless its reader has stopped in the middle of one. Exit codes: 0, 1 nobody runs there or the file cannot be written, 2 usage.
 */
import { type IncomingMessage, request } from 'node:http';
import { ApiError, refusal } from '../api/client.ts';
import { socketPath } from '../api/socket.ts';
import { Blocks } from '../capture/blocks.ts';
import { answering } from './answering.ts';
import { EXIT_OK, parseArguments, UsageError, wholeNumber } from './args.ts';
import { CaptureTarget } from './capture-target.ts';

const COMMAND = 'sluice capture';
/** How often a reader that is slow is tried, and a named pipe that has none; and how long it has for its last block. */
const RETRY_MS = 5;
const READER_MS = 100;
const LAST_BLOCK_MS = 1000;

export const CAPTURE_USAGE = `Usage: sluice capture -w FILE|- [--port PORT ...] [--drops] [--flow FLOW] [--stage STAGE]
                      [--snap BYTES] [--count FRAMES] [--seconds N] [--socket PATH]

Writes frames as pcapng: an interface for each port, the direction, one packet identifier for what came in and what left
because of it, and a comment: why it was dropped, how it was translated.

  sluice capture -w - | wireshark -k -i -
  sluice capture -w - --drops | tshark -r - -T fields -e frame.comment

  -w FILE         file to write, - for the standard output
  --port PORT     only this port; may be repeated
  --drops         only what is dropped
  --flow FLOW     only this flow, both directions: "tcp 192.168.1.10:4000 > 198.51.100.7:443", any at either place
  --stage STAGE   only packets that this stage of the path had to do with
  --snap BYTES    bytes kept of each frame
  --count FRAMES  end after so many frames
  --seconds N     end after N seconds
  --socket PATH   control socket of the router (default: ${socketPath()})
`;

/** Runs the command with the arguments behind `capture`; resolves to the exit code. */
export async function captureCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(COMMAND, argv, {
    write: { kind: 'value', alias: 'w', expected: 'a file, or -' },
    port: { kind: 'list', expected: 'the name of a port' },
    drops: { kind: 'flag' },
    flow: { kind: 'value', expected: 'a flow' },
    stage: { kind: 'value', expected: 'a stage' },
    snap: { kind: 'value', expected: 'a number of bytes' },
    count: { kind: 'value', expected: 'a number of frames' },
    seconds: { kind: 'value', expected: 'a number of seconds' },
    socket: { kind: 'value', expected: 'a path' },
  });
  if (args.flags.has('help')) {
    process.stdout.write(CAPTURE_USAGE);
    return EXIT_OK;
  }
  const file = args.values.get('write');
  if (file === undefined || args.operands.length > 0)
    throw new UsageError(COMMAND, `expected -w FILE or -w -, got ${args.operands[0] ?? 'nothing'}`);
  if (file === '-' && process.stdout.isTTY)
    throw new UsageError(COMMAND, '-w -: expected a pipe or a file as standard output, got a terminal');
  const query = new URLSearchParams();
  for (const port of args.lists.get('port') ?? []) query.append('port', port);
  if (args.flags.has('drops')) query.set('drops', '1');
  for (const name of ['flow', 'stage', 'snap']) {
    const value = args.values.get(name);
    if (value !== undefined) query.set(name, value);
  }
  const limit = (name: string): number => {
    const text = args.values.get(name);
    return text === undefined ? 0 : wholeNumber(COMMAND, name, text, 1, 1_000_000_000);
  };
  const [count, seconds] = [limit('count'), limit('seconds')];
  return answering(() => stream(args.values.get('socket') ?? socketPath(), query, file, count, seconds));
}

/** Reads the stream until it is enough. Errors: ApiError. */
function stream(
  socketPath: string,
  query: URLSearchParams,
  file: string,
  count: number,
  seconds: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const blocks = new Blocks(count);
    const target = new CaptureTarget(file);
    let done = false;
    let stopping = false;
    let over = false;
    let missing = 0;
    let again: NodeJS.Timeout | undefined;
    const end = (error?: Error): void => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      clearTimeout(again);
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, stop);
      asked.destroy();
      missing += target.close();
      if (error !== undefined) {
        reject(error);
        return;
      }
      const lost = blocks.lost > 0 ? `, ${blocks.lost} lost: the capture could not keep up` : '';
      process.stderr.write(`${blocks.frames - missing} frames${lost}\n`);
      resolve();
    };
    const stop = (): void => {
      if (stopping || !target.waiting) {
        end();
        return;
      }
      // The reader is slow, or asleep: it has a moment for the rest of the block that it is in.
      stopping = true;
      clearTimeout(timer);
      missing += target.trim();
      timer = setTimeout(end, LAST_BLOCK_MS);
    };
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop);
    let timer = setTimeout(stop, seconds > 0 ? seconds * 1000 : 2 ** 31 - 1);
    const refused = (text: string): Error => new ApiError(text, 0);
    const asked = request({ socketPath, path: `/v1/capture?${query}`, agent: false }, (response: IncomingMessage) => {
      if (response.statusCode !== 200) {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => {
          text += part;
        });
        response.on('end', () => end(new ApiError(errorOf(text), response.statusCode ?? 0)));
        return;
      }
      /** What became of a write: goes on, waits for the reader, or ends. */
      const judge = (fault: string): void => {
        if (fault !== '' && fault !== 'EPIPE') end(refused(`${file}: expected room to write, got ${fault}`));
        else if (fault !== '') end();
        else if (target.waiting) {
          response.pause();
          again = setTimeout(() => judge(target.push()), RETRY_MS);
        } else if (blocks.enough || stopping || over) end();
        else response.resume();
      };
      const begin = (): void => {
        try {
          // The router has agreed: only now is a file of this name given up.
          if (!target.open()) {
            again = setTimeout(begin, READER_MS);
            return;
          }
        } catch (error) {
          end(refused(`${file}: expected a file that can be written, got ${(error as Error).message}`));
          return;
        }
        response.on('data', (bytes: Buffer) => judge(target.write(blocks.take(bytes))));
      };
      response.on('error', () => {});
      response.on('close', () => {
        over = true;
        if (!target.waiting) end();
      });
      begin();
    });
    asked.on('error', (error: NodeJS.ErrnoException) => end(refusal(socketPath, error)));
    asked.end();
  });
}

function errorOf(text: string): string {
  try {
    return (JSON.parse(text) as { error: string }).error;
  } catch {
    return 'the request was refused';
  }
}
