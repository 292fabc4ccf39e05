/**
 * Steps: an observer that writes down the walks of a packet and of what the router makes in answer, stage by stage. What a
 * stage has looked up, found and decided, stages.ts says in words; nothing here decides anything.
 */
import * as D from '../../dataplane/drop.ts';
import { VERIFIED } from '../../dataplane/fastpath.ts';
import { type ObservedPath, Observer, OWN, RESUMED, SENT } from '../../dataplane/observe.ts';
import type * as T from '../../dataplane/tables.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import type { Config } from '../config/index.ts';
import type { Control } from '../control.ts';
import { engineState, NOT_ASKED, StageWords, type Step } from './stages.ts';
import { whereText } from './words.ts';

/** One walk: of the packet itself, or of one that the router made in answer to it. */
export interface Walk {
  kind: 'received' | 'own' | 'resumed' | 'sent';
  steps: Step[];
  verdict: number;
  /** Of a drop. */
  reason: number;
  stage: number;
  detail: number;
  /** Record of the connection, −1 none, and the packet's direction in it. */
  connection: number;
  direction: number;
  /** Of a known connection: how it stood with the engine when the packet came. */
  engine: { installed: boolean; why: string } | null;
}

/** Sentences for why the engine left a packet alone, by EX_* number. */
const EX_FOUND: readonly string[] = [
  '',
  'no entry',
  'an entry from before the last change of links, routes, NAT or filter',
  'an entry whose neighbour has changed or must be probed',
  'an exception: TCP with FIN, SYN or RST, or without ACK',
  'an exception: TTL is 1 or less',
  'an exception: longer than the egress MTU',
  'an exception: the lengths in the headers do not fit',
  'an exception: a checksum is wrong',
  'an entry that has been idle for too long',
  'an exception: the destination MAC is not the port’s',
];

export class Steps extends Observer {
  readonly walks: Walk[] = [];
  private readonly tables: T.Tables;
  private readonly control: Control;
  private readonly config: Config;
  private path: ObservedPath | null = null;
  private words: StageWords | null = null;
  private readonly stack: Walk[] = [];
  /** The packet as each open stage found it, where that stage's step belongs, and what an answer within it overwrites. */
  private readonly before: Packet[] = [];
  private readonly places: number[] = [];
  private readonly saved: [number, number][] = [];
  private engineStep: Step | null = null;

  constructor(tables: T.Tables, control: Control) {
    super();
    this.tables = tables;
    this.control = control;
    this.config = control.config;
  }

  attach(path: ObservedPath): void {
    this.path = path;
    this.words = new StageWords(this.tables, this.control, path);
    path.attach(this);
  }

  private get walkNow(): Walk | undefined {
    return this.stack[this.stack.length - 1];
  }

  override begin(_p: Packet, kind: number): void {
    const names = { [OWN]: 'own', [RESUMED]: 'resumed', [SENT]: 'sent' } as const;
    const walk: Walk = {
      kind: names[kind as 1 | 2 | 3] ?? 'received',
      steps: [],
      verdict: D.GO_ON,
      reason: -1,
      stage: 0,
      detail: 0,
      connection: -1,
      direction: 0,
      engine: null,
    };
    if (this.engineStep !== null) walk.steps.push(this.engineStep);
    this.engineStep = null;
    this.saved.push([this.tables.filter.rule, this.path?.nat.rule ?? -1]);
    this.walks.push(walk);
    this.stack.push(walk);
  }

  override engine(_slot: number, _port: number, _length: number, why: number): void {
    // The engine works beside the path here (verify): a hit is what only verify sends to the slow path.
    const hit = why === VERIFIED;
    this.engineStep = {
      stage: 'offload-lookup',
      looked_up: 'the engine’s entry for this flow',
      found: hit ? 'an entry' : (EX_FOUND[why] ?? 'none'),
      decided: hit
        ? 'the engine forwards it by itself; the stages below are what the slow path would do'
        : 'the slow path must have it',
      where: whereText(this.config, this.config.offload.where),
    };
  }

  override enter(p: Packet, stage: number): void {
    const before = new Packet();
    before.assign(p);
    this.before.push(before);
    this.places.push(this.walkNow?.steps.length ?? 0);
    this.tables.filter.rule = NOT_ASKED;
    const { nat } = this.path as ObservedPath;
    if (stage !== D.STAGE_CONNTRACK_CONFIRM) nat.rule = -1;
  }

  override leave(p: Packet, stage: number, acted: boolean, verdict: number): void {
    const before = this.before.pop() as Packet;
    const place = this.places.pop() as number;
    const walk = this.walkNow;
    if (walk === undefined) return;
    if (p.ct >= 0) {
      walk.connection = p.ct;
      walk.direction = p.dir;
      if (stage === D.STAGE_CONNTRACK_IN && p.fresh === 0) walk.engine = engineState(this.tables, p.ct);
    }
    const step =
      acted || stage === D.STAGE_FORWARD_FILTER ? (this.words as StageWords).step(p, before, stage, verdict) : null;
    // A stage may have begun another one (the router's input confirms): it stands before that.
    if (step !== null) walk.steps.splice(place, 0, { stage: D.STAGES[stage], ...step });
  }

  override dropped(p: Packet, reason: number): void {
    const walk = this.walkNow;
    if (walk === undefined) return;
    walk.reason = reason;
    walk.stage = p.stage;
    walk.detail = p.detail;
    if (p.ct >= 0 && p.fresh === 0) walk.connection = p.ct;
    else if (p.fresh !== 0) walk.connection = -1;
  }

  override ended(_p: Packet, verdict: number): void {
    const walk = this.stack.pop();
    const saved = this.saved.pop();
    if (walk === undefined || saved === undefined) return;
    walk.verdict = verdict;
    [this.tables.filter.rule, (this.path as ObservedPath).nat.rule] = saved;
  }
}
