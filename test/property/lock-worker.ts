/**
 * lock-worker: a thread that makes and ends expectations and engine entries without a pause, to be killed in the middle of
 * it (locks.test.ts).
 */
import { workerData } from 'node:worker_threads';
import type { ExpectSpec } from '../../conntrack/expect.ts';
import { type TableBuffers, Tables } from '../../dataplane/tables.ts';
import { newFlowSpec } from '../../offload/table.ts';

export interface LockWorkerData {
  buffers: TableBuffers;
  worker: number;
  master: number;
  /** Word 0 counts rounds. */
  progress: SharedArrayBuffer;
}

/** The n-th expectation of a worker. */
export function expectation(worker: number, n: number, master: number): ExpectSpec {
  return {
    key: 6 | (4 << 8),
    flags: 0,
    src: new Int32Array(4),
    dst: Int32Array.of(0x0a000000 | worker, 0, 0, 0),
    ports: (n + 1) << 16,
    master,
    helper: 0,
    dir: 1,
    savedPort: 0,
    class: 0,
    timeout: 1000,
    replyPorts: 0,
    wanted: (n + 1) << 16,
  };
}

/** The n-th engine entry of a worker; every second one is IPv6. Its NPORTS (IPv4) repeat its port. */
export function entry(worker: number, n: number, to = newFlowSpec()): ReturnType<typeof newFlowSpec> {
  to.family = (n & 1) === 0 ? 4 : 6;
  to.src.fill(worker + 1);
  to.dst.fill(n + 1);
  to.ports = to.newPorts = n;
  to.proto = 17;
  to.inPort = 1;
  to.outPort = 2;
  to.epoch = 5;
  return to;
}

if (workerData !== null) {
  const { buffers, worker, master, progress } = workerData as LockWorkerData;
  const tables = new Tables(buffers, worker);
  const { expectations, flows } = tables;
  const rounds = new Int32Array(progress);
  const specs = Array.from({ length: 24 }, (_, n) => expectation(worker, n, master));
  const entries = Array.from({ length: 24 }, (_, n) => entry(worker, n));
  for (let grace = 0; flows !== null; grace += 2) {
    for (const spec of specs) expectations.add(spec, 0, 0);
    expectations.removeOf(master, -1);
    for (const spec of entries) flows.install(spec, 0, grace);
    for (const spec of entries) {
      const place = flows.findSpec(spec);
      if (place >= 0) flows.remove(spec.family, place, grace);
    }
    Atomics.add(rounds, 0, 1);
  }
}
