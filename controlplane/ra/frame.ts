/**
 * Frames of router discovery: an ICMPv6 message from a link-local address, hop limit 255 (RFC 4861 §4.1, §4.2), and the
 * checks that an incoming one has to pass.
 */
import type { InterfaceTable } from '../../dataplane/interfaces.ts';
import { addressFromBytes, type Words } from '../../dataplane/wire/address.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';
import * as icmpv6 from '../../dataplane/wire/icmpv6.ts';
import * as ipv6 from '../../dataplane/wire/ipv6.ts';
import * as nd from '../../dataplane/wire/nd.ts';
import { framed } from '../datagram.ts';
import { isOwnMac } from '../neighbour/link.ts';
import type { Event } from '../protocol.ts';

export const ALL_NODES: Words = [0x02ff, 0, 0, 0x01000000];
export const ALL_ROUTERS: Words = [0x02ff, 0, 0, 0x02000000];
const UNSPECIFIED: Words = [0, 0, 0, 0];

/** A frame with this ICMPv6 message (checksum still open) to a multicast group. `source` null: from ::. */
export function discoveryFrame(
  interfaces: InterfaceTable,
  port: number,
  source: Words | null,
  group: Words,
  message: Uint8Array,
): Uint8Array {
  const packet = new Uint8Array(ipv6.HEADER + message.length);
  packet.set(message, ipv6.HEADER);
  ipv6.emit(packet, 0, 0, 0, message.length, ipv6.PROTO_ICMPV6, 255);
  ipv6.setAddress(packet, ipv6.SRC, ...(source ?? UNSPECIFIED));
  ipv6.setAddress(packet, ipv6.DST, ...group);
  icmpv6.finish(packet, 0, ipv6.HEADER, packet.length);
  // RFC 2464 §7: 33:33 and the last four bytes of the group.
  return framed(interfaces, port, 0x3333 | ((group[3] & 0xffff) << 16), group[3] >>> 16, packet);
}

export interface DiscoveryMessage {
  type: number;
  /** Message [at, end) in the frame. */
  at: number;
  end: number;
  source: Words;
}

/**
 * The router solicitation or advertisement in a punted frame: null when it is something else or our own; 'invalid' when
 * a receiver must not look at it (RFC 4861 §6.1, RFC 6980).
 */
export function readDiscovery(
  interfaces: InterfaceTable,
  event: Extract<Event, { kind: 'frame' }>,
): DiscoveryMessage | 'invalid' | null {
  const { frame, l3, port } = event;
  if (event.etherType !== ethernet.TYPE_IPV6 || !ipv6.check(frame, l3, frame.length - l3)) return null;
  const end = l3 + ipv6.HEADER + ipv6.payloadLength(frame, l3);
  const upper = ipv6.newUpper();
  if (!ipv6.walk(frame, l3, end, upper) || upper.proto !== ipv6.PROTO_ICMPV6 || upper.at >= end) return null;
  const type = icmpv6.type(frame, upper.at);
  if (type !== icmpv6.ROUTER_SOLICITATION && type !== icmpv6.ROUTER_ADVERTISEMENT) return null;
  if (isOwnMac(interfaces, port, ethernet.srcLo(frame, 0), ethernet.srcHi(frame, 0))) return null;
  if (upper.fragment !== 0 || !nd.check(frame, l3, upper.at, end)) return 'invalid';
  return { type, at: upper.at, end, source: addressFromBytes(6, frame, l3 + ipv6.SRC) };
}
