/**
 * DHCP messages as bytes and as fields (RFC 2131 §2, options RFC 2132, long options RFC 3396, relay RFC 3046).
 *
 *   0: op htype hlen hops   4: xid   8: secs flags   12: ciaddr   16: yiaddr   20: siaddr   24: giaddr
 *   28: chaddr (16)   44: sname (64)   108: file (128)   236: magic cookie 63 82 53 63   240: options
 *
 * `readMessage` gives null for what is no DHCP message and never throws; options that run over the end make the whole
 * message invalid. Options split over several (RFC 3396) or overloaded into sname and file (option 52) are joined.
 * Addresses are raw words, numbers host integers.
 */
import { be16, be32, raw32, setBe16, setBe32, setRaw32 } from '../../dataplane/wire/bytes.ts';

export const CLIENT_PORT = 68;
export const SERVER_PORT = 67;

export const REQUEST_OP = 1;
export const REPLY_OP = 2;
export const BROADCAST_FLAG = 0x8000;

export const DISCOVER = 1;
export const OFFER = 2;
export const REQUEST = 3;
export const DECLINE = 4;
export const ACK = 5;
export const NAK = 6;
export const RELEASE = 7;
export const INFORM = 8;

export const OPT_MASK = 1;
export const OPT_ROUTER = 3;
export const OPT_DNS = 6;
export const OPT_HOST_NAME = 12;
export const OPT_DOMAIN = 15;
export const OPT_MTU = 26;
export const OPT_BROADCAST = 28;
export const OPT_NTP = 42;
export const OPT_REQUESTED = 50;
export const OPT_LEASE = 51;
const OPT_OVERLOAD = 52;
export const OPT_TYPE = 53;
export const OPT_SERVER = 54;
export const OPT_PARAMETERS = 55;
export const OPT_MESSAGE = 56;
export const OPT_MAX_SIZE = 57;
export const OPT_T1 = 58;
export const OPT_T2 = 59;
export const OPT_CLIENT = 61;
export const OPT_RELAY = 82;
export const OPT_ROUTES = 121;
/** Sub-options of 82 (RFC 3046 §3). */
export const SUB_CIRCUIT = 1;
export const SUB_REMOTE = 2;

const PAD = 0;
const END = 255;
const SNAME = 44;
const FILE = 108;
const MAGIC = 236;
const COOKIE = 0x63825363;
const OPTIONS = 240;
/** RFC 2131 §2: a client must be able to take 576 bytes of IP; BOOTP relays drop UDP payloads below 300. */
const MIN_LENGTH = 300;

export interface Dhcp4Message {
  op: number;
  hops: number;
  xid: number;
  secs: number;
  flags: number;
  ciaddr: number;
  yiaddr: number;
  siaddr: number;
  giaddr: number;
  /** Hardware type and address: 6 bytes for Ethernet. */
  htype: number;
  chaddr: Uint8Array;
  /** Server name and boot file (sname and file, 192 bytes) as they came, for a relay; absent: both are empty, or had options. */
  boot?: Uint8Array;
  /** DISCOVER …; 0: BOOTP. */
  type: number;
  /** By number, without 0, 52, 53 and 255, in the order in which they came. */
  options: Map<number, Uint8Array>;
}

/** The message in a UDP payload, copied; null when it is none or malformed. */
export function readMessage(u8: Uint8Array): Dhcp4Message | null {
  if (u8.length < OPTIONS || be32(u8, MAGIC) !== COOKIE) return null;
  const hlen = u8[2];
  if ((u8[0] !== REQUEST_OP && u8[0] !== REPLY_OP) || hlen > 16) return null;
  const options = new Map<number, Uint8Array>();
  if (!readOptions(u8, OPTIONS, u8.length, options)) return null;
  const overload = options.get(OPT_OVERLOAD)?.[0] ?? 0;
  // RFC 2131 §4.1: first file, then sname.
  if ((overload & 1) !== 0 && !readOptions(u8, FILE, MAGIC, options)) return null;
  if ((overload & 2) !== 0 && !readOptions(u8, SNAME, FILE, options)) return null;
  const type = options.get(OPT_TYPE);
  if (type !== undefined && type.length !== 1) return null;
  options.delete(OPT_OVERLOAD);
  options.delete(OPT_TYPE);
  const boot = u8.slice(SNAME, MAGIC);
  if ((overload & 1) !== 0) boot.fill(0, FILE - SNAME);
  if ((overload & 2) !== 0) boot.fill(0, 0, FILE - SNAME);
  return {
    ...(boot.some((byte) => byte !== 0) ? { boot } : {}),
    op: u8[0],
    htype: u8[1],
    hops: u8[3],
    xid: be32(u8, 4),
    secs: be16(u8, 8),
    flags: be16(u8, 10),
    ciaddr: raw32(u8, 12),
    yiaddr: raw32(u8, 16),
    siaddr: raw32(u8, 20),
    giaddr: raw32(u8, 24),
    chaddr: u8.slice(28, 28 + hlen),
    type: type?.[0] ?? 0,
    options,
  };
}

/** Adds the options of one field; false when one runs over its end. A missing END is forgiven, as everybody does. */
function readOptions(u8: Uint8Array, from: number, end: number, into: Map<number, Uint8Array>): boolean {
  let at = from;
  while (at < end && u8[at] !== END) {
    if (u8[at] === PAD) {
      at++;
      continue;
    }
    if (at + 2 > end || at + 2 + u8[at + 1] > end) return false;
    const data = u8.slice(at + 2, at + 2 + u8[at + 1]);
    const before = into.get(u8[at]);
    if (before === undefined) into.set(u8[at], data);
    else {
      // RFC 3396 §7: parts of one option are put together.
      const joined = new Uint8Array(before.length + data.length);
      joined.set(before);
      joined.set(data, before.length);
      into.set(u8[at], joined);
    }
    at += 2 + data.length;
  }
  return true;
}

/** The UDP payload of a message; padded to 300 bytes. The relay's option goes last (RFC 3046 §2.1). */
export function writeMessage(message: Dhcp4Message): Uint8Array {
  const parts: number[] = [];
  const put = (code: number, data: Uint8Array): void => {
    // RFC 3396: what is longer than 255 bytes is split.
    for (let at = 0; at === 0 || at < data.length; at += 255) {
      const part = data.subarray(at, at + 255);
      parts.push(code, part.length, ...part);
    }
  };
  if (message.type !== 0) put(OPT_TYPE, Uint8Array.of(message.type));
  for (const [code, data] of message.options) if (code !== OPT_RELAY) put(code, data);
  const relay = message.options.get(OPT_RELAY);
  if (relay !== undefined) put(OPT_RELAY, relay);
  parts.push(END);
  const u8 = new Uint8Array(Math.max(MIN_LENGTH, OPTIONS + parts.length));
  u8[0] = message.op;
  u8[1] = message.htype;
  u8[2] = message.chaddr.length;
  u8[3] = message.hops;
  setBe32(u8, 4, message.xid);
  setBe16(u8, 8, message.secs);
  setBe16(u8, 10, message.flags);
  setRaw32(u8, 12, message.ciaddr);
  setRaw32(u8, 16, message.yiaddr);
  setRaw32(u8, 20, message.siaddr);
  setRaw32(u8, 24, message.giaddr);
  u8.set(message.chaddr.subarray(0, 16), 28);
  if (message.boot !== undefined) u8.set(message.boot.subarray(0, MAGIC - SNAME), SNAME);
  setBe32(u8, MAGIC, COOKIE);
  u8.set(parts, OPTIONS);
  return u8;
}

/** An option of one address, raw; 0 when it is not there or too short. */
export function addressOption(message: Dhcp4Message, code: number): number {
  return addressesOption(message, code)[0] ?? 0;
}

/** An option that is a list of addresses, raw. */
export function addressesOption(message: Dhcp4Message, code: number): number[] {
  const data = message.options.get(code);
  const list: number[] = [];
  for (let at = 0; data !== undefined && at + 4 <= data.length; at += 4) list.push(raw32(data, at));
  return list;
}

/** An option of 32 bits, unsigned; undefined when it is not there or has another length. */
export function numberOption(message: Dhcp4Message, code: number): number | undefined {
  const data = message.options.get(code);
  return data?.length === 4 ? be32(data, 0) >>> 0 : undefined;
}

/** A text option without what a terminal or a shell might take for something else. */
export function textOption(message: Dhcp4Message, code: number): string {
  const text = String.fromCharCode(...(message.options.get(code) ?? []));
  return text.replace(/\0+$/, '').replace(/[^A-Za-z0-9._-]/g, '?');
}

export function addressBytes4(...words: readonly number[]): Uint8Array {
  const u8 = new Uint8Array(4 * words.length);
  words.forEach((word, n) => void setRaw32(u8, 4 * n, word));
  return u8;
}

export function numberBytes(value: number): Uint8Array {
  const u8 = new Uint8Array(4);
  setBe32(u8, 0, value);
  return u8;
}

/** Sub-options of option 82 by number; empty when there is none or they are malformed. */
export function relayOption(message: Dhcp4Message): Map<number, Uint8Array> {
  const data = message.options.get(OPT_RELAY);
  const map = new Map<number, Uint8Array>();
  for (let at = 0; data !== undefined && at + 2 <= data.length; at += 2 + data[at + 1])
    if (at + 2 + data[at + 1] <= data.length) map.set(data[at], data.slice(at + 2, at + 2 + data[at + 1]));
  return map;
}
