/**
 * Bytes in and out for the codec: a checked view of the options of one message or container, and a growing writer.
 *
 * An option is `code (2) | length (2) | data`, big-endian (RFC 8415 §21.1). A list of options must end exactly where its
 * container ends: an option that reaches beyond it, or a rest of one to three bytes, makes the whole message malformed.
 */

import type { Words } from '../../dataplane/wire/address.ts';
import { raw32 } from '../../dataplane/wire/bytes.ts';

/** Options in one container: more is nobody's honest message. */
export const MAX_OPTIONS = 512;

/** A message or option that breaks its own format. Thrown inside the codec only: its entry points turn it into null. */
export class Malformed extends Error {}

export function be16(u8: Uint8Array, at: number): number {
  return (u8[at] << 8) | u8[at + 1];
}

/** Unsigned. */
export function be32(u8: Uint8Array, at: number): number {
  return ((u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3]) >>> 0;
}

/** Raw words of an address on the wire. */
export function addressAt(u8: Uint8Array, at: number): Words {
  return [raw32(u8, at), raw32(u8, at + 4), raw32(u8, at + 8), raw32(u8, at + 12)];
}

/** Calls `use` for each option in [from, to) with its code and the range of its data. Throws Malformed. */
export function eachOption(
  u8: Uint8Array,
  from: number,
  to: number,
  use: (code: number, at: number, end: number) => void,
): void {
  let at = from;
  for (let count = 0; at < to; count++) {
    if (at + 4 > to || count >= MAX_OPTIONS) throw new Malformed();
    const end = at + 4 + be16(u8, at + 2);
    if (end > to) throw new Malformed();
    use(be16(u8, at), at + 4, end);
    at = end;
  }
}

export class Writer {
  private bytes = new Uint8Array(512);
  private length = 0;

  private grow(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.bytes.length) {
      const larger = new Uint8Array(Math.max(this.length, this.bytes.length * 2));
      larger.set(this.bytes);
      this.bytes = larger;
    }
    return at;
  }

  u8(value: number): void {
    const at = this.grow(1);
    this.bytes[at] = value;
  }

  u16(value: number): void {
    const at = this.grow(2);
    this.bytes[at] = value >>> 8;
    this.bytes[at + 1] = value;
  }

  u32(value: number): void {
    this.u16(value >>> 16);
    this.u16(value & 0xffff);
  }

  put(data: ArrayLike<number>): void {
    const at = this.grow(data.length);
    this.bytes.set(data, at);
  }

  /** An address, raw words. */
  address(words: Words): void {
    const at = this.grow(16);
    for (let n = 0; n < 16; n++) this.bytes[at + n] = words[n >> 2] >> (8 * (n & 3));
  }

  /** An option whose data `fill` writes. */
  option(code: number, fill: () => void): void {
    this.u16(code);
    const at = this.grow(2);
    fill();
    const length = this.length - at - 2;
    if (length > 0xffff) throw new RangeError(`option ${code}: expected at most 65535 bytes, got ${length}`);
    this.bytes[at] = length >>> 8;
    this.bytes[at + 1] = length;
  }

  /** An option with this data. */
  data(code: number, data: ArrayLike<number>): void {
    this.option(code, () => this.put(data));
  }

  finish(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }
}
