/**
 * Document: a configuration as text or object, turned into plain maps, lists and scalars that remember their places.
 *
 * YAML 1.2 (core schema) by the package `yaml`. The tree is built here, and not by the package, for four reasons: each
 * map and list keeps the offsets of its members; duplicate keys are found in linear time and named with their path;
 * aliases are expanded under a budget, so that "a billion laughs" ends as an error; and `__proto__` is only a key.
 *
 * Not here: what the keys mean (schema.ts). Merge keys (`<<`) and tags of one's own are not supported.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { formatPath, type Path, type Problem, quote } from './errors.ts';

/** Largest text, characters: room for some 50 000 rules. */
export const MAX_TEXT = 4 * 1024 * 1024;
/** Largest tree, maps, lists and scalars together, aliases expanded. */
const MAX_NODES = 1_000_000;
/** The schema needs six levels. */
const MAX_DEPTH = 32;
/** Faults of syntax reported; one slip can make hundreds. */
const MAX_SYNTAX_PROBLEMS = 20;

export type TreeMap = Record<string, unknown>;

export interface Source {
  file: string;
  /** Maps have no prototype; undefined when nothing could be read. */
  root: unknown;
  problems: Problem[];
  /** Line and column of the deepest part of the path that exists: the key in a map, the element in a list. */
  locate(path: Path): { line: number; column: number };
}

/** Offsets of the members of one map or list, by key or index. */
type Members = Map<string | number, number>;

export function isTreeMap(value: unknown): value is TreeMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function newMap(): TreeMap {
  return Object.create(null) as TreeMap;
}

/** Reads YAML text. Never throws; `problems` has what was wrong, `root` as much as could be understood. */
export function readYaml(text: string, file: string): Source {
  const lines = new LineCounter();
  const offsets = new Map<object, Members>();
  const problems: Problem[] = [];
  const source: Source = {
    file,
    root: undefined,
    problems,
    locate(path) {
      let at = 0;
      let node = source.root;
      for (const part of path) {
        if (typeof node !== 'object' || node === null) break;
        const offset = offsets.get(node)?.get(part);
        if (offset === undefined) break;
        at = offset;
        node = (node as Record<string | number, unknown>)[part];
      }
      return place(at);
    },
  };
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return line === 0 ? { line: 1, column: 1 } : { line, column: col };
  };
  const problem = (offset: number, path: Path, expected: string, got: string, hint = '') => {
    problems.push({ file, ...place(offset), path: path.length === 0 ? 'yaml' : formatPath(path), expected, got, hint });
  };

  if (text.length > MAX_TEXT) {
    problem(0, [], `a text of at most ${MAX_TEXT} characters`, String(text.length));
    return source;
  }
  let document: ReturnType<typeof parseDocument>;
  try {
    document = parseDocument(text, {
      lineCounter: lines,
      prettyErrors: false,
      stringKeys: true,
      uniqueKeys: false, // checked below: the package compares every key with every other
      resolveKnownTags: false,
      merge: false,
      logLevel: 'error', // 'silent' would hide a second document
      version: '1.2',
      schema: 'core',
    });
  } catch (error) {
    // The package recurses: its stack ends before our depth is known.
    const reason = error instanceof RangeError ? 'a text that nests too deeply' : `"${(error as Error).message}"`;
    problem(0, [], 'valid YAML', reason);
    return source;
  }
  for (const error of [...document.errors, ...document.warnings].slice(0, MAX_SYNTAX_PROBLEMS)) {
    const message = error.message.split('\n')[0].replace('; please use YAML.parseAllDocuments()', '');
    if (message.includes('call stack')) {
      problems.length = 0;
      problem(error.pos[0], [], `at most ${MAX_DEPTH} levels`, 'more');
      break;
    }
    if (error.code === 'TAG_RESOLVE_FAILED')
      problem(error.pos[0], [], 'a value without a tag', quote(message.replace(/^Unresolved tag: /, '')));
    else problem(error.pos[0], [], 'valid YAML', 'a syntax error', message);
  }
  // A tree made of broken text would only add misleading problems.
  if (problems.length > 0) return source;
  if (document.directives?.yaml.explicit && document.directives.yaml.version !== '1.2') {
    problem(0, [], 'YAML version 1.2', document.directives.yaml.version);
    return source;
  }

  const anchors = new Map<string, unknown>();
  let nodes = 0;
  let full = false;
  const convert = (node: unknown, path: (string | number)[], at: number): unknown => {
    if (full) return undefined;
    if (++nodes > MAX_NODES || path.length > MAX_DEPTH) {
      full = true;
      const limit = nodes > MAX_NODES ? `at most ${MAX_NODES} values` : `at most ${MAX_DEPTH} levels`;
      problem(at, [], limit, 'more', 'aliases count as what they stand for');
      return undefined;
    }
    if (isAlias(node)) {
      if (!anchors.has(node.source)) {
        problem(at, path, 'an alias of an anchor above it', quote(`*${node.source}`));
        return undefined;
      }
      return convert(anchors.get(node.source), path, at);
    }
    let value: unknown;
    if (isMap(node)) {
      const map = newMap();
      const members: Members = new Map();
      for (const pair of node.items) {
        const key = isScalar(pair.key) ? String(pair.key.value ?? '') : '';
        const keyAt = startOf(pair.key, at);
        const keyPath = [...path, key];
        if (!isScalar(pair.key)) {
          problem(keyAt, path, 'a plain key', isAlias(pair.key) ? 'an alias' : 'a list or map');
          continue;
        }
        const before = members.get(key);
        if (before !== undefined) {
          problem(
            keyAt,
            keyPath,
            'each key once',
            `${quote(key)} again`,
            `it stands in line ${place(before).line} too`,
          );
          continue;
        }
        members.set(key, keyAt);
        map[key] = convert(pair.value, keyPath, keyAt);
      }
      offsets.set(map, members);
      value = map;
    } else if (isSeq(node)) {
      const list: unknown[] = [];
      const members: Members = new Map();
      offsets.set(list, members);
      for (let n = 0; n < node.items.length; n++) {
        const itemAt = startOf(node.items[n], at);
        members.set(n, itemAt);
        list.push(convert(node.items[n], [...path, n], itemAt));
      }
      value = list;
    } else if (isScalar(node)) {
      value = node.value;
    } else {
      value = null;
    }
    // Set when the node is complete: an alias inside its own anchor is refused as unknown.
    const anchor = (node as { anchor?: string } | null)?.anchor;
    if (anchor !== undefined) anchors.set(anchor, node);
    return value;
  };
  const root = convert(document.contents, [], 0);
  if (!full) source.root = root;
  return source;
}

function startOf(node: unknown, otherwise: number): number {
  return (node as { range?: [number, number, number] } | null)?.range?.[0] ?? otherwise;
}

/** Takes an object (of a program that embeds the router). It is copied; places are paths only. Never throws. */
export function readObject(object: unknown): Source {
  const problems: Problem[] = [];
  let nodes = 0;
  let full = false;
  const convert = (value: unknown, path: (string | number)[]): unknown => {
    if (full || typeof value !== 'object' || value === null) return value;
    if (++nodes > MAX_NODES || path.length > MAX_DEPTH) {
      full = true;
      const limit = nodes > MAX_NODES ? `at most ${MAX_NODES} maps and lists` : `at most ${MAX_DEPTH} levels`;
      const hint = 'does the object contain itself?';
      problems.push({ ...nowhere(['configuration']), expected: limit, got: 'more', hint });
      return undefined;
    }
    if (Array.isArray(value)) return value.map((item, n) => convert(item, [...path, n]));
    const map = newMap();
    for (const key of Object.keys(value)) {
      let member: unknown;
      try {
        member = (value as TreeMap)[key];
      } catch (error) {
        problems.push({
          ...nowhere([...path, key]),
          expected: 'a value',
          got: quote((error as Error)?.message),
          hint: '',
        });
      }
      // As in JSON: a member that is undefined is not there.
      if (member !== undefined) map[key] = convert(member, [...path, key]);
    }
    return map;
  };
  const root = convert(object, []);
  return { file: '', root: full ? undefined : root, problems, locate: () => ({ line: 0, column: 0 }) };
}

function nowhere(path: Path) {
  return { file: '', line: 0, column: 0, path: formatPath(path) };
}
