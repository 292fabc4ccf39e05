/**
 * Neighbour unreachability detection: the state machine of RFC 4861 §7.3, used for both families as Linux does.
 *
 *                       answer                      30 s                    used
 *   (none) → INCOMPLETE ───────→ REACHABLE ←─────┐ ──────→ STALE ───────→ DELAY
 *              │ 3 solicitations      ↑          │ proof     ↑ learned      │ 5 s
 *              ↓ 1 s apart            └──────────┴────────── PROBE ←────────┘
 *            FAILED ←───────────────────────────────────────── 3 probes, 1 s apart
 *
 * One cache serves one family: ARP and ND each have theirs over the shared NeighbourTable, and hand it what they saw
 * (`learn`, `confirm`), what the path wants (`resolve`, `used`) and the time. It calls `solicit` when a question is to
 * be asked. It is the only writer of its family's entries and keeps, beside the table, each entry's deadline.
 *
 * Against floods: at most `incompletePerPort` unanswered questions per port, the oldest gives way; at most `limit`
 * entries in all, the least valuable gives way (FAILED, then STALE by last use, then INCOMPLETE, then the rest);
 * permanent entries never do. A FAILED entry stays for a while, so that packets to a dead host cause one question in
 * that time, not one each.
 *
 * Not here: what the questions look like (arp.ts, nd.ts), packets that wait for an answer (the path holds them and
 * watches the table's epoch).
 */
import { MAX_PORTS } from '../../dataplane/interfaces.ts';
import {
  NEIGH_ADDR,
  NEIGH_CONFIRMED,
  NEIGH_FLAGS,
  NEIGH_MAC_HI,
  NEIGH_MAC_LO,
  NEIGH_PORT,
  NEIGH_PROBES,
  NEIGH_UPDATED,
  NEIGH_USED,
  type NeighbourTable,
  NUD_DELAY,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
  NUD_VALID,
} from '../../dataplane/neighbours.ts';
import type { Family, Words } from '../../dataplane/wire/address.ts';
import type { Action } from '../protocol.ts';

export interface NudOptions {
  /**
   * Replay: nothing is sent unasked. A capture cannot answer a probe, so entries are not probed, use counts as proof
   * of reachability, and nobody ages away; the reachable time is not randomised. Default false.
   */
  quiet?: boolean;
  /** Numbers in [0, 1) for the reachable time; default: none, the base value is used as it is. */
  random?: () => number;
  /** Entries of this family at most; default three eighths of the table, half of what it takes. */
  limit?: number;
  /** Unanswered first questions per port; default 64, or an eighth of `limit` where that is less. */
  incompletePerPort?: number;
  /** Milliseconds; RFC 4861 §10 has the first three, Linux the others. */
  reachableTime?: number;
  retransmitTime?: number;
  delayTime?: number;
  failedTime?: number;
  staleTime?: number;
}

/** MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT of RFC 4861 §10. */
const MAX_SOLICIT = 3;
/** No timer. Deadlines are clock values and may have any value, so "armed" is kept apart. */
const IDLE = 0;
const ARMED = 1;

/** Builds the question for an entry: to its MAC when `unicast`, else to all; undefined when there is no source address. */
export type Solicit = (record: number, unicast: boolean) => Action | undefined;

export class NeighbourCache {
  readonly table: NeighbourTable;
  readonly family: Family;
  private readonly solicit: Solicit;
  private readonly quiet: boolean;
  private readonly random: (() => number) | undefined;
  private readonly limit: number;
  private readonly incompletePerPort: number;
  private readonly reachableTime: number;
  private readonly retransmitTime: number;
  private readonly delayTime: number;
  private readonly failedTime: number;
  private readonly staleTime: number;
  /** Clock of each record's next step, and whether there is one. */
  private readonly deadline: Int32Array;
  private readonly armed: Uint8Array;
  /** Entries of this family. */
  private count = 0;
  /** Unanswered first questions by port, oldest first (a Set keeps its order). */
  private readonly incomplete: Set<number>[] = [];
  /** Lower bound of all deadlines; only when `waiting`. */
  private earliest = 0;
  private waiting = false;

  constructor(table: NeighbourTable, family: Family, solicit: Solicit, options: NudOptions = {}) {
    this.table = table;
    this.family = family;
    this.solicit = solicit;
    this.quiet = options.quiet ?? false;
    this.random = this.quiet ? undefined : options.random;
    this.limit = options.limit ?? Math.max(1, (table.capacity >> 3) * 3);
    this.incompletePerPort = options.incompletePerPort ?? Math.max(1, Math.min(64, this.limit >> 3));
    this.reachableTime = options.reachableTime ?? 30_000;
    this.retransmitTime = options.retransmitTime ?? 1_000;
    this.delayTime = options.delayTime ?? 5_000;
    this.failedTime = options.failedTime ?? 3_000;
    this.staleTime = options.staleTime ?? 600_000;
    this.deadline = new Int32Array(table.capacity);
    this.armed = new Uint8Array(table.capacity);
    for (let port = 0; port < MAX_PORTS; port++) this.incomplete.push(new Set());
    // A restarted domain finds its family's entries in the table and goes on with them.
    for (let n = 0; n < table.capacity; n++) {
      if (!this.isMine(n)) continue;
      this.count++;
      const state = this.stateOf(n);
      if (state === NUD_INCOMPLETE) this.incomplete[this.portOf(n)].add(n);
      if (state === NUD_PERMANENT) continue;
      const since = table.words[table.at(n) + (state === NUD_REACHABLE ? NEIGH_CONFIRMED : NEIGH_UPDATED)];
      this.arm(n, since + this.stateTime(state));
    }
  }

  /** True when record `n` is an entry of this family. */
  isMine(n: number): boolean {
    if (n < 0 || n >= this.table.capacity || !this.table.used(n)) return false;
    return this.table.words[this.table.at(n) + NEIGH_PORT] >> 8 === this.family;
  }

  stateOf(n: number): number {
    return this.table.words[this.table.at(n)];
  }

  portOf(n: number): number {
    return this.table.words[this.table.at(n) + NEIGH_PORT] & 0xff;
  }

  addressOf(n: number): Words {
    const at = this.table.at(n) + NEIGH_ADDR;
    const w = this.table.words;
    return [w[at], w[at + 1], w[at + 2], w[at + 3]];
  }

  find(port: number, words: Words): number {
    return this.table.find(port, this.family, words[0], words[1], words[2], words[3]);
  }

  hasMac(n: number, lo: number, hi: number): boolean {
    const at = this.table.at(n);
    return this.table.words[at + NEIGH_MAC_LO] === lo && this.table.words[at + NEIGH_MAC_HI] === hi;
  }

  /** The path wants this neighbour and has no usable entry. */
  resolve(now: number, port: number, words: Words, out: Action[]): void {
    let n = this.find(port, words);
    if (n >= 0) {
      // INCOMPLETE: the question is under way. FAILED: rests until its time is over (RFC 1122 §2.3.2.1: no floods).
      this.used(now, n);
      return;
    }
    const waiting = this.incomplete[port];
    if (waiting.size >= this.incompletePerPort) this.forget(waiting.values().next().value!);
    n = this.create(now, port, words);
    if (n < 0) return;
    waiting.add(n);
    this.ask(now, n, false, out);
  }

  /** The path has used a neighbour whose reachability is in doubt: §7.3.3, wait a little for a proof, then ask. */
  used(now: number, n: number): void {
    if (!this.isMine(n)) return;
    this.table.words[this.table.at(n) + NEIGH_USED] = now;
    // Quiet: nobody could answer, so use counts as proof; else every packet would come here and say so again.
    if (this.stateOf(n) === NUD_STALE) this.setState(now, n, this.quiet ? NUD_REACHABLE : NUD_DELAY);
  }

  /**
   * Makes the entry if there is none (state INCOMPLETE, nothing asked; the caller updates it). Returns −1 when all
   * entries are permanent or the table belongs to others.
   */
  create(now: number, port: number, words: Words): number {
    const known = this.find(port, words);
    if (known >= 0) return known;
    if (this.count >= this.limit) this.evict(now);
    if (this.count >= this.limit) return -1;
    let n = this.table.ensure(port, this.family, words[0], words[1], words[2], words[3], now);
    if (n < 0 && this.evict(now)) n = this.table.ensure(port, this.family, words[0], words[1], words[2], words[3], now);
    if (n >= 0) this.count++;
    return n;
  }

  /**
   * Sets MAC and state of an entry. Permanent entries stay as they are. A usable MAC at a new place also removes the
   * same neighbour's entries on other ports.
   */
  update(now: number, n: number, state: number, lo: number, hi: number): void {
    const before = this.stateOf(n);
    if (before === NUD_PERMANENT) return;
    const known = (before & NUD_VALID) !== 0 && this.hasMac(n, lo, hi);
    if (before === NUD_INCOMPLETE && state !== NUD_INCOMPLETE) this.incomplete[this.portOf(n)].delete(n);
    this.table.update(n, state, lo, hi, now);
    if (!known) {
      this.table.words[this.table.at(n) + NEIGH_UPDATED] = now;
      if ((state & NUD_VALID) !== 0) this.moved(n, lo, hi);
    }
    this.armFor(now, n, state);
  }

  /** A MAC was seen with this address, no proof that the neighbour hears us: STALE when it is news (RFC 4861 §7.2.3). */
  learn(now: number, port: number, words: Words, lo: number, hi: number): number {
    const n = this.create(now, port, words);
    if (n < 0) return -1;
    // The same MAC again proves nothing and changes nothing, not even a running probe.
    if ((this.stateOf(n) & NUD_VALID) === 0 || !this.hasMac(n, lo, hi)) this.update(now, n, NUD_STALE, lo, hi);
    return n;
  }

  /** Proof that the neighbour hears us: an answer to our question, or progress of an upper layer (§7.3.1). */
  confirm(now: number, n: number): void {
    if (!this.isMine(n) || (this.stateOf(n) & NUD_VALID) === 0) return;
    const at = this.table.at(n);
    this.update(now, n, NUD_REACHABLE, this.table.words[at + NEIGH_MAC_LO], this.table.words[at + NEIGH_MAC_HI]);
  }

  /** A neighbour that a person has configured; never asked for, never forgotten but by `forget`. False: table full. */
  setPermanent(now: number, port: number, words: Words, lo: number, hi: number): boolean {
    const n = this.create(now, port, words);
    if (n < 0) return false;
    if (this.stateOf(n) === NUD_INCOMPLETE) this.incomplete[port].delete(n);
    this.table.update(n, NUD_PERMANENT, lo, hi, now);
    this.armed[n] = IDLE;
    this.moved(n, lo, hi);
    return true;
  }

  /** Removes an entry, whatever its state. */
  forget(n: number): void {
    if (!this.isMine(n)) return;
    this.incomplete[this.portOf(n)].delete(n);
    this.armed[n] = IDLE;
    this.table.remove(n);
    this.count--;
  }

  setFlag(n: number, flag: number, on: boolean): void {
    const at = this.table.at(n) + NEIGH_FLAGS;
    const flags = this.table.words[at];
    this.table.words[at] = on ? flags | flag : flags & ~flag;
  }

  /** The port has lost its link: what was learned there is void. Permanent entries stay; the path sees the link state. */
  linkDown(port: number): void {
    for (let n = 0; n < this.table.capacity; n++)
      if (this.isMine(n) && this.portOf(n) === port && this.stateOf(n) !== NUD_PERMANENT) this.forget(n);
  }

  /** Takes every step whose time has come. */
  tick(now: number, out: Action[]): void {
    if (!this.waiting || ((this.earliest - now) | 0) > 0) return;
    this.waiting = false;
    for (let n = 0; n < this.armed.length; n++) {
      if (this.armed[n] === IDLE) continue;
      if (((this.deadline[n] - now) | 0) <= 0) {
        this.armed[n] = IDLE;
        this.expire(now, n, out);
      }
      if (this.armed[n] === ARMED) this.arm(n, this.deadline[n]);
    }
  }

  /** Milliseconds until `tick` has something to do; −1 when there is nothing. May be early, never late. */
  next(now: number): number {
    return this.waiting ? Math.max(0, (this.earliest - now) | 0) : -1;
  }

  private expire(now: number, n: number, out: Action[]): void {
    const w = this.table.words;
    const at = this.table.at(n);
    switch (this.stateOf(n)) {
      case NUD_INCOMPLETE:
      case NUD_PROBE:
        if (w[at + NEIGH_PROBES] < MAX_SOLICIT) this.ask(now, n, this.stateOf(n) === NUD_PROBE, out);
        else this.setState(now, n, NUD_FAILED);
        return;
      case NUD_REACHABLE:
        // In use at this moment: the doubt begins right away, as a STALE entry's would with the next packet.
        this.setState(now, n, !this.quiet && ((now - w[at + NEIGH_USED]) | 0) < this.delayTime ? NUD_DELAY : NUD_STALE);
        return;
      case NUD_DELAY:
        this.setState(now, n, NUD_PROBE);
        this.ask(now, n, true, out);
        return;
      case NUD_STALE:
        if (this.quiet) return;
        if (((now - w[at + NEIGH_USED]) | 0) >= this.staleTime) this.forget(n);
        else this.arm(n, w[at + NEIGH_USED] + this.staleTime);
        return;
      case NUD_FAILED:
        this.forget(n);
        return;
    }
  }

  private ask(now: number, n: number, unicast: boolean, out: Action[]): void {
    this.table.words[this.table.at(n) + NEIGH_PROBES]++;
    this.arm(n, now + this.retransmitTime);
    const question = this.solicit(n, unicast);
    if (question !== undefined) out.push(question);
  }

  private setState(now: number, n: number, state: number): void {
    const at = this.table.at(n);
    this.update(now, n, state, this.table.words[at + NEIGH_MAC_LO], this.table.words[at + NEIGH_MAC_HI]);
  }

  private stateTime(state: number): number {
    switch (state) {
      case NUD_REACHABLE:
        // §6.3.2: uniformly between 0.5 and 1.5 times the base, so that neighbours do not probe in step.
        return this.random === undefined ? this.reachableTime : Math.floor(this.reachableTime * (0.5 + this.random()));
      case NUD_STALE:
        return this.staleTime;
      case NUD_DELAY:
        return this.delayTime;
      case NUD_FAILED:
        return this.failedTime;
      default:
        return this.retransmitTime;
    }
  }

  private armFor(now: number, n: number, state: number): void {
    this.arm(n, now + this.stateTime(state));
  }

  private arm(n: number, when: number): void {
    this.deadline[n] = when;
    this.armed[n] = ARMED;
    if (!this.waiting || ((this.deadline[n] - this.earliest) | 0) < 0) this.earliest = this.deadline[n];
    this.waiting = true;
  }

  /** The same neighbour on another port is history. A different MAC there is another host (fe80::1 is on many links). */
  private moved(n: number, lo: number, hi: number): void {
    const here = this.portOf(n);
    const words = this.addressOf(n);
    for (let port = 0; port < MAX_PORTS; port++) {
      if (port === here) continue;
      const other = this.find(port, words);
      if (other >= 0 && this.stateOf(other) !== NUD_PERMANENT && this.hasMac(other, lo, hi)) this.forget(other);
    }
  }

  /** Removes the least valuable entry; false when there is none that may go. */
  private evict(now: number): boolean {
    const w = this.table.words;
    let victim = -1;
    let victimRank = 0;
    let victimAge = 0;
    for (let n = 0; n < this.table.capacity; n++) {
      if (!this.isMine(n) || this.stateOf(n) === NUD_PERMANENT) continue;
      const rank = EVICTION_RANK[this.stateOf(n)] ?? 1;
      const at = this.table.at(n);
      const since = this.stateOf(n) === NUD_STALE ? w[at + NEIGH_USED] : w[at + NEIGH_UPDATED];
      const age = (now - since) | 0;
      if (victim < 0 || rank > victimRank || (rank === victimRank && age > victimAge)) {
        victim = n;
        victimRank = rank;
        victimAge = age;
      }
    }
    if (victim >= 0) this.forget(victim);
    return victim >= 0;
  }
}

/** Who goes first when the table is full; the higher, the sooner. */
const EVICTION_RANK: Record<number, number> = {
  [NUD_FAILED]: 5,
  [NUD_STALE]: 4,
  [NUD_INCOMPLETE]: 3,
  [NUD_DELAY]: 2,
  [NUD_PROBE]: 2,
  [NUD_REACHABLE]: 1,
};
