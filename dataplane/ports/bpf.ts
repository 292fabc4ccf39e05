/**
 * bpf(2): maps, programs and links, as far as the kernel engine and the receive rings of TAP devices need them.
 *
 * Nothing is pinned: a map, a program or a link lives as long as a descriptor of it, so all of it ends with the process,
 * however that ends. A link at the tc ingress hook (TCX) needs Linux 6.6; the capabilities are CAP_BPF, CAP_NET_ADMIN
 * and, for programs that read packets at will, CAP_PERFMON, or CAP_SYS_ADMIN for all of them.
 *
 * The attributes are one union of 128 bytes per call, whose unused bytes must be 0. Source: bpf(2), linux/bpf.h.
 */
import { addressOf, close, errno, errnoText, IoError, syscall6, systemError } from './ffi.ts';

/** Number of the system call; the generic table of arm64 and riscv64 has another than x86-64. */
const SYS_BPF = process.arch === 'x64' ? 321 : 280;
const BPF_MAP_CREATE = 0;
const BPF_MAP_UPDATE_ELEM = 2;
const BPF_MAP_DELETE_ELEM = 3;
const BPF_PROG_LOAD = 5;
const BPF_PROG_TEST_RUN = 10;
const BPF_PROG_QUERY = 16;
const BPF_LINK_CREATE = 28;

const BPF_MAP_TYPE_HASH = 1;
const BPF_MAP_TYPE_ARRAY = 2;
const BPF_MAP_TYPE_RINGBUF = 27;
const BPF_F_NO_PREALLOC = 1;
const BPF_F_MMAPABLE = 0x400;
const BPF_PROG_TYPE_SOCKET_FILTER = 1;
const BPF_PROG_TYPE_SCHED_CLS = 3;
const BPF_TCX_INGRESS = 46;
const BPF_TCX_EGRESS = 47;
const LOG_BYTES = 1 << 20;
/** The verifier's last lines say what it did not like. */
const LOG_LINES = 3;

const ATTRIBUTE_BYTES = 128;

/** Who asks, for errors: where, and what to do. */
export interface Asker {
  where: string;
  advice: string;
}

const ENGINE: Asker = {
  where: 'kernel engine',
  advice: 'run as root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN) on Linux 6.6 or newer, or set offload.engine: emulated',
};

/** Attributes of this thread's next call, never moved or collected: calls are made one at a time. */
const attribute = new DataView(new ArrayBuffer(ATTRIBUTE_BYTES));
const attributeAt = addressOf(attribute.buffer);

function clear(): void {
  for (let at = 0; at < ATTRIBUTE_BYTES; at += 4) attribute.setInt32(at, 0);
}

function setAddress(at: number, address: number): void {
  attribute.setUint32(at, address >>> 0, true);
  attribute.setUint32(at + 4, Math.floor(address / 0x100000000), true);
}

function setName(at: number, name: string): void {
  for (let n = 0; n < Math.min(name.length, 15); n++) attribute.setUint8(at + n, name.charCodeAt(n));
}

function bpf(command: number): number {
  return syscall6(SYS_BPF, command, attributeAt, ATTRIBUTE_BYTES, 0, 0, 0);
}

export interface MapOptions {
  name: string;
  /** `ring`: a ring of records, programs to process; no keys, no values, as many `entries` as bytes, a power of two. */
  kind: 'hash' | 'array' | 'ring';
  keyBytes: number;
  valueBytes: number;
  entries: number;
  /** Array: can be mapped. */
  mapped?: boolean;
  /** Hash: memory is taken when an entry is made, not all of it now. */
  lazy?: boolean;
}

const MAP_TYPES = { hash: BPF_MAP_TYPE_HASH, array: BPF_MAP_TYPE_ARRAY, ring: BPF_MAP_TYPE_RINGBUF } as const;

/** Makes a map; returns its descriptor. Errors: IoError. */
export function createMap(options: MapOptions, asker: Asker = ENGINE): number {
  clear();
  attribute.setUint32(0, MAP_TYPES[options.kind], true);
  attribute.setUint32(4, options.keyBytes, true);
  attribute.setUint32(8, options.valueBytes, true);
  attribute.setUint32(12, options.entries, true);
  attribute.setUint32(16, (options.mapped ? BPF_F_MMAPABLE : 0) | (options.lazy ? BPF_F_NO_PREALLOC : 0), true);
  setName(28, options.name);
  const fd = bpf(BPF_MAP_CREATE);
  if (fd < 0)
    throw systemError(asker.where, `a map of ${options.entries} entries (${options.name})`, errno(), asker.advice);
  return fd;
}

/** Sets or replaces the entry whose key is at an address. Returns false when the map is full or gone. */
export function updateMap(fd: number, key: number, value: number): boolean {
  clear();
  attribute.setUint32(0, fd, true);
  setAddress(8, key);
  setAddress(16, value);
  return bpf(BPF_MAP_UPDATE_ELEM) === 0;
}

/** Deletes the entry whose key is at an address. Returns false when there is none. */
export function deleteFromMap(fd: number, key: number): boolean {
  clear();
  attribute.setUint32(0, fd, true);
  setAddress(8, key);
  return bpf(BPF_MAP_DELETE_ELEM) === 0;
}

/**
 * Loads a program, for a tc hook (SCHED_CLS) or as a filter (SOCKET_FILTER); returns its descriptor.
 * Errors: IoError, with the verifier's last words when it has refused the program.
 */
export function loadProgram(
  name: string,
  instructions: Uint8Array,
  kind: 'tc' | 'filter' = 'tc',
  asker: Asker = ENGINE,
): number {
  const license = new TextEncoder().encode('MIT\0');
  const code = instructions.slice();
  const load = (log: Uint8Array | null): number => {
    clear();
    attribute.setUint32(0, kind === 'tc' ? BPF_PROG_TYPE_SCHED_CLS : BPF_PROG_TYPE_SOCKET_FILTER, true);
    attribute.setUint32(4, code.length / 8, true);
    setAddress(8, addressOf(code.buffer));
    setAddress(16, addressOf(license.buffer as ArrayBuffer));
    if (log !== null) {
      attribute.setUint32(24, 1, true);
      attribute.setUint32(28, log.length, true);
      setAddress(32, addressOf(log.buffer as ArrayBuffer));
    }
    setName(48, name);
    return bpf(BPF_PROG_LOAD);
  };
  const fd = load(null);
  if (fd >= 0) return fd;
  const reason = errno();
  const log = new Uint8Array(LOG_BYTES);
  // Once more, to hear why; should it be accepted now, so be it.
  const again = load(log);
  if (again >= 0) return again;
  const end = log.indexOf(0);
  const words = new TextDecoder()
    .decode(log.subarray(0, end < 0 ? log.length : end))
    .trim()
    .split('\n')
    .slice(-LOG_LINES)
    .join(' | ');
  const got = words === '' ? errnoText(reason) : `${errnoText(reason)}: ${words}`;
  throw new IoError(asker.where, `the kernel to accept program ${name}`, got, asker.advice);
}

/** How many programs there are at a device's tc ingress hook (TCX); 0 also where the kernel has no such hook. */
export function programsAt(ifindex: number): number {
  clear();
  attribute.setUint32(0, ifindex, true);
  attribute.setUint32(4, BPF_TCX_INGRESS, true);
  return bpf(BPF_PROG_QUERY) === 0 ? attribute.getUint32(24, true) : 0;
}

/**
 * Attaches a program to a device's tc ingress hook, behind those that are there already (and before filters of tc); returns
 * the link's descriptor, whose closing detaches. Errors: IoError.
 */
export function attachIngress(program: number, ifindex: number, device: string): number {
  return attach(program, ifindex, device, BPF_TCX_INGRESS);
}

/** The same at its tc egress hook. */
export function attachEgress(program: number, ifindex: number, device: string): number {
  return attach(program, ifindex, device, BPF_TCX_EGRESS);
}

function attach(program: number, ifindex: number, device: string, hook: number): number {
  clear();
  attribute.setUint32(0, program, true);
  attribute.setUint32(4, ifindex, true);
  attribute.setUint32(8, hook, true);
  const fd = bpf(BPF_LINK_CREATE);
  if (fd < 0) throw systemError('kernel engine', `to attach a program to ${device} (TCX)`, errno(), ENGINE.advice);
  return fd;
}

export interface TestRun {
  /** What the program returned: TC_ACT_*. */
  result: number;
  /** cb[0] of the context. */
  verdict: number;
  frame: Uint8Array;
}

/** Runs a program on a frame that no device has seen. `gsoSize` > 0: a super-frame. Errors: IoError. */
export function testProgram(program: number, frame: Uint8Array, gsoSize = 0): TestRun {
  const input = frame.slice();
  const output = new Uint8Array(frame.length + 256);
  const context = new DataView(new ArrayBuffer(192)); // struct __sk_buff
  context.setUint32(176, gsoSize, true);
  const after = new DataView(new ArrayBuffer(192));
  clear();
  attribute.setUint32(0, program, true);
  attribute.setUint32(8, input.length, true);
  attribute.setUint32(12, output.length, true);
  setAddress(16, addressOf(input.buffer as ArrayBuffer));
  setAddress(24, addressOf(output.buffer as ArrayBuffer));
  attribute.setUint32(32, 1, true); // repeat
  attribute.setUint32(40, context.byteLength, true);
  attribute.setUint32(44, after.byteLength, true);
  setAddress(48, addressOf(context.buffer as ArrayBuffer));
  setAddress(56, addressOf(after.buffer as ArrayBuffer));
  if (bpf(BPF_PROG_TEST_RUN) < 0) throw systemError('kernel engine', 'a test run', errno(), ENGINE.advice);
  return {
    result: attribute.getInt32(4, true),
    verdict: after.getUint32(48, true),
    frame: output.slice(0, attribute.getUint32(12, true)),
  };
}

export { close as closeDescriptor };
