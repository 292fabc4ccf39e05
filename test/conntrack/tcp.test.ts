/**
 * TCP tracking in named scenarios with real sequence numbers, over a virtual clock. What Linux does with random ones is
 * in tcp-linux.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { TRACK_ACCEPT, TRACK_ACCEPT_LAST, TRACK_IGNORE, TRACK_INVALID } from '../../conntrack/generic.ts';
import {
  CT_DEADLINE,
  CT_STATUS,
  CT_TCP,
  IPS_FIXED_TIMEOUT,
  TCP_CLOSE,
  TCP_CLOSE_WAIT,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT,
  TCP_LAST_ACK,
  TCP_MAXEND,
  TCP_SYN_RECV,
  TCP_SYN_SENT,
  TCP_SYN_SENT2,
  TCP_TIME_WAIT,
} from '../../conntrack/record.ts';
import { relearnTcp } from '../../conntrack/tcp.ts';
import { Random, tcp } from '../lib/build.ts';
import { Conversation, established } from './conversation.ts';

describe('opening', () => {
  it('handshake: 120 s, 60 s, five days; ASSURED with the last ACK', () => {
    const k = new Conversation();
    expect(k.tcp('c', 'S', { seq: 1000 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.left, k.assured]).toEqual([TCP_SYN_SENT, 120, false]);
    expect(k.tcp('s', 'SA', { seq: 5000, ack: 1001 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.left, k.assured]).toEqual([TCP_SYN_RECV, 60, false]);
    expect(k.tcp('c', 'A', { seq: 1001, ack: 5001 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.left, k.assured]).toEqual([TCP_ESTABLISHED, 432_000, true]);
  });

  it('a SYN sent again passes and does not renew the time', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000 });
    k.now += 3000;
    expect(k.tcp('c', 'S', { seq: 1000 })).toBe(TRACK_ACCEPT);
    expect(k.left).toBe(117);
  });

  it('a SYN/ACK for another SYN is INVALID', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000 });
    expect(k.tcp('s', 'SA', { seq: 5000, ack: 777_777 })).toBe(TRACK_INVALID);
    expect(k.why).toContain('ACK is over the upper bound');
    expect(k.state).toBe(TCP_SYN_SENT);
  });

  it('simultaneous open: two SYNs, two SYN/ACKs', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000 });
    expect(k.tcp('s', 'S', { seq: 5000 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_SYN_SENT2);
    expect(k.left).toBe(120);
    expect(k.tcp('s', 'SA', { seq: 5000, ack: 1001 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_SYN_RECV);
    // The other end's ACK may be the one that completes it.
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1001 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.assured]).toEqual([TCP_ESTABLISHED, true]);
  });

  it.each(['SA', 'FA', 'R', 'RA'])('%s opens nothing', (flags) => {
    const k = new Conversation();
    expect(k.tcp('c', flags, { seq: 1000, ack: 5000 })).toBe(TRACK_INVALID);
    expect(k.why).toContain('cannot open');
  });

  it.each(['', 'F', 'SF', 'SR', 'FR', 'SFRPAU', 'FPU'])('flags "%s" are INVALID, in a connection as well', (flags) => {
    const k = established();
    expect(k.tcp('c', flags, { seq: 1001, ack: 5001 })).toBe(TRACK_INVALID);
    expect(k.why).toContain('flag');
    expect(new Conversation().tcp('c', flags)).toBe(TRACK_INVALID);
  });

  it('a refused connection: the RST passes and is its end', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000 });
    expect(k.tcp('s', 'RA', { seq: 0, ack: 1001 })).toBe(TRACK_ACCEPT_LAST);
    expect(k.live).toBe(false);
  });
});

describe('picked up in the middle', () => {
  it('is taken up by default, five minutes until it is answered', () => {
    const k = new Conversation();
    expect(k.tcp('c', 'PA', { seq: 1_000_000, ack: 2_000_000, data: 100 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.left, k.assured]).toEqual([TCP_ESTABLISHED, 300, false]);
    expect(k.tcp('s', 'A', { seq: 2_000_000, ack: 1_000_100 })).toBe(TRACK_ACCEPT);
    // SEEN_REPLY is known to the next packet only.
    expect(k.tcp('c', 'A', { seq: 1_000_100, ack: 2_000_000 })).toBe(TRACK_ACCEPT);
    expect([k.assured, k.left]).toEqual([true, 432_000]);
  });

  it('does not judge by a window that it cannot scale', () => {
    const k = new Conversation();
    k.tcp('c', 'A', { seq: 1_000_000, ack: 2_000_000, win: 100 });
    expect(k.tcp('s', 'PA', { seq: 2_060_000, ack: 1_000_000, data: 1000 })).toBe(TRACK_ACCEPT);
  });

  it('is INVALID with tcp_loose=0', () => {
    const k = new Conversation({ tcp_loose: 0 });
    expect(k.tcp('c', 'PA', { seq: 1_000_000, ack: 2_000_000, data: 100 })).toBe(TRACK_INVALID);
    expect(k.why).toContain('tcp_loose');
  });
});

describe('window', () => {
  it('data up to the edge of the window passes; all of it beyond is INVALID', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000 });
    k.tcp('s', 'SA', { seq: 5000, ack: 1001, win: 2000 });
    k.tcp('c', 'A', { seq: 1001, ack: 5001 });
    expect(k.tcp('c', 'A', { seq: 1001, ack: 5001, data: 1400 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('c', 'A', { seq: 2401, ack: 5001, data: 600 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('c', 'A', { seq: 1001 + 2000 + 5000, ack: 5001, data: 10 })).toBe(TRACK_INVALID);
    expect(k.why).toContain('over the window of the receiver');
  });

  it('RFC 7323: with scale 7 on both sides the window is 128 times larger, without it is not', () => {
    const jump = 1001 + 8_000_000; // of 65535 × 128 = 8 388 480 allowed
    for (const [scale, verdict] of [
      [7, TRACK_ACCEPT],
      [undefined, TRACK_INVALID],
    ] as const) {
      const k = new Conversation();
      k.tcp('c', 'S', { seq: 1000, options: { mss: 1460, wscale: 7, sackPermitted: true } });
      k.tcp('s', 'SA', { seq: 5000, ack: 1001, options: { mss: 1460, wscale: scale, sackPermitted: true } });
      k.tcp('c', 'A', { seq: 1001, ack: 5001 });
      k.tcp('s', 'A', { seq: 5001, ack: 1001 });
      expect(k.tcp('c', 'A', { seq: jump, ack: 5001, data: 100 }), `scale ${scale}`).toBe(verdict);
    }
  });

  it('a scale above 14 counts as 14 (RFC 7323 §2.3)', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000, options: { wscale: 255 } });
    k.tcp('s', 'SA', { seq: 5000, ack: 1001, options: { wscale: 255 } });
    k.tcp('c', 'A', { seq: 1001, ack: 5001, win: 65_535 });
    // What the server may send: up to 5001 + 65535 << 14.
    expect(k.w[k.c + CT_TCP + 4 + TCP_MAXEND]).toBe((5001 + (65_535 << 14)) | 0);
  });

  it('an ACK for what was never sent is INVALID', () => {
    const k = established();
    k.tcp('c', 'PA', { seq: 1001, ack: 5001, data: 100 });
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1101 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1102 })).toBe(TRACK_INVALID);
    expect(k.why).toContain('ACKed data not seen yet');
  });

  it('SACK: blocks beyond what was sent are INVALID, holes are not', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000, options: { sackPermitted: true } });
    k.tcp('s', 'SA', { seq: 5000, ack: 1001, options: { sackPermitted: true } });
    k.tcp('c', 'A', { seq: 1001, ack: 5001 });
    // The first kilobyte is lost in front of us, the second comes.
    expect(k.tcp('c', 'A', { seq: 2001, ack: 5001, data: 1000 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1001, options: { sack: [[2001, 3001]] } })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1001, options: { sack: [[2001, 3002]] } })).toBe(TRACK_INVALID);
    // Without SACK permitted the option means nothing.
    const plain = established();
    expect(plain.tcp('s', 'A', { seq: 5001, ack: 1001, options: { sack: [[2001, 3002]] } })).toBe(TRACK_ACCEPT);
  });

  it('a retransmission older than the window passes without effect', () => {
    const k = established();
    let seq = 1001;
    for (let n = 0; n < 60; n++, seq += 1400) {
      k.tcp('c', 'A', { seq, ack: 5001, data: 1400 });
      k.tcp('s', 'A', { seq: 5001, ack: seq + 1400 });
    }
    expect(k.tcp('c', 'A', { seq: 1001, ack: 5001, data: 1400 })).toBe(TRACK_IGNORE);
    expect(k.why).toContain('already ACKed');
  });

  it('keepalives: one byte below, answered, for hours', () => {
    const k = established();
    for (let n = 0; n < 20; n++) {
      k.now += 3_600_000;
      expect(k.tcp('c', 'A', { seq: 1000, ack: 5001 })).toBe(TRACK_ACCEPT);
      expect(k.tcp('s', 'A', { seq: 5001, ack: 1001 })).toBe(TRACK_ACCEPT);
      expect(k.left).toBe(432_000);
    }
  });

  it('a zero window and its probe of one byte', () => {
    const k = established();
    k.tcp('s', 'A', { seq: 5001, ack: 1001, win: 0 });
    expect(k.left).toBe(300); // a receiver that stays closed is not worth five days
    expect(k.tcp('c', 'A', { seq: 66_536, ack: 5001, data: 1 })).toBe(TRACK_ACCEPT);
  });

  it('sequence numbers wrap', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 0xfffffff0 });
    k.tcp('s', 'SA', { seq: 0x7ffffff0, ack: 0xfffffff1 });
    k.tcp('c', 'A', { seq: 0xfffffff1, ack: 0x7ffffff1 });
    let c = 0xfffffff1;
    let s = 0x7ffffff1;
    for (let n = 0; n < 50; n++) {
      expect(k.tcp('c', 'PA', { seq: c, ack: s, data: 1000 })).toBe(TRACK_ACCEPT);
      c = (c + 1000) >>> 0;
      expect(k.tcp('s', 'PA', { seq: s, ack: c, data: 500 })).toBe(TRACK_ACCEPT);
      s = (s + 500) >>> 0;
    }
    expect(k.tcp('s', 'A', { seq: s, ack: (c + 1) >>> 0 })).toBe(TRACK_INVALID);
  });

  it('a GSO super-frame counts as one segment of all its bytes', () => {
    const k = established();
    expect(k.tcp('c', 'A', { seq: 1001, ack: 5001, data: 60_000 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 61_001 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 61_002 })).toBe(TRACK_INVALID);
  });

  it('a SYN exactly half the circle away was dropped as beyond the window; Linux lets it pass', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 0xfffffd6e });
    k.tcp('c', 'S', { seq: 0x7ffffd6e });
    expect(k.passed, k.why).toBe(true);
  });

  it('tcp_be_liberal lets everything outside the window pass, but not a wrong RST', () => {
    const k = established({ tcp_be_liberal: 1 });
    expect(k.tcp('c', 'A', { seq: 900_000_000, ack: 5001, data: 10 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 777_777_777 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'R', { seq: 4000 })).toBe(TRACK_INVALID);
  });

  it('an offset that the router added to the payload is taken off the ACK', () => {
    const k = established();
    k.tcp('c', 'PA', { seq: 1001, ack: 5001, data: 20 });
    // The router made those 20 bytes 27: the server acknowledges 1028.
    const ack = tcp({ sport: 80, dport: 40_000, seq: 5001, ack: 1028, flags: 'A' }).bytes;
    expect(k.packet('s', 6, ack)).toBe(TRACK_INVALID);
    expect(k.packet('s', 6, ack, 4, 7)).toBe(TRACK_ACCEPT);
  });
});

describe('RST (RFC 5961)', () => {
  it('the exact next sequence number closes: ten seconds', () => {
    const k = established();
    expect(k.tcp('s', 'RA', { seq: 5001, ack: 1001 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.left]).toEqual([TCP_CLOSE, 10]);
  });

  it('in the window but inexact: it passes, the state stays, and the challenge ACK gives it time again', () => {
    const k = established();
    expect(k.tcp('s', 'R', { seq: 5100 })).toBe(TRACK_ACCEPT);
    expect(k.why).toContain('challenge ACK');
    expect([k.state, k.left]).toEqual([TCP_ESTABLISHED, 10]);
    expect(k.tcp('c', 'A', { seq: 1001, ack: 5001 })).toBe(TRACK_ACCEPT);
    // Five minutes, not days: the numbers up to the RST's count as sent and not acknowledged.
    expect([k.state, k.left]).toEqual([TCP_ESTABLISHED, 300]);
    // The true end answers the challenge with the number that it was told.
    expect(k.tcp('s', 'R', { seq: 5001 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_CLOSE);
  });

  it.each([4900, 5001 + 200_000, 1, 0x80005001])('out of the window (%d) is INVALID', (seq) => {
    const k = established();
    expect(k.tcp('s', 'R', { seq })).toBe(TRACK_INVALID);
    expect([k.state, k.left]).toEqual([TCP_ESTABLISHED, 432_000]);
  });

  it('right behind data that is not acknowledged yet closes', () => {
    const k = established();
    k.tcp('s', 'PA', { seq: 5001, ack: 1001, data: 19 });
    expect(k.tcp('s', 'RA', { seq: 5020, ack: 1001 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_CLOSE);
  });

  it('property: a blind RST closes at one number in four billion (seed 7)', () => {
    const random = new Random(7);
    let closed = 0;
    for (let n = 0; n < 3000; n++) {
      const k = established();
      k.tcp('s', 'PA', { seq: 5001, ack: 1001, data: 100 });
      k.tcp('c', 'A', { seq: 1001, ack: 5101 });
      k.tcp('s', 'R', { seq: n % 2 ? random.next() : 5102 + random.int(0, 65_000) });
      if (k.state === TCP_CLOSE) closed++;
    }
    expect(closed).toBe(0);
  });

  it('a RST that acknowledges its own side’s SYN closed a connection from outside of every window', () => {
    const k = established();
    // Somebody who can forge one side sends both: a SYN, which passes for the end to judge, and a RST "in answer" to it.
    expect(k.tcp('c', 'S', { seq: 900_000_000 })).toBe(TRACK_IGNORE);
    expect(k.tcp('c', 'R', { seq: 123_456_789, ack: 900_000_001 })).toBe(TRACK_INVALID);
    expect(k.state).toBe(TCP_ESTABLISHED);
    // The other side's answer to that SYN closes, wherever it stands.
    expect(k.tcp('c', 'S', { seq: 900_000_000 })).toBe(TRACK_IGNORE);
    expect(k.tcp('s', 'RA', { seq: 0, ack: 900_000_001 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_CLOSE);
  });

  it('half-open: an ACK from the old connection, the RST it draws, a new SYN', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000 });
    expect(k.tcp('s', 'A', { seq: 900_000, ack: 444_444 })).toBe(TRACK_IGNORE);
    expect(k.tcp('c', 'R', { seq: 444_444 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_CLOSE);
    expect(k.tcp('c', 'S', { seq: 1000 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_SYN_SENT);
    expect(k.tcp('s', 'SA', { seq: 5000, ack: 1001 })).toBe(TRACK_ACCEPT);
  });
});

describe('closing', () => {
  it('each side in turn: 120, 60, 30, 120 s', () => {
    const k = established();
    const seen: [number, number][] = [];
    const step = (side: 'c' | 's', flags: string, seq: number, ack: number) => {
      expect(k.tcp(side, flags, { seq, ack })).toBe(TRACK_ACCEPT);
      seen.push([k.state, k.left]);
    };
    step('c', 'FA', 1001, 5001);
    step('s', 'A', 5001, 1002);
    step('s', 'FA', 5001, 1002);
    step('c', 'A', 1002, 5002);
    expect(seen).toEqual([
      [TCP_FIN_WAIT, 120],
      [TCP_CLOSE_WAIT, 60],
      [TCP_LAST_ACK, 30],
      [TCP_TIME_WAIT, 120],
    ]);
  });

  it('half closed: the server still sends a lot', () => {
    const k = established();
    k.tcp('c', 'FA', { seq: 1001, ack: 5001 });
    let seq = 5001;
    for (let n = 0; n < 100; n++) {
      expect(k.tcp('s', 'A', { seq, ack: 1002, data: 1400 })).toBe(TRACK_ACCEPT);
      seq += 1400;
      expect(k.tcp('c', 'A', { seq: 1002, ack: seq })).toBe(TRACK_ACCEPT);
      expect(k.state).toBe(TCP_CLOSE_WAIT);
    }
  });

  it('TIME_WAIT: a SYN of the client opens a new connection on the same ports', () => {
    const k = established();
    k.tcp('c', 'FA', { seq: 1001, ack: 5001 });
    k.tcp('s', 'FA', { seq: 5001, ack: 1002 });
    k.tcp('c', 'A', { seq: 1002, ack: 5002 });
    expect(k.state).toBe(TCP_TIME_WAIT);
    expect(k.tcp('c', 'S', { seq: 70_000 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.left, k.assured, k.replied]).toEqual([TCP_SYN_SENT, 120, false, false]);
    expect(k.tcp('s', 'SA', { seq: 9000, ack: 70_001 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('c', 'A', { seq: 70_001, ack: 9001 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_ESTABLISHED);
  });

  it('TIME_WAIT: a SYN of the server opens one with the roles exchanged', () => {
    const k = established();
    k.tcp('c', 'FA', { seq: 1001, ack: 5001 });
    k.tcp('s', 'FA', { seq: 5001, ack: 1002 });
    k.tcp('c', 'A', { seq: 1002, ack: 5002 });
    expect(k.tcp('s', 'S', { seq: 70_000 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.openedByServer]).toEqual([TCP_SYN_SENT, true]);
  });

  it('LAST_ACK: a challenge ACK against a stray SYN is not the last ACK (RFC 5961 §4.2)', () => {
    const k = established();
    k.tcp('c', 'FA', { seq: 1001, ack: 5001 });
    k.tcp('s', 'FA', { seq: 5001, ack: 1002 });
    expect(k.state).toBe(TCP_LAST_ACK);
    expect(k.tcp('c', 'S', { seq: 900_000 })).toBe(TRACK_IGNORE);
    expect(k.tcp('s', 'A', { seq: 5002, ack: 1002 })).toBe(TRACK_IGNORE);
    expect(k.why).toContain('challenge ACK');
    expect(k.state).toBe(TCP_LAST_ACK);
    expect(k.tcp('s', 'A', { seq: 5002, ack: 1002 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_TIME_WAIT);
  });

  it('the client restarts with the same port while we hold ESTABLISHED: we follow the ends', () => {
    const k = established();
    expect(k.tcp('c', 'S', { seq: 0x40000000, options: { wscale: 5, sackPermitted: true } })).toBe(TRACK_IGNORE);
    expect(k.state).toBe(TCP_ESTABLISHED);
    expect(k.tcp('s', 'SA', { seq: 0x70000000, ack: 0x40000001, options: { wscale: 5 } })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_SYN_RECV);
    expect(k.tcp('c', 'A', { seq: 0x40000001, ack: 0x70000001 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_ESTABLISHED);
    // What is left of the old one has no effect.
    expect(k.tcp('c', 'A', { seq: 1001, ack: 5001 })).toBe(TRACK_IGNORE);
  });

  it('a FIN and a RST outside the window, one from each side, shorten five days to five minutes', () => {
    const k = established();
    k.tcp('c', 'FA', { seq: 700_000_000, ack: 5001 });
    expect([k.verdict, k.left]).toEqual([TRACK_INVALID, 432_000]);
    k.tcp('s', 'R', { seq: 700_000_000 });
    expect([k.verdict, k.state, k.left]).toEqual([TRACK_INVALID, TCP_ESTABLISHED, 300]);
  });
});

describe('times', () => {
  it('data that waits for its ACK: five minutes', () => {
    const k = established();
    k.tcp('c', 'PA', { seq: 1001, ack: 5001, data: 100 });
    expect(k.left).toBe(300);
    k.tcp('s', 'A', { seq: 5001, ack: 1101 });
    expect(k.left).toBe(432_000);
  });

  it('the same ACK three times more: five minutes, until something new', () => {
    const k = established();
    const again = () => k.tcp('c', 'A', { seq: 1001, ack: 5001 });
    again();
    again();
    expect(k.left).toBe(432_000);
    again();
    expect(k.left).toBe(300);
    for (let n = 0; n < 600; n++) again(); // the counter does not run over
    expect(k.left).toBe(300);
    k.tcp('s', 'A', { seq: 5001, ack: 1001 });
    expect(k.left).toBe(432_000);
  });

  it('IPS_FIXED_TIMEOUT leaves the deadline alone', () => {
    const k = established();
    k.w[k.c + CT_STATUS] |= IPS_FIXED_TIMEOUT;
    const deadline = k.w[k.c + CT_DEADLINE];
    k.now += 5000;
    k.tcp('c', 'PA', { seq: 1001, ack: 5001, data: 100 });
    k.tcp('s', 'R', { seq: 5001 });
    expect(k.w[k.c + CT_DEADLINE]).toBe(deadline);
  });

  it('deadlines wrap with the clock', () => {
    const k = established({}, 0x7ffffff0);
    expect(k.w[k.c + CT_DEADLINE]).toBeLessThan(0);
    expect(k.left).toBe(432_000);
  });
});

describe('back from the offload engine', () => {
  /** The engine carried `sent` bytes of the client and `received` of the server that the tracker did not see. */
  function returned(sent: number, received: number): { k: Conversation; c: number; s: number } {
    const k = established();
    k.tcp('c', 'PA', { seq: 1001, ack: 5001, data: 100 });
    k.tcp('s', 'A', { seq: 5001, ack: 1101 });
    relearnTcp(k.w, k.c);
    return { k, c: (1101 + sent) >>> 0, s: (5001 + received) >>> 0 };
  }

  it.each([0, 1000, 3_000_000, 0x90000000])('after %d bytes in each direction data flows on', (bytes) => {
    const { k, c, s } = returned(bytes, bytes);
    expect(k.tcp('c', 'PA', { seq: c, ack: s, data: 1000 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'PA', { seq: s, ack: c + 1000, data: 500 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('c', 'A', { seq: c + 1000, ack: s + 500 })).toBe(TRACK_ACCEPT);
    expect([k.state, k.left]).toEqual([TCP_ESTABLISHED, 432_000]);
  });

  it('a retransmission comes first, then the ACK of what the engine had carried', () => {
    const { k, c, s } = returned(50_000, 0);
    expect(k.tcp('c', 'A', { seq: c - 50_000, ack: s, data: 1400 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: s, ack: c })).toBe(TRACK_ACCEPT);
    expect(k.tcp('c', 'A', { seq: c, ack: s, data: 1400 })).toBe(TRACK_ACCEPT);
  });

  it('a burst larger than the sender’s own window comes before any ACK', () => {
    const { k, c, s } = returned(1_000_000, 0);
    for (let n = 0; n < 100; n++) {
      expect(k.tcp('c', 'A', { seq: c + n * 1400, ack: s, win: 500, data: 1400 })).toBe(TRACK_ACCEPT);
    }
  });

  it('the check is on again after fifteen ACKs of each side (CVE-2023-30312)', () => {
    const { k, c, s } = returned(1_000_000, 1_000_000);
    for (let n = 0; n < 15; n++) {
      k.tcp('c', 'A', { seq: c, ack: s });
      k.tcp('s', 'A', { seq: s, ack: c });
    }
    expect(k.tcp('s', 'A', { seq: s, ack: c + 1 })).toBe(TRACK_INVALID);
    expect(k.tcp('c', 'A', { seq: c, ack: s + 1 })).toBe(TRACK_INVALID);
    expect(k.tcp('c', 'A', { seq: c + 300_000, ack: s, data: 1 })).toBe(TRACK_INVALID);
    expect(k.tcp('s', 'R', { seq: s - 100 })).toBe(TRACK_INVALID);
  });

  it('and even before, an ACK may not jump further than a window', () => {
    const { k, c, s } = returned(1_000_000, 1_000_000);
    k.tcp('c', 'A', { seq: c, ack: s });
    k.tcp('s', 'A', { seq: s, ack: c });
    expect(k.tcp('s', 'A', { seq: s, ack: c + 10_000_000 })).toBe(TRACK_INVALID);
  });

  it('a RST that comes first passes when it is near, and neither closes nor teaches', () => {
    const { k, c, s } = returned(1_000_000, 1_000_000);
    for (const seq of [123_456_789, s + 100_000, 5001 - 40_000]) {
      expect(k.tcp('s', 'R', { seq })).toBe(TRACK_INVALID);
      expect([k.state, k.left]).toEqual([TCP_ESTABLISHED, 432_000]);
    }
    expect(k.tcp('s', 'R', { seq: s })).toBe(TRACK_IGNORE);
    expect([k.state, k.left]).toEqual([TCP_ESTABLISHED, 10]);
    expect(k.tcp('c', 'PA', { seq: c, ack: s, data: 10 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: s, ack: c + 10 })).toBe(TRACK_ACCEPT);
    expect(k.left).toBe(432_000);
    // Once both sides have spoken, the exact one closes.
    expect(k.tcp('s', 'R', { seq: s })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_CLOSE);
  });

  it('a RST of the side that has spoken first: its number is known by then', () => {
    const { k, c, s } = returned(5_000_000, 3_000_000);
    k.tcp('s', 'PA', { seq: s, ack: c, data: 100 });
    expect(k.tcp('s', 'R', { seq: 5001 })).toBe(TRACK_INVALID);
    expect(k.tcp('s', 'RA', { seq: 5001, ack: 1101 })).toBe(TRACK_INVALID);
    expect(k.left).toBe(432_000);
    expect(k.tcp('s', 'RA', { seq: s + 100, ack: c })).toBe(TRACK_IGNORE);
    expect(k.left).toBe(10);
  });

  it('FINs close as ever', () => {
    const { k, c, s } = returned(5000, 7000);
    expect(k.tcp('c', 'FA', { seq: c, ack: s })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'FA', { seq: s, ack: c + 1 })).toBe(TRACK_ACCEPT);
    expect(k.tcp('c', 'A', { seq: c + 1, ack: s + 1 })).toBe(TRACK_ACCEPT);
    expect(k.state).toBe(TCP_TIME_WAIT);
  });
});

describe('hostile options', () => {
  it('property: any bytes as options are read within the header, and change no other word (seed 11)', () => {
    const random = new Random(11);
    for (let n = 0; n < 2000; n++) {
      const options = new Uint8Array(random.int(0, 10) * 4).map(() =>
        random.int(0, 3) ? random.int(0, 11) : random.int(0, 255),
      );
      const k = new Conversation();
      // The conversation throws when a word outside the record changes; bytes around the segment are 0xee.
      k.tcp('c', 'S', { seq: 1000, options, data: 3 });
      k.tcp('s', 'SA', { seq: 5000, ack: 1004, options });
      expect(k.tcp('c', 'A', { seq: 1004, ack: 5001, options })).not.toBe(undefined);
      expect(k.live).toBe(true);
    }
  });

  it('a truncated SACK option, or one whose length is no multiple of eight, says nothing', () => {
    const k = new Conversation();
    k.tcp('c', 'S', { seq: 1000, options: { sackPermitted: true } });
    k.tcp('s', 'SA', { seq: 5000, ack: 1001, options: { sackPermitted: true } });
    k.tcp('c', 'A', { seq: 1001, ack: 5001 });
    const wild = [0x7f, 0xff, 0xff, 0xff];
    const nine = Uint8Array.of(5, 9, ...wild, ...wild, 1, 0, 0);
    const long = Uint8Array.of(1, 1, 5, 34, ...wild, ...wild);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1001, options: nine })).toBe(TRACK_ACCEPT);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1001, options: long })).toBe(TRACK_ACCEPT);
    const whole = Uint8Array.of(1, 1, 5, 10, ...wild, ...wild);
    expect(k.tcp('s', 'A', { seq: 5001, ack: 1001, options: whole })).toBe(TRACK_INVALID);
  });
});
