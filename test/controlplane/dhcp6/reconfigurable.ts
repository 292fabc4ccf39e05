/**
 * A client that its server may reconfigure, and the server's part of that, which our server does not play: it gives the key
 * with its Reply and proves itself with it (RFC 8415 §20.4).
 */
import { createHmac } from 'node:crypto';
import { emitMessage, type Message, newMessage } from '../../../controlplane/dhcp6/message.ts';
import * as build from '../../lib/build.ts';
import { customer, Net, provider } from './net.ts';

export const KEY = Uint8Array.from({ length: 16 }, (_, n) => n + 1);

function auth(replay: number, type: number, value: Uint8Array) {
  const information = Uint8Array.from([type, ...value]);
  return { protocol: 3, algorithm: 1, method: 0, replay: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, replay), information };
}

/** A bound client whose server has given it the key; `reconfigure` asks it to renew, and its answer is on the wire then. */
export function reconfigurable(accept: boolean) {
  const n = new Net();
  n.add('isp', provider({ delegate: 'customers' }));
  n.add('cpe', customer({ 'ia-na': false, 'ia-pd': [{}], 'reconfigure-accept': accept }));
  n.wire('cpe.wan', 'isp.lan');
  const send = (payload: Uint8Array) => {
    const packet = build.ipv6(
      { src: 'fe80::ff:fe00:a01', dst: 'fe80::ff:fe00:c01' },
      build.udp({ sport: 547, dport: 546 }, payload),
    );
    n.speak('isp', 'cpe.wan', build.ethernet({ src: '02:00:00:00:0a:01', dst: '02:00:00:00:0c:01' }, packet));
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
  };
  return { n, reconfigure, faults: () => n.dhcp6('cpe').counters.faults };
}
