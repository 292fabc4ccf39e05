/**
 * How the tests run: three projects, one after the other.
 *
 * `unit` is everything that needs no privilege and no device; its files run side by side. `lab` is what makes network
 * namespaces and devices: test/lab (real programs through a router) and the ports, two files at a time, because the machine's
 * few cores are shared. There is no second chance: what fails now and then is a fault of the router or of its test. `kernel`
 * is the engine's suite once more, with the kernel engine. The JSON result that .ci/run counts is asked for on its command line.
 */
import { defineConfig } from 'vitest/config';

const common = {
  environment: 'node' as const,
  // Processes, not threads: the native addons are not context-aware, and a test that crashes takes only its own file.
  pool: 'forks' as const,
  testTimeout: 30_000,
  hookTimeout: 60_000,
};

const lab = ['test/lab/**/*.test.ts', 'test/dataplane/ports/**/*.test.ts'];

export default defineConfig({
  test: {
    teardownTimeout: 10_000,
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
          // Against hanging only: tests wait for conditions, each with a bound of its own.
          testTimeout: 120_000,
          hookTimeout: 120_000,
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
