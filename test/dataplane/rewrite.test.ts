/**
 * Rewriting against a naive reference: the frame is built again from scratch with the new addresses and ports, and must
 * come out the same, byte for byte, with every checksum (RFC 1624 against a full sum). Partial checksums get the delta of
 * the addresses alone.
 */
import { describe, expect, it } from 'vitest';
import { Frames, META_CSUM, META_LEN, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { parseIp } from '../../dataplane/parse.ts';
import { rewriteIp, rewriteQuote, writeLink } from '../../dataplane/rewrite.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import * as B from '../lib/build.ts';

/** What a builder needs to make the same packet with other addresses and ports. */
interface Ends {
  src: string;
  dst: string;
  sport: number;
  dport: number;
}
type Maker = (e: Ends, ttl: number) => Uint8Array;

const payloads = [
  new Uint8Array(0),
  Uint8Array.of(1),
  B.toBytes('a payload of odd length'),
  new Uint8Array(1000).fill(0xff),
];

function raw16(port: number): number {
  return ((port & 0xff) << 8) | (port >> 8);
}
function words(address: string): number[] {
  const bytes = B.ip(address);
  return Array.from(
    { length: bytes.length / 4 },
    (_, n) => bytes[4 * n] | (bytes[4 * n + 1] << 8) | (bytes[4 * n + 2] << 16) | (bytes[4 * n + 3] << 24),
  );
}

/** Puts an IP packet into a slot and parses it. */
function load(packet: Uint8Array, flags = 0): { frames: Frames; p: Packet } {
  const frames = new Frames(1, 0);
  const slot = frames.alloc(packet.length + 14);
  const off = frames.meta[slot * META_WORDS + META_OFF];
  frames.u8.set(packet, off + 14);
  frames.meta[slot * META_WORDS + META_LEN] = packet.length + 14;
  const p = new Packet();
  p.slot = slot;
  p.off = off;
  p.l3 = off + 14;
  p.len = packet.length + 14;
  p.family = packet[0] >> 4;
  p.flags = flags;
  expect(parseIp(p, frames, off + 14 + packet.length)).toBe(0);
  return { frames, p };
}

function translate(p: Packet, to: Ends, echo: boolean): void {
  const s = words(to.src);
  const d = words(to.dst);
  [p.s0, p.s1, p.s2, p.s3] = [s[0], s[1] ?? 0, s[2] ?? 0, s[3] ?? 0];
  [p.d0, p.d1, p.d2, p.d3] = [d[0], d[1] ?? 0, d[2] ?? 0, d[3] ?? 0];
  p.ports = echo ? (p.rports & ~0xffff) | raw16(to.sport) : raw16(to.sport) | (raw16(to.dport) << 16);
}
const bytes = (frames: Frames, p: Packet) => frames.u8.slice(p.l3, p.end);

const makers: [string, boolean, (payload: Uint8Array) => Maker][] = [
  [
    'TCP over IPv4',
    false,
    (b) => (e, ttl) => B.ipv4({ ...e, ttl, id: 7 }, B.tcp({ ...e, seq: 5, ack: 6, flags: 'PA' }, b)),
  ],
  ['UDP over IPv4', false, (b) => (e, ttl) => B.ipv4({ ...e, ttl, tos: 0xb8 }, B.udp(e, b))],
  ['UDP without a checksum', false, (b) => (e, ttl) => B.ipv4({ ...e, ttl }, B.udp({ ...e, checksum: 0 }, b))],
  ['UDP behind options', false, (b) => (e, ttl) => B.ipv4({ ...e, ttl, options: B.hex('94040000') }, B.udp(e, b))],
  ['UDP-Lite over IPv4', false, (b) => (e, ttl) => B.ipv4({ ...e, ttl }, B.udpLite({ ...e, coverage: 8 }, b))],
  ['SCTP over IPv4', false, (b) => (e, ttl) => B.ipv4({ ...e, ttl }, B.sctp({ ...e, tag: 9 }, B.sctpChunk(0, 3, b)))],
  ['ICMP echo', true, (b) => (e, ttl) => B.ipv4({ ...e, ttl }, B.icmp({ type: 8, id: e.sport, seq: 3 }, b))],
  ['TCP over IPv6', false, (b) => (e, hop) => B.ipv6({ ...e, hop }, B.tcp({ ...e, seq: 5, ack: 6, flags: 'PA' }, b))],
  ['UDP over IPv6', false, (b) => (e, hop) => B.ipv6({ ...e, hop, ext: [B.destinationOptions()] }, B.udp(e, b))],
  ['ICMPv6 echo', true, (b) => (e, hop) => B.ipv6({ ...e, hop }, B.icmpv6({ type: 128, id: e.sport, seq: 3 }, b))],
  ['a protocol without ports', false, (b) => (e, ttl) => B.ipv4({ ...e, ttl, proto: 99 }, b)],
];

describe.each(makers)('%s', (name, echo, make) => {
  const six = name.includes('v6');
  const address = (random: B.Random) =>
    six
      ? B.ipText(B.concat(B.hex('2001 0db8'), random.bytes(12)))
      : `${random.pick([10, 100, 192, 203])}.${random.int(0, 255)}.${random.pick([0, 255, 7])}.${random.int(1, 254)}`;
  const port = (random: B.Random) => random.pick([0, 1, 0xff, 0x100, 0xffff, random.int(0, 0xffff)]);
  const ends = (random: B.Random): Ends => ({
    src: address(random),
    dst: address(random),
    sport: port(random),
    dport: port(random),
  });

  it('translated and forwarded: as if it had been built so (seed 6)', () => {
    const random = new B.Random(6);
    for (let n = 0; n < 300; n++) {
      const maker = make(random.pick(payloads));
      const before = ends(random);
      const after = ends(random);
      // Each end by itself, and neither.
      if (random.chance(0.4)) after.src = before.src;
      if (random.chance(0.4)) after.dst = before.dst;
      if (random.chance(0.4)) [after.sport, after.dport] = [before.sport, before.dport];
      if (name.includes('without ports')) [after.sport, after.dport] = [0, 0];
      const decrement = random.int(0, 1);
      const ttl = random.int(2, 255);
      const { frames, p } = load(maker(before, ttl));
      translate(p, after, echo);
      if (name.includes('without ports')) p.ports = p.rports;
      rewriteIp(p, frames, decrement);
      expect(B.toHex(bytes(frames, p))).toBe(B.toHex(maker(after, ttl - decrement)));
    }
  });
});

describe('RFC 1624 at its corners', () => {
  it('every TTL of every header checksum: the incremental sum is the full one', () => {
    for (let id = 0; id < 0x10000; id += 97) {
      for (const ttl of [1, 2, 64, 255]) {
        const make = (t: number) => B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2', id, ttl: t, proto: 99 }, '');
        const { frames, p } = load(make(ttl));
        rewriteIp(p, frames, 1);
        expect(B.toHex(bytes(frames, p))).toBe(B.toHex(make(ttl - 1)));
      }
    }
  });

  it('a UDP checksum that becomes zero is sent as all ones (RFC 768)', () => {
    let seen = 0;
    for (let sport = 1; sport < 0x10000; sport++) {
      const e = { src: '203.0.113.1', dst: '198.51.100.7', sport, dport: 53 };
      const packet = B.ipv4(e, B.udp(e, 'x'));
      if (B.get16(packet, 26) !== 0xffff) continue;
      seen++;
      const { frames, p } = load(B.ipv4({ ...e, src: '10.0.0.9' }, B.udp({ ...e, sport: 77 }, 'x')));
      translate(p, e, false);
      rewriteIp(p, frames, 0);
      expect(B.get16(bytes(frames, p), 26)).toBe(0xffff);
    }
    expect(seen).toBe(1);
  });
});

describe('ports whose change is nothing in one’s complement', () => {
  it.each(makers.filter(([name]) => /SCTP|TCP over IPv4|echo/.test(name)))(
    '%s: a port or identifier that went from all ones to zero, or back, was left as it was',
    (name, echo, make) => {
      const [src, dst] = name.includes('v6') ? ['2001:db8::1', '2001:db8::2'] : ['10.0.0.1', '203.0.113.9'];
      const maker = make(payloads[2]);
      const ones = { src, dst, sport: 0xffff, dport: 0xffff };
      const zero = { src, dst, sport: 0, dport: 0 };
      for (const [from, to] of [
        [ones, zero],
        [zero, ones],
      ]) {
        const { frames, p } = load(maker(from, 9));
        translate(p, to, echo);
        rewriteIp(p, frames, 0);
        expect(B.toHex(bytes(frames, p))).toBe(B.toHex(maker(to, 9)));
      }
    },
  );
});

describe('partial checksums (NEEDS_CSUM): the field is the folded pseudo-header, uncomplemented', () => {
  const partial = (packet: Uint8Array, proto: number, at: number) => {
    const four = packet[0] >> 4 === 4;
    const l4 = four ? 20 : 40;
    const [src, dst] = four
      ? [packet.slice(12, 16), packet.slice(16, 20)]
      : [packet.slice(8, 24), packet.slice(24, 40)];
    B.put16(packet, l4 + at, ~B.checksum(B.pseudoHeader(src, dst, proto, packet.length - l4)) & 0xffff);
    return packet;
  };

  it.each([
    ['TCP', 4, 6, 16],
    ['UDP', 4, 17, 6],
    ['TCP', 6, 6, 16],
    ['UDP', 6, 17, 6],
  ])('%s over IPv%i takes the address delta, and no port delta', (name, family, proto, at) => {
    const random = new B.Random(8);
    for (let n = 0; n < 200; n++) {
      const host = () =>
        family === 4 ? `10.${random.int(0, 255)}.0.${random.int(1, 254)}` : `2001:db8::${random.int(1, 9999)}`;
      const make = (e: Ends, ttl: number) => {
        const segment = name === 'TCP' ? B.tcp({ ...e, flags: 'A' }, 'data') : B.udp(e, 'data');
        return partial(family === 4 ? B.ipv4({ ...e, ttl }, segment) : B.ipv6({ ...e, hop: ttl }, segment), proto, at);
      };
      const before = { src: host(), dst: host(), sport: random.int(1, 65535), dport: random.int(1, 65535) };
      const after = { src: host(), dst: host(), sport: random.int(1, 65535), dport: random.int(1, 65535) };
      const { frames, p } = load(make(before, 9), 1);
      translate(p, after, false);
      rewriteIp(p, frames, 1);
      const got = bytes(frames, p);
      const expected = make(after, 8);
      // Zero has two forms in one's complement.
      const l4 = family === 4 ? 20 : 40;
      if (B.get16(got, l4 + at) % 0xffff === B.get16(expected, l4 + at) % 0xffff)
        got.set(expected.subarray(l4 + at, l4 + at + 2), l4 + at);
      expect(B.toHex(got)).toBe(B.toHex(expected));
    }
  });
});

describe('the packet that an error quotes', () => {
  const outer = { src: '198.51.100.99', dst: '192.168.1.10' };
  const quotes: [string, (e: Ends) => Uint8Array][] = [
    ['TCP', (e) => B.ipv4({ ...e, ttl: 3 }, B.tcp({ ...e, seq: 5, flags: 'S' }, 'data'))],
    ['UDP', (e) => B.ipv4({ ...e, ttl: 3 }, B.udp(e, 'data'))],
    ['UDP without a checksum', (e) => B.ipv4({ ...e, ttl: 3 }, B.udp({ ...e, checksum: 0 }, 'data'))],
    ['UDP behind options', (e) => B.ipv4({ ...e, ttl: 3, options: B.hex('01010101') }, B.udp(e, 'data'))],
  ];

  it.each(quotes)(
    '%s: inner addresses, ports and checksums, and the outer checksum, also when it is cut',
    (_, make) => {
      const random = new B.Random(9);
      const some = () => ({
        src: `203.0.113.${random.int(1, 254)}`,
        dst: `198.51.100.${random.int(1, 254)}`,
        sport: random.int(1, 65535),
        dport: random.int(1, 65535),
      });
      for (let n = 0; n < 200; n++) {
        const before = some();
        const after = some();
        const whole = make(before);
        const header = (whole[0] & 15) * 4;
        // 8 bytes of the transport header at least; the whole packet, or any length in between that ends outside the checksum.
        const length = random.pick([header + 8, header + 11, whole.length]);
        const { frames, p } = load(B.ipv4(outer, B.icmp({ type: 3, code: 1 }, whole.subarray(0, length))));
        p.innerL3 = p.l4 + 8;
        p.innerL4 = p.innerL3 + header;
        p.innerProto = whole[9];
        rewriteQuote(p, frames, {
          s: Int32Array.from(words(after.src)),
          d: Int32Array.from(words(after.dst)),
          ports: raw16(after.sport) | (raw16(after.dport) << 16),
        });
        const expected = B.ipv4(outer, B.icmp({ type: 3, code: 1 }, make(after).subarray(0, length)));
        expect(B.toHex(bytes(frames, p))).toBe(B.toHex(expected));
      }
    },
  );
});

describe('the link header', () => {
  const packet = B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, B.udp({ sport: 1, dport: 2 }, 'data'));
  const mac = (text: string) => {
    const b = B.mac(text);
    return [b[0] | (b[1] << 8) | (b[2] << 16) | (b[3] << 24), b[4] | (b[5] << 8)];
  };
  const [dst, src] = [mac('02:11:22:33:44:55'), mac('02:66:77:88:99:aa')];

  it.each([0, 7, 4094])('VLAN %i: header, tag, and nothing behind the datagram', (vlan) => {
    const { frames, p } = load(B.concat(packet, new Uint8Array(9).fill(0xee)));
    writeLink(p, frames, dst[0], dst[1], src[0], src[1], vlan);
    const m = p.slot * META_WORDS;
    const out = frames.u8.slice(frames.meta[m + META_OFF], frames.meta[m + META_OFF] + frames.meta[m + META_LEN]);
    const expected = B.ethernet(
      { dst: '02:11:22:33:44:55', src: '02:66:77:88:99:aa', vlan: vlan || undefined },
      packet,
    );
    expect(B.toHex(out)).toBe(B.toHex(expected));
  });

  it('the start of a partial checksum counts from the new first byte', () => {
    const { frames, p } = load(packet, 1);
    const m = p.slot * META_WORDS;
    frames.meta[m + META_CSUM] = 34 | (6 << 16);
    writeLink(p, frames, dst[0], dst[1], src[0], src[1], 5);
    expect(frames.meta[m + META_CSUM]).toBe(38 | (6 << 16));
  });
});
