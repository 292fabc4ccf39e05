/**
 * The section `nat`: profile, masquerade, forward, dmz, trigger, bypass, nptv6, and what goes for all of them.
 */
import type { z } from 'zod';
import { DEFAULTS } from './defaults.ts';
import { isTreeMap } from './document.ts';
import type { Path } from './errors.ts';
import { checkHosts, type HostConfig } from './hosts.ts';
import type { Reader } from './reader.ts';
import {
  bypassSchema,
  dmzSchema,
  forwardSchema,
  masqueradeSchema,
  natShallow,
  nptv6Schema,
  triggerSchema,
} from './schema.ts';
import type { Scopes } from './scopes.ts';
import type {
  AddressValue,
  BypassConfig,
  DmzConfig,
  ForwardConfig,
  MasqueradeConfig,
  NatBehaviour,
  NatConfig,
  NatProfile,
  Nptv6Config,
  PrefixValue,
  TriggerConfig,
} from './types.ts';
import { PORT_PROTOCOLS, PROTOCOLS, toRange } from './values.ts';

/** RFC 4787 words for the profiles, whose names are those of RFC 3489 §5. */
const PROFILES: Readonly<Record<NatProfile, readonly [NatBehaviour, NatBehaviour]>> = {
  linux: ['address-and-port-dependent', 'address-and-port-dependent'],
  'full-cone': ['endpoint-independent', 'endpoint-independent'],
  'restricted-cone': ['endpoint-independent', 'address-dependent'],
  'port-restricted-cone': ['endpoint-independent', 'address-and-port-dependent'],
  symmetric: ['address-and-port-dependent', 'address-and-port-dependent'],
};

/** RFC 6092 and RFC 4864: what NAT does for IPv4 hosts, a filter does for IPv6 ones. */
const NO_NAT6 = 'IPv6 is routed, not translated: let it in with a rule';

export function normalizeNat(reader: Reader, value: unknown, scopes: Scopes, hosts: readonly HostConfig[]): NatConfig {
  const given = reader.read(natShallow, value ?? {}, ['nat']) ?? {};
  const profile = given.profile ?? DEFAULTS['nat.profile'];
  return {
    profile,
    masquerade: items(reader, given.masquerade, ['nat', 'masquerade'], (item, path) =>
      normalizeMasquerade(reader, item, path, scopes, profile),
    ),
    forward: items(reader, given.forward, ['nat', 'forward'], (item, path) =>
      normalizeForward(reader, item, path, scopes, hosts),
    ),
    dmz: normalizeDmz(reader, given.dmz, scopes, hosts),
    bypass: items(reader, given.bypass, ['nat', 'bypass'], (item, path) => normalizeBypass(reader, item, path)),
    trigger: items(reader, given.trigger, ['nat', 'trigger'], (item, path) =>
      normalizeTrigger(reader, item, path, scopes),
    ),
    nptv6: items(reader, given.nptv6, ['nat', 'nptv6'], (item, path) => normalizeNptv6(reader, item, path, scopes)),
    hairpin: given.hairpin ?? DEFAULTS['nat.hairpin'],
    inboundRefresh: given['inbound-refresh'] ?? DEFAULTS['nat.inbound-refresh'],
    reserved: given.reserved ?? [],
    log: given.log ?? '',
    timeouts: {
      udp: given.timeouts?.udp ?? DEFAULTS['nat.timeouts.udp'],
      tcpTransitory: given.timeouts?.['tcp-transitory'] ?? DEFAULTS['nat.timeouts.tcp-transitory'],
      tcpEstablished: given.timeouts?.['tcp-established'] ?? DEFAULTS['nat.timeouts.tcp-established'],
      icmp: given.timeouts?.icmp ?? DEFAULTS['nat.timeouts.icmp'],
    },
  };
}

/** Reads every element of a list; those that cannot be read are left out (and were reported). */
export function items<T>(
  reader: Reader,
  value: unknown,
  path: Path,
  normalize: (item: unknown, path: Path) => T | null,
): T[] {
  const results: T[] = [];
  reader.list(value, path).forEach((item, n) => {
    const result = normalize(item, [...path, n]);
    if (result !== null) results.push(result);
  });
  return results;
}

function normalizeMasquerade(
  reader: Reader,
  item: unknown,
  path: Path,
  scopes: Scopes,
  profile: NatProfile,
): MasqueradeConfig | null {
  const given = reader.read(masqueradeSchema, item, path, { out: '?' });
  if (given === undefined) return null;
  const out = scopes.find(given.out, [...path, 'out']);
  if (given.family === 'ipv6') reader.report([...path, 'family'], 'ipv4', given.family, NO_NAT6);
  given.from?.forEach((prefix, n) => {
    if (prefix.family === 6) reader.report([...path, 'from', n], 'addresses of IPv4', prefix.text, NO_NAT6);
  });
  const pool = given.to ?? [];
  pool.forEach((prefix, n) => {
    const at = pool.length === 1 ? [...path, 'to'] : [...path, 'to', n];
    if (prefix.family === 6) reader.report(at, 'an address of IPv4', prefix.text, NO_NAT6);
    else if (prefix.prefixLength < 16) reader.report(at, 'a prefix of /16 or longer', prefix.text);
  });
  checkBlocks(reader, given, path);
  if (out === null) return null;
  const [mapping, filtering] = PROFILES[profile];
  return {
    out,
    family: 4,
    from: given.from ?? [],
    to: pool.length === 0 ? null : firstAddress(pool[0]),
    pool,
    mapping: given.mapping ?? mapping,
    filtering: given.filtering ?? filtering,
    ports: given.ports ?? [toRange(DEFAULTS['nat.masquerade[].ports'])!],
    portsGiven: given.ports !== undefined,
    keepPort: profile === 'linux',
    allocation: given.allocation ?? allocationOf(profile, given.mapping ?? mapping),
    parity: given.parity ?? DEFAULTS['nat.masquerade[].parity'],
    pooling: given.pooling ?? DEFAULTS['nat.masquerade[].pooling'],
    blocks:
      given.blocks === undefined
        ? null
        : {
            size: given.blocks.size ?? DEFAULTS['nat.masquerade[].blocks.size'],
            max: given.blocks.max ?? DEFAULTS['nat.masquerade[].blocks.max'],
          },
    deterministic: given.deterministic ?? DEFAULTS['nat.masquerade[].deterministic'],
    sessions: given.sessions ?? 0,
    where: reader.where(path),
  };
}

/** Only the profile `linux` keeps a port across destinations; other dependent mappings take a new one for each. */
function allocationOf(profile: NatProfile, mapping: NatBehaviour): 'preserve' | 'random' {
  return profile === 'linux' || mapping === 'endpoint-independent' ? 'preserve' : 'random';
}

/** The first address of a prefix, as an address. */
function firstAddress(prefix: PrefixValue): AddressValue {
  const { family, words } = prefix;
  return { family, words, text: prefix.text.split('/')[0] };
}

/** What blocks of ports and deterministic NAT need beside themselves. */
function checkBlocks(reader: Reader, given: z.infer<typeof masqueradeSchema>, path: Path): void {
  if (given.deterministic === true) {
    const one = given.from?.length === 1 && given.to !== undefined;
    if (!one)
      reader.reportWords([...path, 'deterministic'], 'one prefix in "from", and "to" beside it', 'something else');
  }
  if (given.blocks === undefined && given.deterministic !== true) return;
  if (given.to === undefined) reader.reportWords([...path, 'blocks'], '"to" beside it: the addresses to share', 'none');
  if ((given.ports?.length ?? 1) > 1)
    reader.reportWords([...path, 'ports'], 'one range, to be cut into blocks', 'several');
  const [low, high] = given.ports?.[0] ?? toRange(DEFAULTS['nat.masquerade[].ports'])!;
  const ports = high - low + 1;
  const size = given.blocks?.size ?? DEFAULTS['nat.masquerade[].blocks.size'];
  if (given.deterministic === true) checkShare(reader, given, path, ports);
  else if (size > ports)
    reader.report([...path, 'blocks', 'size'], `a number from 1 to ${ports}, the ports of ${low}-${high}`, size);
}

/** RFC 7422 §2: every inside address has ports of its own, at least one. */
function checkShare(reader: Reader, given: z.infer<typeof masqueradeSchema>, path: Path, ports: number): void {
  const count = (prefixes: readonly PrefixValue[] = []): number =>
    prefixes.reduce((sum, prefix) => sum + 2 ** (32 - prefix.prefixLength), 0);
  const outside = count(given.to);
  if (outside === 0 || count(given.from) <= outside * ports) return;
  const most = `at most ${outside * ports} inside addresses: ${ports} for each outside address, with a port each`;
  reader.reportWords([...path, 'deterministic'], most, String(count(given.from)), 'name more addresses in "to"');
}

function normalizeTrigger(reader: Reader, item: unknown, path: Path, scopes: Scopes): TriggerConfig | null {
  const given = reader.read(triggerSchema, item, path, { from: '?' });
  if (given === undefined) return null;
  const from = scopes.find(given.from, [...path, 'from']);
  const protocols = given.proto ?? [PROTOCOLS.tcp, PROTOCOLS.udp];
  const opened = given.open.proto ?? protocols;
  for (const [key, list] of [['proto', protocols] as const, ['open', opened] as const])
    if (list.some((protocol) => !PORT_PROTOCOLS.includes(protocol)))
      reader.reportWords([...path, key], 'protocols that have ports', 'one without');
  if (from === null) return null;
  const timeout = given.timeout ?? DEFAULTS['nat.trigger[].timeout'];
  const open = { protocols: opened, port: given.open.port };
  return { from, protocols, port: given.port, open, timeout, where: reader.where(path) };
}

function normalizeNptv6(reader: Reader, item: unknown, path: Path, scopes: Scopes): Nptv6Config | null {
  const given = reader.read(nptv6Schema, item, path, { out: '?' });
  if (given === undefined) return null;
  const out = scopes.find(given.out, [...path, 'out']);
  const { internal, external } = given;
  // RFC 6296 §3.4: the adjustment needs a 16-bit word of the subnet, or (§3.5) of the interface identifier.
  for (const [key, prefix] of [['internal', internal] as const, ['external', external] as const])
    if (prefix.family !== 6 || prefix.prefixLength > 64)
      reader.report([...path, key], 'a prefix of IPv6, /64 or shorter', prefix.text);
  if (internal.prefixLength !== external.prefixLength)
    reader.report([...path, 'external'], `a prefix of /${internal.prefixLength}, as "internal" is`, external.text);
  return out === null ? null : { out, internal, external, where: reader.where(path) };
}

/** Of a forward and of the DMZ: an address, or a host that has a MAC; null after a report. */
function insideHost(
  reader: Reader,
  path: Path,
  to: AddressValue | undefined,
  name: string | undefined,
  hosts: readonly HostConfig[],
): { to: AddressValue; toHost: string } | null {
  if (reader.faulty([...path, 'to']) || reader.faulty([...path, 'to-host'])) return null;
  if ((to === undefined) === (name === undefined)) {
    reader.reportWords([...path, 'to'], 'either "to" or "to-host"', to === undefined ? 'neither' : 'both');
    return null;
  }
  if (name === undefined) return { to: to as AddressValue, toHost: '' };
  checkHosts(reader, hosts, [name], [...path, 'to-host']);
  if (hosts.find((host) => host.name === name)?.mac === null)
    reader.report([...path, 'to-host'], 'a host with a "mac", as IPv4 has no interface identifiers', name);
  return { to: { family: 4, words: [0, 0, 0, 0], text: `host ${name}` }, toHost: name };
}

function normalizeForward(
  reader: Reader,
  item: unknown,
  path: Path,
  scopes: Scopes,
  hosts: readonly HostConfig[],
): ForwardConfig | null {
  const given = reader.read(forwardSchema, item, path, { in: '?' });
  if (given === undefined) return null;
  const scope = scopes.find(given.in, [...path, 'in']);
  const protocols = given.proto ?? [PROTOCOLS.tcp, PROTOCOLS.udp];
  const inside = insideHost(reader, path, given.to?.address, given['to-host'], hosts);
  const toPort = given.to?.port ?? given['to-port'] ?? null;
  if (given.to !== undefined && given['to-port'] !== undefined)
    reader.report([...path, 'to-port'], 'no "to-port" beside "to", which has room for it', given['to-port'].join('-'));
  const port = given.port ?? null;
  const withPorts = protocols.filter((protocol) => PORT_PROTOCOLS.includes(protocol)).length;
  if (withPorts !== 0 && withPorts !== protocols.length) {
    reader.reportWords(
      [...path, 'proto'],
      'protocols that all have ports, or none of them',
      'both kinds',
      'write two entries',
    );
  } else if (withPorts === 0) {
    if (port !== null) reader.reportWords([...path, 'port'], 'no port with a protocol that has none', 'one');
    if (toPort !== null) reader.reportWords([...path, 'to'], 'no port with a protocol that has none', 'one');
  } else if (port === null) {
    reader.report([...path, 'port'], 'a port from 1 to 65535 or a range such as 8000-8010', undefined);
  } else if (toPort !== null && toPort[0] !== toPort[1] && toPort[1] - toPort[0] !== port[1] - port[0]) {
    const got = `${toPort[1] - toPort[0] + 1} ports`;
    reader.reportWords([...path, 'to'], `one port, or a range of ${port[1] - port[0] + 1} as in "port"`, got);
  }
  const address = inside?.to;
  if (address?.family === 6) reader.report([...path, 'to'], 'an address of IPv4', address.text, NO_NAT6);
  given.from?.forEach((prefix, n) => {
    if (address !== undefined && prefix.family !== address.family)
      reader.report([...path, 'from', n], `addresses of IPv${address.family}, as "to" is`, prefix.text);
  });
  if (scope === null || inside === null) return null;
  return { in: scope, protocols, port, ...inside, toPort, from: given.from ?? [], where: reader.where(path) };
}

/** One entry, or a list of them. */
function normalizeDmz(reader: Reader, value: unknown, scopes: Scopes, hosts: readonly HostConfig[]): DmzConfig[] {
  const read = (item: unknown, path: Path): DmzConfig | null => {
    const given = reader.read(dmzSchema, item, path);
    const scope = given === undefined ? null : scopes.find(given.in, [...path, 'in']);
    if (given?.to?.family === 6) reader.report([...path, 'to'], 'an address of IPv4', given.to.text, NO_NAT6);
    const inside = given === undefined ? null : insideHost(reader, path, given.to, given['to-host'], hosts);
    return inside === null || scope === null ? null : { in: scope, ...inside, where: reader.where(path) };
  };
  const path: Path = ['nat', 'dmz'];
  if (isTreeMap(value)) {
    const only = read(value, path);
    return only === null ? [] : [only];
  }
  const all = items(reader, value, path, read);
  const seen = new Set<string>();
  all.forEach((entry) => {
    const key = `${entry.in.kind} ${entry.in.name}`;
    if (seen.has(key)) reader.warn(path, `a second host for ${entry.in.name} is never reached`);
    seen.add(key);
  });
  return all;
}

function normalizeBypass(reader: Reader, item: unknown, path: Path): BypassConfig | null {
  const given = reader.read(bypassSchema, item, path);
  if (given === undefined) return null;
  if (
    given.from === undefined &&
    given.to === undefined &&
    !reader.faulty([...path, 'from']) &&
    !reader.faulty([...path, 'to'])
  )
    reader.reportWords(
      path,
      '"from", "to" or both',
      'neither',
      'an entry without them would switch off all translation',
    );
  const { from = [], to = [] } = given;
  if (from.length > 0 && to.length > 0 && !to.some((prefix) => from.some((other) => other.family === prefix.family)))
    reader.report([...path, 'to'], `addresses of IPv${from[0].family}, as "from" is`, to[0].text);
  return { from, to, where: reader.where(path) };
}
