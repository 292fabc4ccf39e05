/** RFC 3128: the variant of RFC 1858's attack that makes a second fragment begin at byte 8. */
import { describe, expect, it } from 'vitest';
import { cut4, drops, FAR, HOST, isIdle, routed, send, taken } from '../dataplane/fragment-cut.ts';
import { ipv4, tcp } from '../lib/build.ts';

const packet = (flags: string) =>
  ipv4({ src: HOST.v4, dst: FAR.v4, id: 1 }, tcp({ sport: 1000, dport: 23, flags }, 'twenty-four bytes of it.'));

describe('RFC 3128 §2', () => {
  it('“if FO=1 and PROTOCOL=TCP then drop”, whatever came before', () => {
    const router = routed();
    const [whole] = [packet('A')];
    const harmless = cut4(whole, [24])[0];
    const rewriting = cut4(packet('S'), [8])[1];
    send(router, [harmless, rewriting]);
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_TINY: 1 });
    send(router, [cut4(whole, [24])[1]]);
    expect(taken(router).length).toBe(2); // the harmless datagram is still one
    expect(isIdle(router)).toBe(true);
  });
});
