/**
 * Connections: the search of the page and of the API over what may be hundreds of thousands of records.
 *
 * A connection fits when its line, as `conntrack -L -o extended` prints it, holds every word of the search. Without words
 * only the first ones are printed at all, the others are only counted.
 */
import { type ConntrackJson, conntrackJson, conntrackLine } from '../../conntrack/format.ts';
import { helperOf } from '../../conntrack/helpers/index.ts';
import { CT_PORTS_IO, CT_WORDS } from '../../conntrack/record.ts';
import { NOT_OFFLOADED } from '../../offload/engine.ts';
import type { ShowSource } from '../show/source.ts';

/** A connection, with what only the router knows of it. */
export interface ConnectionJson extends ConntrackJson {
  line: string;
  /** Ports that its two directions entered by; absent until seen. */
  in?: string;
  reply_in?: string;
  /** Why the engine has no entry for it; absent when it has. */
  not_offloaded?: string;
}

export interface ConnectionSearch {
  total: number;
  matched: number;
  connections: ConnectionJson[];
}

const helperName = (helper: number): string | undefined => helperOf(helper)?.name;

/** @param search words with blanks between them   @param limit connections in the answer at most */
export function searchConnections(source: ShowSource, search: string, limit: number): ConnectionSearch {
  const words = search
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '')
    .slice(0, 16);
  const { conntrack: table } = source.tables;
  const now = source.tables.now();
  const answer: ConnectionSearch = { total: 0, matched: 0, connections: [] };
  for (let index = 0; index < table.highWater; index++) {
    if (!table.inUse(index, now)) continue;
    answer.total++;
    const full = answer.connections.length >= limit;
    if (full && words.length === 0) {
      answer.matched++;
      continue;
    }
    const line = conntrackLine(table.words, table.words6, table.doubles, index, now, { extended: true, helperName });
    const text = line.toLowerCase();
    if (!words.every((word) => text.includes(word))) continue;
    answer.matched++;
    if (!full) answer.connections.push({ ...withPorts(source, index, now), line });
  }
  return answer;
}

function withPorts(source: ShowSource, index: number, now: number): Omit<ConnectionJson, 'line'> {
  const { conntrack: table } = source.tables;
  const json = conntrackJson(table.words, table.words6, table.doubles, index, now, { helperName });
  const io = table.words[index * CT_WORDS + CT_PORTS_IO];
  const name = (number: number): string | undefined => source.config.ports[number - 1]?.name;
  const [enters, back] = [name(io & 0xff), name((io >> 8) & 0xff)];
  const why = json.status.includes('OFFLOAD') ? 0 : io >>> 24;
  return {
    ...json,
    ...(enters === undefined ? {} : { in: enters }),
    ...(back === undefined ? {} : { reply_in: back }),
    ...(why === 0 ? {} : { not_offloaded: NOT_OFFLOADED[why] }),
  };
}
