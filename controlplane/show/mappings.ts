/**
 * The state of NAT for `show nat`: mappings with their sessions, the pools of outside ports, and the subscribers of a
 * carrier-grade NAT, each in the order of its table.
 *
 * The profile `linux` keeps none of these: there a port is taken when a connection's tuple says so.
 */
import {
  NM_COUNT,
  NM_DEADLINE,
  NM_INSIDE,
  NM_KEY,
  NM_OUTSIDE,
  NM_PORTS,
  NM_REMOTE,
  NM_SCOPE,
  NM_WORDS,
  PORT_DEPENDENT,
} from '../../conntrack/mapping.ts';
import {
  SUB_BLOCK,
  SUB_BLOCKS,
  SUB_INSIDE,
  SUB_OUTSIDE,
  SUB_REFUSED,
  SUB_SESSIONS,
  SUB_WORDS,
} from '../../conntrack/subscribers.ts';
import { formatIpv4 } from '../../dataplane/wire/address.ts';
import { CONNECTION_FILTERS } from './conntrack.ts';
import { addressFilter, numberFilter, protocolFilter } from './filters.ts';
import { familyFilter, knownFilters, type ShowSource } from './source.ts';

export const BEHAVIOURS = ['', 'endpoint-independent', 'address-dependent', 'address-and-port-dependent'];
const PROTOCOLS: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  33: 'dccp',
  47: 'gre',
  132: 'sctp',
};

export interface Endpoint {
  address: string;
  port: number;
}

export interface NatMappingJson {
  protocol: string;
  inside: Endpoint;
  outside: Endpoint;
  /** Destination that the mapping is for: absent when endpoint-independent, without port when address-dependent. */
  remote?: { address: string; port?: number };
  mapping: string;
  filtering: string;
  /** Sessions that use it; while there is one it does not end. */
  sessions: number;
  /** Seconds until it may end when no session uses it; 0: only sessions keep it. */
  timeout: number;
}

export interface NatPoolJson {
  address: string;
  /** `blocks`: not ports are counted, but blocks of them (carrier grade). */
  protocol: string;
  used: number;
  /** Searches that found no free port. */
  exhausted: number;
}

export interface NatSubscriberJson {
  inside: string;
  /** Absent: has no ports now. */
  outside?: string;
  blocks: string[];
  sessions: number;
  /** Packets refused for want of ports or sessions. */
  refused: number;
}

export function protocolName(proto: number): string {
  return PROTOCOLS[proto] ?? String(proto);
}

/** Mappings that the filters leave: family, proto, src and sport of the inside end, dst and dport of the destination. */
export function natMappings(source: ShowSource, filters: Readonly<Record<string, string>>): NatMappingJson[] {
  knownFilters(filters, CONNECTION_FILTERS);
  if (familyFilter(filters) === 6) return [];
  const matches = mappingFilter(filters);
  const { natMappings: table } = source.tables;
  const now = source.tables.now();
  const w = table.words;
  const found: NatMappingJson[] = [];
  for (let index = 0; index < table.highWater; index++) {
    const m = index * NM_WORDS;
    if (!table.inUse(index, now)) continue;
    const key = w[m + NM_KEY];
    const one: NatMappingJson = {
      protocol: protocolName(key & 0xff),
      inside: { address: formatIpv4(w[m + NM_INSIDE]), port: hostPort(w[m + NM_PORTS] & 0xffff) },
      outside: { address: formatIpv4(w[m + NM_OUTSIDE]), port: hostPort(w[m + NM_PORTS] >>> 16) },
      mapping: BEHAVIOURS[(key >> 8) & 3],
      filtering: BEHAVIOURS[(key >> 10) & 3],
      sessions: Math.max(0, w[m + NM_COUNT]),
      timeout: Math.max(0, Math.ceil(((w[m + NM_DEADLINE] - now) | 0) / 1000)),
    };
    if (w[m + NM_REMOTE] !== 0) {
      one.remote = { address: formatIpv4(w[m + NM_REMOTE]) };
      if (((key >> 8) & 3) === PORT_DEPENDENT) one.remote.port = hostPort(w[m + NM_SCOPE] & 0xffff);
    }
    if (matches(one, key & 0xff)) found.push(one);
  }
  return found;
}

function mappingFilter(filters: Readonly<Record<string, string>>): (one: NatMappingJson, proto: number) => boolean {
  const proto = protocolFilter(filters.proto);
  const [src, dst] = [addressFilter('src', filters.src), addressFilter('dst', filters.dst)];
  const [sport, dport] = [numberFilter('sport', filters.sport, 65535), numberFilter('dport', filters.dport, 65535)];
  return (one, number) =>
    proto(one.protocol, number) &&
    src(one.inside.address) &&
    sport(one.inside.port) &&
    dst(one.remote?.address) &&
    dport(one.remote?.port);
}

export function natPools(source: ShowSource): NatPoolJson[] {
  const { natPools: pools } = source.tables;
  const found: NatPoolJson[] = [];
  pools.each((pool) => {
    const { address, proto, used, exhausted } = pools.describe(pool);
    found.push({
      address: formatIpv4(address),
      protocol: proto === 0 ? 'blocks' : protocolName(proto),
      used,
      exhausted,
    });
  });
  return found;
}

export function natSubscribers(source: ShowSource): NatSubscriberJson[] {
  const { natSubscribers: table } = source.tables;
  const w = table.words;
  const found: NatSubscriberJson[] = [];
  if (table.count === 0) return found;
  for (let at = 0; at < table.capacity * SUB_WORDS; at += SUB_WORDS) {
    if (w[at + SUB_INSIDE] === 0) continue;
    const one: NatSubscriberJson = {
      inside: formatIpv4(w[at + SUB_INSIDE]),
      blocks: [],
      sessions: w[at + SUB_SESSIONS],
      refused: w[at + SUB_REFUSED],
    };
    if (w[at + SUB_BLOCKS] !== 0) one.outside = formatIpv4(w[at + SUB_OUTSIDE]);
    for (let n = 0; n < w[at + SUB_BLOCKS]; n++) {
      const block = w[at + SUB_BLOCK + n];
      const low = block & 0xffff;
      one.blocks.push(`${low}-${low + (block >>> 16) - 1}`);
    }
    found.push(one);
  }
  return found;
}

export function mappingLine(one: NatMappingJson): string {
  const { remote } = one;
  const towards =
    remote === undefined ? '' : ` towards ${remote.address}${remote.port === undefined ? '' : `:${remote.port}`}`;
  return (
    `mapping ${one.protocol} ${one.inside.address}:${one.inside.port} to ${one.outside.address}:${one.outside.port}${towards} ` +
    `mapping ${one.mapping} filtering ${one.filtering} sessions ${one.sessions} timeout ${one.timeout}`
  );
}

export function poolLine(one: NatPoolJson): string {
  return `pool ${one.address} ${one.protocol} used ${one.used} exhausted ${one.exhausted}`;
}

export function subscriberLine(one: NatSubscriberJson): string {
  const ports = one.outside === undefined ? 'no ports' : `to ${one.outside} ports ${one.blocks.join(',')}`;
  return `subscriber ${one.inside} ${ports} sessions ${one.sessions} refused ${one.refused}`;
}

/** A port as the wire has it (raw 16 bits), as a number. */
function hostPort(raw: number): number {
  return ((raw & 0xff) << 8) | (raw >>> 8);
}
