/**
 * DHCP relay agent: carries the messages of a LAN's clients to servers elsewhere and back (RFC 1542 §4, RFC 3046).
 *
 * Option 82 names the line that a client is on: the circuit-id (the port, unless configured otherwise) and the remote-id
 * (by default the client's MAC; the DHCPv6 relay's option 37 has the same bytes behind four bytes of an enterprise
 * number, so that a provider can correlate the two). A client that brings an option 82 of its own is not believed
 * (RFC 3046 §2.1.1); a relay below us, which has filled in giaddr, is.
 *
 * Not here: relaying between relays of the router itself, server identifier override (RFC 5107).
 */
import type { InterfaceTable } from '../../dataplane/interfaces.ts';
import { macFromBytes, type Words } from '../../dataplane/wire/address.ts';
import { type Datagram, framed, readUdp, udpPacket } from '../datagram.ts';
import type { Addresses } from '../neighbour/addresses.ts';
import type { Action, Event, Protocol } from '../protocol.ts';
import * as M from './message.ts';

export interface Dhcp4RelayConfig {
  /** Servers, raw. */
  to: number[];
  circuitId: Uint8Array;
  /** `mac`: the client's; `none`: left out. */
  remoteId: 'mac' | 'none' | Uint8Array;
  /** Messages a second. */
  rate: number;
}

/** RFC 1542 §4.1.1. */
const MAX_HOPS = 16;

interface Relay {
  port: number;
  config: Dhcp4RelayConfig;
  second: number;
  count: number;
}

export class Dhcp4Relay implements Protocol {
  readonly name = 'dhcp4-relay';
  readonly counters = { requests: 0, replies: 0, malformed: 0, limited: 0, loops: 0, untrusted: 0, ignored: 0 };
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly relays = new Map<number, Relay>();

  constructor(interfaces: InterfaceTable, addresses: Addresses, ports: ReadonlyMap<number, Dhcp4RelayConfig>) {
    this.interfaces = interfaces;
    this.addresses = addresses;
    for (const [port, config] of ports) this.relays.set(port, { port, config, second: 0, count: 0 });
  }

  step(now: number, event: Event): Action[] {
    if (event.kind !== 'frame') return [];
    const datagram = readUdp(event.frame, event.etherType, event.l3);
    if (datagram === null || datagram.family !== 4 || datagram.dport !== M.SERVER_PORT) return [];
    const relay = this.relays.get(event.port);
    const message = M.readMessage(datagram.payload);
    if (message === null) {
      if (relay !== undefined) this.counters.malformed++;
      return [];
    }
    const out: Action[] = [];
    if (message.op === M.REPLY_OP) this.back(message, datagram, out);
    else if (relay !== undefined && this.admits(now, relay)) this.forth(relay, message, out);
    return out;
  }

  next(): number {
    return -1;
  }

  private admits(now: number, relay: Relay): boolean {
    const second = Math.floor((now >>> 0) / 1000);
    if (second !== relay.second) {
      relay.second = second;
      relay.count = 0;
    }
    if (++relay.count <= relay.config.rate) return true;
    this.counters.limited++;
    return false;
  }

  private forth(relay: Relay, message: M.Dhcp4Message, out: Action[]): void {
    if (message.hops >= MAX_HOPS || (message.giaddr !== 0 && this.ownerOf(message.giaddr) >= 0)) {
      // RFC 3046 §2.1: a request that says it came through us is spoofed, or has come round.
      this.counters.loops++;
      return;
    }
    if (message.giaddr === 0) {
      if (message.options.has(M.OPT_RELAY)) {
        this.counters.untrusted++;
        return;
      }
      const own = this.addresses.ofPort(relay.port).find(({ family }) => family === 4);
      if (own === undefined) {
        this.counters.ignored++;
        return;
      }
      message.giaddr = own.words[0];
      message.options.set(M.OPT_RELAY, this.lineOf(relay, message));
    }
    message.hops++;
    this.counters.requests++;
    const payload = M.writeMessage(message);
    const own = this.addresses.ofPort(relay.port).find(({ family }) => family === 4);
    if (own === undefined) return;
    for (const server of relay.config.to) {
      const packet = udpPacket(4, own.words, [server, 0, 0, 0], M.SERVER_PORT, M.SERVER_PORT, payload);
      out.push({ kind: 'output', packet, port: relay.port });
    }
  }

  private lineOf(relay: Relay, message: M.Dhcp4Message): Uint8Array {
    const { circuitId, remoteId } = relay.config;
    const remote = remoteId === 'mac' ? message.chaddr : remoteId === 'none' ? null : remoteId;
    const bytes = [M.SUB_CIRCUIT, circuitId.length, ...circuitId];
    if (remote !== null) bytes.push(M.SUB_REMOTE, remote.length, ...remote);
    return Uint8Array.from(bytes);
  }

  /** A server's answer: to the client on the port whose address giaddr is, without our option (RFC 3046 §2.1). */
  private back(message: M.Dhcp4Message, datagram: Datagram, out: Action[]): void {
    const port = this.ownerOf(message.giaddr);
    const relay = this.relays.get(port);
    // Only the servers that were asked may answer.
    if (relay === undefined || !relay.config.to.includes(datagram.src[0]) || message.chaddr.length !== 6) {
      this.counters.ignored++;
      return;
    }
    this.counters.replies++;
    const toAll = (message.flags & M.BROADCAST_FLAG) !== 0 || message.yiaddr === 0;
    const from: Words = [message.giaddr, 0, 0, 0];
    message.options.delete(M.OPT_RELAY);
    const payload = M.writeMessage(message);
    const to: Words = toAll ? [-1, 0, 0, 0] : [message.yiaddr, 0, 0, 0];
    const packet = udpPacket(4, from, to, M.SERVER_PORT, M.CLIENT_PORT, payload);
    const mac = toAll ? { lo: -1, hi: 0xffff } : macFromBytes(message.chaddr);
    out.push({ kind: 'send', port, frame: framed(this.interfaces, port, mac.lo, mac.hi, packet) });
  }

  private ownerOf(address: number): number {
    for (const own of this.addresses) if (own.family === 4 && own.words[0] === address) return own.port;
    return -1;
  }
}
