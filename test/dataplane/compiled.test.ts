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
import { F4_DMAC_HI, F4_DMAC_LO, F4_LAST, F6_DMAC_HI, F6_DMAC_LO, F6_LAST } from '../../offload/table.ts';
import { ipv4, ipv6, Random, type Segment, tcp, toHex, udp } from '../lib/build.ts';
import { HOST, HOST6, hits, macOf, SERVER, SERVER6, to, WAN, worldConfig } from '../offload/world.ts';

const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;

function make(compiled: boolean): Router {
  const config = worldConfig({ offload: { mode: 'on', entries: 256, 'program-after': 1 } });
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

/** What a router has sent since the last look, and what its engine holds. */
function state(router: Router) {
  const left = ['lan', 'wan', 'alt', 'dmz'].flatMap((port) =>
    router
      .port(port)
      .takeWithMeta()
      .map(({ frame, flags, gso, csum }) => `${port} ${flags} ${gso} ${csum} ${toHex(frame)}`),
  );
  const reasons = EX_TEXT.map((name, n) => `${name} ${router.tables.total(T.C_ENGINE + n)}`);
  const { words4, words6 } = router.tables.flows!;
  return { left, reasons, four: Buffer.from(words4).toString('hex'), six: Buffer.from(words6).toString('hex') };
}

describe('the compiled burst', () => {
  it('is there: the project has been built', () => {
    expect(
      compiledBurst(),
      'dist/dataplane/compiled/burst.wasm: expected a build, got none: run `npm run build`',
    ).not.toBeNull();
  });

  it('reads what both families’ entries say from DMAC_LO to LAST at the same distances', () => {
    expect(F6_DMAC_HI - F6_DMAC_LO).toBe(F4_DMAC_HI - F4_DMAC_LO);
    expect(F6_LAST - F6_DMAC_LO).toBe(F4_LAST - F4_DMAC_LO);
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
});
