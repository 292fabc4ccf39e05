/**
 * Exceptions and re-entry (row O8): what an engine must leave to the slow path, each with its counter, and TCP's window
 * after the engine gives a connection back (trap 2). Row O14: a mirror on any port changes nothing.
 */
import { describe, expect, test } from 'vitest';
import { createRouter } from '../../controlplane/router.ts';
import { CaptureClock, CaptureWriter } from '../../dataplane/ports/capture-writer.ts';
import { MirrorPort } from '../../dataplane/ports/mirror.ts';
import { ethernet, type Ipv4Options, ipv4, tcp, toHex, udp } from '../lib/build.ts';
import { engineCounter, HOST, hits, MACS, macOf, SERVER, to, WAN, World, worldConfig } from './world.ts';

const c = { sport: 5000, dport: 443 };
const s = { sport: 443, dport: 5000 };
type Tcp = Parameters<typeof tcp>[0];

const out = (o: Partial<Tcp>, payload = '', header: Partial<Ipv4Options> = {}) =>
  ipv4({ src: HOST, dst: SERVER, ...header }, tcp({ ...c, win: 8000, ...o }, payload));
const back = (o: Partial<Tcp>, payload = '', header: Partial<Ipv4Options> = {}) =>
  ipv4({ src: SERVER, dst: WAN, ...header }, tcp({ ...s, win: 8000, ...o }, payload));

/** A connection that the engine carries: 100 segments of 100 bytes each way. Next numbers: 10002 and 10002. */
function connected(options = {}): World {
  const world = new World({}, {}, options);
  world.frame('lan', out({ seq: 1, flags: 'S', win: 8000 }), macOf(HOST));
  world.frame('wan', back({ seq: 1, ack: 2, flags: 'SA', win: 8000 }));
  world.frame('lan', out({ seq: 2, ack: 2 }), macOf(HOST));
  for (let n = 0; n < 100; n++) {
    world.frame('lan', out({ seq: 2 + 100 * n, ack: 2 + 100 * n }, 'x'.repeat(100)), macOf(HOST));
    world.frame('wan', back({ seq: 2 + 100 * n, ack: 102 + 100 * n }, 'y'.repeat(100)));
    world.advance(20);
  }
  world.frame('lan', out({ seq: 10002, ack: 10002 }), macOf(HOST));
  expect(hits(world.on)).toBeGreaterThan(190);
  return world;
}

describe('left to the slow path', () => {
  const exceptions: [
    string,
    Parameters<typeof engineCounter>[1],
    (o: { seq: number; ack: number }) => Uint8Array,
    number,
  ][] = [
    ['FIN', 'tcp-flags', (o) => to('lan', out({ ...o, flags: 'FA' }), macOf(HOST)), 1],
    ['RST', 'tcp-flags', (o) => to('lan', out({ ...o, flags: 'RA' }), macOf(HOST)), 1],
    ['SYN', 'tcp-flags', (o) => to('lan', out({ ...o, flags: 'S', ack: 0 }), macOf(HOST)), 1],
    ['TTL 1: Time Exceeded', 'ttl', (o) => to('lan', out(o, 'x', { ttl: 1 }), macOf(HOST)), 1],
    ['options', 'miss', (o) => to('lan', out(o, 'x', { options: Uint8Array.of(1, 1, 1, 0) }), macOf(HOST)), 1],
    ['a wrong header checksum', 'checksum', (o) => to('lan', out(o, 'x', { checksum: 1 }), macOf(HOST)), 0],
    ['a wrong TCP checksum', 'checksum', (o) => to('lan', out({ ...o, checksum: 1 }, 'x'), macOf(HOST)), 0],
    ['a length beyond the frame', 'length', (o) => to('lan', out(o, 'x', { totalLength: 900 }), macOf(HOST)), 0],
    ['a data offset beyond the packet', 'length', (o) => to('lan', out({ ...o, dataOffset: 15 }, 'x'), macOf(HOST)), 0],
    [
      'a frame for another station',
      'mac',
      (o) => ethernet({ src: macOf(HOST), dst: '02:99:99:99:99:99' }, out(o, 'x')),
      0,
    ],
    [
      'a frame from a group address',
      'mac',
      (o) => ethernet({ src: '03:00:00:00:00:10', dst: MACS.lan }, out(o, 'x')),
      0,
    ],
  ];
  test.each(exceptions)('%s', (_, counter, build, leaves) => {
    const world = connected();
    const before = engineCounter(world.on, counter);
    const frame = build({ seq: 10002, ack: 10002 });
    expect(world.send([{ port: 'lan', frame }]).length).toBe(leaves);
    expect(engineCounter(world.on, counter)).toBe(before + 1);
  });

  test('more than the egress MTU: told or cut by the slow path', () => {
    const small = worldConfig();
    (small.ports as Record<string, { mtu?: number }>).wan.mtu = 1300;
    const world = new World({ ports: small.ports });
    const sent = (n: number, df: boolean) =>
      ipv4({ src: HOST, dst: SERVER, df, id: 9 }, udp({ sport: 5000, dport: 4000 }, 'x'.repeat(n)));
    world.frame('lan', sent(10, true), macOf(HOST));
    world.frame('wan', ipv4({ src: SERVER, dst: WAN }, udp({ sport: 4000, dport: 5000 }, 'a')));
    world.frame('lan', sent(10, true), macOf(HOST));
    world.frame('lan', sent(1272, true), macOf(HOST));
    expect(engineCounter(world.on, 'mtu')).toBe(0);
    const [error] = world.frame('lan', sent(1273, true), macOf(HOST));
    expect(engineCounter(world.on, 'mtu')).toBe(1);
    expect([error.port, error.frame.frame[34], error.frame.frame[35]]).toEqual(['lan', 3, 4]);
  });

  test('frames from a port with a source filter (and from VLANs) take the slow path, and say so', () => {
    const config = worldConfig({ offload: { mode: 'on' } });
    (config.ports as Record<string, Record<string, unknown>>).lan.sources = [macOf(HOST)];
    const router = createRouter(config);
    for (let n = 0; n < 4; n++) {
      router.inject('lan', to('lan', ipv4({ src: HOST, dst: SERVER }, udp({ sport: 1, dport: 2 }, 'x')), macOf(HOST)));
      router.inject('wan', to('wan', ipv4({ src: SERVER, dst: WAN }, udp({ sport: 2, dport: 1 }, 'x'))));
    }
    // From the WAN side the flow is accelerated: its second to fourth answers.
    expect(hits(router)).toBe(3);
    expect(engineCounter(router, 'miss')).toBe(1);
    router.inject('lan', to('lan', ipv4({ src: HOST, dst: SERVER }, udp({ sport: 1, dport: 2 }, 'x')), macOf(HOST)));
    expect(router.tables.conntrack.words[44] >>> 24).toBe(11);
  });
});

describe('TCP comes back from the engine', () => {
  test('the FIN handshake passes, far from where the tracker last looked', () => {
    const world = connected();
    const [fin] = world.frame('lan', out({ seq: 10002, ack: 10002, flags: 'FA' }), macOf(HOST));
    expect(fin.port).toBe('wan');
    expect(world.on.tables.flows!.count).toBe(0);
    expect(world.frame('wan', back({ seq: 10002, ack: 10003, flags: 'FA' })).length).toBe(1);
    expect(world.frame('lan', out({ seq: 10003, ack: 10003 }), macOf(HOST)).length).toBe(1);
    const [off, on, verify] = world.connections();
    expect(on).toEqual(off);
    expect(verify).toEqual(off);
    expect(off[0]).toContain('TIME_WAIT');
  });

  test('a blind RST outside the window is refused again, once the window is learned', () => {
    const world = connected();
    // The engine gives the connection back: 31 seconds of silence.
    world.advance(31_000);
    expect(world.on.tables.flows!.count).toBe(0);
    // The ends go on; their windows are learned from one segment each.
    const { on } = world;
    on.offload.enable('engine', false);
    on.inject('lan', to('lan', out({ seq: 10002, ack: 10002 }, 'z'), macOf(HOST)));
    on.inject('wan', to('wan', back({ seq: 10002, ack: 10003 }, 'z')));
    on.inject('lan', to('lan', out({ seq: 10003, ack: 10003 }), macOf(HOST)));
    expect([on.take('wan').length, on.take('lan').length]).toEqual([2, 1]);
    for (const seq of [9000, 10003 + 30_000, 10003 - 70_000, 0x7fffffff]) {
      on.inject('wan', to('wan', back({ seq: seq >>> 0, ack: 10003, flags: 'RA' })));
      on.inject('wan', to('wan', back({ seq: seq >>> 0, ack: 0, flags: 'R' })));
    }
    expect(on.take('lan')).toEqual([]);
    expect(on.counters.dropped.CT_INVALID).toBe(8);
    // Data outside the window is refused as well: the check was not left off.
    on.inject('wan', to('wan', back({ seq: 10003 + 200_000, ack: 10003 }, 'evil')));
    expect(on.take('lan')).toEqual([]);
    on.inject('wan', to('wan', back({ seq: 10003, ack: 10003 }, 'good')));
    expect(on.take('lan').length).toBe(1);
    expect(on.conntrack.lines()[0]).toContain('ESTABLISHED');
  });

  test('idle for longer than the engine keeps it: the connection is conntrack’s again, with its own timeout', () => {
    const world = connected();
    expect(world.on.conntrack.lines()[0]).toContain('[OFFLOAD]');
    world.advance(31_000);
    const [off, on] = world.connections();
    expect(on[0]).not.toContain('[OFFLOAD]');
    expect(on).toEqual(off);
  });
});

test('a mirror on every port: the same frames with the engine off, on and in verify mode (O14)', () => {
  const plain = connected();
  const writer = new CaptureWriter(null, { format: 'pcapng' });
  const mirrored = connected({
    port: (_: string, __: number, inner: import('../../dataplane/ports/memory.ts').MemoryPort) =>
      new MirrorPort(inner, writer, { clock: CaptureClock.wall() }),
  });
  expect(mirrored.left).toBe(plain.left);
  expect(hits(mirrored.on)).toBe(hits(plain.on));
  expect(mirrored.mismatches).toEqual([]);
  expect(writer.frames).toBeGreaterThan(3 * 2 * 200);
  const last = to('lan', out({ seq: 10002, ack: 10002 }, 'last'), macOf(HOST));
  const bytes = [plain, mirrored].map((world) => toHex(world.send([{ port: 'lan', frame: last }])[0].frame.frame));
  expect(bytes[0]).toBe(bytes[1]);
});
