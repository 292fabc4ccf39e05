/**
 * Fragment: cuts a finished frame into fragments (RFC 791 §3.2, RFC 8200 §4.5), the last thing before tx.
 *
 * What came in fragments leaves in fragments: with the same cuts while each of them fits, else anew, never larger than the
 * largest that came (Linux's frag_max_size), so that a path MTU that the sender found is not exceeded behind the router. IPv4
 * without DF is cut to a smaller link. Nobody else's IPv6 is cut: routers do not fragment (RFC 8200 §4.5).
 *
 * IPv4 keeps its identification; options whose copy flag is not set are overwritten by No-Operation behind the first
 * fragment (RFC 791 §3.1), so that all headers have one length. IPv6 gets a new identification from a seeded permutation of a
 * counter, which does not repeat within 2^27 datagrams and cannot be told from outside (RFC 7739).
 */
import { type Frames, META_LEN, META_OFF, META_PORT, META_WORDS } from './frames.ts';
import { fold, sumRange } from './wire/sum.ts';

const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION = 60;

export class Fragmenter {
  private readonly frames: Frames;
  private readonly seed: number;
  private counter = 0;
  private readonly worker: number;

  // The frame that is being cut: see begin().
  private slot = 0;
  private off = 0;
  private l3 = 0;
  private end = 0;
  private family = 4;
  /** Bytes from the IP header that every fragment repeats; payload of one fragment at most. */
  private header = 0;
  private room = 0;
  private df = 0;
  private at = 0;
  private id = 0;
  /** Where to cut, or null: every `room` bytes. */
  private shape: Int32Array | null = null;
  private next6 = 0;
  private nextField = 0;
  private cut = 0;

  /** @param worker makes the identifications of several workers differ, 0 … 31 */
  constructor(frames: Frames, seed: number, worker: number) {
    this.frames = frames;
    this.seed = seed;
    this.worker = worker;
  }

  /**
   * Prepares to cut the datagram at `l3` … `end` of the frame in `slot`, whose link header is written, into fragments of at most
   * `limit` bytes of IP. `shape` and `at`: how it came (reassembly.ts), or null. Returns how many fragments it will be, 0
   * when it cannot be cut to that. The slot stays the caller's; its header is not fit to be sent afterwards.
   */
  begin(slot: number, l3: number, end: number, limit: number, shape: Int32Array | null, at: number): number {
    const u8 = this.frames.u8;
    this.slot = slot;
    this.off = this.frames.meta[slot * META_WORDS + META_OFF];
    this.l3 = l3;
    this.end = end;
    this.cut = 0;
    this.family = u8[l3] >> 4;
    if (this.family === 4) {
      this.header = (u8[l3] & 15) << 2;
      this.room = limit - this.header;
      this.df = u8[l3 + 6] & 0x40;
    } else {
      this.header = this.perFragment(l3);
      this.room = limit - this.header - 8;
      this.next6 = u8[this.nextField];
      this.id = this.identification();
    }
    this.at = l3 + this.header;
    if (this.room < 8) return 0;
    const payload = end - this.at;
    this.shape = shape !== null && this.fits(shape, at) ? shape : null;
    if (this.shape !== null) {
      this.cut = at + 2;
      // Linux sends what it kept in pieces without DF, and what it cuts anew with it.
      this.df = 0;
      return (shape as Int32Array)[at + 1];
    }
    const step = this.room & ~7;
    return payload <= this.room ? 1 : 1 + Math.ceil((payload - this.room) / step);
  }

  /** Whether every fragment as it came still fits, begins at a multiple of 8, and nothing was put in or taken out. */
  private fits(shape: Int32Array, at: number): boolean {
    const count = shape[at + 1];
    let start = this.header;
    for (let n = 0; n < count; n++) {
      const end = shape[at + 2 + n];
      const bytes = end - start;
      if (bytes <= 0 || bytes > this.room || ((bytes & 7) !== 0 && n !== count - 1)) return false;
      start = end;
    }
    return start === this.end - this.l3;
  }

  /**
   * Bytes of the headers that every fragment of an IPv6 packet repeats: up to the routing header, else the hop-by-hop options
   * (RFC 8200 §4.5, as Linux's ip6_find_1stfragopt). Sets `nextField` to the field that will name the fragment header.
   */
  private perFragment(l3: number): number {
    const u8 = this.frames.u8;
    let at = l3 + 40;
    let routed = false;
    this.nextField = l3 + 6;
    for (;;) {
      const next = u8[this.nextField];
      if (next === ROUTING) routed = true;
      else if (next !== HOP_BY_HOP && (next !== DESTINATION || routed)) return at - l3;
      this.nextField = at;
      at += (u8[at + 1] + 1) << 3;
      if (at > this.end) return at - l3;
    }
  }

  /** Never 0, as Linux. */
  private identification(): number {
    for (;;) {
      let h = ((this.counter++ & 0x7ffffff) | (this.worker << 27)) ^ this.seed;
      h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
      h ^= h >>> 16;
      if (h !== 0) return h;
    }
  }

  /** Makes the next fragment in a slot of its own; −1 when all are made, −2 when no slot was free. */
  next(): number {
    const left = this.end - this.at;
    if (left <= 0) return -1;
    let bytes = left > this.room ? this.room & ~7 : left;
    if (this.shape !== null) bytes = this.l3 + this.shape[this.cut++] - this.at;
    const { frames, off, l3 } = this;
    const { u8, meta } = frames;
    const extra = this.family === 4 ? 0 : 8;
    const before = l3 - off + this.header;
    const slot = frames.alloc(before + extra + bytes);
    if (slot < 0) return -2;
    const m = slot * META_WORDS;
    const to = meta[m + META_OFF];
    meta[m + META_LEN] = before + extra + bytes;
    meta[m + META_PORT] = meta[this.slot * META_WORDS + META_PORT];
    u8.copyWithin(to, off, off + before);
    u8.copyWithin(to + before + extra, this.at, this.at + bytes);
    const offset = this.at - l3 - this.header;
    const more = bytes < left;
    if (this.family === 4) this.finish4(to + l3 - off, bytes, offset, more);
    else this.finish6(to + l3 - off, bytes, offset, more);
    this.at += bytes;
    return slot;
  }

  private finish4(ip: number, bytes: number, offset: number, more: boolean): void {
    const { u8, u16, i32 } = this.frames;
    const total = this.header + bytes;
    u8[ip + 2] = total >> 8;
    u8[ip + 3] = total;
    u8[ip + 6] = this.df | (more ? 0x20 : 0) | (offset >> 11);
    u8[ip + 7] = offset >> 3;
    u16[(ip + 10) >> 1] = 0;
    u16[(ip + 10) >> 1] = ~fold(sumRange(u16, i32, u8, ip, ip + this.header, 0));
    // The first one carries all options; the frame that is cut loses those that the others must not have.
    if (offset === 0 && this.header > 20) this.keepCopied();
  }

  private finish6(ip: number, bytes: number, offset: number, more: boolean): void {
    const u8 = this.frames.u8;
    const i32 = this.frames.i32;
    const length = this.header - 40 + 8 + bytes;
    u8[ip + 4] = length >> 8;
    u8[ip + 5] = length;
    u8[ip + this.nextField - this.l3] = FRAGMENT;
    const at = ip + this.header;
    u8[at] = this.next6;
    u8[at + 1] = 0;
    u8[at + 2] = offset >> 8;
    u8[at + 3] = (offset & 0xf8) | (more ? 1 : 0);
    i32[(at + 4) >> 2] = this.id;
  }

  /** RFC 791 §3.1: options without the copy flag (bit 7) are in the first fragment only. */
  private keepCopied(): void {
    const u8 = this.frames.u8;
    const to = this.l3 + this.header;
    for (let at = this.l3 + 20; at < to; ) {
      const kind = u8[at];
      if (kind === 0) return;
      const length = kind === 1 ? 1 : u8[at + 1];
      if (length < 1 || at + length > to || (length < 2 && kind !== 1)) return;
      if ((kind & 0x80) === 0) u8.fill(1, at, at + length);
      at += length;
    }
  }
}
