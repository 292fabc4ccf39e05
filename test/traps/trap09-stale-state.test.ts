/**
 * Trap 9, the part that can be had without a change of configuration at run time: a packet that could not be translated
 * leaves no state behind that would outlive the reason.
 */
import { expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const withoutAddress = {
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: H.LAN_MAC, addresses: ['192.168.1.1/24'] },
    wan: { kind: 'memory', zone: 'wan', mac: H.WAN_MAC },
  },
  routes: [{ to: '0.0.0.0/0', port: 'wan' }],
  neighbors: [
    { port: 'wan', ip: H.SERVER, mac: H.GATE_MAC },
    { port: 'lan', ip: H.HOST, mac: H.HOST_MAC },
  ],
};
const query = B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, 'query'));

it('no WAN address yet: the packet is dropped, not sent with its private source, and nothing remembers it', () => {
  const home = new H.Home(withoutAddress);
  for (let n = 0; n < 5; n++) home.lan(query);
  expect(home.left('wan')).toEqual([]);
  expect(home.dropped).toEqual({ NAT_NO_ADDRESS: 5 });
  expect(home.router.conntrack.count).toBe(0);
});

it('the first packet after the address came is translated', () => {
  const home = new H.Home(withoutAddress);
  home.lan(query);
  const words: [number, number, number, number] = [203 | (0 << 8) | (113 << 16) | (1 << 24), 0, 0, 0];
  home.router.control.addAddress(home.router.port('wan').number, 4, words, 24);
  home.lan(query);
  expect(home.one('wan')).toMatchObject({ src: H.ROUTER_WAN, sport: 5000 });
});

it('a connection that the filter refused leaves no record, and is judged anew', () => {
  const home = new H.Home();
  const inbound = B.ipv6({ src: H.SERVER6, dst: H.HOST6 }, B.tcp({ sport: 9, dport: 22, seq: 1, flags: 'S' }));
  home.wan(inbound);
  home.wan(inbound);
  expect(home.left('lan')).toEqual([]);
  expect([home.dropped, home.router.conntrack.count]).toEqual([{ FILTER_DROP: 2 }, 0]);
});
