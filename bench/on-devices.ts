/**
 * Workloads on devices: tap.*, packet.*, kernel-engine.* and live.idle, each beside its peers in alternating runs. Latency has
 * a file of its own (latency.ts).
 *
 * The generator, the router and the counting share the machine's cores: a rate is what one core can forward while
 * another one generates. Beside packets per second stand packets per CPU second of the whole machine, as the kernel's
 * router does its work in the generator's context.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { findProgram } from '../controlplane/lab/namespace.ts';
import {
  type Bed,
  busySeconds,
  type Kind,
  kernelBed,
  loopBed,
  prime,
  receivedFrames,
  sluiceBed,
  startSender,
  userStackBed,
} from './bed.ts';
import { drainCost, lengthenQueue } from './drain.ts';
import { latency } from './latency.ts';
import { forwardRate, IMIX, type Sample, SMALL, whyNot } from './rate.ts';
import { median, type Result, type Skipped, summarize, type Unit } from './results.ts';
import type { Context, Workload } from './workload.ts';

interface Contest {
  name: string;
  unit: Unit;
  note: string;
  ours: () => Promise<Bed>;
  peers: { title: string; make: () => Promise<Bed>; why: () => string }[];
  prepare: (bed: Bed) => Promise<void>;
  sample: (bed: Bed, context: Context) => Promise<Sample>;
}

/** Medians of every detail over the runs. */
function medians(samples: readonly Sample[], prefix = ''): Record<string, number> {
  const keys = Object.keys(samples[0]?.detail ?? {});
  return Object.fromEntries(keys.map((key) => [`${prefix}${key}`, median(samples.map(({ detail }) => detail[key]))]));
}

/** Workloads that need not be exact, mostly as no target asks for them: the whole must stay below a quarter of an hour. */
const FEWER_RUNS: Readonly<Record<string, number>> = {
  'tap.nat44.imix': 2,
  'tap.nat44.cpu': 2,
  'kernel-engine.cpu': 3,
  'packet.nat44.64b': 2,
  'packet.nat44.tcp': 2,
  'kernel-engine.new-flows': 2,
};

/** All beds stand at the same time; their runs alternate. */
async function contest(
  one: Contest,
  context: Context,
  programs: readonly string[] = [],
): Promise<(Result | Skipped)[]> {
  const { name, unit } = one;
  const missing = whyNot(programs);
  if (missing !== '') return [{ name, skipped: missing }];
  const outcomes: (Result | Skipped)[] = [];
  const beds: Bed[] = [];
  try {
    context.progress(`${name}: setting up`);
    const ours = await one.ours();
    beds.push(ours);
    await one.prepare(ours);
    const rivals: { title: string; bed: Bed; samples: Sample[] }[] = [];
    for (const { title, make, why } of one.peers) {
      let reason = why();
      if (reason === '')
        try {
          const bed = await make();
          beds.push(bed);
          await one.prepare(bed);
          rivals.push({ title, bed, samples: [] });
        } catch (error) {
          reason = (error as Error).message;
        }
      if (reason !== '') outcomes.push({ name: `${name} against ${title}`, skipped: reason });
    }
    const samples: Sample[] = [];
    const runs = Math.min(FEWER_RUNS[name] ?? context.runs, context.runs);
    for (let run = 0; run < runs; run++) {
      context.progress(`${name} run ${run + 1} of ${runs}`);
      samples.push(await one.sample(ours, context));
      for (const rival of rivals) {
        context.progress(`${name} run ${run + 1} of ${runs}, ${rival.title}`);
        rival.samples.push(await one.sample(rival.bed, context));
      }
    }
    const values = samples.map(({ value }) => value);
    if (rivals.length === 0)
      outcomes.unshift(summarize({ name, unit, values, note: one.note, detail: medians(samples) }));
    rivals.forEach((rival, n) => {
      const peerValues = rival.samples.map(({ value }) => value);
      const detail = { ...medians(samples), ...medians(rival.samples, 'peer.') };
      outcomes.splice(n, 0, summarize({ name, unit, values, peer: rival.title, peerValues, note: one.note, detail }));
    });
    return outcomes;
  } finally {
    for (const bed of beds) await bed.close();
  }
}

const kernel = {
  title: 'Linux nftables',
  make: kernelBed,
  why: () => (findProgram('nft') === null ? 'nft is not installed' : ''),
};
const loop = {
  title: 'C read/write loop (ceiling, no NAT)',
  make: () => loopBed(),
  why: () => (findProgram('gcc') === null ? 'gcc is not installed' : ''),
};

const headerLoop = {
  ...loop,
  title: 'C read/write loop with virtio header (no NAT)',
  make: () => loopBed(true),
};

const drain: Workload = {
  name: 'tap.nat44.cpu',
  quick: false,
  measure: (context) =>
    contest(
      {
        name: 'tap.nat44.cpu',
        unit: 's',
        note: 'CPU time a frame of the thread that forwards, emptying a full queue; 64 bytes, NAT44; a smaller ratio is better',
        ours: () => sluiceBed('tap'),
        peers: [loop, headerLoop],
        prepare: async (bed) => {
          await prime(bed);
          lengthenQueue(bed);
        },
        sample: async (bed) => ({ value: await drainCost(bed), detail: {} }),
      },
      context,
    ),
};

/** Who stands beside a workload of packets, where it is not the kernel alone. */
const PEERS: Readonly<Record<string, Contest['peers']>> = {
  'tap.nat44.64b': [loop, kernel],
  'tap.nat44.64b.bpf': [loop],
};

function packets(name: string, kind: Kind, lengths: number[]): Workload {
  return {
    name,
    quick: false,
    measure: (context) =>
      contest(
        {
          name,
          unit: 'pps',
          note: 'NAT44, 1024 flows, one direction, one worker; the generator takes a core of its own',
          ours: () => sluiceBed(kind),
          peers: PEERS[name] ?? [kernel],
          prepare: prime,
          sample: (bed) => forwardRate(bed, lengths, context.window / 2),
        },
        context,
      ),
  };
}

async function iperf(bed: Bed, window: number): Promise<Sample> {
  const seconds = Math.max(1, Math.round(window / 1000));
  const busy = busySeconds();
  const done = await bed.lab.run(bed.client, 'iperf3', ['-c', bed.target, '-P', '2', '-t', String(seconds), '-J'], {
    timeout: (seconds + 10) * 1000,
  });
  const used = busySeconds() - busy;
  const report = JSON.parse(done.stdout) as { end: { sum_received: { bits_per_second: number; bytes: number } } };
  const { bits_per_second: value, bytes } = report.end.sum_received;
  return { value, detail: { 'bits-per-cpu-second': (bytes * 8) / Math.max(used, 0.01) } };
}

/** An iperf3 server, which stays for all runs. */
async function listen(bed: Bed): Promise<void> {
  bed.lab.spawn(bed.server, 'iperf3', ['-s']);
  await bed.lab.listening(bed.server, 5201);
}

function bulk(name: string, kind: Kind): Workload {
  const stack = (program: 'slirp4netns' | 'pasta') => ({
    title: program,
    make: () => userStackBed(program),
    why: () => (findProgram(program) === null ? `${program} is not installed` : ''),
  });
  return {
    name,
    quick: false,
    measure: (context) =>
      contest(
        {
          name,
          unit: 'bit/s',
          note: 'NAT44, iperf3 with two connections',
          ours: () => sluiceBed(kind),
          peers: kind === 'tap' ? [kernel, stack('slirp4netns'), stack('pasta')] : [kernel],
          prepare: listen,
          sample: (bed) => iperf(bed, context.window),
        },
        context,
        ['iperf3'],
      ),
  };
}

/**
 * CPU seconds that a process has used, the threads that it has now included: by the scheduler's own account, to the nanosecond, where the
 * kernel keeps one, as a hundredth of a second is much for a process that does nearly nothing.
 */
function processSeconds(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  if (existsSync(`${tasks}/${pid}/schedstat`)) {
    const used = (task: string): number => {
      try {
        return Number(readFileSync(`${tasks}/${task}/schedstat`, 'latin1').split(' ', 1)[0]) / 1e9;
      } catch {
        return 0; // The thread has ended since the folder was read.
      }
    };
    return readdirSync(tasks).reduce((sum, task) => sum + used(task), 0);
  }
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const idle: Workload = {
  name: 'live.idle',
  quick: false,
  async measure(context) {
    const name = 'live.idle';
    const missing = whyNot();
    if (missing !== '') return [{ name, skipped: missing }];
    // So long that a collection of garbage, of which there is one now and then, counts for what it is.
    const seconds = context.window < 2000 ? 3 : 20;
    const bed = await sluiceBed('tap');
    try {
      const pid = bed.router?.pid ?? 0;
      context.progress(`${name}: waiting until the start is over`);
      await sleep(Math.min(seconds * 1500, 15_000));
      const values: number[] = [];
      for (let run = 0; run < 1; run++) {
        context.progress(`${name} run ${run + 1}`);
        const before = processSeconds(pid);
        const begin = performance.now();
        await sleep(seconds * 1000);
        values.push((processSeconds(pid) - before) / ((performance.now() - begin) / 1000));
      }
      const note =
        'CPU seconds per second of a running router with two TAP ports and no traffic, from 15 seconds after its start on';
      return [summarize({ name, unit: 'ratio', values, note, detail: { seconds } })];
    } finally {
      await bed.close();
    }
  },
};

/** Flows of one run, each one frame; every run has a destination port of its own. */
const NEW_FLOWS = 50_000;
/** Nothing more comes when nothing has come for so long, ms. */
const QUIET = 200;

const newFlows: Workload = {
  name: 'kernel-engine.new-flows',
  quick: false,
  measure: (context) => {
    let port = 5000;
    return contest(
      {
        name: 'kernel-engine.new-flows',
        unit: 'connections/s',
        note: `${NEW_FLOWS} UDP flows of one frame each, as fast as the generator can; those that arrived, by the time they took`,
        ours: () => sluiceBed('kernel'),
        peers: [kernel],
        prepare: prime,
        sample: async (bed) => {
          const before = receivedFrames(bed).packets;
          const begin = performance.now();
          startSender(bed, { flows: NEW_FLOWS, count: NEW_FLOWS, dstPort: port++, seconds: 20 });
          let [arrived, first, last] = [0, 0, begin];
          while (arrived < NEW_FLOWS && performance.now() - last < (arrived === 0 ? 8000 : QUIET)) {
            await sleep(5);
            const now = receivedFrames(bed).packets - before;
            if (now > arrived) last = performance.now();
            if (arrived === 0 && now > 0) first = last;
            arrived = now;
          }
          return { value: (arrived * 1000) / Math.max(last - first, 5), detail: { lost: NEW_FLOWS - arrived } };
        },
      },
      context,
    );
  },
};

const kernelShare: Workload = {
  name: 'kernel-engine.cpu',
  quick: false,
  measure: (context) =>
    contest(
      {
        name: 'kernel-engine.cpu',
        unit: 'ratio',
        note: 'CPU seconds per second of the process while its programs forward as fast as the generator can',
        ours: () => sluiceBed('kernel'),
        peers: [],
        prepare: prime,
        sample: async (bed) => {
          const pid = bed.router?.pid ?? 0;
          const before = processSeconds(pid);
          const begin = performance.now();
          const { value } = await forwardRate(bed, SMALL, Math.max(context.window, 2000));
          const share = (processSeconds(pid) - before) / ((performance.now() - begin) / 1000);
          return { value: share, detail: { 'packets-per-second': value } };
        },
      },
      context,
    ),
};

export function liveWorkloads(): Workload[] {
  return [
    packets('tap.nat44.64b', 'tap', SMALL),
    packets('tap.nat44.64b.bpf', 'bpf', SMALL),
    packets('tap.nat44.imix', 'tap', IMIX),
    drain,
    bulk('tap.nat44.tcp', 'tap'),
    latency('tap.latency', 'tap'),
    packets('packet.nat44.64b', 'packet', SMALL),
    bulk('packet.nat44.tcp', 'packet'),
    idle,
    packets('kernel-engine.nat44.64b', 'kernel', SMALL),
    bulk('kernel-engine.nat44.tcp', 'kernel'),
    latency('kernel-engine.latency', 'kernel'),
    newFlows,
    kernelShare,
  ];
}
