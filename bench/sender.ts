/**
 * Sender: the traffic generator of the live workloads, a process in a namespace. Frames are made once; then sendmmsg on
 * an AF_PACKET socket sends them round and round, 64 a system call, through the device's queueing discipline as any program's.
 *
 *   node sender.js '{"device": ..., ...}'     prints {"sent": N, "seconds": S}
 *
 * It takes a core of its own while it sends as fast as it can; with a rate it sleeps between frames that are due, some
 * 70 µs at a time, for a load as constant as a thread that sleeps can make it (RFC 2544 §26.2 wants one).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { bind, errno, errnoText, mapMemory, sendmmsg, socket, storeAddress } from '../dataplane/ports/ffi.ts';
import { put16, sum } from './traffic.ts';

export interface SendTask {
  device: string;
  dstMac: number[];
  srcMac: number[];
  src: number[];
  dst: number[];
  srcPort: number;
  dstPort: number;
  /** Which of the two ports counts up from flow to flow. */
  vary: 'src' | 'dst';
  flows: number;
  /** Lengths of the frames, without FCS, taken in turn. */
  lengths: number[];
  seconds: number;
  /** Frames per second; 0: as many as there can be. */
  rate: number;
  /** Frames to send; 0: until the time is over. */
  count: number;
}

const AF_PACKET = 17;
const SOCK_RAW = 3;
const MSG_DONTWAIT = 0x40;
const BATCH = 64;
const PAUSE_MS = 0.05;
const ROOM = 1536;
const MESSAGE = 64; // struct mmsghdr
const VECTOR = 16; // struct iovec

/** Writes an Ethernet + IPv4 + UDP frame of `length` bytes at `at`. */
export function writeFrame(b: Uint8Array, at: number, length: number, task: SendTask, flow: number): void {
  const l3 = at + 14;
  const l4 = l3 + 20;
  const datagram = length - 34;
  b.fill(0, at, at + length);
  b.set(task.dstMac, at);
  b.set(task.srcMac, at + 6);
  b.set([0x08, 0, 0x45, 0], at + 12);
  put16(b, l3 + 2, length - 14);
  put16(b, l3 + 4, flow & 0xffff);
  b.set([64, 17], l3 + 8);
  b.set(task.src, l3 + 12);
  b.set(task.dst, l3 + 16);
  put16(b, l3 + 10, ~sum(b, l3, l4, 0));
  put16(b, l4, task.srcPort + (task.vary === 'src' ? flow : 0));
  put16(b, l4 + 2, task.dstPort + (task.vary === 'dst' ? flow : 0));
  put16(b, l4 + 4, datagram);
  put16(b, l4 + 6, ~sum(b, l4, l4 + datagram, sum(b, l3 + 12, l4, 17 + datagram)) || 0xffff);
}

function openSocket(device: string): number {
  const fd = socket(AF_PACKET, SOCK_RAW, 0);
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setInt32(4, Number(readFileSync(`/sys/class/net/${device}/ifindex`, 'latin1')), true);
  if (fd < 0 || bind(fd, address, 20) < 0) throw new Error(`sender: a socket on ${device}: ${errnoText(errno())}`);
  return fd;
}

/** Sleeps of this thread end when they are over, not up to 50 µs later: bursts are smaller, the load more constant. */
function sleepExactly(): void {
  try {
    writeFileSync('/proc/self/timerslack_ns', '1'); // the main thread's, in nanoseconds (proc(5), since Linux 4.6)
  } catch {
    // Then bursts are larger.
  }
}

export function sendTraffic(task: SendTask): { sent: number; seconds: number } {
  const fd = openSocket(task.device);
  // Every flow with every length, and whole batches.
  const frames = Math.ceil((task.flows * task.lengths.length) / BATCH) * BATCH;
  const memory = mapMemory(frames * (ROOM + MESSAGE + VECTOR));
  const bytes = new Uint8Array(memory.buffer);
  const words = new Int32Array(memory.buffer);
  const messages = frames * ROOM;
  const vectors = messages + frames * MESSAGE;
  for (let n = 0; n < frames; n++) {
    const length = task.lengths[n % task.lengths.length];
    writeFrame(bytes, n * ROOM, length, task, n % task.flows);
    const vector = (vectors + n * VECTOR) >> 2;
    storeAddress(words, vector, memory.base + n * ROOM);
    words[vector + 2] = length;
    const message = (messages + n * MESSAGE) >> 2;
    storeAddress(words, message + 4, memory.base + vectors + n * VECTOR);
    words[message + 6] = 1;
  }
  const idle = new Int32Array(new SharedArrayBuffer(4));
  if (task.rate > 0) sleepExactly();
  const begin = performance.now();
  let sent = 0;
  let at = 0;
  for (;;) {
    const elapsed = (performance.now() - begin) / 1000;
    if (elapsed >= task.seconds || (task.count > 0 && sent >= task.count)) break;
    let batch = Math.min(BATCH, frames - at);
    if (task.count > 0) batch = Math.min(batch, task.count - sent);
    if (task.rate > 0) {
      const due = Math.floor(elapsed * task.rate) - sent;
      if (due <= 0) {
        Atomics.wait(idle, 0, 0, PAUSE_MS);
        continue;
      }
      batch = Math.min(batch, due);
    }
    const done = sendmmsg(fd, memory.base + messages + at * MESSAGE, batch, MSG_DONTWAIT);
    // A full queue: what was refused is offered again, as a sender does that never stops.
    if (done <= 0) continue;
    sent += done;
    at = (at + done) % frames;
  }
  return { sent, seconds: (performance.now() - begin) / 1000 };
}

if (process.argv[1]?.endsWith('sender.js'))
  process.stdout.write(`${JSON.stringify(sendTraffic(JSON.parse(process.argv[2]) as SendTask))}\n`);
