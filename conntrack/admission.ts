/**
 * Admission: how fast new connections may take the places of others once the table is full.
 *
 * Early drop alone (nf_conntrack's answer) lets a flood of first packets turn the whole table over in milliseconds: a
 * handshake that an honest host has begun is pushed out before its answer is back, and every packet of the flood costs
 * the making and the unmaking of a record. So while the table is full, a port admits no more than would turn the table
 * over in about a second, and one source an eighth of that; the rest is dropped before it costs a record. By port: a
 * flood from the Internet leaves the places of those inside alone. By source: one host that floods leaves those of its
 * neighbours (sources share SOURCES buckets by hash). Nothing here has any effect while there is room.
 */
/** Connections that a port and that a source may begin at once, after a rest. */
export const PORT_BURST = 256;
export const SOURCE_BURST = 128;
const PORTS = 64;
const SOURCES = 1024;

export class Admission {
  /** Tokens left, and the clock of the last time that they were counted: of the ports, then of the sources. */
  private readonly tokens = new Int32Array(PORTS + SOURCES);
  private readonly counted = new Int32Array(PORTS + SOURCES);
  /** Connections a millisecond. */
  readonly perPort: number;
  readonly perSource: number;

  /** @param max connections that the table takes */
  constructor(max: number) {
    this.perPort = Math.min(16, Math.max(4, max >> 10));
    this.perSource = Math.max(1, this.perPort >> 3);
    this.tokens.fill(PORT_BURST, 0, PORTS).fill(SOURCE_BURST, PORTS);
  }

  /** True when a connection of this source (a hash of its address will do) may take the place of another now. */
  admit(port: number, source: number, now: number): boolean {
    const p = port & (PORTS - 1);
    const s = PORTS + ((Math.imul(source ^ port, 0x9e3779b1) >>> 22) & (SOURCES - 1));
    if (this.fill(p, this.perPort, PORT_BURST, now) === 0 || this.fill(s, this.perSource, SOURCE_BURST, now) === 0)
      return false;
    this.tokens[p]--;
    this.tokens[s]--;
    return true;
  }

  /** Adds what has come since the last time. A long rest, or a clock that went round, fills the bucket. */
  private fill(n: number, rate: number, burst: number, now: number): number {
    const elapsed = (now - this.counted[n]) | 0;
    if (elapsed === 0) return this.tokens[n];
    this.counted[n] = now;
    const tokens = this.tokens[n] + (elapsed < 0 || elapsed > burst ? burst : elapsed * rate);
    this.tokens[n] = tokens > burst ? burst : tokens;
    return this.tokens[n];
  }
}
