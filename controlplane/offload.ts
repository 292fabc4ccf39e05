/**
 * Offload, as the control plane has it: the engine's options from the configuration, its switches and its multicast
 * entries.
 *
 * Works on the shared tables, so that the same API serves the inline router and a live one.
 */

import { IF_CHILDREN, IF_FLAGS, IF_WORDS, IFF_HOST, IFF_PRESENT } from '../dataplane/interfaces.ts';
import * as T from '../dataplane/tables.ts';
import { parseAddress } from '../dataplane/wire/address.ts';
import type { MulticastSpec } from '../offload/multicast.ts';
import { MAX_MULTICAST } from '../offload/multicast.ts';
import type { PolicyOptions } from '../offload/policy.ts';
import type { Config, OffloadConfig } from './config/index.ts';

/** What a worker's engine must know. */
export interface EngineOptions extends PolicyOptions {
  verify: boolean;
  /** Verify mode is that of the engine behind the table, which shows samples of what it has forwarded. */
  samples: boolean;
  /** FAULT_* of dataplane/shadow.ts; tests only. */
  fault: number;
}

/** The engine's options; null when the configuration switches it off. `behind`: another engine does the work. */
export function engineOptions(offload: OffloadConfig, fault = 0, behind = false): EngineOptions | null {
  if (offload.mode === 'off' || offload.entries === 0) return null;
  return {
    programAfter: offload.programAfter,
    rate: offload.rate,
    latency: offload.latency,
    inspectFirst: offload.inspectFirst,
    verify: offload.mode === 'verify' && !behind,
    samples: offload.mode === 'verify' && behind,
    fault,
  };
}

/** The two stacked engines, in the order in which they are asked. */
export type EngineLevel = 'engine' | 'flow-cache';

/** A multicast entry in people's words. */
export interface MulticastEntry {
  /** Port that the group's packets come in by. */
  port: string;
  /** Only from this source; absent: from any. */
  source?: string;
  group: string;
  /** Ports that get a copy. */
  to: readonly string[];
}

export class OffloadApi {
  private readonly tables: T.Tables;
  private readonly config: Config;

  constructor(tables: T.Tables, config: Config) {
    this.tables = tables;
    this.config = config;
  }

  /** Switches one level on or off at run time; its entries stay, and are used again when it comes back in time. */
  enable(level: EngineLevel, on: boolean): void {
    const bit = level === 'engine' ? 1 : 2;
    if (on) Atomics.and(this.tables.control, T.ENGINES, ~bit);
    else Atomics.or(this.tables.control, T.ENGINES, bit);
    this.tables.flushed();
  }

  enabled(level: EngineLevel): boolean {
    return (Atomics.load(this.tables.control, T.ENGINES) & (level === 'engine' ? 1 : 2)) === 0;
  }

  /** Makes every entry look again, as a change of the filter does. */
  flush(): void {
    this.tables.flush(T.EPOCH_FILTER);
  }

  /**
   * Programs a multicast entry, or gives an installed one other egress ports.
   * @throws RangeError naming what is wrong: an unknown port, no group address, families that differ, a full table
   */
  programMulticast(entry: MulticastEntry): void {
    const spec = this.spec(entry);
    if (!this.tables.multicast.program(spec, this.tables.now()))
      throw new RangeError(`multicast: expected at most ${MAX_MULTICAST} entries, got one more; remove one first`);
  }

  /** Takes a multicast entry out. False when there is none with this port, source and group. */
  removeMulticast(entry: Omit<MulticastEntry, 'to'>): boolean {
    return this.tables.multicast.remove(this.spec({ ...entry, to: [] }));
  }

  private spec(entry: MulticastEntry): MulticastSpec {
    const group = parseAddress(entry.group);
    const first = group === null ? 0 : group.words[0] & 0xff;
    if (group === null || (group.family === 4 ? (first & 0xf0) !== 0xe0 : first !== 0xff))
      throw new RangeError(`group: expected a multicast address, got "${entry.group}"`);
    const source =
      entry.source === undefined ? { family: group.family, words: [0, 0, 0, 0] } : parseAddress(entry.source);
    if (source === null || source.family !== group.family)
      throw new RangeError(`source: expected an IPv${group.family} address, got "${entry.source}"`);
    const inPort = this.portNumber(entry.port);
    return {
      family: group.family,
      inPort,
      source: words(source.words),
      group: words(group.words),
      egress: entry.to.map((name) => this.portNumber(name, inPort)),
    };
  }

  private portNumber(name: string, other = -1): number {
    const port = this.config.ports.find((one) => one.name === name);
    const ports = this.config.ports.map((one) => one.name).join(', ');
    if (port === undefined) throw new RangeError(`port: expected one of ${ports}, got "${name}"`);
    if (port.number === other)
      throw new RangeError(`to: expected ports other than the one that the group comes in by, got "${name}"`);
    const w = this.tables.interfaces.words;
    const r = port.number * IF_WORDS;
    if (
      other < 0 &&
      ((w[r + IF_FLAGS] & (IFF_HOST | IFF_PRESENT)) !== IFF_PRESENT || port.parent >= 0 || w[r + IF_CHILDREN] > 0)
    )
      throw new RangeError(`port: expected a port without VLANs (those take the slow path), got "${name}"`);
    return port.number;
  }
}

function words(from: ArrayLike<number>): number[] {
  return [0, 1, 2, 3].map((n) => (from[n] ?? 0) | 0);
}

/** What verify has found: both frames, and what differs. `slow` is null when the slow path sent none. */
export interface Mismatch {
  what: string;
  engine: Uint8Array;
  slow: Uint8Array | null;
}
