/**
 * Protocols: which tracker a packet goes to, and what its tuple's port word is.
 *
 * The caller (the path's conntrack-in stage) finds or allocates the record, holds the connection's lock, and calls
 * `trackNew` for a record that is not yet in the hash or `trackPacket` for one that is. The verdicts are TRACK_* of
 * generic.ts; with everything but a plain TRACK_ACCEPT, `p.detail` says why (WHY_TEXT). After TRACK_ACCEPT or
 * TRACK_IGNORE of a REPLY packet the caller sets IPS_SEEN_REPLY, never before: the trackers look at it.
 *
 * A port word is raw: the source's half in the low 16 bits. See wire/packet.ts.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { ESP, trackEsp } from './esp.ts';
import { trackGeneric } from './generic.ts';
import { GRE, grePorts, invertGrePorts, trackGre } from './gre.ts';
import { ICMP, ICMPV6, icmpPorts, invertIcmpPorts, newIcmp, trackIcmp } from './icmp.ts';
import { CT_KEY, CT_STATE } from './record.ts';
import { newSctp, SCTP, sctpEarlyDrop, trackSctp } from './sctp.ts';
import { newTcp, TCP, tcpEarlyDrop, trackTcp } from './tcp.ts';
import { newUdp, trackUdp, UDP, UDPLITE } from './udp.ts';

export { ESP } from './esp.ts';
export { GRE } from './gre.ts';
export { ICMP, ICMPV6 } from './icmp.ts';
export { SCTP } from './sctp.ts';
export { TCP } from './tcp.ts';
export { UDP, UDPLITE } from './udp.ts';

const DCCP = 33;

/**
 * Decides whether packet `p` may open the connection whose record starts at word `c` of `w`, and if so initialises its
 * protocol words and its deadline. The record's tuple and status are already set; it is not in the hash yet.
 * @param u8 frame memory that `p`'s offsets refer to   @param now clock, ms   @param cfg see timeouts.ts
 * @returns TRACK_ACCEPT, TRACK_INVALID or TRACK_UNTRACKED
 */
export function trackNew(w: Int32Array, c: number, p: Packet, u8: Uint8Array, now: number, cfg: Int32Array): number {
  p.detail = 0;
  switch (p.proto) {
    case TCP:
      return newTcp(w, c, p, u8, now, cfg);
    case UDP:
    case UDPLITE:
      return newUdp(w, c, p, u8, now, cfg);
    case ICMP:
    case ICMPV6:
      return newIcmp(w, c, p, u8, now, cfg);
    case SCTP:
      return newSctp(w, c, p, u8, now, cfg);
    case GRE:
      return trackGre(w, c, p, u8, now, cfg);
    case ESP:
      return trackEsp(w, c, now, cfg);
    default:
      return trackGeneric(w, c, p, now, cfg);
  }
}

/**
 * Brings the connection's state up to date with packet `p`, which travels in direction `dir` of it.
 * @param ackOffset what a payload edit by the router has added to the sequence numbers that this packet acknowledges
 *   (TCP with a helper; 0 otherwise)
 * @returns one of TRACK_*
 */
export function trackPacket(
  w: Int32Array,
  c: number,
  p: Packet,
  u8: Uint8Array,
  dir: number,
  now: number,
  cfg: Int32Array,
  ackOffset = 0,
): number {
  p.detail = 0;
  switch (p.proto) {
    case TCP:
      return trackTcp(w, c, p, u8, dir, now, cfg, ackOffset);
    case UDP:
    case UDPLITE:
      return trackUdp(w, c, p, u8, now, cfg);
    case ICMP:
    case ICMPV6:
      return trackIcmp(w, c, p, now, cfg);
    case SCTP:
      return trackSctp(w, c, p, u8, dir, now, cfg);
    case GRE:
      return trackGre(w, c, p, u8, now, cfg);
    case ESP:
      return trackEsp(w, c, now, cfg);
    default:
      return trackGeneric(w, c, p, now, cfg);
  }
}

/**
 * The raw port word of a transport header of `proto` at `l4`, of which the bytes up to `end` are there. 0 for protocols
 * without ports and for a header that is too short. Also for the packet quoted in an ICMP error, where 8 bytes suffice.
 */
export function portsOf(proto: number, u8: Uint8Array, l4: number, end: number): number {
  switch (proto) {
    case TCP:
    case UDP:
    case UDPLITE:
    case SCTP:
    case DCCP:
      if (end - l4 < 4) return 0;
      return u8[l4] | (u8[l4 + 1] << 8) | (u8[l4 + 2] << 16) | (u8[l4 + 3] << 24);
    case ICMP:
    case ICMPV6:
      return icmpPorts(u8, l4, end);
    case GRE:
      return grePorts(u8, l4, end);
    default:
      return 0;
  }
}

/**
 * The port word of the reply to a packet with port word `ports`: halves swapped; ICMP keeps its identifier and code and
 * takes the type of the answer (raw, as in wire/packet.ts). A type without an answer is returned as it is.
 */
export function invertPorts(proto: number, _family: number, ports: number): number {
  if (proto === ICMP || proto === ICMPV6) return invertIcmpPorts(proto, ports);
  if (proto === GRE) return invertGrePorts(ports);
  return (ports >>> 16) | (ports << 16);
}

/** True when a port (or an ICMP identifier, or a GRE call ID) of this protocol can be translated. */
export function hasPorts(proto: number): boolean {
  switch (proto) {
    case TCP:
    case UDP:
    case UDPLITE:
    case SCTP:
    case DCCP:
    case ICMP:
    case ICMPV6:
    case GRE:
      return true;
    default:
      return false;
  }
}

/** True when the connection is closing, so that early drop may take it although it is ASSURED. */
export function canEarlyDrop(w: Int32Array, c: number): boolean {
  const proto = w[c + CT_KEY] & 0xff;
  if (proto === TCP) return tcpEarlyDrop(w[c + CT_STATE]);
  return proto === SCTP && sctpEarlyDrop(w[c + CT_STATE]);
}
