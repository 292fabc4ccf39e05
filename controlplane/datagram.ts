/**
 * Datagram: UDP over IPv4 and IPv6 for the protocols of the control plane, both ways between bytes and fields.
 *
 * `readUdp` takes what the path punted apart, once and for all checks: lengths, checksums, no fragment (the path has
 * put fragments together). `udpPacket` makes an IP packet for the action `output`; `framed` puts an Ethernet header
 * before one, for `send`: what has no route yet (DHCP before there is an address) or belongs to one link.
 *
 * Not here: sockets, path MTU (what is longer than the link is fragmented by the path).
 */
import type { InterfaceTable } from '../dataplane/interfaces.ts';
import { addressFromBytes, type Family, type Words } from '../dataplane/wire/address.ts';
import { pseudo4, pseudo6 } from '../dataplane/wire/checksum.ts';
import * as ethernet from '../dataplane/wire/ethernet.ts';
import * as ipv4 from '../dataplane/wire/ipv4.ts';
import * as ipv6 from '../dataplane/wire/ipv6.ts';
import * as udp from '../dataplane/wire/udp.ts';
import { newFrame } from './neighbour/link.ts';

/** IANA protocol number of UDP. */
const UDP = 17;

export interface Datagram {
  family: Family;
  /** Raw words. */
  src: Words;
  dst: Words;
  sport: number;
  dport: number;
  /** A view into the frame: valid during the step only. */
  payload: Uint8Array;
}

/** The UDP datagram in a punted frame, or null when there is none that is whole and right. */
export function readUdp(frame: Uint8Array, etherType: number, l3: number): Datagram | null {
  if (etherType === ethernet.TYPE_IPV4) {
    if (!ipv4.check(frame, l3, frame.length - l3) || ipv4.proto(frame, l3) !== UDP) return null;
    if (ipv4.isFragment(frame, l3) || !ipv4.checksumOk(frame, l3)) return null;
    const l4 = l3 + ipv4.headerLength(frame, l3);
    const end = l3 + ipv4.totalLength(frame, l3);
    if (!udp.check(frame, l4, end - l4)) return null;
    const [src, dst] = [ipv4.src(frame, l3), ipv4.dst(frame, l3)];
    if (!udp.checksumOk(frame, l4, pseudo4(src, dst, UDP, udp.length(frame, l4)))) return null;
    return fields(4, [src, 0, 0, 0], [dst, 0, 0, 0], frame, l4);
  }
  if (etherType !== ethernet.TYPE_IPV6 || !ipv6.check(frame, l3, frame.length - l3)) return null;
  const end = l3 + ipv6.HEADER + ipv6.payloadLength(frame, l3);
  const upper = ipv6.newUpper();
  if (!ipv6.walk(frame, l3, end, upper) || upper.proto !== UDP || upper.fragment !== 0) return null;
  const l4 = upper.at;
  // RFC 8200 §8.1: UDP over IPv6 has a checksum.
  if (!udp.check(frame, l4, end - l4) || !udp.hasChecksum(frame, l4)) return null;
  const src = addressFromBytes(6, frame, l3 + ipv6.SRC);
  const dst = addressFromBytes(6, frame, l3 + ipv6.DST);
  if (!udp.checksumOk(frame, l4, pseudo(src, dst, udp.length(frame, l4)))) return null;
  return fields(6, src, dst, frame, l4);
}

function fields(family: Family, src: Words, dst: Words, frame: Uint8Array, l4: number): Datagram {
  const payload = frame.subarray(l4 + udp.HEADER, l4 + udp.length(frame, l4));
  return { family, src, dst, sport: udp.srcPort(frame, l4), dport: udp.dstPort(frame, l4), payload };
}

/** A complete IP packet with a UDP datagram, checksums filled in. Addresses raw; hop limit and TTL 64 unless given. */
export function udpPacket(
  family: Family,
  src: Words,
  dst: Words,
  sport: number,
  dport: number,
  payload: Uint8Array,
  hops = 64,
): Uint8Array {
  const header = family === 4 ? ipv4.HEADER : ipv6.HEADER;
  const length = udp.HEADER + payload.length;
  const packet = new Uint8Array(header + length);
  packet.set(payload, header + udp.HEADER);
  udp.emit(packet, header, sport, dport, length);
  if (family === 4) {
    ipv4.emit(packet, 0, 0, packet.length, 0, 0, hops, UDP, src[0], dst[0]);
    udp.finish(packet, header, pseudo4(src[0], dst[0], UDP, length));
    return packet;
  }
  ipv6.emit(packet, 0, 0, 0, length, UDP, hops);
  ipv6.setAddress(packet, ipv6.SRC, ...src);
  ipv6.setAddress(packet, ipv6.DST, ...dst);
  udp.finish(packet, header, pseudo(src, dst, length));
  return packet;
}

/** An Ethernet frame from the port, with its VLAN tag, around an IP packet. `lo`, `hi`: the destination MAC, raw. */
export function framed(
  interfaces: InterfaceTable,
  port: number,
  lo: number,
  hi: number,
  packet: Uint8Array,
): Uint8Array {
  const type = packet[0] >> 4 === 4 ? ethernet.TYPE_IPV4 : ethernet.TYPE_IPV6;
  const frame = newFrame(interfaces, port, lo, hi, type, packet.length);
  frame.set(packet, frame.length - packet.length);
  return frame;
}

function pseudo(src: Words, dst: Words, length: number): number {
  return pseudo6(src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], UDP, length);
}
