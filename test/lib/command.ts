/**
 * The command line of the programs in this folder (`npm run NAME -- OPTION ...`): `--help`, numbers, and errors in the form of
 * the other commands (controlplane/cli/args.ts), in one line and with exit code 2. An option means nothing here.
 */

import {
  type Arguments,
  EXIT_OK,
  EXIT_USAGE,
  type OptionSpec,
  parseArguments,
  UsageError,
  wholeNumber,
} from '../../controlplane/cli/args.ts';
import { didYouMean } from '../../controlplane/config/errors.ts';

/** What a program was asked for. Every method ends the program, with an error, where the answer is none. */
export interface Command extends Arguments {
  has(flag: string): boolean;
  /** A whole number from `least` on. */
  whole(option: string, fallback: number, least?: number): number;
  /** A number above 0: seconds, minutes. */
  above0(option: string, fallback: number): number;
  /** The names among `all` that contain the option's value, `exact`: that are it; without the option all of them. */
  chosen(option: string, all: readonly string[], exact?: boolean): string[];
  /** Says what is wrong with the command line, and ends the program. */
  refuse(message: string): never;
}

/**
 * Reads the command line, or ends the program: with the usage on the standard output (`--help`), or with an error.
 *
 * @param name as in `npm run NAME`   @param usage one line for each option, ends with a line end
 * @param most operands that there may be
 */
export function commandLine(
  name: string,
  usage: string,
  specs: Readonly<Record<string, OptionSpec>>,
  most = 0,
): Command {
  const refuse = (message: string): never => {
    console.error(message);
    process.exit(EXIT_USAGE);
  };
  /** Does it; what it throws as a UsageError is told. */
  const told = <T>(read: () => T): T => {
    try {
      return read();
    } catch (error) {
      if (error instanceof UsageError) return refuse(error.message);
      throw error;
    }
  };
  const command = `npm run ${name} --`;
  const read = told(() => parseArguments(command, process.argv.slice(2), specs));
  if (read.flags.has('help')) {
    process.stdout.write(usage);
    process.exit(EXIT_OK);
  }
  if (read.operands.length > most)
    refuse(
      `${command}: expected ${most === 0 ? 'options only' : `at most ${most} operands`}, got "${read.operands[most]}"; see ${command} --help`,
    );
  return {
    ...read,
    refuse: (message) => refuse(`${command}: ${message}`),
    has: (flag) => read.flags.has(flag),
    whole(option, fallback, least = 0) {
      const text = read.values.get(option);
      if (text === undefined) return fallback;
      return told(() => wholeNumber(command, option, text, least, Number.MAX_SAFE_INTEGER));
    },
    above0(option, fallback) {
      const text = read.values.get(option);
      const value = text === undefined ? fallback : Number(text);
      return value > 0 && Number.isFinite(value)
        ? value
        : refuse(`${command}: --${option}: expected a number above 0, got "${text}"`);
    },
    chosen(option, all, exact = false) {
      const text = read.values.get(option);
      if (text === undefined) return [...all];
      const found = all.filter((one) => (exact ? one === text : one.includes(text)));
      if (found.length > 0) return found;
      const near = exact ? didYouMean(text, all) : '';
      return refuse(
        `${command}: --${option}: expected ${exact ? '' : 'a part of '}one of ${all.join(', ')}, got "${text}"${near ? `; ${near}` : ''}`,
      );
    },
  };
}
