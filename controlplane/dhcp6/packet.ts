/**
 * Packets: UDP over IPv6 as DHCPv6 uses it, taken out of punted frames and put into new ones.
 *
 * What goes to a group or a link-local address leaves as a frame, since the address does not say on which link; what
 * goes to any other address takes the path at `output`. The router's hop limit for these is 64 (no relay needs more);
 * groups of the site (ff05::1:3) too (RFC 8415 §19.1: 8 at least).
 *
 * Not here: fragments. The path has put received ones together; sent messages fit 1280 bytes unless a chain of relays
 * has grown beyond it, and then `output` fragments or refuses as for any packet.
 */
import { IF_MTU, type InterfaceTable } from '../../dataplane/interfaces.ts';
import type { Words } from '../../dataplane/wire/address.ts';
import { pseudo6 } from '../../dataplane/wire/checksum.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';
import * as ipv6 from '../../dataplane/wire/ipv6.ts';
import * as udp from '../../dataplane/wire/udp.ts';
import { newFrame } from '../neighbour/link.ts';
import type { Action, Event } from '../protocol.ts';
import { addressAt } from './reader.ts';

export const PROTO_UDP = 17;
const HOPS = 64;

export interface Datagram {
  port: number;
  from: Words;
  to: Words;
  fromPort: number;
  toPort: number;
  /** Sender's MAC, raw words. */
  macLo: number;
  macHi: number;
  /** A view of the frame: valid until the step returns. */
  payload: Uint8Array;
}

/** The UDP datagram of a punted IPv6 frame with a right checksum; null for anything else. */
export function readDatagram(event: Extract<Event, { kind: 'frame' }>): Datagram | null {
  const { frame, l3 } = event;
  if (event.etherType !== ethernet.TYPE_IPV6 || l3 < ethernet.HEADER) return null;
  if (!ipv6.check(frame, l3, frame.length - l3)) return null;
  const end = l3 + ipv6.HEADER + ipv6.payloadLength(frame, l3);
  const upper = ipv6.newUpper();
  if (!ipv6.walk(frame, l3, end, upper) || upper.proto !== PROTO_UDP || upper.fragment !== 0) return null;
  const l4 = upper.at;
  if (!udp.check(frame, l4, end - l4)) return null;
  const from = addressAt(frame, l3 + ipv6.SRC);
  const to = addressAt(frame, l3 + ipv6.DST);
  // RFC 8200 §8.1: a UDP checksum of zero is none, and over IPv6 there must be one.
  const sum = pseudo6(...from, ...to, PROTO_UDP, udp.length(frame, l4));
  if (!udp.hasChecksum(frame, l4) || !udp.checksumOk(frame, l4, sum)) return null;
  return {
    port: event.port,
    from,
    to,
    fromPort: udp.srcPort(frame, l4),
    toPort: udp.dstPort(frame, l4),
    macLo: ethernet.srcLo(frame, 0),
    macHi: ethernet.srcHi(frame, 0),
    payload: frame.subarray(l4 + udp.HEADER, l4 + udp.length(frame, l4)),
  };
}

export interface Outgoing {
  port: number;
  from: Words;
  to: Words;
  fromPort: number;
  toPort: number;
  payload: Uint8Array;
}

/** To a group: its MAC follows from the address (RFC 2464 §7). Undefined when it does not fit the link. */
export function sendToGroup(interfaces: InterfaceTable, out: Outgoing): Action | undefined {
  return sendTo(interfaces, out, 0x3333 | (out.to[3] << 16), (out.to[3] >>> 16) & 0xffff);
}

/** To a link-local address whose MAC (raw words) is known. Undefined when it does not fit the link. */
export function sendTo(interfaces: InterfaceTable, out: Outgoing, macLo: number, macHi: number): Action | undefined {
  const length = ipv6.HEADER + udp.HEADER + out.payload.length;
  const mtu = interfaces.words[interfaces.at(out.port) + IF_MTU];
  if (mtu !== 0 && length > mtu) return undefined;
  const frame = newFrame(interfaces, out.port, macLo, macHi, ethernet.TYPE_IPV6, length);
  write(frame, frame.length - length, out);
  return { kind: 'send', port: out.port, frame };
}

/** By the routing table, or, to a link-local address, by neighbour discovery on `port`. */
export function output(out: Outgoing): Action {
  const packet = new Uint8Array(ipv6.HEADER + udp.HEADER + out.payload.length);
  write(packet, 0, out);
  return { kind: 'output', packet, port: out.port };
}

function write(u8: Uint8Array, at: number, out: Outgoing): void {
  const length = udp.HEADER + out.payload.length;
  const l4 = at + ipv6.HEADER;
  ipv6.emit(u8, at, 0, 0, length, PROTO_UDP, HOPS);
  ipv6.setAddress(u8, at + ipv6.SRC, ...out.from);
  ipv6.setAddress(u8, at + ipv6.DST, ...out.to);
  udp.emit(u8, l4, out.fromPort, out.toPort, length);
  u8.set(out.payload, l4 + udp.HEADER);
  udp.finish(u8, l4, pseudo6(...out.from, ...out.to, PROTO_UDP, length));
}
