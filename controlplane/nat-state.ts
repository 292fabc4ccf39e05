/**
 * NAT state: ends what a change of addresses or rules has made untrue (row N9, trap 9).
 *
 * A changed address ends exactly the connections that had used the old one, and the mappings that stood for it; the others
 * go on. New rules end the connections that they would translate otherwise: a flow that began before its masquerade
 * rule was there would leave untranslated for as long as it is never silent.
 */
import { Mapper } from '../conntrack/mapper.ts';
import { MAPPING_INBOUND, MAPPING_SECOND, NM_OUTSIDE, NM_RULE, NM_WORDS } from '../conntrack/mapping.ts';
import {
  NAT_BYPASS,
  NAT_DMZ,
  NAT_DNAT,
  NAT_SNAT,
  NAT_TRIGGER,
  NH_OPTIONS,
  NO_HAIRPIN,
  NR_FROM,
  NR_FROM_MASK,
  NR_KIND,
  NR_POOL,
  NR_PORT_HI,
  NR_PORT_LO,
  NR_PROTO,
  NR_TO,
  NR_TO_HI,
  NR_TO_LO,
  NR_WORDS,
} from '../conntrack/nat-rules.ts';
import {
  CT_KEY,
  CT_MAPPING,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_PORTS_IO,
  CT_R_DST,
  CT_R_PORTS,
  CT_R_SRC,
  CT_STATUS,
  CT_WORDS,
  CT6_R_SRC,
  CT6_WORDS,
  IPS_DST_NAT,
  IPS_EXPECTED,
  IPS_SRC_NAT,
} from '../conntrack/record.ts';
import { IF_ADDRESS4, IF_WORDS, IF_ZONE } from '../dataplane/interfaces.ts';
import {
  NH_CONNECTED,
  NH_COUNT_WORD,
  NH_GROUP,
  NH_LOCAL,
  NH_MEMBERS_WORD,
  NH_PORT_WORD,
  NH_VIA,
} from '../dataplane/nexthops.ts';
import type { Tables } from '../dataplane/tables.ts';
import { swap16, swap32 } from '../dataplane/wire/bytes.ts';
import { Nptv6State } from './nptv6-state.ts';

const PORTS_KNOWN = [6, 17, 33, 132, 136];

export class NatState {
  private readonly tables: Tables;
  private readonly nptv6: Nptv6State;

  /** Attaches to the tables: on the main thread of a live router nobody else tells mappings that a connection ended. */
  constructor(tables: Tables) {
    this.tables = tables;
    this.nptv6 = new Nptv6State(tables);
  }

  private attach(): void {
    const { tables } = this;
    if (tables.natMappings.attached) return;
    const mapper = new Mapper(
      tables.conntrack,
      tables.natRules,
      tables.natMappings,
      tables.natPools,
      tables.natSubscribers,
      tables.services,
      1,
    );
    const released = tables.conntrack.onDelete;
    tables.conntrack.onDelete = (index) => {
      mapper.count(index, -1);
      released(index);
    };
  }

  /** Ends every connection of a family for which `untrue` says so. Returns how many. */
  private end(family: number, untrue: (c: number) => boolean): number {
    this.attach();
    const { conntrack } = this.tables;
    const now = this.tables.now();
    let ended = 0;
    for (let index = 0; index < conntrack.highWater; index++) {
      const c = index * CT_WORDS;
      if (((conntrack.words[c + CT_KEY] >> 8) & 15) !== family || !conntrack.inUse(index, now)) continue;
      if (untrue(c) && conntrack.delete(index)) ended++;
    }
    return ended;
  }

  /**
   * Port `port` has lost the IPv4 address `old` (raw): what was translated to it, came in by it, or was the router's own
   * talk with it, ends. Returns the number of connections.
   */
  endAddress(port: number, old: number): number {
    this.attach();
    const { conntrack, natMappings } = this.tables;
    const now = this.tables.now();
    for (let index = 0; index < natMappings.highWater; index++)
      if (natMappings.words[index * NM_WORDS + NM_OUTSIDE] === old) natMappings.expire(index, now, true);
    const w = conntrack.words;
    return this.end(4, (c) => {
      if (w[c + CT_R_DST] !== old && w[c + CT_O_DST] !== old) return false;
      // The same address may be another port's in another conntrack zone: then the connection does not touch this port.
      const io = w[c + CT_PORTS_IO];
      return (io & 0xff) === port + 1 || ((io >> 8) & 0xff) === port + 1 || ((io >> 8) & 0xff) === 0;
    });
  }

  /** The rules are new: ends the connections that they would translate otherwise. Returns the number. */
  endStale(): number {
    const { conntrack, natMappings, interfaces } = this.tables;
    const now = this.tables.now();
    const m = natMappings.words;
    for (let index = 0; index < natMappings.highWater; index++) {
      const at = index * NM_WORDS;
      if (!this.owns(m[at + NM_OUTSIDE], m[at + NM_RULE])) natMappings.expire(index, now, true);
    }
    const w = conntrack.words;
    const six = this.end(6, (c) => {
      const at = (c / CT_WORDS) * CT6_WORDS + CT6_R_SRC;
      const [a, b, d, e] = conntrack.words6.subarray(at, at + 4);
      return this.nptv6.isUntrue(
        c / CT_WORDS,
        this.ways(c, () => this.tables.routes.lookup6(a, b, d, e)),
      );
    });
    const four = this.end(4, (c) => {
      const status = w[c + CT_STATUS];
      // What a helper has announced is translated as its master; that one ends or stays by itself.
      if ((status & IPS_EXPECTED) !== 0) return false;
      const mapped = natMappings.of(this.destinationMapping(c)) >= 0;
      const actual = this.actualDestination(c, status);
      if (!mapped && actual !== this.destinationOf(c) && !this.mayBeTriggered(c, actual)) return true;
      // A hairpin's source follows the outer port's rules.
      if ((status & IPS_SRC_NAT) !== 0 && (status & IPS_DST_NAT) !== 0) return false;
      return !this.sourceFits(c, status, interfaces.words);
    });
    return six + four;
  }

  /** The mapping that a connection's destination came from: of one begun from outside, or a hairpin's second. 0: none. */
  private destinationMapping(c: number): number {
    const { words, words6 } = this.tables.conntrack;
    const reference = words[c + CT_MAPPING];
    if ((reference & MAPPING_SECOND) !== 0) return words6[(c / CT_WORDS) * CT6_WORDS];
    return (reference & MAPPING_INBOUND) !== 0 ? reference : 0;
  }

  private actualDestination(c: number, status: number): string {
    const w = this.tables.conntrack.words;
    if ((status & IPS_DST_NAT) === 0) return '';
    return `${w[c + CT_R_SRC]} ${PORTS_KNOWN.includes(w[c + CT_KEY] & 0xff) ? swap16(w[c + CT_R_PORTS] & 0xffff) : 0}`;
  }

  /** Where the rules send a new connection's destination: '' nowhere else. */
  private destinationOf(c: number): string {
    const { conntrack, natRules, interfaces, routes, nexthops } = this.tables;
    const w = conntrack.words;
    const r = natRules.words;
    const local = routes.lookup4(w[c + CT_O_DST]);
    if (local === 0 || nexthops.kind(local) !== NH_LOCAL) return '';
    const port = (w[c + CT_PORTS_IO] & 0xff) - 1;
    const zone = interfaces.words[port * IF_WORDS + IF_ZONE];
    const owner = nexthops.words[nexthops.at(local) + NH_PORT_WORD];
    const ownerZone = interfaces.words[owner * IF_WORDS + IF_ZONE];
    const hairpins = (r[NH_OPTIONS] & NO_HAIRPIN) === 0;
    const proto = w[c + CT_KEY] & 0xff;
    const ported = PORTS_KNOWN.includes(proto);
    const wanted = swap16(w[c + CT_O_PORTS] >>> 16);
    for (let n = 0, at = natRules.first(); n < natRules.count(); n++, at += NR_WORDS) {
      const kind = r[at + NR_KIND];
      if (kind !== NAT_DNAT && kind !== NAT_DMZ) continue;
      const hairpin = kind === NAT_DNAT && hairpins && natRules.matchesWhere(at, ownerZone, owner);
      if (!hairpin && !natRules.matchesWhere(at, zone, port)) continue;
      if (r[at + NR_PROTO] !== 0 && r[at + NR_PROTO] !== proto) continue;
      if (((w[c + CT_O_SRC] ^ r[at + NR_FROM]) & r[at + NR_FROM_MASK]) !== 0) continue;
      const low = r[at + NR_PORT_LO];
      if (low >= 0 && (!ported || wanted < low || wanted > r[at + NR_PORT_HI])) continue;
      const first = r[at + NR_TO_LO];
      const to = low >= 0 && first !== 0 ? first + Math.min(wanted - low, r[at + NR_TO_HI] - first) : wanted;
      return `${r[at + NR_TO]} ${ported ? to : 0}`;
    }
    return '';
  }

  /**
   * True when a trigger may have sent the connection to where it goes (`actual`). Whoever has pulled it since: what came
   * while it was this host's stays.
   */
  private mayBeTriggered(c: number, actual: string): boolean {
    const { conntrack, natRules } = this.tables;
    const w = conntrack.words;
    const r = natRules.words;
    const wanted = swap16(w[c + CT_O_PORTS] >>> 16);
    if (actual !== `${w[c + CT_R_SRC]} ${wanted}`) return false;
    for (let n = 0, at = natRules.first(); n < natRules.count(); n++, at += NR_WORDS) {
      if (r[at + NR_KIND] !== NAT_TRIGGER || r[at + NR_PROTO] !== (w[c + CT_KEY] & 0xff)) continue;
      if (wanted >= r[at + NR_PORT_LO] && wanted <= r[at + NR_PORT_HI]) return true;
    }
    return false;
  }

  /** True when the connection's source is what the rules would make of it, its port aside, where it leaves. */
  private sourceFits(c: number, status: number, ports: Int32Array): boolean {
    const { conntrack, routes } = this.tables;
    const ways = this.ways(c, () => routes.lookup4(conntrack.words[c + CT_R_SRC]));
    if (ways === null || ways.length === 0) return true;
    return ways.some((out) => this.sourceFitsAt(out, c, status, ports));
  }

  /**
   * Ports that a connection may leave by: the one where its answers come in; before there are any, those that the route to
   * its destination has (`lookup` finds it). null: a routing rule may have sent it anywhere, but it is answered soon, or over soon.
   */
  private ways(c: number, lookup: () => number): number[] | null {
    const { conntrack, policy } = this.tables;
    const answered = (conntrack.words[c + CT_PORTS_IO] >> 8) & 0xff;
    if (answered !== 0) return [answered - 1];
    return policy.count() !== 0 ? null : this.egresses(lookup());
  }

  private sourceFitsAt(out: number, c: number, status: number, ports: Int32Array): boolean {
    const { conntrack, natRules } = this.tables;
    const w = conntrack.words;
    const r = natRules.words;
    const translated = (status & IPS_SRC_NAT) !== 0;
    const proto = w[c + CT_KEY] & 0xff;
    for (let n = 0, at = natRules.first(); n < natRules.count(); n++, at += NR_WORDS) {
      const kind = r[at + NR_KIND];
      if (kind !== NAT_SNAT && kind !== NAT_BYPASS) continue;
      if (!natRules.matchesWhere(at, ports[out * IF_WORDS + IF_ZONE], out)) continue;
      if (r[at + NR_PROTO] !== 0 && r[at + NR_PROTO] !== proto) continue;
      if (((w[c + CT_O_SRC] ^ r[at + NR_FROM]) & r[at + NR_FROM_MASK]) !== 0) continue;
      if (kind === NAT_BYPASS) {
        if (natRules.bypasses(at, w[c + CT_R_SRC])) break;
        continue;
      }
      return translated && this.lends(at, w[c + CT_R_DST], ports[out * IF_WORDS + IF_ADDRESS4]);
    }
    return w[c + CT_R_DST] === w[c + CT_O_SRC];
  }

  /** True when the rule at word `at` gives out this address. */
  private lends(at: number, address: number, own: number): boolean {
    const { natRules } = this.tables;
    const r = natRules.words;
    if (r[at + NR_POOL] !== 0) return natRules.holds(r[at + NR_POOL], swap32(address));
    return address === (r[at + NR_TO] !== 0 ? r[at + NR_TO] : own);
  }

  /** True when some rule of the scope `rule` (mapping.ts RULE) gives out this address. */
  private owns(address: number, rule: number): boolean {
    const { natRules, interfaces } = this.tables;
    const r = natRules.words;
    for (let n = 0, at = natRules.first(); n < natRules.count(); n++, at += NR_WORDS) {
      if (r[at + NR_KIND] !== NAT_SNAT) continue;
      const zone = (rule & 0xff) - 1;
      const port = (rule >> 8) - 1;
      if (!natRules.matchesWhere(at, zone, port) && (zone >= 0 || port >= 0)) continue;
      if (r[at + NR_POOL] !== 0 || r[at + NR_TO] !== 0) {
        if (this.lends(at, address, 0)) return true;
        continue;
      }
      for (let at4 = IF_ADDRESS4; at4 < interfaces.words.length; at4 += IF_WORDS)
        if (interfaces.words[at4] === address) return true;
    }
    return false;
  }

  /** Ports that next hop `n` (0: none) may leave by; none when it leads nowhere or to the router itself. */
  private egresses(n: number): number[] {
    const { nexthops } = this.tables;
    if (n === 0) return [];
    const at = nexthops.at(n);
    const members = nexthops.kind(n) === NH_GROUP ? nexthops.words[at + NH_COUNT_WORD] : 0;
    const ways =
      members === 0 ? [n] : [...nexthops.words.subarray(at + NH_MEMBERS_WORD, at + NH_MEMBERS_WORD + members)];
    return ways
      .filter((way) => nexthops.kind(way) === NH_VIA || nexthops.kind(way) === NH_CONNECTED)
      .map((way) => nexthops.words[nexthops.at(way) + NH_PORT_WORD]);
  }
}
