/**
 * Neighbours: who is behind an address on a port (RFC 826, RFC 4861 §5.1), in shared memory.
 *
 * Readers (the path's `neighbour` stage) look up without a lock. Each family's domain of the control plane is the only
 * writer of its entries; as both may insert at the same place, entries come and go under one lock, whose word holds the
 * holder's number. Both families are in one table, keyed by port and address. Open addressing with linear probing; an entry
 * is published by a store to its STATE word, and removed by clearing it; it never moves. A search reads one word a place, behind the
 * records: 16 bits of the hash of the entry there (TAG), and how many places a search that begins there must look at
 * (REACH). So what has come and gone costs later searches nothing, and who is not in the table costs no record's cache line: a
 * scan brings a thousand entries a second, and asks for many more.
 *
 *   0 STATE   NUD_*; 0 free                    8 GEN        grows whenever MAC or usability changes (engine entries hold it)
 *   1 PORT    | family << 8                    9 USED       clock ms of the last packet sent through it (written by workers)
 *   2–5 ADDR  raw; IPv4 in word 2             10 CONFIRMED  clock ms of the last proof of reachability
 *   6 MAC_LO  first four bytes, raw           11 UPDATED    clock ms of the last state change
 *   7 MAC_HI  last two bytes, raw             12 PROBES     solicitations sent in this state
 *                                             13 FLAGS      NTF_* (router, static)     14, 15 spare
 */
export const NEIGH_WORDS = 16;
export const NEIGH_STATE = 0;
export const NEIGH_PORT = 1;
export const NEIGH_ADDR = 2;
export const NEIGH_MAC_LO = 6;
export const NEIGH_MAC_HI = 7;
export const NEIGH_GEN = 8;
export const NEIGH_USED = 9;
export const NEIGH_CONFIRMED = 10;
export const NEIGH_UPDATED = 11;
export const NEIGH_PROBES = 12;
export const NEIGH_FLAGS = 13;

/** States, the kernel's numbers (linux/neighbour.h). */
export const NUD_INCOMPLETE = 0x01;
export const NUD_REACHABLE = 0x02;
export const NUD_STALE = 0x04;
export const NUD_DELAY = 0x08;
export const NUD_PROBE = 0x10;
export const NUD_FAILED = 0x20;
export const NUD_PERMANENT = 0x80;
/** States in which the MAC may be used. */
export const NUD_VALID = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT;

/** A neighbour in one of these states may be used without telling the control plane. */
export const NUD_QUIET = NUD_REACHABLE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT;

export const NTF_ROUTER = 0x80;

/**
 * Words before the records: 0 count, 1 epoch (grows with every change), 2 answers (grows when a MAC becomes usable), 3 lock.
 */
export const NEIGH_HEAD = 4;
const LOCK = 3;

export class NeighbourTable {
  readonly words: Int32Array;
  readonly capacity: number;
  /** Called behind every change of a record by this thread: an engine outside of this memory follows them. */
  changed: (n: number) => void = () => {};
  /** This thread's number in the lock. */
  owner = 1;
  private readonly mask: number;
  /** Word of the first place's TAG (low half) and REACH (high half). */
  private readonly tags: number;

  /** @param lead bytes of the buffer before the table   @param bytes of the table; without it, all that follow */
  constructor(buffer: SharedArrayBuffer, lead = 0, bytes = buffer.byteLength - lead) {
    this.words = new Int32Array(buffer, lead, bytes >> 2);
    this.capacity = (this.words.length - NEIGH_HEAD) / (NEIGH_WORDS + 1);
    this.mask = this.capacity - 1;
    this.tags = NEIGH_HEAD + this.capacity * NEIGH_WORDS;
  }

  /** Bytes for a table of `capacity` entries, a power of two. */
  static bytes(capacity: number): number {
    return (NEIGH_HEAD + capacity * (NEIGH_WORDS + 1)) * 4;
  }

  /** Grows with every change of any entry: workers compare it to know when to look at their held packets. */
  epoch(): number {
    return this.words[1];
  }

  /** Grows when an entry becomes usable: what waits for it may leave. */
  answers(): number {
    return this.words[2];
  }

  get count(): number {
    return this.words[0];
  }

  /** Word index of record `n`. */
  at(n: number): number {
    return NEIGH_HEAD + n * NEIGH_WORDS;
  }

  /** The lower bits are the place where a search begins, the upper ones the tag. */
  private hash(portFamily: number, a0: number, a1: number, a2: number, a3: number): number {
    let h = Math.imul(portFamily ^ a0, 0x9e3779b1) ^ Math.imul(a1 ^ (a3 << 7), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 15) ^ a2 ^ a3, 0xc2b2ae35);
    return h ^ (h >>> 13);
  }

  /** Places that a search for this neighbour looks at. */
  searched(port: number, family: number, a0: number, a1: number, a2: number, a3: number): number {
    return this.words[this.tags + (this.hash(port | (family << 8), a0, a1, a2, a3) & this.mask)] >>> 16;
  }

  /** Record number of the neighbour, or −1. Raw addresses; IPv4: a1 = a2 = a3 = 0. */
  find(port: number, family: number, a0: number, a1: number, a2: number, a3: number): number {
    const w = this.words;
    const { mask, tags } = this;
    const key = port | (family << 8);
    const hash = this.hash(key, a0, a1, a2, a3);
    const tag = hash >>> 16;
    let n = hash & mask;
    // Plain loads: they do not tear, and an entry of this very moment may be missed.
    for (let reach = w[tags + n] >>> 16; reach > 0; reach--) {
      if ((w[tags + n] & 0xffff) === tag) {
        const r = NEIGH_HEAD + n * NEIGH_WORDS;
        if (w[r] !== 0 && w[r + 1] === key && w[r + 2] === a0 && w[r + 3] === a1 && w[r + 4] === a2 && w[r + 5] === a3)
          return n;
      }
      n = (n + 1) & mask;
    }
    return -1;
  }

  /**
   * Finds or makes the entry (a new one is NUD_INCOMPLETE without a MAC). Control plane only. Returns −1 when the table
   * is three quarters full: the caller evicts first.
   */
  ensure(port: number, family: number, a0: number, a1: number, a2: number, a3: number, now: number): number {
    const found = this.find(port, family, a0, a1, a2, a3);
    if (found >= 0) return found;
    const w = this.words;
    this.lock();
    if (w[0] >= (this.capacity >> 2) * 3) {
      this.unlock(this.owner);
      return -1;
    }
    const key = port | (family << 8);
    const hash = this.hash(key, a0, a1, a2, a3);
    const home = hash & this.mask;
    let n = home;
    while (w[NEIGH_HEAD + n * NEIGH_WORDS] !== 0) n = (n + 1) & this.mask;
    const r = NEIGH_HEAD + n * NEIGH_WORDS;
    w[r + 1] = key;
    w[r + 2] = a0;
    w[r + 3] = a1;
    w[r + 4] = a2;
    w[r + 5] = a3;
    w[r + NEIGH_MAC_LO] = 0;
    w[r + NEIGH_MAC_HI] = 0;
    w[r + NEIGH_USED] = now;
    w[r + NEIGH_CONFIRMED] = now;
    w[r + NEIGH_UPDATED] = now;
    w[r + NEIGH_PROBES] = 0;
    w[r + NEIGH_FLAGS] = 0;
    w[0]++;
    const { tags } = this;
    w[tags + n] = (w[tags + n] & ~0xffff) | (hash >>> 16);
    const reach = this.distance(home, n);
    if (reach > w[tags + home] >>> 16) w[tags + home] = (w[tags + home] & 0xffff) | (reach << 16);
    // Last: a death before leaves a place that looks free and costs searches a look.
    Atomics.store(w, r, NUD_INCOMPLETE);
    this.unlock(this.owner);
    return n;
  }

  /** Sets MAC (raw words) and state; the generation grows when the MAC or its usability changes. Control plane only. */
  update(n: number, state: number, macLo: number, macHi: number, now: number): void {
    const w = this.words;
    const r = NEIGH_HEAD + n * NEIGH_WORDS;
    const wasUsable = (w[r] & NUD_VALID) !== 0;
    const usable = (state & NUD_VALID) !== 0;
    if (w[r + NEIGH_MAC_LO] !== macLo || w[r + NEIGH_MAC_HI] !== macHi || wasUsable !== usable) {
      w[r + NEIGH_MAC_LO] = macLo;
      w[r + NEIGH_MAC_HI] = macHi;
      Atomics.add(w, r + NEIGH_GEN, 1);
    }
    if (w[r] !== state) {
      w[r + NEIGH_UPDATED] = now;
      w[r + NEIGH_PROBES] = 0;
    }
    if (state & (NUD_REACHABLE | NUD_PERMANENT)) w[r + NEIGH_CONFIRMED] = now;
    Atomics.store(w, r, state);
    if (usable && !wasUsable) Atomics.add(w, 2, 1);
    Atomics.add(w, 1, 1);
    this.changed(n);
  }

  /** Forgets the entry. Control plane only. */
  remove(n: number): void {
    const w = this.words;
    const r = NEIGH_HEAD + n * NEIGH_WORDS;
    if (w[r] === 0) return;
    this.lock();
    Atomics.add(w, r + NEIGH_GEN, 1);
    Atomics.store(w, r, 0);
    this.shorten(this.homeOf(r), n);
    w[0]--;
    this.unlock(this.owner);
    Atomics.add(w, 1, 1);
    this.changed(n);
  }

  /** Held for the few stores of one entry. Whoever dies in between is dead for the supervisor too, which calls `unlock`. */
  private lock(): void {
    while (Atomics.compareExchange(this.words, LOCK, 0, this.owner) !== 0);
  }

  /** Gives up the lock if this owner has it. */
  unlock(owner: number): void {
    Atomics.compareExchange(this.words, LOCK, owner, 0);
  }

  /** 4 or 6 of the entry in record `n`; 0: there is none. */
  familyOf(n: number): 0 | 4 | 6 {
    return n >= 0 && n < this.capacity && this.used(n)
      ? ((this.words[NEIGH_HEAD + n * NEIGH_WORDS + NEIGH_PORT] >> 8) as 4 | 6)
      : 0;
  }

  private homeOf(r: number): number {
    const w = this.words;
    return this.hash(w[r + 1], w[r + 2], w[r + 3], w[r + 4], w[r + 5]) & this.mask;
  }

  /** Places from `home` to `n`, both counted. */
  private distance(home: number, n: number): number {
    return ((n - home) & this.mask) + 1;
  }

  /** The entry at `n` has gone: when it was the farthest whose search begins at `home`, that search ends earlier now. */
  private shorten(home: number, n: number): void {
    const w = this.words;
    const at = this.tags + home;
    let reach = this.distance(home, n);
    if (reach !== w[at] >>> 16) return;
    for (reach--; reach > 0; reach--) {
      const r = NEIGH_HEAD + ((home + reach - 1) & this.mask) * NEIGH_WORDS;
      if (w[r] !== 0 && this.homeOf(r) === home) break;
    }
    w[at] = (w[at] & 0xffff) | (reach << 16);
  }

  /** True when record `n` holds an entry. */
  used(n: number): boolean {
    return this.words[NEIGH_HEAD + n * NEIGH_WORDS] !== 0;
  }
}
