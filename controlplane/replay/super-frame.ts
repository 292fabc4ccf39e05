/**
 * Super-frames: TCP segments longer than the link carries, cut into those that were on the wire.
 *
 * A capture made on a host has what its stack gave to the NIC (TSO) or got from it (GRO): one frame for many. The router
 * would rightly refuse it as too big. Segments get consecutive IPv4 identifiers, as a NIC gives them; FIN and PSH go
 * with the last one, CWR with the first (RFC 3168 §6.1.2 and common practice). Not for UDP, whose length is its own.
 */
import { get16, get32, has, type PacketView, payloadOf, repairChecksums, TCP, viewPacket } from './packet.ts';

const TCP_FIN = 0x01;
const TCP_PSH = 0x08;
const TCP_CWR = 0x80;

/** True when this is a TCP packet, all there, whose IP length exceeds the MTU. */
export function isSuperFrame(view: PacketView, mtu: number): boolean {
  return (
    view.proto === TCP &&
    view.whole &&
    view.fragment === 'none' &&
    !view.routed &&
    has(view, 20) &&
    view.end - view.l3 > mtu
  );
}

/**
 * Cuts a super-frame into frames whose IP packets are `mtu` long at most, checksums right.
 *
 * @param u8, view the frame; its IP header begins at view.l3   @returns fresh frames, or none when it has no payload
 */
export function cut(u8: Uint8Array, view: PacketView, mtu: number): Uint8Array[] {
  const payload = payloadOf(u8, view);
  if (payload === null) return [];
  const headers = payload.from - view.l3;
  const most = mtu - headers;
  if (most < 1) return [];
  const frames: Uint8Array[] = [];
  const sequence = get32(u8, view.l4 + 4);
  const flags = u8[view.l4 + 13];
  for (let at = payload.from; at < payload.to; at += most) {
    const size = Math.min(most, payload.to - at);
    const frame = new Uint8Array(payload.from + size);
    frame.set(u8.subarray(0, payload.from));
    frame.set(u8.subarray(at, at + size), payload.from);
    const l4 = view.l4;
    if (view.family === 4) {
      put16(frame, view.l3 + 2, headers + size);
      put16(frame, view.l3 + 4, get16(u8, view.l3 + 4) + frames.length);
      put16(frame, view.l3 + 10, 0); // repaired below
    } else put16(frame, view.l3 + 4, headers - 40 + size);
    const seq = (sequence + at - payload.from) | 0;
    put16(frame, l4 + 4, seq >>> 16);
    put16(frame, l4 + 6, seq);
    frame[l4 + 13] = flags & ~(at > payload.from ? TCP_CWR : 0);
    if (at + size < payload.to) frame[l4 + 13] &= ~(TCP_FIN | TCP_PSH);
    const cutView = viewPacket(frame, view.l3, frame.length);
    if (cutView !== null) repairChecksums(frame, cutView);
    frames.push(frame);
  }
  return frames;
}

function put16(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >> 8;
  u8[at + 1] = value;
}
