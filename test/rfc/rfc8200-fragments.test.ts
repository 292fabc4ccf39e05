/** RFC 8200 §4.5: the fragment header, what a fragment may be, and what the sender is told. */
import { describe, expect, it } from 'vitest';
import { cut6, drops, FAR, HOST, hopped, isIdle, joined, routed, send, taken } from '../dataplane/fragment-cut.ts';
import { get16, get32, hopByHop, icmpv6, ipv6, put16, Random, udp } from '../lib/build.ts';

const datagram = (bytes: number, o: object = {}) =>
  ipv6({ src: HOST.v6, dst: FAR.v6, ...o }, udp({ sport: 1, dport: 2 }, new Random(bytes).bytes(bytes)));

describe('RFC 8200 §4.5, fragments that are refused', () => {
  it('not a multiple of 8 long and more follow: Parameter Problem code 0 at the Payload Length', () => {
    const router = routed();
    const [a, b] = cut6(datagram(1000), [504], 1);
    const odd = a.slice(0, -3);
    put16(odd, 4, odd.length - 40);
    send(router, [b, odd]);
    const [error] = taken(router, 'lan', { skipQuotes: true });
    expect([error[40], error[41], get32(error, 44)]).toEqual([4, 0, 4]);
    expect(error.slice(48, 48 + odd.length)).toEqual(odd);
    expect(drops(router)).toEqual({ FRAG_LENGTH: 2 }); // with what was there already
    expect(isIdle(router)).toBe(true);
  });

  it.each([
    ['', [], 42],
    [' behind hop-by-hop options', [hopByHop()], 50],
  ])('beyond 65535 bytes%s: Parameter Problem code 0 at the Fragment Offset', (_, ext, pointer) => {
    const router = routed();
    const fixed = 40 + ext.length * 8;
    const piece = cut6(datagram(200, { ext }), [], 1, { fixed, field: ext.length ? 40 : 6 })[0];
    put16(piece, pointer, 65528);
    send(router, [piece]);
    const [error] = taken(router, 'lan');
    expect([error[40], error[41], get32(error, 44)]).toEqual([4, 0, pointer]);
    expect(drops(router)).toEqual({ FRAG_TOO_FAR: 1 });
    expect(isIdle(router)).toBe(true);
  });

  it('… but what may be part of an ICMPv6 error is not answered (RFC 4443 §2.4 e)', () => {
    const router = routed();
    const piece = cut6(
      ipv6({ src: HOST.v6, dst: FAR.v6 }, icmpv6({ type: 128 }, new Uint8Array(200).fill(200))),
      [],
      1,
    )[0];
    put16(piece, 42, 65528);
    send(router, [piece]);
    expect(taken(router, 'lan')).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_TOO_FAR: 1 });
  });
});

describe('RFC 8200 §4.5, reassembly', () => {
  it('the first fragment’s headers count, whatever the others say', () => {
    const router = routed();
    const whole = datagram(2000, { hop: 33, flow: 0x12345 });
    const pieces = cut6(whole, [800, 1600], 1, {
      change: (h, n) => {
        if (n > 0) h.set([0x60, 0, 0, n, h[4], h[5], h[6], 200], 0);
      },
    });
    // The next header of a later fragment may differ, too: only the first one's is used.
    pieces[1][40] = 99;
    send(router, pieces.reverse());
    expect(joined(taken(router))).toEqual([hopped(whole)]);
  });

  it('60 s after the first to come: Time Exceeded code 1, if the first fragment is there', () => {
    const router = routed();
    const [a, b] = cut6(datagram(1000), [504], 1);
    const [, d] = cut6(datagram(1000), [504], 2);
    send(router, [d]);
    router.advance(10_000);
    send(router, [b]);
    router.advance(10_000);
    put16(a, 46, 3); // a datagram of its own: identification 3
    send(router, [a]);
    router.advance(50_000);
    expect(drops(router)).toEqual({ FRAG_REASM_TIMEOUT: 2 });
    expect(taken(router, 'lan')).toEqual([]);
    router.advance(10_000);
    const [error] = taken(router, 'lan');
    expect([error[40], error[41]]).toEqual([3, 1]);
    expect(error.slice(48, 48 + a.length)).toEqual(a);
    expect(drops(router)).toEqual({ FRAG_REASM_TIMEOUT: 3 });
    expect(isIdle(router)).toBe(true);
  });

  it('a payload of 65535 bytes, and not one more', () => {
    const router = routed();
    const whole = ipv6({ src: HOST.v6, dst: FAR.v6 }, udp({ sport: 1, dport: 2 }, new Random(1).bytes(65535 - 8)));
    send(
      router,
      cut6(
        whole,
        Array.from({ length: 45 }, (_, n) => (n + 1) * 1448),
        1,
      ).reverse(),
    );
    const out = taken(router);
    expect(Buffer.compare(joined(out)[0], hopped(whole))).toBe(0);
    expect(isIdle(router)).toBe(true);
  });

  it('routers fragment no one else’s packets: what is too big is answered', () => {
    const router = routed({ wan: { mtu: 1300 } });
    send(router, [datagram(1400)]);
    expect(taken(router)).toEqual([]);
    const [error] = taken(router, 'lan');
    expect([error[40], error[41], get16(error, 46)]).toEqual([2, 0, 1300]);
  });

  it('identifications that the router chooses do not repeat and do not count (RFC 7739)', () => {
    const router = routed();
    const ids = new Set<number>();
    let near = 0;
    let before = 0;
    for (let n = 0; n < 300; n++) {
      send(router, cut6(datagram(1000), [504], n));
      const [a, b] = taken(router);
      expect(get32(a, 44)).toBe(get32(b, 44));
      const id = get32(a, 44);
      if (Math.abs(id - before) < 1_000_000) near++;
      before = id;
      ids.add(id);
    }
    expect(ids.size).toBe(300);
    expect(near).toBeLessThan(5);
  });
});
