/**
 * Values: what may stand at a leaf of the configuration, as zod types.
 *
 * Every type here refuses with one issue whose message is the `expected …` of the error line; `params.hint` says what
 * to do, where that is not plain. So reader.ts needs no table of zod's own messages.
 */
import { z } from 'zod';
import {
  addressBits,
  addressBytes,
  formatAddress,
  formatMac,
  maskWords,
  networkWords,
  parseAddress,
  parseCidr,
  parseMac,
  type Words,
} from '../../dataplane/wire/address.ts';
import { didYouMean } from './errors.ts';
import type { AddressValue, ListenValue, MacValue, PortRange, PrefixValue } from './types.ts';

/** A map with these keys and no others. */
export function map<S extends z.ZodRawShape>(shape: S) {
  const keys = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'invalid_type' ? `a map with ${keys}` : undefined),
  });
}

type Parse<T> = (input: unknown) => T | undefined;
type Hint = (input: unknown) => string;

function refuse(
  ctx: z.core.$RefinementCtx,
  message: string,
  input: unknown,
  hint: string,
  path: (string | number)[] = [],
) {
  ctx.issues.push({ code: 'custom', message, input, path, params: { hint } });
  return z.NEVER;
}

/** A leaf: `parse` gives the value, or undefined for what is not one. */
export function leaf<T>(expected: string, parse: Parse<T>, hint: Hint = () => '') {
  return z.unknown().transform((input, ctx): T => parse(input) ?? refuse(ctx, expected, input, hint(input)));
}

/** One value or a list of them; always a list afterwards. */
export function oneOrMore<T>(expected: string, parse: Parse<T>, max = 1024, hint: Hint = () => '') {
  return z.unknown().transform((input, ctx): T[] => {
    const items = Array.isArray(input) ? input : [input];
    if (items.length === 0 || items.length > max) return refuse(ctx, `1 to ${max} of: ${expected}`, input, '');
    const values: T[] = [];
    items.forEach((item, n) => {
      const value = parse(item);
      if (value === undefined) refuse(ctx, expected, item, hint(item), Array.isArray(input) ? [n] : []);
      else values.push(value);
    });
    return values;
  });
}

/** A whole number. */
export function integer(low: number, high: number) {
  return leaf(`a number from ${low} to ${high}`, integerIn(low, high), (input) => {
    return typeof input === 'string' && /^\d+$/.test(input) ? 'write it without quotes' : '';
  });
}

export function integerIn(low: number, high: number): Parse<number> {
  return (input) =>
    typeof input === 'number' && Number.isInteger(input) && input >= low && input <= high ? input : undefined;
}

/** A probability. */
export const probability = leaf('a number from 0 to 1, such as 0.05', (input) =>
  typeof input === 'number' && input >= 0 && input <= 1 ? input : undefined,
);

export const boolean = leaf('true or false', (input) => (typeof input === 'boolean' ? input : undefined));

/** One of a few words. `also` maps other values to one of them (YAML 1.1 reads `on` as true). */
export function oneOf<const W extends string>(words: readonly W[], also: ReadonlyMap<unknown, W> = new Map()) {
  return leaf(wordList(words), wordParser(words, also), (input) => didYouMean(input, words));
}

/** One or more of a few words. */
export function someOf<const W extends string>(words: readonly W[]) {
  return oneOrMore(wordList(words), wordParser(words), words.length, (input) => didYouMean(input, words));
}

function wordList(words: readonly string[]): string {
  return `one of ${words.join(', ')}`;
}

function wordParser<W extends string>(words: readonly W[], also: ReadonlyMap<unknown, W> = new Map()): Parse<W> {
  return (input) => also.get(input) ?? words.find((word) => word === input);
}

/** A name of a port or a zone: it becomes part of file names and of options like `--in lan=FILE`. */
export const NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,31}$/;
export const NAME_RULE = 'a name: a letter, then up to 31 letters, digits, "_", "-" or "."';

export const name = leaf(NAME_RULE, (input) => (typeof input === 'string' && NAME.test(input) ? input : undefined));

/** A reference to a port or zone: whether it exists is for normalize.ts. */
export const reference = leaf('a name of a port or zone', (input) =>
  typeof input === 'string' && input !== '' ? input : undefined,
);

/** IFNAMSIZ is 16 with its terminator; the kernel refuses '/', ':', blanks, '.' and '..' (net/core/dev.c dev_valid_name). */
export const interfaceName = leaf('an interface name of 1 to 15 characters, without blanks, "/" and ":"', (input) =>
  typeof input === 'string' &&
  /^[^\s/:\0]{1,15}$/.test(input) &&
  Buffer.byteLength(input) < 16 &&
  !/^\.\.?$/.test(input)
    ? input
    : undefined,
);

export const fileName = leaf('the name of a file', (input) =>
  typeof input === 'string' && input !== '' && !input.includes('\0') ? input : undefined,
);

/** A path of a Unix socket: sun_path has 108 bytes with its terminator (unix(7)). */
export const socketPath = leaf('a path of 1 to 107 bytes', (input) =>
  typeof input === 'string' && input !== '' && !input.includes('\0') && Buffer.byteLength(input) < 108
    ? input
    : undefined,
);

export const text = leaf('a text of at most 200 characters', (input) =>
  typeof input === 'string' && input.length <= 200 ? input : undefined,
);

/** A name that a person logs in with (RFC 3414: SnmpAdminString of 1 to 32). */
export const text32 = leaf('a name of 1 to 32 characters', (input) =>
  typeof input === 'string' && /^[\x21-\x7e]{1,32}$/.test(input) ? input : undefined,
);

/** A token or a password: visible ASCII, so that it fits into a header field as it is (RFC 6750 §2.1). */
export function secret(shortest: number) {
  return leaf(
    `a secret of ${shortest} to 200 visible ASCII characters`,
    (input) =>
      typeof input === 'string' && input.length >= shortest && input.length <= 200 && /^[\x21-\x7e]+$/.test(input)
        ? input
        : undefined,
    (input) => (typeof input === 'number' ? 'quote it' : shortest > 8 ? 'such as `openssl rand -hex 16` makes' : ''),
  );
}

/** ADDRESS:PORT to listen on; IPv6 in brackets (RFC 3986 §3.2.2). Loopback and unspecified addresses are welcome here. */
export const listenAddress = leaf(
  'an address and a port such as 127.0.0.1:8080 or [::1]:8080',
  (input): ListenValue | undefined => {
    const match = typeof input === 'string' ? /^(?:([\d.]+)|\[([0-9A-Fa-f:.]+)\]):(\d{1,5})$/.exec(input) : null;
    const parsed = match === null ? null : parseAddress(match[1] ?? match[2]);
    const port = Number(match?.[3]);
    if (match === null || parsed === null || port > 65535 || (parsed.family === 6) !== (match[2] !== undefined))
      return undefined;
    const { family, words } = parsed;
    const first = words[0] & 0xff;
    if (family === 4 ? first >= 224 : first === 0xff) return undefined;
    const loopback = family === 4 ? first === 127 : formatAddress(6, ...(words as Quad)) === '::1';
    return { family, address: formatAddress(family, ...(words as Quad)), port, loopback };
  },
  (input) => (typeof input === 'string' && /^[a-z]/i.test(input) ? 'write the address instead of a name' : ''),
);

/** Names by which clients may call the API (the Host field of a request), lower case. */
export const hostNames = oneOrMore(
  'a host name such as router.lan',
  (input) =>
    typeof input === 'string' && /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/i.test(input)
      ? input.toLowerCase()
      : undefined,
  16,
);

/** `ipv4` and `ipv6` as numbers; null when the word is not there. */
export function familyOf(word: 'ipv4' | 'ipv6' | undefined): 4 | 6 | null {
  return word === undefined ? null : word === 'ipv4' ? 4 : 6;
}

// --- addresses -------------------------------------------------------------------------------------------------------

function toMac(input: unknown): MacValue | undefined {
  const mac = typeof input === 'string' ? parseMac(input) : null;
  // The group bit (IEEE 802) is the lowest of the first byte.
  if (mac === null || (mac.lo & 1) !== 0 || (mac.lo | mac.hi) === 0) return undefined;
  return { ...mac, text: formatMac(mac.lo, mac.hi) };
}

const MAC_RULE = 'a unicast MAC address such as 02:00:00:00:01:01';
export const mac = leaf(MAC_RULE, toMac);
/** As many as the interface table holds for a port. */
export const macs = (max: number) => oneOrMore(MAC_RULE, toMac, max);

export function toAddress(input: unknown): AddressValue | undefined {
  const address = typeof input === 'string' ? parseAddress(input) : null;
  if (address === null || !isUnicast(address.family, address.words)) return undefined;
  return { ...address, text: formatAddress(address.family, ...(address.words as Quad)) };
}

type Quad = [number, number, number, number];

/** Not unspecified, multicast, limited broadcast or loopback: something that a packet may be sent to by its address. */
function isUnicast(family: number, words: readonly number[]): boolean {
  const first = words[0] & 0xff;
  if (family === 4) return first !== 0 && first !== 127 && first < 224;
  const zeros = words[0] === 0 && words[1] === 0 && words[2] === 0;
  // IPv4-mapped addresses are for sockets and never on a link (RFC 4291 §2.5.5.2, RFC 6890).
  const mapped = words[0] === 0 && words[1] === 0 && words[2] === (0xffff0000 | 0);
  return first !== 0xff && !mapped && !(zeros && (words[3] === 0 || words[3] === 0x01000000));
}

const ADDRESS_RULE = 'a unicast address such as 192.168.1.10 or 2001:db8::10';
export const address = leaf(ADDRESS_RULE, toAddress, (input) =>
  typeof input === 'string' && input.includes('%') ? 'name the port with the key "port" instead of "%"' : '',
);

/** An address of a port, with its prefix length; host bits stay. */
export const portAddresses = oneOrMore(
  'a unicast address with its prefix length such as 192.168.1.1/24',
  (input): PrefixValue | undefined => {
    const cidr = typeof input === 'string' ? parseCidr(input) : null;
    if (cidr === null || !isUnicast(cidr.family, cidr.words)) return undefined;
    const { family, words, prefixLength } = cidr;
    if (family === 4 && prefixLength < 31) {
      // RFC 1122 §3.2.1.3: all ones and all zeros are no host. /31 has none of either (RFC 3021).
      const network = networkWords(4, words, prefixLength);
      if (words[0] === network[0] || (words[0] | lowOnes(prefixLength)) === words[0]) return undefined;
    }
    return { family, words, prefixLength, text: `${formatAddress(family, ...(words as Quad))}/${prefixLength}` };
  },
  64,
  (input) => {
    if (typeof input !== 'string') return '';
    const plain = parseAddress(input);
    if (plain !== null) return `add the prefix length, such as ${input}/${plain.family === 4 ? 24 : 64}`;
    return parseCidr(input)?.family === 4 ? 'network and broadcast addresses are no host' : '';
  },
);

/** The raw word with ones in all host bits of an IPv4 prefix. */
function lowOnes(prefixLength: number): number {
  return ~networkWords(4, [-1, 0, 0, 0], prefixLength)[0];
}

function toPrefix(input: unknown): PrefixValue | undefined {
  if (typeof input !== 'string') return undefined;
  const plain = parseAddress(input);
  const cidr = plain === null ? parseCidr(input) : { ...plain, prefixLength: addressBits(plain.family) };
  if (cidr === null) return undefined;
  const { family, words, prefixLength } = cidr;
  const network = networkWords(family, words, prefixLength);
  if (network.some((word, n) => word !== words[n])) return undefined;
  return { family, words: network, prefixLength, text: `${formatAddress(family, ...network)}/${prefixLength}` };
}

const PREFIX_RULE = 'an address or a prefix without host bits such as 10.0.0.0/8 or 2001:db8::/32';

function prefixHint(input: unknown): string {
  const cidr = typeof input === 'string' ? parseCidr(input) : null;
  if (cidr === null) return '';
  const network = networkWords(cidr.family, cidr.words, cidr.prefixLength);
  return `did you mean "${formatAddress(cidr.family, ...network)}/${cidr.prefixLength}"?`;
}

/** A destination or a set of addresses: one address is a prefix of full length. */
export const prefix = leaf(PREFIX_RULE, toPrefix, prefixHint);
export const prefixes = oneOrMore(PREFIX_RULE, toPrefix, 1024, prefixHint);

/** Addresses of IPv6 to give out: `FIRST-LAST`, or a prefix (all of it but its first address, the anycast one). */
export const addressRanges = oneOrMore(
  'a range such as 2001:db8:1::1000-2001:db8:1::1fff or a prefix of /64 to /127',
  (input): { first: Words; last: Words } | undefined => {
    if (typeof input !== 'string') return undefined;
    const cidr = toPrefix(input);
    if (cidr !== undefined && input.includes('/')) {
      if (cidr.family !== 6 || cidr.prefixLength < 64 || cidr.prefixLength > 127) return undefined;
      const [a, b, c, d] = cidr.words;
      const mask = maskWords(6, cidr.prefixLength);
      // RFC 4291 §2.6.1: the lowest address of a subnet is that of all its routers.
      return { first: [a, b, c, d | 0x01000000], last: [a | ~mask[0], b | ~mask[1], c | ~mask[2], d | ~mask[3]] };
    }
    const [first, last] = input.split('-').map((one) => toAddress(one.trim()));
    if (first?.family !== 6 || last?.family !== 6 || input.split('-').length !== 2) return undefined;
    if (first.words[0] !== last.words[0] || first.words[1] !== last.words[1]) return undefined;
    return compare(first.words, last.words) > 0 ? undefined : { first: first.words, last: last.words };
  },
  16,
);

/** Numeric order of two addresses on the wire. */
function compare(a: Words, b: Words): number {
  const [x, y] = [addressBytes(6, a), addressBytes(6, b)];
  for (let n = 0; n < 16; n++) if (x[n] !== y[n]) return x[n] - y[n];
  return 0;
}

const NAME_LABEL = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;
/** A domain name without a dot at its end (RFC 1035 §2.3.4: 63 octets a label, 253 in all), or undefined. */
export function toDomainName(input: unknown): string | undefined {
  if (typeof input !== 'string' || input.length > 253) return undefined;
  return input.split('.').every((label) => NAME_LABEL.test(label)) ? input : undefined;
}
export const domainNames = oneOrMore('a domain name such as home.example', toDomainName, 16);

// --- ports and protocols ---------------------------------------------------------------------------------------------

/** A port or a range of ports, or undefined. */
export function toRange(input: unknown): PortRange | undefined {
  if (typeof input === 'number')
    return Number.isInteger(input) && input > 0 && input < 65536 ? [input, input] : undefined;
  const match = typeof input === 'string' ? /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(input) : null;
  if (match === null) return undefined;
  const low = Number(match[1]);
  const high = Number(match[2] ?? match[1]);
  return low > 0 && high < 65536 && low <= high ? [low, high] : undefined;
}

const RANGE_RULE = 'a port from 1 to 65535 or a range such as 8000-8010';
export const portRange = leaf(RANGE_RULE, toRange);
export const portRanges = oneOrMore(RANGE_RULE, toRange, 64);

/**
 * Outside ports of a translation: a range, a list of them, or the set of a MAP-E customer edge (RFC 7597 §5.1), which is
 * many small ranges. Always a list of ranges afterwards, ascending and apart.
 */
export const portSet = z.unknown().transform((input, ctx): PortRange[] => {
  if (typeof input === 'object' && input !== null && !Array.isArray(input)) {
    const ranges = psidRanges(input as Record<string, unknown>);
    const expected = 'psid-offset 0 to 15, psid-length 0 to 16 (16 bits together at most), and a psid of that length';
    return ranges ?? refuse(ctx, expected, input, 'or write a range such as 1024-65535');
  }
  const items = Array.isArray(input) ? input : [input];
  const ranges: PortRange[] = [];
  if (items.length === 0 || items.length > 64) return refuse(ctx, `1 to 64 of: ${RANGE_RULE}`, input, '');
  items.forEach((item, n) => {
    const range = toRange(item);
    if (range === undefined) refuse(ctx, RANGE_RULE, item, '', Array.isArray(input) ? [n] : []);
    else ranges.push(range);
  });
  return merge(ranges);
});

function psidRanges(given: Record<string, unknown>): PortRange[] | undefined {
  const { 'psid-offset': offset = 6, 'psid-length': length, psid, ...rest } = given;
  if (Object.keys(rest).length > 0) return undefined;
  const a = integerIn(0, 15)(offset);
  const k = integerIn(0, 16)(length);
  const id = integerIn(0, 65535)(psid);
  if (a === undefined || k === undefined || id === undefined || a + k > 16 || id >= 2 ** k) return undefined;
  const m = 16 - a - k;
  const ranges: PortRange[] = [];
  // RFC 7597 §5.1: with an offset, the first of the 2^a stretches (the well-known ports) belongs to nobody.
  for (let j = a > 0 ? 1 : 0; j < 2 ** a; j++) {
    const first = j * 2 ** (16 - a) + id * 2 ** m;
    ranges.push([Math.max(first, 1), first + 2 ** m - 1]);
  }
  return merge(ranges.filter(([low, high]) => low <= high));
}

/** Ranges in ascending order, those that touch or overlap made one. */
function merge(ranges: PortRange[]): PortRange[] {
  const merged: [number, number][] = [];
  for (const [low, high] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = merged.at(-1);
    if (last !== undefined && low <= last[1] + 1) last[1] = Math.max(last[1], high);
    else merged.push([low, high]);
  }
  return merged;
}

/** Hairpins: with the outside address as source (true), with the inside one, or not at all. */
export const hairpinWord = leaf('true, false or internal', (input): boolean | 'internal' | undefined =>
  typeof input === 'boolean' || input === 'internal' ? input : undefined,
);

/** Single ports: as many as the kernel's helpers take. */
export const portNumbers = oneOrMore('a port from 1 to 65535', integerIn(1, 65535), 8);

/** ADDRESS, ADDRESS:PORT or ADDRESS:PORT-PORT; an IPv6 address with a port stands in brackets (RFC 3986 §3.2.2). */
export const target = leaf(
  'an address, with or without a port, such as 192.168.1.10 or 192.168.1.10:80',
  (input): { address: AddressValue; port: PortRange | null } | undefined => {
    if (typeof input !== 'string') return undefined;
    const plain = toAddress(input);
    if (plain !== undefined) return { address: plain, port: null };
    const match = /^(?:([\d.]+)|\[([0-9A-Fa-f:.]+)\])(?::([\d-]+))?$/.exec(input);
    if (match === null) return undefined;
    const parsed = toAddress(match[1] ?? match[2]);
    const port = match[3] === undefined ? null : toRange(match[3]);
    if (parsed === undefined || port === undefined || (parsed.family === 6) !== (match[2] !== undefined))
      return undefined;
    return { address: parsed, port };
  },
);

/** IANA protocol numbers of the names that may be written. */
export const PROTOCOLS: Readonly<Record<string, number>> = {
  tcp: 6,
  udp: 17,
  icmp: 1,
  icmpv6: 58,
  sctp: 132,
  dccp: 33,
  udplite: 136,
  gre: 47,
  esp: 50,
  ah: 51,
};
/** Those that have ports. */
export const PORT_PROTOCOLS: readonly number[] = [6, 17, 33, 132, 136];

export const protocols = oneOrMore(
  `a protocol: ${Object.keys(PROTOCOLS).join(', ')} or a number from 0 to 255`,
  (input) => {
    if (typeof input === 'string') return Object.hasOwn(PROTOCOLS, input) ? PROTOCOLS[input] : undefined;
    return integerIn(0, 255)(input);
  },
  16,
  (input) => didYouMean(input, Object.keys(PROTOCOLS)),
);

export const dscps = oneOrMore('a DSCP from 0 to 63', integerIn(0, 63), 64);

export const icmpTypes = oneOrMore('an ICMP type from 0 to 255', integerIn(0, 255), 64);
