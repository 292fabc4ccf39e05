/**
 * Scarcity (row O5): a table that is too small. Who gets an entry, who must give one up, how fast entries are made, and
 * that a crafted flood of new flows cannot push an established streaming flow out. The figures are in docs/offload.md.
 */
import { describe, expect, test } from 'vitest';
import { createRouter, type Router, type RouterOptions } from '../../controlplane/router.ts';
import { NOT_OFFLOADED } from '../../offload/engine.ts';
import { HTTP_BULK, HTTP_NONE, HTTP_PERSISTENT, HTTP_SHORT, HTTP_STREAM, inspectResponse } from '../../offload/http.ts';
import { STAT_EVICTIONS, STAT_INSTALLS, STAT_REFUSED } from '../../offload/table.ts';
import { ipv4, ipv6, Random, tcp, udp } from '../lib/build.ts';
import { engineCounter, HOST, HOST6, hits, macOf, SERVER, SERVER6, to, WAN, worldConfig } from './world.ts';

function router(engine: Record<string, unknown>, options: RouterOptions = {}): Router {
  return createRouter(worldConfig({ offload: { mode: 'on', ...engine }, conntrack: { max: 65536 } }), options);
}

/** One packet of a UDP flow in one direction. */
function packet(r: Router, sport: number, out: boolean, tos = 0, payload = 'x'): void {
  if (out) {
    const sent = ipv4({ src: HOST, dst: SERVER, tos }, udp({ sport, dport: 4000 }, payload));
    r.inject('lan', to('lan', sent, macOf(HOST)));
  } else r.inject('wan', to('wan', ipv4({ src: SERVER, dst: WAN, tos }, udp({ sport: 4000, dport: sport }, payload))));
  r.take('lan');
  r.take('wan');
}

/** Why the connections are not in the engine, as a count by reason. */
function reasons(r: Router): Record<string, number> {
  const out: Record<string, number> = {};
  const { conntrack } = r.tables;
  for (let n = 0; n < conntrack.highWater; n++) {
    if (!conntrack.inUse(n, r.now)) continue;
    const why = NOT_OFFLOADED[conntrack.words[n * 48 + 44] >>> 24];
    out[why] = (out[why] ?? 0) + 1;
  }
  return out;
}

describe('a flood of new flows', () => {
  test.each([
    ['plain', 0],
    ['marked EF, to look important', 0xb8],
    ['marked CS4, like video', 0x80],
  ])('%s: the stream stays', (_, tos) => {
    const r = router({ entries: 64 });
    // A video stream, 100 packets a second in, an acknowledgement for each tenth.
    let sent = 0;
    const stream = () => {
      packet(r, 6000, false, 0, 'video');
      if (sent++ % 10 === 0) packet(r, 6000, true);
    };
    packet(r, 6000, true);
    for (let n = 0; n < 1000; n++) {
      stream();
      r.advance(10);
    }
    const before = hits(r);
    const misses = engineCounter(r, 'miss');
    // 20 seconds, 500 new flows a second, each with four packets.
    let sport = 10_000;
    let expected = 0;
    for (let n = 0; n < 2000; n++) {
      const already = hits(r);
      stream();
      expected += hits(r) - already;
      for (let k = 0; k < 5; k++, sport++)
        for (const out of [true, false, true, false]) packet(r, (sport % 50_000) + 10_000, out, tos);
      r.advance(10);
    }
    // Every packet of the stream was a hit: 2000 in and 200 out.
    expect(expected).toBe(2200);
    expect(hits(r)).toBeGreaterThan(before + 2200);
    expect(engineCounter(r, 'miss')).toBeGreaterThan(misses);
    const flows = r.tables.flows!;
    expect(flows.count).toBe(64);
    // Hysteresis: 64 places, each given up at most once in two seconds.
    expect(flows.statistic(STAT_EVICTIONS)).toBeLessThanOrEqual(62 * 11);
    expect(flows.statistic(STAT_REFUSED)).toBeGreaterThan(10_000);
    expect(reasons(r)['the table is full of flows with at least its priority']).toBeGreaterThan(1000);
  });

  test('a stream takes the place of browsing, not the other way round', () => {
    const r = router({ entries: 8 });
    for (let sport = 7000; sport < 7004; sport++) for (const out of [true, false, true]) packet(r, sport, out, 0x20);
    expect(r.tables.flows!.count).toBe(8);
    const busy = () => {
      for (let sport = 7000; sport < 7004; sport++) for (const out of [true, false]) packet(r, sport, out, 0x20);
    };
    for (let n = 0; n < 30; n++) {
      busy();
      r.advance(100);
    }
    for (const out of [true, false, true, false]) packet(r, 8000, out, 0x80);
    expect(r.tables.flows!.statistic(STAT_EVICTIONS)).toBe(2);
    const before = hits(r);
    packet(r, 8000, true, 0x80);
    expect(hits(r)).toBe(before + 1);
    // Background traffic finds no victim.
    for (const out of [true, false, true, false]) packet(r, 8001, out, 0x20);
    expect(r.tables.flows!.statistic(STAT_EVICTIONS)).toBe(2);
  });

  test('IPv6 flows cannot starve IPv4', () => {
    const r = router({ entries: 8 });
    for (let sport = 1; sport <= 4; sport++) {
      const out = ipv6({ src: HOST6, dst: SERVER6 }, udp({ sport, dport: 4000 }, 'x'));
      const back = ipv6({ src: SERVER6, dst: HOST6 }, udp({ sport: 4000, dport: sport }, 'x'));
      for (let n = 0; n < 2; n++) {
        r.inject('lan', to('lan', out, macOf(HOST6)));
        r.inject('wan', to('wan', back));
      }
    }
    expect(r.tables.flows!.liveCount(6)).toBe(8);
    r.advance(5000);
    for (const out of [true, false, true, false]) packet(r, 9000, out);
    expect(r.tables.flows!.liveCount(4)).toBe(2);
  });
});

describe('programming', () => {
  test('takes its time: an entry is used from its latency on', () => {
    const r = router({ latency: 50 });
    packet(r, 5000, true);
    packet(r, 5000, false);
    for (let n = 0; n < 4; n++) {
      r.advance(10);
      packet(r, 5000, false);
    }
    expect(hits(r)).toBe(0);
    expect(reasons(r)).toEqual({ 'its entry is being programmed': 1 });
    r.advance(10);
    packet(r, 5000, false);
    expect(hits(r)).toBe(1);
  });

  test('an entry that waits is given up with its connection', () => {
    const r = router({ latency: 50 });
    packet(r, 5000, true);
    packet(r, 5000, false);
    r.path.tracker.end(0);
    r.advance(100);
    expect(r.tables.flows!.count).toBe(0);
  });

  test('a flush while it waits makes it stale from its first day', () => {
    const r = router({ latency: 50 });
    packet(r, 5000, true);
    packet(r, 5000, false);
    r.offload.flush();
    r.advance(60);
    packet(r, 5000, false);
    expect(hits(r)).toBe(0);
    expect(engineCounter(r, 'stale-epoch')).toBe(1);
  });

  test('has a rate: 20 entries a second, whatever comes', () => {
    const r = router({ rate: 20 });
    for (let second = 1; second <= 5; second++) {
      for (let n = 0; n < 100; n++) {
        const sport = second * 1000 + n;
        packet(r, sport, true);
        packet(r, sport, false);
        r.advance(10);
      }
      const installs = r.tables.flows!.statistic(STAT_INSTALLS);
      expect(installs).toBeGreaterThanOrEqual(20 * second);
      expect(installs).toBeLessThanOrEqual(20 * second + 20);
    }
    expect(reasons(r)['the programming rate is used up']).toBeGreaterThan(100);
  });

  test('churn in a small table for an hour: it never degenerates', () => {
    const r = router({ entries: 8 });
    const random = new Random(5);
    for (let n = 0; n < 4000; n++) {
      const sport = random.int(1000, 1020);
      packet(r, sport, true);
      packet(r, sport, false);
      r.advance(random.int(100, 1800));
    }
    const flows = r.tables.flows!;
    expect(flows.count).toBeLessThanOrEqual(8);
    let empty = 0;
    for (let place = 0; place <= flows.mask; place++) if (flows.words4[(place << 4) + 3] === 0) empty++;
    expect(empty).toBeGreaterThanOrEqual((flows.mask + 1) / 8);
  });
});

describe('who is a candidate', () => {
  test('nobody before the reply; not with too few packets', () => {
    const r = router({ 'program-after': 4 });
    packet(r, 5000, true);
    packet(r, 5000, true);
    expect(r.tables.flows!.count).toBe(0);
    packet(r, 5000, false);
    expect(reasons(r)).toEqual({ 'too few packets yet': 1 });
    packet(r, 5000, false);
    expect(r.tables.flows!.count).toBe(1);
    packet(r, 5000, true);
    expect(r.tables.flows!.count).toBe(2);
  });

  test('nobody whose timeout is shorter than the engine’s own', () => {
    const r = createRouter(
      worldConfig({ offload: { mode: 'on' }, conntrack: { timeouts: { 'udp-stream': 20, udp: 10 } } }),
    );
    for (let n = 0; n < 10; n++) {
      packet(r, 5000, true);
      packet(r, 5000, false);
      r.advance(1000);
    }
    expect(r.tables.flows!.count).toBe(0);
    expect(reasons(r)).toEqual({ 'its timeout is shorter than the engine’s own': 1 });
  });

  test('inspection of first packets: it sees exactly so many, and what it refuses stays on the slow path', () => {
    const seen: string[] = [];
    const r = router(
      { 'inspect-first': 3 },
      {
        inspect: ({ packet: bytes, port, reply }) => {
          seen.push(`${port} ${reply} ${String.fromCharCode(bytes[28])}`);
          return bytes[28] !== 0x62; // 'b'
        },
      },
    );
    for (const out of [true, false, true, false, true, false]) packet(r, 5000, out, 0, 'a');
    expect(seen).toEqual(['1 true a', '0 false a']);
    expect(hits(r)).toBeGreaterThan(0);
    const before = hits(r);
    packet(r, 5001, true, 0, 'a');
    packet(r, 5001, false, 0, 'b');
    for (let n = 0; n < 20; n++) packet(r, 5001, n % 2 === 0, 0, 'a');
    expect(hits(r)).toBe(before);
    expect(reasons(r)['the inspection of its first packets has refused it']).toBe(1);
  });
});

describe('HTTP heads', () => {
  const judge = (text: string) => {
    const bytes = new TextEncoder().encode(`junk${text}`);
    return inspectResponse(bytes, 4, bytes.length);
  };
  test.each([
    ['HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n', HTTP_STREAM],
    ['HTTP/1.1 200 OK\r\nServer: x\r\ncontent-type:AUDIO/mpeg\r\n\r\n', HTTP_STREAM],
    ['HTTP/1.1 200 OK\r\nContent-Type: application/x-mpegURL\r\n\r\n', HTTP_STREAM],
    ['HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n', HTTP_BULK],
    ['HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n', HTTP_BULK],
    ['HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nContent-Type: video/mp4', HTTP_PERSISTENT],
    ['HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n', HTTP_SHORT],
    ['HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n', HTTP_SHORT],
    ['HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n', HTTP_PERSISTENT],
    ['HTTP/1.1 200 OK\r\nX-Content-Type: video/mp4\r\n\r\n', HTTP_PERSISTENT],
    ['GET / HTTP/1.1\r\n\r\n', HTTP_NONE],
    ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', HTTP_NONE],
    ['HTTP', HTTP_NONE],
    ['HTTP/1.1 200 OK\r\nContent-Type:', HTTP_PERSISTENT],
  ])('%j', (text, expected) => expect(judge(text)).toBe(expected));

  test('a web connection waits for the head of its response, and carries its priority to both entries', () => {
    const r = router({});
    const c = { sport: 5000, dport: 80 };
    const s = { sport: 80, dport: 5000 };
    const out = (o: object, payload = '') =>
      r.inject('lan', to('lan', ipv4({ src: HOST, dst: SERVER }, tcp({ ...c, ...o }, payload)), macOf(HOST)));
    const back = (o: object, payload = '') =>
      r.inject('wan', to('wan', ipv4({ src: SERVER, dst: WAN }, tcp({ ...s, ...o }, payload))));
    out({ seq: 1, flags: 'S' });
    back({ seq: 1, ack: 2, flags: 'SA' });
    out({ seq: 2, ack: 2 });
    out({ seq: 2, ack: 2, flags: 'PA' }, 'GET /film HTTP/1.1\r\n\r\n');
    back({ seq: 2, ack: 22 });
    expect(r.tables.flows!.count).toBe(0);
    const head = 'HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n';
    back({ seq: 2, ack: 22, flags: 'PA' }, head);
    out({ seq: 22, ack: 2 + head.length });
    expect(r.tables.flows!.count).toBe(2);
    const { aux4, live4 } = r.tables.flows!;
    expect([live4[0], live4[1]].map((place) => aux4[place * 8 + 3])).toEqual([4, 4]);
  });

  test('one whose server never says HTTP is not kept waiting', () => {
    const r = router({});
    const c = { sport: 5000, dport: 80 };
    const s = { sport: 80, dport: 5000 };
    r.inject('lan', to('lan', ipv4({ src: HOST, dst: SERVER }, tcp({ ...c, seq: 1, flags: 'S' })), macOf(HOST)));
    r.inject('wan', to('wan', ipv4({ src: SERVER, dst: WAN }, tcp({ ...s, seq: 1, ack: 2, flags: 'SA' }))));
    for (let n = 0; n < 10; n++)
      r.inject('lan', to('lan', ipv4({ src: HOST, dst: SERVER }, tcp({ ...c, seq: 2 + n, ack: 2 }, 'x')), macOf(HOST)));
    expect(hits(r)).toBeGreaterThan(0);
  });
});
