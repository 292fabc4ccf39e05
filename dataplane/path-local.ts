/**
 * input: packets for the router itself, filtered by their zone, then to a built-in protocol or to the host kernel over
 * sluice0. Part of the path (path.ts).
 */
import { CT_NEW, CT_RELATED, CT_UNTRACKED } from '../conntrack/record.ts';
import * as D from './drop.ts';
import { DELIVERED, GO_ON } from './drop.ts';
import { ACCEPT, REJECT, ZONE_ROUTER } from './filter.ts';
import * as IF from './interfaces.ts';
import { ICMP, ICMPV6, NO_NEXT_HEADER, TCP, UDP } from './parse.ts';
import { isGroup } from './path-base.ts';
import { PathEgress } from './path-egress.ts';
import { rewriteIp, writeLink } from './rewrite.ts';
import * as T from './tables.ts';
import type { Packet } from './wire/packet.ts';

export abstract class PathLocal extends PathEgress {
  /** A packet for the router: filtered by its zone, confirmed, then to a built-in protocol or the host kernel. */
  protected input(p: Packet): number {
    p.stage = D.STAGE_INPUT;
    const u8 = this.frames.u8;
    if (p.proto === ICMPV6 && p.family === 6 && p.ctinfo === CT_UNTRACKED) {
      // Neighbour discovery and MLD always pass; their receivers check hop limit and form.
      return this.toControl(p);
    }
    if (p.ctinfo === CT_NEW && !this.isOwnDhcp(p)) {
      const from = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_ZONE];
      const verdict = p.own !== 0 ? ACCEPT : this.tables.filter.evaluate(p, from, ZONE_ROUTER, this.tables.worker);
      if (verdict === REJECT && !isGroup(p)) {
        this.refuse(p);
        return this.drop(p, D.INPUT_REJECT);
      }
      if (verdict !== ACCEPT) return this.drop(p, D.INPUT_DROP);
    }
    if (p.fresh !== 0) {
      const refused = this.conntrackConfirm(p);
      if (refused !== GO_ON) return refused;
    }
    // Behind NAT: what comes back to the router's own connections may come to a port, or an address, that NAT chose for them.
    const port = (((p.ports >>> 16) & 0xff) << 8) | (p.ports >>> 24);
    if (p.proto === ICMP || p.proto === ICMPV6) {
      const type = u8[p.l4];
      if ((p.family === 4 && type === 8) || (p.family === 6 && type === 128)) return this.toControl(p);
    } else if ((p.proto === UDP || p.proto === TCP) && this.tables.hasService(p.proto, port)) {
      rewriteIp(p, this.frames, 0);
      p.rports = p.ports;
      return this.toControl(p);
    }
    if (isGroup(p) || p.d0 === -1) return this.drop(p, D.IP_MULTICAST);
    const host = this.tables.control[T.HOST_PORT] - 1;
    if (host >= 0) return this.toHost(p, host);
    if (p.ctinfo === CT_RELATED) return DELIVERED;
    // RFC 8200 §4.7: behind No Next Header there is nothing that could be unknown.
    if (p.proto === NO_NEXT_HEADER) return this.drop(p, D.INPUT_NO_LISTENER);
    if (p.proto === UDP || (p.proto !== TCP && p.proto !== ICMP && p.proto !== ICMPV6)) {
      const code = p.family === 4 ? (p.proto === UDP ? 3 : 2) : p.proto === UDP ? 4 : 1;
      const type = p.family === 4 ? 3 : p.proto === UDP ? 1 : 4;
      this.sendError(p, type, code, type === 4 ? p.protoAt - p.l3 : 0);
    }
    return this.drop(p, D.INPUT_NO_LISTENER);
  }

  /**
   * A DHCP or DHCPv6 answer to the router's own client (it comes before an address is there to be tracked by). A router without
   * that client hears nothing on its port either: what comes there is judged as everything else.
   */
  protected isOwnDhcp(p: Packet): boolean {
    if (p.proto !== UDP || p.rports >>> 16 !== (p.family === 4 ? 0x4400 : 0x2202)) return false;
    return this.tables.hasService(UDP, p.family === 4 ? 68 : 546);
  }

  protected toControl(p: Packet): number {
    const service = p.proto === UDP || p.proto === TCP ? p.rports >>> 16 : 0;
    if (!this.punt.frame(this.frames, p.slot, p.port, p.etherType, p.l3 - p.off, service))
      return this.drop(p, D.PUNT_QUEUEFULL);
    return DELIVERED;
  }

  /** To the host kernel over sluice0, unchanged but for the link header and what NAT has to translate back. */
  protected toHost(p: Packet, host: number): number {
    const words = this.tables.interfaces.words;
    const r = host * IF.IF_WORDS;
    rewriteIp(p, this.frames, 0);
    if (p.innerL3 !== 0) this.translateQuote(p);
    writeLink(
      p,
      this.frames,
      words[r + IF.IF_PEER_MAC],
      words[r + IF.IF_PEER_MAC + 1],
      words[r + IF.IF_MAC_LO],
      words[r + IF.IF_MAC_HI],
      0,
    );
    this.counters[T.C_DELIVERED]++;
    this.queue(p.slot, host, p.len);
    return D.CONSUMED;
  }

  /** conntrack-confirm (path.ts). */
  protected abstract conntrackConfirm(p: Packet): number;
}
