/** ESP tunnels in the connection table, apart from NAT (test/rfc/rfc4303-esp has that): two threads that learn at once. */
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CT_ESP_SPI, ESP_OK, EspTunnels, spiOf } from '../../conntrack/esp.ts';
import * as R from '../../conntrack/record.ts';
import { ConntrackTable } from '../../conntrack/table.ts';
import { workerSource } from '../lib/worker-source.ts';
import { answer, type EspWorkerData, gateway, KEY, PAIRS, ROUTER, TUNNELS } from './esp-worker.ts';

const HOST = 7;

/** A tunnel of HOST to a gateway that waits for its answer. */
function begin(table: ConntrackTable, tunnels: EspTunnels, pair: number, n: number): number {
  const index = table.alloc(0, 0);
  const c = index * R.CT_WORDS;
  const w = table.words;
  w[c + R.CT_KEY] = KEY;
  w[c + R.CT_O_SRC] = HOST;
  w[c + R.CT_O_DST] = w[c + R.CT_R_SRC] = gateway(pair);
  w[c + R.CT_R_DST] = ROUTER;
  w[c + CT_ESP_SPI] = 0x7f000001 + (pair * TUNNELS + n) * 2;
  expect(tunnels.masquerade(c, 0)).toBe(ESP_OK);
  expect(table.insert(index, table.hashOf(index, 0), table.hashOf(index, 1), 0)).toBe(true);
  return index;
}

describe('two workers', () => {
  let source: ReturnType<typeof workerSource>;
  beforeAll(() => {
    source = workerSource('test/conntrack/esp-worker.ts');
  });
  afterAll(() => source.remove());

  it(`${PAIRS} gateways answer ${TUNNELS} waiting tunnels through both: no SPI is lost, no tunnel gets two`, async () => {
    const buffers = ConntrackTable.create(PAIRS * TUNNELS + 1000, 5);
    const table = new ConntrackTable(buffers, 2);
    const tunnels = new EspTunnels(table);
    for (let pair = 0; pair < PAIRS; pair++) for (let n = 0; n < TUNNELS; n++) begin(table, tunnels, pair, n);
    table.offline();
    const gate = new SharedArrayBuffer(8);
    const found = new SharedArrayBuffer(PAIRS * TUNNELS * 4);
    const threads = [0, 1].map((me) => {
      const workerData: EspWorkerData = { buffers, me, gate, found };
      return new Worker(source.url, { workerData });
    });
    const codes = await Promise.all(threads.map((t) => new Promise((done) => t.once('exit', done))));
    expect(codes).toEqual([0, 0]);
    const handles = new Int32Array(found);
    const taken = new Set<number>();
    let wrong = 0;
    for (let pair = 0; pair < PAIRS; pair++)
      for (let n = 0; n < TUNNELS; n++) {
        const handle = handles[pair * TUNNELS + n];
        const c = (handle >> 1) * R.CT_WORDS;
        taken.add(handle);
        if (handle < 0 || (handle & 1) !== R.REPLY || table.words[c + R.CT_R_SRC] !== gateway(pair)) wrong++;
        else if (table.words[c + R.CT_R_PORTS] !== answer(pair, n)) wrong++;
      }
    expect(wrong).toBe(0);
    expect(taken.size).toBe(PAIRS * TUNNELS);
  });
});

describe('SPIs as people read them', () => {
  it('network order, without sign, and nothing for what is not on the wire', () => {
    expect(spiOf(0x44332211)).toBe(0x11223344);
    expect(spiOf(0x000000ff | 0)).toBe(0xff000000);
    expect([spiOf(0), spiOf(1 << 24), spiOf(31 << 24)]).toEqual([0, 0, 0]);
  });
});
