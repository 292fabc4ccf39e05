/**
 * Touch: the first pass over a burst for packets that the engine does not carry.
 *
 * A lookup in a large connection table is a chain of cache misses: the bucket head, the record's first line, its counters.
 * Walked packet by packet they follow one another; here the heads of a whole burst are loaded at once, then the records,
 * so that the misses overlap and the walk finds everything near. Of a packet without a connection, the bucket of the reply
 * is loaded as well, guessing that NAT gives it the address that it gave last. It only loads; what it gets wrong (a VLAN
 * tag, an extension header, another conntrack zone, another address) costs nothing but the miss.
 */
import { CT_WORDS } from '../conntrack/record.ts';
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
  private readonly links = new Int32Array(TOUCH);
  private readonly protos = new Uint8Array(TOUCH);
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
    const { i32, u16, meta } = this.frames;
    const { table, links, protos } = this;
    const heads = table.heads;
    const mask = table.mask;
    const n = end - from < TOUCH ? end - from : TOUCH;
    let sink = 0;
    for (let k = 0; k < n; k++) {
      const m = slots[from + k] * META_WORDS;
      const off = meta[m + META_OFF];
      const length = meta[m + META_LEN];
      const w = (off + 14) >> 2;
      const etherType = u16[(off + 12) >> 1];
      let hash = 0;
      protos[k] = 0;
      if (etherType === 0x0008 && length >= 38) {
        const proto = (i32[w + 2] >> 8) & 0xff;
        const ports = proto === TCP || proto === UDP || proto === SCTP ? i32[w + 5] : 0;
        hash = table.hash4(i32[w + 3], i32[w + 4], ports, proto | (4 << 8));
        protos[k] = proto;
        if (given !== 0 && heads[hash & mask] === 0) {
          const swapped = (ports >>> 16) | (ports << 16);
          sink ^= heads[table.hash4(i32[w + 4], given, swapped, proto | (4 << 8)) & mask];
        }
      } else if (etherType === 0xdd86 && length >= 58) {
        const proto = (i32[w + 1] >> 16) & 0xff;
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
        protos[k] = proto;
      }
      links[k] = heads[hash & mask];
    }
    const words = table.words;
    for (let k = 0; k < n; k++) {
      const link = links[k];
      if (link === 0) continue;
      const c = ((link - 1) >> 1) * CT_WORDS;
      sink ^= words[c] ^ words[c + 32];
      // The line between is TCP's and SCTP's.
      if (protos[k] !== UDP) sink ^= words[c + 16];
    }
    this.sink = sink;
  }
}
