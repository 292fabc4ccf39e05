/** `show trace`: the distinct ways of traced packets with their counts, and the last packets. Filter: limit (packets). */
import { knownFilters, type Shown, type ShowSource } from './source.ts';

export function showTrace(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, ['limit']);
  const limit = filters.limit === undefined ? 50 : Number(filters.limit);
  if (!Number.isInteger(limit) || limit < 0)
    throw new RangeError(`limit: expected a number of packets, got "${filters.limit}"`);
  const traces = source.watch?.traces;
  if (traces === undefined) return { text: 'nothing can be traced here', json: { packets: 0, paths: [], traces: [] } };
  const json = traces.json();
  return { text: traces.text(limit), json: { ...json, traces: limit === 0 ? [] : json.traces.slice(-limit) } };
}
