/**
 * `show conntrack`: every connection, as `conntrack -L -o extended` prints it, IPv4 before IPv6 as they were made.
 *
 * Filters are those of the conntrack tool, on the ORIGINAL tuple: family, proto, src, dst, sport, dport.
 */
import { type ConntrackJson, conntrackJson, conntrackLine } from '../../conntrack/format.ts';
import { helperOf } from '../../conntrack/helpers/index.ts';
import { familyFilter, knownFilters, type Shown, type ShowSource } from './source.ts';

export const CONNECTION_FILTERS = ['family', 'proto', 'src', 'dst', 'sport', 'dport'] as const;

export function showConntrack(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  const list = connections(source, filters);
  return { text: list.map(({ line }) => line).join('\n'), json: list.map(({ json }) => json) };
}

/** The connections that the filters leave. Throws RangeError for a filter that is none. */
export function connections(
  source: ShowSource,
  filters: Readonly<Record<string, string>>,
): { line: string; json: ConntrackJson }[] {
  knownFilters(filters, CONNECTION_FILTERS);
  const family = familyFilter(filters);
  const { conntrack: table } = source.tables;
  const now = source.tables.now();
  const helperName = (helper: number): string | undefined => helperOf(helper)?.name;
  const found: { line: string; json: ConntrackJson }[] = [];
  for (let index = 0; index < table.highWater; index++) {
    if (!table.inUse(index, now)) continue;
    const json = conntrackJson(table.words, table.words6, table.doubles, index, now, { helperName });
    if (family !== null && json.family !== (family === 4 ? 'inet' : 'inet6')) continue;
    if (!matches(json, filters)) continue;
    const line = conntrackLine(table.words, table.words6, table.doubles, index, now, { extended: true, helperName });
    found.push({ line, json });
  }
  return found.sort((a, b) => a.json.family.length - b.json.family.length);
}

function matches(json: ConntrackJson, filters: Readonly<Record<string, string>>): boolean {
  const { proto, src, dst, sport, dport } = filters;
  return (
    (proto === undefined || proto === json.protocol || proto === String(json.protocol_number)) &&
    (src === undefined || src === json.orig.src) &&
    (dst === undefined || dst === json.orig.dst) &&
    (sport === undefined || sport === String(json.orig.sport)) &&
    (dport === undefined || dport === String(json.orig.dport))
  );
}
