/** The registry: a helper stands at its own number, and is found by netfilter's name. */
import { expect, test } from 'vitest';
import { HELPER_NONE, helperNamed, helperOf, helpers } from '../../../conntrack/helpers/index.ts';

test('numbers and names agree, and no two are the same', () => {
  const present = helpers.filter((helper) => helper !== null);
  expect(present.map((helper) => helper.name)).toEqual(
    expect.arrayContaining(['ftp', 'tftp', 'irc', 'rtsp', 'sip', 'pptp']),
  );
  expect(new Set(present.map((helper) => helper.name)).size).toBe(present.length);
  for (const helper of present) {
    expect(helperOf(helper.number)).toBe(helper);
    expect(helperNamed(helper.name)).toBe(helper);
    expect(helperNamed(helper.name.toUpperCase())).toBe(helper);
    expect(helper.number).toBeLessThan(256);
    expect(helper.limits.length).toBeGreaterThan(0);
  }
});

test('what is not there', () => {
  for (const number of [HELPER_NONE, -1, 200, 255]) expect(helperOf(number)).toBeNull();
  expect(helperNamed('gopher')).toBeNull();
});
