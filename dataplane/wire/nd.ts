/**
 * Neighbor Discovery messages (RFC 4861 §4): the bodies of ICMPv6 types 133–137, and their options.
 *
 *   solicitation (135)    0: type, code, checksum   4: reserved         8: target          24: options
 *   advertisement (136)   0: type, code, checksum   4: R S O, reserved  8: target          24: options
 *   router solicit. (133) 0: type, code, checksum   4: reserved                             8: options
 *   router advert. (134)  0: type, code, checksum   4: hop limit, M O .., lifetime (16 bits)
 *                         8: reachable time, 12: retransmission timer (ms)                 16: options
 *   redirect (137)        0: type, code, checksum   4: reserved   8: target  24: destination  40: options
 *
 *   option: type, length in units of 8 bytes (0 makes the whole message invalid, §4.6), data
 *
 * `check` is the validation that §6.1 and §7.1 ask of every receiver, whatever it then does with the message; the
 * ICMPv6 checksum is part of it. Accessors trust after it. Offsets are absolute; addresses raw words.
 * Not here: options' contents but for link-layer addresses, SEND (RFC 3971).
 */
import { formatIpv6 } from './address.ts';
import { raw16, raw32, setRaw32 } from './bytes.ts';
import { setMac } from './ethernet.ts';
import * as icmpv6 from './icmpv6.ts';
import * as ipv6 from './ipv6.ts';

export const FLAGS = 4;
export const TARGET = 8;
/** Where options begin, by message. */
export const OPTIONS = 24;
export const OPTIONS_ROUTER_SOLICITATION = 8;
export const OPTIONS_ROUTER_ADVERTISEMENT = 16;
export const OPTIONS_REDIRECT = 40;

/** Bits of the byte at FLAGS of an advertisement. */
export const ROUTER = 0x80;
export const SOLICITED = 0x40;
export const OVERRIDE = 0x20;

export const OPTION_SOURCE = 1;
export const OPTION_TARGET = 2;
export const OPTION_PREFIX = 3;
export const OPTION_REDIRECTED = 4;
export const OPTION_MTU = 5;
export const OPTION_NONCE = 14;
export const OPTION_ROUTE = 24;
export const OPTION_RDNSS = 25;
export const OPTION_DNSSL = 31;

/** Bytes of a solicitation or advertisement that carries one Ethernet address option. */
export const LENGTH = 32;

/** Where the options of a message begin, relative to its first byte; 0 for a type that is not ND. */
export function optionsAt(type: number): number {
  if (type === icmpv6.NEIGHBOR_SOLICITATION || type === icmpv6.NEIGHBOR_ADVERTISEMENT) return OPTIONS;
  if (type === icmpv6.ROUTER_SOLICITATION) return OPTIONS_ROUTER_SOLICITATION;
  if (type === icmpv6.ROUTER_ADVERTISEMENT) return OPTIONS_ROUTER_ADVERTISEMENT;
  return type === icmpv6.REDIRECT ? OPTIONS_REDIRECT : 0;
}

/**
 * True when the ND message [off, end) inside the IPv6 packet at `ip` is valid for any receiver. The IPv6 header has
 * been checked; `end` is one past the IPv6 packet.
 */
export function check(u8: Uint8Array, ip: number, off: number, end: number): boolean {
  // §6.1, §7.1: hop limit 255 proves that no router forwarded it; code 0; length; checksum; options.
  if (end - off < icmpv6.HEADER || ipv6.hopLimit(u8, ip) !== 255 || icmpv6.code(u8, off) !== 0) return false;
  const type = icmpv6.type(u8, off);
  const options = optionsAt(type);
  if (options === 0 || end - off < options || !optionsOk(u8, off + options, end)) return false;
  if (!icmpv6.checksumOk(u8, ip, off, end)) return false;
  const unspecified = ipv6.isUnspecified(
    ipv6.src(u8, ip, 0),
    ipv6.src(u8, ip, 1),
    ipv6.src(u8, ip, 2),
    ipv6.src(u8, ip, 3),
  );
  if (ipv6.isMulticast(ipv6.src(u8, ip, 0))) return false;
  switch (type) {
    case icmpv6.NEIGHBOR_SOLICITATION:
      if (ipv6.isMulticast(target(u8, off, 0))) return false;
      // §7.1.1: from the unspecified address it goes to a solicited-node address and carries no source option.
      if (!unspecified) return true;
      return (
        ipv6.isSolicitedNode(ipv6.dst(u8, ip, 0), ipv6.dst(u8, ip, 1), ipv6.dst(u8, ip, 2), ipv6.dst(u8, ip, 3)) &&
        option(u8, off + options, end, OPTION_SOURCE) < 0
      );
    case icmpv6.NEIGHBOR_ADVERTISEMENT:
      // §7.1.2: a multicast advertisement is never solicited.
      if (ipv6.isMulticast(target(u8, off, 0)) || unspecified) return false;
      return !ipv6.isMulticast(ipv6.dst(u8, ip, 0)) || (flags(u8, off) & SOLICITED) === 0;
    case icmpv6.ROUTER_SOLICITATION:
      // §6.1.1.
      return !unspecified || option(u8, off + options, end, OPTION_SOURCE) < 0;
    default:
      // §6.1.2, §8.1: router advertisements and redirects come from a link-local address.
      return ipv6.isLinkLocal(ipv6.src(u8, ip, 0));
  }
}

/** True when [from, end) is a sequence of whole options, none of length 0 (§4.6). */
export function optionsOk(u8: Uint8Array, from: number, end: number): boolean {
  let at = from;
  while (at + 2 <= end) {
    const length = u8[at + 1] << 3;
    if (length === 0) return false;
    at += length;
  }
  return at === end;
}

/** Absolute offset of the first option of this type in [from, end), or −1; ends at a malformed one. */
export function option(u8: Uint8Array, from: number, end: number, type: number): number {
  let at = from;
  while (at + 8 <= end) {
    const length = u8[at + 1] << 3;
    if (length === 0 || at + length > end) return -1;
    if (u8[at] === type) return at;
    at += length;
  }
  return -1;
}

/** First four bytes of the MAC in the option at `at`, raw. */
export function macLo(u8: Uint8Array, at: number): number {
  return raw32(u8, at + 2);
}

/** Last two bytes of the MAC in the option at `at`, raw. */
export function macHi(u8: Uint8Array, at: number): number {
  return raw16(u8, at + 6);
}

/** Word n (0–3) of the target address, raw. */
export function target(u8: Uint8Array, off: number, n: number): number {
  return raw32(u8, off + TARGET + 4 * n);
}

/** ROUTER, SOLICITED, OVERRIDE of an advertisement. */
export function flags(u8: Uint8Array, off: number): number {
  return u8[off + FLAGS];
}

/**
 * Writes a neighbor solicitation or advertisement for target t0–t3 at `off`: `flagByte` is 0 for a solicitation; one
 * option `optionType` with the MAC follows, or none when it is 0. Returns the length. The checksum is left to
 * icmpv6.finish, once the IPv6 header is there.
 */
export function emit(
  u8: Uint8Array,
  off: number,
  type: number,
  flagByte: number,
  t0: number,
  t1: number,
  t2: number,
  t3: number,
  optionType: number,
  lo: number,
  hi: number,
): number {
  // The flags are the first byte of the rest, which is raw: the low byte.
  icmpv6.emit(u8, off, type, 0, flagByte);
  setRaw32(u8, off + TARGET, t0);
  setRaw32(u8, off + TARGET + 4, t1);
  setRaw32(u8, off + TARGET + 8, t2);
  setRaw32(u8, off + TARGET + 12, t3);
  if (optionType === 0) return OPTIONS;
  u8[off + OPTIONS] = optionType;
  u8[off + OPTIONS + 1] = 1;
  setMac(u8, off + OPTIONS + 2, lo, hi);
  return LENGTH;
}

/** `nd solicitation fe80::1` or `nd advertisement fe80::1 RSO`; other messages by type number. */
export function text(u8: Uint8Array, off: number): string {
  const type = icmpv6.type(u8, off);
  if (type !== icmpv6.NEIGHBOR_SOLICITATION && type !== icmpv6.NEIGHBOR_ADVERTISEMENT) return `nd type ${type}`;
  const address = formatIpv6(target(u8, off, 0), target(u8, off, 1), target(u8, off, 2), target(u8, off, 3));
  if (type === icmpv6.NEIGHBOR_SOLICITATION) return `nd solicitation ${address}`;
  const f = flags(u8, off);
  const letters = `${f & ROUTER ? 'R' : ''}${f & SOLICITED ? 'S' : ''}${f & OVERRIDE ? 'O' : ''}`;
  return `nd advertisement ${address}${letters === '' ? '' : ` ${letters}`}`;
}
