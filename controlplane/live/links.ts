/**
 * Links: whether the devices of a running router are there and up.
 *
 * A TAP is asked through its own descriptor, not by name: its kernel end may have been moved into another namespace (that
 * is how a lab is wired), where the router could not find it. TUNGETIFF fails once the device is deleted; TUNGETDEVNETNS
 * leads to the namespace that it is in now, and a socket opened there reads its flags. Another namespace than the router's
 * own can only be entered with CAP_SYS_ADMIN; without it a device that was moved counts as up while it exists. Other
 * devices are looked up in the router's own namespace.
 *
 * When to look: LinkPace. The kernel tells of changes (rtnetlink.ts) in the router's own namespace, and in those where
 * a TAP is and that can be entered; of a TAP that was deleted in any other the packet workers hear, as their descriptor
 * breaks. So nothing is asked while nothing happens, but for a look every few seconds. Source: linux/if_tun.h.
 */
import { statSync } from 'node:fs';
import { close, ioctlPointer, ioctlValue, O_CLOEXEC, socket } from '../../dataplane/ports/ffi.ts';
import { carrierChanges, linkState, NO_LINK } from '../../dataplane/ports/links.ts';
import { inNetns } from '../../dataplane/ports/netns.ts';
import { LinkNews } from '../../dataplane/ports/rtnetlink.ts';

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

export const GONE: DeviceState = { exists: false, up: false, mac: '', mtu: 0, flaps: 0, elsewhere: false };

/** Looks at one TAP device through a descriptor of one of its queues. */
export class TapLink {
  private readonly fd: number;
  private readonly news: LinkNews | null;
  private readonly request = new Uint8Array(40);
  private readonly view = new DataView(this.request.buffer);
  /** Socket in the namespace where the device was last; −1 none. */
  private socket = -1;
  /** The socket is one of `news`. */
  private tells = false;
  /** Inode of the namespace that could not be entered; −1 none. */
  private closed = -1;
  private elsewhere = false;

  /** `news` hears of the namespace that the device is in. */
  constructor(fd: number, news: LinkNews | null = null) {
    this.fd = fd;
    this.news = news;
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
    if (this.socket >= 0) {
      if (this.tells) this.news?.close(this.socket);
      else close(this.socket);
    }
    this.socket = -1;
    this.tells = false;
  }

  /** A socket in the calling thread's namespace. */
  private open(): number {
    const fd = this.news?.open() ?? -1;
    this.tells = fd >= 0;
    return this.tells ? fd : socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
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
      else if (inode !== this.closed) this.socket = inNetns(path, () => this.open());
    } catch {
      // It is asked again and again: what could not be entered once is not tried again.
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

/** Between two looks while links change: what the kernel tells late is seen as early as without it. */
const OFTEN_MS = 200;
/** For so long after the last news: the kernel tells of a lost carrier once a second. */
const SETTLING_MS = 2000;
/** The least between two looks, however much news there is. */
const LEAST_MS = 20;
/** The most between two looks that are asked for: should news ever be lost. */
const REST_MS = 5000;

/** When to look at the devices: at once when something has changed, then often for a moment, and not at all after that. */
export class LinkPace {
  /** For sockets in other namespaces. */
  readonly news: LinkNews;
  private readonly look: () => void;
  /** True: nobody tells, so that it looks often for ever. */
  private readonly deaf: boolean;
  private timer: NodeJS.Timeout | null = null;
  private lookedAt = 0;
  private settledAt = 0;
  private ended = false;

  /** Listens in this thread's namespace, and calls `look`. */
  constructor(look: () => void) {
    this.look = look;
    this.news = new LinkNews(() => this.hear());
    this.deaf = this.news.open() < 0;
  }

  /** Something has changed, or may have. */
  hear(): void {
    if (this.ended) return;
    const now = performance.now();
    this.settledAt = now + SETTLING_MS;
    this.plan(Math.max(0, this.lookedAt + LEAST_MS - now));
  }

  /** To be called now and then: looks when nothing was heard for some time. */
  rest(): void {
    if (!this.ended && performance.now() - this.lookedAt >= REST_MS) this.lookNow();
  }

  close(): void {
    this.ended = true;
    if (this.timer !== null) clearTimeout(this.timer);
    this.news.dispose();
  }

  private plan(wait: number): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.lookNow();
      if (!this.ended && (this.deaf || this.lookedAt < this.settledAt)) this.plan(OFTEN_MS);
    }, wait);
  }

  private lookNow(): void {
    this.lookedAt = performance.now();
    this.look();
  }
}
