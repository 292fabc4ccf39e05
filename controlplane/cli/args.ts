/**
 * Arguments of a command: options and operands, and errors in the house form (where, expected, got, what to do).
 *
 * `--name value` and `--name=value`; one-letter options only where a command declares an alias; `--` ends the options.
 * What values mean is for the commands. Not here: bundled letters (`-jv`), abbreviated names, environment variables.
 */
import { didYouMean, quote } from '../config/errors.ts';

/** Exit codes of every command. */
export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** A command line that cannot be understood: exit code 2. */
export class UsageError extends Error {
  /** @param command what was called, such as `sluice replay` */
  constructor(command: string, message: string) {
    super(`${command}: ${message}`);
    this.name = 'UsageError';
  }
}

/** `flag`: no value; `value`: one, and twice is an error; `list`: may be repeated. */
export interface OptionSpec {
  kind: 'flag' | 'value' | 'list';
  /** What the value is, as errors say it: `a capture file`. */
  expected?: string;
  /** One letter: `j` for `-j`. */
  alias?: string;
}

export interface Arguments {
  operands: string[];
  flags: ReadonlySet<string>;
  values: ReadonlyMap<string, string>;
  lists: ReadonlyMap<string, readonly string[]>;
}

/**
 * Takes the arguments apart.
 *
 * @param command what errors call it   @param argv what follows the command's name
 * @param specs by long name, without dashes; `help` (alias `h`) is always there
 * @throws UsageError
 */
export function parseArguments(
  command: string,
  argv: readonly string[],
  specs: Readonly<Record<string, OptionSpec>>,
): Arguments {
  const known: Record<string, OptionSpec> = { ...specs, help: { kind: 'flag', alias: 'h' } };
  const operands: string[] = [];
  const flags = new Set<string>();
  const values = new Map<string, string>();
  const lists = new Map<string, string[]>();
  for (let n = 0; n < argv.length; n++) {
    const word = argv[n];
    if (word === '--') {
      operands.push(...argv.slice(n + 1));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      operands.push(word);
      continue;
    }
    const equals = word.startsWith('--') ? word.indexOf('=') : -1;
    const written = equals < 0 ? word : word.slice(0, equals);
    const name = nameOf(written, known);
    if (name === null) {
      const near = didYouMean(
        written,
        Object.keys(known).map((option) => `--${option}`),
      );
      throw new UsageError(command, `unknown option ${quote(written)}: ${near || `see ${command} --help`}`);
    }
    const spec = known[name];
    if (spec.kind === 'flag') {
      if (equals >= 0)
        throw new UsageError(command, `--${name}: expected no value, got ${quote(word.slice(equals + 1))}`);
      flags.add(name);
      continue;
    }
    const value = equals >= 0 ? word.slice(equals + 1) : argv[++n];
    if (value === undefined || value === '')
      throw new UsageError(command, `--${name}: expected ${spec.expected ?? 'a value'}, got nothing`);
    if (spec.kind === 'list') lists.set(name, [...(lists.get(name) ?? []), value]);
    else if (values.has(name)) throw new UsageError(command, `--${name}: expected once, got ${quote(value)} as well`);
    else values.set(name, value);
  }
  return { operands, flags, values, lists };
}

function nameOf(written: string, known: Readonly<Record<string, OptionSpec>>): string | null {
  if (written.startsWith('--')) return Object.hasOwn(known, written.slice(2)) ? written.slice(2) : null;
  const found = Object.entries(known).find(([, spec]) => spec.alias === written.slice(1));
  return found === undefined ? null : found[0];
}

/** A whole number from `low` to `high`. @param option its name, or an operand's in capitals. @throws UsageError */
export function wholeNumber(command: string, option: string, text: string, low: number, high: number): number {
  const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
  const name = option.toUpperCase() === option ? option : `--${option}`;
  if (!(value >= low && value <= high))
    throw new UsageError(command, `${name}: expected a whole number from ${low} to ${high}, got ${quote(text)}`);
  return value;
}

/** The one operand of a command. @throws UsageError */
export function oneOperand(command: string, operands: readonly string[], expected: string): string {
  if (operands.length === 0) throw new UsageError(command, `expected ${expected}, got nothing; see ${command} --help`);
  if (operands.length > 1)
    throw new UsageError(command, `expected ${expected} only, got ${quote(operands[1])} as well`);
  return operands[0];
}
