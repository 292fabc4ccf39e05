/**
 * `npm run delegations [-- CLIENTS [KILLS]] [--write]`: 10,000 prefixes of /60 out of a /40, given over the lease file by a
 * router that is killed five times meanwhile. Prints the figures; `--write` puts them into docs/dhcp6.md. Exit code 1 when a
 * lease was lost or given twice.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../controlplane/package-root.ts';
import { commandLine } from '../lib/command.ts';
import { type Delegations, delegate } from './run.ts';

const [BEGIN, END] = ['<!-- npm run delegations -- --write -->', '<!-- end -->'];

function table(result: Delegations): string {
  const rows: [string, string | number][] = [
    ['clients that were told a prefix', result.told],
    ['routers killed meanwhile (signal 9)', result.kills],
    ['of what was told, not in the file', result.lost.length],
    ['leases in the file, and different prefixes among them', `${result.leases}, ${result.prefixes}`],
    ['delegations a second (four messages each, on the disk before the answer)', result.rate],
    ['memory of the router at the end', `${result.memory} MiB`],
  ];
  const day = new Date().toISOString().slice(0, 10);
  const machine = `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}, ${day}`;
  return ['| | |', '| --- | --- |', ...rows.map(([what, value]) => `| ${what} | ${value} |`), '', machine].join('\n');
}

/** Replaces what is between the marks of the page. */
function write(text: string): void {
  const file = join(packageRoot(), 'docs', 'dhcp6.md');
  const page = readFileSync(file, 'utf8');
  const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (from < 0 || to < from)
    throw new Error(`${file}: expected "${BEGIN}" and "${END}", got a page without; put them back`);
  writeFileSync(file, `${page.slice(0, from + BEGIN.length)}\n${text}\n${page.slice(to)}`);
}

const USAGE = `usage: npm run delegations [-- CLIENTS [KILLS]] [--write]

Prefixes given over DHCPv6 by a router that is killed meanwhile: every lease that a client was told of must be in the file.

  CLIENTS   how many (10000)
  KILLS     how often the router is killed (5)
  --write   put the figures into docs/dhcp6.md
`;

const asked = commandLine('delegations', USAGE, { write: { kind: 'flag' } }, 2);
const { operands } = asked;
const total = Number(operands[0] ?? 10_000);
const kills = Number(operands[1] ?? 5);
const inRange = (value: number, low: number, high: number) => Number.isInteger(value) && value >= low && value <= high;
if (!inRange(total, 1, 0xffffff) || !inRange(kills, 0, 99))
  asked.refuse(
    `expected CLIENTS (1 to 16777215) and KILLS (0 to 99), got ${operands.join(' ')}; leave them out for 10000 and 5`,
  );
const result = await delegate(fileURLToPath(new URL('child.js', import.meta.url)), total, kills);
console.log(table(result));
if (asked.has('write')) write(table(result));
process.exitCode = result.told === total && result.lost.length === 0 && result.leases === result.prefixes ? 0 : 1;
