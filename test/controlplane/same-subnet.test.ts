/**
 * What a provider gives out and the LAN has already: a modem that is a router itself hands out the LAN's own subnet, or even the
 * router's own address. The LAN keeps what it was configured with, while the lease lives and when it has gone.
 */
import { expect, test } from 'vitest';
import type { Router } from '../../controlplane/router.ts';
import { parseIpv6 } from '../../dataplane/wire/address.ts';
import { connect, house, isp, make, routesOf } from './gateway-world.ts';

const LAN = '192.168.1.0/24 dev lan';

/** A modem on 192.168.1.254 that gives out the addresses of `range`. */
const modem = (range: string) =>
  make({
    ports: {
      access: {
        kind: 'memory',
        mac: '02:00:00:00:09:01',
        addresses: '192.168.1.254/24',
        dhcp4: { server: { range, lease: 600, probe: false } },
      },
    },
  });

const lines = (router: Router, port: string) =>
  routesOf(router)
    .split('\n')
    .filter((line) => line.includes('192.168.1.') && line.includes(`dev ${port}`));

test.each([
  ['its subnet', '192.168.1.100-192.168.1.101'],
  ['its own address', '192.168.1.1-192.168.1.1'],
])('a lease that has of the LAN %s takes nothing from it, and leaves nothing missing when it goes', (_what, range) => {
  const { home, wire } = connect(modem(range), house({ mode: 'v4' }));
  const before = lines(home.router, 'lan');
  expect(before.some((line) => line.startsWith(LAN))).toBe(true);
  wire.advance(6000);
  expect(home.told).toContain('v4 requesting → online');
  expect(lines(home.router, 'lan')).toEqual(before);
  expect(home.logs.join('\n')).toContain('overlaps 192.168.1.1/24 of port lan; give lan another subnet');
  home.router.control.setLink(2, false);
  expect(home.router.control.addresses.ofPort(2).filter(({ family }) => family === 4)).toEqual([]);
  expect(lines(home.router, 'lan')).toEqual(before);
});

test('RFC 4862 §5.5.3: a prefix option with the subnet of a LAN does not move that subnet to the WAN', () => {
  const own = house({}, { lan: { addresses: ['192.168.1.1/24', '2001:db8:77::1/64'] } });
  // The provider announces that very prefix, with an address of its own in it.
  const provider = isp(undefined, undefined, { ra: { autonomous: true } });
  provider.router.control.addAddress(0, 6, parseIpv6('2001:db8:77::2')!, 64);
  const { wire } = connect(provider, own);
  const of = (router: Router) =>
    routesOf(router)
      .split('\n')
      .filter((line) => line.startsWith('2001:db8:77::/64'));
  expect(of(own.router)).toEqual([expect.stringContaining('dev lan')]);
  wire.advance(14_000, 20);
  const there = own.router.control.addresses.ofPort(2).filter((a) => a.words[1] === 0x7700);
  expect(there.length).toBe(1);
  expect(of(own.router)).toEqual([expect.stringContaining('dev lan')]);
  own.router.control.setLink(2, false);
  expect(own.router.control.addresses.ofPort(2).filter((a) => a.words[1] === 0x7700)).toEqual([]);
  expect(of(own.router)).toEqual([expect.stringContaining('dev lan')]);
});

test('RFC 8415 §21.22: a prefix delegated for longer than the clock can count is announced, not taken back', () => {
  // 30 days: what RFC 4861 §6.2.1 has as its default.
  const provider = isp(undefined, undefined, { server: { preferred: 2_592_000, valid: 2_592_000 } });
  const { home, wire } = connect(provider, house());
  wire.advance(14_000, 20);
  expect(home.told).toContain('v6 numbering → online');
  const given = home.router.control.addresses
    .ofPort(0)
    .find((a) => a.family === 6 && a.prefixLength === 64 && (a.words[0] & 0xff) === 0x20)!;
  expect(given.lifetimes).toEqual({ preferred: null, valid: null });
});
