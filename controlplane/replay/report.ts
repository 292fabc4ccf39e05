/**
 * Report: what a replay did, as the JSON object of `--json` and as text for people.
 */
import type { Router } from '../router.ts';
import { reasonText } from '../show/counters.ts';

export interface ReplayReport {
  received: number;
  forwarded: number;
  /** To the router itself. */
  delivered: number;
  generated: number;
  /** Frames that still wait for a neighbour or for other fragments. */
  held: number;
  dropped: Record<string, number>;
  /** Connections in the table at the end. */
  connections: number;
  offload: { installed: number; hits: number; mismatches: number };
  /** Time that the replay took on this machine, not the captures' own. */
  seconds: number;
  packets_per_second: number;
  /** Frames that were not played: neither side inside, or no IP and no Ethernet. */
  skipped?: number;
  /** Frames whose transport checksum was wrong and was put right before they entered. */
  checksums_recomputed?: number;
}

export interface Extras {
  skipped: number;
  /** Only when one capture with both sides was played. */
  recomputed: number | null;
}

/** @param seconds wall-clock time that the frames took */
export function report(router: Router, seconds: number, extras: Extras): ReplayReport {
  const counters = router.counters;
  const out: ReplayReport = {
    received: counters.received,
    forwarded: counters.forwarded,
    delivered: counters.delivered,
    generated: counters.generated,
    held: counters.held,
    dropped: counters.dropped,
    connections: router.conntrack.count,
    offload: counters.offload,
    seconds: Math.round(seconds * 1e6) / 1e6,
    packets_per_second: seconds > 0 ? Math.round(counters.received / seconds) : 0,
  };
  if (extras.skipped > 0 || extras.recomputed !== null) out.skipped = extras.skipped;
  if (extras.recomputed !== null) out.checksums_recomputed = extras.recomputed;
  return out;
}

/** The report as lines for people. */
export function formatReport(report: ReplayReport, ports: Readonly<Record<string, string>>): string {
  const rows: [string, number, string][] = [
    ['received', report.received, ''],
    ['forwarded', report.forwarded, ''],
    ['delivered', report.delivered, 'to the router itself'],
    ['generated', report.generated, 'by the router itself'],
    ['held', report.held, 'waiting for a neighbour or for other fragments'],
    ['dropped', Object.values(report.dropped).reduce((sum, n) => sum + n, 0), ''],
  ];
  for (const [name, count] of Object.entries(report.dropped)) rows.push([`  ${name}`, count, reasonText(name)]);
  if (report.skipped !== undefined) rows.push(['skipped', report.skipped, 'neither side inside, or not to be played']);
  if (report.checksums_recomputed !== undefined)
    rows.push(['recomputed', report.checksums_recomputed, 'transport checksums that were wrong in the capture']);
  rows.push(['connections', report.connections, 'in the table at the end']);
  rows.push(['offload', report.offload.installed, `installed, ${report.offload.hits} hits`]);
  if (report.offload.mismatches > 0)
    rows.push(['mismatches', report.offload.mismatches, 'frames that the engine would have forwarded otherwise']);
  const names = Math.max(...rows.map(([name]) => name.length));
  const counts = Math.max(...rows.map(([, count]) => String(count).length));
  const lines = rows.map(([name, count, note]) =>
    `${name.padEnd(names)}  ${String(count).padStart(counts)}  ${note}`.trimEnd(),
  );
  lines.push('', ...Object.entries(ports).map(([name, text]) => `${name}: ${text}`));
  lines.push(`${report.seconds.toFixed(3)} s, ${report.packets_per_second} packets a second`);
  return `${lines.join('\n')}\n`;
}
