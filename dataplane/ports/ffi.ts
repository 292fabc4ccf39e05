/**
 * FFI: the C library's calls that the live ports need, bound once per thread through koffi.
 *
 * Pointers are plain numbers (user addresses are below 2^53), so that the data path passes `base + offset` and nothing
 * is allocated per call. Long-lived C structures live in memory from `mapMemory`, which the garbage collector does not
 * know: an address inside it never goes stale. `errno()` is the thread's live errno, and any later fs call of Node
 * overwrites it: it is read directly after the call that failed.
 *
 * Linux only, 64-bit, little-endian (x86-64, arm64, riscv64). What it does not do: anything with varargs (`ioctl`
 * is bound twice instead, by pointer and by value; `fcntl` by value).
 */
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';

/** An error for people: where, what was expected, what came instead, what to do. */
export class IoError extends Error {
  /** Symbolic errno (`EPERM`) or '' when no system call failed. */
  readonly code: string;

  constructor(where: string, expected: string, got: string, advice: string, code = '') {
    super(`${where}: expected ${expected}, got ${got}${advice === '' ? '' : `; ${advice}`}`);
    this.name = 'IoError';
    this.code = code;
  }
}

if (process.platform !== 'linux')
  throw new IoError('live ports', 'Linux', process.platform, 'use memory or pcap ports on this system');

/** Null: the libraries that Node itself has loaded; so the same line serves glibc and musl. */
const libc = koffi.load(null);

export const open = libc.func('int open(const char *path, int flags, int mode)') as (
  path: string,
  flags: number,
  mode: number,
) => number;
export const close = libc.func('int close(int fd)') as (fd: number) => number;
/** Hot calls: `address` is a number. Each returns −1 on failure, with the reason in errno(). */
export const read = libc.func('int64_t read(int fd, uintptr_t address, size_t bytes)') as Call3;
export const write = libc.func('int64_t write(int fd, uintptr_t address, size_t bytes)') as Call3;
export const readv = libc.func('int64_t readv(int fd, uintptr_t vectors, int count)') as Call3;
export const writev = libc.func('int64_t writev(int fd, uintptr_t vectors, int count)') as Call3;
/** sched_yield(2): whoever waits for this processor runs first. */
export const sched_yield = libc.func('int sched_yield()') as () => number;

/** ppoll(2) with a null signal mask; `timeout` is the address of a struct timespec (16 bytes), 0 waits for ever. */
export const ppoll = libc.func(
  'int ppoll(uintptr_t fds, unsigned long count, uintptr_t timeout, uintptr_t mask)',
) as Call4;
export const ioctlPointer = libc.func('int ioctl(int fd, unsigned long request, void *argument)') as (
  fd: number,
  request: number,
  argument: Uint8Array | number,
) => number;
export const ioctlValue = libc.func('ioctl', 'int', ['int', 'unsigned long', 'unsigned long']) as Call3;
const dup3 = libc.func('int dup3(int from, int to, int flags)') as Call3;
export const eventfd = libc.func('int eventfd(unsigned int initial, int flags)') as (
  initial: number,
  flags: number,
) => number;
/** fcntl(2) with an integer argument. */
export const fcntl = libc.func('fcntl', 'int', ['int', 'int', 'unsigned long']) as Call3;
export const socket = libc.func('int socket(int domain, int type, int protocol)') as Call3;
export const bind = libc.func('int bind(int fd, const void *address, unsigned int bytes)') as (
  fd: number,
  address: Uint8Array,
  bytes: number,
) => number;
export const connect = libc.func('int connect(int fd, const void *address, unsigned int bytes)') as (
  fd: number,
  address: Uint8Array,
  bytes: number,
) => number;
export const setsockopt = libc.func(
  'int setsockopt(int fd, int level, int name, const void *value, unsigned int bytes)',
) as (fd: number, level: number, name: number, value: Uint8Array, bytes: number) => number;
export const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int name, _Inout_ uint8_t *value, _Inout_ uint8_t *bytes)',
) as (fd: number, level: number, name: number, value: Uint8Array, bytes: Uint8Array) => number;
export const getsockname = libc.func('int getsockname(int fd, _Inout_ uint8_t *address, _Inout_ uint8_t *bytes)') as (
  fd: number,
  address: Uint8Array,
  bytes: Uint8Array,
) => number;
export const sendmmsg = libc.func('int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)') as Call4;
export const send = libc.func('int64_t send(int fd, uintptr_t address, size_t bytes, int flags)') as Call4;
export const recv = libc.func('int64_t recv(int fd, uintptr_t address, size_t bytes, int flags)') as Call4;
/** For copies between two mapped memories of more than a few hundred bytes; below, a loop over words is cheaper. */
export const memcpy = libc.func('uintptr_t memcpy(uintptr_t to, uintptr_t from, size_t bytes)') as Call3;
export const setns = libc.func('int setns(int fd, int type)') as (fd: number, type: number) => number;
/** glibc's and musl's syscall(), with a fixed argument list: koffi's variadic calls cost a third more. */
export const syscall6 = libc.func(
  'int64_t syscall(int64_t number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, uintptr_t f)',
) as (number: number, a: number, b: number, c: number, d: number, e: number, f: number) => number;
const mmap = libc.func(
  'uintptr_t mmap(uintptr_t hint, size_t bytes, int protection, int flags, int fd, int64_t offset)',
) as (hint: number, bytes: number, protection: number, flags: number, fd: number, offset: number) => number | bigint;
const munmap = libc.func('int munmap(uintptr_t address, size_t bytes)') as (address: number, bytes: number) => number;
const madvise = libc.func('int madvise(uintptr_t address, size_t bytes, int advice)') as Call3;
const strerror = libc.func('const char *strerror(int number)') as (number: number) => string;

type Call3 = (a: number, b: number, c: number) => number;
type Call4 = (a: number, b: number, c: number, d: number) => number;

export const O_RDWR = 2;
export const O_NONBLOCK = 0x800;
export const O_CLOEXEC = 0x80000;
export const EPERM = 1;
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
export const EAGAIN = 11;
export const EFAULT = 14;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENOSPC = 28;
export const EPIPE = 32;
export const EBADFD = 77;
export const EOPNOTSUPP = 95;
export const ENOBUFS = 105;
export const ENETDOWN = 100;

/**
 * Has descriptor `fd` stand for what `next` stands for, and closes `next`: whoever knows the number `fd`, in whatever thread,
 * uses the new file from here on. What the old one is mapped or registered by keeps it. Errors: IoError of `where`.
 */
export function replaceDescriptor(fd: number, next: number, where: string): void {
  if (dup3(next, fd, O_CLOEXEC) < 0) throw systemError(where, 'a descriptor to be replaced', errno());
  close(next);
}

/** errno of the calling thread's last failed call. */
export function errno(): number {
  return koffi.errno();
}

/** `ENOENT (No such file or directory)` */
export function errnoText(number: number): string {
  return `${getSystemErrorName(-number)} (${strerror(number)})`;
}

/** Builds the error for a system call that failed with `number`. Pass errno() read directly after the call. */
export function systemError(where: string, expected: string, number: number, advice = ''): IoError {
  const hint =
    advice === '' && (number === EPERM || number === 13)
      ? 'run as root or grant CAP_NET_ADMIN and CAP_NET_RAW'
      : advice;
  return new IoError(where, expected, errnoText(number), hint, getSystemErrorName(-number));
}

/** A piece of memory that C and JavaScript share. */
export interface Memory {
  readonly buffer: ArrayBuffer;
  /** Address of the first byte. */
  readonly base: number;
}

const PROT_READ = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_SHARED_ANONYMOUS = 0x21;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const HUGE_PAGE = 2 * 1024 * 1024;
const MADV_HUGEPAGE = 14;

/**
 * Maps `bytes` bytes of zeroed, page-aligned memory. Physical pages appear when they are first touched. It is not
 * unmapped: a view that outlives its mapping ends the process with SIGSEGV. Other threads may see the same memory
 * with `viewMemory`, and Atomics (not Atomics.wait) work on it.
 */
export function mapMemory(bytes: number): Memory {
  return viewMemory(mapAt(-1, bytes, 0, MAP_SHARED_ANONYMOUS, 'memory'), bytes);
}

/**
 * The same for this process alone, on huge pages where the kernel gives them: begins on one. What a packet is copied
 * through should not cost a miss in the TLB for every frame.
 */
export function mapHuge(bytes: number): Memory {
  const whole = Math.ceil(bytes / HUGE_PAGE) * HUGE_PAGE;
  const at = mapAt(-1, whole + HUGE_PAGE, 0, MAP_PRIVATE_ANONYMOUS, 'memory');
  const base = Math.ceil(at / HUGE_PAGE) * HUGE_PAGE;
  madvise(base, whole, MADV_HUGEPAGE); // refused: ordinary pages do as well
  return viewMemory(base, bytes);
}

/** Maps `bytes` bytes of what `fd` offers (a packet ring, an io_uring) at `offset`; `populate` faults all pages in now. */
export function mapDescriptor(fd: number, bytes: number, offset: number, populate: boolean, where: string): Memory {
  return viewMemory(mapAt(fd, bytes, offset, MAP_SHARED | (populate ? 0x8000 : 0), where), bytes);
}

/** The same, only to be read: a store there ends the process. */
export function mapReadOnly(fd: number, bytes: number, offset: number, where: string): Memory {
  return viewMemory(mapAt(fd, bytes, offset, MAP_SHARED, where, PROT_READ), bytes);
}

function mapAt(
  fd: number,
  bytes: number,
  offset: number,
  flags: number,
  where: string,
  rights = PROT_READ_WRITE,
): number {
  const base = mmap(0, bytes, rights, flags, fd, offset);
  // MAP_FAILED is 2^64 − 1, which arrives as a BigInt; addresses are numbers.
  if (typeof base === 'bigint')
    throw systemError(`${where} (mmap)`, `${bytes} bytes to be mapped`, errno(), 'lower the number of frame slots');
  return base;
}

/** Gives a mapping back, of which the caller has the only view: one that is used afterwards ends the process. */
export function unmap(memory: Memory): void {
  munmap(memory.base, memory.buffer.byteLength);
}

/** The memory at `base`, mapped before by any thread of this process. */
export function viewMemory(base: number, bytes: number): Memory {
  return { buffer: koffi.view(base, bytes), base };
}

/** Address of a typed array's buffer. The caller keeps the buffer alive for as long as the address is used. */
export function addressOf(buffer: ArrayBuffer): number {
  return Number(koffi.address(new Uint8Array(buffer)));
}

/** Stores a 64-bit address as two little-endian words at int32 index `at`. */
export function storeAddress(words: Int32Array, at: number, address: number): void {
  words[at] = address | 0; // ToInt32 is modulo 2^32, exact for integers below 2^53
  words[at + 1] = (address / 4294967296) | 0;
}
