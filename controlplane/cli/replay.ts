/**
 * `sluice replay`: plays captures through the router under a virtual clock and writes what leaves it.
 *
 * Two forms: one capture for each port (`--in PORT=CAPTURE`), or one capture that has both sides (`--capture` with
 * `--inside`). This file reads the command line and says what happened; the playing is in controlplane/replay/.
 */
import { existsSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { CaptureError } from '../../dataplane/ports/capture-reader.ts';
import { FAULT_CHECKSUM, FAULT_MAC, FAULT_PROTO41 } from '../../dataplane/shadow.ts';
import { type Cidr, inPrefix, networkWords, parseAddress, parseCidr } from '../../dataplane/wire/address.ts';
import { didYouMean, quote } from '../config/errors.ts';
import { type Config, loadConfig } from '../config/index.ts';
import { MismatchCapture } from '../mismatches.ts';
import { CaptureInput, Timeline } from '../replay/input.ts';
import { installNeighbours, learn } from '../replay/learn.ts';
import { formatReport, report } from '../replay/report.ts';
import { ReplaySession } from '../replay/session.ts';
import { findSides, SidesError, TwoSides } from '../replay/two-sides.ts';
import { EXIT_FAILED, EXIT_OK, oneOperand, parseArguments, UsageError, wholeNumber } from './args.ts';

const NAME = 'sluice replay';

const HELP = `Usage: sluice replay FILE --in PORT=CAPTURE ... --out DIR [OPTION ...]
       sluice replay FILE --capture CAPTURE --inside CIDR ... --out DIR [OPTION ...]

Plays captures (pcap or pcapng, plain or gzip) through the router that FILE configures, under a virtual clock, and
writes DIR/PORT.pcap for every port with the frames that left it. Every port is a capture, whatever its kind.

  --in PORT=CAPTURE       frames that enter PORT; repeatable, all are merged by time
  --capture CAPTURE       one capture that has both sides of the router; the far end follows what really left
  --inside CIDR           what is inside in that capture; repeatable
  --keep-checksums        with --capture: leave wrong transport checksums as they are
  --out DIR               where the captures go; created when it is not there
  --offload on|off|verify instead of the configuration's offload.mode; verify compares every frame with the slow path
                          and writes what differs to DIR/mismatches.pcapng
  --engine-fault FAULT    make the engine wrong on purpose, to see that verify notices: checksum, protocol-41 or stale-mac
  --seed N                seed of the hash, of chosen ports and of IP identifiers (1)
  --linger SECONDS        let the clock run on after the last frame (0)
  --json                  print one JSON object instead of text

Exit codes: 0 done, 1 a capture is broken (what precedes the fault is played) or the engine disagreed, 2 usage or
configuration.
`;

/** Ways in which the engine can be made wrong, by their names on the command line. */
const FAULTS: Readonly<Record<string, number>> = {
  checksum: FAULT_CHECKSUM,
  'protocol-41': FAULT_PROTO41,
  'stale-mac': FAULT_MAC,
};

/** How often a terminal is told how far it is, milliseconds. */
const PROGRESS = 500;

interface Plan {
  config: Config;
  inputs: CaptureInput[];
  /** Prefixes inside, when one capture with both sides is played. */
  inside: Cidr[] | null;
  keepChecksums: boolean;
  out: string;
  engineFault: number;
  seed: number;
  linger: number;
  json: boolean;
}

/** @returns the exit code; a UsageError, ConfigError or CaptureError is thrown for the caller to report */
export function replayCommand(argv: string[]): number {
  const { flags, operands, values, lists } = parseArguments(NAME, argv, {
    in: { kind: 'list', expected: 'PORT=CAPTURE' },
    out: { kind: 'value', expected: 'a directory' },
    offload: { kind: 'value', expected: 'on, off or verify' },
    'engine-fault': { kind: 'value', expected: 'checksum, protocol-41 or stale-mac' },
    seed: { kind: 'value', expected: 'a whole number' },
    linger: { kind: 'value', expected: 'seconds' },
    capture: { kind: 'value', expected: 'a capture file' },
    inside: { kind: 'list', expected: 'a prefix such as 192.168.1.0/24' },
    'keep-checksums': { kind: 'flag' },
    json: { kind: 'flag', alias: 'j' },
  });
  if (flags.has('help')) {
    process.stdout.write(HELP);
    return EXIT_OK;
  }
  const file = oneOperand(NAME, operands, 'a configuration file');
  const out = values.get('out');
  if (out === undefined) throw new UsageError(NAME, '--out: expected a directory, got nothing');
  const entries = lists.get('in') ?? [];
  const capture = values.get('capture');
  const cidrs = (lists.get('inside') ?? []).map(readCidr);
  if (capture === undefined && entries.length === 0)
    throw new UsageError(NAME, 'expected --in PORT=CAPTURE, or --capture with --inside, got neither');
  if (capture !== undefined && entries.length > 0) throw new UsageError(NAME, 'expected --in or --capture, got both');
  if (capture !== undefined && cidrs.length === 0)
    throw new UsageError(NAME, '--capture: expected --inside CIDR with it, got nothing');
  for (const option of ['inside', 'keep-checksums'])
    if (capture === undefined && (lists.has(option) || flags.has(option)))
      throw new UsageError(NAME, `--${option}: expected --capture with it, got nothing`);
  const seed = wholeNumber(NAME, 'seed', values.get('seed') ?? '1', -2147483648, 4294967295) | 0;
  const linger = readSeconds(values.get('linger') ?? '0');
  const mode = values.get('offload');
  if (mode !== undefined && mode !== 'on' && mode !== 'off' && mode !== 'verify')
    throw new UsageError(NAME, `--offload: expected on, off or verify, got ${quote(mode)}`);

  const fault = values.get('engine-fault');
  if (fault !== undefined && !Object.hasOwn(FAULTS, fault))
    throw new UsageError(NAME, `--engine-fault: expected checksum, protocol-41 or stale-mac, got ${quote(fault)}`);

  const config = loadConfig(file);
  for (const warning of config.warnings) process.stderr.write(`${warning}\n`);
  if (mode !== undefined) config.offload.mode = mode;
  const inputs = capture !== undefined ? [open(capture, -1)] : entries.map((entry) => openEntry(entry, config));
  prepareOut(out, config, inputs);
  return play({
    config,
    inputs,
    inside: capture === undefined ? null : cidrs,
    keepChecksums: flags.has('keep-checksums'),
    out,
    engineFault: fault === undefined ? 0 : FAULTS[fault],
    seed,
    linger,
    json: flags.has('json'),
  });
}

function readCidr(text: string): Cidr {
  const plain = parseAddress(text);
  const cidr = plain === null ? parseCidr(text) : { ...plain, prefixLength: plain.family === 4 ? 32 : 128 };
  if (cidr === null || cidr.prefixLength === 0)
    throw new UsageError(NAME, `--inside: expected a prefix such as 192.168.1.0/24, got ${quote(text)}`);
  // Host bits are forgiven: what is meant is plain.
  return { ...cidr, words: networkWords(cidr.family, cidr.words, cidr.prefixLength) };
}

function readSeconds(text: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds <= 1e9)) throw new UsageError(NAME, `--linger: expected seconds such as 30, got ${quote(text)}`);
  return seconds;
}

function openEntry(entry: string, config: Config): CaptureInput {
  const equals = entry.indexOf('=');
  if (equals < 1 || equals === entry.length - 1)
    throw new UsageError(NAME, `--in: expected PORT=CAPTURE, got ${quote(entry)}`);
  const name = entry.slice(0, equals);
  const names = config.ports.map((port) => port.name);
  const port = config.ports.find((one) => one.name === name);
  if (port === undefined) {
    const near = didYouMean(name, names);
    throw new UsageError(
      NAME,
      `--in: expected a port of the configuration (${names.join(', ')}), got ${quote(name)}${near === '' ? '' : `; ${near}`}`,
    );
  }
  return open(entry.slice(equals + 1), port.number);
}

/** A capture that cannot be opened at all is a mistake of the command line: nothing has been started. */
function open(file: string, port: number): CaptureInput {
  try {
    return new CaptureInput(file, port);
  } catch (error) {
    throw new UsageError(NAME, (error as Error).message);
  }
}

/** Makes the directory, and refuses to write over a capture that is being read. */
function prepareOut(out: string, config: Config, inputs: readonly CaptureInput[]): void {
  try {
    makeFolder(resolve(out));
  } catch (error) {
    throw new UsageError(NAME, `--out: expected a directory that can be made, got ${(error as Error).message}`);
  }
  const read = new Set(inputs.map(({ file }) => realPath(file)));
  for (const port of config.ports) {
    const target = join(out, `${port.name}.pcap`);
    if (read.has(realPath(target)))
      throw new UsageError(NAME, `--out: expected another directory, got one where ${target} is being read`);
  }
}

/**
 * Makes a folder and those above it, as `mkdir -p` does. Node's own way to do so never returns where a folder that is there
 * says ENOENT of what is to be made in it, as /proc does.
 */
function makeFolder(folder: string): void {
  if (!existsSync(folder)) {
    makeFolder(dirname(folder));
    try {
      mkdirSync(folder);
    } catch (error) {
      // Another replay may have been faster.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
  if (!statSync(folder).isDirectory()) throw new Error(`a file of that name, ${folder}`);
}

function realPath(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return join(dirname(resolve(file)), file);
  }
}

function note(text: string): void {
  process.stderr.write(`${NAME}: ${text}\n`);
}

function play(plan: Plan): number {
  const { config, inputs } = plan;
  const sides = plan.inside === null ? null : prepareSides(plan, plan.inside);
  const learned = sides === null ? learn(config, inputs) : null;
  for (const text of learned?.notes ?? []) note(text);
  const mismatches = new MismatchCapture(join(plan.out, 'mismatches.pcapng'));
  const session = new ReplaySession(config, {
    mismatch: mismatches.write,
    seed: plan.seed,
    engineFault: plan.engineFault,
    target: (port) => join(plan.out, `${port}.pcap`),
    // Microseconds when every capture has them: some readers know nothing finer.
    resolution: inputs.some((input) => input.nano) ? 'nano' : 'micro',
    log: (_, message) => note(message),
  });
  if (sides !== null) {
    session.onLeft = sides.left;
    sides.install(session.router);
    for (const text of sides.notes) note(text);
  } else if (learned !== null) for (const text of installNeighbours(session.router, learned)) note(text);

  const begin = performance.now();
  playFrames(session, inputs, sides);
  session.advance(Math.round(plan.linger * 1000));
  const seconds = (performance.now() - begin) / 1000;
  const failures: CaptureError[] = session.close();
  const unsaved = mismatches.close();
  if (unsaved !== null) failures.push(unsaved);
  for (const input of inputs) {
    if (input.reader.error !== null) failures.push(input.reader.error);
    if (input.unknown > 0)
      note(`${input.file}: ${input.unknown} frames of a link type that carries no Ethernet and no IP`);
    if (input.cuts > 0) note(`${input.file}: ${input.cuts} frames were cut when they were captured (snap length)`);
  }
  if (sides !== null && sides.superFrames > 0)
    note(
      `${sides.superFrames} frames longer than the link carries (captured before segmentation) were played as segments`,
    );
  const unknown = inputs.reduce((sum, input) => sum + input.unknown, 0);
  const result = report(session.router, seconds, {
    skipped: unknown + session.tooLong + (sides?.skipped ?? 0),
    recomputed: sides?.recomputed ?? null,
  });
  if (plan.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else {
    const written = config.ports.map((port): [string, string] => {
      return [join(plan.out, `${port.name}.pcap`), `${session.writers[port.number].frames} frames`];
    });
    process.stdout.write(formatReport(result, Object.fromEntries(written)));
  }
  for (const failure of failures) process.stderr.write(`${failure.message}\n`);
  if (result.offload.mismatches > 0)
    note(
      `offload: expected the engine to forward as the slow path does, got ${result.offload.mismatches} mismatches; see ${join(plan.out, 'mismatches.pcapng')}`,
    );
  return failures.length > 0 || result.offload.mismatches > 0 ? EXIT_FAILED : EXIT_OK;
}

function prepareSides(plan: Plan, cidrs: readonly Cidr[]): TwoSides {
  try {
    const sides = findSides(plan.config, cidrs);
    for (const port of plan.config.ports)
      for (const own of port.addresses)
        if (port !== sides.inside && cidrs.some((cidr) => cidr.family === own.family && inPrefix(own.words, cidr)))
          note(
            `--inside: ${own.text} is the router's own, on port ${port.name}; packets from that address are dropped`,
          );
    return new TwoSides(plan.config, sides, cidrs, plan.inputs[0], plan.keepChecksums);
  } catch (error) {
    if (error instanceof SidesError) throw new UsageError(NAME, error.message);
    throw error;
  }
}

function playFrames(session: ReplaySession, inputs: readonly CaptureInput[], sides: TwoSides | null): void {
  const timeline = new Timeline(inputs);
  const terminal = process.stderr.isTTY;
  let told = performance.now();
  let frames = 0;
  for (let input = timeline.next(); input !== null; input = timeline.next()) {
    if (sides !== null) sides.play(session, input);
    else session.inject(input.port, input.frame, input.length, input.seconds, input.nanoseconds);
    frames++;
    if (!terminal || (frames & 0x3ff) !== 0 || performance.now() - told < PROGRESS) continue;
    told = performance.now();
    const part = inputs.reduce((sum, one) => sum + one.progress, 0) / inputs.length;
    process.stderr.write(`\r${frames} frames, ${Math.floor(part * 100)} % `);
  }
  if (terminal && frames >= 1024) process.stderr.write('\r\x1b[K');
}
