/**
 * Segment: what a NIC with TSO, USO and checksum offload would do, in software.
 *
 * For egress devices that cannot take super-frames or partial checksums. `segment` cuts a GSO super-frame (TCP or UDP,
 * IPv4 or IPv6) into frames of its own slots, `completeChecksum` fills in a checksum field that holds only the folded
 * pseudo-header sum. Understands Ethernet with any number of VLAN tags, IPv4 options, and IPv6 hop-by-hop and destination options.
 *
 * It does not cut fragments, tunnels, or packets with an IPv6 routing header (their pseudo-header has another
 * destination, RFC 8200 §8.1). Sums are taken over little-endian 16-bit words: the Internet checksum does not
 * mind the byte order (RFC 1071 §2B), so nothing is swapped but the lengths.
 */
import {
  FRAME_NEEDS_CSUM,
  type Frames,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../frames.ts';

/** Most pieces that one super-frame is cut into; room that `out` of segment() needs. */
export const MAX_SEGMENTS = 1024;

const TCP = 6;
const UDP = 17;
const TCP_FIN = 0x01;
const TCP_PSH = 0x08;
const TCP_CWR = 0x80;

/** What `locate` found, overwritten by every call: absolute offsets, IP family and transport protocol. */
let l3 = 0;
let l4 = 0;
let end = 0;
let family = 0;
let proto = 0;

/** Sum of the 16-bit little-endian words of bytes [at, at + bytes), at most 65535 of them; an odd last byte counts as low byte. */
function sum(frames: Frames, at: number, bytes: number): number {
  let total = 0;
  let i = at;
  const stop = at + (bytes & ~1);
  if ((at & 1) === 0) {
    const u16 = frames.u16;
    const words = stop >> 1;
    for (let w = at >> 1; w < words; w++) total += u16[w];
    i = stop;
  } else {
    const u8 = frames.u8;
    for (; i < stop; i += 2) total += u8[i] | (u8[i + 1] << 8);
  }
  if (bytes & 1) total += frames.u8[i];
  return (total & 0xffff) + (total >>> 16);
}

function fold(total: number): number {
  total = (total & 0xffff) + (total >>> 16);
  return (total & 0xffff) + (total >>> 16);
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
}

/**
 * Completes a partial checksum in place and clears NEEDS_CSUM. Returns false, and leaves the frame alone, when start and offset
 * point outside of it. The field itself takes part in the sum: it holds the pseudo-header's (virtio 1.2 §5.1.6.2).
 */
export function completeChecksum(frames: Frames, slot: number): boolean {
  const m = slot * META_WORDS;
  const meta = frames.meta;
  const start = meta[m + META_CSUM] & 0xffff;
  const field = start + (meta[m + META_CSUM] >>> 16);
  const length = meta[m + META_LEN];
  if (field + 2 > length) return false;
  const at = meta[m + META_OFF];
  let check = ~fold(sum(frames, at + start, length - start)) & 0xffff;
  // A UDP checksum of zero means "none" (RFC 768); for the others both zeros are the same number (RFC 1071).
  if (check === 0) check = 0xffff;
  frames.u8[at + field] = check;
  frames.u8[at + field + 1] = check >>> 8;
  meta[m + META_FLAGS] &= ~FRAME_NEEDS_CSUM;
  return true;
}

/**
 * Cuts the super-frame in `slot` into frames of at most `size` payload bytes each, with complete checksums, in newly
 * allocated slots written to `out` in order (PORT is copied, the other meta words are those of an ordinary frame).
 * Returns how many, or −1 when the frame cannot be cut or the arena has too few slots; nothing stays allocated then.
 * The caller keeps `slot` and frees it.
 */
export function segment(frames: Frames, slot: number, size: number, out: Int32Array): number {
  if (size <= 0 || !locate(frames, slot)) return -1;
  const { u8, meta } = frames;
  const m = slot * META_WORDS;
  const off = meta[m + META_OFF];
  const headers = l4 - off + (proto === TCP ? (u8[l4 + 12] >>> 4) * 4 : 8);
  const payload = end - off - headers;
  if (headers > meta[m + META_LEN] || payload < 0 || (proto === TCP && headers < l4 - off + 20)) return -1;
  const pieces = payload === 0 ? 1 : Math.ceil(payload / size);
  if (pieces > out.length) return -1;

  const toL3 = l3 - off;
  const toL4 = l4 - off;
  const id = (u8[l3 + 4] << 8) | u8[l3 + 5];
  const flags = u8[l4 + 13];
  const sequence = (u8[l4 + 4] << 24) | (u8[l4 + 5] << 16) | (u8[l4 + 6] << 8) | u8[l4 + 7];
  const pseudo = pseudoSum(frames);
  for (let piece = 0; piece < pieces; piece++) {
    const first = piece * size;
    const bytes = payload - first < size ? payload - first : size;
    const made = frames.alloc(headers + bytes);
    if (made < 0) {
      for (let i = 0; i < piece; i++) frames.free(out[i]);
      return -1;
    }
    out[piece] = made;
    const n = made * META_WORDS;
    const at = meta[n + META_OFF];
    meta[n + META_LEN] = headers + bytes;
    meta[n + META_PORT] = meta[m + META_PORT];
    u8.copyWithin(at, off, off + headers);
    u8.copyWithin(at + headers, off + headers + first, off + headers + first + bytes);

    const transport = at + toL4;
    const length = headers - toL4 + bytes;
    if (proto === TCP) {
      const seq = (sequence + first) | 0;
      u8[transport + 4] = seq >>> 24;
      u8[transport + 5] = seq >>> 16;
      u8[transport + 6] = seq >>> 8;
      u8[transport + 7] = seq;
      let kept = flags;
      if (piece !== pieces - 1) kept &= ~(TCP_FIN | TCP_PSH);
      // CWR answers one ECE once (RFC 3168 §6.1.2).
      if (piece !== 0) kept &= ~TCP_CWR;
      u8[transport + 13] = kept;
    } else {
      u8[transport + 4] = length >>> 8;
      u8[transport + 5] = length;
    }
    finishIp(frames, at + toL3, toL4 - toL3 + length, id + piece);
    finishTransport(frames, transport, length, pseudo);
  }
  return pieces;
}

/** Length, and for IPv4 identification and header checksum. `total`: bytes from the IP header on. */
function finishIp(frames: Frames, at: number, total: number, id: number): void {
  const u8 = frames.u8;
  if (family === 6) {
    u8[at + 4] = (total - 40) >>> 8;
    u8[at + 5] = total - 40;
    return;
  }
  u8[at + 2] = total >>> 8;
  u8[at + 3] = total;
  u8[at + 4] = id >>> 8;
  u8[at + 5] = id;
  u8[at + 10] = 0;
  u8[at + 11] = 0;
  const check = ~fold(sum(frames, at, (u8[at] & 15) * 4));
  u8[at + 10] = check;
  u8[at + 11] = check >>> 8;
}

/** Transport checksum over `length` bytes at `at`. `pseudo`: sum of addresses and protocol. */
function finishTransport(frames: Frames, at: number, length: number, pseudo: number): void {
  const u8 = frames.u8;
  const field = at + (proto === TCP ? 16 : 6);
  u8[field] = 0;
  u8[field + 1] = 0;
  let check = ~fold(pseudo + swap16(length) + sum(frames, at, length)) & 0xffff;
  if (check === 0) check = 0xffff;
  u8[field] = check;
  u8[field + 1] = check >>> 8;
}

/** Pseudo-header sum without the length (RFC 9293 §3.1, RFC 8200 §8.1). */
function pseudoSum(frames: Frames): number {
  const addresses = family === 4 ? sum(frames, l3 + 12, 8) : sum(frames, l3 + 8, 32);
  return addresses + (proto << 8);
}

/** Finds the headers of the frame in `slot`. False for what `segment` does not cut. */
function locate(frames: Frames, slot: number): boolean {
  const { u8, meta } = frames;
  const m = slot * META_WORDS;
  const off = meta[m + META_OFF];
  const limit = off + meta[m + META_LEN];
  const gso = meta[m + META_GSO] & 0x7f;
  let at = off + 12;
  let type = (u8[at] << 8) | u8[at + 1];
  while ((type === 0x8100 || type === 0x88a8) && at + 6 <= limit) {
    at += 4;
    type = (u8[at] << 8) | u8[at + 1];
  }
  l3 = at + 2;
  if (type === 0x0800 && l3 + 20 <= limit) {
    family = 4;
    if ((u8[l3] & 15) < 5) return false;
    l4 = l3 + (u8[l3] & 15) * 4;
    end = l3 + ((u8[l3 + 2] << 8) | u8[l3 + 3]);
    proto = u8[l3 + 9];
    // More fragments, or an offset: only the first fragment has a transport header.
    if ((u8[l3 + 6] & 0x3f) !== 0 || u8[l3 + 7] !== 0) return false;
  } else if (type === 0x86dd && l3 + 40 <= limit) {
    family = 6;
    end = l3 + 40 + ((u8[l3 + 4] << 8) | u8[l3 + 5]);
    proto = u8[l3 + 6];
    l4 = l3 + 40;
    while ((proto === 0 || proto === 60) && l4 + 8 <= limit) {
      proto = u8[l4];
      l4 += (u8[l4 + 1] + 1) * 8;
    }
  } else return false;
  if (end > limit || l4 + (proto === TCP ? 20 : 8) > end) return false;
  // The device's word and the packet's own must agree, or the pieces would be nonsense.
  return gso === 5 ? proto === UDP : proto === TCP;
}
