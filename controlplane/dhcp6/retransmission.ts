/**
 * Retransmission (RFC 8415 §15): when a client sends its message again, and when it gives up.
 *
 *   RT of the first     = IRT + RAND × IRT            RAND: uniform in [−0.1, 0.1]
 *   RT of the following = 2 × RTprev + RAND × RTprev, but MRT + RAND × MRT when that is more than MRT
 *   gives up after MRC transmissions, or MRD after the first; 0: never
 *
 * The clock is a number of milliseconds that does not wrap.
 */
import type { Timing } from './constants.ts';

export class Retransmission {
  /** When the first was sent: the base of the elapsed-time option. */
  private started: number;
  /** How often it was sent. */
  count = 0;
  /** When the next is due, or the end when the last was sent. */
  due: number;
  private timeout = 0;
  private timing: Timing;
  private readonly random: () => number;
  private readonly positive: boolean;

  /**
   * @param random uniform in [0, 1)
   * @param positive the first RAND is greater than 0, so that a client waits for Advertises a full IRT (§18.2.1)
   * @param until last moment at which it may be sent (T2 for a Renew); Infinity: any
   */
  constructor(
    timing: Timing,
    now: number,
    random: () => number,
    positive = false,
    until: number = Number.POSITIVE_INFINITY,
  ) {
    this.timing = timing;
    this.random = random;
    this.positive = positive;
    this.started = now;
    this.due = now;
    this.end = timing.mrd === 0 ? until : Math.min(until, now + timing.mrd);
  }

  private readonly end: number;

  /** True when nothing more will be sent and its last answer is overdue. */
  isOver(now: number): boolean {
    if (now >= this.end) return true;
    return this.timing.mrc > 0 && this.count >= this.timing.mrc && now >= this.due;
  }

  /** Call when the message goes out: sets `due`. */
  sent(now: number): void {
    const { irt, mrt } = this.timing;
    if (this.count === 0) this.started = now;
    const rand = this.random() * 0.2 - 0.1;
    if (this.count === 0) this.timeout = irt + (this.positive ? Math.abs(rand) : rand) * irt;
    else {
      this.timeout = 2 * this.timeout + rand * this.timeout;
      if (mrt > 0 && this.timeout > mrt) this.timeout = mrt + rand * mrt;
    }
    this.count++;
    this.due = Math.min(this.end, now + Math.max(1, Math.round(this.timeout)));
  }

  /** Another bound of RT from the next transmission on, milliseconds. */
  limit(mrt: number): void {
    this.timing = { ...this.timing, mrt };
  }

  /** Hundredths of a second since the first, as the elapsed-time option counts (§21.9); 0 in the first. */
  elapsed(now: number): number {
    if (this.count === 0) return 0;
    return Math.min(0xffff, Math.floor((now - this.started) / 10));
  }
}
