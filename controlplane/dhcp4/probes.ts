/**
 * Probes of a DHCP server: before an address is offered that nobody has, it is asked for on the link (RFC 2131 §2.2 and
 * §3.1 (2): the server should probe, for example by an echo request). ARP asks whoever has the address, also hosts that
 * answer no ping; a client behind a relay cannot be asked for so, and declines what it finds taken.
 *
 * Bounded: when more offers wait than MAX_PROBES, further ones are made without a probe.
 */
import { IF_MAC_HI, IF_MAC_LO, type InterfaceTable } from '../../dataplane/interfaces.ts';
import * as arp from '../../dataplane/wire/arp.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';
import { newFrame } from '../neighbour/link.ts';
import type { Action } from '../protocol.ts';

const MAX_PROBES = 512;
/** Milliseconds that an answer may take, and how often is asked in that time. */
const PROBE_TIME = 400;
const ASKS = 2;

interface Probe<T> {
  port: number;
  /** Raw: the address, our own, the client's MAC. */
  address: number;
  source: number;
  mac: { lo: number; hi: number };
  asked: number;
  at: number;
  offer: T;
}

export class Probes<T> {
  private readonly interfaces: InterfaceTable;
  private readonly byAddress = new Map<number, Probe<T>>();

  constructor(interfaces: InterfaceTable) {
    this.interfaces = interfaces;
  }

  get full(): boolean {
    return this.byAddress.size >= MAX_PROBES;
  }

  /** True while the address (raw) is asked for. */
  has(address: number): boolean {
    return this.byAddress.has(address);
  }

  /** Asks for an address; `done` gives the offer back. `mac`: of the client, whose own answer is none. */
  begin(
    now: number,
    port: number,
    address: number,
    source: number,
    mac: { lo: number; hi: number },
    offer: T,
    out: Action[],
  ): void {
    const probe: Probe<T> = { port, address, source, mac, asked: 0, at: now, offer };
    this.byAddress.set(address, probe);
    this.ask(now, probe, out);
  }

  private ask(now: number, probe: Probe<T>, out: Action[]): void {
    const { port, source, address } = probe;
    const w = this.interfaces.words;
    const at = this.interfaces.at(port);
    const frame = newFrame(this.interfaces, port, -1, 0xffff, ethernet.TYPE_ARP, arp.LENGTH);
    const body = frame.length - arp.LENGTH;
    arp.emit(frame, body, arp.REQUEST, w[at + IF_MAC_LO], w[at + IF_MAC_HI], source, 0, 0, address);
    out.push({ kind: 'send', port, frame });
    probe.asked++;
    probe.at = (now + PROBE_TIME / ASKS) | 0;
  }

  /** An ARP message: the offer of an address that somebody else has, which it ends; undefined: it says nothing. */
  heard(port: number, frame: Uint8Array, l3: number): T | undefined {
    if (this.byAddress.size === 0 || !arp.check(frame, l3, frame.length - l3)) return undefined;
    const probe = this.byAddress.get(arp.senderIp(frame, l3));
    if (probe === undefined || probe.port !== port) return undefined;
    if (arp.senderLo(frame, l3) === probe.mac.lo && arp.senderHi(frame, l3) === probe.mac.hi) return undefined;
    this.byAddress.delete(probe.address);
    return probe.offer;
  }

  /** Asks again where it is time; returns the offers that nobody objected to. */
  done(now: number, out: Action[]): T[] {
    const free: T[] = [];
    for (const probe of this.byAddress.values()) {
      if (((probe.at - now) | 0) > 0) continue;
      if (probe.asked < ASKS) this.ask(now, probe, out);
      else {
        this.byAddress.delete(probe.address);
        free.push(probe.offer);
      }
    }
    return free;
  }

  /** Milliseconds until `done` has something to do; −1: nothing. */
  next(now: number): number {
    let next = -1;
    for (const { at } of this.byAddress.values()) {
      const wait = Math.max(0, (at - now) | 0);
      if (next < 0 || wait < next) next = wait;
    }
    return next;
  }
}
