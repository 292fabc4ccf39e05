/**
 * Capture link types: an Ethernet frame out of whatever link layer a capture was made on.
 *
 * Link types (tcpdump.org/linktypes.html): Ethernet, raw IP, BSD loopback (NULL and LOOP), Linux cooked captures v1 and
 * v2. The router speaks Ethernet only, so the others get a header: what the capture does not know is made up, and always
 * the same. Does not: wireless, PPP, USB and the other two hundred.
 */
import type { CaptureReader } from './capture-reader.ts';

/** Link-layer types (tcpdump.org/linktypes.html) that ethernetFrame() understands. */
export const LINKTYPE_NULL = 0;
export const LINKTYPE_ETHERNET = 1;
export const LINKTYPE_RAW_BSD = 12; // what some systems write for LINKTYPE_RAW: their DLT_RAW
export const LINKTYPE_RAW_OPENBSD = 14;
export const LINKTYPE_RAW = 101;
export const LINKTYPE_LOOP = 108;
export const LINKTYPE_LINUX_SLL = 113;
export const LINKTYPE_IPV4 = 228;
export const LINKTYPE_IPV6 = 229;
export const LINKTYPE_LINUX_SLL2 = 276;

/** Room that ethernetFrame() needs beyond capturedLength for a header that the capture does not have. */
export const ETHERNET_HEADER = 14;

/**
 * Copies the reader's current frame to out[at …] as an Ethernet frame without FCS, and returns its length.
 *
 * Link types without an Ethernet header get one: both addresses 02:00:00:00:00:00, save what the capture knows (Linux
 * cooked captures: the sender's address; broadcasts). Returns −1 when the link type carries no Ethernet or IP frame that
 * this function knows, when the frame is shorter than its link header, or when `out` has no room: capturedLength +
 * ETHERNET_HEADER always suffices.
 */
export function ethernetFrame(reader: CaptureReader, out: Uint8Array, at: number): number {
  const data = reader.data;
  const from = reader.offset;
  let length = reader.capturedLength;
  // A cut frame has lost (part of) its FCS already.
  const fcs = reader.fcsLength - Math.max(0, reader.originalLength - length);
  if (fcs > 0) length = Math.max(0, length - fcs);
  switch (reader.linkType) {
    case LINKTYPE_ETHERNET:
      if (length > out.length - at) return -1;
      return copy(data, from, length, out, at);
    case LINKTYPE_RAW:
    case LINKTYPE_RAW_BSD:
    case LINKTYPE_RAW_OPENBSD:
    case LINKTYPE_IPV4:
    case LINKTYPE_IPV6:
      return synthesize(data, from, length, out, at, length > 0 ? etherTypeOfVersion(data[from]) : -1);
    case LINKTYPE_NULL:
    case LINKTYPE_LOOP:
      if (length < 4) return -1;
      return synthesize(data, from + 4, length - 4, out, at, etherTypeOfFamily(data, from));
    case LINKTYPE_LINUX_SLL:
      // | packet type 2 | ARPHRD 2 | address length 2 | address 8 | protocol 2 |
      if (length < 16) return -1;
      return cooked(data, from + 16, length - 16, out, at, from + 1, from + 2, from + 5, from + 6, from + 14);
    case LINKTYPE_LINUX_SLL2:
      // | protocol 2 | reserved 2 | interface 4 | ARPHRD 2 | packet type 1 | address length 1 | address 8 |
      if (length < 20) return -1;
      return cooked(data, from + 20, length - 20, out, at, from + 10, from + 8, from + 11, from + 12, from);
    default:
      return -1;
  }
}

function copy(data: Uint8Array, from: number, length: number, out: Uint8Array, at: number): number {
  // A loop for short frames: subarray() allocates, and below some 100 bytes costs more than the copy.
  if (length <= 128) for (let i = 0; i < length; i++) out[at + i] = data[from + i];
  else out.set(data.subarray(from, from + length), at);
  return length;
}

/** Puts an Ethernet header with the given EtherType (−1: unknown, refused) before the payload. */
function synthesize(
  data: Uint8Array,
  from: number,
  length: number,
  out: Uint8Array,
  at: number,
  etherType: number,
): number {
  if (etherType < 0 || length + ETHERNET_HEADER > out.length - at) return -1;
  for (let i = 0; i < 12; i++) out[at + i] = 0;
  out[at] = 2; // 02:00:00:00:00:00: locally administered, so no vendor's
  out[at + 6] = 2;
  out[at + 12] = etherType >>> 8;
  out[at + 13] = etherType & 0xff;
  return ETHERNET_HEADER + copy(data, from, length, out, at + ETHERNET_HEADER);
}

/** Linux cooked captures; the last five are the offsets of the header's fields, which the two versions order differently. */
function cooked(
  data: Uint8Array,
  payload: number,
  length: number,
  out: Uint8Array,
  at: number,
  typeAt: number,
  hardwareAt: number,
  addressLengthAt: number,
  addressAt: number,
  protocolAt: number,
): number {
  const hardware = (data[hardwareAt] << 8) | data[hardwareAt + 1];
  let protocol = (data[protocolAt] << 8) | data[protocolAt + 1];
  if (hardware === 824) return -1; // ARPHRD_NETLINK: the protocol field is a netlink family
  // Linux has 1 and 4 for frames of 802.3 (raw and LLC): on the wire that field is the length.
  if (protocol === 1 || protocol === 4) {
    if (length > 1500) return -1;
    protocol = length;
  } else if (protocol < 1536) return -1;
  const result = synthesize(data, payload, length, out, at, protocol);
  if (result < 0) return result;
  if (data[typeAt] === 1) for (let i = 0; i < 6; i++) out[at + i] = 0xff; // LINUX_SLL_BROADCAST
  if (hardware === 1 && data[addressLengthAt] === 6) for (let i = 0; i < 6; i++) out[at + 6 + i] = data[addressAt + i];
  return result;
}

function etherTypeOfVersion(firstByte: number): number {
  return firstByte >>> 4 === 4 ? 0x0800 : firstByte >>> 4 === 6 ? 0x86dd : -1;
}

/**
 * The 4-byte address family of LINKTYPE_NULL (byte order of the machine that captured, which need not be the file's) and
 * LINKTYPE_LOOP (network order): all families are small, so the order shows itself.
 */
function etherTypeOfFamily(data: Uint8Array, at: number): number {
  let family = ((data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]) >>> 0;
  if (family > 0xffff) family = ((data[at + 3] << 24) | (data[at + 2] << 16) | (data[at + 1] << 8) | data[at]) >>> 0;
  if (family === 2) return 0x0800;
  // AF_INET6: 10 Linux, 23 Windows, 24 NetBSD and OpenBSD, 28 FreeBSD, 30 Darwin.
  return family === 10 || family === 23 || family === 24 || family === 28 || family === 30 ? 0x86dd : -1;
}
