/**
 * `show neigh`: the neighbour table of both families, as `ip neigh` prints it. Devices are port names.
 */
import {
  NEIGH_ADDR,
  NEIGH_FLAGS,
  NEIGH_MAC_HI,
  NEIGH_MAC_LO,
  NEIGH_PORT,
  NTF_ROUTER,
  NUD_DELAY,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
} from '../../dataplane/neighbours.ts';
import { formatAddress, formatMac } from '../../dataplane/wire/address.ts';
import { portFilter } from './filters.ts';
import { familyFilter, knownFilters, type Shown, type ShowSource } from './source.ts';

export interface NeighJson {
  dst: string;
  dev: string;
  lladdr?: string;
  /** Null when set, absent when not: iproute2 prints flags so. */
  router?: null;
  state: string[];
}

const STATES: Readonly<Record<number, string>> = {
  [NUD_INCOMPLETE]: 'INCOMPLETE',
  [NUD_REACHABLE]: 'REACHABLE',
  [NUD_STALE]: 'STALE',
  [NUD_DELAY]: 'DELAY',
  [NUD_PROBE]: 'PROBE',
  [NUD_FAILED]: 'FAILED',
  [NUD_PERMANENT]: 'PERMANENT',
};

export function showNeigh(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, ['family', 'dev']);
  const dev = portFilter(source.config, filters.dev);
  const family = familyFilter(filters);
  const table = source.tables.neighbours;
  const w = table.words;
  const found: (NeighJson & { family: number })[] = [];
  for (let n = 0; n < table.capacity; n++) {
    if (!table.used(n)) continue;
    const at = table.at(n);
    const own = w[at + NEIGH_PORT] >> 8;
    const port = w[at + NEIGH_PORT] & 0xff;
    const a = at + NEIGH_ADDR;
    const neigh: NeighJson & { family: number } = {
      family: own,
      dst: formatAddress(own, w[a], w[a + 1], w[a + 2], w[a + 3]),
      dev: source.config.ports[port]?.name ?? String(port),
      state: [STATES[w[at]] ?? String(w[at])],
    };
    if (w[at] !== NUD_INCOMPLETE && w[at] !== NUD_FAILED)
      neigh.lladdr = formatMac(w[at + NEIGH_MAC_LO], w[at + NEIGH_MAC_HI]);
    if ((w[at + NEIGH_FLAGS] & NTF_ROUTER) !== 0) neigh.router = null;
    if ((family === null || family === own) && dev(neigh.dev)) found.push(neigh);
  }
  // The table is a hash: by family, device and address it reads better.
  found.sort((x, y) => x.family - y.family || compare(x.dev, y.dev) || compare(x.dst, y.dst));
  const json = found.map(({ family: _, ...neigh }) => neigh);
  return { text: json.map(line).join('\n'), json };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function line(neigh: NeighJson): string {
  const words = [neigh.dst, 'dev', neigh.dev];
  if (neigh.lladdr !== undefined) words.push('lladdr', neigh.lladdr);
  if (neigh.router !== undefined) words.push('router');
  words.push(...neigh.state);
  return words.join(' ');
}
