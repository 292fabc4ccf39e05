/**
 * RFC 5508, NAT behavioral requirements for ICMP, requirement by requirement, and what RFC 7857 §11, §12 has changed.
 */
import { describe, expect, it } from 'vitest';
import { addressOf, datagram, dissect, endpoint, LAN_MAC, portOf, type Seen, World } from '../conntrack/nat-world.ts';
import { arp, concat, ethernet, get16, icmp, ip, ipText, ipv4, tcp, toHex, verify } from '../lib/build.ts';

const A = '192.168.1.10:4000';
const S1 = '198.51.100.1:53';
const PROFILES = ['linux', 'full-cone', 'symmetric'];

/** Addresses and first two ports of the packet that an error quotes. */
function quoted(seen: Seen): { src: string; dst: string } {
  const q = seen.l4.subarray(8);
  return {
    src: endpoint(ipText(q.subarray(12, 16)), get16(q, 20)),
    dst: endpoint(ipText(q.subarray(16, 20)), get16(q, 22)),
  };
}

describe.each(PROFILES)('RFC 5508 §3 ICMP queries (%s)', (profile) => {
  it('REQ-1: a query and its answers pass; two hosts’ same identifier is told apart', () => {
    const world = new World({ profile });
    const a = world.ping('192.168.1.10', '198.51.100.1', 77)!;
    const b = world.ping('192.168.1.11', '198.51.100.1', 77)!;
    expect(a).not.toBe(b);
    for (const [host, id] of [['192.168.1.10', a] as const, ['192.168.1.11', b] as const]) {
      const { lan } = world.fromOutside('198.51.100.1', '203.0.113.1', icmp({ type: 0, id, seq: 1 }));
      expect(lan).toMatchObject([{ dst: endpoint(host, 77) }]);
    }
  });

  it('REQ-2: the session does not end in 60 seconds (mapping profiles), and RFC 7857 §11 not much later', () => {
    const world = new World({ profile });
    const id = world.ping('192.168.1.10', '198.51.100.1', 77)!;
    world.wait(profile === 'linux' ? 29 : 59);
    const answer = icmp({ type: 0, id, seq: 1 });
    expect(world.fromOutside('198.51.100.1', '203.0.113.1', answer).lan).toHaveLength(1);
    world.wait(130);
    expect(world.fromOutside('198.51.100.1', '203.0.113.1', answer).lan).toEqual([]);
  });

  it('a query from outside is the router’s, whoever has that identifier', () => {
    const world = new World({ profile });
    const id = world.ping('192.168.1.10', '198.51.100.1', 77)!;
    expect(world.fromOutside('192.0.2.9', '203.0.113.1', icmp({ type: 8, id, seq: 1 })).lan).toEqual([]);
  });
});

describe('RFC 5508 §4 ICMP errors', () => {
  it('REQ-3: a wrong checksum: dropped', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.out(A, S1)!;
    const quote = ipv4({ src: addressOf(seen), dst: addressOf(S1) }, datagram(seen, S1));
    const error = icmp({ type: 3, code: 3, checksum: 0x1234 }, quote);
    expect(world.fromOutside(addressOf(S1), addressOf(seen), error).lan).toEqual([]);
    expect(world.dropped('ICMP_CSUM')).toBe(1);
  });

  it.each(PROFILES)(
    'REQ-4: from outside (%s): to the inside sender, about what that had sent, by whoever says so',
    (profile) => {
      const world = new World({ profile });
      const seen = world.out(A, S1)!;
      const quote = ipv4({ src: addressOf(seen), dst: addressOf(S1), ttl: 60 }, datagram(seen, S1));
      for (const [type, code] of [
        [3, 3],
        [11, 0],
        [12, 0],
        [4, 0],
      ]) {
        const { lan } = world.fromOutside('192.0.2.250', addressOf(seen), icmp({ type, code }, quote));
        expect(lan).toHaveLength(1);
        expect(addressOf(lan[0].dst)).toBe(addressOf(A));
        // The router on the way keeps its own address.
        expect(addressOf(lan[0].src)).toBe('192.0.2.250');
        expect(quoted(lan[0])).toEqual({ src: A, dst: S1 });
      }
    },
  );

  it('REQ-4: one that had waited for its next hop quoted the packet of another session, which had the record by then', () => {
    const host = '192.168.1.200'; // nobody knows its MAC yet
    const mac = '02:00:00:00:0a:c8';
    for (const ends of [false, true]) {
      const world = new World({});
      const { router } = world;
      const seen = world.out(endpoint(host, 4000), S1)!;
      world.wait(29);
      const quote = ipv4({ src: addressOf(seen), dst: addressOf(S1), ttl: 60 }, datagram(seen, S1));
      expect(world.fromOutside('192.0.2.250', addressOf(seen), icmp({ type: 3, code: 3 }, quote)).lan).toEqual([]);
      expect(router.counters.held).toBe(1);
      // A query that nobody has answered ends after 30 seconds; then others need records.
      if (ends) world.wait(2);
      expect(router.conntrack.count).toBe(ends ? 0 : 1);
      for (let n = 0; n < 40; n++) world.out(endpoint('192.168.1.10', 5000 + n), '198.51.100.99:53');
      const answer = arp({ op: 'reply', sha: mac, spa: host, tha: LAN_MAC, tpa: '192.168.1.1' });
      router.inject('lan', ethernet({ src: mac, dst: LAN_MAC, type: 0x0806 }, answer));
      const lan = router.take('lan').map(dissect);
      expect(lan.map(quoted)).toEqual(ends ? [] : [{ src: endpoint(host, 4000), dst: S1 }]);
      expect([router.counters.held, world.dropped('CT_INVALID')]).toEqual([0, ends ? 1 : 0]);
    }
  });

  it('REQ-4: without a session for what it quotes: dropped', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.out(A, S1)!;
    const stranger = '198.51.100.99:53';
    const quote = ipv4({ src: addressOf(seen), dst: addressOf(stranger) }, datagram(seen, stranger));
    expect(world.fromOutside('198.51.100.99', addressOf(seen), icmp({ type: 3, code: 3 }, quote)).lan).toEqual([]);
    expect(world.dropped('CT_INVALID')).toBe(1);
  });

  it('REQ-5: from inside: with the outside source, about what the far end had sent', () => {
    const forward = [{ in: 'wan', proto: 'udp', port: 8080, to: '192.168.1.11:80' }];
    const world = new World({ forward });
    const { lan } = world.fromOutside('198.51.100.1', '203.0.113.1', datagram(S1, '203.0.113.1:8080'));
    const quote = lan[0].frame.subarray(14);
    for (const speaker of ['192.168.1.11', '192.168.1.99']) {
      const { wan } = world.fromInside(
        speaker === '192.168.1.99' ? '192.168.1.12' : speaker,
        '198.51.100.1',
        icmp({ type: 3, code: 1 }, concat(quote)),
      );
      expect(wan).toHaveLength(1);
      // No address of the inside leaks, neither the host's nor that of a router there.
      expect(addressOf(wan[0].src)).toBe('203.0.113.1');
      expect(quoted(wan[0])).toEqual({ src: S1, dst: '203.0.113.1:8080' });
      expect(toHex(wan[0].frame)).not.toContain(toHex(ip('192.168.1.11')));
    }
  });

  it('REQ-6: an error about a query neither refreshes nor ends its session', () => {
    const world = new World({ profile: 'full-cone' });
    const id = world.ping('192.168.1.10', '198.51.100.1', 77)!;
    const quote = ipv4({ src: '203.0.113.1', dst: '198.51.100.1' }, icmp({ type: 8, id, seq: 1 }));
    world.wait(40);
    expect(world.fromOutside('192.0.2.250', '203.0.113.1', icmp({ type: 11, code: 0 }, quote)).lan).toHaveLength(1);
    const answer = icmp({ type: 0, id, seq: 1 });
    expect(world.fromOutside('198.51.100.1', '203.0.113.1', answer).lan).toHaveLength(1);
    world.wait(25);
    expect(world.fromOutside('198.51.100.1', '203.0.113.1', answer).lan).toEqual([]);
  });

  it('REQ-7: hairpinned errors: the sender inside learns of them (TCP to a mapped host)', () => {
    const world = new World({ profile: 'full-cone' });
    const b = world.connect('192.168.1.11:4000', '198.51.100.1:80');
    const there = world.fromInside('192.168.1.10', addressOf(b), tcp({ sport: 5000, dport: portOf(b), flags: 'S' }));
    const source = there.lan[0].src;
    const quote = concat(there.lan[0].frame.subarray(14, 14 + 28));
    const { lan } = world.fromInside('192.168.1.11', addressOf(source), icmp({ type: 3, code: 13 }, quote));
    expect(lan).toHaveLength(1);
    expect(addressOf(lan[0].dst)).toBe('192.168.1.10');
    expect(quoted(lan[0])).toEqual({ src: '192.168.1.10:5000', dst: b });
  });

  it('REQ-8: no session for want of ports or by a limit: 3/13 to the sender, the packet dropped', () => {
    for (const extra of [{ ports: 5000 }, { sessions: 1, from: '192.168.1.0/24' }]) {
      const world = new World({ profile: 'full-cone', masquerade: [{ out: 'wan', ...extra }] });
      world.out(A, S1);
      const second = '192.168.1.10:4001';
      const { wan, lan } = world.fromInside('192.168.1.10', addressOf(S1), datagram(second, S1));
      expect(wan).toEqual([]);
      expect(lan).toHaveLength(1);
      expect([...lan[0].l4.subarray(0, 2)]).toEqual([3, 13]);
      expect(quoted(lan[0])).toEqual({ src: second, dst: S1 });
    }
  });

  it('REQ-10: the router’s own errors: TTL that runs out, with the packet as the host had sent it', () => {
    const world = new World({ profile: 'full-cone' });
    const { wan, lan } = world.fromInside('192.168.1.10', addressOf(S1), datagram(A, S1), 1);
    expect(wan).toEqual([]);
    expect([...lan[0].l4.subarray(0, 2)]).toEqual([11, 0]);
    expect(addressOf(lan[0].src)).toBe('192.168.1.1');
    expect(quoted(lan[0])).toEqual({ src: A, dst: S1 });
    expect(world.mappings).toBe(0);
  });

  it('REQ-10b: Fragmentation Needed from inside the router quotes what was received', () => {
    const world = new World({ profile: 'full-cone' }, {}, {});
    const segment = datagram(A, S1);
    const big = {
      ...segment,
      bytes: concat(segment.bytes.subarray(0, 4), new Uint8Array([5, 220, 0, 0]), new Uint8Array(1492)),
    };
    const packet = ipv4({ src: '192.168.1.10', dst: addressOf(S1), df: true }, big);
    world.router.inject('lan', ethernet({ src: '02:00:00:00:0a:0a', dst: '02:00:00:00:01:01' }, packet));
    expect(world.router.take('wan')).toHaveLength(packet.length <= 1500 ? 1 : 0);
    for (const frame of world.router.take('lan')) expect(verify(frame, { skipQuotes: true })).toEqual([]);
  });
});
