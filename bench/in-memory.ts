/**
 * In-memory workloads: memory.* and replay.*, their sizes, runs and peers.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { freemem } from 'node:os';
import { basename, join } from 'node:path';
import type { ForwardAnswer } from './memory.ts';
import type { ReplayAnswer } from './replay.ts';
import {
  againstReference,
  median,
  type Result,
  ROOT,
  readReferences,
  type Skipped,
  summarize,
  type Unit,
} from './results.ts';
import { askPeer, type Context, child, type Workload } from './workload.ts';

const SIZES: Readonly<Record<string, number>> = { '1k': 1024, '65k': 65_536, '1m': 1_048_576, '10m': 10_000_000 };
/** What 10 million connections take: records, entries, masters. */
const BYTES_10M = 14 * 2 ** 30;
/** Workloads that no target rests on: fewer runs, so that a full bench stays below 15 minutes. */
const FEWER_RUNS: Readonly<Record<string, number>> = {
  'memory.nat44.slow.1k': 2,
  'memory.nat44.slow.1m': 2,
  'memory.ipv6.engine.1k': 2,
  'memory.ipv6.engine.1m': 3,
  'memory.workers.2': 4,
};
/** Windows of ten million connections, which take a minute to make. */
const WINDOWS_10M = 3;
const LEFT_OUT = 'in memory: no device, no system call';

/** Our runs, alternating with each peer that was named; without one, beside the reference where there is one. */
async function withPeers(
  name: string,
  unit: Unit,
  context: Context,
  runs: number,
  one: () => Promise<number[]>,
  detail: () => Record<string, number>,
  note = LEFT_OUT,
): Promise<Result[]> {
  const values: number[] = [];
  const references = readReferences().filter((reference) => reference.name === name);
  const candidates = new Set(references.map((reference) => (reference.peer.startsWith('VPP') ? 'vpp' : 'ovs')));
  const peers = [...context.peers].filter(([peer]) => candidates.has(peer as 'vpp' | 'ovs'));
  const peerValues = new Map<string, number[]>(peers.map(([peer]) => [peer, []]));
  for (let run = 0; run < runs; run++) {
    context.progress(`${name} run ${run + 1} of ${runs}`);
    const ours = await one();
    values.push(...ours);
    for (const [peer, file] of peers) {
      context.progress(`${name} run ${run + 1} of ${runs}, ${peer}`);
      const value = await askPeer(file, name);
      for (let n = 0; n < ours.length; n++) peerValues.get(peer)?.push(value);
    }
  }
  const results: Result[] = peers.map(([peer]) =>
    summarize({
      name,
      unit,
      values,
      peer: peer === 'vpp' ? 'VPP' : 'Open vSwitch',
      peerValues: peerValues.get(peer),
      note,
      detail: detail(),
    }),
  );
  const plain = summarize({ name, unit, values, note, detail: detail() });
  for (const reference of references) {
    const key = reference.peer.startsWith('VPP') ? 'vpp' : 'ovs';
    if (!context.peers.has(key)) results.push(againstReference(plain, reference));
  }
  return results.length > 0 ? results : [plain];
}

const runsOf = (name: string, context: Context): number => Math.min(FEWER_RUNS[name] ?? context.runs, context.runs);

/**
 * IPv6 and NAT44 with the engine are compared (SP5), so where both are asked for each run of the one is followed by one of the
 * other: what the machine does to one it does to both. Answers of IPv6, each with the NAT44 figure before it, until its turn.
 */
const pairs = new Map<string, { answer: ForwardAnswer; before: number }[]>();
const OWN = 'own NAT44';

function forwarding(name: string, family: 4 | 6, engine: boolean, size: string, quick: boolean): Workload {
  return {
    name,
    quick,
    async measure(context) {
      const flows = SIZES[size];
      if (size === '10m' && freemem() < BYTES_10M)
        return [{ name, skipped: `10 M connections want ${BYTES_10M / 2 ** 30} GiB of free memory` }];
      const sequences: number[] = [];
      const stills: number[] = [];
      let hugeBytes = 0;
      // Ten million connections: one process, several windows.
      const once = size === '10m';
      const windows = once ? Math.min(WINDOWS_10M, context.runs) : 1;
      const ask = (of: 4 | 6): Promise<ForwardAnswer> =>
        child<ForwardAnswer>({
          kind: 'forward',
          family: of,
          flows,
          engine,
          huge: true,
          window: context.window,
          windows,
        });
      const paired = pairs.get(name) ?? [];
      const before = paired.map((pair) => pair.before);
      const sister = `memory.ipv6.engine.${size}`;
      const follows = family === 4 && engine && context.chosen.has(sister);
      const kept: { answer: ForwardAnswer; before: number }[] = [];
      const one = async (): Promise<number[]> => {
        const answer = paired.shift()?.answer ?? (await ask(family));
        sequences.push(...answer.sequence);
        stills.push(answer.still);
        hugeBytes = answer.hugeBytes;
        if (follows && kept.length < runsOf(sister, context))
          kept.push({ answer: await ask(6), before: answer.random[0] });
        return answer.random;
      };
      if (follows) pairs.set(sister, kept);
      const detail = () => ({
        flows,
        'sequence.pps': median(sequences),
        'clock-still.pps': median(stills),
        'huge-pages.bytes': hugeBytes,
      });
      const order = 'flows in random order (in sequence: sequence.pps)';
      const note = once ? `${LEFT_OUT}; ${order}; all runs in one process` : `${LEFT_OUT}; ${order}`;
      if (before.length === 0)
        return withPeers(name, 'pps', context, once ? 1 : runsOf(name, context), one, detail, note);
      const values: number[] = [];
      while (paired.length > 0) values.push(...(await one()));
      return [summarize({ name, unit: 'pps', values, peer: OWN, peerValues: before, note, detail: detail() })];
    },
  };
}

const fresh: Workload = {
  name: 'memory.new',
  quick: false,
  measure(context) {
    const sequences: number[] = [];
    const flows = context.quick ? 200_000 : SIZES['1m'];
    const one = async (): Promise<number[]> => {
      const answer = await child<{ random: number[]; sequence: number[] }>({ kind: 'fresh', flows, huge: true });
      sequences.push(...answer.sequence);
      return answer.random;
    };
    const detail = () => ({ flows, 'sequence.connections-per-second': median(sequences) });
    const note = `${LEFT_OUT}; first packets only, empty tables whose memory is there, as a live router takes it at start; flows in random order`;
    return withPeers('memory.new', 'connections/s', context, context.runs, one, detail, note);
  },
};

const workers: Workload = {
  name: 'memory.workers.2',
  quick: false,
  async measure(context) {
    const values: Record<1 | 2, number[]> = { 1: [], 2: [] };
    const runs = runsOf('memory.workers.2', context);
    for (let run = 0; run < runs; run++)
      for (const count of [2, 1] as const) {
        context.progress(`memory.workers.2 run ${run + 1} of ${runs}, ${count} thread${count === 1 ? '' : 's'}`);
        const task = { kind: 'workers', flows: SIZES['65k'], workers: count, huge: true, window: context.window };
        values[count].push((await child<{ rate: number }>(task)).rate);
      }
    return [
      summarize({
        name: 'memory.workers.2',
        unit: 'pps',
        values: values[2],
        peer: '1 worker',
        peerValues: values[1],
        note: `${LEFT_OUT}; NAT44, engine, 65536 flows, half of them each`,
        detail: { flows: SIZES['65k'] },
      }),
    ];
  },
};

const alloc: Workload = {
  name: 'memory.alloc',
  quick: true,
  async measure(context) {
    context.progress('memory.alloc');
    const task = { kind: 'alloc', packets: context.quick ? 4_000_000 : 20_000_000, seconds: context.quick ? 1 : 60 };
    const answer = await child<{ bytes: number; packets: number; collections: number; seconds: number }>(task);
    const { packets, collections, seconds } = answer;
    return [
      summarize({
        name: 'memory.alloc',
        unit: 'bytes',
        values: [answer.bytes],
        note: 'heap growth per packet of the fast path; collections counted at full rate',
        detail: { packets, collections, seconds },
      }),
    ];
  },
};

const perConnection: Workload = {
  name: 'memory.bytes-per-connection',
  quick: true,
  async measure(context) {
    context.progress('memory.bytes-per-connection');
    const flows = context.quick ? 200_000 : SIZES['1m'];
    const runs = context.quick ? 1 : Math.min(context.runs, 2);
    const values: number[] = [];
    for (let run = 0; run < runs; run++) values.push((await child<{ bytes: number }>({ kind: 'bytes', flows })).bytes);
    const note = 'resident memory, NAT44, buckets and timers included, engine entries aside';
    return [summarize({ name: 'memory.bytes-per-connection', unit: 'bytes', values, note, detail: { flows } })];
  },
};

/** Smaller captures have too few frames for a rate. */
const SMALLEST = 6000;

/** Captures that are there: the demo's own, and those of SLUICE_CAPTURES (or the folder beside the repository). */
export function captures(): string[] {
  const folder = process.env['SLUICE_CAPTURES'] ?? join(ROOT, '..', 'shared', 'captures');
  const files = [join(ROOT, 'examples', 'demo.pcap')].filter((file) => existsSync(file));
  if (existsSync(folder))
    for (const name of readdirSync(folder).sort()) if (/\.pcap(ng)?$/.test(name)) files.push(join(folder, name));
  return files.filter((file) => statSync(file).size >= SMALLEST);
}

function replays(): Workload[] {
  return captures().map((file): Workload => {
    const name = `replay.${basename(file).replace(/\.pcap(ng)?$/, '')}`;
    return {
      name,
      quick: false,
      async measure(context): Promise<(Result | Skipped)[]> {
        context.progress(name);
        const window = Math.min(300, context.window);
        const answer = await child<ReplayAnswer>({ kind: 'replay', file, window });
        if (answer.rate === 0) return [{ name, skipped: `only ${answer.frames} of its frames can be played` }];
        const detail = { frames: answer.frames, rounds: answer.rounds };
        const note = 'one capture with both sides; reading it and the emulated far end included';
        return [summarize({ name, unit: 'pps', values: [answer.rate], note, detail })];
      },
    };
  });
}

export function memoryWorkloads(): Workload[] {
  const list: Workload[] = [];
  for (const size of ['1k', '65k', '1m', '10m'])
    list.push(forwarding(`memory.nat44.engine.${size}`, 4, true, size, size === '1k' || size === '65k'));
  for (const size of ['1k', '65k', '1m'])
    list.push(forwarding(`memory.nat44.slow.${size}`, 4, false, size, size === '65k'));
  for (const size of ['1k', '65k', '1m'])
    list.push(forwarding(`memory.ipv6.engine.${size}`, 6, true, size, size === '65k'));
  return [...list, fresh, workers, alloc, perConnection, ...replays()];
}
