/**
 * Deadlines: names and the times at which they end, the earliest first.
 *
 * A binary heap with lazy deletion: setting a name again leaves its old entry, which is thrown away when it comes up.
 * Times are milliseconds that do not wrap (`Clock`), so that leases of years and `Infinity` compare as numbers.
 */

/** The router's int32 clock as a number that does not wrap. Ask at least once in 24 days. */
export class Clock {
  private last: number;
  private total: number;

  constructor(now: number) {
    this.last = now;
    this.total = now;
  }

  at(now: number): number {
    this.total += (now - this.last) | 0;
    this.last = now;
    return this.total;
  }
}

export class Deadlines {
  private readonly ends = new Map<string, number>();
  private readonly heap: { name: string; end: number }[] = [];

  get size(): number {
    return this.ends.size;
  }

  /** Sets when a name ends; Infinity: never. */
  set(name: string, end: number): void {
    if (this.ends.get(name) === end) return;
    this.ends.set(name, end);
    if (end === Number.POSITIVE_INFINITY) return;
    const { heap } = this;
    heap.push({ name, end });
    let at = heap.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent].end <= heap[at].end) break;
      [heap[parent], heap[at]] = [heap[at], heap[parent]];
      at = parent;
    }
    // Renewals leave dead entries behind: rebuilt when they are the most.
    if (heap.length > 64 && heap.length > 4 * this.ends.size) this.rebuild();
  }

  delete(name: string): void {
    this.ends.delete(name);
  }

  /** The earliest end; Infinity: none. */
  next(): number {
    this.clean();
    return this.heap.length === 0 ? Number.POSITIVE_INFINITY : this.heap[0].end;
  }

  /** Takes out one name whose time has come; undefined: none. */
  take(now: number): string | undefined {
    this.clean();
    if (this.heap.length === 0 || this.heap[0].end > now) return undefined;
    const { name } = this.heap[0];
    this.ends.delete(name);
    this.pop();
    return name;
  }

  private clean(): void {
    while (this.heap.length > 0 && this.ends.get(this.heap[0].name) !== this.heap[0].end) this.pop();
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    heap[0] = last;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      if (left >= heap.length) return;
      const child = left + 1 < heap.length && heap[left + 1].end < heap[left].end ? left + 1 : left;
      if (heap[at].end <= heap[child].end) return;
      [heap[at], heap[child]] = [heap[child], heap[at]];
      at = child;
    }
  }

  private rebuild(): void {
    this.heap.length = 0;
    for (const [name, end] of this.ends) if (end !== Number.POSITIVE_INFINITY) this.heap.push({ name, end });
    // An ascending array is a heap.
    this.heap.sort((a, b) => a.end - b.end);
  }
}
