/**
 * Apply: gives a running router another configuration, without losing a session that the new one would let go on.
 *
 * What can change while it runs is one table (config/changes.ts): most goes straight into the tables of the data path;
 * DHCP, router advertisements, names and the gateway are protocols, and their domain is made anew, which no packet notices.
 * What sizes a table or belongs to a device (ports and their kinds, MTU, MAC, VLANs, `conntrack.max`, `offload`,
 * `workers`) needs a restart; such a change is refused as a whole, before anything is touched.
 *
 * What goes: connections that used an address that is no longer there, and those that the new NAT rules would translate
 * otherwise (row N9). Established connections pass whatever the new rules say, as in netfilter. Addresses and routes that
 * protocols have learned are not the configuration's, and stay.
 */

import { formatAddress, networkWords } from '../../dataplane/wire/address.ts';
import { needsOf } from '../config/changes.ts';
import type { Config, NeighborConfig, PortConfig, PrefixValue } from '../config/index.ts';
import type { Control } from '../control.ts';
import type { DomainName } from '../domain.ts';
import { speaksIpv6 } from '../services.ts';
import { type NeededSizes, neededSizes } from '../table-sizes.ts';
import { diffLines, type Line } from './lines.ts';

export interface Change {
  /** `+ routes: …` and `- routes: …` lines, as a person compares them. */
  lines: string[];
  /** Why it cannot be done while the router runs: `path: expected …, got …`; empty when it can. */
  refused: string[];
}

export interface Applied extends Change {
  /** Connections that ended because of it. */
  ended: number;
}

/** Compares, and says what stands in the way. Touches nothing. */
export function compareConfig(control: Control, next: Config): Change {
  const old = control.config;
  const { removed, added } = diffLines(old, next);
  const lines = [...removed.map(({ text }) => `- ${text}`), ...added.map(({ text }) => `+ ${text}`)];
  const refused = new Set<string>();
  const names = (config: Config) => config.ports.map((port) => port.name).join(', ');
  if (names(old) !== names(next))
    refused.add(`ports: expected the ports that run (${names(old)}), got ${names(next)}; restart the router`);
  else
    for (const line of [...removed, ...added])
      if (needsOf(line.path) === 'restart') refused.add(refusal(line.path, removed, added));
  const sizes = neededSizes(next);
  const have = control.tables.buffers.sizes;
  for (const key of Object.keys(KINDS) as (keyof NeededSizes)[])
    if (sizes[key] > have[key])
      refused.add(
        `${KINDS[key].path}: expected at most ${have[key]} ${KINDS[key].what} as this router has started with, got ${sizes[key]}; restart the router`,
      );
  return { lines, refused: [...refused] };
}

const KINDS: Readonly<Record<keyof NeededSizes, { path: string; what: string }>> = {
  natMappings: { path: 'nat', what: 'mappings' },
  natPools: { path: 'nat', what: 'pools of ports' },
  natSubscribers: { path: 'nat', what: 'subscribers' },
  policyTables: { path: 'routing-rules', what: 'tables' },
  bindings: { path: 'ports', what: 'addresses in security groups' },
};

/** Domains whose protocols have to be made anew, in the order in which they are stepped. */
function domainsToRestart(old: Config, next: Config): DomainName[] {
  const { removed, added } = diffLines(old, next);
  const domains = new Set<DomainName>();
  for (const { path } of [...removed, ...added]) {
    const needs = needsOf(path);
    if (needs !== 'live' && needs !== 'restart') for (const name of needs) domains.add(name);
  }
  // Whether the DHCP server names the router as the resolver.
  if ((old.dns === null) !== (next.dns === null)) domains.add('ipv4');
  return (['ipv4', 'ipv6', 'management'] as const).filter((name) => domains.has(name));
}

function refusal(path: string, removed: Line[], added: Line[]): string {
  const value = (lines: Line[]) =>
    lines
      .filter((line) => line.path === path)
      .map((line) => line.text.slice(path.length + 2))
      .join(', ') || 'nothing';
  return `${path}: expected ${value(removed)} as long as the router runs, got ${value(added)}; restart the router`;
}

/**
 * Puts a configuration in force. When something is refused nothing has changed. The caller steps the control plane
 * afterwards (a `tick`), so that neighbour discovery and the like see what is new.
 */
export function applyConfig(control: Control, next: Config): Applied {
  const change = compareConfig(control, next);
  if (change.refused.length > 0 || change.lines.length === 0) return { ...change, ended: 0 };
  const old = control.config;
  const before = control.tables.conntrack.count;
  const routes = control.ownRoutes();
  control.cease(next);
  control.config = next;
  const neighbours = difference(old.neighbors, next.neighbors, neighbourKey);
  for (const { port, ip } of neighbours.gone)
    if (!next.neighbors.some((kept) => kept.port === port && kept.ip.text === ip.text))
      control.forgetNeighbour(port, ip.family, ip.words);
  for (const port of next.ports) changePort(control, old.ports[port.number], port);
  control.moveRoutes(routes);
  control.policyRouting.configure(next);
  for (const { port, ip, mac } of neighbours.come) control.setNeighbour(port, ip.family, ip.words, mac.lo, mac.hi);

  control.securityGroups?.configure(next);
  control.hosts.configure(next);
  control.loadFilter(next);
  control.loadHelpers(next);
  control.loadTimeouts(next);
  if (change.lines.some((line) => /^. (?:nat|hosts|zones|ports\.[^.]+\.(?:zone|addresses))\b/.test(line))) {
    for (const { port, prefix } of poolsOf(old))
      if (!poolsOf(next).some((kept) => kept.port === port && prefixKey(kept.prefix) === prefixKey(prefix)))
        control.removePool(port, prefix);
    control.loadNat(next);
  }
  const domains = domainsToRestart(old, next);
  if (domains.length > 0) control.remake(domains);
  return { ...change, ended: Math.max(0, before - control.tables.conntrack.count) };
}

function changePort(control: Control, old: PortConfig, next: PortConfig): void {
  control.setPort(next);
  const addresses = difference(old.addresses, next.addresses, (prefix) => prefix.text);
  for (const { family, words, prefixLength } of addresses.gone)
    control.removeAddress(next.number, family, words, prefixLength);
  for (const { family, words, prefixLength } of addresses.come)
    control.addAddress(next.number, family, words, prefixLength);
  if (speaksIpv6(next) && !speaksIpv6(old)) control.addLinkLocal(next);
  if (speaksIpv6(old) && !speaksIpv6(next)) control.removeLinkLocal(next.number);
  control.addresses.arrange(next.number, next.addresses);
  control.electAddresses(next.number);
}

function poolsOf(config: Config): { port: number; prefix: PrefixValue }[] {
  return config.nat.masquerade.flatMap(({ out, pool }) =>
    out.ports.length === 0 ? [] : pool.map((prefix) => ({ port: out.ports[0], prefix })),
  );
}

function difference<T>(old: T[], next: T[], key: (item: T) => string): { gone: T[]; come: T[] } {
  const [before, after] = [new Set(old.map(key)), new Set(next.map(key))];
  return { gone: old.filter((item) => !after.has(key(item))), come: next.filter((item) => !before.has(key(item))) };
}

const prefixKey = ({ family, words, prefixLength }: PrefixValue): string =>
  `${formatAddress(family, ...networkWords(family, words, prefixLength))}/${prefixLength}`;
const neighbourKey = ({ port, ip, mac }: NeighborConfig): string => [port, ip.text, mac.text].join(' ');
