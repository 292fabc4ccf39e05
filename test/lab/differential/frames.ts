/**
 * Frames of the scenarios' own topology (scenario.ts), on top of the general builders in test/lib: who sends to whom
 * through which port, and short conversations.
 */
import { complete, ethernet, get16, ip, ipv4, ipv6, type Payload, type Segment, tcp, udp } from '../../lib/build.ts';
import { far, GATEWAY_MAC, HOSTS, type Host, LAN_MAC, type ScenarioFrame, WAN_MAC, WAN4 } from './scenario.ts';

export interface IpFields {
  ttl?: number;
  id?: number;
  df?: boolean;
  tos?: number;
}

/** An IP packet whose family follows from the addresses. `ttl` is also the hop limit, `tos` the traffic class. */
export function packet(src: string, dst: string, payload: Segment | Uint8Array, o: IpFields = {}): Uint8Array {
  return src.includes(':')
    ? ipv6({ src, dst, hop: o.ttl, tclass: o.tos }, payload)
    : ipv4({ src, dst, ttl: o.ttl, id: o.id, df: o.df, tos: o.tos }, payload);
}

/** A packet from a LAN host into the lan port. */
export function fromLan(host: Host, bytes: Uint8Array): ScenarioFrame {
  return { port: 'lan', frame: ethernet({ src: host.mac, dst: LAN_MAC }, bytes) };
}

/** A packet from the gateway into the wan port. */
export function fromWan(bytes: Uint8Array): ScenarioFrame {
  return { port: 'wan', frame: ethernet({ src: GATEWAY_MAC, dst: WAN_MAC }, bytes) };
}

export interface Flow {
  host?: Host;
  family?: 4 | 6;
  /** Number of the far host. */
  far?: number;
  sport?: number;
  dport?: number;
}

/** The addresses of a flow as the LAN host sees them, and the address that the far host sees (masqueraded or not). */
export function endsOf(flow: Flow): {
  host: Host;
  inside: string;
  outside: string;
  seen: string;
  sport: number;
  dport: number;
} {
  const host = flow.host ?? HOSTS[0];
  const six = flow.family === 6;
  const peer = far(flow.far ?? 1);
  return {
    host,
    inside: six ? host.v6 : host.v4,
    outside: six ? peer.v6 : peer.v4,
    seen: six ? host.v6 : WAN4,
    sport: flow.sport ?? 40000,
    dport: flow.dport ?? 80,
  };
}

/** UDP there and back; the answer goes to the port that Linux keeps. */
export function udpExchange(flow: Flow, question: Payload = 'question', answer: Payload = 'answer'): ScenarioFrame[] {
  const e = endsOf(flow);
  return [
    fromLan(e.host, packet(e.inside, e.outside, udp({ sport: e.sport, dport: e.dport }, question))),
    fromWan(packet(e.outside, e.seen, udp({ sport: e.dport, dport: e.sport }, answer))),
  ];
}

/** One side of a TCP conversation: `out` from the LAN, `back` from the far host. */
export interface TcpStep {
  way: 'out' | 'back';
  flags: string;
  seq: number;
  ack?: number;
  win?: number;
  data?: Payload;
  options?: Parameters<typeof tcp>[0]['options'];
}

export function tcpFrame(flow: Flow, step: TcpStep): ScenarioFrame {
  const e = endsOf(flow);
  const { flags, seq, ack, win, options } = step;
  return step.way === 'out'
    ? fromLan(
        e.host,
        packet(e.inside, e.outside, tcp({ sport: e.sport, dport: e.dport, flags, seq, ack, win, options }, step.data)),
      )
    : fromWan(
        packet(e.outside, e.seen, tcp({ sport: e.dport, dport: e.sport, flags, seq, ack, win, options }, step.data)),
      );
}

/** SYN, SYN/ACK, ACK with initial sequence numbers `a` (LAN) and `b` (far). */
export function handshake(flow: Flow, a = 1000, b = 5000): ScenarioFrame[] {
  const options = { mss: 1460, wscale: 7, sackPermitted: true };
  return [
    tcpFrame(flow, { way: 'out', flags: 'S', seq: a, win: 64240, options }),
    tcpFrame(flow, { way: 'back', flags: 'SA', seq: b, ack: a + 1, win: 65160, options }),
    tcpFrame(flow, { way: 'out', flags: 'A', seq: a + 1, ack: b + 1, win: 502 }),
  ];
}

/** Both sides close: FIN, FIN/ACK, ACK. `a` and `b` are the next sequence numbers. */
export function goodbye(flow: Flow, a: number, b: number): ScenarioFrame[] {
  return [
    tcpFrame(flow, { way: 'out', flags: 'FA', seq: a, ack: b, win: 502 }),
    tcpFrame(flow, { way: 'back', flags: 'FA', seq: b, ack: a + 1, win: 509 }),
    tcpFrame(flow, { way: 'out', flags: 'A', seq: a + 1, ack: b + 1, win: 502 }),
  ];
}

/** The IP packet in a frame without VLAN tag; what an ICMP error about that frame quotes. */
export function ipOf(frame: Uint8Array): Uint8Array {
  const at = 14;
  const length = frame[at] >> 4 === 6 ? 40 + get16(frame, at + 4) : get16(frame, at + 2);
  return frame.slice(at, at + length);
}

/** A segment's bytes for given addresses, for those who cut it up themselves. */
export function segmentBytes(segment: Segment, src: string, dst: string): Uint8Array {
  return complete(segment, ip(src), ip(dst));
}
