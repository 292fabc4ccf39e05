/**
 * Blocks: cuts a pcapng stream (little-endian, as the router writes it) into whole blocks, and counts frames.
 *
 * So that a capture that is broken off, or has enough, ends behind a block and is a valid file.
 */
import { BLOCK_ENHANCED, BLOCK_STATISTICS } from '../../dataplane/ports/capture-reader.ts';

export class Blocks {
  frames = 0;
  /** As the last statistics block said. */
  lost = 0;
  private readonly limit: number;
  private rest: Buffer = Buffer.alloc(0);

  /** @param limit frames that are enough; 0: never */
  constructor(limit: number) {
    this.limit = limit;
  }

  get enough(): boolean {
    return this.limit > 0 && this.frames >= this.limit;
  }

  /** The whole blocks that these bytes complete, up to the last frame that is wanted. */
  take(bytes: Uint8Array): Uint8Array {
    const all = this.rest.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.rest, bytes]);
    let at = 0;
    while (all.length - at >= 12 && !this.enough) {
      const length = all.readUInt32LE(at + 4);
      if (all.length - at < length) break;
      const type = all.readUInt32LE(at);
      if (type === BLOCK_ENHANCED) this.frames++;
      // Interface, time stamp, then one option of 8 bytes: the frames lost.
      else if (type === BLOCK_STATISTICS) this.lost = Number(all.readBigUInt64LE(at + 24));
      at += length;
    }
    this.rest = all.subarray(at);
    return all.subarray(0, at);
  }
}
