/**
 * Every exchange of DHCPv6 that the router takes part in, recorded and read message by message by tshark: what was said, to
 * whom, with which options, in which transaction. Both ends are ours, under the virtual clock, so that T1 and T2 come at once;
 * test/lab/dhcp6.test.ts does the same with other people's programs.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CaptureWriter } from '../../dataplane/ports/capture-writer.ts';
import { customer, Net, provider } from '../controlplane/dhcp6/net.ts';
import { KEY, reconfigurable } from '../controlplane/dhcp6/reconfigurable.ts';
import { type Dissected, dissect, haveTshark } from '../lib/dissect.ts';

const CPE = 'fe80::ff:fe00:c01';
const CPE_MAC = '020000000c01';
const CPE_DUID = `00030001${CPE_MAC}`;
const ISP = 'fe80::ff:fe00:a01';
const ISP_DUID = '00030001020000000a01';
const GROUP = 'ff02::1:2';
const SERVER = {
  addresses: '2001:db8:0:1::1000-2001:db8:0:1::1fff',
  delegate: 'customers',
  dns: '2001:db8::53',
  preferred: 1000,
  valid: 2000,
};

function net(client: object = {}, server: object = {}): Net {
  const n = new Net();
  n.add('isp', provider({ ...SERVER, ...server }));
  n.add('cpe', customer({ 'ia-pd': [{}], ...client }));
  n.wire('cpe.wan', 'isp.lan');
  return n;
}

/** Lets a client come up, and forgets what was said meanwhile. */
function up(n: Net): Net {
  n.advance(8000);
  n.take();
  return n;
}

/** cpe ── lan [relay] dc ── lan [isp]; with an LDRA between the first two. */
function relayed(ldra: boolean): Net {
  const n = new Net();
  const relays = '2001:db8:0:1::/64';
  const isp = provider({ ...SERVER, relays });
  (isp.ports as Record<string, Record<string, unknown>>).lan.addresses = '2001:db8:0:2::547/64';
  n.add('isp', { ...isp, routes: [{ to: relays, via: '2001:db8:0:2::1' }] });
  const relay = {
    to: '2001:db8:0:2::547',
    enterprise: 32473,
    relays: ldra,
    'subscriber-id': ldra ? 'line 7' : undefined,
  };
  n.add('relay', {
    ports: {
      lan: { kind: 'memory', mac: '02:00:00:00:0b:01', addresses: '2001:db8:0:1::1/64', dhcp6: { relay } },
      dc: { kind: 'memory', mac: '02:00:00:00:0b:02', addresses: '2001:db8:0:2::1/64' },
    },
  });
  n.add('cpe', customer({ 'ia-na': false, 'ia-pd': [{}] }));
  if (ldra) {
    const access = { kind: 'memory', mac: '02:00:00:00:0d:01', dhcp6: { ldra: { to: 'uplink', enterprise: 32473 } } };
    const uplink = { kind: 'memory', mac: '02:00:00:00:0d:02', addresses: '2001:db8:0:1::d/64' };
    n.add('ldra', { ports: { access, uplink } });
    n.wire('cpe.wan', 'ldra.access');
    n.wire('ldra.uplink', 'relay.lan');
  } else n.wire('cpe.wan', 'relay.lan');
  n.wire('relay.dc', 'isp.lan');
  return n;
}

/** What happens in each exchange; all that is said until it returns is its record. */
const EXCHANGES = {
  'four messages': () => {
    const n = net();
    n.advance(8000);
    return n;
  },
  'rapid commit': () => {
    const n = net({ 'rapid-commit': true, 'ia-na': false }, { 'rapid-commit': true });
    n.advance(8000);
    return n;
  },
  renew: () => {
    const n = up(net());
    n.advance(500_000, 500);
    return n;
  },
  rebind: () => {
    const n = up(net());
    n.lose = (said) => said.name === 'RENEW';
    n.advance(805_000, 500);
    return n;
  },
  release: () => {
    const n = up(net());
    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    n.advance(1000);
    return n;
  },
  confirm: () => {
    const n = up(net({ 'ia-pd': [] }));
    n.routers.cpe.setLink('wan', false);
    n.routers.cpe.setLink('wan', true);
    n.advance(4000);
    return n;
  },
  decline: () => {
    const n = up(net({ 'ia-pd': [] }));
    const { addresses } = n.routers.cpe.control;
    addresses.setState(addresses.find(0, 6, n.dhcp6('cpe').clients[0].held[0].words)!, 'duplicate');
    n.routers.cpe.control.tick();
    n.advance(1000);
    return n;
  },
  information: () => {
    const n = net({ stateless: true }, { refresh: 700 });
    n.advance(8000);
    return n;
  },
  reconfigure: () => {
    const { n, reconfigure } = reconfigurable(true);
    n.take();
    reconfigure(2, KEY);
    return n;
  },
  relay: () => {
    const n = relayed(false);
    n.advance(8000);
    return n;
  },
  ldra: () => {
    const n = relayed(true);
    n.advance(8000);
    return n;
  },
} satisfies Record<string, () => Net>;

describe.skipIf(!haveTshark())('exchanges as tshark reads them', () => {
  const read = new Map<string, Dissected[]>();
  const folder = mkdtempSync(join(tmpdir(), 'sluice-dissected-'));

  beforeAll(() => {
    const file = join(folder, 'dhcp6.pcap');
    const writer = new CaptureWriter(file);
    const counts: [string, number][] = [];
    for (const [name, play] of Object.entries(EXCHANGES)) {
      const { said } = play();
      counts.push([name, said.length]);
      for (const { at, frame } of said)
        writer.write(frame, 0, frame.length, frame.length, Math.floor(at / 1000), (at % 1000) * 1_000_000);
    }
    writer.close();
    const all = dissect(file);
    expect(all.length).toBe(counts.reduce((sum, [, count]) => sum + count, 0));
    for (const [name, count] of counts) read.set(name, all.splice(0, count));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const exchange = (name: keyof typeof EXCHANGES) => read.get(name)!;
  const names = (name: keyof typeof EXCHANGES) => exchange(name).map((m) => m.name);
  const words = (options: string) => options.split(' ');
  /** From the client to all, and from the server to the client, and the names of both in what they say. */
  function isDirect(messages: Dissected[]): void {
    for (const m of messages) {
      const up = m.ports === '546>547';
      expect([m.src, m.dst, m.ports]).toEqual(up ? [CPE, GROUP, '546>547'] : [ISP, CPE, '547>546']);
      expect(m.client).toBe(CPE_DUID);
      if (!up) expect(m.server).toBe(ISP_DUID);
    }
  }

  test('four messages: Solicit, Advertise; Request of what was offered, Reply', () => {
    const [solicit, advertise, request, reply] = exchange('four messages');
    expect(names('four messages')).toEqual(['SOLICIT', 'ADVERTISE', 'REQUEST', 'REPLY']);
    isDirect(exchange('four messages'));
    expect(solicit.options).toEqual(words('client-id ia-na ia-pd request elapsed'));
    expect(advertise.options).toEqual(words('client-id server-id ia-na address ia-pd prefix dns'));
    expect(request.options).toEqual(words('client-id server-id ia-na address ia-pd prefix request elapsed'));
    expect(reply.options).toEqual(advertise.options);
    expect([advertise.xid, reply.xid]).toEqual([solicit.xid, request.xid]);
    expect(request.xid).not.toBe(solicit.xid);
    expect(request.server).toBe(ISP_DUID);
    expect([request.addresses, request.prefixes]).toEqual([advertise.addresses, advertise.prefixes]);
    expect([reply.addresses, reply.prefixes]).toEqual([advertise.addresses, advertise.prefixes]);
    expect(reply.prefixes[0]).toMatch(/^2001:db8:1[0-9a-f]{2}:[0-9a-f]+00::\/56$/);
    // §21.6, §21.22: the client has no wish; §14.2: half and four fifths of the preferred lifetime.
    expect([request.valid, request.t1, request.t2].flat()).toEqual([0, 0, 0, 0, 0, 0]);
    expect([reply.valid, reply.t1, reply.t2]).toEqual([
      [2000, 2000],
      [500, 500],
      [800, 800],
    ]);
    expect([solicit.elapsed, request.elapsed]).toEqual([0, 0]);
  });

  test('rapid commit: Solicit and Reply, both say so', () => {
    const [solicit, reply] = exchange('rapid commit');
    expect(names('rapid commit')).toEqual(['SOLICIT', 'REPLY']);
    isDirect(exchange('rapid commit'));
    expect(solicit.options).toEqual(words('client-id ia-pd request elapsed rapid-commit'));
    expect(reply.options).toEqual(words('client-id server-id ia-pd prefix rapid-commit dns'));
    expect(reply.xid).toBe(solicit.xid);
  });

  test('Renew at T1, to the server, of what the client has', () => {
    const [renew, reply] = exchange('renew');
    expect(names('renew')).toEqual(['RENEW', 'REPLY']);
    isDirect(exchange('renew'));
    expect(renew.options).toEqual(words('client-id server-id ia-na address ia-pd prefix request elapsed'));
    expect(renew.server).toBe(ISP_DUID);
    expect([reply.xid, reply.addresses, reply.prefixes]).toEqual([renew.xid, renew.addresses, renew.prefixes]);
    expect(reply.valid).toEqual([2000, 2000]);
  });

  test('Rebind at T2, to any server: no server is named', () => {
    const messages = exchange('rebind');
    const [rebind, reply] = messages.slice(-2);
    expect([rebind.name, reply.name]).toEqual(['REBIND', 'REPLY']);
    const renewals = messages.slice(0, -2);
    expect(renewals.length).toBeGreaterThan(3);
    for (const renew of renewals) expect([renew.name, renew.xid]).toEqual(['RENEW', renewals[0].xid]);
    // §15: the waits grow, about twofold; §21.9: elapsed counts from the first of them.
    expect(renewals.map((renew) => renew.elapsed)).toEqual(
      renewals.map((renew) => renew.elapsed).sort((a, b) => a - b),
    );
    isDirect(messages);
    expect(rebind.options).toEqual(words('client-id ia-na address ia-pd prefix request elapsed'));
    expect([rebind.server, rebind.elapsed]).toEqual(['', 0]);
    expect(rebind.xid).not.toBe(renewals[0].xid);
    expect([reply.xid, reply.prefixes]).toEqual([rebind.xid, rebind.prefixes]);
    expect(rebind.time - renewals[0].time).toBeCloseTo(300, -1);
  });

  test('Release names what it gives back; the Reply says Success', () => {
    const [release, reply] = exchange('release');
    expect(names('release')).toEqual(['RELEASE', 'REPLY']);
    isDirect(exchange('release'));
    expect(release.options).toEqual(words('client-id server-id ia-na address ia-pd prefix elapsed'));
    expect(reply.options).toEqual(words('client-id server-id status'));
    expect([reply.xid, reply.status]).toEqual([release.xid, [0]]);
  });

  test('Confirm: addresses without a server; the Reply says Success', () => {
    const [confirm, reply] = exchange('confirm');
    expect(names('confirm')).toEqual(['CONFIRM', 'REPLY']);
    isDirect(exchange('confirm'));
    expect(confirm.options).toEqual(words('client-id ia-na address elapsed'));
    expect([confirm.valid, confirm.t1, confirm.t2]).toEqual([[0], [0], [0]]);
    expect([reply.options, reply.status]).toEqual([words('client-id server-id status'), [0]]);
  });

  test('Decline: the address that somebody else has', () => {
    const [decline, reply] = exchange('decline');
    expect(names('decline').slice(0, 2)).toEqual(['DECLINE', 'REPLY']);
    isDirect(exchange('decline').slice(0, 2));
    expect(decline.options).toEqual(words('client-id server-id ia-na address elapsed'));
    expect([reply.options, reply.status]).toEqual([words('client-id server-id status'), [0]]);
  });

  test('Information-request: no IA, no lease, the time after which to ask again', () => {
    const [request, reply] = exchange('information');
    expect(names('information')).toEqual(['INFORMATION-REQUEST', 'REPLY']);
    isDirect(exchange('information'));
    expect(request.options).toEqual(words('client-id request elapsed'));
    expect(reply.options).toEqual(words('client-id server-id dns 32'));
  });

  test('Reconfigure with authentication is answered by a Renew', () => {
    const [reconfigure, renew, reply] = exchange('reconfigure');
    expect(names('reconfigure')).toEqual(['RECONFIGURE', 'RENEW', 'REPLY']);
    // §16.11: to the client itself, transaction 0.
    expect([reconfigure.dst, reconfigure.ports, reconfigure.xid]).toEqual([CPE, '547>546', '0x000000']);
    expect(reconfigure.options).toContain('auth');
    expect(renew.options).toContain('reconfigure-accept');
    expect(reply.xid).toBe(renew.xid);
  });

  test('relay: each message wrapped once on the server’s side, with link, peer, interface-id and remote-id', () => {
    const messages = exchange('relay');
    expect(names('relay')).toEqual([
      'SOLICIT',
      'RELAY-FORW(SOLICIT)',
      'RELAY-REPL(ADVERTISE)',
      'ADVERTISE',
      'REQUEST',
      'RELAY-FORW(REQUEST)',
      'RELAY-REPL(REPLY)',
      'REPLY',
    ]);
    for (const m of messages.filter(({ name }) => name.startsWith('RELAY'))) {
      const forward = m.name.startsWith('RELAY-FORW');
      const ends = ['2001:db8:0:1::1', '2001:db8:0:2::547'];
      expect([m.src, m.dst]).toEqual(forward ? ends : ends.reverse());
      expect([m.ports, m.hops, m.links, m.peers]).toEqual(['547>547', [0], ['2001:db8:0:1::1'], [CPE]]);
      expect(m.interfaceIds.map(text)).toEqual(['lan']);
      expect(m.enterprises).toEqual(forward ? [32473] : []);
      expect(m.options.slice(0, 3)).toEqual(
        words(forward ? 'interface-id remote-id relayed' : 'interface-id relayed client-id'),
      );
    }
    // What the server says reaches the client as it is: from the relay's link-local address, in the same transaction.
    const [inner, outer] = [messages[7], messages[6]];
    expect([inner.src, inner.dst, inner.ports]).toEqual(['fe80::ff:fe00:b01', CPE, '547>546']);
    expect([inner.xid, inner.prefixes, inner.valid]).toEqual([outer.xid, outer.prefixes, outer.valid]);
  });

  test('LDRA: in the client’s name, without a link; the relay behind it adds one', () => {
    const messages = exchange('ldra');
    expect(names('ldra').slice(0, 6)).toEqual([
      'SOLICIT',
      'RELAY-FORW(SOLICIT)',
      'RELAY-FORW(RELAY-FORW(SOLICIT))',
      'RELAY-REPL(RELAY-REPL(ADVERTISE))',
      'RELAY-REPL(ADVERTISE)',
      'ADVERTISE',
    ]);
    const [, near, far, back, nearBack, advertise] = messages;
    // RFC 6221 §5.3.1: source, group and peer are the client's; the link is left to the next.
    expect([near.src, near.dst, near.ports]).toEqual([CPE, GROUP, '547>547']);
    expect([near.links, near.peers, near.hops]).toEqual([['::'], [CPE], [0]]);
    expect([near.interfaceIds.map(text), near.enterprises]).toEqual([['access'], [32473]]);
    expect(far.hops).toEqual([1, 0]);
    expect(far.links).toEqual(['2001:db8:0:1::1', '::']);
    expect(far.peers).toEqual([CPE, CPE]);
    // The relay speaks for the line; who the client is, the LDRA has said.
    expect(far.options.slice(0, 6)).toEqual(words('interface-id subscriber-id relayed interface-id remote-id relayed'));
    expect([back.links, back.peers, back.interfaceIds.map(text)]).toEqual([far.links, far.peers, ['lan', 'access']]);
    // To the client's address, port 547: the LDRA takes it, and hands on what is in it.
    expect([nearBack.dst, nearBack.ports, nearBack.links]).toEqual([CPE, '547>547', ['::']]);
    expect([advertise.src, advertise.dst, advertise.ports]).toEqual(['fe80::ff:fe00:b01', CPE, '547>546']);
    expect(names('ldra').at(-1)).toBe('REPLY');
    expect(messages.at(-1)!.prefixes.length).toBe(1);
  });
});

/** tshark shows bytes as hexadecimal. */
function text(bytes: string): string {
  return Buffer.from(bytes.replaceAll(':', ''), 'hex').toString('latin1');
}
