/** PPTP (RFC 2637): what the helper finds in control messages, in the real capture, and in mutated ones. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_REWRITE,
  FROM_PEER_PORT,
  type HelperContext,
  NOT_UNDERSTOOD,
  newHelperContext,
  UNDERSTOOD,
} from '../../../conntrack/helpers/helper.ts';
import { CALL_ID, PPTP_CLIENT, PPTP_SERVER, PPTP_TRANSLATED, pptp } from '../../../conntrack/helpers/pptp.ts';
import { openCapture } from '../../../dataplane/ports/capture-reader.ts';
import { CAPTURES } from '../../lib/captures.ts';

// Messages as RFC 2637 §2 draws them; bodies that nobody reads here are zero.
const LENGTHS = [0, 156, 156, 16, 16, 16, 20, 168, 32, 220, 24, 28, 16, 148, 40, 24];
function message(type: number, ...body: number[]): number[] {
  const length = LENGTHS[type];
  const out = [length >> 8, length & 255, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, type, 0, 0, ...body];
  while (out.length < length) out.push(0);
  return out;
}
const two = (n: number) => [n >> 8, n & 255];
const sccrq = () => message(1, 1, 0);
const sccrp = (result = 1) => message(2, 1, 0, result, 0);
const stopRequest = () => message(3, 1);
const echo = () => message(5, 1, 2, 3, 4);
const ocrq = (id: number) => message(7, ...two(id), 0x78, 0x28);
const ocrp = (id: number, peer: number, result = 1) => message(8, ...two(id), ...two(peer), result, 0);
const icrq = (id: number) => message(9, ...two(id));
const icrp = (id: number, peer: number, result = 1) => message(10, ...two(id), ...two(peer), result);
const iccn = (peer: number) => message(11, ...two(peer));
const ccrq = (id: number) => message(12, ...two(id));
const cdn = (id: number) => message(13, ...two(id), 1);
const wen = (peer: number) => message(14, ...two(peer));
const sli = (peer: number) => message(15, ...two(peer), 0, 0, 255, 255, 255, 255, 255, 255, 255, 255);

const CLIENT = 0x0a01a8c0; // 192.168.1.10, raw
const SERVER = 0x090071cb; // 203.0.113.9
const WAN = 0x020071cb;

/** A control connection: what one worker would hand to the helper, packet by packet. */
class Control {
  readonly memory = new Uint8Array(4096);
  readonly context: HelperContext = newHelperContext(this.memory);
  readonly sequences = [1000, 5000];
  constructor(nat: boolean, sport = 40000, translatedSport = 61001) {
    const c = this.context;
    c.nat = nat;
    c.state = new Int32Array(24);
    c.stateAt = 8;
    this.ports = [sport, nat ? translatedSport : sport];
  }
  readonly ports: number[];
  send(dir: number, bytes: number[], canary = 0x5a): number {
    const c = this.context;
    this.memory.fill(canary);
    c.from = 100;
    c.to = 100 + bytes.length;
    this.memory.set(bytes, 100);
    c.dir = dir;
    c.src[0] = dir === 0 ? CLIENT : SERVER;
    c.dst[0] = dir === 0 ? SERVER : c.nat ? WAN : CLIENT;
    c.srcTranslated[0] = dir === 0 ? (c.nat ? WAN : CLIENT) : SERVER;
    c.sport = dir === 0 ? this.ports[0] : 1723;
    c.dport = dir === 0 ? 1723 : this.ports[1];
    c.sportTranslated = dir === 0 ? this.ports[1] : 1723;
    c.seq = this.sequences[dir];
    this.sequences[dir] = (this.sequences[dir] + bytes.length) | 0;
    c.count = 0;
    return pptp.inspect(c);
  }
  /** The payload as the mangler would leave it. */
  mangled(): number[] {
    const c = this.context;
    const out = this.memory.slice(c.from, c.to);
    const text = new Uint8Array(128);
    for (let n = 0; n < c.count; n++) {
      const f = c.findings[n];
      if (f.kind !== FIND_REWRITE) continue;
      expect(f.format).toBe(CALL_ID);
      expect(f.to - f.from).toBe(2);
      expect(f.from).toBeGreaterThanOrEqual(c.from);
      expect(f.to).toBeLessThanOrEqual(c.to);
      expect(pptp.write(f, 4, f.address, 7, text, 3)).toBe(2);
      out.set(text.subarray(3, 5), f.from - c.from);
    }
    return [...out];
  }
  kinds(): number[] {
    return this.context.findings.slice(0, this.context.count).map((f) => f.kind);
  }
  open(): void {
    this.send(0, sccrq());
    this.send(1, sccrp());
  }
}

describe('outgoing call', () => {
  test('translated: the server sees T, the client its own C, and GRE is expected with the keys of both sides', () => {
    const control = new Control(true);
    control.open();
    expect(control.send(0, ocrq(0x1234))).toBe(UNDERSTOOD);
    expect(control.mangled()).toEqual(ocrq(61001));
    expect(control.context.findings[0].reverse).toBe(0);
    expect(control.send(1, ocrp(0x0777, 61001))).toBe(UNDERSTOOD);
    expect(control.mangled()).toEqual(ocrp(0x0777, 0x1234));
    expect(control.kinds()).toEqual([FIND_EXPECT, FIND_EXPECT, FIND_REWRITE]);
    const [toServer, toClient, back] = control.context.findings;
    expect(toServer).toMatchObject({
      proto: 47,
      who: FROM_PEER_PORT,
      reverse: 0,
      port: 0x777,
      translatedPort: 0x777,
      peerPort: 0x1234,
      peerTranslatedPort: 61001,
      timeout: 300,
    });
    expect(toServer.address[0]).toBe(SERVER);
    expect(toServer.to).toBe(toServer.from);
    expect(toClient).toMatchObject({
      proto: 47,
      who: FROM_PEER_PORT,
      reverse: 1,
      port: 0x1234,
      translatedPort: 61001,
      peerPort: 0x777,
      peerTranslatedPort: 0x777,
    });
    expect(toClient.address[0]).toBe(WAN);
    expect(back.reverse).toBe(1);
    const at = control.context.stateAt;
    expect(control.context.state[at + PPTP_CLIENT]).toBe(0x1234);
    expect(control.context.state[at + PPTP_SERVER]).toBe(0x777);
    expect(control.context.state[at + PPTP_TRANSLATED]).toBe(61001);
    // Words of other connections beside are left alone.
    expect([...control.context.state.subarray(0, 8), ...control.context.state.subarray(16)]).toEqual(
      new Array(16).fill(0),
    );
  });

  test('not translated: nothing to rewrite, both IDs as they are', () => {
    const control = new Control(false);
    control.open();
    control.send(0, ocrq(0));
    expect(control.context.count).toBe(0);
    control.send(1, ocrp(0, 0));
    expect(control.kinds()).toEqual([FIND_EXPECT, FIND_EXPECT]);
    for (const f of control.context.findings.slice(0, 2))
      expect([f.port, f.translatedPort, f.peerPort, f.peerTranslatedPort]).toEqual([0, 0, 0, 0]);
  });

  test('two clients with the same Call ID towards one server get different ones there', () => {
    const calls = [new Control(true, 1500, 61001), new Control(true, 1500, 61002)];
    const seen = calls.map((control, n) => {
      control.open();
      control.send(0, ocrq(64));
      const at = control.mangled().slice(12, 14);
      control.send(1, ocrp(100 + n, at[0] * 256 + at[1]));
      expect(control.mangled().slice(14, 16)).toEqual(two(64));
      return control.context.findings[1].translatedPort;
    });
    expect(seen).toEqual([61001, 61002]);
  });

  test('a reply for another call, before its request, or a refusal opens nothing', () => {
    const control = new Control(true);
    control.send(1, ocrp(5, 6));
    expect(control.context.count).toBe(0);
    control.open();
    control.send(1, ocrp(5, 61001));
    expect(control.context.count).toBe(0);
    control.send(0, ocrq(6));
    control.send(1, ocrp(5, 6)); // C instead of T: not the answer to what the server was asked
    expect(control.context.count).toBe(0);
    control.send(1, ocrp(5, 61001, 4)); // 4: busy
    expect(control.kinds()).toEqual([FIND_REWRITE]);
    control.send(1, ocrp(5, 61001));
    expect(control.context.count).toBe(0);
  });

  test('a session that the server refused has no calls', () => {
    const control = new Control(true);
    control.send(0, sccrq());
    control.send(1, sccrp(2));
    control.send(0, ocrq(6));
    expect(control.context.count).toBe(0);
  });

  test('a repeated request and reply give the same findings again', () => {
    const control = new Control(true);
    control.open();
    control.send(0, ocrq(6));
    control.send(1, ocrp(5, 61001));
    control.send(0, ocrq(6));
    expect(control.mangled()).toEqual(ocrq(61001));
    control.send(1, ocrp(5, 61001));
    expect(control.kinds()).toEqual([FIND_EXPECT, FIND_EXPECT, FIND_REWRITE]);
    control.send(1, ocrp(5, 61001));
    expect(control.mangled()).toEqual(ocrp(5, 6));
  });
});

test('incoming call: the ID of the reply is translated, the connect gives the expectations', () => {
  const control = new Control(true);
  control.open();
  control.send(1, icrq(900));
  expect(control.context.count).toBe(0);
  control.send(0, icrp(33, 901)); // answers no request that we saw
  expect(control.context.count).toBe(0);
  control.send(0, icrp(33, 900));
  expect(control.mangled()).toEqual(icrp(61001, 900));
  control.send(1, iccn(61001));
  expect(control.mangled()).toEqual(iccn(33));
  expect(control.kinds()).toEqual([FIND_EXPECT, FIND_EXPECT, FIND_REWRITE]);
  expect(control.context.findings[1]).toMatchObject({ port: 33, translatedPort: 61001, peerPort: 900 });
});

describe('a call that stands', () => {
  function call(nat = true): Control {
    const control = new Control(nat);
    control.open();
    control.send(0, ocrq(0x4000));
    control.send(1, ocrp(0x8001, nat ? 61001 : 0x4000));
    return control;
  }

  test('clear request of the client ends it; its Call ID is translated', () => {
    const control = call();
    control.send(0, ccrq(0x4000));
    expect(control.mangled()).toEqual(ccrq(61001));
    expect(control.kinds()).toEqual([FIND_REWRITE, FIND_CLOSE]);
    expect(control.context.findings[1]).toMatchObject({
      proto: 47,
      port: 0x4000,
      translatedPort: 61001,
      peerPort: 0x8001,
      peerTranslatedPort: 0x8001,
    });
    // A late duplicate of the reply does not open it again.
    control.send(1, ocrp(0x8001, 61001));
    expect(control.context.count).toBe(0);
  });

  test('clear request for another call ends nothing', () => {
    const control = call();
    control.send(0, ccrq(0x4001));
    expect(control.context.count).toBe(0);
  });

  test('disconnect notify ends it, translated or not', () => {
    const control = call();
    control.send(1, cdn(0x8001));
    expect(control.mangled()).toEqual(cdn(0x4000)); // as netfilter has it
    expect(control.kinds()).toContain(FIND_CLOSE);
    const plain = call(false);
    plain.send(1, cdn(0x8001));
    expect(plain.kinds()).toEqual([FIND_CLOSE]);
  });

  test.each([0, 1])('stop request from direction %i ends it', (dir) => {
    const control = call();
    control.send(dir, stopRequest());
    expect(control.kinds()).toEqual([FIND_CLOSE]);
    control.send(dir, stopRequest());
    expect(control.kinds()).toEqual([]);
  });

  test('set-link-info and WAN-error: only the client’s ID is turned back; echo passes', () => {
    const control = call();
    control.send(0, sli(0x8001));
    expect(control.context.count).toBe(0);
    control.send(1, sli(61001));
    expect(control.mangled()).toEqual(sli(0x4000));
    control.send(1, wen(61001));
    expect(control.mangled()).toEqual(wen(0x4000));
    control.send(0, echo());
    expect(control.context.count).toBe(0);
  });
});

describe('segments', () => {
  test('several messages in one are all seen', () => {
    const control = new Control(true);
    control.send(0, sccrq());
    control.send(1, [...echo(), ...sccrp()]);
    expect(control.send(0, [...echo(), ...ocrq(9), ...echo()])).toBe(UNDERSTOOD);
    expect(control.mangled()).toEqual([...echo(), ...ocrq(61001), ...echo()]);
  });

  test('a message cut by the segment is left alone; what follows its rest is found', () => {
    const control = new Control(true);
    control.open();
    const request = ocrq(9);
    expect(control.send(0, request.slice(0, 100))).toBe(NOT_UNDERSTOOD);
    expect(control.context.count).toBe(0);
    expect(control.send(0, [...request.slice(100), ...ocrq(10)])).toBe(UNDERSTOOD);
    expect(control.mangled()).toEqual([...request.slice(100), ...ocrq(61001)]);
    expect(control.context.state[control.context.stateAt + PPTP_CLIENT]).toBe(10);
  });

  test('across the end of the sequence space', () => {
    const control = new Control(true);
    control.open();
    control.sequences[0] = -50;
    const request = ocrq(9);
    control.send(0, request.slice(0, 100));
    expect(control.send(0, [...request.slice(100), ...ocrq(10)])).toBe(UNDERSTOOD);
    expect(control.context.count).toBe(1);
  });

  test.each([
    ['wrong cookie', 7, 0x4e],
    ['management message', 3, 2],
    ['length below a header', 1, 11],
  ])('%s is not understood', (_name, at, value) => {
    const control = new Control(true);
    control.open();
    const bytes = ocrq(9);
    if (at === 1) bytes[0] = 0;
    bytes[at] = value;
    expect(control.send(0, bytes)).toBe(NOT_UNDERSTOOD);
    expect(control.context.count).toBe(0);
  });

  test('a message shorter than its type demands is skipped', () => {
    const control = new Control(true);
    control.open();
    const short = ocrq(9).slice(0, 20);
    short[1] = 20;
    expect(control.send(0, [...short, ...ocrq(10)])).toBe(UNDERSTOOD);
    expect(control.context.count).toBe(1);
    expect(control.context.findings[0].port).toBe(10);
  });
});

test('hostile bytes: never throws, never depends on bytes outside, findings stay inside', () => {
  let seed = 0x2637;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
    return (seed >>> 8) % n;
  };
  const make = [sccrq, sccrp, stopRequest, echo, ocrq, ocrp, icrq, icrp, iccn, ccrq, cdn, wen, sli];
  for (let round = 0; round < 300; round++) {
    const one = new Control(true);
    const other = new Control(true);
    for (const control of [one, other]) control.open();
    for (let step = 0; step < 12; step++) {
      let bytes: number[] = [];
      for (let n = random(4); n >= 0; n--)
        bytes.push(...(make[random(make.length)] as (a: number, b: number) => number[])(random(3), random(3)));
      for (let n = random(6); n > 0; n--) bytes[random(bytes.length)] = random(256);
      if (random(3) === 0) bytes = bytes.slice(0, random(bytes.length + 1));
      const dir = random(2);
      const results = [one.send(dir, bytes, 0x00), other.send(dir, bytes, 0xff)];
      expect(results[0]).toBe(results[1]);
      expect(one.context.count).toBe(other.context.count);
      expect(one.context.findings.slice(0, one.context.count)).toEqual(
        other.context.findings.slice(0, other.context.count),
      );
      expect(one.context.state).toEqual(other.context.state);
      expect(one.mangled().length).toBe(bytes.length);
    }
  }
});

test('a real call (capture pptp.pcap): one call, both expectations, IDs as tshark prints them', (ctx) => {
  const file = join(CAPTURES, 'pptp.pcap');
  if (!existsSync(file)) {
    console.log(`skipped: ${file} is not there (set SLUICE_CAPTURES)`);
    ctx.skip();
  }
  const reader = openCapture(file);
  const control = new Control(false);
  const findings: number[][] = [];
  while (reader.next()) {
    const frame = reader.data.subarray(reader.offset, reader.offset + reader.capturedLength);
    const end = 14 + (frame[16] << 8) + frame[17];
    const tcp = 14 + (frame[14] & 15) * 4;
    if (frame[12] !== 8 || frame[23] !== 6) continue;
    const payload = tcp + (frame[tcp + 12] >> 4) * 4;
    if (payload === end) continue;
    const dir = (frame[tcp] << 8) + frame[tcp + 1] === 1723 ? 1 : 0;
    expect(control.send(dir, [...frame.subarray(payload, end)])).toBe(UNDERSTOOD);
    for (let n = 0; n < control.context.count; n++) {
      const f = control.context.findings[n];
      findings.push([f.kind, f.reverse, f.port, f.peerPort]);
    }
  }
  // The reply is in the capture twice; the server's ID is 0, the client's too.
  expect(findings).toEqual([
    [FIND_EXPECT, 0, 0, 0],
    [FIND_EXPECT, 1, 0, 0],
    [FIND_EXPECT, 0, 0, 0],
    [FIND_EXPECT, 1, 0, 0],
  ]);
});
