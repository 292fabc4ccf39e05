/** The fragment stage: what is cut, into what, and what the router's own packets get. */
import { describe, expect, it } from 'vitest';
import { GSO_UDP_L4 } from '../../dataplane/frames.ts';
import { checksum, ethernet, get16, ipv4, ipv6, put16, Random, tcp, udp, verify } from '../lib/build.ts';
import { cut4, cut6, drops, FAR, HOST, hopped, isIdle, joined, LAN, routed, send, taken } from './fragment-cut.ts';

const v4 = (bytes: number, o: object = {}) =>
  ipv4({ src: HOST.v4, dst: FAR.v4, id: 77, ...o }, udp({ sport: 1, dport: 2 }, new Random(bytes).bytes(bytes)));
const v6 = (bytes: number) =>
  ipv6({ src: HOST.v6, dst: FAR.v6 }, udp({ sport: 1, dport: 2 }, new Random(bytes).bytes(bytes)));

describe('what came in fragments', () => {
  it('leaves with the cuts that it came with, while they fit', () => {
    const router = routed();
    const four = cut4(v4(3000), [400, 1600, 1608]);
    send(router, four);
    expect(taken(router).map((p) => p.length)).toEqual(four.map((p) => p.length));
    const six = cut6(v6(3000), [400, 1600, 1608], 5);
    send(router, six);
    expect(taken(router).map((p) => p.length)).toEqual(six.map((p) => p.length));
    expect(isIdle(router)).toBe(true);
  });

  it('is cut anew for a smaller link, no fragment larger than the largest that came', () => {
    const router = routed({ wan: { mtu: 1300 } });
    const whole = v4(3000);
    send(router, cut4(whole, [1400]));
    const out = taken(router);
    expect(out.map((p) => p.length)).toEqual([1300, 1300, 468]);
    expect(joined(out)).toEqual([hopped(whole)]);
  });

  it('of IPv6 is never cut smaller: the sender is told the MTU', () => {
    const router = routed({ wan: { mtu: 1300 } });
    send(router, cut6(v6(3000), [1400], 5));
    expect(taken(router)).toEqual([]);
    const [error] = taken(router, 'lan');
    expect([error[40], error[41], get16(error, 46)]).toEqual([2, 0, 1300]);
    expect(drops(router)).toEqual({ PKT_TOO_BIG: 1 });
    expect(isIdle(router)).toBe(true);
  });

  it('goes through neighbours that must be asked first', () => {
    const router = routed({ extra: { neighbors: [{ port: 'lan', ip: HOST.v4, mac: HOST.mac }] } });
    const whole = v4(3000);
    send(router, cut4(whole, [1400, 2000]).reverse());
    const [request] = router.take('wan');
    expect(get16(request, 12)).toBe(0x0806);
    // The answer to the ARP request.
    const reply = request.slice();
    reply.set([2, 0, 0, 0, 0, 0xfe], 6);
    reply.set(request.subarray(6, 12), 0);
    reply[21] = 2;
    reply.set(request.subarray(22, 32), 32);
    reply.set([2, 0, 0, 0, 0, 0xfe], 22);
    reply.set(request.subarray(38, 42), 28);
    router.inject('wan', reply);
    router.advance(10);
    const out = taken(router);
    expect(out.map((p) => p.length)).toEqual([1420, 620, 1028]);
    expect(joined(out)).toEqual([hopped(whole)]);
    expect(isIdle(router)).toBe(true);
  });

  it('has its checksum checked as a whole', () => {
    const router = routed();
    const whole = v4(3000);
    whole[2500] ^= 1;
    send(router, cut4(whole, [1400, 2000]));
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ UDP_CSUM: 1 });
    expect(isIdle(router)).toBe(true);
  });

  it('to the router itself arrives whole: a ping of 3000 bytes is answered', () => {
    const router = routed();
    const body = new Random(5).bytes(3000);
    const echo = new Uint8Array(8 + body.length);
    echo.set([8, 0, 0, 0, 0, 9, 0, 1]);
    echo.set(body, 8);
    put16(echo, 2, checksum(echo));
    send(router, cut4(ipv4({ src: HOST.v4, dst: LAN.v4, id: 3, proto: 1 }, echo), [1480]).reverse());
    const out = taken(router, 'lan');
    expect(out.length).toBe(3);
    const [answer] = joined(out);
    expect(answer[20]).toBe(0);
    expect(answer.subarray(28)).toEqual(body);
    expect(isIdle(router)).toBe(true);
  });
});

describe('what is too long for the link', () => {
  it('of IPv4 without DF is cut, with DF refused', () => {
    const router = routed({ wan: { mtu: 1300 } });
    send(router, [v4(1400)]);
    expect(joined(taken(router))).toEqual([hopped(v4(1400))]);
    send(router, [v4(1400, { df: true })]);
    expect(taken(router)).toEqual([]);
    expect(taken(router, 'lan').map((p) => [p[20], p[21], get16(p, 26)])).toEqual([[3, 4, 1300]]);
  });

  it('as a super-frame without DF is cut to segments and those to fragments', () => {
    const router = routed({ wan: { mtu: 1300 } });
    const body = new Random(1).bytes(4200);
    const whole = ipv4({ src: HOST.v4, dst: FAR.v4, id: 9 }, udp({ sport: 1, dport: 2 }, body));
    const frame = ethernet({ src: HOST.mac, dst: LAN.mac }, whole);
    router.port('lan').push(frame, 0, 0, { flags: 2, gso: GSO_UDP_L4 | (1400 << 16), hdrlen: 42 });
    router.advance(1);
    const out = joined(taken(router));
    expect(out.map((p) => p.length)).toEqual([1428, 1428, 1428]);
    expect(out.flatMap((p) => [...p.subarray(28)])).toEqual([...body]);
    for (const p of out) expect(verify(ethernet({ src: HOST.mac, dst: LAN.mac }, p))).toEqual([]);
    expect(isIdle(router)).toBe(true);
  });

  it('takes all slots it needs or none', () => {
    const router = routed({ wan: { mtu: 1300 }, options: { slots: { small: 8, large: 16 } } });
    const whole = v4(30000);
    send(router, cut4(whole, [8000, 16000, 24000]));
    const free = router.frames.freeSmallCount;
    expect(taken(router)).toEqual([]);
    expect(drops(router)).toEqual({ NO_BUFFER: 1 });
    expect(free).toBe(8);
    expect(isIdle(router)).toBe(true);
  });
});

describe('the router does not break what it passes', () => {
  it('a connection whose packets come now whole, now in fragments', () => {
    const router = routed({ extra: { offload: { mode: 'verify', 'program-after': 1 } } });
    const c = { sport: 1000, dport: 80 };
    send(router, [ipv4({ src: HOST.v4, dst: FAR.v4, id: 1 }, tcp({ ...c, seq: 99, flags: 'S' }))]);
    const back = { sport: 80, dport: 1000 };
    const answer = ipv4({ src: FAR.v4, dst: HOST.v4 }, tcp({ ...back, seq: 499, ack: 100, flags: 'SA' }));
    send(router, [answer], 'wan');
    send(router, [ipv4({ src: HOST.v4, dst: FAR.v4, id: 2 }, tcp({ ...c, seq: 100, ack: 500 }))]);
    taken(router);
    let seq = 100;
    for (let n = 0; n < 20; n++) {
      const whole = ipv4(
        { src: HOST.v4, dst: FAR.v4, id: 10 + n },
        tcp({ ...c, seq, ack: 500 }, new Random(n).bytes(1000)),
      );
      seq += 1000;
      send(router, n % 3 === 1 ? cut4(whole, [504]).reverse() : [whole]);
      expect(joined(taken(router)).map(hoppedBack)).toEqual([hoppedBack(hopped(whole))]);
    }
    expect(router.counters.offload.mismatches).toBe(0);
    expect(isIdle(router)).toBe(true);
  });
});

/** Fragments are joined with DF cleared; whole packets of this test have none. */
function hoppedBack(packet: Uint8Array): string {
  return `${packet}`;
}
