/**
 * The gateway against a provider that is this router too: DHCP, DHCPv6 with prefix delegation and router advertisements over
 * a cable, a scripted host on the LAN; cold start, renumbering, loss, no IA_NA, the three modes; and the table itself.
 */
import { describe, expect, it } from 'vitest';
import { IPV4, IPV6, type State } from '../../controlplane/gateway/table.ts';
import type { Router } from '../../controlplane/router.ts';
import * as B from '../lib/build.ts';
import { Wire } from '../lib/wire.ts';
import { addresses, home, isp, states, world } from './gateway-world.ts';

/** Prefixes of the last router advertisement that left a port: `prefix preferred valid lifetime`. */
function announced(router: Router, port: string): string[] {
  const frame = router
    .take(port)
    .filter((f) => B.get16(f, 12) === 0x86dd && f[20] === 58 && f[54] === 134)
    .at(-1);
  if (frame === undefined) return [];
  const list: string[] = [];
  for (let at = 70; at < frame.length; at += frame[at + 1] * 8)
    if (frame[at] === 3)
      list.push(
        `${B.ipText(frame.subarray(at + 16, at + 32))} ${B.get32(frame, at + 8) > 0 ? 'preferred' : 'deprecated'}`,
      );
  return [...list, `router ${B.get16(frame, 60)}`];
}

const ULA = /^fd[0-9a-f]{2}:/;

describe('a cold start', () => {
  it('goes through every state in its order, numbers both LANs, and is online in both families', () => {
    const { home: own, wire } = world();
    wire.advance(12_000);
    expect(states(own.router)).toEqual({ v4: 'online', v6: 'online' });
    expect(own.told.filter((line) => line.startsWith('v6'))).toEqual([
      'v6 down → detecting',
      'v6 detecting → soliciting',
      'v6 soliciting → requesting',
      'v6 requesting → numbering',
      'v6 numbering → online',
    ]);
    expect(own.told.filter((line) => line.startsWith('v4'))).toEqual([
      'v4 down → requesting',
      'v4 requesting → online',
    ]);
    const [lan, guest, wan] = [0, 1, 2].map((port) => addresses(own.router, port));
    expect(lan.filter((a) => !ULA.test(a))).toEqual([
      '192.168.1.1/24 preferred',
      expect.stringMatching(/^2001:db8:1[0-9a-f]{2}:[0-9a-f]+:?0?:?.*ff:fe00:101\/64 preferred$/),
    ]);
    // The second LAN has the next subnet of the same prefix.
    const subnet = (text: string) => B.get16(B.ip(text.split('/')[0]), 6);
    expect(subnet(guest.at(-1)!)).toBe(subnet(lan.at(-1)!) + 1);
    expect(wan.some((a) => /^2001:db8:0:1::1[0-9a-f]{3}\/128 preferred$/.test(a))).toBe(true);
    expect(wan).toContain('203.0.113.100/24 preferred');
    wire.advance(5000);
    expect(announced(own.router, 'lan').at(-1)).toBe('router 300');
  });

  it('row E5: before the provider is there, the LAN has its unique local prefix, and no default router', () => {
    const own = home();
    own.router.advance(8000);
    const seen = announced(own.router, 'lan');
    expect(seen.length).toBe(2);
    expect(seen[0]).toMatch(/^fd.*::? preferred$/);
    expect(seen[1]).toBe('router 0');
    expect(states(own.router)).toEqual({ v4: 'requesting', v6: 'soliciting' });
    // The same prefix at every start.
    const again = home();
    again.router.advance(8000);
    expect(announced(again.router, 'lan')[0]).toBe(seen[0]);
  });

  it('a router that is heard while the link-local address is being tested is not forgotten', () => {
    const { heard, wire } = world();
    wire.advance(12_000);
    const ra = heard.map((h) => h.frame).find((f) => f[20] === 58 && f[54] === 134)!;
    const late = home();
    late.router.advance(100);
    late.router.inject('wan', ra);
    expect(states(late.router).v6).toBe('detecting');
    late.router.advance(2000);
    expect(states(late.router).v6).toBe('requesting');
  });

  it('row E4: without an address of its own, the router is ::1 of its prefix', () => {
    const { home: own, wire } = world(isp('2001:db8:100::/40', null));
    wire.advance(14_000);
    expect(states(own.router).v6).toBe('online');
    const loopback = addresses(own.router, 2).find((a) => a.includes('/128'))!;
    expect(loopback).toMatch(/^2001:db8:1[0-9a-f]{2}:.*::1\/128 preferred$/);
    expect(own.told.some((line) => line.startsWith('wan add '))).toBe(true);
  });

  it('row E3: IPv4 only and IPv6 only touch nothing of the other family', () => {
    const four = world(isp(), { mode: 'v4' });
    four.wire.advance(10_000);
    expect(states(four.home.router)).toEqual({ v4: 'online', v6: 'down' });
    expect(four.heard.filter((h) => h.from === four.home.router && B.get16(h.frame, 12) === 0x86dd)).toEqual([]);
    const six = world(isp(), { mode: 'v6' });
    six.wire.advance(12_000);
    expect(states(six.home.router)).toEqual({ v4: 'down', v6: 'online' });
    expect(six.heard.filter((h) => h.from === six.home.router && B.get16(h.frame, 12) === 0x0800)).toEqual([]);
  });
});

describe('what changes later', () => {
  it('RFC 9096: another prefix: the LAN has it at once, and hosts hear that the old one is over', () => {
    const { home: own, wire } = world();
    wire.advance(12_000);
    own.router.take('lan');
    const before = own.told.find((line) => line.startsWith('lan add'))!.split(' ')[2];
    // The provider has forgotten the lease and delegates from elsewhere: the next renewal brings it.
    const next = isp('2001:db8:200::/40');
    const other = new Wire();
    next.router.advance(1000);
    other.join({ router: next.router, port: 'access' }, { router: own.router, port: 'wan' });
    own.told.length = 0;
    other.advance(700_000, 50);
    expect(own.told.some((line) => line === `lan remove ${before}`)).toBe(true);
    expect(own.told.some((line) => /^lan add 2001:db8:2/.test(line))).toBe(true);
    expect(states(own.router).v6).toBe('online');
    const seen = announced(own.router, 'lan');
    expect(seen.filter((line) => /^2001:db8:1.* deprecated$/.test(line)).length).toBe(1);
    expect(seen.filter((line) => line.startsWith('2001:db8:2') && line.endsWith(' preferred')).length).toBe(1);
  });

  it('a provider that falls silent: the lease ends, the LAN gives its prefix back, and keeps its unique local one', () => {
    const { home: own, wire } = world();
    wire.advance(12_000);
    for (let t = 0; t < 640; t++) own.router.advance(1000);
    expect(states(own.router)).toEqual({ v4: 'requesting', v6: expect.stringMatching(/requesting|soliciting/) });
    expect(addresses(own.router, 0).filter((a) => !ULA.test(a))).toEqual(['192.168.1.1/24 preferred']);
    expect(own.told.some((line) => line.startsWith('lan remove 2001:db8:1'))).toBe(true);
  });

  it('the link of the WAN goes and comes: both families come back', () => {
    const { home: own, wire } = world();
    wire.advance(12_000);
    own.router.setLink('wan', false);
    expect(states(own.router)).toEqual({ v4: 'down', v6: 'down' });
    own.router.setLink('wan', true);
    wire.advance(15_000);
    expect(states(own.router)).toEqual({ v4: 'online', v6: 'online' });
  });

  it('a duplicate of the MAC on the WAN: IPv6 is disabled there, IPv4 goes on', () => {
    const { home: own, wire } = world();
    wire.advance(20);
    const target = 'fe80::ff:fe00:102';
    own.router.inject(
      'wan',
      B.ethernet(
        { src: '02:00:00:00:00:66', dst: '33:33:00:00:00:01' },
        B.ipv6(
          { src: target, dst: 'ff02::1', hop: 255 },
          B.icmpv6({ type: 136, rest: 0x20000000 }, B.concat(B.ip(target), B.hex('0201'), B.mac('02:00:00:00:00:66'))),
        ),
      ),
    );
    wire.advance(8000);
    expect(states(own.router)).toEqual({ v4: 'online', v6: 'disabled' });
  });
});

describe('the table', () => {
  it('every state can be reached from the start, and every state but the start leaves when the link goes', () => {
    for (const [table, count] of [
      [IPV6, 7],
      [IPV4, 3],
    ] as const) {
      const reached = new Set<State>(['down']);
      for (const state of reached) for (const row of Object.values(table[state])) reached.add(row.next);
      expect(reached.size).toBe(count);
      for (const state of reached) if (state !== 'down') expect(table[state]['link down']?.next).toBe('down');
    }
  });
});
