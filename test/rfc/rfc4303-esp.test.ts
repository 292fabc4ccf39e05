/**
 * ESP (RFC 4303) through a translated address, told apart by SPI; the IKE and L2TP that go with it; and ESP over IPv6.
 * What RFC 3715 §2.1 lists as incompatible with NAT, and what a gateway can do about it by watching.
 */
import { describe, expect, it } from 'vitest';
import { conntrackLine } from '../../conntrack/format.ts';
import { createRouter } from '../../controlplane/router.ts';
import { addressOf, macOf, OUTSIDE, portOf, type Seen, World } from '../conntrack/nat-world.ts';
import { concat, ethernet, get16, get32, icmp, ipText, ipv4, ipv6, Random, type Segment, u32 } from '../lib/build.ts';

const A = '192.168.1.10';
const B = '192.168.1.11';
const G = '198.51.100.7';
const H = '198.51.100.8';

function esp(spi: number, sequence = 1): Segment {
  return { proto: 50, bytes: concat(u32(spi), u32(sequence), new Random(spi).bytes(40)), sumAt: -1 };
}

function spiIn(seen: Seen): number {
  return get32(seen.l4, 0) >>> 0;
}

/** ESP outwards: the gateway that gets it, as the router's; null: it did not get out. */
function out(world: World, from: string, to: string, spi: number): string | null {
  const { wan } = world.fromInside(from, to, esp(spi));
  if (wan.length === 0) return null;
  expect(spiIn(wan[0])).toBe(spi);
  expect(addressOf(wan[0].src)).toBe(OUTSIDE);
  return addressOf(wan[0].dst);
}

/** ESP inwards: the host that gets it, null: nobody. */
function back(world: World, from: string, spi: number): string | null {
  const { lan } = world.fromOutside(from, OUTSIDE, esp(spi));
  if (lan.length === 0) return null;
  expect(spiIn(lan[0])).toBe(spi);
  expect(addressOf(lan[0].src)).toBe(from);
  return addressOf(lan[0].dst);
}

function lines(world: World): string[] {
  return world.router.conntrack.list().map((c) => {
    const side = (t: { src: string; dst: string; spi?: number }) => `${t.src}>${t.dst}#${t.spi?.toString(16) ?? '?'}`;
    return `${side(c.orig)} ${side(c.reply)} ${c.status.join()}`;
  });
}

describe('RFC 4303 through NAT: one host', () => {
  it('§2.1: the other direction’s SPI is learned from the first answer, and the tuple says so', () => {
    const world = new World({});
    expect(back(world, G, 0x9001)).toBeNull();
    expect(out(world, A, G, 0x1001)).toBe(G);
    expect(lines(world)).toEqual([`${A}>${G}#1001 ${G}>${OUTSIDE}#? SRC_NAT`]);
    expect(back(world, G, 0x2001)).toBe(A);
    expect(back(world, G, 0x2001)).toBe(A);
    expect(lines(world)).toEqual([`${A}>${G}#1001 ${G}>${OUTSIDE}#2001 SEEN_REPLY,ASSURED,SRC_NAT`]);
    const { words, words6, doubles } = world.router.tables.conntrack;
    expect(conntrackLine(words, words6, doubles, 0, 0, { counters: false })).toBe(
      `unknown  50 600 src=${A} dst=${G} spi=0x1001 src=${G} dst=${OUTSIDE} spi=0x2001 [ASSURED] mark=0 use=1`,
    );
  });

  it('§2.1: SPIs 0 to 255 are reserved: they open nothing and are never learned', () => {
    const world = new World({});
    expect(out(world, A, G, 0)).toBeNull();
    expect(out(world, A, G, 255)).toBeNull();
    expect(world.dropped('CT_INVALID')).toBe(2);
    expect(out(world, A, G, 256)).toBe(G);
    expect(back(world, G, 1)).toBeNull();
    expect(back(world, G, 0x2001)).toBe(A);
  });

  it('two tunnels at once to one gateway, also before either was answered', () => {
    const world = new World({});
    for (const spi of [0x1001, 0x1002, 0x1003]) expect(out(world, A, G, spi)).toBe(G);
    for (const spi of [0x2001, 0x2002, 0x2003]) expect(back(world, G, spi)).toBe(A);
    // Learned in the order in which they began.
    expect(
      lines(world).map((line) =>
        line
          .match(/#(\d+) .*#(\d+) /)
          ?.slice(1)
          .join('-'),
      ),
    ).toEqual(['1001-2001', '1002-2002', '1003-2003']);
  });

  it('rekeying that the host begins: new SPIs beside the old ones, both valid meanwhile', () => {
    const world = new World({});
    out(world, A, G, 0x1001);
    back(world, G, 0x2001);
    expect(out(world, A, G, 0x1002)).toBe(G);
    expect(back(world, G, 0x2001)).toBe(A);
    expect(back(world, G, 0x2002)).toBe(A);
    expect(out(world, A, G, 0x1001)).toBe(G);
    expect(lines(world)).toHaveLength(2);
  });

  it('rekeying that the gateway begins: its new SPI goes to the only host, and the host’s answers it', () => {
    const world = new World({});
    out(world, A, G, 0x1001);
    back(world, G, 0x2001);
    expect(back(world, G, 0x2002)).toBe(A);
    expect(out(world, A, G, 0x1002)).toBe(G);
    expect(lines(world)[1]).toBe(`${G}>${OUTSIDE}#2002 ${A}>${G}#1002 EXPECTED,SEEN_REPLY,ASSURED,DST_NAT`);
    expect(back(world, H, 0x2003)).toBeNull();
  });

  it('an unanswered tunnel ends 30 s after its last packet, an answered one after the generic timeout', () => {
    const world = new World({});
    out(world, A, G, 0x1001);
    for (let n = 0; n < 4; n++) {
      world.wait(20);
      expect(out(world, A, G, 0x1001)).toBe(G);
    }
    world.wait(31);
    expect(lines(world)).toEqual([]);
    out(world, A, G, 0x1001);
    back(world, G, 0x2001);
    world.wait(590);
    expect(back(world, G, 0x2001)).toBe(A);
    world.wait(601);
    expect(back(world, G, 0x2001)).toBeNull();
    // And the same SPI opens it again, where the expired one stood.
    expect(out(world, A, G, 0x1001)).toBe(G);
    expect(back(world, G, 0x2001)).toBe(A);
  });
});

describe('RFC 3715 §2.1: several hosts behind one address', () => {
  it('two hosts to one gateway: one negotiation at a time, each gets what is its own', () => {
    const world = new World({});
    expect(out(world, A, G, 0x1001)).toBe(G);
    expect(out(world, B, G, 0x1002)).toBeNull();
    expect(world.dropped('ESP_PENDING')).toBe(1);
    expect(back(world, G, 0x2001)).toBe(A);
    expect(out(world, B, G, 0x1002)).toBe(G);
    expect(back(world, G, 0x2002)).toBe(B);
    for (let n = 0; n < 3; n++) {
      expect(back(world, G, 0x2001)).toBe(A);
      expect(back(world, G, 0x2002)).toBe(B);
      expect(out(world, A, G, 0x1001)).toBe(G);
      expect(out(world, B, G, 0x1002)).toBe(G);
    }
  });

  it('two hosts to two gateways do not wait for each other', () => {
    const world = new World({});
    expect(out(world, A, G, 0x1001)).toBe(G);
    expect(out(world, B, H, 0x1001)).toBe(H);
    expect(back(world, H, 0x2001)).toBe(B);
    expect(back(world, G, 0x2001)).toBe(A);
  });

  it('a tunnel that is never answered holds the others up for 10 s, not for ever, also while it sends', () => {
    const world = new World({});
    out(world, A, G, 0x1001);
    world.wait(6);
    out(world, A, G, 0x1001);
    expect(out(world, B, G, 0x1002)).toBeNull();
    world.wait(5);
    out(world, A, G, 0x1001);
    expect(out(world, B, G, 0x1002)).toBe(G);
    expect(back(world, G, 0x2002)).toBe(B);
    // Now both have tunnels: whose an unknown SPI is, nobody can say.
    expect(back(world, G, 0x2001)).toBeNull();
    expect(world.dropped('ESP_AMBIGUOUS')).toBe(1);
  });

  it('rekeying with two hosts: what the gateway begins is refused, until the host itself sends', () => {
    const world = new World({});
    out(world, A, G, 0x1001);
    back(world, G, 0x2001);
    out(world, B, G, 0x1002);
    back(world, G, 0x2002);
    expect(back(world, G, 0x2003)).toBeNull();
    expect(world.dropped('ESP_AMBIGUOUS')).toBe(1);
    expect(out(world, B, G, 0x1003)).toBe(G);
    expect(back(world, G, 0x2003)).toBe(B);
    expect(back(world, G, 0x2001)).toBe(A);
  });

  it('behind a DMZ host, an unknown SPI is the DMZ host’s unless somebody inside waits for it', () => {
    const world = new World({ dmz: { in: 'wan', to: '192.168.1.20' } });
    expect(back(world, H, 0x3001)).toBe('192.168.1.20');
    expect(out(world, '192.168.1.20', H, 0x4001)).toBe(H);
    expect(out(world, A, H, 0x1001)).toBe(H);
    expect(back(world, H, 0x2001)).toBe(A);
    expect(back(world, H, 0x3001)).toBe('192.168.1.20');
    expect(back(world, H, 0x3002)).toBe('192.168.1.20');
  });

  it('a flood of SPIs from inside or from a forged gateway takes a bounded number of connections', () => {
    const world = new World({});
    for (let spi = 0x1000; spi < 0x1100; spi++) out(world, A, G, spi);
    expect(lines(world)).toHaveLength(31);
    expect(world.dropped('ESP_PENDING')).toBe(256 - 31);
    const other = new World({});
    out(other, A, G, 0x1001);
    for (let spi = 0x2000; spi < 0x2100; spi++) back(other, G, spi);
    expect(lines(other)).toHaveLength(32);
  });

  it('ICMP errors about a tunnel reach its host, quoting what the host had sent (RFC 792, RFC 1191)', () => {
    const world = new World({});
    out(world, A, G, 0x1001);
    back(world, G, 0x2001);
    out(world, B, G, 0x1002);
    back(world, G, 0x2002);
    for (const [host, spi] of [[A, 0x1001] as const, [B, 0x1002] as const]) {
      const error = icmp({ type: 3, code: 4, mtu: 1400 } as never, ipv4({ src: OUTSIDE, dst: G, ttl: 60 }, esp(spi)));
      const { lan } = world.fromOutside('192.0.2.1', OUTSIDE, error);
      expect(lan).toHaveLength(1);
      expect(addressOf(lan[0].dst)).toBe(host);
      const quote = lan[0].l4.subarray(8);
      expect([ipText(quote.subarray(12, 16)), ipText(quote.subarray(16, 20)), get32(quote, 20)]).toEqual([
        host,
        G,
        spi,
      ]);
    }
    const stranger = icmp({ type: 3, code: 4 }, ipv4({ src: OUTSIDE, dst: G }, esp(0x1003)));
    expect(world.fromOutside('192.0.2.1', OUTSIDE, stranger).lan).toEqual([]);
    // An error from inside about what came in.
    const inside = icmp({ type: 3, code: 2 }, ipv4({ src: G, dst: B }, esp(0x2002)));
    const { wan } = world.fromInside(B, G, inside);
    expect(wan).toHaveLength(1);
    expect(ipText(wan[0].l4.subarray(8 + 16, 8 + 20))).toBe(OUTSIDE);
  });

  it('hosts, gateways and rekeying by chance: nothing ever reaches a host that it is not for', () => {
    const random = new Random(4303);
    const world = new World({});
    const hosts = [A, B, '192.168.1.12', '192.168.1.13'];
    const gateways = [G, H];
    /** What the gateways know: the SPI that they answer each of the hosts' by, once it has reached them. */
    const answers = new Map<number, { spi: number; host: string; gateway: string }>();
    const due = new Set<number>();
    const answer = (mine: number) => {
      const { spi: theirs, host, gateway } = answers.get(mine)!;
      expect(back(world, gateway, theirs)).toBe(host);
      due.delete(mine);
      delivered++;
    };
    let spi = 0x1000;
    const current = new Map<string, number>();
    let delivered = 0;
    let refused = 0;
    for (let step = 0; step < 3000; step++) {
      const host = random.pick(hosts);
      const gateway = random.pick(gateways);
      const pair = `${host} ${gateway}`;
      if (!current.has(pair) || random.chance(0.1)) current.set(pair, spi++);
      const mine = current.get(pair)!;
      if (out(world, host, gateway, mine) === null) refused++;
      else if (!answers.has(mine)) {
        answers.set(mine, { spi: 0x10000 + random.int(0, 0x7fffffff), host, gateway });
        due.add(mine);
      }
      // A gateway uses its half of a new pair once it has received on the other half, and within the router's patience.
      if (random.chance(0.4) && answers.has(mine)) answer(mine);
      if (random.chance(0.3)) {
        const known = random.pick([...answers].filter(([mine]) => !due.has(mine)).map(([, a]) => a));
        if (known === undefined) continue;
        const got = back(world, known.gateway, known.spi);
        if (got !== null) expect(got).toBe(known.host);
      }
      if (random.chance(0.1)) {
        for (const late of due) answer(late);
        world.wait(random.int(1, 5));
      }
    }
    expect(delivered).toBeGreaterThan(1000);
    expect(refused).toBeGreaterThan(5);
    expect(world.dropped('ESP_PENDING')).toBe(refused);
  });
});

describe('IKE and L2TP beside it', () => {
  it.each(['linux', 'full-cone', 'restricted-cone'])(
    'IKE keeps UDP 500 and 4500 for the first host; the second gets ports of its own (%s)',
    (profile) => {
      const world = new World({ profile });
      for (const port of [500, 4500]) {
        const a = world.out(`${A}:${port}`, `${G}:${port}`)!;
        const b = world.out(`${B}:${port}`, `${G}:${port}`)!;
        expect(a).toBe(`${OUTSIDE}:${port}`);
        expect(portOf(b)).not.toBe(port);
        // Some responders insist on a privileged port: it stays one (RFC 4787 REQ-3a).
        if (port === 500) expect(portOf(b)).toBeLessThan(1024);
        expect(world.in(`${G}:${port}`, a)).toBe(`${A}:${port}`);
        expect(world.in(`${G}:${port}`, b)).toBe(`${B}:${port}`);
      }
    },
  );

  it('L2TP (UDP 1701): two clients of one LNS, whose tunnels share port 1701 on the inside', () => {
    const world = new World({});
    const a = world.out(`${A}:1701`, `${G}:1701`)!;
    const b = world.out(`${B}:1701`, `${G}:1701`)!;
    expect(a).toBe(`${OUTSIDE}:1701`);
    expect(b).not.toBe(a);
    expect(world.in(`${G}:1701`, a)).toBe(`${A}:1701`);
    expect(world.in(`${G}:1701`, b)).toBe(`${B}:1701`);
  });

  it('RFC 2661 §8.1: an LNS that answers from a port of its own needs filtering that does not ask for the port', () => {
    const strict = new World({});
    const seen = strict.out(`${A}:1701`, `${G}:1701`)!;
    expect(strict.in(`${G}:1813`, seen)).toBeNull();
    const world = new World({ profile: 'restricted-cone' });
    const mapped = world.out(`${A}:1701`, `${G}:1701`)!;
    expect(world.in(`${G}:1813`, mapped)).toBe(`${A}:1701`);
    expect(world.out(`${A}:1701`, `${G}:1813`)).toBe(mapped);
  });

  it('L2TP over IPsec: IKE, then ESP, of two clients of one gateway', () => {
    const world = new World({});
    for (const [host, o, i] of [[A, 0x1001, 0x2001] as const, [B, 0x1002, 0x2002] as const]) {
      const ike = world.out(`${host}:500`, `${G}:500`)!;
      expect(world.in(`${G}:500`, ike)).toBe(`${host}:500`);
      expect(out(world, host, G, o)).toBe(G);
      expect(back(world, G, i)).toBe(host);
    }
    expect(back(world, G, 0x2001)).toBe(A);
  });
});

describe('ESP that is not translated', () => {
  const IN6 = '2001:db8:1::10';
  const OUT6 = '2001:db8:7::7';
  const world6 = (rules: unknown[] = []) =>
    createRouter({
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['2001:db8:1::1/64', '10.1.0.1/24'] },
        wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses: ['2001:db8:f::1/64', '10.2.0.1/24'] },
      },
      routes: [{ to: '::/0', via: '2001:db8:f::fe' }],
      neighbors: [
        { port: 'wan', ip: '2001:db8:f::fe', mac: '02:00:00:00:00:fe' },
        { port: 'wan', ip: '10.2.0.9', mac: '02:00:00:00:00:fe' },
        { port: 'lan', ip: IN6, mac: macOf(A) },
        { port: 'lan', ip: '10.1.0.9', mac: macOf(A) },
      ],
      zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
      offload: { mode: 'off' },
      rules,
    });
  const toWan = (packet: Uint8Array) => ethernet({ src: macOf(A), dst: '02:00:00:00:01:01' }, packet);
  const toLan = (packet: Uint8Array) => ethernet({ src: '02:00:00:00:00:fe', dst: '02:00:00:00:01:02' }, packet);

  it('IPv6 through the firewall: answers with any SPI pass, strangers do not', () => {
    // RFC 6092 REC-22 would let strangers in by default: here the administrator does not.
    const router = world6([{ from: 'wan', to: 'lan', family: 'ipv6', proto: 'esp', state: 'new', verdict: 'drop' }]);
    router.inject('wan', toLan(ipv6({ src: OUT6, dst: IN6 }, esp(0x2001))));
    expect(router.take('lan')).toEqual([]);
    router.inject('lan', toWan(ipv6({ src: IN6, dst: OUT6 }, esp(0x1001))));
    expect(router.take('wan')).toHaveLength(1);
    for (const spi of [0x2001, 0x2002]) router.inject('wan', toLan(ipv6({ src: OUT6, dst: IN6 }, esp(spi))));
    const got = router.take('lan');
    expect(got).toHaveLength(2);
    expect(get16(got[1], 14 + 40 + 2)).toBe(0x2002);
    expect(router.conntrack.list()).toHaveLength(1);
  });

  it('a routed IPv4 network: one connection for all SPIs between two hosts, as in nf_conntrack', () => {
    const router = world6();
    for (const spi of [0x1001, 0x1002])
      router.inject('lan', toWan(ipv4({ src: '10.1.0.9', dst: '10.2.0.9' }, esp(spi))));
    for (const spi of [0x2001, 5]) router.inject('wan', toLan(ipv4({ src: '10.2.0.9', dst: '10.1.0.9' }, esp(spi))));
    expect(router.take('wan')).toHaveLength(2);
    expect(router.take('lan')).toHaveLength(2);
    expect(router.conntrack.list()).toHaveLength(1);
    expect(router.conntrack.list()[0].orig.spi).toBeUndefined();
  });
});
