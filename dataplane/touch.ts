/**
 * Touch: the first pass over a burst for packets that the engine does not carry.
 *
 * A lookup in a large connection table is a chain of cache misses: the bucket head, the record's first line, its counters.
 * Walked packet by packet they follow one another; here the heads of a whole burst are loaded at once, then the records,
 * so that the misses overlap and the walk finds everything near. It only loads; what it gets wrong (a VLAN tag, an
 * extension header, another conntrack zone) costs nothing but the miss.
 */
import { CT_WORDS } from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import { type Frames, META_LEN, META_OFF, META_WORDS } from './frames.ts';
import { SCTP, TCP, UDP } from './parse.ts';

/** Below this many buckets the table is in the nearer caches anyway. */
const WORTHWHILE = 1 << 14;

export class Toucher {
  private readonly table: ConntrackTable;
  private readonly frames: Frames;
  private readonly links = new Int32Array(256);
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

  /** Loads what the walk of these frames will need of the connection table. */
  burst(slots: Int32Array, n: number): void {
    const { i32, u16, meta } = this.frames;
    const { table, links } = this;
    const heads = table.heads;
    const mask = table.mask;
    for (let k = 0; k < n; k++) {
      const m = slots[k] * META_WORDS;
      const off = meta[m + META_OFF];
      const length = meta[m + META_LEN];
      const w = (off + 14) >> 2;
      const etherType = u16[(off + 12) >> 1];
      let hash = 0;
      if (etherType === 0x0008 && length >= 38) {
        const proto = (i32[w + 2] >> 8) & 0xff;
        const ports = proto === TCP || proto === UDP || proto === SCTP ? i32[w + 5] : 0;
        hash = table.hash4(i32[w + 3], i32[w + 4], ports, proto | (4 << 8));
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
      }
      links[k] = heads[hash & mask];
    }
    const words = table.words;
    let sink = 0;
    for (let k = 0; k < n; k++) {
      const link = links[k];
      if (link === 0) continue;
      const c = ((link - 1) >> 1) * CT_WORDS;
      sink ^= words[c] ^ words[c + 16] ^ words[c + 32];
    }
    this.sink = sink;
  }
}
