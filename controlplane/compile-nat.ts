/**
 * Compile-nat: the configuration's `nat` section as words of the NAT rule table (conntrack/nat-rules.ts).
 *
 * Order: triggered ports, port forwards, the DMZ host, then bypasses, then masquerades, each as written; the first match
 * decides. A line with several prefixes or protocols becomes several rules. Also here: how large the NAT tables must be.
 */

import { MAPPING_INDEX } from '../conntrack/mapping.ts';
import {
  HAIRPIN_INTERNAL,
  HAS_DESTINATION,
  HAS_NPTV6,
  HAS_TRIGGER,
  INBOUND_REFRESH,
  MAX_TRIGGERS,
  NAT_BYPASS,
  NAT_DMZ,
  NAT_DNAT,
  NAT_NPTV6,
  NAT_SNAT,
  NAT_TRIGGER,
  NO_HAIRPIN,
  NR_BLOCK,
  NR_BLOCKS,
  NR_DST,
  NR_DST_MASK,
  NR_EXTERNAL,
  NR_FILTERING,
  NR_FLAGS,
  NR_FROM,
  NR_FROM_MASK,
  NR_INTERNAL,
  NR_KIND,
  NR_LIMIT,
  NR_MAPPING,
  NR_POOL,
  NR_PORT,
  NR_PORT_HI,
  NR_PORT_LO,
  NR_PORTS,
  NR_PROTO,
  NR_RATIO,
  NR_TIMEOUT,
  NR_TO,
  NR_TO_HI,
  NR_TO_LO,
  NR_WHERE,
  NR_WORDS,
  NR_ZONE,
  NRF_DETERMINISTIC,
  NRF_MAPPED,
  NRF_PAIRED,
  NRF_PARITY,
  NRF_RANDOM,
} from '../conntrack/nat-rules.ts';
import { maskWords } from '../dataplane/wire/address.ts';
import { hostOrder } from '../dataplane/wire/bytes.ts';
import { tableZone } from './compile-rules.ts';
import type { Config, MasqueradeConfig, NatBehaviour, PrefixValue, Scope, Where } from './config/index.ts';

/** Numbers of RFC 4787's behaviours in the rule words. */
export const BEHAVIOURS: Record<NatBehaviour, number> = {
  'endpoint-independent': 1,
  'address-dependent': 2,
  'address-and-port-dependent': 3,
};

export interface CompiledNat {
  rules: number[][];
  /** Ranges of ports and addresses that rules name by their place, and the words of the head from OPTIONS on. */
  lists: number[];
  head: number[];
  /** Outside ports that no mapping may have: protocol, first, last. */
  reserved: [number, number, number][];
  /** Where each rule was written, by its number in NR_WHERE. */
  places: Where[];
}

/** Translates the section. IPv4 only; entries of the other family are left out (the schema refuses them earlier). */
export function compileNat(config: Config): CompiledNat {
  const places: Where[] = [];
  const lists: number[] = [0];
  const reserved: [number, number, number][] = [];
  const rules: number[][] = [];
  const rule = (kind: number, scope: Scope | null, where: Where, from: PrefixValue | null): number[] => {
    const words = new Array<number>(NR_WORDS).fill(0);
    words[NR_KIND] = kind;
    words[NR_ZONE] = scope?.kind === 'zone' ? tableZone(scope.number) : -1;
    words[NR_PORT] = scope?.kind === 'port' ? scope.number : -1;
    if (from !== null) {
      words[NR_FROM_MASK] = maskWords(4, from.prefixLength)[0];
      words[NR_FROM] = from.words[0] & words[NR_FROM_MASK];
    }
    words[NR_PORT_LO] = -1;
    words[NR_WHERE] = places.push(where) - 1;
    rules.push(words);
    return words;
  };
  const sources = (list: readonly PrefixValue[]): (PrefixValue | null)[] => {
    const four = list.filter((prefix) => prefix.family === 4);
    return list.length === 0 ? [null] : four;
  };

  compileTriggers(config, rule);
  for (const forward of config.nat.forward)
    for (const proto of forward.protocols)
      for (const from of sources(forward.from)) {
        const words = rule(NAT_DNAT, forward.in, forward.where, from);
        words[NR_PROTO] = proto;
        words[NR_TO] = forward.to.words[0];
        if (forward.port !== null) {
          [words[NR_PORT_LO], words[NR_PORT_HI]] = forward.port;
          reserved.push([proto, forward.port[0], forward.port[1]]);
          if (forward.toPort !== null) [words[NR_TO_LO], words[NR_TO_HI]] = forward.toPort;
        }
      }
  for (const dmz of config.nat.dmz) rule(NAT_DMZ, dmz.in, dmz.where, null)[NR_TO] = dmz.to.words[0];
  for (const bypass of config.nat.bypass)
    for (const from of sources(bypass.from))
      for (const to of sources(bypass.to)) {
        const words = rule(NAT_BYPASS, null, bypass.where, from);
        if (to !== null) {
          words[NR_DST_MASK] = maskWords(4, to.prefixLength)[0];
          words[NR_DST] = to.words[0] & words[NR_DST_MASK];
        }
      }
  for (const masquerade of config.nat.masquerade) {
    if (masquerade.family !== 4) continue;
    const pool = poolOf(masquerade);
    const poolAt = count(pool) > 1 ? addList(lists, pool) : 0;
    const portsAt = masquerade.portsGiven && masquerade.ports.length > 1 ? addList(lists, masquerade.ports) : 0;
    for (const from of sources(masquerade.from)) {
      const words = rule(NAT_SNAT, masquerade.out, masquerade.where, from);
      words[NR_TO] = masquerade.to?.words[0] ?? 0;
      words[NR_MAPPING] = BEHAVIOURS[masquerade.mapping];
      words[NR_FILTERING] = BEHAVIOURS[masquerade.filtering];
      words[NR_POOL] = poolAt;
      words[NR_PORTS] = portsAt;
      words[NR_LIMIT] = masquerade.sessions;
      words[NR_FLAGS] =
        (isMapped(masquerade) ? NRF_MAPPED : 0) |
        (masquerade.allocation === 'random' ? NRF_RANDOM : 0) |
        (masquerade.parity ? NRF_PARITY : 0) |
        (masquerade.pooling === 'paired' ? NRF_PAIRED : 0);
      const inBlocks = masquerade.blocks !== null || masquerade.deterministic;
      if (masquerade.portsGiven || inBlocks)
        [words[NR_TO_LO], words[NR_TO_HI]] = [masquerade.ports[0][0], masquerade.ports.at(-1)![1]];
      if (masquerade.blocks !== null) {
        words[NR_BLOCK] = masquerade.blocks.size;
        words[NR_BLOCKS] = masquerade.blocks.max;
      }
      if (masquerade.deterministic && from !== null) {
        const plan = deterministicPlan(masquerade);
        words[NR_FLAGS] |= NRF_DETERMINISTIC;
        words[NR_BLOCK] = plan.size;
        words[NR_RATIO] = plan.ratio;
        if (poolAt === 0) words[NR_POOL] = addList(lists, pool);
      }
    }
  }
  for (const { out, internal, external, where } of config.nat.nptv6) {
    const words = rule(NAT_NPTV6, out, where, null);
    words[NR_FROM] = internal.prefixLength;
    for (let n = 0; n < 4; n++) {
      words[NR_INTERNAL + n] = internal.words[n];
      words[NR_EXTERNAL + n] = external.words[n];
    }
  }
  for (const [low, high] of config.nat.reserved) reserved.push([6, low, high], [17, low, high]);
  return { rules, lists, head: compileHead(config), reserved, places };
}

/** What goes for all rules: hairpins, refresh, lifetimes (nat-rules.ts draws the words). */
function compileHead(config: Config): number[] {
  const { nat } = config;
  const options =
    (nat.hairpin === false ? NO_HAIRPIN : 0) |
    (nat.hairpin === 'internal' ? HAIRPIN_INTERNAL : 0) |
    (nat.inboundRefresh ? INBOUND_REFRESH : 0) |
    (nat.forward.length + nat.dmz.length + nat.trigger.length > 0 ? HAS_DESTINATION : 0) |
    (nat.trigger.length > 0 ? HAS_TRIGGER : 0) |
    (nat.nptv6.length > 0 ? HAS_NPTV6 : 0);
  const { udp, tcpTransitory, tcpEstablished, icmp } = nat.timeouts;
  return [options, udp * 1000, tcpTransitory * 1000, tcpEstablished * 1000, icmp * 1000, udp * 1000];
}

function compileTriggers(
  config: Config,
  rule: (kind: number, scope: Scope | null, where: Where, from: PrefixValue | null) => number[],
): void {
  let number = 0;
  for (const trigger of config.nat.trigger)
    for (const pulled of trigger.protocols)
      for (const opened of trigger.open.protocols) {
        if (number >= MAX_TRIGGERS)
          throw new RangeError(`nat.trigger: expected at most ${MAX_TRIGGERS} pairs of protocols, got more`);
        const words = rule(NAT_TRIGGER, null, trigger.where, null);
        words[NR_TO] = number++;
        words[NR_DST] = pulled;
        words[NR_DST_MASK] = trigger.port[0] | (trigger.port[1] << 16);
        words[NR_PROTO] = opened;
        [words[NR_PORT_LO], words[NR_PORT_HI]] = trigger.open.port;
        words[NR_TO_LO] = trigger.from.kind === 'zone' ? tableZone(trigger.from.number) : -1;
        words[NR_TO_HI] = trigger.from.kind === 'port' ? trigger.from.number : -1;
        words[NR_TIMEOUT] = trigger.timeout * 1000;
      }
}

/** True when a rule keeps mappings; without, connections alone say what is taken (profile `linux`). */
export function isMapped(masquerade: MasqueradeConfig): boolean {
  return (
    !masquerade.keepPort ||
    masquerade.mapping !== 'address-and-port-dependent' ||
    masquerade.filtering !== 'address-and-port-dependent' ||
    masquerade.blocks !== null ||
    masquerade.deterministic
  );
}

/** The outside addresses of an entry as ranges of numbers in host order, ascending. */
export function poolOf(masquerade: MasqueradeConfig): [number, number][] {
  const ranges = masquerade.pool.map((prefix): [number, number] => {
    const first = hostOrder(prefix.words[0]);
    return [first, first + 2 ** (32 - prefix.prefixLength) - 1];
  });
  return ranges.sort((a, b) => a[0] - b[0]);
}

function count(ranges: readonly (readonly [number, number])[]): number {
  return ranges.reduce((sum, [low, high]) => sum + high - low + 1, 0);
}

/**
 * RFC 7422 §2.2: how deterministic NAT shares the addresses: `ratio` inside addresses have one outside address, each
 * with `size` of its ports, from `base` on.
 */
export function deterministicPlan(masquerade: MasqueradeConfig): { ratio: number; size: number; base: number } {
  const inside = masquerade.from.length === 0 ? 1 : 2 ** (32 - masquerade.from[0].prefixLength);
  const ratio = Math.max(1, Math.ceil(inside / Math.max(1, count(poolOf(masquerade)))));
  const [base, last] = [masquerade.ports[0][0], masquerade.ports.at(-1)![1]];
  const fair = Math.floor((last - base + 1) / ratio);
  return { ratio, size: masquerade.blocks === null ? fair : Math.min(fair, masquerade.blocks.size), base };
}

/** Adds a list of ranges in nat-rules.ts's form; returns its place. */
function addList(lists: number[], ranges: readonly (readonly [number, number])[]): number {
  const at = lists.length;
  lists.push(ranges.length, count(ranges));
  let before = 0;
  for (const [low, high] of ranges) {
    lists.push(low | 0, before);
    before += high - low + 1;
  }
  return at;
}

/** Largest number of pools, of 8 KiB each: four protocols of a thousand addresses. */
const MAX_POOLS = 4096;
const MAX_SUBSCRIBERS = 131072;

/** Sizes of the NAT tables (dataplane/tables.ts) that a configuration needs. */
export function natSizes(config: Config): { natMappings: number; natPools: number; natSubscribers: number } {
  const mapped = config.nat.masquerade.filter(isMapped);
  let addresses = 0;
  let subscribers = 0;
  for (const entry of mapped) addresses += entry.pool.length === 0 ? entry.out.ports.length : count(poolOf(entry));
  for (const entry of config.nat.masquerade) {
    if (entry.sessions === 0 && (entry.blocks === null || entry.deterministic)) continue;
    const known = entry.from.reduce((sum, prefix) => sum + 2 ** (32 - prefix.prefixLength), 0);
    subscribers += known === 0 ? MAX_SUBSCRIBERS / 4 : Math.ceil(known * 1.25) + 16;
  }
  return {
    // Every session may have a mapping of its own: most have, as programs seldom use one port twice.
    natMappings: mapped.length === 0 ? 0 : Math.min(MAPPING_INDEX, Math.max(1024, config.conntrack.max)),
    natPools: Math.min(MAX_POOLS, addresses * 5),
    natSubscribers: Math.min(MAX_SUBSCRIBERS, subscribers),
  };
}
