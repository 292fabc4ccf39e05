/** The frame builders and the naive checker, against vectors that others made. */
import { describe, expect, it } from 'vitest';
import * as b from './build.ts';

const MACS = { src: '02:00:00:00:00:01', dst: '02:00:00:00:00:02' };
const V4 = { src: '192.0.2.1', dst: '198.51.100.2' };
const V6 = { src: '2001:db8::1', dst: '2001:db8:0:1::2' };

describe('builders against published vectors', () => {
  it('RFC 1071 §3: the example words sum to ddf2', () => {
    expect(b.checksum(b.hex('0001 f203 f4f5 f6f7'))).toBe(~0xddf2 & 0xffff);
  });

  it('the IPv4 header of RFC 1071 textbooks: checksum b861', () => {
    const p = b.ipv4({ src: '192.168.0.1', dst: '192.168.0.199', proto: 17, df: true, totalLength: 0x73 }, '');
    expect(b.toHex(p)).toBe('4500007300004000' + '4011b861' + 'c0a80001' + 'c0a800c7');
  });

  it('CRC32c: RFC 3720 appendix B.4, 32 bytes of zeros, ones and counting', () => {
    expect(b.crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(b.crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
    expect(b.crc32c(Uint8Array.from({ length: 32 }, (_, n) => n))).toBe(0x46dd794e);
  });

  it('RFC 5952 text forms', () => {
    for (const [long, short] of [
      ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
      ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
      ['0:0:0:0:0:0:0:0', '::'],
      ['fe80:0:0:0:0:0:0:1', 'fe80::1'],
      ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ])
      expect(b.ipText(b.ip(long))).toBe(short);
    expect(() => b.ip('1.2.3')).toThrow('bad address');
    expect(() => b.ip('1:2:3')).toThrow('bad address');
  });

  it('EUI-64 of RFC 4291 appendix A: the universal/local bit is inverted', () => {
    expect(b.eui64(b.ip('fe80::'), b.mac('34:56:78:9a:bc:de'))).toBe('fe80::3656:78ff:fe9a:bcde');
  });
});

/** One good frame of every kind. */
function zoo(random: b.Random): { name: string; frame: Uint8Array }[] {
  const data = () => random.bytes(random.int(0, 60));
  const ports = () => ({ sport: random.int(1, 65535), dport: random.int(1, 65535) });
  const segments: [string, () => b.Segment][] = [
    ['udp', () => b.udp(ports(), data())],
    [
      'tcp',
      () =>
        b.tcp(
          {
            ...ports(),
            seq: random.next(),
            ack: random.next(),
            flags: random.next() & 255,
            options: { mss: 1460, wscale: 7, sackPermitted: true, timestamps: [1, 2], sack: [[3, 4]] },
          },
          data(),
        ),
    ],
    ['udp-lite', () => b.udpLite({ ...ports(), coverage: 8 }, data())],
    ['sctp', () => b.sctp({ ...ports(), tag: random.next() }, b.sctpChunk(0, 3, data()))],
    ['gre', () => b.gre({ protocol: 0x6558, key: 1, seq: 2, checksum: true }, data())],
    ['gre pptp', () => b.grePptp({ callId: 7, seq: 1, ack: 2 }, data())],
  ];
  const inner4 = () => b.ipv4(V4, b.udp(ports(), data()));
  const inner6 = () => b.ipv6(V6, b.udp(ports(), data()));
  const out: { name: string; frame: Uint8Array }[] = [];
  const add = (name: string, packet: Uint8Array, vlan?: number[]) =>
    out.push({ name, frame: b.ethernet({ ...MACS, vlan }, packet) });
  for (const [name, make] of segments) {
    add(
      `${name} over ipv4`,
      b.ipv4(
        { ...V4, id: random.int(0, 65535), options: random.chance(0.5) ? b.hex('94040000 01') : undefined },
        make(),
      ),
    );
    add(
      `${name} over ipv6`,
      b.ipv6({ ...V6, ext: [b.hopByHop(b.hex('05020000')), b.destinationOptions()] }, make()),
      [5, 6],
    );
  }
  add('icmp echo', b.ipv4(V4, b.icmp({ type: 8, id: 1, seq: 2 }, data())));
  add('icmp error', b.ipv4(V4, b.icmp({ type: 3, code: 4, mtu: 1280 }, inner4())));
  add('icmp error cut', b.ipv4(V4, b.icmp({ type: 11 }, inner4().subarray(0, 28))));
  add('icmpv6 echo', b.ipv6(V6, b.icmpv6({ type: 128, id: 1, seq: 2 }, data())));
  add('icmpv6 error', b.ipv6(V6, b.icmpv6({ type: 2, mtu: 1280 }, inner6())));
  add('6in4', b.ipv4({ ...V4, proto: 41 }, inner6()));
  add('ipip', b.ipv4({ ...V4, proto: 4 }, inner4()));
  add('udp none', b.ipv4(V4, b.udp({ ...ports(), checksum: 0 }, data())));
  out.push({
    name: 'arp',
    frame: b.ethernet({ ...MACS, type: 0x0806 }, b.arp({ op: 'request', sha: MACS.src, spa: V4.src, tpa: V4.dst })),
  });
  const big4 = b.ipv4({ ...V4, id: 77 }, b.udp(ports(), random.bytes(3000)));
  const big6 = b.ipv6(V6, b.udp(ports(), random.bytes(3000)));
  for (const f of b.fragment4(big4, 1400)) add('ipv4 fragment', f);
  for (const f of b.fragment6(big6, 1400, 99)) add('ipv6 fragment', f);
  return out;
}

describe('verify', () => {
  it('finds nothing wrong in what the builders make', () => {
    for (let seed = 1; seed <= 40; seed++)
      for (const { name, frame } of zoo(new b.Random(seed)))
        expect(b.verify(frame), `${name}, seed ${seed}`).toEqual([]);
  });

  it('notices every single flipped bit of a packet whose every byte is covered by a checksum', () => {
    const segment = b.tcp({ sport: 1000, dport: 80, seq: 5, flags: 'PA' }, 'hello');
    const v4 = b.ethernet(MACS, b.ipv4(V4, segment));
    for (let bit = 14 * 8; bit < v4.length * 8; bit++) {
      const bad = v4.slice();
      bad[bit >> 3] ^= 1 << (bit & 7);
      expect(b.verify(bad), `bit ${bit}`).not.toEqual([]);
    }
  });

  it('names a wrong checksum inside the quote of an ICMP error, though the outer one is right', () => {
    const quoted = b.ipv4(V4, b.udp({ sport: 1, dport: 2 }, 'x'));
    quoted[15] ^= 1;
    expect(b.verify(b.ethernet(MACS, b.ipv4(V4, b.icmp({ type: 3 }, quoted))))).toEqual([
      expect.stringContaining('ipv4 icmp quote: header checksum'),
      expect.stringContaining('ipv4 icmp quote udp: checksum'),
    ]);
  });

  it('UDP checksum zero: fine over IPv4, reported over IPv6 unless allowed', () => {
    const frame = b.ethernet(MACS, b.ipv6(V6, b.udp({ sport: 1, dport: 2, checksum: 0 })));
    expect(b.verify(frame)).toEqual(['ipv6 udp: checksum zero over IPv6']);
    expect(b.verify(frame, { zeroUdp6: true })).toEqual([]);
  });

  it('padding after the datagram is no problem; a datagram longer than the frame is', () => {
    const packet = b.ipv4(V4, b.udp({ sport: 1, dport: 2 }));
    expect(b.verify(b.ethernet(MACS, b.concat(packet, new Uint8Array(18))))).toEqual([]);
    expect(b.verify(b.ethernet(MACS, packet.subarray(0, 27)))).toEqual([expect.stringContaining('total length 28')]);
  });
});
