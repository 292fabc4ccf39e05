/**
 * Outside ports through a router: sets, random choice, pooling, exhaustion, sharing of a small pool.
 */
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../controlplane/config/index.ts';
import { addressOf, type Endpoint, endpoint, OUTSIDE, portOf, World } from './nat-world.ts';

const S1 = '198.51.100.1:53';

describe('which port', () => {
  it.each(['linux', 'full-cone', 'symmetric'])('%s: a MAP-E port set, and nothing outside of it', (profile) => {
    const ports = { 'psid-offset': 6, 'psid-length': 8, psid: 0x34 };
    const world = new World({ profile, masquerade: [{ out: 'wan', ports }] });
    const text = `ports:\n  wan: { zone: wan, addresses: 203.0.113.1/24 }\nnat: { masquerade: [{ out: wan, ports: ${JSON.stringify(ports)} }] }\n`;
    const ranges = parseConfig(text, 'test', { memory: 2 ** 33 }).nat.masquerade[0].ports;
    const seen = new Set<number>();
    for (let n = 0; n < 100; n++) {
      const port = portOf(world.out(endpoint(`192.168.1.${10 + (n % 40)}`, 2000 + n), S1)!);
      expect(ranges.some(([low, high]) => port >= low && port <= high)).toBe(true);
      seen.add(port);
    }
    expect(seen.size).toBe(100);
    // ICMP identifiers too: a MAP border relay finds the customer by them (RFC 7597 §8.2).
    const id = world.ping('192.168.1.10', '198.51.100.1', 9)!;
    expect(ranges.some(([low, high]) => id >= low && id <= high)).toBe(true);
  });

  it('allocation: random never keeps the source port on purpose', () => {
    for (const profile of ['linux', 'full-cone']) {
      const world = new World({ profile, masquerade: [{ out: 'wan', allocation: 'random' }] });
      let kept = 0;
      for (let n = 0; n < 40; n++) if (portOf(world.out(endpoint('192.168.1.10', 3000 + n), S1)!) === 3000 + n) kept++;
      expect(kept).toBeLessThan(3);
    }
  });

  it('linux: a search asks the connection table 248 times and no more', () => {
    const world = new World({ masquerade: [{ out: 'wan', ports: '5000-5199' }] });
    for (let n = 5000; n < 5200; n++) expect(world.out(endpoint('192.168.1.10', n), S1)).toBe(endpoint(OUTSIDE, n));
    expect(world.out(endpoint('192.168.1.11', 9), S1)).toBeNull();
    expect(world.dropped('NAT_EXHAUSTED')).toBe(1);
    expect(world.router.path.nat.probes).toBe(248);
  });

  it('parity: false lets an even port become an odd one', () => {
    const masquerade = [{ out: 'wan', parity: false, ports: '5000-5063' }];
    const world = new World({ profile: 'full-cone', masquerade });
    const odd = Array.from({ length: 40 }, (_, n) => portOf(world.out(endpoint('192.168.1.10', 2 * n + 6000), S1)!));
    expect(odd.some((port) => (port & 1) === 1)).toBe(true);
  });

  it('pooling: a full address ends a paired host’s luck, an arbitrary one goes to the next', () => {
    for (const pooling of ['paired', 'arbitrary']) {
      const masquerade = [{ out: 'wan', to: ['203.0.113.16/31', '203.0.113.20'], ports: '5000-5009', pooling }];
      const world = new World({ profile: 'full-cone', masquerade });
      const addresses = new Set<string>();
      let refused = 0;
      for (let n = 0; n < 20; n++) {
        const seen = world.out(endpoint('192.168.1.10', 6000 + n), S1);
        if (seen === null) refused++;
        else addresses.add(addressOf(seen));
      }
      expect(addresses.size > 1).toBe(pooling === 'arbitrary');
      expect(refused).toBe(pooling === 'paired' ? 10 : 0);
    }
  });

  it('what is sent to a port of the pool that nobody has ends at the router, and does not go round', () => {
    const world = new World({ profile: 'full-cone', masquerade: [{ out: 'wan', to: '198.18.0.0/28' }] });
    const { wan, lan } = world.fromOutside('192.0.2.9', '198.18.0.5', {
      proto: 17,
      bytes: new Uint8Array([1, 1, 2, 2, 0, 8, 0, 0]),
      sumAt: 6,
    });
    expect([wan, lan]).toEqual([[], []]);
    expect(world.dropped('INPUT_DROP')).toBe(1);
  });
});

describe('exhaustion', () => {
  it('is answered by ICMP 3/13 (RFC 5508 REQ-8), rate-limited, and counted', () => {
    const world = new World({ profile: 'full-cone', masquerade: [{ out: 'wan', ports: '5000-5003' }] });
    let answers = 0;
    for (let n = 0; n < 40; n++) {
      const from = endpoint('192.168.1.10', 6000 + n);
      const { wan, lan } = world.fromInside('192.168.1.10', '198.51.100.1', {
        proto: 17,
        bytes: new Uint8Array([portOf(from) >> 8, portOf(from) & 255, 0, 53, 0, 8, 0, 0]),
        sumAt: 6,
      });
      expect(wan.length).toBe(n < 4 ? 1 : 0);
      for (const seen of lan) {
        answers++;
        expect([...seen.l4.subarray(0, 2)]).toEqual([3, 13]);
      }
    }
    expect(world.dropped('NAT_EXHAUSTED')).toBe(36);
    expect(answers).toBe(6);
  });

  it.each([
    ['linux', 64],
    ['full-cone', 64],
    ['symmetric', 64],
  ] as const)(
    '%s: 64 ports under ten thousand flows: the counters add up, established flows are undisturbed',
    (profile, size) => {
      const world = new World(
        { profile, masquerade: [{ out: 'wan', ports: `5000-${5000 + size - 1}` }] },
        { conntrack: { max: 20_000 } },
      );
      const established: [Endpoint, Endpoint][] = [];
      for (let n = 0; n < 16; n++) {
        const from = endpoint(`192.168.1.${10 + n}`, 7000 + n);
        established.push([from, world.connect(from, '198.51.100.1:443')]);
      }
      let out = 0;
      for (let n = 0; n < 10_000; n++)
        if (world.tcpOut(endpoint(`192.168.1.${30 + (n % 20)}`, 10_000 + n), '198.51.100.1:443') !== null) out++;
      expect(out).toBe(size - 16);
      expect(world.dropped('NAT_EXHAUSTED')).toBe(10_000 - out);
      for (const [from, seen] of established) {
        expect(world.tcpOut(from, '198.51.100.1:443', 'A', 1001, 5001)).toBe(seen);
        expect(world.tcpIn('198.51.100.1:443', seen, 'A', 5001, 1001)).toBe(from);
      }
      const { received, forwarded, delivered, dropped, held } = world.router.counters;
      const drops = Object.values(dropped).reduce((sum, count) => sum + count, 0);
      expect(received).toBe(forwarded + delivered + drops + held);
      expect(world.router.conntrack.count).toBe(size);
      if (profile !== 'linux') expect(world.mappings).toBe(size);
      // Control plane and other users go on: a ping to the router is answered at once.
      expect(world.router.conntrack.lines()).toHaveLength(size);
      // When the flood's half-open sessions are over, their ports are there again.
      world.wait(400);
      expect(world.tcpOut('192.168.1.9:9', '198.51.100.1:443')).not.toBeNull();
    },
  );
});

describe('sessions of one source', () => {
  it.each(['linux', 'full-cone'])(
    '%s: as many as allowed, refused with CT_LIMIT; an ended one makes room',
    (profile) => {
      const world = new World({ profile, masquerade: [{ out: 'wan', from: '192.168.1.0/24', sessions: 5 }] });
      for (let n = 0; n < 5; n++) expect(world.out(endpoint('192.168.1.10', 6000 + n), S1)).not.toBeNull();
      expect(world.out('192.168.1.10:7000', S1)).toBeNull();
      expect(world.dropped('CT_LIMIT')).toBe(1);
      expect(world.out('192.168.1.10:6000', S1)).not.toBeNull();
      expect(world.out('192.168.1.11:7000', S1)).not.toBeNull();
      world.wait(400);
      expect(world.out('192.168.1.10:7000', S1)).not.toBeNull();
    },
  );
});
