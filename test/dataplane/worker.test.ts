/**
 * The worker as a task in a thread, without a device: frames come through the inject ring and leave through the punt
 * ring. No privilege is needed. It runs the built file, as the router does.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Piscina } from 'piscina';
import { afterEach, describe, expect, it } from 'vitest';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import { Control } from '../../controlplane/control.ts';
import {
  createLive,
  FAULT,
  LP_MIRROR_LOST,
  LP_MIRROR_TROUBLE,
  LW_STATE,
  portAt,
  WORKER_ASLEEP,
  workerAt,
} from '../../dataplane/live.ts';
import { CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { ENXIO } from '../../dataplane/ports/ffi.ts';
import { monotonic } from '../../dataplane/ports/monotonic.ts';
import { closeWaker, openWaker, wake } from '../../dataplane/ports/poller.ts';
import {
  createRing,
  INJECT_RECEIVE,
  INJECT_SEND,
  PUNT_FRAME,
  PUNT_RESOLVE,
  PUNT_TRANSMIT,
  RingReader,
  RingWriter,
} from '../../dataplane/rings.ts';
import { C_FORWARDED, createTables, DEFAULT_SIZES, STOP, Tables } from '../../dataplane/tables.ts';
import { createWatchBlock } from '../../dataplane/watch-block.ts';
import { formatIpv4 } from '../../dataplane/wire/address.ts';
import type { PortTask, WorkerTask } from '../../dataplane/worker.ts';
import * as B from '../lib/build.ts';
import { until } from '../lib/until.ts';

const WORKER = new URL('../../dist/dataplane/worker.js', import.meta.url).href;

const CONFIG = normalizeConfig({
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['192.168.1.1/24'] },
    wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses: ['203.0.113.1/24'] },
  },
  neighbors: [
    { port: 'lan', ip: '192.168.1.10', mac: '02:00:00:00:aa:10' },
    { port: 'wan', ip: '203.0.113.9', mac: '02:00:00:00:bb:09' },
  ],
  zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
  nat: { masquerade: [{ out: 'wan' }] },
});

/** One worker, its supervisor played by the test. */
class Bench {
  readonly waker = openWaker();
  readonly task: WorkerTask;
  readonly tables: Tables;
  readonly live: Int32Array;
  readonly inject: RingWriter;
  readonly punt: RingReader;
  readonly pool = new Piscina({ filename: WORKER, minThreads: 1, maxThreads: 1, atomics: 'disabled' });
  ended: Promise<unknown> = Promise.resolve();

  constructor() {
    const buffers = createTables({ ...DEFAULT_SIZES, connections: 1024 }, 1);
    this.tables = new Tables(buffers, 1);
    const control = new Control(
      this.tables,
      CONFIG,
      { send: () => {}, output: () => {} },
      { quiet: true, log: () => {} },
    );
    expect(control.protocols.length).toBeGreaterThan(0);
    const live = createLive();
    this.live = new Int32Array(live);
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
    this.task = {
      worker: 0,
      workers: 1,
      buffers,
      live,
      punt: createRing(),
      inject: createRing(),
      waker: this.waker,
      peers: null,
      ports: [port('lan', 0), port('wan', 1)],
      arena: { small: 64, large: 4, base: -1 },
      seed: 1,
      startedAt: monotonic()(),
      io: 'readwrite',
      offload: null,
      watch: { block: createWatchBlock(), ring: createRing() },
    };
    this.inject = new RingWriter(this.task.inject);
    this.punt = new RingReader(this.task.punt);
  }

  start(): void {
    this.ended = this.pool.run(this.task);
    // A rejection is looked at later, or not at all.
    this.ended.catch(() => {});
  }

  receive(port: number, frame: Uint8Array): void {
    expect(this.inject.bytes(INJECT_RECEIVE, port, frame)).toBe(true);
    wake(this.waker);
  }

  /** The next record of the punt ring. */
  async next(): Promise<{ kind: number; port: number; frame: Uint8Array; words: number[] }> {
    await until('a record in the punt ring', () => this.punt.next());
    const frame = new Uint8Array(this.punt.length);
    this.punt.copy(frame, 0);
    const words = [0, 1, 2, 3, 4].map((n) => this.punt.word(n));
    this.punt.release();
    return { kind: this.punt.kind, port: this.punt.port, frame, words };
  }

  asleep(): Promise<unknown> {
    return until('the worker to sleep', () => Atomics.load(this.live, workerAt(0) + LW_STATE) === WORKER_ASLEEP);
  }

  async close(): Promise<void> {
    Atomics.store(this.tables.control, STOP, 1);
    wake(this.waker);
    await this.ended.catch(() => {});
    await this.pool.destroy();
    closeWaker(this.waker);
  }
}

/** Sums 16-bit big-endian words; 0xffff over a packet with a right checksum. */
function sum(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let total = start;
  for (let at = from; at < to; at += 2) total += (bytes[at] << 8) | (at + 1 < to ? bytes[at + 1] : 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

/** UDP over IPv4 over Ethernet with right checksums; addresses as four bytes. */
function udp(to: string, from: string, src: number[], sport: number, dst: number[], dport: number): Uint8Array {
  const frame = new Uint8Array(60);
  const mac = (text: string): number[] => text.split(':').map((part) => Number.parseInt(part, 16));
  frame.set(mac(to));
  frame.set(mac(from), 6);
  frame.set([8, 0, 0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17], 12);
  frame.set(src, 26);
  frame.set(dst, 30);
  frame.set([sport >> 8, sport & 255, dport >> 8, dport & 255, 0, 12, 0, 0, 1, 2, 3, 4], 34);
  const header = 0xffff - sum(frame, 14, 34);
  frame.set([header >> 8, header & 255], 24);
  const body = 0xffff - sum(frame, 34, 46, sum(frame, 26, 34) + 17 + 12);
  frame.set([body >> 8, body & 255], 40);
  return frame;
}

function isIntact(frame: Uint8Array): boolean {
  return sum(frame, 14, 34) === 0xffff && sum(frame, 34, 46, sum(frame, 26, 34) + 17 + 12) === 0xffff;
}

const address = (frame: Uint8Array, at: number): string => frame.subarray(at, at + 4).join('.');
const word16 = (frame: Uint8Array, at: number): number => (frame[at] << 8) | frame[at + 1];
const OUT = udp('02:00:00:00:01:01', '02:00:00:00:aa:10', [192, 168, 1, 10], 5000, [203, 0, 113, 9], 53);

describe('worker', () => {
  let bench: Bench;
  afterEach(() => bench.close());

  it('forwards, translates, and answers a death with a new start that knows the old connections', async () => {
    bench = new Bench();
    bench.start();
    bench.receive(0, OUT);
    const out = await bench.next();
    expect([out.kind, out.port]).toEqual([PUNT_TRANSMIT, 1]);
    expect([address(out.frame, 26), address(out.frame, 30), out.frame[22]]).toEqual(['203.0.113.1', '203.0.113.9', 63]);
    expect(isIntact(out.frame)).toBe(true);
    const port = word16(out.frame, 34);

    await bench.asleep();
    Atomics.store(bench.live, FAULT, 1);
    wake(bench.waker);
    await expect(bench.ended).rejects.toThrow('worker 0: fault injected');
    expect(bench.tables.conntrack.repair(0)).toBe(0);
    expect(bench.tables.conntrack.count).toBe(1);

    bench.start();
    bench.receive(1, udp('02:00:00:00:01:02', '02:00:00:00:bb:09', [203, 0, 113, 9], 53, [203, 0, 113, 1], port));
    const back = await bench.next();
    expect([back.kind, back.port]).toEqual([PUNT_TRANSMIT, 0]);
    expect([address(back.frame, 30), word16(back.frame, 36)]).toEqual(['192.168.1.10', 5000]);
    expect(isIntact(back.frame)).toBe(true);
    expect(bench.tables.total(C_FORWARDED)).toBe(2);
  });

  it('a mirror was emptied by the worker’s next start: what had led to its death was gone', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-mirror-'));
    try {
      const mirror = join(folder, 'wan.pcapng');
      bench = new Bench();
      bench.task.ports[1].mirror = mirror;
      bench.start();
      bench.receive(0, OUT);
      await bench.next();
      Atomics.store(bench.live, FAULT, 1);
      wake(bench.waker);
      await expect(bench.ended).rejects.toThrow('worker 0: fault injected');
      bench.tables.conntrack.repair(0);

      bench.task.again = true;
      bench.start();
      bench.receive(0, OUT);
      await bench.next();
      Atomics.store(bench.tables.control, STOP, 1);
      wake(bench.waker);
      await bench.ended;
      const reader = CaptureReader.fromBytes(mirror, readFileSync(mirror));
      const seen: string[] = [];
      while (reader.next()) seen.push(address(reader.data.subarray(reader.offset), 26));
      expect([reader.error, seen]).toEqual([null, ['203.0.113.1', '203.0.113.1']]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('a mirror into a pipe that nobody reads held its worker up for ever: now it goes on, and says so', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-mirror-'));
    let reader = -1;
    try {
      const mirror = join(folder, 'wan.pcapng');
      execFileSync('mkfifo', [mirror]);
      bench = new Bench();
      bench.task.ports[1].mirror = mirror;
      const { live } = bench;
      const at = portAt(0, 1);
      bench.start();
      bench.receive(0, OUT);
      await bench.next();
      await until('it to be said that nobody reads', () => live[at + LP_MIRROR_TROUBLE] === ENXIO);
      await until('the frame to be counted', () => live[at + LP_MIRROR_LOST] === 1);

      reader = openSync(mirror, constants.O_RDONLY | constants.O_NONBLOCK);
      await until('the reader to be taken up', () => {
        wake(bench.waker); // a worker with nothing to do looks when it wakes
        return live[at + LP_MIRROR_TROUBLE] === 0;
      });
      bench.receive(0, OUT);
      await bench.next();
      Atomics.store(bench.tables.control, STOP, 1);
      wake(bench.waker);
      await bench.ended;
      const read = CaptureReader.fromBytes(mirror, readFileSync(reader));
      expect([read.next(), read.packetIdLow, read.next(), read.error]).toEqual([true, 2, false, null]);
      expect(live[at + LP_MIRROR_LOST]).toBe(1);
    } finally {
      if (reader >= 0) closeSync(reader);
      rmSync(folder, { recursive: true });
    }
  });

  it('punts what is for the control plane, and asks for a next hop once, not once a packet', async () => {
    bench = new Bench();
    const stranger = udp('02:00:00:00:01:01', '02:00:00:00:aa:10', [192, 168, 1, 10], 5000, [203, 0, 113, 77], 53);
    for (let n = 0; n < 3; n++) bench.receive(0, stranger);
    const arp = new Uint8Array(60);
    arp.set([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0xaa, 0x10, 8, 6]);
    bench.receive(0, arp);
    // All of it waits when the worker starts, and so falls into one instant of its clock.
    bench.start();
    const wanted = await bench.next();
    expect([wanted.kind, wanted.port, wanted.words[0]]).toEqual([PUNT_RESOLVE, 1, 4]);
    expect(formatIpv4(wanted.words[1])).toBe('203.0.113.77');
    const punted = await bench.next();
    expect([punted.kind, punted.port, punted.words.slice(0, 2)]).toEqual([PUNT_FRAME, 0, [0x0806, 14]]);
    expect(punted.frame).toEqual(arp);
  });

  it('DNS over TCP reached the IPv4 domain, which has no forwarder: what is neither DHCP nor a family’s own takes the third ring', async () => {
    bench = new Bench();
    const rings = { 4: createRing(), 6: createRing() };
    bench.task.domains = [
      { family: 4, punt: rings[4], inject: createRing() },
      { family: 6, punt: rings[6], inject: createRing() },
    ];
    for (const proto of [6, 17]) bench.tables.setService(proto, 53, true);
    bench.tables.setService(17, 67, true);
    const ask = (l4: Parameters<typeof B.ipv4>[1]) =>
      bench.receive(
        0,
        B.ethernet(
          { src: '02:00:00:00:aa:10', dst: '02:00:00:00:01:01' },
          B.ipv4({ src: '192.168.1.10', dst: '192.168.1.1' }, l4),
        ),
      );
    ask(B.udp({ sport: 68, dport: 67 }, 'DHCP'));
    ask(B.icmp({ type: 8, id: 1 }, 'echo'));
    ask(B.tcp({ sport: 5000, dport: 53, flags: 'S' }));
    ask(B.udp({ sport: 5001, dport: 53 }, 'query'));
    bench.start();
    const four = new RingReader(rings[4]);
    const protocols: number[] = [];
    for (let n = 0; n < 2; n++) protocols.push((await bench.next()).frame[23]);
    expect(protocols).toEqual([6, 17]);
    const own: number[] = [];
    for (let n = 0; n < 2; n++) {
      await until('a record in the IPv4 domain’s ring', () => four.next());
      const frame = new Uint8Array(four.length);
      four.copy(frame, 0);
      own.push(frame[23]);
      four.release();
    }
    expect(own).toEqual([17, 1]);
    expect([four.next(), new RingReader(rings[6]).next()]).toEqual([false, false]);
  });

  it('sends what a domain had given when the stop came: final router advertisements', async () => {
    bench = new Bench();
    const ring = createRing();
    bench.task.domains = [{ family: 6, punt: createRing(), inject: ring }];
    const domain = new RingWriter(ring);
    const frames = [1, 2, 3].map((n) => Uint8Array.from({ length: 60 }, (_, at) => at * n));
    for (const frame of frames) expect(domain.bytes(INJECT_SEND, 0, frame)).toBe(true);
    Atomics.store(bench.tables.control, STOP, 1);
    bench.start();
    await expect(bench.ended).resolves.toBeUndefined();
    for (const frame of frames) expect(await bench.next()).toMatchObject({ kind: PUNT_TRANSMIT, port: 0, frame });
  });

  it('stops out of its sleep', async () => {
    bench = new Bench();
    bench.start();
    await bench.asleep();
    Atomics.store(bench.tables.control, STOP, 1);
    wake(bench.waker);
    await expect(bench.ended).resolves.toBeUndefined();
  });
});
