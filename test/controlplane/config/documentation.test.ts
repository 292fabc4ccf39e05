/** docs/configuration.md names every key with its default, and nothing that does not exist. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { createTimeouts, timeoutsOf } from '../../../conntrack/timeouts.ts';
import { ROUTES } from '../../../controlplane/api/routes.ts';
import { DEFAULTS } from '../../../controlplane/config/defaults.ts';
import { parseConfig } from '../../../controlplane/config/index.ts';
import { configSchema, TIMEOUT_KEYS } from '../../../controlplane/config/schema.ts';

const page = readFileSync(fileURLToPath(new URL('../../../docs/configuration.md', import.meta.url)), 'utf8');

interface Node {
  shape?: Record<string, Node>;
  element?: Node;
  valueType?: Node;
  unwrap?: () => Node;
  _zod: { def: { type: string } };
}

/** Every path of the schema, as the page writes them, and whether it must be there. */
function paths(node: Node, path: string, required: boolean, into: Map<string, boolean>): void {
  const { type } = node._zod.def;
  if (type === 'optional') {
    paths(node.unwrap!(), path, false, into);
    return;
  }
  if (path !== '') into.set(path, required);
  if (type === 'object')
    for (const [key, member] of Object.entries(node.shape!))
      paths(member, path === '' ? key : `${path}.${key}`, true, into);
  else if (type === 'array') paths(node.element!, `${path}[]`, true, into);
  else if (type === 'record') paths(node.valueType!, `${path}.NAME`, false, into);
}

const schema = new Map<string, boolean>();
paths(configSchema as unknown as Node, '', true, schema);
// Elements, named things and whole sections have no row of their own: their section is a heading.
for (const path of [...schema.keys()])
  if (
    path.endsWith('[]') ||
    /^(ports|zones|hosts)\.NAME$/.test(path) ||
    (!path.includes('.') && page.includes(`\n## ${path}\n`))
  )
    schema.delete(path);

const rows = new Map<string, string>();
for (const line of page.split('\n')) {
  const cells = line.split('|').map((cell) => cell.trim());
  for (const at of [1, 4]) {
    const key = /^`([a-zA-Z][\w.[\]-]*)`$/.exec(cells[at] ?? '')?.[1];
    // Timeouts stand two in a row, without a type; the others have their type before the default.
    if (key !== undefined && (at === 1 || key.startsWith('conntrack.timeouts.')))
      rows.set(key, cells[key.startsWith('conntrack.timeouts.') ? at + 1 : 3]);
  }
}

describe('docs/configuration.md', () => {
  it('has a row for every key of the schema, and for nothing else', () => {
    expect(schema.size).toBeGreaterThan(120);
    expect([...schema.keys()].filter((path) => !rows.has(path))).toEqual([]);
    expect([...rows.keys()].filter((key) => !schema.has(key))).toEqual([]);
  });

  it('says "required" of exactly the keys that are', () => {
    for (const [path, required] of schema)
      expect([path, rows.get(path)!.startsWith('required')]).toEqual([path, required || path === 'nat.forward[].port']);
  });

  it('tells the defaults that the code has', () => {
    for (const [path, value] of Object.entries(DEFAULTS))
      expect([path, rows.get(path)]).toEqual([path, `\`${value}\``]);
    for (const [path, cell] of rows)
      if (/^`.*`$/.test(cell) && cell !== '`workers`') expect(DEFAULTS).toHaveProperty([path]);
    const kernel = timeoutsOf(createTimeouts());
    for (const [key, name] of TIMEOUT_KEYS)
      expect([key, rows.get(`conntrack.timeouts.${key}`)]).toEqual([key, String(kernel[name])]);
  });

  it('has examples that are right', () => {
    const ports =
      'ports:\n  lan: { zone: lan, addresses: 192.168.1.1/24 }\n  wan: { zone: wan, addresses: 203.0.113.1/24 }\n';
    const examples = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map((match) => match[1]);
    expect(examples.length).toBeGreaterThan(4);
    for (const example of examples)
      parseConfig(example.startsWith('ports:') ? example : ports + example, 'docs', { memory: 2 ** 33 });
  });
});

describe('docs/api.md', () => {
  it('has every path that the server answers, and no other', () => {
    const api = readFileSync(fileURLToPath(new URL('../../../docs/api.md', import.meta.url)), 'utf8');
    const told = [...api.matchAll(/`(?:GET|POST) (\/[^\s?`…]*)/g)].map(([, path]) => path);
    const served = ROUTES.map(({ path }) => path).filter((path) => path.startsWith('/v1/') || path === '/metrics');
    expect(served.filter((path) => !told.includes(path))).toEqual([]);
    expect(
      told.filter(
        (path) =>
          !ROUTES.some((route) => route.path === path) && path !== '/v1/show/trace' && path !== '/v1/show/stages',
      ),
    ).toEqual([]);
  });
});
