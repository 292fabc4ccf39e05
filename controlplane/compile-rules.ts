/**
 * Compile rules: from the configuration's `rules` and `zones` to the list that dataplane/filter.ts reads, and the
 * built-in rules for IPv6 (RFC 6092, RFC 4890).
 *
 * A rule of the configuration holds lists (protocols, prefixes, port ranges, ICMP types); the table's lines hold one of
 * each. So a rule becomes the product of its lists, all lines with the rule's identifier, in place. A combination that
 * no packet can match (a port of ICMP, an IPv4 source with an IPv6 destination) makes no line.
 *
 * Zones: the configuration numbers them from 0; the table from 1, as its zone 0 is the router itself (`tableZone`).
 *
 * Not here: NAT's own admissions (forward, dmz, filtering of mappings), and ARP, ND and DHCP, which always pass `input`.
 */
import { CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, CT_UNTRACKED } from '../conntrack/record.ts';
import {
  ACCEPT,
  DROP,
  type FilterList,
  type FilterRule,
  PORT_PROTOCOLS,
  REJECT,
  ZONE_ANY,
  ZONE_FORWARDED,
  ZONE_ROUTER,
  type ZoneDefaults,
} from '../dataplane/filter.ts';
import { maskWords, type Words } from '../dataplane/wire/address.ts';
import type { Problem } from './config/errors.ts';
import type { AlgName, Config, PacketState, PrefixValue, RuleConfig, Scope, Verdict, Where } from './config/types.ts';

const ICMP = 1;
const UDP = 17;
const ESP = 50;
const AH = 51;
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
  /** Built-in rules to append to the configuration's; null or absent: none. */
  ipv6?: Ipv6Policy | null;
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
    const text = JSON.stringify(says);
    const twin = seen.get(text) ?? 0;
    seen.set(text, twin + 1);
    compiled.names.push(twin === 0 ? text : `${text} #${twin + 1}`);
    compiled.labels.push(rule.name === '' ? where.path : rule.name);
    compiled.places.push(where);
  }
  if (options.ipv6) appendIpv6Policy(compiled, options.ipv6);
  return compiled;
}

function zoneDefaults(config: Config): ZoneDefaults[] {
  // Zone 0 is the router: what it sends itself passes.
  const zones: ZoneDefaults[] = [{ forward4: ACCEPT, forward6: ACCEPT, input4: ACCEPT, input6: ACCEPT }];
  for (const zone of config.zones)
    zones[tableZone(zone.number)] = {
      forward4: VERDICTS[zone.ipv4.forward],
      forward6: VERDICTS[zone.ipv6.forward],
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

/** Which of the built-in IPv6 rules apply. They come after the configuration's own rules and before the zones. */
export interface Ipv6Policy {
  /** RFC 6092 §3.2.4: IPsec and IKE may open connections inward. */
  ipsec: boolean;
  /** RFC 4890: which ICMPv6 passes, and which does not. */
  icmp: boolean;
  /** Zones (the table's numbers) from which the rules apply; absent: all. */
  from?: readonly number[];
}

interface BuiltIn {
  name: string;
  group: 'ipsec' | 'icmp';
  to: number;
  proto: number;
  dport?: readonly [number, number];
  types?: readonly (readonly [number, number])[];
  states: number;
  verdict: number;
}

const NEW = 1 << CT_NEW;
const UNTRACKED = 1 << CT_UNTRACKED;

/**
 * What RFC 4890 §4.3.4, §4.3.5, §4.4.4 and §4.4.5 leave to a policy or would drop, for transit and for the router alike:
 * reserved and unassigned error types (0, 5–99, 102–127), experiments (100, 101, 200, 201), router renumbering (138),
 * node information (139, 140), Seamoby (150), informational types that nobody has assigned (162–255; 154–161 have been
 * since, some of them end to end as RFC 8335's extended echo: the zone decides about those).
 */
const UNWANTED_TYPES: readonly (readonly [number, number])[] = [
  [0, 0],
  [5, 127],
  [138, 140],
  [150, 150],
  [162, 255],
];

/**
 * The built-in rules in order. Link-local ICMPv6 (neighbour discovery and the like, RFC 4890 §4.3.3) needs none in
 * transit: its scope and its hop limit of 255 keep it from being forwarded.
 */
const BUILT_INS: readonly BuiltIn[] = [
  // RFC 6092 REC-21, REC-22, REC-24: by default a gateway must not prohibit AH, ESP, and UDP to port 500.
  { name: 'ipv6-ipsec-ah', group: 'ipsec', to: ZONE_FORWARDED, proto: AH, states: NEW, verdict: ACCEPT },
  { name: 'ipv6-ipsec-esp', group: 'ipsec', to: ZONE_FORWARDED, proto: ESP, states: NEW, verdict: ACCEPT },
  {
    name: 'ipv6-ipsec-ike',
    group: 'ipsec',
    to: ZONE_FORWARDED,
    proto: UDP,
    dport: [500, 500],
    states: NEW,
    verdict: ACCEPT,
  },
  // RFC 4890 §4.3.1, §4.3.2: errors pass. Those of a tracked connection are CT_RELATED and never come here, and one that
  // matches no connection should not pass (RFC 6092 REC-10): so this is for traffic that is not tracked at all.
  {
    name: 'icmpv6-errors',
    group: 'icmp',
    to: ZONE_FORWARDED,
    proto: ICMPV6,
    types: [[1, 4]],
    states: UNTRACKED,
    verdict: ACCEPT,
  },
  // §4.3.1: echo, for connectivity checks (and Teredo).
  {
    name: 'icmpv6-echo',
    group: 'icmp',
    to: ZONE_FORWARDED,
    proto: ICMPV6,
    types: [[128, 129]],
    states: NEW | UNTRACKED,
    verdict: ACCEPT,
  },
  // §4.3.2: home agent discovery and prefix messages of Mobile IPv6.
  {
    name: 'icmpv6-mobile',
    group: 'icmp',
    to: ZONE_FORWARDED,
    proto: ICMPV6,
    types: [[144, 147]],
    states: NEW | UNTRACKED,
    verdict: ACCEPT,
  },
  {
    name: 'icmpv6-unwanted',
    group: 'icmp',
    to: ZONE_FORWARDED,
    proto: ICMPV6,
    types: UNWANTED_TYPES,
    states: NEW | UNTRACKED,
    verdict: DROP,
  },
  // §4.4.1, §4.4.2, to the router itself: errors, echo, neighbour discovery and its inverse, listener reports, SEND's
  // certificates, multicast router discovery. Redirects (137) are left to the zone: a router takes none (RFC 4861 §8.2).
  {
    name: 'icmpv6-input',
    group: 'icmp',
    to: ZONE_ROUTER,
    proto: ICMPV6,
    types: [
      [1, 4],
      [128, 136],
      [141, 143],
      [148, 149],
      [151, 153],
    ],
    states: NEW | UNTRACKED,
    verdict: ACCEPT,
  },
  {
    name: 'icmpv6-input-unwanted',
    group: 'icmp',
    to: ZONE_ROUTER,
    proto: ICMPV6,
    types: UNWANTED_TYPES,
    states: NEW | UNTRACKED,
    verdict: DROP,
  },
];

/** Appends the built-in IPv6 rules that the policy switches on; each has an identifier and a label of its own. */
export function appendIpv6Policy(compiled: CompiledRules, policy: Ipv6Policy): void {
  for (const builtIn of BUILT_INS) {
    if (!policy[builtIn.group]) continue;
    const id = compiled.names.length;
    compiled.names.push(`built-in ${builtIn.name}`);
    compiled.labels.push(builtIn.name);
    compiled.places.push(null);
    for (const from of policy.from ?? [ZONE_ANY])
      for (const icmpTypes of builtIn.types ?? [null])
        compiled.rules.push({
          id,
          from,
          to: builtIn.to,
          fromPort: -1,
          toPort: -1,
          family: 6,
          proto: builtIn.proto,
          src: null,
          dst: null,
          sport: null,
          dport: builtIn.dport ?? null,
          icmpTypes,
          icmpCode: -1,
          states: builtIn.states,
          helper: 0,
          verdict: builtIn.verdict,
        });
  }
}
