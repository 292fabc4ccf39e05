/** Relays: RFC 8415 §19, RFC 4649 remote-id, RFC 8987 routes of a delegating relay, RFC 6221 LDRA. */
import { describe, expect, test } from 'vitest';
import { RELAY_FORW } from '../../controlplane/dhcp6/constants.ts';
import { hexText } from '../../controlplane/dhcp6/duid.ts';
import { emitMessage, newMessage } from '../../controlplane/dhcp6/message.ts';
import { emitRelay, newRelayMessage } from '../../controlplane/dhcp6/relay-message.ts';
import { formatAddress, parseIpv6 } from '../../dataplane/wire/address.ts';
import { customer, Net, relayedNet } from '../controlplane/dhcp6/net.ts';
import * as build from '../lib/build.ts';

const MAC = '02:00:00:00:0c:01';

const faults = (n: Net, name: string) => n.dhcp6(name).counters.faults;
const held = (n: Net) =>
  n.dhcp6('cpe').clients[0].held.map((h) => `${h.kind} ${formatAddress(6, ...h.words)}/${h.prefixLength}`);

describe('§19.1, §19.2: there and back', () => {
  test('each message is wrapped and unwrapped once; the relay says where and who', () => {
    const n = relayedNet();
    n.advance(6000);
    expect(n.said.map(({ wire, name }) => `${wire} ${name}`)).toEqual([
      'cpe>relay SOLICIT',
      'relay>isp RELAY-FORW(SOLICIT)',
      'isp>relay RELAY-REPL(ADVERTISE)',
      'relay>cpe ADVERTISE',
      'cpe>relay REQUEST',
      'relay>isp RELAY-FORW(REQUEST)',
      'isp>relay RELAY-REPL(REPLY)',
      'relay>cpe REPLY',
    ]);
    const [, forward, reply] = n.said;
    const [relay] = forward.relays;
    expect(formatAddress(6, ...relay.link)).toBe('2001:db8:0:1::1');
    expect(formatAddress(6, ...relay.peer)).toBe('fe80::ff:fe00:c01');
    expect(relay.hops).toBe(0);
    expect(new TextDecoder().decode(relay.interfaceId!)).toBe('lan');
    // RFC 4649: enterprise number and the client's MAC.
    expect(relay.remoteId!.enterprise).toBe(0);
    expect(hexText(relay.remoteId!.id)).toBe(MAC);
    // §19.3: interface-id comes back; remote-id was not asked back (RFC 4994).
    expect(reply.relays[0].interfaceId).toEqual(relay.interfaceId);
    expect(reply.relays[0].remoteId).toBeNull();
    // The client's message passes unchanged.
    expect(emitMessage(forward.message)).toEqual(emitMessage(n.said[0].message));
    expect(held(n)[0]).toMatch(/^na 2001:db8:0:1::1/);
  });

  test('subscriber-id, another remote-id and enterprise number', () => {
    const n = relayedNet({ relay: { 'remote-id': 'port 7', enterprise: 32473, 'subscriber-id': 'smith' } });
    n.advance(6000);
    const [relay] = n.said[1].relays;
    expect(new TextDecoder().decode(relay.remoteId!.id)).toBe('port 7');
    expect(relay.remoteId!.enterprise).toBe(32473);
    expect(new TextDecoder().decode(relay.subscriberId!)).toBe('smith');
  });
});

describe('RFC 8987: routes to delegated prefixes', () => {
  test('R-1: with the Reply, by the client; gone when the client releases it', () => {
    const n = relayedNet({ client: { 'ia-pd': [{}, {}] } });
    n.advance(6000);
    const prefixes = held(n)
      .filter((text) => text.startsWith('pd'))
      .map((text) => text.slice(3));
    expect(prefixes.length).toBe(2);
    expect(n.routes('relay').sort()).toEqual(
      prefixes.map((prefix) => `${prefix} via fe80::ff:fe00:c01 dev lan proto dhcp`).sort(),
    );
    // The server is not on the client's link: it routes nothing.
    expect(n.routes('isp')).toEqual([]);
    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    n.advance(1000);
    expect(n.routes('relay')).toEqual([]);
    expect(n.dhcp6('isp').delegation.leases.size).toBe(0);
  });

  test('G-8: renewed with the lease, withdrawn when it ends', () => {
    const n = relayedNet({ server: { preferred: 100, valid: 200 } });
    n.advance(6000);
    n.advance(400_000, 500);
    expect(n.routes('relay').length).toBe(1);
    n.lose = (said) => said.wire.startsWith('cpe>');
    n.advance(199_000, 500);
    n.advance(2000, 500);
    expect(n.routes('relay')).toEqual([]);
  });

  test('G-6: no more prefixes of one client than the limit', () => {
    const n = relayedNet({ client: { 'ia-pd': [{}, {}, {}] }, relay: { 'max-leases': 2 } });
    n.advance(6000);
    expect(n.routes('relay').length).toBe(2);
    expect(faults(n, 'relay')).toEqual({ 'lease-limit': 1 });
  });

  test('R-3: only from its client, and only what is delegated, is forwarded', () => {
    const n = new Net();
    n.add('gate', {
      ports: {
        lan: {
          kind: 'memory',
          mac: '02:00:00:00:0a:01',
          addresses: '2001:db8:0:1::1/64',
          'source-check': true,
          dhcp6: { server: { delegate: 'customers' } },
        },
        out: { kind: 'memory', mac: '02:00:00:00:0a:02', addresses: '2001:db8:0:9::1/64' },
      },
      routes: [{ to: '::/0', via: '2001:db8:0:9::fe' }],
      neighbors: [{ port: 'out', ip: '2001:db8:0:9::fe', mac: '02:00:00:00:00:fe' }],
      delegation: { pools: { customers: { prefix: '2001:db8:100::/40', length: 60 } } },
    });
    n.add('one', customer({ 'ia-na': false, 'ia-pd': [{}] }, MAC));
    n.add('two', customer({ 'ia-na': false, 'ia-pd': [{}] }, '02:00:00:00:0c:02'));
    n.wire('gate.lan', 'one.wan', 'two.wan');
    n.advance(8000);
    const host = (name: string) => {
      const [prefix] = n.dhcp6(name).clients[0].held;
      return formatAddress(6, prefix.words[0], prefix.words[1], prefix.words[2], 0x07000000);
    };
    const { gate } = n.routers;
    const passes = (src: string, mac: string) => {
      const data = build.udp({ sport: 1, dport: 2 }, 'data');
      const frame = build.ethernet(
        { src: mac, dst: '02:00:00:00:0a:01' },
        build.ipv6({ src, dst: '2001:db8:7::7' }, data),
      );
      gate.inject('lan', frame);
      return gate.take('out').length === 1;
    };
    // The way back makes the gate know its neighbours, as any answer would.
    for (const name of ['one', 'two']) {
      const data = build.udp({ sport: 2, dport: 1 }, 'data');
      const packet = build.ipv6({ src: '2001:db8:7::7', dst: host(name) }, data);
      gate.inject('out', build.ethernet({ src: '02:00:00:00:00:fe', dst: '02:00:00:00:0a:02' }, packet));
      n.settle();
    }
    gate.take('out');
    expect(passes(host('one'), MAC)).toBe(true);
    expect(passes(host('two'), '02:00:00:00:0c:02')).toBe(true);
    expect(passes('2001:db8:0:1::77', MAC)).toBe(true);
    const refused = () => (gate.counters.dropped as Record<string, number>).IP_RPFILTER ?? 0;
    expect(refused()).toBe(0);
    // Another's prefix; a prefix of the pool that nobody has; one of the Internet.
    expect(passes(host('two'), MAC)).toBe(false);
    expect(passes('2001:db8:1ff:fff0::1', MAC)).toBe(false);
    expect(passes('2001:db8:8::8', MAC)).toBe(false);
    expect(refused()).toBe(3);
    n.routers.one.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    const before = host('two');
    n.advance(1000);
    expect(passes(before, '02:00:00:00:0c:02')).toBe(true);
    expect(n.routes('gate').length).toBe(1);
  });

  test('nobody on the link can release what is routed to another', () => {
    const n = relayedNet();
    n.advance(6000);
    const release = newMessage(8, 1);
    const request = n.said.find((said) => said.name === 'REPLY')!.message;
    Object.assign(release, { clientId: request.clientId, serverId: request.serverId, ias: request.ias });
    n.routers.relay.inject('lan', fromClient(emitMessage(release), 'fe80::bad', '02:00:00:00:00:66'));
    expect(n.routes('relay').length).toBe(1);
  });
});

/** A datagram to ff02::1:2, port 547. */
function fromClient(payload: Uint8Array, src = 'fe80::ff:fe00:c01', mac = MAC): Uint8Array {
  return build.ethernet(
    { src: mac, dst: '33:33:00:01:00:02' },
    build.ipv6({ src, dst: 'ff02::1:2' }, build.udp({ sport: 546, dport: 547 }, payload)),
  );
}

describe('hostile relays', () => {
  const solicit = () =>
    emitMessage(Object.assign(newMessage(1, 7), { clientId: Uint8Array.of(0, 3, 0, 1, 1, 2, 3, 4, 5, 6) }));
  const relayed = (hops: number, inner = solicit()) =>
    emitRelay(newRelayMessage(RELAY_FORW, hops, parseIpv6('2001:db8::1')!, parseIpv6('fe80::1')!, inner));

  test('a client that plays relay, to say who it is, is not heard', () => {
    const n = relayedNet();
    n.routers.relay.inject('lan', fromClient(relayed(0)));
    n.settle();
    expect(n.said.length).toBe(0);
    expect(faults(n, 'relay')).toEqual({ 'untrusted-relay': 1 });
  });

  test('§19.1.2: HOP_COUNT_LIMIT ends a loop; the hop count grows by one before', () => {
    const n = relayedNet({ relay: { relays: true } });
    n.advance(4000);
    n.said.splice(0);
    n.routers.relay.inject('lan', fromClient(relayed(7)));
    n.settle();
    expect(n.said[0].relays.map((relay) => relay.hops)).toEqual([8, 7]);
    expect(faults(n, 'isp')).toEqual({ 'hop-limit': 1 });
    n.routers.relay.inject('lan', fromClient(relayed(8)));
    n.settle();
    expect(faults(n, 'relay')).toEqual({ 'hop-limit': 1 });
  });

  test('what another relay had sent went on without the subscriber-id that is configured', () => {
    const n = relayedNet({ relay: { relays: true, 'subscriber-id': 'smith' } });
    n.advance(4000);
    n.said.splice(0);
    n.routers.relay.inject('lan', fromClient(relayed(0)));
    n.settle();
    const [outer] = n.said[0].relays;
    expect(new TextDecoder().decode(outer.subscriberId!)).toBe('smith');
    // A relay's MAC is not the client's.
    expect(outer.remoteId).toBeNull();
  });

  test('a chain deeper than any honest one, and malformed ones, are malformed', () => {
    const n = relayedNet();
    n.advance(4000);
    let chain = solicit();
    for (let depth = 0; depth < 20; depth++) chain = relayed(1, chain);
    const send = (payload: Uint8Array) => {
      const packet = build.ipv6(
        { src: '2001:db8:0:1::1', dst: '2001:db8:0:2::547' },
        build.udp({ sport: 547, dport: 547 }, payload),
      );
      n.routers.isp.inject('lan', build.ethernet({ src: '02:00:00:00:0b:02', dst: '02:00:00:00:0a:01' }, packet));
    };
    send(chain);
    send(relayed(0).subarray(0, 40));
    expect(faults(n, 'isp')).toEqual({ malformed: 2 });
  });

  test('the server answers the relays that it knows, and nobody else', () => {
    const n = relayedNet({ server: { relays: '2001:db8:0:9::/64' } });
    n.advance(6000);
    expect(n.said.some((said) => said.wire === 'isp>relay')).toBe(false);
    expect(faults(n, 'isp')['untrusted-relay']).toBeGreaterThan(0);
  });

  test('a Relay-reply from somebody else than the server is not delivered', () => {
    const n = relayedNet();
    n.advance(4000);
    const reply = newRelayMessage(
      13,
      0,
      parseIpv6('2001:db8:0:1::1')!,
      parseIpv6('fe80::ff:fe00:c01')!,
      emitMessage(newMessage(7, 1)),
    );
    reply.interfaceId = new TextEncoder().encode('lan');
    const packet = build.ipv6(
      { src: '2001:db8:0:2::666', dst: '2001:db8:0:1::1' },
      build.udp({ sport: 547, dport: 547 }, emitRelay(reply)),
    );
    n.routers.relay.inject('dc', build.ethernet({ src: '02:00:00:00:00:66', dst: '02:00:00:00:0b:02' }, packet));
    expect(faults(n, 'relay')).toEqual({ 'untrusted-relay': 1 });
  });
});

describe('the CloudStack case: identified by remote-id, one reserved prefix each, unknown ones get silence', () => {
  const delegation = {
    clients: [{ 'remote-id': MAC, prefixes: ['2001:db8:100:a0::/60', '2001:db8:100:b0::/60'], name: 'instance 1' }],
  };

  test('through a relay: the DUID does not matter, the MAC does', () => {
    for (const duid of ['ll', 'uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'en:32473:0102', 'llt:2026-01-01']) {
      const n = relayedNet({
        client: { 'ia-na': false, 'ia-pd': [{}, {}], duid },
        server: { identify: 'remote-id', clients: 'known' },
        delegation,
      });
      n.advance(6000);
      expect(held(n)).toEqual(['pd 2001:db8:100:a0::/60', 'pd 2001:db8:100:b0::/60']);
      expect(n.routes('relay').length).toBe(2);
    }
    const other = relayedNet({
      server: { identify: 'remote-id', clients: 'known' },
      delegation: { clients: [{ 'remote-id': '02:00:00:00:0c:02' }] },
    });
    other.advance(6000);
    expect(other.said.some((said) => said.wire === 'isp>relay')).toBe(false);
    expect(faults(other, 'isp')['unknown-client']).toBeGreaterThan(0);
  });

  test('as delegating router on the link itself: by the MAC, or by the DUID', () => {
    for (const [identify, client, answered] of [
      ['remote-id', { 'remote-id': MAC }, true],
      ['remote-id', { 'remote-id': '02:00:00:00:0c:02' }, false],
      ['duid', { duid: `00:03:00:01:${MAC}` }, true],
      ['duid', { duid: '00:03:00:01:02:00:00:00:0c:02' }, false],
    ] as const) {
      const n = new Net();
      n.add('isp', {
        ports: {
          lan: {
            kind: 'memory',
            addresses: '2001:db8:0:1::1/64',
            dhcp6: { server: { delegate: 'customers', identify, clients: 'known' } },
          },
        },
        delegation: {
          pools: { customers: { prefix: '2001:db8:100::/40', length: 60 } },
          clients: [{ ...client, prefixes: '2001:db8:100:a0::/60' }],
        },
      });
      n.add('cpe', customer({ 'ia-na': false, 'ia-pd': [{}] }, MAC));
      n.wire('cpe.wan', 'isp.lan');
      n.advance(6000);
      expect(held(n)).toEqual(answered ? ['pd 2001:db8:100:a0::/60'] : []);
      expect(n.routes('isp').length).toBe(answered ? 1 : 0);
      if (!answered) expect(n.said.every((said) => said.name === 'SOLICIT')).toBe(true);
    }
  });
});

describe('RFC 6221: LDRA', () => {
  /** cpe ── access [ldra] uplink ── lan [relay] dc ── lan [isp] */
  function ldraNet(ldra: object = {}): Net {
    const n = relayedNet({ relay: { relays: true, 'remote-id': 'none' }, server: { identify: 'remote-id' } });
    n.add('ldra', {
      ports: {
        access: { kind: 'memory', mac: '02:00:00:00:0d:01', dhcp6: { ldra: { to: 'uplink', ...ldra } } },
        uplink: { kind: 'memory', mac: '02:00:00:00:0d:02', addresses: '2001:db8:0:1::d/64' },
      },
    });
    (n as unknown as { wires: unknown[] }).wires.length = 0;
    n.wire('cpe.wan', 'ldra.access');
    n.wire('ldra.uplink', 'relay.lan');
    n.wire('relay.dc', 'isp.lan');
    return n;
  }

  test('§5: in the name of the client, without a link address, and back to it', () => {
    const n = ldraNet();
    n.advance(8000);
    const wires = n.said.map(({ wire, name }) => `${wire} ${name}`);
    expect(wires.slice(0, 6)).toEqual([
      'cpe>ldra SOLICIT',
      'ldra>relay RELAY-FORW(SOLICIT)',
      'relay>isp RELAY-FORW(RELAY-FORW(SOLICIT))',
      'isp>relay RELAY-REPL(RELAY-REPL(ADVERTISE))',
      'relay>ldra RELAY-REPL(ADVERTISE)',
      'ldra>cpe ADVERTISE',
    ]);
    const forward = n.said[1];
    expect(forward.relays[0].link).toEqual([0, 0, 0, 0]);
    expect(forward.relays[0].hops).toBe(0);
    expect(hexText(forward.relays[0].remoteId!.id)).toBe(MAC);
    expect(new TextDecoder().decode(forward.relays[0].interfaceId!)).toBe('access');
    // The client's own address is the source of the packet.
    expect(build.toHex(forward.frame.slice(22, 38))).toBe(build.toHex(n.said[0].frame.slice(22, 38)));
    // The next relay fills in the link, one hop further.
    expect(n.said[2].relays.map((relay) => [relay.hops, formatAddress(6, ...relay.link)])).toEqual([
      [1, '2001:db8:0:1::1'],
      [0, '::'],
    ]);
    expect(n.dhcp6('cpe').clients[0].state).toBe('bound');
    expect([...n.dhcp6('isp').delegation.leases].every((lease) => lease.client === `remote-id:${MAC}`)).toBe(true);
  });

  test('§6.1: an untrusted port: no relayed messages, none of servers', () => {
    const n = ldraNet();
    const solicit = emitMessage(newMessage(1, 7));
    for (const payload of [
      emitRelay(newRelayMessage(RELAY_FORW, 0, [0, 0, 0, 0], parseIpv6('fe80::1')!, solicit)),
      emitMessage(newMessage(2, 7)),
      emitMessage(newMessage(7, 7)),
      emitMessage(newMessage(10, 7)),
    ])
      n.routers.ldra.inject('access', fromClient(payload));
    n.settle();
    expect(n.said.length).toBe(0);
    expect(faults(n, 'ldra')).toEqual({ 'untrusted-relay': 1, unexpected: 3 });
  });

  test('§5.3.1: a trusted port relays relays, one hop further, and ends a loop', () => {
    const n = ldraNet({ trusted: true });
    n.advance(8000);
    n.said.splice(0);
    const solicit = emitMessage(newMessage(1, 7));
    const relayed = (hops: number) =>
      fromClient(emitRelay(newRelayMessage(RELAY_FORW, hops, [0, 0, 0, 0], parseIpv6('fe80::1')!, solicit)));
    n.routers.ldra.inject('access', relayed(6));
    n.routers.ldra.inject('access', relayed(8));
    n.settle();
    expect(n.said[0].relays.map(({ hops }) => hops)).toEqual([7, 6]);
    expect(faults(n, 'ldra')).toEqual({ 'hop-limit': 1 });
  });
});
