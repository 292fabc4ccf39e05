/**
 * `sluice explain`: what the router would do with a packet, stage by stage, and why.
 *
 *   sluice explain --port PORT --frame FILE|HEX ... | --flow FLOW [-j] [--config FILE] [--socket PATH]
 *
 * Asks the running router, which walks the packet through a copy of its state; with `--config`, a router that knows
 * nothing but this configuration. Exit codes: 0 explained (whatever the verdict), 1 nobody runs there, 2 usage.
 */
import { existsSync, readFileSync } from 'node:fs';
import { CaptureReader, ethernetFrame, LINKTYPE_ETHERNET } from '../../dataplane/ports/capture-reader.ts';
import { ask } from '../api/client.ts';
import { answerExplain, type ExplainAnswer, MAX_FRAMES } from '../api/explain.ts';
import { Refusal } from '../api/http.ts';
import { socketPath } from '../api/socket.ts';
import { loadConfig } from '../config/index.ts';
import { Router } from '../router.ts';
import { answering } from './answering.ts';
import { EXIT_OK, parseArguments, UsageError } from './args.ts';

const COMMAND = 'sluice explain';
const TIMEOUT_MS = 60_000;

export const EXPLAIN_USAGE = `Usage: sluice explain --port PORT --frame FILE|HEX ... [-j]
       sluice explain --flow "tcp 192.168.1.10:4000 > 198.51.100.7:443" [--port PORT] [-j]

Says what the router would do with a packet: each stage, what it looked up, found and decided, and the line of the
configuration that was the cause. Nothing is sent and nothing changes.

  --port PORT       port that the packet enters by
  --frame FILE|HEX  an Ethernet frame: hexadecimal digits, or a file of them, or a capture (pcap or pcapng, plain or gzip), whose
                    frames are explained one after the other (fragments, a conversation); may be repeated
  --flow FLOW       the packet that opens this flow, or its next one when the router knows the connection
  --config FILE     explain by this configuration alone, without a running router
  --socket PATH     control socket of the router (default: ${socketPath()})
  -j, --json        JSON
`;

/** Runs the command with the arguments behind `explain`; resolves to the exit code. */
export async function explainCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(COMMAND, argv, {
    port: { kind: 'value', expected: 'the name of a port' },
    frame: { kind: 'list', expected: 'a file or hexadecimal digits' },
    flow: { kind: 'value', expected: 'a flow' },
    config: { kind: 'value', expected: 'a configuration file' },
    socket: { kind: 'value', expected: 'a path' },
    json: { kind: 'flag', alias: 'j' },
  });
  if (args.flags.has('help')) {
    process.stdout.write(EXPLAIN_USAGE);
    return EXIT_OK;
  }
  if (args.operands.length > 0)
    throw new UsageError(
      COMMAND,
      `expected options only, got "${args.operands[0]}"; a flow stands in quotes behind --flow`,
    );
  const given = args.lists.get('frame');
  const flow = args.values.get('flow');
  if ((given === undefined) === (flow === undefined))
    throw new UsageError(COMMAND, `expected --frame or --flow, got ${flow === undefined ? 'neither' : 'both'}`);
  const frames = given?.flatMap(framesOf).map((bytes) => Buffer.from(bytes).toString('hex'));
  if (frames !== undefined && frames.length > MAX_FRAMES)
    throw new UsageError(
      COMMAND,
      `--frame: expected at most ${MAX_FRAMES} frames, got ${frames.length}; cut the capture with editcap -r`,
    );
  const question = { port: args.values.get('port'), flow, frames };
  const config = args.values.get('config');
  return answering(async () => {
    const answer =
      config === undefined
        ? await ask<ExplainAnswer>(args.values.get('socket') ?? socketPath(), '/v1/explain', {
            method: 'POST',
            body: JSON.stringify(question),
            timeout: TIMEOUT_MS,
          })
        : offline(config, question);
    if (args.flags.has('json')) {
      const { text: _, ...json } = answer;
      process.stdout.write(`${JSON.stringify(json)}\n`);
    } else process.stdout.write(`${answer.text}\n`);
  });
}

function offline(file: string, question: object): ExplainAnswer {
  try {
    return answerExplain(new Router(loadConfig(file)), question);
  } catch (error) {
    if (error instanceof RangeError || error instanceof Refusal) throw new UsageError(COMMAND, error.message);
    throw error;
  }
}

/** The frames that one `--frame` means. @throws UsageError, CaptureError */
function framesOf(text: string): Uint8Array[] {
  if (!existsSync(text)) return [fromHex(text, 'hexadecimal digits or a file that exists')];
  let bytes: Buffer;
  try {
    bytes = readFileSync(text);
  } catch (error) {
    throw new UsageError(COMMAND, `--frame: expected a file that can be read, got ${(error as Error).message}`);
  }
  const reader = CaptureReader.fromBytes(text, bytes);
  if (reader.format === '') return [fromHex(bytes.toString('latin1'), `a capture or hexadecimal digits in ${text}`)];
  const frames: Uint8Array[] = [];
  while (reader.next()) {
    // What has no link header says nothing of the station that it was for, and that decides first.
    if (reader.linkType !== LINKTYPE_ETHERNET)
      throw new UsageError(
        COMMAND,
        `--frame: expected a capture of Ethernet frames, got link type ${reader.linkType} in ${text}; use --flow, or sluice replay`,
      );
    const frame = new Uint8Array(reader.capturedLength);
    frames.push(frame.subarray(0, ethernetFrame(reader, frame, 0)));
  }
  if (reader.error !== null) throw reader.error;
  if (frames.length === 0)
    throw new UsageError(COMMAND, `--frame: expected a capture with frames, got none in ${text}`);
  return frames;
}

function fromHex(text: string, expected: string): Uint8Array {
  const bare = text.replace(/0x|[\s:]/g, '');
  if (bare.length < 28 || bare.length % 2 !== 0 || !/^[0-9a-f]+$/i.test(bare))
    throw new UsageError(COMMAND, `--frame: expected ${expected}, 14 bytes or more, got "${text.slice(0, 40)}"`);
  return Buffer.from(bare, 'hex');
}
