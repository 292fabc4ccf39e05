/**
 * Programmer: brings an entry into one of the engine's levels, as the modelled hardware would.
 *
 * Levels are asked in their order (hardware, then the software flow cache): the first that is switched on and has the
 * entry, room for it, or a victim that the policy names, takes it. With a latency the entry waits in a ring and becomes
 * active that much later; it carries the epoch of its own walk, so that a flush in between makes it stale from its
 * first day, and is given up when its connection has ended or left the engine meanwhile.
 *
 * Two sessions that would share a key (two ESP tunnels with one SPI) both stay on the slow path (row O10).
 */
import {
  CT_DEADLINE,
  CT_FLOWS,
  CT_GEN,
  CT_KEY,
  CT_PORTS_IO,
  CT_STATE,
  CT_STATUS,
  CT_TCP,
  CT_WORDS,
  IPS_CONFIRMED,
  IPS_DYING,
  IPS_OFFLOAD,
  TCP_ESTABLISHED,
} from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import type { OffloadAging } from './aging.ts';
import { FLOWS_PENDING, WHY_COLLISION, WHY_FULL, WHY_PENDING, WHY_RATE } from './engine.ts';
import type { Policy } from './policy.ts';
import {
  copyFlowSpec,
  type FlowSpec,
  type FlowTable,
  newFlowSpec,
  STAT_COLLISIONS,
  STAT_EVICTIONS,
  STAT_REFUSED,
} from './table.ts';

const TCP = 6;
const ESP = 50;
/** Entries that may wait for their latency. */
const PENDING = 1024;

export class Programmer {
  /** Switches of the levels. */
  readonly enabled: boolean[];
  private readonly table: ConntrackTable;
  private readonly levels: readonly FlowTable[];
  private readonly agings: readonly OffloadAging[];
  private readonly policy: Policy;
  private readonly latency: number;
  private readonly pending: FlowSpec[] = [];
  private readonly due: Int32Array;
  private head = 0;
  private waiting = 0;

  constructor(
    table: ConntrackTable,
    levels: readonly FlowTable[],
    agings: readonly OffloadAging[],
    enabled: boolean[],
    policy: Policy,
    latency: number,
  ) {
    this.table = table;
    this.levels = levels;
    this.agings = agings;
    this.enabled = enabled;
    this.policy = policy;
    this.latency = latency;
    const size = latency > 0 ? PENDING : 0;
    for (let n = 0; n < size; n++) this.pending.push(newFlowSpec());
    this.due = new Int32Array(size);
  }

  /** Entries that wait for their latency. */
  get waitingCount(): number {
    return this.waiting;
  }

  /** Programs the entry that `spec` describes; says in the connection's record why not. */
  request(spec: FlowSpec, now: number): void {
    const w = this.table.words;
    const c = (spec.connection >> 1) * CT_WORDS;
    const mark = FLOWS_PENDING << (spec.connection & 1);
    if ((w[c + CT_FLOWS] & mark) !== 0) return;
    if (!this.policy.mayProgram(now)) {
      this.policy.because(c, WHY_RATE);
      return;
    }
    if (this.latency === 0) {
      this.policy.because(c, this.commit(spec, now));
      return;
    }
    if (this.waiting === PENDING) {
      this.policy.because(c, WHY_RATE);
      return;
    }
    const at = (this.head + this.waiting++) % PENDING;
    copyFlowSpec(spec, this.pending[at]);
    this.due[at] = (now + this.latency) | 0;
    Atomics.or(w, c + CT_FLOWS, mark);
    this.policy.programmed();
    this.policy.because(c, WHY_PENDING);
  }

  /** Activates the entries whose latency is over. */
  turn(now: number): void {
    const w = this.table.words;
    while (this.waiting > 0 && ((now - this.due[this.head]) | 0) >= 0) {
      const spec = this.pending[this.head];
      const due = this.due[this.head];
      this.head = (this.head + 1) % PENDING;
      this.waiting--;
      const c = (spec.connection >> 1) * CT_WORDS;
      const mark = FLOWS_PENDING << (spec.connection & 1);
      // A connection that has left the engine has lost its marks; a record used anew never had them.
      if (w[c + CT_GEN] !== spec.generation || (w[c + CT_FLOWS] & mark) === 0) continue;
      Atomics.and(w, c + CT_FLOWS, ~mark);
      if ((w[c + CT_STATUS] & (IPS_CONFIRMED | IPS_DYING)) !== IPS_CONFIRMED) continue;
      if ((w[c + CT_KEY] & 0xff) === TCP && (w[c + CT_STATE] & 0xff) !== TCP_ESTABLISHED) continue;
      // It became active when it was due, also when the clock has leapt; its last packet was the one that asked for it.
      if (((w[c + CT_DEADLINE] - due) | 0) >= 0) this.policy.because(c, this.commit(spec, (due - this.latency) | 0));
    }
  }

  /** Puts the entry into the first level that takes it. Returns 0 or why there is none. */
  private commit(spec: FlowSpec, now: number): number {
    const w = this.table.words;
    const index = spec.connection >> 1;
    const dir = spec.connection & 1;
    const c = index * CT_WORDS;
    this.renewKey(spec);
    for (let level = 0; level < this.levels.length; level++) {
      if (!this.enabled[level]) continue;
      const flows = this.levels[level];
      const aging = this.agings[level];
      const known = flows.findSpec(spec);
      if (known >= 0) {
        if (this.collides(level, known, spec)) return WHY_COLLISION;
        // An update counts as a hit; what the entry has carried so far must be counted with its own time first.
        aging.harvest(spec.family, known);
      }
      if (known < 0 && flows.count >= flows.capacity) {
        const victim = this.policy.victim(flows, spec.priority, now);
        if (victim < 0) {
          flows.countStatistic(STAT_REFUSED);
          continue;
        }
        flows.countStatistic(STAT_EVICTIONS);
        aging.evict((victim & 1) === 1 ? 6 : 4, victim >> 1);
      }
      if (flows.install(spec, now, this.table.epoch()) < 0) continue;
      if (this.latency === 0) this.policy.programmed();
      // One level carries a direction: an entry in another one is of the past.
      for (let other = 0; other < this.levels.length; other++)
        if (other !== level) this.agings[other].dropDirection(index, dir);
      Atomics.or(w, c + CT_FLOWS, 1 << (2 * level + dir));
      Atomics.or(w, c + CT_STATUS, IPS_OFFLOAD);
      return 0;
    }
    return WHY_FULL;
  }

  /** True when the entry belongs to another session that lives: then that one leaves the engine, too. */
  private collides(level: number, place: number, spec: FlowSpec): boolean {
    const flows = this.levels[level];
    const owner = this.agings[level].ownerOf(spec.family, place);
    if (owner === spec.connection) return false;
    if (owner < 0) {
      this.agings[level].evict(spec.family, place);
      return false;
    }
    flows.countStatistic(STAT_COLLISIONS);
    this.policy.because((owner >> 1) * CT_WORDS, WHY_COLLISION);
    for (const aging of this.agings) aging.drop(owner >> 1);
    return true;
  }

  /**
   * A direction has one entry. What its key has besides the tuple is noted in the connection, so that the entry is found
   * again: the port of entry (a host may have moved), and for ESP the SPI (rekeying), noted where TCP has its window.
   * When either has changed, the entry under the old key goes first.
   */
  private renewKey(spec: FlowSpec): void {
    const w = this.table.words;
    const index = spec.connection >> 1;
    const dir = spec.connection & 1;
    const c = index * CT_WORDS;
    const io = dir << 3;
    const spi = c + CT_TCP + dir;
    const samePort = ((w[c + CT_PORTS_IO] >> io) & 0xff) === spec.inPort + 1;
    if (samePort && (spec.proto !== ESP || w[spi] === spec.ports)) return;
    for (const aging of this.agings) aging.dropDirection(index, dir);
    w[c + CT_PORTS_IO] = (w[c + CT_PORTS_IO] & ~(0xff << io)) | ((spec.inPort + 1) << io);
    if (spec.proto === ESP) w[spi] = spec.ports;
  }
}
