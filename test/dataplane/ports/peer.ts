/**
 * The far end of a device in tests: a plain AF_PACKET socket in the device's namespace, frame by frame.
 */
import {
  bind,
  close,
  errno,
  errnoText,
  mapMemory,
  recv,
  send,
  setsockopt,
  socket,
} from '../../../dataplane/ports/ffi.ts';
import { inNetns } from '../../../dataplane/ports/netns.ts';

const AF_PACKET = 17;
const SOCK_RAW_NONBLOCK = 3 | 0x800 | 0x80000;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const MSG_DONTWAIT = 0x40;

const memory = mapMemory(1 << 17);
const bytes = new Uint8Array(memory.buffer);
const never = new Int32Array(new SharedArrayBuffer(4));

export class PeerSocket {
  readonly fd: number;

  constructor(netns: string, ifindex: number) {
    this.fd = inNetns(netns, () => socket(AF_PACKET, SOCK_RAW_NONBLOCK, 0));
    const address = new Uint8Array(20);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, 3); // ETH_P_ALL, network byte order
    view.setInt32(4, ifindex, true);
    setsockopt(this.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, new Uint8Array([1, 0, 0, 0]), 4);
    if (this.fd < 0 || bind(this.fd, address, 20) < 0) throw new Error(`peer socket: ${errnoText(errno())}`);
  }

  send(frame: Uint8Array): void {
    bytes.set(frame);
    if (send(this.fd, memory.base, frame.length, 0) !== frame.length) throw new Error(`send: ${errnoText(errno())}`);
  }

  /** The next frame, or null when none waits. */
  receive(): Uint8Array | null {
    const got = recv(this.fd, memory.base, 1 << 17, MSG_DONTWAIT);
    return got < 0 ? null : bytes.slice(0, got);
  }

  /** The next frame: what crosses a veth may come a while after its sender has returned. Null after ten seconds. */
  await(): Uint8Array | null {
    const end = performance.now() + 10_000;
    for (;;) {
      const frame = this.receive();
      if (frame !== null || performance.now() > end) return frame;
      Atomics.wait(never, 0, 0, 1);
    }
  }

  close(): void {
    close(this.fd);
  }
}
