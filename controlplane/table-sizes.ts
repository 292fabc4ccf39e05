/**
 * Sizes of shared tables (dataplane/tables.ts) that follow from what a configuration asks for, beside those that it names
 * itself (`conntrack.max`, `offload.entries`). A running router keeps those that it has started with.
 */
import { natSizes } from './compile-nat.ts';
import type { Config } from './config/index.ts';
import { policySizes } from './policy-routing.ts';
import { bindingSizes } from './security-groups.ts';

export type NeededSizes = ReturnType<typeof neededSizes>;

/** What must fit. */
export function neededSizes(config: Config) {
  return { ...natSizes(config), ...bindingSizes(config), ...policySizes(config) };
}
