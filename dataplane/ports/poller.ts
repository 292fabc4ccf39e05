/**
 * Poller: when a worker spins, when it sleeps, and what wakes it.
 *
 * While frames come, a worker polls its ports in a circle without asking the time. A circle in vain yields the processor:
 * who waits for it may be who sends the next frame. After SPINS of them (some microseconds each) it sleeps in ppoll over
 * the ports' descriptors and its eventfd; spinning for longer delays others on the same processor by more than the wake-up
 * that it saves. A thread in a system call can be neither terminated nor
 * interrupted by JavaScript: so every sleep ends after MAX_SLEEP_MS at the latest, and whoever wants the worker (a
 * ring that has frames for it, a stop word, the process's exit) writes its eventfd with `wake`. Most of what a wake-up
 * costs (0.2 ms) is caches gone cold, so the fewer the better: how long a worker sleeps is for what it has to do.
 *
 * Order for senders: publish first (ring, stop word), then `wake`. Order for the worker: look at its rings after wait()
 * returned. The eventfd keeps a count, so a wake before the sleep is not lost. Source: ppoll(2), eventfd(2).
 */
import { close, errno, eventfd, mapMemory, ppoll, read, sched_yield, systemError, write } from './ffi.ts';
import type { Port } from './port.ts';

/** Circles in vain before a sleep. */
export const SPINS = 4;
/** Longest sleep, milliseconds; and of a worker that has something to age, or to look for. */
export const MAX_SLEEP_MS = 2000;
export const BUSY_SLEEP_MS = 500;

const EFD_NONBLOCK_CLOEXEC = 0x800 | 0x80000;
const POLLIN = 1;
/** POLLERR, POLLHUP, POLLNVAL: the device behind the descriptor is gone. */
const POLL_GONE = 0x38;

/** What ended a sleep; a sum of these. */
export const WOKE_TIMEOUT = 0;
export const WOKE_PORT = 1;
export const WOKE_EVENT = 2;
/** A port's device is gone; its linkUp is false now. */
export const WOKE_GONE = 4;

let oneAt = 0;

/** Makes the descriptor that wakes one worker. Main thread; valid in every thread. */
export function openWaker(): number {
  const fd = eventfd(0, EFD_NONBLOCK_CLOEXEC);
  if (fd < 0) throw systemError('worker', 'an eventfd', errno(), 'raise the limit of open files (ulimit -n)');
  return fd;
}

/** Wakes the worker that sleeps on `waker`, or keeps it from its next sleep. From any thread; about 0.4 µs. */
export function wake(waker: number): void {
  if (oneAt === 0) {
    const memory = mapMemory(4096);
    new Int32Array(memory.buffer, 0, 2)[0] = 1;
    oneAt = memory.base;
  }
  write(waker, oneAt, 8);
}

export function closeWaker(waker: number): void {
  close(waker);
}

/** The sleep policy of one worker. */
export class Poller {
  /** Sleeps so far, and those that the timeout ended: idle cost and lost wake-ups show here. */
  sleeps = 0;
  timeouts = 0;
  private readonly ports: readonly Port[];
  /** Those of them that have a receive ring. */
  private readonly ringed: readonly Port[];
  private readonly waker: number;
  private idle = 0;
  /**
   * struct pollfd[] (int fd; short events; short revents): the eventfd, the ports, the receive rings; then timespec; then the
   * event count.
   */
  private readonly fds: Int32Array;
  private readonly count: number;
  private readonly time: Int32Array;
  private readonly at: number;
  private readonly timeAt: number;
  private readonly countAt: number;

  /** `waker`: from openWaker, or −1 for none. Ports with pollFd −1 are only found by spinning: keep MAX_SLEEP_MS in mind. */
  constructor(ports: readonly Port[], waker: number) {
    this.ports = ports;
    this.ringed = ports.filter((port) => (port.ringFd ?? -1) >= 0);
    this.waker = waker;
    this.count = 1 + ports.length + this.ringed.length;
    const bytes = this.count * 8;
    const aligned = (bytes + 15) & ~15;
    const memory = mapMemory(aligned + 32);
    this.fds = new Int32Array(memory.buffer, 0, this.count * 2);
    this.time = new Int32Array(memory.buffer, aligned, 4);
    this.at = memory.base;
    this.timeAt = memory.base + aligned;
    this.countAt = memory.base + aligned + 16;
    this.fds[0] = waker;
    this.fds[1] = POLLIN;
  }

  /**
   * Called once a circle with the number of frames (and ring entries) it brought; true when the worker should call
   * wait() now. It must have been a whole circle, so that nothing queued for transmission is left behind.
   */
  shouldSleep(work: number): boolean {
    if (work !== 0) {
      this.idle = 0;
      return false;
    }
    sched_yield();
    return ++this.idle > SPINS;
  }

  /**
   * Sleeps until a port is readable, the worker is woken, or `milliseconds` (at most MAX_SLEEP_MS; 0 only looks) have
   * passed. Returns WOKE_*. Spinning begins anew after a port or an event, not after a timeout.
   */
  wait(milliseconds: number): number {
    const { fds, ports, ringed, time } = this;
    for (let i = 0; i < ports.length; i++) {
      const port = ports[i];
      // A negative descriptor is skipped: one that is gone would end every sleep at once.
      fds[2 + 2 * i] = port.linkUp ? port.pollFd : -1;
      fds[3 + 2 * i] = POLLIN;
    }
    // Entries of their own: one epoll descriptor for queue and ring would not tell that the device is gone, and would stay
    // behind when a worker dies.
    for (let i = 0, at = 2 + 2 * ports.length; i < ringed.length; i++, at += 2) {
      const port = ringed[i];
      port.beforeSleep?.();
      fds[at] = port.linkUp ? (port.ringFd ?? -1) : -1;
      fds[at + 1] = POLLIN;
    }
    fds[1] = POLLIN;
    const bounded = milliseconds > MAX_SLEEP_MS ? MAX_SLEEP_MS : milliseconds < 0 ? 0 : milliseconds;
    time[0] = (bounded / 1000) | 0;
    time[2] = ((bounded % 1000) * 1e6) | 0;
    this.sleeps++;
    const ready = ppoll(this.at, this.count, this.timeAt, 0);
    if (ready <= 0) {
      this.timeouts++; // or EINTR, which is one to us
      return WOKE_TIMEOUT;
    }
    this.idle = 0;
    let why = 0;
    if (fds[1] >>> 16 !== 0) {
      read(this.waker, this.countAt, 8);
      why |= WOKE_EVENT;
    }
    for (let i = 0; i < ports.length; i++) {
      const got = fds[3 + 2 * i] >>> 16;
      if (got & POLLIN) why |= WOKE_PORT;
      if (got & POLL_GONE) {
        ports[i].linkUp = false;
        why |= WOKE_GONE;
      }
    }
    for (let i = 0, at = 3 + 2 * ports.length; i < ringed.length; i++, at += 2)
      if (fds[at] >>> 16 !== 0) why |= WOKE_PORT;
    return why;
  }
}
