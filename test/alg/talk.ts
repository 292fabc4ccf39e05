/**
 * Talk: one TCP connection through a home router, both ends played honestly. Each end knows only what it sent and what
 * reached it; whatever arrives must continue its stream, and acknowledge exactly what it sent. So every error of the
 * router's sequence adjustment shows, in either direction, at the first segment that has it.
 *
 * Also here: single datagrams and GRE packets, as the far end or the LAN host would send them.
 */
import { expect } from 'vitest';
import {
  checksum,
  get16,
  get32,
  ip,
  ipText,
  ipv4,
  ipv6,
  type Payload,
  pseudoHeader,
  put16,
  tcp,
  toBytes,
  udp,
} from '../lib/build.ts';
import { HOST_MAC, HOST2, HOST2_MAC, type Home, type Seen } from '../lib/home.ts';

export type Side = 'a' | 'b';
export type Where = 'lan' | 'wan';

export interface End {
  on: Where;
  address: string;
  port: number;
  /** The other end as this one knows it. */
  peer: { address: string; port: number };
  /** Next sequence number to send; next that is expected. */
  seq: number;
  expected: number;
}

export interface SegmentOptions {
  flags?: string;
  data?: Payload;
  seq?: number;
  ack?: number;
  options?: Parameters<typeof tcp>[0]['options'];
}

const latin1 = (bytes: Uint8Array) => String.fromCharCode(...bytes);
export const payloadOf = (seen: Seen) => seen.l4.subarray(seen.proto === 6 ? (seen.l4[12] >> 4) * 4 : 8);
export const textOf = (seen: Seen) => latin1(payloadOf(seen));

/** A packet of either family. */
export function packet(src: string, dst: string, body: Parameters<typeof ipv4>[1]): Uint8Array {
  return src.includes(':') ? ipv6({ src, dst }, body) : ipv4({ src, dst }, body);
}

/** Puts an IP packet on a port, from the MAC of its source. */
export function put(home: Home, on: Where, bytes: Uint8Array): void {
  if (on === 'wan') home.wan(bytes);
  else home.lan(bytes, ipText(bytes.subarray(12, 16)) === HOST2 && bytes[0] >> 4 === 4 ? HOST2_MAC : HOST_MAC);
}

/** What left the other port for one packet. */
export function through(home: Home, on: Where, bytes: Uint8Array): Seen[] {
  put(home, on, bytes);
  return home.left(on === 'lan' ? 'wan' : 'lan');
}

/** One datagram; what left the other port for it. */
export function datagram(
  home: Home,
  on: Where,
  [src, sport]: readonly [string, number],
  [dst, dport]: readonly [string, number],
  data: Payload = 'x',
): Seen[] {
  return through(home, on, packet(src, dst, udp({ sport, dport }, data)));
}

/** Whether a datagram reaches `at` there. */
export function reaches(
  home: Home,
  on: Where,
  from: readonly [string, number],
  to: readonly [string, number],
  at: readonly [string, number] = to,
): boolean {
  const seen = datagram(home, on, from, to);
  if (seen.length === 0) return false;
  expect([seen[0].dst, seen[0].dport]).toEqual([...at]);
  return true;
}

export class Talk {
  readonly home: Home;
  readonly a: End;
  readonly b: End;

  /**
   * @param a who opens the connection   @param b who is reached by it   @param toward where `a` sends, default b itself
   */
  constructor(
    home: Home,
    a: readonly [Where, string, number],
    b: readonly [Where, string, number],
    toward: readonly [string, number] = [b[1], b[2]],
  ) {
    this.home = home;
    this.a = {
      on: a[0],
      address: a[1],
      port: a[2],
      peer: { address: toward[0], port: toward[1] },
      seq: 0x7ffffff0, // both streams wrap soon
      expected: 0,
    };
    this.b = { on: b[0], address: b[1], port: b[2], peer: { address: '', port: 0 }, seq: -40, expected: 0 };
  }

  private end(side: Side): End {
    return side === 'a' ? this.a : this.b;
  }

  private other(side: Side): End {
    return side === 'a' ? this.b : this.a;
  }

  bytes(side: Side, o: SegmentOptions): Uint8Array {
    const e = this.end(side);
    const flags = o.flags ?? (o.data === undefined ? 'A' : 'PA');
    return packet(
      e.address,
      e.peer.address,
      tcp(
        {
          sport: e.port,
          dport: e.peer.port,
          flags,
          seq: (o.seq ?? e.seq) >>> 0,
          ack: flags.includes('A') ? (o.ack ?? e.expected) >>> 0 : 0,
          options: o.options,
        },
        o.data,
      ),
    );
  }

  /** Sends a segment as it is said; nothing is checked or remembered. */
  raw(side: Side, o: SegmentOptions): Seen[] {
    return through(this.home, this.end(side).on, this.bytes(side, o));
  }

  /** SYN, SYN/ACK, ACK; false when the SYN does not reach `b`. */
  tryOpen(): boolean {
    const { a, b } = this;
    const syn = this.raw('a', { flags: 'S', options: { mss: 1460, sackPermitted: true, wscale: 7 } });
    if (syn.length !== 1) return false;
    if (syn[0].dst !== b.address || syn[0].dport !== b.port) {
      expect([syn[0].dst, syn[0].dport], 'where the SYN went').toEqual([b.address, b.port]);
    }
    b.peer = { address: syn[0].src, port: syn[0].sport };
    b.expected = (get32(syn[0].l4, 4) + 1) | 0;
    a.seq = (a.seq + 1) | 0;
    const answer = this.raw('b', { flags: 'SA', options: { mss: 1460, sackPermitted: true, wscale: 7 } });
    expect(answer).toHaveLength(1);
    expect([answer[0].src, answer[0].sport]).toEqual([a.peer.address, a.peer.port]);
    expect([answer[0].dst, answer[0].dport]).toEqual([a.address, a.port]);
    b.seq = (b.seq + 1) | 0;
    a.expected = (get32(answer[0].l4, 4) + 1) | 0;
    expect(this.raw('a', {})).toHaveLength(1);
    return true;
  }

  open(): this {
    expect(this.tryOpen(), 'the connection opens').toBe(true);
    return this;
  }

  /** What arrived must continue the stream and acknowledge all that its receiver has sent. */
  private arrives(side: Side, seen: Seen): string {
    const to = this.other(side);
    expect([seen.dst, seen.dport], 'receiver').toEqual([to.address, to.port]);
    expect([seen.src, seen.sport], 'sender').toEqual([to.peer.address, to.peer.port]);
    expect(get32(seen.l4, 4) | 0, 'sequence number').toBe(to.expected);
    expect(get32(seen.l4, 8) | 0, 'acknowledgement').toBe(to.seq);
    const data = payloadOf(seen);
    to.expected = (to.expected + data.length) | 0;
    return latin1(data);
  }

  /** Says something; returns what arrived. */
  say(side: Side, data: Payload): string {
    const seen = this.raw(side, { data });
    const e = this.end(side);
    e.seq = (e.seq + toBytes(data).length) | 0;
    expect(seen, `one segment arrives for ${JSON.stringify(data)}`).toHaveLength(1);
    return this.arrives(side, seen[0]);
  }

  /** The same as a super-frame of segments of `size` bytes; what arrived, by frames. */
  sayLarge(side: Side, data: Payload, size: number): string[] {
    const e = this.end(side);
    const bytes = this.bytes(side, { data });
    const six = bytes[0] >> 4 === 6;
    const l4 = 14 + (six ? 40 : 20);
    // What a host with offloads leaves in the field: the folded sum of the pseudo-header alone.
    const pseudo = pseudoHeader(ip(e.address), ip(e.peer.address), 6, bytes.length - l4 + 14);
    put16(bytes, l4 - 14 + 16, ~checksum(pseudo) & 0xffff);
    this.home.offloaded(e.on, bytes, {
      flags: 1,
      gso: (six ? 4 : 1) | (size << 16),
      csum: l4 | (16 << 16),
      hdrlen: l4 + 20,
    });
    e.seq = (e.seq + toBytes(data).length) | 0;
    return this.home.router
      .port(this.other(side).on)
      .takeWithMeta()
      .map((f) => {
        const l3 = f.frame.subarray(14);
        const l = l3.subarray(six ? 40 : 20);
        return this.arrives(side, {
          frame: f.frame,
          packet: l3,
          dstMac: '',
          src: ipText(six ? l3.subarray(8, 24) : l3.subarray(12, 16)),
          dst: ipText(six ? l3.subarray(24, 40) : l3.subarray(16, 20)),
          ttl: 0,
          proto: 6,
          l4: l,
          sport: get16(l, 0),
          dport: get16(l, 2),
        });
      });
  }

  /** A bare acknowledgement. */
  ack(side: Side): void {
    const seen = this.raw(side, {});
    expect(seen).toHaveLength(1);
    this.arrives(side, seen[0]);
  }

  /** Says the same once more from `seq`; what arrived: sequence number and text. The receiver's state stays. */
  again(side: Side, data: Payload, seq: number): [number, string] {
    const seen = this.raw(side, { data, seq });
    expect(seen).toHaveLength(1);
    return [get32(seen[0].l4, 4) | 0, textOf(seen[0])];
  }

  /** FIN both ways. */
  close(): void {
    for (const [one, two] of [
      ['a', 'b'],
      ['b', 'a'],
    ] as const) {
      const fin = this.raw(one, { flags: 'FA' });
      expect(fin).toHaveLength(1);
      this.end(one).seq = (this.end(one).seq + 1) | 0;
      this.end(two).expected = (this.end(two).expected + 1) | 0;
      this.ack(two);
    }
  }
}

/** The conntrack line that mentions all of these. */
export function line(home: Home, ...parts: string[]): string {
  const found = home.router.conntrack.lines().filter((l) => parts.every((p) => l.includes(p)));
  expect(found, `one connection with ${parts.join(' ')}`).toHaveLength(1);
  return found[0];
}

export const expectations = (home: Home) => home.router.tables.expectations;
