/** Reassembly: whatever is cut, shuffled and mixed comes out as it was; memory is bounded and all of it comes back. */
import { describe, expect, it } from 'vitest';
import { reasonName } from '../../dataplane/drop.ts';
import { Frames, META_LEN, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { parseIp } from '../../dataplane/parse.ts';
import {
  fragmentOwner,
  KEPT,
  NOTHING_DUE,
  REASSEMBLED,
  Reassembly,
  TIMEOUT4,
  TIMEOUT6,
  WHOLE,
} from '../../dataplane/reassembly.ts';
import { datagramHash } from '../../dataplane/reassembly-queues.ts';
import { C_CONSUMED, C_DROPS, C_HELD, COUNTER_WORDS } from '../../dataplane/tables.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import { ethernet, icmp, icmpv6, ipv4, ipv6, Random, tcp, udp } from '../lib/build.ts';
import {
  cut4,
  cut6,
  drops,
  FAR,
  HOST,
  hopped,
  isIdle,
  joined,
  LAN,
  randomCuts,
  routed,
  send,
  shuffled,
  taken,
} from './fragment-cut.ts';

/** A reassembler with an arena of its own, fed with IP packets. */
class Bench {
  readonly frames: Frames;
  readonly counters = new Float64Array(COUNTER_WORDS);
  readonly fragments: Reassembly;
  readonly p = new Packet();

  constructor(small = 256, large = 16, limits = {}) {
    this.frames = new Frames(small, large);
    this.fragments = new Reassembly(this.frames, this.counters, 99, limits);
  }

  /** Parses and gathers one packet, as the path does; frees what is not kept. The answer, or the reason's name. */
  give(packet: Uint8Array, now = 0, zone = 0): string {
    const { frames, p } = this;
    const slot = frames.alloc(packet.length + 14);
    if (slot < 0) return 'NO_SLOT';
    const m = slot * META_WORDS;
    frames.u8.set(ethernet({ src: HOST.mac, dst: LAN.mac }, packet), frames.meta[m + META_OFF]);
    frames.meta[m + META_LEN] = packet.length + 14;
    p.slot = slot;
    p.off = frames.meta[m + META_OFF];
    p.len = packet.length + 14;
    p.l3 = p.off + 14;
    p.family = packet[0] >> 4;
    p.flags = p.gsoType = p.port = p.own = 0;
    if (parseIp(p, frames, p.off + p.len) !== 0 || p.isFragment === 0) throw new Error('expected a right fragment');
    const result = this.fragments.gather(p, zone, now);
    if (result === KEPT) {
      this.counters[C_HELD]++;
      return 'kept';
    }
    if (result === WHOLE) return 'whole';
    frames.free(p.slot);
    return reasonName(result);
  }

  /** The datagram that `give` called whole; its slot is freed. */
  taken(): Uint8Array {
    const { frames, p } = this;
    const m = p.slot * META_WORDS;
    expect(p.flags).toBe(REASSEMBLED);
    const out = frames.u8.slice(frames.meta[m + META_OFF] + 14, frames.meta[m + META_OFF] + frames.meta[m + META_LEN]);
    frames.free(p.slot);
    return out;
  }

  /** Ends everything that is due, frees what comes back. How many first fragments were there. */
  expire(now: number): number {
    let firsts = 0;
    for (let slot = this.fragments.expire(now); slot !== NOTHING_DUE; slot = this.fragments.expire(now))
      if (slot >= 0) {
        firsts++;
        this.frames.free(slot);
      }
    return firsts;
  }

  get isIdle(): boolean {
    const { frames, fragments } = this;
    return (
      frames.freeSmallCount === frames.small &&
      frames.freeLargeCount === frames.large &&
      fragments.count === 0 &&
      fragments.held === 0 &&
      this.counters[C_HELD] === 0
    );
  }

  dropped(reason: string): number {
    let sum = 0;
    for (let n = 0; n < 96; n++) if (reasonName(n) === reason) sum += this.counters[C_DROPS + n];
    return sum;
  }
}

/** A random datagram of either family and its fragments. */
function datagram(random: Random, id: number): { whole: Uint8Array; pieces: Uint8Array[] } {
  const six = random.chance(0.5);
  const data = random.bytes(random.pick([random.int(30, 300), random.int(300, 4000), random.int(4000, 20000)]));
  const ports = { sport: random.int(1, 65535), dport: random.int(1, 65535) };
  const segment = random.pick([
    () => udp(ports, data),
    () => tcp({ ...ports, flags: 'S' }, data),
    () => (six ? icmpv6 : icmp)({ type: six ? 128 : 8, id: 1, seq: 2 }, data),
  ])();
  const whole = six
    ? ipv6({ src: HOST.v6, dst: FAR.v6 }, segment)
    : ipv4({ src: HOST.v4, dst: FAR.v4, id: id & 0xffff }, segment);
  const header = six ? 40 : 20;
  const length = whole.length - header;
  const least = Math.ceil(length / 1400);
  const cuts = new Set(randomCuts(random, length, random.int(2, 8)).filter((c) => c >= 24));
  for (let n = 1; n < least; n++) cuts.add(n * 1400);
  if (cuts.size === 0) cuts.add(24);
  const sorted = [...cuts].sort((a, b) => a - b);
  return { whole, pieces: six ? cut6(whole, sorted, id) : cut4(whole, sorted) };
}

describe('any cuts in any order', () => {
  it('give the datagram that was cut, and all memory back', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new Random(seed);
      const bench = new Bench();
      const count = random.int(1, 6);
      const all = Array.from({ length: count }, (_, n) => datagram(random, seed * 16 + n));
      const given = all.flatMap(({ pieces }, n) => pieces.map((piece) => ({ piece, n })));
      // Exact duplicates of what is still waited for change nothing.
      for (const item of [...given]) if (random.chance(0.2)) given.push(item);
      const done = new Set<number>();
      const seen = new Map<number, Set<Uint8Array>>();
      for (const { piece, n } of shuffled(random, given)) {
        if (done.has(n)) continue;
        const mine = seen.get(n) ?? new Set();
        seen.set(n, mine);
        const answer = bench.give(piece, seed);
        if (mine.has(piece)) expect(answer).toBe('FRAG_DUP');
        mine.add(piece);
        if (answer === 'whole') {
          done.add(n);
          expect(Buffer.compare(bench.taken(), all[n].whole)).toBe(0);
          expect(mine.size).toBe(all[n].pieces.length);
        } else expect(['kept', 'FRAG_DUP']).toContain(answer);
      }
      expect([seed, done.size, bench.isIdle]).toEqual([seed, count, true]);
      expect(bench.counters[C_CONSUMED]).toBe(all.reduce((sum, d) => sum + d.pieces.length - 1, 0));
    }
  });

  it('pass the router as fragments that make the same datagram', () => {
    const router = routed();
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed * 31);
      const all = [datagram(random, seed * 16), datagram(random, seed * 16 + 1), datagram(random, seed * 16 + 2)];
      send(
        router,
        shuffled(
          random,
          all.flatMap((d) => d.pieces),
        ),
      );
      const out = joined(taken(router));
      const key = (p: Uint8Array) => `${p}`;
      expect(out.map(key).sort()).toEqual(all.map((d) => key(hopped(d.whole))).sort());
    }
    expect(isIdle(router)).toBe(true);
    expect(drops(router)).toEqual({});
    const c = router.counters;
    expect(c.received).toBe(c.forwarded + router.tables.total(C_CONSUMED));
  });

  it('keep datagrams apart that differ in any part of the key', () => {
    const bench = new Bench();
    const whole = (o: { src?: string; dst?: string; id?: number }, big = 0) =>
      ipv4(
        { src: o.src ?? HOST.v4, dst: o.dst ?? FAR.v4, id: o.id ?? 1 },
        udp({ sport: 1, dport: big + 1 }, new Uint8Array(200)),
      );
    const base = cut4(whole({}), [104]);
    expect(bench.give(base[0])).toBe('kept');
    for (const other of [{ src: '192.168.1.11' }, { dst: '198.51.100.2' }, { id: 2 }])
      expect(bench.give(cut4(whole(other), [104])[1])).toBe('kept');
    const icmpPart = ipv4({ src: HOST.v4, dst: FAR.v4, id: 1 }, icmp({ type: 8 }, new Uint8Array(200)));
    expect(bench.give(cut4(icmpPart, [104])[1])).toBe('kept');
    expect(bench.give(base[1], 0, 7)).toBe('kept'); // another conntrack zone
    expect(bench.give(base[1])).toBe('whole');
    expect(bench.taken()).toEqual(whole({}));
    expect(bench.fragments.count).toBe(5);
    expect(bench.expire(TIMEOUT4)).toBe(0);
    expect(bench.isIdle).toBe(true);
  });
});

describe('limits', () => {
  const half = (id: number, bytes = 200, part = 0) =>
    cut4(ipv4({ src: HOST.v4, dst: FAR.v4, id }, udp({ sport: 1, dport: 2 }, new Uint8Array(bytes))), [104])[part];

  it('datagrams: the oldest makes room, whatever its family', () => {
    const bench = new Bench(256, 16, { datagrams: 8 });
    const six = cut6(ipv6({ src: HOST.v6, dst: FAR.v6 }, udp({ sport: 1, dport: 2 }, new Uint8Array(200))), [104], 1);
    expect(bench.give(six[0], 0)).toBe('kept');
    for (let id = 1; id <= 100; id++) {
      expect(bench.give(half(id), id)).toBe('kept');
      expect(bench.fragments.count).toBeLessThanOrEqual(8);
    }
    expect(bench.fragments.evicted).toBe(93);
    expect(bench.dropped('FRAG_MEMORY')).toBe(93);
    expect(bench.give(six[1], 100)).toBe('kept'); // its first half had to go
    expect(bench.give(half(100, 200, 1), 100)).toBe('whole');
    bench.taken();
    expect(bench.expire(100 + TIMEOUT6)).toBe(6);
    expect(bench.isIdle).toBe(true);
  });

  it('fragments: a flood never takes more than a quarter of the arena', () => {
    const bench = new Bench(256, 16);
    let least = 256;
    for (let id = 0; id < 5000; id++) {
      bench.give(half(id), id);
      least = Math.min(least, bench.frames.freeSmallCount);
    }
    expect(least).toBeGreaterThanOrEqual(256 - 68 - 1);
    expect(bench.fragments.held).toBe(68);
    bench.expire(5000 + TIMEOUT4);
    expect(bench.isIdle).toBe(true);
  });

  it('one datagram with more fragments than any sender makes is given up', () => {
    const bench = new Bench(2048, 16);
    const whole = ipv4({ src: HOST.v4, dst: FAR.v4, id: 5 }, udp({ sport: 1, dport: 2 }, new Uint8Array(8000)));
    const answers = cut4(
      whole,
      Array.from({ length: 1000 }, (_, n) => 8 * (n + 1)),
    ).map((f) => bench.give(f));
    expect(answers.indexOf('FRAG_MEMORY')).toBe(128);
    bench.expire(TIMEOUT4);
    expect(bench.isIdle).toBe(true);
  });

  it('without a free large slot the datagram is dropped, not the arena broken', () => {
    const bench = new Bench(256, 4);
    const taken = [0, 1, 2, 3].map(() => bench.frames.alloc(60000));
    expect(bench.give(half(1))).toBe('kept');
    expect(bench.give(half(1, 200, 1))).toBe('FRAG_MEMORY');
    for (const slot of taken) bench.frames.free(slot);
    expect(bench.dropped('FRAG_MEMORY')).toBe(1); // the other one is the caller's to count
    expect(bench.isIdle).toBe(true);
  });

  it('time: 30 s for IPv4, 60 s for IPv6, from the first to come; over the wrap of the clock', () => {
    const bench = new Bench();
    const start = 0x7fffffff - 1000;
    const six = cut6(ipv6({ src: HOST.v6, dst: FAR.v6 }, udp({ sport: 1, dport: 2 }, new Uint8Array(200))), [104], 1);
    bench.give(half(1), start);
    bench.give(six[0], start);
    expect(bench.expire((start + TIMEOUT4 - 1) | 0)).toBe(0);
    expect(bench.expire((start + TIMEOUT4) | 0)).toBe(1);
    expect(bench.fragments.count).toBe(1);
    expect(bench.expire((start + TIMEOUT6 - 1) | 0)).toBe(0);
    expect(bench.expire((start + TIMEOUT6) | 0)).toBe(1);
    expect(bench.dropped('FRAG_REASM_TIMEOUT')).toBe(2);
    expect(bench.isIdle).toBe(true);
  });

  it('random rubbish: whatever comes, nothing is lost and nothing leaks', () => {
    for (let seed = 1; seed <= 10; seed++) {
      const random = new Random(seed * 101);
      const bench = new Bench(128, 8, { datagrams: 16 });
      let given = 0;
      let whole = 0;
      let refused = 0;
      for (let n = 0; n < 3000; n++) {
        const at = random.int(0, 40) * 8;
        const length = random.int(16, 120);
        const more = random.chance(0.7);
        const six = random.chance(0.5);
        const body = random.bytes(six && more ? length & ~7 : length);
        const id = random.int(1, 12);
        const packet = six
          ? cut6(ipv6({ src: HOST.v6, dst: FAR.v6, next: 17 }, body), [], id)[0]
          : ipv4({ src: HOST.v4, dst: FAR.v4, id, proto: 17, offset: at, more: more || at === 0 }, body);
        if (six) {
          packet[42] = at >> 8;
          packet[43] = (at & 0xf8) | (more || at === 0 ? 1 : 0);
          if (at === 0 && !more && (body.length & 7) !== 0) continue;
        }
        given++;
        const answer = bench.give(packet, n * 20);
        if (answer === 'whole') {
          bench.taken();
          whole++;
        } else if (answer !== 'kept') refused++;
        if (bench.fragments.held !== bench.counters[C_HELD]) throw new Error('held and counted differ');
        if (bench.frames.freeSmallCount !== 128 - bench.fragments.held) throw new Error('a slot leaks');
        bench.expire(n * 20);
      }
      bench.expire(3000 * 20 + TIMEOUT6);
      expect(bench.isIdle).toBe(true);
      let dropped = 0;
      for (let n = 0; n < 96; n++) dropped += bench.counters[C_DROPS + n];
      expect(whole + refused + bench.counters[C_CONSUMED] + dropped).toBe(given);
    }
  });
});

describe('workers', () => {
  it('all fragments of a datagram have one owner, and owners share the work', () => {
    const bench = new Bench(2048, 16);
    const owners = new Int32Array(4);
    for (let id = 1; id <= 400; id++) {
      const pieces = cut4(
        ipv4({ src: HOST.v4, dst: FAR.v4, id }, udp({ sport: 1, dport: 2 }, new Uint8Array(300))),
        [104, 208],
      );
      const named = pieces.map((piece) => {
        bench.give(piece);
        return fragmentOwner(bench.p, 4);
      });
      if (bench.p.flags === REASSEMBLED) bench.taken();
      expect(new Set(named).size).toBe(1);
      owners[named[0]]++;
    }
    for (const n of owners) expect(n).toBeGreaterThan(50);
  });
});

it('datagrams that fall into one bucket under one seed did so under every seed', () => {
  const random = new Random(8);
  const buckets = 2048;
  for (const family of [4, 6]) {
    const p = new Packet();
    p.family = family;
    const chosen: number[][] = [];
    const load = (seed: number) => {
      const count = new Map<number, number>();
      for (const words of chosen) {
        [p.s0, p.s3, p.d0, p.fragId] = words;
        const bucket = datagramHash(p, seed) & (buckets - 1);
        count.set(bucket, (count.get(bucket) ?? 0) + 1);
      }
      return Math.max(...count.values());
    };
    while (chosen.length < 200) {
      const words = [random.next() | 0, family === 4 ? 0 : random.next() | 0, 77, random.next() & 0xffff];
      [p.s0, p.s3, p.d0, p.fragId] = words;
      if ((datagramHash(p, 5) & (buckets - 1)) === 3) chosen.push(words);
    }
    expect(load(5)).toBe(200);
    // By chance, the fullest of 2048 has two or three of 200.
    for (const seed of [6, 5 ^ 0x40000000, -77]) expect(load(seed)).toBeLessThan(8);
  }
});
