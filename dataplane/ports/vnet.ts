/**
 * virtio_net_hdr: the 10 bytes in front of a frame that tell of partial checksums and super-frames.
 *
 * Used by TAP (IFF_VNET_HDR) and AF_PACKET (PACKET_VNET_HDR), both ways. Host byte order (little-endian):
 *
 *   0  flags u8    1 NEEDS_CSUM, 2 DATA_VALID          4  gso_size    u16  payload bytes per segment
 *   1  gso_type u8 0, 1 TCPv4, 4 TCPv6, 5 UDP_L4, 0x80 6  csum_start  u16  from the frame's first byte
 *   2  hdr_len u16 all headers of a super-frame        8  csum_offset u16  from csum_start
 *
 * It lives in the headroom directly in front of the frame, so that header and frame are one contiguous read or write.
 * Source: linux/virtio_net.h, struct virtio_net_hdr (not the _v1 of 12 bytes).
 */
import {
  FRAME_DATA_VALID,
  FRAME_NEEDS_CSUM,
  type Frames,
  HEADROOM,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_HDRLEN,
  META_OFF,
  META_WORDS,
} from '../frames.ts';

export const VNET_BYTES = 10;

/**
 * Header in front of the frame → meta words. The slot's meta was reset by alloc and its OFF is the default start
 * (≡ 2 mod 4), so that the header is 4-aligned.
 */
export function readVnetHeader(frames: Frames, slot: number): void {
  const m = slot * META_WORDS;
  const meta = frames.meta;
  const at = (meta[m + META_OFF] - VNET_BYTES) >> 2;
  const first = frames.i32[at];
  if (first === 0) return; // an ordinary frame with a full checksum
  const second = frames.i32[at + 1];
  meta[m + META_FLAGS] = first & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID);
  meta[m + META_GSO] = ((first >>> 8) & 0xff) | (second << 16);
  meta[m + META_HDRLEN] = first >>> 16;
  meta[m + META_CSUM] = (second >>> 16) | (frames.u16[(at + 2) << 1] << 16);
}

/** Meta words → header in front of the frame. False when the headroom is used up (the frame cannot be sent). */
export function writeVnetHeader(frames: Frames, slot: number): boolean {
  const m = slot * META_WORDS;
  const meta = frames.meta;
  const at = meta[m + META_OFF] - VNET_BYTES;
  if (at < frames.start(slot) - HEADROOM) return false;
  // DATA_VALID means nothing to a kernel that receives the frame; only a request to complete the checksum does.
  const flags = meta[m + META_FLAGS] & FRAME_NEEDS_CSUM;
  const gso = meta[m + META_GSO];
  const csum = flags === 0 ? 0 : meta[m + META_CSUM];
  const isSuper = (gso & 0xff) !== 0;
  const first = flags | (isSuper ? ((gso & 0xff) << 8) | (meta[m + META_HDRLEN] << 16) : 0);
  const second = (isSuper ? gso >>> 16 : 0) | (csum << 16);
  if ((at & 3) === 0) {
    frames.i32[at >> 2] = first;
    frames.i32[(at >> 2) + 1] = second;
    frames.u16[(at >> 1) + 4] = csum >>> 16;
    return true;
  }
  // The frame's start was moved by something that is no multiple of four.
  const u8 = frames.u8;
  for (let i = 0; i < 4; i++) {
    u8[at + i] = first >>> (8 * i);
    u8[at + 4 + i] = second >>> (8 * i);
  }
  u8[at + 8] = csum >>> 16;
  u8[at + 9] = csum >>> 24;
  return true;
}
