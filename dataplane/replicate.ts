/**
 * Replicate: the action of a multicast entry of the engine (offload/multicast.ts). One frame in, a copy out of every
 * egress port that is up: group MAC (RFC 1112 §6.4, RFC 2464 §7), the port's own source MAC and VLAN tag, TTL or hop
 * limit one less, the IPv4 header checksum with it.
 *
 * Left to the slow path, as with any entry: options and extension headers, fragments, TTL ≤ 1, wrong lengths or header
 * checksums, a frame that is too long for one of the egress links, super-frames. Link-local groups never leave their
 * link (RFC 5771 §4, RFC 4291 §2.7).
 */
import { MC_BYTES, MC_EGRESS, MC_LAST, MC_PACKETS, type MulticastTable } from '../offload/multicast.ts';
import { type Frames, META_FLAGS, META_GSO, META_LEN, META_OFF, META_WORDS } from './frames.ts';
import {
  IF_FLAGS,
  IF_MAC_HI,
  IF_MAC_LO,
  IF_MTU,
  IF_PARENT,
  IF_VLAN,
  IF_WORDS,
  IFF_UP,
  MAX_PORTS,
} from './interfaces.ts';
import { adjust, fold, halves } from './wire/sum.ts';

/** A queue for frames that leave (the path). */
interface Egress {
  queue(slot: number, port: number, length: number): number;
}

export class Replicator {
  private readonly table: MulticastTable;
  private readonly frames: Frames;
  private readonly interfaces: Int32Array;
  /** Copies that found no free slot. */
  lost = 0;

  constructor(table: MulticastTable, frames: Frames, interfaces: Int32Array) {
    this.table = table;
    this.frames = frames;
    this.interfaces = interfaces;
  }

  /** True when an entry forwarded the frame in `slot`, which came by `port`; the slot is used up then. */
  forward(slot: number, port: number, now: number, egress: Egress): boolean {
    const { u16, i32, u8, meta } = this.frames;
    const m = slot * META_WORDS;
    const off = meta[m + META_OFF];
    const w = (off + 14) >> 2;
    if ((u8[off] & 1) === 0 || (u8[off + 6] & 1) !== 0 || meta[m + META_GSO] !== 0) return false;
    const four = u16[(off + 12) >> 1] === 0x0008;
    let total: number;
    let e: number;
    if (four) {
      const group = i32[w + 4];
      total = (u8[off + 16] << 8) | u8[off + 17];
      if ((group & 0xf0) !== 0xe0 || (group & 0xffffff) === 0x0000e0 || u8[off + 22] <= 1 || total < 28) return false;
      // No options, no fragment; the header's sum must be right.
      if (u8[off + 14] !== 0x45 || (i32[w + 1] & 0xff3f0000) !== 0) return false;
      const sum = halves(i32[w]) + halves(i32[w + 1]) + halves(i32[w + 2]) + halves(i32[w + 3]) + halves(group);
      if (fold(sum) !== 0xffff) return false;
      e = this.table.find(4, port, i32[w + 3], 0, 0, 0, group, 0, 0, 0);
      if (e < 0) e = this.table.find(4, port, 0, 0, 0, 0, group, 0, 0, 0);
    } else {
      const g0 = i32[w + 6];
      total = ((u8[off + 18] << 8) | u8[off + 19]) + 40;
      const scope = (g0 >> 8) & 15;
      if ((g0 & 0xff) !== 0xff || scope <= 2 || u8[off + 21] <= 1 || u8[off + 14] >> 4 !== 6 || total < 48)
        return false;
      // UDP only: an extension header may ask for more than forwarding.
      if (u8[off + 20] !== 17) return false;
      const [g1, g2, g3] = [i32[w + 7], i32[w + 8], i32[w + 9]];
      e = this.table.find(6, port, i32[w + 2], i32[w + 3], i32[w + 4], i32[w + 5], g0, g1, g2, g3);
      if (e < 0) e = this.table.find(6, port, 0, 0, 0, 0, g0, g1, g2, g3);
    }
    if (e < 0 || total > meta[m + META_LEN] - 14 || !this.fits(e, total)) return false;
    const t = this.table.words;
    t[e + MC_PACKETS]++;
    t[e + MC_BYTES] = (t[e + MC_BYTES] + total) | 0;
    t[e + MC_LAST] = now;
    if (four) {
      u8[off + 22]--;
      u16[(off + 24) >> 1] = adjust(u16[(off + 24) >> 1], 0xfffe);
    } else u8[off + 21]--;
    this.copies(slot, off, total, e, four, egress);
    return true;
  }

  /** Whether the datagram fits every egress link. */
  private fits(e: number, total: number): boolean {
    for (let port = 0; port < MAX_PORTS; port++)
      if (this.leads(e, port) && total > this.interfaces[port * IF_WORDS + IF_MTU]) return false;
    return true;
  }

  /** True when the entry has this egress port, and the port is up. */
  private leads(e: number, port: number): boolean {
    const bits = this.table.words[e + MC_EGRESS + (port >> 5)];
    return (bits & (1 << (port & 31))) !== 0 && (this.interfaces[port * IF_WORDS + IF_FLAGS] & IFF_UP) !== 0;
  }

  /** The last copy is the frame itself; without any egress the slot is free. */
  private copies(slot: number, off: number, total: number, e: number, four: boolean, egress: Egress): void {
    const { meta, u8 } = this.frames;
    let waiting = -1;
    for (let port = 0; port < MAX_PORTS; port++) {
      if (!this.leads(e, port)) continue;
      if (waiting >= 0) {
        const copy = this.frames.alloc(total + 14);
        if (copy < 0) this.lost++;
        else {
          const at = meta[copy * META_WORDS + META_OFF];
          u8.copyWithin(at, off, off + 14 + total);
          meta[copy * META_WORDS + META_FLAGS] = meta[slot * META_WORDS + META_FLAGS];
          this.send(copy, at, total, waiting, four, egress);
        }
      }
      waiting = port;
    }
    if (waiting < 0) this.frames.free(slot);
    else this.send(slot, off, total, waiting, four, egress);
  }

  /** Writes the link header and queues the frame. */
  private send(slot: number, off: number, total: number, port: number, four: boolean, egress: Egress): void {
    const { u8, u16, meta } = this.frames;
    const m = slot * META_WORDS;
    const r = port * IF_WORDS;
    const tag = this.interfaces[r + IF_PARENT] !== 0 ? this.interfaces[r + IF_VLAN] : 0;
    const at = tag === 0 ? off : off - 4;
    if (four) {
      // 01:00:5e and the group's last 23 bits.
      u8[at] = 0x01;
      u8[at + 1] = 0x00;
      u8[at + 2] = 0x5e;
      u8[at + 3] = u8[off + 31] & 0x7f;
      u8[at + 4] = u8[off + 32];
      u8[at + 5] = u8[off + 33];
    } else {
      u8[at] = 0x33;
      u8[at + 1] = 0x33;
      for (let n = 0; n < 4; n++) u8[at + 2 + n] = u8[off + 50 + n];
    }
    const h = at >> 1;
    u16[h + 3] = this.interfaces[r + IF_MAC_LO];
    u16[h + 4] = this.interfaces[r + IF_MAC_LO] >>> 16;
    u16[h + 5] = this.interfaces[r + IF_MAC_HI];
    if (tag !== 0) {
      u16[h + 6] = 0x0081;
      u16[h + 7] = ((tag & 0xff) << 8) | (tag >> 8);
      u16[h + 8] = four ? 0x0008 : 0xdd86;
      meta[m + META_OFF] = at;
    }
    const length = total + (tag === 0 ? 14 : 18);
    meta[m + META_LEN] = length;
    egress.queue(slot, port, length);
  }
}
