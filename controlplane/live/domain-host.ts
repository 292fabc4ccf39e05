/**
 * Domain host: the main thread's end of a domain that lives in a thread of its own (domain-worker.ts). Starts it, hands on
 * what Control says, and notices its end: by an exception, or because it has not made a turn for some time. Then Control
 * decides when it is started again.
 *
 * A thread that still loads its modules, which takes long on a busy machine, is never terminated: an addon that is
 * interrupted while it registers itself ends the whole process (`napi_throw`, SIGABRT).
 */
import { Worker } from 'node:worker_threads';
import { domainBeat, domainBell } from '../../dataplane/live.ts';
import { NeighbourTable } from '../../dataplane/neighbours.ts';
import type { Family } from '../../dataplane/wire/address.ts';
import { reasonOf } from '../reason.ts';
import type { DomainStart, FromDomain, Remote, RemoteEvents, ToDomain } from '../remote-domain.ts';
import type { DomainTask } from './domain-worker.ts';

/** A domain that makes no turn for so long, although it is asked for one, hangs (milliseconds). */
const HANG_MS = 5000;
/** Time for an orderly end, once it has loaded. */
const END_MS = 1000;
/** Time for an answer. */
const ASK_MS = 5000;

/** JavaScript made by the build, also when this file is run from source by a test. */
const FILE = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/controlplane/live/domain-worker.js', import.meta.url)
  : new URL('./domain-worker.js', import.meta.url);

/** Who waits for an answer, and what to tell him when there is none. */
interface Question {
  answer: (json: unknown) => void;
  refuse: (got: string) => void;
}

/** What does not change from one start to the next. */
export type DomainPlace = Omit<DomainTask, keyof DomainStart>;

export class DomainHost implements Remote {
  private readonly place: DomainPlace;
  private readonly events: RemoteEvents;
  private readonly patience: number;
  private readonly live: Int32Array;
  private readonly neighbours: NeighbourTable;
  private worker: Worker | null = null;
  /** Settles when the thread that was ended last is gone: only then may its rings be another's. */
  private going: Promise<void> = Promise.resolve();
  /** Counts turns: the last that was seen, and when it was another one. */
  private beat = 0;
  private beatAt = 0;
  private watchedAt = 0;
  private ready = false;
  /** Resolves when the thread has loaded its modules, or is gone. */
  private loaded: Promise<void> = Promise.resolve();
  private asked = 0;
  private readonly asking = new Map<number, Question>();

  /** @param patience milliseconds without a turn after which the domain counts as hung */
  constructor(place: DomainPlace, events: RemoteEvents, patience = HANG_MS) {
    this.patience = patience;
    this.place = place;
    this.events = events;
    this.live = new Int32Array(place.live);
    const { neighbours } = place.buffers;
    this.neighbours = new NeighbourTable(neighbours.buffer, neighbours.lead, neighbours.bytes);
  }

  get family(): Family {
    return this.place.family;
  }

  begin(start: DomainStart): Promise<void> {
    const worker = new Worker(FILE, { workerData: { ...this.place, ...start } satisfies DomainTask });
    this.worker = worker;
    this.ready = false;
    this.beatAt = performance.now();
    let reason = 'its thread ended';
    this.loaded = new Promise((resolve) => {
      // Also the last words of one that is being ended: they come before its 'exit', and its successor after that.
      worker.on('message', (message: FromDomain) => {
        if (message.kind === 'ready') {
          this.ready = true;
          // Its start may have taken longer than a turn may.
          this.beatAt = performance.now();
          resolve();
        } else this.hear(message);
      });
      worker.on('error', (error) => {
        reason = reasonOf(error);
      });
      worker.on('exit', () => {
        this.unlock();
        for (const { refuse } of [...this.asking.values()]) refuse('the end of its thread');
        resolve();
        if (this.worker !== worker) return;
        this.worker = null;
        this.events.failed(reason);
      });
    });
    return this.loaded;
  }

  end(flush: boolean): Promise<void> {
    const { worker } = this;
    if (worker !== null) {
      this.worker = null;
      this.going = this.finish(worker, flush);
    }
    return this.going;
  }

  /** Lets the domain end in order, or ends it. */
  private async finish(worker: Worker, flush: boolean): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      worker.once('exit', () => resolve());
    });
    worker.postMessage({ kind: 'end', flush } satisfies ToDomain);
    this.ring();
    await this.loaded;
    const timer = setTimeout(() => void worker.terminate(), END_MS);
    await gone;
    clearTimeout(timer);
  }

  say(message: ToDomain): void {
    this.worker?.postMessage(message);
    this.ring();
  }

  /** @throws Error when it is down, ends before it answers, or does not answer in time */
  ask(what: string, patience = ASK_MS): Promise<unknown> {
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        this.asking.delete(id);
      };
      const refuse = (got: string): void => {
        settle();
        const expected = `expected an answer within ${patience / 1000} s`;
        reject(new Error(`ipv${this.family} domain: ${expected}, got ${got}; see "sluice show domains"`));
      };
      const answer = (json: unknown): void => {
        settle();
        resolve(json);
      };
      const timer = setTimeout(() => refuse('none'), patience);
      this.asking.set(id, { answer, refuse });
      if (this.worker === null) refuse('a domain that is down');
      else this.say({ kind: 'ask', id, what });
    });
  }

  /**
   * Looks whether the domain still makes its turns, and asks for one when there was none since the last look, as it may
   * have had nothing to do. To be called every two seconds or so; twice as often after it has returned true, as then there
   * was none for half of the time that it has.
   */
  watch(): boolean {
    const now = performance.now();
    const beat = Atomics.load(this.live, domainBeat(this.family));
    // Who has not looked himself for so long (a suspended process) says nothing about others.
    const late = now - this.watchedAt > this.patience;
    this.watchedAt = now;
    if (beat !== this.beat || late || !this.ready || this.worker === null) {
      this.beat = beat;
      this.beatAt = now;
    } else if (now - this.beatAt > this.patience) {
      const { worker } = this;
      this.worker = null;
      // It fails when it is gone: only then may its place be another's.
      this.going = worker
        .terminate()
        .then(() => this.events.failed(`it has made no turn for ${this.patience / 1000} s`));
    } else {
      this.ring();
      return now - this.beatAt > this.patience / 2;
    }
    return false;
  }

  /** A lock that the thread has died with is nobody's. */
  private unlock(): void {
    this.neighbours.unlock(this.family);
  }

  private ring(): void {
    const bell = domainBell(this.family);
    Atomics.add(this.live, bell, 1);
    Atomics.notify(this.live, bell);
  }

  private hear(message: FromDomain): void {
    if (message.kind === 'answer') this.asking.get(message.id)?.answer(message.json);
    else this.events.heard(message);
  }
}
