/**
 * Bytes: unaligned loads and stores, shared by the protocol files beside this one.
 *
 * Two kinds of number, never mixed: `be` is the number that the wire means (network byte order decoded to a host
 * integer); `raw` is what a little-endian load of the same bytes gives, compared and hashed but never read by people.
 * Nothing is checked here: offsets are absolute, and the caller has checked the length.
 *
 * Not here: aligned int32 loads, which the packet path does straight from its views.
 */

/** 16 bits, host integer. */
export function be16(u8: Uint8Array, at: number): number {
  return (u8[at] << 8) | u8[at + 1];
}

/** 32 bits, int32. */
export function be32(u8: Uint8Array, at: number): number {
  return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3];
}

/** 16 bits as they lie in memory (0–65535). */
export function raw16(u8: Uint8Array, at: number): number {
  return u8[at] | (u8[at + 1] << 8);
}

/** 32 bits as they lie in memory, int32. */
export function raw32(u8: Uint8Array, at: number): number {
  return u8[at] | (u8[at + 1] << 8) | (u8[at + 2] << 16) | (u8[at + 3] << 24);
}

export function setBe16(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >>> 8;
  u8[at + 1] = value;
}

export function setBe32(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >>> 24;
  u8[at + 1] = value >>> 16;
  u8[at + 2] = value >>> 8;
  u8[at + 3] = value;
}

export function setRaw16(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value;
  u8[at + 1] = value >>> 8;
}

export function setRaw32(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value;
  u8[at + 1] = value >>> 8;
  u8[at + 2] = value >>> 16;
  u8[at + 3] = value >>> 24;
}

/** Swaps the two bytes: raw to host and back, and the correction for a 16-bit word at an odd offset (RFC 1071 §2 B). */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
}

/** Swaps the four bytes: raw to host and back. */
export function swap32(value: number): number {
  return (value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
}

/** An IPv4 address (raw) as an unsigned number in host order, which can be counted and compared. */
export function hostOrder(raw: number): number {
  return swap32(raw) >>> 0;
}

/** The raw word (int32) of such a number. */
export function rawOrder(host: number): number {
  return swap32(host);
}
