/**
 * Security groups (row F4): source address validation by what DHCP, DHCPv6, router advertisements and the configuration
 * have given to whom (RFC 7039, RFC 7513), and the list of what may be said on link-local addresses.
 */
import { describe, expect, test, vi } from 'vitest';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { BindingWriter } from '../../dataplane/bindings.ts';
import { formatAddress } from '../../dataplane/wire/address.ts';
import { customer, Net, relayedNet } from '../controlplane/dhcp6/net.ts';
import * as B from '../lib/build.ts';
import { Wire } from '../lib/wire.ts';

const GATE = '02:00:00:00:0a:01';
const VM = '52:54:00:00:00:01';
const EVIL = '52:54:00:00:00:66';
const LL = 'fe80::5054:ff:fe00:1';
const EVIL_LL = 'fe80::5054:ff:fe00:66';
const OUTSIDE = '2001:db8:9::9';

function gate(group: object, more: object = {}, extra: object = {}): Router {
  return createRouter({
    ports: {
      vms: {
        kind: 'memory',
        mac: GATE,
        addresses: ['192.0.2.1/24', '2001:db8:0:1::1/64'],
        'security-group': group,
        ...more,
      },
      out: { kind: 'memory', mac: '02:00:00:00:0a:02', addresses: ['198.51.100.1/24', '2001:db8:9::1/64'] },
    },
    neighbors: [
      { port: 'out', ip: OUTSIDE, mac: '02:00:00:00:00:fe' },
      { port: 'out', ip: '198.51.100.9', mac: '02:00:00:00:00:fe' },
    ],
    offload: { mode: 'on' },
    conntrack: { max: 1024 },
    ...extra,
  });
}

const dropped = (router: Router, reason: string) => (router.counters.dropped as Record<string, number>)[reason] ?? 0;

/** The reason why a packet that a station sends is dropped; `passes` when it is not. */
function fate(router: Router, packet: Uint8Array, src = VM, dst = GATE): string {
  const frame = B.ethernet({ src, dst }, packet);
  const { reason } = router.explain('vms', frame);
  const before = { ...(router.counters.dropped as Record<string, number>) };
  router.inject('vms', frame);
  const after = router.counters.dropped as Record<string, number>;
  const counted = Object.keys(after).filter((name) => after[name] !== (before[name] ?? 0));
  // What explain says is what happens.
  expect(counted).toEqual(reason === undefined ? [] : [reason]);
  return reason ?? 'passes';
}

const udp6 = (src: string, dst = OUTSIDE, sport = 1000, dport = 53) =>
  B.ipv6({ src, dst }, B.udp({ sport, dport }, 'data'));
const udp4 = (src: string, dst = '198.51.100.9', sport = 1000, dport = 53) =>
  B.ipv4({ src, dst }, B.udp({ sport, dport }, 'data'));
const icmp6 = (src: string, dst: string, type: number, payload: Uint8Array = new Uint8Array(0), hop = 255) =>
  B.ipv6({ src, dst, hop }, B.icmpv6({ type }, payload));
const advert = (src: string, dst: string, target: string, mac: string) =>
  icmp6(src, dst, 136, B.concat(B.ip(target), Uint8Array.of(2, 1), B.mac(mac)));

describe('addresses of the configuration', () => {
  const hosts = [
    { mac: VM, addresses: ['192.0.2.10', '2001:db8:0:1::10', '2001:db8:100:10::/60'] },
    { mac: EVIL, addresses: ['192.0.2.66'] },
  ];

  test('each station sends from its own, in both families; another’s source is dropped and counted', () => {
    const router = gate({ hosts });
    for (const source of ['2001:db8:0:1::10', '2001:db8:100:10::1', '2001:db8:100:1f:ffff::'])
      expect([source, fate(router, udp6(source))]).toEqual([source, 'passes']);
    expect(fate(router, udp4('192.0.2.10'))).toBe('passes');
    for (const source of ['2001:db8:0:1::10', '2001:db8:100:10::1', '2001:db8:100:20::1', '2001:db8:7::7', '::1:2'])
      expect([source, fate(router, udp6(source), EVIL)]).toEqual([source, 'SECURITY_GROUP']);
    expect(fate(router, udp4('192.0.2.10'), EVIL)).toBe('SECURITY_GROUP');
    expect(fate(router, udp4('192.0.2.66'), EVIL)).toBe('passes');
    expect(fate(router, udp4('192.0.2.11'))).toBe('SECURITY_GROUP');
    // Just beyond the delegated /60.
    expect(fate(router, udp6('2001:db8:100:20::1'))).toBe('SECURITY_GROUP');
    expect(dropped(router, 'SECURITY_GROUP')).toBe(8);
  });

  test('a forged packet of a flow that is established is dropped before conntrack sees it', () => {
    const router = gate({ hosts });
    const segment = (flags: number, seq: number) =>
      B.ipv6({ src: '2001:db8:0:1::10', dst: OUTSIDE }, B.tcp({ sport: 4000, dport: 80, flags, seq }));
    expect(fate(router, segment(B.SYN, 1))).toBe('passes');
    const connection = () => router.conntrack.list()[0];
    const before = JSON.stringify(connection());
    for (const flags of [B.RST, B.SYN, B.ACK]) expect(fate(router, segment(flags, 2), EVIL)).toBe('SECURITY_GROUP');
    expect(JSON.stringify(connection())).toBe(before);
    // With the engine on: no entry may carry packets past the check.
    for (let n = 0; n < 8; n++) router.inject('vms', B.ethernet({ src: VM, dst: GATE }, udp6('2001:db8:0:1::10')));
    router.inject(
      'out',
      B.ethernet({ src: '02:00:00:00:00:fe', dst: '02:00:00:00:0a:02' }, udp6(OUTSIDE, '2001:db8:0:1::10', 53, 1000)),
    );
    for (let n = 0; n < 8; n++) router.inject('vms', B.ethernet({ src: VM, dst: GATE }, udp6('2001:db8:0:1::10')));
    expect(fate(router, udp6('2001:db8:0:1::10'), EVIL)).toBe('SECURITY_GROUP');
  });

  test('who is not listed does not enter at all', () => {
    const router = gate({ hosts });
    expect(fate(router, udp4('192.0.2.10'), '52:54:00:00:00:99')).toBe('L2_SOURCE');
  });

  test('each fragment is looked at', () => {
    const router = gate({ hosts });
    const whole = B.ipv4(
      { src: '192.0.2.10', dst: '198.51.100.9', id: 7 },
      B.udp({ sport: 1, dport: 2 }, new Uint8Array(1200)),
    );
    const [first, second] = B.fragment4(whole, 700);
    expect(fate(router, first)).toBe('passes');
    expect(fate(router, second, EVIL)).toBe('SECURITY_GROUP');
    expect(fate(router, second)).toBe('passes');
  });
});

describe('EUI-64 addresses in the port’s prefixes', () => {
  test('are their MAC’s alone, and follow the prefixes of the port', () => {
    const router = gate({});
    expect(fate(router, udp6('2001:db8:0:1:5054:ff:fe00:1'))).toBe('passes');
    expect(fate(router, udp6('2001:db8:0:1:5054:ff:fe00:1'), EVIL)).toBe('SECURITY_GROUP');
    expect(fate(router, udp6('2001:db8:0:2:5054:ff:fe00:1'))).toBe('SECURITY_GROUP');
    const next = { family: 6, prefixLength: 64, words: [0xb80d0120 | 0, 0x02000000, 0, 0x01000000] } as const;
    router.control.changeAddress(0, null, { ...next, text: '' });
    router.control.tick();
    expect(fate(router, udp6('2001:db8:0:2:5054:ff:fe00:1'))).toBe('passes');
    router.control.removeAddress(0, 6, next.words, 64);
    router.control.tick();
    expect(fate(router, udp6('2001:db8:0:2:5054:ff:fe00:1'))).toBe('SECURITY_GROUP');
  });

  test('not with `eui64: false`', () => {
    const router = gate({ eui64: false });
    expect(fate(router, udp6('2001:db8:0:1:5054:ff:fe00:1'))).toBe('SECURITY_GROUP');
    expect(fate(router, icmp6(LL, 'ff02::2', 133), VM, '33:33:00:00:00:02')).toBe('passes');
  });
});

describe('on link-local addresses', () => {
  const router = gate({ hosts: [{ mac: VM, addresses: ['2001:db8:0:1::10', 'fe80::77'] }, { mac: EVIL }] });
  const solicited = '33:33:ff:00:00:01';

  test('duplicate address detection, echo, MLD, router and neighbour discovery of a station, and DHCPv6 pass', () => {
    const target = B.concat(B.ip('2001:db8:0:1::1'), Uint8Array.of(1, 1), B.mac(VM));
    for (const [name, packet, dst] of [
      ['DAD', icmp6('::', 'ff02::1:ff00:1', 135, B.ip(LL)), solicited],
      ['RS from nowhere', icmp6('::', 'ff02::2', 133), '33:33:00:00:00:02'],
      ['RS', icmp6(LL, 'ff02::2', 133), '33:33:00:00:00:02'],
      ['NS', icmp6(LL, 'ff02::1:ff00:1', 135, target), solicited],
      ['NA', advert(LL, 'fe80::ff:fe00:a01', LL, VM), GATE],
      ['NA of a global address', advert(LL, 'fe80::ff:fe00:a01', '2001:db8:0:1::10', VM), GATE],
      ['MLDv1', icmp6(LL, 'ff02::1:ff00:1', 131, B.ip('ff02::1:ff00:1'), 1), solicited],
      ['MLDv2', icmp6(LL, 'ff02::16', 143, B.hex('04000000 ff020000000000000000000000000016'), 1), '33:33:00:00:00:16'],
      ['echo', icmp6(LL, 'fe80::ff:fe00:a01', 128), GATE],
      ['a listed one', icmp6('fe80::77', 'fe80::ff:fe00:a01', 128), GATE],
    ] as const)
      expect([name, fate(router, packet, VM, dst)]).toEqual([name, 'passes']);
    const dhcp = fate(router, udp6(LL, 'ff02::1:2', 546, 547), VM, '33:33:00:01:00:02');
    // It gets as far as a router without a server lets it.
    expect(dhcp).toBe('IP_MULTICAST');
  });

  test('no other UDP, no TCP, and nothing that is a router’s to say', () => {
    const ra = B.concat(B.hex('40 00 0708 00000000 00000000'));
    for (const [name, packet, dst] of [
      ['mDNS', udp6(LL, 'ff02::fb', 5353, 5353), '33:33:00:00:00:fb'],
      ['UDP', udp6(LL, 'fe80::ff:fe00:a01', 1000, 53), GATE],
      ['UDP to link-local', udp6('2001:db8:0:1::10', 'fe80::ff:fe00:a01', 1000, 53), GATE],
      ['DHCPv6 as a server', udp6(LL, 'ff02::1:2', 547, 547), '33:33:00:01:00:02'],
      ['TCP', B.ipv6({ src: LL, dst: 'fe80::ff:fe00:a01' }, B.tcp({ sport: 1, dport: 22, flags: B.SYN })), GATE],
      ['RA', icmp6(LL, 'ff02::1', 134, ra.subarray(4)), '33:33:00:00:00:01'],
      ['MLD query', icmp6(LL, 'ff02::1', 130, B.ip('::'), 1), '33:33:00:00:00:01'],
      ['redirect', icmp6(LL, 'fe80::ff:fe00:a01', 137, B.concat(B.ip(LL), B.ip(OUTSIDE))), GATE],
      ['unreachable', icmp6(LL, 'fe80::ff:fe00:a01', 1, udp6('fe80::ff:fe00:a01', LL)), GATE],
    ] as const)
      expect([name, fate(router, packet, VM, dst)]).toEqual([name, 'LINK_LOCAL_PROTO']);
  });

  test('each in its own name: another’s source or target is dropped, so that no neighbour entry can be poisoned', () => {
    for (const [name, packet, dst] of [
      ['source', icmp6(LL, 'fe80::ff:fe00:a01', 128), GATE],
      ['a listed source', icmp6('fe80::77', 'fe80::ff:fe00:a01', 128), GATE],
      ['target', advert(EVIL_LL, 'fe80::ff:fe00:a01', LL, EVIL), GATE],
      ['global target', advert(EVIL_LL, 'ff02::1', '2001:db8:0:1::10', EVIL), '33:33:00:00:00:01'],
      [
        'solicitation',
        icmp6(LL, 'ff02::1:ff00:1', 135, B.concat(B.ip('2001:db8:0:1::1'), Uint8Array.of(1, 1), B.mac(EVIL))),
        solicited,
      ],
      ['echo from nowhere', icmp6('::', 'ff02::1', 128), '33:33:00:00:00:01'],
    ] as const) {
      const reason = fate(router, packet, EVIL, dst);
      // IPv6 sanity may be first to refuse the last one.
      expect([name, ['SECURITY_GROUP', 'IP_INVALID_SOURCE'].includes(reason)]).toEqual([name, true]);
    }
  });
});

test('ARP speaks for its sender alone', () => {
  const router = gate({
    hosts: [
      { mac: VM, addresses: '192.0.2.10' },
      { mac: EVIL, addresses: '192.0.2.66' },
    ],
  });
  const says = (src: string, sha: string, spa: string, op: 'request' | 'reply' = 'request') => {
    const before = dropped(router, 'SECURITY_GROUP');
    router.inject(
      'vms',
      B.ethernet({ src, dst: 'ff:ff:ff:ff:ff:ff', type: 0x0806 }, B.arp({ op, sha, spa, tpa: '192.0.2.1' })),
    );
    return dropped(router, 'SECURITY_GROUP') === before ? 'passes' : 'dropped';
  };
  expect(says(VM, VM, '192.0.2.10')).toBe('passes');
  expect(says(VM, VM, '0.0.0.0')).toBe('passes');
  expect(says(EVIL, EVIL, '192.0.2.10')).toBe('dropped');
  expect(says(EVIL, EVIL, '192.0.2.10', 'reply')).toBe('dropped');
  expect(says(EVIL, VM, '192.0.2.10')).toBe('dropped');
  expect(says(EVIL, EVIL, '192.0.2.1')).toBe('dropped');
});

describe('leases', () => {
  test('RFC 7513: an address of DHCPv4 opens with its lease, and closes with release and expiry', () => {
    const wire = new Wire();
    const router = createRouter(
      {
        ports: {
          vms: {
            kind: 'memory',
            mac: GATE,
            addresses: '192.0.2.1/24',
            'security-group': {},
            dhcp4: { server: { range: '192.0.2.100-192.0.2.102', lease: 600 } },
          },
          out: { kind: 'memory', addresses: '198.51.100.1/24' },
        },
        neighbors: [{ port: 'out', ip: '198.51.100.9', mac: '02:00:00:00:00:fe' }],
        offload: { mode: 'off' },
        conntrack: { max: 1024 },
      },
      { unasked: true },
    );
    const host = createRouter(
      {
        ports: { wan: { kind: 'memory', mac: VM, dhcp4: { client: {} } } },
        offload: { mode: 'off' },
        conntrack: { max: 1024 },
      },
      { unasked: true },
    );
    const passes = (address: string, mac = VM) => fate(router, udp4(address), mac) === 'passes';
    expect(passes('192.0.2.100')).toBe(false);
    wire.join({ router, port: 'vms' }, { router: host, port: 'wan' });
    wire.advance(12_000, 100);
    const [own] = host.control.addresses.ofPort(0);
    const address = formatAddress(4, ...own.words);
    expect(passes(address)).toBe(true);
    expect(passes(address, EVIL)).toBe(false);
    // Renewed in time, it goes on; a client that has gone silent loses it.
    wire.advance(900_000, 1000);
    expect(passes(address)).toBe(true);
    router.advance(601_000);
    expect(passes(address)).toBe(false);
  });

  test('a renewal takes nothing out of the table, so that no packet meanwhile finds it gone; another holder does', () => {
    const router = gate({});
    const event = (name: string, data: object) =>
      router.control.handle({ kind: 'event', name, data: { port: 'vms', ...data } });
    const lease = (mac: string) => event('dhcp4.lease', { address: '192.0.2.10', mac, seconds: 600 });
    const prefix = (via: string) => event('dhcp6.delegated', { prefix: '2001:db8:100::/60', via, valid: 600 });
    lease(VM);
    prefix(LL);
    const removed = vi.spyOn(BindingWriter.prototype, 'remove');
    router.advance(300_000);
    lease(VM);
    prefix(LL);
    expect(removed).not.toHaveBeenCalled();
    removed.mockRestore();
    router.advance(400_000);
    expect([fate(router, udp4('192.0.2.10')), fate(router, udp6('2001:db8:100::1'))]).toEqual(['passes', 'passes']);
    lease(EVIL);
    prefix(EVIL_LL);
    const after = [fate(router, udp4('192.0.2.10')), fate(router, udp6('2001:db8:100::1'))];
    expect(after).toEqual(['SECURITY_GROUP', 'SECURITY_GROUP']);
    expect([fate(router, udp4('192.0.2.10'), EVIL), fate(router, udp6('2001:db8:100::1'), EVIL)]).toEqual([
      'passes',
      'passes',
    ]);
  });

  test('the CloudStack case: addresses and /60s of DHCPv6 are their clients’, as long as they have them', () => {
    const n = new Net();
    n.add('gate', {
      ports: {
        lan: {
          kind: 'memory',
          mac: GATE,
          addresses: '2001:db8:0:1::1/64',
          'security-group': { eui64: false },
          dhcp6: { server: { addresses: '2001:db8:0:1::1000-2001:db8:0:1::1fff', delegate: 'vms' } },
        },
        out: { kind: 'memory', addresses: '2001:db8:9::1/64' },
      },
      neighbors: [{ port: 'out', ip: OUTSIDE, mac: '02:00:00:00:00:fe' }],
      delegation: { pools: { vms: { prefix: '2001:db8:100::/40', length: 60 } } },
    });
    n.add('one', customer({ 'ia-pd': [{}] }, VM));
    n.add('two', customer({ 'ia-pd': [{}] }, EVIL));
    n.wire('gate.lan', 'one.wan', 'two.wan');
    n.advance(8000);
    const { gate: router } = n.routers;
    const held = (name: string) =>
      n
        .dhcp6(name)
        .clients[0].held.map(({ kind, words }) =>
          formatAddress(6, words[0], words[1], words[2], kind === 'pd' ? 0x07000000 : words[3]),
        );
    const passes = (source: string, mac: string) => {
      router.take('out');
      router.inject('lan', B.ethernet({ src: mac, dst: GATE }, udp6(source)));
      return router.take('out').length === 1;
    };
    const [mine, others] = [held('one'), held('two')];
    expect(mine.length).toBe(2);
    for (const source of mine) expect([passes(source, VM), passes(source, EVIL)]).toEqual([true, false]);
    for (const source of others) expect([passes(source, VM), passes(source, EVIL)]).toEqual([false, true]);
    n.routers.one.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    n.advance(1000);
    for (const source of mine) expect(passes(source, VM)).toBe(false);
    for (const source of others) expect(passes(source, EVIL)).toBe(true);
    // Its own link-local address carries it to a new lease.
    n.routers.one.control.handle({ kind: 'event', name: 'dhcp6.start', data: { port: 'wan' } });
    n.advance(8000);
    for (const source of held('one')) expect(passes(source, VM)).toBe(true);
  });

  test('as a relay: what the server gives through it', () => {
    const n = relayedNet({ clientMac: VM, relayLan: { mac: GATE, 'security-group': { eui64: false } } });
    n.advance(8000);
    const { relay } = n.routers;
    const passes = (source: string, mac: string) => {
      const before = dropped(relay, 'SECURITY_GROUP');
      relay.inject('lan', B.ethernet({ src: mac, dst: GATE }, udp6(source, '2001:db8:0:2::547')));
      n.settle();
      return dropped(relay, 'SECURITY_GROUP') === before;
    };
    const sources = n
      .dhcp6('cpe')
      .clients[0].held.map(({ words, kind }) =>
        formatAddress(6, words[0], words[1], words[2], kind === 'pd' ? 7 << 24 : words[3]),
      );
    expect(sources.length).toBe(2);
    for (const source of sources) expect([passes(source, VM), passes(source, EVIL)]).toEqual([true, false]);
    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    n.advance(1000);
    for (const source of sources) expect(passes(source, VM)).toBe(false);
  });
});

test('explain names the group, what it gives to the sender, and the line', () => {
  const router = gate({
    hosts: [
      { mac: VM, addresses: '192.0.2.10' },
      { mac: EVIL, addresses: '192.0.2.66' },
    ],
  });
  const { stages, reason } = router.explain('vms', B.ethernet({ src: EVIL, dst: GATE }, udp4('192.0.2.10')));
  expect(reason).toBe('SECURITY_GROUP');
  const step = stages.find(({ stage }) => stage === 'ip-sanity');
  expect(step).toMatchObject({
    looked_up: `192.0.2.10 among what the security group of vms gives to ${EVIL}`,
    found: '192.0.2.66/32',
    decided: 'drop SECURITY_GROUP: The port’s security group does not give this address to the station that uses it.',
  });
  expect(step?.where).toContain('ports.vms.security-group');
});
