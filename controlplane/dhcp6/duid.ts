/**
 * DUIDs: who a client or server is (RFC 8415 §11; UUID: RFC 6355). Opaque to everybody but their maker: compared byte by
 * byte and never interpreted.
 *
 *   LLT   1 | hardware type 2 | seconds since 2000 4 | link-layer address      LL   3 | hardware type 2 | address
 *   EN    2 | enterprise number 4 | identifier                                 UUID 4 | 16 bytes
 */
import type { Mac } from '../../dataplane/wire/address.ts';
import { Writer } from './reader.ts';

const ETHERNET = 1;
/** Midnight UTC, January 1, 2000 (§11.2), in milliseconds since 1970. */
const EPOCH = Date.UTC(2000, 0, 1);

/** Six bytes of a MAC in raw words. */
export function macBytes(mac: Mac): Uint8Array {
  return Uint8Array.of(mac.lo, mac.lo >> 8, mac.lo >> 16, mac.lo >> 24, mac.hi, mac.hi >> 8);
}

export function duidLl(mac: Mac): Uint8Array {
  const w = new Writer();
  w.u16(3);
  w.u16(ETHERNET);
  w.put(macBytes(mac));
  return w.finish();
}

/** @param made when the DUID was made, milliseconds since 1970; the wire has seconds modulo 2^32 */
export function duidLlt(mac: Mac, made: number): Uint8Array {
  const w = new Writer();
  w.u16(1);
  w.u16(ETHERNET);
  w.u32(Math.floor((made - EPOCH) / 1000) >>> 0);
  w.put(macBytes(mac));
  return w.finish();
}

export function duidEn(enterprise: number, identifier: Uint8Array): Uint8Array {
  const w = new Writer();
  w.u16(2);
  w.u32(enterprise);
  w.put(identifier);
  return w.finish();
}

/** @param uuid 16 bytes */
export function duidUuid(uuid: Uint8Array): Uint8Array {
  const w = new Writer();
  w.u16(4);
  w.put(uuid);
  return w.finish();
}

/** `00:03:00:01:02:00:00:00:00:01`. */
export function hexText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Pairs of hexadecimal digits, with or without `:` or `-` between them; null for anything else, and for nothing. */
export function parseHex(text: string): Uint8Array | null {
  if (!/^[0-9a-fA-F]{2}([:-]?[0-9a-fA-F]{2})*$/.test(text)) return null;
  const digits = text.replaceAll(/[:-]/g, '');
  return Uint8Array.from({ length: digits.length / 2 }, (_, n) => Number.parseInt(digits.slice(2 * n, 2 * n + 2), 16));
}

export function sameBytes(a: Uint8Array | null, b: Uint8Array | null): boolean {
  return a !== null && b !== null && a.length === b.length && a.every((byte, n) => byte === b[n]);
}
