/** One scenario through both routers, and what differs. */

import type { RouterConfig } from '../kernel/ruleset.ts';
import { type CompareOptions, compare } from './compare.ts';
import type { KernelPlayer } from './kernel.ts';
import { configOf, type InlineRouter, playInline, type Scenario } from './scenario.ts';

/**
 * Null when Sluice sent what the kernel sent; else the first difference as text. `create` makes a fresh Sluice for the
 * configuration (`createRouter`). `player` must accept the scenario's ports (`player.router.accepts`).
 */
export function differ(
  player: KernelPlayer,
  create: (config: RouterConfig) => InlineRouter,
  scenario: Scenario,
): string | null {
  const config = configOf(scenario.topology);
  player.configure(config);
  const options: CompareOptions = { ports: Object.keys(config.ports), normalise: scenario.normalise };
  const kernel = player.play(scenario.frames);
  // A small table is quickly made; the kernel keeps its own size.
  const router = create({ ...config, conntrack: { ...config.conntrack, max: 4096 } });
  const sluice = playInline(router, options.ports, scenario.frames);
  const difference = compare(kernel, sluice, options);
  return difference === null ? null : `scenario "${scenario.name}": ${difference}`;
}
