/**
 * What a port's DHCP server serves: its configuration, its pools, which of them a message or an address belongs to, and by
 * which key a client is known (RFC 2131 §4.2, §4.3.1).
 */
import { formatMac, inPrefix, macFromBytes, type Words } from '../../dataplane/wire/address.ts';
import type { Addresses, OwnAddress } from '../neighbour/addresses.ts';
import type { LeaseFile } from './lease-file.ts';
import * as M from './message.ts';
import type { Holder, Pool } from './pool.ts';

export interface Subnet {
  words: Words;
  prefixLength: number;
}

/** Addresses raw but for those that are counted, `first` and `last`: they are in host order. */
export interface Dhcp4PoolConfig {
  /** The subnet served; null: the port's own. */
  subnet: Subnet | null;
  first: number;
  last: number;
  /** Null: the port's own address. */
  router: number | null;
}

/** Addresses raw but for those reserved, which are in host order; times in seconds. */
export interface Dhcp4ServerConfig {
  /** Name of the port in events. */
  name: string;
  pools: Dhcp4PoolConfig[];
  lease: number;
  /** Empty: the port's own address, when the router answers questions there. */
  dns: number[];
  domain: string;
  ntp: number[];
  reservations: { key: string; address: number }[];
  /** Messages a second. */
  rate: number;
  /** Ask for an address on the link before it is offered. */
  probe: boolean;
  /** Leases are kept there; '': in memory only. */
  file: string;
  /** `known`: who has a reservation; all others get no answer. */
  clients: 'any' | 'known';
}

/** One pool, and its part of the configuration. */
export interface Served {
  pool: Pool;
  config: Dhcp4PoolConfig;
}

/** One port's. */
export interface Server {
  port: number;
  file: LeaseFile | null;
  config: Dhcp4ServerConfig;
  pools: Served[];
  /** Messages in the current second. */
  second: number;
  count: number;
}

/** The pool for a message: the relay's address says on which subnet its client is (§4.3.1); without one it is on ours. */
export function poolFor(server: Server, message: M.Dhcp4Message, own: OwnAddress | null): Served | null {
  for (const served of server.pools) {
    const { subnet } = served.config;
    if (message.giaddr === 0 ? subnet === null : subnet !== null && covers(subnet, message.giaddr)) return served;
  }
  const isOurs = message.giaddr !== 0 && own !== null && covers(own, message.giaddr);
  return isOurs ? (server.pools.find(({ config }) => config.subnet === null) ?? null) : null;
}

/** The subnet that an address (raw) of a pool is in: reservations may be of any of the port's own. */
export function subnetOf(
  addresses: Addresses,
  server: Server,
  { config }: Served,
  own: OwnAddress,
  address: number,
): Subnet {
  if (config.subnet !== null || covers(own, address)) return config.subnet ?? own;
  return addresses.ofPort(server.port).find((one) => one.family === 4 && covers(one, address)) ?? own;
}

/** True when the prefix has the address (raw). */
export function covers(prefix: Subnet, address: number): boolean {
  return inPrefix([address, 0, 0, 0], { family: 4, words: prefix.words, prefixLength: prefix.prefixLength });
}

/** A reservation's remote-id, else the client identifier, else the MAC (RFC 2131 §4.2). */
export function keyOf(message: M.Dhcp4Message, config: Dhcp4ServerConfig): string {
  const remote = M.relayOption(message).get(M.SUB_REMOTE);
  const byRelay = remote === undefined ? '' : `remote ${hex(remote)}`;
  const byMac = `mac ${hex(message.chaddr)}`;
  for (const { key } of config.reservations) if (key === byRelay || key === byMac) return key;
  const id = message.options.get(M.OPT_CLIENT);
  return id === undefined || id.length < 2 ? byMac : `id ${hex(id)}`;
}

/** How reservations name a client: `mac` and its six bytes, or `remote` and a remote-id. */
export function reservationKey(kind: 'mac' | 'remote', bytes: Uint8Array): string {
  return `${kind} ${hex(bytes)}`;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

/** What a client's message tells of it beside its key. */
export function holderOf(message: M.Dhcp4Message): Holder {
  const { lo, hi } = macFromBytes(message.chaddr);
  const remoteId = hex(M.relayOption(message).get(M.SUB_REMOTE) ?? new Uint8Array(0));
  return { hostName: M.textOption(message, M.OPT_HOST_NAME).slice(0, 63), mac: formatMac(lo, hi), remoteId };
}
