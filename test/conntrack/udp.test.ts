/** UDP, UDP-Lite, GRE and protocols without a tracker: only time and answers tell a query from a stream. */
import { describe, expect, it } from 'vitest';
import { TRACK_ACCEPT, TRACK_INVALID } from '../../conntrack/generic.ts';
import { grePorts, isPptpGre, withSourceKey } from '../../conntrack/gre.ts';
import { canEarlyDrop, hasPorts, invertPorts, portsOf } from '../../conntrack/protocols.ts';
import { gre, grePptp, hex, Random, udp, udpLite } from '../lib/build.ts';
import { Conversation } from './conversation.ts';

const query = udp({ sport: 40_000, dport: 53, checksum: 0 }, 'query').bytes;
const answer = udp({ sport: 53, dport: 40_000, checksum: 0 }, 'answer').bytes;

describe('UDP', () => {
  it('a query and its answer: 30 s, never ASSURED', () => {
    const k = new Conversation();
    expect(k.packet('c', 17, query)).toBe(TRACK_ACCEPT);
    expect([k.left, k.assured]).toEqual([30, false]);
    k.now += 20;
    k.packet('s', 17, answer);
    expect([k.left, k.assured, k.replied]).toEqual([30, false, true]);
    k.now += 1900;
    k.packet('c', 17, query);
    expect([k.left, k.assured]).toEqual([30, false]);
  });

  it('traffic both ways for more than two seconds is a stream: 120 s and ASSURED', () => {
    const k = new Conversation();
    k.packet('c', 17, query);
    k.packet('s', 17, answer);
    k.now += 2000;
    k.packet('c', 17, query);
    expect([k.left, k.assured]).toEqual([30, false]);
    k.now += 1;
    k.packet('c', 17, query);
    expect([k.left, k.assured]).toEqual([120, true]);
  });

  it('a late first answer extends by 30 s, the next packet makes it a stream', () => {
    const k = new Conversation();
    k.packet('c', 17, query);
    k.now += 5000;
    k.packet('s', 17, answer);
    expect([k.left, k.assured]).toEqual([30, false]);
    k.packet('s', 17, answer);
    expect([k.left, k.assured]).toEqual([120, true]);
  });

  it('without an answer it stays at 30 s for ever', () => {
    const k = new Conversation();
    for (let n = 0; n < 100; n++, k.now += 10_000) {
      k.packet('c', 17, query);
      expect([k.left, k.assured]).toEqual([30, false]);
    }
  });

  it('a stream stays one when the clock wraps, and over 25 days', () => {
    const k = new Conversation({}, 0x7fffffff - 1000);
    k.packet('c', 17, query);
    k.packet('s', 17, answer);
    k.now = (k.now + 3000) | 0;
    k.packet('c', 17, query);
    expect([k.left, k.assured]).toEqual([120, true]);
    k.now = (k.now + 0x7fffffff) | 0;
    k.packet('c', 17, query);
    expect(k.left).toBe(120);
  });

  it.each([
    [7, TRACK_INVALID],
    [0, TRACK_INVALID],
    [14, TRACK_INVALID],
    [13, TRACK_ACCEPT],
    [8, TRACK_ACCEPT],
  ])('RFC 768: a length field of %d in 13 bytes', (length, verdict) => {
    const bytes = udp({ sport: 1, dport: 2, length, checksum: 0 }, 'hello').bytes;
    const k = new Conversation();
    expect(k.packet('c', 17, bytes)).toBe(verdict);
    if (verdict === TRACK_INVALID) expect(k.why).toContain('length');
  });

  it('RFC 3828: UDP-Lite’s field is a coverage, and 0 covers all', () => {
    for (const [coverage, verdict] of [
      [0, TRACK_ACCEPT],
      [8, TRACK_ACCEPT],
      [7, TRACK_INVALID],
      [200, TRACK_INVALID],
    ]) {
      const bytes = udpLite({ sport: 1, dport: 2 }, 'hello').bytes;
      bytes[4] = 0;
      bytes[5] = coverage;
      expect(new Conversation().packet('c', 136, bytes), `coverage ${coverage}`).toBe(verdict);
    }
  });
});

describe('GRE', () => {
  const tunnel = gre({ protocol: 0x0800 }, 'inside').bytes;
  const call = grePptp({ callId: 0x1234, seq: 1 }, 'ppp').bytes;

  it('30 s until it is answered, then 180 s and ASSURED', () => {
    const k = new Conversation();
    k.packet('c', 47, tunnel);
    expect([k.left, k.assured]).toEqual([30, false]);
    k.packet('s', 47, tunnel);
    expect([k.left, k.assured]).toEqual([30, false]);
    k.packet('c', 47, tunnel);
    expect([k.left, k.assured]).toEqual([180, true]);
  });

  it('PPTP: the call ID is the destination’s key; the source’s is known from the control connection', () => {
    expect(isPptpGre(call, 0, call.length)).toBe(true);
    const ports = grePorts(call, 0, call.length);
    expect(ports >>> 0).toBe(0x34120000); // raw: bytes 12 34 in the high half
    expect(withSourceKey(ports, 0x7856) >>> 0).toBe(0x34127856);
    expect(invertPorts(47, 4, withSourceKey(ports, 0x7856)) >>> 0).toBe(0x78563412);
    expect(grePorts(tunnel, 0, tunnel.length)).toBe(0);
    expect(grePorts(call, 0, 7)).toBe(0);
  });

  it('version 1 with anything but PPP in it is INVALID', () => {
    const odd = call.slice();
    odd[2] = 0x08;
    odd[3] = 0x00;
    expect(new Conversation().packet('c', 47, odd)).toBe(TRACK_INVALID);
  });
});

describe('protocols without a tracker', () => {
  it.each([50, 41, 4, 89, 33, 253])('protocol %d: ten minutes from the last packet', (proto) => {
    const k = new Conversation();
    expect(k.packet('c', proto, hex('01020304'))).toBe(TRACK_ACCEPT);
    expect(k.left).toBe(600);
    k.now += 300_000;
    expect(k.packet('s', proto, hex('01020304'))).toBe(TRACK_ACCEPT);
    expect([k.left, k.assured]).toEqual([600, false]);
    expect(canEarlyDrop(k.w, k.c)).toBe(false);
  });
});

describe('port words', () => {
  it('are the first four bytes, raw; nothing for protocols without ports', () => {
    const bytes = hex('9c40 0035 0011 0000');
    for (const proto of [6, 17, 33, 132, 136]) {
      expect(portsOf(proto, bytes, 0, 8) >>> 0, `protocol ${proto}`).toBe(0x3500409c);
      expect(portsOf(proto, bytes, 5, 8), 'too short').toBe(0);
      expect(hasPorts(proto)).toBe(true);
    }
    for (const proto of [50, 41, 4, 2, 89]) {
      expect(portsOf(proto, bytes, 0, 8)).toBe(0);
      expect(hasPorts(proto)).toBe(false);
    }
  });

  it('property: inverting twice gives the same word, and swaps source and destination (seed 3)', () => {
    const random = new Random(3);
    for (let n = 0; n < 1000; n++) {
      const ports = random.next() | 0;
      for (const proto of [6, 17, 33, 47, 132, 136]) {
        const inverse = invertPorts(proto, 4, ports);
        expect(inverse & 0xffff).toBe(ports >>> 16);
        expect(invertPorts(proto, 4, inverse)).toBe(ports);
      }
    }
  });
});
