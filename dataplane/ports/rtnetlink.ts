/**
 * rtnetlink: hears that links have changed (state, carrier, MTU, address; come, gone, moved), without asking time and again.
 *
 * A socket in the multicast group of links gets a message for every change in its network namespace. Node's event loop
 * cannot wait for such a descriptor, so the kernel says by a signal that there is something to read (O_ASYNC): no thread
 * waits, and no timer runs. The signal is SIGURG, which ends nobody who does not expect it. What a message says is not
 * looked at: whoever hears asks the devices themselves. So a socket that overflows has lost nothing, as it says so
 * (ENOBUFS), and a device that was deleted and made again is seen as what it is now.
 *
 * The kernel tells of a carrier that is lost at most once a second, for all devices of the machine (link_watch.c has one
 * list): what comes in that second may come late. So who has heard should look again for some time. Main thread only: no signal reaches a worker's loop.
 * Source: rtnetlink(7), netlink(7), fcntl(2), net/core/link_watch.c.
 */
import { constants } from 'node:os';
import { isMainThread } from 'node:worker_threads';
import { bind, close, EINTR, ENOBUFS, errno, fcntl, mapMemory, O_CLOEXEC, O_NONBLOCK, recv, socket } from './ffi.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
/** struct sockaddr_nl: family, port 0 (the kernel chooses one), groups: RTMGRP_LINK. */
const GROUP_OF_LINKS = new Uint8Array([AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);

const F_GETFL = 3;
const F_SETFL = 4;
const F_SETOWN = 8;
const F_SETSIG = 10;
const O_ASYNC = 0x2000;

/** Messages taken from one socket in a turn: whoever changes links faster is heard at the next signal. */
const MOST = 4096;

/** Where messages are read to, one after the other; what is longer is cut off. */
const SCRAP_BYTES = 64;
let scrapAt = 0;

/** Hears of links, in as many namespaces as it has sockets. */
export class LinkNews {
  private readonly heard: () => void;
  private readonly sockets = new Set<number>();
  private readonly onSignal = (): void => {
    let news = false;
    for (const fd of this.sockets) news = drain(fd) || news;
    if (news) this.heard();
  };

  /** Calls `heard`, from the event loop, when a link of one of its namespaces has changed. */
  constructor(heard: () => void) {
    this.heard = heard;
    if (scrapAt === 0) scrapAt = mapMemory(SCRAP_BYTES).base;
  }

  /**
   * Listens in the calling thread's namespace. Returns the socket, which also answers the ioctls that any socket answers
   * about devices; −1: nothing is heard from there. Who asks for states after this misses no change.
   */
  open(): number {
    if (!isMainThread) return -1;
    const fd = socket(AF_NETLINK, SOCK_RAW | O_CLOEXEC | O_NONBLOCK, NETLINK_ROUTE);
    if (fd < 0) return -1;
    if (this.sockets.size === 0) process.on('SIGURG', this.onSignal);
    this.sockets.add(fd);
    const tells =
      fcntl(fd, F_SETOWN, process.pid) === 0 &&
      fcntl(fd, F_SETSIG, constants.signals.SIGURG) === 0 &&
      fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_ASYNC) === 0 &&
      bind(fd, GROUP_OF_LINKS, GROUP_OF_LINKS.length) === 0;
    if (tells) return fd;
    this.close(fd);
    return -1;
  }

  /** Closes a socket of `open`. */
  close(fd: number): void {
    if (!this.sockets.delete(fd)) return;
    close(fd);
    if (this.sockets.size === 0) process.off('SIGURG', this.onSignal);
  }

  /** Closes all that are left. */
  dispose(): void {
    for (const fd of [...this.sockets]) this.close(fd);
  }
}

/** Takes all messages, as a new one only signals when it comes; true when there was one, or one was lost. */
function drain(fd: number): boolean {
  let news = false;
  for (let n = 0; n < MOST; n++) {
    if (recv(fd, scrapAt, SCRAP_BYTES, 0) < 0) {
      const reason = errno();
      if (reason === EINTR) continue;
      if (reason !== ENOBUFS) break;
    }
    news = true;
  }
  return news;
}
