/**
 * AF_PACKET: a port on a device of the host (a veth, a NIC), through a receive ring and sendmmsg.
 *
 *   mode latency  TPACKET_V2: every frame is visible at once; slots of 66 KiB, or small ones without super-frames
 *   mode bulk     TPACKET_V3: blocks of 1 MiB, handed over when full or after 1 ms; highest rates
 *
 * The ring is mapped by the worker that reads it; frames are copied into arena slots, so that nothing downstream depends
 * on the ring. PACKET_VNET_HDR carries partial checksums and super-frames both ways, as with TAP: without it TCP does not
 * even connect over a veth. PACKET_RESERVE shifts frames so that they lie ≡ 2 (mod 4) like those in the arena, and a
 * short frame is copied by whole words. VLAN tags that the kernel has taken off are put back. A port without a ring only
 * sends: its frames come in another way (kernel-port.ts).
 *
 * The host's own stack still sees every frame: a device used here should carry no addresses of the host. Source:
 * packet(7), Documentation/networking/packet_mmap.rst, linux/if_packet.h. Not done: TX ring (slower than sendmmsg), fan-out by
 * program (PACKET_FANOUT_EBPF).
 */
import { fstatSync } from 'node:fs';
import { release } from 'node:os';
import {
  FRAME_NEEDS_CSUM,
  type Frames,
  GSO_UDP_L4,
  LARGE_ROOM,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_HDRLEN,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../frames.ts';
import { arenaBase } from './arena.ts';
import {
  bind,
  close,
  EINTR,
  ENETDOWN,
  errno,
  getsockname,
  getsockopt,
  ioctlPointer,
  type Memory,
  mapDescriptor,
  mapMemory,
  memcpy,
  sendmmsg,
  setsockopt,
  socket,
  storeAddress,
  systemError,
  unmap,
} from './ffi.ts';
import { inNetns } from './netns.ts';
import { newPortCounters, type Port, type PortCounters } from './port.ts';
import { MAX_SEGMENTS, segment } from './segment.ts';
import { TUN_F_USO4 } from './tap.ts';
import { readVnetHeader, VNET_BYTES, writeVnetHeader } from './vnet.ts';

const AF_PACKET = 17;
const SOCK_RAW_NONBLOCK_CLOEXEC = 3 | 0x800 | 0x80000;
const SIOCGIFINDEX = 0x8933;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_RX_RING = 5;
const PACKET_VERSION = 10;
const PACKET_RESERVE = 12;
const PACKET_VNET_HDR = 15;
const PACKET_FANOUT = 18;
const PACKET_IGNORE_OUTGOING = 23;
const TPACKET_V2 = 1;
const TPACKET_V3 = 2;
const ETH_P_ALL = 3;
const MSG_DONTWAIT = 0x40;
const ENXIO = 6;

const TP_STATUS_USER = 1;
const TP_STATUS_VLAN_VALID = 0x10;
const TP_STATUS_VLAN_TPID_VALID = 0x40;

const BLOCK_BYTES = 1 << 20;
/** V2 slots: ring header, virtio header, and a super-frame or an ordinary one. */
const SUPER_SLOT_BYTES = 67584;
const SMALL_SLOT_BYTES = 2304;
/** Puts a frame behind its virtio header at ≡ 2 (mod 16): 16 n + 10 − 14 + 6. */
const RESERVE = 6;
/** Longer frames are copied by memcpy, whose call costs as much as this many bytes in a loop. */
const LOOP_BYTES = 512;
const BATCH = 64;

export interface PacketOptions {
  device: string;
  /** Sockets to open, one a worker; more than one share the traffic by flow hash (PACKET_FANOUT_HASH, symmetric). */
  queues: number;
  mode: 'latency' | 'bulk';
  /** False when the device never delivers frames above its MTU (offloads off): smaller slots, more of them. */
  superFrames: boolean;
  /** Receive frames for any MAC: needed when the port's MAC is not the device's. */
  promiscuous: boolean;
  /** Ring memory per queue, bytes; rounded up to 1 MiB. Default 16 MiB. 0: no ring, the port only sends. */
  ringBytes?: number;
  netns?: string;
}

export interface OpenedPacket {
  fds: number[];
  offloads: number;
  /** Null: sends only. */
  ring: PacketRing | null;
}

/** The ring's geometry, for the worker that maps it. */
export interface PacketRing {
  version: number;
  blocks: number;
  /** V2: bytes from one slot to the next; slots do not cross blocks. */
  slotBytes: number;
  /**
   * Where its reader is: block, cursor, packets left, and in whose ring (the socket's inode; int32 each). The kernel goes on
   * where it was, so who takes a dead worker's ring over must go on there, too. Absent: the ring is new.
   */
  place?: SharedArrayBuffer;
}

/** Bytes of a ring's `place`. */
export const PLACE_BYTES = 16;

/**
 * Fan-out groups of this process so far, and how far apart their numbers are: sockets that are about to be replaced may still
 * be in one that had the same index.
 */
let groups = 0;
const GROUP_STEP = 4093;

/** Opens the sockets of a port. Main thread; the order of the descriptors is the order in the fan-out group. Errors: IoError. */
export function openPacket(options: PacketOptions): OpenedPacket {
  const where = `port ${options.device} (packet)`;
  const version = options.mode === 'bulk' ? TPACKET_V3 : TPACKET_V2;
  const blocks = Math.ceil((options.ringBytes ?? 16 << 20) / BLOCK_BYTES);
  const slotBytes = version === TPACKET_V3 || options.superFrames ? SUPER_SLOT_BYTES : SMALL_SLOT_BYTES;
  const ring = blocks === 0 ? null : { version, blocks, slotBytes };
  // Kernels before 6.2 refuse a UDP super-frame (VIRTIO_NET_HDR_GSO_UDP_L4).
  const [major, minor] = release().split('.').map(Number);
  const offloads = major > 6 || (major === 6 && minor >= 2) ? 0x6f : 0x0f;
  const group = groups++ * GROUP_STEP;
  return inNetns(options.netns ?? '', () => {
    const fds: number[] = [];
    try {
      for (let queue = 0; queue < options.queues; queue++) {
        const fd = socket(AF_PACKET, SOCK_RAW_NONBLOCK_CLOEXEC, 0);
        if (fd < 0) throw systemError(where, 'a packet socket', errno(), 'run as root or grant CAP_NET_RAW');
        fds.push(fd);
        configure(where, fd, options, ring, group);
      }
      return { fds, offloads, ring };
    } catch (error) {
      for (const fd of fds) close(fd);
      throw error;
    }
  });
}

function configure(where: string, fd: number, options: PacketOptions, ring: PacketRing | null, group: number): void {
  const set = (name: number, words: readonly number[], what: string, advice = ''): void => {
    const value = new Uint8Array(new Int32Array(words).buffer);
    if (setsockopt(fd, SOL_PACKET, name, value, value.length) < 0) throw systemError(where, what, errno(), advice);
  };
  const ifindex = indexOf(fd, options.device);
  if (ifindex < 0)
    throw systemError(where, `a device ${options.device}`, errno(), 'see "ip link" for the names of this machine');
  if (ring !== null) {
    set(PACKET_VERSION, [ring.version], `TPACKET version ${ring.version}`);
    set(PACKET_RESERVE, [RESERVE], 'PACKET_RESERVE');
  }
  set(PACKET_VNET_HDR, [1], 'PACKET_VNET_HDR');
  set(PACKET_IGNORE_OUTGOING, [1], 'PACKET_IGNORE_OUTGOING', 'use Linux 4.20 or later');
  if (ring !== null) {
    const perBlock = Math.floor(BLOCK_BYTES / ring.slotBytes);
    const geometry = [BLOCK_BYTES, ring.blocks, ring.slotBytes, perBlock * ring.blocks];
    // V3: retire_blk_tov 1 ms, no private area, no features.
    set(
      PACKET_RX_RING,
      ring.version === TPACKET_V3 ? [...geometry, 1, 0, 0] : geometry,
      `a receive ring of ${ring.blocks} MiB`,
      'lower ringBytes',
    );
  }
  if (options.promiscuous) set(PACKET_ADD_MEMBERSHIP, [ifindex, 1, 0, 0], 'promiscuous mode'); // PACKET_MR_PROMISC
  const address = new Uint8Array(20); // struct sockaddr_ll
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ring === null ? 0 : ETH_P_ALL); // network byte order; 0: nothing is received
  view.setInt32(4, ifindex, true);
  if (bind(fd, address, address.length) < 0) throw systemError(where, 'to bind to the device', errno());
  if (options.queues > 1 && ring !== null)
    set(PACKET_FANOUT, [(process.pid * 31 + ifindex + group) & 0xffff], 'PACKET_FANOUT'); // type HASH
}

/** Index of the device of that name in a socket's namespace; −1 (and errno): there is none. */
function indexOf(fd: number, device: string): number {
  const request = new Uint8Array(40); // struct ifreq
  request.set(new TextEncoder().encode(device.slice(0, 15)));
  return ioctlPointer(fd, SIOCGIFINDEX, request) < 0 ? -1 : new DataView(request.buffer).getInt32(16, true);
}

/** True when there is a device of that name in a packet socket's namespace, and the socket is not bound to it. */
export function isBoundElsewhere(fd: number, device: string): boolean {
  const ifindex = indexOf(fd, device);
  return ifindex >= 0 && ifindex !== boundDevice(fd);
}

/** Index of the device that a packet socket is bound to; −1 once that was deleted, or moved into another namespace. */
export function boundDevice(fd: number): number {
  const address = new Uint8Array(20); // struct sockaddr_ll
  if (getsockname(fd, address, new Uint8Array([address.length, 0, 0, 0])) < 0) return -1;
  return new DataView(address.buffer).getInt32(4, true);
}

export interface PacketPortOptions {
  name: string;
  /** The port's number in the interface table. */
  number: number;
  fd: number;
  offloads: number;
  ring: PacketRing | null;
}

/** One socket on a device. Built in the worker that uses it. */
export class PacketPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters: PortCounters = newPortCounters();
  readonly pollFd: number;
  private readonly offloads: number;
  private readonly version: number;
  private readonly slotBytes: number;
  private readonly perBlock: number;
  private readonly blocks: number;
  private ring = new Int32Array(0);
  private ring16 = new Uint16Array(0);
  private ringBase = 0;
  private mapped: Memory | null = null;
  /** Where to read next: block, and in it V2: slot number; V3: bytes to the packet header and packets left. */
  private block = 0;
  private cursor = 0;
  private left = 0;
  private readonly place: Int32Array;
  private arena: Frames | null = null;
  private base = 0;
  /** struct mmsghdr[BATCH] (64 bytes each), struct iovec[BATCH]. */
  private readonly messages: Int32Array;
  private readonly messagesAt: number;
  private readonly pieces = new Int32Array(MAX_SEGMENTS);
  private readonly batch = new Int32Array(BATCH);
  private batched = 0;

  constructor(options: PacketPortOptions) {
    this.name = options.name;
    this.number = options.number;
    this.pollFd = options.fd;
    this.offloads = options.offloads;
    const geometry: PacketRing = options.ring ?? { version: TPACKET_V2, blocks: 0, slotBytes: SMALL_SLOT_BYTES };
    this.version = geometry.version;
    this.slotBytes = geometry.slotBytes;
    this.perBlock = Math.floor(BLOCK_BYTES / this.slotBytes);
    this.blocks = geometry.blocks;
    this.place = new Int32Array(geometry.place ?? new ArrayBuffer(PLACE_BYTES));
    this.map();
    const memory = mapMemory(BATCH * 80);
    this.messages = new Int32Array(memory.buffer);
    this.messagesAt = memory.base;
    for (let i = 0; i < BATCH; i++) {
      storeAddress(this.messages, i * 16 + 4, memory.base + BATCH * 64 + i * 16); // msg_iov
      this.messages[i * 16 + 6] = 1; // msg_iovlen
    }
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    if (frames !== this.arena) this.adopt(frames);
    if (!this.linkUp) this.clearError();
    if (this.blocks === 0) return 0;
    const count =
      this.version === TPACKET_V2 ? this.readSlots(frames, slots, max) : this.readBlocks(frames, slots, max);
    this.place[0] = this.block;
    this.place[1] = this.cursor;
    this.place[2] = this.left;
    // A device that went down and came back needs nothing from us: its frames say that it is back.
    if (count > 0) this.linkUp = true;
    this.counters.rxPackets += count;
    return count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    if (frames !== this.arena) this.adopt(frames);
    const { meta } = frames;
    for (let i = 0; i < n; i++) {
      const slot = slots[i];
      const gso = meta[slot * META_WORDS + META_GSO];
      if ((gso & 0xff) === GSO_UDP_L4 && (this.offloads & TUN_F_USO4) === 0) {
        const count = segment(frames, slot, gso >>> 16, this.pieces);
        if (count < 0) this.counters.txErrors++;
        for (let piece = 0; piece < count; piece++) this.enqueue(frames, this.pieces[piece]);
        frames.free(slot);
      } else this.enqueue(frames, slot);
    }
    this.sendBatch(frames);
  }

  renew(): void {
    this.map();
    this.linkUp = true;
  }

  close(): void {
    this.linkUp = false;
    close(this.pollFd);
  }

  /** Maps the ring of the socket that the descriptor stands for, in place of another's, and goes to where its reader was. */
  private map(): void {
    if (this.blocks === 0) return;
    const ownerNow = (): number => fstatSync(this.pollFd).ino | 0;
    let owner: number;
    do {
      const old = this.mapped;
      owner = ownerNow();
      this.mapped = mapDescriptor(this.pollFd, this.blocks * BLOCK_BYTES, 0, true, `port ${this.name} (packet)`);
      this.ring = new Int32Array(this.mapped.buffer);
      this.ring16 = new Uint16Array(this.mapped.buffer);
      this.ringBase = this.mapped.base;
      // It would keep the old socket, with all of its memory.
      if (old !== null) unmap(old);
      // The main thread may have put yet another there meanwhile.
    } while (ownerNow() !== owner);
    if (this.place[3] !== owner) this.place.fill(0);
    this.place[3] = owner;
    [this.block, this.cursor, this.left] = this.place;
  }

  private adopt(frames: Frames): void {
    this.arena = frames;
    this.base = arenaBase(frames);
  }

  /** A pending ENETDOWN would keep poll() awake; reading it clears it. */
  private clearError(): void {
    getsockopt(this.pollFd, SOL_SOCKET, SO_ERROR, new Uint8Array(4), new Uint8Array([4, 0, 0, 0]));
  }

  /**
   * V2: struct tpacket2_hdr { u32 status, len, snaplen; u16 mac, net; u32 sec, nsec; u16 vlan_tci, vlan_tpid; } per slot.
   */
  private readSlots(frames: Frames, slots: Int32Array, max: number): number {
    const { ring, ring16 } = this;
    let count = 0;
    while (count < max) {
      const at = this.block * BLOCK_BYTES + this.cursor * this.slotBytes;
      const word = at >> 2;
      const status = Atomics.load(ring, word);
      if ((status & TP_STATUS_USER) === 0) break;
      const mac = at + ring16[(at >> 1) + 6];
      const taken = this.take(
        frames,
        mac,
        ring[word + 2],
        ring[word + 1],
        status,
        ring16[(at >> 1) + 12],
        ring16[(at >> 1) + 13],
      );
      if (taken === -2) break; // no slot: the frame stays in the ring, where the kernel counts what it drops
      Atomics.store(ring, word, 0);
      if (++this.cursor === this.perBlock) {
        this.cursor = 0;
        if (++this.block === this.blocks) this.block = 0;
      }
      if (taken >= 0) slots[count++] = taken;
    }
    return count;
  }

  /**
   * V3: a block starts { u32 version, offset_to_priv, status, num_pkts, offset_to_first_pkt }; a packet
   * { u32 next, sec, nsec, snaplen, len, status; u16 mac, net; u32 rxhash, vlan_tci; u16 vlan_tpid }.
   */
  private readBlocks(frames: Frames, slots: Int32Array, max: number): number {
    const { ring, ring16 } = this;
    let count = 0;
    while (count < max) {
      const block = (this.block * BLOCK_BYTES) >> 2;
      if (this.left === 0) {
        if ((Atomics.load(ring, block + 2) & TP_STATUS_USER) === 0) break;
        this.left = ring[block + 3];
        this.cursor = ring[block + 4];
      }
      if (this.left > 0) {
        const at = this.block * BLOCK_BYTES + this.cursor;
        const word = at >> 2;
        const mac = at + ring16[(at >> 1) + 12];
        const taken = this.take(
          frames,
          mac,
          ring[word + 3],
          ring[word + 4],
          ring[word + 5],
          ring[word + 8] & 0xffff,
          ring16[(at >> 1) + 18],
        );
        if (taken === -2) break;
        this.left--;
        this.cursor += ring[word];
        if (taken >= 0) slots[count++] = taken;
      }
      if (this.left === 0) {
        Atomics.store(ring, block + 2, 0);
        if (++this.block === this.blocks) this.block = 0;
      }
    }
    return count;
  }

  /** Copies one frame at ring byte `mac` into a slot. −1: not usable, counted; −2: no slot is free. */
  private take(
    frames: Frames,
    mac: number,
    captured: number,
    length: number,
    status: number,
    tag: number,
    tpid: number,
  ): number {
    if (captured < length || captured < 14 || length > LARGE_ROOM - 4) {
      // Cut off: a super-frame in a ring of small slots. Or longer than any slot: a host with IPv6 BIG TCP (gso_max_size).
      this.counters.rxErrors++;
      return -1;
    }
    const slot = frames.alloc(length + 4);
    if (slot < 0) return -2;
    const m = slot * META_WORDS;
    const { meta } = frames;
    const off = meta[m + META_OFF];
    const bytes = length + VNET_BYTES;
    const from = mac - VNET_BYTES;
    if (bytes <= LOOP_BYTES && (from & 3) === 0) {
      const { ring } = this;
      const { i32 } = frames;
      const to = (off - VNET_BYTES) >> 2;
      const words = (bytes + 3) >> 2;
      for (let i = 0, source = from >> 2; i < words; i++) i32[to + i] = ring[source + i];
    } else memcpy(this.base + off - VNET_BYTES, this.ringBase + from, bytes);
    meta[m + META_LEN] = length;
    meta[m + META_PORT] = this.number;
    if (status & TP_STATUS_VLAN_VALID) {
      // The tag goes back between addresses and EtherType; the start moves by 4 and keeps its alignment.
      frames.u8.copyWithin(off - 4 - VNET_BYTES, off - VNET_BYTES, off + 12);
      const type = status & TP_STATUS_VLAN_TPID_VALID ? tpid : 0x8100;
      frames.u8[off + 8] = type >>> 8;
      frames.u8[off + 9] = type;
      frames.u8[off + 10] = tag >>> 8;
      frames.u8[off + 11] = tag;
      meta[m + META_OFF] = off - 4;
      meta[m + META_LEN] = length + 4;
    }
    readVnetHeader(frames, slot);
    if (status & TP_STATUS_VLAN_VALID) {
      // Start and header length were counted without the tag.
      if (meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) meta[m + META_CSUM] += 4;
      if (meta[m + META_HDRLEN] !== 0) meta[m + META_HDRLEN] += 4;
    }
    this.counters.rxBytes += meta[m + META_LEN];
    return slot;
  }

  private enqueue(frames: Frames, slot: number): void {
    if (!writeVnetHeader(frames, slot)) {
      this.counters.txErrors++;
      frames.free(slot);
      return;
    }
    const m = slot * META_WORDS;
    const vector = BATCH * 16 + this.batched * 4;
    storeAddress(this.messages, vector, this.base + frames.meta[m + META_OFF] - VNET_BYTES);
    this.messages[vector + 2] = frames.meta[m + META_LEN] + VNET_BYTES;
    this.batch[this.batched++] = slot;
    if (this.batched === BATCH) this.sendBatch(frames);
  }

  /** Sends what is queued. The kernel copies, so all slots are free afterwards. */
  private sendBatch(frames: Frames): void {
    const { counters, batch, batched } = this;
    let done = 0;
    while (done < batched) {
      counters.syscalls++;
      const sent = sendmmsg(this.pollFd, this.messagesAt + done * 64, batched - done, MSG_DONTWAIT);
      if (sent > 0) {
        for (let i = 0; i < sent; i++) counters.txBytes += frames.meta[batch[done + i] * META_WORDS + META_LEN];
        counters.txPackets += sent;
        done += sent;
        continue;
      }
      const reason = errno();
      if (reason === EINTR) continue;
      if (reason === ENETDOWN || reason === ENXIO) this.linkUp = false;
      // The first frame that is left is the one that failed: it is lost (EMSGSIZE, ENOBUFS, EAGAIN), the others may go.
      counters.txErrors++;
      done++;
    }
    frames.freeBurst(batch, batched);
    this.batched = 0;
  }
}
