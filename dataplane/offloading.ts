/**
 * Offloading: what the slow path and the engine have to tell each other, the offload-program stage and re-entry.
 *
 * A packet that all stages have agreed on programs its direction's entry (`program`). A packet of a connection that the engine
 * carries comes to the slow path now and then: what has passed meanwhile is brought up to date then (`reenter`), and so it
 * is by aging (`turn`), and when somebody asks (`harvestAll`). The lookup is in fastpath.ts.
 */
import { CT_DEADLINE, CT_FLOWS, CT_GEN, CT_WORDS } from '../conntrack/record.ts';
import { isIdleSyn, plausibleTcp, relearnTcp } from '../conntrack/tcp.ts';
import { ENGINE_DISBELIEVES, ENGINE_EXPIRED, ENGINE_FOLLOWS } from '../conntrack/track.ts';
import { OffloadAging } from '../offload/aging.ts';
import * as EX from '../offload/engine.ts';
import { Policy, type PolicyOptions } from '../offload/policy.ts';
import { Programmer } from '../offload/programmer.ts';
import { type FlowTable, newFlowSpec } from '../offload/table.ts';
import type { Frames } from './frames.ts';
import { IF_FLAGS, IF_MTU, IF_SOURCES, IF_VLAN, IF_WORDS, IFF_HOST, IFF_SECURITY } from './interfaces.ts';
import { NEIGH_GEN } from './neighbours.ts';
import { ESP, TCP } from './parse.ts';
import * as T from './tables.ts';
import type { Packet } from './wire/packet.ts';
import { delta, fold } from './wire/sum.ts';

/** TTL falls by one: what that adds to the header's sum. */
const TTL_DELTA = 0xfffe;

export interface FastPathOptions extends PolicyOptions {
  verify: boolean;
  /** Verify mode of the engine behind the table: what it has forwarded is shown here (ports/kernel-samples.ts). */
  samples?: boolean;
  /** FAULT_*, tests only. */
  fault: number;
}

export abstract class Offloading {
  readonly policy: Policy;
  readonly programmer: Programmer;
  readonly agings: OffloadAging[] = [];
  /** Switches of the levels: hardware, flow cache. */
  readonly enabled = [true, true];
  protected readonly tables: T.Tables;
  protected readonly frames: Frames;
  protected readonly levels: FlowTable[] = [];
  protected readonly first: FlowTable;
  private readonly spec = newFlowSpec();
  private sweep = 0;

  constructor(tables: T.Tables, frames: Frames, options: FastPathOptions) {
    this.tables = tables;
    this.frames = frames;
    this.policy = new Policy(tables.conntrack, tables.timeouts, options, tables.now());
    for (const flows of [tables.flows, tables.cachedFlows]) {
      if (flows === null) continue;
      const aging = new OffloadAging(tables.conntrack, flows, tables.timeouts, this.levels.length, tables.now());
      aging.counts = !options.verify;
      this.levels.push(flows);
      this.agings.push(aging);
    }
    this.first = this.levels[0];
    this.programmer = new Programmer(
      tables.conntrack,
      this.levels,
      this.agings,
      this.enabled,
      this.policy,
      options.latency ?? 0,
    );
    const released = tables.conntrack.onDelete;
    tables.conntrack.onDelete = (index) => {
      this.forget(index);
      released(index);
    };
  }

  // --- offload-program -------------------------------------------------------------------------------------------------

  /**
   * Installs or restamps the entry of the packet's direction: what it was (ingress hook: received addresses and port)
   * and what it became (egress hook: effective addresses, MAC, port). Called when all stages have agreed.
   */
  program(p: Packet, epoch: number, now: number): void {
    const tables = this.tables;
    const w = tables.conntrack.words;
    const c = p.ct * CT_WORDS;
    const interfaces = tables.interfaces.words;
    if (
      ((interfaces[p.port * IF_WORDS + IF_FLAGS] | interfaces[p.outPort * IF_WORDS + IF_FLAGS]) & IFF_HOST) !== 0 ||
      interfaces[p.port * IF_WORDS + IF_SOURCES] !== 0 ||
      (interfaces[p.port * IF_WORDS + IF_FLAGS] & IFF_SECURITY) !== 0 ||
      tables.policy.asksDscp() ||
      (interfaces[p.port * IF_WORDS + IF_VLAN] !== 0 && this.first.behind?.between(p.port, p.outPort) !== true)
    ) {
      this.policy.because(c, EX.WHY_PORT);
      return;
    }
    if (p.mtu !== interfaces[p.outPort * IF_WORDS + IF_MTU]) {
      this.policy.because(c, EX.WHY_MTU);
      return;
    }
    if (p.proto === TCP && (p.tcpFlags & 7) !== 0) return;
    if (this.policy.refuse(p, this.frames.u8) !== 0) return;
    const spec = this.spec;
    this.describe(p, epoch);
    spec.generation = w[c + CT_GEN];
    spec.priority = this.policy.priority(p.ct);
    spec.sweep = this.sweep;
    this.programmer.request(spec, now);
  }

  private describe(p: Packet, epoch: number): void {
    const spec = this.spec;
    const neighbours = this.tables.neighbours;
    const n = neighbours.at(p.neighbour);
    // The generation before the address: one that changes meanwhile leaves an entry that is stale, not one that is wrong.
    spec.neighbour = (p.neighbour << 16) | (Atomics.load(neighbours.words, n + NEIGH_GEN) & 0xffff);
    spec.family = p.family;
    spec.src[0] = p.rs0;
    spec.src[1] = p.rs1;
    spec.src[2] = p.rs2;
    spec.src[3] = p.rs3;
    spec.dst[0] = p.rd0;
    spec.dst[1] = p.rd1;
    spec.dst[2] = p.rd2;
    spec.dst[3] = p.rd3;
    spec.proto = p.proto;
    spec.inPort = p.port;
    spec.ports = p.proto === ESP ? this.frames.i32[p.l4 >> 2] : p.rports;
    spec.newSrc = p.s0;
    spec.newDst = p.d0;
    spec.newPorts = p.ports;
    const addresses = delta(p.rs0, p.s0) + delta(p.rd0, p.d0);
    spec.delta = fold(addresses + TTL_DELTA) | (fold(addresses + delta(p.rports, p.ports)) << 16);
    spec.macLo = neighbours.words[n + 6];
    spec.macHi = neighbours.words[n + 7];
    spec.outPort = p.outPort;
    spec.flags = 0;
    spec.epoch = epoch;
    spec.connection = (p.ct << 1) | p.dir;
  }

  // --- re-entry from the engine ------------------------------------------------------------------------------------------

  /**
   * A packet of a connection that the engine carries has come to the slow path. Its counts and deadline are brought up to
   * date; TCP's window is learned anew. FIN and RST take it out of the engine, and a SYN that matters, unless they are not to be believed.
   * Returns ENGINE_* (conntrack/track.ts).
   */
  reenter(index: number, p: Packet, now: number): number {
    const w = this.tables.conntrack.words;
    const c = index * CT_WORDS;
    if (p.proto === TCP && (p.tcpFlags & 5) !== 0 && this.isBlind(index, p)) return ENGINE_DISBELIEVES;
    for (const aging of this.agings) aging.settle(index);
    if (((w[c + CT_DEADLINE] - now) | 0) < 0) {
      this.forget(index);
      return ENGINE_EXPIRED;
    }
    if (p.proto === TCP && !isIdleSyn(w, c, p, this.frames.u8)) {
      if ((w[c + CT_FLOWS] & EX.FLOWS_CARRIED) !== 0) {
        // The engine has carried segments that the tracker did not see: windows are learned anew (trap 2).
        Atomics.and(w, c + CT_FLOWS, ~EX.FLOWS_CARRIED);
        relearnTcp(w, c);
      }
      if ((p.tcpFlags & 7) !== 0) this.forget(index);
    }
    return ENGINE_FOLLOWS;
  }

  /**
   * True when a FIN or a RST cannot be of this connection: its numbers are farther from those that the
   * tracker saw last than what the engine has carried since (conntrack/tcp-window.ts).
   */
  private isBlind(index: number, p: Packet): boolean {
    const { tables, frames } = this;
    const carried = this.carried(index, p.dir);
    const back = this.carried(index, p.dir ^ 1);
    return !plausibleTcp(tables.conntrack.words, index * CT_WORDS, p, frames.u8, tables.timeouts, carried, back);
  }

  /** Bytes that the level which has the direction's entry has carried; −1: none has one, or they are too many. */
  private carried(index: number, dir: number): number {
    for (const aging of this.agings) {
      const carried = aging.carried(index, dir);
      if (carried >= 0) return carried;
    }
    return -1;
  }

  /** Takes a connection's entries out of all levels. */
  forget(index: number): void {
    if (this.tables.conntrack.words[index * CT_WORDS + CT_FLOWS] === 0) return;
    for (const aging of this.agings) aging.drop(index);
  }

  /** Bounded work per turn. */
  turn(now: number): void {
    this.programmer.turn(now);
    // The table is shared: one worker ages it.
    if (this.tables.worker === 0) for (const aging of this.agings) aging.turn(now);
  }

  /** Before the epochs are read for a burst: which levels are on, how many sweeps there have been (FlowTable.sweep). */
  begin(): void {
    const off = this.tables.control[T.ENGINES];
    this.enabled[0] = (off & 1) === 0;
    this.enabled[1] = (off & 2) === 0;
    this.sweep = this.levels[0].sweeps;
  }

  /** Brings all connections' counters and deadlines up to date. */
  harvestAll(now: number): void {
    for (const aging of this.agings) aging.all(now);
  }
}
