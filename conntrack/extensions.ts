/**
 * Extensions: what only connections with a helper need, in records beside the connection table.
 *
 *   record, 16 words
 *   0–7  the helper's own state (helpers/helper.ts)
 *   8–10 sequence adjustment of ORIGINAL: POSITION, BEFORE, AFTER       11–13 of REPLY
 *   14   connection + 1; 0 free                                         15    its generation
 *
 * CT_HELPER of a connection holds the helper's number and, from bit 8, the number of its extension + 1.
 *
 * Sequence adjustment (netfilter's nf_conntrack_seqadj): an edit that changes a payload's length moves all later sequence
 * numbers of that direction, and the acknowledgements and SACK blocks of the other. A segment from before the last edit
 * (a retransmission) moves by what was in force before it.
 */
import { CT_GEN, CT_HELPER, CT_STATUS, CT_WORDS, IPS_SEQ_ADJUST } from './record.ts';
import type { ConntrackTable } from './table.ts';

export const EXT_WORDS = 16;
const POSITION = 8;
const BEFORE = 9;
const AFTER = 10;
const OWNER = 14;
const OWNER_GEN = 15;

export class Extensions {
  readonly words: Int32Array;
  private readonly capacity: number;
  private readonly conntrack: ConntrackTable;
  private hint = 0;

  constructor(buffer: SharedArrayBuffer, conntrack: ConntrackTable) {
    this.words = new Int32Array(buffer);
    this.capacity = this.words.length / EXT_WORDS;
    this.conntrack = conntrack;
  }

  static bytes(capacity: number): number {
    return capacity * EXT_WORDS * 4;
  }

  /** Word index of a connection's extension, made when it has none yet; −1 when all are taken. */
  of(index: number): number {
    const words = this.conntrack.words;
    const c = index * CT_WORDS;
    const number = words[c + CT_HELPER] >>> 8;
    if (number !== 0) return (number - 1) * EXT_WORDS;
    for (let probe = 0; probe < this.capacity; probe++) {
      const n = (this.hint + probe) % this.capacity;
      if (Atomics.compareExchange(this.words, n * EXT_WORDS + OWNER, 0, index + 1) !== 0) continue;
      this.hint = n + 1;
      this.words.fill(0, n * EXT_WORDS, n * EXT_WORDS + OWNER);
      this.words[n * EXT_WORDS + OWNER_GEN] = words[c + CT_GEN];
      words[c + CT_HELPER] = (words[c + CT_HELPER] & 0xff) | ((n + 1) << 8);
      return n * EXT_WORDS;
    }
    return -1;
  }

  /** Word index of a connection's extension, or −1. */
  existing(index: number): number {
    const number = this.conntrack.words[index * CT_WORDS + CT_HELPER] >>> 8;
    return number === 0 ? -1 : (number - 1) * EXT_WORDS;
  }

  /** Gives a deleted connection's extension back. */
  release(index: number): void {
    const words = this.conntrack.words;
    const c = index * CT_WORDS;
    const number = words[c + CT_HELPER] >>> 8;
    if (number === 0) return;
    words[c + CT_HELPER] &= 0xff;
    Atomics.store(this.words, (number - 1) * EXT_WORDS + OWNER, 0);
  }

  // --- sequence adjustment -----------------------------------------------------------------------------------------

  /** An edit at sequence number `seq` (host order) made direction `dir` longer by `change` bytes. */
  record(index: number, dir: number, seq: number, change: number): void {
    const e = this.of(index);
    if (e < 0) return;
    const w = this.words;
    const s = e + 3 * dir;
    if (w[s + BEFORE] === w[s + AFTER] || ((w[s + POSITION] - seq) | 0) < 0) {
      w[s + POSITION] = seq;
      w[s + BEFORE] = w[s + AFTER];
      w[s + AFTER] = (w[s + AFTER] + change) | 0;
    }
    Atomics.or(this.conntrack.words, index * CT_WORDS + CT_STATUS, IPS_SEQ_ADJUST);
  }

  /** What is added to sequence number `seq` (as the sender knows it) of direction `dir`. */
  offset(e: number, dir: number, seq: number): number {
    const w = this.words;
    const s = e + 3 * dir;
    return ((seq - w[s + POSITION]) | 0) > 0 ? w[s + AFTER] : w[s + BEFORE];
  }

  /** What is taken from an acknowledgement or SACK edge `ack` (as its sender knows it) of direction `dir`'s data. */
  ackOffset(e: number, dir: number, ack: number): number {
    const w = this.words;
    const s = e + 3 * dir;
    return ((ack - w[s + BEFORE] - w[s + POSITION]) | 0) > 0 ? w[s + AFTER] : w[s + BEFORE];
  }
}
