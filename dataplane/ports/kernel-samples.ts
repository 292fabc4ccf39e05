/**
 * Kernel samples: verify mode of the kernel engine. Its programs show some of what they forward (offload/kernel/sample.ts), a
 * frame as it came and as it left; each is walked through the slow path, and what that would have sent is compared with
 * what the kernel has sent (dataplane/shadow.ts). Differences are counted and reported as those of the emulated engine.
 *
 * The frame has left: nothing that the walk sends is sent. It counts here, once, as a hit of the kernel's, which its
 * program has left to this. A sample whose entry is not what it was (a flush, a neighbour, an end of its connection in
 * between, also when the flow has a new entry since, be it of a new connection with the same addresses and ports) has
 * nothing to be compared with and is only counted.
 * The ring is read by BpfRing; a record is a sample (offload/kernel/layout.ts).
 */
import { EX_COMPARED, EX_HITS, EX_INCOMPARABLE, EX_KERNEL } from '../../offload/engine.ts';
import * as L from '../../offload/kernel/layout.ts';
import {
  AUX_CONN_GEN,
  AUX_WORDS,
  F4_BYTES,
  F4_CONN,
  F4_LAST,
  F4_PACKETS,
  F6_BYTES,
  F6_CONN,
  F6_LAST,
  F6_PACKETS,
} from '../../offload/table.ts';
import {
  FRAME_DATA_VALID,
  FRAME_NEEDS_CSUM,
  type Frames,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_HDRLEN,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../frames.ts';
import { IF_PARENT, IF_VLAN, IF_WORDS } from '../interfaces.ts';
import { NEIGH_GEN } from '../neighbours.ts';
import { TCP, UDP } from '../parse.ts';
import type { Path } from '../path.ts';
import * as T from '../tables.ts';
import { fold, halves, sumRange } from '../wire/sum.ts';
import { BpfRing, type RingTask } from './bpf-ring.ts';

/** Some 330 records: what comes in 20 ms when every 64th of a million packets a second is shown. */
export const SAMPLE_RING_BYTES = 1 << 20;
/** How long a worker may sleep while there may be samples, ms. */
export const SAMPLE_NAP = 20;
/** Bytes of link header that a packet's own length does not have, and of a tag in it. */
const LINK_HEADER = 14;
const TAG = 4;

/**
 * What the kernel has forwarded counts as received, as a hit, and as sent, as if a worker had done it: a tagged frame with its
 * tag, received by the port under the VLAN. `bytes` of IP.
 */
export function countForwarded(tables: T.Tables, from: number, to: number, packets: number, bytes: number): void {
  const { counters } = tables;
  counters[T.C_RECEIVED] += packets;
  counters[T.C_FORWARDED] += packets;
  counters[T.C_ENGINE + EX_HITS] += packets;
  counters[T.C_ENGINE + EX_KERNEL] += packets;
  countPort(tables, from, T.CP_RX_PACKETS, packets, bytes);
  countPort(tables, to, T.CP_TX_PACKETS, packets, bytes);
}

/** What a VLAN port receives or sends, the port under it does, with the tag. `bytes` of IP; `counter` as `count` takes it. */
function countPort(tables: T.Tables, port: number, counter: number, packets: number, bytes: number): void {
  const { counters, interfaces } = tables;
  const r = port * IF_WORDS;
  const size = bytes + packets * (interfaces.words[r + IF_VLAN] === 0 ? LINK_HEADER : LINK_HEADER + TAG);
  const parent = interfaces.words[r + IF_PARENT];
  T.countFrames(counters, port, counter, packets, size);
  if (parent !== 0) T.countFrames(counters, parent - 1, counter, packets, size);
}

export class KernelSamples {
  private readonly ring: BpfRing;
  private readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly tables: T.Tables;

  /** One reader: one worker, whose `tables` they are. */
  constructor(task: RingTask, tables: T.Tables) {
    this.ring = new BpfRing(task);
    this.words = this.ring.words;
    this.bytes = this.ring.bytes;
    this.tables = tables;
  }

  /** Walks what there is, at most `limit` samples. Returns how many. */
  drain(path: Path, limit: number): number {
    const { ring } = this;
    let done = 0;
    for (let at = 0; done < limit && (at = ring.peek()) >= 0; done++) {
      this.judge(path, at);
      ring.skip();
      ring.release();
    }
    return done;
  }

  private judge(path: Path, at: number): void {
    const { words, bytes } = this;
    const { counters } = this.tables;
    const w = at >> 2;
    const { frames } = path;
    const own = this.isOwn(w);
    const length = words[w + L.S_LENGTH];
    const after = words[w + L.S_LENGTH_AFTER];
    const out = words[w + L.S_OUT];
    const tag = words[w + L.S_TAG];
    const slot = frames.alloc(length);
    if (slot >= 0) {
      const m = slot * META_WORDS;
      const off = frames.meta[m + META_OFF];
      const known = Math.min(length, L.SAMPLE_ROOM);
      for (let n = 0; n < known; n++) frames.u8[off + n] = bytes[at + L.S_BEFORE + n];
      frames.u8.fill(0, off + known, off + length);
      frames.meta[m + META_LEN] = length;
      frames.meta[m + META_PORT] = words[w + L.S_IN];
      const { shadow } = path.fast ?? { shadow: null };
      if (
        shadow !== null &&
        own &&
        describe(frames, slot, words[w + L.S_GSO], known === length) &&
        this.isCurrent(w) &&
        path.recognize(slot, words[w + L.S_EPOCH])
      ) {
        const tci = (tag & L.S_TAGGED) === 0 ? -1 : tag & 0xffff;
        shadow.sample(out, bytes, at + L.S_AFTER, after, Math.min(after, L.SAMPLE_ROOM), tci);
        this.tagged(words[w + L.S_IN], length);
        path.review(slot);
        counters[T.C_ENGINE + EX_KERNEL]++;
        counters[T.C_ENGINE + EX_COMPARED]++;
        return;
      }
      frames.free(slot);
    }
    counters[T.C_ENGINE + EX_INCOMPARABLE]++;
    countForwarded(this.tables, words[w + L.S_IN], out, 1, words[w + L.S_PACKET]);
    if (own) this.countHit(w);
  }

  /** A sample of a VLAN port's is walked without its tag: the port under it has received it, too, and both with the tag. */
  private tagged(port: number, length: number): void {
    const { counters, interfaces } = this.tables;
    const parent = interfaces.words[port * IF_WORDS + IF_PARENT];
    if (parent === 0) return;
    counters[T.C_PORTS + port * 8 + T.CP_RX_BYTES] += TAG;
    T.countFrames(counters, parent - 1, T.CP_RX_PACKETS, 1, length + TAG);
  }

  /** Is the place of the sample's entry still that connection's? */
  private isOwn(w: number): boolean {
    const { flows } = this.tables;
    if (flows === null) return false;
    const index = this.words[w + L.S_COUNTER];
    const place = index & flows.mask;
    const six = index > flows.mask;
    if (!flows.isLive(six ? 6 : 4, place)) return false;
    const link = six ? flows.words6[(place << 5) + F6_CONN] : flows.words4[(place << 4) + F4_CONN];
    const generation = (six ? flows.aux6 : flows.aux4)[place * AUX_WORDS + AUX_CONN_GEN];
    return ((L.connectionMark(link, generation) ^ this.words[w + L.S_CHANGES]) & ~L.CHANGES) === 0;
  }

  /** Counts the sample for its entry, and so for its connection: no walk does. */
  private countHit(w: number): void {
    const { flows } = this.tables;
    if (flows === null) return;
    const index = this.words[w + L.S_COUNTER];
    const place = index & flows.mask;
    const six = index > flows.mask;
    const entries = six ? flows.words6 : flows.words4;
    const e = six ? place << 5 : place << 4;
    Atomics.add(entries, e + (six ? F6_PACKETS : F4_PACKETS), 1);
    Atomics.add(entries, e + (six ? F6_BYTES : F4_BYTES), this.words[w + L.S_PACKET]);
    entries[e + (six ? F6_LAST : F4_LAST)] = this.tables.now();
  }

  /** Is the neighbour what it was for the entry of the sample at word `w`, and an epoch of the same number the same one? */
  private isCurrent(w: number): boolean {
    const { words } = this;
    const { flows, neighbours } = this.tables;
    const generation = neighbours.words[neighbours.at(words[w + L.S_NEIGH_AT]) + NEIGH_GEN];
    return ((generation ^ words[w + L.S_NEIGH]) & 0xffff) === 0 && flows?.sweeps === words[w + L.S_EPOCH + 1];
  }
}

/**
 * What the kernel does not tell of a frame: whether its checksum is partial. A super-frame's must be; of others, one that
 * is right is whole, and one that is just the pseudo-header's sum is partial. (Of a frame that is not here as a `whole`, a
 * whole checksum may look like a partial one, once in 65,536.) A wrong one stays wrong in both engines. False: it cannot
 * be walked.
 */
function describe(frames: Frames, slot: number, gsoSize: number, whole: boolean): boolean {
  const { u8, u16, i32, meta } = frames;
  const m = slot * META_WORDS;
  const off = meta[m + META_OFF];
  const w = (off + 14) >> 2;
  const four = u16[(off + 12) >> 1] === 0x0008;
  const l4 = off + (four ? 34 : 54);
  const proto = four ? u8[off + 23] : u8[off + 20];
  const size = four ? ((u8[off + 16] << 8) | u8[off + 17]) - 20 : (u8[off + 18] << 8) | u8[off + 19];
  const offset = proto === TCP ? 16 : 6;
  meta[m + META_FLAGS] = FRAME_DATA_VALID;
  if (proto !== TCP && proto !== UDP) return gsoSize === 0;
  let pseudo = ((size & 0xff) << 8) + (size >> 8) + (proto << 8);
  for (let n = four ? 3 : 2; n < (four ? 5 : 10); n++) pseudo += halves(i32[w + n]);
  const right = whole && gsoSize === 0 && fold(sumRange(u16, i32, u8, l4, l4 + size, pseudo)) === 0xffff;
  if (!right && u16[(l4 + offset) >> 1] === fold(pseudo)) {
    meta[m + META_FLAGS] = FRAME_NEEDS_CSUM;
    meta[m + META_CSUM] = (l4 - off) | (offset << 16);
  } else if (gsoSize !== 0) return false;
  if (gsoSize === 0) return true;
  meta[m + META_GSO] = (proto === UDP ? GSO_UDP_L4 : four ? GSO_TCPV4 : GSO_TCPV6) | (gsoSize << 16);
  meta[m + META_HDRLEN] = l4 - off + (proto === UDP ? 8 : (u8[l4 + 12] & 0xf0) >> 2);
  return true;
}
