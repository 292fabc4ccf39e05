/**
 * RFC 4787, NAT behavioral requirements for unicast UDP, requirement by requirement. Fragments (REQ-13, 14) are in the
 * tests of reassembly, ALGs (REQ-10) in those of the configuration; docs/nat.md has the whole table.
 */
import { describe, expect, it } from 'vitest';
import { addressOf, datagram, dissect, LAN_MAC, macOf, portOf, World } from '../conntrack/nat-world.ts';
import { concat, icmp, ipv4, udp } from '../lib/build.ts';

const A = '192.168.1.10:4000';
const B = '192.168.1.11:4000';
const S1 = '198.51.100.1:3478';
const S2 = '198.51.100.2:3478';

describe('RFC 4787 §4 address and port mapping', () => {
  it('REQ-1: endpoint-independent mapping: one outside endpoint for all destinations', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.out(A, S1);
    for (const to of [S2, '198.51.100.1:1', '192.0.2.77:65535']) expect(world.out(A, to)).toBe(seen);
    expect(world.mappings).toBe(1);
  });

  it('REQ-2: paired pooling: every session of a host has the same outside address, of several', () => {
    const world = new World({ profile: 'full-cone', masquerade: [{ out: 'wan', to: '203.0.113.16/28' }] });
    const used = new Set<string>();
    for (let host = 10; host < 50; host++) {
      const seen = [1000, 2000, 3000].map((port) => addressOf(world.out(`192.168.1.${host}:${port}`, S1)!));
      expect(new Set(seen).size).toBe(1);
      used.add(seen[0]);
    }
    expect(used.size).toBeGreaterThan(8);
  });

  it('REQ-3: no port overloading: two hosts’ same source port gets two outside ports, towards one server and two', () => {
    const world = new World({ profile: 'full-cone' });
    const a = world.out(A, S1)!;
    const b = world.out(B, S2)!;
    expect(portOf(a)).toBe(4000);
    expect(b).not.toBe(a);
    expect(world.in(S1, a)).toBe(A);
    expect(world.in(S1, b)).toBe(B);
  });

  it('REQ-3a: a well-known source port stays in 0–1023, also when its own number is taken', () => {
    const world = new World({ profile: 'full-cone' });
    expect(portOf(world.out('192.168.1.10:500', S1)!)).toBe(500);
    for (let host = 11; host < 30; host++) {
      const port = portOf(world.out(`192.168.1.${host}:500`, S1)!);
      expect(port).toBeLessThan(1024);
    }
    for (let host = 10; host < 30; host++)
      expect(portOf(world.out(`192.168.1.${host}:40000`, S1)!)).toBeGreaterThan(1023);
  });

  it('REQ-4: port parity: an even port for an even one, an odd one for an odd one', () => {
    const world = new World({ profile: 'full-cone' });
    for (let host = 10; host < 40; host++)
      for (const port of [5004, 5005, 7001])
        expect(portOf(world.out(`192.168.1.${host}:${port}`, S1)!) & 1).toBe(port & 1);
  });

  it('§4.2.3: contiguity where it can be had: RTCP is one above its RTP', () => {
    const world = new World({ profile: 'full-cone' });
    let beside = 0;
    for (let host = 10; host < 40; host++) {
      const rtp = portOf(world.out(`192.168.1.${host}:5004`, S1)!);
      const rtcp = portOf(world.out(`192.168.1.${host}:5005`, S1)!);
      if (rtcp === rtp + 1) beside++;
    }
    expect(beside).toBeGreaterThan(28);
  });
});

describe('RFC 4787 §4.3 mapping refresh', () => {
  it('REQ-5: a mapping does not end in two minutes, and by default not in five (REQ-5c)', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.out(A, S1)!;
    world.wait(121);
    expect(world.in(S2, seen)).toBe(A);
    world.wait(178);
    expect(world.out(A, S1)).toBe(seen);
  });

  it('REQ-5: also with filtering by endpoint, the far end’s answer still gets in after two minutes', () => {
    const world = new World({ profile: 'port-restricted-cone' });
    const seen = world.out(A, S1)!;
    world.wait(119);
    expect(world.in(S1, seen)).toBe(A);
    world.wait(119);
    expect(world.in(S1, seen)).toBe(A);
  });

  it('REQ-5: it ends when its time is over; the port is free again', () => {
    const world = new World({ profile: 'full-cone', timeouts: { udp: 120 } });
    const seen = world.out(A, S1)!;
    world.wait(125);
    expect(world.in(S1, seen)).toBeNull();
    expect(world.mappings).toBe(0);
    expect(world.out(B, S1)).toBe(seen);
  });

  it('REQ-6: outbound packets refresh it', () => {
    const world = new World({ profile: 'full-cone', timeouts: { udp: 120 } });
    const seen = world.out(A, S1)!;
    for (let n = 0; n < 10; n++) {
      world.wait(100);
      expect(world.out(A, S1)).toBe(seen);
    }
    world.wait(100);
    expect(world.in(S2, seen)).toBe(A);
  });

  it('REQ-6: inbound packets do not, unless configured (inbound-refresh)', () => {
    for (const configured of [false, true]) {
      const world = new World({ profile: 'full-cone', 'inbound-refresh': configured, timeouts: { udp: 120 } });
      const seen = world.out(A, S1)!;
      let arrived = 0;
      for (let n = 0; n < 10; n++) {
        world.wait(50);
        if (world.in(S1, seen) !== null) arrived++;
      }
      expect(arrived).toBe(configured ? 10 : 2);
    }
  });

  it('REQ-6: a mapping lives while any session of it lives', () => {
    const world = new World({ profile: 'full-cone', timeouts: { udp: 120 } });
    const seen = world.out(A, S1)!;
    for (let n = 0; n < 6; n++) {
      world.wait(60);
      world.out(A, S2);
    }
    expect(world.out(A, S1)).toBe(seen);
    expect(world.mappings).toBe(1);
  });
});

describe('RFC 4787 §5 filtering', () => {
  it('REQ-8: endpoint-independent filtering for transparency, address-dependent for more care: both can be had', () => {
    const open = new World({
      masquerade: [{ out: 'wan', mapping: 'endpoint-independent', filtering: 'endpoint-independent' }],
    });
    expect(open.in('192.0.2.9:9', open.out(A, S1)!)).toBe(A);
    const careful = new World({
      masquerade: [{ out: 'wan', mapping: 'endpoint-independent', filtering: 'address-dependent' }],
    });
    const seen = careful.out(A, S1)!;
    expect(careful.in('192.0.2.9:9', seen)).toBeNull();
    expect(careful.in(`${addressOf(S1)}:9`, seen)).toBe(A);
    expect(careful.dropped('NAT_FILTERED')).toBe(1);
  });

  it('REQ-8: a refused sender gets no answer', () => {
    const world = new World({ profile: 'restricted-cone' });
    const seen = world.out(A, S1)!;
    const { wan, lan } = world.fromOutside('192.0.2.9', addressOf(seen), datagram('192.0.2.9:9', seen));
    expect([wan, lan]).toEqual([[], []]);
  });
});

describe('RFC 4787 §6 hairpinning', () => {
  it('REQ-9, REQ-9a: a host inside reaches another by its mapped endpoint and is seen by its own', () => {
    const world = new World({ profile: 'full-cone' });
    const a = world.out(A, S1)!;
    const b = world.out(B, S1)!;
    const there = world.fromInside(addressOf(A), addressOf(b), datagram(A, b), 64);
    expect(there.wan).toEqual([]);
    expect(there.lan).toMatchObject([{ src: a, dst: B, ttl: 63 }]);
    const back = world.fromInside(addressOf(B), addressOf(a), datagram(B, a), 64);
    expect(back.lan).toMatchObject([{ src: b, dst: A, ttl: 63 }]);
    expect(world.router.conntrack.count).toBe(3);
    // The frame is addressed to the host, from the router (trap 7).
    const mac = (frame: Uint8Array, at: number) =>
      [...frame.subarray(at, at + 6)].map((x) => x.toString(16).padStart(2, '0')).join(':');
    expect(mac(there.lan[0].frame, 0)).toBe(macOf(addressOf(B)));
    expect(mac(there.lan[0].frame, 6)).toBe(LAN_MAC);
  });

  it('REQ-9: a host that has sent nothing yet gets its mapping by hairpinning', () => {
    const world = new World({ profile: 'restricted-cone' });
    const b = world.out(B, S1)!;
    const { lan } = world.fromInside(addressOf(A), addressOf(b), datagram(A, b));
    expect(lan).toMatchObject([{ src: '203.0.113.1:1024', dst: B }].map((x) => ({ dst: x.dst })));
    expect(addressOf(lan[0].src)).toBe('203.0.113.1');
    expect(world.out(A, S1)).toBe(lan[0].src);
  });

  it('REQ-9: a host reaches itself by its own outside endpoint', () => {
    const world = new World({ profile: 'full-cone' });
    const a = world.out(A, S1)!;
    const { lan } = world.fromInside(addressOf(A), addressOf(a), datagram(A, a));
    expect(lan).toMatchObject([{ src: a, dst: A }]);
  });

  it('hairpin: internal keeps the inside source; back to the sender itself that is a loop, and refused', () => {
    const world = new World({ profile: 'full-cone', hairpin: 'internal' });
    const a = world.out(A, S1)!;
    const b = world.out(B, S1)!;
    expect(world.fromInside(addressOf(A), addressOf(b), datagram(A, b)).lan).toMatchObject([{ src: A, dst: B }]);
    expect(world.fromInside(addressOf(A), addressOf(a), datagram(A, a)).lan).toEqual([]);
    expect(world.dropped('HAIRPIN_LOOP')).toBe(1);
  });

  it('hairpin: false leads nowhere', () => {
    const world = new World({ profile: 'full-cone', hairpin: false });
    const b = world.out(B, S1)!;
    expect(
      world.fromInside(addressOf(A), addressOf(b), datagram(A, b)).lan.filter((seen) => seen.proto === 17),
    ).toEqual([]);
  });

  it.each(['linux', 'full-cone', 'symmetric'])(
    'a forwarded port is reached from inside (%s), with the outside source',
    (profile) => {
      const forward = [{ in: 'wan', proto: 'udp', port: 8080, to: '192.168.1.11:80' }];
      const world = new World({ profile, forward });
      const there = world.fromInside('192.168.1.10', '203.0.113.1', datagram(A, '203.0.113.1:8080'));
      expect(there.lan).toMatchObject([{ dst: '192.168.1.11:80', ttl: 63 }]);
      const source = there.lan[0].src;
      expect(addressOf(source)).toBe('203.0.113.1');
      const back = world.fromInside('192.168.1.11', '203.0.113.1', datagram('192.168.1.11:80', source));
      expect(back.lan).toMatchObject([{ src: '203.0.113.1:8080', dst: A }]);
    },
  );

  it('an ICMP error about a hairpinned packet reaches its sender, about what it had sent', () => {
    const world = new World({ profile: 'full-cone' });
    const a = world.out(A, S1)!;
    const b = world.out(B, S1)!;
    const { lan } = world.fromInside(addressOf(A), addressOf(b), datagram(A, b));
    const quote = lan[0].frame.subarray(14, 14 + 28);
    const error = world.fromInside(addressOf(B), addressOf(a), icmp({ type: 3, code: 3 }, concat(quote)));
    expect(error.lan).toHaveLength(1);
    const seen = error.lan[0];
    expect(addressOf(seen.dst)).toBe(addressOf(A));
    expect(addressOf(seen.src)).toBe(addressOf(b));
    const inner = dissect(concat(new Uint8Array(14), ipv4Of(seen.l4.subarray(8))));
    expect([inner.src, inner.dst]).toEqual([A, b]);
  });
});

/** The quoted packet with the payload that the error has cut off. */
function ipv4Of(quote: Uint8Array): Uint8Array {
  const text = (at: number) => quote.subarray(at, at + 4).join('.');
  const port = (at: number) => (quote[at] << 8) | quote[at + 1];
  return ipv4({ src: text(12), dst: text(16), ttl: quote[8] }, udp({ sport: port(20), dport: port(22) }, 'x'));
}

describe('RFC 4787 §7 to §11', () => {
  it('REQ-11: deterministic: the same traffic is treated the same way, whatever else goes on', () => {
    for (const crowd of [0, 40]) {
      const world = new World({ profile: 'full-cone' });
      for (let n = 0; n < crowd; n++) world.out(`192.168.1.${12 + n}:4000`, S2);
      const first = world.out(A, S1)!;
      expect(world.out(A, S2)).toBe(first);
      expect(world.in('192.0.2.1:1', first)).toBe(A);
    }
  });

  it('REQ-12: an ICMP error ends no mapping and refreshes none', () => {
    const world = new World({ profile: 'full-cone', timeouts: { udp: 120 } });
    const seen = world.out(A, S1)!;
    const quote = ipv4({ src: addressOf(seen), dst: addressOf(S1) }, datagram(seen, S1)).subarray(0, 28);
    for (let n = 0; n < 2; n++) {
      world.wait(50);
      const { lan } = world.fromOutside('198.51.100.254', addressOf(seen), icmp({ type: 3, code: 1 }, quote));
      expect(lan).toHaveLength(1);
      expect(world.in(S2, seen)).toBe(A);
    }
    world.wait(25);
    expect(world.in(S2, seen)).toBeNull();
  });
});

describe('no port shadowing (CVE-2021-3773)', () => {
  it.each(['linux', 'full-cone', 'symmetric'])(
    '%s: a host inside never gets a port on which the router listens',
    (profile) => {
      const world = new World({ profile });
      world.router.tables.setService(17, 5353, true);
      const seen = world.out('192.168.1.10:5353', S1)!;
      expect(portOf(seen)).not.toBe(5353);
      // What the far end sends to the router's port goes to the router.
      const { lan } = world.fromOutside(addressOf(S1), '203.0.113.1', datagram(S1, '203.0.113.1:5353'));
      expect(lan).toEqual([]);
    },
  );

  it('nor one that a port forward has, or that nat.reserved names', () => {
    const world = new World({
      profile: 'full-cone',
      forward: [{ in: 'wan', proto: 'udp', port: 6000, to: '192.168.1.11:6000' }],
      reserved: [22, '7000-7010'],
    });
    expect(portOf(world.out('192.168.1.10:6000', S1)!)).not.toBe(6000);
    expect(portOf(world.out('192.168.1.10:7005', S1)!)).not.toBe(7005);
    expect(world.in(S1, '203.0.113.1:6000')).toBe('192.168.1.11:6000');
  });
});
