/**
 * A pool of 64 ports under 10,000 flows (2,000 of the profiles that are alike): what does not fit is refused and counted once each, the flows that stand are not
 * disturbed, and the tables give everything back at the end. Every profile; blocks of subscribers too.
 */
import { describe, expect, it } from 'vitest';
import { showNat } from '../../controlplane/show/nat.ts';
import { Random } from '../lib/build.ts';
import { type Endpoint, endpoint, portOf, World } from './nat-world.ts';

const PORTS = 64;
const FLOWS = 10_000;
const S1 = '198.51.100.1:53';
const MAPPED = ['full-cone', 'restricted-cone', 'port-restricted-cone', 'symmetric'];

const poolsOf = (world: World): { address: string; protocol: string; used: number; exhausted: number }[] =>
  (showNat(world.router, {}).json as { pools: never[] }).pools;

/** A router with 64 outside ports, and 32 flows that stand before the pressure begins. */
function pressed(profile: string): { world: World; standing: Map<Endpoint, Endpoint> } {
  const world = new World({ profile, masquerade: [{ out: 'wan', ports: '40000-40063', parity: false }] });
  const standing = new Map<Endpoint, Endpoint>();
  for (let n = 0; n < PORTS / 2; n++) {
    const from = endpoint('192.168.1.10', 5000 + n);
    standing.set(from, world.out(from, S1)!);
  }
  return { world, standing };
}

it.each(['full-cone', 'symmetric'])('%s: half of the connections that conntrack takes found no mapping', (profile) => {
  const world = new World({ profile }, { conntrack: { max: 2048 } });
  let passed = 0;
  for (let n = 0; n < 2048; n++)
    if (world.out(endpoint(`192.168.1.${2 + (n % 50)}`, 2000 + n), '198.51.100.1:53') !== null) passed++;
  expect([passed, world.router.counters.dropped]).toEqual([2048, {}]);
});

describe(`${PORTS} ports, ${FLOWS} flows`, () => {
  it.each(['linux', ...MAPPED])('%s: the counters add up, and those that stand go on', (profile) => {
    const { world, standing } = pressed(profile);
    const random = new Random(11);
    let passed = 0;
    let refused = 0;
    const flows = profile === 'linux' || profile === 'full-cone' ? FLOWS : FLOWS / 5;
    for (let n = 0; n < flows; n++) {
      const from = endpoint(`192.168.1.${random.int(20, 59)}`, 1024 + n);
      const seen = world.out(from, S1);
      if (seen === null) refused++;
      else {
        passed++;
        expect(portOf(seen)).toBeGreaterThanOrEqual(40_000);
        expect(portOf(seen)).toBeLessThanOrEqual(40_063);
      }
      if (n % 500 === 0)
        for (const [inside, outside] of standing) {
          expect(world.out(inside, S1)).toBe(outside);
          expect(world.in(S1, outside)).toBe(inside);
        }
    }
    expect([passed, refused]).toEqual([PORTS / 2, flows - PORTS / 2]);
    expect(world.dropped('NAT_EXHAUSTED')).toBe(refused);
    expect(world.router.conntrack.count).toBe(PORTS);
    const { dropped, forwarded, received, delivered, held } = world.router.counters;
    expect(received).toBe(forwarded + delivered + held + Object.values(dropped).reduce((sum, n) => sum + n, 0));
    if (profile !== 'linux')
      expect(poolsOf(world)).toEqual([{ address: '203.0.113.1', protocol: 'udp', used: PORTS, exhausted: refused }]);
  });

  it.each(MAPPED)('%s: all of it comes back when it is over, and is used again', (profile) => {
    const { world } = pressed(profile);
    for (let n = 0; n < 200; n++) world.out(endpoint('192.168.1.20', 1024 + n), S1);
    world.wait(700);
    expect(world.router.conntrack.count).toBe(0);
    expect(world.router.tables.natMappings.count).toBe(0);
    expect(poolsOf(world)).toMatchObject([{ used: 0 }]);
    const again = new Set<number>();
    for (let n = 0; n < PORTS; n++) again.add(portOf(world.out(endpoint('192.168.1.21', 1024 + n), S1)!));
    expect(again.size).toBe(PORTS);
  });

  it('a subscriber that asks for 10,000 flows out of a block of 64 harms nobody else', () => {
    const entry = {
      out: 'wan',
      from: '100.64.0.0/24',
      to: '198.18.0.0',
      ports: '1024-5119',
      blocks: { size: 64, max: 1 },
    };
    const world = new World({ profile: 'full-cone', masquerade: [entry] }, { conntrack: { max: 65536 } });
    const neighbour = world.out('100.64.0.9:4000', S1)!;
    let passed = 0;
    for (let n = 0; n < FLOWS; n++) if (world.out(endpoint('100.64.0.7', 1024 + n), S1) !== null) passed++;
    expect(passed).toBe(64);
    expect(world.dropped('NAT_EXHAUSTED')).toBe(FLOWS - 64);
    expect(world.in('192.0.2.77:7', neighbour)).toBe('100.64.0.9:4000');
    expect(world.out('100.64.0.8:4000', S1)).not.toBeNull();
    const { subscribers } = showNat(world.router, {}).json as { subscribers: { inside: string; refused: number }[] };
    expect(subscribers.find(({ inside }) => inside === '100.64.0.7')).toMatchObject({ refused: FLOWS - 64 });
  });
});
