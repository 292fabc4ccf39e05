/** `show nat`: rules of every kind, mappings, pools and subscribers, as text and JSON. */
import { describe, expect, it } from 'vitest';
import { showNat } from '../../controlplane/show/nat.ts';
import { endpoint, portOf, World } from '../conntrack/nat-world.ts';

interface NatJson {
  rules: Record<string, unknown>[];
  mappings: Record<string, unknown>[];
  pools: Record<string, unknown>[];
  subscribers: Record<string, unknown>[];
  statistics: Record<string, number>;
  translations: unknown[];
}

const show = (world: World, filters = {}): NatJson => showNat(world.router, filters).json as NatJson;
const lines = (world: World, filters = {}): string[] => showNat(world.router, filters).text.split('\n');
const A = '192.168.1.10:5000';
const S1 = '198.51.100.1:53';
const S2 = '198.51.100.2:53';

describe('show nat', () => {
  it('mappings with what they are for, their sessions and their time', () => {
    const world = new World({ masquerade: [{ out: 'wan', mapping: 'endpoint-independent' }] });
    expect(show(world).mappings).toEqual([]);
    const seen = world.out(A, S1)!;
    world.out(A, S2);
    world.wait(10);
    const outside = { address: '203.0.113.1', port: portOf(seen) };
    expect(show(world).mappings).toEqual([
      {
        protocol: 'udp',
        inside: { address: '192.168.1.10', port: 5000 },
        outside,
        mapping: 'endpoint-independent',
        filtering: 'address-and-port-dependent',
        sessions: 2,
        timeout: 290,
      },
    ]);
    expect(lines(world)).toContain(
      `mapping udp 192.168.1.10:5000 to 203.0.113.1:${outside.port} mapping endpoint-independent ` +
        'filtering address-and-port-dependent sessions 2 timeout 290',
    );
    expect(show(world).pools).toEqual([{ address: '203.0.113.1', protocol: 'udp', used: 1, exhausted: 0 }]);
    expect(lines(world)).toContain('pool 203.0.113.1 udp used 1 exhausted 0');
    expect(show(world).statistics).toEqual({ created: 1, expired: 0, full: 0, filtered: 0 });
    world.wait(400);
    expect(show(world)).toMatchObject({ mappings: [], translations: [], statistics: { created: 1, expired: 1 } });
    expect(show(world).pools).toEqual([{ address: '203.0.113.1', protocol: 'udp', used: 0, exhausted: 0 }]);
  });

  it('dependent mappings name their destination, and filters choose', () => {
    for (const [mapping, remote, towards] of [
      ['address-dependent', { address: '198.51.100.1' }, ' towards 198.51.100.1 '],
      ['address-and-port-dependent', { address: '198.51.100.1', port: 53 }, ' towards 198.51.100.1:53 '],
    ] as const) {
      const world = new World({ profile: 'symmetric', masquerade: [{ out: 'wan', mapping }] });
      world.out(A, S1);
      world.out(A, S2);
      world.connect('192.168.1.11:80', '198.51.100.3:443');
      expect(show(world).mappings).toHaveLength(3);
      expect(show(world, { dst: '198.51.100.1' }).mappings).toMatchObject([{ protocol: 'udp', remote, mapping }]);
      expect(lines(world).some((line) => line.includes(towards))).toBe(true);
      expect(show(world, { proto: 'tcp' }).mappings).toMatchObject([{ inside: { address: '192.168.1.11', port: 80 } }]);
      expect(show(world, { src: '192.168.1.10', sport: '5000' }).mappings).toHaveLength(2);
      expect(show(world, { src: '192.168.1.10/31' }).mappings).toHaveLength(3);
      expect(show(world, { dst: '198.51.100.2/31', proto: '6' }).mappings).toHaveLength(1);
      expect(show(world, { family: 'ipv6' })).toMatchObject({ mappings: [], translations: [] });
    }
  });

  it('a pool that is used up says so', () => {
    const world = new World({ profile: 'full-cone', masquerade: [{ out: 'wan', ports: '4000-4003', parity: false }] });
    for (let n = 0; n < 7; n++) world.out(endpoint('192.168.1.10', 6000 + n), S1);
    expect(show(world).pools).toEqual([{ address: '203.0.113.1', protocol: 'udp', used: 4, exhausted: 3 }]);
  });

  it('subscribers, their blocks and refusals', () => {
    const entry = {
      out: 'wan',
      from: '100.64.0.0/24',
      to: '198.18.0.0',
      ports: '1024-1151',
      blocks: { size: 4, max: 2 },
    };
    const world = new World({ profile: 'full-cone', masquerade: [entry] });
    const ports = [];
    for (let n = 0; n < 10; n++) ports.push(world.out(endpoint('100.64.0.7', 6000 + n), S1));
    const [subscriber] = show(world).subscribers as { blocks: string[] }[];
    expect(subscriber).toMatchObject({ inside: '100.64.0.7', outside: '198.18.0.0', refused: 2 });
    expect(subscriber.blocks).toHaveLength(2);
    for (const seen of ports.slice(0, 8))
      expect(
        subscriber.blocks.some((block) => {
          const [low, high] = block.split('-').map(Number);
          return portOf(seen!) >= low && portOf(seen!) <= high;
        }),
      ).toBe(true);
    expect(show(world).pools).toContainEqual({ address: '198.18.0.0', protocol: 'blocks', used: 2, exhausted: 0 });
    expect(lines(world).find((line) => line.startsWith('subscriber'))).toBe(
      `subscriber 100.64.0.7 to 198.18.0.0 ports ${subscriber.blocks.join(',')} sessions 0 refused 2`,
    );
    world.wait(3600);
    expect(lines(world)).toContain('subscriber 100.64.0.7 no ports sessions 0 refused 2');
  });

  it('rules of every kind, with pools and port lists as written', () => {
    const world = new World({
      masquerade: [{ out: 'wan', to: ['198.18.0.0/30', '198.18.9.9'], ports: ['1024-2047', '4096-5119'] }],
      bypass: [{ to: '198.51.100.0/24' }],
      trigger: [{ from: 'lan', proto: 'tcp', port: 6667, open: { proto: 'tcp', port: '113' } }],
      dmz: { in: 'wan', to: '192.168.1.20' },
      nptv6: [{ out: 'wan', internal: 'fd00:1::/48', external: '2001:db8:2::/48' }],
    });
    const before = lines(world).filter((line) => !line.startsWith('pool'));
    expect(before).toEqual([
      'trigger in zone lan by tcp 6667 opens tcp dport 113',
      'dmz in zone wan to 192.168.1.20',
      'bypass dst 198.51.100.0/24',
      expect.stringMatching(
        /^snat out zone wan to 198\.18\.0\.0-198\.18\.0\.3,198\.18\.9\.9:1024-2047,4096-5119 mapping /,
      ),
      'nptv6 out zone wan from fd00:1::/48 to 2001:db8:2::/48',
    ]);
    world.tcpOut('192.168.1.10:1234', '203.0.113.99:6667');
    expect(show(world).rules[0]).toMatchObject({ kind: 'trigger', by: 'tcp 6667', dport: '113', to: '192.168.1.10' });
  });
});
