/**
 * Extensions: whose a record is and when it is given back; and sequence adjustment against a naive model, which keeps every
 * edit and counts those in front of a byte.
 */
import { describe, expect, it } from 'vitest';
import { EXT_WORDS, Extensions } from '../../conntrack/extensions.ts';
import * as R from '../../conntrack/record.ts';
import { ConntrackTable } from '../../conntrack/table.ts';
import { Random } from '../lib/build.ts';

function bench(capacity = 4): { conntrack: ConntrackTable; ext: Extensions; connection: () => number } {
  const conntrack = new ConntrackTable(ConntrackTable.create(64, 1), 0);
  const ext = new Extensions(new SharedArrayBuffer(Extensions.bytes(capacity)), conntrack);
  let ports = 0;
  const connection = () => {
    const index = conntrack.alloc(0, 0);
    const c = index * R.CT_WORDS;
    conntrack.words[c + R.CT_KEY] = 6 | (4 << 8);
    conntrack.words[c + R.CT_O_PORTS] = conntrack.words[c + R.CT_R_PORTS] = ++ports;
    conntrack.words[c + R.CT_O_SRC] = conntrack.words[c + R.CT_R_DST] = 1;
    conntrack.words[c + R.CT_O_DST] = conntrack.words[c + R.CT_R_SRC] = 2;
    conntrack.words[c + R.CT_HELPER] = 3;
    expect(conntrack.insert(index, conntrack.hashOf(index, 0), conntrack.hashOf(index, 1), 0)).toBe(true);
    return index;
  };
  return { conntrack, ext, connection };
}

describe('records', () => {
  it('a connection has one, keeps it and its helper’s number, and finds it zeroed', () => {
    const { conntrack, ext, connection } = bench();
    const [a, b] = [connection(), connection()];
    expect(ext.existing(a)).toBe(-1);
    ext.words.fill(99);
    for (let n = 0; n < 4; n++) ext.words[n * EXT_WORDS + 14] = 0;
    const at = ext.of(a);
    expect([...ext.words.subarray(at, at + 14)]).toEqual(Array(14).fill(0));
    ext.words[at] = 7;
    expect(ext.of(b)).not.toBe(at);
    expect([ext.of(a), ext.existing(a), ext.words[at]]).toEqual([at, at, 7]);
    expect(conntrack.words[a * R.CT_WORDS + R.CT_HELPER] & 0xff).toBe(3);
    expect(ext.count).toBe(2);
  });

  it('a record that another worker has begun to fill looked like one that was left behind, and became two connections’', () => {
    const { conntrack, ext, connection } = bench();
    const other = new Extensions(ext.words.buffer as SharedArrayBuffer, conntrack);
    const [a, b] = [connection(), connection()];
    let taken = -1;
    // The other worker looks for one of its own at the worst moment.
    ext.words.fill = function (this: Int32Array<SharedArrayBuffer>, ...range) {
      taken = other.of(b);
      return Int32Array.prototype.fill.apply(this, range) as Int32Array<SharedArrayBuffer>;
    } as typeof ext.words.fill;
    const at = ext.of(a);
    expect(taken).toBeGreaterThanOrEqual(0);
    expect(taken).not.toBe(at);
    expect([ext.existing(a), ext.existing(b), ext.count]).toEqual([at, taken, 2]);
  });

  it('all taken: −1, and a record that is given back is the next one’s', () => {
    const { ext, connection } = bench(3);
    const held = [connection(), connection(), connection()];
    const places = held.map((index) => ext.of(index));
    expect(new Set(places).size).toBe(3);
    const late = connection();
    expect([ext.of(late), ext.existing(late)]).toEqual([-1, -1]);
    ext.release(held[1]);
    ext.release(held[1]);
    expect(ext.existing(held[1])).toBe(-1);
    expect(ext.of(late)).toBe(places[1]);
    // Giving back what is not one's own any more does nothing.
    ext.release(held[1]);
    expect(ext.existing(late)).toBe(places[1]);
    expect(ext.count).toBe(3);
  });

  it('one whose connection ended without giving it back is taken over once that record is another connection’s', () => {
    const { conntrack, ext, connection } = bench(1);
    const lost = connection();
    const at = ext.of(lost);
    const other = connection();
    expect(ext.of(other)).toBe(-1);
    conntrack.words[lost * R.CT_WORDS + R.CT_GEN]++;
    conntrack.words[lost * R.CT_WORDS + R.CT_HELPER] = 0;
    expect(ext.of(other)).toBe(at);
    expect(ext.existing(other)).toBe(at);
  });
});

/** Every edit of one direction: where it was in the sender's numbers, and by how much the payload grew. */
class Model {
  private readonly edits: { seq: number; change: number }[] = [];
  add(seq: number, change: number): void {
    this.edits.push({ seq, change });
  }
  /** What lies in front of the byte `seq` has grown by this much. */
  before(seq: number): number {
    return this.edits.reduce((sum, e) => (((seq - e.seq) | 0) > 0 ? sum + e.change : sum), 0);
  }
}

describe('sequence adjustment', () => {
  it('sets the status bit with the first edit; what comes before it stays, what comes behind moves', () => {
    const { conntrack, ext, connection } = bench();
    const index = connection();
    const status = () => conntrack.words[index * R.CT_WORDS + R.CT_STATUS] & R.IPS_SEQ_ADJUST;
    expect(status()).toBe(0);
    ext.record(index, 0, 1000, 5);
    expect(status()).not.toBe(0);
    const e = ext.existing(index);
    expect([999, 1000, 1001, 5000].map((seq) => ext.offset(e, 0, seq))).toEqual([0, 0, 5, 5]);
    expect([999, 1000, 1001, 5000].map((seq) => ext.offset(e, 1, seq))).toEqual([0, 0, 0, 0]);
  });

  it('a segment that is sent again and edited again is not counted twice', () => {
    const { ext, connection } = bench();
    const index = connection();
    ext.record(index, 0, 1000, 5);
    ext.record(index, 0, 2000, -3);
    const e = ext.existing(index);
    ext.noteEdit(e, 0, 2000);
    expect([ext.isAgain(e, 0, 2000), ext.isAgain(e, 1, 2000), ext.isAgain(e, 0, 2001)]).toEqual([true, false, false]);
    ext.record(index, 0, 2000, -3);
    ext.record(index, 0, 1000, 5);
    expect([1500, 2000, 2001].map((seq) => ext.offset(e, 0, seq))).toEqual([5, 5, 2]);
  });

  it.each([0, 1])('direction %d: any number of edits, across the wrap of sequence numbers (property)', (dir) => {
    const random = new Random(793 + dir);
    for (let round = 0; round < 60; round++) {
      const { ext, connection } = bench();
      const index = connection();
      const model = new Model();
      let seq = random.chance(0.5) ? -random.int(1, 3000) | 0 : random.next() | 0;
      let last = seq;
      for (let edit = 0; edit < 12; edit++) {
        const from = last;
        seq = (seq + random.int(1, 1500)) | 0;
        const change = random.int(-40, 40);
        ext.record(index, dir, seq, change);
        model.add(seq, change);
        const e = ext.existing(index);
        // What can still be under way lies behind the edit before this one.
        for (let n = 0; n < 30; n++) {
          const s = (from + 1 + random.int(0, ((seq - from) | 0) + 2000)) | 0;
          expect(ext.offset(e, dir, s)).toBe(model.before(s));
          // The receiver acknowledges in the numbers that it has seen; the sender must get its own back.
          // (Inside the bytes that were replaced there is no such number: segments end before or behind them.)
          const moved = (s + model.before(s)) | 0;
          const behind = (s - seq) | 0;
          if (behind <= 0 || behind > 40) expect((moved - ext.ackOffset(e, dir, moved)) | 0).toBe(s);
        }
        expect(ext.offset(e, dir ^ 1, seq)).toBe(0);
        last = seq;
      }
    }
  });
});
