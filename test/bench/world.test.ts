/** The world of the in-memory workloads is what it says: right frames, every packet forwarded, faults noticed. */
import { describe, expect, it } from 'vitest';
import { fresh } from '../../bench/memory.ts';
import { type SendTask, writeFrame } from '../../bench/sender.ts';
import type { MasterPort } from '../../bench/traffic.ts';
import { openWorld, Station, type WorldOptions } from '../../bench/world.ts';
import { verify } from '../lib/verify.ts';

const OPTIONS: WorldOptions = { family: 4, flows: 700, engine: true, workers: 1, huge: false };

function station(options: WorldOptions): Station {
  return new Station(openWorld(options).buffers, options);
}

/** The n-th frame of a master. */
function frameOf(port: MasterPort, n: number): Uint8Array {
  return port.bytes.slice(n * 64 + 2, n * 64 + 2 + port.length);
}

describe('the world in memory', () => {
  it.each([4, 6] as const)('IPv%d: every master frame is right, and every one that leaves', (family) => {
    const world = station({ ...OPTIONS, family });
    for (const port of [world.lan, world.wan])
      for (let n = 0; n < 700; n += 7) expect(verify(frameOf(port, n))).toEqual([]);
    world.establish();
    world.verify();
    for (const port of [world.lan, world.wan]) expect(verify(Uint8Array.from(port.last()))).toEqual([]);
  });

  it('translates what leaves wan, and gives lan its own addresses back', () => {
    const world = station(OPTIONS);
    world.establish();
    expect([...world.wan.last().subarray(26, 30)]).toEqual([203, 0, 113, 1]);
    expect(world.lan.last()[30]).toBe(10);
  });

  it('runs both directions in any order of flows, all of them hits', () => {
    const world = station(OPTIONS);
    world.establish();
    world.shuffle();
    const hits = world.hits;
    const { packets } = world.run(20);
    expect(packets).toBeGreaterThan(0);
    expect(world.hits - hits).toBe(packets);
    world.verify();
  });

  it('notices a packet that the engine did not carry', () => {
    const world = station(OPTIONS);
    world.establish();
    world.lan.bytes[2 + 14 + 8] = 1; // the first flow's TTL
    expect(() => world.run(20)).toThrow(/expected \d+ (hits|frames to leave)/);
  });

  it('notices a flow that is not there', () => {
    const world = station({ ...OPTIONS, engine: false });
    expect(() => world.verify()).toThrow('expected 700 connections, got 0');
    // Replies first: nobody has asked for them.
    expect(() => world.round(world.wan)).toThrow('expected 700 frames to leave lan, got 0');
  });

  it('a shuffle changes the order and nothing else', () => {
    const port = station(OPTIONS).lan;
    const text = (n: number): string => frameOf(port, n).join();
    const before = Array.from({ length: 700 }, (_, n) => text(n));
    port.shuffle(7);
    const after = Array.from({ length: 700 }, (_, n) => text(n));
    expect(after).not.toEqual(before);
    expect(after.sort()).toEqual(before.sort());
  });

  it('new connections are as many as there are flows, in either order', () => {
    const { random, sequence } = fresh({ flows: 3000, huge: false });
    expect(random[0]).toBeGreaterThan(0);
    expect(sequence[0]).toBeGreaterThan(0);
  });
});

describe('the generator', () => {
  it.each([60, 590, 1514])('makes right frames of %d bytes', (length) => {
    const task: SendTask = {
      device: '',
      dstMac: [2, 0, 0, 0, 1, 1],
      srcMac: [2, 0, 0, 0, 0, 0x10],
      src: [10, 77, 1, 10],
      dst: [198, 18, 0, 1],
      srcPort: 2048,
      dstPort: 4433,
      vary: 'src',
      flows: 1024,
      lengths: [60],
      seconds: 1,
      rate: 0,
      count: 0,
    };
    for (const flow of [0, 1, 1023]) {
      const bytes = new Uint8Array(2000).fill(0xee);
      writeFrame(bytes, 100, length, task, flow);
      const frame = bytes.slice(100, 100 + length);
      expect(verify(frame)).toEqual([]);
      expect((frame[34] << 8) | frame[35]).toBe(2048 + flow);
      expect(bytes[100 + length]).toBe(0xee);
    }
  });
});
