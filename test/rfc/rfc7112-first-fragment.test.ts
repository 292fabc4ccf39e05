/** RFC 7112 §5: the first fragment holds the whole header chain, the upper-layer header included. */
import { describe, expect, it } from 'vitest';
import { cut6, drops, FAR, HOST, isIdle, joined, routed, send, taken } from '../dataplane/fragment-cut.ts';
import { destinationOptions, get32, icmpv6, ipv6, put16, tcp, udp } from '../lib/build.ts';

const to = { src: HOST.v6, dst: FAR.v6 };

describe('RFC 7112 §5', () => {
  it.each([
    ['TCP cut in its header', ipv6(to, tcp({ sport: 1, dport: 2, flags: 'S' }, new Uint8Array(100))), 16],
    [
      'extension headers cut',
      ipv6({ ...to, ext: [destinationOptions(new Uint8Array(100))] }, udp({ sport: 1, dport: 2 }, 'x')),
      48,
    ],
    [
      'nothing but an extension header',
      ipv6({ ...to, ext: [destinationOptions()] }, udp({ sport: 1, dport: 2 }, new Uint8Array(99))),
      8,
    ],
  ])('%s: dropped, Parameter Problem code 3', (_, whole, at) => {
    const router = routed();
    const pieces = cut6(whole, [at], 1);
    send(router, pieces);
    expect(taken(router)).toEqual([]);
    const [error] = taken(router, 'lan');
    expect([error[40], error[41], get32(error, 44)]).toEqual([4, 3, 0]);
    // The quote is the fragment as it came.
    expect(error.slice(48)).toEqual(pieces[0]);
    expect(drops(router)).toEqual({ FRAG_TINY: 1 });
    router.advance(61_000);
    expect(drops(router)).toEqual({ FRAG_TINY: 1, FRAG_REASM_TIMEOUT: 1 });
    expect(taken(router, 'lan')).toEqual([]); // the rest alone is no reason for another error
    expect(isIdle(router)).toBe(true);
  });

  it('the header chain is whole: forwarded', () => {
    const router = routed();
    const whole = ipv6(
      { ...to, ext: [destinationOptions()] },
      tcp({ sport: 1, dport: 2, flags: 'S' }, new Uint8Array(100)),
    );
    send(router, cut6(whole, [32], 1));
    expect(joined(taken(router)).length).toBe(1);
  });

  it.each([
    ['request', 128, [[4, 3]]],
    ['error (RFC 4443 §2.4 e)', 1, []],
  ])('ICMPv6 cut short, an %s', (_, type, answers) => {
    const router = routed();
    const [piece] = cut6(ipv6(to, icmpv6({ type }, new Uint8Array(200))), [8], 1);
    const short = piece.slice(0, -4);
    put16(short, 4, short.length - 40);
    send(router, [short]);
    expect(drops(router)).toEqual({ FRAG_TINY: 1 });
    expect(taken(router, 'lan', { skipQuotes: true }).map((p) => [p[40], p[41]])).toEqual(answers);
  });
});
