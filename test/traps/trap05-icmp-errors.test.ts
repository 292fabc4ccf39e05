/**
 * Trap 5. ICMP errors about translated packets: inner addresses and ports are turned back, inner and outer checksums
 * follow, 8 bytes of the inner transport header are enough, a third router's own source stays; and the router's own
 * errors quote what was received, not what it had made of it.
 */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const THIRD = '198.51.100.99';

/** The source and destination, and the ports, of a quoted packet. */
const inner = (quote: Uint8Array) => [
  B.ipText(quote.slice(12, 16)),
  B.get16(quote, 20),
  B.ipText(quote.slice(16, 20)),
  B.get16(quote, 22),
];

const kinds: [string, B.Segment][] = [
  ['UDP', B.udp({ sport: 5000, dport: 53 }, 'a query of some length')],
  ['TCP', B.tcp({ sport: 5000, dport: 53, seq: 1, flags: 'S', options: { mss: 1460 } })],
];

describe.each(kinds)('about %s from inside', (_, segment) => {
  it.each([
    ['the whole packet', 0],
    ['8 bytes of transport', 28],
    ['20 bytes of transport', 40],
  ])('quoting %s', (__, cut) => {
    // The port moves as well, so that a quote with the wrong one is seen.
    const home = new H.Home({ nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24', ports: '6000-6009' }] } });
    const sent = B.ipv4({ src: H.HOST, dst: H.SERVER, ttl: 9, id: 3 }, segment);
    home.lan(sent);
    const out = home.one('wan');
    expect(out.src).toBe(H.ROUTER_WAN);
    expect(out.sport).not.toBe(5000);
    const error = B.icmp({ type: 11, code: 0 }, cut === 0 ? out.packet : out.packet.slice(0, cut));
    home.wan(B.ipv4({ src: THIRD, dst: H.ROUTER_WAN }, error));
    const seen = home.one('lan'); // the naive checker has judged the outer and, where it is whole, the inner checksums
    expect([seen.src, seen.dst, seen.l4[0]]).toEqual([THIRD, H.HOST, 11]);
    const quote = H.quoteOf(seen);
    expect(inner(quote)).toEqual([H.HOST, 5000, H.SERVER, 53]);
    // But for the hop count it is the host's own packet again, byte for byte.
    const expected = B.ipv4({ src: H.HOST, dst: H.SERVER, ttl: 8, id: 3 }, segment).slice(0, cut || undefined);
    expect(B.toHex(quote)).toBe(B.toHex(expected));
  });
});

it('about an echo request whose identifier moved', () => {
  const home = new H.Home();
  const ping = (src: string) => B.ipv4({ src, dst: H.SERVER }, B.icmp({ type: 8, id: 77, seq: 1 }, 'ping'));
  home.lan(ping(H.HOST));
  home.lan(ping(H.HOST2), H.HOST2_MAC);
  const [first, second] = home.left('wan');
  expect(B.get16(first.l4, 4)).toBe(77);
  expect(B.get16(second.l4, 4)).not.toBe(77);
  home.wan(B.ipv4({ src: THIRD, dst: H.ROUTER_WAN }, B.icmp({ type: 3, code: 1 }, second.packet)));
  const seen = home.one('lan');
  expect([seen.dst, seen.dstMac]).toEqual([H.HOST2, H.HOST2_MAC]);
  expect(B.get16(H.quoteOf(seen), 24)).toBe(77);
});

describe('from inside, about a packet that came in through a port forward', () => {
  it('the outside sees the router, and its own packet quoted', () => {
    const home = new H.Home({
      nat: {
        masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
        forward: [{ in: 'wan', proto: 'udp', port: 8080, to: '192.168.1.10:80' }],
      },
    });
    const sent = B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN, ttl: 9 }, B.udp({ sport: 7000, dport: 8080 }, 'hello'));
    home.wan(sent);
    const forwarded = home.one('lan');
    expect([forwarded.dst, forwarded.dport]).toEqual([H.HOST, 80]);
    home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER }, B.icmp({ type: 3, code: 3 }, forwarded.packet)));
    const seen = home.one('wan');
    expect([seen.src, seen.dst]).toEqual([H.ROUTER_WAN, H.SERVER]);
    expect(inner(H.quoteOf(seen))).toEqual([H.SERVER, 7000, H.ROUTER_WAN, 8080]);
  });

  it("a third router inside keeps its own source, as Linux's does not hide it either", () => {
    const home = new H.Home({
      nat: { forward: [{ in: 'wan', proto: 'udp', port: 8080, to: '192.168.1.10:80' }] },
    });
    home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN, ttl: 9 }, B.udp({ sport: 7000, dport: 8080 }, 'hello')));
    const forwarded = home.one('lan');
    home.lan(B.ipv4({ src: H.HOST2, dst: H.SERVER }, B.icmp({ type: 11, code: 0 }, forwarded.packet)), H.HOST2_MAC);
    for (const seen of home.left('wan')) {
      expect(seen.dst).toBe(H.SERVER);
      expect(inner(H.quoteOf(seen))).toEqual([H.SERVER, 7000, H.ROUTER_WAN, 8080]);
    }
  });
});

describe("the router's own errors quote the packet as it was received", () => {
  it('about a packet that it would have masqueraded', () => {
    const home = new H.Home();
    for (const packet of [
      B.ipv4({ src: H.HOST, dst: H.SERVER, ttl: 1 }, B.udp({ sport: 5000, dport: 53 }, 'x')),
      B.ipv4({ src: H.HOST, dst: H.SERVER, df: true }, B.udp({ sport: 5000, dport: 53 }, new Uint8Array(1480))),
    ]) {
      home.lan(packet);
      const seen = home.one('lan');
      expect(B.toHex(H.quoteOf(seen))).toBe(B.toHex(packet.slice(0, 548)));
    }
    expect(home.left('wan')).toEqual([]);
  });

  it('about an answer that it has translated already in its mind: TTL, and a LAN that is too narrow', () => {
    const home = new H.Home({
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: H.LAN_MAC, addresses: ['192.168.1.1/24'], mtu: 1280 },
        wan: { kind: 'memory', zone: 'wan', mac: H.WAN_MAC, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
      },
      neighbors: [
        { port: 'wan', ip: H.GATE, mac: H.GATE_MAC },
        { port: 'lan', ip: H.HOST, mac: H.HOST_MAC },
      ],
    });
    home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, 'query')));
    expect(home.left('wan').length).toBe(1);
    const answer = { src: H.SERVER, dst: H.ROUTER_WAN };
    for (const [packet, type, mtu] of [
      [B.ipv4({ ...answer, ttl: 1 }, B.udp({ sport: 53, dport: 5000 }, 'answer')), 11, 0],
      [B.ipv4({ ...answer, df: true }, B.udp({ sport: 53, dport: 5000 }, new Uint8Array(1400))), 3, 1280],
    ] as const) {
      home.wan(packet);
      const seen = home.one('wan');
      expect([seen.src, seen.dst, seen.l4[0], H.restOf(seen)]).toEqual([H.ROUTER_WAN, H.SERVER, type, mtu]);
      expect(B.toHex(H.quoteOf(seen))).toBe(B.toHex(packet.slice(0, 548)));
    }
  });

  it('about a packet that waited for a neighbour that never answered', () => {
    const home = new H.Home({ neighbors: [{ port: 'lan', ip: H.HOST, mac: H.HOST_MAC }] });
    const packet = B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, 'x'));
    home.lan(packet);
    home.router.advance(5000);
    const errors = home.left('lan').filter((seen) => seen.proto === 1);
    expect(errors.length).toBe(1);
    expect([errors[0].l4[0], errors[0].l4[1]]).toEqual([3, 1]);
    expect(B.toHex(H.quoteOf(errors[0]))).toBe(B.toHex(packet));
  });
});

it('an error about a connection that nobody has, or addressed to somebody else, goes nowhere', () => {
  const home = new H.Home();
  home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, 'query')));
  const out = home.one('wan');
  const stranger = B.ipv4({ src: H.ROUTER_WAN, dst: H.SERVER }, B.udp({ sport: 5001, dport: 53 }, 'query'));
  home.wan(B.ipv4({ src: THIRD, dst: H.ROUTER_WAN }, B.icmp({ type: 3, code: 3 }, stranger)));
  home.wan(B.ipv4({ src: THIRD, dst: '203.0.113.77' }, B.icmp({ type: 3, code: 3 }, out.packet)));
  home.wan(B.ipv4({ src: THIRD, dst: H.ROUTER_WAN }, B.icmp({ type: 3, code: 3 }, out.packet.slice(0, 27))));
  expect(home.left('lan')).toEqual([]);
  expect(home.dropped.CT_INVALID).toBe(3);
});

it('IPv6: an error passes with its inner packet untouched, to who had sent that, behind extension headers too', () => {
  const home = new H.Home();
  for (const ext of [[], [B.destinationOptions()]]) {
    home.lan(B.ipv6({ src: H.HOST6, dst: H.SERVER6, ext }, B.udp({ sport: 5000, dport: 53 }, 'query')));
    const out = home.one('wan');
    const error = B.ipv6({ src: '2001:db8:9::9', dst: H.HOST6 }, B.icmpv6({ type: 2, mtu: 1400 }, out.packet));
    home.wan(error);
    const seen = home.one('lan');
    expect([seen.src, H.restOf(seen)]).toEqual(['2001:db8:9::9', 1400]);
    expect(H.quoteOf(seen)).toEqual(out.packet);
  }
});
