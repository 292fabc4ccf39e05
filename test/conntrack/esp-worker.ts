/** esp-worker: one of two threads that hand SPIs to the same waiting tunnels at the same moment (esp.test.ts). */
import { workerData } from 'node:worker_threads';
import { EspTunnels } from '../../conntrack/esp.ts';
import { type ConntrackBuffers, ConntrackTable } from '../../conntrack/table.ts';
import { Packet } from '../../dataplane/wire/packet.ts';

export const PAIRS = 3000;
/** Tunnels of a pair that wait; each thread brings half as many SPIs. */
export const TUNNELS = 8;
export const KEY = 50 | (4 << 8);
export const ROUTER = 1;

export interface EspWorkerData {
  buffers: ConntrackBuffers;
  me: number;
  /** Word 0: threads that have arrived; word 1: those that are done. */
  gate: SharedArrayBuffer;
  /** What `find` answered: PAIRS × TUNNELS words, this thread's at even or odd places. */
  found: SharedArrayBuffer;
}

/** The gateway of a pair, and the n-th SPI that it answers by, raw. */
export const gateway = (pair: number) => 0x100 + pair;
export const answer = (pair: number, n: number) => 0x00010001 + ((pair * TUNNELS + n) << 1);

if (workerData !== null) {
  const { buffers, me, gate, found } = workerData as EspWorkerData;
  const table = new ConntrackTable(buffers, me);
  const tunnels = new EspTunnels(table);
  const gates = new Int32Array(gate);
  const out = new Int32Array(found);
  const p = new Packet();
  p.d0 = ROUTER;
  Atomics.add(gates, 0, 1);
  while (Atomics.load(gates, 0) < 2);
  for (let pair = 0; pair < PAIRS; pair++) {
    p.s0 = gateway(pair);
    for (let n = me; n < TUNNELS; n += 2) out[pair * TUNNELS + n] = tunnels.find(p, answer(pair, n), KEY, 0);
    // Side by side all the way: who is ahead waits at every 16th pair.
    if ((pair & 15) === 15) {
      Atomics.add(gates, 0, 1);
      while (Atomics.load(gates, 0) < 2 * (((pair + 1) >> 4) + 1));
    }
  }
  Atomics.add(gates, 1, 1);
}
