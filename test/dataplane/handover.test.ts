/**
 * Fragments of one datagram that came by different queues: in one thread against a router that has one queue, and between
 * two workers in threads of their own (the built file, as the router runs it; no privilege is needed).
 */
import { Piscina } from 'piscina';
import { afterEach, describe, expect, it } from 'vitest';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import { Control } from '../../controlplane/control.ts';
import { createRouter } from '../../controlplane/index.ts';
import {
  FRAME_DATA_VALID,
  Frames,
  META_FLAGS,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../../dataplane/frames.ts';
import { createHandover, Handover, LOST, NOTHING } from '../../dataplane/handover.ts';
import { createLive, FAULT, LW_STATE, WORKER_ASLEEP, workerAt } from '../../dataplane/live.ts';
import { Path, type Punt } from '../../dataplane/path.ts';
import { MemoryPort } from '../../dataplane/ports/memory.ts';
import { monotonic } from '../../dataplane/ports/monotonic.ts';
import { closeWaker, openWaker, wake } from '../../dataplane/ports/poller.ts';
import { createRing, INJECT_RECEIVE, PUNT_TRANSMIT, RingReader, RingWriter } from '../../dataplane/rings.ts';
import * as T from '../../dataplane/tables.ts';
import type { PortTask, WorkerTask } from '../../dataplane/worker.ts';
import { ethernet, get16, get32, icmpv6, ipText, ipv4, ipv6, Random, toHex, udp } from '../lib/build.ts';
import { until } from '../lib/until.ts';
import { cut4, cut6, randomCuts, shuffled } from './fragment-cut.ts';

const WORKER = new URL('../../dist/dataplane/worker.js', import.meta.url).href;
const LAN = '02:00:00:00:01:01';
const HOST = '02:00:00:00:aa:10';
const CONFIG = {
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: LAN, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
    wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses: ['203.0.113.1/24', '2001:db8:f::1/64'] },
  },
  neighbors: [
    { port: 'lan', ip: '192.168.1.10', mac: HOST },
    { port: 'lan', ip: '2001:db8:1::10', mac: HOST },
    { port: 'wan', ip: '203.0.113.9', mac: '02:00:00:00:bb:09' },
    { port: 'wan', ip: '2001:db8:f::9', mac: '02:00:00:00:bb:09' },
  ],
  zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
  nat: { masquerade: [{ out: 'wan' }] },
  offload: { mode: 'off' },
  conntrack: { max: 4096 },
};

/** The pieces of a random datagram from the LAN host, as frames. */
function pieces(random: Random, id: number): Uint8Array[] {
  const length = random.int(1000, 9000);
  const header = { sport: 5000 + (id % 7), dport: 53 };
  const six = random.chance(0.4);
  const whole = six
    ? ipv6(
        { src: '2001:db8:1::10', dst: '2001:db8:f::9' },
        random.chance(0.5)
          ? udp(header, random.bytes(length))
          : icmpv6({ type: 128, id: 7, seq: id }, random.bytes(length)),
      )
    : ipv4({ src: '192.168.1.10', dst: '203.0.113.9', id }, udp(header, random.bytes(length)));
  const cuts = randomCuts(random, whole.length - (six ? 40 : 20), 8);
  if (cuts.length === 0) cuts.push(8 * random.int(3, 80));
  const cut = six ? cut6(whole, cuts, id) : cut4(whole, cuts);
  return cut.map((packet) => ethernet({ src: HOST, dst: LAN }, packet));
}

/** Frames of one datagram as sorted text. IPv6 identifications are each router's own: only that they are one is looked at. */
function described(frames: readonly Uint8Array[]): string[] {
  const six = frames.filter((frame) => get16(frame, 12) === 0x86dd).map((frame) => frame.slice());
  expect(new Set(six.map((frame) => get32(frame, 58))).size).toBeLessThanOrEqual(1);
  for (const frame of six) frame.fill(0, 58, 62);
  return [...six, ...frames.filter((frame) => get16(frame, 12) === 0x0800)].map(toHex).sort();
}

const nobody: Punt = { frame: () => true, resolve: () => {}, used: () => {} };

/** Two workers' paths in one thread, each with a queue of both ports. */
class TwoQueues {
  readonly tables: T.Tables[];
  readonly paths: Path[] = [];
  readonly ports: MemoryPort[][] = [];

  constructor(config: Record<string, unknown> = CONFIG) {
    const buffers = T.createTables({ ...T.DEFAULT_SIZES, connections: 4096, workers: 2 }, 1);
    const main = new T.Tables(buffers, 2);
    new Control(main, normalizeConfig(config), { send: () => {}, output: () => {} }, { quiet: true, log: () => {} });
    this.tables = [0, 1].map((worker) => new T.Tables(buffers, worker));
    const rings = createHandover(2);
    for (const worker of [0, 1]) {
      const ports = [new MemoryPort('lan', 0), new MemoryPort('wan', 1)];
      const path = new Path(this.tables[worker], new Frames(512, 16), ports, nobody, { seed: 1, shared: true });
      path.handover = new Handover(rings, worker);
      this.ports.push(ports);
      this.paths.push(path);
    }
  }

  turn(): void {
    for (let n = 0; n < 3; n++)
      for (const path of this.paths) {
        path.takeGiven(64);
        path.turn();
      }
  }

  /** Frames that left by `port`, of both workers. */
  left(port: number): Uint8Array[] {
    return this.ports.flatMap((ports) => ports[port].take());
  }

  total(counter: number): number {
    return this.tables[0].total(counter);
  }
}

describe('handover in one thread', () => {
  it('datagrams whose pieces come by either queue leave as those of a router with one queue', () => {
    const two = new TwoQueues();
    const one = createRouter(CONFIG);
    const random = new Random(63);
    let sent = 0;
    let passed = 0;
    for (let id = 1; id <= 120; id++) {
      const frames = pieces(random, id);
      sent += frames.length;
      for (const frame of shuffled(random, frames)) {
        two.ports[random.int(0, 1)][0].push(frame);
        if (random.chance(0.3)) two.turn();
      }
      two.turn();
      for (const frame of frames) one.inject('lan', frame);
      const expected = described(one.take('wan'));
      // A piece that is too long for the link is answered by either (Packet Too Big).
      if (expected.length > 1) passed++;
      expect(described(two.left(1)).join() === expected.join(), `datagram ${id}`).toBe(true);
    }
    const [a, b] = two.paths.map((path) => path.handover!);
    expect(a.given).toBe(b.taken);
    expect(b.given).toBe(a.taken);
    expect(a.given).toBeGreaterThan(50);
    expect(b.given).toBeGreaterThan(50);
    expect(passed).toBeGreaterThan(80);
    // Each frame was received once, and nothing waits or got lost.
    expect(two.total(T.C_RECEIVED)).toBe(sent);
    expect(two.total(T.C_PORTS + T.CP_RX_PACKETS)).toBe(sent);
    expect(two.paths.map((path) => path.fragments.count)).toEqual([0, 0]);
    expect(two.paths.map((path) => path.frames.freeSmallCount + path.frames.freeLargeCount)).toEqual([528, 528]);
  });

  it('a VLAN port has received the fragments, each once: the length of the whole datagram was taken off its bytes again', () => {
    const office = { vlan: 10, parent: 'lan', zone: 'lan', addresses: ['192.168.3.1/24'] };
    const two = new TwoQueues({ ...CONFIG, ports: { ...CONFIG.ports, office } });
    const random = new Random(67);
    let bytes = 0;
    for (let id = 1; id <= 20; id++) {
      const segment = udp({ sport: 5000, dport: 53 }, random.bytes(2500));
      const whole = ipv4({ src: '192.168.3.10', dst: '203.0.113.9', id }, segment);
      cut4(whole, [800, 1600]).forEach((packet, n) => {
        const frame = ethernet({ src: HOST, dst: LAN, vlan: 10 }, packet);
        bytes += frame.length;
        two.ports[n & 1][0].push(frame);
      });
      two.turn();
    }
    expect(two.left(1)).toHaveLength(60);
    const [a, b] = two.paths.map((path) => path.handover!.given);
    expect(a + b).toBeGreaterThanOrEqual(20);
    const received = (port: number) => {
      const row = T.C_PORTS + port * 8;
      return [two.total(row + T.CP_RX_PACKETS), two.total(row + T.CP_RX_BYTES)];
    };
    // The port under it has received them as well.
    expect([received(2), received(0)]).toEqual([
      [60, bytes],
      [60, bytes],
    ]);
  });

  it('a whole packet, and an atomic fragment, stay where they were received', () => {
    const two = new TwoQueues();
    const random = new Random(64);
    for (let id = 1; id < 30; id++) {
      const whole = ipv6({ src: '2001:db8:1::10', dst: '2001:db8:f::9' }, udp({ sport: 9, dport: 9 }, 'x'));
      two.ports[random.int(0, 1)][0].push(ethernet({ src: HOST, dst: LAN }, id & 1 ? whole : cut6(whole, [], id)[0]));
    }
    two.turn();
    expect(two.left(1)).toHaveLength(29);
    expect(two.paths.map((path) => path.handover!.given)).toEqual([0, 0]);
  });

  it('a full ring drops the fragment, and says so; the next ones pass again', () => {
    const two = new TwoQueues();
    const random = new Random(65);
    let received = 0;
    // Nobody takes: worker 1 does not run.
    for (let id = 1; id < 400; id++) {
      for (const frame of pieces(random, id)) {
        two.ports[0][0].push(frame);
        received++;
      }
      two.paths[0].turn();
    }
    const lost = two.total(T.C_DROPS + 47);
    expect(lost).toBeGreaterThan(0);
    expect(two.total(T.C_RECEIVED)).toBe(received);
    const given = two.paths[0].handover!.given;
    for (let n = 0; n < 20; n++) two.turn();
    expect(two.paths[1].handover!.taken).toBe(given);
    two.left(1);
    for (const frame of pieces(random, 1000)) two.ports[0][0].push(frame);
    two.turn();
    expect(two.left(1).length).toBeGreaterThan(1);
  });

  it('flags and port travel along; a reader without slots loses the frame, not the ring', () => {
    const rings = createHandover(3);
    const [, b, c] = [0, 1, 2].map((worker) => new Handover(rings, worker));
    const frames = new Frames(4, 1);
    const slot = frames.alloc(100);
    const m = slot * META_WORDS;
    frames.u8.fill(7, frames.meta[m + META_OFF], frames.meta[m + META_OFF] + 99);
    frames.meta[m + META_LEN] = 99;
    frames.meta[m + META_PORT] = 5;
    frames.meta[m + META_FLAGS] = FRAME_DATA_VALID;
    for (let n = 0; n < 5; n++) expect(b.give(2, frames, slot)).toBe(true);
    expect(b.give(1, frames, slot)).toBe(false);
    expect([b.hasNews(0), b.hasNews(2), b.hasNews(2), c.waits, b.waits]).toEqual([false, true, false, true, false]);
    const small = new Frames(3, 1);
    const got = [0, 1, 2, 3, 4, 5].map(() => c.take(small));
    // Three small slots and a large one.
    expect(got.filter((s) => s >= 0)).toHaveLength(4);
    expect(got.slice(4)).toEqual([LOST, NOTHING]);
    const g = got[0] * META_WORDS;
    expect([small.meta[g + META_LEN], small.meta[g + META_PORT], small.meta[g + META_FLAGS]]).toEqual([
      99,
      5,
      FRAME_DATA_VALID,
    ]);
    expect([...small.u8.subarray(small.meta[g + META_OFF], small.meta[g + META_OFF] + 99)]).toEqual(Array(99).fill(7));
  });
});

/** Two workers in threads, their supervisor played by the test. */
class TwoWorkers {
  readonly buffers = T.createTables({ ...T.DEFAULT_SIZES, connections: 1024, workers: 2 }, 1);
  readonly tables = new T.Tables(this.buffers, 2);
  readonly live = new Int32Array(createLive());
  readonly wakers = [openWaker(), openWaker()];
  readonly tasks: WorkerTask[];
  readonly inject: RingWriter[];
  readonly punt: RingReader[];
  readonly pool = new Piscina({
    filename: WORKER,
    minThreads: 2,
    maxThreads: 2,
    concurrentTasksPerWorker: 1,
    atomics: 'disabled',
  });
  readonly ended: Promise<unknown>[] = [];

  constructor() {
    const config = normalizeConfig(CONFIG);
    new Control(this.tables, config, { send: () => {}, output: () => {} }, { quiet: true, log: () => {} });
    const rings = createHandover(2);
    const startedAt = monotonic()();
    const port = (name: string, number: number): PortTask => ({
      kind: 'ring',
      name,
      number,
      fd: -1,
      offloads: 0,
      ring: null,
      fault: null,
      mirror: '',
    });
    this.tasks = [0, 1].map((worker) => ({
      worker,
      workers: 2,
      buffers: this.buffers,
      live: this.live.buffer as SharedArrayBuffer,
      punt: createRing(),
      inject: createRing(),
      waker: this.wakers[worker],
      peers: { rings, wakers: this.wakers },
      ports: [port('lan', 0), port('wan', 1)],
      arena: { small: 128, large: 8, base: -1 },
      seed: 1 + worker,
      startedAt,
      io: 'readwrite' as const,
      offload: null,
    }));
    this.inject = this.tasks.map((task) => new RingWriter(task.inject));
    this.punt = this.tasks.map((task) => new RingReader(task.punt));
  }

  start(worker: number): void {
    this.ended[worker] = this.pool.run(this.tasks[worker]);
    // A rejection is looked at later, or not at all.
    this.ended[worker].catch(() => {});
  }

  receive(worker: number, frame: Uint8Array): void {
    expect(this.inject[worker].bytes(INJECT_RECEIVE, 0, frame)).toBe(true);
    wake(this.wakers[worker]);
  }

  asleep(worker: number): Promise<unknown> {
    return until('a worker to sleep', () => Atomics.load(this.live, workerAt(worker) + LW_STATE) === WORKER_ASLEEP);
  }

  /** The next frames that leave, whichever worker sends them. */
  async sent(count: number): Promise<Uint8Array[]> {
    const frames: Uint8Array[] = [];
    await until(`${count} frames`, () => {
      for (const ring of this.punt)
        while (ring.next()) {
          if (ring.kind === PUNT_TRANSMIT) {
            const frame = new Uint8Array(ring.length);
            ring.copy(frame, 0);
            frames.push(frame);
          }
          ring.release();
        }
      return frames.length >= count;
    });
    return frames;
  }

  async close(): Promise<void> {
    Atomics.store(this.tables.control, T.STOP, 1);
    for (const waker of this.wakers) wake(waker);
    await Promise.allSettled(this.ended);
    await this.pool.destroy();
    for (const waker of this.wakers) closeWaker(waker);
  }
}

describe('handover between two threads', () => {
  let bench: TwoWorkers;
  afterEach(() => bench.close());

  it('pieces dealt to both workers come out translated, also when the other one sleeps or has just died', async () => {
    bench = new TwoWorkers();
    bench.start(0);
    bench.start(1);
    const random = new Random(66);
    for (let id = 1; id <= 24; id++) {
      // Every few datagrams both are asleep: whoever gets a piece for the other must wake it.
      if (id % 4 === 0) await Promise.all([bench.asleep(0), bench.asleep(1)]);
      if (id === 13) {
        Atomics.store(bench.live, FAULT, 2);
        wake(bench.wakers[1]);
        await expect(bench.ended[1]).rejects.toThrow('fault injected');
        bench.tables.conntrack.repair(1);
      }
      const payload = random.bytes(2500);
      const whole = ipv4({ src: '192.168.1.10', dst: '203.0.113.9', id }, udp({ sport: 5000, dport: 53 }, payload));
      const frames = cut4(whole, [800, 1600]).map((packet) => ethernet({ src: HOST, dst: LAN }, packet));
      shuffled(random, frames).forEach((frame, n) => {
        bench.receive((id === 13 ? 0 : n) & 1, frame);
      });
      // What the dead one owns waits in its ring until it runs again.
      if (id === 13) bench.start(1);
      const out = (await bench.sent(3)).sort((a, b) => (get16(a, 20) & 0x1fff) - (get16(b, 20) & 0x1fff));
      expect(out.map((frame) => [ipText(frame.subarray(26, 30)), get16(frame, 18), get16(frame, 20)])).toEqual([
        ['203.0.113.1', id, 0x2000],
        ['203.0.113.1', id, 0x2000 | 100],
        ['203.0.113.1', id, 200],
      ]);
      expect(Buffer.concat(out.map((frame) => frame.subarray(34))).subarray(8)).toEqual(Buffer.from(payload));
    }
    expect(bench.tables.total(T.C_RECEIVED)).toBe(24 * 3);
    expect(bench.tables.conntrack.count).toBe(1);
  });
});
