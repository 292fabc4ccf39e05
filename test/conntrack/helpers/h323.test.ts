/** H.323: what the Q.931, H.245 and RAS helpers find in messages that an independent encoder wrote. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { TRANSPORT, TRANSPORT_PLUS_ONE } from '../../../conntrack/helpers/h323-h225.ts';
import { h245 } from '../../../conntrack/helpers/h323-h245.ts';
import { q931 } from '../../../conntrack/helpers/h323-q931.ts';
import { ras } from '../../../conntrack/helpers/h323-ras.ts';
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_REWRITE,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  newHelperContext,
  UNDERSTOOD,
} from '../../../conntrack/helpers/helper.ts';
import { integer, MAX_STEPS, nothing, octets, PerReader, sequenceOf } from '../../../conntrack/helpers/per.ts';
import * as h323 from './h323-encoder.ts';

const raw = (bytes: readonly number[], k = 0) =>
  bytes[k] | (bytes[k + 1] << 8) | (bytes[k + 2] << 16) | (bytes[k + 3] << 24);
const LOCAL = '192.168.1.10';
const WAN = '198.51.100.1';
const REMOTE = '203.0.113.9';
const local = (port: number) => h323.at(LOCAL, port);
const remote = (port: number) => h323.at(REMOTE, port);

function context(nat = true): HelperContext {
  const c = newHelperContext(new Uint8Array(8192));
  c.nat = nat;
  c.sport = 40000;
  c.sportTranslated = nat ? 61001 : 40000;
  setDirection(c, 0);
  return c;
}
function setDirection(c: HelperContext, dir: number): void {
  const bytes = (text: string) => raw(text.split('.').map(Number));
  c.dir = dir;
  c.src[0] = bytes(dir === 0 ? LOCAL : REMOTE);
  c.dst[0] = bytes(dir === 0 ? REMOTE : c.nat ? WAN : LOCAL);
  c.srcTranslated[0] = bytes(dir === 0 ? (c.nat ? WAN : LOCAL) : REMOTE);
}
const BEGIN = 300;
function run(helper: Helper, c: HelperContext, bytes: readonly number[], canary = 0xa5): number {
  c.u8.fill(canary);
  c.u8.set(bytes, BEGIN);
  c.from = BEGIN;
  c.to = BEGIN + bytes.length;
  c.count = 0;
  c.proto = helper.protocols[0];
  return helper.inspect(c);
}
/** kind, protocol, port, helper, and the bytes as the message spells the endpoint, for comparison. */
function summary(c: HelperContext): string[] {
  return c.findings.slice(0, c.count).map((f) => {
    const kind = ['', 'EXPECT', 'REWRITE', 'LENGTH', 'CLOSE'][f.kind];
    const text = [...c.u8.subarray(f.from, f.to)];
    const place =
      text.length === 6 ? `${text.slice(0, 4).join('.')}:${text[4] * 256 + text[5]}` : `${text.length} bytes`;
    return `${kind} ${f.proto} ${f.port} helper ${f.helper} at ${place}`;
  });
}

describe('H.245', () => {
  test('openLogicalChannel: the RTP and RTCP ports are one even pair', () => {
    const c = context();
    const bytes = h323.tpkt(h323.h245Open({ media: local(5000), control: local(5001) }));
    expect(run(h245, c, bytes)).toBe(UNDERSTOOD);
    expect(summary(c)).toEqual([
      `EXPECT 17 5000 helper 0 at ${LOCAL}:5000`,
      `EXPECT 17 5000 helper 0 at ${LOCAL}:5001`,
    ]);
    for (const f of c.findings.slice(0, 2)) {
      expect(f).toMatchObject({ count: 2, even: 1, timeout: 240, permanent: 0, family: 4 });
      expect(f.address[0]).toBe(raw([192, 168, 1, 10]));
    }
    expect(c.findings.slice(0, 2).map((f) => f.format)).toEqual([TRANSPORT, TRANSPORT_PLUS_ONE]);
    const out = new Uint8Array(130);
    const wan = new Int32Array([raw([198, 51, 100, 1]), 0, 0, 0]);
    expect(h245.write(c.findings[0], 4, wan, 61002, out, 1)).toBe(6);
    expect([...out.subarray(0, 8)]).toEqual([0, 198, 51, 100, 1, 0xee, 0x4a, 0]);
    h245.write(c.findings[1], 4, wan, 61002, out, 1);
    expect([...out.subarray(1, 7)]).toEqual([198, 51, 100, 1, 0xee, 0x4b]);
  });

  test.each(['g711', 'h263', 'h261', 'g7231'] as const)('the addresses are found behind data type %s', (data) => {
    const c = context();
    const channel = { data, media: local(6000), reverse: { data, control: local(7001) } };
    expect(run(h245, c, h323.tpkt(h323.h245Open(channel)))).toBe(UNDERSTOOD);
    expect(summary(c)).toEqual([
      `EXPECT 17 6000 helper 0 at ${LOCAL}:6000`,
      `EXPECT 17 7000 helper 0 at ${LOCAL}:7001`,
    ]);
  });

  test('acknowledgement, from the other end', () => {
    const c = context();
    setDirection(c, 1);
    const ack = h323.h245OpenAck({ media: remote(8000), control: remote(8001), stack: remote(1503), reverse: {} });
    expect(run(h245, c, h323.tpkt(ack))).toBe(UNDERSTOOD);
    expect(summary(c)).toEqual([
      `EXPECT 6 1503 helper 0 at ${REMOTE}:1503`,
      `EXPECT 17 8000 helper 0 at ${REMOTE}:8000`,
      `EXPECT 17 8000 helper 0 at ${REMOTE}:8001`,
    ]);
    expect(c.findings[0].permanent).toBe(1);
  });

  test('T.120 only with its own data type', () => {
    const c = context();
    run(h245, c, h323.tpkt(h323.h245Open({ data: 't120', stack: local(1503) })));
    expect(summary(c)).toEqual([`EXPECT 6 1503 helper 0 at ${LOCAL}:1503`]);
    expect(c.findings[0].permanent).toBe(1);
    run(h245, c, h323.tpkt(h323.h245Open({ data: 'g711', stack: local(1503) })));
    expect(c.count).toBe(0);
  });

  test('IPv6 addresses in an IPv6 connection, no others', () => {
    const six = { address: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], port: 5000 };
    const c = context(false);
    c.family = 6;
    for (let k = 0; k < 4; k++) c.src[k] = raw(six.address, 4 * k);
    run(h245, c, h323.tpkt(h323.h245Open({ media: six, control: local(5001) })));
    expect(summary(c)).toEqual(['EXPECT 17 5000 helper 0 at 18 bytes']);
    expect([...c.findings[0].address]).toEqual([...c.src]);
    const out = new Uint8Array(20);
    expect(h245.write(c.findings[0], 6, c.src, 5000, out, 2)).toBe(18);
    expect([...out.subarray(2)]).toEqual([...six.address, 0x13, 0x88]);
  });

  test('another host’s address and port 0 open nothing', () => {
    const c = context();
    run(h245, c, h323.tpkt(h323.h245Open({ media: h323.at('192.168.1.11', 5000), control: local(0) })));
    expect(c.count).toBe(0);
    c.bounce = true;
    run(h245, c, h323.tpkt(h323.h245Open({ media: h323.at('192.168.1.11', 5000) })));
    expect(c.count).toBe(0);
  });

  test('TPKT: several messages, a header that comes alone, and cut messages', () => {
    const c = context();
    const one = h323.tpkt(h323.h245Open({ media: local(5000) }));
    const two = h323.tpkt(h323.h245Open({ media: local(5002) }));
    run(h245, c, [...h323.tpkt(h323.h245Other()), ...one, ...two]);
    expect(summary(c).length).toBe(2);
    expect(run(h245, c, one.slice(0, 4))).toBe(NOT_UNDERSTOOD);
    setDirection(c, 1); // the other direction does not disturb it
    run(h245, c, h323.tpkt(h323.h245Other()));
    setDirection(c, 0);
    expect(run(h245, c, one.slice(4))).toBe(UNDERSTOOD);
    expect(c.count).toBe(1);
    expect(run(h245, c, one.slice(4))).toBe(NOT_UNDERSTOOD);
    expect(run(h245, c, one.slice(0, 20))).toBe(NOT_UNDERSTOOD);
    expect(run(h245, c, one.slice(20))).toBe(NOT_UNDERSTOOD);
    run(h245, c, [...one, ...two.slice(0, 9)]);
    expect(c.count).toBe(1);
  });
});

describe('Q.931', () => {
  const bodies = { alerting: h323.alerting, callProceeding: h323.callProceeding, connect: h323.connect };
  const channel = h323.openLogicalChannel({ media: local(5000), control: local(5001) });

  test('setup: H.245 port, both signalling addresses, fast start, tunnelled H.245', () => {
    const c = context();
    const bytes = h323.q931(h323.setup, {
      h245: local(3333),
      destination: h323.at(WAN, 1720),
      source: local(40000),
      fastStart: [channel],
      tunnel: [h323.h245Other(), h323.h245Open({ control: local(7777) })],
    });
    expect(run(q931, c, bytes)).toBe(UNDERSTOOD);
    expect(summary(c)).toEqual([
      `EXPECT 6 3333 helper 8 at ${LOCAL}:3333`,
      `REWRITE 6 1720 helper 0 at ${WAN}:1720`,
      `REWRITE 6 40000 helper 0 at ${LOCAL}:40000`,
      `EXPECT 17 5000 helper 0 at ${LOCAL}:5000`,
      `EXPECT 17 5000 helper 0 at ${LOCAL}:5001`,
      `EXPECT 17 7776 helper 0 at ${LOCAL}:7777`,
    ]);
    expect(c.findings.slice(1, 3).map((f) => [f.reverse, f.translatedPort])).toEqual([
      [1, -1],
      [0, 61001],
    ]);
  });

  test('setup, not translated: expectations only', () => {
    const c = context(false);
    run(q931, c, h323.q931(h323.setup, { h245: local(3333), destination: remote(1720), source: local(40000) }));
    expect(summary(c)).toEqual([`EXPECT 6 3333 helper 8 at ${LOCAL}:3333`]);
  });

  test.each(Object.entries(bodies))('%s: H.245 port and fast start', (_name, body) => {
    const c = context();
    setDirection(c, 1);
    const answer = h323.openLogicalChannel({ media: remote(9000) });
    expect(run(q931, c, h323.q931(body, { h245: remote(2222), fastStart: [answer, channel] }))).toBe(UNDERSTOOD);
    expect(summary(c)).toEqual([
      `EXPECT 6 2222 helper 8 at ${REMOTE}:2222`,
      `EXPECT 17 9000 helper 0 at ${REMOTE}:9000`,
    ]);
  });

  test('progress is an extension of the message body', () => {
    const c = context();
    run(q931, c, h323.q931(h323.progress, { h245: local(2222), fastStart: [channel] }));
    expect(summary(c).length).toBe(3);
  });

  test('release complete with tunnelled H.245', () => {
    const c = context();
    run(q931, c, h323.q931(h323.releaseComplete, { tunnel: [h323.h245OpenAck({ media: local(5000) })] }));
    expect(summary(c)).toEqual([`EXPECT 17 5000 helper 0 at ${LOCAL}:5000`]);
  });

  test('facility: H.245 port; a call forwarded to a third host only when that is allowed', () => {
    const c = context();
    run(q931, c, h323.q931(h323.facility, { h245: local(2222), alternative: local(1720) }));
    expect(summary(c)).toEqual([`EXPECT 6 2222 helper 8 at ${LOCAL}:2222`]);
    const forward = h323.q931(h323.facility, {
      h245: local(2222),
      alternative: h323.at('192.168.1.99', 1720),
      reason: 1,
    });
    run(q931, c, forward);
    expect(c.count).toBe(0);
    c.bounce = true;
    run(q931, c, forward);
    expect(summary(c)).toEqual(['EXPECT 6 1720 helper 7 at 192.168.1.99:1720']);
  });

  test('elements before the user-user element are stepped over; without it nothing is understood', () => {
    const c = context();
    const bytes = h323.q931(h323.connect, { h245: local(2222) });
    expect(run(q931, c, bytes)).toBe(UNDERSTOOD);
    const wrong = bytes.slice();
    wrong[4] = 9; // protocol discriminator
    expect(run(q931, c, wrong)).toBe(NOT_UNDERSTOOD);
    expect(run(q931, c, h323.tpkt([8, 2, 0, 1, 5, 0x28, 2, 0x41, 0x42]))).toBe(NOT_UNDERSTOOD);
    expect(run(q931, c, h323.tpkt([8, 2, 0, 1, 5, 0x7e, 0, 1, 5]))).toBe(NOT_UNDERSTOOD);
    expect(run(q931, c, h323.tpkt([8]))).toBe(NOT_UNDERSTOOD);
  });
});

describe('RAS', () => {
  test('requests name the flow’s own address', () => {
    for (const bytes of [h323.grq(local(40000)), h323.lrq(local(40000)), h323.irr(local(40000), [])]) {
      const c = context();
      expect(run(ras, c, bytes)).toBe(UNDERSTOOD);
      expect(summary(c)).toEqual([`REWRITE 17 40000 helper 0 at ${LOCAL}:40000`]);
      expect(c.findings[0]).toMatchObject({ reverse: 0, translatedPort: 61001 });
    }
    const c = context();
    run(ras, c, h323.grq(local(40001)));
    expect(c.count).toBe(0);
    run(ras, context(false), h323.grq(local(40000)));
    expect(c.count).toBe(0);
  });

  test('registration opens the signalling port, confirmation turns it back, unregistration closes', () => {
    const c = context();
    const signal = [h323.at('10.0.0.1', 1720), local(1720), local(1721)];
    expect(run(ras, c, h323.rrq(signal, [local(40000)], 600))).toBe(UNDERSTOOD);
    expect(summary(c)).toEqual([
      `EXPECT 6 1720 helper 7 at ${LOCAL}:1720`,
      `REWRITE 17 40000 helper 0 at ${LOCAL}:40000`,
    ]);
    expect(c.findings[0]).toMatchObject({ permanent: 1, timeout: 600 });
    run(ras, c, h323.rrq(signal, [local(40000)]));
    expect(c.findings[0].timeout).toBe(300);
    setDirection(c, 1);
    run(ras, c, h323.rcf([h323.at(WAN, 61720)]));
    expect(summary(c)).toEqual([`REWRITE 6 61720 helper 0 at ${WAN}:61720`]);
    expect(c.findings[0].reverse).toBe(1);
    setDirection(c, 0);
    run(ras, c, h323.irr(local(40000), [local(1720)]));
    expect(c.findings[1]).toMatchObject({ kind: FIND_REWRITE, proto: 6, port: 1720, reverse: 0 });
    run(ras, c, h323.urq([local(1720)]));
    expect(c.findings.slice(0, c.count).map((f) => f.kind)).toEqual([FIND_REWRITE, FIND_CLOSE]);
  });

  test('admission: answering and calling', () => {
    const c = context();
    run(ras, c, h323.rrq([local(1720)], [local(40000)]));
    run(ras, c, h323.arq(local(1720), undefined));
    expect(summary(c)).toEqual([`REWRITE 6 1720 helper 0 at ${LOCAL}:1720`]);
    expect(c.findings[0].translatedPort).toBe(-1);
    run(ras, c, h323.arq(remote(1720), local(1800)));
    expect(summary(c)).toEqual([`REWRITE 17 1800 helper 0 at ${LOCAL}:1800`]);
    expect(c.findings[0].translatedPort).toBe(1800);
    setDirection(c, 1);
    run(ras, c, h323.acf(h323.at(WAN, 61720)));
    expect(c.findings[0]).toMatchObject({ kind: FIND_REWRITE, proto: 6, reverse: 1 });
  });

  test('where the gatekeeper directs: its own address, third hosts only when allowed', () => {
    const c = context();
    setDirection(c, 1);
    c.sport = 1719;
    run(ras, c, h323.gcf(remote(1719)));
    expect(c.count).toBe(0); // the flow itself
    run(ras, c, h323.gcf(remote(1900)));
    expect(c.findings[0]).toMatchObject({ kind: FIND_EXPECT, proto: 17, port: 1900, helper: 9, permanent: 0 });
    expect(c.findings[0].to).toBe(c.findings[0].from);
    const third = h323.at('203.0.113.77', 1720);
    for (const bytes of [h323.acf(third), h323.lcf(third, remote(1)), h323.gcf(third)]) {
      c.bounce = false;
      run(ras, c, bytes);
      expect(c.count).toBe(0);
      c.bounce = true;
      run(ras, c, bytes);
      expect(c.count).toBe(1);
      expect(c.findings[0].kind).toBe(FIND_EXPECT);
    }
  });
});

describe('PER reader', () => {
  const per = new PerReader();
  const reading = (type: Parameters<PerReader['decode']>[0], bytes: number[]) =>
    per.decode(type, new Uint8Array(bytes), 0, bytes.length);

  test('whole numbers as X.691 §10.5.7 packs them', () => {
    const value = (low: number, high: number, bytes: number[]) => {
      const item = sequenceOf(integer(low, high, true), 1, 1);
      // A report needs a mark to be noted.
      const marked = { ...item, root: [{ ...item.root[0], mark: 1 }] };
      return reading(marked, bytes) ? per.values[0] : 'fault';
    };
    expect(value(5, 5, [])).toBe(5);
    expect(value(1, 32, [0b10011000])).toBe(20);
    expect(value(1, 255, [0x09])).toBe(10);
    expect(value(1, 256, [0xff])).toBe(256);
    expect(value(0, 65535, [0x12, 0x34])).toBe(0x1234);
    expect(value(0, 65536, [0x40, 0x12, 0x34])).toBe(0x1234);
    expect(value(0, 4294967295, [0xc0, 0x7f, 0xff, 0xff, 0xff])).toBe(0x7fffffff);
    expect(value(0, 65536, [0xc0, 1, 2, 3, 4])).toBe('fault');
    expect(value(0, 65535, [0x12])).toBe('fault');
  });

  test('bounds: steps, nesting, lengths', () => {
    expect(reading(sequenceOf(nothing), [0x90, 0x00])).toBe(false); // 4096 items of nothing
    expect(reading(sequenceOf(nothing), [0x8f, 0xfe])).toBe(MAX_STEPS > 4094);
    expect(reading(octets(), [0x85])).toBe(false);
    expect(reading(octets(), [0xc1])).toBe(false); // fragments
    expect(reading(octets(), [3, 1, 2])).toBe(false);
    expect(reading(octets(), [2, 1, 2])).toBe(true);
  });
});

const corpus: [Helper, number[]][] = [
  ...[h323.setup, h323.callProceeding, h323.alerting, h323.connect, h323.progress, h323.facility].map(
    (body): [Helper, number[]] => [
      q931,
      h323.q931(body, {
        h245: local(3333),
        destination: remote(1720),
        source: local(40000),
        alternative: local(1720),
        reason: 1,
        fastStart: [
          h323.openLogicalChannel({
            data: 'h263',
            media: local(5000),
            control: local(5001),
            reverse: { data: 'h261' },
          }),
        ],
        tunnel: [h323.h245OpenAck({ media: local(5000), stack: local(9) })],
      }),
    ],
  ),
  [h245, h323.tpkt(h323.h245Open({ data: 't120', stack: local(1503) }))],
  [
    h245,
    h323.tpkt(h323.h245OpenAck({ media: local(1), control: local(2), stack: local(3), reverse: { media: local(4) } })),
  ],
  [ras, h323.grq(local(40000))],
  [ras, h323.gcf(local(40001))],
  [ras, h323.rrq([local(1720), local(1721)], [local(40000)], 600)],
  [ras, h323.rcf([local(1720)])],
  [ras, h323.urq([local(1720)])],
  [ras, h323.arq(local(1720), local(1720))],
  [ras, h323.acf(local(1720))],
  [ras, h323.lrq(local(40000))],
  [ras, h323.lcf(local(1720), local(2))],
  [ras, h323.irr(local(40000), [local(1720)])],
];

test('hostile bytes: never throws, never depends on bytes outside, findings stay inside', () => {
  let seed = 0x4823;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
    return (seed >>> 8) % n;
  };
  let found = 0;
  for (let round = 0; round < 2000; round++) {
    const [helper, sound] = corpus[round % corpus.length];
    let bytes = sound.slice();
    for (let n = random(5); n > 0; n--) bytes[random(bytes.length)] ^= 1 << random(8);
    if (random(4) === 0) bytes = bytes.slice(0, random(bytes.length + 1));
    if (random(4) === 0) bytes.splice(random(bytes.length + 1), random(4), random(256));
    const one = context();
    const other = context();
    one.bounce = other.bounce = random(2) === 1;
    const result = run(helper, one, bytes, 0x00);
    expect(run(helper, other, bytes, 0xff)).toBe(result);
    expect(one.count).toBe(other.count);
    expect(one.state).toEqual(other.state);
    expect(JSON.stringify(one.findings)).toBe(JSON.stringify(other.findings));
    found += one.count;
    for (const f of one.findings.slice(0, one.count)) {
      expect(f.from).toBeGreaterThanOrEqual(one.from);
      expect(f.to).toBeGreaterThanOrEqual(f.from);
      expect(f.to).toBeLessThanOrEqual(one.to);
    }
  }
  expect(found).toBeGreaterThan(500);
});

test('tshark reads the messages of these tests as they are meant', (ctx) => {
  if (spawnSync('tshark', ['-v']).status !== 0) {
    console.log('skipped: tshark is not installed');
    ctx.skip();
  }
  const directory = mkdtempSync(join(tmpdir(), 'sluice-h323-'));
  try {
    const file = join(directory, 'h323.pcap');
    // pcap: header (magic, version 2.4, snap length, Ethernet), then a record header and a frame each.
    const words = (...list: number[]) => list.flatMap((w) => [w & 255, (w >> 8) & 255, (w >> 16) & 255, w >>> 24]);
    const capture = words(0xa1b2c3d4 | 0, 0x00040002, 0, 0, 65535, 1);
    corpus.forEach(([helper, payload], n) => {
      const udp = helper === ras;
      const length = 20 + (udp ? 8 : 20) + payload.length;
      const ports = [0x9c, 0x40 + n, ...(udp ? [6, 183] : helper === q931 ? [6, 184] : [33, 55])];
      const l4 = udp
        ? [...ports, (length - 20) >> 8, (length - 20) & 255, 0, 0]
        : [...ports, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
      const size = [length >> 8, length & 255];
      const ip = [0x45, 0, ...size, 0, 0, 0, 0, 64, udp ? 17 : 6, 0, 0, 192, 168, 1, 10, 203, 0, 113, 9];
      const frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, ...ip, ...l4, ...payload];
      capture.push(...words(n, 0, frame.length, frame.length), ...frame);
    });
    writeFileSync(file, new Uint8Array(capture));
    const options = ['-o', 'tcp.desegment_tcp_streams:FALSE', '-d', 'tcp.port==8503,h245', '-T', 'pdml'];
    const result = spawnSync('tshark', ['-r', file, ...options], { encoding: 'utf8', maxBuffer: 1 << 26 });
    const packets = result.stdout.split('<packet>').slice(1);
    expect(packets.length).toBe(corpus.length);
    packets.forEach((packet, n) => {
      expect(packet, `vector ${n}`).not.toContain('_ws.malformed');
      const [helper, bytes] = corpus[n];
      const start = 14 + 20 + (helper === ras ? 8 : 20);
      // Where it sees IPv4 addresses in H.225.0 and H.245, counted from the payload's first byte.
      const seen: number[] = [];
      for (const line of packet.matchAll(
        /name="h2[24]5\.[^"]*" showname="(?:ip|network): [^"]*" size="4" pos="(\d+)"/g,
      ))
        seen.push(Number(line[1]) - start);
      const c = context();
      c.bounce = true;
      run(helper, c, bytes);
      const ours = c.findings.slice(0, c.count).filter((f) => f.kind !== FIND_CLOSE);
      for (const f of ours) expect(seen, `vector ${n}`).toContain(f.from - BEGIN);
      if (helper !== ras) expect(ours.length, `vector ${n}`).toBeGreaterThan(0);
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
