/**
 * Deadlines: how long a protocol may sleep when what it keeps ends at times of the router's clock.
 */

/** Milliseconds until the first of the entries ends (`until`: clock ms, null never), at least 0; −1: none ends. */
export function untilFirst(entries: Iterable<{ until: number | null }>, now: number): number {
  let next = -1;
  for (const { until } of entries) {
    if (until === null) continue;
    const wait = Math.max(0, (until - now) | 0);
    if (next < 0 || wait < next) next = wait;
  }
  return next;
}
