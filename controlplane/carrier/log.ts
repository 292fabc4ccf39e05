/**
 * Block log: who had which block of outside ports when (RFC 6888 §4, RFC 6269 §12).
 *
 * Workers write assignments and releases into a ring (conntrack/subscribers.ts); here they become lines, one for each, in
 * memory and in the file that `nat.log` names:
 *
 *   2026-11-22T00:42:32.000Z + 203.0.113.5 2048-2559 100.64.0.7      assigned
 *   2026-11-22T01:10:02.120Z - 203.0.113.5 2048-2559 100.64.0.7      released
 *
 * Destinations are not in it (RFC 6888 REQ-12), and nothing is written for a session (REQ-14).
 */
import { appendFileSync, readFileSync } from 'node:fs';
import type { Subscribers } from '../../conntrack/subscribers.ts';
import { formatIpv4 } from '../../dataplane/wire/address.ts';

export interface BlockEvent {
  /** Milliseconds since 1970. */
  time: number;
  assigned: boolean;
  outside: string;
  low: number;
  high: number;
  inside: string;
}

/** A block that somebody had, from a time to a time (null: still). */
export interface Holding {
  inside: string;
  low: number;
  high: number;
  since: number;
  until: number | null;
}

/** Events kept in memory; older ones are in the file alone. */
const KEPT = 100_000;

export function formatEvent(event: BlockEvent): string {
  const { time, assigned, outside, low, high, inside } = event;
  return `${new Date(time).toISOString()} ${assigned ? '+' : '-'} ${outside} ${low}-${high} ${inside}`;
}

/** One line of a log, or null when it is none. */
export function parseEvent(line: string): BlockEvent | null {
  const match = /^(\S+) ([+-]) (\S+) (\d+)-(\d+) (\S+)$/.exec(line.trim());
  const time = match === null ? Number.NaN : Date.parse(match[1]);
  if (match === null || Number.isNaN(time)) return null;
  const [, , sign, outside, low, high, inside] = match;
  return { time, assigned: sign === '+', outside, low: Number(low), high: Number(high), inside };
}

/** Reads a file of such lines; lines that are none are left out. Throws when it cannot be read. */
export function readLog(file: string): BlockEvent[] {
  const events: BlockEvent[] = [];
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const event = parseEvent(line);
    if (event !== null) events.push(event);
  }
  return events;
}

/** Who had the port at `at` (milliseconds since 1970), by events in the order in which they happened; null: nobody. */
export function holderOf(events: readonly BlockEvent[], outside: string, port: number, at: number): Holding | null {
  let holding: Holding | null = null;
  for (const event of events) {
    if (event.outside !== outside || port < event.low || port > event.high) continue;
    if (event.time > at) {
      if (holding !== null && holding.until === null && !event.assigned) holding.until = event.time;
      if (holding !== null) break;
      continue;
    }
    const { inside, low, high, time } = event;
    if (event.assigned) holding = { inside, low, high, since: time, until: null };
    else holding = null;
  }
  return holding;
}

export class BlockLog {
  readonly events: BlockEvent[] = [];
  private readonly subscribers: Subscribers;
  private readonly file: string;
  private readonly wall: (clock: number) => number;
  private readonly warn: (message: string) => void;
  private failed = false;

  /**
   * @param file '' for none   @param wall milliseconds since 1970 of a time of the router's clock
   * @param warn told once when the file cannot be written; the router goes on
   */
  constructor(
    subscribers: Subscribers,
    file: string,
    wall: (clock: number) => number,
    warn: (message: string) => void,
  ) {
    this.subscribers = subscribers;
    this.file = file;
    this.wall = wall;
    this.warn = warn;
  }

  /** Takes over what the workers have written since. Returns the number of new events. */
  drain(): number {
    let lines = '';
    let taken = 0;
    for (let entry = this.subscribers.read(); entry !== null; entry = this.subscribers.read()) {
      const event: BlockEvent = {
        time: this.wall(entry.time),
        assigned: entry.assigned,
        outside: formatIpv4(entry.outside),
        low: entry.low,
        high: entry.high,
        inside: formatIpv4(entry.inside),
      };
      this.events.push(event);
      taken++;
      if (this.file !== '') lines += `${formatEvent(event)}\n`;
    }
    if (this.events.length > KEPT) this.events.splice(0, this.events.length - KEPT);
    if (lines !== '') this.append(lines);
    return taken;
  }

  private append(lines: string): void {
    try {
      // A full disk may have taken half a line: what follows begins its own (an empty line is none).
      appendFileSync(this.file, this.failed ? `\n${lines}` : lines, { mode: 0o600 });
      this.failed = false;
    } catch (error) {
      if (!this.failed)
        this.warn(
          `nat.log: expected a file that can be written, got ${(error as Error).message}; blocks are not logged`,
        );
      this.failed = true;
    }
  }
}
