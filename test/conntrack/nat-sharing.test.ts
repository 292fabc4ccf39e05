/**
 * Sharing one address (rows N6, N7): forwards with ranges, the DMZ host, triggered ports, bypass, order between them.
 */
import { describe, expect, it } from 'vitest';
import { addressOf, datagram, endpoint, World } from './nat-world.ts';

const S1 = '198.51.100.1:53';
const OUTSIDE = '203.0.113.1';

describe('port forwards', () => {
  const forward = [
    { in: 'wan', proto: 'udp', port: '8000-8010', to: '192.168.1.10:9000-9010' },
    { in: 'wan', proto: 'udp', port: '7000-7010', to: '192.168.1.10' },
    { in: 'wan', proto: 'udp', port: '6000-6010', to: '192.168.1.10:80' },
    { in: 'wan', proto: 'udp', port: 5000, to: '192.168.1.11:5000', from: '192.0.2.0/24' },
    { in: 'wan', proto: 'udp', port: 5000, to: '192.168.1.12:5000' },
  ];

  it.each([
    ['a range counted from its first', S1, 8003, '192.168.1.10:9003'],
    ['as received', S1, 7010, '192.168.1.10:7010'],
    ['one port for all', S1, 6009, '192.168.1.10:80'],
    ['by its sender', '192.0.2.7:1', 5000, '192.168.1.11:5000'],
    ['by any other sender', S1, 5000, '192.168.1.12:5000'],
    ['outside of every range', S1, 8011, null],
  ])('%s', (_, from, port, to) => {
    for (const profile of ['linux', 'full-cone', 'symmetric']) {
      const world = new World({ profile, forward });
      expect(world.in(from, endpoint(OUTSIDE, port))).toBe(to);
      if (to !== null) {
        const answer = world.fromInside(addressOf(to), addressOf(from), datagram(to, from));
        expect(answer.wan).toMatchObject([{ src: endpoint(OUTSIDE, port), dst: from }]);
      }
    }
  });

  it('a forward comes before the DMZ host, and both before a mapping', () => {
    const world = new World({ profile: 'full-cone', forward, dmz: { in: 'wan', to: '192.168.1.20' } });
    const seen = world.out('192.168.1.13:4444', S1)!;
    expect(world.in('192.0.2.9:9', `${OUTSIDE}:7000`)).toBe('192.168.1.10:7000');
    expect(world.in('192.0.2.9:9', `${OUTSIDE}:1`)).toBe('192.168.1.20:1');
    expect(world.in('192.0.2.9:9', seen)).toBe('192.168.1.20:4444');
    // The session that the mapping was made for is none of the DMZ host's.
    expect(world.in(S1, seen)).toBe('192.168.1.13:4444');
  });

  it('the DMZ host gets nothing that a host inside sends to the router', () => {
    const world = new World({ dmz: { in: 'wan', to: '192.168.1.20' } });
    expect(
      world
        .fromInside('192.168.1.10', OUTSIDE, datagram('192.168.1.10:1', `${OUTSIDE}:9`))
        .lan.filter((seen) => seen.proto === 17),
    ).toEqual([]);
  });
});

describe('port triggering', () => {
  const trigger = [{ from: 'lan', proto: 'udp', port: 6112, open: { proto: 'udp', port: '6200-6210' }, timeout: 100 }];

  it.each(['linux', 'full-cone'])('%s: what a host sends opens other ports for it, for a while', (profile) => {
    const world = new World({ profile, trigger });
    expect(world.in(S1, `${OUTSIDE}:6205`)).toBeNull();
    world.out('192.168.1.10:4000', '198.51.100.1:6112');
    expect(world.in(S1, `${OUTSIDE}:6205`)).toBe('192.168.1.10:6205');
    expect(world.in(S1, `${OUTSIDE}:6211`)).toBeNull();
    world.wait(101);
    expect(world.in('192.0.2.1:1', `${OUTSIDE}:6206`)).toBeNull();
  });

  it('without hairpins no triggered port was ever open', () => {
    const world = new World({ trigger, hairpin: false });
    world.out('192.168.1.10:4000', '198.51.100.1:6112');
    expect(world.in(S1, `${OUTSIDE}:6205`)).toBe('192.168.1.10:6205');
  });

  it('the last host to pull has the ports', () => {
    const world = new World({ trigger });
    world.out('192.168.1.10:4000', '198.51.100.1:6112');
    world.out('192.168.1.11:4000', '198.51.100.1:6112');
    expect(world.in(S1, `${OUTSIDE}:6200`)).toBe('192.168.1.11:6200');
  });

  it('a packet from outside pulls nothing', () => {
    const forward = [{ in: 'wan', proto: 'udp', port: 6112, to: '192.168.1.10' }];
    const world = new World({ trigger, forward });
    world.in(S1, `${OUTSIDE}:6112`);
    expect(world.in('192.0.2.1:1', `${OUTSIDE}:6200`)).toBeNull();
  });
});

describe('bypass', () => {
  it('routed subnets behind one outside address: some translated, some not', () => {
    const world = new World({ profile: 'full-cone', bypass: [{ from: '10.1.0.0/16' }, { to: '198.51.100.53' }] });
    expect(world.out('10.1.2.3:4000', S1)).toBe('10.1.2.3:4000');
    expect(world.out('10.2.2.3:4000', S1)).toBe(`${OUTSIDE}:4000`);
    expect(world.out('10.2.2.3:4000', '198.51.100.53:53')).toBe('10.2.2.3:4000');
  });
});
