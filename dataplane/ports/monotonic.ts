/**
 * The monotonic clock (CLOCK_MONOTONIC), which all threads of the process, and programs in the kernel, have in common.
 */

/** Monotonic milliseconds, the same in every thread (performance.now counts from each thread's own start). */
export function monotonic(): () => number {
  const offset = Number(process.hrtime.bigint() / 1000n) / 1000 - performance.now();
  return () => offset + performance.now();
}
