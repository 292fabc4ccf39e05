/**
 * Mangle: the alg stage. Helpers watch (conntrack/helpers), expectations open (openings.ts), this file rewrites.
 *
 * For a packet of a connection with a helper: the helper reads the payload and reports findings; for each endpoint that
 * is announced an expectation is made, with a port that is free on the translated side; the bytes that name it are
 * replaced by what the other side must see; lengths and checksums follow; and all later segments of the connection have
 * their sequence numbers, acknowledgements and SACK blocks adjusted (seqadj.ts). IPv6 and untranslated connections only open.
 *
 * A super-frame is edited as long as its length stays; one whose length must change is left to be cut by the sender: the
 * path segments it first.
 */
import {
  DEMANDS_DROP,
  FIND_CLOSE,
  FIND_DONE,
  FIND_EXPECT,
  FIND_LENGTH,
  FIND_REFRESH,
  FIND_REWRITE,
  type Finding,
  type Helper,
  newHelperContext,
  UNDERSTOOD,
} from '../conntrack/helpers/helper.ts';
import { HELPER_PPTP, HELPER_SIP, helperOf } from '../conntrack/helpers/index.ts';
import {
  CT_DEADLINE,
  CT_ESTABLISHED,
  CT_HELPER,
  CT_R_PORTS,
  CT_STATUS,
  CT_WORDS,
  IPS_DST_NAT,
  IPS_HELPER,
  IPS_SEQ_ADJUST,
  IPS_SRC_NAT,
} from '../conntrack/record.ts';
import { FRAME_NEEDS_CSUM, type Frames, META_LEN, META_WORDS } from './frames.ts';
import { GRE_CLASS_KEYS, Openings } from './openings.ts';
import { pseudoHeader, TCP, UDP } from './parse.ts';
import { be32, SequenceAdjuster } from './seqadj.ts';
import type { Tables } from './tables.ts';
import { swap16 } from './wire/bytes.ts';
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

export class Mangler extends Openings {
  readonly sequence: SequenceAdjuster;
  /** Packets that helpers have read, did not understand, and edits made. */
  inspected = 0;
  notUnderstood = 0;
  edited = 0;
  refused = 0;
  private readonly frames: Frames;
  private readonly text = new Uint8Array(MAX_PAYLOAD + 64 * TEXT_ROOM);
  private readonly address = new Int32Array(4);
  /** For each finding with a replacement: its bytes' place in `pieces`, and length. */
  private readonly pieceAt = new Int32Array(64);
  private readonly pieceLength = new Int32Array(64);
  private readonly pieces = new Uint8Array(64 * TEXT_ROOM);

  constructor(tables: Tables, frames: Frames) {
    super(tables, newHelperContext(frames.u8));
    this.sequence = new SequenceAdjuster(tables.extensions, frames);
    this.frames = frames;
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

  /** The source key of a PPTP packet (helpers/pptp.ts); false: it belongs to no call, and the helper is on. */
  greKey(p: Packet, key: number, now: number): boolean {
    const source = this.expectations.greSourceKey(p, key, now);
    if (source >= 0) {
      p.ports = p.rports = (p.ports & ~0xffff) | source;
      return true;
    }
    return (this.tables.helperPorts[ALG_OPTIONS + HELPER_PPTP] & ALG_ENABLED) === 0;
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
    x.sport = swap16(p.rports & 0xffff);
    x.dport = swap16(p.rports >>> 16);
    x.srcTranslated[0] = p.s0;
    x.srcTranslated[1] = p.s1;
    x.srcTranslated[2] = p.s2;
    x.srcTranslated[3] = p.s3;
    x.sportTranslated = swap16(p.ports & 0xffff);
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
      if (port < 0) port = f.port === x.dport ? swap16(p.ports >>> 16) : f.port;
    }
    this.pieceAt[n] = n * TEXT_ROOM;
    const length = helper.write(f, x.family, address, port, this.pieces, n * TEXT_ROOM);
    this.pieceLength[n] = length <= TEXT_ROOM ? length : -1;
  }

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
      u16[at] = swap16(total);
      if (p.family === 4) u16[(l3 + 10) >> 1] = adjust(u16[(l3 + 10) >> 1], delta(before, u16[at]));
    }
    const size = p.end - p.l4;
    if (p.proto === UDP) u16[(p.l4 + 4) >> 1] = swap16(size);
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
