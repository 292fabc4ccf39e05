/** RFC 815: a datagram is whole when no hole is left, in whatever order its fragments come. */
import { describe, expect, it } from 'vitest';
import { cut4, cut6, FAR, HOST, hopped, isIdle, joined, routed, send, taken } from '../dataplane/fragment-cut.ts';
import { ipv4, ipv6, Random, udp } from '../lib/build.ts';

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item, n) => permutations(items.filter((_, m) => m !== n)).map((rest) => [item, ...rest]));
}

describe('RFC 815 §3', () => {
  const body = new Random(815).bytes(1200);
  it.each(['IPv4', 'IPv6'])('all 120 orders of five fragments, %s', (family) => {
    const router = routed();
    permutations([0, 1, 2, 3, 4]).forEach((order, n) => {
      const segment = udp({ sport: 8, dport: 15 }, body);
      const whole =
        family === 'IPv4'
          ? ipv4({ src: HOST.v4, dst: FAR.v4, id: n + 1 }, segment)
          : ipv6({ src: HOST.v6, dst: FAR.v6 }, segment);
      const cuts = [200, 240, 248, 1000];
      const pieces = family === 'IPv4' ? cut4(whole, cuts) : cut6(whole, cuts, n + 1);
      order.forEach((which, k) => {
        expect(taken(router)).toEqual([]); // nothing leaves while there is a hole
        expect(router.path.fragments.held).toBe(k);
        send(router, [pieces[which]]);
      });
      const out = taken(router);
      // They leave in order, whatever order they came in.
      expect(out.map((p) => p.length)).toEqual(pieces.map((p) => p.length));
      expect(joined(out)).toEqual([hopped(whole)]);
    });
    expect(isIdle(router)).toBe(true);
  });
});
