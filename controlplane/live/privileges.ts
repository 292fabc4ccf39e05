/**
 * Privileges: a live router keeps CAP_NET_ADMIN and CAP_NET_RAW (and for the kernel engine CAP_BPF and CAP_PERFMON, for
 * receive rings CAP_BPF, for an API or SNMP port below 1024 CAP_NET_BIND_SERVICE), and nothing else that root may do.
 *
 * Linux keeps capabilities by thread, and of Node's threads JavaScript reaches only some: those of V8 and of libuv would
 * keep what they had. So the process gives up what it does not need and executes itself once more, which ends all
 * other threads: every thread of the router is born without. The process stays the same (its number, its terminal, its
 * place in a cgroup). `no_new_privs` and an empty bounding set hold for the programs that it runs (`ip`) as well: the
 * user is still root, but neither it nor what it executes can get a capability back.
 *
 * What remains of being root: it owns root's files. What goes with CAP_DAC_OVERRIDE: a configuration, a mirror file or a
 * control socket among the files of another user.
 */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { errno, fcntl, IoError, systemError } from '../../dataplane/ports/ffi.ts';

/** linux/capability.h. */
export const CAP_NET_BIND_SERVICE = 10;
export const CAP_NET_ADMIN = 12;
export const CAP_NET_RAW = 13;
export const CAP_PERFMON = 38;
export const CAP_BPF = 39;

const CAPABILITY_VERSION_3 = 0x20080522;
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;
const F_SETFD = 2;
/** In the environment of the process that has been executed once more. */
const MARK = 'SLUICE_PRIVILEGES';

/** What a thread may do: bits by number of the capability. */
export interface Privileges {
  permitted: bigint;
  effective: bigint;
  bounding: bigint;
  noNewPrivileges: boolean;
}

/** Of the text of /proc/PID/task/TID/status. */
export function parsePrivileges(status: string): Privileges {
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? '0';
  return {
    permitted: BigInt(`0x${field('CapPrm')}`),
    effective: BigInt(`0x${field('CapEff')}`),
    bounding: BigInt(`0x${field('CapBnd')}`),
    noNewPrivileges: field('NoNewPrivs') === '1',
  };
}

export const bits = (capabilities: readonly number[]): bigint =>
  capabilities.reduce((sum, number) => sum | (1n << BigInt(number)), 0n);

/**
 * Gives up every capability but `keep`: returns when there is nothing (more) to give up; else the process begins anew and
 * this does not return. `SLUICE_PRIVILEGES=keep` in the environment leaves everything as it is. Errors: IoError.
 */
export function dropPrivileges(keep: readonly number[]): void {
  const wanted = bits(keep);
  const have = parsePrivileges(readFileSync('/proc/thread-self/status', 'latin1'));
  const mark = process.env[MARK];
  if (mark === 'keep') return;
  if ((have.permitted & ~wanted) === 0n) return;
  if (mark === 'dropped')
    throw new IoError(
      'privileges',
      'to be without what was given up',
      `capabilities ${have.permitted.toString(16)}`,
      'SLUICE_PRIVILEGES=keep runs with all of them',
    );
  const libc = koffi.load(null);
  const prctl = libc.func(
    'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
  ) as (option: number, a: number, b: number, c: number, d: number) => number;
  const capset = libc.func('int capset(const void *header, const void *data)') as (
    header: Uint8Array,
    data: Uint8Array,
  ) => number;
  const execve = libc.func('int execve(const char *path, const char **argv, const char **envp)') as (
    path: string,
    argv: (string | null)[],
    envp: (string | null)[],
  ) => number;
  const must = (result: number, what: string): void => {
    if (result < 0) throw systemError('privileges', what, errno(), 'SLUICE_PRIVILEGES=keep runs with all of them');
  };
  // While CAP_SETPCAP is still there: nothing that is executed can get more than `keep`.
  for (let capability = 0; capability < 64; capability++)
    if ((have.bounding & ~wanted & (1n << BigInt(capability))) !== 0n)
      must(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), 'PR_CAPBSET_DROP to work');
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 'PR_SET_NO_NEW_PRIVS to work');
  const header = new Uint8Array(new Uint32Array([CAPABILITY_VERSION_3, 0]).buffer);
  const left = have.permitted & wanted;
  const [low, high] = [Number(left & 0xffffffffn), Number(left >> 32n)];
  // effective, permitted, inheritable of the lower 32, then of the upper ones.
  const data = new Uint8Array(new Uint32Array([low, low, low, high, high, high]).buffer);
  must(capset(header, data), 'capset to work');
  // Node has marked its standard streams to be closed by an exec.
  for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0);
  const argv = [process.execPath, ...process.execArgv, ...process.argv.slice(1), null];
  const environment = Object.entries({ ...process.env, [MARK]: 'dropped' }).map(([name, value]) => `${name}=${value}`);
  must(execve(process.execPath, argv, [...environment, null]), `to execute ${process.execPath}`);
}
