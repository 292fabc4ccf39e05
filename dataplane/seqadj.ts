/**
 * Sequence adjustment: the numbers of a TCP connection whose payload the router has lengthened or shortened.
 *
 * What was added is remembered by conntrack/extensions.ts (netfilter's nf_conntrack_seqadj). Here it is put into segments:
 * sequence number, acknowledgement, and the edges of SACK blocks (RFC 2018), with the checksum (RFC 1624); and told to the
 * window tracker, which sees what the ends of the connection have sent.
 */
import type { Extensions } from '../conntrack/extensions.ts';
import { FRAME_NEEDS_CSUM, type Frames } from './frames.ts';
import type { Packet } from './wire/packet.ts';
import { adjust } from './wire/sum.ts';

const ACK = 16;
const OPTION_SACK = 5;

export class SequenceAdjuster {
  private readonly extensions: Extensions;
  private readonly frames: Frames;

  constructor(extensions: Extensions, frames: Frames) {
    this.extensions = extensions;
    this.frames = frames;
  }

  /**
   * What the router has added to the data that this segment acknowledges, for the window tracker, which asks of connections
   * with IPS_SEQ_ADJUST only.
   */
  ackOffset(index: number, dir: number, p: Packet): number {
    const e = this.extensions.existing(index);
    if (e < 0) return 0;
    return this.extensions.ackOffset(e, dir ^ 1, be32(this.frames.u8, p.l4 + 8));
  }

  /** Moves sequence number, acknowledgement and SACK blocks of a TCP segment. */
  adjust(p: Packet): void {
    const e = this.extensions.existing(p.ct);
    if (e < 0) return;
    const { u8, u16 } = this.frames;
    const l4 = p.l4;
    const partial = (p.flags & FRAME_NEEDS_CSUM) !== 0;
    let sum = 0;
    const seq = be32(u8, l4 + 4);
    const seqOffset = this.extensions.offset(e, p.dir, seq);
    if (seqOffset !== 0) sum += this.put(l4 + 4, (seq + seqOffset) | 0);
    if ((p.tcpFlags & ACK) !== 0) {
      const ack = be32(u8, l4 + 8);
      const ackOffset = this.extensions.ackOffset(e, p.dir ^ 1, ack);
      if (ackOffset !== 0) sum += this.put(l4 + 8, (ack - ackOffset) | 0);
    }
    sum += this.adjustSack(p, e);
    if (sum !== 0 && !partial) u16[(l4 + 16) >> 1] = adjust(u16[(l4 + 16) >> 1], sum);
  }

  /** SACK blocks (RFC 2018) name the other direction's data. Returns the change of the sum. */
  private adjustSack(p: Packet, e: number): number {
    const u8 = this.frames.u8;
    const end = p.l4 + ((u8[p.l4 + 12] >> 4) << 2);
    let sum = 0;
    for (let at = p.l4 + 20; at < end; ) {
      const kind = u8[at];
      if (kind === 0) break;
      if (kind === 1) {
        at++;
        continue;
      }
      const length = at + 1 < end ? u8[at + 1] : 0;
      if (length < 2 || at + length > end) break;
      if (kind === OPTION_SACK)
        for (let edge = at + 2; edge + 4 <= at + length; edge += 4) {
          const value = be32(u8, edge);
          sum += this.put(edge, (value - this.extensions.ackOffset(e, p.dir ^ 1, value)) | 0);
        }
      at += length;
    }
    return sum;
  }

  /** Writes a big-endian word at any offset; returns what that adds to the sum of the segment. */
  private put(at: number, value: number): number {
    const u8 = this.frames.u8;
    // An odd offset moves the bytes into the other half of each 16-bit word.
    const odd = at & 1;
    let sum = 0;
    for (let k = 0; k < 4; k++) {
      const byte = (value >> (24 - 8 * k)) & 0xff;
      const shift = ((k + odd) & 1) << 3;
      sum += (~(u8[at + k] << shift) & (0xff << shift)) + (byte << shift);
      // ~m within its half: the other byte of the half contributes nothing.
      u8[at + k] = byte;
    }
    return sum;
  }
}

/** A big-endian word at any offset. */
export function be32(u8: Uint8Array, at: number): number {
  return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3];
}
