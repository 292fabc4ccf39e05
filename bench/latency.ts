/**
 * Latency: what a router adds to the round trip of a small datagram while half of its own full rate goes through (RFC 1242
 * §3.8), beside the kernel's router under the same load. Subtracted is what a single cable between the two ends takes,
 * measured in between: the ends' own share, and what the machine does to all.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from '../controlplane/lab/namespace.ts';
import {
  type Bed,
  cableBed,
  compile,
  type Kind,
  kernelBed,
  prime,
  receivedFrames,
  sluiceBed,
  startSender,
} from './bed.ts';
import { forwardRate, SMALL, whyNot } from './rate.ts';
import { median, type Result, type Skipped, summarize } from './results.ts';
import type { Context, Workload } from './workload.ts';

/** Round trips, seconds. */
interface Trips {
  p50: number;
  p99: number;
}

/** The yardstick's resolution, seconds. */
const MICROSECOND = 1e-6;
/** Until the generator's own code is compiled, ms. */
const WARM_UP = 1500;
const PORT = '7';
/** Runs where fewer than asked for do. */
const FEWER_RUNS: Readonly<Record<string, number>> = { 'tap.latency': 3 };

async function answering(bed: Bed): Promise<void> {
  const echo = bed.lab.spawn(bed.server, compile('udp-ping'), ['serve', PORT]);
  await waitFor('the echo', () => echo.stdout().includes('ready'));
}

async function roundTrips(bed: Bed, count: number): Promise<Trips> {
  const done = await bed.lab.run(bed.client, compile('udp-ping'), ['ask', bed.target, PORT, String(count), '500'], {
    timeout: 60_000,
  });
  return JSON.parse(done.stdout) as Trips;
}

/** The same while `load` frames a second go through. */
async function underLoad(bed: Bed, load: number, count: number): Promise<Trips> {
  const sender = startSender(bed, { rate: load, seconds: 60 });
  try {
    const before = receivedFrames(bed).packets;
    await waitFor('the load', () => receivedFrames(bed).packets > before + 1000, { timeout: 8000 });
    await sleep(WARM_UP);
    return await roundTrips(bed, count);
  } finally {
    await sender.stop('SIGKILL');
  }
}

/** Half of the range in which the middle half of the values lies: one that strays does not widen it. */
export function halfSpread(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const quarter = Math.floor((sorted.length - 1) / 4);
  return (sorted[sorted.length - 1 - quarter] - sorted[quarter]) / 2;
}

/** What is beyond the cable's 99th percentile; less than `noise` cannot be told from nothing. */
function added(trips: readonly Trips[], base: number, noise: number): number[] {
  return trips.map(({ p99 }) => Math.max(p99 - base, noise));
}

const p50 = (trips: readonly Trips[]): number => median(trips.map((trip) => trip.p50));
const p99 = (trips: readonly Trips[]): number => median(trips.map((trip) => trip.p99));

export const latency = (name: string, kind: Kind): Workload => ({
  name,
  quick: false,
  async measure(context: Context): Promise<(Result | Skipped)[]> {
    const missing = whyNot(['gcc', 'nft']);
    if (missing !== '') return [{ name, skipped: missing }];
    const count = Math.max(200, Math.round(context.window));
    const beds: Bed[] = [];
    const set = async (make: () => Promise<Bed>): Promise<Bed> => {
      const bed = await make();
      beds.push(bed);
      await answering(bed);
      return bed;
    };
    try {
      context.progress(`${name}: setting up`);
      const cable = await set(cableBed);
      const ours = await set(() => sluiceBed(kind));
      const peer = await set(kernelBed);
      for (const bed of [ours, peer]) await prime(bed);
      // Half of what the slower side forwards: the same load for both.
      const load = Math.floor((await forwardRate(ours, SMALL, context.window / 2)).value / 2);
      const trips = new Map<Bed, Trips[]>([cable, ours, peer].map((bed) => [bed, []]));
      const runs = Math.min(FEWER_RUNS[name] ?? context.runs, context.runs);
      for (let run = 0; run < runs; run++)
        for (const [bed, list] of trips) {
          context.progress(`${name} run ${run + 1} of ${runs}, ${bed.title}`);
          list.push(bed === cable ? await roundTrips(bed, count) : await underLoad(bed, load, count));
        }
      const of = (bed: Bed): Trips[] => trips.get(bed) ?? [];
      const base = p99(of(cable));
      const noise = Math.max(MICROSECOND, halfSpread(of(cable).map((trip) => trip.p99)));
      const result = summarize({
        name,
        unit: 's',
        values: added(of(ours), base, noise),
        peer: peer.title,
        peerValues: added(of(peer), base, noise),
        note: "round trip of UDP beyond that of a cable (p99; at least half of what the cable's own middle figures differ by), at half of our own full rate; a smaller ratio is better",
        detail: {
          ...{ load, p50: p50(of(ours)), p99: p99(of(ours)), 'peer.p50': p50(of(peer)), 'peer.p99': p99(of(peer)) },
          ...{ 'cable.p50': p50(of(cable)), 'cable.p99': base, noise },
        },
      });
      // Of the medians: a pair's ratio would divide one run's noise by another's.
      return [{ ...result, ratio: result.peerValue === null ? null : result.value / result.peerValue }];
    } finally {
      for (const bed of beds) await bed.close();
    }
  },
});
