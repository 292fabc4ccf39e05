/**
 * Checks: what the items of a configuration mean together. Errors where the router could not do what is written,
 * warnings where it could but hardly anybody means it.
 */
import { resolve } from 'node:path';
import { formatAddress, inPrefix, maskWords, type Words } from '../../dataplane/wire/address.ts';
import { isMapped } from '../compile-nat.ts';
import { CONNECTION_BYTES, FLOW_BYTES, MAPPING_BYTES } from './defaults.ts';
import { formatPlace, type Path } from './errors.ts';
import type { Reader } from './reader.ts';
import type { AddressValue, Config, PortConfig } from './types.ts';

/** @param memory bytes that this machine has: the tables may take half of it */
export function checkConfig(reader: Reader, config: Config, memory: number): void {
  checkAddresses(reader, config.ports);
  checkDevices(reader, config.ports);
  checkRoutes(reader, config);
  checkRules(reader, config);
  checkForwards(reader, config);
  checkLeaseFiles(reader, config);
  checkMemory(reader, config, memory);
}

/** Every address of a port once; connected prefixes that overlap. */
function checkAddresses(reader: Reader, ports: readonly PortConfig[]): void {
  const seen = new Map<string, Path>();
  for (const port of ports) {
    port.addresses.forEach((address, n) => {
      const path = ['ports', port.name, 'addresses', n];
      const text = formatAddress(address.family, ...(address.words as [number, number, number, number]));
      const first = seen.get(text);
      // Link-local addresses are unique on a link, not in a router (RFC 4291 §2.5.6).
      if (address.family === 6 && isLinkLocal(address)) return;
      if (first !== undefined)
        reader.report(path, 'an address that the router has once', text, `${placeOf(reader, first)} has it`);
      else seen.set(text, path);
      for (const other of ports.slice(0, port.number)) {
        for (const connected of other.addresses) {
          if (connected.family !== address.family || first !== undefined) continue;
          const shorter = connected.prefixLength <= address.prefixLength ? connected : address;
          const longer = shorter === connected ? address : connected;
          if (inPrefix(longer.words, shorter))
            reader.warn(path, `${address.text} overlaps ${connected.text} of port ${other.name}`);
        }
      }
    });
  }
}

function placeOf(reader: Reader, path: Path): string {
  const where = reader.where(path);
  return `${formatPlace(reader.source.file, where.line, where.column)}${where.path}`;
}

/** One device of the host, one port. */
function checkDevices(reader: Reader, ports: readonly PortConfig[]): void {
  const owners = new Map<string, PortConfig>();
  const writers = new Map<string, PortConfig>();
  for (const port of ports) {
    const owner = owners.get(port.ifname);
    if (port.ifname !== '' && owner !== undefined)
      reader.report(
        ['ports', port.name, 'ifname'],
        `a device that no other port has`,
        port.ifname,
        `${owner.name} has it`,
      );
    else if (port.ifname !== '') owners.set(port.ifname, port);
    for (const key of ['out', 'mirror'] as const) {
      const file = port[key];
      if (file === '') continue;
      const writer = writers.get(file);
      if (writer !== undefined || ports.some((other) => other.file === file))
        reader.report(['ports', port.name, key], 'a file that nothing else uses', file);
      else writers.set(file, port);
    }
  }
}

/** A route that is written twice counts once for every time: it is a second share of the same next hop. */
function checkRoutes(reader: Reader, config: Config): void {
  const seen = new Map<string, number>();
  config.routes.forEach((route, n) => {
    const key = [route.table, route.to.text, route.type, route.via?.text, route.port, route.metric].join(' ');
    const first = seen.get(key);
    if (first === undefined) seen.set(key, n);
    else reader.warn(['routes', n], `the same route as routes[${first}]; "weight" gives a next hop a larger share`);
  });
}

/** A rule that no packet comes to: the path asks about those of new connections alone (dataplane/path.ts). */
function checkRules(reader: Reader, config: Config): void {
  config.rules.forEach(({ states }, n) => {
    if (states.length > 0 && !states.includes('new'))
      reader.warn(
        ['rules', n, 'state'],
        'never asked: established and related packets pass before the rules, invalid ones are dropped; only "new" decides',
      );
  });
}

/** A lease file is one server's: two that write it would tear each other's records. */
function checkLeaseFiles(reader: Reader, { ports, delegation }: Config): void {
  const owners = new Map<string, Path>();
  const files: [Path, string][] = ports.map(({ name, dhcp4 }) => [
    ['ports', name, 'dhcp4', 'server', 'file'],
    dhcp4?.server?.file ?? '',
  ]);
  for (const [path, file] of [...files, [['delegation', 'file'], delegation.file] satisfies [Path, string]]) {
    if (file === '') continue;
    const owner = owners.get(resolve(file));
    if (owner === undefined) owners.set(resolve(file), path);
    else reader.report(path, 'a lease file that nothing else has', file, `${placeOf(reader, owner)} has it`);
  }
}

/** Forwards compared with each other; beyond, the search would take longer than the warning is worth. */
const MAX_COMPARED = 1000;

/** A forward whose ports another one has taken. */
function checkForwards(reader: Reader, config: Config): void {
  const forward = config.nat.forward.slice(0, MAX_COMPARED);
  forward.forEach((entry, n) => {
    for (const other of forward.slice(0, n)) {
      const covered =
        other.from.length === 0 &&
        other.to.family === entry.to.family &&
        entry.in.ports.every((port) => other.in.ports.includes(port)) &&
        entry.protocols.every((protocol) => other.protocols.includes(protocol)) &&
        (other.port === null ||
          (entry.port !== null && other.port[0] <= entry.port[0] && entry.port[1] <= other.port[1]));
      if (!covered) continue;
      const line = other.where.line === 0 ? other.where.path : `line ${other.where.line}`;
      reader.warnings.push(
        `${formatPlace(config.file, entry.where.line, entry.where.column)}${entry.where.path}: never reached, ${line} takes it all`,
      );
      break;
    }
  });
}

function checkMemory(reader: Reader, config: Config, memory: number): void {
  const budget = Math.floor(memory / 2);
  const size = (bytes: number) => `${bytes} bytes each, in half of this machine's ${Math.floor(memory / 1048576)} MiB`;
  const each = CONNECTION_BYTES + (config.nat.masquerade.some(isMapped) ? MAPPING_BYTES : 0);
  const connections = Math.floor(budget / each);
  if (config.conntrack.max > connections)
    reader.report(['conntrack', 'max'], `a number from 1 to ${connections} (${size(each)})`, config.conntrack.max);
  const flowSize = size(FLOW_BYTES);
  const flows = Math.floor(budget / FLOW_BYTES);
  if (config.offload.entries > flows)
    reader.report(['offload', 'entries'], `a number from 0 to ${flows} (${flowSize})`, config.offload.entries);
  if (config.offload.flowCacheEntries > flows)
    reader.report(
      ['offload', 'flow-cache', 'entries'],
      `a number from 0 to ${flows} (${flowSize})`,
      config.offload.flowCacheEntries,
    );
}

/** True for the two addresses of an IPv4 subnet that are no host's (RFC 3021: a /31 has none of them). Raw words. */
export function isNetworkOrBroadcast(word: number, subnet: { words: Words; prefixLength: number }): boolean {
  const mask = maskWords(4, subnet.prefixLength)[0];
  return subnet.prefixLength < 31 && ((word & ~mask) === 0 || (word | mask) === -1);
}

/** True for a network or broadcast address of the most specific connected prefix that covers it. */
export function isNoHost(ports: readonly PortConfig[], { family, words }: AddressValue): boolean {
  if (family !== 4) return false;
  const covering = ports
    .flatMap(({ addresses }) => addresses)
    .filter((own) => own.family === 4 && inPrefix(words, own))
    .sort((a, b) => b.prefixLength - a.prefixLength);
  return covering.length > 0 && isNetworkOrBroadcast(words[0], covering[0]);
}

/** fe80::/10. */
export function isLinkLocal(address: AddressValue): boolean {
  return address.family === 6 && (address.words[0] & 0xc0ff) === 0x80fe;
}

/** The port with the longest connected prefix that covers the address, or −1. */
export function connectedPort(ports: readonly PortConfig[], family: number, words: Words): number {
  let best = -1;
  let bestLength = -1;
  for (const port of ports) {
    for (const address of port.addresses) {
      if (address.family !== family || address.prefixLength <= bestLength || !inPrefix(words, address)) continue;
      best = port.number;
      bestLength = address.prefixLength;
    }
  }
  return best;
}

/** True when the address is one of the router's own. */
export function isOwnAddress(ports: readonly PortConfig[], family: number, words: Words): boolean {
  return ports.some((port) =>
    port.addresses.some((own) => own.family === family && own.words.every((word, n) => word === words[n])),
  );
}
