/**
 * The helpers' scenarios: control connections that announce, and the data that follows, for the kernel's ftp, tftp, pptp, sip
 * and irc helpers and for Sluice's. The far end answers to what really left (numbers, lengths, ports), so that a
 * scenario does not know beforehand what either router makes of it.
 *
 * `DIFFERENT` are those in which the two do not agree on purpose; docs/alg.md has the reasons.
 */
import { at, pptp, sdp, sipReply, sipRequest, tftpData, tftpRequest } from '../../alg/messages.ts';
import { concat, grePptp, tcp, udp } from '../../lib/build.ts';
import { fromLan, fromWan, packet } from './frames.ts';
import { far, HOSTS, type Host, type Played, type Scenario, type ScenarioFrame, WAN4 } from './scenario.ts';
import { frameOf, Stream } from './stream.ts';

const [A, B] = HOSTS;
const F = far(1).v4;

/** The last thing that left through a port and satisfies. */
const last = (past: readonly Played[], port: string, text: RegExp) =>
  past
    .filter((p) => p.port === port)
    .map((p) => text.exec(String.fromCharCode(...p.frame.subarray(14))))
    .filter((m) => m !== null)
    .at(-1);

function greeted(stream: Stream): Stream {
  return stream.say('server', '220 ready\r\n').say('client', 'USER a\r\n').say('server', '230 in\r\n');
}
const masqueraded = (host = A, sport = 42000) => greeted(new Stream('lan', host, [host.v4, sport], [F, 21]));
const forwarded = () => greeted(new Stream('wan', A, [F, 42000], [A.v4, 21], [WAN4, 21]));
const six = () => greeted(new Stream('lan', A, [A.v6, 42000], [far(1).v6, 21]));
const syn = (from: string, sport: number, to: string, dport: number): ScenarioFrame =>
  fromWan(packet(from, to, tcp({ sport, dport, flags: 'S', seq: 9, win: 1000 })));
const synOut = (host: Host, from: string, sport: number, to: string, dport: number): ScenarioFrame =>
  fromLan(host, packet(from, to, tcp({ sport, dport, flags: 'S', seq: 9, win: 1000 })));
/** To the port that the last `a,b,c,d,p,q` on the WAN named. */
const toAnnounced = (from = F): ScenarioFrame =>
  frameOf('wan', A, (past) => {
    const m = last(past, 'wan', /(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)/);
    const port = m ? Number(m[5]) * 256 + Number(m[6]) : 1;
    return packet(from, WAN4, tcp({ sport: 20, dport: port, flags: 'S', seq: 9, win: 1000 }));
  });

const FORWARD21 = { alg: { ftp: {} }, forwards: [{ proto: 'tcp', port: 21, to: A.v4 }] };
const FTP = { alg: { ftp: {} } };

const FTP_SCENARIOS: Scenario[] = [
  {
    name: 'FTP: EPRT with another delimiter, both streams go on behind the edit',
    topology: FTP,
    frames: [
      ...masqueraded()
        .say('client', 'EPRT !1!192.168.1.10!51221!\r\n')
        .settle()
        .say('server', '200 EPRT\r\n')
        .say('client', 'LIST\r\n')
        .settle()
        .say('client', 'eprt |1|192.168.1.10|51223|\r\n')
        .say('server', '200 EPRT\r\n')
        .settle().frames,
      syn(F, 20, WAN4, 51221),
      syn(F, 20, WAN4, 51223),
    ],
  },
  {
    name: 'FTP: the server behind a port forward, PASV and EPSV',
    topology: FORWARD21,
    frames: [
      ...forwarded()
        .say('client', 'PASV\r\n')
        .say('server', '227 Entering Passive Mode (192,168,1,10,200,21).\r\n')
        .settle().frames,
      toAnnounced(far(2).v4),
      syn(F, 50001, WAN4, 51221),
      ...forwardedAgain(),
      syn(F, 50003, WAN4, 6446),
    ],
  },
  {
    name: 'FTP: the server behind a port forward connects out for PORT',
    topology: FORWARD21,
    frames: [
      ...forwarded().say('client', 'PORT 198,51,100,1,200,21\r\n').say('server', '200 ok\r\n').frames,
      synOut(A, A.v4, 20, F, 51221),
    ],
  },
  {
    name: 'FTP: 227 in other words',
    topology: FORWARD21,
    frames: [
      ...forwarded()
        .say('client', 'PASV\r\n')
        .say('server', '227 Entering Passive Mode 192,168,1,10,200,21\r\n')
        .settle()
        .say('server', '227 =192,168,1,10,200,23\r\n')
        .settle().frames,
      syn(F, 50001, WAN4, 51223),
    ],
  },
  {
    name: 'FTP: another host’s address is left alone',
    topology: FTP,
    frames: [
      ...masqueraded()
        .say('client', 'PORT 192,168,1,11,200,21\r\n')
        .say('server', '227 Entering Passive Mode (198,51,100,2,200,21).\r\n')
        .settle().frames,
      syn(F, 20, WAN4, 51221),
    ],
  },
  {
    name: 'FTP: numbers that are none',
    topology: FTP,
    frames: masqueraded()
      .say('client', 'PORT 192,168,1,300,200,21\r\n')
      .say('client', 'PORTLY 1,2,3,4,5,6\r\n')
      .settle().frames,
  },
  {
    name: 'FTP: PORT, its retransmission, what follows, and SACK',
    topology: FTP,
    notes: 'trap 1',
    frames: (() => {
      const s = masqueraded();
      const start = s.sequence.client;
      s.say('client', 'PORT 192,168,1,10,4,1\r\n');
      s.send('client', { data: 'PORT 192,168,1,10,4,1\r\n', seq: start });
      s.say('client', 'LIST\r\n').say('client', 'NOOP\r\n');
      s.send('server', { ack: -12, sack: [-6, 0] })
        .send('server', {})
        .say('server', '200 ok\r\n')
        .settle();
      return [...s.frames, syn(F, 20, WAN4, 1025)];
    })(),
  },
  {
    name: 'FTP: the expectation is used once, by the server',
    topology: FTP,
    frames: [
      ...masqueraded().say('client', 'PORT 192,168,1,10,156,66\r\n').settle().frames,
      syn(far(2).v4, 20, WAN4, 40002),
      syn(F, 20, WAN4, 40002),
      syn(F, 21, WAN4, 40002),
      fromLan(A, packet(A.v4, F, tcp({ sport: 40002, dport: 20, flags: 'SA', seq: 77, ack: 10, win: 900 }))),
    ],
  },
  {
    name: 'FTP: the next PORT takes the place of the last',
    topology: FTP,
    frames: [
      ...masqueraded()
        .say('client', 'PORT 192,168,1,10,156,66\r\n')
        .say('client', 'PORT 192,168,1,10,156,68\r\n')
        .settle().frames,
      syn(F, 20, WAN4, 40002),
      syn(F, 20, WAN4, 40004),
    ],
  },
  {
    name: 'FTP: IPv6, EPRT and EPSV',
    topology: FTP,
    frames: [
      ...six().say('client', `EPRT |2|${A.v6}|51221|\r\n`).say('server', '200 ok\r\n').settle().frames,
      syn(far(2).v6, 20, A.v6, 51221),
      syn(far(1).v6, 20, A.v6, 51221),
      syn(far(1).v6, 20, A.v6, 51222),
    ],
  },
  {
    name: 'FTP: data both ways behind several edits of different lengths',
    topology: FTP,
    frames: (() => {
      const s = masqueraded();
      for (const port of [1025, 51221, 1029, 40000])
        s.say('client', `PORT 192,168,1,10,${port >> 8},${port & 255}\r\n`)
          .say('server', '200 ok\r\n')
          .say('client', 'STOR x\r\n')
          .settle();
      return s.frames;
    })(),
  },
];

function forwardedAgain(): ScenarioFrame[] {
  return greeted(new Stream('wan', A, [F, 42001], [A.v4, 21], [WAN4, 21]))
    .say('client', 'EPSV\r\n')
    .say('server', '229 Entering Extended Passive Mode (|||6446|)\r\n')
    .settle().frames;
}

// --- PPTP -----------------------------------------------------------------------------------------------------------------

/** A call of `host`: its ID c, the server's s. The server answers to the ID that it was told. */
function pptpCall(host: Host, c: number, s: number, sport: number): Stream {
  const stream = new Stream('lan', host, [host.v4, sport], [F, 1723])
    .say('client', pptp.startRequest())
    .say('server', pptp.startReply())
    .say('client', pptp.outgoingCallRequest(c));
  // The Call ID that reached the server is the source port (helpers/pptp.ts): both routers say so in the request's own bytes.
  return stream.say('server', pptp.outgoingCallReply(s, sport)).settle();
}
const greOut = (host: Host, callId: number, seq: number) =>
  fromLan(host, packet(host.v4, F, grePptp({ callId, seq }, `out ${seq}`)));
const greIn = (callId: number, seq: number, from = F) =>
  fromWan(packet(from, WAN4, grePptp({ callId, seq }, `in ${seq}`)));

const PPTP = { alg: { pptp: {} } };
const PPTP_SCENARIOS: Scenario[] = [
  {
    name: 'PPTP: a call, GRE both ways, the other messages',
    topology: PPTP,
    frames: [
      ...pptpCall(A, 7, 300, 42000).frames,
      greOut(A, 300, 1),
      greIn(42000, 1),
      greOut(A, 300, 2),
      greIn(42000, 2),
      greIn(42001, 1),
      greIn(42000, 3, far(2).v4),
    ],
  },
  {
    name: 'PPTP: the server’s GRE comes first',
    topology: PPTP,
    frames: [...pptpCall(A, 7, 300, 42000).frames, greIn(42000, 1), greOut(A, 300, 1), greIn(42000, 2)],
  },
  {
    name: 'PPTP: two clients with one Call ID towards one server',
    topology: PPTP,
    notes: 'trap 10',
    frames: [
      ...pptpCall(A, 7, 300, 42000).frames,
      ...pptpCall(B, 7, 301, 42002).frames,
      greOut(A, 300, 1),
      greOut(B, 301, 1),
      greIn(42000, 1),
      greIn(42002, 1),
      greOut(A, 300, 2),
      greIn(42002, 2),
    ],
  },
  {
    name: 'PPTP: echo, link information, WAN error and the end',
    topology: PPTP,
    frames: [
      ...pptpCall(A, 7, 300, 42000)
        .say('client', pptp.setLinkInfo(300))
        .say('server', pptp.setLinkInfo(42000))
        .say('server', pptp.wanError(42000))
        .say('client', pptp.echoRequest())
        .say('server', pptp.echoReply())
        .settle()
        .say('server', pptp.callDisconnect(300))
        .settle().frames,
      greIn(42000, 9),
    ],
  },
  {
    name: 'PPTP: a call that is refused',
    topology: PPTP,
    frames: [
      ...new Stream('lan', A, [A.v4, 42000], [F, 1723])
        .say('client', pptp.startRequest())
        .say('server', pptp.startReply())
        .say('client', pptp.outgoingCallRequest(7))
        .say('server', pptp.outgoingCallReply(300, 42000, 2))
        .settle().frames,
      greIn(42000, 1),
    ],
  },
];

// --- TFTP -----------------------------------------------------------------------------------------------------------------

const TFTP = { alg: { tftp: {} } };
const request = (host: Host, sport: number, code = 1) =>
  fromLan(host, packet(host.v4, F, udp({ sport, dport: 69 }, tftpRequest(code))));
const TFTP_SCENARIOS: Scenario[] = [
  {
    name: 'TFTP: read and write, the transfer from another port, somebody else',
    topology: TFTP,
    frames: [
      request(A, 3000),
      fromWan(packet(far(2).v4, WAN4, udp({ sport: 5001, dport: 3000 }, tftpData()))),
      fromWan(packet(F, WAN4, udp({ sport: 5001, dport: 3000 }, tftpData()))),
      fromLan(A, packet(A.v4, F, udp({ sport: 3000, dport: 5001 }, 'ack'))),
      fromWan(packet(F, WAN4, udp({ sport: 5002, dport: 3000 }, tftpData()))),
      request(A, 3001, 2),
      fromWan(packet(F, WAN4, udp({ sport: 5003, dport: 3001 }, 'ack'))),
    ],
  },
  {
    name: 'TFTP: IPv6, and a request that is none',
    topology: TFTP,
    frames: [
      fromLan(A, packet(A.v6, far(1).v6, udp({ sport: 3000, dport: 69 }, tftpRequest()))),
      fromWan(packet(far(1).v6, A.v6, udp({ sport: 5001, dport: 3000 }, tftpData()))),
      fromLan(A, packet(A.v6, far(1).v6, udp({ sport: 3001, dport: 69 }, concat(Uint8Array.of(0, 9))))),
      fromWan(packet(far(1).v6, A.v6, udp({ sport: 5001, dport: 3001 }, tftpData()))),
    ],
  },
  {
    name: 'TFTP: a server behind a port forward',
    topology: { alg: { tftp: {} }, forwards: [{ proto: 'udp', port: 69, to: A.v4 }] },
    frames: [
      fromWan(packet(F, WAN4, udp({ sport: 3000, dport: 69 }, tftpRequest()))),
      fromLan(A, packet(A.v4, F, udp({ sport: 5001, dport: 3000 }, tftpData()))),
      fromWan(packet(F, WAN4, udp({ sport: 3000, dport: 5001 }, 'ack'))),
    ],
  },
];

// --- SIP ------------------------------------------------------------------------------------------------------------------

const SIP = { alg: { sip: {} } };
const sipOut = (text: string, host = A) => fromLan(host, packet(host.v4, F, udp({ sport: 5060, dport: 5060 }, text)));
const sipIn = (text: string, sport = 5060, dport = 5060) => fromWan(packet(F, WAN4, udp({ sport, dport }, text)));
const rtpIn = (sport: number, dport: number, from = F) => fromWan(packet(from, WAN4, udp({ sport, dport }, 'rtp')));
const rtpOut = (sport: number, dport: number, host = A) =>
  fromLan(host, packet(host.v4, F, udp({ sport, dport }, 'rtp')));
const invite = (media: string[], o: { cseq?: number; address?: string; host?: Host } = {}) => {
  const own = (o.host ?? A).v4;
  return sipRequest('INVITE', {
    via: at(own, 5060),
    contact: at(own, 5060),
    cseq: o.cseq,
    body: sdp({ address: o.address ?? own, media }),
  });
};
const accepted = (media: string[], cseq = 1) =>
  sipReply(200, 'INVITE', { via: at(WAN4, 5060), contact: at(F, 5060), cseq, body: sdp({ address: F, media }) });

const SIP_SCENARIOS: Scenario[] = [
  {
    name: 'SIP: a call, its answer, RTP and RTCP both ways',
    topology: SIP,
    frames: [
      sipOut(invite(['audio 4000'])),
      rtpIn(6000, 4000, far(2).v4),
      sipIn(sipReply(180, 'INVITE', { via: at(WAN4, 5060) })),
      sipIn(accepted(['audio 6000'])),
      sipOut(sipRequest('ACK', { via: at(A.v4, 5060), contact: at(A.v4, 5060) })),
      rtpIn(6000, 4000),
      rtpIn(6001, 4001),
      rtpOut(4000, 6000),
      rtpOut(4001, 6001),
      sipOut(sipRequest('BYE', { via: at(A.v4, 5060), cseq: 2 })),
      rtpIn(6003, 4000),
    ],
  },
  {
    name: 'SIP: two media, the second refused by the other end',
    topology: SIP,
    frames: [
      sipOut(invite(['audio 4000', 'video 4002'])),
      sipIn(accepted(['audio 6000', 'video 0'])),
      rtpOut(4000, 6000),
      rtpIn(7000, 4002),
      rtpIn(7001, 4003),
    ],
  },
  {
    name: 'SIP: a busy answer closes',
    topology: SIP,
    frames: [
      sipOut(invite(['audio 4000'])),
      sipIn(sipReply(486, 'INVITE', { via: at(WAN4, 5060) })),
      rtpIn(6000, 4000),
    ],
  },
  {
    name: 'SIP: registration and a call from the registrar',
    topology: SIP,
    frames: [
      sipOut(sipRequest('REGISTER', { via: at(A.v4, 5060), contact: at(A.v4, 5060), headers: ['Expires: 600'] })),
      sipIn(sipReply(200, 'REGISTER', { via: at(WAN4, 5060), contact: at(WAN4, 5060), headers: ['Expires: 600'] })),
      sipIn(
        sipRequest('INVITE', {
          via: at(F, 5080),
          contact: at(F, 5080),
          uri: `sip:alice@${at(WAN4, 5060)}`,
          body: sdp({ address: F, media: ['audio 6000'] }),
        }),
        5080,
      ),
      fromLan(
        A,
        packet(
          A.v4,
          F,
          udp(
            { sport: 5060, dport: 5080 },
            sipReply(200, 'INVITE', {
              via: at(F, 5080),
              contact: at(A.v4, 5060),
              body: sdp({ address: A.v4, media: ['audio 4000'] }),
            }),
          ),
        ),
      ),
      rtpIn(6000, 4000),
      rtpIn(6001, 4001),
    ],
  },
  {
    name: 'SIP: on hold, and taken up again',
    topology: SIP,
    frames: [
      sipOut(invite(['audio 4000'])),
      sipOut(invite(['audio 4000'], { cseq: 2, address: '0.0.0.0' })),
      rtpIn(6000, 4000),
      sipOut(invite(['audio 4010'], { cseq: 3 })),
      rtpIn(6000, 4010),
    ],
  },
  {
    name: 'SIP: no calls without a registration',
    topology: SIP,
    frames: [sipIn(sipRequest('INVITE', { via: at(F, 5080), body: sdp({ address: F, media: ['audio 6000'] }) }), 5080)],
  },
  {
    name: 'SIP: over TCP, through masquerade',
    topology: SIP,
    frames: [
      ...new Stream('lan', A, [A.v4, 5060], [F, 5060])
        .say('client', invite(['audio 4000']).replace('SIP/2.0/UDP', 'SIP/2.0/TCP'))
        .settle()
        .say('server', sipReply(200, 'INVITE', { transport: 'TCP', via: at(WAN4, 5060) }))
        .settle().frames,
      rtpIn(6000, 4000),
      rtpIn(6001, 4001),
    ],
  },
];

// --- IRC ------------------------------------------------------------------------------------------------------------------

const IRC_SCENARIOS: Scenario[] = [
  {
    name: 'IRC: DCC CHAT',
    topology: { alg: { irc: {} } },
    frames: [
      ...new Stream('lan', A, [A.v4, 42000], [F, 6667])
        .say('client', `PRIVMSG bob :\x01DCC CHAT chat 3232235786 51221\x01\r\n`)
        .settle()
        .say('server', ':bob PRIVMSG a :hello\r\n')
        .settle().frames,
      syn(far(2).v4, 50000, WAN4, 51221),
    ],
  },
];

export const ALG_SCENARIOS: readonly Scenario[] = [
  ...FTP_SCENARIOS,
  ...PPTP_SCENARIOS,
  ...TFTP_SCENARIOS,
  ...SIP_SCENARIOS,
  ...IRC_SCENARIOS,
];

/** Scenarios in which Sluice does something else on purpose. */
export const DIFFERENT: readonly { scenario: Scenario; why: string }[] = [
  {
    why: 'a port below 1024 is a service: Linux opens it, Sluice does not',
    scenario: {
      name: 'FTP: a port below 1024',
      topology: FTP,
      frames: [...masqueraded().say('client', 'PORT 192,168,1,10,0,22\r\n').settle().frames, syn(F, 20, WAN4, 22)],
    },
  },
  {
    why: 'a command in two segments: Linux drops the first piece, Sluice forwards both and opens what is whole',
    scenario: {
      name: 'FTP: a command in two segments',
      topology: FTP,
      frames: masqueraded().say('client', 'PORT 192,168,1,10,').say('client', '156,66\r\n').settle().frames,
    },
  },
  {
    why: 'numbers that are too few: Linux takes them for the beginning of a command and drops the segment',
    scenario: {
      name: 'FTP: PORT with five numbers',
      topology: FTP,
      frames: masqueraded().say('client', 'PORT 192,168,1,10,200\r\n').say('client', 'NOOP\r\n').settle().frames,
    },
  },
  {
    why: 'a command that was rewritten is still known when two more lines have followed; Linux sends it on as it is',
    scenario: {
      name: 'FTP: a rewritten command sent again, late',
      topology: FTP,
      frames: (() => {
        const s = masqueraded();
        const start = s.sequence.client;
        s.say('client', 'PORT 192,168,1,10,4,1\r\n')
          .say('client', 'LIST\r\n')
          .say('client', 'NOOP\r\n')
          .say('client', 'NOOP\r\n');
        return s.send('client', { data: 'PORT 192,168,1,10,4,1\r\n', seq: start }).frames;
      })(),
    },
  },
  {
    why: 'GRE of version 1 that belongs to no call: Linux masquerades it without a key, Sluice refuses it',
    scenario: { name: 'PPTP: GRE without a call', topology: PPTP, frames: [greOut(A, 300, 1)] },
  },
  {
    why: 'a call that the client clears ends at once; Linux waits for the server to say so',
    scenario: {
      name: 'PPTP: Call-Clear-Request',
      topology: PPTP,
      frames: [...pptpCall(A, 7, 300, 42000).say('client', pptp.callClear(7)).settle().frames, greIn(42000, 1)],
    },
  },
  {
    why: 'an EPRT of another family: Linux drops the segment, Sluice lets the server refuse it',
    scenario: {
      name: 'FTP: EPRT with an unknown family',
      topology: FTP,
      frames: masqueraded().say('client', 'EPRT |3|192.168.1.10|51221|\r\n').settle().frames,
    },
  },
];
