/** The reachability machine under a virtual clock: RFC 4861 §7.3 for both families, garbage, floods, links and roaming. */
import { describe, expect, test } from 'vitest';
import { NeighbourCache } from '../../../controlplane/neighbour/nud.ts';
import { NeighbourTable, NUD_STALE } from '../../../dataplane/neighbours.ts';
import { macText, Random } from '../../lib/build.ts';
import { advertisement, arpFrame, HOST, OTHER, solicitation, World, words } from './world.ts';

/** The two families: the neighbour's address, and its answer to a question of ours. */
const FAMILIES = [
  ['ARP', '10.0.0.10', () => arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' })],
  ['ND', 'fe80::a', () => advertisement()],
] as const;

describe.each(FAMILIES)('RFC 4861 §7.3 over %s', (_name, address, answer) => {
  /** When questions were sent, relative to `since`, and to whom. */
  const questions = (world: World, since: number) =>
    world.take().map((s) => `${s.at - since} ${s.frame[0] & 1 ? 'group' : macText(s.frame.subarray(0, 6))}`);

  test('nobody answers: three questions a second apart, FAILED, a pause, and a new attempt', () => {
    const world = new World();
    world.resolve(0, address);
    world.resolve(0, address); // the question is under way
    world.advance(2999);
    expect(world.entry(0, address)).toBe('INCOMPLETE');
    world.advance(1);
    expect(world.entry(0, address)).toBe('FAILED');
    expect(questions(world, 1000)).toEqual(['0 group', '1000 group', '2000 group']);
    world.resolve(0, address);
    expect([world.entry(0, address), world.take()]).toEqual(['FAILED', []]);
    world.advance(3000);
    expect(world.entry(0, address)).toBe('none');
    world.resolve(0, address);
    expect(world.take().length).toBe(1);
  });

  test('REACHABLE for 30 s, then STALE; it is removed when nobody uses it for ten minutes', () => {
    const world = new World();
    world.resolve(0, address);
    world.advance(1500);
    world.frame(0, answer());
    world.take();
    world.advance(29_999);
    expect(world.entry(0, address)).toBe(`REACHABLE ${HOST}`);
    world.advance(1);
    expect(world.entry(0, address)).toBe(`STALE ${HOST}`);
    world.advance(600_000 - 31_501);
    expect(world.entry(0, address)).toBe(`STALE ${HOST}`);
    world.advance(31_501);
    expect(world.entry(0, address)).toBe('none');
    expect(world.take()).toEqual([]);
    expect([world.arp.next(world.now), world.nd.next(world.now)]).toEqual([-1, -1]);
  });

  test('use of a STALE entry: DELAY 5 s, then PROBE: three unicast questions, then FAILED', () => {
    const world = new World();
    world.resolve(0, address);
    world.frame(0, answer());
    world.advance(30_000);
    world.take();
    const start = world.now;
    const generation = world.generation(0, address);
    world.use(0, address);
    expect(world.entry(0, address)).toBe(`DELAY ${HOST}`);
    world.advance(4999);
    expect(world.take()).toEqual([]);
    world.advance(1);
    expect(world.entry(0, address)).toBe(`PROBE ${HOST}`);
    world.advance(2999);
    expect(world.entry(0, address)).toBe(`PROBE ${HOST}`);
    // All the while the MAC was usable: what the offload engine holds stays valid.
    expect(world.generation(0, address)).toBe(generation);
    world.advance(1);
    expect(world.entry(0, address)).toBe(`FAILED ${HOST}`);
    expect(world.generation(0, address)).toBe(generation + 1);
    expect(questions(world, start)).toEqual([`5000 ${HOST}`, `6000 ${HOST}`, `7000 ${HOST}`]);
  });

  test('an answer to a probe: REACHABLE again, and the clock begins anew', () => {
    const world = new World();
    world.resolve(0, address);
    world.frame(0, answer());
    world.advance(30_000);
    world.use(0, address);
    world.advance(5500);
    world.frame(0, answer());
    expect(world.entry(0, address)).toBe(`REACHABLE ${HOST}`);
    world.advance(29_999);
    expect(world.entry(0, address)).toBe(`REACHABLE ${HOST}`);
  });

  test('a proof of an upper layer during DELAY spares the probes', () => {
    const world = new World();
    world.resolve(0, address);
    world.frame(0, answer());
    world.advance(30_000);
    world.take();
    world.use(0, address);
    world.advance(4000);
    (address.includes(':') ? world.nd : world.arp).cache.confirm(world.now, world.record(0, address));
    world.advance(10_000);
    expect([world.entry(0, address), world.take()]).toEqual([`REACHABLE ${HOST}`, []]);
  });

  test('in use at the very moment when it stops being REACHABLE: DELAY at once', () => {
    const world = new World();
    world.resolve(0, address);
    world.frame(0, answer());
    world.advance(29_000);
    world.use(0, address);
    expect(world.entry(0, address)).toBe(`REACHABLE ${HOST}`);
    world.advance(1000);
    expect(world.entry(0, address)).toBe(`DELAY ${HOST}`);
  });

  test('the reachable time is drawn between a half and one and a half of 30 s; quiet keeps it fixed', () => {
    for (const [random, expected] of [
      [0, 15_000],
      [0.999999, 44_999],
    ]) {
      for (const quiet of [false, true]) {
        const world = new World({ quiet, random: () => random });
        world.resolve(0, address);
        world.frame(0, answer());
        const time = quiet ? 30_000 : expected;
        world.advance(time - 1);
        expect(world.entry(0, address)).toBe(`REACHABLE ${HOST}`);
        world.advance(1);
        expect(world.entry(0, address)).toBe(`STALE ${HOST}`);
      }
    }
  });

  test('quiet: use of a STALE entry counts as proof, nothing is probed, nobody ages away', () => {
    const world = new World({ quiet: true });
    world.resolve(0, address);
    world.frame(0, answer());
    world.take();
    world.advance(30_000);
    expect(world.entry(0, address)).toBe(`STALE ${HOST}`);
    world.use(0, address);
    expect(world.entry(0, address)).toBe(`REACHABLE ${HOST}`);
    world.advance(24 * 3_600_000);
    expect([world.entry(0, address), world.take()]).toEqual([`STALE ${HOST}`, []]);
  });

  test('the clock wraps after 24.8 days: the same timeline on both sides', () => {
    const start = 2 ** 31 - 6500;
    const world = new World({ start });
    world.resolve(0, address);
    world.frame(0, answer());
    world.advance(29_999);
    expect(world.entry(0, address)).toBe(`REACHABLE ${HOST}`);
    world.advance(1);
    expect(world.entry(0, address)).toBe(`STALE ${HOST}`);
    const failing = new World({ start: 2 ** 31 - 1500 });
    failing.resolve(0, address);
    failing.advance(2999);
    expect(failing.entry(0, address)).toBe('INCOMPLETE');
    failing.advance(1);
    expect(failing.entry(0, address)).toBe('FAILED');
    expect(questions(failing, 2 ** 31 - 1500)).toEqual(['0 group', '1000 group', '2000 group']);
  });

  test('link down: what was learned there is void, other ports and permanent entries stay', () => {
    const world = new World();
    const v6 = address.includes(':');
    const cache = (v6 ? world.nd : world.arp).cache;
    world.resolve(0, address);
    world.frame(0, answer());
    world.resolve(0, v6 ? 'fe80::c' : '10.0.0.12');
    cache.learn(world.now, 1, words(v6 ? 'fe80::d' : '10.0.1.13'), 2, 0x0d00);
    cache.setPermanent(world.now, 0, words(v6 ? 'fe80::e' : '10.0.0.14'), 2, 0x0e00);
    const record = world.record(0, address);
    const generation = world.generation(0, address);
    world.link(0, false);
    expect(world.entry(0, address)).toBe('none');
    expect(world.neighbours.words[world.neighbours.at(record) + 8]).toBe(generation + 1);
    expect(world.entry(1, v6 ? 'fe80::d' : '10.0.1.13')).toBe('STALE 02:00:00:00:00:0d');
    expect(world.entry(0, v6 ? 'fe80::e' : '10.0.0.14')).toBe('PERMANENT 02:00:00:00:00:0e');
    world.take();
    world.advance(10_000);
    expect(world.take()).toEqual([]); // the question that was under way is over
  });
});

describe('roaming', () => {
  test('a neighbour that shows up on another port is removed from the old one', () => {
    const world = new World();
    world.own(1, '10.0.0.2/24', '2001:db8::2/64');
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.1' }));
    world.frame(0, solicitation({ src: '2001:db8::a' }));
    const before = world.generation(0, '10.0.0.10');
    const record = world.record(0, '10.0.0.10');
    world.frame(1, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.2' }));
    world.frame(1, solicitation({ src: '2001:db8::a' }));
    for (const address of ['10.0.0.10', '2001:db8::a']) {
      expect(world.entry(0, address)).toBe('none');
      expect(world.entry(1, address)).toBe(`STALE ${HOST}`);
    }
    expect(world.neighbours.words[world.neighbours.at(record) + 8]).toBeGreaterThan(before);
  });

  test('another MAC on the other port is another host', () => {
    const world = new World();
    world.own(1, '10.0.0.2/24');
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.1' }));
    world.frame(1, arpFrame({ op: 'request', mac: OTHER, from: '10.0.0.10', target: '10.0.0.2' }));
    expect([world.entry(0, '10.0.0.10'), world.entry(1, '10.0.0.10')]).toEqual([`STALE ${HOST}`, `STALE ${OTHER}`]);
  });
});

describe('floods', () => {
  test('unanswered questions are limited per port, the oldest gives way, and answered neighbours stay', () => {
    const world = new World({ incompletePerPort: 8 });
    world.resolve(0, '10.0.0.10');
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' }));
    world.resolve(1, '10.0.1.10');
    for (let n = 20; n < 220; n++) world.resolve(0, `10.0.0.${n}`);
    expect(world.neighbours.count).toBe(1 + 1 + 8);
    expect(world.entry(0, '10.0.0.211')).toBe('none');
    expect(world.entry(0, '10.0.0.212')).toBe('INCOMPLETE');
    expect(world.entry(0, '10.0.0.10')).toBe(`REACHABLE ${HOST}`);
    expect(world.entry(1, '10.0.1.10')).toBe('INCOMPLETE');
    // Each of them still gets its answer.
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.219', target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.219')).toBe(`REACHABLE ${HOST}`);
  });

  test('invented senders: one family never takes the other one’s share, who is in use and who is permanent stays', () => {
    const world = new World({ capacity: 64 });
    world.resolve(0, 'fe80::a');
    world.frame(0, advertisement());
    world.nd.cache.setPermanent(world.now, 0, words('fe80::e'), 2, 0x0e00);
    world.resolve(0, '10.0.0.10');
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' }));
    for (let n = 1; n <= 3000; n++) {
      world.advance(1);
      world.frame(0, solicitation({ src: `2001:db8::1:${n.toString(16)}`, target: '2001:db8::1' }));
    }
    expect(world.entry(0, 'fe80::a')).toBe(`REACHABLE ${HOST}`);
    expect(world.entry(0, 'fe80::e')).toBe('PERMANENT 02:00:00:00:00:0e');
    expect(world.entry(0, '10.0.0.10')).toBe(`REACHABLE ${HOST}`);
    expect(world.entry(0, '2001:db8::1:bb8')).toBe(`STALE ${HOST}`); // the newest is there: the router keeps learning
    expect(world.neighbours.count).toBeLessThanOrEqual(25);
    for (let n = 20; n < 40; n++) world.frame(0, arpFrame({ op: 'request', from: `10.0.0.${n}`, target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.39')).toBe(`STALE ${HOST}`);
  });

  test('a table full of permanent entries takes no more, and says so', () => {
    const world = new World({ capacity: 64, limit: 4 });
    for (let n = 1; n <= 4; n++)
      expect(world.arp.cache.setPermanent(world.now, 0, words(`10.0.0.${n + 20}`), 2, n << 8)).toBe(true);
    expect(world.arp.cache.setPermanent(world.now, 0, words('10.0.0.99'), 2, 9)).toBe(false);
    world.resolve(0, '10.0.0.50');
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.51', target: '10.0.0.1' }));
    expect(world.neighbours.count).toBe(4);
    world.arp.cache.forget(world.record(0, '10.0.0.21'));
    world.resolve(0, '10.0.0.50');
    expect(world.entry(0, '10.0.0.50')).toBe('INCOMPLETE');
  });
});

describe('the cache', () => {
  test('a new one over an old table goes on where the old one ended', () => {
    const world = new World();
    world.resolve(0, '10.0.0.10');
    world.resolve(0, '10.0.0.11');
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.11', target: '10.0.0.1' }));
    world.nd.cache.learn(world.now, 0, words('fe80::a'), 2, 0x0a00);
    world.advance(1500);
    let questions = 0;
    const restarted = new NeighbourCache(world.neighbours, 4, () => {
      questions++;
      return undefined;
    });
    const out: never[] = [];
    for (let turns = 0; turns < 50 && world.now < 20_000; turns++) {
      world.now += Math.max(1, restarted.next(world.now));
      restarted.tick(world.now, out);
    }
    expect(questions).toBe(1); // two were asked before
    expect(world.entry(0, '10.0.0.10')).toBe('none');
    expect(world.entry(0, '10.0.0.11')).toBe(`STALE ${HOST}`);
    expect(world.entry(0, 'fe80::a')).toBe(`STALE ${HOST}`); // the other family is not its business
  });

  test('random events: the count matches the table, deadlines never stand still, nothing is left at the end', () => {
    const random = new Random(2461);
    const table = new NeighbourTable(new SharedArrayBuffer(NeighbourTable.bytes(64)));
    const cache = new NeighbourCache(table, 4, () => undefined, { incompletePerPort: 5, limit: 20 });
    let now = 2 ** 31 - 50_000;
    for (let step = 0; step < 20_000; step++) {
      const address = [random.int(1, 60), 0, 0, 0] as const;
      const port = random.int(0, 2);
      const n = cache.find(port, address);
      const clock = now | 0;
      switch (random.int(0, 7)) {
        case 0:
        case 1:
          cache.resolve(clock, port, address, []);
          break;
        case 2:
          cache.learn(clock, port, address, random.int(1, 5) * 2, 0);
          break;
        case 3:
          cache.used(clock, random.int(-1, 70));
          break;
        case 4:
          cache.confirm(clock, n);
          break;
        case 5:
          if (n >= 0) cache.update(clock, n, NUD_STALE, random.int(1, 5) * 2, 0);
          break;
        case 6:
          if (random.chance(0.02)) cache.linkDown(port);
          break;
        default: {
          const wait = cache.next(clock);
          expect(wait).toBeLessThanOrEqual(600_000);
          now += random.chance(0.5) ? random.int(0, 300) : Math.max(0, wait);
        }
      }
      cache.tick(now | 0, []);
      expect(cache.next(now | 0)).not.toBe(0);
      let entries = 0;
      for (let k = 0; k < table.capacity; k++) if (table.used(k)) entries++;
      expect(table.count).toBe(entries);
      expect(entries).toBeLessThanOrEqual(20);
    }
    for (let turns = 0; turns < 10_000; turns++) {
      const wait = cache.next(now | 0);
      if (wait < 0) break;
      now += wait;
      cache.tick(now | 0, []);
    }
    expect(table.count).toBe(0);
  });
});
