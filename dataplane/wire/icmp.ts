/**
 * ICMP for IPv4 (RFC 792; RFC 1191 for the next-hop MTU; RFC 1812 §4.3 for what a router sends).
 *
 *    0      1      2          4                        8
 *   | type | code | checksum | rest (4 bytes, by type) | body ...
 *
 *   echo:          rest = identifier, sequence number; body = data
 *   unreachable:   rest = unused, next-hop MTU (code 4); body = quoted packet
 *   redirect:      rest = gateway;  parameter problem: rest = pointer, unused
 *
 * The checksum covers the message alone. The rest is raw where it is an identifier, host order where it is a number.
 * Not here: who may be answered and how often (dataplane path), extensions of RFC 4884.
 */
import { be16, raw16, raw32, setRaw16, setRaw32 } from './bytes.ts';
import { complement, sum16 } from './checksum.ts';

export const TYPE = 0;
export const CODE = 1;
export const CHECKSUM = 2;
export const REST = 4;
export const HEADER = 8;

export const ECHO_REPLY = 0;
export const UNREACHABLE = 3;
export const SOURCE_QUENCH = 4;
export const REDIRECT = 5;
export const ECHO = 8;
export const TIME_EXCEEDED = 11;
export const PARAMETER_PROBLEM = 12;
export const TIMESTAMP = 13;
export const TIMESTAMP_REPLY = 14;
export const ADDRESS_MASK = 17;
export const ADDRESS_MASK_REPLY = 18;

/** Codes of UNREACHABLE. */
export const NET_UNREACHABLE = 0;
export const HOST_UNREACHABLE = 1;
export const PROTOCOL_UNREACHABLE = 2;
export const PORT_UNREACHABLE = 3;
export const FRAGMENTATION_NEEDED = 4;
export const ADMIN_PROHIBITED = 13;

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

/** Next-hop MTU of FRAGMENTATION_NEEDED, bytes; 0 from routers older than RFC 1191. */
export function mtu(u8: Uint8Array, off: number): number {
  return be16(u8, off + REST + 2);
}

/** Types that quote the packet they complain about (RFC 1122 §3.2.2). */
export function isError(messageType: number): boolean {
  return (
    messageType === UNREACHABLE ||
    messageType === SOURCE_QUENCH ||
    messageType === REDIRECT ||
    messageType === TIME_EXCEEDED ||
    messageType === PARAMETER_PROBLEM
  );
}

/** True when the checksum of the message [off, end) is right. */
export function checksumOk(u8: Uint8Array, off: number, end: number): boolean {
  return sum16(u8, off, end) === 0xffff;
}

/** Writes the 8-byte header with a checksum of 0; `restRaw` as it shall lie in memory. The body and `finish` follow. */
export function emit(u8: Uint8Array, off: number, messageType: number, messageCode: number, restRaw: number): void {
  u8[off + TYPE] = messageType;
  u8[off + CODE] = messageCode;
  setRaw16(u8, off + CHECKSUM, 0);
  setRaw32(u8, off + REST, restRaw);
}

/** Computes and stores the checksum of the message [off, end). */
export function finish(u8: Uint8Array, off: number, end: number): void {
  setRaw16(u8, off + CHECKSUM, 0);
  setRaw16(u8, off + CHECKSUM, complement(sum16(u8, off, end)));
}

/** `icmp type 8 code 0 id 1 seq 2`. */
export function text(u8: Uint8Array, off: number): string {
  const head = `icmp type ${type(u8, off)} code ${code(u8, off)}`;
  const echo = type(u8, off) === ECHO || type(u8, off) === ECHO_REPLY;
  return echo ? `${head} id ${be16(u8, off + REST)} seq ${be16(u8, off + REST + 2)}` : head;
}
