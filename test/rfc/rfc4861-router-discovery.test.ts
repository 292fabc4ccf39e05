/**
 * RFC 4861 §6 (router discovery), RFC 4862 §5.5 (stateless addresses), RFC 4191 (preferences, routes), RFC 4311 (load
 * sharing), RFC 8106 (resolvers), RFC 9096 (renumbering): a router that announces against scripted hosts, one that
 * listens against scripted routers, and both against each other.
 */
import { describe, expect, it } from 'vitest';
import type { Event, Protocol } from '../../controlplane/protocol.ts';
import { createRouter, type Router, type RouterOptions } from '../../controlplane/router.ts';
import { formatCidr, parseIpv6 } from '../../dataplane/wire/address.ts';
import * as B from '../lib/build.ts';
import {
  ALL_NODES_MAC,
  advertisement,
  advertisements,
  GATE,
  prefixOption,
  rdnssOption,
  routeOption,
} from '../lib/discovery.ts';
import { Wire } from '../lib/wire.ts';

const HOST = '02:00:00:00:00:0a';
const WAN_MAC = '02:00:00:00:01:02';
const LAN_MAC = '02:00:00:00:01:01';

function router(ports: Record<string, unknown>, extra: Record<string, unknown> = {}, options: RouterOptions = {}) {
  const logs: string[] = [];
  const slots = { small: 256, large: 4 };
  const log = (_level: string, message: string) => void logs.push(message);
  const made = createRouter(
    { ports, offload: { mode: 'off' }, conntrack: { max: 1024 }, ...extra },
    { unasked: true, slots, log, ...options },
  );
  return { router: made, logs };
}

const lan = (ra: Record<string, unknown> = {}, addresses = ['2001:db8:1::1/64']) => ({
  lan: { kind: 'memory', mac: LAN_MAC, addresses, ra: { default: 'always', ...ra } },
});
const wan = (accept: Record<string, unknown> = {}, more: Record<string, unknown> = {}) => ({
  wan: { kind: 'memory', mac: WAN_MAC, 'accept-ra': accept, ...more },
});

const addresses = (r: Router, port = 0) =>
  r.control.addresses
    .ofPort(port)
    .filter((a) => a.family === 6 && (a.words[0] & 0xc0ff) !== 0x80fe)
    .map((a) => `${formatCidr(6, a.words, a.prefixLength)} ${a.state}`);
/** Gateways of the route to a prefix, by number of group members. */
const gateways = (r: Router, prefix: string, length: number): number => {
  const n = r.control.routes.get(6, parseIpv6(prefix)!, length);
  if (n === 0) return 0;
  const at = r.tables.nexthops.at(n);
  return r.tables.nexthops.kind(n) === 9 ? r.tables.nexthops.words[at + 3] : 1;
};
/** Lets duplicate address detection and the first solicitation pass. */
const settle = (r: Router) => {
  r.advance(3000);
  r.take('wan');
};

describe('RFC 4861 §6.2: advertisements sent', () => {
  it('three at most 16 s apart, then between the two intervals, all valid, to all nodes from a link-local address', () => {
    const { router: r } = router(lan({ other: true }));
    const at: number[] = [];
    for (let t = 0; t < 1_000_000; t += 100) {
      r.advance(100);
      for (const ra of advertisements(r.take('lan'))) {
        at.push(r.now);
        expect(ra).toMatchObject({
          to: ALL_NODES_MAC,
          source: 'fe80::ff:fe00:101',
          hop: 255,
          hopLimit: 64,
          flags: 0x40,
        });
        expect(ra.lifetime).toBe(300);
        expect(ra.prefixes).toEqual([{ prefix: '2001:db8:1::/64', flags: 0xc0, valid: 5400, preferred: 2700 }]);
        expect(ra.options.map((o) => o.type)).toEqual([1, 5, 3]);
      }
    }
    const gaps = at.slice(1).map((t, n) => t - at[n]);
    // The first change is the address that has passed detection; it may be said 3 s after the one before.
    const initial = gaps.filter((gap) => gap <= 16_000).length;
    expect(initial).toBeGreaterThanOrEqual(2);
    for (const gap of gaps) expect(gap).toBeGreaterThanOrEqual(3000);
    for (const gap of gaps.slice(initial)) {
      expect(gap).toBeGreaterThanOrEqual(30_000);
      expect(gap).toBeLessThanOrEqual(100_100);
    }
    expect(new Set(gaps.slice(initial)).size).toBeGreaterThan(3);
  });

  it('§6.2.6: answers a solicitation within half a second, but not within 3 s of the last', () => {
    const { router: r } = router(lan());
    r.advance(60_000);
    r.take('lan');
    const solicit = (src: string, option: string | null) =>
      r.inject(
        'lan',
        B.ethernet(
          { src: HOST, dst: '33:33:00:00:00:02' },
          B.ipv6(
            { src, dst: 'ff02::2', hop: 255 },
            B.icmpv6({ type: 133 }, option === null ? '' : B.concat(Uint8Array.of(1, 1), B.mac(option))),
          ),
        ),
      );
    while (advertisements(r.take('lan')).length === 0) r.advance(1000);
    r.advance(5000);
    solicit('fe80::a', HOST);
    r.advance(500);
    expect(advertisements(r.take('lan')).length).toBe(1);
    solicit('::', null);
    r.advance(2000);
    expect(advertisements(r.take('lan')).length).toBe(0);
    r.advance(1500);
    expect(advertisements(r.take('lan')).length).toBe(1);
    // §6.1.1: from the unspecified address with a source option: invalid.
    r.advance(4000);
    r.take('lan');
    solicit('::', HOST);
    r.advance(1000);
    expect(advertisements(r.take('lan')).length).toBe(0);
  });

  it('carries resolvers, search list, routes and several prefixes', () => {
    const { router: r } = router(
      lan(
        {
          rdnss: ['2001:db8::53', '2001:db8::54'],
          dnssl: ['home.example', 'lab.example'],
          routes: [{ to: '2001:db8:f::/48', preference: 'high', lifetime: 600 }],
          preference: 'low',
        },
        ['2001:db8:1::1/64', 'fd00:1::1/64'],
      ),
    );
    r.advance(5000);
    const ra = advertisements(r.take('lan')).at(-1)!;
    expect(ra.flags).toBe(0x18);
    expect(ra.prefixes.map((p) => p.prefix)).toEqual(['2001:db8:1::/64', 'fd00:1::/64']);
    const option = (type: number) => B.toHex(ra.options.find((o) => o.type === type)!.bytes);
    expect(option(25)).toBe(`190500000000012c${B.toHex(B.ip('2001:db8::53'))}${B.toHex(B.ip('2001:db8::54'))}`);
    expect(option(24)).toBe(`18023008${B.toHex(B.u32(600))}20010db8000f0000`);
    expect(option(31)).toBe(
      `1f0500000000012c04${B.toHex(B.toBytes('home'))}07${B.toHex(B.toBytes('example'))}00` +
        `03${B.toHex(B.toBytes('lab'))}07${B.toHex(B.toBytes('example'))}000000000000`.slice(
          0,
          2 + 6 + 2 + 14 + 2 + 10,
        ),
    );
  });

  it('RFC 7084 G-4: is no default router while it has no default route', () => {
    const { router: r } = router({
      ...lan({ default: 'routed' }),
      up: { kind: 'memory', addresses: ['2001:db8:9::1/64'] },
    });
    r.advance(5000);
    expect(advertisements(r.take('lan')).at(-1)!.lifetime).toBe(0);
    r.control.addRoute(6, [0, 0, 0, 0], 0, { kind: 1, port: 1, family: 6, gateway: parseIpv6('2001:db8:9::2')! });
    r.advance(20_000);
    expect(advertisements(r.take('lan')).at(-1)!.lifetime).toBe(300);
  });

  it('RFC 9096 §3.5: a prefix that is gone is announced with lifetimes of 0, at once, for as long as a host may have it', () => {
    const { router: r } = router(lan());
    r.advance(200_000);
    r.take('lan');
    const old = parseIpv6('2001:db8:1::1')!;
    r.control.changeAddress(
      0,
      { family: 6, words: old, prefixLength: 64, text: '' },
      { family: 6, words: parseIpv6('2001:db8:2::1')!, prefixLength: 64, text: '' },
    );
    r.advance(3000);
    const [first] = advertisements(r.take('lan'));
    expect(first.prefixes).toContainEqual({ prefix: '2001:db8:1::/64', flags: 0xc0, valid: 0, preferred: 0 });
    r.advance(5_390_000 - 3000);
    const late = advertisements(r.take('lan')).at(-1)!;
    expect(late.prefixes).toEqual([
      { prefix: '2001:db8:2::/64', flags: 0xc0, valid: 5400, preferred: 2700 },
      { prefix: '2001:db8:1::/64', flags: 0xc0, valid: 0, preferred: 0 },
    ]);
    r.advance(200_000);
    expect(advertisements(r.take('lan')).at(-1)!.prefixes.length).toBe(1);
  });
});

describe('RFC 4861 §6.3 and RFC 4862 §5.5: advertisements received', () => {
  it('solicits once the link-local address is its own, again after 4 s, and stops when a router answers', () => {
    const { router: r } = router(wan());
    const at: number[] = [];
    const solicitations = () => r.take('wan').filter((f) => f[20] === 58 && f[54] === 133);
    for (let t = 0; t < 30_000; t += 50) {
      r.advance(50);
      for (const f of solicitations()) {
        at.push(r.now);
        expect(B.ipText(f.subarray(22, 38))).toBe('fe80::ff:fe00:102');
        expect(B.ipText(f.subarray(38, 54))).toBe('ff02::2');
        expect(B.macText(f.subarray(64, 70))).toBe(WAN_MAC);
      }
    }
    // RFC 7559: 4 s, then twice as long, a tenth of it at random.
    expect(at[0]).toBeGreaterThanOrEqual(1000);
    expect(at[0]).toBeLessThanOrEqual(2100);
    expect(at[1] - at[0]).toBeGreaterThanOrEqual(3600);
    expect(at[1] - at[0]).toBeLessThanOrEqual(4450);
    expect(at[2] - at[1]).toBeGreaterThanOrEqual(7200);
    r.inject('wan', advertisement({}));
    r.advance(100_000);
    expect(solicitations()).toEqual([]);
  });

  it('makes an EUI-64 address, detects duplicates of it, and a default route that ends with its lifetime', () => {
    const { router: r } = router(wan());
    settle(r);
    r.inject('wan', advertisement({ lifetime: 90, options: [prefixOption('2001:db8:5::')] }));
    expect(addresses(r)).toEqual(['2001:db8:5::ff:fe00:102/64 tentative']);
    r.advance(1500);
    expect(addresses(r)).toEqual(['2001:db8:5::ff:fe00:102/64 preferred']);
    expect(gateways(r, '::', 0)).toBe(1);
    r.advance(90_000);
    expect(gateways(r, '::', 0)).toBe(0);
  });

  it('§5.5.3: ignores link-local prefixes, preferred beyond valid, and lengths that leave no room', () => {
    const { router: r } = router(wan());
    settle(r);
    r.inject(
      'wan',
      advertisement({
        options: [
          prefixOption('fe80::'),
          prefixOption('2001:db8:6::', { valid: 100, preferred: 200 }),
          prefixOption('2001:db8:7::', { length: 80 }),
          prefixOption('2001:db8:8::', { flags: 0x80 }),
        ],
      }),
    );
    r.advance(2000);
    expect(addresses(r)).toEqual([]);
    // On the link, without an address of it: a route.
    expect(gateways(r, '2001:db8:8::', 64)).toBe(1);
  });

  it('§5.5.3 e: nobody shortens a lifetime below two hours, but deprecation is at once', () => {
    const { router: r } = router(wan());
    settle(r);
    r.inject('wan', advertisement({ options: [prefixOption('2001:db8:5::', { valid: 20_000, preferred: 20_000 })] }));
    r.advance(2000);
    r.inject('wan', advertisement({ options: [prefixOption('2001:db8:5::', { valid: 0, preferred: 0 })] }));
    r.advance(10);
    expect(addresses(r)).toEqual(['2001:db8:5::ff:fe00:102/64 deprecated']);
    r.advance(7_100_000);
    expect(addresses(r).length).toBe(1);
    r.advance(200_000);
    expect(addresses(r)).toEqual([]);
  });

  it('RFC 7217: stable identifiers: the same again, another for each prefix, another after a duplicate', () => {
    const make = () => {
      const { router: r } = router(wan({ identifier: 'stable', secret: 'a secret' }));
      settle(r);
      r.inject('wan', advertisement({ options: [prefixOption('2001:db8:5::'), prefixOption('2001:db8:6::')] }));
      return r;
    };
    const first = addresses(make());
    expect(first.length).toBe(2);
    expect(addresses(make())).toEqual(first);
    const [a, b] = first.map((text) => text.split(':').slice(-4).join(':'));
    expect(a).not.toBe(b);
    expect(a).not.toContain('ff:fe00');
    const r = make();
    const taken = first[0].split('/')[0];
    r.inject(
      'wan',
      B.ethernet(
        { src: GATE, dst: ALL_NODES_MAC },
        B.ipv6(
          { src: taken, dst: 'ff02::1', hop: 255 },
          B.icmpv6({ type: 136, rest: 0x20000000 }, B.concat(B.ip(taken), Uint8Array.of(2, 1), B.mac(GATE))),
        ),
      ),
    );
    r.advance(2000);
    const now = addresses(r);
    expect(now.length).toBe(2);
    expect(now.join()).not.toContain(taken);
    expect(now.every((text) => text.endsWith('preferred'))).toBe(true);
  });

  it('RFC 8981: a temporary address beside the stable one, a new one each day, the old one deprecated', () => {
    const { router: r } = router(wan({ temporary: true }));
    settle(r);
    const week = { valid: 604_800, preferred: 604_800 };
    r.inject('wan', advertisement({ lifetime: 9000, options: [prefixOption('2001:db8:5::', week)] }));
    r.advance(2000);
    expect(addresses(r).length).toBe(2);
    const before = addresses(r)[1].split(' ')[0];
    r.advance(86_400_000);
    const after = addresses(r);
    expect(after.length).toBe(3);
    expect(after).toContain(`${before} deprecated`);
    r.advance(86_400_000);
    expect(addresses(r).join()).not.toContain(before);
  });

  it('RFC 4191: the higher preference wins, a route option goes before the default, equals share the load (RFC 4311)', () => {
    const { router: r } = router(wan());
    settle(r);
    const second = { from: 'fe80::fd', mac: '02:00:00:00:00:fd' };
    r.inject('wan', advertisement({ flags: 0x18 }));
    r.inject('wan', advertisement(second));
    expect(gateways(r, '::', 0)).toBe(1);
    r.inject('wan', advertisement({}));
    expect(gateways(r, '::', 0)).toBe(2);
    r.inject(
      'wan',
      advertisement({ options: [routeOption('2001:db8:f::', 48, 1, 60), routeOption('2001:db8:e::', 48, 2)] }),
    );
    expect(gateways(r, '2001:db8:f::', 48)).toBe(1);
    // Preference 2 is reserved: the option is ignored.
    expect(gateways(r, '2001:db8:e::', 48)).toBe(0);
    r.advance(60_000);
    expect(gateways(r, '2001:db8:f::', 48)).toBe(0);
    r.inject('wan', advertisement({ ...second, lifetime: 0 }));
    expect(gateways(r, '::', 0)).toBe(1);
  });

  it('RFC 8106 §5.1: resolvers live as long as they say, and a lifetime of 0 takes them back', () => {
    const { router: r } = router(wan());
    const told: unknown[] = [];
    const ear = {
      name: 'ear',
      next: () => -1,
      step: (_now: number, event: Event) => {
        if (event.kind === 'event' && event.name === 'ra.dns') told.push(event.data.servers);
        return [];
      },
    };
    r.control.protocols.push(ear);
    settle(r);
    r.inject('wan', advertisement({ options: [rdnssOption(60, '2001:db8::53'), rdnssOption(600, '2001:db8::54')] }));
    r.advance(61_000);
    r.inject('wan', advertisement({ options: [rdnssOption(0, '2001:db8::54')] }));
    expect(told).toEqual([['2001:db8::53', '2001:db8::54'], ['2001:db8::54'], []]);
  });

  it('lifetimes longer than the clock can count end in their time: 30 days are the default of §6.2.1', () => {
    const { router: r } = router(wan());
    settle(r);
    const days = (n: number) => n * 86_400;
    const options = [
      prefixOption('2001:db8:5::', { valid: days(30), preferred: days(26) }),
      prefixOption('2001:db8:6::', { valid: 0xffffffff, preferred: 0xffffffff }),
      routeOption('2001:db8:f::', 48, 0, days(28)),
      rdnssOption(days(27), '2001:db8::53'),
    ];
    r.inject('wan', advertisement({ lifetime: 0, options }));
    r.advance(2000);
    const receiver = r.control.protocols.find((p) => p.name === 'ra-receiver') as Protocol;
    // Day by day, and past the clock's wrap.
    const said: string[] = [];
    let now = r.now;
    for (let day = 1; day <= 40; day++) {
      now = (now + 86_400_000) | 0;
      for (const action of receiver.step(now, { kind: 'tick' }))
        if (action.kind === 'address' || action.kind === 'route')
          said.push(`${day} ${action.kind} ${action.op} ${formatCidr(6, action.words, action.prefixLength)}`);
        else if (action.kind === 'event') said.push(`${day} ${action.name}`);
    }
    expect(said.sort()).toEqual([
      '26 address deprecate 2001:db8:5::ff:fe00:102/64',
      '27 ra.dns',
      '28 route remove 2001:db8:f::/48',
      '30 address remove 2001:db8:5::ff:fe00:102/64',
      '30 route remove 2001:db8:5::/64',
    ]);
  });

  it('never waits so long that the clock could wrap', () => {
    const { router: r } = router(wan({ routes: false }));
    settle(r);
    const month = { valid: 2_592_000, preferred: 2_592_000 };
    r.inject('wan', advertisement({ options: [prefixOption('2001:db8:5::', month)] }));
    r.advance(2000);
    const receiver = r.control.protocols.find((p) => p.name === 'ra-receiver') as Protocol;
    expect(receiver.next(r.now)).toBeGreaterThan(86_400_000);
    expect(receiver.next(r.now)).toBeLessThan(0x7fffffff);
  });

  it('tells of a router once and when it says something new, however many take turns', () => {
    const told: string[] = [];
    const { router: r } = router(wan());
    r.control.protocols.push({
      name: 'ear',
      next: () => -1,
      step: (_now, event) => {
        if (event.kind === 'event' && event.name === 'ra.router')
          told.push(`${event.data.router} ${event.data.lifetime}`);
        return [];
      },
    });
    settle(r);
    for (let n = 0; n < 20; n++)
      for (const from of ['fe80::a', 'fe80::b']) {
        r.inject('wan', advertisement({ from }));
        r.advance(100);
      }
    r.inject('wan', advertisement({ from: 'fe80::b', lifetime: 600 }));
    expect(told).toEqual(['fe80::a 1800', 'fe80::b 1800', 'fe80::b 600']);
  });

  it('hostile advertisements: bounded, counted, and never believed when they are not valid', () => {
    const { router: r } = router(wan());
    settle(r);
    const receiver = r.control.protocols.find((p) => p.name === 'ra-receiver') as unknown as {
      counters: Record<string, number>;
    };
    r.inject('wan', advertisement({ hop: 254, options: [prefixOption('2001:db8:5::')] }));
    r.inject('wan', advertisement({ from: '2001:db8::fe', options: [prefixOption('2001:db8:5::')] }));
    r.inject('wan', advertisement({ options: [Uint8Array.of(3, 0, 0, 0, 0, 0, 0, 0)] }));
    expect(addresses(r)).toEqual([]);
    expect(receiver.counters.invalid).toBe(3);
    for (let n = 0; n < 200; n++) {
      const hex = n.toString(16);
      const mac = `02:00:00:00:aa:${hex.padStart(2, '0')}`;
      const options = [prefixOption(`2001:db8:${hex}::`), routeOption(`2001:db8:1${hex}::`, 48, 0)];
      r.inject('wan', advertisement({ from: `fe80::${hex}`, mac, options }));
    }
    r.inject(
      'wan',
      advertisement({ options: [Uint8Array.of(25, 1, 0, 0, 0, 0, 0, 9), Uint8Array.of(24, 1, 129, 0, 0, 0, 0, 1)] }),
    );
    expect(addresses(r).length).toBe(16);
    expect(receiver.counters.full).toBeGreaterThan(300);
    expect(receiver.counters.malformed).toBe(2);
    r.advance(1000);
  });
});

describe('RFC 4862 §5.4.5: a duplicate of the link-local address', () => {
  const answer = (target: string) =>
    B.ethernet(
      { src: GATE, dst: ALL_NODES_MAC },
      B.ipv6(
        { src: target, dst: 'ff02::1', hop: 255 },
        B.icmpv6({ type: 136, rest: 0x20000000 }, B.concat(B.ip(target), Uint8Array.of(2, 1), B.mac(GATE))),
      ),
    );

  it('takes the port out of IPv6, leaves IPv4, and tries again when the link comes back', () => {
    const addressesOf = ['192.0.2.1/24', '2001:db8:1::1/64'];
    const { router: r, logs } = router({ lan: { kind: 'memory', mac: LAN_MAC, addresses: addressesOf } });
    r.advance(1);
    r.inject('lan', answer('fe80::ff:fe00:101'));
    expect(logs.join()).toMatch(/IPv6 is off: the MAC of this port is on its link twice/);
    r.take('lan');
    r.advance(5000);
    const ping = (src: string, dst: string) =>
      B.ethernet({ src: HOST, dst: LAN_MAC }, B.ipv6({ src, dst }, B.icmpv6({ type: 128, id: 1, seq: 1 }, 'x')));
    r.inject('lan', ping('2001:db8:1::a', '2001:db8:1::1'));
    expect(r.counters.dropped.ETHERTYPE_FILTER).toBe(1);
    expect(addresses(r)).toEqual([]);
    r.inject(
      'lan',
      B.ethernet(
        { src: HOST, dst: 'ff:ff:ff:ff:ff:ff', type: 0x806 },
        B.arp({ op: 'request', sha: HOST, spa: '192.0.2.9', tpa: '192.0.2.1' }),
      ),
    );
    expect(r.take('lan').filter((f) => B.get16(f, 12) === 0x0806).length).toBe(1);
    r.setLink('lan', false);
    r.setLink('lan', true);
    r.advance(3000);
    expect(addresses(r)).toEqual(['2001:db8:1::1/64 preferred']);
  });
});

describe('two routers on one cable', () => {
  it('the one that listens has address, default route and resolvers of the one that announces', () => {
    const isp = router(lan({ rdnss: 'router', dnssl: 'isp.example' }));
    const home = router(wan());
    const events: string[] = [];
    home.router.control.protocols.push({
      name: 'ear',
      step: (_now, event) => {
        if (event.kind === 'event') events.push(`${event.name} ${JSON.stringify(event.data)}`);
        return [];
      },
      next: () => -1,
    });
    const wire = new Wire();
    wire.join({ router: isp.router, port: 'lan' }, { router: home.router, port: 'wan' });
    wire.advance(8000);
    expect(addresses(home.router)).toEqual(['2001:db8:1::ff:fe00:102/64 preferred']);
    expect(gateways(home.router, '::', 0)).toBe(1);
    expect(events).toContain('ra.dns {"port":"wan","servers":["2001:db8:1::1"],"domains":["isp.example"]}');
    expect(events.some((e) => e.startsWith('ra.router {"port":"wan","router":"fe80::ff:fe00:101"'))).toBe(true);
    home.router.setLink('wan', false);
    expect(addresses(home.router)).toEqual([]);
    expect(gateways(home.router, '::', 0)).toBe(0);
  });
});
