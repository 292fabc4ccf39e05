/**
 * `show offload`: the engine's entries and what it has counted, and why the rest was not its business.
 *
 * One line per entry, in the words of `conntrack`: what it matches, then what it makes of that. Filters: family, dev
 * (port of entry). Packets and bytes are those since the entry was installed, as far as 32 bits count. Behind them the
 * multicast entries, and for the connections without an entry a count by reason.
 */
import { CT_FLOWS, CT_PORTS_IO, CT_WORDS } from '../../conntrack/record.ts';

import * as T from '../../dataplane/tables.ts';
import { formatIpv4, formatIpv6, formatMac } from '../../dataplane/wire/address.ts';
import { EX_TEXT, FLOWS_INSTALLED, NOT_OFFLOADED } from '../../offload/engine.ts';
import { MC_BYTES, MC_EGRESS, MC_GROUP, MC_PACKETS, MC_SRC } from '../../offload/multicast.ts';
import { PRIORITY_TEXT } from '../../offload/policy.ts';
import {
  AUX_INSTALLED,
  AUX_PRIORITY,
  AUX_WORDS,
  F4_BYTES,
  F4_CONN,
  F4_DMAC_HI,
  F4_DMAC_LO,
  F4_DST,
  F4_EPOCH,
  F4_KEY,
  F4_LAST,
  F4_NDST,
  F4_NPORTS,
  F4_NSRC,
  F4_PACKETS,
  F4_PORTS,
  F6_BYTES,
  F6_CONN,
  F6_DMAC_HI,
  F6_DMAC_LO,
  F6_DST,
  F6_EPOCH,
  F6_KEY,
  F6_LAST,
  F6_PACKETS,
  F6_PORTS,
  type FlowTable,
  STAT_COLLISIONS,
  STAT_EVICTIONS,
  STAT_INSTALLS,
  STAT_REFUSED,
  STAT_REMOVED,
  STAT_UPDATES,
} from '../../offload/table.ts';
import { portFilter } from './filters.ts';
import { familyFilter, knownFilters, type Shown, type ShowSource } from './source.ts';

interface FlowTuple {
  src: string;
  dst: string;
  sport?: number;
  dport?: number;
  spi?: string;
}

export interface FlowJson {
  table: 'engine' | 'flow-cache';
  family: 'inet' | 'inet6';
  protocol: string;
  in: string;
  out: string;
  match: FlowTuple;
  /** What the packets become; as they were for IPv6. */
  action: FlowTuple;
  lladdr: string;
  packets: number;
  bytes: number;
  /** browsing, default, bulk, stream or expedited: who must give way when the table is full. */
  priority: string;
  /** Milliseconds since it was installed, and since the last hit. */
  age: number;
  idle: number;
  /** Something that it depends on has changed: the next packet is walked, and installs it anew. */
  stale: boolean;
  /** Connection that it belongs to, and the direction. */
  connection: number;
  direction: 'orig' | 'reply';
}

const PROTOCOLS: Readonly<Record<number, string>> = { 6: 'tcp', 17: 'udp', 41: 'ipv6', 47: 'gre', 50: 'esp' };

export function showOffload(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, ['family', 'dev']);
  const dev = portFilter(source.config, filters.dev);
  const { tables, config } = source;
  const family = familyFilter(filters);
  const mode = tables.flows === null ? 'off' : config.offload.mode;
  const engine = source.live?.engine() ?? 'emulated';
  const counters: Record<string, number> = {};
  EX_TEXT.forEach((name, n) => {
    const count = tables.total(T.C_ENGINE + n);
    if (count > 0) counters[name] = count;
  });
  const levels: ['engine' | 'flow-cache', FlowTable | null][] = [
    ['engine', tables.flows],
    ['flow-cache', tables.cachedFlows],
  ];
  const summaries: Record<string, unknown>[] = [];
  const flows: FlowJson[] = [];
  for (const [table, level] of levels) {
    if (level === null) continue;
    summaries.push({
      table,
      entries: level.capacity,
      installed: level.count,
      installs: level.statistic(STAT_INSTALLS),
      updates: level.statistic(STAT_UPDATES),
      evictions: level.statistic(STAT_EVICTIONS),
      refused: level.statistic(STAT_REFUSED),
      removed: level.statistic(STAT_REMOVED),
      enabled: (tables.control[T.ENGINES] & (table === 'engine' ? 1 : 2)) === 0,
      collisions: level.statistic(STAT_COLLISIONS),
    });
    for (const own of [4, 6] as const) {
      if (family !== null && family !== own) continue;
      const list = own === 4 ? level.live4 : level.live6;
      for (let n = 0; n < level.liveCount(own); n++)
        // The list moves while workers program: a place may be empty by now.
        if (level.isLive(own, list[n])) flows.push(flowJson(source, table, level, own, list[n]));
    }
  }
  const multicast = multicastJson(source).filter(
    (one) => family === null || one.family === (family === 4 ? 'inet' : 'inet6'),
  );
  const flushes = Object.fromEntries(CAUSES.map((name, n) => [name, tables.control[T.FLUSHES + n]]));
  const missing = notOffloaded(source);
  const shown = flows.filter((flow) => dev(flow.in));
  const head = summaries.map((summary) =>
    Object.entries(summary)
      .map(([name, value]) => (name === 'table' ? `${value}:` : `${name} ${value}`))
      .join(' '),
  );
  const counts = Object.entries(counters).map(([name, count]) => `${name} ${count}`);
  const text = [
    `mode ${mode}, engine ${engine}`,
    ...head,
    ...(counts.length > 0 ? [counts.join(', ')] : []),
    `flushes: ${CAUSES.map((name) => `${name} ${flushes[name]}`).join(' ')}`,
    ...missing.map(({ reason, connections }) => `not accelerated: ${connections} ${reason}`),
    ...(engine === 'kernel' && multicast.length > 0
      ? ['multicast entries are the emulated engine’s: the router makes the copies']
      : []),
    ...multicast.map(multicastLine),
    ...shown.map(line),
  ];
  return {
    text: text.join('\n'),
    json: { mode, engine, tables: summaries, counters, flushes, not_offloaded: missing, multicast, flows: shown },
  };
}

/** Causes of a flush, in the order of their bytes in the epoch word. */
const CAUSES = ['link', 'route', 'nat', 'filter'] as const;

/** Connections without an entry, by the reason that their last packet was given. */
function notOffloaded({ tables }: ShowSource): { reason: string; connections: number }[] {
  if (tables.flows === null) return [];
  const { conntrack } = tables;
  const counts = new Array<number>(NOT_OFFLOADED.length).fill(0);
  const now = tables.now();
  for (let index = 0; index < conntrack.highWater; index++) {
    if (!conntrack.inUse(index, now)) continue;
    const c = index * CT_WORDS;
    if ((conntrack.words[c + CT_FLOWS] & FLOWS_INSTALLED) !== 0) continue;
    const why = conntrack.words[c + CT_PORTS_IO] >>> 24;
    // Nobody has asked yet: the engine is only asked about packets of connections that were answered.
    counts[why === 0 ? 1 : why]++;
  }
  return counts.flatMap((connections, why) => (connections > 0 ? [{ reason: NOT_OFFLOADED[why], connections }] : []));
}

interface MulticastJson {
  family: 'inet' | 'inet6';
  in: string;
  /** Null: any. */
  src: string | null;
  group: string;
  out: string[];
  packets: number;
  bytes: number;
}

function multicastJson({ tables, config }: ShowSource): MulticastJson[] {
  const w = tables.multicast.words;
  return tables.multicast.list().map((e) => {
    const four = ((w[e] >> 8) & 15) === 4;
    const address = (at: number): string =>
      four ? formatIpv4(w[at]) : formatIpv6(w[at], w[at + 1], w[at + 2], w[at + 3]);
    const any = (w[e + MC_SRC] | w[e + MC_SRC + 1] | w[e + MC_SRC + 2] | w[e + MC_SRC + 3]) === 0;
    return {
      family: four ? 'inet' : 'inet6',
      in: config.ports[w[e] & 0xff]?.name ?? String(w[e] & 0xff),
      src: any ? null : address(e + MC_SRC),
      group: address(e + MC_GROUP),
      out: config.ports
        .filter(({ number }) => (w[e + MC_EGRESS + (number >> 5)] & (1 << (number & 31))) !== 0)
        .map(({ name }) => name),
      packets: w[e + MC_PACKETS] >>> 0,
      bytes: w[e + MC_BYTES] >>> 0,
    };
  });
}

function multicastLine(one: MulticastJson): string {
  const family = one.family === 'inet' ? 'ipv4' : 'ipv6';
  return `[MULTICAST] ${family} in=${one.in} src=${one.src ?? 'any'} group=${one.group} out=${one.out.join(',')} packets=${one.packets} bytes=${one.bytes}`;
}

function flowJson(
  source: ShowSource,
  table: FlowJson['table'],
  level: FlowTable,
  family: 4 | 6,
  place: number,
): FlowJson {
  const { tables, config } = source;
  const four = family === 4;
  const w = four ? level.words4 : level.words6;
  const aux = four ? level.aux4 : level.aux6;
  const e = place << (four ? 4 : 5);
  const key = w[e + (four ? F4_KEY : F6_KEY)];
  const proto = key & 0xff;
  const macHi = w[e + (four ? F4_DMAC_HI : F6_DMAC_HI)];
  const link = w[e + (four ? F4_CONN : F6_CONN)];
  const name = (port: number): string => config.ports[port]?.name ?? String(port);
  const six = (at: number): string => formatIpv6(w[e + at], w[e + at + 1], w[e + at + 2], w[e + at + 3]);
  const match = four
    ? tuple(proto, formatIpv4(w[e]), formatIpv4(w[e + F4_DST]), w[e + F4_PORTS])
    : tuple(proto, six(0), six(F6_DST), w[e + F6_PORTS]);
  const action = four ? tuple(proto, formatIpv4(w[e + F4_NSRC]), formatIpv4(w[e + F4_NDST]), w[e + F4_NPORTS]) : match;
  const now = tables.now();
  return {
    table,
    family: four ? 'inet' : 'inet6',
    protocol: PROTOCOLS[proto] ?? String(proto),
    in: name((key >> 8) & 0xff),
    out: name((macHi >> 16) & 0xff),
    match,
    action,
    lladdr: formatMac(w[e + (four ? F4_DMAC_LO : F6_DMAC_LO)], macHi & 0xffff),
    packets: w[e + (four ? F4_PACKETS : F6_PACKETS)] >>> 0,
    bytes: w[e + (four ? F4_BYTES : F6_BYTES)] >>> 0,
    priority: PRIORITY_TEXT[aux[place * AUX_WORDS + AUX_PRIORITY]] ?? 'default',
    age: Math.max(0, (now - aux[place * AUX_WORDS + AUX_INSTALLED]) | 0),
    idle: Math.max(0, (now - w[e + (four ? F4_LAST : F6_LAST)]) | 0),
    stale: w[e + (four ? F4_EPOCH : F6_EPOCH)] !== tables.control[T.EPOCH],
    connection: link >> 1,
    direction: (link & 1) === 0 ? 'orig' : 'reply',
  };
}

/** Port words are raw: network byte order as loaded. */
function tuple(proto: number, src: string, dst: string, ports: number): FlowTuple {
  const port = (half: number): number => ((half & 0xff) << 8) | (half >>> 8);
  if (proto === 6 || proto === 17) return { src, dst, sport: port(ports & 0xffff), dport: port(ports >>> 16) };
  if (proto !== 50) return { src, dst };
  const spi = ((port(ports & 0xffff) << 16) | port(ports >>> 16)) >>> 0;
  return { src, dst, spi: `0x${spi.toString(16).padStart(8, '0')}` };
}

function line(flow: FlowJson): string {
  const words = (t: FlowTuple): string =>
    [
      `src=${t.src} dst=${t.dst}`,
      t.sport === undefined ? '' : ` sport=${t.sport} dport=${t.dport}`,
      t.spi === undefined ? '' : ` spi=${t.spi}`,
    ].join('');
  const family = flow.family === 'inet' ? 'ipv4' : 'ipv6';
  const head = `${flow.table === 'engine' ? '' : '[FLOW-CACHE] '}${family} ${flow.protocol.padEnd(4)}`;
  return `${head} in=${flow.in} ${words(flow.match)} out=${flow.out} ${words(flow.action)} lladdr=${flow.lladdr} packets=${flow.packets} bytes=${flow.bytes} priority=${flow.priority} idle=${(flow.idle / 1000).toFixed(1)}${flow.stale ? ' [STALE]' : ''}`;
}
