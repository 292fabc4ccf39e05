/**
 * Reader: takes items out of a source by a schema, and collects every problem on the way.
 *
 * A fault in an item does not end its reading: what is wrong is reported, taken out and the rest read again, so that
 * one run finds all faults, and a rule that is wrong in one word still takes part in the checks of the others.
 */
import type { z } from 'zod';
import { isTreeMap, type Source, type TreeMap } from './document.ts';
import { didYouMean, formatPath, formatPlace, type Path, type Problem, quote } from './errors.ts';
import { TIMEOUT_KEYS } from './schema.ts';
import type { Where } from './types.ts';

/** Unknown keys of one map that are named one by one: a file of another kind has thousands. */
const MAX_UNKNOWN = 50;

export class Reader {
  readonly source: Source;
  readonly problems: Problem[];
  readonly warnings: string[] = [];
  private readonly reported = new Set<string>();

  constructor(source: Source) {
    this.source = source;
    this.problems = source.problems;
  }

  where(path: Path): Where {
    return { ...this.source.locate(path), path: formatPath(path) };
  }

  /** Reports a problem; the second one at the same path is a consequence of the first and left out. */
  report(path: Path, expected: string, value: unknown, hint = ''): void {
    this.add(path, expected, quote(value), hint);
  }

  /** The same, with `got` in words. */
  reportWords(path: Path, expected: string, got: string, hint = ''): void {
    this.add(path, expected, got, hint);
  }

  private add(path: Path, expected: string, got: string, hint: string): void {
    const where = this.where(path);
    if (where.path === '') where.path = 'configuration';
    if (this.reported.has(where.path)) return;
    this.reported.add(where.path);
    const { line, column } = where;
    this.problems.push({ file: this.source.file, line, column, path: where.path, expected, got, hint });
  }

  /** True when something at this path was reported. */
  faulty(path: Path): boolean {
    return this.reported.has(formatPath(path));
  }

  warn(path: Path, message: string): void {
    const { line, column, path: text } = this.where(path);
    this.warnings.push(`${formatPlace(this.source.file, line, column)}${text}: ${message}`);
  }

  /** A map, or undefined after a report. Absent and empty (`rules:` with nothing behind it) count as an empty map. */
  map(value: unknown, path: Path, expected: string): TreeMap | undefined {
    if (value === undefined || value === null) return {};
    if (isTreeMap(value)) return value;
    this.report(path, expected, value);
    return undefined;
  }

  /** The elements of a list; absent and empty count as no elements. */
  list(value: unknown, path: Path): unknown[] {
    if (value === undefined || value === null) return [];
    if (Array.isArray(value)) return value;
    this.report(path, 'a list', value, isTreeMap(value) ? 'put "-" before each element' : '');
    return [];
  }

  /**
   * Reads one item. Reports all that is wrong; returns what is left when that is still an item, else undefined.
   *
   * @param standIns values for keys that must be there: a fault in one of them is reported, and the item lives on for
   *   the checks of its other keys
   */
  read<T>(schema: z.ZodType<T>, value: unknown, path: Path, standIns: TreeMap = {}): T | undefined {
    let current = value;
    for (;;) {
      const result = schema.safeParse(current);
      if (result.success) return result.data;
      const before = current;
      for (const issue of result.error.issues) {
        if (issue.code === 'unrecognized_keys') {
          const at = issue.path as (string | number)[];
          this.unknownKeys([...path, ...at], issue.keys, knownKeys(schema, at));
          current = without(current, at, issue.keys);
          continue;
        }
        const at = issue.path as (string | number)[];
        const hint = issue.code === 'custom' ? String(issue.params?.hint ?? '') : '';
        this.report([...path, ...at], issue.message, valueAt(before, at), hint);
        // A bad element spoils its list: what is left would have other indices.
        const list = at.findIndex((part) => typeof part === 'number');
        const member = list > 0 ? at.slice(0, list) : at;
        current = at.length === 0 ? undefined : without(current, member.slice(0, -1), member.slice(-1));
      }
      if (current === undefined) return undefined;
      if (current !== before) continue;
      // Nothing could be taken out: something is missing that must be there.
      const missing = Object.keys(standIns).filter((key) => isTreeMap(current) && !(key in current));
      if (missing.length === 0) return undefined;
      current = Object.assign(Object.create(null) as TreeMap, current);
      for (const key of missing) (current as TreeMap)[key] = standIns[key];
    }
  }

  /** Reports keys of one map that its schema does not have. */
  unknownKeys(path: Path, keys: readonly string[], known: readonly string[]): void {
    for (const key of keys.slice(0, MAX_UNKNOWN)) this.unknownKey([...path, key], key, known);
    if (keys.length > MAX_UNKNOWN)
      this.reportWords(path, `keys of ${known.join(', ')}`, `${keys.length - MAX_UNKNOWN} more unknown keys`);
  }

  private unknownKey(path: Path, key: string, known: readonly string[]): void {
    const kernel = key.replace(/^nf_conntrack_/, '').replaceAll('-', '_');
    const timeout = [...TIMEOUT_KEYS].find((pair) => pair[1] === kernel)?.[0];
    const near =
      timeout !== undefined && known.includes(timeout) ? `did you mean ${quote(timeout)}?` : didYouMean(key, known);
    this.reportWords(path, '', `unknown key ${quote(key)}`, near === '' ? `expected one of ${known.join(', ')}` : near);
  }
}

function valueAt(value: unknown, path: readonly (string | number)[]): unknown {
  let node = value;
  for (const part of path) {
    if (typeof node !== 'object' || node === null) return undefined;
    node = (node as Record<string | number, unknown>)[part];
  }
  return node;
}

/** A copy of the tree without some keys of the map at the path; the tree itself when they are not there. */
function without(value: unknown, path: readonly (string | number)[], keys: readonly (string | number)[]): unknown {
  if (!isTreeMap(value)) return value;
  if (path.length === 0) {
    if (!keys.some((key) => key in value)) return value;
    const rest = Object.assign(Object.create(null) as TreeMap, value);
    for (const key of keys) delete rest[key];
    return rest;
  }
  const inner = without(value[path[0]], path.slice(1), keys);
  if (inner === value[path[0]]) return value;
  return Object.assign(Object.create(null) as TreeMap, value, { [path[0]]: inner });
}

/** The keys of the object schema that a path inside `schema` leads to. */
function knownKeys(schema: z.ZodType, path: Path): string[] {
  let node = schema as unknown as { shape?: Record<string, unknown>; unwrap?: () => unknown };
  const peel = () => {
    while (node?.shape === undefined && typeof node?.unwrap === 'function') node = node.unwrap() as typeof node;
  };
  peel();
  for (const part of path) {
    node = node?.shape?.[part] as typeof node;
    peel();
  }
  return Object.keys(node?.shape ?? {});
}
