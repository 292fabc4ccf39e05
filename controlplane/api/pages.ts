/**
 * Pages: the dashboard's files, served as they are in controlplane/web, and uPlot as its package brings it.
 *
 * A fixed list: what a client asks for is looked up in it and never becomes a path of the file system.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { packageRoot } from '../package-root.ts';
import type { Route } from './route.ts';

const HTML = 'text/html; charset=utf-8';
const CSS = 'text/css; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';
const SVG = 'image/svg+xml';

/** Path, file in controlplane/web (or `uplot:` and a file of that package), type. */
const FILES: readonly (readonly [string, string, string])[] = [
  ['/', 'index.html', HTML],
  ['/style.css', 'style.css', CSS],
  ['/icon.svg', 'icon.svg', SVG],
  ['/main.mjs', 'main.mjs', SCRIPT],
  ['/api.mjs', 'api.mjs', SCRIPT],
  ['/dom.mjs', 'dom.mjs', SCRIPT],
  ['/format.mjs', 'format.mjs', SCRIPT],
  ['/topology.mjs', 'topology.mjs', SCRIPT],
  ['/plots.mjs', 'plots.mjs', SCRIPT],
  ['/connections.mjs', 'connections.mjs', SCRIPT],
  ['/explain.mjs', 'explain.mjs', SCRIPT],
  ['/replay.mjs', 'replay.mjs', SCRIPT],
  ['/uplot.mjs', 'uplot:uPlot.esm.js', SCRIPT],
  ['/uplot.css', 'uplot:uPlot.min.css', CSS],
];

const cache = new Map<string, Buffer>();

function read(file: string): Buffer {
  let bytes = cache.get(file);
  if (bytes === undefined) {
    const path = file.startsWith('uplot:')
      ? createRequire(import.meta.url).resolve(`uplot/dist/${file.slice(6)}`)
      : join(packageRoot(), 'controlplane', 'web', file);
    bytes = readFileSync(path);
    cache.set(file, bytes);
  }
  return bytes;
}

export const PAGE_ROUTES: readonly Route[] = FILES.map(
  ([path, file, type]): Route => ({
    method: 'GET',
    path,
    summary: path === '/' ? 'The dashboard' : `A file of the dashboard: ${path.slice(1)}`,
    tag: 'dashboard',
    open: true,
    anyQuery: true,
    answer: { type: type.split(';', 1)[0], description: 'The file' },
    handle: () => ({ type, body: read(file) }),
  }),
);
