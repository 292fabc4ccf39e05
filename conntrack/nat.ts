/**
 * NAT: the nat-prerouting and nat-postrouting stages over the connection's tuples.
 *
 * As in netfilter, a translation is nothing but a REPLY tuple that is not the inverse of the ORIGINAL one. A new
 * connection's first packet consults the rules; every later packet follows the tuples: "original: invert reply and use
 * source; reply: invert original and use destination". Both stages change the packet's effective addresses only; the
 * frame is rewritten at the end of the path (dataplane/rewrite.ts).
 *
 * Port choice: the source port is kept while the resulting tuple is free (RFC 4787 §4.2.1 port preservation), else a free
 * one is sought from a random start, at most 240 look-ups (128 + 64 + 32 + 16), as nf_nat does.
 *
 * Not here: mapping and filtering behaviours other than endpoint-dependent ones, which are records of their own.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import type { NatRules } from './nat-rules.ts';
import {
  NAT_BYPASS,
  NAT_DMZ,
  NAT_DNAT,
  NAT_SNAT,
  NR_FROM,
  NR_FROM_MASK,
  NR_KIND,
  NR_PORT_HI,
  NR_PORT_LO,
  NR_PROTO,
  NR_TO,
  NR_TO_HI,
  NR_TO_LO,
  NR_WORDS,
} from './nat-rules.ts';
import { GRE, hasPorts, ICMP, ICMPV6, TCP } from './protocols.ts';
import {
  CT_KEY,
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

const ATTEMPTS = 128;
const UDP = 17;

export class Nat {
  private readonly table: ConntrackTable;
  private readonly rules: NatRules;
  private random: number;
  /** Rule that decided last (its number in the list), −1 none: for explain. */
  rule = -1;
  /** Look-ups that the last port search took. */
  probes = 0;

  /** @param seed of the port search; equal seeds choose equal ports */
  constructor(table: ConntrackTable, rules: NatRules, seed: number) {
    this.table = table;
    this.rules = rules;
    this.random = seed | 1;
  }

  /** True when a destination rule could match packets that enter from this zone: only then the path asks who owns it. */
  wantsDestination(zone: number, port: number): boolean {
    return this.rules.hasDestinationRule(zone, port);
  }

  /**
   * nat-prerouting of a new connection: port forwards, then the DMZ host. Only asked for a destination that is the
   * router's own address. Sets the REPLY tuple's source; `prerouting` then applies it.
   */
  chooseDestination(p: Packet, zone: number, now: number): void {
    const rules = this.rules;
    const r = rules.words;
    this.rule = -1;
    for (let n = 0, at = rules.first(); n < rules.count(); n++, at += NR_WORDS) {
      const kind = r[at + NR_KIND];
      if (kind !== NAT_DNAT && kind !== NAT_DMZ) continue;
      if (!rules.matchesWhere(at, zone, p.port)) continue;
      if (r[at + NR_PROTO] !== 0 && r[at + NR_PROTO] !== p.proto) continue;
      if (((p.s0 ^ r[at + NR_FROM]) & r[at + NR_FROM_MASK]) !== 0) continue;
      const low = r[at + NR_PORT_LO];
      let toPort = -1;
      if (low >= 0) {
        if (!hasPorts(p.proto) || p.proto === ICMP) continue;
        const port = swap(p.ports >>> 16);
        if (port < low || port > r[at + NR_PORT_HI]) continue;
        if (r[at + NR_TO_LO] !== 0)
          toPort = r[at + NR_TO_LO] + Math.min(port - low, r[at + NR_TO_HI] - r[at + NR_TO_LO]);
      }
      this.rule = n;
      this.setDestination(p, r[at + NR_TO], toPort, now);
      return;
    }
  }

  private setDestination(p: Packet, to: number, toPort: number, _now: number): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    w[c + CT_R_SRC] = to;
    if (toPort >= 0) w[c + CT_R_PORTS] = (w[c + CT_R_PORTS] & ~0xffff) | swap(toPort);
    w[c + CT_STATUS] |= IPS_DST_NAT;
  }

  /** nat-prerouting: the effective destination of a packet, from its connection's tuples. */
  prerouting(p: Packet): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const status = w[c + CT_STATUS];
    if ((status & (IPS_SRC_NAT | IPS_DST_NAT)) === 0) return;
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
    if (p.innerL3 !== 0) return;
    if (p.proto === ICMP || p.proto === ICMPV6) p.ports = (p.ports & ~0xffff) | (w[t + 2] & 0xffff);
    else p.ports = (p.ports & 0xffff) | (w[t + 2] << 16);
  }

  /** nat-postrouting: the effective source of a packet, from its connection's tuples. */
  postrouting(p: Packet): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const status = w[c + CT_STATUS];
    if ((status & (IPS_SRC_NAT | IPS_DST_NAT)) === 0) return;
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
    if (p.innerL3 !== 0) return;
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
    for (let n = 0, at = rules.first(); n < rules.count(); n++, at += NR_WORDS) {
      const kind = r[at + NR_KIND];
      if (kind !== NAT_SNAT && kind !== NAT_BYPASS) continue;
      if (!rules.matchesWhere(at, outZone, outPort)) continue;
      if (r[at + NR_PROTO] !== 0 && r[at + NR_PROTO] !== p.proto) continue;
      if (((p.s0 ^ r[at + NR_FROM]) & r[at + NR_FROM_MASK]) !== 0) continue;
      if (kind === NAT_BYPASS) {
        if (rules.bypasses(at, p.d0)) break;
        continue;
      }
      this.rule = n;
      const address = r[at + NR_TO] !== 0 ? r[at + NR_TO] : address4;
      if (address === 0) return NAT_WITHOUT_ADDRESS;
      return this.setSource(p, address, r[at + NR_TO_LO], r[at + NR_TO_HI], now);
    }
    if (rules.count() > 0 && this.replyTaken(p.ct * CT_WORDS, now)) return this.setSource(p, p.s0, 0, 0, now);
    return NAT_OK;
  }

  /** Gives the connection the source `address` and a port in [low, high] (0, 0: the class of its own port). */
  private setSource(p: Packet, address: number, low: number, high: number, now: number): number {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    w[c + CT_R_DST] = address;
    w[c + CT_STATUS] |= IPS_SRC_NAT;
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
    if (own >= min && own <= max && !this.tryPort(c, own, shift, now)) return NAT_OK;
    if (own >= min && own <= max && max === min) return NAT_NO_PORT;
    return this.searchPort(c, min, max, shift, now);
  }

  /** Another port for a connection whose reply tuple was taken between choosing and confirming. */
  chooseAgain(p: Packet, now: number): number {
    if (!hasPorts(p.proto) || p.proto === GRE) return NAT_NO_PORT;
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    w[c + CT_STATUS] |= IPS_SRC_NAT;
    return this.searchPort(c, 1024, 65535, p.proto === ICMP ? 0 : 16, now);
  }

  private searchPort(c: number, min: number, max: number, shift: number, now: number): number {
    const size = max - min + 1;
    let attempts = size < ATTEMPTS ? size : ATTEMPTS;
    for (;;) {
      const start = (this.nextRandom() >>> 1) % size;
      for (let n = 0; n < attempts; n++) if (!this.tryPort(c, min + ((start + n) % size), shift, now)) return NAT_OK;
      if (attempts >= size || attempts < 16) return NAT_NO_PORT;
      attempts >>= 1;
    }
  }

  /** Puts `port` into the reply tuple's half at bit `shift`. Returns true when that tuple is taken. */
  private tryPort(c: number, port: number, shift: number, now: number): boolean {
    const w = this.table.words;
    w[c + CT_R_PORTS] = (w[c + CT_R_PORTS] & ~(0xffff << shift)) | (swap(port) << shift);
    this.probes++;
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
    return p.ct >= 0 && (w[p.ct * CT_WORDS + CT_STATUS] & IPS_DST_NAT) !== 0;
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
