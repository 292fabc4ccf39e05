/**
 * The stages route, ttl and mtu: where a packet goes, whether it may still travel, and whether it fits (RFC 1812 §5.2.4,
 * RFC 1191, RFC 8201). Part of the path (path.ts).
 */
import * as D from './drop.ts';
import { GO_ON } from './drop.ts';
import * as IF from './interfaces.ts';
import * as NH from './nexthops.ts';
import { TCP, UDP } from './parse.ts';
import { flowHash, isGroup, isLinkLocal6 } from './path-base.ts';
import { PathSource } from './path-source.ts';
import { REASSEMBLED } from './reassembly.ts';
import type { Packet } from './wire/packet.ts';

/** Port 547, DHCPv6 servers and relays, as it stands in the high half of `ports`. */
const RAW_547 = 0x2302;

export abstract class PathRoute extends PathSource {
  protected route(p: Packet): number {
    p.stage = D.STAGE_ROUTE;
    // The limited broadcast has no route: it never leaves its link (RFC 1812 §5.3.5.1).
    if (isGroup(p) || (p.family === 4 && p.d0 === -1)) return this.input(p);
    if (p.family === 6 && isLinkLocal6(p.d0)) return this.routeLinkLocal(p);
    const verdict = this.lookup(p);
    if (verdict !== GO_ON) return verdict;
    if (p.nexthop === 0) return this.input(p);
    if (p.own === 0) {
      // Link-local sources stay on their link (RFC 4291 §2.5.6, RFC 3927 §2.7); ULA and the rest are the filter's.
      if (p.family === 6 && isLinkLocal6(p.s0)) return this.reject(p, D.IP_SCOPE, 1, 2, 0);
      if (p.family === 4 && ((p.d0 & 0xffff) === 0xfea9 || (p.s0 & 0xffff) === 0xfea9)) return this.drop(p, D.IP_SCOPE);
      if (p.family === 4 && p.s0 === 0) return this.drop(p, D.IP_INVALID_SOURCE);
    }
    return GO_ON;
  }

  /** fe80::/10 means something on one link only: ours or nobody's; the router's own packets go out where they belong. */
  protected routeLinkLocal(p: Packet): number {
    const words = this.tables.interfaces.words;
    const r = p.port * IF.IF_WORDS;
    if (p.own === 0) {
      const at = r + IF.IF_LINKLOCAL6;
      const ours = words[at] === p.d0 && words[at + 1] === p.d1 && words[at + 2] === p.d2 && words[at + 3] === p.d3;
      if (ours) return this.input(p);
      // RFC 6221 §5.3.2: a Relay-reply to a client's address is for the agent that stands before it.
      const isRelayReply = p.proto === UDP && p.ports >>> 16 === RAW_547;
      if (isRelayReply && (words[r + IF.IF_FLAGS] & IF.IFF_LDRA) !== 0) return this.toControl(p);
      return this.drop(p, D.IP_SCOPE);
    }
    p.outPort = p.port;
    p.mtu = words[r + IF.IF_MTU];
    p.n0 = p.d0;
    p.n1 = p.d1;
    p.n2 = p.d2;
    p.n3 = p.d3;
    return (words[r + IF.IF_FLAGS] & IF.IFF_UP) === 0 ? this.drop(p, D.TX_LINK_DOWN) : GO_ON;
  }

  /** Finds the next hop: sets nexthop (0: the router itself), egress port, the neighbour's address and the MTU. */
  protected lookup(p: Packet): number {
    const tables = this.tables;
    let n = p.family === 4 ? tables.routes.lookup4(p.d0) : tables.routes.lookup6(p.d0, p.d1, p.d2, p.d3);
    if (tables.policy.count() !== 0) n = this.byPolicy(p, n);
    if (n === 0) return this.unreachable(p, D.IP_OUTNOROUTES, 0);
    const words = tables.nexthops.words;
    let at = tables.nexthops.at(n);
    if (words[at + NH.NH_KIND_WORD] === NH.NH_GROUP) {
      n = tables.nexthops.select(n, flowHash(p));
      if (n === 0) return this.unreachable(p, D.IP_OUTNOROUTES, 1);
      at = tables.nexthops.at(n);
    }
    p.nexthop = n;
    switch (words[at + NH.NH_KIND_WORD]) {
      case NH.NH_VIA:
        p.n0 = words[at + NH.NH_GATEWAY_WORD];
        p.n1 = words[at + NH.NH_GATEWAY_WORD + 1];
        p.n2 = words[at + NH.NH_GATEWAY_WORD + 2];
        p.n3 = words[at + NH.NH_GATEWAY_WORD + 3];
        break;
      case NH.NH_CONNECTED:
        p.n0 = p.d0;
        p.n1 = p.d1;
        p.n2 = p.d2;
        p.n3 = p.d3;
        break;
      case NH.NH_LOCAL:
      case NH.NH_BROADCAST:
        p.nexthop = 0;
        return GO_ON;
      case NH.NH_BLACKHOLE:
        return this.drop(p, D.IP_BLACKHOLE);
      case NH.NH_PROHIBIT:
        if (p.own === 0) this.sendError(p, p.family === 4 ? 3 : 1, p.family === 4 ? 13 : 1, 0);
        return this.drop(p, D.IP_PROHIBIT);
      default:
        return this.unreachable(p, D.IP_PROHIBIT, p.family === 4 ? 1 : 0);
    }
    p.outPort = words[at + NH.NH_PORT_WORD];
    const r = p.outPort * IF.IF_WORDS;
    if ((tables.interfaces.words[r + IF.IF_FLAGS] & IF.IFF_UP) === 0)
      return this.unreachable(p, D.TX_LINK_DOWN, p.family === 4 ? 1 : 3);
    const mtu = words[at + NH.NH_MTU_WORD];
    const linkMtu = tables.interfaces.words[r + IF.IF_MTU];
    p.mtu = mtu !== 0 && mtu < linkMtu ? mtu : linkMtu;
    return GO_ON;
  }

  /**
   * The next hop by the routing rules: of the first that matches and whose table has a route; else `main`, which is the main
   * table's. What is the router's own is so whatever the rules say.
   */
  private byPolicy(p: Packet, main: number): number {
    const { policy, policyRoutes, nexthops, interfaces } = this.tables;
    policy.rule = -1;
    const kind = main === 0 ? NH.NH_FREE : nexthops.kind(main);
    if (kind === NH.NH_LOCAL || kind === NH.NH_BROADCAST) return main;
    const { u8 } = this.frames;
    const traffic = p.family === 4 ? u8[p.l3 + 1] : ((u8[p.l3] << 4) | (u8[p.l3 + 1] >>> 4)) & 0xff;
    const zone = p.own !== 0 ? -1 : interfaces.words[p.port * IF.IF_WORDS + IF.IF_ZONE];
    for (
      let line = policy.match(p, traffic >>> 2, zone, 0);
      line >= 0;
      line = policy.match(p, traffic >>> 2, zone, line + 1)
    ) {
      const table = policy.tableOf(line);
      let n = main;
      if (table !== 0) {
        const routes = policyRoutes[table - 1];
        n = p.family === 4 ? routes.lookup4(p.d0) : routes.lookup6(p.d0, p.d1, p.d2, p.d3);
      }
      if (n === 0) continue;
      policy.rule = policy.ruleOf(line);
      return n;
    }
    return main;
  }

  protected isBroadcast(p: Packet): boolean {
    if (p.family !== 4) return false;
    if (p.d0 === -1) return true;
    const n = this.tables.routes.lookup4(p.d0);
    return n !== 0 && this.tables.nexthops.kind(n) === NH.NH_BROADCAST;
  }

  protected ttl(p: Packet): number {
    if (p.ttl > 1) return GO_ON;
    p.stage = D.STAGE_TTL;
    return this.reject(p, D.IP_TTL, p.family === 4 ? 11 : 3, 0, 0);
  }

  /** Too long for the egress link: IPv4 without DF is fragmented later, everything else is told (RFC 1191, RFC 8201). */
  protected mtu(p: Packet): number {
    const length = p.gsoType === 0 ? p.end - p.l3 : this.segmentLength(p);
    if (length <= p.mtu) return GO_ON;
    if (p.family === 4 && p.dontFragment === 0) return GO_ON;
    // What came in fragments leaves in fragments: only they must fit.
    if ((p.flags & REASSEMBLED) !== 0 && this.fragments.largest(p.slot) <= p.mtu) return GO_ON;
    p.stage = D.STAGE_MTU;
    if (p.family === 6) return this.reject(p, D.PKT_TOO_BIG, 2, 0, p.mtu);
    return this.reject(p, D.PKT_TOO_BIG, 3, 4, p.mtu);
  }

  /** IP length of one segment of a super-frame. */
  protected segmentLength(p: Packet): number {
    const header = p.proto === TCP ? (this.frames.u8[p.l4 + 12] >> 4) << 2 : 8;
    return p.l4 - p.l3 + header + p.gsoSize;
  }

  /** A packet for the router itself, and one for its control plane whatever its address (path-local.ts). */
  protected abstract input(p: Packet): number;
  protected abstract toControl(p: Packet): number;
}
