/**
 * Supervisor: a live router. It opens the devices, runs the packet workers and the control plane's domains, and is the
 * thread of Control.
 *
 *   domains (domain-host.ts)                 worker 0 … N − 1 (piscina, one endless task each)
 *   Domain  ── inject ring + eventfd ──────→ path.send, path.output
 *           ←── punt ring + bell ─────────── frames for ARP, ND, echo …; wanted and used neighbours
 *     ↕ messages                               ↕
 *   main thread                              the same two rings: frames for DNS, and from and to ports of kind host
 *   Control ═══════════ tables in shared memory ═══════════
 *
 * A worker whose task ends by an exception is replaced: locks that it held are broken, half-made entries taken out, and
 * the same task is submitted again; its queues stand open meanwhile, and all connections are in shared memory. The
 * control plane keeps no timers of its own: `next` of its protocols says when to tick them.
 */
import { randomInt } from 'node:crypto';
import { Piscina } from 'piscina';
import { Aging } from '../../conntrack/aging.ts';
import { CT_HELPER, CT_WORDS } from '../../conntrack/record.ts';
import { MAX_WORKERS } from '../../conntrack/table.ts';
import { NO_BUFFER } from '../../dataplane/drop.ts';
import { isCompilable } from '../../dataplane/fastpath.ts';
import { Frames, META_LEN, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { createHandover } from '../../dataplane/handover.ts';
import {
  BELL,
  createLive,
  FAULT,
  LP_RENEW,
  LW_CIRCLES,
  LW_GONE,
  LW_RENEW,
  LW_STATE,
  portAt,
  WORKER_DEAD,
  WORKER_RUNNING,
  workerAt,
} from '../../dataplane/live.ts';
import { mapArena } from '../../dataplane/ports/arena.ts';
import { compiledBurst } from '../../dataplane/ports/compiled.ts';
import { inlineStages } from '../../dataplane/ports/compiler.ts';
import { exactLead } from '../../dataplane/ports/hugepages.ts';
import type { KernelEngine } from '../../dataplane/ports/kernel-engine.ts';
import { linkDetails } from '../../dataplane/ports/links.ts';
import { monotonic } from '../../dataplane/ports/monotonic.ts';
import { closeWaker, openWaker, wake } from '../../dataplane/ports/poller.ts';
import type { PortCounters } from '../../dataplane/ports/port.ts';
import { type IoBackend, openGroup } from '../../dataplane/ports/uring.ts';
import {
  createRing,
  INJECT_OUTPUT,
  INJECT_RECEIVE,
  INJECT_SEND,
  PUNT_FRAME,
  PUNT_RESOLVE,
  PUNT_TRANSMIT,
  PUNT_USED,
  RingReader,
  RingWriter,
} from '../../dataplane/rings.ts';
import {
  C_DROPS,
  C_MADE,
  C_RECEIVED,
  CLOCK,
  createTables,
  DEFAULT_SIZES,
  STOP,
  Tables,
} from '../../dataplane/tables.ts';
import { createWatchBlock, WATCH_RING } from '../../dataplane/watch-block.ts';
import type { WorkerTask } from '../../dataplane/worker.ts';
import { type Applied, applyConfig } from '../apply/index.ts';
import { Watchers } from '../capture/watchers.ts';
import type { Config } from '../config/index.ts';
import { Control, type Mark } from '../control.ts';
import type { DomainName } from '../domain.ts';
import { engineOptions } from '../offload.ts';
import { type Event, FAREWELLS, STOPPING } from '../protocol.ts';
import { reasonOf } from '../reason.ts';
import type { RemoteFactory } from '../remote-domain.ts';
import { neededSizes } from '../table-sizes.ts';
import { checkKinds, closeDevice, type Device, isReplaced, tryFiles } from './devices.ts';
import { DomainHost } from './domain-host.ts';
import { Tries } from './heal.ts';
import {
  announceHostPort,
  closeHostPort,
  HOST_DEVICE,
  type HostPort,
  isPrivate,
  openHostPort,
  readdressHostPort,
  withdrawHostPort,
} from './hostport.ts';
import { openWithEngine } from './kernel.ts';
import { type DeviceState, GONE, LinkPace, lookByName, TapLink } from './links.ts';
import { takeMemory } from './memory.ts';
import { MirrorNews } from './mirrors.ts';
import { EventScript } from './script.ts';

export type Log = (level: 'info' | 'warn', message: string) => void;

export interface SupervisorOptions {
  log?: Log;
  /** Make sluice0. Default: when root. */
  hostPort?: boolean;
  io?: IoBackend;
}

/** Frame slots of one worker. Large ones take memory only once they are used. */
const ARENA = { small: 8192, large: 512 };
/** Records taken from one ring before the other rings, timers and sockets have their turn. */
const PUNT_BURST = 256;
const HOST_POLL_MS = 2;
/** Housekeeping: while something waits for it, and else (well below a domain's HANG_MS: DomainHost.watch). */
const HOUSEKEEPING_MS = 1000;
const IDLE_HOUSEKEEPING_MS = 2000;
const FAREWELL_PAUSE_MS = 40;
/** A domain that does not answer is not waited for any longer. */
const FAREWELL_WAIT_MS = 1000;
/** Wait before a worker that keeps dying is started again: doubles from the first to the last. */
const FIRST_PAUSE_MS = 10;
const LAST_PAUSE_MS = 5000;
/** A worker that has run for so long is healthy again. */
const HEALTHY_MS = 60_000;

/** The worker is JavaScript made by the build, also when this file is run from source by a test. */
const WORKER_FILE = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/dataplane/worker.js', import.meta.url)
  : new URL('../../dataplane/worker.js', import.meta.url);

/** ES2024, and in V8 since 8.7: the declarations that this project is compiled with do not know it yet. */
const { waitAsync } = Atomics as unknown as {
  waitAsync(
    words: Int32Array,
    index: number,
    value: number,
  ): { async: false } | { async: true; value: Promise<'ok' | 'timed-out'> };
};

interface Watch {
  port: number;
  name: string;
  ifname: string;
  /** Null: sluice0, which is not made again. */
  device: Device | null;
  look: () => DeviceState;
  last: DeviceState;
  /** Of opening it again, when it was deleted. */
  tries: Tries;
  /** It was told that it cannot be opened. */
  failed: boolean;
  close: () => void;
}

/** What the main thread has of one worker. */
interface WorkerEnd {
  task: WorkerTask;
  punt: RingReader;
  inject: RingWriter;
  /** Deaths in a row, and when it was started last. */
  deaths: number;
  started: number;
  restarts: number;
}

export class Supervisor {
  readonly workers: number;
  /** The main thread's view of the tables. */
  readonly tables: Tables;
  readonly control: Control;
  readonly live: Int32Array;
  /** Captures, traces, times of stages. */
  readonly watch: Watchers;
  /** Settles when the router has stopped. */
  readonly stopped: Promise<void>;
  private readonly log: Log;
  private readonly devices: Device[];
  /** The kernel engine, when it forwards. */
  readonly kernel: KernelEngine | null;
  private hostPort: HostPort | null;
  private readonly ends: WorkerEnd[] = [];
  private readonly hosts: DomainHost[] = [];
  private readonly pool: Piscina;
  private readonly clock = monotonic();
  private readonly startedAt: number;
  private readonly watches: Watch[] = [];
  private readonly pace = new LinkPace(() => this.pollLinks());
  private readonly timers: NodeJS.Timeout[] = [];
  private readonly running: Promise<void>[] = [];
  /** Each ends the rest of a worker that keeps dying. */
  private readonly rests = new Set<() => void>();
  /** Frames of host ports on their way between libpcap and the rings. */
  private readonly hostFrames: Frames | null;
  private tickTimer: NodeJS.Timeout | null = null;
  private tickAt = 0;
  private keeper: NodeJS.Timeout | null = null;
  private keeperAt = 0;
  private devicesGone = 0;
  private readonly mirrors: MirrorNews;
  private stopping = false;
  /** Hosts are being told that the router ends. */
  private leaving = false;
  private settle: () => void = () => {};
  private neighbourEpoch = 0;
  private mark: { circles: number[]; mark: Mark } | null = null;
  private applying: Promise<unknown> = Promise.resolve();
  private failures = 0;

  /** Opens everything and starts. Errors: IoError, LiveError; then nothing is left open. */
  static async start(config: Config, options: SupervisorOptions = {}): Promise<Supervisor> {
    checkKinds(config);
    const log = options.log ?? (() => {});
    // The main thread has a row of its own in the tables.
    const workers = Math.min(config.workers, MAX_WORKERS - 1);
    tryFiles(config, workers);
    const { kernel, devices } = await openWithEngine(config, workers, options.io === 'bpf', log);
    let hostPort: HostPort | null = null;
    if (options.hostPort ?? process.getuid?.() === 0)
      try {
        hostPort = openHostPort(config, workers);
        for (const port of config.ports)
          if (port.addresses.length > 0 && !isPrivate(config, port))
            log(
              'info',
              `ports.${port.name}: programs on this host cannot use its addresses, as the host kernel shares its device`,
            );
      } catch (error) {
        log('warn', `${(error as Error).message}; programs on this host cannot use the router's addresses`);
      }
    try {
      // An io_uring that is demanded and cannot be had is said here, not by every worker.
      openGroup(options.io ?? 'auto')?.close();
      const supervisor = new Supervisor(config, workers, devices, hostPort, kernel, options);
      try {
        supervisor.begin();
      } catch (error) {
        supervisor.pace.close();
        throw error;
      }
      return supervisor;
    } catch (error) {
      kernel?.close();
      for (const device of devices) closeDevice(device);
      if (hostPort !== null) closeHostPort(hostPort);
      throw error;
    }
  }

  private constructor(
    config: Config,
    workers: number,
    devices: Device[],
    hostPort: HostPort | null,
    kernel: KernelEngine | null,
    options: SupervisorOptions,
  ) {
    this.kernel = kernel;
    this.workers = workers;
    this.devices = devices;
    this.hostPort = hostPort;
    this.log = options.log ?? (() => {});
    this.stopped = new Promise((resolve) => {
      this.settle = resolve;
    });
    const seed = randomInt(-0x80000000, 0x7fffffff);
    const { offload } = config;
    const engine = offload.mode !== 'off' && offload.entries > 0;
    const sizes = {
      ...DEFAULT_SIZES,
      ...neededSizes(config),
      connections: config.conntrack.max,
      flows: engine ? offload.entries : 0,
      cachedFlows: engine ? offload.flowCacheEntries : 0,
      workers,
    };
    exactLead();
    inlineStages();
    const switches = engineOptions(offload, 0, kernel !== null);
    const compilable = engine && isCompilable(switches, sizes.cachedFlows);
    const module = compilable ? compiledBurst() : null;
    const buffers = createTables(sizes, seed, module === null ? null : { module, ...ARENA });
    if (compilable && buffers.ground === null)
      this.log('warn', 'offload: expected the compiled burst, got none; the engine runs in JavaScript: npm run build');
    takeMemory(buffers);
    this.tables = new Tables(buffers, workers);
    this.adoptDeletions();
    const live = createLive();
    this.live = new Int32Array(live);
    this.mirrors = new MirrorNews(this.live, this.log);
    this.startedAt = this.clock();
    const wakers = Array.from({ length: workers }, () => openWaker());
    const peers = workers > 1 ? { rings: createHandover(workers), wakers } : null;
    this.hostFrames = devices.some((device) => device.host !== null) ? new Frames(512, 4) : null;
    const watchBlock = createWatchBlock();
    const watchRings = Array.from({ length: workers }, () => createRing(WATCH_RING));
    const rooms = ([4, 6] as const).map((family) => ({
      family,
      punts: Array.from({ length: workers }, () => createRing()),
      inject: createRing(),
    }));
    for (let worker = 0; worker < workers; worker++) {
      const ports = [...devices.map((device) => device.tasks[worker]), ...(hostPort ? [hostPort.tasks[worker]] : [])];
      const task: WorkerTask = {
        worker,
        workers,
        buffers,
        live,
        punt: createRing(),
        inject: createRing(),
        // Domains speak by way of the first worker.
        domains: rooms.map(({ family, punts, inject }) => ({
          family,
          punt: punts[worker],
          inject: worker === 0 ? inject : createRing(0x1000),
        })),
        waker: wakers[worker],
        peers,
        ports,
        arena: { ...ARENA, base: buffers.ground === null ? mapArena(ARENA.small, ARENA.large) : -1 },
        seed: seed ^ Math.imul(worker + 1, 0x9e3779b1),
        startedAt: this.startedAt,
        io: options.io ?? 'auto',
        offload: switches,
        kernel: kernel?.task ?? null,
        watch: { block: watchBlock, ring: watchRings[worker] },
      };
      this.mirrors.add(task);
      this.ends.push({
        task,
        punt: new RingReader(task.punt),
        inject: new RingWriter(task.inject),
        deaths: 0,
        started: 0,
        restarts: 0,
      });
    }
    const rings = watchRings.map((ring) => new RingReader(ring));
    this.watch = new Watchers(
      () => this.control.config,
      watchBlock,
      rings,
      () => {
        this.kernel?.leave(this.watch.wanted);
        this.wakeAll();
      },
    );
    const first = this.ends[0];
    const hook = config.gateway?.script ?? '';
    const script = hook === '' ? null : new EventScript(hook, this.log);
    const remote: RemoteFactory = (family, events) => {
      const room = rooms.find((one) => one.family === family)!;
      const host = new DomainHost(
        { ...room, buffers, row: workers, live, wakers, startedAt: this.startedAt, follow: kernel !== null },
        {
          heard: (message) => this.turn(() => events.heard(message)),
          failed: (reason) => {
            kernel?.noteAll();
            this.turn(() => events.failed(reason));
          },
        },
      );
      this.hosts.push(host);
      return host;
    };
    this.control = new Control(
      this.tables,
      config,
      {
        send: (port, frame) => this.inject(first, INJECT_SEND, port, frame),
        output: (packet, scope) => this.inject(first, INJECT_OUTPUT, scope, packet),
      },
      {
        quiet: false,
        contain: true,
        remote,
        log: this.log,
        ...(script === null ? {} : { tell: (told) => script.tell(told) }),
      },
    );
    kernel?.follow(this.tables);
    if (hostPort !== null) announceHostPort(this.tables, hostPort, Math.min(...config.ports.map((port) => port.mtu)));
    this.pool = new Piscina({
      filename: WORKER_FILE.href,
      minThreads: workers,
      maxThreads: workers,
      concurrentTasksPerWorker: 1,
      atomics: 'disabled',
      maxQueue: workers,
    });
  }

  /**
   * What this thread deletes (an address that went, a new NAT rule) goes back to the worker that filed it, with all that
   * an ALG had kept for it.
   */
  private adoptDeletions(): void {
    const { conntrack, expectations, extensions, buffers } = this.tables;
    new Aging(conntrack, buffers.wheels, this.workers, this.tables.now());
    const handBack = conntrack.onDelete;
    conntrack.onDelete = (index) => {
      if (conntrack.words[index * CT_WORDS + CT_HELPER] !== 0) {
        expectations.removeOf(index, -1);
        extensions.release(index);
      }
      handBack(index);
    };
  }

  private begin(): void {
    for (const device of this.devices) this.watchDevice(device);
    if (this.hostPort !== null) this.watchHostPort(this.hostPort);
    for (const end of this.ends) this.running.push(this.keepRunning(end));
    void this.listen();
    this.pace.hear();
    this.keepHouse(HOUSEKEEPING_MS);
    if (this.hostFrames !== null) this.timers.push(setInterval(() => this.pollHosts(), HOST_POLL_MS));
    // Neighbour discovery and its like begin when the links are known.
    this.step({ kind: 'tick' });
  }

  // --- workers ---------------------------------------------------------------------------------------------------------

  /** Submits a worker's task again and again until the router stops. */
  private async keepRunning(end: WorkerEnd): Promise<void> {
    const { worker } = end.task;
    while (!this.stopping) {
      end.started = this.clock();
      try {
        await this.pool.run(end.restarts === 0 ? end.task : { ...end.task, again: true });
        if (this.stopping) return;
        this.log('warn', `worker ${worker} returned although nobody stopped it; it starts again`);
      } catch (error) {
        if (this.stopping) return;
        Atomics.store(this.live, workerAt(worker) + LW_STATE, WORKER_DEAD);
        const broken = this.tables.repair(worker);
        const locks = broken === 0 ? '' : `, ${broken} locks broken`;
        const kept = this.tables.conntrack.count;
        this.log(
          'warn',
          `worker ${worker} died: ${reasonOf(error)}; it starts again, ${kept} connections kept${locks}`,
        );
      }
      end.restarts++;
      end.deaths = this.clock() - end.started > HEALTHY_MS ? 1 : end.deaths + 1;
      if (end.deaths > 1) await this.rest(Math.min(FIRST_PAUSE_MS << Math.min(end.deaths, 16), LAST_PAUSE_MS));
    }
  }

  /** Waits for so long, or until the router stops. */
  private rest(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const over = (): void => {
        clearTimeout(timer);
        this.rests.delete(over);
        resolve();
      };
      const timer = setTimeout(over, milliseconds);
      this.rests.add(over);
    });
  }

  /** Starts of a worker after its first. */
  restarts(worker: number): number {
    return this.ends[worker].restarts;
  }

  /** Records that a worker's rings had no room for: punted, injected. */
  lost(worker: number): [number, number] {
    return lostRecords(this.ends[worker].task);
  }

  /** Makes a domain of the control plane anew, while packets go on. */
  async restart(domain: DomainName): Promise<void> {
    this.moveClock();
    await this.control.domains.restart(domain);
    this.afterEvents();
  }

  /** Makes a domain throw, or hang: how tests and demonstrations kill one. */
  failDomain(family: 4 | 6, how: 'throw' | 'hang'): void {
    this.hosts.find((host) => host.family === family)?.say({ kind: 'fault', how });
  }

  /** Makes a worker throw once, in the middle of its loop: how tests and demonstrations kill one. */
  failWorker(worker: number): void {
    Atomics.store(this.live, FAULT, worker + 1);
    wake(this.ends[worker].task.waker);
  }

  private wakeAll(): void {
    for (const end of this.ends) wake(end.task.waker);
  }

  /** The configuration in force. */
  get config(): Config {
    return this.control.config;
  }

  /**
   * Puts another configuration in force, while traffic runs; resolves when it is. When `refused` is not empty nothing has
   * changed. One at a time: each waits until no worker reads what the one before has replaced.
   */
  apply(next: Config): Promise<Applied> {
    const applied = this.applying.then(async () => {
      await this.settled();
      this.moveClock();
      const done = applyConfig(this.control, next);
      if (done.refused.length > 0) return done;
      if (this.hostPort !== null && done.lines.some((line) => /^. ports\.[^.]+\.addresses/.test(line)))
        readdressHostPort(next, this.log);
      this.step({ kind: 'tick' });
      // Domains in threads of their own are made anew meanwhile.
      await this.control.domains.restarted;
      this.afterEvents();
      await this.settled();
      return done;
    });
    this.applying = applied.catch(() => {});
    return applied;
  }

  /** Resolves when every worker has begun a new circle or sleeps: nobody holds what was found before. */
  private async settled(): Promise<void> {
    const mark = this.control.mark();
    const circles = this.circles();
    this.wakeAll();
    while (!this.stopping && !this.passed(circles)) await pause(1);
    this.control.reclaim(mark);
  }

  private circles(): number[] {
    return this.ends.map((_, worker) => Atomics.load(this.live, workerAt(worker) + LW_CIRCLES));
  }

  private passed(circles: number[]): boolean {
    return circles.every((before, worker) => {
      const at = workerAt(worker);
      return this.live[at + LW_STATE] !== WORKER_RUNNING || this.live[at + LW_CIRCLES] !== before;
    });
  }

  // --- control plane ---------------------------------------------------------------------------------------------------

  /** Sets the router's clock to now. */
  moveClock(): void {
    const now = (this.clock() - this.startedAt) | 0;
    const control = this.tables.control;
    if (((now - control[CLOCK]) | 0) > 0) control[CLOCK] = now;
  }

  private inject(end: WorkerEnd, kind: number, port: number, bytes: Uint8Array): void {
    if (!end.inject.bytes(kind, port, bytes)) this.lose(C_MADE);
  }

  /** A frame between the rings that finds no room: `as` is how it came (C_RECEIVED, C_MADE). */
  private lose(as: number): void {
    this.tables.counters[as]++;
    this.tables.counters[C_DROPS + NO_BUFFER]++;
  }

  /** Lets the control plane handle one event; a defect in a protocol costs this event, not the router. */
  private handle(event: Event): void {
    try {
      this.control.handle(event);
    } catch (error) {
      if (this.failures++ < 10)
        this.log('warn', `the control plane failed on a ${event.kind} event: ${reasonOf(error)}; the event is skipped`);
    }
  }

  /** Does what a domain has to do with, unless the router stops; a defect in it costs this message, not the router. */
  private turn(work: () => void): void {
    if (this.stopping) return;
    this.moveClock();
    try {
      work();
    } catch (error) {
      if (this.failures++ < 10)
        this.log('warn', `the control plane failed on what a domain said: ${reasonOf(error)}; the rest is skipped`);
    }
    this.afterEvents();
  }

  /** Handles one event from outside of the rings, and all that follows from it. */
  private step(event: Event): void {
    this.moveClock();
    this.handle(event);
    this.afterEvents();
  }

  /** Wakes whom the last events concern, and sets the timer for the next tick. */
  private afterEvents(): void {
    const epoch = this.tables.neighbours.epoch();
    // A changed neighbour may be what a worker's held packets wait for.
    for (const end of this.ends)
      if (end.inject.written !== 0 || epoch !== this.neighbourEpoch) {
        end.inject.written = 0;
        wake(end.task.waker);
      }
    this.neighbourEpoch = epoch;
    if (this.control.rests) this.keepHouse(HOUSEKEEPING_MS);
    const wait = this.control.next();
    if (wait < 0 || this.stopping) return;
    const at = this.clock() + wait;
    if (this.tickTimer !== null) {
      if (this.tickAt <= at) return;
      clearTimeout(this.tickTimer);
    }
    this.tickAt = at;
    this.tickTimer = setTimeout(() => {
      this.tickTimer = null;
      this.step({ kind: 'tick' });
    }, Math.ceil(wait));
  }

  /** Takes what the workers punt, until the router stops. */
  private async listen(): Promise<void> {
    while (!this.stopping) {
      const bell = Atomics.load(this.live, BELL);
      let taken = 0;
      this.moveClock();
      for (const end of this.ends) taken += this.drain(end);
      taken += this.watch.drain(PUNT_BURST);
      this.countGone();
      this.mirrors.tell();
      if (taken > 0) {
        this.afterEvents();
        // Timers and sockets have their turn even when somebody floods us.
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      const wait = waitAsync(this.live, BELL, bell);
      if (wait.async) await wait.value;
    }
  }

  private drain(end: WorkerEnd): number {
    const ring = end.punt;
    let taken = 0;
    while (taken < PUNT_BURST && ring.next()) {
      taken++;
      const { kind, port } = ring;
      if (kind === PUNT_FRAME) {
        const frame = new Uint8Array(ring.length);
        ring.copy(frame, 0);
        const event: Event = { kind: 'frame', port, frame, etherType: ring.word(0), l3: ring.word(1) };
        ring.release();
        this.handle(event);
        continue;
      }
      if (kind === PUNT_RESOLVE) {
        const address = [ring.word(1), ring.word(2), ring.word(3), ring.word(4)] as const;
        this.handle({ kind: 'resolve', port, family: ring.word(0) as 4 | 6, address });
      } else if (kind === PUNT_USED) this.handle({ kind: 'used', neighbour: ring.word(0) });
      else if (kind === PUNT_TRANSMIT) this.transmit(ring, port);
      ring.release();
    }
    return taken;
  }

  // --- devices ---------------------------------------------------------------------------------------------------------

  private watchDevice(device: Device): void {
    const tap = device.kind === 'tap' ? new TapLink(device.fds[0], this.pace.news) : null;
    const look = tap === null ? () => lookByName(device.ifname) : () => tap.look();
    const last = look();
    const { name, number, ifname } = device;
    const watch = { port: number, name, ifname, device, look, last, failed: false, close: () => tap?.close() };
    this.watches.push({ ...watch, tries: new Tries(() => this.pollLinks()) });
    if (!last.up) this.setLink(number, false);
  }

  private watchHostPort(port: HostPort): void {
    const tap = new TapLink(port.tap.fds[0], this.pace.news);
    const watch = { port: port.number, name: HOST_DEVICE, ifname: HOST_DEVICE, device: null, look: () => tap.look() };
    const tries = new Tries(() => this.pollLinks());
    this.watches.push({ ...watch, last: tap.look(), tries, failed: false, close: () => tap.close() });
  }

  /** A worker's descriptor has broken: the device was deleted, perhaps in a namespace of which we hear nothing. */
  private countGone(): void {
    const gone = this.ends.reduce((sum, _, worker) => sum + this.live[workerAt(worker) + LW_GONE], 0);
    if (gone === this.devicesGone) return;
    this.devicesGone = gone;
    this.pace.hear();
  }

  private pollLinks(): void {
    for (const watch of this.watches) {
      const { last: before, device } = watch;
      if (!before.exists && device === null) continue;
      const now = watch.look();
      if (device !== null && (!now.exists || !before.exists || isReplaced(device))) {
        if (before.exists) this.missDevice(watch);
        this.reviveDevice(watch, device, now);
        continue;
      }
      watch.last = now;
      // The other end of a veth is down while it is moved: what the programs know of it may be of yesterday.
      if (now.exists && now.flaps !== before.flaps)
        this.kernel?.relocate(watch.port, linkDetails(watch.ifname).peerElsewhere);
      if (now.exists && now.elsewhere !== before.elsewhere) this.kernel?.relocate(watch.port, now.elsewhere);
      if (now.exists && now.up === before.up) continue;
      if (device !== null) {
        this.log('info', `ports.${watch.name}: ${watch.ifname} is ${now.up ? 'up' : 'down'}`);
        this.setLink(watch.port, now.up);
      } else if (!now.exists && this.hostPort !== null) {
        const then = "programs on this host cannot use the router's addresses any more";
        this.log('warn', `the device ${watch.ifname} is gone; ${then}`);
        withdrawHostPort(this.tables, this.hostPort);
      }
    }
  }

  /** A device was deleted, or moved away. */
  private missDevice(watch: Watch): void {
    const { name, ifname, port, device } = watch;
    watch.last = GONE;
    watch.failed = false;
    const until = device?.reopen ? 'there is one of that name again' : 'the router is started again';
    this.log('warn', `ports.${name}: the device ${ifname} is gone; its port is down until ${until}, the others go on`);
    this.setLink(port, false);
  }

  /**
   * Opens the device that has the name of one that is gone; a TAP is made. Workers learn of it in their next circle, and lose
   * nothing by it: their descriptors have the same numbers. `now`: what was seen of it just now.
   */
  private reviveDevice(watch: Watch, device: Device, now: DeviceState): void {
    const { name, ifname, port, tries } = watch;
    const isTap = device.kind === 'tap';
    // Nobody but this router makes its TAP; of any other device there will be news.
    if (this.stopping || device.reopen === null || !(isTap || now.exists)) return;
    // One that only had another name for a while is what it was.
    if (isTap ? !now.exists : isReplaced(device)) {
      if (!tries.mayTry()) return;
      try {
        device.reopen();
      } catch (error) {
        // Gone once more in this moment.
        if (!isTap && !watch.look().exists) return;
        if (!watch.failed) this.log('warn', `${(error as Error).message}; the port is down, it is tried again`);
        watch.failed = true;
        tries.failed();
        return;
      }
      for (let worker = 0; worker < this.workers; worker++) {
        Atomics.store(this.live, portAt(worker, port) + LP_RENEW, 1);
        Atomics.store(this.live, workerAt(worker) + LW_RENEW, 1);
      }
      this.wakeAll();
      // It may be in another namespace than the one before.
      watch.close();
    }
    const state = watch.look();
    // Gone again already: that is seen at the next look, which its end brings about.
    watch.last = { ...state, exists: true };
    this.kernel?.relocate(port, isTap ? state.elsewhere : linkDetails(ifname).peerElsewhere);
    const kept = this.tables.conntrack.count;
    this.log(
      'info',
      `ports.${name}: the device ${ifname} is back${state.up ? '' : ', and down'}, ${kept} connections kept`,
    );
    this.setLink(port, state.up);
  }

  /** What the device says, as far as the configuration has not taken the port down. */
  private setLink(port: number, up: boolean): void {
    this.moveClock();
    this.control.setLink(port, up && this.config.ports[port].up);
    this.afterEvents();
  }

  /** The state of a port's device at the last look; null for ports without one (VLANs). */
  deviceState(port: number): DeviceState | null {
    return this.watches.find((watch) => watch.port === port)?.last ?? null;
  }

  /** What the main thread's end of a port of kind host has counted; null for others. */
  hostCounters(port: number): PortCounters | null {
    return this.devices.find((device) => device.number === port)?.host?.counters ?? null;
  }

  /** Frames from libpcap to worker 0. */
  private pollHosts(): void {
    const frames = this.hostFrames;
    if (frames === null) return;
    const end = this.ends[0];
    const slots = new Int32Array(256);
    for (const device of this.devices) {
      const count = device.host?.rxBurst(frames, slots, slots.length) ?? 0;
      for (let n = 0; n < count; n++) {
        if (!end.inject.frame(INJECT_RECEIVE, device.number, frames, slots[n])) this.lose(C_RECEIVED);
        frames.free(slots[n]);
      }
    }
    if (end.inject.written !== 0) this.afterEvents();
  }

  /** A frame from a worker to libpcap. */
  private transmit(ring: RingReader, port: number): void {
    const frames = this.hostFrames;
    const host = this.devices.find((device) => device.number === port)?.host ?? null;
    const slot = frames === null || host === null ? -1 : frames.alloc(ring.length);
    if (frames === null || host === null || slot < 0) {
      this.lose(C_MADE); // as forwarded it is counted already
      return;
    }
    ring.copy(frames.u8, frames.meta[slot * META_WORDS + META_OFF]);
    frames.meta[slot * META_WORDS + META_LEN] = ring.length;
    host.txBurst(frames, Int32Array.of(slot), 1);
  }

  // --- now and then ----------------------------------------------------------------------------------------------------

  /** Plans the next housekeeping, unless one comes earlier. */
  private keepHouse(wait: number): void {
    const at = this.clock() + wait;
    if (this.stopping || (this.keeper !== null && this.keeperAt <= at)) return;
    if (this.keeper !== null) clearTimeout(this.keeper);
    this.keeperAt = at;
    this.keeper = setTimeout(() => {
      this.keeper = null;
      this.keepHouse(this.housekeeping() ? HOUSEKEEPING_MS : IDLE_HOUSEKEEPING_MS);
    }, wait);
  }

  /** True: something is left to do. */
  private housekeeping(): boolean {
    this.moveClock();
    this.pace.rest();
    let left = false;
    for (const host of this.hosts) left = host.watch() || left;
    // Its ring holds some thousand records: while there are any, it is emptied every second.
    left = this.control.blockLog.drain() > 0 || left;
    this.reclaim();
    return left || this.control.rests;
  }

  /** Frees what was taken out of the tables before the last look, once no worker can hold it. */
  private reclaim(): void {
    if (this.mark !== null) {
      if (!this.passed(this.mark.circles)) return;
      this.control.reclaim(this.mark.mark);
      this.mark = null;
    }
    if (this.control.rests) this.mark = { circles: this.circles(), mark: this.control.mark() };
  }

  // --- the end ---------------------------------------------------------------------------------------------------------

  /** Stops all workers, removes the devices. May be called more than once. */
  async stop(): Promise<void> {
    if (this.stopping || this.leaving) return this.stopped;
    this.leaving = true;
    if (this.control.hasFarewell)
      for (let n = 0; n < FAREWELLS && !this.stopping; n++) {
        this.step(STOPPING);
        // Then the domains have put their frames into the rings, which the first worker empties before it ends.
        await this.control.domains.caughtUp(FAREWELL_WAIT_MS);
        await pause(FAREWELL_PAUSE_MS);
      }
    this.release();
    await this.control.domains.close();
    await Promise.allSettled(this.running);
    await this.pool.destroy();
    for (const watch of this.watches) watch.close();
    this.kernel?.close();
    for (const device of this.devices) closeDevice(device);
    if (this.hostPort !== null) closeHostPort(this.hostPort);
    this.hostPort = null;
    for (const end of this.ends) closeWaker(end.task.waker);
    this.settle();
  }

  /**
   * Tells every worker to return and wakes those in a system call: without that the process could not end, as such a
   * thread cannot be terminated. Synchronous, for 'exit' handlers; `stop` does the rest.
   */
  release(): void {
    if (this.stopping) return;
    this.stopping = true;
    for (const timer of this.timers) clearInterval(timer);
    if (this.tickTimer !== null) clearTimeout(this.tickTimer);
    if (this.keeper !== null) clearTimeout(this.keeper);
    for (const { tries } of this.watches) tries.close();
    this.pace.close();
    for (const over of [...this.rests]) over();
    Atomics.store(this.tables.control, STOP, 1);
    this.wakeAll();
    Atomics.add(this.live, BELL, 1);
    Atomics.notify(this.live, BELL);
  }

  /** For an 'exit' handler: what would outlive the process. Devices vanish with it. */
  abandon(): void {
    this.release();
    if (this.hostPort !== null) closeHostPort(this.hostPort);
    this.hostPort = null;
  }
}

/**
 * Records that found no room in the rings between a worker and the control plane, those of the domains' threads included:
 * punted, injected.
 */
export function lostRecords(task: Pick<WorkerTask, 'punt' | 'inject' | 'domains'>): [number, number] {
  const { punt, inject, domains = [] } = task;
  const lost = (rings: SharedArrayBuffer[]): number => rings.reduce((sum, ring) => sum + new RingReader(ring).lost, 0);
  return [lost([punt, ...domains.map((room) => room.punt)]), lost([inject, ...domains.map((room) => room.inject)])];
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
