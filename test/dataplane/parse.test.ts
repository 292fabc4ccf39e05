/** ip-parse fills the packet's view right, wherever in memory the frame lies, and never looks behind its end. */
import { describe, expect, it } from 'vitest';
import { REASONS } from '../../dataplane/drop.ts';
import { Frames, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { parseIp } from '../../dataplane/parse.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import * as B from '../lib/build.ts';

/** Parses a packet; everything around it in the slot is filled with `around`. */
function parse(packet: Uint8Array, around = 0, p = new Packet()): { p: Packet; reason: number; l3: number } {
  const frames = new Frames(1, 0);
  const slot = frames.alloc(100);
  const l3 = frames.meta[slot * META_WORDS + META_OFF] + 14;
  frames.u8.fill(around);
  frames.u8.set(packet, l3);
  p.slot = slot;
  p.l3 = l3;
  p.family = packet[0] >> 4;
  p.flags = 0;
  p.gsoType = 0;
  return { p, reason: parseIp(p, frames, l3 + packet.length), l3 };
}
const raw = (address: string, word = 0) => {
  const b = B.ip(address).subarray(4 * word);
  return b[0] | (b[1] << 8) | (b[2] << 16) | (b[3] << 24);
};
const swap = (port: number) => ((port & 0xff) << 8) | (port >> 8);

describe('what is read', () => {
  it('IPv4 with options, TCP', () => {
    const packet = B.ipv4(
      { src: '192.0.2.1', dst: '198.51.100.2', ttl: 17, tos: 0xb8, id: 0x1234, df: true, options: B.hex('94040000') },
      B.tcp({ sport: 4660, dport: 80, flags: 'SF' }, 'data'),
    );
    const { p, reason, l3 } = parse(B.concat(packet, new Uint8Array(6)));
    expect(reason).toBe(0);
    expect(p).toMatchObject({
      proto: 6,
      ttl: 17,
      tos: 0xb8,
      dontFragment: 1,
      hasOptions: 1,
      isFragment: 0,
      tcpFlags: 3,
    });
    expect([p.l4 - l3, p.end - l3, p.protoAt - l3]).toEqual([24, packet.length, 9]);
    expect([p.s0, p.d0, p.rs0, p.rd0]).toEqual([
      raw('192.0.2.1'),
      raw('198.51.100.2'),
      raw('192.0.2.1'),
      raw('198.51.100.2'),
    ]);
    expect(p.ports).toBe(swap(4660) | (swap(80) << 16));
  });

  it('IPv6 with a chain: the last header, and where its number stands', () => {
    const packet = B.ipv6(
      { src: '2001:db8::1', dst: '2001:db8::2', hop: 9, tclass: 0xb8, ext: [B.hopByHop(), B.destinationOptions()] },
      B.udp({ sport: 1, dport: 2 }, 'x'),
    );
    const { p, reason, l3 } = parse(packet);
    expect(reason).toBe(0);
    expect(p).toMatchObject({ proto: 17, ttl: 9, tos: 0xb8, hasOptions: 1, isFragment: 0 });
    expect([p.l4 - l3, p.protoAt - l3]).toEqual([56, 48]);
    expect([p.s0, p.s3, p.d3]).toEqual([raw('2001:db8::1'), raw('2001:db8::1', 3), raw('2001:db8::2', 3)]);
  });

  it.each([
    ['echo', B.icmp({ type: 8, id: 0x0102, seq: 9 }, 'x'), 0x00080201],
    ['timestamp', B.icmp({ type: 13, id: 0x0102, seq: 9 }, new Uint8Array(12)), 0x000d0201],
  ])('ICMP %s: identifier, type and code are the ports', (_, segment, ports) => {
    expect(parse(B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, segment)).p.ports).toBe(ports);
  });

  it('fragments: offset, more, identification; a later one has no ports', () => {
    const whole = B.ipv4(
      { src: '10.0.0.1', dst: '10.0.0.2', id: 0xbeef },
      B.udp({ sport: 1, dport: 2 }, new Uint8Array(900)),
    );
    const [first, second] = B.fragment4(whole, 500).map((part) => parse(part).p);
    expect(first).toMatchObject({ isFragment: 1, fragOffset: 0, fragMore: 1, fragId: swap(0xbeef) });
    expect(second).toMatchObject({ isFragment: 1, fragOffset: 480, ports: 0 });
    const six = B.ipv6({ src: '2001:db8::1', dst: '2001:db8::2' }, B.udp({ sport: 1, dport: 2 }, new Uint8Array(900)));
    const parts = B.fragment6(six, 500, 0x01020304).map((part) => parse(part).p);
    expect(parts[0]).toMatchObject({ isFragment: 1, fragOffset: 0, fragMore: 1, fragId: 0x04030201 });
    expect(parts[1]).toMatchObject({ isFragment: 1, fragOffset: 448, proto: 17 });
  });

  it('nothing of the packet before: one view serves all', () => {
    const p = new Packet();
    parse(
      B.ipv6(
        { src: '2001:db8::1', dst: '2001:db8::2', ext: [B.fragmentHeader({ offset: 64, more: true, id: 1 })] },
        'x',
      ),
      0,
      p,
    );
    parse(B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2', proto: 99 }, 'x'), 0, p);
    expect(p).toMatchObject({
      ports: 0,
      tcpFlags: 0,
      isFragment: 0,
      fragOffset: 0,
      fragMore: 0,
      hasOptions: 0,
      s1: 0,
      d3: 0,
      errorType: 0,
    });
  });
});

it('what lies behind the frame never changes the verdict or the view (seed 7)', () => {
  const random = new B.Random(7);
  const bases = [
    B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2', options: B.hex('94040000') }, B.tcp({ sport: 1, dport: 2, flags: 'S' })),
    B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, B.udp({ sport: 1, dport: 2 }, 'data')),
    B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, B.grePptp({ callId: 7, seq: 1 }, 'ppp')),
    B.ipv6(
      { src: '2001:db8::1', dst: '2001:db8::2', ext: [B.hopByHop(), B.routing({ type: 3, left: 0 })] },
      B.udp({ sport: 1, dport: 2 }, 'x'),
    ),
    B.ipv6(
      { src: '2001:db8::1', dst: '2001:db8::2', ext: [B.authentication({ spi: 1, seq: 1 })] },
      B.icmpv6({ type: 128 }),
    ),
  ];
  const seen = new Set<number>();
  for (let n = 0; n < 20_000; n++) {
    const packet = random.pick(bases).slice();
    for (let k = random.int(1, 3); k > 0; k--) packet[random.int(0, packet.length - 1)] = random.int(0, 255);
    packet[0] = (packet[0] & 15) | (random.chance(0.5) ? 0x40 : 0x60);
    const cut = packet.subarray(0, random.int(1, packet.length));
    // Lengths that fit what is left, so that the headers behind are reached.
    if (cut.length >= 40 && random.chance(0.8)) {
      if (cut[0] >> 4 === 6) B.put16(cut, 4, cut.length - 40);
      else {
        B.put16(cut, 2, cut.length);
        B.put16(cut, 10, 0);
        B.put16(cut, 10, B.checksum(cut.subarray(0, Math.min(cut.length, (cut[0] & 15) * 4))));
      }
    }
    const p = new Packet();
    const [zeros, ones] = [parse(cut, 0), parse(cut, 0xff)];
    expect(ones.reason).toBe(zeros.reason);
    expect(ones.reason).toBeLessThan(REASONS.length);
    if (ones.reason === 0) expect({ ...ones.p }).toEqual({ ...zeros.p });
    expect(p.slot).toBe(0);
    seen.add(zeros.reason);
  }
  expect(seen.size).toBeGreaterThan(6);
});
