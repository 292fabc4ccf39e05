/**
 * ICMPv6 (RFC 4443). Types 133–137 have a file of their own: nd.ts.
 *
 *    0      1      2          4                        8
 *   | type | code | checksum | rest (4 bytes, by type) | body ...
 *
 *   echo: rest = identifier, sequence number   packet too big: rest = MTU   parameter problem: rest = pointer
 *
 * The checksum covers the pseudo-header of RFC 8200 §8.1 with next header 58, so these functions also take where the
 * IPv6 header is (`ip`).
 * Not here: who may be answered and how often (§2.4), MLD.
 */
import { be16, be32, raw16, raw32, setRaw16, setRaw32 } from './bytes.ts';
import { complement, fold, sum16 } from './checksum.ts';
import { HEADER as IPV6_HEADER, SRC as IPV6_SRC, PROTO_ICMPV6 } from './ipv6.ts';

export const TYPE = 0;
export const CODE = 1;
export const CHECKSUM = 2;
export const REST = 4;
export const HEADER = 8;

export const UNREACHABLE = 1;
export const PACKET_TOO_BIG = 2;
export const TIME_EXCEEDED = 3;
export const PARAMETER_PROBLEM = 4;
export const ECHO = 128;
export const ECHO_REPLY = 129;
export const MLD_QUERY = 130;
export const MLD_REPORT = 131;
export const MLD_DONE = 132;
export const ROUTER_SOLICITATION = 133;
export const ROUTER_ADVERTISEMENT = 134;
export const NEIGHBOR_SOLICITATION = 135;
export const NEIGHBOR_ADVERTISEMENT = 136;
export const REDIRECT = 137;
export const MLD2_REPORT = 143;

/** Codes of UNREACHABLE. */
export const NO_ROUTE = 0;
export const ADMIN_PROHIBITED = 1;
export const BEYOND_SCOPE = 2;
export const ADDRESS_UNREACHABLE = 3;
export const PORT_UNREACHABLE = 4;
export const POLICY_FAILED = 5;
export const REJECT_ROUTE = 6;

/** True when the first 8 bytes are there: every type has them. */
export function check(_u8: Uint8Array, _off: number, len: number): boolean {
  return len >= HEADER;
}

export function type(u8: Uint8Array, off: number): number {
  return u8[off + TYPE];
}

export function code(u8: Uint8Array, off: number): number {
  return u8[off + CODE];
}

/** Echo: identifier and sequence number as one raw word, identifier in the low half. */
export function rest(u8: Uint8Array, off: number): number {
  return raw32(u8, off + REST);
}

/** Identifier of an echo, raw 16 bits. */
export function identifier(u8: Uint8Array, off: number): number {
  return raw16(u8, off + REST);
}

/** MTU of PACKET_TOO_BIG, bytes, int32. */
export function mtu(u8: Uint8Array, off: number): number {
  return be32(u8, off + REST);
}

/** §2.1: types 0–127 are errors and quote the packet they complain about. */
export function isError(messageType: number): boolean {
  return messageType < 128;
}

/** Folded sum of the pseudo-header of the IPv6 packet at `ip` (destination as it is now) and of the message [off, end). */
function sum(u8: Uint8Array, ip: number, off: number, end: number): number {
  const length = end - off;
  // The pseudo-header's length and next header are 32 bits each; both are sums of two 16-bit words, the upper ones 0.
  const swapped = ((length & 0xff) << 8) | (length >>> 8);
  return sum16(u8, off, end, fold(sum16(u8, ip + IPV6_SRC, ip + IPV6_HEADER) + (PROTO_ICMPV6 << 8) + swapped));
}

/** True when the checksum of the message [off, end) in the IPv6 packet at `ip` is right. At most 65535 bytes. */
export function checksumOk(u8: Uint8Array, ip: number, off: number, end: number): boolean {
  return sum(u8, ip, off, end) === 0xffff;
}

/** Writes the 8-byte header with a checksum of 0; `restRaw` as it shall lie in memory. The body and `finish` follow. */
export function emit(u8: Uint8Array, off: number, messageType: number, messageCode: number, restRaw: number): void {
  u8[off + TYPE] = messageType;
  u8[off + CODE] = messageCode;
  setRaw16(u8, off + CHECKSUM, 0);
  setRaw32(u8, off + REST, restRaw);
}

/** Computes and stores the checksum of the message [off, end); the IPv6 header at `ip` has its addresses already. */
export function finish(u8: Uint8Array, ip: number, off: number, end: number): void {
  setRaw16(u8, off + CHECKSUM, 0);
  setRaw16(u8, off + CHECKSUM, complement(sum(u8, ip, off, end)));
}

/** `icmpv6 type 128 code 0 id 1 seq 2`. */
export function text(u8: Uint8Array, off: number): string {
  const head = `icmpv6 type ${type(u8, off)} code ${code(u8, off)}`;
  const echo = type(u8, off) === ECHO || type(u8, off) === ECHO_REPLY;
  return echo ? `${head} id ${be16(u8, off + REST)} seq ${be16(u8, off + REST + 2)}` : head;
}
