/**
 * Time of day: what the router's clock is in milliseconds since 1970, for leases, which outlive the process.
 *
 * Leases live by the router's clock, which nobody sets, and are written by the time of day. When that is set (by NTP, in a
 * box that began in 1970), whoever keeps leases hears by how much, and writes them anew: none ends or lives on because of it.
 */
import { Clock } from './dhcp6/deadlines.ts';

/** Milliseconds between the router's clock and the time of day above which that was set, or has run away. */
const STEP = 1000;

export class TimeOfDay {
  private readonly clock: Clock;
  private readonly wall: (clock: number) => number;
  /** Milliseconds since 1970 of time 0 of `clock`. */
  private epoch: number;

  /** @param now the router's clock   @param wall milliseconds since 1970 of a time of the router's clock */
  constructor(now: number, wall: (clock: number) => number) {
    this.clock = new Clock(now);
    this.wall = wall;
    this.epoch = wall(now) - now;
  }

  /** The router's clock as milliseconds that do not wrap. */
  time(now: number): number {
    return this.clock.at(now);
  }

  /** Milliseconds since 1970 at a time of the router's clock, as they were counted when `step` was asked last. */
  at(now: number): number {
    return this.epoch + this.clock.at(now);
  }

  /** Milliseconds by which the time of day was set to a later one since this was asked last; 0: it was not set. */
  step(now: number): number {
    const step = this.wall(now) - this.at(now);
    if (Math.abs(step) < STEP) return 0;
    this.epoch += step;
    return step;
  }
}
