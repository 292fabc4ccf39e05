/**
 * Packet: where the headers of a captured IP packet are, and changing them with their checksums in step.
 *
 * For the replay of one capture with both sides, which plays the hosts around the router: it reads packets that nobody
 * has checked (they may be cut, malformed or fragments) and rewrites addresses, ports and numbers in them. Checksums are
 * changed incrementally (RFC 1624), so that a wrong one stays wrong, a fragment's stays right, and a quoted packet that
 * was cut can be rewritten too. Deliberately independent of the path's own rewriting, which it is played against.
 *
 * Not for the packet path: this allocates. Does not look into tunnels or encrypted payloads.
 */
import { crc32c } from '../../dataplane/wire/crc32c.ts';

export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
export const DCCP = 33;
export const GRE = 47;
export const ICMPV6 = 58;
export const SCTP = 132;
export const UDPLITE = 136;

/** Headers of one IP packet; offsets are of the frame's bytes. */
export interface PacketView {
  family: 4 | 6;
  l3: number;
  /** End of the IP packet, or of what is there of it. */
  end: number;
  /** False when the packet was cut. */
  whole: boolean;
  proto: number;
  /** First byte behind the IP headers; −1 in a fragment other than the first, and in a broken chain. */
  l4: number;
  /** Zero offset and no more to come is no fragment. */
  fragment: 'none' | 'first' | 'later';
  /** Identification of a fragment. */
  id: number;
  /** A routing header with segments left: the checksum covers another destination (RFC 8200 §8.1). */
  routed: boolean;
}

export function get16(u8: Uint8Array, at: number): number {
  return (u8[at] << 8) | u8[at + 1];
}

/** Signed. */
export function get32(u8: Uint8Array, at: number): number {
  return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3];
}

/** Offset of the IP header in an Ethernet frame, behind any number of VLAN tags; −1 when it carries no IP. */
export function ipOffset(u8: Uint8Array, length: number): number {
  let at = 12;
  while (at + 6 <= length && (get16(u8, at) === 0x8100 || get16(u8, at) === 0x88a8)) at += 4;
  if (at + 2 >= length) return -1;
  const type = get16(u8, at);
  return type === 0x0800 || type === 0x86dd ? at + 2 : -1;
}

/** Reads the headers of the IP packet in u8[l3 … end); null when that is no IP packet. */
export function viewPacket(u8: Uint8Array, l3: number, end: number): PacketView | null {
  if (l3 < 0 || l3 + 20 > end) return null;
  const version = u8[l3] >> 4;
  if (version === 4) return viewIpv4(u8, l3, end);
  return version === 6 && l3 + 40 <= end ? viewIpv6(u8, l3, end) : null;
}

function viewIpv4(u8: Uint8Array, l3: number, end: number): PacketView | null {
  const header = (u8[l3] & 15) * 4;
  const total = get16(u8, l3 + 2);
  if (header < 20 || l3 + header > end || total < header) return null;
  const flags = get16(u8, l3 + 6);
  const later = (flags & 0x1fff) !== 0;
  return {
    family: 4,
    l3,
    end: Math.min(end, l3 + total),
    whole: l3 + total <= end,
    proto: u8[l3 + 9],
    l4: later ? -1 : l3 + header,
    fragment: later ? 'later' : (flags & 0x2000) !== 0 ? 'first' : 'none',
    id: get16(u8, l3 + 4),
    routed: false,
  };
}

function viewIpv6(u8: Uint8Array, l3: number, end: number): PacketView {
  const length = get16(u8, l3 + 4);
  const view: PacketView = {
    family: 6,
    l3,
    end: Math.min(end, l3 + 40 + length),
    whole: l3 + 40 + length <= end,
    proto: u8[l3 + 6],
    l4: l3 + 40,
    fragment: 'none',
    id: 0,
    routed: false,
  };
  // Hop-by-Hop, Routing, Fragment, AH, Destination Options: every one is at least 8 bytes long.
  while ([0, 43, 44, 51, 60].includes(view.proto)) {
    const at = view.l4;
    if (at + 8 > view.end) {
      view.l4 = -1;
      return view;
    }
    const type = view.proto;
    view.proto = u8[at];
    if (type === 44) {
      const field = get16(u8, at + 2);
      view.id = get32(u8, at + 4);
      view.fragment = (field & 0xfff8) !== 0 ? 'later' : (field & 1) !== 0 ? 'first' : 'none';
      if (view.fragment === 'later') {
        view.l4 = -1;
        return view;
      }
      view.l4 = at + 8;
    } else {
      if (type === 43 && u8[at + 3] > 0) view.routed = true;
      view.l4 = at + (type === 51 ? (u8[at + 1] + 2) * 4 : (u8[at + 1] + 1) * 8);
    }
    if (view.l4 > view.end) {
      view.l4 = -1;
      return view;
    }
  }
  return view;
}

export function addressLength(view: PacketView): number {
  return view.family === 4 ? 4 : 16;
}

export function sourceAt(view: PacketView): number {
  return view.l3 + (view.family === 4 ? 12 : 8);
}

export function destinationAt(view: PacketView): number {
  return view.l3 + (view.family === 4 ? 16 : 24);
}

/** Protocols that begin with a source and a destination port. */
export function hasPorts(proto: number): boolean {
  return proto === TCP || proto === UDP || proto === SCTP || proto === DCCP || proto === UDPLITE;
}

/** Bytes of `count` present behind the IP headers. */
export function has(view: PacketView, count: number): boolean {
  return view.l4 >= 0 && view.l4 + count <= view.end;
}

/** TCP payload or UDP payload: from and to; null when the header is not all there. */
export function payloadOf(u8: Uint8Array, view: PacketView): { from: number; to: number } | null {
  if (view.proto === TCP && has(view, 20)) {
    const from = view.l4 + (u8[view.l4 + 12] >> 4) * 4;
    return from >= view.l4 + 20 && from <= view.end ? { from, to: view.end } : null;
  }
  if (view.proto !== UDP || !has(view, 8)) return null;
  return { from: view.l4 + 8, to: Math.min(view.end, view.l4 + Math.max(8, get16(u8, view.l4 + 4))) };
}

// --- checksums -------------------------------------------------------------------------------------------------------

/** One's complement sum of u8[from … to) as big-endian halves; an odd last byte counts as the high one (RFC 1071). */
function sum16(u8: Uint8Array, from: number, to: number, initial: number): number {
  let sum = initial;
  let at = from;
  for (; at + 1 < to; at += 2) sum += (u8[at] << 8) | u8[at + 1];
  if (at < to) sum += u8[at] << 8;
  return sum;
}

function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 65536);
  return folded;
}

function put16(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >> 8;
  u8[at + 1] = value;
}

/** Offset of the checksum from the transport header; −1 when the protocol has none of the Internet kind. */
function checksumOffset(proto: number): number {
  if (proto === TCP) return 16;
  if (proto === UDP || proto === UDPLITE || proto === DCCP) return 6;
  return proto === ICMP || proto === ICMPV6 ? 2 : -1;
}

/** The checksum that the packet should have, or −1 when that cannot be told. TCP and UDP. */
function expectedChecksum(u8: Uint8Array, view: PacketView): number {
  const at = view.l4 + checksumOffset(view.proto);
  let to = view.end;
  if (view.proto === UDP) {
    const length = get16(u8, view.l4 + 4);
    if (length < 8 || view.l4 + length > view.end) return -1;
    to = view.l4 + length;
  }
  const length = to - view.l4;
  const from = sourceAt(view);
  let sum = sum16(u8, from, from + 2 * addressLength(view), view.proto + length);
  sum = sum16(u8, view.l4, at, sum);
  sum = sum16(u8, at + 2, to, sum);
  const result = ~fold(sum) & 0xffff;
  return view.proto === UDP && result === 0 ? 0xffff : result;
}

/**
 * Puts right what a NIC would have filled in: the checksums of TCP, UDP and SCTP, and an IPv4 header checksum of zero.
 * Fragments, cut packets and UDP without a checksum are left alone. Returns true when something was wrong.
 */
export function repairChecksums(u8: Uint8Array, view: PacketView): boolean {
  let repaired = false;
  if (view.family === 4 && get16(u8, view.l3 + 10) === 0) {
    const header = view.l3 + (u8[view.l3] & 15) * 4;
    const sum = ~fold(sum16(u8, view.l3, header, 0)) & 0xffff;
    repaired = sum !== 0;
    put16(u8, view.l3 + 10, sum);
  }
  if (!view.whole || view.fragment !== 'none' || view.l4 < 0 || view.routed) return repaired;
  if (view.proto === SCTP && has(view, 12)) {
    const before = get32(u8, view.l4 + 8);
    crc32c(u8, view.l4, view.end, view.l4 + 8);
    return get32(u8, view.l4 + 8) !== before || repaired;
  }
  if (!(view.proto === TCP && has(view, 20)) && !(view.proto === UDP && has(view, 8))) return repaired;
  const at = view.l4 + checksumOffset(view.proto);
  const found = get16(u8, at);
  if (view.proto === UDP && found === 0) return repaired;
  const expected = expectedChecksum(u8, view);
  // All ones and zero are the same number in one's complement: a receiver accepts either.
  if (expected < 0 || found % 65535 === expected % 65535) return repaired;
  put16(u8, at, expected);
  return true;
}

// --- editing ---------------------------------------------------------------------------------------------------------

/** What the edits so far have added to a checksum's data. */
interface Change {
  sum: number;
}

/**
 * Edits of one packet. Set addresses, ports and other fields, quoted packets first; then finish() brings the checksums in
 * step. `parent`: the packet of the ICMP error that quotes this one, whose checksum covers every byte changed here.
 */
export class PacketEdit {
  readonly u8: Uint8Array;
  readonly view: PacketView;
  private readonly parent: PacketEdit | null;
  private readonly header: Change = { sum: 0 };
  private readonly transport: Change = { sum: 0 };
  private touched = false;

  constructor(u8: Uint8Array, view: PacketView, parent: PacketEdit | null = null) {
    this.u8 = u8;
    this.view = view;
    this.parent = parent;
  }

  setSource(address: Uint8Array): void {
    this.setAddress(sourceAt(this.view), address);
  }

  setDestination(address: Uint8Array): void {
    this.setAddress(destinationAt(this.view), address);
  }

  private setAddress(at: number, address: Uint8Array): void {
    // The pseudo-header of ICMP, GRE and SCTP is empty; every other one has the addresses.
    const covered = this.view.proto !== ICMP && this.view.proto !== SCTP;
    this.write(at, address, covered ? [this.header, this.transport] : [this.header]);
  }

  /** Sets 16 bits of the transport header or payload. */
  set16(at: number, value: number): void {
    if (at < this.view.l4 || at + 2 > this.view.end) return;
    this.write(at, Uint8Array.of(value >> 8, value), [this.transport]);
  }

  set32(at: number, value: number): void {
    if (at < this.view.l4 || at + 4 > this.view.end) return;
    this.write(at, Uint8Array.of(value >> 24, value >> 16, value >> 8, value), [this.transport]);
  }

  private write(at: number, bytes: Uint8Array, changes: Change[]): void {
    for (let n = 0; n < bytes.length; n++) {
      const before = this.u8[at + n];
      if (before === bytes[n]) continue;
      this.touched = true;
      // Every header is a multiple of 4 long, and a quote begins at an even place: parity is the same for all of them.
      const difference = (bytes[n] - before) * (((at + n - this.view.l3) & 1) === 0 ? 256 : 1);
      for (const change of changes) change.sum += difference;
      for (let up = this.parent; up !== null; up = up.parent) {
        up.transport.sum += difference;
        up.touched = true;
      }
      this.u8[at + n] = bytes[n];
    }
  }

  /** Brings the checksums in step with the edits. */
  finish(): void {
    if (!this.touched) return;
    const { u8, view } = this;
    if (view.family === 4) this.apply(view.l3 + 10, this.header, false);
    if (view.l4 < 0) return;
    if (view.proto === SCTP) {
      // No increments in a CRC; that of a quoted or cut packet cannot be known (the receiver of an error does not look).
      if (view.whole && view.fragment === 'none' && has(view, 12) && this.parent === null)
        crc32c(u8, view.l4, view.end, view.l4 + 8);
      return;
    }
    const offset = checksumOffset(view.proto);
    if (offset < 0 || !has(view, offset + 2)) return;
    const at = view.l4 + offset;
    const udp = view.proto === UDP || view.proto === UDPLITE;
    if (view.proto === UDP && get16(u8, at) === 0) return;
    this.apply(at, this.transport, udp);
  }

  /** RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m'). */
  private apply(at: number, change: Change, udp: boolean): void {
    const difference = ((change.sum % 65535) + 65535) % 65535;
    change.sum = 0;
    if (difference === 0) return;
    let field = ~fold((~get16(this.u8, at) & 0xffff) + difference) & 0xffff;
    if (udp && field === 0) field = 0xffff;
    this.write(at, Uint8Array.of(field >> 8, field), []);
  }
}
