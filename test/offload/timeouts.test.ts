/**
 * Counters and timeouts while the engine carries a connection (row O7): the same as the slow path's, at every moment.
 */
import { describe, expect, test } from 'vitest';
import { ipv4, udp } from '../lib/build.ts';
import { accounts, HOST, hits, macOf, SERVER, WAN, World } from './world.ts';

const query = () => ipv4({ src: HOST, dst: SERVER }, udp({ sport: 5000, dport: 4000 }, 'q'));
const answer = () => ipv4({ src: SERVER, dst: WAN }, udp({ sport: 4000, dport: 5000 }, 'longer'));

function same(world: World): void {
  const [off, on, verify] = world.routers.map(accounts);
  expect(on).toEqual(off);
  expect(verify).toEqual(off);
}

describe.each([
  ['at once', {}],
  ['after 15 ms', { latency: 15 }],
  ['in the flow cache', { entries: 1, 'flow-cache': { entries: 16 } }],
])('programmed %s', (_, engine) => {
  test('packets, bytes and deadlines agree at every step; a stream begins two seconds after the first packet', () => {
    const world = new World({}, engine);
    for (let n = 0; n < 40; n++) {
      world.frame('lan', query(), macOf(HOST));
      if (n % 3 !== 0) world.frame('wan', answer());
      world.advance(n % 7 === 0 ? 1 : 99);
      if (n % 5 === 0) world.all((router) => router.offload.flush());
      same(world);
    }
    expect(hits(world.on)).toBeGreaterThan(30);
  });

  test.each([
    [1989, 29_000],
    [1999, 31_000],
    [2001, 31_000],
    [2001, 119_000],
    [2001, 121_000],
  ])('the last packet after %d ms, then silence for %d ms', (last, silence) => {
    const world = new World({}, engine);
    world.frame('lan', query(), macOf(HOST));
    world.frame('wan', answer());
    world.advance(20);
    world.frame('lan', query(), macOf(HOST));
    world.frame('wan', answer());
    world.advance(last - 40);
    // A flush just before: with a latency, the entry is renewed after its last packet.
    world.frame('wan', answer());
    world.all((router) => router.offload.flush());
    world.advance(20);
    world.frame('wan', answer());
    world.advance(silence);
    same(world);
    expect(accounts(world.off).size).toBe(silence < (last > 2000 ? 120_000 : 30_000) ? 1 : 0);
    // And whoever comes in then is treated alike.
    world.frame('wan', answer());
    same(world);
  });
});
