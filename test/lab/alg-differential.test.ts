/** The kernel's helpers and Sluice's on the same frames: every byte equal, or the difference is listed with its reason. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRouter } from '../../controlplane/index.ts';
import { ALG_SCENARIOS, DIFFERENT } from './differential/alg-scenarios.ts';
import { KernelPlayer } from './differential/kernel.ts';
import { differ } from './differential/run.ts';
import { configOf, playInline } from './differential/scenario.ts';
import { labReady } from './need.ts';

describe.skipIf(!labReady(['nft', 'conntrack', 'ethtool']))('helpers of the kernel and of Sluice', () => {
  let player: KernelPlayer;
  beforeAll(() => {
    player = new KernelPlayer(configOf({}));
  });
  afterAll(() => player.close());

  for (const scenario of ALG_SCENARIOS)
    it(scenario.name, () => expect(differ(player, createRouter, scenario)).toBeNull());

  for (const { scenario, why } of DIFFERENT)
    it(`${scenario.name}: ${why}`, () => expect(differ(player, createRouter, scenario)).not.toBeNull());

  it('show expect prints what conntrack -L expect prints', () => {
    const named = (name: string) => {
      const found = ALG_SCENARIOS.find((scenario) => scenario.name === name);
      if (!found) throw new Error(`no scenario "${name}"`);
      return found;
    };
    for (const name of [
      'FTP: the server behind a port forward connects out for PORT',
      'FTP: IPv6, EPRT and EPSV',
      'PPTP: two clients with one Call ID towards one server',
      'TFTP: read and write, the transfer from another port, somebody else',
      'SIP: two media, the second refused by the other end',
      'SIP: registration and a call from the registrar',
      'IRC: DCC CHAT',
    ]) {
      const { topology, frames } = named(name);
      // What follows the announcement would use it up.
      const announced = frames.slice(0, /^(TFTP|SIP)/.test(name) ? 1 : 8);
      const config = configOf(topology);
      player.configure(config);
      player.play(announced);
      const router = createRouter({ ...config, conntrack: { max: 4096 } });
      playInline(router, ['lan', 'wan'], announced);
      // Seconds pass for the kernel only; the order is the hash's there.
      const lines = (text: string) =>
        text
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => line.replace(/^\d+/, 'N').trim())
          .sort();
      const { lab, ns } = player.router;
      const kernel = ['ipv4', 'ipv6']
        .map((f) => lab.runSync(ns, 'conntrack', ['-L', 'expect', '-f', f]).stdout)
        .join('\n');
      const ours = lines(router.expectations.lines().join('\n'));
      expect(ours.length, name).toBeGreaterThan(0);
      expect(ours, name).toEqual(lines(kernel));
    }
  });
});
