/** Several next hops of one route: RFC 2992 hash-threshold by flow, with weights; changes of a group reach every flow. */
import { describe, expect, test } from 'vitest';
import { applyConfig } from '../../controlplane/apply/index.ts';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { showRoute } from '../../controlplane/show/route.ts';
import * as B from '../lib/build.ts';

const LAN = '02:00:00:00:01:01';
const HOST = '02:00:00:00:00:0a';
const UPLINKS = ['a', 'b', 'c'] as const;

function configuration(routes: readonly object[], mode = 'off'): Record<string, unknown> {
  const ports: Record<string, unknown> = {
    lan: { kind: 'memory', mac: LAN, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
  };
  UPLINKS.forEach((name, n) => {
    ports[name] = {
      kind: 'memory',
      mac: `02:00:00:00:02:0${n}`,
      addresses: [`10.0.${n}.1/24`, `2001:db8:${n}0::1/64`],
    };
  });
  return {
    ports,
    routes,
    neighbors: [
      { port: 'lan', ip: '192.168.1.10', mac: HOST },
      ...UPLINKS.flatMap((port, n) => [
        { port, ip: `10.0.${n}.254`, mac: `02:00:00:00:03:0${n}` },
        { port, ip: `2001:db8:${n}0::fe`, mac: `02:00:00:00:03:0${n}` },
      ]),
    ],
    offload: { mode, 'program-after': 1 },
    conntrack: { max: 4096 },
  };
}

const four = (n: number, more: object = {}) => ({ to: '0.0.0.0/0', via: `10.0.${n}.254`, ...more });
const six = (n: number, more: object = {}) => ({ to: '::/0', via: `2001:db8:${n}0::fe`, ...more });

/** By which uplink a flow leaves. */
function way(router: Router, flow: number, family = 4): string {
  const segment = B.udp({ sport: 1024 + flow, dport: 53 }, 'data');
  const packet =
    family === 4
      ? B.ipv4({ src: '192.168.1.10', dst: '198.51.100.7' }, segment)
      : B.ipv6({ src: '2001:db8:1::10', dst: '2001:db8:77::7' }, segment);
  router.inject('lan', B.ethernet({ src: HOST, dst: LAN }, packet));
  const left = UPLINKS.filter((name) => router.take(name).length > 0);
  return left.join('+') || 'nowhere';
}

function ways(router: Router, flows: number, family = 4): string[] {
  return Array.from({ length: flows }, (_, n) => way(router, n, family));
}

const share = (list: readonly string[], name: string) => list.filter((one) => one === name).length / list.length;

describe('routes of one prefix and metric', () => {
  for (const [family, route] of [
    [4, four],
    [6, six],
  ] as const)
    test(`IPv${family}: share the flows evenly; a flow stays where it is`, () => {
      const router = createRouter(configuration([route(0), route(1), route(2)]));
      const first = ways(router, 600, family);
      for (const name of UPLINKS) expect(Math.abs(share(first, name) - 1 / 3)).toBeLessThan(0.08);
      expect(ways(router, 600, family)).toEqual(first);
    });

  test('weights are the shares', () => {
    const router = createRouter(configuration([four(0, { weight: 5 }), four(1, { weight: 2 }), four(2)]));
    const list = ways(router, 1000);
    expect(Math.abs(share(list, 'a') - 5 / 8)).toBeLessThan(0.06);
    expect(Math.abs(share(list, 'b') - 2 / 8)).toBeLessThan(0.06);
    expect(Math.abs(share(list, 'c') - 1 / 8)).toBeLessThan(0.06);
    const { config, control, tables } = router;
    const { text } = showRoute({ config, control, tables } as never, { family: 'inet' });
    expect(text).toContain(
      'default proto static\n\tnexthop via 10.0.0.254 dev a weight 5\n\tnexthop via 10.0.1.254 dev b weight 2\n\tnexthop via 10.0.2.254 dev c weight 1',
    );
  });

  test('only the lowest metric is used', () => {
    const router = createRouter(
      configuration([four(0, { metric: 10 }), four(1, { metric: 5 }), four(2, { metric: 5 })]),
    );
    expect(new Set(ways(router, 100))).toEqual(new Set(['b', 'c']));
  });
});

describe('a group that changes', () => {
  for (const mode of ['off', 'on'])
    test(`a link that goes down moves its own flows alone, and they come back (engine ${mode})`, () => {
      const router = createRouter(configuration([four(0), four(1), four(2)], mode));
      const before = ways(router, 300);
      expect(ways(router, 300)).toEqual(before);
      router.control.setLink(2, false);
      const meanwhile = ways(router, 300);
      meanwhile.forEach((name, n) => {
        if (before[n] !== 'b') expect(name).toBe(before[n]);
        else expect(['a', 'c']).toContain(name);
      });
      router.control.setLink(2, true);
      expect(ways(router, 300)).toEqual(before);
    });

  test('another configuration: flows that the engine has follow the routes at once', () => {
    const text = (routes: readonly object[]) => configuration(routes, 'on');
    const router = createRouter(text([four(0), four(1)]));
    const before = ways(router, 200);
    ways(router, 200);
    expect(new Set(before)).toEqual(new Set(['a', 'b']));
    expect(applyConfig(router.control, normalizeConfig(text([four(0)]))).refused).toEqual([]);
    router.advance(10);
    expect(new Set(ways(router, 200))).toEqual(new Set(['a']));
    // RFC 2992: where two share equally again, every flow is back where it was.
    applyConfig(router.control, normalizeConfig(text([four(0), four(1)])));
    router.advance(10);
    expect(ways(router, 200)).toEqual(before);
    // With other weights only flows of the region that shrinks move.
    applyConfig(router.control, normalizeConfig(text([four(0, { weight: 3 }), four(1)])));
    router.advance(10);
    const after = ways(router, 200);
    after.forEach((name, n) => {
      if (before[n] === 'a') expect(name).toBe('a');
    });
    expect(share(after, 'a')).toBeGreaterThan(share(before, 'a'));
  });
});

test('a source check takes any of several ways back (RFC 3704 §2.3)', () => {
  const config = configuration([six(0), six(1)]);
  (config.ports as Record<string, Record<string, unknown>>).a['source-check'] = true;
  (config.neighbors as object[]).push({ port: 'lan', ip: '2001:db8:1::10', mac: HOST });
  const router = createRouter(config);
  const from = (src: string) => {
    const packet = B.ipv6({ src, dst: '2001:db8:1::10' }, B.udp({ sport: 1, dport: 2 }, 'data'));
    router.inject('a', B.ethernet({ src: '02:00:00:00:03:00', dst: '02:00:00:00:02:00' }, packet));
    return router.take('lan').length;
  };
  expect(from('2001:db8:77::7')).toBe(1);
  expect(from('2001:db8:20::7')).toBe(0);
});
