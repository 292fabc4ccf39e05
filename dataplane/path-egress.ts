/**
 * The stages behind confirm: neighbour, offload-program, rewrite, fragment, tx; and the packets that wait for a neighbour.
 * Part of the path (path.ts).
 */
import {
  CT_ESTABLISHED,
  CT_GEN,
  CT_STATUS,
  CT_WORDS,
  CT6_WORDS,
  IPS_CONFIRMED,
  IPS_DST_NAT,
  IPS_SRC_NAT,
} from '../conntrack/record.ts';
import { DETAIL_ICMP_UNRELATED } from '../conntrack/track.ts';
import * as D from './drop.ts';
import { FORWARDED, GO_ON, HELD } from './drop.ts';
import { FRAME_NEEDS_CSUM, META_FLAGS, META_LEN, META_OFF, META_WORDS, SMALL_ROOM } from './frames.ts';
import { CAPACITY, FORGOTTEN, HOLD_FAMILY, HOLD_N0, HOLD_PORT, HOLD_WORDS } from './hold.ts';
import * as IF from './interfaces.ts';
import { clampMss, MSS_OFF, mssOf } from './mss.ts';
import * as NEIGH from './neighbours.ts';
import { NUD_FAILED, NUD_INCOMPLETE, NUD_STALE, NUD_VALID } from './neighbours.ts';
import * as NH from './nexthops.ts';
import { TCP } from './parse.ts';
import { isGroup, isLinkLocal6 } from './path-base.ts';
import { PathRoute } from './path-route.ts';
import { completeChecksum, segment } from './ports/segment.ts';
import { REASSEMBLED } from './reassembly.ts';
import { rewriteIp, rewriteQuote, writeLink } from './rewrite.ts';
import * as T from './tables.ts';
import type { Packet } from './wire/packet.ts';

/**
 * Milliseconds between two looks at packets whose neighbour may have failed: who is told so waits three seconds anyway, and while
 * a scan goes on a look costs as much as a burst.
 */
const FAILED_LOOK = 32;

export abstract class PathEgress extends PathRoute {
  /** Of the packets that wait, when they are looked at. */
  private readonly positions = new Int32Array(CAPACITY);
  private readonly orders = new Int32Array(CAPACITY);
  protected whyVain = 0;

  /** From the neighbour stage on: also the way of packets that waited, and of the router's own. */
  protected leave(p: Packet): number {
    return this.neighbour(p) || this.offloadProgram(p) || this.rewrite(p) || this.fragment(p) || this.tx(p);
  }

  /** The next hop's MAC; a packet whose next hop is unknown waits for it. */
  protected neighbour(p: Packet): number {
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
        // Only when it differs: workers share this line, and each store takes it from the others.
        if (words[at + NEIGH.NEIGH_USED] !== this.now) words[at + NEIGH.NEIGH_USED] = this.now;
        return GO_ON;
      }
      if (state === NUD_FAILED) return this.neighbourFailed(p);
    }
    const isNew = n < 0 && !this.hold.isAsked(p, this.now);
    if (isNew && !this.hold.mayAsk(p.outPort, this.now, true)) return this.drop(p, D.NEIGH_RATE);
    const { words: records } = this.tables.conntrack;
    const evicted = this.hold.keep(p, this.now, p.ct < 0 ? 0 : records[p.ct * CT_WORDS + CT_GEN]);
    if (evicted >= 0) {
      this.counters[T.C_DROPS + D.NEIGH_QUEUEFULL]++;
      this.counters[T.C_HELD]--;
      this.frames.free(evicted);
    }
    if (isNew) this.punt.resolve(p.outPort, p.family, p.n0, p.n1, p.n2, p.n3);
    return HELD;
  }

  /**
   * A new connection to a next hop that did not answer, or that may not be asked for now, ends before it costs a record
   * and NAT a port: otherwise a scan of a subnet would push out everybody's connections (RFC 6583 §5).
   */
  protected neighbourWorth(p: Packet): number {
    if (p.fresh === 0) return GO_ON;
    const neighbours = this.tables.neighbours;
    const n = neighbours.find(p.outPort, p.family, p.n0, p.n1, p.n2, p.n3);
    if (n >= 0) {
      if (neighbours.words[neighbours.at(n)] !== NUD_FAILED) return GO_ON;
      p.stage = D.STAGE_NEIGHBOUR;
      return this.neighbourFailed(p);
    }
    if (this.hold.mayAsk(p.outPort, this.now, false) || this.hold.isAsked(p, this.now)) return GO_ON;
    p.stage = D.STAGE_NEIGHBOUR;
    return this.drop(p, D.NEIGH_RATE);
  }

  /**
   * The same before the packet has cost anything, while a scan goes on that has used up the questions of a port, about a
   * packet whose destination is on that port's link: in vain is what nobody knows and nobody has asked for; and, while there
   * is no room to hold one more, what already has a packet waiting for it. `whyVain` is the reason to drop it. (Asked behind
   * conntrack's lookup, of what nobody has answered: what NAT translates was sent to another address.)
   */
  protected isVain(p: Packet): boolean {
    return this.hold.isPressed(this.now) && (this.whyVain = this.vain(p)) !== 0;
  }

  private vain(p: Packet): number {
    const { tables, hold, now } = this;
    // A routing rule may send it elsewhere.
    if (p.own !== 0 || p.ttl <= 1 || tables.policy.count() !== 0 || isGroup(p)) return 0;
    // Neither has a route (path-route.ts).
    if (p.family === 4 ? p.d0 === -1 : isLinkLocal6(p.d0)) return 0;
    const hop = p.family === 4 ? tables.routes.lookup4(p.d0) : tables.routes.lookup6(p.d0, p.d1, p.d2, p.d3);
    if (hop === 0 || tables.nexthops.kind(hop) !== NH.NH_CONNECTED) return 0;
    if (p.family === 6 && this.nat.translates6) return 0;
    const port = tables.nexthops.words[tables.nexthops.at(hop) + NH.NH_PORT_WORD];
    if (hold.mayAsk(port, now, false)) return 0;
    p.outPort = port;
    p.n0 = p.d0;
    p.n1 = p.d1;
    p.n2 = p.d2;
    p.n3 = p.d3;
    const n = tables.neighbours.find(port, p.family, p.d0, p.d1, p.d2, p.d3);
    if (n >= 0 && tables.neighbours.words[tables.neighbours.at(n)] !== NUD_INCOMPLETE) return 0;
    const waits = hold.isWaiting(p);
    if (waits && hold.isFull) return D.NEIGH_QUEUEFULL;
    return n >= 0 || (waits && hold.isAsked(p, now)) ? 0 : D.NEIGH_RATE;
  }

  protected neighbourFailed(p: Packet): number {
    if (p.own === 0) this.sendError(p, p.family === 4 ? 3 : 1, p.family === 4 ? 1 : 3, 0);
    return this.drop(p, D.NEIGH_FAILED);
  }

  /**
   * True when packets that wait should be looked at: a neighbour has answered; or, at most every FAILED_LOOK
   * milliseconds, since a scan changes the table all the time, one has failed or been forgotten.
   */
  protected heldIsDue(): boolean {
    const neighbours = this.tables.neighbours;
    if (this.neighbourAnswers !== neighbours.answers()) return true;
    const elapsed = (this.now - this.heldLooked) | 0;
    return elapsed >= FORGOTTEN || (elapsed >= FAILED_LOOK && this.neighbourEpoch !== neighbours.epoch());
  }

  /** Milliseconds of `nap` that its worker may sleep: what waits is looked at soon after a neighbour has failed. */
  restUntilLook(nap: number): number {
    const failed = this.hold.count > 0 && this.neighbourEpoch !== this.tables.neighbours.epoch();
    return failed && nap > FAILED_LOOK ? FAILED_LOOK : nap;
  }

  /** Looks again at every packet that waits: its neighbour may have answered, or never will. */
  protected retryHeld(): void {
    const neighbours = this.tables.neighbours;
    this.neighbourAnswers = neighbours.answers();
    this.neighbourEpoch = neighbours.epoch();
    this.heldLooked = this.now;
    const p = this.resumed;
    const hold = this.hold;
    const words = neighbours.words;
    const held = hold.words;
    const { positions, orders } = this;
    const count = hold.positions(positions);
    for (let k = 0; k < count; k++) orders[k] = hold.orderOf(positions[k]);
    for (let k = 0; k < count; k++) {
      const n = positions[k];
      // An error about one of them may have had to wait, too, and taken the place of this one.
      if (hold.orderOf(n) !== orders[k]) continue;
      const at = n * HOLD_WORDS;
      const record = neighbours.find(
        held[at + HOLD_PORT],
        held[at + HOLD_FAMILY],
        held[at + HOLD_N0],
        held[at + HOLD_N0 + 1],
        held[at + HOLD_N0 + 2],
        held[at + HOLD_N0 + 3],
      );
      // No entry: the question has not been taken up yet, or the entry had to give way to others (a flood): nobody will
      // answer this packet.
      const late = ((this.now - hold.since(n)) | 0) >= FORGOTTEN;
      const state = record >= 0 ? words[neighbours.at(record)] : late ? NUD_FAILED : 0;
      if ((state & (NUD_VALID | NUD_FAILED)) === 0) continue;
      hold.restore(n, p, this.frames.i32);
      if (p.ct >= 0 && this.isOver(p.ct, hold.generationOf(n))) p.ct = -1;
      hold.forget(n);
      this.counters[T.C_HELD]--;
      if (state === NUD_FAILED) {
        p.stage = D.STAGE_NEIGHBOUR;
        this.finish(p, this.neighbourFailed(p));
      } else this.finish(p, this.leave(p));
    }
  }

  /** True when a connection of this generation has ended, and its record is free or another's. */
  private isOver(index: number, generation: number): boolean {
    const { words } = this.tables.conntrack;
    const c = index * CT_WORDS;
    return words[c + CT_GEN] !== generation || (words[c + CT_STATUS] & IPS_CONFIRMED) === 0;
  }

  /** Every stage has agreed: the engine may forward the next packets of this flow by itself. */
  protected offloadProgram(p: Packet): number {
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

  /** The packet's effective header fields and its link header become the frame's bytes. */
  protected rewrite(p: Packet): number {
    p.stage = D.STAGE_TX;
    const words = this.tables.interfaces.words;
    const r = p.outPort * IF.IF_WORDS;
    if ((words[r + IF.IF_FLAGS] & IF.IFF_UP) === 0) return this.drop(p, D.TX_LINK_DOWN);
    // A helper may have made it longer since `mtu`.
    if (p.own === 0 && p.end - p.l3 > p.mtu) {
      const refused = this.mtu(p);
      if (refused !== GO_ON) return refused;
    }
    if (p.innerL3 !== 0 && p.ct < 0) {
      // It has waited, and its connection has ended: nobody knows any more what its receiver had sent.
      p.detail = DETAIL_ICMP_UNRELATED;
      return this.drop(p, D.CT_INVALID_DROP);
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
  protected clamp(p: Packet, from: number, to: number): void {
    if ((from | to) === MSS_OFF) return;
    const inMtu = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_MTU];
    const mtu = p.own === 0 && inMtu < p.mtu ? inMtu : p.mtu;
    if (from !== MSS_OFF) clampMss(p, this.frames, mssOf(from, p.family, mtu));
    if (to !== MSS_OFF) clampMss(p, this.frames, mssOf(to, p.family, mtu));
  }

  /** Cuts what came in fragments, and what is too long for the link and may be cut (row P6). */
  protected fragment(p: Packet): number {
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
  protected fragmentSegments(p: Packet, limit: number): number {
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
  protected cut(p: Packet, slot: number, l3: number, end: number, limit: number, shape: number): number {
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
  protected roomFor(limit: number): number {
    const { freeSmallCount, freeLargeCount } = this.frames;
    return limit + 18 <= SMALL_ROOM ? freeSmallCount + freeLargeCount : freeLargeCount;
  }

  /** Queues the frame for its port. */
  protected tx(p: Packet): number {
    p.stage = D.STAGE_TX;
    return this.queue(p.slot, p.outPort, p.len);
  }

  /** The quoted packet of an ICMP error, as its receiver had sent it. */
  protected translateQuote(p: Packet): void {
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
}
