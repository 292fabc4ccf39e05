/**
 * DHCPv6 in the configuration: `ports.NAME.dhcp6` (client, server, relay, LDRA) and `delegation` (pools of prefixes,
 * known clients, the lease file). Schema, what it becomes, and the checks of what keys mean together.
 */
import { z } from 'zod';
import { inPrefix, type Words } from '../../dataplane/wire/address.ts';
import { duidEn, duidUuid, parseHex } from '../dhcp6/duid.ts';
import { DEFAULTS } from './defaults.ts';
import { didYouMean, type Path } from './errors.ts';
import type { Reader } from './reader.ts';
import type { Scopes } from './scopes.ts';
import type { PrefixValue, Where } from './types.ts';
import {
  address,
  addressRanges,
  boolean,
  domainNames,
  fileName,
  integer,
  leaf,
  map,
  NAME,
  NAME_RULE,
  oneOf,
  oneOrMore,
  prefix,
  prefixes,
  reference,
  text,
  toAddress,
} from './values.ts';

/** How a node names itself; LL and LLT need the MAC of its port. */
export type DuidConfig = { kind: 'll' } | { kind: 'llt'; made: number } | { kind: 'bytes'; bytes: Uint8Array };
/** What a relay writes into its remote-id option: the client's MAC, the same bytes always, or no option. */
export type RemoteIdConfig = 'mac' | 'none' | Uint8Array;

export interface Dhcp6ClientConfig {
  /** Always, or when an event `dhcp6.start` says so. */
  start: 'always' | 'told';
  iaNa: boolean;
  iaPd: { hint: PrefixValue | null }[];
  /** Only other information: no addresses and prefixes. */
  stateless: boolean;
  rapidCommit: boolean;
  /** Give everything back when the router stops. */
  release: boolean;
  reconfigureAccept: boolean;
  duid: DuidConfig;
  where: Where;
}

export interface Dhcp6ServerConfig {
  /** First and last address of each range. */
  addresses: { first: Words; last: Words }[];
  /** Names of pools. */
  delegate: string[];
  dns: Words[];
  domains: string[];
  /** Seconds. */
  preferred: number;
  valid: number;
  refresh: number;
  rapidCommit: boolean;
  /** Null: the option is not sent. */
  preference: number | null;
  identify: 'duid' | 'remote-id';
  clients: 'any' | 'known';
  relays: PrefixValue[];
  maxLeases: number;
  /** Messages a second. */
  rate: number;
  duid: DuidConfig;
  where: Where;
}

export interface Dhcp6RelayConfig {
  /** Servers, or relays next to them. */
  to: Words[];
  /** Port out of which ff05::1:3 is asked; −1: none. */
  out: number;
  interfaceId: Uint8Array | null;
  remoteId: RemoteIdConfig;
  enterprise: number;
  subscriberId: Uint8Array | null;
  /** Relay what other relays on this port send. */
  relays: boolean;
  /** Install routes to delegated prefixes. */
  routes: boolean;
  /** Prefixes that one client may hold (RFC 8987 G-7). */
  maxLeases: number;
  rate: number;
  where: Where;
}

export interface Dhcp6LdraConfig {
  /** The port toward the network. */
  to: number;
  interfaceId: Uint8Array;
  remoteId: RemoteIdConfig;
  enterprise: number;
  trusted: boolean;
  rate: number;
  where: Where;
}

export interface Dhcp6Config {
  client: Dhcp6ClientConfig | null;
  server: Dhcp6ServerConfig | null;
  relay: Dhcp6RelayConfig | null;
  ldra: Dhcp6LdraConfig | null;
}

export interface PoolConfig {
  name: string;
  prefix: PrefixValue;
  /** Of what is cut. */
  length: number;
}

export interface KnownClientConfig {
  /** Exactly one of both is there. */
  duid: Uint8Array | null;
  remoteId: Uint8Array | null;
  address: Words | null;
  prefixes: PrefixValue[];
  where: Where;
}

export interface DelegationConfig {
  /** '': leases are in memory only. */
  file: string;
  pools: PoolConfig[];
  clients: KnownClientConfig[];
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function toDuid(input: unknown): DuidConfig | undefined {
  if (typeof input !== 'string') return undefined;
  if (input === 'll') return { kind: 'll' };
  const [kind, rest] = [input.slice(0, input.indexOf(':')), input.slice(input.indexOf(':') + 1)];
  if (kind === 'llt') {
    const made = /^\d{4}-\d\d-\d\d(T[\d:.]+Z)?$/.test(rest) ? Date.parse(rest) : Number.NaN;
    return Number.isNaN(made) ? undefined : { kind: 'llt', made };
  }
  if (kind === 'uuid') {
    const bytes = UUID.test(rest) ? parseHex(rest.replaceAll('-', '')) : null;
    return bytes === null ? undefined : { kind: 'bytes', bytes: duidUuid(bytes) };
  }
  if (kind === 'en') {
    const match = /^(\d{1,10}):(.+)$/.exec(rest);
    const bytes = match === null ? null : parseHex(match[2]);
    if (match === null || bytes === null || bytes.length > 124 || Number(match[1]) > 0xffffffff) return undefined;
    return { kind: 'bytes', bytes: duidEn(Number(match[1]), bytes) };
  }
  const bytes = toDuidBytes(input);
  return bytes === undefined ? undefined : { kind: 'bytes', bytes };
}

function toDuidBytes(input: unknown): Uint8Array | undefined {
  const bytes = typeof input === 'string' ? parseHex(input) : null;
  return bytes === null || bytes.length < 3 || bytes.length > 130 ? undefined : bytes;
}

const duid = leaf(
  'll, llt:DATE, en:NUMBER:HEX, uuid:UUID or 3 to 130 bytes such as 00:03:00:01:02:00:00:00:00:01',
  toDuid,
);
const duidBytes = leaf('3 to 130 bytes such as 00:03:00:01:02:00:00:00:00:01', toDuidBytes);
const octets = leaf('1 to 128 bytes in hexadecimal such as 52:54:00:9f:af:61', (input) => {
  const bytes = typeof input === 'string' ? parseHex(input) : null;
  return bytes === null || bytes.length > 128 ? undefined : bytes;
});
const remoteId = leaf('mac, none, or a text of 1 to 128 bytes', (input): RemoteIdConfig | undefined => {
  if (input === 'mac' || input === 'none') return input;
  return typeof input === 'string' ? octetsOf(input) : undefined;
});
const id = leaf('a text of 1 to 128 bytes', (input) => (typeof input === 'string' ? octetsOf(input) : undefined));

function octetsOf(input: string): Uint8Array | undefined {
  const bytes = new TextEncoder().encode(input);
  return bytes.length === 0 || bytes.length > 128 ? undefined : bytes;
}

const addresses6 = oneOrMore('an IPv6 address', (input) => {
  const value = toAddress(input);
  return value?.family === 6 ? value.words : undefined;
});
const lifetime = integer(10, 0xfffffffe);
const enterprise = integer(0, 0xffffffff);
const rate = integer(1, 1_000_000);
const maxLeases = integer(1, 1024);

export const dhcp6Schema = map({
  client: map({
    start: oneOf(['always', 'told']).optional(),
    'ia-na': boolean.optional(),
    'ia-pd': z
      .array(map({ hint: prefix.optional() }), { error: () => 'a list, an element for each prefix' })
      .optional(),
    stateless: boolean.optional(),
    'rapid-commit': boolean.optional(),
    release: boolean.optional(),
    'reconfigure-accept': boolean.optional(),
    duid: duid.optional(),
  }).optional(),
  server: map({
    addresses: addressRanges.optional(),
    delegate: oneOrMore(
      'the name of a pool',
      (input) => (typeof input === 'string' ? input : undefined),
      16,
    ).optional(),
    dns: addresses6.optional(),
    domains: domainNames.optional(),
    preferred: lifetime.optional(),
    valid: lifetime.optional(),
    refresh: integer(600, 0xfffffffe).optional(), // RFC 8415 §21.23: IRT_MINIMUM
    'rapid-commit': boolean.optional(),
    preference: integer(0, 255).optional(),
    identify: oneOf(['duid', 'remote-id']).optional(),
    clients: oneOf(['any', 'known']).optional(),
    relays: prefixes.optional(),
    'max-leases': maxLeases.optional(),
    rate: rate.optional(),
    duid: duid.optional(),
  }).optional(),
  relay: map({
    to: addresses6.optional(),
    out: reference.optional(),
    'interface-id': id.optional(),
    'remote-id': remoteId.optional(),
    enterprise: enterprise.optional(),
    'subscriber-id': id.optional(),
    relays: boolean.optional(),
    routes: boolean.optional(),
    'max-leases': maxLeases.optional(),
    rate: rate.optional(),
  }).optional(),
  ldra: map({
    to: reference,
    'interface-id': id.optional(),
    'remote-id': remoteId.optional(),
    enterprise: enterprise.optional(),
    trusted: boolean.optional(),
    rate: rate.optional(),
  }).optional(),
});

const list = z.unknown().optional();
const delegationShallow = map({ file: fileName.optional(), pools: list, clients: list });
const poolSchema = map({ prefix, length: integer(1, 64) });
const knownClientSchema = map({
  duid: duidBytes.optional(),
  'remote-id': octets.optional(),
  address: address.optional(),
  prefixes: prefixes.optional(),
  name: text.optional(),
});
/** The section as one, for the documentation and its test. */
export const delegationSchema = delegationShallow.extend({
  pools: z.record(z.string(), poolSchema).optional(),
  clients: z.array(knownClientSchema).optional(),
});

/** Pools larger than this many prefixes cannot be used up by anybody. */
const MAX_CUT = 48;

export function normalizeDelegation(reader: Reader, value: unknown): DelegationConfig {
  const given = reader.read(delegationShallow, value ?? {}, ['delegation']) ?? {};
  const pools: PoolConfig[] = [];
  const entries = reader.map(given.pools, ['delegation', 'pools'], 'a map of pool names') ?? {};
  for (const name of Object.keys(entries)) {
    const path = ['delegation', 'pools', name];
    if (!NAME.test(name)) reader.report(path, NAME_RULE, name);
    const pool = reader.read(poolSchema, entries[name] ?? {}, path);
    if (pool === undefined) continue;
    const { prefixLength, family } = pool.prefix;
    if (family !== 6) reader.report([...path, 'prefix'], 'a prefix of IPv6', pool.prefix.text);
    else if (pool.length < prefixLength || pool.length - prefixLength > MAX_CUT)
      reader.report(
        [...path, 'length'],
        `a number from ${prefixLength} to ${Math.min(64, prefixLength + MAX_CUT)}`,
        pool.length,
      );
    const other = pools.find((p) => inPrefix(p.prefix.words, pool.prefix) || inPrefix(pool.prefix.words, p.prefix));
    if (other !== undefined)
      reader.report([...path, 'prefix'], 'a prefix that no other pool has', pool.prefix.text, `${other.name} has it`);
    pools.push({ name, prefix: pool.prefix, length: pool.length });
  }
  const clients: KnownClientConfig[] = [];
  reader.list(given.clients, ['delegation', 'clients']).forEach((item, n) => {
    const path = ['delegation', 'clients', n];
    const client = reader.read(knownClientSchema, item, path);
    if (client === undefined) return;
    if (
      (client.duid === undefined) === (client['remote-id'] === undefined) &&
      !reader.faulty([...path, 'duid']) &&
      !reader.faulty([...path, 'remote-id'])
    )
      reader.reportWords(path, 'either "duid" or "remote-id"', client.duid === undefined ? 'neither' : 'both');
    for (const [key, values] of [
      ['address', client.address === undefined ? [] : [client.address]],
      ['prefixes', client.prefixes ?? []],
    ] as const)
      for (const one of values) if (one.family !== 6) reader.report([...path, key], 'IPv6', one.text);
    clients.push({
      duid: client.duid ?? null,
      remoteId: client['remote-id'] ?? null,
      address: client.address?.words ?? null,
      prefixes: client.prefixes ?? [],
      where: reader.where(path),
    });
  });
  return { file: given.file ?? '', pools, clients };
}

/** Reads `ports.NAME.dhcp6`; null: the port has none. */
export function normalizeDhcp6(
  reader: Reader,
  value: unknown,
  path: Path,
  name: string,
  scopes: Scopes,
  delegation: DelegationConfig,
): Dhcp6Config | null {
  if (value === undefined || value === null) return null;
  const given = reader.read(dhcp6Schema, value, path);
  if (given === undefined) return null;
  if (given.client !== undefined && (given.server ?? given.relay ?? given.ldra) !== undefined)
    reader.reportWords([...path, 'client'], 'a port that asks or a port that answers', 'both');
  if ([given.server, given.relay, given.ldra].filter((role) => role !== undefined).length > 1)
    reader.reportWords(path, 'one of server, relay and ldra', 'more');
  const { client, server, relay, ldra } = given;
  return {
    client:
      client === undefined
        ? null
        : {
            start: client.start ?? DEFAULTS['ports.NAME.dhcp6.client.start'],
            iaNa: client['ia-na'] ?? DEFAULTS['ports.NAME.dhcp6.client.ia-na'],
            iaPd: (client['ia-pd'] ?? []).map((pd) => ({ hint: pd.hint ?? null })),
            stateless: client.stateless ?? DEFAULTS['ports.NAME.dhcp6.client.stateless'],
            rapidCommit: client['rapid-commit'] ?? DEFAULTS['ports.NAME.dhcp6.client.rapid-commit'],
            release: client.release ?? DEFAULTS['ports.NAME.dhcp6.client.release'],
            reconfigureAccept: client['reconfigure-accept'] ?? DEFAULTS['ports.NAME.dhcp6.client.reconfigure-accept'],
            duid: client.duid ?? { kind: 'll' },
            where: reader.where([...path, 'client']),
          },
    server: server === undefined ? null : serverOf(reader, server, [...path, 'server'], delegation),
    relay: relay === undefined ? null : relayOf(reader, relay, [...path, 'relay'], name, scopes),
    ldra:
      ldra === undefined
        ? null
        : {
            to: otherPort(reader, ldra.to, [...path, 'ldra', 'to'], name, scopes),
            interfaceId: ldra['interface-id'] ?? new TextEncoder().encode(name),
            remoteId: ldra['remote-id'] ?? DEFAULTS['ports.NAME.dhcp6.ldra.remote-id'],
            enterprise: ldra.enterprise ?? DEFAULTS['ports.NAME.dhcp6.ldra.enterprise'],
            trusted: ldra.trusted ?? DEFAULTS['ports.NAME.dhcp6.ldra.trusted'],
            rate: ldra.rate ?? DEFAULTS['ports.NAME.dhcp6.ldra.rate'],
            where: reader.where([...path, 'ldra']),
          },
  };
}

function otherPort(reader: Reader, to: string, path: Path, name: string, scopes: Scopes): number {
  if (to === name) reader.report(path, 'another port', to);
  return scopes.port(to, path);
}

type Given = z.infer<typeof dhcp6Schema>;

function serverOf(
  reader: Reader,
  given: NonNullable<Given['server']>,
  path: Path,
  delegation: DelegationConfig,
): Dhcp6ServerConfig {
  const valid = given.valid ?? DEFAULTS['ports.NAME.dhcp6.server.valid'];
  const preferred = given.preferred ?? Math.min(valid, DEFAULTS['ports.NAME.dhcp6.server.preferred']);
  if (preferred > valid)
    reader.report([...path, 'preferred'], `a number from 60 to ${valid}, the valid lifetime`, preferred);
  const names = delegation.pools.map((pool) => pool.name);
  given.delegate?.forEach((pool, n) => {
    if (!names.includes(pool))
      reader.report([...path, 'delegate', n], 'the name of a pool of "delegation"', pool, didYouMean(pool, names));
  });
  if (given.identify === 'remote-id' && given.clients === 'any')
    reader.warn(
      [...path, 'clients'],
      'whoever a relay names gets leases; "known" serves the clients of "delegation" only',
    );
  return {
    addresses: given.addresses ?? [],
    delegate: given.delegate ?? [],
    dns: given.dns ?? [],
    domains: given.domains ?? [],
    preferred,
    valid,
    refresh: given.refresh ?? DEFAULTS['ports.NAME.dhcp6.server.refresh'],
    rapidCommit: given['rapid-commit'] ?? DEFAULTS['ports.NAME.dhcp6.server.rapid-commit'],
    preference: given.preference ?? null,
    identify: given.identify ?? DEFAULTS['ports.NAME.dhcp6.server.identify'],
    clients: given.clients ?? DEFAULTS['ports.NAME.dhcp6.server.clients'],
    relays: given.relays ?? [],
    maxLeases: given['max-leases'] ?? DEFAULTS['ports.NAME.dhcp6.server.max-leases'],
    rate: given.rate ?? DEFAULTS['ports.NAME.dhcp6.server.rate'],
    duid: given.duid ?? { kind: 'll' },
    where: reader.where(path),
  };
}

function relayOf(
  reader: Reader,
  given: NonNullable<Given['relay']>,
  path: Path,
  name: string,
  scopes: Scopes,
): Dhcp6RelayConfig {
  if (given.to === undefined && given.out === undefined)
    reader.reportWords(path, 'servers in "to", or a port in "out" to ask all servers of the site', 'neither');
  return {
    to: given.to ?? [],
    out: given.out === undefined ? -1 : otherPort(reader, given.out, [...path, 'out'], name, scopes),
    interfaceId: given['interface-id'] ?? new TextEncoder().encode(name),
    remoteId: given['remote-id'] ?? DEFAULTS['ports.NAME.dhcp6.relay.remote-id'],
    enterprise: given.enterprise ?? DEFAULTS['ports.NAME.dhcp6.relay.enterprise'],
    subscriberId: given['subscriber-id'] ?? null,
    relays: given.relays ?? DEFAULTS['ports.NAME.dhcp6.relay.relays'],
    routes: given.routes ?? DEFAULTS['ports.NAME.dhcp6.relay.routes'],
    maxLeases: given['max-leases'] ?? DEFAULTS['ports.NAME.dhcp6.relay.max-leases'],
    rate: given.rate ?? DEFAULTS['ports.NAME.dhcp6.relay.rate'],
    where: reader.where(path),
  };
}
