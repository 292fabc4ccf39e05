/**
 * Watch: the observer of a worker's path that records frames for captures, packets for traces, and times of stages.
 *
 * What is recorded goes through a ring to the control plane, which writes pcapng and text of it (controlplane/capture,
 * controlplane/trace). A ring that is full loses records and counts them; nothing waits, and nothing that is forwarded
 * depends on it. Frames are recorded as the path received and made them, so a super-frame is one frame and a partial checksum looks
 * wrong, as in any capture taken above a NIC.
 *
 * A frame received is copied before it walks, as its bytes change on the way, and recorded when its verdict is known:
 * in front of what came of it. A capture of drops only copies nothing that passes.
 *
 * Not told here, as they never come to the path's one exit of drops: a datagram whose fragments ran out of time, and a packet
 * that had to make room where others wait (their counters say so).
 */
import { CT_WORDS, CT6_WORDS } from '../conntrack/record.ts';
import * as D from './drop.ts';
import { STAGE_IP_PARSE, STAGE_OFFLOAD_LOOKUP, STAGE_RX, STAGE_TX, STAGES } from './drop.ts';
import { type Frames, LARGE_ROOM, META_LEN, META_OFF, META_WORDS } from './frames.ts';
import { ObservedPath, Observer, OWN, observe, RECEIVED, RESUMED, WatchedPath } from './observe.ts';
import type { Path } from './path.ts';
import type { RingWriter } from './rings.ts';
import type { Tables } from './tables.ts';
import * as B from './watch-block.ts';
import type { Packet } from './wire/packet.ts';

/** Own frames that wait for the packet they answer, and room for each. */
const LATER = 4;
const LATER_ROOM = 2048;
/** One packet of so many is timed. */
const TIMED = 16;
const TUPLE = 10; // key, source 4, destination 4, ports

export class Watch extends Observer {
  private readonly frames: Frames;
  private readonly tables: Tables;
  private readonly block: Int32Array;
  readonly ring: RingWriter;
  private readonly clock: () => number;
  private readonly times: Float64Array;
  private readonly head = new Int32Array(B.R_WORDS);
  /** Number of the packet in each slot. */
  private readonly ids: Int32Array;
  private nextId = 0;
  private id = 0;
  /** Sessions that want frames as they come and go, and those that want drops; bits. */
  private frameSessions = 0;
  private sessions = 0;
  private needsStages = 0;
  private readonly active = new Int32Array(B.SESSIONS);
  private activeCount = 0;
  /** The frame that came in and whose verdict is not known yet. */
  private readonly copy = new Uint8Array((LARGE_ROOM + 11) & ~3);
  private readonly copy32 = new Int32Array(this.copy.buffer);
  private pending = false;
  private pendingSlot = -1;
  private pendingPort = 0;
  private pendingLength = 0;
  private pendingAt = 0;
  private byEngine = false;
  /** Why the engine has left the packet to the slow path (EX_*); 0: it was not asked. */
  private why = 0;
  private dropsOnly = false;
  /** The packet that walks, null before it is parsed; and the router's own answer to it. */
  private packet: Packet | null = null;
  private ownPacket: Packet | null = null;
  private resumed = false;
  private outerId = 0;
  private answers = 0;
  private readonly later = new Uint8Array(LATER * LATER_ROOM);
  private readonly laterHeads = new Int32Array(LATER * B.R_WORDS);
  private laterCount = 0;
  /** Stages so far: of the packet, and of its answer. */
  private readonly stages = new Uint8Array(B.MAX_STAGES * 2);
  private stageCount = 0;
  private ownCount = 0;
  private visited = 0;
  private ownVisited = 0;
  private tracing = 0;
  private timing = false;
  private timed = false;
  private packets = 0;
  private readonly began = new Float64Array(16);
  private depth = 0;
  private readonly tuples = new Int32Array(3 * TUPLE);
  private tupleCount = 0;

  /** @param clock milliseconds since 1970   @param block memory of watch-block.ts */
  constructor(frames: Frames, tables: Tables, block: SharedArrayBuffer, ring: RingWriter, clock: () => number) {
    super();
    this.frames = frames;
    this.tables = tables;
    this.block = new Int32Array(block);
    this.ring = ring;
    this.clock = clock;
    this.times = B.timesOf(block, tables.worker);
    this.ids = new Int32Array(frames.small + frames.large);
  }

  /** Reads what is wanted; between two turns. Returns MODE. */
  refresh(): number {
    const b = this.block;
    this.activeCount = 0;
    this.sessions = this.frameSessions = this.needsStages = 0;
    for (let s = 0; s < B.SESSIONS; s++) {
      const at = B.sessionAt(s);
      if (Atomics.load(b, at + B.S_ACTIVE) === 0) continue;
      this.active[this.activeCount++] = s;
      this.sessions |= 1 << s;
      if (b[at + B.S_DROPS] === 0) this.frameSessions |= 1 << s;
      if (b[at + B.S_STAGE] !== 0) this.needsStages |= 1 << s;
    }
    this.tracing = b[B.TRACE_STAGE];
    this.timing = b[B.TIMES] !== 0;
    this.pending = false;
    this.laterCount = 0;
    this.depth = 0;
    this.packet = this.ownPacket = null;
    this.dropsOnly = b[B.MODE] === B.DROPS;
    this.visited = this.ownVisited = this.stageCount = this.why = 0;
    this.resumed = this.byEngine = false;
    return b[B.MODE];
  }

  // --- what the path tells -------------------------------------------------------------------------------------------

  override arrived(slot: number, port: number): void {
    this.id = this.ids[slot] = ++this.nextId;
    this.packet = null;
    this.resumed = this.byEngine = false;
    this.why = 0;
    this.stages[0] = STAGE_RX;
    this.stageCount = 1;
    this.visited = 1;
    this.timed = this.timing && ++this.packets % TIMED === 0;
    this.pending = false;
    this.pendingSlot = slot;
    this.pendingPort = port;
    this.tupleCount = 0;
    const off = this.frames.meta[slot * META_WORDS + META_OFF];
    const length = this.frames.meta[slot * META_WORDS + META_LEN];
    this.pendingLength = length;
    if (this.tracing !== 0) {
      this.tupleAt(0, this.frames.u8, off, length);
      this.tupleCount = 1;
    }
    if (this.frameSessions === 0) return;
    this.pending = true;
    this.pendingAt = this.clock();
    // By words, from the two bytes in front of the frame on: frames begin at offsets ≡ 2 (mod 4), but for a cut tag.
    if ((off & 3) === 2) {
      const { i32 } = this.frames;
      const { copy32 } = this;
      const from = (off - 2) >> 2;
      for (let n = (length + 5) >> 2; n >= 0; n--) copy32[n] = i32[from + n];
    } else for (let n = 0; n < length; n++) this.copy[2 + n] = this.frames.u8[off + n];
  }

  override engine(slot: number, port: number, length: number, why: number): void {
    this.stages[this.stageCount++] = STAGE_OFFLOAD_LOOKUP;
    this.visited |= 1 << STAGE_OFFLOAD_LOOKUP;
    if (this.timing) this.times[STAGE_OFFLOAD_LOOKUP]++;
    if (length < 0) {
      this.why = Math.max(0, why);
      return;
    }
    this.byEngine = true;
    if (this.tracing === 0) return;
    this.stages[this.stageCount++] = STAGE_TX;
    this.visited |= 1 << STAGE_TX;
    if ((this.visited & (1 << (this.tracing - 1))) === 0 || !this.takeTrace()) return;
    this.tuplesOfFrames(slot);
    this.fill(null, D.FORWARDED, 0, 0);
    this.head[B.R_LENGTH] = this.pendingLength;
    this.emitTrace(this.stages, 0, this.stageCount, port);
  }

  override begin(p: Packet, kind: number, slot: number): void {
    if (kind === RECEIVED || (kind === OWN && slot === this.pendingSlot)) {
      this.packet = p;
      if (kind === OWN) this.pendingSlot = -1;
      return;
    }
    if (kind === RESUMED) {
      this.packet = p;
      this.resumed = true;
      this.pending = this.byEngine = false;
      this.pendingSlot = -1;
      this.pendingPort = p.port;
      this.pendingLength = p.len;
      this.id = this.ids[slot];
      this.stageCount = 0;
      this.visited = 0;
      return;
    }
    // The router's own: an answer to the packet that walks, or nobody's.
    this.outerId = this.id;
    this.answers = this.packet !== null ? this.id : 0;
    this.id = this.ids[slot] = ++this.nextId;
    this.ownPacket = p;
    this.stages[B.MAX_STAGES] = D.STAGE_OUTPUT;
    this.ownCount = 1;
    this.ownVisited = 1 << D.STAGE_OUTPUT;
  }

  override enter(p: Packet, stage: number): void {
    if (p === this.ownPacket) {
      if (this.ownCount < B.MAX_STAGES) this.stages[B.MAX_STAGES + this.ownCount++] = stage;
    } else if (this.stageCount < B.MAX_STAGES) this.stages[this.stageCount++] = stage;
    if (this.timed) this.began[this.depth++ & 15] = this.clock();
  }

  override leave(p: Packet, stage: number, acted: boolean): void {
    if (this.timed) {
      const spent = this.clock() - this.began[--this.depth & 15];
      if (acted) {
        this.times[STAGES.length + stage]++;
        this.times[2 * STAGES.length + stage] += spent * 1e6;
      }
    }
    if (acted) {
      if (this.timing) this.times[stage]++;
      if (p === this.ownPacket) this.ownVisited |= 1 << stage;
      else this.visited |= 1 << stage;
    } else if (p === this.ownPacket) this.ownCount--;
    // A stage that had nothing to do is on top: only one that acts begins others.
    else this.stageCount--;
  }

  override dropped(p: Packet, reason: number): void {
    if (this.sessions === 0) return;
    const verdict = D.DROP + reason;
    // Drops alone are wanted: nobody has told of arrivals.
    if (this.dropsOnly) this.id = ++this.nextId;
    if (p === this.ownPacket || (this.dropsOnly && p.own !== 0)) {
      this.fill(p, verdict, p.stage, p.detail);
      const mask = this.wanted(p, p.port, true, this.ownVisited | (1 << p.stage));
      if (mask === 0) return;
      // The router's own packet has no link header yet: 14 bytes of nothing stand for it.
      const length = Math.min(p.len, this.copy.length);
      const { u8 } = this.frames;
      const room = this.later;
      const cut = Math.min(length, LATER_ROOM);
      const at = (LATER - 1) * LATER_ROOM;
      for (let n = 0; n < 12; n++) room[at + n] = 0;
      room[at + 12] = p.family === 4 ? 0x08 : 0x86;
      room[at + 13] = p.family === 4 ? 0x00 : 0xdd;
      for (let n = 14; n < cut; n++) room[at + n] = u8[p.off + n];
      this.emit(mask, B.DIRECTION_NONE, p.port, room, at, cut, p.len, this.clock());
      return;
    }
    const mask = this.wanted(p, p.port, true, this.visited | (1 << p.stage));
    this.fill(p, verdict, p.stage, p.detail);
    if (this.pending)
      this.emit(mask, B.DIRECTION_IN, p.port, this.copy, 2, this.pendingLength, this.pendingLength, this.pendingAt);
    else this.emit(mask, B.DIRECTION_IN, p.port, this.frames.u8, p.off, p.len, p.len, this.clock());
    this.pending = false;
  }

  override queued(slot: number, port: number, length: number): void {
    if (this.frameSessions === 0) return;
    const own = this.ownPacket;
    const p = own ?? (this.byEngine ? null : this.packet);
    const m = slot * META_WORDS;
    const off = this.frames.meta[m + META_OFF];
    if (p === null) this.tuplesOfFrames(slot);
    const visited = own !== null ? this.ownVisited : this.visited;
    if (own === null && this.pending) this.emitPending(p, D.FORWARDED);
    const mask = this.wanted(p, port, false, visited | (1 << STAGE_TX));
    if (mask === 0) return;
    this.fill(p, D.GO_ON, STAGE_TX, 0);
    // An answer stands behind what it answers, whose verdict is not known yet.
    if (own !== null && this.pending && this.laterCount < LATER - 1 && length <= LATER_ROOM) {
      const at = this.laterCount * LATER_ROOM;
      for (let n = 0; n < length; n++) this.later[at + n] = this.frames.u8[off + n];
      this.complete(mask, B.DIRECTION_OUT, length, this.clock());
      const h = this.laterCount * B.R_WORDS;
      for (let n = 0; n < B.R_WORDS; n++) this.laterHeads[h + n] = this.head[n];
      this.laterHeads[h + B.R_OUT] = port + 1;
      this.laterCount++;
      return;
    }
    this.emit(mask, B.DIRECTION_OUT, port, this.frames.u8, off, length, length, this.clock());
  }

  override ended(p: Packet, verdict: number): void {
    if (p === this.ownPacket) {
      if (this.tracing !== 0 && (this.ownVisited & (1 << (this.tracing - 1))) !== 0 && this.takeTrace()) {
        this.fill(p, verdict, p.stage, p.detail);
        this.head[B.R_LENGTH] = p.len;
        this.emitTrace(this.stages, B.MAX_STAGES, this.ownCount, p.port);
      }
      this.ownPacket = null;
      this.id = this.outerId;
      return;
    }
    if (this.pending) this.emitPending(p, verdict);
    for (let n = 0; n < this.laterCount; n++) {
      const h = n * B.R_WORDS;
      for (let k = 0; k < B.R_WORDS; k++) this.head[k] = this.laterHeads[h + k];
      const length = this.head[B.R_LENGTH];
      this.ring.record(
        B.WATCH_FRAME,
        this.head[B.R_OUT] - 1,
        this.head,
        B.R_WORDS,
        this.later,
        n * LATER_ROOM,
        this.cut(this.head[B.R_SESSIONS], length),
      );
    }
    this.laterCount = 0;
    if (this.tracing !== 0 && (this.visited & (1 << (this.tracing - 1))) !== 0 && this.takeTrace()) {
      this.fill(p, verdict, p.stage, p.detail);
      this.head[B.R_LENGTH] = this.pendingLength;
      this.emitTrace(this.stages, 0, this.stageCount, this.pendingPort);
    }
    this.packet = null;
  }

  // --- records ---------------------------------------------------------------------------------------------------------

  private emitPending(p: Packet | null, verdict: number): void {
    this.pending = false;
    const port = p === null ? this.pendingPort : p.port;
    if (p === null && this.tupleCount === 0) this.tuplesOfFrames(-1);
    const mask = this.wanted(p, port, verdict >= D.DROP, this.visited);
    if (mask === 0) return;
    this.fill(p, verdict, p === null ? STAGE_OFFLOAD_LOOKUP : p.stage, p === null ? 0 : p.detail);
    this.emit(mask, B.DIRECTION_IN, port, this.copy, 2, this.pendingLength, this.pendingLength, this.pendingAt);
  }

  /** Fills the head's words about the packet. */
  private fill(p: Packet | null, verdict: number, stage: number, detail: number): void {
    const h = this.head;
    h.fill(0);
    h[B.R_ID] = this.id;
    h[B.R_VERDICT] = verdict;
    h[B.R_STAGE] = stage;
    h[B.R_DETAIL] = detail;
    h[B.R_FLAGS] =
      (this.byEngine && p === null ? B.RF_ENGINE : 0) |
      (p !== null && (p === this.ownPacket || (this.dropsOnly && p.own !== 0)) ? B.RF_OWN : 0) |
      (this.resumed ? B.RF_RESUMED : 0) |
      (this.why << B.RF_WHY);
    if (p === null || p === this.ownPacket) h[B.R_ANSWERS] = p === null ? 0 : this.answers;
    if (p === null) {
      if (this.tupleCount === 0) this.tuplesOfFrames(-1);
      this.copyTuple(0, B.R_RSRC);
      this.copyTuple(this.tupleCount > 1 ? 1 : 0, B.R_SRC);
      h[B.R_KEY] = this.tuples[0];
      return;
    }
    // What is dropped before it was parsed has no addresses; the packet still holds those of the one before.
    if (p !== this.ownPacket && stage < STAGE_IP_PARSE) return;
    h[B.R_KEY] = p.proto | (p.family << 8);
    h[B.R_RSRC] = p.rs0;
    h[B.R_RSRC + 1] = p.rs1;
    h[B.R_RSRC + 2] = p.rs2;
    h[B.R_RSRC + 3] = p.rs3;
    h[B.R_RDST] = p.rd0;
    h[B.R_RDST + 1] = p.rd1;
    h[B.R_RDST + 2] = p.rd2;
    h[B.R_RDST + 3] = p.rd3;
    h[B.R_RPORTS] = p.rports;
    h[B.R_SRC] = p.s0;
    h[B.R_SRC + 1] = p.s1;
    h[B.R_SRC + 2] = p.s2;
    h[B.R_SRC + 3] = p.s3;
    h[B.R_DST] = p.d0;
    h[B.R_DST + 1] = p.d1;
    h[B.R_DST + 2] = p.d2;
    h[B.R_DST + 3] = p.d3;
    h[B.R_PORTS] = p.ports;
    h[B.R_CT] = p.ct + 1;
    h[B.R_CTINFO] = p.ctinfo | (p.dir << 8);
    if (verdict === D.FORWARDED || verdict === D.GO_ON || verdict === D.HELD) {
      h[B.R_OUT] = p.outPort + 1;
      h[B.R_NEXT] = p.n0;
      h[B.R_NEXT + 1] = p.n1;
      h[B.R_NEXT + 2] = p.n2;
      h[B.R_NEXT + 3] = p.n3;
    }
  }

  private copyTuple(tuple: number, to: number): void {
    for (let n = 0; n < 9; n++) this.head[to + n] = this.tuples[tuple * TUPLE + 1 + n];
  }

  private complete(mask: number, direction: number, length: number, at: number): void {
    const h = this.head;
    h[B.R_SESSIONS] = mask;
    h[B.R_DIRECTION] = direction;
    h[B.R_LENGTH] = length;
    const seconds = Math.floor(at / 1000);
    h[B.R_SECONDS] = seconds;
    h[B.R_NANOS] = Math.floor((at - seconds * 1000) * 1e6);
  }

  private emit(
    mask: number,
    direction: number,
    port: number,
    u8: Uint8Array,
    off: number,
    kept: number,
    length: number,
    at: number,
  ): void {
    if (mask === 0) return;
    this.complete(mask, direction, length, at);
    this.ring.record(B.WATCH_FRAME, port, this.head, B.R_WORDS, u8, off, Math.min(kept, this.cut(mask, length)));
  }

  /** Longest part of a frame that any of these sessions wants. */
  private cut(mask: number, length: number): number {
    let snap = 0;
    for (let k = 0; k < this.activeCount; k++) {
      const s = this.active[k];
      if ((mask & (1 << s)) !== 0) snap = Math.max(snap, this.block[B.sessionAt(s) + B.S_SNAP]);
    }
    return Math.min(length, snap);
  }

  private takeTrace(): boolean {
    if (Atomics.load(this.block, B.TRACE_LEFT) <= 0) return false;
    return Atomics.sub(this.block, B.TRACE_LEFT, 1) > 0;
  }

  private emitTrace(stages: Uint8Array, from: number, count: number, port: number): void {
    const h = this.head;
    const length = h[B.R_LENGTH];
    this.complete(0, 0, length, this.clock());
    h[B.R_COUNT] = count;
    for (let n = 0; n < count; n++) h[B.R_STAGES + (n >> 2)] |= stages[from + n] << ((n & 3) << 3);
    this.ring.record(B.WATCH_TRACE, port, h, B.R_WORDS, this.copy, 0, 0);
  }

  // --- filters -----------------------------------------------------------------------------------------------------------

  /** Sessions that want this frame, a bit each. */
  private wanted(p: Packet | null, port: number, isDrop: boolean, visited: number): number {
    const b = this.block;
    let mask = 0;
    let filled = p === null;
    for (let k = 0; k < this.activeCount; k++) {
      const s = this.active[k];
      const at = B.sessionAt(s);
      if (b[at + B.S_DROPS] !== 0 && !isDrop) continue;
      const ports = b[at + B.S_PORTS] | b[at + B.S_PORTS + 1];
      if (ports !== 0 && (b[at + B.S_PORTS + (port >> 5)] & (1 << (port & 31))) === 0) continue;
      const stage = b[at + B.S_STAGE];
      if (stage !== 0 && (visited & (1 << (stage - 1))) === 0) continue;
      if (b[at + B.S_FLOW] !== 0) {
        if (!filled && p !== null) this.tuplesOf(p);
        filled = true;
        if (!this.inFlow(at)) continue;
      }
      mask |= 1 << s;
    }
    return mask;
  }

  /** The packet's tuples: as received, as it is now, and its connection's. */
  private tuplesOf(p: Packet): void {
    this.tupleCount = 0;
    if (p !== this.ownPacket && p.stage < STAGE_IP_PARSE) return;
    const t = this.tuples;
    const key = p.proto | (p.family << 8);
    t[0] = t[TUPLE] = t[2 * TUPLE] = key;
    t[1] = p.rs0;
    t[2] = p.rs1;
    t[3] = p.rs2;
    t[4] = p.rs3;
    t[5] = p.rd0;
    t[6] = p.rd1;
    t[7] = p.rd2;
    t[8] = p.rd3;
    t[9] = p.rports;
    t[TUPLE + 1] = p.s0;
    t[TUPLE + 2] = p.s1;
    t[TUPLE + 3] = p.s2;
    t[TUPLE + 4] = p.s3;
    t[TUPLE + 5] = p.d0;
    t[TUPLE + 6] = p.d1;
    t[TUPLE + 7] = p.d2;
    t[TUPLE + 8] = p.d3;
    t[TUPLE + 9] = p.ports;
    this.tupleCount = 2;
    if (p.ct < 0) return;
    const { words, words6 } = this.tables.conntrack;
    const c = p.ct * CT_WORDS;
    const o = 2 * TUPLE;
    t[o] = words[c + 7] & 0xffff;
    t[o + 9] = words[c + 6];
    if (p.family === 4) {
      t.fill(0, o + 1, o + 9);
      t[o + 1] = words[c + 4];
      t[o + 5] = words[c + 5];
    } else for (let n = 0; n < 8; n++) t[o + 1 + n] = words6[p.ct * CT6_WORDS + n];
    this.tupleCount = 3;
  }

  /** Of a packet that the engine forwarded: what came in, and what leaves (slot −1: only what came in). */
  private tuplesOfFrames(slot: number): void {
    if (this.frameSessions !== 0) this.tupleAt(0, this.copy, 2, this.pendingLength);
    else if (this.tupleCount === 0) this.tuples.fill(0, 0, TUPLE);
    this.tupleCount = 1;
    if (slot < 0) return;
    const m = slot * META_WORDS;
    this.tupleAt(1, this.frames.u8, this.frames.meta[m + META_OFF], this.frames.meta[m + META_LEN]);
    this.tupleCount = 2;
  }

  /** The tuple of a frame that the engine takes: untagged or tagged, without options or extension headers. */
  private tupleAt(tuple: number, u8: Uint8Array, off: number, length: number): void {
    const t = this.tuples;
    const at = tuple * TUPLE;
    t.fill(0, at, at + TUPLE);
    const l3 = off + (u8[off + 12] === 0x81 ? 18 : 14);
    const family = u8[l3] >> 4;
    if (length < (family === 4 ? 42 : 62) || (family !== 4 && family !== 6)) return;
    const proto = u8[l3 + (family === 4 ? 9 : 6)];
    t[at] = proto | (family << 8);
    if (family === 4) {
      t[at + 1] = word(u8, l3 + 12);
      t[at + 5] = word(u8, l3 + 16);
    } else for (let n = 0; n < 8; n++) t[at + 1 + n] = word(u8, l3 + 8 + 4 * n);
    if (proto === 6 || proto === 17) t[at + 9] = word(u8, l3 + (family === 4 ? 20 : 40));
  }

  /** True when one of the tuples is the session's flow, in either direction. */
  private inFlow(at: number): boolean {
    for (let n = 0; n < this.tupleCount; n++) {
      const t = n * TUPLE;
      const key = this.tuples[t];
      const b = this.block;
      if (b[at + B.S_PROTO] !== 0 && (key & 0xff) !== b[at + B.S_PROTO]) continue;
      if (b[at + B.S_FAMILY] !== 0 && ((key >> 8) & 15) !== b[at + B.S_FAMILY]) continue;
      if (this.fits(at, t, 1, 5, 0) || this.fits(at, t, 5, 1, 16)) return true;
    }
    return false;
  }

  private fits(at: number, t: number, src: number, dst: number, shift: number): boolean {
    const b = this.block;
    const flow = b[at + B.S_FLOW];
    const ports = this.tuples[t + 9];
    if ((flow & B.FLOW_SPORT) !== 0 && ((ports >>> shift) & 0xffff) !== b[at + B.S_SPORT]) return false;
    if ((flow & B.FLOW_DPORT) !== 0 && ((ports >>> (16 - shift)) & 0xffff) !== b[at + B.S_DPORT]) return false;
    for (let n = 0; n < 4; n++) {
      if ((flow & B.FLOW_SRC) !== 0 && this.tuples[t + src + n] !== b[at + B.S_SRC + n]) return false;
      if ((flow & B.FLOW_DST) !== 0 && this.tuples[t + dst + n] !== b[at + B.S_DST + n]) return false;
    }
    return true;
  }
}

/** A raw word at any offset. */
function word(u8: Uint8Array, at: number): number {
  return u8[at] | (u8[at + 1] << 8) | (u8[at + 2] << 16) | (u8[at + 3] << 24);
}

/** The path that a worker runs now: its own, or, while somebody watches, the same one observed. */
export class WatchSwitch {
  private readonly own: Path;
  private readonly watch: Watch;
  private readonly block: Int32Array;
  private path: Path;
  private watched: Path | null = null;
  private observed: Path | null = null;
  private generation = 0;

  constructor(path: Path, watch: Watch, block: SharedArrayBuffer) {
    this.own = this.path = path;
    this.watch = watch;
    this.block = new Int32Array(block);
  }

  /** The path for the next turn; asked between two turns, at the price of one load. */
  current(): Path {
    const generation = this.block[B.GENERATION];
    if (generation !== this.generation) this.change(generation);
    return this.path;
  }

  private change(generation: number): void {
    this.generation = generation;
    const mode = this.watch.refresh();
    this.own.watcher = mode === B.DROPS ? this.watch : null;
    const next = mode === B.FRAMES ? this.watchedPath() : mode === B.STAGES_TOO ? this.observedPath() : this.own;
    if (next !== this.path) next.takeOver(this.path);
    this.path = next;
  }

  /** Each is made once: a class more that the path's code has met costs it a little, for good. */
  private watchedPath(): Path {
    this.watched ??= observe(WatchedPath, this.own, this.watch);
    return this.watched;
  }

  private observedPath(): Path {
    this.observed ??= observe(ObservedPath, this.own, this.watch);
    return this.observed;
  }
}
