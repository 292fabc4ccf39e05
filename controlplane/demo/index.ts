/**
 * `sluice demo`: a lab of three network namespaces on this machine, real programs talking through a router between them,
 * and what happened, checked. Where no lab can be (no root, no /dev/net/tun), a bundled capture is replayed instead.
 *
 *   sluice demo [--engine emulated|kernel] [--keep] [--replay] [--json]
 *
 * Everything is taken down at the end: also on Ctrl-C, SIGTERM or a failure. It reads no standard input (but --keep waits
 * for Enter where there is somebody to press it) and is bounded in time. Exit codes: 0 all checks passed, 1 not, 2 usage.
 */
import { closeSync, openSync } from 'node:fs';
import { askShow } from '../api/client.ts';
import { EXIT_FAILED, EXIT_OK, parseArguments, UsageError } from '../cli/args.ts';
import { draw } from '../lab/draw.ts';
import { startHttpServer } from '../lab/http.ts';
import { requirements } from '../lab/namespace.ts';
import { type Check, type CheckResult, formatResult, runCheck } from './check.ts';
import { KERNEL_FORWARDS, STOP, TRAFFIC } from './checks.ts';
import { GATEWAY_CHECKS, gatewayObstacles, withGateway } from './gateway.ts';
import { keep } from './keep.ts';
import { CAPTURE, type Played, playCapture, REPLAY } from './replay.ts';
import { buildWorld, type World } from './world.ts';

const NAME = 'sluice demo';

const HELP = `Usage: sluice demo [--engine emulated|kernel | --gateway | --replay] [--keep] [--json]

Builds three network namespaces (client, router, server), routes ping, traceroute and HTTP through a router between
them, over IPv4 with NAT and over IPv6, checks what happened and takes everything down again. Needs root and
/dev/net/tun; without them it plays a bundled capture through the router instead.

  --engine   kernel: the cables are veth pairs, and what is established is forwarded by eBPF programs (Linux 6.6)
  --keep     when the checks are done, keep everything running until Enter or Ctrl-C
  --replay   only play the bundled capture
  --gateway  instead: a home that provisions itself behind a provider (dnsmasq, kea-dhcp6, radvd), and is renumbered
  --json     print one JSON object at the end instead of text

Exit codes: 0 every check passed, 1 not, 2 usage.
`;

/** What somebody who has seen the lab may want to see now. */
const NEXT = `Next: npx sluice demo --keep      the same lab, to look around in
      npx sluice demo --gateway   a home that provisions itself behind a provider
      npx sluice help             all commands; docs/ has the rest`;

/** All of it, but for --keep's waiting, must be over by then. */
const DEADLINE_MS = 55_000;
/** The home has to come up, and to live through a renumbering. */
const GATEWAY_DEADLINE_MS = 110_000;
const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

interface Summary {
  mode: 'lab' | 'replay' | 'gateway';
  passed: boolean;
  seconds: number;
  /** Why there was no lab. */
  reasons: string[];
  checks: CheckResult[];
  /** Views of the router after the traffic: conntrack, nat, drops, stages, link ... */
  show?: Record<string, unknown>;
  /** What the router said, when a check failed. */
  router_log?: string;
}

type Say = (text: string) => void;

/** What keeps the lab from this machine; empty when nothing does. */
function obstacles(): string[] {
  const missing = requirements(['ping', 'curl', 'sha256sum'], { tun: true });
  if (missing.length > 0) return missing;
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
    return [];
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return [`/dev/net/tun: expected to open it, got ${code}; pass the device to the container, with CAP_NET_ADMIN`];
  }
}

/** Runs the command with the arguments behind `demo`; resolves to the exit code. */
export async function demoCommand(argv: string[]): Promise<number> {
  const { flags, values, operands } = parseArguments(NAME, argv, {
    keep: { kind: 'flag' },
    replay: { kind: 'flag' },
    gateway: { kind: 'flag' },
    json: { kind: 'flag', alias: 'j' },
    engine: { kind: 'value', expected: 'emulated or kernel' },
  });
  const engine = values.get('engine') ?? 'emulated';
  if (engine !== 'emulated' && engine !== 'kernel')
    throw new UsageError(NAME, `--engine: expected emulated or kernel, got "${engine}"`);
  if (flags.has('help')) {
    process.stdout.write(HELP);
    return EXIT_OK;
  }
  if (operands.length > 0) throw new UsageError(NAME, `expected no operand, got "${operands[0]}"`);
  if (flags.has('keep') && flags.has('replay')) throw new UsageError(NAME, '--keep: expected a lab, got --replay');
  const json = flags.has('json');
  const say: Say = (text) => void (json ? process.stderr : process.stdout).write(`${text}\n`);
  const begin = performance.now();
  const reasons = flags.has('replay') ? [] : obstacles();
  const summary: Summary = { mode: 'lab', passed: false, seconds: 0, reasons, checks: [] };
  ended.reason = '';
  // Registered before the lab's own handlers, which take everything down: then the programs waited for are dead, and the
  // check that runs ends by itself. A second signal does not wait.
  const onSignal = (signal: NodeJS.Signals): void => {
    if (ended.reason !== '') process.exit(EXIT_FAILED);
    ended.reason = signal;
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    if (flags.has('gateway')) await demoGateway(summary, say);
    else if (reasons.length === 0 && !flags.has('replay')) await demoLab(summary, say, flags.has('keep'), engine);
    else await demoReplay(summary, say);
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
  if (ended.reason !== '' && !summary.passed) {
    summary.checks.push({ name: 'interrupted', passed: false, seconds: 0, seen: ended.reason });
    process.stderr.write(`${NAME}: ${ended.reason}: everything was taken down\n`);
  }
  summary.seconds = Math.round(performance.now() - begin) / 1000;
  summary.passed = summary.passed && summary.checks.every((check) => check.passed);
  const count = summary.checks.filter((check) => check.passed).length;
  say(`\n${count} of ${summary.checks.length} checks passed in ${summary.seconds.toFixed(1)} s`);
  if (summary.passed && summary.mode === 'lab') say(NEXT);
  if (json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  return summary.passed ? EXIT_OK : EXIT_FAILED;
}

async function runAll<W>(checks: readonly Check<W>[], world: W, summary: Summary, say: Say): Promise<void> {
  for (const check of checks) {
    const result = await runCheck(check, world);
    // What fails because everything was taken down under it is no finding.
    if (ended.reason !== '') return;
    summary.checks.push(result);
    say(formatResult(result));
  }
}

// --- the lab ---------------------------------------------------------------------------------------------------------

/** Why the demo is being ended from outside; '' while it is not. */
const ended = { reason: '' };

const CABLES = {
  emulated: 'Both cables are TAP devices: the only way between the hosts is through the router, one Node.js process.\n',
  kernel:
    'Both cables are veth pairs with an eBPF program at the router: it forwards what the Node.js process has programmed, ' +
    'and hands it the rest.\n',
} as const;

/** `passed` is set when all checks have run; whether they passed is for the caller. */
async function demoLab(summary: Summary, say: Say, stay: boolean, engine: 'emulated' | 'kernel'): Promise<void> {
  let world: World | null = null;
  const deadline = setTimeout(() => {
    ended.reason = `no end after ${DEADLINE_MS / 1000} s`;
    world?.close();
  }, DEADLINE_MS);
  try {
    say('Building the lab:');
    world = await buildWorld({ engine, say: (step) => say(`  ${step}`), cancelled: () => ended.reason !== '' });
    say(`\n${draw(world.lab)}\n`);
    say(CABLES[engine]);
    await startServers(world);
    await runAll(engine === 'kernel' ? [...TRAFFIC, KERNEL_FORWARDS] : TRAFFIC, world, summary, say);
    if (ended.reason === '') await showAll(VIEWS, world.show, summary, say);
    if (summary.checks.some((check) => !check.passed)) tellLog(world, summary, say);
    if (stay && ended.reason === '') {
      clearTimeout(deadline);
      await keep(world, say, () => ended.reason !== '');
      // What ends the stay is no interruption: the checks had run.
      if (ended.reason !== '') say(`\n${ended.reason}: taken down`);
      summary.passed = true;
    }
    if (ended.reason === '') {
      say('Taking down:');
      await runAll([STOP], world, summary, say);
      summary.passed = ended.reason === '';
    }
  } catch (error) {
    if (ended.reason === '') {
      const seen = (error as Error).message;
      summary.checks.push({ name: 'the lab', passed: false, seconds: 0, seen });
      say(formatResult(summary.checks[summary.checks.length - 1]));
      if (world !== null) tellLog(world, summary, say);
    }
  } finally {
    clearTimeout(deadline);
    world?.close();
  }
}

async function startServers(world: World): Promise<void> {
  await Promise.all([startHttpServer(world.lab, world.server, 80), startHttpServer(world.lab, world.client, 80)]);
}

type View = readonly [what: string, title: string];

const VIEWS: readonly View[] = [
  ['conntrack', 'Connections, as the conntrack tool prints them'],
  ['nat', 'Translation rules'],
  ['route', 'Routes'],
  ['neigh', 'Neighbours'],
  ['link', 'Links'],
  ['offload', 'The offload engine'],
  ['drops', 'Why packets were dropped'],
  ['stages', 'Counters'],
];

const GATEWAY_VIEWS: readonly View[] = [
  ['gateway', 'How far the gateway is'],
  ['leases', 'Leases of the hosts'],
  ['ra', 'Router advertisements, sent and heard'],
  ['dhcp6', 'DHCPv6'],
  ['dns', 'The DNS forwarder'],
];

/** Lines of a view that the terminal gets; --json has all of it. */
const LINES = 24;

/** What the connection table has shown already, and routes that go without saying, are left out. */
function short(what: string, lines: string[]): string[] {
  if (what === 'nat') return lines.slice(0, lines.includes('') ? lines.indexOf('') : lines.length);
  return what === 'route' ? lines.filter((line) => !line.includes(' table local ')) : lines;
}

async function showAll(views: readonly View[], show: World['show'], summary: Summary, say: Say): Promise<void> {
  summary.show = {};
  for (const [what, title] of views) {
    const answer = await show(what);
    summary.show[what] = answer.json;
    const lines = short(what, answer.text.split('\n'));
    say(`\n${title} (sluice show ${what}):`);
    for (const line of lines.slice(0, LINES)) say(`  ${line}`.trimEnd());
    if (lines.length > LINES) say(`  ... and ${lines.length - LINES} lines more`);
  }
  say('');
}

function tellLog(world: World, summary: Summary, say: Say): void {
  summary.router_log = world.process.stderr();
  say('\nWhat the router said:');
  for (const line of summary.router_log.trim().split('\n').slice(-40)) say(`  ${line}`);
}

// --- the gateway -----------------------------------------------------------------------------------------------------

async function demoGateway(summary: Summary, say: Say): Promise<void> {
  summary.mode = 'gateway';
  summary.reasons.push(...gatewayObstacles().filter((reason) => !summary.reasons.includes(reason)));
  if (summary.reasons.length > 0) {
    say('The home behind a provider cannot be built on this machine:');
    for (const reason of summary.reasons) say(`  - ${reason}`);
    return;
  }
  const deadline = setTimeout(() => {
    ended.reason = `no end after ${GATEWAY_DEADLINE_MS / 1000} s`;
  }, GATEWAY_DEADLINE_MS);
  try {
    await withGateway(
      say,
      async (world) => {
        await runAll(GATEWAY_CHECKS, world, summary, say);
        if (ended.reason === '') await showAll(GATEWAY_VIEWS, (what) => askShow(world.socket, what), summary, say);
      },
      () => ended.reason !== '',
    );
    summary.passed = ended.reason === '';
  } catch (error) {
    if (ended.reason !== '') return;
    const result = { name: 'the lab', passed: false, seconds: 0, seen: (error as Error).message };
    summary.checks.push(result);
    say(formatResult(result));
  } finally {
    clearTimeout(deadline);
  }
}

// --- the replay ------------------------------------------------------------------------------------------------------

async function demoReplay(summary: Summary, say: Say): Promise<void> {
  summary.mode = 'replay';
  if (summary.reasons.length > 0) {
    const rule = '*'.repeat(78);
    say(rule);
    say('NO LAB ON THIS MACHINE: real programs cannot be routed here, because');
    for (const reason of summary.reasons) say(`  - ${reason}`);
    say(`Instead, a bundled capture (${CAPTURE}) is played through the same router.`);
    say('"sluice doctor" says what is missing and which command mends it.');
    say(rule);
  } else say(`A bundled capture (${CAPTURE}) is played through the router.`);
  say('');
  let played: Played | null = null;
  const replay: Check<null> = {
    name: 'replay',
    run: async () => {
      played = playCapture();
      return `${played.report.received} frames in ${(played.report.seconds * 1000).toFixed(0)} ms`;
    },
  };
  await runAll([replay], null, summary, say);
  if (played !== null) await runAll(REPLAY, played as Played, summary, say);
  summary.passed = ended.reason === '';
}
