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
import type { Family, Words } from '../dataplane/wire/address.ts';
import * as ethernet from '../dataplane/wire/ethernet.ts';
import * as udp from '../dataplane/wire/udp.ts';
import { newIpPacket, pseudoOf, readIp } from './ip-packet.ts';
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
  const ip = readIp(frame, etherType, l3, UDP);
  if (ip === null) return null;
  const { family, src, dst, l4, end } = ip;
  if (!udp.check(frame, l4, end - l4)) return null;
  // RFC 8200 §8.1: UDP over IPv6 has a checksum.
  if (family === 6 && !udp.hasChecksum(frame, l4)) return null;
  const length = udp.length(frame, l4);
  if (!udp.checksumOk(frame, l4, pseudoOf(family, src, dst, UDP, length))) return null;
  const payload = frame.subarray(l4 + udp.HEADER, l4 + length);
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
  const length = udp.HEADER + payload.length;
  const { packet, l4 } = newIpPacket(family, src, dst, UDP, length, hops);
  packet.set(payload, l4 + udp.HEADER);
  udp.emit(packet, l4, sport, dport, length);
  udp.finish(packet, l4, pseudoOf(family, src, dst, UDP, length));
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
