/**
 * The compiled burst against the same passes in JavaScript: two routers, one with it and one without, get the same bursts:
 * both families, ports and a tagged VLAN, partial checksums and super-frames, and frames of the same flows with one byte
 * changed at random. What leaves, why the engine refused what it refused, and every word of every entry must be the same.
 */
import { describe, expect, it } from 'vitest';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { compiledBurst } from '../../dataplane/ports/compiled.ts';
import type { FrameMeta } from '../../dataplane/ports/memory.ts';
import * as T from '../../dataplane/tables.ts';
import { EX_TEXT } from '../../offload/engine.ts';
import {
  F4_BYTES,
  F4_DMAC_HI,
  F4_LAST,
  F4_PORTS,
  F6_BYTES,
  F6_DMAC_HI,
  F6_LAST,
  F6_PORTS,
  FlowTable,
} from '../../offload/table.ts';
import { ip, ipv4, ipv6, Random, type Segment, tcp, toHex, udp } from '../lib/build.ts';
import { HOST, HOST6, hits, macOf, SERVER, SERVER6, to, WAN, worldConfig } from '../offload/world.ts';
import { shuffled } from './fragment-cut.ts';

const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;

function make(compiled: boolean, entries = 256): Router {
  const config = worldConfig({ offload: { mode: 'on', entries, 'program-after': 1 } });
  const ports = config.ports as Record<string, unknown>;
  ports.tagged = { vlan: 20, parent: 'alt', zone: 'dmz', addresses: ['10.20.0.1/24', '2001:db8:20::1/64'] };
  const neighbors = config.neighbors as unknown[];
  neighbors.push({ port: 'tagged', ip: '10.20.0.5', mac: macOf('10.20.0.5') });
  neighbors.push({ port: 'tagged', ip: '2001:db8:20::5', mac: macOf('2001:db8:20::5') });
  return createRouter(config, { slots: { small: 512, large: 32 }, compiled });
}

interface Sent {
  port: 'lan' | 'wan';
  frame: Uint8Array;
  meta?: Partial<FrameMeta>;
}

/** A packet of one of the flows, from either side. */
function packet(random: Random): Sent {
  const n = random.int(0, 11);
  const text = 'x'.repeat(random.pick([0, 1, 2, 7, 40, 63, 64, 65, 500, 1100]));
  const wan = random.pick(['10.20.0.5', SERVER]);
  const wan6 = random.pick(['2001:db8:20::5', SERVER6]);
  const lan = (p: Uint8Array, host = HOST): Sent => ({ port: 'lan', frame: to('lan', p, macOf(host)) });
  const back = (p: Uint8Array): Sent => ({ port: 'wan', frame: to('wan', p) });
  const data = { win: 8000, seq: 2, ack: 2 };
  const esp: Segment | Uint8Array = Uint8Array.from({ length: 40 }, (_, at) => (at < 4 ? 7 : random.int(0, 255)));
  switch (n) {
    case 0:
      return lan(
        ipv4({ src: HOST, dst: wan }, udp({ sport: 5000, dport: 53, checksum: random.pick([undefined, 0]) }, text)),
      );
    case 1:
      return back(ipv4({ src: SERVER, dst: WAN }, udp({ sport: 53, dport: 5000 }, text)));
    case 2:
      return lan(ipv4({ src: HOST, dst: wan }, tcp({ sport: 6000, dport: 80, ...data }, text)));
    case 3:
      return back(ipv4({ src: SERVER, dst: WAN }, tcp({ sport: 80, dport: 6000, ...data }, text)));
    case 4:
      return lan(ipv6({ src: HOST6, dst: wan6 }, udp({ sport: 5000, dport: 53 }, text)), HOST6);
    case 5:
      return back(ipv6({ src: SERVER6, dst: HOST6 }, udp({ sport: 53, dport: 5000 }, text)));
    case 6:
      return lan(ipv6({ src: HOST6, dst: wan6 }, tcp({ sport: 6000, dport: 80, ...data }, text)), HOST6);
    case 7:
      return back(ipv6({ src: SERVER6, dst: HOST6 }, tcp({ sport: 80, dport: 6000, ...data }, text)));
    case 8:
      return lan(ipv4({ src: HOST, dst: '10.20.0.5', proto: 50 }, esp));
    case 9:
      return lan(
        ipv4(
          { src: HOST, dst: '10.20.0.5', proto: 41 },
          ipv6({ src: HOST6, dst: SERVER6 }, udp({ sport: 1, dport: 2 }, text)),
        ),
      );
    default: {
      // A super-frame whose transport checksum is the folded sum of its pseudo-header (linux/virtio_net.h).
      const four = n === 10;
      const segment = tcp({ sport: 6000, dport: 80, ...data }, 'y'.repeat(random.pick([3000, 4096])));
      const sent = four
        ? lan(ipv4({ src: HOST, dst: wan }, segment))
        : lan(ipv6({ src: HOST6, dst: wan6 }, segment), HOST6);
      const start = four ? 34 : 54;
      const gso = (four ? GSO_TCPV4 : GSO_TCPV6) | (random.pick([1000, 1200, 1440, 1460, 1500]) << 16);
      return { ...sent, meta: { flags: 1, gso, csum: start | (16 << 16), hdrlen: start + 20 } };
    }
  }
}

/** Some frames come as a device gives them: their sum verified already, or only begun. */
function offloaded(random: Random, sent: Sent): Sent {
  if (sent.meta !== undefined || !random.chance(0.2)) return sent;
  if (random.chance(0.5)) return { ...sent, meta: { flags: 2 } };
  const four = sent.frame[12] === 0x08;
  const proto = sent.frame[four ? 23 : 20];
  if (proto !== 6 && proto !== 17) return sent;
  return { ...sent, meta: { flags: 1, csum: (four ? 34 : 54) | ((proto === 6 ? 16 : 6) << 16) } };
}

/** What a router has sent since the last look, and what its engine has refused. */
function seen(router: Router) {
  const left = ['lan', 'wan', 'alt', 'dmz'].flatMap((port) =>
    router
      .port(port)
      .takeWithMeta()
      .map(({ frame, flags, gso, csum }) => `${port} ${flags} ${gso} ${csum} ${toHex(frame)}`),
  );
  const reasons = EX_TEXT.map((name, n) => `${name} ${router.tables.total(T.C_ENGINE + n)}`);
  return { left, reasons };
}

/** The same, and what its engine holds. */
function state(router: Router) {
  const { words4, words6 } = router.tables.flows!;
  return { ...seen(router), four: Buffer.from(words4).toString('hex'), six: Buffer.from(words6).toString('hex') };
}

/** From one of these places on, of some 16,000, flows are looked for that `crowd` gives. */
const CROWDED = 8;
const DMZ6 = '2001:db8:9::20';
const words = (address: string) => new Int32Array(ip(address).slice().buffer);
const raw = (sport: number, dport: number) => Buffer.from([sport >> 8, sport, dport >> 8, dport]).readInt32LE();

/** Source ports of flows from the LAN's host to one in the DMZ that stand in each other's way in the table. */
function crowd(flows: FlowTable, six: boolean, count: number): number[] {
  const key = FlowTable.key(17, 0);
  const [src, dst] = (six ? [HOST6, DMZ6] : [HOST, '10.9.0.20']).map(words);
  const home = (ports: number) =>
    six
      ? flows.home6(src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], ports, key)
      : flows.home4(src[0], dst[0], ports, key);
  const found: number[] = [];
  for (let sport = 1024; sport < 65536 && found.length < count; sport++)
    if (home(raw(sport, 7)) < CROWDED) found.push(sport);
  return found;
}

describe('the compiled burst', () => {
  it('is there: the project has been built', () => {
    expect(
      compiledBurst(),
      'dist/dataplane/compiled/burst.wasm: expected a build, got none: run `npm run build`',
    ).not.toBeNull();
  });

  it('reads what both families’ entries say from LAST to BYTES at the same distances', () => {
    expect(F6_DMAC_HI - F6_LAST).toBe(F4_DMAC_HI - F4_LAST);
    expect(F6_BYTES - F6_LAST).toBe(F4_BYTES - F4_LAST);
  });

  it.each([1, 2, 3, 4])('seed %i: forwards, refuses and counts as JavaScript does', (seed) => {
    const random = new Random(seed);
    const routers = [make(true), make(false)];
    expect(routers.map((router) => router.frames.ground >= 0)).toEqual([true, false]);
    for (let burst = 0; burst < 500; burst++) {
      const port = random.pick(['lan', 'wan'] as const);
      const frames = Array.from({ length: random.int(1, 24) }, () => offloaded(random, packet(random))).filter(
        (sent) => sent.port === port,
      );
      for (const sent of frames) {
        if (burst < 20 || !random.chance(0.2)) continue;
        // Anything in the headers may be wrong; the metadata stays true to the frame's length.
        sent.frame[random.int(0, Math.min(sent.frame.length, 76) - 1)] ^= 1 << random.int(0, 7);
      }
      // Entries are outdated, or are left behind by a link, or stand idle.
      if (random.chance(0.03)) for (const router of routers) router.offload.flush();
      const down = random.chance(0.03);
      if (down) for (const router of routers) router.setLink('wan', false);
      if (down) for (const router of routers) router.setLink('wan', true);
      const advance = random.pick([0, 0, 1, 50, 20_000, 40_000]);
      const states = routers.map((router) => {
        for (const { frame, meta } of frames) router.port(port).push(frame, 0, 0, meta);
        router.advance(burst % 50 === 49 ? advance : advance % 100);
        return state(router);
      });
      expect(states[0]).toEqual(states[1]);
    }
    expect(hits(routers[0])).toBeGreaterThan(300);
  });

  it('finds the flows that stand behind others, where those have gone as well, in a table of which it visits further places', () => {
    const routers = [make(true, 8192), make(false, 8192)];
    const random = new Random(5);
    const flows = [false, true].flatMap((six) =>
      crowd(routers[0].tables.flows!, six, 16).map((sport) => ({ six, sport })),
    );
    expect(flows).toHaveLength(32);
    const frame = ({ six, sport }: (typeof flows)[0], back: boolean): Uint8Array => {
      const segment = udp(back ? { sport: 7, dport: sport } : { sport, dport: 7 }, 'x');
      const [host, far] = six ? [HOST6, DMZ6] : [HOST, '10.9.0.20'];
      const ends = back ? { src: far, dst: host } : { src: host, dst: far };
      return to(back ? 'dmz' : 'lan', six ? ipv6(ends, segment) : ipv4(ends, segment), macOf(ends.src));
    };
    let farthest = 0;
    for (let burst = 0; burst < 400; burst++) {
      const back = random.chance(0.3);
      // Each at most once: an entry that a burst's own frames have made may stand where its first pass has gone on.
      const frames = shuffled(random, flows)
        .slice(0, random.int(1, 24))
        .map((flow) => frame(flow, back));
      // A connection ends, and its entries with it: the places are free, or tombstones.
      const end = random.chance(0.3) ? random.int(0, 31) : -1;
      const results = routers.map((router) => {
        const { conntrack } = router.tables;
        if (end >= 0 && end < conntrack.highWater && conntrack.inUse(end, router.now)) conntrack.delete(end);
        for (const sent of frames) router.port(back ? 'dmz' : 'lan').push(sent);
        router.advance(1);
        return seen(router);
      });
      expect(results[0]).toEqual(results[1]);
      const { words4, words6, live4, live6 } = routers[0].tables.flows!;
      const ours = (ports: number) => flows.some(({ sport }) => ports === raw(sport, 7));
      for (let n = 0; n < routers[0].tables.flows!.liveCount(4); n++)
        if (ours(words4[(live4[n] << 4) + F4_PORTS])) farthest = Math.max(farthest, live4[n]);
      for (let n = 0; n < routers[0].tables.flows!.liveCount(6); n++)
        if (ours(words6[(live6[n] << 5) + F6_PORTS])) farthest = Math.max(farthest, live6[n]);
    }
    expect(farthest).toBeGreaterThanOrEqual(CROWDED + 4);
    expect(hits(routers[0])).toBeGreaterThan(1000);
    expect(state(routers[0])).toEqual(state(routers[1]));
  });
});
