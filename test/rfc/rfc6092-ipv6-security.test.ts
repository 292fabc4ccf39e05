/**
 * RFC 6092, simple security of an IPv6 gateway, by recommendation. The gateway is test/lib/home.ts: zone lan accepts, zone
 * wan drops, and nothing says anything about IPv6: what is tested is the default.
 *
 * Filtering is address- and port-dependent for every protocol, the stricter of the choices of REC-11, REC-17 and REC-33.
 */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as M from '../lib/build-more.ts';
import * as H from '../lib/home.ts';

const OUT = { src: H.HOST6, dst: H.SERVER6 };
const IN = { src: H.SERVER6, dst: H.HOST6 };
const DATA = B.udp({ sport: 4000, dport: 5000 }, 'x');
const ANSWER = B.udp({ sport: 5000, dport: 4000 }, 'y');

type Side = 'lan' | 'wan';

/** Sends one packet; true when it left on the other side. */
function crosses(home: H.Home, from: Side, packet: Uint8Array): boolean {
  home[from](packet);
  return home
    .left(from === 'lan' ? 'wan' : 'lan')
    .some((seen) => seen.proto !== 58 || seen.packet.length === packet.length);
}
const passes = (from: Side, packet: Uint8Array, extra: Record<string, unknown> = {}): boolean =>
  crosses(new H.Home(extra), from, packet);
/** Which built-in rule decided: packets counted by its name. */
function counted(home: H.Home, label: string): number {
  const { control } = home.router;
  return control.filter.counter(control.ruleLabels.indexOf(label)).packets;
}

/** A flow that `first` opens from inside; the answers come in. */
function opened(first: B.Segment, extra: Record<string, unknown> = {}): H.Home {
  const home = new H.Home(extra);
  expect(crosses(home, 'lan', B.ipv6(OUT, first))).toBe(true);
  return home;
}

const error = (type: number, quoted: Uint8Array, mtu = 0): Uint8Array =>
  B.ipv6({ src: '2001:db8:9::9', dst: H.HOST6 }, B.icmpv6({ type, mtu }, quoted.subarray(0, 200)));

describe('§3.1 stateless filters', () => {
  it('REC-1: a multicast source is not forwarded', () => {
    expect(passes('lan', B.ipv6({ ...OUT, src: 'ff0e::1' }, DATA))).toBe(false);
    expect(passes('wan', B.ipv6({ ...IN, src: 'ff0e::1' }, DATA))).toBe(false);
  });

  it('REC-2: multicast is not forwarded, whatever its scope', () => {
    for (let scope = 0; scope < 16; scope++) {
      const dst = `ff0${scope.toString(16)}::99`;
      expect(passes('lan', B.ipv6({ ...OUT, dst }, DATA))).toBe(false);
      expect(passes('wan', B.ipv6({ ...IN, dst }, DATA))).toBe(false);
    }
  });

  it.each(['::ffff:192.0.2.1', '::192.0.2.1', 'fec0::1', '2001:10::1'])(
    'REC-3: %s crosses in neither direction, as source or destination',
    (address) => {
      const routes = [
        { to: '::/0', via: H.GATE6 },
        { to: `${address}/128`, via: H.GATE6 },
      ];
      expect(passes('lan', B.ipv6({ ...OUT, dst: address }, DATA), { routes })).toBe(false);
      expect(passes('lan', B.ipv6({ ...OUT, src: address }, DATA), { routes })).toBe(false);
      const open = { rules: [], zones: { lan: {}, wan: { forward: 'reject', input: 'drop' } } };
      expect(passes('wan', B.ipv6({ ...IN, src: address }, esp({ spi: 7 })), open)).toBe(false);
    },
  );

  it('REC-4: routing header type 0 is not forwarded, with segments left or without, even of an open flow', () => {
    for (const left of [0, 1]) {
      const ext = [M.routing({ type: 0, left, data: B.concat(new Uint8Array(4), B.ip(H.SERVER6)) })];
      expect(passes('lan', B.ipv6({ ...OUT, ext, finalDst: H.SERVER6 }, DATA))).toBe(false);
      const home = opened(DATA);
      expect(crosses(home, 'lan', B.ipv6({ ...OUT, ext, finalDst: H.SERVER6 }, DATA))).toBe(false);
      expect(home.dropped.IPV6_RH0).toBe(1);
    }
    const ext = [M.routing({ type: 2, left: 0, data: B.concat(new Uint8Array(4), B.ip(H.SERVER6)) })];
    expect(passes('lan', B.ipv6({ ...OUT, ext, finalDst: H.SERVER6 }, DATA))).toBe(true);
  });

  it("REC-5: out goes only what has a source of the inside; another's is dropped and counted", () => {
    const home = new H.Home();
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, src: '2001:db8:bad::1' }, DATA))).toBe(false);
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, src: H.GATE6 }, DATA))).toBe(false);
    expect(counted(home, 'rfc6092-ingress')).toBe(2);
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, src: '2001:db8:1::abc' }, DATA))).toBe(true);
    // Without a route for it, a source is nobody's of the inside either.
    const routes = [{ to: '2001:db8:7::/48', via: H.GATE6 }];
    expect(passes('lan', B.ipv6({ ...OUT, src: '2001:db8:bad::1' }, DATA), { routes })).toBe(false);
  });

  it('REC-5: a prefix that came later is of the inside from then on', () => {
    const home = new H.Home();
    const packet = B.ipv6({ ...OUT, src: '2001:db8:aaaa::5' }, DATA);
    expect(crosses(home, 'lan', packet)).toBe(false);
    const address = B.ip('2001:db8:aaaa::1');
    const words = [0, 4, 8, 12].map((at) => new DataView(address.buffer).getInt32(at, true));
    home.router.control.addAddress(0, 6, words as [number, number, number, number], 64);
    expect(crosses(home, 'lan', packet)).toBe(true);
  });

  it('REC-6: a source of the inside does not come in, not even to where anybody may', () => {
    const rules = [{ from: 'wan', to: 'lan', proto: 'udp', port: 5000, src: H.SERVER6, verdict: 'accept' }];
    const home = new H.Home({ rules });
    expect(crosses(home, 'wan', B.ipv6(IN, DATA))).toBe(true);
    expect(crosses(home, 'wan', B.ipv6({ ...IN, src: '2001:db8:1::77' }, esp({ spi: 7 })))).toBe(false);
    expect(counted(home, 'rfc6092-ingress')).toBe(1);
    expect(crosses(home, 'wan', B.ipv6(IN, esp({ spi: 7 })))).toBe(true);
  });

  it('REC-7: unique local addresses do not cross', () => {
    const ports = {
      lan: {
        kind: 'memory',
        zone: 'lan',
        mac: H.LAN_MAC,
        addresses: ['192.168.1.1/24', '2001:db8:1::1/64', 'fd00:1::1/64'],
      },
      wan: { kind: 'memory', zone: 'wan', mac: H.WAN_MAC, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
    };
    const home = new H.Home({ ports });
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, src: 'fd00:1::10' }, DATA))).toBe(false);
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, dst: 'fd00:2::10' }, DATA))).toBe(false);
    expect(counted(home, 'rfc6092-unique-local')).toBe(2);
    expect(crosses(home, 'wan', B.ipv6({ ...IN, src: 'fd00:3::1' }, esp({ spi: 7 })))).toBe(false);
    // Where NPTv6 translates them, they leave as others.
    const nat = { nptv6: [{ out: 'wan', internal: 'fd00:1::/48', external: '2001:db8:2::/48' }] };
    expect(passes('lan', B.ipv6({ ...OUT, src: 'fd00:1::10' }, DATA), { ports, nat })).toBe(true);
  });

  it('REC-8, REC-9, REC-50: questions and management from outside reach nothing of the router', () => {
    for (const dport of [53, 547, 161, 80]) {
      const home = new H.Home();
      home.wan(B.ipv6({ src: H.SERVER6, dst: H.ROUTER_WAN6 }, B.udp({ sport: 4000, dport }, 'q')));
      home.wan(B.ipv6({ src: H.SERVER6, dst: H.ROUTER_WAN6 }, B.tcp({ sport: 4000, dport, flags: 'S' })));
      expect(home.left('wan')).toEqual([]);
      expect(home.dropped.INPUT_DROP).toBe(2);
    }
  });
});

describe('§3.2 connection-free filters', () => {
  it('REC-10: Destination Unreachable and Packet Too Big that belong to nothing are not forwarded', () => {
    for (const type of [1, 2]) {
      const home = new H.Home();
      expect(crosses(home, 'wan', error(type, B.ipv6(OUT, DATA), 1280))).toBe(false);
      expect(home.dropped.CT_INVALID).toBe(1);
    }
  });

  it('REC-11, REC-17, REC-33: only who was sent to may answer, for every protocol', () => {
    const home = opened(DATA);
    expect(crosses(home, 'wan', B.ipv6(IN, ANSWER))).toBe(true);
    expect(crosses(home, 'wan', B.ipv6({ ...IN, src: '2001:db8:8::8' }, ANSWER))).toBe(false);
    expect(crosses(home, 'wan', B.ipv6(IN, B.udp({ sport: 5001, dport: 4000 }, 'z')))).toBe(false);
    const raw = new H.Home();
    expect(crosses(raw, 'lan', B.ipv6({ ...OUT, next: 253 }, new Uint8Array(8)))).toBe(true);
    expect(crosses(raw, 'wan', B.ipv6({ ...IN, next: 253 }, new Uint8Array(8)))).toBe(true);
    expect(crosses(raw, 'wan', B.ipv6({ ...IN, src: '2001:db8:8::8', next: 253 }, new Uint8Array(8)))).toBe(false);
  });

  it('REC-12: a protocol that nobody knows: five minutes and more without packets', () => {
    const home = new H.Home();
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, next: 253 }, new Uint8Array(8)))).toBe(true);
    home.router.advance(300_000);
    expect(crosses(home, 'wan', B.ipv6({ ...IN, next: 253 }, new Uint8Array(8)))).toBe(true);
  });

  it('REC-14, REC-15: five minutes of UDP by configuration; the kernel’s 30 s by default', () => {
    const patient = opened(DATA, { conntrack: { max: 4096, timeouts: { udp: 300, 'udp-stream': 300 } } });
    patient.router.advance(299_000);
    expect(crosses(patient, 'wan', B.ipv6(IN, ANSWER))).toBe(true);
    const home = opened(DATA);
    home.router.advance(29_000);
    expect(crosses(home, 'wan', B.ipv6(IN, ANSWER))).toBe(true);
    const late = opened(DATA);
    late.router.advance(31_000);
    expect(crosses(late, 'wan', B.ipv6(IN, ANSWER))).toBe(false);
  });

  it('REC-16: outbound packets keep a flow alive', () => {
    const home = opened(DATA);
    for (let n = 0; n < 20; n++) {
      home.router.advance(25_000);
      expect(crosses(home, 'lan', B.ipv6(OUT, DATA))).toBe(true);
    }
    expect(crosses(home, 'wan', B.ipv6(IN, ANSWER))).toBe(true);
    expect(home.router.conntrack.list()).toHaveLength(1);
  });

  const FLOWS: [name: string, first: B.Segment, answer: B.Segment][] = [
    ['UDP (REC-18, REC-19)', DATA, ANSWER],
    ['UDP-Lite (REC-20)', M.udpLite({ sport: 4000, dport: 5000 }, 'x'), M.udpLite({ sport: 5000, dport: 4000 }, 'y')],
    ['ESP (REC-23)', esp({ spi: 1 }), esp({ spi: 2 })],
    [
      'TCP (REC-36, REC-37)',
      B.tcp({ sport: 4000, dport: 80, flags: 'S', seq: 100 }),
      B.tcp({ sport: 80, dport: 4000, flags: 'SA', seq: 900, ack: 101 }),
    ],
    [
      'SCTP (REC-41, REC-42)',
      M.sctp({ sport: 4000, dport: 5000, tag: 0 }, M.sctpChunk(1, 0, B.hex('0000000900010000000a000a00000001'))),
      M.sctp({ sport: 5000, dport: 4000, tag: 9 }, M.sctpChunk(2, 0, B.hex('0000000800010000000a000a00000001'))),
    ],
    ['DCCP (REC-45, REC-46)', dccp(4000, 5000, 0), dccp(5000, 4000, 1)],
  ];

  it.each(FLOWS)('%s: an ICMPv6 error about the flow goes in, and ends nothing', (_, first, answer) => {
    for (const type of [1, 2, 3, 4]) {
      const home = opened(first);
      const quoted = B.ipv6({ ...OUT, hop: 60 }, first);
      expect(crosses(home, 'wan', error(type, quoted, 1280))).toBe(true);
      expect(crosses(home, 'wan', B.ipv6(IN, answer))).toBe(true);
    }
  });

  it('REC-20: UDP-Lite and UDP are no flow of each other', () => {
    const home = opened(DATA);
    expect(crosses(home, 'wan', B.ipv6(IN, M.udpLite({ sport: 5000, dport: 4000 }, 'y')))).toBe(false);
    const lite = opened(M.udpLite({ sport: 4000, dport: 5000 }, 'x'));
    expect(crosses(lite, 'wan', B.ipv6(IN, ANSWER))).toBe(false);
  });

  it('REC-21, REC-22, REC-24, REC-26: AH, ESP, IKE and HIP come in unasked, and to no port but 500', () => {
    const ah = [M.authentication({ spi: 5, seq: 1 })];
    expect(passes('wan', B.ipv6({ ...IN, ext: ah }, DATA))).toBe(true);
    expect(passes('wan', B.ipv6({ ...IN, ext: ah }, B.tcp({ sport: 4000, dport: 80, flags: 'S' })))).toBe(true);
    expect(passes('wan', B.ipv6(IN, esp({ spi: 5 })))).toBe(true);
    expect(passes('wan', B.ipv6(IN, B.udp({ sport: 4500, dport: 500 }, 'ike')))).toBe(true);
    expect(passes('wan', B.ipv6({ ...IN, next: 139 }, B.concat(B.hex('3b04011100000000'), new Uint8Array(32))))).toBe(
      true,
    );
    for (const dport of [499, 501, 5000])
      expect(passes('wan', B.ipv6(IN, B.udp({ sport: 500, dport }, 'no')))).toBe(false);
    expect(passes('wan', B.ipv6(IN, B.tcp({ sport: 500, dport: 500, flags: 'S' })))).toBe(false);
    // Nothing of it opens the router itself, or IPv4.
    const router = new H.Home();
    router.wan(B.ipv6({ src: H.SERVER6, dst: H.ROUTER_WAN6 }, esp({ spi: 5 })));
    expect(router.dropped.INPUT_DROP).toBe(1);
  });

  it('REC-25: ESP is told apart by its addresses alone: any SPI is of the flow', () => {
    const home = opened(esp({ spi: 1 }));
    for (const spi of [2, 3, 4]) expect(crosses(home, 'wan', B.ipv6(IN, esp({ spi })))).toBe(true);
    expect(home.router.conntrack.list()).toHaveLength(1);
  });

  it('REC-27: a routing header of type 2 (Mobile IPv6) passes with the flow that it belongs to', () => {
    const home = opened(DATA);
    const ext = [M.routing({ type: 2, left: 0, data: B.concat(new Uint8Array(4), B.ip(H.HOST6)) })];
    expect(crosses(home, 'wan', B.ipv6({ ...IN, ext, finalDst: H.HOST6 }, ANSWER))).toBe(true);
  });

  it('REC-27: a Home Address option: the checksum covers the home address (RFC 6275 §6.3), and is still checked', () => {
    const home = '2001:db8:77::7';
    const option = B.concat(B.hex('01020000c910'), B.ip(home));
    const packet = (payload: Uint8Array) => B.ipv6({ ...OUT, next: 17, ext: [M.destinationOptions(option)] }, payload);
    const right = B.complete(DATA, B.ip(home), B.ip(OUT.dst));
    const gateway = new H.Home();
    gateway.lan(packet(right));
    expect(gateway.router.take('wan')).toHaveLength(1);
    gateway.lan(packet(B.complete(DATA, B.ip(OUT.src), B.ip(OUT.dst))));
    expect(gateway.router.take('wan')).toHaveLength(0);
    expect(gateway.dropped.UDP_CSUM).toBe(1);
  });

  it('REC-28, REC-30: a Mobility Header flow from inside, its answers, and errors about it', () => {
    const mobility = B.hex('3b00000000000000');
    const home = new H.Home();
    expect(crosses(home, 'wan', B.ipv6({ ...IN, next: 135 }, mobility))).toBe(false);
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, next: 135 }, mobility))).toBe(true);
    expect(crosses(home, 'wan', B.ipv6({ ...IN, next: 135 }, mobility))).toBe(true);
    expect(crosses(home, 'wan', error(1, B.ipv6({ ...OUT, next: 135 }, mobility)))).toBe(true);
  });
});

describe('§3.3 connection-oriented filters', () => {
  const tcpOut = (flags: string, seq: number, ack = 0) =>
    B.ipv6(OUT, B.tcp({ sport: 4000, dport: 80, flags, seq, ack }));
  const tcpIn = (flags: string, seq: number, ack = 0) => B.ipv6(IN, B.tcp({ sport: 80, dport: 4000, flags, seq, ack }));

  it('REC-31: the handshake, and simultaneous open', () => {
    const home = new H.Home();
    expect(crosses(home, 'wan', tcpIn('S', 900))).toBe(false);
    expect(crosses(home, 'lan', tcpOut('S', 100))).toBe(true);
    expect(crosses(home, 'wan', tcpIn('SA', 900, 101))).toBe(true);
    expect(crosses(home, 'lan', tcpOut('A', 101, 901))).toBe(true);
    const both = new H.Home();
    expect(crosses(both, 'lan', tcpOut('S', 100))).toBe(true);
    expect(crosses(both, 'wan', tcpIn('S', 900))).toBe(true);
    expect(crosses(both, 'lan', tcpOut('SA', 100, 901))).toBe(true);
    expect(crosses(both, 'wan', tcpIn('SA', 900, 101))).toBe(true);
    expect(crosses(both, 'lan', tcpOut('A', 101, 901))).toBe(true);
    expect(both.router.conntrack.list()).toMatchObject([{ state: 'ESTABLISHED' }]);
  });

  it('REC-32: the window of a flow whose handshake nobody saw is not held against it', () => {
    const home = new H.Home();
    expect(crosses(home, 'lan', tcpOut('A', 1000, 5000))).toBe(true);
    // Far beyond an unscaled window; scaled by what the ends had agreed upon, it may be right.
    expect(crosses(home, 'wan', tcpIn('A', 5000 + 200_000, 1000))).toBe(true);
    expect(crosses(home, 'lan', tcpOut('A', 1000 + 200_000, 5000))).toBe(true);
  });

  it('REC-34, REC-39: unsolicited opening packets: `drop` is silent, `reject` answers at once', () => {
    const silent = new H.Home();
    silent.wan(tcpIn('S', 900));
    silent.router.advance(20_000);
    expect(silent.left('wan')).toEqual([]);
    const zones = { lan: { forward: 'accept' }, wan: { forward: 'reject', input: 'drop' } };
    const telling = new H.Home({ zones });
    telling.wan(B.ipv6(IN, DATA));
    expect(telling.one('wan').l4.subarray(0, 2)).toEqual(Uint8Array.of(1, 4));
  });

  it('REC-35: two hours and four minutes established; four minutes opening and closing, by configuration', () => {
    const timeouts = { 'tcp-syn-sent': 240, 'tcp-fin-wait': 240 };
    const home = new H.Home({ conntrack: { max: 4096, timeouts } });
    expect(crosses(home, 'lan', tcpOut('S', 100))).toBe(true);
    home.router.advance(239_000);
    expect(crosses(home, 'wan', tcpIn('SA', 900, 101))).toBe(true);
    expect(crosses(home, 'lan', tcpOut('A', 101, 901))).toBe(true);
    home.router.advance((2 * 60 + 4) * 60_000);
    expect(crosses(home, 'wan', tcpIn('A', 901, 101))).toBe(true);
    expect(crosses(home, 'lan', tcpOut('FA', 101, 901))).toBe(true);
    home.router.advance(239_000);
    expect(crosses(home, 'wan', tcpIn('A', 901, 102))).toBe(true);
  });

  it('REC-38, REC-40: an SCTP association from inside; simultaneous open', () => {
    const init = (tag: string) => B.hex(`${tag}00010000000a000a00000001`);
    const out = (tag: number, chunk: Uint8Array) => B.ipv6(OUT, M.sctp({ sport: 4000, dport: 5000, tag }, chunk));
    const back = (tag: number, chunk: Uint8Array) => B.ipv6(IN, M.sctp({ sport: 5000, dport: 4000, tag }, chunk));
    // The kernel's times are shorter.
    const timeouts = { 'sctp-established': 7440, 'sctp-cookie-wait': 240, 'sctp-cookie-echoed': 240 };
    const home = new H.Home({ conntrack: { max: 4096, timeouts } });
    expect(crosses(home, 'wan', back(0, M.sctpChunk(1, 0, init('00000008'))))).toBe(false);
    expect(crosses(home, 'lan', out(0, M.sctpChunk(1, 0, init('00000009'))))).toBe(true);
    expect(crosses(home, 'wan', back(9, M.sctpChunk(2, 0, init('00000008'))))).toBe(true);
    expect(crosses(home, 'lan', out(8, M.sctpChunk(10, 0, B.hex('aabbccdd'))))).toBe(true);
    expect(crosses(home, 'wan', back(9, M.sctpChunk(11, 0, '')))).toBe(true);
    home.router.advance((2 * 60 + 4) * 60_000 - 1000);
    expect(home.router.conntrack.list()).toMatchObject([{ state: 'ESTABLISHED' }]);
    const both = new H.Home();
    expect(crosses(both, 'lan', out(0, M.sctpChunk(1, 0, init('00000009'))))).toBe(true);
    expect(crosses(both, 'wan', back(0, M.sctpChunk(1, 0, init('00000008'))))).toBe(true);
  });

  it('REC-43, REC-44: DCCP from inside; eight minutes opening, and as long as `generic` says', () => {
    const home = opened(dccp(4000, 5000, 0), { conntrack: { max: 4096, timeouts: { generic: 7440 } } });
    expect(crosses(home, 'wan', B.ipv6(IN, dccp(5000, 4000, 1)))).toBe(true);
    home.router.advance((2 * 60 + 4) * 60_000 - 1000);
    expect(crosses(home, 'wan', B.ipv6(IN, dccp(5000, 4000, 2)))).toBe(true);
    const usual = opened(dccp(4000, 5000, 0));
    usual.router.advance(8 * 60_000);
    expect(crosses(usual, 'wan', B.ipv6(IN, dccp(5000, 4000, 1)))).toBe(true);
    expect(passes('wan', B.ipv6(IN, dccp(5000, 4000, 0)))).toBe(false);
  });

  it('REC-47: Shim6 headers pass with the flow of their addresses', () => {
    const shim = B.hex('3b00800000000001');
    const home = new H.Home();
    expect(crosses(home, 'wan', B.ipv6({ ...IN, next: 140 }, shim))).toBe(false);
    expect(crosses(home, 'lan', B.ipv6({ ...OUT, next: 140 }, shim))).toBe(true);
    expect(crosses(home, 'wan', B.ipv6({ ...IN, next: 140 }, shim))).toBe(true);
  });
});

describe('§3.5, §3.6', () => {
  const SYN = B.ipv6(IN, B.tcp({ sport: 4000, dport: 80, flags: 'S' }));

  it('REC-49: transparent mode forwards what comes unsolicited, in either direction', () => {
    expect(passes('wan', SYN)).toBe(false);
    const firewall = { ipv6: 'transparent' };
    expect(passes('wan', SYN, { firewall })).toBe(true);
    expect(passes('lan', B.ipv6({ ...OUT, src: '2001:db8:bad::1' }, DATA), { firewall })).toBe(true);
    // IPv4 stays as the zones say.
    const home = new H.Home({ firewall, nat: {} });
    home.wan(B.ipv4({ src: H.SERVER, dst: H.HOST }, DATA));
    expect(home.left('lan')).toEqual([]);
  });

  it('the rules of the configuration come first, and `ipv6: zones` leaves them alone', () => {
    const rules = [{ from: 'wan', proto: 'esp', verdict: 'drop', name: 'no-ipsec' }];
    expect(passes('wan', B.ipv6(IN, esp({ spi: 5 })), { rules })).toBe(false);
    const firewall = { ipv6: 'zones' };
    expect(passes('wan', B.ipv6(IN, esp({ spi: 5 })), { firewall })).toBe(false);
    expect(passes('lan', B.ipv6({ ...OUT, dst: 'fd00:2::10' }, DATA), { firewall })).toBe(true);
    expect(passes('lan', B.ipv6({ ...OUT, src: '2001:db8:bad::1' }, DATA), { firewall })).toBe(true);
  });

  it('between zones that all accept there is no border: a router in transit forwards it all', () => {
    const zones = { lan: { forward: 'accept' }, wan: { forward: 'accept' } };
    expect(passes('wan', SYN, { zones })).toBe(true);
    expect(passes('lan', B.ipv6({ ...OUT, dst: 'fd00:2::10' }, DATA), { zones })).toBe(true);
  });
});

/** ESP (RFC 4303): SPI, sequence number, and what nobody can read. */
function esp(o: { spi: number }): B.Segment {
  return { proto: 50, bytes: B.concat(B.u32(o.spi), B.u32(1), new Uint8Array(16).fill(0xa5)), sumAt: -1 };
}

/** DCCP (RFC 4340 §5.1) with extended sequence numbers: 0 request, 1 response, 2 data. */
function dccp(sport: number, dport: number, type: number): B.Segment {
  const bytes = B.concat(
    B.u16(sport),
    B.u16(dport),
    Uint8Array.of(type === 0 ? 5 : 6, 0, 0, 0, (type << 1) | 1, 0, 0, 0, 0, 0, 0, 1),
    new Uint8Array(type === 0 ? 4 : 8),
  );
  return { proto: 33, bytes, sumAt: 6 };
}
