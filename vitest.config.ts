/**
 * How the tests run: three projects, one after the other.
 *
 * `unit` is everything that needs no privilege and no device; its files run side by side. `lab` is what makes network
 * namespaces and devices: test/lab (real programs through a router) and the ports, two files at a time, because the machine's
 * few cores are shared. `kernel` is the engine's suite once more, with the kernel engine. The JSON result that .ci/run counts is
 * asked for on its command line.
 *
 * A test of `lab` that fails has a second chance, and so have the few of `unit` that say so because they talk to another's
 * program (`retry: 1`): those have timers of their own, which a busy machine makes run out. It is no excuse: each use is listed
 * at the end by name, with its first failure (test/lib/second-attempts.ts, and .ci/run in its own words), and what is listed is
 * to be looked into like a failure. Hooks have no second chance, nor has `kernel`.
 */
import { defineConfig } from 'vitest/config';

const common = {
  environment: 'node' as const,
  // Processes, not threads: the native addons are not context-aware, and a test that crashes takes only its own file.
  pool: 'forks' as const,
  // Against hanging only, as all of them: tests wait for conditions.
  testTimeout: 180_000,
  hookTimeout: 180_000,
  expect: { poll: { timeout: 20_000 } },
};

const lab = ['test/lab/**/*.test.ts', 'test/dataplane/ports/**/*.test.ts'];

export default defineConfig({
  test: {
    teardownTimeout: 60_000,
    reporters: ['default', './test/lib/second-attempts.ts'],
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: lab,
          maxWorkers: '100%',
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...common,
          name: 'lab',
          include: lab,
          // Each has namespaces of its own, and waits for timers of real programs most of the time.
          maxWorkers: 2,
          retry: 1,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...common,
          name: 'kernel',
          include: ['test/offload/*.test.ts', 'test/property/offload.test.ts'],
          // Every public capture takes a minute; `SLUICE_ENGINE=kernel npx vitest run test/offload/captures.test.ts` does it.
          exclude: ['test/offload/captures.test.ts', 'test/offload/kernel-engine.test.ts'],
          env: { SLUICE_ENGINE: 'kernel' },
          maxWorkers: '100%',
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
