/** The same frames into the Linux kernel and into Sluice: every byte that leaves is equal, or the difference has a name. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRouter } from '../../controlplane/index.ts';
import { KernelPlayer } from './differential/kernel.ts';
import { differ } from './differential/run.ts';
import { configOf, type Scenario } from './differential/scenario.ts';
import { randomScenario, SCENARIOS } from './differential/scenarios.ts';
import { labReady } from './need.ts';

describe.skipIf(!labReady(['nft', 'conntrack', 'ethtool']))('kernel and Sluice', () => {
  const players: KernelPlayer[] = [];
  beforeAll(() => {
    players.push(new KernelPlayer(configOf({})), new KernelPlayer(configOf({ wanMtu: 1400 })));
  });
  afterAll(() => {
    for (const p of players) p.close();
  });

  const run = (scenario: Scenario) => {
    const player = players.find((p) => p.router.accepts(configOf(scenario.topology)));
    if (!player) throw new Error(`no kernel router for "${scenario.name}"`);
    return differ(player, createRouter, scenario);
  };

  for (const scenario of SCENARIOS) it(scenario.name, () => expect(run(scenario)).toBeNull());

  it('three hundred random conversations', () => {
    for (let seed = 1; seed <= 300; seed++) expect(run(randomScenario(seed))).toBeNull();
  });
});
