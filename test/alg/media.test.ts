/** The other protocols through the whole router: what they announce opens in the right place, in both families. */
import { describe, expect, it } from 'vitest';
import * as h323 from '../conntrack/helpers/h323-encoder.ts';
import { cut4, joined } from '../dataplane/fragment-cut.ts';
import { checksum, concat, ip, ipv4, pseudoHeader, put16, toBytes, u16, udp } from '../lib/build.ts';
import { HOST, HOST2, HOST6, Home, ROUTER_WAN, SERVER, SERVER6 } from '../lib/home.ts';
import { at, sdp, sipReply, sipRequest, tftpAck, tftpData, tftpRequest } from './messages.ts';
import { datagram, line, packet, reaches, Talk, textOf } from './talk.ts';

const OTHER = '198.51.100.8';

describe('TFTP', () => {
  it.each([1, 2])('operation %i: the answer comes from a port of its own, to the requester alone', (code) => {
    const home = new Home({ alg: { tftp: {} } });
    expect(datagram(home, 'lan', [HOST, 3000], [SERVER, 69], tftpRequest(code))).toHaveLength(1);
    expect(datagram(home, 'wan', [OTHER, 5000], [ROUTER_WAN, 3000])).toEqual([]);
    const [answer] = datagram(home, 'wan', [SERVER, 5000], [ROUTER_WAN, 3000], tftpData());
    expect([answer.dst, answer.dport]).toEqual([HOST, 3000]);
    const [ack] = datagram(home, 'lan', [HOST, 3000], [SERVER, 5000], tftpAck());
    expect([ack.src, ack.sport, ack.dport]).toEqual([ROUTER_WAN, 3000, 5000]);
    expect(datagram(home, 'wan', [SERVER, 5001], [ROUTER_WAN, 3000])).toEqual([]);
  });

  it('two hosts from the same port: each gets its own answer; IPv6 by opening alone', () => {
    const home = new Home({ alg: { tftp: {} } });
    const [one] = datagram(home, 'lan', [HOST, 3000], [SERVER, 69], tftpRequest());
    const [two] = datagram(home, 'lan', [HOST2, 3000], [SERVER, 69], tftpRequest());
    expect(two.sport).not.toBe(one.sport);
    expect(reaches(home, 'wan', [SERVER, 5001], [ROUTER_WAN, two.sport], [HOST2, 3000])).toBe(true);
    expect(reaches(home, 'wan', [SERVER, 5000], [ROUTER_WAN, one.sport], [HOST, 3000])).toBe(true);
    datagram(home, 'lan', [HOST6, 3000], [SERVER6, 69], tftpRequest());
    expect(reaches(home, 'wan', [SERVER6, 5000], [HOST6, 3000])).toBe(true);
    expect(reaches(home, 'wan', [SERVER6, 5001], [HOST6, 3000])).toBe(false);
  });
});

describe('SIP', () => {
  const invite = (
    media: string[],
    o: { cseq?: number; address?: string; transport?: 'UDP' | 'TCP'; own?: string } = {},
  ) => {
    const own = o.own ?? HOST;
    return sipRequest('INVITE', {
      via: at(own, 5060),
      contact: at(own, 5060),
      cseq: o.cseq,
      transport: o.transport,
      headers: [`Record-Route: <sip:${at(own, 5060)};lr>`],
      body: sdp({ address: o.address ?? own, media }),
    });
  };
  const say = (home: Home, text: string) => textOf(datagram(home, 'lan', [HOST, 5060], [SERVER, 5060], text)[0]);
  const answer = (home: Home, text: string) =>
    textOf(datagram(home, 'wan', [SERVER, 5060], [ROUTER_WAN, 5060], text)[0]);

  it('a call of two media: RTP and RTCP both come in, translated; nobody else’s', () => {
    const home = new Home({ alg: { sip: {} } });
    const sent = say(home, invite(['audio 4000', 'video 4002']));
    expect(sent).not.toContain(HOST);
    expect(sent).toContain(`Via: SIP/2.0/UDP ${ROUTER_WAN}:5060`);
    expect(sent).toContain(`c=IN IP4 ${ROUTER_WAN}\r\n`);
    const length = Number(/Content-Length: (\d+)/.exec(sent)?.[1]);
    expect(length).toBe(sent.length - sent.indexOf('\r\n\r\n') - 4);
    expect(home.router.expectations.count).toBe(4);
    for (const port of [4000, 4001, 4002, 4003]) {
      expect(reaches(home, 'wan', [OTHER, 9000], [ROUTER_WAN, port])).toBe(false);
      expect(reaches(home, 'wan', [SERVER, 7000 + port], [ROUTER_WAN, port], [HOST, port])).toBe(true);
    }
    expect(home.router.expectations.count).toBe(0);
    expect(home.router.conntrack.list().filter((c) => c.status.includes('EXPECTED'))).toHaveLength(4);
    const back = answer(
      home,
      sipReply(200, 'INVITE', {
        via: at(ROUTER_WAN, 5060),
        contact: at(SERVER, 5060),
        body: sdp({ address: SERVER, media: ['audio 6000'] }),
      }),
    );
    expect(back).toContain(`Via: SIP/2.0/UDP ${HOST}:5060`);
    expect(back).toContain(`m=audio 6000`);
    // And out to where the other end announced itself: from the announced ports.
    for (const port of [6000, 6001]) {
      const [rtp] = datagram(home, 'lan', [HOST, port - 2000], [SERVER, port]);
      expect([rtp.src, rtp.sport]).toEqual([ROUTER_WAN, port - 2000]);
    }
  });

  it('the same media ports of two phones: the second gets others, announced and led to it', () => {
    const home = new Home({ alg: { sip: {} } });
    say(home, invite(['audio 4000']));
    const [second] = datagram(home, 'lan', [HOST2, 5060], [SERVER, 5060], invite(['audio 4000'], { own: HOST2 }));
    const port = Number(/m=audio (\d+)/.exec(textOf(second))?.[1]);
    expect(port % 2).toBe(0);
    expect(port).not.toBe(4000);
    for (const n of [0, 1]) {
      expect(reaches(home, 'wan', [SERVER, 8000 + n], [ROUTER_WAN, port + n], [HOST2, 4000 + n])).toBe(true);
      expect(reaches(home, 'wan', [SERVER, 8000 + n], [ROUTER_WAN, 4000 + n], [HOST, 4000 + n])).toBe(true);
    }
  });

  it('hold and re-INVITE: 0.0.0.0 opens nothing, the ports of the resumed call open again', () => {
    const home = new Home({ alg: { sip: {} } });
    say(home, invite(['audio 4000']));
    say(home, invite(['audio 4000'], { cseq: 2, address: '0.0.0.0' }));
    expect(home.router.expectations.count).toBe(0);
    expect(reaches(home, 'wan', [SERVER, 8000], [ROUTER_WAN, 4000])).toBe(false);
    const resumed = say(home, invite(['audio 4010'], { cseq: 3 }));
    expect(resumed).toContain('m=audio 4010');
    expect(home.router.expectations.count).toBe(2);
    expect(reaches(home, 'wan', [SERVER, 8000], [ROUTER_WAN, 4010], [HOST, 4010])).toBe(true);
    // BYE closes what was not used.
    say(home, sipRequest('BYE', { via: at(HOST, 5060), cseq: 4 }));
    expect(reaches(home, 'wan', [SERVER, 8001], [ROUTER_WAN, 4011])).toBe(false);
  });

  it('a registration: the registrar’s calls come in, as long as it lives', () => {
    const home = new Home({ alg: { sip: {} } });
    const register = sipRequest('REGISTER', {
      via: at(HOST, 5060),
      contact: at(HOST, 5070),
      headers: ['Expires: 600'],
    });
    expect(say(home, register)).toContain(`<sip:alice@${ROUTER_WAN}:5070>`);
    answer(
      home,
      sipReply(200, 'REGISTER', {
        via: at(ROUTER_WAN, 5060),
        contact: at(ROUTER_WAN, 5070),
        headers: ['Expires: 120'],
      }),
    );
    expect(home.router.expectations.lines()).toEqual([
      `120 proto=17 src=${SERVER} dst=${ROUTER_WAN} sport=0 dport=5070 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=${HOST} master-dst=${SERVER} sport=5060 dport=5060 PERMANENT class=0 helper=sip`,
    ]);
    expect(reaches(home, 'wan', [OTHER, 5060], [ROUTER_WAN, 5070])).toBe(false);
    const call = sipRequest('INVITE', {
      via: at(SERVER, 5080),
      contact: at(SERVER, 5080),
      body: sdp({ address: SERVER, media: ['audio 6000'] }),
    });
    const [ringing] = datagram(home, 'wan', [SERVER, 5080], [ROUTER_WAN, 5070], call);
    expect([ringing.dst, ringing.dport]).toEqual([HOST, 5070]);
    // The expected connection is followed too: its media open.
    expect(line(home, 'sport=5080')).toContain('dport=5070');
    expect(
      home.router.expectations.lines().filter((l) => l.includes('dport=6000') || l.includes('dport=6001')),
    ).toHaveLength(2);
    expect(reaches(home, 'wan', [SERVER, 5081], [ROUTER_WAN, 5070], [HOST, 5070])).toBe(true);
    home.router.advance(121_000);
    expect(reaches(home, 'wan', [SERVER, 5082], [ROUTER_WAN, 5070])).toBe(false);
  });

  it('over TCP, several messages in a segment, with sequence numbers that fit', () => {
    const home = new Home({ alg: { sip: {} } });
    const talk = new Talk(home, ['lan', HOST, 5060], ['wan', SERVER, 5060]).open();
    const one = invite(['audio 4000'], { transport: 'TCP' });
    const two = sipRequest('OPTIONS', { via: at(HOST, 5060), transport: 'TCP', cseq: 2 });
    const sent = talk.say('a', one + two);
    expect(sent).not.toContain(HOST);
    expect(sent.match(/SIP\/2.0\/TCP 203\.0\.113\.1:5060/g)).toHaveLength(2);
    talk.ack('a');
    talk.say('b', sipReply(200, 'INVITE', { via: at(ROUTER_WAN, 5060), transport: 'TCP' }));
    talk.say('a', sipRequest('ACK', { via: at(HOST, 5060), transport: 'TCP' }));
    talk.ack('b');
    expect(reaches(home, 'wan', [SERVER, 8000], [ROUTER_WAN, 4000], [HOST, 4000])).toBe(true);
    expect(reaches(home, 'wan', [SERVER, 8001], [ROUTER_WAN, 4001], [HOST, 4001])).toBe(true);
  });

  /** Two datagrams in one, as a sender with UDP segmentation offload leaves them: the checksum covers no payload yet. */
  const sendTwo = (home: Home, one: Uint8Array, two: Uint8Array) => {
    const bytes = ipv4({ src: HOST, dst: SERVER }, udp({ sport: 5060, dport: 5060 }, concat(one, two)));
    const length = bytes.length - 20;
    put16(bytes, 26, ~checksum(pseudoHeader(ip(HOST), ip(SERVER), 17, length)) & 0xffff);
    home.offloaded('lan', bytes, { flags: 1, gso: 5 | (one.length << 16), csum: 34 | (6 << 16), hdrlen: 42 });
    return home.left('wan').map(textOf);
  };

  it('the second datagram of a super-frame was not read, unless the first had changed', () => {
    const message = (host: string) => toBytes(sipRequest('OPTIONS', { via: at(host, 5060), contact: at(host, 5060) }));
    expect(message(OTHER)).toHaveLength(message(HOST).length);
    const sent = sendTwo(new Home({ alg: { sip: {} } }), message(OTHER), message(HOST));
    expect(sent).toHaveLength(2);
    expect(sent[1]).toContain(`Via: SIP/2.0/UDP ${ROUTER_WAN}:5060`);
  });

  it('a super-frame that began a connection gave its record back while it was in the hash, one time for each segment', () => {
    const home = new Home({ alg: { sip: {} } });
    const message = toBytes(sipRequest('OPTIONS', { via: at(HOST, 5060), contact: at(HOST, 5060) }));
    const sent = sendTwo(home, message, message);
    expect(sent).toHaveLength(2);
    for (const text of sent) expect(text).toContain(`Via: SIP/2.0/UDP ${ROUTER_WAN}:5060`);
    expect(home.router.conntrack.lines()).toHaveLength(1);
    expect(answer(home, sipReply(200, 'OPTIONS', { via: at(ROUTER_WAN, 5060) }))).toContain(HOST);
    home.router.advance(4_000_000);
    expect(home.router.conntrack.lines()).toEqual([]);
    expect(home.router.conntrack.count).toBe(0);
  });

  it('a datagram that an edit made longer than a datagram can be left in fragments beyond 65,535 bytes', () => {
    const alg = { sip: {} };
    const nat = { forward: [{ in: 'wan', proto: 'udp', port: 5060, to: `${HOST}:5060` }] };
    const home = new Home({ alg, nat });
    const rest = `Content-Length: 60000\r\n\r\n${'z'.repeat(60000)}`;
    const message = (size: number) => {
      const to = at(ROUTER_WAN, 5060);
      const text = `MESSAGE sip:${to} SIP/2.0\r\nVia: SIP/2.0/UDP ${at(SERVER, 5060)}\r\nTo: <sip:${to}>\r\nCSeq: 1 MESSAGE\r\nSubject: `;
      return `${text}${'y'.repeat(size - text.length - 2 - rest.length)}\r\n${rest}`;
    };
    const cuts = Array.from({ length: 44 }, (_, n) => (n + 1) * 1480);
    const send = (size: number) => {
      const datagram = packet(SERVER, ROUTER_WAN, udp({ sport: 5060, dport: 5060 }, message(size)));
      for (const fragment of cut4(datagram, cuts)) home.wan(fragment);
    };
    // The host's address has a digit more than the router's, and stands there twice.
    send(65507 - 2);
    const [whole] = joined(home.left('lan').map((seen) => seen.packet));
    expect(whole.length).toBe(65535);
    expect(String.fromCharCode(...whole.subarray(28, 80))).toContain(`MESSAGE sip:${HOST}:5060 SIP/2.0`);
    send(65507 - 1);
    expect(home.left('lan')).toEqual([]);
    expect(home.dropped).toEqual({ ALG_DROP: 1 });
  });

  it('IPv6: opened, not rewritten', () => {
    const home = new Home({ alg: { sip: {} } });
    const text = invite(['audio 4000'], { own: HOST6 });
    expect(textOf(datagram(home, 'lan', [HOST6, 5060], [SERVER6, 5060], text)[0])).toBe(text);
    for (const port of [4000, 4001]) expect(reaches(home, 'wan', [SERVER6, 8000], [HOST6, port])).toBe(true);
    expect(reaches(home, 'wan', [SERVER6, 8000], [HOST6, 4002])).toBe(false);
  });
});

describe('RTSP', () => {
  const setup = (transport: string) =>
    `SETUP rtsp://${SERVER}/a RTSP/1.0\r\nCSeq: 3\r\nTransport: ${transport}\r\n\r\n`;
  const ok = (transport: string) => `RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession: 1\r\nTransport: ${transport}\r\n\r\n`;

  it('client_port: RTP and RTCP come in; the reply names them as the client did', () => {
    const home = new Home({ alg: { rtsp: {} } });
    const talk = new Talk(home, ['lan', HOST, 40000], ['wan', SERVER, 554]).open();
    const other = new Talk(home, ['lan', HOST2, 40000], ['wan', SERVER, 554]).open();
    talk.say('a', setup('RTP/AVP;unicast;client_port=4588-4589'));
    const moved = other.say('a', setup('RTP/AVP;unicast;client_port=4588-4589'));
    const [, first] = /client_port=(\d+)/.exec(moved) ?? [];
    expect(Number(first)).toBe(4590);
    expect(other.say('b', ok('RTP/AVP;unicast;client_port=4590-4591;server_port=6256-6257'))).toContain(
      'client_port=4588-4589;server_port=6256-6257',
    );
    talk.say('b', ok('RTP/AVP;unicast;client_port=4588-4589;server_port=6256-6257'));
    for (const n of [0, 1]) {
      expect(reaches(home, 'wan', [SERVER, 6256 + n], [ROUTER_WAN, 4588 + n], [HOST, 4588 + n])).toBe(true);
      expect(reaches(home, 'wan', [SERVER, 6256 + n], [ROUTER_WAN, 4590 + n], [HOST2, 4588 + n])).toBe(true);
    }
    talk.say('a', 'PLAY rtsp://x RTSP/1.0\r\nCSeq: 4\r\n\r\n');
    talk.ack('b');
  });

  it('interleaved data is left alone', () => {
    const home = new Home({ alg: { rtsp: {} } });
    const talk = new Talk(home, ['lan', HOST, 40000], ['wan', SERVER, 554]).open();
    const text = setup('RTP/AVP/TCP;unicast;interleaved=0-1');
    expect(talk.say('a', text)).toBe(text);
    talk.say('b', concat(Uint8Array.of(36, 0), u16(20), toBytes('client_port=4588-458')));
    expect(home.router.expectations.count).toBe(0);
  });
});

it('IRC: DCC SEND, for whoever got the message', () => {
  const home = new Home({ alg: { irc: {} } });
  const talk = new Talk(home, ['lan', HOST, 40000], ['wan', SERVER, 6667]).open();
  const number = (address: string) => address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0);
  const dcc = (address: string, port: number) =>
    `PRIVMSG bob :\x01DCC SEND notes.txt ${number(address)} ${port} 999\x01\r\n`;
  expect(talk.say('a', dcc(HOST, 51221))).toBe(dcc(ROUTER_WAN, 51221));
  talk.ack('b');
  new Talk(home, ['wan', OTHER, 50000], ['lan', HOST, 51221], [ROUTER_WAN, 51221]).open().close();
  expect(new Talk(home, ['wan', OTHER, 50001], ['lan', HOST, 51221], [ROUTER_WAN, 51221]).tryOpen()).toBe(false);
});

it('H.323: Q.931 announces H.245, H.245 announces media', () => {
  const home = new Home({ alg: { h323: {} } });
  const talk = new Talk(home, ['lan', HOST, 40000], ['wan', SERVER, 1720]).open();
  const setup = Uint8Array.from(
    h323.q931(h323.setup, { source: h323.at(HOST, 40000), destination: h323.at(SERVER, 1720) }),
  );
  expect(talk.say('a', setup)).toContain(String.fromCharCode(203, 0, 113, 1));
  const connect = h323.q931(h323.connect, { h245: h323.at(SERVER, 7000) }, 7);
  talk.say('b', Uint8Array.from(connect));
  const control = new Talk(home, ['lan', HOST, 40001], ['wan', SERVER, 7000]).open();
  expect(home.router.conntrack.list().find((c) => c.orig.sport === 40001)?.status).toContain('EXPECTED');
  const open = Uint8Array.from(h323.tpkt(h323.h245Open({ media: h323.at(HOST, 5000), control: h323.at(HOST, 5001) })));
  expect(control.say('a', open)).not.toContain(String.fromCharCode(192, 168, 1, 10));
  for (const port of [5000, 5001])
    expect(reaches(home, 'wan', [SERVER, 8000], [ROUTER_WAN, port], [HOST, port])).toBe(true);
  expect(reaches(home, 'wan', [OTHER, 8000], [ROUTER_WAN, 5000])).toBe(false);
});

it('H.323: a browser that a page made post a call signalled it, where a segment began with it', () => {
  const call = Uint8Array.from(h323.q931(h323.connect, { h245: h323.at(HOST, 7000) }, 7));
  const opened = (first: string) => {
    const home = new Home({ alg: { h323: {} } });
    const talk = new Talk(home, ['lan', HOST, 40000], ['wan', SERVER, 1720]).open();
    talk.say('a', first);
    talk.say('a', call);
    return new Talk(home, ['wan', SERVER, 50000], ['lan', HOST, 7000], [ROUTER_WAN, 7000]).tryOpen();
  };
  expect([opened('\x03\x00\x00\x04'), opened('POST / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n')]).toEqual([
    true,
    false,
  ]);
});

it('H.323: the port of a registration that was given another was named as its owner knows it, and came back as the other', () => {
  const home = new Home({ alg: { h323: {} } });
  const bytes = (e: h323.Endpoint) => String.fromCharCode(...e.address, e.port >> 8, e.port & 255);
  const [own, known] = [h323.at(HOST2, 1720), h323.at(ROUTER_WAN, 1721)];
  const up = (host: string, message: number[]) =>
    datagram(home, 'lan', [host, 40000], [SERVER, 1719], Uint8Array.from(message))[0];
  up(HOST, h323.rrq([h323.at(HOST, 1720)], [h323.at(HOST, 40000)]));
  const request = up(HOST2, h323.rrq([own], [h323.at(HOST2, 40000)]));
  expect(textOf(request)).toContain(bytes(known));
  const down = (message: number[]) =>
    textOf(datagram(home, 'wan', [SERVER, 1719], [ROUTER_WAN, request.sport], Uint8Array.from(message))[0]);
  expect(down(h323.rcf([known]))).toContain(bytes(own));
  expect(down(h323.acf(known))).toContain(bytes(own));
  for (const message of [h323.irr(h323.at(HOST2, 40000), [own]), h323.arq(own, undefined), h323.urq([own])])
    expect(textOf(up(HOST2, message))).toContain(bytes(known));
  // The registration is over, and its port is nobody's: what names it stays as it is.
  expect(down(h323.rcf([known]))).toContain(bytes(known));
});

describe('DNS (row A8)', () => {
  const message = (id: number, answer: boolean) =>
    concat(u16(id), u16(answer ? 0x8180 : 0x0100), u16(1), u16(0), u16(0), u16(0), toBytes('\x01a\0'), u16(1), u16(1));
  const ask = (home: Home, id: number, sport = 5353) =>
    datagram(home, 'lan', [HOST, sport], [SERVER, 53], message(id, false));
  const reply = (home: Home, id: number, sport = 5353) =>
    datagram(home, 'wan', [SERVER, 53], [ROUTER_WAN, sport], message(id, true));

  it('the last answer ends the connection; an answer to nobody’s question does not', () => {
    const home = new Home({ alg: { dns: {} } });
    ask(home, 0x1234);
    ask(home, 0x4321); // A and AAAA from one socket
    expect(reply(home, 0x9999)).toHaveLength(1);
    expect(reply(home, 0x1234)).toHaveLength(1);
    expect(home.router.conntrack.count).toBe(1);
    expect(home.router.conntrack.lines()).toHaveLength(1);
    expect(reply(home, 0x4321)).toHaveLength(1);
    expect(home.router.conntrack.lines()).toEqual([]);
    expect(reply(home, 0x4321)).toEqual([]);
    // The port is free again, and a new question opens it anew.
    expect(ask(home, 7)[0].sport).toBe(5353);
    expect(reply(home, 7)).toHaveLength(1);
    home.router.advance(100_000);
    expect(home.router.conntrack.count).toBe(0);
    expect(home.router.tables.extensions.count).toBe(0);
  });

  it('many questions at once: the connection lives as any other', () => {
    const home = new Home({ alg: { dns: {} } });
    for (let id = 0; id < 40; id++) ask(home, id);
    for (let id = 0; id < 40; id++) expect(reply(home, id)).toHaveLength(1);
    expect(home.router.conntrack.lines()).toHaveLength(1);
  });

  it('off by default: the answer changes nothing', () => {
    const home = new Home();
    ask(home, 1);
    reply(home, 1);
    expect(reply(home, 1)).toHaveLength(1);
  });
});

it('Kerberos passes: no addresses to mind (row A9)', () => {
  const home = new Home({ alg: { ftp: {}, tftp: {}, sip: {}, rtsp: {}, irc: {}, h323: {}, pptp: {}, dns: {} } });
  // AS-REQ's outer tags; 192.168.1.10 stands in it as Kerberos writes host addresses (RFC 4120 §7.5.3), and stays.
  const request = concat(Uint8Array.of(0x6a, 0x20, 0x30, 0x1e), Uint8Array.of(192, 168, 1, 10), toBytes('krbtgt'));
  const [sent] = datagram(home, 'lan', [HOST, 5500], [SERVER, 88], request);
  expect(sent.l4.subarray(8)).toEqual(request);
  const [back] = datagram(home, 'wan', [SERVER, 88], [ROUTER_WAN, 5500], request);
  expect(back.l4.subarray(8)).toEqual(request);
  const talk = new Talk(home, ['lan', HOST, 5501], ['wan', SERVER, 88]).open();
  talk.say('a', concat(u16(0), u16(request.length), request));
  talk.say('b', request);
  talk.close();
  expect(home.router.expectations.count).toBe(0);
});
