/**
 * IPv6 policy: the built-in filter rules of RFC 6092 (simple security) and RFC 4890 (ICMPv6), behind the configuration's
 * own rules and before the zones' verdicts.
 *
 * They guard the border between exterior zones and the rest. Exterior is a zone whose IPv6 `forward` is not accept; where
 * there is none, the router is in transit and there are no such rules. Established and related packets have passed
 * before; an ICMPv6 error that belongs to no connection is CT_INVALID and never comes here (RFC 6092 REC-10).
 *
 * Not here: what IPv6 packets no router forwards (multicast and other sources, routing header type 0: parse.ts, path.ts),
 * and REC-3's documentation prefix, without which there would be no lab; one rule of the configuration refuses it.
 */
import { CT_NEW, CT_UNTRACKED } from '../conntrack/record.ts';
import type { MaskedAddress } from '../dataplane/endpoints.ts';
import {
  ACCEPT,
  CHAIN_AH,
  DROP,
  type FilterRule,
  REFUSE_SOURCE,
  SOURCE_ANY,
  SOURCE_NOWHERE,
  ZONE_ANY,
  ZONE_FORWARDED,
  ZONE_ROUTER,
} from '../dataplane/filter.ts';
import { maskWords, parseAddress } from '../dataplane/wire/address.ts';
import type { CompiledRules } from './compile-rules.ts';

const UDP = 17;
const ESP = 50;
const ICMPV6 = 58;
/** Host Identity Protocol, an extension header of its own kind (RFC 7401). */
const HIP = 139;

/** Which zones the rules are between (the table's numbers), and what is left out. */
export interface Border {
  exterior: readonly number[];
  interior: readonly number[];
  /** RFC 6092. */
  simpleSecurity: boolean;
  /** RFC 4890. */
  icmp: boolean;
  /** Unique local addresses do not cross (REC-7); false where NPTv6 translates them. */
  uniqueLocal: boolean;
}

const NEW = 1 << CT_NEW;
/** Neighbour discovery and MLD are never tracked. */
const NEW_OR_UNTRACKED = NEW | (1 << CT_UNTRACKED);

type Types = readonly (readonly [number, number])[];

/** REC-3: what RFC 3879 and RFC 5156 forbid on the public Internet. */
const FORBIDDEN = ['::ffff:0:0/96', '::/96', 'fec0::/10', '2001:10::/28'];
const UNIQUE_LOCAL = ['fc00::/7'];

/**
 * RFC 4890 §4.3.3: of one link only, whatever address they carry. The RFC leaves them to hop limits; dropped here, they
 * do not even cost the link behind.
 */
const LINK_ONLY: Types = [
  [130, 137],
  [141, 143],
  [148, 149],
  [151, 153],
];

/**
 * §4.3.4 and §4.3.5: node information, router renumbering, Seamoby, experiments, and informational types that the RFC
 * knows as unassigned. Errors that nobody has defined (5–127) pass as those that are, when they belong to a connection.
 */
const UNWANTED: Types = [
  [138, 140],
  [150, 150],
  [154, 255],
];

/** Echo (§4.3.1) and Mobile IPv6's home agents and prefixes (§4.3.2). */
const WANTED: Types = [
  [128, 129],
  [144, 147],
];

/** Appends the built-in rules; each has an identifier and a label of its own, and stands nowhere in the configuration. */
export function appendIpv6Policy(compiled: CompiledRules, border: Border): void {
  const { exterior, interior } = border;
  if (exterior.length === 0) return;
  const add = (name: string, lines: readonly Partial<FilterRule>[]): void => {
    if (lines.length === 0) return;
    const id = compiled.names.length;
    compiled.names.push(`built-in ${name}`);
    compiled.labels.push(name);
    compiled.places.push(null);
    for (const line of lines) compiled.rules.push({ ...ANYTHING, ...line, id });
  };
  const inward = exterior.map((from) => ({ from, to: ZONE_FORWARDED }));
  const across = [...inward, ...exterior.map((to) => ({ from: ZONE_ANY, to }))];

  if (border.simpleSecurity) {
    // REC-6: a source of ours does not come from outside. REC-5: nor does another's source leave (BCP 38).
    const spoofed: Partial<FilterRule>[] = [];
    const foreign: Partial<FilterRule>[] = [];
    for (const outside of exterior)
      for (const inside of interior) {
        spoofed.push({ from: outside, to: ZONE_FORWARDED, sourceZone: inside });
        for (const sourceZone of [SOURCE_NOWHERE, ...exterior]) foreign.push({ from: inside, to: outside, sourceZone });
      }
    // RFC 7084 L-14: a host that has missed the end of its prefix hears that its address is none any more.
    const refused = drops(foreign).map((line) => ({ ...line, verdict: REFUSE_SOURCE }));
    add('rfc6092-ingress', [...drops(spoofed), ...refused]);
    add('rfc6092-forbidden', drops(between(across, FORBIDDEN)));
    if (border.uniqueLocal) add('rfc6092-unique-local', drops(between(across, UNIQUE_LOCAL)));
    // REC-21, REC-22, REC-24, REC-26: a gateway must not prohibit AH, ESP, IKE and HIP.
    add('rfc6092-ipsec-ah', accepts(inward, { chain: CHAIN_AH }));
    add('rfc6092-ipsec-esp', accepts(inward, { proto: ESP }));
    add('rfc6092-ipsec-ike', accepts(inward, { proto: UDP, dport: [500, 500] }));
    add('rfc6092-hip', accepts(inward, { proto: HIP }));
  }
  if (border.icmp) {
    const icmp = (lines: readonly Partial<FilterRule>[], types: Types): Partial<FilterRule>[] =>
      lines.flatMap((line) => types.map((icmpTypes) => ({ ...line, proto: ICMPV6, icmpTypes })));
    add('rfc4890-link-only', drops(icmp(across, LINK_ONLY)));
    add('rfc4890-unwanted', drops(icmp(across, UNWANTED)));
    add('rfc4890-wanted', accepts(icmp(inward, WANTED)));
    // §4.4.1 to the router itself: echo. Neighbour discovery, MLD and errors pass without a rule; of the rest it has none.
    const input = exterior.map((from) => ({ from, to: ZONE_ROUTER }));
    add('rfc4890-input', accepts(icmp(input, [[128, 129]])));
    add('rfc4890-input-unwanted', drops(icmp(input, UNWANTED)));
  }
}

const ANYTHING: Omit<FilterRule, 'id'> = {
  from: ZONE_ANY,
  to: ZONE_ANY,
  fromPort: -1,
  toPort: -1,
  family: 6,
  proto: -1,
  src: null,
  dst: null,
  sport: null,
  dport: null,
  icmpTypes: null,
  icmpCode: -1,
  states: NEW,
  helper: 0,
  sourceZone: SOURCE_ANY,
  chain: 0,
  verdict: DROP,
};

function drops(lines: readonly Partial<FilterRule>[]): Partial<FilterRule>[] {
  return lines.map((line) => ({ ...line, states: NEW_OR_UNTRACKED, verdict: DROP }));
}

function accepts(lines: readonly Partial<FilterRule>[], more: Partial<FilterRule> = {}): Partial<FilterRule>[] {
  return lines.map((line) => ({ ...line, ...more, verdict: ACCEPT }));
}

/** Each line with each prefix as source and as destination. */
function between(lines: readonly Partial<FilterRule>[], prefixes: readonly string[]): Partial<FilterRule>[] {
  const addresses = prefixes.map(masked);
  return lines.flatMap((line) =>
    addresses.flatMap((address) => [
      { ...line, src: address },
      { ...line, dst: address },
    ]),
  );
}

function masked(text: string): MaskedAddress {
  const [address, length] = text.split('/');
  const parsed = parseAddress(address);
  if (parsed === null) throw new Error(`ipv6 policy: expected a prefix, got "${text}"`);
  return { words: parsed.words, mask: maskWords(6, Number(length)) };
}
