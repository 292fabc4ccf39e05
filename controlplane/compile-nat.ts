/**
 * Compile-nat: the configuration's `nat` section as words of the NAT rule table (conntrack/nat-rules.ts).
 *
 * Order: port forwards, then the DMZ host, then bypasses, then masquerades, each as written; the first match decides. A
 * line with several prefixes or protocols becomes several rules.
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
} from '../conntrack/nat-rules.ts';
import { maskWords } from '../dataplane/wire/address.ts';
import { tableZone } from './compile-rules.ts';
import type { Config, NatBehaviour, PrefixValue, Scope, Where } from './config/index.ts';

/** Numbers of RFC 4787's behaviours in the rule words. */
export const BEHAVIOURS: Record<NatBehaviour, number> = {
  'endpoint-independent': 1,
  'address-dependent': 2,
  'address-and-port-dependent': 3,
};

export interface CompiledNat {
  rules: number[][];
  /** Where each rule was written, by its number in NR_WHERE. */
  places: Where[];
}

/** Translates the section. IPv4 only; entries of the other family are left out (the schema refuses them earlier). */
export function compileNat(config: Config): CompiledNat {
  const places: Where[] = [];
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

  for (const forward of config.nat.forward)
    for (const proto of forward.protocols)
      for (const from of sources(forward.from)) {
        const words = rule(NAT_DNAT, forward.in, forward.where, from);
        words[NR_PROTO] = proto;
        words[NR_TO] = forward.to.words[0];
        if (forward.port !== null) {
          [words[NR_PORT_LO], words[NR_PORT_HI]] = forward.port;
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
    for (const from of sources(masquerade.from)) {
      const words = rule(NAT_SNAT, masquerade.out, masquerade.where, from);
      words[NR_TO] = masquerade.to?.words[0] ?? 0;
      words[NR_MAPPING] = BEHAVIOURS[masquerade.mapping];
      words[NR_FILTERING] = BEHAVIOURS[masquerade.filtering];
      if (masquerade.portsGiven) [words[NR_TO_LO], words[NR_TO_HI]] = masquerade.ports[0];
    }
  }
  return { rules, places };
}
