/**
 * Ports and zones: the sections that all others refer to by name.
 */
import { ALLOW_ALL, ALLOW_ARP, ALLOW_IPV4, ALLOW_IPV6 } from '../../dataplane/interfaces.ts';
import { MSS_OFF, MSS_PMTU } from '../../dataplane/mss.ts';
import { formatMac } from '../../dataplane/wire/address.ts';
import { DEFAULTS, MAX_CONFIGURED_PORTS } from './defaults.ts';
import { normalizeDhcp4 } from './dhcp4.ts';
import { normalizeAcceptRa, normalizeRa } from './discovery.ts';
import { isTreeMap, type TreeMap } from './document.ts';
import { didYouMean } from './errors.ts';
import type { Reader } from './reader.ts';
import { MIN_MTU6, portSchema, zoneSchema } from './schema.ts';
import { normalizeSecurityGroup } from './security.ts';
import type { FaultConfig, MacValue, PortConfig, ZoneConfig } from './types.ts';
import { interfaceName, NAME, NAME_RULE } from './values.ts';

/** Name of the TAP that leads to the host kernel. */
const HOST_TAP = 'sluice0';
const ALLOW = { ipv4: ALLOW_IPV4, arp: ALLOW_ARP, ipv6: ALLOW_IPV6 };
const DEVICE_KINDS = ['tap', 'packet', 'host'];

/** Keys that only some kinds have. A VLAN port shares its parent's device. */
const KEYS_OF_KINDS: Readonly<Record<string, readonly string[]>> = {
  ifname: DEVICE_KINDS,
  file: ['pcap'],
  out: ['pcap'],
  offloads: ['tap', 'packet', 'host', 'memory'],
  queues: ['tap', 'packet', 'memory'],
  fault: [...DEVICE_KINDS, 'pcap', 'memory'],
  mirror: [...DEVICE_KINDS, 'pcap', 'memory'],
};

/** Reads `ports`. The zone of each is only a name yet (see `normalizeZones`); `workers` is the default of `queues`. */
export function normalizePorts(reader: Reader, value: unknown, workers: number): PortConfig[] {
  const entries = reader.map(value, ['ports'], 'a map of port names');
  if (entries === undefined) return [];
  const names = Object.keys(entries);
  if (names.length === 0) reader.report(['ports'], 'at least one port', undefined);
  if (names.length > MAX_CONFIGURED_PORTS) {
    reader.reportWords(['ports'], `at most ${MAX_CONFIGURED_PORTS} ports`, String(names.length));
    names.length = MAX_CONFIGURED_PORTS;
  }
  const ports = names.map((name, number) => normalizePort(reader, name, number, entries[name] ?? {}, workers));
  linkVlans(reader, ports, entries);
  return ports;
}

function normalizePort(reader: Reader, name: string, number: number, value: unknown, workers: number): PortConfig {
  const path = ['ports', name];
  if (!NAME.test(name)) reader.report(path, NAME_RULE, name);
  if (name === HOST_TAP) reader.report(path, 'a name that is free', name, 'it is the way to the host kernel');
  const given = reader.read(portSchema, value, path) ?? {};
  const isVlan = given.vlan !== undefined || given.parent !== undefined;
  const kind = isVlan ? 'vlan' : (given.kind ?? DEFAULTS['ports.NAME.kind']);
  for (const [key, kinds] of Object.entries(KEYS_OF_KINDS)) {
    if (!kinds.includes(kind) && isTreeMap(value) && key in value && !reader.faulty([...path, 'kind']))
      reader.reportWords(
        [...path, key],
        `no "${key}" on a port of kind ${kind}`,
        'one',
        `kinds that have it: ${kinds.join(', ')}`,
      );
  }
  if (isVlan && given.kind !== undefined)
    reader.reportWords([...path, 'kind'], 'no "kind" beside "vlan" and "parent"', given.kind, "the parent's is used");
  let ifname = given.ifname ?? '';
  if (ifname === '' && DEVICE_KINDS.includes(kind) && !reader.faulty(path)) {
    // The device is called as the port is, where the kernel allows it.
    if (interfaceName.safeParse(name).success) ifname = name;
    else reader.report([...path, 'ifname'], 'an interface name', undefined, `${name} is too long for one`);
  }
  if (ifname === HOST_TAP) reader.report([...path, 'ifname'], 'an interface name that is free', ifname);
  const ethertypes = given.ethertypes?.reduce((mask, type) => mask | ALLOW[type], 0) ?? ALLOW_ALL;
  const addresses = given.addresses ?? [];
  addresses.forEach((address, n) => {
    if ((ethertypes & (address.family === 4 ? ALLOW_IPV4 : ALLOW_IPV6)) === 0)
      reader.report([...path, 'addresses', n], 'addresses of families that "ethertypes" lets in', address.text);
  });
  if ((ethertypes & (ALLOW_IPV4 | ALLOW_ARP)) === ALLOW_IPV4)
    reader.warn([...path, 'ethertypes'], 'IPv4 without ARP reaches static neighbors only');
  // RFC 8200 §5: every link that carries IPv6 has an MTU of 1280 or more.
  const carriesIpv6 =
    (ethertypes & ALLOW_IPV6) !== 0 && (addresses.length === 0 || addresses.some((address) => address.family === 6));
  const known = !reader.faulty([...path, 'ethertypes']) && !hasFaultyAddress(reader, value, name);
  if (given.mtu !== undefined && given.mtu < MIN_MTU6 && carriesIpv6 && known) {
    const hint = 'IPv6 needs that (RFC 8200); "ethertypes: [ipv4, arp]" keeps it off the port';
    reader.report([...path, 'mtu'], `a number from ${MIN_MTU6} to 65535`, given.mtu, hint);
  }
  const mac = given.mac ?? (kind === 'packet' || kind === 'host' || isVlan ? null : macOf(name, number));
  const macText = mac?.text ?? name;
  const securityGroup = normalizeSecurityGroup(reader, given['security-group'], [...path, 'security-group']);
  return {
    name,
    number,
    kind,
    ifname,
    zone: -1,
    zoneName: given.zone ?? '',
    mac,
    addresses,
    mtu: given.mtu ?? DEFAULTS['ports.NAME.mtu'],
    mssClamp: given['mss-clamp'] === 'pmtu' ? MSS_PMTU : (given['mss-clamp'] ?? MSS_OFF),
    vlan: given.vlan ?? 0,
    parent: -1,
    up: given.up ?? DEFAULTS['ports.NAME.up'],
    ethertypes,
    // Where the stations are listed, nobody else's frames enter.
    sources: given.sources ?? securityGroup?.hosts.map(({ mac: station }) => station) ?? [],
    sourceCheck: given['source-check'] ?? DEFAULTS['ports.NAME.source-check'],
    securityGroup,
    fault: given.fault === undefined ? null : faultOf(given.fault),
    mirror: given.mirror ?? '',
    file: given.file ?? '',
    out: given.out ?? '',
    offloads: given.offloads ?? DEFAULTS['ports.NAME.offloads'],
    queues: given.queues ?? (kind === 'tap' || kind === 'packet' || kind === 'memory' ? workers : 1),
    conntrackZone: 0,
    dhcp4: normalizeDhcp4(reader, given.dhcp4, [...path, 'dhcp4'], name, addresses),
    ra: normalizeRa(reader, given.ra, [...path, 'ra']),
    acceptRa: normalizeAcceptRa(reader, given['accept-ra'], [...path, 'accept-ra'], name, macText),
    dhcp6: null,
    where: reader.where(path),
  };
}

/** True when addresses were left out after a report: then it is unknown whether the port has IPv6. */
function hasFaultyAddress(reader: Reader, value: unknown, name: string): boolean {
  const raw = isTreeMap(value) ? value.addresses : undefined;
  const path = ['ports', name, 'addresses'];
  return reader.faulty(path) || (Array.isArray(raw) && raw.some((_, n) => reader.faulty([...path, n])));
}

function faultOf(given: Partial<FaultConfig>): FaultConfig {
  return {
    loss: given.loss ?? DEFAULTS['ports.NAME.fault.loss'],
    duplicate: given.duplicate ?? DEFAULTS['ports.NAME.fault.duplicate'],
    reorder: given.reorder ?? DEFAULTS['ports.NAME.fault.reorder'],
    corrupt: given.corrupt ?? DEFAULTS['ports.NAME.fault.corrupt'],
    delay: given.delay ?? DEFAULTS['ports.NAME.fault.delay'],
    direction: given.direction ?? DEFAULTS['ports.NAME.fault.direction'],
    seed: given.seed ?? DEFAULTS['ports.NAME.fault.seed'],
  };
}

/** A locally administered MAC that depends on name and number only: a replay gives the same bytes everywhere. */
function macOf(name: string, number: number): MacValue {
  let hash = 0x811c9dc5; // FNV-1a
  for (let n = 0; n < name.length; n++) hash = Math.imul(hash ^ name.charCodeAt(n), 0x01000193);
  const lo = 0x02 | ((hash & 0xffffff) << 8);
  const hi = (hash >>> 24) | ((number & 0xff) << 8);
  return { lo, hi, text: formatMac(lo, hi) };
}

/** Resolves `parent`, in whatever order the ports were written. */
function linkVlans(reader: Reader, ports: readonly PortConfig[], entries: TreeMap): void {
  const byName = new Map(ports.map((port) => [port.name, port]));
  const tags = new Map<string, PortConfig>();
  for (const port of ports) {
    if (port.kind !== 'vlan') continue;
    const path = ['ports', port.name];
    const raw = entries[port.name] as TreeMap;
    if (port.vlan === 0) reader.report([...path, 'vlan'], 'a VLAN identifier beside "parent"', raw.vlan);
    const name = raw.parent;
    if (typeof name !== 'string') {
      reader.report([...path, 'parent'], 'the port that carries the VLAN', name);
      continue;
    }
    const parent = byName.get(name);
    if (parent === undefined) {
      reader.report([...path, 'parent'], 'the name of a port', name, didYouMean(name, byName.keys()));
      continue;
    }
    if (parent.kind === 'vlan') {
      reader.report([...path, 'parent'], 'a port that is not a VLAN itself', name);
      continue;
    }
    const tag = `${parent.number} ${port.vlan}`;
    const other = tags.get(tag);
    if (other !== undefined && port.vlan !== 0)
      reader.report([...path, 'vlan'], `a VLAN of ${name} that no other port has`, port.vlan, `${other.name} has it`);
    tags.set(tag, port);
    port.parent = parent.number;
    port.mac ??= parent.mac;
    if (raw.mtu === undefined) port.mtu = parent.mtu;
    else if (port.mtu > parent.mtu)
      reader.report([...path, 'mtu'], `at most the MTU of ${name}, ${parent.mtu}`, port.mtu);
  }
}

/**
 * Reads `zones` and puts the ports into them. Without the section, the zones are those that ports name. With it, a port
 * may only name a declared one; a port that names none joins the zone of its own name, which is made when needed.
 */
export function normalizeZones(reader: Reader, value: unknown, ports: readonly PortConfig[]): ZoneConfig[] {
  const entries = reader.map(value, ['zones'], 'a map of zone names') ?? {};
  const zones = new Map<string, ZoneConfig>();
  for (const name of Object.keys(entries)) {
    const path = ['zones', name];
    if (!NAME.test(name)) reader.report(path, NAME_RULE, name);
    const given = reader.read(zoneSchema, entries[name] ?? {}, path) ?? {};
    const zone = newZone(name, zones.size, reader, path);
    for (const family of ['ipv4', 'ipv6'] as const) {
      zone[family].forward = given[family]?.forward ?? given.forward ?? zone[family].forward;
      zone[family].input = given[family]?.input ?? given.input ?? zone[family].input;
    }
    zones.set(name, zone);
  }
  const declared = zones.size > 0;
  const names = [...zones.keys()];
  for (const port of ports) {
    const path = ['ports', port.name];
    if (reader.faulty([...path, 'zone'])) continue;
    if (declared && port.zoneName !== '' && !names.includes(port.zoneName)) {
      reader.report([...path, 'zone'], 'the name of a zone', port.zoneName, didYouMean(port.zoneName, names));
      continue;
    }
    if (port.zoneName === '') port.zoneName = port.name;
    let zone = zones.get(port.zoneName);
    if (zone === undefined) {
      zone = newZone(port.zoneName, zones.size, reader, path);
      zones.set(port.zoneName, zone);
      if (declared)
        reader.warn(path, `the port names no zone: it is alone in zone ${port.name}, which accepts everything`);
    }
    port.zone = zone.number;
    zone.ports.push(port.number);
  }
  return [...zones.values()];
}

function newZone(name: string, number: number, reader: Reader, path: string[]): ZoneConfig {
  const verdicts = () => ({ forward: DEFAULTS['zones.NAME.forward'], input: DEFAULTS['zones.NAME.input'] });
  return { name, number, ipv4: verdicts(), ipv6: verdicts(), ports: [], where: reader.where(path) };
}
