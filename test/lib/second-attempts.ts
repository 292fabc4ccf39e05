/**
 * Second attempts: a vitest reporter that says at the end which tests have passed only when they were tried again
 * (`retry`, vitest.config.ts), and what went wrong at first. The default reporter does not mention them.
 */
import { relative } from 'node:path';
import type { Reporter, TestModule } from 'vitest/node';

export default class SecondAttempts implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    for (const module of modules)
      for (const test of module.children.allTests('passed')) {
        const { errors = [] } = test.result();
        if ((test.diagnostic()?.retryCount ?? 0) === 0) continue;
        const first = (errors[0]?.message ?? '').split('\n')[0];
        console.log(
          `passed at the second attempt: ${relative('.', module.moduleId)} > ${test.fullName}\n  the first: ${first}`,
        );
      }
  }
}
