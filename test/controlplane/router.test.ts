/**
 * The embedding interface: inject and take, a virtual clock whose timers fire in their order, neighbours asked and packets
 * let go in their order, a neighbour that never answers; and the same seed gives the same frames.
 */
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../controlplane/config/index.ts';
import { createRouter } from '../../controlplane/router.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const noNeighbours = { neighbors: [] };
const query = (data: string, src = H.HOST) => B.ipv4({ src, dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, data));
const isArp = (frame: Uint8Array) => B.get16(frame, 12) === 0x0806;
const text = (seen: H.Seen) => new TextDecoder().decode(seen.l4.subarray(8));

/** ARP reply from the gateway. */
const gateReply = B.ethernet(
  { src: H.GATE_MAC, dst: H.WAN_MAC, type: 0x0806 },
  B.arp({ op: 'reply', sha: H.GATE_MAC, spa: H.GATE, tha: H.WAN_MAC, tpa: H.ROUTER_WAN }),
);

describe('createRouter', () => {
  it('takes an object or text (which it called no map), and refuses with every problem of the configuration', () => {
    const config = H.homeConfig();
    expect(createRouter(JSON.stringify(config)).now).toBe(0);
    expect(createRouter(config).conntrack.count).toBe(0);
    const error = (() => {
      try {
        createRouter({ ...config, routs: [], ports: { lan: { kind: 'memory', mtu: 'big' } } });
      } catch (e) {
        return e;
      }
      return null;
    })();
    expect(error).toBeInstanceOf(ConfigError);
    expect(String(error)).toMatch(/routs/);
    expect(String(error)).toMatch(/ports\.lan\.mtu: expected/);
  });

  it('says what it expected of programs without a compiler', () => {
    const router = createRouter(H.homeConfig()) as unknown as Record<string, (...args: unknown[]) => unknown>;
    for (const bytes of ['ffff', undefined, [1, 2, 3], new ArrayBuffer(60), new Uint16Array(30)]) {
      expect(() => router.inject('lan', bytes)).toThrow(/^frame: expected a Uint8Array with an Ethernet frame, got /);
      expect(() => router.explain('lan', bytes)).toThrow(/^frame: expected a Uint8Array/);
    }
    router.inject('lan', Buffer.alloc(60));
    for (const time of [Number.POSITIVE_INFINITY, Number.NaN, '1000'])
      expect(() => router.advance(time)).toThrow(/^advance: expected a number of milliseconds, got /);
    expect(() => router.restart('ipv5')).toThrow('restart: expected one of ipv4, ipv6, management, got "ipv5"');
    expect(() => router.capture({ port: 'lan' })).toThrow(
      'capture: expected ports, drops, flow, stage, snap, got "port"',
    );
  });

  it('names the ports that there are when asked for another', () => {
    const router = createRouter(H.homeConfig());
    expect(() => router.inject('dmz', new Uint8Array(60))).toThrow('port: expected one of lan, wan, got "dmz"');
    expect(() => router.take('dmz')).toThrow(RangeError);
  });

  it('copies what it is given, and gives what never changes again', () => {
    const home = new H.Home();
    const frame = B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC }, query('data'));
    const before = frame.slice();
    home.router.inject('lan', frame);
    expect(frame).toEqual(before);
    const [out] = home.router.take('wan');
    const copy = out.slice();
    for (let n = 0; n < 600; n++) home.lan(query(`other ${n}`));
    expect(out).toEqual(copy);
    expect(home.router.take('wan').length).toBe(600);
    expect(home.router.take('wan')).toEqual([]);
  });

  it('sends nothing unasked, however long it runs', () => {
    const router = createRouter(H.homeConfig(noNeighbours));
    router.advance(3_600_000);
    expect([router.take('lan'), router.take('wan')]).toEqual([[], []]);
  });

  it('the same configuration, seed and frames give the same frames', () => {
    const run = (seed: number) => {
      const home = new H.Home({ nat: { masquerade: [{ out: 'wan', ports: '6000-60000' }] } }, { seed });
      const random = new B.Random(1);
      const out: string[] = [];
      for (let n = 0; n < 300; n++) {
        home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER, ttl: random.int(1, 3) }, B.udp({ sport: n, dport: 53 }, 'x')));
        home.router.advance(random.int(0, 500));
        for (const port of ['lan', 'wan']) out.push(...home.router.take(port).map(B.toHex));
      }
      return out;
    };
    expect(run(5)).toEqual(run(5));
    expect(run(5)).not.toEqual(run(6));
  });
});

describe('the clock', () => {
  it('stands still but for advance, and counts whole milliseconds', () => {
    const home = new H.Home();
    home.lan(query('x'));
    expect(home.router.now).toBe(0);
    home.router.advance(1500);
    home.router.advance(0.9);
    home.router.advance(-5);
    expect(home.router.now).toBe(1500);
  });

  it('one long step is as good as many short ones: timers fire on their time', () => {
    const run = (steps: number[]) => {
      const home = new H.Home(noNeighbours);
      home.lan(query('waits'));
      const seen: number[] = [home.router.take('wan').filter(isArp).length];
      for (const step of steps) home.router.advance(step);
      seen.push(
        home.router.take('wan').filter(isArp).length,
        home.dropped.NEIGH_FAILED ?? 0,
        home.router.counters.held,
      );
      return seen;
    };
    expect(run([10_000])).toEqual(run(Array.from({ length: 1000 }, () => 10)));
    // The query waits in vain, and so does the error about it: the host that it is for is not known either.
    expect(run([10_000])).toEqual([1, 2, 2, 0]);
  });

  it('connections end on their time: an unanswered query after 30 s, an answered one likewise', () => {
    const home = new H.Home();
    home.lan(query('x'));
    home.router.advance(29_000);
    expect(home.router.conntrack.count).toBe(1);
    home.router.advance(4000);
    expect([home.router.conntrack.count, home.router.conntrack.lines()]).toEqual([0, []]);
  });

  it('goes on over the wrap of its 31 bits', () => {
    const home = new H.Home();
    for (let n = 0; n < 5; n++) {
      home.router.advance(0x1fffffff);
      home.lan(query(`${n}`));
      expect(home.left('wan').map(text)).toEqual([`${n}`]);
      home.router.advance(40_000);
      expect(home.router.conntrack.count).toBe(0);
    }
  });
});

describe('a next hop that is not known yet', () => {
  it('is asked for once, packets wait, and leave in the order in which they came', () => {
    const home = new H.Home(noNeighbours);
    for (let n = 0; n < 20; n++) home.lan(query(`packet ${n}`));
    const asked = home.router.take('wan');
    expect(asked.every(isArp)).toBe(true);
    expect(asked.length).toBe(1);
    expect(B.toHex(asked[0].subarray(0, 6))).toBe('ffffffffffff');
    expect(B.ipText(asked[0].subarray(38, 42))).toBe(H.GATE);
    expect(home.router.counters).toMatchObject({ held: 20, forwarded: 0 });
    home.router.inject('wan', gateReply);
    const out = home.left('wan');
    expect(out.map(text)).toEqual(Array.from({ length: 20 }, (_, n) => `packet ${n}`));
    expect(new Set(out.map((seen) => seen.dstMac))).toEqual(new Set([H.GATE_MAC]));
    expect(home.router.counters).toMatchObject({ held: 0, forwarded: 20 });
    home.lan(query('at once'));
    expect(home.left('wan').map(text)).toEqual(['at once']);
  });

  it('IPv6: by neighbour solicitation to the solicited-node group', () => {
    const home = new H.Home(noNeighbours);
    const packet = B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.udp({ sport: 1, dport: 2 }, 'six'));
    home.lan(packet);
    const asked = home.one('wan');
    expect([asked.dst, asked.dstMac, asked.ttl, asked.l4[0]]).toEqual([
      'ff02::1:ff00:fe',
      '33:33:ff:00:00:fe',
      255,
      135,
    ]);
    const option = B.concat(Uint8Array.of(2, 1), B.mac(H.GATE_MAC));
    const advert = B.icmpv6({ type: 136, rest: 0x60000000 }, B.concat(B.ip(H.GATE6), option));
    home.wan(B.ipv6({ src: H.GATE6, dst: H.ROUTER_WAN6, hop: 255 }, advert));
    const out = home.left('wan').filter((seen) => seen.proto === 17);
    expect(out.map((seen) => seen.dstMac)).toEqual([H.GATE_MAC]);
  });

  it('that never answers: three questions in three seconds, then host unreachable to everyone who waited', () => {
    const home = new H.Home({ neighbors: [{ port: 'lan', ip: H.HOST, mac: H.HOST_MAC }] });
    home.lan(query('one'));
    home.lan(query('two'));
    let questions = home.router.take('wan').filter(isArp).length;
    home.router.advance(2900);
    questions += home.router.take('wan').filter(isArp).length;
    expect([questions, home.left('lan').length, home.router.counters.held]).toEqual([3, 0, 2]);
    home.router.advance(200);
    const errors = home.left('lan');
    expect(errors.map((seen) => [seen.l4[0], seen.l4[1], text({ ...seen, l4: H.quoteOf(seen).subarray(20) })])).toEqual(
      [
        [3, 1, 'one'],
        [3, 1, 'two'],
      ],
    );
    expect(home.dropped).toEqual({ NEIGH_FAILED: 2 });
    // Nothing hangs: all is let go, and a later answer helps the next packet.
    expect([home.router.counters.held, home.router.frames.freeSmallCount]).toEqual([0, 512]);
    home.lan(query('three'));
    home.router.inject('wan', gateReply);
    home.lan(query('four'));
    expect(
      home
        .left('wan')
        .filter((seen) => seen.proto === 17)
        .map(text),
    ).toContain('four');
  });

  it('IPv6, that never answers: address unreachable', () => {
    const home = new H.Home({ neighbors: [{ port: 'lan', ip: H.HOST6, mac: H.HOST_MAC }] });
    home.lan(B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.udp({ sport: 1, dport: 2 }, 'x')));
    home.router.advance(4000);
    const errors = home.left('lan').filter((seen) => seen.l4[0] === 1);
    expect(errors.map((seen) => seen.l4[1])).toEqual([3]);
  });

  it('more wait than may: the oldest go, are counted, and their slots come back', () => {
    const home = new H.Home(noNeighbours);
    for (let n = 0; n < 100; n++) home.lan(query(`${n}`));
    expect(home.router.counters).toMatchObject({ held: 64, dropped: { NEIGH_QUEUEFULL: 36 } });
    home.router.inject('wan', gateReply);
    expect(
      home
        .left('wan')
        .filter((seen) => seen.proto === 17)
        .map(text),
    ).toEqual(Array.from({ length: 64 }, (_, n) => `${n + 36}`));
    expect(home.router.frames.freeSmallCount).toBe(512);
  });
});

describe('what is seen from outside', () => {
  it('every frame is in one counter', () => {
    const home = new H.Home();
    home.lan(query('forwarded'));
    home.lan(B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, B.icmp({ type: 8, id: 1, seq: 1 }, 'delivered')));
    home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER, ttl: 1 }, B.udp({ sport: 1, dport: 2 }, 'dropped')));
    home.lan(B.ipv4({ src: H.HOST, dst: '192.168.1.77' }, B.udp({ sport: 1, dport: 2 }, 'held')));
    const c = home.router.counters;
    expect(c).toMatchObject({ received: 4, forwarded: 1, delivered: 1, held: 1, dropped: { IP_TTL: 1 } });
    // The echo reply, Time Exceeded and the ARP request.
    expect(c.generated).toBe(3);
    expect(c.ports.lan).toMatchObject({ rx_packets: 4, tx_packets: 3, dropped: 1 });
    expect(c.ports.wan).toMatchObject({ rx_packets: 0, tx_packets: 1, dropped: 0 });
  });

  it('a frame of a VLAN port counts there and at the port under it, with its tag', () => {
    const router = createRouter({
      ports: {
        trunk: { kind: 'memory', mac: '02:00:00:00:01:01' },
        office: { vlan: 10, parent: 'trunk', zone: 'lan', addresses: ['192.168.1.1/24'] },
        guests: { vlan: 20, parent: 'trunk', zone: 'lan', addresses: ['192.168.2.1/24'] },
      },
      neighbors: [{ port: 'guests', ip: '192.168.2.10', mac: '02:00:00:00:00:20' }],
      zones: { lan: { forward: 'accept' } },
    });
    const packet = B.ipv4({ src: '192.168.1.10', dst: '192.168.2.10' }, B.udp({ sport: 5000, dport: 53 }, 'x'));
    const macs = { src: B.mac('02:00:00:00:00:10'), dst: B.mac('02:00:00:00:01:01') };
    const frame = B.ethernet({ ...macs, vlan: 10 }, packet);
    router.inject('trunk', frame);
    const { office, guests, trunk } = router.counters.ports;
    const rx = { rx_packets: 1, rx_bytes: frame.length };
    const tx = { tx_packets: 1, tx_bytes: frame.length };
    expect(office).toMatchObject({ ...rx, tx_packets: 0 });
    expect(guests).toMatchObject({ rx_packets: 0, ...tx });
    expect(trunk).toMatchObject({ ...rx, ...tx });
  });

  it('connections are listed with both tuples, translated', () => {
    const home = new H.Home();
    home.lan(query('x'));
    expect(home.router.conntrack.lines()[0]).toMatch(
      /src=192\.168\.1\.10 dst=198\.51\.100\.7 sport=5000 dport=53 .*src=198\.51\.100\.7 dst=203\.0\.113\.1 sport=53 dport=5000/,
    );
    expect(home.router.conntrack.list().length).toBe(1);
  });

  it('time stamps travel with the frames', () => {
    const home = new H.Home();
    home.router.inject('lan', B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC }, query('x')), 1700000000, 123456789);
    const [out] = home.router.port('wan').takeWithMeta();
    expect(out.frame.length).toBeGreaterThan(0);
    expect(home.router.port('lan')).toMatchObject({ seconds: 1700000000, nanoseconds: 123456789 });
  });
});
