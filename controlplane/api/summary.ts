/**
 * Summary: the whole router in one object of a few kilobytes, for the page, `sluice top` and the metrics: counters,
 * occupancies, ports, drops. Numbers are totals since start; rates are for whoever asks twice.
 */

import {
  CT_KEY,
  CT_MAPPING,
  CT_R_DST,
  CT_STATUS,
  CT_WORDS,
  IPS_CONFIRMED,
  IPS_DYING,
  IPS_SRC_NAT,
} from '../../conntrack/record.ts';
import { REASONS } from '../../dataplane/drop.ts';
import * as T from '../../dataplane/tables.ts';
import { formatIpv4 } from '../../dataplane/wire/address.ts';
import { hostOrder } from '../../dataplane/wire/bytes.ts';
import { poolOf } from '../compile-nat.ts';
import type { Config } from '../config/index.ts';
import { readCounters } from '../show/counters.ts';
import { stageOf } from '../show/drops.ts';
import { type LinkJson, showLink } from '../show/link.ts';
import type { ShowSource, WorkerView } from '../show/source.ts';

export interface NatUse {
  /** Outside address. */
  outside: string;
  protocol: string;
  /** Ports (ICMP: identifiers) of the address in use, and how many the rules lend. */
  used: number;
  available: number;
}

export interface DropCount {
  stage: string;
  reason: string;
  description: string;
  count: number;
}

export interface Summary {
  /** Milliseconds since start, on the router's clock. */
  uptime: number;
  file: string;
  ports: LinkJson[];
  zones: { name: string; forward: string; input: string; ports: string[] }[];
  /** Totals: received = forwarded + delivered + consumed + dropped + held. */
  packets: { received: number; forwarded: number; delivered: number; generated: number; held: number };
  drops: DropCount[];
  conntrack: { entries: number; max: number };
  offload: {
    mode: string;
    hits: number;
    mismatches: number;
    tables: { table: 'engine' | 'flow-cache'; entries: number; capacity: number }[];
  };
  nat: NatUse[];
  neighbours: number;
  routes: { inet: number; inet6: number };
  workers: WorkerView[];
}

/** Reads everything. Costs a look at every connection record, for the NAT pools: ask once a second, not more. */
export function summarize(source: ShowSource): Summary {
  const { tables, config } = source;
  const counters = readCounters(tables, config);
  const engine = [
    ['engine', tables.flows],
    ['flow-cache', tables.cachedFlows],
  ] as const;
  return {
    uptime: tables.now() >>> 0,
    file: config.file,
    ports: showLink(source, {}).json as LinkJson[],
    zones: config.zones.map(({ name, number, ipv4, ipv6 }) => ({
      name,
      forward: verdicts(ipv4.forward, ipv6.forward),
      input: verdicts(ipv4.input, ipv6.input),
      ports: config.ports.filter((port) => port.zone === number).map((port) => port.name),
    })),
    packets: {
      received: counters.received,
      forwarded: counters.forwarded,
      delivered: counters.delivered,
      generated: counters.generated,
      held: counters.held,
    },
    drops: dropCounts(tables),
    conntrack: { entries: tables.conntrack.count, max: config.conntrack.max },
    offload: {
      mode: tables.flows === null ? 'off' : config.offload.mode,
      hits: counters.offload.hits,
      mismatches: counters.offload.mismatches,
      tables: engine.flatMap(([table, level]) =>
        level === null ? [] : [{ table, entries: level.count, capacity: level.capacity }],
      ),
    },
    nat: natUse(tables, config),
    neighbours: tables.neighbours.count,
    routes: { inet: tables.routes.count(4), inet6: tables.routes.count(6) },
    workers: source.live?.workers() ?? [],
  };
}

/** One word, or one for each family. */
function verdicts(four: string, six: string): string {
  return four === six ? four : `IPv4 ${four}, IPv6 ${six}`;
}

/** Every reason that has been given, with the stage that usually gives it. */
export function dropCounts(tables: T.Tables): DropCount[] {
  return REASONS.flatMap(([reason, description], number) => {
    const count = tables.total(T.C_DROPS + number);
    return count > 0 ? [{ stage: stageOf(reason), reason, description, count }] : [];
  });
}

const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 132: 'sctp' };

/**
 * Outside ports in use. Rules with mappings count in bitmaps, one for each address and protocol; without a mapping (profile
 * `linux`) a translated connection holds the port of its REPLY tuple.
 */
export function natUse(tables: T.Tables, config: Config): NatUse[] {
  const used = new Map<number, number[]>();
  const add = (address: number, proto: number, ports: number): void => {
    let row = used.get(address);
    if (row === undefined) used.set(address, (row = []));
    row[proto] = (row[proto] ?? 0) + ports;
  };
  tables.natPools.each((pool) => {
    const { address, proto, used: ports } = tables.natPools.describe(pool);
    // Protocol 0 counts blocks, whose ports are counted by the pools of the protocols.
    if (proto > 0) add(address, proto, ports);
  });
  const { words, highWater } = tables.conntrack;
  for (let index = 0, c = 0; index < highWater; index++, c += CT_WORDS) {
    const status = words[c + CT_STATUS];
    if ((status & (IPS_CONFIRMED | IPS_DYING | IPS_SRC_NAT)) !== (IPS_CONFIRMED | IPS_SRC_NAT)) continue;
    const key = words[c + CT_KEY];
    if (words[c + CT_MAPPING] === 0 && ((key >>> 8) & 0xff) === 4) add(words[c + CT_R_DST], key & 0xff, 1);
  }
  const uses: NatUse[] = [];
  for (const [address, row] of used) {
    const available = portsLent(config, address);
    row.forEach((ports, proto) => {
      const protocol = PROTOCOLS[proto];
      if (protocol !== undefined) uses.push({ outside: formatIpv4(address), protocol, used: ports, available });
    });
  }
  return uses;
}

/** Ports of an outside address that the rules lend: those of its pool's rule, else of the first masquerade. */
function portsLent(config: Config, address: number): number {
  const host = hostOrder(address);
  const { masquerade } = config.nat;
  const rule =
    masquerade.find((one) => poolOf(one).some(([low, high]) => host >= low && host <= high)) ??
    masquerade.find((one) => one.pool.length === 0);
  return rule === undefined ? 65535 : rule.ports.reduce((sum, [low, high]) => sum + high - low + 1, 0);
}
