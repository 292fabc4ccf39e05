/** The command line of the programs of this folder: help, numbers, names, and one line for what is wrong. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type Command, commandLine } from './command.ts';

const USAGE = 'usage: npm run thing [-- OPTION ...]\n';
const given = process.argv;

/** What the program prints, and its exit code where it ends there. */
function asked(words: readonly string[], read: (command: Command) => unknown = () => null): unknown[] {
  const out: unknown[] = [];
  process.argv = ['node', 'main.js', ...words];
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => out.push(text) > 0);
  vi.spyOn(console, 'error').mockImplementation((text) => out.push(text));
  vi.spyOn(process, 'exit').mockImplementation((code) => {
    out.push(code);
    throw new Error('ended');
  });
  try {
    const specs = { count: { kind: 'value' }, only: { kind: 'value' }, write: { kind: 'flag' } } as const;
    out.push(read(commandLine('thing', USAGE, specs, 1)));
  } catch (error) {
    if ((error as Error).message !== 'ended') throw error;
  }
  return out;
}

afterEach(() => {
  vi.restoreAllMocks();
  process.argv = given;
});

describe('commandLine', () => {
  it('--help printed the stack of an unknown option', () => {
    for (const word of ['--help', '-h']) expect(asked([word])).toEqual([USAGE, 0]);
  });

  it('what cannot be understood is one line, and exit code 2', () => {
    expect(asked(['--cuont', '3'])).toEqual(['npm run thing --: unknown option "--cuont": did you mean "--count"?', 2]);
    expect(asked(['--count'])).toEqual(['npm run thing --: --count: expected a value, got nothing', 2]);
    expect(asked(['one', 'two'])).toEqual([
      'npm run thing --: expected at most 1 operands, got "two"; see npm run thing -- --help',
      2,
    ]);
  });

  it('numbers', () => {
    const whole = (command: Command) => command.whole('count', 7, 2);
    expect(asked([], whole)).toEqual([7]);
    expect(asked(['--count', '12'], whole)).toEqual([12]);
    for (const text of ['1', 'x', '2.5', '0x10'])
      expect(asked(['--count', text], whole)[0]).toContain(`--count: expected a whole number from 2 to`);
    const above0 = (command: Command) => command.above0('count', 3);
    expect(asked(['--count=0.5'], above0)).toEqual([0.5]);
    for (const text of ['0', '-1', 'soon', 'Infinity']) expect(asked(['--count', text], above0)[1]).toBe(2);
  });

  it('a name that is none ends the program: nothing was run, and nothing had failed', () => {
    const all = ['SYN flood', 'fragment flood', 'neighbours'];
    const part = (command: Command) => command.chosen('only', all);
    expect(asked(['--only', 'flood'], part)).toEqual([all.slice(0, 2)]);
    expect(asked([], part)).toEqual([all]);
    expect(asked(['--only', 'rain'], part)[0]).toContain('expected a part of one of SYN flood,');
    expect(asked(['--only', 'neighbour'], (command) => command.chosen('only', all, true))).toEqual([
      'npm run thing --: --only: expected one of SYN flood, fragment flood, neighbours, got "neighbour"; did you mean "neighbours"?',
      2,
    ]);
  });
});
