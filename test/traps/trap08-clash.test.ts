/**
 * Trap 8. Two workers make the same connection in the same microsecond (parallel A and AAAA queries from one socket): one
 * wins, neither packet is lost, and both leave with the same translation. The second worker runs its whole walk between
 * the moment the first has looked and the moment it confirms.
 */
import { describe, expect, it } from 'vitest';
import { Frames } from '../../dataplane/frames.ts';
import { Path } from '../../dataplane/path.ts';
import { MemoryPort } from '../../dataplane/ports/memory.ts';
import { Tables } from '../../dataplane/tables.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

/** A home router with a second worker beside it, over the same tables. */
class Pair {
  readonly home: H.Home;
  readonly second: Path;
  readonly lan: MemoryPort;
  readonly wan: MemoryPort;

  constructor(extra: Record<string, unknown> = {}) {
    this.home = new H.Home(extra);
    // The row behind the packet workers is the main thread's; nobody uses it inline.
    const tables = new Tables(this.home.router.tables.buffers, 1);
    this.lan = new MemoryPort('lan', this.home.router.port('lan').number);
    this.wan = new MemoryPort('wan', this.home.router.port('wan').number);
    const ports: MemoryPort[] = [];
    ports[this.lan.number] = this.lan;
    ports[this.wan.number] = this.wan;
    const punt = { frame: () => false, resolve: () => {}, used: () => {} };
    this.second = new Path(tables, new Frames(64, 4), ports, punt, { seed: 99, shared: true });
  }

  /** `first` is on its way through the first worker; before it confirms, `others` pass through the second. */
  race(first: Uint8Array, others: Uint8Array[]): { first: H.Seen[]; others: H.Seen[] } {
    const { tracker } = this.home.router.path;
    const { confirm } = tracker;
    tracker.confirm = (p, now) => {
      tracker.confirm = confirm;
      for (const packet of others) this.lan.push(B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC }, packet));
      this.second.turn();
      return confirm.call(tracker, p, now);
    };
    this.home.lan(first);
    const seen = this.wan.take().map((frame) => {
      expect(B.verify(frame)).toEqual([]);
      return H.see(frame);
    });
    return { first: this.home.left('wan'), others: seen };
  }
}

const query = (src: string, sport: number, name: string) =>
  B.ipv4({ src, dst: H.SERVER }, B.udp({ sport, dport: 53 }, name));
const query6 = (name: string) => B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.udp({ sport: 5353, dport: 53 }, name));

describe('the same connection', () => {
  it('IPv4 with masquerade: both leave, from the same address and port, over one connection', () => {
    const pair = new Pair();
    const { first, others } = pair.race(query(H.HOST, 5353, 'A'), [query(H.HOST, 5353, 'AAAA')]);
    expect([first.length, others.length]).toEqual([1, 1]);
    for (const seen of [...first, ...others]) expect([seen.src, seen.sport]).toEqual([H.ROUTER_WAN, 5353]);
    expect(pair.home.router.conntrack.count).toBe(1);
    expect(pair.home.dropped).toEqual({});
    // The loser's packet is counted on the winner's connection.
    expect(pair.home.router.conntrack.list()).toHaveLength(1);
    pair.home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: 5353 }, 'answer')));
    expect(pair.home.one('lan')).toMatchObject({ dst: H.HOST, dport: 5353 });
  });

  it('when the winner had to take another port, the loser takes the same one', () => {
    const pair = new Pair({ nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24', ports: '6000-6999' }] } });
    const { first, others } = pair.race(query(H.HOST, 5353, 'A'), [query(H.HOST, 5353, 'AAAA')]);
    // The two workers draw from different seeds: alone they would have chosen differently.
    expect([first.length, others.length]).toEqual([1, 1]);
    expect(first[0].sport).toBe(others[0].sport);
    expect(pair.home.router.conntrack.count).toBe(1);
  });

  it('IPv6', () => {
    const pair = new Pair();
    const { first, others } = pair.race(query6('A'), [query6('AAAA')]);
    expect([first.length, others.length, pair.home.router.conntrack.count]).toEqual([1, 1, 1]);
  });

  it('two first segments of TCP', () => {
    const pair = new Pair();
    const syn = B.ipv4({ src: H.HOST, dst: H.SERVER }, B.tcp({ sport: 999, dport: 80, seq: 1, flags: 'S' }));
    const { first, others } = pair.race(syn, [syn]);
    expect([first.length, others.length, pair.home.router.conntrack.count]).toEqual([1, 1, 1]);
    expect(first[0].sport).toBe(others[0].sport);
  });

  it('records and slots are given back, a thousand times over', () => {
    const pair = new Pair({ conntrack: { max: 64 } });
    for (let n = 0; n < 1000; n++) {
      const { first, others } = pair.race(query(H.HOST, 2000 + n, 'A'), [query(H.HOST, 2000 + n, 'AAAA')]);
      expect([n, first.length, others.length]).toEqual([n, 1, 1]);
      pair.home.router.advance(1); // a full table takes so many new ones a millisecond
    }
    expect(pair.second.frames.freeSmallCount).toBe(64);
  });
});

describe('two hosts, one port', () => {
  it('both want the same outside port at the same moment: one moves, both leave, both are answered', () => {
    const pair = new Pair();
    const { first, others } = pair.race(query(H.HOST, 5353, 'mine'), [query(H.HOST2, 5353, 'theirs')]);
    expect([first.length, others.length]).toEqual([1, 1]);
    expect(others[0].sport).toBe(5353);
    expect(first[0].sport).not.toBe(5353);
    expect(pair.home.router.conntrack.count).toBe(2);
    for (const [seen, host] of [
      [first[0], H.HOST],
      [others[0], H.HOST2],
    ] as const) {
      pair.home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: seen.sport }, 'answer')));
      expect(pair.home.one('lan')).toMatchObject({ dst: host, dport: 5353 });
    }
  });

  it('more at once than a search for another port takes: still nobody is lost', () => {
    const pair = new Pair();
    const others = Array.from({ length: 50 }, (_, n) => query(`192.168.1.${100 + n}`, 5353, 'theirs'));
    const result = pair.race(query(H.HOST, 5353, 'mine'), others);
    expect([result.first.length, result.others.length]).toEqual([1, 50]);
    expect(new Set([...result.first, ...result.others].map((seen) => seen.sport)).size).toBe(51);
  });
});

it('a connection that is being deleted at that moment is not adopted', () => {
  const pair = new Pair();
  const { tables } = pair.home.router;
  pair.home.lan(query(H.HOST, 5353, 'old'));
  expect(pair.home.left('wan').length).toBe(1);
  tables.conntrack.words[11] |= 512; // STATUS of record 0: DYING, not yet unlinked
  pair.home.lan(query(H.HOST, 5353, 'new'));
  expect(pair.home.left('wan').length).toBe(1);
  expect(pair.home.router.conntrack.lines().length).toBe(1);
});
