/**
 * The flow table of the emulated engine: exact match, fixed size, in shared memory.
 *
 * Two arrays of entries, one per family, open addressing with linear probing at most five eighths full. An IPv4 entry is one
 * cache line and self-contained: what it matches, what it does, and what it has counted. Of an IPv6 entry all that a hit needs
 * is in its first line, as the MAC is its neighbour's as well.
 *
 *   IPv4, 16 words                                     IPv6, 32 words
 *    0 SRC     1 DST      2 PORTS   3 KEY               0–3 SRC   4–7 DST   8 PORTS   9 KEY
 *    4 NSRC    5 NDST     6 NPORTS  7 DELTA            10 LAST   11 DMAC_HI 12 EPOCH 13 NEIGH
 *    8 LAST    9 DMAC_HI 10 EPOCH  11 NEIGH            14 PACKETS 15 BYTES
 *   12 PACKETS 13 BYTES  14 DMAC_LO 15 CONN            16 DMAC_LO 17 CONN   18–31 spare
 *
 *   KEY      protocol | ingress port << 8 | VALID; 0 empty, DEAD removed. PORTS: the port pair, GRE call ID or ESP SPI as
 *            one raw word. Addresses and ports raw (network order as loaded).
 *   DELTA    what the rewrite adds to the IP header's sum (low half, TTL included) and to the transport's (high half)
 *   DMAC_HI  last two MAC bytes | egress port << 16 | flags << 24 (none yet)
 *   EPOCH    the epoch word read before the walk that made the entry; another value today: the slow path looks again
 *   NEIGH    neighbour record << 16 | low half of its generation
 *   PACKETS, BYTES count up and wrap; LAST is the clock (ms) of the last hit; CONN = connection << 1 | direction
 *
 * Beside each entry AUX_WORDS words that the fast path never touches (policy and aging): see AUX_*.
 *
 * Writers (the workers that program, and the control plane) take one lock, which holds its owner's number + 1; readers take none. An entry is taken out by
 * one store to KEY and its place is only used again after `grace`, so that a reader never sees half of another flow.
 *
 * Behind the table may stand an engine that does the work in its stead (engine.ts): it learns of every entry under the
 * lock, and its counts are added to the entry's by `collect`.
 *
 * This file imports nothing but that interface: the engine knows packets only as words.
 */
import type { Engine, EngineCounters } from './engine.ts';

export const FLOW4_WORDS = 16;
export const F4_SRC = 0;
export const F4_DST = 1;
export const F4_PORTS = 2;
export const F4_KEY = 3;
export const F4_NSRC = 4;
export const F4_NDST = 5;
export const F4_NPORTS = 6;
export const F4_DELTA = 7;
export const F4_LAST = 8;
export const F4_DMAC_HI = 9;
export const F4_EPOCH = 10;
export const F4_NEIGH = 11;
export const F4_PACKETS = 12;
export const F4_BYTES = 13;
export const F4_DMAC_LO = 14;
export const F4_CONN = 15;

export const FLOW6_WORDS = 32;
export const F6_SRC = 0;
export const F6_DST = 4;
export const F6_PORTS = 8;
export const F6_KEY = 9;
export const F6_LAST = 10;
export const F6_DMAC_HI = 11;
export const F6_EPOCH = 12;
export const F6_NEIGH = 13;
export const F6_PACKETS = 14;
export const F6_BYTES = 15;
export const F6_DMAC_LO = 16;
export const F6_CONN = 17;

/** Bit of KEY that every entry has, so that no entry's KEY is 0. */
export const KEY_VALID = 1 << 28;
const DEAD = -1;
/** An epoch word that is current once in 2^32 flushes at most. */
const STALE = -1;

/** Beside each entry. */
export const AUX_WORDS = 8;
export const AUX_SEEN_PACKETS = 0; // PACKETS at the last harvest
export const AUX_SEEN_BYTES = 1;
export const AUX_INSTALLED = 2; // clock ms
export const AUX_PRIORITY = 3;
export const AUX_CONN_GEN = 4;
export const AUX_FREED = 5; // grace number at removal
export const AUX_LIVE = 6; // place in the list of live entries
export const AUX_RATE = 7; // packets between the last two harvests

/** Control words. */
const COUNT = 0;
const LOCK = 1;
const CAPACITY = 2;
const LIVE4 = 4;
const LIVE6 = 5;
const CURSOR4 = 6;
const CURSOR6 = 7;
/** Bytes before the first entry in flows4 and flows6, so that an entry is one cache line. */
const LEAD4 = 8;
const LEAD6 = 9;
const PLACES = 10;
/** Sweeps so far: see sweep(). */
const SWEEPS = 11;
/** Places that hold nothing, not even a tombstone: every search ends at one. */
const EMPTY4 = 12;
const EMPTY6 = 13;
export const STAT_INSTALLS = 16;
export const STAT_UPDATES = 17;
export const STAT_EVICTIONS = 18;
export const STAT_REFUSED = 19;
export const STAT_REMOVED = 20;
export const STAT_COLLISIONS = 21;
const CONTROL_WORDS = 32;

export interface FlowBuffers {
  control: SharedArrayBuffer;
  flows4: SharedArrayBuffer;
  flows6: SharedArrayBuffer;
  aux4: SharedArrayBuffer;
  aux6: SharedArrayBuffer;
  live4: SharedArrayBuffer;
  live6: SharedArrayBuffer;
}

export type AlignedMemory = (bytes: number) => { buffer: SharedArrayBuffer; lead: number };
const unaligned: AlignedMemory = (bytes) => ({ buffer: new SharedArrayBuffer(bytes), lead: 0 });

/** One entry to be, in words; the caller owns and reuses it. */
export interface FlowSpec {
  family: number;
  src: Int32Array;
  dst: Int32Array;
  ports: number;
  proto: number;
  inPort: number;
  newSrc: number;
  newDst: number;
  newPorts: number;
  delta: number;
  macLo: number;
  macHi: number;
  outPort: number;
  flags: number;
  epoch: number;
  neighbour: number;
  connection: number;
  generation: number;
  priority: number;
  /** FlowTable.sweeps, read before the walk that made the entry; another value now: it is too old to be installed. */
  sweep: number;
}

export function newFlowSpec(): FlowSpec {
  return {
    family: 4,
    src: new Int32Array(4),
    dst: new Int32Array(4),
    ports: 0,
    proto: 0,
    inPort: 0,
    newSrc: 0,
    newDst: 0,
    newPorts: 0,
    delta: 0,
    macLo: 0,
    macHi: 0,
    outPort: 0,
    flags: 0,
    epoch: 0,
    neighbour: 0,
    connection: 0,
    generation: 0,
    priority: 0,
    sweep: 0,
  };
}

/** Copies an entry to be; both keep their own address arrays. */
export function copyFlowSpec(from: FlowSpec, to: FlowSpec): void {
  for (let n = 0; n < 4; n++) {
    to.src[n] = from.src[n];
    to.dst[n] = from.dst[n];
  }
  to.family = from.family;
  to.ports = from.ports;
  to.proto = from.proto;
  to.inPort = from.inPort;
  to.newSrc = from.newSrc;
  to.newDst = from.newDst;
  to.newPorts = from.newPorts;
  to.delta = from.delta;
  to.macLo = from.macLo;
  to.macHi = from.macHi;
  to.outPort = from.outPort;
  to.flags = from.flags;
  to.epoch = from.epoch;
  to.neighbour = from.neighbour;
  to.connection = from.connection;
  to.generation = from.generation;
  to.priority = from.priority;
  to.sweep = from.sweep;
}

export class FlowTable {
  readonly buffers: FlowBuffers;
  readonly words4: Int32Array;
  readonly words6: Int32Array;
  readonly aux4: Int32Array;
  readonly aux6: Int32Array;
  /** Dense lists of the places in use, for aging. */
  readonly live4: Int32Array;
  readonly live6: Int32Array;
  readonly control: Int32Array;
  readonly mask: number;
  readonly seed: number;
  /** The engine that this table's entries are also in; null: the table is the engine. */
  behind: Engine | null = null;
  private readonly taken: EngineCounters = { packets: 0, bytes: 0, last: 0 };
  private readonly owner: number;

  /** @param seed of the hash   @param worker number of the calling thread */
  constructor(buffers: FlowBuffers, seed: number, worker = 0) {
    this.owner = worker + 1;
    this.buffers = buffers;
    this.control = new Int32Array(buffers.control);
    const places = this.control[PLACES];
    this.words4 = new Int32Array(buffers.flows4, this.control[LEAD4] >>> 0, places * FLOW4_WORDS);
    this.words6 = new Int32Array(buffers.flows6, this.control[LEAD6] >>> 0, places * FLOW6_WORDS);
    this.aux4 = new Int32Array(buffers.aux4);
    this.aux6 = new Int32Array(buffers.aux6);
    this.live4 = new Int32Array(buffers.live4);
    this.live6 = new Int32Array(buffers.live6);
    this.mask = places - 1;
    this.seed = seed;
  }

  /** Places for `entries` entries: a power of two, so many that five eighths of them are enough. */
  static places(entries: number): number {
    return 2 ** Math.ceil(Math.log2(Math.max(entries, 8) * 1.6));
  }

  /** Bytes of the entries of each family in a table for `entries`. */
  static familyBytes(entries: number): { four: number; six: number } {
    const places = FlowTable.places(entries);
    return { four: places * FLOW4_WORDS * 4, six: places * FLOW6_WORDS * 4 };
  }

  /** Bytes that a table for `entries` entries takes at most (IPv6 memory is only used when there are IPv6 flows). */
  static bytes(entries: number): number {
    return FlowTable.places(entries) * (FLOW4_WORDS + FLOW6_WORDS + 2 * AUX_WORDS + 2) * 4;
  }

  /** @param aligned4 gives shared memory and the bytes to leave out, so that an entry begins a cache line; `aligned6`, too */
  static create(entries: number, aligned4: AlignedMemory = unaligned, aligned6 = aligned4): FlowBuffers {
    const places = FlowTable.places(entries);
    const bytes = FlowTable.familyBytes(entries);
    const four = aligned4(bytes.four);
    const six = aligned6(bytes.six);
    const buffers = {
      control: new SharedArrayBuffer(CONTROL_WORDS * 4),
      flows4: four.buffer,
      flows6: six.buffer,
      aux4: new SharedArrayBuffer(places * AUX_WORDS * 4),
      aux6: new SharedArrayBuffer(places * AUX_WORDS * 4),
      live4: new SharedArrayBuffer(places * 4),
      live6: new SharedArrayBuffer(places * 4),
    };
    const control = new Int32Array(buffers.control);
    control[CAPACITY] = entries;
    control[LEAD4] = four.lead;
    control[LEAD6] = six.lead;
    control[PLACES] = places;
    control[EMPTY4] = places;
    control[EMPTY6] = places;
    return buffers;
  }

  /** The same entries in memory of their own, the lock free. */
  copy(): FlowBuffers {
    const own = (words: Int32Array) => {
      const buffer = new SharedArrayBuffer(words.byteLength);
      new Int32Array(buffer).set(words);
      return buffer;
    };
    const control = own(this.control);
    const words = new Int32Array(control);
    words[LOCK] = 0;
    words[LEAD4] = 0;
    words[LEAD6] = 0;
    return {
      control,
      flows4: own(this.words4),
      flows6: own(this.words6),
      aux4: own(this.aux4),
      aux6: own(this.aux6),
      live4: own(this.live4),
      live6: own(this.live6),
    };
  }

  get capacity(): number {
    return this.control[CAPACITY];
  }

  get count(): number {
    return this.control[COUNT];
  }

  liveCount(family: number): number {
    return this.control[family === 4 ? LIVE4 : LIVE6];
  }

  statistic(which: number): number {
    return this.control[which];
  }

  countStatistic(which: number): void {
    this.control[which]++;
  }

  // --- lookup -------------------------------------------------------------------------------------------------------

  /** Place at which the search for an IPv4 flow begins. */
  home4(src: number, dst: number, ports: number, key: number): number {
    let h = Math.imul(src ^ this.seed, 0x9e3779b1);
    h = Math.imul((h ^ (h >>> 15)) + dst, 0x85ebca6b);
    h = Math.imul((h ^ (h >>> 13)) + ports, 0xc2b2ae35);
    h = Math.imul((h ^ (h >>> 16)) + key, 0x27d4eb2f);
    return (h ^ (h >>> 15)) & this.mask;
  }

  home6(
    s0: number,
    s1: number,
    s2: number,
    s3: number,
    d0: number,
    d1: number,
    d2: number,
    d3: number,
    ports: number,
    key: number,
  ): number {
    // Two independent chains, so that the multiplications overlap.
    let g = Math.imul(s3 ^ this.seed, 0x9e3779b1);
    let h = Math.imul(d3 ^ s0, 0x85ebca6b);
    g = Math.imul((g ^ (g >>> 15)) + s2, 0xc2b2ae35);
    h = Math.imul((h ^ (h >>> 13)) + d2, 0x27d4eb2f);
    g = Math.imul((g ^ (g >>> 16)) + s1, 0x85ebca6b);
    h = Math.imul((h ^ (h >>> 15)) + d1 + d0, 0x9e3779b1);
    h = Math.imul((h ^ (h >>> 13)) + (g ^ (g >>> 16)), 0xc2b2ae35);
    h = Math.imul((h ^ (h >>> 16)) + ports + key, 0x27d4eb2f);
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
    return (h ^ (h >>> 16)) & this.mask;
  }

  /** Place of an IPv4 flow, or −1; `home` as home4 gave it. */
  find4(home: number, src: number, dst: number, ports: number, key: number): number {
    const w = this.words4;
    const mask = this.mask;
    for (let place = home; ; place = (place + 1) & mask) {
      const e = place << 4;
      const k = w[e + F4_KEY];
      if (k === key && w[e] === src && w[e + F4_DST] === dst && w[e + F4_PORTS] === ports) return place;
      if (k === 0) return -1;
    }
  }

  /** Place of an IPv6 flow, or −1. */
  find6(
    home: number,
    s0: number,
    s1: number,
    s2: number,
    s3: number,
    d0: number,
    d1: number,
    d2: number,
    d3: number,
    ports: number,
    key: number,
  ): number {
    const w = this.words6;
    const mask = this.mask;
    for (let place = home; ; place = (place + 1) & mask) {
      const e = place << 5;
      const k = w[e + F6_KEY];
      if (
        k === key &&
        w[e + F6_PORTS] === ports &&
        w[e + 3] === s3 &&
        w[e + 7] === d3 &&
        w[e + 2] === s2 &&
        w[e + 6] === d2 &&
        w[e + 1] === s1 &&
        w[e + 5] === d1 &&
        w[e] === s0 &&
        w[e + 4] === d0
      )
        return place;
      if (k === 0) return -1;
    }
  }

  /** KEY of a flow. */
  static key(proto: number, inPort: number): number {
    return proto | (inPort << 8) | KEY_VALID;
  }

  /** Place of the flow that a spec describes, or −1. */
  findSpec(f: FlowSpec): number {
    const key = FlowTable.key(f.proto, f.inPort);
    const { src: s, dst: d } = f;
    if (f.family === 4) return this.find4(this.home4(s[0], d[0], f.ports, key), s[0], d[0], f.ports, key);
    const home = this.home6(s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], f.ports, key);
    return this.find6(home, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], f.ports, key);
  }

  // --- programming ----------------------------------------------------------------------------------------------------

  /**
   * Installs or updates an entry. Returns its place, or −1 when there is none for it (full, its places still rest, or a
   * sweep has passed since its walk began).
   * @param grace number that has grown by two once every reader has passed a quiet point
   */
  install(f: FlowSpec, now: number, grace: number): number {
    this.lock();
    if (f.sweep !== this.control[SWEEPS]) {
      this.unlock();
      return -1;
    }
    const place = this.findSpec(f);
    const at = place >= 0 ? place : this.vacancy(f, grace);
    if (at >= 0) this.write(f, at, place < 0, now);
    this.unlock();
    return at;
  }

  private vacancy(f: FlowSpec, grace: number): number {
    if (this.control[COUNT] >= this.control[CAPACITY]) return -1;
    const key = FlowTable.key(f.proto, f.inPort);
    const { src: s, dst: d } = f;
    const four = f.family === 4;
    let place = four
      ? this.home4(s[0], d[0], f.ports, key)
      : this.home6(s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], f.ports, key);
    const words = four ? this.words4 : this.words6;
    const aux = four ? this.aux4 : this.aux6;
    for (let probes = 0; probes <= this.mask; probes++, place = (place + 1) & this.mask) {
      const k = four ? words[(place << 4) + F4_KEY] : words[(place << 5) + F6_KEY];
      const freed = aux[place * AUX_WORDS + AUX_FREED];
      const rested = freed === 0 || ((grace - freed) | 0) >= 2;
      // Tombstones come first; an eighth of the places stays empty, so that searches end, and soon.
      if (k === 0) return rested && this.control[four ? EMPTY4 : EMPTY6] > (this.mask + 1) >> 3 ? place : -1;
      if (k === DEAD && rested) return place;
    }
    return -1;
  }

  private write(f: FlowSpec, place: number, fresh: boolean, now: number): void {
    const key = FlowTable.key(f.proto, f.inPort);
    const four = f.family === 4;
    const w = four ? this.words4 : this.words6;
    const e = four ? place << 4 : place << 5;
    const macHi = (f.macHi & 0xffff) | (f.outPort << 16) | (f.flags << 24);
    const { behind } = this;
    const changed = behind !== null && (fresh || this.differs(f, w, e, macHi));
    if (four) {
      w[e + F4_NSRC] = f.newSrc;
      w[e + F4_NDST] = f.newDst;
      w[e + F4_NPORTS] = f.newPorts;
      w[e + F4_DELTA] = f.delta;
    }
    w[e + (four ? F4_DMAC_LO : F6_DMAC_LO)] = f.macLo;
    w[e + (four ? F4_DMAC_HI : F6_DMAC_HI)] = macHi;
    w[e + (four ? F4_NEIGH : F6_NEIGH)] = f.neighbour;
    w[e + (four ? F4_CONN : F6_CONN)] = f.connection;
    w[e + (four ? F4_EPOCH : F6_EPOCH)] = f.epoch;
    const aux = four ? this.aux4 : this.aux6;
    const a = place * AUX_WORDS;
    aux[a + AUX_CONN_GEN] = f.generation;
    // The packet that led here was as good as a hit: an entry that had gone idle is not idle any more.
    const last = e + (four ? F4_LAST : F6_LAST);
    if (fresh || ((now - w[last]) | 0) > 0) w[last] = now;
    if (!fresh) {
      if (f.priority > aux[a + AUX_PRIORITY]) aux[a + AUX_PRIORITY] = f.priority;
      this.control[STAT_UPDATES]++;
      behind?.program(f, place, now, changed);
      return;
    }
    aux[a + AUX_PRIORITY] = f.priority;
    if (w[e + (four ? F4_KEY : F6_KEY)] === 0) this.control[four ? EMPTY4 : EMPTY6]--;
    w[e + (four ? F4_PACKETS : F6_PACKETS)] = 0;
    w[e + (four ? F4_BYTES : F6_BYTES)] = 0;
    aux[a + AUX_SEEN_PACKETS] = 0;
    aux[a + AUX_SEEN_BYTES] = 0;
    aux[a + AUX_INSTALLED] = now;
    aux[a + AUX_RATE] = 0;
    if (four) {
      w[e] = f.src[0];
      w[e + F4_DST] = f.dst[0];
      w[e + F4_PORTS] = f.ports;
    } else {
      for (let n = 0; n < 4; n++) {
        w[e + n] = f.src[n];
        w[e + 4 + n] = f.dst[n];
      }
      w[e + F6_PORTS] = f.ports;
    }
    const list = four ? this.live4 : this.live6;
    const count = this.control[four ? LIVE4 : LIVE6]++;
    list[count] = place;
    aux[a + AUX_LIVE] = count;
    this.control[COUNT]++;
    this.control[STAT_INSTALLS]++;
    Atomics.store(w, e + (four ? F4_KEY : F6_KEY), key);
    if (behind !== null) {
      behind.begin(f.family, place);
      behind.program(f, place, now, true);
    }
  }

  /** True when an entry does something else than `f` says. */
  private differs(f: FlowSpec, w: Int32Array, e: number, macHi: number): boolean {
    if (f.family !== 4)
      return (
        w[e + F6_DMAC_LO] !== f.macLo ||
        w[e + F6_DMAC_HI] !== macHi ||
        w[e + F6_NEIGH] !== f.neighbour ||
        w[e + F6_EPOCH] !== f.epoch
      );
    return (
      w[e + F4_EPOCH] !== f.epoch ||
      w[e + F4_NEIGH] !== f.neighbour ||
      w[e + F4_DMAC_LO] !== f.macLo ||
      w[e + F4_DMAC_HI] !== macHi ||
      w[e + F4_NSRC] !== f.newSrc ||
      w[e + F4_NDST] !== f.newDst ||
      w[e + F4_NPORTS] !== f.newPorts
    );
  }

  /**
   * Adds what the engine behind the table has counted to an entry. Returns the bytes that its 32-bit count has no place
   * for, a multiple of 2^32.
   */
  collect(family: number, place: number): number {
    const { behind, taken } = this;
    if (behind === null) return 0;
    this.lock();
    let beyond = 0;
    if (behind.read(family, place, taken)) {
      const four = family === 4;
      const w = four ? this.words4 : this.words6;
      const e = four ? place << 4 : place << 5;
      // Workers that count hits of their own do so without a lock.
      Atomics.add(w, e + (four ? F4_PACKETS : F6_PACKETS), taken.packets | 0);
      Atomics.add(w, e + (four ? F4_BYTES : F6_BYTES), taken.bytes | 0);
      const last = e + (four ? F4_LAST : F6_LAST);
      if (((taken.last - w[last]) | 0) > 0) w[last] = taken.last;
      beyond = Math.floor(taken.bytes / 0x100000000) * 0x100000000;
    }
    this.unlock();
    return beyond;
  }

  /** Clock ms of an entry's last hit, also of one that the engine behind the table has counted and nobody has collected. */
  lastHit(family: number, place: number): number {
    const last = family === 4 ? this.words4[(place << 4) + F4_LAST] : this.words6[(place << 5) + F6_LAST];
    if (this.behind === null) return last;
    const there = this.behind.lastHit(family, place);
    return ((there - last) | 0) > 0 ? there : last;
  }

  /** Takes an entry out of the engine behind the table, so that its counts are final; it stays here until `remove`. */
  withdraw(family: number, place: number): void {
    if (this.behind === null) return;
    this.lock();
    if (this.isLive(family, place)) this.behind.invalidate(family, place);
    this.unlock();
  }

  /**
   * Takes an entry out; its place rests until `grace` has grown by two. Its counters must have been harvested: the engine
   * behind the table still counts for the ports what it has forwarded since, of which the connection hears no more.
   */
  remove(family: number, place: number, grace: number): void {
    if (place < 0) return;
    this.lock();
    const four = family === 4;
    const w = four ? this.words4 : this.words6;
    const shift = four ? 4 : 5;
    const k = four ? F4_KEY : F6_KEY;
    const old = w[(place << shift) + k];
    if (old !== 0 && old !== DEAD) {
      if (this.behind !== null) {
        this.behind.invalidate(family, place);
        this.behind.read(family, place, this.taken);
      }
      const aux = four ? this.aux4 : this.aux6;
      // A place whose successor is empty ends every search anyway: no tombstone needed, there or before it.
      const next = (place + 1) & this.mask;
      if (w[(next << shift) + k] === 0) {
        let at = place;
        do {
          Atomics.store(w, (at << shift) + k, 0);
          this.control[four ? EMPTY4 : EMPTY6]++;
          at = (at - 1) & this.mask;
        } while (w[(at << shift) + k] === DEAD);
      } else Atomics.store(w, (place << shift) + k, DEAD);
      aux[place * AUX_WORDS + AUX_FREED] = grace;
      const list = four ? this.live4 : this.live6;
      const last = --this.control[four ? LIVE4 : LIVE6];
      const at = aux[place * AUX_WORDS + AUX_LIVE];
      list[at] = list[last];
      aux[list[at] * AUX_WORDS + AUX_LIVE] = at;
      this.control[COUNT]--;
      this.control[STAT_REMOVED]++;
    }
    this.unlock();
  }

  /** Next live place for aging, round robin; −1 when there is none. */
  nextLive(family: number): number {
    const four = family === 4;
    const count = this.control[four ? LIVE4 : LIVE6];
    if (count === 0) return -1;
    const cursor = four ? CURSOR4 : CURSOR6;
    let at = this.control[cursor] + 1;
    if (at >= count) at = 0;
    this.control[cursor] = at;
    return (four ? this.live4 : this.live6)[at];
  }

  /** The place that `nextLive` gives at its n-th call from now (0: the next), if nothing changes; −1 when there is none. */
  upcoming(family: number, n: number): number {
    const four = family === 4;
    const count = this.control[four ? LIVE4 : LIVE6];
    if (count === 0) return -1;
    return (four ? this.live4 : this.live6)[(this.control[four ? CURSOR4 : CURSOR6] + 1 + n) % count];
  }

  // --- sweeps -----------------------------------------------------------------------------------------------------------

  /** Sweeps so far; to be read before a walk begins, and put into the spec that comes of it. */
  get sweeps(): number {
    return Atomics.load(this.control, SWEEPS);
  }

  /**
   * An 8-bit epoch is about to come round: no entry made before may ever look current again. Every entry's epoch
   * loses the byte at `shift` (0 there is nobody's epoch), and walks that began before can install nothing any more.
   */
  sweep(shift: number): void {
    this.lock();
    Atomics.add(this.control, SWEEPS, 1);
    for (let n = 0; n < this.control[LIVE4]; n++)
      this.words4[this.live4[n] * FLOW4_WORDS + F4_EPOCH] &= ~(0xff << shift);
    for (let n = 0; n < this.control[LIVE6]; n++)
      this.words6[this.live6[n] * FLOW6_WORDS + F6_EPOCH] &= ~(0xff << shift);
    this.unlock();
  }

  /** True when the place holds an entry. */
  isLive(family: number, place: number): boolean {
    const k = family === 4 ? this.words4[(place << 4) + F4_KEY] : this.words6[(place << 5) + F6_KEY];
    return k !== 0 && k !== DEAD;
  }

  private lock(): void {
    let spins = 0;
    while (Atomics.compareExchange(this.control, LOCK, 0, this.owner) !== 0)
      if (++spins > 1000) {
        Atomics.wait(this.control, CONTROL_WORDS - 1, 0, 0.05);
        spins = 0;
      }
  }

  private unlock(): void {
    Atomics.store(this.control, LOCK, 0);
  }

  /**
   * After the death of a worker: if it held the lock, lists and counts are made anew from the entries, and the lock is broken.
   * An entry that it was changing may be half of the new one: all become stale, so that the slow path describes them again.
   * @param grace as `remove` takes it   @returns how many locks were broken
   */
  repair(deadWorker: number, grace: number): number {
    if (Atomics.load(this.control, LOCK) !== deadWorker + 1) return 0;
    this.control[COUNT] = this.relist(4, grace) + this.relist(6, grace);
    this.unlock();
    return 1;
  }

  /** One family's list of live entries, and its count of empty places. Returns how many live. */
  private relist(family: number, grace: number): number {
    const four = family === 4;
    const w = four ? this.words4 : this.words6;
    const aux = four ? this.aux4 : this.aux6;
    const list = four ? this.live4 : this.live6;
    let live = 0;
    let empty = 0;
    for (let place = 0; place <= this.mask; place++) {
      const e = four ? place << 4 : place << 5;
      const key = w[e + (four ? F4_KEY : F6_KEY)];
      if (key === 0) empty++;
      // Whether the beginning of its rest was noted is not known: it begins again.
      else if (key === DEAD) aux[place * AUX_WORDS + AUX_FREED] = grace;
      else {
        w[e + (four ? F4_EPOCH : F6_EPOCH)] = STALE;
        aux[place * AUX_WORDS + AUX_LIVE] = live;
        list[live++] = place;
      }
    }
    this.control[four ? LIVE4 : LIVE6] = live;
    this.control[four ? EMPTY4 : EMPTY6] = empty;
    return live;
  }
}
