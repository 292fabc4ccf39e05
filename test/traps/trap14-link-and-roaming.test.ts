/**
 * Trap 14. A port that goes down while connections and engine entries point to it: nothing is sent there, the sender is
 * told, everything is counted, and traffic goes on when it comes back. A neighbour that moves to another MAC is followed
 * at once, also by flows that the engine carries.
 */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const NEW_MAC = '02:00:00:00:00:99';
const up = (data: string) => B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, data));
const down = (data: string) => B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: 5000 }, data));

const engines: [string, Record<string, unknown>][] = [
  ['off', { mode: 'off' }],
  ['on', { mode: 'on', entries: 64, 'program-after': 1 }],
];

/** A UDP stream in both directions, in the engine when there is one. */
function stream(extra: Record<string, unknown>): H.Home {
  const home = new H.Home(extra);
  for (let n = 0; n < 6; n++) {
    home.lan(up(`to ${n}`));
    home.wan(down(`from ${n}`));
    home.router.advance(1000);
  }
  expect([home.left('wan').length, home.left('lan').length]).toEqual([6, 6]);
  return home;
}

describe.each(engines)('with the engine %s', (mode, offload) => {
  it('a stream is there', () => {
    const home = stream({ offload });
    expect(home.router.counters.offload.hits > 0).toBe(mode === 'on');
  });

  it('a port down: nothing leaves there, the sender is told, and it goes on when the port is back', () => {
    const home = stream({ offload });
    home.router.setLink('wan', false);
    home.lan(up('into the dark'));
    expect(home.left('wan')).toEqual([]);
    const error = home.one('lan');
    expect([error.l4[0], error.dst]).toEqual([3, H.HOST]);
    expect(Object.values(home.dropped).reduce((sum, n) => sum + n, 0)).toBe(1);
    // What arrives on a port that is down is not taken either.
    home.wan(down('from the dark'));
    expect(home.left('lan')).toEqual([]);
    home.router.setLink('wan', true);
    home.lan(up('again'));
    expect(home.one('wan')).toMatchObject({ src: H.ROUTER_WAN, sport: 5000, dstMac: H.GATE_MAC });
    home.wan(down('again'));
    expect(home.one('lan')).toMatchObject({ dst: H.HOST, dport: 5000 });
    expect(home.router.conntrack.count).toBe(1);
  });

  it('both ports down and up many times: every slot and every frame is accounted for', () => {
    const home = stream({ offload });
    const random = new B.Random(14);
    const free = home.router.frames.freeSmallCount;
    const before = home.router.counters.received;
    let sent = 0;
    for (let n = 0; n < 2000; n++) {
      if (random.chance(0.1)) home.router.setLink(random.pick(['lan', 'wan']), random.chance(0.6));
      if (random.chance(0.5)) home.lan(up('x'));
      else home.wan(down('x'));
      sent++;
      home.left('lan');
      home.left('wan');
      if (random.chance(0.05)) home.router.advance(700);
    }
    home.router.setLink('lan', true);
    home.router.setLink('wan', true);
    home.router.advance(10_000);
    expect(home.router.counters.held).toBe(0);
    expect(home.router.frames.freeSmallCount).toBe(free);
    expect(home.router.counters.received - before).toBe(sent);
  });

  it('a neighbour with a new MAC is followed by the next packet', () => {
    // Learned, not configured: the router asks once, then believes who answers.
    const home = new H.Home({ offload, neighbors: [{ port: 'wan', ip: H.GATE, mac: H.GATE_MAC }] });
    const answer = (mac: string) =>
      home.router.inject(
        'lan',
        B.ethernet(
          { src: mac, dst: H.LAN_MAC, type: 0x0806 },
          B.arp({ op: 'reply', sha: mac, spa: H.HOST, tha: H.LAN_MAC, tpa: H.ROUTER_LAN }),
        ),
      );
    home.lan(up('first'));
    home.wan(down('waits'));
    answer(H.HOST_MAC);
    for (let n = 0; n < 6; n++) {
      home.lan(up(`to ${n}`));
      home.wan(down(`from ${n}`));
      home.router.advance(500);
    }
    const data = home.left('lan').filter((seen) => B.get16(seen.frame, 12) === 0x0800);
    expect(new Set(data.map((seen) => seen.dstMac))).toEqual(new Set([H.HOST_MAC]));
    // The host is somewhere else now, and says so.
    home.router.advance(2000);
    answer(NEW_MAC);
    home.left('lan');
    home.wan(down('after the move'));
    const moved = home.left('lan').filter((seen) => B.get16(seen.frame, 12) === 0x0800);
    expect(moved.map((seen) => seen.dstMac)).toEqual([NEW_MAC]);
  });
});
