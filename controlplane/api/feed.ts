/**
 * Feed: what changes, to whoever listens: events of connections, links that go up and down, and a summary each second.
 *
 * Costs nothing while nobody listens: then no timer runs and the workers write no events. There is one reader of the
 * workers' event rings, this one. A listener hears of what a full ring has lost.
 */
import { EVENT_TEXT, EventSink } from '../../conntrack/events.ts';
import { type ConntrackJson, conntrackJson, type EventKind, eventLine } from '../../conntrack/format.ts';
import { helperOf } from '../../conntrack/helpers/index.ts';
import type { ShowSource } from '../show/source.ts';
import { type Summary, summarize } from './summary.ts';

/** Kinds of events that a listener may ask for. */
export const EVENT_KINDS = ['summary', 'link', 'conntrack'] as const;
export type FeedKind = (typeof EVENT_KINDS)[number];

export interface LinkEvent {
  ifname: string;
  operstate: 'UP' | 'DOWN';
}

export interface ConntrackEvent {
  type: EventKind;
  /** As `conntrack -E -o extended` prints it. */
  line: string;
  connection: ConntrackJson;
}

export type Listener = (
  kind: FeedKind | 'lost',
  data: Summary | LinkEvent | ConntrackEvent | { events: number },
) => void;

const POLL_MS = 100;
const SUMMARY_MS = 1000;
/** Events taken in one turn: the rest waits, so that a flood of new connections does not stop the control plane. */
const BURST = 2000;

export class Feed {
  private readonly source: ShowSource;
  private readonly listeners = new Map<Listener, ReadonlySet<FeedKind>>();
  private readonly sinks: EventSink[] = [];
  private timer: NodeJS.Timeout | null = null;
  private links: boolean[] = [];
  private summaryAt = 0;
  private lost = 0;

  constructor(source: ShowSource) {
    this.source = source;
  }

  /** Listeners that there are. */
  get size(): number {
    return this.listeners.size;
  }

  /** Calls `listener` with every event of these kinds, a summary at once. Returns the way out. */
  listen(kinds: readonly FeedKind[], listener: Listener): () => void {
    this.listeners.set(listener, new Set(kinds));
    this.adjust();
    if (kinds.includes('summary')) listener('summary', summarize(this.source));
    return () => {
      this.listeners.delete(listener);
      this.adjust();
    };
  }

  /** Ends everything. */
  close(): void {
    this.listeners.clear();
    this.adjust();
  }

  private wanted(kind: FeedKind): boolean {
    for (const kinds of this.listeners.values()) if (kinds.has(kind)) return true;
    return false;
  }

  /** Starts and stops what the listeners need. */
  private adjust(): void {
    const events = this.wanted('conntrack');
    if (events && this.sinks.length === 0) {
      const { tables } = this.source;
      // The last row is the main thread's: connections that the control plane ends.
      for (let row = 0; row <= tables.buffers.sizes.workers; row++) {
        const sink = new EventSink(tables.buffers.events, row, tables.conntrack);
        sink.listen(true);
        this.sinks.push(sink);
      }
      this.lost = this.lostNow();
    } else if (!events) for (const sink of this.sinks.splice(0)) sink.listen(false);
    if (this.listeners.size === 0) {
      if (this.timer !== null) clearInterval(this.timer);
      this.timer = null;
    } else if (this.timer === null) {
      this.links = this.readLinks();
      this.summaryAt = performance.now() + SUMMARY_MS;
      this.timer = setInterval(() => this.poll(), POLL_MS);
      this.timer.unref();
    }
  }

  private tell(kind: FeedKind, data: Summary | LinkEvent | ConntrackEvent): void {
    for (const [listener, kinds] of this.listeners) if (kinds.has(kind)) listener(kind, data);
  }

  private poll(): void {
    this.pollLinks();
    this.pollEvents();
    const now = performance.now();
    if (now < this.summaryAt) return;
    this.summaryAt = Math.max(now, this.summaryAt + SUMMARY_MS);
    if (this.wanted('summary')) this.tell('summary', summarize(this.source));
  }

  private readLinks(): boolean[] {
    return this.source.config.ports.map(({ number }) => this.source.tables.interfaces.isUp(number));
  }

  private pollLinks(): void {
    const now = this.readLinks();
    now.forEach((up, number) => {
      if (this.links[number] === up) return;
      this.tell('link', { ifname: this.source.config.ports[number].name, operstate: up ? 'UP' : 'DOWN' });
    });
    this.links = now;
  }

  private pollEvents(): void {
    const now = this.source.tables.now();
    const helperName = (helper: number): string | undefined => helperOf(helper)?.name;
    const use = (type: number, index: number, words: Int32Array, words6: Int32Array): void => {
      const f64 = new Float64Array(words.buffer, words.byteOffset, words.length / 2);
      const kind = EVENT_TEXT[type] as EventKind;
      const connection = conntrackJson(words, words6, f64, 0, now, { helperName });
      const line = eventLine(kind, words, words6, f64, 0, now, { extended: true, helperName });
      this.tell('conntrack', { type: kind, line, connection: { ...connection, id: index } });
    };
    for (const sink of this.sinks) for (let n = 0; n < BURST && sink.read(use); n++);
    const lost = this.lostNow();
    if (lost !== this.lost)
      for (const [listener, kinds] of this.listeners)
        if (kinds.has('conntrack')) listener('lost', { events: lost - this.lost });
    this.lost = lost;
  }

  private lostNow(): number {
    return this.sinks.reduce((sum, sink) => sum + sink.lost, 0);
  }
}
