/**
 * Doctor: what this machine has, what each missing thing disables, and the command that mends it (`sluice doctor`).
 *
 * It looks and tries, it changes nothing: the TUN device is opened without making an interface, an io_uring is set up
 * and closed at once, and the native addons are loaded in a child process, so that one that crashes only tells us so.
 * The verdict (exit code 0) is about the basics: that the router runs inline and replays captures. Live ports, the
 * host kind, the demo and the test suites need more, and each line says which. System tools come from tools.json, the
 * list that controlplane/setup.mjs installs from.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import { delimiter, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageRoot } from './package-root.ts';

export interface Check {
  /** What was looked at, as a person would call it. */
  name: string;
  state: 'ok' | 'missing';
  /** What was found: a version, a number, or why it does not work. */
  found: string;
  neededFor: string;
  /** The command (or advice) that mends it; empty when the check is ok. */
  mend: string;
  /** Without it the router does not even run inline. */
  basic: boolean;
}

export interface DoctorReport {
  checks: Check[];
  /** Every basic check is ok: the router runs inline and replays captures. */
  ok: boolean;
}

/** The machine as the doctor sees it. Tests hand in another one; every function answers and none throws. */
export interface Machine {
  nodeVersion: string;
  kernelRelease: string;
  littleEndian: boolean;
  /** Bytes that this process may use. */
  memory: number;
  isRoot: boolean;
  /** Effective capabilities as a bit mask, from /proc/self/status. */
  capabilities: bigint;
  /** Is there an executable of this name? */
  hasCommand(name: string): boolean;
  hasFile(path: string): boolean;
  /** Opens the file for reading and writing and closes it again: '' or the error's code. */
  openError(path: string): string;
  /** Loads the package, in a child process when it is native and might crash: '' or why not. */
  loadError(name: string, inChild: boolean): string;
  /** Sets up an io_uring and closes it: 0, or the errno; -1 when there is no koffi to call it with. */
  uringErrno(): number;
  /** Loads the kernel engine's program, in a child process, and lets it go: '' or why the kernel refuses. */
  kernelEngineError(): string;
  /** The same for the filter of receive rings. */
  receiveRingError(): string;
}

interface Tool {
  package: string;
  command?: string;
  file?: string;
  group: 'run' | 'native' | 'test';
  for: string;
}

const CAP_NET_ADMIN = 12n;
const CAP_NET_RAW = 13n;
const CAP_SYS_ADMIN = 21n;
const MEBIBYTE = 1024 * 1024;
/** Tables of the default sizes, a worker's frames and Node.js itself. */
const MEMORY_NEEDED = 512 * MEBIBYTE;

/**
 * Examines the machine.
 *
 * @param machine what to examine; default: the one we run on
 * @returns the checks in the order to print them, and whether the basics work. Never throws.
 */
export function doctor(machine: Machine = thisMachine()): DoctorReport {
  const checks: Check[] = [];
  const add = (name: string, ok: boolean, found: string, neededFor: string, mend: string, basic = false) => {
    checks.push({ name, state: ok ? 'ok' : 'missing', found, neededFor, mend: ok ? '' : mend, basic });
  };
  const may = (capability: bigint) => ((machine.capabilities >> capability) & 1n) === 1n;

  add(
    'Node.js 20.19',
    atLeast(machine.nodeVersion, 20, 19),
    machine.nodeVersion,
    'everything',
    'install Node.js 20.19 or newer from nodejs.org',
    true,
  );
  add(
    'little-endian CPU',
    machine.littleEndian,
    machine.littleEndian ? 'yes' : 'big-endian',
    'everything: tables hold addresses as little-endian loads',
    'run it on x86-64, arm64 or riscv64',
    true,
  );
  add(
    'memory',
    machine.memory >= MEMORY_NEEDED,
    `${Math.floor(machine.memory / MEBIBYTE)} MiB available`,
    `everything: ${MEMORY_NEEDED / MEBIBYTE} MiB for tables of the default sizes`,
    'free memory, or lower conntrack.max and offload.entries',
    true,
  );
  for (const name of ['yaml', 'zod', 'bn.js']) {
    const error = machine.loadError(name, false);
    add(`package ${name}`, error === '', error || 'loads', 'everything: configuration', 'npm ci', true);
  }

  const piscina = machine.loadError('piscina', false);
  add('package piscina', piscina === '', piscina || 'loads', 'live mode: packet workers', 'npm ci');
  const koffi = machine.loadError('koffi', true);
  add('package koffi', koffi === '', koffi || 'loads', 'live mode: ports of kind tap and packet', 'npm ci');
  add(
    'CAP_NET_ADMIN',
    may(CAP_NET_ADMIN),
    may(CAP_NET_ADMIN) ? 'yes' : 'no',
    'live mode: making TAP devices, addresses, links',
    'run it as root, or: sudo setcap cap_net_admin,cap_net_raw+ep "$(readlink -f "$(which node)")"',
  );
  add(
    'CAP_NET_RAW',
    may(CAP_NET_RAW),
    may(CAP_NET_RAW) ? 'yes' : 'no',
    'live mode: ports of kind packet and host',
    'run it as root, or: sudo setcap cap_net_admin,cap_net_raw+ep "$(readlink -f "$(which node)")"',
  );
  add(
    'CAP_SYS_ADMIN',
    may(CAP_SYS_ADMIN),
    may(CAP_SYS_ADMIN) ? 'yes' : 'no',
    'the demo and the lab: network namespaces',
    'run it as root',
  );
  checkTun(machine, add);
  checkUring(machine, add);
  checkRings(machine, add);
  add(
    'kernel 6.6 (TCX)',
    atLeast(machine.kernelRelease, 6, 6),
    machine.kernelRelease,
    'offload.engine: kernel (eBPF programs on a link that go away with their process); without it the emulated engine is used',
    'boot a newer kernel (Debian 12: linux-image-amd64 from bookworm-backports)',
  );
  const refusal = machine.kernelEngineError();
  add(
    'kernel engine (eBPF)',
    refusal === '',
    refusal || 'its program is accepted',
    'offload.engine: kernel, on ports of kind packet and TAPs beside them; without it the emulated engine is used',
    'run it as root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN) on a kernel with CONFIG_BPF_SYSCALL; in a container: --privileged',
  );
  for (const [name, neededFor] of [
    ['cap', 'ports of kind host: receiving'],
    ['raw-socket', 'ports of kind host: sending'],
  ]) {
    const error = machine.loadError(name, true);
    add(
      `package ${name}`,
      error === '',
      error || 'loads',
      neededFor,
      'npm run setup (after a new Node.js: npm rebuild)',
    );
  }
  for (const tool of readTools()) {
    const there = tool.command ? machine.hasCommand(tool.command) : machine.hasFile(tool.file ?? '');
    const name = tool.command ?? tool.package;
    const sudo = machine.isRoot ? '' : 'sudo ';
    const mend = `${sudo}apt-get install -y --no-install-recommends ${tool.package}`;
    add(name, there, there ? 'yes' : 'no', tool.for, mend);
  }
  return { checks, ok: checks.every((check) => !check.basic || check.state === 'ok') };
}

type Add = (name: string, ok: boolean, found: string, neededFor: string, mend: string) => void;

function checkTun(machine: Machine, add: Add): void {
  const error = machine.openError('/dev/net/tun');
  const mend =
    error === 'EACCES' || error === 'EPERM'
      ? 'run it as root, or let this user read and write /dev/net/tun'
      : 'modprobe tun; mkdir -p /dev/net && mknod /dev/net/tun c 10 200 (in a container: --device /dev/net/tun)';
  add('/dev/net/tun', error === '', error || 'opens', 'live mode: ports of kind tap', mend);
}

function checkUring(machine: Machine, add: Add): void {
  const errno = machine.uringErrno();
  const found = errno === 0 ? 'works' : errno === -1 ? 'not tried: koffi does not load' : `errno ${errno}`;
  // EPERM is the switch (or a container's seccomp filter), ENOSYS a kernel built without it.
  const mend =
    errno === -1
      ? 'npm ci'
      : errno === os.constants.errno.EPERM
        ? 'sysctl -w kernel.io_uring_disabled=0 (in a container: a seccomp profile that allows it)'
        : 'boot a kernel with CONFIG_IO_URING (5.19 or newer)';
  add('io_uring', errno === 0, found, 'faster tap ports; without it they use read and write', mend);
}

/** Says nothing where there is no TAP that could have them. */
function checkRings(machine: Machine, add: Add): void {
  if (machine.openError('/dev/net/tun') !== '') return;
  const refusal = machine.receiveRingError();
  const neededFor = 'sluice run --io bpf: UDP of tap ports by shared memory; the other back ends do without it';
  const mend = 'run it as root (CAP_BPF) on Linux 5.12 or newer with CONFIG_BPF_SYSCALL; in a container: --cap-add BPF';
  add('receive rings (eBPF)', refusal === '', refusal || 'their filter is accepted', neededFor, mend);
}

/** "6.1.0-13-amd64" or "v20.20.2" against a major and minor number. */
function atLeast(version: string, major: number, minor: number): boolean {
  const match = /^v?(\d+)\.(\d+)/.exec(version);
  if (match === null) return false;
  const found = Number(match[1]);
  return found > major || (found === major && Number(match[2]) >= minor);
}

function readTools(): Tool[] {
  return JSON.parse(readFileSync(join(packageRoot(), 'controlplane', 'tools.json'), 'utf8')) as Tool[];
}

/**
 * The report as text: one line for each check, and beneath each missing one what it disables and what mends it.
 *
 * @returns lines, each ended by a newline
 */
export function formatDoctor(report: DoctorReport): string {
  const width = Math.max(...report.checks.map((check) => check.name.length));
  const lines: string[] = [];
  for (const check of report.checks) {
    lines.push(`${check.state.padEnd(7)}  ${check.name.padEnd(width)}  ${check.found}`);
    if (check.state === 'missing') {
      lines.push(`${' '.repeat(9)}needed for: ${check.neededFor}`, `${' '.repeat(9)}to mend it: ${check.mend}`);
    }
  }
  const missing = report.checks.filter((check) => check.state === 'missing').length;
  lines.push(
    '',
    report.ok
      ? `The router runs inline and replays captures; ${missing === 0 ? 'nothing is missing.' : `${missing} of ${report.checks.length} missing for the rest.`}`
      : 'The router does not run here: see the lines marked missing, from the top.',
  );
  return lines.join('\n') + '\n';
}

/** Exit code of `sluice doctor`: 0 when the basics (inline and replay) work, else 1. */
export function doctorExitCode(report: DoctorReport): number {
  return report.ok ? 0 : 1;
}

/** The machine that we run on. */
export function thisMachine(): Machine {
  const root = packageRoot();
  const require = createRequire(join(root, 'package.json'));
  return {
    nodeVersion: process.versions.node,
    kernelRelease: os.release(),
    littleEndian: os.endianness() === 'LE',
    memory: availableMemory(),
    isRoot: process.getuid?.() === 0,
    capabilities: effectiveCapabilities(),
    hasFile: existsSync,
    hasCommand(name) {
      // The administration folders are often not on a user's PATH.
      const folders = (process.env['PATH'] ?? '').split(delimiter).concat('/usr/local/sbin', '/usr/sbin', '/sbin');
      return folders.some((folder) => {
        try {
          accessSync(join(folder, name), constants.X_OK);
          return true;
        } catch {
          return false;
        }
      });
    },
    openError(path) {
      try {
        closeSync(openSync(path, 'r+'));
        return '';
      } catch (error) {
        return (error as NodeJS.ErrnoException).code ?? String(error);
      }
    },
    loadError(name, inChild) {
      if (inChild) return loadInChild(root, name);
      try {
        require(name);
        return '';
      } catch (error) {
        return firstLine(error);
      }
    },
    uringErrno() {
      if (loadInChild(root, 'koffi') !== '') return -1;
      return tryUring(require('koffi') as typeof import('koffi'));
    },
    kernelEngineError: () => askInChild(root, 'kernel-engine.js', 'kernelEngineRefusal'),
    receiveRingError: () => askInChild(root, 'tap-ring.js', 'receiveRingRefusal'),
  };
}

/** What a function of a compiled module of dataplane/ports says in a process of its own. */
function askInChild(root: string, module: string, name: string): string {
  const file = join(root, 'dist', 'dataplane', 'ports', module);
  if (!existsSync(file)) return 'not tried: the package is not built';
  const script = `import(${JSON.stringify(pathToFileURL(file).href)}).then((module) => console.log(module.${name}()), (error) => console.log(String(error.message).split('\\n')[0]))`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 10_000 });
  return child.signal === null ? child.stdout.trim() : `crashed (${child.signal})`;
}

/** Loads a package in a process of its own; '' or why it failed. */
export function loadInChild(root: string, name: string): string {
  const script = `try { require(${JSON.stringify(name)}) } catch (e) { console.log(String(e.message).split('\\n')[0]); process.exit(1) }`;
  const child = spawnSync(process.execPath, ['-e', script], {
    cwd: root,
    encoding: 'utf8',
    timeout: 10_000,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (child.status === 0) return '';
  if (child.signal !== null) return `crashed (${child.signal})`;
  return child.stdout.trim() || `failed (exit code ${child.status})`;
}

/** io_uring_setup(2) is system call 425 on every architecture that we know of; struct io_uring_params has 120 bytes. */
function tryUring(koffi: typeof import('koffi')): number {
  const libc = koffi.load(null);
  const setup = libc.func('int64_t syscall(int64_t, uint32_t, void*)');
  const fd = Number(setup(425, 1, new Uint8Array(120)));
  // errno is the thread's live one: read it before any other call.
  if (fd < 0) return koffi.errno();
  closeSync(fd);
  return 0;
}

/** Bytes this process may still use: MemAvailable, or less where a control group says so. */
function availableMemory(): number {
  let bytes = os.freemem();
  try {
    const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
    if (line !== null) bytes = Number(line[1]) * 1024;
  } catch {
    // not Linux: what the system calls free will do
  }
  const limit = process.constrainedMemory();
  return limit > 0 && limit < bytes ? limit : bytes;
}

function effectiveCapabilities(): bigint {
  try {
    const line = /^CapEff:\s+([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'));
    return line === null ? 0n : BigInt('0x' + line[1]);
  } catch {
    return 0n;
  }
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split('\n')[0];
}
