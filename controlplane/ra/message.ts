/**
 * Router advertisements and solicitations as bytes and as fields (RFC 4861 §4.1, §4.2, §4.6; RFC 4191 §2; RFC 8106 §5).
 *
 *   0: type 134, code, checksum   4: hop limit   5: M O · Prf Prf · · ·   6: router lifetime, seconds
 *   8: reachable time, ms        12: retransmission timer, ms            16: options
 *
 * `readAdvertisement` trusts that wire/nd.ts has checked the message as a whole (hop limit, checksum, lengths of
 * options); an option whose own contents are wrong is left out and counted in `malformed`. Lifetimes are seconds;
 * INFINITE stands for all ones.
 *
 * Not here: what a router or a host does with it (sender.ts, receiver.ts), SEND.
 */
import {
  addressBytes,
  addressFromBytes,
  macBytes,
  macFromBytes,
  networkWords,
  type Words,
} from '../../dataplane/wire/address.ts';
import { be16, be32, setBe16, setBe32 } from '../../dataplane/wire/bytes.ts';
import * as icmpv6 from '../../dataplane/wire/icmpv6.ts';
import { isLinkLocal, isMulticast } from '../../dataplane/wire/ipv6.ts';
import * as nd from '../../dataplane/wire/nd.ts';

/** A lifetime of all ones: for ever (RFC 4861 §4.6.2). */
export const INFINITE = 0xffffffff;

/** When a lifetime of seconds that begins now ends, in milliseconds that do not wrap, as `now` is; null: never. */
export function endOf(now: number, seconds: number): number | null {
  return seconds === INFINITE ? null : now + seconds * 1000;
}

const MANAGED = 0x80;
const OTHER = 0x40;
const ON_LINK = 0x80;
const AUTONOMOUS = 0x40;
const OPTION_MAC = nd.OPTION_SOURCE;

/** Router preference (RFC 4191 §2.1). */
export type Preference = 'low' | 'medium' | 'high';
const PREFERENCE_BITS: Readonly<Record<Preference, number>> = { high: 0x08, medium: 0x00, low: 0x18 };

export interface PrefixOption {
  /** Raw words, host bits zero. */
  words: Words;
  prefixLength: number;
  onLink: boolean;
  autonomous: boolean;
  valid: number;
  preferred: number;
}

export interface RouteOption {
  words: Words;
  prefixLength: number;
  preference: Preference;
  lifetime: number;
}

export interface Advertisement {
  hopLimit: number;
  managed: boolean;
  other: boolean;
  preference: Preference;
  /** Seconds; 0: not a default router. */
  lifetime: number;
  /** Milliseconds; 0: unspecified. */
  reachable: number;
  retransmit: number;
  mac: { lo: number; hi: number } | null;
  /** 0: no option. */
  mtu: number;
  prefixes: PrefixOption[];
  routes: RouteOption[];
  rdnss: { servers: Words[]; lifetime: number }[];
  dnssl: { domains: string[]; lifetime: number }[];
}

/** The message [at, end) that nd.check has found valid; `malformed` counts options whose contents were wrong. */
export function readAdvertisement(
  u8: Uint8Array,
  at: number,
  end: number,
): { message: Advertisement; malformed: number } {
  const flags = u8[at + 5];
  const message: Advertisement = {
    hopLimit: u8[at + 4],
    managed: (flags & MANAGED) !== 0,
    other: (flags & OTHER) !== 0,
    // RFC 4191 §2.2: the reserved value (10) counts as medium in the header.
    preference: preferenceOf(flags) ?? 'medium',
    lifetime: be16(u8, at + 6),
    reachable: be32(u8, at + 8) >>> 0,
    retransmit: be32(u8, at + 12) >>> 0,
    mac: null,
    mtu: 0,
    prefixes: [],
    routes: [],
    rdnss: [],
    dnssl: [],
  };
  let malformed = 0;
  for (let option = at + nd.OPTIONS_ROUTER_ADVERTISEMENT; option < end; option += u8[option + 1] << 3) {
    if (!readOption(u8, option, u8[option + 1] << 3, message)) malformed++;
  }
  return { message, malformed };
}

function preferenceOf(flags: number): Preference | null {
  const bits = flags & 0x18;
  return bits === 0x08 ? 'high' : bits === 0x18 ? 'low' : bits === 0 ? 'medium' : null;
}

/** Adds one option to the message; false when its contents are wrong. Unknown types are skipped (RFC 4861 §6.1.2). */
function readOption(u8: Uint8Array, at: number, length: number, message: Advertisement): boolean {
  switch (u8[at]) {
    case OPTION_MAC:
      if (length !== 8) return false;
      message.mac = macFromBytes(u8, at + 2);
      return true;
    case nd.OPTION_MTU:
      if (length !== 8) return false;
      message.mtu = be32(u8, at + 4) >>> 0;
      return true;
    case nd.OPTION_PREFIX: {
      if (length !== 32 || u8[at + 2] > 128) return false;
      const words = networkWords(6, addressFromBytes(6, u8, at + 16), u8[at + 2]);
      message.prefixes.push({
        words,
        prefixLength: u8[at + 2],
        onLink: (u8[at + 3] & ON_LINK) !== 0,
        autonomous: (u8[at + 3] & AUTONOMOUS) !== 0,
        valid: be32(u8, at + 4) >>> 0,
        preferred: be32(u8, at + 8) >>> 0,
      });
      return true;
    }
    case nd.OPTION_ROUTE: {
      // RFC 4191 §2.3: 8, 16 or 24 bytes, as many as the prefix needs; the reserved preference makes it ignored.
      const bits = u8[at + 2];
      const preference = preferenceOf(u8[at + 3]);
      const needed = bits > 64 ? 24 : bits > 0 ? 16 : 8;
      if (bits > 128 || length < needed || length > 24 || preference === null) return false;
      const bytes = new Uint8Array(16);
      bytes.set(u8.subarray(at + 8, at + length));
      const words = networkWords(6, addressFromBytes(6, bytes), bits);
      message.routes.push({ words, prefixLength: bits, preference, lifetime: be32(u8, at + 4) >>> 0 });
      return true;
    }
    case nd.OPTION_RDNSS: {
      // RFC 8106 §5.1: one address at least, each of 16 bytes.
      if (length < 24 || (length - 8) % 16 !== 0) return false;
      const servers: Words[] = [];
      for (let n = at + 8; n < at + length; n += 16) servers.push(addressFromBytes(6, u8, n));
      if (servers.some((words) => isMulticast(words[0]))) return false;
      message.rdnss.push({ servers, lifetime: be32(u8, at + 4) >>> 0 });
      return true;
    }
    case nd.OPTION_DNSSL: {
      const domains = length < 16 ? null : readNames(u8, at + 8, at + length);
      if (domains === null || domains.length === 0) return false;
      message.dnssl.push({ domains, lifetime: be32(u8, at + 4) >>> 0 });
      return true;
    }
    default:
      return true;
  }
}

/** Uncompressed names of RFC 1035 §3.1, zero-padded at the end; null when a label runs over it. */
function readNames(u8: Uint8Array, from: number, end: number): string[] | null {
  const names: string[] = [];
  let at = from;
  while (at < end && u8[at] !== 0) {
    const labels: string[] = [];
    while (at < end && u8[at] !== 0) {
      const length = u8[at];
      if (length > 63 || at + 1 + length >= end) return null;
      const label = String.fromCharCode(...u8.subarray(at + 1, at + 1 + length));
      // Only letters, digits, hyphens and underscores go on to programs (RFC 8106 §7: names may be hostile).
      if (!/^[A-Za-z0-9_-]+$/.test(label)) return null;
      labels.push(label);
      at += 1 + length;
    }
    at++;
    names.push(labels.join('.'));
  }
  return names;
}

/** The ICMPv6 message with its options; the checksum is left to icmpv6.finish. */
export function writeAdvertisement(message: Advertisement): Uint8Array {
  const options: Uint8Array[] = [];
  const { mac, mtu } = message;
  if (mac !== null) {
    const option = newOption(OPTION_MAC, 8);
    option.set(macBytes(mac.lo, mac.hi), 2);
    options.push(option);
  }
  if (mtu !== 0) {
    const option = newOption(nd.OPTION_MTU, 8);
    setBe32(option, 4, mtu);
    options.push(option);
  }
  for (const prefix of message.prefixes) {
    const option = newOption(nd.OPTION_PREFIX, 32);
    option[2] = prefix.prefixLength;
    option[3] = (prefix.onLink ? ON_LINK : 0) | (prefix.autonomous ? AUTONOMOUS : 0);
    setBe32(option, 4, prefix.valid);
    setBe32(option, 8, prefix.preferred);
    option.set(addressBytes(6, prefix.words), 16);
    options.push(option);
  }
  for (const route of message.routes) {
    const length = route.prefixLength > 64 ? 24 : route.prefixLength > 0 ? 16 : 8;
    const option = newOption(nd.OPTION_ROUTE, length);
    option[2] = route.prefixLength;
    option[3] = PREFERENCE_BITS[route.preference];
    setBe32(option, 4, route.lifetime);
    option.set(addressBytes(6, route.words).subarray(0, length - 8), 8);
    options.push(option);
  }
  for (const { servers, lifetime } of message.rdnss) {
    const option = newOption(nd.OPTION_RDNSS, 8 + 16 * servers.length);
    setBe32(option, 4, lifetime);
    servers.forEach((words, n) => void option.set(addressBytes(6, words), 8 + 16 * n));
    options.push(option);
  }
  for (const { domains, lifetime } of message.dnssl) {
    const names = domains.map(nameBytes);
    const length = names.reduce((sum, name) => sum + name.length, 8);
    const option = newOption(nd.OPTION_DNSSL, (length + 7) & ~7);
    setBe32(option, 4, lifetime);
    let at = 8;
    for (const name of names) {
      option.set(name, at);
      at += name.length;
    }
    options.push(option);
  }
  const out = new Uint8Array(options.reduce((sum, option) => sum + option.length, nd.OPTIONS_ROUTER_ADVERTISEMENT));
  out[0] = icmpv6.ROUTER_ADVERTISEMENT;
  out[4] = message.hopLimit;
  // RFC 4191 §2.2: a router lifetime of 0 goes with preference medium.
  const preference = message.lifetime === 0 ? 0 : PREFERENCE_BITS[message.preference];
  out[5] = (message.managed ? MANAGED : 0) | (message.other ? OTHER : 0) | preference;
  setBe16(out, 6, message.lifetime);
  setBe32(out, 8, message.reachable);
  setBe32(out, 12, message.retransmit);
  let at = nd.OPTIONS_ROUTER_ADVERTISEMENT;
  for (const option of options) {
    out.set(option, at);
    at += option.length;
  }
  return out;
}

/** A router solicitation; `mac` null: without the source option (from the unspecified address). */
export function writeSolicitation(mac: { lo: number; hi: number } | null): Uint8Array {
  const out = new Uint8Array(nd.OPTIONS_ROUTER_SOLICITATION + (mac === null ? 0 : 8));
  out[0] = icmpv6.ROUTER_SOLICITATION;
  if (mac === null) return out;
  out[8] = OPTION_MAC;
  out[9] = 1;
  out.set(macBytes(mac.lo, mac.hi), 10);
  return out;
}

function newOption(type: number, length: number): Uint8Array {
  const option = new Uint8Array(length);
  option[0] = type;
  option[1] = length >> 3;
  return option;
}

function nameBytes(name: string): Uint8Array {
  const labels = name.split('.').filter((label) => label !== '');
  const bytes = labels.flatMap((label) => [label.length, ...Array.from(label, (c) => c.charCodeAt(0) & 0x7f)]);
  return Uint8Array.from([...bytes, 0]);
}

/** A prefix that hosts may use at all: neither link-local nor multicast (RFC 4862 §5.5.3 b). */
export function isUsablePrefix(words: Words): boolean {
  return !isLinkLocal(words[0]) && !isMulticast(words[0]);
}
