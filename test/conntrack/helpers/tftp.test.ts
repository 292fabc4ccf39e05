/** TFTP: a request opens the way for answers from any port of the server. */
import { expect, test } from 'vitest';
import { FIND_EXPECT, FROM_PEER, NOT_UNDERSTOOD, UNDERSTOOD } from '../../../conntrack/helpers/helper.ts';
import { tftp } from '../../../conntrack/helpers/tftp.ts';
import { Conversation, latin1, random } from './conversation.ts';

const ENDS = { client: ['192.168.1.2', 40000], server: ['203.0.113.9', 69] } as {
  client: [string, number];
  server: [string, number];
};

test.each([1, 2])('request %i: from the server, any port, to the port that asked', (code) => {
  const talk = new Conversation(tftp, ENDS);
  const found = talk.send(0, latin1(`\0${String.fromCharCode(code)}file\0octet\0`));
  expect(talk.result).toBe(UNDERSTOOD);
  expect(found).toMatchObject([
    {
      kind: FIND_EXPECT,
      endpoint: '192.168.1.2 40000',
      proto: 17,
      who: FROM_PEER,
      text: '',
      timeout: 300,
      permanent: 0,
    },
  ]);
  expect(talk.context.findings[0].translatedPort).toBe(-1);
});

test('translated: the answers come to the port that the server saw', () => {
  const talk = new Conversation(tftp, { ...ENDS, clientTranslated: ['198.51.100.1', 1025] });
  expect(talk.send(0, '\0\x01file\0octet\0')).toMatchObject([{ endpoint: '192.168.1.2 40000' }]);
  expect(talk.context.findings[0].translatedPort).toBe(1025);
});

test('IPv6', () => {
  const talk = new Conversation(tftp, { client: ['2001:db8::2', 40000], server: ['2001:db8:1::9', 69] });
  expect(talk.send(0, '\0\x02file\0octet\0')).toMatchObject([{ endpoint: '2001:db8::2 40000' }]);
});

test('data, acknowledgements, errors, the server’s side and noise open nothing', () => {
  const talk = new Conversation(tftp, ENDS);
  for (const code of [3, 4, 5, 6]) {
    expect(talk.send(0, `\0${String.fromCharCode(code)}\0\x01`)).toEqual([]);
    expect(talk.result).toBe(UNDERSTOOD);
  }
  expect(talk.send(1, '\0\x01file\0octet\0')).toEqual([]);
  for (const noise of ['', '\0', '\0\0', '\0\x07', '\x01\0', 'GET /']) {
    expect(talk.send(0, noise)).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
  }
  const next = random(1);
  for (let n = 0; n < 500; n++) {
    const bytes = Uint8Array.from({ length: next(20) }, () => next(256));
    if (bytes[0] !== 0) expect(talk.send(0, bytes)).toEqual([]);
  }
});
