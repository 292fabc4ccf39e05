/**
 * Router: the whole router in one thread, with a virtual clock. For tests, embedding, replay and the browser.
 *
 * The same path and the same tables as in live mode; ports are memory, time passes only by `advance`. Deterministic:
 * the same configuration, seed and frames give the same frames. Nothing is sent unasked unless `unasked` is set.
 */
import { conntrackJson, conntrackLine } from '../conntrack/format.ts';
import { CT_F64, CT_WORDS } from '../conntrack/record.ts';
import { isCompilable } from '../dataplane/fastpath.ts';
import { Frames, META_LEN, META_OFF, META_WORDS } from '../dataplane/frames.ts';
import { groundFrames } from '../dataplane/ground.ts';
import { Path, type Punt } from '../dataplane/path.ts';
import { compiledBurst } from '../dataplane/ports/compiled.ts';
import { FaultPort } from '../dataplane/ports/fault.ts';
import { MemoryPort } from '../dataplane/ports/memory.ts';
import type { Port } from '../dataplane/ports/port.ts';
import { createRing, RingReader, RingWriter } from '../dataplane/rings.ts';
import { CLOCK, createTables, DEFAULT_SIZES, Tables } from '../dataplane/tables.ts';
import { Watch, WatchSwitch } from '../dataplane/watch.ts';
import { createWatchBlock, WATCH_RING } from '../dataplane/watch-block.ts';
import { type Applied, applyConfig } from './apply/index.ts';
import type { CaptureSession } from './capture/session.ts';
import { type CaptureFilter, Watchers } from './capture/watchers.ts';
import { quote } from './config/errors.ts';
import { type Config, normalizeConfig, parseConfig } from './config/index.ts';
import { Control } from './control.ts';
import { DOMAINS, type DomainName } from './domain.ts';
import { type Explanation, explainFlow, explainFrames } from './explain/explain.ts';
import { parseFlow } from './explain/flow.ts';
import { faultOptions } from './faults.ts';
import { engineOptions, type Mismatch, OffloadApi } from './offload.ts';
import type { Event } from './protocol.ts';
import { FAREWELLS, STOPPING } from './protocol.ts';
import { seededRandom } from './random.ts';
import { type Counters, readCounters } from './show/counters.ts';
import { expectLines } from './show/expect.ts';
import { neededSizes } from './table-sizes.ts';

export interface RouterOptions {
  /** Seed of the hash, of port choice and of identifiers. Default 1: repeatable. */
  seed?: number;
  /** Send DAD, gratuitous ARP, probes and other things that nobody asked for. Default false. */
  unasked?: boolean;
  /** Where messages for people go. Default: nowhere. */
  log?: (level: 'info' | 'warn', message: string) => void;
  /** Slots for ordinary frames and for super-frames. */
  slots?: { small: number; large: number };
  /** False: the fast path's passes are JavaScript alone, without their compiled form (dataplane/compiled/). Default true. */
  compiled?: boolean;
  /** Makes the engine wrong on purpose (FAULT_* of dataplane/shadow.ts): proves that verify notices. Tests only. */
  engineFault?: number;
  /** Verify mode judges what an engine behind the flow table shows, which the caller has put there. Tests only. */
  engineBehind?: boolean;
  /**
   * Sees the first `offload.inspect-first` packets of every connection before the engine may have it (parental control,
   * content filters): false keeps the connection on the slow path for good. The bytes are valid during the call only.
   */
  inspect?: (seen: { packet: Uint8Array; port: number; reply: boolean }) => boolean;
  /** Called with both frames when verify has found a difference (controlplane/offload.ts writes them to a file). */
  mismatch?: (mismatch: Mismatch, milliseconds: number) => void;
  /** Replaces a port's memory port by another (wrappers, capture files). */
  port?: (name: string, number: number, inner: MemoryPort) => Port;
}

/** What the connection table looks like from outside. */
export interface ConntrackView {
  /** Connections now. */
  readonly count: number;
  /** One line per connection, as `conntrack -L` prints it. */
  lines(): string[];
  list(): ReturnType<typeof conntrackJson>[];
}

const STEP = 1000;

export class Router {
  readonly tables: Tables;
  readonly control: Control;
  readonly frames: Frames;
  /** Switches, multicast entries and flushes of the offload engine. */
  readonly offload: OffloadApi;
  /** The wrappers of ports with `fault`: what they did, `setRates` for other rates. */
  readonly faults: readonly FaultPort[];
  private readonly memory: MemoryPort[] = [];
  private readonly byName = new Map<string, number>();
  private pending: Event[] = [];
  private readonly own: Path;
  private paths: WatchSwitch | null = null;
  private watchers: Watchers | null = null;

  constructor(config: Config, options: RouterOptions = {}) {
    const seed = options.seed ?? 1;
    const offload = config.offload.mode !== 'off' && config.offload.entries > 0;
    const sizes = {
      ...DEFAULT_SIZES,
      ...neededSizes(config),
      connections: config.conntrack.max,
      flows: offload ? config.offload.entries : 0,
      cachedFlows: offload ? config.offload.flowCacheEntries : 0,
      workers: 1,
    };
    const { small = 2048, large = 64 } = options.slots ?? {};
    const engine = engineOptions(config.offload, options.engineFault ?? 0, options.engineBehind);
    const compilable = offload && options.compiled !== false && isCompilable(engine, sizes.cachedFlows);
    const module = compilable ? compiledBurst() : null;
    const buffers = createTables(sizes, seed, module === null ? null : { module, small, large });
    this.tables = new Tables(buffers, 0);
    this.frames = new Frames(small, large, buffers.ground === null ? undefined : groundFrames(buffers.ground, 0));
    const ports: (Port | null)[] = [];
    for (const port of config.ports) {
      const inner = new MemoryPort(port.name, port.number);
      this.memory[port.number] = inner;
      this.byName.set(port.name, port.number);
      if (port.parent >= 0) {
        ports[port.number] = null;
        continue;
      }
      const device = options.port?.(port.name, port.number, inner) ?? inner;
      ports[port.number] = port.fault === null ? device : new FaultPort(device, faultOptions(port.fault));
    }
    this.faults = ports.filter((port) => port instanceof FaultPort);
    this.own = new Path(this.tables, this.frames, ports, this.punt(), {
      seed,
      shared: false,
      offload: engine,
    });
    const { fast } = this.own;
    const { inspect, mismatch } = options;
    if (fast !== null && inspect !== undefined)
      fast.policy.inspect = (p, u8) => inspect({ packet: u8.subarray(p.l3, p.end), port: p.port, reply: p.dir !== 0 });
    if (fast !== null && fast.shadow !== null && mismatch !== undefined)
      fast.shadow.onMismatch = (what, engine, slow) => mismatch({ what, engine, slow }, this.tables.now());
    this.offload = new OffloadApi(this.tables, config);
    this.control = new Control(
      this.tables,
      config,
      { send: (port, frame) => this.send(port, frame), output: (packet, scope) => this.output(packet, scope) },
      // Virtual time begins in 1970, so that a log is the same each time.
      { quiet: !options.unasked, log: options.log ?? (() => {}), wall: (clock) => clock, random: seededRandom(seed) },
    );
  }

  /** The path that packets walk: its own, or the same one observed while somebody watches. */
  get path(): Path {
    return this.paths?.current() ?? this.own;
  }

  /** What the path punts is copied and handled once the burst is done: the control plane may send in return. */
  private punt(): Punt {
    return {
      frame: (frames, slot, port, etherType, l3) => {
        const m = slot * META_WORDS;
        const start = frames.meta[m + META_OFF];
        const frame = frames.u8.slice(start, start + frames.meta[m + META_LEN]);
        this.pending.push({ kind: 'frame', port, frame, etherType, l3 });
        return true;
      },
      resolve: (port, family, a0, a1, a2, a3) => {
        this.pending.push({ kind: 'resolve', port, family: family as 4 | 6, address: [a0, a1, a2, a3] });
      },
      used: (neighbour) => {
        this.pending.push({ kind: 'used', neighbour });
      },
    };
  }

  private send(port: number, frame: Uint8Array): void {
    const slot = this.frames.alloc(frame.length);
    if (slot < 0) return;
    const m = slot * META_WORDS;
    this.frames.u8.set(frame, this.frames.meta[m + META_OFF]);
    this.frames.meta[m + META_LEN] = frame.length;
    this.path.send(slot, port);
  }

  private output(packet: Uint8Array, scope: number): void {
    const slot = this.frames.alloc(packet.length + 14);
    if (slot < 0) return;
    const m = slot * META_WORDS;
    this.frames.u8.set(packet, this.frames.meta[m + META_OFF] + 14);
    this.frames.meta[m + META_LEN] = packet.length + 14;
    this.path.output(slot, packet[0] >> 4, true, scope);
  }

  /** The configuration in force. */
  get config(): Config {
    return this.control.config;
  }

  /**
   * Puts another configuration in force; sessions go on where it lets them (docs/configuration.md). Returns what has
   * changed; when `refused` is not empty nothing has.
   * @throws ConfigError with every problem of the configuration
   */
  apply(config: unknown): Applied {
    const next = typeof config === 'string' ? parseConfig(config, 'configuration') : normalizeConfig(config);
    // There is one reader, this thread, and it reads nothing now.
    this.control.reclaim();
    const applied = applyConfig(this.control, next);
    this.control.reclaim();
    this.control.tick();
    this.run();
    return applied;
  }

  private portNumber(name: string): number {
    const port = this.byName.get(name);
    if (port === undefined)
      throw new RangeError(`port: expected one of ${[...this.byName.keys()].join(', ')}, got "${name}"`);
    return port;
  }

  // --- the embedding interface -----------------------------------------------------------------------------------------

  /**
   * Puts a frame (Ethernet, no FCS) on a port and lets the router work until it has nothing more to do at this instant.
   * `seconds`, `nanoseconds`: its time stamp, kept beside it.
   * @throws RangeError for an unknown port, TypeError for what is no bytes
   */
  inject(port: string, frame: Uint8Array, seconds = 0, nanoseconds = 0): void {
    this.memory[this.portNumber(port)].push(checkedFrame(frame), seconds, nanoseconds);
    this.run();
  }

  /** Frames that left a port since the last `take`, in order. */
  take(port: string): Uint8Array[] {
    return this.memory[this.portNumber(port)].take();
  }

  /** The memory behind a port: its queues, with time stamps and offload metadata. */
  port(name: string): MemoryPort {
    return this.memory[this.portNumber(name)];
  }

  /** Virtual milliseconds since start. */
  get now(): number {
    return this.tables.now();
  }

  /** Lets virtual time pass: timers fire in their order, on their time. @throws RangeError for what is no time */
  advance(milliseconds: number): void {
    if (!Number.isFinite(milliseconds))
      throw new RangeError(`advance: expected a number of milliseconds, got ${quote(milliseconds)}`);
    let left = Math.max(0, Math.floor(milliseconds));
    while (left > 0) {
      const next = this.control.next();
      const step = Math.min(left, next < 0 ? left : Math.max(1, next), next < 0 ? left : STEP);
      left -= step;
      this.tables.control[CLOCK] = (this.tables.control[CLOCK] + step) | 0;
      if (this.control.next() === 0 || left === 0) this.control.tick();
      this.run();
      // A turn a millisecond, as of an idle worker: so that nothing is held for ever.
      for (let turns = 1; turns < step && this.faults.some((port) => port.holds); turns++) this.run();
    }
    this.expire();
  }

  /** Looks at every connection that has come up for aging. */
  private expire(): void {
    this.path.fast?.harvestAll(this.now);
    while (this.path.tracker.aging.turn(this.now, 4096) >= 4096);
    this.tables.natMappings.sweep(this.now, this.tables.natMappings.capacity);
    this.control.reclaim();
    this.control.blockLog.drain();
  }

  private run(): void {
    for (let rounds = 0; rounds < 1000; rounds++) {
      const received = this.path.turn();
      if (received === 0 && this.pending.length === 0) break;
      const events = this.pending;
      this.pending = [];
      for (const event of events) this.control.handle(event);
      this.path.housekeeping();
      this.path.flush();
    }
    this.watchers?.drain();
  }

  /** Makes a domain of the control plane anew: `ipv4`, `ipv6` or `management` (docs/architecture.md). @throws RangeError */
  restart(domain: DomainName): void {
    if (!DOMAINS.includes(domain))
      throw new RangeError(`restart: expected one of ${DOMAINS.join(', ')}, got ${quote(domain)}`);
    this.control.domains.restart(domain);
    this.run();
  }

  /**
   * Ends it as a live router ends by SIGTERM: hosts hear that it is a router no more, leases are given back where the
   * configuration says so. What it then sends is in `take`.
   */
  stop(): void {
    for (let n = 0; n < FAREWELLS; n++) {
      this.control.handle(STOPPING);
      this.run();
    }
  }

  /** Takes a port down or up. */
  setLink(port: string, up: boolean): void {
    this.control.setLink(this.portNumber(port), up);
    this.run();
  }

  readonly conntrack: ConntrackView = this.conntrackView();

  /** What the helpers expect. */
  readonly expectations: { readonly count: number; lines(): string[] } = this.expectView();

  private expectView(): { readonly count: number; lines(): string[] } {
    const lines = () => expectLines(this.tables);
    return {
      get count() {
        return lines().length;
      },
      lines,
    };
  }

  private conntrackView(): ConntrackView {
    const each = <T>(use: (index: number) => T): T[] => {
      this.path.fast?.harvestAll(this.now);
      const table = this.tables.conntrack;
      const out: T[] = [];
      for (let index = 0; index < table.highWater; index++) if (table.inUse(index, this.now)) out.push(use(index));
      return out;
    };
    const count = () => this.tables.conntrack.count;
    return {
      get count() {
        return count();
      },
      lines: () =>
        each((index) => {
          const t = this.tables.conntrack;
          return conntrackLine(t.words, t.words6, t.doubles, index, this.now, {});
        }),
      list: () =>
        each((index) => {
          const t = this.tables.conntrack;
          return conntrackJson(t.words, t.words6, t.doubles, index, this.now);
        }),
    };
  }

  /**
   * What the router would do with a frame received on a port, stage by stage, and why; nothing changes and nothing is sent
   * (docs/explain.md).
   * @throws RangeError for an unknown port, TypeError for what is no bytes
   */
  explain(port: string, frame: Uint8Array): Explanation {
    return explainFrames(this, port, [checkedFrame(frame)]).packets[0];
  }

  /** The same for the packet that opens a flow, or its next one: `tcp 192.168.1.10:4000 > 198.51.100.7:443`. */
  explainFlow(flow: string, port?: string): Explanation {
    return explainFlow(this, parseFlow(flow), port).packets[0];
  }

  /** Captures, traces and times of stages: the same as a live router's (docs/explain.md). Costs nothing until it is used. */
  get watch(): Watchers {
    if (this.watchers !== null) return this.watchers;
    const block = createWatchBlock();
    const ring = createRing(WATCH_RING);
    // Time is the router's own, from 1970 on, so that a capture is the same each time.
    const watch = new Watch(this.frames, this.tables, block, new RingWriter(ring), () => this.now);
    this.paths = new WatchSwitch(this.own, watch, block);
    this.watchers = new Watchers(
      () => this.control.config,
      block,
      [new RingReader(ring)],
      () => {},
    );
    return this.watchers;
  }

  /** Traces the next packets that a stage has to do with; `router.watch.traces` has them. @throws RangeError */
  trace(stage: string, packets: number): void {
    this.watch.trace(stage, packets);
  }

  /** Starts a capture; `read()` of what is returned gives pcapng. @throws RangeError */
  capture(filter: CaptureFilter = {}): CaptureSession {
    return this.watch.capture(filter);
  }

  /** Counters: received = forwarded + delivered + consumed + dropped + held; drops by reason; ports. */
  get counters(): Counters {
    return readCounters(this.tables, this.config);
  }
}

/** Programs in JavaScript have no compiler to tell them. Bytes of another realm (a test's sandbox) are bytes as well. */
function checkedFrame(frame: Uint8Array): Uint8Array {
  if (ArrayBuffer.isView(frame) && frame.BYTES_PER_ELEMENT === 1) return frame;
  throw new TypeError(`frame: expected a Uint8Array with an Ethernet frame, got ${quote(frame)}`);
}

/**
 * A router in this thread, with a virtual clock: the embedding interface.
 * @param config an object, or YAML or JSON text, of configuration version 1 (docs/configuration.md)
 * @throws ConfigError with every problem of the configuration
 */
export function createRouter(config: unknown, options: RouterOptions = {}): Router {
  const read = typeof config === 'string' ? parseConfig(config, 'configuration') : normalizeConfig(config);
  return new Router(read, options);
}

if (CT_WORDS !== 2 * CT_F64) throw new Error('conntrack/record.ts: expected two words per double');
