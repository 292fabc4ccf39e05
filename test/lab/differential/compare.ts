/**
 * compare: what the kernel sent against what Sluice sent for the same input, byte for byte, per port and in order.
 *
 * A difference is real unless a normalisation, asked for by name, accounts for it:
 *
 *   ip-id            the IPv4 identification of packets that the router itself made (ICMP errors, resets, echo replies
 *                    of its own addresses): nobody prescribes it (RFC 6864 §4). Forwarded packets keep theirs, and stay
 *                    compared.
 *   chosen-port      a source port that NAT had to choose because the wanted one was taken: which one is free to the
 *                    router. The two choices are paired when they first appear, and must then be used alike. Neither
 *                    may be one of `kept`: who kept a port has not chosen.
 *   fragment-id      the identification of IPv6 fragments: Linux puts tracked datagrams together and cuts them anew,
 *                    with a number of its own. Paired like ports, also where an ICMP error quotes it.
 *   icmp-rate-limit  an ICMP error that one router sent and the other held back (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
 */
import { checksum, get16, get32, ip, put16, toHex, verify } from '../../lib/build.ts';
import { dissect, summary } from './dissect.ts';
import type { Played } from './scenario.ts';

export type Normalisation = 'ip-id' | 'chosen-port' | 'fragment-id' | 'icmp-rate-limit';

/** What each side chose, found by what the other side chose. */
type Pairs = Map<string, number>;

export interface CompareOptions {
  ports: readonly string[];
  normalise?: readonly string[];
  /** Names in the report; default kernel and sluice. */
  names?: readonly [string, string];
  /** Addresses of the router: what it answers from them is its own. */
  own?: readonly string[];
  /** Ports that hosts use: nobody chooses one of them. */
  kept?: ReadonlySet<number>;
}

/** What the comparison of two frames needs to know. */
interface Context {
  wanted: ReadonlySet<string>;
  own: ReadonlySet<string>;
  kept: ReadonlySet<number>;
}

const NORMALISATIONS: readonly string[] = ['ip-id', 'chosen-port', 'fragment-id', 'icmp-rate-limit'];

interface Difference {
  /** Index of the input frame after which it shows. */
  after: number;
  text: string;
}

/** Null when both agree; else the earliest difference (by input frame), as text for people. */
export function compare(left: readonly Played[], right: readonly Played[], options: CompareOptions): string | null {
  const wanted = new Set(options.normalise ?? []);
  for (const n of wanted)
    if (!NORMALISATIONS.includes(n))
      throw new Error(`compare: expected a normalisation of ${NORMALISATIONS}, got "${n}"`);
  const names = options.names ?? (['kernel', 'sluice'] as const);
  const own = new Set((options.own ?? []).map((address) => toHex(ip(address))));
  const context: Context = { wanted, own, kept: options.kept ?? new Set() };
  const differences = options.ports.flatMap((port) => {
    const of = (all: readonly Played[]) => all.filter((p) => p.port === port);
    return comparePort(port, of(left), of(right), context, names) ?? [];
  });
  differences.sort((x, y) => x.after - y.after);
  return differences[0]?.text ?? null;
}

function comparePort(
  port: string,
  a: readonly Played[],
  b: readonly Played[],
  context: Context,
  names: readonly [string, string],
): Difference | null {
  const { wanted } = context;
  let chosen: Pairs = new Map();
  let n = 0;
  let m = 0;
  while (n < a.length && m < b.length) {
    if (sameFrame(a[n].frame, b[m].frame, context, chosen)) {
      n++;
      m++;
      continue;
    }
    const skipped = wanted.has('icmp-rate-limit') ? skipErrors(a, n, b, m, context, chosen) : null;
    if (skipped === null) {
      const text = `port ${port}, frame ${n} (after input ${a[n].after} / ${b[m].after}) differs`;
      return { after: Math.min(a[n].after, b[m].after), text: `${text}\n${explain(a[n].frame, b[m].frame, names)}` };
    }
    [n, m, chosen] = skipped;
  }
  const left = (list: readonly Played[], from: number) =>
    list.slice(from).filter((p) => !(wanted.has('icmp-rate-limit') && isError(p.frame)));
  const [moreA, moreB] = [left(a, n), left(b, m)];
  if (moreA.length === 0 && moreB.length === 0) return null;
  return { after: (moreA[0] ?? moreB[0]).after, text: missing(port, moreA, moreB, names) };
}

/** Positions after errors that only one side sent, where both agree again; null when there are none. */
function skipErrors(
  a: readonly Played[],
  n: number,
  b: readonly Played[],
  m: number,
  context: Context,
  chosen: Pairs,
): [number, number, Pairs] | null {
  for (const [list, from, other] of [
    [a, n, b[m]],
    [b, m, a[n]],
  ] as const)
    for (let at = from + 1; at < list.length && isError(list[at - 1].frame); at++) {
      const pairs = new Map(chosen); // a guess that fails must leave no trace
      const agree =
        list === a
          ? sameFrame(list[at].frame, other.frame, context, pairs)
          : sameFrame(other.frame, list[at].frame, context, pairs);
      if (agree) return list === a ? [at, m, chosen] : [n, at, chosen];
    }
  return null;
}

function missing(port: string, a: readonly Played[], b: readonly Played[], names: readonly [string, string]): string {
  const [who, other, frames] = a.length > 0 ? [names[0], names[1], a] : [names[1], names[0], b];
  const start = (frame: Uint8Array) => toHex(frame.subarray(0, 128)) + (frame.length > 128 ? '…' : '');
  const list = frames.map((p) => `  after input ${p.after}: ${summary(p.frame)}\n    ${start(p.frame)}`);
  return `port ${port}: ${who} sent ${frames.length} that ${other} did not\n${list.join('\n')}`;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, n) => byte === b[n]);
}

function sameFrame(a: Uint8Array, b: Uint8Array, context: Context, chosen: Pairs): boolean {
  if (sameBytes(a, b)) return true;
  const { wanted } = context;
  let x = a;
  let y = b;
  if (wanted.has('ip-id') && isOwn(x, context) && isOwn(y, context)) {
    x = withoutId(x);
    y = withoutId(y);
  }
  if (wanted.has('fragment-id')) y = withPairedFragmentId(x, y, chosen);
  if (wanted.has('chosen-port')) {
    // A checksum may only differ because a port does: each frame must be right by itself.
    if (verify(x).length > 0 || verify(y).length > 0) return sameBytes(x, y);
    y = withPairedPorts(x, y, context, chosen);
  }
  return sameBytes(x, y);
}

/** Start of the IP header and of the transport header of a plain IPv4 or IPv6 frame; null for others. */
function headers(frame: Uint8Array): { l3: number; l4: number; proto: number } | null {
  const type = get16(frame, 12);
  if (type === 0x0800 && frame.length >= 34)
    return { l3: 14, l4: 14 + (frame[14] & 15) * 4, proto: get16(frame, 20) & 0x1fff ? -1 : frame[23] };
  if (type === 0x86dd && frame.length >= 54) return { l3: 14, l4: 54, proto: frame[20] };
  return null;
}

function isError(frame: Uint8Array): boolean {
  const h = headers(frame);
  if (h === null || frame.length <= h.l4) return false;
  const type = frame[h.l4];
  return h.proto === 1 ? [3, 4, 5, 11, 12].includes(type) : h.proto === 58 && type < 128;
}

/** What a router makes itself: ICMP errors, TCP resets, answers from its own addresses. */
function isOwn(frame: Uint8Array, context: Context): boolean {
  const h = headers(frame);
  if (h === null) return false;
  if (isError(frame) || (h.proto === 6 && (frame[h.l4 + 13] & 4) !== 0)) return true;
  return h.proto === 1 && frame[h.l4] === 0 && context.own.has(toHex(frame.subarray(26, 30)));
}

function withoutId(frame: Uint8Array): Uint8Array {
  if (get16(frame, 12) !== 0x0800) return frame;
  const out = frame.slice();
  const before = checksum(out.subarray(14, 14 + (out[14] & 15) * 4));
  put16(out, 18, 0);
  put16(out, 24, 0);
  // A header checksum that was wrong stays visibly wrong.
  put16(out, 24, checksum(out.subarray(14, 14 + (out[14] & 15) * 4)) ^ before);
  return out;
}

/** Remembers the first partner of either value; true when these two belong together. */
function isPair(chosen: Pairs, scope: string, x: number, y: number): boolean {
  const forth = `${scope} >${y}`;
  const reverse = `${scope} <${x}`;
  if (!chosen.has(forth) && !chosen.has(reverse)) {
    chosen.set(forth, x);
    chosen.set(reverse, y);
  }
  return chosen.get(forth) === x && chosen.get(reverse) === y;
}

/** Where an IPv6 packet that begins at `l3` has its fragment header, when that is its first extension header; else -1. */
function fragmentHeader(f: Uint8Array, l3: number): number {
  return f.length >= l3 + 48 && f[l3] >> 4 === 6 && f[l3 + 6] === 44 ? l3 + 40 : -1;
}

/** `y` with the identification of its fragment header, or of the one that it quotes, replaced by `x`'s, if they pair. */
function withPairedFragmentId(x: Uint8Array, y: Uint8Array, chosen: Pairs): Uint8Array {
  if (get16(x, 12) !== 0x86dd || get16(y, 12) !== 0x86dd || x.length !== y.length) return y;
  const quoted = isError(y);
  const l3 = quoted ? 62 : 14;
  const at = fragmentHeader(y, l3);
  if (at < 0 || fragmentHeader(x, l3) !== at) return y;
  const scope = `fragment ${toHex(y.subarray(l3 + 8, l3 + 40))}`;
  if (!isPair(chosen, scope, get32(x, at + 4), get32(y, at + 4))) return y;
  const out = y.slice();
  out.set(x.subarray(at + 4, at + 8), at + 4);
  // The error's own checksum covers the quote: where both are right, they differ by what was replaced.
  if (quoted && verify(x).length === 0 && verify(y).length === 0) out.set(x.subarray(56, 58), 56);
  return out;
}

/** `y` with its chosen source port replaced by the one that `x` has, when the two are a pair. */
function withPairedPorts(x: Uint8Array, y: Uint8Array, context: Context, chosen: Pairs): Uint8Array {
  const h = headers(y);
  if (h === null || (h.proto !== 6 && h.proto !== 17) || x.length !== y.length || y.length < h.l4 + 8) return y;
  const out = y.slice();
  const [mine, theirs] = [get16(y, h.l4), get16(x, h.l4)];
  if (mine === theirs || context.kept.has(mine) || context.kept.has(theirs)) return y;
  const scope = `${h.proto} ${toHex(y.subarray(h.l3 + 12, h.l3 + 16))}`;
  if (!isPair(chosen, scope, theirs, mine)) return y;
  put16(out, h.l4, theirs);
  const sumAt = h.l4 + (h.proto === 6 ? 16 : 6);
  put16(out, sumAt, get16(x, sumAt)); // both were verified; with equal ports and bytes they are equal
  return out;
}

/** Field by field, then the first eight rows of bytes that differ. */
export function explain(a: Uint8Array, b: Uint8Array, names: readonly [string, string] = ['kernel', 'sluice']): string {
  const lines = [
    `  ${names[0]}: ${summary(a)} (${a.length} bytes)`,
    `  ${names[1]}: ${summary(b)} (${b.length} bytes)`,
  ];
  const left = dissect(a);
  const right = dissect(b);
  const all = [...new Set([...left, ...right].map((f) => f.name))];
  for (const name of all) {
    const x = left.find((f) => f.name === name)?.text ?? '(absent)';
    const y = right.find((f) => f.name === name)?.text ?? '(absent)';
    if (x !== y) lines.push(`    ${name}: ${names[0]} ${x}, ${names[1]} ${y}`);
  }
  const length = Math.max(a.length, b.length);
  let rows = 0;
  for (let row = 0; row < length && rows < 8; row += 16) {
    const x = a.subarray(row, row + 16);
    const y = b.subarray(row, row + 16);
    if (sameBytes(x, y)) continue;
    rows++;
    const hexRow = (bytes: Uint8Array) => Array.from(bytes, (v) => v.toString(16).padStart(2, '0')).join(' ');
    const marks = Array.from({ length: Math.max(x.length, y.length) }, (_, n) => (x[n] === y[n] ? '  ' : '^^')).join(
      ' ',
    );
    const at = row.toString(16).padStart(4, '0');
    lines.push(
      `    ${at}  ${hexRow(x)}   ${names[0]}`,
      `    ${at}  ${hexRow(y)}   ${names[1]}`,
      `          ${marks}`.trimEnd(),
    );
  }
  return lines.join('\n');
}
