/**
 * Live: what packet workers and their supervisor tell each other beside the tables, in shared memory.
 *
 *   0 BELL    grows when a worker has punted; the main thread waits on it (Atomics.waitAsync)
 *   1 FAULT   number + 1 of a worker that is to throw once: how tests kill one
 *   2 … 5   of the domains of the control plane, IPv4 then IPv6: BELL, as above, and BEAT, which grows with every turn
 *   16 + 8 w  of worker w: 0 STATE  1 CIRCLES through the loop (wraps)  2 SLEEPS  3 TIMEOUTS (sleeps that nobody ended)
 *             4 GONE: ports whose device is gone, or down  5 RENEW: some of its ports' devices were replaced
 *   272 + …   of worker w and port p, 6 words: 0 rx errors  1 tx errors  2 system calls
 *             3 frames that its mirror lost  4 why its mirror does not write (errno; 0: it does, or there is none)
 *             5 RENEW: its device was replaced
 *
 * CIRCLES is also the workers' quiet point for what the control plane reclaims (routes, next hops): a worker that has
 * begun a new circle, or sleeps, holds nothing that it found before.
 */
import { MAX_WORKERS } from '../conntrack/table.ts';
import { MAX_PORTS } from './interfaces.ts';

export const BELL = 0;
export const FAULT = 1;
const DOMAINS = 2;
const WORKER = 16;
const WORKER_WORDS = 8;
export const LW_STATE = 0;
export const LW_CIRCLES = 1;
export const LW_SLEEPS = 2;
export const LW_TIMEOUTS = 3;
export const LW_GONE = 4;
export const LW_RENEW = 5;
const PORT = WORKER + WORKER_WORDS * MAX_WORKERS;
const PORT_WORDS = 6;
export const LP_RX_ERRORS = 0;
export const LP_TX_ERRORS = 1;
export const LP_SYSCALLS = 2;
export const LP_MIRROR_LOST = 3;
export const LP_MIRROR_TROUBLE = 4;
export const LP_RENEW = 5;

export const WORKER_STOPPED = 0;
export const WORKER_RUNNING = 1;
export const WORKER_ASLEEP = 2;
export const WORKER_DEAD = 3;

export function createLive(): SharedArrayBuffer {
  return new SharedArrayBuffer((PORT + PORT_WORDS * MAX_PORTS * MAX_WORKERS) * 4);
}

/** Word index of the bell of a family's domain. */
export function domainBell(family: number): number {
  return DOMAINS + (family === 4 ? 0 : 2);
}

/** Word index of its count of turns. */
export function domainBeat(family: number): number {
  return domainBell(family) + 1;
}

/** Word index of worker `worker`'s words. */
export function workerAt(worker: number): number {
  return WORKER + worker * WORKER_WORDS;
}

/** Word index of what worker `worker` tells of port `port`. */
export function portAt(worker: number, port: number): number {
  return PORT + (worker * MAX_PORTS + port) * PORT_WORDS;
}
