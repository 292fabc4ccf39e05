/**
 * Extensions: what only connections with a helper need, in records beside the connection table.
 *
 *   record, 20 words
 *   0–7  the helper's own state (helpers/helper.ts)
 *   8–10 sequence adjustment of ORIGINAL: POSITION, BEFORE, AFTER       11–13 of REPLY
 *   14   connection + 1; 0 free, −1 being made                          15    its generation
 *   16   where ORIGINAL's last edited segment began   17 REPLY's        18    bits 0, 1: that there was one    19 spare
 *
 * CT_HELPER of a connection holds the helper's number and, from bit 8, the number of its extension + 1.
 *
 * Sequence adjustment (netfilter's nf_conntrack_seqadj): an edit that changes a payload's length moves all later sequence
 * numbers of that direction, and the acknowledgements and SACK blocks of the other. A segment from before the last edit
 * (a retransmission) moves by what was in force before it.
 */
import { CT_GEN, CT_HELPER, CT_STATUS, CT_WORDS, IPS_SEQ_ADJUST } from './record.ts';
import type { ConntrackTable } from './table.ts';

export const EXT_WORDS = 20;
const POSITION = 8;
const BEFORE = 9;
const AFTER = 10;
const OWNER = 14;
const OWNER_GEN = 15;
const EDITED_AT = 16;
const EDITED = 18;
/** Value of OWNER while a worker fills the record; one that dies then takes the record with it. */
const BEING_MADE = -1;
/** Places that are looked at for one packet: when all are taken, thousands would cost it more than everything else. */
const PROBES = 64;

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

  /**
   * Word index of a connection's extension, made when it has none yet; −1 when PROBES places in a row are taken. The next
   * packet looks at the next ones.
   */
  of(index: number): number {
    const words = this.conntrack.words;
    const c = index * CT_WORDS;
    const number = words[c + CT_HELPER] >>> 8;
    if (number !== 0) return (number - 1) * EXT_WORDS;
    for (let probe = 0; probe < PROBES; probe++) {
      const n = this.hint < this.capacity ? this.hint : 0;
      this.hint = n + 1;
      const owner = this.words[n * EXT_WORDS + OWNER];
      if (owner === BEING_MADE || (owner !== 0 && !this.orphaned(n, owner - 1))) continue;
      // Its owner's name comes last: until the generation is there, the record would look like one that was left behind.
      if (Atomics.compareExchange(this.words, n * EXT_WORDS + OWNER, owner, BEING_MADE) !== owner) continue;
      this.words.fill(0, n * EXT_WORDS, n * EXT_WORDS + OWNER);
      this.words[n * EXT_WORDS + EDITED] = 0;
      this.words[n * EXT_WORDS + OWNER_GEN] = words[c + CT_GEN];
      Atomics.store(this.words, n * EXT_WORDS + OWNER, index + 1);
      words[c + CT_HELPER] = (words[c + CT_HELPER] & 0xff) | ((n + 1) << 8);
      return n * EXT_WORDS;
    }
    return -1;
  }

  /** True when the owner's record has been another connection's since: it ended where nobody gave its extension back. */
  private orphaned(n: number, owner: number): boolean {
    return this.conntrack.words[owner * CT_WORDS + CT_GEN] !== this.words[n * EXT_WORDS + OWNER_GEN];
  }

  /** Extensions in use; counts, for views and tests. */
  get count(): number {
    let used = 0;
    for (let n = 0; n < this.capacity; n++) if (this.words[n * EXT_WORDS + OWNER] !== 0) used++;
    return used;
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
    Atomics.compareExchange(this.words, (number - 1) * EXT_WORDS + OWNER, index + 1, 0);
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

  /** Remembers that the segment at `seq` was edited: sent again, it must be edited again. */
  noteEdit(e: number, dir: number, seq: number): void {
    this.words[e + EDITED_AT + dir] = seq;
    this.words[e + EDITED] |= 1 << dir;
  }

  /** True for the segment that was edited last, which its sender sends again. */
  isAgain(e: number, dir: number, seq: number): boolean {
    return (this.words[e + EDITED] & (1 << dir)) !== 0 && this.words[e + EDITED_AT + dir] === seq;
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
