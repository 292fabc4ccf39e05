/**
 * NAT rules in shared memory, compiled from the configuration's `nat` section.
 *
 * Two halves; word 0 says which is live, so a reload never shows a reader half a list. IPv4 only (IPv6 has NPTv6).
 *
 *   head: 0 LIVE (0 or 1)  1 COUNT of half 0  2 COUNT of half 1  3 CAPACITY
 *   rule: 0 KIND   NAT_*                      6,7   PORT_LO, PORT_HI  destination ports it matches, host order; −1 any
 *         1 PROTO  0 any                      8     TO                new address, raw; 0: the egress port's own
 *         2 ZONE   in or out; −1 any          9,10  TO_LO, TO_HI      new ports, host order; 0: keep or class
 *         3 PORT   in or out; −1 any          11,12 DST, DST_MASK     of a bypass
 *         4,5 FROM, FROM_MASK  raw            13 MAPPING  14 FILTERING  (NAT_ENDPOINT_*)  15 WHERE in the configuration
 */
export const NR_WORDS = 16;
export const NR_KIND = 0;
export const NR_PROTO = 1;
export const NR_ZONE = 2;
export const NR_PORT = 3;
export const NR_FROM = 4;
export const NR_FROM_MASK = 5;
export const NR_PORT_LO = 6;
export const NR_PORT_HI = 7;
export const NR_TO = 8;
export const NR_TO_LO = 9;
export const NR_TO_HI = 10;
export const NR_DST = 11;
export const NR_DST_MASK = 12;
export const NR_MAPPING = 13;
export const NR_FILTERING = 14;
export const NR_WHERE = 15;

export const NAT_SNAT = 1;
export const NAT_DNAT = 2;
export const NAT_DMZ = 3;
export const NAT_BYPASS = 4;

const HEAD = 8;

export class NatRules {
  readonly words: Int32Array;
  private readonly capacity: number;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.capacity = (this.words.length - HEAD) / (2 * NR_WORDS);
  }

  static bytes(capacity: number): number {
    return (HEAD + 2 * capacity * NR_WORDS) * 4;
  }

  /** Rules in the live half. */
  count(): number {
    return this.words[1 + this.words[0]];
  }

  /** Word index of the live half's first rule. */
  first(): number {
    return HEAD + this.words[0] * this.capacity * NR_WORDS;
  }

  matchesWhere(at: number, zone: number, port: number): boolean {
    const w = this.words;
    return (w[at + NR_ZONE] < 0 || w[at + NR_ZONE] === zone) && (w[at + NR_PORT] < 0 || w[at + NR_PORT] === port);
  }

  bypasses(at: number, destination: number): boolean {
    const w = this.words;
    return ((destination ^ w[at + NR_DST]) & w[at + NR_DST_MASK]) === 0;
  }

  hasDestinationRule(zone: number, port: number): boolean {
    const w = this.words;
    for (let n = 0, at = this.first(); n < this.count(); n++, at += NR_WORDS) {
      const kind = w[at + NR_KIND];
      if ((kind === NAT_DNAT || kind === NAT_DMZ) && this.matchesWhere(at, zone, port)) return true;
    }
    return false;
  }

  /** Writes a new list into the resting half and makes it live. Control plane only. Throws RangeError when too long. */
  replace(rules: readonly (readonly number[])[]): void {
    if (rules.length > this.capacity)
      throw new RangeError(`nat: expected at most ${this.capacity} rules, got ${rules.length}; merge port ranges`);
    const half = this.words[0] ^ 1;
    const base = HEAD + half * this.capacity * NR_WORDS;
    rules.forEach((rule, n) => {
      for (let k = 0; k < NR_WORDS; k++) this.words[base + n * NR_WORDS + k] = rule[k] ?? 0;
    });
    this.words[1 + half] = rules.length;
    Atomics.store(this.words, 0, half);
  }
}
