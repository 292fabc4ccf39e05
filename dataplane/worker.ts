/**
 * Worker: one thread of the data plane. It owns one queue of every device, walks frames, and sleeps when there are none.
 *
 * Run by piscina as one endless task: it ends when control[STOP] is set, or by an exception, which the supervisor
 * answers by starting the task again. Everything that must outlive it is in shared memory or in descriptors that the
 * main thread opened and closes.
 *
 *   circle:  clock → fragments from other workers → frames from the control plane → path.turn (receive, walk, send)
 *            → bell, if something was punted; eventfds, if others were given fragments
 *   sleep:   offline in the connection table, ppoll over all queues and the eventfd, then the next circle
 *
 * Not here: opening devices, deciding anything. The path is the same one that runs inline.
 */

import { AGING_PERIOD, AGING_SLICE } from '../offload/aging.ts';
import { NO_BUFFER, WORKER_DIED } from './drop.ts';
import {
  FRAME_NEEDS_CSUM,
  type Frames,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from './frames.ts';
import { Handover, type HandoverRings } from './handover.ts';
import * as IF from './interfaces.ts';
import {
  BELL,
  domainBell,
  FAULT,
  LP_MIRROR_LOST,
  LP_MIRROR_TROUBLE,
  LP_RENEW,
  LP_RX_ERRORS,
  LP_SYSCALLS,
  LP_TX_ERRORS,
  LW_CIRCLES,
  LW_GONE,
  LW_RENEW,
  LW_SLEEPS,
  LW_STATE,
  LW_TIMEOUTS,
  portAt,
  WORKER_ASLEEP,
  WORKER_DEAD,
  WORKER_RUNNING,
  WORKER_STOPPED,
  workerAt,
} from './live.ts';
import type { FastPathOptions } from './offloading.ts';

import { Path, type Punt } from './path.ts';
import { groundArena, liveArena } from './ports/arena.ts';
import { CaptureClock } from './ports/capture-writer.ts';
import { type FaultOptions, FaultPort } from './ports/fault.ts';
import { attachKernelFlows, type KernelTask } from './ports/kernel-engine.ts';
import { KernelPort } from './ports/kernel-port.ts';
import { KernelSamples, SAMPLE_NAP } from './ports/kernel-samples.ts';
import { MirrorPort } from './ports/mirror.ts';
import { MirrorFile } from './ports/mirror-file.ts';
import { monotonic } from './ports/monotonic.ts';
import { PacketPort, type PacketRing } from './ports/packet.ts';
import { BUSY_SLEEP_MS, MAX_SLEEP_MS, Poller, wake } from './ports/poller.ts';
import { newPortCounters, type Port } from './ports/port.ts';
import { completeChecksum, MAX_SEGMENTS, segment } from './ports/segment.ts';
import { RingTapPort, type TapRing } from './ports/tap-ring.ts';
import { type IoBackend, openGroup, tapPort } from './ports/uring.ts';
import {
  INJECT_OUTPUT,
  INJECT_RECEIVE,
  INJECT_SEND,
  PUNT_FRAME,
  PUNT_RESOLVE,
  PUNT_TRANSMIT,
  PUNT_USED,
  RingReader,
  RingWriter,
} from './rings.ts';
import { C_DROPS, C_HELD, C_MADE, C_RECEIVED, C_TURNS, CLOCK, STOP, type TableBuffers, Tables } from './tables.ts';
import { Watch, WatchSwitch } from './watch.ts';
import { TYPE_ARP, TYPE_IPV4, TYPE_IPV6 } from './wire/ethernet.ts';

/** One port as a worker sees it. Descriptors are the main thread's; they are numbers that mean the same in every thread. */
export interface PortTask {
  /**
   * `kernel`: the device has the kernel engine's program. `ring`: the device is on the main thread (kind host), frames
   * go through the rings.
   */
  kind: 'tap' | 'packet' | 'kernel' | 'ring';
  name: string;
  number: number;
  fd: number;
  /** TUN_F_* bits that the device takes. */
  offloads: number;
  ring: PacketRing | null;
  /** Kind `tap`: this worker's ring, with `--io bpf`. */
  receive?: TapRing;
  /** Kind `kernel`: this worker's queue of the TAP device that the program redirects to. */
  tap?: { fd: number; offloads: number };
  fault: FaultOptions | null;
  /** pcapng file, or pipe, that gets a copy of every frame; '' none. */
  mirror: string;
}

export interface WorkerTask {
  worker: number;
  workers: number;
  buffers: TableBuffers;
  /** Memory of live.ts. */
  live: SharedArrayBuffer;
  punt: SharedArrayBuffer;
  inject: SharedArrayBuffer;
  /** The control plane's domains that are threads of their own: their rings; what is for none of them takes `punt`. */
  domains?: { family: 4 | 6; punt: SharedArrayBuffer; inject: SharedArrayBuffer }[];
  /** Eventfd that ends this worker's sleep. */
  waker: number;
  /** How to reach the other workers: rings for fragments, and everybody's eventfd; null: there are none. */
  peers: { rings: HandoverRings; wakers: number[] } | null;
  ports: PortTask[];
  /** Frame slots, and the address where they are: the same for every start of this worker. On the ground, it says where. */
  arena: { small: number; large: number; base: number };
  /** Seed of port choice. */
  seed: number;
  /** Monotonic milliseconds at which the router's clock was 0. */
  startedAt: number;
  io: IoBackend;
  /** The offload engine; null: off. */
  offload: FastPathOptions | null;
  /** The kernel's maps, when it forwards too. */
  kernel?: KernelTask | null;
  /** Memory of watch-block.ts, and this worker's ring for what is watched; absent: nobody can watch. */
  watch?: { block: SharedArrayBuffer; ring: SharedArrayBuffer };
  /** A predecessor of this number has died: what it wrote into mirrors stays, as it shows what led to that. */
  again?: boolean;
}

/** Circles between two looks at the device counters while there is no sleep. */
const REPORT_CIRCLES = 4096;
/** Frames taken from the inject ring in one circle. */
const INJECT_BURST = 64;
/** Fragments taken from other workers in one circle. */
const HANDOVER_BURST = 256;
/** Samples of the kernel's that are walked in one circle. */
const SAMPLE_BURST = 64;
/** Neighbours whose use or absence was reported a moment ago: entries, and that moment in milliseconds. */
const RECENT = 64;
const RECENT_MS = 20;
/** Longest sleep with a fault wrapper. */
const FAULT_SLEEP_MS = 1;

/** Destination ports of UDP, raw, that are the IPv4 and the IPv6 domain's: DHCP and DHCPv6. */
const DHCP_CLIENT = 0x4400;
const DHCP_SERVER = 0x4300;
const DHCP6_CLIENT = 0x2202;
const DHCP6_SERVER = 0x2302;

/** The path's way to the control plane: each family's domain has a ring, and what has no family, such as DNS, a third one. */
class RingPunt implements Punt {
  private readonly ring: RingWriter;
  private readonly four: RingWriter;
  private readonly six: RingWriter;
  private readonly tables: Tables;
  private readonly pieces = new Int32Array(MAX_SEGMENTS);
  /** What was reported last, and when: every packet that waits would ask again. */
  private readonly recentKey = new Int32Array(RECENT);
  private readonly recentTime = new Int32Array(RECENT).fill(-RECENT_MS);

  constructor(ring: RingWriter, four: RingWriter, six: RingWriter, tables: Tables) {
    this.ring = ring;
    this.four = four;
    this.six = six;
    this.tables = tables;
  }

  private ringFor(etherType: number, service: number): RingWriter {
    if (etherType === TYPE_ARP) return this.four;
    if (etherType === TYPE_IPV4)
      return service === 0 || service === DHCP_CLIENT || service === DHCP_SERVER ? this.four : this.ring;
    if (etherType === TYPE_IPV6)
      return service === 0 || service === DHCP6_CLIENT || service === DHCP6_SERVER ? this.six : this.ring;
    return this.ring;
  }

  frame(frames: Frames, slot: number, port: number, etherType: number, l3: number, service: number): boolean {
    const ring = this.ringFor(etherType, service);
    // The protocols see frames as they would be on a wire: finished checksums, one MTU long.
    const m = slot * META_WORDS;
    const gso = frames.meta[m + META_GSO];
    if ((gso & 0xff) !== 0) {
      const count = segment(frames, slot, gso >>> 16, this.pieces);
      let taken = count > 0;
      for (let n = 0; n < count; n++) {
        taken = ring.frame(PUNT_FRAME, port, frames, this.pieces[n], etherType, l3) && taken;
        frames.free(this.pieces[n]);
      }
      return taken;
    }
    if ((frames.meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) !== 0) completeChecksum(frames, slot);
    return ring.frame(PUNT_FRAME, port, frames, slot, etherType, l3);
  }

  resolve(port: number, family: number, a0: number, a1: number, a2: number, a3: number): void {
    const key = Math.imul(a0 ^ a3 ^ (a1 << 7) ^ (a2 << 13), 0x9e3779b1) ^ (port | (family << 8));
    if (this.isNews(key)) (family === 4 ? this.four : this.six).event(PUNT_RESOLVE, port, family, a0, a1, a2, a3);
  }

  used(neighbour: number): void {
    if (!this.isNews(~neighbour)) return;
    (this.tables.neighbours.familyOf(neighbour) === 4 ? this.four : this.six).event(PUNT_USED, 0, neighbour);
  }

  private isNews(key: number): boolean {
    const now = this.tables.now();
    const at = (key ^ (key >>> 16)) & (RECENT - 1);
    if (this.recentKey[at] === key && ((now - this.recentTime[at]) | 0) < RECENT_MS) return false;
    this.recentKey[at] = key;
    this.recentTime[at] = now;
    return true;
  }
}

/** A port whose device is on the main thread: frames leave through the punt ring and come by INJECT_RECEIVE. */
class RingPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters = newPortCounters();
  readonly pollFd = -1;
  private readonly ring: RingWriter;
  private readonly pieces = new Int32Array(MAX_SEGMENTS);

  constructor(name: string, number: number, ring: RingWriter) {
    this.name = name;
    this.number = number;
    this.ring = ring;
  }

  rxBurst(): number {
    return 0;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    for (let k = 0; k < n; k++) {
      const slot = slots[k];
      const gso = frames.meta[slot * META_WORDS + META_GSO];
      if ((gso & 0xff) === 0) {
        this.send(frames, slot);
        continue;
      }
      const count = segment(frames, slot, gso >>> 16, this.pieces);
      if (count < 0) this.counters.txErrors++;
      for (let piece = 0; piece < count; piece++) this.send(frames, this.pieces[piece]);
      frames.free(slot);
    }
  }

  close(): void {
    this.linkUp = false;
  }

  private send(frames: Frames, slot: number): void {
    const m = slot * META_WORDS;
    if ((frames.meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) !== 0) completeChecksum(frames, slot);
    if (this.ring.frame(PUNT_TRANSMIT, this.number, frames, slot)) {
      this.counters.txPackets++;
      this.counters.txBytes += frames.meta[m + META_LEN];
    } else this.counters.txErrors++;
    frames.free(slot);
  }
}

/** Carries out what the control plane has put into the inject ring. Returns how many records. */
function drain(ring: RingReader, path: Path, tables: Tables, one: Int32Array): number {
  const frames = path.frames;
  let done = 0;
  while (done < INJECT_BURST && ring.next()) {
    done++;
    const ahead = ring.kind === INJECT_OUTPUT ? 14 : 0;
    const slot = frames.alloc(ring.length + ahead);
    if (slot < 0) {
      tables.counters[ring.kind === INJECT_RECEIVE ? C_RECEIVED : C_MADE]++;
      tables.counters[C_DROPS + NO_BUFFER]++;
    } else {
      const m = slot * META_WORDS;
      ring.copy(frames.u8, frames.meta[m + META_OFF] + ahead);
      frames.meta[m + META_LEN] = ring.length + ahead;
      if (ring.kind === INJECT_SEND) path.send(slot, ring.port);
      else if (ring.kind === INJECT_OUTPUT)
        path.output(slot, frames.u8[frames.meta[m + META_OFF] + ahead] >> 4, true, ring.port);
      else if (ring.kind === INJECT_RECEIVE) {
        frames.meta[m + META_PORT] = ring.port;
        one[0] = slot;
        path.burst(one, 1);
      } else frames.free(slot);
    }
    ring.release();
  }
  return done;
}

/** The task: runs until control[STOP] is set. Rejects when it failed; the descriptors stay open either way. */
export default async function run(task: WorkerTask): Promise<void> {
  const { worker } = task;
  const live = new Int32Array(task.live);
  const mine = workerAt(worker);
  const tables = new Tables(task.buffers, worker);
  const control = tables.control;
  const clock = monotonic();
  const { ground } = task.buffers;
  const { small, large, base } = task.arena;
  const frames = ground === null ? liveArena(small, large, base) : groundArena(ground, worker);
  const punt = new RingWriter(task.punt);
  const inject = new RingReader(task.inject);
  const domains = (task.domains ?? []).map((domain) => ({
    family: domain.family,
    punt: new RingWriter(domain.punt),
    inject: new RingReader(domain.inject),
    bell: domainBell(domain.family),
  }));
  const ringOf = (family: number) => domains.find((domain) => domain.family === family)?.punt ?? punt;
  const group = task.ports.some((port) => port.kind === 'tap' || port.tap !== undefined) ? openGroup(task.io) : null;
  const ports: (Port | null)[] = [];
  const mirrors: Mirror[] = [];
  try {
    for (let n = 0; n < IF.MAX_PORTS; n++) ports.push(null);
    // What is replaced from here on is told; what was before is what the descriptors stand for.
    takeRenewed(live, worker, []);
    for (const port of task.ports) {
      let built: Port;
      if (port.kind === 'tap') {
        const { name, number, fd, offloads, receive } = port;
        const queue = tapPort({ name, number, fd, vnetHeader: true, offloads }, group);
        built = receive === undefined ? queue : new RingTapPort(queue, receive);
      } else if (port.kind === 'packet' || port.kind === 'kernel') {
        const { name, number, fd, offloads, ring } = port;
        const packet = new PacketPort({ name, number, fd, offloads, ring });
        const tap = port.tap === undefined ? null : tapPort({ name, number, vnetHeader: true, ...port.tap }, group);
        built = tap === null ? packet : new KernelPort(tap, packet);
      } else built = new RingPort(port.name, port.number, punt);
      if (port.fault !== null) built = new FaultPort(built, port.fault);
      if (port.mirror !== '') {
        const lost = live[portAt(worker, port.number) + LP_MIRROR_LOST] >>> 0;
        const file = new MirrorFile(port.mirror, { append: task.again, lost });
        const clock = CaptureClock.wall();
        const mirror = new MirrorPort(built, file, { clock });
        mirrors.push({ port: mirror, file, clock });
        built = mirror;
      }
      ports[port.number] = built;
    }
    const mineOnly = ports.filter((port): port is Port => port !== null);
    const poller = new Poller(mineOnly, task.waker);
    const path = new Path(tables, frames, ports, new RingPunt(punt, ringOf(4), ringOf(6), tables), {
      seed: task.seed,
      shared: task.workers > 1,
      offload: task.offload,
    });
    if (task.kernel) attachKernelFlows(task.kernel, tables, task.startedAt);
    const samples = task.kernel?.samples && worker === 0 ? new KernelSamples(task.kernel.samples, tables) : null;
    const watched = task.watch === undefined ? null : new RingWriter(task.watch.ring);
    const paths = watched === null || task.watch === undefined ? null : watchSwitch(path, task.watch.block, watched);
    // What a predecessor held, or had in its hands, died with it.
    tables.counters[C_HELD] = 0;
    tables.counters[C_DROPS + WORKER_DIED] += tables.missing(worker);
    const one = new Int32Array(1);
    const { peers } = task;
    const handover = peers === null ? null : new Handover(peers.rings, worker);
    path.handover = handover;
    // A fault wrapper counts in circles how long it holds a frame: it must not sleep meanwhile.
    const nap = task.ports.some((port) => port.fault !== null) ? FAULT_SLEEP_MS : BUSY_SLEEP_MS;
    Atomics.store(live, mine + LW_STATE, WORKER_RUNNING);

    for (let circles = 0; Atomics.load(control, STOP) === 0; circles++) {
      // Any worker moves the clock: it must not stand still because one of them sleeps.
      const now = (clock() - task.startedAt) | 0;
      if (((now - control[CLOCK]) | 0) > 0) control[CLOCK] = now;
      live[mine + LW_CIRCLES]++;
      tables.counters[C_TURNS]++;
      if (live[mine + LW_RENEW] !== 0) takeRenewed(live, worker, mineOnly);
      if (live[FAULT] === worker + 1) {
        Atomics.store(live, FAULT, 0);
        throw new Error(`worker ${worker}: fault injected by a test`);
      }
      const walked = paths === null ? path : paths.current();
      const given = handover === null ? 0 : walked.takeGiven(HANDOVER_BURST);
      const judged = samples === null ? 0 : samples.drain(walked, SAMPLE_BURST);
      let told = 0;
      for (const domain of domains) told += drain(domain.inject, walked, tables, one);
      const work = given + judged + told + drain(inject, walked, tables, one) + walked.turn();
      if (handover !== null && peers !== null) rouse(handover, peers.wakers, live);
      for (const domain of domains)
        if (domain.punt.written !== 0) {
          domain.punt.written = 0;
          Atomics.add(live, domain.bell, 1);
          Atomics.notify(live, domain.bell);
        }
      if (punt.written !== 0 || (watched !== null && watched.written !== 0)) {
        punt.written = 0;
        if (watched !== null) watched.written = 0;
        Atomics.add(live, BELL, 1);
        Atomics.notify(live, BELL);
      }
      if ((circles & (REPORT_CIRCLES - 1)) === 0) report(mineOnly, mirrors, live, worker);
      if (!poller.shouldSleep(work)) continue;
      report(mineOnly, mirrors, live, worker);
      live[mine + LW_SLEEPS] = poller.sleeps;
      live[mine + LW_TIMEOUTS] = poller.timeouts;
      Atomics.store(live, mine + LW_STATE, WORKER_ASLEEP);
      // Who gives us something from here on sees that we sleep and wakes us; what was given before is seen here.
      if (handover?.waits) {
        Atomics.store(live, mine + LW_STATE, WORKER_RUNNING);
        continue;
      }
      tables.conntrack.offline();
      if (task.kernel) poller.wait(Math.min(samples === null ? nap : SAMPLE_NAP, nap, agingNap(tables)));
      else if (nap === BUSY_SLEEP_MS && isIdle(walked, mineOnly)) poller.wait(MAX_SLEEP_MS);
      else poller.wait(walked.restUntilLook(nap));
      tables.conntrack.quiet();
      Atomics.store(live, mine + LW_STATE, WORKER_RUNNING);
    }
    // What the control plane gave before it said STOP: final router advertisements, leases given back.
    const last = paths === null ? path : paths.current();
    for (const domain of domains) drain(domain.inject, last, tables, one);
    drain(inject, last, tables, one);
    last.flush();
    group?.flush();
    Atomics.store(live, mine + LW_STATE, WORKER_STOPPED);
  } catch (error) {
    Atomics.store(live, mine + LW_STATE, WORKER_DEAD);
    throw error;
  } finally {
    tables.conntrack.offline();
    // The ports are not closed: their descriptors are the main thread's. Files and the io_uring are this thread's own.
    for (const mirror of mirrors) {
      mirror.port.settle();
      mirror.file.close();
      tell(mirror, live, worker);
    }
    group?.close();
  }
}

/** Has the ports go on whose devices were deleted, and which the supervisor has replaced. It sets the port's word first. */
function takeRenewed(live: Int32Array, worker: number, ports: readonly Port[]): void {
  Atomics.store(live, workerAt(worker) + LW_RENEW, 0);
  for (const port of ports) if (Atomics.exchange(live, portAt(worker, port.number) + LP_RENEW, 0) !== 0) port.renew?.();
}

/** Wakes the workers that were given fragments and sleep. */
function rouse(handover: Handover, wakers: readonly number[], live: Int32Array): void {
  for (let to = 0; to < handover.workers; to++)
    if (handover.hasNews(to) && Atomics.load(live, workerAt(to) + LW_STATE) === WORKER_ASLEEP) wake(wakers[to]);
}

/** Nothing ages, nothing is held, and no device that was lost may come back. */
function isIdle(path: Path, ports: readonly Port[]): boolean {
  return path.isEmpty && liveFlows(path.tables) === 0 && ports.every((port) => port.linkUp);
}

/** Entries of the engine. */
function liveFlows({ flows }: Tables): number {
  return flows === null ? 0 : flows.liveCount(4) + flows.liveCount(6);
}

/** While the kernel forwards and no frame comes up, every entry is still to be visited in its time: a slice a circle. */
function agingNap(tables: Tables): number {
  const live = liveFlows(tables);
  return live <= AGING_SLICE ? BUSY_SLEEP_MS : Math.max(1, (AGING_PERIOD * AGING_SLICE) / live);
}

/** Lets the control plane watch the path; costs a load a turn. */
function watchSwitch(path: Path, block: SharedArrayBuffer, ring: RingWriter): WatchSwitch {
  const wall = (): number => performance.timeOrigin + performance.now();
  return new WatchSwitch(path, new Watch(path.frames, path.tables, block, ring, wall), block);
}

/** A port's mirror, where it writes, and its clock. */
interface Mirror {
  port: MirrorPort;
  file: MirrorFile;
  clock: CaptureClock;
}

/** How a mirror fares: the supervisor hears of a change. */
function tell({ port, file }: Mirror, live: Int32Array, worker: number): void {
  const at = portAt(worker, port.number);
  live[at + LP_MIRROR_LOST] = file.lost | 0;
  if (live[at + LP_MIRROR_TROUBLE] === file.trouble) return;
  live[at + LP_MIRROR_TROUBLE] = file.trouble;
  Atomics.add(live, BELL, 1);
  Atomics.notify(live, BELL);
}

/**
 * What the devices counted, for `show link`; and how many of them are gone: the supervisor hears of another number. Mirrors
 * write what waits.
 */
function report(ports: readonly Port[], mirrors: readonly Mirror[], live: Int32Array, worker: number): void {
  for (const mirror of mirrors) {
    const { file, clock } = mirror;
    clock.read();
    file.tick(clock.seconds, clock.nanoseconds);
    tell(mirror, live, worker);
  }
  let gone = 0;
  for (let n = 0; n < ports.length; n++) {
    const port = ports[n];
    const at = portAt(worker, port.number);
    live[at + LP_RX_ERRORS] = port.counters.rxErrors | 0;
    live[at + LP_TX_ERRORS] = port.counters.txErrors | 0;
    live[at + LP_SYSCALLS] = port.counters.syscalls | 0;
    if (!port.linkUp) gone++;
  }
  const at = workerAt(worker) + LW_GONE;
  if (live[at] === gone) return;
  live[at] = gone;
  Atomics.add(live, BELL, 1);
  Atomics.notify(live, BELL);
}
