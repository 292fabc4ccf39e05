/** PPTP through the whole router (trap 10): Call IDs both ways, two clients with the same one, the ends of a call. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { get16, gre, grePptp, ipv4, tcp } from '../lib/build.ts';
import { HOST, HOST_MAC, HOST2, HOST2_MAC, Home, ROUTER_WAN, SERVER } from '../lib/home.ts';
import { FIRST_ID, pptp, SECOND_ID } from './messages.ts';
import { expectations, packet, Talk, through } from './talk.ts';

const raw = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
const id = (text: string, at: number) => get16(raw(text), at);

/** A client's call; `told` is the Call ID that the server was told. */
interface Call {
  talk: Talk;
  told: number;
}

/** The control connection and a call: client's ID `c`, server's `s`. */
function call(home: Home, host: string, c: number, s: number, sport = 40000): Call {
  const talk = new Talk(home, ['lan', host, sport], ['wan', SERVER, 1723]).open();
  talk.say('a', pptp.startRequest());
  talk.say('b', pptp.startReply());
  const told = id(talk.say('a', pptp.outgoingCallRequest(c)), FIRST_ID);
  const reply = talk.say('b', pptp.outgoingCallReply(s, told));
  expect([id(reply, FIRST_ID), id(reply, SECOND_ID)]).toEqual([s, c]);
  return { talk, told };
}

const up = (home: Home, host: string, callId: number, seq = 1) =>
  through(home, 'lan', packet(host, SERVER, grePptp({ callId, seq }, `up from ${host}`)));
const down = (home: Home, callId: number, seq = 1) =>
  through(home, 'wan', packet(SERVER, ROUTER_WAN, grePptp({ callId, seq }, `down ${callId}`)));
const greLines = (home: Home) => home.router.conntrack.lines().filter((l) => l.startsWith('gre'));

describe('PPTP', () => {
  let home: Home;
  beforeEach(() => {
    home = new Home();
  });

  it('a call: GRE goes both ways, with the receiver’s Call ID each', () => {
    const { told } = call(home, HOST, 7, 300);
    expect(told).toBe(40000);
    const [out] = up(home, HOST, 300);
    expect([out.src, out.dst, get16(out.l4, 6)]).toEqual([ROUTER_WAN, SERVER, 300]);
    const [back] = down(home, told);
    expect([back.dst, get16(back.l4, 6)]).toEqual([HOST, 7]);
    up(home, HOST, 300, 2);
    expect(greLines(home)).toHaveLength(1);
    expect(greLines(home)[0]).toMatch(
      /^gre {6}47 \d+ src=192\.168\.1\.10 dst=198\.51\.100\.7 srckey=0x7 dstkey=0x12c .*src=198\.51\.100\.7 dst=203\.0\.113\.1 srckey=0x12c dstkey=0x9c40 .*\[ASSURED\]/,
    );
    expect(home.router.conntrack.list().find((c) => c.protocol === 'gre')?.status).toContain('EXPECTED');
  });

  it('a call whose first packet is the server’s', () => {
    const { told } = call(home, HOST, 7, 300);
    const [back] = down(home, told);
    expect([back.dst, get16(back.l4, 6)]).toEqual([HOST, 7]);
    const [out] = up(home, HOST, 300);
    expect([out.src, get16(out.l4, 6)]).toEqual([ROUTER_WAN, 300]);
    expect(greLines(home)).toHaveLength(1);
  });

  it('two clients with the same Call ID towards one server: both calls carry, unmixed', () => {
    const one = call(home, HOST, 7, 300);
    const two = call(home, HOST2, 7, 301);
    expect(one.told).not.toBe(two.told);
    for (let round = 1; round <= 3; round++) {
      const [a] = up(home, HOST, 300, round);
      const [b] = up(home, HOST2, 301, round);
      expect([get16(a.l4, 6), get16(b.l4, 6)]).toEqual([300, 301]);
      const [x] = down(home, one.told, round);
      const [y] = down(home, two.told, round);
      expect([x.dst, x.dstMac, get16(x.l4, 6)]).toEqual([HOST, HOST_MAC, 7]);
      expect([y.dst, y.dstMac, get16(y.l4, 6)]).toEqual([HOST2, HOST2_MAC, 7]);
    }
    expect(greLines(home)).toHaveLength(2);
    // The end of one is not the end of the other.
    one.talk.say('a', pptp.callClear(7));
    expect(down(home, one.told)).toEqual([]);
    expect(up(home, HOST, 300)).toEqual([]);
    expect(down(home, two.told)[0].dst).toBe(HOST2);
    expect(greLines(home)).toHaveLength(1);
  });

  it.each(['client', 'server', 'stop', 'gone'])('the call ends by the %s', (how) => {
    const { talk, told } = call(home, HOST, 7, 300);
    up(home, HOST, 300);
    down(home, told);
    if (how === 'client') expect(id(talk.say('a', pptp.callClear(7)), FIRST_ID)).toBe(told);
    else if (how === 'server') talk.say('b', pptp.callDisconnect(300));
    else if (how === 'stop') talk.say('a', pptp.stopRequest());
    else {
      // The control connection is reset: what it had opened goes with it.
      expect(talk.raw('b', { flags: 'RA' })).toHaveLength(1);
      home.router.advance(11_000);
    }
    expect(up(home, HOST, 300)).toEqual([]);
    expect(down(home, told)).toEqual([]);
    if (how !== 'gone') expect(greLines(home)).toEqual([]);
    expect(home.router.expectations.lines()).toEqual([]);
  });

  it('the other messages carry the right IDs: Set-Link-Info, WAN-Error, Echo', () => {
    const { talk, told } = call(home, HOST, 7, 300);
    expect(id(talk.say('a', pptp.setLinkInfo(300)), FIRST_ID)).toBe(300);
    expect(id(talk.say('b', pptp.setLinkInfo(told)), FIRST_ID)).toBe(7);
    expect(id(talk.say('b', pptp.wanError(told)), FIRST_ID)).toBe(7);
    const echo = pptp.echoRequest();
    expect(raw(talk.say('b', echo))).toEqual(echo);
    expect(raw(talk.say('a', pptp.echoReply()))).toEqual(pptp.echoReply());
    expect(down(home, told)).toHaveLength(1);
  });

  it('a second call after the first, and one that is refused', () => {
    const { talk, told } = call(home, HOST, 7, 300);
    up(home, HOST, 300);
    talk.say('a', pptp.callClear(7));
    talk.say('b', pptp.callDisconnect(300));
    talk.say('a', pptp.outgoingCallRequest(8));
    talk.say('b', pptp.outgoingCallReply(301, told, 2));
    expect(up(home, HOST, 301)).toEqual([]);
    talk.say('a', pptp.outgoingCallRequest(9));
    talk.say('b', pptp.outgoingCallReply(302, told));
    expect(up(home, HOST, 302)).toHaveLength(1);
    expect(get16(down(home, told)[0].l4, 6)).toBe(9);
  });

  it('more calls at once than a control connection has keys for: the oldest gives way, and the end is the end of all', () => {
    const { talk, told } = call(home, HOST, 7, 300);
    up(home, HOST, 300);
    for (let n = 1; n <= 4; n++) {
      expect(greLines(home)).toHaveLength(n);
      talk.say('a', pptp.outgoingCallRequest(7 + n));
      talk.say('b', pptp.outgoingCallReply(300 + n, told));
      expect(up(home, HOST, 300 + n)).toHaveLength(1);
    }
    expect(greLines(home)).toHaveLength(4);
    expect(up(home, HOST, 300)).toEqual([]);
    talk.say('a', pptp.stopRequest());
    expect(greLines(home)).toEqual([]);
    expect(expectations(home).count).toBe(0);
  });

  it('SYNs to port 1723 that nobody answered made the router look at all of its connections, once for each', () => {
    const looked = vi.spyOn(home.router.tables.conntrack, 'highWater', 'get');
    const syn = (sport: number) => packet(HOST, SERVER, tcp({ sport, dport: 1723, seq: 1, flags: 'S' }));
    for (let n = 0; n < 100; n++) expect(through(home, 'lan', syn(2000 + n))).toHaveLength(1);
    const { talk } = call(home, HOST, 7, 300);
    for (let n = 0; n < 100; n++) talk.say('b', pptp.callDisconnect(300));
    home.router.advance(130_000);
    expect(home.router.tables.conntrack.count).toBe(1);
    expect(looked).not.toHaveBeenCalled();
  });

  it('GRE version 1 without a call is refused, plain GRE goes as ever', () => {
    expect(up(home, HOST, 300)).toEqual([]);
    expect(down(home, 300)).toEqual([]);
    expect(home.dropped).toMatchObject({ CT_INVALID: 2 });
    expect(through(home, 'lan', packet(HOST, SERVER, gre({ protocol: 0x0800, key: 5 }, 'x')))).toHaveLength(1);
  });

  it('GRE of version 1 that carries no PPP passed on a connection of version 0 between the same hosts', () => {
    const raw = (version: number) =>
      ipv4({ src: HOST, dst: SERVER, proto: 47 }, Uint8Array.of(0, version, 8, 0, 1, 2, 3, 4));
    expect(through(home, 'lan', raw(0))).toHaveLength(1);
    expect(through(home, 'lan', raw(1))).toEqual([]);
    expect(home.dropped).toEqual({ CT_INVALID: 1 });
    expect(through(home, 'lan', raw(0))).toHaveLength(1);
  });

  it('a call outlives the days after which deadlines would wrap, as long as its control connection talks', () => {
    const { talk, told } = call(home, HOST, 7, 300);
    talk.ack('a');
    up(home, HOST, 300);
    down(home, told);
    // 30 days: twice the 11.5 after which an expectation's time could not be told from the past.
    for (let day = 0; day < 30 * 6; day++) {
      home.router.advance(4 * 3600 * 1000);
      talk.say('a', pptp.echoRequest());
      talk.ack('b');
      expect(up(home, HOST, 300)).toHaveLength(1);
      expect(down(home, told)).toHaveLength(1);
    }
  });
});
