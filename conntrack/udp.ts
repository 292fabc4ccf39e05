/**
 * UDP and UDP-Lite: no states on the wire, so only time tells a query from a stream.
 *
 * Until there is an answer, and for the first two seconds, a connection lives `udp_timeout` (30 s) after its last
 * packet; one that still carries traffic both ways after two seconds is a stream: ASSURED, `udp_timeout_stream`
 * (120 s). RFC 4787 REQ-5 wants mappings to live for two minutes unless they serve one query. CT_STATE holds the clock
 * time at which a connection turns into a stream.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { assure, refresh, TRACK_ACCEPT, TRACK_INVALID, WHY_UDP_LENGTH } from './generic.ts';
import { CT_STATE, CT_STATUS, IPS_ASSURED, IPS_SEEN_REPLY } from './record.ts';
import { CFG_UDP, CFG_UDP_STREAM } from './timeouts.ts';

export const UDP = 17;
export const UDPLITE = 136;

const STREAM_AFTER_MS = 2000;
const HEADER = 8;

/** The first packet of a connection. */
export function newUdp(w: Int32Array, c: number, p: Packet, u8: Uint8Array, now: number, cfg: Int32Array): number {
  w[c + CT_STATE] = (now + STREAM_AFTER_MS) | 0;
  return trackUdp(w, c, p, u8, now, cfg);
}

/** A packet of a connection, in either direction. */
export function trackUdp(w: Int32Array, c: number, p: Packet, u8: Uint8Array, now: number, cfg: Int32Array): number {
  if (!lengthFits(p, u8)) {
    p.detail = WHY_UDP_LENGTH;
    return TRACK_INVALID;
  }
  const status = w[c + CT_STATUS];
  if ((status & IPS_SEEN_REPLY) === 0) {
    refresh(w, c, now, cfg[CFG_UDP]);
    return TRACK_ACCEPT;
  }
  // Once ASSURED it stays a stream, also when the clock has wrapped past CT_STATE (24.8 days).
  if ((status & IPS_ASSURED) !== 0 || ((now - w[c + CT_STATE]) | 0) > 0) {
    refresh(w, c, now, cfg[CFG_UDP_STREAM]);
    assure(w, c);
  } else {
    refresh(w, c, now, cfg[CFG_UDP]);
  }
  return TRACK_ACCEPT;
}

/**
 * RFC 768: the length field covers header and data, and may be less than the IP payload, never more. In UDP-Lite
 * (RFC 3828 §3.1) it is the checksum's coverage, 0 for everything, else at least the header. A super-frame's field is
 * that of one datagram, so it fits as well.
 */
function lengthFits(p: Packet, u8: Uint8Array): boolean {
  const there = p.end - p.l4;
  if (there < HEADER) return false;
  const field = (u8[p.l4 + 4] << 8) | u8[p.l4 + 5];
  if (p.proto === UDPLITE && field === 0) return true;
  // Only the first fragment's header is here, and it announces the whole datagram.
  if (p.fragMore !== 0) return field >= HEADER;
  return field >= HEADER && field <= there;
}
