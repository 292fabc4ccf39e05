/** RFC 6946 §4: a fragment header that fragments nothing makes a datagram of its own. RFC 6980: but never of ND. */
import { describe, expect, it } from 'vitest';
import { cut6, drops, FAR, HOST, hopped, isIdle, LAN, routed, send, taken } from '../dataplane/fragment-cut.ts';
import { ethernet, icmpv6, ipv6, tcp, udp } from '../lib/build.ts';

const query = ipv6({ src: HOST.v6, dst: FAR.v6 }, udp({ sport: 1, dport: 53 }, 'a query'));

describe('RFC 6946 §4', () => {
  it('is processed at once, without its fragment header (as Linux forwards it)', () => {
    const router = routed();
    send(router, cut6(query, [], 1));
    expect(taken(router)).toEqual([hopped(query)]);
    expect(isIdle(router)).toBe(true);
  });

  it('is independent of fragments that wait under the same identification', () => {
    const router = routed();
    const long = ipv6({ src: HOST.v6, dst: FAR.v6 }, udp({ sport: 1, dport: 53 }, new Uint8Array(1000)));
    const [a, b] = cut6(long, [504], 1);
    send(router, [a, ...cut6(query, [], 1), b]);
    expect(taken(router).map((p) => p.length)).toEqual([query.length, a.length, b.length]);
    expect(drops(router)).toEqual({});
    expect(isIdle(router)).toBe(true);
  });

  it('one fragment header inside of another is refused', () => {
    const router = routed();
    const [once] = cut6(query, [], 1);
    send(router, cut6(once, [], 2));
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ IPV6_CHAIN: 1 });
    expect(isIdle(router)).toBe(true);
  });

  it('a handshake in atomic fragments is tracked', () => {
    const router = routed({ extra: { zones: { lan: {}, wan: { forward: 'drop' } } } });
    send(router, cut6(ipv6({ src: HOST.v6, dst: FAR.v6 }, tcp({ sport: 9, dport: 80, flags: 'S', seq: 1 })), [], 1));
    const answer = ipv6({ src: FAR.v6, dst: HOST.v6 }, tcp({ sport: 80, dport: 9, flags: 'SA', seq: 5, ack: 2 }));
    send(router, cut6(answer, [], 2), 'wan');
    expect(taken(router, 'lan')).toEqual([hopped(answer)]);
    expect(router.conntrack.count).toBe(1);
  });
});

describe('RFC 6980 §5', () => {
  it('a neighbour solicitation in an atomic fragment is ignored', () => {
    const router = routed();
    const ns = ipv6(
      { src: HOST.v6, dst: LAN.v6, hop: 255 },
      icmpv6({ type: 135 }, Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 1, ...new Array(9).fill(0), 1)),
    );
    router.inject('lan', ethernet({ src: HOST.mac, dst: LAN.mac }, ns));
    expect(taken(router, 'lan').length).toBe(1);
    send(router, cut6(ns, [], 1));
    expect(taken(router, 'lan')).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_ND: 1 });
  });
});
