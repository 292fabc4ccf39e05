/**
 * Far end: the hosts around the router, when one capture that has both sides is played through it.
 *
 * The capture was made without our translation, so its hosts answer to addresses, ports, call IDs and sequence numbers
 * that never left the router. For every packet from inside this compares what entered with what left (`sent`), and
 * rewrites what the outside says next accordingly (`answer`): destination, ICMP identifiers and quotes, call IDs, ACK and
 * SACK. Payload stays, save the call IDs. Connections that the outside opens go to what was announced to it:
 *
 *   the flow's own translation, else what a payload announced for that endpoint, else what the endpoint has used towards
 *   others, else a port forward's public side, else the address that the host has used or would use, with the same port
 *
 * Endpoints are keyed by the bytes of their addresses. Where nothing is translated, all of it is the identity.
 */
import { inPrefix } from '../../dataplane/wire/address.ts';
import type { Config } from '../config/index.ts';
import { announcements, binaryPlaces, pptpCallIds } from './announced.ts';
import { keyFromWords } from './learn.ts';
import {
  addressLength,
  destinationAt,
  GRE,
  get16,
  get32,
  has,
  hasPorts,
  ICMP,
  ICMPV6,
  ipOffset,
  PacketEdit,
  type PacketView,
  payloadOf,
  sourceAt,
  TCP,
  viewPacket,
} from './packet.ts';
import { bytesOf, keyOf, wordsOf } from './routing.ts';
import { SequenceMap } from './sequence.ts';

/** An address (key) and a port, identifier or call ID. */
export interface Endpoint {
  address: string;
  port: number;
}

/** A conversation as the capture has it, and how it looks outside. */
interface Flow {
  inside: Endpoint;
  outside: Endpoint;
  /** When this was learned, in learnings: the newer of a flow and an announcement decides about a new connection. */
  learned: number;
  /** Streams from inside and from outside. */
  fromInside: SequenceMap;
  fromOutside: SequenceMap;
}

/** Source and destination of a packet as conversations know them. */
export interface Tuple {
  proto: number;
  source: Endpoint;
  destination: Endpoint;
}

const TCP_FIN = 1;
const TCP_SYN = 2;
const TCP_ACK = 16;
const PPTP_PORT = 1723;

/** Fragmented datagrams remembered, so that later fragments follow their first. */
const MAX_DATAGRAMS = 1024;

export class FarEnd {
  private readonly config: Config;
  private readonly outsidePort: number;
  private readonly flows = new Map<string, Flow>();
  /** What an inside endpoint has used last, and an inside host. */
  private readonly endpoints = new Map<string, Endpoint>();
  private readonly hosts = new Map<string, string>();
  private readonly announced = new Map<string, Endpoint & { learned: number }>();
  /** Call IDs as they left, by inside host, outside host and captured ID. */
  private readonly calls = new Map<string, number>();
  /** Tuples of datagrams whose first fragment was seen. */
  private readonly datagrams = new Map<string, Tuple>();
  /** Ports of control connections, whose payload is read even when it left unchanged. */
  private readonly controlPorts = new Set<number>();
  private learnings = 0;

  constructor(config: Config, outsidePort: number) {
    this.config = config;
    this.outsidePort = outsidePort;
    for (const alg of Object.values(config.alg)) for (const port of alg.ports) this.controlPorts.add(port);
  }

  // --- from inside -----------------------------------------------------------------------------------------------------

  /** Before a packet from inside enters: its acknowledgements follow what really reached the inside. */
  acknowledge(u8: Uint8Array, view: PacketView): void {
    if (view.proto !== TCP || !has(view, 20) || view.fragment === 'later') return;
    const tuple = this.tupleOf(u8, view);
    const flow = tuple === null ? undefined : this.flows.get(keyOfFlow(tuple.proto, tuple.source, tuple.destination));
    if (flow === undefined || flow.fromOutside.empty) return;
    const edit = new PacketEdit(u8, view);
    mapAcknowledgements(edit, flow.fromOutside);
    edit.finish();
  }

  /**
   * A packet from inside has entered, and these frames have left on the outside port because of it.
   *
   * @param u8, view the packet as it entered   @param left frames as they left, without VLAN interpretation
   */
  sent(u8: Uint8Array, view: PacketView, left: readonly Uint8Array[]): void {
    const before = this.tupleOf(u8, view);
    if (before === null) return;
    const after = this.matching(left, before.proto);
    if (after.length === 0) return;
    const first = after[0];
    const seen = this.tupleOf(first.u8, first.view);
    if (seen === null) return;
    const flow = this.learnFlow(before, seen);
    if (view.proto === TCP && view.fragment === 'none') followStream(flow.fromInside, u8, view, after);
    this.readPayload(u8, view, after, before, seen);
  }

  /** A packet from outside has entered, and these frames have left on the inside port because of it. */
  received(u8: Uint8Array, view: PacketView, captured: Tuple | null, left: readonly Uint8Array[]): void {
    if (captured === null || view.proto !== TCP || view.fragment !== 'none') return;
    const after = this.matching(left, TCP);
    if (after.length === 0) return;
    const key = keyOfFlow(TCP, captured.destination, captured.source);
    let flow = this.flows.get(key);
    if (flow === undefined) {
      // Opened by the outside: how the inside will look is known as soon as it answers; until then, as it was addressed.
      const addressed = this.tupleOf(u8, view);
      flow = newFlow(addressed?.destination ?? captured.destination, addressed?.source ?? captured.source);
      flow.learned = ++this.learnings;
      this.flows.set(key, flow);
    }
    followStream(flow.fromOutside, u8, view, after);
  }

  /** The frames among those that left that carry the same protocol, read. */
  private matching(left: readonly Uint8Array[], proto: number): { u8: Uint8Array; view: PacketView }[] {
    const found: { u8: Uint8Array; view: PacketView }[] = [];
    for (const u8 of left) {
      const view = viewPacket(u8, ipOffset(u8, u8.length), u8.length);
      if (view !== null && view.proto === proto && view.fragment !== 'later') found.push({ u8, view });
    }
    return found;
  }

  private learnFlow(before: Tuple, after: Tuple): Flow {
    const key = keyOfFlow(before.proto, before.source, before.destination);
    let flow = this.flows.get(key);
    if (flow === undefined) {
      flow = newFlow(after.source, after.destination);
      this.flows.set(key, flow);
    } else {
      flow.inside = after.source;
      flow.outside = after.destination;
    }
    flow.learned = ++this.learnings;
    this.endpoints.set(keyOfEndpoint(before.proto, before.source), after.source);
    this.hosts.set(before.source.address, after.source.address);
    return flow;
  }

  /** What the payload announces: pairs of endpoints as they were written and as they left, and call IDs. */
  private readPayload(
    u8: Uint8Array,
    view: PacketView,
    after: readonly { u8: Uint8Array; view: PacketView }[],
    before: Tuple,
    seen: Tuple,
  ): void {
    const range = view.fragment === 'none' ? payloadOf(u8, view) : null;
    if (range === null || range.from === range.to) return;
    const payload = u8.subarray(range.from, range.to);
    const parts = after.map((frame) => {
      const part = payloadOf(frame.u8, frame.view);
      return part === null ? new Uint8Array(0) : frame.u8.subarray(part.from, part.to);
    });
    const real = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    const control = this.controlPorts.has(before.source.port) || this.controlPorts.has(before.destination.port);
    const changed = payload.length !== real.length || payload.some((byte, n) => byte !== real[n]);
    if (!control && !changed) return;
    if (before.source.port === PPTP_PORT || before.destination.port === PPTP_PORT) {
      const ids = pptpCallIds(payload);
      if (ids !== null && ids.own >= 0 && pptpCallIds(real) !== null)
        this.calls.set(
          keyOfCall(before.source.address, before.destination.address, get16(payload, ids.own)),
          get16(real, ids.own),
        );
      return;
    }
    const written = announcements(latin1(payload));
    const told = announcements(latin1(real));
    if (written.length === told.length)
      written.forEach((one, n) => {
        const inside = one.address === null ? before.source.address : keyOf(one.address, 0, one.address.length);
        const { address } = told[n];
        const outside = address === null ? seen.source.address : keyOf(address, 0, address.length);
        for (let k = 0; k < one.ports; k++)
          this.announce({ address: inside, port: one.port + k }, { address: outside, port: told[n].port + k });
      });
    if (!changed || payload.length !== real.length) return;
    for (const at of binaryPlaces(payload, bytesOf(before.source.address))) {
      const size = before.source.address.length;
      this.announce(
        { address: before.source.address, port: get16(payload, at + size) },
        { address: keyOf(real, at, size), port: get16(real, at + size) },
      );
    }
  }

  private announce(inside: Endpoint, outside: Endpoint): void {
    this.announced.set(keyOfEndpoint(0, inside), { ...outside, learned: ++this.learnings });
  }

  // --- from outside ----------------------------------------------------------------------------------------------------

  /**
   * Rewrites a packet from outside, as a host would have sent it that knows only what left the router.
   *
   * @returns its tuple as it was captured, for received()
   */
  answer(u8: Uint8Array, view: PacketView): Tuple | null {
    const edit = new PacketEdit(u8, view);
    if (isIcmpError(u8, view)) {
      this.answerError(edit);
      edit.finish();
      return null;
    }
    const tuple = this.tupleOf(u8, view);
    if (tuple === null) {
      // A later fragment whose first was not seen, or a cut header: the address alone.
      const host = keyOf(u8, destinationAt(view), addressLength(view));
      edit.setDestination(bytesOf(this.addressOf(host)));
      edit.finish();
      return null;
    }
    const flow = this.flowOfAnswer(u8, view, tuple);
    const to = flow?.inside ?? this.destinationOf(tuple);
    edit.setDestination(bytesOf(to.address));
    if (flow !== undefined) edit.setSource(bytesOf(flow.outside.address));
    if (view.fragment !== 'later') {
      if (hasPorts(tuple.proto)) {
        edit.set16(view.l4 + 2, to.port);
        if (flow !== undefined) edit.set16(view.l4, flow.outside.port);
      } else if (isQuery(tuple.proto) && tuple.destination.port !== to.port) edit.set16(view.l4 + 4, to.port);
      else if (tuple.proto === GRE) this.answerGre(edit, tuple);
    }
    if (tuple.proto === TCP && view.fragment === 'none') {
      if (flow !== undefined) mapAcknowledgements(edit, flow.fromInside);
      if (tuple.source.port === PPTP_PORT || tuple.destination.port === PPTP_PORT) this.answerPptp(edit, tuple);
    }
    edit.finish();
    return tuple;
  }

  /** The flow that a packet from outside belongs to; a SYN after a newer announcement opens another connection. */
  private flowOfAnswer(u8: Uint8Array, view: PacketView, tuple: Tuple): Flow | undefined {
    const key = keyOfFlow(tuple.proto, tuple.destination, tuple.source);
    const flow = this.flows.get(key);
    if (flow === undefined || tuple.proto !== TCP || !has(view, 20)) return flow;
    const opens = (u8[view.l4 + 13] & (TCP_SYN | TCP_ACK)) === TCP_SYN;
    const announced = opens ? this.announced.get(keyOfEndpoint(0, tuple.destination)) : undefined;
    if (announced === undefined || announced.learned < flow.learned) return flow;
    this.flows.delete(key);
    return undefined;
  }

  /** Enhanced GRE carries the receiver's call ID (RFC 2637 §4.1). */
  private answerGre(edit: PacketEdit, tuple: Tuple): void {
    const { u8, view } = edit;
    if (!isEnhancedGre(u8, view)) return;
    const call = this.calls.get(keyOfCall(tuple.destination.address, tuple.source.address, get16(u8, view.l4 + 6)));
    if (call !== undefined) edit.set16(view.l4 + 6, call);
  }

  private answerPptp(edit: PacketEdit, tuple: Tuple): void {
    const range = payloadOf(edit.u8, edit.view);
    if (range === null) return;
    const ids = pptpCallIds(edit.u8.subarray(range.from, range.to));
    if (ids === null || ids.peer < 0) return;
    const at = range.from + ids.peer;
    const call = this.calls.get(keyOfCall(tuple.destination.address, tuple.source.address, get16(edit.u8, at)));
    if (call !== undefined) edit.set16(at, call);
  }

  /** An ICMP error quotes what its sender received: the translated packet. */
  private answerError(edit: PacketEdit): void {
    const { u8, view } = edit;
    const quoted = viewPacket(u8, view.l4 + 8, view.end);
    const tuple = quoted === null ? null : this.tupleOf(u8, quoted);
    const flow = tuple === null ? undefined : this.flows.get(keyOfFlow(tuple.proto, tuple.source, tuple.destination));
    const host = keyOf(u8, destinationAt(view), addressLength(view));
    if (quoted === null || tuple === null || flow === undefined) {
      edit.setDestination(bytesOf(this.addressOf(host)));
      return;
    }
    // To the sender of the quoted packet, as it looked outside; a packet to another host keeps its own way.
    const inside = tuple.source.address === host ? flow.inside.address : this.addressOf(host);
    edit.setDestination(bytesOf(inside));
    const inner = new PacketEdit(u8, quoted, edit);
    inner.setSource(bytesOf(flow.inside.address));
    inner.setDestination(bytesOf(flow.outside.address));
    if (hasPorts(quoted.proto)) {
      inner.set16(quoted.l4, flow.inside.port);
      inner.set16(quoted.l4 + 2, flow.outside.port);
      if (quoted.proto === TCP && has(quoted, 8))
        inner.set32(quoted.l4 + 4, flow.fromInside.map(get32(u8, quoted.l4 + 4)));
    } else if (isQuery(quoted.proto) && has(quoted, 6) && tuple.source.port !== flow.inside.port)
      inner.set16(quoted.l4 + 4, flow.inside.port);
    inner.finish();
  }

  /** Where an endpoint outside would send what opens a conversation with an inside endpoint. */
  private destinationOf(tuple: Tuple): Endpoint {
    const { proto, destination } = tuple;
    if (!hasPorts(proto)) return { address: this.addressOf(destination.address), port: destination.port };
    return (
      this.announced.get(keyOfEndpoint(0, destination)) ??
      this.endpoints.get(keyOfEndpoint(proto, destination)) ??
      this.forwarded(proto, destination) ?? {
        address: this.addressOf(destination.address),
        port: destination.port,
      }
    );
  }

  /** The public side of a port forward to this endpoint. */
  private forwarded(proto: number, inside: Endpoint): Endpoint | null {
    const family = inside.address.length === 4 ? 4 : 6;
    for (const entry of this.config.nat.forward) {
      if (entry.to.family !== family || keyFromWords(family, entry.to.words) !== inside.address) continue;
      if (!entry.protocols.includes(proto) || !entry.in.ports.includes(this.outsidePort)) continue;
      if (entry.port === null) return { address: this.ownAddress(family) ?? inside.address, port: inside.port };
      const [low, high] = entry.toPort ?? entry.port;
      if (inside.port < low || inside.port > high) continue;
      return { address: this.ownAddress(family) ?? inside.address, port: entry.port[0] + inside.port - low };
    }
    return null;
  }

  /** What an inside host is called outside: what it has used, or what masquerading would make of it. */
  private addressOf(host: string): string {
    const used = this.hosts.get(host);
    if (used !== undefined) return used;
    const family = host.length === 4 ? 4 : 6;
    const words = wordsOf(host);
    for (const entry of this.config.nat.masquerade) {
      if (entry.family !== family || !entry.out.ports.includes(this.outsidePort)) continue;
      if (entry.from.length > 0 && !entry.from.some((prefix) => prefix.family === family && inPrefix(words, prefix)))
        continue;
      if (entry.to !== null) return keyFromWords(family, entry.to.words);
      return this.ownAddress(family) ?? host;
    }
    return host;
  }

  private ownAddress(family: 4 | 6): string | null {
    const own = this.config.ports[this.outsidePort].addresses.find((address) => address.family === family);
    return own === undefined ? null : keyFromWords(family, own.words);
  }

  // --- tuples ----------------------------------------------------------------------------------------------------------

  /** Both endpoints of a packet; null when its transport header is not there and its datagram is unknown. */
  private tupleOf(u8: Uint8Array, view: PacketView): Tuple | null {
    const size = addressLength(view);
    const source = keyOf(u8, sourceAt(view), size);
    const destination = keyOf(u8, destinationAt(view), size);
    const datagram =
      view.fragment === 'none' ? '' : `${view.proto} ${view.id} ${source.length} ${source}${destination}`;
    if (view.fragment === 'later') return this.datagrams.get(datagram) ?? null;
    const tuple: Tuple = {
      proto: view.proto,
      source: { address: source, port: 0 },
      destination: { address: destination, port: 0 },
    };
    if (hasPorts(view.proto)) {
      if (!has(view, 4)) return null;
      tuple.source.port = get16(u8, view.l4);
      tuple.destination.port = get16(u8, view.l4 + 2);
    } else if (isQuery(view.proto)) {
      if (!has(view, 6)) return null;
      const asker = askerOf(view.proto, u8[view.l4]);
      if (asker === 0) return tuple;
      // A query of the same identifier by the other side is another conversation.
      tuple[asker === 1 ? 'source' : 'destination'].port = get16(u8, view.l4 + 4);
      tuple[asker === 1 ? 'destination' : 'source'].port = -1;
    }
    if (datagram !== '') {
      if (this.datagrams.size >= MAX_DATAGRAMS) this.datagrams.delete(this.datagrams.keys().next().value!);
      this.datagrams.set(datagram, tuple);
    }
    return tuple;
  }
}

function newFlow(inside: Endpoint, outside: Endpoint): Flow {
  return { inside, outside, learned: 0, fromInside: new SequenceMap(), fromOutside: new SequenceMap() };
}

function keyOfEndpoint(proto: number, endpoint: Endpoint): string {
  return `${proto} ${endpoint.port} ${endpoint.address}`;
}

/** A conversation, named from inside. Addresses of a family have one length, so that two in a row are unambiguous. */
function keyOfFlow(proto: number, inside: Endpoint, outside: Endpoint): string {
  return `${proto} ${inside.port} ${outside.port} ${inside.address}${outside.address}`;
}

function keyOfCall(inside: string, outside: string, call: number): string {
  return `${call} ${inside}${outside}`;
}

function isQuery(proto: number): boolean {
  return proto === ICMP || proto === ICMPV6;
}

/** Who asked: 1 the packet is a query, 2 it is the answer to one, 0 neither. Echo, timestamp, information, mask. */
function askerOf(proto: number, type: number): number {
  if (proto === ICMPV6) return type === 128 ? 1 : type === 129 ? 2 : 0;
  if (type === 8 || type === 13 || type === 15 || type === 17) return 1;
  return type === 0 || type === 14 || type === 16 || type === 18 ? 2 : 0;
}

function isIcmpError(u8: Uint8Array, view: PacketView): boolean {
  if (!isQuery(view.proto) || view.fragment !== 'none' || !has(view, 8)) return false;
  const type = u8[view.l4];
  return view.proto === ICMPV6 ? type < 128 : type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
}

/** Version 1, protocol PPP, with a key. */
function isEnhancedGre(u8: Uint8Array, view: PacketView): boolean {
  return has(view, 8) && (u8[view.l4 + 1] & 7) === 1 && (u8[view.l4] & 0x20) !== 0 && get16(u8, view.l4 + 2) === 0x880b;
}

/** Notes where a segment went: its first byte, and the byte behind its last (SYN and FIN count as one each). */
function followStream(
  map: SequenceMap,
  u8: Uint8Array,
  view: PacketView,
  after: readonly { u8: Uint8Array; view: PacketView }[],
): void {
  const payload = payloadOf(u8, view);
  if (payload === null) return;
  const flags = u8[view.l4 + 13];
  if ((flags & TCP_SYN) !== 0) map.reset();
  const marks = ((flags & TCP_SYN) !== 0 ? 1 : 0) + ((flags & TCP_FIN) !== 0 ? 1 : 0);
  let length = 0;
  for (const frame of after) {
    const part = payloadOf(frame.u8, frame.view);
    if (part === null || frame.view.fragment !== 'none') return;
    length += part.to - part.from;
  }
  const begin = get32(u8, view.l4 + 4);
  const left = get32(after[0].u8, after[0].view.l4 + 4);
  map.note(begin, left);
  map.note((begin + payload.to - payload.from + marks) | 0, (left + length + marks) | 0);
}

/** ACK and the edges of SACK blocks (RFC 2018) as the stream really went. */
function mapAcknowledgements(edit: PacketEdit, map: SequenceMap): void {
  const { u8, view } = edit;
  if (map.empty || !has(view, 20) || (u8[view.l4 + 13] & TCP_ACK) === 0) return;
  edit.set32(view.l4 + 8, map.map(get32(u8, view.l4 + 8)));
  const end = Math.min(view.end, view.l4 + (u8[view.l4 + 12] >> 4) * 4);
  let at = view.l4 + 20;
  while (at + 1 < end && u8[at] !== 0) {
    const length = u8[at] === 1 ? 1 : u8[at + 1];
    if (length < 1 || at + length > end) return;
    if (u8[at] === 5)
      for (let edge = at + 2; edge + 4 <= at + length; edge += 4) edit.set32(edge, map.map(get32(u8, edge)));
    at += length;
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}
