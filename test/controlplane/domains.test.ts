/**
 * Domains of the control plane, in one thread: what a restart takes away, what it leaves, what outlives it; a domain that
 * throws. The same with threads and real programs: test/lab/domains-live.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import { Control } from '../../controlplane/control.ts';
import type { Told } from '../../controlplane/protocol.ts';
import type { Router } from '../../controlplane/router.ts';
import { showDomains } from '../../controlplane/show/domains.ts';
import { createTables, DEFAULT_SIZES, Tables } from '../../dataplane/tables.ts';
import { parseIpv4 } from '../../dataplane/wire/address.ts';
import * as B from '../lib/build.ts';
import { customer, Net, provider, relayedNet } from './dhcp6/net.ts';
import { addresses, states, world } from './gateway-world.ts';

const HOST = '192.168.1.50';
const HOST_MAC = '02:00:00:00:00:50';
const SERVER = '203.0.113.1';
/** What the provider gives next. */
const OTHER = [parseIpv4('203.0.113.101') ?? 0, 0, 0, 0] as const;

/** Datagram n of a host of the LAN to the provider's router. */
function datagram(n: number): Uint8Array {
  const payload = B.udp({ sport: 4000, dport: 9 }, String(n));
  return B.ethernet({ src: HOST_MAC, dst: '02:00:00:00:01:01' }, B.ipv4({ src: HOST, dst: SERVER }, payload));
}

const neighbours = ({ tables: { neighbours: table } }: Router, family: 4 | 6) =>
  Array.from({ length: table.capacity }, (_, n) => n).filter((n) => table.familyOf(n) === family);
const routes = (router: Router) => [4, 6].map((family) => router.tables.hasDefault(family as 4 | 6));
const book = (router: Router) => [0, 1, 2].map((port) => addresses(router, port));

/** A home that is online, with a connection of its LAN; the router's frames go on between two calls. */
function online() {
  const w = world();
  const { router } = w.home;
  w.wire.advance(14_000);
  expect(states(router)).toEqual({ v4: 'online', v6: 'online' });
  router.inject('lan', datagram(0));
  w.wire.advance(50);
  expect(router.conntrack.count).toBeGreaterThan(0);
  w.home.told.length = 0;
  return { ...w, router };
}

/** Sends a datagram every 10 ms while time passes, calls `restart` in the middle; returns those that were sent on. */
function through(w: ReturnType<typeof online>, count: number, restart: () => void): number {
  const before = w.heard.length;
  for (let n = 1; n <= count; n++) {
    if (n === count >> 1) restart();
    w.router.inject('lan', datagram(n));
    w.wire.advance(10);
  }
  const payloads = w.heard
    .slice(before)
    .filter(({ from, frame: f }) => from === w.router && B.get16(f, 12) === 0x0800 && f[23] === 17)
    .filter(({ frame: f }) => B.get16(f, 36) === 9)
    .map(({ frame: f }) => Buffer.from(f.subarray(42, 14 + B.get16(f, 16))).toString());
  return new Set(payloads).size;
}

describe('restart ipv6', () => {
  it('loses no packet of IPv4, and leaves its neighbours, addresses and protocols as they are', () => {
    const w = online();
    const { router } = w;
    const [four, six] = [neighbours(router, 4), neighbours(router, 6)];
    expect(four.length).toBeGreaterThan(0);
    expect(six.length).toBeGreaterThan(0);
    const client = router.control.protocols.find(({ name }) => name === 'dhcp4-client');
    expect(client).toBeDefined();
    expect(through(w, 200, () => router.restart('ipv6'))).toBe(200);
    expect(router.control.protocols.find(({ name }) => name === 'dhcp4-client')).toBe(client);
    expect(neighbours(router, 4)).toEqual(expect.arrayContaining(four));
  });

  it('keeps what it had learned until it is learned again: hosts hear of no change', () => {
    const { router, wire, home } = online();
    const before = book(router);
    expect(routes(router)).toEqual([true, true]);
    router.restart('ipv6');
    expect(neighbours(router, 6)).toEqual([]);
    expect(book(router)).toEqual(before);
    expect(routes(router)).toEqual([true, true]);
    wire.advance(100_000, 50);
    expect(states(router)).toEqual({ v4: 'online', v6: 'online' });
    expect(book(router)).toEqual(before);
    expect(routes(router)).toEqual([true, true]);
    expect(home.told.filter((line) => line.includes(' remove ') || line.startsWith('v4'))).toEqual([]);
    expect(router.control.domains.health.map(({ domain, restarts, failures }) => [domain, restarts, failures])).toEqual(
      [
        ['ipv4', 0, 0],
        ['ipv6', 1, 0],
        ['management', 0, 0],
      ],
    );
  });

  it('takes away after a minute what nobody has said again', () => {
    const { router } = online();
    const before = book(router);
    router.restart('ipv6');
    // The cable is cut: no router answers, no server.
    router.advance(50_000);
    expect(book(router)).toEqual(before);
    router.advance(11_000);
    const left = book(router)
      .flat()
      .filter((text) => text.startsWith('2001:db8'));
    expect(left).toEqual([]);
    expect(routes(router)).toEqual([true, false]);
    expect(book(router).flat()).toContain('203.0.113.100/24 preferred');
  });
});

describe('restart ipv4', () => {
  it('keeps the leased address until the client has it again: connections through NAT live on', () => {
    const w = online();
    const { router } = w;
    const before = book(router);
    const count = router.conntrack.count;
    const six = neighbours(router, 6);
    router.restart('ipv4');
    expect(neighbours(router, 4)).toEqual([]);
    expect(neighbours(router, 6)).toEqual(six);
    w.wire.advance(100_000, 50);
    expect(states(router).v4).toBe('online');
    expect(book(router)).toEqual(before);
    expect(router.tables.hasDefault(4)).toBe(true);
    expect(count).toBeGreaterThan(0);
    expect(w.home.told.filter((line) => line.startsWith('v6'))).toEqual([]);
  });

  it('another address in the new lease takes the place of the old one, whose connections end', () => {
    const w = online();
    const { router } = w;
    const mine = () => router.conntrack.lines().filter((line) => line.includes(HOST)).length;
    expect(mine()).toBe(1);
    router.restart('ipv4');
    const port = 2;
    router.control.protocols.push({
      name: 'client of the new lease',
      next: () => -1,
      step: (_now, event) =>
        event.kind === 'event' && event.name === 'speak'
          ? [
              {
                kind: 'address',
                op: 'add',
                port,
                family: 4,
                words: [...OTHER],
                prefixLength: 24,
              },
            ]
          : [],
    });
    router.control.handle({ kind: 'event', name: 'speak', data: {} });
    expect(addresses(router, port).filter((text) => text.includes('.'))).toHaveLength(1);
    expect(mine()).toBe(0);
  });
});

it('routes of a DHCPv6 relay are found again, with the end that they had', () => {
  const n = relayedNet({ client: { 'ia-na': false }, server: { preferred: 150, valid: 200 } });
  n.advance(6000);
  const before = n.routes('relay');
  expect(before).toHaveLength(1);
  const { relay } = n.routers;
  relay.restart('ipv6');
  // Nobody renews: the relay alone goes on.
  relay.advance(100_000);
  expect(n.routes('relay')).toEqual(before);
  relay.advance(105_000);
  expect(n.routes('relay')).toEqual([]);
});

it('a DHCPv6 client that is made while its link is down asks as soon as that is up', () => {
  const n = new Net();
  n.add('isp', provider({ delegate: 'customers' }));
  const cpe = n.add('cpe', customer({ 'ia-na': false, 'ia-pd': [{}] }));
  n.wire('cpe.wan', 'isp.lan');
  cpe.advance(5000);
  cpe.setLink('wan', false);
  cpe.restart('ipv6');
  cpe.advance(1_800_000);
  cpe.setLink('wan', true);
  n.advance(8000);
  expect(n.dhcp6('cpe').clients[0].held.length).toBe(1);
});

describe('a domain that throws', () => {
  const told: Told[] = [];
  const warnings: string[] = [];
  const config = normalizeConfig({
    ports: { lan: { kind: 'memory', mac: '02:00:00:00:01:01', addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] } },
    offload: { mode: 'off' },
  });
  const tables = new Tables(createTables({ ...DEFAULT_SIZES, connections: 64, workers: 1 }, 1), 0);
  const control = new Control(
    tables,
    config,
    { send: () => {}, output: () => {} },
    {
      quiet: true,
      contain: true,
      log: (level, message) => level === 'warn' && warnings.push(message),
      tell: (one) => told.push(one),
      wall: (clock) => clock,
    },
  );
  const nd = () => control.protocols.find(({ name }) => name === 'nd')!;
  const pass = (milliseconds: number): void => {
    tables.control[0] += milliseconds;
    control.tick();
  };

  it('is made anew after a moment; the other one is not touched; it is counted and told', () => {
    const [arp, broken] = [control.protocols.find(({ name }) => name === 'arp'), nd()];
    let stepped = 0;
    broken.step = () => {
      stepped++;
      throw new TypeError('a defect');
    };
    control.tick();
    expect(control.domains.health.find(({ domain }) => domain === 'ipv6')).toMatchObject({
      state: 'down',
      restarts: 1,
      failures: 1,
    });
    expect(warnings[0]).toMatch(/^the ipv6 domain has failed and starts again: nd, tick event: TypeError: a defect/);
    expect(told.map(({ name, data }) => [name, data.domain])).toEqual([['domain.restarted', 'ipv6']]);
    control.tick();
    expect(stepped).toBe(1);
    expect(control.next()).toBe(10);
    pass(10);
    expect(control.domains.health.find(({ domain }) => domain === 'ipv6')).toMatchObject({ state: 'running' });
    expect(nd()).not.toBe(broken);
    expect(control.protocols.find(({ name }) => name === 'arp')).toBe(arp);
    expect(showDomains({ tables, config, control }, {}).text).toContain(
      'ipv6: running, main thread, restarts 1, failures 1',
    );
  });

  it('rests longer when it throws again soon', () => {
    const rests: number[] = [];
    for (let n = 0; n < 4; n++) {
      nd().step = () => {
        throw new Error('again');
      };
      control.tick();
      rests.push(control.next());
      pass(control.next());
    }
    expect(rests).toEqual([20, 40, 80, 160]);
  });
});
