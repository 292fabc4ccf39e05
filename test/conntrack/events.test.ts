/** The event rings: copies in order, overflow counted and never waited for; every end of a connection reported once. */
import { expect, it } from 'vitest';
import { EVENT_DESTROY, EVENT_NEW, EVENT_TEXT, EventSink } from '../../conntrack/events.ts';
import { CT_O_SRC, CT_WORDS } from '../../conntrack/record.ts';
import { ConntrackTable } from '../../conntrack/table.ts';
import { ipv4, udp } from '../lib/build.ts';
import { HOST, Home, SERVER } from '../lib/home.ts';

function sink() {
  const table = new ConntrackTable(ConntrackTable.create(64, 1), 0);
  return { table, events: new EventSink(new SharedArrayBuffer(EventSink.bytes(1)), 0, table) };
}

function drain(events: EventSink): [number, number, number][] {
  const out: [number, number, number][] = [];
  while (events.read((type, index, words) => out.push([type, index, words[CT_O_SRC]])));
  return out;
}

it('an event holds the record as it was, not as it became', () => {
  const { table, events } = sink();
  events.listen(true);
  const at = 5 * CT_WORDS + CT_O_SRC;
  table.words[at] = 111;
  events.emit(EVENT_NEW, 5);
  table.words[at] = 222;
  events.emit(EVENT_DESTROY, 5);
  table.words[at] = 333;
  expect(drain(events)).toEqual([
    [EVENT_NEW, 5, 111],
    [EVENT_DESTROY, 5, 222],
  ]);
  expect(drain(events)).toEqual([]);
});

it('nothing is kept while nobody listens, and what came before is not heard', () => {
  const { events } = sink();
  events.emit(EVENT_NEW, 1);
  events.listen(true);
  events.emit(EVENT_NEW, 2);
  events.listen(false);
  events.emit(EVENT_NEW, 3);
  expect(drain(events).map((e) => e[1])).toEqual([2]);
  expect(events.lost).toBe(0);
});

it('a full ring loses the newest events, counts every one, and goes on when there is room', () => {
  const { events } = sink();
  events.listen(true);
  const sent = 5000;
  for (let n = 0; n < sent; n++) events.emit(EVENT_NEW, n & 63);
  const kept = drain(events);
  expect(kept.length + events.lost).toBe(sent);
  expect(events.lost).toBeGreaterThan(0);
  expect(kept.map((e) => e[1])).toEqual(kept.map((_, n) => n & 63));
  // Round and round the ring, always a little behind.
  for (let n = 0; n < 10_000; n++) {
    events.emit(EVENT_DESTROY, n & 63);
    if (n % 7 === 6) expect(drain(events).length).toBe(7);
  }
  expect(events.lost).toBe(sent - kept.length);
});

it('positions wrap after two thousand million events: the ring was written in front of its beginning', () => {
  const table = new ConntrackTable(ConntrackTable.create(64, 1), 0);
  const buffer = new SharedArrayBuffer(EventSink.bytes(1));
  new Int32Array(buffer).fill(0x7fffffff - 2, 1, 3); // WRITE and READ
  const events = new EventSink(buffer, 0, table);
  events.listen(true);
  for (let n = 0; n < 3000; n++) events.emit(EVENT_NEW, n & 63);
  const kept = drain(events);
  expect(kept.length + events.lost).toBe(3000);
  expect(kept.length).toBe(2048);
  expect(kept.map((e) => e[1])).toEqual(kept.map((_, n) => n & 63));
});

it('rings of two workers do not touch', () => {
  const table = new ConntrackTable(ConntrackTable.create(64, 1), 0);
  const buffer = new SharedArrayBuffer(EventSink.bytes(2));
  const [a, b] = [new EventSink(buffer, 0, table), new EventSink(buffer, 1, table)];
  a.listen(true);
  b.listen(true);
  for (let n = 0; n < 3000; n++) a.emit(EVENT_NEW, 1);
  b.emit(EVENT_DESTROY, 2);
  expect(drain(b).map((e) => e[1])).toEqual([2]);
  expect(new Set(drain(a).map((e) => e[1]))).toEqual(new Set([1]));
});

it('however a connection ends, it is reported once: expired at a lookup and early drop were silent', () => {
  const home = new Home({ conntrack: { max: 64 } });
  const { tables } = home.router;
  const events = new EventSink(tables.buffers.events, 0, tables.conntrack);
  events.listen(true);
  const query = (sport: number) => home.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport, dport: 53 }, 'query')));
  // Far more than the table holds: early drop ends most.
  for (let n = 0; n < 500; n++) query(2000 + n);
  // The same again later: lookups meet expired ones before the wheel does.
  tables.control[0] += 31_000;
  for (let n = 0; n < 500; n++) query(2000 + n);
  home.router.advance(120_000);
  const seen = drain(events);
  const count = (text: string) => seen.filter(([type]) => EVENT_TEXT[type] === text).length;
  const { inserted, deleted, earlyDrop } = tables.conntrack.statistics();
  expect(earlyDrop).toBeGreaterThan(100);
  expect([count('NEW'), count('DESTROY')]).toEqual([inserted, deleted]);
  expect([inserted - deleted, home.router.conntrack.count]).toEqual([0, 0]);
});
