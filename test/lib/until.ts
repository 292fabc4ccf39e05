/**
 * Until: waits for a condition with a bound, without sleeping for luck: it looks again as soon as others had their turn.
 */

/** Resolves with the first value of `look` that is not false, null, undefined, 0 or ''. Rejects after `timeout` ms. */
export async function until<T>(what: string, look: () => T, timeout = 60_000): Promise<NonNullable<T>> {
  const end = performance.now() + timeout;
  for (;;) {
    const value = look();
    if (value) return value as NonNullable<T>;
    if (performance.now() > end) throw new Error(`expected ${what} within ${timeout} ms, got nothing`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
