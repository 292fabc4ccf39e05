/**
 * Trap 15. Conntrack full, a port range exhausted, the neighbour table flooded: counted, early-dropped, bounded; and the
 * router keeps answering ARP, neighbour solicitations and echo, and keeps carrying the connections that it has.
 */
import { describe, expect, it } from 'vitest';
import { SOURCE_BURST } from '../../conntrack/admission.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const query = (sport: number, dst = H.SERVER) => B.ipv4({ src: H.HOST, dst }, B.udp({ sport, dport: 53 }, 'query'));
const answer = (dport: number) => B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport }, 'answer'));

/** ARP, ND and echo of both families get their answers. */
function answers(home: H.Home): void {
  home.left('lan');
  home.router.inject(
    'lan',
    B.ethernet(
      { src: H.HOST_MAC, dst: 'ff:ff:ff:ff:ff:ff', type: 0x0806 },
      B.arp({ op: 'request', sha: H.HOST_MAC, spa: H.HOST, tpa: H.ROUTER_LAN }),
    ),
  );
  const [arp] = home.router.take('lan');
  expect([B.get16(arp, 12), B.get16(arp, 20)]).toEqual([0x0806, 2]);
  home.lan(B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, B.icmp({ type: 8, id: 5, seq: 1 }, 'ping')));
  expect(home.one('lan').l4[0]).toBe(0);
  home.lan(B.ipv6({ src: H.HOST6, dst: H.ROUTER_LAN6 }, B.icmpv6({ type: 128, id: 5, seq: 1 }, 'ping')));
  expect(home.one('lan').l4[0]).toBe(129);
  const option = B.concat(Uint8Array.of(1, 1), B.mac(H.HOST_MAC));
  home.lan(
    B.ipv6(
      { src: H.HOST6, dst: H.ROUTER_LAN6, hop: 255 },
      B.icmpv6({ type: 135 }, B.concat(B.ip(H.ROUTER_LAN6), option)),
    ),
  );
  expect(home.one('lan').l4[0]).toBe(136);
}

describe('the connection table', () => {
  it('flooded with one-way packets: new ones push out old ones, an assured connection stays, the router answers', () => {
    const home = new H.Home({ conntrack: { max: 128 } });
    // A stream that goes both ways for more than two seconds is assured.
    for (let n = 0; n < 5; n++) {
      home.lan(query(999));
      home.wan(answer(999));
      home.router.advance(1000);
    }
    home.left('wan');
    home.left('lan');
    let carried = 0;
    for (let n = 0; n < 5000; n++) {
      home.lan(query(1024 + n, `198.51.${100 + (n & 3)}.${1 + (n % 250)}`));
      carried += home.left('wan').length;
      home.router.advance(1);
      if (n % 1000 === 500) answers(home);
    }
    expect(home.router.conntrack.count).toBeLessThanOrEqual(128);
    expect(carried).toBeGreaterThan(4500);
    expect((home.dropped.CT_FULL ?? 0) + carried).toBe(5000);
    expect(home.router.tables.conntrack.statistics().earlyDrop).toBeGreaterThan(4000);
    home.wan(answer(999));
    expect(home.one('lan')).toMatchObject({ dst: H.HOST, dport: 999 });
    answers(home);
    home.router.advance(200_000);
    expect(home.router.conntrack.count).toBe(0);
  });

  it('flooded by one host at once: it takes no more places than it may, and another host’s connections still open', () => {
    const home = new H.Home({ conntrack: { max: 128 } });
    for (let n = 0; n < 3000; n++) home.lan(query(1024 + n));
    expect(home.left('wan').length).toBe(128 + SOURCE_BURST);
    expect(home.dropped).toEqual({ CT_NEW_RATE: 3000 - 128 - SOURCE_BURST });
    const other = B.ipv4({ src: H.HOST2, dst: H.SERVER }, B.udp({ sport: 7, dport: 53 }, 'query'));
    home.lan(other, H.HOST2_MAC);
    expect(home.left('wan').length).toBe(1);
    // From another port, the flood from outside: the hosts inside lose nothing by it.
    for (let n = 0; n < 3000; n++)
      home.wan(B.ipv4({ src: `8.8.${n >> 8}.${n & 255}`, dst: H.ROUTER_WAN }, B.udp({ sport: 9, dport: 9 }, 'x')));
    home.left('wan');
    for (let n = 0; n < 50; n++)
      home.lan(B.ipv4({ src: H.HOST2, dst: H.SERVER }, B.udp({ sport: 100 + n, dport: 53 }, 'query')), H.HOST2_MAC);
    expect(home.left('wan').length).toBe(50);
  });

  it('full of assured connections: new ones are counted and dropped, those that are there go on', () => {
    const home = new H.Home({ conntrack: { max: 64 } });
    for (let round = 0; round < 4; round++) {
      for (let n = 0; n < 64; n++) {
        home.lan(query(2000 + n));
        home.wan(answer(2000 + n));
      }
      home.router.advance(1000);
    }
    home.left('wan');
    home.left('lan');
    expect(home.router.conntrack.count).toBe(64);
    for (let n = 0; n < 100; n++) home.lan(query(5000 + n));
    expect(home.left('wan')).toEqual([]);
    expect(home.dropped).toEqual({ CT_FULL: 100 });
    for (let n = 0; n < 64; n++) home.lan(query(2000 + n));
    expect(home.left('wan').length).toBe(64);
    // As soon as they expire, there is room again.
    home.router.advance(200_000);
    home.lan(query(6000));
    expect(home.left('wan').length).toBe(1);
  });
});

it('full of connections that are closing: they give their places to new ones, those that are open keep theirs', () => {
  const home = new H.Home({ conntrack: { max: 64 } });
  const end = (sport: number, out: boolean, flags: string, seq: number, ack: number) =>
    out
      ? home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER }, B.tcp({ sport, dport: 80, flags, seq, ack })))
      : home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.tcp({ sport: 80, dport: sport, flags, seq, ack })));
  for (let n = 0; n < 64; n++) {
    end(2000 + n, true, 'S', 1000, 0);
    end(2000 + n, false, 'SA', 5000, 1001);
    end(2000 + n, true, 'A', 1001, 5001);
    if (n === 0) continue;
    end(2000 + n, true, 'FA', 1001, 5001);
    end(2000 + n, false, 'FA', 5001, 1002);
    end(2000 + n, true, 'A', 1002, 5002);
  }
  expect(home.router.conntrack.lines().filter((line) => /TIME_WAIT .*ASSURED/.test(line))).toHaveLength(63);
  home.left('wan');
  home.left('lan');
  for (let n = 0; n < 20; n++) home.lan(query(5000 + n));
  expect(home.left('wan')).toHaveLength(20);
  expect(home.dropped).toEqual({});
  end(2000, true, 'A', 1001, 5001);
  expect(home.left('wan')).toHaveLength(1);
});

describe('the ports of a masquerade', () => {
  const four = { nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24', ports: '6000-6003' }] } };

  it('exhausted towards one destination: refused with an error, free towards another, free again when they expire', () => {
    const home = new H.Home(four);
    for (let n = 0; n < 6; n++) home.lan(query(3000 + n));
    expect(new Set(home.left('wan').map((seen) => seen.sport))).toEqual(new Set([6000, 6001, 6002, 6003]));
    expect(home.dropped).toEqual({ NAT_EXHAUSTED: 2 });
    for (const error of home.left('lan')) expect([error.l4[0], error.l4[1]]).toEqual([3, 13]);
    expect(home.router.conntrack.count).toBe(4);
    home.lan(query(3100, '198.51.100.8'));
    expect(home.left('wan').length).toBe(1);
    answers(home);
    home.router.advance(35_000);
    home.lan(query(3200));
    expect(home.left('wan').length).toBe(1);
  });
});

describe('the neighbour table', () => {
  const wide = {
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: H.LAN_MAC, addresses: ['192.168.1.1/16', '2001:db8:1::1/64'] },
      wan: { kind: 'memory', zone: 'wan', mac: H.WAN_MAC, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
    },
    nat: {},
    zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'accept', input: 'drop' } },
  };

  it('flooded by a scan from outside (RFC 6583): bounded, nobody else waits, the router answers', () => {
    const home = new H.Home(wide);
    const slots = home.router.frames.freeSmallCount;
    for (let n = 0; n < 12_000; n++) {
      const scan =
        n & 1
          ? B.ipv4({ src: H.SERVER, dst: `192.168.${2 + (n >> 8)}.${n & 255}` }, B.udp({ sport: 1, dport: 2 }, 'scan'))
          : B.ipv6(
              { src: H.SERVER6, dst: `2001:db8:1::${(0x1000 + n).toString(16)}` },
              B.udp({ sport: 1, dport: 2 }, 'scan'),
            );
      home.wan(scan);
      if (n % 3000 === 1500) {
        home.router.advance(50);
        home.router.take('wan');
        home.router.take('lan');
        // A host that is known is reached at once, in the middle of it.
        home.wan(B.ipv4({ src: H.SERVER, dst: H.HOST }, B.udp({ sport: 1, dport: 9 }, 'known')));
        expect(home.left('lan').filter((seen) => seen.dst === H.HOST).length).toBe(1);
        answers(home);
      }
    }
    expect(home.router.tables.neighbours.count).toBeLessThanOrEqual((home.router.tables.neighbours.capacity * 3) / 4);
    expect(home.router.counters.held).toBeLessThanOrEqual(512);
    home.router.take('lan');
    home.router.take('wan');
    home.router.advance(30_000);
    expect([home.router.counters.held, home.router.frames.freeSmallCount]).toEqual([0, slots]);
    const c = home.router.counters;
    const dropped = Object.values(c.dropped).reduce((sum, n) => sum + n, 0);
    expect(dropped).toBeGreaterThan(11_000);
    home.router.take('lan');
    home.router.take('wan');
    answers(home);
  });

  /** The questions of both ports are used up, nothing else has happened. */
  function scanned(): H.Home {
    const home = new H.Home({
      nat: {
        masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
        forward: [{ in: 'wan', proto: 'udp', port: 7000, to: '192.168.1.10:7' }],
      },
    });
    home.lan(query(999));
    home.wan(answer(999));
    for (let n = 0; n < 600; n++)
      home.lan(
        B.ipv6(
          { src: H.HOST6, dst: `2001:db8:ffff::${(n + 0x1000).toString(16)}` },
          B.udp({ sport: 1, dport: 2 }, 'scan'),
        ),
      );
    home.router.take('wan');
    home.router.take('lan');
    return home;
  }
  const scan4 = (n: number) => B.ipv4({ src: H.HOST, dst: `203.0.113.${n}` }, B.udp({ sport: 1, dport: 2 }, 'scan'));

  it('while a scan goes on, what is in vain makes no connection, and all that has a next hop goes on', () => {
    const home = scanned();
    const { count } = home.router.conntrack;
    for (let n = 50; n < 100; n++) home.lan(scan4(n));
    expect(home.dropped.NEIGH_RATE).toBe(600 - 64 + 50);
    expect(home.router.conntrack.count).toBe(count);
    // Old and new connections, a port forward, and the router itself.
    home.wan(answer(999));
    home.lan(query(1001));
    home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 5, dport: 7000 }, 'forwarded')));
    expect(home.left('lan').map((seen) => seen.dport)).toEqual([999, 7]);
    expect(home.left('wan').map((seen) => seen.sport)).toEqual([1001]);
    answers(home);
    // A packet that may not travel on is answered as ever.
    home.lan(B.ipv4({ src: H.HOST, dst: '203.0.113.99', ttl: 1 }, B.udp({ sport: 1, dport: 2 }, 'scan')));
    expect(home.one('lan').l4[0]).toBe(11);
    // As soon as there is a question again, it may be anybody's.
    home.router.advance(1);
    home.lan(scan4(99));
    expect(home.router.counters.held).toBe(65);
  });

  it('while a scan went on, groups, the broadcast and link-local addresses were refused as unknown next hops of an on-link default', () => {
    const home = new H.Home({
      nat: {},
      routes: [
        { to: '0.0.0.0/0', port: 'wan' },
        { to: '::/0', port: 'wan' },
      ],
    });
    const datagram = () => B.udp({ sport: 1, dport: 2 }, 'scan');
    for (let n = 0; n < 300; n++) home.lan(B.ipv4({ src: H.HOST, dst: `11.0.${n >> 8}.${n & 255}` }, datagram()));
    const refused = home.dropped.NEIGH_RATE;
    expect(refused).toBeGreaterThan(200);
    home.lan(B.ipv4({ src: H.HOST, dst: '224.0.0.251' }, datagram()));
    home.lan(B.ipv4({ src: H.HOST, dst: '255.255.255.255' }, datagram()));
    home.lan(B.ipv6({ src: H.HOST6, dst: 'ff05::1:3' }, datagram()));
    home.lan(B.ipv6({ src: H.HOST6, dst: 'fe80::77' }, datagram()));
    expect(home.dropped).toMatchObject({ NEIGH_RATE: refused, IP_MULTICAST: 3, IP_SCOPE: 1 });
    home.lan(B.ipv4({ src: H.HOST, dst: '11.1.1.1' }, datagram()));
    expect(home.dropped.NEIGH_RATE).toBe(refused + 1);
  });

  it('while there is no room, a second packet to a next hop that is asked for gives way, and the first one leaves', () => {
    const home = scanned();
    for (let n = 0; home.router.counters.held < 512; n++) {
      home.router.advance(1);
      home.lan(scan4(2 + (n & 7)));
    }
    home.router.take('wan');
    home.router.take('lan');
    const full = home.dropped.NEIGH_QUEUEFULL ?? 0;
    home.router.advance(1);
    home.lan(scan4(77)); // asked for, and the oldest of all goes
    for (let n = 0; n < 20; n++) home.lan(scan4(77));
    expect(home.dropped.NEIGH_QUEUEFULL).toBe(full + 21);
    expect(home.router.counters.held).toBe(512);
    home.router.take('wan');
    const reply = B.arp({ op: 'reply', sha: H.GATE_MAC, spa: '203.0.113.77', tha: H.WAN_MAC, tpa: H.ROUTER_WAN });
    home.router.inject('wan', B.ethernet({ src: H.GATE_MAC, dst: H.WAN_MAC, type: 0x0806 }, reply));
    expect(home.left('wan').filter((seen) => seen.dst === '203.0.113.77').length).toBe(1);
  });
});
