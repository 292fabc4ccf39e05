/**
 * TCP segments of the router's own connections, between bytes and fields (RFC 9293 §3.1).
 *
 * Of the options only the maximum segment size is read and written: without window scale, timestamps and SACK nothing of
 * them is offered, and a peer that offers them must do without (RFC 7323 §2.2, §3.2; RFC 2018 §2).
 */
import type { Family, Words } from '../../dataplane/wire/address.ts';
import { be16, setBe16 } from '../../dataplane/wire/bytes.ts';
import * as tcp from '../../dataplane/wire/tcp.ts';
import { newIpPacket, pseudoOf, readIp } from '../ip-packet.ts';

/** IANA protocol number of TCP. */
export const TCP = 6;
const HOPS = 64;
const MSS_BYTES = 4;

/** Both ends of a connection as the router sees it; addresses raw, ports in host order. */
export interface Ends {
  family: Family;
  us: Words;
  them: Words;
  ourPort: number;
  theirPort: number;
}

export interface Segment extends Ends {
  /** int32. */
  seq: number;
  ack: number;
  flags: number;
  window: number;
  /** Option of a SYN; 0: absent. */
  mss: number;
  /** A view into the frame: valid during the step only. */
  payload: Uint8Array;
}

/** The segment in a punted frame, seen by its receiver; null when there is none that is whole and right. */
export function readSegment(frame: Uint8Array, etherType: number, l3: number): Segment | null {
  const ip = readIp(frame, etherType, l3, TCP);
  if (ip === null) return null;
  const { family, src, dst, l4, end } = ip;
  if (!tcp.check(frame, l4, end - l4)) return null;
  if (!tcp.checksumOk(frame, l4, end, pseudoOf(family, src, dst, TCP, end - l4))) return null;
  const option = tcp.option(frame, l4, tcp.OPTION_MSS, MSS_BYTES);
  return {
    family,
    us: dst,
    them: src,
    ourPort: tcp.dstPort(frame, l4),
    theirPort: tcp.srcPort(frame, l4),
    seq: tcp.seq(frame, l4),
    ack: tcp.ack(frame, l4),
    flags: tcp.flags(frame, l4),
    window: tcp.window(frame, l4),
    mss: option < 0 ? 0 : be16(frame, option + 2),
    payload: frame.subarray(l4 + tcp.headerLength(frame, l4), end),
  };
}

/** Numbers of sequence that a segment takes (RFC 9293 §3.4): SYN and FIN count as one each. */
export function lengthOf({ flags, payload }: Pick<Segment, 'flags' | 'payload'>): number {
  return payload.length + ((flags & tcp.SYN) !== 0 ? 1 : 0) + ((flags & tcp.FIN) !== 0 ? 1 : 0);
}

/** An IP packet with a segment from us to them; `mss` 0: no option. */
export function writeSegment(
  { family, us, them, ourPort, theirPort }: Ends,
  seq: number,
  ack: number,
  flags: number,
  window: number,
  payload: Uint8Array,
  mss = 0,
): Uint8Array {
  const options = mss === 0 ? 0 : MSS_BYTES;
  const length = tcp.HEADER + options + payload.length;
  const { packet, l4 } = newIpPacket(family, us, them, TCP, length, HOPS);
  tcp.emit(packet, l4, ourPort, theirPort, seq, ack, flags, window, options);
  if (mss !== 0) {
    packet[l4 + tcp.HEADER] = tcp.OPTION_MSS;
    packet[l4 + tcp.HEADER + 1] = MSS_BYTES;
    setBe16(packet, l4 + tcp.HEADER + 2, mss);
  }
  packet.set(payload, l4 + tcp.HEADER + options);
  tcp.finish(packet, l4, packet.length, pseudoOf(family, us, them, TCP, length));
  return packet;
}
