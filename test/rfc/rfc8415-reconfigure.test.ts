/** RFC 8415 §18.2.11 and §20.4: a Reconfigure is believed when it proves itself with the key that the server gave. */
import { createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import { emitMessage, type Message, newMessage } from '../../controlplane/dhcp6/message.ts';
import { customer, Net, provider } from '../controlplane/dhcp6/net.ts';
import * as build from '../lib/build.ts';

const KEY = Uint8Array.from({ length: 16 }, (_, n) => n + 1);

function auth(replay: number, type: number, value: Uint8Array) {
  const information = Uint8Array.from([type, ...value]);
  return { protocol: 3, algorithm: 1, method: 0, replay: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, replay), information };
}

/** A bound client whose server has given it the key; `send` speaks to it from the server's address. */
function bound(accept: boolean) {
  const n = new Net();
  n.add('isp', provider({ delegate: 'customers' }));
  n.add('cpe', customer({ 'ia-na': false, 'ia-pd': [{}], 'reconfigure-accept': accept }));
  n.wire('cpe.wan', 'isp.lan');
  const send = (payload: Uint8Array) => {
    const packet = build.ipv6(
      { src: 'fe80::ff:fe00:a01', dst: 'fe80::ff:fe00:c01' },
      build.udp({ sport: 547, dport: 546 }, payload),
    );
    n.routers.cpe.inject('wan', build.ethernet({ src: '02:00:00:00:0a:01', dst: '02:00:00:00:0c:01' }, packet));
  };
  let reply: Message | null = null;
  n.lose = (said) => {
    if (said.name !== 'REPLY' || reply !== null) return false;
    reply = said.message;
    send(emitMessage({ ...said.message, authentication: auth(1, 1, KEY) }));
    return true;
  };
  n.advance(6000);
  n.take();
  const reconfigure = (replay: number, key: Uint8Array, change: (bytes: Uint8Array) => void = () => {}) => {
    const m = newMessage(10, 0);
    Object.assign(m, { clientId: reply!.clientId, serverId: reply!.serverId, reconfigure: 5 });
    m.authentication = auth(replay, 2, new Uint8Array(16));
    const digest = createHmac('md5', key).update(emitMessage(m)).digest();
    m.authentication = auth(replay, 2, digest);
    const bytes = emitMessage(m);
    change(bytes);
    send(bytes);
    n.settle();
    return n.take();
  };
  return { n, reconfigure, faults: () => n.dhcp6('cpe').counters.faults };
}

test('with the right digest it is answered by a Renew, once', () => {
  const { n, reconfigure, faults } = bound(true);
  expect(n.dhcp6('cpe').clients[0].state).toBe('bound');
  expect(reconfigure(2, KEY)).toEqual(['cpe>isp RENEW', 'isp>cpe REPLY']);
  // §20.3: the same replay value again is a replay.
  expect(reconfigure(2, KEY)).toEqual([]);
  expect(reconfigure(3, KEY)).toEqual(['cpe>isp RENEW', 'isp>cpe REPLY']);
  expect(faults()).toEqual({ 'not-authentic': 1 });
});

test('with another key, or a byte changed, it is nothing', () => {
  const { reconfigure, faults } = bound(true);
  expect(
    reconfigure(
      2,
      KEY.map((byte) => byte ^ 1),
    ),
  ).toEqual([]);
  expect(reconfigure(2, KEY, (bytes) => (bytes[3] ^= 1))).toEqual([]);
  expect(faults()).toEqual({ 'not-authentic': 2 });
});

test('off by default: not even a right one', () => {
  const { reconfigure, faults } = bound(false);
  expect(reconfigure(2, KEY)).toEqual([]);
  expect(faults()).toEqual({ 'not-authentic': 1 });
});
