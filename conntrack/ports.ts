/**
 * Ports: who has which outside port, as one bit each, and the search for a free one.
 *
 * A pool is one outside address with one protocol: 65,536 bits in shared memory. A port belongs to whoever set its bit
 * (Atomics.or, so that two workers never get the same). A search costs at most one look at each of the 2,048 words of
 * a pool, however full it is, and finds a port whenever there is one. Ports of a second kind of user, the router itself
 * and its port forwards, are in bitmaps that a search masks out (no port shadowing, CVE-2021-3773).
 *
 *   pool directory   0 ADDRESS raw  1 PROTO + 1  2 USED  3 SEARCHES that found nothing      (POOL_WORDS each)
 *
 * Pool 0 of an address, protocol 0, counts blocks of ports instead of ports (carrier-grade NAT): bit n is block n.
 *
 * The profile `linux` has no pools: there a port is taken when a connection's tuple says so (nat.ts).
 */
const POOL_WORDS = 4;
/** Words of a pool's bitmap. */
export const BITMAP_WORDS = 2048;
/** Parity asked of a port (RFC 4787 REQ-4). */
export const ANY_PARITY = 0;
export const EVEN = 1;
export const ODD = 2;
const PARITY_MASK = [-1, 0x55555555, 0xaaaaaaaa | 0];

const HEAD = 4;
const LOCK = 0;
const COUNT = 1;

export class PortPools {
  private readonly head: Int32Array;
  private readonly directory: Int32Array;
  private readonly bits: Int32Array;
  private readonly capacity: number;
  /** Bitmap words that the last search looked at. */
  probes = 0;

  private readonly owner: number;

  /** @param buffer PortPools.bytes(n) bytes, zeroed at first   @param worker number of the calling thread */
  constructor(buffer: SharedArrayBuffer, worker = 0) {
    this.owner = worker + 1;
    this.capacity = Math.floor((buffer.byteLength / 4 - HEAD) / (POOL_WORDS + BITMAP_WORDS));
    this.head = new Int32Array(buffer, 0, HEAD);
    this.directory = new Int32Array(buffer, HEAD * 4, this.capacity * POOL_WORDS);
    this.bits = new Int32Array(buffer, (HEAD + this.capacity * POOL_WORDS) * 4, this.capacity * BITMAP_WORDS);
  }

  /** Bytes for `pools` pools. */
  static bytes(pools: number): number {
    return (HEAD + pools * (POOL_WORDS + BITMAP_WORDS)) * 4;
  }

  /** Number of the pool of an address (raw) and a protocol, made when `make` is set; −1: there is none, or no room. */
  find(address: number, proto: number, make: boolean): number {
    const d = this.directory;
    const capacity = this.capacity;
    if (capacity === 0) return -1;
    const home = ((Math.imul(address ^ (proto << 24), 0x9e3779b1) >>> 8) ^ proto) % capacity;
    for (let n = 0; n < capacity; n++) {
      const pool = (home + n) % capacity;
      const at = pool * POOL_WORDS;
      if (d[at + 1] === proto + 1 && d[at] === address) return pool;
      if (d[at + 1] !== 0) continue;
      if (!make) return -1;
      // Pools are never taken out, so an empty place ends the search; another worker may fill it at this moment.
      while (Atomics.compareExchange(this.head, LOCK, 0, this.owner) !== 0);
      if (d[at + 1] === 0) {
        d[at] = address;
        Atomics.store(d, at + 1, proto + 1);
        Atomics.add(this.head, COUNT, 1);
      }
      Atomics.store(this.head, LOCK, 0);
      if (d[at + 1] === proto + 1 && d[at] === address) return pool;
    }
    return -1;
  }

  /** After the death of a worker: breaks its lock; a place that it was filling is still empty. Returns how many they were. */
  repair(deadWorker: number): number {
    return Atomics.compareExchange(this.head, LOCK, deadWorker + 1, 0) === deadWorker + 1 ? 1 : 0;
  }

  /** Pools that there are. */
  get count(): number {
    return this.head[COUNT];
  }

  /** Calls `use` with every pool that there is. */
  each(use: (pool: number) => void): void {
    for (let pool = 0; pool < this.capacity; pool++) if (this.directory[pool * POOL_WORDS + 1] !== 0) use(pool);
  }

  /** Address (raw), protocol, ports taken and failed searches of a pool, for people. */
  describe(pool: number): { address: number; proto: number; used: number; exhausted: number } {
    const at = pool * POOL_WORDS;
    const d = this.directory;
    return { address: d[at], proto: d[at + 1] - 1, used: d[at + 2], exhausted: d[at + 3] };
  }

  used(pool: number): number {
    return this.directory[pool * POOL_WORDS + 2];
  }

  has(pool: number, port: number): boolean {
    return (this.bits[pool * BITMAP_WORDS + (port >> 5)] & (1 << (port & 31))) !== 0;
  }

  /** Takes one port (host order). False when somebody has it. */
  take(pool: number, port: number): boolean {
    const bit = 1 << (port & 31);
    if ((Atomics.or(this.bits, pool * BITMAP_WORDS + (port >> 5), bit) & bit) !== 0) return false;
    Atomics.add(this.directory, pool * POOL_WORDS + 2, 1);
    return true;
  }

  give(pool: number, port: number): void {
    const bit = 1 << (port & 31);
    if ((Atomics.and(this.bits, pool * BITMAP_WORDS + (port >> 5), ~bit) & bit) !== 0)
      Atomics.sub(this.directory, pool * POOL_WORDS + 2, 1);
  }

  /** True when no port from `low` to `high` is taken. */
  isEmpty(pool: number, low: number, high: number): boolean {
    for (let word = low >> 5; word <= high >> 5; word++) {
      if ((this.bits[pool * BITMAP_WORDS + word] & rangeMask(word, low, high)) !== 0) return false;
    }
    return true;
  }

  /**
   * Takes a free port of [low, high], the first at or behind `start` that is free, round the range once. Ports in
   * `reserved` (bitmaps, null: none) are left out. Returns the port, or −1 when all are taken.
   */
  takeFrom(
    pool: number,
    low: number,
    high: number,
    start: number,
    parity: number,
    reserved: Int32Array | null,
    services: Int32Array | null,
  ): number {
    const found = this.scan(pool, start, high, parity, reserved, services);
    return found >= 0 || start === low ? found : this.scan(pool, low, start - 1, parity, reserved, services);
  }

  private scan(
    pool: number,
    low: number,
    high: number,
    parity: number,
    reserved: Int32Array | null,
    services: Int32Array | null,
  ): number {
    const base = pool * BITMAP_WORDS;
    const wanted = PARITY_MASK[parity];
    for (let word = low >> 5; word <= high >> 5; word++) {
      this.probes++;
      let free = ~this.bits[base + word] & wanted & rangeMask(word, low, high);
      if (free === 0) continue;
      if (reserved !== null) free &= ~reserved[word];
      if (services !== null) free &= ~services[word];
      while (free !== 0) {
        const bit = free & -free;
        const port = (word << 5) + 31 - Math.clz32(bit);
        if (this.take(pool, port)) return port;
        free ^= bit; // another worker was faster
      }
    }
    return -1;
  }

  /** A search through everything the rule allows found nothing. */
  countExhausted(pool: number): void {
    Atomics.add(this.directory, pool * POOL_WORDS + 3, 1);
  }
}

/** Bits of word `word` that stand for ports from `low` to `high`. */
function rangeMask(word: number, low: number, high: number): number {
  const first = low - (word << 5);
  const last = high - (word << 5);
  let mask = -1;
  if (first > 0) mask &= -1 << first;
  if (last < 31) mask &= -1 >>> (31 - last);
  return mask;
}

/** The other port of an RTP and RTCP pair (RFC 4787 §4.2.3, RFC 3550 §11): even with its next, odd with its last. */
export function partnerOf(port: number): number {
  return port ^ 1;
}
