/**
 * Engine: the small interface behind which flow engines stand, and the words that all of them use.
 *
 * The flow table (table.ts) is what policy, aging and `show` work on, and by itself it is the emulated engine, looked up by
 * dataplane/fastpath.ts. An engine that really takes the load off stands behind it as an `Engine`: it is told of every
 * entry, by its place in the table, and gives back what it has counted. The kernel's eBPF programs are one
 * (dataplane/ports/kernel-engine.ts). All calls are made with the table's lock held.
 */
import type { FlowSpec } from './table.ts';

export interface EngineCounters {
  packets: number;
  /** Bytes of IP. */
  bytes: number;
  /** Clock ms of the last hit. */
  last: number;
}

export interface Engine {
  readonly name: string;
  /** Entries that it can hold. */
  readonly capacity: number;
  /** True when both ports are this engine's: it then also takes what comes in tagged, as the emulated engine does not. */
  between(inPort: number, outPort: number): boolean;
  /** A place is about to get another entry: counting for it begins now. */
  begin(family: number, place: number): void;
  /**
   * Installs or updates the entry at a place; `changed` false: it is there as described and was only used. Returns
   * false when the engine does not take it (full, a port that is not the engine's): the table alone has it then.
   */
  program(flow: FlowSpec, place: number, now: number, changed: boolean): boolean;
  /** Takes the entry at a place out; its last counts can still be read. False when there was none. */
  invalidate(family: number, place: number): boolean;
  /** What the entry at a place has counted since the last look; false: nothing. */
  read(family: number, place: number, into: EngineCounters): boolean;
  /** Clock ms of the last hit of the entry at a place. */
  lastHit(family: number, place: number): number;
}

/** Why a packet on a port with an engine was not forwarded by it: counters C_ENGINE + EX_*. */
export const EX_HITS = 0;
export const EX_MISS = 1;
export const EX_EPOCH = 2;
export const EX_NEIGHBOUR = 3;
export const EX_TCP_FLAGS = 4;
export const EX_TTL = 5;
export const EX_MTU = 6;
export const EX_LENGTH = 7;
export const EX_CHECKSUM = 8;
export const EX_IDLE = 9;
export const EX_MAC = 10;
export const EX_MISMATCH = 11;
export const EX_CACHE_HITS = 12;
export const EX_MULTICAST = 13;
/** Of the hits, those of the engine behind the table. */
export const EX_KERNEL = 14;
/** Of those, the ones that verify mode was shown and has compared. */
export const EX_COMPARED = 15;
/** Shown as well, but nothing was there to compare them with: the entry has ended or is another one since. */
export const EX_INCOMPARABLE = 16;
export const EX_TEXT = [
  'hits',
  'miss',
  'stale-epoch',
  'neighbour',
  'tcp-flags',
  'ttl',
  'mtu',
  'length',
  'checksum',
  'idle',
  'mac',
  'mismatches',
  'flow-cache-hits',
  'multicast-hits',
  'kernel-hits',
  'kernel-compared',
  'kernel-incomparable',
] as const;

/** Why a connection is not in the engine (bits 24–31 of its CT_PORTS_IO word). */
export const NOT_OFFLOADED = [
  'installed or not yet considered',
  'no packet of the reply direction was seen yet',
  'it is the control connection of a protocol helper',
  'the engine does not take this protocol',
  'the TCP state is not ESTABLISHED',
  'too few packets yet',
  'the table is full of flows with at least its priority',
  'the programming rate is used up',
  'the inspection of its first packets is not finished',
  'several sessions share this key (GRE call ID or ESP SPI)',
  'the route’s MTU is smaller than the link’s',
  'a port without the engine is involved (VLAN, source filter, security group, the host’s own), or a routing rule asks for the DSCP',
  'sequence numbers are being adjusted',
  'its entry is being programmed',
  'its timeout is shorter than the engine’s own',
  'the inspection of its first packets has refused it',
] as const;
export const WHY_NO_REPLY = 1;
export const WHY_HELPER = 2;
export const WHY_PROTOCOL = 3;
export const WHY_STATE = 4;
export const WHY_YOUNG = 5;
export const WHY_FULL = 6;
export const WHY_RATE = 7;
export const WHY_INSPECT = 8;
export const WHY_COLLISION = 9;
export const WHY_MTU = 10;
export const WHY_PORT = 11;
export const WHY_SEQ_ADJUST = 12;
export const WHY_PENDING = 13;
export const WHY_SHORT = 14;
export const WHY_REFUSED = 15;

/**
 * The engine's word in a connection (CT_FLOWS): entries installed (bit 2 × level + direction), entries being programmed
 * (bit 4 + direction), segments were carried that the tracker has not seen (bit 8), the priority that its packets have
 * earned (bits 16–19), refused by inspection for good (bit 20).
 */
export const FLOWS_INSTALLED = 0x0f;
export const FLOWS_PENDING = 0x10;
export const FLOWS_CARRIED = 0x100;
export const FLOWS_PRIORITY = 16;
export const FLOWS_REFUSED = 1 << 20;

/** Ways in which a test makes an engine wrong on purpose, to prove that verify notices. */
export const FAULT_PROTO41 = 1;
export const FAULT_CHECKSUM = 2;
export const FAULT_MAC = 3;
