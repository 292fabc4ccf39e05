/**
 * TCP header and options (RFC 9293 §3.1; RFC 7323 window scale and timestamps; RFC 2018 SACK; RFC 3168 ECE and CWR).
 *
 *    0          2             4     8     12        13      14       16         18       20
 *   | src port | dest. port  | seq | ack | offset  | flags | window | checksum | urgent | options ...
 *
 * Sequence and acknowledgment numbers are int32: compared by difference, never ordered as they are. `pseudo` is the
 * folded sum that pseudo4 or pseudo6 of checksum.ts gives.
 * Not here: the state machine (conntrack), MSS clamping (the path), options' negotiation.
 */
import { be16, be32, setBe16, setBe32, setRaw16 } from './bytes.ts';
import { complement, sum16 } from './checksum.ts';

export const SRC = 0;
export const DST = 2;
export const SEQ = 4;
export const ACK_NUMBER = 8;
export const OFFSET = 12;
export const FLAGS = 13;
export const WINDOW = 14;
export const CHECKSUM = 16;
export const URGENT = 18;
export const HEADER = 20;

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK = 0x10;
export const URG = 0x20;
export const ECE = 0x40;
export const CWR = 0x80;

export const OPTION_END = 0;
export const OPTION_NOP = 1;
export const OPTION_MSS = 2;
export const OPTION_WINDOW_SCALE = 3;
export const OPTION_SACK_PERMITTED = 4;
export const OPTION_SACK = 5;
export const OPTION_TIMESTAMPS = 8;

/** True when the header, with the options that its data offset promises, fits into `len` bytes. */
export function check(u8: Uint8Array, off: number, len: number): boolean {
  return len >= HEADER && headerLength(u8, off) >= HEADER && headerLength(u8, off) <= len;
}

export function srcPort(u8: Uint8Array, off: number): number {
  return be16(u8, off + SRC);
}

export function dstPort(u8: Uint8Array, off: number): number {
  return be16(u8, off + DST);
}

/** Sequence number, int32. */
export function seq(u8: Uint8Array, off: number): number {
  return be32(u8, off + SEQ);
}

/** Acknowledgment number, int32; means something only when ACK is set. */
export function ack(u8: Uint8Array, off: number): number {
  return be32(u8, off + ACK_NUMBER);
}

/** Bytes, options included. */
export function headerLength(u8: Uint8Array, off: number): number {
  return (u8[off + OFFSET] >> 4) << 2;
}

export function flags(u8: Uint8Array, off: number): number {
  return u8[off + FLAGS];
}

/** Window field, unscaled. */
export function window(u8: Uint8Array, off: number): number {
  return be16(u8, off + WINDOW);
}

/** Urgent pointer: offset from the sequence number; means something only when URG is set. */
export function urgent(u8: Uint8Array, off: number): number {
  return be16(u8, off + URGENT);
}

/**
 * Absolute offset of the first option of this kind whose length is right (`length` bytes; 0: any), or −1. Bounded by
 * the header; ends at the first malformed option (RFC 9293 §3.1: lengths below 2 or past the header).
 */
export function option(u8: Uint8Array, off: number, kind: number, length: number): number {
  const end = off + headerLength(u8, off);
  let at = off + HEADER;
  while (at < end) {
    const k = u8[at];
    if (k === OPTION_END) return -1;
    if (k === OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end) return -1;
    const size = u8[at + 1];
    if (size < 2 || at + size > end) return -1;
    if (k === kind && (length === 0 || size === length)) return at;
    at += size;
  }
  return -1;
}

/** True when the checksum of the segment [off, end) is right. */
export function checksumOk(u8: Uint8Array, off: number, end: number, pseudo: number): boolean {
  return sum16(u8, off, end, pseudo) === 0xffff;
}

/** Writes a header with a checksum of 0 and `optionBytes` (a multiple of 4) left for the caller to fill. */
export function emit(
  u8: Uint8Array,
  off: number,
  from: number,
  to: number,
  sequence: number,
  acknowledgment: number,
  flagByte: number,
  windowSize: number,
  optionBytes = 0,
): void {
  setBe16(u8, off + SRC, from);
  setBe16(u8, off + DST, to);
  setBe32(u8, off + SEQ, sequence);
  setBe32(u8, off + ACK_NUMBER, acknowledgment);
  u8[off + OFFSET] = ((HEADER + optionBytes) >> 2) << 4;
  u8[off + FLAGS] = flagByte;
  setBe16(u8, off + WINDOW, windowSize);
  setRaw16(u8, off + CHECKSUM, 0);
  setBe16(u8, off + URGENT, 0);
}

/** Computes and stores the checksum of the segment [off, end). */
export function finish(u8: Uint8Array, off: number, end: number, pseudo: number): void {
  setRaw16(u8, off + CHECKSUM, 0);
  setRaw16(u8, off + CHECKSUM, complement(sum16(u8, off, end, pseudo)));
}

/** `tcp 1024 > 80 SA seq 1 ack 2 win 65535`, letters as tcpdump's order: F S R P A U E C. */
export function text(u8: Uint8Array, off: number): string {
  let letters = '';
  for (let n = 0; n < 8; n++) if (flags(u8, off) & (1 << n)) letters += 'FSRPAUEC'[n];
  const numbers = `seq ${seq(u8, off) >>> 0} ack ${ack(u8, off) >>> 0} win ${window(u8, off)}`;
  return `tcp ${srcPort(u8, off)} > ${dstPort(u8, off)} ${letters} ${numbers}`;
}
