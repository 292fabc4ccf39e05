/**
 * Child: runs one task of a workload in a fresh process and prints its answer as one line of JSON.
 *
 *   node child.js '{"kind": "forward", ...}'
 */
import { limits } from './limits.ts';
import * as memory from './memory.ts';
import { replay } from './replay.ts';

const task = JSON.parse(process.argv[2]) as { kind: string };
const tasks: Record<string, (task: never) => unknown> = {
  forward: memory.forward,
  fresh: memory.fresh,
  alloc: memory.alloc,
  bytes: memory.bytesPerConnection,
  workers: memory.workers,
  limits,
  replay,
};
const run = tasks[task.kind];
if (run === undefined)
  throw new Error(`bench child: expected one of ${Object.keys(tasks).join(', ')}, got "${task.kind}"`);
const answer = await run(task as never);
process.stdout.write(`${JSON.stringify(answer)}\n`);
