/** The command: what it says about itself, what it refuses, and its exit codes. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { parseArguments, UsageError, wholeNumber } from '../../../controlplane/cli/args.ts';
import { directory, example, sluice } from '../replay/files.ts';

const program = fileURLToPath(new URL('../../../dist/controlplane/cli/main.js', import.meta.url));

describe('sluice', () => {
  test('names its commands; without one it is a usage error', async () => {
    const help = await sluice('--help');
    expect(help.code).toBe(0);
    for (const name of ['run', 'demo', 'replay', 'check', 'doctor', 'show'])
      expect(help.stdout).toMatch(new RegExp(`^  ${name} +\\S`, 'm'));
    const none = await sluice();
    expect(none).toMatchObject({ code: 2, stdout: '' });
    expect(none.stderr).toContain('Usage: sluice COMMAND');
  });

  test('an unknown command gets the nearest one, exit 2', async () => {
    expect(await sluice('chekc', 'x')).toEqual({
      code: 2,
      stdout: '',
      stderr: 'sluice: unknown command "chekc": did you mean "check"?\n',
    });
    const far = await sluice('constructor');
    expect(far.code).toBe(2);
    expect(far.stderr).toMatch(/^sluice: unknown command "constructor": expected one of run, demo, replay/);
  });

  test('prints its version as package.json has it', async () => {
    const { code, stdout } = await sluice('--version');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^sluice \d+\.\d+\.\d+\n$/);
  });

  test('a standard output that takes nothing is a failure in one line', () => {
    const full = openSync('/dev/full', 'w');
    const { status, stderr } = spawnSync(process.execPath, [program, 'help'], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
    });
    closeSync(full);
    expect([status, stderr]).toEqual([1, 'sluice: standard output: expected to be writable, got ENOSPC\n']);
  });

  test('messages that nobody reads change nothing: the work goes on, the exit code stays', async () => {
    const file = join(directory(), 'wrong.yaml');
    writeFileSync(file, 'ports: {}\n');
    const child = spawn(process.execPath, [program, 'check', file], { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.destroy();
    expect((await once(child, 'exit'))[0]).toBe(2);
  });

  test('help of every command that it names: help COMMAND and COMMAND --help are one', async () => {
    const { stdout: all } = await sluice('help');
    const names = [...all.matchAll(/^ {2}([a-z]+) +\S/gm)].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(10);
    for (const name of names) {
      const { code, stdout, stderr } = await sluice('help', name);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(new RegExp(`^Usage: sluice ${name} ?`));
      expect((await sluice(name, '--help')).stdout).toBe(stdout);
    }
    expect((await sluice('help', 'chekc')).stderr).toContain('did you mean "check"');
  });
});

describe('sluice check', () => {
  test('a right configuration: ok, a summary, and the memory of its tables', async () => {
    const file = example('home.yaml');
    const { code, stdout, stderr } = await sluice('check', file);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.split('\n')[0]).toBe(`${file}: ok`);
    expect(stdout).toMatch(/^ {2}lan +tap +sl-lan +zone lan +mtu 1500 +192\.168\.1\.1\/24 2001:db8:1::1\/64$/m);
    expect(stdout).toMatch(/^ {2}0\.0\.0\.0\/0 +via 203\.0\.113\.254 +out wan$/m);
    expect(stdout).toMatch(/^ {2}connections +[\d.]+ MiB {2}262144/m);
    // 48 words for each connection, at least, and everything besides on top.
    const connections = Number(/connections +([\d.]+) MiB/.exec(stdout)![1]);
    const all = Number(/all tables +([\d.]+) MiB/.exec(stdout)![1]);
    expect(connections).toBeGreaterThanOrEqual(48);
    expect(all).toBeGreaterThan(connections);
  });

  test('the memory follows conntrack.max and the size of the engine', async () => {
    const file = join(directory(), 'small.yaml');
    const ports = 'ports: { a: { kind: memory, mac: "02:00:00:00:00:01", addresses: [10.0.0.1/24] } }\n';
    const sizes = async (rest: string) => {
      writeFileSync(file, ports + rest);
      const { stdout } = await sluice('check', file);
      return /all tables +([\d.]+) MiB/.exec(stdout)![1];
    };
    const large = Number(await sizes('conntrack: { max: 262144 }\n'));
    const small = Number(await sizes('conntrack: { max: 1024 }\n'));
    const none = Number(await sizes('conntrack: { max: 1024 }\noffload: { mode: off }\n'));
    expect(large - small).toBeGreaterThan(48);
    expect(small).toBeGreaterThan(none);
  });

  test('every fault on a line of its own, exit 2', async () => {
    const file = join(directory(), 'bad.yaml');
    writeFileSync(file, 'ports:\n  lan: { kind: tapp, zone: lan }\nworkerz: 1\n');
    const { code, stdout, stderr } = await sluice('check', file);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    const lines = stderr.trimEnd().split('\n');
    expect(lines.length).toBeGreaterThanOrEqual(2);
    for (const line of lines) expect(line.startsWith(`${file}:`)).toBe(true);
    expect(stderr).toContain('did you mean "tap"?');
    expect(stderr).toContain('did you mean "workers"?');
  });

  test('no file, two files, a file that is not there', async () => {
    expect((await sluice('check')).stderr).toMatch(/^sluice check: expected a configuration file, got nothing/);
    expect((await sluice('check', 'a', 'b')).stderr).toMatch(/^sluice check: .*got "b" as well/);
    expect(await sluice('check', 'not-there.yaml')).toMatchObject({ code: 2, stdout: '' });
  });
});

test('doctor --json is one object; the exit code is the verdict on the basics', async () => {
  const { code, stdout } = await sluice('doctor', '--json');
  const report = JSON.parse(stdout) as { ok: boolean; checks: unknown[] };
  expect(report.checks.length).toBeGreaterThan(3);
  expect(code).toBe(report.ok ? 0 : 1);
});

describe('arguments', () => {
  const specs = {
    json: { kind: 'flag', alias: 'j' },
    out: { kind: 'value', expected: 'a directory' },
    in: { kind: 'list' },
  } as const;
  const refuse = (...argv: string[]) => {
    try {
      parseArguments('c', argv, specs);
    } catch (error) {
      expect(error).toBeInstanceOf(UsageError);
      return (error as Error).message;
    }
    return '';
  };

  test('options before, between and behind operands; = and blank; -- ends them', () => {
    const { operands, flags, values, lists } = parseArguments(
      'c',
      ['--in=a=b', 'x', '-j', '--out', 'dir', '--in', 'c', '-', '--', '--json'],
      specs,
    );
    expect(operands).toEqual(['x', '-', '--json']);
    expect([...flags]).toEqual(['json']);
    expect([...values]).toEqual([['out', 'dir']]);
    expect([...lists]).toEqual([['in', ['a=b', 'c']]]);
  });

  test('errors say where, what was expected and what came', () => {
    expect(refuse('--jsn')).toBe('c: unknown option "--jsn": did you mean "--json"?');
    expect(refuse('-q')).toBe('c: unknown option "-q": see c --help');
    expect(refuse('--out')).toBe('c: --out: expected a directory, got nothing');
    expect(refuse('--out=')).toBe('c: --out: expected a directory, got nothing');
    expect(refuse('--out=a', '--out=b')).toBe('c: --out: expected once, got "b" as well');
    expect(refuse('--json=1')).toBe('c: --json: expected no value, got "1"');
    expect(refuse('--toString')).toMatch(/^c: unknown option/);
  });

  test.each(['', '1.5', '1e3', 'x', '11', '-1', '0x1'])('whole number from 0 to 10: not %j', (text) => {
    expect(() => wholeNumber('c', 'n', text, 0, 10)).toThrow('c: --n: expected a whole number from 0 to 10');
  });
});
