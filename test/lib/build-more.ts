/**
 * Builders for the rarer formats: IPv6 extension headers (RFC 8200 §4), fragments of both families, GRE and its PPTP
 * variant (RFC 2784, RFC 2890, RFC 2637), SCTP (RFC 9260), UDP-Lite (RFC 3828). Same rules as build.ts.
 */
import {
  checksum,
  concat,
  type Extension,
  get16,
  ipText,
  type Payload,
  put16,
  type Segment,
  toBytes,
  u16,
  u32,
} from './build.ts';

export const EXT_HOP_BY_HOP = 0;
export const EXT_ROUTING = 43;
export const EXT_FRAGMENT = 44;
export const EXT_AH = 51;
export const EXT_DESTINATION = 60;
export const PROTO_GRE = 47;
export const PROTO_SCTP = 132;
export const PROTO_UDPLITE = 136;

function optionsHeader(type: number, options: Uint8Array): Extension {
  // Pad with Pad1 or PadN to a multiple of 8 bytes (RFC 8200 §4.2).
  const room = -(2 + options.length) & 7;
  const pad = room === 0 ? [] : room === 1 ? [0] : [1, room - 2, ...new Array<number>(room - 2).fill(0)];
  const bytes = concat(Uint8Array.of(0, 0), options, Uint8Array.from(pad));
  bytes[1] = bytes.length / 8 - 1;
  return { type, bytes };
}

/** Hop-by-Hop Options; `options` are raw TLVs. Router Alert: `hex('05 02 0000')`. */
export function hopByHop(options: Uint8Array = new Uint8Array(0)): Extension {
  return optionsHeader(EXT_HOP_BY_HOP, options);
}

/** Destination Options. */
export function destinationOptions(options: Uint8Array = new Uint8Array(0)): Extension {
  return optionsHeader(EXT_DESTINATION, options);
}

/** Routing header: the data after the first 4 bytes, a multiple of 8 plus 4. */
export function routing(o: { type: number; left: number; data?: Uint8Array }): Extension {
  const data = o.data ?? new Uint8Array(4);
  const bytes = concat(Uint8Array.of(0, 0, o.type, o.left), data);
  bytes[1] = bytes.length / 8 - 1;
  return { type: EXT_ROUTING, bytes };
}

/** Fragment header; offset in bytes. */
export function fragmentHeader(o: { offset: number; more: boolean; id: number }): Extension {
  return {
    type: EXT_FRAGMENT,
    bytes: concat(Uint8Array.of(0, 0), u16((o.offset & 0xfff8) | (o.more ? 1 : 0)), u32(o.id)),
  };
}

/** Authentication Header (RFC 4302) with an ICV of `icv` bytes. */
export function authentication(o: { spi: number; seq: number; icv?: Uint8Array }): Extension {
  const icv = o.icv ?? new Uint8Array(12);
  const bytes = concat(Uint8Array.of(0, (12 + icv.length) / 4 - 2, 0, 0), u32(o.spi), u32(o.seq), icv);
  return { type: EXT_AH, bytes };
}

/**
 * Cuts an IPv4 packet into fragments whose IP length is at most `mtu` (RFC 791 §3.2). Options are copied into every
 * fragment, whatever their copy flag says: tests that care build the fragments by hand.
 */
export function fragment4(packet: Uint8Array, mtu: number): Uint8Array[] {
  const headerLength = (packet[0] & 15) * 4;
  const step = (mtu - headerLength) & ~7;
  const body = packet.subarray(headerLength);
  const out: Uint8Array[] = [];
  for (let at = 0; at < body.length; at += step) {
    const part = concat(packet.subarray(0, headerLength), body.subarray(at, at + step));
    const more = at + step < body.length ? 0x2000 : get16(packet, 6) & 0x2000;
    put16(part, 2, part.length);
    put16(part, 6, more | ((get16(packet, 6) & 0x1fff) + at / 8));
    put16(part, 10, 0);
    put16(part, 10, checksum(part.subarray(0, headerLength)));
    out.push(part);
  }
  return out;
}

/** Cuts an IPv6 packet without extension headers into fragments of at most `mtu` bytes (RFC 8200 §4.5). */
export function fragment6(packet: Uint8Array, mtu: number, id: number): Uint8Array[] {
  const step = (mtu - 48) & ~7;
  const body = packet.subarray(40);
  const out: Uint8Array[] = [];
  for (let at = 0; at < body.length; at += step) {
    const header = fragmentHeader({ offset: at, more: at + step < body.length, id }).bytes;
    header[0] = packet[6];
    const part = concat(packet.subarray(0, 40), header, body.subarray(at, at + step));
    part[6] = EXT_FRAGMENT;
    put16(part, 4, part.length - 40);
    out.push(part);
  }
  return out;
}

/** GRE version 0 (RFC 2784, RFC 2890). `checksum: true` adds a right one. */
export function gre(
  o: { protocol: number; key?: number; seq?: number; checksum?: boolean },
  payload: Payload = '',
): Segment {
  const flags = (o.checksum ? 0x8000 : 0) | (o.key !== undefined ? 0x2000 : 0) | (o.seq !== undefined ? 0x1000 : 0);
  const bytes = concat(
    u16(flags),
    u16(o.protocol),
    o.checksum ? u32(0) : new Uint8Array(0),
    o.key !== undefined ? u32(o.key) : new Uint8Array(0),
    o.seq !== undefined ? u32(o.seq) : new Uint8Array(0),
    toBytes(payload),
  );
  if (o.checksum) put16(bytes, 4, checksum(bytes));
  return { proto: PROTO_GRE, bytes, sumAt: -1 };
}

/** Enhanced GRE of PPTP, version 1 (RFC 2637 §4.1); `callId` is the receiver's. */
export function grePptp(o: { callId: number; seq?: number; ack?: number }, payload: Payload = ''): Segment {
  const body = toBytes(payload);
  const flags = 0x2001 | (o.seq !== undefined ? 0x1000 : 0) | (o.ack !== undefined ? 0x0080 : 0);
  const bytes = concat(
    u16(flags),
    u16(0x880b),
    u16(body.length),
    u16(o.callId),
    o.seq !== undefined ? u32(o.seq) : new Uint8Array(0),
    o.ack !== undefined ? u32(o.ack) : new Uint8Array(0),
    body,
  );
  return { proto: PROTO_GRE, bytes, sumAt: -1 };
}

/** CRC32c of SCTP (RFC 9260 appendix A), bit by bit. */
export function crc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (const b of bytes) {
    crc ^= b;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

/** SCTP common header with raw chunks (each `type, flags, length, value`, padded to 4). */
export function sctp(o: { sport: number; dport: number; tag: number; checksum?: number }, chunks: Uint8Array): Segment {
  const bytes = concat(u16(o.sport), u16(o.dport), u32(o.tag), u32(0), chunks);
  const crc = o.checksum ?? crc32c(bytes);
  bytes.set(Uint8Array.of(crc, crc >> 8, crc >> 16, crc >> 24), 8); // little endian on the wire
  return { proto: PROTO_SCTP, bytes, sumAt: -1 };
}

/** One SCTP chunk, padded. Types: DATA 0, INIT 1, INIT ACK 2, COOKIE ECHO 10, COOKIE ACK 11. */
export function sctpChunk(type: number, flags: number, value: Payload): Uint8Array {
  const body = toBytes(value);
  return concat(Uint8Array.of(type, flags), u16(4 + body.length), body, new Uint8Array(-body.length & 3));
}

/** UDP-Lite (RFC 3828); coverage 0 means everything. */
export function udpLite(o: { sport: number; dport: number; coverage?: number }, payload: Payload = ''): Segment {
  const bytes = concat(u16(o.sport), u16(o.dport), u16(o.coverage ?? 0), u16(0), toBytes(payload));
  return { proto: PROTO_UDPLITE, bytes, sumAt: 6, coverage: o.coverage || bytes.length };
}

/** `fd00::1` and a MAC-derived interface identifier: the EUI-64 address in a /64 (RFC 4291 appendix A). */
export function eui64(prefix: Uint8Array, macBytes: Uint8Array): string {
  const [a, b, c, d, e, f] = macBytes;
  return ipText(concat(prefix.subarray(0, 8), Uint8Array.of(a ^ 2, b, c, 0xff, 0xfe, d, e, f)));
}
