/**
 * PPTP and SIP dialogues for the generator: control messages in the order in which people's programs send them, calls that
 * are refused, ended and taken up anew, and the packets (GRE, RTP, RTCP) that they announce; also those of a stranger,
 * early, late, and to a number that nobody named.
 */
import { at, pptp, sdp, sipReply, sipRequest } from '../../alg/messages.ts';
import { grePptp, type Random, udp } from '../../lib/build.ts';
import { fromLan, fromWan, packet } from './frames.ts';
import { far, type Host, type Played, type ScenarioFrame, WAN4 } from './scenario.ts';
import { frameOf, Stream } from './stream.ts';

/** Ports of the calls' media. */
export const MEDIA_PORTS: readonly number[] = [4000, 4001, 4002, 4003, 4010, 4011, 4012, 4013, 6000, 6001, 6002, 6003];
/** Ports that these dialogues use of their own will. */
export const ALG_PORTS: readonly number[] = [1723, 5060, 5062, 5080, 44000, 44001, ...MEDIA_PORTS];

const SERVER = far(1).v4;

/** A call through the PPTP helper. `second`: the host's second control connection. */
export function pptpDialogue(random: Random, host: Host, second: boolean): ScenarioFrame[] {
  const sport = 44000 + Number(second);
  const stream = new Stream('lan', host, [host.v4, sport], [SERVER, 1723], undefined, random.next());
  const mine = random.int(1, 3);
  const theirs = random.int(300, 302);
  // What the server was told is the source port (helpers/pptp.ts), in both routers.
  const told = sport;
  const gre = (): ScenarioFrame => {
    const seq = random.int(1, 9);
    if (random.chance(0.5)) return fromLan(host, packet(host.v4, SERVER, grePptp({ callId: theirs, seq }, 'out')));
    const from = random.chance(0.1) ? far(2).v4 : SERVER;
    return fromWan(packet(from, WAN4, grePptp({ callId: told, seq }, 'in')));
  };
  const more = (most: number) => {
    for (let n = random.int(0, most); n > 0; n--) stream.frames.push(gre());
  };
  stream.say('client', pptp.startRequest()).say('server', pptp.startReply());
  if (random.chance(0.3)) stream.say('client', pptp.echoRequest()).say('server', pptp.echoReply());
  stream.say('client', pptp.outgoingCallRequest(mine));
  const refused = random.chance(0.15);
  stream.say('server', pptp.outgoingCallReply(theirs, told, refused ? random.int(2, 6) : 1));
  if (random.chance(0.5)) stream.settle();
  if (refused) return stream.frames;
  more(5);
  if (random.chance(0.4)) stream.say('client', pptp.setLinkInfo(theirs));
  if (random.chance(0.2)) stream.say('server', pptp.setLinkInfo(told));
  if (random.chance(0.2)) stream.say('server', pptp.wanError(told));
  more(3);
  if (random.chance(0.4)) {
    stream.say('server', pptp.callDisconnect(theirs)).settle();
    if (random.chance(0.5)) stream.say('client', pptp.stopRequest()).say('server', pptp.stopReply());
    if (random.chance(0.5)) stream.send('client', { flags: 'FA' }).send('server', { flags: 'FA' }).settle();
  }
  return stream.frames;
}

/** Calls through the SIP helper, over UDP: of the host's own, or to it once it has registered. */
export function sipDialogue(random: Random, host: Host, second: boolean): ScenarioFrame[] {
  const own = second ? 5062 : 5060;
  const frames: ScenarioFrame[] = [];
  const out = (text: string, dport = 5060) =>
    frames.push(fromLan(host, packet(host.v4, SERVER, udp({ sport: own, dport }, text))));
  const hear = (text: string, sport = 5060) =>
    frames.push(fromWan(packet(SERVER, WAN4, udp({ sport, dport: own }, text))));
  const base = second ? 4010 : 4000;
  let cseq = 1;
  const media = () => [`audio ${base}`, ...(random.chance(0.3) ? [`video ${base + 2}`] : [])];
  const theirs = [6000, 6002];
  const rtp = () => {
    for (let n = random.int(0, 4); n > 0; n--) {
      const plus = random.int(0, 1);
      if (random.chance(0.5))
        frames.push(fromLan(host, packet(host.v4, SERVER, udp({ sport: base + plus, dport: 6000 + plus }, 'rtp out'))));
      else frames.push(incoming(random, plus));
    }
  };
  const invite = (names: string[], address = host.v4) =>
    out(
      sipRequest('INVITE', {
        via: at(host.v4, own),
        contact: at(host.v4, own),
        cseq,
        body: sdp({ address, media: names }),
      }),
    );
  const answer = (status: number, names: string[] | null) =>
    hear(
      sipReply(status, 'INVITE', {
        via: at(WAN4, own),
        contact: at(SERVER, 5060),
        cseq,
        body: names === null ? undefined : sdp({ address: SERVER, media: names }),
      }),
    );
  const ack = () => out(sipRequest('ACK', { via: at(host.v4, own), contact: at(host.v4, own), cseq }));

  if (random.chance(0.25)) {
    const expires = random.pick([60, 600, 0]);
    const headers = [`Expires: ${expires}`];
    out(sipRequest('REGISTER', { via: at(host.v4, own), contact: at(host.v4, own), headers }));
    if (random.chance(0.9)) hear(sipReply(200, 'REGISTER', { via: at(WAN4, own), contact: at(WAN4, own), headers }));
    if (random.chance(0.7)) {
      // The registrar calls, from a port of its own.
      const body = sdp({ address: SERVER, media: ['audio 6000'] });
      hear(
        sipRequest('INVITE', {
          via: at(SERVER, 5080),
          contact: at(SERVER, 5080),
          uri: `sip:alice@${at(WAN4, own)}`,
          body,
        }),
        5080,
      );
      out(
        sipReply(200, 'INVITE', {
          via: at(SERVER, 5080),
          contact: at(host.v4, own),
          body: sdp({ address: host.v4, media: [`audio ${base}`] }),
        }),
        5080,
      );
      rtp();
    }
    return frames;
  }
  const names = media();
  invite(names);
  if (random.chance(0.2)) rtp();
  if (random.chance(0.3)) answer(100, null);
  if (random.chance(0.4)) answer(180, null);
  if (random.chance(0.2))
    answer(
      183,
      names.map((_, n) => `${n === 0 ? 'audio' : 'video'} ${theirs[n]}`),
    );
  const end = random.int(0, 9);
  if (end === 0) {
    answer(random.pick([404, 486, 603]), null);
    ack();
    rtp();
    return frames;
  }
  if (end === 1) {
    out(sipRequest('CANCEL', { via: at(host.v4, own), cseq }));
    answer(487, null);
    rtp();
    return frames;
  }
  answer(
    200,
    names.map((_, n) => (n === 0 ? 'audio 6000' : `video ${random.pick([6002, 0])}`)),
  );
  ack();
  rtp();
  if (random.chance(0.3)) {
    cseq++;
    invite([`audio ${random.pick([base, base + 2])}`], random.chance(0.2) ? '0.0.0.0' : host.v4);
    answer(200, ['audio 6000']);
    ack();
    rtp();
  }
  if (random.chance(0.6)) {
    cseq++;
    if (random.chance(0.5)) {
      out(sipRequest('BYE', { via: at(host.v4, own), cseq }));
      hear(sipReply(200, 'BYE', { via: at(WAN4, own), cseq }));
    } else {
      hear(sipRequest('BYE', { via: at(SERVER, 5060), uri: `sip:alice@${at(WAN4, own)}`, cseq }));
      out(sipReply(200, 'BYE', { via: at(SERVER, 5060), cseq }));
    }
    rtp();
  }
  return frames;
}

/** RTP (or, with `plus` 1, RTCP) from outside to the port that the last offer or answer named; now and then of a stranger. */
function incoming(random: Random, plus: number): ScenarioFrame {
  const from = random.chance(0.1) ? far(2).v4 : SERVER;
  const off = random.chance(0.1) ? 4 : 0;
  return frameOf('wan', { mac: '', v4: '', v6: '' }, (past: readonly Played[]) => {
    let port = 4000;
    for (const { port: where, frame } of past) {
      if (where !== 'wan') continue;
      const medium = /m=audio (\d+) /.exec(new TextDecoder('latin1').decode(frame.subarray(42)));
      if (medium !== null) port = Number(medium[1]);
    }
    return packet(from, WAN4, udp({ sport: 6000 + plus, dport: (port + plus + off) & 0xffff }, 'rtp in'));
  });
}
