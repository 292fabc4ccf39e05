/**
 * Own routes: what the routing table holds because of the router's addresses and its configuration.
 *
 * Of an address: itself (local), its subnet (connected), and of IPv4 the subnet's broadcast addresses. Then the routes as
 * written, each in place of what an address made of its prefix; then the addresses that NAT lends out, where nothing else
 * is. Learned routes are not here (learned-routes.ts).
 */
import {
  MAX_MEMBERS,
  type NextHopSpec,
  NH_BLACKHOLE,
  NH_BROADCAST,
  NH_CONNECTED,
  NH_LOCAL,
  NH_PROHIBIT,
  NH_UNREACHABLE,
  NH_VIA,
} from '../dataplane/nexthops.ts';
import { type Family, maskWords, networkWords, type Words } from '../dataplane/wire/address.ts';
import { isLinkLocal } from '../dataplane/wire/ipv6.ts';
import type { Config, PrefixValue, RouteConfig } from './config/index.ts';

export interface OwnRoute {
  family: Family;
  /** Raw, host bits zero. */
  words: Words;
  prefixLength: number;
  /** Several: they share the load. */
  specs: readonly NextHopSpec[];
}

/** An address that a port has; host bits kept. */
export interface PortAddress {
  port: number;
  family: Family;
  words: Words;
  prefixLength: number;
}

const REFUSING = { blackhole: NH_BLACKHOLE, unreachable: NH_UNREACHABLE, prohibit: NH_PROHIBIT } as const;

/** The routes of each prefix that are used: those of the lowest metric, as many as a group takes. */
export function bestRoutes(routes: readonly RouteConfig[]): { to: PrefixValue; specs: NextHopSpec[] }[] {
  const best = new Map<string, { to: PrefixValue; metric: number; specs: NextHopSpec[] }>();
  for (const route of routes) {
    const spec = specOf(route);
    if (spec === null) continue;
    const { to, metric } = route;
    const key = [to.family, ...to.words, to.prefixLength].join();
    const known = best.get(key);
    if (known === undefined || metric < known.metric) best.set(key, { to, metric, specs: [spec] });
    else if (metric === known.metric && known.specs.length < MAX_MEMBERS) known.specs.push(spec);
  }
  return [...best.values()];
}

/** What a route of the configuration says; null for one whose next hop is on no known link (a warning says so). */
function specOf(route: RouteConfig): NextHopSpec | null {
  const { type, via, port, mtu, metric, weight } = route;
  if (type !== 'unicast') return { kind: REFUSING[type] };
  if (port < 0) return null;
  return via === null
    ? { kind: NH_CONNECTED, port, mtu, metric, weight }
    : { kind: NH_VIA, port, family: via.family, gateway: via.words, mtu, metric, weight };
}

/**
 * One route for each prefix. `addresses`: those of the configuration in its order, then others: of two in one subnet, or of one
 * address on two ports, the first has the route, as in Linux. So no lease takes a subnet from the port that is configured for it.
 */
export function ownRoutes(config: Config, addresses: Iterable<PortAddress>): Map<string, OwnRoute> {
  const routes = new Map<string, OwnRoute>();
  const add = (
    family: Family,
    words: Words,
    prefixLength: number,
    spec: NextHopSpec | readonly NextHopSpec[],
    unless = false,
  ): void => {
    const network = networkWords(family, words, prefixLength);
    const key = [family, ...network, prefixLength].join();
    if (!unless || !routes.has(key)) routes.set(key, { family, words: network, prefixLength, specs: [spec].flat() });
  };
  const all = [...addresses];
  for (const { port, family, words, prefixLength } of all) {
    const full = family === 4 ? 32 : 128;
    if (family === 6 && isLinkLocal(words[0])) continue;
    if (prefixLength < full) add(family, words, prefixLength, { kind: NH_CONNECTED, port }, true);
    add(family, words, full, { kind: NH_LOCAL, port }, true);
  }
  for (const { port, family, words, prefixLength } of all) {
    if (family === 6 || prefixLength >= 31) continue;
    const mask = maskWords(4, prefixLength)[0];
    for (const broadcast of [words[0] | ~mask, words[0] & mask])
      add(4, [broadcast, 0, 0, 0], 32, { kind: NH_BROADCAST, port }, true);
  }
  for (const { to, specs } of bestRoutes(config.routes.filter((route) => route.table === 0)))
    add(to.family, to.words, to.prefixLength, specs);
  for (const { out, pool } of config.nat.masquerade)
    for (const { family, words, prefixLength } of out.ports.length === 0 ? [] : pool)
      add(family, words, prefixLength, { kind: NH_LOCAL, port: out.ports[0] }, true);
  return routes;
}
