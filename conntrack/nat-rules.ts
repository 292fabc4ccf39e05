/**
 * NAT rules in shared memory, compiled from the configuration's `nat` section.
 *
 * Two halves of rules and of lists; word 0 says which is live, so a reload never shows a reader half a list. IPv4 only
 * (IPv6 has NPTv6, nptv6.ts).
 *
 *   head: 0 LIVE (0 or 1)  1 COUNT of half 0  2 COUNT of half 1  3 CAPACITY  4 OPTIONS (NO_*)
 *         5 UDP  6 TCP_TRANSITORY  7 TCP_ESTABLISHED  8 ICMP  9 OTHER   lifetimes of mappings, ms
 *   rule: 0 KIND   NAT_*                      6,7   PORT_LO, PORT_HI  destination ports it matches, host order; −1 any
 *         1 PROTO  0 any                      8     TO                new address, raw; 0: the egress port's own
 *         2 ZONE   in or out; −1 any          9,10  TO_LO, TO_HI      new ports, host order; 0: keep or class
 *         3 PORT   in or out; −1 any          11,12 DST, DST_MASK     of a bypass
 *         4,5 FROM, FROM_MASK  raw            13 MAPPING  14 FILTERING  (mapping.ts: 1 endpoint-independent, 2 address-, 3 address-and-port-dependent)  15 WHERE in the configuration
 *        16 FLAGS  NRF_*                      17 POOL     list of addresses to choose from (0: TO alone)
 *        18 PORTS  list of port ranges (0: TO_LO … TO_HI alone)      19 BLOCK  ports of a block (0: no blocks)
 *        20 BLOCKS blocks that a subscriber may have                 21 LIMIT  sessions that a source may have (0: any)
 *        22 RATIO  subscribers of one address (deterministic)        23 TIMEOUT of a trigger, ms
 *        24–27 INTERNAL, 28–31 EXTERNAL prefix of NPTv6, raw; its length in FROM
 *   list: 0 INTERVALS  1 TOTAL  2… (FIRST, numbers before it) of each interval, ascending; addresses in host order
 *   trigger (NAT_TRIGGER): DST and DST_MASK are the protocol and the ports (low half to high half) that pull it, TO its
 *         number, TO_LO and TO_HI the zone and port that it is pulled from (−1 any). Its state, TRIGGER_WORDS: 0 HOST  1 UNTIL
 *   reserved: 2,048 words of UDP, 2,048 of TCP: outside ports that no mapping may have (forwards, nat.reserved)
 */
export const NR_WORDS = 32;
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
export const NR_FLAGS = 16;
export const NR_POOL = 17;
export const NR_PORTS = 18;
export const NR_BLOCK = 19;
export const NR_BLOCKS = 20;
export const NR_LIMIT = 21;
export const NR_RATIO = 22;
export const NR_TIMEOUT = 23;
export const NR_INTERNAL = 24;
export const NR_EXTERNAL = 28;

/** The rule makes mappings; without it, the reply tuple alone decides which port is free (profile `linux`). */
export const NRF_MAPPED = 1;
/** The source port is never kept. */
export const NRF_RANDOM = 2;
/** An even port gets an even one, an odd one an odd one (RFC 4787 REQ-4). */
export const NRF_PARITY = 4;
/** One inside host has one outside address (RFC 4787 REQ-2); without it, another is tried when that is exhausted. */
export const NRF_PAIRED = 8;
/** RFC 7422: address and ports follow from the inside address. */
export const NRF_DETERMINISTIC = 16;

/** OPTIONS. */
export const NO_HAIRPIN = 1;
export const HAIRPIN_INTERNAL = 2;
export const INBOUND_REFRESH = 4;
export const HAS_DESTINATION = 8;
export const HAS_TRIGGER = 16;
export const HAS_NPTV6 = 32;

export const NAT_SNAT = 1;
export const NAT_DNAT = 2;
export const NAT_DMZ = 3;
export const NAT_BYPASS = 4;
export const NAT_TRIGGER = 5;
export const NAT_NPTV6 = 6;

const HEAD = 16;
export const NH_OPTIONS = 4;
export const NH_UDP = 5;
export const NH_TCP_TRANSITORY = 6;
export const NH_TCP_ESTABLISHED = 7;
export const NH_ICMP = 8;
export const NH_OTHER = 9;
/** Words for lists in each half, and words of a reserved bitmap. */
const LISTS = 8192;
const RESERVED = 2048;
/** Triggers there may be, and words of one's state. */
export const MAX_TRIGGERS = 64;
const TRIGGER_WORDS = 2;
const REST = HEAD + 2 * LISTS + 2 * RESERVED + MAX_TRIGGERS * TRIGGER_WORDS;

export class NatRules {
  readonly words: Int32Array;
  /** Outside ports that no mapping may have. */
  readonly reservedUdp: Int32Array;
  readonly reservedTcp: Int32Array;
  private readonly capacity: number;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.capacity = (this.words.length - REST) / (2 * NR_WORDS);
    this.reservedUdp = new Int32Array(buffer, (HEAD + 2 * LISTS) * 4, RESERVED);
    this.reservedTcp = new Int32Array(buffer, (HEAD + 2 * LISTS + RESERVED) * 4, RESERVED);
  }

  static bytes(capacity: number): number {
    return (REST + 2 * capacity * NR_WORDS) * 4;
  }

  /** Rules in the live half. */
  count(): number {
    return this.words[1 + this.words[0]];
  }

  /** Word index of the live half's first rule. */
  first(): number {
    return REST + this.words[0] * this.capacity * NR_WORDS;
  }

  matchesWhere(at: number, zone: number, port: number): boolean {
    const w = this.words;
    return (w[at + NR_ZONE] < 0 || w[at + NR_ZONE] === zone) && (w[at + NR_PORT] < 0 || w[at + NR_PORT] === port);
  }

  bypasses(at: number, destination: number): boolean {
    const w = this.words;
    return ((destination ^ w[at + NR_DST]) & w[at + NR_DST_MASK]) === 0;
  }

  /** True when a destination rule could match what enters here: forwards, the DMZ host, triggered ports. */
  hasDestinationRule(zone: number, port: number): boolean {
    const w = this.words;
    // With hairpins, a rule may be meant whatever the packet enters by.
    if ((w[NH_OPTIONS] & NO_HAIRPIN) === 0) return (w[NH_OPTIONS] & HAS_DESTINATION) !== 0;
    for (let n = 0, at = this.first(); n < this.count(); n++, at += NR_WORDS) {
      const kind = w[at + NR_KIND];
      if (
        kind === NAT_TRIGGER
          ? !this.matchesInside(at, zone, port)
          : (kind === NAT_DNAT || kind === NAT_DMZ) && this.matchesWhere(at, zone, port)
      )
        return true;
    }
    return false;
  }

  // --- triggers ----------------------------------------------------------------------------------------------------

  private triggerAt(at: number): number {
    return HEAD + 2 * LISTS + 2 * RESERVED + this.words[at + NR_TO] * TRIGGER_WORDS;
  }

  /** True when a packet enters from the side that pulls the trigger at word `at`. */
  matchesInside(at: number, zone: number, port: number): boolean {
    const w = this.words;
    return (w[at + NR_TO_LO] < 0 || w[at + NR_TO_LO] === zone) && (w[at + NR_TO_HI] < 0 || w[at + NR_TO_HI] === port);
  }

  /** The host's ports are open until `until`. */
  trigger(at: number, host: number, until: number): void {
    const state = this.triggerAt(at);
    this.words[state + 1] = until;
    this.words[state] = host;
  }

  triggered(at: number, now: number): boolean {
    const state = this.triggerAt(at);
    return this.words[state] !== 0 && ((this.words[state + 1] - now) | 0) > 0;
  }

  triggeredBy(at: number): number {
    return this.words[this.triggerAt(at)];
  }

  // --- lists -------------------------------------------------------------------------------------------------------

  private list(offset: number): number {
    return HEAD + this.words[0] * LISTS + offset;
  }

  /** How many numbers a list has. `offset` is the rule's word, not 0. */
  total(offset: number): number {
    return this.words[this.list(offset) + 1];
  }

  intervals(offset: number): number {
    return this.words[this.list(offset)];
  }

  /** Number of the interval that holds number `k` of the list. */
  intervalOf(offset: number, k: number): number {
    const w = this.words;
    const at = this.list(offset);
    let low = 0;
    let high = w[at] - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (w[at + 3 + 2 * middle] <= k) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  firstOf(offset: number, interval: number): number {
    return this.words[this.list(offset) + 2 + 2 * interval];
  }

  lastOf(offset: number, interval: number): number {
    const at = this.list(offset);
    const w = this.words;
    const next = interval + 1 < w[at] ? w[at + 5 + 2 * interval] : w[at + 1];
    return w[at + 2 + 2 * interval] + next - w[at + 3 + 2 * interval] - 1;
  }

  /** Number `k` of a list, 0 ≤ k < total. */
  nth(offset: number, k: number): number {
    const interval = this.intervalOf(offset, k);
    const at = this.list(offset) + 2 + 2 * interval;
    return (this.words[at] + k - this.words[at + 1]) | 0;
  }

  /** True when a list holds this number (a port, or an address as an unsigned number would order them). */
  holds(offset: number, value: number): boolean {
    const w = this.words;
    const at = this.list(offset);
    let low = 0;
    let high = w[at] - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (w[at + 2 + 2 * middle] >>> 0 <= value >>> 0) low = middle;
      else high = middle - 1;
    }
    return value >>> 0 >= this.firstOf(offset, low) >>> 0 && value >>> 0 <= this.lastOf(offset, low) >>> 0;
  }

  /**
   * Writes a new list into the resting half and makes it live. Control plane only. Throws RangeError when too long.
   * @param lists numbers as the layout above says; word 0 is not used, so that 0 can mean "no list"
   */
  replace(rules: readonly (readonly number[])[], lists: readonly number[] = [], head: readonly number[] = []): void {
    if (rules.length > this.capacity)
      throw new RangeError(`nat: expected at most ${this.capacity} rules, got ${rules.length}; merge port ranges`);
    if (lists.length > LISTS)
      throw new RangeError(`nat: expected at most ${LISTS} numbers of ranges, got ${lists.length}; merge port ranges`);
    const half = this.words[0] ^ 1;
    const base = REST + half * this.capacity * NR_WORDS;
    rules.forEach((rule, n) => {
      for (let k = 0; k < NR_WORDS; k++) this.words[base + n * NR_WORDS + k] = rule[k] ?? 0;
    });
    this.words.set(lists, HEAD + half * LISTS);
    this.words[1 + half] = rules.length;
    head.forEach((word, n) => {
      this.words[NH_OPTIONS + n] = word;
    });
    Atomics.store(this.words, 0, half);
  }

  /** Marks outside ports of UDP (17) or TCP (6) that no mapping may have; other protocols have none. */
  reserve(proto: number, low: number, high: number): void {
    const bits = proto === 17 ? this.reservedUdp : this.reservedTcp;
    if (proto !== 17 && proto !== 6) return;
    for (let port = low; port <= high; port++) bits[port >> 5] |= 1 << (port & 31);
  }

  clearReserved(): void {
    this.reservedUdp.fill(0);
    this.reservedTcp.fill(0);
  }
}
