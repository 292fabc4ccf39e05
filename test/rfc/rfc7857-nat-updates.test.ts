/**
 * RFC 7857, updates to the NAT behavioral requirements. §2.2 (RST) and §5, §6 (protocol independence) are in
 * rfc5382-nat-tcp.test.ts, §11 and §12 in rfc5508-nat-icmp.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { addressOf, datagram, endpoint, portOf, World } from '../conntrack/nat-world.ts';

const A = '192.168.1.10:4000';
const S1 = '198.51.100.1:80';
const S2 = '198.51.100.2:80';

describe('RFC 7857', () => {
  it('§2.1: opening and established sessions have times of their own, both configurable', () => {
    const timeouts = { 'tcp-transitory': 600, 'tcp-established': 8000 };
    const world = new World(
      { profile: 'full-cone', timeouts },
      { conntrack: { max: 1024, timeouts: { 'tcp-established': 60 } } },
    );
    world.tcpOut(A, S1);
    const seen = world.connect('192.168.1.11:4000', S1);
    world.wait(590);
    expect(world.router.conntrack.count).toBe(2);
    world.wait(100);
    expect(world.router.conntrack.count).toBe(1);
    world.wait(7000);
    expect(world.tcpIn(S1, seen, 'A', 5001, 1001)).toBe('192.168.1.11:4000');
  });

  it('§3: port overlapping: only the profile linux gives one port to two destinations at once', () => {
    const ports = (profile: string) => {
      const world = new World({ profile, masquerade: [{ out: 'wan', ports: 5000 }] });
      return [world.out(A, S1), world.out('192.168.1.11:4000', S2)];
    };
    expect(ports('linux')).toEqual(['203.0.113.1:5000', '203.0.113.1:5000']);
    expect(ports('full-cone')).toEqual(['203.0.113.1:5000', null]);
  });

  it('§4: paired pooling holds for all protocols together', () => {
    const world = new World({ profile: 'full-cone', masquerade: [{ out: 'wan', to: '203.0.113.32/27' }] });
    for (let n = 10; n < 30; n++) {
      const udp = addressOf(world.out(endpoint(`192.168.1.${n}`, 5000), S1)!);
      const tcp = addressOf(world.tcpOut(endpoint(`192.168.1.${n}`, 6000), S1)!);
      expect(tcp).toBe(udp);
    }
  });

  it('§5: endpoint-independent mapping of TCP does not depend on UDP’s', () => {
    const world = new World({ profile: 'full-cone' });
    world.out('192.168.1.11:4000', S1);
    expect(portOf(world.connect(A, S1))).toBe(4000);
  });

  it('§7: with endpoint-independent filtering, a flood from outside keeps no mapping open', () => {
    const world = new World({ profile: 'full-cone', timeouts: { udp: 120 } });
    const seen = world.out(A, S1)!;
    for (let n = 0; n < 30; n++) {
      world.wait(10);
      world.in(`192.0.2.${n + 1}:999`, seen);
    }
    expect(world.mappings).toBe(0);
  });

  it('§7: of TCP as well: SYNs from outside keep no mapping open, an answer from inside does', () => {
    const world = new World({ profile: 'full-cone', timeouts: { 'tcp-transitory': 240 } });
    const seen = world.connect(A, S1);
    world.tcpOut(A, S1, 'RA', 1001, 5001);
    // An answered one is a session like any other.
    world.wait(100);
    expect(world.tcpIn('192.0.2.99:999', seen)).toBe(A);
    world.tcpOut(A, '192.0.2.99:999', 'SA', 1000, 5001);
    world.tcpIn('192.0.2.99:999', seen, 'A', 5001, 1001);
    world.wait(1000);
    expect(world.tcpIn('192.0.2.99:999', seen, 'A', 5001, 1001)).toBe(A);
    world.tcpOut(A, '192.0.2.99:999', 'RA', 1001, 5001);
    for (let n = 0; n < 20; n++) {
      world.wait(30);
      world.tcpIn(`192.0.2.${n + 1}:999`, seen);
    }
    expect([world.mappings, world.router.conntrack.count]).toEqual([0, 0]);
  });

  it('§7: nor does a packet from outside that gets no farther than its hop limit', () => {
    const world = new World({ profile: 'full-cone', timeouts: { udp: 120 } });
    const seen = world.out(A, S1)!;
    for (let n = 0; n < 30; n++) {
      world.wait(10);
      world.fromOutside(addressOf(S1), addressOf(seen), datagram(S1, seen), 1);
    }
    expect(world.mappings).toBe(0);
  });

  it('§7.1: nor do the RSTs with which a host inside answers them', () => {
    const world = new World({ profile: 'full-cone', timeouts: { 'tcp-transitory': 240 } });
    const seen = world.connect(A, S1);
    world.tcpOut(A, S1, 'RA', 1001, 5001);
    for (let n = 0; n < 20; n++) {
      world.wait(30);
      if (world.tcpIn(`192.0.2.${n + 1}:999`, seen) !== null) world.tcpOut(A, `192.0.2.${n + 1}:999`, 'RA', 0, 5001);
    }
    expect([world.mappings, world.router.conntrack.count]).toEqual([0, 0]);
  });

  it('§9: ports that are not kept are random: neither the next one, nor the same in another run', () => {
    const run = (seed: number) => {
      const world = new World({ profile: 'symmetric' }, {}, { seed });
      return Array.from({ length: 50 }, (_, n) => portOf(world.out(A, `198.51.100.${n + 1}:53`)!));
    };
    const [a, b] = [run(1), run(2)];
    expect(a.filter((port, n) => port === b[n]).length).toBeLessThan(3);
    expect(a.filter((port, n) => n > 0 && Math.abs(port - a[n - 1]) < 8).length).toBeLessThan(3);
    expect(run(1)).toEqual(a);
  });
});
