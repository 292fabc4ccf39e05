/**
 * NAT: the nat-prerouting and nat-postrouting stages over the connection's tuples.
 *
 * As in netfilter, a translation is nothing but a REPLY tuple that is not the inverse of the ORIGINAL one. A new
 * connection's first packet consults the rules; every later packet follows the tuples: "original: invert reply and use
 * source; reply: invert original and use destination". Both stages change the packet's effective addresses only; the
 * frame is rewritten at the end of the path (dataplane/rewrite.ts).
 *
 * Port choice: the source port is kept while the resulting tuple is free (RFC 4787 §4.2.1 port preservation), else a free
 * one is sought from a random start, at most 248 look-ups (128 + 64 + 32 + 16 + 8), as nf_nat does.
 *
 * That is the profile `linux`. Rules with other mapping or filtering behaviours keep mappings (mapping.ts, mapper.ts): there
 * the source and its port come from the mapping, and a packet from outside to a mapped port is admitted or refused by
 * its filtering. Hairpins: a packet from inside to an outside address and port that leads inside gets both sides
 * translated at once, its source as if it had gone out (RFC 4787 REQ-9).
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { ESP_OK, ESP_RESERVED, EspTunnels } from './esp.ts';
import type { Mapper } from './mapper.ts';
import {
  ADDRESS_DEPENDENT,
  INDEPENDENT,
  MAPPING_INBOUND,
  MAPPING_LIMITED,
  MAPPING_SECOND,
  NM_INSIDE,
  NM_KEY,
  NM_OUTSIDE,
  NM_PORTS,
  NM_RULE,
  NM_SCOPE,
  NM_WORDS,
} from './mapping.ts';
import type { NatRules } from './nat-rules.ts';
import {
  HAIRPIN_INTERNAL,
  HAS_NPTV6,
  HAS_TRIGGER,
  NAT_BYPASS,
  NAT_DMZ,
  NAT_DNAT,
  NAT_NPTV6,
  NAT_SNAT,
  NAT_TRIGGER,
  NH_OPTIONS,
  NO_HAIRPIN,
  NR_DST,
  NR_DST_MASK,
  NR_EXTERNAL,
  NR_FLAGS,
  NR_FROM,
  NR_FROM_MASK,
  NR_INTERNAL,
  NR_KIND,
  NR_LIMIT,
  NR_POOL,
  NR_PORT_HI,
  NR_PORT_LO,
  NR_PORTS,
  NR_PROTO,
  NR_TIMEOUT,
  NR_TO,
  NR_TO_HI,
  NR_TO_LO,
  NR_WORDS,
  NRF_MAPPED,
  NRF_RANDOM,
} from './nat-rules.ts';
import { hasPrefix, translate } from './nptv6.ts';
import { ESP, GRE, hasPorts, ICMP, ICMPV6, TCP } from './protocols.ts';
import {
  CT_KEY,
  CT_MAPPING,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_R_DST,
  CT_R_PORTS,
  CT_R_SRC,
  CT_STATUS,
  CT_WORDS,
  CT6_O_SRC,
  CT6_R_SRC,
  CT6_WORDS,
  IPS_DST_NAT,
  IPS_SRC_NAT,
  ORIGINAL,
} from './record.ts';
import type { ConntrackTable } from './table.ts';

/** Results of the postrouting stage. */
export const NAT_OK = 0;
export const NAT_NO_PORT = 1;
export const NAT_WITHOUT_ADDRESS = 2;
/** There is a mapping, and its filtering refuses the sender. */
export const NAT_REFUSED = 3;
/** The address has no translation (RFC 6296 §3.4). */
export const NAT_UNTRANSLATABLE = 6;
/** The source has as many sessions as it may have. */
export const NAT_LIMIT = 4;
/** A hairpin back to the sender with the sender's own address. */
export const NAT_LOOP = 5;
/** ESP: another host waits for the first answer of this gateway (esp.ts); or no SPI that can be told apart. */
export const NAT_ESP_PENDING = 7;
export const NAT_ESP_RESERVED = 8;

/** `Nat.outer`: the packet is translated by a mapping but belongs to no connection of its own. */
export const ONE_WAY = -2;

const ATTEMPTS = 128;
const UDP = 17;

export class Nat {
  private readonly table: ConntrackTable;
  private readonly rules: NatRules;
  readonly mapper: Mapper;
  private readonly esp: EspTunnels;
  private random: number;
  /** Rule that decided last (its number in the list), −1 none: for explain. */
  rule = -1;
  /** Look-ups that the last port search took. */
  probes = 0;
  /**
   * Port whose outside the current packet was hairpinned at, −1: it was not, or ONE_WAY. Set by the prerouting stage of a new
   * connection, read by its postrouting stage.
   */
  outer = -1;
  /** Source address that a new connection was given last, raw; 0: none yet. A guess for the next (dataplane/touch.ts). */
  given = 0;
  /** Zone that the current packet entered by. */
  inZone = -1;

  /** @param seed of the port search; equal seeds choose equal ports */
  constructor(table: ConntrackTable, rules: NatRules, mapper: Mapper, seed: number) {
    this.table = table;
    this.rules = rules;
    this.mapper = mapper;
    this.esp = new EspTunnels(table);
    this.random = seed | 1;
    const released = table.onDelete;
    table.onDelete = (index) => {
      mapper.count(index, -1);
      released(index);
    };
  }

  /** True when a destination rule could match packets that enter from this zone: only then the path asks who owns it. */
  wantsDestination(zone: number, port: number): boolean {
    return this.rules.hasDestinationRule(zone, port);
  }

  /**
   * nat-prerouting of a new connection: triggered ports, port forwards, then the DMZ host. Only asked for a destination
   * that is the router's own address. Sets the REPLY tuple's source; `prerouting` then applies it.
   * @param owner number of the port that has the address   @param ownerZone that port's zone
   */
  chooseDestination(p: Packet, zone: number, owner: number, ownerZone: number, now: number): void {
    const rules = this.rules;
    const r = rules.words;
    this.rule = -1;
    for (let n = 0, at = rules.first(); n < rules.count(); n++, at += NR_WORDS) {
      const kind = r[at + NR_KIND];
      if (kind !== NAT_DNAT && kind !== NAT_DMZ && kind !== NAT_TRIGGER) continue;
      let hairpin = false;
      if (kind === NAT_TRIGGER) {
        if (r[at + NR_PROTO] !== p.proto || !rules.triggered(at, now)) continue;
        if (rules.matchesInside(at, zone, p.port)) continue;
      } else if (!rules.matchesWhere(at, zone, p.port)) {
        // From inside to the outside address: as if it had come from outside. The DMZ host gets no such strays.
        if (kind === NAT_DMZ || (r[NH_OPTIONS] & NO_HAIRPIN) !== 0) continue;
        if (!rules.matchesWhere(at, ownerZone, owner)) continue;
        hairpin = true;
      }
      if (r[at + NR_PROTO] !== 0 && r[at + NR_PROTO] !== p.proto) continue;
      if (kind !== NAT_TRIGGER && ((p.s0 ^ r[at + NR_FROM]) & r[at + NR_FROM_MASK]) !== 0) continue;
      const low = r[at + NR_PORT_LO];
      let toPort = -1;
      if (low >= 0) {
        if (!hasPorts(p.proto) || p.proto === ICMP) continue;
        const port = swap(p.ports >>> 16);
        if (port < low || port > r[at + NR_PORT_HI]) continue;
        if (kind !== NAT_TRIGGER && r[at + NR_TO_LO] !== 0)
          toPort = r[at + NR_TO_LO] + Math.min(port - low, r[at + NR_TO_HI] - r[at + NR_TO_LO]);
      }
      this.rule = n;
      if (hairpin && (r[NH_OPTIONS] & HAIRPIN_INTERNAL) === 0) this.outer = owner;
      this.setDestination(p, kind === NAT_TRIGGER ? rules.triggeredBy(at) : r[at + NR_TO], toPort);
      return;
    }
  }

  /**
   * nat-prerouting of a new connection that no rule took: a mapping that owns its destination. Sets the REPLY tuple's
   * source, as chooseDestination does. Returns NAT_OK, also when there is no mapping, or NAT_REFUSED.
   */
  admit(p: Packet, zone: number, now: number): number {
    // An identifier of ICMP is the inquirer's: a query from outside asks the router, whoever else has that number.
    if (p.proto === ICMP || p.proto === GRE || !hasPorts(p.proto)) return NAT_OK;
    const { mappings } = this.mapper;
    const index = mappings.findOutside(p.d0, p.ports >>> 16, p.proto, now);
    if (index < 0) return NAT_OK;
    const m = mappings.words;
    const at = index * NM_WORDS;
    const ruleZone = (m[at + NM_RULE] & 0xff) - 1;
    const rulePort = (m[at + NM_RULE] >> 8) - 1;
    const inside = (ruleZone >= 0 && ruleZone !== zone) || (rulePort >= 0 && rulePort !== p.port);
    const options = this.rules.words[NH_OPTIONS];
    if (inside && (options & NO_HAIRPIN) !== 0) return NAT_OK;
    // RFC 4787 §5 filters outside endpoints: a hairpinned packet comes from inside.
    if (!inside) {
      const filtering = (m[at + NM_KEY] >> 10) & 3;
      const admitted =
        filtering === INDEPENDENT || (filtering === ADDRESS_DEPENDENT && mappings.permitted(index, p.s0));
      if (!admitted) {
        mappings.countFiltered();
        return NAT_REFUSED;
      }
    } else if ((options & HAIRPIN_INTERNAL) === 0) this.outer = (m[at + NM_SCOPE] >>> 16) - 1;
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    w[c + CT_R_SRC] = m[at + NM_INSIDE];
    w[c + CT_R_PORTS] = (w[c + CT_R_PORTS] & ~0xffff) | (m[at + NM_PORTS] & 0xffff);
    w[c + CT_STATUS] |= IPS_DST_NAT;
    if (this.replyTaken(c, now)) {
      // The host inside talks to this sender by another mapping already (only a dependent mapping behaviour comes here).
      // The packet is for it all the same; what it answers follows that connection.
      this.outer = ONE_WAY;
      return NAT_OK;
    }
    w[c + CT_MAPPING] = mappings.reference(index) | MAPPING_INBOUND;
    this.mapper.startInbound(c, p.proto, index);
    return NAT_OK;
  }

  private setDestination(p: Packet, to: number, toPort: number): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    w[c + CT_R_SRC] = to;
    if (toPort >= 0) w[c + CT_R_PORTS] = (w[c + CT_R_PORTS] & ~0xffff) | swap(toPort);
    w[c + CT_STATUS] |= IPS_DST_NAT;
  }

  /** nat-prerouting: the effective destination of a packet, from its connection's tuples. */
  prerouting(p: Packet, now: number): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const status = w[c + CT_STATUS];
    if ((status & (IPS_SRC_NAT | IPS_DST_NAT)) === 0) return;
    // Here, and not where the packet leaves: one that does not get so far has moved the tracker's deadline all the same.
    if (w[c + CT_MAPPING] !== 0 && p.fresh === 0 && p.innerL3 === 0) this.mapper.touch(p, now);
    const original = p.dir === ORIGINAL;
    if ((status & (original ? IPS_DST_NAT : IPS_SRC_NAT)) === 0) return;
    // The other direction's tuple, seen from its receiver: its source is where this packet goes.
    const t = original ? c + CT_R_SRC : c + CT_O_SRC;
    if (p.family === 4) p.d0 = w[t];
    else {
      const a = p.ct * CT6_WORDS + (original ? CT6_R_SRC : CT6_O_SRC);
      const x = this.table.words6;
      p.d0 = x[a];
      p.d1 = x[a + 1];
      p.d2 = x[a + 2];
      p.d3 = x[a + 3];
    }
    if (p.innerL3 !== 0 || p.proto === ESP) return;
    if (p.proto === ICMP || p.proto === ICMPV6) p.ports = (p.ports & ~0xffff) | (w[t + 2] & 0xffff);
    else p.ports = (p.ports & 0xffff) | (w[t + 2] << 16);
  }

  /** nat-postrouting: the effective source of a packet, from its connection's tuples. */
  postrouting(p: Packet, now: number): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const status = w[c + CT_STATUS];
    if ((status & (IPS_SRC_NAT | IPS_DST_NAT)) === 0) return;
    // A new connection has its mappings from here on.
    if (w[c + CT_MAPPING] !== 0 && p.fresh !== 0 && p.innerL3 === 0) this.mapper.touch(p, now);
    const original = p.dir === ORIGINAL;
    if ((status & (original ? IPS_SRC_NAT : IPS_DST_NAT)) === 0) return;
    const t = original ? c + CT_R_SRC : c + CT_O_SRC;
    if (p.family === 4) p.s0 = w[t + 1];
    else {
      const a = p.ct * CT6_WORDS + (original ? CT6_R_SRC : CT6_O_SRC) + 4;
      const x = this.table.words6;
      p.s0 = x[a];
      p.s1 = x[a + 1];
      p.s2 = x[a + 2];
      p.s3 = x[a + 3];
    }
    if (p.innerL3 !== 0 || p.proto === ESP) return;
    if (p.proto === ICMP || p.proto === ICMPV6) p.ports = (p.ports & ~0xffff) | (w[t + 2] & 0xffff);
    else p.ports = (p.ports & ~0xffff) | (w[t + 2] >>> 16);
  }

  /**
   * nat-postrouting of a new connection: masquerade or SNAT by the first rule that matches, or none. Where no rule
   * matches, the source port still moves when the reply tuple is taken by a translated connection (no port shadowing).
   * @param address4 primary IPv4 address of the egress port, raw
   */
  chooseSource(p: Packet, outZone: number, outPort: number, address4: number, now: number): number {
    const rules = this.rules;
    const r = rules.words;
    this.rule = -1;
    this.probes = 0;
    if ((r[NH_OPTIONS] & HAS_TRIGGER) !== 0) this.pullTriggers(p, now);
    let result = NAT_OK;
    let at = -1;
    for (let n = 0, rule = rules.first(); n < rules.count(); n++, rule += NR_WORDS) {
      const kind = r[rule + NR_KIND];
      if (kind !== NAT_SNAT && kind !== NAT_BYPASS) continue;
      if (!rules.matchesWhere(rule, outZone, outPort)) continue;
      if (r[rule + NR_PROTO] !== 0 && r[rule + NR_PROTO] !== p.proto) continue;
      if (((p.s0 ^ r[rule + NR_FROM]) & r[rule + NR_FROM_MASK]) !== 0) continue;
      if (kind === NAT_BYPASS) {
        if (rules.bypasses(rule, p.d0)) break;
        continue;
      }
      this.rule = n;
      at = rule;
      break;
    }
    if (at >= 0) result = this.translateSource(p, at, outPort, address4, now);
    else if (rules.count() > 0 && this.replyTaken(p.ct * CT_WORDS, now))
      result = this.setSource(p, p.s0, 0, 0, 0, 0, now);
    if (result !== NAT_OK) return result;
    const c = p.ct * CT_WORDS;
    const w = this.table.words;
    // Back to the sender with the sender's own address: no host answers that, and most take it for an attack.
    const looped = (w[c + CT_STATUS] & IPS_DST_NAT) !== 0 && w[c + CT_R_SRC] === w[c + CT_R_DST];
    return looped ? NAT_LOOP : NAT_OK;
  }

  /** The new source by the rule at word `at`: with a mapping, or by the reply tuple alone. */
  private translateSource(p: Packet, at: number, outPort: number, address4: number, now: number): number {
    const r = this.rules.words;
    const pool = r[at + NR_POOL];
    const address = r[at + NR_TO] !== 0 ? r[at + NR_TO] : address4;
    if (address === 0 && pool === 0) return NAT_WITHOUT_ADDRESS;
    const limit = r[at + NR_LIMIT];
    if (limit !== 0 && this.mapper.atLimit(p.s0, limit)) return NAT_LIMIT;
    let result = NAT_OK;
    const ported = hasPorts(p.proto) && p.proto !== GRE && (p.proto !== ICMP || isEcho(p.ports));
    // The router's own packets have its address and a port of its own already.
    if ((r[at + NR_FLAGS] & NRF_MAPPED) !== 0 && ported && p.own === 0) {
      const index = this.mapper.choose(p, at, address4, outPort, now);
      if (index < 0) return NAT_NO_PORT;
      this.setMapping(p, index);
    } else {
      const chosen = pool === 0 ? address : this.mapper.addressFor(p.s0, pool);
      const first = r[at + NR_TO_LO];
      result = this.setSource(p, chosen, first, r[at + NR_TO_HI], r[at + NR_PORTS], r[at + NR_FLAGS], now);
    }
    if (limit !== 0 && result === NAT_OK) this.table.words[p.ct * CT_WORDS + CT_MAPPING] |= MAPPING_LIMITED;
    return result;
  }

  /** The connection's source is that of mapping `index`. */
  private setMapping(p: Packet, index: number): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const { mappings } = this.mapper;
    const m = index * NM_WORDS;
    const shift = p.proto === ICMP ? 0 : 16;
    w[c + CT_R_DST] = mappings.words[m + NM_OUTSIDE];
    w[c + CT_R_PORTS] = (w[c + CT_R_PORTS] & ~(0xffff << shift)) | ((mappings.words[m + NM_PORTS] >>> 16) << shift);
    w[c + CT_STATUS] |= IPS_SRC_NAT;
    const destination = w[c + CT_MAPPING];
    let reference = mappings.reference(index);
    if (destination !== 0) {
      // IPv4 connections leave their words for IPv6 addresses to a hairpin's second mapping.
      this.table.words6[p.ct * CT6_WORDS] = destination & ~MAPPING_INBOUND;
      reference |= MAPPING_SECOND;
    }
    w[c + CT_MAPPING] = reference;
  }

  /** A new connection outwards may open ports for its host (port triggering). */
  private pullTriggers(p: Packet, now: number): void {
    const rules = this.rules;
    const r = rules.words;
    const w = this.table.words;
    const port = swap(w[p.ct * CT_WORDS + CT_O_PORTS] >>> 16);
    for (let n = 0, at = rules.first(); n < rules.count(); n++, at += NR_WORDS) {
      if (r[at + NR_KIND] !== NAT_TRIGGER || r[at + NR_DST] !== p.proto) continue;
      if (port < (r[at + NR_DST_MASK] & 0xffff) || port > r[at + NR_DST_MASK] >>> 16) continue;
      if (!rules.matchesInside(at, this.inZone, p.port)) continue;
      rules.trigger(at, p.s0, (now + r[at + NR_TIMEOUT]) | 0);
    }
  }

  /**
   * Gives the connection the source `address` and a port in [low, high] (0, 0: the class of its own port), or in the
   * list of ranges `list` (0: none).
   */
  private setSource(
    p: Packet,
    address: number,
    low: number,
    high: number,
    list: number,
    flags: number,
    now: number,
  ): number {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    w[c + CT_R_DST] = address;
    w[c + CT_STATUS] |= IPS_SRC_NAT;
    this.given = address;
    // The router's own tunnels have its address already, and need no telling apart.
    if (p.proto === ESP) return p.own !== 0 || address === p.s0 ? NAT_OK : this.separate(c, now);
    // A GRE key is a call's, agreed in its control connection: the PPTP helper translates it (nf_nat does not either).
    if (!hasPorts(p.proto) || p.proto === GRE || (p.proto === ICMP && !isEcho(p.ports))) return NAT_OK;
    const shift = p.proto === ICMP ? 0 : 16;
    const own = swap(p.ports & 0xffff);
    let min = low;
    let max = high;
    if (low === 0 && high === 0) {
      // nf_nat's classes: a privileged port stays privileged.
      min = p.proto === ICMP ? 0 : own < 512 ? 1 : own < 1024 ? 600 : 1024;
      max = p.proto === ICMP ? 65535 : own < 512 ? 511 : own < 1024 ? 1023 : 65535;
    }
    const within = list === 0 ? own >= min && own <= max : this.rules.holds(list, own);
    // A port that the router itself listens on is nobody else's (port shadowing, CVE-2021-3773).
    const kept = within && (flags & NRF_RANDOM) === 0 && (p.own !== 0 || !this.mapper.isService(p.proto, own));
    if (kept && !this.tryPort(c, own, shift, now)) return NAT_OK;
    if (kept && list === 0 && max === min) return NAT_NO_PORT;
    return this.searchPort(c, min, max, list, shift, now);
  }

  /** Several hosts may have ESP tunnels behind one address: theirs are told apart by SPI. */
  private separate(c: number, now: number): number {
    const result = this.esp.masquerade(c, now);
    return result === ESP_OK ? NAT_OK : result === ESP_RESERVED ? NAT_ESP_RESERVED : NAT_ESP_PENDING;
  }

  // --- NPTv6 -----------------------------------------------------------------------------------------------------------

  /** True when some IPv6 prefix is translated at all. */
  get translates6(): boolean {
    return (this.rules.words[NH_OPTIONS] & HAS_NPTV6) !== 0;
  }

  /**
   * nat-prerouting of a new IPv6 connection: an outside prefix becomes its inside one. From inside (a hairpin), the source
   * changes as well, so that answers come back this way (RFC 6296 §4). Returns NAT_OK or NAT_UNTRANSLATABLE.
   */
  chooseDestination6(p: Packet, zone: number): number {
    const rules = this.rules;
    const r = rules.words;
    const x = this.table.words6;
    const to = p.ct * CT6_WORDS + CT6_R_SRC;
    for (let n = 0, at = rules.first(); n < rules.count(); n++, at += NR_WORDS) {
      if (r[at + NR_KIND] !== NAT_NPTV6 || !hasPrefix(x, to, r, at + NR_EXTERNAL, r[at + NR_FROM])) continue;
      const outside = rules.matchesWhere(at, zone, p.port);
      if (!outside && (r[NH_OPTIONS] & NO_HAIRPIN) !== 0) continue;
      if (!translate(x, to, r, at + NR_EXTERNAL, at + NR_INTERNAL, r[at + NR_FROM])) return NAT_UNTRANSLATABLE;
      this.rule = n;
      this.table.words[p.ct * CT_WORDS + CT_STATUS] |= IPS_DST_NAT;
      return outside ? NAT_OK : this.sourceByPrefix(p, at);
    }
    return NAT_OK;
  }

  /** nat-postrouting of a new IPv6 connection: an inside prefix becomes its outside one. */
  chooseSource6(p: Packet, outZone: number, outPort: number): number {
    const rules = this.rules;
    const r = rules.words;
    if ((this.table.words[p.ct * CT_WORDS + CT_STATUS] & IPS_SRC_NAT) !== 0) return NAT_OK;
    for (let n = 0, at = rules.first(); n < rules.count(); n++, at += NR_WORDS) {
      if (r[at + NR_KIND] !== NAT_NPTV6 || !rules.matchesWhere(at, outZone, outPort)) continue;
      if (!hasPrefix(this.table.words6, p.ct * CT6_WORDS + CT6_R_SRC + 4, r, at + NR_INTERNAL, r[at + NR_FROM]))
        continue;
      this.rule = n;
      return this.sourceByPrefix(p, at);
    }
    return NAT_OK;
  }

  private sourceByPrefix(p: Packet, at: number): number {
    const r = this.rules.words;
    const x = this.table.words6;
    const source = p.ct * CT6_WORDS + CT6_R_SRC + 4;
    if (!hasPrefix(x, source, r, at + NR_INTERNAL, r[at + NR_FROM])) return NAT_OK;
    if (!translate(x, source, r, at + NR_INTERNAL, at + NR_EXTERNAL, r[at + NR_FROM])) return NAT_UNTRANSLATABLE;
    this.table.words[p.ct * CT_WORDS + CT_STATUS] |= IPS_SRC_NAT;
    return NAT_OK;
  }

  /** Another port for a connection whose reply tuple was taken between choosing and confirming. */
  chooseAgain(p: Packet, now: number): number {
    if (p.proto === ESP && this.table.words[p.ct * CT_WORDS + CT_O_PORTS] !== 0)
      return this.separate(p.ct * CT_WORDS, now);
    if (!hasPorts(p.proto) || p.proto === GRE) return NAT_NO_PORT;
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    // Another port would be another mapping.
    if ((w[c + CT_MAPPING] & ~MAPPING_LIMITED) !== 0) return NAT_NO_PORT;
    w[c + CT_STATUS] |= IPS_SRC_NAT;
    return this.searchPort(c, 1024, 65535, 0, p.proto === ICMP ? 0 : 16, now);
  }

  private searchPort(c: number, min: number, max: number, list: number, shift: number, now: number): number {
    const size = list === 0 ? max - min + 1 : this.rules.total(list);
    const proto = this.table.words[c + CT_KEY] & 0xff;
    let attempts = size < ATTEMPTS ? size : ATTEMPTS;
    for (;;) {
      const start = (this.nextRandom() >>> 1) % size;
      for (let n = 0; n < attempts; n++) {
        const k = (start + n) % size;
        const port = list === 0 ? min + k : this.rules.nth(list, k);
        if (!this.mapper.isService(proto, port) && !this.tryPort(c, port, shift, now)) return NAT_OK;
      }
      if (attempts >= size || attempts < 16) return NAT_NO_PORT;
      attempts >>= 1;
    }
  }

  /** Puts `port` into the reply tuple's half at bit `shift`. Returns true when that tuple or port is taken. */
  private tryPort(c: number, port: number, shift: number, now: number): boolean {
    const w = this.table.words;
    const raw = swap(port);
    w[c + CT_R_PORTS] = (w[c + CT_R_PORTS] & ~(0xffff << shift)) | (raw << shift);
    this.probes++;
    const { mappings } = this.mapper;
    if (mappings.count !== 0 && mappings.findOutside(w[c + CT_R_DST], raw, w[c + CT_KEY] & 0xff, now) >= 0) return true;
    return this.replyTaken(c, now);
  }

  private replyTaken(c: number, now: number): boolean {
    const w = this.table.words;
    return this.table.find4(w[c + CT_R_SRC], w[c + CT_R_DST], w[c + CT_R_PORTS], w[c + CT_KEY], now) >= 0;
  }

  private nextRandom(): number {
    let x = this.random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.random = x;
    return x;
  }

  /** True when NAT let this connection in (its destination was translated): the forward filter does not ask again. */
  admitted(p: Packet): boolean {
    const w = this.table.words;
    return p.family === 4 && p.ct >= 0 && (w[p.ct * CT_WORDS + CT_STATUS] & IPS_DST_NAT) !== 0;
  }

  /** The quoted packet's tuple, as the host that the ICMP error goes to had sent it: word index of the tuple. */
  quoted(p: Packet): number {
    return p.ct * CT_WORDS + (p.innerDir === ORIGINAL ? CT_O_SRC : CT_R_SRC);
  }
}

/** True for ICMP types whose identifier is a session's (echo, timestamp, information, address mask). */
function isEcho(ports: number): boolean {
  const type = (ports >> 16) & 0xff;
  return type === 8 || type === 0 || type === 13 || type === 15 || type === 17;
}

/** Swaps the bytes of a 16-bit number. */
function swap(port: number): number {
  return ((port & 0xff) << 8) | ((port >> 8) & 0xff);
}

// The tuple halves that both stages step over.
if (CT_O_DST !== CT_O_SRC + 1 || CT_O_PORTS !== CT_O_SRC + 2 || TCP !== 6 || UDP !== 17)
  throw new Error('conntrack/record.ts: expected source, destination and ports of a tuple side by side');
