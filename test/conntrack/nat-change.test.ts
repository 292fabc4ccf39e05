/**
 * Addresses and rules that change under way (row N9, trap 9): exactly what they make untrue ends.
 */
import { describe, expect, it } from 'vitest';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import type { PrefixValue } from '../../controlplane/config/types.ts';
import { parseCidr } from '../../dataplane/wire/address.ts';
import { ethernet, ipv4 } from '../lib/build.ts';
import { addressOf, datagram, GATEWAY_MAC, LAN_MAC, macOf, WAN_MAC, World } from './nat-world.ts';

const A = '192.168.1.10:4000';
const S1 = '198.51.100.1:53';

function prefix(text: string): PrefixValue {
  const { family, words, prefixLength } = parseCidr(text)!;
  return { family, words, prefixLength, text };
}

describe('a changed outside address', () => {
  it.each(['linux', 'full-cone', 'symmetric'])('%s: ends what was translated to it, and nothing else', (profile) => {
    const world = new World({ profile });
    const seen = world.connect(A, '198.51.100.1:80');
    world.out('192.168.1.11:5000', S1);
    // Routed between two inside networks: none of NAT's business.
    world.fromInside('10.1.1.1', '192.168.1.20', {
      proto: 17,
      bytes: new Uint8Array([1, 1, 2, 2, 0, 8, 0, 0]),
      sumAt: 6,
    });
    expect(world.router.conntrack.count).toBe(3);
    const ended = world.router.control.changeAddress(1, prefix('203.0.113.1/24'), prefix('203.0.113.9/24'));
    expect(ended).toBe(2);
    expect(world.router.conntrack.count).toBe(1);
    expect(world.mappings).toBe(0);
    // The old address means nobody; a new packet of the flow leaves with the new one.
    expect(world.in(S1, '203.0.113.1:5000')).toBeNull();
    expect(addressOf(world.out('192.168.1.11:5000', S1)!)).toBe('203.0.113.9');
    expect(world.tcpIn('198.51.100.1:80', seen, 'A', 5001, 1001)).toBeNull();
  });

  it('an address that stays ends nothing', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.out(A, S1)!;
    expect(world.router.control.changeAddress(1, prefix('203.0.113.1/24'), prefix('203.0.113.1/24'))).toBe(0);
    expect(world.out(A, S1)).toBe(seen);
  });

  it('an address that goes without a successor leaves nothing to masquerade as', () => {
    const world = new World({ profile: 'full-cone' });
    world.out(A, S1);
    world.router.control.changeAddress(1, prefix('203.0.113.1/24'), null);
    world.out(A, S1);
    expect(world.router.conntrack.count).toBe(0);
  });
});

describe('rules that are new', () => {
  const reload = (world: World, nat: unknown) =>
    world.router.control.loadNat({ ...world.router.config, nat: normalizeConfig({ ...base, nat }).nat });
  const base = {
    ports: {
      lan: { kind: 'memory', zone: 'lan', addresses: ['192.168.1.1/24'] },
      wan: { kind: 'memory', zone: 'wan', addresses: ['203.0.113.1/24'] },
    },
  };

  it('a flow that began before its masquerade rule does not go on untranslated (trap 9)', () => {
    const world = new World({ masquerade: [] });
    expect(world.out(A, S1)).toBe(A);
    reload(world, { masquerade: [{ out: 'wan' }] });
    expect(world.router.conntrack.count).toBe(0);
    expect(world.out(A, S1)).toBe('203.0.113.1:4000');
  });

  it('nor does a translation outlive its rule', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.out(A, S1)!;
    reload(world, { masquerade: [] });
    expect(world.mappings).toBe(0);
    expect(world.in(S1, seen)).toBeNull();
    expect(world.out(A, S1)).toBe(A);
  });

  it('a forward that now leads elsewhere ends the sessions of the old one, and only those', () => {
    const forward = (to: string) => [
      { in: 'wan', proto: 'udp', port: 8080, to },
      { in: 'wan', proto: 'udp', port: 9090, to: '192.168.1.12:90' },
    ];
    const world = new World({ forward: forward('192.168.1.11:80') });
    expect(world.in(S1, '203.0.113.1:8080')).toBe('192.168.1.11:80');
    expect(world.in(S1, '203.0.113.1:9090')).toBe('192.168.1.12:90');
    world.out(A, S1);
    reload(world, { masquerade: [{ out: 'wan' }], forward: forward('192.168.1.21:80') });
    expect(world.router.conntrack.count).toBe(2);
    expect(world.in(S1, '203.0.113.1:8080')).toBe('192.168.1.21:80');
    expect(world.in(S1, '203.0.113.1:9090')).toBe('192.168.1.12:90');
  });

  it('equal rules end nothing', () => {
    const world = new World({
      profile: 'full-cone',
      forward: [{ in: 'wan', proto: 'udp', port: 8080, to: '192.168.1.11:80' }],
    });
    const seen = world.out(A, S1)!;
    world.in(S1, '203.0.113.1:8080');
    world.in('192.0.2.1:1', seen);
    world.router.control.loadNat(world.router.config);
    expect(world.router.conntrack.count).toBe(3);
    expect(world.out(A, S1)).toBe(seen);
  });

  it.each(['linux', 'full-cone'])('%s: equal rules ended what a trigger had let in, and hairpins', (profile) => {
    const trigger = [{ from: 'lan', proto: 'udp', port: 6112, open: { proto: 'udp', port: '6200-6210' }, timeout: 9 }];
    const forward = [{ in: 'wan', proto: 'udp', port: 8080, to: '192.168.1.20:80' }];
    const world = new World({ profile, trigger, forward });
    world.out(A, '198.51.100.1:6112');
    expect(world.in(S1, '203.0.113.1:6205')).toBe('192.168.1.10:6205');
    const hairpin = datagram('192.168.1.11:5000', '203.0.113.1:8080');
    expect(world.fromInside('192.168.1.11', '203.0.113.1', hairpin).lan).toHaveLength(1);
    world.wait(20);
    world.router.control.loadNat(world.router.config);
    expect(world.router.conntrack.count).toBe(3);
    // Without them both end.
    reload(world, { profile, masquerade: [{ out: 'wan' }] });
    expect(world.router.conntrack.count).toBe(1);
  });

  it('equal rules ended what left by the second of two uplinks', () => {
    const uplinks = {
      wan: { mac: WAN_MAC, own: '203.0.113.1', gateway: '203.0.113.254' },
      wan2: { mac: '02:00:00:00:01:03', own: '192.0.2.1', gateway: '192.0.2.254' },
    };
    const port = (mac: string, address: string, zone: string) => {
      return { kind: 'memory', zone, mac, addresses: [`${address}/24`] };
    };
    const world = new World(
      {},
      {
        ports: {
          lan: port(LAN_MAC, '192.168.1.1', 'lan'),
          wan: port(uplinks.wan.mac, uplinks.wan.own, 'wan'),
          wan2: port(uplinks.wan2.mac, uplinks.wan2.own, 'wan'),
        },
        routes: Object.values(uplinks).map(({ gateway }) => ({ to: '0.0.0.0/0', via: gateway })),
        neighbors: [
          { port: 'lan', ip: '192.168.1.10', mac: macOf('192.168.1.10') },
          { port: 'wan', ip: '203.0.113.254', mac: GATEWAY_MAC },
          { port: 'wan2', ip: '192.0.2.254', mac: GATEWAY_MAC },
        ],
      },
    );
    const { router } = world;
    for (let n = 1; n <= 20; n++) {
      const far = `198.51.100.${n}:53`;
      world.out(A, far);
      // Every second one is answered, where it left.
      if (n % 2 === 0 && router.take('wan2').length === 0) world.in(far, '203.0.113.1:4000');
      else if (n % 2 === 0)
        router.inject(
          'wan2',
          ethernet(
            { src: GATEWAY_MAC, dst: uplinks.wan2.mac },
            ipv4({ src: addressOf(far), dst: uplinks.wan2.own }, datagram(far, '192.0.2.1:4000')),
          ),
        );
    }
    const by = (own: string) => router.conntrack.lines().filter((line) => line.includes(` dst=${own} `)).length;
    const before = [by('203.0.113.1'), by('192.0.2.1')];
    expect(Math.min(...before)).toBeGreaterThan(3);
    router.control.loadNat(router.config);
    expect([by('203.0.113.1'), by('192.0.2.1')]).toEqual(before);
  });
});
