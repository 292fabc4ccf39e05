/**
 * Observed paths: the packet's path with somebody who looks on. For captures, traces and `explain`.
 *
 * An observed path is the path itself: every stage is Path's own, called through `super`, and the observer is told what
 * came in, what each stage did, what was dropped and what was sent. Nobody who looks on can change a verdict or a frame.
 * While nobody does, none of this exists for the packets: a worker swaps its Path for an observed one between two turns
 * (`observe`) and back (`Path.takeOver`), so the unobserved path has no branch for it.
 *
 *   Path          drops: a capture of drops only needs no other path (Path.watcher)
 *   WatchedPath   frames in, frames out: what a capture needs
 *   ObservedPath  each stage besides: what a trace and `explain` need
 */
import * as D from './drop.ts';
import { FORWARDED } from './drop.ts';
import type { FastPath } from './fastpath.ts';
import { type Frames, META_LEN, META_PORT, META_WORDS } from './frames.ts';
import { Path, type PathOptions, type Punt } from './path.ts';
import * as T from './tables.ts';
import type { Packet } from './wire/packet.ts';

/** How a packet came to the path. */
export const RECEIVED = 0;
/** Made by the router itself, or sent by the host kernel with one of its addresses. */
export const OWN = 1;
/** It had waited for a neighbour. */
export const RESUMED = 2;
/** A frame of the control plane's, sent as it is. */
export const SENT = 3;

/** Who looks on. Every method may be left out; none may keep the packet, or change it or a frame. */
export class Observer {
  /** A frame is in `slot`, untouched, as `port` received it. */
  arrived(_slot: number, _port: number): void {}
  /** A packet begins to walk; `kind` is RECEIVED … SENT. Of OWN and SENT the slot is given, the packet is not parsed yet. */
  begin(_p: Packet, _kind: number, _slot: number): void {}
  /** A stage begins. */
  enter(_p: Packet, _stage: number): void {}
  /** A stage is over. `acted`: it had something to do with this packet. `verdict`: GO_ON or how the walk ends. */
  leave(_p: Packet, _stage: number, _acted: boolean, _verdict: number): void {}
  /** The packet is dropped; its stage and detail say more. The frame is still in its slot. */
  dropped(_p: Packet, _reason: number): void {}
  /** The engine has looked: `length` of the frame that it made, or −1 and why not (EX_*; VERIFIED: verify alone sends it on). */
  engine(_slot: number, _port: number, _length: number, _why: number): void {}
  /** A frame leaves by `port`. */
  queued(_slot: number, _port: number, _length: number): void {}
  /** The packet's walk is over, before its slot is given back. */
  ended(_p: Packet, _verdict: number): void {}
}

export class WatchedPath extends Path {
  observer = new Observer();
  /** Slot whose arrival was told already: the engine has looked at it first. */
  protected told = -1;

  attach(observer: Observer): void {
    this.observer = this.watcher = observer;
    this.told = -1;
    this.hookTracker();
  }

  /** As Path's, frame by frame: what an entry rewrites must be told before and behind. */
  protected override offloadBurst(fast: FastPath, slots: Int32Array, n: number, port: number): void {
    const { observer, counters, epoch } = this;
    const meta = this.frames.meta;
    const row = T.C_PORTS + port * 8;
    fast.touch(slots, n, this.now);
    for (let k = 0; k < n; k++) {
      const slot = slots[k];
      const length = meta[slot * META_WORDS + META_LEN];
      observer.arrived(slot, port);
      const hit = fast.run(slots, k, k + 1, port, epoch) > k;
      const copied = !hit && fast.refused(slot, port, this);
      observer.engine(slot, port, hit ? fast.sent : copied ? 0 : -1, fast.why);
      if (!hit && !copied) {
        this.told = slot;
        this.receive(slot);
        this.told = -1;
        continue;
      }
      counters[T.C_RECEIVED]++;
      counters[T.C_FORWARDED]++;
      counters[row + T.CP_RX_PACKETS]++;
      counters[row + T.CP_RX_BYTES] += length;
      // Length 0: the engine has queued copies.
      if (hit) this.queue(slot, fast.outPort, fast.sent);
    }
  }

  protected override receive(slot: number): void {
    if (slot !== this.told) this.observer.arrived(slot, this.frames.meta[slot * META_WORDS + META_PORT]);
    super.receive(slot);
  }

  protected override walk(p: Packet): number {
    this.observer.begin(p, RECEIVED, p.slot);
    return super.walk(p);
  }

  protected override fromHost(p: Packet): number {
    this.observer.begin(p, OWN, p.slot);
    return super.fromHost(p);
  }

  override output(slot: number, family: number, tracked: boolean, scope: number): void {
    this.observer.begin(this.own, OWN, slot);
    super.output(slot, family, tracked, scope);
  }

  override send(slot: number, port: number): void {
    this.observer.begin(this.own, SENT, slot);
    super.send(slot, port);
    this.observer.ended(this.own, FORWARDED);
  }

  protected override leave(p: Packet): number {
    if (p === this.resumed) this.observer.begin(p, RESUMED, p.slot);
    return super.leave(p);
  }

  protected override neighbourFailed(p: Packet): number {
    if (p === this.resumed) this.observer.begin(p, RESUMED, p.slot);
    return super.neighbourFailed(p);
  }

  override queue(slot: number, port: number, length: number): number {
    this.observer.queued(slot, port, length);
    return super.queue(slot, port, length);
  }

  protected override finish(p: Packet, verdict: number): void {
    // A segment that an ALG has cut is a piece of a packet whose walk goes on.
    if (p !== this.segmentPacket) this.observer.ended(p, verdict);
    super.finish(p, verdict);
  }
}

export class ObservedPath extends WatchedPath {
  /** Tells of one stage. A stage that has nothing to do leaves the packet's `stage` alone; `ttl` and `mtu` always look. */
  private enter(p: Packet, stage: number): number {
    const before = p.stage;
    this.observer.enter(p, stage);
    p.stage = -1;
    return before;
  }

  private left(p: Packet, stage: number, before: number, verdict: number): number {
    const acted = p.stage !== -1 || stage === D.STAGE_TTL || stage === D.STAGE_MTU;
    if (p.stage === -1) p.stage = before;
    this.observer.leave(p, stage, acted, verdict);
    return verdict;
  }

  protected override linkInput(p: Packet): number {
    const before = this.enter(p, D.STAGE_LINK_INPUT);
    return this.left(p, D.STAGE_LINK_INPUT, before, super.linkInput(p));
  }

  protected override ipParse(p: Packet): number {
    const before = this.enter(p, D.STAGE_IP_PARSE);
    return this.left(p, D.STAGE_IP_PARSE, before, super.ipParse(p));
  }

  protected override sourceGuard(p: Packet): number {
    const before = this.enter(p, D.STAGE_IP_SANITY);
    return this.left(p, D.STAGE_IP_SANITY, before, super.sourceGuard(p));
  }

  protected override reassembly(p: Packet): number {
    const before = this.enter(p, D.STAGE_REASSEMBLY);
    return this.left(p, D.STAGE_REASSEMBLY, before, super.reassembly(p));
  }

  protected override conntrackIn(p: Packet): number {
    const before = this.enter(p, D.STAGE_CONNTRACK_IN);
    return this.left(p, D.STAGE_CONNTRACK_IN, before, super.conntrackIn(p));
  }

  protected override natPrerouting(p: Packet): number {
    const before = this.enter(p, D.STAGE_NAT_PREROUTING);
    return this.left(p, D.STAGE_NAT_PREROUTING, before, super.natPrerouting(p));
  }

  protected override route(p: Packet): number {
    const before = this.enter(p, D.STAGE_ROUTE);
    return this.left(p, D.STAGE_ROUTE, before, super.route(p));
  }

  protected override input(p: Packet): number {
    const before = this.enter(p, D.STAGE_INPUT);
    return this.left(p, D.STAGE_INPUT, before, super.input(p));
  }

  protected override ttl(p: Packet): number {
    const before = this.enter(p, D.STAGE_TTL);
    return this.left(p, D.STAGE_TTL, before, super.ttl(p));
  }

  protected override mtu(p: Packet): number {
    const before = this.enter(p, D.STAGE_MTU);
    return this.left(p, D.STAGE_MTU, before, super.mtu(p));
  }

  protected override forwardFilter(p: Packet): number {
    const before = this.enter(p, D.STAGE_FORWARD_FILTER);
    return this.left(p, D.STAGE_FORWARD_FILTER, before, super.forwardFilter(p));
  }

  protected override natPostrouting(p: Packet): number {
    const before = this.enter(p, D.STAGE_NAT_POSTROUTING);
    return this.left(p, D.STAGE_NAT_POSTROUTING, before, super.natPostrouting(p));
  }

  protected override alg(p: Packet): number {
    const before = this.enter(p, D.STAGE_ALG);
    return this.left(p, D.STAGE_ALG, before, super.alg(p));
  }

  protected override conntrackConfirm(p: Packet): number {
    const before = this.enter(p, D.STAGE_CONNTRACK_CONFIRM);
    return this.left(p, D.STAGE_CONNTRACK_CONFIRM, before, super.conntrackConfirm(p));
  }

  protected override neighbour(p: Packet): number {
    const before = this.enter(p, D.STAGE_NEIGHBOUR);
    return this.left(p, D.STAGE_NEIGHBOUR, before, super.neighbour(p));
  }

  protected override offloadProgram(p: Packet): number {
    const before = this.enter(p, D.STAGE_OFFLOAD_PROGRAM);
    return this.left(p, D.STAGE_OFFLOAD_PROGRAM, before, super.offloadProgram(p));
  }

  protected override fragment(p: Packet): number {
    const before = this.enter(p, D.STAGE_FRAGMENT);
    return this.left(p, D.STAGE_FRAGMENT, before, super.fragment(p));
  }

  protected override rewrite(p: Packet): number {
    // The first half of tx; told only when it ends the walk.
    const before = this.enter(p, D.STAGE_TX);
    const verdict = super.rewrite(p);
    if (verdict !== D.GO_ON) return this.left(p, D.STAGE_TX, before, verdict);
    this.observer.leave(p, D.STAGE_TX, false, verdict);
    return verdict;
  }

  protected override tx(p: Packet): number {
    const before = this.enter(p, D.STAGE_TX);
    return this.left(p, D.STAGE_TX, before, super.tx(p));
  }
}

/**
 * A path of class `kind` that shares all parts of `path` and can take its place between two turns (Path.takeOver); whichever
 * of the two does not run must rest.
 */
export function observe<P extends WatchedPath>(kind: PathClass<P>, path: Path, observer: Observer): P {
  const { tables, frames, ports, punt } = path;
  const observed = new kind(tables, frames, ports, punt, { seed: 0, shared: false }, path);
  observed.attach(observer);
  return observed;
}

type PathClass<P> = new (
  tables: T.Tables,
  frames: Frames,
  ports: Path['ports'],
  punt: Punt,
  options: PathOptions,
  like: Path,
) => P;
