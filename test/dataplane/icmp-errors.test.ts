/** ICMP errors of the router's own: how often, to what never, and what is in them. */
import { describe, expect, it } from 'vitest';
import { ErrorLimiter } from '../../dataplane/icmp-errors.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

describe('rate limits', () => {
  it('towards one destination: six at once, then one a second', () => {
    const limiter = new ErrorLimiter();
    const allowed = (now: number, tries: number) =>
      Array.from({ length: tries }, () => limiter.allow(7, false, now)).filter(Boolean).length;
    expect(allowed(0, 20)).toBe(6);
    expect(allowed(999, 5)).toBe(0);
    expect(allowed(1000, 5)).toBe(1);
    expect(allowed(60_000, 20)).toBe(6);
    expect(limiter.suppressed).toBe(14 + 5 + 4 + 14);
  });

  it('all together: fifty at once, then one a millisecond; path MTU errors are only bound by this', () => {
    const limiter = new ErrorLimiter();
    let sent = 0;
    for (let n = 0; n < 200; n++) if (limiter.allow(1, true, 0)) sent++;
    expect(sent).toBe(50);
    for (let now = 1; now <= 100; now++) for (let n = 0; n < 3; n++) if (limiter.allow(1, true, now)) sent++;
    expect(sent).toBe(150);
  });

  it('what one destination is refused does not use up the budget of all', () => {
    const limiter = new ErrorLimiter();
    for (let n = 0; n < 1000; n++) limiter.allow(5, false, 0);
    expect(Array.from({ length: 60 }, () => limiter.allow(9, true, 0)).filter(Boolean).length).toBe(44);
  });

  it('over the wrap of the clock', () => {
    const limiter = new ErrorLimiter();
    const start = 0x7fffffff - 500;
    for (let n = 0; n < 6; n++) expect(limiter.allow(7, false, start)).toBe(true);
    expect(limiter.allow(7, false, start + 499)).toBe(false);
    expect(limiter.allow(7, false, (start + 1000) | 0)).toBe(true);
    expect(limiter.allow(7, false, (start + 1001) | 0)).toBe(false);
  });

  it('a destination that was quiet for weeks is answered: it was refused for the next 24 days', () => {
    for (const days of [20, 25, 30, 45, 49]) {
      const limiter = new ErrorLimiter();
      expect(limiter.allow(7, false, 0)).toBe(true);
      const now = (days * 86_400_000) | 0;
      expect([days, limiter.allow(7, false, now)]).toEqual([days, true]);
    }
  });
});

/** Packets of the LAN whose hop count ends here: the router wants to say so. */
function answer(packet: Uint8Array): H.Seen | null {
  const home = new H.Home();
  home.lan(packet);
  expect(Object.values(home.dropped).reduce((sum, n) => sum + n, 0)).toBe(1);
  expect(home.left('wan')).toEqual([]);
  const seen = home.left('lan');
  expect(seen.length).toBeLessThanOrEqual(1);
  return seen[0] ?? null;
}
const probe = B.udp({ sport: 4000, dport: 33434 }, 'probe');

describe('never answered (RFC 1122 §3.2.2)', () => {
  const up = { src: H.HOST, dst: H.SERVER, ttl: 1 };

  it('a probe is answered, so that silence means something', () => {
    expect(answer(B.ipv4(up, probe))).toMatchObject({ proto: 1, src: H.ROUTER_LAN, dst: H.HOST });
  });

  it.each([3, 4, 5, 11, 12, 1, 40])('an ICMP message of type %i: an error, or nothing that is known', (type) => {
    const quote = B.ipv4({ src: H.SERVER, dst: H.HOST }, B.udp({ sport: 1, dport: 2 }, 'x'));
    expect(answer(B.ipv4(up, B.icmp({ type }, quote)))).toBeNull();
  });

  it.each([8, 0, 13, 17])('an ICMP query of type %i is answered', (type) => {
    // An answer without a question is invalid and has no hop count to run out.
    const seen = answer(B.ipv4(up, B.icmp({ type, id: 1, seq: 1 }, 'abcdefghijkl')));
    if (type === 8 || type === 13 || type === 17) expect(seen).toMatchObject({ proto: 1 });
  });

  it('a packet to or from a group, to a broadcast address, or in a broadcast frame', () => {
    const frames = [
      B.ethernet({ src: H.HOST_MAC, dst: '01:00:5e:00:00:fb' }, B.ipv4({ ...up, dst: '224.0.0.251' }, probe)),
      B.ethernet({ src: H.HOST_MAC, dst: 'ff:ff:ff:ff:ff:ff' }, B.ipv4(up, probe)),
      B.ethernet({ src: H.HOST_MAC, dst: 'ff:ff:ff:ff:ff:ff' }, B.ipv4({ ...up, dst: '255.255.255.255' }, probe)),
      B.ethernet({ src: H.HOST_MAC, dst: 'ff:ff:ff:ff:ff:ff' }, B.ipv4({ ...up, dst: '192.168.1.255' }, probe)),
      B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC }, B.ipv4({ ...up, dst: '192.168.1.255', ttl: 9 }, probe)),
      B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC }, B.ipv4({ ...up, dst: '192.168.1.0', ttl: 9 }, probe)),
      B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC }, B.ipv4({ ...up, src: '0.0.0.0' }, probe)),
    ];
    for (const [n, frame] of frames.entries()) {
      const home = new H.Home();
      home.router.inject('lan', frame);
      expect([n, home.left('lan').length]).toEqual([n, 0]);
      expect(home.router.counters.generated).toBe(0);
    }
  });

  it('a fragment that is not the first', () => {
    for (const part of B.fragment4(B.ipv4(up, B.udp({ sport: 1, dport: 2 }, new Uint8Array(600))), 400).slice(1)) {
      const home = new H.Home();
      home.lan(part);
      home.router.advance(60_000);
      expect(home.left('lan')).toEqual([]);
    }
  });
});

describe('never answered (RFC 4443 §2.4(e))', () => {
  const up = { src: H.HOST6, dst: H.SERVER6, hop: 1 };

  it('a probe is answered, so that silence means something', () => {
    expect(answer(B.ipv6(up, probe))).toMatchObject({ proto: 58, src: H.ROUTER_LAN6, dst: H.HOST6 });
  });

  it.each([1, 2, 3, 4, 100, 127, 137])('an ICMPv6 message of type %i: an error, or a redirect', (type) => {
    const quote = B.ipv6({ src: H.SERVER6, dst: H.HOST6 }, B.udp({ sport: 1, dport: 2 }, 'x'));
    expect(answer(B.ipv6(up, B.icmpv6({ type }, quote)))).toBeNull();
  });

  it('an error behind a header that is itself wrong: the packet before it in the frame memory had decided', () => {
    const quote = B.ipv6({ src: H.SERVER6, dst: H.HOST6 }, B.udp({ sport: 1, dport: 2 }, 'x'));
    // An option that asks for an error, in front of an ICMPv6 error: (e.1) is about that too.
    const wrong = [B.hopByHop(B.hex('80020000'))];
    expect(answer(B.ipv6({ ...up, hop: 64, ext: wrong }, B.icmpv6({ type: 1 }, quote)))).toBeNull();
    expect(answer(B.ipv6({ ...up, hop: 64, ext: wrong }, probe))).toMatchObject({ proto: 58 });
    // And the other way round: an innocent packet is answered whatever came before it.
    const home = new H.Home();
    home.lan(B.ipv6({ ...up, hop: 64 }, B.icmpv6({ type: 1 }, quote)));
    home.lan(B.ipv6({ ...up, hop: 64, ext: wrong }, probe));
    expect(home.one('lan').l4[0]).toBe(4);
  });

  it('a multicast destination, but for the two errors that may answer it (e.3)', () => {
    const home = new H.Home();
    const group = (ext: B.Extension[]) =>
      B.ethernet({ src: H.HOST_MAC, dst: '33:33:00:00:00:99' }, B.ipv6({ ...up, hop: 9, dst: 'ff05::99', ext }, probe));
    home.router.inject('lan', group([]));
    home.router.inject('lan', group([B.hopByHop(B.hex('c2020000'))])); // 11: not to multicast
    expect(home.left('lan')).toEqual([]);
    home.router.inject('lan', group([B.hopByHop(B.hex('82020000'))])); // 10: whatever the destination
    expect(home.one('lan').l4[0]).toBe(4);
  });

  it('an unspecified source', () => {
    expect(answer(B.ipv6({ ...up, src: '::' }, probe))).toBeNull();
  });
});

describe('what is in an error', () => {
  it('IPv4: as much of the packet as 576 bytes hold (RFC 1812 §4.3.2.3), precedence 6 and its TOS (§4.3.2.5)', () => {
    for (const size of [0, 1, 3, 400, 548 - 28, 549 - 28, 1400]) {
      const packet = B.ipv4(
        { src: H.HOST, dst: H.SERVER, ttl: 1, tos: 0x10, id: size },
        B.udp({ sport: 1, dport: 2 }, new Uint8Array(size).fill(7)),
      );
      const seen = answer(packet);
      expect(seen).not.toBeNull();
      const quote = H.quoteOf(seen as H.Seen);
      expect(quote).toEqual(packet.slice(0, 548));
      expect(seen?.packet.length).toBe(Math.min(576, packet.length + 28));
      expect(seen?.packet[1]).toBe(0xd0);
    }
  });

  it('IPv6: as much of the packet as 1280 bytes hold (RFC 4443 §3)', () => {
    for (const size of [0, 1, 1184, 1185, 1400]) {
      const packet = B.ipv6(
        { src: H.HOST6, dst: H.SERVER6, hop: 1 },
        B.udp({ sport: 1, dport: 2 }, new Uint8Array(size).fill(7)),
      );
      const seen = answer(packet);
      expect(H.quoteOf(seen as H.Seen)).toEqual(packet.slice(0, 1232));
      expect(seen?.packet.length).toBe(Math.min(1280, packet.length + 48));
    }
  });

  it('the address that the packet was sent to is the source, when it is ours (RFC 1812 §4.3.2.4)', () => {
    const home = new H.Home();
    home.lan(B.ipv4({ src: H.HOST, dst: H.ROUTER_WAN }, B.udp({ sport: 5, dport: 6 }, 'nobody listens')));
    const seen = home.one('lan');
    expect([seen.src, seen.l4[0], seen.l4[1]]).toEqual([H.ROUTER_WAN, 3, 3]);
    home.lan(B.ipv6({ src: H.HOST6, dst: H.ROUTER_WAN6 }, B.udp({ sport: 5, dport: 6 }, 'nobody listens')));
    const six = home.one('lan');
    expect([six.src, six.l4[0], six.l4[1]]).toEqual([H.ROUTER_WAN6, 1, 4]);
  });
});
