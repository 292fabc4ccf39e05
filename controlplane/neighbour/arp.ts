/**
 * ARP for the router: answers for its own addresses, learns neighbours, asks for those that the path wants.
 *
 * RFC 826 (answering and learning), RFC 5227 (conflicts, announcements), RFC 1812 §3.3.2 (what a router must not
 * believe); the states of an entry are in nud.ts. Where the RFCs leave a choice it does what Linux does by default:
 * gratuitous ARP and replies that nobody asked for change entries but never make them (arp_accept = 0), a request to
 * the router makes one, the first of several different answers within a second wins (locktime). Stricter than Linux:
 * an address is answered for only on the port that has it (arp_ignore = 1), and only a sender from the port's own
 * subnets is remembered, so that a flood of invented senders cannot fill the table with more than those.
 *
 * Not here: probing for conflicts before an IPv4 address is used (RFC 5227 §2.1), RARP, the host port's neighbours.
 */
import { IF_MAC_HI, IF_MAC_LO, type InterfaceTable, MAX_PORTS } from '../../dataplane/interfaces.ts';
import {
  NEIGH_MAC_HI,
  NEIGH_MAC_LO,
  NEIGH_UPDATED,
  type NeighbourTable,
  NUD_REACHABLE,
  NUD_STALE,
  NUD_VALID,
} from '../../dataplane/neighbours.ts';
import { formatIpv4, formatMac, type Words } from '../../dataplane/wire/address.ts';
import * as arp from '../../dataplane/wire/arp.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';
import { isUnicast } from '../../dataplane/wire/ipv4.ts';
import type { Action, Event, Protocol } from '../protocol.ts';
import { type Addresses, isUsable, type OwnAddress } from './addresses.ts';
import { isOwnMac, newFrame } from './link.ts';
import { NeighbourCache, type NudOptions } from './nud.ts';

/** Milliseconds in which a second, different answer is not believed (Linux's locktime). */
const LOCK_TIME = 1_000;
/** RFC 5227 §2.4 (b): one defence per conflict, no second one within DEFEND_INTERVAL. */
const DEFEND_INTERVAL = 10_000;

export class Arp implements Protocol {
  readonly name = 'arp';
  readonly cache: NeighbourCache;
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly quiet: boolean;
  /** Clock of the last defence, by own address. */
  private readonly defended = new WeakMap<OwnAddress, number>();

  constructor(table: NeighbourTable, interfaces: InterfaceTable, addresses: Addresses, options: NudOptions = {}) {
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.quiet = options.quiet ?? false;
    this.cache = new NeighbourCache(table, 4, (n, unicast) => this.question(n, unicast), options);
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    switch (event.kind) {
      case 'frame':
        if (event.etherType === ethernet.TYPE_ARP) this.receive(now, event.port, event.frame, event.l3, out);
        break;
      case 'resolve':
        if (event.family === 4 && this.interfaces.isUp(event.port))
          this.cache.resolve(now, event.port, event.address, out);
        break;
      case 'used':
        this.cache.used(now, event.neighbour);
        break;
      case 'link':
        if (!event.up) this.cache.linkDown(event.port);
        else if (!this.quiet) this.announce(event.port, out);
        break;
      case 'tick':
        break;
    }
    this.cache.tick(now, out);
    return out;
  }

  next(now: number): number {
    return this.cache.next(now);
  }

  private receive(now: number, port: number, frame: Uint8Array, l3: number, out: Action[]): void {
    if (port >= MAX_PORTS || !arp.check(frame, l3, frame.length - l3)) return;
    const lo = arp.senderLo(frame, l3);
    const hi = arp.senderHi(frame, l3);
    // RFC 1812 §3.3.2: never believe that a host's link-layer address is a broadcast or multicast address.
    if (!ethernet.isStation(lo, hi) || isOwnMac(this.interfaces, port, lo, hi)) return;
    const sender: Words = [arp.senderIp(frame, l3), 0, 0, 0];
    const target: Words = [arp.targetIp(frame, l3), 0, 0, 0];
    const isRequest = arp.op(frame, l3) === arp.REQUEST;
    if (sender[0] === 0) {
      // RFC 5227 §2.1.1: a probe. Nobody is to be learned, but who has the address says so.
      if (isRequest) this.answer(port, target, sender, lo, hi, out);
      return;
    }
    if (!isUnicast(sender[0])) return;
    const own = this.addresses.find(port, 4, sender);
    if (own !== undefined) {
      this.conflict(now, own, lo, hi, out);
      return;
    }
    // RFC 826: for us means learn and answer; for others means update what is known already.
    if (isRequest && sender[0] !== target[0] && this.answer(port, target, sender, lo, hi, out)) {
      if (this.cache.find(port, sender) >= 0 || this.addresses.isOnLink(port, 4, sender))
        this.cache.learn(now, port, sender, lo, hi);
      return;
    }
    const toUs = !ethernet.isGroup(ethernet.dstLo(frame, 0));
    this.refresh(now, port, sender, lo, hi, !isRequest && toUs, sender[0] === target[0]);
  }

  /** Something that was not a request to us says where a known neighbour is. A unicast reply also proves that it hears. */
  private refresh(
    now: number,
    port: number,
    sender: Words,
    lo: number,
    hi: number,
    proof: boolean,
    gratuitous: boolean,
  ): void {
    const n = this.cache.find(port, sender);
    if (n < 0) return;
    const valid = (this.cache.stateOf(n) & NUD_VALID) !== 0;
    const same = this.cache.hasMac(n, lo, hi);
    if (valid && !same && !gratuitous) {
      const words = this.cache.table.words;
      const since = (now - words[this.cache.table.at(n) + NEIGH_UPDATED]) | 0;
      if (since >= 0 && since <= LOCK_TIME) return;
    }
    if (proof) this.cache.update(now, n, NUD_REACHABLE, lo, hi);
    else if (!valid || !same) this.cache.update(now, n, NUD_STALE, lo, hi);
  }

  /** Replies when the target is ours on this port, or proxied; true when it is. */
  private answer(port: number, target: Words, sender: Words, lo: number, hi: number, out: Action[]): boolean {
    const own = this.addresses.find(port, 4, target);
    if (own === undefined || !isUsable(own)) {
      // RFC 1027: never for an address that is on this very link, nor for a probe of one (nobody here has it).
      if (sender[0] === 0 || this.addresses.proxyFor(port, 4, target) === undefined) return false;
      if (this.cache.find(port, target) >= 0) return false;
    }
    out.push(this.packet(port, arp.REPLY, target[0], lo, hi, sender[0], lo, hi));
    return true;
  }

  /** RFC 5227 §2.4: somebody else uses our address. Say so, once in a while, to people and to the link. */
  private conflict(now: number, own: OwnAddress, lo: number, hi: number, out: Action[]): void {
    const last = this.defended.get(own);
    if (last !== undefined && ((now - last) | 0) >= 0 && ((now - last) | 0) < DEFEND_INTERVAL) return;
    this.defended.set(own, now);
    const address = formatIpv4(own.words[0]);
    const message = `arp: port ${own.port}: ${address} is our address, but ${formatMac(lo, hi)} uses it too; give one of them another address`;
    out.push({ kind: 'log', level: 'warn', message });
    if (!this.quiet && isUsable(own)) out.push(this.announcement(own));
  }

  /** The link is back: tell caches around us where our addresses are now. */
  private announce(port: number, out: Action[]): void {
    for (const own of this.addresses.ofPort(port))
      if (own.family === 4 && isUsable(own)) out.push(this.announcement(own));
  }

  private announcement(own: OwnAddress): Action {
    const { port, words } = own;
    // RFC 5227 §2.3: a request in which both addresses are the announced one, target MAC zero.
    return this.packet(port, arp.REQUEST, words[0], ethernet.BROADCAST_LO, ethernet.BROADCAST_HI, words[0], 0, 0);
  }

  private question(n: number, unicast: boolean): Action | undefined {
    const port = this.cache.portOf(n);
    const words = this.cache.addressOf(n);
    let source = this.addresses.sourceFor(port, 4, words);
    if (source === undefined) {
      // An unnumbered port speaks with the address of another one (RFC 1812 §2.2.7).
      for (const other of this.addresses) if (other.family === 4 && isUsable(other)) source ??= other;
      if (source === undefined) return undefined;
    }
    const at = this.cache.table.at(n);
    const w = this.cache.table.words;
    // RFC 1122 §2.3.2.1: a unicast poll for what is known, a broadcast for what is not.
    const lo = unicast ? w[at + NEIGH_MAC_LO] : ethernet.BROADCAST_LO;
    const hi = unicast ? w[at + NEIGH_MAC_HI] : ethernet.BROADCAST_HI;
    return this.packet(port, arp.REQUEST, source.words[0], lo, hi, words[0], 0, 0);
  }

  /** An ARP packet from us with our MAC as the sender's; `to` is the frame's destination, `target` the packet's. */
  private packet(
    port: number,
    operation: number,
    senderIp: number,
    toLo: number,
    toHi: number,
    targetIp: number,
    targetLo: number,
    targetHi: number,
  ): Action {
    const frame = newFrame(this.interfaces, port, toLo, toHi, ethernet.TYPE_ARP, arp.LENGTH);
    const w = this.interfaces.words;
    const at = this.interfaces.at(port);
    const l3 = frame.length - arp.LENGTH;
    arp.emit(frame, l3, operation, w[at + IF_MAC_LO], w[at + IF_MAC_HI], senderIp, targetLo, targetHi, targetIp);
    return { kind: 'send', port, frame };
  }
}
