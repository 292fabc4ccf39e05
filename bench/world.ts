/**
 * World: a home gateway in memory, and the flows that cross it. What every memory.* workload runs in.
 *
 *   hosts of 10.0.0.0/8, 2001:db8:1000::/48 ── inner router ── lan [path] wan ── provider ── servers
 *
 * One next hop on each side, masquerade on `wan` for IPv4, plain forwarding for IPv6; zones, filter, conntrack, NAT and
 * the engine are the ones of a running router. Every flow is one UDP connection with a port and a server of its own, so
 * that the translation keeps its port (60000 to a server); both directions are played.
 */

import { type Config, normalizeConfig } from '../controlplane/config/index.ts';
import { Control } from '../controlplane/control.ts';
import { takeMemory } from '../controlplane/live/memory.ts';
import { REASONS } from '../dataplane/drop.ts';
import { Path, type Punt } from '../dataplane/path.ts';
import { groundArena, type LiveFrames, liveArena } from '../dataplane/ports/arena.ts';
import { compiledBurst, compiledModule } from '../dataplane/ports/compiled.ts';
import { inlineStages } from '../dataplane/ports/compiler.ts';
import { exactLead } from '../dataplane/ports/hugepages.ts';
import type { Port } from '../dataplane/ports/port.ts';
import {
  C_DROPS,
  C_ENGINE,
  C_RECEIVED,
  CLOCK,
  createTables,
  DEFAULT_SIZES,
  type TableBuffers,
  Tables,
} from '../dataplane/tables.ts';
import { CACHE_LINE } from '../dataplane/wire/aligned.ts';
import { EX_HITS } from '../offload/engine.ts';
import { MasterPort, type Room, writeUdp } from './traffic.ts';

const LAN_MAC = [2, 0, 0, 0, 1, 1];
const WAN_MAC = [2, 0, 0, 0, 1, 2];
const INNER_MAC = [2, 0, 0, 0, 0, 2];
const PROVIDER_MAC = [2, 0, 0, 0, 0, 0xfe];
/** Slots of a worker's arena. */
const ARENA = { small: 2048, large: 4 };
/** Flows to one server: ports 2048 … 62047, all of which masquerade keeps. */
const PORTS = 60_000;
/** More than any workload plays between two looks at the clock. */
const ENDLESS = 0x3fffffff;

export interface WorldOptions {
  family: 4 | 6;
  flows: number;
  engine: boolean;
  workers: number;
  /** Ask for huge pages under the tables. */
  huge: boolean;
}

/** The configuration, as a user would write it. */
export function worldConfig(options: WorldOptions): Config {
  const mac = (bytes: number[]) => bytes.map((b) => b.toString(16).padStart(2, '0')).join(':');
  const config = normalizeConfig({
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: mac(LAN_MAC), addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
      wan: { kind: 'memory', zone: 'wan', mac: mac(WAN_MAC), addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
    },
    routes: [
      { to: '0.0.0.0/0', via: '203.0.113.254' },
      { to: '::/0', via: '2001:db8:ffff::fe' },
      { to: '10.0.0.0/8', via: '192.168.1.2' },
      { to: '2001:db8:1000::/48', via: '2001:db8:1::2' },
    ],
    neighbors: [
      { port: 'wan', ip: '203.0.113.254', mac: mac(PROVIDER_MAC) },
      { port: 'wan', ip: '2001:db8:ffff::fe', mac: mac(PROVIDER_MAC) },
      { port: 'lan', ip: '192.168.1.2', mac: mac(INNER_MAC) },
      { port: 'lan', ip: '2001:db8:1::2', mac: mac(INNER_MAC) },
    ],
    zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
    nat: { masquerade: [{ out: 'wan', from: '10.0.0.0/8' }] },
  });
  // Sizes above what a configuration file may ask for: these are measurements.
  config.conntrack.max = options.flows + 1024;
  config.offload.mode = options.engine ? 'on' : 'off';
  config.offload.entries = options.engine ? 2 * options.flows : 0;
  return config;
}

/** Bytes on the ground for each port of a worker. */
function roomOf(options: WorldOptions): number {
  return Math.ceil(MasterPort.room(options.flows) / CACHE_LINE) * CACHE_LINE;
}

/** The tables, configured. Call it once per process; threads attach to what it returns. */
export function openWorld(options: WorldOptions): { buffers: TableBuffers; hugeBytes: number } {
  exactLead();
  inlineStages();
  const config = worldConfig(options);
  const module = compiledBurst();
  const buffers = createTables(
    {
      ...DEFAULT_SIZES,
      connections: config.conntrack.max,
      flows: config.offload.entries,
      workers: options.workers,
    },
    1,
    module === null ? null : { module, ...ARENA, room: 2 * options.workers * roomOf(options) },
  );
  const hugeBytes = options.huge ? takeMemory(buffers) : 0;
  // The main thread's own row of the counters.
  const tables = new Tables(buffers, options.workers);
  const outlet = { send: () => {}, output: () => {} };
  new Control(tables, config, outlet, { quiet: true, log: () => {} });
  return { buffers, hugeBytes };
}

/** Nothing is for the control plane here: whatever is punted is a fault that `check` finds. */
class NoPunt implements Punt {
  frame(): boolean {
    return true;
  }
  resolve(): void {}
  used(): void {}
}

export interface Measured {
  packets: number;
  seconds: number;
}

/** One thread's share of the world: a path, its two ports, and its flows first … first + count − 1. */
export class Station {
  readonly tables: Tables;
  readonly path: Path;
  readonly lan: MasterPort;
  readonly wan: MasterPort;
  readonly count: number;
  private readonly options: WorldOptions;

  constructor(buffers: TableBuffers, options: WorldOptions, worker = 0, first = 0, count = options.flows) {
    exactLead();
    this.options = options;
    this.count = count;
    this.tables = new Tables(buffers, worker);
    const room = (side: number): Room | null => {
      const module = compiledModule('bench/compiled/generator');
      const { ground } = buffers;
      if (ground === null || module === null) return null;
      return { ground, module, at: ground.room + (2 * worker + side) * roomOf(options) };
    };
    this.lan = new MasterPort('lan', 0, count, options.family, room(0));
    this.wan = new MasterPort('wan', 1, count, options.family, room(1));
    const ports: (Port | null)[] = [this.lan, this.wan];
    this.path = new Path(this.tables, this.arena(buffers, worker), ports, new NoPunt(), {
      seed: 1 + worker,
      shared: options.workers > 1,
      offload: options.engine ? { programAfter: 2, rate: 0, inspectFirst: 0, verify: false, fault: 0 } : null,
    });
    this.fill(first);
  }

  private arena(buffers: TableBuffers, worker: number): LiveFrames {
    return buffers.ground === null ? liveArena(ARENA.small, ARENA.large) : groundArena(buffers.ground, worker);
  }

  private fill(first: number): void {
    const { family } = this.options;
    const client = {
      address: family === 4 ? [10, 0, 0, 0] : [0x20, 1, 0xd, 0xb8, 0x10, ...new Array(11).fill(0)],
      port: 0,
    };
    const server = {
      address: family === 4 ? [198, 18, 0, 0] : [0x20, 1, 0xd, 0xb8, 0x20, ...new Array(11).fill(0)],
      port: 4433,
    };
    const seen = family === 4 ? { address: [203, 0, 113, 1], port: 0 } : client;
    const at = family === 4 ? 1 : 13;
    for (let n = 0; n < this.count; n++) {
      const flow = first + n;
      const host = flow % 50_021;
      const far = Math.floor(flow / PORTS) + 1;
      client.address[at] = 1 + (host >> 16);
      client.address[at + 1] = (host >> 8) & 0xff;
      client.address[at + 2] = host & 0xff;
      server.address[at] = 18 + (far >> 16);
      server.address[at + 1] = (far >> 8) & 0xff;
      server.address[at + 2] = far & 0xff;
      client.port = seen.port = 2048 + (flow % PORTS);
      writeUdp(this.lan, n, LAN_MAC, INNER_MAC, client, server);
      writeUdp(this.wan, n, WAN_MAC, PROVIDER_MAC, server, seen);
    }
  }

  /** Plays the master of one side once. Returns seconds. */
  round(port: MasterPort): number {
    port.rewind();
    port.left = this.count;
    const other = port === this.lan ? this.wan : this.lan;
    other.left = 0;
    const sent = other.sent;
    const begin = performance.now();
    while (port.left > 0) this.path.turn();
    const seconds = (performance.now() - begin) / 1000;
    if (other.sent - sent !== this.count) this.fail(`${this.count} frames to leave ${other.name}`, other.sent - sent);
    return seconds;
  }

  /** Makes every connection and, with the engine, every entry; the clock stands still meanwhile. */
  establish(): void {
    this.round(this.lan);
    this.round(this.wan);
    for (let rounds = 0; rounds < 8; rounds++) {
      const hits = this.hits;
      this.round(this.lan);
      this.round(this.wan);
      if (!this.options.engine || this.hits - hits === 2 * this.count) return;
    }
    this.fail('every packet to hit the engine after eight rounds', 'fewer');
  }

  /** Throws unless the tables hold exactly the connections and entries of all stations together. */
  verify(): void {
    const { flows, engine } = this.options;
    if (this.tables.conntrack.count !== flows) this.fail(`${flows} connections`, this.tables.conntrack.count);
    const entries = this.tables.flows?.count ?? 0;
    if (engine && entries !== 2 * flows) this.fail(`${2 * flows} engine entries`, entries);
    this.verifyDrops();
  }

  private verifyDrops(): void {
    const { counters } = this.tables;
    for (let n = 0; n < REASONS.length; n++)
      if (counters[C_DROPS + n] !== 0) this.fail('no drops', `${counters[C_DROPS + n]} of reason ${n}`);
  }

  shuffle(): void {
    this.lan.shuffle(0x1234567);
    this.wan.shuffle(0x7654321);
  }

  get hits(): number {
    return this.tables.counters[C_ENGINE + EX_HITS];
  }

  /**
   * Runs both directions for some time and checks what came of it. The clock moves as in a live worker, so that aging and
   * the engine's harvest do their work; with `still` it stands, and they do none.
   */
  run(milliseconds: number, still = false): Measured {
    const { path, lan, wan, tables } = this;
    const control = tables.control;
    const received = tables.counters[C_RECEIVED];
    const hits = this.hits;
    const sent = lan.sent + wan.sent;
    const begin = performance.now();
    const zero = begin - control[CLOCK];
    let now = begin;
    while (now - begin < milliseconds) {
      lan.left = ENDLESS;
      wan.left = ENDLESS;
      for (let n = 0; n < 16; n++) {
        now = performance.now();
        if (!still) control[CLOCK] = (now - zero) | 0;
        path.turn();
      }
    }
    const seconds = (performance.now() - begin) / 1000;
    const packets = tables.counters[C_RECEIVED] - received;
    if (lan.sent + wan.sent - sent !== packets) this.fail(`${packets} frames to leave`, lan.sent + wan.sent - sent);
    if (this.options.engine && this.hits - hits !== packets) this.fail(`${packets} hits`, this.hits - hits);
    this.verifyDrops();
    return { packets, seconds };
  }

  /** The same for a number of turns with a clock that counts turns: nothing but the path runs. Returns packets. */
  turns(count: number): number {
    const { path, lan, wan, tables } = this;
    const control = tables.control;
    const received = tables.counters[C_RECEIVED];
    for (let n = 0; n < count; n++) {
      if ((n & 1023) === 0) {
        control[CLOCK]++;
        lan.left = ENDLESS;
        wan.left = ENDLESS;
      }
      path.turn();
    }
    return tables.counters[C_RECEIVED] - received;
  }

  private fail(expected: string, got: string | number): never {
    throw new Error(`bench world (${this.count} flows): expected ${expected}, got ${got}`);
  }
}
