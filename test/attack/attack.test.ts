/**
 * Under attack: established connections go on, memory stays bounded, the router answers. `npm run attack` measures the
 * rate that is left.
 */
import { describe, expect, it } from 'vitest';
import { ConntrackTable } from '../../conntrack/table.ts';
import { VIEWS } from '../../controlplane/show/index.ts';
import { CAPACITY } from '../../dataplane/hold.ts';
import { ipv4, Random, tcp } from '../lib/build.ts';
import * as H from '../lib/home.ts';
import { fromLan, fromWan, World } from '../soak/world.ts';
import { ATTACKS } from './attacks.ts';

const FRAMES = 12_000;
const FLOWS = 24;

/** A gateway with a port forward and a table that an attack can fill. */
function target(): World {
  const world = new World({
    conntrack: { max: 2048 },
    nat: {
      masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
      forward: [{ in: 'wan', proto: 'tcp', port: 8080, to: '192.168.1.10:80' }],
    },
    alg: { ftp: {} },
  });
  world.establish(FLOWS);
  return world;
}

describe(`${FRAMES} hostile frames`, () => {
  it.each(Object.keys(ATTACKS))('%s', { timeout: 60_000 }, (name) => {
    const world = target();
    const next = ATTACKS[name]();
    const random = new Random(7);
    for (let n = 0; n < FRAMES; n++) {
      const { port, frame } = next(random);
      world.push(port, frame);
      if (n % 64 === 63) {
        world.work(1);
        world.drain();
      }
      if (n % 3000 === 2999) world.check(`after ${n + 1} frames`);
    }
    world.check('at the end');
    world.balance('at the end');
    expect(world.answers()).toBe(true);
    const { tables, control, config } = world.router;
    expect(tables.conntrack.count).toBeLessThanOrEqual(tables.conntrack.max);
    expect(tables.neighbours.count).toBeLessThanOrEqual((tables.neighbours.capacity * 3) / 4);
    // Held packets and fragments have slots, and slots are not made while the router runs.
    expect(world.router.path.hold.count).toBeLessThanOrEqual(CAPACITY);
    expect(world.router.counters.held).toBeLessThan(4096 + 64);
    expect(world.router.expectations.count).toBe(0);
    for (const what of ['conntrack', 'drops', 'neigh', 'route', 'link'])
      expect(VIEWS[what]({ tables, control, config }, {}).text).not.toBe('');
    // What the attack left behind goes by itself: the same number of slots is free again.
    for (let second = 0; second < 200; second++) world.work(1000);
    expect(world.router.counters.held).toBe(0);
    expect(world.router.frames.freeSmallCount + world.router.frames.freeLargeCount).toBe(4096 + 64);
  });
});

describe('one by one', () => {
  it('a blind RST outside of the window is not forwarded, one inside does not close (RFC 5961 §3)', () => {
    const world = target();
    world.drain();
    const rst = (seq: number) =>
      world.put(
        'wan',
        fromWan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, tcp({ sport: 443, dport: 20000, seq, flags: 'R' }))),
      );
    rst(0x10000);
    expect(world.router.take('lan')).toEqual([]);
    rst(0x60000000 + 1 + 9 + 500); // in the window, not exact: the end judges it
    expect(world.router.take('lan')).toHaveLength(1);
    world.check('after the resets');
    expect(world.router.conntrack.lines().some((line) => /ESTABLISHED .*sport=20000 dport=443/.test(line))).toBe(true);
  });

  it('one blind FIN ended a connection that the engine carried: what no end can have sent changes nothing there', () => {
    const world = new World({ nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24' }] }, offload: { mode: 'on' } });
    world.establish(FLOWS);
    world.check('in the engine');
    const entries = () => world.router.conntrack.lines().filter((line) => line.includes('[OFFLOAD]')).length;
    const before = entries();
    expect(before).toBe(2 * FLOWS);
    for (const [n, flags] of ['FA', 'R', 'RA', 'S'].entries()) {
      world.drain();
      const guess = { seq: 0x1234567 * (n + 1), ack: 0x7654321 * n };
      const segment = tcp({ sport: 443, dport: 20000, flags, ...guess });
      world.put('wan', fromWan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, segment)));
      expect(world.router.take('lan'), flags).toEqual([]);
      expect(entries(), flags).toBe(before);
      world.check(`after ${flags}`);
    }
    // The end's own RST goes through and takes the connection out of the engine.
    world.drain();
    const exact = tcp({ sport: 443, dport: 20000, seq: 0x60000000 + 1 + 9, flags: 'R' });
    world.put('wan', fromWan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, exact)));
    expect(world.router.take('lan')).toHaveLength(1);
    expect(entries()).toBe(before - 1);
  });

  /** A gateway whose engine carries all its flows, and how many entries there are. */
  function carried(): { world: World; entries: () => number } {
    const world = new World({ nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24' }] }, offload: { mode: 'on' } });
    world.establish(FLOWS);
    world.check('in the engine');
    world.drain();
    return { world, entries: () => world.router.conntrack.lines().filter((line) => line.includes('[OFFLOAD]')).length };
  }
  const toServer = (flags: string, seq: number, ack = 0) =>
    fromLan(ipv4({ src: H.HOST, dst: H.SERVER }, tcp({ sport: 20000, dport: 443, flags, seq, ack })));
  const toHost = (flags: string, seq: number, ack = 0, size = 0) =>
    fromWan(
      ipv4(
        { src: H.SERVER, dst: H.ROUTER_WAN },
        tcp({ sport: 443, dport: 20000, flags, seq, ack }, new Uint8Array(size)),
      ),
    );

  it('one blind FIN ended a download of more than 65,535 packets: the connection’s own count says how much there was', () => {
    const { world, entries } = carried();
    const before = entries();
    for (let n = 0; n < 70_000; n++) {
      world.push('wan', toHost('A', 0x60000000 + 1 + 9, 1));
      if (n % 128 === 127) {
        world.work(0);
        world.drain();
      }
    }
    world.work(1);
    world.drain();
    expect(entries()).toBe(before);
    world.put('wan', toHost('FA', 0x1234567));
    expect(world.router.take('lan')).toEqual([]);
    expect(entries()).toBe(before);
  });

  it('one blind FIN in two hundred ended the engine’s stay: one number of the two in a window was enough', () => {
    const { world, entries } = carried();
    const before = entries();
    const [seq, ack] = [0x60000000 + 1 + 9, 0x10000000 + 1 + 8];
    for (const guess of [
      toHost('FA', seq + 500_000, ack + 0x3000000),
      toHost('FA', seq + 0x4000000, ack - 500_000),
      toHost('RA', seq + 500_000, ack + 0x3000000),
      toHost('R', seq + 500_000),
    ]) {
      world.put('wan', guess);
      expect(world.router.take('lan')).toEqual([]);
      expect(entries()).toBe(before);
    }
    // The end's own, behind half a megabyte that was lost on the way: both of its numbers are in reach.
    world.put('wan', toHost('FA', seq + 500_000, ack));
    expect(world.router.take('lan')).toHaveLength(1);
    expect(entries()).toBe(before - 1);
  });

  it('a FIN behind data that came another way is believed by what it acknowledges', () => {
    const { world, entries } = carried();
    const before = entries();
    world.put('wan', toHost('FA', 0x60000000 + 0x4000000, 0x10000000 + 1 + 8));
    expect(world.router.take('lan')).toHaveLength(1);
    expect(entries()).toBe(before - 1);
  });

  it('a SYN and a SYN/ACK of one side took a connection out of the engine: a SYN/ACK answers a SYN of the other side', () => {
    const { world, entries } = carried();
    const before = entries();
    world.put('lan', toServer('S', 0x1234567));
    world.drain();
    for (const guess of [toServer('SA', 0x2345678, 0x99), toServer('R', 0x3456789)]) {
      world.put('lan', guess);
      expect(world.router.take('wan')).toEqual([]);
      expect(entries()).toBe(before);
    }
  });

  it('the RST that answers a SYN with new numbers was disbelieved: a server that has lost its state says so (RFC 9293 §3.5.2)', () => {
    const { world } = carried();
    world.put('lan', toServer('S', 0x1234567));
    expect(world.router.take('wan')).toHaveLength(1);
    world.put('wan', toHost('RA', 0, 0x1234568));
    expect(world.router.take('lan')).toHaveLength(1);
  });

  /** The line of the first TCP connection, '' when it is gone. */
  const line = (world: World) => world.router.conntrack.lines().find((text) => /^tcp .* sport=20000 /.test(text)) ?? '';
  const seconds = (world: World, count: number) => {
    for (let second = 0; second < count; second++) world.work(1000);
  };
  const [SEQ, ACK] = [0x60000000 + 1 + 9, 0x10000000 + 1 + 8];

  it.each(['R', 'RA', 'FA'])('one blind %s ended an idle connection that the engine had given back', (flags) => {
    const { world } = carried();
    // A download: then nothing for longer than an entry without a hit stays.
    for (let n = 0; n < 100; n++) world.push('wan', toHost('A', SEQ + 1000 * n, ACK, 1000));
    seconds(world, 60);
    world.drain();
    expect(line(world)).toMatch(/ ESTABLISHED /);
    expect(line(world)).not.toContain('OFFLOAD');
    for (let n = 1; n <= 20; n++) world.put('wan', toHost(flags, 0x1234567 * n, 0x7654321 * n));
    expect(world.router.take('lan')).toEqual([]);
    seconds(world, 130);
    expect(line(world)).toMatch(/ESTABLISHED/);
    // The end's own is believed.
    world.put('wan', toHost(flags, SEQ + 1000 * 100, ACK));
    expect(world.router.take('lan')).toHaveLength(1);
    seconds(world, 130);
    expect(line(world)).toBe('');
  });

  it('one blind segment to a connection that the engine had given back shut out its ends', () => {
    const { world } = carried();
    for (let n = 0; n < 100; n++) world.push('wan', toHost('A', SEQ + 1000 * n, ACK, 1000));
    seconds(world, 60);
    world.drain();
    const before = world.router.conntrack.list().find(({ orig }) => orig.sport === 20000)?.timeout;
    // The engine is off, or it would go on as soon as it sees the connection again.
    world.router.offload.enable('engine', false);
    world.put('wan', toHost('PA', 0x1234567, 0x7654321, 10));
    expect(world.router.take('lan')).toHaveLength(1);
    expect(world.router.conntrack.list().find(({ orig }) => orig.sport === 20000)?.timeout).toBe(before);
    world.put('wan', toHost('PA', SEQ + 1000 * 100, ACK, 10));
    world.put('lan', toServer('A', ACK, SEQ + 1000 * 100 + 10));
    expect(world.router.take('lan')).toHaveLength(1);
    expect(world.router.take('wan')).toHaveLength(1);
    // From here on the windows are known again.
    world.put('wan', toHost('PA', SEQ + 0x3000000, ACK, 10));
    expect(world.router.take('lan')).toEqual([]);
  });

  it('a RST without ACK was believed all over what the engine had carried: now it must be near, or exact', () => {
    const { world } = carried();
    const megabytes = 8;
    for (let n = 0; n < megabytes * 1000; n++) {
      world.push('wan', toHost('A', SEQ + 1000 * n, ACK, 1000));
      if (n % 128 === 127) {
        world.work(0);
        world.drain();
      }
    }
    world.work(1);
    world.drain();
    const end = SEQ + megabytes * 1_000_000;
    for (let n = 2; n < megabytes; n++) world.put('wan', toHost('R', SEQ + n * 1_000_000));
    expect(world.router.take('lan')).toEqual([]);
    seconds(world, 15);
    expect(line(world)).toMatch(/ESTABLISHED/);
    // The end's own: it answers a segment of the host's, which the host sends again when the first RST did not come.
    world.put('wan', toHost('R', end));
    expect(world.router.take('lan')).toEqual([]);
    world.put('lan', toServer('PA', ACK, end));
    world.put('wan', toHost('R', end));
    expect(world.router.take('lan')).toHaveLength(1);
    seconds(world, 15);
    expect(line(world)).toBe('');
  });

  it('FTP bounce: a PORT that names another host opens nothing', () => {
    const world = target();
    const c = { sport: 5000, dport: 21 };
    const s = { sport: 21, dport: 5000 };
    const lan = (o: object, text = '') =>
      world.put('lan', fromLan(ipv4({ src: H.HOST, dst: H.SERVER }, tcp({ ...c, ...o }, text))));
    const wan = (o: object, text = '') =>
      world.put('wan', fromWan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, tcp({ ...s, ...o }, text))));
    lan({ seq: 100, flags: 'S' });
    wan({ seq: 500, ack: 101, flags: 'SA' });
    lan({ seq: 101, ack: 501, flags: 'A' });
    wan({ seq: 501, ack: 101, flags: 'PA' }, '220 ready\r\n');
    lan({ seq: 101, ack: 512, flags: 'PA' }, 'PORT 192,168,1,11,0,22\r\n');
    world.drain();
    world.put(
      'wan',
      fromWan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, tcp({ sport: 20, dport: 22, seq: 1, flags: 'S' }))),
    );
    expect(world.router.take('lan')).toEqual([]);
  });

  it('tuples that collide under one seed spread under another', () => {
    const buckets = 4096;
    const chosen: [number, number, number][] = [];
    const guessed = new ConntrackTable(ConntrackTable.create(buckets, 1), 0);
    const random = new Random(5);
    const key = 17 | (4 << 8);
    while (chosen.length < 500) {
      const [src, dst, ports] = [random.next() | 0, random.next() | 0, random.next() | 0];
      if ((guessed.hash4(src, dst, ports, key) & 511) === 3) chosen.push([src, dst, ports]);
    }
    const other = new ConntrackTable(ConntrackTable.create(buckets, 0x1234567), 0);
    const load = new Map<number, number>();
    for (const [src, dst, ports] of chosen) {
      const at = other.hash4(src, dst, ports, key) & 511;
      load.set(at, (load.get(at) ?? 0) + 1);
    }
    // Five hundred into 512: even chance leaves eight or so in the fullest.
    expect(Math.max(...load.values())).toBeLessThan(12);
  });
});
