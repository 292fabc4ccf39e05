/**
 * Ethernet II frames and 802.1Q tags (RFC 894, IEEE 802.3 §3.1.1, IEEE 802.1Q §9.6). No FCS: devices add and strip it.
 *
 *    0            6            12     14
 *   | destination | source     | type | payload ...                      untagged
 *   | destination | source     | 8100 | TCI | type | payload ...         tagged: priority 3, DEI 1, VLAN id 12 bits
 *
 * A MAC is two raw words: `lo` the first four bytes, `hi` the last two.
 * Not here: 802.3 length frames with LLC (their "type" is below 0x600), MPLS, PPPoE.
 */
import { formatMac } from './address.ts';
import { be16, raw16, raw32, setBe16, setRaw16, setRaw32 } from './bytes.ts';

export const DST = 0;
export const SRC = 6;
export const TYPE = 12;
export const HEADER = 14;
/** Bytes of one VLAN tag: the TPID (in the place of the type) and the TCI. */
export const TAG = 4;

export const TYPE_IPV4 = 0x0800;
export const TYPE_ARP = 0x0806;
export const TYPE_VLAN = 0x8100;
export const TYPE_QINQ = 0x88a8;
export const TYPE_IPV6 = 0x86dd;

/** The broadcast address, raw. */
export const BROADCAST_LO = -1;
export const BROADCAST_HI = 0xffff;

/** True when the header is complete. */
export function check(_u8: Uint8Array, _off: number, len: number): boolean {
  return len >= HEADER;
}

/** EtherType or TPID, host integer. */
export function type(u8: Uint8Array, off: number): number {
  return be16(u8, off + TYPE);
}

export function dstLo(u8: Uint8Array, off: number): number {
  return raw32(u8, off + DST);
}

export function dstHi(u8: Uint8Array, off: number): number {
  return raw16(u8, off + DST + 4);
}

export function srcLo(u8: Uint8Array, off: number): number {
  return raw32(u8, off + SRC);
}

export function srcHi(u8: Uint8Array, off: number): number {
  return raw16(u8, off + SRC + 4);
}

/** TCI of the outer tag (host integer); only when `type` is TYPE_VLAN or TYPE_QINQ and the frame has 18 bytes. */
export function tci(u8: Uint8Array, off: number): number {
  return be16(u8, off + HEADER);
}

/** Group bit: multicast or broadcast. Takes the `lo` word. */
export function isGroup(lo: number): boolean {
  return (lo & 1) !== 0;
}

/** True for an address that one station can own: not a group, not all zeros. */
export function isStation(lo: number, hi: number): boolean {
  return (lo & 1) === 0 && (lo | hi) !== 0;
}

export function setMac(u8: Uint8Array, at: number, lo: number, hi: number): void {
  setRaw32(u8, at, lo);
  setRaw16(u8, at + 4, hi);
}

/** Bytes that `emit` writes: 14, or 18 with a tag. */
export function headerLength(vlan: number): number {
  return vlan === 0 ? HEADER : HEADER + TAG;
}

/** Writes the header at `off`, with an 802.1Q tag when `vlan` (a TCI) is not 0; returns where the payload begins. */
export function emit(
  u8: Uint8Array,
  off: number,
  toLo: number,
  toHi: number,
  fromLo: number,
  fromHi: number,
  etherType: number,
  vlan = 0,
): number {
  setMac(u8, off + DST, toLo, toHi);
  setMac(u8, off + SRC, fromLo, fromHi);
  let at = off + TYPE;
  if (vlan !== 0) {
    setBe16(u8, at, TYPE_VLAN);
    setBe16(u8, at + 2, vlan);
    at += TAG;
  }
  setBe16(u8, at, etherType);
  return at + 2;
}

/** `02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff type 0x0806`. */
export function text(u8: Uint8Array, off: number): string {
  const from = formatMac(srcLo(u8, off), srcHi(u8, off));
  const to = formatMac(dstLo(u8, off), dstHi(u8, off));
  return `${from} > ${to} type 0x${type(u8, off).toString(16).padStart(4, '0')}`;
}
