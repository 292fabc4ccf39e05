/**
 * Difference: two texts, line by line, in the unified form of diff(1).
 *
 * Longest common subsequence after the common head and tail are cut off; a middle too large for its table (some thousand
 * changed lines on both sides) is shown as replaced as a whole, which is right, only longer.
 */
const CONTEXT = 3;
const MAX_CELLS = 4_000_000;

type Edit = ' ' | '-' | '+';

/** '' when the texts are equal. */
export function differences(before: string, after: string, beforeName: string, afterName: string): string {
  const a = linesOf(before);
  const b = linesOf(after);
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  if (head === a.length && head === b.length) return '';
  const edits: [Edit, string][] = [
    ...a.slice(0, head).map((line): [Edit, string] => [' ', line]),
    ...compare(a.slice(head, a.length - tail), b.slice(head, b.length - tail)),
    ...a.slice(a.length - tail).map((line): [Edit, string] => [' ', line]),
  ];
  return [`--- ${beforeName}`, `+++ ${afterName}`, ...hunks(edits), ''].join('\n');
}

function linesOf(text: string): string[] {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

function compare(a: readonly string[], b: readonly string[]): [Edit, string][] {
  const width = b.length + 1;
  if ((a.length + 1) * width > MAX_CELLS)
    return [...a.map((line): [Edit, string] => ['-', line]), ...b.map((line): [Edit, string] => ['+', line])];
  // common[i][j]: length of the longest common subsequence of a from i and b from j.
  const common = new Int32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      common[i * width + j] =
        a[i] === b[j]
          ? common[(i + 1) * width + j + 1] + 1
          : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  const edits: [Edit, string][] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      edits.push([' ', a[i++]]);
      j++;
    } else if (j === b.length || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1]))
      edits.push(['-', a[i++]]);
    else edits.push(['+', b[j++]]);
  }
  return edits;
}

function hunks(edits: readonly [Edit, string][]): string[] {
  const out: string[] = [];
  let [lineA, lineB] = [1, 1];
  for (let n = 0; n < edits.length; ) {
    const first = edits.findIndex(([edit], at) => at >= n && edit !== ' ');
    if (first < 0) break;
    const start = Math.max(n, first - CONTEXT);
    lineA += start - n;
    lineB += start - n;
    let end = first;
    for (let at = first; at < edits.length && at <= end + 2 * CONTEXT; at++) if (edits[at][0] !== ' ') end = at;
    const stop = Math.min(edits.length, end + 1 + CONTEXT);
    const part = edits.slice(start, stop);
    const countA = part.filter(([edit]) => edit !== '+').length;
    const countB = part.filter(([edit]) => edit !== '-').length;
    // An empty range is named by the line before it.
    out.push(`@@ -${countA === 0 ? lineA - 1 : lineA},${countA} +${countB === 0 ? lineB - 1 : lineB},${countB} @@`);
    for (const [edit, line] of part) out.push(edit + line);
    lineA += countA;
    lineB += countB;
    n = stop;
  }
  return out;
}
