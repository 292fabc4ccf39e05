/** The router answers ping: RFC 792, RFC 1122 §3.2.2.6, RFC 4443 §4.1–4.2. */
import { describe, expect, test } from 'vitest';
import { cut6, joined } from '../dataplane/fragment-cut.ts';
import * as build from '../lib/build.ts';
import { HOST_MAC, Home } from '../lib/home.ts';
import { HOST, MACS, World } from './neighbour/world.ts';

type Icmp = Parameters<typeof build.icmp>[0];

const wrap = (packet: Uint8Array) => build.ethernet({ src: HOST, dst: MACS[0] }, packet);

function ping4(ip: Partial<build.Ipv4Options> = {}, fields: Partial<Icmp> = {}): Uint8Array {
  return wrap(
    build.ipv4(
      { src: '10.0.0.10', dst: '10.0.0.1', id: 99, ttl: 3, ...ip },
      build.icmp({ type: 8, id: 0x1234, seq: 7, ...fields }, 'abcdefg'),
    ),
  );
}

function ping6(ip: Partial<build.Ipv6Options> = {}, fields: Partial<Icmp> = {}): Uint8Array {
  return wrap(
    build.ipv6(
      { src: '2001:db8::a', dst: '2001:db8::1', hop: 3, flow: 5, ...ip },
      build.icmpv6({ type: 128, id: 0x1234, seq: 7, ...fields }, 'abcdefg'),
    ),
  );
}

/** What the router puts out for one frame, hex. */
function answers(frame: Uint8Array, port = 0): string[] {
  const world = new World();
  world.frame(port, frame);
  expect(world.take()).toEqual([]);
  return world.output.map(build.toHex);
}

describe('RFC 792', () => {
  test('identifier, sequence number, data and TOS come back', () => {
    const expected = build.ipv4(
      { src: '10.0.0.1', dst: '10.0.0.10', id: 42, ttl: 64, tos: 0xb9 },
      build.icmp({ type: 0, id: 0x1234, seq: 7 }, 'abcdefg'),
    );
    expect(answers(ping4({ tos: 0xb9 }))).toEqual([build.toHex(expected)]);
  });

  test('link-layer padding does not become data; options do not come back', () => {
    const plain = answers(ping4());
    expect(answers(build.concat(ping4(), new Uint8Array(9)))).toEqual(plain);
    expect(answers(ping4({ options: build.hex('94040000') }))).toEqual(plain);
  });

  test("an address of another port is the router's too", () => {
    expect(answers(ping4({ dst: '10.0.1.1' })).length).toBe(1);
  });

  test('every reply has an identification of its own', () => {
    const world = new World();
    world.frame(0, ping4());
    world.frame(0, ping4());
    expect(world.output.map((p) => build.get16(p, 4))).toEqual([42, 43]);
  });

  test.each<[string, Uint8Array]>([
    ['a subnet broadcast', ping4({ dst: '10.0.0.255' })],
    ['the limited broadcast', ping4({ dst: '255.255.255.255' })],
    ['a multicast group', ping4({ dst: '224.0.0.1' })],
    ['a stranger', ping4({ dst: '10.0.0.77' })],
    ['a wrong checksum', ping4({}, { checksum: 0x4242 })],
    ['a reply', ping4({}, { type: 0 })],
    ['a code', ping4({}, { code: 1 })],
    ['a fragment', ping4({ more: true })],
    ['a broadcast source', ping4({ src: '255.255.255.255' })],
    ['no source', ping4({ src: '0.0.0.0' })],
    ['a multicast source', ping4({ src: '224.0.0.5' })],
  ])('no answer: %s', (_name, frame) => {
    expect(answers(frame)).toEqual([]);
  });
});

describe('RFC 4443', () => {
  test('identifier, sequence number, data and traffic class come back', () => {
    const expected = build.ipv6(
      { src: '2001:db8::1', dst: '2001:db8::a', hop: 64, tclass: 0xb8 },
      build.icmpv6({ type: 129, id: 0x1234, seq: 7 }, 'abcdefg'),
    );
    expect(answers(ping6({ tclass: 0xb8 }))).toEqual([build.toHex(expected)]);
  });

  test('§2.2: a multicast request is answered from a unicast address of the port', () => {
    const [reply] = answers(ping6({ dst: 'ff02::1' }));
    expect(build.ipText(build.hex(reply).subarray(8, 24))).toBe('2001:db8::1');
    expect(build.ipText(build.hex(reply).subarray(24, 40))).toBe('2001:db8::a');
  });

  test('to a link-local address the reply goes back on the link of the request', () => {
    const world = new World();
    for (const dst of ['fe80::1', 'ff02::1']) world.frame(1, ping6({ src: 'fe80::a', dst }));
    const expected = build.ipv6(
      { src: 'fe80::1', dst: 'fe80::a' },
      build.icmpv6({ type: 129, id: 0x1234, seq: 7 }, 'abcdefg'),
    );
    expect(world.output.map(build.toHex)).toEqual([build.toHex(expected), build.toHex(expected)]);
  });

  test('a reply to a link-local address that is longer than the link carries leaves in fragments', () => {
    const home = new Home({ neighbors: [{ port: 'lan', ip: 'fe80::a', mac: HOST_MAC }] });
    const data = Uint8Array.from({ length: 3000 }, (_, n) => n * 7);
    const request = build.ipv6(
      { src: 'fe80::a', dst: 'fe80::ff:fe00:101' },
      build.icmpv6({ type: 128, id: 0x1234, seq: 7 }, data),
    );
    for (const part of cut6(request, [1232, 2464], 99)) home.lan(part);
    expect(home.left('wan')).toEqual([]);
    const parts = home.left('lan');
    expect(parts.map(({ packet, dstMac, dst, proto }) => [packet.length <= 1500, dstMac, dst, proto])).toEqual(
      parts.map(() => [true, HOST_MAC, 'fe80::a', 44]),
    );
    const reply = build.ipv6(
      { src: 'fe80::ff:fe00:101', dst: 'fe80::a', hop: 64 },
      build.icmpv6({ type: 129, id: 0x1234, seq: 7 }, data),
    );
    expect(joined(parts.map(({ packet }) => packet)).map(build.toHex)).toEqual([build.toHex(reply)]);
  });

  test('extension headers are stepped over, an atomic fragment too (RFC 6946)', () => {
    const plain = answers(ping6());
    expect(answers(ping6({ ext: [build.hopByHop(), build.destinationOptions()] }))).toEqual(plain);
    expect(answers(ping6({ ext: [build.fragmentHeader({ offset: 0, more: false, id: 1 })] }))).toEqual(plain);
  });

  test.each<[string, Uint8Array]>([
    ['a stranger', ping6({ dst: '2001:db8::77' })],
    ['the link-local address of another port', ping6({ dst: 'fe80::2' })],
    ['a wrong checksum', ping6({}, { checksum: 0x4242 })],
    ['a reply', ping6({}, { type: 129 })],
    ['a first fragment', ping6({ ext: [build.fragmentHeader({ offset: 0, more: true, id: 1 })] })],
    ['no source', ping6({ src: '::' })],
    ['a multicast source', ping6({ src: 'ff02::1' })],
    ['the loopback as source', ping6({ src: '::1' })],
  ])('no answer: %s', (_name, frame) => {
    expect(answers(frame)).toEqual([]);
  });
});
