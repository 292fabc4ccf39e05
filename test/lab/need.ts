/** Lab tests need root and some programs. Where they are missing the tests are skipped, and say so loudly. */
import { requirements } from '../../controlplane/lab/namespace.ts';

/** True when the lab can run; else prints why, once per reason. */
export function labReady(programs: readonly string[] = [], options: { tun?: boolean } = {}): boolean {
  const missing = requirements(programs, options);
  for (const reason of missing) console.warn(`LAB TESTS SKIPPED: ${reason}`);
  return missing.length === 0;
}
