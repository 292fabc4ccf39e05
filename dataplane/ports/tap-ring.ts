/**
 * Receive rings of a TAP device (`--io bpf`): small frames come by memory that an eBPF program of the device writes.
 *
 * A frame that a device queues costs its reader a system call or an io_uring request, and the release of a buffer that
 * another processor has made. Here the device's own filter (TUNSETFILTEREBPF), which runs where the frame is sent, copies
 * it to a ring that the worker reads without a system call (BpfRing), and tells the device to drop it. Only UDP goes that
 * way: one datagram a frame, without IP options, extension headers, fragments or a tag apart. All the rest comes by the
 * queue as ever, above all TCP, so that super-frames and the acknowledgements between them stay in order.
 *
 *   sender → device ┬ UDP: filter → ring of the queue → worker
 *                   └ else: queue → io_uring → worker          (worker → device: as ever)
 *
 * What it costs: the device counts each such frame as dropped (`ip -s link`, TX), and who sends past the queueing
 * discipline (PACKET_QDISC_BYPASS) is told ENOBUFS. A full ring drops, as a full queue does; that is counted in rxErrors.
 *
 * Wake-ups: a worker that will sleep says so in a word of shared memory, which the program exchanges for 0 behind every
 * reservation; only who finds it set wakes. Either it sees the word, or the worker's ppoll of the ring sees the record.
 *
 * The ring does not tell whether a checksum is partial, as that of a datagram of the kernel's own is: one that equals the
 * pseudo-header's sum and is not right as it stands is (a frame with a wrong checksum is mistaken for it once in 65,536). One
 * that lies deeper, in what a tunnel over UDP carries, would not be found: a device that has not said that it can finish those
 * (tun.c, hw_enc_features) is not given them.
 *
 * What it does not do: keep the order between datagrams that come by different ways, such as a super-frame and a short one
 * behind it. Source: linux/if_tun.h, linux/bpf.h; drivers/net/tun.c (run_ebpf_filter); RFC 768. Needs Linux 5.12 and CAP_BPF.
 */
import { Assembler } from '../../offload/kernel/assembler.ts';
import {
  IPV4,
  IPV6,
  L3,
  L4,
  LOAD_BYTES,
  RINGBUF_DISCARD,
  RINGBUF_RESERVE,
  RINGBUF_SUBMIT,
  SKB_GSO_SIZE,
  SKB_LEN,
  SKB_QUEUE,
  SKB_VLAN_PRESENT,
  UDP,
} from '../../offload/kernel/context.ts';
import {
  FRAME_NEEDS_CSUM,
  type Frames,
  META_CSUM,
  META_FLAGS,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
  SMALL_ROOM,
} from '../frames.ts';
import { fold, halves, sumRange } from '../wire/sum.ts';
import { type Asker, closeDescriptor, createMap, loadProgram } from './bpf.ts';
import { BpfRing, mapRing, type RingTask } from './bpf-ring.ts';
import { errno, ioctlPointer, mapDescriptor, systemError, viewMemory } from './ffi.ts';
import type { Port, PortCounters } from './port.ts';

const TUNSETFILTEREBPF = 0x800454e1;
/** Bytes of records of one ring: 8191 small frames, or 682 of 1500 bytes. */
export const RING_BYTES = 1 << 20;
/**
 * A record: the frame's length, 2 bytes of nothing, the frame (so it begins 2 bytes into a word, as in a slot). There are two
 * sizes, of whole cache lines with the ring's own header.
 */
const FRAME_AT = 6;
const RECORDS = [120, 1528];
/** Longest frame that comes by the ring. */
export const LONGEST = RECORDS[1] - FRAME_AT;
/** Shared words of a ring, a cache line each: does the worker sleep, and (64 bits) how many frames found no room. */
const STATE_BYTES = 64;
const ASLEEP = 0;
const LOST = 2;
/** On the program's stack: the frame's first bytes. */
const HEAD_AT = -40;
const HEAD_BYTES = L4;
const BPF_RB_NO_WAKEUP = 1;
const BPF_RB_FORCE_WAKEUP = 2;
/** What the filter returns: bytes of the frame that the device keeps. The longest, with a tag, has a few more than 2^16. */
const DROP = 0;
const KEEP = 1 << 20;

/** Most frames of a turn as long as the ring is emptied now and then, and of one when it is not; as for queues (uring.ts). */
const CALM = 12;
const DEPTH = 64;
const BUSY = 4;

/** What the worker of a queue needs. */
export interface TapRing extends RingTask {
  fd: number;
  /** Address of the ring's shared words. */
  state: number;
}

const asker = (name: string): Asker => ({
  where: `port ${name} (tap, --io bpf)`,
  advice: 'run as root (CAP_BPF) on Linux 5.12 or newer, or choose --io auto',
});

/** The device's filter: rings are maps `ring0` …, the shared words map `state`. */
export function receiveProgram(queues: number): Assembler {
  const a = new Assembler();
  const head = (byte: number): number => HEAD_AT + byte;
  a.mov('r6', 'r1');
  // Not a super-frame, no tag that lies apart, neither too short nor too long.
  a.load(4, 'r2', 'r6', SKB_GSO_SIZE).when('r2', '!=', 0, 'keep');
  a.load(4, 'r2', 'r6', SKB_VLAN_PRESENT).when('r2', '!=', 0, 'keep');
  a.load(4, 'r7', 'r6', SKB_LEN).when('r7', '<', HEAD_BYTES, 'keep').when('r7', '>', LONGEST, 'keep');
  a.mov('r1', 'r6').mov('r2', 0).mov('r3', 'r10').add('r3', HEAD_AT).mov('r4', HEAD_BYTES).call(LOAD_BYTES);
  a.when('r0', '!=', 0, 'keep');
  a.load(2, 'r2', 'r10', head(12)).when('r2', '==', IPV6, 'six').when('r2', '!=', IPV4, 'keep');
  a.load(1, 'r2', 'r10', head(L3)).when('r2', '!=', 0x45, 'keep');
  // Fragment offset and MF (RFC 791 §3.1), in network order.
  a.load(2, 'r2', 'r10', head(L3 + 6))
    .and('r2', 0xff3f)
    .when('r2', '!=', 0, 'keep');
  a.load(1, 'r2', 'r10', head(L3 + 9)).jump('protocol');
  a.label('six').load(1, 'r2', 'r10', head(L3 + 6));
  a.label('protocol').when('r2', '!=', UDP, 'keep');
  a.load(4, 'r2', 'r6', SKB_QUEUE);
  for (let queue = 0; queue < queues; queue++) a.when('r2', '==', queue, `queue${queue}`);
  a.jump('keep');
  for (let queue = 0; queue < queues; queue++) {
    a.label(`queue${queue}`).mapValue('r9', 'state', queue * STATE_BYTES);
    a.map('r1', `ring${queue}`).jump('reserve');
  }
  a.label('reserve').when('r7', '>', RECORDS[0] - FRAME_AT, 'long');
  for (const bytes of RECORDS) {
    if (bytes === RECORDS[1]) a.label('long');
    a.mov('r2', bytes).mov('r3', 0).call(RINGBUF_RESERVE).mov('r8', 'r0').when('r8', '==', 0, 'full');
    a.store(4, 'r8', 0, 'r7');
    a.mov('r1', 'r6').mov('r2', 0).mov('r3', 'r8').add('r3', FRAME_AT).mov('r4', 'r7').call(LOAD_BYTES);
    if (bytes !== RECORDS[1]) a.jump('copied');
  }
  a.label('copied').when('r0', '!=', 0, 'spoiled');
  a.mov('r2', BPF_RB_NO_WAKEUP)
    .mov('r3', 0)
    .exchange('r9', ASLEEP * 4, 'r3')
    .when('r3', '==', 0, 'submit');
  a.mov('r2', BPF_RB_FORCE_WAKEUP);
  a.label('submit').mov('r1', 'r8').call(RINGBUF_SUBMIT);
  a.label('drop').mov('r0', DROP).exit();
  a.label('full')
    .mov('r2', 1)
    .atomicAdd('r9', LOST * 4, 'r2')
    .jump('drop');
  a.label('spoiled').mov('r1', 'r8').mov('r2', BPF_RB_NO_WAKEUP).call(RINGBUF_DISCARD);
  return a.label('keep').mov('r0', KEEP).exit();
}

/** Maps and program for so many queues; each descriptor is put into `fds` as it is made. Errors: IoError. */
function makeRings(who: Asker, queues: number, fds: number[]): { maps: number[]; state: number; program: number } {
  const keep = (fd: number): number => {
    fds.push(fd);
    return fd;
  };
  const size = { keyBytes: 0, valueBytes: 0, entries: RING_BYTES };
  const maps: number[] = [];
  for (let n = 0; n < queues; n++) maps.push(keep(createMap({ kind: 'ring', name: `sluice_ring${n}`, ...size }, who)));
  const words = { kind: 'array', keyBytes: 4, valueBytes: queues * STATE_BYTES, entries: 1, mapped: true } as const;
  const state = keep(createMap({ name: 'sluice_ring', ...words }, who));
  const named = Object.fromEntries(maps.map((fd, n) => [`ring${n}`, fd]));
  const code = receiveProgram(queues).assemble({ ...named, state });
  return { maps, state, program: keep(loadProgram('sluice_receive', code, 'filter', who)) };
}

/**
 * Gives a TAP device (all its queues, by their descriptors in order) receive rings. Main thread. Returns what each queue's
 * worker needs, the descriptors that keep it alive (the device has the program as long as it stands), and among these the
 * program. Errors: IoError.
 */
export function openTapRings(
  name: string,
  queues: readonly number[],
): { rings: TapRing[]; fds: number[]; program: number } {
  const who = asker(name);
  const fds: number[] = [];
  try {
    const { maps, state, program } = makeRings(who, queues.length, fds);
    setTapFilter(name, queues[0], program);
    const { base } = mapDescriptor(state, queues.length * STATE_BYTES, 0, false, who.where);
    const rings = maps.map((fd, n) => ({
      fd,
      state: base + n * STATE_BYTES,
      ...mapRing(fd, RING_BYTES, who.where),
    }));
    return { rings, fds, program };
  } catch (error) {
    for (const fd of fds) closeDescriptor(fd);
    throw error;
  }
}

/** Gives the device of a queue the program of `openTapRings`: its frames come by the rings from here on. Errors: IoError. */
export function setTapFilter(name: string, queue: number, program: number): void {
  const { where, advice } = asker(name);
  if (ioctlPointer(queue, TUNSETFILTEREBPF, new Uint8Array(new Int32Array([program]).buffer)) < 0)
    throw systemError(where, 'the device to take a filter', errno(), advice);
}

/** Empty when this process may have receive rings, else why not. Nothing is attached. */
export function receiveRingRefusal(): string {
  const fds: number[] = [];
  try {
    makeRings(asker('none'), 1, fds);
    return '';
  } catch (error) {
    return (error as Error).message;
  } finally {
    for (const fd of fds) closeDescriptor(fd);
  }
}

/** One queue of a TAP device with its ring. */
export class RingTapPort implements Port {
  readonly name: string;
  readonly number: number;
  readonly counters: PortCounters;
  readonly pollFd: number;
  /** Becomes readable when the ring has something. */
  readonly ringFd: number;
  private readonly tap: Port;
  private readonly ring: BpfRing;
  private readonly state: Int32Array;
  /** Bursts in a row that left something in the ring. */
  private full = 0;
  /** Lost frames that were counted: a successor's counters begin anew, with all that the ring has lost. */
  private lost = 0;

  /** @param tap the queue, which also sends   @param task the queue's ring, of which this is the only reader */
  constructor(tap: Port, task: TapRing) {
    this.name = tap.name;
    this.number = tap.number;
    this.counters = tap.counters;
    this.tap = tap;
    this.ring = new BpfRing(task);
    this.state = new Int32Array(viewMemory(task.state, STATE_BYTES).buffer);
    this.pollFd = tap.pollFd;
    this.ringFd = task.fd;
  }

  get linkUp(): boolean {
    return this.tap.linkUp;
  }
  set linkUp(up: boolean) {
    this.tap.linkUp = up;
  }

  beforeSleep(): void {
    // Sequentially consistent: the poll that follows comes behind it.
    Atomics.store(this.state, ASLEEP, 1);
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    // Neither shall keep the other from its turn.
    const first = this.tap.rxBurst(frames, slots, max - (max >> 2));
    const room = max - first;
    const most = this.full > BUSY ? DEPTH : CALM;
    const limit = room < most ? room : most;
    const { ring, number, counters } = this;
    const { meta, i32 } = frames;
    const { words } = ring;
    let count = 0;
    let bytes = 0;
    for (let at = 0; count < limit && (at = ring.peek()) >= 0; count++) {
      const slot = frames.alloc(SMALL_ROOM);
      if (slot < 0) break;
      const m = slot * META_WORDS;
      const off = meta[m + META_OFF];
      let source = at >> 2;
      const length = words[source];
      // From the word in which the frame begins: 2 bytes before it are copied along.
      for (let n = (length + 5) >> 2, target = (off - 2) >> 2; n > 0; n--) i32[target++] = words[++source];
      meta[m + META_LEN] = length;
      meta[m + META_PORT] = number;
      findPartial(frames, m, off, length);
      slots[first + count] = slot;
      bytes += length;
      ring.skip();
    }
    ring.release();
    this.full = count === limit ? this.full + 1 : 0;
    counters.rxPackets += count;
    counters.rxBytes += bytes;
    const lost = this.state[LOST];
    if (lost !== this.lost) {
      counters.rxErrors += (lost - this.lost) >>> 0;
      this.lost = lost;
    }
    return first + count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    this.tap.txBurst(frames, slots, n);
  }

  renew(): void {
    this.tap.renew?.();
  }

  /** Closes the queue; the ring's descriptors are closed by whoever opened them. */
  close(): void {
    this.tap.close();
  }
}

/** Marks a datagram whose checksum is only its pseudo-header's sum. `off`: of the frame, as for META_OFF. */
function findPartial(frames: Frames, m: number, off: number, length: number): void {
  const { u8, u16, i32, meta } = frames;
  const four = u16[(off + 12) >> 1] === IPV4;
  const l4 = off + (four ? L4 : L4 + 20);
  const size = four ? ((u8[off + 16] << 8) | u8[off + 17]) - 20 : (u8[off + 18] << 8) | u8[off + 19];
  if (size < 8 || l4 - off + size > length) return;
  const w = (off + L3) >> 2;
  let pseudo = ((size & 0xff) << 8) + (size >> 8) + (UDP << 8);
  for (let n = four ? 3 : 2, end = four ? 5 : 10; n < end; n++) pseudo += halves(i32[w + n]);
  if (u16[(l4 + 6) >> 1] !== fold(pseudo)) return;
  // What the kernel makes fills its packet; what has something behind it (RFC 9868) has another sum.
  if (((u8[l4 + 4] << 8) | u8[l4 + 5]) !== size) return;
  if (fold(sumRange(u16, i32, u8, l4, l4 + size, pseudo)) === 0xffff) return;
  meta[m + META_FLAGS] = FRAME_NEEDS_CSUM;
  meta[m + META_CSUM] = (l4 - off) | (6 << 16);
}
