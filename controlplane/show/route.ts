/**
 * `show route`: the routing table as `ip route` and `ip -6 route` print it; connected routes are `proto kernel`, those of
 * the configuration `proto static`, learned ones `proto ra` or `proto dhcp`, and the router's own addresses are in `table local`. Devices are port names.
 */
import * as NH from '../../dataplane/nexthops.ts';
import { formatAddress, inPrefix, type Words } from '../../dataplane/wire/address.ts';
import { portFilter } from './filters.ts';
import { familyFilter, knownFilters, type Shown, type ShowSource } from './source.ts';

export interface RouteJson {
  /** Absent for ordinary routes, as iproute2 does. */
  type?: string;
  dst: string;
  gateway?: string;
  dev?: string;
  table?: string;
  protocol: string;
  scope?: string;
  prefsrc?: string;
  metric?: number;
  metrics?: { mtu: number }[];
  nexthops?: { gateway?: string; dev?: string; weight: number; flags: string[] }[];
  flags: string[];
}

const TYPES: Readonly<Record<number, string>> = {
  [NH.NH_LOCAL]: 'local',
  [NH.NH_BROADCAST]: 'broadcast',
  [NH.NH_MULTICAST]: 'multicast',
  [NH.NH_UNREACHABLE]: 'unreachable',
  [NH.NH_BLACKHOLE]: 'blackhole',
  [NH.NH_PROHIBIT]: 'prohibit',
};

export function showRoute(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, ['family', 'dev']);
  const dev = portFilter(source.config, filters.dev);
  const family = familyFilter(filters);
  const tables = [...source.control.policyRouting.list(source.config)].map(({ table, entry }) => {
    const { family: of, words, prefixLength, nexthop } = entry;
    return { of, route: { ...routeJson(source, of, words, prefixLength, nexthop), table, protocol: 'static' } };
  });
  const main = source.control.routes.list().map((entry) => {
    const { family: of, words, prefixLength, nexthop } = entry;
    return { of, route: routeJson(source, of, words, prefixLength, nexthop) };
  });
  const entries = [...main, ...tables]
    .filter(({ of }) => family === null || of === family)
    .map(({ route }) => route)
    .filter((route) => dev(route.dev));
  // As `ip route show table all`: what leads somewhere first, then the router's own.
  const sorted = [
    ...entries.filter((route) => route.table !== 'local'),
    ...entries.filter((route) => route.table === 'local'),
  ];
  return { text: sorted.map(line).join('\n'), json: sorted };
}

function routeJson(source: ShowSource, family: 4 | 6, words: Words, prefixLength: number, nexthop: number): RouteJson {
  const { nexthops } = source.tables;
  const w = nexthops.words;
  const at = nexthops.at(nexthop);
  const kind = w[at + NH.NH_KIND_WORD];
  const full = family === 4 ? 32 : 128;
  const address = formatAddress(family, words[0], words[1], words[2], words[3]);
  const route: RouteJson = {
    dst: prefixLength === 0 ? 'default' : prefixLength === full ? address : `${address}/${prefixLength}`,
    protocol: 'static',
    flags: [],
  };
  if (TYPES[kind] !== undefined) route.type = TYPES[kind];
  const learned = source.control.learned.sourceOf(family, words, prefixLength);
  if (learned !== undefined) route.protocol = learned === 'ra' ? 'ra' : 'dhcp';
  const name = (port: number): string | undefined => source.config.ports[port]?.name;
  const gateway = (record: number): string | undefined => {
    const g = record + NH.NH_GATEWAY_WORD;
    return w[record + NH.NH_KIND_WORD] === NH.NH_VIA
      ? formatAddress(w[record + NH.NH_FAMILY_WORD], w[g], w[g + 1], w[g + 2], w[g + 3])
      : undefined;
  };
  if (kind === NH.NH_GROUP) {
    route.nexthops = [];
    const shares = Array.from({ length: w[at + NH.NH_COUNT_WORD] }, (_, n) => nexthops.share(nexthop, n));
    const smallest = Math.min(...shares);
    for (let n = 0; n < w[at + NH.NH_COUNT_WORD]; n++) {
      const member = nexthops.at(w[at + NH.NH_MEMBERS_WORD + n]);
      // Of the smallest share, as near as regions of 65536 say it.
      const weight = Math.max(1, Math.round(shares[n] / smallest));
      const hop = { gateway: gateway(member), dev: name(w[member + NH.NH_PORT_WORD]), weight };
      route.nexthops.push({ ...hop, flags: (w[member + NH.NH_FLAGS_WORD] & NH.NHF_DOWN) !== 0 ? ['linkdown'] : [] });
    }
    return route;
  }
  const port = w[at + NH.NH_PORT_WORD];
  route.gateway = gateway(at);
  if (port >= 0) route.dev = name(port);
  if (kind === NH.NH_LOCAL || kind === NH.NH_BROADCAST) {
    route.table = 'local';
    route.protocol = 'kernel';
    route.scope = kind === NH.NH_LOCAL ? 'host' : 'link';
  }
  if (kind === NH.NH_CONNECTED) {
    route.scope = 'link';
    // Made by an address of the port: that address is the source that the router itself would use.
    const own = source.control.addresses
      .ofPort(port)
      .find(
        (a) =>
          a.family === family && a.prefixLength === prefixLength && inPrefix(a.words, { family, words, prefixLength }),
      );
    if (own !== undefined) {
      route.protocol = 'kernel';
      if (family === 4) route.prefsrc = formatAddress(4, own.words[0], 0, 0, 0);
    }
  }
  if (w[at + NH.NH_METRIC_WORD] !== 0) route.metric = w[at + NH.NH_METRIC_WORD];
  if (w[at + NH.NH_MTU_WORD] !== 0) route.metrics = [{ mtu: w[at + NH.NH_MTU_WORD] }];
  if ((w[at + NH.NH_FLAGS_WORD] & NH.NHF_DOWN) !== 0) route.flags.push('linkdown');
  return route;
}

function line(route: RouteJson): string {
  const words = route.type === undefined ? [] : [route.type];
  words.push(route.dst);
  if (route.gateway !== undefined) words.push('via', route.gateway);
  if (route.dev !== undefined) words.push('dev', route.dev);
  if (route.table !== undefined) words.push('table', route.table);
  words.push('proto', route.protocol);
  if (route.scope !== undefined) words.push('scope', route.scope);
  if (route.prefsrc !== undefined) words.push('src', route.prefsrc);
  if (route.metric !== undefined) words.push('metric', String(route.metric));
  if (route.metrics !== undefined) words.push('mtu', String(route.metrics[0].mtu));
  words.push(...route.flags);
  const hops = (route.nexthops ?? []).map((hop) => {
    const via = hop.gateway === undefined ? '' : ` via ${hop.gateway}`;
    return `\n\tnexthop${via} dev ${hop.dev} weight ${hop.weight}${hop.flags.map((flag) => ` ${flag}`).join('')}`;
  });
  return words.join(' ') + hops.join('');
}
