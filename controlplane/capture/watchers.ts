/**
 * Watchers: the control plane's side of watching: who captures what, which packets are traced, whether stages are timed.
 *
 * It writes the watch block (dataplane/watch-block.ts), which the workers look at once a turn, and reads their rings. While nobody
 * watches, the block says OFF and the workers run their unobserved path. Captures: at most SESSIONS at once.
 */
import { STAGE_OFFLOAD_LOOKUP, STAGE_RX, STAGE_TX, STAGES } from '../../dataplane/drop.ts';
import type { RingReader } from '../../dataplane/rings.ts';
import * as B from '../../dataplane/watch-block.ts';
import type { Config } from '../config/index.ts';
import { parseFlow } from '../explain/flow.ts';
import { TraceBook } from '../trace/trace.ts';
import { CaptureSession } from './session.ts';

export interface CaptureFilter {
  /** Names; absent or empty: all. */
  ports?: readonly string[];
  /** Only what is dropped. */
  drops?: boolean;
  /** `tcp 192.168.1.10:4000 > 198.51.100.7:443`, `any` at either place; both directions, inside and outside addresses. */
  flow?: string;
  /** Only packets that this stage had to do with. */
  stage?: string;
  /** Bytes of each frame. */
  snap?: number;
}

const FILTER_KEYS: readonly string[] = ['ports', 'drops', 'flow', 'stage', 'snap'] satisfies (keyof CaptureFilter)[];

const WHOLE = 65535;
/** Stages that a hit of the engine has to do with. */
const OF_HITS: readonly number[] = [STAGE_RX, STAGE_OFFLOAD_LOOKUP, STAGE_TX];

export class Watchers {
  readonly block: SharedArrayBuffer;
  readonly traces: TraceBook;
  /**
   * Ports of whose frames somebody wants to see even those that are hits of the engine, a bit each: 0–31, 32–63. An engine
   * outside of the workers must leave them to these.
   */
  readonly wanted = new Int32Array(2);
  private readonly words: Int32Array;
  private readonly rings: readonly RingReader[];
  private readonly config: () => Config;
  private readonly changed: () => void;
  private readonly sessions: (CaptureSession | null)[] = new Array(B.SESSIONS).fill(null);

  /**
   * @param rings of the workers, in their order
   * @param changed called when the block has changed: workers that sleep must look
   */
  constructor(config: () => Config, block: SharedArrayBuffer, rings: readonly RingReader[], changed: () => void) {
    this.block = block;
    this.words = new Int32Array(block);
    this.rings = rings;
    this.config = config;
    this.changed = changed;
    this.traces = new TraceBook(config);
  }

  // --- captures --------------------------------------------------------------------------------------------------------

  /** Starts a capture. Throws RangeError for a filter that is none, or when as many run as may. */
  capture(filter: CaptureFilter = {}): CaptureSession {
    const number = this.sessions.indexOf(null);
    if (number < 0) throw new RangeError(`capture: expected at most ${B.SESSIONS} at once, got one more; end another`);
    const words = this.sessionWords(filter);
    const session = new CaptureSession(this.config(), this.rings, words[B.S_SNAP], () => {
      this.sessions[number] = null;
      Atomics.store(this.words, B.sessionAt(number) + B.S_ACTIVE, 0);
      this.publish();
    });
    this.sessions[number] = session;
    this.words.set(words, B.sessionAt(number));
    this.publish();
    return session;
  }

  private sessionWords(filter: CaptureFilter): Int32Array {
    for (const key of Object.keys(filter))
      if (!FILTER_KEYS.includes(key))
        throw new RangeError(`capture: expected ${FILTER_KEYS.join(', ')}, got ${JSON.stringify(key)}`);
    const words = new Int32Array(B.S_DPORT + 1);
    words[B.S_ACTIVE] = 1;
    for (const name of filter.ports ?? []) {
      const port = this.config().ports.find((one) => one.name === name);
      if (port === undefined)
        throw new RangeError(
          `port: expected one of ${this.config()
            .ports.map((one) => one.name)
            .join(', ')}, got "${name}"`,
        );
      words[B.S_PORTS + (port.number >> 5)] |= 1 << (port.number & 31);
    }
    words[B.S_DROPS] = filter.drops === true ? 1 : 0;
    words[B.S_STAGE] = filter.stage === undefined ? 0 : stageNumber(filter.stage) + 1;
    const snap = filter.snap ?? WHOLE;
    if (!Number.isInteger(snap) || snap < 14 || snap > WHOLE)
      throw new RangeError(`snap: expected a number of bytes from 14 to ${WHOLE}, got ${snap}`);
    words[B.S_SNAP] = snap;
    if (filter.flow === undefined) return words;
    const flow = parseFlow(filter.flow);
    words[B.S_PROTO] = flow.proto;
    words[B.S_FAMILY] = flow.family;
    words[B.S_FLOW] =
      B.FLOW_ON |
      (flow.src !== null ? B.FLOW_SRC : 0) |
      (flow.dst !== null ? B.FLOW_DST : 0) |
      (flow.sport >= 0 ? B.FLOW_SPORT : 0) |
      (flow.dport >= 0 ? B.FLOW_DPORT : 0);
    for (let n = 0; n < 4; n++) {
      words[B.S_SRC + n] = flow.src?.words[n] ?? 0;
      words[B.S_DST + n] = flow.dst?.words[n] ?? 0;
    }
    words[B.S_SPORT] = flow.sport < 0 ? 0 : ((flow.sport & 0xff) << 8) | (flow.sport >> 8);
    words[B.S_DPORT] = flow.dport < 0 ? 0 : ((flow.dport & 0xff) << 8) | (flow.dport >> 8);
    return words;
  }

  // --- traces and times --------------------------------------------------------------------------------------------------

  /** Traces the next `packets` packets that `stage` has to do with; those before stay. Throws RangeError. */
  trace(stage: string, packets: number): void {
    const number = stageNumber(stage);
    if (!Number.isInteger(packets) || packets < 1 || packets > 1_000_000)
      throw new RangeError(`trace: expected a number of packets from 1 to 1000000, got ${packets}`);
    this.words[B.TRACE_STAGE] = number + 1;
    Atomics.store(this.words, B.TRACE_LEFT, packets);
    this.publish();
  }

  /** Ends tracing and forgets what was traced. */
  clearTrace(): void {
    this.words[B.TRACE_STAGE] = 0;
    Atomics.store(this.words, B.TRACE_LEFT, 0);
    this.traces.clear();
    this.publish();
  }

  /** Packets still to be traced. */
  get tracing(): number {
    return this.words[B.TRACE_STAGE] === 0 ? 0 : Math.max(0, Atomics.load(this.words, B.TRACE_LEFT));
  }

  /** Starts (from zero) or stops timing the stages. */
  timeStages(on: boolean): void {
    if (on) for (let worker = 0; worker < this.rings.length; worker++) B.timesOf(this.block, worker).fill(0);
    this.words[B.TIMES] = on ? 1 : 0;
    this.publish();
  }

  /** What was timed last, by stage number: packets that it had to do with, packets timed, nanoseconds of these. */
  stageTimes(): { packets: number; timed: number; nanoseconds: number }[] {
    const rows = this.rings.map((_, worker) => B.timesOf(this.block, worker));
    const sum = (at: number): number => rows.reduce((all, row) => all + row[at], 0);
    return STAGES.map((_, n) => ({
      packets: sum(n),
      timed: sum(STAGES.length + n),
      nanoseconds: sum(2 * STAGES.length + n),
    }));
  }

  // --- rings -----------------------------------------------------------------------------------------------------------

  /** Takes at most `limit` records from each worker's ring. Returns how many there were. */
  drain(limit = Number.POSITIVE_INFINITY): number {
    let taken = 0;
    this.rings.forEach((ring, worker) => {
      for (let n = 0; n < limit && ring.next(); n++) {
        taken++;
        const word = (at: number): number => ring.headWord(at);
        if (ring.kind === B.WATCH_TRACE) this.traces.add(word, ring.port, worker);
        else {
          const mask = word(B.R_SESSIONS);
          const bytes = ring.bytesBehind(B.R_WORDS);
          this.sessions.forEach((session, number) => {
            if ((mask & (1 << number)) !== 0) session?.write(word, ring.port, bytes, worker);
          });
        }
        ring.release();
      }
    });
    if (taken > 0) for (const session of this.sessions) session?.wake();
    // The last packet that was wanted has come: the workers go back to their unobserved path.
    if (this.words[B.TRACE_STAGE] !== 0 && Atomics.load(this.words, B.TRACE_LEFT) <= 0) {
      this.words[B.TRACE_STAGE] = 0;
      this.publish();
    }
    return taken;
  }

  /** Tells the workers what is wanted now. */
  private publish(): void {
    let mode = B.OFF;
    const { wanted } = this;
    const traced = this.words[B.TRACE_STAGE] - 1;
    wanted.fill(OF_HITS.includes(traced) ? -1 : 0);
    for (let session = 0; session < B.SESSIONS; session++) {
      const at = B.sessionAt(session);
      if (this.words[at + B.S_ACTIVE] === 0) continue;
      const frames = this.words[at + B.S_DROPS] !== 0 ? B.DROPS : B.FRAMES;
      const stage = this.words[at + B.S_STAGE] - 1;
      mode = Math.max(mode, stage >= 0 ? B.STAGES_TOO : frames);
      if (frames === B.DROPS || (stage >= 0 && !OF_HITS.includes(stage))) continue;
      const [low, high] = [this.words[at + B.S_PORTS], this.words[at + B.S_PORTS + 1]];
      wanted[0] |= (low | high) === 0 ? -1 : low;
      wanted[1] |= (low | high) === 0 ? -1 : high;
    }
    if (this.words[B.TRACE_STAGE] !== 0 || this.words[B.TIMES] !== 0) mode = B.STAGES_TOO;
    this.words[B.MODE] = mode;
    Atomics.add(this.words, B.GENERATION, 1);
    this.changed();
  }
}

/** Number of a stage. Throws RangeError. */
function stageNumber(name: string): number {
  const number = (STAGES as readonly string[]).indexOf(name);
  if (number < 0) throw new RangeError(`stage: expected one of ${STAGES.join(', ')}, got "${name}"`);
  return number;
}
