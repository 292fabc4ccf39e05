/** SIP: media that descriptions announce, registrations, addresses of the connection in headers, TCP framing. */
import { describe, expect, test } from 'vitest';
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_LENGTH,
  FIND_REFRESH,
  FIND_REWRITE,
  FROM_PEER,
  MAX_FINDINGS,
  NOT_UNDERSTOOD,
  newHelperContext,
  STATE_WORDS,
  UNDERSTOOD,
} from '../../../conntrack/helpers/helper.ts';
import { CLASS_AUDIO, CLASS_IMAGE, CLASS_VIDEO } from '../../../conntrack/helpers/sdp.ts';
import { CLASS_SIGNALLING, SIP, sip } from '../../../conntrack/helpers/sip.ts';
import { Conversation, type Ends, type Found, latin1, mutate, random } from './conversation.ts';

const V4: Ends = { client: ['192.168.1.2', 5060], server: ['203.0.113.9', 5060] };
const NAT: Ends = { ...V4, clientTranslated: ['198.51.100.1', 1024] };
const V6: Ends = { client: ['2001:db8::2', 5060], server: ['2001:db8:1::9', 5060] };
const UDP = 17;
const TCP = 6;

const lines = (...all: string[]) => all.map((line) => `${line}\r\n`).join('');

function sdp(self = '192.168.1.2', media = ['m=audio 49170 RTP/AVP 0'], family = 'IP4'): string {
  return lines('v=0', `o=bob 1 1 IN ${family} ${self}`, 's=-', `c=IN ${family} ${self}`, 't=0 0', ...media);
}

interface Options {
  method?: string;
  cseq?: number;
  body?: string;
  headers?: string[];
  self?: string;
  uri?: string;
}

function request(o: Options = {}): string {
  const method = o.method ?? 'INVITE';
  const self = o.self ?? '192.168.1.2:5060';
  const body = o.body ?? '';
  return (
    lines(
      `${method} ${o.uri ?? 'sip:alice@example.org'} SIP/2.0`,
      `Via: SIP/2.0/UDP ${self};branch=z9hG4bK776;rport`,
      `From: "Bob" <sip:bob@example.org>;tag=1`,
      'To: <sip:alice@example.org>',
      'Call-ID: a84b4c76e66710@192.168.1.2',
      `CSeq: ${o.cseq ?? 1} ${method}`,
      `Contact: <sip:bob@${self}>`,
      ...(o.headers ?? []),
      `Content-Length: ${body.length}`,
      '',
    ) + body
  );
}

function reply(status: string, o: Options = {}): string {
  const body = o.body ?? '';
  return (
    lines(
      `SIP/2.0 ${status}`,
      ...(o.headers ?? ['Via: SIP/2.0/UDP 198.51.100.1:1024;received=198.51.100.1;rport=1024;branch=z9hG4bK776']),
      'From: <sip:bob@example.org>;tag=1',
      `CSeq: ${o.cseq ?? 1} ${o.method ?? 'INVITE'}`,
      `l: ${body.length}`,
      '',
    ) + body
  );
}

const kinds = (found: Found[], kind: number) => found.filter((f) => f.kind === kind);
/** As the mangler would, with 198.51.100.1 outside: media to port 6000, the connection itself to 1024. */
const outside = (f: Found): [string, number] =>
  f.reverse
    ? ['192.168.1.2', 5060]
    : ['198.51.100.1', f.kind === FIND_EXPECT && f.proto === 17 && f.class ? 6000 : 1024];

test('a first line shorter than "SIP/2.0" was completed by what stood in front of the payload', () => {
  const memory = latin1('INVITE sip:bob@example.org SIP/2.0\r\nContent-Length: 0\r\n\r\n');
  const context = newHelperContext(memory);
  context.proto = UDP;
  context.state = new Int32Array(STATE_WORDS);
  for (const from of [28, 29]) {
    // The payload is "IP/2.0 …", "P/2.0 …": no start of a message, whatever memory says before it.
    context.from = from;
    context.to = memory.length;
    context.count = 0;
    expect([from, sip.inspect(context), context.count]).toEqual([from, NOT_UNDERSTOOD, 0]);
  }
});

describe('media', () => {
  test('INVITE: RTP and RTCP of the description, from the other end of the signalling', () => {
    const talk = new Conversation(sip, V4, UDP);
    const found = talk.send(0, request({ body: sdp() }));
    expect(talk.result).toBe(UNDERSTOOD);
    expect(kinds(found, FIND_CLOSE).map((f) => f.class)).toEqual([CLASS_AUDIO, CLASS_VIDEO, CLASS_IMAGE]);
    const media = kinds(found, FIND_EXPECT);
    expect(media).toMatchObject([
      {
        text: '49170',
        endpoint: '192.168.1.2 49170',
        count: 2,
        even: 1,
        proto: 17,
        class: CLASS_AUDIO,
        who: FROM_PEER,
      },
    ]);
    expect(media[0]).toMatchObject({ timeout: 180, permanent: 0, helper: 0 });
    expect(found).toHaveLength(4); // nothing is translated, nothing is rewritten
  });

  test('translated: the whole message, and Content-Length counts the body only', () => {
    const talk = new Conversation(sip, NAT, UDP);
    const body = sdp('192.168.1.2', ['m=audio 49170 RTP/AVP 0', 'a=sendrecv']);
    talk.send(0, request({ body }));
    const translated = sdp('198.51.100.1', ['m=audio 6000 RTP/AVP 0', 'a=sendrecv']);
    expect(translated.length).toBe(body.length + 1);
    expect(talk.rewrite(outside)).toBe(request({ self: '198.51.100.1:1024', body: translated }));
  });

  test('several media, each with its own address or the session’s; refused and unknown ones open nothing', () => {
    const talk = new Conversation(sip, V4, UDP);
    const body = sdp('192.168.1.2', [
      'm=application 50000 UDP/BFCP *',
      'm=audio 49170 RTP/AVP 0',
      'm=video 0 RTP/AVP 31',
      'm=video 49181 RTP/AVP 31',
      'c=IN IP4 192.168.1.2',
      'm=audio 49172 RTP/AVP 0',
      'c=IN IP4 192.168.1.77',
      'm=image 49190 udptl t38',
    ]);
    const found = kinds(talk.send(0, request({ body })), FIND_EXPECT);
    expect(found.map((f) => [f.endpoint, f.class])).toEqual([
      ['192.168.1.2 49170', CLASS_AUDIO],
      ['192.168.1.2 49180', CLASS_VIDEO], // RFC 3550 §11: the even one of the pair
    ]);
    // The fourth active one is beyond Linux's three; without the foreign one it would be the third.
    const three = body.replace('m=audio 49172 RTP/AVP 0\r\nc=IN IP4 192.168.1.77\r\n', '');
    expect(kinds(talk.send(0, request({ body: three })), FIND_EXPECT).at(-1)).toMatchObject({ class: CLASS_IMAGE });
  });

  test('a session without c=: the media’s own', () => {
    const talk = new Conversation(sip, NAT, UDP);
    const body = lines(
      'v=0',
      'o=bob 1 1 IN IP4 host.example',
      's=-',
      't=0 0',
      'm=audio 49170 RTP/AVP 0',
      'c=IN IP4 192.168.1.2',
    );
    expect(kinds(talk.send(0, request({ body })), FIND_EXPECT)).toHaveLength(1);
    expect(talk.rewrite(outside)).toContain('m=audio 6000 RTP/AVP 0\r\nc=IN IP4 198.51.100.1\r\n');
    expect(kinds(talk.send(0, request({ body: sdp('x', ['m=audio 49170 RTP/AVP 0']) })), FIND_EXPECT)).toEqual([]);
  });

  test('on hold: nothing is opened, but the owner does not stay visible', () => {
    const talk = new Conversation(sip, NAT, UDP);
    const body = lines(
      'v=0',
      'o=bob 1 2 IN IP4 192.168.1.2',
      's=-',
      'c=IN IP4 0.0.0.0',
      't=0 0',
      'm=audio 49170 RTP/AVP 0',
    );
    const found = talk.send(0, request({ body, cseq: 2 }));
    expect(kinds(found, FIND_EXPECT)).toEqual([]);
    expect(talk.rewrite(outside)).toContain('o=bob 1 2 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 0.0.0.0\r\n');
    expect(kinds(talk.send(0, request({ body: sdp('192.168.1.2', ['m=audio 0 RTP/AVP 0']) })), FIND_EXPECT)).toEqual(
      [],
    );
  });

  test.each(['m=audio 80 RTP/AVP 0', 'm=audio 65536 RTP/AVP 0', 'm=audio 99999999999999999999 RTP/AVP 0'])(
    'no medium: %s',
    (medium) => {
      const talk = new Conversation(sip, V4, UDP);
      expect(kinds(talk.send(0, request({ body: sdp('192.168.1.2', [medium]) })), FIND_EXPECT)).toEqual([]);
      expect(talk.result).toBe(NOT_UNDERSTOOD);
    },
  );

  test('another host’s media open nothing', () => {
    const talk = new Conversation(sip, V4, UDP);
    expect(kinds(talk.send(0, request({ body: sdp('192.168.1.3') })), FIND_EXPECT)).toEqual([]);
  });

  test('which messages count: answers up to 299 of INVITE, UPDATE, PRACK; ACK; not others', () => {
    const talk = new Conversation(sip, V4, UDP);
    const body = sdp('203.0.113.9');
    for (const method of ['INVITE', 'UPDATE', 'PRACK'])
      for (const status of ['183 Session Progress', '200 OK'])
        expect(kinds(talk.send(1, reply(status, { method, body })), FIND_EXPECT)).toMatchObject([
          { endpoint: '203.0.113.9 49170' },
        ]);
    expect(kinds(talk.send(0, request({ method: 'ACK', body: sdp() })), FIND_EXPECT)).toHaveLength(1);
    expect(kinds(talk.send(0, request({ method: 'MESSAGE', body: sdp() })), FIND_EXPECT)).toEqual([]);
    expect(kinds(talk.send(0, request({ method: 'INVITES', body: sdp() })), FIND_EXPECT)).toEqual([]);
    expect(kinds(talk.send(1, reply('200 OK', { method: 'OPTIONS', body })), FIND_EXPECT)).toEqual([]);
    expect(kinds(talk.send(1, reply('404 No', { body })), FIND_EXPECT)).toEqual([]);
  });

  test('BYE, CANCEL and a bad answer to the last INVITE close', () => {
    const talk = new Conversation(sip, V4, UDP);
    for (const method of ['BYE', 'CANCEL'])
      expect(kinds(talk.send(0, request({ method })), FIND_CLOSE)).toHaveLength(3);
    talk.send(0, request({ cseq: 7, body: sdp() }));
    expect(talk.send(1, reply('486 Busy', { cseq: 6 }))).toEqual([]);
    expect(kinds(talk.send(1, reply('486 Busy', { cseq: 7 })), FIND_CLOSE)).toHaveLength(3);
    expect(talk.send(1, reply('100 Trying', { cseq: 7 }))).toEqual([]);
  });

  test('IPv6', () => {
    const talk = new Conversation(sip, V6, UDP);
    const body = sdp('2001:db8::2', ['m=audio 49170 RTP/AVP 0'], 'IP6');
    const found = talk.send(0, request({ self: '[2001:db8::2]:5060', body }));
    expect(kinds(found, FIND_EXPECT)).toMatchObject([{ endpoint: '2001:db8::2 49170' }]);
    expect(kinds(talk.send(0, request({ self: 'x', body: sdp() })), FIND_EXPECT)).toEqual([]);
    const nat = new Conversation(sip, { ...V6, clientTranslated: ['2001:db8:ff::1', 1024] }, UDP);
    nat.send(0, request({ self: '[2001:db8::2]:5060', body }));
    expect(nat.rewrite((f) => ['2001:db8:ff::1', f.kind === FIND_EXPECT ? 6000 : 1024])).toBe(
      request({ self: '[2001:db8:ff::1]:1024', body: sdp('2001:db8:ff::1', ['m=audio 6000 RTP/AVP 0'], 'IP6') }),
    );
  });
});

describe('headers of a translated connection', () => {
  test('an answer: the receiver’s own names come back', () => {
    const talk = new Conversation(sip, NAT, UDP);
    talk.send(1, reply('200 OK', { method: 'OPTIONS' }));
    expect(talk.rewrite(outside)).toBe(
      reply('200 OK', {
        method: 'OPTIONS',
        headers: ['Via: SIP/2.0/UDP 192.168.1.2:5060;received=192.168.1.2;rport=5060;branch=z9hG4bK776'],
      }),
    );
  });

  test('a call from outside: Request-URI, To and Route that name us', () => {
    const talk = new Conversation(sip, NAT, UDP);
    const to = (self: string) =>
      lines(
        `INVITE sip:bob@${self};line=1 SIP/2.0`,
        'Via: SIP/2.0/UDP 203.0.113.9:5060;branch=z',
        `Route: <sip:${self};lr>, <sip:10.9.9.9;lr>`,
        `t: <sip:bob@${self}>`,
        'f: sip:alice@203.0.113.9',
        'CSeq: 1 INVITE',
        'm: <sip:alice@203.0.113.9:5060>',
        '',
      );
    talk.send(1, to('198.51.100.1:1024'));
    expect(talk.rewrite(outside)).toBe(to('192.168.1.2:5060'));
  });

  test('compact forms, lists, continuation lines, defaults of ports, display names, user parts with anything in them', () => {
    const talk = new Conversation(sip, NAT, UDP);
    const text = (self: string, bare: string) =>
      lines(
        'OPTIONS sip:example.org SIP/2.0',
        `v:  SIP/2.0/UDP`,
        `\t${self} ;maddr=${bare} ; received=192.168.1.2`,
        `m : "sip:192.168.1.2, or \\"" <sip:a,b;c@${self}>;q=1, sip:${self}`,
        `  , <sip:10.0.0.1:5060>,<sip:x@${self};transport=udp?a=b>`,
        `f: sip:bob@${self}`,
        `Record-Route: <sip:${self};lr>`,
        'To: <sip:192.168.1.2.example>',
        'Via: SIP/2.0/UDP 192.168.1.2:5060',
        'cseq : 4 OPTIONS',
        '',
      );
    talk.send(0, text('192.168.1.2', '192.168.1.2'));
    expect(talk.rewrite(outside)).toBe(text('198.51.100.1:1024', '198.51.100.1'));
  });

  test('another port is another endpoint; ports below 1024 are none', () => {
    const talk = new Conversation(sip, NAT, UDP);
    expect(talk.send(0, request({ method: 'OPTIONS', self: '192.168.1.2:5070' }))).toEqual([]);
    const low = new Conversation(sip, { ...NAT, client: ['192.168.1.2', 80] }, UDP);
    expect(low.send(0, request({ method: 'OPTIONS', self: '192.168.1.2:80' }))).toEqual([]);
  });

  test('not translated: nothing', () => {
    const talk = new Conversation(sip, V4, UDP);
    expect(talk.send(0, request({ method: 'OPTIONS' }))).toEqual([]);
  });
});

describe('registrations', () => {
  const register = (contact: string, expires: number | null, cseq = 10) =>
    request({ method: 'REGISTER', cseq, headers: expires === null ? [] : [`Expires: ${expires}`] }).replace(
      '<sip:bob@192.168.1.2:5060>',
      contact,
    );

  test('calls from the registrar, as long as asked for', () => {
    const talk = new Conversation(sip, NAT, UDP);
    const found = kinds(talk.send(0, register('<sip:bob@192.168.1.2:5060>', 1200)), FIND_EXPECT);
    expect(found).toMatchObject([
      { text: '192.168.1.2:5060', endpoint: '192.168.1.2 5060', class: CLASS_SIGNALLING, timeout: 1200, permanent: 1 },
    ]);
    expect(found[0]).toMatchObject({ who: FROM_PEER, proto: UDP, helper: SIP, count: 1 });
    const n = talk.context.findings.findIndex((f) => f.kind === FIND_EXPECT);
    expect(talk.context.findings[n].translatedPort).toBe(1024); // the connection's own
    expect(talk.written(n, '198.51.100.1', 1024)).toBe('198.51.100.1:1024');
  });

  test.each<[string, number | null, number]>([
    ['<sip:bob@192.168.1.2:5060>;expires=60', 1200, 60],
    ['<sip:bob@192.168.1.2;expires=77>', null, 77],
    ['<sip:bob@192.168.1.2:5060;transport=udp>', 30, 30],
    ['sip:192.168.1.2:6000', 30, 30],
    ['"B, <x>" <sip:bob@192.168.1.2>', 4294967295, 86400],
  ])('%s, Expires %j: %i seconds', (text, expires, seconds) => {
    const talk = new Conversation(sip, V4, UDP);
    expect(kinds(talk.send(0, register(text, expires)), FIND_EXPECT)).toMatchObject([{ timeout: seconds }]);
  });

  test.each<[string, number | null]>([
    ['<sip:bob@192.168.1.2:5060>', 0],
    ['<sip:bob@192.168.1.2:5060>', null],
    ['<sip:bob@192.168.1.2:5060>;expires=0', 1200],
    ['<sip:bob@192.168.1.3:5060>', 1200],
    ['<sip:bob@192.168.1.2:5060;transport=tcp>', 1200],
    ['<sip:bob@example.org>', 1200],
    ['<sips:bob@192.168.1.2>', 1200],
    ['<sip:bob@192.168.1.2:99999>', 1200],
    ['*', 0],
  ])('opens nothing: %s, Expires %j', (text, expires) => {
    const talk = new Conversation(sip, V4, UDP);
    expect(kinds(talk.send(0, register(text, expires)), FIND_EXPECT)).toEqual([]);
  });

  test('the answer: confirmed, taken away, refused; only to the last REGISTER', () => {
    const talk = new Conversation(sip, NAT, UDP);
    const answer = (status: string, contact: string, cseq = 10) =>
      talk.send(1, reply(status, { method: 'REGISTER', cseq, headers: [contact] }));
    talk.send(0, register('<sip:bob@192.168.1.2:5060>', 1200));
    expect(answer('100 Trying', 'X: y')).toEqual([]);
    const good = answer('200 OK', 'Contact: <sip:z@10.0.0.1>, <sip:bob@198.51.100.1:1024>;expires=300');
    expect(good).toMatchObject([
      { kind: FIND_REFRESH, class: CLASS_SIGNALLING, timeout: 300 },
      { kind: FIND_REWRITE, text: '198.51.100.1:1024', reverse: 1 },
    ]);
    expect(answer('200 OK', 'X: y')).toMatchObject([{ kind: FIND_CLOSE, class: CLASS_SIGNALLING }]);
    expect(answer('401 Unauthorized', 'X: y')).toMatchObject([{ kind: FIND_CLOSE, class: CLASS_SIGNALLING }]);
    expect(answer('200 OK', 'X: y', 9)).toEqual([]);
  });
});

describe('over TCP', () => {
  const invite = request({ body: sdp() }).replaceAll('/UDP', '/TCP');
  const bye = request({ method: 'BYE' }).replaceAll('/UDP', '/TCP');

  test('several messages in one segment, each with its own length', () => {
    const talk = new Conversation(sip, NAT, TCP);
    const found = talk.send(0, `\r\n\r\n${invite}${invite}${bye}`);
    expect(talk.result).toBe(UNDERSTOOD);
    expect(kinds(found, FIND_EXPECT)).toHaveLength(2);
    expect(kinds(found, FIND_LENGTH).map((f) => f.bodyTo - f.bodyFrom)).toEqual([sdp().length, sdp().length]);
    const longer = request({ self: '198.51.100.1:1024', body: sdp('198.51.100.1', ['m=audio 6000 RTP/AVP 0']) });
    expect(talk.rewrite(outside)).toBe(
      `\r\n\r\n${longer}${longer}${request({ method: 'BYE', self: '198.51.100.1:1024' })}`.replaceAll('/UDP', '/TCP'),
    );
  });

  test('a message that a segment cuts is left alone, and the next one is understood', () => {
    for (let cut = 1; cut < invite.length; cut++) {
      const talk = new Conversation(sip, V4, TCP);
      expect(talk.send(0, invite.slice(0, cut))).toEqual([]);
      expect(talk.result).toBe(NOT_UNDERSTOOD);
      const rest = talk.send(0, invite.slice(cut) + bye);
      expect(kinds(rest, FIND_EXPECT)).toEqual([]);
      if (cut > 40) expect(kinds(talk.send(0, bye), FIND_CLOSE)).toHaveLength(3);
    }
  });

  test('a body is not a message', () => {
    const talk = new Conversation(sip, V4, TCP);
    const inner = invite + invite;
    const outer = request({ method: 'MESSAGE', body: inner });
    expect(talk.send(0, outer)).toEqual([]);
    const cut = outer.length - inner.length;
    expect(talk.send(0, outer.slice(0, cut))).toEqual([]);
    expect(talk.send(0, inner)).toEqual([]);
    expect(kinds(talk.send(0, invite), FIND_EXPECT)).toHaveLength(1);
  });

  test('without Content-Length, or out of HTTP: nothing', () => {
    const talk = new Conversation(sip, V4, TCP);
    expect(talk.send(0, invite.replace(/Content-Length: \d+\r\n/, ''))).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
    expect(talk.send(0, `POST / HTTP/1.1\r\nHost: x\r\n\r\n${invite}`)).toEqual([]);
    expect(talk.send(0, invite)).toEqual([]); // a page's text may come in pieces
  });
});

describe('hostile', () => {
  test('not SIP at all', () => {
    for (const noise of [
      '',
      '\r\n\r\n',
      'SIP/2.0',
      'SIP/2.0 ',
      'SIP/2.0 abc def\r\n\r\n',
      'INVITE',
      'INVITE x\r\n\r\n',
      '\0\0\0\0',
    ]) {
      const talk = new Conversation(sip, NAT, UDP);
      expect(talk.send(0, noise)).toEqual([]);
    }
    const talk = new Conversation(sip, NAT, UDP);
    expect(talk.send(0, request({ body: sdp() }).replace(/CSeq.*\r\n/, ''))).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
  });

  test('thousands of everything are bounded in number (and in time: quadratic work would not end before the test’s limit)', () => {
    const talk = new Conversation(sip, NAT, UDP, 80_000);
    const many = (line: string, n: number) => new Array<string>(n).fill(line);
    for (const text of [
      request({ headers: many('Contact: <sip:192.168.1.2>', 2000), body: sdp() }),
      request({ headers: [`Contact: ${'<sip:192.168.1.2>,'.repeat(3500)}`], body: sdp() }),
      request({ headers: many('a:', 15_000), body: sdp() }),
      request({ headers: [`Contact: ${'"'.repeat(60_001)}`], body: sdp() }),
      request({ headers: [`Contact: sip:${'a'.repeat(60_000)}`], body: sdp() }),
      request({ headers: [`X: y${'\r\n '.repeat(20_000)}`], body: sdp() }),
      request({ body: sdp('192.168.1.2', many('m=audio 5000 RTP/AVP 0', 2500)) }),
      request({ body: sdp('192.168.1.2', many('o=x IN IP4 192.168.1.2', 2500)) }),
    ])
      expect(talk.send(0, text).length).toBeLessThanOrEqual(MAX_FINDINGS);
  });

  test('real messages, mutated: never a throw, never outside, never another host', () => {
    const next = random(5060);
    const outbound = [
      request({
        body: sdp('192.168.1.2', ['m=audio 49170 RTP/AVP 0', 'm=video 5000 RTP/AVP 31', 'c=IN IP4 192.168.1.2']),
      }),
      request({ method: 'REGISTER', headers: ['Expires: 60'] }),
      request({ method: 'BYE' }),
    ].map(latin1);
    const inbound = [
      reply('200 OK', { body: sdp('203.0.113.9') }),
      reply('200 OK', { method: 'REGISTER', headers: ['Contact: <sip:bob@198.51.100.1:1024>;expires=60'] }),
    ].map(latin1);
    let opened = 0;
    for (let round = 0; round < 400; round++) {
      const talk = new Conversation(sip, round % 3 ? NAT : V4, round % 2 ? UDP : TCP, 3000);
      for (let n = 0; n < 12; n++) {
        const dir = next(2) as 0 | 1;
        const list = dir === 0 ? outbound : inbound;
        const message = list[next(list.length)];
        for (const f of talk.send(dir, next(4) === 0 ? message : mutate(message, next))) {
          if (f.kind !== FIND_EXPECT) continue;
          opened++;
          expect(f.address).toBe(dir === 0 ? '192.168.1.2' : '203.0.113.9');
          expect(f.port).toBeGreaterThanOrEqual(1024);
          expect(f.port + f.count - 1).toBeLessThan(65536);
        }
      }
    }
    expect(opened).toBeGreaterThan(500);
  });
});
