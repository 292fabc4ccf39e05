/** docs/reliability.md: every row of its table of defects names a test file that exists and a title that is in it. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const page = readFileSync(join(root, 'docs', 'reliability.md'), 'utf8');

it('every defect in docs/reliability.md has a test with the title that is given', () => {
  const rows = [...page.matchAll(/^\| ([^|*]+) \| `([\w/-]+)`: ([^|]+) \|$/gm)];
  expect(rows.length).toBeGreaterThan(50);
  const wrong: string[] = [];
  for (const [, defect, name, title] of rows) {
    const file = join(root, 'test', `${name}.test.ts`);
    if (!existsSync(file)) wrong.push(`${defect}: expected test/${name}.test.ts, got no such file`);
    else if (!readFileSync(file, 'utf8').replaceAll("\\'", "'").includes(title))
      wrong.push(`${defect}: expected "${title}" in test/${name}.test.ts, got no such title`);
  }
  expect(wrong).toEqual([]);
});
