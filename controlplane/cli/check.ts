/**
 * `sluice check`: reads a configuration and says what is wrong with it, or what the router would make of it: ports,
 * zones, routes, and the memory that the tables take. Starts nothing and opens no device.
 */

import { createTables, DEFAULT_SIZES } from '../../dataplane/tables.ts';
import type { Config, PortConfig } from '../config/index.ts';
import { loadConfig } from '../config/index.ts';
import { neededSizes } from '../table-sizes.ts';
import { oneOperand, parseArguments } from './args.ts';

const HELP = `Usage: sluice check FILE

Reads a configuration. When it is right: its name, a summary, the memory that its tables will take, and warnings about
what is legal but probably not meant. When it is not: every fault as FILE:LINE:COLUMN PATH: expected ..., got ...

Exit codes: 0 right, 2 faults.
`;

export function checkCommand(argv: string[]): number {
  const { flags, operands } = parseArguments('sluice check', argv, {});
  if (flags.has('help')) {
    process.stdout.write(HELP);
    return 0;
  }
  const file = oneOperand('sluice check', operands, 'a configuration file');
  const config = loadConfig(file);
  process.stdout.write(summary(file, config));
  for (const warning of config.warnings) process.stderr.write(`${warning}\n`);
  return 0;
}

/** What the router would make of the configuration, as text for people. */
export function summary(file: string, config: Config): string {
  const lines = [`${file}: ok`, '', ...table('ports', config.ports.map(portRow))];
  lines.push(
    ...table(
      'zones',
      config.zones.map((zone) => [
        zone.name,
        zone.ports.map((port) => config.ports[port].name).join(' '),
        verdicts('forward', zone.ipv4.forward, zone.ipv6.forward),
        verdicts('input', zone.ipv4.input, zone.ipv6.input),
      ]),
    ),
  );
  lines.push(
    ...table(
      'routes',
      config.routes.map((route) => [
        route.to.text,
        route.type !== 'unicast' ? route.type : route.via === null ? 'on link' : `via ${route.via.text}`,
        route.port < 0 ? '' : `out ${config.ports[route.port].name}`,
      ]),
    ),
  );
  const nat = config.nat;
  lines.push(
    ...table('also', [
      ['rules', String(config.rules.length)],
      [
        'nat',
        `profile ${nat.profile}, ${nat.masquerade.length} masquerade, ${nat.forward.length} forward, ${nat.dmz.length} dmz`,
      ],
      ['alg', enabledAlgs(config)],
      ['offload', `${config.offload.mode}, ${config.offload.entries} entries`],
      ['workers', String(config.workers)],
    ]),
  );
  lines.push(...table('memory', memoryRows(config)));
  return `${lines.join('\n')}\n`;
}

function portRow(port: PortConfig): string[] {
  const where = port.vlan !== 0 ? `vlan ${port.vlan}` : port.ifname;
  return [
    port.name,
    port.kind,
    where,
    port.zoneName === '' ? '' : `zone ${port.zoneName}`,
    `mtu ${port.mtu}`,
    port.addresses.map((address) => address.text).join(' '),
  ];
}

function verdicts(name: string, ipv4: string, ipv6: string): string {
  return ipv4 === ipv6 ? `${name} ${ipv4}` : `${name} ${ipv4} (IPv6: ${ipv6})`;
}

function enabledAlgs(config: Config): string {
  const names = Object.values(config.alg)
    .filter((alg) => alg.enabled)
    .map((alg) => `${alg.name} (${alg.ports.join(', ')})`);
  return names.length === 0 ? 'none' : names.join(', ');
}

/** Rows of words in aligned columns below a heading; nothing when there are no rows. */
export function table(heading: string, rows: readonly (readonly string[])[]): string[] {
  if (rows.length === 0) return [];
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, n) => {
      widths[n] = Math.max(widths[n] ?? 0, cell.length);
    });
  const shown = rows.map((row) =>
    row.map((cell, n) => (widths[n] === 0 ? '' : `${cell.padEnd(widths[n])}  `)).join(''),
  );
  return [heading, ...shown.map((line) => `  ${line.trimEnd()}`), ''];
}

/**
 * Bytes of every shared table, measured on tables made with the sizes that the router will use. They are address space:
 * the system gives memory when a table is used.
 */
function memoryRows(config: Config): string[][] {
  const { offload } = config;
  const buffers = createTables(
    {
      ...DEFAULT_SIZES,
      ...neededSizes(config),
      connections: config.conntrack.max,
      flows: offload.mode === 'off' ? 0 : offload.entries,
      cachedFlows: offload.mode === 'off' ? 0 : offload.flowCacheEntries,
      workers: config.workers,
    },
    1,
  );
  const rows: [string, number, string][] = [
    ['connections', bytesOf(buffers.conntrack), `${config.conntrack.max}, each in the hash twice`],
    ['engine', bytesOf(buffers.flows), `${offload.entries} entries`],
    ['flow cache', bytesOf(buffers.cachedFlows), `${offload.flowCacheEntries} entries`],
    ['routes', bytesOf(buffers.routes) + bytesOf(buffers.nexthops), ''],
    ['neighbours', bytesOf(buffers.neighbours), `${DEFAULT_SIZES.neighbours}`],
    ['events', bytesOf(buffers.events), ''],
  ];
  const named = rows.reduce((sum, [, bytes]) => sum + bytes, 0);
  const all = bytesOf(buffers);
  return [...rows, ['others', all - named, ''] as const, ['all tables', all, ''] as const]
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes, note]) => [name, `${mebibytes(bytes).padStart(8)} MiB`, note]);
}

function mebibytes(bytes: number): string {
  return (bytes / 1048576).toFixed(1);
}

/** All shared memory below a value. */
function bytesOf(value: unknown): number {
  if (value instanceof SharedArrayBuffer) return value.byteLength;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.values(value).reduce((sum: number, part) => sum + bytesOf(part), 0);
}
