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
import { WHY_ESP_RESERVED } from '../conntrack/generic.ts';
import {
  NAT_ESP_PENDING,
  NAT_ESP_RESERVED,
  NAT_LIMIT,
  NAT_LOOP,
  NAT_NO_PORT,
  NAT_OK,
  ONE_WAY,
} from '../conntrack/nat.ts';
import {
  CT_ESTABLISHED,
  CT_MAPPING,
  CT_NEW,
  CT_RELATED,
  CT_STATUS,
  CT_UNTRACKED,
  CT_WORDS,
  IPS_DST_NAT,
  IPS_EXPECTED,
  IPS_SRC_NAT,
} from '../conntrack/record.ts';
import {
  ADOPTED,
  CLASH_LOST,
  NOT_VALID,
  OWNER_UNKNOWN,
  PROTOCOL_DROP,
  TABLE_FULL,
  TOO_FAST,
  TRACKED,
  UNWANTED,
} from '../conntrack/track.ts';
import * as D from './drop.ts';
import { DROP, GO_ON, HELD } from './drop.ts';
import type { FastPath } from './fastpath.ts';
import { ACCEPT, CHAIN_ROUTING0, REFUSE_SOURCE, REJECT } from './filter.ts';
import { META_FLAGS, META_GSO, META_LEN, META_OFF, META_PORT, META_WORDS } from './frames.ts';
import { type Handover, LOST, NOTHING } from './handover.ts';
import * as IF from './interfaces.ts';
import { ALG_PASS, ALG_SEGMENT } from './mangle.ts';
import * as NH from './nexthops.ts';
import { ICMPV6, parseIp, TCP } from './parse.ts';
import {
  BURST,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_VLAN,
  EXPIRE_BURST,
  isGroup,
  isLinkLocal6,
  isNeighbourDiscovery,
  TX_QUEUE,
} from './path-base.ts';
import { PathLocal } from './path-local.ts';
import { segment } from './ports/segment.ts';
import { ENDED, fragmentOwner, KEPT, NOTHING_DUE, WHOLE } from './reassembly.ts';
import * as T from './tables.ts';
import { TOUCH } from './touch.ts';
import type { Packet } from './wire/packet.ts';

export { BURST, type PathOptions, type Punt } from './path-base.ts';

export class Path extends PathLocal {
  /** The frame that walks was given by another worker, which has counted it. */
  private given = false;

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

  /** Walks the frames in slots[0 … n), at most BURST, all received on one port. */
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
    const touches = n > 4 && this.toucher.worthwhile;
    for (let k = 0; k < n; k++) {
      if (touches && (k & (TOUCH - 1)) === 0) this.toucher.burst(slots, k, n, this.nat.given);
      this.receive(slots[k]);
    }
    this.tables.conntrack.quiet();
  }

  /** offload-lookup: hash and touch all, then compare and rewrite all; what is no hit walks at its place in the order. */
  protected offloadBurst(fast: FastPath, slots: Int32Array, n: number, port: number): void {
    const meta = this.frames.meta;
    const row = T.C_PORTS + port * 8;
    fast.touch(slots, n, this.now);
    const { counters, epoch } = this;
    let received = 0;
    let bytes = 0;
    // Two misses side by side: more of them may follow, as with new connections. What the slow path needs is touched, too.
    const touches = this.toucher.worthwhile;
    let touched = 0;
    let missed = 0;
    for (let k = 0; k < n; ) {
      const end = fast.run(slots, k, n, port, epoch);
      if (end > k) {
        missed = 0;
        received += end - k;
        bytes += fast.received;
        this.queueRun(slots, k, end, fast.outPort, fast.sent);
        k = end;
      }
      if (fast.why === 0) continue;
      const slot = slots[k++];
      const length = meta[slot * META_WORDS + META_LEN];
      if (fast.refused(slot, port, this)) {
        received++;
        bytes += length;
      } else {
        if (touches && ++missed > 1 && k >= touched) {
          this.toucher.burst(slots, k, n, this.nat.given);
          touched = k + TOUCH;
        }
        this.receive(slot);
      }
    }
    counters[T.C_RECEIVED] += received;
    counters[T.C_FORWARDED] += received;
    counters[row + T.CP_RX_PACKETS] += received;
    counters[row + T.CP_RX_BYTES] += bytes;
  }

  /** Frames that an entry has rewritten, all for one port. */
  protected queueRun(slots: Int32Array, from: number, end: number, port: number, bytes: number): void {
    const parent = this.tables.interfaces.words[port * IF.IF_WORDS + IF.IF_PARENT];
    const device = parent !== 0 ? parent - 1 : port;
    if (this.txCount[device] + end - from > TX_QUEUE) this.flushPort(device);
    const queue = this.txSlots[device];
    let at = this.txCount[device];
    for (let k = from; k < end; k++) queue[at++] = slots[k];
    this.txCount[device] = at;
    T.countFrames(this.counters, port, T.CP_TX_PACKETS, end - from, bytes);
    if (device !== port) T.countFrames(this.counters, device, T.CP_TX_PACKETS, end - from, bytes);
  }

  /** What must happen now and then: neighbours that answered, connections that expired; bounded. */
  housekeeping(): void {
    this.now = this.tables.now();
    if (this.hold.count > 0 && this.heldIsDue()) this.retryHeld();
    if (this.fragments.count > 0) this.expireFragments();
    this.tracker.aging.turn(this.now, 256);
    if (this.tables.natMappings.count !== 0) this.tables.natMappings.sweep(this.now, 256);
    if (this.fast !== null) this.fast.turn(this.now);
    this.tables.conntrack.quiet();
  }

  /** True: `housekeeping` has nothing to do, and will not before a frame comes; the engine's entries aside. */
  get isEmpty(): boolean {
    const { conntrack, natMappings } = this.tables;
    if (this.tracker.aging.hasReturned) return false;
    return this.hold.count + this.fragments.count + conntrack.count + natMappings.count === 0;
  }

  /**
   * Verify mode of the engine behind the table: is the entry of this `epoch`, by which it has forwarded this frame, still
   * what it was? Then `shadow` takes what it made of it, and `review` walks the frame. The slot stays the caller's.
   */
  recognize(slot: number, epoch: number): boolean {
    const { fast } = this;
    this.now = this.tables.now();
    this.epoch = this.tables.control[T.EPOCH];
    if (fast === null || epoch !== this.epoch) return false;
    // Not `usable`: that engine also has the untagged frames of a port that carries VLANs.
    const words = this.tables.interfaces.words;
    const r = this.frames.meta[slot * META_WORDS + META_PORT] * IF.IF_WORDS;
    if ((words[r + IF.IF_FLAGS] & (IF.IFF_UP | IF.IFF_SECURITY)) !== IF.IFF_UP || words[r + IF.IF_SOURCES] !== 0)
      return false;
    fast.begin();
    return fast.recognize(slot, this.now, this.epoch);
  }

  /** Walks a sample; takes the slot. */
  review(slot: number): void {
    this.receive(slot);
    this.tables.conntrack.quiet();
  }

  protected receive(slot: number): void {
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
    p.ct = -1;
    p.fresh = 0;
    p.own = 0;
    p.detail = 0;
    p.errorType = 0;
    const row = T.C_PORTS + p.port * 8;
    this.counters[row + T.CP_RX_PACKETS]++;
    this.counters[row + T.CP_RX_BYTES] += p.len;
    if ((this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_FLAGS] & IF.IFF_HOST) !== 0) {
      this.counters[T.C_MADE]++;
      this.finish(p, this.fromHost(p));
      return;
    }
    this.counters[T.C_RECEIVED]++;
    const verdict = this.walk(p);
    this.finish(p, verdict);
    this.fast?.shadow?.settle(verdict >= DROP ? D.reasonName(verdict - DROP) : 'not sent');
  }

  /** The life of a packet. */
  protected walk(p: Packet): number {
    return (
      this.linkInput(p) ||
      this.ipParse(p) ||
      this.sourceGuard(p) ||
      this.reassembly(p) ||
      this.conntrackIn(p) ||
      this.natPrerouting(p) ||
      this.route(p) ||
      this.ttl(p) ||
      this.mtu(p) ||
      this.forwardFilter(p) ||
      this.neighbourWorth(p) ||
      this.natPostrouting(p) ||
      this.alg(p) ||
      this.conntrackConfirm(p) ||
      this.leave(p)
    );
  }

  /** Port state, VLAN, MAC and EtherType filters (rows L1, L3, L4); ARP goes to the control plane. */
  protected linkInput(p: Packet): number {
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
        if (!this.given) T.countFrames(this.counters, port, T.CP_RX_PACKETS, 1, p.len);
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
      if ((flags & IF.IFF_SECURITY) !== 0 && !this.arpAllowed(p)) return this.drop(p, D.SECURITY_GROUP);
      return this.toControl(p);
    }
    return this.drop(p, D.UNHANDLED_PROTO);
  }

  protected ipParse(p: Packet): number {
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

  /** Fragments wait until their datagram is whole; the last one to come walks on as the datagram (row P4). */
  protected reassembly(p: Packet): number {
    if (p.isFragment === 0 && p.fragHeader === 0) return GO_ON;
    p.stage = D.STAGE_REASSEMBLY;
    if (p.gsoType !== 0) return this.drop(p, D.GSO_MALFORMED);
    if (p.isFragment !== 0) {
      if (this.handover !== null && fragmentOwner(p, this.handover.workers) !== this.tables.worker)
        return this.handOver(p, this.handover);
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

  /** The fragment's datagram is put together by another worker. */
  protected handOver(p: Packet, handover: Handover): number {
    if (!handover.give(fragmentOwner(p, handover.workers), this.frames, p.slot)) return this.drop(p, D.NO_BUFFER);
    return this.consume(p);
  }

  /** Walks what other workers have given, at most `limit` frames. Returns how many there were. */
  takeGiven(limit: number): number {
    const { handover, counters, frames } = this;
    if (handover === null) return 0;
    this.now = this.tables.now();
    this.epoch = this.tables.control[T.EPOCH];
    this.fast?.begin();
    let taken = 0;
    this.given = true;
    while (taken < limit) {
      const slot = handover.take(frames);
      if (slot === NOTHING) break;
      taken++;
      if (slot === LOST) {
        counters[T.C_MADE]++;
        counters[T.C_DROPS + D.NO_BUFFER]++;
        continue;
      }
      // Who received it has counted it.
      const row = T.C_PORTS + frames.meta[slot * META_WORDS + META_PORT] * 8;
      const received = counters[T.C_RECEIVED];
      const packets = counters[row + T.CP_RX_PACKETS];
      const bytes = counters[row + T.CP_RX_BYTES];
      this.receive(slot);
      counters[T.C_MADE] += counters[T.C_RECEIVED] - received;
      counters[T.C_RECEIVED] = received;
      counters[row + T.CP_RX_PACKETS] = packets;
      counters[row + T.CP_RX_BYTES] = bytes;
    }
    this.given = false;
    if (taken > 0) this.tables.conntrack.quiet();
    return taken;
  }

  protected refuseFragment(p: Packet, reason: number): number {
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
  protected expireFragments(): void {
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

  protected conntrackIn(p: Packet): number {
    p.stage = D.STAGE_CONNTRACK_IN;
    const zone = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_CT_ZONE];
    const result = this.tracker.in(p, this.frames.u8, zone, this.now);
    // Of a connection that nobody has answered: as a packet of none.
    if (result === TRACKED && (p.ctinfo !== CT_NEW || p.fresh !== 0 || !this.isVain(p))) return GO_ON;
    if (result === NOT_VALID) return this.drop(p, D.CT_INVALID_DROP);
    if (result === TABLE_FULL) return this.drop(p, D.CT_FULL);
    if (result === TOO_FAST) return this.drop(p, D.CT_NEW_RATE);
    if (result === UNWANTED || result === TRACKED) {
      p.stage = D.STAGE_NEIGHBOUR;
      return this.drop(p, this.whyVain);
    }
    if (result === OWNER_UNKNOWN) return this.drop(p, D.ESP_AMBIGUOUS);
    return this.drop(p, result === PROTOCOL_DROP ? D.CT_INVALID_DROP : D.CT_CLASH);
  }

  /** The effective destination: by the rules for a new connection to one of our addresses, by the tuples for the rest. */
  protected natPrerouting(p: Packet): number {
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
    this.nat.prerouting(p, this.now);
    return GO_ON;
  }

  /** Who inside a new connection is for: a port forward's or the DMZ host, or a mapping's if its filtering admits it. */
  protected natDestination(p: Packet, zone: number): number {
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
  protected ownerOf4(address: number): number {
    const nexthops = this.tables.nexthops;
    const n = this.tables.routes.lookup4(address);
    if (n === 0 || nexthops.kind(n) !== NH.NH_LOCAL) return -1;
    return nexthops.words[nexthops.at(n) + NH.NH_PORT_WORD];
  }

  protected isLocal4(address: number): boolean {
    const n = this.tables.routes.lookup4(address);
    return n !== 0 && this.tables.nexthops.kind(n) === NH.NH_LOCAL;
  }

  /** Established and related pass, and what NAT admitted; the rest asks the rules, then the zone (rows C3, F1). */
  protected forwardFilter(p: Packet): number {
    this.helperByRule = 0;
    // RFC 6092 REC-4: not even with no segments left, which a node that it is sent to would ignore (RFC 5095 §3).
    if ((p.chain & CHAIN_ROUTING0) !== 0) return this.drop(p, D.IPV6_RH0);
    if (p.ctinfo === CT_ESTABLISHED || p.ctinfo === CT_RELATED) return GO_ON;
    p.stage = D.STAGE_FORWARD_FILTER;
    if (p.ctinfo === CT_NEW && this.nat.admitted(p)) return GO_ON;
    const words = this.tables.interfaces.words;
    const from = words[p.port * IF.IF_WORDS + IF.IF_ZONE];
    const to = words[p.outPort * IF.IF_WORDS + IF.IF_ZONE];
    if (p.family === 6 && this.tables.filter.wantsSource()) p.sourceZone = this.zoneTowards6(p.s0, p.s1, p.s2, p.s3);
    const verdict = this.tables.filter.evaluate(p, from, to, this.tables.worker);
    this.helperByRule = this.tables.filter.helper;
    if (verdict === ACCEPT) return GO_ON;
    if (verdict === REJECT) {
      this.refuse(p);
      return this.drop(p, D.FILTER_REJECT);
    }
    if (verdict === REFUSE_SOURCE) {
      this.refuseSource(p);
      return this.drop(p, D.FILTER_REJECT);
    }
    return this.drop(p, D.FILTER_DROP);
  }

  /** Zone of the port that the route to an address leaves by (of several, the first); 0: there is no route. */
  protected zoneTowards6(a: number, b: number, c: number, d: number): number {
    const { routes, nexthops, interfaces } = this.tables;
    let n = routes.lookup6(a, b, c, d);
    if (n !== 0 && nexthops.kind(n) === NH.NH_GROUP) n = nexthops.select(n, 0);
    if (n === 0) return 0;
    const kind = nexthops.kind(n);
    if (kind !== NH.NH_VIA && kind !== NH.NH_CONNECTED && kind !== NH.NH_LOCAL) return 0;
    return interfaces.words[nexthops.words[nexthops.at(n) + NH.NH_PORT_WORD] * IF.IF_WORDS + IF.IF_ZONE];
  }

  /** The effective source: by the rules for a new connection, by the tuples for the rest. */
  protected natPostrouting(p: Packet): number {
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
        if (result === NAT_ESP_PENDING) return this.drop(p, D.ESP_PENDING);
        if (result === NAT_ESP_RESERVED) {
          p.detail = WHY_ESP_RESERVED;
          return this.drop(p, D.CT_INVALID_DROP);
        }
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
  protected followsMaster(p: Packet): boolean {
    const status = this.tables.conntrack.words[p.ct * CT_WORDS + CT_STATUS];
    return (status & IPS_EXPECTED) !== 0 && (status & (IPS_SRC_NAT | IPS_DST_NAT)) !== 0;
  }

  /** Helpers read and edit what carries addresses in its payload; before confirm, behind NAT, whose result they announce. */
  protected alg(p: Packet): number {
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
  protected segmentAlg(p: Packet, size: number, again: boolean): number {
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
      const fresh = q.fresh !== 0;
      this.counters[T.C_MADE]++;
      this.finish(q, (again ? this.alg(q) : GO_ON) || this.conntrackConfirm(q) || this.leave(q));
      // The first segment has published the connection, or given it up: the next ones are packets of it, or go with it.
      p.fresh = q.fresh;
      p.ct = q.ct;
      p.dir = q.dir;
      if (fresh && q.ct < 0) {
        while (++n < count) this.frames.free(this.segments[n]);
        break;
      }
    }
    return this.consume(p);
  }

  protected conntrackConfirm(p: Packet): number {
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
        this.nat.prerouting(p, this.now);
        this.nat.postrouting(p, this.now);
        return GO_ON;
      }
      if (result === CLASH_LOST || p.family !== 4 || this.nat.chooseAgain(p, this.now) !== NAT_OK) break;
      this.nat.postrouting(p, this.now);
    }
    return this.drop(p, D.CT_CLASH);
  }

  protected resetEffective(p: Packet): void {
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

  /**
   * Sends an IP packet of the router's own: conntrack, NAT, route, neighbour, tx. The slot's IP packet begins 14 bytes
   * behind its OFF; LEN counts those 14 bytes. `tracked` false for ICMP errors, which belong to another's connection;
   * `scope`: the port of a link-local destination.
   */
  output(slot: number, family: number, tracked: boolean, scope: number): void {
    this.counters[T.C_MADE]++;
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
  protected fromHost(p: Packet): number {
    p.own = 1;
    const refused = this.linkInput(p) || this.ipParse(p) || this.reassembly(p);
    if (refused !== GO_ON) return refused;
    p.stage = D.STAGE_OUTPUT;
    if (isGroup(p)) return this.drop(p, D.IP_MULTICAST);
    // The kernel knows none of our links: it cannot say on which one a link-local destination is.
    if (p.family === 6 && isLinkLocal6(p.d0)) return this.drop(p, D.IP_SCOPE);
    return this.walkOutput(p, true);
  }

  protected walkOutput(p: Packet, tracked: boolean): number {
    return (
      (tracked ? this.conntrackIn(p) || this.natPrerouting(p) : GO_ON) ||
      this.route(p) ||
      (tracked ? this.natPostrouting(p) || this.conntrackConfirm(p) : GO_ON) ||
      this.leave(p)
    );
  }
}
