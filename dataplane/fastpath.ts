/**
 * Fast path: the offload-lookup stage, the emulated engine at work (the offload-program stage is in offloading.ts).
 *
 * A burst is looked at twice: first every frame's flow is hashed and its entry touched, so that the cache misses overlap;
 * then, in order of arrival, each entry is compared, the frame checked for everything that an engine must leave to the
 * slow path (EX_*), rewritten and queued. What is not a hit is walked by the path at its place in the order.
 *
 * Exceptions (row O8): TCP with FIN, SYN or RST, fragments, IPv4 options, IPv6 extension headers, TTL ≤ 1, frames over
 * the egress MTU, wrong lengths or checksums, entries made before the last flush, neighbours that changed or must be
 * probed. Protocol 41 and ESP are keyed without ports, and by SPI; inner headers are never looked at.
 *
 * In verify mode the engine works on a copy of each hit, the path on the frame itself, and both results are compared.
 */
import * as EX from '../offload/engine.ts';
import { ENGINE_IDLE } from '../offload/policy.ts';
import {
  F4_BYTES,
  F4_CONN,
  F4_DELTA,
  F4_DMAC_HI,
  F4_DMAC_LO,
  F4_EPOCH,
  F4_KEY,
  F4_LAST,
  F4_NDST,
  F4_NEIGH,
  F4_NPORTS,
  F4_NSRC,
  F4_PACKETS,
  F6_BYTES,
  F6_CONN,
  F6_DMAC_HI,
  F6_DMAC_LO,
  F6_EPOCH,
  F6_KEY,
  F6_LAST,
  F6_NEIGH,
  F6_PACKETS,
  KEY_VALID,
} from '../offload/table.ts';
import { CompiledBurst } from './compiled-burst.ts';
import {
  FRAME_DATA_VALID,
  FRAME_NEEDS_CSUM,
  type Frames,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from './frames.ts';
import { BURST, HOME6, UNDECIDED } from './ground.ts';
import {
  IF_CHILDREN,
  IF_FLAGS,
  IF_MAC_HI,
  IF_MAC_LO,
  IF_MTU,
  IF_SOURCES,
  IF_VLAN,
  IF_WORDS,
  IFF_HOST,
  IFF_SECURITY,
  IFF_UP,
} from './interfaces.ts';
import { NEIGH_GEN, NUD_QUIET } from './neighbours.ts';
import { type FastPathOptions, Offloading } from './offloading.ts';
import { ESP, IPV6_IN_IP, TCP, UDP } from './parse.ts';
import { Replicator } from './replicate.ts';
import { SHADOW_HALF, SHADOW_L3, Shadow, spoil } from './shadow.ts';
import * as T from './tables.ts';
import { delta, fold, halves, sumRange } from './wire/sum.ts';

/** A word of the line of an IPv6 entry that does not hold its key. */
const F6_OTHER_LINE = F6_DMAC_LO;
/** `why` of a run that stopped behind a hit in verify mode: the slow path walks the frame too. */
export const VERIFIED = -1;

/** What the fast path needs of the path: a queue for frames that leave. */
export interface Egress {
  queue(slot: number, port: number, length: number): number;
}

/** True when the compiled burst may be used: verify mode, faults and a second level (`cachedFlows`) are JavaScript's. */
export function isCompilable(options: { verify: boolean; fault: number } | null, cachedFlows: number): boolean {
  return options !== null && !options.verify && options.fault === 0 && cachedFlows === 0;
}

export class FastPath extends Offloading {
  /** Verify mode's copy of a frame; null when verify is off. */
  readonly shadow: Shadow | null;
  /** The shadow, while hits are worked on there. */
  private copy: Shadow | null;
  private readonly one = new Int32Array(1);
  /** Of the last run: egress port, bytes of its frames as received and as sent, and why it stopped. */
  outPort = 0;
  received = 0;
  sent = 0;
  why = 0;
  private readonly counters: Float64Array;
  private readonly replicator: Replicator;
  private readonly homes: Int32Array;
  /** Where a burst's slots are best received into. */
  readonly slots: Int32Array;
  /** True when the entries of IPv6 are not where the compiled burst reaches. */
  private readonly apart: boolean;
  private readonly fault: number;
  /** Views that every packet needs, one field away. */
  private readonly i32: Int32Array;
  private readonly u16: Uint16Array;
  private readonly u8: Uint8Array;
  private readonly meta: Int32Array;
  private readonly interfaces: Int32Array;
  private readonly neighbours: Int32Array;
  /** Does both passes where nothing is left to decide; null: all is done here. */
  private readonly compiled: CompiledBurst | null;
  /** Where in the burst it has stopped for us; −1: nowhere. */
  private undecided = -1;
  /** The ingress port's MAC, as bytes 0–1 and 2–5 of a frame are loaded. */
  private mac01 = 0;
  private mac25 = 0;
  private now = 0;
  /** What the first pass has read, kept so that its reads are not optimised away. */
  sink = 0;

  constructor(tables: T.Tables, frames: Frames, options: FastPathOptions) {
    super(tables, frames, options);
    this.counters = tables.counters;
    this.replicator = new Replicator(tables.multicast, frames, tables.interfaces.words);
    const verify = options.verify || options.samples === true;
    this.shadow = verify ? new Shadow(frames, tables.conntrack.doubles, tables.counters) : null;
    this.copy = options.verify ? this.shadow : null;
    this.fault = options.fault;
    this.i32 = frames.i32;
    this.u16 = frames.u16;
    this.u8 = frames.u8;
    this.meta = frames.meta;
    this.interfaces = tables.interfaces.words;
    this.neighbours = tables.neighbours.words;
    const { ground } = tables.buffers;
    const plain = isCompilable(options, this.levels.length - 1);
    this.compiled =
      plain && ground !== null && frames.ground >= 0 ? new CompiledBurst(ground, frames, this.first) : null;
    this.homes = this.compiled?.homes ?? new Int32Array(BURST);
    this.slots = this.compiled?.slots ?? new Int32Array(BURST);
    this.apart = ground?.flows6 === 0;
  }

  // --- offload-lookup ------------------------------------------------------------------------------------------------

  /** First pass: where each frame's entry must be; touches it. */
  touch(slots: Int32Array, n: number, now: number): void {
    this.now = now;
    const { i32, u16, meta, homes } = this;
    const flows = this.first;
    const port = meta[slots[0] * META_WORDS + META_PORT];
    if (n > 0) {
      const r = port * IF_WORDS;
      const lo = this.interfaces[r + IF_MAC_LO];
      this.mac01 = lo & 0xffff;
      this.mac25 = (lo >>> 16) | (this.interfaces[r + IF_MAC_HI] << 16);
    }
    this.undecided = -1;
    if (this.compiled !== null) {
      this.compiled.touch(slots, n, port, now, this.mac01, this.mac25);
      return;
    }
    for (let k = 0; k < n; k++) {
      const m = slots[k] * META_WORDS;
      const off = meta[m + META_OFF];
      const length = meta[m + META_LEN];
      const w = (off + 14) >> 2;
      const etherType = u16[(off + 12) >> 1];
      let home = -1;
      if (etherType === 0x0008) {
        const proto = (i32[w + 2] >> 8) & 0xff;
        // No options, no fragment; protocols that an entry can be keyed by.
        if (
          length >= 42 &&
          (i32[w] & 0xff) === 0x45 &&
          (i32[w + 1] & 0xff3f0000) === 0 &&
          (proto === UDP || proto === TCP || proto === ESP || proto === IPV6_IN_IP)
        ) {
          const key = proto | ((meta[m + META_PORT] & 0xff) << 8) | KEY_VALID;
          home = flows.home4(i32[w + 3], i32[w + 4], proto === IPV6_IN_IP ? 0 : i32[w + 5], key);
        }
      } else if (etherType === 0xdd86) {
        const proto = (i32[w + 1] >> 16) & 0xff;
        if (length >= 62 && (i32[w] & 0xf0) === 0x60 && (proto === UDP || proto === TCP || proto === ESP)) {
          const key = proto | ((meta[m + META_PORT] & 0xff) << 8) | KEY_VALID;
          home =
            HOME6 |
            flows.home6(
              i32[w + 2],
              i32[w + 3],
              i32[w + 4],
              i32[w + 5],
              i32[w + 6],
              i32[w + 7],
              i32[w + 8],
              i32[w + 9],
              i32[w + 10],
              key,
            );
        }
      }
      homes[k] = home;
    }
    // A loop of its own, so short that a processor has dozens of its misses under way at once.
    const words4 = flows.words4;
    const words6 = flows.words6;
    let sink = 0;
    for (let k = 0; k < n; k++) {
      const home = homes[k];
      if (home < 0) continue;
      // An IPv6 entry has two lines.
      if (home < HOME6) sink ^= words4[(home << 4) + F4_KEY];
      else sink ^= words6[((home & ~HOME6) << 5) + F6_KEY] ^ words6[((home & ~HOME6) << 5) + F6_OTHER_LINE];
    }
    this.sink = sink;
  }

  /**
   * Second pass: forwards the frames of the burst from place `from` on, as long as they are hits that leave by one port
   * (`outPort`), and returns the place behind the last; `received` and `sent` are their bytes. When it stops before `n`,
   * `why` says for what: EX_* or VERIFIED, and the frame there is the slow path's, untouched; 0, another run begins there.
   * `port` is the burst's ingress port; `epoch` was read before the burst.
   */
  run(slots: Int32Array, from: number, n: number, port: number, epoch: number): number {
    const { compiled } = this;
    let to = n;
    const here = this.apart && this.homes[from] >= HOME6;
    if (compiled !== null && !here && this.copy === null && this.enabled[0]) {
      if (this.undecided !== from) {
        const end = compiled.run(from, n, epoch);
        const { why } = compiled;
        if (end > from || why === EX.EX_MISS) {
          this.undecided = why === UNDECIDED ? end : -1;
          this.end(end - from, 0, compiled.outPort, compiled.received, compiled.sent, why === UNDECIDED ? 0 : why);
          return end;
        }
      }
      // This one frame is ours.
      to = from + 1;
    }
    return this.runHere(slots, from, to, port, epoch);
  }

  private runHere(slots: Int32Array, from: number, n: number, port: number, epoch: number): number {
    const home = this.homes[from];
    if (home >= HOME6) return this.run6(slots, from, n, port, epoch);
    if (home >= 0) return this.run4(slots, from, n, port, epoch);
    this.why = EX.EX_MISS;
    return from;
  }

  /** True when this frame would be a hit. It counts as one then, and `shadow` has what became of it. */
  recognize(slot: number, now: number, epoch: number): boolean {
    this.one[0] = slot;
    this.touch(this.one, 1, now);
    this.copy = this.shadow;
    this.run(this.one, 0, 1, this.meta[slot * META_WORDS + META_PORT], epoch);
    this.copy = null;
    return this.why === VERIFIED;
  }

  /** What the last run has stopped for is the slow path's: counts it. True when an explicit multicast entry has it. */
  refused(slot: number, port: number, egress: Egress): boolean {
    if (this.why === VERIFIED) return false;
    if (this.tables.multicast.count !== 0 && this.replicate(slot, port, egress)) return true;
    this.counters[T.C_ENGINE + this.why]++;
    return false;
  }

  /** An explicit multicast entry may have the frame; verify has nothing to compare it with. */
  private replicate(slot: number, port: number, egress: Egress): boolean {
    const etherType = this.frames.u16[(this.frames.meta[slot * META_WORDS + META_OFF] + 12) >> 1];
    if ((etherType !== 0x0008 && etherType !== 0xdd86) || this.frames.meta[slot * META_WORDS + META_LEN] < 42)
      return false;
    if (!this.replicator.forward(slot, port, this.now, egress)) return false;
    this.counters[T.C_ENGINE + EX.EX_MULTICAST]++;
    return true;
  }

  private run4(slots: Int32Array, from: number, n: number, port: number, epoch: number): number {
    const { i32, u16, meta, interfaces, neighbours, homes, first, copy: shadow, fault, now, mac01, mac25 } = this;
    const enabled = this.enabled[0];
    let out = -1;
    let received = 0;
    let sent = 0;
    let cached = 0;
    let why = 0;
    let k = from;
    for (; k < n; k++) {
      const home = homes[k];
      // What it is, the next run sees.
      if (home < 0 || home >= HOME6) break;
      const slot = slots[k];
      const m = slot * META_WORDS;
      const off = meta[m + META_OFF];
      const w = (off + 14) >> 2;
      const w0 = i32[w];
      const w1 = i32[w + 1];
      const w2 = i32[w + 2];
      const src = i32[w + 3];
      const dst = i32[w + 4];
      const w6 = i32[w + 6];
      const proto = (w2 >> 8) & 0xff;
      const raw = proto === IPV6_IN_IP ? 0 : i32[w + 5];
      const key = proto | (port << 8) | KEY_VALID;
      let f = first.words4;
      let place = enabled ? first.find4(home, src, dst, raw, key) : -1;
      if (place < 0) {
        const second = this.enabled[1] && this.levels.length > 1 ? this.levels[1] : null;
        if (second !== null) place = second.find4(second.home4(src, dst, raw, key), src, dst, raw, key);
        if (second === null || place < 0) {
          why = EX.EX_MISS;
          break;
        }
        f = second.words4;
      }
      const e = place << 4;
      why = EX.EX_EPOCH;
      if (f[e + F4_EPOCH] !== epoch) break;
      const last = f[e + F4_LAST];
      why = EX.EX_IDLE;
      if (((now - last) | 0) >= ENGINE_IDLE) break;
      const neighbour = f[e + F4_NEIGH];
      const nr = 4 + (neighbour >>> 16) * 16;
      why = EX.EX_NEIGHBOUR;
      if ((neighbours[nr] & NUD_QUIET) === 0 || ((neighbours[nr + NEIGH_GEN] ^ neighbour) & 0xffff) !== 0) break;

      const total = ((w0 >>> 8) & 0xff00) | (w0 >>> 24);
      const length = meta[m + META_LEN];
      why = EX.EX_LENGTH;
      if (total > length - 14 || total < 28) break;
      why = EX.EX_TTL;
      if ((w2 & 0xff) <= 1) break;
      const addresses = halves(src) + halves(dst);
      why = EX.EX_CHECKSUM;
      if (fold(halves(w0) + halves(w1) + halves(w2) + addresses) !== 0xffff) break;
      const flags = meta[m + META_FLAGS];
      const gso = meta[m + META_GSO];
      // Half-word of the transport checksum, counted from the IP header; 0: none.
      let field = 0;
      let headers = 28;
      if (proto === UDP) {
        const udp = ((w6 & 0xff) << 8) | ((w6 >> 8) & 0xff);
        why = EX.EX_LENGTH;
        if (gso === 0 && udp !== total - 20) break;
        if (w6 >>> 16 !== 0 || (flags & FRAME_NEEDS_CSUM) !== 0) field = 13;
      } else if (proto === TCP) {
        const t = i32[w + 8];
        const offset = (t & 0xf0) >> 2;
        // ACK, and none of FIN, SYN, RST.
        why = EX.EX_TCP_FLAGS;
        if ((t & 0x1700) !== 0x1000) break;
        why = EX.EX_LENGTH;
        if (offset < 20 || total - 20 < offset) break;
        headers = 20 + offset;
        field = 18;
      }
      const action = f[e + F4_DMAC_HI];
      const r = ((action >> 16) & 0xff) * IF_WORDS;
      why = EX.EX_MTU;
      if ((gso === 0 ? total : headers + (gso >>> 16)) > interfaces[r + IF_MTU]) break;
      if (field !== 0 && (flags & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID)) === 0) {
        const size = total - 20;
        const l4 = (w + 5) << 2;
        const pseudo = ((size & 0xff) << 8) + (size >> 8) + (proto << 8) + addresses;
        why = EX.EX_CHECKSUM;
        if (fold(sumRange(u16, i32, this.u8, l4, l4 + size, pseudo)) !== 0xffff) break;
      }
      const h = off >> 1;
      why = EX.EX_MAC;
      if (u16[h] !== mac01 || i32[(off + 2) >> 2] !== mac25 || (u16[h + 3] & 1) !== 0) break;
      why = 0;
      // A run leaves by one port.
      if (out !== ((action >> 16) & 0xff)) {
        if (out >= 0) break;
        out = (action >> 16) & 0xff;
      }

      f[e + F4_PACKETS]++;
      f[e + F4_BYTES] = (f[e + F4_BYTES] + total) | 0;
      if (last !== now) f[e + F4_LAST] = now;
      if (f !== first.words4) cached++;

      // The action: addresses, TTL, ports, both checksums, link header; in verify mode on a copy.
      let frame32 = i32;
      let frame16 = u16;
      let l3 = w;
      let half = h;
      if (shadow !== null) {
        shadow.take(f[e + F4_CONN], off, off + 14 + total);
        frame32 = shadow.i32;
        frame16 = shadow.u16;
        l3 = SHADOW_L3;
        half = SHADOW_HALF;
      }
      const changes = f[e + F4_DELTA];
      const newSrc = f[e + F4_NSRC];
      const newDst = f[e + F4_NDST];
      frame32[l3 + 3] = newSrc;
      frame32[l3 + 4] = newDst;
      // TTL and header checksum share a word.
      frame32[l3 + 2] = ((w2 & 0xffff) - 1) | (~fold((~w2 >>> 16) + (changes & 0xffff)) << 16);
      let before = 0;
      if (proto === UDP || proto === TCP) {
        frame32[l3 + 5] = f[e + F4_NPORTS];
        if (field !== 0) {
          field += l3 << 1;
          before = frame16[field];
          if ((flags & FRAME_NEEDS_CSUM) === 0) {
            const sum = ~fold((~before & 0xffff) + (changes >>> 16)) & 0xffff;
            frame16[field] = sum === 0 && proto === UDP ? 0xffff : sum;
          } else frame16[field] = fold(before + delta(src, newSrc) + delta(dst, newDst));
        }
      }
      const macLo = f[e + F4_DMAC_LO];
      let size = total + 14;
      if (interfaces[r + IF_VLAN] === 0) {
        const b = (half + 1) >> 1;
        frame16[half] = macLo;
        frame32[b] = (macLo >>> 16) | (action << 16);
        frame32[b + 1] = interfaces[r + IF_MAC_LO];
        frame32[b + 2] = (interfaces[r + IF_MAC_HI] & 0xffff) | 0x00080000;
      } else size = this.tagged(frame16, half, macLo, action, r, 0x0008, slot, size);
      if (fault !== 0) spoil(fault, frame16, frame32, half, l3, proto, field, before);
      if (shadow !== null) {
        shadow.made(out, size, size !== total + 14);
        why = VERIFIED;
        break;
      }
      meta[m + META_LEN] = size;
      received += length;
      sent += size;
    }
    this.end(k - from, cached, out, received, sent, why);
    return k;
  }

  private run6(slots: Int32Array, from: number, n: number, port: number, epoch: number): number {
    const { i32, u16, meta, interfaces, neighbours, homes, first, copy: shadow, fault, now, mac01, mac25 } = this;
    const enabled = this.enabled[0];
    let out = -1;
    let received = 0;
    let sent = 0;
    let cached = 0;
    let why = 0;
    let k = from;
    for (; k < n; k++) {
      const home = homes[k];
      if (home < HOME6) break;
      const slot = slots[k];
      const m = slot * META_WORDS;
      const off = meta[m + META_OFF];
      const w = (off + 14) >> 2;
      const w1 = i32[w + 1];
      const proto = (w1 >> 16) & 0xff;
      const key = proto | (port << 8) | KEY_VALID;
      const s0 = i32[w + 2];
      const s1 = i32[w + 3];
      const s2 = i32[w + 4];
      const s3 = i32[w + 5];
      const d0 = i32[w + 6];
      const d1 = i32[w + 7];
      const d2 = i32[w + 8];
      const d3 = i32[w + 9];
      const raw = i32[w + 10];
      let f = first.words6;
      let place = enabled ? first.find6(home & ~HOME6, s0, s1, s2, s3, d0, d1, d2, d3, raw, key) : -1;
      if (place < 0) {
        const second = this.enabled[1] && this.levels.length > 1 ? this.levels[1] : null;
        if (second !== null) {
          const at = second.home6(s0, s1, s2, s3, d0, d1, d2, d3, raw, key);
          place = second.find6(at, s0, s1, s2, s3, d0, d1, d2, d3, raw, key);
        }
        if (second === null || place < 0) {
          why = EX.EX_MISS;
          break;
        }
        f = second.words6;
      }
      const e = place << 5;
      why = EX.EX_EPOCH;
      if (f[e + F6_EPOCH] !== epoch) break;
      const last = f[e + F6_LAST];
      why = EX.EX_IDLE;
      if (((now - last) | 0) >= ENGINE_IDLE) break;
      const neighbour = f[e + F6_NEIGH];
      const nr = 4 + (neighbour >>> 16) * 16;
      why = EX.EX_NEIGHBOUR;
      if ((neighbours[nr] & NUD_QUIET) === 0 || ((neighbours[nr + NEIGH_GEN] ^ neighbour) & 0xffff) !== 0) break;

      const payload = ((w1 & 0xff) << 8) | ((w1 >> 8) & 0xff);
      const length = meta[m + META_LEN];
      why = EX.EX_LENGTH;
      if (payload > length - 54 || payload < 8) break;
      why = EX.EX_TTL;
      if (w1 >>> 24 <= 1) break;
      const flags = meta[m + META_FLAGS];
      const gso = meta[m + META_GSO];
      const l4 = (w + 10) << 2;
      let summed = false;
      let headers = 48;
      if (proto === TCP) {
        why = EX.EX_LENGTH;
        if (payload < 20) break;
        const t = i32[w + 13];
        const offset = (t & 0xf0) >> 2;
        why = EX.EX_TCP_FLAGS;
        if ((t & 0x1700) !== 0x1000) break;
        why = EX.EX_LENGTH;
        if (offset < 20 || payload < offset) break;
        headers = 40 + offset;
        summed = true;
      } else if (proto === UDP) {
        const t = i32[w + 11];
        const udp = ((t & 0xff) << 8) | ((t >> 8) & 0xff);
        why = EX.EX_LENGTH;
        if (gso === 0 && udp !== payload) break;
        summed = t >>> 16 !== 0;
      }
      const action = f[e + F6_DMAC_HI];
      const r = ((action >> 16) & 0xff) * IF_WORDS;
      why = EX.EX_MTU;
      if ((gso === 0 ? payload + 40 : headers + (gso >>> 16)) > interfaces[r + IF_MTU]) break;
      if (summed && (flags & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID)) === 0) {
        let pseudo = ((payload & 0xff) << 8) + (payload >> 8) + (proto << 8);
        pseudo += halves(s0) + halves(s1) + halves(s2) + halves(s3) + halves(d0) + halves(d1) + halves(d2) + halves(d3);
        why = EX.EX_CHECKSUM;
        if (fold(sumRange(u16, i32, this.u8, l4, l4 + payload, pseudo)) !== 0xffff) break;
      }
      const h = off >> 1;
      why = EX.EX_MAC;
      if (u16[h] !== mac01 || i32[(off + 2) >> 2] !== mac25 || (u16[h + 3] & 1) !== 0) break;
      why = 0;
      if (out !== ((action >> 16) & 0xff)) {
        if (out >= 0) break;
        out = (action >> 16) & 0xff;
      }

      f[e + F6_PACKETS]++;
      f[e + F6_BYTES] = (f[e + F6_BYTES] + payload + 40) | 0;
      if (last !== now) f[e + F6_LAST] = now;
      if (f !== first.words6) cached++;

      let frame32 = i32;
      let frame16 = u16;
      let l3 = w;
      let half = h;
      if (shadow !== null) {
        shadow.take(f[e + F6_CONN], off, off + 54 + payload);
        frame32 = shadow.i32;
        frame16 = shadow.u16;
        l3 = SHADOW_L3;
        half = SHADOW_HALF;
      }
      // The action: hop limit and link header.
      frame32[l3 + 1] = w1 - 0x01000000;
      const macLo = f[e + F6_DMAC_LO];
      let size = payload + 54;
      if (interfaces[r + IF_VLAN] === 0) {
        const b = (half + 1) >> 1;
        frame16[half] = macLo;
        frame32[b] = (macLo >>> 16) | (action << 16);
        frame32[b + 1] = interfaces[r + IF_MAC_LO];
        frame32[b + 2] = (interfaces[r + IF_MAC_HI] & 0xffff) | (0xdd86 << 16);
      } else size = this.tagged(frame16, half, macLo, action, r, 0xdd86, slot, size);
      if (fault !== 0) spoil(fault, frame16, frame32, half, l3, proto, 0, 0);
      if (shadow !== null) {
        shadow.made(out, size, size !== payload + 54);
        why = VERIFIED;
        break;
      }
      meta[m + META_LEN] = size;
      received += length;
      sent += size;
    }
    this.end(k - from, cached, out, received, sent, why);
    return k;
  }

  /** A run is over: its counters, once for all its frames. A verified frame is a hit as well. */
  private end(frames: number, cached: number, out: number, received: number, sent: number, why: number): void {
    const hits = (why === VERIFIED ? frames + 1 : frames) - cached;
    if (hits !== 0) this.counters[T.C_ENGINE + EX.EX_HITS] += hits;
    if (cached !== 0) this.counters[T.C_ENGINE + EX.EX_CACHE_HITS] += cached;
    this.outPort = out;
    this.received = received;
    this.sent = sent;
    this.why = why;
  }

  /** A link header with the VLAN tag of the egress port, 4 bytes before the old one. Returns the frame's new length. */
  private tagged(
    u16: Uint16Array,
    half: number,
    macLo: number,
    macHi: number,
    r: number,
    etherType: number,
    slot: number,
    size: number,
  ): number {
    const { interfaces, meta } = this;
    const at = half - 2;
    const vlan = interfaces[r + IF_VLAN];
    u16[at] = macLo;
    u16[at + 1] = macLo >>> 16;
    u16[at + 2] = macHi;
    u16[at + 3] = interfaces[r + IF_MAC_LO];
    u16[at + 4] = interfaces[r + IF_MAC_LO] >>> 16;
    u16[at + 5] = interfaces[r + IF_MAC_HI];
    u16[at + 6] = 0x0081;
    u16[at + 7] = ((vlan & 0xff) << 8) | (vlan >> 8);
    u16[at + 8] = etherType;
    if (this.copy === null) {
      const m = slot * META_WORDS;
      meta[m + META_OFF] -= 4;
      if ((meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) !== 0) meta[m + META_CSUM] += 4;
    }
    return size + 4;
  }

  /** True when this port's frames may be looked up at all. */
  usable(port: number): boolean {
    const w = this.tables.interfaces.words;
    const r = port * IF_WORDS;
    const up = (w[r + IF_FLAGS] & (IFF_UP | IFF_HOST | IFF_SECURITY)) === IFF_UP;
    return up && w[r + IF_CHILDREN] === 0 && w[r + IF_SOURCES] === 0;
  }
}
