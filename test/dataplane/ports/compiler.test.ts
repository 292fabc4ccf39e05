/** The limits of V8 that the live router moves are ones that this Node has: others it would refuse in a line, and go on. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { INLINE_LIMITS } from '../../../dataplane/ports/compiler.ts';

describe('compiler', () => {
  it('V8 knows the limits of inlining', () => {
    const known = spawnSync(process.execPath, ['--v8-options'], { encoding: 'utf8' }).stdout;
    for (const flag of INLINE_LIMITS)
      expect(known).toMatch(new RegExp(`^ +${flag.split('=')[0]} .*\\n.*type: int`, 'm'));
  });
});
