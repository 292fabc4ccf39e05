/**
 * Cache of answers: bounded in number and in bytes, the longest unused leaves first; nothing outlives its TTL.
 *
 * An answer is the server's message as it came. Keys: question, and whether signatures were asked for. Times are the router's
 * clock, which wraps: `sweep` is to be called once a day.
 */
/** Bytes of answers, for each one that may be kept: most have some hundred, and one that came by TCP up to 65535. */
const BYTES_EACH = 1024;

export interface Cached {
  message: Uint8Array;
  /** Clock when it came, and when it ends. */
  since: number;
  until: number;
}

export class DnsCache {
  readonly capacity: number;
  /** In the order of their last use, oldest first: what a Map keeps by itself. */
  private readonly entries = new Map<string, Cached>();
  private bytes = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get size(): number {
    return this.entries.size;
  }

  get(now: number, key: string): Cached | undefined {
    const entry = this.entries.get(key);
    if (entry === undefined) return undefined;
    if (((entry.until - now) | 0) <= 0) {
      this.drop(key);
      return undefined;
    }
    this.entries.delete(key);
    this.entries.set(key, entry);
    return entry;
  }

  /** `seconds`: how long it may be kept; 0 keeps nothing. */
  put(now: number, key: string, message: Uint8Array, seconds: number): void {
    this.drop(key);
    const room = this.capacity * BYTES_EACH - message.length;
    if (seconds <= 0 || this.capacity === 0 || room < 0) return;
    while (this.entries.size >= this.capacity || this.bytes > room) {
      const oldest = this.entries.keys().next();
      if (oldest.done === true) break;
      this.drop(oldest.value);
    }
    this.bytes += message.length;
    this.entries.set(key, { message, since: now, until: (now + seconds * 1000) | 0 });
  }

  /** Forgets what is over, before the clock calls it fresh again. */
  sweep(now: number): void {
    for (const [key, { until }] of this.entries) if (((until - now) | 0) <= 0) this.drop(key);
  }

  private drop(key: string): void {
    this.bytes -= this.entries.get(key)?.message.length ?? 0;
    this.entries.delete(key);
  }

  /** Other resolvers may answer differently (another provider, a split horizon). */
  clear(): void {
    this.entries.clear();
    this.bytes = 0;
  }
}
