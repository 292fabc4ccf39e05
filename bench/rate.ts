/**
 * Rate: how many frames a bed forwards of those that the generator offers, and what the workloads on devices share.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { requirements, waitFor } from '../controlplane/lab/namespace.ts';
import { type Bed, busySeconds, receivedFrames, startSender } from './bed.ts';

/** Frame lengths without FCS. IMIX: 64, 594 and 1518 bytes on the wire, 7 : 4 : 1. */
export const SMALL = [60];
export const IMIX = [60, 590, 60, 590, 60, 60, 1514, 60, 590, 60, 590, 60];

/** One measurement: the figure, and others that belong to it. */
export interface Sample {
  value: number;
  detail: Record<string, number>;
}

/** Why no lab can be had here; '' when it can. */
export function whyNot(programs: readonly string[] = []): string {
  return requirements(programs, { tun: true }).join(' | ');
}

/** Offered as fast as the generator can; counted where the server's device receives. */
export async function forwardRate(bed: Bed, lengths: number[], window: number): Promise<Sample> {
  const sender = startSender(bed, { lengths, seconds: window / 1000 + 5 });
  try {
    const before = receivedFrames(bed).packets;
    await waitFor('the first frames', () => receivedFrames(bed).packets > before + 1000 || !sender.running(), {
      timeout: 8000,
      detail: () => sender.stderr(),
    });
    await sleep(200);
    const begin = { ...receivedFrames(bed), busy: busySeconds(), time: performance.now() };
    await sleep(window);
    const end = { ...receivedFrames(bed), busy: busySeconds(), time: performance.now() };
    if (!sender.running()) throw new Error(`sender: expected it to run, got its end: ${sender.stderr().trim()}`);
    const packets = end.packets - begin.packets;
    const seconds = (end.time - begin.time) / 1000;
    return {
      value: packets / seconds,
      detail: {
        'packets-per-cpu-second': packets / Math.max(end.busy - begin.busy, 0.01),
        'bits-per-second': ((end.bytes - begin.bytes) * 8) / seconds,
      },
    };
  } finally {
    await sender.stop('SIGKILL');
  }
}
