/**
 * Host: a port on any device of the host through libpcap (package `cap`), and optionally the host's own IP stack
 * (package `raw-socket`). Portable and slow (0.27 Mpps; raw sockets 0.04): for machines without TAP or AF_PACKET.
 *
 * `cap` receives whole frames, and by default sends them too. With `send: 'raw'`, unicast IP packets leave through a raw
 * socket instead: the host routes them and finds the neighbour; everything else (ARP, ND, multicast, link-local) is
 * still injected as a frame. Both packages are optional, load lazily, and are bound to the main thread's event loop: a
 * second thread that loads them fails. So frames arrive by events, wait in a bounded byte queue, and rxBurst takes
 * them from there: the thread must return to its event loop now and then, and there is nothing to poll.
 *
 * Super-frames and partial checksums are segmented and completed here; the *sender's* offloads must be off, since
 * libpcap does not tell that a received checksum is partial (cap 0.2 knows no PACKET_VNET_HDR). The first frame after
 * opening is lost: libpcap judges the one ring slot that may predate the filter in user space, where `inbound` is never true.
 */
import { createRequire } from 'node:module';
import { isMainThread } from 'node:worker_threads';
import {
  FRAME_NEEDS_CSUM,
  type Frames,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../frames.ts';
import { IoError } from './ffi.ts';
import { linkState } from './links.ts';
import { inNetns } from './netns.ts';
import { newPortCounters, type Port, type PortCounters } from './port.ts';
import { completeChecksum, MAX_SEGMENTS, segment } from './segment.ts';

/** What is used of the packages; they carry no types. */
interface Cap {
  open(device: string, filter: string, queueBytes: number, buffer: Buffer): string;
  on(event: 'packet', listener: (bytes: number, truncated: boolean) => void): void;
  send(buffer: Buffer, bytes: number): void;
  close(): void;
}

interface RawSocket {
  setOption(level: number, option: number, value: Buffer, bytes: number): void;
  pauseRecv(): void;
  on(event: 'error', listener: () => void): void;
  send(buffer: Buffer, offset: number, bytes: number, address: string, done: (error: Error | null) => void): void;
  close(): void;
}

interface RawModule {
  createSocket(options: { protocol: number; addressFamily: number }): RawSocket;
  AddressFamily: { IPv4: number; IPv6: number };
  SocketLevel: { IPPROTO_IP: number };
  SocketOption: { IP_HDRINCL: number };
}

const IPPROTO_RAW = 255;
const FRAME_BYTES = 65536;
/** Frames that wait for rxBurst: bytes, a power of two. */
const QUEUE_BYTES = 1 << 21;
/** Packets that the raw socket holds back at most; it sends one per event and would queue without end. */
const MAX_PENDING = 256;

/** Handles whose open failed: the addon's destructor would crash, so they must never be collected. */
const unopened: Cap[] = [];

/** Loads an optional package; says what to do when it is not there. */
function load(name: string, where: string): unknown {
  if (!isMainThread)
    throw new IoError(
      where,
      `${name} to be loaded on the main thread`,
      'a worker thread',
      'keep host ports on the main thread',
    );
  try {
    return createRequire(import.meta.url)(name);
  } catch (error) {
    const failure = error as { code?: string; message: string };
    const missing = failure.code === 'MODULE_NOT_FOUND';
    throw new IoError(
      where,
      `the optional package "${name}"`,
      missing ? 'not installed' : failure.message.split('\n')[0],
      `run "npm install ${name}" (needs a C++ compiler${name === 'cap' ? ' and libpcap-dev' : ''}); "sluice doctor" tells what is missing`,
      failure.code ?? '',
    );
  }
}

export interface HostPortOptions {
  name: string;
  /** The port's number in the interface table. */
  number: number;
  /** Device to use, as `ip link` names it. */
  device: string;
  /** How unicast IP leaves: as a frame through libpcap, or through a raw socket and the host's routes and neighbours. */
  send: 'inject' | 'raw';
  netns?: string;
}

export class HostPort implements Port {
  readonly name: string;
  readonly number: number;
  linkUp = true;
  readonly counters: PortCounters = newPortCounters();
  /** Frames come by events of the loop. */
  readonly pollFd = -1;
  private readonly cap: Cap;
  private raw4: RawSocket | null = null;
  private raw6: RawSocket | null = null;
  private isOpen = false;
  private pending = 0;
  /** Where cap puts the frame that it has just received, and where one to be sent is put together. */
  private readonly received = Buffer.alloc(FRAME_BYTES);
  private readonly outgoing = Buffer.alloc(FRAME_BYTES);
  /** Ring of [length u32][frame, padded to 4]; head and tail count bytes and wrap at 2^31 through & QUEUE_BYTES − 1. */
  private readonly queue = new Uint8Array(QUEUE_BYTES);
  private readonly lengths = new Uint32Array(this.queue.buffer);
  private head = 0;
  private tail = 0;
  private readonly pieces = new Int32Array(MAX_SEGMENTS);

  /** Opens the device. Main thread. Errors: IoError. */
  constructor(options: HostPortOptions) {
    this.name = options.name;
    this.number = options.number;
    const where = `port ${options.name} (host)`;
    const { Cap } = load('cap', where) as { Cap: new () => Cap };
    const raw = options.send === 'raw' ? (load('raw-socket', where) as RawModule) : null;
    // Asked first, since an open that fails leaves the addon with a handle that it cannot close.
    if (linkState(options.device, options.netns ?? '').ifindex === 0)
      throw new IoError(
        where,
        `a device ${options.device}`,
        'none of that name',
        'see "ip link" for the names of this machine',
      );
    this.cap = new Cap();
    let linkType = '';
    inNetns(options.netns ?? '', () => {
      try {
        // `inbound`: without it every frame that the port sends would come back.
        linkType = this.cap.open(options.device, 'inbound', QUEUE_BYTES, this.received);
        this.isOpen = true;
        if (raw !== null) {
          this.raw4 = open(raw, raw.AddressFamily.IPv4);
          this.raw4.setOption(raw.SocketLevel.IPPROTO_IP, raw.SocketOption.IP_HDRINCL, Buffer.from([1, 0, 0, 0]), 4);
          this.raw6 = open(raw, raw.AddressFamily.IPv6);
        }
      } catch (error) {
        if (!this.isOpen) unopened.push(this.cap);
        this.close();
        throw new IoError(
          where,
          `device ${options.device} to be opened`,
          (error as Error).message.split('\n')[0],
          'run as root or grant CAP_NET_RAW',
        );
      }
    });
    if (linkType !== 'ETHERNET') {
      this.close();
      throw new IoError(where, 'an Ethernet device', linkType || 'an unknown link type', 'choose another device');
    }
    this.cap.on('packet', (bytes, truncated) => this.arrived(bytes, truncated));
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    const { meta } = frames;
    let count = 0;
    while (count < max && this.head !== this.tail) {
      const at = this.head & (QUEUE_BYTES - 1);
      const bytes = this.lengths[at >> 2];
      const slot = frames.alloc(bytes);
      if (slot < 0) break;
      const m = slot * META_WORDS;
      // The one place where views are made per frame: this port serves thousands of frames a second, not millions.
      const first = Math.min(bytes, QUEUE_BYTES - at - 4);
      frames.u8.set(this.queue.subarray(at + 4, at + 4 + first), meta[m + META_OFF]);
      if (first < bytes) frames.u8.set(this.queue.subarray(0, bytes - first), meta[m + META_OFF] + first);
      meta[m + META_LEN] = bytes;
      meta[m + META_PORT] = this.number;
      this.head = (this.head + 4 + ((bytes + 3) & ~3)) & 0x7fffffff;
      this.counters.rxPackets++;
      this.counters.rxBytes += bytes;
      slots[count++] = slot;
    }
    return count;
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    const { meta } = frames;
    for (let i = 0; i < n; i++) {
      const slot = slots[i];
      const m = slot * META_WORDS;
      if ((meta[m + META_GSO] & 0xff) !== 0) {
        const count = segment(frames, slot, meta[m + META_GSO] >>> 16, this.pieces);
        if (count < 0) this.counters.txErrors++;
        for (let piece = 0; piece < count; piece++) this.send(frames, this.pieces[piece]);
        frames.free(slot);
        continue;
      }
      if (meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) completeChecksum(frames, slot);
      this.send(frames, slot);
    }
  }

  close(): void {
    this.linkUp = false;
    if (this.isOpen) this.cap.close();
    this.isOpen = false;
    this.raw4?.close();
    this.raw6?.close();
    this.head = this.tail;
  }

  /** A frame is in `received`. */
  private arrived(bytes: number, truncated: boolean): void {
    const used = (this.tail - this.head) & 0x7fffffff;
    const padded = (bytes + 3) & ~3;
    if (truncated || used + 4 + padded > QUEUE_BYTES) {
      this.counters.rxErrors++;
      return;
    }
    const at = this.tail & (QUEUE_BYTES - 1);
    this.lengths[at >> 2] = bytes;
    const first = Math.min(bytes, QUEUE_BYTES - at - 4);
    this.queue.set(this.received.subarray(0, first), at + 4);
    if (first < bytes) this.queue.set(this.received.subarray(first, bytes), 0);
    this.tail = (this.tail + 4 + padded) & 0x7fffffff;
  }

  /** Sends one frame and frees its slot. */
  private send(frames: Frames, slot: number): void {
    const m = slot * META_WORDS;
    const off = frames.meta[m + META_OFF];
    const bytes = frames.meta[m + META_LEN];
    const { counters, outgoing } = this;
    counters.syscalls++;
    try {
      outgoing.set(frames.u8.subarray(off, off + bytes));
      const socket = this.socketFor(outgoing);
      if (socket === null) {
        this.cap.send(outgoing, bytes);
        counters.txPackets++;
        counters.txBytes += bytes;
      } else this.sendRaw(socket, bytes);
    } catch {
      counters.txErrors++; // libpcap throws where a system call would have said no: the path must not
    }
    frames.free(slot);
  }

  /** The raw socket that may send this frame's packet; null when it must go as a frame. */
  private socketFor(frame: Buffer): RawSocket | null {
    if (this.raw4 === null || (frame[0] & 1) !== 0) return null;
    const type = frame.readUInt16BE(12);
    if (type === 0x0800) return frame[30] === 169 && frame[31] === 254 ? null : this.raw4;
    // fe80::/10 needs a scope that an address in text does not have here; ff00::/8 is multicast.
    if (type === 0x86dd)
      return frame[38] === 0xff || (frame[38] === 0xfe && (frame[39] & 0xc0) === 0x80) ? null : this.raw6;
    return null;
  }

  private sendRaw(socket: RawSocket, bytes: number): void {
    const { counters } = this;
    if (this.pending >= MAX_PENDING) {
      counters.txErrors++;
      return;
    }
    // The socket keeps the buffer until the event loop gets to it.
    const packet = Buffer.from(this.outgoing.subarray(14, bytes));
    let address: string;
    if (socket === this.raw4) address = packet.subarray(16, 20).join('.');
    else {
      const words: string[] = [];
      for (let at = 24; at < 40; at += 2) words.push(packet.readUInt16BE(at).toString(16));
      address = words.join(':');
    }
    this.pending++;
    socket.send(packet, 0, packet.length, address, (error) => {
      this.pending--;
      if (error) counters.txErrors++;
      else {
        counters.txPackets++;
        counters.txBytes += bytes;
      }
    });
  }
}

/** A raw socket that only sends. */
function open(raw: RawModule, addressFamily: number): RawSocket {
  const socket = raw.createSocket({ protocol: IPPROTO_RAW, addressFamily });
  socket.pauseRecv();
  socket.on('error', () => undefined); // a refused packet is reported to its own callback
  return socket;
}
