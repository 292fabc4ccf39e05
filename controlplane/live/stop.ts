/**
 * Stop: how a live router ends. SIGTERM, SIGINT and SIGHUP stop it in order; whatever else ends the process must not hang.
 *
 * Signals are caught from before the first device is opened; one that comes while the router starts takes effect as soon
 * as there is something to stop. A second one ends the process at once, as a signal does that nobody catches: process.exit
 * would wait for the threads, and one that is still loading an addon then ends it by SIGABRT.
 *
 * A worker that sleeps in ppoll cannot be terminated by Node, so an exit that nobody announced (an uncaught exception,
 * process.exit) would wait for it: the 'exit' handler sets the stop word and wakes all. It also takes back what would
 * outlive the process: the control socket and the policy rules of sluice0.
 */
const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

export interface Stoppable {
  /** Ends everything in order. */
  stop(): Promise<void>;
  /** The same as far as it can be done at once. */
  abandon(): void;
}

export class Signals {
  private first: NodeJS.Signals | null = null;
  private arrived: (signal: NodeJS.Signals) => void = () => {};
  /** Takes back at once what would outlive the process. To be set as soon as there is something. */
  abandon: () => void = () => {};

  /** Catches signals from here on, until `release`. */
  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.onSignal);
  }

  /** Signals have their usual effect again. */
  release(): void {
    for (const signal of SIGNALS) process.off(signal, this.onSignal);
  }

  /**
   * Waits for the first signal (it may have come already) and stops `what`; resolves to the signal. `done` settles when
   * `what` stopped for a reason of its own: then to null.
   */
  async until(what: Stoppable, done: Promise<void>): Promise<NodeJS.Signals | null> {
    const abandon = (): void => what.abandon();
    this.abandon = abandon;
    process.on('exit', abandon);
    try {
      const signal = await new Promise<NodeJS.Signals | null>((resolve) => {
        this.arrived = resolve;
        if (this.first !== null) resolve(this.first);
        void done.then(() => resolve(null));
      });
      if (signal !== null) await what.stop();
      return signal;
    } finally {
      process.off('exit', abandon);
      this.release();
    }
  }

  private readonly onSignal = (signal: NodeJS.Signals): void => {
    if (this.first !== null) {
      this.release();
      this.abandon();
      process.kill(process.pid, signal);
      process.exit(1); // the first process of a container does not die of it
    }
    this.first = signal;
    this.arrived(signal);
  };
}
