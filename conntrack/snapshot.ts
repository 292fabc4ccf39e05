/**
 * Snapshot: copies of the connection table, of mappings and of expectations, for somebody who wants to try something on
 * them (`explain`) while the workers go on.
 *
 * Nobody is stopped and nothing is locked, so a copy may hold a record of a moment earlier and one of a moment later;
 * each record by itself is as a lookup would have seen it. What cannot be taken over from a moving table is made anew:
 * the connections' hash chains, free lists, and all locks. Chains that are copied are checked to end.
 */
import { EXP_BUCKETS, EXP_HEADS, type ExpectTable } from './expect.ts';
import { BUMP as MAPPING_BUMP, type MappingBuffers, NM_WORDS, PERMIT_BUMP, PERMIT_WORDS } from './mapping.ts';
import {
  CT_HASH,
  CT_LOCK,
  CT_NEXT,
  CT_STATUS,
  CT_TIMER,
  CT_WORDS,
  CT6_WORDS,
  IPS_CONFIRMED,
  IPS_DYING,
} from './record.ts';
import { BASE, BUMP, FREE, SEED } from './record-pool.ts';
import { type ConntrackBuffers, ConntrackTable } from './table.ts';

/** A table of its own with the connections of `from`, under the same record numbers. */
export function snapshotConntrack(from: ConntrackTable): ConntrackBuffers {
  const seed = new Int32Array(from.buffers.control)[SEED];
  const buffers = ConntrackTable.create(from.max, seed);
  const copy = new ConntrackTable(buffers, 0);
  const control = new Int32Array(buffers.control);
  const records = from.highWater;
  const { words, words6, heads, mask } = copy;
  words.set(from.words.subarray(0, records * CT_WORDS));
  words6.set(from.words6.subarray(0, records * CT6_WORDS));
  let used = 0;
  let free = 0;
  for (let index = records - 1; index >= 0; index--) {
    const c = index * CT_WORDS;
    words[c + CT_LOCK] = 0;
    if ((words[c + CT_STATUS] & (IPS_CONFIRMED | IPS_DYING)) !== IPS_CONFIRMED) {
      words[c + CT_STATUS] = 0;
      words[c + CT_TIMER] = free;
      free = index + 1;
      continue;
    }
    used++;
    for (let dir = 0; dir < 2; dir++) {
      const bucket = words[c + CT_HASH + dir] & mask;
      words[c + CT_NEXT + dir] = heads[bucket];
      heads[bucket] = ((index << 1) | dir) + 1;
    }
  }
  control[BUMP] = records;
  control[BASE] = used;
  control[FREE] = free;
  return buffers;
}

/** Copies made until one is whole: each takes a fraction of a millisecond, and a change in between is rare. */
const TRIES = 8;

/** A copy of the mappings. Throws when the table never stood still long enough for a whole one. */
export function snapshotMappings(from: MappingBuffers): MappingBuffers {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    // In this order: what a chain names has been used, and of what has not, most of the memory, nothing is copied.
    const chains = copyShared(from.heads);
    const head = copyShared(from.control);
    const control = new Int32Array(head);
    const copy = {
      control: head,
      heads: chains,
      words: copyShared(from.words, control[MAPPING_BUMP] * NM_WORDS * 4),
      permits: copyShared(from.permits, control[PERMIT_BUMP] * PERMIT_WORDS * 4),
    };
    // Word 4 is the lock of the free list; behind the 16 words of the head are the stripes.
    control[4] = 0;
    control.fill(0, 16);
    const heads = new Int32Array(copy.heads);
    const words = new Int32Array(copy.words);
    const permits = new Int32Array(copy.permits);
    const half = heads.length >> 1;
    const mappings = ends(heads.subarray(0, half), words.length >> 3, (link) => {
      return words[((link - 1) >> 1) * 16 + ((link - 1) & 1)];
    });
    if (mappings && ends(heads.subarray(half), permits.length >> 2, (link) => permits[(link - 1) * 4])) return copy;
  }
  throw new Error('mappings: expected a moment without a change to copy them in, got none; ask again');
}

/** A copy of the expectations' memory. Throws as snapshotMappings does. */
export function snapshotExpectations(from: ExpectTable): SharedArrayBuffer {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const buffer = copyShared(from.words.buffer as SharedArrayBuffer);
    const words = new Int32Array(buffer);
    words[1] = 0; // the lock
    const heads = words.subarray(EXP_HEADS, EXP_HEADS + EXP_BUCKETS);
    if (ends(heads, from.capacity, (link) => words[from.at(link - 1)])) return buffer;
  }
  throw new Error('expectations: expected a moment without a change to copy them in, got none; ask again');
}

/** A copy of shared memory, or of its first `bytes` bytes: the others are 0. */
export function copyShared(from: SharedArrayBuffer, bytes = from.byteLength): SharedArrayBuffer {
  const to = new SharedArrayBuffer(from.byteLength);
  new Uint8Array(to).set(new Uint8Array(from, 0, bytes));
  return to;
}

/** True when no chain is longer than all records together: a torn copy could go round in circles. */
function ends(heads: Int32Array, records: number, next: (link: number) => number): boolean {
  let left = records;
  for (let bucket = 0; bucket < heads.length; bucket++)
    for (let link = heads[bucket]; link !== 0; link = next(link)) if (--left < 0) return false;
  return true;
}
