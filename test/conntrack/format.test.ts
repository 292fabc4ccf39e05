/**
 * Text of connections and expectations: lines that conntrack 1.4.7 printed on Linux 6.18, rebuilt from a record word for
 * word.
 */
import { describe, expect, it } from 'vitest';
import {
  conntrackJson,
  conntrackLine,
  type EventKind,
  eventLine,
  expectLine,
  type FormatOptions,
} from '../../conntrack/format.ts';
import {
  CT_DEADLINE,
  CT_F64,
  CT_F64_BYTES,
  CT_F64_PACKETS,
  CT_HELPER,
  CT_KEY,
  CT_MARK,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_STATE,
  CT_STATUS,
  CT_WORDS,
  CT6_O_DST,
  CT6_O_SRC,
  CT6_WORDS,
  IPS_ASSURED,
  IPS_CONFIRMED,
  IPS_OFFLOAD,
  IPS_SEEN_REPLY,
  IPS_SRC_NAT,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_SYN_SENT,
  TCP_TIME_WAIT,
} from '../../conntrack/record.ts';
import { concat, ip, u16 } from '../lib/build.ts';

const INDEX = 3;
const NOW = -5000; // the clock may be anywhere
const SEEN = IPS_CONFIRMED | IPS_SEEN_REPLY;
const BOTH = SEEN | IPS_ASSURED;

interface Direction {
  src: string;
  dst: string;
  /** The four bytes of the port word, as on the wire. */
  ports: Uint8Array;
  packets?: number;
  bytes?: number;
}

interface Record {
  proto: number;
  seconds: number;
  status: number;
  orig: Direction;
  reply: Direction;
  state?: number;
  mark?: number;
  zone?: number;
  helper?: number;
}

const words = (bytes: Uint8Array) => new Int32Array(bytes.slice().buffer);
const tcpUdp = (sport: number, dport: number) => concat(u16(sport), u16(dport));
const echo = (id: number, type: number) => concat(u16(id), Uint8Array.of(type, 0));

/** A table with this one record, at INDEX. */
function table(r: Record): [Int32Array, Int32Array, Float64Array] {
  const buffer = new SharedArrayBuffer((INDEX + 1) * CT_WORDS * 4);
  const w = new Int32Array(buffer);
  const f64 = new Float64Array(buffer);
  const w6 = new Int32Array((INDEX + 1) * CT6_WORDS);
  const c = INDEX * CT_WORDS;
  const family = r.orig.src.includes(':') ? 6 : 4;
  w[c + CT_KEY] = r.proto | (family << 8) | ((r.zone ?? 0) << 16);
  w[c + CT_STATUS] = r.status;
  w[c + CT_STATE] = r.state ?? 0;
  w[c + CT_MARK] = r.mark ?? 0;
  w[c + CT_HELPER] = r.helper ?? 0;
  w[c + CT_DEADLINE] = NOW + r.seconds * 1000 + 999;
  for (const [dir, d] of [r.orig, r.reply].entries()) {
    const t = c + 4 * dir;
    w[t + CT_O_PORTS] = words(d.ports)[0];
    if (family === 4) {
      w[t + CT_O_SRC] = words(ip(d.src))[0];
      w[t + CT_O_DST] = words(ip(d.dst))[0];
    } else {
      w6.set(words(ip(d.src)), INDEX * CT6_WORDS + 8 * dir + CT6_O_SRC);
      w6.set(words(ip(d.dst)), INDEX * CT6_WORDS + 8 * dir + CT6_O_DST);
    }
    f64[INDEX * CT_F64 + CT_F64_PACKETS + dir] = d.packets ?? 0;
    f64[INDEX * CT_F64 + CT_F64_BYTES + dir] = d.bytes ?? 0;
  }
  return [w, w6, f64];
}

const line = (r: Record, options?: FormatOptions) => conntrackLine(...table(r), INDEX, NOW, options);
const event = (kind: EventKind, r: Record, options?: FormatOptions) =>
  eventLine(kind, ...table(r), INDEX, NOW, options);
const helperName = (helper: number) => (helper === 1 ? 'ftp' : undefined);

const web: Record = {
  proto: 6,
  seconds: 431_996,
  state: TCP_ESTABLISHED,
  status: BOTH | IPS_SRC_NAT,
  orig: { src: '192.168.1.10', dst: '203.0.113.5', ports: tcpUdp(45_958, 80), packets: 4, bytes: 221 },
  reply: { src: '203.0.113.5', dst: '203.0.113.1', ports: tcpUdp(80, 45_958), packets: 3, bytes: 169 },
};
const ftp: Record = {
  ...web,
  helper: 1,
  orig: { src: '192.168.1.10', dst: '203.0.113.5', ports: tcpUdp(48_712, 21), packets: 5, bytes: 274 },
  reply: { src: '203.0.113.5', dst: '203.0.113.1', ports: tcpUdp(21, 48_712), packets: 4, bytes: 271 },
};
const web6: Record = {
  proto: 6,
  seconds: 116,
  state: TCP_TIME_WAIT,
  status: BOTH,
  orig: { src: '2001:db8:1::10', dst: '2001:db8:ffff::5', ports: tcpUdp(43_410, 80), packets: 6, bytes: 445 },
  reply: { src: '2001:db8:ffff::5', dst: '2001:db8:1::10', ports: tcpUdp(80, 43_410), packets: 4, bytes: 301 },
};
const ping: Record = {
  proto: 1,
  seconds: 25,
  status: SEEN,
  orig: { src: '192.168.1.10', dst: '203.0.113.5', ports: echo(16_772, 8), packets: 2, bytes: 168 },
  reply: { src: '203.0.113.5', dst: '203.0.113.1', ports: echo(16_772, 0), packets: 2, bytes: 168 },
};
const ping6: Record = {
  proto: 58,
  seconds: 25,
  status: SEEN,
  orig: { src: '2001:db8:1::10', dst: '2001:db8:ffff::5', ports: echo(16_801, 128), packets: 2, bytes: 208 },
  reply: { src: '2001:db8:ffff::5', dst: '2001:db8:1::10', ports: echo(16_801, 129), packets: 2, bytes: 208 },
};
const zoned: Record = {
  proto: 17,
  seconds: 26,
  status: IPS_CONFIRMED,
  mark: 7,
  zone: 5,
  orig: { src: '192.168.1.10', dst: '203.0.113.77', ports: tcpUdp(38_944, 54), packets: 1, bytes: 29 },
  reply: { src: '203.0.113.77', dst: '203.0.113.1', ports: tcpUdp(54, 38_944) },
};
const call: Record = {
  proto: 47,
  seconds: 26,
  status: IPS_CONFIRMED,
  orig: { src: '192.168.1.10', dst: '203.0.113.5', ports: tcpUdp(0, 0x1234), packets: 1, bytes: 32 },
  reply: { src: '203.0.113.5', dst: '203.0.113.1', ports: tcpUdp(0x1234, 0) },
};
const esp: Record = {
  proto: 50,
  seconds: 596,
  status: IPS_CONFIRMED,
  orig: { src: '2001:db8:1::10', dst: '2001:db8:ffff::5', ports: new Uint8Array(4), packets: 1, bytes: 60 },
  reply: { src: '2001:db8:ffff::5', dst: '2001:db8:1::10', ports: new Uint8Array(4) },
};
const refused: Record = {
  proto: 6,
  seconds: 120,
  state: TCP_CLOSE,
  status: IPS_CONFIRMED,
  orig: { src: '192.168.1.10', dst: '203.0.113.5', ports: tcpUdp(57_572, 81), packets: 1, bytes: 60 },
  reply: { src: '203.0.113.5', dst: '203.0.113.1', ports: tcpUdp(81, 57_572), packets: 1, bytes: 40 },
};

describe('conntrack -L', () => {
  it.each([
    [
      'TCP',
      web,
      'tcp      6 431996 ESTABLISHED src=192.168.1.10 dst=203.0.113.5 sport=45958 dport=80 packets=4 bytes=221 src=203.0.113.5 dst=203.0.113.1 sport=80 dport=45958 packets=3 bytes=169 [ASSURED] mark=0 use=1',
    ],
    [
      'TCP with a helper',
      ftp,
      'tcp      6 431996 ESTABLISHED src=192.168.1.10 dst=203.0.113.5 sport=48712 dport=21 packets=5 bytes=274 src=203.0.113.5 dst=203.0.113.1 sport=21 dport=48712 packets=4 bytes=271 [ASSURED] mark=0 helper=ftp use=1',
    ],
    [
      'TCP over IPv6',
      web6,
      'tcp      6 116 TIME_WAIT src=2001:db8:1::10 dst=2001:db8:ffff::5 sport=43410 dport=80 packets=6 bytes=445 src=2001:db8:ffff::5 dst=2001:db8:1::10 sport=80 dport=43410 packets=4 bytes=301 [ASSURED] mark=0 use=1',
    ],
    [
      'UDP without an answer, with mark and zone',
      zoned,
      'udp      17 26 src=192.168.1.10 dst=203.0.113.77 sport=38944 dport=54 packets=1 bytes=29 [UNREPLIED] src=203.0.113.77 dst=203.0.113.1 sport=54 dport=38944 packets=0 bytes=0 mark=7 zone=5 use=1',
    ],
    [
      'ICMP',
      ping,
      'icmp     1 25 src=192.168.1.10 dst=203.0.113.5 type=8 code=0 id=16772 packets=2 bytes=168 src=203.0.113.5 dst=203.0.113.1 type=0 code=0 id=16772 packets=2 bytes=168 mark=0 use=1',
    ],
    [
      'ICMPv6',
      ping6,
      'icmpv6   58 25 src=2001:db8:1::10 dst=2001:db8:ffff::5 type=128 code=0 id=16801 packets=2 bytes=208 src=2001:db8:ffff::5 dst=2001:db8:1::10 type=129 code=0 id=16801 packets=2 bytes=208 mark=0 use=1',
    ],
    [
      'GRE',
      call,
      'gre      47 26 src=192.168.1.10 dst=203.0.113.5 srckey=0x0 dstkey=0x1234 packets=1 bytes=32 [UNREPLIED] src=203.0.113.5 dst=203.0.113.1 srckey=0x1234 dstkey=0x0 packets=0 bytes=0 mark=0 use=1',
    ],
    [
      'ESP',
      esp,
      'unknown  50 596 src=2001:db8:1::10 dst=2001:db8:ffff::5 packets=1 bytes=60 [UNREPLIED] src=2001:db8:ffff::5 dst=2001:db8:1::10 packets=0 bytes=0 mark=0 use=1',
    ],
  ])('%s', (_name, record, expected) => {
    expect(line(record, { helperName })).toBe(expected);
  });

  it('-o extended: the IP version in front', () => {
    expect(line(web, { extended: true })).toBe(
      'ipv4     2 tcp      6 431996 ESTABLISHED src=192.168.1.10 dst=203.0.113.5 sport=45958 dport=80 packets=4 bytes=221 src=203.0.113.5 dst=203.0.113.1 sport=80 dport=45958 packets=3 bytes=169 [ASSURED] mark=0 use=1',
    );
    expect(line(ping6, { extended: true }).startsWith('ipv6     10 icmpv6   58 25 src=')).toBe(true);
  });

  it('without accounting no counters', () => {
    expect(line(ping, { counters: false })).toBe(
      'icmp     1 25 src=192.168.1.10 dst=203.0.113.5 type=8 code=0 id=16772 src=203.0.113.5 dst=203.0.113.1 type=0 code=0 id=16772 mark=0 use=1',
    );
  });

  it('offloaded: neither time nor state, as the kernel’s documentation of flowtables shows it', () => {
    const offloaded = { ...web, status: BOTH | IPS_OFFLOAD };
    expect(line(offloaded, { counters: false })).toBe(
      'tcp      6 src=192.168.1.10 dst=203.0.113.5 sport=45958 dport=80 src=203.0.113.5 dst=203.0.113.1 sport=80 dport=45958 [OFFLOAD] mark=0 use=1',
    );
    expect(line({ ...offloaded, status: offloaded.status | 32768 })).toContain(' [HW_OFFLOAD] mark=0');
  });

  it('a deadline that has passed is 0; large counters and marks are whole numbers', () => {
    const big = { ...web, seconds: -3, mark: -1, orig: { ...web.orig, packets: 2 ** 40, bytes: 2 ** 52 + 1 } };
    expect(line(big)).toContain('tcp      6 0 ESTABLISHED');
    expect(line(big)).toContain(' packets=1099511627776 bytes=4503599627370497 ');
    expect(line(big)).toContain(' mark=4294967295 ');
  });

  it('IPv6 addresses as inet_ntop writes them', () => {
    for (const text of [
      '::1',
      '::',
      'fe80::1',
      '2001:db8::1:0:0:1',
      '::ffff:192.0.2.1',
      '::192.0.2.1',
      '64:ff9b::c000:201',
    ]) {
      expect(line({ ...esp, orig: { ...esp.orig, src: text } })).toContain(` src=${text} dst=`);
    }
  });
});

describe('conntrack -E', () => {
  it('NEW: unanswered, no counters, the mark only when there is one', () => {
    const fresh = { ...refused, state: TCP_SYN_SENT };
    expect(event('NEW', fresh)).toBe(
      '    [NEW] tcp      6 120 SYN_SENT src=192.168.1.10 dst=203.0.113.5 sport=57572 dport=81 [UNREPLIED] src=203.0.113.5 dst=203.0.113.1 sport=81 dport=57572',
    );
    expect(event('NEW', { ...zoned, seconds: 30 })).toBe(
      '    [NEW] udp      17 30 src=192.168.1.10 dst=203.0.113.77 sport=38944 dport=54 [UNREPLIED] src=203.0.113.77 dst=203.0.113.1 sport=54 dport=38944 mark=7 zone=5',
    );
  });

  it('UPDATE', () => {
    expect(event('UPDATE', { ...ftp, seconds: 432_000 }, { helperName })).toBe(
      ' [UPDATE] tcp      6 432000 ESTABLISHED src=192.168.1.10 dst=203.0.113.5 sport=48712 dport=21 src=203.0.113.5 dst=203.0.113.1 sport=21 dport=48712 [ASSURED] helper=ftp',
    );
    expect(event('UPDATE', { ...ping, seconds: 30 }, { extended: true })).toBe(
      ' [UPDATE] ipv4     2 icmp     1 30 src=192.168.1.10 dst=203.0.113.5 type=8 code=0 id=16772 src=203.0.113.5 dst=203.0.113.1 type=0 code=0 id=16772',
    );
  });

  it('DESTROY: with counters', () => {
    expect(event('DESTROY', refused)).toBe(
      '[DESTROY] tcp      6 120 CLOSE src=192.168.1.10 dst=203.0.113.5 sport=57572 dport=81 packets=1 bytes=60 [UNREPLIED] src=203.0.113.5 dst=203.0.113.1 sport=81 dport=57572 packets=1 bytes=40',
    );
  });
});

describe('conntrack -L expect', () => {
  const raw4 = (text: string): [number, number, number, number] => [words(ip(text))[0], 0, 0, 0];

  it('as the FTP helper leaves it', () => {
    const text = expectLine({
      family: 4,
      proto: 6,
      timeout: 296,
      src: raw4('192.168.1.10'),
      dst: raw4('203.0.113.5'),
      ports: words(tcpUdp(0, 20_020))[0],
      srcMask: raw4('255.255.255.255'),
      portsMask: words(tcpUdp(0, 65_535))[0],
      masterSrc: raw4('192.168.1.10'),
      masterDst: raw4('203.0.113.5'),
      masterProto: 6,
      masterPorts: words(tcpUdp(48_712, 21))[0],
      class: 0,
      zone: 0,
      permanent: false,
      helper: 'ftp',
    });
    expect(text).toBe(
      '296 proto=6 src=192.168.1.10 dst=203.0.113.5 sport=0 dport=20020 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=192.168.1.10 master-dst=203.0.113.5 sport=48712 dport=21 class=0 helper=ftp',
    );
  });
});

describe('JSON', () => {
  it('a TCP connection', () => {
    expect(conntrackJson(...table(ftp), INDEX, NOW, { helperName })).toEqual({
      id: INDEX,
      family: 'inet',
      protocol: 'tcp',
      protocol_number: 6,
      timeout: 431_996,
      state: 'ESTABLISHED',
      orig: { src: '192.168.1.10', dst: '203.0.113.5', sport: 48_712, dport: 21, packets: 5, bytes: 274 },
      reply: { src: '203.0.113.5', dst: '203.0.113.1', sport: 21, dport: 48_712, packets: 4, bytes: 271 },
      status: ['SEEN_REPLY', 'ASSURED', 'SRC_NAT'],
      mark: 0,
      zone: 0,
      helper: 'ftp',
    });
  });

  it('an offloaded one has no time; GRE has keys, ICMP type, code and id, ESP addresses only', () => {
    const offloaded = conntrackJson(...table({ ...web, status: BOTH | IPS_OFFLOAD }), INDEX, NOW);
    expect('timeout' in offloaded || 'state' in offloaded).toBe(false);
    expect(offloaded.status).toContain('OFFLOAD');
    const of = (r: Record) => conntrackJson(...table(r), INDEX, NOW, { counters: false }).orig;
    expect(of(call)).toEqual({ src: '192.168.1.10', dst: '203.0.113.5', srckey: 0, dstkey: 0x1234 });
    expect(of(ping6)).toMatchObject({ type: 128, code: 0, id: 16_801 });
    expect(of(esp)).toEqual({ src: '2001:db8:1::10', dst: '2001:db8:ffff::5' });
  });
});
