/**
 * Port: where frames enter and leave a worker. Kinds: tap, packet, host, pcap, memory; wrappers: fault, mirror.
 *
 * A port object belongs to one worker (one queue of the device). Frames live in that worker's arena; a port never
 * keeps a reference to another arena. Nothing here throws on the data path: a device that fails sets `linkUp` to
 * false and reports 0 frames; the supervisor notices and tells the tables.
 */
import type { Frames } from '../frames.ts';

export interface PortCounters {
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  /** Frames that the device refused or that did not fit. */
  rxErrors: number;
  txErrors: number;
  /** System calls made, where the kind has any: what batching is judged by. */
  syscalls: number;
}

export interface Port {
  readonly name: string;
  /** The port's number in the interface table. */
  readonly number: number;
  linkUp: boolean;
  readonly counters: PortCounters;
  /** File descriptor that becomes readable when frames wait; −1 when there is none. */
  readonly pollFd: number;
  /**
   * Receives up to `max` frames into slots that it allocates from `frames` (meta filled, PORT set), writes the slot
   * numbers to `slots` from index 0 and returns how many. Never blocks.
   */
  rxBurst(frames: Frames, slots: Int32Array, max: number): number;
  /**
   * Sends the frames in slots[0 … n) in order and takes ownership of the slots: it frees each when the device is done
   * with it (at once, or at a later rxBurst/txBurst). Frames that cannot be sent are counted in txErrors and freed.
   * Partial checksums and super-frames are completed or segmented here when the device cannot take them.
   */
  txBurst(frames: Frames, slots: Int32Array, n: number): void;
  /** A second such descriptor, of a receive ring beside the queue; absent or −1 when there is none. */
  readonly ringFd?: number;
  /** Called before every sleep that `ringFd` shall end. */
  beforeSleep?(): void;
  /**
   * The descriptor stands for another device of the same name and kind now, where the one before was deleted: goes on with
   * that. Kinds whose device is on the main thread have none. Errors: IoError.
   */
  renew?(): void;
  /** Releases the device. Frames still owned are freed. */
  close(): void;
}

export function newPortCounters(): PortCounters {
  return { rxPackets: 0, rxBytes: 0, txPackets: 0, txBytes: 0, rxErrors: 0, txErrors: 0, syscalls: 0 };
}
