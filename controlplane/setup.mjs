/**
 * Set-up: brings a fresh machine to where the router runs, and does nothing (in well under 0.3 s) where it already does.
 *
 * Plain JavaScript with only `node:` imports, because it runs before anything is installed: Debian packages (as root;
 * anybody else is shown the command), `npm ci` when node_modules is not what package-lock.json says, and tsc when a
 * source changed. What apt cannot give is named together with what it disables, and the rest goes on: only missing
 * npm packages and a build that fails are errors.
 *
 *   node controlplane/setup.mjs [run] [native] [test]
 *
 * The words are groups of controlplane/tools.json (default: run). `native` also builds the optional addons cap and
 * raw-socket. SLUICE_APT=off leaves the system's packages alone. It does not configure the machine: no sysctl, no
 * module, no device.
 */
import { spawnSync } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const groups = process.argv.length > 2 ? process.argv.slice(2) : ['run'];
const sources = ['dataplane', 'conntrack', 'offload', 'controlplane', 'bench', 'test'];
const addons = ['cap', 'raw-socket'];

const say = (text) => process.stderr.write(`setup: ${text}\n`);
const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));

/** Runs a command with its output on our standard error, and no input; true when it succeeded. */
function run(command, args, env = {}) {
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 2, 2],
    env: { ...process.env, ...env },
  });
  return status === 0;
}

/** Is there an executable of that name? The system's administration folders count even when PATH leaves them out. */
function hasCommand(name) {
  const folders = (process.env.PATH ?? '').split(delimiter).concat('/usr/local/sbin', '/usr/sbin', '/sbin');
  return folders.some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const isThere = (tool) => (tool.command ? hasCommand(tool.command) : existsSync(tool.file));

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return true;
  say(`Node.js: expected 20.19 or newer, got ${process.versions.node}: install a newer one from nodejs.org`);
  return false;
}

/**
 * Installs while Debian's policy-rc.d forbids the start of services: the tests want the programs of vsftpd and tftpd-hpa, not
 * daemons of this machine. A policy that is there already stays in force.
 */
function withoutServices(install) {
  const policy = '/usr/sbin/policy-rc.d';
  let ours = false;
  try {
    writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755, flag: 'wx' });
    ours = true;
  } catch {
    // there is one, or none can be made: then the machine's own rules go
  }
  try {
    install();
  } finally {
    if (ours) rmSync(policy, { force: true });
  }
}

/** Installs the missing Debian packages of our groups; says what stays missing and what that disables. */
function installTools() {
  const wanted = readJson(join(root, 'controlplane', 'tools.json')).filter((tool) => groups.includes(tool.group));
  let missing = wanted.filter((tool) => !isThere(tool));
  if (missing.length === 0) return;

  const options = ['-y', '--no-install-recommends'];
  const names = () => missing.map((tool) => tool.package);
  const byHand = () => `apt-get update && apt-get install ${options.join(' ')} ${names().join(' ')}`;

  if (process.env.SLUICE_APT !== 'off' && process.getuid?.() === 0 && hasCommand('apt-get')) {
    say(`installing ${names().join(', ')}`);
    // noninteractive: tshark and iperf3 would ask a question; their default answers are the ones wanted here.
    const quiet = { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'a' };
    const apt = [
      '-qq',
      '-o',
      'Dpkg::Use-Pty=0',
      '-o',
      'DPkg::Lock::Timeout=120',
      '-o',
      'Acquire::Retries=2',
      '-o',
      'Acquire::http::Timeout=30',
    ];
    run('apt-get', [...apt, 'update'], quiet); // old lists may still do, so its failure decides nothing
    withoutServices(() => {
      if (run('apt-get', [...apt, 'install', ...options, ...names()], quiet)) return;
      // One package that cannot be had must not keep the others away.
      for (const name of names()) run('apt-get', [...apt, 'install', ...options, name], quiet);
    });
    missing = missing.filter((tool) => !isThere(tool));
    if (missing.length === 0) return;
  }

  say('missing on this machine; everything else goes on:');
  for (const tool of missing) say(`  ${tool.package.padEnd(14)} ${tool.for}`);
  say(`to install: ${process.getuid?.() === 0 ? byHand() : `sudo sh -c '${byHand()}'`}`);
}

/**
 * Does node_modules hold what package-lock.json says? Compares npm's own record of what it laid down, version by
 * version (times would be wrong after every git checkout). Optional packages (other platforms', the addons) may be
 * absent, but not old.
 */
function modulesFresh() {
  const record = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(record)) return false;
  const have = readJson(record).packages;
  for (const [path, entry] of Object.entries(readJson(join(root, 'package-lock.json')).packages)) {
    if (path === '') continue;
    const found = have[path];
    if (found ? found.version !== entry.version : !entry.optional && !entry.devOptional) return false;
    // npm's record outlives a folder that somebody removed by hand.
    if (found && !existsSync(join(root, path))) return false;
  }
  return true;
}

const addonStamp = join(root, 'node_modules', '.sluice-addons');

/** The addons are wanted, absent, buildable, and have not failed to build with this Node.js before. */
function addonsDue() {
  if (!groups.includes('native')) return false;
  if (addons.every((name) => existsSync(join(root, 'node_modules', name, 'package.json')))) return false;
  if (!['python3', 'make', 'g++'].every(hasCommand)) return false;
  return !existsSync(addonStamp) || readFileSync(addonStamp, 'utf8') !== process.versions.modules;
}

/** Lays down node_modules with npm ci; false when the required packages could not be had. */
function installModules() {
  const due = addonsDue();
  if (modulesFresh() && !due) return true;
  say('npm ci');
  // Under `npm test` the npm that called us is the one to use; from a bare shell, the one on PATH.
  const own = process.env.npm_execpath;
  const [command, args] = own && basename(own) === 'npm-cli.js' ? [process.execPath, [own]] : ['npm', []];
  const flags = ['ci', '--include=dev', '--include=optional', '--no-audit', '--no-fund'];
  if (!run(command, [...args, ...flags], { NODE_ENV: '' })) {
    say(`npm ci failed: see its message above, then run it by hand in ${root}`);
    return false;
  }
  if (groups.includes('native')) {
    writeFileSync(addonStamp, process.versions.modules);
    const absent = addons.filter((name) => !existsSync(join(root, 'node_modules', name, 'package.json')));
    if (absent.length > 0) say(`not built: ${absent.join(', ')} (optional: ports of kind host need them)`);
  }
  return true;
}

/** One line for each file that the build depends on: path, size, time. Equal text means that dist is up to date. */
function sourceState() {
  const lines = [];
  const add = (path) => {
    const { size, mtimeMs } = statSync(join(root, path));
    lines.push(`${path} ${size} ${mtimeMs}`);
  };
  const walk = (folder) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) walk(path);
      else if (path.endsWith('.ts')) add(path);
    }
  };
  for (const folder of sources) if (existsSync(join(root, folder))) walk(folder);
  for (const file of ['package-lock.json', 'tsconfig.json', 'controlplane/fold.mjs', 'controlplane/compile.mjs'])
    if (existsSync(join(root, file))) add(file);
  return lines.sort().join('\n');
}

/** Compiles to dist/ when a source was added, changed or removed since the last build that succeeded. */
function build() {
  const stamp = join(root, 'dist', '.sources');
  const state = sourceState();
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === state) return true;
  say('building');
  mkdirSync(dirname(stamp), { recursive: true });
  if (!run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json'])) {
    say('the build failed: see the messages above');
    return false;
  }
  for (const step of ['fold.mjs', 'compile.mjs']) {
    const file = join(root, 'controlplane', step);
    if (existsSync(file) && !run(process.execPath, [file])) return false;
  }
  writeFileSync(stamp, state); // the state from before: a file saved during the build is built again
  return true;
}

function main() {
  const unknown = groups.filter((name) => !['run', 'native', 'test'].includes(name));
  if (unknown.length > 0) {
    say(`expected groups out of run, native, test, got "${unknown.join(' ')}"`);
    return 2;
  }
  if (!checkNode()) return 1;
  installTools();
  return installModules() && build() ? 0 : 1;
}

process.exitCode = main();
