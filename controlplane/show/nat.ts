/**
 * `show nat`: the translation rules in the order in which they are tried, and what is being translated now.
 *
 * The second part are connections as `conntrack -L --any-nat` prints them; both come from the tables that the path
 * uses, not from the configuration, so that what is shown is what happens.
 */
import {
  NAT_BYPASS,
  NAT_DMZ,
  NAT_DNAT,
  NAT_SNAT,
  NR_DST,
  NR_DST_MASK,
  NR_FILTERING,
  NR_FROM,
  NR_FROM_MASK,
  NR_KIND,
  NR_MAPPING,
  NR_PORT,
  NR_PORT_HI,
  NR_PORT_LO,
  NR_PROTO,
  NR_TO,
  NR_TO_HI,
  NR_TO_LO,
  NR_WHERE,
  NR_WORDS,
  NR_ZONE,
} from '../../conntrack/nat-rules.ts';
import { formatIpv4 } from '../../dataplane/wire/address.ts';
import { tableZone } from '../compile-rules.ts';
import { connections } from './conntrack.ts';
import type { Shown, ShowSource } from './source.ts';

export interface NatRuleJson {
  kind: 'snat' | 'masquerade' | 'dnat' | 'dmz' | 'bypass';
  /** Zone or port: of egress for snat and masquerade, of ingress for dnat and dmz. */
  zone?: string;
  dev?: string;
  protocol?: string;
  from?: string;
  dst?: string;
  dport?: string;
  to?: string;
  ports?: string;
  mapping?: string;
  filtering?: string;
  /** `line:column path` in the configuration. */
  where?: string;
}

const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 132: 'sctp' };
const BEHAVIOURS = ['', 'endpoint-independent', 'address-dependent', 'address-and-port-dependent'];

export function showNat(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  const translated = connections(source, filters).filter(({ json }) =>
    json.status.some((status) => status === 'SRC_NAT' || status === 'DST_NAT'),
  );
  const rules = natRules(source);
  const lines = rules.map(ruleLine);
  if (translated.length > 0) lines.push('', ...translated.map(({ line }) => line));
  return { text: lines.join('\n'), json: { rules, translations: translated.map(({ json }) => json) } };
}

function natRules(source: ShowSource): NatRuleJson[] {
  const { natRules: table } = source.tables;
  const w = table.words;
  const rules: NatRuleJson[] = [];
  for (let n = 0, at = table.first(); n < table.count(); n++, at += NR_WORDS) {
    const kind = w[at + NR_KIND];
    const to = w[at + NR_TO];
    const rule: NatRuleJson = {
      kind: kind === NAT_DNAT ? 'dnat' : kind === NAT_DMZ ? 'dmz' : kind === NAT_BYPASS ? 'bypass' : 'masquerade',
    };
    if (kind === NAT_SNAT && to !== 0) rule.kind = 'snat';
    if (w[at + NR_ZONE] >= 0)
      rule.zone = source.config.zones.find((zone) => tableZone(zone.number) === w[at + NR_ZONE])?.name;
    if (w[at + NR_PORT] >= 0) rule.dev = source.config.ports[w[at + NR_PORT]]?.name;
    if (w[at + NR_PROTO] !== 0) rule.protocol = PROTOCOLS[w[at + NR_PROTO]] ?? String(w[at + NR_PROTO]);
    if (w[at + NR_FROM_MASK] !== 0) rule.from = prefix(w[at + NR_FROM], w[at + NR_FROM_MASK]);
    if (kind === NAT_BYPASS && w[at + NR_DST_MASK] !== 0) rule.dst = prefix(w[at + NR_DST], w[at + NR_DST_MASK]);
    if (w[at + NR_PORT_LO] >= 0) rule.dport = range(w[at + NR_PORT_LO], w[at + NR_PORT_HI]);
    if (to !== 0) rule.to = formatIpv4(to);
    if (w[at + NR_TO_LO] !== 0) rule.ports = range(w[at + NR_TO_LO], w[at + NR_TO_HI]);
    if (kind === NAT_SNAT) {
      rule.mapping = BEHAVIOURS[w[at + NR_MAPPING]];
      rule.filtering = BEHAVIOURS[w[at + NR_FILTERING]];
    }
    const where = source.control.natPlaces[w[at + NR_WHERE]];
    if (where !== undefined) rule.where = where.line === 0 ? where.path : `${where.line}:${where.column} ${where.path}`;
    rules.push(rule);
  }
  return rules;
}

/** One line in the words of nft and iptables. */
function ruleLine(rule: NatRuleJson): string {
  const outward = rule.kind === 'snat' || rule.kind === 'masquerade';
  const words: string[] = [rule.kind];
  if (rule.zone !== undefined) words.push(outward ? 'out zone' : 'in zone', rule.zone);
  if (rule.dev !== undefined) words.push(outward ? 'out dev' : 'in dev', rule.dev);
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

function range(first: number, last: number): string {
  return first === last ? String(first) : `${first}-${last}`;
}
