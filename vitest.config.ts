/**
 * How the tests run: two projects, one after the other.
 *
 * `unit` is everything that needs no privilege and no device; its files run side by side. `lab` is test/lab: real
 * programs through a router between network namespaces, one file at a time, because namespaces, device names and the
 * machine's two or three cores are shared. The JSON result that .ci/run counts is asked for on its command line.
 */
import { defineConfig } from 'vitest/config';

const common = {
  environment: 'node' as const,
  // Processes, not threads: the native addons are not context-aware, and a test that crashes takes only its own file.
  pool: 'forks' as const,
  testTimeout: 30_000,
  hookTimeout: 60_000,
};

export default defineConfig({
  test: {
    teardownTimeout: 10_000,
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/lab/**', '**/node_modules/**', 'dist/**'],
          maxWorkers: '100%',
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...common,
          name: 'lab',
          include: ['test/lab/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
