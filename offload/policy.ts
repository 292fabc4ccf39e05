/**
 * Policy: which flows get an entry, when, and who must give one up (rows O1, O4, O5, O10).
 *
 * A connection is a candidate when both directions were seen, its protocol is one the engine knows, no helper follows it,
 * and enough packets have passed. Priority: DSCP, what light inspection found (an HTTP response that is a stream; a
 * persistent connection), and age; an established stream is never pushed out by newcomers. Hysteresis: an entry stays at
 * least MIN_RESIDENCE, and its successor's priority must be higher, or it must have been idle.
 *
 * The engine that is modelled programs at most `rate` entries a second. Nothing here forwards.
 */
import {
  CT_F64,
  CT_HELPER,
  CT_PORTS_IO,
  CT_STATE,
  CT_STATUS,
  CT_WORDS,
  IPS_CONFIRMED,
  IPS_DYING,
  IPS_SEEN_REPLY,
  IPS_SEQ_ADJUST,
  ORIGINAL,
  TCP_ESTABLISHED,
} from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import type { Packet } from '../dataplane/wire/packet.ts';
import {
  WHY_FULL,
  WHY_HELPER,
  WHY_INSPECT,
  WHY_NO_REPLY,
  WHY_PROTOCOL,
  WHY_RATE,
  WHY_SEQ_ADJUST,
  WHY_STATE,
  WHY_YOUNG,
} from './engine.ts';
import {
  AUX_INSTALLED,
  AUX_PRIORITY,
  AUX_RATE,
  AUX_WORDS,
  F4_CONN,
  F4_LAST,
  F6_CONN,
  F6_LAST,
  type FlowTable,
  STAT_EVICTIONS,
  STAT_REFUSED,
} from './table.ts';

const TCP = 6;
const UDP = 17;
const IPV6_IN_IP = 41;
const ESP = 50;

/** Priorities: what is known of a flow. */
export const PRIORITY_BROWSING = 1;
export const PRIORITY_DEFAULT = 2;
export const PRIORITY_BULK = 3;
export const PRIORITY_STREAM = 4;
export const PRIORITY_EXPEDITED = 5;

const MIN_RESIDENCE = 2000;
const IDLE_ENOUGH = 1000;
/** Entries that an eviction looks at. */
const SAMPLE = 32;

export interface PolicyOptions {
  /** Packets of a connection, both directions, before it is programmed. */
  programAfter: number;
  /** Entries programmed a second at most; 0: no limit. */
  rate: number;
  /** Payload packets that `inspect` must have seen first; 0: none. */
  inspectFirst: number;
}

export class Policy {
  private readonly table: ConntrackTable;
  private readonly options: PolicyOptions;
  private tokens: number;
  private refilled: number;
  /**
   * Called for a candidate's packets until `inspectFirst` of them were seen (parental control, content filters): false
   * keeps the connection on the slow path for good.
   */
  inspect: (p: Packet, u8: Uint8Array) => boolean = () => true;

  constructor(table: ConntrackTable, options: PolicyOptions, now: number) {
    this.table = table;
    this.options = options;
    this.tokens = options.rate;
    this.refilled = now;
  }

  /** Why the packet's connection may not have an entry now; 0: it may. */
  refuse(p: Packet, u8: Uint8Array, now: number): number {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const status = w[c + CT_STATUS];
    if ((status & (IPS_SEEN_REPLY | IPS_CONFIRMED | IPS_DYING)) !== (IPS_SEEN_REPLY | IPS_CONFIRMED))
      return this.because(c, WHY_NO_REPLY);
    if ((w[c + CT_HELPER] & 0xff) !== 0) return this.because(c, WHY_HELPER);
    if ((status & IPS_SEQ_ADJUST) !== 0) return this.because(c, WHY_SEQ_ADJUST);
    if (p.proto === TCP) {
      if ((w[c + CT_STATE] & 0xff) !== TCP_ESTABLISHED) return this.because(c, WHY_STATE);
    } else if (p.proto !== UDP && p.proto !== IPV6_IN_IP && p.proto !== ESP) return this.because(c, WHY_PROTOCOL);
    const f = p.ct * CT_F64 + 16;
    const packets = this.table.doubles[f] + this.table.doubles[f + 1];
    if (packets < this.options.programAfter) return this.because(c, WHY_YOUNG);
    if (this.options.inspectFirst > 0 && (packets <= this.options.inspectFirst || !this.inspect(p, u8)))
      return this.because(c, WHY_INSPECT);
    if (this.options.rate > 0) {
      const elapsed = (now - this.refilled) | 0;
      if (elapsed > 0) {
        this.tokens = Math.min(this.options.rate, this.tokens + (elapsed * this.options.rate) / 1000);
        this.refilled = now;
      }
      if (this.tokens < 1) return this.because(c, WHY_RATE);
      this.tokens -= 1;
    }
    return this.because(c, 0);
  }

  /** Notes why a connection is not in the engine, for `show` and `explain`. */
  because(c: number, why: number): number {
    const w = this.table.words;
    w[c + CT_PORTS_IO] = (w[c + CT_PORTS_IO] & 0x00ffffff) | (why << 24);
    return why;
  }

  /** Priority of the packet's flow: DSCP first, then what its payload shows. */
  priority(p: Packet, u8: Uint8Array): number {
    const dscp = p.tos >> 2;
    if (dscp === 46 || dscp === 48 || dscp === 56) return PRIORITY_EXPEDITED;
    if ((dscp >= 32 && dscp < 40) || (dscp >= 24 && dscp < 32)) return PRIORITY_STREAM;
    if (dscp === 8) return PRIORITY_BROWSING;
    if (p.proto === TCP && p.dir !== ORIGINAL) return inspectHttp(p, u8);
    return PRIORITY_DEFAULT;
  }

  /**
   * Finds an entry that must give way to a flow of `priority`, looking at a sample. Returns its place or −1. Entries that
   * are young, or as important and busy, stay.
   */
  victim(flows: FlowTable, family: number, priority: number, now: number): number {
    const four = family === 4;
    const aux = four ? flows.aux4 : flows.aux6;
    const words = four ? flows.words4 : flows.words6;
    let best = -1;
    let bestScore = 0x7fffffff;
    for (let n = 0; n < SAMPLE; n++) {
      const place = flows.nextLive(family);
      if (place < 0) break;
      const a = place * AUX_WORDS;
      if (((now - aux[a + AUX_INSTALLED]) | 0) < MIN_RESIDENCE) continue;
      const idle = (now - words[four ? (place << 4) + F4_LAST : (place << 5) + F6_LAST]) | 0;
      const rank = aux[a + AUX_PRIORITY];
      if (idle < IDLE_ENOUGH && rank >= priority) continue;
      if (rank > priority && idle < 10 * IDLE_ENOUGH) continue;
      const score = rank * 1000000 - Math.min(idle, 900000) + Math.min(aux[a + AUX_RATE], 90000);
      if (score < bestScore) {
        bestScore = score;
        best = place;
      }
    }
    flows.countStatistic(best < 0 ? STAT_REFUSED : STAT_EVICTIONS);
    return best;
  }

  /** Notes that no place was found. */
  refusedFull(p: Packet): void {
    this.because(p.ct * CT_WORDS, WHY_FULL);
  }

  /** Connection and direction of an entry. */
  connectionOf(flows: FlowTable, family: number, place: number): number {
    return family === 4 ? flows.words4[(place << 4) + F4_CONN] : flows.words6[(place << 5) + F6_CONN];
  }
}

/**
 * Light inspection of an HTTP response's head (row O5): a media type that streams, or a body that is short. Only the
 * first bytes of a segment are looked at; TLS is left alone.
 */
function inspectHttp(p: Packet, u8: Uint8Array): number {
  const at = p.l4 + ((u8[p.l4 + 12] >> 4) << 2);
  const end = Math.min(p.end, at + 512);
  // "HTTP"
  if (end - at < 16 || u8[at] !== 0x48 || u8[at + 1] !== 0x54 || u8[at + 2] !== 0x54 || u8[at + 3] !== 0x50)
    return PRIORITY_DEFAULT;
  let priority = PRIORITY_BROWSING;
  for (let n = at; n + 14 < end; n++) {
    if (u8[n] !== 0x0a) continue;
    const letter = u8[n + 1] | 0x20;
    // "content-type: " then the first letter of video/, audio/, application/octet-stream
    if (letter === 0x63 && u8[n + 8] === 0x2d && (u8[n + 9] | 0x20) === 0x74 && u8[n + 13] === 0x3a) {
      let value = n + 14;
      while (value < end && u8[value] === 0x20) value++;
      const first = u8[value] | 0x20;
      const second = u8[value + 1] | 0x20;
      if (first === 0x76 || (first === 0x61 && second === 0x75)) return PRIORITY_STREAM;
      if (first === 0x61) priority = PRIORITY_BULK;
    }
  }
  return priority;
}
