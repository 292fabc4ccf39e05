/**
 * home: a home gateway under test. One LAN, one WAN, masquerade, static neighbours, the engine off; packets go in as IP
 * and come out taken apart. The addresses are the same everywhere, so that a test names only what it is about.
 *
 *   .10 and .11, ::10 and ::11 --- lan 192.168.1.1, 2001:db8:1::1 | wan 203.0.113.1, 2001:db8:ffff::1 --- .254 and ::fe
 */
import { createRouter, type Router, type RouterOptions } from '../../controlplane/router.ts';
import type { FrameMeta } from '../../dataplane/ports/memory.ts';
import { ethernet, get16, get32, ipText, verify } from './build.ts';

export const LAN_MAC = '02:00:00:00:01:01';
export const WAN_MAC = '02:00:00:00:01:02';
export const HOST_MAC = '02:00:00:00:00:10';
export const HOST2_MAC = '02:00:00:00:00:11';
export const GATE_MAC = '02:00:00:00:00:fe';

export const HOST = '192.168.1.10';
export const HOST2 = '192.168.1.11';
export const ROUTER_LAN = '192.168.1.1';
export const ROUTER_WAN = '203.0.113.1';
export const GATE = '203.0.113.254';
/** Somebody in the Internet. */
export const SERVER = '198.51.100.7';
export const HOST6 = '2001:db8:1::10';
export const ROUTER_LAN6 = '2001:db8:1::1';
export const ROUTER_WAN6 = '2001:db8:ffff::1';
export const GATE6 = '2001:db8:ffff::fe';
export const SERVER6 = '2001:db8:7::7';

/** The configuration; the keys of `extra` replace whole sections. */
export function homeConfig(extra: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
      wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
    },
    routes: [
      { to: '0.0.0.0/0', via: GATE },
      { to: '::/0', via: GATE6 },
    ],
    neighbors: [
      { port: 'wan', ip: GATE, mac: GATE_MAC },
      { port: 'wan', ip: GATE6, mac: GATE_MAC },
      { port: 'lan', ip: HOST, mac: HOST_MAC },
      { port: 'lan', ip: HOST2, mac: HOST2_MAC },
      { port: 'lan', ip: HOST6, mac: HOST_MAC },
    ],
    zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
    nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24' }] },
    offload: { mode: 'off' },
    conntrack: { max: 4096 },
    ...extra,
  };
}

/** A frame that left, and what its headers say (transport behind the fixed header of IPv6, no extension headers). */
export interface Seen {
  frame: Uint8Array;
  /** The IP packet. */
  packet: Uint8Array;
  dstMac: string;
  src: string;
  dst: string;
  ttl: number;
  proto: number;
  /** Transport header and payload. */
  l4: Uint8Array;
  /** TCP and UDP; of ICMP: type and code of the first word. */
  sport: number;
  dport: number;
}

/** Takes a frame apart; `at`: where the EtherType is. */
export function see(frame: Uint8Array, at = 12): Seen {
  const packet = frame.subarray(at + 2);
  const four = packet[0] >> 4 === 4;
  const l4 = packet.subarray(four ? (packet[0] & 15) * 4 : 40);
  return {
    frame,
    packet,
    dstMac: Array.from(frame.subarray(0, 6), (b) => b.toString(16).padStart(2, '0')).join(':'),
    src: ipText(four ? packet.subarray(12, 16) : packet.subarray(8, 24)),
    dst: ipText(four ? packet.subarray(16, 20) : packet.subarray(24, 40)),
    ttl: four ? packet[8] : packet[7],
    proto: four ? packet[9] : packet[6],
    l4,
    sport: get16(l4, 0),
    dport: get16(l4, 2),
  };
}

export class Home {
  readonly router: Router;

  constructor(extra: Record<string, unknown> = {}, options: RouterOptions = {}) {
    this.router = createRouter(homeConfig(extra), { slots: { small: 512, large: 16 }, ...options });
  }

  /** A packet from a host of the LAN; what left afterwards, by port. */
  lan(packet: Uint8Array, from = HOST_MAC): void {
    this.router.inject('lan', ethernet({ src: from, dst: LAN_MAC }, packet));
  }

  /** A packet from the provider's side. */
  wan(packet: Uint8Array, from = GATE_MAC): void {
    this.router.inject('wan', ethernet({ src: from, dst: WAN_MAC }, packet));
  }

  /** A packet with metadata of a device (partial checksum, super-frame). */
  offloaded(port: 'lan' | 'wan', packet: Uint8Array, meta: Partial<FrameMeta>): void {
    const frame = ethernet(
      { src: port === 'lan' ? HOST_MAC : GATE_MAC, dst: port === 'lan' ? LAN_MAC : WAN_MAC },
      packet,
    );
    this.router.port(port).push(frame, 0, 0, meta);
    this.router.advance(1);
  }

  /** Frames that left since the last time; every one is checked by the naive checker. */
  left(port: string): Seen[] {
    return this.router.take(port).map((frame) => {
      const problems = verify(frame, { zeroUdp6: true });
      if (problems.length > 0) throw new Error(`a frame that left ${port} is wrong: ${problems.join('; ')}`);
      return see(frame);
    });
  }

  /** The one frame that left a port since the last time. */
  one(port: string): Seen {
    const frames = this.left(port);
    if (frames.length !== 1) throw new Error(`${port}: expected one frame, got ${frames.length}`);
    return frames[0];
  }

  get dropped(): Record<string, number> {
    return this.router.counters.dropped;
  }
}

/** The packet that an ICMP or ICMPv6 error quotes. */
export function quoteOf(seen: Seen): Uint8Array {
  return seen.l4.subarray(8);
}

/** Second word of an ICMP header: identifier and sequence number, MTU, or pointer. */
export function restOf(seen: Seen): number {
  return get32(seen.l4, 4);
}
