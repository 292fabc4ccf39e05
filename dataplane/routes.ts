/**
 * Routes: longest-prefix match for IPv4 and IPv6 (RFC 1812 §5.2.4.3, RFC 4291) in shared memory.
 *
 * A multibit trie. Each family has a root of 2^16 slots, indexed by the first 16 address bits; below it are nodes of
 * 16 slots, each for the next 4 bits. Both families take their nodes from one pool. A slot is two int32 words:
 *
 *   0 ROUTE   prefix length << 24 | next-hop number (1 … 2^24 − 1), or 0: no route ends at this level
 *   1 CHILD   number of the node for the next 4 bits, or 0
 *
 *   buffer:  | head, 16 words | root of IPv4, 2^17 words | root of IPv6, 2^17 words | node 1 | node 2 | …
 *   head:    0 node capacity   1 nodes in use or at rest   2 IPv4 prefixes   3 IPv6 prefixes   4 generation
 *
 * A prefix is written into every slot that it covers in the one level where it ends (a /22 ends in the level of bits
 * 20–23 and covers 4 slots), unless a longer prefix of the same level is there. Nothing is pushed further down: a lookup
 * remembers the last ROUTE it saw while it follows CHILD. So a change touches one node or one range of the root, each
 * slot by one store, and a reader sees the old or the new route of its address, never a third one.
 *
 * Readers are in any thread and take no lock. Their loads are plain: Atomics.load is a call into a builtin and would
 * double the time of a lookup, and the one order that matters (a node's content after the number that leads to it)
 * holds by address dependency; the writer's stores are atomic and in order. There is one writer (the main thread); what
 * it must know beyond the trie (which prefixes exist, how full a node is) is in its own memory. A node that became empty
 * is unlinked and rests until the caller says that every reader has passed a quiet point since (`mark`, `reclaim`).
 *
 * Not here: which of several routes to one prefix wins (control plane), what a next hop is (nexthops.ts), which of several tables is asked (policy.ts).
 */
const HEAD = 16;
const HEAD_CAPACITY = 0;
const HEAD_NODES = 1;
const HEAD_COUNT4 = 2;
const HEAD_COUNT6 = 3;
const HEAD_GENERATION = 4;

const ROOT_BITS = 16;
const ROOT_WORDS = 2 << ROOT_BITS;
const ROOT4 = HEAD;
const ROOT6 = HEAD + ROOT_WORDS;
const STRIDE = 4;
const NODE_WORDS = 2 << STRIDE;
/** Where node 0 would be: node numbers begin with 1, and no memory is wasted on node 0. */
const NODES = HEAD + 2 * ROOT_WORDS - NODE_WORDS;
/** Word indices stay below 2^31. */
const MAX_NODES = Math.floor((2 ** 31 - HEAD - 2 * ROOT_WORDS) / NODE_WORDS) - 1;

const NEXTHOP_MASK = 0xffffff;
/** Largest next-hop number that a slot can hold. */
export const MAX_NEXTHOP = NEXTHOP_MASK;

/** The raw word (network-order bytes loaded little-endian) as a host integer, and back; int32. */
function swap(raw: number): number {
  return (raw << 24) | ((raw & 0xff00) << 8) | ((raw >>> 8) & 0xff00) | (raw >>> 24);
}

export class RouteTable {
  readonly words: Int32Array;
  /** Prefix length of the route that the last lookup of this view found; meaningless when it found none. */
  length = 0;

  /** @param buffer RouteTable.bytes(n) bytes, zeroed, shared by all views; one RouteTable per thread looks into it. */
  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    // Every view derives the same number: no store races with another.
    this.words[HEAD_CAPACITY] = (this.words.length - NODES) / NODE_WORDS - 1;
  }

  /**
   * Bytes for a table with `maxNodes` nodes. An IPv4 prefix of /17–/32 needs at most 1–4 nodes of its own, an IPv6 one
   * one more for every 4 bits beyond 16; neighbours share them. A million IPv4 prefixes of a full table need well below
   * a million nodes (128 bytes each); pages that no prefix touches cost no memory.
   */
  static bytes(maxNodes: number): number {
    return (NODES + NODE_WORDS + Math.min(maxNodes, MAX_NODES) * NODE_WORDS) * 4;
  }

  /** Nodes that the table can hold, and prefixes of a family that it holds now. */
  get capacity(): number {
    return this.words[HEAD_CAPACITY];
  }

  count(family: 4 | 6): number {
    return this.words[family === 4 ? HEAD_COUNT4 : HEAD_COUNT6];
  }

  /** Nodes in use or at rest. */
  get nodes(): number {
    return this.words[HEAD_NODES];
  }

  /** Grows (and wraps, int32) with every change of any prefix. */
  generation(): number {
    return Atomics.load(this.words, HEAD_GENERATION);
  }

  /** Next-hop number for an IPv4 destination (raw word), 0 when there is no route. Sets `length`. */
  lookup4(d0: number): number {
    const w = this.words;
    const h = swap(d0);
    let at = ROOT4 + ((h >>> 16) << 1);
    let best = w[at];
    let child = w[at + 1];
    for (let shift = 12; child !== 0; shift -= STRIDE) {
      at = NODES + (child << 5) + (((h >>> shift) & 15) << 1);
      const route = w[at];
      if (route !== 0) best = route;
      // The last level has no children; the test only keeps a damaged table from turning this into an endless loop.
      if (shift === 0) break;
      child = w[at + 1];
    }
    this.length = best >>> 24;
    return best & NEXTHOP_MASK;
  }

  /** Next-hop number for an IPv6 destination (four raw words), 0 when there is no route. Sets `length`. */
  lookup6(d0: number, d1: number, d2: number, d3: number): number {
    const w = this.words;
    let h = swap(d0);
    let at = ROOT6 + ((h >>> 16) << 1);
    let best = w[at];
    let child = w[at + 1];
    let shift = 12;
    let word = 0;
    while (child !== 0) {
      at = NODES + (child << 5) + (((h >>> shift) & 15) << 1);
      const route = w[at];
      if (route !== 0) best = route;
      child = w[at + 1];
      shift -= STRIDE;
      if (shift < 0) {
        if (word === 3) break;
        word++;
        h = swap(word === 1 ? d1 : word === 2 ? d2 : d3);
        shift = 28;
      }
    }
    this.length = best >>> 24;
    return best & NEXTHOP_MASK;
  }
}

export interface RouteEntry {
  family: 4 | 6;
  /** Network address, raw words; IPv4 uses the first, the others are 0. */
  words: [number, number, number, number];
  prefixLength: number;
  nexthop: number;
}

/** Why a prefix was not added; the table is unchanged. `message` names what was expected, what came, and what to do. */
export interface RouteError {
  kind: 'full' | 'invalid';
  message: string;
}

/**
 * The prefixes that exist, in the writer's memory: open addressing with linear probing and backward-shift deletion over
 * one Int32Array (a Map with a string for every prefix would take seconds and hundreds of megabytes for a full table).
 * A record is 6 words: address in host order (4), prefix length + 1 (0: free), next hop.
 */
class PrefixMap {
  size = 0;
  private words = new Int32Array(6 * 64);
  private mask = 63;

  private home(h0: number, h1: number, h2: number, h3: number, length: number): number {
    let x = Math.imul(h0 ^ (length << 1), 0x9e3779b1) ^ Math.imul(h1, 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 15) ^ h2, 0xc2b2ae35) ^ Math.imul(h3, 0x27d4eb2f);
    x = Math.imul(x ^ (x >>> 13), 0x165667b1);
    return (x ^ (x >>> 16)) & this.mask;
  }

  /** Word index of the prefix's record, or of the free record where it would go. */
  private probe(h0: number, h1: number, h2: number, h3: number, length: number): number {
    const w = this.words;
    let n = this.home(h0, h1, h2, h3, length);
    for (;;) {
      const r = n * 6;
      if (w[r + 4] === 0) return r;
      if (w[r] === h0 && w[r + 4] === length + 1 && w[r + 1] === h1 && w[r + 2] === h2 && w[r + 3] === h3) return r;
      n = (n + 1) & this.mask;
    }
  }

  get(h0: number, h1: number, h2: number, h3: number, length: number): number {
    const r = this.probe(h0, h1, h2, h3, length);
    return this.words[r + 4] === 0 ? 0 : this.words[r + 5];
  }

  set(h0: number, h1: number, h2: number, h3: number, length: number, nexthop: number): void {
    if ((this.size + 1) * 2 > this.mask) this.grow();
    const w = this.words;
    const r = this.probe(h0, h1, h2, h3, length);
    if (w[r + 4] === 0) this.size++;
    w[r] = h0;
    w[r + 1] = h1;
    w[r + 2] = h2;
    w[r + 3] = h3;
    w[r + 4] = length + 1;
    w[r + 5] = nexthop;
  }

  delete(h0: number, h1: number, h2: number, h3: number, length: number): void {
    const w = this.words;
    let hole = this.probe(h0, h1, h2, h3, length) / 6;
    if (w[hole * 6 + 4] === 0) return;
    this.size--;
    // Knuth 6.4 R: move back each follower whose home is not cyclically in (hole, n].
    for (let n = (hole + 1) & this.mask; w[n * 6 + 4] !== 0; n = (n + 1) & this.mask) {
      const r = n * 6;
      const home = this.home(w[r], w[r + 1], w[r + 2], w[r + 3], w[r + 4] - 1);
      if (((n - home) & this.mask) >= ((n - hole) & this.mask)) {
        w.copyWithin(hole * 6, r, r + 6);
        hole = n;
      }
    }
    w[hole * 6 + 4] = 0;
  }

  private grow(): void {
    const old = this.words;
    this.mask = this.mask * 2 + 1;
    this.words = new Int32Array((this.mask + 1) * 6);
    for (let r = 0; r < old.length; r += 6) {
      if (old[r + 4] === 0) continue;
      const to = this.probe(old[r], old[r + 1], old[r + 2], old[r + 3], old[r + 4] - 1);
      for (let n = 0; n < 6; n++) this.words[to + n] = old[r + n];
    }
  }

  /** All prefixes, by address, then shortest first. */
  list(family: 4 | 6): RouteEntry[] {
    const w = this.words;
    const records: number[] = [];
    for (let r = 0; r < w.length; r += 6) if (w[r + 4] !== 0) records.push(r);
    records.sort((a, b) => {
      for (let n = 0; n < 4; n++) if (w[a + n] !== w[b + n]) return w[a + n] >>> 0 < w[b + n] >>> 0 ? -1 : 1;
      return w[a + 4] - w[b + 4];
    });
    return records.map((r) => ({
      family,
      words: [swap(w[r]), swap(w[r + 1]), swap(w[r + 2]), swap(w[r + 3])],
      prefixLength: w[r + 4] - 1,
      nexthop: w[r + 5],
    }));
  }
}

/** `word` of a host-order address with only its first `length` address bits kept; `first` is the word's first bit. */
function keep(word: number, first: number, length: number): number {
  const bits = length - first;
  return bits <= 0 ? 0 : bits >= 32 ? word : word & (-1 << (32 - bits));
}

export class RouteWriter {
  readonly table: RouteTable;
  private readonly words: Int32Array;
  private readonly prefixes4 = new PrefixMap();
  private readonly prefixes6 = new PrefixMap();
  /** Prefixes that end in a node plus its children (at most 30 + 16): 0 says that the node can go. */
  private readonly uses: Uint8Array;
  /** Nodes that were never used begin here; then come the reclaimed ones. */
  private unused = 1;
  private readonly free: number[] = [];
  /** Unlinked nodes in the order in which they were unlinked; `retired` counts all that ever were. */
  private resting: number[] = [];
  private retired = 0;
  /** The prefix that is worked on, host order, host bits cleared; the slots on the way to it, one per level. */
  private readonly host = new Int32Array(4);
  private readonly way = new Int32Array(1 + (128 - ROOT_BITS) / STRIDE);

  /** The one writer of a table that is still empty. */
  constructor(table: RouteTable) {
    this.table = table;
    this.words = table.words;
    this.uses = new Uint8Array(table.capacity + 1);
  }

  /** Nodes that can be taken now. */
  get available(): number {
    return this.table.capacity - this.unused + 1 + this.free.length;
  }

  /**
   * Adds a prefix, or gives an existing one another next hop (at no moment is it absent).
   * @param family 4 or 6   @param words raw address, 4 words (IPv4: one is enough); host bits are cleared
   * @param prefixLength 0–32 or 0–128   @param nexthop 1 … MAX_NEXTHOP
   * @returns null, or why not: then nothing has changed
   */
  add(family: 4 | 6, words: ArrayLike<number>, prefixLength: number, nexthop: number): RouteError | null {
    const invalid = this.check(family, prefixLength, nexthop);
    if (invalid !== null) return invalid;
    this.clean(family, words, prefixLength);
    const depth = this.depth(prefixLength);
    let at = this.root(family);
    let level = 0;
    while (level < depth && this.words[at + 1] !== 0) at = this.step(this.words[at + 1], ++level);
    if (depth - level > this.available) return this.full(family, depth - level);

    for (; level < depth; at = this.step(this.words[at + 1], ++level)) {
      const node = this.free.pop() ?? this.unused++;
      this.words[HEAD_NODES]++;
      // The node is all zero, so a reader who follows the link finds nothing more and keeps what it had.
      this.link(at, level, node);
    }
    const map = family === 4 ? this.prefixes4 : this.prefixes6;
    const [h0, h1, h2, h3] = this.host;
    const before = map.size;
    map.set(h0, h1, h2, h3, prefixLength, nexthop);
    if (map.size !== before) {
      if (level > 0) this.uses[this.nodeOf(at)]++;
      this.words[family === 4 ? HEAD_COUNT4 : HEAD_COUNT6]++;
    }
    this.fill(at, level, prefixLength, prefixLength, (prefixLength << 24) | nexthop);
    Atomics.add(this.words, HEAD_GENERATION, 1);
    return null;
  }

  /** Removes a prefix. Returns the next hop that it had (for the caller to release), 0 when there is no such prefix. */
  remove(family: 4 | 6, words: ArrayLike<number>, prefixLength: number): number {
    if (this.check(family, prefixLength, 1) !== null) return 0;
    this.clean(family, words, prefixLength);
    const map = family === 4 ? this.prefixes4 : this.prefixes6;
    const [h0, h1, h2, h3] = this.host;
    const nexthop = map.get(h0, h1, h2, h3, prefixLength);
    if (nexthop === 0) return 0;
    map.delete(h0, h1, h2, h3, prefixLength);
    this.words[family === 4 ? HEAD_COUNT4 : HEAD_COUNT6]--;

    const depth = this.depth(prefixLength);
    const way = this.way;
    way[0] = this.root(family);
    for (let level = 1; level <= depth; level++) way[level] = this.step(this.words[way[level - 1] + 1], level);

    // What the slots hold instead: the next shorter prefix that ends in the same level.
    const shortest = depth === 0 ? 0 : ROOT_BITS + (depth - 1) * STRIDE + 1;
    let instead = 0;
    for (let length = prefixLength - 1; length >= shortest && instead === 0; length--) {
      const hop = map.get(
        keep(h0, 0, length),
        keep(h1, 32, length),
        keep(h2, 64, length),
        keep(h3, 96, length),
        length,
      );
      if (hop !== 0) instead = (length << 24) | hop;
    }
    this.fill(way[depth], depth, prefixLength, -1, instead);

    // Nodes that nothing uses any more leave the trie from the bottom up.
    let level = depth;
    if (level > 0) this.uses[this.nodeOf(way[level])]--;
    for (; level > 0 && this.uses[this.nodeOf(way[level])] === 0; level--) {
      this.resting.push(this.nodeOf(way[level]));
      this.retired++;
      Atomics.store(this.words, way[level - 1] + 1, 0);
      if (level > 1) this.uses[this.nodeOf(way[level - 1])]--;
    }
    Atomics.add(this.words, HEAD_GENERATION, 1);
    return nexthop;
  }

  /** Next hop of exactly this prefix, 0 when there is none. */
  get(family: 4 | 6, words: ArrayLike<number>, prefixLength: number): number {
    if (this.check(family, prefixLength, 1) !== null) return 0;
    this.clean(family, words, prefixLength);
    const [h0, h1, h2, h3] = this.host;
    return (family === 4 ? this.prefixes4 : this.prefixes6).get(h0, h1, h2, h3, prefixLength);
  }

  /** All prefixes: IPv4 before IPv6, by address, shorter before longer. Allocates: for people, not for packets. */
  list(): RouteEntry[] {
    return [...this.prefixes4.list(4), ...this.prefixes6.list(6)];
  }

  /** How much has been unlinked so far; hand it to `reclaim` when every reader has passed a quiet point since. */
  mark(): number {
    return this.retired;
  }

  /** True while nodes wait for `reclaim`. */
  get rests(): boolean {
    return this.resting.length > 0;
  }

  /** Makes the nodes usable again that had been unlinked when `mark` was taken (default: all). Returns how many. */
  reclaim(mark: number = this.retired): number {
    const young = Math.min(this.retired - mark, this.resting.length);
    const old = this.resting.length - young;
    for (let n = 0; n < old; n++) this.free.push(this.resting[n]);
    this.resting = this.resting.slice(old);
    this.words[HEAD_NODES] -= old;
    return old;
  }

  /** Levels below the root where a prefix of this length ends. */
  private depth(prefixLength: number): number {
    return prefixLength <= ROOT_BITS ? 0 : Math.ceil((prefixLength - ROOT_BITS) / STRIDE);
  }

  private root(family: 4 | 6): number {
    return (family === 4 ? ROOT4 : ROOT6) + ((this.host[0] >>> 16) << 1);
  }

  /** Word index of the slot that the prefix has in `node`, a node of this level (1: bits 16–19). */
  private step(node: number, level: number): number {
    const bit = ROOT_BITS + (level - 1) * STRIDE;
    return NODES + node * NODE_WORDS + (((this.host[bit >> 5] >>> (28 - (bit & 31))) & 15) << 1);
  }

  private nodeOf(at: number): number {
    return Math.floor((at - NODES) / NODE_WORDS);
  }

  private link(at: number, level: number, node: number): void {
    if (level > 0) this.uses[this.nodeOf(at)]++;
    Atomics.store(this.words, at + 1, node);
  }

  /**
   * Stores `route` into the slots that a prefix covers from slot `at` on: those that hold this very prefix, and those
   * that hold a shorter one or none when it is being added (`over` = its length; −1: only its own).
   */
  private fill(at: number, level: number, prefixLength: number, over: number, route: number): void {
    const end = at + (2 << (ROOT_BITS + level * STRIDE - prefixLength));
    for (let slot = at; slot < end; slot += 2) {
      const length = this.words[slot] >>> 24;
      if (length === prefixLength || length < over) Atomics.store(this.words, slot, route);
    }
  }

  private clean(family: 4 | 6, words: ArrayLike<number>, prefixLength: number): void {
    for (let n = 0; n < 4; n++) this.host[n] = family === 4 && n > 0 ? 0 : keep(swap(words[n]), n << 5, prefixLength);
  }

  private check(family: 4 | 6, prefixLength: number, nexthop: number): RouteError | null {
    const longest = family === 4 ? 32 : 128;
    if (!Number.isInteger(prefixLength) || prefixLength < 0 || prefixLength > longest)
      return {
        kind: 'invalid',
        message: `route: expected a prefix length from 0 to ${longest} for IPv${family}, got ${prefixLength}`,
      };
    if (!Number.isInteger(nexthop) || nexthop < 1 || nexthop > MAX_NEXTHOP)
      return { kind: 'invalid', message: `route: expected a next-hop number from 1 to ${MAX_NEXTHOP}, got ${nexthop}` };
    return null;
  }

  private full(family: 4 | 6, needed: number): RouteError {
    const { capacity } = this.table;
    return {
      kind: 'full',
      message:
        `route table: expected ${needed} free nodes for an IPv${family} prefix, got ${this.available} of ${capacity} ` +
        `(${this.resting.length} more wait for readers); remove routes or start with a larger table`,
    };
  }
}
