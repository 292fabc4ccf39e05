/**
 * A small world around one router, for the tests of NAT: hosts inside, hosts outside, and questions to the translation
 * in between ("what does the far end see?", "does this packet get in, and to whom?").
 *
 *   192.168.1.0/24 --- lan | router | wan 203.0.113.1 --- 203.0.113.254 --- everybody else
 */
import { expect } from 'vitest';
import { createRouter, type Router, type RouterOptions } from '../../controlplane/router.ts';
import { ethernet, get16, icmp, ip, ipText, ipv4, type Segment, tcp, toHex, udp, verify } from '../lib/build.ts';

export const LAN_MAC = '02:00:00:00:01:01';
export const WAN_MAC = '02:00:00:00:01:02';
export const GATEWAY_MAC = '02:00:00:00:00:fe';
export const OUTSIDE = '203.0.113.1';

/** MAC address of inside host 192.168.1.n. */
export function macOf(host: string): string {
  return `02:00:00:00:0a:${Number(host.split('.')[3]).toString(16).padStart(2, '0')}`;
}

/** An endpoint as text: ADDRESS:PORT. */
export type Endpoint = string;

export function endpoint(address: string, port: number): Endpoint {
  return `${address}:${port}`;
}

export function addressOf(e: Endpoint): string {
  return e.split(':')[0];
}

export function portOf(e: Endpoint): number {
  return Number(e.split(':')[1]);
}

/** What came out of a port, dissected as far as NAT goes. */
export interface Seen {
  src: Endpoint;
  dst: Endpoint;
  proto: number;
  ttl: number;
  frame: Uint8Array;
  /** The transport header and what follows. */
  l4: Uint8Array;
}

export function dissect(frame: Uint8Array): Seen {
  expect(verify(frame)).toEqual([]);
  const header = (frame[14] & 15) * 4;
  const l4 = frame.subarray(14 + header, 14 + get16(frame, 16));
  const proto = frame[23];
  const ports = proto === 1 ? [get16(l4, 4), get16(l4, 4)] : [get16(l4, 0), get16(l4, 2)];
  return {
    src: endpoint(ipText(frame.subarray(26, 30)), ports[0]),
    dst: endpoint(ipText(frame.subarray(30, 34)), ports[1]),
    proto,
    ttl: frame[22],
    frame,
    l4,
  };
}

export class World {
  readonly router: Router;

  /** @param nat the section `nat`, its masquerade out of wan unless it names one itself */
  constructor(nat: Record<string, unknown>, rest: Record<string, unknown> = {}, options: RouterOptions = {}) {
    const neighbors: unknown[] = [{ port: 'wan', ip: '203.0.113.254', mac: GATEWAY_MAC }];
    for (let n = 2; n < 60; n++) neighbors.push({ port: 'lan', ip: `192.168.1.${n}`, mac: macOf(`192.168.1.${n}`) });
    this.router = createRouter(
      {
        ports: {
          lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: ['192.168.1.1/24'] },
          wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, addresses: [`${OUTSIDE}/24`] },
        },
        routes: [
          { to: '0.0.0.0/0', via: '203.0.113.254' },
          { to: '10.0.0.0/8', via: '192.168.1.2' },
          { to: '100.64.0.0/10', via: '192.168.1.2' },
        ],
        neighbors,
        zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
        nat: { masquerade: [{ out: 'wan' }], ...nat },
        offload: { mode: 'off' },
        conntrack: { max: 16384 },
        ...rest,
      },
      options,
    );
  }

  /** Sends a segment from an inside host; returns what left, on either side. */
  fromInside(src: string, dst: string, segment: Segment, ttl = 64): { wan: Seen[]; lan: Seen[] } {
    const inside = src.startsWith('192.168.1.') ? src : '192.168.1.2';
    this.router.inject('lan', ethernet({ src: macOf(inside), dst: LAN_MAC }, ipv4({ src, dst, ttl }, segment)));
    return this.taken();
  }

  fromOutside(src: string, dst: string, segment: Segment, ttl = 64): { wan: Seen[]; lan: Seen[] } {
    this.router.inject('wan', ethernet({ src: GATEWAY_MAC, dst: WAN_MAC }, ipv4({ src, dst, ttl }, segment)));
    return this.taken();
  }

  private taken(): { wan: Seen[]; lan: Seen[] } {
    const take = (port: string) => this.router.take(port).filter((f) => toHex(f.subarray(12, 14)) === '0800');
    return { wan: take('wan').map(dissect), lan: take('lan').map(dissect) };
  }

  /** UDP outwards: the endpoint that the far end sees, null when the packet did not get out. */
  out(from: Endpoint, to: Endpoint): Endpoint | null {
    const { wan } = this.fromInside(addressOf(from), addressOf(to), datagram(from, to));
    if (wan.length === 0) return null;
    expect(wan[0].dst).toBe(to);
    return wan[0].src;
  }

  /** UDP inwards: the inside endpoint that gets it, null when nobody does. */
  in(from: Endpoint, to: Endpoint): Endpoint | null {
    const { lan } = this.fromOutside(addressOf(from), addressOf(to), datagram(from, to));
    if (lan.length === 0) return null;
    expect(lan[0].src).toBe(from);
    return lan[0].dst;
  }

  /** TCP with the given flags outwards and inwards. */
  tcpOut(from: Endpoint, to: Endpoint, flags = 'S', seq = 1000, ack = 0): Endpoint | null {
    const { wan } = this.fromInside(
      addressOf(from),
      addressOf(to),
      tcp({ sport: portOf(from), dport: portOf(to), flags, seq, ack }),
    );
    return wan.length === 0 ? null : wan[0].src;
  }

  tcpIn(from: Endpoint, to: Endpoint, flags = 'S', seq = 5000, ack = 0): Endpoint | null {
    const { lan } = this.fromOutside(
      addressOf(from),
      addressOf(to),
      tcp({ sport: portOf(from), dport: portOf(to), flags, seq, ack }),
    );
    return lan.length === 0 ? null : lan[0].dst;
  }

  /** Opens a TCP connection from inside; returns the endpoint that the far end sees. */
  connect(from: Endpoint, to: Endpoint): Endpoint {
    const seen = this.tcpOut(from, to);
    expect(seen).not.toBeNull();
    expect(this.tcpIn(to, seen!, 'SA', 5000, 1001)).toBe(from);
    expect(this.tcpOut(from, to, 'A', 1001, 5001)).toBe(seen);
    return seen!;
  }

  /** An echo request outwards: the identifier that the far end sees. */
  ping(from: string, to: string, id: number): number | null {
    const { wan } = this.fromInside(from, to, icmp({ type: 8, id, seq: 1 }));
    return wan.length === 0 ? null : portOf(wan[0].src);
  }

  /** Lets time pass, in steps, so that what is done in between is done. */
  wait(seconds: number): void {
    this.router.advance(seconds * 1000);
  }

  dropped(reason: string): number {
    return this.router.counters.dropped[reason] ?? 0;
  }

  get mappings(): number {
    return this.router.tables.natMappings.count;
  }
}

export function datagram(from: Endpoint, to: Endpoint): Segment {
  return udp({ sport: portOf(from), dport: portOf(to) }, 'x');
}

/** True when both addresses are the same. */
export function sameAddress(a: string, b: string): boolean {
  return toHex(ip(a)) === toHex(ip(b));
}
