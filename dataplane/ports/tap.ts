/**
 * TAP: a port behind which the host kernel (or a namespace) sits, through /dev/net/tun.
 *
 * `openTap` makes the device and opens one descriptor a queue, on the main thread; each worker builds a `TapPort` from
 * its descriptor number. With IFF_VNET_HDR the kernel hands over super-frames of up to 64 KiB and partial checksums
 * (TUNSETOFFLOAD says which it may), and takes them back: that is where the bulk throughput comes from.
 *
 * A received frame is read with two vectors: a small slot first, then the rest of a large slot from the byte where the
 * small one ends. So ordinary frames stay in small slots (a fifth of the cache lines), and a super-frame costs
 * one copy of the small slot's 2 KiB into the head of the large one, not a copy of its 64 KiB.
 *
 * This back end makes one system call a frame; uring.ts does the same in batches. What TapPort does not do: create,
 * configure or delete the device. Source: linux/if_tun.h, drivers/net/tun.c, Documentation/networking/tuntap.rst.
 */
import { writeFileSync } from 'node:fs';
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
  errno,
  IoError,
  ioctlPointer,
  ioctlValue,
  mapMemory,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  open,
  readv,
  socket,
  storeAddress,
  systemError,
  write,
} from './ffi.ts';
import { inNetns } from './netns.ts';
import { newPortCounters, type Port, type PortCounters } from './port.ts';
import { completeChecksum, MAX_SEGMENTS, segment } from './segment.ts';
import { readVnetHeader, VNET_BYTES, writeVnetHeader } from './vnet.ts';

const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

const SIOCGIFINDEX = 0x8933;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFMTU = 0x8922;
const SIOCSIFHWADDR = 0x8924;
const SIOCSIFTXQLEN = 0x8943;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | O_CLOEXEC;

/** TUN_F_*: what the device may hand over unfinished. */
export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
export const TUN_F_TSO_ECN = 0x08;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;
/** Everything that the path understands. */
export const TUN_F_ALL = 0x6f;
/** Tried in this order: kernels before 6.2 know no USO, and a kernel refuses a mask with an unknown bit as a whole. */
const OFFLOAD_MASKS = [0x6f, 0x0f, 0x07, 0x01];

export interface TapOptions {
  /** Device name, 1 to 15 bytes; with `%d` the kernel puts in the first free number. */
  name: string;
  /** One descriptor is opened for each, 1 to 256. */
  queues: number;
  vnetHeader: boolean;
  /** TUN_F_* bits that are wanted; ignored without vnetHeader. */
  offloads: number;
  mtu: number;
  /** MAC of the *kernel's* end, `02:00:00:00:01:fe`; the router's own end has the port's MAC. Omitted: the kernel's choice. */
  mac?: string;
  /** Namespace in which the device appears; empty or omitted: the current one. */
  netns?: string;
  /** Frames that the kernel queues towards the router, per queue. */
  queueLength?: number;
  /** The host shall not speak IPv6 on it by itself: its own end is nobody's. */
  mute?: boolean;
}

export interface OpenedTap {
  /** The device's name and index. */
  name: string;
  ifindex: number;
  /** One non-blocking descriptor a queue; a number is valid in every thread. Closing the last removes the device. */
  fds: number[];
  /** TUN_F_* bits that the kernel accepted. */
  offloads: number;
}

/**
 * Creates (or attaches to) a TAP device, brings it up, and opens all its queues. Offloads and the header's size belong to
 * the device, so every queue is opened with the same flags. Main thread. Errors: IoError.
 */
export function openTap(options: TapOptions): OpenedTap {
  const { queues, vnetHeader } = options;
  let { name } = options;
  const where = `port ${name} (tap)`;
  if (!/^[^\s/:]{1,15}$/.test(name))
    throw new IoError(where, 'a device name of 1 to 15 characters', JSON.stringify(name), 'choose another ifname');
  if (!(queues >= 1 && queues <= 256)) throw new IoError(where, 'from 1 to 256 queues', `${queues}`, 'lower workers');
  return inNetns(options.netns ?? '', () => {
    const fds: number[] = [];
    try {
      const flags = IFF_TAP | IFF_NO_PI | (vnetHeader ? IFF_VNET_HDR : 0) | (queues > 1 ? IFF_MULTI_QUEUE : 0);
      for (let queue = 0; queue < queues; queue++) {
        const fd = open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
        if (fd < 0)
          throw systemError(
            `${where} /dev/net/tun`,
            'to open it',
            errno(),
            'load the tun module and run as root (CAP_NET_ADMIN)',
          );
        fds.push(fd);
        const request = ifreq(name, flags);
        if (ioctlPointer(fd, TUNSETIFF, request) < 0) {
          const reason = errno();
          throw systemError(
            where,
            queue === 0 ? 'the device to be created' : `queue ${queue} to be attached`,
            reason,
            reason === EINVAL
              ? 'a device of that name exists with another kind or other flags: delete it or choose another ifname'
              : reason === 16
                ? 'another process holds the device: stop it or choose another ifname'
                : '',
          );
        }
        name = new TextDecoder().decode(request.subarray(0, request.indexOf(0)));
      }
      let offloads = 0;
      if (vnetHeader) {
        const size = new Uint8Array(new Int32Array([VNET_BYTES]).buffer);
        if (ioctlPointer(fds[0], TUNSETVNETHDRSZ, size) < 0)
          throw systemError(
            where,
            `a virtio header of ${VNET_BYTES} bytes`,
            errno(),
            'set offloads: none for this port',
          );
        offloads = setOffloads(fds[0], options.offloads);
      }
      if (options.mute) silence(name);
      const ifindex = configure(where, { ...options, name });
      return { fds, offloads, name, ifindex };
    } catch (error) {
      for (const fd of fds) close(fd);
      throw error;
    }
  });
}

/** Asks for the wanted offloads, in masks that kernels of different age accept; returns what was granted. */
function setOffloads(fd: number, wanted: number): number {
  for (const mask of OFFLOAD_MASKS) {
    let tried = mask & wanted;
    // Segmentation without checksums makes no sense to the kernel, and it takes both USO bits or none.
    if ((tried & TUN_F_CSUM) === 0) tried = 0;
    if ((tried & (TUN_F_USO4 | TUN_F_USO6)) !== (TUN_F_USO4 | TUN_F_USO6)) tried &= ~(TUN_F_USO4 | TUN_F_USO6);
    if (tried !== 0 && ioctlValue(fd, TUNSETOFFLOAD, tried) === 0) return tried;
  }
  ioctlValue(fd, TUNSETOFFLOAD, 0);
  return 0;
}

/** No IPv6 of the host's own on a device: neither addresses nor what is sent to get them. */
function silence(name: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
  } catch {
    // A kernel without IPv6, or a /proc that cannot be written to: a few solicitations then come, and are dropped.
  }
}

/** MTU, MAC, queue length and UP, through the classic interface ioctls. Returns the device's index. */
function configure(where: string, options: TapOptions): number {
  const fd = socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) throw systemError(where, 'a socket to configure it with', errno());
  try {
    const set = (request: number, what: string, argument: Uint8Array): void => {
      if (ioctlPointer(fd, request, argument) < 0) throw systemError(where, what, errno());
    };
    if (options.mac !== undefined) {
      const bytes = options.mac.split(':').map((part) => Number.parseInt(part, 16));
      const request = ifreq(options.name, 1); // ARPHRD_ETHER
      request.set(bytes, 18);
      set(SIOCSIFHWADDR, `to accept the MAC ${options.mac}`, request);
    }
    set(SIOCSIFMTU, `to accept an MTU of ${options.mtu}`, ifreq(options.name, options.mtu));
    if (options.queueLength !== undefined)
      set(SIOCSIFTXQLEN, `to queue ${options.queueLength} frames`, ifreq(options.name, options.queueLength));
    const request = ifreq(options.name, 0);
    set(SIOCGIFFLAGS, 'to tell its flags', request);
    request[16] |= 1; // IFF_UP
    set(SIOCSIFFLAGS, 'to come up', request);
    const index = ifreq(options.name, 0);
    set(SIOCGIFINDEX, 'to tell its index', index);
    return new DataView(index.buffer).getInt32(16, true);
  } finally {
    close(fd);
  }
}

/** struct ifreq: the name, and a number at byte 16. */
function ifreq(name: string, value: number): Uint8Array {
  const request = new Uint8Array(40);
  request.set(new TextEncoder().encode(name));
  new DataView(request.buffer).setInt32(16, value, true);
  return request;
}

export interface TapPortOptions {
  name: string;
  /** The port's number in the interface table. */
  number: number;
  /** This worker's queue, from openTap. */
  fd: number;
  vnetHeader: boolean;
  /** As granted by openTap. */
  offloads: number;
}

/** One queue of a TAP device, a system call a frame. */
export class TapPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters: PortCounters;
  readonly pollFd: number;
  private readonly vnetHeader: boolean;
  /** Bytes in front of each frame on the wire of this device. */
  private readonly header: number;
  private readonly offloads: number;
  private arena: Frames | null = null;
  private base = 0;
  /** Slots taken from the arena for the next read: the small one, and the large one behind it; −1 none. */
  private spare = -1;
  private spill = -1;
  /** struct iovec[2], then the place for what has no slot to go to. */
  private readonly vectors: Int32Array;
  private readonly vectorsAt: number;
  private readonly scrapAt: number;
  private readonly pieces = new Int32Array(MAX_SEGMENTS);

  /** `counters`: those of another port object whose place this one takes. */
  constructor(options: TapPortOptions, counters: PortCounters = newPortCounters()) {
    this.counters = counters;
    this.name = options.name;
    this.number = options.number;
    this.pollFd = options.fd;
    this.vnetHeader = options.vnetHeader;
    this.header = options.vnetHeader ? VNET_BYTES : 0;
    this.offloads = options.offloads;
    const memory = mapMemory(64 + LARGE_ROOM);
    this.vectors = new Int32Array(memory.buffer, 0, 8);
    this.vectorsAt = memory.base;
    this.scrapAt = memory.base + 64;
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    if (!this.linkUp) return 0;
    if (frames !== this.arena) this.adopt(frames);
    const { meta, small } = frames;
    const { header, pollFd, vectors, base } = this;
    let count = 0;
    let bytes = 0;
    let calls = 0;
    while (count < max) {
      if (this.spare < 0 && (this.spare = frames.alloc(SMALL_ROOM)) < 0) break;
      const slot = this.spare;
      const isSmall = slot < small;
      const room = (isSmall ? SMALL_ROOM : LARGE_ROOM) + header;
      const at = meta[slot * META_WORDS + META_OFF] - header;
      storeAddress(vectors, 0, base + at);
      vectors[2] = room;
      if (this.spill < 0) this.parkSpill(frames);
      calls++;
      const got = readv(pollFd, this.vectorsAt, 2);
      if (got < header) {
        if (got < 0 && this.failed(errno())) break;
        this.counters.rxErrors++;
        continue;
      }
      let taken = slot;
      if (got <= room) {
        this.spare = -1;
      } else {
        taken = this.spill;
        if (taken < 0) {
          this.counters.rxErrors++; // a super-frame, and no large slot is free
          continue;
        }
        frames.u8.copyWithin(meta[taken * META_WORDS + META_OFF] - header, at, at + room);
        this.spill = -1;
      }
      meta[taken * META_WORDS + META_LEN] = got - header;
      meta[taken * META_WORDS + META_PORT] = this.number;
      if (header !== 0) readVnetHeader(frames, taken);
      slots[count++] = taken;
      bytes += got - header;
    }
    const counters = this.counters;
    counters.rxPackets += count;
    counters.rxBytes += bytes;
    counters.syscalls += calls;
    return count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    if (frames !== this.arena) this.adopt(frames);
    const { meta } = frames;
    for (let i = 0; i < n; i++) {
      const slot = slots[i];
      const m = slot * META_WORDS;
      const gso = meta[m + META_GSO] & 0xff;
      if (!this.vnetHeader || (gso === GSO_UDP_L4 && (this.offloads & TUN_F_USO4) === 0)) {
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
    this.linkUp = true;
  }

  close(): void {
    if (this.arena !== null) this.release(this.arena);
    this.arena = null;
    this.linkUp = false;
    close(this.pollFd);
  }

  /** Sends one frame and frees its slot. */
  private send(frames: Frames, slot: number): void {
    const { header, counters } = this;
    const m = slot * META_WORDS;
    const bytes = frames.meta[m + META_LEN];
    if (this.linkUp && (header === 0 || writeVnetHeader(frames, slot))) {
      counters.syscalls++;
      const sent = write(this.pollFd, this.base + frames.meta[m + META_OFF] - header, bytes + header);
      if (sent > 0) {
        counters.txPackets++;
        counters.txBytes += bytes;
      } else counters.txErrors++; // EIO: the kernel's end is administratively down
    } else counters.txErrors++;
    frames.free(slot);
  }

  /** Cuts a super-frame for a device that cannot take it, sends the pieces and frees all. */
  private sendSegments(frames: Frames, slot: number): void {
    const count = segment(frames, slot, frames.meta[slot * META_WORDS + META_GSO] >>> 16, this.pieces);
    if (count < 0) this.counters.txErrors++;
    for (let i = 0; i < count; i++) this.send(frames, this.pieces[i]);
    frames.free(slot);
  }

  /** Takes a large slot for the tail of a long frame; without one the tail goes to the scrap place. */
  private parkSpill(frames: Frames): void {
    const slot = frames.alloc(LARGE_ROOM);
    this.spill = slot;
    const vectors = this.vectors;
    if (slot < 0) storeAddress(vectors, 4, this.scrapAt);
    else storeAddress(vectors, 4, this.base + frames.meta[slot * META_WORDS + META_OFF] + SMALL_ROOM);
    vectors[6] = LARGE_ROOM - SMALL_ROOM;
  }

  /** True when reading must stop; a device that is gone takes the link down. */
  private failed(reason: number): boolean {
    if (reason === EAGAIN) return true;
    if (reason === EINTR) return false;
    this.linkUp = false; // EBADFD, EFAULT: the device was deleted under us
    return true;
  }

  private adopt(frames: Frames): void {
    if (this.arena !== null) this.release(this.arena);
    this.arena = frames;
    this.base = arenaBase(frames);
  }

  private release(frames: Frames): void {
    if (this.spare >= 0) frames.free(this.spare);
    if (this.spill >= 0) frames.free(this.spill);
    this.spare = -1;
    this.spill = -1;
  }
}
