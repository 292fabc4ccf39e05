/**
 * Multicast entries of the engine: one key, several egress ports (rows O9, M3).
 *
 * A small table of its own beside the flow table, since its action is another one: the frame is replicated, its TTL falls
 * by one, addresses stay. Programmed by whoever knows the trees (the API, a multicast router), never learned from
 * packets; no flush takes it out, since it depends on no route and no neighbour. A port that is down is left out.
 *
 *   0 KEY     VALID | family << 8 | ingress port; 0 empty, DEAD removed       9, 10 EGRESS  ports as bits, 0–31 and 32–63
 *   1–4 SRC   raw; all zero: any source                                      11 PACKETS    12 BYTES: of frames received
 *   5–8 GROUP raw                                                            13 LAST       clock ms of the last hit
 *
 * The control plane is the only writer. Workers look up without a lock and count without one: with several workers, a
 * count may miss a packet now and then. This file imports nothing.
 */
export const MC_WORDS = 16;
export const MC_KEY = 0;
export const MC_SRC = 1;
export const MC_GROUP = 5;
export const MC_EGRESS = 9;
export const MC_PACKETS = 11;
export const MC_BYTES = 12;
export const MC_LAST = 13;

const VALID = 1 << 28;
const DEAD = -1;
/** Words before the entries: 0 count. */
const HEAD = 4;
const PLACES = 512;
/** Entries that there may be: half of the places, so that searches are short. */
export const MAX_MULTICAST = PLACES / 2;

/** Raw words; IPv4 in the first. `source` all zero: any. `egress`: port numbers below 64. */
export interface MulticastSpec {
  family: number;
  inPort: number;
  source: ArrayLike<number>;
  group: ArrayLike<number>;
  egress: readonly number[];
}

export class MulticastTable {
  readonly words: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
  }

  static bytes(): number {
    return (HEAD + PLACES * MC_WORDS) * 4;
  }

  get count(): number {
    return this.words[0];
  }

  private home(key: number, s3: number, g0: number, g3: number): number {
    let h = Math.imul(key ^ s3, 0x9e3779b1) ^ Math.imul(g3 + g0, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35);
    return (h ^ (h >>> 13)) & (PLACES - 1);
  }

  /** Word index of the entry with exactly this key, or −1. IPv4: the other words are 0. */
  find(
    family: number,
    inPort: number,
    s0: number,
    s1: number,
    s2: number,
    s3: number,
    g0: number,
    g1: number,
    g2: number,
    g3: number,
  ): number {
    const w = this.words;
    const key = VALID | (family << 8) | inPort;
    let place = this.home(key, s3 ^ s0, g0, g3);
    for (let probes = 0; probes < PLACES; probes++, place = (place + 1) & (PLACES - 1)) {
      const e = HEAD + place * MC_WORDS;
      if (w[e] === 0) return -1;
      if (
        w[e] === key &&
        w[e + MC_GROUP] === g0 &&
        w[e + MC_GROUP + 1] === g1 &&
        w[e + MC_GROUP + 2] === g2 &&
        w[e + MC_GROUP + 3] === g3 &&
        w[e + MC_SRC] === s0 &&
        w[e + MC_SRC + 1] === s1 &&
        w[e + MC_SRC + 2] === s2 &&
        w[e + MC_SRC + 3] === s3
      )
        return e;
    }
    return -1;
  }

  private findSpec(m: MulticastSpec): number {
    const { source: s, group: g } = m;
    return this.find(m.family, m.inPort, s[0], s[1], s[2], s[3], g[0], g[1], g[2], g[3]);
  }

  /** Installs an entry, or gives an installed one other egress ports. False when the table is full. */
  program(m: MulticastSpec, now: number): boolean {
    const w = this.words;
    let low = 0;
    let high = 0;
    for (const port of m.egress)
      if (port < 32) low |= 1 << port;
      else high |= 1 << (port - 32);
    let e = this.findSpec(m);
    if (e >= 0) {
      w[e + MC_EGRESS] = low;
      w[e + MC_EGRESS + 1] = high;
      return true;
    }
    if (w[0] >= MAX_MULTICAST) return false;
    const key = VALID | (m.family << 8) | m.inPort;
    let place = this.home(key, m.source[3] ^ m.source[0], m.group[0], m.group[3]);
    while (w[HEAD + place * MC_WORDS] > 0) place = (place + 1) & (PLACES - 1);
    e = HEAD + place * MC_WORDS;
    for (let n = 0; n < 4; n++) {
      w[e + MC_SRC + n] = m.source[n];
      w[e + MC_GROUP + n] = m.group[n];
    }
    w[e + MC_EGRESS] = low;
    w[e + MC_EGRESS + 1] = high;
    w[e + MC_PACKETS] = 0;
    w[e + MC_BYTES] = 0;
    w[e + MC_LAST] = now;
    Atomics.store(w, e, key);
    w[0]++;
    return true;
  }

  /** Takes an entry out. False when there is none with this key. */
  remove(m: MulticastSpec): boolean {
    const e = this.findSpec(m);
    if (e < 0) return false;
    Atomics.store(this.words, e, DEAD);
    this.words[0]--;
    return true;
  }

  /** Word indices of all entries. */
  list(): number[] {
    const found: number[] = [];
    for (let place = 0; place < PLACES; place++)
      if (this.words[HEAD + place * MC_WORDS] > 0) found.push(HEAD + place * MC_WORDS);
    return found;
  }
}
