/**
 * NPTv6 state: does a connection still have the translation that the rules would give it now (RFC 6296)?
 *
 * A translated prefix is the rule's, but what a connection began with is in its tuples: when a provider gives another
 * prefix and the rule follows, answers to the old one come no more. Asked by nat-state.ts, which ends what has become untrue.
 */
import {
  HAS_NPTV6,
  NAT_NPTV6,
  NH_OPTIONS,
  NO_HAIRPIN,
  NR_EXTERNAL,
  NR_FROM,
  NR_INTERNAL,
  NR_KIND,
  NR_WORDS,
} from '../conntrack/nat-rules.ts';
import { hasPrefix, translate } from '../conntrack/nptv6.ts';
import {
  CT_PORTS_IO,
  CT_STATUS,
  CT_WORDS,
  CT6_O_SRC,
  CT6_R_SRC,
  CT6_WORDS,
  IPS_DST_NAT,
  IPS_SRC_NAT,
} from '../conntrack/record.ts';
import { IF_WORDS, IF_ZONE } from '../dataplane/interfaces.ts';
import { NH_LOCAL } from '../dataplane/nexthops.ts';
import type { Tables } from '../dataplane/tables.ts';

/** Places of the two addresses in `ends`. */
const DESTINATION = 0;
const SOURCE = 4;

export class Nptv6State {
  private readonly tables: Tables;
  private readonly ends = new Int32Array(8);

  constructor(tables: Tables) {
    this.tables = tables;
  }

  /**
   * True when the IPv6 connection `index` is not translated as a new one would be.
   * @param ways numbers of the ports that it may leave by; null: nobody knows
   */
  isUntrue(index: number, ways: readonly number[] | null): boolean {
    const { conntrack, natRules } = this.tables;
    const c = index * CT_WORDS;
    if ((natRules.words[NH_OPTIONS] & HAS_NPTV6) === 0)
      return (conntrack.words[c + CT_STATUS] & (IPS_SRC_NAT | IPS_DST_NAT)) !== 0;
    const { ends } = this;
    const a = index * CT6_WORDS;
    ends.set(conntrack.words6.subarray(a + CT6_O_SRC + 4, a + CT6_O_SRC + 8), DESTINATION);
    ends.set(conntrack.words6.subarray(a + CT6_O_SRC, a + CT6_O_SRC + 4), SOURCE);
    const ingress = (conntrack.words[c + CT_PORTS_IO] & 0xff) - 1;
    const hairpin = this.isOwn() ? -1 : this.translateDestination(ingress);
    if (hairpin >= 0) return !this.translateSource(hairpin) || !this.isNow(a, SOURCE) || !this.isNow(a, DESTINATION);
    if (!this.isNow(a, DESTINATION)) return true;
    return ways !== null && ways.length > 0 && !ways.some((out) => this.leavesAsNow(a, out));
  }

  /** The router's own packets keep their destination (path.ts). */
  private isOwn(): boolean {
    const { routes, nexthops } = this.tables;
    const { ends } = this;
    const n = routes.lookup6(ends[SOURCE], ends[SOURCE + 1], ends[SOURCE + 2], ends[SOURCE + 3]);
    return n !== 0 && nexthops.kind(n) === NH_LOCAL;
  }

  /** As Nat.chooseDestination6. Returns the rule's word when it is a hairpin, whose source has the same rule; else −1. */
  private translateDestination(ingress: number): number {
    const { natRules, interfaces } = this.tables;
    const r = natRules.words;
    const zone = interfaces.words[ingress * IF_WORDS + IF_ZONE];
    for (let n = 0, at = natRules.first(); n < natRules.count(); n++, at += NR_WORDS) {
      if (r[at + NR_KIND] !== NAT_NPTV6) continue;
      if (!hasPrefix(this.ends, DESTINATION, r, at + NR_EXTERNAL, r[at + NR_FROM])) continue;
      const isOutside = natRules.matchesWhere(at, zone, ingress);
      if (!isOutside && (r[NH_OPTIONS] & NO_HAIRPIN) !== 0) continue;
      translate(this.ends, DESTINATION, r, at + NR_EXTERNAL, at + NR_INTERNAL, r[at + NR_FROM]);
      return isOutside ? -1 : at;
    }
    return -1;
  }

  private leavesAsNow(a: number, out: number): boolean {
    const { conntrack, natRules, interfaces } = this.tables;
    const r = natRules.words;
    const zone = interfaces.words[out * IF_WORDS + IF_ZONE];
    this.ends.set(conntrack.words6.subarray(a + CT6_O_SRC, a + CT6_O_SRC + 4), SOURCE);
    for (let n = 0, at = natRules.first(); n < natRules.count(); n++, at += NR_WORDS) {
      if (r[at + NR_KIND] !== NAT_NPTV6 || !natRules.matchesWhere(at, zone, out)) continue;
      if (!hasPrefix(this.ends, SOURCE, r, at + NR_INTERNAL, r[at + NR_FROM])) continue;
      return this.translateSource(at) && this.isNow(a, SOURCE);
    }
    return this.isNow(a, SOURCE);
  }

  /** By the rule at word `at`, as Nat.sourceByPrefix; false: this address has no translation. */
  private translateSource(at: number): boolean {
    const r = this.tables.natRules.words;
    if (!hasPrefix(this.ends, SOURCE, r, at + NR_INTERNAL, r[at + NR_FROM])) return true;
    return translate(this.ends, SOURCE, r, at + NR_INTERNAL, at + NR_EXTERNAL, r[at + NR_FROM]);
  }

  /** True when the REPLY tuple has this end: its source is the destination, its destination the source. */
  private isNow(a: number, end: number): boolean {
    const { words6 } = this.tables.conntrack;
    for (let k = 0; k < 4; k++) if (words6[a + CT6_R_SRC + end + k] !== this.ends[end + k]) return false;
    return true;
  }
}
