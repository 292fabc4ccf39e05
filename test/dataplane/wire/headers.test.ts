/** Ethernet, IPv4, IPv6, ICMP, UDP and TCP headers: accessors against built packets, emit against the builders. */
import { describe, expect, test } from 'vitest';
import { swap16 } from '../../../dataplane/wire/bytes.ts';
import { pseudo4, pseudo6, sum16 } from '../../../dataplane/wire/checksum.ts';
import * as ethernet from '../../../dataplane/wire/ethernet.ts';
import * as icmp from '../../../dataplane/wire/icmp.ts';
import * as icmpv6 from '../../../dataplane/wire/icmpv6.ts';
import * as ipv4 from '../../../dataplane/wire/ipv4.ts';
import * as ipv6 from '../../../dataplane/wire/ipv6.ts';
import * as tcp from '../../../dataplane/wire/tcp.ts';
import * as udp from '../../../dataplane/wire/udp.ts';
import * as build from '../../lib/build.ts';

/** Bytes at offset 7 of a larger array: nothing may depend on where a packet lies. */
function shifted(bytes: Uint8Array): { u8: Uint8Array; off: number; len: number } {
  const u8 = new Uint8Array(bytes.length + 11).fill(0xee);
  u8.set(bytes, 7);
  return { u8, off: 7, len: bytes.length };
}

describe('ethernet', () => {
  test('reads and writes an untagged header', () => {
    const frame = build.ethernet({ src: '02:00:00:00:00:01', dst: '02:aa:bb:cc:dd:fe', type: 0x0806 }, 'x');
    const { u8, off, len } = shifted(frame);
    expect(ethernet.check(u8, off, len)).toBe(true);
    expect(ethernet.check(u8, off, 13)).toBe(false);
    expect(ethernet.text(u8, off)).toBe('02:00:00:00:00:01 > 02:aa:bb:cc:dd:fe type 0x0806');
    const copy = new Uint8Array(frame.length);
    const at = ethernet.emit(
      copy,
      0,
      ethernet.dstLo(u8, off),
      ethernet.dstHi(u8, off),
      ethernet.srcLo(u8, off),
      ethernet.srcHi(u8, off),
      ethernet.TYPE_ARP,
    );
    expect(at).toBe(14);
    expect(build.toHex(copy.subarray(0, 14))).toBe(build.toHex(frame.subarray(0, 14)));
  });

  test('writes an 802.1Q tag', () => {
    const frame = build.ethernet(
      { src: '02:00:00:00:00:01', dst: 'ff:ff:ff:ff:ff:ff', type: 0x86dd, vlan: 0x2064 },
      '',
    );
    const copy = new Uint8Array(18);
    const [lo, hi] = [ethernet.srcLo(frame, 0), ethernet.srcHi(frame, 0)];
    expect(ethernet.emit(copy, 0, ethernet.BROADCAST_LO, ethernet.BROADCAST_HI, lo, hi, 0x86dd, 0x2064)).toBe(18);
    expect(build.toHex(copy)).toBe(build.toHex(frame));
    expect(ethernet.tci(copy, 0)).toBe(0x2064);
  });

  test('a station is neither a group nor zero', () => {
    expect(ethernet.isStation(0x0002, 0)).toBe(true);
    expect(ethernet.isStation(0x0001, 0)).toBe(false);
    expect(ethernet.isStation(ethernet.BROADCAST_LO, ethernet.BROADCAST_HI)).toBe(false);
    expect(ethernet.isStation(0, 0)).toBe(false);
  });
});

describe('RFC 791', () => {
  const packet = build.ipv4(
    { src: '10.1.2.3', dst: '255.254.253.252', tos: 0xb8, id: 0x1234, ttl: 7, more: true, offset: 1480 },
    build.udp({ sport: 1, dport: 2 }, 'hello'),
  );

  test('fields', () => {
    const { u8, off, len } = shifted(packet);
    expect(ipv4.check(u8, off, len)).toBe(true);
    expect(ipv4.text(u8, off)).toBe('10.1.2.3 > 255.254.253.252 proto 17 ttl 7 length 33');
    expect(ipv4.tos(u8, off)).toBe(0xb8);
    expect(ipv4.id(u8, off)).toBe(0x3412);
    expect(ipv4.fragmentWord(u8, off)).toBe(ipv4.MORE_FRAGMENTS | 185);
    expect(ipv4.fragmentOffset(u8, off)).toBe(1480);
    expect(ipv4.isFragment(u8, off)).toBe(true);
    expect(ipv4.checksumOk(u8, off)).toBe(true);
    u8[off + 8]--;
    expect(ipv4.checksumOk(u8, off)).toBe(false);
  });

  test('emit writes the same header', () => {
    const out = new Uint8Array(20);
    const fragment = ipv4.fragmentWord(packet, 0);
    ipv4.emit(out, 0, 0xb8, packet.length, 0x3412, fragment, 7, 17, ipv4.src(packet, 0), ipv4.dst(packet, 0));
    expect(build.toHex(out)).toBe(build.toHex(packet.subarray(0, 20)));
  });

  test.each([
    ['version 5', { version: 5 }],
    ['header of 16 bytes', { ihl: 4 }],
    ['header longer than the packet', { ihl: 15 }],
    ['total length below the header', { totalLength: 19 }],
    ['total length past the frame', { totalLength: 34 }],
  ])('check refuses %s', (_name, override) => {
    const bad = build.ipv4(
      { src: '10.1.2.3', dst: '10.0.0.1', ...override },
      build.udp({ sport: 1, dport: 2 }, 'hello'),
    );
    expect(ipv4.check(bad, 0, bad.length)).toBe(false);
  });

  test('check refuses a cut header, accepts padding', () => {
    const { u8, off } = shifted(packet);
    expect(ipv4.check(u8, off, 19)).toBe(false);
    expect(ipv4.check(u8, off, packet.length + 4)).toBe(true);
  });

  test('RFC 1122 §3.2.1.3: which addresses one host can have', () => {
    const raw = (text: string) => ipv4.src(build.ipv4({ src: text, dst: '1.1.1.1' }, ''), 0);
    for (const good of ['10.0.0.1', '1.0.0.0', '223.255.255.255', '128.0.0.1'])
      expect(ipv4.isUnicast(raw(good))).toBe(true);
    for (const bad of ['0.0.0.0', '0.1.2.3', '127.0.0.1', '224.0.0.1', '240.0.0.1', '255.255.255.255'])
      expect(ipv4.isUnicast(raw(bad))).toBe(false);
    expect(ipv4.isMulticast(raw('239.1.1.1'))).toBe(true);
    expect(ipv4.isMulticast(raw('240.1.1.1'))).toBe(false);
  });
});

describe('RFC 8200', () => {
  const packet = build.ipv6(
    { src: '2001:db8::1', dst: 'fe80::2', tclass: 0xb8, flow: 0xabcde, hop: 3 },
    build.udp({ sport: 5, dport: 6 }, 'data'),
  );

  test('fields and emit', () => {
    const { u8, off, len } = shifted(packet);
    expect(ipv6.check(u8, off, len)).toBe(true);
    expect(ipv6.check(u8, off, len - 1)).toBe(false);
    expect(ipv6.text(u8, off)).toBe('2001:db8::1 > fe80::2 next 17 hop 3 length 12');
    expect(ipv6.trafficClass(u8, off)).toBe(0xb8);
    expect(ipv6.flowLabel(u8, off)).toBe(0xabcde);
    const out = new Uint8Array(40);
    ipv6.emit(out, 0, 0xb8, 0xabcde, 12, 17, 3);
    const w = (n: number) => (n < 4 ? ipv6.src(u8, off, n) : ipv6.dst(u8, off, n - 4));
    ipv6.setAddress(out, ipv6.SRC, w(0), w(1), w(2), w(3));
    ipv6.setAddress(out, ipv6.DST, w(4), w(5), w(6), w(7));
    expect(build.toHex(out)).toBe(build.toHex(packet.subarray(0, 40)));
  });

  test('address kinds', () => {
    const word = (text: string) => ipv6.src(build.ipv6({ src: text, dst: '::' }, ''), 0, 0);
    expect(['fe80::1', 'febf::1', 'fec0::1', 'fe7f::1', 'ff02::1'].map((a) => ipv6.isLinkLocal(word(a)))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
    expect(ipv6.isMulticast(word('ff0e::1'))).toBe(true);
    const four = (text: string) => {
      const p = build.ipv6({ src: text, dst: '::' }, '');
      return [0, 1, 2, 3].map((n) => ipv6.src(p, 0, n)) as [number, number, number, number];
    };
    expect(ipv6.isLoopback(...four('::1'))).toBe(true);
    expect(ipv6.isLoopback(...four('1::1'))).toBe(false);
    expect(ipv6.isSolicitedNode(...four('ff02::1:ff12:3456'))).toBe(true);
    expect(ipv6.isSolicitedNode(...four('ff02::1:fe12:3456'))).toBe(false);
    expect(ipv6.isSolicitedNode(...four('ff02::1'))).toBe(false);
  });

  test('the walk goes through every extension header to the transport', () => {
    const upper = ipv6.newUpper();
    const ext = [
      build.hopByHop(),
      build.destinationOptions(build.hex('010c 000000000000000000000000')),
      build.routing({ type: 0, left: 0 }),
      build.authentication({ spi: 1, seq: 2, icv: new Uint8Array(12) }),
      build.fragmentHeader({ offset: 0, more: true, id: 9 }),
    ];
    const long = build.ipv6({ src: '::1', dst: '::2', ext }, build.udp({ sport: 5, dport: 6 }, 'data'));
    const { u8, off, len } = shifted(long);
    expect(ipv6.walk(u8, off, off + len, upper)).toBe(true);
    expect(upper.proto).toBe(17);
    expect(udp.dstPort(u8, upper.at)).toBe(6);
    expect(u8[upper.protoAt]).toBe(17);
    expect(upper.fragment).toBe(upper.at - 8);
    // Cut anywhere inside the chain: refused, never read past.
    for (let cut = 41; cut < upper.at - off; cut++) {
      const ok = ipv6.walk(u8, off, off + cut, ipv6.newUpper());
      expect(ok, `cut at ${cut}`).toBe(false);
    }
  });

  test('a later fragment ends at its header; the chain is bounded', () => {
    const upper = ipv6.newUpper();
    const later = build.ipv6(
      { src: '::1', dst: '::2', ext: [build.fragmentHeader({ offset: 8, more: false, id: 9 })], next: 17 },
      'x',
    );
    expect(ipv6.walk(later, 0, later.length, upper)).toBe(true);
    expect([upper.proto, upper.at, upper.fragment]).toEqual([ipv6.FRAGMENT, 40, 40]);
    const many = build.ipv6(
      { src: '::1', dst: '::2', ext: Array.from({ length: 9 }, () => build.destinationOptions()) },
      'x',
    );
    expect(ipv6.walk(many, 0, many.length, upper)).toBe(false);
  });
});

describe('RFC 792 and RFC 4443', () => {
  test('echo over both families', () => {
    const v4 = build.ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, build.icmp({ type: 8, id: 0x1234, seq: 7 }, 'ping!'));
    expect(icmp.check(v4, 20, v4.length - 20)).toBe(true);
    expect(icmp.checksumOk(v4, 20, v4.length)).toBe(true);
    expect(icmp.text(v4, 20)).toBe('icmp type 8 code 0 id 4660 seq 7');
    expect(icmp.identifier(v4, 20)).toBe(0x3412);
    const v6 = build.ipv6({ src: 'fe80::1', dst: 'fe80::2' }, build.icmpv6({ type: 128, id: 0x1234, seq: 7 }, 'ping!'));
    expect(icmpv6.checksumOk(v6, 0, 40, v6.length)).toBe(true);
    expect(icmpv6.text(v6, 40)).toBe('icmpv6 type 128 code 0 id 4660 seq 7');
    v6[9] ^= 1; // an address: part of the pseudo-header
    expect(icmpv6.checksumOk(v6, 0, 40, v6.length)).toBe(false);
    const sent = build.toHex(v4);
    icmp.emit(v4, 20, 8, 0, icmp.rest(v4, 20));
    icmp.finish(v4, 20, v4.length);
    expect(build.toHex(v4)).toBe(sent);
  });

  test('errors are those that quote', () => {
    expect([0, 3, 4, 5, 8, 11, 12, 13, 17].filter(icmp.isError)).toEqual([3, 4, 5, 11, 12]);
    expect([1, 2, 3, 4, 127, 128, 135].filter(icmpv6.isError)).toEqual([1, 2, 3, 4, 127]);
    const tooBig = build.ipv6({ src: '::1', dst: '::2' }, build.icmpv6({ type: 2, mtu: 1280 }));
    expect(icmpv6.mtu(tooBig, 40)).toBe(1280);
    const needed = build.ipv4({ src: '1.1.1.1', dst: '2.2.2.2' }, build.icmp({ type: 3, code: 4, mtu: 1400 }));
    expect(icmp.mtu(needed, 20)).toBe(1400);
  });
});

describe('RFC 768', () => {
  test('checksums of both families, finish restores them', () => {
    const random = new build.Random(768);
    for (let round = 0; round < 200; round++) {
      const body = random.bytes(random.int(0, 50));
      const v4 = build.ipv4({ src: random.bytes(4), dst: random.bytes(4) }, build.udp({ sport: 9, dport: 10 }, body));
      const length = v4.length - 20;
      const p4 = pseudo4(ipv4.src(v4, 0), ipv4.dst(v4, 0), 17, length);
      expect(udp.check(v4, 20, length)).toBe(true);
      expect(udp.checksumOk(v4, 20, p4)).toBe(true);
      const sent = build.toHex(v4);
      udp.emit(v4, 20, 9, 10, length);
      expect(udp.hasChecksum(v4, 20)).toBe(false);
      expect(udp.checksumOk(v4, 20, p4)).toBe(true);
      udp.finish(v4, 20, p4);
      expect(build.toHex(v4)).toBe(sent);
      v4[27] ^= 0x10;
      expect(udp.checksumOk(v4, 20, p4)).toBe(false);
    }
  });

  test('a computed zero is sent as all ones', () => {
    const u8 = new Uint8Array(10);
    udp.emit(u8, 0, 0, 0, 10);
    // The last word makes the sum ffff.
    const rest = ~sum16(u8, 0, 8, 0x1100) & 0xffff;
    u8[8] = rest;
    u8[9] = rest >> 8;
    udp.finish(u8, 0, 0x1100);
    expect(swap16(u8[6] | (u8[7] << 8))).toBe(0xffff);
    expect(udp.checksumOk(u8, 0, 0x1100)).toBe(true);
  });

  test.each([
    ['length below 8', 7, 13],
    ['length past the packet', 14, 13],
    ['cut header', 8, 7],
  ])('check refuses %s', (_name, length, len) => {
    const u8 = new Uint8Array(16);
    udp.emit(u8, 0, 1, 2, length);
    expect(udp.check(u8, 0, len)).toBe(false);
  });
});

describe('RFC 9293', () => {
  const segment = build.ipv6(
    { src: '2001:db8::1', dst: '2001:db8::2' },
    build.tcp({
      sport: 1024,
      dport: 80,
      seq: 0xfffffff0,
      ack: 2,
      flags: 'SA',
      options: { mss: 1460, wscale: 7, sackPermitted: true },
    }),
  );

  test('fields, checksum and options', () => {
    const { u8, off, len } = shifted(segment);
    const l4 = off + 40;
    const end = off + len;
    expect(tcp.check(u8, l4, end - l4)).toBe(true);
    expect(tcp.text(u8, l4)).toMatch(/^tcp 1024 > 80 SA seq 4294967280 ack 2 win \d+$/);
    const w = (n: number) => (n < 4 ? ipv6.src(u8, off, n) : ipv6.dst(u8, off, n - 4));
    const pseudo = pseudo6(w(0), w(1), w(2), w(3), w(4), w(5), w(6), w(7), 6, end - l4);
    expect(tcp.checksumOk(u8, l4, end, pseudo)).toBe(true);
    const mss = tcp.option(u8, l4, tcp.OPTION_MSS, 4);
    expect([u8[mss + 2], u8[mss + 3]]).toEqual([1460 >> 8, 1460 & 255]);
    expect(u8[tcp.option(u8, l4, tcp.OPTION_WINDOW_SCALE, 3) + 2]).toBe(7);
    expect(tcp.option(u8, l4, tcp.OPTION_SACK_PERMITTED, 2)).toBeGreaterThan(0);
    expect(tcp.option(u8, l4, tcp.OPTION_TIMESTAMPS, 10)).toBe(-1);
    const sent = build.toHex(u8);
    tcp.emit(u8, l4, 1024, 80, -16, 2, tcp.SYN | tcp.ACK, tcp.window(u8, l4), tcp.headerLength(u8, l4) - 20);
    tcp.finish(u8, l4, end, pseudo);
    expect(build.toHex(u8)).toBe(sent);
  });

  test('check refuses a data offset below 5 or past the segment', () => {
    const u8 = segment.slice();
    expect(tcp.check(u8, 40, 19)).toBe(false);
    u8[52] = 0x40;
    expect(tcp.check(u8, 40, u8.length - 40)).toBe(false);
    u8[52] = 0xf0;
    expect(tcp.check(u8, 40, 59)).toBe(false);
  });

  test('the option walk ends at malformed options and at the header, whatever is there', () => {
    const random = new build.Random(9293);
    const u8 = new Uint8Array(80);
    for (let round = 0; round < 5000; round++) {
      u8.set(random.bytes(80));
      for (let n = 20; n < 60; n++) if (random.chance(0.5)) u8[n] = random.int(0, 8);
      u8[12] = random.int(5, 15) << 4;
      for (const kind of [2, 3, 4, 5, 8]) {
        const at = tcp.option(u8, 0, kind, 0);
        if (at < 0) continue;
        expect(u8[at]).toBe(kind);
        expect(at + u8[at + 1]).toBeLessThanOrEqual(tcp.headerLength(u8, 0));
      }
    }
    u8.set([3, 0, 2, 4], 20); // length 0: everything behind it is lost
    u8[12] = 0xf0;
    expect(tcp.option(u8, 0, 2, 4)).toBe(-1);
  });
});
