/**
 * Apply, for what is a protocol: names, DHCP, router advertisements, the gateway. The domain that speaks them is made anew, and only
 * that one; connections, neighbours and packets on their way do not notice. And the table that says of each key what it takes.
 */
import { encode } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import { needsOf } from '../../controlplane/config/changes.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const LAN = (homeConfig = H.homeConfig()) => (homeConfig.ports as Record<string, Record<string, unknown>>).lan;
const WAN = (homeConfig = H.homeConfig()) => (homeConfig.ports as Record<string, Record<string, unknown>>).wan;
const config = (lan: Record<string, unknown> = {}, extra: Record<string, unknown> = {}) =>
  H.homeConfig({ ports: { lan: { ...LAN(), ...lan }, wan: WAN() }, offload: { mode: 'on', entries: 64 }, ...extra });

/** A router with an established flow; `again` sends one packet each way and says what became of them. */
function running(given: Record<string, unknown>) {
  const home = new H.Home(given, { unasked: true, slots: { small: 512, large: 4 } });
  home.router.advance(20_000);
  const udp = (src: string, dst: string, sport: number, dport: number) =>
    B.ipv4({ src, dst }, B.udp({ sport, dport }, 'x'));
  const again = () => {
    home.router.take('lan');
    home.router.take('wan');
    home.lan(udp(H.HOST, H.SERVER, 4000, 7));
    const out = home.left('wan').filter(({ dport }) => dport === 7).length;
    home.wan(udp(H.SERVER, H.ROUTER_WAN, 7, 4000));
    return [out, home.left('lan').filter(({ sport }) => sport === 7).length];
  };
  for (let n = 0; n < 5; n++) expect(again()).toEqual([1, 1]);
  const restarts = () => home.router.control.domains.health.map(({ domain, restarts: n }) => `${domain} ${n}`);
  return { home, again, restarts };
}
const apply = (home: H.Home, next: Record<string, unknown>) => home.router.apply(H.homeConfig(next));
const query = encode({
  type: 'query',
  id: 7,
  flags: 0x100,
  questions: [{ name: 'www.example', type: 'A', class: 'IN' }],
});
const ask = (home: H.Home) => {
  home.router.take('wan');
  home.lan(B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, B.udp({ sport: 4001, dport: 53 }, query)));
  return home
    .left('wan')
    .filter(({ dport }) => dport === 53)
    .map(({ dst }) => dst);
};

/** Lifetimes of the router in the advertisements that the LAN has heard. */
const lifetimes = (home: H.Home) =>
  home
    .left('lan')
    .filter(({ packet }) => packet[6] === 58 && packet[40] === 134)
    .map(({ packet }) => B.get16(packet, 46));

describe('apply of services', () => {
  it('dns: other servers are asked from then on; only the management domain is made anew', () => {
    const { home, again, restarts } = running(config({}, { dns: { servers: H.GATE, ports: ['lan'] } }));
    expect(ask(home)).toEqual([H.GATE]);
    const { refused, ended, lines } = apply(
      home,
      config({}, { dns: { servers: '203.0.113.254', hosts: { 'nas.home': '192.168.1.9' }, ports: ['lan'] } }),
    );
    expect([refused, ended]).toEqual([[], 0]);
    // A name of the house is a line of its own.
    expect(lines.join()).toContain('nas.home');
    expect(restarts()).toEqual(['ipv4 0', 'ipv6 0', 'management 1']);
    expect(again()).toEqual([1, 1]);
    expect(apply(home, config()).refused).toEqual([]);
    expect(ask(home)).toEqual([]);
    expect([6, 17].map((proto) => home.router.tables.hasService(proto, 53))).toEqual([false, false]);
    expect(again()).toEqual([1, 1]);
  });

  it('a DHCP server appears, changes its range and goes; nobody else notices', () => {
    const { home, again, restarts } = running(config());
    const range = (from: number) => ({
      dhcp4: { server: { range: `192.168.1.${from}-192.168.1.${from + 9}`, probe: false } },
    });
    const discover = () => {
      home.router.take('lan');
      const bootp = B.concat(
        B.hex('0101060000000007 0000 8000'),
        new Uint8Array(16),
        B.mac('02:00:00:00:00:77'),
        new Uint8Array(202),
        B.hex('63825363 350101 ff'),
      );
      home.lan(B.ipv4({ src: '0.0.0.0', dst: '255.255.255.255' }, B.udp({ sport: 68, dport: 67 }, bootp)));
      return home
        .left('lan')
        .filter(({ sport }) => sport === 67)
        .map(({ l4 }) => B.ipText(l4.subarray(24, 28)));
    };
    expect(discover()).toEqual([]);
    expect(apply(home, config(range(100))).refused).toEqual([]);
    expect(discover()).toEqual(['192.168.1.100']);
    expect(apply(home, config(range(150))).refused).toEqual([]);
    expect(discover()).toEqual(['192.168.1.150']);
    expect(apply(home, config()).refused).toEqual([]);
    expect(discover()).toEqual([]);
    expect(restarts()).toEqual(['ipv4 3', 'ipv6 0', 'management 0']);
    expect(again()).toEqual([1, 1]);
    expect(home.router.conntrack.count).toBeGreaterThan(0);
  });

  it('RFC 4861 §6.2.5: a port that announces itself no more says so; one that begins to, begins', () => {
    const { home, again, restarts } = running(config({ ra: { default: 'always' } }));
    home.router.take('lan');
    expect(apply(home, config()).refused).toEqual([]);
    expect(lifetimes(home)).toEqual([0, 0, 0]);
    home.router.advance(1_000_000);
    expect(lifetimes(home)).toEqual([]);
    expect(apply(home, config({ ra: { default: 'always', lifetime: 1234, 'max-interval': 100 } })).refused).toEqual([]);
    home.router.advance(20_000);
    expect(new Set(lifetimes(home))).toEqual(new Set([1234]));
    expect(restarts()).toEqual(['ipv4 0', 'ipv6 2', 'management 0']);
    expect(again()).toEqual([1, 1]);
  });

  it('a port that leaves IPv6 with its advertisements says farewell before it has no address to say it from', () => {
    const lan = { addresses: '192.168.1.1/24' };
    const { home } = running(config({ ...lan, ra: { default: 'always' } }));
    home.router.take('lan');
    expect(apply(home, config(lan)).refused).toEqual([]);
    expect(lifetimes(home)).toEqual([0, 0, 0]);
    expect(home.router.control.addresses.ofPort(0).filter(({ family }) => family === 6)).toEqual([]);
  });

  it('what is refused is refused as a whole', () => {
    const { home, restarts } = running(config({}, { dns: { servers: H.GATE, ports: ['lan'] } }));
    const { refused } = apply(home, config({}, { conntrack: { max: 8192 } }));
    expect(refused.length).toBe(1);
    expect(restarts()).toEqual(['ipv4 0', 'ipv6 0', 'management 0']);
    expect(ask(home)).toEqual([H.GATE]);
  });
});

describe('the table of changes', () => {
  it.each([
    ['ports.lan.dhcp4.server.lease', ['ipv4']],
    ['ports.wan.acceptRa.identifier', ['ipv6']],
    ['ports.lan.addresses', 'live'],
    ['ports.lan.mtu', 'restart'],
    ['dns.hosts', ['management']],
    ['gateway.mode', ['ipv4', 'ipv6']],
    ['gateway.script', 'restart'],
    ['nat.log', 'restart'],
    ['nat.masquerade', 'live'],
    ['conntrack.max', 'restart'],
    ['somethingNew', 'restart'],
  ])('%s', (path, needs) => {
    expect(needsOf(path)).toEqual(needs);
  });
});
