/**
 * ICMP (RFC 792) and ICMPv6 (RFC 4443) queries, and what kind of message a packet is.
 *
 * A query opens a connection: identifier, type and code are its ports, and the answer has the answering type. Errors
 * have no connection of their own: they belong to the one that they quote, which the path looks up. Neighbour
 * discovery and MLD stay on their link and are never tracked. An answer does not end the connection, as there may be
 * duplicates; 30 s without packets do.
 *
 * The port word: identifier in the low 16 bits (raw), type in bits 16–23, code in bits 24–31.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import {
  refresh,
  TRACK_ACCEPT,
  TRACK_INVALID,
  TRACK_UNTRACKED,
  WHY_ICMP_FAMILY,
  WHY_ICMP_NEW,
  WHY_ICMP_TYPE,
  WHY_ND_UNTRACKED,
  WHY_TRUNCATED,
} from './generic.ts';
import { CFG_ICMP, CFG_ICMPV6 } from './timeouts.ts';

export const ICMP = 1;
export const ICMPV6 = 58;

/** What an ICMP message is to conntrack. */
export const ICMP_QUERY = 0;
/** An error: look up what it quotes, at l4 + 8. */
export const ICMP_ERROR = 1;
/** Never tracked. */
export const ICMP_UNTRACKED = 2;
/** CT_INVALID; `p.detail` says why. */
export const ICMP_INVALID = 3;
/** ICMPv6 redirect: the quoted packet is in its Redirected Header option (RFC 4861 §4.6.3), if there is one. */
export const ICMP_REDIRECT6 = 4;

/** The highest ICMP type that Linux knows (address mask reply). */
const LAST_ICMP_TYPE = 18;
const REDIRECT6 = 137;

/** KIND[type]: bits 0–2 ICMP_*, bit 3 may open. One table per version. */
const OPENS = 8;
const KIND4 = new Uint8Array(256).fill(ICMP_INVALID).fill(ICMP_QUERY, 0, LAST_ICMP_TYPE + 1);
for (const type of [3, 4, 5, 11, 12]) KIND4[type] = ICMP_ERROR; // unreachable, quench, redirect, exceeded, parameter
for (const type of [8, 13, 15, 17]) KIND4[type] |= OPENS; // echo, timestamp, information, address mask
// RFC 4443 §2.1: types below 128 are errors.
const KIND6 = new Uint8Array(256).fill(ICMP_QUERY).fill(ICMP_ERROR, 0, 128);
// MLD query, report, done; router and neighbour solicitation and advertisement; MLDv2 report.
for (const type of [130, 131, 132, 133, 134, 135, 136, 143]) KIND6[type] = ICMP_UNTRACKED;
KIND6[REDIRECT6] = ICMP_REDIRECT6;
// Echo, node information (RFC 4620); home agent addresses and mobile prefixes, which RFC 4890 §4.3.2 lets pass.
for (const type of [128, 139, 144, 146]) KIND6[type] |= OPENS;

/** ANSWER[type] is the answering type and the other way round; 255 where there is none. */
const ANSWER4 = new Uint8Array(256).fill(255);
const ANSWER6 = new Uint8Array(256).fill(255);
pair(ANSWER4, 8, 0);
pair(ANSWER4, 13, 14);
pair(ANSWER4, 15, 16);
pair(ANSWER4, 17, 18);
pair(ANSWER6, 128, 129);
pair(ANSWER6, 139, 140);
pair(ANSWER6, 144, 145);
pair(ANSWER6, 146, 147);

/**
 * Which ICMP_* the message in `p` is. Ask this before the lookup: only ICMP_QUERY has a tuple of its own.
 * The path has checked that 8 bytes of header are there; if not, it is ICMP_INVALID.
 */
export function icmpKind(p: Packet, u8: Uint8Array): number {
  if (p.end - p.l4 < 8) {
    p.detail = WHY_TRUNCATED;
    return ICMP_INVALID;
  }
  const v6 = p.proto === ICMPV6;
  // ICMP over IPv6 and ICMPv6 over IPv4 mean nothing.
  if (v6 !== (p.family === 6)) {
    p.detail = WHY_ICMP_FAMILY;
    return ICMP_INVALID;
  }
  const kind = (v6 ? KIND6 : KIND4)[u8[p.l4]] & 7;
  if (kind === ICMP_INVALID) p.detail = WHY_ICMP_TYPE;
  else if (kind === ICMP_UNTRACKED) p.detail = WHY_ND_UNTRACKED;
  return kind;
}

/** The first packet of a connection: only a query opens one. */
export function newIcmp(w: Int32Array, c: number, p: Packet, u8: Uint8Array, now: number, cfg: Int32Array): number {
  const kind = icmpKind(p, u8);
  if (kind === ICMP_UNTRACKED) return TRACK_UNTRACKED;
  if (kind === ICMP_INVALID) return TRACK_INVALID;
  if (((p.proto === ICMPV6 ? KIND6 : KIND4)[u8[p.l4]] & OPENS) === 0) {
    p.detail = WHY_ICMP_NEW;
    return TRACK_INVALID;
  }
  return trackIcmp(w, c, p, now, cfg);
}

/** A query or an answer of a connection. */
export function trackIcmp(w: Int32Array, c: number, p: Packet, now: number, cfg: Int32Array): number {
  refresh(w, c, now, cfg[p.proto === ICMPV6 ? CFG_ICMPV6 : CFG_ICMP]);
  return TRACK_ACCEPT;
}

/** The port word of an ICMP header at `l4`; 0 when fewer than 8 bytes are there. */
export function icmpPorts(u8: Uint8Array, l4: number, end: number): number {
  if (end - l4 < 8) return 0;
  return u8[l4 + 4] | (u8[l4 + 5] << 8) | (u8[l4] << 16) | (u8[l4 + 1] << 24);
}

/** The port word of the answer: the answering type, everything else kept. Without an answer: `ports` itself. */
export function invertIcmpPorts(proto: number, ports: number): number {
  const answer = (proto === ICMPV6 ? ANSWER6 : ANSWER4)[(ports >>> 16) & 0xff];
  return answer === 255 ? ports : (ports & ~0xff0000) | (answer << 16);
}

function pair(table: Uint8Array, query: number, answer: number): void {
  table[query] = answer;
  table[answer] = query;
}
