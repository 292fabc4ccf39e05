/**
 * Openings: what the alg stage makes of an announced endpoint beside the bytes that name it (mangle.ts): the expectation
 * (conntrack/expect.ts) with a port that is free on the translated side, and what happens to the connection that fulfils
 * it (netfilter's nf_nat_follow_master).
 *
 * PPTP's calls are expectations too, in pairs, with keys that outlive them (conntrack/helpers/pptp.ts has the picture): a
 * call ends with its keys, and with the control connection that has made it.
 */
import {
  EXP_ADDRESS,
  EXP_DEADLINE,
  EXP_DIR,
  EXP_DST,
  EXP_FLAGS,
  EXP_HELPER,
  EXP_INACTIVE,
  EXP_KEY,
  EXP_KEYMAP,
  EXP_MASTER,
  EXP_MASTER_GEN,
  EXP_PERMANENT,
  EXP_PORT,
  EXP_PORTS,
  EXP_REPLY_PORTS,
  EXP_SAVED_PORT,
  EXP_SRC,
  type ExpectSpec,
  type ExpectTable,
} from '../conntrack/expect.ts';
import type { Extensions } from '../conntrack/extensions.ts';
import { PPTP_TIMEOUT } from '../conntrack/gre.ts';
import {
  type Finding,
  FROM_ANY,
  FROM_PEER_PORT,
  type Helper,
  type HelperContext,
} from '../conntrack/helpers/helper.ts';
import { HELPER_PPTP } from '../conntrack/helpers/index.ts';
import {
  CT_DEADLINE,
  CT_HELPER,
  CT_KEY,
  CT_MASTER,
  CT_MASTER_GEN,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_R_DST,
  CT_R_PORTS,
  CT_R_SRC,
  CT_STATUS,
  CT_WORDS,
  CT6_WORDS,
  IPS_DST_NAT,
  IPS_EXPECTED,
  IPS_SRC_NAT,
  ORIGINAL,
} from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import { GRE } from './parse.ts';
import type { Tables } from './tables.ts';
import { swap16 } from './wire/bytes.ts';
import type { Packet } from './wire/packet.ts';

/** Announced ports below this one are never opened: they are services, and no client has a reason to offer one. */
const LOWEST_PORT = 1024;
/** Ports that are tried for an announced endpoint. */
const PORT_TRIES = 256;
/** Class of a call's keys, and how many of them a control connection has at most (two for each direction of a call). */
export const GRE_CLASS_KEYS = 15;
const CALL_KEYS = 8;

/** The half of the alg stage that opens; Mangler is the other. */
export class Openings {
  readonly expectations: ExpectTable;
  readonly extensions: Extensions;
  protected readonly table: ConntrackTable;
  protected readonly tables: Tables;
  /** What the helper is told of a packet, and its findings. */
  protected readonly context: HelperContext;
  /** The table of expectations had no room for this payload's last: nor will it have for the next. */
  protected full = false;
  private readonly spec: ExpectSpec;

  constructor(tables: Tables, context: HelperContext) {
    this.tables = tables;
    this.table = tables.conntrack;
    this.expectations = tables.expectations;
    this.extensions = tables.extensions;
    this.context = context;
    this.spec = {
      key: 0,
      flags: 0,
      src: new Int32Array(4),
      dst: new Int32Array(4),
      ports: 0,
      master: 0,
      helper: 0,
      dir: 0,
      savedPort: 0,
      class: 0,
      timeout: 0,
      replyPorts: 0,
      wanted: 0,
    };
  }

  /** Marks the record of a new connection that somebody expected, and translates it as its master is translated. */
  expected(p: Packet, index: number, now: number): boolean {
    const w = this.table.words;
    const c = index * CT_WORDS;
    let n = this.expectations.match(p, w[c + CT_KEY], 0, now);
    if (n < 0 && p.proto === GRE) n = this.expectations.match(p, w[c + CT_KEY], EXP_KEYMAP, now);
    if (n < 0) return false;
    const e = this.expectations.words;
    const r = this.expectations.at(n);
    const master = e[r + EXP_MASTER] - 1;
    const m = master * CT_WORDS;
    w[c + CT_STATUS] |= IPS_EXPECTED;
    w[c + CT_MASTER] = master + 1;
    w[c + CT_MASTER_GEN] = e[r + EXP_MASTER_GEN];
    w[c + CT_HELPER] |= e[r + EXP_HELPER];
    if (p.proto === GRE) w[c + CT_DEADLINE] = (now + PPTP_TIMEOUT) | 0;
    if (p.family === 4 && (w[m + CT_STATUS] & (IPS_SRC_NAT | IPS_DST_NAT)) !== 0) {
      const t = m + (e[r + EXP_DIR] === ORIGINAL ? CT_R_SRC : CT_O_SRC);
      if (w[t] !== p.d0 || e[r + EXP_SAVED_PORT] >>> 16 !== p.ports >>> 16) {
        w[c + CT_R_SRC] = w[t];
        w[c + CT_R_PORTS] = (w[c + CT_R_PORTS] & ~0xffff) | (e[r + EXP_SAVED_PORT] >>> 16);
        w[c + CT_STATUS] |= IPS_DST_NAT;
      }
      if (w[t + 1] !== p.s0) {
        w[c + CT_R_DST] = w[t + 1];
        w[c + CT_STATUS] |= IPS_SRC_NAT;
      }
      if (e[r + EXP_REPLY_PORTS] !== 0) w[c + CT_R_PORTS] = e[r + EXP_REPLY_PORTS];
    }
    if ((e[r + EXP_FLAGS] & (EXP_PERMANENT | EXP_KEYMAP)) === 0) {
      this.expectations.remove(n);
      // The two directions of a PPTP call exclude each other: the connection serves both.
      if (p.proto === GRE) this.expectations.removeOf(master, 0);
    }
    return true;
  }

  /** A connection ended: what it expected and what it kept go with it. */
  released(index: number): void {
    const helper = this.table.words[index * CT_WORDS + CT_HELPER];
    if (helper === 0) return;
    // Not ended here and now: whoever collects the master may be walking the list that the calls stand in.
    if ((helper & 0xff) === HELPER_PPTP) this.endCalls(index, false);
    this.expectations.removeOf(index, -1);
    this.extensions.release(index);
  }

  /** The address by which the receiver of this packet must know an announced endpoint: the sender's own, translated. */
  protected announcedAs(f: Finding): Int32Array {
    const x = this.context;
    const own =
      f.address[0] === x.src[0] && f.address[1] === x.src[1] && f.address[2] === x.src[2] && f.address[3] === x.src[3];
    return own ? x.srcTranslated : f.address;
  }

  /** The port outside of an endpoint that this connection has announced; reverse: its own port, by the one outside; −1: none. */
  protected announcedPort(p: Packet, f: Finding, now: number): number {
    const { expectations } = this;
    const n =
      f.reverse === 0
        ? expectations.findAnnounced(p.ct, (f.port << 16) | 1, f.proto, now)
        : expectations.findOpened(p.ct, swap16(f.port) << 16, f.proto, now);
    if (n < 0) return -1;
    const r = expectations.at(n);
    return swap16(expectations.words[r + (f.reverse === 0 ? EXP_PORTS : EXP_SAVED_PORT)] >>> 16);
  }

  /**
   * Makes the expectation of a finding. Returns the port by which the other side knows the endpoint, or −1 when it could
   * not be made. A port is kept when it is free among the expectations, else the next free one is taken (as nf_nat_ftp).
   */
  protected expect(p: Packet, helper: Helper, f: Finding, now: number): number {
    if (this.full) return -1;
    if (f.proto === GRE) return this.expectCall(p, f, now);
    const x = this.context;
    // What names itself in text may name anything; where nothing is named (TFTP) it is the connection's own port.
    if (f.port < LOWEST_PORT && f.port !== x.sport) return -1;
    const spec = this.spec;
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const own = this.announcedAs(f) === x.srcTranslated;
    spec.key = f.proto | (f.family << 8) | (w[c + CT_KEY] & 0xffff0000);
    spec.flags = (f.who === FROM_ANY ? 0 : EXP_ADDRESS) | (f.permanent !== 0 ? EXP_PERMANENT : 0);
    if (f.pending !== 0) spec.flags |= EXP_INACTIVE;
    if (f.who === FROM_PEER_PORT) spec.flags |= EXP_PORT;
    spec.master = p.ct;
    spec.helper = f.helper;
    // The expected connection comes from the other side.
    spec.dir = p.dir ^ 1;
    spec.class = f.class;
    spec.timeout = f.timeout;
    spec.replyPorts = 0;
    spec.wanted = (f.port << 16) | 1;
    for (let k = 0; k < 4; k++) {
      // Who may come: the peer as it appears on its own side, which is where this packet's receiver is.
      spec.src[k] = f.peerGiven !== 0 ? f.peer[k] : k === 0 ? p.d0 : k === 1 ? p.d1 : k === 2 ? p.d2 : p.d3;
      spec.dst[k] = own ? x.srcTranslated[k] : f.address[k];
    }
    spec.savedPort = swap16(f.port) << 16;
    const known = this.expectations.findAnnounced(p.ct, spec.wanted, f.proto, now);
    if (known >= 0) {
      // Announced before (a retransmission, a re-INVITE): the same answer, and its time begins anew.
      const port = swap16(this.expectations.words[this.expectations.at(known) + EXP_PORTS] >>> 16);
      spec.ports = (swap16(port) << 16) | swap16(f.peerPort);
      this.expectations.add(spec, this.limitOf(helper, f), now);
      return port;
    }
    const translate = x.nat && own;
    const first = f.translatedPort >= 0 ? f.translatedPort : f.port;
    const step = f.count > 1 ? f.count : 1;
    const limit = this.limitOf(helper, f);
    for (
      let tries = 0, port = first;
      tries < PORT_TRIES && port > 0 && port + step - 1 < 65536;
      tries++, port += step
    ) {
      let made = 0;
      for (; made < step; made++) {
        spec.ports = (swap16(port + made) << 16) | swap16(f.peerPort);
        spec.savedPort = swap16(f.port + made) << 16;
        spec.wanted = ((f.port + made) << 16) | 1;
        const result = this.expectations.add(spec, limit, now);
        if (result < 0) {
          if (result === -2) {
            this.full = true;
            return -1;
          }
          break;
        }
      }
      if (made === step) return port;
      if (!translate || f.translatedPort >= 0) return -1;
    }
    return -1;
  }

  private limitOf(helper: Helper, f: Finding): number {
    const limit = f.class < helper.limits.length ? helper.limits[f.class] : 1;
    return limit < f.count ? f.count : limit;
  }

  // --- PPTP's calls ----------------------------------------------------------------------------------------------------

  /** One direction of a PPTP call (helpers/pptp.ts has the picture), and its keys. */
  private expectCall(p: Packet, f: Finding, now: number): number {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const spec = this.spec;
    const toServer = f.reverse === 0;
    const toKey = toServer ? f.port : f.translatedPort >= 0 ? f.translatedPort : f.port;
    const fromKey = toServer ? f.peerPort : f.peerTranslatedPort >= 0 ? f.peerTranslatedPort : f.peerPort;
    const replyTo = toServer ? (f.peerTranslatedPort >= 0 ? f.peerTranslatedPort : f.peerPort) : f.peerPort;
    const replyFrom = f.port;
    spec.key = GRE | (4 << 8) | (w[c + CT_KEY] & 0xffff0000);
    spec.flags = EXP_ADDRESS | EXP_PORT;
    spec.master = p.ct;
    spec.helper = 0;
    spec.dir = toServer ? 0 : 1;
    spec.class = 0;
    spec.timeout = f.timeout;
    spec.savedPort = swap16(f.port) << 16;
    spec.wanted = (toKey << 16) | (toServer ? 2 : 3);
    // The addresses of the master's tuple in the direction in which the call's packets travel.
    const t = toServer ? c + CT_O_SRC : c + CT_R_SRC;
    spec.src.fill(0);
    spec.dst.fill(0);
    spec.src[0] = w[t];
    spec.dst[0] = w[t + 1];
    spec.ports = (swap16(toKey) << 16) | swap16(fromKey);
    // Reply tuple's ports: source key in the low half.
    spec.replyPorts = swap16(replyFrom) | (swap16(replyTo) << 16);
    if (this.expectations.add(spec, 2, now) < 0) return -1;
    spec.flags |= EXP_KEYMAP;
    spec.class = GRE_CLASS_KEYS;
    spec.timeout = 1_000_000;
    this.spareKeys(p.ct);
    this.expectations.add(spec, CALL_KEYS, now);
    return toKey;
  }

  /** A control connection with all the keys that it may have: the oldest will give way, and their call ends with them. */
  private spareKeys(master: number): void {
    const { expectations } = this;
    const e = expectations.words;
    let count = 0;
    let oldest = -1;
    for (let n = expectations.callKeys(master, 0); n >= 0; n = expectations.callKeys(master, n + 1)) {
      count++;
      const age = oldest < 0 ? -1 : e[expectations.at(n) + EXP_DEADLINE] - e[expectations.at(oldest) + EXP_DEADLINE];
      if ((age | 0) < 0) oldest = n;
    }
    if (count >= CALL_KEYS) this.endCall(oldest, true);
  }

  /**
   * A control connection's calls are over: their GRE connections end, at once or as soon as they are collected. They are
   * found by the calls' keys, which are their tuples: one that has lost its keys gets no packet any more. Asked before the
   * keys go.
   */
  protected endCalls(master: number, atOnce: boolean): void {
    const { expectations } = this;
    for (let n = expectations.callKeys(master, 0); n >= 0; n = expectations.callKeys(master, n + 1))
      this.endCall(n, atOnce);
  }

  /** Ends the GRE connection of the keys in record `n`, if there is one. */
  private endCall(n: number, atOnce: boolean): void {
    const e = this.expectations.words;
    const r = this.expectations.at(n);
    const found = this.table.peek4(e[r + EXP_SRC], e[r + EXP_DST], e[r + EXP_PORTS], e[r + EXP_KEY]);
    if (found < 0) return;
    const c = (found >> 1) * CT_WORDS;
    const w = this.table.words;
    if (w[c + CT_MASTER] !== e[r + EXP_MASTER] || w[c + CT_MASTER_GEN] !== e[r + EXP_MASTER_GEN]) return;
    if (atOnce) this.endConnection(found >> 1);
    else w[c + CT_DEADLINE] = (this.tables.now() - 1) | 0;
  }

  /** Deletes a connection and reports it; set by the path. */
  endConnection: (index: number) => void = () => {};
}

// Tuples are read as source, destination, ports side by side; IPv6 addresses are beside the record.
if (CT_R_DST - CT_R_SRC !== CT_O_DST - CT_O_SRC || CT_O_PORTS - CT_O_SRC !== 2 || CT6_WORDS !== 16)
  throw new Error('conntrack/record.ts: expected both tuples laid out alike');
