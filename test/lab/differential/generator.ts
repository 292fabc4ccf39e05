/**
 * The generator: a seed becomes a scenario of a few conversations that meet in one router. Topologies take turns by
 * seed, so that every kernel router stays busy with one ruleset. What comes out is data (scenario.ts): mostly plain
 * frames, and functions where a frame depends on what the router made of another (an ICMP error about it, a port that it
 * announced, numbers that an edit has moved).
 *
 * Free of time: no scenario waits for a timeout, since the kernel's clock cannot be moved.
 */
import {
  concat,
  fragment4,
  fragment6,
  get16,
  get32,
  icmp,
  icmpv6,
  ipText,
  Random,
  type Segment,
  tcp,
  u16,
  udp,
} from '../../lib/build.ts';
import { mend } from '../../property/corpus.ts';
import { fromLan, fromWan, ipOf, packet } from './frames.ts';
import { ALG_PORTS, pptpDialogue, sipDialogue } from './generator-alg.ts';
import { type Ends, tcpConversation } from './generator-tcp.ts';
import {
  far,
  HOSTS,
  type Host,
  LAN4,
  LAN6,
  type Played,
  type Scenario,
  type ScenarioFrame,
  type TopologyOptions,
  WAN4,
  WAN6,
} from './scenario.ts';

const [A, B, C, DMZ_HOST] = HOSTS;

const OPEN6: TopologyOptions['rules'] = [
  { from: 'wan', to: 'lan', family: 'ipv6', proto: 'tcp', dst: A.v6, port: 80, state: 'new', verdict: 'accept' },
  { from: 'wan', to: 'lan', family: 'ipv6', proto: 'udp', dst: A.v6, port: 53, state: 'new', verdict: 'accept' },
];
const FORWARDS: TopologyOptions['forwards'] = [
  { proto: 'tcp', port: 80, to: `${A.v4}:80` },
  { proto: 'tcp', port: 8080, to: `${B.v4}:80` },
  { proto: 'udp', port: 53, to: `${A.v4}:53` },
  { proto: 'tcp', port: 21, to: `${A.v4}:21` },
];

/** What stands between the hosts; a scenario's is TOPOLOGIES[seed % length]. */
export const TOPOLOGIES: readonly { name: string; options: TopologyOptions }[] = [
  { name: 'masquerade', options: {} },
  { name: 'port forwards', options: { forwards: FORWARDS, rules: OPEN6 } },
  { name: 'DMZ', options: { dmz: DMZ_HOST.v4, forwards: FORWARDS, rules: OPEN6 } },
  { name: 'plain firewall', options: { masquerade: false, rules: OPEN6 } },
  { name: 'everything open, no NAT', options: { masquerade: false, wanForward: 'accept' } },
  { name: 'refusing firewall', options: { wanForward: 'reject' } },
  { name: 'liberal', options: { tcpLiberal: true } },
  { name: 'helpers', options: { alg: { ftp: {}, tftp: {} }, forwards: FORWARDS } },
  { name: 'voice and tunnels', options: { alg: { pptp: {}, sip: {} } } },
];

/** Source ports of hosts and servers: nobody who has to choose chooses one of them. */
export const KEPT: ReadonlySet<number> = new Set([
  20,
  21,
  53,
  69,
  80,
  443,
  4500,
  8080,
  33000,
  40000,
  40001,
  40002,
  50000,
  50001,
  50002,
  42000,
  42001,
  43100,
  43101,
  60000,
  60001,
  60002,
  ...ALG_PORTS,
]);

/** The frame that left towards the Internet last and fits. */
function lastOut(past: readonly Played[], fits: (frame: Uint8Array) => boolean): Uint8Array | undefined {
  for (let n = past.length - 1; n >= 0; n--) if (past[n].port === 'wan' && fits(past[n].frame)) return past[n].frame;
  return undefined;
}

function bytes(f: ScenarioFrame): Uint8Array {
  if (typeof f.frame === 'function') throw new Error('generator: expected a frame of bytes, got a function');
  return f.frame;
}

/** A datagram that is shorter than the packet that carries it: known to differ, and what follows depends on it. */
export function hasSurplus(frame: Uint8Array): boolean {
  if (get16(frame, 12) === 0x0800) return frame[23] === 17 && get16(frame, 38) < get16(frame, 16) - 20;
  return get16(frame, 12) === 0x86dd && frame[20] === 17 && get16(frame, 58) < get16(frame, 18);
}

/** A port that SIP is spoken on here. */
export const isSip = (port: number) => port === 5060 || port === 5062 || port === 5080;

class Generator {
  readonly random: Random;
  readonly options: TopologyOptions;
  readonly normalise = new Set<string>(['ip-id', 'chosen-port']);
  private readonly nat: boolean;
  /** Control connections of FTP so far: each has ports of its own (an expectation that is taken is an accepted difference). */
  private sessions = 0;

  constructor(random: Random, options: TopologyOptions) {
    this.random = random;
    this.options = options;
    this.nat = options.masquerade !== false;
  }

  /** Two ends of a conversation: mostly opened from inside, sometimes towards a forward, the DMZ or a rule. */
  private ends(services: readonly number[]): Ends {
    const { random } = this;
    const host = random.pick([A, A, B]);
    const six = random.chance(0.35);
    const peer = far(random.int(1, 2));
    const inside = six ? host.v6 : host.v4;
    const outside = six ? peer.v6 : peer.v4;
    // Ports are a host's own: whose port NAT changes is a question for scenarios made for it.
    const sport = (host === A ? 40000 : 50000) + random.int(0, 2);
    const service = random.pick(services);
    const seen = six || !this.nat ? inside : WAN4;
    if (random.chance(0.7))
      return {
        initiator: (make) => fromLan(host, packet(inside, outside, make(sport, service))),
        responder: (make) => fromWan(packet(outside, seen, make(service, sport))),
      };
    // From outside: what the router makes of it depends on forwards, DMZ and rules; the answer is as if it were let in.
    const far4 = random.pick([service, 8080]);
    const forward = this.options.forwards?.find((f) => f.port === far4);
    const target =
      forward !== undefined
        ? (HOSTS.find((h) => forward.to.startsWith(`${h.v4}:`)) ?? A)
        : this.options.dmz
          ? DMZ_HOST
          : host;
    const toPort = six || forward === undefined ? (six ? service : far4) : Number(forward.to.split(':')[1]);
    const from: Host = six ? host : target;
    const clientPort = 60000 + random.int(0, 2);
    return {
      initiator: (make) => fromWan(packet(outside, seen, make(clientPort, six ? service : far4))),
      responder: (make) => fromLan(from, packet(six ? host.v6 : target.v4, outside, make(toPort, clientPort))),
    };
  }

  private tcp(): ScenarioFrame[] {
    return tcpConversation(this.random, this.ends([80, 80, 443]));
  }

  private udp(): ScenarioFrame[] {
    const { random } = this;
    const ends = this.ends([53, 53, 4500]);
    return Array.from({ length: random.int(1, 5) }, (_, n) => {
      const body = `${n}`.repeat(random.int(0, 20));
      const make = (sport: number, dport: number) =>
        udp({ sport, dport, checksum: random.chance(0.05) ? 0 : undefined }, body);
      return random.chance(0.6) ? ends.initiator(make) : ends.responder(make);
    });
  }

  private echo(): ScenarioFrame[] {
    const { random } = this;
    const id = random.int(1, 3) + (random.chance(0.5) ? 100 : 0);
    const host = id > 100 ? B : A;
    const peer = far(random.int(1, 2));
    if (random.chance(0.35)) {
      const make = (type: number, seq: number) => icmpv6({ type, id, seq }, 'ping');
      const to = random.chance(0.8) ? peer.v6 : random.pick([LAN6, WAN6]);
      return [1, 2].flatMap((seq) => [
        fromLan(host, packet(host.v6, to, make(128, seq))),
        fromWan(packet(peer.v6, random.chance(0.9) ? host.v6 : WAN6, make(random.chance(0.9) ? 129 : 128, seq))),
      ]);
    }
    // Echo, timestamp, information, address mask (RFC 792, RFC 950), and what nobody sends.
    const query = random.pick([8, 8, 8, 8, 13, 15, 17, 10, 40]);
    const answer = query === 8 ? 0 : query + 1;
    const to = query === 8 && random.chance(0.2) ? LAN4 : peer.v4;
    const odd = to !== LAN4 && random.chance(0.05);
    const make = (type: number, seq: number) => icmp({ type, code: odd ? 1 : 0, id, seq }, 'ping');
    const seen = this.nat ? WAN4 : host.v4;
    return [1, 2].flatMap((seq) => [
      fromLan(host, packet(host.v4, to, make(query, seq))),
      fromWan(packet(peer.v4, seen, make(random.chance(0.9) ? answer : query, seq))),
    ]);
  }

  /** Protocols without ports, and those whose ports the kernel knows; there and back. */
  private other(): ScenarioFrame[] {
    const { random } = this;
    const host = random.pick([A, B]);
    const peer = far(random.int(1, 2));
    // Linux refuses no packet whose checksum it takes for wrong, and it takes any protocol to have one.
    const known = [41, 47, 50, 51, 4];
    const proto = random.pick(this.options.wanForward === 'reject' ? known : [...known, 89, 103, 255]);
    const gre = proto === 47;
    const body = gre ? concat(u16(0), u16(0x0800), random.bytes(20)) : random.bytes(random.int(8, 40));
    const segment: Segment = { proto, bytes: body, sumAt: -1 };
    const six = random.chance(0.3) && proto !== 51;
    const inside = six ? host.v6 : host.v4;
    const outside = six ? peer.v6 : peer.v4;
    const seen = six || !this.nat ? inside : WAN4;
    return [
      fromLan(host, packet(inside, outside, segment)),
      fromWan(packet(outside, seen, segment)),
      fromLan(host, packet(inside, outside, segment)),
    ];
  }

  /** Hop limits that end here. */
  private dying(): ScenarioFrame[] {
    const { random } = this;
    const host = random.pick([A, B]);
    const six = random.chance(0.4);
    const src = six ? host.v6 : host.v4;
    const dst = six ? far(1).v6 : far(1).v4;
    const body = random.pick<Segment>([
      udp({ sport: 33000, dport: 33434 }, 'x'.repeat(random.int(0, 700))),
      tcp({ sport: 33000, dport: 80, flags: 'S', seq: 5 }),
      (six ? icmpv6 : icmp)({ type: six ? 128 : 8, id: host === A ? 5 : 6, seq: 1 }, 'traceroute'),
    ]);
    return [fromLan(host, packet(src, dst, body, { ttl: random.int(0, 2), tos: random.pick([0, 0, 0x10, 0xb8]) }))];
  }

  /** An ICMP error about what has left: from the far end or a router on the way, about one alive or about none. */
  private error(least: number): ScenarioFrame {
    const { random } = this;
    const pick = random.next();
    const cut = Math.max(least, random.pick([27, 28, 36, 48, 68, 576, 1400]));
    const fromInside = random.chance(0.3);
    const kind = random.int(0, 99);
    const mtu = random.pick([0, 68, 576, 1280, 1400, 9000]);
    const alien = random.chance(0.15);
    const spoil = random.chance(0.1) ? random.int(0, 60) : -1;
    const wrongSum = random.chance(0.05);
    const code = random.int(0, 15);
    const by = random.int(1, 9);
    const port = fromInside ? 'lan' : 'wan';
    return {
      port,
      frame: (past) => {
        const left = past.filter((p) => p.port === port);
        const about = left.length > 0 ? left[pick % left.length].frame : null;
        const six = about === null ? kind % 2 === 1 : about[12] === 0x86;
        const own = six ? (fromInside ? A.v6 : far(by).v6) : fromInside ? A.v4 : far(by).v4;
        let quote: Uint8Array =
          about === null || alien
            ? packet(six ? A.v6 : WAN4, six ? far(2).v6 : far(2).v4, udp({ sport: 7, dport: 7 }, 'nobody'))
            : ipOf(about);
        const sender = ipText(six ? quote.subarray(8, 24) : quote.subarray(12, 16));
        if (spoil >= 0 && spoil < quote.length) {
          quote = quote.slice();
          quote[spoil] ^= 1 << (spoil & 7);
        }
        quote = quote.subarray(0, cut + (six ? 20 : 0));
        const four =
          kind < 40 ? [3, code] : kind < 60 ? [3, 4] : kind < 85 ? [11, code & 1] : kind < 95 ? [12, 0] : [4, 0];
        const type6 = kind < 40 ? [1, code & 7] : kind < 60 ? [2, 0] : kind < 85 ? [3, code & 1] : [4, code & 3];
        const [type, number] = six ? type6 : four;
        const fields = { type, code: number, mtu, checksum: wrongSum ? 0x1234 : undefined };
        const body = six ? icmpv6(fields, quote) : icmp(fields, quote);
        const ipPacket = packet(own, sender, body);
        return bytes(fromInside ? fromLan(A, ipPacket) : fromWan(ipPacket));
      },
    };
  }

  // --- dialogues -------------------------------------------------------------------------------------------------------

  /** FTP through the helper: the commands and answers of a session, and the data connections that they announce. */
  private ftp(): ScenarioFrame[] {
    const { random } = this;
    const six = random.chance(0.3);
    const serverInside = !six && random.chance(0.3);
    const peer = far(1);
    const session = this.sessions++;
    const sport = 42000 + session;
    const frames: ScenarioFrame[] = [];
    const inside = six ? A.v6 : A.v4;
    const outside = six ? peer.v6 : peer.v4;
    const seen = six ? inside : WAN4;
    const fromOutside = (make: (past: readonly Played[]) => Segment): ScenarioFrame => ({
      port: 'wan',
      frame: (past) => bytes(fromWan(packet(outside, seen, make(past)))),
    });
    // Numbers: who is inside (`a`) counts what it wrote, the far end acknowledges what it was told.
    let a = random.next();
    let b = random.next();
    const [insidePort, outsidePort] = serverInside ? [21, sport] : [sport, 21];
    const told = (past: readonly Played[]) => {
      const own = past.filter((p) => p.port === 'wan' && p.frame[six ? 20 : 23] === 6);
      let highest = a;
      let found = false;
      for (const { frame } of own) {
        const l4 = six ? 54 : 34;
        if (get16(frame, l4) !== insidePort || get16(frame, l4 + 2) !== outsidePort) continue;
        const data = (six ? 54 + get16(frame, 18) : 14 + get16(frame, 16)) - l4 - ((frame[l4 + 12] >> 4) << 2);
        const end = (get32(frame, l4 + 4) + Math.max(0, data) + (frame[l4 + 13] & 2 ? 1 : 0)) >>> 0;
        if (!found || ((end - highest) | 0) > 0) highest = end;
        found = true;
      }
      return highest >>> 0;
    };
    const say = (flags: string, text = '') => {
      const seq = a;
      const ack = b;
      a = (a + text.length + (/[SF]/.test(flags) ? 1 : 0)) >>> 0;
      const segment = tcp(
        { sport: insidePort, dport: outsidePort, flags, seq, ack: flags === 'S' ? 0 : ack, win: 5000 },
        text,
      );
      frames.push(fromLan(A, packet(inside, outside, segment)));
    };
    const hear = (flags: string, text = '') => {
      const seq = b;
      b = (b + text.length + (/[SF]/.test(flags) ? 1 : 0)) >>> 0;
      frames.push(
        fromOutside((past) =>
          tcp(
            { sport: outsidePort, dport: insidePort, flags, seq, ack: flags === 'S' ? 0 : told(past), win: 5000 },
            text,
          ),
        ),
      );
    };
    const client = serverInside ? hear : say;
    const server = serverInside ? say : hear;
    client('S');
    server('SA');
    client('A');
    server('PA', '220 ready\r\n');
    client('PA', 'USER anonymous\r\n');
    server('PA', '331 password?\r\n');
    for (let n = random.int(1, 3); n > 0; n--) {
      const port = random.pick([1025, 2049, 50010, 2060]) + session;
      const comma = `${port >> 8},${port & 255}`;
      const clientAddress = serverInside ? outside : inside;
      const serverAddress = serverInside ? inside : outside;
      if (random.chance(0.5)) {
        const address = random.chance(0.9) ? clientAddress : far(2).v4;
        const command =
          six || random.chance(0.3)
            ? `EPRT |${six ? 2 : 1}|${clientAddress}|${port}|\r\n`
            : `PORT ${address.replaceAll('.', ',')},${comma}\r\n`;
        // In one piece: Linux drops a segment that ends within a command (docs/differences-from-linux.md).
        client('PA', command);
        server('PA', '200 fine\r\n');
        frames.push(this.ftpData(serverInside, six, port, 20));
      } else {
        const extended = six || random.chance(0.4);
        client('PA', extended ? 'EPSV\r\n' : 'PASV\r\n');
        const numbers = `${serverAddress.replaceAll('.', ',')},${comma}`;
        server(
          'PA',
          extended
            ? `229 Extended (|||${port}|)\r\n`
            : random.chance(0.8)
              ? `227 Entering Passive Mode (${numbers}).\r\n`
              : `227 Entering Passive Mode ${numbers}\r\n`,
        );
        frames.push(this.ftpData(!serverInside, six, port, 43000 + n));
      }
      if (random.chance(0.3)) client('A');
      if (random.chance(0.3)) server('A');
    }
    if (random.chance(0.5)) {
      client('PA', 'QUIT\r\n');
      server('FPA', '221 bye\r\n');
      client('FA');
      server('A');
    }
    return frames;
  }

  /** The SYN of a data connection, from inside to `port`, or from outside to the port that was announced last. */
  private ftpData(fromInside: boolean, six: boolean, port: number, sport: number): ScenarioFrame {
    const { random } = this;
    const stranger = random.chance(0.15);
    const peer = far(stranger ? 2 : 1);
    const seq = random.next();
    const segment = (to: number) => tcp({ sport, dport: to, flags: 'S', seq, win: 5000 });
    if (fromInside) return fromLan(A, packet(six ? A.v6 : A.v4, six ? peer.v6 : peer.v4, segment(port)));
    return {
      port: 'wan',
      frame: (past) => {
        const control = lastOut(past, (f) => /(PORT|EPRT|227|229) /.test(new TextDecoder('latin1').decode(f)));
        let announced = port;
        if (control !== undefined) {
          const text = new TextDecoder('latin1').decode(control);
          const long = /(\d+),(\d+)\D*$/.exec(text);
          const short = /\|(\d+)\|/.exec(text.slice(text.search(/\|\|\||\|[\d:a-f.]+\|\d+\|/)));
          const bars = /\|(\d+)\|\D*$/.exec(text);
          announced = long ? Number(long[1]) * 256 + Number(long[2]) : Number((bars ?? short)?.[1] ?? port);
        }
        return bytes(fromWan(packet(six ? peer.v6 : peer.v4, six ? A.v6 : WAN4, segment(announced & 0xffff))));
      },
    };
  }

  private tftp(): ScenarioFrame[] {
    const { random } = this;
    const sport = 43100 + random.int(0, 1);
    const six = random.chance(0.3);
    const peer = far(1);
    const [inside, outside, seen] = six ? [A.v6, peer.v6, A.v6] : [A.v4, peer.v4, WAN4];
    const opcode = random.pick([1, 1, 2, 3, 9]);
    const request = concat(Uint8Array.of(0, opcode), new TextEncoder().encode('file\0octet\0'));
    const tid = random.int(5000, 5003);
    const answer = udp({ sport: tid, dport: sport }, concat(Uint8Array.of(0, 3, 0, 1), new Uint8Array(20)));
    const stranger = random.chance(0.2) ? (six ? far(2).v6 : far(2).v4) : outside;
    return [
      fromLan(A, packet(inside, outside, udp({ sport, dport: 69 }, request))),
      fromWan(packet(stranger, seen, answer)),
      fromLan(A, packet(inside, outside, udp({ sport, dport: tid }, Uint8Array.of(0, 4, 0, 1)))),
      fromWan(packet(outside, seen, answer)),
    ];
  }

  /** Datagrams cut on the way to the router, in any order, some parts twice or missing. */
  private fragmented(): ScenarioFrame[] {
    const { random } = this;
    this.normalise.add('fragment-id');
    const host = random.pick([A, B]);
    const six = random.chance(0.5);
    const peer = far(random.int(1, 2));
    const out = random.chance(0.6);
    const inside = six ? host.v6 : host.v4;
    const seen = six || !this.nat ? inside : WAN4;
    const [src, dst] = out ? [inside, six ? peer.v6 : peer.v4] : [six ? peer.v6 : peer.v4, seen];
    const port = (host === A ? 40000 : 50000) + random.int(0, 2);
    const ports = out ? { sport: port, dport: 53 } : { sport: 53, dport: port };
    const body = udp(ports, random.bytes(random.int(100, 3000)));
    const whole = packet(src, dst, body, { id: random.int(1, 65535) });
    const mtu = random.pick([576, 1280, 1500]);
    const parts = six ? fragment6(whole, Math.max(1280, mtu), random.next()) : fragment4(whole, mtu);
    if (random.chance(0.3)) parts.reverse();
    if (random.chance(0.1)) parts.push(random.pick(parts));
    if (random.chance(0.1)) parts.splice(random.int(0, parts.length - 1), 1);
    return parts.map((p) => (out ? fromLan(host, p) : fromWan(p)));
  }

  // --- together ----------------------------------------------------------------------------------------------------------

  private conversation(): ScenarioFrame[] {
    const kind = this.random.int(0, 99);
    const { alg } = this.options;
    if (alg?.['ftp']) {
      if (kind < 45) return this.ftp();
      if (kind < 60) return this.tftp();
    }
    if (alg?.['pptp'] && kind < 70) {
      // The second of one kind is another host's, with ports of its own.
      const count = this.sessions++;
      const [dialogue, host] = [kind < 30 ? pptpDialogue : sipDialogue, count === 0 ? A : B];
      return count < 2 ? dialogue(this.random, host, count === 1) : this.udp();
    }
    if (kind < 57) return this.tcp();
    if (kind < 72) return this.udp();
    if (kind < 81) return this.echo();
    if (kind < 86) return this.other();
    if (kind < 94) return this.fragmented();
    return this.dying();
  }

  frames(): ScenarioFrame[] {
    const { random } = this;
    const queues = Array.from({ length: random.pick([1, 1, 1, 2, 2, 3]) }, () => this.conversation());
    const out: ScenarioFrame[] = [];
    while (queues.some((q) => q.length > 0)) {
      const queue = random.pick(queues.filter((q) => q.length > 0));
      for (let n = random.int(1, 4); n > 0 && queue.length > 0; n--) out.push(queue.shift() as ScenarioFrame);
      if (random.chance(0.08)) out.push(this.error(28));
    }
    this.disturb(out);
    // Whether a quote that is too short passes is known to differ: nothing may come behind it.
    if (random.chance(0.05)) out.push(this.error(0));
    return out;
  }

  /** What a network does on the way: loses, repeats, reorders, damages. */
  private disturb(frames: ScenarioFrame[]): void {
    const { random } = this;
    for (let n = 0; n < frames.length; n++) {
      const fate = random.int(0, 199);
      if (fate < 3) frames.splice(n, 1);
      else if (fate < 7) frames.splice(n, 0, frames[n]);
      else if (fate < 12 && n > 0) [frames[n - 1], frames[n]] = [frames[n], frames[n - 1]];
      else if (fate < 15 && typeof frames[n].frame !== 'function')
        frames[n] = { port: frames[n].port, frame: this.damage(bytes(frames[n])) };
    }
  }

  /** One bit other than it was; mostly with checksums that fit, so that it is the meaning that is wrong. */
  private damage(frame: Uint8Array): Uint8Array {
    const { random } = this;
    const out = frame.slice();
    const six = out[12] === 0x86;
    // Addresses stay (neighbours that nobody has named are asked for at their own pace), and so does the hop limit: an
    // error about a damaged packet is each router's own choice.
    const header = six ? random.pick([14, 15, 16, 17, 18, 19, 20]) : random.pick([14, 15, 16, 17, 18, 19, 23]);
    const l4 = six ? 54 : 34;
    if (out.length <= l4) return out;
    // A second copy that differs from the first is no duplicate for Sluice (docs/differences-from-linux.md).
    if (six ? out[20] === 44 : (get16(out, 20) & 0x3fff) !== 0) return out;
    // The words of FTP and SIP stay, and who says them: what Linux does not understand there it drops (docs/differences-from-linux.md).
    const ports = [get16(out, l4), get16(out, l4 + 2)];
    const proto = out[six ? 20 : 23];
    const sip = proto === 17 && ports.some(isSip);
    const words = proto === 6 ? (ports.includes(21) ? 20 : 60) : sip ? 8 : 60;
    const at = random.chance(0.2) ? header : random.int(sip ? l4 + 4 : l4, Math.min(out.length, l4 + words) - 1);
    if (at === (six ? 21 : 22)) return out;
    out[at] ^= 1 << random.int(0, 7);
    if (random.chance(0.7)) mend(out);
    const hops = six ? out[21] : out[22];
    return hops <= 1 || hasSurplus(out) ? frame : out;
  }
}

/** Two hosts that want one port: NAT must choose, and what it chose is used alike from then on. */
function contested(random: Random): ScenarioFrame[] {
  const sport = 4500;
  const peer = far(1);
  const frames: ScenarioFrame[] = [];
  for (const host of random.chance(0.5) ? [A, B, C] : [B, A]) {
    const tag = `from ${host.v4}`;
    frames.push(fromLan(host, packet(host.v4, peer.v4, udp({ sport, dport: 53 }, tag))));
    frames.push({
      port: 'wan',
      frame: (past) => {
        const sent = lastOut(past, (f) => new TextDecoder('latin1').decode(f).includes(tag));
        const port = sent === undefined ? sport : get16(sent, 34);
        return bytes(fromWan(packet(peer.v4, WAN4, udp({ sport: 53, dport: port }, 'answer'))));
      },
    });
    if (random.chance(0.5)) frames.push(fromLan(host, packet(host.v4, peer.v4, udp({ sport, dport: 53 }, 'more'))));
  }
  return frames;
}

/** The scenario of a seed: the same one every time. */
export function generate(seed: number): Scenario {
  const random = new Random(Math.imul(seed, 0x9e3779b1) ^ 0x51ed270b);
  const topology = TOPOLOGIES[((seed % TOPOLOGIES.length) + TOPOLOGIES.length) % TOPOLOGIES.length];
  const name = `seed ${seed}, ${topology.name}`;
  if (topology.options.masquerade !== false && random.chance(0.03))
    return {
      name,
      topology: topology.options,

      normalise: ['ip-id', 'chosen-port'],
      frames: contested(random),
    };
  const generator = new Generator(random, topology.options);
  const frames = generator.frames();
  return { name, topology: topology.options, normalise: [...generator.normalise], frames };
}
