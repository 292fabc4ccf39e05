/**
 * Memory: the tasks of the memory.* workloads, each run in a process of its own (child.ts).
 *
 * Timed: copying each frame from the master into a slot, the whole path (header and transport checksums verified), the
 * counters of port, flow and connection, aging and the engine's harvest as the clock moves, and copying the frame to an
 * output array. Left out: a device and its system calls, and the network.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { type Measured, openWorld, Station, type WorldOptions } from './world.ts';

export interface ForwardTask {
  family: 4 | 6;
  flows: number;
  engine: boolean;
  huge: boolean;
  /** Milliseconds of each timed window in random order, half of it in sequence; and how many there are of each. */
  window: number;
  windows: number;
}

export interface ForwardAnswer {
  random: number[];
  sequence: number[];
  /** In random order with a clock that stands still: without aging and harvest. */
  still: number;
  hugeBytes: number;
}

const rate = (measured: Measured): number => measured.packets / measured.seconds;

/** memory.nat44.*, memory.ipv6.*: packets per second, flows in sequence and in random order. */
export function forward(task: ForwardTask): ForwardAnswer {
  const options: WorldOptions = { ...task, workers: 1 };
  const { buffers, hugeBytes } = openWorld(options);
  const station = new Station(buffers, options);
  station.establish();
  station.verify();
  const answer: ForwardAnswer = { random: [], sequence: [], still: 0, hugeBytes };
  for (const order of ['sequence', 'random'] as const) {
    if (order === 'random') station.shuffle();
    station.run(Math.min(500, task.window));
    // Random order is the headline and has the whole window.
    const window = order === 'random' ? task.window : task.window / 2;
    for (let n = 0; n < task.windows; n++) answer[order].push(rate(station.run(window)));
    station.verify();
  }
  answer.still = rate(station.run(task.window / 4, true));
  return answer;
}

export interface NewTask {
  flows: number;
  huge: boolean;
}

/**
 * memory.new: first packets of NAT44 connections per second: lookup that misses, NAT, insert and timer. A smaller world
 * warms the code up first; the timed one starts with empty tables, whose memory a live router has taken at start.
 */
export function fresh(task: NewTask): { random: number[]; sequence: number[] } {
  const answer = { random: [] as number[], sequence: [] as number[] };
  for (const order of ['warm-up', 'sequence', 'random'] as const) {
    const flows = order === 'warm-up' ? Math.min(task.flows, 200_000) : task.flows;
    const options: WorldOptions = { family: 4, flows, engine: true, workers: 1, huge: task.huge };
    const station = new Station(openWorld(options).buffers, options);
    if (order !== 'sequence') station.shuffle();
    const seconds = station.round(station.lan);
    if (station.tables.conntrack.count !== flows)
      throw new Error(`memory.new: expected ${flows} connections, got ${station.tables.conntrack.count}`);
    if (order !== 'warm-up') answer[order].push(flows / seconds);
  }
  return answer;
}

export interface AllocTask {
  packets: number;
  /** Seconds at full rate during which collections are counted. */
  seconds: number;
}

/** memory.alloc: bytes that the heap grew per packet of the fast path, and garbage collections at full rate. */
export async function alloc(
  task: AllocTask,
): Promise<{ bytes: number; packets: number; collections: number; seconds: number }> {
  const options: WorldOptions = { family: 4, flows: 65_536, engine: true, workers: 1, huge: false };
  const station = new Station(openWorld(options).buffers, options);
  station.establish();
  station.verify();
  const collected: number[] = [];
  const observer = new PerformanceObserver((list) => {
    for (const { startTime } of list.getEntries()) collected.push(startTime);
  });
  observer.observe({ entryTypes: ['gc'] });
  const perTurn = station.turns(20_000) / 20_000; // optimised code from here on
  station.run(2000);
  // What was left over from setting up is collected now, and not in the middle of the count.
  collectGarbage();
  // What the reading of the statistics itself costs.
  getHeapStatistics();
  const calibration = -getHeapStatistics().used_heap_size + getHeapStatistics().used_heap_size;
  const start = performance.now();
  const before = getHeapStatistics().used_heap_size;
  const packets = station.turns(Math.ceil(task.packets / perTurn));
  const grown = Math.max(0, getHeapStatistics().used_heap_size - before - calibration);
  const begin = performance.now();
  while (performance.now() - begin < task.seconds * 1000) station.turns(8192);
  const end = performance.now();
  await told();
  observer.disconnect();
  // V8 tidies up once nothing runs any more: that is behind the end.
  const between = (from: number, to: number) => collected.filter((time) => time >= from && time < to).length;
  const collections = between(start, end);
  // Emptied in between, the heap's growth says nothing: a whole young generation was allocated each time.
  const bytes = (between(start, begin) > 0 ? between(start, begin) * 1024 * 1024 : grown) / packets;
  return { bytes, packets, collections, seconds: (end - begin) / 1000 };
}

/** Until the observer has been told of the collections so far: that takes some turns of the event loop. */
function told(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 100));
}

/** A collection now, as --expose-gc offers it. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

export interface BytesTask {
  flows: number;
}

/** memory.bytes-per-connection: resident memory that a NAT44 connection takes, buckets, timers and all; engine off. */
export function bytesPerConnection(task: BytesTask): { bytes: number } {
  const warm: WorldOptions = { family: 4, flows: 65_536, engine: false, workers: 1, huge: false };
  const first = new Station(openWorld(warm).buffers, warm);
  first.round(first.lan);
  first.round(first.wan);
  const options: WorldOptions = { ...warm, flows: task.flows };
  const station = new Station(openWorld(options).buffers, options);
  const before = process.memoryUsage.rss();
  station.round(station.lan);
  station.round(station.wan);
  station.verify();
  return { bytes: (process.memoryUsage.rss() - before) / task.flows };
}

export interface WorkersTask {
  flows: number;
  workers: number;
  huge: boolean;
  window: number;
}

/** Words by which the threads of memory.workers keep step. */
export const READY = 0;
export const GO = 1;

/** memory.workers.N: N threads, each with frames and flows of its own over the same tables. Packets per second in all. */
export async function workers(task: WorkersTask): Promise<{ rate: number }> {
  const options: WorldOptions = { family: 4, engine: true, ...task };
  const { buffers } = openWorld(options);
  const step = new Int32Array(new SharedArrayBuffer(8));
  const share = Math.floor(task.flows / task.workers);
  const pending: Promise<Measured>[] = [];
  for (let worker = 0; worker < task.workers; worker++) {
    const file = new URL(`./thread${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);
    const workerData = { buffers, options, worker, first: worker * share, count: share, window: task.window, step };
    const thread = new Worker(file, { workerData });
    pending.push(
      new Promise((resolve, reject) => {
        thread.once('message', resolve);
        thread.once('error', reject);
      }),
    );
  }
  const all = await Promise.all(pending);
  return { rate: all.reduce((sum, measured) => sum + rate(measured), 0) };
}
