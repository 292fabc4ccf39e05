/**
 * Fragments through the Linux kernel's router and through Sluice: the same cuts leave, byte for byte. Identifications of
 * IPv6 are each router's own: both are numbered in the order in which they appear before they are compared.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRouter } from '../../controlplane/index.ts';
import { cut4, cut6, randomCuts, shuffled } from '../dataplane/fragment-cut.ts';
import {
  checksum,
  destinationOptions,
  get16,
  get32,
  hex,
  hopByHop,
  icmp,
  icmpv6,
  ipv4,
  ipv6,
  put16,
  Random,
  routing,
  tcp,
  udp,
} from '../lib/build.ts';
import { compare } from './differential/compare.ts';
import { fromLan, fromWan, packet } from './differential/frames.ts';
import { KernelPlayer } from './differential/kernel.ts';
import { configOf, far, HOSTS, type Played, playInline, type ScenarioFrame, WAN4 } from './differential/scenario.ts';
import { labReady } from './need.ts';

const [A] = HOSTS;
/** The kernel remembers half datagrams for 30 s: every datagram has a number of its own. */
let id = 100 + (process.pid % 500) * 100;
const nextId = () => (id = (id + 1) & 0xffff || 1);

/** IPv6 identifications by order of appearance. */
function numbered(played: readonly Played[]): Played[] {
  const seen = new Map<string, number>();
  return played.map((p) => {
    const frame = p.frame.slice();
    if (get16(frame, 12) !== 0x86dd) return { ...p, frame };
    let field = 20;
    let at = 54;
    while (frame[field] === 0 || frame[field] === 43 || frame[field] === 60) {
      field = at;
      at += (frame[at + 1] + 1) * 8;
    }
    if (frame[field] === 44) {
      const key = `${get32(frame, at + 4)}`;
      if (!seen.has(key)) seen.set(key, seen.size + 1);
      put16(frame, at + 4, 0);
      put16(frame, at + 6, seen.get(key)!);
    }
    return { ...p, frame };
  });
}

describe.skipIf(!labReady(['nft', 'conntrack', 'ethtool']))('fragments, kernel and Sluice', () => {
  const players: KernelPlayer[] = [];
  beforeAll(() => {
    players.push(new KernelPlayer(configOf({})), new KernelPlayer(configOf({ wanMtu: 1400 })));
  });
  afterAll(() => {
    for (const p of players) p.close();
  });

  function both(wanMtu: number, frames: readonly ScenarioFrame[]): { difference: string | null; sent: number } {
    const config = configOf(wanMtu === 1500 ? {} : { wanMtu });
    const player = players[wanMtu === 1500 ? 0 : 1];
    player.configure(config);
    const kernel = player.play(frames);
    const router = createRouter({ ...config, conntrack: { max: 4096 } });
    const sluice = playInline(router, ['lan', 'wan'], frames);
    const difference = compare(numbered(kernel), numbered(sluice), { ports: ['lan', 'wan'], normalise: ['ip-id'] });
    return { difference, sent: kernel.length };
  }

  /** A random datagram from the LAN host, in random pieces. */
  function randomFrames(random: Random, six: boolean): ScenarioFrame[] {
    const length = random.pick([random.int(1, 200), random.int(1400, 1600), random.int(2000, 5000)]);
    const data = random.bytes(length);
    const kind = random.int(0, 3);
    const ports = { sport: random.int(1024, 65535), dport: random.int(1, 65535) };
    const segment =
      kind === 0
        ? tcp({ ...ports, flags: 'S', seq: random.next() }, data)
        : kind === 1
          ? (six ? icmpv6 : icmp)({ type: six ? 128 : 8, id: 7, seq: 1 }, data)
          : udp(ports, data);
    const df = random.chance(0.3);
    const mixed = random.chance(0.3);
    const tos = random.pick([0, 0, 0x10, 2, 1, 3]);
    const marked = random.chance(0.2);
    const to = far(random.int(1, 200));
    let pieces: Uint8Array[];
    if (six) {
      const whole = ipv6({ src: A.v6, dst: to.v6, hop: 64, tclass: tos, flow: random.int(0, 0xfffff) }, segment);
      const cuts = randomCuts(random, whole.length - 40, random.int(1, 6)).filter((c) => c >= 24);
      pieces = cut6(whole, cuts, random.next(), {
        change: (h, n) => {
          if (marked && n > 0) h[1] |= 0x30;
          h[7] = 64 - n;
        },
      });
    } else {
      const whole = ipv4({ src: A.v4, dst: to.v4, id: nextId(), df, tos }, segment);
      const cuts = randomCuts(random, whole.length - 20, random.int(1, 6)).filter((c) => c >= 24);
      pieces = cut4(whole, cuts, {
        change: (h, n) => {
          if (mixed && random.chance(0.5)) h[6] ^= 0x40;
          if (marked && n > 0) h[1] |= 3;
          h[8] = 64 - n;
        },
      });
    }
    pieces = pieces.flatMap((p) => (random.chance(0.1) ? [p, p] : [p]));
    return shuffled(random, pieces)
      .filter((p) => p.length <= 1500)
      .map((p) => fromLan(A, p));
  }

  it.each([1500, 1400])('random datagrams in random pieces, MTU %i', (mtu) => {
    let sent = 0;
    for (let seed = 1; seed <= 150; seed++) {
      const random = new Random(seed * 7919 + mtu);
      const frames = [...randomFrames(random, false), ...randomFrames(random, true)];
      const result = both(mtu, frames);
      expect(result.difference === null ? '' : `seed ${seed}: ${result.difference}`).toBe('');
      sent += result.sent;
    }
    expect(sent).toBeGreaterThan(300);
  });

  const v4 = (o: { df?: boolean; options?: Uint8Array; bytes: number; ttl?: number }) =>
    ipv4(
      { src: A.v4, dst: far(1).v4, id: nextId(), df: o.df, options: o.options, ttl: o.ttl },
      udp({ sport: 5000, dport: 53 }, new Random(o.bytes).bytes(o.bytes)),
    );
  const v6 = (bytes: number, ext: Parameters<typeof ipv6>[0]['ext'] = []) =>
    ipv6({ src: A.v6, dst: far(1).v6, ext }, udp({ sport: 5000, dport: 53 }, new Random(bytes).bytes(bytes)));
  // Type 158 has the copy flag, 30 has not (RFC 3692-style experiments, RFC 4727 §3.2).
  const OPTIONS = hex('9e04 1234 1e06 aabbccdd 0101');
  const LATER = hex('9e04 1234');
  const lan = (packets: readonly Uint8Array[]) => packets.map((p) => fromLan(A, p));
  const later = (whole: Uint8Array, options: Uint8Array) => {
    const h = ipv4({ src: whole.slice(12, 16), dst: whole.slice(16, 20), proto: 17, options }, '').slice();
    h.set(whole.subarray(4, 6), 4);
    return h;
  };
  const CASES: Record<string, () => ScenarioFrame[]> = {
    'IPv4 with options cut by the router': () => lan([v4({ bytes: 1440, options: OPTIONS })]),
    'IPv4 whose options are all of the kind that is copied': () => lan([v4({ bytes: 1440, options: LATER })]),
    'fragments with options in the first, fewer in the others': () => {
      const whole = v4({ bytes: 3000, options: OPTIONS });
      return lan(cut4(whole, [800, 1600], { later: later(whole, LATER) }));
    },
    'fragments with options, the later ones larger than the first allows': () => {
      const whole = v4({ bytes: 3500, options: OPTIONS });
      return lan(cut4(whole, [800, 800 + 1376], { later: later(whole, LATER) }).filter((p) => p.length <= 1500));
    },
    'fragments with DF, too large for one link': () => lan(cut4(v4({ bytes: 3000, df: true }), [1480, 2960])),
    'fragments with DF on the largest only': () =>
      lan(cut4(v4({ bytes: 3000 }), [1400, 1800], { change: (h, n) => (h[6] |= n === 0 ? 0x40 : 0) })),
    'fragments with DF on a small one': () =>
      lan(cut4(v4({ bytes: 3000 }), [1400, 1800], { change: (h, n) => (h[6] |= n === 1 ? 0x40 : 0) })),
    'fragments with DF that must be cut anew: the first is not the largest and has options': () => {
      const whole = v4({ bytes: 2000, options: OPTIONS, df: true });
      return lan(cut4(whole, [600, 1960], { later: later(whole, new Uint8Array(0)) }));
    },
    'the last one of one byte; TTL of the first counts': () =>
      lan(cut4(v4({ bytes: 1401 - 8, ttl: 9 }), [1400 - 8], { change: (h, n) => (h[8] = n === 0 ? 9 : 200) })),
    'TTL that runs out at the router': () => lan(cut4(v4({ bytes: 2000, ttl: 1 }), [1000])),
    'IPv6 TTL that runs out at the router': () => lan(cut6(v6(2000), [1000], 7, { change: (h) => (h[7] = 1) })),
    'IPv6 fragments too large for one link': () => lan(cut6(v6(3000), [1448, 2896], 8)),
    'an IPv6 datagram that is no longer than its largest fragment': () => lan(cut6(v6(1240 - 8), [1232], 9)),
    'an atomic fragment': () => lan(cut6(v6(100), [], 10)),
    'an atomic fragment of the size of the link': () => lan(cut6(v6(1340), [], 11)),
    'an atomic fragment too large for one link': () => lan(cut6(v6(1440), [], 12)),
    'an atomic fragment behind hop-by-hop options': () =>
      lan(cut6(v6(100, [hopByHop()]), [], 13, { fixed: 48, field: 40 })),
    'fragments behind hop-by-hop options': () =>
      lan(cut6(v6(2000, [hopByHop()]), [1000], 14, { fixed: 48, field: 40 })),
    'fragments behind a routing header': () => {
      const whole = v6(2000, [routing({ type: 4, left: 0, data: new Uint8Array(20) })]);
      return lan(cut6(whole, [1000], 15, { fixed: 64, field: 40 }));
    },
    // Destination options inside of the fragments are not here: whether Linux keeps the cuts then depends on how many bytes
    // its driver left in front of each frame (skb_headroom), and veth leaves too few. Sluice keeps them.
    'destination options before the fragment header': () =>
      lan(cut6(v6(2000, [destinationOptions()]), [1000], 17, { fixed: 48, field: 40 })),
    'IPv6 fragments smaller than IPv6 needs': () => lan(cut6(v6(700), [200, 400], 18)),
    'small ones and a large one': () => lan(cut6(v6(1700), [200, 400, 1600], 19)),
    'an IPv4 fragment of an odd length, more following': () => {
      const whole = v4({ bytes: 1000 });
      const [a, b] = cut4(whole, [800]);
      const odd = a.slice(0, 20 + 795);
      put16(odd, 2, odd.length);
      put16(odd, 10, 0);
      return lan([ipv4Checked(odd), b]);
    },
    'an overlap ends the datagram': () => {
      const whole = v4({ bytes: 2000 });
      const [a, b, c] = cut4(whole, [800, 1600]);
      const [, , d] = cut4(whole, [400, 1200]);
      return lan([a, c, d, b]);
    },
    'an IPv6 overlap ends the datagram': () => {
      const whole = v6(2000);
      const [a, b, c] = cut6(whole, [800, 1600], 20);
      const [, , d] = cut6(whole, [400, 1200], 20);
      return lan([a, c, d, b]);
    },
    'an end that lies behind the end': () => {
      const whole = v6(2000);
      const [a, b, c] = cut6(whole, [800, 1600], 21);
      const [, , , d] = cut6(v6(3000), [800, 1600, 2400], 21);
      return lan([a, c, d, b]);
    },
    'Not-ECT among ECT': () => lan(cut4(v4({ bytes: 2000 }), [800], { change: (h, n) => (h[1] = n === 0 ? 2 : 0) })),
    '60 KB of UDP, both families, shuffled': () => {
      const random = new Random(60);
      const big = v4({ bytes: 60_000 });
      const step = Array.from({ length: 40 }, (_, n) => (n + 1) * 1480);
      const step6 = Array.from({ length: 42 }, (_, n) => (n + 1) * 1400);
      return lan([...shuffled(random, cut4(big, step)), ...shuffled(random, cut6(v6(60_000), step6, 22))]);
    },
    'answers in fragments come back through the NAT': () => {
      const out = packet(A.v4, far(1).v4, udp({ sport: 5000, dport: 53 }, 'q'));
      const back = ipv4(
        { src: far(1).v4, dst: WAN4, id: nextId() },
        udp({ sport: 53, dport: 5000 }, new Random(3).bytes(4000)),
      );
      const six = ipv6({ src: far(1).v6, dst: A.v6 }, udp({ sport: 53, dport: 5000 }, new Random(4).bytes(4000)));
      return [
        fromLan(A, out),
        ...cut4(back, [1376, 2752]).reverse().map(fromWan),
        fromLan(A, packet(A.v6, far(1).v6, udp({ sport: 5000, dport: 53 }, 'q'))),
        ...cut6(six, [1344, 2688], 23).reverse().map(fromWan),
      ];
    },
    'answers nobody asked for stay outside, in fragments too': () => {
      const back = ipv4(
        { src: far(1).v4, dst: WAN4, id: nextId() },
        udp({ sport: 53, dport: 5000 }, new Uint8Array(3000)),
      );
      const six = ipv6({ src: far(1).v6, dst: A.v6 }, udp({ sport: 53, dport: 5000 }, new Uint8Array(3000)));
      return [...cut4(back, [1376, 2752]).map(fromWan), ...cut6(six, [1344, 2688], 24).map(fromWan)];
    },
    'too big for the link, DF not set': () => lan([v4({ bytes: 1460 }), v4({ bytes: 1472 }), v4({ bytes: 1380 - 7 })]),
  };
  for (const [name, frames] of Object.entries(CASES))
    it.each([1500, 1400])(`${name}, MTU %i`, (mtu) => expect(both(mtu, frames()).difference ?? '').toBe(''));
});

/** The header checksum made right. */
function ipv4Checked(packet: Uint8Array): Uint8Array {
  put16(packet, 10, 0);
  put16(packet, 10, checksum(packet.subarray(0, (packet[0] & 15) * 4)));
  return packet;
}
