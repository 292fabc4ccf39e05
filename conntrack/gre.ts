/**
 * GRE: version 0 (RFC 2784) has no ports, so two hosts have one connection; version 1 is PPTP's (RFC 2637 §4.1) and
 * carries a call ID, which the *receiver* chose. So a packet names only its destination's key; the source's key, the
 * one that answers carry, was spoken in the control connection, and whoever read it there (the PPTP helper) puts it in.
 *
 * The port word: source key in the low 16 bits, destination key in the high 16 bits, raw. `grePorts` gives the
 * destination's only; `withSourceKey` adds the other for the lookup. Version 1 without a known call has source key 0.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { assure, refresh, TRACK_ACCEPT, TRACK_INVALID, WHY_GRE_PROTOCOL } from './generic.ts';
import { CT_STATUS, IPS_EXPECTED, IPS_SEEN_REPLY } from './record.ts';
import { CFG_GRE, CFG_GRE_STREAM } from './timeouts.ts';

export const GRE = 47;
/** Life of a PPTP call's connection, and once it was answered, ms: netfilter's (its control connection ends it earlier). */
export const PPTP_TIMEOUT = 600_000;
const PPTP_STREAM_TIMEOUT = 18_000_000;
const VERSION_MASK = 7;
const PPP = 0x880b;

/** True for a PPTP data packet at `l4` whose call ID is there. */
export function isPptpGre(u8: Uint8Array, l4: number, end: number): boolean {
  return end - l4 >= 8 && (u8[l4 + 1] & VERSION_MASK) === 1 && ((u8[l4 + 2] << 8) | u8[l4 + 3]) === PPP;
}

/** The port word of a GRE header: the destination's call ID (bytes 6 and 7) for PPTP, else 0. */
export function grePorts(u8: Uint8Array, l4: number, end: number): number {
  return isPptpGre(u8, l4, end) ? (u8[l4 + 6] << 16) | (u8[l4 + 7] << 24) : 0;
}

/** The same with the source's key (raw, 16 bits) known. */
export function withSourceKey(ports: number, key: number): number {
  return (ports & ~0xffff) | (key & 0xffff);
}

/** Keys change places, as ports do. */
export function invertGrePorts(ports: number): number {
  return (ports >>> 16) | (ports << 16);
}

/** A packet of a connection, or the first: an answered one is a stream. */
export function trackGre(w: Int32Array, c: number, p: Packet, u8: Uint8Array, now: number, cfg: Int32Array): number {
  // Version 1 is tracked for PPTP only; anything else in it is none of ours, nor of a version 0 between the same hosts.
  if (p.end - p.l4 >= 4 && (u8[p.l4 + 1] & VERSION_MASK) === 1 && ((u8[p.l4 + 2] << 8) | u8[p.l4 + 3]) !== PPP) {
    p.detail = WHY_GRE_PROTOCOL;
    return TRACK_INVALID;
  }
  const call = (w[c + CT_STATUS] & IPS_EXPECTED) !== 0;
  if ((w[c + CT_STATUS] & IPS_SEEN_REPLY) === 0) {
    refresh(w, c, now, call ? PPTP_TIMEOUT : cfg[CFG_GRE]);
    return TRACK_ACCEPT;
  }
  refresh(w, c, now, call ? PPTP_STREAM_TIMEOUT : cfg[CFG_GRE_STREAM]);
  assure(w, c);
  return TRACK_ACCEPT;
}
