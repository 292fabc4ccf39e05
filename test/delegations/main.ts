/**
 * `npm run delegations [-- CLIENTS [KILLS]]`: 10,000 prefixes of /60 out of a /40, given over the lease file by a router
 * that is killed five times meanwhile. Prints the figures; exit code 1 when a lease was lost or given twice.
 */
import { fileURLToPath } from 'node:url';
import { delegate } from './run.ts';

const total = Number(process.argv[2] ?? 10_000);
const kills = Number(process.argv[3] ?? 5);
if (!(total > 0 && total < 0x1000000 && kills >= 0 && kills < 100)) {
  console.error(
    `delegations: expected CLIENTS (1 to 16777215) and KILLS (0 to 99), got ${process.argv.slice(2).join(' ')}`,
  );
  process.exit(2);
}
const result = await delegate(fileURLToPath(new URL('child.js', import.meta.url)), total, kills);
console.log(`${result.told} clients were told a prefix, over ${result.kills} kills with signal 9`);
console.log(`${result.lost.length} of them are not in the file; ${result.leases} leases, ${result.prefixes} different`);
console.log(
  `last run: ${result.rate} delegations a second (four messages each), ${result.memory} MiB, ${result.inForce} leases`,
);
process.exitCode = result.told === total && result.lost.length === 0 && result.leases === result.prefixes ? 0 : 1;
