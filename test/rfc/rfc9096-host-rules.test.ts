/**
 * Hosts by name (row F6): rules, port forwards and the DMZ hold for a station by its MAC or interface identifier, whatever
 * prefix the provider gives (flash renumbering, RFC 8978, RFC 9096), and never for its temporary addresses (RFC 8981).
 */
import { describe, expect, test } from 'vitest';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { parseIpv6, type Words } from '../../dataplane/wire/address.ts';
import * as B from '../lib/build.ts';

const NAS = '52:54:00:12:34:56';
const LAN = '02:00:00:00:01:01';
const WAN = '02:00:00:00:01:02';

function home(extra: object = {}, nas: object = { mac: NAS }, lan: object = {}): Router {
  return createRouter({
    ports: {
      lan: { kind: 'memory', mac: LAN, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'], ...lan },
      wan: { kind: 'memory', mac: WAN, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
    },
    routes: [
      { to: '::/0', via: '2001:db8:ffff::fe' },
      { to: '0.0.0.0/0', via: '203.0.113.254' },
    ],
    zones: { lan: { forward: 'accept' }, wan: { forward: 'drop' } },
    hosts: { nas: { port: 'lan', ...nas } },
    rules: [{ from: 'wan', to: 'lan', proto: 'tcp', 'dst-host': 'nas', port: 443, verdict: 'accept', name: 'nas' }],
    offload: { mode: 'off' },
    conntrack: { max: 1024 },
    ...extra,
  });
}

const syn = (packet: (segment: B.Segment) => Uint8Array, dport = 443) =>
  B.ethernet({ src: '02:00:00:00:00:fe', dst: WAN }, packet(B.tcp({ sport: 4000, dport, flags: B.SYN })));

/** Whether a connection from outside to this address would be let in. */
function opens(router: Router, dst: string, dport = 443): boolean {
  const { reason, verdict } = router.explain(
    'wan',
    syn((segment) => B.ipv6({ src: '2001:db8:77::7', dst }, segment), dport),
  );
  if (reason === undefined) expect(verdict).toBe('held');
  else expect(reason).toBe('FILTER_DROP');
  return reason === undefined;
}

/** A list of rules that readers may still use is not written over: the second change waits until they have passed. */
const settle = (router: Router) => router.advance(10);

const renumber = (router: Router, op: 'add' | 'deprecate' | 'remove', address: string) => {
  const words = parseIpv6(address) as Words;
  router.control.protocols.push({
    name: 'isp',
    next: () => -1,
    step: (_now, event) =>
      event.kind === 'event' && event.name === 'isp' && event.data.address === address && event.data.op === op
        ? [{ kind: 'address', op, port: 0, family: 6, words, prefixLength: 64 }]
        : [],
  });
  router.control.handle({ kind: 'event', name: 'isp', data: { address, op } });
  router.control.protocols.pop();
  settle(router);
};

describe('rules', () => {
  test('a MAC is its EUI-64 address in every prefix of the port; temporary addresses stay closed', () => {
    const router = home();
    expect(opens(router, '2001:db8:1::5054:ff:fe12:3456')).toBe(true);
    expect(opens(router, '2001:db8:1::5054:ff:fe12:3456', 80)).toBe(false);
    expect(opens(router, '2001:db8:1::5054:ff:fe12:3457')).toBe(false);
    // One that the same host makes up for a day (RFC 8981).
    expect(opens(router, '2001:db8:1:0:b1a5:77d0:9c3e:12')).toBe(false);
  });

  test('flash renumbering: the new prefix opens at once, the old one while it is deprecated, nothing else', () => {
    const router = home();
    const [old, next] = ['2001:db8:1::5054:ff:fe12:3456', '2001:db8:2::5054:ff:fe12:3456'];
    expect([opens(router, old), opens(router, next)]).toEqual([true, false]);
    router.inject(
      'wan',
      syn((segment) => B.ipv6({ src: '2001:db8:77::7', dst: old }, segment)),
    );
    renumber(router, 'add', '2001:db8:2::1');
    renumber(router, 'deprecate', '2001:db8:1::1');
    expect([opens(router, old), opens(router, next)]).toEqual([true, true]);
    renumber(router, 'remove', '2001:db8:1::1');
    expect(opens(router, next)).toBe(true);
    expect(router.control.ruleLabels.filter((label) => label === 'nas')).toEqual(['nas']);
    // The rule's counter follows it.
    expect(router.control.filter.counter(0).packets).toBe(1);
  });

  test('an interface identifier', () => {
    const router = home({}, { id: '::cafe' });
    expect(opens(router, '2001:db8:1::cafe')).toBe(true);
    expect(opens(router, '2001:db8:1::5054:ff:fe12:3456')).toBe(false);
    renumber(router, 'add', '2001:db8:2::1');
    expect(opens(router, '2001:db8:2::cafe')).toBe(true);
  });

  test('what DHCPv6 has given to the MAC, as long as it has it', () => {
    const router = home();
    const lease = { port: 'lan', prefix: '2001:db8:1::1007/128', via: 'fe80::5054:ff:fe12:3456' };
    const tell = (name: string, data: object) => {
      router.control.handle({ kind: 'event', name, data: { ...lease, ...data } });
      settle(router);
    };
    expect(opens(router, '2001:db8:1::1007')).toBe(false);
    tell('dhcp6.delegated', {});
    tell('dhcp6.delegated', { prefix: '2001:db8:1::1008/128', via: 'fe80::5054:ff:fe12:9999' });
    expect(opens(router, '2001:db8:1::1007')).toBe(true);
    expect(opens(router, '2001:db8:1::1008')).toBe(false);
    tell('dhcp6.withdrawn', {});
    expect(opens(router, '2001:db8:1::1007')).toBe(false);
    expect(opens(router, '2001:db8:1::5054:ff:fe12:3456')).toBe(true);
  });

  test('a rule for a host that has no address matches nothing, not everything', () => {
    const lan = { addresses: '192.168.1.1/24' };
    const routes = [
      { to: '2001:db8:1::/64', port: 'lan' },
      { to: '::/0', via: '2001:db8:ffff::fe' },
    ];
    const router = home({ routes }, { mac: NAS }, lan);
    expect(opens(router, '2001:db8:1::5054:ff:fe12:3456')).toBe(false);
    expect(opens(router, '2001:db8:1::9')).toBe(false);
  });
});

describe('port forwards and the DMZ', () => {
  const nat = {
    forward: [{ in: 'wan', proto: 'tcp', port: 8443, 'to-host': 'nas', 'to-port': 443 }],
    dmz: { in: 'wan', 'to-host': 'nas' },
  };
  const lease = (router: Router, address: string, mac = NAS, seconds = 600) =>
    router.control.handle({
      kind: 'event',
      name: 'dhcp4.lease',
      data: { port: 'lan', address, mac, hostName: '', seconds },
    });
  const target = (router: Router, dport = 8443): string => {
    const { stages } = router.explain(
      'wan',
      syn((segment) => B.ipv4({ src: '198.51.100.7', dst: '203.0.113.1' }, segment), dport),
    );
    return /-> (\S+)/.exec(stages.find(({ stage }) => stage === 'nat-prerouting')?.decided ?? '')?.[1] ?? 'nowhere';
  };

  test('lead to the address that DHCP has given to the MAC, and to the next one', () => {
    const router = home({ nat });
    expect(target(router)).toBe('nowhere');
    lease(router, '192.168.1.50');
    lease(router, '192.168.1.51', '52:54:00:00:00:99');
    expect(target(router)).toBe('192.168.1.50:443');
    expect(target(router, 9999)).toBe('192.168.1.50:9999');
    router.control.handle({
      kind: 'event',
      name: 'dhcp4.released',
      data: { port: 'lan', address: '192.168.1.50', mac: NAS },
    });
    expect(target(router)).toBe('nowhere');
    lease(router, '192.168.1.77');
    expect(target(router)).toBe('192.168.1.77:443');
    router.advance(601_000);
    expect(target(router)).toBe('nowhere');
  });

  test('before there is a lease: the reservation, or a static neighbour', () => {
    const dhcp4 = {
      server: { range: '192.168.1.100-192.168.1.200', reservations: [{ mac: NAS, address: '192.168.1.150' }] },
    };
    expect(target(home({ nat }, { mac: NAS }, { dhcp4 }))).toBe('192.168.1.150:443');
    // That of a subnet behind a relay is for when it is there.
    const relayed = [{ subnet: '10.1.0.0/24', range: '10.1.0.50-10.1.0.60' }];
    const reservations = [{ mac: NAS, address: '10.1.0.77' }, ...dhcp4.server.reservations];
    const both = { server: { ...dhcp4.server, relayed, reservations } };
    expect(target(home({ nat }, { mac: NAS }, { dhcp4: both }))).toBe('192.168.1.150:443');
    const neighbors = [{ port: 'lan', ip: '192.168.1.9', mac: NAS }];
    expect(target(home({ nat, neighbors }))).toBe('192.168.1.9:443');
  });
});

test('faults are named with their place', () => {
  const fault = (extra: object, nas: object = { mac: NAS }) => {
    const ports = { lan: { kind: 'memory', addresses: '192.168.1.1/24' }, wan: { kind: 'memory' } };
    try {
      normalizeConfig({ ports, hosts: { nas: { port: 'lan', ...nas } }, ...extra });
      return '';
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(fault({ rules: [{ 'dst-host': 'nsa', verdict: 'accept' }] })).toBe(
    'rules[0].dst-host: expected the name of a host of "hosts", got "nsa"; did you mean "nas"?',
  );
  expect(fault({}, {})).toBe('hosts.nas: expected "mac", "id" or both, got neither');
  expect(fault({}, { id: '2001:db8::1' })).toBe(
    'hosts.nas.id: expected an interface identifier, 64 bits, such as ::5054:ff:fe12:3456, got "2001:db8::1"',
  );
  expect(fault({ nat: { dmz: { in: 'wan', 'to-host': 'nas' } } }, { id: '::1:2' })).toBe(
    'nat.dmz.to-host: expected a host with a "mac", as IPv4 has no interface identifiers, got "nas"',
  );
  expect(fault({ nat: { forward: [{ in: 'wan', port: 80 }] } })).toBe(
    'nat.forward[0].to: expected either "to" or "to-host", got neither',
  );
});
