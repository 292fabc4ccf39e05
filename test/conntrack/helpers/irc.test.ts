/** IRC: what DCC announces, and what it must not. */
import { describe, expect, test } from 'vitest';
import { FIND_EXPECT, FROM_ANY, MAX_FINDINGS, NOT_UNDERSTOOD, UNDERSTOOD } from '../../../conntrack/helpers/helper.ts';
import { irc } from '../../../conntrack/helpers/irc.ts';
import { Conversation, type Ends, latin1, mutate, random } from './conversation.ts';

const ENDS: Ends = {
  client: ['192.168.1.2', 40000],
  server: ['203.0.113.9', 6667],
  clientTranslated: ['198.51.100.1', 40000],
};
const SELF = 3232235778; // 192.168.1.2
const OUTSIDE = 3325256705; // 198.51.100.1
const send = (rest: string) => `PRIVMSG bob :\x01DCC SEND ${rest}\x01\r\n`;

describe('announcements', () => {
  test.each(['SEND file.txt', 'CHAT chat', 'MOVE f', 'TSEND f', 'SCHAT chat', 'SEND "two words.txt"'])('%s', (what) => {
    const talk = new Conversation(irc, ENDS);
    const found = talk.send(0, `PRIVMSG bob :\x01DCC ${what} ${SELF} 51221 77\x01\r\n`);
    expect(talk.result).toBe(UNDERSTOOD);
    expect(found).toMatchObject([
      {
        kind: FIND_EXPECT,
        text: `${SELF} 51221`,
        endpoint: '192.168.1.2 51221',
        proto: 6,
        who: FROM_ANY,
        timeout: 300,
      },
    ]);
    expect(talk.rewrite(() => ['198.51.100.1', 5])).toBe(`PRIVMSG bob :\x01DCC ${what} ${OUTSIDE} 5 77\x01\r\n`);
  });

  test('the outside address means the sender too', () => {
    const talk = new Conversation(irc, ENDS);
    expect(talk.send(0, send(`f ${OUTSIDE} 1024`))).toMatchObject([{ endpoint: '192.168.1.2 1024' }]);
  });

  test('several messages in one segment; lower case; blanks in front and between', () => {
    const talk = new Conversation(irc, ENDS);
    const found = talk.send(
      0,
      `\r\nPING x\r\n  privmsg #a :\x01dcc send f ${SELF}   99 1\x01\r\n${send(`g ${SELF} 98`)}`,
    );
    expect(found.map((f) => f.text)).toEqual([`${SELF}   99`, `${SELF} 98`]);
  });
});

describe('what opens nothing', () => {
  test.each([
    send(`f ${SELF} 0`), // passive DCC
    send(`f ${SELF} 65536`),
    send(`f ${SELF}`),
    send(`f ${SELF}51221`),
    send(`f 3232235779 51221`), // another host
    send(`f 7527203074 51221`), // 2^32 more than ours
    send('f 192.168.1.2 51221'),
    send(''),
    `PRIVMSG bob :\x01DCC SEND f ${SELF} 5122`, // cut: digits may be missing
  ])('%j', (line) => {
    const talk = new Conversation(irc, ENDS);
    expect(talk.send(0, line)).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
  });

  test.each([
    `NOTICE bob :\x01DCC SEND f ${SELF} 51221\x01\r\n`,
    `PRIVMSG bob :see \x01DCC SEND f ${SELF} 51221\x01\r\n`,
    `PRIVMSG bob :\x01DCC RESUME f 51221 0\x01\r\n`,
    `PRIVMSG bob \x01DCC SEND f ${SELF} 51221\x01\r\n`,
    'PRIVMSG ',
  ])('not DCC: %j', (line) => {
    const talk = new Conversation(irc, ENDS);
    expect(talk.send(0, line)).toEqual([]);
    expect(talk.result).toBe(UNDERSTOOD);
  });

  test('the server, IPv6, a line’s second half, HTTP', () => {
    const talk = new Conversation(irc, ENDS);
    expect(talk.send(1, send(`f ${SELF} 99`))).toEqual([]);
    talk.send(0, 'PRIVMSG bob :what if ');
    expect(talk.send(0, send(`f ${SELF} 99`))).toEqual([]);
    expect(talk.send(0, send(`f ${SELF} 99`))).toHaveLength(1);
    talk.send(0, 'PRIVMSG bob :a');
    expect(talk.send(0, `b\r\n${send(`f ${SELF} 99`)}`)).toHaveLength(1);
    expect(talk.send(0, `POST / HTTP/1.1\r\n\r\n${send(`f ${SELF} 99`)}`)).toEqual([]);
    expect(talk.send(0, send(`f ${SELF} 99`))).toEqual([]);
    const v6 = new Conversation(irc, { client: ['2001:db8::2', 1], server: ['2001:db8::3', 6667] });
    expect(v6.send(0, send(`f ${SELF} 99`))).toEqual([]);
  });
});

test('hostile: bounded, in place, never another host', () => {
  const next = random(33);
  const talk = new Conversation(irc, ENDS);
  expect(talk.send(0, send(`f ${SELF} 99`).repeat(1500)).length).toBeLessThanOrEqual(MAX_FINDINGS);
  expect(talk.send(0, `${' '.repeat(65_000)}${send(`f ${SELF} 99`)}`)).toEqual([]);
  const line = latin1(`${send(`file ${SELF} 51221 7`)}PRIVMSG x :hello\r\n${send(`"a b" ${OUTSIDE} 80`)}`);
  let opened = 0;
  for (let n = 0; n < 5000; n++) {
    const fresh = new Conversation(irc, ENDS, 6, 2000);
    for (const f of fresh.send(0, mutate(line, next).slice(0, 1800))) {
      opened++;
      expect(f.address).toBe('192.168.1.2');
      expect(f.port).toBeGreaterThan(0);
    }
  }
  expect(opened).toBeGreaterThan(1000);
});
