/**
 * Ten classic failures, each injected, each named alike by `explain` (before it happens), by the comment of the capture, and
 * by its counter. The tenth is none: the engine leaves a packet to the slow path, and all three say why.
 */
import { describe, expect, it } from 'vitest';
import { explainFrames } from '../../controlplane/explain/explain.ts';
import { VIEWS } from '../../controlplane/show/index.ts';
import { SMALL_ROOM } from '../../dataplane/frames.ts';
import { CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { ACK, ethernet, FIN, fragmentHeader, ipv4, ipv6, RST, routing, SYN, tcp, udp } from '../lib/build.ts';
import { GATE_MAC, HOST, HOST_MAC, HOST6, Home, LAN_MAC, ROUTER_WAN, SERVER, SERVER6, WAN_MAC } from '../lib/home.ts';

interface Case {
  name: string;
  /** Sections of the configuration that differ from the home's. */
  config?: Record<string, unknown>;
  /** What happens before: port and IP packet; a number is time that passes, ms. */
  before?: readonly (readonly ['lan' | 'wan', Uint8Array] | number)[];
  packet: readonly ['lan' | 'wan', Uint8Array];
  /** Time until it has happened, ms. */
  wait?: number;
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

const syn = (sport: number): Uint8Array =>
  ipv4({ src: HOST, dst: SERVER }, tcp({ sport, dport: 443, flags: SYN, seq: 1 }));
const open: readonly (readonly ['lan' | 'wan', Uint8Array])[] = [
  ['lan', syn(4000)],
  ['wan', ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 443, dport: 4000, flags: SYN | ACK, seq: 900, ack: 2 }))],
  ['lan', ipv4({ src: HOST, dst: SERVER }, tcp({ sport: 4000, dport: 443, flags: ACK, seq: 2, ack: 901 }))],
];
const data = (flags = ACK): Uint8Array =>
  ipv4({ src: HOST, dst: SERVER }, tcp({ sport: 4000, dport: 443, flags, seq: 2, ack: 901 }));
const silent = ipv4({ src: HOST, dst: '203.0.113.77' }, udp({ sport: 5, dport: 6 }, 'anybody?'));
const piece = (offset: number, length: number, more: boolean): Uint8Array =>
  ipv6({ src: HOST6, dst: SERVER6, ext: [fragmentHeader({ offset, more, id: 77 })], next: 17 }, new Uint8Array(length));

/** A request whose addresses grow by the translation beyond the room that a frame has. */
const invite = (): Uint8Array => {
  const own = '10.1.1.9';
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
  return ipv4({ src: own, dst: SERVER }, udp({ sport: 5060, dport: 5060 }, head(filler)));
};

const CASES: readonly Case[] = [
  {
    name: 'wrong zone',
    packet: ['wan', ipv6({ src: SERVER6, dst: HOST6 }, tcp({ sport: 9, dport: 22, flags: SYN }))],
    reason: 'FILTER_DROP',
    stage: 'forward-filter',
    found: /^no rule; zone wan says forward: drop$/,
    where: 'zones.wan',
    sentence: /A rule or the zone’s forward verdict/,
  },
  {
    name: 'missing route',
    config: { routes: [] },
    packet: ['lan', syn(4000)],
    reason: 'IP_OUTNOROUTES',
    stage: 'route',
    found: /^no route$/,
    sentence: /No route to the destination/,
  },
  {
    name: 'neighbour silent',
    before: [['lan', silent], 5000],
    packet: ['lan', silent],
    wait: 5000,
    reason: 'NEIGH_FAILED',
    stage: 'neighbour',
    found: /^FAILED$/,
    sentence: /The next hop did not answer/,
  },
  {
    name: 'port range empty',
    config: { nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24', ports: '5000-5000' }] } },
    before: [['lan', syn(4000)]],
    packet: ['lan', syn(4001)],
    reason: 'NAT_EXHAUSTED',
    stage: 'nat-postrouting',
    found: /^masquerade or snat/,
    where: 'nat.masquerade[0]',
    sentence: /No free port or identifier/,
  },
  {
    name: 'RST out of window',
    before: open,
    packet: ['wan', ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 443, dport: 4000, flags: RST, seq: 100 }))],
    reason: 'CT_INVALID',
    stage: 'conntrack-in',
    found: /ESTABLISHED .*\(direction REPLY\); sequence number 100, expected .*acknowledged so far 901$/,
    sentence: /^RST outside the window/,
  },
  {
    name: 'MTU too small',
    config: {
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: ['192.168.1.1/24'] },
        wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, addresses: ['203.0.113.1/24'], mtu: 1300 },
      },
      routes: [{ to: '0.0.0.0/0', via: '203.0.113.254' }],
      neighbors: [{ port: 'lan', ip: HOST, mac: HOST_MAC }],
    },
    packet: ['lan', ipv4({ src: HOST, dst: SERVER, df: true }, udp({ sport: 5, dport: 6 }, new Uint8Array(1372)))],
    reason: 'PKT_TOO_BIG',
    stage: 'mtu',
    found: /^1400 bytes, MTU 1300 of wan, may not be fragmented$/,
    where: 'ports.wan',
    sentence: /exceeds the egress MTU/,
  },
  {
    name: 'routing header type 0',
    packet: [
      'lan',
      ipv6(
        { src: HOST6, dst: SERVER6, ext: [routing({ type: 0, left: 1, data: new Uint8Array(20) })], finalDst: HOST6 },
        udp({ sport: 5, dport: 6 }, 'x'),
      ),
    ],
    reason: 'IPV6_RH0',
    stage: 'ip-parse',
    found: /^IPv6/,
    sentence: /Routing header type 0 is refused \(RFC 5095\)/,
  },
  {
    name: 'fragment overlap',
    before: [['lan', piece(0, 1200, true)]],
    packet: ['lan', piece(1192, 200, true)],
    reason: 'FRAG_OVERLAP',
    // The fragment that was there goes with it.
    counts: 2,
    stage: 'reassembly',
    found: /^this one begins at byte 1192, more follow$/,
    sentence: /Fragments of this datagram overlap/,
  },
  {
    name: 'ALG refused',
    config: {
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: ['10.1.1.1/24'], mtu: 2000 },
        wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, addresses: ['203.0.113.1/24'], mtu: 2000 },
      },
      routes: [{ to: '0.0.0.0/0', via: '203.0.113.254' }],
      neighbors: [{ port: 'wan', ip: '203.0.113.254', mac: GATE_MAC }],
      nat: { masquerade: [{ out: 'wan', from: '10.1.1.0/24' }] },
      alg: { sip: {} },
    },
    packet: ['lan', invite()],
    reason: 'ALG_DROP',
    stage: 'alg',
    found: /expectations/,
    where: 'alg.sip',
    sentence: /The protocol helper demands/,
  },
];

const frameOf = (port: 'lan' | 'wan', packet: Uint8Array): Uint8Array =>
  port === 'lan'
    ? ethernet({ src: HOST_MAC, dst: LAN_MAC }, packet)
    : ethernet({ src: GATE_MAC, dst: WAN_MAC }, packet);

function comments(pcapng: Uint8Array): string[] {
  const reader = CaptureReader.fromBytes('capture', pcapng);
  const found: string[] = [];
  while (reader.next()) found.push(reader.comment);
  return found;
}

describe('ten classic failures', () => {
  it.each(CASES)('$name', (one) => {
    const home = new Home({ conntrack: { max: 1024 }, ...one.config });
    const { router } = home;
    for (const step of one.before ?? [])
      if (typeof step === 'number') router.advance(step);
      else router.inject(step[0], frameOf(...step));
    const [port, packet] = one.packet;
    const frame = frameOf(port, packet);
    // What waits in the path's own memory, a copy of the tables does not hold: the first fragment is explained with it.
    const waiting =
      one.stage === 'reassembly'
        ? (one.before ?? []).flatMap((s) => (typeof s === 'number' ? [] : [frameOf(...s)]))
        : [];
    const explained = explainFrames(router, port, [...waiting, frame]).packets.at(-1);
    expect(explained).toMatchObject({ verdict: 'dropped', reason: one.reason, stage: one.stage });
    const step = explained?.stages.find(({ stage }) => stage === one.stage);
    expect(step?.found).toMatch(one.found);
    expect(step?.decided).toContain(`drop ${one.reason}`);
    expect(explained?.where).toBe(one.where);
    expect(explained?.why).toMatch(new RegExp(`^${one.reason} at ${one.stage}: `));

    const counted = router.counters.dropped[one.reason] ?? 0;
    const capture = router.capture({ drops: true });
    router.inject(port, frame);
    router.advance(one.wait ?? 0);
    expect(router.counters.dropped[one.reason]).toBe(counted + (one.counts ?? 1));
    const said = comments(capture.read());
    expect(said).toHaveLength(1);
    const start = `drop ${one.reason} at ${one.stage}: `;
    expect(said[0].slice(0, start.length)).toBe(start);
    expect(said[0].slice(start.length)).toMatch(one.sentence);
  });

  it('offload exception', () => {
    const home = new Home({ offload: { mode: 'on', 'program-after': 2 } });
    const { router } = home;
    for (const [port, packet] of [...open, ['lan', data()], ['lan', data()]] as const)
      router.inject(port, frameOf(port, packet));
    const before = router.counters.offload.hits;
    expect(before).toBeGreaterThan(0);
    const frame = frameOf('lan', data(ACK | FIN));
    expect(router.explain('lan', frame).stages[0]).toMatchObject({
      stage: 'offload-lookup',
      found: 'an exception: TCP with FIN, SYN or RST, or without ACK',
      decided: 'the slow path must have it',
    });
    const capture = router.capture();
    router.inject('lan', frame);
    expect(router.counters.offload.hits).toBe(before);
    expect(comments(capture.read())[0]).toBe('forwarded; the engine left it to the slow path: tcp-flags');
    expect(VIEWS.offload(router, {}).json).toMatchObject({ counters: { 'tcp-flags': expect.any(Number) } });
  });
});
