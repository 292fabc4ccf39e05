/**
 * A million mutated frames through routers of several configurations (seed 20): no exception, no frame longer than it
 * came in without cause, every frame that leaves right under the naive checker (or as wrong as it came, where the router
 * does not look), every frame in exactly one counter, and every slot back in the arena at the end.
 *
 * SLUICE_MUTATIONS raises the number, SLUICE_SEED makes others of them.
 */
import { describe, expect, it } from 'vitest';
import { createRouter } from '../../controlplane/router.ts';
import { META_LEN, META_OFF, META_PORT, META_WORDS } from '../../dataplane/frames.ts';
import type { MemoryPort } from '../../dataplane/ports/memory.ts';
import type { Port } from '../../dataplane/ports/port.ts';
import { WHOLE } from '../../dataplane/reassembly.ts';
import { C_CONSUMED } from '../../dataplane/tables.ts';
import { get16, Random, toHex, verify } from '../lib/build.ts';
import { CAPTURES } from '../lib/captures.ts';
import { GATE, GATE_MAC, HOST, HOST_MAC, homeConfig, LAN_MAC, WAN_MAC } from '../lib/home.ts';
import { builtSamples, capturedSamples, mutate } from './corpus.ts';

const MUTATIONS = Number(process.env.SLUICE_MUTATIONS ?? 1_000_000);
const SEED = Number(process.env.SLUICE_SEED ?? 20);
const BURST = 128;
/** Whose datagram was cut. */
const CUT_FORWARDED = 1;
const CUT_OWN = 2;
const SLOTS = { small: 2048, large: 64 };

const captured = capturedSamples(40);
if (captured.length === 0)
  console.log(`mutated frames: no captures in ${CAPTURES} (SLUICE_CAPTURES names another folder), builders only`);
// The built frames speak of connections that the configurations know: they come as often as all captures together.
const built = builtSamples();
const samples = [
  ...Array.from({ length: Math.max(1, (captured.length / built.length) | 0) }, () => built).flat(),
  ...captured,
];

const open = { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'accept', input: 'accept' } };
const ports = (lan: Record<string, unknown>, wan: Record<string, unknown>) => ({
  lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'], ...lan },
  wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'], ...wan },
});

const configurations: Record<string, Record<string, unknown>> = {
  'a home gateway, everything let in': homeConfig({
    zones: open,
    nat: {
      masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
      forward: [{ in: 'wan', proto: 'tcp', port: 8080, to: '192.168.1.10:80' }],
      dmz: { in: 'wan', to: '192.168.1.11' },
    },
  }),
  'the engine on, programmed at once': homeConfig({
    zones: open,
    offload: { mode: 'on', entries: 1024, 'program-after': 1 },
  }),
  'no NAT, a small table, small links, the outside refused': homeConfig({
    ports: ports({ mtu: 1280 }, { mtu: 1280 }),
    zones: { lan: { forward: 'accept', input: 'reject' }, wan: { forward: 'reject', input: 'reject' } },
    nat: {},
    conntrack: { max: 64 },
  }),
  'VLAN ports, and neighbours that nobody answers for': homeConfig({
    ports: {
      ...ports({}, {}),
      guest: { parent: 'lan', vlan: 7, zone: 'lan', addresses: ['192.168.7.1/24'] },
    },
    routes: [
      { to: '0.0.0.0/0', via: '192.168.7.254' },
      { to: '::/0', via: '2001:db8:ffff::fe' },
    ],
    neighbors: [
      { port: 'lan', ip: HOST, mac: HOST_MAC },
      { port: 'wan', ip: GATE, mac: GATE_MAC },
    ],
    zones: open,
    nat: {},
  }),
};

/** A port that remembers every frame that came in by its slot, and judges every frame that leaves. */
class Judge implements Port {
  readonly inner: MemoryPort;
  private readonly came: (Uint8Array | null)[];
  /** CUT_* of the fragments that the router made, by their slots. */
  private readonly cutOf: Uint8Array;
  forwarded = 0;
  generated = 0;

  constructor(inner: MemoryPort, came: (Uint8Array | null)[], cutOf: Uint8Array) {
    this.inner = inner;
    this.came = came;
    this.cutOf = cutOf;
  }

  get name(): string {
    return this.inner.name;
  }
  get number(): number {
    return this.inner.number;
  }
  get linkUp(): boolean {
    return this.inner.linkUp;
  }
  get counters(): Port['counters'] {
    return this.inner.counters;
  }
  readonly pollFd = -1;

  rxBurst(frames: Parameters<Port['rxBurst']>[0], slots: Int32Array, max: number): number {
    const count = this.inner.rxBurst(frames, slots, max);
    for (let n = 0; n < count; n++) this.came[slots[n]] = bytesOf(frames, slots[n]);
    return count;
  }

  txBurst(frames: Parameters<Port['txBurst']>[0], slots: Int32Array, n: number): void {
    for (let k = 0; k < n; k++) {
      const out = bytesOf(frames, slots[k]);
      const was = this.came[slots[k]];
      if (was !== null) this.judgeForwarded(was, out);
      else if (this.cutOf[slots[k]] !== 0) this.judgeFragment(out, this.cutOf[slots[k]] === CUT_OWN);
      else this.judgeGenerated(out);
    }
    this.inner.txBurst(frames, slots, n);
    this.inner.take();
  }

  private judgeForwarded(was: Uint8Array, out: Uint8Array): void {
    this.forwarded++;
    const tag = get16(out, 12) === 0x8100 && get16(was, 12) !== 0x8100 ? 4 : 0;
    if (out.length > was.length + tag) fail('is longer than it came in', was, out);
    const problems = verify(out, { zeroUdp6: true });
    if (problems.length === 0) return;
    // What the router does not check (SCTP, UDP-Lite, GRE, tunnels, quotes) may leave as wrong as it came.
    const before = verify(was, { zeroUdp6: true }).map(plain);
    for (const problem of problems) {
      if (!before.includes(plain(problem)))
        fail(`leaves wrong: ${problem} (came: ${before.join('; ') || 'right'})`, was, out);
    }
    // The router judges no checksum behind a routing header with segments left (RFC 8200 §8.1), nor behind Shim6 or HIP.
    if (get16(was, 12) !== 0x0800 && ![6, 17, 58].includes(out[20])) return;
    const own = /^ipv[46](?: (?:tcp|udp|icmp|icmpv6))?: (?:header )?checksum/;
    for (const problem of problems) if (own.test(problem)) fail(`was let pass: ${problem}`, was, out);
  }

  /** Of a datagram that the router has cut: its last fragment stands for it. */
  private judgeFragment(out: Uint8Array, own: boolean): void {
    const problems = verify(out);
    if (problems.length > 0) fail(`(a fragment) leaves wrong: ${problems.join('; ')}`, out, out);
    if (fragmentField(out) < 0) fail('(a fragment) has no fragment header', out, out);
    if (hasMore(out)) return;
    if (own) this.generated++;
    else this.forwarded++;
  }

  private judgeGenerated(out: Uint8Array): void {
    this.generated++;
    const problems = verify(out, { skipQuotes: true });
    if (problems.length > 0) fail(`of the router's own is wrong: ${problems.join('; ')}`, out, out);
    const at = get16(out, 12) === 0x8100 ? 18 : 14;
    const four = out[at] >> 4 === 4;
    const limit =
      get16(out, at - 2) === 0x0806 ? 28 : four && out[at + 9] === 1 && out[at + 20] !== 0 ? 576 : four ? 9000 : 1280;
    if (four || out[at + 40] < 128 || get16(out, at - 2) === 0x0806)
      if (out.length - at > limit) fail(`of the router's own has ${out.length - at} bytes`, out, out);
  }

  close(): void {
    this.inner.close();
  }
}

function bytesOf(frames: Parameters<Port['rxBurst']>[0], slot: number): Uint8Array {
  const off = frames.meta[slot * META_WORDS + META_OFF];
  if (frames.meta[slot * META_WORDS + META_PORT] < 0) throw new Error('a slot without a port');
  return frames.u8.slice(off, off + frames.meta[slot * META_WORDS + META_LEN]);
}

/** Where the flags and the offset of a fragment are, or −1. IPv6: behind the headers that every fragment repeats. */
function fragmentField(frame: Uint8Array): number {
  let l3 = 12;
  while (get16(frame, l3) === 0x8100) l3 += 4;
  const type = get16(frame, l3);
  l3 += 2;
  if (type === 0x0800) return (get16(frame, l3 + 6) & 0x3fff) === 0 ? -1 : l3 + 6;
  if (type !== 0x86dd) return -1;
  let field = l3 + 6;
  let at = l3 + 40;
  while ([0, 43, 60].includes(frame[field]) && at + 8 <= frame.length) {
    field = at;
    at += (frame[at + 1] + 1) * 8;
  }
  return frame[field] === 44 ? at + 2 : -1;
}

function hasMore(frame: Uint8Array): boolean {
  const at = fragmentField(frame);
  return (get16(frame, at) & (frame[14] >> 4 === 4 || frame[18] >> 4 === 4 ? 0x2000 : 1)) !== 0;
}

function plain(problem: string): string {
  return problem.replace(/0x[0-9a-f]+/g, '');
}

function fail(what: string, was: Uint8Array, out: Uint8Array): never {
  throw new Error(`a frame ${what}\n  in  ${toHex(was)}\n  out ${toHex(out)}`);
}

const names = Object.keys(configurations);
describe(`${MUTATIONS} mutated frames, seed ${SEED}`, () => {
  it.each(names)('%s', { timeout: 600_000 }, (name) => {
    const came: (Uint8Array | null)[] = new Array(SLOTS.small + SLOTS.large).fill(null);
    const cutOf = new Uint8Array(SLOTS.small + SLOTS.large);
    const judges: Judge[] = [];
    const router = createRouter(configurations[name], {
      slots: SLOTS,
      seed: SEED,
      port: (_, __, inner) => {
        const judge = new Judge(inner, came, cutOf);
        judges.push(judge);
        return judge;
      },
    });
    // A slot that is taken for a frame of the router's own has no frame that came in; what enters `output` and `send`
    // is counted here, since no frame was received for it.
    let own = 0;
    let cutting = 0;
    const { alloc } = router.frames;
    router.frames.alloc = (bytes) => {
      const slot = alloc.call(router.frames, bytes);
      if (slot >= 0) {
        came[slot] = null;
        cutOf[slot] = cutting;
      }
      return slot;
    };
    // A datagram that was put together came in as what it is now.
    const { fragments } = router.path;
    const { gather } = fragments;
    fragments.gather = (p, zone, now) => {
      const result = gather.call(fragments, p, zone, now);
      if (result === WHOLE) came[p.slot] = bytesOf(router.frames, p.slot);
      return result;
    };
    // A segment that a helper made too long leaves as two: both are counted, and came as one.
    let made = 0;
    const path = router.path as unknown as {
      finish(p: { slot: number }, verdict: number): void;
      segmentPacket: object;
      cut(p: { own: number }, ...rest: unknown[]): number;
    };
    const { cut } = path;
    path.cut = (p, ...rest) => {
      cutting = p.own === 0 ? CUT_FORWARDED : CUT_OWN;
      const verdict = cut.call(path, p, ...rest);
      cutting = 0;
      return verdict;
    };
    const { finish } = path;
    path.finish = (p, verdict) => {
      if (p === path.segmentPacket) {
        made++;
        came[p.slot] = bytesOf(router.frames, p.slot);
      }
      finish.call(path, p, verdict);
    };
    const { output, send } = router.path;
    router.path.output = (...rest) => {
      own++;
      output.apply(router.path, rest);
    };
    router.path.send = (...rest) => {
      own++;
      send.apply(router.path, rest);
    };

    const random = new Random(SEED + names.indexOf(name));
    const total = Math.ceil(MUTATIONS / names.length);
    let injected = 0;
    const balance = () => {
      const c = router.counters;
      const dropped = Object.values(c.dropped).reduce((sum, n) => sum + n, 0);
      expect(c.received, 'frames received').toBe(injected);
      const consumed = router.tables.total(C_CONSUMED);
      expect(c.forwarded + c.delivered + c.generated + c.held + dropped + consumed, 'every frame in one counter').toBe(
        injected + own + made,
      );
      expect(
        judges.reduce((sum, j) => sum + j.forwarded, 0),
        'forwarded and on the wire',
      ).toBe(c.forwarded);
      expect(
        judges.reduce((sum, j) => sum + j.generated, 0),
        'generated and on the wire',
      ).toBe(c.generated);
      expect(router.frames.freeSmallCount + router.frames.freeLargeCount, 'slots').toBe(
        SLOTS.small + SLOTS.large - c.held,
      );
    };
    while (injected < total) {
      const size = Math.min(BURST, total - injected);
      for (let n = 0; n < size; n++) {
        const sample = random.pick(samples);
        router.port(sample.port).push(mutate(random, samples, sample.frame));
      }
      injected += size;
      router.advance(random.int(1, random.chance(0.01) ? 5000 : 20));
      if (injected % (BURST * 64) === 0) balance();
    }
    router.advance(70_000);
    balance();
    expect(router.counters.held).toBe(0);
    expect([router.frames.freeSmallCount, router.frames.freeLargeCount]).toEqual([SLOTS.small, SLOTS.large]);
    // The corpus reaches the whole path: a good part is forwarded, and many reasons are seen.
    const c = router.counters;
    expect(c.forwarded).toBeGreaterThan(total / 50);
    expect(c.delivered).toBeGreaterThan(0);
    expect(c.generated).toBeGreaterThan(0);
    expect(Object.keys(c.dropped).length).toBeGreaterThan(15);
    expect(c.dropped.NOT_SPECIFIED).toBeUndefined();
  });
});
