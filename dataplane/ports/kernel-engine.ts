/**
 * The kernel engine: flow entries that the kernel's own eBPF programs forward by, behind the emulated engine's table.
 *
 *   main thread   KernelEngine: makes maps and programs, attaches them, and keeps the block (layout.ts) in step with
 *                 the tables: the epoch, ports, neighbours. A flush is one store of 8 bytes here.
 *   workers       KernelFlows: the Engine behind FlowTable: every entry that both of its ports allow is also in the
 *                 kernel's map; counters come back from mapped memory, place by place, when aging visits an entry.
 *
 * The flow table stays what policy, aging and `show offload` work on, and packets that come up to the router although
 * they have an entry are forwarded by it, as ever. Ports that are not attached (TAP devices, ports with a fault or mirror
 * wrapper) only have the emulated engine.
 */
import type * as EX from '../../offload/engine.ts';
import * as L from '../../offload/kernel/layout.ts';
import { engineProgram } from '../../offload/kernel/program.ts';
import {
  F4_DMAC_HI,
  F4_KEY,
  F4_LAST,
  F6_DMAC_HI,
  F6_KEY,
  F6_LAST,
  type FlowSpec,
  FlowTable,
  KEY_VALID,
} from '../../offload/table.ts';
import {
  IF_FLAGS,
  IF_MAC_HI,
  IF_MAC_LO,
  IF_MTU,
  IF_PARENT,
  IF_SOURCES,
  IF_VLAN,
  IF_WORDS,
  IFF_HOST,
  IFF_UP,
  MAX_PORTS,
} from '../interfaces.ts';
import { NEIGH_GEN, type NeighbourTable, NUD_QUIET } from '../neighbours.ts';
import * as T from '../tables.ts';
import {
  attachEgress,
  attachIngress,
  closeDescriptor,
  createMap,
  deleteFromMap,
  loadProgram,
  updateMap,
} from './bpf.ts';
import { mapRing, type RingTask } from './bpf-ring.ts';
import { mapDescriptor, mapMemory, viewMemory } from './ffi.ts';
import { countForwarded, SAMPLE_RING_BYTES } from './kernel-samples.ts';
import { monotonic } from './monotonic.ts';

/** Maps of more entries than this take their memory entry by entry. */
const EAGER_ENTRIES = 65536;
/** What KernelFlows remembers of a place beside the counters: packets and bytes at the last look. */
const SEEN_WORDS = 2;
/** The program may know of a last hit that is so much older than the table's, ms: far less than what makes an entry idle. */
const LAG = 1000;

/** What a worker needs; descriptors and addresses mean the same in every thread. */
export interface KernelTask {
  flows4: number;
  flows6: number;
  /** Address and size of the mapped counters, and of the block. */
  counters: number;
  counterBytes: number;
  block: number;
  blockBytes: number;
  seen: SharedArrayBuffer;
  /** Verify mode: the ring of samples. */
  samples: RingTask | null;
}

/** A port whose device has the program. */
export interface KernelPort {
  number: number;
  ifname: string;
  /** At first; 0 for a TAP, which is not there yet (attachTo). */
  ifindex: number;
  /** Kind `tap`. */
  tap?: boolean;
  /** At first, the device's other end is in another namespace. */
  peer: boolean;
  /** VLAN ports on it. */
  vlans: readonly { vlan: number; port: number }[];
}

export interface KernelEngineOptions {
  /** Entries of the engine, both families together. */
  entries: number;
  /** Size of the neighbour table. */
  neighbours: number;
  /** An entry without a hit for this long is not used, ms. */
  idle: number;
  /** Ports to have a program. */
  ports: readonly KernelPort[];
  /** Verify mode: one hit of this many, a power of two, is shown to the router; absent or 0: verify is off. */
  sample?: number;
  /** FAULT_* of offload/engine.ts, tests only. */
  fault?: number;
}

export class KernelEngine {
  readonly task: KernelTask;
  readonly ports: readonly KernelPort[];
  /** Program by port number. */
  readonly programs = new Map<number, number>();
  private readonly descriptors: number[] = [];
  /** What holds a port's program to its device, by port number. */
  private readonly links = new Map<number, number>();
  private readonly block: Int32Array;
  private readonly epoch: BigInt64Array;
  private readonly taps = new Int32Array(MAX_PORTS);
  /** Ports whose device's other end is in another namespace now. */
  private readonly peers = new Set<number>();
  /** Ports whose frames are left to the router, a bit each. */
  private readonly left = new Int32Array(2);
  /** Device of every port; 0: none that a program could send to. */
  private readonly devices = new Int32Array(MAX_PORTS);
  private tables: T.Tables | null = null;

  /** Makes maps and programs; attaches nothing. Errors: IoError, and then nothing is left open. */
  constructor(options: KernelEngineOptions) {
    this.ports = options.ports;
    for (const { number, peer, ifindex } of options.ports) {
      if (peer) this.peers.add(number);
      this.devices[number] = ifindex;
    }
    try {
      const lazy = options.entries > EAGER_ENTRIES;
      const flows = { kind: 'hash', valueBytes: L.ACTION_WORDS * 4, entries: options.entries, lazy } as const;
      const flows4 = this.keep(createMap({ ...flows, name: 'sluice_flows4', keyBytes: L.KEY4_WORDS * 4 }));
      const flows6 = this.keep(createMap({ ...flows, name: 'sluice_flows6', keyBytes: L.KEY6_WORDS * 4 }));
      const array = { kind: 'array', keyBytes: 4, mapped: true } as const;
      const places = FlowTable.places(options.entries) * 2;
      const valueBytes = L.COUNTER_WORDS * 4;
      const counters = this.keep(createMap({ ...array, name: 'sluice_counters', valueBytes, entries: places }));
      const blockBytes = L.blockBytes(options.neighbours);
      const block = this.keep(createMap({ ...array, name: 'sluice_block', valueBytes: blockBytes, entries: 1 }));
      const { neighbours, idle, sample = 0, fault = 0 } = options;
      const ring = { kind: 'ring', name: 'sluice_samples', keyBytes: 0, valueBytes: 0 } as const;
      const samples = sample > 0 ? this.keep(createMap({ ...ring, entries: SAMPLE_RING_BYTES })) : -1;
      const maps = { flows4, flows6, counters, block, samples };
      for (const { number, tap, vlans } of options.ports) {
        const code = engineProgram({ port: number, tap, vlans, neighbours, idle, sample, fault });
        this.programs.set(number, this.keep(loadProgram(`sluice_port${number}`, code.assemble(maps))));
      }
      const counterBytes = places * valueBytes;
      const mapped = mapDescriptor(counters, counterBytes, 0, false, 'kernel engine');
      const memory = mapDescriptor(block, blockBytes, 0, false, 'kernel engine');
      this.block = new Int32Array(memory.buffer);
      this.epoch = new BigInt64Array(memory.buffer, L.B_EPOCH * 4, 1);
      const seen = new SharedArrayBuffer(places * SEEN_WORDS * 8);
      const shown = samples < 0 ? null : mapRing(samples, SAMPLE_RING_BYTES, 'kernel engine');
      this.task = {
        ...{ flows4, flows6, counters: mapped.base, counterBytes, block: memory.base, blockBytes, seen },
        samples: shown,
      };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Attaches the programs of all ports but TAPs. Until `setTap` no frame of these ports gets anywhere. Errors: IoError. */
  attach(): void {
    try {
      for (const { number, tap, ifindex, ifname } of this.ports)
        if (tap !== true) this.attachTo(number, ifindex, ifname);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Attaches a port's program to its device: that of a TAP once it was opened, in this namespace, and of each port again when
   * its device was deleted and there is another of that name. Errors: IoError.
   */
  attachTo(port: number, ifindex: number, ifname: string): void {
    const isTap = this.ports.some(({ number, tap }) => number === port && tap === true);
    const link = (isTap ? attachEgress : attachIngress)(this.programs.get(port) as number, ifindex, ifname);
    const before = this.links.get(port);
    if (before !== undefined) closeDescriptor(before);
    this.links.set(port, link);
    this.devices[port] = ifindex;
    if (this.tables !== null) this.sync(this.tables);
  }

  /** Says to which device (by its index) the frames of a port go that the program leaves to the router. */
  setTap(port: number, ifindex: number): void {
    this.taps[port] = ifindex;
    this.block[L.B_PORTS + port * L.PORT_WORDS + L.BP_TAP] = ifindex;
  }

  /** Keeps the block in step with the tables from now on. Control plane's thread: the only writer of what is read here. */
  follow(tables: T.Tables): void {
    const { neighbours } = tables;
    this.tables = tables;
    neighbours.changed = (n) => this.note(neighbours, n);
    this.noteAll();
    tables.flushed = () => this.sync(tables);
    this.sync(tables);
  }

  /** Reads all neighbours anew: who changed some, in another thread, has died before it could say which. */
  noteAll(): void {
    if (this.tables === null) return;
    const { neighbours } = this.tables;
    for (let n = 0; n < neighbours.capacity; n++) this.note(neighbours, n);
  }

  private note(neighbours: NeighbourTable, n: number): void {
    const at = neighbours.at(n);
    const quiet = (neighbours.words[at] & NUD_QUIET) !== 0 && neighbours.used(n);
    const word = (neighbours.words[at + NEIGH_GEN] & 0xffff) | (quiet ? L.NEIGH_QUIET : 0);
    Atomics.store(this.block, L.B_NEIGHBOURS + n, word);
  }

  /**
   * The other end of a port's device is in another namespace, or in this one, from now on. To put a frame straight into
   * its own namespace is refused (bpf_redirect_peer), and the frame would be lost. A TAP elsewhere cannot be sent to at all:
   * its flows have the emulated engine until it is back.
   */
  relocate(port: number, elsewhere: boolean): void {
    if (elsewhere === this.peers.has(port)) return;
    if (elsewhere) this.peers.add(port);
    else this.peers.delete(port);
    if (this.tables !== null) this.sync(this.tables);
  }

  /** Leaves all frames that come in or leave by these ports (a bit each: 0–31, 32–63) to the router, for it to show them. */
  leave(ports: ArrayLike<number>): void {
    if (this.left[0] === ports[0] && this.left[1] === ports[1]) return;
    this.left.set(ports);
    if (this.tables !== null) this.sync(this.tables);
  }

  private isLeft(port: number): boolean {
    return (this.left[port >> 5] & (1 << (port & 31))) !== 0;
  }

  /** Copies what ports may do, then the epoch: the store that a flush is. */
  private sync(tables: T.Tables): void {
    const w = tables.interfaces.words;
    const on = (tables.control[T.ENGINES] & 1) === 0;
    for (let port = 0; port < MAX_PORTS; port++) {
      const r = port * IF_WORDS;
      const b = L.B_PORTS + port * L.PORT_WORDS;
      const parent = w[r + IF_PARENT] !== 0 ? w[r + IF_PARENT] - 1 : port;
      const device = this.ports.find(({ number }) => number === parent);
      const tap = device?.tap === true;
      const here = device !== undefined && !(tap && this.peers.has(parent));
      const usable = on && here && !this.isLeft(port) && !this.isLeft(parent);
      const up = usable && this.devices[parent] !== 0 && (w[r + IF_FLAGS] & (IFF_UP | IFF_HOST)) === IFF_UP;
      const ingress = up && w[r + IF_SOURCES] === 0;
      // A tag is put on before the frame leaves: that is the device's own way out, not its peer's way in.
      const peer = !tap && this.peers.has(parent) && w[r + IF_VLAN] === 0;
      this.block[b + L.BP_IFINDEX] = here ? this.devices[parent] : 0;
      this.block[b + L.BP_MTU] = w[r + IF_MTU];
      this.block[b + L.BP_VLAN] = w[r + IF_VLAN];
      this.block[b + L.BP_MAC_LO] = w[r + IF_MAC_LO];
      this.block[b + L.BP_MAC_HI] = w[r + IF_MAC_HI] & 0xffff;
      this.block[b + L.BP_TAP] = this.taps[port];
      const way = (peer ? L.BP_PEER : 0) | (tap ? L.BP_INWARD : 0);
      const flags = (up ? L.BP_EGRESS : 0) | (ingress ? L.BP_INGRESS : 0) | way;
      Atomics.store(this.block, b + L.BP_FLAGS, flags);
    }
    const sweeps = tables.flows?.sweeps ?? 0;
    const epoch = (BigInt(sweeps) << 32n) | BigInt(tables.control[T.EPOCH] >>> 0);
    Atomics.store(this.epoch, 0, BigInt.asIntN(64, epoch));
  }

  /** Detaches and frees everything. */
  close(): void {
    for (const link of this.links.values()) closeDescriptor(link);
    this.links.clear();
    for (const fd of this.descriptors.splice(0).reverse()) closeDescriptor(fd);
  }

  private keep(fd: number): number {
    this.descriptors.push(fd);
    return fd;
  }
}

/** Empty when the kernel takes the engine's maps and program from this process, else why not. Nothing is attached. */
export function kernelEngineRefusal(): string {
  try {
    const ports = [{ number: 0, ifname: 'none', ifindex: 0, peer: false, vlans: [] }];
    new KernelEngine({ entries: 8, neighbours: 8, idle: 1, ports }).close();
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}

/** The kernel's entries as a worker (or a test) programs them. */
export class KernelFlows implements EX.Engine {
  readonly name = 'kernel';
  readonly capacity: number;
  private readonly task: KernelTask;
  private readonly tables: T.Tables;
  private readonly flows: FlowTable;
  private readonly counters: Uint32Array;
  private readonly block: Int32Array;
  private readonly seen: Float64Array;
  private readonly clock = monotonic();
  /** Monotonic milliseconds at which the router's clock was 0; a virtual clock moves it. */
  startedAt: number;
  private readonly key: Int32Array;
  private readonly action: Int32Array;
  private readonly keyAt: number;
  private readonly actionAt: number;
  private readonly places: number;

  constructor(task: KernelTask, tables: T.Tables, flows: FlowTable, startedAt: number) {
    this.task = task;
    this.tables = tables;
    this.flows = flows;
    this.capacity = flows.capacity;
    this.places = flows.mask + 1;
    this.startedAt = startedAt;
    this.counters = new Uint32Array(viewMemory(task.counters, task.counterBytes).buffer);
    this.block = new Int32Array(viewMemory(task.block, task.blockBytes).buffer);
    this.seen = new Float64Array(task.seen);
    const memory = mapMemory(4096);
    this.key = new Int32Array(memory.buffer, 0, L.KEY6_WORDS);
    this.action = new Int32Array(memory.buffer, 64, L.ACTION_WORDS);
    this.keyAt = memory.base;
    this.actionAt = memory.base + 64;
  }

  program(flow: FlowSpec, place: number, now: number, changed: boolean): boolean {
    const index = this.indexOf(flow.family, place);
    // The packet that led here was as good as a hit: an entry that had gone idle is not idle any more.
    this.stamp(index, now);
    if (!changed) return true;
    // Both ways must be the program's: what comes in by a port without it never gets to the map.
    if (!this.between(flow.inPort, flow.outPort)) {
      this.invalidate(flow.family, place);
      return false;
    }
    L.writeKey(flow, this.key);
    L.writeAction(flow, index, this.action);
    return updateMap(flow.family === 4 ? this.task.flows4 : this.task.flows6, this.keyAt, this.actionAt);
  }

  between(inPort: number, outPort: number): boolean {
    const { block } = this;
    return (
      block[L.B_PORTS + inPort * L.PORT_WORDS + L.BP_IFINDEX] !== 0 &&
      block[L.B_PORTS + outPort * L.PORT_WORDS + L.BP_IFINDEX] !== 0
    );
  }

  begin(family: number, place: number): void {
    const index = this.indexOf(family, place);
    this.seen[index * SEEN_WORDS] = this.count(index, L.N_PACKETS);
    this.seen[index * SEEN_WORDS + 1] = this.count(index, L.N_BYTES);
    const sampled = index * L.COUNTER_WORDS + L.N_SAMPLED;
    this.counters[sampled] = 0;
    this.counters[sampled + 1] = 0;
  }

  invalidate(family: number, place: number): boolean {
    const four = family === 4;
    const w = four ? this.flows.words4 : this.flows.words6;
    const e = place << (four ? 4 : 5);
    const words = four ? 2 : 8;
    for (let n = 0; n <= words; n++) this.key[n] = w[e + n];
    this.key[words + 1] = w[e + (four ? F4_KEY : F6_KEY)] & ~KEY_VALID;
    return deleteFromMap(four ? this.task.flows4 : this.task.flows6, this.keyAt);
  }

  read(family: number, place: number, into: EX.EngineCounters): boolean {
    const index = this.indexOf(family, place);
    const { seen } = this;
    const s = index * SEEN_WORDS;
    const packets = this.count(index, L.N_PACKETS);
    into.packets = packets - seen[s];
    if (into.packets === 0) {
      this.keepUp(family, place, index);
      return false;
    }
    const bytes = this.count(index, L.N_BYTES);
    into.bytes = bytes - seen[s + 1];
    into.last = this.lastOf(index);
    seen[s] = packets;
    seen[s + 1] = bytes;
    this.account(family, place, into.packets, into.bytes);
    return true;
  }

  lastHit(family: number, place: number): number {
    return this.lastOf(this.indexOf(family, place));
  }

  /** Clock ms of a place's last hit. */
  private lastOf(index: number): number {
    return (this.count(index, L.N_LAST) / 1e6 - this.startedAt) | 0;
  }

  /** Makes `now` the time of a place's last hit. The clock has 32 bits and comes round; the program's does not. */
  private stamp(index: number, now: number): void {
    const at = index * L.COUNTER_WORDS + L.N_LAST;
    const monotonic = this.clock();
    const last = (monotonic + ((now - (monotonic - this.startedAt)) | 0)) * 1e6;
    this.counters[at] = last >>> 0;
    this.counters[at + 1] = Math.floor(last / 0x100000000);
  }

  /**
   * While its frames come up to the router (somebody captures them, a TAP is elsewhere), the emulated engine uses an entry.
   * To the program it must not be idle when its frames stay down again: nobody would program it anew.
   */
  private keepUp(family: number, place: number, index: number): void {
    const last = family === 4 ? this.flows.words4[(place << 4) + F4_LAST] : this.flows.words6[(place << 5) + F6_LAST];
    if (((last - this.lastOf(index)) | 0) > LAG) this.stamp(index, last);
  }

  private account(family: number, place: number, packets: number, bytes: number): void {
    const four = family === 4;
    const w = four ? this.flows.words4 : this.flows.words6;
    const e = place << (four ? 4 : 5);
    const from = (w[e + (four ? F4_KEY : F6_KEY)] >> 8) & 0xff;
    const to = (w[e + (four ? F4_DMAC_HI : F6_DMAC_HI)] >> 16) & 0xff;
    countForwarded(this.tables, from, to, packets, bytes);
  }

  private indexOf(family: number, place: number): number {
    return family === 4 ? place : this.places + place;
  }

  /** A counter of 64 bits: exact to 2^53. Its high half is read twice, as the low one may wrap in between. */
  private count(index: number, word: number): number {
    const at = index * L.COUNTER_WORDS + word;
    const { counters } = this;
    for (;;) {
      const high = counters[at + 1];
      const low = Atomics.load(counters, at);
      if (Atomics.load(counters, at + 1) === high) return high * 0x100000000 + low;
    }
  }
}

/** Puts the kernel's entries behind a worker's flow table. */
export function attachKernelFlows(task: KernelTask, tables: T.Tables, startedAt: number): void {
  if (tables.flows !== null) tables.flows.behind = new KernelFlows(task, tables, tables.flows, startedAt);
}
