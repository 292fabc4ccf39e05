/**
 * RFC 4890, ICMPv6 through and to a firewall, by clause, for all 256 types. The gateway is test/lib/home.ts: zone lan
 * accepts, zone wan drops, the default of `firewall`.
 */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const ROUTER6 = H.ROUTER_WAN6;
type Side = 'lan' | 'wan';

const range = (low: number, high: number): number[] => Array.from({ length: high - low + 1 }, (_, n) => low + n);

/** A message of this type by itself, in transit; true when it left on the other side as it was. */
function transit(from: Side, type: number, extra: Record<string, unknown> = {}): boolean {
  const home = new H.Home(extra);
  const [src, dst] = from === 'lan' ? [H.HOST6, H.SERVER6] : [H.SERVER6, H.HOST6];
  home[from](B.ipv6({ src, dst }, B.icmpv6({ type, id: 7, seq: 1 }, new Uint8Array(64))));
  return home.left(from === 'lan' ? 'wan' : 'lan').some((seen) => seen.proto === 58 && seen.l4[0] === type);
}

/** An error of this type and code about a flow that a host inside has opened; true when it reached the host. */
function about(type: number, code: number, quoted: Partial<B.Ipv6Options> = {}): boolean {
  const home = new H.Home();
  const data = B.udp({ sport: 4000, dport: 5000 }, 'x');
  const flow = { src: H.HOST6, dst: H.SERVER6 };
  home.lan(B.ipv6(flow, data));
  expect(home.left('wan')).toHaveLength(1);
  home.wan(
    B.ipv6(
      { src: '2001:db8:9::9', dst: H.HOST6 },
      B.icmpv6({ type, code, mtu: 1280 }, B.ipv6({ ...flow, ...quoted }, data)),
    ),
  );
  const [error] = home.left('lan');
  return error !== undefined && error.l4[0] === type && error.l4[1] === code;
}

describe('§4.3 transit', () => {
  it('§4.3.1 errors that must not be dropped: unreachable, too big, exceeded code 0, parameter codes 1 and 2', () => {
    for (const code of range(0, 7)) expect(about(1, code)).toBe(true);
    for (const [type, code] of [
      [2, 0],
      [3, 0],
      [4, 1],
      [4, 2],
    ])
      expect(about(type, code)).toBe(true);
  });

  it('§4.3.1 echo, in both directions, and its answer', () => {
    for (const from of ['lan', 'wan'] as const) {
      expect(transit(from, 128)).toBe(true);
      const home = new H.Home();
      const [src, dst] = from === 'lan' ? [H.HOST6, H.SERVER6] : [H.SERVER6, H.HOST6];
      home[from](B.ipv6({ src, dst }, B.icmpv6({ type: 128, id: 7, seq: 1 }, 'ping')));
      home[from === 'lan' ? 'wan' : 'lan'](
        B.ipv6({ src: dst, dst: src }, B.icmpv6({ type: 129, id: 7, seq: 1 }, 'ping')),
      );
      expect(home.left(from)).toHaveLength(1);
      // An answer that nobody asked for is invalid.
      expect(transit(from, 129)).toBe(false);
    }
  });

  it('§4.3.2 errors that normally should not be dropped: exceeded code 1, parameter code 0', () => {
    expect(about(3, 1)).toBe(true);
    expect(about(4, 0)).toBe(true);
  });

  it('§4.3.2 Mobile IPv6: home agents and prefixes are asked for from either side, and the answers pass', () => {
    for (const [question, answer] of [
      [144, 145],
      [146, 147],
    ])
      for (const from of ['lan', 'wan'] as const) {
        expect(transit(from, question)).toBe(true);
        const home = new H.Home();
        const [src, dst] = from === 'lan' ? [H.HOST6, H.SERVER6] : [H.SERVER6, H.HOST6];
        home[from](B.ipv6({ src, dst }, B.icmpv6({ type: question, rest: 0x12340000 })));
        home[from === 'lan' ? 'wan' : 'lan'](
          B.ipv6({ src: dst, dst: src }, B.icmpv6({ type: answer, rest: 0x12340000 })),
        );
        expect(home.left(from)).toHaveLength(1);
      }
  });

  it('§4.3.3 what is of one link stays there: ND, MLD, SEND, multicast router discovery', () => {
    for (const type of [...range(130, 137), 141, 142, 143, 148, 149, 151, 152, 153])
      for (const from of ['lan', 'wan'] as const) expect([type, transit(from, type)]).toEqual([type, false]);
  });

  it('§4.3.4 a policy: Seamoby and unassigned informational types do not cross', () => {
    for (const type of [150, ...range(154, 199), ...range(202, 254)])
      for (const from of ['lan', 'wan'] as const) expect([type, transit(from, type)]).toEqual([type, false]);
  });

  it('§4.3.4 a policy: unassigned errors cross when they belong to a flow, not by themselves', () => {
    for (const type of [5, 50, 99, 102, 126]) {
      expect([type, about(type, 0)]).toEqual([type, true]);
      for (const from of ['lan', 'wan'] as const) expect([type, transit(from, type)]).toEqual([type, false]);
    }
  });

  it('§4.3.5 dropped unless a good case can be made: node information, renumbering, experiments, 127 and 255', () => {
    for (const type of [138, 139, 140, 100, 101, 200, 201, 127, 255])
      for (const from of ['lan', 'wan'] as const) expect([type, transit(from, type)]).toEqual([type, false]);
    // A good case is a rule.
    const rules = [{ proto: 'icmpv6', 'icmp-type': 139, verdict: 'accept' }];
    for (const from of ['lan', 'wan'] as const) expect(transit(from, 139, { rules })).toBe(true);
    // And a router in transit, without a border, leaves the question to others.
    expect(transit('wan', 139, { zones: { lan: { forward: 'accept' }, wan: { forward: 'accept' } } })).toBe(true);
  });

  it('can be left to the zones', () => {
    const firewall = { icmpv6: false };
    expect(transit('wan', 128, { firewall })).toBe(false);
    expect(transit('lan', 139, { firewall })).toBe(true);
  });
});

describe('§4.4 to the router itself', () => {
  const ask = (type: number, extra: Record<string, unknown> = {}): H.Seen[] => {
    const home = new H.Home(extra);
    home.wan(B.ipv6({ src: H.GATE6, dst: ROUTER6 }, B.icmpv6({ type, id: 7, seq: 1 }, 'to you')));
    return home.left('wan');
  };

  it('§4.4.1 echo is answered, though the zone drops', () => {
    const [answer] = ask(128);
    expect([answer.src, answer.l4[0]]).toEqual([ROUTER6, 129]);
    const rules = [{ from: 'wan', proto: 'icmpv6', 'icmp-type': 128, verdict: 'drop' }];
    expect(ask(128, { rules })).toEqual([]);
    expect(ask(128, { firewall: { icmpv6: false } })).toEqual([]);
  });

  it('§4.4.1 errors about the router’s own packets arrive', () => {
    const home = new H.Home({ rules: [{ from: 'wan', proto: 'udp', port: 9, verdict: 'accept' }] });
    const question = B.ipv6({ src: H.GATE6, dst: ROUTER6 }, B.icmpv6({ type: 128, id: 7, seq: 1 }, 'ping'));
    home.wan(question);
    const [answer] = home.left('wan');
    const before = home.router.counters.delivered;
    home.wan(B.ipv6({ src: '2001:db8:9::9', dst: ROUTER6 }, B.icmpv6({ type: 1 }, answer.packet)));
    expect(home.router.counters.delivered).toBe(before + 1);
  });

  it('§4.4.1 neighbour discovery is answered, though the zone drops', () => {
    const home = new H.Home();
    const target = B.ip(ROUTER6);
    const solicitation = B.icmpv6({ type: 135 }, B.concat(target, B.hex('0101'), B.mac(H.GATE_MAC)));
    home.wan(B.ipv6({ src: H.GATE6, dst: ROUTER6, hop: 255 }, solicitation));
    const [answer] = home.left('wan');
    expect([answer.l4[0], B.ipText(answer.l4.subarray(8, 24))]).toEqual([136, ROUTER6]);
  });

  it('§4.4.3, §4.4.4, §4.4.5 the rest reaches nobody: renumbering, Seamoby, redirects, node information, experiments', () => {
    for (const type of [100, 101, 127, 137, 138, 139, 140, 144, 146, 150, 154, 199, 200, 201, 254, 255])
      expect([type, ask(type)]).toEqual([type, []]);
  });
});
