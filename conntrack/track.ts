/**
 * Track: the conntrack-in and conntrack-confirm stages.
 *
 * conntrack-in finds the connection of a packet by its tuple, in either direction, or makes a private record for a new
 * one; asks the protocol tracker whether the packet fits; and says what it is: NEW, ESTABLISHED, RELATED (an ICMP error
 * about a tracked packet, or an expected connection) or INVALID. conntrack-confirm publishes the private record once
 * every stage has let its first packet pass, and settles what happens when another worker was faster.
 *
 * Semantics are nf_conntrack's (net/netfilter/nf_conntrack_core.c); an INVALID packet is always dropped by the path and
 * never forwarded untranslated.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { Admission } from './admission.ts';
import type { Aging } from './aging.ts';
import { CT_ESP_SPI, ESP, ESP_AMBIGUOUS, EspTunnels, spiAt } from './esp.ts';
import type { EventSink } from './events.ts';
import { EVENT_ASSURED, EVENT_DESTROY, EVENT_NEW, EVENT_REPLY, EVENT_STATE } from './events.ts';
import { TRACK_ACCEPT, TRACK_ACCEPT_LAST, TRACK_DROP, TRACK_IGNORE, TRACK_REPEAT, TRACK_UNTRACKED } from './generic.ts';
import { GRE, ICMP, ICMPV6, invertPorts, portsOf, TCP, trackNew, trackPacket } from './protocols.ts';
import {
  CT_ESTABLISHED,
  CT_F64,
  CT_F64_PACKETS,
  CT_HASH,
  CT_INVALID,
  CT_KEY,
  CT_LOCK,
  CT_NEW,
  CT_NONE,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_PORTS_IO,
  CT_R_DST,
  CT_R_PORTS,
  CT_R_SRC,
  CT_RELATED,
  CT_START,
  CT_STATE,
  CT_STATUS,
  CT_UNTRACKED,
  CT_WORDS,
  CT6_O_SRC,
  CT6_R_SRC,
  CT6_WORDS,
  IPS_ASSURED,
  IPS_EXPECTED,
  IPS_OFFLOAD,
  IPS_SEEN_REPLY,
  IPS_SEQ_ADJUST,
  ORIGINAL,
  REPLY,
} from './record.ts';
import type { ConntrackTable } from './table.ts';
import { isRelearning, plausibleTcp } from './tcp.ts';

/** Results of `in` and `confirm`. */
export const TRACKED = 0;
export const NOT_VALID = 1;
export const TABLE_FULL = 2;
export const CLASH_LOST = 3;
/** confirm: the other worker's record took ours' place; effective addresses must be set anew. */
export const ADOPTED = 4;
/** confirm: the reply tuple is taken; another port may be tried. */
export const REPLY_TAKEN = 5;
export const PROTOCOL_DROP = 6;
/** The table is full, and this port's new connections have taken the places that they may take for now. */
export const TOO_FAST = 7;
/** An ESP packet with an SPI that could be of several hosts (esp.ts). */
export const OWNER_UNKNOWN = 8;
/** A packet of no connection that the path does not want to become one (`unwanted`). */
export const UNWANTED = 9;

/** Details of NOT_VALID that are not a protocol tracker's; numbers above the trackers' own. */
export const DETAIL_ICMP_UNRELATED = 200;
export const DETAIL_ICMP_QUOTE = 201;
export const DETAIL_ICMP_OUTER = 202;
/** A PPTP packet of no call that the control connection has set up. */
export const DETAIL_GRE_NO_CALL = 203;

/** What the engine's owner says of a packet that came to the slow path (`offloaded`). */
export const ENGINE_EXPIRED = 0;
export const ENGINE_FOLLOWS = 1;
/** No end of the connection can have sent it: nothing is to change for it. */
export const ENGINE_DISBELIEVES = 2;

const FRESH_REFUSED = -2;
/** TCP flags of a segment that may end a connection. */
const FIN_OR_RST = 5;

export class Tracker {
  readonly table: ConntrackTable;
  readonly aging: Aging;
  readonly esp: EspTunnels;
  private readonly cfg: Int32Array;
  private readonly events: EventSink;
  private readonly shared: boolean;
  private readonly admission: Admission;

  /**
   * @param cfg timeouts and options (timeouts.ts)   @param shared more than one thread may track at once
   */
  constructor(table: ConntrackTable, aging: Aging, cfg: Int32Array, events: EventSink, shared: boolean) {
    this.table = table;
    this.aging = aging;
    this.cfg = cfg;
    this.events = events;
    this.shared = shared;
    this.admission = new Admission(table.max);
    this.esp = new EspTunnels(table);
    // However a connection ends (expired, given up by early drop, closed), it is reported once, by who deleted it.
    const forget = table.onDelete;
    table.onDelete = (index) => {
      events.emit(EVENT_DESTROY, index);
      forget(index);
    };
  }

  /** conntrack-in. `u8`: frame memory of the packet; `zone`: conntrack zone of its port. */
  in(p: Packet, u8: Uint8Array, zone: number, now: number): number {
    p.ct = -1;
    p.dir = ORIGINAL;
    p.fresh = 0;
    p.ctinfo = CT_NONE;
    if (p.proto === ICMP && p.family === 4) {
      const type = u8[p.l4];
      if (type === 3 || type === 4 || type === 5 || type === 11 || type === 12) return this.icmpError(p, u8, zone, now);
    } else if (p.proto === ICMPV6 && p.family === 6) {
      const type = u8[p.l4];
      // Neighbour discovery and multicast listeners are nobody's connections.
      if ((type >= 130 && type <= 137) || type === 143) {
        p.ctinfo = CT_UNTRACKED;
        return TRACKED;
      }
      if (type < 128) return this.icmpError(p, u8, zone, now);
    }
    const key = p.proto | (p.family << 8) | (zone << 16);
    if (p.proto === GRE && p.ports >>> 16 !== 0 && !this.greKey(p, key, now)) {
      p.detail = DETAIL_GRE_NO_CALL;
      p.ctinfo = CT_INVALID;
      return NOT_VALID;
    }
    // A tracker may ask once that the packet be tracked as a new connection's (a SYN on a closed one).
    for (let attempt = 0; attempt < 2; attempt++) {
      const found =
        p.family === 4
          ? p.proto === ESP
            ? this.esp.find(p, spiAt(u8, p.l4), key, now)
            : this.table.find4(p.s0, p.d0, p.ports, key, now)
          : this.table.find6(p.s0, p.s1, p.s2, p.s3, p.d0, p.d1, p.d2, p.d3, p.ports, key, now);
      if (found < 0) return found === ESP_AMBIGUOUS ? OWNER_UNKNOWN : this.begin(p, u8, key, now);
      const result = this.follow(p, u8, found, now);
      if (result !== FRESH_REFUSED) return result;
    }
    p.ctinfo = CT_INVALID;
    return NOT_VALID;
  }

  /** A packet of a known connection. */
  private follow(p: Packet, u8: Uint8Array, found: number, now: number): number {
    const table = this.table;
    const w = table.words;
    const index = found >> 1;
    const dir = found & 1;
    const c = index * CT_WORDS;
    p.ct = index;
    p.dir = dir;
    if ((w[c + CT_STATUS] & IPS_OFFLOAD) !== 0) {
      const word = this.offloaded(index, p);
      if (word === ENGINE_EXPIRED) {
        this.end(index);
        p.ct = -1;
        return FRESH_REFUSED;
      }
      if (word === ENGINE_DISBELIEVES) {
        p.ctinfo = CT_INVALID;
        return NOT_VALID;
      }
    }
    const strays = p.proto === TCP && isRelearning(w, c) && !this.mayFollowEngine(index, p, u8);
    if (strays && (p.tcpFlags & FIN_OR_RST) !== 0) {
      p.ctinfo = CT_INVALID;
      return NOT_VALID;
    }
    const before = w[c + CT_STATUS];
    const state = w[c + CT_STATE] & 0xff;
    let verdict = TRACK_IGNORE;
    if (!strays) {
      if (this.shared) table.lock(c + CT_LOCK, w);
      const ackOffset = p.proto === TCP && (before & IPS_SEQ_ADJUST) !== 0 ? this.ackOffset(index, dir, p) : 0;
      verdict = trackPacket(w, c, p, u8, dir, now, this.cfg, ackOffset);
      if (this.shared) Atomics.store(w, c + CT_LOCK, 0);
    }
    switch (verdict) {
      case TRACK_ACCEPT:
      case TRACK_IGNORE:
      case TRACK_ACCEPT_LAST:
        break;
      case TRACK_REPEAT:
        this.end(index);
        p.ct = -1;
        return FRESH_REFUSED;
      case TRACK_UNTRACKED:
        p.ct = -1;
        p.ctinfo = CT_UNTRACKED;
        return TRACKED;
      case TRACK_DROP:
        return PROTOCOL_DROP;
      default:
        p.ctinfo = CT_INVALID;
        return NOT_VALID;
    }
    table.account(index, dir, 1, p.end - p.l3);
    if (verdict === TRACK_ACCEPT_LAST) {
      p.ctinfo = CT_ESTABLISHED;
      this.end(index);
      return TRACKED;
    }
    if (p.proto === TCP && (w[c + CT_STATE] & 0xff) !== state) this.events.emit(EVENT_STATE, index);
    if (dir === REPLY) {
      p.ctinfo = CT_ESTABLISHED;
      if ((before & IPS_SEEN_REPLY) === 0) {
        Atomics.or(w, c + CT_STATUS, IPS_SEEN_REPLY);
        w[c + CT_PORTS_IO] |= (p.port + 1) << 8;
        this.events.emit(EVENT_REPLY, index);
      }
    } else if ((before & IPS_SEEN_REPLY) !== 0) p.ctinfo = CT_ESTABLISHED;
    else p.ctinfo = (before & IPS_EXPECTED) !== 0 ? CT_RELATED : CT_NEW;
    if ((w[c + CT_STATUS] & ~before & IPS_ASSURED) !== 0) this.events.emit(EVENT_ASSURED, index);
    return TRACKED;
  }

  /**
   * True when the first segment behind the engine's may be the connection's. From another nothing is learned: it would shut
   * the ends out; data passes, as it does by the engine, and the end judges it. The engine has carried no more than the
   * connection's own count of bytes.
   */
  private mayFollowEngine(index: number, p: Packet, u8: Uint8Array): boolean {
    const { words, doubles } = this.table;
    const bytes = index * CT_F64 + CT_F64_PACKETS + 2;
    const carried = doubles[bytes + p.dir];
    const back = doubles[bytes + (p.dir ^ 1)];
    // Numbers have 32 bits: of more than half of that they say nothing.
    return plausibleTcp(
      words,
      index * CT_WORDS,
      p,
      u8,
      this.cfg,
      carried > 0x7fffffff ? -1 : carried,
      back > 0x7fffffff ? -1 : back,
    );
  }

  /**
   * What the router has added to the sequence numbers that this segment acknowledges, asked of connections with
   * IPS_SEQ_ADJUST; set by the ALG stage's owner.
   */
  ackOffset: (index: number, dir: number, p: Packet) => number = () => 0;

  /** A packet of a connection that the engine carries came to the slow path: ENGINE_*. Set by the path. */
  offloaded: (index: number, p: Packet) => number = () => ENGINE_FOLLOWS;

  /** Completes a PPTP packet's port word with its source key; false: it belongs to no call. Set by the ALG's owner. */
  greKey: (p: Packet, key: number, now: number) => boolean = () => true;

  /** Told of every record that is given back without having been a connection; set by the ALG's owner. */
  released: (index: number) => void = () => {};

  /** Asked for every new connection: the expectation that it fulfils marks the record; set by the expectation table. */
  expected: (p: Packet, index: number, now: number) => boolean = () => false;

  /** Asked about every packet of no known connection before it costs a record; set by the path. */
  unwanted: (p: Packet) => boolean = () => false;

  /** A packet of no known connection: a private record, if the protocol lets such a packet open one. */
  private begin(p: Packet, u8: Uint8Array, key: number, now: number): number {
    if (this.unwanted(p)) return UNWANTED;
    const table = this.table;
    const hash = table.hash;
    if (table.isFull && !this.admission.admit(p.port, p.s0 ^ p.s1 ^ p.s2 ^ p.s3, now)) return TOO_FAST;
    const index = table.alloc(hash, now);
    if (index < 0) return TABLE_FULL;
    const w = table.words;
    const c = index * CT_WORDS;
    const reply = invertPorts(p.proto, p.family, p.ports);
    w[c + CT_KEY] = key;
    w[c + CT_O_PORTS] = p.ports;
    w[c + CT_R_PORTS] = reply;
    w[c + CT_HASH] = hash;
    if (p.family === 4) {
      w[c + CT_O_SRC] = p.s0;
      w[c + CT_O_DST] = p.d0;
      w[c + CT_R_SRC] = p.d0;
      w[c + CT_R_DST] = p.s0;
    } else {
      const a = table.words6;
      const o = index * CT6_WORDS + CT6_O_SRC;
      const r = index * CT6_WORDS + CT6_R_SRC;
      a[o] = a[r + 4] = p.s0;
      a[o + 1] = a[r + 5] = p.s1;
      a[o + 2] = a[r + 6] = p.s2;
      a[o + 3] = a[r + 7] = p.s3;
      a[o + 4] = a[r] = p.d0;
      a[o + 5] = a[r + 1] = p.d1;
      a[o + 6] = a[r + 2] = p.d2;
      a[o + 7] = a[r + 3] = p.d3;
    }
    w[c + CT_START] = now;
    w[c + CT_PORTS_IO] = p.port + 1;
    const verdict = trackNew(w, c, p, u8, now, this.cfg);
    if (verdict !== TRACK_ACCEPT) {
      table.discard(index);
      if (verdict === TRACK_UNTRACKED) {
        p.ctinfo = CT_UNTRACKED;
        return TRACKED;
      }
      p.ctinfo = CT_INVALID;
      return NOT_VALID;
    }
    p.ct = index;
    p.dir = ORIGINAL;
    p.fresh = 1;
    let related: boolean;
    if (p.proto === ESP && p.family === 4) {
      w[c + CT_ESP_SPI] = spiAt(u8, p.l4);
      related = this.esp.inherit(p, index, now);
    } else related = this.expected(p, index, now);
    p.ctinfo = related ? CT_RELATED : CT_NEW;
    table.account(index, ORIGINAL, 1, p.end - p.l3);
    return TRACKED;
  }

  /**
   * An ICMP or ICMPv6 error: RELATED when it quotes a packet of a known connection and is addressed to who had sent that
   * packet (RFC 5508 REQ-3, RFC 5927 §4).
   */
  private icmpError(p: Packet, u8: Uint8Array, zone: number, now: number): number {
    p.ctinfo = CT_INVALID;
    const table = this.table;
    const quote = p.l4 + 8;
    let l4: number;
    let proto: number;
    if (p.family === 4) {
      const header = (u8[quote] & 15) << 2;
      // The quoted header and 8 bytes behind it (RFC 792); a quoted later fragment has no ports to go by.
      if (
        p.end - quote < header + 8 ||
        header < 20 ||
        u8[quote] >> 4 !== 4 ||
        ((u8[quote + 6] & 0x1f) | u8[quote + 7]) !== 0
      ) {
        p.detail = DETAIL_ICMP_QUOTE;
        return NOT_VALID;
      }
      proto = u8[quote + 9];
      l4 = quote + header;
    } else {
      if (p.end - quote < 48 || u8[quote] >> 4 !== 6) {
        p.detail = DETAIL_ICMP_QUOTE;
        return NOT_VALID;
      }
      proto = u8[quote + 6];
      l4 = quote + 40;
      for (let n = 0; n < 8 && (proto === 0 || proto === 43 || proto === 60 || proto === 44 || proto === 51); n++) {
        if (p.end - l4 < 8) break;
        const length = proto === 44 ? 8 : proto === 51 ? (u8[l4 + 1] + 2) << 2 : (u8[l4 + 1] + 1) << 3;
        if (proto === 44 && ((u8[l4 + 2] << 8) | (u8[l4 + 3] & 0xf8)) !== 0) {
          p.detail = DETAIL_ICMP_QUOTE;
          return NOT_VALID;
        }
        proto = u8[l4];
        l4 += length;
      }
      if (p.end - l4 < 8) {
        p.detail = DETAIL_ICMP_QUOTE;
        return NOT_VALID;
      }
    }
    const ports = invertPorts(proto, p.family, portsOf(proto, u8, l4, p.end));
    const key = proto | (p.family << 8) | (zone << 16);
    let found: number;
    if (p.family === 4) {
      const src = word(u8, quote + 12);
      const dst = word(u8, quote + 16);
      found =
        proto === ESP ? this.esp.findQuoted(src, dst, spiAt(u8, l4), key, now) : table.find4(dst, src, ports, key, now);
    } else {
      const s = quote + 8;
      const d = quote + 24;
      found = table.find6(
        word(u8, d),
        word(u8, d + 4),
        word(u8, d + 8),
        word(u8, d + 12),
        word(u8, s),
        word(u8, s + 4),
        word(u8, s + 8),
        word(u8, s + 12),
        ports,
        key,
        now,
      );
    }
    if (found < 0) {
      p.detail = DETAIL_ICMP_UNRELATED;
      return NOT_VALID;
    }
    // The error must go to where packets in its own direction go, or somebody else made it up.
    const index = found >> 1;
    const dir = found & 1;
    const t = index * CT_WORDS + (dir << 2);
    const a = index * CT6_WORDS + (dir << 3) + 4;
    const w6 = table.words6;
    const matches =
      p.family === 4
        ? table.words[t + CT_O_DST] === p.d0
        : w6[a] === p.d0 && w6[a + 1] === p.d1 && w6[a + 2] === p.d2 && w6[a + 3] === p.d3;
    if (!matches) {
      p.detail = DETAIL_ICMP_OUTER;
      return NOT_VALID;
    }
    p.ct = index;
    p.dir = dir;
    p.ctinfo = CT_RELATED;
    p.innerL3 = quote;
    p.innerL4 = l4;
    p.innerProto = proto;
    p.innerDir = dir ^ 1;
    return TRACKED;
  }

  /** conntrack-confirm: publishes the private record of a new connection's first packet. */
  confirm(p: Packet, now: number): number {
    const table = this.table;
    const index = p.ct;
    const w = table.words;
    const c = index * CT_WORDS;
    this.aging.claim(index);
    for (let attempt = 0; attempt < 3; attempt++) {
      table.clash = -1;
      if (table.insert(index, w[c + CT_HASH], table.hashOf(index, REPLY), now)) {
        p.fresh = 0;
        this.aging.add(index, now);
        this.events.emit(EVENT_NEW, index);
        return TRACKED;
      }
      if (table.clash >= 0) break;
      // An expired connection stood in the way: looking for it removes it.
      this.purge(c, index, ORIGINAL, now);
      this.purge(c, index, REPLY, now);
    }
    const other = table.clash;
    if (other >= 0 && (other & 1) === ORIGINAL && this.sameOriginal(index, other >> 1)) {
      // Two packets of one flow at the same moment (parallel A and AAAA queries): the first record serves both.
      this.released(index);
      table.discard(index);
      table.account(other >> 1, ORIGINAL, 1, p.end - p.l3);
      p.ct = other >> 1;
      p.dir = ORIGINAL;
      p.fresh = 0;
      return ADOPTED;
    }
    return REPLY_TAKEN;
  }

  private purge(c: number, index: number, dir: number, now: number): void {
    const table = this.table;
    const w = table.words;
    const t = c + (dir << 2);
    const a = index * CT6_WORDS + (dir << 3);
    const x = table.words6;
    if ((w[c + CT_KEY] & 0xffff) === (ESP | (4 << 8))) {
      this.esp.purge(w[t + CT_O_SRC], w[t + CT_O_DST], w[c + CT_KEY], now);
    } else if (((w[c + CT_KEY] >> 8) & 15) === 4) {
      table.find4(w[t + CT_O_SRC], w[t + CT_O_DST], w[t + CT_O_PORTS], w[c + CT_KEY], now);
    } else {
      table.find6(
        x[a],
        x[a + 1],
        x[a + 2],
        x[a + 3],
        x[a + 4],
        x[a + 5],
        x[a + 6],
        x[a + 7],
        w[t + CT_O_PORTS],
        w[c + CT_KEY],
        now,
      );
    }
  }

  private sameOriginal(index: number, other: number): boolean {
    const w = this.table.words;
    const a = index * CT_WORDS;
    const b = other * CT_WORDS;
    if (w[a + CT_O_PORTS] !== w[b + CT_O_PORTS] || w[a + CT_KEY] !== w[b + CT_KEY]) return false;
    if (((w[a + CT_KEY] >> 8) & 15) === 4)
      return w[a + CT_O_SRC] === w[b + CT_O_SRC] && w[a + CT_O_DST] === w[b + CT_O_DST];
    const x = this.table.words6;
    for (let n = 0; n < 8; n++) if (x[index * CT6_WORDS + n] !== x[other * CT6_WORDS + n]) return false;
    return true;
  }

  /** Drops the private record of a packet that a later stage refused. */
  abandon(p: Packet): void {
    if (p.fresh !== 0) {
      this.released(p.ct);
      this.table.discard(p.ct);
    }
    p.fresh = 0;
    p.ct = -1;
  }

  /** Deletes a connection and reports it. */
  end(index: number): boolean {
    const status = this.table.words[index * CT_WORDS + CT_STATUS];
    return status !== 0 && this.table.delete(index);
  }
}

/** A raw word at any offset. */
function word(u8: Uint8Array, at: number): number {
  return u8[at] | (u8[at + 1] << 8) | (u8[at + 2] << 16) | (u8[at + 3] << 24);
}
