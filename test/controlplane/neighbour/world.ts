/**
 * A router without a data path for the tests in this folder: tables, address book, ARP, ND and echo under a virtual
 * clock, stepped exactly when they ask for it.
 *
 *   port 0: 10.0.0.1/24, fe80::1/64, 2001:db8::1/64     MAC 02:00:00:00:01:00
 *   port 1: 10.0.1.1/24, fe80::1/64, 2001:db8:1::1/64   MAC 02:00:00:00:01:01
 */
import { expect } from 'vitest';
import { Echo } from '../../../controlplane/echo.ts';
import { Addresses } from '../../../controlplane/neighbour/addresses.ts';
import { Arp } from '../../../controlplane/neighbour/arp.ts';
import { Nd, type NdOptions } from '../../../controlplane/neighbour/nd.ts';
import type { Event, Protocol } from '../../../controlplane/protocol.ts';
import {
  IF_FLAGS,
  IF_MAC_HI,
  IF_MAC_LO,
  IF_MTU,
  IF_VLAN,
  IFF_PRESENT,
  IFF_UP,
  InterfaceTable,
} from '../../../dataplane/interfaces.ts';
import {
  NEIGH_FLAGS,
  NEIGH_GEN,
  NEIGH_MAC_HI,
  NEIGH_MAC_LO,
  NeighbourTable,
  NTF_ROUTER,
  NUD_DELAY,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
} from '../../../dataplane/neighbours.ts';
import { formatMac, parseAddress, parseCidr, parseMac, type Words } from '../../../dataplane/wire/address.ts';
import * as build from '../../lib/build.ts';

export const MACS = ['02:00:00:00:01:00', '02:00:00:00:01:01'];
export const HOST = '02:00:00:00:00:0a';
export const OTHER = '02:00:00:00:00:0b';

const STATE_NAMES: Record<number, string> = {
  [NUD_INCOMPLETE]: 'INCOMPLETE',
  [NUD_REACHABLE]: 'REACHABLE',
  [NUD_STALE]: 'STALE',
  [NUD_DELAY]: 'DELAY',
  [NUD_PROBE]: 'PROBE',
  [NUD_FAILED]: 'FAILED',
  [NUD_PERMANENT]: 'PERMANENT',
};

export function words(text: string): Words {
  return parseAddress(text)!.words;
}

export interface Sent {
  at: number;
  port: number;
  frame: Uint8Array;
}

export class World {
  now: number;
  readonly neighbours: NeighbourTable;
  readonly interfaces = new InterfaceTable(new SharedArrayBuffer(InterfaceTable.bytes()));
  readonly addresses = new Addresses();
  readonly arp: Arp;
  readonly nd: Nd;
  readonly echo: Echo;
  readonly protocols: Protocol[];
  /** Frames sent, packets put out and lines logged since the last `take`. */
  sent: Sent[] = [];
  output: Uint8Array[] = [];
  logs: string[] = [];

  constructor(options: NdOptions & { capacity?: number; start?: number } = {}) {
    this.now = options.start ?? 1000;
    this.neighbours = new NeighbourTable(new SharedArrayBuffer(NeighbourTable.bytes(options.capacity ?? 256)));
    for (const [port, text] of MACS.entries()) {
      const at = this.interfaces.at(port);
      const mac = parseMac(text)!;
      this.interfaces.words[at + IF_FLAGS] = IFF_PRESENT | IFF_UP;
      this.interfaces.words[at + IF_MAC_LO] = mac.lo;
      this.interfaces.words[at + IF_MAC_HI] = mac.hi;
      this.interfaces.words[at + IF_MTU] = 1500;
    }
    this.own(0, '10.0.0.1/24', 'fe80::1/64', '2001:db8::1/64');
    this.own(1, '10.0.1.1/24', 'fe80::1/64', '2001:db8:1::1/64');
    this.arp = new Arp(this.neighbours, this.interfaces, this.addresses, options);
    this.nd = new Nd(this.neighbours, this.interfaces, this.addresses, options);
    this.echo = new Echo(this.addresses, 41);
    this.protocols = [this.arp, this.nd, this.echo];
    this.advance(0);
  }

  own(port: number, ...cidrs: string[]): void {
    for (const text of cidrs) {
      const c = parseCidr(text)!;
      this.addresses.add(port, c.family, c.words, c.prefixLength);
    }
  }

  setVlan(port: number, vlan: number): void {
    this.interfaces.words[this.interfaces.at(port) + IF_VLAN] = vlan;
  }

  step(event: Event): void {
    for (const protocol of this.protocols) this.stepOne(protocol, event);
  }

  private stepOne(protocol: Protocol, event: Event): void {
    for (const action of protocol.step(this.now | 0, event)) {
      if (action.kind === 'send') {
        // Whatever leaves must be accepted by an independent checker.
        expect(build.verify(action.frame)).toEqual([]);
        this.sent.push({ at: this.now, port: action.port, frame: action.frame });
      } else if (action.kind === 'output') this.output.push(action.packet);
      else if (action.kind === 'log') this.logs.push(action.message);
    }
  }

  /** A frame from the wire. The protocols may not keep it: it is overwritten afterwards. */
  frame(port: number, frame: Uint8Array): void {
    const copy = frame.slice();
    let l3 = 14;
    while (l3 + 2 <= copy.length && build.get16(copy, l3 - 2) === 0x8100) l3 += 4;
    const etherType = copy.length >= l3 ? build.get16(copy, l3 - 2) : 0;
    this.step({ kind: 'frame', port, frame: copy, etherType, l3 });
    copy.fill(0xa5);
  }

  resolve(port: number, address: string): void {
    const a = parseAddress(address)!;
    this.step({ kind: 'resolve', port, family: a.family, address: a.words });
  }

  use(port: number, address: string): void {
    this.step({ kind: 'used', neighbour: this.record(port, address) });
  }

  link(port: number, up: boolean): void {
    const at = this.interfaces.at(port);
    this.interfaces.words[at + IF_FLAGS] = up ? IFF_PRESENT | IFF_UP : IFF_PRESENT;
    this.step({ kind: 'link', port, up });
  }

  /** Lets time pass; every protocol gets its ticks at the millisecond that it asked for. */
  advance(milliseconds: number): void {
    const end = this.now + milliseconds;
    for (let turns = 0; ; turns++) {
      if (turns > 100_000) throw new Error('advance: expected the protocols to wait, got endless ticks');
      let soonest = -1;
      for (const p of this.protocols) {
        const next = p.next(this.now | 0);
        if (next >= 0 && (soonest < 0 || next < soonest)) soonest = next;
      }
      if (soonest < 0 || this.now + soonest > end) break;
      this.now += soonest;
      for (const p of this.protocols) if (p.next(this.now | 0) === 0) this.stepOne(p, { kind: 'tick' });
    }
    this.now = end;
  }

  record(port: number, address: string): number {
    const a = parseAddress(address)!;
    return this.neighbours.find(port, a.family, a.words[0], a.words[1], a.words[2], a.words[3]);
  }

  /** `STALE 02:00:00:00:00:0a`, with ` router` behind it; `none` when there is no entry. */
  entry(port: number, address: string): string {
    const n = this.record(port, address);
    if (n < 0) return 'none';
    const w = this.neighbours.words;
    const at = this.neighbours.at(n);
    const state = STATE_NAMES[w[at]];
    const mac =
      w[at + NEIGH_MAC_LO] | w[at + NEIGH_MAC_HI] ? ` ${formatMac(w[at + NEIGH_MAC_LO], w[at + NEIGH_MAC_HI])}` : '';
    return `${state}${mac}${w[at + NEIGH_FLAGS] & NTF_ROUTER ? ' router' : ''}`;
  }

  generation(port: number, address: string): number {
    return this.neighbours.words[this.neighbours.at(this.record(port, address)) + NEIGH_GEN];
  }

  /** What was sent since the last call. */
  take(): Sent[] {
    const sent = this.sent;
    this.sent = [];
    return sent;
  }
}

/** An ARP frame, broadcast when it is a request, unless `to` says otherwise. */
export function arpFrame(o: {
  op: 'request' | 'reply';
  mac?: string;
  from: string;
  target: string;
  to?: string;
  vlan?: number;
}): Uint8Array {
  const src = o.mac ?? HOST;
  const dst = o.to ?? (o.op === 'request' ? 'ff:ff:ff:ff:ff:ff' : MACS[0]);
  return build.ethernet(
    { src, dst, type: 0x0806, vlan: o.vlan },
    build.arp({ op: o.op, sha: src, spa: o.from, tpa: o.target }),
  );
}

export interface NdFrame {
  type?: number;
  mac?: string;
  to?: string;
  src?: string;
  dst?: string;
  target?: string;
  /** Link-layer address option; null: none. */
  option?: string | null;
  /** RSO letters. */
  flags?: string;
  hop?: number;
  ext?: readonly build.Extension[];
}

/** A neighbor solicitation of HOST (fe80::a) for fe80::1 unless told otherwise. */
export function solicitation(o: NdFrame = {}): Uint8Array {
  return ndFrame({ type: 135, dst: 'ff02::1:ff00:1', ...o });
}

/** A neighbor advertisement of HOST for fe80::a, solicited and overriding, to fe80::1, unless told otherwise. */
export function advertisement(o: NdFrame = {}): Uint8Array {
  return ndFrame({ type: 136, dst: 'fe80::1', target: 'fe80::a', flags: 'SO', ...o });
}

export function ndFrame(o: NdFrame): Uint8Array {
  const mac = o.mac ?? HOST;
  const flags = o.flags ?? '';
  const bits = (flags.includes('R') ? 0x80 : 0) | (flags.includes('S') ? 0x40 : 0) | (flags.includes('O') ? 0x20 : 0);
  const option = o.option === undefined ? mac : o.option;
  const source = o.type === 136 ? 2 : 1;
  const body = build.concat(
    o.type === 133 ? new Uint8Array(0) : o.type === 134 ? new Uint8Array(8) : build.ip(o.target ?? 'fe80::1'),
    option === null ? new Uint8Array(0) : build.concat(Uint8Array.of(source, 1), build.mac(option)),
  );
  return build.ethernet(
    { src: mac, dst: o.to ?? MACS[0] },
    build.ipv6(
      { src: o.src ?? 'fe80::a', dst: o.dst ?? 'fe80::1', hop: o.hop ?? 255, ext: o.ext },
      build.icmpv6({ type: o.type ?? 135, rest: bits << 24 }, body),
    ),
  );
}
