/**
 * Who may send from which address: the last part of ip-sanity, on ports that ask for it. Part of the path (path.ts).
 *
 * A security group (row F4) knows its stations' addresses one by one (bindings.ts): what another station claims is
 * dropped, be it the source of a packet, the sender of ARP or the target of a neighbour advertisement. On link-local
 * addresses only duplicate address detection, echo, MLD, router and neighbour solicitation may enter, with the
 * advertisements that answer the latter, and DHCPv6; no other UDP and no TCP. A source check asks the routing table
 * instead: the way back to the source must be the way in (RFC 3704 §2.2).
 *
 * It stands before conntrack, so that nobody's forged segment moves another's connection. The offload engine knows no
 * bindings: ports with a group go without it (fastpath.ts).
 */
import * as D from './drop.ts';
import { GO_ON } from './drop.ts';
import * as IF from './interfaces.ts';
import { NEIGH_MAC_HI, NEIGH_MAC_LO } from './neighbours.ts';
import * as NH from './nexthops.ts';
import { ICMPV6, UDP } from './parse.ts';
import { isLinkLocal6, PathBase } from './path-base.ts';
import * as arp from './wire/arp.ts';
import { raw16, raw32 } from './wire/bytes.ts';
import type { Packet } from './wire/packet.ts';

/** Source and destination port of clients' messages, as they stand in `ports`: 546 to 547, and 68 to 67. */
const DHCP6_CLIENT = 0x23022202;
const DHCP4_CLIENT = 0x43004400;

const ECHO_REQUEST = 128;
const ECHO_REPLY = 129;
const MLD_REPORT = 131;
const MLD_DONE = 132;
const ROUTER_SOLICIT = 133;
const ROUTER_ADVERT = 134;
const NEIGHBOUR_SOLICIT = 135;
const NEIGHBOUR_ADVERT = 136;
const REDIRECT = 137;
const MLD2_REPORT = 143;

export abstract class PathSource extends PathBase {
  /** ip-sanity: the source is the sender's own, and what it says on the link is no more than a station must say. */
  protected sourceGuard(p: Packet): number {
    const flags = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_FLAGS];
    if ((flags & (IF.IFF_SECURITY | IF.IFF_SOURCE_CHECK)) === 0) return GO_ON;
    p.stage = D.STAGE_IP_SANITY;
    if ((flags & IF.IFF_SECURITY) !== 0) return p.family === 6 ? this.guard6(p) : this.guard4(p);
    if (p.family === 4 || isLinkLocal6(p.s0) || (p.s0 | p.s1 | p.s2 | p.s3) === 0 || this.leadsBack(p)) return GO_ON;
    return this.drop(p, D.IP_RPFILTER);
  }

  private guard4(p: Packet): number {
    if (this.mayUse(p, 4, p.s0, 0, 0, 0)) return GO_ON;
    // A client that has no lease yet, or one that the router does not remember (RFC 2131 §4.3.2, §4.4.5).
    const own = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_ADDRESS4];
    const isDhcp = p.isFragment === 0 && p.proto === UDP && p.ports === DHCP4_CLIENT;
    if (isDhcp && (p.d0 === -1 || p.d0 === own)) return GO_ON;
    return this.drop(p, D.SECURITY_GROUP);
  }

  private guard6(p: Packet): number {
    const type = p.proto === ICMPV6 && p.isFragment === 0 ? this.frames.u8[p.l4] : -1;
    if ((p.s0 | p.s1 | p.s2 | p.s3) === 0) {
      // From nowhere: duplicate address detection, a first solicitation, group membership (RFC 4862 §5.4.2, RFC 3590).
      const isFirst = type === NEIGHBOUR_SOLICIT || type === ROUTER_SOLICIT || isMembership(type);
      return isFirst ? GO_ON : this.drop(p, D.SECURITY_GROUP);
    }
    if (!this.mayUse(p, 6, p.s0, p.s1, p.s2, p.s3)) return this.drop(p, D.SECURITY_GROUP);
    if (isLinkLocal6(p.s0) || isLinkLocal6(p.d0)) {
      const isStations =
        type === ECHO_REQUEST ||
        type === ECHO_REPLY ||
        type === ROUTER_SOLICIT ||
        type === NEIGHBOUR_SOLICIT ||
        type === NEIGHBOUR_ADVERT ||
        isMembership(type);
      const isDhcp = p.isFragment === 0 && p.proto === UDP && p.ports === DHCP6_CLIENT;
      if (!isStations && !isDhcp) return this.drop(p, D.LINK_LOCAL_PROTO);
    } else if (type === ROUTER_ADVERT || type === REDIRECT) return this.drop(p, D.LINK_LOCAL_PROTO);
    if (type !== NEIGHBOUR_ADVERT) return GO_ON;
    // RFC 4861 §4.4: whose MAC is told. Whoever could tell it of another's address would get what is sent there.
    const at = p.l4 + 8;
    const { u8 } = this.frames;
    if (at + 16 > p.end) return this.drop(p, D.L4_TRUNCATED);
    const isOwn = this.mayUse(p, 6, raw32(u8, at), raw32(u8, at + 4), raw32(u8, at + 8), raw32(u8, at + 12));
    return isOwn ? GO_ON : this.drop(p, D.SECURITY_GROUP);
  }

  /** True when an ARP packet speaks for its sender alone: its own MAC, and an address of its own or none (RFC 5227 §2.1.1). */
  protected arpAllowed(p: Packet): boolean {
    const { u8 } = this.frames;
    if (p.off + p.len - p.l3 < arp.LENGTH) return false;
    if (arp.senderLo(u8, p.l3) !== raw32(u8, p.off + 6) || arp.senderHi(u8, p.l3) !== raw16(u8, p.off + 10))
      return false;
    const sender = arp.senderIp(u8, p.l3);
    return sender === 0 || this.mayUse(p, 4, sender, 0, 0, 0);
  }

  private mayUse(p: Packet, family: number, a: number, b: number, c: number, d: number): boolean {
    const { u8 } = this.frames;
    return this.tables.bindings.allows(p.port, family, a, b, c, d, raw32(u8, p.off + 6), raw16(u8, p.off + 10));
  }

  /**
   * True when the route to the packet's source leaves by the port that it came in by. Behind a next router, as a
   * delegated prefix is, that one must have sent it: its MAC tells, once neighbour discovery knows it (RFC 8987 R-3).
   */
  private leadsBack(p: Packet): boolean {
    const { tables } = this;
    const n = tables.routes.lookup6(p.s0, p.s1, p.s2, p.s3);
    if (n === 0) return false;
    const words = tables.nexthops.words;
    const hop = tables.nexthops.at(n);
    if (words[hop + NH.NH_KIND_WORD] !== NH.NH_GROUP) return this.comesFrom(p, hop);
    // Any of several ways back will do (RFC 3704 §2.3).
    for (let m = 0; m < words[hop + NH.NH_COUNT_WORD]; m++)
      if (this.comesFrom(p, tables.nexthops.at(words[hop + NH.NH_MEMBERS_WORD + m]))) return true;
    return false;
  }

  /** True when the packet came by the port of this next hop (its first word), and from its gateway, where it has one. */
  private comesFrom(p: Packet, hop: number): boolean {
    const { tables, frames } = this;
    const words = tables.nexthops.words;
    const kind = words[hop + NH.NH_KIND_WORD];
    if (words[hop + NH.NH_PORT_WORD] !== p.port || (kind !== NH.NH_VIA && kind !== NH.NH_CONNECTED)) return false;
    if (kind === NH.NH_CONNECTED) return true;
    const g = hop + NH.NH_GATEWAY_WORD;
    const neighbour = tables.neighbours.find(p.port, 6, words[g], words[g + 1], words[g + 2], words[g + 3]);
    if (neighbour < 0) return true;
    const lo = tables.neighbours.words[tables.neighbours.at(neighbour) + NEIGH_MAC_LO];
    const hi = tables.neighbours.words[tables.neighbours.at(neighbour) + NEIGH_MAC_HI];
    const { u8 } = frames;
    return (lo | hi) === 0 || (lo === raw32(u8, p.off + 6) && (hi & 0xffff) === raw16(u8, p.off + 10));
  }
}

/** Listener reports and done (RFC 2710, RFC 3810): a station's side of MLD; queries are the router's. */
function isMembership(type: number): boolean {
  return type === MLD_REPORT || type === MLD_DONE || type === MLD2_REPORT;
}
