/** RTSP: ports that SETUP agrees on; what the reply repeats; framing with bodies and interleaved data. */
import { describe, expect, test } from 'vitest';
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_REWRITE,
  FROM_PEER,
  MAX_FINDINGS,
  NOT_UNDERSTOOD,
  UNDERSTOOD,
} from '../../../conntrack/helpers/helper.ts';
import { RTSP_CLIENT, RTSP_SERVER, rtsp } from '../../../conntrack/helpers/rtsp.ts';
import { Conversation, type Ends, latin1, mutate, random } from './conversation.ts';

const V4: Ends = { client: ['192.168.1.2', 40000], server: ['203.0.113.9', 554] };
const NAT: Ends = { ...V4, clientTranslated: ['198.51.100.1', 40000] };

function setup(transport: string, cseq = 3): string {
  return `SETUP rtsp://203.0.113.9/a/track1 RTSP/1.0\r\nCSeq: ${cseq}\r\nTransport: ${transport}\r\nUser-Agent: x\r\n\r\n`;
}
function ok(transport: string, cseq = 3): string {
  return `RTSP/1.0 200 OK\r\nCSeq: ${cseq}\r\nSession: 47112344\r\nTransport: ${transport}\r\n\r\n`;
}

describe('SETUP', () => {
  test('client_port: a pair that begins even, from the server', () => {
    const talk = new Conversation(rtsp, NAT);
    const found = talk.send(0, setup('RTP/AVP;unicast;client_port=4588-4589'));
    expect(talk.result).toBe(UNDERSTOOD);
    expect(found).toMatchObject([
      {
        kind: FIND_EXPECT,
        text: '4588-4589',
        endpoint: '192.168.1.2 4588',
        count: 2,
        even: 1,
        proto: 17,
        who: FROM_PEER,
      },
    ]);
    expect(found[0]).toMatchObject({ class: RTSP_CLIENT, timeout: 300 });
    expect(talk.rewrite(() => ['198.51.100.1', 6000])).toBe(setup('RTP/AVP;unicast;client_port=6000-6001'));
  });

  test('single ports, odd pairs, several specifications, IPv6', () => {
    const talk = new Conversation(rtsp, V4);
    expect(talk.send(0, setup('RTP/AVP/UDP;unicast;client_port=5001;mode=PLAY'))).toMatchObject([
      { count: 1, even: 0, text: '5001' },
    ]);
    expect(talk.send(0, setup('RTP/AVP;client_port=5001-5002'))).toMatchObject([{ count: 2, even: 0 }]);
    expect(talk.send(0, setup('RTP/AVP;client_port=5000-5000'))).toMatchObject([{ count: 1, text: '5000-5000' }]);
    const several = 'RTP/AVP/TCP;interleaved=0-1,RTP/AVP;unicast;client_port=5000-5001,x-rdt/udp;client_port=6000';
    expect(talk.send(0, setup(several)).map((f) => f.text)).toEqual(['5000-5001', '6000']);
    const v6 = new Conversation(rtsp, { client: ['2001:db8::2', 1], server: ['2001:db8::9', 554] });
    expect(v6.send(0, setup('RTP/AVP;client_port=5000-5001'))).toMatchObject([{ endpoint: '2001:db8::2 5000' }]);
  });

  test.each([
    'RTP/AVP;client_port=80-81',
    'RTP/AVP;client_port=65536-65537',
    'RTP/AVP;client_port=5000-5005',
    'RTP/AVP;client_port=',
    'RTP/AVP;client_port=99999999999999999999999',
    'RTP/AVP;destination=192.168.1.3;client_port=5000-5001',
    'RTP/AVP;client_port=5000-5001;destination=media.example',
  ])('refused: %s', (transport) => {
    const talk = new Conversation(rtsp, V4);
    expect(talk.send(0, setup(transport))).toEqual([]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
  });

  test.each(['RTP/AVP/TCP;unicast;interleaved=0-1', 'RTP/AVP;multicast;client_port=5000-5001', 'RTP/AVP'])(
    'nothing to open: %s',
    (transport) => {
      const talk = new Conversation(rtsp, V4);
      expect(talk.send(0, setup(transport))).toEqual([]);
      expect(talk.result).toBe(UNDERSTOOD);
    },
  );

  test('destination: the sender’s own is translated, another host’s needs `bounce`', () => {
    const talk = new Conversation(rtsp, NAT);
    const found = talk.send(0, setup('RTP/AVP;destination=192.168.1.2;client_port=5000-5001'));
    expect(found.map((f) => [f.kind, f.text, f.reverse])).toEqual([
      [FIND_REWRITE, '192.168.1.2', 0],
      [FIND_EXPECT, '5000-5001', 0],
    ]);
    expect(talk.rewrite(() => ['198.51.100.1', 5000])).toBe(
      setup('RTP/AVP;destination=198.51.100.1;client_port=5000-5001'),
    );
    talk.context.bounce = true;
    expect(talk.send(0, setup('RTP/AVP;client_port=5000-5001;destination=192.168.1.3'))).toMatchObject([
      { endpoint: '192.168.1.3 5000' },
    ]);
  });
});

describe('the reply', () => {
  test('the client gets its own ports back, by CSeq; the server’s are opened for it', () => {
    const talk = new Conversation(rtsp, NAT);
    talk.send(0, setup('RTP/AVP;unicast;client_port=4588-4589', 3));
    talk.send(0, setup('RTP/AVP;unicast;client_port=4590-4591', 4));
    const found = talk.send(1, ok('RTP/AVP;unicast;client_port=7002-7003;server_port=6256-6257', 4));
    expect(found).toMatchObject([
      { kind: FIND_REWRITE, text: '7002-7003', reverse: 1 },
      { kind: FIND_EXPECT, text: '6256-6257', endpoint: '203.0.113.9 6256', class: RTSP_SERVER, count: 2 },
    ]);
    expect(talk.rewrite((f) => [f.address, f.port])).toBe(
      ok('RTP/AVP;unicast;client_port=4590-4591;server_port=6256-6257', 4),
    );
    talk.send(1, ok('RTP/AVP;unicast;client_port=7000-7001;server_port=6258-6259', 3));
    expect(talk.rewrite((f) => [f.address, f.port])).toContain('client_port=4588-4589');
    // No SETUP of that number.
    expect(talk.send(1, ok('RTP/AVP;client_port=7000-7001', 9))).toEqual([]);
  });

  test('source: the server’s own is kept in step, another host opens nothing but the client still gets its ports', () => {
    const talk = new Conversation(rtsp, { ...V4, serverTranslated: ['198.51.100.7', 554] });
    talk.send(0, setup('RTP/AVP;client_port=4588-4589'));
    const found = talk.send(1, ok('RTP/AVP;source=203.0.113.9;client_port=4588-4589;server_port=6256'));
    expect(found.map((f) => [f.kind, f.text])).toEqual([
      [FIND_REWRITE, '203.0.113.9'],
      [FIND_EXPECT, '6256'],
    ]);
    const other = talk.send(1, ok('RTP/AVP;source=203.0.113.10;client_port=7000-7001;server_port=6256'));
    expect(other.map((f) => [f.kind, f.text])).toEqual([[FIND_REWRITE, '7000-7001']]);
    expect(talk.result).toBe(NOT_UNDERSTOOD);
  });

  test('errors and other directions open nothing', () => {
    const talk = new Conversation(rtsp, V4);
    expect(talk.send(1, ok('RTP/AVP;server_port=6256').replace('200 OK', '461 Unsupported'))).toEqual([]);
    expect(talk.send(1, setup('RTP/AVP;client_port=5000-5001'))).toEqual([]);
    expect(talk.send(0, ok('RTP/AVP;server_port=6256'))).toEqual([]);
  });
});

test('TEARDOWN closes both classes', () => {
  const talk = new Conversation(rtsp, V4);
  const found = talk.send(0, 'TEARDOWN rtsp://a/ RTSP/1.0\r\nCSeq: 9\r\nSession: 1\r\n\r\n');
  expect(found.map((f) => [f.kind, f.class])).toEqual([
    [FIND_CLOSE, RTSP_CLIENT],
    [FIND_CLOSE, RTSP_SERVER],
  ]);
});

describe('framing', () => {
  const s = setup('RTP/AVP;client_port=5000-5001');

  test('several messages and interleaved data in one segment, data over many', () => {
    const talk = new Conversation(rtsp, V4);
    const data = `$\x01\x00\x08${'\r\n\r\nSETU'}`;
    expect(talk.send(0, `${s}${data}\r\n${s}`)).toHaveLength(2);
    talk.send(0, `$\x00\x10\x00${'x'.repeat(1000)}`); // 4096 bytes
    expect(talk.send(0, s.repeat(40).slice(0, 3000))).toEqual([]);
    expect(talk.send(0, `${'x'.repeat(96)}${s}`)).toHaveLength(1);
  });

  test('a body is not read, though it may look like a message', () => {
    const talk = new Conversation(rtsp, V4);
    const body = ok('RTP/AVP;server_port=6256');
    const reply = `RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: ${body.length * 3}\r\n\r\n${body}`;
    expect(talk.send(1, reply)).toEqual([]);
    expect(talk.send(1, body)).toEqual([]);
    expect(talk.send(1, body + body)).toHaveLength(1);
  });

  test('headers that a segment cuts are left alone, and so is the rest of that message', () => {
    for (let cut = 1; cut < s.length - 1; cut++) {
      const talk = new Conversation(rtsp, V4);
      expect(talk.send(0, s.slice(0, cut))).toEqual([]);
      if (cut > 50) expect(talk.result).toBe(NOT_UNDERSTOOD);
      expect(talk.send(0, s.slice(cut))).toEqual([]);
      if (cut > 50) expect(talk.send(0, s)).toHaveLength(1);
    }
  });

  test('HTTP ends the watching', () => {
    const talk = new Conversation(rtsp, V4);
    expect(talk.send(0, `POST / HTTP/1.0\r\n\r\n${s}`)).toEqual([]);
    expect(talk.send(0, s)).toEqual([]);
  });
});

test('hostile: mutated conversations and noise', () => {
  const next = random(554);
  const requests = [
    setup('RTP/AVP;unicast;client_port=4588-4589;destination=192.168.1.2'),
    `${setup('RTP/AVP/TCP;interleaved=0-1,RTP/AVP;client_port=5000-5001')}$\0\0\x04abcd`,
    'TEARDOWN rtsp://a/ RTSP/1.0\r\nCSeq: 9\r\n\r\n',
  ].map(latin1);
  const replies = [
    ok('RTP/AVP;unicast;client_port=7000-7001;server_port=6256-6257;source=203.0.113.9'),
    `RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: 10\r\n\r\n0123456789${ok('RTP/AVP;server_port=6256')}`,
  ].map(latin1);
  let opened = 0;
  for (let round = 0; round < 300; round++) {
    const talk = new Conversation(rtsp, round % 2 ? NAT : V4, 6, 4000);
    for (let n = 0; n < 20; n++) {
      const dir = next(2) as 0 | 1;
      const list = dir === 0 ? requests : replies;
      const message = list[next(list.length)];
      for (const f of talk.send(dir, next(3) === 0 ? message : mutate(message, next))) {
        if (f.kind !== FIND_EXPECT) continue;
        opened++;
        expect(f.address).toBe(dir === 0 ? '192.168.1.2' : '203.0.113.9');
        expect(f.port).toBeGreaterThanOrEqual(1024);
        expect(f.port + f.count - 1).toBeLessThan(65536);
      }
    }
  }
  expect(opened).toBeGreaterThan(500);
  const talk = new Conversation(rtsp, V4);
  expect(talk.send(0, setup('RTP/AVP;client_port=5000-5001').repeat(500))).toHaveLength(MAX_FINDINGS);
  expect(talk.send(0, setup(`RTP/AVP;client_port=${'5'.repeat(60_000)}`))).toEqual([]);
  for (let n = 0; n < 1000; n++)
    talk.send(
      next(2) as 0 | 1,
      Uint8Array.from({ length: 1 + next(300) }, () => next(256)),
    );
});
