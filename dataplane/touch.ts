/**
 * Touch: the first pass over a burst for packets that the engine does not carry.
 *
 * A lookup in a large connection table is a chain of cache misses: the bucket head, the record's first line, its counters,
 * and at times another's record before it. Walked packet by packet they follow one another; here the heads of a whole
 * burst are loaded at once, then the records, so that the misses overlap and the walk finds everything near. Each loop has
 * little but its loads, and no branch that waits for one of them, so that as many as the processor allows are under way.
 *
 * Of a packet without a connection, the bucket of the reply is loaded as well, guessing that NAT gives it the address that
 * it gave last. All this only loads; what it gets wrong (a VLAN tag, an extension header, another conntrack zone, another
 * address) costs nothing but the miss.
 */
import { CT_HASH, CT_NEXT, CT_WORDS } from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import { type Frames, META_LEN, META_OFF, META_WORDS } from './frames.ts';
import { SCTP, TCP, UDP } from './parse.ts';

/** Frames that are touched before they are walked: what that loads must stay in the first cache until then. */
export const TOUCH = 64;
/** Below this many buckets the table is in the nearer caches anyway. */
const WORTHWHILE = 1 << 14;

export class Toucher {
  private readonly table: ConntrackTable;
  private readonly frames: Frames;
  /** Hash of each packet's tuple, 0: none; the chain link that a loop has come to; the protocol; which packets are new. */
  private readonly hashes = new Int32Array(TOUCH);
  private readonly links = new Int32Array(TOUCH);
  private readonly protos = new Uint8Array(TOUCH);
  private readonly fresh = new Int32Array(TOUCH);
  /** What was read, kept so that the reads are not optimised away. */
  sink = 0;

  constructor(table: ConntrackTable, frames: Frames) {
    this.table = table;
    this.frames = frames;
  }

  /** True when the table is large enough for this to pay. */
  get worthwhile(): boolean {
    return this.table.buckets >= WORTHWHILE;
  }

  /**
   * Loads what the walk of the frames slots[from … end) will need of the connection table; at most TOUCH of them.
   * @param given the address that NAT gave last, raw; 0: none
   */
  burst(slots: Int32Array, from: number, end: number, given: number): void {
    const { table, hashes, links, protos } = this;
    const { heads, mask, words } = table;
    const n = end - from < TOUCH ? end - from : TOUCH;
    this.hash(slots, from, n);
    for (let k = 0; k < n; k++) links[k] = heads[hashes[k] & mask];
    let sink = 0;
    for (let k = 0; k < n; k++) {
      const link = links[k];
      if (link === 0) continue;
      const c = ((link - 1) >> 1) * CT_WORDS;
      sink ^= words[c] ^ words[c + 32];
      // The line between is TCP's and SCTP's.
      if (protos[k] !== UDP) sink ^= words[c + 16];
    }
    const fresh = this.passOthers(n);
    if (fresh > 0 && given !== 0) this.replies(slots, from, fresh, given);
    this.sink ^= sink;
  }

  /** Hashes the tuples as conntrack will, of the plain frames among them. */
  private hash(slots: Int32Array, from: number, n: number): void {
    const { i32, u16, meta } = this.frames;
    const { table, hashes, protos } = this;
    for (let k = 0; k < n; k++) {
      const m = slots[from + k] * META_WORDS;
      const off = meta[m + META_OFF];
      const length = meta[m + META_LEN];
      const w = (off + 14) >> 2;
      const etherType = u16[(off + 12) >> 1];
      let hash = 0;
      let proto = 0;
      if (etherType === 0x0008 && length >= 38) {
        proto = (i32[w + 2] >> 8) & 0xff;
        const ports = proto === TCP || proto === UDP || proto === SCTP ? i32[w + 5] : 0;
        hash = table.hash4(i32[w + 3], i32[w + 4], ports, proto | (4 << 8));
      } else if (etherType === 0xdd86 && length >= 58) {
        proto = (i32[w + 1] >> 16) & 0xff;
        const ports = proto === TCP || proto === UDP || proto === SCTP ? i32[w + 10] : 0;
        hash = table.hash6(
          i32[w + 2],
          i32[w + 3],
          i32[w + 4],
          i32[w + 5],
          i32[w + 6],
          i32[w + 7],
          i32[w + 8],
          i32[w + 9],
          ports,
          proto | (6 << 8),
        );
      }
      hashes[k] = hash;
      protos[k] = proto;
    }
  }

  /**
   * Loads the second record of a chain whose first is another's. Returns how many packets seem to have no connection;
   * `fresh` says which.
   */
  private passOthers(n: number): number {
    const { hashes, links, fresh } = this;
    const { words } = this.table;
    let sink = 0;
    let count = 0;
    for (let k = 0; k < n; k++) {
      const link = links[k];
      if (link !== 0) {
        const c = ((link - 1) >> 1) * CT_WORDS + ((link - 1) & 1);
        if (words[c + CT_HASH] === hashes[k]) continue;
        const next = words[c + CT_NEXT];
        if (next !== 0) {
          const other = ((next - 1) >> 1) * CT_WORDS;
          sink ^= words[other] ^ words[other + 32];
          continue;
        }
      }
      fresh[count++] = k;
    }
    this.sink ^= sink;
    return count;
  }

  /** Loads what NAT will look at for the first `count` packets of `fresh`: the bucket of the reply from `given`. */
  private replies(slots: Int32Array, from: number, count: number, given: number): void {
    const { i32, u16, meta } = this.frames;
    const { table, links, protos, fresh } = this;
    const { heads, mask, words } = table;
    let replies = 0;
    for (let n = 0; n < count; n++) {
      const off = meta[slots[from + fresh[n]] * META_WORDS + META_OFF];
      if (u16[(off + 12) >> 1] !== 0x0008) continue;
      const proto = protos[fresh[n]];
      const w = (off + 14) >> 2;
      const ports = proto === TCP || proto === UDP || proto === SCTP ? i32[w + 5] : 0;
      const swapped = (ports >>> 16) | (ports << 16);
      links[replies++] = table.hash4(i32[w + 4], given, swapped, proto | (4 << 8)) & mask;
    }
    for (let n = 0; n < replies; n++) links[n] = heads[links[n]];
    let sink = 0;
    for (let n = 0; n < replies; n++) if (links[n] !== 0) sink ^= words[((links[n] - 1) >> 1) * CT_WORDS];
    this.sink ^= sink;
  }
}
