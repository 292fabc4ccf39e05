/**
 * `npm run delegations [-- CLIENTS [KILLS]] [--write]`: 10,000 prefixes of /60 out of a /40, given over the lease file by a
 * router that is killed five times meanwhile. Prints the figures; `--write` puts them into docs/dhcp6.md. Exit code 1 when a
 * lease was lost or given twice.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../controlplane/package-root.ts';
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

const { values, positionals } = parseArgs({ options: { write: { type: 'boolean' } }, allowPositionals: true });
const total = Number(positionals[0] ?? 10_000);
const kills = Number(positionals[1] ?? 5);
if (!(total > 0 && total < 0x1000000 && kills >= 0 && kills < 100)) {
  console.error(
    `delegations: expected CLIENTS (1 to 16777215) and KILLS (0 to 99), got ${positionals.join(' ')}; leave them out for 10000 and 5`,
  );
  process.exit(2);
}
const result = await delegate(fileURLToPath(new URL('child.js', import.meta.url)), total, kills);
console.log(table(result));
if (values.write) write(table(result));
process.exitCode = result.told === total && result.lost.length === 0 && result.leases === result.prefixes ? 0 : 1;
