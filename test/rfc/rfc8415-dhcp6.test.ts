/** RFC 8415 (and 9915): clients and servers of two routers on one wire, clause by clause. */
import { describe, expect, test } from 'vitest';
import * as C from '../../controlplane/dhcp6/constants.ts';
import { emitMessage, type Ia, type Message, newMessage } from '../../controlplane/dhcp6/message.ts';
import { formatAddress, parseCidr } from '../../dataplane/wire/address.ts';
import { customer, Net, provider } from '../controlplane/dhcp6/net.ts';
import * as build from '../lib/build.ts';

const SERVER = {
  addresses: '2001:db8:0:1::1000-2001:db8:0:1::1fff',
  delegate: 'customers',
  dns: '2001:db8::53',
  domains: 'isp.example',
};

function net(client: Record<string, unknown> = {}, server: Record<string, unknown> = {}): Net {
  const net = new Net();
  net.add('isp', provider({ ...SERVER, ...server }));
  net.add('cpe', customer({ 'ia-pd': [{}], ...client }));
  net.wire('cpe.wan', 'isp.lan');
  return net;
}

const client = (n: Net) => n.dhcp6('cpe').clients[0];
const held = (n: Net) => client(n).held.map((h) => `${h.kind} ${formatAddress(6, ...h.words)}/${h.prefixLength}`);

describe('§18.2.1, §18.3: coming up', () => {
  test('four messages bring an address, a prefix and the route to it on both sides', () => {
    const n = net();
    n.advance(6000);
    expect(n.take()).toEqual(['cpe>isp SOLICIT', 'isp>cpe ADVERTISE', 'cpe>isp REQUEST', 'isp>cpe REPLY']);
    const [address, prefix] = held(n);
    expect(address).toMatch(/^na 2001:db8:0:1::1[0-9a-f]{3}\/128$/);
    expect(prefix).toMatch(/^pd 2001:db8:1[0-9a-f]{2}:[0-9a-f]{1,2}00::\/56$/);
    expect(n.routes('cpe')).toEqual([`unreachable ${prefix.slice(3)} proto dhcp`]);
    expect(n.routes('isp')).toEqual([`${prefix.slice(3)} via fe80::ff:fe00:c01 dev lan proto dhcp`]);
    expect(client(n).dns.map((w) => formatAddress(6, ...w))).toEqual(['2001:db8::53']);
    expect(client(n).domains).toEqual(['isp.example']);
  });

  test('rapid commit takes two, and only when both want it', () => {
    const both = net({ 'rapid-commit': true }, { 'rapid-commit': true });
    both.advance(6000);
    expect(both.take()).toEqual(['cpe>isp SOLICIT', 'isp>cpe REPLY']);
    expect(client(both).state).toBe('bound');
    for (const one of [net({ 'rapid-commit': true }), net({}, { 'rapid-commit': true })]) {
      one.advance(6000);
      expect(one.take().length).toBe(4);
    }
  });

  test('several prefixes: one for each IA, as long as the pools have them; a hint chooses among pools', () => {
    const n = new Net();
    n.add(
      'isp',
      provider(
        { delegate: ['customers', 'small'] },
        {
          pools: {
            customers: { prefix: '2001:db8:100::/40', length: 56 },
            small: { prefix: '2001:db8:f00::/60', length: 60 },
          },
        },
      ),
    );
    n.add(
      'cpe',
      customer({
        'ia-na': false,
        'ia-pd': [{}, { hint: '::/60' }, { hint: '2001:db8:123:4500::/56' }, { hint: '::/60' }],
      }),
    );
    n.wire('cpe.wan', 'isp.lan');
    n.advance(6000);
    const lengths = held(n).map((text) => text.split('/')[1]);
    expect(lengths).toEqual(['56', '60', '56', '56']);
    expect(held(n)).toContain('pd 2001:db8:123:4500::/56');
    expect(new Set(held(n)).size).toBe(4);
  });

  test('§18.2.1: the first Solicit waits up to a second, the following ones twice as long each time, to SOL_MAX_RT', () => {
    const n = new Net();
    n.add('cpe', customer({}));
    n.add('deaf', { ports: { lan: { kind: 'memory' } } });
    n.wire('cpe.wan', 'deaf.lan');
    n.advance(40_000);
    const times = n.said.map((said) => said.at);
    const waits = times.slice(1).map((at, i) => at - times[i]);
    expect(times[0]).toBeLessThan(3000);
    // RAND of the first is positive: IRT to IRT × 1.1.
    expect(waits[0]).toBeGreaterThanOrEqual(1000);
    expect(waits[0]).toBeLessThanOrEqual(1120);
    for (let i = 1; i < waits.length; i++) {
      expect(waits[i] / waits[i - 1]).toBeGreaterThan(1.85);
      expect(waits[i] / waits[i - 1]).toBeLessThan(2.15);
    }
    expect(n.said.every((said) => said.message.xid === n.said[0].message.xid)).toBe(true);
    // §21.9: elapsed time is 0 in the first, then hundredths of a second.
    expect(n.said[0].message.elapsed).toBe(0);
    expect(n.said[2].message.elapsed).toBe(Math.floor((times[2] - times[0]) / 10));
  });

  test('§18.2.9: the highest preference is taken, 255 at once', () => {
    for (const [first, second, chosen] of [
      [3, 200, 200],
      [255, 0, 255],
    ]) {
      const n = new Net();
      n.add('cpe', customer({}));
      n.add('one', provider({ ...SERVER, preference: first }));
      n.add('two', provider({ ...SERVER, preference: second }, {}, 2));
      n.wire('cpe.wan', 'one.lan', 'two.lan');
      n.advance(6000);
      const offers = n.said.filter((said) => said.name === 'ADVERTISE');
      expect(offers.length).toBe(2);
      const request = n.said.find((said) => said.name === 'REQUEST')!;
      expect(request.message.serverId![9]).toBe(chosen === first ? 1 : 2);
      const waited = request.at - n.said[0].at;
      if (chosen === 255) expect(waited).toBe(0);
      else expect(waited).toBeGreaterThanOrEqual(1000);
    }
  });
});

describe('§18.2.4–18.2.8: keeping and giving back', () => {
  test('Renew at T1 to the server, Rebind at T2 to all; lifetimes run on', () => {
    const n = net({}, { preferred: 1000, valid: 2000 });
    n.advance(6000);
    n.take();
    n.advance(498_000, 500);
    const renew = n.said.find((said) => said.name === 'RENEW')!;
    expect(renew.at).toBeGreaterThan(500_000);
    expect(renew.at).toBeLessThan(505_000);
    expect(renew.message.serverId).not.toBeNull();
    expect(n.take()).toEqual(['cpe>isp RENEW', 'isp>cpe REPLY']);
    const before = client(n).held[0].valid;
    n.lose = (said) => said.name === 'RENEW';
    n.advance(820_000, 500);
    const names = n.take();
    expect(names.filter((name) => name.endsWith('RENEW')).length).toBeGreaterThan(3);
    expect(names.slice(-2)).toEqual(['cpe>isp REBIND', 'isp>cpe REPLY']);
    expect(client(n).held[0].valid).toBeGreaterThan(before + 700_000);
    expect(client(n).state).toBe('bound');
  });

  test('nobody answers: deprecated at the preferred time, gone with its routes at the valid time, then asked anew', () => {
    const n = net({}, { preferred: 100, valid: 200 });
    n.advance(6000);
    const [address] = client(n).held;
    n.lose = (said) => said.name !== 'SOLICIT';
    n.advance(110_000, 500);
    expect(n.routers.cpe.control.addresses.find(0, 6, address.words)?.state).toBe('deprecated');
    n.advance(100_000, 500);
    expect(client(n).held).toEqual([]);
    expect(client(n).state).toBe('solicit');
    expect(n.routers.cpe.control.addresses.find(0, 6, address.words)).toBeUndefined();
    expect(n.routes('cpe')).toEqual([]);
    expect(n.routes('isp')).toEqual([]);
    expect([...n.dhcp6('isp').delegation.leases]).toEqual([]);
  });

  test('§18.2.7: a Release ends the use first, and the server forgets; without an answer it ends after REL_MAX_RC', () => {
    const n = net();
    n.advance(6000);
    n.take();
    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    expect(n.routes('cpe')).toEqual([]);
    n.advance(1000);
    expect(n.take()).toEqual(['cpe>isp RELEASE', 'isp>cpe REPLY']);
    expect(n.routes('isp')).toEqual([]);
    expect(n.dhcp6('isp').delegation.leases.size).toBe(0);

    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.start', data: { port: 'wan' } });
    n.advance(6000);
    n.take();
    n.lose = () => true;
    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    n.advance(60_000, 100);
    expect(n.take()).toEqual(new Array(4).fill('cpe>isp RELEASE'));
    expect(client(n).state).toBe('idle');
  });

  test('§18.2.12: the link was away: Confirm for addresses, Rebind when there are prefixes', () => {
    for (const [pd, first] of [
      [[], 'CONFIRM'],
      [[{}], 'REBIND'],
    ] as const) {
      const n = net({ 'ia-pd': pd });
      n.advance(6000);
      n.take();
      n.routers.cpe.setLink('wan', false);
      n.advance(1000);
      n.routers.cpe.setLink('wan', true);
      n.advance(4000);
      expect(n.take()).toEqual([`cpe>isp ${first}`, 'isp>cpe REPLY']);
      expect(client(n).state).toBe('bound');
    }
  });

  test('§18.2.10.1: NotOnLink after Confirm starts anew', () => {
    const n = net({ 'ia-pd': [] });
    n.advance(6000);
    n.take();
    const moved = provider({ ...SERVER, addresses: '2001:db8:0:2::1000-2001:db8:0:2::1fff' });
    (moved.ports as Record<string, Record<string, unknown>>).lan.addresses = '2001:db8:0:2::1/64';
    const { isp } = n.routers;
    n.add('isp', moved);
    expect(isp).not.toBe(n.routers.isp);
    n.advance(3000);
    n.take();
    n.routers.cpe.setLink('wan', false);
    n.routers.cpe.setLink('wan', true);
    n.advance(6000);
    expect(n.take()).toEqual([
      'cpe>isp CONFIRM',
      'isp>cpe REPLY',
      'cpe>isp SOLICIT',
      'isp>cpe ADVERTISE',
      'cpe>isp REQUEST',
      'isp>cpe REPLY',
    ]);
    expect(held(n)[0]).toMatch(/^na 2001:db8:0:2::1/);
  });

  test('§18.2.8: an address that somebody has is declined, and nobody gets it for a day', () => {
    const n = net({ 'ia-pd': [] });
    n.advance(6000);
    n.take();
    const [address] = client(n).held;
    const own = n.routers.cpe.control.addresses.find(0, 6, address.words)!;
    n.routers.cpe.control.addresses.setState(own, 'duplicate');
    n.routers.cpe.control.tick();
    n.advance(8000);
    expect(n.take()).toContain('cpe>isp DECLINE');
    expect(held(n).length).toBe(1);
    expect(held(n)[0]).not.toContain(formatAddress(6, ...address.words));
    expect(n.dhcp6('isp').delegation.leases.get(address.words, 128)?.client).toBe('declined');
  });

  test('§18.2.10.1: a server that forgot says NoBinding, and the IA is requested from it', () => {
    const n = net({}, { preferred: 1000, valid: 2000 });
    n.advance(6000);
    n.take();
    for (const lease of [...n.dhcp6('isp').delegation.leases]) n.dhcp6('isp').delegation.leases.end(lease);
    n.advance(500_000, 500);
    expect(n.take()).toEqual(['cpe>isp RENEW', 'isp>cpe REPLY', 'cpe>isp REQUEST', 'isp>cpe REPLY']);
    expect(held(n).length).toBe(2);
  });
});

describe('§18.2.6: other information alone', () => {
  test('Information-request, and again after the refresh time', () => {
    const n = net({ stateless: true }, { refresh: 600 });
    n.advance(6000);
    expect(n.take()).toEqual(['cpe>isp INFORMATION-REQUEST', 'isp>cpe REPLY']);
    expect(client(n).state).toBe('informed');
    expect(held(n)).toEqual([]);
    n.advance(601_000, 500);
    expect(n.take()).toEqual(['cpe>isp INFORMATION-REQUEST', 'isp>cpe REPLY']);
  });
});

describe('RFC 9096: flash renumbering', () => {
  test('a pool that has changed: the old prefix ends with the Reply that brings the new one', () => {
    const n = net({ 'ia-na': false }, { preferred: 1000, valid: 2000 });
    n.advance(6000);
    const [old] = held(n);
    const leases = n.dhcp6('isp').delegation.leases;
    const kept = [...leases];
    n.add(
      'isp',
      provider(
        { ...SERVER, preferred: 1000, valid: 2000 },
        { pools: { customers: { prefix: '2001:db8:900::/40', length: 56 } } },
      ),
    );
    for (const lease of kept) n.dhcp6('isp').delegation.leases.put({ ...lease });
    n.advance(500_000, 500);
    expect(held(n).length).toBe(1);
    expect(held(n)[0]).toMatch(/^pd 2001:db8:9/);
    expect(n.routes('cpe')).toEqual([`unreachable ${held(n)[0].slice(3)} proto dhcp`]);
    expect(held(n)[0]).not.toBe(old);
  });
});

/** A customer whose server is the test: `reply` makes every answer from what was asked. */
function scripted(reply: (asked: Message, said: string) => Partial<Message>) {
  const n = new Net();
  n.add('cpe', customer({ 'ia-pd': [{}], 'ia-na': false }));
  n.add('isp', { ports: { lan: { kind: 'memory', mac: '02:00:00:00:0a:01' } } });
  n.wire('cpe.wan', 'isp.lan');
  const heard: Message[] = [];
  n.lose = ({ name, message, frame }) => {
    heard.push(message);
    const answer = {
      ...newMessage(name === 'SOLICIT' ? C.ADVERTISE : C.REPLY, message.xid),
      clientId: message.clientId,
      serverId: Uint8Array.of(0, 3, 0, 1, 2, 0, 0, 0, 10, 1),
      ...reply(message, name),
    };
    const packet = build.ipv6(
      { src: 'fe80::ff:fe00:a01', dst: build.ipText(frame.subarray(22, 38)) },
      build.udp({ sport: 547, dport: 546 }, emitMessage(answer)),
    );
    n.speak('isp', 'cpe.wan', build.ethernet({ src: '02:00:00:00:0a:01', dst: '02:00:00:00:0c:01' }, packet));
    return true;
  };
  return { n, heard };
}

const given = (iaid: number, prefix: string, preferred: number, valid: number, t1 = 0, t2 = 0): Ia => {
  const { words, prefixLength } = parseCidr(prefix)!;
  const one = { words, prefixLength, preferred, valid, status: null };
  return { kind: 'pd', iaid, t1, t2, addresses: [], prefixes: [one], status: null };
};

describe('servers that nobody should believe', () => {
  test.each(['::/0', '2000::/3', 'fe80::/56', 'ff00::/56', '::/56'])('%s is no prefix to delegate', (prefix) => {
    const { n, heard } = scripted(({ ias }) => ({ ias: [given(ias[0].iaid, prefix, 300, 600)] }));
    n.advance(20_000);
    expect(heard.length).toBeGreaterThan(2);
    expect(new Set(heard.map(({ type }) => type))).toEqual(new Set([C.SOLICIT]));
    expect(n.routes('cpe')).toEqual([]);
  });

  test('§14.2: a prefix that is deprecated already does not make the client ask every second', () => {
    const { n, heard } = scripted(({ ias: [{ iaid }] }) => {
      const both = given(iaid, '2001:db8:200::/56', 3000, 6000);
      both.prefixes.push(...given(iaid, '2001:db8:100::/56', 0, 6000).prefixes);
      return { ias: [both] };
    });
    n.advance(60_000);
    expect(held(n).length).toBe(2);
    expect(heard.map(({ type }) => type)).toEqual([C.SOLICIT, C.REQUEST]);
    n.advance(1_500_000, 1000);
    expect(heard.map(({ type }) => type)).toEqual([C.SOLICIT, C.REQUEST, C.RENEW]);
  });
});

test('§18.2.7: a client that is started while its Release has no answer yet begins anew', () => {
  const n = net();
  n.advance(6000);
  n.lose = ({ name }) => name === 'RELEASE';
  const tell = (name: string) => n.routers.cpe.control.handle({ kind: 'event', name, data: { port: 'wan' } });
  tell('dhcp6.stop');
  n.advance(500);
  expect(client(n).state).toBe('release');
  tell('dhcp6.start');
  n.advance(20_000);
  expect(client(n).state).toBe('bound');
  expect(n.take().filter((line) => line.endsWith('RELEASE')).length).toBe(1);
});
