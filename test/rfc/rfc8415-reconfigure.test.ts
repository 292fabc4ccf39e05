/** RFC 8415 §18.2.11 and §20.4: a Reconfigure is believed when it proves itself with the key that the server gave. */
import { expect, test } from 'vitest';
import { KEY, reconfigurable as net } from '../controlplane/dhcp6/reconfigurable.ts';

/** The same, with what was said. */
function reconfigurable(accept: boolean) {
  const { n, reconfigure, faults } = net(accept);
  const said = (...args: Parameters<typeof reconfigure>) => {
    reconfigure(...args);
    return n.take();
  };
  return { n, reconfigure: said, faults };
}

test('with the right digest it is answered by a Renew, once', () => {
  const { n, reconfigure, faults } = reconfigurable(true);
  expect(n.dhcp6('cpe').clients[0].state).toBe('bound');
  expect(reconfigure(2, KEY)).toEqual(['isp>cpe RECONFIGURE', 'cpe>isp RENEW', 'isp>cpe REPLY']);
  // §20.3: the same replay value again is a replay.
  expect(reconfigure(2, KEY)).toEqual(['isp>cpe RECONFIGURE']);
  expect(reconfigure(3, KEY)).toEqual(['isp>cpe RECONFIGURE', 'cpe>isp RENEW', 'isp>cpe REPLY']);
  expect(faults()).toEqual({ 'not-authentic': 1 });
});

test('with another key, or a byte changed, it is nothing', () => {
  const { reconfigure, faults } = reconfigurable(true);
  expect(
    reconfigure(
      2,
      KEY.map((byte) => byte ^ 1),
    ),
  ).toEqual(['isp>cpe RECONFIGURE']);
  expect(reconfigure(2, KEY, (bytes) => (bytes[3] ^= 1))).toEqual(['isp>cpe RECONFIGURE']);
  expect(faults()).toEqual({ 'not-authentic': 2 });
});

test('off by default: not even a right one', () => {
  const { reconfigure, faults } = reconfigurable(false);
  expect(reconfigure(2, KEY)).toEqual(['isp>cpe RECONFIGURE']);
  expect(faults()).toEqual({ 'not-authentic': 1 });
});
