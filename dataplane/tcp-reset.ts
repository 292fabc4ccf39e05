/**
 * The RST with which the router refuses a TCP segment in its receiver's name (RFC 9293 §3.5.2): from the address and
 * port that were asked for, with the numbers that make the sender believe it. As Linux's `reject with tcp reset`.
 *
 * What it does not do: answer a RST (nothing may), or a fragment (its header may be another's).
 */
import { type Frames, META_LEN, META_OFF, META_WORDS } from './frames.ts';
import { pseudoHeader, TCP } from './parse.ts';
import type { Packet } from './wire/packet.ts';
import { fold, sumRange } from './wire/sum.ts';

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;

/** Whether the segment may be answered by a RST. */
export function mayReset(p: Packet): boolean {
  if (p.isFragment !== 0 || p.groupMac !== 0 || (p.tcpFlags & RST) !== 0) return false;
  return p.family === 4 ? (p.rs0 & 0xff) !== 0 : (p.rs0 | p.rs1 | p.rs2 | p.rs3) !== 0;
}

/**
 * Builds the RST for the segment `p` in slot `slot`, whose IP packet begins 14 bytes behind its OFF. Addresses and ports
 * are those of the segment as it was received, exchanged.
 */
export function buildReset(p: Packet, frames: Frames, slot: number): void {
  const { u8, u16, i32, meta } = frames;
  const m = slot * META_WORDS;
  const l3 = meta[m + META_OFF] + 14;
  const w = l3 >> 2;
  const header = p.family === 4 ? 20 : 40;
  const l4 = l3 + header;
  const t = l4 >> 2;
  const from = p.l4;
  u8.fill(0, l3, l4 + 20);
  if (p.family === 4) {
    u8[l3] = 0x45;
    u8[l3 + 3] = 40;
    u8[l3 + 6] = 0x40; // DF
    u8[l3 + 8] = 64;
    u8[l3 + 9] = TCP;
    i32[w + 3] = p.rd0;
    i32[w + 4] = p.rs0;
    u16[(l3 + 10) >> 1] = ~fold(sumRange(u16, i32, u8, l3, l4, 0));
  } else {
    u8[l3] = 0x60;
    u8[l3 + 5] = 20;
    u8[l3 + 6] = TCP;
    u8[l3 + 7] = 64;
    i32[w + 2] = p.rd0;
    i32[w + 3] = p.rd1;
    i32[w + 4] = p.rd2;
    i32[w + 5] = p.rd3;
    i32[w + 6] = p.rs0;
    i32[w + 7] = p.rs1;
    i32[w + 8] = p.rs2;
    i32[w + 9] = p.rs3;
  }
  i32[t] = (p.rports >>> 16) | (p.rports << 16);
  u8[l4 + 12] = 0x50;
  if ((p.tcpFlags & ACK) !== 0) {
    // Its own acknowledgement is the number that it expects.
    u8.copyWithin(l4 + 4, from + 8, from + 12);
    u8[l4 + 13] = RST;
  } else {
    const data = p.end - from - ((u8[from + 12] >> 4) << 2);
    const seq = (u8[from + 4] << 24) | (u8[from + 5] << 16) | (u8[from + 6] << 8) | u8[from + 7];
    const ack = (seq + data + ((p.tcpFlags & SYN) >> 1) + (p.tcpFlags & FIN)) | 0;
    u8[l4 + 8] = ack >>> 24;
    u8[l4 + 9] = ack >> 16;
    u8[l4 + 10] = ack >> 8;
    u8[l4 + 11] = ack;
    u8[l4 + 13] = RST | ACK;
  }
  // The sum of the addresses is the same in either order.
  u16[(l4 + 16) >> 1] = ~fold(sumRange(u16, i32, u8, l4, l4 + 20, fold(pseudoHeader(p, 20))));
  meta[m + META_LEN] = header + 34;
}
