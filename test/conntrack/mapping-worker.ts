/**
 * One thread of mapping.test.ts: makes and ends mappings for inside endpoints that others want at the same moment.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { type MappingBuffers, MappingTable } from '../../conntrack/mapping.ts';
import { type ConntrackBuffers, ConntrackTable } from '../../conntrack/table.ts';

export interface MappingWorkerData {
  conntrack: ConntrackBuffers;
  mappings: MappingBuffers;
  worker: number;
  steps: number;
}

const { conntrack, mappings: shared, worker, steps } = workerData as MappingWorkerData;
const table = new ConntrackTable(conntrack, worker);
const mappings = new MappingTable(shared, table, worker, 77);
let made = 0;
let met = 0;
let ended = 0;
for (let n = 0; n < steps; n++) {
  const inside = 1 + ((n * 7 + worker) % 50);
  const found = mappings.findInside(inside, 1, 17 | 256, 0, 0, 0);
  if (found >= 0) {
    if (n % 5 === 0 && mappings.expire(found, 0, true)) ended++;
  } else {
    const port = (worker << 14) | (n & 0x3fff);
    const index = mappings.add(inside, 1 | (port << 16), 17 | 256, 9, 0, 0, 0, 1000, 0);
    if (index >= 0) made++;
    else if (index === -2) met++;
  }
  table.quiet();
}
table.offline();
parentPort?.postMessage({ made, met, ended });
