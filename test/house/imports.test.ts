/**
 * The import direction of the house, checked on every .ts file of the tree.
 *
 * `dataplane/wire` imports nothing; conntrack may import wire; the engine's interface and table import nothing, the rest
 * of offload may import conntrack (and wire, whose packet it programs from); the path imports all of these; controlplane
 * and bench import everything; nothing below imports controlplane, and nothing but tests imports tests. `node:` modules
 * and packages stay in dataplane/ports, dataplane/worker.ts, controlplane, bench and test: the rest runs in a browser
 * tab. Import statements are found by regular expressions, type imports included; what a program builds as a string at
 * run time is not seen.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const houses = ['dataplane', 'conntrack', 'offload', 'controlplane', 'bench', 'test'];

/** The engine itself: it could be a chip, so it knows nothing of us. */
const engine = ['offload/engine.ts', 'offload/table.ts'];

/** The parts of the house, from the most particular to the least; a file belongs to the first that fits. */
const parts: { name: string; holds: (file: string) => boolean; mayImport: string[] }[] = [
  { name: 'wire', holds: (file) => file.startsWith('dataplane/wire/'), mayImport: ['wire'] },
  { name: 'conntrack', holds: (file) => file.startsWith('conntrack/'), mayImport: ['conntrack', 'wire'] },
  { name: 'engine', holds: (file) => engine.includes(file), mayImport: ['engine'] },
  {
    name: 'offload',
    holds: (file) => file.startsWith('offload/'),
    mayImport: ['offload', 'engine', 'conntrack', 'wire'],
  },
  {
    name: 'dataplane',
    holds: (file) => file.startsWith('dataplane/'),
    mayImport: ['dataplane', 'wire', 'conntrack', 'offload', 'engine'],
  },
  {
    name: 'controlplane',
    holds: (file) => file.startsWith('controlplane/'),
    mayImport: ['controlplane', 'dataplane', 'wire', 'conntrack', 'offload', 'engine'],
  },
  {
    name: 'bench',
    holds: (file) => file.startsWith('bench/'),
    mayImport: ['bench', 'controlplane', 'dataplane', 'wire', 'conntrack', 'offload', 'engine'],
  },
  {
    name: 'test',
    holds: (file) => file.startsWith('test/'),
    mayImport: ['test', 'bench', 'controlplane', 'dataplane', 'wire', 'conntrack', 'offload', 'engine'],
  },
];

/** Which files may import node:* and packages at all. */
const isOutward = (file: string) =>
  file.startsWith('dataplane/ports/') || file === 'dataplane/worker.ts' || /^(controlplane|bench|test)\//.test(file);

/** Packages that are narrower still. The two addons are not context-aware: only the host port may load them. */
const packageHomes: Record<string, RegExp> = {
  'bn.js': /^(controlplane|test)\//,
  zod: /^(controlplane|test)\//,
  yaml: /^(controlplane|test)\//,
  cap: /^(dataplane\/ports\/host|test\/)/,
  'raw-socket': /^(dataplane\/ports\/host|test\/)/,
  vitest: /^test\//,
};

const partOf = (file: string) => parts.find((part) => part.holds(file));
const packageOf = (specifier: string) =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');

/** Every module that a source text names in an import, an export … from, a dynamic import or a require. */
function specifiersOf(source: string): string[] {
  const found: string[] = [];
  const forms = [
    // import … from 'x', export … from 'x': over several lines, never across a statement's end
    /^[ \t]*(?:import|export)\b[^;'"`]*?\bfrom\s*['"]([^'"\n]+)['"]/gm,
    // import 'x'
    /^[ \t]*import\s*['"]([^'"\n]+)['"]/gm,
    // import('x') as an expression or a type, require('x'), require.resolve('x')
    /\b(?:import|require|require\.resolve)\s*\(\s*['"`]([^'"`\n]+)['"`]/g,
  ];
  for (const form of forms) for (const match of source.matchAll(form)) found.push(match[1]);
  return [...new Set(found)];
}

/**
 * Judges one edge.
 *
 * @param from the importing file, relative to the root, with slashes
 * @param specifier what stands in the import statement
 * @param exists whether a file of the tree is there
 * @returns '' when it is allowed, else why not
 */
function judge(from: string, specifier: string, exists: (file: string) => boolean): string {
  if (specifier.startsWith('.')) {
    if (!specifier.endsWith('.ts')) return 'a relative import ends in .ts';
    const to = posix.normalize(posix.join(posix.dirname(from), specifier));
    if (!exists(to)) return `there is no ${to}`;
    const [source, target] = [partOf(from), partOf(to)];
    if (source === undefined || target === undefined) return `${to} is outside the house`;
    if (source.mayImport.includes(target.name)) return '';
    return `${source.name} may import ${source.mayImport.join(', ')}; ${to} is ${target.name}`;
  }
  if (!isOutward(from))
    return 'node:* and packages are for dataplane/ports, dataplane/worker.ts, controlplane and bench';
  if (builtinModules.includes(specifier)) return `write node:${specifier}`;
  const home = packageHomes[packageOf(specifier)];
  if (home !== undefined && !home.test(from)) return `${packageOf(specifier)} is only for ${home.source}`;
  return '';
}

function filesBelow(folder: string, ending: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return filesBelow(path, ending);
    return path.endsWith(ending) ? [path] : [];
  });
}

const files = houses.filter((house) => existsSync(join(root, house))).flatMap((house) => filesBelow(house, '.ts'));
const sourceOf = (file: string) => readFileSync(join(root, file), 'utf8');

describe('the import direction', () => {
  it('holds on every edge of the tree', () => {
    const offending = files.flatMap((file) =>
      specifiersOf(sourceOf(file)).flatMap((specifier) => {
        const reason = judge(file, specifier, (path) => existsSync(join(root, path)));
        return reason === '' ? [] : [`${file} → ${specifier}: ${reason}`];
      }),
    );
    expect(offending).toEqual([]);
  });

  it('sees the tree: every house, and the edges in it', () => {
    for (const house of ['dataplane', 'conntrack', 'controlplane', 'test'])
      expect(files.filter((file) => file.startsWith(`${house}/`)).length, house).toBeGreaterThan(0);
    expect(specifiersOf(sourceOf('test/house/imports.test.ts'))).toEqual(
      expect.arrayContaining(['node:fs', 'node:url', 'vitest']),
    );
    expect(specifiersOf(sourceOf('dataplane/ports/port.ts'))).toEqual(['../frames.ts']);
  });

  it('keeps Node.js globals out of the files that also run in a browser', () => {
    const code = (text: string) => text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '');
    const offending = files
      .filter((file) => !isOutward(file))
      .flatMap((file) => {
        const match = /\b(?:process\.\w+|Buffer\.\w+|new Buffer\b|__dirname|setImmediate)\b/.exec(code(sourceOf(file)));
        return match === null ? [] : [`${file}: ${match[0]}`];
      });
    expect(offending).toEqual([]);
  });

  it('keeps set-up free of anything that is not installed yet', () => {
    const specifiers = specifiersOf(sourceOf('controlplane/setup.mjs'));
    expect(specifiers.length).toBeGreaterThan(0);
    expect(specifiers.filter((specifier) => !specifier.startsWith('node:'))).toEqual([]);
  });
});

describe('the judge', () => {
  const anyFile = () => true;

  it.each([
    ['dataplane/wire/tcp.ts', './packet.ts'],
    ['conntrack/table.ts', './record.ts'],
    ['conntrack/helpers/ftp.ts', '../../dataplane/wire/ascii.ts'],
    ['offload/policy.ts', '../conntrack/record.ts'],
    ['offload/policy.ts', './table.ts'],
    ['dataplane/path.ts', '../offload/policy.ts'],
    ['dataplane/ports/tap.ts', 'koffi'],
    ['dataplane/ports/host.ts', 'cap'],
    ['dataplane/worker.ts', 'node:worker_threads'],
    ['controlplane/config/load.ts', 'yaml'],
    ['bench/main.ts', '../controlplane/index.ts'],
    ['test/dataplane/path.test.ts', '../../dataplane/path.ts'],
  ])('allows %s → %s', (from, specifier) => {
    expect(judge(from, specifier, anyFile)).toBe('');
  });

  it.each([
    ['dataplane/wire/tcp.ts', '../frames.ts'],
    ['dataplane/wire/tcp.ts', '../../conntrack/record.ts'],
    ['conntrack/table.ts', '../dataplane/frames.ts'],
    ['conntrack/table.ts', '../offload/table.ts'],
    ['offload/table.ts', '../conntrack/record.ts'],
    ['offload/table.ts', './policy.ts'],
    ['offload/policy.ts', '../dataplane/path.ts'],
    ['dataplane/path.ts', '../controlplane/protocol.ts'],
    ['dataplane/path.ts', 'node:fs'],
    ['dataplane/ports/tap.ts', '../../controlplane/config/load.ts'],
    ['dataplane/ports/tap.ts', 'cap'],
    ['dataplane/ports/tap.ts', 'bn.js'],
    ['conntrack/table.ts', 'bn.js'],
    ['controlplane/index.ts', '../test/tools.ts'],
    ['controlplane/index.ts', '../bench/main.ts'],
    ['controlplane/index.ts', 'fs'],
    ['controlplane/index.ts', './router'],
    ['controlplane/index.ts', '../../elsewhere/x.ts'],
    ['bench/main.ts', 'vitest'],
  ])('refuses %s → %s', (from, specifier) => {
    expect(judge(from, specifier, anyFile)).not.toBe('');
  });

  it('refuses a file that is not there', () => {
    expect(judge('dataplane/path.ts', './nowhere.ts', () => false)).toBe('there is no dataplane/nowhere.ts');
  });

  it('finds every form of import', () => {
    // Put together here, so that the check of the tree does not take them for this file's own.
    const word = 'im' + 'port';
    const source = [
      `${word} a from './a.ts';`,
      `${word} type { B } from './b.ts';`,
      `${word} {\n  c,\n  type D,\n} from "./c.ts";`,
      `${word} './d.ts';`,
      `${'ex' + 'port'} * from './e.ts';`,
      `const f = await ${word}('./f.ts');`,
      `type G = typeof ${word}('./g.ts');`,
      `const h = re${'quire'}('h');`,
      `// ${word} x from './comment.ts';`,
      ` * ${word} y from './comment.ts';`,
    ].join('\n');
    const letters = ['./a.ts', './b.ts', './c.ts', './d.ts', './e.ts', './f.ts', './g.ts', 'h'];
    expect(specifiersOf(source).sort()).toEqual(letters);
  });
});
