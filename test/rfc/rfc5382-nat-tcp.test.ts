/**
 * RFC 5382, NAT behavioral requirements for TCP, requirement by requirement, and what RFC 7857 has changed of them.
 */
import { describe, expect, it } from 'vitest';
import { addressOf, datagram, portOf, World } from '../conntrack/nat-world.ts';
import { icmp, ipv4, tcp } from '../lib/build.ts';

const A = '192.168.1.10:4000';
const B = '192.168.1.11:4000';
const S1 = '198.51.100.1:80';
const S2 = '198.51.100.2:80';

describe('RFC 5382 §4 mapping and filtering', () => {
  it('REQ-1: endpoint-independent mapping', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.connect(A, S1);
    expect(world.connect(A, S2)).toBe(seen);
    expect(world.mappings).toBe(1);
  });

  it('REQ-2: simultaneous open: the peer’s SYN passes after ours, and both sides establish', () => {
    for (const profile of ['linux', 'port-restricted-cone', 'symmetric']) {
      const world = new World({ profile });
      const seen = world.tcpOut(A, S1, 'S', 1000)!;
      expect(world.tcpIn(S1, seen, 'S', 5000)).toBe(A);
      expect(world.tcpOut(A, S1, 'SA', 1000, 5001)).toBe(seen);
      expect(world.tcpIn(S1, seen, 'SA', 5000, 1001)).toBe(A);
      expect(world.tcpOut(A, S1, 'A', 1001, 5001)).toBe(seen);
    }
  });

  it('REQ-3: filtering as transparent as configured: endpoint-independent lets a stranger’s SYN in', () => {
    const open = new World({ profile: 'full-cone' });
    expect(open.tcpIn('192.0.2.9:99', open.connect(A, S1))).toBe(A);
    const careful = new World({ profile: 'restricted-cone' });
    const seen = careful.connect(A, S1);
    expect(careful.tcpIn('192.0.2.9:99', seen)).toBeNull();
    expect(careful.tcpIn(`${addressOf(S1)}:99`, seen)).toBe(A);
  });

  it('REQ-4: an unsolicited SYN gets no answer, so that an outbound SYN may still meet it (§4.3)', () => {
    const world = new World({ profile: 'port-restricted-cone' });
    const seen = world.connect(A, S1);
    const syn = tcp({ sport: portOf(S2), dport: portOf(seen), flags: 'S', seq: 7000 });
    expect(world.fromOutside(addressOf(S2), addressOf(seen), syn)).toEqual({ wan: [], lan: [] });
    expect(world.dropped('NAT_FILTERED')).toBe(1);
    // The punch: A's own SYN leaves by the same endpoint, and the peer's retransmission now passes.
    expect(world.tcpOut(A, S2, 'S', 1000)).toBe(seen);
    expect(world.fromOutside(addressOf(S2), addressOf(seen), syn).lan).toMatchObject([{ dst: A }]);
  });
});

describe('RFC 5382 §5 sessions', () => {
  it('REQ-5: an established session idles two hours and four minutes', () => {
    const world = new World(
      { profile: 'full-cone' },
      { conntrack: { max: 1024, timeouts: { 'tcp-established': 600 } } },
    );
    const seen = world.connect(A, S1);
    world.wait(7400);
    expect(world.tcpIn(S1, seen, 'A', 5001, 1001)).toBe(A);
    world.wait(7400);
    expect(world.tcpOut(A, S1, 'A', 1001, 5001)).toBe(seen);
  });

  it('REQ-5: a session that is opening or closing, four minutes', () => {
    const world = new World({ profile: 'port-restricted-cone' });
    const seen = world.tcpOut(A, S1)!;
    world.wait(235);
    expect(world.tcpIn(S1, seen, 'SA', 5000, 1001)).toBe(A);
    world.tcpOut(A, S1, 'A', 1001, 5001);
    world.tcpOut(A, S1, 'FA', 1001, 5001);
    world.wait(235);
    expect(world.tcpIn(S1, seen, 'A', 5001, 1002)).toBe(A);
  });

  it('REQ-5: then the port is free again', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.tcpOut(A, S1)!;
    world.wait(250);
    expect(world.mappings).toBe(0);
    expect(world.tcpOut(B, S1)).toBe(seen);
  });

  it('RFC 7857 §2.2: a RST that fits ends the session, the mapping stays for the transitory time', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.connect(A, S1);
    expect(world.tcpIn(S1, seen, 'R', 5001, 0)).toBe(A);
    world.wait(120);
    expect(world.tcpOut(A, S2)).toBe(seen);
    world.wait(500);
    expect(world.mappings).toBe(0);
  });
});

describe('RFC 5382 §7 application', () => {
  it('RFC 7857 §5, §6: TCP and UDP are mapped and filtered each by themselves', () => {
    const world = new World({ profile: 'full-cone' });
    const udp = world.out('192.168.1.10:4000', S1)!;
    const other = world.connect('192.168.1.11:4000', S1);
    expect(portOf(udp)).toBe(4000);
    expect(portOf(other)).toBe(4000);
    expect(world.in('192.0.2.9:9', '203.0.113.1:4000')).toBe('192.168.1.10:4000');
    expect(world.tcpIn('192.0.2.9:9', '203.0.113.1:4000')).toBe('192.168.1.11:4000');
  });

  it('REQ-7: no port overloading', () => {
    const world = new World({ profile: 'full-cone' });
    expect(world.connect(A, S1)).not.toBe(world.connect(B, S2));
  });

  it('REQ-8: hairpinning with the outside source', () => {
    const world = new World({ profile: 'full-cone' });
    const b = world.connect(B, S1);
    const syn = tcp({ sport: 4000, dport: portOf(b), flags: 'S', seq: 1 });
    const { lan } = world.fromInside('192.168.1.10', addressOf(b), syn);
    expect(lan).toMatchObject([{ dst: B }]);
    expect(addressOf(lan[0].src)).toBe('203.0.113.1');
    const answer = tcp({ sport: 4000, dport: portOf(lan[0].src), flags: 'SA', seq: 9, ack: 2 });
    expect(world.fromInside('192.168.1.11', addressOf(lan[0].src), answer).lan).toMatchObject([{ src: b, dst: A }]);
  });

  it('REQ-9, REQ-10: an ICMP error about the session is translated and ends nothing', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.connect(A, S1);
    const quoted = tcp({ sport: portOf(seen), dport: portOf(S1), flags: 'A', seq: 1001, ack: 5001 });
    const quote = ipv4({ src: addressOf(seen), dst: addressOf(S1) }, quoted).subarray(0, 28);
    const { lan } = world.fromOutside('198.51.100.254', addressOf(seen), icmp({ type: 3, code: 4, mtu: 1400 }, quote));
    expect(lan).toHaveLength(1);
    expect(world.tcpIn(S1, seen, 'A', 5001, 1001)).toBe(A);
  });

  it('REQ-3: nothing that comes from outside makes a mapping', () => {
    const world = new World({ profile: 'full-cone' });
    const stray = datagram('192.0.2.9:9', '203.0.113.1:4000');
    expect(world.fromOutside('192.0.2.9', '203.0.113.1', stray).lan).toEqual([]);
    expect(world.mappings).toBe(0);
  });
});
