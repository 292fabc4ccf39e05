/** Table, chart and page: what they draw from a result file. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bars, chart } from '../../bench/chart.ts';
import { limitTable, profileTable, resultTable } from '../../bench/documents.ts';
import { againstReference, latestResults, type ResultFile, summarize } from '../../bench/results.ts';
import {
  BEGIN,
  END,
  readmeTable,
  replaceBlock,
  TARGETS,
  targetTable,
  verdict,
  writeReadme,
} from '../../bench/table.ts';

const engine = summarize({ name: 'memory.nat44.engine.65k', unit: 'pps', values: [12_900_000] });
const file: ResultFile = {
  machine: {
    cpu: 'A <fast> CPU & more',
    cores: 2,
    memory: 24 * 2 ** 30,
    kernel: '6.18.0',
    node: 'v20.19.0',
    date: '2026-01-02T03:04:05.000Z',
    commit: 'abc1234',
  },
  command: 'npm run bench',
  seconds: 700,
  results: [
    againstReference(engine, {
      name: engine.name,
      peer: 'VPP nat44-ed',
      value: 4_300_000,
      unit: 'pps',
      source: 'another run',
    }),
    summarize({ name: 'tap.latency', unit: 's', values: [0.0002], peer: 'Linux nftables', peerValues: [0.0001] }),
    summarize({ name: 'live.idle', unit: 'ratio', values: [0.0042] }),
    summarize({ name: 'memory.alloc', unit: 'bytes', values: [0], detail: { collections: 0 } }),
    summarize({ name: 'replay.sip', unit: 'pps', values: [5000] }),
  ],
  skipped: [{ name: 'tap.nat44.tcp against pasta', skipped: 'pasta is not installed' }],
  limits: { 'memory.visit.256m': 105.21 },
  profiles: [{ name: 'x', nanoseconds: 50, rows: [{ share: 0.5, function: 'hit4', file: 'dataplane/fastpath.ts' }] }],
};

describe('the README block', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-bench-test-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('replaces what is between the markers and nothing else', () => {
    const path = join(folder, 'README.md');
    writeFileSync(path, `# A\n\n${BEGIN}\nold\n${END}\n\nthe end\n`);
    writeReadme(file, path);
    const once = readFileSync(path, 'utf8');
    expect(once).toMatch(/^# A\n\n<!-- bench:begin -->\n\| work/);
    expect(once).toMatch(/<!-- bench:end -->\n\nthe end\n$/);
    expect(once).not.toContain('old');
    writeReadme(file, path);
    expect(readFileSync(path, 'utf8')).toBe(once);
  });

  it('makes a README with the markers when there is none', () => {
    const path = join(folder, 'README.md');
    writeReadme(file, path);
    expect(readFileSync(path, 'utf8')).toContain('| `memory.nat44.engine.65k` | 12.9 Mpps |');
  });

  it('refuses a text without markers', () => {
    expect(() => replaceBlock('# A', 'x')).toThrow(/expected <!-- bench:begin -->/);
  });

  it('says of a reference that it is one, and names the machine', () => {
    const table = readmeTable(file);
    expect(table).toContain('VPP nat44-ed (reference, other run): 4.30 Mpps | 3.00 |');
    expect(table).toContain('0.42 % of a core');
    expect(table).not.toContain('replay.');
    expect(table).toContain('Linux 6.18.0, Node v20.19.0, 2026-01-02, commit abc1234');
  });

  it('takes the newest full result, and no other', () => {
    for (const name of ['2026-01-01T000000Z-full', '2026-01-03T000000Z-quick', '2026-01-02T000000Z-full'])
      writeFileSync(join(folder, `${name}.json`), JSON.stringify({ ...file, command: name }));
    expect(latestResults(folder)?.file.command).toBe('2026-01-02T000000Z-full');
    expect(latestResults(join(folder, 'none'))).toBeNull();
  });
});

describe('targets', () => {
  it('are reached, wanted, missed or not measured', () => {
    const [sp1] = TARGETS; // must 2, want 4
    expect([1.9, 2, 4, Number.NaN].map((value) => verdict(sp1, value))).toEqual([
      'missed',
      'must',
      'want',
      'not measured',
    ]);
    const idle = TARGETS.find(({ id }) => id === 'SP12');
    expect([0.02, 0.01, 0.003].map((value) => verdict(idle!, value))).toEqual(['missed', 'must', 'want']);
  });

  it('have a row each, all of SP1 to SP13', () => {
    const table = targetTable(file);
    for (let n = 1; n <= 13; n++) expect(table).toContain(`| SP${n} |`);
    expect(table).toMatch(/SP1 \| NAT44, engine, 65 k .*\| 3\.00 × \| must \|/);
    expect(table).toMatch(/SP9 .*≤ 2\.00 × \| ≤ 1\.30 × \| 2\.00 × \| must/);
    expect(table).toMatch(/SP13 .*\| {2}\| not measured/);
  });
});

describe('the chart', () => {
  it('turns latency round, so that longer is better', () => {
    expect(bars(file.results).map(({ ratio }) => ratio)).toEqual([3, 0.5]);
  });

  it('is well-formed: every text escaped, every element closed', () => {
    const svg = chart(file);
    expect(svg).toContain('A &lt;fast&gt; CPU &amp; more');
    const open = svg.match(/<(svg|title|defs|pattern|text)\b/g)?.length;
    expect(svg.match(/<\/(svg|title|defs|pattern|text)>/g)?.length).toBe(open);
    expect(svg).toContain('url(#hatch)');
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });
});

describe('the page', () => {
  it('shows notes, details and what was skipped', () => {
    const table = resultTable(file);
    expect(table).toContain('reference, other run: another run');
    expect(table).toContain('collections 0');
    expect(table).toContain('- `tap.nat44.tcp against pasta`: pasta is not installed');
  });

  it('shows limits and profiles in nanoseconds', () => {
    expect(limitTable(file.limits)).toContain('| visit, 256 MiB (memory, 4 KiB pages) | 105.2 |');
    expect(profileTable(file.profiles[0])).toContain('| 50.0 % | 25.0 | `hit4` | dataplane/fastpath.ts |');
  });
});
