/**
 * `npm run soak -- --minutes 10 --seed 1`: the soak runs, inline and (as root) live, each for half of the time. The exit
 * status is 1 when something was lost, grew, or did not add up. `--inline` and `--live` choose one of them; `--write`
 * puts the results into docs/reliability.md.
 */
import { labReady } from '../lab/need.ts';
import { commandLine } from '../lib/command.ts';
import { soakInline } from './inline.ts';
import { PROGRAMS, soakLive, TALKERS } from './live.ts';
import { machine, writeBlock } from './table.ts';

const USAGE = `usage: npm run soak [-- OPTION ...]

Traffic, faults and changes of the configuration for a long time, in one thread and (as root) live: nothing may be lost or grow.

  --minutes N   for both runs together (10)
  --seed S      of the faults and of the traffic (1)
  --inline      only the run in one thread
  --live        only the live run
  --write       put the results into docs/reliability.md
`;

const asked = commandLine('soak', USAGE, {
  minutes: { kind: 'value', expected: 'a number' },
  seed: { kind: 'value', expected: 'a number' },
  inline: { kind: 'flag' },
  live: { kind: 'flag' },
  write: { kind: 'flag' },
});
const minutes = asked.above0('minutes', 10);
const seed = asked.whole('seed', 1);
const say = (line: string) => process.stderr.write(`soak: ${line}\n`);
const live = (asked.has('live') || !asked.has('inline')) && labReady(PROGRAMS, { tun: true });
const inline = asked.has('inline') || !asked.has('live');
const seconds = (minutes * 60) / (Number(live) + Number(inline) || 1);
const rows: string[][] = [['run', 'time', 'load', 'faults', 'lost', 'memory, descriptors more']];
const grown = (growth: number, descriptors: number) => `${(growth / 2 ** 20).toFixed(1)} MiB, ${descriptors}`;
try {
  if (inline) {
    const r = soakInline(seconds, seed, say);
    rows.push([
      'inline',
      `${r.seconds.toFixed(0)} s`,
      `${r.packets} packets, ${r.connections} connections`,
      `${r.faults} frames lost, doubled, late or damaged, others mutated; links down, engine flushed, ${r.applied} configurations applied`,
      `0 of 48 connections in ${r.checks} checks; every packet in one counter, every table empty at the end`,
      grown(r.growth, r.descriptors),
    ]);
  }
  if (live) {
    const r = await soakLive(seconds, { seed, say });
    rows.push([
      `live, ${r.workers} workers`,
      `${r.seconds.toFixed(0)} s`,
      `${r.received} packets: ${r.downloads} downloads of 5 MB, ${r.transfers} runs of iperf3 with ${(r.bytes / 1e9).toFixed(1)} GB, fragmented pings, ${r.lines} lines on connections that stay open`,
      `frames lost, doubled, late or damaged; ${r.deaths} workers killed, ${r.flaps} links down, ${r.flushes} flushes, ${r.applied} configurations applied`,
      `0 of ${TALKERS} connections, 0 downloads; every packet in one counter (${r.died} of dying workers), every table empty at the end`,
      grown(r.growth, r.descriptors),
    ]);
  }
  const text = [
    machine(`npm run soak -- --minutes ${minutes} --seed ${seed}`),
    ...rows.map((r) => `| ${r.join(' | ')} |`),
  ];
  text.splice(2, 0, `|${rows[0].map(() => ' --- ').join('|')}|`);
  console.log(text.join('\n'));
  if (asked.has('write')) writeBlock('soak', text.join('\n'));
} catch (error) {
  console.error(`soak: failed: ${(error as Error).message}`);
  process.exitCode = 1;
}
