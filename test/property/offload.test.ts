/**
 * The engine against the slow path: random configurations, flows and events, and the same router three times (engine off,
 * on, verify). Every frame that leaves must be the same byte for byte, verify must find nothing, and connections must
 * have the same counters and deadlines. The seed of a run is in its name; a failure names the frames that led to it.
 */
import { describe, expect, test } from 'vitest';
import type { Router } from '../../controlplane/router.ts';
import { NH_VIA } from '../../dataplane/nexthops.ts';
import { parseAddress, parseMac } from '../../dataplane/wire/address.ts';
import { Random } from '../lib/build.ts';
import { end, type Flow, PlainFlow, play, TcpFlow, UdpFlow } from '../offload/flows.ts';
import { WITH_KERNEL } from '../offload/kernel-port.ts';
import { accounts, DMZ, engineCounter, hits, keyOf, PORTS, WAN, World } from '../offload/world.ts';

const KERNEL = process.env.SLUICE_ENGINE === 'kernel';
const RUNS = KERNEL ? 2 : 10;
/** Frames that enter each run's three routers. Each is a system call with the kernel engine. */
const FRAMES = KERNEL ? 4000 : 21_000;

const words = (text: string) => parseAddress(text)!.words;

function newFlow(random: Random, sport: number): Flow {
  const host = random.pick(['192.168.1.10', '192.168.1.11']);
  const server = `198.51.100.${random.int(1, 20)}`;
  const host6 = random.pick(['2001:db8:1::10', '2001:db8:1::11']);
  const server6 = `2001:db8:7::${random.int(1, 20)}`;
  const dmz = random.pick(['10.9.0.20', '10.9.0.21']);
  const dmz6 = random.pick(['2001:db8:9::20', '2001:db8:9::21']);
  const pairs = [
    [end('lan', host), end('wan', server)],
    [end('lan', host), end('wan', server)],
    [end('lan', host), end('dmz', dmz)],
    [end('lan', host6), end('wan', server6)],
    [end('lan', host6), end('dmz', dmz6)],
  ] as const;
  const [a, b] = random.pick(pairs);
  const choice = random.int(0, 9);
  if (choice < 5) return new TcpFlow(random, a, b, sport);
  if (choice < 8) return new UdpFlow(random, a, b, sport);
  if (choice === 8) return new PlainFlow(random, a, b, 50);
  // 6in4: from outside through the DMZ rule, or between two inside networks.
  return random.chance(0.5)
    ? new PlainFlow(random, end('wan', server), end('lan', DMZ), 41, WAN)
    : new PlainFlow(random, end('lan', host), end('dmz', dmz), 41);
}

interface Weather {
  down: string | null;
  detour: boolean;
}

/** Something that changes the router under the flows' feet: the same in all three. */
function event(world: World, random: Random, weather: Weather): void {
  const choice = random.int(0, 11);
  const each = (action: (router: Router) => void) => world.all(action);
  if (choice === 0) {
    if (weather.down === null) weather.down = random.pick(PORTS);
    else {
      const port = weather.down;
      each((router) => router.setLink(port, true));
      weather.down = null;
      return;
    }
    const port = weather.down;
    each((router) => router.setLink(port, false));
  } else if (choice === 1) {
    // A more specific route appears, by the other link, or goes.
    weather.detour = !weather.detour;
    for (const [family, net, length, gateway] of [
      [4, '198.51.100.0', 26, '198.18.0.254'],
      [6, '2001:db8:7::', 64, '2001:db8:fffe::fe'],
    ] as const)
      each((router) => {
        const prefix = words(net);
        if (!weather.detour) router.control.removeRoute(family, prefix, length);
        else
          router.control.addRoute(family, prefix, length, {
            kind: NH_VIA,
            port: 2,
            family,
            gateway: words(gateway),
          });
      });
  } else if (choice === 2) {
    const mac = parseMac(`02:00:00:00:${random.int(10, 99)}:${random.int(10, 99)}`)!;
    const [port, family, address] = random.pick([
      [1, 4, '203.0.113.254'],
      [1, 6, '2001:db8:ffff::fe'],
      [0, 4, '192.168.1.10'],
      [0, 6, '2001:db8:1::11'],
      [3, 4, '10.9.0.20'],
    ] as const);
    each((router) => router.control.setNeighbour(port, family, words(address), mac.lo, mac.hi));
  } else if (choice === 3) each((router) => router.control.loadNat(router.config));
  else if (choice === 4) each((router) => router.control.loadFilter(router.config));
  else if (choice === 5) each((router) => router.offload.flush());
  else if (choice === 6) {
    const level = random.pick(['engine', 'flow-cache'] as const);
    const on = random.chance(0.5);
    each((router) => router.offload.enable(level, on));
  } else if (choice === 7) remove(world, random);
  else if (choice === 8) {
    // Many changes at once: the 8-bit epochs come round.
    const changes = random.int(250, 520);
    each((router) => {
      for (let n = 0; n < changes; n++) router.offload.flush();
    });
  } else world.advance(choice === 9 ? random.int(20_000, 45_000) : random.int(1, 3000));
}

/** Deletes one connection, the same in all three. */
function remove(world: World, random: Random): void {
  const keys = [...accounts(world.off).keys()].sort();
  if (keys.length === 0) return;
  const key = random.pick(keys);
  world.all((router) => {
    const { conntrack } = router.tables;
    for (let index = 0; index < conntrack.highWater; index++)
      if (conntrack.inUse(index, router.now) && keyOf(router, index) === key) router.path.tracker.end(index);
  });
}

function run(seed: number): { world: World; share: number } {
  const random = new Random(seed);
  const world = new World(
    {},
    {
      entries: random.pick([8, 32, 64, 1024]),
      'flow-cache': { entries: random.pick([0, 0, 16, 256]) },
      'program-after': random.pick([1, 2, 2, 5]),
      rate: random.pick([0, 0, 50]),
      latency: random.pick([0, 0, 20]),
      'inspect-first': random.pick([0, 0, 4]),
    },
  );
  const flows: Flow[] = [];
  const weather: Weather = { down: null, detour: false };
  let sport = 20_000;
  for (let turn = 0; world.entered < FRAMES; turn++) {
    while (flows.length < 24) flows.push(newFlow(random, sport++));
    if (random.chance(0.01)) event(world, random, weather);
    if (turn % 8 === 0) world.advance(random.int(1, 40));
    const at = random.int(0, flows.length - 1);
    const flow = flows[at];
    // Long silences change what a tracker may think of data that waits for its ACK: that flow is not continued.
    if (flow.lastUse !== 0 && world.off.now - flow.lastUse > 100_000) flow.over = true;
    else play(world, flow);
    flow.lastUse = world.off.now;
    if (flow.over) flows.splice(at, 1);
    if (turn % 500 === 0) compare(world);
  }
  compare(world);
  const received = world.on.counters.received;
  return { world, share: hits(world.on) / received };
}

/**
 * Counters and deadlines. TCP's may differ in one thing: the tracker gives data that waits for its ACK five minutes, and
 * the engine does not know; so a TCP connection is compared as long as all three have it.
 */
function compare(world: World): void {
  const [off, on, verify] = world.routers.map(accounts);
  const isTcp = (key: string) => (Number(key.split(' ')[0]) & 0xff) === 6;
  for (const other of [on, verify]) {
    for (const key of [...off.keys()]) if (isTcp(key) && !other.has(key)) off.delete(key);
    for (const key of [...other.keys()]) if (isTcp(key) && !off.has(key)) other.delete(key);
    expect(other).toEqual(off);
  }
}

let entered = 0;
let share = 0;
/** Frames that the kernel has forwarded. */
let forwarded = 0;

describe('engine and slow path forward the same', () => {
  test.each(Array.from({ length: RUNS }, (_, n) => n + 1))(
    'seed %d',
    (seed) => {
      const { world, share: part } = run(seed);
      expect(world.mismatches.slice(0, 3)).toEqual([]);
      expect(world.verify.counters.offload.mismatches).toBe(0);
      expect(hits(world.verify)).toBeGreaterThan(FRAMES / 50);
      // Nearly everything that the kernel forwards is compared: what has changed in between is not.
      const { judged } = world;
      if (judged !== null)
        expect(engineCounter(world.verify, 'kernel-compared')).toBeGreaterThan(judged.forwarded * 0.9);
      entered += world.entered;
      share += part / RUNS;
      forwarded += world.kernel?.forwarded ?? 0;
      world.kernel?.close();
      judged?.close();
    },
    240_000,
  );

  test('over all runs: enough packets, and the engine had a large share of them', () => {
    expect(entered).toBeGreaterThanOrEqual(RUNS * FRAMES);
    expect(share).toBeGreaterThan(KERNEL ? 0.25 : 0.4);
    if (WITH_KERNEL) expect(forwarded).toBeGreaterThan(entered / 5);
  });
});
