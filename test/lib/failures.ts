/**
 * The ten classic failures as one table: a configuration under which all of them can happen, and for each the frames that
 * bring it about and what `explain`, the capture's comment and the counter must say. Through the inline router by
 * test/controlplane/ten-failures.test.ts, through a live one by test/lab/ten-failures-live.test.ts.
 *
 * The hosts are those of home.ts. Each case has connections of its own, so that one router can meet all of them in turn.
 */
import { SMALL_ROOM } from '../../dataplane/frames.ts';
import { CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { ACK, ethernet, FIN, fragmentHeader, ipv4, ipv6, RST, routing, SYN, tcp, udp } from './build.ts';
import {
  GATE,
  GATE_MAC,
  GATE6,
  HOST,
  HOST_MAC,
  HOST2,
  HOST6,
  homeConfig,
  LAN_MAC,
  ROUTER_WAN,
  SERVER,
  SERVER6,
  WAN_MAC,
} from './home.ts';

/** The port that a frame enters by, and the frame. */
export type Arrival = readonly ['lan' | 'wan', Uint8Array];

export interface Failure {
  name: string;
  /** What happens before. */
  before?: readonly Arrival[];
  /** A neighbour that must be FAILED then. */
  failed?: string;
  arrival: Arrival;
  reason: string;
  /** By how much its counter grows; 1 when it is not given. */
  counts?: number;
  stage: string;
  /** What explain finds there, and the place in the configuration. */
  found: RegExp;
  where?: string;
  /** Behind `drop REASON at STAGE: ` in the capture. */
  sentence: RegExp;
}

const HOST_SHORT = '10.1.1.9';
const HOST_SILENT = '203.0.113.77';

/**
 * Configuration of the table.
 *
 * @param kind keys of the ports `lan` and `wan` that say what they are
 */
export function failuresConfig(kind: Readonly<Record<'lan' | 'wan', object>>): Record<string, unknown> {
  const { neighbors, zones } = homeConfig();
  return {
    ports: {
      lan: {
        ...kind.lan,
        zone: 'lan',
        mac: LAN_MAC,
        addresses: ['192.168.1.1/24', '10.1.1.1/24', '2001:db8:1::1/64'],
        mtu: 2000,
      },
      wan: {
        ...kind.wan,
        zone: 'wan',
        mac: WAN_MAC,
        addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'],
        mtu: 1300,
      },
    },
    // No default route of IPv4.
    routes: [
      { to: '198.51.100.0/24', via: GATE },
      { to: '::/0', via: GATE6 },
    ],
    neighbors,
    zones,
    nat: {
      masquerade: [
        { out: 'wan', from: `${HOST2}/32`, ports: '5000-5000' },
        { out: 'wan', from: '192.168.1.0/24' },
        { out: 'wan', from: '10.1.1.0/24' },
      ],
    },
    alg: { sip: {} },
    offload: { mode: 'on', 'program-after': 2 },
  };
}

const lan = (packet: Uint8Array): Arrival => ['lan', ethernet({ src: HOST_MAC, dst: LAN_MAC }, packet)];
const wan = (packet: Uint8Array): Arrival => ['wan', ethernet({ src: GATE_MAC, dst: WAN_MAC }, packet)];

const syn = (src: string, sport: number, dst = SERVER): Arrival =>
  lan(ipv4({ src, dst }, tcp({ sport, dport: 443, flags: SYN, seq: 1 })));
const data = (sport: number, flags = ACK): Arrival =>
  lan(ipv4({ src: HOST, dst: SERVER }, tcp({ sport, dport: 443, flags, seq: 2, ack: 901 })));
/** A connection is opened; the server's sequence number is 901 then. */
const open = (sport: number): readonly Arrival[] => [
  syn(HOST, sport),
  wan(ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 443, dport: sport, flags: SYN | ACK, seq: 900, ack: 2 }))),
  data(sport),
];
const silent = (text: string): Arrival => lan(ipv4({ src: HOST, dst: HOST_SILENT }, udp({ sport: 5, dport: 6 }, text)));
const piece = (offset: number, length: number, more: boolean): Arrival =>
  lan(
    ipv6(
      { src: HOST6, dst: SERVER6, ext: [fragmentHeader({ offset, more, id: 77 })], next: 17 },
      new Uint8Array(length),
    ),
  );

/** A request whose addresses grow by the translation beyond the room that a frame has. */
const invite = (): Arrival => {
  const own = HOST_SHORT;
  const head = (filler: number): string =>
    [
      `INVITE sip:b@${SERVER} SIP/2.0`,
      `Via: SIP/2.0/UDP ${own}:5060;branch=z9hG4bK1`,
      'From: <sip:a@example.net>;tag=1',
      'To: <sip:b@example.net>',
      'Call-ID: 1@example.net',
      'CSeq: 1 INVITE',
      `Contact: <sip:a@${own}:5060>`,
      `Subject: ${'x'.repeat(filler)}`,
      'Content-Length: 0',
      '',
      '',
    ].join('\r\n');
  const filler = SMALL_ROOM - 14 - 28 - head(0).length - 1;
  return lan(ipv4({ src: own, dst: SERVER }, udp({ sport: 5060, dport: 5060 }, head(filler))));
};

export const FAILURES: readonly Failure[] = [
  {
    name: 'wrong zone',
    arrival: wan(ipv6({ src: SERVER6, dst: HOST6 }, tcp({ sport: 9, dport: 22, flags: SYN }))),
    reason: 'FILTER_DROP',
    stage: 'forward-filter',
    found: /^no rule; zone wan says forward: drop$/,
    where: 'zones.wan',
    sentence: /A rule or the zone’s forward verdict/,
  },
  {
    name: 'missing route',
    arrival: syn(HOST, 4000, '192.0.2.99'),
    reason: 'IP_OUTNOROUTES',
    stage: 'route',
    found: /^no route$/,
    sentence: /No route to the destination/,
  },
  {
    name: 'neighbour silent',
    before: [silent('anybody?')],
    failed: HOST_SILENT,
    arrival: silent('still nobody?'),
    reason: 'NEIGH_FAILED',
    stage: 'neighbour',
    found: /^FAILED$/,
    sentence: /The next hop did not answer/,
  },
  {
    name: 'port range empty',
    before: [syn(HOST2, 4000)],
    arrival: syn(HOST2, 4001),
    reason: 'NAT_EXHAUSTED',
    stage: 'nat-postrouting',
    found: /^masquerade or snat/,
    where: 'nat.masquerade[0]',
    sentence: /No free port or identifier/,
  },
  {
    name: 'RST out of window',
    before: open(4000),
    arrival: wan(ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 443, dport: 4000, flags: RST, seq: 100 }))),
    reason: 'CT_INVALID',
    stage: 'conntrack-in',
    found: /ESTABLISHED .*\(direction REPLY\); sequence number 100, expected .*acknowledged so far 901$/,
    sentence: /^RST outside the window/,
  },
  {
    name: 'MTU too small',
    arrival: lan(ipv4({ src: HOST, dst: SERVER, df: true }, udp({ sport: 5, dport: 6 }, new Uint8Array(1372)))),
    reason: 'PKT_TOO_BIG',
    stage: 'mtu',
    found: /^1400 bytes, MTU 1300 of wan, may not be fragmented$/,
    where: 'ports.wan',
    sentence: /exceeds the egress MTU/,
  },
  {
    name: 'routing header type 0',
    arrival: lan(
      ipv6(
        { src: HOST6, dst: SERVER6, ext: [routing({ type: 0, left: 1, data: new Uint8Array(20) })], finalDst: HOST6 },
        udp({ sport: 5, dport: 6 }, 'x'),
      ),
    ),
    reason: 'IPV6_RH0',
    stage: 'ip-parse',
    found: /^IPv6/,
    sentence: /Routing header type 0 is refused \(RFC 5095\)/,
  },
  {
    name: 'fragment overlap',
    before: [piece(0, 1200, true)],
    arrival: piece(1192, 200, true),
    reason: 'FRAG_OVERLAP',
    // The fragment that was there goes with it.
    counts: 2,
    stage: 'reassembly',
    found: /^this one begins at byte 1192, more follow$/,
    sentence: /Fragments of this datagram overlap/,
  },
  {
    name: 'ALG refused',
    arrival: invite(),
    reason: 'ALG_DROP',
    stage: 'alg',
    found: /expectations/,
    where: 'alg.sip',
    sentence: /The protocol helper demands/,
  },
];

/** The tenth is no failure: the engine carries a connection, and leaves its FIN to the slow path. */
export const EXCEPTION = {
  before: open(4100),
  /** Repeated until the engine carries it. */
  data: data(4100),
  arrival: data(4100, ACK | FIN),
  explained: {
    stage: 'offload-lookup',
    found: 'an exception: TCP with FIN, SYN or RST, or without ACK',
    decided: 'the slow path must have it',
  },
  carried: 'forwarded by the engine',
  comment: 'forwarded; the engine left it to the slow path: tcp-flags',
  /** Its counter in `show offload`. */
  counter: 'tcp-flags',
} as const;

/** What explain is asked: a copy of the tables does not hold the fragments that wait in the path's own memory. */
export function question({ before = [], arrival, stage }: Failure): Uint8Array[] {
  return [...(stage === 'reassembly' ? before : []), arrival].map(([, frame]) => frame);
}

/** Comments that a capture (pcapng) has on this frame, in order; on every frame when none is given. */
export function commentsOn(pcapng: Uint8Array, frame?: Uint8Array): string[] {
  const reader = CaptureReader.fromBytes('capture', pcapng);
  const found: string[] = [];
  while (reader.next()) {
    const bytes = reader.data.subarray(reader.offset, reader.offset + reader.capturedLength);
    if (frame === undefined || Buffer.compare(bytes, frame) === 0) found.push(reader.comment);
  }
  return found;
}
