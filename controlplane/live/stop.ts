/**
 * Stop: how a live router ends. SIGTERM, SIGINT and SIGHUP stop it in order; whatever else ends the process must not hang.
 *
 * A worker that sleeps in ppoll cannot be terminated by Node, so an exit that nobody announced (an uncaught exception,
 * process.exit) would wait for it: the 'exit' handler sets the stop word and wakes all. It also takes back what would
 * outlive the process: the control socket and the policy rules of sluice0. A second signal exits at once.
 */
const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

export interface Stoppable {
  /** Ends everything in order. */
  stop(): Promise<void>;
  /** The same as far as it can be done at once. */
  abandon(): void;
}

/** Waits for a signal, stops `what`, and resolves to the signal. `done`: settles when it stopped for another reason. */
export function untilSignal(what: Stoppable, done: Promise<void>): Promise<NodeJS.Signals | null> {
  return new Promise((resolve, reject) => {
    let stopping = false;
    const abandon = (): void => what.abandon();
    const remove = (): void => {
      for (const signal of SIGNALS) process.off(signal, onSignal);
      process.off('exit', abandon);
    };
    const onSignal = (signal: NodeJS.Signals): void => {
      if (stopping) process.exit(1);
      stopping = true;
      what.stop().then(
        () => {
          remove();
          resolve(signal);
        },
        (error: unknown) => {
          remove();
          reject(error instanceof Error ? error : new Error(String(error)));
        },
      );
    };
    for (const signal of SIGNALS) process.on(signal, onSignal);
    process.on('exit', abandon);
    void done.then(() => {
      if (stopping) return;
      remove();
      resolve(null);
    });
  });
}
