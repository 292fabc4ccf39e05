/**
 * Apply: another configuration for a router that runs. It ends up as if it had started with it, whatever it came from;
 * sessions go on where the new one lets them, with the engine on as well; and what cannot be done is refused as a whole.
 */
import { describe, expect, it } from 'vitest';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { VIEWS } from '../../controlplane/show/index.ts';
import { ipv4, ipv6, Random, udp } from '../lib/build.ts';
import { GATE, GATE_MAC, HOST, HOST6, Home, homeConfig, ROUTER_WAN, SERVER, SERVER6 } from '../lib/home.ts';

const OTHER = '203.0.113.253';
const OTHER_MAC = '02:00:00:00:00:fd';
const neighbors = (homeConfig().neighbors as object[]).concat({ port: 'wan', ip: OTHER, mac: OTHER_MAC });

const udp4 = (src: string, dst: string, sport: number, dport: number) =>
  ipv4({ src, dst, proto: 17 }, udp({ sport, dport }, 'payload.'));
const udp6 = (src: string, dst: string, sport: number, dport: number) =>
  ipv6({ src, dst, next: 17 }, udp({ sport, dport }, 'payload.'));
const out = (dport = 53) => udp4(HOST, SERVER, 4000, dport);
const back = (to = ROUTER_WAN) => udp4(SERVER, to, 53, 4000);

describe('apply', () => {
  it.each(['off', 'on', 'verify'])('moves a flow to another route, engine %s: nothing is lost or doubled', (mode) => {
    const offload = { mode, entries: 64, 'program-after': 2 };
    const home = new Home({ neighbors, offload });
    for (let n = 0; n < 8; n++) {
      home.lan(out());
      expect(home.one('wan').dstMac).toBe(GATE_MAC);
      home.wan(back());
      home.one('lan');
    }
    const routes = [{ to: '0.0.0.0/0', via: OTHER }];
    const { refused, lines, ended } = home.router.apply(homeConfig({ neighbors, offload, routes }));
    expect(refused).toEqual([]);
    expect(lines).toContain(`- routes: to=0.0.0.0/0 type=unicast via=${GATE} port=1 metric=0 weight=1 mtu=0 table=0`);
    expect(lines).toContain(`+ routes: to=0.0.0.0/0 type=unicast via=${OTHER} port=1 metric=0 weight=1 mtu=0 table=0`);
    expect(ended).toBe(0);
    for (let n = 0; n < 8; n++) {
      home.lan(out());
      // The very next packet.
      expect(home.one('wan')).toMatchObject({ dstMac: OTHER_MAC, src: ROUTER_WAN, sport: 4000 });
      home.wan(back());
      expect(home.one('lan').dst).toBe(HOST);
    }
    expect(home.router.conntrack.count).toBe(1);
    if (mode !== 'off') expect(home.router.counters.offload.hits).toBeGreaterThan(12);
    expect(home.router.counters.offload.mismatches).toBe(0);
    home.lan(udp6(HOST6, SERVER6, 4000, 53));
    expect(home.dropped).toEqual({ IP_OUTNOROUTES: 1 }); // the new configuration has no IPv6 default route
  });

  it('ends exactly what used an address that is gone', () => {
    const wan = (addresses: string[]) => ({
      ports: {
        ...(homeConfig().ports as object),
        wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses },
      },
    });
    const home = new Home(wan(['203.0.113.1/24', '2001:db8:ffff::1/64']));
    home.lan(out());
    home.lan(udp6(HOST6, SERVER6, 4000, 53));
    home.left('wan');
    expect(home.router.apply(homeConfig(wan(['203.0.113.9/24', '2001:db8:ffff::1/64']))).ended).toBe(1);
    expect(home.router.conntrack.lines().join()).toContain(HOST6);
    home.lan(out());
    expect(home.one('wan').src).toBe('203.0.113.9');
    home.wan(back('203.0.113.9'));
    expect(home.one('lan').dst).toBe(HOST);
  });

  it('lets established connections pass rules that refuse new ones', () => {
    const home = new Home();
    home.lan(out());
    home.wan(back());
    home.left('wan');
    home.left('lan');
    const rules = [{ from: 'lan', to: 'wan', proto: 'udp', verdict: 'drop' }];
    expect(home.router.apply(homeConfig({ rules })).refused).toEqual([]);
    home.lan(out());
    expect(home.one('wan').dport).toBe(53);
    home.lan(out(54));
    expect(home.left('wan')).toEqual([]);
    expect(Object.values(home.dropped)).toEqual([1]);
  });

  it.each([
    ['conntrack.max', { conntrack: { max: 8192 } }, /^conntrack\.max: expected 4096 .*, got 8192; restart/],
    ['offload', { offload: { mode: 'on' } }, /^offload\.mode: expected off .*, got on; restart/],
    [
      'a port more',
      { ports: { ...(homeConfig().ports as object), dmz: { kind: 'memory' } } },
      /^ports: expected .*dmz/,
    ],
    [
      'mappings where there is no table for them',
      { nat: { profile: 'full-cone', masquerade: [{ out: 'wan' }] } },
      /^nat: expected at most 0 mappings/,
    ],
  ])('refuses %s, and changes nothing at all', (_, extra, message) => {
    const home = new Home();
    const before = everything(home.router);
    const routes = [{ to: '0.0.0.0/0', via: OTHER }];
    const applied = home.router.apply(homeConfig({ routes, ...extra }));
    expect(applied.refused.join('\n')).toMatch(message);
    expect(everything(home.router)).toEqual(before);
    expect(home.router.config.routes).toHaveLength(2);
  });

  it('says nothing and does nothing when nothing has changed', () => {
    const home = new Home();
    home.lan(out());
    const epoch = home.router.tables.control[13];
    expect(home.router.apply(homeConfig())).toEqual({ lines: [], refused: [], ended: 0 });
    expect(home.router.tables.control[13]).toBe(epoch);
    expect(home.router.conntrack.count).toBe(1);
  });

  it('from any configuration to any other: the tables are as if it had started so (seed 9)', () => {
    const random = new Random(9);
    const router = createRouter(homeConfig(anything(random)));
    for (let round = 0; round < 150; round++) {
      const next = homeConfig(anything(random));
      expect(router.apply(next).refused).toEqual([]);
      expect(everything(router), `round ${round}`).toEqual(everything(createRouter(next)));
    }
  });
});

/** What a router says of itself, without counters and without the order in which things came. */
function everything(router: Router): unknown {
  const source = { tables: router.tables, control: router.control, config: router.config };
  const json = (view: string) => VIEWS[view](source, {}).json;
  const sorted = (list: unknown) => (list as object[]).map((item) => JSON.stringify(item)).sort();
  const { interfaces, timeouts, helperPorts } = router.tables;
  return {
    route: sorted(json('route')),
    nat: json('nat'),
    link: (json('link') as { addr_info: object[] }[]).map((port) => ({ ...port, addr_info: sorted(port.addr_info) })),
    neigh: sorted(json('neigh')),
    rules: router.control.ruleLabels,
    addresses: [...router.control.addresses]
      .map(({ port, words, prefixLength }) => [port, ...words, prefixLength])
      .sort(),
    interfaces: Array.from(interfaces.words),
    timeouts: Array.from(timeouts),
    helperPorts: Buffer.from(helperPorts).toString('latin1'),
  };
}

/** Sections of a random configuration. */
function anything(random: Random): Record<string, unknown> {
  const some = <T>(items: T[]): T[] => items.filter(() => random.chance(0.5));
  const given = (one: Record<string, unknown[]>) => (Object.values(one)[0].length > 0 ? one : {});
  const port = (name: string, n: number, addresses: string[]) => ({
    kind: 'memory',
    zone: random.pick(['lan', 'wan', 'guest']),
    mac: `02:00:00:00:01:0${n}`,
    ...given({ addresses: some(addresses) }),
    ...(random.chance(0.3) ? { sources: ['02:00:00:00:00:10', ...some(['02:00:00:00:00:11'])] } : {}),
    ...(random.chance(0.3) ? { 'mss-clamp': random.pick([1400, 'pmtu']) } : {}),
    name,
  });
  const strip = ({ name: _, ...rest }: Record<string, unknown>) => rest;
  return {
    ports: {
      lan: strip(port('lan', 1, ['192.168.1.1/24', '192.168.1.2/24', '2001:db8:1::1/64', '2001:db8:1::2/64'])),
      wan: strip(port('wan', 2, ['203.0.113.1/24', '203.0.113.2/25', '198.51.100.1/24', '2001:db8:ffff::1/64'])),
    },
    routes: some([
      { to: '0.0.0.0/0', via: random.pick([GATE, OTHER]), port: 'wan' },
      { to: '::/0', via: '2001:db8:ffff::fe', port: 'wan' },
      { to: '192.168.1.0/24', type: 'blackhole' },
      { to: '203.0.113.0/24', via: '192.168.1.77', port: 'lan' },
      { to: '10.0.0.0/8', type: random.pick(['unreachable', 'prohibit']) },
    ]),
    neighbors: some([
      { port: 'wan', ip: GATE, mac: random.pick([GATE_MAC, OTHER_MAC]) },
      { port: 'lan', ip: HOST, mac: '02:00:00:00:00:10' },
    ]),
    zones: {
      lan: { forward: 'accept', input: random.pick(['accept', 'drop']) },
      wan: { forward: 'drop', input: 'drop' },
      guest: { forward: random.pick(['accept', 'reject']), input: 'drop' },
    },
    rules: some([
      { proto: 'tcp', port: 22, verdict: 'accept' },
      { family: 'ipv6', proto: 'udp', verdict: 'reject' },
    ]),
    nat: {
      masquerade: some([{ out: 'wan', from: '192.168.1.0/24', to: '203.0.113.77' }, { out: 'wan' }]),
      forward: some([{ in: 'wan', proto: 'tcp', port: 8080, to: '192.168.1.10:80' }]),
    },
    alg: { ftp: { ports: random.pick([[21], [21, 2121]]) }, ...(random.chance(0.5) ? { sip: {} } : {}) },
  };
}
