/**
 * A live router as a process of its own, for the lab tests.
 *
 *   node live-child.js FILE       prints "running"
 *
 * SIGTERM ends it as `sluice run`. SIGUSR2 makes a worker throw, each in its turn. SIGWINCH ends the process without
 * any preparation, exit code 7.
 */
import { loadConfig } from '../../controlplane/config/index.ts';
import { Signals } from '../../controlplane/live/stop.ts';
import { Supervisor } from '../../controlplane/live/supervisor.ts';

const signals = new Signals();
const config = loadConfig(process.argv[2]);
const router = await Supervisor.start(config, { log: (_, message) => process.stderr.write(`${message}\n`) });
let victim = 0;
process.on('SIGUSR2', () => router.failWorker(victim++ % router.workers));
process.on('SIGWINCH', () => process.exit(7));
process.stdout.write('running\n');
await signals.until({ stop: () => router.stop(), abandon: () => router.abandon() }, router.stopped);
