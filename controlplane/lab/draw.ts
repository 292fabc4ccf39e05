/**
 * draw: a lab's topology as boxes of plain text for the terminal.
 *
 *   ┌───────────────────┐    ┌────────────────┐    ┌─────────────────┐
 *   │ client            │    │ router         │    │ server          │
 *   │ eth0 10.0.0.10/24 ├────┤ lan 10.0.0.1/24├────┤ eth0 192.0.2.9/24│
 *   └───────────────────┘    └────────────────┘    └─────────────────┘
 *
 * A chain is drawn from left to right in the order of its links, also when it fans out at its end. Any other shape is
 * drawn around its most linked box, the others in columns to its left and right, which shows a star as it is. When that
 * is wider than `width`, boxes stand below each other.
 */
import type { Sketch } from './namespace.ts';

interface Box {
  key: string;
  lines: string[];
}

const GAP = 4;

/** The drawing, lines joined by newlines, without a newline at the end. */
export function draw(lab: { sketch: Sketch } | Sketch, options: { width?: number } = {}): string {
  const sketch = 'sketch' in lab ? lab.sketch : lab;
  const boxes = new Map<string, Box>();
  for (const [key, node] of sketch.nodes) {
    const lines = [node.title];
    for (const device of node.devices) {
      lines.push(`${device.name} ${device.addresses[0] ?? ''}`.trimEnd());
      for (const more of device.addresses.slice(1)) lines.push(' '.repeat(device.name.length + 1) + more);
    }
    boxes.set(key, { key, lines });
  }
  const columns = arrange([...boxes.keys()], sketch.links).map((column) => column.map((key) => boxes.get(key)!));
  const wide = render(columns);
  const width = options.width ?? 100;
  return wide.some((line) => line.length > width) ? stack(columns.flat()) : wide.join('\n');
}

/** Columns of keys: a chain, or one that fans out at its end, level by level; else the hub in the middle, others on both sides. */
function arrange(keys: readonly string[], links: readonly [string, string][]): string[][] {
  const peers = (key: string) => links.flatMap(([a, b]) => (a === key ? [b] : b === key ? [a] : []));
  const hub = keys.reduce((best, key) => (peers(key).length > peers(best).length ? key : best), keys[0]);
  const isStar = keys.length > 3 && peers(hub).length === keys.length - 1;
  if (links.length === keys.length - 1 && !isStar)
    for (const end of keys.filter((key) => peers(key).length <= 1)) {
      const levels = levelsFrom(end, peers);
      // Wires are straight lines: only the last level may have several boxes.
      if (levels.flat().length === keys.length && levels.slice(0, -1).every(({ length }) => length === 1))
        return levels;
    }
  const others = keys.filter((k) => k !== hub);
  const half = Math.ceil(others.length / 2);
  return [others.slice(0, half), hub === undefined ? [] : [hub], others.slice(half)].filter((c) => c.length > 0);
}

/** Keys by their distance from one of them. */
function levelsFrom(key: string, peers: (key: string) => string[]): string[][] {
  const seen = new Set([key]);
  const levels: string[][] = [];
  for (let level = [key]; level.length > 0; ) {
    levels.push(level);
    level = level.flatMap(peers).filter((next) => !seen.has(next));
    for (const next of level) seen.add(next);
  }
  return levels;
}

function frame(box: Box, width: number, height: number, left: readonly number[], right: readonly number[]): string[] {
  const out = [`┌${'─'.repeat(width + 2)}┐`];
  for (let row = 0; row < height; row++)
    out.push(
      `${left.includes(row) ? '┤' : '│'} ${(box.lines[row] ?? '').padEnd(width)} ${right.includes(row) ? '├' : '│'}`,
    );
  out.push(`└${'─'.repeat(width + 2)}┘`);
  return out;
}

function render(columns: readonly Box[][]): string[] {
  const widths = columns.map((column) => Math.max(...column.map((b) => Math.max(...b.lines.map((l) => l.length)))));
  const rows = Math.max(...columns.map((c) => c.length), 1);
  const tall = Math.max(...columns.flat().map((b) => b.lines.length), 1);
  const total = rows * (tall + 2);
  // A lone box in its column is as tall as its neighbours together, so that every wire is a straight line.
  const wire = (row: number) => row * (tall + 2) + 1 + Math.min(1, tall - 1);
  const out: string[] = Array.from({ length: total }, () => '');
  columns.forEach((column, c) => {
    const wires = Array.from({ length: rows }, (_, row) => wire(row)).filter((_, row) => joins(columns, c, row));
    const before =
      c > 0 ? Array.from({ length: rows }, (_, row) => wire(row)).filter((_, row) => joins(columns, c - 1, row)) : [];
    const next = c < columns.length - 1 ? wires : [];
    let lines: string[] = [];
    if (column.length === 1) {
      lines = frame(
        column[0],
        widths[c],
        total - 2,
        before.map((w) => w - 1),
        next.map((w) => w - 1),
      );
    } else
      column.forEach((box, row) => {
        const here = (list: readonly number[]) =>
          list.map((w) => w - row * (tall + 2) - 1).filter((w) => w >= 0 && w < tall);
        lines.push(...frame(box, widths[c], tall, here(before), here(next)));
      });
    for (let y = 0; y < total; y++) {
      out[y] += lines[y] ?? ' '.repeat(widths[c] + 4);
      if (c < columns.length - 1) out[y] += (next.includes(y) ? '─' : ' ').repeat(GAP);
    }
  });
  return out.map((line) => line.trimEnd());
}

/** Whether a wire runs in this row between column c and the next. */
function joins(columns: readonly Box[][], c: number, row: number): boolean {
  if (c < 0 || c >= columns.length - 1) return false;
  return row < Math.max(columns[c].length, columns[c + 1].length);
}

function stack(boxes: readonly Box[]): string {
  const width = Math.max(...boxes.flatMap((b) => b.lines.map((l) => l.length)));
  const middle = Math.floor((width + 4) / 2);
  return boxes
    .map((box, n) => {
      const lines = frame(box, width, box.lines.length, [], []);
      const set = (at: number, mark: string) => {
        lines[at] = lines[at].slice(0, middle) + mark + lines[at].slice(middle + 1);
      };
      if (n > 0) set(0, '┴');
      if (n < boxes.length - 1) set(lines.length - 1, '┬');
      return lines.join('\n');
    })
    .join(`\n${' '.repeat(middle)}│\n`);
}
