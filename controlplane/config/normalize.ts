/**
 * Normalize: a source (text or object, as a tree) to a Config, section by section.
 *
 * Order matters once: ports and zones first, as everything else names them. Each item is read by its schema; names are
 * resolved, defaults filled in, and what an item's own keys mean together is checked here, in ports.ts and in nat.ts.
 * What items mean together is in checks.ts. Nothing here throws: problems collect in the reader.
 */
import { MAX_WORKERS } from '../../conntrack/table.ts';
import { checkConfig, connectedPort, isLinkLocal, isNoHost, isOwnAddress } from './checks.ts';
import { DEFAULTS } from './defaults.ts';
import { normalizeDns } from './dhcp4.ts';
import { normalizeDelegation, normalizeDhcp6 } from './dhcp6.ts';
import { isTreeMap } from './document.ts';
import type { Path } from './errors.ts';
import { normalizeGateway } from './gateway.ts';
import { checkHosts, type HostConfig, normalizeHosts } from './hosts.ts';
import { normalizeApi, normalizeSnmp } from './management.ts';
import { items, normalizeNat } from './nat.ts';
import { normalizePorts, normalizeZones } from './ports.ts';
import type { Reader } from './reader.ts';
import { normalizeRouting } from './routing.ts';
import {
  ALG_NAMES,
  algSchemas,
  conntrackSchema,
  controlSchema,
  firewallSchema,
  MIN_MTU6,
  neighborSchema,
  offloadSchema,
  routeSchema,
  ruleSchema,
  TIMEOUT_KEYS,
  topShallow,
} from './schema.ts';
import { Scopes } from './scopes.ts';
import { normalizeAddressSelection } from './selection.ts';
import type {
  AlgConfig,
  AlgName,
  Config,
  ConntrackConfig,
  FirewallConfig,
  NeighborConfig,
  OffloadConfig,
  PortConfig,
  PrefixValue,
  RouteConfig,
  RuleConfig,
} from './types.ts';
import { familyOf, PORT_PROTOCOLS, PROTOCOLS } from './values.ts';

/** What a configuration is measured against. */
export interface Machine {
  /** Bytes of memory. */
  memory: number;
  /** Processors that this process may use. */
  cores: number;
}

/** Reads all sections. The result is only meaningful when the reader has no problems afterwards. */
export function normalize(reader: Reader, machine: Machine): Config {
  const top = reader.read(topShallow, reader.source.root ?? {}, []) ?? {};
  const workers = top.workers ?? Math.min(MAX_WORKERS, Math.max(1, machine.cores - 1));
  const ports = normalizePorts(reader, top.ports, workers);
  const zones = normalizeZones(reader, top.zones, ports);
  const scopes = new Scopes(reader, ports, zones);
  const alg = normalizeAlgs(reader, top.alg);
  const hosts = normalizeHosts(reader, top.hosts, scopes);
  const delegation = normalizeDelegation(reader, top.delegation);
  for (const port of ports) {
    const raw = isTreeMap(top.ports) ? top.ports[port.name] : undefined;
    const value = isTreeMap(raw) ? raw.dhcp6 : undefined;
    port.dhcp6 = normalizeDhcp6(reader, value, ['ports', port.name, 'dhcp6'], port.name, scopes, delegation);
  }
  const wantsNames = top.dns !== undefined || (top.gateway !== undefined && top.gateway !== null);
  const gateway = normalizeGateway(reader, top.gateway, ports, scopes, delegation, wantsNames);
  const routes = items(reader, top.routes, ['routes'], (item, path) =>
    normalizeRoute(reader, item, path, ports, scopes),
  );
  const { routeTables, routingRules } = normalizeRouting(reader, top['routing-rules'], routes, scopes);
  const config: Config = {
    file: reader.source.file,
    ports,
    routes: routes.map(({ tableName, ...route }) => ({ ...route, table: routeTables.indexOf(tableName) + 1 })),
    routeTables,
    routingRules,
    neighbors: normalizeNeighbors(reader, top.neighbors, ports, scopes),
    zones,
    hosts,
    rules: items(reader, top.rules, ['rules'], (item, path) => normalizeRule(reader, item, path, scopes, alg, hosts)),
    firewall: normalizeFirewall(reader, top.firewall),
    nat: normalizeNat(reader, top.nat, scopes, hosts),
    alg,
    offload: normalizeOffload(reader, top.offload),
    conntrack: normalizeConntrack(reader, top.conntrack, ports, scopes),
    workers,
    logLevel: top['log-level'] ?? DEFAULTS['log-level'],
    control: {
      socket: reader.read(controlSchema, top.control ?? {}, ['control'])?.socket ?? DEFAULTS['control.socket'],
    },
    api: normalizeApi(reader, top.api),
    snmp: normalizeSnmp(reader, top.snmp),
    delegation,
    addressSelection: normalizeAddressSelection(reader, top['address-selection']),
    dns: normalizeDns(reader, wantsNames ? (top.dns ?? {}) : undefined, ports, scopes),
    gateway,
    warnings: reader.warnings,
  };
  checkConfig(reader, config, machine.memory);
  return config;
}

function normalizeRoute(
  reader: Reader,
  item: unknown,
  path: Path,
  ports: readonly PortConfig[],
  scopes: Scopes,
): (Omit<RouteConfig, 'table'> & { tableName: string }) | null {
  const given = reader.read(routeSchema, item, path);
  if (given === undefined) return null;
  const { to, via = null } = given;
  const type = given.type ?? DEFAULTS['routes[].type'];
  let port = scopes.port(given.port, [...path, 'port']);
  const viaPath = [...path, 'via'];
  if (type !== 'unicast') {
    if (via !== null) reader.report(viaPath, `no "via" on a route of type ${type}`, via.text);
    if (given.port !== undefined) reader.report([...path, 'port'], `no "port" on a route of type ${type}`, given.port);
  } else if (via === null) {
    if (given.port === undefined && !reader.faulty(viaPath) && !reader.faulty([...path, 'port']))
      reader.report(
        viaPath,
        'the address of the next router',
        undefined,
        'or name a "port" whose link has the destination',
      );
  } else {
    // RFC 8950: IPv4 may go by an IPv6 next hop; the reverse does not exist.
    if (to.family === 6 && via.family === 4) reader.report(viaPath, 'an IPv6 address, as "to" is', via.text);
    if (isOwnAddress(ports, via.family, via.words)) {
      reader.report(viaPath, 'the address of another router', via.text, "it is this router's own");
    } else if (isNoHost(ports, via)) {
      reader.report(viaPath, 'the address of a router', via.text, 'it is the network or broadcast address of its link');
    } else if (given.port === undefined && isLinkLocal(via)) {
      reader.report([...path, 'port'], 'the port that the link-local "via" is on', undefined);
    } else if (given.port === undefined) {
      port = connectedPort(ports, via.family, via.words);
      if (port < 0) reader.warn(viaPath, `no connected prefix covers ${via.text}: the route waits until one does`);
    } else if (port >= 0 && !isLinkLocal(via) && connectedPort([ports[port]], via.family, via.words) < 0) {
      reader.warn(viaPath, `no prefix of port ${ports[port].name} covers ${via.text}: it is taken to be on that link`);
    }
  }
  if (given.mtu !== undefined && to.family === 6 && given.mtu < MIN_MTU6)
    reader.report([...path, 'mtu'], `a number from ${MIN_MTU6} to 65535`, given.mtu, 'the route is of IPv6 (RFC 8200)');
  const metric = given.metric ?? DEFAULTS['routes[].metric'];
  const weight = given.weight ?? DEFAULTS['routes[].weight'];
  const tableName = given.table ?? DEFAULTS['routes[].table'];
  return { to, type, via, port, metric, weight, tableName, mtu: given.mtu ?? 0, where: reader.where(path) };
}

function normalizeFirewall(reader: Reader, value: unknown): FirewallConfig {
  const given = reader.read(firewallSchema, value ?? {}, ['firewall']) ?? {};
  return {
    ipv6: given.ipv6 ?? DEFAULTS['firewall.ipv6'],
    icmpv6: given.icmpv6 ?? DEFAULTS['firewall.icmpv6'],
  };
}

function normalizeNeighbors(
  reader: Reader,
  value: unknown,
  ports: readonly PortConfig[],
  scopes: Scopes,
): NeighborConfig[] {
  const seen = new Map<string, Path>();
  return items(reader, value, ['neighbors'], (item, path): NeighborConfig | null => {
    const given = reader.read(neighborSchema, item, path, { port: '?' });
    if (given === undefined) return null;
    const port = scopes.port(given.port, [...path, 'port']);
    const key = `${given.port} ${given.ip.text}`;
    const first = seen.get(key);
    if (first !== undefined)
      reader.report(
        [...path, 'ip'],
        'a neighbor that is not there yet',
        given.ip.text,
        `${reader.where(first).path} is it`,
      );
    seen.set(key, path);
    if (isOwnAddress(ports, given.ip.family, given.ip.words))
      reader.report([...path, 'ip'], 'the address of another node', given.ip.text, "it is this router's own");
    if (port < 0) return null;
    if (!isLinkLocal(given.ip) && connectedPort([ports[port]], given.ip.family, given.ip.words) < 0)
      reader.warn([...path, 'ip'], `no prefix of port ${given.port} covers ${given.ip.text}`);
    return { port, ip: given.ip, mac: given.mac, where: reader.where(path) };
  });
}

function normalizeRule(
  reader: Reader,
  item: unknown,
  path: Path,
  scopes: Scopes,
  algs: Readonly<Record<AlgName, AlgConfig>>,
  hosts: readonly HostConfig[],
): RuleConfig | null {
  const given = reader.read(ruleSchema, item, path, { verdict: 'accept' });
  if (given === undefined) return null;
  const protocols = given.proto ?? [];
  for (const key of ['port', 'sport'] as const) {
    if (given[key] !== undefined && (protocols.length === 0 || !protocols.every((p) => PORT_PROTOCOLS.includes(p))))
      reader.reportWords(
        [...path, key],
        `"${key}" with protocols that have ports only`,
        protocolList(protocols),
        'add "proto: tcp"',
      );
  }
  const types = given['icmp-type'];
  const icmpOnly = protocols.length === 1 && (protocols[0] === PROTOCOLS.icmp || protocols[0] === PROTOCOLS.icmpv6);
  if (types !== undefined && !icmpOnly)
    reader.reportWords([...path, 'icmp-type'], '"icmp-type" with the protocol icmp or icmpv6', protocolList(protocols));
  const implied = protocols.length === 1 ? { [PROTOCOLS.icmp]: 4, [PROTOCOLS.icmpv6]: 6 }[protocols[0]] : undefined;
  let family = familyOf(given.family);
  if (family !== null && implied !== undefined && implied !== family)
    reader.reportWords([...path, 'proto'], `a protocol of IPv${family}`, protocolList(protocols));
  family ??= (implied as 4 | 6 | undefined) ?? null;
  family = agreeOnFamily(reader, path, family, given.src ?? [], given.dst ?? []);
  for (const key of ['src-host', 'dst-host'] as const) checkHosts(reader, hosts, given[key] ?? [], [...path, key]);
  const helper = given.helper ?? null;
  if (helper !== null && !algs[helper].enabled)
    reader.warn([...path, 'helper'], `alg.${helper} is switched off: the rule attaches nothing`);
  return {
    from: scopes.find(given.from, [...path, 'from']),
    to: scopes.find(given.to, [...path, 'to']),
    family,
    protocols,
    src: given.src ?? [],
    dst: given.dst ?? [],
    srcHosts: given['src-host'] ?? [],
    dstHosts: given['dst-host'] ?? [],
    sport: given.sport ?? [],
    port: given.port ?? [],
    icmpTypes: types ?? [],
    states: given.state ?? [],
    verdict: given.verdict,
    name: given.name ?? given.comment ?? '',
    helper,
    where: reader.where(path),
  };
}

/** The family that a rule can match: its own word, else what its addresses say; reported when they cannot agree. */
function agreeOnFamily(
  reader: Reader,
  path: Path,
  family: 4 | 6 | null,
  src: readonly PrefixValue[],
  dst: readonly PrefixValue[],
): 4 | 6 | null {
  if (family !== null) {
    for (const [key, list] of [
      ['src', src],
      ['dst', dst],
    ] as const) {
      const wrong = list.find((prefix) => prefix.family !== family);
      if (wrong !== undefined) reader.report([...path, key], `addresses of IPv${family}`, wrong.text);
    }
    return family;
  }
  const possible = ([4, 6] as const).filter((candidate) =>
    [src, dst].every((list) => list.length === 0 || list.some((prefix) => prefix.family === candidate)),
  );
  if (possible.length === 0)
    reader.report([...path, 'dst'], `addresses of IPv${src[0].family}, as "src" is`, dst[0].text);
  return possible.length === 1 ? possible[0] : null;
}

function protocolList(protocols: readonly number[]): string {
  if (protocols.length === 0) return 'no "proto"';
  const names = protocols.map((p) => Object.keys(PROTOCOLS).find((name) => PROTOCOLS[name] === p) ?? String(p));
  return names.join(', ');
}

/** Each ALG: a map, `true`, `false`, or nothing behind its name (which switches it on). */
function normalizeAlgs(reader: Reader, value: unknown): Record<AlgName, AlgConfig> {
  const entries = reader.map(value, ['alg'], `a map with ${ALG_NAMES.join(', ')}`) ?? {};
  const unknown = Object.keys(entries).filter((key) => !(ALG_NAMES as readonly string[]).includes(key));
  reader.unknownKeys(['alg'], unknown, ALG_NAMES);
  const algs = {} as Record<AlgName, AlgConfig>;
  for (const name of ALG_NAMES) {
    const path = ['alg', name];
    const entry = entries[name];
    let given: { ports?: number[]; enabled?: boolean; loose?: boolean; bounce?: boolean } = {};
    let enabled: boolean = DEFAULTS[`alg.${name}.enabled`];
    if (typeof entry === 'boolean') {
      enabled = entry;
    } else if (name in entries) {
      if (entry !== null && !isTreeMap(entry)) reader.report(path, 'a map, true or false', entry);
      else given = reader.read(algSchemas[name], entry ?? {}, path) ?? {};
      enabled = given.enabled ?? true;
    }
    algs[name] = {
      name,
      enabled,
      ports: given.ports ?? [DEFAULTS[`alg.${name}.ports`]],
      loose: given.loose ?? false,
      bounce: given.bounce ?? false,
      where: reader.where(path),
    };
  }
  return algs;
}

function normalizeOffload(reader: Reader, value: unknown): OffloadConfig {
  const given = reader.read(offloadSchema, value ?? {}, ['offload']) ?? {};
  const entries = given.entries ?? DEFAULTS['offload.entries'];
  let mode = given.mode ?? DEFAULTS['offload.mode'];
  if (entries === 0) {
    if (mode !== 'off') reader.warn(['offload', 'entries'], 'a table of 0 entries means mode off');
    mode = 'off';
  }
  return {
    mode,
    entries,
    programAfter: given['program-after'] ?? DEFAULTS['offload.program-after'],
    rate: given.rate ?? DEFAULTS['offload.rate'],
    latency: given.latency ?? DEFAULTS['offload.latency'],
    inspectFirst: given['inspect-first'] ?? DEFAULTS['offload.inspect-first'],
    engine: given.engine ?? DEFAULTS['offload.engine'],
    flowCacheEntries: given['flow-cache']?.entries ?? DEFAULTS['offload.flow-cache.entries'],
    where: reader.where(['offload']),
  };
}

function normalizeConntrack(reader: Reader, value: unknown, ports: PortConfig[], scopes: Scopes): ConntrackConfig {
  const path = ['conntrack'];
  const given = reader.read(conntrackSchema, value ?? {}, path) ?? {};
  const timeouts: Record<string, number> = {};
  for (const [key, kernel] of TIMEOUT_KEYS) {
    const seconds = given.timeouts?.[key];
    if (seconds !== undefined) timeouts[kernel] = seconds;
  }
  // A port's own number wins over its zone's, in whatever order they were written.
  const named = Object.entries(given.zones ?? {}).map(([name, number]) => ({
    number,
    scope: scopes.find(name, [...path, 'zones', name]),
  }));
  for (const kind of ['zone', 'port'] as const)
    for (const { scope, number } of named)
      if (scope?.kind === kind) for (const port of scope.ports) ports[port].conntrackZone = number;
  return {
    max: given.max ?? DEFAULTS['conntrack.max'],
    tcpLiberal: given['tcp-liberal'] ?? DEFAULTS['conntrack.tcp-liberal'],
    checksum: given.checksum ?? DEFAULTS['conntrack.checksum'],
    timeouts,
    where: reader.where(path),
  };
}
