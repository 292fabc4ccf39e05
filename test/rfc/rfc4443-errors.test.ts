/** RFC 4443 §3: every error that a router sends, its code, and who it comes from (§2.2). */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const data = B.udp({ sport: 4000, dport: 53 }, 'data');
const up = { src: H.HOST6, dst: H.SERVER6 };

function error(packet: Uint8Array, extra: Record<string, unknown> = {}): [number, number, number, string] {
  const home = new H.Home(extra);
  home.lan(packet);
  const seen = home.left('lan').filter((s) => s.proto === 58);
  expect(seen.length).toBe(1);
  expect(seen[0].dst).toBe(H.HOST6);
  expect(B.toHex(H.quoteOf(seen[0]))).toBe(B.toHex(packet.slice(0, 1232)));
  return [seen[0].l4[0], seen[0].l4[1], H.restOf(seen[0]), seen[0].src];
}

describe('§3.1 Destination Unreachable', () => {
  it('0: no route', () => {
    expect(error(B.ipv6(up, data), { routes: [] })).toEqual([1, 0, 0, H.ROUTER_LAN6]);
  });
  it('1: administratively prohibited, by a route', () => {
    expect(error(B.ipv6(up, data), { routes: [{ to: '2001:db8:7::/48', type: 'prohibit' }] })).toEqual([
      1,
      1,
      0,
      H.ROUTER_LAN6,
    ]);
  });
  it('2: beyond the scope of the source', () => {
    const home = new H.Home({ neighbors: [{ port: 'lan', ip: 'fe80::10', mac: H.HOST_MAC }] });
    home.lan(B.ipv6({ ...up, src: 'fe80::10' }, data));
    expect(home.one('lan').l4.slice(0, 2)).toEqual(Uint8Array.of(1, 2));
  });
  it('an error to a link-local sender came from whatever port its prefix had a route by', () => {
    const home = new H.Home({
      neighbors: [
        { port: 'lan', ip: 'fe80::10', mac: H.HOST_MAC },
        { port: 'wan', ip: 'fe80::10', mac: H.GATE_MAC },
      ],
    });
    home.lan(B.ipv6({ ...up, src: 'fe80::10' }, data));
    expect(home.one('lan').src).toBe('fe80::ff:fe00:101');
    home.wan(B.ipv6({ src: 'fe80::10', dst: H.HOST6 }, data));
    expect(home.one('wan').src).toBe('fe80::ff:fe00:102');
    expect(home.left('lan')).toEqual([]);
  });
  it('4: port unreachable, from the address that was asked', () => {
    expect(error(B.ipv6({ ...up, dst: H.ROUTER_WAN6 }, data))).toEqual([1, 4, 0, H.ROUTER_WAN6]);
  });
  it('nothing for a packet that the filter drops', () => {
    const home = new H.Home({
      zones: { lan: { forward: 'drop', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
    });
    home.lan(B.ipv6(up, data));
    expect(home.left('lan')).toEqual([]);
  });
  it('one for a packet that it rejects', () => {
    const zones = { lan: { forward: 'reject', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } };
    expect(error(B.ipv6(up, data), { zones })).toEqual([1, 4, 0, H.ROUTER_LAN6]);
  });
});

describe('§3.3 Time Exceeded, §3.4 Parameter Problem', () => {
  it('3, 0: the hop limit ran out', () => {
    expect(error(B.ipv6({ ...up, hop: 1 }, data))).toEqual([3, 0, 0, H.ROUTER_LAN6]);
  });
  it('4, 1: a next header of the router itself that nobody knows, pointed at', () => {
    expect(error(B.ipv6({ ...up, dst: H.ROUTER_LAN6, next: 254 }, 'what is this'))).toEqual([4, 1, 6, H.ROUTER_LAN6]);
    const ext = [B.destinationOptions()];
    expect(error(B.ipv6({ ...up, dst: H.ROUTER_LAN6, ext, next: 254 }, 'what is this'))).toEqual([
      4,
      1,
      40,
      H.ROUTER_LAN6,
    ]);
  });
});

describe('§2.4(f) rate', () => {
  it('six at once towards one host, then one a second', () => {
    const home = new H.Home();
    const burst = () => {
      for (let n = 0; n < 50; n++) home.lan(B.ipv6({ ...up, hop: 1 }, data));
      return home.left('lan').length;
    };
    expect(burst()).toBe(6);
    home.router.advance(3000);
    expect(burst()).toBe(3);
    expect(home.dropped).toEqual({ IP_TTL: 100 });
  });
});
