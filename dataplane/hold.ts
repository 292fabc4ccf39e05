/**
 * Hold: packets that wait for a neighbour. Each worker has one; the frame keeps its slot, the packet's state is kept
 * beside it, so that the walk goes on behind the neighbour stage as if nothing had happened.
 *
 * Bounded: CAPACITY packets in all, PER_NEIGHBOUR for one next hop (the oldest goes first, as Linux's unres_qlen).
 */
import type { Packet } from './wire/packet.ts';

const CAPACITY = 512;
export const PER_NEIGHBOUR = 64;
const WORDS = 48;

export class Hold {
  private readonly words = new Int32Array(CAPACITY * WORDS);
  private readonly used = new Uint8Array(CAPACITY);
  private order = 0;
  count = 0;

  /** Keeps the packet. Returns the slot of an older packet that had to go, −1 when none had to, −2 when all is full. */
  keep(p: Packet, now: number): number {
    let free = -1;
    let oldest = -1;
    let waiting = 0;
    for (let n = 0; n < CAPACITY; n++) {
      if (this.used[n] === 0) {
        if (free < 0) free = n;
        continue;
      }
      const at = n * WORDS;
      const w = this.words;
      if (
        w[at + 20] === p.outPort &&
        w[at + 21] === p.n0 &&
        w[at + 22] === p.n1 &&
        w[at + 23] === p.n2 &&
        w[at + 24] === p.n3
      ) {
        waiting++;
        if (oldest < 0 || w[at + 40] - w[oldest * WORDS + 40] < 0) oldest = n;
      }
    }
    let evicted = -1;
    if (waiting >= PER_NEIGHBOUR || (free < 0 && oldest >= 0)) {
      evicted = this.words[oldest * WORDS];
      free = oldest;
      this.count--;
    } else if (free < 0) return -2;
    this.save(free, p, now);
    return evicted;
  }

  private save(n: number, p: Packet, now: number): void {
    const w = this.words;
    const at = n * WORDS;
    this.used[n] = 1;
    this.count++;
    w[at] = p.slot;
    w[at + 1] = p.off;
    w[at + 2] = p.len;
    w[at + 3] = p.port;
    w[at + 4] = p.l3;
    w[at + 5] = p.l4;
    w[at + 6] = p.end;
    w[at + 7] = p.family;
    w[at + 8] = p.proto;
    w[at + 9] = p.s0;
    w[at + 10] = p.s1;
    w[at + 11] = p.s2;
    w[at + 12] = p.s3;
    w[at + 13] = p.d0;
    w[at + 14] = p.d1;
    w[at + 15] = p.d2;
    w[at + 16] = p.d3;
    w[at + 17] = p.ports;
    w[at + 18] = p.rports;
    w[at + 19] = p.nexthop;
    w[at + 20] = p.outPort;
    w[at + 21] = p.n0;
    w[at + 22] = p.n1;
    w[at + 23] = p.n2;
    w[at + 24] = p.n3;
    w[at + 25] = p.ct;
    w[at + 26] = p.dir;
    w[at + 27] = p.ctinfo;
    w[at + 28] = p.ttl;
    w[at + 29] = p.tos;
    w[at + 30] = p.flags;
    w[at + 31] = p.gsoType | (p.gsoSize << 8);
    w[at + 32] = p.innerL3;
    w[at + 33] = p.innerL4;
    w[at + 34] = p.innerProto;
    w[at + 35] = p.innerDir;
    w[at + 36] = p.fragOffset;
    w[at + 37] = p.own;
    w[at + 38] = now;
    w[at + 39] = p.mtu;
    w[at + 40] = this.order = (this.order + 1) | 0;
    w[at + 41] = p.dontFragment;
    w[at + 42] = p.hasOptions;
    w[at + 43] = p.groupMac;
  }

  /**
   * Restores the next packet at or after position `n` into `p` (frame bytes are still as received) and forgets it when
   * `take`. Returns its position, or −1 at the end. Packets come in the order of the positions, not of arrival; use
   * `oldest` for order.
   */
  restore(n: number, p: Packet, i32: Int32Array): void {
    const w = this.words;
    const at = n * WORDS;
    p.slot = w[at];
    p.off = w[at + 1];
    p.len = w[at + 2];
    p.port = w[at + 3];
    p.l3 = w[at + 4];
    p.l4 = w[at + 5];
    p.end = w[at + 6];
    p.family = w[at + 7];
    p.proto = w[at + 8];
    p.s0 = w[at + 9];
    p.s1 = w[at + 10];
    p.s2 = w[at + 11];
    p.s3 = w[at + 12];
    p.d0 = w[at + 13];
    p.d1 = w[at + 14];
    p.d2 = w[at + 15];
    p.d3 = w[at + 16];
    p.ports = w[at + 17];
    p.rports = w[at + 18];
    p.nexthop = w[at + 19];
    p.outPort = w[at + 20];
    p.n0 = w[at + 21];
    p.n1 = w[at + 22];
    p.n2 = w[at + 23];
    p.n3 = w[at + 24];
    p.ct = w[at + 25];
    p.dir = w[at + 26];
    p.ctinfo = w[at + 27];
    p.ttl = w[at + 28];
    p.tos = w[at + 29];
    p.flags = w[at + 30];
    p.gsoType = w[at + 31] & 0xff;
    p.gsoSize = w[at + 31] >>> 8;
    p.innerL3 = w[at + 32];
    p.innerL4 = w[at + 33];
    p.innerProto = w[at + 34];
    p.innerDir = w[at + 35];
    p.fragOffset = w[at + 36];
    p.own = w[at + 37];
    p.mtu = w[at + 39];
    p.dontFragment = w[at + 41];
    p.hasOptions = w[at + 42];
    p.groupMac = w[at + 43];
    p.fresh = 0;
    p.errorType = 0;
    const l3 = p.l3 >> 2;
    if (p.family === 4) {
      p.rs0 = i32[l3 + 3];
      p.rd0 = i32[l3 + 4];
      p.rs1 = p.rs2 = p.rs3 = p.rd1 = p.rd2 = p.rd3 = 0;
    } else {
      p.rs0 = i32[l3 + 2];
      p.rs1 = i32[l3 + 3];
      p.rs2 = i32[l3 + 4];
      p.rs3 = i32[l3 + 5];
      p.rd0 = i32[l3 + 6];
      p.rd1 = i32[l3 + 7];
      p.rd2 = i32[l3 + 8];
      p.rd3 = i32[l3 + 9];
    }
  }

  /** Position of the packet that came first among those not looked at since `after` (an order number), or −1. */
  nextAfter(after: number): number {
    const w = this.words;
    let best = -1;
    for (let n = 0; n < CAPACITY; n++) {
      if (this.used[n] === 0 || w[n * WORDS + 40] - after <= 0) continue;
      if (best < 0 || w[n * WORDS + 40] - w[best * WORDS + 40] < 0) best = n;
    }
    return best;
  }

  /** Order number of the packet at position `n`. */
  orderOf(n: number): number {
    return this.words[n * WORDS + 40];
  }

  /** Clock ms at which the packet at position `n` was kept. */
  since(n: number): number {
    return this.words[n * WORDS + 38];
  }

  forget(n: number): void {
    this.used[n] = 0;
    this.count--;
  }
}
