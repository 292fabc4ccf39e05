/** RFC 1858 §3: a first fragment of TCP too small to hold the flags, made to pass a filter. */
import { describe, expect, it } from 'vitest';
import { cut4, drops, FAR, HOST, isIdle, joined, routed, send, taken } from '../dataplane/fragment-cut.ts';
import { ipv4, SYN, tcp, udp } from '../lib/build.ts';

const syn = ipv4(
  { src: HOST.v4, dst: FAR.v4, id: 1 },
  tcp({ sport: 1000, dport: 23, flags: 'S', options: { mss: 1460 } }),
);

describe('RFC 1858 §3, the tiny fragment attack', () => {
  it('eight bytes of TCP: dropped', () => {
    const router = routed();
    send(router, cut4(syn, [8]));
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_TINY: 2 });
    expect(isIdle(router)).toBe(true);
  });

  it('sixteen bytes hold the flags, and pass', () => {
    const router = routed();
    send(router, cut4(syn, [16]));
    expect(joined(taken(router)).length).toBe(1);
    expect(drops(router)).toEqual({});
  });

  it('UDP has no flags: eight bytes are its whole header', () => {
    const router = routed();
    send(
      router,
      cut4(ipv4({ src: HOST.v4, dst: FAR.v4, id: 1 }, udp({ sport: 1, dport: 2 }, 'sixteen bytes ..')), [8]),
    );
    expect(joined(taken(router)).length).toBe(1);
    expect(isIdle(router)).toBe(true);
  });

  it('RFC 1858 §4: no later fragment overwrites the flags, neither from byte 8 nor from byte 0', () => {
    const router = routed();
    const first = cut4(syn, [16]);
    const ack = ipv4(
      { src: HOST.v4, dst: FAR.v4, id: 1 },
      tcp({ sport: 1000, dport: 23, flags: 'A' }, 'data data data data'),
    );
    send(router, [first[0], cut4(ack, [8])[1], first[1]]);
    const [left] = joined(taken(router));
    expect(left[33]).toBe(SYN);
    expect(drops(router)).toEqual({ FRAG_TINY: 1 });
    send(router, [first[0], cut4(ack, [16])[0], first[1]]);
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_TINY: 1, FRAG_OVERLAP: 3 });
    router.advance(31_000);
    expect(isIdle(router)).toBe(true);
  });
});
