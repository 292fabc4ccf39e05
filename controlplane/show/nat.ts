/**
 * `show nat`: the translation rules in the order in which they are tried; the mappings, the pools of ports and the
 * subscribers that they have made (mappings.ts); and what is being translated now, as `conntrack -L --any-nat` prints it.
 *
 * All of it comes from the tables that the path uses, not from the configuration, so that what is shown is what happens.
 */

import {
  NAT_BYPASS,
  NAT_DMZ,
  NAT_DNAT,
  NAT_NPTV6,
  NAT_SNAT,
  NAT_TRIGGER,
  type NatRules,
  NR_DST,
  NR_DST_MASK,
  NR_EXTERNAL,
  NR_FILTERING,
  NR_FROM,
  NR_FROM_MASK,
  NR_INTERNAL,
  NR_KIND,
  NR_MAPPING,
  NR_POOL,
  NR_PORT,
  NR_PORT_HI,
  NR_PORT_LO,
  NR_PORTS,
  NR_PROTO,
  NR_TO,
  NR_TO_HI,
  NR_TO_LO,
  NR_WHERE,
  NR_WORDS,
  NR_ZONE,
} from '../../conntrack/nat-rules.ts';
import { formatAddress, formatIpv4 } from '../../dataplane/wire/address.ts';
import { rawOrder } from '../../dataplane/wire/bytes.ts';
import { tableZone } from '../compile-rules.ts';
import { connections } from './conntrack.ts';
import {
  BEHAVIOURS,
  mappingLine,
  natMappings,
  natPools,
  natSubscribers,
  poolLine,
  protocolName,
  subscriberLine,
} from './mappings.ts';
import type { Shown, ShowSource } from './source.ts';

export interface NatRuleJson {
  kind: 'snat' | 'masquerade' | 'dnat' | 'dmz' | 'bypass' | 'trigger' | 'nptv6';
  /** Zone or port: of egress for snat, masquerade and nptv6, of ingress for the others. */
  zone?: string;
  dev?: string;
  protocol?: string;
  from?: string;
  dst?: string;
  /** Protocol and destination ports that pull a trigger. */
  by?: string;
  dport?: string;
  /** New address, or several; of a trigger: the host that has the ports now. */
  to?: string;
  ports?: string;
  mapping?: string;
  filtering?: string;
  /** `line:column path` in the configuration. */
  where?: string;
}

const KINDS: Readonly<Record<number, NatRuleJson['kind']>> = {
  [NAT_SNAT]: 'masquerade',
  [NAT_DNAT]: 'dnat',
  [NAT_DMZ]: 'dmz',
  [NAT_BYPASS]: 'bypass',
  [NAT_TRIGGER]: 'trigger',
  [NAT_NPTV6]: 'nptv6',
};

export function showNat(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  const translated = connections(source, filters).filter(({ json }) =>
    json.status.some((status) => status === 'SRC_NAT' || status === 'DST_NAT'),
  );
  const rules = natRules(source);
  const mappings = natMappings(source, filters);
  const pools = natPools(source);
  const subscribers = natSubscribers(source);
  const parts = [
    rules.map(ruleLine),
    pools.map(poolLine),
    subscribers.map(subscriberLine),
    mappings.map(mappingLine),
    translated.map(({ line }) => line),
  ];
  return {
    text: parts
      .filter((lines) => lines.length > 0)
      .map((lines) => lines.join('\n'))
      .join('\n\n'),
    json: {
      rules,
      mappings,
      pools,
      subscribers,
      statistics: source.tables.natMappings.statistics(),
      translations: translated.map(({ json }) => json),
    },
  };
}

function natRules(source: ShowSource): NatRuleJson[] {
  const { natRules: table } = source.tables;
  const w = table.words;
  const rules: NatRuleJson[] = [];
  for (let n = 0, at = table.first(); n < table.count(); n++, at += NR_WORDS) {
    const kind = w[at + NR_KIND];
    const to = w[at + NR_TO];
    const rule: NatRuleJson = { kind: KINDS[kind] };
    if (kind === NAT_SNAT && to !== 0) rule.kind = 'snat';
    // A trigger keeps where it is pulled from in other words than the rest keep their place.
    const [zoneAt, portAt] = kind === NAT_TRIGGER ? [NR_TO_LO, NR_TO_HI] : [NR_ZONE, NR_PORT];
    if (w[at + zoneAt] >= 0)
      rule.zone = source.config.zones.find((zone) => tableZone(zone.number) === w[at + zoneAt])?.name;
    if (w[at + portAt] >= 0) rule.dev = source.config.ports[w[at + portAt]]?.name;
    if (w[at + NR_PROTO] !== 0) rule.protocol = protocolName(w[at + NR_PROTO]);
    const where = source.control.natPlaces[w[at + NR_WHERE]];
    if (where !== undefined) rule.where = where.line === 0 ? where.path : `${where.line}:${where.column} ${where.path}`;
    rules.push(rule);
    if (kind === NAT_TRIGGER) {
      rule.by = `${protocolName(w[at + NR_DST])} ${range(w[at + NR_DST_MASK] & 0xffff, w[at + NR_DST_MASK] >>> 16)}`;
      rule.dport = range(w[at + NR_PORT_LO], w[at + NR_PORT_HI]);
      if (table.triggered(at, source.tables.now())) rule.to = formatIpv4(table.triggeredBy(at));
      continue;
    }
    if (kind === NAT_NPTV6) {
      rule.from = prefix6(w, at + NR_INTERNAL, w[at + NR_FROM]);
      rule.to = prefix6(w, at + NR_EXTERNAL, w[at + NR_FROM]);
      continue;
    }
    if (w[at + NR_FROM_MASK] !== 0) rule.from = prefix(w[at + NR_FROM], w[at + NR_FROM_MASK]);
    if (kind === NAT_BYPASS && w[at + NR_DST_MASK] !== 0) rule.dst = prefix(w[at + NR_DST], w[at + NR_DST_MASK]);
    if (w[at + NR_PORT_LO] >= 0) rule.dport = range(w[at + NR_PORT_LO], w[at + NR_PORT_HI]);
    if (w[at + NR_POOL] !== 0) rule.to = list(table, w[at + NR_POOL], (number) => formatIpv4(rawOrder(number)));
    else if (to !== 0) rule.to = formatIpv4(to);
    if (w[at + NR_PORTS] !== 0) rule.ports = list(table, w[at + NR_PORTS], String);
    else if (w[at + NR_TO_LO] !== 0) rule.ports = range(w[at + NR_TO_LO], w[at + NR_TO_HI]);
    if (kind === NAT_SNAT) {
      rule.mapping = BEHAVIOURS[w[at + NR_MAPPING]];
      rule.filtering = BEHAVIOURS[w[at + NR_FILTERING]];
    }
  }
  return rules;
}

/** One line in the words of nft and iptables. */
function ruleLine(rule: NatRuleJson): string {
  const outward = rule.kind === 'snat' || rule.kind === 'masquerade' || rule.kind === 'nptv6';
  const words: string[] = [rule.kind];
  if (rule.zone !== undefined) words.push(outward ? 'out zone' : 'in zone', rule.zone);
  if (rule.dev !== undefined) words.push(outward ? 'out dev' : 'in dev', rule.dev);
  if (rule.by !== undefined) words.push('by', rule.by, 'opens');
  if (rule.protocol !== undefined) words.push(rule.protocol);
  if (rule.from !== undefined) words.push('from', rule.from);
  if (rule.dst !== undefined) words.push('dst', rule.dst);
  if (rule.dport !== undefined) words.push('dport', rule.dport);
  if (rule.to !== undefined) words.push('to', rule.ports === undefined ? rule.to : `${rule.to}:${rule.ports}`);
  else if (rule.ports !== undefined) words.push('ports', rule.ports);
  if (rule.mapping) words.push('mapping', rule.mapping, 'filtering', rule.filtering ?? '');
  return words.join(' ');
}

function prefix(word: number, mask: number): string {
  let length = 0;
  for (let bit = 0; bit < 32; bit++) length += (mask >>> bit) & 1;
  return length === 32 ? formatIpv4(word) : `${formatIpv4(word)}/${length}`;
}

function prefix6(w: Int32Array, at: number, length: number): string {
  return `${formatAddress(6, w[at], w[at + 1], w[at + 2], w[at + 3])}/${length}`;
}

function range(first: number | string, last: number | string): string {
  return first === last ? String(first) : `${first}-${last}`;
}

/** A list of the rule table: 1024-2047,4096-5119. */
function list(table: NatRules, offset: number, text: (number: number) => string): string {
  return Array.from({ length: table.intervals(offset) }, (_, n) =>
    range(text(table.firstOf(offset, n)), text(table.lastOf(offset, n))),
  ).join(',');
}
