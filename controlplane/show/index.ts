/**
 * Show: every view of `sluice show`, by name. A view is a function of the tables, the control plane and the configuration,
 * so that it shows a live router and an inline one alike.
 */

import { showWho } from '../carrier/who.ts';
import { showConntrack } from './conntrack.ts';
import { showDhcp6 } from './dhcp6.ts';
import { showDomains } from './domains.ts';
import { showDrops, showStages, showWorkers } from './drops.ts';
import { showExpect } from './expect.ts';
import { showLink } from './link.ts';
import { showNat } from './nat.ts';
import { showNeigh } from './neigh.ts';
import { showOffload } from './offload.ts';
import { showRoute } from './route.ts';
import { showDns, showGateway, showLeases, showRa } from './services.ts';
import type { LateView, View } from './source.ts';
import { showTrace } from './trace.ts';
import { showZones } from './zones.ts';

export { liveSource, type Shown, type ShowSource, type View } from './source.ts';

export const VIEWS: Readonly<Record<string, View>> = {
  conntrack: showConntrack,
  nat: showNat,
  expect: showExpect,
  offload: showOffload,
  route: showRoute,
  neigh: showNeigh,
  link: showLink,
  drops: showDrops,
  stages: showStages,
  workers: showWorkers,
  zones: showZones,
  trace: showTrace,
  who: showWho,
  dns: showDns,
  domains: showDomains,
};

/** Views of what is in a domain of the control plane. */
export const DOMAIN_VIEWS: Readonly<Record<string, LateView>> = {
  dhcp6: showDhcp6,
  leases: showLeases,
  ra: showRa,
  gateway: showGateway,
};

/** Names of all views. */
export const VIEW_NAMES: readonly string[] = [...Object.keys(VIEWS), ...Object.keys(DOMAIN_VIEWS)];
