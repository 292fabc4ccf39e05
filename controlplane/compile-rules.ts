/**
 * Compile rules: from the configuration's `rules` and `zones` to the list that dataplane/filter.ts reads; behind them the
 * built-in rules for IPv6 (ipv6-policy.ts), as the section `firewall` says.
 *
 * A rule of the configuration holds lists (protocols, prefixes, port ranges, ICMP types); the table's lines hold one of
 * each. So a rule becomes the product of its lists, all lines with the rule's identifier, in place. A combination that
 * no packet can match (a port of ICMP, an IPv4 source with an IPv6 destination) makes no line.
 *
 * Zones: the configuration numbers them from 0; the table from 1, as its zone 0 is the router itself (`tableZone`).
 *
 * Not here: NAT's own admissions (forward, dmz, filtering of mappings), and ARP, ND and DHCP, which always pass `input`.
 */
import { CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED } from '../conntrack/record.ts';
import {
  ACCEPT,
  DROP,
  type FilterList,
  type FilterRule,
  PORT_PROTOCOLS,
  REJECT,
  SOURCE_ANY,
  ZONE_ANY,
  ZONE_FORWARDED,
  type ZoneDefaults,
} from '../dataplane/filter.ts';
import { maskWords, type Words } from '../dataplane/wire/address.ts';
import type { Problem } from './config/errors.ts';
import type { AlgName, Config, PacketState, PrefixValue, RuleConfig, Scope, Verdict, Where } from './config/types.ts';
import { appendIpv6Policy } from './ipv6-policy.ts';

const ICMP = 1;
const ICMPV6 = 58;

const VERDICTS: Readonly<Record<Verdict, number>> = { accept: ACCEPT, drop: DROP, reject: REJECT };
const STATES: Readonly<Record<PacketState, number>> = {
  new: CT_NEW,
  established: CT_ESTABLISHED,
  related: CT_RELATED,
  invalid: CT_INVALID,
};

/** More lines than this are refused before they are made: lists of a thousand prefixes multiply quickly. */
const MAX_LINES = 65536;

/** The table's number of a zone of the configuration. */
export function tableZone(configZone: number): number {
  return configZone + 1;
}

export interface CompileOptions {
  /** Number of a helper, for rules that attach one. */
  helperNumber?: (name: AlgName) => number;
}

export interface CompiledRules extends FilterList {
  /** By rule identifier: what explain prints, and where it stands; built-in rules stand nowhere (null). */
  labels: string[];
  places: (Where | null)[];
  /** Why the list must not be used (for a ConfigError); empty when it may. */
  problems: Problem[];
}

/** Translates `rules` (identifiers are their places in the configuration), then the built-in rules, and all zones. */
export function compileRules(config: Config, options: CompileOptions = {}): CompiledRules {
  const compiled: CompiledRules = {
    rules: [],
    names: [],
    zones: zoneDefaults(config),
    labels: [],
    places: [],
    problems: [],
  };
  const seen = new Map<string, number>();
  for (const rule of config.rules) {
    const lines = linesOf(rule, compiled.names.length, options.helperNumber);
    if (lines === null || compiled.rules.length + lines.length > MAX_LINES)
      compiled.problems.push({
        file: config.file,
        ...rule.where,
        expected: `at most ${MAX_LINES} combinations of protocol, prefix and port range in all rules`,
        got: 'more',
        hint: 'write fewer or wider ones',
      });
    else for (const line of lines) compiled.rules.push(line);
    // Counters follow a rule by what it says, wherever it moves to; of twins, by their order.
    const { where, ...says } = rule;
    // A host's addresses come and go; the rule is the same.
    const named = rule.srcHosts.length + rule.dstHosts.length > 0;
    const text = JSON.stringify(named ? { ...says, src: [], dst: [] } : says);
    const twin = seen.get(text) ?? 0;
    seen.set(text, twin + 1);
    compiled.names.push(twin === 0 ? text : `${text} #${twin + 1}`);
    compiled.labels.push(rule.name === '' ? where.path : rule.name);
    compiled.places.push(where);
  }
  const { ipv6, icmpv6 } = config.firewall;
  if (ipv6 !== 'transparent') {
    const isExterior = config.zones.map((zone) => zone.ipv6.forward !== 'accept');
    const numbers = config.zones.map((zone) => tableZone(zone.number));
    appendIpv6Policy(compiled, {
      exterior: numbers.filter((_, n) => isExterior[n]),
      interior: numbers.filter((_, n) => !isExterior[n]),
      simpleSecurity: ipv6 === 'simple-security',
      icmp: icmpv6,
      uniqueLocal: config.nat.nptv6.length === 0,
    });
  }
  return compiled;
}

function zoneDefaults(config: Config): ZoneDefaults[] {
  // Zone 0 is the router: what it sends itself passes.
  const zones: ZoneDefaults[] = [{ forward4: ACCEPT, forward6: ACCEPT, input4: ACCEPT, input6: ACCEPT }];
  for (const zone of config.zones)
    zones[tableZone(zone.number)] = {
      forward4: VERDICTS[zone.ipv4.forward],
      // RFC 6092 REC-49: in transparent mode unsolicited flows pass, whatever their direction.
      forward6: config.firewall.ipv6 === 'transparent' ? ACCEPT : VERDICTS[zone.ipv6.forward],
      input4: VERDICTS[zone.ipv4.input],
      input6: VERDICTS[zone.ipv6.input],
    };
  return zones;
}

/** The lines of one rule; null when there are far too many. */
function linesOf(rule: RuleConfig, id: number, helperNumber: CompileOptions['helperNumber']): FilterRule[] | null {
  const protocols = protocolsOf(rule);
  const ranges = typeRanges(rule.icmpTypes);
  const any = [null];
  const sources = rule.src.length > 0 ? rule.src : any;
  const destinations = rule.dst.length > 0 ? rule.dst : any;
  const sports = rule.sport.length > 0 ? rule.sport : any;
  const dports = rule.port.length > 0 ? rule.port : any;
  const types = ranges.length > 0 ? ranges : any;
  const product = [protocols, sources, destinations, sports, dports, types].reduce((all, list) => all * list.length, 1);
  if (product > MAX_LINES) return null;

  let states = 0;
  for (const state of rule.states) states |= 1 << STATES[state];
  // A rule without states is about new connections: the others have passed before.
  if (states === 0) states = 1 << CT_NEW;

  const lines: FilterRule[] = [];
  for (const proto of protocols)
    for (const src of sources)
      for (const dst of destinations) {
        const family = familyOf(rule, proto, src, dst);
        if (family === null) continue;
        for (const sport of sports)
          for (const dport of dports)
            for (const icmpTypes of types) {
              if ((sport !== null || dport !== null) && !PORT_PROTOCOLS.includes(proto)) continue;
              if (icmpTypes !== null && proto !== ICMP && proto !== ICMPV6) continue;
              lines.push({
                id,
                from: zoneOf(rule.from, ZONE_ANY),
                // A rule that names an egress port is about forwarded packets, whatever that port's zone.
                to: rule.to?.kind === 'port' ? ZONE_FORWARDED : zoneOf(rule.to, ZONE_ANY),
                fromPort: rule.from?.kind === 'port' ? rule.from.number : -1,
                toPort: rule.to?.kind === 'port' ? rule.to.number : -1,
                family,
                proto,
                src: masked(src),
                dst: masked(dst),
                sport,
                dport,
                icmpTypes,
                icmpCode: -1,
                states,
                sourceZone: SOURCE_ANY,
                chain: 0,
                helper: rule.helper === null ? 0 : (helperNumber?.(rule.helper) ?? 0),
                verdict: VERDICTS[rule.verdict],
              });
            }
      }
  return lines;
}

function zoneOf(scope: Scope | null, any: number): number {
  return scope?.kind === 'zone' ? tableZone(scope.number) : any;
}

/** The protocols meant: those written; else those that have what the rule asks for; else any (−1). */
function protocolsOf(rule: RuleConfig): readonly number[] {
  if (rule.protocols.length > 0) return rule.protocols;
  if (rule.port.length > 0 || rule.sport.length > 0) return PORT_PROTOCOLS;
  if (rule.icmpTypes.length > 0) return [ICMP, ICMPV6];
  return [-1];
}

/** The one family that protocol, addresses and the rule's own word leave; 0 both, null none. */
function familyOf(rule: RuleConfig, proto: number, src: PrefixValue | null, dst: PrefixValue | null): 0 | 4 | 6 | null {
  let family: 0 | 4 | 6 = rule.family ?? 0;
  const ofProtocol = proto === ICMP ? 4 : proto === ICMPV6 ? 6 : undefined;
  for (const other of [src?.family, dst?.family, ofProtocol] as const) {
    if (other === undefined) continue;
    if (family !== 0 && family !== other) return null;
    family = other;
  }
  return family;
}

function masked(prefix: PrefixValue | null): { words: Words; mask: Words } | null {
  return prefix === null ? null : { words: prefix.words, mask: maskWords(prefix.family, prefix.prefixLength) };
}

/** Neighbouring types as ranges: 1, 2, 3, 128 is 1–3 and 128. */
function typeRanges(types: readonly number[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (const type of [...new Set(types)].sort((a, b) => a - b)) {
    const last = ranges[ranges.length - 1];
    if (last !== undefined && last[1] === type - 1) last[1] = type;
    else ranges.push([type, type]);
  }
  return ranges;
}
