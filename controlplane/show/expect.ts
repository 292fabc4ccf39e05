/**
 * `show expect`: what the helpers expect, as `conntrack -L expect` prints it, in the order of the table.
 *
 * The helper that is named is the master's, as the kernel does. The keys of PPTP calls stand in the same table and are no
 * expectations: they are left out. Filters: family and proto of what is expected, src and dst of the master.
 */
import {
  EXP_ADDRESS,
  EXP_CLASS,
  EXP_DEADLINE,
  EXP_DST,
  EXP_FLAGS,
  EXP_INACTIVE,
  EXP_KEY,
  EXP_KEYMAP,
  EXP_MASTER,
  EXP_PERMANENT,
  EXP_PORT,
  EXP_PORTS,
  EXP_SRC,
} from '../../conntrack/expect.ts';
import { type ExpectationView, expectLine, protocolName } from '../../conntrack/format.ts';
import { helperOf } from '../../conntrack/helpers/index.ts';
import {
  CT_HELPER,
  CT_KEY,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_WORDS,
  CT6_O_DST,
  CT6_O_SRC,
  CT6_WORDS,
} from '../../conntrack/record.ts';
import type { Tables } from '../../dataplane/tables.ts';
import { type Family, formatAddress } from '../../dataplane/wire/address.ts';
import { addressFilter, protocolFilter } from './filters.ts';
import { familyFilter, knownFilters, type Shown, type ShowSource } from './source.ts';

type Words = [number, number, number, number];

/** An expectation as JSON; `sport`, or `srckey` for GRE, is absent when any will do, and so is `src`. */
export interface ExpectJson {
  family: 'inet' | 'inet6';
  protocol: string;
  protocol_number: number;
  timeout: number;
  src?: string;
  dst: string;
  sport?: number;
  dport: number;
  class: number;
  flags: string[];
  helper: string;
  /** Record number of the master in `show conntrack -j`, and its ORIGINAL addresses. */
  master: { id: number; src: string; dst: string };
}

export function showExpect(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, ['family', 'proto', 'src', 'dst']);
  const family = familyFilter(filters);
  const proto = protocolFilter(filters.proto);
  const [src, dst] = [addressFilter('src', filters.src), addressFilter('dst', filters.dst)];
  const found = expectations(source.tables)
    .map((view) => ({ view, json: jsonOf(view) }))
    .filter(
      ({ view, json }) =>
        (family === null || view.family === family) &&
        proto(json.protocol, view.proto) &&
        src(json.master.src) &&
        dst(json.master.dst),
    );
  return { text: found.map(({ view }) => expectLine(view)).join('\n'), json: found.map(({ json }) => json) };
}

/** The lines of `show expect`. */
export function expectLines(tables: Tables): string[] {
  return expectations(tables).map(expectLine);
}

type MasteredView = ExpectationView & { master: number };

function expectations(tables: Tables): MasteredView[] {
  const table = tables.expectations;
  const now = tables.now();
  const found: MasteredView[] = [];
  if (table.count === 0) return found;
  for (let n = 0; n < table.capacity; n++)
    if (table.inUse(n, now) && (table.words[table.at(n) + EXP_FLAGS] & EXP_KEYMAP) === 0)
      found.push(viewOf(tables, table.at(n), now));
  return found;
}

function viewOf(tables: Tables, r: number, now: number): MasteredView {
  const e = tables.expectations.words;
  const { words: w, words6 } = tables.conntrack;
  const flags = e[r + EXP_FLAGS];
  const family = (e[r + EXP_KEY] >> 8) & 15;
  const master = e[r + EXP_MASTER] - 1;
  const c = master * CT_WORDS;
  const four = (at: number, from: Int32Array): Words => [from[at], from[at + 1], from[at + 2], from[at + 3]];
  const all: Words = family === 4 ? [-1, 0, 0, 0] : [-1, -1, -1, -1];
  const byAddress = (flags & EXP_ADDRESS) !== 0;
  const byPort = (flags & EXP_PORT) !== 0;
  const a = master * CT6_WORDS;
  return {
    master,
    family,
    proto: e[r + EXP_KEY] & 0xff,
    timeout: Math.floor(((e[r + EXP_DEADLINE] - now) | 0) / 1000),
    src: byAddress ? four(r + EXP_SRC, e) : [0, 0, 0, 0],
    dst: four(r + EXP_DST, e),
    ports: byPort ? e[r + EXP_PORTS] : e[r + EXP_PORTS] & ~0xffff,
    srcMask: byAddress ? all : [0, 0, 0, 0],
    portsMask: byPort ? -1 : -65536,
    masterSrc: family === 4 ? [w[c + CT_O_SRC], 0, 0, 0] : four(a + CT6_O_SRC, words6),
    masterDst: family === 4 ? [w[c + CT_O_DST], 0, 0, 0] : four(a + CT6_O_DST, words6),
    masterProto: w[c + CT_KEY] & 0xff,
    masterPorts: w[c + CT_O_PORTS],
    class: e[r + EXP_CLASS],
    zone: e[r + EXP_KEY] >>> 16,
    permanent: (flags & EXP_PERMANENT) !== 0,
    inactive: (flags & EXP_INACTIVE) !== 0,
    helper: helperOf(w[c + CT_HELPER] & 0xff)?.name ?? '',
  };
}

function jsonOf(view: MasteredView): ExpectJson {
  const text = ([a, b, c, d]: readonly number[]): string => formatAddress(view.family as Family, a, b, c, d);
  const port = (half: number): number => ((half & 0xff) << 8) | ((half >> 8) & 0xff);
  return {
    family: view.family === 4 ? 'inet' : 'inet6',
    protocol: protocolName(view.proto),
    protocol_number: view.proto,
    timeout: Math.max(0, view.timeout),
    ...(view.srcMask[0] !== 0 ? { src: text(view.src) } : {}),
    dst: text(view.dst),
    ...((view.portsMask & 0xffff) !== 0 ? { sport: port(view.ports & 0xffff) } : {}),
    dport: port(view.ports >>> 16),
    class: view.class,
    flags: [...(view.permanent ? ['PERMANENT'] : []), ...(view.inactive ? ['INACTIVE'] : [])],
    helper: view.helper,
    master: { id: view.master, src: text(view.masterSrc), dst: text(view.masterDst) },
  };
}
