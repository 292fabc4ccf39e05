/**
 * Neighbor Discovery for the router: answers solicitations for its own addresses, learns neighbours, asks for those that
 * the path wants, and detects duplicates of its own addresses.
 *
 * RFC 4861 §7 (address resolution and unreachability; the states are in nud.ts, the validation in wire/nd.ts), RFC 4862
 * §5.4 (duplicate address detection), RFC 6980 (no fragments). As VU#472363 advises, only a sender that is on the port's
 * link by address is remembered. Link-layer addresses of hosts and routers around are also learned from router
 * solicitations and advertisements (§6.2.6, §6.3.4); redirects are not for routers (§8.2).
 *
 * Events: `nd.ready` { port, address, prefixLength } when an address has passed, `nd.duplicate` { port, address, mac,
 * disables } when it has not; `disables`: it was made of the port's MAC, and the port leaves IPv6 (controlplane/control.ts).
 *
 * Not here: router advertisements of our own, MLD reports for the solicited-node groups, SEND, the enhanced detection
 * of loops (RFC 7527: a frame from our own MAC is ignored instead).
 */
import { IF_MAC_HI, IF_MAC_LO, type InterfaceTable, MAX_PORTS } from '../../dataplane/interfaces.ts';
import {
  NEIGH_MAC_HI,
  NEIGH_MAC_LO,
  type NeighbourTable,
  NTF_ROUTER,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_REACHABLE,
  NUD_STALE,
  NUD_VALID,
} from '../../dataplane/neighbours.ts';
import { addressFromBytes, formatIpv6, formatMac, type Words } from '../../dataplane/wire/address.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';
import * as icmpv6 from '../../dataplane/wire/icmpv6.ts';
import * as ipv6 from '../../dataplane/wire/ipv6.ts';
import * as nd from '../../dataplane/wire/nd.ts';
import type { Action, Event, Protocol } from '../protocol.ts';
import { eui64 } from '../ra/identifiers.ts';
import { type Addresses, isUsable, type OwnAddress } from './addresses.ts';
import { isOwnMac, newFrame } from './link.ts';
import { NeighbourCache, type NudOptions } from './nud.ts';

export interface NdOptions extends NudOptions {
  /** DupAddrDetectTransmits (RFC 4862 §5.1); 0 lets a tentative address pass unasked, as `quiet` does. Default 1. */
  dadTransmits?: number;
}

const UNSPECIFIED: Words = [0, 0, 0, 0];
/** ff02::1. */
const ALL_NODES: Words = [0x02ff, 0, 0, 0x01000000];
/** Milliseconds between two complaints about the same conflict. */
const COMPLAINT_INTERVAL = 10_000;

/** Duplicate address detection of one tentative address: solicitations sent, and the clock of the next step. */
interface Detection {
  sent: number;
  deadline: number;
}

export class Nd implements Protocol {
  readonly name = 'nd';
  readonly cache: NeighbourCache;
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly quiet: boolean;
  private readonly dadTransmits: number;
  private readonly retransmitTime: number;
  private readonly detections = new Map<OwnAddress, Detection>();
  private readonly complained = new WeakMap<OwnAddress, number>();
  /** Version of the address book that `detections` follows. */
  private seen = -1;
  /** Where a frame's transport header is; used again for every frame. */
  private readonly upper = ipv6.newUpper();

  constructor(table: NeighbourTable, interfaces: InterfaceTable, addresses: Addresses, options: NdOptions = {}) {
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.quiet = options.quiet ?? false;
    this.dadTransmits = this.quiet ? 0 : (options.dadTransmits ?? 1);
    this.retransmitTime = options.retransmitTime ?? 1_000;
    this.cache = new NeighbourCache(table, 6, (n, unicast) => this.question(n, unicast), options);
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    switch (event.kind) {
      case 'frame':
        if (event.etherType === ethernet.TYPE_IPV6) this.receive(now, event.port, event.frame, event.l3, out);
        break;
      case 'resolve':
        if (event.family === 6 && this.interfaces.isUp(event.port))
          this.cache.resolve(now, event.port, event.address, out);
        break;
      case 'used':
        this.cache.used(now, event.neighbour);
        break;
      case 'link':
        if (event.up) this.linkUp(now, event.port, out);
        else this.cache.linkDown(event.port);
        break;
      case 'tick':
        break;
    }
    this.detect(now, out);
    this.cache.tick(now, out);
    return out;
  }

  next(now: number): number {
    if (this.seen !== this.addresses.version) return 0;
    let next = this.cache.next(now);
    for (const [own, detection] of this.detections) {
      if (!this.interfaces.isUp(own.port)) continue;
      const wait = Math.max(0, (detection.deadline - now) | 0);
      if (next < 0 || wait < next) next = wait;
    }
    return next;
  }

  private receive(now: number, port: number, frame: Uint8Array, l3: number, out: Action[]): void {
    if (port >= MAX_PORTS || l3 < ethernet.HEADER || !ipv6.check(frame, l3, frame.length - l3)) return;
    const end = l3 + ipv6.HEADER + ipv6.payloadLength(frame, l3);
    const upper = this.upper;
    if (!ipv6.walk(frame, l3, end, upper) || upper.proto !== ipv6.PROTO_ICMPV6) return;
    // RFC 6980 §5: a fragmented ND message is silently ignored.
    if (upper.fragment !== 0 || !nd.check(frame, l3, upper.at, end)) return;
    // Our own multicast, looped back by the link.
    if (isOwnMac(this.interfaces, port, ethernet.srcLo(frame, 0), ethernet.srcHi(frame, 0))) return;
    const at = upper.at;
    const source = wordsAt(frame, l3 + ipv6.SRC);
    switch (icmpv6.type(frame, at)) {
      case icmpv6.NEIGHBOR_SOLICITATION:
        this.solicited(now, port, frame, at, end, source, out);
        break;
      case icmpv6.NEIGHBOR_ADVERTISEMENT:
        this.advertised(now, port, frame, at, end, out);
        break;
      case icmpv6.ROUTER_SOLICITATION:
      case icmpv6.ROUTER_ADVERTISEMENT: {
        const isRouter = icmpv6.type(frame, at) === icmpv6.ROUTER_ADVERTISEMENT;
        const options = at + nd.optionsAt(icmpv6.type(frame, at));
        let n = this.learn(now, port, source, frame, nd.option(frame, options, end, nd.OPTION_SOURCE));
        if (n < 0) n = this.cache.find(port, source);
        if (n >= 0) this.cache.setFlag(n, NTF_ROUTER, isRouter);
        break;
      }
    }
  }

  /** §7.2.3, §7.2.4: a neighbor solicitation. */
  private solicited(
    now: number,
    port: number,
    frame: Uint8Array,
    at: number,
    end: number,
    source: Words,
    out: Action[],
  ): void {
    const target = wordsAt(frame, at + nd.TARGET);
    const isProbe = isZero(source);
    const own = this.addresses.find(port, 6, target);
    let flags = nd.ROUTER | nd.OVERRIDE;
    if (own === undefined || !isUsable(own)) {
      if (own !== undefined) {
        // RFC 4862 §5.4.3: another node that asks for the same tentative address from :: wants it too; one that asks
        // from an address merely resolves it, too early.
        if (isProbe && own.state === 'tentative') this.duplicate(own, frame, out);
        return;
      }
      // §7.2.8: a proxy does not override. It never answers a probe: the prefix is not its own, a host in it may be.
      const proxy = isProbe ? undefined : this.addresses.proxyFor(port, 6, target);
      if (proxy === undefined || this.cache.find(port, target) >= 0) return;
      flags = proxy.router ? nd.ROUTER : 0;
    }
    if (isProbe) {
      // §7.2.4: from the unspecified address: answered to all nodes, not solicited.
      out.push(this.advertisement(port, target, ALL_NODES, flags, multicastLo(ALL_NODES), multicastHi(ALL_NODES)));
      return;
    }
    if (this.addresses.find(port, 6, source) !== undefined) {
      this.complain(now, this.addresses.find(port, 6, source)!, frame, out);
      return;
    }
    const option = nd.option(frame, at + nd.OPTIONS, end, nd.OPTION_SOURCE);
    this.learn(now, port, source, frame, option);
    // To the address that it names; without one (a unicast solicitation) to what is known, else to where it came from.
    let lo = ethernet.srcLo(frame, 0);
    let hi = ethernet.srcHi(frame, 0);
    const n = this.cache.find(port, source);
    if (option >= 0 && ethernet.isStation(nd.macLo(frame, option), nd.macHi(frame, option))) {
      lo = nd.macLo(frame, option);
      hi = nd.macHi(frame, option);
    } else if (n >= 0 && (this.cache.stateOf(n) & NUD_VALID) !== 0) {
      lo = this.cache.table.words[this.cache.table.at(n) + NEIGH_MAC_LO];
      hi = this.cache.table.words[this.cache.table.at(n) + NEIGH_MAC_HI];
    }
    if (!ethernet.isStation(lo, hi)) return;
    out.push(this.advertisement(port, target, source, flags | nd.SOLICITED, lo, hi));
  }

  /** §7.2.5: a neighbor advertisement. */
  private advertised(now: number, port: number, frame: Uint8Array, at: number, end: number, out: Action[]): void {
    const target = wordsAt(frame, at + nd.TARGET);
    const own = this.addresses.find(port, 6, target);
    if (own !== undefined) {
      // RFC 4862 §5.4.4: somebody has the address that we are trying.
      if (own.state === 'tentative') this.duplicate(own, frame, out);
      else this.complain(now, own, frame, out);
      return;
    }
    const n = this.cache.find(port, target);
    // "If no entry exists, the advertisement SHOULD be silently discarded." A failed one counts as none.
    if (n < 0 || this.cache.stateOf(n) === NUD_FAILED) return;
    const flags = nd.flags(frame, at);
    const option = nd.option(frame, at + nd.OPTIONS, end, nd.OPTION_TARGET);
    const solicited = (flags & nd.SOLICITED) !== 0;
    const w = this.cache.table.words;
    const record = this.cache.table.at(n);
    let lo = w[record + NEIGH_MAC_LO];
    let hi = w[record + NEIGH_MAC_HI];
    let differs = false;
    if (option >= 0) {
      if (!ethernet.isStation(nd.macLo(frame, option), nd.macHi(frame, option))) return;
      differs = !this.cache.hasMac(n, nd.macLo(frame, option), nd.macHi(frame, option));
      lo = nd.macLo(frame, option);
      hi = nd.macHi(frame, option);
    }
    if (this.cache.stateOf(n) === NUD_INCOMPLETE) {
      // Without the option there is nothing to learn; the override flag does not matter.
      if (option < 0) return;
      this.cache.update(now, n, solicited ? NUD_REACHABLE : NUD_STALE, lo, hi);
    } else if (differs && (flags & nd.OVERRIDE) === 0) {
      // I: not to be overridden. a. REACHABLE becomes STALE, so that the old address is put to the proof; b. else nothing.
      if (this.cache.stateOf(n) === NUD_REACHABLE)
        this.cache.update(now, n, NUD_STALE, w[record + NEIGH_MAC_LO], w[record + NEIGH_MAC_HI]);
      return;
    } else if (solicited) {
      this.cache.update(now, n, NUD_REACHABLE, lo, hi);
    } else if (differs) {
      this.cache.update(now, n, NUD_STALE, lo, hi);
    }
    this.cache.setFlag(n, NTF_ROUTER, (flags & nd.ROUTER) !== 0);
  }

  /** Learns the MAC of an option at `option` (−1: none) for an on-link source; the record, or −1. */
  private learn(now: number, port: number, source: Words, frame: Uint8Array, option: number): number {
    if (option < 0 || isZero(source)) return -1;
    const lo = nd.macLo(frame, option);
    const hi = nd.macHi(frame, option);
    if (!ethernet.isStation(lo, hi) || isOwnMac(this.interfaces, port, lo, hi)) return -1;
    if (!this.addresses.isOnLink(port, 6, source) || this.addresses.find(port, 6, source) !== undefined) return -1;
    return this.cache.learn(now, port, source, lo, hi);
  }

  private duplicate(own: OwnAddress, frame: Uint8Array, out: Action[]): void {
    this.detections.delete(own);
    this.addresses.setState(own, 'duplicate');
    out.push({ kind: 'log', level: 'warn', message: `${describe(own, frame)}; it stays unused until that is mended` });
    const address = formatIpv6(...own.words);
    const mac = formatMac(ethernet.srcLo(frame, 0), ethernet.srcHi(frame, 0));
    // RFC 4862 §5.4.5: a link-local address made of the MAC means that the MAC itself is there twice: no IP on this link.
    const disables = ipv6.isLinkLocal(own.words[0]) && this.isFromMac(own);
    out.push({ kind: 'event', name: 'nd.duplicate', data: { port: own.port, address, mac, disables } });
  }

  private isFromMac(own: OwnAddress): boolean {
    const at = this.interfaces.at(own.port);
    const [lo, hi] = eui64(this.interfaces.words[at + IF_MAC_LO], this.interfaces.words[at + IF_MAC_HI]);
    return own.words[2] === lo && own.words[3] === hi;
  }

  /** Somebody speaks as us; detection is over, so all that is left is to say so. */
  private complain(now: number, own: OwnAddress, frame: Uint8Array, out: Action[]): void {
    if (!isUsable(own)) return;
    const last = this.complained.get(own);
    if (last !== undefined && ((now - last) | 0) >= 0 && ((now - last) | 0) < COMPLAINT_INTERVAL) return;
    this.complained.set(own, now);
    out.push({
      kind: 'log',
      level: 'warn',
      message: `${describe(own, frame)} too; give one of them another address`,
    });
  }

  /** Follows the address book: starts detections, takes their next step, ends them. */
  private detect(now: number, out: Action[]): void {
    if (this.seen !== this.addresses.version) {
      for (const own of this.detections.keys())
        if (this.addresses.find(own.port, 6, own.words) !== own || own.state !== 'tentative')
          this.detections.delete(own);
      for (const own of this.addresses)
        if (own.family === 6 && own.state === 'tentative' && !this.detections.has(own))
          this.detections.set(own, { sent: 0, deadline: now });
    }
    for (const [own, detection] of this.detections) {
      if (!this.interfaces.isUp(own.port) && this.dadTransmits > 0) continue;
      if (((detection.deadline - now) | 0) > 0) continue;
      if (detection.sent < this.dadTransmits) {
        detection.sent++;
        detection.deadline = (now + this.retransmitTime) | 0;
        out.push(this.solicitation(own.port, own.words, UNSPECIFIED, undefined));
      } else {
        this.detections.delete(own);
        this.addresses.setState(own, 'preferred');
        const data = { port: own.port, address: formatIpv6(...own.words), prefixLength: own.prefixLength };
        out.push({ kind: 'event', name: 'nd.ready', data });
      }
    }
    this.seen = this.addresses.version;
  }

  private linkUp(now: number, port: number, out: Action[]): void {
    // RFC 4862 §5.4: a detection that was under way begins anew: the link may be another one.
    for (const [own, detection] of this.detections) {
      if (own.port !== port) continue;
      detection.sent = 0;
      detection.deadline = now;
    }
    if (this.quiet) return;
    // §7.2.6: tell caches around us where our addresses are now.
    for (const own of this.addresses.ofPort(port)) {
      if (own.family !== 6 || !isUsable(own)) continue;
      const flags = nd.ROUTER | nd.OVERRIDE;
      out.push(this.advertisement(port, own.words, ALL_NODES, flags, multicastLo(ALL_NODES), multicastHi(ALL_NODES)));
    }
  }

  private question(n: number, unicast: boolean): Action | undefined {
    const port = this.cache.portOf(n);
    const target = this.cache.addressOf(n);
    const source = this.addresses.sourceFor(port, 6, target);
    if (source === undefined) return undefined;
    return this.solicitation(port, target, source.words, unicast ? n : undefined);
  }

  /** A neighbor solicitation: to the MAC of record `to`, or else to the target's solicited-node group. */
  private solicitation(port: number, target: Words, source: Words, to: number | undefined): Action {
    // §4.3: the source option on everything but duplicate address detection.
    const option = isZero(source) ? 0 : nd.OPTION_SOURCE;
    if (to !== undefined) {
      const at = this.cache.table.at(to);
      const w = this.cache.table.words;
      const [lo, hi] = [w[at + NEIGH_MAC_LO], w[at + NEIGH_MAC_HI]];
      return this.packet(port, icmpv6.NEIGHBOR_SOLICITATION, 0, target, source, target, option, lo, hi);
    }
    // RFC 4291 §2.7.1: ff02::1:ffXX:XXXX with the last 24 bits of the target.
    const group: Words = [0x02ff, 0, 0x01000000, target[3] | 0xff];
    const [lo, hi] = [multicastLo(group), multicastHi(group)];
    return this.packet(port, icmpv6.NEIGHBOR_SOLICITATION, 0, target, source, group, option, lo, hi);
  }

  /** A neighbor advertisement of `target` (also its source address) with our MAC. */
  private advertisement(port: number, target: Words, to: Words, flags: number, lo: number, hi: number): Action {
    // A proxy speaks with its own address: the target's is not ours to use (§7.2.8).
    const own = this.addresses.find(port, 6, target);
    const source = own === undefined ? (this.addresses.sourceFor(port, 6, to)?.words ?? target) : target;
    return this.packet(port, icmpv6.NEIGHBOR_ADVERTISEMENT, flags, target, source, to, nd.OPTION_TARGET, lo, hi);
  }

  private packet(
    port: number,
    type: number,
    flags: number,
    target: Words,
    source: Words,
    destination: Words,
    option: number,
    toLo: number,
    toHi: number,
  ): Action {
    const length = option === 0 ? nd.OPTIONS : nd.LENGTH;
    const frame = newFrame(this.interfaces, port, toLo, toHi, ethernet.TYPE_IPV6, ipv6.HEADER + length);
    const l3 = frame.length - ipv6.HEADER - length;
    const l4 = l3 + ipv6.HEADER;
    const w = this.interfaces.words;
    const at = this.interfaces.at(port);
    ipv6.emit(frame, l3, 0, 0, length, ipv6.PROTO_ICMPV6, 255);
    ipv6.setAddress(frame, l3 + ipv6.SRC, source[0], source[1], source[2], source[3]);
    ipv6.setAddress(frame, l3 + ipv6.DST, destination[0], destination[1], destination[2], destination[3]);
    const [t0, t1, t2, t3] = target;
    nd.emit(frame, l4, type, flags, t0, t1, t2, t3, option, w[at + IF_MAC_LO], w[at + IF_MAC_HI]);
    icmpv6.finish(frame, l3, l4, l4 + length);
    return { kind: 'send', port, frame };
  }
}

/** RFC 2464 §7: 33:33 and the last four bytes of the group. */
function multicastLo(group: Words): number {
  return 0x3333 | ((group[3] & 0xffff) << 16);
}

function multicastHi(group: Words): number {
  return group[3] >>> 16;
}

function wordsAt(u8: Uint8Array, at: number): Words {
  return addressFromBytes(6, u8, at);
}

function isZero(words: Words): boolean {
  return ipv6.isUnspecified(words[0], words[1], words[2], words[3]);
}

function describe(own: OwnAddress, frame: Uint8Array): string {
  const [w0, w1, w2, w3] = own.words;
  const mac = formatMac(ethernet.srcLo(frame, 0), ethernet.srcHi(frame, 0));
  return `nd: port ${own.port}: ${formatIpv6(w0, w1, w2, w3)} is our address, but ${mac} uses it`;
}
