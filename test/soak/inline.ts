/**
 * Soak, inline: churn at full rate through one router in this process, while its links flap, its engine is flushed, other
 * configurations are applied, frames are lost, doubled, overtaken, held back, damaged and mutated, its table overflows, and
 * days of its clock pass. Established connections must carry all along; counters must add up; nothing may grow, and when
 * all is over every table must be empty.
 */
import { readdirSync } from 'node:fs';
import { EPOCH_FILTER, EPOCH_LINK, EPOCH_NAT, EPOCH_ROUTE } from '../../dataplane/tables.ts';
import { ipv4, ipv6, Random, tcp, udp } from '../lib/build.ts';
import * as H from '../lib/home.ts';
import { builtSamples, mutate } from '../property/corpus.ts';
import { fromLan, fromWan, World } from './world.ts';

export interface InlineResult {
  seconds: number;
  packets: number;
  rounds: number;
  connections: number;
  checks: number;
  /** Frames that the fault wrappers lost, doubled, held back or damaged; configurations applied. */
  faults: number;
  applied: number;
  /** Growth of heap and buffers after the first tenth, bytes; open descriptors more than at the start. */
  growth: number;
  descriptors: number;
}

const FLOWS = 24;
const CHURN = 512;
/** Seconds that an established connection lives without a packet: more than `disturb` ever lets pass. */
const LIFE_S = 600;
const TOO_MUCH = 64 * 1024 * 1024;
/** What the wrappers of both ports do to every frame while nobody checks. */
const FAULTS = { loss: 0.01, duplicate: 0.02, reorder: 0.02, corrupt: 0.01, delay: 0.01 };

/** The home of the soak: a small engine, a table that overflows, connections that end within its time. */
function config(seed: number, extra: Record<string, unknown> = {}): Record<string, unknown> {
  const home = H.homeConfig() as { ports: Record<'lan' | 'wan', object> };
  return H.homeConfig({
    ports: {
      lan: { ...home.ports.lan, fault: { ...FAULTS, seed } },
      wan: { ...home.ports.wan, fault: { ...FAULTS, seed: seed + 1 } },
    },
    offload: { mode: 'on', entries: 512, 'program-after': 2 },
    conntrack: { max: 4096, timeouts: { 'tcp-established': LIFE_S } },
    ...extra,
  });
}

/** Short connections: handshake, a request, an answer, two FINs; and single questions. Some end without an end. */
function churnFrames(random: Random): { port: 'lan' | 'wan'; frame: Uint8Array }[] {
  const out: { port: 'lan' | 'wan'; frame: Uint8Array }[] = [];
  const six = random.chance(0.4);
  const [inside, outside, seen] = six ? [H.HOST6, H.SERVER6, H.HOST6] : [H.HOST, H.SERVER, H.ROUTER_WAN];
  const ip = six ? ipv6 : ipv4;
  const sport = random.int(30000, 65000);
  const dport = random.pick([80, 443, 8443]);
  const lan = (segment: ReturnType<typeof tcp>) =>
    out.push({ port: 'lan', frame: fromLan(ip({ src: inside, dst: outside }, segment)) });
  const wan = (segment: ReturnType<typeof tcp>) =>
    out.push({ port: 'wan', frame: fromWan(ip({ src: outside, dst: seen }, segment)) });
  if (random.chance(0.4)) {
    lan(udp({ sport, dport: 53 }, 'question'));
    if (random.chance(0.8)) wan(udp({ sport: 53, dport: sport }, 'answer'));
    return out;
  }
  const [a, b] = [random.next(), random.next()];
  const c = { sport, dport };
  const s = { sport: dport, dport: sport };
  lan(tcp({ ...c, seq: a, flags: 'S', options: { mss: 1460, wscale: 7 } }));
  wan(tcp({ ...s, seq: b, ack: (a + 1) >>> 0, flags: 'SA', options: { mss: 1460, wscale: 7 } }));
  lan(tcp({ ...c, seq: (a + 1) >>> 0, ack: (b + 1) >>> 0, flags: 'PA' }, 'GET /'));
  wan(tcp({ ...s, seq: (b + 1) >>> 0, ack: (a + 6) >>> 0, flags: 'PA' }, '200'));
  if (random.chance(0.2)) return out;
  lan(tcp({ ...c, seq: (a + 6) >>> 0, ack: (b + 4) >>> 0, flags: 'FA' }));
  wan(tcp({ ...s, seq: (b + 4) >>> 0, ack: (a + 7) >>> 0, flags: 'FA' }));
  lan(tcp({ ...c, seq: (a + 7) >>> 0, ack: (b + 5) >>> 0, flags: 'A' }));
  return out;
}

/** A rule that the established connections do not need; another one than that of n − 1. */
const rule = (n: number) => ({
  rules: [{ from: 'wan', to: 'lan', proto: 'tcp', port: 1 + (n % 1023), verdict: 'accept' }],
});

export function soakInline(seconds: number, seed: number, say: (line: string) => void = () => {}): InlineResult {
  const random = new Random(seed);
  const world = new World(config(seed));
  world.faults(null);
  world.establish(FLOWS);
  world.check('at the start');
  const churn = Array.from({ length: CHURN }, () => churnFrames(random)).flat();
  // Mutated frames leave the established connections alone: they come from other ports.
  const samples = builtSamples();
  const mutants = Array.from({ length: 4 * CHURN }, () => {
    const sample = random.pick(samples);
    return { port: sample.port, frame: mutate(random, samples, sample.frame) };
  });
  const descriptors = () => readdirSync('/proc/self/fd').length;
  const used = () => {
    globalThis.gc?.();
    const m = process.memoryUsage();
    return m.heapUsed + m.external;
  };
  say(`${FLOWS} TCP and ${FLOWS} UDP connections`); // the first line opens what lines are written to
  const openAtStart = descriptors();
  const start = performance.now();
  const passed = () => (performance.now() - start) / 1000;
  let before = -1;
  let rounds = 0;
  let checks = 0;
  let shown = 0;
  let applied = 0;
  world.faults(FAULTS);
  for (; passed() < seconds; rounds++) {
    const source = rounds % 4 === 3 ? mutants : churn;
    for (let n = 0; n < 64; n++) {
      const at = (rounds * 64 + n) % source.length;
      world.push(source[at].port, source[at].frame);
    }
    // The established ones suffer as well; what became of these packets nobody asks.
    if (rounds % 4 === 0) world.carry();
    world.work(random.int(1, 20));
    world.drain();
    if (rounds % 50 === 0 && disturb(world, random, config(seed, rule(applied)))) applied++;
    if (rounds % 20 === 0) {
      world.balance(`round ${rounds}`);
      world.faults(null);
      world.check(`round ${rounds}`);
      world.balance(`round ${rounds}`);
      world.faults(FAULTS);
      checks++;
    }
    if (before < 0 && passed() > seconds / 10) before = used();
    if (passed() - shown > 10) {
      shown = passed();
      say(`${shown.toFixed(0)} s: ${world.injected} packets, ${checks} checks`);
    }
  }
  world.faults(null);
  if (!world.answers()) throw new Error('the router does not answer at the end');
  // Everything ends by itself, and every record comes back.
  const packets = world.injected;
  world.work(2 * LIFE_S * 1000);
  world.drain();
  world.balance('at the end');
  world.empty('at the end');
  const growth = before < 0 ? 0 : used() - before;
  if (growth > TOO_MUCH) throw new Error(`expected at most ${TOO_MUCH >> 20} MiB more in use, got ${growth >> 20}`);
  const more = descriptors() - openAtStart;
  if (more > 0) throw new Error(`expected no descriptor more than at the start, got ${more}`);
  const { inserted } = world.router.tables.conntrack.statistics();
  const faults = world.router.faults
    .flatMap(({ rx, tx }) => [rx, tx])
    .reduce((sum, lane) => sum + lane.lost + lane.duplicated + lane.reordered + lane.delayed + lane.corrupted, 0);
  return {
    seconds: passed(),
    packets,
    rounds,
    connections: inserted,
    checks,
    faults,
    applied,
    growth,
    descriptors: more,
  };
}

/**
 * A link that goes down for a moment, a flush of the engine, half a minute in which nothing happens, or the other
 * configuration: then true.
 */
function disturb(world: World, random: Random, other: Record<string, unknown>): boolean {
  switch (random.int(0, 4)) {
    case 0: {
      const port = random.pick(['lan', 'wan']);
      world.router.setLink(port, false);
      world.work(random.int(1, 1000));
      world.router.setLink(port, true);
      world.work(1);
      break;
    }
    case 1:
      world.router.tables.flush(random.pick([EPOCH_LINK, EPOCH_ROUTE, EPOCH_NAT, EPOCH_FILTER]));
      break;
    case 2:
      // Shorter than a UDP connection lives.
      world.work(random.int(1000, 20_000));
      break;
    case 4:
      world.apply(other);
      return true;
    case 3:
      for (const port of ['lan', 'wan']) {
        world.router.setLink(port, false);
        world.router.setLink(port, true);
      }
      break;
  }
  return false;
}
