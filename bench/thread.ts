/**
 * Thread: one worker of memory.workers.N. It plays its own flows over the tables that all share.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { TableBuffers } from '../dataplane/tables.ts';
import { GO, READY } from './memory.ts';
import { Station, type WorldOptions } from './world.ts';

interface Order {
  buffers: TableBuffers;
  options: WorldOptions;
  worker: number;
  first: number;
  count: number;
  window: number;
  step: Int32Array;
}

const { buffers, options, worker, first, count, window, step } = workerData as Order;
const station = new Station(buffers, options, worker, first, count);
station.establish();
station.shuffle();
station.run(Math.min(1000, window));
// All begin together, with nothing left to set up.
if (Atomics.add(step, READY, 1) === options.workers - 1) {
  Atomics.store(step, GO, 1);
  Atomics.notify(step, GO);
} else Atomics.wait(step, GO, 0);
const measured = station.run(window);
station.tables.conntrack.offline();
parentPort?.postMessage(measured);
