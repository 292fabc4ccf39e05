/**
 * Mangle: the alg stage. Helpers watch (conntrack/helpers), expectations open (conntrack/expect.ts), this file rewrites.
 *
 * For a packet of a connection with a helper: the helper reads the payload and reports findings; for each endpoint that
 * is announced an expectation is made, with a port that is free on the translated side; the bytes that name it are
 * replaced by what the other side must see; lengths and checksums follow; and all later segments of the connection have
 * their sequence numbers, acknowledgements and SACK blocks adjusted (seqadj.ts). IPv6 and untranslated connections only open.
 *
 * Also here, because it is the other half of an expectation: what happens to the connection that fulfils it (netfilter's
 * nf_nat_follow_master), and the source key of PPTP's GRE packets.
 *
 * A super-frame is edited as long as its length stays; one whose length must change is left to be cut by the sender: the
 * path segments it first.
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
  DEMANDS_DROP,
  FIND_CLOSE,
  FIND_DONE,
  FIND_EXPECT,
  FIND_LENGTH,
  FIND_REFRESH,
  FIND_REWRITE,
  type Finding,
  FROM_ANY,
  FROM_PEER_PORT,
  type Helper,
  type HelperContext,
  newHelperContext,
  UNDERSTOOD,
} from '../conntrack/helpers/helper.ts';
import { HELPER_PPTP, HELPER_SIP, helperOf } from '../conntrack/helpers/index.ts';
import {
  CT_DEADLINE,
  CT_ESTABLISHED,
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
  IPS_HELPER,
  IPS_SEQ_ADJUST,
  IPS_SRC_NAT,
  ORIGINAL,
} from '../conntrack/record.ts';
import type { ConntrackTable } from '../conntrack/table.ts';
import { FRAME_NEEDS_CSUM, type Frames, META_LEN, META_WORDS } from './frames.ts';
import { GRE, pseudoHeader, TCP, UDP } from './parse.ts';
import { be32, SequenceAdjuster } from './seqadj.ts';
import type { Tables } from './tables.ts';
import type { Packet } from './wire/packet.ts';
import { adjust, delta, fold, sumRange } from './wire/sum.ts';

/** Results of the stage. */
export const ALG_PASS = 0;
export const ALG_REFUSED = 1;
/** The edit does not fit, or there are several datagrams in one: segment the super-frame and come again. */
export const ALG_SEGMENT = 2;

/** Options behind the ports in the helperPorts buffer: one byte of ALG_* per helper number. */
export const ALG_OPTIONS = 2 * 65536;
export const ALG_LOOSE = 1;
export const ALG_BOUNCE = 2;
export const ALG_ENABLED = 4;

/** Milliseconds that a connection of SIP lives after a message, as with netfilter's helper (sip_timeout). */
const SIP_TIMEOUT = 3_600_000;
/** Longest payload that is edited: any, also a super-frame's. */
const MAX_PAYLOAD = 65535;
const TEXT_ROOM = 128;
/** Announced ports below this one are never opened: they are services, and no client has a reason to offer one. */
const LOWEST_PORT = 1024;
/** Ports that are tried for an announced endpoint. */
const PORT_TRIES = 256;
/** Class of a call's keys, and how many of them a control connection has at most (two for each direction of a call). */
const GRE_CLASS_KEYS = 15;
const CALL_KEYS = 8;

export class Mangler {
  readonly expectations: ExpectTable;
  readonly extensions: Extensions;
  readonly sequence: SequenceAdjuster;
  /** Packets that helpers have read, did not understand, and edits made. */
  inspected = 0;
  notUnderstood = 0;
  edited = 0;
  refused = 0;
  private readonly table: ConntrackTable;
  private readonly tables: Tables;
  private readonly frames: Frames;
  private readonly context: HelperContext;
  private readonly spec: ExpectSpec;
  private readonly text = new Uint8Array(MAX_PAYLOAD + 64 * TEXT_ROOM);
  private readonly address = new Int32Array(4);
  /** The table of expectations had no room for this payload's last: nor will it have for the next. */
  private full = false;
  /** For each finding with a replacement: its bytes' place in `pieces`, and length. */
  private readonly pieceAt = new Int32Array(64);
  private readonly pieceLength = new Int32Array(64);
  private readonly pieces = new Uint8Array(64 * TEXT_ROOM);

  constructor(tables: Tables, frames: Frames) {
    this.tables = tables;
    this.table = tables.conntrack;
    this.expectations = tables.expectations;
    this.extensions = tables.extensions;
    this.sequence = new SequenceAdjuster(tables.extensions, frames);
    this.frames = frames;
    this.context = newHelperContext(frames.u8);
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

  // --- a new connection ------------------------------------------------------------------------------------------------

  /**
   * Gives a new connection the helper that its port or its filter rule names. A rule's counts for the helper's own protocols
   * (a rule may be for all), and while the helper is on.
   */
  assign(p: Packet, byRule: number): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    if ((w[c + CT_HELPER] & 0xff) !== 0) return;
    const reply = w[c + CT_R_PORTS];
    const port = ((reply & 0xff) << 8) | ((reply >> 8) & 0xff);
    const rule = this.attaches(byRule, p.proto);
    const helper = rule ? byRule : this.tables.helperFor(p.proto, port);
    if (helper === 0) return;
    w[c + CT_HELPER] |= helper;
    if (rule) w[c + CT_STATUS] |= IPS_HELPER;
  }

  private attaches(helper: number, proto: number): boolean {
    if (helper === 0 || (this.tables.helperPorts[ALG_OPTIONS + helper] & ALG_ENABLED) === 0) return false;
    return helperOf(helper)?.protocols.includes(proto) ?? false;
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

  /** The source key of a PPTP packet (helpers/pptp.ts); false: it belongs to no call, and the helper is on. */
  greKey(p: Packet, key: number, now: number): boolean {
    const source = this.expectations.greSourceKey(p, key, now);
    if (source >= 0) {
      p.ports = p.rports = (p.ports & ~0xffff) | source;
      return true;
    }
    return (this.tables.helperPorts[ALG_OPTIONS + HELPER_PPTP] & ALG_ENABLED) === 0;
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

  // --- the stage ----------------------------------------------------------------------------------------------------------

  /** Inspects and edits a packet of a connection with a helper; adjusts sequence numbers. */
  stage(p: Packet, now: number): number {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    const helper = helperOf(w[c + CT_HELPER] & 0xff);
    const u8 = this.frames.u8;
    let result = ALG_PASS;
    if (helper !== null && p.innerL3 === 0) {
      const from = p.proto === TCP ? p.l4 + ((u8[p.l4 + 12] >> 4) << 2) : p.l4 + 8;
      // Each datagram of a super-frame is a message of its own.
      if (p.proto === UDP && p.gsoType !== 0) return ALG_SEGMENT;
      // A TCP helper begins to read once the connection is established, as netfilter's do.
      if (from < p.end && (p.proto === UDP || (p.proto === TCP && p.ctinfo === CT_ESTABLISHED))) {
        result = this.inspect(p, helper, from, now);
        // A registration must outlive the pauses between its refreshes, whatever the transport's own timeout is.
        if (helper.number === HELPER_SIP) w[c + CT_DEADLINE] = (now + SIP_TIMEOUT) | 0;
      }
    }
    if (result === ALG_PASS && p.proto === TCP && (w[c + CT_STATUS] & IPS_SEQ_ADJUST) !== 0) this.sequence.adjust(p);
    return result;
  }

  private inspect(p: Packet, helper: Helper, from: number, now: number): number {
    const extension = this.extensions.of(p.ct);
    if (extension < 0) return ALG_PASS;
    const x = this.context;
    const options = this.tables.helperPorts[ALG_OPTIONS + helper.number];
    x.from = from;
    x.to = p.end;
    x.dir = p.dir;
    x.family = p.family;
    x.proto = p.proto;
    x.loose = (options & ALG_LOOSE) !== 0;
    x.bounce = (options & ALG_BOUNCE) !== 0;
    x.seq = p.proto === TCP ? be32(this.frames.u8, p.l4 + 4) : 0;
    x.again = p.proto === TCP && this.extensions.isAgain(extension, p.dir, x.seq);
    x.state = this.extensions.words;
    x.stateAt = extension;
    x.count = 0;
    this.endpoints(p);
    this.inspected++;
    const result = helper.inspect(x);
    if (result === DEMANDS_DROP) return ALG_REFUSED;
    if (result !== UNDERSTOOD) this.notUnderstood++;
    if (x.count === 0) return ALG_PASS;
    return this.apply(p, helper, now);
  }

  /** The packet's two ends, as its sender and as its receiver know them. */
  private endpoints(p: Packet): void {
    const x = this.context;
    x.src[0] = p.rs0;
    x.src[1] = p.rs1;
    x.src[2] = p.rs2;
    x.src[3] = p.rs3;
    x.dst[0] = p.rd0;
    x.dst[1] = p.rd1;
    x.dst[2] = p.rd2;
    x.dst[3] = p.rd3;
    x.sport = swap(p.rports & 0xffff);
    x.dport = swap(p.rports >>> 16);
    x.srcTranslated[0] = p.s0;
    x.srcTranslated[1] = p.s1;
    x.srcTranslated[2] = p.s2;
    x.srcTranslated[3] = p.s3;
    x.sportTranslated = swap(p.ports & 0xffff);
    const status = this.table.words[p.ct * CT_WORDS + CT_STATUS];
    x.nat = (status & (IPS_SRC_NAT | IPS_DST_NAT)) !== 0;
  }

  /** Turns findings into expectations and replacements, then edits the payload. */
  private apply(p: Packet, helper: Helper, now: number): number {
    const x = this.context;
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    let edits = 0;
    let change = 0;
    this.full = false;
    for (let n = 0; n < x.count; n++) {
      const f = x.findings[n];
      this.pieceLength[n] = -1;
      switch (f.kind) {
        case FIND_EXPECT: {
          const port = this.expect(p, helper, f, now);
          if (port < 0) this.refused++;
          else if (x.nat && f.to > f.from) this.replace(helper, f, n, port);
          break;
        }
        case FIND_REWRITE:
          if (x.nat && f.to > f.from) this.rewriteEndpoint(p, helper, f, n, now);
          break;
        case FIND_CLOSE:
          if (helper.number === HELPER_PPTP) {
            this.endCalls(p.ct, true);
            this.expectations.removeOf(p.ct, GRE_CLASS_KEYS);
          }
          this.expectations.removeOf(p.ct, f.class);
          break;
        case FIND_DONE:
          // Its time is over from the next millisecond on; this packet still needs the record.
          w[c + CT_DEADLINE] = (now - 1) | 0;
          break;
        case FIND_REFRESH:
          this.expectations.prolong(p.ct, f.class, f.timeout, now);
          break;
        case FIND_LENGTH:
          break;
      }
      if (this.pieceLength[n] >= 0) {
        edits++;
        change += this.pieceLength[n] - (f.to - f.from);
      }
    }
    if (edits === 0) return ALG_PASS;
    // Length fields follow what changed inside the bytes that they count.
    for (let n = 0; n < x.count; n++) {
      const f = x.findings[n];
      if (f.kind !== FIND_LENGTH) continue;
      let inside = 0;
      for (let k = 0; k < x.count; k++)
        if (this.pieceLength[k] >= 0 && x.findings[k].from >= f.bodyFrom && x.findings[k].to <= f.bodyTo)
          inside += this.pieceLength[k] - (x.findings[k].to - x.findings[k].from);
      if (inside === 0) continue;
      this.replace(helper, f, n, f.port + inside);
      change += this.pieceLength[n] - (f.to - f.from);
    }
    if (change !== 0 && p.gsoType !== 0) return ALG_SEGMENT;
    return this.edit(p, change);
  }

  private replace(helper: Helper, f: Finding, n: number, port: number): void {
    const x = this.context;
    this.pieceAt[n] = n * TEXT_ROOM;
    const address = f.kind === FIND_LENGTH ? this.address : this.announcedAs(f);
    const length = helper.write(f, x.family, address, port, this.pieces, n * TEXT_ROOM);
    this.pieceLength[n] = length <= TEXT_ROOM ? length : -1;
  }

  /** The address by which the receiver of this packet must know an announced endpoint: the sender's own, translated. */
  private announcedAs(f: Finding): Int32Array {
    const x = this.context;
    const own =
      f.address[0] === x.src[0] && f.address[1] === x.src[1] && f.address[2] === x.src[2] && f.address[3] === x.src[3];
    return own ? x.srcTranslated : f.address;
  }

  /**
   * An endpoint of the connection itself: the sender's, or (reverse) its receiver's, as the receiver knows it. One of another
   * protocol is what this connection has announced (H.323's RAS): as that was opened, and left alone when it is not.
   */
  private rewriteEndpoint(p: Packet, helper: Helper, f: Finding, n: number, now: number): void {
    const x = this.context;
    const address = this.address;
    let port = f.translatedPort;
    if (port < 0 && f.proto !== x.proto && (port = this.announcedPort(p, f, now)) < 0) return;
    if (f.reverse === 0) {
      for (let k = 0; k < 4; k++) address[k] = x.srcTranslated[k];
      if (port < 0) port = f.port === x.sport ? x.sportTranslated : f.port;
    } else {
      address[0] = p.d0;
      address[1] = p.d1;
      address[2] = p.d2;
      address[3] = p.d3;
      if (port < 0) port = f.port === x.dport ? swap(p.ports >>> 16) : f.port;
    }
    this.pieceAt[n] = n * TEXT_ROOM;
    const length = helper.write(f, x.family, address, port, this.pieces, n * TEXT_ROOM);
    this.pieceLength[n] = length <= TEXT_ROOM ? length : -1;
  }

  /** The port outside of an endpoint that this connection has announced; reverse: its own port, by the one outside; −1: none. */
  private announcedPort(p: Packet, f: Finding, now: number): number {
    const { expectations } = this;
    const n =
      f.reverse === 0
        ? expectations.findAnnounced(p.ct, (f.port << 16) | 1, f.proto, now)
        : expectations.findOpened(p.ct, swap(f.port) << 16, f.proto, now);
    if (n < 0) return -1;
    const r = expectations.at(n);
    return swap(expectations.words[r + (f.reverse === 0 ? EXP_PORTS : EXP_SAVED_PORT)] >>> 16);
  }

  /**
   * Makes the expectation of a finding. Returns the port by which the other side knows the endpoint, or −1 when it could
   * not be made. A port is kept when it is free among the expectations, else the next free one is taken (as nf_nat_ftp).
   */
  private expect(p: Packet, helper: Helper, f: Finding, now: number): number {
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
    spec.savedPort = swap(f.port) << 16;
    const known = this.expectations.findAnnounced(p.ct, spec.wanted, f.proto, now);
    if (known >= 0) {
      // Announced before (a retransmission, a re-INVITE): the same answer, and its time begins anew.
      const port = swap(this.expectations.words[this.expectations.at(known) + EXP_PORTS] >>> 16);
      spec.ports = (swap(port) << 16) | swap(f.peerPort);
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
        spec.ports = (swap(port + made) << 16) | swap(f.peerPort);
        spec.savedPort = swap(f.port + made) << 16;
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
    spec.savedPort = swap(f.port) << 16;
    spec.wanted = (toKey << 16) | (toServer ? 2 : 3);
    // The addresses of the master's tuple in the direction in which the call's packets travel.
    const t = toServer ? c + CT_O_SRC : c + CT_R_SRC;
    spec.src.fill(0);
    spec.dst.fill(0);
    spec.src[0] = w[t];
    spec.dst[0] = w[t + 1];
    spec.ports = (swap(toKey) << 16) | swap(fromKey);
    // Reply tuple's ports: source key in the low half.
    spec.replyPorts = swap(replyFrom) | (swap(replyTo) << 16);
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
  private endCalls(master: number, atOnce: boolean): void {
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

  // --- editing --------------------------------------------------------------------------------------------------------------

  /** Writes the new payload, whose length changes by `change`, and makes lengths and checksums right. */
  private edit(p: Packet, change: number): number {
    const x = this.context;
    const { u8, u16, i32, meta } = this.frames;
    const length = p.end - x.from + change;
    if (p.end - x.from > MAX_PAYLOAD || length > MAX_PAYLOAD + 60 * TEXT_ROOM) return ALG_PASS;
    if (this.frames.room(p.slot) < x.from + length - meta[p.slot * META_WORDS]) return ALG_REFUSED;
    // What was put together from fragments may be as long as a datagram can be: longer it cannot become (as Linux).
    if (p.end + change - p.l3 - (p.family === 4 ? 0 : 40) > MAX_PAYLOAD) return ALG_REFUSED;
    let from = x.from;
    let to = 0;
    // Findings come in the order of their place.
    for (let n = 0; n < x.count; n++) {
      const size = this.pieceLength[n];
      const f = x.findings[n];
      if (size < 0 || f.from < from) continue;
      for (; from < f.from; from++) this.text[to++] = u8[from];
      for (let k = 0; k < size; k++) this.text[to++] = this.pieces[this.pieceAt[n] + k];
      from = f.to;
    }
    for (; from < p.end; from++) this.text[to++] = u8[from];
    for (let k = 0; k < to; k++) u8[x.from + k] = this.text[k];
    const real = to - (p.end - x.from);
    p.end = x.from + to;
    meta[p.slot * META_WORDS + META_LEN] = p.end - meta[p.slot * META_WORDS];
    p.len = p.end - p.off;
    this.edited++;
    const l3 = p.l3;
    if (real !== 0) {
      const total = p.end - l3 - (p.family === 4 ? 0 : 40);
      const at = (l3 + (p.family === 4 ? 2 : 4)) >> 1;
      const before = u16[at];
      u16[at] = swap(total);
      if (p.family === 4) u16[(l3 + 10) >> 1] = adjust(u16[(l3 + 10) >> 1], delta(before, u16[at]));
    }
    const size = p.end - p.l4;
    if (p.proto === UDP) u16[(p.l4 + 4) >> 1] = swap(size);
    const field = (p.l4 + (p.proto === TCP ? 16 : 6)) >> 1;
    if ((p.flags & FRAME_NEEDS_CSUM) !== 0) {
      u16[field] = fold(pseudoHeader(p, size));
    } else if (p.proto === TCP || u16[field] !== 0) {
      // Summed anew over the received addresses; the rewrite at the path's end moves it to the effective ones.
      u16[field] = 0;
      const sum = ~fold(sumRange(u16, i32, u8, p.l4, p.end, pseudoHeader(p, size))) & 0xffff;
      u16[field] = sum === 0 && p.proto === UDP ? 0xffff : sum;
    }
    if (p.proto === TCP) {
      this.extensions.noteEdit(x.stateAt, p.dir, x.seq);
      if (real !== 0) this.extensions.record(p.ct, p.dir, x.seq, real);
    }
    return ALG_PASS;
  }

  /** True when the connection is followed or its sequence numbers are adjusted. */
  concerns(index: number): boolean {
    const w = this.table.words;
    const c = index * CT_WORDS;
    return (w[c + CT_HELPER] & 0xff) !== 0 || (w[c + CT_STATUS] & IPS_SEQ_ADJUST) !== 0;
  }
}

function swap(port: number): number {
  return ((port & 0xff) << 8) | ((port >> 8) & 0xff);
}

// Tuples are read as source, destination, ports side by side; IPv6 addresses are beside the record.
if (CT_R_DST - CT_R_SRC !== CT_O_DST - CT_O_SRC || CT_O_PORTS - CT_O_SRC !== 2 || CT6_WORDS !== 16)
  throw new Error('conntrack/record.ts: expected both tuples laid out alike');
