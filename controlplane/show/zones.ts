/**
 * `show zones`: who may speak to whom: each zone with its ports, its verdicts on new connections and how often they decided, and
 * the rules in front of them with their counts.
 */
import { tableZone } from '../compile-rules.ts';
import type { Where } from '../config/index.ts';
import { knownFilters, type Shown, type ShowSource } from './source.ts';

export interface VerdictJson {
  verdict: string;
  packets: number;
  bytes: number;
}

export interface ZoneJson {
  zone: string;
  ports: string[];
  /** On new connections that no rule decides; verdicts may differ by family, counts are of both. */
  forward: { ipv4: string; ipv6: string; packets: number; bytes: number };
  input: { ipv4: string; ipv6: string; packets: number; bytes: number };
}

export interface RuleJson {
  rule: string;
  packets: number;
  bytes: number;
  /** `line:column path` in the configuration; absent for built-in rules. */
  where?: string;
}

export function showZones(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, []);
  const { control, config } = source;
  const zones = config.zones.map((zone): ZoneJson => {
    const number = tableZone(zone.number);
    return {
      zone: zone.name,
      ports: zone.ports.map((port) => config.ports[port]?.name ?? String(port)),
      forward: { ipv4: zone.ipv4.forward, ipv6: zone.ipv6.forward, ...control.filter.zoneCounter(number, false) },
      input: { ipv4: zone.ipv4.input, ipv6: zone.ipv6.input, ...control.filter.zoneCounter(number, true) },
    };
  });
  const rules = control.ruleLabels.map((rule, n): RuleJson => {
    const where = placeOf(control.rulePlaces[n]);
    return { rule, ...control.filter.counter(n), ...(where === undefined ? {} : { where }) };
  });
  const say = ({ ipv4, ipv6, packets }: ZoneJson['forward']): string =>
    `${ipv4 === ipv6 ? ipv4 : `ipv4 ${ipv4} ipv6 ${ipv6}`} (${packets})`;
  const text = [
    ...zones.map(
      (z) => `zone ${z.zone}: ports ${z.ports.join(' ') || 'none'}  forward ${say(z.forward)}  input ${say(z.input)}`,
    ),
    ...rules.map((r) => `rule ${r.rule} (${r.packets})`),
  ];
  return { text: text.join('\n'), json: { zones, rules } };
}

function placeOf(where: Where | null | undefined): string | undefined {
  if (where === null || where === undefined) return undefined;
  return where.line === 0 ? where.path : `${where.line}:${where.column} ${where.path}`;
}
