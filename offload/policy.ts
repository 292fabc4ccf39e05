/**
 * Policy: which flows get an entry, when, and who must give one up (rows O1, O4, O5, O10).
 *
 * A connection is a candidate when both directions were seen, its protocol is one the engine knows, no helper follows it,
 * enough packets have passed, and nobody who inspects first packets wants more of them. GRE is never a candidate: a call
 * ID names only the receiver, two calls may share one, and the helper must go on seeing them (row O10).
 *
 * Priority is the connection's, and only grows: DSCP, what a response's head says (http.ts), and what the entry carries
 * (aging.ts promotes a flow that streams). An entry stays at least MIN_RESIDENCE. After that a newcomer may take the
 * place of an entry that is idle, or of a busy one of lower priority, but never of one that streams and is busy: no flood
 * of new flows, whatever it claims of itself, pushes a streaming flow out.
 *
 * The engine that is modelled programs at most `rate` entries a second. Nothing here forwards.
 */
import {
  CT_F64,
  CT_F64_PACKETS,
  CT_FLOWS,
  CT_HELPER,
  CT_KEY,
  CT_PORTS_IO,
  CT_STATE,
  CT_STATUS,
  CT_WORDS,
  IPS_ASSURED,
  IPS_CONFIRMED,
  IPS_DYING,
  IPS_SEEN_REPLY,
  IPS_SEQ_ADJUST,
  REPLY,
  TCP_ESTABLISHED,
} from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import { CFG_GENERIC, CFG_TCP, CFG_UDP, CFG_UDP_STREAM } from '../conntrack/timeouts.ts';
import type { Packet } from '../dataplane/wire/packet.ts';
import {
  FLOWS_PRIORITY,
  FLOWS_REFUSED,
  WHY_HELPER,
  WHY_INSPECT,
  WHY_NO_REPLY,
  WHY_PROTOCOL,
  WHY_REFUSED,
  WHY_SEQ_ADJUST,
  WHY_SHORT,
  WHY_STATE,
  WHY_YOUNG,
} from './engine.ts';
import { HTTP_BULK, HTTP_NONE, HTTP_PERSISTENT, HTTP_STREAM, inspectResponse } from './http.ts';
import { AUX_INSTALLED, AUX_PRIORITY, AUX_RATE, AUX_WORDS, type FlowTable } from './table.ts';

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
export const PRIORITY_TEXT = ['none', 'browsing', 'default', 'bulk', 'stream', 'expedited'] as const;

/** An entry without a hit for this long leaves, as the kernel's flow table has it, ms. */
export const ENGINE_IDLE = 30000;
/** An entry stays at least this long, ms: what thrashes helps nobody. */
export const MIN_RESIDENCE = 2000;
/** An entry without a hit for this long may go to a newcomer of its own rank, and for ten times as long to anybody, ms. */
const IDLE_ENOUGH = 1000;
const IDLE_LONG = 10 * IDLE_ENOUGH;
/** Entries that an eviction looks at. */
const SAMPLE = 32;
/** A connection to a web port waits this many packets at most for the head of its first response. */
const HTTP_PATIENCE = 10;
/** Destination ports of plain HTTP: 80, 8080, 8000, 3128; raw, as in the high half of a port word. */
const HTTP_PORTS = [0x5000, 0x901f, 0x401f, 0x380c];

export interface PolicyOptions {
  /** Packets of a connection, both directions, before it is programmed. */
  programAfter: number;
  /** Entries programmed a second at most; 0: no limit. */
  rate: number;
  /** Packets of a connection that `inspect` must have seen first; 0: none. */
  inspectFirst: number;
  /** Milliseconds from programming an entry until the engine uses it; default 0. */
  latency?: number;
}

export class Policy {
  private readonly table: ConntrackTable;
  private readonly options: PolicyOptions;
  private readonly cfg: Int32Array;
  private tokens: number;
  private refilled: number;
  /**
   * Called for a connection's packets until `inspectFirst` of them were seen (parental control, content filters): false
   * keeps the connection on the slow path for good. The payload begins at the transport header's end.
   */
  inspect: (p: Packet, u8: Uint8Array) => boolean = () => true;

  /** @param cfg the trackers' timeouts (conntrack/timeouts.ts) */
  constructor(table: ConntrackTable, cfg: Int32Array, options: PolicyOptions, now: number) {
    this.table = table;
    this.cfg = cfg;
    this.options = options;
    this.tokens = options.rate;
    this.refilled = now;
  }

  /** Why the packet's connection may not have an entry now; 0: it may. Learns its priority on the way. */
  refuse(p: Packet, u8: Uint8Array): number {
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
    if (connectionTimeout(w, c, this.cfg) < ENGINE_IDLE) return this.because(c, WHY_SHORT);
    const head = this.learn(p, u8, c);
    const f = p.ct * CT_F64 + CT_F64_PACKETS;
    const packets = this.table.doubles[f] + this.table.doubles[f + 1];
    const refused = this.inspectFirst(p, u8, c, packets);
    if (refused !== 0) return this.because(c, refused);
    if (packets < this.options.programAfter) return this.because(c, WHY_YOUNG);
    if (p.proto === TCP && head === HTTP_NONE && packets < HTTP_PATIENCE && this.awaitsHead(c))
      return this.because(c, WHY_INSPECT);
    return 0;
  }

  private inspectFirst(p: Packet, u8: Uint8Array, c: number, packets: number): number {
    if (this.options.inspectFirst === 0) return 0;
    const w = this.table.words;
    if ((w[c + CT_FLOWS] & FLOWS_REFUSED) !== 0) return WHY_REFUSED;
    if (packets > this.options.inspectFirst) return 0;
    if (!this.inspect(p, u8)) {
      Atomics.or(w, c + CT_FLOWS, FLOWS_REFUSED);
      return WHY_REFUSED;
    }
    return packets < this.options.inspectFirst ? WHY_INSPECT : 0;
  }

  /** True for a connection to a web port whose responses have not been seen yet. */
  private awaitsHead(c: number): boolean {
    const w = this.table.words;
    // What the client wanted is the ORIGINAL destination; w[c + 6] is its port word.
    return ((w[c + CT_FLOWS] >> FLOWS_PRIORITY) & 15) === 0 && HTTP_PORTS.includes(w[c + 6] >>> 16);
  }

  /** Takes what the packet says about its connection's priority. Returns HTTP_* of its payload. */
  private learn(p: Packet, u8: Uint8Array, c: number): number {
    let priority = 0;
    const dscp = p.tos >> 2;
    // RFC 8325 §4: EF, CS6 and CS7; CS4 and CS3 with their assured classes stream; CS1 is background.
    if (dscp === 46 || dscp === 48 || dscp === 56) priority = PRIORITY_EXPEDITED;
    else if (dscp >= 24 && dscp < 40) priority = PRIORITY_STREAM;
    else if (dscp === 8) priority = PRIORITY_BROWSING;
    let head = HTTP_NONE;
    if (p.proto === TCP && p.dir === REPLY) {
      head = inspectResponse(u8, p.l4 + ((u8[p.l4 + 12] >> 4) << 2), p.end);
      const says =
        head === HTTP_NONE
          ? 0
          : head === HTTP_STREAM
            ? PRIORITY_STREAM
            : head === HTTP_BULK
              ? PRIORITY_BULK
              : head === HTTP_PERSISTENT
                ? PRIORITY_DEFAULT
                : PRIORITY_BROWSING;
      if (says > priority) priority = says;
    }
    const w = this.table.words;
    if (priority > ((w[c + CT_FLOWS] >> FLOWS_PRIORITY) & 15))
      w[c + CT_FLOWS] = (w[c + CT_FLOWS] & ~(15 << FLOWS_PRIORITY)) | (priority << FLOWS_PRIORITY);
    return head;
  }

  /** Priority of a connection. */
  priority(index: number): number {
    const known = (this.table.words[index * CT_WORDS + CT_FLOWS] >> FLOWS_PRIORITY) & 15;
    return known === 0 ? PRIORITY_DEFAULT : known;
  }

  /** Notes why a connection is not in the engine, for `show` and `explain`. */
  because(c: number, why: number): number {
    const w = this.table.words;
    w[c + CT_PORTS_IO] = (w[c + CT_PORTS_IO] & 0x00ffffff) | (why << 24);
    return why;
  }

  /** True when the rate allows one more entry now. */
  mayProgram(now: number): boolean {
    const rate = this.options.rate;
    if (rate === 0) return true;
    const elapsed = (now - this.refilled) | 0;
    if (elapsed > 0) {
      this.tokens = Math.min(rate, this.tokens + (elapsed * rate) / 1000);
      this.refilled = now;
    }
    return this.tokens >= 1;
  }

  /** One entry was programmed. */
  programmed(): void {
    if (this.options.rate > 0) this.tokens--;
  }

  /**
   * Finds an entry that must give way to a flow of `priority`, looking at a sample of both families. Returns
   * (place << 1) | (1 for IPv6), or −1: everybody stays who is young, or as important and busy.
   */
  victim(flows: FlowTable, priority: number, now: number): number {
    let best = -1;
    let bestScore = 0x7fffffff;
    const four = flows.liveCount(4);
    const six = flows.liveCount(6);
    for (let n = 0; n < SAMPLE; n++) {
      // Half of the sample each, unless one family has nothing.
      const isSix = four === 0 || (six !== 0 && (n & 1) === 1);
      const place = flows.nextLive(isSix ? 6 : 4);
      if (place < 0) break;
      const a = place * AUX_WORDS;
      const aux = isSix ? flows.aux6 : flows.aux4;
      if (((now - aux[a + AUX_INSTALLED]) | 0) < MIN_RESIDENCE) continue;
      const idle = (now - flows.lastHit(isSix ? 6 : 4, place)) | 0;
      const rank = aux[a + AUX_PRIORITY];
      if (idle < IDLE_ENOUGH && (rank >= priority || rank >= PRIORITY_STREAM)) continue;
      if (idle < IDLE_LONG && (rank > priority || rank >= PRIORITY_STREAM)) continue;
      const score = rank * 1000000 - Math.min(idle, 900000) + Math.min(aux[a + AUX_RATE], 90000);
      if (score < bestScore) {
        bestScore = score;
        best = (place << 1) | (isSix ? 1 : 0);
      }
    }
    return best;
  }
}

/** The timeout that a connection has now, ms, as its tracker would set it. */
export function connectionTimeout(w: Int32Array, c: number, cfg: Int32Array): number {
  const proto = w[c + CT_KEY] & 0xff;
  if (proto === TCP) return cfg[CFG_TCP + (w[c + CT_STATE] & 0xff)];
  if (proto === UDP) return (w[c + CT_STATUS] & IPS_ASSURED) !== 0 ? cfg[CFG_UDP_STREAM] : cfg[CFG_UDP];
  return cfg[CFG_GENERIC];
}
