/**
 * What is wrong with a configuration, said in one form: where, expected, got, what to do.
 *
 *   home.yaml:3:5 ports.lan.mtu: expected a number from 1280 to 65535, got "big"
 *   home.yaml:4:5 ports.lan.adresses: unknown key "adresses": did you mean "addresses"?
 */

export interface Problem {
  file: string;
  /** From 1; 0 when there is no text (an object, or a file that could not be read). */
  line: number;
  column: number;
  /** `ports.lan.mtu`, `routes[0].via`; `yaml` for a fault of syntax, `file` for one of reading. */
  path: string;
  /** What would be right, without "expected". Empty for an unknown key: then `got` and `hint` say it all. */
  expected: string;
  /** What is there, as a person would quote it. */
  got: string;
  /** What to do; empty when `expected` says it. */
  hint: string;
}

export class ConfigError extends Error {
  readonly problems: readonly Problem[];

  /** @param problems all that were found, in the order of the text */
  constructor(problems: readonly Problem[]) {
    super(problems.map(formatProblem).join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** One line, without a line feed. */
export function formatProblem(problem: Problem): string {
  const place = formatPlace(problem.file, problem.line, problem.column);
  const hint = problem.hint === '' ? '' : `${problem.expected === '' ? ':' : ';'} ${problem.hint}`;
  const text = problem.expected === '' ? problem.got : `expected ${problem.expected}, got ${problem.got}`;
  return `${place}${problem.path}: ${text}${hint}`;
}

/** `file:line:column `, as much of it as is known, with the blank behind it. */
export function formatPlace(file: string, line: number, column: number): string {
  if (file === '') return '';
  return line === 0 ? `${file} ` : `${file}:${line}:${column} `;
}

export type Path = readonly (string | number)[];

/** `ports.lan.addresses[1]`; keys that are not plain words are quoted. */
export function formatPath(path: Path): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else if (/^[A-Za-z0-9_-]+$/.test(part)) text += text === '' ? part : `.${part}`;
    else text += `[${quote(part)}]`;
  }
  return text;
}

/** Longest quotation of a value in a message, characters. */
const QUOTE_LIMIT = 60;

/** A value as messages quote it: strings in double quotes, lists and maps by kind, absent ones as `nothing`. */
export function quote(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (typeof value === 'string') {
    const text = JSON.stringify(value.length > QUOTE_LIMIT ? `${value.slice(0, QUOTE_LIMIT)}…` : value);
    // C1 and bidirectional controls would reach the terminal: JSON leaves them as they are.
    return text.replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (letter) => {
      return `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`;
    });
  }
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object') return 'a map';
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  return String(value);
}

/** The candidate nearest to `word`, when it is near enough to be a slip of the pen; null otherwise. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  if (word.length === 0 || word.length > 40) return null;
  let best: string | null = null;
  // One edit in short words, up to two in five in long ones.
  let bestDistance = Math.max(1, Math.floor(word.length * 0.4)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** `did you mean "lan"?`, or an empty string. */
export function didYouMean(word: unknown, candidates: Iterable<string>): string {
  const near = typeof word === 'string' ? nearest(word, candidates) : null;
  return near === null ? '' : `did you mean ${quote(near)}?`;
}

/** Edits (insert, delete, replace, swap neighbours) between two words: optimal string alignment. */
function editDistance(a: string, b: string): number {
  const width = b.length + 1;
  const d = new Array<number>((a.length + 1) * width).fill(0);
  for (let i = 0; i <= a.length; i++) d[i * width] = i;
  for (let j = 0; j <= b.length; j++) d[j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min(d[(i - 1) * width + j] + 1, d[i * width + j - 1] + 1, d[(i - 1) * width + j - 1] + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, d[(i - 2) * width + j - 2] + 1);
      d[i * width + j] = least;
    }
  }
  return d[a.length * width + b.length];
}
