/** What protocols may do beside sending: addresses, routes of several sources to one prefix, and words to each other. */
import { expect, test } from 'vitest';
import type { Action, Event, Protocol } from '../../controlplane/protocol.ts';
import { createRouter } from '../../controlplane/router.ts';
import { showRoute } from '../../controlplane/show/route.ts';
import { parseCidr, parseIpv6 } from '../../dataplane/wire/address.ts';
import { homeConfig } from '../lib/home.ts';

/** A protocol that says what it is told to say, and writes down what it hears. */
class Speaker implements Protocol {
  readonly name = 'speaker';
  readonly heard: string[] = [];
  say: Action[] = [];

  step(_now: number, event: Event): Action[] {
    if (event.kind === 'event') this.heard.push(event.name);
    const actions = this.say;
    this.say = [];
    return actions;
  }

  next(): number {
    return -1;
  }
}

function world() {
  const router = createRouter(homeConfig());
  const speaker = new Speaker();
  router.control.protocols.push(speaker);
  const say = (...actions: Action[]) => {
    speaker.say = actions;
    router.control.tick();
  };
  const cidr = (text: string) =>
    parseCidr(text) as { family: 6; words: [number, number, number, number]; prefixLength: number };
  const route = (op: 'add' | 'remove', to: string, source: 'ra' | 'dhcp6' | 'pd', via?: string, type?: 'unreachable') =>
    say({
      kind: 'route',
      op,
      ...cidr(to),
      port: 1,
      source,
      via: via === undefined ? undefined : parseIpv6(via)!,
      type,
    });
  const address = (op: 'add' | 'remove' | 'deprecate', text: string) =>
    say({ kind: 'address', op, port: 0, ...cidr(text) });
  const shown = (to: string) =>
    showRoute({ tables: router.tables, config: router.config, control: router.control } as never, {})
      .text.split('\n')
      .filter((line) => line.startsWith(`${to} `) || line.includes(` ${to} `));
  return { router, speaker, say, route, address, shown };
}

test('the better source wins; taking it away brings back the next, then nothing', () => {
  const { route, shown } = world();
  route('add', '2001:db8:a::/48', 'ra', 'fe80::1');
  route('add', '2001:db8:a::/48', 'ra', 'fe80::2');
  // Two routers that advertise the same are equals (RFC 4311): a group.
  expect(shown('2001:db8:a::/48')).toEqual(['2001:db8:a::/48 proto ra']);
  route('add', '2001:db8:a::/48', 'pd', undefined, 'unreachable');
  expect(shown('2001:db8:a::/48')).toEqual(['unreachable 2001:db8:a::/48 proto dhcp']);
  route('add', '2001:db8:a::/48', 'dhcp6', 'fe80::3');
  expect(shown('2001:db8:a::/48')).toEqual(['unreachable 2001:db8:a::/48 proto dhcp']);
  route('remove', '2001:db8:a::/48', 'pd', undefined, 'unreachable');
  expect(shown('2001:db8:a::/48')).toEqual(['2001:db8:a::/48 via fe80::3 dev wan proto dhcp']);
  route('remove', '2001:db8:a::/48', 'dhcp6', 'fe80::3');
  route('remove', '2001:db8:a::/48', 'ra', 'fe80::2');
  expect(shown('2001:db8:a::/48')).toEqual(['2001:db8:a::/48 via fe80::1 dev wan proto ra']);
  route('remove', '2001:db8:a::/48', 'ra', 'fe80::1');
  expect(shown('2001:db8:a::/48')).toEqual([]);
});

test('a configured route stays in force; the learned one takes over when it goes', () => {
  const { router, route, shown } = world();
  const before = shown('default');
  route('add', '::/0', 'ra', 'fe80::1');
  expect(shown('default')).toEqual(before);
  router.control.removeRoute(6, [0, 0, 0, 0], 0);
  expect(shown('default')).toContain('default via fe80::1 dev wan proto ra');
  route('remove', '::/0', 'ra', 'fe80::1');
  expect(shown('default').some((line) => line.includes('fe80'))).toBe(false);
});

test('an address that a protocol gives takes its routes with it, but not those of its neighbour in the prefix', () => {
  const { router, address, shown } = world();
  address('add', '2001:db8:5::7/64');
  address('add', '2001:db8:5::8/64');
  address('deprecate', '2001:db8:5::7/64');
  expect(router.control.addresses.find(0, 6, parseIpv6('2001:db8:5::7')!)?.state).toBe('deprecated');
  address('add', '2001:db8:5::7/64');
  expect(router.control.addresses.find(0, 6, parseIpv6('2001:db8:5::7')!)?.state).toBe('preferred');
  address('remove', '2001:db8:5::7/64');
  expect(shown('2001:db8:5::/64')).toEqual(['2001:db8:5::/64 dev lan proto kernel scope link']);
  address('remove', '2001:db8:5::8/64');
  expect(shown('2001:db8:5::/64')).toEqual([]);
});

test('what one protocol tells, all hear', () => {
  const { speaker, say } = world();
  say({ kind: 'event', name: 'speaker.word', data: {} });
  expect(speaker.heard).toEqual(['speaker.word']);
});
