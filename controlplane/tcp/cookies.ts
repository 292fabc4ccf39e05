/**
 * SYN cookies (RFC 4987 §3.6): the initial sequence number of an answer to a SYN is all that is kept of it, so that a
 * flood of SYNs takes no memory. It is made of both ends, a secret and the time, and says which segment size the peer takes:
 *
 *   31…27 time in units of 65.5 s, mod 32    26…24 index of the segment size
 *   23…12 keyed hash of both ends and the bits above    11…0 the same with the peer's initial sequence number
 *
 * A segment that has overtaken the first one has the upper hash right and not the lower: it came too early, and is no stranger.
 * Every connection is made so, not only under attack: there are no windows to scale and no options to remember.
 * A guess is right once in 2^24, and an honest cookie is good for one to two units.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { addressBytes } from '../../dataplane/wire/address.ts';
import { setBe16, setBe32 } from '../../dataplane/wire/bytes.ts';
import type { RandomSource } from '../random.ts';
import type { Ends } from './segment.ts';

const UNIT_SHIFT = 16;
/** Sizes that a cookie can name: the largest that the peer takes is meant. The first is what every peer takes (RFC 9293 §3.7.1). */
const SIZES = [536, 1024, 1220, 1280, 1360, 1400, 1440, 1460] as const;

/** Answer of `check`: a later segment of a connection whose first one has not come. */
export const EARLY = -1;

export class SynCookies {
  private readonly secret: Uint8Array;

  /** @param random fills the secret; absent: the host's generator */
  constructor(random?: RandomSource) {
    this.secret = random === undefined ? randomBytes(32) : new Uint8Array(32);
    if (random !== undefined) for (let n = 0; n < 32; n += 4) setBe32(this.secret, n, random());
  }

  /** The initial sequence number for an answer to a SYN with this sequence number and segment size (0: none told). */
  make(now: number, ends: Ends, theirSeq: number, mss: number): number {
    let index = 0;
    while (index + 1 < SIZES.length && SIZES[index + 1] <= mss) index++;
    const head = (unitOf(now) << 27) | (index << 24);
    return head | this.hash(ends, head, theirSeq);
  }

  /**
   * What a connection's first segment brings back: the cookie (its acknowledgment less one) and the peer's initial sequence
   * number (its sequence number less one). The segment size that the peer takes; EARLY: it is not the first; 0: it is
   * none of ours, or too old.
   */
  check(now: number, ends: Ends, theirSeq: number, cookie: number): number {
    const head = cookie & ~0xffffff;
    if (((unitOf(now) - (cookie >>> 27)) & 31) > 1) return 0;
    const differs = (cookie & 0xffffff) ^ this.hash(ends, head, theirSeq);
    return differs === 0 ? SIZES[(head >>> 24) & 7] : differs < 0x1000 ? EARLY : 0;
  }

  private hash(ends: Ends, head: number, theirSeq: number): number {
    const numbers = new Uint8Array(12);
    setBe16(numbers, 0, ends.ourPort);
    setBe16(numbers, 2, ends.theirPort);
    setBe32(numbers, 4, head);
    setBe32(numbers, 8, theirSeq);
    const keyed = () =>
      createHmac('sha256', this.secret)
        .update(addressBytes(ends.family, ends.us))
        .update(addressBytes(ends.family, ends.them));
    const upper = keyed().update(numbers.subarray(0, 8)).digest().readUInt16BE(0) & 0xfff;
    const lower = keyed().update(numbers).digest().readUInt16BE(0) & 0xfff;
    return (upper << 12) | lower;
  }
}

function unitOf(now: number): number {
  return (now >>> UNIT_SHIFT) & 31;
}
