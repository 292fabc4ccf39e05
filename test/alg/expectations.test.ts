/**
 * Expectations as such: RELATED, master, class, time, limits; gone with their master; what hostile payloads cannot have.
 * Data connections go to the engine, control connections never.
 */
import { describe, expect, it } from 'vitest';
import { HELPER_FTP, HELPER_TFTP } from '../../conntrack/helpers/index.ts';
import { CT_HELPER, CT_WORDS } from '../../conntrack/record.ts';
import { get32 } from '../lib/build.ts';
import { HOST, HOST2, HOST6, Home, ROUTER_WAN, SERVER, SERVER6 } from '../lib/home.ts';
import { at, sdp, sipRequest } from './messages.ts';
import { datagram, expectations, reaches, Talk } from './talk.ts';

const OTHER = '198.51.100.8';

function ftp(home: Home, sport = 40000, host = HOST): Talk {
  const talk = new Talk(home, ['lan', host, sport], ['wan', host.includes(':') ? SERVER6 : SERVER, 21]).open();
  talk.say('b', '220 ready\r\n');
  talk.say('a', 'USER anonymous\r\n');
  talk.say('b', '230 in\r\n');
  return talk;
}
const active = (port: number, host = HOST) => `PORT ${host.replaceAll('.', ',')},${port >> 8},${port & 255}\r\n`;
const comes = (home: Home, port: number, at = port, from = SERVER, host = HOST) =>
  new Talk(home, ['wan', from, 20], ['lan', host, at], [ROUTER_WAN, port]).tryOpen();

describe('show expect and show conntrack', () => {
  it('lines as conntrack -L expect has them', () => {
    const home = new Home();
    const talk = ftp(home);
    talk.say('a', 'PASV\r\n');
    talk.say('b', '227 Entering Passive Mode (198,51,100,7,200,21).\r\n');
    home.router.advance(1500);
    expect(home.router.expectations.lines()).toEqual([
      '298 proto=6 src=192.168.1.10 dst=198.51.100.7 sport=0 dport=51221 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=192.168.1.10 master-dst=198.51.100.7 sport=40000 dport=21 class=0 helper=ftp',
    ]);
    const six = ftp(home, 40000, HOST6);
    six.say('a', `EPRT |2|${HOST6}|51221|\r\n`);
    expect(home.router.expectations.lines()[1]).toBe(
      `300 proto=6 src=${SERVER6} dst=${HOST6} sport=0 dport=51221 mask-src=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff mask-dst=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff sport=0 dport=65535 master-src=${HOST6} master-dst=${SERVER6} sport=40000 dport=21 class=0 helper=ftp`,
    );
  });

  it('the expected connection names its master, as long as that lives', () => {
    const home = new Home();
    const talk = ftp(home);
    talk.say('a', active(40002));
    const data = new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 40002], [ROUTER_WAN, 40002]).open();
    const all = () => home.router.conntrack.list();
    const master = all().find((c) => c.orig.dport === 21);
    const expected = all().find((c) => c.orig.sport === 20);
    expect(expected?.status).toEqual(expect.arrayContaining(['EXPECTED', 'DST_NAT']));
    expect(expected?.master).toBe(master?.id);
    expect(master?.master).toBeUndefined();
    // Trap 3 and 9: the master is reset; the data connection goes on without it, nothing new follows.
    talk.raw('b', { flags: 'R' });
    home.router.advance(90_000);
    data.say('a', 'still here');
    expect(all().map((c) => c.master)).toEqual([undefined]);
    expect(new Talk(home, ['wan', SERVER, 2020], ['lan', HOST, 40002], [ROUTER_WAN, 40002]).tryOpen()).toBe(false);
    expect(home.router.tables.extensions.count).toBe(0);
  });
});

describe('life', () => {
  it('300 s, and not longer; announced again, the time begins anew', () => {
    const home = new Home();
    const talk = ftp(home);
    talk.say('a', active(40002));
    talk.ack('b');
    home.router.advance(200_000);
    talk.say('a', active(40002));
    talk.ack('b');
    home.router.advance(200_000);
    expect(home.router.expectations.count).toBe(1);
    expect(home.router.expectations.lines()[0]).toMatch(/^100 /);
    home.router.advance(101_000);
    expect(home.router.expectations.count).toBe(0);
    expect(comes(home, 40002)).toBe(false);
    expect(expectations(home).statistics().created).toBe(1);
  });

  it('one at a time for FTP: the next takes the place of the last', () => {
    const home = new Home();
    const talk = ftp(home);
    talk.say('a', active(40002));
    talk.say('a', active(40004));
    expect(comes(home, 40002)).toBe(false);
    expect(comes(home, 40004)).toBe(true);
  });

  it('gone with the master, at once when it expires and not only when it is collected', () => {
    const home = new Home();
    const talk = ftp(home);
    talk.say('a', active(40002));
    talk.raw('b', { flags: 'R' });
    home.router.advance(10_500);
    expect(home.router.expectations.count).toBe(0);
    expect(comes(home, 40002)).toBe(false);
    home.router.advance(90_000);
    expect(expectations(home).count).toBe(0);
    // The same control connection again is another one: it inherits nothing (trap 9).
    const again = ftp(home);
    expect(comes(home, 40002)).toBe(false);
    again.say('a', active(40002));
    expect(comes(home, 40002)).toBe(true);
  });

  it('what a first packet announced counts only once that packet has passed', () => {
    const rules = [{ from: 'lan', to: 'wan', dst: OTHER, verdict: 'drop' }];
    const home = new Home({ alg: { sip: {} }, rules });
    const text = sipRequest('INVITE', { via: at(HOST, 5060), body: sdp({ address: HOST, media: ['audio 4000'] }) });
    expect(datagram(home, 'lan', [HOST, 5060], [OTHER, 5060], text)).toEqual([]);
    expect(expectations(home).count).toBe(0);
    expect(reaches(home, 'wan', [OTHER, 8000], [ROUTER_WAN, 4000])).toBe(false);
    datagram(home, 'lan', [HOST, 5060], [SERVER, 5060], text);
    expect(home.router.expectations.count).toBe(2);
    expect(home.router.tables.extensions.count).toBe(1);
  });

  it('a helper by rule, at any port, and none where it is off', () => {
    const rules = [{ from: 'lan', to: 'wan', proto: 'tcp', port: 2121, verdict: 'accept', helper: 'ftp' }];
    const home = new Home({ rules });
    const talk = new Talk(home, ['lan', HOST, 40000], ['wan', SERVER, 2121]).open();
    talk.say('a', 'USER a\r\n');
    expect(talk.say('a', active(40002))).toBe(active(40002, ROUTER_WAN));
    expect(comes(home, 40002)).toBe(true);
    const off = new Home({ alg: { ftp: false } });
    expect(ftp(off).say('a', active(40002))).toBe(active(40002));
    expect(comes(off, 40002)).toBe(false);
    // A warning says that the rule attaches nothing then; it did.
    const neither = new Home({ alg: { ftp: false }, rules });
    const plain = new Talk(neither, ['lan', HOST, 40000], ['wan', SERVER, 2121]).open();
    plain.say('a', 'USER a\r\n');
    expect(plain.say('a', active(40002))).toBe(active(40002));
  });

  it('a rule for all protocols gave its helper to all connections, so that the engine carried none of them', () => {
    const rules = [{ from: 'lan', to: 'wan', verdict: 'accept', helper: 'ftp' }];
    const home = new Home({ rules, alg: { tftp: {} }, offload: { mode: 'on', 'program-after': 2 } });
    for (let n = 0; n < 6; n++) {
      datagram(home, 'lan', [HOST, 4000], [SERVER, 5000]);
      datagram(home, 'wan', [SERVER, 5000], [ROUTER_WAN, 4000]);
    }
    datagram(home, 'lan', [HOST, 4000], [SERVER, 69], Uint8Array.of(0, 1, 97, 0, 97, 0));
    new Talk(home, ['lan', HOST, 40000], ['wan', SERVER, 2121]).open();
    const of = (port: number) => home.router.conntrack.list().find((c) => c.orig.dport === port);
    const { words } = home.router.tables.conntrack;
    const helper = (port: number) => words[(of(port)?.id ?? -1) * CT_WORDS + CT_HELPER] & 0xff;
    expect([helper(5000), helper(69), helper(2121)]).toEqual([0, HELPER_TFTP, HELPER_FTP]);
    expect(of(5000)?.status).toContain('OFFLOAD');
  });
});

describe('hostile payloads', () => {
  it('ports below 1024 stay shut, whoever offers them', () => {
    const home = new Home({
      nat: {
        masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
        forward: [{ in: 'wan', proto: 'tcp', port: 21, to: HOST }],
      },
    });
    const talk = ftp(home);
    for (const port of [1, 22, 80, 443, 1023]) {
      expect(talk.say('a', active(port))).toBe(active(port));
      expect(comes(home, port)).toBe(false);
    }
    const served = new Talk(home, ['wan', SERVER, 50000], ['lan', HOST, 21], [ROUTER_WAN, 21]).open();
    served.say('b', '220 x\r\n');
    served.say('b', '227 Entering Passive Mode (192,168,1,10,0,22).\r\n');
    expect(new Talk(home, ['wan', SERVER, 50001], ['lan', HOST, 22], [ROUTER_WAN, 22]).tryOpen()).toBe(false);
    expect(expectations(home).count).toBe(0);
    const six = ftp(home, 40001, HOST6);
    six.say('a', `EPRT |2|${HOST6}|22|\r\n`);
    expect(new Talk(home, ['wan', SERVER6, 20], ['lan', HOST6, 22]).tryOpen()).toBe(false);
  });

  it('other hosts’ addresses: a neighbour, the router, the server, broadcast', () => {
    const home = new Home();
    const talk = ftp(home);
    for (const host of [HOST2, '192.168.1.1', ROUTER_WAN, SERVER, OTHER, '255.255.255.255', '0.0.0.0', '127.0.0.1']) {
      expect(talk.say('a', active(40002, host))).toBe(active(40002, host));
      expect(expectations(home).count).toBe(0);
    }
    for (const host of [OTHER, HOST, HOST2])
      talk.say('b', `227 Entering Passive Mode (${host.replaceAll('.', ',')},200,21).\r\n`);
    expect(expectations(home).count).toBe(0);
    expect(comes(home, 40002, 40002, SERVER, HOST2)).toBe(false);
    // SIP and RTSP: media for others.
    const phone = new Home({ alg: { sip: {} } });
    const text = sipRequest('INVITE', {
      via: at(HOST, 5060),
      body: sdp({ address: HOST2, media: ['audio 4000', `video 4002@${OTHER}`] }),
    });
    datagram(phone, 'lan', [HOST, 5060], [SERVER, 5060], text);
    expect(expectations(phone).count).toBe(0);
  });

  it('bounce, when it is allowed, still opens for the server alone', () => {
    const home = new Home({ alg: { ftp: { bounce: true } }, nat: {} });
    const talk = ftp(home);
    talk.say('a', active(40002, HOST2));
    expect(comes(home, 40002)).toBe(false);
    expect(new Talk(home, ['wan', OTHER, 20], ['lan', HOST2, 40002]).tryOpen()).toBe(false);
    expect(new Talk(home, ['wan', SERVER, 20], ['lan', HOST2, 40002]).tryOpen()).toBe(true);
  });

  it('thousands of commands on one connection: one expectation, one extension', () => {
    const home = new Home();
    const talk = ftp(home);
    for (let n = 0; n < 5000; n++) {
      talk.say('a', active(1024 + n));
      if (n % 100 === 0) talk.ack('b');
    }
    expect(expectations(home).count).toBe(1);
    expect(home.router.tables.extensions.count).toBe(1);
    expect(comes(home, 1024)).toBe(false);
    expect(comes(home, 6023)).toBe(true);
    // Sixty in one segment: only as many findings as there is room for, and the stream stays whole.
    const many = Array.from({ length: 60 }, (_, n) => active(30000 + n)).join('');
    const seen = talk.say('a', many.slice(0, 1400));
    expect(seen.length).toBeLessThanOrEqual(1400);
    talk.say('b', '200 ok\r\n');
    expect(expectations(home).count).toBeLessThanOrEqual(1);
  });

  it('thousands of connections that announce: both tables are bounded, and given back', () => {
    const home = new Home({ conntrack: { max: 16384 }, alg: { tftp: {} } });
    const capacity = expectations(home).capacity;
    for (let n = 0; n < capacity + 500; n++)
      expect(datagram(home, 'lan', [HOST, 2000 + n], [SERVER, 69], Uint8Array.of(0, 1, 65, 0, 65, 0))).toHaveLength(1);
    expect(expectations(home).count).toBe(capacity);
    expect(expectations(home).statistics().refused).toBe(500);
    // Who came first still has what it was promised; who came too late was forwarded all the same.
    expect(reaches(home, 'wan', [SERVER, 5000], [ROUTER_WAN, 2000], [HOST, 2000])).toBe(true);
    expect(reaches(home, 'wan', [SERVER, 5000], [ROUTER_WAN, 2000 + capacity + 100])).toBe(false);
    home.router.advance(400_000);
    expect(expectations(home).count).toBe(0);
    expect(home.router.tables.extensions.count).toBe(0);
    expect(datagram(home, 'lan', [HOST, 2000], [SERVER, 69], Uint8Array.of(0, 1, 65, 0, 65, 0))).toHaveLength(1);
    expect(reaches(home, 'wan', [SERVER, 5000], [ROUTER_WAN, 2000], [HOST, 2000])).toBe(true);
  });

  it('extensions run out: the connections pass unwatched, and the next are watched again', () => {
    const home = new Home({ conntrack: { max: 32768 }, alg: { tftp: {} } });
    const watched = 8192;
    for (let n = 0; n < watched + 200; n++)
      expect(datagram(home, 'lan', [HOST, 2000 + n], [SERVER, 69], Uint8Array.of(0, 3, 0, 1))).toHaveLength(1);
    expect(home.router.tables.extensions.count).toBe(watched);
    home.router.advance(120_000);
    expect(home.router.tables.extensions.count).toBe(0);
  });

  it.each(['PORT 192,168,1,10,', 'EPRT |1|192.168.1.10|', '227 ', 'A'])(
    '64 KB of a line that never ends, %j',
    (start) => {
      const home = new Home();
      const talk = ftp(home);
      for (const side of ['a', 'b'] as const) {
        talk.say(side, start);
        for (let n = 0; n < 46; n++) {
          const text = (n % 2 ? '1' : '1,2,').repeat(1400).slice(0, 1400);
          expect(talk.say(side, text)).toBe(text);
          talk.ack(side === 'a' ? 'b' : 'a');
        }
      }
      expect(expectations(home).count).toBe(0);
      expect(home.router.tables.extensions.count).toBe(1);
      talk.say('a', '\r\n');
      expect(talk.say('a', active(40002))).toBe(active(40002, ROUTER_WAN));
      expect(comes(home, 40002)).toBe(true);
    },
  );

  it('a super-frame of 64 KB of commands: nothing is lost, the last counts', () => {
    const home = new Home();
    const talk = ftp(home);
    const text = Array.from({ length: 2500 }, (_, n) => active(20000 + (n % 100))).join('');
    const frames = talk.sayLarge('a', text.slice(0, 60_000), 1448);
    expect(frames.length).toBeGreaterThan(40);
    const last = frames[frames.length - 1];
    expect(last).not.toContain('\0');
    talk.say('b', '200 ok\r\n');
    expect(expectations(home).count).toBeLessThanOrEqual(1);
    expect(talk.b.expected).not.toBe(0);
  });
});

describe('the engine', () => {
  it('data connections go to it, control connections never, and both agree', () => {
    const home = new Home({ offload: { mode: 'on', 'program-after': 2 } });
    const talk = ftp(home);
    talk.say('a', active(40002));
    talk.ack('b');
    const data = new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 40002], [ROUTER_WAN, 40002]).open();
    for (let n = 0; n < 20; n++) {
      data.say('a', `block ${n}`);
      data.ack('b');
      talk.say('a', 'NOOP\r\n');
      talk.say('b', '200 ok\r\n');
    }
    const status = (port: number) => home.router.conntrack.list().find((c) => c.orig.dport === port)?.status ?? [];
    expect(status(40002)).toContain('OFFLOAD');
    expect(status(21)).not.toContain('OFFLOAD');
    expect(home.router.counters.offload?.hits).toBeGreaterThan(20);
    expect(talk.say('a', active(40004))).toBe(active(40004, ROUTER_WAN));
    talk.ack('b');
    expect(comes(home, 40004)).toBe(true);
  });
});

it('the sum of what was sent is what has arrived, in both directions, whatever is edited between (property)', () => {
  let state = 12345;
  const random = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) | 0;
    return (state >>> 8) % below;
  };
  for (let round = 0; round < 10; round++) {
    const home = new Home();
    const talk = ftp(home);
    for (let n = 0; n < 60; n++) {
      const what = random(6);
      if (what === 0) talk.say('a', active(1024 + random(60000)));
      else if (what === 1) talk.say('a', `EPRT |1|${HOST}|${1024 + random(60000)}|\r\n`);
      else if (what === 2) talk.say('b', `227 x (198,51,100,7,${4 + random(200)},${random(256)})\r\n`);
      else if (what === 3) talk.say('a', 'NOOP\r\n');
      else if (what === 4) talk.ack(random(2) === 0 ? 'a' : 'b');
      else {
        // A duplicate of nothing new: a keep-alive probe, one byte back.
        const side = random(2) === 0 ? 'a' : 'b';
        const e = side === 'a' ? talk.a : talk.b;
        const [probe] = talk.raw(side, { seq: (e.seq - 1) | 0, flags: 'A' });
        const to = side === 'a' ? talk.b : talk.a;
        expect(get32(probe.l4, 4) | 0).toBe((to.expected - 1) | 0);
      }
    }
    talk.close();
  }
});
