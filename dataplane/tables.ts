/**
 * Tables: everything that workers and the control plane share, made once and attached to by every thread.
 *
 * Control words: 0 CLOCK (int32 ms since start), 1 EPOCH (link, route, NAT and filter epochs, 8 bits each), 2 STOP,
 * 3 HOST_PORT + 1 (port to the host kernel), 4 WORKERS, 5 SWEEP (counts wrapped epochs), 6 ENGINES (levels of the engine
 * that are switched off, a bit each), 8–11 FLUSHES by cause.
 *
 * Counters: one row of doubles per worker (exact up to 2^53), so that counting needs no atomics; readers sum the rows.
 */
import { Aging } from '../conntrack/aging.ts';
import { EventSink } from '../conntrack/events.ts';
import { ExpectTable } from '../conntrack/expect.ts';
import { Extensions } from '../conntrack/extensions.ts';
import { type MappingBuffers, MappingTable } from '../conntrack/mapping.ts';
import { NatRules } from '../conntrack/nat-rules.ts';
import { PortPools } from '../conntrack/ports.ts';
import { Subscribers } from '../conntrack/subscribers.ts';
import { type ConntrackBuffers, ConntrackTable } from '../conntrack/table.ts';
import { CFG_WORDS } from '../conntrack/timeouts.ts';
import { MulticastTable } from '../offload/multicast.ts';
import { type FlowBuffers, FlowTable } from '../offload/table.ts';
import { BindingTable } from './bindings.ts';
import { REASONS } from './drop.ts';
import { FilterTable } from './filter.ts';
import { type Compiled, type GroundBuffers, layOut, type Piece } from './ground.ts';
import { InterfaceTable, MAX_PORTS } from './interfaces.ts';
import { NeighbourTable } from './neighbours.ts';
import { NextHopTable } from './nexthops.ts';
import { PolicyTable } from './policy.ts';
import { RouteTable } from './routes.ts';
import type { Family } from './wire/address.ts';
import { sharedAligned } from './wire/aligned.ts';

export const CLOCK = 0;
export const EPOCH = 1;
export const STOP = 2;
export const HOST_PORT = 3;
export const WORKERS = 4;
export const SWEEP = 5;
export const ENGINES = 6;
export const DEFAULT_ROUTES = 7; // bit FAMILY: there is one
export const FLUSHES = 8; // + EPOCH_* >> 3

/** Causes of a flush: which 8 bits of the epoch word they move. */
export const EPOCH_LINK = 0;
export const EPOCH_ROUTE = 8;
export const EPOCH_NAT = 16;
export const EPOCH_FILTER = 24;

/**
 * Counters of a worker's row. Between two bursts, in each row and so in their sum:
 * RECEIVED + MADE = FORWARDED + DELIVERED + GENERATED + HELD + CONSUMED + all DROPS.
 */
export const C_RECEIVED = 0;
export const C_FORWARDED = 1;
export const C_DELIVERED = 2;
export const C_GENERATED = 3;
export const C_HELD = 4;
export const C_CONSUMED = 5;
export const C_BURSTS = 6;
export const C_TURNS = 7;
/** Frames that entered the path and that no port received: the router's own, the host's, pieces, other workers'. */
export const C_MADE = 8;
export const C_DROPS = 16;
export const C_ENGINE = 112; // EX_* of offload/engine.ts
export const C_PORTS = 144; // + 8 per port
export const CP_RX_PACKETS = 0;
export const CP_RX_BYTES = 1;
export const CP_TX_PACKETS = 2;
export const CP_TX_BYTES = 3;
export const CP_DROPS = 4;
export const COUNTER_WORDS = C_PORTS + MAX_PORTS * 8;

/** Counts frames with a port. `counter`: CP_RX_PACKETS or CP_TX_PACKETS, which their bytes follow. */
export function countFrames(
  counters: Float64Array,
  port: number,
  counter: number,
  frames: number,
  bytes: number,
): void {
  const at = C_PORTS + port * 8 + counter;
  counters[at] += frames;
  counters[at + 1] += bytes;
}

if (REASONS.length > C_ENGINE - C_DROPS) throw new Error('dataplane/tables.ts: more drop reasons than counters');

/** Nodes of a routing table beside the main one: some thousand routes. */
const POLICY_NODES = 4096;

export interface TableSizes {
  connections: number;
  neighbours: number;
  routeNodes: number;
  nexthops: number;
  filterRules: number;
  natRules: number;
  /** Entries of the engine and of the software flow cache below it; 0: none. */
  flows: number;
  cachedFlows: number;
  /** Expectations, and connections with a helper. */
  expectations: number;
  extensions: number;
  /** NAT mappings, pools of outside ports (address and protocol), inside addresses with blocks or limits; 0: none used. */
  natMappings: number;
  natPools: number;
  natSubscribers: number;
  /** Source addresses of stations behind security groups; 0: no port has one. */
  bindings: number;
  /** Routing tables beside the main one; 0: no policy routing. */
  policyTables: number;
  workers: number;
}

export const DEFAULT_SIZES: TableSizes = {
  connections: 262144,
  neighbours: 8192,
  routeNodes: 16384,
  nexthops: 4096,
  filterRules: 1024,
  natRules: 256,
  flows: 16384,
  cachedFlows: 0,
  expectations: 1024,
  extensions: 8192,
  natMappings: 0,
  natPools: 0,
  natSubscribers: 0,
  bindings: 0,
  policyTables: 0,
  workers: 1,
};

export interface TableBuffers {
  sizes: TableSizes;
  control: SharedArrayBuffer;
  counters: SharedArrayBuffer;
  conntrack: ConntrackBuffers;
  timeouts: SharedArrayBuffer;
  wheels: SharedArrayBuffer;
  events: SharedArrayBuffer;
  interfaces: Piece;
  neighbours: Piece;
  routes: SharedArrayBuffer;
  nexthops: SharedArrayBuffer;
  filter: SharedArrayBuffer;
  bindings: SharedArrayBuffer;
  policy: SharedArrayBuffer;
  policyRoutes: SharedArrayBuffer[];
  natRules: SharedArrayBuffer;
  natMappings: MappingBuffers;
  natPools: SharedArrayBuffer;
  natSubscribers: SharedArrayBuffer;
  expectations: SharedArrayBuffer;
  extensions: SharedArrayBuffer;
  /** Helper number by destination port: 65536 bytes for UDP, then for TCP; 16 bytes of options behind. */
  helperPorts: SharedArrayBuffer;
  flows: FlowBuffers | null;
  cachedFlows: FlowBuffers | null;
  multicast: SharedArrayBuffer;
  /** 65536 bits each for UDP and TCP: ports that a built-in protocol of the router listens on. */
  services: SharedArrayBuffer;
  /** The memory that the compiled burst reaches, and that some of the tables above are pieces of; null: it is not used. */
  ground: GroundBuffers | null;
}

/**
 * Allocates all shared tables. `workers` counts the packet workers; one more row belongs to the main thread.
 * @param compiled what the fast path's compiled burst needs (ground.ts); null: it is not used
 */
export function createTables(sizes: TableSizes, seed: number, compiled: Compiled | null = null): TableBuffers {
  const rows = sizes.workers + 1;
  const pieces = layOut(
    compiled,
    sizes.workers,
    sizes.flows,
    InterfaceTable.bytes(),
    NeighbourTable.bytes(sizes.neighbours),
  );
  const buffers: TableBuffers = {
    sizes,
    control: new SharedArrayBuffer(64 * 4),
    counters: new SharedArrayBuffer(rows * COUNTER_WORDS * 8),
    conntrack: ConntrackTable.create(sizes.connections, seed),
    timeouts: new SharedArrayBuffer(CFG_WORDS * 4),
    wheels: new SharedArrayBuffer(Aging.bytes(rows)),
    events: new SharedArrayBuffer(EventSink.bytes(rows)),
    interfaces: pieces.interfaces,
    neighbours: pieces.neighbours,
    routes: new SharedArrayBuffer(RouteTable.bytes(sizes.routeNodes)),
    nexthops: new SharedArrayBuffer(NextHopTable.bytes(sizes.nexthops)),
    filter: new SharedArrayBuffer(FilterTable.bytes(sizes.filterRules, rows)),
    bindings: new SharedArrayBuffer(BindingTable.bytes(sizes.bindings)),
    policy: new SharedArrayBuffer(PolicyTable.bytes(sizes.policyTables)),
    policyRoutes: Array.from(
      { length: sizes.policyTables },
      () => new SharedArrayBuffer(RouteTable.bytes(POLICY_NODES)),
    ),
    natRules: new SharedArrayBuffer(NatRules.bytes(sizes.natRules)),
    natMappings: MappingTable.create(sizes.natMappings),
    natPools: new SharedArrayBuffer(PortPools.bytes(sizes.natPools)),
    natSubscribers: new SharedArrayBuffer(Subscribers.bytes(sizes.natSubscribers)),
    expectations: new SharedArrayBuffer(ExpectTable.bytes(sizes.expectations)),
    extensions: new SharedArrayBuffer(Extensions.bytes(sizes.extensions)),
    helperPorts: new SharedArrayBuffer(2 * 65536 + 64),
    flows: sizes.flows > 0 ? FlowTable.create(sizes.flows, pieces.four, pieces.six) : null,
    cachedFlows: sizes.cachedFlows > 0 ? FlowTable.create(sizes.cachedFlows, sharedAligned) : null,
    multicast: new SharedArrayBuffer(MulticastTable.bytes()),
    services: new SharedArrayBuffer(2 * 8192),
    ground: pieces.ground,
  };
  new Int32Array(buffers.control)[WORKERS] = sizes.workers;
  return buffers;
}

/** One thread's view of the shared tables. */
export class Tables {
  readonly buffers: TableBuffers;
  readonly worker: number;
  readonly control: Int32Array;
  readonly counters: Float64Array;
  readonly conntrack: ConntrackTable;
  readonly timeouts: Int32Array;
  readonly interfaces: InterfaceTable;
  readonly neighbours: NeighbourTable;
  readonly routes: RouteTable;
  readonly nexthops: NextHopTable;
  readonly filter: FilterTable;
  readonly bindings: BindingTable;
  /** Which of `policyRoutes` (table n is at n − 1) a packet asks first. */
  readonly policy: PolicyTable;
  readonly policyRoutes: readonly RouteTable[];
  readonly natRules: NatRules;
  readonly natMappings: MappingTable;
  readonly natPools: PortPools;
  readonly natSubscribers: Subscribers;
  readonly expectations: ExpectTable;
  readonly extensions: Extensions;
  readonly helperPorts: Uint8Array;
  /** The engine's flow tables, in the order in which they are asked: hardware, then the software flow cache. */
  readonly flows: FlowTable | null;
  readonly cachedFlows: FlowTable | null;
  /** The engine's multicast entries. */
  readonly multicast: MulticastTable;
  readonly services: Uint8Array;
  /** Called behind every flush by this thread, and when levels are switched: an engine outside of this memory follows. */
  flushed: () => void = () => {};

  /** @param worker 0 … workers − 1 for packet workers; `workers` is the main thread's own row */
  constructor(buffers: TableBuffers, worker: number) {
    this.buffers = buffers;
    this.worker = worker;
    this.control = new Int32Array(buffers.control);
    this.counters = new Float64Array(buffers.counters, worker * COUNTER_WORDS * 8, COUNTER_WORDS);
    this.conntrack = new ConntrackTable(buffers.conntrack, worker);
    this.timeouts = new Int32Array(buffers.timeouts);
    this.interfaces = new InterfaceTable(buffers.interfaces.buffer, buffers.interfaces.lead);
    const { neighbours } = buffers;
    this.neighbours = new NeighbourTable(neighbours.buffer, neighbours.lead, neighbours.bytes);
    this.routes = new RouteTable(buffers.routes);
    this.nexthops = new NextHopTable(buffers.nexthops);
    this.filter = new FilterTable(buffers.filter, buffers.sizes.workers + 1);
    this.bindings = new BindingTable(buffers.bindings);
    this.policy = new PolicyTable(buffers.policy);
    this.policyRoutes = buffers.policyRoutes.map((buffer) => new RouteTable(buffer));
    this.natRules = new NatRules(buffers.natRules);
    this.expectations = new ExpectTable(buffers.expectations, this.conntrack, worker);
    this.extensions = new Extensions(buffers.extensions, this.conntrack);
    this.helperPorts = new Uint8Array(buffers.helperPorts);
    const seed = new Int32Array(buffers.conntrack.control)[9];
    this.natMappings = new MappingTable(buffers.natMappings, this.conntrack, worker, seed);
    this.natPools = new PortPools(buffers.natPools, worker);
    this.natSubscribers = new Subscribers(buffers.natSubscribers, worker);
    this.flows = buffers.flows === null ? null : new FlowTable(buffers.flows, seed, worker);
    this.cachedFlows = buffers.cachedFlows === null ? null : new FlowTable(buffers.cachedFlows, seed, worker);
    this.multicast = new MulticastTable(buffers.multicast);
    this.services = new Uint8Array(buffers.services);
  }

  now(): number {
    return this.control[CLOCK];
  }

  /** After the death of a worker: breaks the locks that it held, and mends what stood behind them. Returns how many they were. */
  repair(deadWorker: number): number {
    const { conntrack } = this;
    const broken =
      conntrack.repair(deadWorker) +
      this.natMappings.repair(deadWorker) +
      this.natPools.repair(deadWorker) +
      this.natSubscribers.repair(deadWorker) +
      this.expectations.repair(deadWorker) +
      (this.flows?.repair(deadWorker, conntrack.epoch()) ?? 0) +
      (this.cachedFlows?.repair(deadWorker, conntrack.epoch()) ?? 0);
    if (broken > 0) conntrack.wantEpochs();
    return broken;
  }

  /** A counter summed over all workers. */
  total(counter: number): number {
    const all = new Float64Array(this.buffers.counters);
    let sum = 0;
    for (let at = counter; at < all.length; at += COUNTER_WORDS) sum += all[at];
    return sum;
  }

  /** Frames in a worker's row that entered and have met no end: 0 between bursts, unless it died in one. */
  missing(worker: number): number {
    const row = new Float64Array(this.buffers.counters, worker * COUNTER_WORDS * 8, COUNTER_WORDS);
    let missing = row[C_RECEIVED] + row[C_MADE];
    for (const end of [C_FORWARDED, C_DELIVERED, C_GENERATED, C_HELD, C_CONSUMED]) missing -= row[end];
    for (let reason = 0; reason < REASONS.length; reason++) missing -= row[C_DROPS + reason];
    return missing;
  }

  /** Invalidates what depends on `cause` (EPOCH_*) in the engine: one increment. */
  flush(cause: number): void {
    Atomics.add(this.control, FLUSHES + (cause >> 3), 1);
    for (;;) {
      const old = Atomics.load(this.control, EPOCH);
      // 1 follows on 255: 0 is the epoch of entries that a sweep has met (and of those made before the first flush).
      const byte = (old >>> cause) & 0xff;
      const next = (old & ~(0xff << cause)) | ((byte === 255 ? 1 : byte + 1) << cause);
      if (byte === 255) this.sweep(cause);
      if (Atomics.compareExchange(this.control, EPOCH, old, next) !== old) continue;
      // Once more for entries that a walk has made between the two, of the epoch that is over.
      if (byte === 255) this.sweep(cause);
      this.flushed();
      return;
    }
  }

  private sweep(cause: number): void {
    Atomics.add(this.control, SWEEP, 1);
    this.flows?.sweep(cause);
    this.cachedFlows?.sweep(cause);
  }

  /** Says whether a built-in protocol listens on a port (host order) of TCP (6) or UDP (17). */
  setService(proto: number, port: number, on: boolean): void {
    const at = (proto === 17 ? 0 : 8192) + (port >> 3);
    if (on) this.services[at] |= 1 << (port & 7);
    else this.services[at] &= ~(1 << (port & 7));
  }

  /** Says whether the family has a default route: for those who advertise one in another thread. */
  setDefault(family: Family, on: boolean): void {
    if (on) Atomics.or(this.control, DEFAULT_ROUTES, 1 << family);
    else Atomics.and(this.control, DEFAULT_ROUTES, ~(1 << family));
  }

  hasDefault(family: Family): boolean {
    return (Atomics.load(this.control, DEFAULT_ROUTES) & (1 << family)) !== 0;
  }

  /** Helper number for a new connection's protocol and destination port (host order); 0: none. */
  helperFor(proto: number, port: number): number {
    if (proto !== 6 && proto !== 17) return 0;
    return this.helperPorts[(proto === 17 ? 0 : 65536) + port];
  }

  hasService(proto: number, port: number): boolean {
    return (this.services[(proto === 17 ? 0 : 8192) + (port >> 3)] & (1 << (port & 7))) !== 0;
  }
}
