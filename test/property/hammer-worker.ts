/**
 * hammer-worker: one of the two threads that hammer a connection table (conntrack-hammer.test.ts).
 *
 * It makes, finds, ends and lets expire connections of its own, of which it knows at every moment whether they live; it
 * looks at the other's; and every few bursts it meets the other to make, and then to delete, one connection at the same
 * moment. The first thing that is wrong ends it with an error.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Aging } from '../../conntrack/aging.ts';
import * as R from '../../conntrack/record.ts';
import { type ConntrackBuffers, ConntrackTable } from '../../conntrack/table.ts';
import { Random } from '../lib/build.ts';

/** Shared words: stop, the stop that both agree on, arrivals, clock, rounds, indices of a meeting, records drained. */
export const STOP = 0;
export const LAST = 1;
export const ARRIVED = 2; // + worker
export const CLOCK = 4;
export const OPERATIONS = 5; // + worker
export const MET = 8; // + worker
export const WON = 10; // + worker
export const DRAINED = 12;
export const WORDS = 16;

export interface HammerData {
  buffers: ConntrackBuffers;
  wheels: SharedArrayBuffer;
  shared: SharedArrayBuffer;
  me: number;
  seed: number;
  /** Tuples of its own, and tuples that the main thread made and nobody ends. */
  own: number;
  permanent: number;
  /** Records that the two of them shall have in the end. */
  drain: number;
  /** False: works by itself, never meets the other, and is there to be killed. */
  meets: boolean;
}

export interface HammerResult {
  operations: number;
  created: number;
  deleted: number;
  expired: number;
  meetings: number;
  won: number;
  waited: number;
  drained: number[];
}

/** Addresses of the n-th tuple of an owner; every second one is IPv6. */
export function tupleOf(owner: number, n: number): { six: boolean; s: number[]; d: number[]; ports: number } {
  const six = (n & 1) === 1;
  const a = 0x0a000000 | (owner << 16) | n;
  return six
    ? { six, s: [0x20, 1, owner, n], d: [0x20, 2, 0, n & 3], ports: (n << 16) | 443 }
    : { six, s: [a], d: [0x0b000000 | (n & 3)], ports: (n << 16) | 443 };
}
export const keyOf = (six: boolean) => 17 | ((six ? 6 : 4) << 8);
const turn = (ports: number) => (ports << 16) | (ports >>> 16);

export function find(table: ConntrackTable, t: ReturnType<typeof tupleOf>, reply: boolean, now: number): number {
  const [s, d, ports] = reply ? [t.d, t.s, turn(t.ports)] : [t.s, t.d, t.ports];
  return t.six
    ? table.find6(s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], ports, keyOf(true), now)
    : table.find4(s[0], d[0], ports, keyOf(false), now);
}

/** Fills a private record; `replyPort`: destination port of the reply tuple, when it is translated. */
export function fill(table: ConntrackTable, index: number, t: ReturnType<typeof tupleOf>, deadline: number): void {
  const c = index * R.CT_WORDS;
  const w = table.words;
  w[c + R.CT_KEY] = keyOf(t.six);
  w[c + R.CT_O_PORTS] = t.ports;
  w[c + R.CT_R_PORTS] = turn(t.ports);
  w[c + R.CT_DEADLINE] = deadline;
  if (t.six) table.words6.set([...t.s, ...t.d, ...t.d, ...t.s], index * R.CT6_WORDS);
  else {
    w[c + R.CT_O_SRC] = w[c + R.CT_R_DST] = t.s[0];
    w[c + R.CT_O_DST] = w[c + R.CT_R_SRC] = t.d[0];
  }
}

/** Far away for a test of minutes. */
export const NEVER = 0x3fffffff;
/** Bursts between meetings, operations in a burst. */
const BURSTS = 8;
const BURST = 64;

function hammer(data: HammerData): HammerResult {
  const { me } = data;
  const shared = new Int32Array(data.shared);
  const table = new ConntrackTable(data.buffers, me);
  const aging = new Aging(table, data.wheels, me, Atomics.load(shared, CLOCK));
  const random = new Random(data.seed);
  const own = Array.from({ length: data.own }, (_, n) => ({ tuple: tupleOf(me, n), index: -1, deadline: 0 }));
  const permanent = Array.from({ length: data.permanent }, (_, n) => tupleOf(9, n));
  const result: HammerResult = {
    operations: 0,
    created: 0,
    deleted: 0,
    expired: 0,
    meetings: 0,
    won: 0,
    waited: 0,
    drained: [],
  };
  const clock = () => Atomics.load(shared, CLOCK);
  const wrong = (what: string): never => {
    throw new Error(`worker ${me}: ${what}, after ${result.operations} operations`);
  };

  const alloc = (hash: number): number => {
    const until = Date.now() + 10_000;
    for (;;) {
      const index = table.alloc(hash, clock());
      if (index >= 0) return index;
      // Deleted records rest while the other thread is not scheduled: waiting for it loses nothing.
      result.waited++;
      aging.turn(clock(), 64);
      table.quiet();
      if (Date.now() > until) wrong('no record came free in ten seconds');
    }
  };
  const insert = (index: number) => {
    aging.claim(index);
    return table.insert(index, table.hashOf(index, 0), table.hashOf(index, 1), clock());
  };

  let round = 0;
  const meet = () => {
    round++;
    Atomics.store(shared, ARRIVED + me, round);
    Atomics.notify(shared, ARRIVED + me);
    const until = Date.now() + 20_000;
    for (let spins = 0; ; spins++) {
      const there = Atomics.load(shared, ARRIVED + (me ^ 1));
      if (there >= round) return;
      table.quiet();
      if (spins > 200) Atomics.wait(shared, ARRIVED + (me ^ 1), there, 2);
      if (Date.now() > until) wrong('the other worker did not come');
    }
  };

  const step = (): void => {
    const now = clock();
    const entry = random.pick(own);
    const kind = random.int(0, 9);
    result.operations++;
    if (kind === 0) {
      if (find(table, random.pick(permanent), random.chance(0.5), now) < 0)
        wrong('a permanent connection was not found');
      return;
    }
    if (kind === 1) {
      find(table, tupleOf(me ^ 1, random.int(0, data.own - 1)), random.chance(0.5), now);
      return;
    }
    if (entry.index < 0) {
      if (find(table, entry.tuple, random.chance(0.5), now) >= 0) wrong('a connection was found that does not exist');
      entry.index = alloc(table.hash);
      entry.deadline = random.chance(0.3) ? now + random.int(1, 4000) : NEVER;
      fill(table, entry.index, entry.tuple, entry.deadline);
      if (!insert(entry.index)) wrong('a tuple of its own was taken');
      aging.add(entry.index, now);
      result.created++;
      return;
    }
    const reply = random.chance(0.5);
    const found = find(table, entry.tuple, reply, now);
    if (found !== ((entry.index << 1) | (reply ? 1 : 0))) {
      if (found >= 0) wrong(`record ${found >> 1} was found for ${entry.index}`);
      if (clock() <= entry.deadline) wrong(`a living connection was not found (${reply ? 'reply' : 'original'})`);
      entry.index = -1;
      result.expired++;
      return;
    }
    if (kind < 6) return;
    if (kind < 9) {
      if (table.delete(entry.index)) result.deleted++;
      else if (clock() <= entry.deadline) wrong('a living connection could not be deleted');
      else result.expired++;
    } else {
      table.words[entry.index * R.CT_WORDS + R.CT_DEADLINE] = now - 1;
      if (find(table, entry.tuple, reply, now) >= 0) wrong('an expired connection was found');
      result.expired++;
    }
    if (find(table, entry.tuple, false, now) >= 0) wrong('a deleted connection was found');
    entry.index = -1;
  };

  /** Both make the same connection at the same moment, then both delete it. */
  const meeting = (): void => {
    const t = tupleOf(8, round & 0xff);
    const mine = alloc(round);
    fill(table, mine, t, NEVER);
    table.clash = -1;
    meet();
    const won = insert(mine);
    let index = mine;
    if (won) aging.add(mine, clock());
    else {
      if (table.clash < 0 || (table.clash & 1) !== 0) wrong(`the loser of a clash was told ${table.clash}`);
      index = table.clash >> 1;
      table.discard(mine);
    }
    shared[MET + me] = index;
    shared[WON + me] = won ? 1 : 0;
    meet();
    if (shared[MET] !== shared[MET + 1]) wrong(`${shared[MET]} and ${shared[MET + 1]} serve one flow`);
    if (shared[WON] + shared[WON + 1] !== 1) wrong(`${shared[WON] + shared[WON + 1]} workers won one clash`);
    for (const reply of [false, true])
      if (find(table, t, reply, clock()) !== ((index << 1) | (reply ? 1 : 0))) wrong('the winner is not found');
    meet();
    const ended = table.delete(index);
    shared[WON + me] = ended ? 1 : 0;
    meet();
    if (shared[WON] + shared[WON + 1] !== 1) wrong(`${shared[WON] + shared[WON + 1]} workers deleted one connection`);
    if (find(table, t, false, clock()) >= 0) wrong('what both have deleted is found');
    result.meetings++;
    if (won) result.won++;
    if (me === 0) shared[LAST] = shared[STOP];
    meet();
  };

  table.quiet();
  for (;;) {
    for (let burst = 0; burst < BURSTS; burst++) {
      for (let n = 0; n < BURST; n++) step();
      if (me === 0) Atomics.add(shared, CLOCK, 3);
      aging.turn(clock(), 64);
      table.quiet();
      Atomics.store(shared, OPERATIONS + me, result.operations);
    }
    if (data.meets) meeting();
    if (data.meets ? shared[LAST] !== 0 : Atomics.load(shared, STOP) !== 0) break;
  }

  // Everything that lives is there, once, and can be ended; then the records come back.
  for (const entry of own) {
    if (entry.index < 0) continue;
    if (find(table, entry.tuple, true, clock()) >= 0 && table.delete(entry.index)) result.deleted++;
    else if (clock() > entry.deadline) result.expired++;
    else wrong('a living connection is missing at the end');
  }
  if (!data.meets) {
    // As a worker does that ends: an epoch that nobody leaves would keep the other one's records from coming free.
    table.offline();
    return result;
  }
  meet();
  const until = Date.now() + 10_000;
  while (Atomics.load(shared, DRAINED) < data.drain && Date.now() < until) {
    for (let index = table.alloc(0, clock()); index >= 0; index = table.alloc(0, clock())) {
      result.drained.push(index);
      Atomics.add(shared, DRAINED, 1);
    }
    aging.turn(clock(), 4096);
    table.quiet();
  }
  meet();
  return result;
}

if (parentPort !== null) parentPort.postMessage(hammer(workerData as HammerData));
