/**
 * RawSocket: a raw AF_PACKET socket on a device of a lab namespace: sends frames as they are, receives every frame
 * that arrives there (not those that leave), without blocking. packet(7).
 *
 * The kernel takes the VLAN tag out of a received frame and hands it over beside it; it is put back here. A frame
 * whose checksum is still to be computed is an error: the device's offloads must be off.
 */
import koffi from 'koffi';
import type { Lab } from '../../../controlplane/lab/namespace.ts';
import * as ffi from '../../../dataplane/ports/ffi.ts';
import { inNetns } from '../../../dataplane/ports/netns.ts';

const AF_PACKET = 17;
const SOCK_RAW_NONBLOCK_CLOEXEC = 3 | 0x80000 | 0x800;
const ETH_P_ALL_BE = 0x0300;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_AUXDATA = 8;
const PACKET_IGNORE_OUTGOING = 23;
const PACKET_MR_PROMISC = 1;
const TP_STATUS_CSUMNOTREADY = 0x08;
const TP_STATUS_VLAN_VALID = 0x10;
const TP_STATUS_VLAN_TPID_VALID = 0x40;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;

const ROOM = 0x20000;
/** One mapping for all sockets of the thread: send buffer, receive buffer, control data, struct msghdr, iovec. */
const TX = 0;
const RX = ROOM;
const CONTROL = 2 * ROOM;
const CONTROL_SIZE = 256;
const MSGHDR = 2 * ROOM + 0x200;
const IOVEC = 2 * ROOM + 0x300;

const recvmsg = koffi.load(null).func('int64_t recvmsg(int fd, uintptr_t message, int flags)') as (
  fd: number,
  message: number,
  flags: number,
) => number;

const memory = ffi.mapMemory(2 * ROOM + 0x1000);
const u8 = new Uint8Array(memory.buffer);
const view = new DataView(memory.buffer);

function setPointer(at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 0x100000000), true);
}
setPointer(IOVEC, memory.base + RX);
setPointer(IOVEC + 8, ROOM);
setPointer(MSGHDR + 16, memory.base + IOVEC);
setPointer(MSGHDR + 24, 1);
setPointer(MSGHDR + 32, memory.base + CONTROL);

export class RawSocket {
  readonly device: string;
  readonly fd: number;

  /** Errors: IoError, when the device does not exist or the process may not. */
  constructor(lab: Lab, ns: string, device: string) {
    this.device = device;
    const index = Number(lab.runSync(ns, 'cat', [`/sys/class/net/${device}/ifindex`]).stdout);
    this.fd = inNetns(ns, () => open(device, index));
  }

  /** Sends a frame. Errors: IoError with `where`. */
  send(frame: Uint8Array, where = 'frame'): void {
    if (frame.length > ROOM) throw new Error(`${where}: expected at most ${ROOM} bytes, got ${frame.length}`);
    u8.set(frame, TX);
    if (ffi.send(this.fd, memory.base + TX, frame.length, 0) >= 0) return;
    const reason = ffi.errno();
    throw ffi.systemError(`${where} into ${this.device}`, `${frame.length} bytes to be sent`, reason);
  }

  /** The next frame that waits, or null. */
  receive(): Uint8Array | null {
    setPointer(MSGHDR + 40, CONTROL_SIZE); // the kernel shortens it
    const length = recvmsg(this.fd, memory.base + MSGHDR, MSG_DONTWAIT);
    if (length < 0) {
      const reason = ffi.errno();
      if (reason === ffi.EAGAIN) return null;
      throw ffi.systemError(`raw socket on ${this.device}`, 'a frame', reason);
    }
    if (view.getInt32(MSGHDR + 48, true) & MSG_TRUNC)
      throw new Error(`raw socket on ${this.device}: expected frames of at most ${ROOM} bytes, got a longer one`);
    const frame = u8.slice(RX, RX + length);
    // struct cmsghdr: length (8), level (4), type (4); tpacket_auxdata: status@0, vlan_tci@16, vlan_tpid@18
    if (view.getUint32(MSGHDR + 40, true) < 36 || view.getInt32(CONTROL + 12, true) !== PACKET_AUXDATA) return frame;
    const status = view.getUint32(CONTROL + 16, true);
    if (status & TP_STATUS_CSUMNOTREADY)
      throw new Error(`raw socket on ${this.device}: expected complete checksums, got a partial one; switch tx off`);
    if (!(status & TP_STATUS_VLAN_VALID)) return frame;
    const tpid = status & TP_STATUS_VLAN_TPID_VALID ? view.getUint16(CONTROL + 34, true) : 0x8100;
    const tci = view.getUint16(CONTROL + 32, true);
    const tagged = new Uint8Array(length + 4);
    tagged.set(frame.subarray(0, 12));
    tagged.set([tpid >> 8, tpid, tci >> 8, tci], 12);
    tagged.set(frame.subarray(12), 16);
    return tagged;
  }

  close(): void {
    ffi.close(this.fd);
  }
}

/** The calling thread is in the device's namespace. */
function open(device: string, index: number): number {
  const where = `raw socket on ${device}`;
  // Protocol 0 until it is bound: nothing of other devices gets in.
  const fd = ffi.socket(AF_PACKET, SOCK_RAW_NONBLOCK_CLOEXEC, 0);
  if (fd < 0) throw ffi.systemError(where, 'a socket', ffi.errno());
  const address = new DataView(new ArrayBuffer(20)); // struct sockaddr_ll
  address.setUint16(0, AF_PACKET, true);
  address.setUint16(2, ETH_P_ALL_BE, true);
  address.setInt32(4, index, true);
  const membership = new DataView(new ArrayBuffer(16)); // struct packet_mreq
  membership.setInt32(0, index, true);
  membership.setUint16(4, PACKET_MR_PROMISC, true);
  const option = (level: number, name: number, value: Uint8Array) =>
    ffi.setsockopt(fd, level, name, value, value.length);
  const steps: [string, () => number][] = [
    ['PACKET_IGNORE_OUTGOING', () => option(SOL_PACKET, PACKET_IGNORE_OUTGOING, Uint8Array.of(1, 0, 0, 0))],
    ['PACKET_AUXDATA', () => option(SOL_PACKET, PACKET_AUXDATA, Uint8Array.of(1, 0, 0, 0))],
    ['a queue of 16 MiB', () => option(SOL_SOCKET, SO_RCVBUFFORCE, Uint8Array.of(0, 0, 0, 1))],
    ['to be bound', () => ffi.bind(fd, new Uint8Array(address.buffer), 20)],
    ['promiscuous mode', () => option(SOL_PACKET, PACKET_ADD_MEMBERSHIP, new Uint8Array(membership.buffer))],
  ];
  for (const [expected, step] of steps)
    if (step() < 0) {
      const reason = ffi.errno();
      ffi.close(fd);
      throw ffi.systemError(where, expected, reason);
    }
  return fd;
}
