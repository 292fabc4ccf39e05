/**
 * Filter: the rule list of the stages `forward-filter` and `input`, and the zones' verdicts behind it, in shared memory.
 *
 * A list is read from its first rule; the first that matches decides, and when none does, the verdict of the zone that
 * the packet came from: `input` when it is for the router itself, else `forward`, of the packet's family. Packets of
 * established and related connections pass before this table is asked, so a rule without states is about new ones.
 *
 * There are two copies of the list. Readers take the one that bit 0 of the ROOT word names and finish with it; the
 * writer fills the other, then stores ROOT. It fills the copy that has just gone out of use only after the caller has
 * said that every reader has passed a quiet point since (`reclaim`); a reload that comes earlier waits for that. So
 * nobody ever sees a half-written list, and readers need no lock.
 *
 *   buffer:  | head, 16 words: 0 ROOT (generation) | copy 0 | copy 1 |
 *   copy:    | 0 COUNT, 1 SOURCES (a rule has a SOURCE), 2 END4, 3 END6 (rules up to
 *            the last that names this family or none), 16 words | zones, 64 words | rules, 32 words each | counters |
 *   zone:    verdicts: forward IPv4 | forward IPv6 << 4 | input IPv4 << 8 | input IPv6 << 12
 *   counters: a row for each worker: packets and bytes (float64) of each rule identifier, then of each zone's forward
 *            and input verdict. Only that worker writes its row, so there are no atomics.
 *
 *   rule:
 *    0 FROM       zone, −1 any                    8 SPORT   9 DPORT   these and addresses as in endpoints.ts
 *    1 TO         zone, 0 the router itself,     10 ICMP    types: first | last << 8 | (code + 1, 0 any) << 16; −1 any
 *                 −1 any, −2 any but the router  11 ID      rule identifier: its place in the caller's list
 *    2 FROM_PORT  port, −1 any                   12 HELPER  number of the helper to attach; 0 none
 *    3 TO_PORT    port, −1 any                   13 FLAGS   1 source is compared, 2 destination is compared
 *    4 FAMILY     4, 6, 0 any                    16–19 SRC  20–23 SRC_MASK   raw
 *    5 PROTO      −1 any                         24–27 DST  28–31 DST_MASK   raw
 *    6 STATES     bits 1 << CT_*                 14 SOURCE  zone that the source's route leads to, −1 any, 0 none
 *    7 VERDICT    ACCEPT ... REFUSE_SOURCE       15 CHAIN   CHAIN_* bits that the packet must have, all of them
 *
 * Addresses and ports compared are the packet's effective ones: destination after DNAT, source before SNAT.
 * Not here: from configuration to rules (controlplane/compile-rules.ts), what a verdict leads to (path.ts).
 */
import { ANY_PORT, type Endpoints, writeEndpoints } from './endpoints.ts';
import type { Packet } from './wire/packet.ts';

/** Verdicts. */
export const ACCEPT = 1;
export const DROP = 2;
export const REJECT = 3;
/** Rejected for its source: who sent it hears so on its own link, wherever the route to that source leads. */
export const REFUSE_SOURCE = 4;

/** Values of FilterRule.from and .to beside zone numbers (1 …). */
export const ZONE_ROUTER = 0;
export const ZONE_ANY = -1;
export const ZONE_FORWARDED = -2;
/** Values of FilterRule.sourceZone beside zone numbers: not asked; the source has no route. */
export const SOURCE_ANY = -1;
export const SOURCE_NOWHERE = 0;
/** Extension headers that a packet's chain has (Packet.chain): an authentication header, a routing header of type 0. */
export const CHAIN_AH = 1;
export const CHAIN_ROUTING0 = 2;
/** Zones are numbered 1 … MAX_ZONES − 1; 0 is the router itself. */
export const MAX_ZONES = 64;

const ROOT = 0;
const HEAD = 16;

const COUNT = 0;
const LIST_SOURCES = 1;
const LIST_END4 = 2;
const LIST_END6 = 3;
const ZONES = 16;
const RULES = ZONES + MAX_ZONES;

const RULE_WORDS = 32;
const FROM = 0;
const TO = 1;
const FROM_PORT = 2;
const TO_PORT = 3;
const FAMILY = 4;
const PROTO = 5;
const STATES = 6;
const VERDICT = 7;
const SPORT = 8;
const DPORT = 9;
const ICMP = 10;
const ID = 11;
const HELPER = 12;
const FLAGS = 13;
const SOURCE = 14;
const CHAIN = 15;
const SRC = 16;
const SRC_MASK = 20;
const DST = 24;
const DST_MASK = 28;

const HAS_SRC = 1;
const HAS_DST = 2;

/** Counters behind those of the rules: for each zone, forward and input. */
const ZONE_COUNTERS = MAX_ZONES * 2;

/** Transport protocols whose first four bytes are a source and a destination port. */
export const PORT_PROTOCOLS: readonly number[] = [6, 17, 33, 132, 136];

export class FilterTable {
  readonly words: Int32Array;
  readonly counters: Float64Array;
  /** Rules that the table can hold: a multiple of 4, so that the workers' counter rows share no cache line. */
  readonly capacity: number;
  readonly workers: number;
  /** Words of one copy. */
  readonly copyWords: number;
  /** What decided the last `evaluate` of this view: the rule's identifier, −1 for the zone's verdict. */
  rule = -1;
  /** Helper that the deciding rule attaches; 0 none. */
  helper = 0;

  /** @param buffer FilterTable.bytes(capacity, workers) bytes, zeroed at first: every zone drops until `load`. */
  constructor(buffer: SharedArrayBuffer, workers: number) {
    this.words = new Int32Array(buffer);
    this.counters = new Float64Array(buffer);
    this.workers = workers;
    this.copyWords = (this.words.length - HEAD) / 2;
    this.capacity = (this.copyWords - RULES - workers * ZONE_COUNTERS * 4) / (RULE_WORDS + workers * 4);
  }

  /** Bytes for a list of at least `capacity` rules and `workers` rows of counters. */
  static bytes(capacity: number, workers: number): number {
    const rules = (capacity + 3) & ~3;
    return (HEAD + 2 * (RULES + rules * RULE_WORDS + workers * (rules + ZONE_COUNTERS) * 4)) * 4;
  }

  /** Word index of copy 0 or 1. */
  copyAt(copy: number): number {
    return HEAD + copy * this.copyWords;
  }

  /** Float64 index of a counter pair; `index`: rule identifier, or capacity + zone * 2 + (1 for input). */
  counterAt(copy: number, worker: number, index: number): number {
    const rows = this.copyAt(copy) + RULES + this.capacity * RULE_WORDS;
    return (rows >> 1) + (worker * (this.capacity + ZONE_COUNTERS) + index) * 2;
  }

  /** Grows with every reload. */
  generation(): number {
    return Atomics.load(this.words, ROOT);
  }

  /** True when a rule asks where the source's route leads: then `p.sourceZone` must be set before `evaluate`. */
  wantsSource(): boolean {
    return this.words[this.copyAt(this.words[ROOT] & 1) + LIST_SOURCES] !== 0;
  }

  /**
   * The verdict on a packet: ACCEPT, DROP, REJECT or REFUSE_SOURCE; sets `rule` and `helper`, counts in the worker's row.
   * @param fromZone zone of the ingress port   @param toZone of the egress port, ZONE_ROUTER for the router itself
   */
  evaluate(p: Packet, fromZone: number, toZone: number, worker: number): number {
    const w = this.words;
    const copy = w[ROOT] & 1;
    const at = HEAD + copy * this.copyWords;
    const state = 1 << p.ctinfo;
    const { family, proto, ports } = p;
    const sport = ((ports & 0xff) << 8) | ((ports >>> 8) & 0xff);
    const dport = ((ports >>> 8) & 0xff00) | (ports >>> 24);
    const type = (ports >>> 16) & 0xff;
    let verdict = 0;
    let index = 0;
    this.rule = -1;
    this.helper = 0;
    // The list ends with the default rules of IPv6 (RFC 6092), which are none of IPv4's.
    const end = at + RULES + w[at + (family === 6 ? LIST_END6 : LIST_END4)] * RULE_WORDS;
    for (let r = at + RULES; r < end; r += RULE_WORDS) {
      let want = w[r + PROTO];
      if (want !== proto && want !== -1) continue;
      want = w[r + FROM];
      if (want !== fromZone && want !== ZONE_ANY) continue;
      want = w[r + TO];
      if (want !== toZone && want !== ZONE_ANY && (want !== ZONE_FORWARDED || toZone === ZONE_ROUTER)) continue;
      if ((w[r + STATES] & state) === 0) continue;
      want = w[r + FAMILY];
      if (want !== family && want !== 0) continue;
      want = w[r + SOURCE];
      if (want !== SOURCE_ANY && want !== p.sourceZone) continue;
      want = w[r + CHAIN];
      if ((want & p.chain) !== want) continue;
      want = w[r + DPORT];
      if (want !== ANY_PORT && (dport < want >>> 16 || dport > (want & 0xffff))) continue;
      want = w[r + SPORT];
      if (want !== ANY_PORT && (sport < want >>> 16 || sport > (want & 0xffff))) continue;
      want = w[r + FROM_PORT];
      if (want !== p.port && want !== -1) continue;
      want = w[r + TO_PORT];
      if (want !== -1 && (want !== p.outPort || toZone === ZONE_ROUTER)) continue;
      want = w[r + ICMP];
      if (want !== -1) {
        if (type < (want & 0xff) || type > ((want >>> 8) & 0xff)) continue;
        if (want >>> 16 !== 0 && want >>> 16 !== (ports >>> 24) + 1) continue;
      }
      const flags = w[r + FLAGS];
      if (
        (flags & HAS_SRC) !== 0 &&
        (((p.s0 ^ w[r + SRC]) & w[r + SRC_MASK]) |
          ((p.s1 ^ w[r + SRC + 1]) & w[r + SRC_MASK + 1]) |
          ((p.s2 ^ w[r + SRC + 2]) & w[r + SRC_MASK + 2]) |
          ((p.s3 ^ w[r + SRC + 3]) & w[r + SRC_MASK + 3])) !==
          0
      )
        continue;
      if (
        (flags & HAS_DST) !== 0 &&
        (((p.d0 ^ w[r + DST]) & w[r + DST_MASK]) |
          ((p.d1 ^ w[r + DST + 1]) & w[r + DST_MASK + 1]) |
          ((p.d2 ^ w[r + DST + 2]) & w[r + DST_MASK + 2]) |
          ((p.d3 ^ w[r + DST + 3]) & w[r + DST_MASK + 3])) !==
          0
      )
        continue;
      verdict = w[r + VERDICT];
      index = w[r + ID];
      this.rule = index;
      this.helper = w[r + HELPER];
      break;
    }
    if (verdict === 0) {
      if (fromZone < 0 || fromZone >= MAX_ZONES) return DROP;
      const local = toZone === ZONE_ROUTER ? 1 : 0;
      verdict = (w[at + ZONES + fromZone] >>> (local * 8 + (family === 6 ? 4 : 0))) & 15;
      // A zone that the list does not know.
      if (verdict === 0) verdict = DROP;
      index = this.capacity + fromZone * 2 + local;
    }
    const counter = this.counterAt(copy, worker, index);
    this.counters[counter] += 1;
    this.counters[counter + 1] += p.end - p.l3;
    return verdict;
  }
}

/**
 * One line of the list. Several lines may carry one identifier: a rule with two protocols is two lines. Ports only with a
 * protocol of PORT_PROTOCOLS.
 */
export interface FilterRule extends Endpoints {
  /** 0 … FilterList.names.length − 1. */
  id: number;
  /** Zone, ZONE_ROUTER, ZONE_ANY. */
  from: number;
  /** Zone, ZONE_ROUTER (packets for the router itself), ZONE_ANY, ZONE_FORWARDED. */
  to: number;
  /** Port numbers, −1 any. A rule with `toPort` is never about packets for the router itself. */
  fromPort: number;
  toPort: number;
  /** 0 any. A rule with an address must name its family. */
  family: 0 | 4 | 6;
  /** −1 any. */
  proto: number;
  /** First and last type; null any. Only with protocol 1 or 58. */
  icmpTypes: readonly [number, number] | null;
  /** −1 any; only with `icmpTypes`. */
  icmpCode: number;
  /** Bits 1 << CT_*. */
  states: number;
  /** Helper number, 0 none. */
  helper: number;
  /** Zone that the source's route leads to, SOURCE_NOWHERE, SOURCE_ANY; IPv6 only. */
  sourceZone: number;
  /** CHAIN_* bits that the packet must have, all of them. */
  chain: number;
  verdict: number;
}

/** A zone's verdicts on what no rule matches. */
export interface ZoneDefaults {
  forward4: number;
  forward6: number;
  input4: number;
  input6: number;
}

export interface FilterList {
  rules: FilterRule[];
  /**
   * For each rule identifier a text that stays the same when the list is changed elsewhere, and that no other identifier
   * has: counters follow it from one list to the next.
   */
  names: string[];
  /** By zone number; [0] is the router itself, whose own packets pass. */
  zones: ZoneDefaults[];
}

export interface FilterCounter {
  packets: number;
  bytes: number;
}

export class FilterWriter {
  readonly table: FilterTable;
  /** Names of the live list; of the list that readers may still use (null: none); and the list that waits for them. */
  private names: string[] = [];
  private restingNames: string[] | null = null;
  private waiting: FilterList | null = null;
  /** What copies that were reused have counted, by name. */
  private readonly totals = new Map<string, FilterCounter>();

  /** The one writer of a table. */
  constructor(table: FilterTable) {
    this.table = table;
  }

  /**
   * Makes a list live in one step, or, while readers may still use the list before the live one, at the next `reclaim`
   * (only the last list so waits). Returns null, or a sentence that says why the list is refused: nothing has changed.
   */
  load(list: FilterList): string | null {
    const refused = check(list, this.table.capacity);
    if (refused !== null) return refused;
    if (this.restingNames !== null) this.waiting = list;
    else this.publish(list);
    return null;
  }

  /** True when a list waits for `reclaim`. */
  get pending(): boolean {
    return this.waiting !== null;
  }

  /** True while the list before the live one waits for `reclaim`. */
  get rests(): boolean {
    return this.restingNames !== null;
  }

  /** Which list is live; hand it to `reclaim` when every reader has passed a quiet point since. */
  mark(): number {
    return this.table.generation();
  }

  /** Frees the copy that went out of use before `mark` was taken (default: now); a waiting list becomes live. */
  reclaim(mark: number = this.mark()): void {
    if (this.restingNames === null || mark !== this.mark()) return;
    const live = new Set(this.names);
    const copy = (this.mark() & 1) ^ 1;
    for (const [name, index] of this.counted(this.restingNames)) {
      if (index < this.table.capacity && !live.has(name)) this.totals.delete(name);
      else this.totals.set(name, add(this.totals.get(name), this.sum(copy, index)));
    }
    this.restingNames = null;
    const next = this.waiting;
    this.waiting = null;
    if (next !== null) this.publish(next);
  }

  /** Packets and bytes of a rule of the live list, over all workers and all lists that had it. */
  counter(id: number): FilterCounter {
    return this.total(this.names[id], id);
  }

  /** Packets and bytes that a zone's own verdict decided. */
  zoneCounter(zone: number, input: boolean): FilterCounter {
    return this.total(zoneName(zone, input), this.table.capacity + zone * 2 + (input ? 1 : 0));
  }

  private total(name: string, index: number): FilterCounter {
    const live = this.mark() & 1;
    let total = add(this.totals.get(name), this.sum(live, index));
    if (this.restingNames !== null) {
      const before = index < this.table.capacity ? this.restingNames.indexOf(name) : index;
      if (before >= 0) total = add(total, this.sum(live ^ 1, before));
    }
    return total;
  }

  private counted(names: readonly string[]): [name: string, index: number][] {
    const all: [string, number][] = names.map((name, id) => [name, id]);
    for (let n = 0; n < ZONE_COUNTERS; n++) all.push([zoneName(n >> 1, (n & 1) === 1), this.table.capacity + n]);
    return all;
  }

  private sum(copy: number, index: number): FilterCounter {
    const sum = { packets: 0, bytes: 0 };
    for (let worker = 0; worker < this.table.workers; worker++) {
      const at = this.table.counterAt(copy, worker, index);
      sum.packets += this.table.counters[at];
      sum.bytes += this.table.counters[at + 1];
    }
    return sum;
  }

  private publish(list: FilterList): void {
    const { table } = this;
    const w = table.words;
    const copy = (this.mark() & 1) ^ 1;
    const at = table.copyAt(copy);
    w.fill(0, at, at + table.copyWords);
    list.rules.forEach((rule, n) => {
      writeRule(w, at + RULES + n * RULE_WORDS, rule);
      if (rule.sourceZone !== SOURCE_ANY) w[at + LIST_SOURCES] = 1;
      if (rule.family !== 6) w[at + LIST_END4] = n + 1;
      if (rule.family !== 4) w[at + LIST_END6] = n + 1;
    });
    w[at + COUNT] = list.rules.length;
    list.zones.forEach((zone, n) => {
      w[at + ZONES + n] = zone.forward4 | (zone.forward6 << 4) | (zone.input4 << 8) | (zone.input6 << 12);
    });
    w[at + ZONES] = ACCEPT | (ACCEPT << 4) | (ACCEPT << 8) | (ACCEPT << 12);
    this.restingNames = this.names;
    this.names = [...list.names];
    Atomics.store(w, ROOT, (w[ROOT] + 1) | 0);
  }
}

/** Where a zone's counters are kept among those of rules: no rule has a name that begins like this. */
function zoneName(zone: number, input: boolean): string {
  return `\0zone ${zone} ${input ? 'input' : 'forward'}`;
}

function add(a: FilterCounter | undefined, b: FilterCounter): FilterCounter {
  return { packets: (a?.packets ?? 0) + b.packets, bytes: (a?.bytes ?? 0) + b.bytes };
}

function writeRule(w: Int32Array, r: number, rule: FilterRule): void {
  w[r + FROM] = rule.from;
  w[r + TO] = rule.to;
  w[r + FROM_PORT] = rule.fromPort;
  w[r + TO_PORT] = rule.toPort;
  w[r + FAMILY] = rule.family;
  w[r + PROTO] = rule.proto;
  w[r + STATES] = rule.states;
  w[r + VERDICT] = rule.verdict;
  w[r + ICMP] =
    rule.icmpTypes === null ? -1 : rule.icmpTypes[0] | (rule.icmpTypes[1] << 8) | ((rule.icmpCode + 1) << 16);
  w[r + ID] = rule.id;
  w[r + HELPER] = rule.helper;
  w[r + SOURCE] = rule.sourceZone;
  w[r + CHAIN] = rule.chain;
  w[r + FLAGS] = (rule.src === null ? 0 : HAS_SRC) | (rule.dst === null ? 0 : HAS_DST);
  writeEndpoints(w, r + SPORT, r + SRC, rule);
}

/** What `evaluate` relies on without looking. Null, or a sentence about the first thing that is wrong. */
function check(list: FilterList, capacity: number): string | null {
  if (list.rules.length > capacity || list.names.length > capacity)
    return (
      `rules: expected at most ${capacity} lines, got ${Math.max(list.rules.length, list.names.length)} ` +
      '(every combination of protocol, prefix and port range is a line); write fewer or wider ones'
    );
  if (list.zones.length > MAX_ZONES) return `zones: expected at most ${MAX_ZONES - 1}, got ${list.zones.length - 1}`;
  if (new Set(list.names).size !== list.names.length) return 'rules: expected names that differ, got one twice';
  for (const rule of list.rules) {
    const where = `rule "${list.names[rule.id]}"`;
    if (!(rule.id >= 0 && rule.id < list.names.length))
      return `rule: expected an identifier with a name, got ${rule.id}`;
    if (rule.verdict < ACCEPT || rule.verdict > REFUSE_SOURCE)
      return `${where}: expected a verdict, got ${rule.verdict}`;
    if ((rule.sport !== null || rule.dport !== null) && !PORT_PROTOCOLS.includes(rule.proto))
      return `${where}: expected a protocol that has ports, got ${rule.proto}; name tcp, udp, sctp, dccp or udplite`;
    if (rule.icmpTypes !== null && rule.proto !== 1 && rule.proto !== 58)
      return `${where}: expected protocol icmp or icmpv6 beside ICMP types, got ${rule.proto}`;
    if ((rule.src !== null || rule.dst !== null) && rule.family === 0)
      return `${where}: expected a family beside an address, got none`;
  }
  return null;
}
