/** conntrack-in and conntrack-confirm through the router: NEW, ESTABLISHED, RELATED, INVALID, and what each leaves behind. */
import { describe, expect, it } from 'vitest';
import { EVENT_TEXT, EventSink } from '../../conntrack/events.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const up = (data = 'x', sport = 5000) => B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport, dport: 53 }, data));
const down = (data = 'x', dport = 5000) =>
  B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport }, data));

describe('a connection', () => {
  it('is made by its first packet once that has passed every stage, and by no packet that was refused', () => {
    const home = new H.Home();
    home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER, ttl: 1 }, B.udp({ sport: 1, dport: 2 }, 'hop count')));
    home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER, df: true }, B.udp({ sport: 3, dport: 4 }, new Uint8Array(1500))));
    home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 5, dport: 6 }, 'nobody asked')));
    home.wan(B.ipv6({ src: H.SERVER6, dst: H.HOST6 }, B.udp({ sport: 5, dport: 6 }, 'nobody asked')));
    expect(home.router.conntrack.count).toBe(0);
    home.lan(up());
    expect(home.router.conntrack.count).toBe(1);
  });

  it('refused packets give their records back: far more of them than there are records', () => {
    const home = new H.Home({ conntrack: { max: 64 } });
    for (let n = 0; n < 5000; n++)
      home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 5, dport: 10_000 + n }, 'x')));
    expect(home.dropped).toEqual({ INPUT_DROP: 5000 });
    home.lan(up());
    expect(home.left('wan').length).toBe(1);
  });

  it('counts packets and bytes of each direction as conntrack does: the IP datagram, no link header, no padding', () => {
    const home = new H.Home();
    for (const data of ['one', 'three']) home.lan(B.concat(up(data), new Uint8Array(9)));
    home.wan(down('seven77'));
    expect(home.router.conntrack.lines()[0]).toMatch(/packets=2 bytes=64 .*packets=1 bytes=35/);
  });

  it('lets answers pass, whatever the zone says, and nobody else', () => {
    const home = new H.Home();
    home.lan(up());
    home.wan(down());
    expect(home.one('lan').dst).toBe(H.HOST);
    home.wan(down('x', 5001));
    home.wan(B.ipv4({ src: '198.51.100.8', dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: 5000 }, 'another host')));
    home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 54, dport: 5000 }, 'another port')));
    expect(home.left('lan')).toEqual([]);
  });

  it('a SYN on a closed connection opens a new one in its place', () => {
    const home = new H.Home();
    const client = (f: Parameters<typeof B.tcp>[0]) => B.ipv4({ src: H.HOST, dst: H.SERVER }, B.tcp(f));
    const c = { sport: 40_000, dport: 80 };
    const s = { sport: 80, dport: 40_000 };
    home.lan(client({ ...c, seq: 1, flags: 'S' }));
    home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.tcp({ ...s, seq: 9, ack: 2, flags: 'SA' })));
    home.lan(client({ ...c, seq: 2, ack: 10, flags: 'A' }));
    home.lan(client({ ...c, seq: 2, flags: 'R' }));
    expect(home.router.conntrack.lines()[0]).toContain('CLOSE');
    home.left('wan');
    home.lan(client({ ...c, seq: 70_000, flags: 'S' }));
    expect(home.left('wan').length).toBe(1);
    expect(home.router.conntrack.lines().length).toBe(1);
    expect(home.router.conntrack.lines()[0]).toContain('SYN_SENT');
  });
});

it('the events of a life: NEW once, UPDATE at the first answer and when assured, DESTROY at the end', () => {
  const home = new H.Home();
  const { tables } = home.router;
  const events = new EventSink(tables.buffers.events, 0, tables.conntrack);
  events.listen(true);
  const seen: string[] = [];
  const drain = () => {
    while (events.read((type) => seen.push(EVENT_TEXT[type])));
    return seen.splice(0);
  };
  home.lan(up());
  expect(drain()).toEqual(['NEW']);
  home.lan(up());
  expect(drain()).toEqual([]);
  home.wan(down());
  expect(drain()).toEqual(['UPDATE']);
  for (let n = 0; n < 4; n++) {
    home.router.advance(1000);
    home.lan(up());
    home.wan(down());
  }
  expect(drain()).toEqual(['UPDATE']);
  home.router.advance(200_000);
  expect(drain()).toEqual(['DESTROY']);
});
