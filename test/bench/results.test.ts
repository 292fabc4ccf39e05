/** Statistics, references, the guard's judgement and the options of the bench. No timing. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { judge, readBounds, describe as say } from '../../bench/guard.ts';
import { memoryWorkloads } from '../../bench/in-memory.ts';
import { choose, readOptions } from '../../bench/main.ts';
import { liveWorkloads } from '../../bench/on-devices.ts';
import { selfTimes } from '../../bench/profile.ts';
import {
  againstReference,
  formatValue,
  median,
  type Result,
  ROOT,
  readReferences,
  type Skipped,
  spread,
  summarize,
  type Unit,
} from '../../bench/results.ts';
import { TARGETS } from '../../bench/table.ts';

describe('statistics', () => {
  it('takes the middle, and the mean of the two in the middle', () => {
    expect(median([5, 1, 100])).toBe(5);
    expect(median([4, 1, 2, 100])).toBe(3);
    expect(median([])).toBeNaN();
  });

  it('spread is the range in medians', () => {
    expect(spread([90, 100, 120])).toBeCloseTo(0.3);
    expect(spread([7])).toBe(0);
    expect(spread([0, 0])).toBe(0);
  });

  it('the ratio is the median of the pairs, not the ratio of the medians', () => {
    const result = summarize({ name: 'x', unit: 'pps', values: [10, 20, 90], peer: 'p', peerValues: [10, 40, 30] });
    expect(result).toMatchObject({ value: 20, peerValue: 30, ratio: 1, runs: 3, reference: false });
  });

  it('refuses runs without their pair', () => {
    expect(() => summarize({ name: 'x', unit: 'pps', values: [1, 2], peerValues: [1] })).toThrow(
      "x: expected a peer's run for each of ours, got 1 for 2",
    );
  });

  it('without a peer there is no ratio', () => {
    expect(summarize({ name: 'x', unit: 'pps', values: [1] })).toMatchObject({
      peer: '',
      peerValue: null,
      ratio: null,
    });
  });
});

describe('references', () => {
  const ours = summarize({ name: 'memory.new', unit: 'connections/s', values: [1_600_000] });

  it('are marked as such, with their source', () => {
    const reference = {
      name: 'memory.new',
      peer: 'VPP',
      value: 800_000,
      unit: 'connections/s' as Unit,
      source: 'there',
    };
    const result = againstReference(ours, reference);
    expect(result).toMatchObject({ ratio: 2, reference: true, peer: 'VPP' });
    expect(result.note).toContain('reference, other run: there');
  });

  it('of another unit are refused', () => {
    const reference = { name: 'memory.new', peer: 'VPP', value: 1, unit: 'pps' as Unit, source: 'there' };
    expect(() => againstReference(ours, reference)).toThrow('unit');
  });

  it('that are stored belong to workloads and name their source', () => {
    const names = new Set(memoryWorkloads().map(({ name }) => name));
    const references = readReferences();
    expect(references.length).toBeGreaterThan(4);
    for (const { name, source, value } of references) {
      expect(names).toContain(name);
      expect(source.length).toBeGreaterThan(20);
      expect(value).toBeGreaterThan(0);
    }
  });
});

describe('figures for people', () => {
  it.each<[number, Unit, string]>([
    [23_400_000, 'pps', '23.4 Mpps'],
    [512, 'pps', '512 pps'],
    [15_200_000_000, 'bit/s', '15.2 Gbit/s'],
    [810_000, 'connections/s', '810 k connections/s'],
    [0.000082, 's', '82.0 µs'],
    [0.0031, 's', '3.10 ms'],
    [160, 'bytes', '160 bytes'],
    [0, 'bytes', '0 bytes'],
    [1.984, 'ratio', '1.98 ×'],
    [Number.NaN, 'pps', 'none'],
  ])('%d %s is %s', (value, unit, text) => {
    expect(formatValue(value, unit)).toBe(text);
  });
});

describe('the guard', () => {
  const result = (name: string, value: number): Result => summarize({ name, unit: 'pps', values: [value] });
  const bound = { name: 'engine against slow path', of: 'fast', to: 'slow', least: 1.2 };

  it('lets a ratio within its bound pass, and says both figures of one that is not', () => {
    expect(judge([result('fast', 30), result('slow', 10)], [bound])).toMatchObject([{ value: 3, passed: true }]);
    const broken = judge([result('fast', 11), result('slow', 10)], [bound]);
    expect(broken).toMatchObject([{ passed: false }]);
    expect(say(broken[0])).toBe('REGRESSION engine against slow path: expected at least 1.20 ×, got 1.10 ×');
  });

  it('judges an upper bound of a single figure', () => {
    const most = { name: 'bytes', of: 'alloc', most: 0.05 };
    expect(judge([result('alloc', 0.05)], [most])[0].passed).toBe(true);
    expect(judge([result('alloc', 16)], [most])[0].passed).toBe(false);
  });

  it('what was asked for and failed breaks its bound; what was not asked for has none', () => {
    const failed: Skipped = { name: 'slow', skipped: 'failed: out of memory' };
    expect(judge([result('fast', 30), failed], [bound])).toMatchObject([{ value: Number.NaN, passed: false }]);
    expect(judge([result('fast', 30)], [bound])).toEqual([]);
  });

  it('bounds name workloads that --quick runs', () => {
    const quick = new Set(choose(memoryWorkloads(), { only: [], quick: true }).map(({ name }) => name));
    for (const { of, to } of readBounds()) for (const name of [of, to ?? of]) expect(quick).toContain(name);
  });
});

describe('the command', () => {
  const names = [...memoryWorkloads(), ...liveWorkloads()].map(({ name }) => name);

  it('has every workload under its name', () => {
    const wanted = [
      ...['1k', '65k', '1m', '10m'].map((size) => `memory.nat44.engine.${size}`),
      ...['1k', '65k', '1m'].flatMap((size) => [`memory.nat44.slow.${size}`, `memory.ipv6.engine.${size}`]),
      ...['new', 'workers.2', 'alloc', 'bytes-per-connection'].map((name) => `memory.${name}`),
      ...['tap.nat44.64b', 'tap.nat44.64b.bpf', 'tap.nat44.imix', 'tap.nat44.tcp', 'tap.latency'],
      ...['packet.nat44.64b', 'packet.nat44.tcp', 'live.idle'],
    ];
    for (const name of wanted) expect(names).toContain(name);
    expect(new Set(names).size).toBe(names.length);
  });

  it('chooses by prefix', () => {
    const all = [...memoryWorkloads(), ...liveWorkloads()];
    const chosen = choose(all, { only: ['memory.nat44.slow.', 'live'], quick: false }).map(({ name }) => name);
    expect(chosen).toEqual(['memory.nat44.slow.1k', 'memory.nat44.slow.65k', 'memory.nat44.slow.1m', 'live.idle']);
  });

  it('reads its options, and refuses what is none', () => {
    expect(readOptions([])).toMatchObject({ runs: 5, window: 2000, quick: false, only: [] });
    expect(readOptions(['--quick', '--runs', '1', '--only', 'memory.'])).toMatchObject({ runs: 1, quick: true });
    expect(readOptions(['--vpp', './vpp.sh']).peers.get('vpp')).toBe('./vpp.sh');
    expect(() => readOptions(['--runs', '0'])).toThrow('--runs: expected a number of at least 1, got "0"');
    expect(() => readOptions(['--window', 'long'])).toThrow('--window');
    expect(() => readOptions(['--fast'])).toThrow();
  });

  it('every target names a command that exists', () => {
    for (const { command } of TARGETS) expect(names.some((name) => name.startsWith(command))).toBe(true);
  });
});

describe('the profile', () => {
  it('adds up self times by function and file, below the timed function only', () => {
    const frame = (functionName: string, url: string) => ({ functionName, url });
    const nodes = [
      { id: 1, callFrame: frame('setup', 'file:///a/dist/bench/world.js'), children: [2] },
      { id: 2, callFrame: frame('hit4', 'file:///a/dist/dataplane/fastpath.js') },
      { id: 3, callFrame: frame('run', 'file:///a/dist/bench/world.js'), children: [4, 5] },
      { id: 4, callFrame: frame('hit4', 'file:///a/dist/dataplane/fastpath.js'), children: [6] },
      { id: 5, callFrame: frame('', '') },
      { id: 6, callFrame: frame('hit4', 'file:///a/dist/dataplane/fastpath.js') },
    ];
    const profile = { nodes, samples: [1, 2, 4, 5, 6], timeDeltas: [100, 50, 30, 40, 30] };
    const file = 'dataplane/fastpath.ts';
    expect(selfTimes(profile, 'run bench/world.ts')).toEqual([
      { share: 0.6, function: 'hit4', file },
      { share: 0.4, function: '(anonymous)', file: '' },
    ]);
    expect(selfTimes(profile)[0]).toEqual({ share: 110 / 250, function: 'hit4', file });
  });
});

describe('the repository', () => {
  it('has the markers that the bench writes between', () => {
    const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
    expect(readme.indexOf('<!-- bench:begin -->')).toBeLessThan(readme.indexOf('<!-- bench:end -->'));
    const page = readFileSync(join(ROOT, 'docs', 'performance.md'), 'utf8');
    for (const block of ['machine', 'targets', 'results', 'limits', 'profile'])
      for (const end of ['begin', 'end']) expect(page).toContain(`<!-- bench:${block}:${end} -->`);
    expect(existsSync(join(ROOT, 'bench', 'peers', 'tap-loop.c'))).toBe(true);
  });
});
