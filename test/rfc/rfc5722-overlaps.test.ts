/** RFC 5722 and RFC 8200 §4.5: fragments that overlap end their datagram, silently; IPv4 likewise. */
import { describe, expect, it } from 'vitest';
import { cut4, cut6, drops, FAR, HOST, isIdle, routed, send, taken } from '../dataplane/fragment-cut.ts';
import { ipv4, ipv6, Random, udp } from '../lib/build.ts';

const body = new Random(5722).bytes(2000);
const whole6 = ipv6({ src: HOST.v6, dst: FAR.v6 }, udp({ sport: 1, dport: 2 }, body));
const whole4 = ipv4({ src: HOST.v4, dst: FAR.v4, id: 9 }, udp({ sport: 1, dport: 2 }, body));
const cut = {
  IPv4: (cuts: number[]) => cut4(whole4, cuts),
  IPv6: (cuts: number[]) => cut6(whole6, cuts, 9),
};

describe.each(['IPv4', 'IPv6'] as const)('RFC 5722 §4, %s', (family) => {
  const [a, b, c] = cut[family]([800, 1600]);
  const across = cut[family]([400, 1200])[1]; // 400 … 1200
  const inside = cut[family]([808, 1000])[1]; // within b
  const around = cut[family]([792])[1]; // b and c, and some of a

  it.each([
    ['in front', [across, a]],
    ['behind', [a, across]],
    ['inside', [a, b, inside]],
    ['around', [b, around]],
    ['by one unit only', [a, cut[family]([792, 800])[1]]],
  ])('overlap %s: all fragments are dropped, and nobody is told', (_, fragments) => {
    const router = routed();
    send(router, fragments);
    expect(drops(router)).toEqual({ FRAG_OVERLAP: fragments.length });
    expect(router.path.fragments.held).toBe(0);
    router.advance(61_000);
    expect([...taken(router), ...taken(router, 'lan')]).toEqual([]);
    expect(isIdle(router)).toBe(true);
  });

  it('“including those not yet received”: later fragments make no new datagram until the time is up', () => {
    const router = routed();
    send(router, [a, across]);
    send(router, [a, b, c]);
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_OVERLAP: 5 });
    router.advance(61_000);
    expect(isIdle(router)).toBe(true);
    send(router, [a, b, c]);
    expect(taken(router).length).toBe(3);
    expect(isIdle(router)).toBe(true);
  });

  it('RFC 8200 §4.5: an exact duplicate is not an overlap', () => {
    const router = routed();
    send(router, [a, a, c, a, c, b]);
    expect(taken(router).length).toBe(3);
    expect(drops(router)).toEqual({ FRAG_DUP: 3 });
    expect(isIdle(router)).toBe(true);
  });

  it('… but one with other bytes is', () => {
    const router = routed();
    const other = a.slice();
    other[other.length - 1] ^= 1;
    send(router, [a, other, b, c]);
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_OVERLAP: 4 });
  });
});
