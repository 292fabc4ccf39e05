/**
 * Links: whether the devices of a running router are there and up.
 *
 * A TAP is asked through its own descriptor, not by name: its kernel end may have been moved into another namespace (that
 * is how a lab is wired), where the router could not find it. TUNGETIFF fails once the device is deleted; TUNGETDEVNETNS
 * leads to the namespace that it is in now, and a socket opened there reads its flags. Another namespace than the router's
 * own can only be entered with CAP_SYS_ADMIN; without it a device that was moved counts as up while it exists. Other
 * devices are looked up in the router's own namespace. All of it is a few system calls per device, several times a
 * second. Source: linux/if_tun.h.
 */
import { statSync } from 'node:fs';
import { close, ioctlPointer, ioctlValue, O_CLOEXEC, socket } from '../../dataplane/ports/ffi.ts';
import { carrierChanges, linkState, NO_LINK } from '../../dataplane/ports/links.ts';
import { inNetns } from '../../dataplane/ports/netns.ts';

const TUNGETIFF = 0x800454d2;
const TUNGETDEVNETNS = 0x54e3;
const SIOCGIFFLAGS = 0x8913;
const SIOCGIFMTU = 0x8921;
const SIOCGIFHWADDR = 0x8927;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | O_CLOEXEC;
const IFF_UP = 1;
const IFF_RUNNING = 0x40;

export interface DeviceState {
  /** False: the device was deleted. */
  exists: boolean;
  /** Administratively up, with a carrier. */
  up: boolean;
  /** MAC of the kernel's end; '' unknown. */
  mac: string;
  mtu: number;
  /** How often its carrier has come or gone: tells of a flap between two looks. 0 for a TAP. */
  flaps: number;
  /** A TAP that was moved into another namespace. */
  elsewhere: boolean;
}

const GONE: DeviceState = { exists: false, up: false, mac: '', mtu: 0, flaps: 0, elsewhere: false };

/** Looks at one TAP device through a descriptor of one of its queues. */
export class TapLink {
  private readonly fd: number;
  private readonly request = new Uint8Array(40);
  private readonly view = new DataView(this.request.buffer);
  /** Socket in the namespace where the device was last; −1 none. */
  private socket = -1;
  /** Inode of the namespace that could not be entered; −1 none. */
  private closed = -1;
  private elsewhere = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  look(): DeviceState {
    const { request, view } = this;
    request.fill(0);
    if (ioctlPointer(this.fd, TUNGETIFF, request) < 0) return GONE; // EBADFD: deleted
    const name = request.slice(0, 16);
    if (!this.ask(SIOCGIFFLAGS, name)) {
      this.enter();
      if (!this.ask(SIOCGIFFLAGS, name))
        // On the move, or a kernel that does not tell: it is there, and the next look knows more.
        return { exists: true, up: this.socket < 0, mac: '', mtu: 0, flaps: 0, elsewhere: this.elsewhere };
    }
    const flags = view.getUint16(16, true);
    const up = (flags & IFF_UP) !== 0 && (flags & IFF_RUNNING) !== 0;
    const mtu = this.ask(SIOCGIFMTU, name) ? view.getInt32(16, true) : 0;
    const mac = this.ask(SIOCGIFHWADDR, name)
      ? Array.from(request.subarray(18, 24), (byte) => byte.toString(16).padStart(2, '0')).join(':')
      : '';
    return { exists: true, up, mac, mtu, flaps: 0, elsewhere: this.elsewhere };
  }

  close(): void {
    if (this.socket >= 0) close(this.socket);
    this.socket = -1;
  }

  private ask(what: number, name: Uint8Array): boolean {
    if (this.socket < 0) return false;
    this.request.fill(0);
    this.request.set(name);
    return ioctlPointer(this.socket, what, this.request) === 0;
  }

  /** Opens the socket anew, in the namespace where the device is now. */
  private enter(): void {
    this.close();
    const namespace = ioctlValue(this.fd, TUNGETDEVNETNS, 0);
    if (namespace < 0) return; // Linux before 5.2, or no CAP_NET_ADMIN
    const path = `/proc/self/fd/${namespace}`;
    const inode = statSync(path).ino;
    try {
      const home = statSync('/proc/thread-self/ns/net').ino;
      this.elsewhere = inode !== home;
      if (inode === home) this.socket = socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
      else if (inode !== this.closed) this.socket = inNetns(path, () => socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0));
    } catch {
      // It is asked several times a second: what could not be entered once is not tried again.
      this.closed = inode;
    } finally {
      close(namespace);
    }
  }
}

/** Looks at a device of the router's own namespace by its name. */
export function lookByName(device: string): DeviceState {
  const link = linkState(device);
  return link === NO_LINK
    ? GONE
    : { exists: true, up: link.up, mac: link.mac, mtu: link.mtu, flaps: carrierChanges(device), elsewhere: false };
}
