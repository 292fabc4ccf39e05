/**
 * IP packets of the control plane: what lies between a punted frame and the transport header, both ways and for both families.
 *
 * `readIp` makes all checks up to the transport header: lengths, checksums, no fragment (the path has put fragments
 * together). `newIpPacket` makes a packet with a header and room behind it. Addresses are raw words.
 *
 * Not here: options and extension headers of the router's own packets (they have none), path MTU.
 */
import { addressFromBytes, type Family, type Words } from '../dataplane/wire/address.ts';
import { pseudo4, pseudo6 } from '../dataplane/wire/checksum.ts';
import * as ethernet from '../dataplane/wire/ethernet.ts';
import * as ipv4 from '../dataplane/wire/ipv4.ts';
import * as ipv6 from '../dataplane/wire/ipv6.ts';

export interface IpPacket {
  family: Family;
  src: Words;
  dst: Words;
  /** Where the transport header begins in the frame, and one past its payload. */
  l4: number;
  end: number;
}

/** The packet of this protocol (IANA number) in a punted frame; null when there is none that is whole and right. */
export function readIp(frame: Uint8Array, etherType: number, l3: number, proto: number): IpPacket | null {
  if (etherType === ethernet.TYPE_IPV4) {
    if (!ipv4.check(frame, l3, frame.length - l3) || ipv4.proto(frame, l3) !== proto) return null;
    if (ipv4.isFragment(frame, l3) || !ipv4.checksumOk(frame, l3)) return null;
    const l4 = l3 + ipv4.headerLength(frame, l3);
    const end = l3 + ipv4.totalLength(frame, l3);
    return { family: 4, src: [ipv4.src(frame, l3), 0, 0, 0], dst: [ipv4.dst(frame, l3), 0, 0, 0], l4, end };
  }
  if (etherType !== ethernet.TYPE_IPV6 || !ipv6.check(frame, l3, frame.length - l3)) return null;
  const end = l3 + ipv6.HEADER + ipv6.payloadLength(frame, l3);
  const upper = ipv6.newUpper();
  if (!ipv6.walk(frame, l3, end, upper) || upper.proto !== proto || upper.fragment !== 0) return null;
  const src = addressFromBytes(6, frame, l3 + ipv6.SRC);
  const dst = addressFromBytes(6, frame, l3 + ipv6.DST);
  return { family: 6, src, dst, l4: upper.at, end };
}

/** A packet with `length` bytes of room behind its header; `l4`: where they begin. TTL or hop limit: `hops`. */
export function newIpPacket(
  family: Family,
  src: Words,
  dst: Words,
  proto: number,
  length: number,
  hops: number,
): { packet: Uint8Array; l4: number } {
  const l4 = family === 4 ? ipv4.HEADER : ipv6.HEADER;
  const packet = new Uint8Array(l4 + length);
  if (family === 4) ipv4.emit(packet, 0, 0, packet.length, 0, 0, hops, proto, src[0], dst[0]);
  else {
    ipv6.emit(packet, 0, 0, 0, length, proto, hops);
    ipv6.setAddress(packet, ipv6.SRC, ...src);
    ipv6.setAddress(packet, ipv6.DST, ...dst);
  }
  return { packet, l4 };
}

/** The sum of the pseudo header, as the transports' checksum functions take it. */
export function pseudoOf(family: Family, src: Words, dst: Words, proto: number, length: number): number {
  if (family === 4) return pseudo4(src[0], dst[0], proto, length);
  return pseudo6(src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], proto, length);
}
