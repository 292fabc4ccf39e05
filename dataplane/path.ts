/**
 * The packet's path: a frame's life from rx to tx, top to bottom.
 *
 *   rx → offload-lookup (hit: rewrite, tx, done) → link-input → ip-parse → ip-sanity → reassembly → conntrack-in
 *      → nat-prerouting → route → ttl → mtu → forward-filter → nat-postrouting → alg → conntrack-confirm → neighbour
 *      → offload-program → fragment → tx
 *
 * Local packets leave the path at `route` for `input`; the router's own enter it at `output`. Each stage returns GO_ON
 * or one verdict; drops have one exit, `drop`. Nothing here throws, allocates or logs; lengths were checked in ip-parse
 * and accessors trust them. A worker has one Path; inline mode is one worker without a thread.
 *
 * Addresses are only changed in the Packet while the packet walks; the frame's bytes are rewritten once, behind the
 * neighbour stage, so that the router's own ICMP errors quote what was received.
 */
import { Aging } from '../conntrack/aging.ts';
import { EventSink } from '../conntrack/events.ts';
import { Mapper } from '../conntrack/mapper.ts';
import { NAT_LIMIT, NAT_LOOP, NAT_NO_PORT, NAT_OK, Nat, ONE_WAY } from '../conntrack/nat.ts';
import {
  CT_ESTABLISHED,
  CT_MAPPING,
  CT_NEW,
  CT_RELATED,
  CT_STATUS,
  CT_UNTRACKED,
  CT_WORDS,
  CT6_WORDS,
  IPS_DST_NAT,
  IPS_EXPECTED,
  IPS_SRC_NAT,
} from '../conntrack/record.ts';
import { ADOPTED, CLASH_LOST, NOT_VALID, PROTOCOL_DROP, TABLE_FULL, TRACKED, Tracker } from '../conntrack/track.ts';
import * as D from './drop.ts';
import { DELIVERED, DROP, FORWARDED, GO_ON, HELD } from './drop.ts';
import { FastPath, type FastPathOptions } from './fastpath.ts';
import { ACCEPT, REJECT, ZONE_ROUTER } from './filter.ts';
import { Fragmenter } from './fragment.ts';
import {
  FRAME_NEEDS_CSUM,
  type Frames,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
  SMALL_ROOM,
} from './frames.ts';
import { Hold } from './hold.ts';
import { buildError, ErrorLimiter, mayAnswer } from './icmp-errors.ts';
import * as IF from './interfaces.ts';
import { ALG_PASS, ALG_SEGMENT, Mangler } from './mangle.ts';
import { clampMss, MSS_OFF, mssOf } from './mss.ts';
import * as NEIGH from './neighbours.ts';
import { NUD_FAILED, NUD_STALE, NUD_VALID } from './neighbours.ts';
import * as NH from './nexthops.ts';
import { ICMP, ICMPV6, parseIp, TCP, UDP } from './parse.ts';
import type { Port } from './ports/port.ts';
import { completeChecksum, MAX_SEGMENTS, segment } from './ports/segment.ts';
import { ENDED, KEPT, NOTHING_DUE, REASSEMBLED, Reassembly, WHOLE } from './reassembly.ts';
import { rewriteIp, rewriteQuote, writeLink } from './rewrite.ts';
import * as T from './tables.ts';
import { buildReset, mayReset } from './tcp-reset.ts';
import { Toucher } from './touch.ts';
import { Packet } from './wire/packet.ts';

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_IPV6 = 0x86dd;
/** Frames taken from one port per turn. */
export const BURST = 256;
/** Longest time that a packet waits for a neighbour, ms: three solicitations and a second's grace. */
const HOLD_TIME = 4000;
/** Datagrams whose reassembly is given up in one turn of housekeeping. */
const EXPIRE_BURST = 64;
/** Frames queued for one port before they are sent. */
const TX_QUEUE = 512;

/** Where the path sends what the control plane must see. */
export interface Punt {
  /** A frame for a built-in protocol; the frame stays the caller's. Returns false when there was no room. */
  frame(frames: Frames, slot: number, port: number, etherType: number, l3: number): boolean;
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

export class Path {
  readonly tables: T.Tables;
  readonly frames: Frames;
  readonly tracker: Tracker;
  readonly nat: Nat;
  readonly mangler: Mangler;
  private readonly toucher: Toucher;
  /** The offload engine's stages; null when it is off. */
  readonly fast: FastPath | null = null;
  readonly hold = new Hold();
  readonly fragments: Reassembly;
  private readonly fragmenter: Fragmenter;
  readonly limiter = new ErrorLimiter();
  /** Ports of this worker by number; holes where there is none. */
  readonly ports: (Port | null)[];
  private readonly punt: Punt;
  private readonly packet = new Packet();
  private readonly own = new Packet();
  private readonly resumed = new Packet();
  private readonly segmentPacket = new Packet();
  private readonly segments = new Int32Array(MAX_SEGMENTS);
  /** Helper that the filter rule of the current packet names; 0 none. */
  private helperByRule = 0;
  private readonly counters: Float64Array;
  private readonly txSlots: Int32Array[] = [];
  private readonly txCount = new Int32Array(IF.MAX_PORTS);
  private readonly rxSlots = new Int32Array(BURST);
  private readonly quote = { s: new Int32Array(4), d: new Int32Array(4), ports: 0 };
  private readonly errorSource = new Int32Array(4);
  private neighbourEpoch = 0;
  private heldLooked = 0;
  private now = 0;
  private epoch = 0;

  constructor(tables: T.Tables, frames: Frames, ports: (Port | null)[], punt: Punt, options: PathOptions) {
    this.tables = tables;
    this.frames = frames;
    this.ports = ports;
    this.punt = punt;
    this.counters = tables.counters;
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
      this.tracker.offloaded = (index, p) => fast.reenter(index, p, this.now);
    }
  }

  /** Conntrack asks the ALGs about new connections and sequence offsets, and tells them what has ended. */
  private hookAlg(): void {
    const { mangler, tracker } = this;
    tracker.expected = (p, index, now) => mangler.expected(p, index, now);
    tracker.greKey = (p, key, now) => mangler.greKey(p, key, now);
    tracker.ackOffset = (index, dir, p) => mangler.ackOffset(index, dir, p);
    tracker.released = (index) => mangler.released(index);
    mangler.endConnection = (index) => tracker.end(index);
    const table = this.tables.conntrack;
    const released = table.onDelete;
    table.onDelete = (index) => {
      mangler.released(index);
      released(index);
    };
  }

  // --- one turn --------------------------------------------------------------------------------------------------

  /** Receives and walks one burst from every port, sends what came of it. Returns the number of frames received. */
  turn(): number {
    this.now = this.tables.now();
    let received = 0;
    for (let n = 0; n < this.ports.length; n++) {
      const port = this.ports[n];
      if (port === null || port === undefined) continue;
      const count = port.rxBurst(this.frames, this.rxSlots, BURST);
      if (count === 0) continue;
      received += count;
      this.burst(this.rxSlots, count);
    }
    this.housekeeping();
    this.flush();
    return received;
  }

  /** Walks the frames in slots[0 … n), all received on one port. */
  burst(slots: Int32Array, n: number): void {
    this.now = this.tables.now();
    this.counters[T.C_BURSTS]++;
    this.fast?.begin();
    // Read before any packet walks: an entry made from a walk that a change overtook is stale from its first day.
    this.epoch = this.tables.control[T.EPOCH];
    const fast = this.fast;
    if (fast !== null && n > 0) {
      const port = this.frames.meta[slots[0] * META_WORDS + META_PORT];
      if (fast.usable(port)) {
        this.offloadBurst(fast, slots, n, port);
        this.tables.conntrack.quiet();
        return;
      }
    }
    if (n > 4 && this.toucher.worthwhile) this.toucher.burst(slots, n);
    for (let k = 0; k < n; k++) this.receive(slots[k]);
    this.tables.conntrack.quiet();
  }

  /** offload-lookup: hash and touch all, then compare and rewrite all; what is no hit walks at its place in the order. */
  private offloadBurst(fast: FastPath, slots: Int32Array, n: number, port: number): void {
    const meta = this.frames.meta;
    const row = T.C_PORTS + port * 8;
    fast.touch(slots, n, this.now);
    const { txCount, counters, epoch } = this;
    const parents = this.tables.interfaces.words;
    let received = 0;
    let bytes = 0;
    // Most of a burst leaves by one port: its counters are moved once per run of frames.
    let out = -1;
    let device = 0;
    let sent = 0;
    let sentBytes = 0;
    for (let k = 0; k < n; k++) {
      const slot = slots[k];
      const length = meta[slot * META_WORDS + META_LEN];
      const after = fast.hit(k, slot, port, epoch, this);
      if (after < 0) {
        this.receive(slot);
        continue;
      }
      received++;
      bytes += length;
      if (after === 0) continue;
      if (fast.outPort !== out) {
        if (out >= 0) this.countSent(out, sent, sentBytes);
        out = fast.outPort;
        const parent = parents[out * IF.IF_WORDS + IF.IF_PARENT];
        device = parent !== 0 ? parent - 1 : out;
        sent = sentBytes = 0;
      }
      if (txCount[device] === TX_QUEUE) this.flushPort(device);
      this.txSlots[device][txCount[device]++] = slot;
      sent++;
      sentBytes += after;
    }
    if (out >= 0) this.countSent(out, sent, sentBytes);
    counters[T.C_RECEIVED] += received;
    counters[T.C_FORWARDED] += received;
    counters[row + T.CP_RX_PACKETS] += received;
    counters[row + T.CP_RX_BYTES] += bytes;
  }

  private countSent(port: number, packets: number, bytes: number): void {
    const row = T.C_PORTS + port * 8;
    this.counters[row + T.CP_TX_PACKETS] += packets;
    this.counters[row + T.CP_TX_BYTES] += bytes;
  }

  /** What must happen now and then: neighbours that answered, connections that expired; bounded. */
  housekeeping(): void {
    this.now = this.tables.now();
    if (
      this.hold.count > 0 &&
      (this.neighbourEpoch !== this.tables.neighbours.epoch() || ((this.now - this.heldLooked) | 0) >= HOLD_TIME)
    )
      this.retryHeld();
    if (this.fragments.count > 0) this.expireFragments();
    this.tracker.aging.turn(this.now, 256);
    if (this.tables.natMappings.count !== 0) this.tables.natMappings.sweep(this.now, 256);
    if (this.fast !== null) this.fast.turn(this.now);
    this.tables.conntrack.quiet();
  }

  /** Sends all queued frames. */
  flush(): void {
    for (let n = 0; n < this.ports.length; n++) if (this.txCount[n] !== 0) this.flushPort(n);
  }

  // --- rx ----------------------------------------------------------------------------------------------------------

  private receive(slot: number): void {
    const meta = this.frames.meta;
    const m = slot * META_WORDS;
    const p = this.packet;
    p.slot = slot;
    p.off = meta[m + META_OFF];
    p.len = meta[m + META_LEN];
    p.port = meta[m + META_PORT];
    p.flags = meta[m + META_FLAGS];
    p.gsoType = meta[m + META_GSO] & 0xffff;
    p.gsoSize = meta[m + META_GSO] >>> 16;
    p.csumStart = meta[m + META_CSUM] & 0xffff;
    p.csumOffset = meta[m + META_CSUM] >>> 16;
    p.ct = -1;
    p.fresh = 0;
    p.own = 0;
    p.detail = 0;
    p.errorType = 0;
    const row = T.C_PORTS + p.port * 8;
    this.counters[row + T.CP_RX_PACKETS]++;
    this.counters[row + T.CP_RX_BYTES] += p.len;
    if ((this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_FLAGS] & IF.IFF_HOST) !== 0) {
      this.finish(p, this.fromHost(p));
      return;
    }
    this.counters[T.C_RECEIVED]++;
    const verdict = this.walk(p);
    this.finish(p, verdict);
    if (this.fast?.verify) this.fast.settleVerify(verdict >= DROP ? D.reasonName(verdict - DROP) : 'not sent');
  }

  /** The life of a packet. */
  private walk(p: Packet): number {
    return (
      this.linkInput(p) ||
      this.ipParse(p) ||
      this.reassembly(p) ||
      this.conntrackIn(p) ||
      this.natPrerouting(p) ||
      this.route(p) ||
      this.ttl(p) ||
      this.mtu(p) ||
      this.forwardFilter(p) ||
      this.natPostrouting(p) ||
      this.alg(p) ||
      this.conntrackConfirm(p) ||
      this.leave(p)
    );
  }

  /** From the neighbour stage on: also the way of packets that waited, and of the router's own. */
  private leave(p: Packet): number {
    return this.neighbour(p) || this.offloadProgram(p) || this.rewrite(p) || this.fragment(p) || this.tx(p);
  }

  /** Counts the verdict and frees the slot unless somebody else has it now. */
  private finish(p: Packet, verdict: number): void {
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
    if (verdict === D.CONSUMED) return;
    if (verdict === DELIVERED) this.counters[T.C_DELIVERED]++;
    this.frames.free(p.slot);
  }

  /** The one exit of every drop. */
  private drop(p: Packet, reason: number): number {
    this.counters[T.C_DROPS + reason]++;
    this.counters[T.C_PORTS + p.port * 8 + T.CP_DROPS]++;
    if (p.fresh !== 0) this.tracker.abandon(p);
    return DROP + reason;
  }

  // --- link-input --------------------------------------------------------------------------------------------------

  /** Port state, VLAN, MAC and EtherType filters (rows L1, L3, L4); ARP goes to the control plane. */
  private linkInput(p: Packet): number {
    p.stage = D.STAGE_LINK_INPUT;
    const { u8, u16 } = this.frames;
    const interfaces = this.tables.interfaces;
    const words = interfaces.words;
    let r = p.port * IF.IF_WORDS;
    if (p.len < 14) return this.drop(p, D.PKT_TOO_SMALL);
    let etherType = (u8[p.off + 12] << 8) | u8[p.off + 13];
    let l3 = p.off + 14;
    p.vlan = 0;
    if (etherType === ETHERTYPE_VLAN) {
      if (p.len < 18) return this.drop(p, D.PKT_TOO_SMALL);
      p.vlan = ((u8[l3] << 8) | u8[l3 + 1]) & 0xfff;
      etherType = (u8[l3 + 2] << 8) | u8[l3 + 3];
      l3 += 4;
      if (p.vlan !== 0) {
        const port = words[r + IF.IF_CHILDREN] > 0 ? interfaces.vlanPort(p.port, p.vlan) : -1;
        if (port < 0) return this.drop(p, D.VLAN_FILTER);
        p.port = port;
        r = port * IF.IF_WORDS;
      }
    }
    p.l3 = l3;
    p.etherType = etherType;
    const flags = words[r + IF.IF_FLAGS];
    if ((flags & IF.IFF_UP) === 0) return this.drop(p, D.LINK_DOWN);
    const h = p.off >> 1;
    const dstLo = u16[h] | (u16[h + 1] << 16);
    p.groupMac = dstLo & 1;
    if (
      p.groupMac === 0 &&
      (dstLo !== words[r + IF.IF_MAC_LO] || u16[h + 2] !== words[r + IF.IF_MAC_HI]) &&
      (flags & IF.IFF_PROMISC) === 0
    )
      return this.drop(p, D.OTHERHOST);
    const srcLo = u16[h + 3] | (u16[h + 4] << 16);
    if ((srcLo & 1) !== 0 || !interfaces.allowsSource(p.port, srcLo, u16[h + 5])) return this.drop(p, D.L2_SOURCE);

    const filter = words[r + IF.IF_FILTER];
    if (etherType === ETHERTYPE_IPV4) {
      if ((filter & IF.ALLOW_IPV4) === 0) return this.drop(p, D.ETHERTYPE_FILTER);
      p.family = 4;
      return GO_ON;
    }
    if (etherType === ETHERTYPE_IPV6) {
      if ((filter & IF.ALLOW_IPV6) === 0) return this.drop(p, D.ETHERTYPE_FILTER);
      p.family = 6;
      return GO_ON;
    }
    if (etherType === ETHERTYPE_ARP) {
      if ((filter & IF.ALLOW_ARP) === 0) return this.drop(p, D.ETHERTYPE_FILTER);
      return this.toControl(p);
    }
    return this.drop(p, D.UNHANDLED_PROTO);
  }

  // --- ip-parse, ip-sanity ---------------------------------------------------------------------------------------

  private ipParse(p: Packet): number {
    p.stage = D.STAGE_IP_PARSE;
    // Left over from the packet before, where a chain breaks before they are set.
    p.proto = 0;
    p.fragHeader = 0;
    const reason = parseIp(p, this.frames, p.off + p.len);
    if (reason === 0) {
      // Multicast and broadcast frames must not carry unicast IP (RFC 1122 §3.3.6).
      if (p.groupMac !== 0 && !isGroup(p) && !this.isBroadcast(p)) return this.drop(p, D.OTHERHOST);
      return GO_ON;
    }
    if (reason === D.FRAG_TINY) {
      // RFC 7112 §5: who drops a first fragment without the whole header chain may say so.
      p.errorType = 4;
      p.errorCode = 3;
      p.errorParam = 0;
    }
    if (p.errorType !== 0) this.sendError(p, p.errorType, p.errorCode, p.errorParam);
    return this.drop(p, reason);
  }

  private isBroadcast(p: Packet): boolean {
    if (p.family !== 4) return false;
    if (p.d0 === -1) return true;
    const n = this.tables.routes.lookup4(p.d0);
    return n !== 0 && this.tables.nexthops.kind(n) === NH.NH_BROADCAST;
  }

  // --- reassembly ----------------------------------------------------------------------------------------------------

  /** Fragments wait until their datagram is whole; the last one to come walks on as the datagram (row P4). */
  private reassembly(p: Packet): number {
    if (p.isFragment === 0 && p.fragHeader === 0) return GO_ON;
    p.stage = D.STAGE_REASSEMBLY;
    if (p.gsoType !== 0) return this.drop(p, D.GSO_MALFORMED);
    if (p.isFragment !== 0) {
      const zone = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_CT_ZONE];
      const result = this.fragments.gather(p, zone, this.now);
      if (result === KEPT) return HELD;
      if (result !== WHOLE) return this.refuseFragment(p, result);
    } else if (!this.fragments.unwrap(p)) return this.drop(p, D.IPV6_CHAIN);
    const refused = this.ipParse(p);
    if (refused !== GO_ON) return refused;
    p.stage = D.STAGE_REASSEMBLY;
    // A second fragment header was inside of the first.
    if (p.isFragment !== 0 || p.fragHeader !== 0) return this.drop(p, D.IPV6_CHAIN);
    if (p.proto === ICMPV6 && isNeighbourDiscovery(this.frames.u8[p.l4])) return this.drop(p, D.FRAG_ND);
    return GO_ON;
  }

  private refuseFragment(p: Packet, reason: number): number {
    // RFC 8200 §4.5 wants an answer to any fragment; whether a later one belongs to an ICMPv6 error cannot be seen.
    if (p.errorType !== 0 && !(p.fragOffset !== 0 && p.proto === ICMPV6)) {
      p.fragOffset = 0;
      this.sendError(p, p.errorType, p.errorCode, p.errorParam);
    }
    return this.drop(p, reason);
  }

  /**
   * Ends datagrams whose rest did not come in time: Time Exceeded code 1 quotes the first fragment, when it is there
   * (RFC 792, RFC 8200 §4.5); of IPv4 only to what was for this router, which alone is a host there (RFC 1812 §4.3.3.4).
   */
  private expireFragments(): void {
    const { fragments, frames } = this;
    for (let n = 0; n < EXPIRE_BURST; n++) {
      const slot = fragments.expire(this.now);
      if (slot === NOTHING_DUE) return;
      if (slot === ENDED) continue;
      const p = this.resumed;
      const m = slot * META_WORDS;
      p.slot = slot;
      p.off = frames.meta[m + META_OFF];
      p.len = frames.meta[m + META_LEN];
      p.port = fragments.expiredPort;
      p.own = fragments.expiredOwn;
      p.l3 = fragments.expiredL3;
      p.family = frames.u8[p.l3] >> 4;
      p.groupMac = 0;
      p.flags = p.gsoType = 0;
      p.fragHeader = 0;
      if (parseIp(p, frames, p.off + p.len) === 0 && (p.family === 6 || this.isLocal4(p.rd0)))
        this.sendError(p, p.family === 4 ? 11 : 3, 1, 0);
      frames.free(slot);
    }
  }

  // --- conntrack-in --------------------------------------------------------------------------------------------------

  private conntrackIn(p: Packet): number {
    p.stage = D.STAGE_CONNTRACK_IN;
    const zone = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_CT_ZONE];
    const result = this.tracker.in(p, this.frames.u8, zone, this.now);
    if (result === TRACKED) return GO_ON;
    if (result === NOT_VALID) return this.drop(p, D.CT_INVALID_DROP);
    if (result === TABLE_FULL) return this.drop(p, D.CT_FULL);
    return this.drop(p, result === PROTOCOL_DROP ? D.CT_INVALID_DROP : D.CT_CLASH);
  }

  // --- nat-prerouting ------------------------------------------------------------------------------------------------

  /** The effective destination: by the rules for a new connection to one of our addresses, by the tuples for the rest. */
  private natPrerouting(p: Packet): number {
    if (p.ct < 0) return GO_ON;
    p.stage = D.STAGE_NAT_PREROUTING;
    this.nat.outer = -1;
    if (p.fresh !== 0 && p.family === 4 && p.own === 0 && p.ctinfo === CT_NEW) {
      const zone = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_ZONE];
      if (this.natDestination(p, zone) !== NAT_OK) return this.drop(p, D.NAT_FILTERED);
    } else if (p.fresh !== 0 && p.family === 6 && p.own === 0 && this.nat.translates6) {
      const zone = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_ZONE];
      if (this.nat.chooseDestination6(p, zone) !== NAT_OK) return this.reject(p, D.NAT_NO_ADDRESS, 1, 1, 0);
    }
    this.nat.prerouting(p);
    return GO_ON;
  }

  /** Who inside a new connection is for: a port forward's or the DMZ host, or a mapping's if its filtering admits it. */
  private natDestination(p: Packet, zone: number): number {
    const nat = this.nat;
    nat.inZone = zone;
    if (nat.wantsDestination(zone, p.port)) {
      const owner = this.ownerOf4(p.d0);
      if (owner >= 0) {
        nat.chooseDestination(p, zone, owner, this.tables.interfaces.words[owner * IF.IF_WORDS + IF.IF_ZONE], this.now);
        if (nat.admitted(p)) return NAT_OK;
      }
    }
    return this.tables.natMappings.count === 0 ? NAT_OK : nat.admit(p, zone, this.now);
  }

  /** Number of the port that has this address of ours, −1: it is none of ours. */
  private ownerOf4(address: number): number {
    const nexthops = this.tables.nexthops;
    const n = this.tables.routes.lookup4(address);
    if (n === 0 || nexthops.kind(n) !== NH.NH_LOCAL) return -1;
    return nexthops.words[nexthops.at(n) + NH.NH_PORT_WORD];
  }

  private isLocal4(address: number): boolean {
    const n = this.tables.routes.lookup4(address);
    return n !== 0 && this.tables.nexthops.kind(n) === NH.NH_LOCAL;
  }

  // --- route -----------------------------------------------------------------------------------------------------------

  private route(p: Packet): number {
    p.stage = D.STAGE_ROUTE;
    // The limited broadcast has no route: it never leaves its link (RFC 1812 §5.3.5.1).
    if (isGroup(p) || (p.family === 4 && p.d0 === -1)) return this.input(p);
    if (p.family === 6 && isLinkLocal6(p.d0)) return this.routeLinkLocal(p);
    const verdict = this.lookup(p);
    if (verdict !== GO_ON) return verdict;
    if (p.nexthop === 0) return this.input(p);
    if (p.own === 0) {
      // Link-local sources stay on their link (RFC 4291 §2.5.6, RFC 3927 §2.7); ULA and the rest are the filter's.
      if (p.family === 6 && isLinkLocal6(p.s0)) return this.reject(p, D.IP_SCOPE, 1, 2, 0);
      if (p.family === 4 && ((p.d0 & 0xffff) === 0xfea9 || (p.s0 & 0xffff) === 0xfea9)) return this.drop(p, D.IP_SCOPE);
      if (p.family === 4 && p.s0 === 0) return this.drop(p, D.IP_INVALID_SOURCE);
    }
    return GO_ON;
  }

  /** fe80::/10 means something on one link only: ours or nobody's; the router's own packets go out where they belong. */
  private routeLinkLocal(p: Packet): number {
    const words = this.tables.interfaces.words;
    const r = p.port * IF.IF_WORDS;
    if (p.own === 0) {
      const at = r + IF.IF_LINKLOCAL6;
      const ours = words[at] === p.d0 && words[at + 1] === p.d1 && words[at + 2] === p.d2 && words[at + 3] === p.d3;
      return ours ? this.input(p) : this.drop(p, D.IP_SCOPE);
    }
    p.outPort = p.port;
    p.mtu = words[r + IF.IF_MTU];
    p.n0 = p.d0;
    p.n1 = p.d1;
    p.n2 = p.d2;
    p.n3 = p.d3;
    return (words[r + IF.IF_FLAGS] & IF.IFF_UP) === 0 ? this.drop(p, D.TX_LINK_DOWN) : GO_ON;
  }

  /** Finds the next hop: sets nexthop (0: the router itself), egress port, the neighbour's address and the MTU. */
  private lookup(p: Packet): number {
    const tables = this.tables;
    let n = p.family === 4 ? tables.routes.lookup4(p.d0) : tables.routes.lookup6(p.d0, p.d1, p.d2, p.d3);
    if (n === 0) return this.unreachable(p, D.IP_OUTNOROUTES, 0);
    const words = tables.nexthops.words;
    let at = tables.nexthops.at(n);
    if (words[at + NH.NH_KIND_WORD] === NH.NH_GROUP) {
      n = tables.nexthops.select(n, flowHash(p));
      if (n === 0) return this.unreachable(p, D.IP_OUTNOROUTES, 1);
      at = tables.nexthops.at(n);
    }
    p.nexthop = n;
    switch (words[at + NH.NH_KIND_WORD]) {
      case NH.NH_VIA:
        p.n0 = words[at + NH.NH_GATEWAY_WORD];
        p.n1 = words[at + NH.NH_GATEWAY_WORD + 1];
        p.n2 = words[at + NH.NH_GATEWAY_WORD + 2];
        p.n3 = words[at + NH.NH_GATEWAY_WORD + 3];
        break;
      case NH.NH_CONNECTED:
        p.n0 = p.d0;
        p.n1 = p.d1;
        p.n2 = p.d2;
        p.n3 = p.d3;
        break;
      case NH.NH_LOCAL:
      case NH.NH_BROADCAST:
        p.nexthop = 0;
        return GO_ON;
      case NH.NH_BLACKHOLE:
        return this.drop(p, D.IP_BLACKHOLE);
      case NH.NH_PROHIBIT:
        if (p.own === 0) this.sendError(p, p.family === 4 ? 3 : 1, p.family === 4 ? 13 : 1, 0);
        return this.drop(p, D.IP_PROHIBIT);
      default:
        return this.unreachable(p, D.IP_PROHIBIT, p.family === 4 ? 1 : 0);
    }
    p.outPort = words[at + NH.NH_PORT_WORD];
    const r = p.outPort * IF.IF_WORDS;
    if ((tables.interfaces.words[r + IF.IF_FLAGS] & IF.IFF_UP) === 0)
      return this.unreachable(p, D.TX_LINK_DOWN, p.family === 4 ? 1 : 3);
    const mtu = words[at + NH.NH_MTU_WORD];
    const linkMtu = tables.interfaces.words[r + IF.IF_MTU];
    p.mtu = mtu !== 0 && mtu < linkMtu ? mtu : linkMtu;
    return GO_ON;
  }

  private unreachable(p: Packet, reason: number, code: number): number {
    if (p.own === 0) this.sendError(p, p.family === 4 ? 3 : 1, code, 0);
    return this.drop(p, reason);
  }

  /** Drops with an ICMP error, when one may be sent. */
  private reject(p: Packet, reason: number, type: number, code: number, param: number): number {
    this.sendError(p, type, code, param);
    return this.drop(p, reason);
  }

  // --- ttl, mtu --------------------------------------------------------------------------------------------------------

  private ttl(p: Packet): number {
    if (p.ttl > 1) return GO_ON;
    p.stage = D.STAGE_TTL;
    return this.reject(p, D.IP_TTL, p.family === 4 ? 11 : 3, 0, 0);
  }

  /** Too long for the egress link: IPv4 without DF is fragmented later, everything else is told (RFC 1191, RFC 8201). */
  private mtu(p: Packet): number {
    const length = p.gsoType === 0 ? p.end - p.l3 : this.segmentLength(p);
    if (length <= p.mtu) return GO_ON;
    if (p.family === 4 && p.dontFragment === 0) return GO_ON;
    // What came in fragments leaves in fragments: only they must fit.
    if ((p.flags & REASSEMBLED) !== 0 && this.fragments.largest(p.slot) <= p.mtu) return GO_ON;
    p.stage = D.STAGE_MTU;
    if (p.family === 6) return this.reject(p, D.PKT_TOO_BIG, 2, 0, p.mtu);
    return this.reject(p, D.PKT_TOO_BIG, 3, 4, p.mtu);
  }

  /** IP length of one segment of a super-frame. */
  private segmentLength(p: Packet): number {
    const header = p.proto === TCP ? (this.frames.u8[p.l4 + 12] >> 4) << 2 : 8;
    return p.l4 - p.l3 + header + p.gsoSize;
  }

  // --- forward-filter --------------------------------------------------------------------------------------------------

  /** Established and related pass, and what NAT admitted; the rest asks the rules, then the zone (rows C3, F1). */
  private forwardFilter(p: Packet): number {
    this.helperByRule = 0;
    if (p.ctinfo === CT_ESTABLISHED || p.ctinfo === CT_RELATED) return GO_ON;
    p.stage = D.STAGE_FORWARD_FILTER;
    if (p.ctinfo === CT_NEW && this.nat.admitted(p)) return GO_ON;
    const words = this.tables.interfaces.words;
    const from = words[p.port * IF.IF_WORDS + IF.IF_ZONE];
    const to = words[p.outPort * IF.IF_WORDS + IF.IF_ZONE];
    const verdict = this.tables.filter.evaluate(p, from, to, this.tables.worker);
    this.helperByRule = this.tables.filter.helper;
    if (verdict === ACCEPT) return GO_ON;
    if (verdict === REJECT) {
      this.refuse(p);
      return this.drop(p, D.FILTER_REJECT);
    }
    return this.drop(p, D.FILTER_DROP);
  }

  // --- nat-postrouting ---------------------------------------------------------------------------------------------------

  /** The effective source: by the rules for a new connection, by the tuples for the rest. */
  private natPostrouting(p: Packet): number {
    if (p.ct < 0) return GO_ON;
    p.stage = D.STAGE_NAT_POSTROUTING;
    if (p.fresh !== 0 && p.family === 4 && this.nat.outer !== ONE_WAY && !this.followsMaster(p)) {
      const words = this.tables.interfaces.words;
      // A hairpinned packet is translated as if it had left by the port whose address it was sent to.
      const out = this.nat.outer >= 0 && p.own === 0 ? this.nat.outer : p.outPort;
      const r = out * IF.IF_WORDS;
      const result = this.nat.chooseSource(p, words[r + IF.IF_ZONE], out, words[r + IF.IF_ADDRESS4], this.now);
      if (result !== NAT_OK) {
        if (result === NAT_LOOP) return this.drop(p, D.HAIRPIN_LOOP);
        if (result === NAT_LIMIT) return this.reject(p, D.CT_LIMIT, 3, 13, 0);
        if (result !== NAT_NO_PORT) return this.drop(p, D.NAT_NO_ADDRESS);
        return this.reject(p, D.NAT_EXHAUSTED, 3, 13, 0);
      }
    } else if (p.fresh !== 0 && p.family === 6 && this.nat.translates6) {
      const zone = this.tables.interfaces.words[p.outPort * IF.IF_WORDS + IF.IF_ZONE];
      // RFC 6296 §3.4: an address without a translation is answered by "administratively prohibited".
      if (this.nat.chooseSource6(p, zone, p.outPort) !== NAT_OK) return this.reject(p, D.NAT_NO_ADDRESS, 1, 1, 0);
    }
    this.nat.postrouting(p, this.now);
    return GO_ON;
  }

  /** An expected connection is translated as its master is, whatever the rules say. */
  private followsMaster(p: Packet): boolean {
    const status = this.tables.conntrack.words[p.ct * CT_WORDS + CT_STATUS];
    return (status & IPS_EXPECTED) !== 0 && (status & (IPS_SRC_NAT | IPS_DST_NAT)) !== 0;
  }

  // --- alg -------------------------------------------------------------------------------------------------------------------

  /** Helpers read and edit what carries addresses in its payload; before confirm, behind NAT, whose result they announce. */
  private alg(p: Packet): number {
    if (p.ct < 0) return GO_ON;
    if (p.fresh !== 0) this.mangler.assign(p, this.helperByRule);
    if (!this.mangler.concerns(p.ct)) return GO_ON;
    p.stage = D.STAGE_ALG;
    const result = this.mangler.stage(p, this.now);
    if (result === ALG_PASS) {
      if (p.proto !== TCP || p.gsoType !== 0 || p.end - p.l3 <= p.mtu) return GO_ON;
      // A full segment grew beyond the link's MTU: two leave. Its sender could not know that it should send less.
      const header = (this.frames.u8[p.l4 + 12] >> 4) << 2;
      return this.segmentAlg(p, p.mtu - (p.l4 - p.l3) - header, false);
    }
    return result === ALG_SEGMENT ? this.segmentAlg(p, p.gsoSize, true) : this.drop(p, D.ALG_DROP);
  }

  /** A super-frame whose payload must change its length is cut first; each segment goes on from here by itself. */
  private segmentAlg(p: Packet, size: number, again: boolean): number {
    const count = size > 0 ? segment(this.frames, p.slot, size, this.segments) : -1;
    if (count < 0) return this.drop(p, D.NO_BUFFER);
    const { meta, u8 } = this.frames;
    for (let n = 0; n < count; n++) {
      const q = this.segmentPacket;
      q.assign(p);
      q.slot = this.segments[n];
      const m = q.slot * META_WORDS;
      q.off = meta[m + META_OFF];
      q.len = meta[m + META_LEN];
      q.l3 = q.off + (p.l3 - p.off);
      q.l4 = q.l3 + (p.l4 - p.l3);
      q.end = q.off + q.len;
      q.tcpFlags = u8[q.l4 + 13];
      q.flags = 0;
      q.gsoType = q.gsoSize = 0;
      this.finish(q, (again ? this.alg(q) : GO_ON) || this.conntrackConfirm(q) || this.leave(q));
    }
    return this.consume(p);
  }

  private consume(p: Packet): number {
    this.counters[T.C_CONSUMED]++;
    this.frames.free(p.slot);
    return D.CONSUMED;
  }

  // --- conntrack-confirm -------------------------------------------------------------------------------------------------

  private conntrackConfirm(p: Packet): number {
    if (p.fresh === 0) return GO_ON;
    p.stage = D.STAGE_CONNTRACK_CONFIRM;
    if (this.nat.outer === ONE_WAY) {
      this.tracker.abandon(p);
      return GO_ON;
    }
    for (let attempt = 0; attempt < 4; attempt++) {
      const result = this.tracker.confirm(p, this.now);
      if (result === TRACKED) {
        if (this.tables.conntrack.words[p.ct * CT_WORDS + CT_MAPPING] !== 0) this.nat.mapper.count(p.ct, 1);
        return GO_ON;
      }
      if (result === ADOPTED) {
        this.resetEffective(p);
        this.nat.prerouting(p);
        this.nat.postrouting(p, this.now);
        return GO_ON;
      }
      if (result === CLASH_LOST || p.family !== 4 || this.nat.chooseAgain(p, this.now) !== NAT_OK) break;
      this.nat.postrouting(p, this.now);
    }
    return this.drop(p, D.CT_CLASH);
  }

  private resetEffective(p: Packet): void {
    p.s0 = p.rs0;
    p.s1 = p.rs1;
    p.s2 = p.rs2;
    p.s3 = p.rs3;
    p.d0 = p.rd0;
    p.d1 = p.rd1;
    p.d2 = p.rd2;
    p.d3 = p.rd3;
    p.ports = p.rports;
  }

  // --- neighbour -----------------------------------------------------------------------------------------------------------

  /** The next hop's MAC; a packet whose next hop is unknown waits for it. */
  private neighbour(p: Packet): number {
    p.stage = D.STAGE_NEIGHBOUR;
    const neighbours = this.tables.neighbours;
    const n = neighbours.find(p.outPort, p.family, p.n0, p.n1, p.n2, p.n3);
    p.neighbour = n;
    if (n >= 0) {
      const at = neighbours.at(n);
      const words = neighbours.words;
      const state = words[at];
      if ((state & NUD_VALID) !== 0) {
        if (state === NUD_STALE) this.punt.used(n);
        words[at + NEIGH.NEIGH_USED] = this.now;
        return GO_ON;
      }
      if (state === NUD_FAILED) {
        this.punt.resolve(p.outPort, p.family, p.n0, p.n1, p.n2, p.n3);
        return this.neighbourFailed(p);
      }
    }
    const evicted = this.hold.keep(p, this.now);
    if (evicted === -2) return this.drop(p, D.NEIGH_QUEUEFULL);
    if (evicted >= 0) {
      this.counters[T.C_DROPS + D.NEIGH_QUEUEFULL]++;
      this.counters[T.C_HELD]--;
      this.frames.free(evicted);
    }
    this.punt.resolve(p.outPort, p.family, p.n0, p.n1, p.n2, p.n3);
    return HELD;
  }

  private neighbourFailed(p: Packet): number {
    if (p.own === 0) this.sendError(p, p.family === 4 ? 3 : 1, p.family === 4 ? 1 : 3, 0);
    return this.drop(p, D.NEIGH_FAILED);
  }

  /** Looks again at every packet that waits: its neighbour may have answered, or never will. */
  private retryHeld(): void {
    const neighbours = this.tables.neighbours;
    this.neighbourEpoch = neighbours.epoch();
    this.heldLooked = this.now;
    const p = this.resumed;
    const hold = this.hold;
    const words = neighbours.words;
    let after = -0x80000000;
    for (let n = hold.nextAfter(after); n >= 0; n = hold.nextAfter(after)) {
      after = hold.orderOf(n);
      hold.restore(n, p, this.frames.i32);
      const record = neighbours.find(p.outPort, p.family, p.n0, p.n1, p.n2, p.n3);
      // No entry: nobody has asked yet, or the table is full; then the packet waits no longer than an answer could take.
      const late = ((this.now - hold.since(n)) | 0) >= HOLD_TIME;
      const state = record >= 0 ? words[neighbours.at(record)] : late ? NUD_FAILED : 0;
      if ((state & (NUD_VALID | NUD_FAILED)) === 0) continue;
      hold.forget(n);
      this.counters[T.C_HELD]--;
      if (state === NUD_FAILED) {
        p.stage = D.STAGE_NEIGHBOUR;
        this.finish(p, this.neighbourFailed(p));
      } else this.finish(p, this.leave(p));
    }
  }

  // --- offload-program -----------------------------------------------------------------------------------------------------

  /** Every stage has agreed: the engine may forward the next packets of this flow by itself. */
  private offloadProgram(p: Packet): number {
    const fast = this.fast;
    if (
      fast === null ||
      p.ctinfo !== CT_ESTABLISHED ||
      p.own !== 0 ||
      p.hasOptions !== 0 ||
      p.innerL3 !== 0 ||
      p.ct < 0 ||
      p === this.resumed // its walk began before this burst, and its epochs may have changed while it waited
    )
      return GO_ON;
    p.stage = D.STAGE_OFFLOAD_PROGRAM;
    fast.program(p, this.epoch, this.now);
    return GO_ON;
  }

  // --- tx --------------------------------------------------------------------------------------------------------------------

  /** The packet's effective header fields and its link header become the frame's bytes. */
  private rewrite(p: Packet): number {
    p.stage = D.STAGE_TX;
    const words = this.tables.interfaces.words;
    const r = p.outPort * IF.IF_WORDS;
    if ((words[r + IF.IF_FLAGS] & IF.IFF_UP) === 0) return this.drop(p, D.TX_LINK_DOWN);
    // A helper may have made it longer since `mtu`.
    if (p.own === 0 && p.end - p.l3 > p.mtu) {
      const refused = this.mtu(p);
      if (refused !== GO_ON) return refused;
    }
    rewriteIp(p, this.frames, p.own === 0 ? 1 : 0);
    if (p.innerL3 !== 0) this.translateQuote(p);
    if (p.proto === TCP) this.clamp(p, words[p.port * IF.IF_WORDS + IF.IF_MSS_CLAMP], words[r + IF.IF_MSS_CLAMP]);
    const neighbours = this.tables.neighbours;
    const n = neighbours.at(p.neighbour);
    writeLink(
      p,
      this.frames,
      neighbours.words[n + NEIGH.NEIGH_MAC_LO],
      neighbours.words[n + NEIGH.NEIGH_MAC_HI],
      words[r + IF.IF_MAC_LO],
      words[r + IF.IF_MAC_HI],
      words[r + IF.IF_VLAN],
    );
    return GO_ON;
  }

  /** MSS clamping of the ports that a TCP handshake comes in by and leaves by (row P6). */
  private clamp(p: Packet, from: number, to: number): void {
    if ((from | to) === MSS_OFF) return;
    const inMtu = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_MTU];
    const mtu = p.own === 0 && inMtu < p.mtu ? inMtu : p.mtu;
    if (from !== MSS_OFF) clampMss(p, this.frames, mssOf(from, p.family, mtu));
    if (to !== MSS_OFF) clampMss(p, this.frames, mssOf(to, p.family, mtu));
  }

  /** Cuts what came in fragments, and what is too long for the link and may be cut (row P6). */
  private fragment(p: Packet): number {
    const isWhole = (p.flags & REASSEMBLED) === 0;
    let length = p.end - p.l3;
    if (isWhole && length <= p.mtu) return GO_ON;
    if (p.gsoType !== 0) length = this.segmentLength(p);
    const { fragments, frames } = this;
    let limit = p.mtu;
    if (!isWhole) {
      const largest = fragments.largest(p.slot);
      // Of IPv6, what fits into the largest fragment that came was not worth cutting (Linux's ip6_finish_output).
      if (p.family === 6 && length <= p.mtu && length <= largest) return GO_ON;
      if (largest < limit) limit = p.family === 6 && largest < 1280 ? 1280 : largest;
    } else if (length <= p.mtu) return GO_ON;
    p.stage = D.STAGE_FRAGMENT;
    // Who may not cut was told so at `mtu`; this is the router's own.
    if (isWhole && p.family === 4 && p.dontFragment !== 0) return this.drop(p, D.PKT_TOO_BIG);
    if (p.gsoType !== 0) return this.fragmentSegments(p, limit);
    if ((frames.meta[p.slot * META_WORDS + META_FLAGS] & FRAME_NEEDS_CSUM) !== 0) completeChecksum(frames, p.slot);
    const shape = isWhole ? -1 : fragments.shapeAt(p.slot);
    const verdict = this.cut(p, p.slot, p.l3, p.end, limit, shape);
    if (verdict === GO_ON) return GO_ON;
    if (verdict !== FORWARDED) return this.drop(p, verdict);
    frames.free(p.slot);
    return FORWARDED;
  }

  /** A super-frame of IPv4 without DF whose segments are too long for the link: cut to segments, and those to fragments. */
  private fragmentSegments(p: Packet, limit: number): number {
    const { frames, segments } = this;
    if (p.family === 6) return this.drop(p, D.PKT_TOO_BIG);
    const count = segment(frames, p.slot, p.gsoSize, segments);
    if (count < 0) return this.drop(p, D.NO_BUFFER);
    const meta = frames.meta;
    let sent = 0;
    for (let n = 0; n < count; n++) {
      const slot = segments[n];
      const off = meta[slot * META_WORDS + META_OFF];
      const verdict = this.cut(p, slot, off + p.l3 - p.off, off + meta[slot * META_WORDS + META_LEN], limit, -1);
      if (verdict === FORWARDED || verdict === GO_ON) sent++;
      if (verdict === GO_ON) this.queue(slot, p.outPort, meta[slot * META_WORDS + META_LEN]);
      else frames.free(slot);
    }
    if (sent === 0) return this.drop(p, D.NO_BUFFER);
    frames.free(p.slot);
    return FORWARDED;
  }

  /**
   * Queues the fragments of the datagram in `slot`, all or none. Returns FORWARDED, a drop reason, or GO_ON when it fits as it
   * is. The slot stays the caller's.
   */
  private cut(p: Packet, slot: number, l3: number, end: number, limit: number, shape: number): number {
    const { fragmenter, frames } = this;
    const shapes = shape < 0 ? null : this.fragments.shapes;
    const pieces = fragmenter.begin(slot, l3, end, limit, shapes, shape);
    if (pieces === 0) return D.PKT_TOO_BIG;
    if (pieces === 1) return GO_ON;
    if (pieces > this.roomFor(limit)) {
      this.flush();
      if (pieces > this.roomFor(limit)) return D.NO_BUFFER;
    }
    for (let made = fragmenter.next(); made >= 0; made = fragmenter.next())
      this.queue(made, p.outPort, frames.meta[made * META_WORDS + META_LEN]);
    return FORWARDED;
  }

  /** Free slots that hold a frame of `limit` bytes of IP. */
  private roomFor(limit: number): number {
    const { freeSmallCount, freeLargeCount } = this.frames;
    return limit + 18 <= SMALL_ROOM ? freeSmallCount + freeLargeCount : freeLargeCount;
  }

  /** Queues the frame for its port. */
  private tx(p: Packet): number {
    p.stage = D.STAGE_TX;
    return this.queue(p.slot, p.outPort, p.len);
  }

  /** The quoted packet of an ICMP error, as its receiver had sent it. */
  private translateQuote(p: Packet): void {
    const table = this.tables.conntrack;
    const status = table.words[p.ct * CT_WORDS + CT_STATUS];
    if ((status & (IPS_SRC_NAT | IPS_DST_NAT)) === 0) return;
    const t = this.nat.quoted(p);
    const quote = this.quote;
    quote.ports = table.words[t + 2];
    if (p.family === 4) {
      quote.s[0] = table.words[t];
      quote.d[0] = table.words[t + 1];
    } else {
      const a = p.ct * CT6_WORDS + (p.innerDir << 3);
      for (let k = 0; k < 4; k++) {
        quote.s[k] = table.words6[a + k];
        quote.d[k] = table.words6[a + 4 + k];
      }
    }
    rewriteQuote(p, this.frames, quote);
  }

  /** Queues a finished frame for a port. */
  queue(slot: number, port: number, length: number): number {
    if (this.fast?.verify) this.fast.compare(slot, port);
    // A VLAN port sends through the port that carries it.
    const parent = this.tables.interfaces.words[port * IF.IF_WORDS + IF.IF_PARENT];
    const device = parent !== 0 ? parent - 1 : port;
    if (this.txCount[device] === TX_QUEUE) this.flushPort(device);
    this.txSlots[device][this.txCount[device]++] = slot;
    const row = T.C_PORTS + port * 8;
    this.counters[row + T.CP_TX_PACKETS]++;
    this.counters[row + T.CP_TX_BYTES] += length;
    return FORWARDED;
  }

  private flushPort(n: number): void {
    const port = this.ports[n];
    const count = this.txCount[n];
    this.txCount[n] = 0;
    if (port !== null && port !== undefined) port.txBurst(this.frames, this.txSlots[n], count);
    else for (let k = 0; k < count; k++) this.frames.free(this.txSlots[n][k]);
  }

  // --- input: to the router itself ---------------------------------------------------------------------------------------------

  /** A packet for the router: filtered by its zone, confirmed, then to a built-in protocol or the host kernel. */
  private input(p: Packet): number {
    p.stage = D.STAGE_INPUT;
    const u8 = this.frames.u8;
    if (p.proto === ICMPV6 && p.family === 6 && p.ctinfo === CT_UNTRACKED) {
      // Neighbour discovery and MLD always pass; their receivers check hop limit and form.
      return this.toControl(p);
    }
    if (p.ctinfo === CT_NEW && !this.isOwnDhcp(p)) {
      const from = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_ZONE];
      const verdict = p.own !== 0 ? ACCEPT : this.tables.filter.evaluate(p, from, ZONE_ROUTER, this.tables.worker);
      if (verdict === REJECT && !isGroup(p)) {
        this.refuse(p);
        return this.drop(p, D.INPUT_REJECT);
      }
      if (verdict !== ACCEPT) return this.drop(p, D.INPUT_DROP);
    }
    if (p.fresh !== 0) {
      const refused = this.conntrackConfirm(p);
      if (refused !== GO_ON) return refused;
    }
    const port = (((p.rports >>> 16) & 0xff) << 8) | (p.rports >>> 24);
    if (p.proto === ICMP || p.proto === ICMPV6) {
      const type = u8[p.l4];
      if ((p.family === 4 && type === 8) || (p.family === 6 && type === 128)) return this.toControl(p);
    } else if ((p.proto === UDP || p.proto === TCP) && this.tables.hasService(p.proto, port)) return this.toControl(p);
    if (isGroup(p) || p.d0 === -1) return this.drop(p, D.IP_MULTICAST);
    const host = this.tables.control[T.HOST_PORT] - 1;
    if (host >= 0) return this.toHost(p, host);
    if (p.ctinfo === CT_RELATED) return DELIVERED;
    if (p.proto === UDP || (p.proto !== TCP && p.proto !== ICMP && p.proto !== ICMPV6)) {
      const code = p.family === 4 ? (p.proto === UDP ? 3 : 2) : p.proto === UDP ? 4 : 1;
      const type = p.family === 4 ? 3 : p.proto === UDP ? 1 : 4;
      this.sendError(p, type, code, type === 4 ? p.protoAt - p.l3 : 0);
    }
    return this.drop(p, D.INPUT_NO_LISTENER);
  }

  /** A DHCP or DHCPv6 answer to the router's own client (it comes before an address is there to be tracked by). */
  private isOwnDhcp(p: Packet): boolean {
    if (p.proto !== UDP) return false;
    const to = p.rports >>> 16;
    return p.family === 4 ? to === 0x4400 : to === 0x2202;
  }

  private toControl(p: Packet): number {
    if (!this.punt.frame(this.frames, p.slot, p.port, p.etherType, p.l3 - p.off)) return this.drop(p, D.PUNT_QUEUEFULL);
    return DELIVERED;
  }

  /** To the host kernel over sluice0, unchanged but for the link header. */
  private toHost(p: Packet, host: number): number {
    const words = this.tables.interfaces.words;
    const r = host * IF.IF_WORDS;
    if (p.own !== 0) rewriteIp(p, this.frames, 0);
    if (p.innerL3 !== 0) this.translateQuote(p);
    writeLink(
      p,
      this.frames,
      words[r + IF.IF_PEER_MAC],
      words[r + IF.IF_PEER_MAC + 1],
      words[r + IF.IF_MAC_LO],
      words[r + IF.IF_MAC_HI],
      0,
    );
    this.counters[T.C_DELIVERED]++;
    this.queue(p.slot, host, p.len);
    return D.CONSUMED;
  }

  // --- output: the router's own --------------------------------------------------------------------------------------------------

  /**
   * Sends an IP packet of the router's own: conntrack, NAT, route, neighbour, tx. The slot's IP packet begins 14 bytes
   * behind its OFF; LEN counts those 14 bytes. `tracked` false for ICMP errors, which belong to another's connection;
   * `scope`: the port of a link-local destination.
   */
  output(slot: number, family: number, tracked: boolean, scope: number): void {
    const p = this.own;
    const m = slot * META_WORDS;
    const meta = this.frames.meta;
    p.slot = slot;
    p.off = meta[m + META_OFF];
    p.len = meta[m + META_LEN];
    p.port = scope;
    p.flags = meta[m + META_FLAGS];
    p.gsoType = meta[m + META_GSO] & 0xffff;
    p.gsoSize = meta[m + META_GSO] >>> 16;
    p.l3 = p.off + 14;
    p.family = family;
    p.own = 1;
    p.ct = -1;
    p.fresh = 0;
    p.ctinfo = CT_UNTRACKED;
    p.groupMac = 0;
    p.detail = 0;
    p.stage = D.STAGE_OUTPUT;
    p.proto = 0;
    p.fragHeader = 0;
    const reason = parseIp(p, this.frames, p.off + p.len);
    this.finish(p, reason !== 0 ? this.drop(p, reason) : this.walkOutput(p, tracked));
  }

  /** A frame that the host kernel sent with one of the router's addresses (sluice0): the router's own packet. */
  private fromHost(p: Packet): number {
    p.own = 1;
    const refused = this.linkInput(p) || this.ipParse(p) || this.reassembly(p);
    if (refused !== GO_ON) return refused;
    p.stage = D.STAGE_OUTPUT;
    if (isGroup(p)) return this.drop(p, D.IP_MULTICAST);
    // The kernel knows none of our links: it cannot say on which one a link-local destination is.
    if (p.family === 6 && isLinkLocal6(p.d0)) return this.drop(p, D.IP_SCOPE);
    return this.walkOutput(p, true);
  }

  private walkOutput(p: Packet, tracked: boolean): number {
    return (
      (tracked ? this.conntrackIn(p) || this.natPrerouting(p) : GO_ON) ||
      this.route(p) ||
      (tracked ? this.natPostrouting(p) || this.conntrackConfirm(p) : GO_ON) ||
      this.leave(p)
    );
  }

  /** Sends a complete frame of the control plane's out of a port. Takes ownership of the slot. */
  send(slot: number, port: number): void {
    const words = this.tables.interfaces.words;
    if ((words[port * IF.IF_WORDS + IF.IF_FLAGS] & IF.IFF_UP) === 0) {
      this.counters[T.C_DROPS + D.TX_LINK_DOWN]++;
      this.frames.free(slot);
      return;
    }
    this.counters[T.C_GENERATED]++;
    this.queue(slot, port, this.frames.meta[slot * META_WORDS + META_LEN]);
  }

  /** Answers a packet with an ICMP or ICMPv6 error, when the RFCs and the rate limits allow it. */
  private sendError(p: Packet, type: number, code: number, param: number): void {
    if (p.own !== 0 || !mayAnswer(p, this.frames, type)) return;
    const exempt = p.family === 4 ? type === 3 && code === 4 : type === 2;
    if (!this.limiter.allow(p.rs0 ^ p.rs1 ^ p.rs2 ^ p.rs3, exempt, this.now)) return;
    if (!this.chooseErrorSource(p)) return;
    const slot = this.frames.alloc(SMALL_ROOM);
    if (slot < 0) return;
    buildError(p, this.frames, slot, type, code, param, this.errorSource);
    this.output(slot, p.family, false, p.port);
  }

  /** Answers a packet that a rule or a zone rejects: a segment with a RST, anything else with port unreachable. */
  private refuse(p: Packet): void {
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

  /** The address that an error comes from: the one it was sent to if ours, else that of the port towards the sender. */
  private chooseErrorSource(p: Packet): boolean {
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
}

/** Multicast of either family. */
function isGroup(p: Packet): boolean {
  return p.family === 4 ? (p.d0 & 0xf0) === 0xe0 : (p.d0 & 0xff) === 0xff;
}

/** RS, RA, NS, NA and Redirect (RFC 4861). */
function isNeighbourDiscovery(type: number): boolean {
  return type >= 133 && type <= 137;
}

/** fe80::/10 by its first word. */
function isLinkLocal6(word: number): boolean {
  return (word & 0xc0ff) === 0x80fe;
}

/** Hash of a flow for choosing one of several next hops (RFC 2992): stays the same for a flow. */
function flowHash(p: Packet): number {
  let h =
    Math.imul(p.rs0 ^ p.rs3 ^ (p.rs1 + p.rs2), 0x9e3779b1) ^ Math.imul(p.rd0 ^ p.rd3 ^ (p.rd1 + p.rd2), 0x85ebca6b);
  h = Math.imul(h ^ p.rports ^ (h >>> 15), 0xc2b2ae35);
  return h ^ (h >>> 13);
}
