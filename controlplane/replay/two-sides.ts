/**
 * Two sides: one capture that has both sides of the router, played through it.
 *
 * A frame whose source is inside enters the inside port, one whose destination is inside enters the outside port; what has
 * neither or both is skipped. Inside hosts are neighbours on the inside port, whatever the configuration's own prefixes
 * are; what is outside comes through the default route's gateway. Everything that depends on the translation is the
 * FarEnd's.
 */
import type { Cidr } from '../../dataplane/wire/address.ts';
import type { Config, PortConfig } from '../config/index.ts';
import type { Router } from '../router.ts';
import { FarEnd } from './far-end.ts';
import type { CaptureInput } from './input.ts';
import { keyFromWords, MAX_LEARNED, macValue, madeUpGateway } from './learn.ts';
import {
  addressLength,
  destinationAt,
  ipOffset,
  type PacketView,
  repairChecksums,
  sourceAt,
  viewPacket,
} from './packet.ts';
import { gateways, isHost, isNamed, keyOf, Votes, wayTo, wordsOf } from './routing.ts';
import type { ReplaySession } from './session.ts';
import { cut, isSuperFrame } from './super-frame.ts';

/** The configuration cannot play such a capture; the message says why and what to add. */
export class SidesError extends Error {}

export interface Sides {
  inside: PortConfig;
  outside: PortConfig;
}

/** The unspecified MAC of link layers that have none, and what frames without a usable source get. */
const NO_MAC = '\x02\0\0\0\0\0';

/**
 * Finds the two ports, and leads each CIDR to the inside one where only the default route would match.
 *
 * @throws SidesError
 */
export function findSides(config: Config, cidrs: readonly Cidr[]): Sides {
  let sides: Sides | null = null;
  for (const cidr of cidrs) {
    const text = `${config.file}: routes`;
    const way =
      wayTo(config, cidr.family, [0, 0, 0, 0], 0) ??
      wayTo(config, cidr.family === 4 ? 6 : 4, [0, 0, 0, 0], 0) ??
      refuse(`${text}: expected a default route, which says what is outside, got none`);
    const outside = config.ports[way.port];
    const routed = wayTo(config, cidr.family, cidr.words, cidr.prefixLength);
    let inside: PortConfig;
    if (routed !== null && routed.port !== outside.number) inside = config.ports[routed.port];
    else {
      inside = insidePort(config, outside);
      config.routes.push({
        to: { ...cidr, text: '' },
        type: 'unicast',
        via: null,
        port: inside.number,
        metric: 0,
        weight: 1,
        table: 0,
        mtu: 0,
        where: { line: 0, column: 0, path: '--inside' },
      });
    }
    if (sides !== null && (sides.inside !== inside || sides.outside !== outside))
      refuse(`--inside: expected prefixes of one port, got ${sides.inside.name} and ${inside.name}`);
    sides = { inside, outside };
  }
  return sides ?? refuse('--inside: expected a prefix, got none');
}

function refuse(message: string): never {
  throw new SidesError(message);
}

/** The port that is meant by "inside" when no route says: the only other one, or the only one called lan or in zone lan. */
function insidePort(config: Config, outside: PortConfig): PortConfig {
  const others = config.ports.filter((port) => port !== outside);
  const called = others.filter((port) => port.name === 'lan');
  const zoned = others.filter((port) => port.zoneName === 'lan');
  for (const list of [others, called, zoned]) if (list.length === 1) return list[0];
  const hint = 'add a route to the inside prefix';
  return refuse(`${config.file}: ports: expected one port besides ${outside.name} or one named lan; ${hint}`);
}

/** What the first reading of the capture found. */
interface Hosts {
  /** MAC of each inside address; '' when it never spoke. */
  inside: Map<string, string>;
  /** MAC of each outside address that is on a link of the outside port. */
  onLink: Map<string, string>;
  outsideMacs: Votes;
}

export class TwoSides {
  /** Frames that have neither side inside, or both, or no IP. */
  skipped = 0;
  /** Frames whose transport checksum was put right. */
  recomputed = 0;
  /** TCP frames longer than the link carries, which were played as the segments they were on the wire. */
  superFrames = 0;
  /** Sentences for people. */
  readonly notes: string[] = [];
  private readonly sides: Sides;
  private readonly cidrs: readonly Cidr[];
  private readonly keepChecksums: boolean;
  private readonly farEnd: FarEnd;
  private readonly hosts: Hosts;
  private readonly config: Config;
  /** Frames that have left each side since the frame in hand entered. */
  private leftInside: Uint8Array[] = [];
  private leftOutside: Uint8Array[] = [];

  /** Reads the capture once, to learn who is where, and rewinds it. `config` has been through findSides(). */
  constructor(config: Config, sides: Sides, cidrs: readonly Cidr[], input: CaptureInput, keepChecksums: boolean) {
    this.config = config;
    this.sides = sides;
    this.cidrs = cidrs;
    this.keepChecksums = keepChecksums;
    this.farEnd = new FarEnd(config, sides.outside.number);
    for (const port of [sides.inside, sides.outside])
      port.mac ??= macValue(`\x02\0\0\0\xff${String.fromCharCode(port.number)}`);
    this.hosts = this.look(input);
  }

  private look(input: CaptureInput): Hosts {
    const hosts: Hosts = { inside: new Map(), onLink: new Map(), outsideMacs: new Votes() };
    while (input.next()) {
      const view = viewPacket(input.frame, ipOffset(input.frame, input.length), input.length);
      if (view === null) continue;
      const mac = usableMac(keyOf(input.frame, 6, 6));
      const source = keyOf(input.frame, sourceAt(view), addressLength(view));
      const destination = keyOf(input.frame, destinationAt(view), addressLength(view));
      if (this.isInside(view, sourceAt(view), input.frame)) {
        if (mac !== '' || !hosts.inside.has(source)) hosts.inside.set(source, hosts.inside.get(source) || mac);
      } else if (this.isInside(view, destinationAt(view), input.frame)) {
        if (!hosts.inside.has(destination)) hosts.inside.set(destination, '');
        if (mac !== '') hosts.outsideMacs.add(mac);
        this.noteOnLink(hosts, source, mac);
        continue;
      }
      if (hosts.inside.has(source)) this.noteOnLink(hosts, destination, '');
    }
    input.rewind();
    return hosts;
  }

  /** An outside address without a gateway in between needs an entry of its own. */
  private noteOnLink(hosts: Hosts, address: string, mac: string): void {
    const family = address.length === 4 ? 4 : 6;
    if (hosts.onLink.get(address) || (mac === '' && hosts.onLink.has(address))) return;
    const way = wayTo(this.config, family, wordsOf(address), family === 4 ? 32 : 128);
    if (way !== null && way.gateway === null && way.port === this.sides.outside.number) hosts.onLink.set(address, mac);
  }

  private isInside(view: PacketView, at: number, u8: Uint8Array): boolean {
    for (const cidr of this.cidrs) {
      if (cidr.family !== view.family) continue;
      let bits = cidr.prefixLength;
      let n = 0;
      while (bits > 0) {
        const mask = bits >= 8 ? 0xff : 0xff00 >> bits;
        const byte = (cidr.words[n >> 2] >> (8 * (n & 3))) & 0xff;
        if (((u8[at + n] ^ byte) & mask & 0xff) !== 0) break;
        bits -= 8;
        n++;
      }
      if (bits <= 0) return true;
    }
    return false;
  }

  /** Gives the router its neighbours. */
  install(router: Router): void {
    const { inside, outside } = this.sides;
    this.neighbours(router, inside.number, this.hosts.inside);
    this.neighbours(router, outside.number, this.hosts.onLink);
    const common = this.hosts.outsideMacs.winner;
    for (const { port, address } of gateways(this.config)) {
      if (isNamed(this.config, port, address.family, address.words)) continue;
      const { lo, hi } = macValue((port === outside.number ? common : null) ?? madeUpGateway(port));
      router.control.setNeighbour(port, address.family, address.words, lo, hi);
    }
  }

  private neighbours(router: Router, port: number, addresses: ReadonlyMap<string, string>): void {
    const count = { 4: 0, 6: 0 };
    let left = 0;
    let n = 0;
    for (const [address, mac] of addresses) {
      n++;
      const family = address.length === 4 ? 4 : 6;
      const words = wordsOf(address);
      if (!isHost(family, words) || isNamed(this.config, port, family, words) || this.isOwn(address)) continue;
      if (count[family]++ >= MAX_LEARNED) {
        left++;
        continue;
      }
      // Invented: 02:00:00:01:NN:NN by the order in which the hosts appear.
      const { lo, hi } = macValue(mac || `\x02\0\0\x01${String.fromCharCode(n >> 8, n & 0xff)}`);
      router.control.setNeighbour(port, family, words, lo, hi);
    }
    if (left > 0)
      this.notes.push(`port ${this.config.ports[port].name}: ${left} hosts more than the neighbour table takes`);
  }

  private isOwn(address: string): boolean {
    const family = address.length === 4 ? 4 : 6;
    return this.config.ports.some((port) =>
      port.addresses.some((own) => own.family === family && keyFromWords(family, own.words) === address),
    );
  }

  /** Plays the input's current frame. */
  play(session: ReplaySession, input: CaptureInput): void {
    const length = untag(input.frame, input.length);
    const view = viewPacket(input.frame, ipOffset(input.frame, length), length);
    const fromInside = view !== null && this.isInside(view, sourceAt(view), input.frame);
    const toInside = view !== null && this.isInside(view, destinationAt(view), input.frame);
    if (view === null || fromInside === toInside) {
      this.skipped++;
      session.advanceTo(input.seconds, input.nanoseconds);
      return;
    }
    const { frame, seconds, nanoseconds } = input;
    const port = fromInside ? this.sides.inside : this.sides.outside;
    const mtu = Math.min(this.sides.inside.mtu, this.sides.outside.mtu);
    const pieces = isSuperFrame(view, mtu) ? cut(frame, view, mtu) : [];
    if (!this.keepChecksums && repairChecksums(frame, view)) this.recomputed++;
    if (pieces.length === 0)
      this.enter(session, port, fromInside, frame.subarray(0, length), view, seconds, nanoseconds);
    else this.superFrames++;
    for (const piece of pieces) {
      const part = viewPacket(piece, view.l3, piece.length);
      if (part !== null) this.enter(session, port, fromInside, piece, part, seconds, nanoseconds);
    }
  }

  private enter(
    session: ReplaySession,
    port: PortConfig,
    fromInside: boolean,
    frame: Uint8Array,
    view: PacketView,
    seconds: number,
    nanoseconds: number,
  ): void {
    address(frame, port);
    this.leftInside = [];
    this.leftOutside = [];
    if (fromInside) {
      this.farEnd.acknowledge(frame, view);
      session.inject(port.number, frame, frame.length, seconds, nanoseconds);
      this.farEnd.sent(frame, view, this.leftOutside);
    } else {
      const captured = this.farEnd.answer(frame, view);
      session.inject(port.number, frame, frame.length, seconds, nanoseconds);
      this.farEnd.received(frame, view, captured, this.leftInside);
    }
  }

  /** To be called with every frame that leaves the router. */
  readonly left = (port: number, u8: Uint8Array, offset: number, length: number): void => {
    const carrier = (side: PortConfig) => (side.parent >= 0 ? side.parent : side.number);
    if (port === carrier(this.sides.inside)) this.leftInside.push(u8.slice(offset, offset + length));
    if (port === carrier(this.sides.outside)) this.leftOutside.push(u8.slice(offset, offset + length));
  };
}

/** A MAC that a host can have, or ''. */
function usableMac(mac: string): string {
  return (mac.charCodeAt(0) & 1) !== 0 || mac === '\0\0\0\0\0\0' || mac === NO_MAC ? '' : mac;
}

/** Removes VLAN tags in place: the tags of the captured link are not those of ours. Returns the length. */
function untag(u8: Uint8Array, length: number): number {
  const l3 = ipOffset(u8, length);
  if (l3 <= 14) return length;
  u8.copyWithin(12, l3 - 2, length);
  return length - (l3 - 14);
}

/** A unicast frame is sent to the port; its source is one that may send. */
function address(u8: Uint8Array, port: PortConfig): void {
  const mac = port.mac;
  if (mac !== null && (u8[0] & 1) === 0)
    for (let n = 0; n < 6; n++) u8[n] = n < 4 ? mac.lo >> (8 * n) : mac.hi >> (8 * (n - 4));
  if (usableMac(keyOf(u8, 6, 6)) === '') for (let n = 0; n < 6; n++) u8[6 + n] = NO_MAC.charCodeAt(n);
}
