/**
 * Flows of the engine's property test: ends that talk with real sequence numbers through a World, and learn from what
 * leaves how they look on the other side. Nothing here knows how the router works.
 */
import type { FrameMeta } from '../../dataplane/ports/memory.ts';
import {
  get16,
  get32,
  ip,
  ipv4,
  ipv6,
  pseudoHeader,
  put16,
  type Random,
  type Segment,
  tcp,
  toBytes,
  u32,
  udp,
} from '../lib/build.ts';
import { GATE_MAC, type Left, macOf, type PortName, to, type World } from './world.ts';

export interface Frame {
  port: PortName;
  frame: Uint8Array;
  meta?: Partial<FrameMeta>;
}

/** One end of a flow: where it is attached, and how the other end must address it. */
export interface End {
  port: PortName;
  address: string;
  mac: string;
}

export interface Header {
  ttl: number;
  tos: number;
  id: number;
}

/** A flow between an end that opens it and one that answers; `seen` is the opener's address on the answerer's side. */
export abstract class Flow {
  readonly random: Random;
  readonly a: End;
  readonly b: End;
  readonly v6: boolean;
  seen: Uint8Array;
  /** The address that the opener sends to; the answerer's own, unless a DMZ rule stands between. */
  target: Uint8Array;
  over = false;
  lastUse = 0;
  /** The next frame gets a fault that makes it an exception for any engine. */
  protected spoil = false;
  protected id = 1;

  constructor(random: Random, a: End, b: End, target: string = b.address) {
    this.random = random;
    this.a = a;
    this.b = b;
    this.v6 = a.address.includes(':');
    this.seen = ip(a.address);
    this.target = ip(target);
  }

  protected frame(fromA: boolean, segment: Segment | { proto: number; bytes: Uint8Array; sumAt: number }): Frame {
    const { random } = this;
    const from = fromA ? this.a : this.b;
    const src = fromA ? ip(this.a.address) : ip(this.b.address);
    const dst = fromA ? this.target : this.seen;
    const odd = this.spoil ? random.int(0, 4) : random.int(5, 199);
    const ttl = odd === 0 ? 1 : odd === 1 ? 2 : 64;
    const tos = odd < 20 ? random.pick([0xb8, 0x88, 0x20, 0x68]) : 0;
    const packet = this.v6
      ? ipv6({ src, dst, hop: ttl, tclass: tos }, segment)
      : ipv4(
          { src, dst, ttl, tos, id: this.id++ & 0xffff, options: odd === 2 ? Uint8Array.of(1, 1, 1, 0) : undefined },
          segment,
        );
    if (odd === 3) packet[this.v6 ? 45 : 25] ^= 0x40; // somewhere in the transport header: the checksum is wrong now
    const frame = to(from.port, packet, from.mac);
    if (odd === 4) frame[5] ^= 1; // somebody else's MAC
    // Short frames arrive padded.
    if (frame.length < 60 && odd < 100) {
      const padded = new Uint8Array(60);
      padded.set(frame);
      return { port: from.port, frame: padded };
    }
    return { port: from.port, frame };
  }

  /** What one step sends, one burst. */
  abstract step(): Frame[];

  /** Reads from what left on the answerer's side how the opener looks there. */
  abstract learn(left: readonly Left[]): void;
}

/** IP packet of a frame without a VLAN tag. */
function packetOf({ frame }: Left): Uint8Array {
  return frame.frame.subarray(14);
}

/** Source address of the packets of a protocol that left by a port, the last one. */
function lastOf(left: readonly Left[], port: PortName, v6: boolean, proto: number): Uint8Array | null {
  for (let n = left.length - 1; n >= 0; n--) {
    if (left[n].port !== port) continue;
    const p = packetOf(left[n]);
    if (p[0] >> 4 === (v6 ? 6 : 4) && p[v6 ? 6 : 9] === proto) return p;
  }
  return null;
}

const sourceOf = (p: Uint8Array): Uint8Array => (p[0] >> 4 === 6 ? p.slice(8, 24) : p.slice(12, 16));
const l4Of = (p: Uint8Array): number => (p[0] >> 4 === 6 ? 40 : (p[0] & 15) * 4);

/** TCP with windows, acknowledgements, retransmissions, super-frames, FIN and RST. */
export class TcpFlow extends Flow {
  private readonly sport: number;
  private readonly dport: number;
  private seenPort: number;
  private readonly next = [0, 0];
  private readonly got = [0, 0];
  private phase = 0;
  private turn = 0;

  constructor(random: Random, a: End, b: End, sport: number) {
    super(random, a, b);
    this.sport = sport;
    this.seenPort = sport;
    this.dport = random.pick([80, 443, 22, 8080, 5001]);
    this.next[0] = random.next();
    this.next[1] = random.next();
  }

  private segment(
    side: number,
    flags: string,
    payload: Uint8Array | string,
    seq = this.next[side],
    options = {},
  ): Segment {
    const fromA = side === 0;
    return tcp(
      {
        sport: fromA ? this.sport : this.dport,
        dport: fromA ? this.dport : this.seenPort,
        seq: seq >>> 0,
        ack: flags.includes('A') ? this.got[side] >>> 0 : 0,
        flags,
        win: 60000,
        options,
      },
      payload,
    );
  }

  private send(side: number, flags: string, payload: Uint8Array | string = '', options = {}): Frame {
    const built = this.frame(side === 0, this.segment(side, flags, payload, this.next[side], options));
    this.next[side] = (this.next[side] + toBytes(payload).length + (/[SF]/.test(flags) ? 1 : 0)) | 0;
    return built;
  }

  /** The same segment, spoilt: nobody will get it. */
  private spoilt(side: number, payload: Uint8Array | string): Frame {
    this.spoil = true;
    const built = this.frame(side === 0, this.segment(side, 'PA', payload));
    this.spoil = false;
    return built;
  }

  step(): Frame[] {
    const { random } = this;
    switch (this.phase) {
      case 0:
        this.phase = 1;
        return [this.send(0, 'S', '', { mss: 1400, sackPermitted: true })];
      case 1:
        this.phase = 2;
        return [this.send(1, 'SA', '', { mss: 1400, sackPermitted: true })];
      case 2:
        this.phase = 3;
        return [this.send(0, 'A')];
      case 4:
        this.phase = 5;
        return [this.send(this.turn, 'FA')];
      case 5:
        this.over = true;
        return [this.send(this.turn ^ 1, 'A')];
    }
    // The ends take turns, so that what one has received is acknowledged before it gets more.
    const side = this.turn;
    this.turn ^= 1;
    const choice = random.int(0, 99);
    if (choice < 2) {
      this.phase = 4;
      return [this.send(side, 'FA')];
    }
    if (choice === 2) {
      this.over = true;
      return [this.send(side, 'RA')];
    }
    if (choice < 10) return [this.superFrame(side)];
    const frames: Frame[] = [];
    const count = random.int(0, 6);
    for (let n = 0; n < count; n++) {
      const before = this.next[side];
      const payload =
        choice < 14
          ? `HTTP/1.1 200 OK\r\nContent-Type: ${random.pick(['video/mp4', 'text/html'])}\r\n\r\n`
          : random.bytes(random.int(0, random.chance(0.1) ? 1200 : 90));
      if (random.chance(0.03)) frames.push(this.spoilt(side, payload));
      frames.push(this.send(side, random.pick(['A', 'PA']), payload));
      // A retransmission of the same bytes.
      if (random.chance(0.05)) frames.push(this.frame(side === 0, this.segment(side, 'PA', payload, before)));
    }
    if (count === 0) frames.push(this.send(side, 'A'));
    return frames;
  }

  /** A super-frame as a local TAP gives it: partial checksum, GSO metadata. */
  private superFrame(side: number): Frame {
    const payload = this.random.bytes(this.random.int(2000, 8000));
    const from = side === 0 ? this.a : this.b;
    const src = side === 0 ? ip(this.a.address) : ip(this.b.address);
    const dst = side === 0 ? this.target : this.seen;
    const segment = this.segment(side, 'PA', payload);
    this.next[side] = (this.next[side] + payload.length) | 0;
    // The checksum field holds the pseudo-header's sum, not complemented.
    let sum = 0;
    const pseudo = pseudoHeader(src, dst, 6, segment.bytes.length);
    for (let n = 0; n < pseudo.length; n += 2) sum += get16(pseudo, n);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    put16(segment.bytes, 16, sum);
    const raw: Segment = { ...segment, sumAt: -1 };
    const packet = this.v6 ? ipv6({ src, dst }, raw) : ipv4({ src, dst, id: this.id++ & 0xffff }, raw);
    const l4 = 14 + (this.v6 ? 40 : 20);
    return {
      port: from.port,
      frame: to(from.port, packet, from.mac),
      meta: { flags: 1, gso: (this.v6 ? 4 : 1) | (1300 << 16), csum: l4 | (16 << 16), hdrlen: l4 + 20 },
    };
  }

  learn(left: readonly Left[]): void {
    if (this.phase === 1) {
      const p = lastOf(left, this.b.port, this.v6, 6);
      if (p === null) this.over = true;
      else {
        this.seen = sourceOf(p);
        this.seenPort = get16(p, l4Of(p));
      }
    }
    for (const one of left) {
      const p = packetOf(one);
      if (p[0] >> 4 !== (this.v6 ? 6 : 4) || p[this.v6 ? 6 : 9] !== 6) continue;
      const l4 = l4Of(p);
      const fromA = get16(p, l4 + 2) === this.dport && get16(p, l4) === this.seenPort;
      if (!fromA && (get16(p, l4) !== this.dport || get16(p, l4 + 2) !== this.sport)) continue;
      const end = this.v6 ? 40 + get16(p, 4) : get16(p, 2);
      const flags = p[l4 + 13];
      const length = end - l4 - (p[l4 + 12] >> 4) * 4 + (flags & 1) + ((flags >> 1) & 1);
      const receiver = fromA ? 1 : 0;
      const seq = get32(p, l4 + 4) | 0;
      if ((flags & 2) !== 0 || seq === this.got[receiver]) this.got[receiver] = (seq + length) | 0;
    }
    if (this.phase < 3) {
      // A handshake that lost a segment is given up.
      if (this.phase > 0 && this.got[this.phase === 1 ? 1 : 0] !== this.next[this.phase === 1 ? 0 : 1])
        this.over = true;
      return;
    }
    // What did not arrive is sent again.
    this.next[0] = this.got[1];
    this.next[1] = this.got[0];
  }
}

/** UDP, sometimes without a checksum, sometimes with bytes behind the datagram. */
export class UdpFlow extends Flow {
  private readonly sport: number;
  private seenPort: number;
  private sent = 0;

  constructor(random: Random, a: End, b: End, sport: number) {
    super(random, a, b);
    this.sport = sport;
    this.seenPort = sport;
  }

  step(): Frame[] {
    const { random } = this;
    const first = this.sent++ === 0;
    const frames: Frame[] = [];
    for (let n = first ? 1 : random.int(1, 8); n > 0; n--) {
      const fromA = first || random.chance(0.5);
      const ports = fromA ? { sport: this.sport, dport: 4000 } : { sport: 4000, dport: this.seenPort };
      const payload = random.bytes(random.int(0, 120));
      const none = !this.v6 && random.chance(0.1) ? { checksum: 0 } : {};
      this.spoil = random.chance(0.03);
      frames.push(this.frame(fromA, udp({ ...ports, ...none }, payload)));
      this.spoil = false;
    }
    if (random.chance(0.01)) this.over = true;
    return frames;
  }

  learn(left: readonly Left[]): void {
    if (this.sent !== 1) return;
    const p = lastOf(left, this.b.port, this.v6, 17);
    if (p === null) {
      this.over = true;
      return;
    }
    this.seen = sourceOf(p);
    this.seenPort = get16(p, l4Of(p));
  }
}

/** A protocol without ports: 6in4 with any inner packet, or ESP with an SPI for each direction that rekeying changes. */
export class PlainFlow extends Flow {
  private readonly proto: number;
  private readonly spi = [0, 0];
  private sent = 0;

  constructor(random: Random, a: End, b: End, proto: number, target?: string) {
    super(random, a, b, target);
    this.proto = proto;
    this.rekey();
  }

  private rekey(): void {
    this.spi[0] = this.random.next();
    this.spi[1] = this.random.next();
  }

  step(): Frame[] {
    const { random } = this;
    const first = this.sent++ === 0;
    if (random.chance(0.02)) this.rekey();
    const frames: Frame[] = [];
    for (let n = first ? 1 : random.int(1, 5); n > 0; n--) {
      const fromA = first || random.chance(0.5);
      const inner =
        this.proto === 50
          ? Uint8Array.from([...u32(this.spi[fromA ? 0 : 1]), ...random.bytes(random.int(8, 100))])
          : ipv6(
              { src: '2001:db8:41::a', dst: '2001:db8:41::b' },
              tcp({ sport: 1, dport: 2, seq: random.next() }, 'x'),
            );
      frames.push(this.frame(fromA, { proto: this.proto, bytes: inner, sumAt: -1 }));
    }
    if (random.chance(0.005)) this.over = true;
    return frames;
  }

  learn(left: readonly Left[]): void {
    if (this.sent !== 1) return;
    const p = lastOf(left, this.b.port, this.v6, this.proto);
    if (p === null) {
      this.over = true;
      return;
    }
    // Who is asked through a DMZ rule answers to the address that asked; who asks through NAT is seen as the router.
    this.seen = sourceOf(p);
  }
}

/** The ends that there are. */
export function end(port: PortName, address: string): End {
  return { port, address, mac: port === 'wan' || port === 'alt' ? GATE_MAC : macOf(address) };
}

/** Plays one step of a flow. */
export function play(world: World, flow: Flow): void {
  flow.learn(world.send(flow.step()));
}
