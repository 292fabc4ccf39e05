/**
 * Rows: the values of the tables of objects.ts, out of what `sluice show` looks at, so that the two cannot disagree.
 *
 * The port map table has at most MAX_PORT_MAPS rows: a walk of a quarter of a million mappings helps nobody.
 */
import { hostname } from 'node:os';
import type { Value } from 'net-snmp';
import { REASONS } from '../../dataplane/drop.ts';
import { parseAddress, parseMac } from '../../dataplane/wire/address.ts';
import { type NatUse, natUse } from '../api/summary.ts';
import { poolOf } from '../compile-nat.ts';
import type { Config, SnmpConfig } from '../config/index.ts';
import { packageVersion } from '../package-root.ts';
import { readCounters } from '../show/counters.ts';
import { type LinkJson, showLink } from '../show/link.ts';
import { type NeighJson, showNeigh } from '../show/neigh.ts';
import type { ShowSource } from '../show/source.ts';
import type { TableName } from './objects.ts';
import { portMaps } from './port-maps.ts';

export type Rows = Record<TableName, Value[][]>;

/** There is one NAT instance. */
const INSTANCE = 1;
const MAX_PORT_MAPS = 1024;
/** InetAddressType (RFC 4001). */
const IPV4 = 1;
const IPV6 = 2;
/** ifType ethernetCsmacd (IANAifType-MIB). */
const ETHERNET = 6;

/** Counter64 as eight bytes. */
function wide(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), 0);
  bytes.writeUInt32BE(value % 2 ** 32, 4);
  return bytes;
}

/** Counter32: the low half of the same counter, as RFC 2863 §3.1.6 has it. */
const narrow = (value: number): number => value % 2 ** 32;

export function scalarValues(source: ShowSource, snmp: SnmpConfig): Record<string, Value> {
  const six = source.config.ports.some((port) => port.addresses.some(({ family }) => family === 6));
  return {
    sysDescr: `Sluice ${packageVersion()}, a software router`,
    sysObjectID: '0.0',
    // TimeTicks: hundredths of a second, modulo 2^32.
    sysUpTime: Math.floor((source.tables.now() >>> 0) / 10),
    sysContact: snmp.contact,
    sysName: hostname(),
    sysLocation: snmp.location,
    // RFC 3418: 2^(L − 1) for the layers that it serves: internet, 3.
    sysServices: 4,
    ifNumber: source.config.ports.length,
    ipForwarding: 1,
    ipDefaultTTL: 64,
    ipv6IpForwarding: six ? 1 : 2,
    ipv6IpDefaultHopLimit: 64,
  };
}

export function tableRows(source: ShowSource): Rows {
  const links = showLink(source, {}).json as LinkJson[];
  const uses = natUse(source.tables, source.config);
  return {
    ifTable: links.map(ifRow),
    ifXTable: links.map(ifXRow),
    ipAddressTable: links.flatMap(addressRows),
    ipNetToPhysicalTable: (showNeigh(source, {}).json as NeighJson[]).flatMap((neigh) =>
      neighRow(source.config, neigh),
    ),
    ...natRows(source, uses),
  };
}

/** ifIndex begins at 1 (InterfaceIndex, RFC 2863), `show link` at 0. */
function ifRow(link: LinkJson): Value[] {
  const { rx, tx } = link.stats64;
  const admin = link.flags.includes('UP') ? 1 : 2;
  const oper = { UP: 1, DOWN: 2, NOTPRESENT: 6 }[link.operstate];
  return [
    link.ifindex + 1,
    `${link.kind}${link.device === undefined ? '' : ` ${link.device}`}`,
    ETHERNET,
    link.mtu,
    0,
    macBytes(link.address),
    admin,
    oper,
    narrow(rx.bytes),
    narrow(rx.packets),
    narrow(rx.dropped),
    narrow(rx.errors),
    narrow(tx.bytes),
    narrow(tx.packets),
    narrow(tx.errors),
  ];
}

function ifXRow(link: LinkJson): Value[] {
  const { rx, tx } = link.stats64;
  return [
    link.ifindex + 1,
    link.ifname,
    wide(rx.bytes),
    wide(rx.packets),
    wide(tx.bytes),
    wide(tx.packets),
    0,
    `zone ${link.zone}`,
  ];
}

function addressRows(link: LinkJson): Value[][] {
  return link.addr_info.map((own) => {
    // ipAddressStatus: preferred 1, tentative 6, duplicate 7.
    const status = own.flags?.includes('tentative') ? 6 : own.flags !== undefined ? 7 : 1;
    const type = own.family === 'inet' ? IPV4 : IPV6;
    // ipAddressOrigin: manual 2, linklayer 5.
    return [type, addressBytes(own.local), link.ifindex + 1, 1, '0.0', own.scope === 'link' ? 5 : 2, status];
  });
}

/** ipNetToPhysicalState: RFC 4293. */
const STATES: Readonly<Record<string, number>> = {
  REACHABLE: 1,
  STALE: 2,
  DELAY: 3,
  PROBE: 4,
  FAILED: 5,
  PERMANENT: 1,
  INCOMPLETE: 7,
};

function neighRow(config: Config, neigh: NeighJson): Value[][] {
  const port = config.ports.find(({ name }) => name === neigh.dev);
  if (port === undefined) return [];
  const state = neigh.state[0];
  const mac = neigh.lladdr === undefined ? Buffer.alloc(0) : macBytes(neigh.lladdr);
  const type = neigh.dst.includes(':') ? IPV6 : IPV4;
  return [[port.number + 1, type, addressBytes(neigh.dst), mac, state === 'PERMANENT' ? 4 : 3, STATES[state] ?? 6]];
}

const BEHAVIOURS: Readonly<Record<string, number>> = {
  'endpoint-independent': 0,
  'address-dependent': 1,
  'address-and-port-dependent': 2,
};
const PROTOCOLS: Readonly<Record<string, number>> = { icmp: 1, tcp: 6, udp: 17, sctp: 132 };

type NatTable = Extract<TableName, `natv2${string}`>;

function natRows(source: ShowSource, uses: readonly NatUse[]): Record<NatTable, Value[][]> {
  const { config, tables } = source;
  const rules = config.nat.masquerade;
  const [first] = rules;
  const none = { natv2PoolTable: [], natv2PoolRangeTable: [], natv2PortMapTable: [] };
  if (first === undefined) return { natv2InstanceTable: [], natv2ProtocolTable: [], ...none };
  const { dropped } = readCounters(tables, config);
  const total = uses.reduce((sum, { used }) => sum + used, 0);
  const fragments = REASONS.reduce((sum, [name]) => sum + (name.startsWith('FRAG_') ? (dropped[name] ?? 0) : 0), 0);
  const perProtocol = new Map<number, number>();
  for (const { protocol, used } of uses) {
    const number = PROTOCOLS[protocol];
    perProtocol.set(number, (perProtocol.get(number) ?? 0) + used);
  }
  const maps = portMaps(source, MAX_PORT_MAPS);
  return {
    natv2InstanceTable: [
      [
        INSTANCE,
        config.file,
        BEHAVIOURS[first.mapping],
        BEHAVIOURS[first.filtering],
        first.pooling === 'paired' ? 1 : 0,
        // fragmentOutOfOrder: they are collected in whatever order they come.
        2,
        total,
        wide((dropped.NAT_EXHAUSTED ?? 0) + (dropped.NAT_NO_ADDRESS ?? 0)),
        wide(fragments),
        config.conntrack.max,
      ],
    ],
    natv2ProtocolTable: [...perProtocol].map(([number, used]) => [INSTANCE, number, used]),
    natv2PoolTable: rules.map((rule, n) => [
      INSTANCE,
      n + 1,
      rule.out.name,
      IPV4,
      rule.ports[0][0],
      rule.ports.at(-1)![1],
      maps.filter((map) => map.pool === n + 1).length,
    ]),
    natv2PoolRangeTable: rules.flatMap((rule, n) =>
      poolOf(rule).map(([low, high], row) => [INSTANCE, n + 1, row + 1, hostBytes(low), hostBytes(high)]),
    ),
    natv2PortMapTable: maps.map((map) => [
      INSTANCE,
      map.protocol,
      map.externalRealm,
      IPV4,
      map.external,
      map.externalPort,
      map.internalRealm,
      IPV4,
      map.internal,
      map.internalPort,
      map.pool,
      0,
    ]),
  };
}

function hostBytes(address: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(address);
  return bytes;
}

/** An address as InetAddress: its bytes in network order. Words are raw. */
function addressBytes(text: string): Buffer {
  const { family, words } = parseAddress(text)!;
  const bytes = Buffer.alloc(16);
  words.forEach((word, n) => {
    bytes.writeInt32LE(word, n * 4);
  });
  return bytes.subarray(0, family === 4 ? 4 : 16);
}

function macBytes(text: string): Buffer {
  const { lo, hi } = parseMac(text)!;
  const bytes = Buffer.alloc(8);
  bytes.writeInt32LE(lo, 0);
  bytes.writeInt32LE(hi, 4);
  return bytes.subarray(0, 6);
}
