/**
 * Documents: everything in the repository that states a figure, written from the newest full result: the block in
 * README.md, docs/performance.svg, and the marked blocks of docs/performance.md. Nobody types a figure.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { chart } from './chart.ts';
import { formatValue, latestResults, type Profile, type ResultFile, ROOT } from './results.ts';
import { figure, replaceBlock, targetTable, writeReadme } from './table.ts';

/** Writes all of them. Throws when there is no full result yet. */
export function writeDocuments(): void {
  const latest = latestResults();
  if (latest === null) throw new Error('bench/results: expected the result of a full run, got none; run npm run bench');
  const { path, file } = latest;
  writeReadme(file);
  writeFileSync(join(ROOT, 'docs', 'performance.svg'), chart(file));
  const page = join(ROOT, 'docs', 'performance.md');
  let text = readFileSync(page, 'utf8');
  const blocks: Record<string, string> = {
    machine: machineText(file, relative(ROOT, path)),
    targets: targetTable(file),
    results: resultTable(file),
    limits: limitTable(file.limits),
    profile: file.profiles.map(profileTable).join('\n\n') || 'not measured',
  };
  for (const [name, block] of Object.entries(blocks))
    text = replaceBlock(text, block, `<!-- bench:${name}:begin -->`, `<!-- bench:${name}:end -->`);
  writeFileSync(page, text);
}

function machineText(file: ResultFile, path: string): string {
  const { cpu, cores, memory, kernel, node, date, commit } = file.machine;
  const size = (memory / 2 ** 30).toFixed(0);
  return `${cpu}, ${cores} cores, ${size} GiB, Linux ${kernel}, Node ${node}, ${date}, commit ${commit}; \`${file.command}\`, ${file.seconds} s. Source: \`${path}\`.\n\n![Sluice beside its peers](performance.svg)`;
}

/** Every result with what it leaves out. */
export function resultTable(file: ResultFile): string {
  const lines = [
    '| workload | Sluice | spread | runs | beside | ratio | note |',
    '| --- | ---: | ---: | ---: | --- | ---: | --- |',
  ];
  for (const result of file.results) {
    const { name, spread, runs, peer, peerValue, unit, ratio, note, detail } = result;
    const beside = peerValue === null ? '' : `${peer}: ${formatValue(peerValue, unit)}`;
    const extras = Object.entries(detail).map(([key, value]) => `${key} ${compact(value)}`);
    const cells = [
      `\`${name}\``,
      figure(result),
      runs > 1 ? `${(spread * 100).toFixed(0)} %` : '',
      String(runs),
      beside,
      ratio === null ? '' : ratio.toFixed(2),
      [note, ...extras].filter((part) => part !== '').join('; '),
    ];
    lines.push(`| ${cells.join(' | ')} |`);
  }
  if (file.skipped.length > 0) lines.push('', 'Skipped:', '');
  for (const { name, skipped } of file.skipped) lines.push(`- \`${name}\`: ${skipped}`);
  return lines.join('\n');
}

function compact(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

const LIMITS: Readonly<Record<string, string>> = {
  'memory.visit.16k': 'visit to a cache line, 16 KiB (L1)',
  'memory.visit.256k': 'visit, 256 KiB (L2)',
  'memory.visit.8m': 'visit, 8 MiB (L3)',
  'memory.visit.256m': 'visit, 256 MiB (memory, 4 KiB pages)',
  'memory.visit.256m.huge': 'visit, 256 MiB (memory, huge pages)',
  'copy.64': 'copy of 64 bytes, loop over words',
  'copy.1500': 'copy of 1500 bytes, TypedArray.set',
  'system-call.ffi': 'system call through FFI that does nothing',
};

export function limitTable(limits: Readonly<Record<string, number>>): string {
  const lines = ['| what | nanoseconds |', '| --- | ---: |'];
  for (const [name, value] of Object.entries(limits)) lines.push(`| ${LIMITS[name] ?? name} | ${value.toFixed(1)} |`);
  return lines.join('\n');
}

export function profileTable({ name, nanoseconds, rows }: Profile): string {
  const lines = [
    `\`${name}\`, ${nanoseconds.toFixed(1)} ns a packet (under the profiler):`,
    '',
    '| share | ns | function | file |',
    '| ---: | ---: | --- | --- |',
  ];
  for (const row of rows)
    lines.push(
      `| ${(row.share * 100).toFixed(1)} % | ${(row.share * nanoseconds).toFixed(1)} | \`${row.function}\` | ${row.file} |`,
    );
  return lines.join('\n');
}
