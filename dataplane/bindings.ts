/**
 * Bindings: which source addresses the stations of a port may use, for security groups; in shared memory.
 *
 * A binding gives an address or a prefix on one port to one MAC, or to whichever MAC the address is made of (modified
 * EUI-64, RFC 4291 appendix A). A packet passes when any binding of its port covers its source and names its sender.
 *
 *   buffer:  | ports, 80 words each | records, 8 words each, a power of two of them |
 *   port:    0 COUNT of kinds, then for each kind 5 words: KEY and the raw mask of its prefix length
 *   record:  0 KEY       port + 1 | family << 8 | prefix length << 16 | generation << 24; 0 empty, −1 was taken out
 *            1–4 NETWORK raw; IPv4 in the first           5 MAC_LO   6 MAC_HI, or EUI64 where the address tells
 *
 * Open addressing: a lookup masks the address by each kind that the port has, and probes from the hash of key and
 * network until an empty record. Most ports have three or four kinds. One writer (the control plane) fills a record and
 * then stores its key; taken out, a record becomes empty when nobody can be looking past it. Readers take no lock; they
 * look at the key again behind the rest, since a record may be taken out and filled anew under their eyes.
 *
 * Not here: what else a security group allows (path-source.ts), whose bindings there are (controlplane/security-groups.ts).
 */
import { MAX_PORTS } from './interfaces.ts';
import { type Family, maskWords, type Words } from './wire/address.ts';

const KIND_WORDS = 5;
/** Families and prefix lengths that one port may have. */
export const MAX_KINDS = 15;
const PORT_WORDS = 80;
const RECORDS = MAX_PORTS * PORT_WORDS;
const RECORD_WORDS = 8;
const NETWORK = 1;
const MAC_LO = 5;
const MAC_HI = 6;
const REMOVED = -1;
/** What of a record's first word is the key; a 7-bit generation stands above. */
const KEY = 0xffffff;

/** In place of a MAC: the interface identifier must be the sender's EUI-64. */
export const EUI64 = 0x10000;

export class BindingTable {
  readonly words: Int32Array;
  /** Records, a power of two; half of them are used at most. 0: no port has a security group. */
  readonly records: number;

  /** @param buffer BindingTable.bytes(n) bytes, zeroed at first */
  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.records = Math.max(0, (this.words.length - RECORDS) / RECORD_WORDS);
  }

  /** Bytes for `bindings` of them; 0: a table that nobody may ask. */
  static bytes(bindings: number): number {
    if (bindings === 0) return 4;
    return (RECORDS + 2 ** Math.ceil(Math.log2(bindings * 2)) * RECORD_WORDS) * 4;
  }

  /** True when a station with this MAC may send from the address (raw words; IPv4: the first) on the port. */
  allows(port: number, family: number, a: number, b: number, c: number, d: number, lo: number, hi: number): boolean {
    const w = this.words;
    const mask = this.records - 1;
    const first = port * PORT_WORDS;
    const end = first + 1 + w[first] * KIND_WORDS;
    for (let k = first + 1; k < end; k += KIND_WORDS) {
      const key = w[k];
      if (((key >>> 8) & 0xff) !== family) continue;
      const n0 = a & w[k + 1];
      const n1 = b & w[k + 2];
      const n2 = c & w[k + 3];
      const n3 = d & w[k + 4];
      for (let n = hash(key, n0, n1, n2, n3) & mask, probes = 0; probes <= mask; n = (n + 1) & mask, probes++) {
        const r = RECORDS + n * RECORD_WORDS;
        const found = w[r];
        if (found === 0) break;
        if ((found & KEY) !== key || w[r + 1] !== n0 || w[r + 2] !== n1 || w[r + 3] !== n2 || w[r + 4] !== n3) continue;
        const high = w[r + MAC_HI];
        const names = high === EUI64 ? isEui64(c, d, lo, hi) : w[r + MAC_LO] === lo && high === (hi & 0xffff);
        if (names && Atomics.load(w, r) === found) return true;
      }
    }
    return false;
  }
}

/** The interface identifier (words 2 and 3 of an address, raw) is made of this MAC. */
function isEui64(c: number, d: number, lo: number, hi: number): boolean {
  return c === (((lo & 0xffffff) ^ 0x02) | (0xff << 24)) && d === (0xfe | ((lo >>> 24) << 8) | ((hi & 0xffff) << 16));
}

function hash(key: number, a: number, b: number, c: number, d: number): number {
  let h = Math.imul(key ^ a, 0x9e3779b1) ^ Math.imul(b ^ (d >>> 7), 0x85ebca6b) ^ Math.imul(c ^ (d << 9), 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 15), 0x27d4eb2f) ^ d;
  h = Math.imul(h ^ (h >>> 13), 0x9e3779b1);
  return h ^ (h >>> 16);
}

/** `mac` null: EUI-64 addresses of whoever has the MAC that they are made of. */
export interface Binding {
  port: number;
  family: Family;
  /** Raw, host bits zero. */
  words: Words;
  prefixLength: number;
  mac: { lo: number; hi: number } | null;
}

export class BindingWriter {
  readonly table: BindingTable;
  private readonly slots = new Map<string, number>();
  private readonly kinds = new Map<number, number>();
  private generation = 0;

  /** The one writer of a table that is still empty. */
  constructor(table: BindingTable) {
    this.table = table;
  }

  get size(): number {
    return this.slots.size;
  }

  /**
   * Gives a prefix to a MAC, beside others that may have it. Returns null, or a sentence that says why not: nothing has
   * changed then.
   */
  add(binding: Binding): string | null {
    const { table, slots } = this;
    const name = nameOf(binding);
    if (slots.has(name)) return null;
    if (slots.size * 2 >= table.records) return `the table of bindings is full (${table.records / 2})`;
    const { words, mac } = binding;
    const key = keyOf(binding);
    if (!this.addKind(binding, key)) return `more than ${MAX_KINDS} prefix lengths on one port`;
    const w = table.words;
    const mask = table.records - 1;
    let n = hash(key, words[0], words[1], words[2], words[3]) & mask;
    while (w[RECORDS + n * RECORD_WORDS] !== 0 && w[RECORDS + n * RECORD_WORDS] !== REMOVED) n = (n + 1) & mask;
    const r = RECORDS + n * RECORD_WORDS;
    for (let k = 0; k < 4; k++) w[r + NETWORK + k] = words[k];
    w[r + MAC_LO] = mac?.lo ?? 0;
    w[r + MAC_HI] = mac === null ? EUI64 : mac.hi & 0xffff;
    // With a number that changes: who looks twice sees that it is another record.
    Atomics.store(w, r, key | ((++this.generation & 0x7f) << 24));
    slots.set(name, n);
    return null;
  }

  /** Takes a binding back; false when it was not there. */
  remove(binding: Binding): boolean {
    const name = nameOf(binding);
    const slot = this.slots.get(name);
    if (slot === undefined) return false;
    const w = this.table.words;
    const mask = this.table.records - 1;
    const key = keyOf(binding);
    this.slots.delete(name);
    Atomics.store(w, RECORDS + slot * RECORD_WORDS, REMOVED);
    // Where a chain ends here, nothing behind is reached through the records taken out: they are empty again.
    if (w[RECORDS + ((slot + 1) & mask) * RECORD_WORDS] === 0)
      for (let n = slot; w[RECORDS + n * RECORD_WORDS] === REMOVED; n = (n - 1) & mask)
        Atomics.store(w, RECORDS + n * RECORD_WORDS, 0);
    const left = (this.kinds.get(key) ?? 1) - 1;
    if (left > 0) this.kinds.set(key, left);
    else this.removeKind(binding.port, key);
    return true;
  }

  private addKind({ port, family, prefixLength }: Binding, key: number): boolean {
    const known = this.kinds.get(key);
    if (known === undefined) {
      const w = this.table.words;
      const first = port * PORT_WORDS;
      if (w[first] === MAX_KINDS) return false;
      const at = first + 1 + w[first] * KIND_WORDS;
      const mask = maskWords(family, prefixLength);
      for (let k = 0; k < 4; k++) w[at + 1 + k] = mask[k];
      w[at] = key;
      Atomics.store(w, first, w[first] + 1);
    }
    this.kinds.set(key, (known ?? 0) + 1);
    return true;
  }

  /** The last kind takes the place of the one that goes; its mask last, as a mask of zeros finds nothing. */
  private removeKind(port: number, key: number): void {
    this.kinds.delete(key);
    const w = this.table.words;
    const first = port * PORT_WORDS;
    const last = first + 1 + (w[first] - 1) * KIND_WORDS;
    for (let at = first + 1; at <= last; at += KIND_WORDS) {
      if (w[at] !== key) continue;
      Atomics.store(w, at, 0);
      for (let k = 1; k < KIND_WORDS; k++) w[at + k] = w[last + k];
      Atomics.store(w, at, w[last]);
      break;
    }
    Atomics.store(w, first, w[first] - 1);
  }
}

function keyOf({ port, family, prefixLength }: Binding): number {
  return (port + 1) | (family << 8) | (prefixLength << 16);
}

function nameOf({ port, family, words, prefixLength, mac }: Binding): string {
  return [port, family, ...words, prefixLength, mac?.lo, mac?.hi].join();
}
