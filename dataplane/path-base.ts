/**
 * What every stage of the path uses: the tables, the one exit of all drops, the queues of frames that leave, and the
 * router's own ICMP errors and resets. The stages themselves are in path.ts, path-route.ts, path-egress.ts and
 * path-local.ts; Path (path.ts) is all of them together.
 */
import { Aging } from '../conntrack/aging.ts';
import { EventSink } from '../conntrack/events.ts';
import { Mapper } from '../conntrack/mapper.ts';
import { Nat } from '../conntrack/nat.ts';
import { Tracker } from '../conntrack/track.ts';
import * as D from './drop.ts';
import { DELIVERED, DROP, FORWARDED, HELD } from './drop.ts';
import { FastPath } from './fastpath.ts';
import { Fragmenter } from './fragment.ts';
import { type Frames, META_LEN, META_OFF, META_WORDS, SMALL_ROOM } from './frames.ts';
import { BURST } from './ground.ts';
import type { Handover } from './handover.ts';
import { Hold } from './hold.ts';
import { buildError, ErrorLimiter, mayAnswer } from './icmp-errors.ts';
import * as IF from './interfaces.ts';
import { Mangler } from './mangle.ts';
import * as NH from './nexthops.ts';
import type { FastPathOptions } from './offloading.ts';
import { TCP } from './parse.ts';
import type { Port } from './ports/port.ts';
import { MAX_SEGMENTS } from './ports/segment.ts';
import { REASSEMBLED, Reassembly } from './reassembly.ts';
import { writeLink } from './rewrite.ts';
import * as T from './tables.ts';
import { buildReset, mayReset } from './tcp-reset.ts';
import { Toucher } from './touch.ts';
import { Packet } from './wire/packet.ts';

export { BURST };

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
/** Datagrams whose reassembly is given up in one turn of housekeeping. */
export const EXPIRE_BURST = 64;
/** Frames queued for one port before they are sent. */
export const TX_QUEUE = 512;

/** Where the path sends what the control plane must see. */
export interface Punt {
  /**
   * A frame for a built-in protocol; the frame stays the caller's. `service`: its destination port (raw) when it is UDP or TCP, 0
   * when not. Returns false when there was no room.
   */
  frame(frames: Frames, slot: number, port: number, etherType: number, l3: number, service: number): boolean;
  /** A next hop is wanted; address raw. */
  resolve(port: number, family: number, a0: number, a1: number, a2: number, a3: number): void;
  /** A STALE neighbour was used. */
  used(neighbour: number): void;
}

export interface PathOptions {
  /** Seed of port choice; 0 is as good as any. */
  seed: number;
  /** More than one thread tracks connections. */
  shared: boolean;
  /** The offload engine; absent: off. */
  offload?: FastPathOptions | null;
}

/** Who is told of drops while somebody watches (dataplane/watch.ts). */
export interface DropWatcher {
  dropped(p: Packet, reason: number): void;
}

export abstract class PathBase {
  readonly tables: T.Tables;
  readonly frames: Frames;
  readonly tracker: Tracker;
  readonly nat: Nat;
  readonly mangler: Mangler;
  protected readonly toucher: Toucher;
  /** The offload engine's stages; null when it is off. */
  readonly fast: FastPath | null = null;
  readonly hold = new Hold();
  /** Other workers, for fragments; null: there are none. Set by who starts more than one. */
  handover: Handover | null = null;
  readonly fragments: Reassembly;
  protected readonly fragmenter: Fragmenter;
  readonly limiter = new ErrorLimiter();
  /** Ports of this worker by number; holes where there is none. */
  readonly ports: (Port | null)[];
  readonly punt: Punt;
  /** Null while nobody watches: asked where a packet is dropped, nowhere else. */
  watcher: DropWatcher | null = null;
  protected readonly packet = new Packet();
  protected readonly own = new Packet();
  protected readonly resumed = new Packet();
  protected readonly segmentPacket = new Packet();
  protected readonly segments = new Int32Array(MAX_SEGMENTS);
  /** Helper that the filter rule of the current packet names; 0 none. */
  protected helperByRule = 0;
  protected readonly counters: Float64Array;
  protected readonly txSlots: Int32Array[] = [];
  protected readonly txCount = new Int32Array(IF.MAX_PORTS);
  protected readonly rxSlots: Int32Array;
  protected readonly quote = { s: new Int32Array(4), d: new Int32Array(4), ports: 0 };
  protected readonly errorSource = new Int32Array(4);
  protected neighbourEpoch = 0;
  protected neighbourAnswers = 0;
  protected heldLooked = 0;
  protected now = 0;
  protected epoch = 0;

  /** @param like another path over the same tables, frames and ports, whose parts this one shares: one of them rests */
  constructor(
    tables: T.Tables,
    frames: Frames,
    ports: (Port | null)[],
    punt: Punt,
    options: PathOptions,
    like: PathBase | null = null,
  ) {
    this.tables = tables;
    this.frames = frames;
    this.ports = ports;
    this.punt = punt;
    this.counters = tables.counters;
    if (like !== null) {
      this.tracker = like.tracker;
      this.mangler = like.mangler;
      this.toucher = like.toucher;
      this.nat = like.nat;
      this.fragments = like.fragments;
      this.fragmenter = like.fragmenter;
      this.hold = like.hold;
      this.limiter = like.limiter;
      this.txSlots = like.txSlots;
      this.txCount = like.txCount;
      this.fast = like.fast;
      this.rxSlots = like.rxSlots;
      return;
    }
    const events = new EventSink(tables.buffers.events, tables.worker, tables.conntrack);
    const aging = new Aging(tables.conntrack, tables.buffers.wheels, tables.worker, tables.now());
    this.tracker = new Tracker(tables.conntrack, aging, tables.timeouts, events, options.shared);
    this.mangler = new Mangler(tables, frames);
    this.toucher = new Toucher(tables.conntrack, frames);
    this.hookAlg();
    const mapper = new Mapper(
      tables.conntrack,
      tables.natRules,
      tables.natMappings,
      tables.natPools,
      tables.natSubscribers,
      tables.services,
      options.seed,
    );
    this.nat = new Nat(tables.conntrack, tables.natRules, mapper, options.seed);
    this.fragments = new Reassembly(frames, tables.counters, options.seed);
    this.fragmenter = new Fragmenter(frames, options.seed, tables.worker);
    for (let n = 0; n < IF.MAX_PORTS; n++) this.txSlots.push(new Int32Array(TX_QUEUE));
    if (options.offload && tables.flows !== null) {
      const fast = new FastPath(tables, frames, options.offload);
      this.fast = fast;
    }
    this.rxSlots = this.fast?.slots ?? new Int32Array(BURST);
    this.hookTracker();
  }

  /**
   * Conntrack tells the engine of packets that come to the slow path although it carries their connection, and asks whether
   * a packet may begin one.
   */
  protected hookTracker(): void {
    this.tracker.unwanted = (p) => this.isVain(p);
    const fast = this.fast;
    if (fast !== null) this.tracker.offloaded = (index, p) => fast.reenter(index, p, this.now);
  }

  /** Goes on where another path over the same tables, frames and ports has stopped (dataplane/observe.ts), between turns. */
  takeOver(other: PathBase): void {
    this.now = other.now;
    this.epoch = other.epoch;
    this.neighbourEpoch = other.neighbourEpoch;
    this.neighbourAnswers = other.neighbourAnswers;
    this.heldLooked = other.heldLooked;
    this.handover = other.handover;
    this.hookTracker();
  }

  /** Conntrack asks the ALGs about new connections and sequence offsets, and tells them what has ended. */
  protected hookAlg(): void {
    const { mangler, tracker } = this;
    tracker.expected = (p, index, now) => mangler.expected(p, index, now);
    tracker.greKey = (p, key, now) => mangler.greKey(p, key, now);
    tracker.ackOffset = (index, dir, p) => mangler.sequence.ackOffset(index, dir, p);
    tracker.released = (index) => mangler.released(index);
    mangler.endConnection = (index) => tracker.end(index);
    const table = this.tables.conntrack;
    const released = table.onDelete;
    table.onDelete = (index) => {
      mangler.released(index);
      released(index);
    };
  }

  /** The one exit of every drop. */
  protected drop(p: Packet, reason: number): number {
    if (this.watcher !== null) this.watcher.dropped(p, reason);
    this.counters[T.C_DROPS + reason]++;
    this.counters[T.C_PORTS + p.port * 8 + T.CP_DROPS]++;
    if (p.fresh !== 0) this.tracker.abandon(p);
    return DROP + reason;
  }

  /** Counts the verdict and frees the slot unless somebody else has it now. */
  protected finish(p: Packet, verdict: number): void {
    if (verdict === FORWARDED) {
      if (p.own === 0) this.counters[T.C_FORWARDED]++;
      else this.counters[T.C_GENERATED]++;
      return;
    }
    if (verdict === HELD) {
      this.counters[T.C_HELD]++;
      return;
    }
    if (verdict === D.CONSUMED) return; // whoever consumed the frame has seen to its slot
    if (verdict === DELIVERED) this.counters[T.C_DELIVERED]++;
    this.frames.free(p.slot);
  }

  protected unreachable(p: Packet, reason: number, code: number): number {
    if (p.own === 0) this.sendError(p, p.family === 4 ? 3 : 1, code, 0);
    return this.drop(p, reason);
  }

  /** Drops with an ICMP error, when one may be sent. */
  protected reject(p: Packet, reason: number, type: number, code: number, param: number): number {
    this.sendError(p, type, code, param);
    return this.drop(p, reason);
  }

  /** Answers a packet that a rule or a zone rejects: a segment with a RST, anything else with port unreachable. */
  protected refuse(p: Packet): void {
    if (p.proto !== TCP) {
      this.sendError(p, p.family === 4 ? 3 : 1, p.family === 4 ? 3 : 4, 0);
      return;
    }
    if (p.own !== 0 || !mayReset(p)) return;
    const slot = this.frames.alloc(SMALL_ROOM);
    if (slot < 0) return;
    buildReset(p, this.frames, slot);
    this.output(slot, p.family, false, p.port);
  }

  /**
   * Answers an IPv6 packet whose source has no business where it came from (RFC 4443 §3.1, code 5; RFC 7084 L-14). To the
   * station that sent it, by its MAC: the route to such a source leads elsewhere.
   */
  protected refuseSource(p: Packet): void {
    const { frames, errorSource } = this;
    if (p.own !== 0 || (p.flags & REASSEMBLED) !== 0 || !mayAnswer(p, frames, 1)) return;
    if (!this.limiter.allow(p.rs0 ^ p.rs1 ^ p.rs2 ^ p.rs3, false, this.now)) return;
    const words = this.tables.interfaces.words;
    const r = p.port * IF.IF_WORDS;
    const at = r + (words[r + IF.IF_GLOBAL6] === 0 ? IF.IF_LINKLOCAL6 : IF.IF_GLOBAL6);
    for (let k = 0; k < 4; k++) errorSource[k] = words[at + k];
    if (errorSource[0] === 0) return;
    const slot = frames.alloc(SMALL_ROOM);
    if (slot < 0) return;
    const q = this.own;
    const m = slot * META_WORDS;
    q.slot = slot;
    q.family = 6;
    q.flags = 0;
    q.l3 = buildError(p, frames, slot, 1, 5, 0, errorSource);
    q.end = frames.meta[m + META_OFF] + frames.meta[m + META_LEN];
    const { u16 } = frames;
    const h = (p.off >> 1) + 3;
    const mac = u16[h] | (u16[h + 1] << 16);
    writeLink(q, frames, mac, u16[h + 2], words[r + IF.IF_MAC_LO], words[r + IF.IF_MAC_HI], words[r + IF.IF_VLAN]);
    this.send(slot, p.port);
  }

  protected consume(p: Packet): number {
    this.counters[T.C_CONSUMED]++;
    this.frames.free(p.slot);
    return D.CONSUMED;
  }

  /** Answers a packet with an ICMP or ICMPv6 error, when the RFCs and the rate limits allow it. */
  protected sendError(p: Packet, type: number, code: number, param: number): void {
    if (p.own !== 0 || !mayAnswer(p, this.frames, type)) return;
    const exempt = p.family === 4 ? type === 3 && code === 4 : type === 2;
    if (!this.limiter.allow(p.rs0 ^ p.rs1 ^ p.rs2 ^ p.rs3, exempt, this.now)) return;
    if (!this.chooseErrorSource(p)) return;
    const slot = this.frames.alloc(SMALL_ROOM);
    if (slot < 0) return;
    buildError(p, this.frames, slot, type, code, param, this.errorSource);
    this.output(slot, p.family, false, p.port);
  }

  /** The address that an error comes from: the one it was sent to if ours, else that of the port towards the sender. */
  protected chooseErrorSource(p: Packet): boolean {
    const { routes, nexthops, interfaces } = this.tables;
    const source = this.errorSource;
    const local = p.family === 4 ? routes.lookup4(p.rd0) : routes.lookup6(p.rd0, p.rd1, p.rd2, p.rd3);
    // A packet to a subnet's broadcast address is never answered, whatever frame it came in (RFC 1122 §3.2.2).
    if (local !== 0 && nexthops.kind(local) === NH.NH_BROADCAST) return false;
    if (local !== 0 && nexthops.kind(local) === NH.NH_LOCAL) {
      source[0] = p.rd0;
      source[1] = p.rd1;
      source[2] = p.rd2;
      source[3] = p.rd3;
      return true;
    }
    let port = p.port;
    let n = p.family === 4 ? routes.lookup4(p.rs0) : routes.lookup6(p.rs0, p.rs1, p.rs2, p.rs3);
    if (n !== 0 && nexthops.kind(n) === NH.NH_GROUP) n = nexthops.select(n, 0);
    // A link-local sender is on the link that its packet came from, whatever route its prefix has.
    if (n !== 0 && !(p.family === 6 && isLinkLocal6(p.rs0))) {
      const kind = nexthops.kind(n);
      if (kind === NH.NH_VIA || kind === NH.NH_CONNECTED) port = nexthops.words[nexthops.at(n) + NH.NH_PORT_WORD];
    }
    const r = port * IF.IF_WORDS;
    const words = interfaces.words;
    if (p.family === 4) {
      source[0] = words[r + IF.IF_ADDRESS4];
      return source[0] !== 0;
    }
    const at = r + (isLinkLocal6(p.rs0) || words[r + IF.IF_GLOBAL6] === 0 ? IF.IF_LINKLOCAL6 : IF.IF_GLOBAL6);
    for (let k = 0; k < 4; k++) source[k] = words[at + k];
    return source[0] !== 0;
  }

  /** Queues a finished frame for a port. */
  queue(slot: number, port: number, length: number): number {
    const compared = this.fast?.shadow?.compare(slot, port);
    // A VLAN port sends through the port that carries it.
    const parent = this.tables.interfaces.words[port * IF.IF_WORDS + IF.IF_PARENT];
    const device = parent !== 0 ? parent - 1 : port;
    if (compared === true) this.frames.free(slot);
    else {
      if (this.txCount[device] === TX_QUEUE) this.flushPort(device);
      this.txSlots[device][this.txCount[device]++] = slot;
    }
    T.countFrames(this.counters, port, T.CP_TX_PACKETS, 1, length);
    if (device !== port) T.countFrames(this.counters, device, T.CP_TX_PACKETS, 1, length);
    return FORWARDED;
  }

  /** Sends all queued frames. */
  flush(): void {
    for (let n = 0; n < this.ports.length; n++) if (this.txCount[n] !== 0) this.flushPort(n);
  }

  protected flushPort(n: number): void {
    const port = this.ports[n];
    const count = this.txCount[n];
    this.txCount[n] = 0;
    if (port !== null && port !== undefined) port.txBurst(this.frames, this.txSlots[n], count);
    else for (let k = 0; k < count; k++) this.frames.free(this.txSlots[n][k]);
  }

  /** Sends a complete frame of the control plane's out of a port. Takes ownership of the slot. */
  send(slot: number, port: number): void {
    this.counters[T.C_MADE]++;
    const words = this.tables.interfaces.words;
    if ((words[port * IF.IF_WORDS + IF.IF_FLAGS] & IF.IFF_UP) === 0) {
      this.counters[T.C_DROPS + D.TX_LINK_DOWN]++;
      this.frames.free(slot);
      return;
    }
    this.counters[T.C_GENERATED]++;
    this.queue(slot, port, this.frames.meta[slot * META_WORDS + META_LEN]);
  }

  /** True when a packet is to a next hop that it will not get (path-egress.ts). */
  protected abstract isVain(p: Packet): boolean;

  /** Sends an IP packet of the router's own (path.ts). */
  abstract output(slot: number, family: number, tracked: boolean, scope: number): void;
}

/** Multicast of either family. */
export function isGroup(p: Packet): boolean {
  return p.family === 4 ? (p.d0 & 0xf0) === 0xe0 : (p.d0 & 0xff) === 0xff;
}

/** RS, RA, NS, NA and Redirect (RFC 4861). */
export function isNeighbourDiscovery(type: number): boolean {
  return type >= 133 && type <= 137;
}

/** fe80::/10 by its first word. */
export function isLinkLocal6(word: number): boolean {
  return (word & 0xc0ff) === 0x80fe;
}

/** Hash of a flow for choosing one of several next hops (RFC 2992): stays the same for a flow. */
export function flowHash(p: Packet): number {
  let h =
    Math.imul(p.rs0 ^ p.rs3 ^ (p.rs1 + p.rs2), 0x9e3779b1) ^ Math.imul(p.rd0 ^ p.rd3 ^ (p.rd1 + p.rd2), 0x85ebca6b);
  h = Math.imul(h ^ p.rports ^ (h >>> 15), 0xc2b2ae35);
  return h ^ (h >>> 13);
}
