/** RFC 6724: source and destination address selection, with the examples of its section 10, and the configured table. */
import { describe, expect, test } from 'vitest';
import { normalizeConfig } from '../../controlplane/config/index.ts';
import { Addresses, type AddressState } from '../../controlplane/neighbour/addresses.ts';
import {
  DEFAULT_POLICY,
  orderDestinations,
  type PolicyRow,
  policyInForce,
  selectSource,
} from '../../controlplane/select-source.ts';
import { formatAddress, parseAddress } from '../../dataplane/wire/address.ts';

/** An address book of one port; `old ADDRESS` is deprecated. */
function book(sources: readonly string[]): Addresses {
  const addresses = new Addresses();
  for (const text of sources) {
    const [word, address = word] = text.split(' ');
    const { family, words } = parseAddress(address)!;
    const state: AddressState = word === 'old' ? 'deprecated' : 'preferred';
    addresses.add(0, family, words, family === 4 ? 24 : 64, state);
  }
  return addresses;
}

function source(to: string, sources: readonly string[], table?: readonly PolicyRow[]): string {
  const { family, words } = parseAddress(to)!;
  const own = selectSource(book(sources), 0, family, words, table);
  return own === undefined ? 'none' : formatAddress(own.family, ...own.words);
}

/** `destination from source` of each, in the order in which they would be tried. */
function order(destinations: readonly string[], sources: readonly string[], table?: readonly PolicyRow[]): string[] {
  const addresses = book(sources);
  const list = destinations.map((text) => {
    const { family, words } = parseAddress(text)!;
    return { family, words, source: selectSource(addresses, 0, family, words, table) };
  });
  return orderDestinations(list, table).map(
    ({ family, words, source: own }) =>
      `${formatAddress(family, ...words)} from ${own === undefined ? 'nowhere' : formatAddress(own.family, ...own.words)}`,
  );
}

function policy(section: object): readonly PolicyRow[] {
  return normalizeConfig({ ports: { lan: { kind: 'memory' } }, 'address-selection': section }).addressSelection.policy;
}

describe('§10.1 source addresses', () => {
  for (const [rule, to, sources, best] of [
    ['appropriate scope', '2001:db8:1::1', ['2001:db8:3::1', 'fe80::1'], '2001:db8:3::1'],
    ['appropriate scope of a group', 'ff05::1', ['2001:db8:3::1', 'fe80::1'], '2001:db8:3::1'],
    ['the same address', '2001:db8:1::1', ['old 2001:db8:1::1', '2001:db8:2::1'], '2001:db8:1::1'],
    ['appropriate scope before deprecation', 'fe80::1', ['old fe80::2', '2001:db8:1::1'], 'fe80::2'],
    ['longest matching prefix', '2001:db8:1::1', ['2001:db8:1::2', '2001:db8:3::2'], '2001:db8:1::2'],
    [
      'matching label',
      '2002:c633:6401::1',
      ['2002:c633:6401:0:d5e3:7953:13eb:22e8', '2001:db8:1::2'],
      '2002:c633:6401:0:d5e3:7953:13eb:22e8',
    ],
    ['not deprecated', '2001:db8:1::1', ['old 2001:db8:1::2', '2001:db8:3::2'], '2001:db8:3::2'],
    ['label of unique local addresses', 'fd00:1::1', ['2001:db8:1::2', 'fd00:9::2'], 'fd00:9::2'],
    ['label of global addresses', '2001:db8:9::1', ['fd00:9::2', '2001:db8:1::2'], '2001:db8:1::2'],
  ] as const)
    test(rule, () => {
      expect(source(to, sources)).toBe(best);
      expect(source(to, [...sources].reverse())).toBe(best);
    });

  test('§2.2: common prefixes beyond the source’s own length count for nothing', () => {
    // Both share /64 with the destination; the second one has more bits in common behind it.
    const sources = ['2001:db8:1:0:1::1', '2001:db8:1::2'];
    expect(source('2001:db8:1::3', sources)).toBe(sources[0]);
  });
});

// Where the RFC has a link-local source for a global destination, a router has none: the packet could not leave the link.
describe('§10.2 destination addresses', () => {
  for (const [rule, destinations, sources, expected] of [
    [
      'matching scope, IPv6',
      ['2001:db8:1::1', '198.51.100.121'],
      ['2001:db8:1::2', 'fe80::1', '169.254.13.78'],
      ['2001:db8:1::1 from 2001:db8:1::2', '198.51.100.121 from nowhere'],
    ],
    [
      'matching scope, IPv4',
      ['2001:db8:1::1', '198.51.100.121'],
      ['fe80::1', '198.51.100.117'],
      ['198.51.100.121 from 198.51.100.117', '2001:db8:1::1 from nowhere'],
    ],
    [
      'higher precedence',
      ['2001:db8:1::1', '10.1.2.3'],
      ['2001:db8:1::2', 'fe80::1', '10.1.2.4'],
      ['2001:db8:1::1 from 2001:db8:1::2', '10.1.2.3 from 10.1.2.4'],
    ],
    [
      'smaller scope',
      ['2001:db8:1::1', 'fe80::1'],
      ['2001:db8:1::2', 'fe80::2'],
      ['fe80::1 from fe80::2', '2001:db8:1::1 from 2001:db8:1::2'],
    ],
    [
      'avoid deprecated addresses',
      ['2001:db8:1::1', 'fe80::1'],
      ['2001:db8:1::2', 'old fe80::2'],
      ['2001:db8:1::1 from 2001:db8:1::2', 'fe80::1 from fe80::2'],
    ],
    [
      'longest matching prefix',
      ['2001:db8:1::1', '2001:db8:3ffe::1'],
      ['2001:db8:1::2', '2001:db8:3f44::2', 'fe80::2'],
      ['2001:db8:1::1 from 2001:db8:1::2', '2001:db8:3ffe::1 from 2001:db8:3f44::2'],
    ],
    [
      'matching label',
      ['2002:c633:6401::1', '2001:db8:1::1'],
      ['2002:c633:6401::2', 'fe80::2'],
      ['2002:c633:6401::1 from 2002:c633:6401::2', '2001:db8:1::1 from 2002:c633:6401::2'],
    ],
    [
      'higher precedence than 6to4',
      ['2002:c633:6401::1', '2001:db8:1::1'],
      ['2002:c633:6401::2', '2001:db8:1::2', 'fe80::2'],
      ['2001:db8:1::1 from 2001:db8:1::2', '2002:c633:6401::1 from 2002:c633:6401::2'],
    ],
    [
      'rule 1: what has no source is last',
      ['2001:db8:1::1', '198.51.100.121'],
      ['198.51.100.117'],
      ['198.51.100.121 from 198.51.100.117', '2001:db8:1::1 from nowhere'],
    ],
  ] as const)
    test(rule, () => expect(order(destinations, sources)).toEqual(expected));

  test('rule 10: equals stay in the order that they were given', () => {
    const sources = ['2001:db8:1::2'];
    for (const list of [
      ['2001:db8:7::1', '2001:db8:7::2'],
      ['2001:db8:7::2', '2001:db8:7::1'],
    ])
      expect(order(list, sources)).toEqual(list.map((to) => `${to} from 2001:db8:1::2`));
  });
});

describe('the configured table', () => {
  test('is the RFC’s without a section', () => {
    expect(policy({})).toEqual(DEFAULT_POLICY);
  });

  test('§10.3: IPv4 before IPv6, where the scopes match', () => {
    const table = policy({ policy: [{ prefix: '::ffff:0:0/96', precedence: 100, label: 4 }] });
    expect(table.length).toBe(DEFAULT_POLICY.length);
    const [six, four] = ['2001:db8:1::1', '198.51.100.121'];
    expect(order([six, four], ['2001:db8:1::2', 'fe80::1', '198.51.100.117'], table)[0]).toBe(
      `${four} from 198.51.100.117`,
    );
    expect(order([six, four], ['2001:db8:1::2', 'fe80::1', '169.254.13.78'], table)[0]).toBe(
      `${six} from 2001:db8:1::2`,
    );
  });

  test('§10.4: global before link-local by precedence', () => {
    const table = policy({ policy: [{ prefix: 'fe80::/10', precedence: 33, label: 1 }] });
    expect(order(['fe80::1', '2001:db8:1::1'], ['2001:db8:1::2', 'fe80::2'], table)[0]).toBe(
      '2001:db8:1::1 from 2001:db8:1::2',
    );
    // Deprecation goes before precedence.
    expect(order(['fe80::1', '2001:db8:1::1'], ['old 2001:db8:1::2', 'fe80::2'], table)[0]).toBe(
      'fe80::1 from fe80::2',
    );
  });

  test('§10.5: of two providers, the one that both ends have in common', () => {
    const table = policy({
      policy: [
        { prefix: '2001:db8:aaaa::/48', precedence: 43, label: 6 },
        { prefix: '2001:db8:bbbb::/48', precedence: 43, label: 7 },
      ],
    });
    const sources = ['2001:db8:aaaa::a', '2001:db8:bbbb::a'];
    expect(source('2001:db8:bbbb::b', sources, table)).toBe('2001:db8:bbbb::a');
    expect(order(['2001:db8:1::1', '2001:db8:aaaa::b'], sources, table)[0]).toBe(
      '2001:db8:aaaa::b from 2001:db8:aaaa::a',
    );
  });

  test('§10.6: unique local addresses of the own site before all others, when asked for', () => {
    const sources = ['2001:db8:1::2', 'fd11:1111:1111:1::2', '198.51.100.117'];
    const ours = 'fd11:1111:1111:7::1';
    const list = ['198.51.100.121', ours, '2001:db8:1::1', 'fd99::1'];
    const names = (table?: readonly PolicyRow[]) => order(list, sources, table).map((text) => text.split(' ')[0]);
    expect(names()).toEqual(['2001:db8:1::1', '198.51.100.121', ours, 'fd99::1']);
    const selection = { policy: [...DEFAULT_POLICY], preferOwnUla: true };
    const table = policyInForce(selection, book(sources));
    expect(names(table)).toEqual([ours, '2001:db8:1::1', '198.51.100.121', 'fd99::1']);
    expect(policyInForce({ ...selection, preferOwnUla: false }, book(sources))).toEqual(DEFAULT_POLICY);
  });

  test('prefixes of IPv4 are meant as mapped ones; rows of one’s own alone', () => {
    const table = policy({ 'default-policy': false, policy: [{ prefix: '10.0.0.0/8', precedence: 50, label: 9 }] });
    expect(table.map(({ prefix: { words, prefixLength } }) => `${formatAddress(6, ...words)}/${prefixLength}`)).toEqual(
      ['::ffff:10.0.0.0/104'],
    );
    expect(order(['2001:db8:1::1', '10.1.2.3'], ['2001:db8:1::2', '10.1.2.4'], table)[0]).toBe(
      '10.1.2.3 from 10.1.2.4',
    );
  });

  test('a prefix stands once', () => {
    const row = { prefix: 'fd00::/8', precedence: 1, label: 1 };
    expect(() => policy({ policy: [row, row] })).toThrow(
      'address-selection.policy[1].prefix: expected a prefix that no row before has, got "fd00::/8"',
    );
  });
});
