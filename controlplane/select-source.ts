/**
 * Source and destination address selection (RFC 6724): which of the router's own addresses a packet of its own carries,
 * and in which order several destinations are tried.
 *
 * The policy table (§2.1) is configurable (section `address-selection`); the default one keeps unique local addresses to
 * themselves and prefers IPv6 to IPv4. Candidates are the addresses of the port that the packet leaves by (rule 5); a router whose port there has only a
 * link-local address may use one of another port, as a loopback's (the weak host model, RFC 7084 WAA-9).
 *
 * Not here: rules 4 (home addresses), 5.5 (next hop that announced the prefix), and destination rules 1, 3, 7 (what is
 * reachable, deprecated or native is not known here).
 */
import { addressBytes, type Cidr, type Family, inPrefix, parseCidr, type Words } from '../dataplane/wire/address.ts';
import { type Addresses, isUsable, type OwnAddress } from './neighbour/addresses.ts';

export interface PolicyRow {
  prefix: Cidr;
  precedence: number;
  label: number;
}

function row(prefix: string, precedence: number, label: number): PolicyRow {
  return { prefix: parseCidr(prefix) as Cidr, precedence, label };
}

/** §2.1. IPv4 addresses are looked up as IPv4-mapped ones. */
export const DEFAULT_POLICY: readonly PolicyRow[] = [
  row('::1/128', 50, 0),
  row('::/0', 40, 1),
  row('::ffff:0:0/96', 35, 4),
  row('2002::/16', 30, 2),
  row('2001::/32', 5, 5),
  row('fc00::/7', 3, 13),
  row('::/96', 1, 3),
  row('fec0::/10', 1, 11),
  row('3ffe::/16', 1, 12),
];

/** §10.6: precedence and label of unique local addresses of the router's own site. */
const OWN_ULA = { precedence: 45, label: 14 } as const;

/** The table that is in force: the configured one, and a row for each /48 of unique local addresses that the router has. */
export function policyInForce(
  { policy, preferOwnUla }: { policy: readonly PolicyRow[]; preferOwnUla: boolean },
  addresses: Addresses,
): readonly PolicyRow[] {
  if (!preferOwnUla) return policy;
  const rows = [...policy];
  for (const { family, words } of addresses) {
    // RFC 4193 §3.1: fc00::/7, of which a site has a /48.
    if (family !== 6 || (words[0] & 0xfe) !== 0xfc) continue;
    const site: Words = [words[0], words[1] & 0xffff, 0, 0];
    const known = rows.some(({ prefix }) => prefix.prefixLength >= 48 && inPrefix(prefix.words, cidr(site)));
    if (!known) rows.push({ prefix: cidr(site), ...OWN_ULA });
  }
  return rows;
}

function cidr(words: Words): Cidr {
  return { family: 6, words, prefixLength: 48 };
}

/** IPv4 as IPv4-mapped IPv6 (§3.2). */
function mapped(family: Family, words: Words): Words {
  return family === 6 ? words : [0, 0, 0xffff0000 | 0, words[0]];
}

function policyOf(table: readonly PolicyRow[], words: Words): PolicyRow {
  let best: PolicyRow | null = null;
  for (const entry of table)
    if (inPrefix(words, entry.prefix) && (best === null || entry.prefix.prefixLength > best.prefix.prefixLength))
      best = entry;
  return best ?? { prefix: DEFAULT_POLICY[1].prefix, precedence: 40, label: 1 };
}

/** Scopes of RFC 4007 and §3.1, §3.2: 2 link-local (and loopback), 5 site-local, 14 global; of a group its own. */
export function scopeOf(family: Family, words: Words): number {
  const first = words[0] & 0xff;
  const second = (words[0] >> 8) & 0xff;
  if (family === 4) return first === 127 || (first === 169 && second === 254) ? 2 : 14;
  if (first === 0xff) return second & 0x0f;
  if (first === 0xfe && (second & 0xc0) === 0x80) return 2;
  if (first === 0xfe && (second & 0xc0) === 0xc0) return 5;
  return words[0] === 0 && words[1] === 0 && words[2] === 0 && words[3] === 0x01000000 ? 2 : 14;
}

/** Bits that both have in common from the left, at most `limit` (§2.2: not beyond the source's prefix length). */
function commonPrefix(a: Words, b: Words, limit: number): number {
  const [x, y] = [addressBytes(6, a), addressBytes(6, b)];
  for (let n = 0; n < 16; n++) {
    const differ = x[n] ^ y[n];
    if (differ !== 0) return Math.min(limit, n * 8 + Math.clz32(differ) - 24);
  }
  return limit;
}

/** Negative: `a` is the better source towards `to` (§5). */
function compareSources(a: OwnAddress, b: OwnAddress, to: Words, table: readonly PolicyRow[]): number {
  const family = a.family;
  const target = mapped(family, to);
  const [x, y] = [mapped(family, a.words), mapped(family, b.words)];
  // Rule 1: the destination itself.
  const same = (words: Words) => words.every((word, n) => word === target[n]);
  if (same(x) !== same(y)) return same(x) ? -1 : 1;
  // Rule 2: the smallest scope that is large enough, else the largest.
  const [sa, sb, sd] = [scopeOf(family, a.words), scopeOf(family, b.words), scopeOf(family, to)];
  if (sa !== sb) return sa < sb ? (sa < sd ? 1 : -1) : sb < sd ? -1 : 1;
  // Rule 3: deprecated ones only when nothing else is there.
  if (a.state !== b.state) return a.state === 'preferred' ? -1 : 1;
  // Rule 6: the label of the destination.
  const label = policyOf(table, target).label;
  const [la, lb] = [policyOf(table, x).label === label, policyOf(table, y).label === label];
  if (la !== lb) return la ? -1 : 1;
  // Rule 7 (temporary first) is for hosts that are to be hidden; a router is to be found: the lasting address.
  // Rule 8: the longest common prefix.
  const offset = family === 4 ? 96 : 0;
  return commonPrefix(y, target, b.prefixLength + offset) - commonPrefix(x, target, a.prefixLength + offset);
}

/**
 * The source for a packet of the router's own that leaves by `port` towards `to`; undefined when there is none of that
 * scope: then nothing can be sent.
 */
export function selectSource(
  addresses: Addresses,
  port: number,
  family: Family,
  to: Words,
  table: readonly PolicyRow[] = DEFAULT_POLICY,
): OwnAddress | undefined {
  const usable = (own: OwnAddress) => own.family === family && isUsable(own);
  const wanted = scopeOf(family, to);
  const enough = (own: OwnAddress) => scopeOf(family, own.words) >= Math.min(wanted, 14);
  let candidates = addresses.ofPort(port).filter((own) => usable(own) && enough(own));
  if (candidates.length === 0 && wanted > 2) candidates = [...addresses].filter((own) => usable(own) && enough(own));
  return candidates.sort((a, b) => compareSources(a, b, to, table))[0];
}

export interface Destination {
  family: Family;
  words: Words;
  /** The source that would be used; undefined: none, so that it cannot be reached. */
  source: OwnAddress | undefined;
}

/** Orders destinations, best first (§6); those that are equal stay as they were. */
export function orderDestinations(
  list: readonly Destination[],
  table: readonly PolicyRow[] = DEFAULT_POLICY,
): Destination[] {
  return [...list].sort((a, b) => compareDestinations(a, b, table));
}

function compareDestinations(a: Destination, b: Destination, table: readonly PolicyRow[]): number {
  // Rule 1: what has no source is unusable.
  if (a.source === undefined || b.source === undefined)
    return Number(a.source === undefined) - Number(b.source === undefined);
  // Rule 2: matching scope.
  const matches = (d: Destination) =>
    d.source !== undefined && scopeOf(d.family, d.words) === scopeOf(d.family, d.source.words);
  if (matches(a) !== matches(b)) return matches(a) ? -1 : 1;
  // Rule 3: no deprecated source.
  if (a.source.state !== b.source.state) return a.source.state === 'preferred' ? -1 : 1;
  // Rule 5: matching label; rule 6: higher precedence.
  const [x, y] = [policyOf(table, mapped(a.family, a.words)), policyOf(table, mapped(b.family, b.words))];
  const hasLabel = (d: Destination, own: PolicyRow) =>
    d.source !== undefined && policyOf(table, mapped(d.family, d.source.words)).label === own.label;
  if (hasLabel(a, x) !== hasLabel(b, y)) return hasLabel(a, x) ? -1 : 1;
  if (x.precedence !== y.precedence) return y.precedence - x.precedence;
  // Rule 8: smaller scope; rule 9: longest common prefix, within one family.
  const scope = scopeOf(a.family, a.words) - scopeOf(b.family, b.words);
  if (scope !== 0) return scope;
  if (a.family !== 6 || b.family !== 6) return 0;
  return (
    commonPrefix(b.words, b.source.words, b.source.prefixLength) -
    commonPrefix(a.words, a.source.words, a.source.prefixLength)
  );
}
