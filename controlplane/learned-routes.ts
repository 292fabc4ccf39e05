/**
 * Learned routes: what protocols (DHCPv6, router advertisements, DHCPv4) have to say about where prefixes are.
 *
 * For each prefix it keeps every route that was told, and has the best of them installed: by the order of RouteSource,
 * then the latest. A route that the configuration, or an address, has to the same prefix stays in force; the learned
 * ones wait behind it. Only the installed route is in the table, so that taking it away brings back the next.
 *
 * Routers that advertise themselves and are equally good share a prefix: they become a group of next hops.
 *
 * Not here: lifetimes (whoever adds a route takes it away).
 */
import { type NextHopSpec, NH_CONNECTED, NH_UNREACHABLE, NH_VIA } from '../dataplane/nexthops.ts';
import type { Family, Words } from '../dataplane/wire/address.ts';
import type { Action, RouteSource } from './protocol.ts';

export type RouteAction = Extract<Action, { kind: 'route' }>;

const ORDER: Readonly<Record<RouteSource, number>> = { pd: 0, dhcp6: 1, dhcp4: 2, ra: 3 };

interface Prefix {
  family: Family;
  words: Words;
  prefixLength: number;
  /** Best last. */
  known: RouteAction[];
  /** What of `known` is in the table; empty: nothing, something else has the prefix. */
  installed: RouteAction[];
}

/** The routing table, as far as it is needed here (controlplane/control.ts). */
export interface Table {
  has(family: Family, words: Words, prefixLength: number): boolean;
  add(family: Family, words: Words, prefixLength: number, specs: readonly NextHopSpec[]): boolean;
  remove(family: Family, words: Words, prefixLength: number): boolean;
}

export class LearnedRoutes {
  private readonly prefixes = new Map<string, Prefix>();
  /** Told by a domain that is no more, and not said again yet. */
  private readonly orphans = new Set<RouteAction>();
  private readonly table: Table;

  constructor(table: Table) {
    this.table = table;
  }

  perform(action: RouteAction): void {
    const { family, words, prefixLength } = action;
    const key = [family, ...words, prefixLength].join();
    let prefix = this.prefixes.get(key);
    if (prefix === undefined) {
      if (action.op === 'remove') return;
      prefix = { family, words, prefixLength, known: [], installed: [] };
      this.prefixes.set(key, prefix);
    }
    const { known } = prefix;
    const at = known.findIndex((route) => isSame(route, action));
    const before = at < 0 ? undefined : known.splice(at, 1)[0];
    if (before !== undefined) this.orphans.delete(before);
    if (action.op === 'add') {
      const behind = known.findIndex((route) => ORDER[route.source] < ORDER[action.source]);
      known.splice(behind < 0 ? known.length : behind, 0, action);
      // Said again: what is in the table stays there as it is.
      if (before !== undefined) prefix.installed = prefix.installed.map((route) => (route === before ? action : route));
    }
    this.install(prefix);
    if (known.length === 0) this.prefixes.delete(key);
  }

  /** Whoever told the routes of a family is no more: they stay in force until `sweep`, unless they are said again. */
  orphan(family: Family): void {
    for (const prefix of this.prefixes.values())
      if (prefix.family === family) for (const route of prefix.known) this.orphans.add(route);
  }

  /** Takes away what nobody has said again. Returns how many routes. */
  sweep(family: Family): number {
    const gone = [...this.orphans].filter((route) => route.family === family);
    for (const route of gone) {
      this.orphans.delete(route);
      this.perform({ ...route, op: 'remove' });
    }
    return gone.length;
  }

  /** The route of the configuration or of an address to this prefix is gone: a learned one may take its place. */
  vacated(family: Family, words: ArrayLike<number>, prefixLength: number): void {
    const prefix = this.prefixes.get([family, ...Array.from(words), prefixLength].join());
    if (prefix === undefined) return;
    prefix.installed = [];
    this.install(prefix);
  }

  /** A route of the configuration or of an address has taken the place of a learned one. */
  displaced(family: Family, words: ArrayLike<number>, prefixLength: number): void {
    const prefix = this.prefixes.get([family, ...Array.from(words), prefixLength].join());
    if (prefix !== undefined) prefix.installed = [];
  }

  /** Who told the route that is in the table; undefined: no protocol. */
  sourceOf(family: Family, words: ArrayLike<number>, prefixLength: number): RouteSource | undefined {
    return this.prefixes.get([family, ...Array.from(words), prefixLength].join())?.installed[0]?.source;
  }

  private install(prefix: Prefix): void {
    const { family, words, prefixLength, installed } = prefix;
    const best = bestOf(prefix.known);
    if (best.length === installed.length && best.every((route, n) => route === installed[n])) return;
    if (installed.length === 0 && this.table.has(family, words, prefixLength)) return;
    prefix.installed = [];
    if (best.length === 0) this.table.remove(family, words, prefixLength);
    else if (this.table.add(family, words, prefixLength, best.map(specOf))) prefix.installed = best;
  }
}

/** The routes to use: the latest of the best source; of router advertisements all, as they are equals (RFC 4311). */
function bestOf(known: readonly RouteAction[]): RouteAction[] {
  const last = known.at(-1);
  if (last === undefined) return [];
  if (last.source !== 'ra' || last.via === undefined) return [last];
  return known.filter((route) => route.source === 'ra' && route.via !== undefined);
}

/** True when both say the same: one told twice is one route. */
function isSame(a: RouteAction, b: RouteAction): boolean {
  return a.source === b.source && a.port === b.port && a.type === b.type && String(a.via) === String(b.via);
}

function specOf(route: RouteAction): NextHopSpec {
  if (route.type === 'unreachable') return { kind: NH_UNREACHABLE };
  if (route.via === undefined) return { kind: NH_CONNECTED, port: route.port };
  return { kind: NH_VIA, port: route.port, family: route.family, gateway: route.via };
}
