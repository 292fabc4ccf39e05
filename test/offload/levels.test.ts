/**
 * What the engine has beside the plain flow: two stacked levels (row O12), multicast entries (O9), ESP and GRE (O10),
 * switches and bad input, and what people see of it.
 */
import { describe, expect, test } from 'vitest';
import { MismatchCapture } from '../../controlplane/mismatches.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { showOffload } from '../../controlplane/show/offload.ts';
import { CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { FAULT_MAC } from '../../dataplane/shadow.ts';
import { FlowTable } from '../../offload/table.ts';
import { concat, ethernet, ipv4, ipv6, Random, toHex, u32, udp, verify } from '../lib/build.ts';
import {
  engineCounter,
  GATE_MAC,
  HOST,
  HOST2,
  hits,
  MACS,
  macOf,
  SERVER,
  to,
  WAN,
  World,
  worldConfig,
} from './world.ts';

function flow(r: Router, sport: number, rounds = 2): void {
  for (let n = 0; n < rounds; n++) {
    r.inject('lan', to('lan', ipv4({ src: HOST, dst: SERVER }, udp({ sport, dport: 4000 }, 'q')), macOf(HOST)));
    r.inject('wan', to('wan', ipv4({ src: SERVER, dst: WAN }, udp({ sport: 4000, dport: sport }, 'a'))));
  }
}

describe('two stacked engines', () => {
  const make = () => createRouter(worldConfig({ offload: { mode: 'on', entries: 8, 'flow-cache': { entries: 64 } } }));

  test('what the hardware has no room for is in the flow cache; each has its size and counters', () => {
    const r = make();
    for (let sport = 1; sport <= 10; sport++) flow(r, sport);
    expect([r.tables.flows!.capacity, r.tables.flows!.count]).toEqual([8, 8]);
    expect([r.tables.cachedFlows!.capacity, r.tables.cachedFlows!.count]).toEqual([64, 12]);
    const before = [engineCounter(r, 'hits'), engineCounter(r, 'flow-cache-hits')];
    for (let sport = 1; sport <= 10; sport++) flow(r, sport, 1);
    expect(engineCounter(r, 'hits') - before[0]).toBe(8);
    expect(engineCounter(r, 'flow-cache-hits') - before[1]).toBe(12);
  });

  test('each can be switched off while packets flow; counts stay right', () => {
    const r = make();
    flow(r, 1, 5);
    r.offload.enable('engine', false);
    expect([r.offload.enabled('engine'), r.offload.enabled('flow-cache')]).toEqual([false, true]);
    const cached = engineCounter(r, 'flow-cache-hits');
    const hardware = engineCounter(r, 'hits');
    flow(r, 1, 5);
    expect(engineCounter(r, 'hits')).toBe(hardware);
    expect(engineCounter(r, 'flow-cache-hits') - cached).toBeGreaterThanOrEqual(7);
    r.offload.enable('flow-cache', false);
    const all = hits(r);
    flow(r, 1, 5);
    expect(hits(r)).toBe(all);
    r.offload.enable('engine', true);
    r.offload.enable('flow-cache', true);
    flow(r, 1, 5);
    expect(hits(r)).toBeGreaterThan(all + 7);
    expect(r.conntrack.lines()[0]).toMatch(/packets=20 .*packets=20 /);
  });
});

describe('multicast entries', () => {
  const group = '239.1.2.3';
  const make = (mode = 'on') => {
    const r = createRouter(worldConfig({ offload: { mode } }));
    r.offload.programMulticast({ port: 'wan', source: SERVER, group, to: ['lan', 'dmz'] });
    r.offload.programMulticast({ port: 'wan', group: 'ff0e::101', to: ['lan'] });
    return r;
  };
  const send = (r: Router, packet: Uint8Array, dst = '01:00:5e:01:02:03', port: 'wan' | 'lan' = 'wan') =>
    r.inject(port, ethernet({ src: GATE_MAC, dst }, packet));
  const stream = (o: object = {}) =>
    ipv4({ src: SERVER, dst: group, ttl: 9, ...o }, udp({ sport: 1, dport: 5004 }, 'video!'));

  test.each(['on', 'verify'])('one frame in, one out of every egress port: group MAC, TTL, checksum (%s)', (mode) => {
    const r = make(mode);
    send(r, stream());
    for (const port of ['lan', 'dmz'] as const) {
      const frames = r.take(port);
      expect(frames.length, port).toBe(1);
      expect(toHex(frames[0])).toBe(toHex(ethernet({ src: MACS[port], dst: '01:00:5e:01:02:03' }, stream({ ttl: 8 }))));
      expect(verify(frames[0])).toEqual([]);
    }
    expect(r.take('wan')).toEqual([]);
    expect(r.take('alt')).toEqual([]);
    expect(engineCounter(r, 'multicast-hits')).toBe(1);
    expect(r.counters).toMatchObject({ received: 1, forwarded: 1, offload: { mismatches: 0 } });
    expect(r.frames.freeSmallCount).toBe(2048);
  });

  test('IPv6, from any source', () => {
    const r = make();
    const packet = (hop: number) =>
      ipv6({ src: '2001:db8:7::7', dst: 'ff0e::101', hop }, udp({ sport: 1, dport: 2 }, 'x'));
    send(r, packet(64), '33:33:00:00:01:01');
    expect(r.take('lan').map(toHex)).toEqual([
      toHex(ethernet({ src: MACS.lan, dst: '33:33:00:00:01:01' }, packet(63))),
    ]);
  });

  test('a port that is down gets no copy; the others do', () => {
    const r = make();
    r.setLink('lan', false);
    send(r, stream());
    expect([r.take('lan').length, r.take('dmz').length]).toEqual([0, 1]);
    r.setLink('dmz', false);
    send(r, stream());
    expect(r.frames.freeSmallCount).toBe(2048);
  });

  test.each([
    ['TTL 1', stream({ ttl: 1 }), '01:00:5e:01:02:03', 'wan'],
    ['a fragment', stream({ more: true }), '01:00:5e:01:02:03', 'wan'],
    ['a wrong header checksum', stream({ checksum: 7 }), '01:00:5e:01:02:03', 'wan'],
    ['options', stream({ options: Uint8Array.of(0x94, 4, 0, 0) }), '01:00:5e:01:02:03', 'wan'],
    ['another source', stream({ src: '198.51.100.8' }), '01:00:5e:01:02:03', 'wan'],
    ['another port', stream(), '01:00:5e:01:02:03', 'lan'],
    ['a unicast MAC', stream(), MACS.wan, 'wan'],
    ['a link-local group', stream({ dst: '224.0.0.5' }), '01:00:5e:00:00:05', 'wan'],
  ] as const)('not for %s', (_, packet, dst, port) => {
    const r = make();
    send(r, packet, dst, port);
    expect([r.take('dmz').length, engineCounter(r, 'multicast-hits')]).toEqual([0, 0]);
  });

  test('changed, removed, refused', () => {
    const r = make();
    r.offload.programMulticast({ port: 'wan', source: SERVER, group, to: ['alt'] });
    send(r, stream());
    expect([r.take('lan').length, r.take('alt').length]).toEqual([0, 1]);
    expect(r.offload.removeMulticast({ port: 'wan', source: SERVER, group })).toBe(true);
    expect(r.offload.removeMulticast({ port: 'wan', source: SERVER, group })).toBe(false);
    send(r, stream());
    expect(r.take('alt')).toEqual([]);
    expect(() => r.offload.programMulticast({ port: 'wan', group: '10.0.0.1', to: ['lan'] })).toThrow(
      'group: expected a multicast address, got "10.0.0.1"',
    );
    expect(() => r.offload.programMulticast({ port: 'van', group, to: [] })).toThrow('port: expected one of lan, wan');
    expect(() => r.offload.programMulticast({ port: 'wan', group, to: ['wan'] })).toThrow('to: expected ports other');
    expect(() => r.offload.programMulticast({ port: 'wan', group, source: '::1', to: ['lan'] })).toThrow(
      'source: expected an IPv4 address, got "::1"',
    );
    for (let n = 0; n < 255; n++) r.offload.programMulticast({ port: 'wan', group: `239.9.0.${n}`, to: ['lan'] });
    expect(() => r.offload.programMulticast({ port: 'wan', group: '239.9.9.9', to: ['lan'] })).toThrow('at most 256');
  });
});

describe('protocols without ports', () => {
  const esp = (src: string, dst: string, spi: number) =>
    ipv4({ src, dst, proto: 50 }, concat(u32(spi), u32(1), new Random(spi).bytes(40)));

  test('ESP is keyed by SPI; after rekeying the old SPI has no entry any more', () => {
    const world = new World();
    // Routed, not translated: one connection for all SPIs.
    const round = (a: number, b: number) => {
      world.frame('lan', esp(HOST, '10.9.0.20', a), macOf(HOST));
      world.frame('dmz', esp('10.9.0.20', HOST, b), macOf('10.9.0.20'));
    };
    for (let n = 0; n < 3; n++) round(0x1001, 0x2001);
    expect(hits(world.on)).toBe(3);
    expect(world.on.tables.flows!.count).toBe(2);
    for (let n = 0; n < 3; n++) round(0x1002, 0x2002);
    expect(world.on.tables.flows!.count).toBe(2);
    expect(hits(world.on)).toBe(7);
    world.all((router) => router.path.tracker.end(0));
    expect(world.on.tables.flows!.count).toBe(0);
  });

  test('translated ESP: two hosts with one gateway, each by its own SPIs; old ones leave when they are idle', () => {
    const world = new World();
    const round = (host: string, a: number, b: number) => {
      const [sent] = world.frame('lan', esp(host, SERVER, a), macOf(host));
      expect(sent.port).toBe('wan');
      const [back] = world.frame('wan', esp(SERVER, WAN, b));
      expect(Buffer.from(back.frame.frame.subarray(30, 34)).join('.')).toBe(host);
    };
    for (let n = 0; n < 3; n++) {
      round(HOST, 0x1001, 0x2001);
      round(HOST2, 0x1002, 0x2002);
    }
    expect(hits(world.on)).toBe(6);
    expect(world.on.tables.flows!.count).toBe(4);
    for (let n = 0; n < 40; n++) {
      round(HOST, 0x1003, 0x2003);
      round(HOST2, 0x1002, 0x2002);
      world.advance(1000);
    }
    expect(world.on.tables.flows!.count).toBe(4);
    expect(hits(world.on)).toBe(6 + 77 + 80);
    expect(world.mismatches).toEqual([]);
  });

  test('GRE version 1 is never in the engine: a call ID names the receiver only, and calls may share one', () => {
    const r = createRouter(worldConfig({ offload: { mode: 'on' }, nat: {} }));
    for (let n = 0; n < 5; n++) {
      r.inject('lan', to('lan', ipv4({ src: HOST, dst: SERVER, proto: 47 }, gre0()), macOf(HOST)));
      r.inject('lan', to('lan', ipv4({ src: HOST2, dst: SERVER, proto: 47 }, gre0()), macOf(HOST2)));
      r.inject('wan', to('wan', ipv4({ src: SERVER, dst: HOST, proto: 47 }, gre0())));
    }
    expect(r.tables.flows!.count).toBe(0);
    expect(hits(r)).toBe(0);
  });

  const gre0 = () => concat(Uint8Array.of(0, 0, 8, 0), new Uint8Array(30));
});

describe('bad input', () => {
  test('0 entries mean off, with a note', () => {
    const r = createRouter(worldConfig({ offload: { entries: 0 } }));
    expect(r.tables.flows).toBeNull();
    expect(r.config.warnings.join()).toContain('a table of 0 entries means mode off');
    flow(r, 1, 3);
    expect(r.take('wan').length).toBe(3);
  });

  test('another seed is another order of the table', () => {
    const places = [1, 2].map((seed) => {
      const table = new FlowTable(FlowTable.create(1024), seed);
      return [1, 2, 3, 4, 5, 6].map((n) => table.home4(n, 7, 8, 9)).join();
    });
    expect(places[0]).not.toBe(places[1]);
  });
});

describe('what people see', () => {
  test('show offload: entries, priorities, counters, flushes by cause, and why a flow is not accelerated', () => {
    const r = createRouter(worldConfig({ offload: { mode: 'on', entries: 64 } }));
    flow(r, 5000, 3);
    flow(r, 5001, 1);
    r.inject('lan', to('lan', ipv4({ src: HOST2, dst: SERVER }, udp({ sport: 9, dport: 9 }, 'q')), macOf(HOST2)));
    r.offload.flush();
    r.offload.programMulticast({ port: 'wan', group: '239.1.2.3', to: ['lan', 'dmz'] });
    const shown = showOffload({ tables: r.tables, control: r.control, config: r.config }, {});
    const json = shown.json as {
      flows: { action: { src: string }; priority: string; packets: number; stale: boolean }[];
      counters: Record<string, number>;
      flushes: Record<string, number>;
      not_offloaded: { reason: string; connections: number }[];
      multicast: { in: string; group: string; out: string[] }[];
    };
    expect(json.flows.length).toBe(3);
    expect(json.flows[0]).toMatchObject({ priority: 'default', stale: true });
    expect(json.counters.hits).toBeGreaterThan(2);
    expect(json.flushes.filter).toBeGreaterThan(0);
    expect(json.not_offloaded).toContainEqual({
      reason: 'no packet of the reply direction was seen yet',
      connections: 1,
    });
    expect(json.multicast).toEqual([
      { family: 'inet', in: 'wan', src: null, group: '239.1.2.3', out: ['lan', 'dmz'], packets: 0, bytes: 0 },
    ]);
    expect(shown.text).toMatch(/^mode on, engine emulated$/m);
    expect(shown.text).toMatch(/flushes: .*filter \d/);
    expect(shown.text).toMatch(/priority=default/);
    expect(shown.text).toContain('not accelerated: 1 no packet of the reply direction was seen yet');
    expect(() => showOffload({ tables: r.tables, control: r.control, config: r.config }, { colour: 'red' })).toThrow(
      RangeError,
    );
  });

  test('[OFFLOAD] in show conntrack, as the kernel prints it', () => {
    const r = createRouter(worldConfig({ offload: { mode: 'on' } }));
    flow(r, 5000, 3);
    expect(r.conntrack.lines()[0]).toMatch(/^udp +17 src=192\.168\.1\.10 .*\[OFFLOAD\]/);
  });

  test('every mismatch of verify mode is in a pcapng, with both frames and what differs', () => {
    const capture = new MismatchCapture(null);
    const r = createRouter(worldConfig({ offload: { mode: 'verify' } }), {
      engineFault: FAULT_MAC,
      mismatch: capture.write,
    });
    r.advance(1500);
    flow(r, 5000, 3);
    capture.close();
    const count = r.counters.offload.mismatches;
    expect(count).toBeGreaterThan(2);
    const bytes = capture.bytes();
    const frames: Uint8Array[] = [];
    const reader = CaptureReader.fromBytes('memory', bytes);
    while (reader.next()) frames.push(reader.data.slice(reader.offset, reader.offset + reader.capturedLength));
    expect(frames.length).toBe(2 * count);
    expect(frames[0].length).toBe(frames[1].length);
    expect(frames[0].findIndex((byte, n) => byte !== frames[1][n])).toBeLessThan(6);
    expect(new TextDecoder('latin1').decode(bytes)).toContain('offload mismatch: byte ');
  });
});
