/**
 * UDP (RFC 768; RFC 8200 §8.1 and RFC 6935 for its checksum over IPv6).
 *
 *    0             2                  4        6          8
 *   | source port | destination port | length | checksum | payload ...
 *
 * A checksum of 0 means "none": usual in IPv4, in IPv6 only for tunnels. `pseudo` is the folded sum that pseudo4 or
 * pseudo6 of checksum.ts gives for this datagram's length.
 * Not here: UDP-Lite, whose length field is a coverage (RFC 3828).
 */
import { be16, raw16, setBe16, setRaw16 } from './bytes.ts';
import { complement, sum16 } from './checksum.ts';

export const SRC = 0;
export const DST = 2;
export const LENGTH = 4;
export const CHECKSUM = 6;
export const HEADER = 8;

/** True when the header is complete and its length field fits into `len` bytes; more bytes than it says are padding. */
export function check(u8: Uint8Array, off: number, len: number): boolean {
  return len >= HEADER && length(u8, off) >= HEADER && length(u8, off) <= len;
}

export function srcPort(u8: Uint8Array, off: number): number {
  return be16(u8, off + SRC);
}

export function dstPort(u8: Uint8Array, off: number): number {
  return be16(u8, off + DST);
}

/** Header and payload, bytes. */
export function length(u8: Uint8Array, off: number): number {
  return be16(u8, off + LENGTH);
}

/** True when there is a checksum to verify. */
export function hasChecksum(u8: Uint8Array, off: number): boolean {
  return raw16(u8, off + CHECKSUM) !== 0;
}

/** True when the checksum is right or absent. */
export function checksumOk(u8: Uint8Array, off: number, pseudo: number): boolean {
  return !hasChecksum(u8, off) || sum16(u8, off, off + length(u8, off), pseudo) === 0xffff;
}

/** Writes the header with a checksum of 0; `bytes` counts header and payload. The payload and `finish` follow. */
export function emit(u8: Uint8Array, off: number, from: number, to: number, bytes: number): void {
  setBe16(u8, off + SRC, from);
  setBe16(u8, off + DST, to);
  setBe16(u8, off + LENGTH, bytes);
  setRaw16(u8, off + CHECKSUM, 0);
}

/** Computes and stores the checksum. */
export function finish(u8: Uint8Array, off: number, pseudo: number): void {
  setRaw16(u8, off + CHECKSUM, 0);
  const value = complement(sum16(u8, off, off + length(u8, off), pseudo));
  // RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
  setRaw16(u8, off + CHECKSUM, value === 0 ? 0xffff : value);
}

/** `udp 1024 > 53 length 40`. */
export function text(u8: Uint8Array, off: number): string {
  return `udp ${srcPort(u8, off)} > ${dstPort(u8, off)} length ${length(u8, off)}`;
}
