/**
 * Trace: packets that were traced, stage by stage, and the distinct ways that packets took, with their counts, as VPP's
 * `show trace` has made them known. The workers record (dataplane/watch.ts); here it becomes text and JSON.
 */
import * as D from '../../dataplane/drop.ts';
import * as B from '../../dataplane/watch-block.ts';
import { formatAddress } from '../../dataplane/wire/address.ts';
import { translation } from '../capture/comment.ts';
import type { Config } from '../config/index.ts';
import { CTINFO, dropText, tupleText } from '../explain/words.ts';

export interface Trace {
  /** Number of the packet, and the worker that it walked through. */
  packet: number;
  worker: number;
  /** Seconds since 1970. */
  time: number;
  port: string;
  bytes: number;
  /** `tcp 192.168.1.10:4000 > 198.51.100.7:443` as received; '' when it was dropped before it was parsed. */
  flow: string;
  stages: string[];
  verdict: 'forwarded' | 'delivered' | 'held' | 'consumed' | 'dropped';
  /** What there is to say: why it was dropped, what conntrack said, how it was translated, where it went. */
  notes: string[];
}

/** One way through the path. */
export interface TracePath {
  path: string[];
  verdict: string;
  packets: number;
}

const KEPT = 1000;
const VERDICTS: Readonly<Record<number, Trace['verdict']>> = {
  [D.FORWARDED]: 'forwarded',
  [D.DELIVERED]: 'delivered',
  [D.HELD]: 'held',
  [D.CONSUMED]: 'consumed',
};

export class TraceBook {
  private readonly config: () => Config;
  private traces: Trace[] = [];
  private paths = new Map<string, TracePath>();
  /** Packets traced since `clear`; the last KEPT of them are kept whole. */
  packets = 0;

  constructor(config: () => Config) {
    this.config = config;
  }

  clear(): void {
    this.traces = [];
    this.paths = new Map();
    this.packets = 0;
  }

  /** Enters a record of a worker's. */
  add(word: (n: number) => number, port: number, worker: number): void {
    const verdict = word(B.R_VERDICT);
    const stages: string[] = [];
    for (let n = 0; n < word(B.R_COUNT); n++)
      stages.push(D.STAGES[(word(B.R_STAGES + (n >> 2)) >>> ((n & 3) << 3)) & 0xff] ?? '?');
    const at = (n: number): [number, number, number, number] => [word(n), word(n + 1), word(n + 2), word(n + 3)];
    const key = word(B.R_KEY);
    const trace: Trace = {
      packet: word(B.R_ID) >>> 0,
      worker,
      time: (word(B.R_SECONDS) >>> 0) + word(B.R_NANOS) / 1e9,
      port: this.port(port),
      bytes: word(B.R_LENGTH),
      flow: key === 0 ? '' : tupleText(key >> 8, key & 0xff, at(B.R_RSRC), at(B.R_RDST), word(B.R_RPORTS)),
      stages,
      verdict: verdict >= D.DROP ? 'dropped' : (VERDICTS[verdict] ?? 'dropped'),
      notes: this.notes(word, verdict, key),
    };
    this.packets++;
    this.traces.push(trace);
    if (this.traces.length > KEPT) this.traces.shift();
    const end = verdict >= D.DROP ? `drop ${D.reasonName(verdict - D.DROP)}` : trace.verdict;
    const name = `${stages.join(' ')} ${end}`;
    const path = this.paths.get(name);
    if (path === undefined) this.paths.set(name, { path: stages, verdict: end, packets: 1 });
    else path.packets++;
  }

  private port(number: number): string {
    return this.config().ports[number]?.name ?? 'sluice0';
  }

  private notes(word: (n: number) => number, verdict: number, key: number): string[] {
    const notes: string[] = [];
    const flags = word(B.R_FLAGS);
    if ((flags & B.RF_ENGINE) !== 0) notes.push('forwarded by the engine');
    if ((flags & B.RF_OWN) !== 0) {
      const answers = word(B.R_ANSWERS);
      notes.push(answers === 0 ? 'made by the router' : `made by the router in answer to packet ${answers >>> 0}`);
    }
    if ((flags & B.RF_RESUMED) !== 0) notes.push('had waited for its neighbour');
    const ctinfo = CTINFO[word(B.R_CTINFO) & 0xff];
    if (ctinfo !== undefined && word(B.R_CT) > 0)
      notes.push(
        `conntrack ${ctinfo}, ${word(B.R_CTINFO) >> 8 === 0 ? 'orig' : 'reply'} of connection ${word(B.R_CT) - 1}`,
      );
    if (verdict < D.DROP) notes.push(...translation(word));
    if (word(B.R_OUT) > 0 && verdict === D.FORWARDED)
      notes.push(
        `out by ${this.port(word(B.R_OUT) - 1)}, next hop ${formatAddress(key >> 8, word(B.R_NEXT), word(B.R_NEXT + 1), word(B.R_NEXT + 2), word(B.R_NEXT + 3))}`,
      );
    if (verdict >= D.DROP) notes.push(`drop ${dropText(verdict - D.DROP, word(B.R_STAGE), word(B.R_DETAIL))}`);
    return notes;
  }

  /** The ways, most used first, and the packets, oldest first. */
  json(): { packets: number; paths: TracePath[]; traces: Trace[] } {
    const paths = [...this.paths.values()].sort((a, b) => b.packets - a.packets);
    return { packets: this.packets, paths, traces: this.traces };
  }

  /** The same for people; at most `limit` packets, the last ones. */
  text(limit = 50): string {
    const { paths, traces } = this.json();
    if (this.packets === 0) return 'no packet was traced; begin with: sluice trace add STAGE PACKETS';
    const lines = [`${this.packets} packets, ${paths.length} distinct ways:`];
    for (const { path, verdict, packets } of paths)
      lines.push(`${String(packets).padStart(8)}  ${path.join(' -> ')} : ${verdict}`);
    for (const one of traces.slice(-limit)) {
      const way = one.stages.join(' -> ');
      lines.push(
        '',
        `packet ${one.packet}, ${one.port}, ${one.bytes} bytes${one.flow === '' ? '' : `, ${one.flow}`}`,
        `  ${way} : ${one.verdict}`,
      );
      lines.push(...one.notes.map((note) => `  ${note}`));
    }
    return lines.join('\n');
  }
}
