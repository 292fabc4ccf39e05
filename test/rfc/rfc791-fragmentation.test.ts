/** RFC 791 §3.1, §3.2: what a fragment is, and what a router does that must cut one. */
import { describe, expect, it } from 'vitest';
import {
  cut4,
  drops,
  FAR,
  HOST,
  hopped,
  isIdle,
  joined,
  piece4,
  routed,
  send,
  taken,
} from '../dataplane/fragment-cut.ts';
import { checksum, get16, hex, icmp, ipv4, put16, Random, udp } from '../lib/build.ts';

/** IPv4 only, so that the link may be as narrow as RFC 791 allows. */
function narrow(mtu: number) {
  const only4 = { ethertypes: ['ipv4', 'arp'], addresses: ['203.0.113.1/24'], mtu };
  return routed({
    wan: only4,
    extra: {
      routes: [{ to: '0.0.0.0/0', via: '203.0.113.254' }],
      neighbors: [
        { port: 'lan', ip: HOST.v4, mac: HOST.mac },
        { port: 'wan', ip: '203.0.113.254', mac: '02:00:00:00:00:fe' },
      ],
    },
  });
}

const datagram = (bytes: number, o: object = {}) =>
  ipv4({ src: HOST.v4, dst: FAR.v4, id: 0xbeef, ...o }, udp({ sport: 1, dport: 2 }, new Random(bytes).bytes(bytes)));

describe('RFC 791 §3.2, fragmentation', () => {
  it.each([68, 69, 75, 76, 576, 1006, 1492])('to a link of %i bytes', (mtu) => {
    const router = narrow(mtu);
    const whole = datagram(1400);
    send(router, [whole]);
    const out = taken(router);
    out.forEach((p, n) => {
      expect(p.length).toBeLessThanOrEqual(mtu);
      expect(get16(p, 2)).toBe(p.length);
      expect(get16(p, 4)).toBe(0xbeef); // the identification of the original
      expect(checksum(p.subarray(0, 20))).toBe(0);
      const word = get16(p, 6);
      expect((word & 0x2000) !== 0).toBe(n < out.length - 1);
      if (n < out.length - 1) expect((p.length - 20) & 7).toBe(0);
    });
    expect(joined(out)).toEqual([hopped(whole)]);
    expect(isIdle(router)).toBe(true);
  });

  it('a fragment is a datagram like any other: cut to a smaller link it keeps its place', () => {
    const router = narrow(576);
    const whole = datagram(4000);
    send(router, cut4(whole, [1480, 2960]));
    const out = taken(router);
    for (const p of out) expect(p.length).toBeLessThanOrEqual(576);
    expect(joined(out)).toEqual([hopped(whole)]);
  });

  it('Don’t Fragment: never cut; the sender is told', () => {
    const router = narrow(576);
    send(router, [datagram(1400, { df: true })]);
    expect(taken(router)).toEqual([]);
    expect(taken(router, 'lan').map((p) => [p[20], p[21], get16(p, 26)])).toEqual([[3, 4, 576]]);
    expect(drops(router)).toEqual({ PKT_TOO_BIG: 1 });
  });

  it('options whose copied flag is set are in every fragment, the others in the first only', () => {
    const router = narrow(300);
    // 158: copied, class 0. 30: not copied. 94: not copied, measurement.
    const options = hex('9e04 aaaa 1e04 bbbb 01 5e03 cc 00');
    const whole = datagram(700, { options });
    send(router, [whole]);
    const out = taken(router);
    expect(out.length).toBe(3);
    expect(out[0].slice(20, 33)).toEqual(options);
    for (const p of out.slice(1)) expect(p.slice(20, 33)).toEqual(hex('9e04 aaaa 01010101 01 010101 00'));
    expect(joined(out)).toEqual([hopped(whole)]);
  });
});

describe('RFC 791 §3.2, reassembly', () => {
  it('up to 65535 bytes', () => {
    const router = routed();
    const whole = datagram(65535 - 28);
    expect(whole.length).toBe(65535);
    const cuts = Array.from({ length: 44 }, (_, n) => (n + 1) * 1480);
    const pieces = cut4(whole, cuts);
    send(router, [...pieces].reverse());
    const out = taken(router);
    expect(out.map((p) => p.length)).toEqual(pieces.map((p) => p.length));
    expect(Buffer.compare(joined(out)[0], hopped(whole))).toBe(0);
    expect(isIdle(router)).toBe(true);
  });

  it('more than 65535 bytes is no datagram (“ping of death”)', () => {
    const router = routed();
    const header = ipv4({ src: HOST.v4, dst: FAR.v4, id: 7, proto: 1 }, '');
    const echo = new Uint8Array(1480);
    send(router, [
      piece4(header, { offset: 65528, more: false }, new Uint8Array(100)),
      piece4(header, { offset: 0, more: true }, echo),
    ]);
    expect(drops(router)).toEqual({ FRAG_TOO_FAR: 1 });
    router.advance(31_000);
    expect(isIdle(router)).toBe(true);
  });

  it('more than 65535 bytes only with the first fragment’s options: found when it is whole', () => {
    const router = routed();
    const options = hex('9e04aaaa'.repeat(10));
    const plain = ipv4({ src: HOST.v4, dst: FAR.v4, id: 7, proto: 17 }, '');
    const long = ipv4({ src: HOST.v4, dst: FAR.v4, id: 7, proto: 17, options }, '');
    const pieces = [piece4(long, { offset: 0, more: true }, new Uint8Array(1400))];
    for (let at = 1400; at < 65515 - 1400; at += 1400)
      pieces.push(piece4(plain, { offset: at, more: true }, new Uint8Array(1400)));
    const at = pieces.length * 1400;
    pieces.push(piece4(plain, { offset: at, more: false }, new Uint8Array(65515 - at)));
    send(router, pieces);
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_TOO_FAR: pieces.length });
    expect(isIdle(router)).toBe(true);
  });

  it('teardrop: a second fragment inside of the first', () => {
    const router = routed();
    const header = ipv4({ src: HOST.v4, dst: FAR.v4, id: 242, proto: 17 }, '');
    send(router, [
      piece4(header, { offset: 0, more: true }, new Uint8Array(36)),
      piece4(header, { offset: 24, more: false }, new Uint8Array(4)),
    ]);
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ FRAG_OVERLAP: 2 });
    router.advance(31_000);
    expect(isIdle(router)).toBe(true);
  });

  it('empty fragments and ends that contradict each other end the datagram', () => {
    const router = routed();
    const header = ipv4({ src: HOST.v4, dst: FAR.v4, id: 1, proto: 17 }, '');
    const body = new Uint8Array(800);
    send(router, [piece4(header, { offset: 0, more: true }, body), piece4(header, { offset: 800, more: false }, '')]);
    expect(drops(router)).toEqual({ FRAG_LENGTH: 2 });
    put16(header, 4, 2);
    send(router, [
      piece4(header, { offset: 800, more: false }, body),
      piece4(header, { offset: 2400, more: true }, body),
    ]);
    expect(drops(router)).toEqual({ FRAG_LENGTH: 4 });
    expect(isIdle(router)).toBe(true);
  });

  it('RFC 792: the router answers with Time Exceeded code 1 only what was for itself, and had a first fragment', () => {
    const router = routed();
    const to = (dst: string, id: number) =>
      ipv4({ src: HOST.v4, dst, id }, icmp({ type: 8, id: 1, seq: 1 }, new Uint8Array(2000)));
    send(router, [
      cut4(to('192.168.1.1', 1), [1400])[0],
      cut4(to('192.168.1.1', 2), [1400])[1],
      cut4(to(FAR.v4, 3), [1400])[0],
    ]);
    router.advance(29_900);
    expect(taken(router, 'lan')).toEqual([]);
    router.advance(1_100);
    const errors = taken(router, 'lan');
    expect(errors.map((p) => [p[20], p[21], get16(p, 28 + 4)])).toEqual([[11, 1, 1]]);
    expect(get16(errors[0], 28 + 6)).toBe(0x2000); // quoted as it came
    expect(drops(router)).toEqual({ FRAG_REASM_TIMEOUT: 3 });
    expect(isIdle(router)).toBe(true);
  });
});
