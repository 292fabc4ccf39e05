/**
 * MSS clamping: the Maximum Segment Size that a TCP SYN announces (RFC 9293 §3.7.1, RFC 6691) is lowered to what a
 * narrow link carries, so that segments need no path MTU discovery (RFC 2923 §3). As Linux's TCPMSS target, with one
 * difference: a SYN without the option gets none, since its receiver must assume 536 or 1220 anyway.
 */
import { FRAME_NEEDS_CSUM, type Frames } from './frames.ts';
import type { Packet } from './wire/packet.ts';
import { adjust, delta } from './wire/sum.ts';

const SYN = 2;
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;

/** Value of IF_MSS_CLAMP: no clamping, or to the MTU of the path; others are bytes. */
export const MSS_OFF = 0;
export const MSS_PMTU = -1;

/** The most that a port's setting allows; `mtu`: the smaller one of both links. */
export function mssOf(setting: number, family: number, mtu: number): number {
  return setting === MSS_PMTU ? mtu - (family === 4 ? 40 : 60) : setting;
}

/**
 * Lowers the MSS option of the TCP SYN in `p` to `most` bytes and fixes the checksum (RFC 1624). The frame has been rewritten
 * already. Does nothing to other segments, and to a SYN that announces no more.
 */
export function clampMss(p: Packet, frames: Frames, most: number): void {
  if ((p.tcpFlags & SYN) === 0 || most < 1) return;
  const { u8, u16 } = frames;
  const l4 = p.l4;
  const end = l4 + ((u8[l4 + 12] >> 4) << 2);
  for (let at = l4 + 20; at < end; ) {
    const kind = u8[at];
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    const length = at + 1 < end ? u8[at + 1] : 0;
    if (length < 2 || at + length > end) return;
    if (kind === OPTION_MSS && length === 4) {
      if (((u8[at + 2] << 8) | u8[at + 3]) <= most) return;
      // The value may begin at an odd byte: the two halves that hold it are exchanged as a word.
      const h = (at + 2) >> 1;
      const before = u16[h] | (u16[h + 1] << 16);
      u8[at + 2] = most >> 8;
      u8[at + 3] = most;
      const sum = (l4 + 16) >> 1;
      // A partial checksum does not cover the header yet.
      if ((p.flags & FRAME_NEEDS_CSUM) === 0) u16[sum] = adjust(u16[sum], delta(before, u16[h] | (u16[h + 1] << 16)));
      return;
    }
    at += length;
  }
}
