/**
 * Sequence map: where a byte of a TCP stream went when the router changed the length of what was before it.
 *
 * A receiver behind the router acknowledges what it got, not what was sent. The map notes, for positions of the stream
 * as it was captured, how far the stream as it really left is ahead, and translates acknowledgements (ACK and SACK).
 * Sequence numbers are 32 bits and compared by difference (RFC 9293 §3.4).
 */
export class SequenceMap {
  /** Positions as captured, ascending, and what to add from there on. */
  private readonly positions: number[] = [];
  private readonly deltas: number[] = [];

  /** The byte at `captured` left as `real`. */
  note(captured: number, real: number): void {
    const delta = (real - captured) | 0;
    const n = this.indexOf(captured);
    if (delta === (n < 0 ? 0 : this.deltas[n])) return;
    if (n >= 0 && this.positions[n] === captured) {
      this.deltas[n] = delta;
      return;
    }
    this.positions.splice(n + 1, 0, captured);
    this.deltas.splice(n + 1, 0, delta);
  }

  /** A new connection with the same addresses and ports. */
  reset(): void {
    this.positions.length = 0;
    this.deltas.length = 0;
  }

  /** The real number of a captured acknowledgement or edge. */
  map(captured: number): number {
    const n = this.indexOf(captured);
    const mapped = n < 0 ? captured : (captured + this.deltas[n]) | 0;
    if (n + 1 >= this.positions.length) return mapped;
    // In the middle of a part that became shorter: not beyond where the next part begins.
    const bound = (this.positions[n + 1] + this.deltas[n + 1]) | 0;
    return ((mapped - bound) | 0) > 0 ? bound : mapped;
  }

  get empty(): boolean {
    return this.positions.length === 0;
  }

  /** The last position at or before `captured`, or −1. */
  private indexOf(captured: number): number {
    let n = this.positions.length - 1;
    while (n >= 0 && ((captured - this.positions[n]) | 0) < 0) n--;
    return n;
  }
}
