/**
 * `gateway` in the configuration: one WAN, some LANs, and everything between them by itself. What it means for the ports is
 * written into them here, as if the user had: whatever a port says itself stays.
 */
import { createHash } from 'node:crypto';
import { formatIpv6, maskWords, networkWords, type Words } from '../../dataplane/wire/address.ts';
import { hostOrder } from '../../dataplane/wire/bytes.ts';
import type { GatewayConfig } from '../gateway/gateway.ts';
import { DEFAULTS } from './defaults.ts';
import { normalizeDhcp4 } from './dhcp4.ts';
import { type DelegationConfig, normalizeDhcp6 } from './dhcp6.ts';
import { normalizeAcceptRa, normalizeRa } from './discovery.ts';
import type { Path } from './errors.ts';
import type { Reader } from './reader.ts';
import type { Scopes } from './scopes.ts';
import type { PortConfig, PrefixValue } from './types.ts';
import { boolean, fileName, leaf, map, oneOf, oneOrMore, prefix, reference } from './values.ts';

const ula = leaf('auto, none, or a prefix of fd00::/8 with 48 bits such as fd12:3456:789a::/48', (input) => {
  if (input === 'auto' || input === 'none') return input;
  const given = prefix.safeParse(input);
  const isUla = given.success && given.data.family === 6 && (given.data.words[0] & 0xff) === 0xfd;
  return isUla && given.data.prefixLength === 48 ? given.data : undefined;
});

export const gatewaySchema = map({
  wan: reference,
  lan: oneOrMore('the name of a port', (input) => (typeof input === 'string' ? input : undefined), 63),
  mode: oneOf(['v4', 'dual', 'v6']).optional(),
  ula: ula.optional(),
  'prefix-hint': prefix.optional(),
  'rapid-commit': boolean.optional(),
  script: fileName.optional(),
});

/** Reads `gateway` and gives its ports what they need; null: there is none. `hasDns`: the router answers questions. */
export function normalizeGateway(
  reader: Reader,
  value: unknown,
  ports: readonly PortConfig[],
  scopes: Scopes,
  delegation: DelegationConfig,
  hasDns: boolean,
): GatewayConfig | null {
  if (value === undefined || value === null) return null;
  const given = reader.read(gatewaySchema, value, ['gateway']);
  if (given === undefined) return null;
  const wan = ports[scopes.port(given.wan, ['gateway', 'wan'])];
  const lan = given.lan.map((name, n) => ports[scopes.port(name, ['gateway', 'lan', n])]);
  if (wan === undefined || lan.includes(undefined as never)) return null;
  lan.forEach((port, n) => {
    if (port === wan || lan.indexOf(port) !== n)
      reader.report(['gateway', 'lan', n], 'a port that is named once', port.name);
  });
  const mode = given.mode ?? DEFAULTS['gateway.mode'];
  const hint = given['prefix-hint'];
  // RFC 7084 WPD-2: what is asked for has a /64 for each LAN port, rounded up to a nibble.
  const longest = 64 - 4 * Math.ceil(Math.log2(lan.length) / 4);
  if (hint !== undefined && (hint.family !== 6 || hint.prefixLength > longest)) {
    const expected = `a prefix of IPv6 of at most ${longest} bits, with a /64 for each LAN port, such as ::/56`;
    reader.report(['gateway', 'prefix-hint'], expected, hint.text);
  }
  const path: Path = ['gateway'];
  const mac = wan.mac?.text ?? wan.name;
  if (mode !== 'v6') wan.dhcp4 ??= normalizeDhcp4(reader, { client: {} }, path, wan.name, wan.addresses);
  if (mode !== 'v4') {
    wan.acceptRa ??= normalizeAcceptRa(reader, {}, path, wan.name, mac);
    const client = {
      start: 'told',
      'ia-pd': [hint === undefined ? {} : { hint: hint.text }],
      ...(given['rapid-commit'] === undefined ? {} : { 'rapid-commit': given['rapid-commit'] }),
    };
    wan.dhcp6 ??= normalizeDhcp6(reader, { client }, path, wan.name, scopes, delegation);
  }
  const choice = given.ula ?? DEFAULTS['gateway.ula'];
  const local = mode === 'v4' || choice === 'none' ? null : localPrefix(choice, mac);
  lan.forEach((port, n) => {
    if (mode !== 'v4') equip6(reader, port, n, local, hasDns, scopes, delegation);
    if (mode !== 'v6') equip4(reader, port);
  });
  return {
    wan: { port: wan.number, name: wan.name },
    lan: lan.map(({ number, name }) => ({ port: number, name })),
    mode,
    script: given.script ?? '',
  };
}

/** Row E5: a unique local prefix (RFC 4193), the same at every start: 40 bits of a hash of the WAN's MAC. */
function localPrefix(given: 'auto' | PrefixValue, mac: string): Words {
  if (typeof given === 'object') return given.words;
  const hash = createHash('sha256').update(`unique local prefix of ${mac}`).digest();
  return [0xfd | (hash[0] << 8) | (hash[1] << 16) | (hash[2] << 24), hash[3] | (hash[4] << 8), 0, 0];
}

function equip6(
  reader: Reader,
  port: PortConfig,
  n: number,
  local: Words | null,
  hasDns: boolean,
  scopes: Scopes,
  delegation: DelegationConfig,
): void {
  const path: Path = ['gateway'];
  let resolver = '';
  if (local !== null) {
    const words: Words = [local[0], (local[1] & 0xffff) | ((n >> 8) << 16) | ((n & 255) << 24), 0, 0x01000000];
    resolver = formatIpv6(...words);
    port.addresses.push({ family: 6, words, prefixLength: 64, text: `${resolver}/64` });
  }
  const routes =
    local === null
      ? []
      : [{ to: { family: 6 as const, words: local, prefixLength: 48, text: `${formatIpv6(...local)}/48` } }];
  // Row E2: O = 1, and the resolver in the advertisement as well: some hosts listen to the one, some to the other.
  port.ra ??= normalizeRa(reader, { other: true, rdnss: hasDns ? 'router' : undefined, routes }, path);
  const server = hasDns && resolver !== '' ? { dns: resolver } : {};
  port.dhcp6 ??= normalizeDhcp6(reader, { server }, path, port.name, scopes, delegation);
}

/** Leases from the middle of the port's subnet up, unless the port says something of its own. */
function equip4(reader: Reader, port: PortConfig): void {
  const own = port.addresses.find(({ family, prefixLength }) => family === 4 && prefixLength <= 28);
  if (own === undefined || port.dhcp4 !== null) return;
  const network = hostOrder(networkWords(4, own.words, own.prefixLength)[0]);
  const broadcast = hostOrder(own.words[0] | ~maskWords(4, own.prefixLength)[0]);
  const half = Math.floor((broadcast - network) / 2);
  const range = { first: network + Math.min(half, 100), last: Math.min(broadcast - 1, network + 65_000) };
  port.dhcp4 = normalizeDhcp4(reader, { server: { range } }, ['gateway'], port.name, port.addresses);
}
