/**
 * io_uring: TAP queues read and written in batches, one system call a turn for all ports of a worker.
 *
 * A `UringGroup` is one ring, opened in the worker that uses it. Its ports queue their transmissions as they come;
 * a *turn* adds reads for every port, enters the kernel once and hands the completions out. A turn happens when a port
 * is asked for frames and has already given out those of the last turn, so a worker that polls its ports in a circle
 * makes one turn a circle, and needs to know nothing of the group.
 *
 *   rxBurst(a) → turn: [writes of the last circle][reads a][reads b] → frames of a;   rxBurst(b) → frames of b
 *
 * Frames given to txBurst therefore leave at the next turn: a worker sleeps only after a circle that brought nothing
 * (which was a turn), or calls `flush`. The number of reads follows the traffic, from one to DEPTH a port: a read in vain
 * costs a good part of one that brings a frame, and a frame waits for all that are read and written with it, so turns
 * only grow beyond CALM while a queue stays full for several of them.
 *
 * A read goes to a large slot, whatever comes: one buffer is less work than two to the kernel, which shows most in reads
 * that bring nothing, and a super-frame needs no copy. An ordinary frame is copied to a small slot, and the large one
 * waits for the next. When half of the large slots are in use, a read is given a small slot and, behind it, a place for
 * the rest of a super-frame; should one come then, it is put together in a large slot.
 *
 * Reads carry RWF_NOWAIT: O_NONBLOCK alone makes io_uring arm a poll, and completions would come when nobody looks. TAP
 * reads and writes finish within the call that submits them; the code relies on it for order, not for ownership. A
 * port whose kernel cannot do this (EOPNOTSUPP) goes on with plain reads and writes. Source: io_uring_enter(2),
 * linux/io_uring.h. Not done: SQPOLL (burns a core), multishot reads (slower here), registered buffers (no faster here, and they lock
 * the whole arena in memory).
 */
import {
  FRAME_NEEDS_CSUM,
  type Frames,
  GSO_UDP_L4,
  LARGE_ROOM,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
  SMALL_ROOM,
} from '../frames.ts';
import { arenaBase } from './arena.ts';
import {
  close,
  EAGAIN,
  EINTR,
  EINVAL,
  ENOBUFS,
  EOPNOTSUPP,
  errno,
  errnoText,
  IoError,
  type Memory,
  mapDescriptor,
  mapMemory,
  storeAddress,
  syscall6,
} from './ffi.ts';
import { newPortCounters, type Port, type PortCounters } from './port.ts';
import { completeChecksum, MAX_SEGMENTS, segment } from './segment.ts';
import { TapPort, type TapPortOptions, TUN_F_USO4 } from './tap.ts';
import { readVnetHeader, VNET_BYTES, writeVnetHeader } from './vnet.ts';

const SYS_SETUP = 425;
const SYS_ENTER = 426;
const SYS_REGISTER = 427;
const SETUP_SUBMIT_ALL = 0x80;
const SETUP_SINGLE_ISSUER = 0x1000;
const SETUP_DEFER_TASKRUN = 0x2000;
const ENTER_GETEVENTS = 1;
const REGISTER_FILES = 2;
const UNREGISTER_FILES = 3;
const REGISTER_FILES_UPDATE = 6;
const OFFSET_SQES = 0x10000000;
const OP_READV = 1;
const OP_READ = 22;
const OP_WRITE = 23;
const SQE_FIXED_FILE = 1 << 8; // in word 0, beside the opcode
const RWF_NOWAIT = 8;

const SQE_WORDS = 16;
const SQE_FD = 1;
const SQE_OFFSET = 2;
const SQE_ADDRESS = 4;
const SQE_LENGTH = 6;
const SQE_FLAGS = 7;
const SQE_DATA = 8; // read index or slot; then lane | kind << 8
const KIND_WRITE = 1 << 8;

const ENTRIES = 1024;
const MAX_LANES = 64;
/** Most reads of one port in a turn. */
export const DEPTH = 64;
/** Reads beyond the number that came last time. */
const MORE = 2;
/** Most reads of one port in a turn as long as its queue is emptied now and then, and full turns until it counts as busy. */
const CALM = 12;
const BUSY = 4;
/** Up to so many bytes a loop over words copies faster than a call does. */
const WORDWISE = 192;
/** What of the longest frame does not fit a small slot; where the places for it begin (behind the vectors). */
const TAIL_BYTES = LARGE_ROOM - SMALL_ROOM;
const TAILS = DEPTH * 32;

/** Why the last UringGroup.open returned null. */
export let uringReason = '';

/** One ring and the ports that share it. Belongs to the thread that opened it. */
export class UringGroup {
  /** System calls made, those of all its ports. */
  enters = 0;
  private readonly fd: number;
  private readonly sqes: Int32Array;
  private readonly ring: Int32Array;
  /** Word indices in `ring`. */
  private readonly sqHead: number;
  private readonly sqTail: number;
  private readonly sqMask: number;
  private readonly cqHead: number;
  private readonly cqTail: number;
  private readonly cqMask: number;
  private readonly cqes: number;
  private readonly lanes: (UringTapPort | null)[] = [];
  private readonly update: Memory;
  /** Next submission, not yet published. */
  private tail = 0;

  /** Opens a ring in the calling thread; null (and `uringReason`) when this kernel or container allows none. */
  static open(): UringGroup | null {
    const memory = mapMemory(4096);
    const params = new Int32Array(memory.buffer, 0, 30);
    let fd = -1;
    for (const flags of [SETUP_SUBMIT_ALL | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN, SETUP_SUBMIT_ALL]) {
      params.fill(0);
      params[2] = flags;
      fd = syscall6(SYS_SETUP, ENTRIES, memory.base, 0, 0, 0, 0);
      if (fd >= 0) break;
    }
    if (fd < 0) {
      uringReason = `io_uring_setup: ${errnoText(errno())}`;
      return null;
    }
    // The table of fixed files starts empty (−1); ports come and go by updates.
    const files = new Int32Array(memory.buffer, 1024, MAX_LANES).fill(-1);
    if (syscall6(SYS_REGISTER, fd, REGISTER_FILES, memory.base + files.byteOffset, MAX_LANES, 0, 0) < 0) {
      uringReason = `io_uring_register(FILES): ${errnoText(errno())}`;
      close(fd);
      return null;
    }
    return new UringGroup(fd, params, memory);
  }

  private constructor(fd: number, params: Int32Array, memory: Memory) {
    this.fd = fd;
    this.update = memory;
    // struct io_uring_params: sq_off at byte 40, cq_off at byte 80; rings share one mapping (FEAT_SINGLE_MMAP, since 5.4).
    const entries = params[0];
    const cqEntries = params[1];
    const bytes = Math.max(params[16] + entries * 4, params[25] + cqEntries * 16);
    this.ring = new Int32Array(mapDescriptor(fd, bytes, 0, true, 'io_uring').buffer);
    this.sqes = new Int32Array(mapDescriptor(fd, entries * 64, OFFSET_SQES, true, 'io_uring').buffer);
    this.sqHead = params[10] >> 2;
    this.sqTail = params[11] >> 2;
    this.sqMask = entries - 1;
    this.cqHead = params[20] >> 2;
    this.cqTail = params[21] >> 2;
    this.cqMask = cqEntries - 1;
    this.cqes = params[25] >> 2;
    // Submissions always use entry n at place n.
    for (let n = 0; n < entries; n++) this.ring[(params[16] >> 2) + n] = n;
  }

  /** Gives a port its lane: an index of the fixed file table. −1 when all are taken. */
  add(port: UringTapPort, fd: number): number {
    let lane = this.lanes.indexOf(null);
    if (lane < 0) lane = this.lanes.length;
    if (lane >= MAX_LANES || !this.setFile(lane, fd)) return -1;
    this.lanes[lane] = port;
    return lane;
  }

  remove(lane: number): void {
    this.lanes[lane] = null;
    this.setFile(lane, -1);
  }

  /** Reads and writes of a lane go to what the descriptor stands for now. False: the kernel refuses. */
  renew(lane: number, fd: number): boolean {
    return this.setFile(lane, fd);
  }

  private setFile(lane: number, fd: number): boolean {
    // struct io_uring_files_update { u32 offset, resv; u64 fds }
    const words = new Int32Array(this.update.buffer, 2048, 8);
    words[0] = lane;
    words[1] = 0;
    storeAddress(words, 2, this.update.base + 2048 + 16);
    words[4] = fd;
    return syscall6(SYS_REGISTER, this.fd, REGISTER_FILES_UPDATE, this.update.base + 2048, 1, 0, 0) === 1;
  }

  /** Queues a read of up to `bytes` bytes to `address`; `index` comes back with the completion. */
  queueRead(lane: number, index: number, address: number, bytes: number): void {
    this.queue(OP_READ, lane, address, bytes, RWF_NOWAIT, index, lane);
  }

  /** The same into the iovec pair at `vectors`. */
  queueReadPair(lane: number, index: number, vectors: number): void {
    this.queue(OP_READV, lane, vectors, 2, RWF_NOWAIT, index, lane);
  }

  /** Queues the write of `bytes` bytes at `address`; `slot` comes back with the completion. */
  queueWrite(lane: number, slot: number, address: number, bytes: number): void {
    this.queue(OP_WRITE, lane, address, bytes, 0, slot, lane | KIND_WRITE);
  }

  private queue(
    op: number,
    lane: number,
    address: number,
    length: number,
    flags: number,
    lo: number,
    hi: number,
  ): void {
    // A full ring is submitted at once; should the kernel not take it, completions are reaped until it does.
    for (let tries = 0; ((this.tail - this.ring[this.sqHead]) | 0) > this.sqMask && tries < 1000; tries++) this.flush();
    const sqes = this.sqes;
    const at = (this.tail & this.sqMask) * SQE_WORDS;
    sqes[at] = op | SQE_FIXED_FILE;
    sqes[at + SQE_FD] = lane;
    // A TAP has no position; −1 would have the kernel keep one for it.
    sqes[at + SQE_OFFSET] = 0;
    sqes[at + SQE_OFFSET + 1] = 0;
    storeAddress(sqes, at + SQE_ADDRESS, address);
    sqes[at + SQE_LENGTH] = length;
    sqes[at + SQE_FLAGS] = flags;
    sqes[at + SQE_DATA] = lo;
    sqes[at + SQE_DATA + 1] = hi;
    this.tail = (this.tail + 1) | 0;
  }

  /** One turn: reads for every port, one entry into the kernel, completions to their ports. */
  turn(): void {
    const lanes = this.lanes;
    for (let i = 0; i < lanes.length; i++) {
      const port = lanes[i];
      if (port !== null) port.queueReads();
    }
    this.flush();
  }

  /** Submits what is queued and hands out what is complete. Never blocks. */
  flush(): void {
    const ring = this.ring;
    Atomics.store(ring, this.sqTail, this.tail);
    const waiting = (this.tail - Atomics.load(ring, this.sqHead)) | 0;
    if (waiting !== 0) {
      this.enters++;
      // EINTR, EAGAIN and EBUSY leave the entries where they are: the next flush submits them.
      syscall6(SYS_ENTER, this.fd, waiting, 0, ENTER_GETEVENTS, 0, 0);
    }
    this.reap();
  }

  private reap(): void {
    const { ring, cqes, cqMask, lanes } = this;
    let head = ring[this.cqHead];
    const tail = Atomics.load(ring, this.cqTail);
    while (head !== tail) {
      const at = cqes + (head & cqMask) * 4;
      const kind = ring[at + 1];
      const port = lanes[kind & 0xff];
      // A null lane: the port was closed while the kernel still held its frame.
      if (port != null) {
        if (kind & KIND_WRITE) port.written(ring[at], ring[at + 2]);
        else port.received(ring[at], ring[at + 2]);
      }
      head = (head + 1) | 0;
    }
    Atomics.store(ring, this.cqHead, head);
  }

  /**
   * Closes the ring; its ports' descriptors are closed by whoever opened them. The kernel takes a ring down some time after
   * its descriptor was closed, and as long as the ring holds a TAP's queue the device stays: so they are given back first.
   */
  close(): void {
    syscall6(SYS_REGISTER, this.fd, UNREGISTER_FILES, 0, 0, 0, 0);
    close(this.fd);
  }
}

/** One queue of a TAP device, in a group. */
export class UringTapPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters: PortCounters = newPortCounters();
  readonly pollFd: number;
  private readonly options: TapPortOptions;
  private readonly group: UringGroup;
  private readonly lane: number;
  private readonly header: number;
  private readonly offloads: number;
  private arena: Frames | null = null;
  private base = 0;
  /** Per read: its slot (−1 none), and whether the kernel has it. */
  private readonly spare = new Int32Array(DEPTH).fill(-1);
  private readonly busy = new Uint8Array(DEPTH);
  /**
   * struct iovec[2] per read that has a small slot. Then, per read, the place for the tail of a super-frame, which is
   * copied from there if a large slot is free by then. Costs address space only, until it is used.
   */
  private readonly memory: Memory;
  private readonly vectors: Int32Array;
  private readonly bytes: Uint8Array;
  private window = 1;
  /** Turns in a row in which every read brought a frame. */
  private full = 0;
  /** Reads submitted in the last turn, and how many of them brought a frame. */
  private asked = 0;
  private brought = 0;
  /** Frames of the last turn that were not given out yet: ready[from … to). */
  private readonly ready = new Int32Array(DEPTH);
  private from = 0;
  private to = 0;
  /** True after a turn, until this port has been asked for its frames. */
  private fresh = false;
  private writes = 0;
  private readonly pieces = new Int32Array(MAX_SEGMENTS);
  /** Plain reads and writes, once the kernel has refused batches. */
  private plain: TapPort | null = null;

  constructor(options: TapPortOptions, group: UringGroup) {
    this.name = options.name;
    this.number = options.number;
    this.pollFd = options.fd;
    this.options = options;
    this.group = group;
    this.header = options.vnetHeader ? VNET_BYTES : 0;
    this.offloads = options.offloads;
    this.memory = mapMemory(TAILS + DEPTH * TAIL_BYTES);
    this.vectors = new Int32Array(this.memory.buffer, 0, DEPTH * 8);
    this.bytes = new Uint8Array(this.memory.buffer);
    this.lane = group.add(this, options.fd);
    if (this.lane < 0) this.fallBack();
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    if (this.plain !== null) {
      const got = this.plain.rxBurst(frames, slots, max);
      this.linkUp = this.plain.linkUp;
      return got;
    }
    if (frames !== this.arena) this.adopt(frames);
    if (this.from === this.to && !this.fresh && this.linkUp) {
      const enters = this.group.enters;
      this.group.turn();
      this.counters.syscalls += this.group.enters - enters;
    }
    this.fresh = false;
    let count = 0;
    while (count < max && this.from < this.to) slots[count++] = this.ready[this.from++];
    return count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    if (this.plain !== null) {
      this.plain.txBurst(frames, slots, n);
      return;
    }
    if (frames !== this.arena) this.adopt(frames);
    const { meta } = frames;
    for (let i = 0; i < n; i++) {
      const slot = slots[i];
      const m = slot * META_WORDS;
      const gso = meta[m + META_GSO] & 0xff;
      if (this.header === 0 || (gso === GSO_UDP_L4 && (this.offloads & TUN_F_USO4) === 0)) {
        if (gso !== 0) {
          this.sendSegments(frames, slot);
          continue;
        }
        if (meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) completeChecksum(frames, slot);
      }
      this.send(frames, slot);
    }
  }

  renew(): void {
    // The table of fixed files keeps the old one until it is told.
    if (this.plain === null && !this.group.renew(this.lane, this.pollFd)) this.fallBack();
    this.plain?.renew();
    this.linkUp = true;
  }

  close(): void {
    if (this.plain === null) {
      this.linkUp = false;
      for (let tries = 0; tries < 100 && this.writes > 0; tries++) this.group.flush();
      if (this.arena !== null) this.release(this.arena);
      this.group.remove(this.lane);
    }
    this.plain?.close();
    if (this.plain === null) close(this.pollFd);
    this.arena = null;
  }

  /** For the group: queues as many reads as the traffic suggests. */
  queueReads(): void {
    const frames = this.arena;
    this.fresh = true;
    if (frames === null || !this.linkUp || this.from !== this.to) return;
    this.from = 0;
    this.to = 0;
    // All reads brought a frame: there is more. Otherwise a few more than came last time, and one where nothing comes.
    if (this.asked > 0 && this.brought === this.asked)
      this.window = Math.min(this.window * 2 + MORE, ++this.full > BUSY ? DEPTH : CALM);
    else {
      this.full = 0;
      this.window = this.brought === 0 ? 1 : Math.min(this.brought + MORE, CALM);
    }
    this.asked = 0;
    this.brought = 0;
    for (let i = 0; i < this.window; i++) {
      if (this.busy[i] !== 0) continue;
      let slot = this.spare[i];
      if (slot < 0 && (slot = this.take(frames)) < 0) break;
      this.spare[i] = slot;
      this.busy[i] = 1;
      this.asked++;
      const address = this.base + frames.meta[slot * META_WORDS + META_OFF] - this.header;
      if (slot >= frames.small) this.group.queueRead(this.lane, i, address, LARGE_ROOM + this.header);
      else this.queuePair(i, address);
    }
  }

  /** For the group: read `index` is complete. */
  received(index: number, result: number): void {
    this.busy[index] = 0;
    const frames = this.arena;
    const { header, counters } = this;
    if (frames === null) return;
    if (result < header) {
      if (result === -EAGAIN) return;
      if (result === -EOPNOTSUPP || result === -EINVAL) this.fallBack();
      else if (result < 0 && result !== -EINTR && result !== -ENOBUFS)
        this.linkUp = false; // EBADFD, EFAULT: deleted
      else counters.rxErrors++;
      return;
    }
    const { meta } = frames;
    this.brought++;
    let taken = this.spare[index];
    const fits = result <= SMALL_ROOM + header;
    if (taken >= frames.small && fits && frames.freeSmallCount > 0) taken = this.shrink(frames, taken, result);
    else if (taken >= frames.small || fits) this.spare[index] = -1;
    else if ((taken = this.join(frames, index, result)) < 0) {
      counters.rxErrors++; // a super-frame, and no large slot is free
      return;
    }
    meta[taken * META_WORDS + META_LEN] = result - header;
    meta[taken * META_WORDS + META_PORT] = this.number;
    if (header !== 0) readVnetHeader(frames, taken);
    this.ready[this.to++] = taken;
    counters.rxPackets++;
    counters.rxBytes += result - header;
  }

  /** For the group: the write of `slot` is complete. */
  written(slot: number, result: number): void {
    this.writes--;
    const counters = this.counters;
    if (result > 0) {
      counters.txPackets++;
      counters.txBytes += result - this.header;
    } else counters.txErrors++; // EIO: the kernel's end is administratively down
    if (this.arena !== null) this.arena.free(slot);
  }

  private send(frames: Frames, slot: number): void {
    const { header } = this;
    const m = slot * META_WORDS;
    if (this.linkUp && (header === 0 || writeVnetHeader(frames, slot))) {
      this.writes++;
      this.group.queueWrite(
        this.lane,
        slot,
        this.base + frames.meta[m + META_OFF] - header,
        frames.meta[m + META_LEN] + header,
      );
      return;
    }
    this.counters.txErrors++;
    frames.free(slot);
  }

  /** Cuts a super-frame for a device that cannot take it, sends the pieces and frees all. */
  private sendSegments(frames: Frames, slot: number): void {
    const count = segment(frames, slot, frames.meta[slot * META_WORDS + META_GSO] >>> 16, this.pieces);
    if (count < 0) this.counters.txErrors++;
    for (let i = 0; i < count; i++) this.send(frames, this.pieces[i]);
    frames.free(slot);
  }

  /** A slot for a read; −1 when the arena has none. Half of the large ones stay free for those who build large frames. */
  private take(frames: Frames): number {
    const slot = frames.freeLargeCount * 2 > frames.large ? frames.alloc(LARGE_ROOM) : -1;
    return slot < 0 ? frames.alloc(SMALL_ROOM) : slot;
  }

  /** Queues read `i` into a small slot, where the frame's header goes to `address`, and the place for its tail. */
  private queuePair(i: number, address: number): void {
    const { vectors, memory } = this;
    const at = i * 8;
    storeAddress(vectors, at, address);
    vectors[at + 2] = SMALL_ROOM + this.header;
    storeAddress(vectors, at + 4, memory.base + TAILS + i * TAIL_BYTES);
    vectors[at + 6] = TAIL_BYTES;
    this.group.queueReadPair(this.lane, i, memory.base + i * 32);
  }

  /** Copies an ordinary frame, of `result` bytes with its header, from its large slot to a small one. */
  private shrink(frames: Frames, from: number, result: number): number {
    const slot = frames.alloc(SMALL_ROOM);
    const { meta, u8, i32 } = frames;
    // Frames begin 2 bytes into a word, so a virtio header (10 bytes) does at one; without it, headroom is copied along.
    const source = meta[from * META_WORDS + META_OFF] - VNET_BYTES;
    const target = meta[slot * META_WORDS + META_OFF] - VNET_BYTES;
    const bytes = result - this.header + VNET_BYTES;
    if (bytes > WORDWISE) u8.copyWithin(target, source, source + bytes);
    else for (let n = (bytes + 3) >> 2, t = target >> 2, s = source >> 2; n > 0; n--) i32[t++] = i32[s++];
    return slot;
  }

  /** Puts head and tail of a super-frame of `result` bytes together in a large slot; −1 when there is none. */
  private join(frames: Frames, index: number, result: number): number {
    const slot = frames.alloc(LARGE_ROOM);
    if (slot < 0) return -1;
    const { meta, u8 } = frames;
    const room = SMALL_ROOM + this.header;
    const to = meta[slot * META_WORDS + META_OFF] - this.header;
    const from = meta[this.spare[index] * META_WORDS + META_OFF] - this.header;
    u8.copyWithin(to, from, from + room);
    const tail = TAILS + index * TAIL_BYTES;
    u8.set(this.bytes.subarray(tail, tail + result - room), to + room); // a view a super-frame, only when slots ran short
    return slot;
  }

  private fallBack(): void {
    if (this.plain !== null) return;
    if (this.arena !== null) this.release(this.arena);
    this.plain = new TapPort(this.options, this.counters);
  }

  private adopt(frames: Frames): void {
    if (this.arena !== null) {
      for (let tries = 0; tries < 100 && this.writes > 0; tries++) this.group.flush();
      this.release(this.arena);
    }
    this.arena = frames;
    this.base = arenaBase(frames);
  }

  /** Gives back all slots but those that the kernel may still write to. */
  private release(frames: Frames): void {
    for (let i = 0; i < DEPTH; i++) {
      if (this.busy[i] !== 0) continue;
      if (this.spare[i] >= 0) frames.free(this.spare[i]);
      this.spare[i] = -1;
    }
    while (this.from < this.to) frames.free(this.ready[this.from++]);
  }
}

/**
 * How TAP queues are read and written: `auto` is io_uring where the kernel has it, `bpf` the same with receive rings beside
 * it (tap-ring.ts).
 */
export type IoBackend = 'uring' | 'readwrite' | 'auto' | 'bpf';

/**
 * The group for all TAP ports of the calling worker, or null for plain reads and writes. Errors: IoError when `uring` is
 * demanded and cannot be had.
 */
export function openGroup(backend: IoBackend): UringGroup | null {
  if (backend === 'readwrite') return null;
  const group = UringGroup.open();
  if (group === null && backend === 'uring')
    throw new IoError(
      'io backend',
      'io_uring',
      uringReason,
      'choose auto, or allow it (sysctl kernel.io_uring_disabled=0)',
    );
  return group;
}

/** A port on one queue of a TAP device, with the back end that the worker has chosen. */
export function tapPort(options: TapPortOptions, group: UringGroup | null): TapPort | UringTapPort {
  return group === null ? new TapPort(options) : new UringTapPort(options, group);
}
