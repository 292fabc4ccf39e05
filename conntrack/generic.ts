/**
 * What all protocol trackers share (verdicts, their reasons, the deadline), and the tracker for protocols that have
 * none of their own: AH, IPIP, 6in4, OSPF, DCCP and the rest are told apart by their addresses alone and live for
 * ten minutes after the last packet.
 *
 * A tracker is called with the connection's own lock held. It changes the record's protocol words, IPS_ASSURED and
 * the deadline; IPS_SEEN_REPLY, the hash and the counters belong to the caller.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { CT_DEADLINE, CT_STATUS, IPS_ASSURED, IPS_FIXED_TIMEOUT } from './record.ts';
import { CFG_GENERIC } from './timeouts.ts';

/** The packet belongs to the connection; its state was brought up to date. */
export const TRACK_ACCEPT = 0;
/** The packet fits no state or window: CT_INVALID, never translated. Nothing that matters was changed. */
export const TRACK_INVALID = 1;
/** The packet passes with the connection, but the state and the deadline stay as they are. */
export const TRACK_IGNORE = 2;
/** The connection is over and the packet opens the next one: delete the connection, look up again. */
export const TRACK_REPEAT = 3;
/** Drop the packet. (No tracker says so today; a caller that fails to delete on REPEAT does.) */
export const TRACK_DROP = 4;
/** The packet passes, translated as usual, and is the connection's last: delete the connection now. */
export const TRACK_ACCEPT_LAST = 5;
/** The packet is never tracked (neighbour discovery, MLD): CT_UNTRACKED. */
export const TRACK_UNTRACKED = 6;

/** Why: numbers for `Packet.detail`. Those up to 31 are the trackers'. */
export const WHY_NONE = 0;
export const WHY_CHECKSUM = 1;
export const WHY_TRUNCATED = 2;
export const WHY_TCP_FLAGS = 3;
export const WHY_TCP_NEW = 4;
export const WHY_TCP_NOT_LOOSE = 5;
export const WHY_TCP_STATE = 6;
export const WHY_TCP_IGNORED = 7;
export const WHY_TCP_CHALLENGE_ACK = 8;
export const WHY_TCP_RST_OUTSIDE = 9;
export const WHY_TCP_RST_INEXACT = 10;
export const WHY_TCP_SEQ_ABOVE = 11;
export const WHY_TCP_SEQ_BELOW = 12;
export const WHY_TCP_ACK_ABOVE = 13;
export const WHY_TCP_ACK_BELOW = 14;
export const WHY_TCP_OVERSHOT = 15;
export const WHY_TCP_REOPEN = 16;
export const WHY_TCP_REFUSED = 17;
export const WHY_TCP_RST_RELEARN = 18;
export const WHY_UDP_LENGTH = 19;
export const WHY_ICMP_TYPE = 20;
export const WHY_ICMP_NEW = 21;
export const WHY_ICMP_FAMILY = 22;
export const WHY_SCTP_CHUNKS = 23;
export const WHY_SCTP_NEW = 24;
export const WHY_SCTP_TAG = 25;
export const WHY_SCTP_STATE = 26;
export const WHY_GRE_PROTOCOL = 27;
export const WHY_ND_UNTRACKED = 28;
export const WHY_ESP_RESERVED = 29;
export const WHY_TCP_RST_DOUBTFUL = 30;

/** One sentence for each number, for `explain` and traces. */
export const WHY_TEXT: readonly string[] = [
  '',
  'bad transport checksum',
  'truncated packet: the transport header does not fit',
  'invalid TCP flag combination',
  'this segment cannot open a connection, and there is none for it',
  'picking up a connection in the middle is switched off (tcp_loose)',
  'this kind of segment is invalid in the state that the connection is in',
  'the segment does not fit the state; it passes, and the answer to it will show who is out of step',
  'challenge ACK (RFC 5961): it passes and does not acknowledge the FIN',
  'RST outside the window: below what the other side has acknowledged',
  'RST in the window, but not the exact next sequence number: it passes and the state is kept for a challenge ACK (RFC 5961)',
  'SEQ is over the upper bound (over the window of the receiver)',
  'SEQ is under the lower bound (already ACKed data retransmitted)',
  'ACK is over the upper bound (ACKed data not seen yet)',
  'ACK is under the lower bound (possibly overly delayed)',
  'more bytes than the receiver expects',
  'SYN on a connection that is over: a new connection takes its place',
  'RST before any answer: the connection was refused and is deleted',
  'RST just after the connection came back from the offload engine: it passes and the state is kept until the window is known again',
  'UDP length field does not fit the packet',
  'unknown ICMP type',
  'this ICMP type cannot open a connection, and there is none for it',
  'ICMP of the other IP version',
  'SCTP chunks are malformed or in an order that RFC 9260 forbids',
  'these SCTP chunks cannot open a connection, and there is none for them',
  'SCTP verification tag is wrong (RFC 9260 §8.5)',
  'this SCTP chunk is invalid in the state that the connection is in',
  'GRE version 1 without PPP in it',
  'neighbour discovery and MLD are never tracked',
  'an SPI from 0 to 255 is reserved (RFC 4303 §2.1) and cannot tell tunnels behind one address apart',
  'RST of a connection that the offload engine has carried, with a number that may be a guess: the next one is judged by the segment that it answers',
];

/** Sets the deadline `timeout` ms from `now`, unless somebody fixed it (IPS_FIXED_TIMEOUT). */
export function refresh(w: Int32Array, c: number, now: number, timeout: number): void {
  if ((w[c + CT_STATUS] & IPS_FIXED_TIMEOUT) === 0) w[c + CT_DEADLINE] = (now + timeout) | 0;
}

/** Marks the connection as one that early drop must spare: it has carried traffic both ways in earnest. */
export function assure(w: Int32Array, c: number): void {
  // Another worker may set SEEN_REPLY or a NAT bit in the same word at the same moment.
  if ((w[c + CT_STATUS] & IPS_ASSURED) === 0) Atomics.or(w, c + CT_STATUS, IPS_ASSURED);
}

/** A packet of a protocol without a tracker: any packet opens, every packet extends. */
export function trackGeneric(w: Int32Array, c: number, _p: Packet, now: number, cfg: Int32Array): number {
  refresh(w, c, now, cfg[CFG_GENERIC]);
  return TRACK_ACCEPT;
}
