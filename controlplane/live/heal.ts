/**
 * Heal: when the device of a port, which was deleted, is opened again.
 *
 * The first time at once. Whatever comes soon after that, a device that flaps or one that cannot be opened, waits: 100 ms,
 * then twice as long each time, up to five seconds; a minute of peace, and it is the first time again. So a script that
 * deletes and makes a device without end costs a try in five seconds, and one that does it once costs no wait. Nobody polls
 * for a device that is not there: rtnetlink.ts tells. How it is opened: devices.ts.
 */

/** Wait before the second try; doubles up to LAST_PAUSE_MS. */
const FIRST_PAUSE_MS = 100;
const LAST_PAUSE_MS = 5000;
/** No try for so long: whatever was wrong is over. */
const PEACE_MS = 60_000;

/** The tries of one device. */
export class Tries {
  private readonly again: () => void;
  private count = 0;
  private last = 0;
  private timer: NodeJS.Timeout | null = null;

  /** `again` is called when a try that had to wait is due. */
  constructor(again: () => void) {
    this.again = again;
  }

  /** True: it may be tried, which counts as a try. False: too soon; `again` is called in time. */
  mayTry(): boolean {
    if (this.timer !== null) return false;
    const since = performance.now() - this.last;
    if (this.count > 0 && since >= PEACE_MS) this.count = 0;
    const pause = this.count === 0 ? 0 : Math.min(FIRST_PAUSE_MS * 2 ** (this.count - 1), LAST_PAUSE_MS);
    if (since < pause) {
      this.wait(pause - since);
      return false;
    }
    this.count++;
    this.last = performance.now();
    return true;
  }

  /** The try was in vain: `again` is called when the next may be. */
  failed(): void {
    this.wait(Math.min(FIRST_PAUSE_MS * 2 ** (this.count - 1), LAST_PAUSE_MS));
  }

  close(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  private wait(milliseconds: number): void {
    this.close();
    this.timer = setTimeout(() => {
      this.timer = null;
      this.again();
    }, milliseconds);
  }
}
