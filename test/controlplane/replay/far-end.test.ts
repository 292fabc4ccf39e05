/**
 * The emulated far end: what the outside says after the router has renamed, renumbered and lengthened what came from
 * inside. The router is played by hand, so that every case is exact.
 */
import { describe, expect, test } from 'vitest';
import { normalizeConfig } from '../../../controlplane/config/index.ts';
import { announcements, pptpCallIds } from '../../../controlplane/replay/announced.ts';
import { FarEnd } from '../../../controlplane/replay/far-end.ts';
import { viewPacket } from '../../../controlplane/replay/packet.ts';
import * as B from '../../lib/build.ts';
import { see } from './files.ts';

const IN = '10.9.0.5';
const OUT = '198.51.100.7';
const WAN = '203.0.113.1';
const wire = { src: '02:00:00:00:00:01', dst: '02:00:00:00:00:02' };

const config = normalizeConfig({
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['10.9.0.1/24'] },
    wan: {
      kind: 'memory',
      zone: 'wan',
      mac: '02:00:00:00:01:02',
      addresses: ['203.0.113.1/30', '2001:db8:ffff::1/64'],
    },
  },
  nat: { masquerade: [{ out: 'wan' }] },
});

const packet = (src: string, dst: string, segment: B.Segment) => B.ethernet(wire, B.ipv4({ src, dst }, segment));
const view = (frame: Uint8Array) => viewPacket(frame, 14, frame.length)!;

/** The router lets `before` out as `after`. */
function sent(far: FarEnd, before: B.Segment, after: B.Segment, src = IN, dst = OUT): void {
  const frame = packet(src, dst, before);
  far.sent(frame, view(frame), [packet(WAN, dst, after)]);
}

/** What the far end makes of a packet as it was captured. */
function answer(far: FarEnd, segment: B.Segment, o: { src?: string; dst?: string } = {}): Uint8Array {
  const frame = packet(o.src ?? OUT, o.dst ?? IN, segment);
  far.answer(frame, view(frame));
  expect(B.verify(frame)).toEqual([]);
  return frame;
}

describe('flows', () => {
  test('ACK and SACK follow what really left, after a command that became longer', () => {
    const far = new FarEnd(config, 1);
    const c = { sport: 4000, dport: 21 };
    sent(far, B.tcp({ ...c, seq: 99, flags: 'S' }), B.tcp({ ...c, sport: 4001, seq: 99, flags: 'S' }));
    sent(far, B.tcp({ ...c, seq: 100 }, 'a'.repeat(20)), B.tcp({ ...c, sport: 4001, seq: 100 }, 'b'.repeat(26)));
    sent(far, B.tcp({ ...c, seq: 120 }, 'more'), B.tcp({ ...c, sport: 4001, seq: 126 }, 'more'));
    const s = { sport: 21, dport: 4000, seq: 7 };
    expect(see(answer(far, B.tcp({ ...s, ack: 100 })))).toMatchObject({ dst: WAN, dport: 4001, ack: 100, seq: 7 });
    expect(see(answer(far, B.tcp({ ...s, ack: 120 }))).ack).toBe(126);
    const sack = answer(far, B.tcp({ ...s, ack: 120, options: { sack: [[120, 124]] } }));
    expect(see(sack).ack).toBe(126);
    expect([B.get32(sack, 14 + 20 + 22), B.get32(sack, 14 + 20 + 26)]).toEqual([126, 130]);
    // A new connection with the same ports begins anew.
    sent(far, B.tcp({ ...c, seq: 120, flags: 'S' }), B.tcp({ ...c, sport: 4002, seq: 120, flags: 'S' }));
    expect(see(answer(far, B.tcp({ ...s, ack: 121 })))).toMatchObject({ dport: 4002, ack: 121 });
  });

  test('acknowledgements from inside follow what really reached the inside', () => {
    const far = new FarEnd(config, 1);
    const frame = packet(OUT, IN, B.tcp({ sport: 5060, dport: 4000, seq: 500 }, 'x'.repeat(10)));
    const tuple = far.answer(frame, view(frame));
    const left = packet(OUT, IN, B.tcp({ sport: 5060, dport: 4000, seq: 500 }, 'x'.repeat(15)));
    far.received(frame, view(frame), tuple, [left]);
    const ack = packet(IN, OUT, B.tcp({ sport: 4000, dport: 5060, seq: 1, ack: 510 }));
    far.acknowledge(ack, view(ack));
    expect(see(ack).ack).toBe(515);
    expect(B.verify(ack)).toEqual([]);
  });

  test('a mapping towards one peer is what another peer uses, and another port keeps its number', () => {
    const far = new FarEnd(config, 1);
    sent(far, B.udp({ sport: 4000, dport: 3478 }, 'stun'), B.udp({ sport: 50_000, dport: 3478 }, 'stun'));
    const peer = answer(far, B.udp({ sport: 9, dport: 4000 }, 'hi'), { src: '192.0.2.66' });
    expect(see(peer)).toMatchObject({ src: '192.0.2.66', dst: WAN, dport: 50_000 });
    expect(see(answer(far, B.udp({ sport: 9, dport: 4001 })))).toMatchObject({ dst: WAN, dport: 4001 });
    expect(see(answer(far, B.udp({ sport: 9, dport: 4001 }), { dst: '10.9.0.77' }))).toMatchObject({ dst: WAN });
  });

  test('the far end answers from where the packet really went, when its destination was changed', () => {
    const far = new FarEnd(config, 1);
    const frame = packet(IN, OUT, B.udp({ sport: 4000, dport: 53 }, 'q'));
    far.sent(frame, view(frame), [packet(WAN, '192.0.2.53', B.udp({ sport: 4000, dport: 5353 }, 'q'))]);
    expect(see(answer(far, B.udp({ sport: 53, dport: 4000 }, 'a')))).toMatchObject({ src: '192.0.2.53', sport: 5353 });
  });

  test('IPv6 without translation is the identity', () => {
    const far = new FarEnd(config, 1);
    const frame = B.ethernet(
      wire,
      B.ipv6({ src: '2001:db8:9::1', dst: '2001:db8:5::5' }, B.tcp({ sport: 20, dport: 4000, flags: 'S' })),
    );
    const before = frame.slice();
    far.answer(frame, view(frame));
    expect(frame).toEqual(before);
  });

  test('fragments: the later ones follow the first', () => {
    const far = new FarEnd(config, 1);
    sent(far, B.udp({ sport: 4000, dport: 53 }), B.udp({ sport: 4000, dport: 53 }));
    const whole = B.ipv4({ src: OUT, dst: IN, id: 77 }, B.udp({ sport: 53, dport: 4000 }, new Uint8Array(2000)));
    const parts = B.fragment4(whole, 1000).map((part) => B.ethernet(wire, part));
    for (const part of parts) {
      far.answer(part, view(part));
      expect(B.verify(part)).toEqual([]);
      expect([...part.slice(30, 34)].join('.')).toBe(WAN);
    }
  });
});

describe('what was announced', () => {
  const c = { sport: 4000, dport: 21, seq: 100 };
  test.each([
    ['PORT 10,9,0,5,15,161\r\n', 'PORT 203,0,113,1,200,10\r\n', 4001, 51_210],
    ['EPRT |1|10.9.0.5|4001|\r\n', 'EPRT |1|203.0.113.1|51210|\r\n', 4001, 51_210],
    [
      '227 Entering Passive Mode (10,9,0,5,15,161).\r\n',
      '227 Entering Passive Mode (203,0,113,1,200,10).\r\n',
      4001,
      51_210,
    ],
    [
      '229 Entering Extended Passive Mode (|||4001|)\r\n',
      '229 Entering Extended Passive Mode (|||51210|)\r\n',
      4001,
      51_210,
    ],
    [
      'PRIVMSG bob :\x01DCC SEND f 168361989 4001 9\x01\r\n',
      'PRIVMSG bob :\x01DCC SEND f 3405803777 51210 9\x01\r\n',
      4001,
      51_210,
    ],
    [
      'SETUP x RTSP/1.0\r\nTransport: RTP/AVP;unicast;client_port=4000-4001\r\n',
      'SETUP x RTSP/1.0\r\nTransport: RTP/AVP;unicast;client_port=51210-51211\r\n',
      4001,
      51_211,
    ],
  ])('%j opens the way to the inside', (written, told, inside, outside) => {
    const far = new FarEnd(config, 1);
    sent(far, B.tcp(c, written), B.tcp({ ...c, sport: 4500 }, told));
    const syn = answer(far, B.tcp({ sport: 20, dport: inside, flags: 'S' }));
    expect(see(syn)).toMatchObject({ src: OUT, dst: WAN, dport: outside });
  });

  test('SDP: the media port and the one above it, at the address of its own c= line', () => {
    const far = new FarEnd(config, 1);
    const body = (address: string, port: number) =>
      `INVITE sip:x SIP/2.0\r\nContact: <sip:me@${address}:5060>\r\n\r\nv=0\r\nc=IN IP4 192.0.2.1\r\nm=audio ${port} RTP/AVP 0\r\nc=IN IP4 ${address}\r\n`;
    const ports = { sport: 5060, dport: 5060 };
    sent(far, B.udp(ports, body(IN, 8000)), B.udp({ ...ports, sport: 61_000 }, body(WAN, 30_000)));
    expect(see(answer(far, B.udp({ sport: 7, dport: 8000 }, 'rtp')))).toMatchObject({ dst: WAN, dport: 30_000 });
    expect(see(answer(far, B.udp({ sport: 8, dport: 8001 }, 'rtcp')))).toMatchObject({ dst: WAN, dport: 30_001 });
  });

  test('binary payloads (H.225): the endpoint behind the inside address', () => {
    const far = new FarEnd(config, 1);
    const body = (address: string, port: number) =>
      B.concat(Uint8Array.of(9, 9, 9), B.ip(address), B.u16(port), Uint8Array.of(1));
    const ports = { sport: 4000, dport: 1720, seq: 1 };
    sent(far, B.tcp(ports, body(IN, 3333)), B.tcp(ports, body(WAN, 44_444)));
    expect(see(answer(far, B.tcp({ sport: 5, dport: 3333, flags: 'S' })))).toMatchObject({ dst: WAN, dport: 44_444 });
  });

  test('a newer announcement of the same port beats the connection before it', () => {
    const far = new FarEnd(config, 1);
    const control = (n: number, told: string) =>
      sent(far, B.tcp({ ...c, seq: n }, 'PORT 10,9,0,5,15,161\r\n'), B.tcp({ ...c, seq: n }, told));
    control(100, 'PORT 203,0,113,1,200,10\r\n');
    answer(far, B.tcp({ sport: 20, dport: 4001, flags: 'S' }));
    sent(far, B.tcp({ sport: 4001, dport: 20, flags: 'SA' }), B.tcp({ sport: 51_210, dport: 20, flags: 'SA' }));
    control(200, 'PORT 203,0,113,1,200,20\r\n');
    expect(see(answer(far, B.tcp({ sport: 20, dport: 4001, flags: 'S' }))).dport).toBe(51_220);
  });

  test('texts that only look like it announce nothing', () => {
    for (const text of ['PORT 1,2,3', 'EPRT |1|x|4|', '227 ok', 'm=audio x', 'PORT 300,1,1,1,1,1', 'client_port=0'])
      expect(announcements(text)).toEqual([]);
  });
});

describe('PPTP (RFC 2637)', () => {
  const message = (type: number, ...words: number[]) =>
    B.concat(B.u16(24), B.u16(1), B.u32(0x1a2b3c4d), B.u16(type), B.u16(0), ...words.map(B.u16), new Uint8Array(8));

  test('call IDs: the control connection tells the translated one back, and GRE carries it', () => {
    const far = new FarEnd(config, 1);
    const ports = { sport: 4000, dport: 1723, seq: 1 };
    sent(far, B.tcp(ports, message(7, 24)), B.tcp(ports, message(7, 4000)));
    const reply = answer(far, B.tcp({ sport: 1723, dport: 4000 }, message(8, 700, 24)));
    const body = see(reply).payload;
    expect([B.get16(body, 12), B.get16(body, 14)]).toEqual([700, 4000]);
    const gre = answer(far, B.grePptp({ callId: 24, seq: 1 }, 'ppp'));
    expect(B.get16(gre, 14 + 20 + 6)).toBe(4000);
    expect([...gre.slice(30, 34)].join('.')).toBe(WAN);
    const other = answer(far, B.grePptp({ callId: 25, seq: 1 }, 'ppp'));
    expect(B.get16(other, 14 + 20 + 6)).toBe(25);
  });

  test('which messages have which call IDs', () => {
    const ids = (type: number) => pptpCallIds(message(type, 1, 2));
    expect([1, 2, 5, 6].map(ids)).toEqual([null, null, null, null]);
    expect([7, 9, 12, 13].map((type) => ids(type)?.own)).toEqual([12, 12, 12, 12]);
    expect([8, 10].map((type) => ids(type)?.peer)).toEqual([14, 14]);
    expect([11, 14, 15].map((type) => ids(type)?.peer)).toEqual([12, 12, 12]);
    expect(pptpCallIds(message(7, 1).slice(0, 12))).toBeNull();
  });
});
