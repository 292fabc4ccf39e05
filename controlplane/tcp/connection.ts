/**
 * One TCP connection of the router's own (RFC 9293 §3.3.2, §3.10): two byte streams, stepped with the router's clock.
 *
 *   connect → syn-sent → established ←─ accept (with a cookie: there is no syn-received)
 *                          │ end()               │ FIN
 *                     fin-wait-1 → fin-wait-2    close-wait → last-ack → closed
 *                          └ closing ─┴→ time-wait → closed
 *
 * What comes is taken in order; a segment out of order is not kept but acknowledged again (§3.10.7.4 allows it), so that
 * a fast retransmission mends the gap. What is sent is kept until it is acknowledged: retransmission by RFC 6298 (from the
 * gap on, after a time-out) and RFC 5681 (slow start, fast retransmit). A closed window is probed (§3.8.6.1).
 * Resets and SYNs that are only nearly right get a challenge (RFC 5961).
 *
 * Not here: simultaneous open, urgent data, window scale, timestamps, SACK, ECN, path MTU discovery (segments are so short that
 * they pass everywhere), keep-alives (whoever uses a connection knows how long it may be idle).
 */
import { ACK, FIN, PSH, RST, SYN } from '../../dataplane/wire/tcp.ts';
import type { Action } from '../protocol.ts';
import { type Ends, lengthOf, type Segment, writeSegment } from './segment.ts';

export type TcpState =
  | 'syn-sent'
  | 'established'
  | 'fin-wait-1'
  | 'fin-wait-2'
  | 'closing'
  | 'time-wait'
  | 'close-wait'
  | 'last-ack'
  | 'closed';

/** Largest segment sent and announced: with the headers of either family it passes a link of 1280 bytes. */
export const MSS = 1220;
/** Bytes that have come and are not yet read: also the largest window. */
const RECEIVE_BUFFER = 16_384;
/** RFC 6298 §2, milliseconds. */
const FIRST_RTO = 1000;
const LEAST_RTO = 1000;
const LONGEST_RTO = 60_000;
/** Retransmissions of one segment: with the times above some 63 s (§3.8.3, R2 of a SYN at least three minutes is for people). */
const MAX_RETRIES = 5;
/** Twice the maximum segment lifetime, of 30 s as everybody has it; and how long a peer may leave its half open (§3.6). */
const TIME_WAIT = 60_000;
const FIN_WAIT_2 = 10_000;
/** RFC 5681 §3.1: initial window for segments of this size. */
const INITIAL_WINDOW = 3 * MSS;
const NOTHING = new Uint8Array(0);

export class TcpConnection {
  readonly ends: Ends;
  /** Port of the router that the peer is behind: scope of link-local addresses. */
  readonly port: number;
  state: TcpState;
  /** Why it is closed; '' while it is not, and when both sides had said all. */
  why: '' | 'reset' | 'refused' | 'timed out' = '';
  retransmissions = 0;
  private readonly mss: number;

  // --- what comes ---
  private received: Uint8Array[] = [];
  private receivedBytes = 0;
  private receiveNext = 0;
  /** The window that the peer was told last. */
  private told = RECEIVE_BUFFER;
  private ackDue = false;

  // --- what goes: `outbox` begins at the oldest unacknowledged byte ---
  private outbox: Uint8Array = NOTHING;
  private oldest: number;
  private next: number;
  /** One past the highest number ever sent. */
  private top: number;
  private sendWindow = 0;
  /** Sequence and acknowledgment numbers of the segment that brought the window (SND.WL1, SND.WL2). */
  private windowSeq = 0;
  private windowAck = 0;
  private ending = false;
  private congestion = INITIAL_WINDOW;
  private threshold = 0x7fffffff;
  private repeats = 0;

  // --- time ---
  private rto = FIRST_RTO;
  private smoothed = -1;
  private variation = 0;
  /** The segment whose round trip is measured: one past its end, and when it was sent; null: none. */
  private measured: { end: number; at: number } | null = null;
  private retries = 0;
  /** Clock of the next retransmission or probe, or of the end of a state that ends by itself; null: none. */
  private timer: number | null = null;

  private constructor(ends: Ends, port: number, state: TcpState, sendNext: number, mss: number) {
    this.ends = ends;
    this.port = port;
    this.state = state;
    this.mss = Math.min(MSS, mss);
    this.oldest = sendNext;
    this.next = sendNext;
    this.top = sendNext;
  }

  /** Opens a connection: the SYN leaves at once. `iss`: initial sequence number, unpredictable (RFC 9293 §3.4.1). */
  static connect(now: number, ends: Ends, port: number, iss: number, out: Action[]): TcpConnection {
    const one = new TcpConnection(ends, port, 'syn-sent', iss, MSS);
    one.sendSyn(now, out);
    return one;
  }

  /** The peer has acknowledged our SYN: `segment` is its first one; give it to `receive` too. */
  static accept(segment: Segment, port: number, mss: number): TcpConnection {
    const { family, us, them, ourPort, theirPort } = segment;
    const ends: Ends = { family, us, them, ourPort, theirPort };
    const one = new TcpConnection(ends, port, 'established', segment.ack, mss);
    one.receiveNext = segment.seq;
    one.sendWindow = segment.window;
    one.windowSeq = segment.seq;
    one.windowAck = segment.ack;
    return one;
  }

  /** Bytes that wait to be read. */
  get readable(): number {
    return this.receivedBytes;
  }

  /** Bytes written that the peer has not acknowledged. */
  get unsent(): number {
    return this.outbox.length;
  }

  /** The peer has said all that it will, and all of it was read. */
  get finished(): boolean {
    return this.receivedBytes === 0 && !['syn-sent', 'established', 'fin-wait-1', 'fin-wait-2'].includes(this.state);
  }

  /** Takes all bytes that have come. */
  read(): Uint8Array {
    const bytes = new Uint8Array(this.receivedBytes);
    let at = 0;
    for (const chunk of this.received) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    this.received = [];
    this.receivedBytes = 0;
    // §3.8.6.2.2: a window that was small is told again once it is worth a segment.
    if (RECEIVE_BUFFER - this.told >= RECEIVE_BUFFER / 2 || this.told < MSS) this.ackDue = true;
    return bytes;
  }

  /** Bytes to send; they leave with the next `flush`. Nothing after `end`. */
  write(bytes: Uint8Array): void {
    if (this.ending || this.state === 'closed') return;
    const next = new Uint8Array(this.outbox.length + bytes.length);
    next.set(this.outbox);
    next.set(bytes, this.outbox.length);
    this.outbox = next;
  }

  /** No more bytes will be written: the FIN follows the last one. */
  end(): void {
    this.ending = true;
  }

  /** Ends it without more ado. */
  abort(out: Action[]): void {
    if (this.state === 'closed') return;
    if (this.state !== 'syn-sent' && this.state !== 'time-wait') this.send(out, this.next, RST | ACK, NOTHING);
    this.close('');
  }

  /** Milliseconds until `tick` has something to do; −1: it waits for the peer only. */
  wait(now: number): number {
    return this.timer === null ? -1 : Math.max(0, (this.timer - now) | 0);
  }

  // --- segments that come ------------------------------------------------------------------------------------------------

  /** One segment of this connection (§3.10.7.3, §3.10.7.4). Call `flush` when all that came is done. */
  receive(now: number, segment: Segment, out: Action[]): void {
    if (this.state === 'closed') return;
    if (this.state === 'syn-sent') {
      this.answered(now, segment, out);
      return;
    }
    if (!this.isAcceptable(segment)) {
      // A FIN that comes again restarts the wait (§3.10.7.4, eighth).
      if (this.state === 'time-wait' && (segment.flags & FIN) !== 0) this.timer = (now + TIME_WAIT) | 0;
      if ((segment.flags & RST) === 0) this.ackDue = true;
      return;
    }
    if ((segment.flags & RST) !== 0) {
      // RFC 5961 §3.2: only the exact number ends it; another one is asked about.
      if (segment.seq === this.receiveNext) this.close('reset');
      else this.ackDue = true;
      return;
    }
    // RFC 5961 §4.2: a SYN is asked about too.
    if ((segment.flags & SYN) !== 0) {
      this.ackDue = true;
      return;
    }
    if ((segment.flags & ACK) === 0 || !this.acknowledged(now, segment)) return;
    this.take(now, segment);
  }

  private answered(now: number, segment: Segment, out: Action[]): void {
    const { flags, ack } = segment;
    const isOurs = (flags & ACK) !== 0 && ack === this.top;
    if ((flags & RST) !== 0) {
      if (isOurs) this.close('refused');
      return;
    }
    if (!isOurs) {
      if ((flags & ACK) !== 0) this.send(out, ack, RST, NOTHING);
      return;
    }
    if ((flags & SYN) === 0) return;
    this.state = 'established';
    this.receiveNext = (segment.seq + 1) | 0;
    this.oldest = ack;
    this.next = ack;
    this.sendWindow = segment.window;
    this.windowSeq = segment.seq;
    this.windowAck = ack;
    this.settle(now, ack);
    this.ackDue = true;
  }

  /** §3.10.7.4, first: some of it lies in the window that we have told. */
  private isAcceptable(segment: Segment): boolean {
    const length = lengthOf(segment);
    const window = this.window();
    const from = (segment.seq - this.receiveNext) | 0;
    const to = (from + length - 1) | 0;
    if (length === 0) return window === 0 ? from === 0 : from >= 0 && from < window;
    // A zero window takes nothing, but acknowledgments in a probe count; so they do in what overlaps from the left.
    return (from >= 0 && from < Math.max(1, window)) || (to >= 0 && to < window);
  }

  /** §3.10.7.4, fifth. False: the segment says nothing more. */
  private acknowledged(now: number, { ack, seq, window, payload, flags }: Segment): boolean {
    if (((ack - this.top) | 0) > 0 || ((this.oldest - ack) | 0) > 0x10000) {
      // It acknowledges what was never sent (§3.10.7.4), or what is long gone (RFC 5961 §5.2).
      this.ackDue = true;
      return false;
    }
    const advance = (ack - this.oldest) | 0;
    if (advance > 0) {
      const bytes = Math.min(advance, this.outbox.length);
      this.outbox = this.outbox.slice(bytes);
      this.oldest = ack;
      if (((this.next - ack) | 0) < 0) this.next = ack;
      // RFC 5681 §3.1: slow start, then congestion avoidance.
      this.congestion +=
        this.congestion < this.threshold
          ? Math.min(bytes, this.mss)
          : Math.max(1, Math.floor((this.mss * this.mss) / this.congestion));
      this.congestion = Math.min(this.congestion, 0x10000);
      this.repeats = 0;
      this.settle(now, ack);
    } else if (advance === 0 && payload.length === 0 && (flags & FIN) === 0 && this.isRepeat(ack, window)) {
      // RFC 5681 §3.2: the third repetition says that one segment is lost.
      if (++this.repeats === 3) this.lose(now);
    }
    // §3.8.6.1: a peer that answers probes may keep its window closed as long as it likes.
    if (window === 0) this.retries = 0;
    const fresher = (seq - this.windowSeq) | 0;
    if (fresher > 0 || (fresher === 0 && ((ack - this.windowAck) | 0) >= 0)) {
      this.sendWindow = window;
      this.windowSeq = seq;
      this.windowAck = ack;
    }
    if (this.isFinAcknowledged()) this.finAcknowledged(now);
    return true;
  }

  private isRepeat(ack: number, window: number): boolean {
    return this.top !== ack && window === this.sendWindow;
  }

  private isFinAcknowledged(): boolean {
    return this.ending && this.outbox.length === 0 && this.oldest === this.top && this.isFinSent();
  }

  /** The FIN has a number of its own behind the last byte; it was sent when a state says so. */
  private isFinSent(): boolean {
    return ['fin-wait-1', 'closing', 'last-ack'].includes(this.state);
  }

  private finAcknowledged(now: number): void {
    if (this.state === 'fin-wait-1') {
      this.state = 'fin-wait-2';
      this.timer = (now + FIN_WAIT_2) | 0;
    } else if (this.state === 'closing') this.waitOut(now);
    else if (this.state === 'last-ack') this.close('');
  }

  /** §3.10.7.4, seventh and eighth: what is in order, and the FIN behind it. */
  private take(now: number, segment: Segment): void {
    const skip = (this.receiveNext - segment.seq) | 0;
    const length = lengthOf(segment);
    if (length === 0) return;
    this.ackDue = true;
    // A gap before it (it comes again, in order), or all of it known.
    if (skip < 0 || skip >= length) return;
    if (!['established', 'fin-wait-1', 'fin-wait-2'].includes(this.state)) return;
    const room = RECEIVE_BUFFER - this.receivedBytes;
    const bytes = segment.payload.slice(skip, skip + room);
    if (bytes.length > 0) {
      this.received.push(bytes);
      this.receivedBytes += bytes.length;
      this.receiveNext = (this.receiveNext + bytes.length) | 0;
    }
    if ((segment.flags & FIN) === 0 || skip + bytes.length < segment.payload.length) return;
    this.receiveNext = (this.receiveNext + 1) | 0;
    if (this.state === 'established') this.state = 'close-wait';
    else if (this.state === 'fin-wait-1') this.state = 'closing';
    else this.waitOut(now);
  }

  // --- segments that go ----------------------------------------------------------------------------------------------------

  /** Sends what may be sent, and the acknowledgment of what came if nothing has carried it. */
  flush(now: number, out: Action[]): void {
    if (this.state === 'closed' || this.state === 'syn-sent') return;
    for (;;) {
      const at = (this.next - this.oldest) | 0;
      const allowed = Math.min(this.sendWindow, this.congestion) - at;
      const left = this.outbox.length - at;
      const length = Math.min(left, this.mss, allowed);
      if (left <= 0 || length <= 0) break;
      // §3.8.6.2.1: no small pieces while something is under way.
      if (length < this.mss && length < left && at > 0) break;
      this.sendBytes(now, at, length, out);
    }
    this.sendFin(now, out);
    const waits = this.outbox.length > 0 || this.oldest !== this.top;
    if (waits && this.timer === null) this.timer = (now + this.rto) | 0;
    if (this.ackDue) this.send(out, this.next, ACK, NOTHING);
  }

  private sendBytes(now: number, at: number, length: number, out: Action[]): void {
    const bytes = this.outbox.subarray(at, at + length);
    const isLast = at + length === this.outbox.length;
    this.send(out, this.next, isLast ? ACK | PSH : ACK, bytes);
    this.next = (this.next + length) | 0;
    this.raise(now);
  }

  private sendFin(now: number, out: Action[]): void {
    if (!this.ending || ((this.next - this.oldest) | 0) !== this.outbox.length) return;
    if (this.state === 'established') this.state = 'fin-wait-1';
    else if (this.state === 'close-wait') this.state = 'last-ack';
    else if (!this.isFinSent() || this.oldest === this.top) return;
    this.send(out, this.next, FIN | ACK, NOTHING);
    this.next = (this.next + 1) | 0;
    this.raise(now);
  }

  /** What was sent last is new: its round trip can be measured. */
  private raise(now: number): void {
    if (((this.next - this.top) | 0) <= 0) return;
    this.top = this.next;
    if (this.measured === null) this.measured = { end: this.next, at: now };
  }

  private sendSyn(now: number, out: Action[]): void {
    const { ends, port } = this;
    this.top = (this.oldest + 1) | 0;
    const packet = writeSegment(ends, this.oldest, 0, SYN, RECEIVE_BUFFER, NOTHING, MSS);
    out.push({ kind: 'output', packet, port });
    this.timer = (now + this.rto) | 0;
  }

  private send(out: Action[], seq: number, flags: number, payload: Uint8Array): void {
    const window = this.window();
    this.told = window;
    this.ackDue = false;
    const ack = (flags & ACK) !== 0 ? this.receiveNext : 0;
    out.push({ kind: 'output', packet: writeSegment(this.ends, seq, ack, flags, window, payload), port: this.port });
  }

  private window(): number {
    return RECEIVE_BUFFER - this.receivedBytes;
  }

  // --- time --------------------------------------------------------------------------------------------------------------

  /** An acknowledgment has come: the timer starts again, and the round trip may be known (RFC 6298 §2, §5.3). */
  private settle(now: number, ack: number): void {
    this.retries = 0;
    if (this.measured !== null && ((ack - this.measured.end) | 0) >= 0) {
      const took = (now - this.measured.at) | 0;
      this.measured = null;
      if (this.smoothed < 0) {
        this.smoothed = took;
        this.variation = took / 2;
      } else {
        this.variation += (Math.abs(this.smoothed - took) - this.variation) / 4;
        this.smoothed += (took - this.smoothed) / 8;
      }
    }
    // Progress ends the doubling, also when Karn's rule forbids to measure: as Linux does it.
    const estimate = this.smoothed < 0 ? FIRST_RTO : Math.ceil(this.smoothed + 4 * this.variation);
    this.rto = Math.min(LONGEST_RTO, Math.max(LEAST_RTO, estimate));
    this.timer = this.top === ack ? null : (now + this.rto) | 0;
  }

  /** A segment is lost: it goes out again, and what half of the window allows behind it (RFC 5681 §3.2). */
  private lose(now: number): void {
    this.threshold = Math.max(Math.floor(((this.top - this.oldest) | 0) / 2), 2 * this.mss);
    this.congestion = this.threshold;
    this.goBack();
    this.timer = (now + this.rto) | 0;
  }

  /** Everything from the oldest unacknowledged byte on is sent again; its round trips say nothing (Karn). */
  private goBack(): void {
    this.next = this.oldest;
    this.measured = null;
    this.retransmissions++;
  }

  /** Time has passed: retransmits, probes, or ends. */
  tick(now: number, out: Action[]): void {
    if (this.timer === null || ((this.timer - now) | 0) > 0) return;
    this.timer = null;
    if (this.state === 'time-wait' || this.state === 'fin-wait-2') {
      this.close('');
      return;
    }
    if (++this.retries > MAX_RETRIES) {
      this.abort(out);
      this.why = 'timed out';
      return;
    }
    this.rto = Math.min(LONGEST_RTO, 2 * this.rto);
    if (this.state === 'syn-sent') {
      this.retransmissions++;
      this.sendSyn(now, out);
      return;
    }
    if (this.sendWindow === 0 && this.outbox.length > 0) {
      // §3.8.6.1: one byte into the closed window; its acknowledgment tells the window of now.
      this.goBack();
      this.sendBytes(now, 0, 1, out);
      this.timer = (now + this.rto) | 0;
      return;
    }
    // RFC 5681 §3.1: after a time-out the window is one segment.
    this.threshold = Math.max(Math.floor(((this.top - this.oldest) | 0) / 2), 2 * this.mss);
    this.congestion = this.mss;
    this.goBack();
    this.flush(now, out);
  }

  private waitOut(now: number): void {
    this.state = 'time-wait';
    this.timer = (now + TIME_WAIT) | 0;
  }

  private close(why: TcpConnection['why']): void {
    this.state = 'closed';
    this.why = why;
    this.timer = null;
    this.outbox = NOTHING;
    this.ackDue = false;
  }
}
