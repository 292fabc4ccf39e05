/**
 * `sluice top`: the running router at a glance, anew each second.
 *
 *   sluice top [--count N] [--socket PATH]
 *
 * On a terminal it draws over itself and ends with q or Ctrl-C; into a pipe it prints one block a second, without colours.
 * Exit codes: 0, 1 nobody runs there or the router stopped, 2 usage.
 */
import { ApiError, askEvents } from '../api/client.ts';
import { socketPath } from '../api/socket.ts';
import type { Summary } from '../api/summary.ts';
import { EXIT_FAILED, EXIT_OK, parseArguments, UsageError, wholeNumber } from './args.ts';

export const TOP_USAGE = `Usage: sluice top [--count N] [--socket PATH]

Rates of every port, connections, engine, NAT and drops of the running router, anew each second. q ends it.

  --count N       end after N seconds
  --socket PATH   control socket of the router (default: ${socketPath()})
`;

const PREFIXES = ['', 'k', 'M', 'G', 'T'];
const BAR = 20;
const REASONS = 8;

/** Three digits and an SI prefix. */
export function short(value: number): string {
  let n = 0;
  let figure = value;
  while (figure >= 999.5 && n < PREFIXES.length - 1) {
    figure /= 1000;
    n++;
  }
  const digits = (n === 0 && Number.isInteger(figure)) || figure >= 99.95 ? 0 : figure >= 9.995 ? 1 : 2;
  return `${figure.toFixed(digits)}${n === 0 ? '' : ` ${PREFIXES[n]}`}`;
}

function duration(milliseconds: number): string {
  const s = Math.floor(milliseconds / 1000);
  const two = (n: number): string => String(n).padStart(2, '0');
  const days = Math.floor(s / 86_400);
  return `${days > 0 ? `${days} d ` : ''}${two(Math.floor(s / 3600) % 24)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

function bar(part: number): string {
  const full = Math.round(Math.max(0, Math.min(1, part)) * BAR);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}]`;
}

/**
 * One picture, as lines without colours.
 * @param before the summary before it, for rates; null: there are none yet
 */
export function topLines(now: Summary, before: Summary | null): string[] {
  const old = before !== null && before.uptime < now.uptime ? before : null;
  const seconds = old === null ? 1 : (now.uptime - old.uptime) / 1000;
  const rate = (total: number, was: number | undefined): number =>
    old === null ? 0 : Math.max(0, total - (was ?? 0)) / seconds;
  const { packets, conntrack, offload } = now;
  const lines = [
    `sluice ${now.file}   up ${duration(now.uptime)}   ${short(rate(packets.received, old?.packets.received))} frames/s in, ${short(rate(packets.forwarded, old?.packets.forwarded))} forwarded, ${short(rate(offload.hits, old?.offload.hits))} by the engine`,
    '',
    `connections  ${bar(conntrack.entries / conntrack.max)} ${conntrack.entries} of ${conntrack.max}`,
    ...offload.tables.map(
      ({ table, entries, capacity }) => `${table.padEnd(12)} ${bar(entries / capacity)} ${entries} of ${capacity}`,
    ),
    ...[...now.nat]
      .sort((a, b) => b.used / b.available - a.used / a.available)
      .slice(0, 4)
      .map((use) => {
        const name = `${use.protocol} ports`;
        return `${name.padEnd(12)} ${bar(use.used / use.available)} ${use.used} of ${use.available} of ${use.outside}`;
      }),
    '',
    row(['PORT', 'ZONE', 'STATE', 'IN bit/s', 'frames/s', 'OUT bit/s', 'frames/s', 'DROPPED']),
  ];
  for (const port of now.ports) {
    const was = old?.ports.find(({ ifname }) => ifname === port.ifname)?.stats64;
    const { rx, tx } = port.stats64;
    lines.push(
      row([
        port.ifname,
        port.zone,
        port.operstate,
        short(rate(rx.bytes, was?.rx.bytes) * 8),
        short(rate(rx.packets, was?.rx.packets)),
        short(rate(tx.bytes, was?.tx.bytes) * 8),
        short(rate(tx.packets, was?.tx.packets)),
        String(rx.dropped),
      ]),
    );
  }
  const drops = now.drops
    .map((drop) => ({
      ...drop,
      rate: rate(drop.count, old?.drops.find(({ reason }) => reason === drop.reason)?.count),
    }))
    .sort((a, b) => b.rate - a.rate || b.count - a.count);
  if (drops.length > 0) lines.push('', `${'DROPS/s'.padStart(9)} ${'TOTAL'.padStart(10)}  REASON`);
  for (const { rate: perSecond, count, reason, stage, description } of drops.slice(0, REASONS))
    lines.push(`${short(perSecond).padStart(9)} ${String(count).padStart(10)}  ${reason} (${stage}): ${description}`);
  return lines;
}

const ENDS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

const WIDTHS = [11, 9, 10, -9, -8, -9, -8, -8];

/** Negative widths are numbers: right-aligned. All of it fits a terminal of 80 columns. */
function row(cells: readonly string[]): string {
  return cells
    .map((cell, n) => (WIDTHS[n] < 0 ? cell.padStart(-WIDTHS[n]) : cell.padEnd(WIDTHS[n])))
    .join(' ')
    .trimEnd();
}

/** Runs the command with the arguments behind `top`; resolves to the exit code. */
export async function topCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments('sluice top', argv, {
    count: { kind: 'value', expected: 'a number' },
    socket: { kind: 'value', expected: 'a path' },
  });
  if (args.flags.has('help')) {
    process.stdout.write(TOP_USAGE);
    return EXIT_OK;
  }
  if (args.operands.length > 0) throw new UsageError('sluice top', `expected no operand, got "${args.operands[0]}"`);
  const given = args.values.get('count');
  const count = given === undefined ? 0 : wholeNumber('sluice top', 'count', given, 1, 1_000_000_000);
  const screen = process.stdout.isTTY ? new Screen() : null;
  const stop = new AbortController();
  const end = (): void => stop.abort();
  // Also the end that others wish: the terminal must get its own screen and modes back.
  for (const signal of ENDS) process.once(signal, end);
  screen?.onQuit(end);
  let before: Summary | null = null;
  let shown = 0;
  try {
    await askEvents(
      args.values.get('socket') ?? socketPath(),
      ['summary'],
      (_, data) => {
        const lines = topLines(data as Summary, before);
        // The first summary has no rates; a pipe waits for the second.
        const first = before === null;
        before = data as Summary;
        if (screen !== null) screen.draw(lines);
        else if (!first) process.stdout.write(`${lines.join('\n')}\n\n`);
        if (first) return true;
        shown++;
        return count === 0 || shown < count;
      },
      stop.signal,
    );
    return EXIT_OK;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    screen?.close();
    process.stderr.write(`${error.message}\n`);
    return EXIT_FAILED;
  } finally {
    screen?.close();
    for (const signal of ENDS) process.off(signal, end);
  }
}

/** The terminal's second screen: what was there before comes back at the end. */
class Screen {
  private open = true;

  constructor() {
    process.stdout.write('\x1b[?1049h\x1b[?25l');
  }

  /** Calls `quit` at q, Ctrl-C and Ctrl-D. */
  onQuit(quit: () => void): void {
    const { stdin } = process;
    if (!stdin.isTTY) return;
    stdin.setRawMode(true);
    stdin.on('data', (key: Buffer) => {
      if (['q', '\x03', '\x04'].includes(key.toString())) quit();
    });
    stdin.resume();
  }

  draw(lines: readonly string[]): void {
    // A terminal that does not know its size (a serial line, `docker exec -t`) says 0.
    const [columns, rows] = [process.stdout.columns || 80, process.stdout.rows || 24];
    const fit = lines.slice(0, rows - 1).map((line) => `${line.slice(0, columns - 1)}\x1b[K`);
    process.stdout.write(`\x1b[H${fit.join('\r\n')}\x1b[J`);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    process.stdout.write('\x1b[?25h\x1b[?1049l');
    if (!process.stdin.isTTY) return;
    process.stdin.setRawMode(false);
    process.stdin.pause();
  }
}
