/** ND and ARP messages on the wire: RFC 4861 §6.1 and §7.1 rule by rule, option bounds, RFC 826 fields. */
import { describe, expect, test } from 'vitest';
import * as arp from '../../../dataplane/wire/arp.ts';
import * as icmpv6 from '../../../dataplane/wire/icmpv6.ts';
import * as ipv6 from '../../../dataplane/wire/ipv6.ts';
import * as nd from '../../../dataplane/wire/nd.ts';
import * as build from '../../lib/build.ts';

const SLLA = build.hex('01 01 02 00 00 00 00 0a');
const TLLA = build.hex('02 01 02 00 00 00 00 0a');

interface Message {
  type: number;
  src?: string;
  dst?: string;
  hop?: number;
  code?: number;
  flags?: number;
  body?: Uint8Array;
  checksum?: number;
}

function message(m: Message): Uint8Array {
  return build.ipv6(
    { src: m.src ?? 'fe80::a', dst: m.dst ?? 'ff02::1:ff00:1', hop: m.hop ?? 255 },
    build.icmpv6({ type: m.type, code: m.code, rest: (m.flags ?? 0) << 24, checksum: m.checksum }, m.body ?? ''),
  );
}

const target = build.ip('fe80::1');
const solicitation = (m: Partial<Message> = {}) => message({ type: 135, body: build.concat(target, SLLA), ...m });
const advertisement = (m: Partial<Message> = {}) =>
  message({ type: 136, dst: 'fe80::1', flags: 0x60, body: build.concat(target, TLLA), ...m });
const valid = (packet: Uint8Array) => nd.check(packet, 0, 40, packet.length);

describe('RFC 4861 §7.1.1: neighbor solicitations', () => {
  test('a valid one, and its fields', () => {
    const packet = solicitation();
    expect(valid(packet)).toBe(true);
    expect(nd.text(packet, 40)).toBe('nd solicitation fe80::1');
    const option = nd.option(packet, 40 + nd.OPTIONS, packet.length, nd.OPTION_SOURCE);
    expect(option).toBe(64);
    expect([nd.macLo(packet, option), nd.macHi(packet, option)]).toEqual([0x00000002, 0x0a00]);
  });

  test('emit writes the same bytes', () => {
    for (const [packet, type, flags, option] of [
      [solicitation(), 135, 0, nd.OPTION_SOURCE],
      [advertisement({ flags: 0xe0 }), 136, nd.ROUTER | nd.SOLICITED | nd.OVERRIDE, nd.OPTION_TARGET],
    ] as const) {
      const copy = packet.slice().fill(0, 40);
      const t = [0, 1, 2, 3].map((n) => nd.target(packet, 40, n));
      const length = nd.emit(copy, 40, type, flags, t[0], t[1], t[2], t[3], option, 0x00000002, 0x0a00);
      expect(length).toBe(packet.length - 40);
      icmpv6.finish(copy, 0, 40, copy.length);
      expect(build.toHex(copy)).toBe(build.toHex(packet));
    }
  });

  test.each<[string, Partial<Message>]>([
    ['hop limit 254', { hop: 254 }],
    ['code 1', { code: 1 }],
    ['a wrong checksum', { checksum: 0x1234 }],
    ['23 bytes', { body: target.subarray(0, 15) }],
    ['a multicast target', { body: build.concat(build.ip('ff02::1'), SLLA) }],
    ['an option of length 0', { body: build.concat(target, build.hex('01 00 02 00 00 00 00 0a')) }],
    ['an option that does not fit', { body: build.concat(target, build.hex('01 02 02 00 00 00 00 0a')) }],
    ['one byte behind the options', { body: build.concat(target, SLLA, Uint8Array.of(1)) }],
    ['a multicast source', { src: 'ff02::a' }],
    [':: with a source option', { src: '::' }],
    [':: to an address that is not a solicited-node group', { src: '::', dst: 'fe80::1', body: target }],
  ])('refused: %s', (_rule, change) => {
    expect(valid(solicitation(change))).toBe(false);
  });

  test.each<[string, Partial<Message>]>([
    ['from :: to the solicited-node group without option', { src: '::', body: target }],
    ['unicast without option', { dst: 'fe80::1', body: target }],
    ['unknown options, which are skipped (§4.6)', { body: build.concat(target, build.hex('fd01 000000000000'), SLLA) }],
  ])('accepted: %s', (_rule, change) => {
    expect(valid(solicitation(change))).toBe(true);
  });
});

describe('RFC 4861 §7.1.2: neighbor advertisements', () => {
  test('a valid one', () => {
    expect(valid(advertisement())).toBe(true);
    expect(nd.text(advertisement({ flags: 0xe0 }), 40)).toBe('nd advertisement fe80::1 RSO');
  });

  test.each<[string, Partial<Message>]>([
    ['hop limit 1', { hop: 1 }],
    ['code 2', { code: 2 }],
    ['a wrong checksum', { checksum: 1 }],
    ['too short', { body: target.subarray(0, 8) }],
    ['a multicast target', { body: build.concat(build.ip('ff02::1:ff00:1'), TLLA) }],
    ['solicited, but sent to a group', { dst: 'ff02::1' }],
    ['an option of length 0', { body: build.concat(target, build.hex('02 00 02 00 00 00 00 0a')) }],
  ])('refused: %s', (_rule, change) => {
    expect(valid(advertisement(change))).toBe(false);
  });

  test('unsolicited to all nodes is fine', () => {
    expect(valid(advertisement({ dst: 'ff02::1', flags: 0x20 }))).toBe(true);
  });
});

describe('RFC 4861 §6.1: router messages', () => {
  test('router solicitation: no source option from ::', () => {
    expect(valid(message({ type: 133, dst: 'ff02::2', body: SLLA }))).toBe(true);
    expect(valid(message({ type: 133, src: '::', dst: 'ff02::2' }))).toBe(true);
    expect(valid(message({ type: 133, src: '::', dst: 'ff02::2', body: SLLA }))).toBe(false);
  });

  test('router advertisement and redirect: link-local source, whole header', () => {
    expect(valid(message({ type: 134, dst: 'ff02::1', body: new Uint8Array(8) }))).toBe(true);
    expect(valid(message({ type: 134, dst: 'ff02::1', body: new Uint8Array(7) }))).toBe(false);
    expect(valid(message({ type: 134, src: '2001:db8::1', dst: 'ff02::1', body: new Uint8Array(8) }))).toBe(false);
    expect(valid(message({ type: 137, body: new Uint8Array(32) }))).toBe(true);
    expect(valid(message({ type: 137, src: '2001:db8::1', body: new Uint8Array(32) }))).toBe(false);
  });

  test('a type that is not ND', () => {
    expect(valid(message({ type: 128, body: new Uint8Array(32) }))).toBe(false);
  });
});

test('§4.6: the option walk is bounded on random bytes and agrees with optionsOk', () => {
  const random = new build.Random(4861);
  for (let round = 0; round < 5000; round++) {
    const u8 = random.bytes(64);
    for (let n = 1; n < 64; n += 8) if (random.chance(0.8)) u8[n] = random.int(0, 3);
    const end = random.int(0, 8) * 8;
    const at = nd.option(u8, 0, end, u8[8]);
    if (at >= 0) expect(at + u8[at + 1] * 8).toBeLessThanOrEqual(end);
    if (nd.optionsOk(u8, 0, end) && end > 0) expect(nd.option(u8, 0, end, u8[0])).toBe(0);
  }
});

describe('RFC 826', () => {
  const request = build.arp({ op: 'request', sha: '02:00:00:00:00:0a', spa: '10.0.0.10', tpa: '10.0.0.1' });

  test('fields and emit', () => {
    expect(arp.check(request, 0, request.length)).toBe(true);
    expect(arp.text(request, 0)).toBe('arp who-has 10.0.0.1 tell 10.0.0.10');
    const copy = new Uint8Array(28);
    const [lo, hi] = [arp.senderLo(request, 0), arp.senderHi(request, 0)];
    arp.emit(copy, 0, arp.REQUEST, lo, hi, arp.senderIp(request, 0), 0, 0, arp.targetIp(request, 0));
    expect(build.toHex(copy)).toBe(build.toHex(request));
    copy[7] = 2;
    expect(arp.text(copy, 0)).toBe('arp reply 10.0.0.10 is-at 02:00:00:00:00:0a');
  });

  test.each([
    ['hardware type 6', 1, 6],
    ['protocol IPv6', 2, 0x86],
    ['hardware length 8', 4, 8],
    ['protocol length 16', 5, 16],
    ['operation 3 (RARP)', 7, 3],
    ['operation 0', 7, 0],
  ])('check refuses %s', (_name, at, value) => {
    const bad = request.slice();
    bad[at] = value;
    expect(arp.check(bad, 0, bad.length)).toBe(false);
  });

  test('check refuses 27 bytes and accepts padding', () => {
    expect(arp.check(request, 0, 27)).toBe(false);
    expect(arp.check(build.concat(request, new Uint8Array(18)), 0, 46)).toBe(true);
  });
});

test('an IPv6 header before the message is where the pseudo-header comes from', () => {
  const packet = solicitation();
  expect(ipv6.hopLimit(packet, 0)).toBe(255);
  packet[8 + 15] ^= 1;
  expect(valid(packet)).toBe(false);
});
