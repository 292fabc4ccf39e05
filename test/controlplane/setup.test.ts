/**
 * Set-up, run as the program that it is, on a small copy of the project: builds when a source changed and only then,
 * reports a build that fails, refuses a lock file that node_modules does not match, and never needs the system's
 * package manager to say what is missing.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
let copy = '';

/**
 * Runs the copy's set-up; what it says and its exit code. It finds no npm unless it is given one: the copy's node_modules
 * is a link to ours, which a real `npm ci` would empty.
 */
function setup(groups: string[], env: NodeJS.ProcessEnv = {}) {
  const { status, stderr } = spawnSync(process.execPath, [join(copy, 'controlplane', 'setup.mjs'), ...groups], {
    encoding: 'utf8',
    env: { ...process.env, PATH: join(copy, 'empty'), npm_execpath: '', SLUICE_APT: 'off', ...env },
  });
  return { status, said: stderr };
}

const write = (path: string, text: string) => writeFileSync(join(copy, path), text);
const built = (path: string) => readFileSync(join(copy, 'dist', path), 'utf8');
/** The same tools for every machine: one that is there wherever this runs, one that is nowhere. */
const tools = [
  { package: 'libc-bin', file: '/proc/self/exe', group: 'run', for: 'everything' },
  { package: 'unobtainium', command: 'no-such-command', group: 'test', for: 'measuring the impossible' },
];

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'sluice-setup-'));
  for (const folder of ['controlplane', 'dataplane']) mkdirSync(join(copy, folder));
  for (const file of ['package.json', 'package-lock.json', 'tsconfig.json', 'controlplane/setup.mjs'])
    copyFileSync(join(root, file), join(copy, file));
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  write('controlplane/tools.json', JSON.stringify(tools));
  write('dataplane/one.ts', 'export const one: number = 1;\n');
});
afterAll(() => rmSync(copy, { recursive: true }));

describe('set-up', () => {
  it('builds at first, and then has nothing to do or to say', () => {
    expect(setup(['run'])).toEqual({ status: 0, said: 'setup: building\n' });
    expect(built('dataplane/one.js')).toContain('one = 1');
    expect(setup(['run'])).toEqual({ status: 0, said: '' });
  });

  it('builds again when a source changed, was added or went away', () => {
    write('dataplane/one.ts', 'export const one: number = 11;\n');
    write('dataplane/two.ts', 'export const two: number = 2;\n');
    expect(setup(['run']).said).toBe('setup: building\n');
    expect(built('dataplane/one.js')).toContain('one = 11');
    expect(built('dataplane/two.js')).toContain('two = 2');
    rmSync(join(copy, 'dataplane', 'two.ts'));
    expect(setup(['run']).said).toBe('setup: building\n');
    expect(setup(['run']).said).toBe('');
  });

  it('fails with the compiler’s words when the build fails, each time until it is mended', () => {
    write('dataplane/one.ts', "export const one: number = 'one';\n");
    for (let time = 0; time < 2; time++) {
      const { status, said } = setup(['run']);
      expect(status).toBe(1);
      expect(said).toContain('dataplane/one.ts(1,14): error TS2322');
    }
    write('dataplane/one.ts', 'export const one: number = 1;\n');
    expect(setup(['run']).status).toBe(0);
  });

  it('names a missing tool, what it disables and the command, and goes on', () => {
    const { status, said } = setup(['run', 'test']);
    expect(status).toBe(0);
    expect(said).toMatch(/unobtainium +measuring the impossible/);
    expect(said).toContain('apt-get install -y --no-install-recommends unobtainium');
    expect(said).not.toContain('libc-bin');
  });

  it('asks npm for what the lock file names and node_modules lacks', () => {
    const lock = readFileSync(join(copy, 'package-lock.json'), 'utf8');
    const changed = JSON.parse(lock) as { packages: Record<string, { version: string }> };
    changed.packages['node_modules/zod'].version = '0.0.0';
    write('package-lock.json', JSON.stringify(changed));
    // An npm that only says that it was called: the tree here is borrowed.
    const fake = join(copy, 'npm-cli.js');
    writeFileSync(fake, "console.log('npm called:', process.argv.slice(2).join(' ')); process.exit(1);");
    const { status, said } = setup(['run'], { npm_execpath: fake });
    write('package-lock.json', lock);
    expect(said).toContain('npm called: ci --include=dev --include=optional');
    expect(status).toBe(1);
  });

  it('refuses a group that it does not know', () => {
    const { status, said } = setup(['tests']);
    expect(status).toBe(2);
    expect(said).toBe('setup: expected groups out of run, native, test, got "tests"\n');
  });
});

describe('the list of tools', () => {
  const list = JSON.parse(readFileSync(join(root, 'controlplane', 'tools.json'), 'utf8')) as Record<string, string>[];

  it('says of each tool how to find it, which group wants it and what for', () => {
    for (const tool of list) {
      expect(tool['package']).toMatch(/^[a-z0-9][a-z0-9+.-]+$/);
      expect(
        [tool['command'], tool['file']].filter((way) => way !== undefined),
        tool['package'],
      ).toHaveLength(1);
      expect(['run', 'native', 'test']).toContain(tool['group']);
      expect(tool['for'].length, tool['package']).toBeGreaterThan(10);
    }
    expect(new Set(list.map((tool) => tool['package'])).size).toBe(list.length);
  });
});
