/**
 * Words: packets, places and verdicts as people read them, for explanations, traces and captures alike.
 */
import { protocolName } from '../../conntrack/format.ts';
import { WHY_TEXT } from '../../conntrack/generic.ts';
import { CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, CT_UNTRACKED } from '../../conntrack/record.ts';
import {
  DETAIL_GRE_NO_CALL,
  DETAIL_ICMP_OUTER,
  DETAIL_ICMP_QUOTE,
  DETAIL_ICMP_UNRELATED,
} from '../../conntrack/track.ts';
import * as D from '../../dataplane/drop.ts';
import { formatAddress } from '../../dataplane/wire/address.ts';
import * as icmp from '../../dataplane/wire/icmp.ts';
import * as ipv4 from '../../dataplane/wire/ipv4.ts';
import * as ipv6 from '../../dataplane/wire/ipv6.ts';
import * as tcp from '../../dataplane/wire/tcp.ts';
import * as udp from '../../dataplane/wire/udp.ts';
import type { Config, Where } from '../config/index.ts';

/** Details of CT_INVALID that are not a tracker's (conntrack/track.ts). */
const MORE_DETAILS: Readonly<Record<number, string>> = {
  [DETAIL_ICMP_UNRELATED]: 'the ICMP error quotes a packet of no connection that is known here',
  [DETAIL_ICMP_QUOTE]: 'the ICMP error quotes too little of a packet to find its connection',
  [DETAIL_ICMP_OUTER]: 'the ICMP error is addressed to somebody else than the sender of the packet that it quotes',
  [DETAIL_GRE_NO_CALL]: 'a PPTP packet of a call that no control connection has set up',
};

/** The sentence behind a packet's detail number; '' when there is none. */
export function detailText(detail: number): string {
  return WHY_TEXT[detail] ?? MORE_DETAILS[detail] ?? '';
}

/** `CT_INVALID at conntrack-in: RST outside the window …`: why and where a packet was dropped. */
export function dropText(reason: number, stage: number, detail: number): string {
  const why = reason === D.CT_INVALID_DROP ? detailText(detail) : '';
  return `${D.reasonName(reason)} at ${D.STAGES[stage] ?? 'rx'}: ${why === '' ? D.REASONS[reason]?.[1] : why}`;
}

/** What conntrack says of a packet. */
export const CTINFO: Readonly<Record<number, string>> = {
  [CT_NEW]: 'NEW',
  [CT_ESTABLISHED]: 'ESTABLISHED',
  [CT_RELATED]: 'RELATED',
  [CT_INVALID]: 'INVALID',
  [CT_UNTRACKED]: 'UNTRACKED',
};

/** `home.yaml:12:5 nat.masquerade[0]`; the path alone when the configuration was an object. */
export function whereText(config: Config, where: Where | null | undefined): string | undefined {
  if (where === null || where === undefined) return undefined;
  return where.line === 0 ? where.path : `${config.file}:${where.line}:${where.column} ${where.path}`;
}

/** Raw 16 bits as a host integer. */
export function hostPort(raw: number): number {
  return ((raw & 0xff) << 8) | ((raw >>> 8) & 0xff);
}

/** Protocols whose port word is a pair of ports. */
export function hasPortPair(proto: number): boolean {
  return proto === 6 || proto === 17 || proto === 33 || proto === 132 || proto === 136;
}

/** An endpoint: `192.168.1.10:4000`, `[2001:db8::1]:443`, or the address alone. `port` is a host integer, −1 for none. */
export function endpoint(family: number, words: ArrayLike<number>, port: number): string {
  const address = formatAddress(family, words[0], words[1], words[2], words[3]);
  if (port < 0) return address;
  return family === 6 ? `[${address}]:${port}` : `${address}:${port}`;
}

/** `tcp 192.168.1.10:4000 > 198.51.100.7:443`: a tuple; addresses and ports raw. */
export function tupleText(
  family: number,
  proto: number,
  src: ArrayLike<number>,
  dst: ArrayLike<number>,
  ports: number,
): string {
  const pair = hasPortPair(proto);
  const name = protocolName(proto) === 'unknown' ? `protocol ${proto}` : protocolName(proto);
  const id = proto === 1 || proto === 58 ? ` type ${(ports >>> 16) & 0xff} id ${hostPort(ports & 0xffff)}` : '';
  return `${name} ${endpoint(family, src, pair ? hostPort(ports & 0xffff) : -1)} > ${endpoint(family, dst, pair ? hostPort(ports >>> 16) : -1)}${id}`;
}

/** One line about a frame, as tcpdump would say it; for frames of any content. */
export function frameText(frame: Uint8Array): string {
  if (frame.length < 14) return `${frame.length} bytes, no Ethernet header`;
  let at = 12;
  let tag = '';
  let type = (frame[at] << 8) | frame[at + 1];
  if (type === 0x8100 && frame.length >= 18) {
    tag = `vlan ${((frame[14] << 8) | frame[15]) & 0xfff} `;
    at = 16;
    type = (frame[at] << 8) | frame[at + 1];
  }
  const l3 = at + 2;
  const left = frame.length - l3;
  if (type === 0x0806) return `${tag}ARP, ${frame.length} bytes`;
  if (type === 0x0800 && ipv4.check(frame, l3, left)) {
    const fragment = ipv4.fragmentOffset(frame, l3);
    const head = `${ipv4.text(frame, l3)}${ipv4.isFragment(frame, l3) ? ` fragment at ${fragment}` : ''}`;
    return `${tag}IPv4 ${head}${fragment === 0 ? transport(frame, ipv4.proto(frame, l3), l3 + ipv4.headerLength(frame, l3)) : ''}`;
  }
  if (type === 0x86dd && ipv6.check(frame, l3, left))
    return `${tag}IPv6 ${ipv6.text(frame, l3)}${transport(frame, ipv6.next(frame, l3), l3 + 40)}`;
  return `${tag}type 0x${type.toString(16).padStart(4, '0')}, ${frame.length} bytes`;
}

function transport(frame: Uint8Array, proto: number, l4: number): string {
  const left = frame.length - l4;
  if (proto === 6 && left >= 20) return `; ${tcp.text(frame, l4)}`;
  if (proto === 17 && left >= 8) return `; ${udp.text(frame, l4)}`;
  if (proto === 1 && left >= 8) return `; ${icmp.text(frame, l4)}`;
  if (proto === 58 && left >= 8) return `; icmpv6 type ${frame[l4]} code ${frame[l4 + 1]}`;
  return '';
}
