/**
 * Addresses and rules that change under way (row N9, trap 9): exactly what they make untrue ends.
 */
import { describe, expect, it } from 'vitest';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import type { PrefixValue } from '../../controlplane/config/types.ts';
import { parseCidr } from '../../dataplane/wire/address.ts';
import { addressOf, World } from './nat-world.ts';

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
});
