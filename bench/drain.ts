/**
 * Drain: CPU time of the thread that forwards, per frame, while it empties a queue that was filled as it stood still.
 *
 * A rate depends on the generator and on who else runs on the machine; this does not: the process is stopped
 * (SIGSTOP), the device's queue is filled, the process goes on, and the thread's run time (schedstat) is divided by the
 * frames that arrived. It tells what a frame costs in full batches, not what it costs when there are few.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from '../controlplane/lab/namespace.ts';
import { type Bed, receivedFrames, startSender } from './bed.ts';
import { median } from './results.ts';

/** Frames of one filling, what the queue holds beyond them, and fillings of one sample. */
const FILLING = 8000;
const SPARE = 1000;
const ROUNDS = 5;
/** Nothing more comes when nothing has come for so long, ms. */
const QUIET = 100;
const BOUND = 20_000;

/** Makes room for a filling in the queue of the client's device. */
export function lengthenQueue(bed: Bed): void {
  bed.lab.runSync(bed.client, 'ip', ['link', 'set', bed.near, 'txqueuelen', String(FILLING + SPARE)]);
}

/** Seconds of CPU time a frame: median of several fillings. Errors: a bed whose router is the kernel, frames that got lost. */
export async function drainCost(bed: Bed): Promise<number> {
  const pid = bed.router?.pid;
  if (pid === undefined) throw new Error(`${bed.title}: expected a process that forwards, got the kernel`);
  await fill(bed);
  await silence(bed);
  const thread = await busiest(pid, () => fill(bed));
  const costs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    await silence(bed);
    process.kill(pid, 'SIGSTOP');
    const before = receivedFrames(bed).packets;
    const ran = runTime(pid, thread);
    try {
      await waitFor('the router to stand still', () => state(pid) === 'T', { timeout: BOUND });
      await fill(bed);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    const arrived = (): number => receivedFrames(bed).packets - before;
    await waitFor('all frames', () => arrived() >= FILLING, { timeout: BOUND, detail: () => `${arrived()} came` });
    costs.push((runTime(pid, thread) - ran) / arrived());
  }
  return median(costs);
}

async function fill(bed: Bed): Promise<void> {
  const sender = startSender(bed, { count: FILLING, seconds: BOUND / 1000 });
  const { code } = await sender.exited;
  if (code !== 0) throw new Error(`sender: expected exit code 0, got ${code}: ${sender.stderr().trim()}`);
}

/** Until no frame is on its way. */
async function silence(bed: Bed): Promise<void> {
  for (let last = -1, now = 0; now !== last; ) {
    last = receivedFrames(bed).packets;
    await sleep(QUIET);
    now = receivedFrames(bed).packets;
  }
}

/** The thread of a process that runs most while `work` is done. */
async function busiest(pid: number, work: () => Promise<void>): Promise<string> {
  const threads = readdirSync(`/proc/${pid}/task`);
  const before = threads.map((thread) => runTime(pid, thread));
  await work();
  const used = threads.map((thread, n) => runTime(pid, thread) - before[n]);
  return threads[used.indexOf(Math.max(...used))];
}

/** Seconds that a thread has run (proc(5), schedstat: nanoseconds). */
function runTime(pid: number, thread: string): number {
  return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]) / 1e9;
}

function state(pid: number): string {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return text.slice(text.lastIndexOf(')') + 2, text.lastIndexOf(')') + 3);
}
