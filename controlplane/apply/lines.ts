/**
 * Lines: a configuration as one line for every thing that it says, so that two can be compared by a person and by `apply`.
 *
 *   ports.lan.addresses: 192.168.1.1/24
 *   routes: to=0.0.0.0/0 type=unicast via=203.0.113.254 port=1
 *   conntrack.tcpLiberal: false
 *
 * The values are those after reading: defaults are filled in, so leaving a word out and writing its default are one thing.
 */
import type { Config } from '../config/index.ts';

/** Not said by the file, or only how it was said. */
const SILENT = new Set(['where', 'warnings', 'number', 'zoneName']);

export interface Line {
  /** `ports.lan.addresses`, `routes`, `conntrack.max`. */
  path: string;
  /** The whole line. */
  text: string;
}

/** All lines of a configuration, in its order. */
export function configLines(config: Config): Line[] {
  const lines: Line[] = [];
  // Its own file is not in it; lease files are.
  for (const [key, value] of Object.entries(config)) if (key !== 'file' && !SILENT.has(key)) walk(key, value, lines);
  return lines;
}

function walk(path: string, value: unknown, lines: Line[]): void {
  if (value === undefined || value === null) return;
  if (value instanceof Map) {
    for (const [key, inner] of value) lines.push({ path, text: `${path}: ${key} ${words(inner)}` });
    return;
  }
  if (value instanceof Uint8Array) {
    lines.push({ path, text: `${path}: ${Buffer.from(value).toString('hex')}` });
    return;
  }
  if (Array.isArray(value)) {
    for (const item of value) {
      // Ports and zones are known by their names, everything else by what it says.
      if (isNamed(item)) walk(`${path}.${item.name}`, item, lines);
      else lines.push({ path, text: `${path}: ${words(item)}` });
    }
    return;
  }
  if (typeof value === 'object' && !('text' in value)) {
    for (const [key, inner] of Object.entries(value)) if (!SILENT.has(key)) walk(`${path}.${key}`, inner, lines);
    return;
  }
  lines.push({ path, text: `${path}: ${words(value)}` });
}

/** A port or a zone: an object that the configuration names. Rules have optional names, and are lines. */
function isNamed(item: unknown): item is { name: string } {
  return typeof item === 'object' && item !== null && 'name' in item && 'where' in item && !('verdict' in item);
}

/** `k=v k=v` of an object, without what is empty. */
function words(value: unknown): string {
  if (value === null || typeof value !== 'object') return String(value);
  if (Array.isArray(value)) return value.map(words).join(',');
  if ('text' in value) return String((value as { text: unknown }).text);
  if ('kind' in value && 'ports' in value) return (value as unknown as { name: string }).name; // a scope
  return Object.entries(value)
    .filter(([key, inner]) => !SILENT.has(key) && !isEmpty(inner))
    .map(([key, inner]) => `${key}=${words(inner)}`)
    .join(' ');
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || value === '' || (Array.isArray(value) && value.length === 0);
}

/** What `next` says and `old` does not (`+`), and the reverse (`-`); a line that is there twice counts twice. */
export function diffLines(old: Config, next: Config): { removed: Line[]; added: Line[] } {
  const before = configLines(old);
  const after = configLines(next);
  return { removed: without(before, after), added: without(after, before) };
}

function without(lines: Line[], others: Line[]): Line[] {
  const left = new Map<string, number>();
  for (const { text } of others) left.set(text, (left.get(text) ?? 0) + 1);
  return lines.filter(({ text }) => {
    const n = left.get(text) ?? 0;
    left.set(text, n - 1);
    return n <= 0;
  });
}
