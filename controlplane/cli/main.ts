#!/usr/bin/env node
/**
 * The command `sluice`: finds the subcommand, loads it and turns its result into the exit code.
 *
 * Exit codes: 0 done, 1 failed, 2 usage or configuration. Results go to the standard output, everything for people to
 * the standard error. Only the subcommand that was asked for is loaded, so that `--help` and `check` answer at once.
 */
import { didYouMean, quote } from '../config/errors.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, UsageError } from './args.ts';

interface Command {
  summary: string;
  load(): Promise<(argv: string[]) => number | Promise<number>>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  run: {
    summary: 'run the router live: sluice run FILE',
    load: async () => (await import('./run.ts')).runCommand,
  },
  demo: {
    summary: 'build a lab on this machine, route real programs through it, show what happened: sluice demo [--gateway]',
    load: async () => (await import('../demo/index.ts')).demoCommand,
  },
  replay: {
    summary:
      'play captures through the router and write what leaves it: sluice replay FILE --in PORT=CAPTURE --out DIR',
    load: async () => (await import('./replay.ts')).replayCommand,
  },
  apply: {
    summary: 'give a running router another configuration: sluice apply FILE [--diff] [--confirm 60s]',
    load: async () => (await import('./apply.ts')).applyCommand,
  },
  confirm: {
    summary: 'keep the configuration that apply --confirm has put on probation',
    load: async () => (await import('./apply.ts')).confirmCommand,
  },
  restart: {
    summary: 'start one domain of the control plane again: sluice restart ipv4|ipv6|management',
    load: async () => (await import('./restart.ts')).restartCommand,
  },
  top: {
    summary: 'rates, connections and drops of a running router, anew each second',
    load: async () => (await import('./top.ts')).topCommand,
  },
  check: {
    summary: 'read a configuration, say what is wrong with it and what it will take: sluice check FILE',
    load: async () => (await import('./check.ts')).checkCommand,
  },
  doctor: {
    summary: 'what this machine lacks, what that disables, and the command that mends it',
    load: async () => (await import('./doctor.ts')).doctorCommand,
  },
  nat: {
    summary: 'who was behind an outside address and port: sluice nat who ADDRESS:PORT [--at TIME]',
    load: async () => (await import('../carrier/command.ts')).natCommand,
  },
  explain: {
    summary: 'what would happen to a packet, stage by stage, and why: sluice explain --flow FLOW',
    load: async () => (await import('./explain.ts')).explainCommand,
  },
  trace: {
    summary: 'follow packets through the stages: sluice trace add STAGE PACKETS',
    load: async () => (await import('./trace.ts')).traceCommand,
  },
  capture: {
    summary: 'frames with what became of each, as pcapng: sluice capture -w - [--drops]',
    load: async () => (await import('./capture.ts')).captureCommand,
  },
  show: {
    summary: 'look into a running router: sluice show conntrack|nat|route|neigh|link|drops|leases|… [-j]',
    load: async () => (await import('./show.ts')).showCommand,
  },
};

function help(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'sluice: a dual-stack software router with NAT, connection tracking and an offload engine, emulated or in the kernel',
    '',
    'Usage: sluice COMMAND [OPTION ...]',
    '',
    ...lines,
    '',
    'sluice help COMMAND says more. Exit codes: 0 done, 1 failed, 2 usage or configuration.',
    '',
  ].join('\n');
}

/**
 * Runs one command line.
 *
 * @param argv what follows `sluice`
 * @returns the exit code; never throws
 */
export async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  try {
    if (name === 'help' && rest.length > 0 && rest[0] !== 'help') return await main([rest[0], '--help']);
    if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
      (name === undefined ? process.stderr : process.stdout).write(help());
      return name === undefined ? EXIT_USAGE : EXIT_OK;
    }
    if (name === '--version' || name === '-V') {
      const { packageVersion } = await import('../package-root.ts');
      process.stdout.write(`sluice ${packageVersion()}\n`);
      return EXIT_OK;
    }
    if (!Object.hasOwn(COMMANDS, name)) {
      const near = didYouMean(name, Object.keys(COMMANDS));
      const list = `expected one of ${Object.keys(COMMANDS).join(', ')}`;
      throw new UsageError('sluice', `unknown command ${quote(name)}: ${near || list}`);
    }
    const command = await COMMANDS[name].load();
    return await command(rest);
  } catch (error) {
    return report(error);
  }
}

/** Says what went wrong on the standard error, and gives the exit code. */
function report(error: unknown): number {
  if (error instanceof UsageError || (error instanceof Error && error.name === 'ConfigError')) {
    process.stderr.write(`${error.message}\n`);
    return EXIT_USAGE;
  }
  if (error instanceof Error && error.name === 'CaptureError') process.stderr.write(`${error.message}\n`);
  // Not foreseen: the stack is what a report of the defect needs.
  else process.stderr.write(`sluice: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return EXIT_FAILED;
}

/**
 * A reader that has gone (`sluice ... | head`) is no failure worth a word; what was to be said has no listener. A disk that
 * is full is one, but none of the program's. When nobody hears the messages any more, the work goes on: a router must not
 * end, least of all without taking its devices away, because the log's reader did.
 */
function quietPipes(): void {
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(process.exitCode ?? EXIT_OK);
    process.stderr.write(`sluice: standard output: expected to be writable, got ${error.code ?? error.message}\n`);
    process.exit(EXIT_FAILED);
  });
}

/** True when this file was started, by its own name or through the link that npm makes. */
async function isStarted(): Promise<boolean> {
  const { realpathSync } = await import('node:fs');
  const { fileURLToPath } = await import('node:url');
  try {
    return process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url);
  } catch {
    return false;
  }
}

if (await isStarted()) {
  quietPipes();
  process.exitCode = await main(process.argv.slice(2));
}
