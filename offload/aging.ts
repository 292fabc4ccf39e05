/**
 * Aging: what the engine has counted goes to the connections, and idle entries go (row O7).
 *
 * While a connection is in the engine (IPS_OFFLOAD), conntrack's collector does not see it: this file alone extends its
 * timeout, from the entries' last hits, and ends its stay. Every entry is visited about every AGING_PERIOD, a slice per turn. An
 * entry without a hit for `idle` leaves; when the last entry of a connection has left, the connection's deadline is
 * its last hit plus its own timeout, and conntrack ages it again. What the tracker knows and the engine does not (data
 * that waits for its ACK, a closed window) shortens no timeout here, as in the kernel's flow table.
 *
 * An entry that carries a stream is promoted: nothing that is new may take its place (policy.ts).
 */
import {
  CT_DEADLINE,
  CT_F64,
  CT_F64_PACKETS,
  CT_FLOWS,
  CT_GEN,
  CT_KEY,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_PORTS_IO,
  CT_STATE,
  CT_STATUS,
  CT_TCP,
  CT_WORDS,
  CT6_WORDS,
  IPS_ASSURED,
  IPS_CONFIRMED,
  IPS_DYING,
  IPS_FIXED_TIMEOUT,
  IPS_OFFLOAD,
} from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import { relearnTcp, TCP } from '../conntrack/tcp.ts';
import { CFG_GENERIC, CFG_GRE_STREAM, CFG_TCP, CFG_UDP, CFG_UDP_STREAM } from '../conntrack/timeouts.ts';
import { FLOWS_CARRIED, FLOWS_INSTALLED, FLOWS_PENDING, FLOWS_PRIORITY } from './engine.ts';
import { ENGINE_IDLE, PRIORITY_STREAM } from './policy.ts';
import {
  AUX_CONN_GEN,
  AUX_INSTALLED,
  AUX_PRIORITY,
  AUX_RATE,
  AUX_SEEN_BYTES,
  AUX_SEEN_PACKETS,
  AUX_WORDS,
  F4_BYTES,
  F4_CONN,
  F4_LAST,
  F4_PACKETS,
  F6_BYTES,
  F6_CONN,
  F6_LAST,
  F6_PACKETS,
  type FlowTable,
  newFlowSpec,
} from './table.ts';

/** Every entry is visited in this time, ms: short enough that 32-bit byte counts do not wrap at 10 Gbit/s. */
export const AGING_PERIOD = 2000;
/** Entries visited in one turn at most. */
export const AGING_SLICE = 1024;
/**
 * A visit costs a handful of cache misses. With more than 100,000 entries the round takes longer than AGING_PERIOD, which leaves
 * at least nine tenths of a core to packets; a single flow's 32-bit byte count then needs a correspondingly lower rate.
 */
const MAX_VISITS_PER_MS = 50;
/** Entries whose lines are touched together. */
const GROUP = 32;
/** An entry that has carried this many packets a second, after this long, ms, is a stream whatever it says. */
const STREAM_RATE = 20;
const STREAM_AGE = 5000;
const ESP = 50;
/** So many packets cannot have made a byte count wrap. */
const MOST_COUNTED = 0xffff;
const PENDING = FLOWS_PENDING | (FLOWS_PENDING << 1);

export { ENGINE_IDLE, FLOWS_CARRIED };

export class OffloadAging {
  private readonly table: ConntrackTable;
  private readonly flows: FlowTable;
  private readonly cfg: Int32Array;
  /** Bit of this table's entries in CT_FLOWS: 1 << (2 × level + direction). */
  private readonly level: number;
  private turned: number;
  private debt = 0;
  /** Connections of a group's entries; and what its touches have read, kept so that they are not optimised away. */
  private readonly owners = new Int32Array(GROUP);
  sink = 0;
  private readonly spec = newFlowSpec();
  /** In verify mode the slow path counts every packet itself: entries then add nothing. */
  counts = true;

  constructor(table: ConntrackTable, flows: FlowTable, cfg: Int32Array, level: number, now: number) {
    this.table = table;
    this.flows = flows;
    this.cfg = cfg;
    this.level = level;
    this.turned = now;
  }

  /** Visits as many entries as are due. Returns how many. */
  turn(now: number): number {
    const elapsed = (now - this.turned) | 0;
    if (elapsed <= 0) return 0;
    this.turned = now;
    const live = this.flows.liveCount(4) + this.flows.liveCount(6);
    if (live === 0) {
      this.debt = 0;
      return 0;
    }
    this.debt += Math.min((elapsed * live) / AGING_PERIOD, elapsed * MAX_VISITS_PER_MS);
    let visits = Math.min(Math.ceil(this.debt), live, AGING_SLICE);
    this.debt = Math.min(Math.max(0, this.debt - visits), live);
    const total = visits;
    const six = Math.ceil((visits * this.flows.liveCount(6)) / live);
    this.visitNext(6, six, now);
    visits -= six;
    this.visitNext(4, visits, now);
    return total;
  }

  /** Visits the next entries of a family; a group's lines are touched before, so that their misses overlap. */
  private visitNext(family: number, visits: number, now: number): void {
    for (let n = 0; n < visits; n++) {
      if (n % GROUP === 0) this.touch(family, Math.min(GROUP, visits - n));
      const place = this.flows.nextLive(family);
      // Another thread may have taken the last one out just now.
      if (place < 0) return;
      this.visit(family, place, now);
    }
  }

  private touch(family: number, n: number): void {
    const { flows, owners } = this;
    const four = family === 4;
    const entries = four ? flows.words4 : flows.words6;
    const aux = four ? flows.aux4 : flows.aux6;
    let sink = 0;
    for (let k = 0; k < n; k++) {
      const place = flows.upcoming(family, k);
      owners[k] = 0;
      if (place < 0) continue;
      sink ^= aux[place * AUX_WORDS];
      owners[k] = entries[four ? (place << 4) + F4_CONN : (place << 5) + F6_CONN] >> 1;
    }
    const { words } = this.table;
    for (let k = 0; k < n; k++) {
      const c = owners[k] * CT_WORDS;
      sink ^= words[c + CT_STATUS] ^ words[c + CT_FLOWS];
    }
    this.sink = sink;
  }

  /** Visits every entry: before a dump, and after a leap of a virtual clock. */
  all(now: number): void {
    for (const family of [4, 6]) {
      const list = family === 4 ? this.flows.live4 : this.flows.live6;
      // Removal moves the last into the gap: from the end no entry is missed.
      for (let n = this.flows.liveCount(family) - 1; n >= 0; n--) this.visit(family, list[n], now);
    }
    this.turned = now;
  }

  /** Harvests an entry, and takes it out when it is idle or its connection is gone. */
  visit(family: number, place: number, now: number): void {
    const index = this.harvest(family, place);
    if (index < 0) {
      this.remove(family, place);
      return;
    }
    const four = family === 4;
    const last = four ? this.flows.words4[(place << 4) + F4_LAST] : this.flows.words6[(place << 5) + F6_LAST];
    if (((now - last) | 0) >= ENGINE_IDLE) this.evict(family, place);
    else if (four) this.promote(index, this.flows.aux4, place, this.flows.words4[(place << 4) + F4_PACKETS], now);
    else this.promote(index, this.flows.aux6, place, this.flows.words6[(place << 5) + F6_PACKETS], now);
  }

  /** Rate and age make a stream of a connection, whatever it has said; an entry has the priority of its connection. */
  private promote(index: number, aux: Int32Array, place: number, packets: number, now: number): void {
    const w = this.table.words;
    const flows = index * CT_WORDS + CT_FLOWS;
    const a = place * AUX_WORDS;
    let priority = (w[flows] >> FLOWS_PRIORITY) & 15;
    const age = (now - aux[a + AUX_INSTALLED]) | 0;
    if (priority < PRIORITY_STREAM && age >= STREAM_AGE && (packets >>> 0) * 1000 >= STREAM_RATE * age) {
      priority = PRIORITY_STREAM;
      w[flows] = (w[flows] & ~(15 << FLOWS_PRIORITY)) | (priority << FLOWS_PRIORITY);
    }
    if (priority > aux[a + AUX_PRIORITY]) aux[a + AUX_PRIORITY] = priority;
  }

  /** Takes an entry out, with its last counts; its connection goes on by the slow path. */
  evict(family: number, place: number): void {
    this.flows.withdraw(family, place);
    const index = this.harvest(family, place);
    if (index < 0) this.remove(family, place);
    else this.leave(family, place, index);
  }

  /** Connection << 1 | direction of an entry, −1 when that connection is gone. */
  ownerOf(family: number, place: number): number {
    const four = family === 4;
    const link = four ? this.flows.words4[(place << 4) + F4_CONN] : this.flows.words6[(place << 5) + F6_CONN];
    const aux = four ? this.flows.aux4 : this.flows.aux6;
    return this.lives((link >> 1) * CT_WORDS, aux[place * AUX_WORDS + AUX_CONN_GEN]) ? link : -1;
  }

  private lives(c: number, generation: number): boolean {
    const w = this.table.words;
    return w[c + CT_GEN] === generation && (w[c + CT_STATUS] & (IPS_CONFIRMED | IPS_DYING)) === IPS_CONFIRMED;
  }

  /** Adds an entry's counts since the last harvest to its connection. Returns the connection, −1 when it is gone. */
  harvest(family: number, place: number): number {
    const four = family === 4;
    const { flows, table } = this;
    const w = four ? flows.words4 : flows.words6;
    const e = four ? place << 4 : place << 5;
    const aux = four ? flows.aux4 : flows.aux6;
    const a = place * AUX_WORDS;
    const link = w[e + (four ? F4_CONN : F6_CONN)];
    const index = link >> 1;
    const dir = link & 1;
    const c = index * CT_WORDS;
    if (!this.lives(c, aux[a + AUX_CONN_GEN])) return -1;
    const beyond = flows.collect(family, place);
    const packets = w[e + (four ? F4_PACKETS : F6_PACKETS)];
    const bytes = w[e + (four ? F4_BYTES : F6_BYTES)];
    // Exchanged, so that two workers that look at the same moment add every packet once.
    const newPackets = (packets - Atomics.exchange(aux, a + AUX_SEEN_PACKETS, packets)) | 0;
    if (newPackets !== 0) {
      const newBytes = bytes - Atomics.exchange(aux, a + AUX_SEEN_BYTES, bytes);
      if (this.counts) {
        const f = index * CT_F64 + CT_F64_PACKETS + dir;
        table.doubles[f] += newPackets;
        table.doubles[f + 2] += (newPackets > 0 ? newBytes >>> 0 : newBytes | 0) + beyond;
      }
      Atomics.or(table.words, c + CT_FLOWS, FLOWS_CARRIED);
      this.extend(index, c, w[e + (four ? F4_LAST : F6_LAST)]);
    }
    aux[a + AUX_RATE] = newPackets;
    return index;
  }

  /** Moves the connection's deadline to `last` plus its timeout. */
  private extend(index: number, c: number, last: number): void {
    const w = this.table.words;
    const status = w[c + CT_STATUS];
    if ((status & IPS_FIXED_TIMEOUT) !== 0) return;
    const proto = w[c + CT_KEY] & 0xff;
    const cfg = this.cfg;
    let timeout = cfg[CFG_GENERIC];
    if (proto === 6) timeout = cfg[CFG_TCP + (w[c + CT_STATE] & 0xff)];
    else if (proto === 17) {
      // A flow that still answers two seconds after its start is a stream, as in conntrack/udp.ts.
      const stream = (status & IPS_ASSURED) !== 0 || ((last - w[c + CT_STATE]) | 0) > 0;
      timeout = stream ? cfg[CFG_UDP_STREAM] : cfg[CFG_UDP];
      if (stream && (status & IPS_ASSURED) === 0) Atomics.or(w, c + CT_STATUS, IPS_ASSURED);
    } else if (proto === 47) timeout = cfg[CFG_GRE_STREAM];
    const deadline = (last + timeout) | 0;
    if (((deadline - w[index * CT_WORDS + CT_DEADLINE]) | 0) > 0) w[c + CT_DEADLINE] = deadline;
  }

  /** An entry leaves the engine; with its last entry the connection goes back to conntrack's collector. */
  leave(family: number, place: number, index: number): void {
    const c = index * CT_WORDS;
    const link = family === 4 ? this.flows.words4[(place << 4) + F4_CONN] : this.flows.words6[(place << 5) + F6_CONN];
    this.remove(family, place);
    this.unmark(c, 1 << (2 * this.level + (link & 1)));
  }

  /**
   * Clears bits of CT_FLOWS. When the last entry has left, conntrack's collector sees the connection again, and TCP
   * learns its windows anew.
   */
  private unmark(c: number, bits: number): void {
    const w = this.table.words;
    const before = Atomics.and(w, c + CT_FLOWS, ~bits);
    if ((before & ~bits & FLOWS_INSTALLED) !== 0 || (before & FLOWS_INSTALLED) === 0) return;
    if ((before & FLOWS_CARRIED) !== 0) {
      Atomics.and(w, c + CT_FLOWS, ~FLOWS_CARRIED);
      if ((w[c + CT_KEY] & 0xff) === TCP) relearnTcp(w, c);
    }
    Atomics.and(w, c + CT_STATUS, ~IPS_OFFLOAD);
  }

  /** Takes all entries of a connection out, with their counts (it ended, or left the engine), and those still to come. */
  drop(index: number): void {
    this.dropDirection(index, 0);
    this.dropDirection(index, 1);
    this.unmark(index * CT_WORDS, PENDING);
  }

  /** Takes the entry of one direction out. */
  dropDirection(index: number, dir: number): void {
    const w = this.table.words;
    const c = index * CT_WORDS;
    const bit = 1 << (2 * this.level + dir);
    if ((w[c + CT_FLOWS] & bit) === 0) return;
    const place = this.placeOf(index, dir);
    if (place >= 0) {
      const family = (w[c + CT_KEY] >> 8) & 15;
      this.flows.withdraw(family, place);
      this.harvest(family, place);
      this.remove(family, place);
    }
    this.unmark(c, bit);
  }

  /** Harvests the entries of one connection. Returns the packets that the engine had forwarded since the last time. */
  settle(index: number): number {
    const w = this.table.words;
    const c = index * CT_WORDS;
    const family = (w[c + CT_KEY] >> 8) & 15;
    const aux = family === 4 ? this.flows.aux4 : this.flows.aux6;
    let packets = 0;
    for (let dir = 0; dir < 2; dir++) {
      if ((w[c + CT_FLOWS] & (1 << (2 * this.level + dir))) === 0) continue;
      const place = this.placeOf(index, dir);
      if (place < 0 || this.harvest(family, place) < 0) continue;
      packets += aux[place * AUX_WORDS + AUX_RATE];
    }
    return packets;
  }

  /**
   * Bytes that the engine has carried in a direction since its entry was made, −1 when there is no entry or they are
   * too many to say: sequence numbers have 32 bits.
   */
  carried(index: number, dir: number): number {
    const w = this.table.words;
    const c = index * CT_WORDS;
    if ((w[c + CT_FLOWS] & (1 << (2 * this.level + dir))) === 0) return -1;
    const place = this.placeOf(index, dir);
    if (place < 0) return -1;
    const four = ((w[c + CT_KEY] >> 8) & 15) === 4;
    this.harvest(four ? 4 : 6, place);
    const entries = four ? this.flows.words4 : this.flows.words6;
    const e = four ? place << 4 : place << 5;
    // An IP packet has at most 64 KiB: with more packets the entry's own count may have wrapped. The connection's is no
    // smaller, and does not.
    if (entries[e + (four ? F4_PACKETS : F6_PACKETS)] >>> 0 >= MOST_COUNTED) {
      const all = this.table.doubles[index * CT_F64 + CT_F64_PACKETS + 2 + dir];
      return all > 0x7fffffff ? -1 : all;
    }
    const bytes = entries[e + (four ? F4_BYTES : F6_BYTES)];
    return bytes < 0 ? -1 : bytes;
  }

  /** Place of a connection's entry in a direction, by its tuple and the port that direction came in by; −1: none. */
  placeOf(index: number, dir: number): number {
    const w = this.table.words;
    const c = index * CT_WORDS;
    const t = c + (dir << 2);
    const spec = this.spec;
    spec.proto = w[c + CT_KEY] & 0xff;
    spec.family = (w[c + CT_KEY] >> 8) & 15;
    // An ESP entry is keyed by SPI, which the programmer has noted in the record.
    spec.ports = spec.proto === ESP ? w[c + CT_TCP + dir] : w[t + CT_O_PORTS];
    spec.inPort = ((w[c + CT_PORTS_IO] >> (dir << 3)) & 0xff) - 1;
    if (spec.family === 4) {
      spec.src[0] = w[t + CT_O_SRC];
      spec.dst[0] = w[t + CT_O_DST];
    } else
      for (let n = 0; n < 4; n++) {
        spec.src[n] = this.table.words6[index * CT6_WORDS + (dir << 3) + n];
        spec.dst[n] = this.table.words6[index * CT6_WORDS + (dir << 3) + 4 + n];
      }
    return this.flows.findSpec(spec);
  }

  private remove(family: number, place: number): void {
    this.flows.remove(family, place, this.table.epoch());
    this.table.wantEpochs();
  }
}
