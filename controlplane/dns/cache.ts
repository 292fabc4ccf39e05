/**
 * Cache of answers: bounded, the longest unused leaves first; nothing outlives its TTL.
 *
 * An answer is the server's message as it came. Keys: question, and whether signatures were asked for.
 */
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

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get size(): number {
    return this.entries.size;
  }

  get(now: number, key: string): Cached | undefined {
    const entry = this.entries.get(key);
    if (entry === undefined) return undefined;
    this.entries.delete(key);
    if (((entry.until - now) | 0) <= 0) return undefined;
    this.entries.set(key, entry);
    return entry;
  }

  /** `seconds`: how long it may be kept; 0 keeps nothing. */
  put(now: number, key: string, message: Uint8Array, seconds: number): void {
    this.entries.delete(key);
    if (seconds <= 0 || this.capacity === 0) return;
    while (this.entries.size >= this.capacity) {
      const oldest = this.entries.keys().next();
      if (oldest.done === true) break;
      this.entries.delete(oldest.value);
    }
    this.entries.set(key, { message, since: now, until: (now + seconds * 1000) | 0 });
  }

  /** Other resolvers may answer differently (another provider, a split horizon). */
  clear(): void {
    this.entries.clear();
  }
}
