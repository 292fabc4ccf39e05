/**
 * A connection under test: one record, one packet view, a virtual clock; sends segments built by the test's own frame
 * builder through the trackers as the path does, and reads the record back in words.
 *
 * The client `c` is who sends first (ORIGINAL) unless a REPEAT opened the connection anew.
 */
import { TRACK_ACCEPT, TRACK_ACCEPT_LAST, TRACK_IGNORE, TRACK_REPEAT, WHY_TEXT } from '../../conntrack/generic.ts';
import { trackNew, trackPacket } from '../../conntrack/protocols.ts';
import {
  CT_DEADLINE,
  CT_KEY,
  CT_STATE,
  CT_STATUS,
  CT_WORDS,
  IPS_ASSURED,
  IPS_CONFIRMED,
  IPS_SEEN_REPLY,
} from '../../conntrack/record.ts';
import { createTimeouts } from '../../conntrack/timeouts.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import { type Payload, type TcpOptions, tcp } from '../lib/build.ts';

export type Side = 'c' | 's';
/** Words before and behind the record, so that a write outside it is seen. */
const GUARD = 16;
const AT = GUARD;

export interface SegmentFields {
  seq?: number;
  ack?: number;
  win?: number;
  /** Payload bytes (a number: that many zeros). */
  data?: number | Payload;
  options?: TcpOptions | Uint8Array;
}

export class Conversation {
  readonly w = new Int32Array(GUARD + CT_WORDS + GUARD);
  readonly c = AT;
  readonly cfg: Int32Array;
  readonly p = new Packet();
  now = 0;
  /** True while the record is in use. */
  live = false;
  /** 1 when the server side opened the connection. */
  private turned = 0;
  /** What the last packet was answered with. */
  verdict = -1;

  constructor(overrides: Record<string, number> = {}, now = 0) {
    this.cfg = createTimeouts(overrides);
    this.now = now;
    this.w.fill(0x5a5a5a5a);
    this.w.fill(0, AT, AT + CT_WORDS);
  }

  /** One transport packet of `proto`; returns the verdict. Opens a new connection when there is none. */
  packet(side: Side, proto: number, bytes: Uint8Array, family = 4, ackOffset = 0): number {
    const p = this.p;
    // Somewhere in the arena, with other bytes around it: offsets are absolute.
    const off = 37;
    const u8 = new Uint8Array(off + bytes.length + 64).fill(0xee);
    u8.set(bytes, off);
    p.proto = proto;
    p.family = family;
    p.l4 = off;
    p.end = off + bytes.length;
    p.tcpFlags = proto === 6 ? bytes[13] : 0;
    const from = side === 's' ? 1 : 0;
    for (;;) {
      if (!this.live) {
        this.w.fill(0, AT, AT + CT_WORDS);
        this.w[AT + CT_KEY] = proto | (family << 8);
        this.turned = from;
        this.verdict = trackNew(this.w, AT, p, u8, this.now, this.cfg);
        this.live = this.verdict === TRACK_ACCEPT;
        if (this.live) this.w[AT + CT_STATUS] |= IPS_CONFIRMED;
        break;
      }
      const dir = from ^ this.turned;
      p.dir = dir;
      this.verdict = trackPacket(this.w, AT, p, u8, dir, this.now, this.cfg, ackOffset);
      if (this.verdict === TRACK_REPEAT) {
        this.live = false;
        continue;
      }
      if (this.verdict === TRACK_ACCEPT_LAST) this.live = false;
      else if (dir === 1 && this.passed) this.w[AT + CT_STATUS] |= IPS_SEEN_REPLY;
      break;
    }
    for (let n = 0; n < GUARD; n++) {
      if (this.w[n] !== 0x5a5a5a5a || this.w[AT + CT_WORDS + n] !== 0x5a5a5a5a) throw new Error('written outside');
    }
    return this.verdict;
  }

  /** One TCP segment: flags as letters (S, SA, A, PA, FA, R, RA ...). */
  tcp(side: Side, flags: string, f: SegmentFields = {}): number {
    const segment = tcp(
      {
        sport: side === 'c' ? 40_000 : 80,
        dport: side === 'c' ? 80 : 40_000,
        seq: f.seq ?? 0,
        ack: f.ack ?? 0,
        flags,
        win: f.win ?? 65_535,
        options: f.options,
      },
      typeof f.data === 'number' ? new Uint8Array(f.data) : (f.data ?? ''),
    );
    return this.packet(side, 6, segment.bytes);
  }

  /** The last packet went on. */
  get passed(): boolean {
    return this.verdict === TRACK_ACCEPT || this.verdict === TRACK_IGNORE || this.verdict === TRACK_ACCEPT_LAST;
  }

  get state(): number {
    return this.w[AT + CT_STATE];
  }

  get assured(): boolean {
    return (this.w[AT + CT_STATUS] & IPS_ASSURED) !== 0;
  }

  get replied(): boolean {
    return (this.w[AT + CT_STATUS] & IPS_SEEN_REPLY) !== 0;
  }

  get openedByServer(): boolean {
    return this.turned === 1;
  }

  /** Seconds until the deadline. */
  get left(): number {
    return ((this.w[AT + CT_DEADLINE] - this.now) | 0) / 1000;
  }

  /** Why the last packet was not simply accepted. */
  get why(): string {
    return WHY_TEXT[this.p.detail];
  }
}

/** The handshake of a client that starts at 1000 and a server that starts at 5000. */
export function established(overrides: Record<string, number> = {}, now = 0): Conversation {
  const conversation = new Conversation(overrides, now);
  conversation.tcp('c', 'S', { seq: 1000 });
  conversation.tcp('s', 'SA', { seq: 5000, ack: 1001 });
  conversation.tcp('c', 'A', { seq: 1001, ack: 5001 });
  return conversation;
}
