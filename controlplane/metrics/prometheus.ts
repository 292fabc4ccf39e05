/**
 * Prometheus: the counters in the text exposition format, version 0.0.4.
 *
 * Labels are names of the configuration (ports, zones), stages, reasons, protocols, never an address: so the number of
 * series is bounded whatever the traffic is, and a scrape tells nobody who talks to whom.
 */
import * as T from '../../dataplane/tables.ts';
import { type Summary, summarize } from '../api/summary.ts';
import { type CountsJson, protocolOf } from '../describe.ts';
import { DnsForwarder } from '../dns/forwarder.ts';
import { packageVersion } from '../package-root.ts';
import type { ShowSource } from '../show/source.ts';

type Labels = Readonly<Record<string, string>>;

/** One metric: its head lines, then a line per series. */
class Page {
  private readonly lines: string[] = [];

  metric(type: 'counter' | 'gauge', name: string, help: string, series: readonly (readonly [Labels, number])[]): void {
    if (series.length === 0) return;
    this.lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const [labels, value] of series) {
      const inner = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`);
      this.lines.push(`${name}${inner.length === 0 ? '' : `{${inner.join(',')}}`} ${value}`);
    }
  }

  toString(): string {
    return `${this.lines.join('\n')}\n`;
  }
}

/** Backslash, quote and line feed, as the format demands of label values. */
function escapeLabel(text: string): string {
  return text.replace(/[\\"\n]/g, (letter) => (letter === '\n' ? '\\n' : `\\${letter}`));
}

/** What GET /metrics answers. */
export async function metricsText(source: ShowSource): Promise<string> {
  const summary = summarize(source);
  const page = new Page();
  page.metric('gauge', 'sluice_build_info', 'Version of the router.', [[{ version: packageVersion() }, 1]]);
  page.metric('gauge', 'sluice_uptime_seconds', 'Seconds since the router started.', [[{}, summary.uptime / 1000]]);
  ports(page, summary);
  packets(page, summary);
  tables(page, source, summary);
  page.metric(
    'gauge',
    'sluice_nat_ports_used',
    'Outside ports (ICMP: identifiers) in use, over all addresses.',
    byProtocol(summary, 'used'),
  );
  page.metric(
    'gauge',
    'sluice_nat_ports_available',
    'Outside ports that the rules lend.',
    byProtocol(summary, 'available'),
  );
  workers(page, summary);
  domains(page, source);
  await services(page, source);
  names(page, source);
  return page.toString();
}

/** What the families' domains have given; one that is down or does not answer has no series. */
async function services(page: Page, { control }: ShowSource): Promise<void> {
  const asked = (['ipv4', 'ipv6'] as const).map(
    async (name) => (await control.domains.ask(name, 'counts')) as CountsJson,
  );
  const answers = await Promise.allSettled(asked);
  const leases: [Labels, number][] = [];
  const online: [Labels, number][] = [];
  for (const [n, answer] of answers.entries()) {
    if (answer.status === 'rejected') continue;
    const family = n === 0 ? 'inet' : 'inet6';
    const { value } = answer;
    for (const [port, count] of Object.entries(value.leases)) leases.push([{ family, port }, count]);
    if (value.gateway !== null) online.push([{ family }, value.gateway === 'online' ? 1 : 0]);
  }
  page.metric('gauge', 'sluice_dhcp_leases', 'Leases in force of the DHCP and DHCPv6 servers, by port.', leases);
  page.metric('gauge', 'sluice_gateway_online', '1 when the gateway has brought the family up.', online);
}

function names(page: Page, { control }: ShowSource): void {
  const dns = protocolOf(control.protocols, DnsForwarder);
  if (dns === null) return;
  page.metric(
    'counter',
    'sluice_dns_questions_total',
    'What became of questions to the DNS forwarder, as show dns counts them.',
    Object.entries(dns.counters).map(([what, count]) => [{ what }, count]),
  );
  page.metric('gauge', 'sluice_dns_cache_entries', 'Answers in the cache of the DNS forwarder.', [
    [{}, dns.cache.size],
  ]);
}

function domains(page: Page, { control }: ShowSource): void {
  const series = (value: (view: (typeof control.domains.health)[number]) => number): [Labels, number][] =>
    control.domains.health.map((view) => [{ domain: view.domain }, value(view)]);
  page.metric(
    'counter',
    'sluice_domain_restarts_total',
    'Starts of a domain of the control plane after its first.',
    series(({ restarts }) => restarts),
  );
  page.metric(
    'counter',
    'sluice_domain_failures_total',
    'Restarts because the domain had failed.',
    series(({ failures }) => failures),
  );
}

function ports(page: Page, { ports: links }: Summary): void {
  const series = (value: (link: Summary['ports'][number]) => number): [Labels, number][] =>
    links.map((link) => [labelsOf(link), value(link)]);
  const counter = (name: string, help: string, value: (link: Summary['ports'][number]) => number): void =>
    page.metric('counter', `sluice_port_${name}_total`, help, series(value));
  counter('receive_packets', 'Frames received.', (link) => link.stats64.rx.packets);
  counter('receive_bytes', 'Bytes received, Ethernet header included.', (link) => link.stats64.rx.bytes);
  counter('receive_drop', 'Frames dropped that came in by the port.', (link) => link.stats64.rx.dropped);
  counter('receive_errors', 'Reads that the device refused.', (link) => link.stats64.rx.errors);
  counter('transmit_packets', 'Frames sent.', (link) => link.stats64.tx.packets);
  counter('transmit_bytes', 'Bytes sent, Ethernet header included.', (link) => link.stats64.tx.bytes);
  counter('transmit_errors', 'Writes that the device refused.', (link) => link.stats64.tx.errors);
  const mirrors = links.flatMap((link) =>
    link.mirror === undefined ? [] : [{ ...link.mirror, labels: labelsOf(link) }],
  );
  page.metric(
    'counter',
    'sluice_port_mirror_lost_total',
    'Frames missing in the mirror of the port.',
    mirrors.map(({ labels, lost }) => [labels, lost]),
  );
  page.metric(
    'gauge',
    'sluice_port_mirror_stopped',
    '1 while the mirror of the port is not written: a full disk, or a pipe that nobody reads.',
    mirrors.map(({ labels, stopped }) => [labels, stopped ? 1 : 0]),
  );
  page.metric(
    'gauge',
    'sluice_port_up',
    '1 when the port is up.',
    series((link) => (link.operstate === 'UP' ? 1 : 0)),
  );
  page.metric(
    'gauge',
    'sluice_port_mtu_bytes',
    'MTU of the port.',
    series((link) => link.mtu),
  );
}

/** What a VLAN port counts, the port under it counts as well: by `vlan`, a sum over ports can leave it out. */
function labelsOf({ ifname, zone, vlan }: Summary['ports'][number]): Labels {
  return vlan === undefined ? { port: ifname, zone } : { port: ifname, zone, vlan: `${vlan}` };
}

function packets(page: Page, { packets: totals, drops }: Summary): void {
  const words: Readonly<Record<keyof Summary['packets'], string>> = {
    received: 'Frames that entered the path.',
    forwarded: 'Frames forwarded.',
    delivered: 'Frames for the router itself or its host.',
    generated: 'Frames that the router itself made.',
    held: 'Frames that were held for a neighbour or for other fragments.',
  };
  for (const [name, help] of Object.entries(words))
    page.metric('counter', `sluice_packets_${name}_total`, help, [[{}, totals[name as keyof Summary['packets']]]]);
  page.metric(
    'counter',
    'sluice_drops_total',
    'Frames dropped, by reason and the stage that usually gives it.',
    drops.map(({ stage, reason, count }) => [{ stage, reason }, count]),
  );
}

function tables(page: Page, source: ShowSource, summary: Summary): void {
  const { conntrack, offload, routes } = summary;
  page.metric('gauge', 'sluice_conntrack_entries', 'Connections.', [[{}, conntrack.entries]]);
  page.metric('gauge', 'sluice_conntrack_entries_limit', 'Connections that there may be.', [[{}, conntrack.max]]);
  page.metric(
    'gauge',
    'sluice_offload_entries',
    'Flow entries installed.',
    offload.tables.map(({ table, entries }) => [{ table }, entries]),
  );
  page.metric(
    'gauge',
    'sluice_offload_entries_limit',
    'Flow entries that there may be.',
    offload.tables.map(({ table, capacity }) => [{ table }, capacity]),
  );
  page.metric('counter', 'sluice_offload_hits_total', 'Packets forwarded by the engine.', [[{}, offload.hits]]);
  page.metric('counter', 'sluice_offload_mismatches_total', 'Packets that verify mode found wrong.', [
    [{}, offload.mismatches],
  ]);
  const causes = ['link', 'route', 'nat', 'filter'];
  page.metric(
    'counter',
    'sluice_offload_flushes_total',
    'Flushes of the engine, by cause.',
    causes.map((cause, n) => [{ cause }, source.tables.control[T.FLUSHES + n]]),
  );
  page.metric('gauge', 'sluice_routes', 'Routes installed.', [
    [{ family: 'inet' }, routes.inet],
    [{ family: 'inet6' }, routes.inet6],
  ]);
  page.metric('gauge', 'sluice_neighbours', 'Entries of the neighbour table.', [[{}, summary.neighbours]]);
}

function byProtocol({ nat }: Summary, what: 'used' | 'available'): [Labels, number][] {
  const sums = new Map<string, number>();
  for (const use of nat) sums.set(use.protocol, (sums.get(use.protocol) ?? 0) + use[what]);
  return [...sums].map(([protocol, sum]) => [{ protocol }, sum]);
}

function workers(page: Page, { workers: list }: Summary): void {
  const series = (value: (worker: Summary['workers'][number]) => number): [Labels, number][] =>
    list.map((worker) => [{ worker: String(worker.worker) }, value(worker)]);
  page.metric(
    'gauge',
    'sluice_worker_up',
    '1 while the worker lives.',
    series(({ state }) => (state === 'dead' ? 0 : 1)),
  );
  page.metric(
    'counter',
    'sluice_worker_received_total',
    'Frames that the worker took in.',
    series((w) => w.received),
  );
  page.metric(
    'counter',
    'sluice_worker_restarts_total',
    'Starts after the first.',
    series((w) => w.restarts),
  );
  page.metric(
    'counter',
    'sluice_worker_sleeps_total',
    'Times that it went to sleep.',
    series((w) => w.sleeps),
  );
  const lost = (ring: string, value: (worker: Summary['workers'][number]) => number): [Labels, number][] =>
    list.map((worker) => [{ worker: String(worker.worker), ring }, value(worker)]);
  page.metric('counter', 'sluice_worker_ring_lost_total', 'Records that a ring had no room for.', [
    ...lost('punt', (w) => w.punt_lost),
    ...lost('inject', (w) => w.inject_lost),
  ]);
}
