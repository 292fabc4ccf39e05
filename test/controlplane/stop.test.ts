/**
 * The end of a router: final router advertisements (RFC 4861 §6.2.5), and leases that are given back where the configuration says
 * so, to a provider that is this router too.
 */
import { describe, expect, it } from 'vitest';
import { createRouter } from '../../controlplane/router.ts';
import * as B from '../lib/build.ts';
import { Wire } from '../lib/wire.ts';

const SMALL = { unasked: true, slots: { small: 256, large: 4 } };
const BASE = { offload: { mode: 'off' }, conntrack: { max: 1024 } };

/** Router advertisements that left a port: lifetime, and prefixes with valid lifetimes. */
function advertised(frames: Uint8Array[]): { lifetime: number; lifetimes: Record<number, number[]> }[] {
  return frames
    .filter((f) => B.get16(f, 12) === 0x86dd && f[20] === 58 && f[54] === 134)
    .map((f) => {
      const lifetimes: Record<number, number[]> = {};
      for (let at = 70; at < f.length; at += f[at + 1] * 8)
        if ([3, 24, 25, 31].includes(f[at])) {
          lifetimes[f[at]] ??= [];
          lifetimes[f[at]].push(B.get32(f, at + 4));
        }
      return { lifetime: B.get16(f, 60), lifetimes };
    });
}

describe('a router that stops', () => {
  it('RFC 4861 §6.2.5: says three times that it is none any more, takes routes and resolvers back, and is silent then', () => {
    const router = createRouter(
      {
        ...BASE,
        ports: {
          lan: {
            kind: 'memory',
            mac: '02:00:00:00:01:01',
            addresses: '2001:db8:1::1/64',
            ra: { default: 'always', rdnss: 'router', dnssl: 'home.arpa', routes: [{ to: 'fd00:1::/48' }] },
          },
          quiet: { kind: 'memory', mac: '02:00:00:00:01:03', addresses: '2001:db8:2::1/64' },
        },
      },
      SMALL,
    );
    router.advance(30_000);
    const before = advertised(router.take('lan')).at(-1);
    expect(before?.lifetime).toBeGreaterThan(0);
    expect(Math.min(...[24, 25, 31].map((kind) => before?.lifetimes[kind][0] ?? 0))).toBeGreaterThan(0);
    router.take('quiet');
    router.stop();
    const last = advertised(router.take('lan'));
    expect(last.map(({ lifetime }) => lifetime)).toEqual([0, 0, 0]);
    for (const { lifetimes } of last) expect([24, 25, 31].map((kind) => lifetimes[kind])).toEqual([[0], [0], [0]]);
    expect(advertised(router.take('quiet'))).toEqual([]);
    router.advance(2_000_000);
    expect(advertised(router.take('lan'))).toEqual([]);
  });

  for (const release of [true, false])
    it(`DHCP and DHCPv6 leases are ${release ? 'given back' : 'kept'} with release: ${release}`, () => {
      const isp = createRouter(
        {
          ...BASE,
          ports: {
            access: {
              kind: 'memory',
              mac: '02:00:00:00:09:01',
              addresses: ['203.0.113.1/24', '2001:db8:0:1::1/64'],
              dhcp4: { server: { range: '203.0.113.100-203.0.113.199' } },
              dhcp6: { server: { addresses: '2001:db8:0:1::1000-2001:db8:0:1::1fff', delegate: 'home' } },
            },
          },
          delegation: { pools: { home: { prefix: '2001:db8:100::/40', length: 56 } } },
        },
        SMALL,
      );
      const home = createRouter(
        {
          ...BASE,
          ports: {
            wan: {
              kind: 'memory',
              mac: '02:00:00:00:01:02',
              dhcp4: { client: { release } },
              dhcp6: { client: { 'ia-pd': [{}], release } },
            },
          },
        },
        SMALL,
      );
      const wire = new Wire();
      const heard = wire.join({ router: isp, port: 'access' }, { router: home, port: 'wan' });
      wire.advance(15_000);
      expect(isp.control.domains.dhcp6?.delegation.leases.size).toBe(2);
      const from = heard.length;
      home.stop();
      wire.advance(1000);
      expect(isp.control.domains.dhcp6?.delegation.leases.size).toBe(release ? 0 : 2);
      const releases4 = heard.slice(from).filter(({ frame }) => B.get16(frame, 36) === 67 && frame[23] === 17);
      expect(releases4.length).toBe(release ? 1 : 0);
      // Option 53, at the head of the options: 7 is DHCPRELEASE.
      for (const { frame } of releases4) expect([...frame.subarray(282, 285)]).toEqual([53, 1, 7]);
    });
});
