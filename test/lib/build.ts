/**
 * Frame builders for tests: plain functions that return fresh bytes, checksums and lengths right unless a test asks
 * for wrong ones. Deliberately naive, and independent of the router's own wire code: a test that builds its frames
 * with the code under test proves nothing.
 *
 *   ethernet({ src: MAC_A, dst: MAC_B }, ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, udp({ sport: 1, dport: 2 }, 'hi')))
 *
 * A transport builder returns a Segment: its checksum covers the pseudo-header, so `ipv4` and `ipv6` complete it, and
 * they take the protocol number from it. Every length and checksum can be overridden, to build malformed frames.
 * Rarer formats (extension headers, GRE, SCTP, fragments) are in build-more.ts, the checker is in verify.ts; both are
 * exported from here too.
 */
export * from './build-more.ts';
export { type VerifyOptions, verify } from './verify.ts';

/** Raw bytes, or text that becomes its UTF-8 bytes. */
export type Payload = Uint8Array | string;
/** An address as text or as its 4, 6 or 16 bytes. */
export type Address = string | Uint8Array;

/** A transport header and its payload, whose checksum waits for the IP addresses. */
export interface Segment {
  /** IP protocol number, the default of `ipv4({proto})` and `ipv6({next})`. */
  proto: number;
  bytes: Uint8Array;
  /** Offset of the checksum field to complete over the pseudo-header; −1: leave the bytes as they are. */
  sumAt: number;
  /** Bytes that the checksum covers (UDP-Lite); default all. */
  coverage?: number;
}

export const PROTO_ICMP = 1;
export const PROTO_TCP = 6;
export const PROTO_UDP = 17;
export const PROTO_ICMPV6 = 58;

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;
export const URG = 32;
const FLAG_LETTERS = 'FSRPAUEC';

/** Text to UTF-8 bytes; bytes stay. */
export function toBytes(payload: Payload): Uint8Array {
  return typeof payload === 'string' ? new TextEncoder().encode(payload) : payload;
}

/** `hex('45 00 0014')`: bytes of a hex text, white space and colons ignored. */
export function hex(text: string): Uint8Array {
  const digits = text.replace(/[\s:]/g, '');
  if (digits.length % 2 || /[^0-9a-f]/i.test(digits))
    throw new Error(`hex: expected hex digits in pairs, got "${text}"`);
  return Uint8Array.from({ length: digits.length / 2 }, (_, n) => Number.parseInt(digits.slice(n * 2, n * 2 + 2), 16));
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

/** Big-endian integers as bytes. */
export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value);
}
export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >> 24, value >> 16, value >> 8, value);
}

export function get16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}
/** Unsigned. */
export function get32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}
export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}

/** '02:00:00:00:00:01' to 6 bytes. */
export function mac(text: Address): Uint8Array {
  if (typeof text !== 'string') return text;
  const bytes = hex(text);
  if (bytes.length !== 6) throw new Error(`mac: expected six bytes, got "${text}"`);
  return bytes;
}

/** '10.0.0.1' to 4 bytes, '2001:db8::1' to 16. */
export function ip(text: Address): Uint8Array {
  if (typeof text !== 'string') return text;
  if (!text.includes(':')) {
    const parts = text.split('.').map(Number);
    if (parts.length !== 4 || parts.some((p) => !(p >= 0 && p <= 255))) throw new Error(`ip: bad address "${text}"`);
    return Uint8Array.from(parts);
  }
  let full = text;
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (dotted) {
    const v4 = ip(dotted[2]);
    full = `${dotted[1]}${get16(v4, 0).toString(16)}:${get16(v4, 2).toString(16)}`;
  }
  const halves = full.split('::');
  const group = (side: string | undefined) => (side ? side.split(':').map((g) => Number.parseInt(g, 16)) : []);
  const left = group(halves[0]);
  const right = group(halves[1]);
  const zeros = halves.length === 2 ? 8 - left.length - right.length : 0;
  const groups = [...left, ...new Array<number>(Math.max(0, zeros)).fill(0), ...right];
  if (groups.length !== 8 || halves.length > 2 || groups.some((g) => !(g >= 0 && g <= 0xffff)))
    throw new Error(`ip: bad address "${text}"`);
  return concat(...groups.map(u16));
}

/** 4 or 16 bytes as text; IPv6 in RFC 5952 form. */
export function ipText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, n) => get16(bytes, n * 2));
  let best = -1;
  let bestLength = 1; // RFC 5952 §4.2.2: a single zero group is not shortened
  for (let from = 0; from < 8; from++) {
    let to = from;
    while (to < 8 && groups[to] === 0) to++;
    if (to - from > bestLength) {
      best = from;
      bestLength = to - from;
    }
  }
  const part = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map((g) => g.toString(16))
      .join(':');
  return best < 0 ? part(0, 8) : `${part(0, best)}::${part(best + bestLength, 8)}`;
}

export function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(':');
}

/** One's complement of the one's complement sum of all parts, each padded to 16 bits (RFC 1071). */
export function checksum(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const p of parts) {
    for (let n = 0; n < p.length; n += 2) sum += (p[n] << 8) | (n + 1 < p.length ? p[n + 1] : 0);
  }
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** The pseudo-header of RFC 9293 §3.1 (IPv4) or RFC 8200 §8.1 (IPv6), for 4- or 16-byte addresses. */
export function pseudoHeader(src: Uint8Array, dst: Uint8Array, proto: number, length: number): Uint8Array {
  return src.length === 4
    ? concat(src, dst, Uint8Array.of(0, proto), u16(length))
    : concat(src, dst, u32(length), Uint8Array.of(0, 0, 0, proto));
}

/** The segment's bytes with the checksum filled in for these addresses. */
export function complete(segment: Segment, src: Uint8Array, dst: Uint8Array): Uint8Array {
  if (segment.sumAt < 0) return segment.bytes;
  const out = segment.bytes.slice();
  put16(out, segment.sumAt, 0);
  const sum = checksum(
    pseudoHeader(src, dst, segment.proto, out.length),
    out.subarray(0, segment.coverage ?? out.length),
  );
  // RFC 768: a computed zero goes out as all ones; for TCP zero is a value like any other.
  put16(out, segment.sumAt, sum === 0 && segment.proto !== PROTO_TCP && segment.proto !== PROTO_ICMPV6 ? 0xffff : sum);
  return out;
}

/** Ethernet II, with an optional 802.1Q tag (or several, outermost first). The type follows from an IP payload. */
export function ethernet(
  o: { src: Address; dst: Address; type?: number; vlan?: number | readonly number[]; tpid?: number },
  payload: Payload,
): Uint8Array {
  const body = toBytes(payload);
  const type = o.type ?? (body[0] >> 4 === 6 ? 0x86dd : 0x0800);
  const tags = o.vlan === undefined ? [] : typeof o.vlan === 'number' ? [o.vlan] : o.vlan;
  return concat(mac(o.dst), mac(o.src), ...tags.map((t) => concat(u16(o.tpid ?? 0x8100), u16(t))), u16(type), body);
}

/** ARP for Ethernet and IPv4 (RFC 826). */
export function arp(o: {
  op: 'request' | 'reply' | number;
  sha: Address;
  spa: Address;
  tha?: Address;
  tpa: Address;
}): Uint8Array {
  const op = o.op === 'request' ? 1 : o.op === 'reply' ? 2 : o.op;
  const tha = mac(o.tha ?? '00:00:00:00:00:00');
  return concat(hex('0001080006 04'), u16(op), mac(o.sha), ip(o.spa), tha, ip(o.tpa));
}

export interface Ipv4Options {
  src: Address;
  dst: Address;
  proto?: number;
  ttl?: number;
  id?: number;
  df?: boolean;
  /** More fragments, and the offset of this fragment in bytes. */
  more?: boolean;
  offset?: number;
  tos?: number;
  /** Raw options, padded to 32 bits with End of Option List. */
  options?: Uint8Array;
  /** Overrides, for malformed packets. */
  version?: number;
  ihl?: number;
  totalLength?: number;
  checksum?: number;
}

/** IPv4 packet (RFC 791). A Segment's checksum is completed and its protocol number used. */
export function ipv4(o: Ipv4Options, payload: Segment | Payload): Uint8Array {
  const src = ip(o.src);
  const dst = ip(o.dst);
  const segment = typeof payload === 'object' && 'proto' in payload;
  const body = segment ? complete(payload, src, dst) : toBytes(payload);
  const options = concat(o.options ?? new Uint8Array(0), new Uint8Array(-(o.options?.length ?? 0) & 3));
  const headerLength = 20 + options.length;
  const flags = (o.df ? 0x4000 : 0) | (o.more ? 0x2000 : 0) | ((o.offset ?? 0) >> 3);
  const header = concat(
    Uint8Array.of(((o.version ?? 4) << 4) | (o.ihl ?? headerLength / 4), o.tos ?? 0),
    u16(o.totalLength ?? headerLength + body.length),
    u16(o.id ?? 0),
    u16(flags),
    Uint8Array.of(o.ttl ?? 64, o.proto ?? (segment ? payload.proto : 253), 0, 0),
    src,
    dst,
    options,
  );
  put16(header, 10, o.checksum ?? checksum(header));
  return concat(header, body);
}

/** An extension header: the number that the header before it carries, and its bytes with byte 0 (Next Header) open. */
export interface Extension {
  type: number;
  bytes: Uint8Array;
}

export interface Ipv6Options {
  src: Address;
  dst: Address;
  next?: number;
  hop?: number;
  tclass?: number;
  flow?: number;
  ext?: readonly Extension[];
  /** Destination in the pseudo-header, when a routing header makes it differ (RFC 8200 §8.1). */
  finalDst?: Address;
  version?: number;
  payloadLength?: number;
}

/** IPv6 packet (RFC 8200) with its chain of extension headers. */
export function ipv6(o: Ipv6Options, payload: Segment | Payload): Uint8Array {
  const src = ip(o.src);
  const dst = ip(o.dst);
  const segment = typeof payload === 'object' && 'proto' in payload;
  const body = segment ? complete(payload, src, ip(o.finalDst ?? dst)) : toBytes(payload);
  const last = o.next ?? (segment ? payload.proto : 59);
  const ext = o.ext ?? [];
  const chain = ext.map((e, n) => {
    const bytes = e.bytes.slice();
    bytes[0] = n + 1 < ext.length ? ext[n + 1].type : last;
    return bytes;
  });
  const rest = concat(...chain, body);
  const tclass = o.tclass ?? 0;
  return concat(
    u32(((o.version ?? 6) << 28) | (tclass << 20) | (o.flow ?? 0)),
    u16(o.payloadLength ?? rest.length),
    Uint8Array.of(ext.length ? ext[0].type : last, o.hop ?? 64),
    src,
    dst,
    rest,
  );
}

/** UDP (RFC 768). `checksum: 0` sends none; another number is sent as it is. */
export function udp(
  o: { sport: number; dport: number; checksum?: number; length?: number },
  payload: Payload = '',
): Segment {
  const body = toBytes(payload);
  const bytes = concat(u16(o.sport), u16(o.dport), u16(o.length ?? 8 + body.length), u16(o.checksum ?? 0), body);
  return { proto: PROTO_UDP, bytes, sumAt: o.checksum === undefined ? 6 : -1 };
}

export interface TcpOptions {
  mss?: number;
  wscale?: number;
  sackPermitted?: boolean;
  sack?: readonly (readonly [number, number])[];
  timestamps?: readonly [number, number];
}

/** TCP options as bytes (RFC 9293 §3.2, RFC 7323, RFC 2018), padded to 32 bits with No-Operation. */
export function tcpOptions(o: TcpOptions): Uint8Array {
  const parts: Uint8Array[] = [];
  if (o.mss !== undefined) parts.push(Uint8Array.of(2, 4), u16(o.mss));
  if (o.sackPermitted) parts.push(Uint8Array.of(4, 2));
  if (o.timestamps) parts.push(Uint8Array.of(8, 10), u32(o.timestamps[0]), u32(o.timestamps[1]));
  if (o.wscale !== undefined) parts.push(Uint8Array.of(3, 3, o.wscale));
  if (o.sack) {
    parts.push(Uint8Array.of(5, 2 + 8 * o.sack.length));
    for (const [left, right] of o.sack) parts.push(u32(left), u32(right));
  }
  const all = concat(...parts);
  return concat(all, new Uint8Array(-all.length & 3).fill(1));
}

/** TCP flags from letters, any of "FSRPAUEC" (E: ECE, C: CWR), to the flags byte. */
export function tcpFlags(letters: string): number {
  let flags = 0;
  for (const letter of letters) {
    const bit = FLAG_LETTERS.indexOf(letter);
    if (bit < 0) throw new Error(`tcpFlags: expected letters of ${FLAG_LETTERS}, got "${letters}"`);
    flags |= 1 << bit;
  }
  return flags;
}

/** TCP (RFC 9293). Raw options are padded to 32 bits with End of Option List. */
export function tcp(
  o: {
    sport: number;
    dport: number;
    seq?: number;
    ack?: number;
    flags?: string | number;
    win?: number;
    urgent?: number;
    options?: Uint8Array | TcpOptions;
    checksum?: number;
    /** Data offset in 32-bit words, when it shall be wrong. */
    dataOffset?: number;
  },
  payload: Payload = '',
): Segment {
  const raw = o.options instanceof Uint8Array ? o.options : tcpOptions(o.options ?? {});
  const options = concat(raw, new Uint8Array(-raw.length & 3));
  const flags = typeof o.flags === 'number' ? o.flags : tcpFlags(o.flags ?? 'A');
  const bytes = concat(
    u16(o.sport),
    u16(o.dport),
    u32(o.seq ?? 0),
    u32(o.ack ?? 0),
    Uint8Array.of((o.dataOffset ?? 5 + options.length / 4) << 4, flags),
    u16(o.win ?? 65535),
    u16(o.checksum ?? 0),
    u16(o.urgent ?? 0),
    options,
    toBytes(payload),
  );
  return { proto: PROTO_TCP, bytes, sumAt: o.checksum === undefined ? 16 : -1 };
}

interface IcmpFields {
  type: number;
  code?: number;
  /** Echo identifier and sequence number. */
  id?: number;
  seq?: number;
  /** Next-hop MTU: low 16 bits of the rest in ICMP, all 32 in ICMPv6. */
  mtu?: number;
  /** Parameter problem pointer: first byte of the rest in ICMP, all 32 bits in ICMPv6. */
  pointer?: number;
  /** The whole second word, when none of these names fits. */
  rest?: number;
  checksum?: number;
}

/** ICMP (RFC 792); for errors the payload is the quoted packet. */
export function icmp(o: IcmpFields, payload: Payload = ''): Segment {
  const rest = o.rest ?? o.mtu ?? (o.pointer !== undefined ? o.pointer << 24 : ((o.id ?? 0) << 16) | (o.seq ?? 0));
  const bytes = concat(Uint8Array.of(o.type, o.code ?? 0, 0, 0), u32(rest), toBytes(payload));
  put16(bytes, 2, o.checksum ?? checksum(bytes));
  return { proto: PROTO_ICMP, bytes, sumAt: -1 };
}

/** ICMPv6 (RFC 4443): the checksum covers the pseudo-header. */
export function icmpv6(o: IcmpFields, payload: Payload = ''): Segment {
  const rest = o.rest ?? o.mtu ?? o.pointer ?? ((o.id ?? 0) << 16) | (o.seq ?? 0);
  const bytes = concat(Uint8Array.of(o.type, o.code ?? 0), u16(o.checksum ?? 0), u32(rest), toBytes(payload));
  return { proto: PROTO_ICMPV6, bytes, sumAt: o.checksum === undefined ? 2 : -1 };
}

/** Seeded pseudo-random numbers (mulberry32): the same seed gives the same test everywhere. */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  /** Unsigned 32-bit. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** Integer from `low` to `high`, both included. */
  int(low: number, high: number): number {
    return low + Math.floor((this.next() / 0x100000000) * (high - low + 1));
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.next() & 255);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.int(0, items.length - 1)];
  }

  chance(probability: number): boolean {
    return this.next() < probability * 0x100000000;
  }
}
