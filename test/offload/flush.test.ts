/**
 * Flush (row O6): what changes under an entry sends its packets through the slow path at once, which restamps it; and
 * nothing but what depends on the change is lost. Also trap 14, and 8-bit epochs that come round.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import { NUD_FAILED, NUD_REACHABLE, NUD_STALE } from '../../dataplane/neighbours.ts';
import { NH_VIA } from '../../dataplane/nexthops.ts';
import * as T from '../../dataplane/tables.ts';
import { parseAddress, parseMac } from '../../dataplane/wire/address.ts';
import { FlowTable, newFlowSpec, STAT_INSTALLS } from '../../offload/table.ts';
import { arp, ethernet, ipv4, toHex, udp } from '../lib/build.ts';
import { engineCounter, HOST, hits, MACS, macOf, SERVER, WAN, World } from './world.ts';

const words = (text: string) => parseAddress(text)!.words;
const query = (n = 0) => ipv4({ src: HOST, dst: SERVER, id: n }, udp({ sport: 5000, dport: 4000 }, `q${n}`));
const answer = (n = 0) => ipv4({ src: SERVER, dst: WAN, id: n }, udp({ sport: 4000, dport: 5000 }, `a${n}`));

let world: World;

/** Both directions once; how many of the two packets the engine forwarded. */
function round(): number {
  const before = hits(world.on);
  world.frame('lan', query(), macOf(HOST));
  world.frame('wan', answer());
  return hits(world.on) - before;
}

beforeEach(() => {
  world = new World();
  round();
  round();
  expect(round()).toBe(2);
});

function stale(change: () => void, counter: Parameters<typeof engineCounter>[1], count = 2): void {
  const installs = world.on.tables.flows!.statistic(STAT_INSTALLS);
  const before = engineCounter(world.on, counter);
  change();
  expect(round()).toBe(2 - count);
  expect(engineCounter(world.on, counter) - before).toBe(count);
  // Restamped in place: no storm of new installs, and the next packets are hits again.
  expect(round()).toBe(2);
  expect(world.on.tables.flows!.statistic(STAT_INSTALLS)).toBe(installs);
}

describe('a change invalidates what depends on it', () => {
  test('a link that goes down: nothing leaves by it; up again: the flow comes back', () => {
    world.all((router) => router.setLink('wan', false));
    expect(world.frame('lan', query(), macOf(HOST)).filter(({ port }) => port === 'wan')).toEqual([]);
    world.all((router) => router.setLink('wan', true));
    expect(round()).toBeLessThan(2);
    expect(round()).toBe(2);
  });

  test('a link elsewhere: looked at again, nothing lost', () => {
    stale(() => world.all((router) => router.setLink('dmz', false)), 'stale-epoch');
  });

  test('an address', () => {
    stale(() => world.all((router) => router.control.addAddress(3, 4, words('10.8.0.1'), 24)), 'stale-epoch');
  });

  test('a route moves the flow with the next packet', () => {
    world.all((router) =>
      router.control.addRoute(4, words('198.51.100.0'), 24, {
        kind: NH_VIA,
        port: 2,
        family: 4,
        gateway: words('198.18.0.254'),
      }),
    );
    expect(world.frame('lan', query(), macOf(HOST)).map(({ port }) => port)).toEqual(['alt']);
    const before = hits(world.on);
    expect(world.frame('lan', query(), macOf(HOST)).map(({ port }) => port)).toEqual(['alt']);
    expect(hits(world.on)).toBe(before + 1);
    world.all((router) => router.control.removeRoute(4, words('198.51.100.0'), 24));
    expect(world.frame('lan', query(), macOf(HOST)).map(({ port }) => port)).toEqual(['wan']);
  });

  test('the NAT rules', () => {
    stale(() => world.all((router) => router.control.loadNat(router.config)), 'stale-epoch');
  });

  test('the filter', () => {
    stale(() => world.all((router) => router.control.loadFilter(router.config)), 'stale-epoch');
  });

  test('a neighbour’s MAC: only the direction towards it', () => {
    const mac = parseMac('02:00:00:00:77:77')!;
    stale(
      () => world.all((router) => router.control.setNeighbour(1, 4, words('203.0.113.254'), mac.lo, mac.hi)),
      'neighbour',
      1,
    );
    const [left] = world.frame('lan', query(), macOf(HOST));
    expect(toHex(left.frame.frame.subarray(0, 6))).toBe('020000007777');
  });

  test('a neighbour that is STALE or FAILED is the slow path’s', () => {
    const set = (state: number) =>
      world.all((router) => {
        const n = router.tables.neighbours;
        const found = n.find(1, 4, words('203.0.113.254')[0], 0, 0, 0);
        const at = n.at(found);
        n.update(found, state, n.words[at + 6], n.words[at + 7], router.now);
      });
    for (const state of [NUD_STALE, NUD_FAILED]) {
      set(state);
      const before = engineCounter(world.on, 'neighbour');
      world.frame('lan', query(), macOf(HOST));
      expect(engineCounter(world.on, 'neighbour')).toBe(before + 1);
      set(NUD_REACHABLE);
      round();
      expect(round()).toBe(2);
    }
  });

  test('a host that moves to another port takes its flow with it', () => {
    // The host’s address is reached by the DMZ link now: a host route, and its own frames come from there.
    world.all((router) => {
      router.control.addRoute(4, words(HOST), 32, { kind: NH_VIA, port: 3, family: 4, gateway: words('10.9.0.20') });
    });
    expect(world.frame('wan', answer()).map(({ port }) => port)).toEqual(['dmz']);
    expect(world.frame('dmz', query(), macOf('10.9.0.20')).map(({ port }) => port)).toEqual(['wan']);
    const before = hits(world.on);
    expect(world.frame('dmz', query(), macOf('10.9.0.20')).map(({ port }) => port)).toEqual(['wan']);
    expect(hits(world.on)).toBe(before + 1);
    // The entry of the old port went with the move: the table has one for each direction.
    expect(world.on.tables.flows!.count).toBe(2);
  });

  test('a connection that is deleted leaves no entry behind', () => {
    world.all((router) => {
      for (let n = 0; n < router.tables.conntrack.highWater; n++)
        if (router.tables.conntrack.inUse(n, router.now)) router.path.tracker.end(n);
    });
    expect(world.on.tables.flows!.count).toBe(0);
    // From outside nothing reaches the host any more: it is a stranger's packet, and the DMZ host's.
    const [left] = world.frame('wan', answer());
    expect(toHex(left.frame.frame.subarray(0, 6))).toBe('020000000014');
    expect(round()).toBe(0);
  });
});

describe('epochs that come round', () => {
  test('256 flushes without a packet: the entry does not look current again', () => {
    for (const cause of [T.EPOCH_LINK, T.EPOCH_ROUTE, T.EPOCH_NAT, T.EPOCH_FILTER])
      for (const flushes of [254, 255, 256, 257, 510, 511]) {
        world.all((router) => {
          for (let n = 0; n < flushes; n++) router.tables.flush(cause);
        });
        const before = engineCounter(world.on, 'stale-epoch');
        expect(round(), `${flushes} flushes`).toBe(0);
        expect(engineCounter(world.on, 'stale-epoch')).toBe(before + 2);
        expect(round()).toBe(2);
      }
  });

  test('an entry made from a walk that began before the sweep is refused', () => {
    const table = new FlowTable(FlowTable.create(16), 1);
    const spec = newFlowSpec();
    spec.proto = 17;
    spec.src[0] = 1;
    spec.sweep = table.sweeps;
    spec.epoch = 5 << 8;
    expect(table.install(spec, 0, 2)).toBeGreaterThanOrEqual(0);
    table.sweep(8);
    spec.src[0] = 2;
    expect(table.install(spec, 0, 2)).toBe(-1);
    spec.sweep = table.sweeps;
    expect(table.install(spec, 0, 2)).toBeGreaterThanOrEqual(0);
  });
});

test('a packet that waited for its neighbour programs nothing: its walk was before the change', () => {
  const later = new World({ neighbors: [{ port: 'lan', ip: HOST, mac: macOf(HOST) }] });
  later.frame('lan', query(), macOf(HOST));
  const reply = ethernet(
    { src: macOf('203.0.113.254'), dst: MACS.wan, type: 0x0806 },
    arp({ op: 'reply', sha: macOf('203.0.113.254'), spa: '203.0.113.254', tha: MACS.wan, tpa: WAN }),
  );
  later.send([{ port: 'wan', frame: reply }]);
  expect(later.on.counters.held).toBe(0);
  expect(later.on.tables.flows!.count).toBe(0);
});
