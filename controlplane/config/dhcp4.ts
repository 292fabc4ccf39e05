/**
 * DHCPv4 and names in the configuration: `ports.NAME.dhcp4` (client, server, relay) and `dns`. Schema, what it becomes,
 * and the checks of what keys mean together.
 */
import { z } from 'zod';
import {
  type Address,
  formatAddress,
  inPrefix,
  macBytes,
  networkWords,
  parseIpv4,
  parseMac,
} from '../../dataplane/wire/address.ts';
import { hostOrder, rawOrder } from '../../dataplane/wire/bytes.ts';
import type { Dhcp4ClientConfig } from '../dhcp4/client.ts';
import type { Dhcp4RelayConfig } from '../dhcp4/relay.ts';
import { type Dhcp4PoolConfig, type Dhcp4ServerConfig, reservationKey } from '../dhcp4/served.ts';
import type { DnsConfig } from '../dns/forwarder.ts';
import { isNetworkOrBroadcast } from './checks.ts';
import { DEFAULTS } from './defaults.ts';
import type { Path } from './errors.ts';
import type { Reader } from './reader.ts';
import type { Scopes } from './scopes.ts';
import type { PortConfig, PrefixValue } from './types.ts';
import {
  boolean,
  domainNames,
  fileName,
  integer,
  leaf,
  mac,
  map,
  oneOf,
  oneOrMore,
  prefix,
  toAddress,
  toDomainName,
} from './values.ts';

/** One port's DHCP, by role; at most one is there. */
export interface Dhcp4Config {
  client: Dhcp4ClientConfig | null;
  server: Dhcp4ServerConfig | null;
  relay: Dhcp4RelayConfig | null;
}

const range = leaf('a range of IPv4 addresses such as 192.168.1.100-192.168.1.199', (input) => {
  const parts = typeof input === 'string' ? input.split('-').map((part) => parseIpv4(part.trim())) : [];
  const [first, last] = parts;
  if (parts.length !== 2 || first === null || last === null || first === undefined || last === undefined)
    return undefined;
  const [low, high] = [hostOrder(first), hostOrder(last)];
  // A /16 is as many as one broadcast domain can bear.
  return low <= high && high - low < 65536 ? { first: low, last: high } : undefined;
});
const address4 = leaf('an IPv4 address', (input) => {
  const value = toAddress(input);
  return value?.family === 4 ? value.words[0] : undefined;
});
const addresses4 = oneOrMore(
  'an IPv4 address',
  (input) => {
    const value = toAddress(input);
    return value?.family === 4 ? value.words[0] : undefined;
  },
  8,
);
const octets = (input: unknown): Uint8Array | undefined => {
  const bytes = typeof input === 'string' ? new TextEncoder().encode(input) : undefined;
  return bytes !== undefined && bytes.length > 0 && bytes.length <= 64 ? bytes : undefined;
};
const id = leaf('a text of 1 to 64 bytes', octets);
/** A MAC is its six bytes, as a relay with `remote-id: mac` writes them. */
const line = leaf('a MAC, or a text of 1 to 64 bytes', (input) => {
  const known = typeof input === 'string' ? parseMac(input) : null;
  return known === null ? octets(input) : macBytes(known.lo, known.hi);
});
const remoteId = leaf('mac, none, or a text of 1 to 64 bytes', (input): 'mac' | 'none' | Uint8Array | undefined =>
  input === 'mac' || input === 'none' ? input : octets(input),
);
const hostName = leaf('a host name of letters, digits and "-"', (input) =>
  typeof input === 'string' && /^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/.test(input) ? input : undefined,
);
const servers = oneOrMore(
  'the address of a resolver',
  (input): Address | undefined => toAddress(input) ?? undefined,
  8,
);
const hostAddresses = oneOrMore('an address', (input): Address | undefined => toAddress(input) ?? undefined, 16);
const rate = integer(1, 1_000_000);

export const dhcp4Schema = map({
  client: map({
    'host-name': hostName.optional(),
    'client-id': id.optional(),
    routes: boolean.optional(),
    release: boolean.optional(),
  }).optional(),
  server: map({
    range,
    lease: integer(60, 2_000_000).optional(),
    router: address4.optional(),
    dns: addresses4.optional(),
    domain: domainNames.optional(),
    ntp: addresses4.optional(),
    rate: rate.optional(),
    probe: boolean.optional(),
    file: fileName.optional(),
    clients: oneOf(['any', 'known']).optional(),
    reservations: z
      .array(map({ mac: mac.optional(), 'remote-id': line.optional(), address: address4 }), {
        error: () => 'a list of reservations',
      })
      .optional(),
    relayed: z
      .array(map({ subnet: prefix, range, router: address4.optional() }), { error: () => 'a list of subnets' })
      .optional(),
  }).optional(),
  relay: map({
    to: addresses4,
    'circuit-id': id.optional(),
    'remote-id': remoteId.optional(),
    rate: rate.optional(),
  }).optional(),
});

/** Reads `ports.NAME.dhcp4`, checked by its schema already; null: the port has none. */
export function normalizeDhcp4(
  reader: Reader,
  given: z.infer<typeof dhcp4Schema> | undefined,
  path: Path,
  name: string,
  addresses: readonly PrefixValue[],
): Dhcp4Config | null {
  if (given === undefined) return null;
  const { client, server, relay } = given;
  if ([client, server, relay].filter((role) => role !== undefined).length > 1)
    reader.reportWords(path, 'one of client, server and relay', 'more');
  const four = addresses.filter(({ family }) => family === 4);
  const [own] = four;
  const needs = server !== undefined ? 'server' : relay !== undefined ? 'relay' : '';
  if (needs !== '' && own === undefined)
    reader.reportWords([...path, needs], `an IPv4 address of ports.${name}`, 'none', 'add one to "addresses"');
  return {
    client:
      client === undefined
        ? null
        : {
            name,
            hostName: client['host-name'] ?? '',
            clientId: client['client-id'] === undefined ? null : Uint8Array.of(0, ...client['client-id']),
            routes: client.routes ?? DEFAULTS['ports.NAME.dhcp4.client.routes'],
            release: client.release ?? DEFAULTS['ports.NAME.dhcp4.client.release'],
          },
    server: server === undefined ? null : serverOf(reader, server, [...path, 'server'], name, four),
    relay:
      relay === undefined
        ? null
        : {
            to: relay.to,
            circuitId: relay['circuit-id'] ?? new TextEncoder().encode(name),
            remoteId: relay['remote-id'] ?? DEFAULTS['ports.NAME.dhcp4.relay.remote-id'],
            rate: relay.rate ?? DEFAULTS['ports.NAME.dhcp4.relay.rate'],
          },
  };
}

type GivenServer = NonNullable<z.infer<typeof dhcp4Schema>['server']>;

function serverOf(
  reader: Reader,
  given: GivenServer,
  path: Path,
  name: string,
  addresses: readonly PrefixValue[],
): Dhcp4ServerConfig {
  const own = addresses.at(0);
  if (own !== undefined) checkRange(reader, given.range, own, [...path, 'range']);
  const pools: Dhcp4PoolConfig[] = [{ subnet: null, ...given.range, router: given.router ?? null }];
  given.relayed?.forEach(({ subnet, range: addresses, router }, n) => {
    const at = [...path, 'relayed', n];
    if (subnet.family !== 4) reader.report([...at, 'subnet'], 'a prefix of IPv4', subnet.text);
    else checkRange(reader, addresses, subnet, [...at, 'range']);
    // RFC 2132 §3.5: a router on the client's own subnet; the first address is the usual one.
    const first = networkWords(4, subnet.words, subnet.prefixLength)[0] | 0x01000000;
    pools.push({
      subnet: { words: subnet.words, prefixLength: subnet.prefixLength },
      ...addresses,
      router: router ?? first,
    });
  });
  const reservations = (given.reservations ?? []).map((one, n) => {
    if ((one.mac === undefined) === (one['remote-id'] === undefined))
      reader.reportWords(
        [...path, 'reservations', n],
        'either "mac" or "remote-id"',
        one.mac === undefined ? 'neither' : 'both',
      );
    const key =
      one.mac !== undefined
        ? reservationKey('mac', macBytes(one.mac.lo, one.mac.hi))
        : reservationKey('remote', one['remote-id'] ?? new Uint8Array(0));
    return { key, address: hostOrder(one.address) };
  });
  checkReservations(reader, reservations, given, addresses, [...path, 'reservations']);
  if (given.clients === 'known' && reservations.length === 0)
    reader.warn([...path, 'clients'], 'nobody has a reservation, so nobody is served');
  return {
    name,
    pools,
    lease: given.lease ?? DEFAULTS['ports.NAME.dhcp4.server.lease'],
    dns: given.dns ?? [],
    domain: given.domain?.[0] ?? '',
    ntp: given.ntp ?? [],
    reservations,
    rate: given.rate ?? DEFAULTS['ports.NAME.dhcp4.server.rate'],
    probe: given.probe ?? DEFAULTS['ports.NAME.dhcp4.server.probe'],
    file: given.file ?? '',
    clients: given.clients ?? DEFAULTS['ports.NAME.dhcp4.server.clients'],
  };
}

function checkRange(reader: Reader, given: { first: number; last: number }, subnet: PrefixValue, path: Path): void {
  const inside = (host: number) =>
    inPrefix([rawOrder(host), 0, 0, 0], { family: 4, words: subnet.words, prefixLength: subnet.prefixLength });
  if (!inside(given.first) || !inside(given.last)) reader.reportWords(path, `addresses of ${subnet.text}`, 'others');
  else if ([given.first, given.last].some((host) => isNetworkOrBroadcast(rawOrder(host), subnet)))
    reader.reportWords(path, 'addresses of hosts', 'the network or broadcast address');
}

/** An address of a host in a subnet that is served, for one client; a client has one in each subnet. */
function checkReservations(
  reader: Reader,
  reservations: Dhcp4ServerConfig['reservations'],
  given: GivenServer,
  own: readonly PrefixValue[],
  path: Path,
): void {
  if (own.length === 0) return;
  const subnets = [...own, ...(given.relayed ?? []).map(({ subnet }) => subnet)].filter(({ family }) => family === 4);
  const nameOf = ({ words, prefixLength }: PrefixValue) =>
    `${formatAddress(4, ...networkWords(4, words, prefixLength))}/${prefixLength}`;
  const clients = new Map<string, number>();
  const addresses = new Set<number>();
  reservations.forEach(({ key, address }, n) => {
    const where = [...path, n, 'address'];
    const words = [rawOrder(address), 0, 0, 0] as const;
    const text = formatAddress(4, ...words);
    const subnet = subnets.find((one) => inPrefix(words, one));
    if (subnet === undefined) {
      reader.report(where, `an address of ${subnets.map(nameOf).join(' or ')}`, text);
      return;
    }
    const client = `${key} ${nameOf(subnet)}`;
    const first = clients.get(client);
    if (own.some((one) => one.words[0] === words[0]))
      reader.report(where, 'the address of a client', text, "it is this router's own");
    else if (isNetworkOrBroadcast(words[0], subnet))
      reader.report(where, 'the address of a host', text, 'it is the network or broadcast address');
    else if (addresses.has(address)) reader.report(where, 'an address that is reserved once', text);
    else if (first !== undefined)
      reader.reportWords(
        [...path, n],
        'a client that has one reservation in a subnet',
        'another one',
        `reservations[${first}] is of the same client`,
      );
    addresses.add(address);
    if (first === undefined) clients.set(client, n);
  });
}

export const dnsSchema = map({
  ports: oneOrMore('the name of a port', (input) => (typeof input === 'string' ? input : undefined), 63).optional(),
  servers: servers.optional(),
  cache: integer(0, 1_000_000).optional(),
  'max-ttl': integer(0, 604_800).optional(),
  domain: domainNames.optional(),
  hosts: z.record(z.string(), hostAddresses, { error: () => 'a map of names to addresses' }).optional(),
});

/** Reads `dns`; null: the router answers no questions. `ports` is resolved when all ports are known. */
export function normalizeDns(
  reader: Reader,
  value: unknown,
  ports: readonly PortConfig[],
  scopes: Scopes,
): DnsConfig | null {
  if (value === undefined) return null;
  const given = reader.read(dnsSchema, value ?? {}, ['dns']) ?? {};
  // RFC 5358: by default no answers on ports where the provider, and with it everybody, is.
  const inside = ports.filter((port) => port.acceptRa === null && (port.dhcp4?.client ?? null) === null);
  for (const name of Object.keys(given.hosts ?? {}))
    if (toDomainName(name) === undefined)
      reader.report(['dns', 'hosts', name], 'a domain name without a dot at its end such as nas.home.arpa', name);
  const numbers = given.ports?.map((name, n) => scopes.port(name, ['dns', 'ports', n])).filter((port) => port >= 0);
  return {
    ports: numbers ?? inside.map(({ number }) => number),
    servers: given.servers ?? [],
    cache: given.cache ?? DEFAULTS['dns.cache'],
    maxTtl: given['max-ttl'] ?? DEFAULTS['dns.max-ttl'],
    domain:
      given.domain?.[0] ?? ports.find((port) => (port.dhcp4?.server?.domain ?? '') !== '')?.dhcp4?.server?.domain ?? '',
    hosts: new Map(Object.entries(given.hosts ?? {})),
  };
}
