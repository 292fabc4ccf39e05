/**
 * Echo: the router answers ping (RFC 792 and RFC 1122 §3.2.2.6; RFC 4443 §4.1–4.2).
 *
 * It gets the frames that the path punts because their destination is the router itself. The reply carries identifier,
 * sequence number and data back unchanged, and, as Linux does, the TOS or traffic class byte too. Broadcast and
 * multicast requests over IPv4 are ignored (Linux's icmp_echo_ignore_broadcasts = 1); a multicast request over IPv6 is
 * answered from a unicast address of the port (RFC 4443 §2.2). No limit of its own, as Linux has none for replies.
 *
 * A reply is an IP packet that takes the path at `output`, with the port of the request as its scope: a link-local address
 * alone does not say on which link it is. There it is cut when it is longer than the link's MTU.
 *
 * Not here: record route and other IPv4 options (the reply has none), timestamps, address masks.
 */
import { MAX_PORTS } from '../dataplane/interfaces.ts';
import { addressFromBytes } from '../dataplane/wire/address.ts';
import { swap16 } from '../dataplane/wire/bytes.ts';
import * as ethernet from '../dataplane/wire/ethernet.ts';
import * as icmp from '../dataplane/wire/icmp.ts';
import * as icmpv6 from '../dataplane/wire/icmpv6.ts';
import * as ipv4 from '../dataplane/wire/ipv4.ts';
import * as ipv6 from '../dataplane/wire/ipv6.ts';
import type { Addresses } from './neighbour/addresses.ts';
import type { Action, Event, Protocol } from './protocol.ts';

/** Initial TTL and hop limit (RFC 1700; Linux's default). */
const TTL = 64;

export class Echo implements Protocol {
  readonly name = 'echo';
  private readonly addresses: Addresses;
  /** Identification of the next IPv4 reply: a counter, since it may be fragmented on its way. */
  private identification: number;
  private readonly upper = ipv6.newUpper();

  /** @param seed first IPv4 identification, 16 bits */
  constructor(addresses: Addresses, seed = 0) {
    this.addresses = addresses;
    this.identification = seed & 0xffff;
  }

  step(_now: number, event: Event): Action[] {
    if (event.kind !== 'frame' || event.port >= MAX_PORTS || event.l3 < ethernet.HEADER) return [];
    let action: Action | undefined;
    if (event.etherType === ethernet.TYPE_IPV4) action = this.answer4(event.port, event.frame, event.l3);
    else if (event.etherType === ethernet.TYPE_IPV6) action = this.answer6(event.port, event.frame, event.l3);
    return action === undefined ? [] : [action];
  }

  next(): number {
    return -1;
  }

  private answer4(port: number, frame: Uint8Array, l3: number): Action | undefined {
    if (!ipv4.check(frame, l3, frame.length - l3) || !ipv4.checksumOk(frame, l3)) return undefined;
    if (ipv4.proto(frame, l3) !== ipv4.PROTO_ICMP) return undefined;
    const l4 = l3 + ipv4.headerLength(frame, l3);
    const end = l3 + ipv4.totalLength(frame, l3);
    if (ipv4.isFragment(frame, l3) || !icmp.check(frame, l4, end - l4)) return undefined;
    if (icmp.type(frame, l4) !== icmp.ECHO || icmp.code(frame, l4) !== 0) return undefined;
    if (!icmp.checksumOk(frame, l4, end)) return undefined;
    const from = ipv4.src(frame, l3);
    const to = ipv4.dst(frame, l3);
    // RFC 1122 §3.2.2.6: a request to a broadcast or multicast address may be discarded; those are not own addresses.
    if (this.addresses.findAnywhere(port, 4, [to, 0, 0, 0]) === undefined) return undefined;
    if (!ipv4.isUnicast(from)) return undefined;
    const length = end - l4;
    const packet = new Uint8Array(ipv4.HEADER + length);
    packet.set(frame.subarray(l4, end), ipv4.HEADER);
    icmp.emit(packet, ipv4.HEADER, icmp.ECHO_REPLY, 0, icmp.rest(frame, l4));
    icmp.finish(packet, ipv4.HEADER, packet.length);
    this.identification = (this.identification + 1) & 0xffff;
    const tos = ipv4.tos(frame, l3);
    ipv4.emit(packet, 0, tos, packet.length, swap16(this.identification), 0, TTL, ipv4.PROTO_ICMP, to, from);
    return { kind: 'output', packet };
  }

  private answer6(port: number, frame: Uint8Array, l3: number): Action | undefined {
    if (!ipv6.check(frame, l3, frame.length - l3)) return undefined;
    const end = l3 + ipv6.HEADER + ipv6.payloadLength(frame, l3);
    const upper = this.upper;
    if (!ipv6.walk(frame, l3, end, upper) || upper.proto !== ipv6.PROTO_ICMPV6) return undefined;
    const l4 = upper.at;
    if (upper.fragment !== 0 && !isAtomicFragment(frame, upper.fragment)) return undefined;
    if (!icmpv6.check(frame, l4, end - l4) || icmpv6.type(frame, l4) !== icmpv6.ECHO) return undefined;
    if (icmpv6.code(frame, l4) !== 0 || !icmpv6.checksumOk(frame, l3, l4, end)) return undefined;
    const from = addressFromBytes(6, frame, l3 + ipv6.SRC);
    let to = addressFromBytes(6, frame, l3 + ipv6.DST);
    if (ipv6.isMulticast(from[0]) || ipv6.isUnspecified(from[0], from[1], from[2], from[3])) return undefined;
    if (ipv6.isLoopback(from[0], from[1], from[2], from[3])) return undefined;
    if (ipv6.isMulticast(to[0])) {
      // RFC 4443 §2.2 (b): the reply's source is a unicast address of the interface on which the request came.
      const source = this.addresses.sourceFor(port, 6, from);
      if (source === undefined) return undefined;
      to = [...source.words];
    } else if (this.addresses.findAnywhere(port, 6, to) === undefined) {
      return undefined;
    }
    const length = end - l4;
    const packet = new Uint8Array(ipv6.HEADER + length);
    packet.set(frame.subarray(l4, end), ipv6.HEADER);
    ipv6.emit(packet, 0, ipv6.trafficClass(frame, l3), 0, length, ipv6.PROTO_ICMPV6, TTL);
    ipv6.setAddress(packet, ipv6.SRC, to[0], to[1], to[2], to[3]);
    ipv6.setAddress(packet, ipv6.DST, from[0], from[1], from[2], from[3]);
    icmpv6.emit(packet, ipv6.HEADER, icmpv6.ECHO_REPLY, 0, icmpv6.rest(frame, l4));
    icmpv6.finish(packet, 0, ipv6.HEADER, packet.length);
    return { kind: 'output', packet };
  }
}

/** RFC 6946: a fragment header that fragments nothing. */
function isAtomicFragment(u8: Uint8Array, at: number): boolean {
  return ((u8[at + 2] << 8) | (u8[at + 3] & 0xf9)) === 0;
}
