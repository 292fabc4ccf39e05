/**
 * Hygiene of the whole tree: nothing of one particular machine, nothing left open, no test switched off, a head comment
 * on every source file and a README in every folder of the house.
 *
 * The patterns are put together from pieces where they would otherwise find themselves here.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const houses = ['dataplane', 'conntrack', 'offload', 'controlplane', 'bench', 'test'];
const notOurs = new Set(['node_modules', 'dist', '.git', '.sluice']);

function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    if (notOurs.has(entry.name)) return [];
    const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
    return entry.isDirectory() ? filesBelow(path) : entry.isFile() ? [path] : [];
  });
}

const files = filesBelow('');
const isCode = (file: string) => /\.(ts|mjs|js|sh|c)$/.test(file) || file === '.ci/run';
const isText = (file: string) => isCode(file) || /\.(md|json|ya?ml|txt|html|css)$/.test(file) || file === '.npmrc';
const isSource = (file: string) => /\.(ts|mjs)$/.test(file);

/** `file:line: text` of every line of these files that the pattern finds. */
function linesWith(pattern: RegExp, inFiles: string[]): string[] {
  return inFiles.flatMap((file) =>
    readFileSync(join(root, file), 'utf8')
      .split('\n')
      .flatMap((line, index) => (pattern.test(line) ? [`${file}:${index + 1}: ${line.trim().slice(0, 120)}`] : [])),
  );
}

describe('the tree', () => {
  it('is seen', () => {
    expect(files).toContain('package.json');
    expect(files).toContain('.ci/run');
    expect(files.filter(isSource).length).toBeGreaterThan(10);
  });

  it('names no path of one machine', () => {
    const folder = /(?:^|[^.\w~-])\/(?:work|farm|root|Users|home\/\w+)\//;
    expect(linesWith(folder, files.filter(isText))).toEqual([]);
    // Code asks the system for its folder of temporary files.
    const temporary = /(?:^|[^.\w])\/tmp(?:\/|\b)/;
    expect(
      linesWith(
        temporary,
        files.filter((file) => isCode(file) && !file.endsWith('hygiene.test.ts')),
      ),
    ).toEqual([]);
  });

  it('names no package registry', () => {
    const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, { resolved?: string; integrity?: string }>;
    };
    const entries = Object.entries(lock.packages).filter(([path]) => path !== '');
    expect(entries.length).toBeGreaterThan(20);
    expect(entries.filter(([, entry]) => entry.resolved !== undefined).map(([path]) => path)).toEqual([]);
    // Without an address, the integrity is what ties the lock file to one exact package.
    expect(entries.filter(([, entry]) => entry.integrity === undefined).map(([path]) => path)).toEqual([]);
    expect(linesWith(/^\s*(?:\/\/|@[\w-]+:)?.*registry\s*=/, ['.npmrc'])).toEqual([]);
  });

  it('leaves nothing open', () => {
    const open = new RegExp(`\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'HA' + 'CK'].join('|')})\\b`);
    expect(linesWith(open, files.filter(isText))).toEqual([]);
  });

  it('switches no test off, and singles none out', () => {
    const off = /\b(?:it|test|describe)(?:\.\w+)*\.(?:only|skip|todo|fails)\b/;
    expect(
      linesWith(
        off,
        files.filter((file) => file.startsWith('test/') && file.endsWith('.ts')),
      ),
    ).toEqual([]);
  });

  it('begins every source file with a comment that says what it is', () => {
    const headless = files.filter(isSource).filter((file) => {
      const text = readFileSync(join(root, file), 'utf8').replace(/^#!.*\n/, '');
      const comment = /^(?:\/\*\*?([\s\S]*?)\*\/|((?:\/\/.*\n)+))/.exec(text);
      return comment === null || (comment[1] ?? comment[2]).replace(/[\s*/]/g, '').length < 30;
    });
    expect(headless).toEqual([]);
  });

  it('has a README in every folder of the house', () => {
    expect(houses.filter((house) => !existsSync(join(root, house, 'README.md')))).toEqual([]);
    expect(
      houses.filter((house) => readFileSync(join(root, house, 'README.md'), 'utf8').split('\n').length > 60),
    ).toEqual([]);
  });

  it('points to no file that is not there', () => {
    const broken = files
      .filter((file) => file.endsWith('.md'))
      .flatMap((file) =>
        [...readFileSync(join(root, file), 'utf8').matchAll(/\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)/g)]
          .map((match) => match[1])
          .filter((target) => !existsSync(join(root, dirname(file), target)))
          .map((target) => `${file} → ${target}`),
      );
    expect(broken).toEqual([]);
  });
});
