/**
 * Format: connections and expectations as text, as the `conntrack` tool prints them, and as JSON.
 *
 *   tcp      6 431996 ESTABLISHED src=… dst=… sport=… dport=… packets=4 bytes=221 src=… … [ASSURED] mark=0 use=1
 *   |        | |      |           `- ORIGINAL tuple, counters        `- REPLY    |         `- mark, zone, helper, use
 *   |        | |      `- state (TCP, SCTP)                                       `- [OFFLOAD] stands in its place
 *   |        | `- seconds left (not when offloaded: the engine owns the time then, and the state)
 *   `- name and number of the protocol
 *
 * Field by field after lines of conntrack 1.4.7 on Linux 6.18; programs that read those lines can read ours. For people
 * and the control plane, not for the packet path: everything here allocates.
 */

import { formatIpv4, formatIpv6 } from '../dataplane/wire/address.ts';
import { swap16 } from '../dataplane/wire/bytes.ts';
import { ESP, spiOf } from './esp.ts';
import {
  CT_DEADLINE,
  CT_F64,
  CT_F64_BYTES,
  CT_F64_PACKETS,
  CT_GEN,
  CT_HELPER,
  CT_KEY,
  CT_MARK,
  CT_MASTER,
  CT_MASTER_GEN,
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
  IPS_DST_NAT,
  IPS_DYING,
  IPS_EXPECTED,
  IPS_FIXED_TIMEOUT,
  IPS_OFFLOAD,
  IPS_SEEN_REPLY,
  IPS_SRC_NAT,
} from './record.ts';
import { SCTP_STATE_NAMES } from './sctp.ts';
import { TCP_STATE_NAMES } from './tcp-states.ts';

/** netfilter's IPS_HW_OFFLOAD: the engine's entries are installed, not only asked for. */
const IPS_HW_OFFLOAD = 32768;

/** Protocols that `conntrack` knows by name; their tuples have ports, all others have addresses only. */
const NAMES: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  33: 'dccp',
  47: 'gre',
  58: 'icmpv6',
  132: 'sctp',
  136: 'udplite',
};

export interface FormatOptions {
  /** `-o extended`: the IP version in front. */
  extended?: boolean;
  /** Packets and bytes of each direction (the kernel prints them with nf_conntrack_acct=1). Default true. */
  counters?: boolean;
  /** Name of helper number n (bits 0–7 of CT_HELPER); without it no helper is printed. */
  helperName?: (helper: number) => string | undefined;
}

export type EventKind = 'NEW' | 'UPDATE' | 'DESTROY';

/** One direction of a connection. Which of the port keys are there depends on the protocol. */
export interface TupleJson {
  src: string;
  dst: string;
  sport?: number;
  dport?: number;
  type?: number;
  code?: number;
  id?: number;
  srckey?: number;
  dstkey?: number;
  /** ESP that is told apart by SPI: absent while it is not known. */
  spi?: number;
  packets?: number;
  bytes?: number;
}

export interface ConntrackJson {
  /** Record number: the same connection has the same one as long as it lives. */
  id: number;
  /** `inet` or `inet6`, as iproute2 says. */
  family: 'inet' | 'inet6';
  protocol: string;
  protocol_number: number;
  /** Seconds left; absent while offloaded. */
  timeout?: number;
  /** TCP and SCTP; absent while offloaded. */
  state?: string;
  orig: TupleJson;
  reply: TupleJson;
  /** SEEN_REPLY, ASSURED, EXPECTED, SRC_NAT, DST_NAT, OFFLOAD, HW_OFFLOAD, FIXED_TIMEOUT. */
  status: string[];
  mark: number;
  zone: number;
  helper?: string;
  /** Record number of the connection that expected this one, while it lives. */
  master?: number;
}

/** An expectation, in the words of whoever holds it: addresses and ports raw (wire/packet.ts), masks likewise. */
export interface ExpectationView {
  family: number;
  proto: number;
  /** Seconds left. */
  timeout: number;
  src: readonly [number, number, number, number];
  dst: readonly [number, number, number, number];
  /** Source half low, destination half high; 0 with mask 0 stands for any. */
  ports: number;
  srcMask: readonly [number, number, number, number];
  portsMask: number;
  masterSrc: readonly [number, number, number, number];
  masterDst: readonly [number, number, number, number];
  masterProto: number;
  masterPorts: number;
  class: number;
  zone: number;
  permanent: boolean;
  /** Waits for its confirmation. */
  inactive?: boolean;
  helper: string;
}

/**
 * One line of `conntrack -L`, without a newline.
 * @param words connection table   @param words6 the IPv6 words beside it   @param f64 the same buffer as `words`
 * @param index record number   @param now clock, ms
 */
export function conntrackLine(
  words: Int32Array,
  words6: Int32Array,
  f64: Float64Array,
  index: number,
  now: number,
  options: FormatOptions = {},
): string {
  const c = index * CT_WORDS;
  const counters = options.counters === false ? null : f64;
  const parts = body(words, words6, counters, index, now, options, (words[c + CT_STATUS] & IPS_OFFLOAD) !== 0);
  parts.push(`mark=${words[c + CT_MARK] >>> 0}`);
  tail(parts, words, c, options);
  parts.push('use=1');
  return parts.join(' ');
}

/**
 * One line of `conntrack -E`: as `-L` with the event in front, counters with DESTROY only, a mark only when there is
 * one. `words` may be a copy of the record (then index 0), with `f64` and `words6` to match.
 */
export function eventLine(
  kind: EventKind,
  words: Int32Array,
  words6: Int32Array,
  f64: Float64Array,
  index: number,
  now: number,
  options: FormatOptions = {},
): string {
  const c = index * CT_WORDS;
  const counters = kind === 'DESTROY' && options.counters !== false ? f64 : null;
  const offloaded = kind !== 'DESTROY' && (words[c + CT_STATUS] & IPS_OFFLOAD) !== 0;
  const parts = [`[${kind}]`.padStart(9), ...body(words, words6, counters, index, now, options, offloaded)];
  if (words[c + CT_MARK] !== 0) parts.push(`mark=${words[c + CT_MARK] >>> 0}`);
  // The kernel names the helper of a living connection only.
  tail(parts, words, c, kind === 'DESTROY' ? {} : options);
  return parts.join(' ');
}

/** One line of `conntrack -L expect`. */
export function expectLine(e: ExpectationView): string {
  const flags = [...(e.permanent ? ['PERMANENT'] : []), ...(e.inactive ? ['INACTIVE'] : [])].join(',');
  const dstMask = e.family === 4 ? [-1, 0, 0, 0] : [-1, -1, -1, -1];
  const parts = [
    String(Math.max(0, e.timeout)),
    `proto=${e.proto}`,
    `src=${address(e.family, e.src)}`,
    `dst=${address(e.family, e.dst)}`,
    ...ports(e.proto, e.ports),
    `mask-src=${address(e.family, e.srcMask)}`,
    `mask-dst=${address(e.family, dstMask)}`,
    ...ports(e.proto, e.portsMask),
    `master-src=${address(e.family, e.masterSrc)}`,
    `master-dst=${address(e.family, e.masterDst)}`,
    ...ports(e.masterProto, e.masterPorts),
  ];
  if (e.zone !== 0) parts.push(`zone=${e.zone}`);
  if (flags !== '') parts.push(flags);
  parts.push(`class=${e.class}`);
  if (e.helper !== '') parts.push(`helper=${e.helper}`);
  return parts.join(' ');
}

/** A connection as JSON; arguments as conntrackLine's. */
export function conntrackJson(
  words: Int32Array,
  words6: Int32Array,
  f64: Float64Array,
  index: number,
  now: number,
  options: FormatOptions = {},
): ConntrackJson {
  const c = index * CT_WORDS;
  const status = words[c + CT_STATUS];
  const { proto, family, zone } = keyOf(words, c);
  const counters = options.counters === false ? null : f64;
  const json: ConntrackJson = {
    id: index,
    family: family === 4 ? 'inet' : 'inet6',
    protocol: NAMES[proto] ?? 'unknown',
    protocol_number: proto,
    orig: tupleJson(words, words6, counters, index, 0),
    reply: tupleJson(words, words6, counters, index, 1),
    status: STATUS_NAMES.filter(([bit]) => (status & bit) !== 0).map(([, name]) => name),
    mark: words[c + CT_MARK] >>> 0,
    zone,
  };
  if ((status & IPS_OFFLOAD) === 0) {
    json.timeout = secondsLeft(words, c, now);
    const state = stateName(proto, words[c + CT_STATE]);
    if (state !== undefined) json.state = state;
  }
  const helper = options.helperName?.(words[c + CT_HELPER] & 0xff);
  if (helper) json.helper = helper;
  const master = words[c + CT_MASTER] - 1;
  const m = master * CT_WORDS;
  const alive = master >= 0 && (words[m + CT_STATUS] & (IPS_CONFIRMED | IPS_DYING)) === IPS_CONFIRMED;
  if (alive && words[m + CT_GEN] === words[c + CT_MASTER_GEN]) json.master = master;
  return json;
}

/** Name of a protocol as `conntrack` prints it: `unknown` for those that it has no tracker for. */
export function protocolName(proto: number): string {
  return NAMES[proto] ?? 'unknown';
}

/** Name of a connection's state; undefined for protocols without states. */
export function stateName(proto: number, state: number): string | undefined {
  if (proto === 6) return TCP_STATE_NAMES[state];
  return proto === 132 ? SCTP_STATE_NAMES[state] : undefined;
}

const STATUS_NAMES: readonly (readonly [number, string])[] = [
  [IPS_EXPECTED, 'EXPECTED'],
  [IPS_SEEN_REPLY, 'SEEN_REPLY'],
  [IPS_ASSURED, 'ASSURED'],
  [IPS_SRC_NAT, 'SRC_NAT'],
  [IPS_DST_NAT, 'DST_NAT'],
  [IPS_FIXED_TIMEOUT, 'FIXED_TIMEOUT'],
  [IPS_OFFLOAD, 'OFFLOAD'],
  [IPS_HW_OFFLOAD, 'HW_OFFLOAD'],
];

/** Names that a connection's protocol may have. */
export const PROTOCOL_NAMES: readonly string[] = [...Object.values(NAMES), 'unknown'];

/** Every word that says how far a connection is: states of TCP and SCTP, and the status. */
export const STATE_WORDS: readonly string[] = [
  ...new Set([...TCP_STATE_NAMES, ...SCTP_STATE_NAMES, ...STATUS_NAMES.map(([, name]) => name), 'UNREPLIED']),
];

/** Everything from the protocol's name to [ASSURED]. */
function body(
  words: Int32Array,
  words6: Int32Array,
  counters: Float64Array | null,
  index: number,
  now: number,
  options: FormatOptions,
  offloaded: boolean,
): string[] {
  const c = index * CT_WORDS;
  const status = words[c + CT_STATUS];
  const { proto, family } = keyOf(words, c);
  const parts: string[] = [];
  if (options.extended) parts.push(family === 4 ? 'ipv4     2' : 'ipv6     10');
  parts.push(`${protocolName(proto).padEnd(8)} ${proto}`);
  if (!offloaded) {
    parts.push(String(secondsLeft(words, c, now)));
    const state = stateName(proto, words[c + CT_STATE]);
    if (state !== undefined) parts.push(state);
  }
  tuple(parts, words, words6, counters, index, 0);
  if ((status & IPS_SEEN_REPLY) === 0) parts.push('[UNREPLIED]');
  tuple(parts, words, words6, counters, index, 1);
  if ((status & IPS_HW_OFFLOAD) !== 0) parts.push('[HW_OFFLOAD]');
  else if ((status & IPS_OFFLOAD) !== 0) parts.push('[OFFLOAD]');
  else if ((status & IPS_ASSURED) !== 0) parts.push('[ASSURED]');
  return parts;
}

function tail(parts: string[], words: Int32Array, c: number, options: FormatOptions): void {
  const { zone } = keyOf(words, c);
  if (zone !== 0) parts.push(`zone=${zone}`);
  const helper = options.helperName?.(words[c + CT_HELPER] & 0xff);
  if (helper) parts.push(`helper=${helper}`);
}

function tuple(
  parts: string[],
  words: Int32Array,
  words6: Int32Array,
  counters: Float64Array | null,
  index: number,
  dir: number,
): void {
  const t = index * CT_WORDS + (dir << 2);
  const { proto } = keyOf(words, index * CT_WORDS);
  const [src, dst] = addresses(words, words6, index, dir);
  parts.push(`src=${src}`, `dst=${dst}`, ...ports(proto, words[t + CT_O_PORTS]));
  if (counters) {
    const f = index * CT_F64 + dir;
    parts.push(`packets=${counters[f + CT_F64_PACKETS]}`, `bytes=${counters[f + CT_F64_BYTES]}`);
  }
}

function tupleJson(
  words: Int32Array,
  words6: Int32Array,
  counters: Float64Array | null,
  index: number,
  dir: number,
): TupleJson {
  const { proto } = keyOf(words, index * CT_WORDS);
  const [src, dst] = addresses(words, words6, index, dir);
  const json: TupleJson = { src, dst, ...portFields(proto, words[index * CT_WORDS + (dir << 2) + CT_O_PORTS]) };
  if (counters) {
    const f = index * CT_F64 + dir;
    json.packets = counters[f + CT_F64_PACKETS];
    json.bytes = counters[f + CT_F64_BYTES];
  }
  return json;
}

/** The port word in the protocol's own terms; empty for protocols without ports. */
function portFields(proto: number, word: number): Partial<TupleJson> {
  const low = swap16(word & 0xffff);
  const high = swap16(word >>> 16);
  switch (NAMES[proto]) {
    case undefined: {
      const spi = proto === ESP ? spiOf(word) : 0;
      return spi === 0 ? {} : { spi };
    }
    case 'icmp':
    case 'icmpv6':
      return { type: (word >>> 16) & 0xff, code: word >>> 24, id: low };
    case 'gre':
      return { srckey: low, dstkey: high };
    default:
      return { sport: low, dport: high };
  }
}

function ports(proto: number, word: number): string[] {
  const hex = NAMES[proto] === 'gre' || proto === ESP;
  return Object.entries(portFields(proto, word)).map(
    ([name, value]) => `${name}=${hex ? `0x${value.toString(16)}` : value}`,
  );
}

function addresses(words: Int32Array, words6: Int32Array, index: number, dir: number): [string, string] {
  const { family } = keyOf(words, index * CT_WORDS);
  if (family === 4) {
    const t = index * CT_WORDS + (dir << 2);
    return [formatIpv4(words[t + CT_O_SRC]), formatIpv4(words[t + CT_O_DST])];
  }
  const a = index * CT6_WORDS + (dir << 3);
  return [ipv6(words6, a + CT6_O_SRC), ipv6(words6, a + CT6_O_DST)];
}

function address(family: number, words: ArrayLike<number>): string {
  return family === 4 ? formatIpv4(words[0]) : ipv6(words, 0);
}

/** As inet_ntop writes it: RFC 5952, but ::/96 also ends in dotted decimal. */
function ipv6(words: ArrayLike<number>, at: number): string {
  const last = words[at + 3];
  if ((words[at] | words[at + 1] | words[at + 2]) === 0 && (last & 0xffff) !== 0) return `::${formatIpv4(last)}`;
  return formatIpv6(words[at], words[at + 1], words[at + 2], last);
}

function keyOf(words: Int32Array, c: number): { proto: number; family: number; zone: number } {
  const key = words[c + CT_KEY];
  return { proto: key & 0xff, family: (key >> 8) & 0xff, zone: key >>> 16 };
}

/** Whole seconds until the deadline, 0 when it has passed. */
function secondsLeft(words: Int32Array, c: number, now: number): number {
  return Math.max(0, Math.floor(((words[c + CT_DEADLINE] - now) | 0) / 1000));
}
