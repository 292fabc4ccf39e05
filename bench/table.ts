/**
 * Table: the marked block of README.md, and the table of targets of docs/performance.md, drawn from a result file.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatValue, type Result, type ResultFile, ROOT } from './results.ts';

export const BEGIN = '<!-- bench:begin -->';
export const END = '<!-- bench:end -->';

/** A figure of a result for people. */
export function figure(result: Result): string {
  if (result.name === 'live.idle' || result.name === 'kernel-engine.cpu')
    return `${(result.value * 100).toFixed(2)} % of a core`;
  return formatValue(result.value, result.unit);
}

/** Replaces what stands between the markers; throws when they are not there. */
export function replaceBlock(text: string, block: string, begin = BEGIN, end = END): string {
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from)
    throw new Error(`expected ${begin} and ${end} in the text, got none; add them where the block belongs`);
  return `${text.slice(0, from + begin.length)}\n${block.trim()}\n${text.slice(to)}`;
}

/** One row for each result; replays are left to docs/performance.md. */
export function readmeTable(file: ResultFile): string {
  const lines = ['| work | Sluice | beside | ratio |', '| --- | ---: | --- | ---: |'];
  for (const result of file.results) {
    if (result.name.startsWith('replay.')) continue;
    const { peer, peerValue, ratio, reference, unit } = result;
    const beside =
      peerValue === null ? '' : `${peer}${reference ? ' (reference, other run)' : ''}: ${formatValue(peerValue, unit)}`;
    lines.push(`| \`${result.name}\` | ${figure(result)} | ${beside} | ${ratio === null ? '' : ratio.toFixed(2)} |`);
  }
  const { cpu, cores, kernel, node, date, commit } = file.machine;
  lines.push(
    '',
    `${cpu}, ${cores} cores, Linux ${kernel}, Node ${node}, ${date.slice(0, 10)}, commit ${commit}: \`${file.command}\`.`,
  );
  return lines.join('\n');
}

/** Writes the table into README.md; makes a file with nothing but the markers when there is none. */
export function writeReadme(file: ResultFile, path = join(ROOT, 'README.md')): void {
  const text = existsSync(path) ? readFileSync(path, 'utf8') : `# Sluice\n\n${BEGIN}\n${END}\n`;
  const targets = `What was aimed at, and what was reached:\n\n${targetTable(file)}`;
  writeFileSync(path, replaceBlock(text, `${readmeTable(file)}\n\n${targets}`));
}

/** A target: what must be reached and what is wanted, as ratio or as a figure. */
export interface Target {
  id: string;
  work: string;
  must: number;
  want: number | null;
  /** Reached when the measured figure is at most, not at least, that. */
  most: boolean;
  show: (value: number) => string;
  command: string;
  /** NaN: not measured. */
  measure: (results: Results) => number;
}

/** Results by name, and by the beginning of the peer's name where there are several. */
export class Results {
  private readonly list: readonly Result[];

  constructor(list: readonly Result[]) {
    this.list = list;
  }

  find(name: string, peer = ''): Result | undefined {
    return this.list.find((result) => result.name === name && result.peer.startsWith(peer));
  }

  value(name: string): number {
    return this.find(name)?.value ?? Number.NaN;
  }

  ratio(name: string, peer = ''): number {
    return this.find(name, peer)?.ratio ?? Number.NaN;
  }
}

const times = (value: number): string => `${value.toFixed(2)} ×`;
const percent = (value: number): string => `${(value * 100).toFixed(2)} %`;
const bytes = (value: number): string => formatValue(value, 'bytes');

function target(
  id: string,
  work: string,
  command: string,
  must: number,
  want: number | null,
  measure: Target['measure'],
  show = times,
  most = false,
): Target {
  return { id, work, command, must, want, measure, show, most };
}

const VPP = 'VPP';
const NFT = 'Linux nftables';

export const TARGETS: readonly Target[] = [
  target('SP1', 'NAT44, engine, 65 k flows, against VPP', 'memory.nat44.engine.65k', 2, 4, (r) =>
    r.ratio('memory.nat44.engine.65k', VPP),
  ),
  target('SP1', 'NAT44, engine, 1 M flows, against VPP', 'memory.nat44.engine.1m', 1.5, 2, (r) =>
    r.ratio('memory.nat44.engine.1m', VPP),
  ),
  target('SP2', 'NAT44, engine, 1 k flows, against VPP', 'memory.nat44.engine.1k', 1.5, 2.5, (r) =>
    r.ratio('memory.nat44.engine.1k', VPP),
  ),
  target('SP3', 'NAT44, slow path, 65 k flows, against VPP', 'memory.nat44.slow.65k', 0.7, 1, (r) =>
    r.ratio('memory.nat44.slow.65k', VPP),
  ),
  target('SP4', 'new connections, against VPP', 'memory.new', 1.25, 2, (r) => r.ratio('memory.new', VPP)),
  target('SP4', 'new connections, against Open vSwitch', 'memory.new', 2, 3, (r) =>
    r.ratio('memory.new', 'Open vSwitch'),
  ),
  target('SP5', 'IPv6 forward, engine, 65 k flows, against own NAT44', 'memory.', 0.8, 1, (r) =>
    r.ratio('memory.ipv6.engine.65k', 'own NAT44'),
  ),
  target('SP5', 'IPv6 forward, engine, 1 M flows, against own NAT44', 'memory.', 0.8, 1, (r) =>
    r.ratio('memory.ipv6.engine.1m', 'own NAT44'),
  ),
  target(
    'SP6',
    'TAP to TAP, NAT44, 64 bytes, against the C loop without NAT, --io bpf',
    'tap.nat44.64b.bpf',
    1,
    1.2,
    (r) => r.ratio('tap.nat44.64b.bpf', 'C '),
  ),
  target('SP6', 'the same with io_uring alone', 'tap.nat44.64b', 1, 1.2, (r) => r.ratio('tap.nat44.64b', 'C ')),
  target('SP7', 'TAP to TAP, NAT44, TCP, against Linux nftables', 'tap.nat44.tcp', 0.7, 1, (r) =>
    r.ratio('tap.nat44.tcp', NFT),
  ),
  target('SP8', '2 workers in memory, against 1', 'memory.workers.2', 1.7, 1.9, (r) => r.ratio('memory.workers.2')),
  target(
    'SP9',
    'added latency between TAPs at half load, p99, against Linux nftables',
    'tap.latency',
    2,
    1.3,
    (r) => r.ratio('tap.latency', NFT),
    times,
    true,
  ),
  target(
    'SP9',
    'the same with the kernel engine',
    'kernel-engine.latency',
    2,
    1.3,
    (r) => r.ratio('kernel-engine.latency', NFT),
    times,
    true,
  ),
  target(
    'SP10',
    'bytes allocated per packet on the fast path',
    'memory.alloc',
    0.01,
    null,
    (r) => r.value('memory.alloc'),
    bytes,
    true,
  ),
  target(
    'SP10',
    'collections in a minute at full rate',
    'memory.alloc',
    0,
    null,
    (r) => r.find('memory.alloc')?.detail['collections'] ?? Number.NaN,
    String,
    true,
  ),
  target(
    'SP11',
    'memory per NAT44 connection',
    'memory.bytes-per-connection',
    224,
    160,
    (r) => r.value('memory.bytes-per-connection'),
    bytes,
    true,
  ),
  target('SP12', 'idle CPU, live, two ports', 'live.idle', 0.01, 0.003, (r) => r.value('live.idle'), percent, true),
  target(
    'SP13',
    '10 M connections, against 1 M',
    'memory.nat44.engine.1',
    0.5,
    0.7,
    (r) => r.value('memory.nat44.engine.10m') / r.value('memory.nat44.engine.1m'),
  ),
  target('SP14', 'kernel engine, NAT44, 64 bytes, against Linux nftables', 'kernel-engine.nat44.64b', 1.5, 1.8, (r) =>
    r.ratio('kernel-engine.nat44.64b', NFT),
  ),
  target('SP14', 'kernel engine, NAT44, TCP, against Linux nftables', 'kernel-engine.nat44.tcp', 1, 1.15, (r) =>
    r.ratio('kernel-engine.nat44.tcp', NFT),
  ),
  target(
    'SP15',
    'kernel engine, share of a core that the process uses at full rate',
    'kernel-engine.cpu',
    0.05,
    0.01,
    (r) => r.value('kernel-engine.cpu'),
    percent,
    true,
  ),
];

/** What came of a target, in one word. */
export function verdict({ must, want, most }: Target, value: number): string {
  if (Number.isNaN(value)) return 'not measured';
  const reaches = (goal: number): boolean => (most ? value <= goal : value >= goal);
  if (want !== null && reaches(want)) return 'want';
  return reaches(must) ? 'must' : 'missed';
}

export function targetTable(file: ResultFile): string {
  const results = new Results(file.results);
  const lines = [
    '| # | work | must | want | measured | reached | command |',
    '| --- | --- | ---: | ---: | ---: | --- | --- |',
  ];
  for (const one of TARGETS) {
    const value = one.measure(results);
    const sign = one.most ? '≤ ' : '≥ ';
    const want = one.want === null ? '' : sign + one.show(one.want);
    const measured = Number.isNaN(value) ? '' : one.show(value);
    lines.push(
      `| ${one.id} | ${one.work} | ${sign}${one.show(one.must)} | ${want} | ${measured} | ${verdict(one, value)} | \`npm run bench -- --only ${one.command}\` |`,
    );
  }
  return lines.join('\n');
}
