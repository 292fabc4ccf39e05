/**
 * ARP for IPv4 over Ethernet (RFC 826; RFC 5227 for probes and announcements).
 *
 *    0        2         4    5    6   8            14        18           24        28
 *   | hw = 1 | 0x0800  | 6  | 4  | op | sender MAC | sender IP | target MAC | target IP |
 *
 * Offsets are from the first byte of the ARP packet. Frames are often padded: longer is fine.
 * Not here: RARP, InARP, other hardware types, and what to do with an answer (controlplane/neighbour).
 */
import { formatIpv4, formatMac } from './address.ts';
import { be16, raw16, raw32, setBe16, setRaw32 } from './bytes.ts';
import { setMac } from './ethernet.ts';

export const OP = 6;
export const SENDER_MAC = 8;
export const SENDER_IP = 14;
export const TARGET_MAC = 18;
export const TARGET_IP = 24;
export const LENGTH = 28;

export const REQUEST = 1;
export const REPLY = 2;

/** True for a complete Ethernet/IPv4 packet with an operation of RFC 826. */
export function check(u8: Uint8Array, off: number, len: number): boolean {
  return (
    len >= LENGTH &&
    be16(u8, off) === 1 &&
    be16(u8, off + 2) === 0x0800 &&
    u8[off + 4] === 6 &&
    u8[off + 5] === 4 &&
    (op(u8, off) === REQUEST || op(u8, off) === REPLY)
  );
}

export function op(u8: Uint8Array, off: number): number {
  return be16(u8, off + OP);
}

export function senderLo(u8: Uint8Array, off: number): number {
  return raw32(u8, off + SENDER_MAC);
}

export function senderHi(u8: Uint8Array, off: number): number {
  return raw16(u8, off + SENDER_MAC + 4);
}

/** Sender's protocol address, raw. 0: a probe (RFC 5227 §2.1.1). */
export function senderIp(u8: Uint8Array, off: number): number {
  return raw32(u8, off + SENDER_IP);
}

/** Target's protocol address, raw. Equal to the sender's: an announcement, "gratuitous ARP" (RFC 5227 §2.3). */
export function targetIp(u8: Uint8Array, off: number): number {
  return raw32(u8, off + TARGET_IP);
}

/** Writes a packet of LENGTH bytes at `off`; MACs and addresses raw. */
export function emit(
  u8: Uint8Array,
  off: number,
  operation: number,
  fromLo: number,
  fromHi: number,
  fromIp: number,
  toLo: number,
  toHi: number,
  toIp: number,
): void {
  setBe16(u8, off, 1);
  setBe16(u8, off + 2, 0x0800);
  u8[off + 4] = 6;
  u8[off + 5] = 4;
  setBe16(u8, off + OP, operation);
  setMac(u8, off + SENDER_MAC, fromLo, fromHi);
  setRaw32(u8, off + SENDER_IP, fromIp);
  setMac(u8, off + TARGET_MAC, toLo, toHi);
  setRaw32(u8, off + TARGET_IP, toIp);
}

/** `arp who-has 10.0.0.1 tell 10.0.0.2` or `arp reply 10.0.0.1 is-at 02:...`. */
export function text(u8: Uint8Array, off: number): string {
  const sender = formatIpv4(senderIp(u8, off));
  return op(u8, off) === REQUEST
    ? `arp who-has ${formatIpv4(targetIp(u8, off))} tell ${sender}`
    : `arp reply ${sender} is-at ${formatMac(senderLo(u8, off), senderHi(u8, off))}`;
}
