/** RFC 1191 and RFC 792: Fragmentation Needed says the next hop's MTU, and is sent only when it must be; through NAT too. */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const ports = (mtu: number) => ({
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: H.LAN_MAC, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
    wan: { kind: 'memory', zone: 'wan', mac: H.WAN_MAC, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'], mtu },
  },
});
const packet = (size: number, df: boolean, sport = 1) =>
  B.ipv4({ src: H.HOST, dst: H.SERVER, df, id: 9 }, B.udp({ sport, dport: 2 }, new Uint8Array(size - 28).fill(5)));

describe('§4 router specification', () => {
  it.each([1280, 1400, 1492])(
    'a link of %i: what fits passes, one byte more is refused with the MTU in the low half',
    (mtu) => {
      const home = new H.Home(ports(mtu));
      home.lan(packet(mtu, true));
      expect(home.one('wan').packet.length).toBe(mtu);
      home.lan(packet(mtu + 1, true));
      expect(home.left('wan')).toEqual([]);
      const error = home.one('lan');
      expect([error.src, error.l4[0], error.l4[1], H.restOf(error)]).toEqual([H.ROUTER_LAN, 3, 4, mtu]);
      expect(B.toHex(H.quoteOf(error))).toBe(B.toHex(packet(mtu + 1, true).slice(0, 548)));
    },
  );

  it('every packet that is too big is answered: discovery is exempt from the limit per destination', () => {
    const home = new H.Home(ports(1280));
    for (let n = 0; n < 30; n++) home.lan(packet(1400, true, n));
    expect(home.left('lan').length).toBe(30);
    expect(home.dropped).toEqual({ PKT_TOO_BIG: 30 });
  });

  it('a packet that is refused leaves no connection behind', () => {
    const home = new H.Home(ports(1280));
    home.lan(packet(1400, true));
    expect(home.router.conntrack.count).toBe(0);
  });
});

it('an error from farther away reaches the host behind the masquerade, with its MTU and its own packet', () => {
  const home = new H.Home();
  home.lan(packet(1500, true));
  const out = home.one('wan');
  const error = B.icmp({ type: 3, code: 4, mtu: 1300 }, out.packet.slice(0, 548));
  home.wan(B.ipv4({ src: '198.51.100.99', dst: H.ROUTER_WAN }, error));
  const seen = home.one('lan');
  expect([seen.src, seen.dst, H.restOf(seen)]).toEqual(['198.51.100.99', H.HOST, 1300]);
  const quote = H.quoteOf(seen);
  expect([B.ipText(quote.slice(12, 16)), B.get16(quote, 20), B.get16(quote, 2)]).toEqual([H.HOST, 1, 1500]);
});
