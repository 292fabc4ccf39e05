/**
 * Flow: `tcp 192.168.1.10:4000 > 198.51.100.7:443`, the way people write a packet, for `explain --flow`, for the filters
 * of captures, and as a frame.
 *
 * PROTO is tcp, udp or icmp (icmpv6 follows from the addresses). IPv6 addresses with a port stand in brackets. `any` (or
 * `*`) for an address matches all in a filter; a frame needs both ends. A TCP frame is the SYN of a new connection, or, when the router
 * knows the connection, the next empty segment that its sender could send.
 */
import {
  CT_PORTS_IO,
  CT_STATE,
  CT_TCP,
  CT_WORDS,
  TCP_END,
  TCP_LAST_ACK,
  TCP_SYN_RECV,
} from '../../conntrack/record.ts';
import * as IF from '../../dataplane/interfaces.ts';
import * as NEIGH from '../../dataplane/neighbours.ts';
import * as NH from '../../dataplane/nexthops.ts';
import type { Tables } from '../../dataplane/tables.ts';
import { type Address, formatAddress, parseAddress } from '../../dataplane/wire/address.ts';
import { complement, fold, pseudo4, pseudo6, sum16 } from '../../dataplane/wire/checksum.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';
import * as ipv4 from '../../dataplane/wire/ipv4.ts';
import * as ipv6 from '../../dataplane/wire/ipv6.ts';
import * as tcp from '../../dataplane/wire/tcp.ts';
import * as udp from '../../dataplane/wire/udp.ts';
import type { Config } from '../config/index.ts';

export interface Flow {
  /** 6, 17, 1 (58 for IPv6), or 0 for any. */
  proto: number;
  /** 0 when no address says it. */
  family: 0 | 4 | 6;
  /** Null: any. Ports are host integers, −1 any. */
  src: Address | null;
  dst: Address | null;
  sport: number;
  dport: number;
}

const PROTOCOLS: Readonly<Record<string, number>> = { tcp: 6, udp: 17, icmp: 1, icmpv6: 58, any: 0, ip: 0 };
const FORM = 'PROTO SOURCE[:PORT] > DESTINATION[:PORT], such as "tcp 192.168.1.10:4000 > 198.51.100.7:443"';

/** Reads a flow. Throws RangeError with what was expected. */
export function parseFlow(text: string): Flow {
  const match = /^\s*(\S+)\s+(\S+)\s*(?:>|->|→)\s*(\S+)\s*$/.exec(text);
  if (match === null) throw new RangeError(`flow: expected ${FORM}, got "${text}"`);
  const proto = PROTOCOLS[match[1].toLowerCase()];
  if (proto === undefined)
    throw new RangeError(`flow: expected one of ${Object.keys(PROTOCOLS).join(', ')} for PROTO, got "${match[1]}"`);
  const [src, sport] = end(match[2]);
  const [dst, dport] = end(match[3]);
  if (src !== null && dst !== null && src.family !== dst.family)
    throw new RangeError(`flow: expected two addresses of one family, got "${match[2]}" and "${match[3]}"`);
  const family = src?.family ?? dst?.family ?? 0;
  if ((sport >= 0 || dport >= 0) && (proto === 1 || proto === 58))
    throw new RangeError(`flow: expected no ports with ${match[1]}, got "${text.trim()}"`);
  return { proto: proto === 1 && family === 6 ? 58 : proto, family, src, dst, sport, dport };
}

function end(text: string): [Address | null, number] {
  const match = /^(?:\[([^\]]+)\]|([^:]*)|([0-9a-fA-F:.]+))(?::(\d+|\*))?$/.exec(text);
  const whole = parseAddress(text);
  if (whole !== null) return [whole, -1];
  const name = match?.[1] ?? match?.[2] ?? '';
  const port = match?.[4] === undefined || match[4] === '*' ? -1 : Number(match[4]);
  const any = name === 'any' || name === '*';
  const address = any ? null : parseAddress(name);
  if (match === null || (!any && address === null) || port > 65535)
    throw new RangeError(`flow: expected ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or any, got "${text}"`);
  return [address, port];
}

/** A packet of a flow, ready to be received. */
export interface FlowFrame {
  port: number;
  frame: Uint8Array;
  /** Record and direction of the connection that it belongs to, −1 none. */
  connection: number;
  direction: number;
}

/**
 * Makes the packet that opens a flow, or the next one of a known connection.
 * @param port ingress; −1: the port that the connection uses, or that the route to the source leads to
 * Throws RangeError when the flow is not complete, or no port can be found.
 */
export function flowFrame(tables: Tables, config: Config, flow: Flow, port: number): FlowFrame {
  const { src, dst, family } = flow;
  if (src === null || dst === null || family === 0)
    throw new RangeError(`flow: expected a source and a destination address, got "any"; a packet has both`);
  const pair = flow.proto === 6 || flow.proto === 17;
  if (pair && (flow.sport < 0 || flow.dport < 0))
    throw new RangeError(`flow: expected a source and a destination port, got none; write ADDRESS:PORT at both ends`);
  if (flow.proto === 0) throw new RangeError(`flow: expected tcp, udp or icmp, got any; a packet has one protocol`);
  const ports = pair ? raw16(flow.sport) | (raw16(flow.dport) << 16) : flow.proto === 58 ? 128 << 16 : 8 << 16;
  // The zone belongs to the port that is not known yet: the first connection that fits in any of them.
  let connection = -1;
  let direction = 0;
  const zones = new Set(port >= 0 ? [config.ports[port].conntrackZone] : config.ports.map((one) => one.conntrackZone));
  for (const zone of zones) {
    const key = flow.proto | (family << 8) | (zone << 16);
    const found = find(tables, family, src.words, dst.words, ports, key);
    if (found < 0) continue;
    connection = found >> 1;
    direction = found & 1;
    break;
  }
  let ingress = port;
  if (ingress < 0 && connection >= 0)
    ingress = ((tables.conntrack.words[connection * CT_WORDS + CT_PORTS_IO] >> (8 * direction)) & 0xff) - 1;
  if (ingress < 0) ingress = portTowards(tables, family, src.words);
  if (ingress < 0)
    throw new RangeError(
      `port: expected --port, as no route leads to ${formatAddress(family, ...src.words)}, which would say where it comes from`,
    );
  const l4 = flow.proto === 6 ? 20 : 8;
  const header = family === 4 ? 20 : 40;
  const payload = pair && flow.proto === 17 ? 4 : 0;
  const frame = new Uint8Array(14 + header + l4 + payload);
  link(tables, ingress, family, src.words, frame);
  const at = 14 + header;
  if (family === 4)
    ipv4.emit(frame, 14, 0, frame.length - 14, 0, ipv4.DONT_FRAGMENT, 64, flow.proto, src.words[0], dst.words[0]);
  else {
    ipv6.emit(frame, 14, 0, 0, l4 + payload, flow.proto, 64);
    ipv6.setAddress(frame, 14 + ipv6.SRC, ...src.words);
    ipv6.setAddress(frame, 14 + ipv6.DST, ...dst.words);
  }
  const length = l4 + payload;
  const pseudo =
    family === 4
      ? pseudo4(src.words[0], dst.words[0], flow.proto, length)
      : pseudo6(...src.words, ...dst.words, flow.proto, length);
  if (flow.proto === 6) {
    const known = connection >= 0 && isOpen(tables, connection);
    const w = tables.conntrack.words;
    const t = connection * CT_WORDS + CT_TCP;
    const sequence = known ? w[t + 4 * direction + TCP_END] : 1;
    const acknowledged = known ? w[t + 4 * (direction ^ 1) + TCP_END] : 0;
    tcp.emit(frame, at, flow.sport, flow.dport, sequence, acknowledged, known ? tcp.ACK : tcp.SYN, 65535);
    tcp.finish(frame, at, frame.length, pseudo);
  } else if (flow.proto === 17) {
    udp.emit(frame, at, flow.sport, flow.dport, length);
    udp.finish(frame, at, pseudo);
  } else {
    frame[at] = family === 4 ? 8 : 128;
    const sum = complement(fold(sum16(frame, at, frame.length, family === 4 ? 0 : pseudo)));
    frame[at + 2] = sum;
    frame[at + 3] = sum >> 8;
  }
  return { port: ingress, frame, connection, direction };
}

function raw16(port: number): number {
  return ((port & 0xff) << 8) | (port >> 8);
}

function find(
  tables: Tables,
  family: number,
  s: ArrayLike<number>,
  d: ArrayLike<number>,
  ports: number,
  key: number,
): number {
  const { conntrack } = tables;
  // A lookup ends what has expired; on the copy that explain works on, nobody minds.
  return family === 4
    ? conntrack.find4(s[0], d[0], ports, key, tables.now())
    : conntrack.find6(s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], ports, key, tables.now());
}

function isOpen(tables: Tables, connection: number): boolean {
  const w = tables.conntrack.words;
  const c = connection * CT_WORDS;
  const state = w[c + CT_STATE] & 0xff;
  return state >= TCP_SYN_RECV && state <= TCP_LAST_ACK;
}

/** The port that the route to an address leaves by; −1 when there is none. */
function portTowards(tables: Tables, family: number, words: ArrayLike<number>): number {
  const { routes, nexthops } = tables;
  const n = family === 4 ? routes.lookup4(words[0]) : routes.lookup6(words[0], words[1], words[2], words[3]);
  if (n === 0) return -1;
  const chosen = nexthops.select(n, 0);
  const kind = nexthops.kind(chosen);
  return kind === NH.NH_VIA || kind === NH.NH_CONNECTED ? nexthops.words[nexthops.at(chosen) + NH.NH_PORT_WORD] : -1;
}

/** The link header: to the port, from the neighbour when it is known, else from a MAC of nobody's. */
function link(tables: Tables, port: number, family: number, words: ArrayLike<number>, frame: Uint8Array): void {
  const w = tables.interfaces.words;
  const r = port * IF.IF_WORDS;
  ethernet.setMac(frame, 0, w[r + IF.IF_MAC_LO], w[r + IF.IF_MAC_HI]);
  const { neighbours } = tables;
  const n = neighbours.find(port, family, words[0], words[1] ?? 0, words[2] ?? 0, words[3] ?? 0);
  const at = neighbours.at(n);
  if (n >= 0 && (neighbours.words[at] & NEIGH.NUD_VALID) !== 0)
    ethernet.setMac(frame, 6, neighbours.words[at + NEIGH.NEIGH_MAC_LO], neighbours.words[at + NEIGH.NEIGH_MAC_HI]);
  else if (w[r + IF.IF_SOURCES] > 0) {
    const first = tables.interfaces.sourceAt(port, 0);
    ethernet.setMac(frame, 6, w[first], w[first + 1]);
  } else frame[6] = 2;
  const type = family === 4 ? 0x0800 : 0x86dd;
  frame[12] = type >> 8;
  frame[13] = type;
}
