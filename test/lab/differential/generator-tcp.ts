/**
 * TCP conversations as they happen: two ends with sequence numbers, windows and options of their own, and a network
 * that loses, repeats and reorders. Also what does not belong: resets in and out of the window, SYNs on connections that
 * live or are over, acknowledgements of the future. Every segment has right checksums; the numbers are what varies.
 */
import { type Random, type Segment, type TcpOptions, tcp } from '../../lib/build.ts';
import type { ScenarioFrame } from './scenario.ts';

/** How the segments of a conversation become frames; ports as each end writes them. */
export interface Ends {
  /** From who opens the conversation, and from who answers. */
  initiator(make: (sport: number, dport: number) => Segment): ScenarioFrame;
  responder(make: (sport: number, dport: number) => Segment): ScenarioFrame;
}

/** What one end knows. */
interface End {
  /** Next number to send, and the number up to which the other end has it. */
  next: number;
  acked: number;
  window: number;
  scale: number;
  sack: boolean;
  stamps: boolean;
  /** Behind a FIN of its own. */
  closed: boolean;
}

interface Fields {
  seq?: number;
  ack?: number;
  win?: number;
  data?: string | Uint8Array;
  options?: TcpOptions;
}

const I = 0;
const R = 1;
type Side = 0 | 1;

class Conversation {
  readonly frames: ScenarioFrame[] = [];
  private readonly random: Random;
  private readonly ends: Ends;
  private readonly sides: [End, End];
  private clock = 1000;

  constructor(random: Random, ends: Ends) {
    this.random = random;
    this.ends = ends;
    // Numbers that wrap during the conversation are as likely as others (RFC 9293 §3.4).
    const number = () => (random.chance(0.2) ? (0 - random.int(0, 3000)) >>> 0 : random.next());
    const end = (): End => {
      const next = number();
      return {
        next,
        acked: next,
        window: random.pick([1, 512, 8192, 64240, 65535]),
        scale: random.chance(0.6) ? random.pick([0, 1, 7, 7, 14, 15]) : -1,
        sack: random.chance(0.6),
        stamps: random.chance(0.3),
        closed: false,
      };
    };
    this.sides = [end(), end()];
  }

  /** Sends a segment with the numbers that are right, unless `o` has others. `lost`: it never reaches the router. */
  send(side: Side, flags: string, o: Fields = {}, lost = false): void {
    const me = this.sides[side];
    const you = this.sides[side ^ 1];
    const seq = o.seq ?? me.next;
    const ack = flags.includes('A') ? (o.ack ?? you.acked) : (o.ack ?? 0);
    const data = o.data ?? '';
    const options = { ...o.options };
    if (me.stamps && you.stamps && !flags.includes('S') && !flags.includes('R'))
      options.timestamps = [++this.clock, this.clock - 1];
    const scaled = this.scales() && !flags.includes('S') ? me.window >> Math.min(14, me.scale) : me.window;
    const win = o.win ?? Math.min(65535, scaled);
    const make = (sport: number, dport: number) =>
      tcp({ sport, dport, flags, seq: seq >>> 0, ack: ack >>> 0, win, options }, data);
    if (!lost) this.frames.push(side === I ? this.ends.initiator(make) : this.ends.responder(make));
    if (o.seq === undefined) me.next = (seq + data.length + (/[SF]/.test(flags) ? 1 : 0)) >>> 0;
  }

  /** The other end has everything that `side` sent. */
  received(side: Side): void {
    this.sides[side].acked = this.sides[side].next;
  }

  private scales(): boolean {
    return this.sides[I].scale >= 0 && this.sides[R].scale >= 0;
  }

  private synOptions(side: Side): TcpOptions {
    const me = this.sides[side];
    return {
      mss: this.random.pick([536, 1220, 1460]),
      wscale: me.scale >= 0 ? me.scale : undefined,
      sackPermitted: me.sack,
      timestamps: me.stamps ? [++this.clock, 0] : undefined,
    };
  }

  syn(side: Side, data = ''): void {
    this.send(side, this.random.chance(0.1) ? 'SEC' : 'S', { options: this.synOptions(side), data });
    this.received(side);
  }

  synAck(side: Side): void {
    this.send(side, 'SA', { options: this.synOptions(side) });
    this.received(side);
  }

  /** Sends the last SYN or SYN/ACK of a side once more. */
  repeat(side: Side, flags: string): void {
    this.send(side, flags, { seq: this.sides[side].next - 1, options: this.synOptions(side) });
  }

  open(): void {
    const { random } = this;
    const kind = random.int(0, 99);
    if (kind < 55) this.handshake();
    else if (kind < 62) {
      // Both at once (RFC 9293 §3.5, figure 7).
      this.syn(I);
      this.syn(R);
      this.repeat(I, 'SA');
      if (random.chance(0.7)) this.repeat(R, 'SA');
      if (random.chance(0.7)) this.send(I, 'A');
      if (random.chance(0.7)) this.send(R, 'A');
    } else if (kind < 70) {
      // The router has missed the beginning.
      for (let n = random.int(1, 4); n > 0; n--) this.data(random.chance(0.5) ? I : R);
    } else if (kind < 76) {
      this.syn(I, 'fast open'.slice(0, random.int(0, 9)));
      this.synAck(R);
      this.send(I, 'A');
    } else if (kind < 83) {
      this.syn(I);
      this.send(R, random.pick(['RA', 'RA', 'R']), { seq: random.chance(0.7) ? 0 : this.sides[R].next, win: 0 });
      if (random.chance(0.4)) this.repeat(I, 'S');
    } else if (kind < 91) {
      // The far end still holds an old connection: challenge ACK, reset, a new SYN (RFC 9293 §3.5.1, figure 9).
      this.syn(I);
      const stale = random.next();
      this.send(R, 'A', { seq: this.sides[R].next, ack: stale });
      this.send(I, 'R', { seq: stale, win: 0 });
      if (random.chance(0.7)) this.repeat(I, 'S');
      if (random.chance(0.7)) {
        this.synAck(R);
        this.send(I, 'A');
      }
    } else this.stray();
  }

  private handshake(): void {
    const { random } = this;
    this.syn(I);
    if (random.chance(0.1)) this.repeat(I, 'S');
    this.synAck(R);
    if (random.chance(0.1)) this.repeat(R, 'SA');
    if (random.chance(0.1)) this.repeat(I, 'S');
    if (random.chance(0.95)) this.send(I, 'A');
  }

  private stray(): void {
    const side = this.random.chance(0.5) ? I : R;
    this.send(side, this.random.pick(['SA', 'FA', 'R', 'RA', 'A', 'PA', 'S']), { seq: this.random.next() });
  }

  private payload(): Uint8Array {
    const { random } = this;
    const size = random.chance(0.85) ? random.int(1, 40) : random.int(41, 1300);
    return new Uint8Array(size).fill(random.int(32, 126));
  }

  data(side: Side): void {
    const { random } = this;
    const data = this.payload();
    const flags = random.pick(['A', 'PA', 'PA', 'PAU', 'PAE', 'PAC']);
    const fate = random.int(0, 9);
    this.send(side, flags, { data }, fate === 0);
    if (fate > 1) this.received(side);
    if (fate <= 1 && random.chance(0.7)) {
      // It was lost: more follows, the other end complains, and it is sent again.
      const from = this.sides[side].acked;
      this.send(side, 'A', { data: this.payload() });
      this.complain((side ^ 1) as Side);
      this.send(side, 'PA', { seq: from, data });
      if (random.chance(0.8)) this.received(side);
    }
    if (random.chance(0.7)) this.send((side ^ 1) as Side, 'A');
  }

  /** Duplicate acknowledgements, with SACK blocks where both ends have agreed to them (RFC 2018, RFC 2883). */
  private complain(side: Side): void {
    const { random } = this;
    const other = this.sides[side ^ 1];
    const sack: [number, number][] = [];
    const agreed = this.sides[I].sack && this.sides[R].sack;
    if (agreed || random.chance(0.1)) {
      const left = (other.next - random.int(1, 40)) >>> 0;
      sack.push([left, other.next]);
      if (random.chance(0.3)) sack.push([(other.acked - 10) >>> 0, other.acked]);
      if (random.chance(0.1)) sack.push([other.next, (other.next + random.int(1, 70000)) >>> 0]);
    }
    for (let n = random.int(1, 3); n > 0; n--) this.send(side, 'A', sack.length > 0 ? { options: { sack } } : {});
  }

  /** What an attacker sends, or an end that has lost count. */
  private odd(): void {
    const { random } = this;
    const side: Side = random.chance(0.5) ? I : R;
    const me = this.sides[side];
    const you = this.sides[side ^ 1];
    const off = random.pick([-70000, -3000, -1, 1, 2, 1000, 60000, 200000, 0x40000000, 0x7fffffff]);
    const seq = (me.next + off) >>> 0;
    switch (random.int(0, 8)) {
      case 0:
        this.send(side, 'R', { seq, win: 0 });
        break;
      case 1:
        this.send(side, 'RA', { seq: random.chance(0.5) ? me.next : seq, win: 0 });
        break;
      case 2:
        this.send(side, 'PA', { seq, data: 'out of place' });
        break;
      case 3:
        this.send(side, 'A', { seq: me.next, ack: (you.next + off) >>> 0 });
        break;
      case 4:
        // A SYN on a living connection: a challenge ACK answers it (RFC 5961 §4).
        this.send(side, 'S', { seq: random.chance(0.5) ? seq : random.next(), options: this.synOptions(side) });
        if (random.chance(0.7)) this.send((side ^ 1) as Side, 'A');
        if (random.chance(0.4)) this.send(side, 'R', { seq: you.acked, win: 0 });
        break;
      case 5:
        this.send(side, 'SA', { seq: random.next(), ack: random.chance(0.5) ? you.next : random.next() });
        break;
      case 6:
        this.send(side, 'FA', { seq });
        break;
      case 7:
        this.send(side, 'R', { seq: me.next, win: 0 });
        if (random.chance(0.5)) this.send((side ^ 1) as Side, 'PA', { seq: you.next, data: 'after the reset' });
        break;
      case 8:
        this.send(side, random.pick(['F', 'SF', 'SR', 'FPU', 'P', 'U', 'SFRPAU']), { seq: me.next });
        break;
    }
  }

  body(): void {
    const { random } = this;
    for (let n = random.int(0, 6); n > 0; n--) {
      const side: Side = random.chance(0.5) ? I : R;
      const me = this.sides[side];
      const kind = random.int(0, 99);
      if (kind < 50) this.data(side);
      else if (kind < 60) {
        // Keep-alive: the byte before the next one, or none (RFC 9293 §3.8.4).
        this.send(side, 'A', { seq: (me.next - 1) >>> 0, data: random.chance(0.5) ? '\0' : '' });
        this.send((side ^ 1) as Side, 'A');
      } else if (kind < 66) {
        // The window closes; the other end probes with a byte, and it opens again.
        this.send(side, 'A', { win: 0 });
        const probe = (side ^ 1) as Side;
        this.send(probe, 'A', { seq: this.sides[probe].next, data: 'p' });
        if (random.chance(0.5)) this.send(side, 'A', { win: 0 });
        me.window = random.pick([1000, 65535, 65535]);
        this.send(side, 'A');
      } else if (kind < 72) this.complain(side);
      else if (kind < 76) {
        // Nobody answers: the same segment until someone gives up.
        const data = this.payload();
        for (let k = random.int(2, 5); k > 0; k--) this.send(side, 'PA', { seq: me.next, data });
      } else this.odd();
    }
  }

  close(): void {
    const { random } = this;
    const first: Side = random.chance(0.5) ? I : R;
    const second = (first ^ 1) as Side;
    const kind = random.int(0, 99);
    if (kind < 30) return;
    if (kind < 60) {
      this.fin(first);
      if (random.chance(0.5)) this.send(second, 'A');
      // Half-closed, the other direction goes on.
      for (let n = random.chance(0.3) ? random.int(1, 3) : 0; n > 0; n--) this.data(second);
      if (random.chance(0.9)) this.fin(second);
      if (random.chance(0.9)) this.send(first, 'A');
    } else if (kind < 72) {
      // Both at once.
      this.send(first, 'FA');
      this.send(second, 'FA');
      this.received(first);
      this.received(second);
      this.send(first, 'A');
      if (random.chance(0.8)) this.send(second, 'A');
    } else if (kind < 86) {
      this.send(first, random.pick(['R', 'RA']), { seq: this.sides[first].next, win: 0 });
    } else {
      for (let n = random.int(1, 5); n > 0; n--) this.odd();
    }
    this.afterwards();
  }

  private fin(side: Side): void {
    this.send(side, this.random.chance(0.2) ? 'FPA' : 'FA');
    this.received(side);
    if (this.random.chance(0.2)) this.send(side, 'FA', { seq: (this.sides[side].next - 1) >>> 0 });
  }

  /** Late segments, and the same ports again: with a higher number, a lower one, from the other side. */
  private afterwards(): void {
    const { random } = this;
    if (random.chance(0.3)) this.send(random.chance(0.5) ? I : R, 'A');
    if (random.chance(0.2)) this.send(random.chance(0.5) ? I : R, 'PA', { data: 'late' });
    if (random.chance(0.5)) return;
    const again: Side = random.chance(0.8) ? I : R;
    const me = this.sides[again];
    me.next = (me.next + random.pick([70000, 1, -5000, random.next()])) >>> 0;
    this.sides[again ^ 1].next = random.next();
    this.received((again ^ 1) as Side);
    this.syn(again);
    if (random.chance(0.2)) this.send((again ^ 1) as Side, 'A', { seq: random.next(), ack: random.next() });
    if (random.chance(0.8)) this.synAck((again ^ 1) as Side);
    if (random.chance(0.8)) this.send(again, 'A');
    if (random.chance(0.5)) this.data(again);
  }
}

/** The frames of one random conversation. */
export function tcpConversation(random: Random, ends: Ends): ScenarioFrame[] {
  const c = new Conversation(random, ends);
  c.open();
  c.body();
  c.close();
  return c.frames;
}
