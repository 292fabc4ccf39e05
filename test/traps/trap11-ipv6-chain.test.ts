/**
 * Trap 11. IPv6 is filtered by the last header of the chain, not the first; a chain longer than the first fragment is
 * dropped (RFC 7112); the hop limit is where it is; Packet Too Big says the MTU of the link that was too small.
 */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const inbound = { src: H.SERVER6, dst: H.HOST6 };
const web = {
  rules: [
    {
      name: 'web',
      from: 'wan',
      to: 'lan',
      family: 'ipv6',
      proto: 'tcp',
      dst: H.HOST6,
      port: 443,
      state: 'new',
      verdict: 'accept',
    },
  ],
};
const syn = (dport: number) => B.tcp({ sport: 7000, dport, seq: 1, flags: 'S' });

describe('the filter', () => {
  const chains: [string, B.Extension[]][] = [
    ['no extension header', []],
    ['destination options', [B.destinationOptions()]],
    [
      'Hop-by-Hop, routing, destination options',
      [B.hopByHop(), B.routing({ type: 3, left: 0 }), B.destinationOptions()],
    ],
    ['an authentication header', [B.authentication({ spi: 1, seq: 1 })]],
    ['an atomic fragment', [B.fragmentHeader({ offset: 0, more: false, id: 1 })]],
  ];

  it.each(chains)('sees TCP port 443 behind %s, and tells it from 444 and from UDP', (_, ext) => {
    // Simple security would let AH in, whatever is behind it (RFC 6092 REC-21).
    const home = new H.Home({ ...web, firewall: { ipv6: 'zones' } });
    home.wan(B.ipv6({ ...inbound, ext }, syn(443)));
    expect(home.one('lan').dst).toBe(H.HOST6);
    home.wan(B.ipv6({ ...inbound, ext }, syn(444)));
    home.wan(B.ipv6({ ...inbound, ext }, B.udp({ sport: 7000, dport: 443 }, 'not TCP')));
    expect(home.left('lan')).toEqual([]);
    expect(home.dropped).toEqual({ FILTER_DROP: 2 });
  });

  it('is not fooled by a first header that looks like a transport header', () => {
    const home = new H.Home(web);
    // Destination options whose bytes are those of a TCP header to port 443.
    const fake = B.destinationOptions(
      B.hex('1b58 01bb 0000 0001 0000 0000 5002 ffff 0000 0000'.replace(/\s/g, '').slice(4)),
    );
    home.wan(B.ipv6({ ...inbound, ext: [fake] }, syn(444)));
    expect(home.left('lan')).toEqual([]);
  });
});

it('a chain that goes on behind the first fragment is dropped, and so is its rest', () => {
  const home = new H.Home(web);
  const whole = B.ipv6({ ...inbound, ext: [B.destinationOptions(new Uint8Array(62))] }, syn(443));
  for (const [n, part] of B.fragment6(whole, 96, 5).entries()) {
    // The builder's fragments name the first header of the part that is cut: the destination options.
    expect(part[40]).toBe(60);
    home.wan(part);
    if (n === 0) expect(home.dropped).toMatchObject({ FRAG_TINY: 1 });
  }
  home.router.advance(120_000);
  expect(home.left('lan')).toEqual([]);
  expect(home.router.conntrack.count).toBe(0);
});

describe('Packet Too Big (RFC 4443 §3.2, RFC 8201)', () => {
  const narrow = {
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: H.LAN_MAC, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
      wan: {
        kind: 'memory',
        zone: 'wan',
        mac: H.WAN_MAC,
        addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'],
        mtu: 1400,
      },
    },
  };

  it('names the MTU of the link, from the port towards the sender; what just fits passes', () => {
    const home = new H.Home(narrow);
    const packet = (size: number) =>
      B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.udp({ sport: 1, dport: 2 }, new Uint8Array(size - 48)));
    home.lan(packet(1400));
    expect(home.one('wan').packet.length).toBe(1400);
    home.lan(packet(1401));
    expect(home.left('wan')).toEqual([]);
    const error = home.one('lan');
    expect([error.src, error.l4[0], error.l4[1], H.restOf(error)]).toEqual([H.ROUTER_LAN6, 2, 0, 1400]);
    expect(home.dropped).toEqual({ PKT_TOO_BIG: 1 });
  });

  it("a route's own MTU counts, when it is smaller", () => {
    const home = new H.Home({
      ...narrow,
      routes: [
        { to: '0.0.0.0/0', via: H.GATE },
        { to: '::/0', via: H.GATE6 },
        { to: '2001:db8:7::/48', via: H.GATE6, mtu: 1300 },
      ],
    });
    home.lan(B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.udp({ sport: 1, dport: 2 }, new Uint8Array(1300))));
    expect(H.restOf(home.one('lan'))).toBe(1300);
  });

  it('a sender that goes on too big is told every time, not once a second (path MTU discovery must not starve)', () => {
    const home = new H.Home(narrow);
    for (let n = 0; n < 20; n++)
      home.lan(B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.udp({ sport: n, dport: 2 }, new Uint8Array(1400))));
    expect(home.left('lan').length).toBe(20);
  });
});
