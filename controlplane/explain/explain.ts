/**
 * Explain: what the router would do with a packet, stage by stage, and why.
 *
 * The running state is copied (copy.ts), and the packet walks through the copy on the router's own path, observed
 * (dataplane/observe.ts, steps.ts, stages.ts). Nothing of the original changes: no counter, no connection, no timer;
 * nothing is sent.
 *
 * What a copy cannot know is what only a worker's own memory holds: fragments that wait there, packets that wait for a
 * neighbour, the rate limit of ICMP errors, and which free port or identifier the next random search will find. Several
 * frames may be explained at once, one after the other on one copy: fragments of a datagram, or a whole conversation.
 */
import { type ConntrackJson, conntrackJson, conntrackLine } from '../../conntrack/format.ts';
import { helperOf } from '../../conntrack/helpers/index.ts';
import * as D from '../../dataplane/drop.ts';
import { Frames, LARGE_ROOM, META_LEN, META_OFF, META_PORT, META_WORDS } from '../../dataplane/frames.ts';
import { IF_PARENT, IF_WORDS } from '../../dataplane/interfaces.ts';
import { ObservedPath } from '../../dataplane/observe.ts';
import type { Punt } from '../../dataplane/path.ts';
import { MemoryPort } from '../../dataplane/ports/memory.ts';
import type { Port } from '../../dataplane/ports/port.ts';
import { HOST_PORT, type Tables } from '../../dataplane/tables.ts';
import type { Config } from '../config/index.ts';
import type { Control } from '../control.ts';
import { engineOptions } from '../offload.ts';
import { copyTables } from './copy.ts';
import { type Flow, flowFrame } from './flow.ts';
import { engineState, type Step } from './stages.ts';
import { Steps, type Walk } from './steps.ts';
import { dropText, frameText } from './words.ts';

/** What explain looks at: an inline Router, or a live router's source (controlplane/show/source.ts). */
export interface ExplainSource {
  readonly tables: Tables;
  readonly control: Control;
  readonly config: Config;
}

export interface SentFrame {
  port: string;
  /** One line about it. */
  summary: string;
  /** Hexadecimal, no FCS. */
  frame: string;
}

export interface ConnectionView extends ConntrackJson {
  /** As `conntrack -L` prints it. */
  line: string;
  /** Direction of the explained packet. */
  direction: 'orig' | 'reply';
  /** Whether the engine carried it when the packet came, and why it did not. */
  engine: { installed: boolean; why: string };
}

export type VerdictName = 'forwarded' | 'dropped' | 'delivered' | 'held' | 'consumed';

export interface Explanation {
  port: string;
  summary: string;
  bytes: number;
  verdict: VerdictName;
  /** Of a drop: name, stage, a sentence, and the place in the configuration that was the cause. */
  reason?: string;
  stage?: string;
  why?: string;
  where?: string;
  stages: Step[];
  /** The router's own packets in answer: their stages. */
  answers: { verdict: VerdictName; stages: Step[] }[];
  /** What would have left, in order. */
  sent: SentFrame[];
  /** What the control plane would have been told: next hops to resolve. */
  asks: string[];
  /** The connection after the packet; null: it has none. */
  connection: ConnectionView | null;
}

export interface Explained {
  packets: Explanation[];
  /** What the copy cost. */
  copy: { milliseconds: number; connections: number };
}

const VERDICTS: Readonly<Record<number, VerdictName>> = {
  [D.FORWARDED]: 'forwarded',
  [D.DELIVERED]: 'delivered',
  [D.HELD]: 'held',
  [D.CONSUMED]: 'consumed',
};

/**
 * Explains frames (Ethernet, no FCS) received on a port, one after the other.
 * Throws RangeError for a port that there is not, or a frame that no slot holds.
 */
export function explainFrames(source: ExplainSource, port: string, frames: readonly Uint8Array[]): Explained {
  const number = portNumber(source.config, port);
  const { tables, copy } = copyOf(source);
  const packets = frames.map((frame) => ({ port: number, frame }));
  return { packets: walkAll(source, tables, packets), copy };
}

/** Explains the packet that opens a flow, or its next one when the router knows the connection. Throws RangeError. */
export function explainFlow(source: ExplainSource, flow: Flow, port?: string): Explained {
  const number = port === undefined ? -1 : portNumber(source.config, port);
  const { tables, copy } = copyOf(source);
  return { packets: walkAll(source, tables, [flowFrame(tables, source.config, flow, number)]), copy };
}

function copyOf(source: ExplainSource): { tables: Tables; copy: Explained['copy'] } {
  const started = performance.now();
  const tables = copyTables(source.tables);
  const milliseconds = Math.round((performance.now() - started) * 10) / 10;
  return { tables, copy: { milliseconds, connections: tables.conntrack.count } };
}

function portNumber(config: Config, name: string): number {
  const port = config.ports.find((one) => one.name === name);
  if (port !== undefined) return port.number;
  throw new RangeError(`port: expected one of ${config.ports.map((one) => one.name).join(', ')}, got "${name}"`);
}

function walkAll(
  source: ExplainSource,
  tables: Tables,
  packets: readonly { port: number; frame: Uint8Array }[],
): Explanation[] {
  const { config } = source;
  const frames = new Frames(512, 8);
  const memory: MemoryPort[] = [];
  const ports: (Port | null)[] = [];
  for (const port of config.ports) {
    memory[port.number] = new MemoryPort(port.name, port.number);
    ports[port.number] = port.parent >= 0 ? null : memory[port.number];
  }
  const host = tables.control[HOST_PORT] - 1;
  if (host >= 0) ports[host] = memory[host] = new MemoryPort('sluice0', host);
  const asks: string[] = [];
  const steps = new Steps(tables, source.control);
  const options = engineOptions(config.offload);
  // Verify: the engine works beside the path, so that both can be told.
  const path = new ObservedPath(tables, frames, ports, punt(config, asks), {
    seed: 1,
    shared: false,
    offload: options === null ? null : { ...options, verify: true, rate: 0, latency: 0 },
  });
  steps.attach(path);
  return packets.map(({ port, frame }) => {
    if (frame.length > LARGE_ROOM)
      throw new RangeError(`frame: expected at most ${LARGE_ROOM} bytes, got ${frame.length}`);
    const first = steps.walks.length;
    asks.length = 0;
    const slot = frames.alloc(frame.length);
    if (slot < 0)
      throw new RangeError('frames: expected fewer at once, got more than wait for a neighbour or for fragments');
    const m = slot * META_WORDS;
    frames.u8.set(frame, frames.meta[m + META_OFF]);
    frames.meta[m + META_LEN] = frame.length;
    // A VLAN port has no device: its frames come tagged by the port that carries them.
    const parent = tables.interfaces.words[port * IF_WORDS + IF_PARENT];
    frames.meta[m + META_PORT] = parent !== 0 ? parent - 1 : port;
    path.burst(Int32Array.of(slot), 1);
    path.flush();
    const sent = memory.flatMap((out) =>
      out.take().map((bytes) => ({ port: out.name, summary: frameText(bytes), frame: toHex(bytes) })),
    );
    return explanation(tables, config.ports[port].name, frame, steps.walks.slice(first), sent, [...asks]);
  });
}

function punt(config: Config, asks: string[]): Punt {
  return {
    frame: () => true,
    resolve: (port, family) => {
      asks.push(`${family === 4 ? 'ARP' : 'neighbour discovery'} asks on ${config.ports[port]?.name ?? port}`);
    },
    used: () => {},
  };
}

function explanation(
  tables: Tables,
  port: string,
  frame: Uint8Array,
  walks: readonly Walk[],
  sent: SentFrame[],
  asks: string[],
): Explanation {
  const [walk, ...others] = walks;
  const result: Explanation = {
    port,
    summary: frameText(frame),
    bytes: frame.length,
    verdict: verdictOf(walk),
    stages: walk.steps,
    answers: others.map((own) => ({ verdict: verdictOf(own), stages: own.steps })),
    sent,
    asks,
    connection: connectionView(tables, walk),
  };
  if (result.verdict === 'dropped') {
    result.reason = D.reasonName(walk.reason);
    result.stage = D.STAGES[walk.stage] ?? 'rx';
    result.why = dropText(walk.reason, walk.stage, walk.detail);
    result.where = walk.steps.findLast(({ stage }) => stage === result.stage)?.where;
  }
  return result;
}

function verdictOf(walk: Walk): VerdictName {
  return walk.verdict >= D.DROP ? 'dropped' : (VERDICTS[walk.verdict] ?? 'dropped');
}

function connectionView(tables: Tables, walk: Walk): ConnectionView | null {
  const index = walk.connection;
  const now = tables.now();
  if (index < 0 || !tables.conntrack.inUse(index, now)) return null;
  const { words, words6, doubles } = tables.conntrack;
  const helperName = (helper: number): string | undefined => helperOf(helper)?.name;
  return {
    ...conntrackJson(words, words6, doubles, index, now, { helperName }),
    line: conntrackLine(words, words6, doubles, index, now, { helperName }),
    direction: walk.direction === 0 ? 'orig' : 'reply',
    engine: walk.engine ?? engineState(tables, index),
  };
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
