/**
 * `show conntrack`: every connection, as `conntrack -L -o extended` prints it, IPv4 before IPv6 as they were made.
 *
 * Filters are those of the conntrack tool, on the ORIGINAL tuple: family, proto, src and dst (an address or a prefix), sport,
 * dport; and state (TCP and SCTP, or a status such as ASSURED, SRC_NAT, OFFLOAD, UNREPLIED) and zone.
 */
import { type ConntrackJson, conntrackJson, conntrackLine } from '../../conntrack/format.ts';
import { helperOf } from '../../conntrack/helpers/index.ts';
import { addressFilter, numberFilter, protocolFilter, stateFilter } from './filters.ts';
import { familyFilter, knownFilters, type Shown, type ShowSource } from './source.ts';

export const CONNECTION_FILTERS = ['family', 'proto', 'src', 'dst', 'sport', 'dport', 'state', 'zone'] as const;

export function showConntrack(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  const list = connections(source, filters);
  return { text: list.map(({ line }) => line).join('\n'), json: list.map(({ json }) => json) };
}

/** The connections that the filters leave. Throws RangeError for a filter that is none. */
export function connections(
  source: ShowSource,
  filters: Readonly<Record<string, string>>,
): { line: string; json: ConntrackJson }[] {
  const matches = connectionFilter(filters);
  const { conntrack: table } = source.tables;
  const now = source.tables.now();
  const helperName = (helper: number): string | undefined => helperOf(helper)?.name;
  const found: { line: string; json: ConntrackJson }[] = [];
  for (let index = 0; index < table.highWater; index++) {
    if (!table.inUse(index, now)) continue;
    const json = conntrackJson(table.words, table.words6, table.doubles, index, now, { helperName });
    if (!matches(json)) continue;
    const line = conntrackLine(table.words, table.words6, table.doubles, index, now, { extended: true, helperName });
    found.push({ line, json });
  }
  return found.sort((a, b) => a.json.family.length - b.json.family.length);
}

/**
 * What the filters ask of a connection, also of one in an event. Throws RangeError for a filter that is none.
 */
export function connectionFilter(filters: Readonly<Record<string, string>>): (json: ConntrackJson) => boolean {
  knownFilters(filters, CONNECTION_FILTERS);
  const family = familyFilter(filters);
  const proto = protocolFilter(filters.proto);
  const [sport, dport] = [numberFilter('sport', filters.sport, 65535), numberFilter('dport', filters.dport, 65535)];
  const zone = numberFilter('zone', filters.zone, 65535);
  const src = addressFilter('src', filters.src);
  const dst = addressFilter('dst', filters.dst);
  const state = stateFilter(filters.state);
  return (json) =>
    (family === null || json.family === (family === 4 ? 'inet' : 'inet6')) &&
    proto(json.protocol, json.protocol_number) &&
    src(json.orig.src) &&
    dst(json.orig.dst) &&
    sport(json.orig.sport) &&
    dport(json.orig.dport) &&
    zone(json.zone) &&
    (state === undefined ||
      state === json.state ||
      json.status.includes(state) ||
      (state === 'UNREPLIED' && !json.status.includes('SEEN_REPLY')));
}
