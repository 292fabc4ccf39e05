/**
 * Expectations: connections that a helper has announced, in shared memory (row A10).
 *
 * An expectation is a tuple with a wildcard for its source: who may connect (any host, the peer, the peer's port) to which
 * address, port and protocol. The first packet that matches makes an EXPECTED connection with a master, RELATED, and
 * takes the expectation with it unless it is permanent. NAT follows the master: what arrives at the announced (public)
 * endpoint goes to the announcer's real one.
 *
 *   record, 32 words
 *    0 NEXT (chain, number + 1)   1 STATE (0 free, 1 live)    2 KEY (proto | family << 8 | zone << 16)  3 FLAGS (EXP_*)
 *    4–7 SRC  raw, masked by FLAGS                             8–11 DST  raw
 *   12 PORTS  destination half high, source half low, raw     13 DEADLINE                              14 MASTER  index + 1
 *   15 MASTER_GEN                                             16 HELPER of the expected connection     17 DIR in the master's terms
 *   18 SAVED_PORT raw, high half: the announcer's real port   19 CLASS                                 20 TIMEOUT s
 *   21 REPLY_PORTS of a GRE call, raw; 0 else                 22 WANTED: announced port before NAT     23–31 spare
 *
 * Behind the records, a word for each: its MASTER while it is live, else 0. Who looks for a master's own or for a free place
 * reads these words side by side, not a cache line for every record.
 *
 * Few at a time, so one lock serves all writers (it holds its owner's number + 1, see `repair`); readers ask COUNT first,
 * which is 0 in most networks most of the time.
 *
 * A record is live as long as its time and its master last, also while its master is being made (a request in a
 * connection's first packet); it counts for others once the master is confirmed. A record whose master ended without
 * notice gives its place to the next one.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { CT_DEADLINE, CT_GEN, CT_STATUS, CT_WORDS, IPS_CONFIRMED, IPS_DYING } from './record.ts';
import type { ConntrackTable } from './table.ts';

export const EXP_WORDS = 32;
export const EXP_STATE = 1;
export const EXP_KEY = 2;
export const EXP_FLAGS = 3;
export const EXP_SRC = 4;
export const EXP_DST = 8;
export const EXP_PORTS = 12;
export const EXP_DEADLINE = 13;
export const EXP_MASTER = 14;
export const EXP_MASTER_GEN = 15;
export const EXP_HELPER = 16;
export const EXP_DIR = 17;
export const EXP_SAVED_PORT = 18;
export const EXP_CLASS = 19;
export const EXP_TIMEOUT = 20;
export const EXP_REPLY_PORTS = 21;
export const EXP_WANTED = 22;

/** The source address, and the source port, must match. */
export const EXP_ADDRESS = 1;
export const EXP_PORT = 2;
/** Stays after its first use (netfilter's NF_CT_EXPECT_PERMANENT). */
export const EXP_PERMANENT = 4;
/** Nobody may come yet: the other end has still to confirm (netfilter's NF_CT_EXPECT_INACTIVE). */
export const EXP_INACTIVE = 16;
/** Not an expectation: the keys of a PPTP call, which lives as long as its master (netfilter's GRE keymap). */
export const EXP_KEYMAP = 8;

const COUNT = 0;
const LOCK = 1;
const CREATED = 2;
const DELETED = 3;
const REFUSED = 4;
const HEADS = 16;
export const EXP_HEADS = HEADS;
const BUCKETS = 256;
export const EXP_BUCKETS = BUCKETS;
const FIRST = HEADS + BUCKETS;

/** An expectation to be; the caller owns and reuses it. */
export interface ExpectSpec {
  key: number;
  flags: number;
  src: Int32Array;
  dst: Int32Array;
  ports: number;
  master: number;
  helper: number;
  dir: number;
  savedPort: number;
  class: number;
  timeout: number;
  replyPorts: number;
  wanted: number;
}

export class ExpectTable {
  readonly words: Int32Array;
  readonly capacity: number;
  private readonly owners: Int32Array;
  private readonly conntrack: ConntrackTable;
  private readonly owner: number;

  /** @param worker number of the calling thread, as the connection table has it */
  constructor(buffer: SharedArrayBuffer, conntrack: ConntrackTable, worker = 0) {
    this.owner = worker + 1;
    this.words = new Int32Array(buffer);
    this.capacity = Math.floor((this.words.length - FIRST) / (EXP_WORDS + 1));
    this.owners = new Int32Array(buffer, (FIRST + this.capacity * EXP_WORDS) * 4, this.capacity);
    this.conntrack = conntrack;
  }

  static bytes(capacity: number): number {
    return (FIRST + capacity * (EXP_WORDS + 1)) * 4;
  }

  get count(): number {
    return this.words[COUNT];
  }

  /** Made, removed, and refused (table or master full), since start. */
  statistics(): { created: number; deleted: number; refused: number } {
    return { created: this.words[CREATED], deleted: this.words[DELETED], refused: this.words[REFUSED] };
  }

  at(n: number): number {
    return FIRST + n * EXP_WORDS;
  }

  private bucket(key: number, d0: number, d3: number, ports: number): number {
    let h = Math.imul(d0 ^ (d3 << 3) ^ key, 0x9e3779b1);
    h = Math.imul((h ^ (h >>> 15)) + (ports >>> 16), 0x85ebca6b);
    return HEADS + ((h ^ (h >>> 16)) & (BUCKETS - 1));
  }

  /** Its time has not come, and its master is the one that made it. The keys of a call have no time of their own. */
  private live(r: number, now: number): boolean {
    const w = this.words;
    if (w[r + EXP_STATE] !== 1) return false;
    if ((w[r + EXP_FLAGS] & EXP_KEYMAP) === 0 && ((w[r + EXP_DEADLINE] - now) | 0) < 0) return false;
    const c = (w[r + EXP_MASTER] - 1) * CT_WORDS;
    const words = this.conntrack.words;
    return (
      words[c + CT_GEN] === w[r + EXP_MASTER_GEN] &&
      (words[c + CT_STATUS] & IPS_DYING) === 0 &&
      // A master that expired is gone for everybody, whenever it is collected.
      ((words[c + CT_DEADLINE] - now) | 0) >= 0
    );
  }

  /** Live, and its master is there for all to see. */
  private valid(r: number, now: number): boolean {
    const c = (this.words[r + EXP_MASTER] - 1) * CT_WORDS;
    return this.live(r, now) && (this.conntrack.words[c + CT_STATUS] & IPS_CONFIRMED) !== 0;
  }

  /**
   * Number of the expectation that the packet of a new connection fulfils, or −1. `kind` EXP_KEYMAP: of the call whose
   * keys it has (its connection was idle for long and expired, the call lives on); 0: of an expectation proper.
   */
  match(p: Packet, key: number, kind: number, now: number): number {
    const w = this.words;
    if (w[COUNT] === 0) return -1;
    for (let n = w[this.bucket(key, p.d0, p.d3, p.ports)]; n !== 0; n = w[FIRST + (n - 1) * EXP_WORDS]) {
      const r = FIRST + (n - 1) * EXP_WORDS;
      const flags = w[r + EXP_FLAGS];
      if (
        w[r + EXP_KEY] === key &&
        (flags & (EXP_KEYMAP | EXP_INACTIVE)) === kind &&
        w[r + EXP_PORTS] >>> 16 === p.ports >>> 16 &&
        w[r + EXP_DST] === p.d0 &&
        w[r + EXP_DST + 1] === p.d1 &&
        w[r + EXP_DST + 2] === p.d2 &&
        w[r + EXP_DST + 3] === p.d3 &&
        ((flags & EXP_ADDRESS) === 0 ||
          (w[r + EXP_SRC] === p.s0 &&
            w[r + EXP_SRC + 1] === p.s1 &&
            w[r + EXP_SRC + 2] === p.s2 &&
            w[r + EXP_SRC + 3] === p.s3)) &&
        ((flags & EXP_PORT) === 0 || (w[r + EXP_PORTS] & 0xffff) === (p.ports & 0xffff)) &&
        this.valid(r, now)
      )
        return n - 1;
    }
    return -1;
  }

  /**
   * Source key (raw, 16 bits) of a PPTP GRE packet: the call ID that its receiver's answers carry, known from the
   * expectation of its call; −1 when there is none. See helpers/pptp.ts.
   */
  greSourceKey(p: Packet, key: number, now: number): number {
    const w = this.words;
    if (w[COUNT] === 0) return -1;
    for (let n = w[this.bucket(key, p.d0, p.d3, p.ports)]; n !== 0; n = w[FIRST + (n - 1) * EXP_WORDS]) {
      const r = FIRST + (n - 1) * EXP_WORDS;
      if (
        w[r + EXP_KEY] === key &&
        w[r + EXP_PORTS] >>> 16 === p.ports >>> 16 &&
        w[r + EXP_DST] === p.d0 &&
        w[r + EXP_SRC] === p.s0 &&
        this.valid(r, now)
      )
        return w[r + EXP_PORTS] & 0xffff;
    }
    return -1;
  }

  /**
   * Makes an expectation. An equal one of the same master is refreshed. Returns its number; −1 when an equal tuple is
   * expected by somebody else (another port may do), −2 when master or table are full.
   */
  add(spec: ExpectSpec, limit: number, now: number): number {
    const w = this.words;
    this.lock();
    let result = this.sameTuple(spec, now);
    if (result >= 0) {
      const r = this.at(result);
      if (w[r + EXP_MASTER] === spec.master + 1 && w[r + EXP_CLASS] === spec.class && w[r + EXP_WANTED] === spec.wanted)
        w[r + EXP_DEADLINE] = (now + spec.timeout * 1000) | 0;
      else result = -1;
    } else if ((result = this.place(spec, limit, now)) >= 0) this.write(result, spec, now);
    else w[REFUSED]++;
    this.unlock();
    return result;
  }

  private sameTuple(spec: ExpectSpec, now: number): number {
    const w = this.words;
    for (
      let n = w[this.bucket(spec.key, spec.dst[0], spec.dst[3], spec.ports)];
      n !== 0;
      n = w[FIRST + (n - 1) * EXP_WORDS]
    ) {
      const r = FIRST + (n - 1) * EXP_WORDS;
      if (w[r + EXP_KEY] !== spec.key || w[r + EXP_PORTS] >>> 16 !== spec.ports >>> 16 || !this.live(r, now)) continue;
      if (((w[r + EXP_FLAGS] ^ spec.flags) & EXP_KEYMAP) !== 0) continue;
      let same = true;
      for (let k = 0; k < 4 && same; k++) same = w[r + EXP_DST + k] === spec.dst[k];
      if (!same) continue;
      // Two that differ in a source that both name do not clash.
      const both = w[r + EXP_FLAGS] & spec.flags;
      if ((both & EXP_ADDRESS) !== 0) {
        let one = true;
        for (let k = 0; k < 4 && one; k++) one = w[r + EXP_SRC + k] === spec.src[k];
        if (!one) continue;
      }
      if ((both & EXP_PORT) !== 0 && (w[r + EXP_PORTS] & 0xffff) !== (spec.ports & 0xffff)) continue;
      return n - 1;
    }
    return -1;
  }

  /**
   * A free record; one of the master's own gives way when it has `limit` of the class already (the oldest first). Without a
   * free one, that of an expectation which is over but was not taken out.
   */
  private place(spec: ExpectSpec, limit: number, now: number): number {
    const { words: w, owners, capacity } = this;
    const owner = spec.master + 1;
    let free = -1;
    let own = 0;
    let oldest = -1;
    for (let n = 0; n < capacity; n++) {
      if (owners[n] === 0) {
        if (free < 0) free = n;
        continue;
      }
      if (owners[n] !== owner || w[this.at(n) + EXP_CLASS] !== spec.class) continue;
      if (!this.live(this.at(n), now)) {
        this.unlink(n);
        if (free < 0) free = n;
        continue;
      }
      own++;
      if (oldest < 0 || ((w[this.at(n) + EXP_DEADLINE] - w[this.at(oldest) + EXP_DEADLINE]) | 0) < 0) oldest = n;
    }
    if (limit > 0 && own >= limit && oldest >= 0) {
      this.unlink(oldest);
      return oldest;
    }
    if (free >= 0) return free;
    for (let n = 0; n < capacity; n++)
      if (!this.live(this.at(n), now)) {
        this.unlink(n);
        return n;
      }
    return -2;
  }

  private write(n: number, spec: ExpectSpec, now: number): void {
    const w = this.words;
    const r = this.at(n);
    w[r + EXP_KEY] = spec.key;
    w[r + EXP_FLAGS] = spec.flags;
    for (let k = 0; k < 4; k++) {
      w[r + EXP_SRC + k] = spec.src[k];
      w[r + EXP_DST + k] = spec.dst[k];
    }
    w[r + EXP_PORTS] = spec.ports;
    w[r + EXP_DEADLINE] = (now + spec.timeout * 1000) | 0;
    w[r + EXP_MASTER] = spec.master + 1;
    w[r + EXP_MASTER_GEN] = this.conntrack.words[spec.master * CT_WORDS + CT_GEN];
    w[r + EXP_HELPER] = spec.helper;
    w[r + EXP_DIR] = spec.dir;
    w[r + EXP_SAVED_PORT] = spec.savedPort;
    w[r + EXP_CLASS] = spec.class;
    w[r + EXP_TIMEOUT] = spec.timeout;
    w[r + EXP_REPLY_PORTS] = spec.replyPorts;
    w[r + EXP_WANTED] = spec.wanted;
    w[r + EXP_STATE] = 1;
    this.owners[n] = spec.master + 1;
    const bucket = this.bucket(spec.key, spec.dst[0], spec.dst[3], spec.ports);
    w[r] = w[bucket];
    Atomics.store(w, bucket, n + 1);
    Atomics.add(w, COUNT, 1);
    w[CREATED]++;
  }

  /** Takes an expectation out (it was used up). */
  remove(n: number): void {
    this.lock();
    if (this.words[this.at(n) + EXP_STATE] === 1) this.unlink(n);
    this.unlock();
  }

  private unlink(n: number): void {
    const w = this.words;
    const r = this.at(n);
    const bucket = this.bucket(w[r + EXP_KEY], w[r + EXP_DST], w[r + EXP_DST + 3], w[r + EXP_PORTS]);
    let at = bucket;
    while (w[at] !== 0 && w[at] !== n + 1) at = this.at(w[at] - 1);
    if (w[at] === n + 1) Atomics.store(w, at, w[r]);
    w[r + EXP_STATE] = 0;
    this.owners[n] = 0;
    Atomics.sub(w, COUNT, 1);
    w[DELETED]++;
  }

  /** Removes what a master expects: all, or one class; `keep`: a number to leave alone (−1: none). */
  removeOf(master: number, which: number, keep = -1): void {
    const { words: w, owners, capacity } = this;
    if (w[COUNT] === 0) return;
    this.lock();
    for (let n = 0; n < capacity; n++) {
      if (owners[n] !== master + 1 || n === keep) continue;
      if (which < 0 || w[this.at(n) + EXP_CLASS] === which) this.unlink(n);
    }
    this.unlock();
  }

  /** The first record from number `from` on that holds keys of a call of this master's (EXP_KEYMAP), or −1. */
  callKeys(master: number, from: number): number {
    const { words: w, owners, capacity } = this;
    if (w[COUNT] === 0) return -1;
    const generation = this.conntrack.words[master * CT_WORDS + CT_GEN];
    for (let n = from; n < capacity; n++) {
      if (owners[n] !== master + 1) continue;
      const r = this.at(n);
      if ((w[r + EXP_FLAGS] & EXP_KEYMAP) !== 0 && w[r + EXP_MASTER_GEN] === generation) return n;
    }
    return -1;
  }

  /** Gives a master's expectations of a class `timeout` seconds from now, and makes them active (a registration was confirmed). */
  prolong(master: number, which: number, timeout: number, now: number): void {
    const { words: w, owners, capacity } = this;
    if (w[COUNT] === 0) return;
    for (let n = 0; n < capacity; n++) {
      if (owners[n] !== master + 1) continue;
      const r = this.at(n);
      if (w[r + EXP_CLASS] !== which || !this.live(r, now)) continue;
      w[r + EXP_DEADLINE] = (now + timeout * 1000) | 0;
      w[r + EXP_FLAGS] &= ~EXP_INACTIVE;
    }
  }

  /** Number of the master's expectation of an announced endpoint (real port, raw high half), or −1. */
  findAnnounced(master: number, wanted: number, proto: number, now: number): number {
    const { words: w, owners, capacity } = this;
    if (w[COUNT] === 0) return -1;
    for (let n = 0; n < capacity; n++) {
      if (owners[n] !== master + 1) continue;
      const r = this.at(n);
      if (w[r + EXP_WANTED] === wanted && (w[r + EXP_KEY] & 0xff) === proto && this.live(r, now)) return n;
    }
    return -1;
  }

  /** Number of the master's expectation that is known outside by this destination port (raw, high half), or −1. */
  findOpened(master: number, ports: number, proto: number, now: number): number {
    const { words: w, owners, capacity } = this;
    if (w[COUNT] === 0) return -1;
    for (let n = 0; n < capacity; n++) {
      if (owners[n] !== master + 1) continue;
      const r = this.at(n);
      if (w[r + EXP_PORTS] >>> 16 === ports >>> 16 && (w[r + EXP_KEY] & 0xff) === proto && this.live(r, now)) return n;
    }
    return -1;
  }

  /** Whether record `n` holds an expectation that is still good. */
  inUse(n: number, now: number): boolean {
    return this.valid(this.at(n), now);
  }

  private lock(): void {
    let spins = 0;
    while (Atomics.compareExchange(this.words, LOCK, 0, this.owner) !== 0)
      if (++spins > 1000) {
        Atomics.wait(this.words, 15, 0, 0.05);
        spins = 0;
      }
  }

  private unlock(): void {
    Atomics.store(this.words, LOCK, 0);
  }

  /**
   * After the death of a worker: if it held the lock, the chains are made anew from the records, and the lock is broken.
   * Readers may walk meanwhile: they see a record or not, as while it was being made. Returns how many locks were broken.
   */
  repair(deadWorker: number): number {
    const w = this.words;
    if (Atomics.load(w, LOCK) !== deadWorker + 1) return 0;
    for (let bucket = HEADS; bucket < FIRST; bucket++) Atomics.store(w, bucket, 0);
    let count = 0;
    for (let n = 0; n < this.capacity; n++) {
      const r = this.at(n);
      this.owners[n] = w[r + EXP_STATE] === 1 ? w[r + EXP_MASTER] : 0;
      if (w[r + EXP_STATE] !== 1) continue;
      const bucket = this.bucket(w[r + EXP_KEY], w[r + EXP_DST], w[r + EXP_DST + 3], w[r + EXP_PORTS]);
      w[r] = w[bucket];
      Atomics.store(w, bucket, n + 1);
      count++;
    }
    Atomics.store(w, COUNT, count);
    this.unlock();
    return 1;
  }
}
