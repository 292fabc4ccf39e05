/** compare tells real differences from the named, allowed ones. Kernel frames are stood in for by built ones. */
import { describe, expect, it } from 'vitest';
import { ethernet, fragment6, icmp, icmpv6, ipv4, ipv6, tcp, udp } from '../lib/build.ts';
import { compare } from './differential/compare.ts';
import { udpExchange } from './differential/frames.ts';
import {
  configOf,
  far,
  GATEWAY_MAC,
  HOSTS,
  type InlineRouter,
  LAN_MAC,
  LAN4,
  LAN6,
  type Played,
  playInline,
  WAN_MAC,
  WAN4,
} from './differential/scenario.ts';

const out = (bytes: Uint8Array, after = 0): Played => ({
  port: 'wan',
  after,
  frame: ethernet({ src: WAN_MAC, dst: GATEWAY_MAC }, bytes),
});
const back = (bytes: Uint8Array, after = 0): Played => ({
  port: 'lan',
  after,
  frame: ethernet({ src: LAN_MAC, dst: HOSTS[0].mac }, bytes),
});
const sent = (o: { sport?: number; id?: number; ttl?: number; data?: string; checksum?: number } = {}) =>
  out(
    ipv4(
      { src: WAN4, dst: far(1).v4, id: o.id, ttl: o.ttl ?? 63 },
      udp({ sport: o.sport ?? 40000, dport: 80, checksum: o.checksum }, o.data ?? 'x'),
    ),
  );
const expired = (id: number) =>
  back(
    ipv4(
      { src: LAN4, dst: HOSTS[0].v4, id },
      icmp({ type: 11 }, ipv4({ src: HOSTS[0].v4, dst: far(1).v4, ttl: 1 }, udp({ sport: 1, dport: 2 }))),
    ),
  );
const ports = ['lan', 'wan'];

describe('compare', () => {
  it('agrees on equal frames, whatever the order between ports', () => {
    expect(compare([sent(), expired(1)], [expired(1), sent()], { ports })).toBeNull();
  });

  it('tells the field and shows the bytes', () => {
    const text = compare([sent({ data: 'same' }), sent({ ttl: 63 })], [sent({ data: 'same' }), sent({ ttl: 62 })], {
      ports,
    });
    expect(text).toContain('port wan, frame 1 (after input 0 / 0) differs');
    expect(text).toContain('kernel: 203.0.113.1:40000 > 198.51.100.1:80 udp (43 bytes)');
    expect(text).toContain('    ip.ttl: kernel 63, sluice 62');
    expect(text).toMatch(
      /0010 {2}00 1d 00 00 00 00 3f 11 .* kernel\n {4}0010 {2}00 1d 00 00 00 00 3e 11 .* sluice\n.*\^\^/,
    );
    expect(text).not.toContain('udp.sport:');
  });

  it('tells frames that only one side sent, and frames out of order', () => {
    expect(compare([sent()], [], { ports })).toContain(
      'port wan: kernel sent 1 that sluice did not\n  after input 0: 203.0.113.1:40000',
    );
    expect(compare([], [expired(1)], { ports })).toContain('port lan: sluice sent 1 that kernel did not');
    const [a, b] = [sent({ data: 'a' }), sent({ data: 'b' })];
    expect(compare([a, b], [b, a], { ports })).toContain('frame 0');
    expect(() => compare([], [], { ports, normalise: ['magic'] })).toThrow('"magic"');
  });

  it('ip-id forgives the identification of the router’s own packets only', () => {
    const normalise = ['ip-id'];
    expect(compare([expired(1)], [expired(2)], { ports })).toContain('ip.id');
    expect(compare([expired(1)], [expired(2)], { ports, normalise })).toBeNull();
    expect(compare([sent({ id: 1 })], [sent({ id: 2 })], { ports, normalise })).toContain('ip.id');
    const wrong = expired(2);
    wrong.frame[24] ^= 1; // a header checksum that does not belong to the identification
    expect(compare([expired(1)], [wrong], { ports, normalise })).toContain('ip.checksum');
  });

  it('chosen-port pairs the two choices and holds both routers to them', () => {
    const normalise = ['chosen-port'];
    const choice = (sport: number, data: string) => sent({ sport, data });
    expect(compare([choice(1024, 'a')], [choice(5000, 'a')], { ports })).toContain('udp.sport');
    expect(
      compare([choice(1024, 'a'), choice(1024, 'b')], [choice(5000, 'a'), choice(5000, 'b')], { ports, normalise }),
    ).toBeNull();
    // The second packet of one connection must not get yet another port, nor two connections the same one.
    expect(
      compare([choice(1024, 'a'), choice(1024, 'b')], [choice(5000, 'a'), choice(5001, 'b')], { ports, normalise }),
    ).toContain('frame 1');
    expect(
      compare([choice(1024, 'a'), choice(1025, 'b')], [choice(5000, 'a'), choice(5000, 'b')], { ports, normalise }),
    ).toContain('frame 1');
    expect(compare([choice(1024, 'a')], [choice(5000, 'c')], { ports, normalise })).toContain('data');
    expect(
      compare([choice(1024, 'a')], [sent({ sport: 5000, data: 'a', checksum: 1 })], { ports, normalise }),
    ).toContain('udp.checksum');
    const syn = (sport: number) => out(ipv6({ src: LAN6, dst: far(1).v6 }, tcp({ sport, dport: 80, flags: 'S' })));
    expect(compare([syn(1024)], [syn(5000)], { ports, normalise })).toBeNull();
  });

  it('fragment-id pairs the identifications of IPv6 fragments', () => {
    const normalise = ['fragment-id'];
    const cut = (id: number) =>
      fragment6(
        ipv6({ src: HOSTS[0].v6, dst: far(1).v6 }, udp({ sport: 1, dport: 2 }, new Uint8Array(2000))),
        1280,
        id,
      ).map((p) => out(p));
    expect(compare(cut(1), cut(2), { ports })).toContain('ip6.ext44');
    expect(compare(cut(1), cut(2), { ports, normalise })).toBeNull();
    expect(compare(cut(1), [cut(2)[0], cut(3)[1]], { ports, normalise })).toContain('frame 1');
  });

  it('icmp-rate-limit forgives an error that one side held back, nothing else', () => {
    const normalise = ['icmp-rate-limit'];
    const six = back(ipv6({ src: LAN6, dst: HOSTS[0].v6 }, icmpv6({ type: 3 }, new Uint8Array(40))));
    const echo = back(ipv4({ src: LAN4, dst: HOSTS[0].v4 }, icmp({ type: 0, id: 1 })));
    const answer = back(ipv4({ src: far(1).v4, dst: HOSTS[0].v4 }, udp({ sport: 80, dport: 40000 })));
    expect(compare([expired(1), answer, six], [answer], { ports })).not.toBeNull();
    expect(compare([expired(1), answer, six], [answer], { ports, normalise })).toBeNull();
    expect(compare([answer], [expired(1), answer, six], { ports, normalise })).toBeNull();
    expect(compare([answer, echo], [answer], { ports, normalise })).toContain('kernel sent 1');
  });
});

describe('playInline', () => {
  it('advances the clock to each frame, and says after which input an output came', () => {
    const log: string[] = [];
    let now = 0;
    let waiting: { port: string; frame: Uint8Array; due: number }[] = [];
    const mirror: InlineRouter = {
      // Sends everything back through the other port, 10 ms later.
      inject: (port, frame) => {
        log.push(`${now} ${port}`);
        waiting.push({ port: port === 'lan' ? 'wan' : 'lan', frame, due: now + 10 });
      },
      advance: (ms) => {
        now += ms;
      },
      take: (port) => {
        const ready = waiting.filter((w) => w.port === port && w.due <= now);
        waiting = waiting.filter((w) => !ready.includes(w));
        return ready.map((w) => w.frame);
      },
    };
    const [question, answer] = udpExchange({});
    const seen: number[] = [];
    const echo = (past: readonly Played[]) => {
      seen.push(past.length);
      return past[0].frame;
    };
    const frames = [
      { ...question, at: 5 },
      { ...answer, at: 5 },
      { port: 'lan', at: 40, frame: echo },
    ];
    const played = playInline(mirror, Object.keys(configOf({}).ports), frames, { linger: 10 });
    expect(log).toEqual(['5 lan', '5 wan', '40 lan']);
    expect(seen).toEqual([2]);
    expect(played.map((p) => [p.port, p.after])).toEqual([
      ['lan', 1],
      ['wan', 1],
      ['wan', 2],
    ]);
  });
});
