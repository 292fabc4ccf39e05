/**
 * The catalogue: scenarios by hand for what the traps are about, and a generator of random ones. All are free of
 * time: no scenario waits for a timeout, since the kernel's clock cannot be moved.
 */
import { concat, fragment4, fragment6, icmp, icmpv6, ipText, Random, tcp, udp } from '../../lib/build.ts';
import { type Flow, fromLan, fromWan, goodbye, handshake, ipOf, packet, tcpFrame, udpExchange } from './frames.ts';
import { far, HOSTS, LAN4, LAN6, type Scenario, type ScenarioFrame, WAN4, WAN6 } from './scenario.ts';

const [A, B] = HOSTS;

/** From the far host to the address of the router, or to a LAN host's own in IPv6. */
const probe = (dst: string, dport: number, n = 3) =>
  fromWan(packet(dst.includes(':') ? far(n).v6 : far(n).v4, dst, udp({ sport: 999, dport }, 'in')));

/** An ICMP error of `by` about the first frame that left through the WAN port, sent to the router from outside. */
function errorAbout(
  by: number,
  type: number,
  code: number,
  options: { mtu?: number; bytes?: number } = {},
): ScenarioFrame {
  return {
    port: 'wan',
    frame: (past) => {
      const quoted = ipOf(past.find((p) => p.port === 'wan')?.frame ?? new Uint8Array(34));
      const six = quoted[0] >> 4 === 6;
      const quote = quoted.subarray(0, options.bytes ?? quoted.length);
      const src = six ? far(by).v6 : far(by).v4;
      const make = six ? icmpv6 : icmp;
      const error = packet(src, six ? A.v6 : WAN4, make({ type, code, mtu: options.mtu }, quote));
      return fromWan(error).frame as Uint8Array;
    },
  };
}

/**
 * Commands and answers of FTP. `grows`: by how many bytes the router lengthens this line, which the far end
 * acknowledges. The line before it ends the greeting, since the kernel only reads after a line end.
 */
function ftp(flow: Flow, lines: readonly { way: 'out' | 'back'; text: string; grows?: number }[]): ScenarioFrame[] {
  const frames = handshake(flow);
  let a = 1001;
  let b = 5001;
  let grown = 0;
  for (const line of lines) {
    const out = line.way === 'out';
    frames.push(
      tcpFrame(flow, {
        way: line.way,
        flags: 'PA',
        seq: out ? a : b,
        ack: out ? b : a + grown,
        win: 500,
        data: line.text,
      }),
    );
    if (out) a += line.text.length;
    else b += line.text.length;
    grown += line.grows ?? 0;
  }
  return frames;
}

const echo = (src: string, dst: string, id: number) =>
  packet(src, dst, (src.includes(':') ? icmpv6 : icmp)({ type: src.includes(':') ? 128 : 8, id, seq: 1 }, 'ping'));
const dead = (src: string, dst: string, o: { ttl?: number; tos?: number; checksum?: number } = {}) =>
  packet(src, dst, udp({ sport: 1, dport: 33434, checksum: o.checksum }, 'x'), { ttl: o.ttl ?? 1, tos: o.tos });

export const SCENARIOS: readonly Scenario[] = [
  { name: 'UDP exchange through masquerading', topology: {}, frames: udpExchange({ dport: 53 }) },
  { name: 'UDP exchange, IPv6', topology: {}, frames: udpExchange({ family: 6, dport: 53 }) },
  {
    name: 'UDP without a checksum stays without',
    topology: {},
    notes: 'trap 4',
    frames: [fromLan(A, packet(A.v4, far(1).v4, udp({ sport: 4000, dport: 9, checksum: 0 }, 'none')))],
  },
  {
    name: 'UDP with checksum zero over IPv6 is forwarded as it is',
    topology: {},
    notes: 'trap 4',
    frames: [fromLan(A, packet(A.v6, far(1).v6, udp({ sport: 4000, dport: 9, checksum: 0 }, 'none')))],
  },
  ...([4, 6] as const).map((family) => ({
    name: `TCP from handshake to FIN, IPv${family}`,
    topology: {},
    frames: [
      ...handshake({ family }),
      tcpFrame({ family }, { way: 'out', flags: 'PA', seq: 1001, ack: 5001, win: 502, data: 'GET / HTTP/1.0\r\n\r\n' }),
      tcpFrame({ family }, { way: 'back', flags: 'A', seq: 5001, ack: 1019, win: 509 }),
      tcpFrame({ family }, { way: 'back', flags: 'PA', seq: 5001, ack: 1019, win: 509, data: 'HTTP/1.0 200 OK\r\n' }),
      ...goodbye({ family }, 1019, 5018),
    ],
  })),
  {
    name: 'TCP: a segment outside of the window, a wrong ACK, then a right one',
    topology: {},
    notes: 'RFC 9293 §3.10.7.4',
    frames: [
      ...handshake({}),
      tcpFrame({}, { way: 'back', flags: 'A', seq: 0x40000000, ack: 1001, win: 509, data: 'far off' }),
      tcpFrame({}, { way: 'back', flags: 'A', seq: 5001, ack: 0x60000000, win: 509, data: 'acks the future' }),
      tcpFrame({}, { way: 'back', flags: 'A', seq: 5001, ack: 1001, win: 509, data: 'right' }),
    ],
  },
  {
    name: 'TCP: a reset that is exact closes',
    topology: {},
    notes: 'trap 3',
    frames: [
      ...handshake({}),
      tcpFrame({}, { way: 'back', flags: 'R', seq: 5001 }),
      tcpFrame({}, { way: 'out', flags: 'A', seq: 1001, ack: 5001, win: 502, data: 'after' }),
    ],
  },
  {
    name: 'TCP: a reset out of the window is dropped, the connection lives',
    topology: {},
    notes: 'trap 3',
    frames: [
      ...handshake({}),
      tcpFrame({}, { way: 'back', flags: 'R', seq: 0x30000000 }),
      tcpFrame({}, { way: 'back', flags: 'PA', seq: 5001, ack: 1001, win: 509, data: 'alive' }),
    ],
  },
  {
    name: 'TCP: SYN/ACK to nobody',
    topology: {},
    frames: [tcpFrame({}, { way: 'back', flags: 'SA', seq: 1, ack: 2 })],
  },
  {
    name: 'TCP: data of a connection that began elsewhere is picked up from inside',
    topology: {},
    frames: [
      tcpFrame({}, { way: 'out', flags: 'PA', seq: 777, ack: 888, win: 502, data: 'middle' }),
      tcpFrame({}, { way: 'back', flags: 'A', seq: 888, ack: 783, win: 509 }),
    ],
  },
  {
    name: 'broken headers: wrong checksums, lengths and flags',
    topology: {},
    frames: [
      fromLan(A, packet(A.v4, far(1).v4, udp({ sport: 1, dport: 2, checksum: 0x1234 }, 'bad sum'))),
      fromLan(A, packet(A.v4, far(1).v4, udp({ sport: 1, dport: 3, length: 200 }, 'long'))),
      fromLan(A, packet(A.v4, far(1).v4, tcp({ sport: 1, dport: 4, flags: 'S', dataOffset: 15 }))),
      fromLan(A, packet(A.v4, far(1).v4, tcp({ sport: 1, dport: 5, flags: 'SF' }))),
      fromLan(A, packet(A.v4, far(1).v4, tcp({ sport: 1, dport: 6, flags: 0 }))),
      fromLan(A, packet(A.v6, far(1).v6, icmpv6({ type: 128, id: 1, checksum: 1 }))),
    ],
  },
  {
    name: 'two hosts, one source port, one destination',
    topology: {},
    normalise: ['chosen-port'],
    notes: 'the first keeps its port, the second gets another',
    frames: [
      fromLan(A, packet(A.v4, far(1).v4, udp({ sport: 4500, dport: 4500 }, 'a'))),
      fromLan(B, packet(B.v4, far(1).v4, udp({ sport: 4500, dport: 4500 }, 'b'))),
      fromLan(B, packet(B.v4, far(1).v4, udp({ sport: 4500, dport: 4500 }, 'c'))),
    ],
  },
  {
    name: 'ping through the router and to it',
    topology: {},
    normalise: ['ip-id'],
    frames: [
      fromLan(A, echo(A.v4, far(1).v4, 7)),
      fromWan(packet(far(1).v4, WAN4, icmp({ type: 0, id: 7, seq: 1 }, 'ping'))),
      fromLan(A, echo(A.v6, far(1).v6, 7)),
      fromWan(packet(far(1).v6, A.v6, icmpv6({ type: 129, id: 7, seq: 1 }, 'ping'))),
      fromLan(A, echo(A.v6, LAN6, 8)),
      fromWan(echo(far(1).v6, WAN6, 9)),
    ],
  },
  {
    name: 'hop limits end here',
    topology: {},
    normalise: ['ip-id', 'icmp-rate-limit'],
    frames: [fromLan(A, dead(A.v4, far(1).v4)), fromLan(A, dead(A.v6, far(1).v6)), fromLan(A, dead(A.v4, LAN4))],
  },
  {
    name: 'hop limits end here for marked packets',
    topology: {},
    normalise: ['ip-id'],
    notes:
      'an error has precedence 6 and keeps the rest of TOS in IPv4 (RFC 1812 §4.3.2.5); in IPv6 Linux sends class 0',
    frames: [0x01, 0x03, 0x10, 0xb8].flatMap((tos) => [
      fromLan(A, dead(A.v4, far(1).v4, { tos })),
      fromLan(A, dead(A.v6, far(1).v6, { tos })),
    ]),
  },
  {
    name: 'hop limits that were zero already',
    topology: {},
    normalise: ['ip-id'],
    notes: 'RFC 4443 §3.3: received with zero or decremented to zero, both are answered',
    frames: [
      fromLan(A, dead(A.v4, far(1).v4, { ttl: 0 })),
      fromLan(A, dead(A.v6, far(1).v6, { ttl: 0 })),
      fromLan(A, dead(A.v4, LAN4, { ttl: 0 })),
    ],
  },
  {
    name: 'a damaged packet at its last hop',
    topology: {},
    normalise: ['ip-id', 'icmp-rate-limit'],
    notes: 'Linux looks at the hop limit before its filter drops INVALID; a router may stay silent (RFC 4443 §2.4 f)',
    frames: [
      fromLan(A, dead(A.v4, far(1).v4, { checksum: 0xdead })),
      fromLan(A, dead(A.v6, far(1).v6, { checksum: 0xdead })),
    ],
  },
  {
    name: 'ICMP errors about a translated packet, from the far host and from a third router',
    topology: {},
    notes: 'trap 5',
    frames: [
      ...udpExchange({ sport: 7000 }),
      errorAbout(1, 3, 3),
      errorAbout(9, 11, 0),
      errorAbout(9, 3, 4, { mtu: 1280 }),
      errorAbout(9, 3, 1, { bytes: 28 }),
    ],
  },
  {
    name: 'ICMPv6 errors about a connection, and about none',
    topology: {},
    frames: [
      ...udpExchange({ sport: 7000, family: 6 }),
      errorAbout(9, 2, 0, { mtu: 1280 }),
      errorAbout(9, 1, 3),
      fromWan(packet(far(9).v6, A.v6, icmpv6({ type: 1 }, packet(A.v6, far(2).v6, udp({ sport: 5, dport: 6 }))))),
    ],
  },
  {
    name: 'port forward: in, answer, and a port beside it',
    topology: { forwards: [{ proto: 'udp', port: 8080, to: `${A.v4}:80` }] },
    frames: [
      probe(WAN4, 8080),
      fromLan(A, packet(A.v4, far(3).v4, udp({ sport: 80, dport: 999 }, 'out'))),
      probe(WAN4, 8081),
    ],
  },
  {
    name: 'DMZ: what nobody else gets, the forward first',
    topology: { dmz: HOSTS[3].v4, forwards: [{ proto: 'udp', port: 8080, to: `${A.v4}:80` }] },
    frames: [probe(WAN4, 8080), probe(WAN4, 8081)],
  },
  {
    name: 'unasked from outside: dropped in both families',
    topology: {},
    frames: [probe(WAN4, 80), probe(A.v6, 80), probe(A.v4, 80)],
  },
  {
    name: 'a rule opens one IPv6 port',
    topology: {
      rules: [
        { from: 'wan', to: 'lan', family: 'ipv6', proto: 'udp', dst: A.v6, port: 443, state: 'new', verdict: 'accept' },
      ],
    },
    frames: [
      probe(A.v6, 443),
      probe(A.v6, 444),
      fromLan(A, packet(A.v6, far(3).v6, udp({ sport: 443, dport: 999 }, 'yes'))),
    ],
  },
  {
    name: 'fragments, the last first, both families',
    topology: {},
    normalise: ['fragment-id'],
    notes: 'trap 6',
    frames: [
      ...fragment4(
        packet(A.v4, far(1).v4, udp({ sport: 1, dport: 2 }, new Uint8Array(3000).fill(7)), { id: 4711 }),
        1500,
      )
        .reverse()
        .map((p) => fromLan(A, p)),
      ...fragment6(packet(A.v6, far(1).v6, udp({ sport: 1, dport: 2 }, new Uint8Array(3000).fill(7))), 1280, 42).map(
        (p) => fromLan(A, p),
      ),
    ],
  },
  {
    name: 'too big for the WAN: fragmented, or an error when it must not be',
    topology: { wanMtu: 1400 },
    normalise: ['ip-id', 'icmp-rate-limit'],
    frames: [
      fromLan(A, packet(A.v4, far(1).v4, udp({ sport: 1, dport: 2 }, new Uint8Array(1450)), { id: 99 })),
      fromLan(A, packet(A.v4, far(1).v4, udp({ sport: 1, dport: 3 }, new Uint8Array(1450)), { id: 98, df: true })),
      fromLan(A, packet(A.v6, far(1).v6, udp({ sport: 1, dport: 4 }, new Uint8Array(1440)))),
    ],
  },
  {
    name: 'FTP active: PORT rewritten, the data connection let in',
    topology: { alg: { ftp: {} } },
    notes: 'trap 1',
    frames: [
      ...ftp({ sport: 42000, dport: 21 }, [
        { way: 'out', text: 'USER a\r\n' },
        { way: 'back', text: '331 ok\r\n' },
        { way: 'out', text: 'PORT 192,168,1,10,4,1\r\n', grows: -1 },
        { way: 'back', text: '200 PORT command successful\r\n' },
      ]),
      fromWan(packet(far(1).v4, WAN4, tcp({ sport: 20, dport: 1025, flags: 'S', seq: 9, win: 1000 }))),
      fromWan(packet(far(2).v4, WAN4, tcp({ sport: 20, dport: 1025, flags: 'S', seq: 9, win: 1000 }))),
    ],
  },
  {
    name: 'FTP passive, EPSV, IPv6',
    topology: { alg: { ftp: {} } },
    frames: [
      ...ftp({ sport: 42000, dport: 21 }, [
        { way: 'out', text: 'USER a\r\n' },
        { way: 'back', text: '331 ok\r\n' },
        { way: 'out', text: 'PASV\r\n' },
        { way: 'back', text: '227 Entering Passive Mode (198,51,100,1,8,1).\r\n' },
      ]),
      fromLan(A, packet(A.v4, far(1).v4, tcp({ sport: 42001, dport: 2049, flags: 'S', seq: 9 }))),
      ...ftp({ sport: 42000, dport: 21, family: 6 }, [
        { way: 'out', text: 'USER a\r\n' },
        { way: 'back', text: '331 ok\r\n' },
        { way: 'out', text: `EPRT |2|${A.v6}|1025|\r\n` },
      ]),
      fromWan(packet(far(1).v6, A.v6, tcp({ sport: 20, dport: 1025, flags: 'S', seq: 9, win: 1000 }))),
    ],
  },
  {
    name: 'TFTP: the answer from another port',
    topology: { alg: { tftp: {} } },
    frames: [
      fromLan(
        A,
        packet(
          A.v4,
          far(1).v4,
          udp({ sport: 3000, dport: 69 }, concat(Uint8Array.of(0, 1), new TextEncoder().encode('file\0octet\0'))),
        ),
      ),
      fromWan(packet(far(1).v4, WAN4, udp({ sport: 5001, dport: 3000 }, 'data'))),
    ],
  },
];

/** An ICMP error from outside about some frame that has left through the WAN port, or about the input itself. */
function errorAboutSome(random: Random): ScenarioFrame {
  const pick = random.next();
  const code = random.int(0, 4);
  const cut = random.pick([28, 48, 68, 576]);
  const unreachable = random.chance(0.7);
  return {
    port: 'wan',
    frame: (past) => {
      const left = past.filter((p) => p.port === 'wan');
      const about = left.length > 0 ? left[pick % left.length].frame : (probe(WAN4, 1).frame as Uint8Array);
      const quote = ipOf(about);
      const six = quote[0] >> 4 === 6;
      const make = six ? icmpv6 : icmp;
      const error = make(
        { type: six ? (unreachable ? 1 : 3) : unreachable ? 3 : 11, code: unreachable ? code : 0 },
        quote.subarray(0, cut),
      );
      const to = six ? ipText(quote.subarray(8, 24)) : WAN4;
      return fromWan(packet(six ? far(9).v6 : far(9).v4, to, error)).frame as Uint8Array;
    },
  };
}

/** A damaged packet at its last hop is a scenario of its own: both routers may answer or not. */
function lastHop(frame: Uint8Array): boolean {
  return frame[12] === 0x86 ? frame[21] <= 1 : frame[22] <= 1;
}

/** One TCP segment of a flow, mostly plausible; `state` holds both sides' next sequence numbers. */
function randomSegment(
  random: Random,
  flow: Flow,
  way: 'out' | 'back',
  state: [number, number],
  n: number,
): ScenarioFrame {
  const [a, b] = state;
  const flags = random.pick(['S', 'SA', 'A', 'A', 'PA', 'PA', 'FA', 'R', 'RA', 'FPU', 'SF']);
  const data = flags.includes('P') ? `data ${n}` : '';
  // Most numbers are right; some are a little off, as after a loss, some far off, as from an attacker.
  const skew = random.chance(0.8) ? 0 : random.chance(0.6) ? random.int(-3000, 3000) : random.next();
  const ackSkew = random.chance(0.85) ? 0 : random.chance(0.6) ? random.int(-70000, 70000) : random.next();
  const [seq, ack] = way === 'out' ? [a, b] : [b, a];
  const options = flags.startsWith('S')
    ? {
        mss: random.pick([536, 1460]),
        wscale: random.chance(0.5) ? random.int(0, 15) : undefined,
        sackPermitted: random.chance(0.5),
      }
    : random.chance(0.2)
      ? { timestamps: [n, n] as const, sack: [[ack + 10, ack + 20] as const] }
      : undefined;
  if (skew === 0) state[way === 'out' ? 0 : 1] = (seq + data.length + (/[SF]/.test(flags) ? 1 : 0)) >>> 0;
  return tcpFrame(flow, {
    way,
    flags,
    seq: (seq + skew) >>> 0,
    ack: flags.includes('A') ? (ack + ackSkew) >>> 0 : 0,
    win: random.pick([0, 1, 500, 65535]),
    data,
    options,
  });
}

/**
 * A random conversation of `length` frames between few hosts and ports, so that connections meet: UDP, TCP with
 * plausible and implausible numbers, echo, ICMP errors, repeated and damaged frames, hop limits that end at the
 * router. The seed gives the same one every time.
 */
export function randomScenario(seed: number, length = 30): Scenario {
  const random = new Random(seed);
  const frames: ScenarioFrame[] = [];
  const sequence = new Map<string, [number, number]>();
  for (let n = 0; n < length; n++) {
    const host = random.pick(HOSTS.slice(0, 2));
    const family = random.chance(0.5) ? 4 : 6;
    // Ports are a host's own: whose port NAT changes is a question for scenarios made for it.
    const sport = (host === A ? 40000 : 50000) + random.int(0, 1);
    const flow: Flow = { host, family, far: random.int(1, 2), sport, dport: random.pick([53, 80]) };
    const way = random.chance(0.6) ? 'out' : 'back';
    const [inside, seen, outside] = family === 4 ? [host.v4, WAN4, far(1).v4] : [host.v6, host.v6, far(1).v6];
    const kind = random.int(0, 99);
    if (kind < 25) frames.push(udpExchange(flow, `q${n}`, `a${n}`)[way === 'out' ? 0 : 1]);
    else if (kind < 75) {
      const key = JSON.stringify(flow);
      const state: [number, number] = sequence.get(key) ?? [random.next(), random.next()];
      sequence.set(key, state);
      frames.push(randomSegment(random, flow, way, state, n));
    } else if (kind < 82)
      frames.push(way === 'out' ? fromLan(host, echo(inside, outside, n)) : fromWan(echo(outside, seen, n)));
    else if (kind < 88) frames.push(errorAboutSome(random));
    else if (kind < 92) frames.push(fromLan(host, dead(inside, outside)));
    else if (frames.length > 0) {
      const again = random.pick(frames);
      if (kind < 97 || typeof again.frame === 'function' || lastHop(again.frame)) frames.push(again);
      else {
        const damaged = again.frame.slice();
        // Addresses stay (neighbours that nobody has named are asked for at their own pace), and so does the hop limit.
        const six = damaged[12] === 0x86;
        const at = random.pick([random.int(14, six ? 20 : 25), random.int(six ? 54 : 34, damaged.length - 1)]);
        damaged[at] ^= 1 << random.int(0, 7);
        frames.push({ port: again.port, frame: damaged });
      }
    }
  }
  return { name: `random, seed ${seed}`, topology: {}, normalise: ['ip-id'], frames };
}
