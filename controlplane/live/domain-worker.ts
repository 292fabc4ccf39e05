/**
 * Domain worker: a thread that holds one domain of the control plane (domain.ts) and nothing else.
 *
 *   packet workers ── punt rings, bell ──→ Domain ── inject ring, eventfd ──→ packet worker 0
 *   main thread    ── messages, bell ────→        ── messages ─────────────→ Control performs: addresses, routes, events
 *
 * Frames take the rings, decisions take messages: these are few. The address book here is a copy that follows Control's; the
 * neighbours of the family are written here and nowhere else. The thread sleeps on its bell, never in its event loop, so
 * that it can be ended at any time, also while it is busy; it counts its turns, by which the main thread sees that it lives.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { domainBeat, domainBell } from '../../dataplane/live.ts';
import { monotonic } from '../../dataplane/ports/monotonic.ts';
import { wake } from '../../dataplane/ports/poller.ts';
import {
  INJECT_OUTPUT,
  INJECT_SEND,
  PUNT_FRAME,
  PUNT_RESOLVE,
  PUNT_USED,
  RingReader,
  RingWriter,
} from '../../dataplane/rings.ts';
import { CLOCK, STOP, type TableBuffers, Tables } from '../../dataplane/tables.ts';
import type { Family } from '../../dataplane/wire/address.ts';
import { Domain, tellAll } from '../domain.ts';
import { Addresses } from '../neighbour/addresses.ts';
import type { Action, Event, Told } from '../protocol.ts';
import { strongRandom } from '../random.ts';
import type { DomainStart, FromDomain, ToDomain } from '../remote-domain.ts';

export interface DomainTask extends DomainStart {
  family: Family;
  buffers: TableBuffers;
  /** The main thread's row of the tables: nothing is counted in it here. */
  row: number;
  /** Memory of live.ts. */
  live: SharedArrayBuffer;
  /** One ring from each packet worker, one to the first of them. */
  punts: SharedArrayBuffer[];
  inject: SharedArrayBuffer;
  /** Eventfds of the packet workers. */
  wakers: number[];
  startedAt: number;
  /** Say which neighbours change: an engine outside of the tables follows them. */
  follow: boolean;
}

/** Records taken from one ring before the others and the messages have their turn. */
const PUNT_BURST = 256;
/** Longest sleep, milliseconds. */
const LONGEST_SLEEP = 10_000;

class DomainThread {
  private readonly task: DomainTask;
  private readonly tables: Tables;
  private readonly live: Int32Array;
  private readonly clock = monotonic();
  private readonly addresses = new Addresses();
  private readonly domain: Domain;
  private readonly punts: RingReader[];
  private readonly inject: RingWriter;
  private readonly changed = new Set<number>();
  /** What Control has to do, since it was told last. */
  private actions: Action[] = [];
  private neighbourEpoch: number;
  private ended = false;

  constructor(task: DomainTask) {
    this.task = task;
    const { buffers, row, family, config, kept } = task;
    this.tables = new Tables(buffers, row);
    this.tables.neighbours.owner = family;
    this.live = new Int32Array(task.live);
    this.punts = task.punts.map((ring) => new RingReader(ring));
    this.inject = new RingWriter(task.inject);
    this.moveClock();
    for (const change of task.book) this.addresses.follow(change);
    // What duplicate address detection finds out is for the book itself.
    this.addresses.changed = (change) => say({ kind: 'book', change });
    if (task.follow) this.tables.neighbours.changed = (n) => this.changed.add(n);
    const { tables, addresses } = this;
    // By the clock itself: that of the tables stands still while a turn lasts, also when the disk is slow.
    const wall = (clock: number): number => Date.now() - ((this.clock() - task.startedAt - clock) | 0);
    const log = (level: 'info' | 'warn', message: string): void => say({ kind: 'log', level, message });
    this.neighbourEpoch = tables.neighbours.epoch();
    this.domain = new Domain(family, {
      tables,
      addresses,
      config,
      quiet: false,
      random: strongRandom(),
      wall,
      log,
      kept,
    });
  }

  run(): void {
    const bell = domainBell(this.task.family);
    say({ kind: 'ready' });
    try {
      this.step({ kind: 'tick' });
      while (!this.ended && Atomics.load(this.tables.control, STOP) === 0) {
        const rung = Atomics.load(this.live, bell);
        Atomics.add(this.live, domainBeat(this.task.family), 1);
        this.moveClock();
        let work = this.hear();
        for (const ring of this.punts) work += this.drain(ring);
        const wait = this.domain.next();
        if (wait === 0) this.step({ kind: 'tick' });
        this.report();
        if (work > 0 || wait === 0) continue;
        Atomics.wait(this.live, bell, rung, wait < 0 ? LONGEST_SLEEP : Math.min(wait, LONGEST_SLEEP));
      }
      this.domain.close();
    } finally {
      // Also when it fails: what it has decided before is Control's to do.
      this.report();
    }
  }

  private moveClock(): void {
    const now = (this.clock() - this.task.startedAt) | 0;
    const { control } = this.tables;
    if (((now - control[CLOCK]) | 0) > 0) control[CLOCK] = now;
  }

  /** Steps the protocols; frames leave at once, the rest when the turn is over. */
  private step(event: Event): void {
    tellAll(event, (one) => {
      const told: Told[] = [];
      for (const protocol of this.domain.protocols)
        for (const action of protocol.step(this.tables.now(), one)) {
          if (action.kind === 'send') this.inject.bytes(INJECT_SEND, action.port, action.frame);
          else if (action.kind === 'output') {
            const scope = action.port ?? (one.kind === 'frame' ? one.port : 0);
            this.inject.bytes(INJECT_OUTPUT, scope, action.packet);
          } else {
            this.actions.push(action);
            if (action.kind === 'event') told.push(action);
          }
        }
      return told;
    });
  }

  private drain(ring: RingReader): number {
    let taken = 0;
    while (taken < PUNT_BURST && ring.next()) {
      taken++;
      const { kind, port } = ring;
      let event: Event | null = null;
      if (kind === PUNT_FRAME) {
        const frame = new Uint8Array(ring.length);
        ring.copy(frame, 0);
        event = { kind: 'frame', port, frame, etherType: ring.word(0), l3: ring.word(1) };
      } else if (kind === PUNT_RESOLVE) {
        const address = [ring.word(1), ring.word(2), ring.word(3), ring.word(4)] as const;
        event = { kind: 'resolve', port, family: ring.word(0) as Family, address };
      } else if (kind === PUNT_USED) event = { kind: 'used', neighbour: ring.word(0) };
      // Before the step: what makes the domain throw is not there again when it starts anew.
      ring.release();
      if (event !== null) this.step(event);
    }
    return taken;
  }

  private hear(): number {
    let heard = 0;
    for (let got = receiveMessageOnPort(parentPort!); got !== undefined; got = receiveMessageOnPort(parentPort!)) {
      heard++;
      this.obey(got.message as ToDomain);
    }
    return heard;
  }

  private obey(message: ToDomain): void {
    switch (message.kind) {
      case 'event':
        this.step(message.event);
        break;
      case 'book':
        this.addresses.follow(message.change);
        this.step({ kind: 'tick' });
        break;
      case 'neighbour':
        if (message.op === 'forget') this.domain.forgetNeighbour(message.port, message.words);
        else if (!this.domain.setNeighbour(message.port, message.words, message.lo, message.hi))
          say({ kind: 'log', level: 'warn', message: 'neighbors: the neighbour table is full' });
        break;
      case 'ask':
        say({ kind: 'answer', id: message.id, json: this.domain.describe(message.what) });
        break;
      case 'end':
        if (message.flush) this.domain.flush();
        this.ended = true;
        break;
      case 'fault':
        if (message.how === 'throw') throw new Error(`ipv${this.task.family}: fault injected by a test`);
        for (;;);
    }
  }

  /** Tells Control what it has to do, and wakes whom it concerns. */
  private report(): void {
    if (this.actions.length > 0) {
      say({ kind: 'actions', actions: this.actions });
      this.actions = [];
    }
    if (this.changed.size > 0) {
      say({ kind: 'neighbours', records: [...this.changed] });
      this.changed.clear();
    }
    const { wakers } = this.task;
    const epoch = this.tables.neighbours.epoch();
    if (epoch !== this.neighbourEpoch) {
      // A changed neighbour may be what a worker's held packets wait for.
      this.neighbourEpoch = epoch;
      for (const waker of wakers) wake(waker);
    } else if (this.inject.written !== 0) wake(wakers[0]);
    this.inject.written = 0;
  }
}

function say(message: FromDomain): void {
  parentPort?.postMessage(message);
}

new DomainThread(workerData as DomainTask).run();
