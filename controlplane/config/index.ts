/**
 * Configuration: read a file, a text or an object; get a Config, or a ConfigError that names every fault.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { isTreeMap, MAX_TEXT, readObject, readYaml, type Source } from './document.ts';
import { ConfigError, formatProblem, type Problem } from './errors.ts';
import { type Machine, normalize } from './normalize.ts';
import { Reader } from './reader.ts';
import type { Config } from './types.ts';

export { DEFAULTS } from './defaults.ts';
export { ConfigError, formatProblem, type Problem } from './errors.ts';
export type { Machine } from './normalize.ts';
export type * from './types.ts';

/**
 * Reads a configuration file.
 *
 * @param file path, absolute or relative to the working directory; it appears in messages as given
 * @param machine what tables and workers are measured against; default: this machine
 * @throws ConfigError when the file cannot be read or has faults
 */
export function loadConfig(file: string, machine?: Partial<Machine>): Config {
  return parseConfig(readConfigText(file), file, machine);
}

/** The text of a configuration file. @throws ConfigError when it cannot be read or is no text */
export function readConfigText(file: string): string {
  let bytes: Uint8Array;
  try {
    bytes = readBounded(file, MAX_TEXT * 4 + 1);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'error';
    const reason = { ENOENT: 'no such file', EISDIR: 'a directory', EACCES: 'permission denied' }[code] ?? code;
    throw new ConfigError([fileProblem(file, 'a configuration file that can be read', reason)]);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new ConfigError([fileProblem(file, 'a text in UTF-8', 'other bytes')]);
  }
}

/**
 * Parses YAML text.
 *
 * @param fileName what messages call it
 * @throws ConfigError with every fault that the text has
 */
export function parseConfig(text: string, fileName: string, machine?: Partial<Machine>): Config {
  return finish(readYaml(text, fileName), machine);
}

/**
 * Takes a configuration as an object with the same keys as the file: for programs that embed the router. The object is
 * copied. Messages name paths only.
 *
 * @throws ConfigError with every fault that the object has
 */
export function normalizeConfig(object: unknown, machine?: Partial<Machine>): Config {
  return finish(readObject(object), machine);
}

function finish(source: Source, machine: Partial<Machine> = {}): Config {
  // What could not be read as a tree cannot be judged either: its keys would seem to be missing.
  if (source.root === undefined && source.problems.length > 0) throw new ConfigError(inOrder(source.problems));
  const { root } = source;
  const reader = new Reader(source);
  if (root !== undefined && root !== null && !isTreeMap(root)) {
    reader.report([], 'a map with the section "ports"', root);
    throw new ConfigError(reader.problems);
  }
  const config = normalize(reader, {
    memory: machine.memory ?? totalmem(),
    cores: machine.cores ?? availableParallelism(),
  });
  if (reader.problems.length > 0) throw new ConfigError(inOrder(reader.problems));
  return config;
}

/** The order of the text; of an object, the order in which they were found. One fault is told once. */
function inOrder(problems: readonly Problem[]): Problem[] {
  const lines = new Set<string>();
  return [...problems]
    .sort((a, b) => a.line - b.line || a.column - b.column)
    .filter((problem) => {
      const line = formatProblem(problem);
      const first = !lines.has(line);
      lines.add(line);
      return first;
    });
}

function fileProblem(file: string, expected: string, got: string): Problem {
  return { file, line: 0, column: 0, path: 'file', expected, got, hint: '' };
}

/** The file's bytes, `limit` at most: a device or a pipe may never end. */
function readBounded(file: string, limit: number): Uint8Array {
  const fd = openSync(file, 'r');
  try {
    const chunks: Buffer[] = [];
    let total = 0;
    while (total < limit) {
      const chunk = Buffer.allocUnsafe(65536);
      const length = readSync(fd, chunk, 0, Math.min(chunk.length, limit - total), null);
      if (length === 0) break;
      chunks.push(chunk.subarray(0, length));
      total += length;
    }
    return Buffer.concat(chunks);
  } finally {
    closeSync(fd);
  }
}
