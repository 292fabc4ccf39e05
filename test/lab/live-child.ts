/**
 * A live router as a process of its own, for the lab tests.
 *
 *   node live-child.js FILE [NEXT [IO]]      prints "running"
 *
 * SIGTERM ends it as `sluice run`. SIGUSR2 makes a worker throw, each in its turn. SIGIO applies the configuration NEXT and
 * prints "applied" and what has changed. SIGPWR flushes the engine and prints "flushed" and a table's worth of counters:
 * received, made, and in none; connections. SIGWINCH ends the process without any preparation, exit code 7.
 */

import { ApiServer } from '../../controlplane/api/server.ts';
import { loadConfig } from '../../controlplane/config/index.ts';
import { Signals } from '../../controlplane/live/stop.ts';
import { Supervisor } from '../../controlplane/live/supervisor.ts';
import { OffloadApi } from '../../controlplane/offload.ts';
import { liveSource } from '../../controlplane/show/source.ts';
import { WORKER_DIED } from '../../dataplane/drop.ts';
import type { IoBackend } from '../../dataplane/ports/uring.ts';
import { C_DROPS, C_MADE, C_RECEIVED } from '../../dataplane/tables.ts';

const signals = new Signals();
const config = loadConfig(process.argv[2]);
const api = config.control.socket === '' ? null : await ApiServer.listen(config.control.socket);
const io = (process.argv[4] ?? 'auto') as IoBackend;
const router = await Supervisor.start(config, { io, log: (_, message) => process.stderr.write(`${message}\n`) });
api?.serve(liveSource(router));
let victim = 0;
process.on('SIGUSR2', () => router.failWorker(victim++ % router.workers));
process.on('SIGWINCH', () => process.exit(7));
process.on('SIGIO', async () => {
  const { lines, refused } = await router.apply(loadConfig(process.argv[3]));
  process.stdout.write(`applied ${JSON.stringify({ lines, refused })}\n`);
});
const offload = new OffloadApi(router.tables, config);
process.on('SIGPWR', () => {
  offload.flush();
  const { tables, workers } = router;
  const counted = {
    received: tables.total(C_RECEIVED),
    made: tables.total(C_MADE),
    missing: Array.from({ length: workers + 1 }, (_, worker) => tables.missing(worker)),
    died: tables.total(C_DROPS + WORKER_DIED),
    connections: tables.conntrack.count,
    expectations: tables.expectations.count,
  };
  process.stdout.write(`flushed ${JSON.stringify(counted)}\n`);
});
process.stdout.write('running\n');
const stop = async (): Promise<void> => {
  await api?.close();
  await router.stop();
};
await signals.until(
  {
    stop,
    abandon: () => {
      api?.abandon();
      router.abandon();
    },
  },
  router.stopped,
);
