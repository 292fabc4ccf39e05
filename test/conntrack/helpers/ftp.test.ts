/** FTP: endpoints that PORT, EPRT, 227 and 229 announce, as Linux's helper sees them; pieces, hostile input, TLS. */
import { describe, expect, test } from 'vitest';
import { ftp } from '../../../conntrack/helpers/ftp.ts';
import { FIND_EXPECT, FROM_PEER, MAX_FINDINGS, NOT_UNDERSTOOD, UNDERSTOOD } from '../../../conntrack/helpers/helper.ts';
import { Conversation, type Ends, latin1, mutate, random } from './conversation.ts';

const V4: Ends = { client: ['192.168.1.2', 40000], server: ['203.0.113.9', 21] };
const NAT: Ends = { ...V4, clientTranslated: ['198.51.100.1', 40000] };
const V6: Ends = { client: ['2001:db8::2', 40000], server: ['2001:db8:1::9', 21] };

/** A conversation that has begun: both directions are at the start of a line. */
function begun(ends = V4): Conversation {
  const talk = new Conversation(ftp, ends);
  talk.send(1, '220 ready\r\n');
  talk.send(0, 'USER anonymous\r\n');
  return talk;
}

describe('what announces', () => {
  test('PORT: six numbers, the server connects to the client', () => {
    const talk = begun();
    const found = talk.send(0, 'PORT 192,168,1,2,200,21\r\n');
    expect(talk.result).toBe(UNDERSTOOD);
    expect(found).toMatchObject([
      { kind: FIND_EXPECT, text: '192,168,1,2,200,21', endpoint: '192.168.1.2 51221', proto: 6, who: FROM_PEER },
    ]);
    expect(found[0]).toMatchObject({ timeout: 300, class: 0, count: 1, permanent: 0 });
    expect(talk.rewrite(() => ['198.51.100.1', 40001])).toBe('PORT 198,51,100,1,156,65\r\n');
  });

  test.each([
    ['port 192,168,1,2,0,80\r\n', '192.168.1.2 80'],
    ['PoRt 192,168,1,2,4,0\n', '192.168.1.2 1024'],
    ['PORT  192,168,1,2,004,001\r\n', '192.168.1.2 1025'],
    ['EPRT |1|192.168.1.2|6275|\r\n', '192.168.1.2 6275'],
    ['eprt !1!192.168.1.2!6275!\r\n', '192.168.1.2 6275'],
  ])('%j', (line, endpoint) => {
    const talk = begun();
    expect(talk.send(0, line)).toMatchObject([{ endpoint }]);
  });

  test.each([
    ['227 Entering Passive Mode (203,0,113,9,200,21).\r\n', '203,0,113,9,200,21'],
    ['227 Entering Passive Mode 203,0,113,9,200,21\r\n', '203,0,113,9,200,21'],
    ['227 203,0,113,9,200,21\r\n', '203,0,113,9,200,21'],
    ['227 =203,0,113,9,200,21\r\n', '203,0,113,9,200,21'],
    ['227 Mode 2 of host 10.1.2.3 is at 203,0,113,9,200,21 now\n', '203,0,113,9,200,21'],
  ])('%j', (line, text) => {
    const talk = begun();
    talk.send(0, 'PASV\r\n');
    expect(talk.send(1, line)).toMatchObject([{ kind: FIND_EXPECT, text, endpoint: '203.0.113.9 51221' }]);
    expect(talk.rewrite(() => ['198.51.100.7', 51221])).toBe(line.replace(text, '198,51,100,7,200,21'));
  });

  test('229: the port alone, the address is the control connection’s', () => {
    const talk = begun();
    const found = talk.send(1, '229 Entering Extended Passive Mode (|||6446|)\r\n');
    expect(found).toMatchObject([{ text: '|||6446|', endpoint: '203.0.113.9 6446' }]);
    expect(talk.rewrite(() => ['198.51.100.7', 7000])).toBe('229 Entering Extended Passive Mode (|||7000|)\r\n');
  });

  test('IPv6: EPRT and 229, written with all zeros as Linux does', () => {
    const talk = begun(V6);
    expect(talk.send(0, 'EPRT |2|2001:DB8::2|5282|\r\n')).toMatchObject([{ endpoint: '2001:db8::2 5282' }]);
    expect(talk.rewrite(() => ['2001:db8:2::1', 99])).toBe('EPRT |2|2001:0db8:0002:0000:0000:0000:0000:0001|99|\r\n');
    expect(talk.send(1, '229 ok (|||6446|)\r\n')).toMatchObject([{ endpoint: '2001:db8:1::9 6446' }]);
    // An IPv4 spelling in an IPv6 connection means nothing (RFC 2428 §2 is there for it).
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toEqual([]);
    expect(talk.send(0, 'EPRT |1|192.168.1.2|6275|\r\n')).toEqual([]);
  });
});

describe('what does not', () => {
  test.each([
    'PORT 192,168,1,2,200\r\n',
    'PORT 192,168,1,2,200,21,3\r\n',
    'PORT 192,168,1,2,200,256\r\n',
    'PORT 192,168,1,2,,21\r\n',
    'PORT 192,168,1,2,0,0\r\n',
    'PORT 99999999999999999999,168,1,2,200,21\r\n',
    'PORT 192.168.1.2,200,21\r\n',
    'PORT\r\n',
    'PORT \r\n',
    'PORT 192,168,1,2,200,21;rm\r\n',
    'EPRT |1|192.168.1.2|0|\r\n',
    'EPRT |1|192.168.1.2|65536|\r\n',
    'EPRT |1|192.168.1.2.3|80|\r\n',
    'EPRT |1|192.168.1|80|\r\n',
    'EPRT |2|2001:db8::2|80|\r\n',
    'EPRT |1|192.168.1.2|80\r\n',
    'EPRT 11192.168.1.2180 1\r\n',
    'EPRT |1|192.168.1.2!80!\r\n',
  ])('malformed %j: nothing, and the packet goes on', (line) => {
    const talk = begun();
    expect(talk.send(0, line)).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
    // The next line is understood again.
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toHaveLength(1);
  });

  test.each([
    '229 Extended (|||0|)\r\n',
    '229 Extended (|||65536|)\r\n',
    '229 Extended (||6446|)\r\n',
    '229 Extended |||6446|\r\n',
    '229 Extended (|||6446\r\n',
    '227 nothing here\r\n',
    '227 1,2,3\r\n',
  ])('malformed reply %j', (line) => {
    const talk = begun();
    expect(talk.send(1, line)).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
  });

  test('a command of the other direction, or in the middle of a line', () => {
    const talk = begun();
    expect(talk.send(1, 'PORT 203,0,113,9,200,21\r\n')).toEqual([]);
    expect(talk.send(0, '227 (192,168,1,2,200,21)\r\n')).toEqual([]);
    expect(talk.send(0, 'STOR PORT 192,168,1,2,200,21\r\n')).toEqual([]);
    expect(talk.send(1, '1227 (203,0,113,9,200,21)\r\n')).toEqual([]);
  });

  test('another host’s endpoint (bounce), unless it is allowed', () => {
    const talk = begun();
    expect(talk.send(0, 'PORT 192,168,1,3,200,21\r\n')).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
    expect(talk.send(0, 'EPRT |1|192.168.1.3|6275|\r\n')).toEqual([]);
    expect(talk.send(1, '227 (203,0,113,10,200,21)\r\n')).toEqual([]);
    talk.context.bounce = true;
    expect(talk.send(0, 'PORT 192,168,1,3,200,21\r\n')).toMatchObject([{ endpoint: '192.168.1.3 51221' }]);
    expect(talk.send(0, 'PORT 192,168,1,3,0,25\r\n')).toEqual([]); // RFC 2577 §3
    expect(talk.send(1, '227 (203,0,113,10,200,21)\r\n')).toEqual([]);
    talk.context.loose = true;
    expect(talk.send(1, '227 (203,0,113,10,200,21)\r\n')).toMatchObject([{ endpoint: '203.0.113.10 51221' }]);
  });

  test('lines inside a multi-line reply are text (RFC 959 §4.2)', () => {
    const talk = begun();
    const line = '227 Entering (203,0,113,9,200,21)\r\n';
    expect(talk.send(1, '211-Files:\r\n')).toEqual([]);
    expect(talk.send(1, line)).toEqual([]);
    expect(talk.send(1, `${line}211 End\r\n`)).toEqual([]);
    expect(talk.send(1, line)).toHaveLength(1);
    // A reply whose end was not seen does not blind us for good: the next command ends it.
    talk.send(1, '230-Welcome\r\n');
    expect(talk.send(1, line)).toEqual([]);
    talk.send(0, 'PASV\r\n');
    expect(talk.send(1, line)).toHaveLength(1);
    expect(talk.send(1, '227-Entering\r\n227 Passive (203,0,113,9,200,21)\r\n')).toHaveLength(1);
  });

  test('EPSV ALL: nothing but EPSV counts once the server agreed (RFC 2428 §4)', () => {
    const talk = begun();
    talk.send(0, 'EPSV ALL\r\n');
    talk.send(1, '500 what?\r\n');
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toHaveLength(1);
    talk.send(0, 'epsv all\r\n');
    talk.send(1, '200 fine\r\n');
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toEqual([]);
    expect(talk.send(0, 'EPRT |1|192.168.1.2|6275|\r\n')).toEqual([]);
    expect(talk.send(1, '227 (203,0,113,9,200,21)\r\n')).toEqual([]);
    expect(talk.send(1, '229 (|||6446|)\r\n')).toHaveLength(1);
  });

  test('after AUTH and 234 it is all cipher text (RFC 4217)', () => {
    const talk = begun();
    talk.send(0, 'AUTH TLS\r\n');
    talk.send(1, '504 no\r\n');
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toHaveLength(1);
    talk.send(0, 'auth tls\r\n');
    talk.send(1, '234 go\r\n');
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toEqual([]);
    expect(talk.send(1, '229 (|||6446|)\r\n')).toEqual([]);
  });

  test('a browser that was sent to this port ends the watching', () => {
    const talk = new Conversation(ftp, V4);
    const body = 'PORT 192,168,1,2,200,21\r\n';
    expect(talk.send(0, `POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n${body}`)).toEqual([]);
    expect(talk.send(0, body)).toEqual([]);
    expect(talk.send(1, '227 (203,0,113,9,200,21)\r\n')).toEqual([]);
  });
});

describe('segments', () => {
  test('several commands in one', () => {
    const talk = begun();
    const found = talk.send(0, 'TYPE I\r\nPORT 192,168,1,2,200,21\r\nRETR a\r\nEPRT |1|192.168.1.2|6275|\r\n');
    expect(found.map((f) => f.text)).toEqual(['192,168,1,2,200,21', '|1|192.168.1.2|6275|']);
    expect(talk.rewrite(() => ['1.2.3.4', 256])).toBe(
      'TYPE I\r\nPORT 1,2,3,4,1,0\r\nRETR a\r\nEPRT |1|1.2.3.4|256|\r\n',
    );
  });

  test('the first segment of a direction may begin anywhere in a line, as for Linux', () => {
    const talk = new Conversation(ftp, V4);
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toEqual([]);
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toHaveLength(1);
    const other = new Conversation(ftp, V4);
    expect(other.send(0, 'xyz\r\nPORT 192,168,1,2,200,21\r\n')).toHaveLength(1);
  });

  test('the second half of a line is not the start of one', () => {
    const talk = begun();
    expect(talk.send(0, 'STOR ')).toEqual([]);
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toEqual([]);
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n')).toHaveLength(1);
  });

  test('a segment sent again is understood again', () => {
    const talk = begun(NAT);
    const at = talk.seq[0];
    const line = 'PORT 192,168,1,2,200,21\r\n';
    const first = talk.send(0, line);
    expect(talk.send(0, line, at)).toEqual(first);
    talk.send(0, 'LIST\r\n');
    talk.send(0, 'NOOP\r\n');
    expect(talk.send(0, line)).toHaveLength(1);
    // Not even a very old one takes a newer line start away.
    talk.send(0, 'NOOP\r\n', (at - 1000) | 0);
    expect(talk.send(0, line)).toHaveLength(1);
  });

  const lines: [0 | 1, string, string][] = [
    [0, 'PORT 192,168,1,2,200,21\r\n', '192.168.1.2 51221'],
    [0, 'EPRT |1|192.168.1.2|51221|\r\n', '192.168.1.2 51221'],
    [1, '227 Mode 1.2 (203,0,113,9,255,255)\r\n', '203.0.113.9 65535'],
    [1, '229 Extended (|||65535|)\r\n', '203.0.113.9 65535'],
  ];
  test.each(lines)('%i %j cut anywhere, not translated: opened', (dir, line, endpoint) => {
    for (let cut = 1; cut < line.length; cut++) {
      const talk = begun();
      const found = [...talk.send(dir, line.slice(0, cut)), ...talk.send(dir, line.slice(cut))];
      expect(found.map((f) => f.endpoint)).toEqual([endpoint]);
    }
    const talk = begun();
    expect([...line].flatMap((byte) => talk.send(dir, byte)).map((f) => f.endpoint)).toEqual([endpoint]);
  });

  test.each(lines)('%i %j cut anywhere, translated: whole or not at all', (dir, line, endpoint) => {
    const text = /[|\d]{3}.*[|\d]/.exec(line.slice(4))?.[0] ?? '';
    for (let cut = 1; cut < line.length; cut++) {
      const talk = begun(NAT);
      const early = talk.send(dir, line.slice(0, cut));
      const at = talk.seq[dir];
      const late = talk.send(dir, line.slice(cut));
      const found = [...early, ...late];
      // Never a part of the numbers, and never an expectation without them.
      for (const f of found) expect(text.endsWith(f.text) && f.text.length > 4).toBe(true);
      for (const f of found) expect(f.endpoint).toBe(endpoint);
      if (line.slice(cut).includes(text)) {
        expect(late).toHaveLength(1);
        expect(talk.send(dir, line.slice(cut), at)).toEqual(late); // sent again
      }
      if (found.length === 0) expect(talk.result).toBe(NOT_UNDERSTOOD);
    }
  });

  test('IPv6 EPRT cut anywhere: opened, or left alone inside the address', () => {
    const line = 'EPRT |2|2001:db8::2|5282|\r\n';
    for (let cut = 1; cut < line.length; cut++) {
      const talk = begun(V6);
      const found = [...talk.send(0, line.slice(0, cut)), ...talk.send(0, line.slice(cut))];
      const expected = cut < 8 ? ['2001:db8::2 5282'] : cut < line.length - 2 ? [] : ['2001:db8::2 5282'];
      expect(found.map((f) => f.endpoint)).toEqual(expected);
    }
  });

  test('pieces of one direction do not continue those of the other', () => {
    const talk = new Conversation(ftp, V4);
    talk.seq[0] = talk.seq[1] = 1000;
    talk.send(0, 'USER aaa\r\n');
    talk.send(1, '220 rea\r\n');
    talk.send(0, 'PORT 192,168,1,2,');
    talk.send(1, '227 (203,0,113,9');
    talk.seq[0] = talk.seq[1];
    expect(talk.send(0, '200,21\r\n')).toEqual([]);
  });
});

describe('hostile', () => {
  test('a line of 64 KB that never ends, and thousands of commands', () => {
    const talk = begun();
    expect(talk.send(0, `PORT ${'1'.repeat(65_000)}`)).toEqual([]);
    expect(talk.send(0, '1'.repeat(65_000))).toEqual([]);
    expect(talk.send(0, ` ${' '.repeat(64_000)}\r\n`)).toEqual([]);
    expect(talk.send(0, 'PORT 192,168,1,2,200,21\r\n'.repeat(2600))).toHaveLength(MAX_FINDINGS);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
    expect(talk.send(1, `227 ${'1.2,'.repeat(16_000)}\r\n`)).toEqual([]);
    expect(talk.send(0, '')).toEqual([]);
    expect(talk.send(0, '\n'.repeat(60_000))).toEqual([]);
  });

  test('real conversations, mutated: never a throw, never an offset outside, never somebody else’s address', () => {
    const next = random(20240621);
    const client = [
      'PORT 192,168,1,2,200,21\r\n',
      'EPRT |1|192.168.1.2|6275|\r\n',
      'EPSV ALL\r\n',
      'AUTH TLS\r\n',
      'TYPE I\r\nPASV\r\nRETR x\r\n',
    ].map(latin1);
    const server = [
      '220-Hello\r\n220 there\r\n',
      '227 Entering Passive Mode (203,0,113,9,200,21).\r\n',
      '229 Entering Extended Passive Mode (|||6446|)\r\n',
    ].map(latin1);
    let opened = 0;
    for (let round = 0; round < 400; round++) {
      const talk = begun(round % 2 ? NAT : V4);
      for (let n = 0; n < 20; n++) {
        const dir = next(2) as 0 | 1;
        const list = dir === 0 ? client : server;
        const message = list[next(list.length)];
        for (const f of talk.send(dir, next(3) === 0 ? message : mutate(message, next))) {
          opened++;
          expect(f.address).toBe(dir === 0 ? '192.168.1.2' : '203.0.113.9');
          expect(f.port).toBeGreaterThan(0);
          expect(f.port).toBeLessThan(65536);
        }
      }
    }
    expect(opened).toBeGreaterThan(1000);
  });

  test('pure noise', () => {
    const next = random(7);
    const talk = begun();
    for (let n = 0; n < 2000; n++)
      talk.send(
        next(2) as 0 | 1,
        Uint8Array.from({ length: 1 + next(200) }, () => next(256)),
      );
  });
});
