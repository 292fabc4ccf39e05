/**
 * A live router whose pool of 64 ports meets 10,000 flows: its counters add up, the flow that stood goes on, and the
 * control plane answers all the while (how fast: `npm run attack -- --answers`).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { labReady } from './need.ts';
import { FLOWS, POOL, type Pressure, press } from './pool-pressure.ts';

describe.skipIf(!labReady(['ping'], { tun: true }))(`${POOL} ports, ${FLOWS} flows, live`, () => {
  let pressure: Pressure;
  beforeAll(async () => {
    pressure = await press();
  });
  afterAll(() => pressure?.live.close());

  it('the control plane answered from beginning to end', () => {
    expect(pressure.answers.length).toBeGreaterThan(1);
  });

  it('the flow that stood was answered throughout', () => {
    expect(pressure.silences).toBe(0);
    expect(pressure.talked).toBeGreaterThan(0);
  });

  it('every flow had a port or was refused, and each refusal was counted', async () => {
    const { live } = pressure;
    const nat = (await live.show('nat')) as {
      pools: { protocol: string; used: number; exhausted: number }[];
      mappings: { outside: { port: number } }[];
      statistics: { created: number };
    };
    const pool = nat.pools.find(({ protocol }) => protocol === 'udp');
    expect(pool?.used).toBe(POOL);
    expect(new Set(nat.mappings.map(({ outside }) => outside.port)).size).toBe(POOL);
    // Every flow, and the two that stood, made a mapping or searched in vain.
    const drops = (await live.show('drops')) as { reason: string; count: number }[];
    expect(drops.find(({ reason }) => reason === 'NAT_EXHAUSTED')?.count).toBe(pool?.exhausted);
    expect(nat.statistics.created + (pool?.exhausted ?? 0)).toBe(FLOWS + 2);
  });
});
