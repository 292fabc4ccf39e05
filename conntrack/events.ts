/**
 * Events: NEW, UPDATE and DESTROY of connections, from the workers to whoever listens (`sluice show -E`, logs).
 *
 * Each worker writes to a ring of its own in shared memory; the control plane reads them all. An entry holds a copy of
 * the record as it was, since the record itself may be reused by the time somebody reads. Nobody listening costs one
 * load per event; a full ring loses events and counts them (LOST), it never waits.
 *
 *   head: 0 LISTENING  1 WRITE  2 READ  3 LOST         entry: 0 type  1 index  2… record  50… IPv6 addresses
 */
import { CT_WORDS, CT6_WORDS } from './record.ts';
import type { ConntrackTable } from './table.ts';

export const EVENT_NEW = 1;
export const EVENT_REPLY = 2;
export const EVENT_ASSURED = 3;
export const EVENT_DESTROY = 4;
/** The protocol's state changed. */
export const EVENT_STATE = 5;
export const EVENT_TEXT = ['', 'NEW', 'UPDATE', 'UPDATE', 'DESTROY', 'UPDATE'] as const;

const HEAD = 16;
const ENTRY = 2 + CT_WORDS + CT6_WORDS;
/** A power of two: the positions are int32 and wrap. */
const CAPACITY = 2048;
const LISTENING = 0;
const WRITE = 1;
const READ = 2;
const LOST = 3;

export class EventSink {
  private readonly ring: Int32Array;
  private readonly table: ConntrackTable;

  /** @param buffer all workers' rings   @param worker whose ring this one is */
  constructor(buffer: SharedArrayBuffer, worker: number, table: ConntrackTable) {
    const words = HEAD + CAPACITY * ENTRY;
    this.ring = new Int32Array(buffer, worker * words * 4, words);
    this.table = table;
  }

  static bytes(workers: number): number {
    return workers * (HEAD + CAPACITY * ENTRY) * 4;
  }

  /** Records that something happened to connection `index` (a copy of its record is kept). */
  emit(type: number, index: number): void {
    const ring = this.ring;
    if (ring[LISTENING] === 0) return;
    const write = ring[WRITE];
    if (((write - Atomics.load(ring, READ)) | 0) >= CAPACITY) {
      ring[LOST]++;
      return;
    }
    const at = HEAD + (write & (CAPACITY - 1)) * ENTRY;
    const { words, words6 } = this.table;
    ring[at] = type;
    ring[at + 1] = index;
    for (let n = 0; n < CT_WORDS; n++) ring[at + 2 + n] = words[index * CT_WORDS + n];
    for (let n = 0; n < CT6_WORDS; n++) ring[at + 2 + CT_WORDS + n] = words6[index * CT6_WORDS + n];
    Atomics.store(ring, WRITE, write + 1);
  }

  // --- the reader's side (control plane) ---

  /** Starts or stops listening to this worker's events. */
  listen(on: boolean): void {
    if (on) Atomics.store(this.ring, READ, Atomics.load(this.ring, WRITE));
    Atomics.store(this.ring, LISTENING, on ? 1 : 0);
  }

  get lost(): number {
    return this.ring[LOST];
  }

  /**
   * Hands the next event to `use`: type, record words (CT_WORDS, as a record of index 0) and its IPv6 words. Returns
   * false when there is none.
   */
  read(use: (type: number, index: number, words: Int32Array, words6: Int32Array) => void): boolean {
    const ring = this.ring;
    const read = ring[READ];
    if (read === Atomics.load(ring, WRITE)) return false;
    const at = HEAD + (read & (CAPACITY - 1)) * ENTRY;
    use(ring[at], ring[at + 1], ring.slice(at + 2, at + 2 + CT_WORDS), ring.slice(at + 2 + CT_WORDS, at + ENTRY));
    Atomics.store(ring, READ, read + 1);
    return true;
  }
}
