/**
 * examples/gateway.test.mjs, run as it is: the tests below are its own. And what the package must bring so that the
 * dashboard is found once it is installed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { PAGE_ROUTES } from '../../controlplane/api/pages.ts';
import { packageRoot } from '../../controlplane/package-root.ts';

// Its own tests, as any project's runner finds them.
await import(pathToFileURL(join(packageRoot(), 'examples', 'gateway.test.mjs')).href);

it('the package brings every file of the dashboard, and the server knows every file', async () => {
  const { files } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { files: string[] };
  expect(files).toContain('controlplane/web');
  const served = PAGE_ROUTES.map(({ path }) => (path === '/' ? 'index.html' : path.slice(1)));
  const there = readdirSync(join(packageRoot(), 'controlplane', 'web'));
  expect(there.filter((name) => !served.includes(name))).toEqual([]);
  expect(served.filter((name) => !there.includes(name))).toEqual(['uplot.mjs', 'uplot.css']);
});
