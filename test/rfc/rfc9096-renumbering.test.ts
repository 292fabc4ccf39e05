/**
 * RFC 9096, the reaction of customer edge routers to renumbering, by requirement (they add to RFC 7084's): the gateway against
 * a provider that is this router too, which is exchanged for another one that knows nothing of the lease.
 */
import { describe, expect, it } from 'vitest';
import * as C from '../../controlplane/dhcp6/constants.ts';
import { parseIpv6 } from '../../dataplane/wire/address.ts';
import { asked, connect, delegated, house, isp, online, type World } from '../controlplane/gateway-world.ts';
import { advertisements } from '../lib/discovery.ts';

const SECOND = 1000;
const identities = (w: World) => [
  ...new Set(asked(w).flatMap(({ ias }) => ias.map(({ kind, iaid }) => `${kind} ${iaid}`))),
];

/** The link of the WAN goes; behind it is another provider, or the same. */
function moved(w: World, provider = w.isp): World {
  w.home.router.setLink('wan', false);
  w.home.router.advance(SECOND);
  w.home.router.setLink('wan', true);
  return connect(provider, w.home);
}

describe('WAN side', () => {
  it('WPD-9: no Release when it stops, unless the configuration says so', () => {
    const wan = { dhcp6: { client: { start: 'told', 'ia-pd': [{}], release: true } } };
    for (const [own, releases] of [
      [house(), 0],
      [house({}, { wan }), 1],
    ] as const) {
      const w = online(isp(), own);
      own.router.stop();
      w.wire.advance(SECOND / 2);
      expect(asked(w).filter(({ type }) => type === C.RELEASE).length).toBe(releases);
    }
  });

  it('WPD-10: its IAIDs are the same after a start, when the link was away, and in every message', () => {
    const w = online(isp(), house());
    const again = moved(w);
    again.wire.advance(10 * SECOND);
    const restarted = online(isp(), house());
    expect(identities(w).map((text) => text.split(' ')[0])).toEqual(['na', 'pd']);
    expect(asked(again).length).toBeGreaterThan(0);
    for (const other of [again, restarted]) expect(identities(other).sort()).toEqual(identities(w).sort());
  });
});

describe('LAN side', () => {
  it('L-13: another prefix: at once, and for as long as a host may have it, the old one has lifetimes of 0 and its flags', () => {
    const own = house({}, { lan: { ra: { autonomous: false } } });
    const { router } = own;
    const w = online(isp(), own);
    const flags = { lan: 0x80, guest: 0xc0 };
    const old = Object.keys(flags).map((port) => {
      const prefix = advertisements(router.take(port))
        .at(-1)!
        .prefixes.find((p) => p.prefix.startsWith('2001:'))!;
      return { ...prefix, port };
    });
    expect(old.map((one) => one.flags)).toEqual(Object.values(flags));
    own.told.length = 0;
    const next = isp('2001:db8:200::/40');
    next.router.advance(3 * SECOND);
    const other = moved(w, next);
    let gone = -1;
    const said: Record<string, { at: number; ra: ReturnType<typeof advertisements>[number] }[]> = {
      lan: [],
      guest: [],
    };
    const listen = (): void => {
      if (gone < 0 && own.told.some((line) => line.startsWith('lan remove 2001:db8:1'))) gone = router.now;
      for (const { port } of old)
        for (const ra of advertisements(router.take(port))) said[port].push({ at: router.now, ra });
    };
    for (let t = 0; t < 30 * SECOND; t += 100) {
      other.wire.advance(100, 20);
      listen();
    }
    expect(gone).toBeGreaterThan(0);
    expect(delegated(other)).toMatch(/^2001:db8:2/);
    // A quarter of an hour and more after it: no host had a longer lifetime.
    for (let t = 0; t < 900 * SECOND; t += 10 * SECOND) {
      other.wire.advance(10 * SECOND, 500);
      listen();
    }
    for (const { port, prefix, flags: before } of old) {
      // In the step in which it went, one may have been sent before that.
      const isOver = (ra: (typeof said.lan)[number]['ra']) =>
        ra.prefixes.some((p) => p.prefix === prefix && p.valid === 0);
      const after = said[port].filter(({ at, ra }) => at > gone || (at === gone && isOver(ra)));
      // Never two advertisements within 3 s (RFC 4861 §6.2.6).
      expect(after[0].at - gone).toBeLessThanOrEqual(3 * SECOND + 200);
      for (const { ra } of after)
        expect(ra.prefixes.find((p) => p.prefix === prefix)).toEqual({ prefix, flags: before, valid: 0, preferred: 0 });
      const now = after.at(-1)!;
      expect(now.at - gone).toBeGreaterThan(800 * SECOND);
      expect(now.ra.prefixes.some((p) => p.prefix.startsWith('2001:db8:2') && p.preferred > 0)).toBe(true);
    }
  });

  it('L-13: a provider that renumbers all the time makes no advertisement longer than the link takes', () => {
    const own = house({}, { lan: { mtu: 1280, ra: { valid: 2_592_000 } } });
    const { control } = own.router;
    own.router.advance(5 * SECOND);
    for (let n = 0; n < 60; n++) {
      const address = parseIpv6(`2001:db8:${n}::1`)!;
      const prefixes = [{ prefix: `2001:db8:${n}::/56`, valid: 600 }];
      control.addAddress(0, 6, address, 64);
      control.handle({ kind: 'event', name: 'gateway.prefixes', data: { ports: [0], prefixes } });
      own.router.advance(2 * SECOND);
      control.removeAddress(0, 6, address, 64);
    }
    own.router.take('lan');
    own.router.advance(20 * SECOND);
    const frames = own.router.take('lan').filter((f) => f[20] === 58 && f[54] === 134);
    expect(frames.length).toBeGreaterThan(0);
    for (const frame of frames) expect(frame.length - 14).toBeLessThanOrEqual(1280);
    // The prefix before this one is taken back, though hosts may have it for longer than the router's clock can count.
    const gone = advertisements(frames)
      .at(-1)!
      .prefixes.filter((p) => p.valid === 0 && p.prefix.startsWith('2001:'));
    expect(gone.length).toBe(16);
    expect(gone.at(-1)!.prefix).toBe('2001:db8:59::/64');
  });

  it('a lease ends in its time though the link is away: the LAN has nothing of it any more', () => {
    const w = online(isp(), house());
    const { router } = w.home;
    const [client] = router.control.domains.dhcp6!.clients;
    router.setLink('wan', false);
    w.home.told.length = 0;
    router.advance(500 * SECOND);
    expect(client.held.length).toBe(2);
    expect(w.home.told).toEqual([]);
    router.advance(120 * SECOND);
    expect(client.held).toEqual([]);
    expect(w.home.told.filter((line) => /^(lan|guest) remove 2001:/.test(line)).length).toBe(2);
    const again = connect(w.isp, w.home);
    router.setLink('wan', true);
    again.wire.advance(20 * SECOND, 20);
    expect(w.home.told.filter((line) => /^(lan|guest) add 2001:/.test(line)).length).toBe(2);
  });

  it('L-15: no prefix and no route to it is announced for longer than what is left of the lease', () => {
    const { home } = online(isp(), house());
    const { router } = home;
    const dhcp6 = router.control.domains.dhcp6!;
    const [client] = dhcp6.clients;
    const seen = new Set<string>();
    const [held] = client.held.filter(({ kind }) => kind === 'pd');
    router.take('lan');
    // Nobody renews it: first it is deprecated, then it ends.
    for (let t = 0; t < 620 * SECOND; t += 250) {
      router.advance(250);
      const { time } = dhcp6.times(router.now);
      const left = (end: number) => Math.max(0, Math.ceil((end - time) / SECOND));
      for (const ra of advertisements(router.take('lan'))) {
        const prefix = ra.prefixes.find((p) => p.prefix.startsWith('2001:'))!;
        const route = ra.routes.find((r) => r.prefix.startsWith('2001:'))!;
        // One second for what has passed since it was sent.
        expect(prefix.valid).toBeLessThanOrEqual(left(held.valid) + 1);
        expect(prefix.preferred).toBeLessThanOrEqual(left(held.preferred) + 1);
        expect(route.lifetime).toBeLessThanOrEqual(left(held.valid) + 1);
        seen.add(prefix.preferred > 0 ? 'preferred' : prefix.valid > 0 ? 'deprecated' : 'ended');
      }
    }
    expect([...seen]).toEqual(['preferred', 'deprecated', 'ended']);
  });

  it('L-16: however long the lease, a prefix has 2700 s and 5400 s, and nothing else that depends on it more', () => {
    const w = online(isp(undefined, undefined, { server: { preferred: 86_400, valid: 172_800 } }), house());
    const ra = advertisements(w.home.router.take('lan')).at(-1)!;
    const prefix = ra.prefixes.find((p) => p.prefix.startsWith('2001:'))!;
    expect([prefix.preferred, prefix.valid]).toEqual([2700, 5400]);
    expect(ra.lifetime).toBeLessThanOrEqual(2700);
    for (const { lifetime } of ra.routes) expect(lifetime).toBeLessThanOrEqual(2700);
  });
});
