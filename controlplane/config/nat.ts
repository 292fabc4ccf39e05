/**
 * The section `nat`: profile, masquerade, forward, dmz, bypass.
 */
import { DEFAULTS } from './defaults.ts';
import { isTreeMap } from './document.ts';
import type { Path } from './errors.ts';
import type { Reader } from './reader.ts';
import { bypassSchema, dmzSchema, forwardSchema, masqueradeSchema, natShallow } from './schema.ts';
import type { Scopes } from './scopes.ts';
import type {
  BypassConfig,
  DmzConfig,
  ForwardConfig,
  MasqueradeConfig,
  NatBehaviour,
  NatConfig,
  NatProfile,
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

export function normalizeNat(reader: Reader, value: unknown, scopes: Scopes): NatConfig {
  const given = reader.read(natShallow, value ?? {}, ['nat']) ?? {};
  const profile = given.profile ?? DEFAULTS['nat.profile'];
  return {
    profile,
    masquerade: items(reader, given.masquerade, ['nat', 'masquerade'], (item, path) =>
      normalizeMasquerade(reader, item, path, scopes, profile),
    ),
    forward: items(reader, given.forward, ['nat', 'forward'], (item, path) =>
      normalizeForward(reader, item, path, scopes),
    ),
    dmz: normalizeDmz(reader, given.dmz, scopes),
    bypass: items(reader, given.bypass, ['nat', 'bypass'], (item, path) => normalizeBypass(reader, item, path)),
    hairpin: given.hairpin ?? DEFAULTS['nat.hairpin'],
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
  if (given.to?.family === 6) reader.report([...path, 'to'], 'an address of IPv4', given.to.text, NO_NAT6);
  if (out === null) return null;
  const [mapping, filtering] = PROFILES[profile];
  return {
    out,
    family: 4,
    from: given.from ?? [],
    to: given.to ?? null,
    mapping: given.mapping ?? mapping,
    filtering: given.filtering ?? filtering,
    ports: [given.ports ?? toRange(DEFAULTS['nat.masquerade[].ports'])!],
    portsGiven: given.ports !== undefined,
    keepPort: profile === 'linux',
    where: reader.where(path),
  };
}

function normalizeForward(reader: Reader, item: unknown, path: Path, scopes: Scopes): ForwardConfig | null {
  const given = reader.read(forwardSchema, item, path, { in: '?' });
  if (given === undefined) return null;
  const scope = scopes.find(given.in, [...path, 'in']);
  const protocols = given.proto ?? [PROTOCOLS.tcp, PROTOCOLS.udp];
  const { address, port: toPort } = given.to;
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
  if (address.family === 6) reader.report([...path, 'to'], 'an address of IPv4', address.text, NO_NAT6);
  given.from?.forEach((prefix, n) => {
    if (prefix.family !== address.family)
      reader.report([...path, 'from', n], `addresses of IPv${address.family}, as "to" is`, prefix.text);
  });
  if (scope === null) return null;
  return { in: scope, protocols, port, to: address, toPort, from: given.from ?? [], where: reader.where(path) };
}

/** One entry, or a list of them. */
function normalizeDmz(reader: Reader, value: unknown, scopes: Scopes): DmzConfig[] {
  const read = (item: unknown, path: Path): DmzConfig | null => {
    const given = reader.read(dmzSchema, item, path);
    const scope = given === undefined ? null : scopes.find(given.in, [...path, 'in']);
    if (given?.to.family === 6) reader.report([...path, 'to'], 'an address of IPv4', given.to.text, NO_NAT6);
    return given === undefined || scope === null ? null : { in: scope, to: given.to, where: reader.where(path) };
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
