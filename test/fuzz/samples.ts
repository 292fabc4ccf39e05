/** Samples that mutation starts from: payloads of every protocol that has a helper, and configurations. */
import { concat, hex, u16 } from '../lib/build.ts';

const text = (...lines: string[]) => new TextEncoder().encode(lines.join('\r\n'));

const SDP = [
  'v=0',
  'o=- 1 1 IN IP4 192.168.1.10',
  's=-',
  'c=IN IP4 192.168.1.10',
  't=0 0',
  'm=audio 30000 RTP/AVP 0',
  'a=rtcp:30001',
  'm=video 30002 RTP/AVP 31',
  '',
].join('\r\n');

function sip(first: string): Uint8Array {
  return text(
    first,
    'Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9;rport',
    'From: <sip:a@192.168.1.10>;tag=1',
    'To: <sip:b@198.51.100.1>',
    'Call-ID: 1@192.168.1.10',
    'CSeq: 1 INVITE',
    'Contact: <sip:a@192.168.1.10:5060>;expires=60',
    'Content-Type: application/sdp',
    `Content-Length: ${SDP.length}`,
    '',
    SDP,
  );
}

/** RFC 2637: an Outgoing-Call-Request and its reply. */
const PPTP = [
  concat(
    hex('00a80001 1a2b3c4d 00070000 0001 0002'),
    hex('0000012c05f5e1000000000300000003 00400000 0000 0000'),
    new Uint8Array(128),
  ),
  concat(hex('00200001 1a2b3c4d 00080000 0005 0001 01000000 05f5e100 00400000 00000000')),
  hex('00940001 1a2b3c4d 000f0000 0001 0000'),
];

/** Q.931 SETUP in TPKT with a user-user element that begins like H.225; RAS and H.245 begin like these. */
const H323 = [
  concat(
    hex('03000044 08020001 05 04038090a5 7e'),
    u16(48),
    hex('05 2086000600 08914a0005 2001 c0a8010a 06b8'),
    new Uint8Array(30),
  ),
  hex('0300001f 08028001 07 7e0013 05 22c0060008914a00 0500 c0a8010a 2b05 00'),
  hex('0e8000 0600 08914a0004 0001 00c0a8010a06b8 01 00c0a8010a06b7'),
  hex('0300 0020 0370 0106 0008 8175 000b 0d00 0100 c0a8 010a 7530 0a04 0000 0000 0000'),
];

const DNS = [
  hex('1234 0100 0001 0000 0000 0000 03777777 076578616d706c65 03636f6d 00 0001 0001'),
  hex(
    '1234 8180 0001 0001 0000 0000 03777777 076578616d706c65 03636f6d 00 0001 0001 c00c 0001 0001 0000003c 0004 c6336401',
  ),
];

const PAYLOADS: Readonly<Record<string, readonly Uint8Array[]>> = {
  ftp: [
    text('PORT 192,168,1,10,4,1', ''),
    text('EPRT |1|192.168.1.10|1025|', ''),
    text('EPRT |2|2001:db8:1::10|1025|', ''),
    text('227 Entering Passive Mode (192,168,1,10,8,1).', ''),
    text('229 Entering Extended Passive Mode (|||2049|)', ''),
    text('USER anonymous', ''),
    text('331 ok', '227 192,168,1,10,255,255', ''),
    text('220 ready', ''),
  ],
  tftp: [hex('0001 66696c6500 6f6374657400'), hex('0002 66696c6500 6e6574617363696900'), hex('0003 0001 00')],
  irc: [
    text(':a!b@c PRIVMSG d :\x01DCC SEND file 3232235786 1024 10\x01', ''),
    text('PRIVMSG d :\x01DCC CHAT chat 3232235786 5000\x01', ''),
    text('PRIVMSG d :\x01DCC MOVE f 1 2\x01', 'PRIVMSG e :hello', ''),
  ],
  rtsp: [
    text('SETUP rtsp://h/a RTSP/1.0', 'CSeq: 1', 'Transport: RTP/AVP;unicast;client_port=5000-5001', '', ''),
    text(
      'RTSP/1.0 200 OK',
      'CSeq: 1',
      'Transport: RTP/AVP;client_port=5000-5001;server_port=6000-6001;source=192.168.1.10',
      'Session: 1',
      '',
      '',
    ),
    concat(hex('24 00 0004 01020304'), text('TEARDOWN rtsp://h/a RTSP/1.0', 'CSeq: 2', '', '')),
    text('DESCRIBE rtsp://h/a RTSP/1.0', 'Content-Length: 5', '', 'abcde'),
  ],
  sip: [
    sip('INVITE sip:b@198.51.100.1 SIP/2.0'),
    sip('SIP/2.0 200 OK'),
    sip('REGISTER sip:198.51.100.1 SIP/2.0'),
    sip('BYE sip:b@x SIP/2.0'),
  ],
  pptp: PPTP,
  dns: DNS,
};

/** Payloads for a helper by netfilter's name. */
export function payloadSamples(name: string): readonly Uint8Array[] {
  return PAYLOADS[name.toLowerCase()] ?? H323;
}

export const YAML_SAMPLES: readonly string[] = [
  `ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [192.168.1.1/24, "2001:db8:1::1/64"] }
  wan: { kind: memory, zone: wan, addresses: [203.0.113.1/24], mtu: 1500 }
  guest: { parent: lan, vlan: 7, zone: lan, addresses: [192.168.7.1/24] }
routes:
  - { to: 0.0.0.0/0, via: 203.0.113.254 }
  - { to: 10.0.0.0/8, type: blackhole }
neighbors:
  - { port: wan, ip: 203.0.113.254, mac: "02:00:00:00:00:fe" }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: drop }
rules: [ { from: wan, to: lan, family: ipv6, proto: tcp, dst: "2001:db8:1::10", port: 443, state: new, verdict: accept } ]
nat:
  profile: linux
  masquerade: [ { out: wan, from: 192.168.1.0/24, mapping: address-and-port-dependent, ports: 1024-65535 } ]
  forward: [ { in: wan, proto: tcp, port: 8080, to: 192.168.1.10:80 } ]
  dmz: { in: wan, to: 192.168.1.20 }
alg: { ftp: { ports: [21] }, pptp: {}, tftp: {}, sip: {}, rtsp: {} }
offload: { mode: on, entries: 16384, program-after: 2 }
conntrack: { max: 262144, tcp-liberal: false }
workers: 1
`,
  `ports:
  a: &p
    kind: memory
    zone: z
  b:
    <<: *p
    mtu: 9000
zones: {z: {forward: accept, input: reject}}
`,
];
