/**
 * RFC 6296, IPv6-to-IPv6 network prefix translation: the algorithm by its example and by property, and through a router.
 */
import { describe, expect, it } from 'vitest';
import { hasPrefix, translate } from '../../conntrack/nptv6.ts';
import { createRouter } from '../../controlplane/router.ts';
import { formatAddress, parseAddress } from '../../dataplane/wire/address.ts';
import { checksum, ethernet, get16, icmpv6, ip, ipText, ipv6, Random, udp, verify } from '../lib/build.ts';

/** Translates a textual address; null when it has no translation. */
function map(address: string, from: string, to: string, length: number): string | null {
  const words = new Int32Array(12);
  for (const [n, text] of [address, from, to].entries()) words.set(parseAddress(text)!.words, 4 * n);
  expect(hasPrefix(words, 0, words, 4, length)).toBe(true);
  if (!translate(words, 0, words, 4, 8, length)) return null;
  return formatAddress(6, words[0], words[1], words[2], words[3]);
}

describe('RFC 6296 §3', () => {
  it('§3.6: the example: FD01:0203:0405:1::1234 becomes 2001:0DB8:0001:D550::1234, and back', () => {
    expect(map('fd01:203:405:1::1234', 'fd01:203:405::', '2001:db8:1::', 48)).toBe('2001:db8:1:d550::1234');
    expect(map('2001:db8:1:d550::1234', '2001:db8:1::', 'fd01:203:405::', 48)).toBe('fd01:203:405:1::1234');
  });

  it('§3.4: the subnet of all ones has no translation', () => {
    expect(map('fd01:203:405:ffff::1', 'fd01:203:405::', '2001:db8:1::', 48)).toBeNull();
  });

  it('is one to one and leaves the checksum alone, for prefixes from /32 to /64', () => {
    const random = new Random(6296);
    for (let n = 0; n < 3000; n++) {
      const length = random.pick([32, 40, 44, 48, 52, 56, 60, 64]);
      const prefix = (first: number) => {
        const bytes = random.bytes(16);
        bytes[0] = first;
        for (let bit = length; bit < 128; bit++) bytes[bit >> 3] &= ~(0x80 >> (bit & 7));
        return bytes;
      };
      const [internal, external] = [prefix(0xfd), prefix(0x20)];
      const host = random.bytes(16);
      for (let bit = 0; bit < length; bit++) {
        const mask = 0x80 >> (bit & 7);
        host[bit >> 3] = (host[bit >> 3] & ~mask) | (internal[bit >> 3] & mask);
      }
      if (random.chance(0.2)) host.fill(0xff, 8, 10);
      const seen = map(ipText(host), ipText(internal), ipText(external), length);
      if (seen === null) {
        expect(get16(host, 6)).toBe(0xffff);
        continue;
      }
      expect(checksum(ip(seen))).toBe(checksum(host));
      const back = map(seen, ipText(external), ipText(internal), length);
      // §3.4: 0xffff and 0 are one number; the way back gives 0.
      expect(back).toBe(ipText(host));
    }
  });
});

describe('through a router', () => {
  const world = (nat: Record<string, unknown> = {}) =>
    createRouter({
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['fd01:203:405:1::1/64'] },
        wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses: ['2001:db8:ffff::1/64'] },
      },
      routes: [{ to: '::/0', via: '2001:db8:ffff::fe' }],
      neighbors: [
        { port: 'wan', ip: '2001:db8:ffff::fe', mac: '02:00:00:00:00:fe' },
        { port: 'lan', ip: 'fd01:203:405:1::1234', mac: '02:00:00:00:00:10' },
        { port: 'lan', ip: 'fd01:203:405:1::99', mac: '02:00:00:00:00:99' },
      ],
      zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
      rules: [{ from: 'wan', to: 'lan', family: 'ipv6', proto: 'udp', port: 7777, verdict: 'accept' }],
      nat: { nptv6: [{ out: 'wan', internal: 'fd01:203:405::/48', external: '2001:db8:1::/48' }], ...nat },
      offload: { mode: 'off' },
      conntrack: { max: 1024 },
    });
  const HOST = 'fd01:203:405:1::1234';
  const SEEN = '2001:db8:1:d550::1234';
  const FAR = '2001:db8:77::1';
  const out = (packet: Uint8Array) => ethernet({ src: '02:00:00:00:00:10', dst: '02:00:00:00:01:01' }, packet);
  const inwards = (packet: Uint8Array) => ethernet({ src: '02:00:00:00:00:fe', dst: '02:00:00:00:01:02' }, packet);
  const addresses = (frame: Uint8Array) => {
    expect(verify(frame)).toEqual([]);
    return [ipText(frame.subarray(22, 38)), ipText(frame.subarray(38, 54))];
  };

  it('out, and the answer back; the transport checksum is the one that the host wrote', () => {
    const router = world();
    const packet = ipv6({ src: HOST, dst: FAR }, udp({ sport: 5, dport: 7 }, 'hello'));
    router.inject('lan', out(packet));
    const [frame] = router.take('wan');
    expect(addresses(frame)).toEqual([SEEN, FAR]);
    expect(get16(frame, 60)).toBe(get16(packet, 46));
    router.inject('wan', inwards(ipv6({ src: FAR, dst: SEEN }, udp({ sport: 7, dport: 5 }, 'hi'))));
    expect(router.take('lan').map(addresses)).toEqual([[FAR, HOST]]);
  });

  it('inwards: translated for every host, let in by the rules alone (§5.1: no firewall by itself)', () => {
    const router = world();
    router.inject('wan', inwards(ipv6({ src: FAR, dst: SEEN }, udp({ sport: 7, dport: 7777 }, 'hi'))));
    expect(router.take('lan').map(addresses)).toEqual([[FAR, HOST]]);
    router.inject('lan', out(ipv6({ src: HOST, dst: FAR }, udp({ sport: 7777, dport: 7 }, 'hi'))));
    expect(router.take('wan').map(addresses)).toEqual([[SEEN, FAR]]);
    router.inject('wan', inwards(ipv6({ src: FAR, dst: SEEN }, udp({ sport: 7, dport: 22 }, 'hi'))));
    expect(router.take('lan')).toEqual([]);
    expect(router.counters.dropped.FILTER_DROP).toBe(1);
  });

  it('ICMPv6 errors come back about what the host had sent', () => {
    const router = world();
    router.inject('lan', out(ipv6({ src: HOST, dst: FAR }, udp({ sport: 5, dport: 7 }, 'hello'))));
    const [frame] = router.take('wan');
    const error = icmpv6({ type: 1, code: 4 }, frame.subarray(14));
    router.inject('wan', inwards(ipv6({ src: '2001:db8:66::6', dst: SEEN }, error)));
    const [seen] = router.take('lan');
    expect(addresses(seen)).toEqual(['2001:db8:66::6', HOST]);
    expect(ipText(seen.subarray(14 + 48 + 8, 14 + 48 + 24))).toBe(HOST);
  });

  it('§4: a host inside reaches another by its outside address, and both see outside addresses', () => {
    const router = world();
    router.inject('lan', out(ipv6({ src: HOST, dst: '2001:db8:1:d550::99' }, udp({ sport: 5, dport: 7 }, 'hello'))));
    expect(router.take('lan').map(addresses)).toEqual([[SEEN, 'fd01:203:405:1::99']]);
    const answer = ipv6({ src: 'fd01:203:405:1::99', dst: SEEN }, udp({ sport: 7, dport: 5 }, 'hi'));
    router.inject('lan', ethernet({ src: '02:00:00:00:00:99', dst: '02:00:00:00:01:01' }, answer));
    expect(router.take('lan').map(addresses)).toEqual([['2001:db8:1:d550::99', HOST]]);
  });

  it('another prefix ended no connection: they kept the old one; equal rules end none', () => {
    const nptv6 = (external: string) => ({ nptv6: [{ out: 'wan', internal: 'fd01:203:405::/48', external }] });
    const router = world(nptv6('2001:db8:1::/48'));
    const load = (nat: Record<string, unknown>) => {
      router.control.loadNat(world(nat).config);
      return router.conntrack.count;
    };
    const send = () => {
      router.inject('lan', out(ipv6({ src: HOST, dst: FAR }, udp({ sport: 5, dport: 7 }, 'hello'))));
      return router.take('wan').map(addresses);
    };
    send();
    router.inject('wan', inwards(ipv6({ src: FAR, dst: SEEN }, udp({ sport: 9, dport: 7777 }, 'from outside'))));
    router.inject('lan', out(ipv6({ src: HOST, dst: '2001:db8:1:d550::99' }, udp({ sport: 5, dport: 7 }, 'hairpin'))));
    router.inject('lan', out(ipv6({ src: HOST, dst: FAR }, icmpv6({ type: 128, id: 5, seq: 1 }, 'unanswered'))));
    router.inject('lan', out(ipv6({ src: HOST, dst: 'fd01:203:405:1::99' }, udp({ sport: 5, dport: 7 }, 'inside'))));
    expect(router.conntrack.count).toBe(5);
    expect(load(nptv6('2001:db8:1::/48'))).toBe(5);
    expect(load(nptv6('2001:db8:2::/48'))).toBe(1);
    router.take('wan');
    expect(send()).toEqual([['2001:db8:2:d54f::1234', FAR]]);
    expect(load({ nptv6: [] })).toBe(1);
    expect(send()).toEqual([[HOST, FAR]]);
  });
});
