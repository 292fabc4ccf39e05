/** FTP through the whole router: what is announced opens, in the right place, for the right peer; and every stream stays whole. */
import { describe, expect, it } from 'vitest';
import { get32 } from '../lib/build.ts';
import { GATE_MAC, HOST, HOST_MAC, HOST6, Home, LAN_MAC, ROUTER_WAN, SERVER, SERVER6, WAN_MAC } from '../lib/home.ts';
import { expectations, line, Talk, textOf } from './talk.ts';

/** A control connection that has greeted: both directions stand at the start of a line. */
function control(
  home: Home,
  a: readonly ['lan' | 'wan', string, number],
  b: readonly ['lan' | 'wan', string, number],
  toward?: readonly [string, number],
): Talk {
  const talk = new Talk(home, a, b, toward).open();
  talk.say('b', '220 ready\r\n');
  talk.say('a', 'USER anonymous\r\n');
  talk.say('b', '230 in\r\n');
  return talk;
}
const masqueraded = (home: Home) => control(home, ['lan', HOST, 40000], ['wan', SERVER, 21]);
const forwarded = (home: Home) => control(home, ['wan', SERVER, 50000], ['lan', HOST, 21], [ROUTER_WAN, 21]);
const six = (home: Home) => control(home, ['lan', HOST6, 40000], ['wan', SERVER6, 21]);
const FORWARD = {
  nat: {
    masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
    forward: [{ in: 'wan', proto: 'tcp', port: 21, to: HOST }],
  },
};

/** Both ends still understand each other. */
function goesOn(talk: Talk): void {
  talk.ack('a');
  talk.say('b', '200 fine\r\n');
  talk.say('a', 'NOOP\r\n');
  talk.ack('b');
  talk.say('b', '200 still\r\n');
}

describe('behind masquerade', () => {
  it('PORT: the server reaches the client at the translated endpoint, RELATED, with its master', () => {
    const home = new Home();
    const talk = masqueraded(home);
    expect(talk.say('a', 'PORT 192,168,1,10,156,66\r\n')).toBe('PORT 203,0,113,1,156,66\r\n');
    goesOn(talk);
    // Nobody else, and no other port.
    expect(new Talk(home, ['wan', '198.51.100.8', 20], ['lan', HOST, 40002], [ROUTER_WAN, 40002]).tryOpen()).toBe(
      false,
    );
    expect(new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 40003], [ROUTER_WAN, 40003]).tryOpen()).toBe(false);
    const data = new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 40002], [ROUTER_WAN, 40002]).open();
    expect(data.b.peer).toEqual({ address: SERVER, port: 20 });
    data.say('a', 'a directory');
    data.close();
    goesOn(talk);
    expect(line(home, 'sport=20')).toContain(`src=${SERVER} dst=${ROUTER_WAN} sport=20 dport=40002`);
    expect(expectations(home).statistics()).toEqual({ created: 1, deleted: 1, refused: 0 });
    // Used up: a second connection is refused.
    expect(new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 40002], [ROUTER_WAN, 40002]).tryOpen()).toBe(false);
  });

  it('EPRT: the delimiter becomes |, the text may grow', () => {
    const home = new Home();
    const talk = control(home, ['lan', HOST, 40000], ['wan', SERVER, 21]);
    expect(talk.say('a', 'EPRT !1!192.168.1.10!51221!\r\n')).toBe('EPRT |1|203.0.113.1|51221|\r\n');
    goesOn(talk);
    new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 51221], [ROUTER_WAN, 51221]).open().close();
  });

  it.each([
    ['PASV', '227 Entering Passive Mode (198,51,100,7,200,21).\r\n'],
    ['EPSV', '229 Entering Extended Passive Mode (|||51221|)\r\n'],
  ])('%s: nothing is rewritten, the connection is RELATED', (command, reply) => {
    const home = new Home();
    const talk = masqueraded(home);
    talk.say('a', `${command}\r\n`);
    expect(talk.say('b', reply)).toBe(reply);
    expect(expectations(home).count).toBe(1);
    const data = new Talk(home, ['lan', HOST, 40001], ['wan', SERVER, 51221]).open();
    expect(data.b.peer).toEqual({ address: ROUTER_WAN, port: 40001 });
    expect(home.router.conntrack.list().find((c) => c.orig.sport === 40001)?.status).toContain('EXPECTED');
    expect(expectations(home).count).toBe(0);
    goesOn(talk);
  });

  it('two clients announce the same port: each gets its own, and NAT leads to the right one', () => {
    const home = new Home();
    const one = masqueraded(home);
    const two = control(home, ['lan', '192.168.1.11', 40000], ['wan', SERVER, 21]);
    expect(one.say('a', 'PORT 192,168,1,10,156,66\r\n')).toBe('PORT 203,0,113,1,156,66\r\n');
    expect(two.say('a', 'PORT 192,168,1,11,156,66\r\n')).toBe('PORT 203,0,113,1,156,67\r\n');
    goesOn(one);
    goesOn(two);
    new Talk(home, ['wan', SERVER, 20], ['lan', '192.168.1.11', 40002], [ROUTER_WAN, 40003]).open().close();
    new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 40002], [ROUTER_WAN, 40002]).open().close();
  });

  it('many transfers, every edit of another length: both streams stay whole', () => {
    const home = new Home();
    const talk = masqueraded(home);
    for (let n = 0; n < 40; n++) {
      const port = n % 3 === 0 ? 1024 + n : n % 3 === 1 ? 0x6400 + n : 65000 + n;
      const [high, low] = [port >> 8, port & 255];
      expect(talk.say('a', `PORT 192,168,1,10,${high},${low}\r\n`)).toBe(`PORT 203,0,113,1,${high},${low}\r\n`);
      if (n % 4 !== 0) talk.ack('b');
      talk.say('b', '200 PORT command successful\r\n');
      talk.say('a', `RETR file-${n}\r\n`);
      new Talk(home, ['wan', SERVER, 20], ['lan', HOST, port], [ROUTER_WAN, port]).open().close();
      talk.say('b', '226 done\r\n');
      talk.ack('a');
    }
    talk.close();
    expect(expectations(home).count).toBe(0);
  });
});

describe('server behind a port forward', () => {
  it('PASV: the inside address leaves as the public one, the client comes in', () => {
    const home = new Home(FORWARD);
    const talk = forwarded(home);
    talk.say('a', 'PASV\r\n');
    expect(talk.say('b', '227 Entering Passive Mode (192,168,1,10,200,21).\r\n')).toBe(
      '227 Entering Passive Mode (203,0,113,1,200,21).\r\n',
    );
    goesOn(talk);
    expect(new Talk(home, ['wan', '198.51.100.8', 50001], ['lan', HOST, 51221], [ROUTER_WAN, 51221]).tryOpen()).toBe(
      false,
    );
    new Talk(home, ['wan', SERVER, 50001], ['lan', HOST, 51221], [ROUTER_WAN, 51221]).open().close();
    goesOn(talk);
  });

  it('EPSV: the port alone', () => {
    const home = new Home(FORWARD);
    const talk = forwarded(home);
    talk.say('a', 'EPSV\r\n');
    const reply = '229 Entering Extended Passive Mode (|||51221|)\r\n';
    expect(talk.say('b', reply)).toBe(reply);
    new Talk(home, ['wan', SERVER, 50001], ['lan', HOST, 51221], [ROUTER_WAN, 51221]).open().close();
    goesOn(talk);
  });

  it('PORT: the server connects out, and appears as who was reached', () => {
    const home = new Home(FORWARD);
    const talk = forwarded(home);
    const command = 'PORT 198,51,100,7,200,21\r\n';
    expect(talk.say('a', command)).toBe(command);
    const data = new Talk(home, ['lan', HOST, 20], ['wan', SERVER, 51221]).open();
    expect(data.b.peer).toEqual({ address: ROUTER_WAN, port: 20 });
    goesOn(talk);
  });
});

describe('IPv6, by opening alone', () => {
  it('EPRT and EPSV', () => {
    const home = new Home();
    const talk = six(home);
    const command = `EPRT |2|${HOST6}|51221|\r\n`;
    const into = () => new Talk(home, ['wan', SERVER6, 20], ['lan', HOST6, 51221]);
    expect(into().tryOpen()).toBe(false);
    expect(talk.say('a', command)).toBe(command);
    into().open().close();
    talk.say('a', 'EPSV\r\n');
    talk.say('b', '229 Entering Extended Passive Mode (|||6446|)\r\n');
    new Talk(home, ['lan', HOST6, 40001], ['wan', SERVER6, 6446]).open();
    expect(home.router.conntrack.list().find((c) => c.orig.dport === 6446)?.status).toContain('EXPECTED');
    goesOn(talk);
  });
});

describe('TCP around an edit (trap 1)', () => {
  it('a retransmission from before the edit moves by the old amount, one from behind by the new', () => {
    const home = new Home();
    const talk = masqueraded(home);
    const start = talk.a.seq;
    const seen = talk.b.expected;
    talk.say('a', 'TYPE I\r\n');
    const command = 'PORT 192,168,1,10,4,1\r\n';
    talk.say('a', command);
    const behind = talk.a.seq;
    talk.say('a', 'LIST\r\n');
    const arrived = talk.b.expected;
    expect(talk.again('a', 'TYPE I\r\n', start)).toEqual([seen, 'TYPE I\r\n']);
    // The command itself, again: the same text, the same place, no second expectation.
    expect(talk.again('a', command, (start + 8) | 0)).toEqual([(seen + 8) | 0, 'PORT 203,0,113,1,4,1\r\n']);
    expect(talk.again('a', 'LIST\r\n', behind)).toEqual([(arrived - 6) | 0, 'LIST\r\n']);
    expect(expectations(home).statistics().created).toBe(1);
    goesOn(talk);
  });

  it('acknowledgements and SACK blocks move back for the sender, also when only part has arrived', () => {
    const home = new Home();
    const talk = masqueraded(home);
    const start = talk.a.seq;
    const seen = talk.b.expected;
    const command = 'EPRT |1|192.168.1.10|51221|\r\n'; // becomes one byte shorter
    talk.say('a', command);
    talk.say('a', 'LIST\r\n');
    talk.say('a', 'NOOP\r\n');
    const ends = (n: number) => (seen + n) >>> 0;
    // The server has got nothing of the command, but what follows.
    const [hole] = talk.raw('b', {
      ack: seen,
      options: { sack: [[ends(command.length - 1 + 6), ends(command.length - 1 + 12)]] },
    });
    expect(get32(hole.l4, 8) | 0).toBe(start);
    expect([get32(hole.l4, 22), get32(hole.l4, 26)]).toEqual([
      (start + command.length + 6) >>> 0,
      (start + command.length + 12) >>> 0,
    ]);
    // The command has come, LIST is missing.
    const [next] = talk.raw('b', {
      ack: (seen + command.length - 1) | 0,
      options: { sack: [[ends(command.length - 1 + 6), ends(command.length - 1 + 12)]] },
    });
    expect(get32(next.l4, 8) | 0).toBe((start + command.length) | 0);
    expect(get32(next.l4, 22)).toBe((start + command.length + 6) >>> 0);
    goesOn(talk);
  });

  it('a command in pieces is opened but not rewritten; several in one segment are all seen', () => {
    const home = new Home({ nat: {} });
    const talk = masqueraded(home);
    talk.say('a', 'EPRT |1|192.');
    talk.say('a', '168.1.10|512');
    talk.say('a', '21|\r\n');
    new Talk(home, ['wan', SERVER, 20], ['lan', HOST, 51221]).open().close();
    const translated = new Home();
    const other = masqueraded(translated);
    // Cut inside the verb: nothing of the endpoint has left, all can be rewritten.
    other.say('a', 'PO');
    expect(other.say('a', 'RT 192,168,1,10,156,66\r\n')).toBe('RT 203,0,113,1,156,66\r\n');
    goesOn(other);
    expect(other.say('a', 'TYPE I\r\nPORT 192,168,1,10,156,68\r\nLIST\r\n')).toBe(
      'TYPE I\r\nPORT 203,0,113,1,156,68\r\nLIST\r\n',
    );
    goesOn(other);
    new Talk(translated, ['wan', SERVER, 20], ['lan', HOST, 40004], [ROUTER_WAN, 40004]).open().close();
  });

  it('a super-frame is segmented when its length changes, and stays whole when it does not', () => {
    const home = new Home();
    const talk = masqueraded(home);
    const filler = 'NOOP\r\n'.repeat(600);
    const frames = talk.sayLarge('a', `PORT 192,168,1,10,156,66\r\n${filler}`, 1000);
    expect(frames.length).toBe(4);
    expect(frames.join('')).toBe(`PORT 203,0,113,1,156,66\r\n${filler}`);
    goesOn(talk);
    const same = new Home(wideWan());
    const equal = masqueraded(same);
    expect(equal.sayLarge('a', `PORT 192,168,1,10,156,66\r\n${filler}`, 1000)).toEqual([
      `PORT 192,168,2,20,156,66\r\n${filler}`,
    ]);
    goesOn(equal);
  });

  it('a full segment that grows beyond the MTU leaves as two', () => {
    const home = new Home(wideWan('198.51.100.254/24'));
    const talk = control(home, ['lan', HOST, 40000], ['wan', SERVER, 21]);
    const command = 'PORT 192,168,1,10,156,66\r\n';
    const data = command + 'NOOP\r\n'.repeat(240).slice(0, 1460 - command.length);
    const seen = talk.raw('a', { data });
    expect(seen.length).toBe(2);
    expect(seen.every((s) => s.packet.length <= 1500)).toBe(true);
    expect(seen.map(textOf).join('')).toBe(data.replace('192,168,1,10', '198,51,100,254'));
    talk.a.seq = (talk.a.seq + data.length) | 0;
    talk.b.expected = (talk.b.expected + data.length + 2) | 0;
    goesOn(talk);
  });
});

/** A WAN of one's own: its address decides how long the text becomes. The server is either on the link or behind it. */
function wideWan(address = '192.168.2.20/24'): Record<string, unknown> {
  const gate = address.replace(/\.\d+\/24$/, '.1');
  return {
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: ['192.168.1.1/24'] },
      wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, addresses: [address] },
    },
    routes: [{ to: '0.0.0.0/0', via: gate }],
    neighbors: [
      { port: 'lan', ip: HOST, mac: HOST_MAC },
      { port: 'wan', ip: gate, mac: GATE_MAC },
      ...(gate.startsWith('198.51.100.') ? [{ port: 'wan', ip: SERVER, mac: GATE_MAC }] : []),
    ],
  };
}
