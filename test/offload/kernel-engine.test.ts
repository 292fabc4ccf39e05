/**
 * The kernel engine by itself: the assembler against clang's, and the program on single frames (BPF_PROG_TEST_RUN): what it
 * leaves to the receiver, super-frames, flushes, and a table that says no. The engine's whole suite runs with it in vitest
 * project `kernel`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { IF_MTU, IF_WORDS } from '../../dataplane/interfaces.ts';
import { NUD_REACHABLE } from '../../dataplane/neighbours.ts';
import { NH_VIA } from '../../dataplane/nexthops.ts';
import { testProgram } from '../../dataplane/ports/bpf.ts';
import { KernelEngine, KernelFlows, kernelEngineRefusal } from '../../dataplane/ports/kernel-engine.ts';
import { countForwarded, type KernelSamples } from '../../dataplane/ports/kernel-samples.ts';
import { monotonic } from '../../dataplane/ports/monotonic.ts';
import * as T from '../../dataplane/tables.ts';
import { parseAddress } from '../../dataplane/wire/address.ts';
import { delta, fold } from '../../dataplane/wire/sum.ts';
import { Assembler } from '../../offload/kernel/assembler.ts';
import { engineProgram, VERDICT_HIT } from '../../offload/kernel/program.ts';
import { ENGINE_IDLE, Policy, PRIORITY_DEFAULT, PRIORITY_STREAM } from '../../offload/policy.ts';
import {
  AUX_PRIORITY,
  AUX_WORDS,
  F4_BYTES,
  F4_LAST,
  F4_PACKETS,
  type FlowSpec,
  newFlowSpec,
} from '../../offload/table.ts';
import { ethernet, get16, ip, ipv4, ipv6, mac, tcp, toHex, udp, verify } from '../lib/build.ts';
import { KernelBench } from './kernel-port.ts';
import { engineCounter, HOST, HOST2, macOf, SERVER, to, WAN, worldConfig } from './world.ts';

/** One of each, in this file's words and in clang's. */
const SAMPLES: readonly [string, (a: Assembler) => Assembler][] = [
  ['r1 = 5', (a) => a.mov('r1', 5)],
  ['r2 = r1', (a) => a.mov('r2', 'r1')],
  ['w3 = w1', (a) => a.mov32('r3', 'r1')],
  ['r1 += -7', (a) => a.add('r1', -7)],
  ['r1 += r2', (a) => a.add('r1', 'r2')],
  ['r9 -= r7', (a) => a.sub('r9', 'r7')],
  ['r1 &= 255', (a) => a.and('r1', 255)],
  ['r1 |= r2', (a) => a.or('r1', 'r2')],
  ['r1 ^= 65535', (a) => a.xor('r1', 65535)],
  ['r1 <<= 5', (a) => a.lsh('r1', 5)],
  ['r1 >>= 16', (a) => a.rsh('r1', 16)],
  ['r5 = be16 r5', (a) => a.be16('r5')],
  ['r2 = *(u8 *)(r7 + 14)', (a) => a.load(1, 'r2', 'r7', 14)],
  ['r2 = *(u16 *)(r7 + 12)', (a) => a.load(2, 'r2', 'r7', 12)],
  ['r2 = *(u32 *)(r6 + 76)', (a) => a.load(4, 'r2', 'r6', 76)],
  ['r2 = *(u64 *)(r10 - 120)', (a) => a.load(8, 'r2', 'r10', -120)],
  ['*(u8 *)(r7 + 22) = r2', (a) => a.store(1, 'r7', 22, 'r2')],
  ['*(u16 *)(r7 + 4) = r2', (a) => a.store(2, 'r7', 4, 'r2')],
  ['*(u32 *)(r7 + 6) = r2', (a) => a.store(4, 'r7', 6, 'r2')],
  ['*(u64 *)(r10 - 8) = r5', (a) => a.store(8, 'r10', -8, 'r5')],
  ['lock *(u64 *)(r8 + 8) += r2', (a) => a.atomicAdd('r8', 8, 'r2')],
  ['r3 = 30000000000 ll', (a) => a.constant('r3', 30_000_000_000)],
  ['if r1 == r2 goto +0', (a) => a.when('r1', '==', 'r2', 'a').label('a')],
  ['if r1 != 65535 goto +0', (a) => a.when('r1', '!=', 65535, 'b').label('b')],
  ['if r1 > r8 goto +0', (a) => a.when('r1', '>', 'r8', 'c').label('c')],
  ['if r1 >= 2 goto +0', (a) => a.when('r1', '>=', 2, 'd').label('d')],
  ['if r1 < 28 goto +0', (a) => a.when('r1', '<', 28, 'e').label('e')],
  ['if r1 <= 1 goto +0', (a) => a.when('r1', '<=', 1, 'f').label('f')],
  ['if r2 s> r3 goto +0', (a) => a.when('r2', 's>', 'r3', 'g').label('g')],
  ['goto +0', (a) => a.jump('h').label('h')],
  ['call 23', (a) => a.call(23)],
  ['exit', (a) => a.exit()],
];

const hasClang = spawnSync('clang', ['--version']).status === 0;
if (!hasClang) console.warn('clang: expected in PATH, got nothing; the assembler is not compared with it');

describe('the assembler', () => {
  test.skipIf(!hasClang)('writes what clang writes', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-bpf-'));
    try {
      const object = join(folder, 'code.o');
      const source = `.text\n${SAMPLES.map(([line]) => line).join('\n')}\n`;
      const done = spawnSync('clang', ['-target', 'bpf', '-mcpu=v3', '-x', 'assembler', '-c', '-o', object, '-'], {
        input: source,
      });
      expect(done.stderr.toString()).toBe('');
      const ours = SAMPLES.reduce((a, [, write]) => write(a), new Assembler()).assemble({});
      // ELF64: section headers at 0x28, 64 bytes each; .text is the executable one.
      const bytes = readFileSync(object);
      const sections = Number(bytes.readBigUInt64LE(0x28));
      const count = bytes.readUInt16LE(0x3c);
      let text = Buffer.alloc(0);
      for (let n = 0; n < count; n++) {
        const at = sections + n * 64;
        const offset = Number(bytes.readBigUInt64LE(at + 24));
        const size = Number(bytes.readBigUInt64LE(at + 32));
        if ((bytes.readUInt32LE(at + 8) & 4) !== 0 && size > 0) text = bytes.subarray(offset, offset + size);
      }
      expect(toHex(ours)).toBe(toHex(text));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('constants in memory, bit tests, maps (RFC 9669 §4.3, §5.1, §5.4)', () => {
    const a = new Assembler().store(4, 'r6', 48, 0).when('r2', '&', 1, 'end').map('r1', 'm').mapValue('r2', 'm', 8);
    expect(toHex(a.label('end').assemble({ m: 9 }))).toBe(
      '6206300000000000' +
        '4502040001000000' +
        '1811000009000000' +
        '0000000000000000' +
        '1822000009000000' +
        '0000000008000000',
    );
  });

  test('refuses a label twice, and one that is not there', () => {
    expect(() => new Assembler().label('a').label('a')).toThrow('expected a new name, got "a" twice');
    expect(() => new Assembler().jump('b').assemble({})).toThrow('expected a label of this program, got "b"');
    expect(() => new Assembler().map('r1', 'm').assemble({})).toThrow('expected a descriptor for "m"');
  });

  test('the program of a port: the same bytes each time, its number in them, short enough to read', () => {
    const bytes = (port: number) => {
      const code = engineProgram({ port, vlans: [], neighbours: 8192, idle: ENGINE_IDLE });
      return toHex(code.assemble({ flows4: 3, flows6: 4, counters: 5, block: 6 }));
    };
    expect(bytes(1)).toBe(bytes(1));
    expect(bytes(1)).not.toBe(bytes(2));
    expect(bytes(1).length / 16).toBeLessThan(400);
  });
});

const refusal = kernelEngineRefusal();
if (refusal !== '') console.warn(`the kernel engine's program is not run: ${refusal}`);

describe.skipIf(refusal !== '')('the program', () => {
  const LAN = mac('02:00:00:00:01:01');
  const HOST = mac('02:00:00:00:00:10');
  const OUT = { src: '203.0.113.1', dst: '198.51.100.7' };
  const raw = (address: string) => new DataView(Uint8Array.from(ip(address)).buffer).getInt32(0, true);
  let tables: T.Tables;
  let engine: KernelEngine;
  let place = -1;

  /** The entry of 192.168.1.10:5000 → 198.51.100.7:4000, which becomes 203.0.113.1:6000. */
  function spec(proto: number): FlowSpec {
    const f = newFlowSpec();
    f.src[0] = raw('192.168.1.10');
    f.dst[0] = raw('198.51.100.7');
    f.newSrc = raw('203.0.113.1');
    f.newDst = f.dst[0];
    f.ports = 0xa00f8813 | 0;
    f.newPorts = 0xa00f7017 | 0;
    f.proto = proto;
    f.outPort = 1;
    f.macLo = 0x00000002;
    f.macHi = 0xfe00;
    f.epoch = tables.control[T.EPOCH];
    f.neighbour = 1;
    const addresses = delta(f.src[0], f.newSrc);
    f.delta = fold(addresses + 0xfffe) | (fold(addresses + delta(f.ports, f.newPorts)) << 16);
    return f;
  }

  beforeEach(() => {
    tables = new T.Tables(T.createTables({ ...T.DEFAULT_SIZES, connections: 64, flows: 8, neighbours: 8 }, 1), 0);
    const w = tables.interfaces.words;
    for (const port of [0, 1]) {
      w[port * IF_WORDS] = 3;
      w[port * IF_WORDS + 1] = 0x00000002;
      w[port * IF_WORDS + 2] = 0x0101 + port * 0x100;
      w[port * IF_WORDS + IF_MTU] = 1500;
    }
    const n = tables.neighbours.ensure(1, 4, 1, 0, 0, 0, 0);
    tables.neighbours.update(n, NUD_REACHABLE, 2, 0xfe00, 0);
    const ports = [0, 1].map((number) => ({ number, ifname: `test${number}`, ifindex: 1, peer: false, vlans: [] }));
    engine = new KernelEngine({ entries: 8, neighbours: 8, idle: ENGINE_IDLE, ports });
    engine.follow(tables);
    const flows = tables.flows!;
    flows.behind = new KernelFlows(engine.task, tables, flows, Number(process.hrtime.bigint() / 1000n) / 1000);
    for (const proto of [6, 17]) {
      const f = spec(proto);
      f.neighbour = (n << 16) | 1;
      place = flows.install(f, 0, 2);
    }
  });
  afterEach(() => engine.close());

  const run = (frame: Uint8Array, gso = 0) => testProgram(engine.programs.get(0) as number, frame, gso);
  const from = { src: '192.168.1.10', dst: '198.51.100.7' };
  const frame = (o: object = {}, header: object = {}, payload = 'hello') =>
    ethernet({ src: HOST, dst: LAN }, ipv4({ ...from, ...header }, udp({ sport: 5000, dport: 4000, ...o }, payload)));
  const segment = (length: number) =>
    ethernet(
      { src: HOST, dst: LAN },
      ipv4(from, tcp({ sport: 5000, dport: 4000, seq: 1, ack: 1, flags: 'A', win: 100 }, 'x'.repeat(length))),
    );

  test('rewrites, counts, and names the port of exit; padding stays behind', () => {
    const padded = new Uint8Array(60);
    padded.set(frame());
    const { verdict, frame: left } = run(padded);
    expect(verdict).toBe(VERDICT_HIT | 1);
    const expected = ethernet(
      { src: '02:00:00:00:01:02', dst: '02:00:00:00:00:fe' },
      ipv4({ ...OUT, ttl: 63 }, udp({ sport: 6000, dport: 4000 }, 'hello')),
    );
    expect(toHex(left)).toBe(toHex(expected));
    const flows = tables.flows!;
    flows.collect(4, place);
    expect([flows.words4[(place << 4) + F4_PACKETS], flows.words4[(place << 4) + F4_BYTES]]).toEqual([1, 33]);
  });

  test('a UDP checksum of 0 stays 0; a wrong one stays wrong, for its receiver to see', () => {
    const none = run(frame({ checksum: 0 }));
    expect([none.verdict, get16(none.frame, 40)]).toEqual([VERDICT_HIT | 1, 0]);
    const wrong = run(frame({ checksum: 0x1234 }));
    expect(wrong.verdict).toBe(VERDICT_HIT | 1);
    expect(verify(wrong.frame).some((text) => text.includes('udp'))).toBe(true);
  });

  test('the MTU is compared with the segments of a super-frame', () => {
    expect(run(segment(1460)).verdict).toBe(VERDICT_HIT | 1);
    expect(run(segment(1461)).verdict).toBe(0);
    expect(run(segment(2800), 1460).verdict).toBe(VERDICT_HIT | 1);
    expect(run(segment(2800), 1461).verdict).toBe(0);
  });

  test('a flush is seen by the next frame; so are a neighbour, a link and a switch', () => {
    expect(run(frame()).verdict).not.toBe(0);
    tables.flush(T.EPOCH_ROUTE);
    expect(run(frame()).verdict).toBe(0);
    const f = spec(17);
    const n = tables.neighbours.find(1, 4, 1, 0, 0, 0);
    f.neighbour = (n << 16) | 1;
    tables.flows!.install(f, 0, 2);
    expect(run(frame()).verdict).not.toBe(0);
    tables.neighbours.update(n, NUD_REACHABLE, 3, 0xfe00, 0);
    expect(run(frame()).verdict).toBe(0);
    f.neighbour = (n << 16) | 2;
    tables.flows!.install(f, 0, 2);
    expect(run(frame()).verdict).not.toBe(0);
    Atomics.or(tables.control, T.ENGINES, 1);
    tables.flushed();
    expect(run(frame()).verdict).toBe(0);
  });

  test('frames of ports that somebody watches are left to the router, whichever way they go', () => {
    const hit = (low: number, high = 0): boolean => {
      engine.leave([low, high]);
      return run(frame()).verdict !== 0;
    };
    expect([hit(0), hit(1), hit(2), hit(4), hit(-1, -1), hit(0, 1), hit(0)]).toEqual([
      true,
      false,
      false,
      true,
      false,
      true,
      true,
    ]);
  });

  test('an entry that is taken out is gone', () => {
    tables.flows!.remove(4, place, 4);
    expect(run(frame()).verdict).toBe(0);
  });

  test('what the program has forwarded until an entry is taken out counts for the ports, whoever still asks for it', () => {
    const flows = tables.flows!;
    run(frame());
    run(frame());
    // As when its connection is gone already: nobody harvests it.
    flows.remove(4, place, 4);
    const of = (port: number, counter: number) => tables.counters[T.C_PORTS + port * 8 + counter];
    expect([tables.counters[T.C_FORWARDED], of(0, T.CP_RX_PACKETS), of(1, T.CP_TX_PACKETS)]).toEqual([2, 2, 2]);
    expect([of(0, T.CP_RX_BYTES), of(1, T.CP_TX_BYTES)]).toEqual([2 * 47, 2 * 47]);
    // The place is another entry's now, which begins at 0.
    const f = spec(17);
    f.neighbour = (tables.neighbours.find(1, 4, 1, 0, 0, 0) << 16) | 1;
    place = flows.install(f, 0, 6);
    run(frame());
    flows.collect(4, place);
    expect([flows.words4[(place << 4) + F4_PACKETS], tables.counters[T.C_FORWARDED]]).toEqual([1, 3]);
  });

  test('who must give way: an entry that the kernel has just used is not idle, although nobody has collected it', () => {
    const flows = tables.flows!;
    const now = 15_000;
    flows.behind = new KernelFlows(engine.task, tables, flows, monotonic()() - now);
    const policy = new Policy(tables.conntrack, tables.timeouts, { programAfter: 2, rate: 0, inspectFirst: 0 }, now);
    for (const proto of [6, 17]) {
      const f = spec(proto);
      f.neighbour = (tables.neighbours.find(1, 4, 1, 0, 0, 0) << 16) | 1;
      flows.install(f, 0, 2);
    }
    expect(run(frame()).verdict).toBe(VERDICT_HIT | 1);
    const idle = policy.victim(flows, PRIORITY_DEFAULT, now);
    expect([idle >= 0, idle]).toEqual([true, flows.findSpec(spec(6)) << 1]);
    expect(run(segment(100)).verdict).toBe(VERDICT_HIT | 1);
    // Busy both, of the newcomer's rank: this machine may be slow, but 10 s it is not.
    for (const p of [6, 17]) flows.aux4[flows.findSpec(spec(p)) * AUX_WORDS + AUX_PRIORITY] = PRIORITY_STREAM;
    expect(policy.victim(flows, PRIORITY_DEFAULT, now)).toBe(-1);
  });

  test('an entry that the emulated engine has used meanwhile is not idle to the program', () => {
    const flows = tables.flows!;
    const now = 2 * ENGINE_IDLE;
    flows.behind = new KernelFlows(engine.task, tables, flows, monotonic()() - now);
    const f = spec(17);
    f.neighbour = (tables.neighbours.find(1, 4, 1, 0, 0, 0) << 16) | 1;
    flows.install(f, 0, 2);
    expect(run(frame()).verdict).toBe(0);
    flows.words4[(place << 4) + F4_LAST] = now;
    flows.collect(4, place);
    expect(run(frame()).verdict).toBe(VERDICT_HIT | 1);
  });

  test('the router’s clock has come round (24.8 days): an entry that was made just now is not idle', () => {
    const flows = tables.flows!;
    const elapsed = 30 * 24 * 3600 * 1000;
    const kernel = new KernelFlows(engine.task, tables, flows, monotonic()() - elapsed);
    flows.behind = kernel;
    flows.remove(4, place, 4);
    const f = spec(17);
    f.neighbour = (tables.neighbours.find(1, 4, 1, 0, 0, 0) << 16) | 1;
    place = flows.install(f, elapsed | 0, 6);
    expect(run(frame()).verdict).toBe(VERDICT_HIT | 1);
    flows.collect(4, place);
    // Seen by the router's clock, the hit was now: coarse, and this machine may be slow.
    const last = flows.words4[(place << 4) + F4_LAST];
    expect((last - (elapsed | 0)) | 0).toBeGreaterThan(-1000);
    expect((last - (elapsed | 0)) | 0).toBeLessThan(ENGINE_IDLE);
  });

  test('what it does not know goes up untouched', () => {
    const frames = [
      ethernet({ src: HOST, dst: LAN, type: 0x0806 }, new Uint8Array(46)),
      frame({ sport: 5001 }),
      frame({}, { ttl: 1 }),
      frame({}, { more: true }),
      frame({}, { options: Uint8Array.of(1, 1, 1, 0) }),
      ethernet(
        { src: HOST, dst: LAN },
        ipv6({ src: '2001:db8::1', dst: '2001:db8::2' }, udp({ sport: 5000, dport: 4000 })),
      ),
      new Uint8Array(14),
    ];
    for (const one of frames) {
      const { verdict, frame: left } = run(one);
      expect([verdict, toHex(left)]).toEqual([0, toHex(one)]);
    }
  });
});

test('what the kernel forwards between VLAN ports counts where the slow path counts it, tags included', () => {
  const router = createRouter({
    ports: {
      left: { kind: 'memory', mac: '02:00:00:00:01:01' },
      right: { kind: 'memory', mac: '02:00:00:00:01:02' },
      lan: { parent: 'left', vlan: 10, zone: 'lan', addresses: ['192.168.1.1/24'] },
      wan: { parent: 'right', vlan: 20, zone: 'wan', addresses: ['203.0.113.1/24'] },
      dmz: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:03', addresses: ['10.9.0.1/24'] },
    },
    neighbors: [
      { port: 'wan', ip: '203.0.113.10', mac: '02:00:00:00:00:20' },
      { port: 'dmz', ip: '10.9.0.10', mac: '02:00:00:00:00:30' },
    ],
    zones: { lan: { forward: 'accept' }, wan: { forward: 'drop' } },
    offload: { mode: 'off' },
  });
  const counted = (forward: () => void): number[] => {
    const { counters } = router.tables;
    const before = counters.slice();
    forward();
    return [...counters.slice(T.C_PORTS, T.C_PORTS + 8 * 5)].map((count, n) => count - before[T.C_PORTS + n]);
  };
  const [LAN, WAN_PORT, DMZ] = [2, 3, 4];
  for (const [dst, to, gateway] of [
    ['203.0.113.10', WAN_PORT, 'right'],
    ['10.9.0.10', DMZ, 'dmz'],
  ] as const) {
    const packet = ipv4({ src: '192.168.1.10', dst }, udp({ sport: 5000, dport: 4000 }, 'hello'));
    const frame = ethernet({ src: mac('02:00:00:00:00:10'), dst: mac('02:00:00:00:01:01'), vlan: 10 }, packet);
    const walked = counted(() => {
      for (let n = 0; n < 3; n++) router.inject('left', frame);
    });
    expect(router.take(gateway).length).toBe(3);
    expect(counted(() => countForwarded(router.tables, LAN, to, 3, 3 * packet.length))).toEqual(walked);
  }
});

test.skipIf(refusal !== '')(
  'verify: the first 16 hits of every entry are shown, also where another one was before',
  () => {
    const bench = new KernelBench(true, 0, 2 ** 30);
    try {
      const router = createRouter(worldConfig({ offload: { mode: 'verify', entries: 64 } }), bench.options());
      bench.attach(router);
      const out = to('lan', ipv4({ src: HOST, dst: SERVER }, udp({ sport: 5000, dport: 4000 }, 'q')), macOf(HOST));
      const back = to('wan', ipv4({ src: SERVER, dst: WAN }, udp({ sport: 4000, dport: 5000 }, 'a')));
      const { conntrack } = router.tables;
      for (let life = 1; life <= 3; life++) {
        router.inject('lan', out);
        router.inject('wan', back);
        router.inject('lan', out);
        for (let n = 0; n < 40; n++) router.inject('lan', out);
        // Beyond them, one in 2^30.
        expect(engineCounter(router, 'kernel-compared')).toBe(16 * life);
        expect(engineCounter(router, 'kernel-hits')).toBe(40 * life);
        for (let n = 0; n < conntrack.highWater; n++) if (conntrack.inUse(n, router.now)) router.path.tracker.end(n);
      }
    } finally {
      bench.close();
    }
  },
);

describe.skipIf(refusal !== '')('verify: samples that are looked at late', () => {
  let bench: KernelBench;
  let router: Router;
  let samples: KernelSamples;
  const query = to('lan', ipv4({ src: HOST, dst: SERVER }, udp({ sport: 5000, dport: 4000 }, 'q')), macOf(HOST));
  const answer = to('wan', ipv4({ src: SERVER, dst: WAN }, udp({ sport: 4000, dport: 5000 }, 'a')));
  const count = () => ({
    compared: engineCounter(router, 'kernel-compared'),
    not: engineCounter(router, 'kernel-incomparable'),
    mismatches: engineCounter(router, 'mismatches'),
  });

  beforeEach(() => {
    bench = new KernelBench(true);
    router = createRouter(worldConfig({ offload: { mode: 'verify', entries: 64 } }), bench.options());
    bench.attach(router);
    for (let n = 0; n < 2; n++) {
      router.inject('lan', query);
      router.inject('wan', answer);
    }
    // From here on the kernel forwards, and nobody looks at what it shows until the test does.
    samples = bench.samples as KernelSamples;
    bench.samples = null;
    samples.drain(router.path, 100);
    expect(bench.forwarded).toBeGreaterThan(0);
  });
  afterEach(() => bench.close());

  /** Three frames of the kernel's, then a change that stamps the entry anew, then one of the kernel's by the new entry. */
  function around(change: () => void): void {
    const before = bench.forwarded;
    for (let n = 0; n < 3; n++) router.inject('lan', query);
    expect(bench.forwarded).toBe(before + 3);
    change();
    router.inject('lan', query);
    expect(bench.forwarded).toBe(before + 3);
    router.inject('lan', query);
    expect(bench.forwarded).toBe(before + 4);
    expect(router.take('wan').length).toBeGreaterThan(0);
  }

  test('nothing has changed: each is compared', () => {
    const before = count();
    for (let n = 0; n < 4; n++) router.inject('lan', query);
    expect(samples.drain(router.path, 100)).toBe(4);
    expect(count()).toEqual({ ...before, compared: before.compared + 4 });
  });

  test('the next hop has another MAC now: those from before are no mismatch, the one behind it is compared', () => {
    const before = count();
    around(() => router.control.setNeighbour(1, 4, parseAddress('203.0.113.254')!.words, 0x11111102, 0x1111));
    expect(samples.drain(router.path, 100)).toBe(4);
    expect(count()).toEqual({ compared: before.compared + 1, not: before.not + 3, mismatches: 0 });
  });

  test('the flow has another route now', () => {
    const before = count();
    around(() =>
      router.control.addRoute(4, parseAddress('198.51.100.0')!.words, 24, {
        kind: NH_VIA,
        port: 2,
        family: 4,
        gateway: parseAddress('198.18.0.254')!.words,
      }),
    );
    expect(samples.drain(router.path, 100)).toBe(4);
    expect(count()).toEqual({ compared: before.compared + 1, not: before.not + 3, mismatches: 0 });
  });

  test('the epochs have come round meanwhile, to the very same word', () => {
    const before = count();
    const word = router.tables.control[T.EPOCH];
    around(() => {
      // Only the sweep tells the entry of now from that of then: 255 flushes, as 0 is nobody's epoch.
      for (let n = 0; n < 255; n++) router.offload.flush();
      expect(router.tables.control[T.EPOCH]).toBe(word);
    });
    expect(samples.drain(router.path, 100)).toBe(4);
    expect(count()).toEqual({ compared: before.compared + 1, not: before.not + 3, mismatches: 0 });
  });

  test('its connection has ended, another one has the same addresses and ports: no mismatch, and each its own packets', () => {
    const { conntrack } = router.tables;
    const before = count();
    const forwarded = bench.forwarded;
    for (let n = 0; n < 3; n++) router.inject('lan', query);
    expect(bench.forwarded).toBe(forwarded + 3);
    for (let n = 0; n < conntrack.highWater; n++) if (conntrack.inUse(n, router.now)) router.path.tracker.end(n);
    // Its port outside is another host's now: only so can the new connection be told by what leaves.
    router.inject('lan', to('lan', ipv4({ src: HOST2, dst: SERVER }, udp({ sport: 5000, dport: 4000 })), macOf(HOST2)));
    router.take('wan');
    router.inject('lan', query);
    const sport = get16(router.take('wan')[0], 34);
    expect(sport).not.toBe(5000);
    router.inject('wan', to('wan', ipv4({ src: SERVER, dst: WAN }, udp({ sport: 4000, dport: sport }, 'a'))));
    for (let n = 0; n < 3; n++) router.inject('lan', query);
    expect(bench.forwarded).toBe(forwarded + 3 + 2);
    expect(samples.drain(router.path, 100)).toBe(5);
    expect(count()).toEqual({ compared: before.compared + 2, not: before.not + 3, mismatches: 0 });
    router.path.fast?.harvestAll(router.now);
    const one = router.conntrack.list().find(({ orig }) => orig.src === HOST);
    expect([one?.orig.packets, one?.reply.packets]).toEqual([4, 1]);
  });

  test('untagged frames of a port that carries VLANs are compared, although the emulated engine leaves those to the slow path', () => {
    bench.close();
    bench = new KernelBench(true);
    const config = worldConfig({ offload: { mode: 'verify', entries: 64 } });
    const guest = { parent: 'lan', vlan: 20, zone: 'lan', addresses: ['192.168.20.1/24'] };
    router = createRouter({ ...config, ports: { ...(config.ports as object), guest } }, bench.options());
    bench.attach(router);
    for (let n = 0; n < 4; n++) {
      router.inject('lan', query);
      router.inject('wan', answer);
    }
    expect(bench.forwarded).toBeGreaterThan(3);
    expect(count()).toEqual({ compared: bench.forwarded, not: 0, mismatches: 0 });
  });

  test('one that has nothing to be compared with counts for its connection all the same', () => {
    const packets = () => {
      router.path.fast?.harvestAll(router.now);
      return router.conntrack.list()[0].orig.packets as number;
    };
    const before = packets();
    around(() => router.offload.flush());
    samples.drain(router.path, 100);
    expect(packets()).toBe(before + 5);
  });

  test('the connection has ended: nothing to compare with', () => {
    const before = count();
    for (let n = 0; n < 3; n++) router.inject('lan', query);
    const { conntrack } = router.tables;
    for (let n = 0; n < conntrack.highWater; n++) if (conntrack.inUse(n, router.now)) router.path.tracker.end(n);
    expect(router.conntrack.count).toBe(0);
    expect(samples.drain(router.path, 100)).toBe(3);
    expect(count()).toEqual({ ...before, not: before.not + 3 });
  });
});
