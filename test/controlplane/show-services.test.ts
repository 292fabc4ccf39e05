/**
 * `show leases`, `ra`, `dns` and `gateway`; and row D6: what a relay writes into option 82.2 and into option 37 behind its
 * enterprise number names one line, by which leases of both families are found together.
 *
 *   client ═ [relay] ═ [isp]
 *
 * Here domains are in the router's own thread, and answer at once; in threads of their own: live/domains-threads.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { Dhcp4Server } from '../../controlplane/dhcp4/server.ts';
import { metricsText } from '../../controlplane/metrics/prometheus.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { DOMAIN_VIEWS, type Shown, VIEWS } from '../../controlplane/show/index.ts';
import { Wire } from '../lib/wire.ts';

const make = (ports: Record<string, unknown>, extra: Record<string, unknown> = {}): Router =>
  createRouter(
    { ports, offload: { mode: 'off' }, conntrack: { max: 512 }, ...extra },
    { unasked: true, slots: { small: 256, large: 4 } },
  );
const views = { ...VIEWS, ...DOMAIN_VIEWS };
const show = (router: Router, what: string, filters = {}) => views[what](router, filters) as Shown;
const json = (router: Router, what: string, filters = {}) => show(router, what, filters).json as never;
const text = (router: Router, what: string) => show(router, what).text;
const MAC = '02:00:00:00:00:07';

/** @param known the one line that is served; null: any is */
function world(known: string | null) {
  const clients = known === null ? 'any' : 'known';
  const lines = known === null ? [] : [{ 'remote-id': known }];
  const isp = make(
    {
      up: {
        kind: 'memory',
        mac: '02:00:00:00:09:01',
        addresses: ['192.0.2.1/24', '2001:db8:0:2::547/64'],
        dhcp4: {
          server: {
            range: '192.0.2.100-192.0.2.110',
            clients,
            reservations: lines.map((line) => ({ ...line, address: '10.1.0.77' })),
            relayed: [{ subnet: '10.1.0.0/24', range: '10.1.0.100-10.1.0.110' }],
          },
        },
        dhcp6: { server: { delegate: 'homes', identify: 'remote-id', clients, relays: '2001:db8:0::/48' } },
      },
    },
    {
      routes: [
        { to: '10.1.0.0/24', via: '192.0.2.9' },
        { to: '2001:db8:0:1::/64', via: '2001:db8:0:2::9' },
      ],
      delegation: { pools: { homes: { prefix: '2001:db8:ff00::/40', length: 60 } }, clients: lines },
    },
  );
  const relay = make({
    lan: {
      kind: 'memory',
      mac: '02:00:00:00:08:01',
      addresses: ['10.1.0.1/24', '2001:db8:0:1::1/64'],
      dhcp4: { relay: { to: '192.0.2.1' } },
      dhcp6: { relay: { to: '2001:db8:0:2::547' } },
    },
    up: { kind: 'memory', mac: '02:00:00:00:08:02', addresses: ['192.0.2.9/24', '2001:db8:0:2::9/64'] },
  });
  const client = make({
    wan: { kind: 'memory', mac: MAC, dhcp4: { client: {} }, dhcp6: { client: { 'ia-na': false, 'ia-pd': [{}] } } },
  });
  const wire = new Wire();
  wire.join({ router: isp, port: 'up' }, { router: relay, port: 'up' });
  wire.join({ router: relay, port: 'lan' }, { router: client, port: 'wan' });
  wire.advance(20_000);
  return isp;
}

describe('show leases', () => {
  it('row D6: option 82.2 and option 37 without its enterprise number are one line', () => {
    const isp = world(null);
    expect(json(isp, 'leases')).toEqual([
      {
        line: MAC,
        ipv4: [expect.objectContaining({ address: '10.1.0.100', mac: MAC, state: 'bound', dev: 'up' })],
        ipv6: [
          expect.objectContaining({ prefix: expect.stringMatching(/^2001:db8:ff.*\/60$/), client: `remote-id:${MAC}` }),
        ],
      },
    ]);
    expect(json(isp, 'leases', { line: MAC })).toHaveLength(1);
    expect(json(isp, 'leases', { line: '02:00:00:00:00:08' })).toEqual([]);
    expect(text(isp, 'leases')).toMatch(
      /^line 02:00:00:00:00:07:\n {2}10\.1\.0\.100 dev up bound \d+ s\n {2}2001:db8:ff/,
    );
  });

  it('the metrics have them by family and port, and none of a family whose domain is down', async () => {
    const isp = world(null);
    const page = async () =>
      (await metricsText(isp)).split('\n').filter((line) => line.startsWith('sluice_dhcp_leases'));
    expect(await page()).toEqual([
      'sluice_dhcp_leases{family="inet",port="up"} 1',
      'sluice_dhcp_leases{family="inet6",port="up"} 0',
      'sluice_dhcp_leases{family="inet6",port=""} 1',
    ]);
    const { domains } = isp.control;
    const ask = domains.ask.bind(domains);
    domains.ask = (name, what) => (name === 'ipv6' ? Promise.reject(new Error('down')) : ask(name, what));
    expect(await page()).toEqual(['sluice_dhcp_leases{family="inet",port="up"} 1']);
  });

  it('row D4: with clients: known, a line that is not configured gets no answer of either family', () => {
    const isp = world('02:00:00:00:00:08');
    expect(json(isp, 'leases')).toEqual([]);
    expect(text(isp, 'leases')).toBe('no leases');
    expect(isp.control.domains.dhcp6?.counters.faults['unknown-client']).toBeGreaterThan(0);
    expect(isp.control.domains.dhcp6?.counters.sent).toEqual({});
    const server = isp.control.protocols.find((one) => one instanceof Dhcp4Server);
    expect(server?.counters).toMatchObject({ offers: 0, acks: 0, naks: 0 });
    expect(server?.counters.unknown).toBeGreaterThan(0);
  });

  it('row D4: one that is configured gets what is reserved for it, by what its relay says', () => {
    expect(json(world(MAC), 'leases')).toMatchObject([
      { line: MAC, ipv4: [{ address: '10.1.0.77' }], ipv6: [{ client: `remote-id:${MAC}` }] },
    ]);
  });
});

describe('show ra, dns and gateway', () => {
  it('say what a home has announced, asks and is', async () => {
    const isp = make(
      {
        access: {
          kind: 'memory',
          mac: '02:00:00:00:09:01',
          addresses: ['203.0.113.1/24', '2001:db8:0:1::1/64'],
          ra: { managed: true, default: 'always', autonomous: false },
          dhcp4: { server: { range: '203.0.113.100-203.0.113.199', dns: '203.0.113.53' } },
          dhcp6: { server: { delegate: 'home', dns: '2001:db8:0:1::53' } },
        },
      },
      { delegation: { pools: { home: { prefix: '2001:db8:100::/40', length: 56 } } } },
    );
    const home = make(
      {
        lan: { kind: 'memory', mac: '02:00:00:00:01:01', addresses: '192.168.1.1/24' },
        wan: { kind: 'memory', mac: '02:00:00:00:01:02' },
      },
      { gateway: { wan: 'wan', lan: 'lan' }, dns: {} },
    );
    const wire = new Wire();
    wire.join({ router: isp, port: 'access' }, { router: home, port: 'wan' });
    wire.advance(20_000);
    expect(json(home, 'gateway')).toMatchObject({
      mode: 'dual',
      wan: 'wan',
      lan: ['lan'],
      states: { v4: 'online', v6: 'online' },
    });
    expect(text(home, 'gateway')).toMatch(/IPv4: online\nIPv6: online\n {2}(lan|wan) 2001:db8:1/);
    const ra = json(home, 'ra') as {
      senders: { dev: string; prefixes: string[] }[];
      routers: { prefix: string; router: string }[];
    };
    expect(ra.senders).toMatchObject([
      { dev: 'lan', prefixes: expect.arrayContaining([expect.stringMatching(/^2001:db8:1.*\/64$/)]) },
    ]);
    expect(ra.routers).toMatchObject([{ prefix: '::/0', router: 'fe80::ff:fe00:901', preference: 'medium' }]);
    expect(json(home, 'dns')).toMatchObject({
      servers: expect.arrayContaining(['203.0.113.53', '2001:db8:0:1::53']),
      cache: { entries: 0 },
    });
    const metrics = await metricsText(home);
    for (const line of ['gateway_online{family="inet"} 1', 'gateway_online{family="inet6"} 1', 'dns_cache_entries 0'])
      expect(metrics).toContain(`\nsluice_${line}\n`);
    expect(metrics).toMatch(/^sluice_dns_questions_total\{what="queries"\} 0$/m);
    expect(text(isp, 'dns')).toBe('the router answers no questions');
    expect(text(isp, 'gateway')).toBe('the router is no gateway');
    expect(text(make({ lan: { kind: 'memory', mac: MAC } }), 'ra')).toBe(
      'no port sends or hears router advertisements',
    );
    expect(() => show(home, 'ra', { family: '4' })).toThrow(RangeError);
  });
});
