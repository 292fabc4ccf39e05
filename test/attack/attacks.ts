/**
 * Attacks: endless sources of hostile frames, by name. Each is deterministic, and none knows the router's seed.
 */
import { ConntrackTable } from '../../conntrack/table.ts';
import {
  destinationOptions,
  ethernet,
  fragment4,
  fragment6,
  hex,
  hopByHop,
  icmp,
  icmpv6,
  ip,
  ipText,
  ipv4,
  ipv6,
  Random,
  routing,
  tcp,
  udp,
} from '../lib/build.ts';
import * as H from '../lib/home.ts';
import { fromLan, fromWan } from '../soak/world.ts';

export interface Hostile {
  port: 'lan' | 'wan';
  frame: Uint8Array;
}

const anywhere4 = (random: Random) =>
  `${random.int(11, 99)}.${random.int(0, 255)}.${random.int(0, 255)}.${random.int(1, 254)}`;
const anywhere6 = (random: Random) => ipText(Uint8Array.of(0x2a, ...random.bytes(15)));

/** A TCP segment about an established connection of the world (soak/world.ts), as somebody who guesses would make it. */
function blind(random: Random, flags: string, data = ''): Uint8Array {
  const n = random.int(0, 23);
  const six = n % 3 === 2;
  const segment = tcp({ sport: 443, dport: 20000 + n, seq: random.next(), ack: random.next(), flags, win: 1000 }, data);
  return six ? ipv6({ src: H.SERVER6, dst: H.HOST6 }, segment) : ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, segment);
}

/** Tuples that fall into few buckets of a table whose seed was guessed. */
function collisions(): (random: Random) => Hostile {
  const guess = new ConntrackTable(ConntrackTable.create(8192, 0), 0);
  const raw = (address: string) => new Int32Array(ip(address).slice().buffer)[0];
  const found: [string, number][] = [];
  const random = new Random(99);
  const key = 17 | (4 << 8);
  while (found.length < 2000) {
    const src = anywhere4(random);
    const sport = random.int(1024, 65535);
    const ports = ((sport & 0xff) << 8) | (sport >> 8) | (((80 & 0xff) << 8) << 16);
    if ((guess.hash4(raw(src), raw(H.ROUTER_WAN), ports, key) & 255) === 0) found.push([src, sport]);
  }
  let n = 0;
  return () => {
    const [src, sport] = found[n++ % found.length];
    return { port: 'wan', frame: fromWan(ipv4({ src, dst: H.ROUTER_WAN }, udp({ sport, dport: 80 }, 'x'))) };
  };
}

/** By name: makes the source of an attack, whose frames come one by one. */
export const ATTACKS: Readonly<Record<string, () => (random: Random) => Hostile>> = {
  'SYN flood on a port forward': () => (random) => ({
    port: 'wan',
    frame: fromWan(
      ipv4(
        { src: anywhere4(random), dst: H.ROUTER_WAN },
        tcp({ sport: random.int(1, 65535), dport: 8080, seq: random.next(), flags: 'S' }),
      ),
    ),
  }),
  'SYN flood from inside': () => (random) => ({
    port: 'lan',
    frame: fromLan(
      ipv4(
        { src: H.HOST2, dst: anywhere4(random) },
        tcp({ sport: random.int(1, 65535), dport: 80, seq: random.next(), flags: 'S' }),
      ),
      H.HOST2_MAC,
    ),
  }),
  'UDP port sweep': () => {
    let port = 0;
    return (random) => ({
      port: 'wan',
      frame: fromWan(
        ipv4({ src: anywhere4(random), dst: H.ROUTER_WAN }, udp({ sport: 53, dport: port++ & 0xffff }, 'knock')),
      ),
    });
  },
  'fragment flood': () => (random) => {
    if (random.chance(0.5)) {
      const whole = ipv4(
        { src: anywhere4(random), dst: H.ROUTER_WAN, id: random.int(0, 65535) },
        udp({ sport: 1, dport: 8080 }, new Uint8Array(200)),
      );
      return { port: 'wan', frame: fromWan(random.pick(fragment4(whole, 120))) };
    }
    const whole = ipv6({ src: anywhere6(random), dst: H.HOST6 }, udp({ sport: 1, dport: 2 }, new Uint8Array(200)));
    return { port: 'wan', frame: fromWan(random.pick(fragment6(whole, 120, random.next()))) };
  },
  'neighbour flood': () => (random) => {
    const six = random.chance(0.7);
    const packet = six
      ? ipv6(
          { src: H.HOST6, dst: ipText(Uint8Array.of(...ip('2001:db8:ffff::').subarray(0, 8), ...random.bytes(8))) },
          udp({ sport: 1, dport: 2 }, 'x'),
        )
      : ipv4({ src: H.HOST2, dst: `203.0.113.${random.int(2, 253)}` }, udp({ sport: 1, dport: 2 }, 'x'));
    return { port: 'lan', frame: ethernet({ src: H.HOST2_MAC, dst: H.LAN_MAC }, packet) };
  },
  'hash collisions': collisions,
  'spoofed ICMP errors': () => (random) => {
    const n = random.int(0, 23);
    const six = n % 3 === 2;
    const known = random.chance(0.5);
    const c = { sport: known ? 20000 + n : random.int(1, 65535), dport: 443 };
    const quote = tcp({ ...c, seq: random.next(), flags: 'A' });
    if (six) {
      const body = icmpv6(
        { type: random.int(1, 4), mtu: random.pick([0, 1280, 65535]) },
        ipv6({ src: H.HOST6, dst: H.SERVER6 }, quote),
      );
      return { port: 'wan', frame: fromWan(ipv6({ src: anywhere6(random), dst: H.HOST6 }, body)) };
    }
    const body = icmp(
      { type: random.pick([3, 4, 5, 11, 12]), code: random.int(0, 15), mtu: 68 },
      ipv4({ src: H.ROUTER_WAN, dst: H.SERVER }, quote),
    );
    return { port: 'wan', frame: fromWan(ipv4({ src: anywhere4(random), dst: H.ROUTER_WAN }, body)) };
  },
  'blind resets': () => (random) => ({
    port: 'wan',
    frame: fromWan(blind(random, random.pick(['R', 'RA', 'S', 'FA']))),
  }),
  'blind data': () => (random) => ({ port: 'wan', frame: fromWan(blind(random, 'PA', 'injected')) }),
  'IPv6 chains': () => (random) => {
    const src = random.chance(0.5) ? H.SERVER6 : anywhere6(random);
    const body = tcp({ sport: 443, dport: 22, flags: 'S', seq: 1 });
    const chains = [
      Array.from({ length: random.int(1, 12) }, () => destinationOptions()),
      [routing({ type: 0, left: 1, data: new Uint8Array(20) })],
      [hopByHop(hex('c2020000'))],
      [destinationOptions(), hopByHop()],
    ];
    const whole = ipv6({ src, dst: H.HOST6, ext: random.pick(chains) }, body);
    const parts = random.chance(0.3) ? fragment6(whole, 96, random.next()) : [whole];
    return { port: 'wan', frame: fromWan(random.pick(parts)) };
  },
};
