/**
 * Reason: what was thrown, as one line for a log: the message, and where it came from.
 */

/** The message and the first place of its stack; of what is no Error its text. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message).split('\n').slice(0, 2).join(' ') : String(error);
}
