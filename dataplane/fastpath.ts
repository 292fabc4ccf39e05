/**
 * Fast path: the offload-lookup and offload-program stages, the emulated engine at work.
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
import { CT_DEADLINE, CT_F64, CT_F64_PACKETS, CT_FLOWS, CT_GEN, CT_WORDS } from '../conntrack/record.ts';
import { relearnTcp } from '../conntrack/tcp.ts';
import { OffloadAging } from '../offload/aging.ts';
import * as EX from '../offload/engine.ts';
import { ENGINE_IDLE, Policy, type PolicyOptions } from '../offload/policy.ts';
import { Programmer } from '../offload/programmer.ts';
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
  type FlowTable,
  KEY_VALID,
  newFlowSpec,
} from '../offload/table.ts';
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
  IFF_UP,
} from './interfaces.ts';
import { NEIGH_GEN, NUD_QUIET } from './neighbours.ts';
import { ESP, IPV6_IN_IP, TCP, UDP } from './parse.ts';
import { Replicator } from './replicate.ts';
import * as T from './tables.ts';
import type { Packet } from './wire/packet.ts';
import { delta, fold, halves, sumRange } from './wire/sum.ts';

const BURST = 256;
/** Mark of an IPv6 flow's home. */
const HOME6 = 0x40000000;
/** TTL falls by one: what that adds to the header's sum. */
const TTL_DELTA = 0xfffe;

/** Ways in which a test makes the engine wrong on purpose, to prove that verify notices. */
export const FAULT_PROTO41 = 1;
export const FAULT_CHECKSUM = 2;
export const FAULT_MAC = 3;

export interface FastPathOptions extends PolicyOptions {
  verify: boolean;
  /** FAULT_*, tests only. */
  fault: number;
}

/** What the fast path needs of the path: a queue for frames that leave. */
export interface Egress {
  queue(slot: number, port: number, length: number): number;
}

export class FastPath {
  readonly policy: Policy;
  readonly programmer: Programmer;
  readonly agings: OffloadAging[] = [];
  readonly verify: boolean;
  /** Egress port of the last entry that `hit` applied, and the frame's length. */
  outPort = 0;
  /** Called with both frames when verify finds a difference: (what differs, engine's frame, slow path's frame or null). */
  onMismatch: (what: string, engine: Uint8Array, slow: Uint8Array | null) => void = () => {};
  private readonly tables: T.Tables;
  private readonly frames: Frames;
  private readonly counters: Float64Array;
  private readonly levels: FlowTable[] = [];
  private readonly spec = newFlowSpec();
  private readonly replicator: Replicator;
  private readonly homes = new Int32Array(BURST);
  private readonly fault: number;
  /** Verify: what the engine made of the packet that the path walks now; `expected` false when there was no hit. */
  private expected = false;
  private expectedPort = 0;
  private expectedLength = 0;
  private expectedStart = 0;
  /** Verify: where the connection counts this packet, and what it must have counted behind it. */
  private expectedCount = 0;
  private expectedPackets = 0;
  private expectedBytes = 0;
  private readonly shadow: ArrayBuffer;
  private readonly shadow8: Uint8Array;
  private readonly shadow16: Uint16Array;
  private readonly shadow32: Int32Array;
  /** Views that every packet needs, one field away. */
  private readonly i32: Int32Array;
  private readonly u16: Uint16Array;
  private readonly u8: Uint8Array;
  private readonly meta: Int32Array;
  private readonly interfaces: Int32Array;
  private readonly neighbours: Int32Array;
  private readonly first: FlowTable;
  /** Verify and fault injection take the long way. */
  private readonly special: boolean;
  /** The ingress port's MAC, as bytes 0–1 and 2–5 of a frame are loaded. */
  private mac01 = 0;
  private mac25 = 0;
  private now = 0;
  private sweep = 0;
  /** What the first pass has read, kept so that its reads are not optimised away. */
  sink = 0;
  /** Switches of the levels: hardware, flow cache. */
  readonly enabled = [true, true];

  constructor(tables: T.Tables, frames: Frames, options: FastPathOptions) {
    this.tables = tables;
    this.frames = frames;
    this.counters = tables.counters;
    this.replicator = new Replicator(tables.multicast, frames, tables.interfaces.words);
    this.verify = options.verify;
    this.fault = options.fault;
    this.shadow = new ArrayBuffer(options.verify ? 65536 + 256 : 256);
    this.shadow8 = new Uint8Array(this.shadow);
    this.shadow16 = new Uint16Array(this.shadow);
    this.shadow32 = new Int32Array(this.shadow);
    this.i32 = frames.i32;
    this.u16 = frames.u16;
    this.u8 = frames.u8;
    this.meta = frames.meta;
    this.interfaces = tables.interfaces.words;
    this.neighbours = tables.neighbours.words;
    this.special = options.verify || options.fault !== 0;
    this.policy = new Policy(tables.conntrack, tables.timeouts, options, tables.now());
    for (const flows of [tables.flows, tables.cachedFlows]) {
      if (flows === null) continue;
      const aging = new OffloadAging(tables.conntrack, flows, tables.timeouts, this.levels.length, tables.now());
      aging.counts = !options.verify;
      this.levels.push(flows);
      this.agings.push(aging);
    }
    this.first = this.levels[0];
    this.programmer = new Programmer(
      tables.conntrack,
      this.levels,
      this.agings,
      this.enabled,
      this.policy,
      options.latency ?? 0,
    );
    const released = tables.conntrack.onDelete;
    tables.conntrack.onDelete = (index) => {
      this.forget(index);
      released(index);
    };
  }

  // --- offload-lookup ------------------------------------------------------------------------------------------------

  /** First pass: where each frame's entry must be; touches it. */
  touch(slots: Int32Array, n: number, now: number): void {
    this.now = now;
    const { i32, u16, meta, homes } = this;
    const flows = this.first;
    if (n > 0) {
      const r = meta[slots[0] * META_WORDS + META_PORT] * IF_WORDS;
      const lo = this.interfaces[r + IF_MAC_LO];
      this.mac01 = lo & 0xffff;
      this.mac25 = (lo >>> 16) | (this.interfaces[r + IF_MAC_HI] << 16);
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
      sink ^= home < HOME6 ? words4[(home << 4) + F4_KEY] : words6[((home & 0x3fffffff) << 5) + F6_KEY];
    }
    this.sink = sink;
  }

  /**
   * Second pass, for the k-th frame of the burst: the frame's new length when an entry has rewritten it (it leaves by
   * `outPort`), 0 when copies of it are on their way (multicast), −1 when the slow path must have it. `port` is the
   * frame's ingress port; `epoch` was read before the burst.
   */
  hit(k: number, slot: number, port: number, epoch: number, egress: Egress): number {
    const home = this.homes[k];
    const length =
      home < 0
        ? -EX.EX_MISS
        : home < HOME6
          ? this.hit4(home, slot, port, epoch)
          : this.hit6(home & 0x3fffffff, slot, port, epoch);
    if (length > 0) return this.verify ? -1 : length;
    if (this.tables.multicast.count !== 0 && this.replicate(slot, port, egress)) return 0;
    this.counters[T.C_ENGINE - length]++;
    return -1;
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

  /** Returns the frame's new length, or −EX_* when the slow path must have it. The frame is untouched then. */
  private hit4(home: number, slot: number, port: number, epoch: number): number {
    const { i32, u16, meta, interfaces } = this;
    const m = slot * META_WORDS;
    const off = meta[m + META_OFF];
    const w = (off + 14) >> 2;
    const w0 = i32[w];
    const w1 = i32[w + 1];
    const w2 = i32[w + 2];
    const src = i32[w + 3];
    const dst = i32[w + 4];
    const w5 = i32[w + 5];
    const w6 = i32[w + 6];
    const proto = (w2 >> 8) & 0xff;
    const raw = proto === IPV6_IN_IP ? 0 : w5;
    const key = proto | (port << 8) | KEY_VALID;
    let flows = this.first;
    let place = this.enabled[0] ? flows.find4(home, src, dst, raw, key) : -1;
    if (place < 0) {
      if (this.levels.length < 2 || !this.enabled[1]) return -EX.EX_MISS;
      flows = this.levels[1];
      place = flows.find4(flows.home4(src, dst, raw, key), src, dst, raw, key);
      if (place < 0) return -EX.EX_MISS;
    }
    const f = flows.words4;
    const e = place << 4;
    const now = this.now;
    if (f[e + F4_EPOCH] !== epoch) return -EX.EX_EPOCH;
    const last = f[e + F4_LAST];
    if (((now - last) | 0) >= ENGINE_IDLE) return -EX.EX_IDLE;
    const neighbour = f[e + F4_NEIGH];
    const nr = 4 + (neighbour >>> 16) * 16;
    const neighbours = this.neighbours;
    if ((neighbours[nr] & NUD_QUIET) === 0 || ((neighbours[nr + NEIGH_GEN] ^ neighbour) & 0xffff) !== 0)
      return -EX.EX_NEIGHBOUR;

    const total = ((w0 >>> 8) & 0xff00) | (w0 >>> 24);
    if (total > meta[m + META_LEN] - 14 || total < 28) return -EX.EX_LENGTH;
    if ((w2 & 0xff) <= 1) return -EX.EX_TTL;
    const addresses = halves(src) + halves(dst);
    if (fold(halves(w0) + halves(w1) + halves(w2) + addresses) !== 0xffff) return -EX.EX_CHECKSUM;
    const flags = meta[m + META_FLAGS];
    const gso = meta[m + META_GSO];
    // Half-word of the transport checksum; 0: none.
    let checksumAt = 0;
    let headers = 28;
    if (proto === UDP) {
      const udp = ((w6 & 0xff) << 8) | ((w6 >> 8) & 0xff);
      if (gso === 0 && udp !== total - 20) return -EX.EX_LENGTH;
      if (w6 >>> 16 !== 0 || (flags & FRAME_NEEDS_CSUM) !== 0) checksumAt = (w << 1) + 13;
    } else if (proto === TCP) {
      const t = i32[w + 8];
      const offset = (t & 0xf0) >> 2;
      // ACK, and none of FIN, SYN, RST.
      if ((t & 0x1700) !== 0x1000) return -EX.EX_TCP_FLAGS;
      if (offset < 20 || total - 20 < offset) return -EX.EX_LENGTH;
      headers = 20 + offset;
      checksumAt = (w << 1) + 18;
    }
    const action = f[e + F4_DMAC_HI];
    const out = (action >> 16) & 0xff;
    const r = out * IF_WORDS;
    if ((gso === 0 ? total : headers + (gso >>> 16)) > interfaces[r + IF_MTU]) return -EX.EX_MTU;
    if (checksumAt !== 0 && (flags & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID)) === 0) {
      const size = total - 20;
      const l4 = (w + 5) << 2;
      const pseudo = ((size & 0xff) << 8) + (size >> 8) + (proto << 8) + addresses;
      if (fold(sumRange(u16, i32, this.u8, l4, l4 + size, pseudo)) !== 0xffff) return -EX.EX_CHECKSUM;
    }
    const h = off >> 1;
    const b = (off + 2) >> 2;
    if (u16[h] !== this.mac01 || i32[b] !== this.mac25 || (u16[h + 3] & 1) !== 0) return -EX.EX_MAC;

    f[e + F4_PACKETS]++;
    f[e + F4_BYTES] = (f[e + F4_BYTES] + total) | 0;
    if (last !== now) f[e + F4_LAST] = now;
    if (flows !== this.first) this.counters[T.C_ENGINE + EX.EX_CACHE_HITS]++;
    else this.counters[T.C_ENGINE + EX.EX_HITS]++;
    this.outPort = out;
    if (this.special || interfaces[r + IF_VLAN] !== 0) {
      if (this.verify) this.copyForVerify(f[e + F4_CONN], off, off + 14 + total);
      return this.apply4(f, e, slot, off, off + 14 + total, checksumAt, proto, interfaces, r);
    }

    // The action: addresses, TTL, ports, both checksums, link header.
    const changes = f[e + F4_DELTA];
    const newSrc = f[e + F4_NSRC];
    const newDst = f[e + F4_NDST];
    i32[w + 3] = newSrc;
    i32[w + 4] = newDst;
    // TTL and header checksum share a word.
    i32[w + 2] = ((w2 & 0xffff) - 1) | (~fold((~w2 >>> 16) + (changes & 0xffff)) << 16);
    if (proto === UDP || proto === TCP) {
      i32[w + 5] = f[e + F4_NPORTS];
      if (checksumAt !== 0) {
        if ((flags & FRAME_NEEDS_CSUM) === 0) {
          const sum = ~fold((~u16[checksumAt] & 0xffff) + (changes >>> 16)) & 0xffff;
          u16[checksumAt] = sum === 0 && proto === UDP ? 0xffff : sum;
        } else u16[checksumAt] = fold(u16[checksumAt] + delta(src, newSrc) + delta(dst, newDst));
      }
    }
    const macLo = f[e + F4_DMAC_LO];
    u16[h] = macLo;
    i32[b] = (macLo >>> 16) | (action << 16);
    i32[b + 1] = interfaces[r + IF_MAC_LO];
    i32[b + 2] = (interfaces[r + IF_MAC_HI] & 0xffff) | 0x00080000;
    meta[m + META_LEN] = total + 14;
    return total + 14;
  }

  /** The action of an IPv4 entry, on the frame. */
  private apply4(
    f: Int32Array,
    e: number,
    slot: number,
    off: number,
    end: number,
    checksumAt: number,
    proto: number,
    interfaces: Int32Array,
    r: number,
  ): number {
    const { i32, meta } = this.frames;
    let u16 = this.frames.u16;
    let words = i32;
    let w = (off + 14) >> 2;
    let h = off >> 1;
    let field = checksumAt;
    if (this.verify) {
      // On the copy; its layout is the frame's.
      u16 = this.shadow16;
      words = this.shadow32;
      w = 8;
      h = 9;
      field = checksumAt === 0 ? 0 : checksumAt - (off >> 1) + 9;
    }
    const changes = f[e + F4_DELTA];
    const src = words[w + 3];
    const dst = words[w + 4];
    const newSrc = f[e + F4_NSRC];
    const newDst = f[e + F4_NDST];
    words[w + 3] = newSrc;
    words[w + 4] = newDst;
    words[w + 2] = (words[w + 2] & ~0xff) | ((words[w + 2] & 0xff) - 1);
    u16[(w << 1) + 5] = ~fold((~u16[(w << 1) + 5] & 0xffff) + (changes & 0xffff));
    if (proto === TCP || proto === UDP) words[w + 5] = f[e + F4_NPORTS];
    if (field !== 0 && this.fault !== FAULT_CHECKSUM) {
      if ((meta[slot * META_WORDS + META_FLAGS] & FRAME_NEEDS_CSUM) !== 0) {
        u16[field] = fold(u16[field] + delta(src, newSrc) + delta(dst, newDst));
      } else {
        const sum = ~fold((~u16[field] & 0xffff) + (changes >>> 16)) & 0xffff;
        u16[field] = sum === 0 && proto === UDP ? 0xffff : sum;
      }
    }
    if (this.fault === FAULT_PROTO41 && proto === IPV6_IN_IP) words[w + 6] ^= 0x100;
    return this.link(u16, h, f[e + F4_DMAC_LO], f[e + F4_DMAC_HI], slot, off, end, interfaces, r, 0x0008);
  }

  private hit6(home: number, slot: number, port: number, epoch: number): number {
    const { i32, u16, u8, meta } = this.frames;
    const m = slot * META_WORDS;
    const off = meta[m + META_OFF];
    const l3 = off + 14;
    const w = l3 >> 2;
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
    let flows = this.levels[0];
    let place = this.enabled[0] ? flows.find6(home, s0, s1, s2, s3, d0, d1, d2, d3, raw, key) : -1;
    if (place < 0) {
      if (this.levels.length < 2 || !this.enabled[1]) return -EX.EX_MISS;
      flows = this.levels[1];
      place = flows.find6(
        flows.home6(s0, s1, s2, s3, d0, d1, d2, d3, raw, key),
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
        raw,
        key,
      );
      if (place < 0) return -EX.EX_MISS;
    }
    const f = flows.words6;
    const e = place << 5;
    if (f[e + F6_EPOCH] !== epoch) return -EX.EX_EPOCH;
    const last = f[e + F6_LAST];
    if (((this.now - last) | 0) >= ENGINE_IDLE) return -EX.EX_IDLE;
    const neighbours = this.tables.neighbours.words;
    const neighbour = f[e + F6_NEIGH];
    const nr = 4 + (neighbour >>> 16) * 16;
    if ((neighbours[nr] & NUD_QUIET) === 0 || ((neighbours[nr + NEIGH_GEN] ^ neighbour) & 0xffff) !== 0)
      return -EX.EX_NEIGHBOUR;

    const payload = ((w1 & 0xff) << 8) | ((w1 >> 8) & 0xff);
    if (payload > meta[m + META_LEN] - 54 || payload < 8) return -EX.EX_LENGTH;
    if (w1 >>> 24 <= 1) return -EX.EX_TTL;
    const flags = meta[m + META_FLAGS];
    const gso = meta[m + META_GSO];
    const l4 = l3 + 40;
    const end = l4 + payload;
    let summed = false;
    let headers = 48;
    if (proto === TCP) {
      if (payload < 20) return -EX.EX_LENGTH;
      const t = i32[w + 13];
      const offset = (t & 0xf0) >> 2;
      if ((t & 0x1700) !== 0x1000) return -EX.EX_TCP_FLAGS;
      if (offset < 20 || payload < offset) return -EX.EX_LENGTH;
      headers = 40 + offset;
      summed = true;
    } else if (proto === UDP) {
      const t = i32[w + 11];
      const udp = ((t & 0xff) << 8) | ((t >> 8) & 0xff);
      if (gso === 0 && udp !== payload) return -EX.EX_LENGTH;
      summed = t >>> 16 !== 0;
    }
    const interfaces = this.tables.interfaces.words;
    const out = (f[e + F6_DMAC_HI] >> 16) & 0xff;
    const r = out * IF_WORDS;
    if ((gso === 0 ? payload + 40 : headers + (gso >>> 16)) > interfaces[r + IF_MTU]) return -EX.EX_MTU;
    if (summed && (flags & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID)) === 0) {
      let pseudo = ((payload & 0xff) << 8) + (payload >> 8) + (proto << 8);
      pseudo += halves(s0) + halves(s1) + halves(s2) + halves(s3) + halves(d0) + halves(d1) + halves(d2) + halves(d3);
      if (fold(sumRange(u16, i32, u8, l4, end, pseudo)) !== 0xffff) return -EX.EX_CHECKSUM;
    }
    const h = off >> 1;
    const ri = port * IF_WORDS;
    if (
      u16[h] !== (interfaces[ri + IF_MAC_LO] & 0xffff) ||
      u16[h + 1] !== interfaces[ri + IF_MAC_LO] >>> 16 ||
      u16[h + 2] !== interfaces[ri + IF_MAC_HI] ||
      (u16[h + 3] & 1) !== 0
    )
      return -EX.EX_MAC;

    f[e + F6_PACKETS]++;
    f[e + F6_BYTES] = (f[e + F6_BYTES] + payload + 40) | 0;
    if (last !== this.now) f[e + F6_LAST] = this.now;
    this.counters[T.C_ENGINE + (flows === this.levels[0] ? EX.EX_HITS : EX.EX_CACHE_HITS)]++;
    this.outPort = out;
    if (this.verify) {
      this.copyForVerify(f[e + F6_CONN], off, end);
      this.shadow32[9] -= 0x01000000;
      return this.link(this.shadow16, 9, f[e + F6_DMAC_LO], f[e + F6_DMAC_HI], slot, off, end, interfaces, r, 0xdd86);
    }
    i32[w + 1] = w1 - 0x01000000;
    return this.link(u16, h, f[e + F6_DMAC_LO], f[e + F6_DMAC_HI], slot, off, end, interfaces, r, 0xdd86);
  }

  /** The new link header; returns the frame's new length. Padding behind the datagram goes. */
  private link(
    u16: Uint16Array,
    h: number,
    macLo: number,
    macHi: number,
    slot: number,
    off: number,
    end: number,
    interfaces: Int32Array,
    r: number,
    etherType: number,
  ): number {
    const m = slot * META_WORDS;
    const meta = this.frames.meta;
    const vlan = interfaces[r + IF_VLAN];
    let at = h;
    let length = end - off;
    if (vlan !== 0) {
      at -= 2;
      length += 4;
      if (!this.verify) {
        meta[m + META_OFF] = off - 4;
        if ((meta[m + META_FLAGS] & FRAME_NEEDS_CSUM) !== 0) meta[m + META_CSUM] += 4;
      }
    }
    u16[at] = this.fault === FAULT_MAC ? macLo ^ 0x100 : macLo;
    u16[at + 1] = macLo >>> 16;
    u16[at + 2] = macHi;
    u16[at + 3] = interfaces[r + IF_MAC_LO];
    u16[at + 4] = interfaces[r + IF_MAC_LO] >>> 16;
    u16[at + 5] = interfaces[r + IF_MAC_HI];
    if (vlan !== 0) {
      u16[at + 6] = 0x0081;
      u16[at + 7] = ((vlan & 0xff) << 8) | (vlan >> 8);
      u16[at + 8] = etherType;
    }
    if (this.verify) {
      this.expected = true;
      this.expectedPort = this.outPort;
      this.expectedLength = length;
      this.expectedStart = at << 1;
    } else meta[m + META_LEN] = length;
    return length;
  }

  // --- verify --------------------------------------------------------------------------------------------------------

  /** Verify: the engine's frame lies in `shadow` from byte 18 on (so that its IP header is 4-aligned). */
  private copyForVerify(connection: number, off: number, end: number): void {
    this.shadow8.set(this.frames.u8.subarray(off, end), 18);
    const at = (connection >> 1) * CT_F64 + CT_F64_PACKETS + (connection & 1);
    const doubles = this.tables.conntrack.doubles;
    this.expectedCount = at;
    this.expectedPackets = doubles[at] + 1;
    this.expectedBytes = doubles[at + 2] + end - off - 14;
  }

  /** Verify: called by the path for every frame that the slow path sends. */
  compare(slot: number, port: number): void {
    if (!this.expected) return;
    this.expected = false;
    const m = slot * META_WORDS;
    const off = this.frames.meta[m + META_OFF];
    const length = this.frames.meta[m + META_LEN];
    let what = '';
    if (port !== this.expectedPort) what = `egress port ${this.expectedPort}, slow path ${port}`;
    else if (length !== this.expectedLength) what = `length ${this.expectedLength}, slow path ${length}`;
    else
      for (let n = 0; n < length && what === ''; n++)
        if (this.shadow8[this.expectedStart + n] !== this.frames.u8[off + n]) what = `byte ${n}`;
    const counted = this.tables.conntrack.doubles;
    const at = this.expectedCount;
    if (what === '' && (counted[at] !== this.expectedPackets || counted[at + 2] !== this.expectedBytes))
      what = `counted ${this.expectedPackets} packets, ${this.expectedBytes} bytes, slow path ${counted[at]}, ${counted[at + 2]}`;
    if (what !== '') this.mismatch(what, this.frames.u8.slice(off, off + length));
  }

  /** Verify: the walk is over; a hit that the slow path did not send is a difference too. */
  settleVerify(reason: string): void {
    if (!this.expected) return;
    this.expected = false;
    this.mismatch(reason, null);
  }

  private mismatch(what: string, slow: Uint8Array | null): void {
    this.counters[T.C_ENGINE + EX.EX_MISMATCH]++;
    const start = this.expectedStart;
    this.onMismatch(what, this.shadow8.slice(start, start + this.expectedLength), slow);
  }

  // --- offload-program -------------------------------------------------------------------------------------------------

  /**
   * Installs or restamps the entry of the packet's direction: what it was (ingress hook: received addresses and port)
   * and what it became (egress hook: effective addresses, MAC, port). Called when all stages have agreed.
   */
  program(p: Packet, epoch: number, now: number): void {
    const tables = this.tables;
    const w = tables.conntrack.words;
    const c = p.ct * CT_WORDS;
    const interfaces = tables.interfaces.words;
    if (
      ((interfaces[p.port * IF_WORDS + IF_FLAGS] | interfaces[p.outPort * IF_WORDS + IF_FLAGS]) & IFF_HOST) !== 0 ||
      interfaces[p.port * IF_WORDS + IF_SOURCES] !== 0 ||
      interfaces[p.port * IF_WORDS + IF_VLAN] !== 0
    ) {
      this.policy.because(c, EX.WHY_PORT);
      return;
    }
    if (p.mtu !== interfaces[p.outPort * IF_WORDS + IF_MTU]) {
      this.policy.because(c, EX.WHY_MTU);
      return;
    }
    if (p.proto === TCP && (p.tcpFlags & 7) !== 0) return;
    if (this.policy.refuse(p, this.frames.u8) !== 0) return;
    const spec = this.spec;
    this.describe(p, epoch);
    spec.generation = w[c + CT_GEN];
    spec.priority = this.policy.priority(p.ct);
    spec.sweep = this.sweep;
    this.programmer.request(spec, now);
  }

  private describe(p: Packet, epoch: number): void {
    const spec = this.spec;
    const neighbours = this.tables.neighbours;
    const n = neighbours.at(p.neighbour);
    // The generation before the address: one that changes meanwhile leaves an entry that is stale, not one that is wrong.
    spec.neighbour = (p.neighbour << 16) | (Atomics.load(neighbours.words, n + NEIGH_GEN) & 0xffff);
    spec.family = p.family;
    spec.src[0] = p.rs0;
    spec.src[1] = p.rs1;
    spec.src[2] = p.rs2;
    spec.src[3] = p.rs3;
    spec.dst[0] = p.rd0;
    spec.dst[1] = p.rd1;
    spec.dst[2] = p.rd2;
    spec.dst[3] = p.rd3;
    spec.proto = p.proto;
    spec.inPort = p.port;
    spec.ports = p.proto === ESP ? this.frames.i32[p.l4 >> 2] : p.rports;
    spec.newSrc = p.s0;
    spec.newDst = p.d0;
    spec.newPorts = p.ports;
    const addresses = delta(p.rs0, p.s0) + delta(p.rd0, p.d0);
    spec.delta = fold(addresses + TTL_DELTA) | (fold(addresses + delta(p.rports, p.ports)) << 16);
    spec.macLo = neighbours.words[n + 6];
    spec.macHi = neighbours.words[n + 7];
    spec.outPort = p.outPort;
    spec.flags = 0;
    spec.epoch = epoch;
    spec.connection = (p.ct << 1) | p.dir;
  }

  // --- re-entry from the engine ------------------------------------------------------------------------------------------

  /**
   * A packet of a connection that the engine carries has come to the slow path. Its counts and deadline are brought up to
   * date; TCP's window is learned anew. SYN, FIN and RST take it out of the engine. Returns false when it had expired.
   */
  reenter(index: number, p: Packet, now: number): boolean {
    const w = this.tables.conntrack.words;
    const c = index * CT_WORDS;
    for (const aging of this.agings) aging.settle(index);
    if (((w[c + CT_DEADLINE] - now) | 0) < 0) {
      this.forget(index);
      return false;
    }
    if (p.proto === TCP) {
      if ((w[c + CT_FLOWS] & EX.FLOWS_CARRIED) !== 0) {
        // The engine has carried segments that the tracker did not see: windows are learned anew (trap 2).
        Atomics.and(w, c + CT_FLOWS, ~EX.FLOWS_CARRIED);
        relearnTcp(w, c);
      }
      if ((p.tcpFlags & 7) !== 0) this.forget(index);
    }
    return true;
  }

  /** Takes a connection's entries out of all levels. */
  forget(index: number): void {
    if (this.tables.conntrack.words[index * CT_WORDS + CT_FLOWS] === 0) return;
    for (const aging of this.agings) aging.drop(index);
  }

  /** Bounded work per turn. */
  turn(now: number): void {
    this.programmer.turn(now);
    // The table is shared: one worker ages it.
    if (this.tables.worker === 0) for (const aging of this.agings) aging.turn(now);
  }

  /** Before the epochs are read for a burst: which levels are on, how many sweeps there have been (FlowTable.sweep). */
  begin(): void {
    const off = this.tables.control[T.ENGINES];
    this.enabled[0] = (off & 1) === 0;
    this.enabled[1] = (off & 2) === 0;
    this.sweep = this.levels[0].sweeps;
  }

  /** Brings all connections' counters and deadlines up to date. */
  harvestAll(now: number): void {
    for (const aging of this.agings) aging.all(now);
  }

  /** True when this port's frames may be looked up at all. */
  usable(port: number): boolean {
    const w = this.tables.interfaces.words;
    const r = port * IF_WORDS;
    return (w[r + IF_FLAGS] & (IFF_UP | IFF_HOST)) === IFF_UP && w[r + IF_CHILDREN] === 0 && w[r + IF_SOURCES] === 0;
  }
}
