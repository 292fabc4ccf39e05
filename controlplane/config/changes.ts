/**
 * Changes: what it takes to put another value of a key in force on a running router (`sluice apply`).
 *
 *   live      it is put into the tables; nothing is made anew
 *   a domain  the protocols of that family are made anew (domain.ts): they learn again what they knew, while their addresses
 *             and routes stay in force and packets go on. A lease file that cannot be used then is logged, not refused
 *   restart   it sizes a table, opens a device or a socket, or belongs to a thread: refused while the router runs
 *
 * Names are those of the configuration as it is read (types.ts); `*` is the name of a port. The first row that fits counts.
 */
import type { DomainName } from '../domain.ts';

export type ChangeNeeds = 'live' | 'restart' | readonly DomainName[];

const CHANGES: readonly (readonly [path: string, needs: ChangeNeeds])[] = [
  ['logLevel', 'live'],
  ['ports.*.zone', 'live'],
  ['ports.*.addresses', 'live'],
  ['ports.*.mssClamp', 'live'],
  ['ports.*.ethertypes', 'live'],
  ['ports.*.sources', 'live'],
  ['ports.*.securityGroup', 'live'],
  ['ports.*.conntrackZone', 'live'],
  ['ports.*.dhcp4', ['ipv4']],
  ['ports.*.ra', ['ipv6']],
  ['ports.*.acceptRa', ['ipv6']],
  ['ports.*.dhcp6', ['ipv6']],
  ['routes', 'live'],
  ['routeTables', 'live'],
  ['routingRules', 'live'],
  ['neighbors', 'live'],
  ['zones', 'live'],
  ['hosts', 'live'],
  ['rules', 'live'],
  ['nat.log', 'restart'],
  ['nat', 'live'],
  ['alg', 'live'],
  ['conntrack.timeouts', 'live'],
  ['conntrack.tcpLiberal', 'live'],
  ['delegation', ['ipv6']],
  ['dns', ['management']],
  // The program is started by whoever started the router.
  ['gateway.script', 'restart'],
  ['gateway', ['ipv4', 'ipv6']],
];

/** What a change of the key at this path needs; keys that are in no row need a restart. */
export function needsOf(path: string): ChangeNeeds {
  const words = path.split('.');
  for (const [row, needs] of CHANGES)
    if (row.split('.').every((word, n) => word === '*' || word === words[n])) return needs;
  return 'restart';
}
