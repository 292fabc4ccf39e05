/**
 * Receive rings of TAP devices: what comes by the ring, what by the queue, and that nothing is lost, doubled or changed; that a
 * worker never sleeps over a frame; queues, workers and devices that come and go. The device's counters tell the ways apart:
 * what came by the ring it counts as dropped.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  FRAME_NEEDS_CSUM,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../../../dataplane/frames.ts';
import type { Port } from '../../../dataplane/ports/port.ts';
import { Assembler } from '../../../offload/kernel/assembler.ts';
import { VLAN_PUSH } from '../../../offload/kernel/context.ts';
import * as build from '../../lib/build.ts';
import { addNetns, deleteNetns, ifindex, ip, kernelAtLeast, random, whyNotLive } from './lab.ts';

const unable = whyNotLive();
const skipped = unable !== '' ? unable : (await import('../../../dataplane/ports/tap-ring.ts')).receiveRingRefusal();
if (skipped !== '') console.warn(`SKIPPED: live tests of receive rings (${skipped})`);
const tooOld = !kernelAtLeast(6, 6);
if (tooOld) console.warn('SKIPPED: a tag apart at a receive ring (kernel older than 6.6: no TCX to push it)');

const MACS = { src: '02:00:00:00:00:10', dst: '02:00:00:00:00:01' };
const FOUR = { src: '10.9.0.1', dst: '10.9.0.2' };
const SIX = { src: '2001:db8:9::1', dst: '2001:db8:9::2' };
const PORTS = { sport: 4000, dport: 53 };
/** Longest wait for frames that were sent; against hanging only. */
const PATIENCE_MS = 30_000;
/** Sleeps that a frame ends, or as many as there are in that time: a busy machine gives us little of it. */
const SLEEPS = 200;
const SLEEPING_MS = 1500;
const SOCK_DGRAM = 2;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const TUN_F_USO = 0x20;
const TC_ACT_OK = 0;

const four = (payload: build.Segment | build.Payload, more: Partial<build.Ipv4Options> = {}): Uint8Array =>
  build.ethernet(MACS, build.ipv4({ ...FOUR, ...more }, payload));
const six = (payload: build.Segment | build.Payload, more: Partial<build.Ipv6Options> = {}): Uint8Array =>
  build.ethernet(MACS, build.ipv6({ ...SIX, ...more }, payload));
const text = (frame: Uint8Array): string => Buffer.from(frame).toString('hex');

interface Received {
  bytes: Uint8Array;
  flags: number;
  gso: number;
}

describe.skipIf(skipped !== '')('receive rings of a TAP device', async () => {
  const { LONGEST, openTapRings, RING_BYTES, RingTapPort } = await import('../../../dataplane/ports/tap-ring.ts');
  const { openTap, TapPort } = await import('../../../dataplane/ports/tap.ts');
  const { tapPort, UringGroup } = await import('../../../dataplane/ports/uring.ts');
  const { liveArena } = await import('../../../dataplane/ports/arena.ts');
  const { completeChecksum } = await import('../../../dataplane/ports/segment.ts');
  const { FaultPort } = await import('../../../dataplane/ports/fault.ts');
  const { MirrorPort } = await import('../../../dataplane/ports/mirror.ts');
  const { CaptureClock, CaptureWriter } = await import('../../../dataplane/ports/capture-writer.ts');
  const { MAX_SLEEP_MS, Poller, WOKE_GONE, WOKE_PORT, WOKE_TIMEOUT } = await import(
    '../../../dataplane/ports/poller.ts'
  );
  const bpf = await import('../../../dataplane/ports/bpf.ts');
  const { inNetns } = await import('../../../dataplane/ports/netns.ts');
  const ffi = await import('../../../dataplane/ports/ffi.ts');
  const { PeerSocket } = await import('./peer.ts');

  let netns = '';
  beforeAll(() => {
    netns = addNetns();
  });
  afterAll(() => deleteNetns(netns));
  let devices = 0;
  const never = new Int32Array(new SharedArrayBuffer(4));

  /** A device with rings and a socket at its other end. */
  function open(options: { queues?: number; mtu?: number; backend?: 'uring' | 'readwrite' } = {}) {
    const { queues = 1, mtu = 1500, backend = 'uring' } = options;
    const name = `r${devices++}`;
    const tap = openTap({ name, queues, vnetHeader: true, offloads: 0x6f, mtu, queueLength: 1000, netns });
    const { rings, fds } = openTapRings(name, tap.fds);
    const group = backend === 'uring' ? UringGroup.open() : null;
    const queue = (n: number) =>
      tapPort({ name, number: 3, fd: tap.fds[n], vnetHeader: true, offloads: tap.offloads }, group);
    const ports = rings.map((ring, n) => new RingTapPort(queue(n), ring));
    const peer = new PeerSocket(netns, ifindex(netns, name));
    /** Frames that the device has counted, by the way that they took. */
    const ways = (): { ring: number; queue: number } => {
      const { tx } = JSON.parse(ip(netns, '-s', '-j', 'link', 'show', 'dev', name))[0].stats64;
      return { ring: tx.dropped, queue: tx.packets };
    };
    const close = (): void => {
      for (const port of ports) port.close();
      group?.close();
      for (const fd of fds) ffi.close(fd);
      peer.close();
    };
    return { name, tap, rings, ports, port: ports[0], peer, ways, close };
  }

  const frames = liveArena(512, 16);
  const slots = new Int32Array(64);

  /** One burst, its slots freed. */
  function burst(port: Port, max = 32): Received[] {
    const got = port.rxBurst(frames, slots, max);
    const seen: Received[] = [];
    for (let n = 0; n < got; n++) {
      const m = slots[n] * META_WORDS;
      const { meta } = frames;
      expect(meta[m + META_OFF] & 3).toBe(2);
      expect(meta[m + META_PORT]).toBe(3);
      const bytes = frames.u8.slice(meta[m + META_OFF], meta[m + META_OFF] + meta[m + META_LEN]);
      seen.push({ bytes, flags: meta[m + META_FLAGS], gso: meta[m + META_GSO] & 0xff });
      frames.free(slots[n]);
    }
    return seen;
  }

  /** Receives until `count` frames have come, then everything that comes with them. */
  function take(ports: readonly Port[], count: number, max = 32): Received[] {
    const seen: Received[] = [];
    const end = performance.now() + PATIENCE_MS;
    for (let idle = 0; idle < 2 || (seen.length < count && performance.now() < end); ) {
      const before = seen.length;
      for (const port of ports) seen.push(...burst(port, max));
      idle = seen.length > before ? 0 : idle + 1;
      if (idle > 0 && seen.length < count) Atomics.wait(never, 0, 0, 1);
    }
    return seen;
  }

  for (const [backend, step] of [
    ['uring', 1],
    ['readwrite', 8],
  ] as const)
    it(`brings UDP of ${step === 1 ? 'every' : 'any'} length unchanged and in order (${backend})`, () => {
      const { port, peer, ways, close } = open({ backend, mtu: LONGEST - 14 });
      const next = random(1);
      const payload = (bytes: number): Uint8Array => new Uint8Array(bytes).map(() => next());
      let sent = 0;
      try {
        for (let length = 42; length <= LONGEST; ) {
          const batch: Uint8Array[] = [];
          for (; batch.length < 400 && length <= LONGEST; length += step) {
            batch.push(four(build.udp(PORTS, payload(length - 42))));
            if (length >= 62) batch.push(six(build.udp(PORTS, payload(length - 62))));
          }
          for (const frame of batch) peer.send(frame);
          const seen = take([port], batch.length);
          expect(seen.map(({ bytes }) => text(bytes)).join('\n')).toBe(batch.map(text).join('\n'));
          for (const { flags, gso } of seen) expect([flags, gso]).toEqual([0, 0]);
          sent += batch.length;
        }
        if (step === 1) expect(sent).toBe(2 * (LONGEST - 41) - 20);
        expect(ways()).toEqual({ ring: sent, queue: 0 });
        expect(port.counters).toMatchObject({ rxPackets: sent, rxErrors: 0 });
      } finally {
        close();
      }
      expect(frames.freeSmallCount).toBe(frames.small);
    });

  it('leaves the rest to the queue: nothing is lost, doubled or out of its order', () => {
    const { port, peer, ways, close } = open({ mtu: 9000 });
    const udp = (bytes: number): build.Segment => build.udp(PORTS, new Uint8Array(bytes).fill(bytes));
    const long = build.ipv4({ ...FOUR, id: 7 }, udp(4000));
    const long6 = build.ipv6(SIX, udp(4000));
    const byQueue: Uint8Array[] = [
      four(build.tcp({ sport: 1, dport: 2, seq: 1, flags: build.SYN })),
      six(build.tcp({ sport: 1, dport: 2, seq: 1, flags: build.SYN })),
      build.ethernet(
        { ...MACS, type: 0x0806 },
        build.arp({ op: 'request', sha: MACS.src, spa: FOUR.src, tpa: FOUR.dst }),
      ),
      four(Uint8Array.of(8, 0, 0xf7, 0xfd, 0, 1, 0, 1), { proto: build.PROTO_ICMP }),
      six(Uint8Array.of(128, 0, 0, 0, 0, 1, 0, 1), { next: build.PROTO_ICMPV6 }),
      four(build.udpLite(PORTS, 'lite')),
      ...build.fragment4(long, 1500).map((packet) => build.ethernet(MACS, packet)),
      ...build.fragment6(long6, 1500, 9).map((packet) => build.ethernet(MACS, packet)),
      six(udp(20), { ext: [build.fragmentHeader({ offset: 0, more: false, id: 1 })] }),
      six(udp(20), { ext: [build.hopByHop()] }),
      four(udp(20), { options: Uint8Array.of(1, 1, 1, 1) }),
      four(udp(20), { version: 5 }),
      four(udp(20), { ihl: 4 }),
      four(udp(LONGEST - 41)),
      six(udp(LONGEST - 61)),
      four(udp(8958)),
      build.ethernet({ ...MACS, vlan: 7 }, build.ipv4(FOUR, udp(20))),
      four(udp(0)).slice(0, 33),
    ];
    // Of the length of a header alone, or of a tag behind it: malformed, but UDP, and the path's to judge.
    const byRing = [four(udp(0)).slice(0, 34), four(udp(20), { df: true }), six(udp(0)), four(udp(18)), six(udp(30))];
    const next = random(3);
    try {
      let sent = { ring: 0, queue: 0 };
      for (let round = 0; round < 12; round++) {
        const expected = { ring: [] as Uint8Array[], queue: [] as Uint8Array[] };
        for (let n = 0; n < 60; n++) {
          const what = next() % 10;
          const way = what < 5 ? 'queue' : 'ring';
          const list = way === 'queue' ? byQueue : byRing;
          const frame = list[n < list.length ? n : next() % list.length];
          peer.send(frame);
          expected[way].push(frame);
        }
        const seen = take([port], expected.ring.length + expected.queue.length, 7);
        const known = new Set(byRing.map(text));
        const lines = seen.map(({ bytes }) => text(bytes));
        expect(lines.filter((line) => known.has(line)).join('\n')).toBe(expected.ring.map(text).join('\n'));
        expect(lines.filter((line) => !known.has(line)).join('\n')).toBe(expected.queue.map(text).join('\n'));
        sent = { ring: sent.ring + expected.ring.length, queue: sent.queue + expected.queue.length };
      }
      expect(ways()).toEqual(sent);
      expect(port.counters.rxErrors).toBe(0);
    } finally {
      close();
    }
  });

  it.skipIf(tooOld)('leaves to the queue what has a tag that is not in the frame', () => {
    const { name, port, peer, ways, close } = open();
    const code = new Assembler().mov('r2', 0x0081).mov('r3', 5).call(VLAN_PUSH).mov('r0', TC_ACT_OK).exit();
    const program = bpf.loadProgram('tag', code.assemble({}), 'tc');
    const link = inNetns(netns, () => bpf.attachEgress(program, ifindex(netns, name), name));
    try {
      const packet = build.ipv4(FOUR, build.udp(PORTS, 'tagged'));
      for (let n = 0; n < 5; n++) peer.send(build.ethernet(MACS, packet));
      const tagged = text(build.ethernet({ ...MACS, vlan: 5 }, packet));
      expect(take([port], 5).map(({ bytes }) => text(bytes))).toEqual(new Array(5).fill(tagged));
      expect(ways()).toEqual({ ring: 0, queue: 5 });
    } finally {
      bpf.closeDescriptor(link);
      bpf.closeDescriptor(program);
      close();
    }
  });

  it('finds the partial checksum of a socket of the kernel, which can then be completed', () => {
    const { name, tap, port, ways, close } = open();
    ip(netns, 'address', 'add', `${FOUR.src}/24`, 'dev', name);
    ip(netns, 'neighbour', 'add', FOUR.dst, 'lladdr', MACS.dst, 'dev', name);
    const sysctl = `/proc/sys/net/ipv6/conf/${name}`;
    inNetns(netns, () => writeFileSync(`${sysctl}/disable_ipv6`, '0'));
    ip(netns, 'address', 'add', `${SIX.src}/64`, 'dev', name, 'nodad');
    ip(netns, 'neighbour', 'add', SIX.dst, 'lladdr', MACS.dst, 'dev', name);
    const payload = new Uint8Array(ffi.mapMemory(65536).buffer);
    const at = ffi.addressOf(payload.buffer as ArrayBuffer);
    const next = random(4);
    const sockets: number[] = [];
    const datagrams = (seen: Received[]): Received[] =>
      seen.filter(({ bytes }) => build.get16(bytes, 12) !== 0x86dd || bytes[20] === build.PROTO_UDP);
    try {
      for (const [family, destination] of [
        [2, FOUR.dst],
        [10, SIX.dst],
      ] as const) {
        const fd = inNetns(netns, () => ffi.socket(family, SOCK_DGRAM, 0));
        sockets.push(fd);
        const address = new Uint8Array(family === 2 ? 16 : 28);
        address.set([family, 0, 0, 53]);
        address.set(build.ip(destination), family === 2 ? 4 : 8);
        expect(ffi.connect(fd, address, address.length)).toBe(0);
        for (let n = 0; n < 40; n++) {
          const bytes = n < 2 ? n : 1 + (next() % 1400);
          for (let k = 0; k < bytes; k++) payload[k] = next();
          expect(ffi.send(fd, at, bytes, 0)).toBe(bytes);
          const seen: Received[] = [];
          const end = performance.now() + PATIENCE_MS;
          while (seen.length < 1 && performance.now() < end) {
            const got = port.rxBurst(frames, slots, 32);
            for (let k = 0; k < got; k++) {
              const m = slots[k] * META_WORDS;
              const flags = frames.meta[m + META_FLAGS];
              if ((flags & FRAME_NEEDS_CSUM) !== 0) completeChecksum(frames, slots[k]);
              const off = frames.meta[m + META_OFF];
              const whole = frames.u8.slice(off, off + frames.meta[m + META_LEN]);
              seen.push(...datagrams([{ bytes: whole, flags, gso: frames.meta[m + META_GSO] & 0xff }]));
              frames.free(slots[k]);
            }
          }
          expect(seen).toHaveLength(1);
          expect(seen[0].flags & FRAME_NEEDS_CSUM).toBe(FRAME_NEEDS_CSUM);
          expect(build.verify(seen[0].bytes)).toEqual([]);
          expect(text(seen[0].bytes.slice(-bytes || undefined))).toBe(
            text(bytes === 0 ? seen[0].bytes : payload.slice(0, bytes)),
          );
        }
      }
      const { ring } = ways();
      expect(ring).toBe(80);
      // A super-frame comes by the queue, also a short one, and whole where the device takes such.
      if ((tap.offloads & TUN_F_USO) !== 0)
        for (const [segment, whole] of [
          [1000, 20_000],
          [100, 300],
        ]) {
          ffi.setsockopt(sockets[0], SOL_UDP, UDP_SEGMENT, new Uint8Array(new Int32Array([segment]).buffer), 4);
          expect(ffi.send(sockets[0], at, whole, 0)).toBe(whole);
          const seen: Received[] = [];
          const end = performance.now() + PATIENCE_MS;
          while (seen.length < 1 && performance.now() < end) seen.push(...datagrams(burst(port)));
          expect(seen.map(({ bytes, gso }) => [bytes.length, gso !== 0])).toEqual([[whole + 42, true]]);
          expect(ways().ring).toBe(ring);
        }
    } finally {
      for (const fd of sockets) ffi.close(fd);
      close();
    }
  });

  it('takes no other checksum for a partial one', () => {
    const { port, peer, close } = open();
    const body = Uint8Array.from({ length: 40 }, (_, n) => n);
    /** UDP with the sum of its pseudo-header for a checksum, which is what the kernel leaves. */
    const partial = (more: { length?: number; body?: Uint8Array } = {}): build.Segment => {
      const payload = more.body ?? body;
      const header = build.pseudoHeader(build.ip(FOUR.src), build.ip(FOUR.dst), build.PROTO_UDP, 8 + payload.length);
      return build.udp({ ...PORTS, length: more.length, checksum: ~build.checksum(header) & 0xffff }, payload);
    };
    // A payload with which that very sum is right: its last two bytes make up for the rest.
    const right = body.slice();
    right.set([0, 0], 38);
    const sum = build.get16(partial().bytes, 6);
    const rest = build.checksum(
      build.pseudoHeader(build.ip(FOUR.src), build.ip(FOUR.dst), build.PROTO_UDP, 48),
      partial({ body: right }).bytes,
    );
    build.put16(right, 38, rest);
    const padded = build.concat(four(build.udp(PORTS, 'x')), new Uint8Array(17).fill(0xaa));
    const cases: [string, Uint8Array, boolean][] = [
      ['partial', four(partial()), true],
      ['partial, padded', build.concat(four(partial({ body: Uint8Array.of(1) })), new Uint8Array(17)), true],
      ['right', four(build.udp(PORTS, body)), false],
      ['right, and the same', four(partial({ body: right })), false],
      ['right, padded', padded, false],
      ['none', four(build.udp({ ...PORTS, checksum: 0 }, body)), false],
      ['wrong', four(build.udp({ ...PORTS, checksum: sum ^ 1 }, body)), false],
      ['with something behind the datagram', four(partial({ length: 20 })), false],
      ['cut short', four(partial()).slice(0, 60), false],
      ['shorter than a header', four(partial(), { totalLength: 27 }), false],
      ['longer than the frame', four(partial(), { totalLength: 1000 }), false],
      ['IPv6, right', six(build.udp(PORTS, body)), false],
      ['IPv6 without a length', six(build.udp(PORTS, body), { payloadLength: 0 }), false],
      ['IPv6, cut short', six(build.udp(PORTS, body)).slice(0, 45), false],
    ];
    try {
      for (const [what, frame, expected] of cases) {
        peer.send(frame);
        const seen = take([port], 1);
        expect(
          seen.map(({ bytes }) => text(bytes)),
          what,
        ).toEqual([text(frame)]);
        expect((seen[0].flags & FRAME_NEEDS_CSUM) !== 0, what).toBe(expected);
      }
      expect(build.verify(cases[3][1])).toEqual([]);
    } finally {
      close();
    }
  });

  it('counts what finds no room in the ring, and goes on', () => {
    const { port, peer, ways, close } = open();
    const room = Math.floor((RING_BYTES - 1) / 128);
    const over = 77;
    const numbered = (n: number): Uint8Array => four(build.udp({ ...PORTS, checksum: 0 }, build.u32(n)));
    try {
      for (let n = 0; n < room + over; n++) peer.send(numbered(n));
      // The device has seen them all before the first is read.
      const end = performance.now() + PATIENCE_MS;
      while (ways().ring < room + over && performance.now() < end);
      const seen = take([port], room);
      expect(seen).toHaveLength(room);
      for (let n = 0; n < room; n++) if (build.get32(seen[n].bytes, 42) !== n) expect.fail(`frame ${n} is another`);
      expect(port.counters).toMatchObject({ rxPackets: room, rxErrors: over });
      for (let n = 0; n < 5; n++) peer.send(numbered(n));
      expect(take([port], 5)).toHaveLength(5);
      expect(port.counters.rxErrors).toBe(over);
    } finally {
      close();
    }
  });

  it('leaves in the ring what finds no slot', () => {
    const { port, peer, close } = open();
    const few = liveArena(8, 1);
    try {
      for (let n = 0; n < 30; n++) peer.send(four(build.udp(PORTS, build.u32(n))));
      const seen: number[] = [];
      const end = performance.now() + PATIENCE_MS;
      while (seen.length < 30 && performance.now() < end) {
        const got = port.rxBurst(few, slots, 32);
        expect(got).toBeLessThanOrEqual(9);
        for (let n = 0; n < got; n++) {
          seen.push(build.get32(few.u8, few.meta[slots[n] * META_WORDS + META_OFF] + 42));
          few.free(slots[n]);
        }
      }
      expect(seen).toEqual(Array.from({ length: 30 }, (_, n) => n));
      expect(port.counters.rxErrors).toBe(0);
    } finally {
      close();
    }
  });

  it('a frame that comes between the last look and the sleep ends that sleep', () => {
    const { port, peer, close } = open();
    const sleeper = new Poller([port], -1);
    try {
      for (let n = 0; n < 20; n++) {
        expect(burst(port)).toEqual([]);
        if (n % 2 === 0) expect(sleeper.wait(0)).toBe(WOKE_TIMEOUT);
        // The first takes the word that says that we sleep; the second finds us awake and wakes nobody.
        for (let k = 0; k < n % 3; k++) {
          peer.send(four(build.udp(PORTS, 'first')));
          expect(take([port], 1)).toHaveLength(1);
        }
        const frame = n % 5 === 4 ? four(build.tcp({ sport: 1, dport: 2 })) : four(build.udp(PORTS, 'second'));
        peer.send(frame);
        expect(sleeper.wait(MAX_SLEEP_MS)).toBe(WOKE_PORT);
        expect(take([port], 1)).toHaveLength(1);
      }
      expect(sleeper.timeouts).toBe(10);
    } finally {
      close();
    }
  });

  /** Sends a frame a while after each word of ours, and says when it has. */
  const SENDER = `
    const { workerData: { fd, frame, go, sent, at, delays } } = require('node:worker_threads');
    const send = require('koffi').load(null).func('int64_t send(int, void *, size_t, int)');
    const now = () => { const [s, ns] = process.hrtime(); return s * 1000 + ns / 1e6; };
    for (let n = 1; ; n++) {
      Atomics.wait(go, 0, n - 1);
      if (Atomics.load(go, 0) < n) break;
      for (const end = now() + delays[n % delays.length] / 1000; now() < end; );
      send(fd, frame, frame.length, 0);
      at[0] = now();
      Atomics.store(sent, 0, n);
    }`;

  for (const wrapped of [false, true])
    it(`no wake-up is lost while another thread sends${wrapped ? ' (behind a fault and a mirror wrapper)' : ''}`, async () => {
      const { port, peer, close } = open();
      const folder = mkdtempSync(join(tmpdir(), 'sluice-ring-'));
      const writer = new CaptureWriter(join(folder, 'mirror.pcapng'), { format: 'pcapng' });
      const outer = wrapped ? new MirrorPort(new FaultPort(port), writer, { clock: CaptureClock.wall() }) : port;
      const shared = (): Int32Array => new Int32Array(new SharedArrayBuffer(8));
      const [go, sent] = [shared(), shared()];
      const at = new Float64Array(new SharedArrayBuffer(8));
      const next = random(5);
      // Microseconds: most of them about when the worker goes to sleep.
      const delays = Array.from({ length: 997 }, (_, n) => next() % [30, 100, 400][n % 3]);
      const frame = four(build.udp(PORTS, 'wake up'));
      const thread = new Worker(SENDER, { eval: true, workerData: { fd: peer.fd, frame, go, sent, at, delays } });
      const ended = new Promise((resolve) => thread.once('exit', resolve));
      const now = (): number => {
        const [seconds, nanoseconds] = process.hrtime();
        return seconds * 1000 + nanoseconds / 1e6;
      };
      /** Milliseconds that this thread could have run but was not let to, if the kernel counts them. */
      const queued = (): number => {
        try {
          return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[1]) / 1e6;
        } catch {
          return 0;
        }
      };
      const sleeper = new Poller([outer], -1);
      let [rounds, slept, late] = [0, 0, 0];
      try {
        const end = now() + SLEEPING_MS;
        const hung = now() + PATIENCE_MS;
        // One that is late is no proof, and asks for more time.
        while (slept < SLEEPS && late < 3 && now() < (late > 0 ? hung : end)) {
          Atomics.store(go, 0, ++rounds);
          Atomics.notify(go, 0);
          const sleeps = sleeper.sleeps;
          for (let got = 0; got === 0 && now() < hung; ) {
            got = burst(outer).length;
            // At once: a worker looks some times more, which would leave few to sleep here.
            if (got > 0) break;
            const before = queued();
            sleeper.wait(MAX_SLEEP_MS);
            // The frame was there, we slept all the same, and it was the bound that ended it.
            const asleep = now() - at[0] - (queued() - before);
            if (Atomics.load(sent, 0) === rounds && asleep > MAX_SLEEP_MS / 2) late++;
          }
          if (sleeper.sleeps > sleeps) slept++;
        }
        // Not even one; but a machine that stands still for a second looks like it.
        expect(late).toBeLessThan(3);
        expect(slept).toBeGreaterThan(0);
        expect(port.counters).toMatchObject({ rxPackets: rounds, rxErrors: 0 });
      } finally {
        Atomics.store(go, 0, -1);
        Atomics.notify(go, 0);
        await ended;
        writer.close();
        rmSync(folder, { recursive: true });
        close();
      }
    });

  it('two queues bring every frame once', () => {
    const { ports, peer, ways, close } = open({ queues: 2 });
    const next = random(6);
    try {
      const sent: string[] = [];
      const seen: Received[] = [];
      for (let round = 0; round < 5; round++) {
        for (let n = 0; n < 200; n++) {
          const flow = { sport: 1024 + (next() % 5000), dport: 53 };
          const body = build.u32(sent.length);
          const frame = n % 3 === 0 ? six(build.udp(flow, body)) : four(build.udp(flow, body));
          peer.send(frame);
          sent.push(text(frame));
        }
        seen.push(...take(ports, 200));
      }
      expect(seen.map(({ bytes }) => text(bytes)).sort()).toEqual(sent.sort());
      for (const { counters } of ports) expect(counters.rxPackets).toBeGreaterThan(100);
      expect(ways()).toEqual({ ring: sent.length, queue: 0 });
    } finally {
      close();
    }
  });

  for (const backend of ['uring', 'readwrite'] as const)
    it(`notices that its device is gone, and still gives what came before (${backend})`, () => {
      const { name, port, peer, close } = open({ backend });
      const sleeper = new Poller([port], -1);
      try {
        expect(burst(port)).toEqual([]);
        for (let n = 0; n < 3; n++) peer.send(four(build.udp(PORTS, build.u32(n))));
        ip(netns, 'link', 'delete', name);
        expect(sleeper.wait(MAX_SLEEP_MS) & WOKE_GONE).toBe(WOKE_GONE);
        expect(port.linkUp).toBe(false);
        expect(take([port], 3).map(({ bytes }) => build.get32(bytes, 42))).toEqual([0, 1, 2]);
        expect(sleeper.wait(1)).toBe(WOKE_TIMEOUT);
      } finally {
        close();
      }
    });

  it('a port that takes the place of another goes on where that has stopped', () => {
    const { tap, rings, port, peer, close } = open({ backend: 'readwrite' });
    const numbers = (seen: Received[]): number[] => seen.map(({ bytes }) => build.get32(bytes, 42));
    try {
      for (let n = 0; n < 60; n++) peer.send(four(build.udp(PORTS, build.u32(n))));
      const seen = numbers(burst(port, 10));
      expect(seen.length).toBeGreaterThan(0);
      let heir: InstanceType<typeof RingTapPort> = port;
      // Each of several: a worker may die again and again.
      for (let n = 0; n < 4; n++) {
        const { name, number, offloads } = { ...port, offloads: tap.offloads };
        heir = new RingTapPort(new TapPort({ name, number, fd: tap.fds[0], vnetHeader: true, offloads }), rings[0]);
        seen.push(...numbers(burst(heir, 10)));
      }
      seen.push(...numbers(take([heir], 60 - seen.length)));
      expect(seen).toEqual(Array.from({ length: 60 }, (_, n) => n));
    } finally {
      close();
    }
  });

  it('a device that cannot have rings says why, and stays as it was', () => {
    const { port, peer, close } = open();
    try {
      expect(() => openTapRings('none', [peer.fd])).toThrow(
        /^port none \(tap, --io bpf\): expected the device to take a filter, got .*; run as root \(CAP_BPF\)/,
      );
      peer.send(four(build.udp(PORTS, 'x')));
      expect(take([port], 1)).toHaveLength(1);
    } finally {
      close();
    }
  });
});
