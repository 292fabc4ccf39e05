/**
 * Next hops: what a route leads to, in shared memory. A route holds a number of a record here (routes.ts).
 *
 * 16 int32 words a record. Record 0 is never used: next hop 0 says "no route".
 *
 *   0 KIND    NH_*; 0 free                 7 MTU      of the route, bytes of IP; 0: the port's
 *   1 PORT    egress; −1 where none is     8 METRIC   for people: the control plane has already chosen
 *   2 FAMILY  of the gateway, 4 or 6       9 FLAGS    NHF_*; the only word that changes while a record lives
 *   3–6 GATEWAY raw; IPv4 in word 3       10–15 MEMBERS of a GROUP: next-hop numbers, none of them a group
 *       (GROUP: word 3 is their COUNT, words 4–6 the upper bounds of their regions but the last one's, 16 bits each)
 *
 * One writer (the main thread) fills a record before its number is put into a route, and a released record rests until
 * every reader has passed a quiet point, so readers need no lock. The gateway's family may differ from the route's
 * (IPv4 via an IPv6 next hop, RFC 5549).
 *
 * Not here: neighbours (neighbours.ts), and which of several routes wins.
 */
export const NEXTHOP_WORDS = 16;
export const NH_KIND_WORD = 0;
export const NH_PORT_WORD = 1;
export const NH_FAMILY_WORD = 2;
export const NH_GATEWAY_WORD = 3;
export const NH_COUNT_WORD = 3;
export const NH_MTU_WORD = 7;
export const NH_METRIC_WORD = 8;
export const NH_FLAGS_WORD = 9;
export const NH_MEMBERS_WORD = 10;
export const MAX_MEMBERS = 6;
const BOUNDS_WORD = 4;

/** Kinds. CONNECTED: the destination itself is the neighbour. LOCAL: an address of the router's own. */
export const NH_FREE = 0;
export const NH_VIA = 1;
export const NH_CONNECTED = 2;
export const NH_LOCAL = 3;
export const NH_BROADCAST = 4;
export const NH_MULTICAST = 5;
export const NH_UNREACHABLE = 6;
export const NH_BLACKHOLE = 7;
export const NH_PROHIBIT = 8;
export const NH_GROUP = 9;

/** The port is down or the gateway is known to be dead: groups choose another member. */
export const NHF_DOWN = 1;

export class NextHopTable {
  readonly words: Int32Array;
  readonly capacity: number;

  /** @param buffer NextHopTable.bytes(n) bytes, zeroed at first. */
  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.capacity = this.words.length / NEXTHOP_WORDS - 1;
  }

  /** Bytes for `capacity` next hops. */
  static bytes(capacity: number): number {
    return (capacity + 1) * NEXTHOP_WORDS * 4;
  }

  /** Word index of record `n`. */
  at(n: number): number {
    return n * NEXTHOP_WORDS;
  }

  kind(n: number): number {
    return this.words[n * NEXTHOP_WORDS];
  }

  /**
   * The next hop that a flow takes: `n` itself, or for a GROUP the member that `hash` (int32, all bits used equally)
   * names; 0 when no member is up. RFC 2992 hash-threshold over all members, each with a region as wide as its weight; only
   * flows of a member that is down are spread over the others, and they come back when it does, so the rest never move.
   */
  select(n: number, hash: number): number {
    const w = this.words;
    const r = n * NEXTHOP_WORDS;
    if (w[r] !== NH_GROUP) return n;
    const count = w[r + NH_COUNT_WORD];
    let chosen = 0;
    while (chosen < count - 1 && hash >>> 16 >= this.bound(r, chosen)) chosen++;
    const first = w[r + NH_MEMBERS_WORD + chosen];
    if ((w[first * NEXTHOP_WORDS + NH_FLAGS_WORD] & NHF_DOWN) === 0) return first;
    let up = 0;
    for (let m = 0; m < count; m++)
      if ((w[w[r + NH_MEMBERS_WORD + m] * NEXTHOP_WORDS + NH_FLAGS_WORD] & NHF_DOWN) === 0) up += this.width(r, m);
    // The low half of the hash: independent of the half that chose the dead member.
    let wanted = ((hash & 0xffff) * up) >>> 16;
    for (let m = 0; m < count; m++) {
      const member = w[r + NH_MEMBERS_WORD + m];
      if ((w[member * NEXTHOP_WORDS + NH_FLAGS_WORD] & NHF_DOWN) !== 0) continue;
      wanted -= this.width(r, m);
      if (wanted < 0) return member;
    }
    return 0;
  }

  /** Where the region of member `m` ends, of 65536; `r`: the group's first word. */
  private bound(r: number, m: number): number {
    const w = this.words;
    if (m === w[r + NH_COUNT_WORD] - 1) return 65536;
    return (w[r + BOUNDS_WORD + (m >> 1)] >>> ((m & 1) << 4)) & 0xffff;
  }

  private width(r: number, m: number): number {
    return this.bound(r, m) - (m === 0 ? 0 : this.bound(r, m - 1));
  }

  /** Share of a group's flows that member `m` gets, of 65536. */
  share(n: number, m: number): number {
    return this.width(n * NEXTHOP_WORDS, m);
  }
}

/** What the control plane says of a next hop; absent fields are 0 (port: −1). */
export interface NextHopSpec {
  /** NH_VIA … NH_GROUP. */
  kind: number;
  port?: number;
  /** Of the gateway (VIA). */
  family?: 4 | 6;
  /** Raw words; IPv4: the first. */
  gateway?: readonly number[];
  mtu?: number;
  metric?: number;
  /** GROUP: 1–6 numbers that `acquire` gave out; the group holds a reference to each while it lives. */
  members?: readonly number[];
  /** GROUP: of each member, 1–256; absent: 1 each. */
  weights?: readonly number[];
  /** Of a route that is to be a member of a group; says nothing of the next hop itself. */
  weight?: number;
}

export class NextHopWriter {
  readonly table: NextHopTable;
  private readonly words: Int32Array;
  private readonly numbers = new Map<string, number>();
  private readonly keys: string[] = [];
  private readonly references: number[] = [];
  private readonly free: number[] = [];
  private unused = 1;
  private resting: number[] = [];
  private retired = 0;
  private readonly downPorts = new Set<number>();

  /** The one writer of a table that is still empty. */
  constructor(table: NextHopTable) {
    this.table = table;
    this.words = table.words;
  }

  /**
   * The number of a next hop that says exactly this; a new record or one more reference to an existing one. Every route
   * that holds the number holds a reference. Returns 0 when the table is full or a group's members are not 1–6 live
   * next hops other than groups: nothing has changed then.
   */
  acquire(spec: NextHopSpec): number {
    const { kind, port = -1, family = 0, gateway = [], mtu = 0, metric = 0, members = [], weights = [] } = spec;
    const key = [
      kind,
      port,
      family,
      ...[0, 1, 2, 3].map((n) => (gateway[n] ?? 0) | 0),
      mtu,
      metric,
      members.length,
      ...members,
      ...weights,
    ].join();
    const known = this.numbers.get(key);
    if (known !== undefined) {
      this.references[known]++;
      return known;
    }
    if (kind === NH_GROUP) {
      if (members.length < 1 || members.length > MAX_MEMBERS) return 0;
      for (const m of members) if (!(this.references[m] > 0) || this.table.kind(m) === NH_GROUP) return 0;
    }
    const n = this.free.pop() ?? (this.unused <= this.table.capacity ? this.unused++ : 0);
    if (n === 0) return 0;
    const w = this.words;
    const r = this.table.at(n);
    w.fill(0, r, r + NEXTHOP_WORDS);
    w[r + NH_PORT_WORD] = port;
    w[r + NH_FAMILY_WORD] = family;
    for (let i = 0; i < 4; i++) w[r + NH_GATEWAY_WORD + i] = gateway[i] ?? 0;
    w[r + NH_MTU_WORD] = mtu;
    w[r + NH_METRIC_WORD] = metric;
    w[r + NH_FLAGS_WORD] = this.downPorts.has(port) ? NHF_DOWN : 0;
    if (kind === NH_GROUP) {
      w[r + NH_COUNT_WORD] = members.length;
      members.forEach((m, i) => {
        w[r + NH_MEMBERS_WORD + i] = m;
        this.references[m]++;
      });
      this.divide(r, members, weights);
    }
    Atomics.store(w, r, kind);
    this.references[n] = 1;
    this.keys[n] = key;
    this.numbers.set(key, n);
    return n;
  }

  /** Regions of the hash's 65536 values, as wide as the weights. */
  private divide(r: number, members: readonly number[], weights: readonly number[]): void {
    const all = members.reduce((sum, _, m) => sum + (weights[m] ?? 1), 0);
    let sum = 0;
    for (let m = 0; m < members.length - 1; m++) {
      sum += weights[m] ?? 1;
      this.words[r + BOUNDS_WORD + (m >> 1)] |= Math.min(65535, Math.ceil((sum * 65536) / all)) << ((m & 1) << 4);
    }
  }

  /** Gives one reference back; with the last one the record rests until `reclaim`. */
  release(n: number): void {
    if (!(this.references[n] > 0) || --this.references[n] > 0) return;
    this.numbers.delete(this.keys[n]);
    const r = this.table.at(n);
    if (this.words[r] === NH_GROUP)
      for (let m = 0; m < this.words[r + NH_COUNT_WORD]; m++) this.release(this.words[r + NH_MEMBERS_WORD + m]);
    // The record stays readable while it rests: a reader may have found its number just before.
    this.resting.push(n);
    this.retired++;
  }

  /** References to record `n`. */
  referencesTo(n: number): number {
    return this.references[n] ?? 0;
  }

  /** Marks every next hop of a port down or up, those made later included. Returns how many records changed. */
  setPort(port: number, up: boolean): number {
    if (up) this.downPorts.delete(port);
    else this.downPorts.add(port);
    let changed = 0;
    for (const n of this.numbers.values())
      if (this.words[this.table.at(n) + NH_PORT_WORD] === port && this.setDown(n, !up)) changed++;
    return changed;
  }

  /** Marks one next hop down (a dead gateway) or up. Returns true when that is news. */
  setDown(n: number, down: boolean): boolean {
    const at = this.table.at(n) + NH_FLAGS_WORD;
    const before = this.words[at];
    Atomics.store(this.words, at, down ? before | NHF_DOWN : before & ~NHF_DOWN);
    return this.words[at] !== before;
  }

  /** How many records have been released for good so far; for `reclaim`. */
  mark(): number {
    return this.retired;
  }

  /** True while records wait for `reclaim`. */
  get rests(): boolean {
    return this.resting.length > 0;
  }

  /** Frees the records that had been released when `mark` was taken (default: all): every reader has passed since. */
  reclaim(mark: number = this.retired): number {
    const young = Math.min(this.retired - mark, this.resting.length);
    const old = this.resting.length - young;
    for (let i = 0; i < old; i++) {
      Atomics.store(this.words, this.table.at(this.resting[i]), NH_FREE);
      this.free.push(this.resting[i]);
    }
    this.resting = this.resting.slice(old);
    return old;
  }
}
