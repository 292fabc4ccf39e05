/** Policy routing: which packets ask which table, in which order, and what follows from it (row V5). */
import { describe, expect, test } from 'vitest';
import { applyConfig } from '../../controlplane/apply/index.ts';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { showRoute } from '../../controlplane/show/route.ts';
import * as B from '../lib/build.ts';

const HOST = '02:00:00:00:00:0a';
const MACS: Record<string, string> = { lan: '02:00:00:00:01:01', guest: '02:00:00:00:01:02' };

function configuration(
  rules: readonly object[],
  routes: readonly object[] = [],
  mode = 'off',
): Record<string, unknown> {
  return {
    ports: {
      lan: { kind: 'memory', mac: MACS.lan, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
      guest: { kind: 'memory', mac: MACS.guest, addresses: ['192.168.2.1/24', '2001:db8:2::1/64'] },
      one: { kind: 'memory', mac: '02:00:00:00:02:01', addresses: ['10.0.1.1/24', '2001:db8:10::1/64'] },
      two: { kind: 'memory', mac: '02:00:00:00:02:02', addresses: ['10.0.2.1/24', '2001:db8:20::1/64'] },
    },
    routes: [
      { to: '0.0.0.0/0', via: '10.0.1.254' },
      { to: '::/0', via: '2001:db8:10::fe' },
      { to: '0.0.0.0/0', via: '10.0.2.254', table: 'isp2' },
      { to: '::/0', via: '2001:db8:20::fe', table: 'isp2' },
      ...routes,
    ],
    'routing-rules': rules,
    neighbors: [
      { port: 'one', ip: '10.0.1.254', mac: '02:00:00:00:03:01' },
      { port: 'one', ip: '2001:db8:10::fe', mac: '02:00:00:00:03:01' },
      { port: 'two', ip: '10.0.2.254', mac: '02:00:00:00:03:02' },
      { port: 'two', ip: '2001:db8:20::fe', mac: '02:00:00:00:03:02' },
      { port: 'guest', ip: '192.168.2.10', mac: HOST },
    ],
    offload: { mode, 'program-after': 1 },
    conntrack: { max: 1024 },
  };
}

interface Sent {
  from?: string;
  src?: string;
  dst?: string;
  dscp?: number;
  sport?: number;
  dport?: number;
  tcp?: boolean;
}

/** By which port a packet leaves. */
function way(router: Router, sent: Sent = {}): string {
  const { from = 'lan', src = '192.168.1.10', dst = '198.51.100.7', dscp = 0, sport = 4000, dport = 53 } = sent;
  const segment = sent.tcp ? B.tcp({ sport, dport, flags: B.SYN }) : B.udp({ sport, dport }, 'data');
  const packet = src.includes(':')
    ? B.ipv6({ src, dst, tclass: dscp << 2 }, segment)
    : B.ipv4({ src, dst, tos: dscp << 2 }, segment);
  router.inject(from, B.ethernet({ src: HOST, dst: MACS[from] }, packet));
  return ['lan', 'guest', 'one', 'two'].filter((name) => router.take(name).length > 0).join('+') || 'nowhere';
}

const ROUTED6 = { src: '2001:db8:1::10', dst: '2001:db8:77::7' };

describe('what a rule looks at', () => {
  test('no rules: the main table', () => {
    const router = createRouter(configuration([]));
    expect([way(router), way(router, ROUTED6)]).toEqual(['one', 'one']);
    expect(router.tables.policyRoutes).toEqual([]);
  });

  test('the source, in both families', () => {
    const router = createRouter(configuration([{ src: ['192.168.1.0/28', '2001:db8:1::/64'], table: 'isp2' }]));
    expect(way(router)).toBe('two');
    expect(way(router, { src: '192.168.1.16' })).toBe('one');
    expect(way(router, ROUTED6)).toBe('two');
    expect(way(router, { ...ROUTED6, src: '2001:db8:5::1' })).toBe('one');
  });

  test('the port or zone that it enters by', () => {
    const router = createRouter(configuration([{ from: 'guest', table: 'isp2' }]));
    expect(way(router)).toBe('one');
    expect(way(router, { from: 'guest', src: '192.168.2.10' })).toBe('two');
    expect(way(router, { ...ROUTED6, from: 'guest' })).toBe('two');
  });

  test('DSCP, of each packet of a flow by itself, also with the engine on', () => {
    for (const mode of ['off', 'on']) {
      const router = createRouter(configuration([{ dscp: [46, 34], table: 'isp2' }], [], mode));
      for (let round = 0; round < 6; round++) {
        expect([0, 34, 46, 45].map((dscp) => way(router, { dscp }))).toEqual(['one', 'two', 'two', 'one']);
        expect([0, 34, 46, 45].map((dscp) => way(router, { ...ROUTED6, dscp }))).toEqual(['one', 'two', 'two', 'one']);
      }
    }
  });

  test('protocol, ports, destination and family', () => {
    const router = createRouter(
      configuration([
        { proto: 'udp', port: '5060-5061', table: 'isp2' },
        { proto: ['tcp', 'udp'], sport: 9999, table: 'isp2' },
        { dst: '203.0.113.0/24', table: 'isp2' },
        { family: 'ipv6', proto: 'tcp', table: 'isp2' },
      ]),
    );
    expect([5059, 5060, 5061, 5062].map((dport) => way(router, { dport }))).toEqual(['one', 'two', 'two', 'one']);
    expect(way(router, { dport: 5060, tcp: true })).toBe('one');
    expect(way(router, { sport: 9999, tcp: true })).toBe('two');
    expect(way(router, { dst: '203.0.113.9' })).toBe('two');
    expect(way(router, { ...ROUTED6, tcp: true })).toBe('two');
    expect(way(router, ROUTED6)).toBe('one');
  });
});

describe('the order', () => {
  test('the first rule whose table has a route; then the main table', () => {
    const router = createRouter(
      configuration(
        [
          { src: '192.168.1.0/24', table: 'narrow' },
          { dst: '192.168.0.0/16', table: 'main' },
          { src: '192.168.1.0/24', table: 'isp2' },
        ],
        [
          { to: '203.0.113.0/24', via: '10.0.1.254', table: 'narrow' },
          { to: '203.0.113.7/32', type: 'blackhole', table: 'narrow' },
        ],
      ),
    );
    expect(way(router, { dst: '203.0.113.9' })).toBe('one');
    expect(way(router, { dst: '203.0.113.7' })).toBe('nowhere');
    expect(router.counters.dropped).toEqual({ IP_BLACKHOLE: 1 });
    expect(way(router)).toBe('two');
    // `table: main` lets neighbours of the router past the default route of another table.
    expect(way(router, { dst: '192.168.2.10' })).toBe('guest');
    expect(way(router, { src: '192.168.9.9' })).toBe('one');
  });

  test('what is for the router itself is for the router itself', () => {
    const router = createRouter(configuration([{ table: 'isp2' }]));
    const ping = B.ipv4({ src: '192.168.1.10', dst: '192.168.1.1' }, B.icmp({ type: 8 }, 'ping'));
    expect(router.explain('lan', B.ethernet({ src: HOST, dst: MACS.lan }, ping)).verdict).toBe('delivered');
    // Its own packets have sources too.
    expect(way(router)).toBe('two');
  });

  test('while a scan went on, the main table’s next hop decided over packets that a rule sends elsewhere', () => {
    const router = createRouter(configuration([{ proto: 'udp', port: 5060, table: 'isp2' }]));
    for (let n = 2; n < 200; n++) way(router, { dst: `10.0.1.${n}` });
    expect(router.counters.dropped.NEIGH_RATE).toBeGreaterThan(0);
    expect(way(router, { dst: '10.0.1.200' })).toBe('nowhere');
    expect(way(router, { dst: '10.0.1.201', dport: 5060 })).toBe('two');
  });

  test('a table may share the load', () => {
    const router = createRouter(
      configuration(
        [{ src: '192.168.1.0/24', table: 'both' }],
        [
          { to: '0.0.0.0/0', via: '10.0.1.254', table: 'both' },
          { to: '0.0.0.0/0', via: '10.0.2.254', table: 'both' },
        ],
      ),
    );
    const ways = Array.from({ length: 64 }, (_, n) => way(router, { sport: 5000 + n }));
    expect(new Set(ways)).toEqual(new Set(['one', 'two']));
    expect(Array.from({ length: 64 }, (_, n) => way(router, { sport: 5000 + n }))).toEqual(ways);
  });
});

test('explain names table and rule; show route prints the tables', () => {
  const router = createRouter(configuration([{ src: '192.168.1.0/24', table: 'isp2' }]));
  const packet = B.ipv4({ src: '192.168.1.10', dst: '198.51.100.7' }, B.udp({ sport: 1, dport: 2 }, 'data'));
  const { stages } = router.explain('lan', B.ethernet({ src: HOST, dst: MACS.lan }, packet));
  expect(stages.find(({ stage }) => stage === 'route')).toMatchObject({
    looked_up: '198.51.100.7 in the IPv4 routes, table isp2 by a rule',
    found: '/0 via 10.0.2.254 dev two',
    decided: 'out by two, next hop 10.0.2.254',
    where: 'routing-rules[0]',
  });
  const { config, control, tables } = router;
  const { text } = showRoute({ config, control, tables } as never, { family: 'inet' });
  expect(text.split('\n')).toContain('default via 10.0.2.254 dev two table isp2 proto static');
});

test('another configuration: routes and rules change, and flows that the engine has follow', () => {
  const router = createRouter(configuration([{ src: '192.168.1.0/24', table: 'isp2' }], [], 'on'));
  for (let n = 0; n < 6; n++) expect(way(router)).toBe('two');
  const apply = (rules: readonly object[], routes: readonly object[] = []) => {
    const { refused } = applyConfig(router.control, normalizeConfig(configuration(rules, routes, 'on')));
    router.advance(10);
    return refused;
  };
  expect(apply([{ src: '192.168.7.0/24', table: 'isp2' }])).toEqual([]);
  expect(way(router)).toBe('one');
  expect(apply([{ src: '192.168.1.0/24', table: 'isp2' }])).toEqual([]);
  expect(way(router)).toBe('two');
  expect(
    apply([{ src: '192.168.1.0/24', table: 'isp2' }], [{ to: '198.51.100.0/24', via: '10.0.1.254', table: 'isp2' }]),
  ).toEqual([]);
  expect([way(router), way(router, { dst: '192.0.2.1' })]).toEqual(['one', 'two']);
  expect(apply([])).toEqual([]);
  expect(way(router, { dst: '192.0.2.1' })).toBe('one');
  // More tables than it has started with.
  expect(apply([{ table: 'isp2' }], [{ to: '0.0.0.0/0', via: '10.0.1.254', table: 'isp3' }])).toEqual([
    'routing-rules: expected at most 1 tables as this router has started with, got 2; restart the router',
  ]);
});

test('faults are named with their place', () => {
  const fault = (rule: object) => {
    try {
      normalizeConfig(configuration([rule]));
      return '';
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(fault({ table: 'isp3' })).toBe(
    'routing-rules[0].table: expected a table that a route names, got "isp3"; did you mean "isp2"?',
  );
  expect(fault({ dscp: 64, table: 'isp2' })).toBe('routing-rules[0].dscp: expected a DSCP from 0 to 63, got 64');
  expect(fault({ port: 53, table: 'isp2' })).toBe(
    'routing-rules[0].port: expected "port" with protocols that have ports only, got no "proto"; add "proto: tcp"',
  );
  const { warnings } = normalizeConfig(configuration([]));
  expect(warnings.filter((text) => text.includes('isp2'))).toEqual(['routes[2]: no rule leads to table isp2']);
});
