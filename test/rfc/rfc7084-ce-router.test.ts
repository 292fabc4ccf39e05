/**
 * RFC 7084, basic requirements for IPv6 customer edge routers, by requirement: the gateway against a provider that is this
 * router too, against a scripted one where it must misbehave, and a scripted host on the LAN; all under the virtual clock.
 *
 * What no sequence can show is elsewhere: docs/rfc.md has a row for each requirement. RFC 9096's are in rfc9096-renumbering.
 */
import { describe, expect, it } from 'vitest';
import * as C from '../../controlplane/dhcp6/constants.ts';
import { emitMessage, newMessage } from '../../controlplane/dhcp6/message.ts';
import { formatAddress } from '../../dataplane/wire/address.ts';
import {
  addresses,
  asked,
  delegated,
  house,
  ISP_LINK_LOCAL,
  ISP_MAC,
  isp,
  LAN_MAC,
  make,
  messageOf,
  online,
  routesOf,
  states,
  WAN_LINK_LOCAL,
  WAN_MAC,
  type World,
} from '../controlplane/gateway-world.ts';
import * as B from '../lib/build.ts';
import { advertisement, advertisements, GATE, GATE_LINK_LOCAL, icmpv6OfType } from '../lib/discovery.ts';

const HOST = '02:00:00:00:00:0a';
/** Somebody in the Internet. */
const SERVER = '2001:db8:9::9';
const ULA = /^fd[0-9a-f]{2}:/;
const LANS = ['lan', 'guest'] as const;

/** A datagram that is easy to find again. */
const datagram = (src: string, dst: string) => B.ipv6({ src, dst }, B.udp({ sport: 4000, dport: 4000 }, 'x'));
const isDatagram = (f: Uint8Array) => B.get16(f, 12) === 0x86dd && f[20] === 17 && B.get16(f, 56) === 4000;
const fromHost = ({ home }: World, packet: Uint8Array) =>
  home.router.inject('lan', B.ethernet({ src: HOST, dst: LAN_MAC }, packet));
const fromProvider = ({ home }: World, packet: Uint8Array) =>
  home.router.inject('wan', B.ethernet({ src: ISP_MAC, dst: WAN_MAC }, packet));

/** What the home has sent over the cable. */
const sent = ({ home, heard }: World) => heard.filter(({ from }) => from === home.router).map(({ frame }) => frame);
/** The last advertisement on a LAN. */
const announced = ({ home }: Pick<World, 'home'>, port: string = 'lan') =>
  advertisements(home.router.take(port)).at(-1)!;
const prefixesOf = (ra: ReturnType<typeof announced>) => ra.prefixes.map(({ prefix }) => prefix);
const globalOf = (ra: ReturnType<typeof announced>) => prefixesOf(ra).find((prefix) => !ULA.test(prefix))!;
const localOf = (ra: ReturnType<typeof announced>) => prefixesOf(ra).find((prefix) => ULA.test(prefix))!;
/** An address in a prefix such as 2001:db8::/64. */
const within = (prefix: string, host: string) => {
  const bytes = B.ip(prefix.split('/')[0]);
  bytes.set(B.ip(host).subarray(8), 8);
  return B.ipText(bytes);
};
/** Subnet n of a prefix of 56 bits. */
const subnetOf = (prefix: string, n: number) => {
  const bytes = B.ip(prefix.split('/')[0]);
  bytes[7] |= n;
  return `${B.ipText(bytes)}/64`;
};
/** A provider that announces itself and answers no DHCPv6. */
const deaf = () => isp(undefined, undefined, { server: null });

/** What reaches the host on the LAN, which answers for every address that it is asked for. */
function hears({ home: { router } }: World): Uint8Array[] {
  const others: Uint8Array[] = [];
  for (let round = 0; round < 4; round++) {
    const frames = router.take('lan');
    const questions = icmpv6OfType(frames, 135);
    others.push(...frames.filter((frame) => !questions.includes(frame)));
    for (const f of questions) {
      const target = f.subarray(62, 78);
      const dst = f.subarray(22, 38);
      if (B.ipText(dst) === '::') continue;
      const answer = B.concat(target, Uint8Array.of(2, 1), B.mac(HOST));
      const advertised = B.icmpv6({ type: 136, rest: 0x60000000 }, answer);
      router.inject('lan', B.ethernet({ src: HOST, dst: LAN_MAC }, B.ipv6({ src: target, dst, hop: 255 }, advertised)));
    }
    router.advance(10);
  }
  return others;
}

describe('§4.1 general', () => {
  it('G-3: until a prefix is delegated nothing of IPv6 crosses, and from then on it does', () => {
    const before = online(deaf(), house());
    expect(states(before.home.router).v6).toBe('requesting');
    expect(before.home.router.tables.hasDefault(6)).toBe(true);
    const local = within(localOf(announced(before)), '::a');
    for (const src of ['2001:db8:77::a', local]) fromHost(before, datagram(src, SERVER));
    for (const dst of ['2001:db8:100::a', local]) fromProvider(before, datagram(SERVER, dst));
    before.wire.advance(5000);
    expect([...sent(before), ...before.home.router.take('lan')].filter(isDatagram)).toEqual([]);

    const after = online(isp(), house());
    fromHost(after, datagram(within(globalOf(announced(after)), '::a'), SERVER));
    after.wire.advance(5000);
    expect(sent(after).filter(isDatagram).length).toBe(1);
  });

  it('G-4: without a default router on the WAN, it is none on its LANs', () => {
    const own = house();
    own.router.advance(30_000);
    for (const port of LANS) {
      const said = advertisements(own.router.take(port));
      expect(said.length).toBeGreaterThan(0);
      for (const { lifetime } of said) expect(lifetime).toBe(0);
    }
    expect(announced(online(isp(), house())).lifetime).toBe(300);
  });

  it.each([
    ['the link of the WAN goes', (w: World) => w.home.router.setLink('wan', false)],
    [
      'its router ceases to be one',
      (w: World) => w.home.router.inject('wan', advertisement({ from: ISP_LINK_LOCAL, mac: ISP_MAC, lifetime: 0 })),
    ],
  ])('G-5: %s: its LANs hear at once that it is no default router', (_name, lose) => {
    const w = online(isp(), house());
    w.wire.advance(60_000, 50);
    const { router } = w.home;
    for (const port of LANS) router.take(port);
    lose(w);
    // RFC 4861 §6.2.6: never two advertisements within 3 s.
    router.advance(3000);
    for (const port of LANS) expect(advertisements(router.take(port))[0].lifetime).toBe(0);
  });
});

describe('§4.2 WAN side', () => {
  it('W-1, WAA-1: is a host on the WAN: a stateless address and one by DHCPv6', () => {
    const w = online(isp(undefined, undefined, { ra: { autonomous: true } }), house());
    const wan = addresses(w.home.router, 2);
    expect(wan).toContain('2001:db8:0:1:0:ff:fe00:102/64 preferred');
    expect(wan.some((a) => /^2001:db8:0:1::1[0-9a-f]{3}\/128 preferred$/.test(a))).toBe(true);
  });

  it('W-2, WLL-1: solicits from its link-local address, after its detection, to all routers in an Ethernet group', () => {
    const { router } = house();
    const own: { at: number; frame: Uint8Array }[] = [];
    for (let t = 0; t < 10_000; t += 10) {
      router.advance(10);
      own.push(...router.take('wan').map((frame) => ({ at: router.now, frame })));
    }
    const probe = own.find(({ frame }) => icmpv6OfType([frame], 135).length > 0)!;
    expect([B.ipText(probe.frame.subarray(22, 38)), B.ipText(probe.frame.subarray(62, 78))]).toEqual([
      '::',
      WAN_LINK_LOCAL,
    ]);
    const solicitations = own.filter(({ frame }) => icmpv6OfType([frame], 133).length > 0);
    expect(solicitations.length).toBeGreaterThan(0);
    for (const { at, frame } of solicitations) {
      expect(at - probe.at).toBeGreaterThanOrEqual(1000);
      expect(B.ipText(frame.subarray(22, 38))).toBe(WAN_LINK_LOCAL);
      expect(B.macText(frame.subarray(0, 6))).toBe('33:33:00:00:00:02');
    }
  });

  it('W-2: a link-local address that somebody has is never a source of a solicitation', () => {
    const { router } = house();
    router.advance(20);
    const target = B.ip(WAN_LINK_LOCAL);
    const answer = B.icmpv6({ type: 136, rest: 0x20000000 }, B.concat(target, Uint8Array.of(2, 1), B.mac(GATE)));
    router.inject(
      'wan',
      B.ethernet(
        { src: GATE, dst: '33:33:00:00:00:01' },
        B.ipv6({ src: WAN_LINK_LOCAL, dst: 'ff02::1', hop: 255 }, answer),
      ),
    );
    router.advance(30_000);
    expect(states(router).v6).toBe('disabled');
    expect(icmpv6OfType(router.take('wan'), 133)).toEqual([]);
  });

  it('W-3: its default route is by the router that it has heard, for as long as that one says', () => {
    const { home } = online();
    expect(routesOf(home.router)).toMatch(/^default via fe80::ff:fe00:901 dev wan proto ra/m);
    home.router.advance(301_000);
    expect(routesOf(home.router)).not.toMatch(/^default via fe80/m);
  });

  it('W-4, WPD-1, WAA-3: one exchange of four messages brings an address and a prefix', () => {
    const w = online();
    const messages = asked(w);
    expect(messages.map(({ type }) => C.MESSAGE_NAMES[type])).toEqual(['SOLICIT', 'REQUEST']);
    for (const { ias } of messages) expect(ias.map(({ kind }) => kind).sort()).toEqual(['na', 'pd']);
    expect(delegated(w)).toMatch(/^2001:db8:1.*\/56$/);
  });

  it('W-5: its DUID is the same after a start, and after the link was away', () => {
    const w = online();
    w.home.router.setLink('wan', false);
    w.wire.advance(1000);
    w.home.router.setLink('wan', true);
    w.wire.advance(10_000);
    const names = [...asked(w), ...asked(online())].map(({ clientId }) => B.toHex(clientId!));
    expect(names.length).toBeGreaterThan(4);
    expect(new Set(names).size).toBe(1);
  });
});

describe('§4.2 addresses of the WAN', () => {
  it('WAA-2: only a prefix with flag L is on the link (RFC 5942)', () => {
    const onLink = online(isp(undefined, undefined, { ra: { autonomous: true } }));
    expect(routesOf(onLink.home.router)).toMatch(/^2001:db8:0:1::\/64 dev wan/m);
    const off = online(isp(undefined, undefined, { ra: { autonomous: true, 'on-link': false } }));
    expect(addresses(off.home.router, 2)).toContain('2001:db8:0:1:0:ff:fe00:102/128 preferred');
    expect(routesOf(off.home.router)).not.toMatch(/^2001:db8:0:1::\/64/m);
  });

  it('WAA-4: asks for resolvers and search list, takes the resolvers, and accepts Reconfigure where it is told to', () => {
    const w = online(isp(), house());
    const [solicit] = asked(w);
    expect(solicit.request).toEqual(expect.arrayContaining([C.OPT_DNS_SERVERS, C.OPT_DOMAIN_LIST]));
    expect(solicit.reconfigureAccept).toBe(false);
    const [client] = w.home.router.control.domains.dhcp6!.clients;
    expect(client.dns.map((words) => formatAddress(6, ...words))).toEqual(['2001:db8:0:1::53']);
    const wan = { dhcp6: { client: { start: 'told', 'ia-pd': [{}], 'reconfigure-accept': true } } };
    expect(asked(online(isp(), house({}, { wan })))[0].reconfigureAccept).toBe(true);
  });

  it.each([
    [true, true],
    [true, false],
    [false, true],
    [false, false],
  ])('WAA-6, WPD-4: M %s, O %s: DHCPv6 asks for an address and a prefix', (managed, other) => {
    const w = online(isp(undefined, undefined, { ra: { managed, other } }));
    expect(asked(w)[0].ias.map(({ kind }) => kind)).toEqual(['na', 'pd']);
    expect(states(w.home.router).v6).toBe('online');
  });

  it('WAA-7, WPD-6: a prefix without an address is taken; then the router is ::1 of it, and answers there', () => {
    const w = online(isp(undefined, null), house());
    expect(asked(w)[0].ias.map(({ kind }) => kind)).toEqual(['na', 'pd']);
    expect(states(w.home.router).v6).toBe('online');
    const own = within(delegated(w), '::1');
    expect(addresses(w.home.router, 2)).toContain(`${own}/128 preferred`);
    fromProvider(w, B.ipv6({ src: '2001:db8:0:1::1', dst: own }, B.icmpv6({ type: 128, id: 1, seq: 1 }, 'x')));
    w.wire.advance(3000);
    expect(icmpv6OfType(sent(w), 129).map((f) => B.ipText(f.subarray(22, 38)))).toEqual([own]);
  });

  it('WAA-8: asks for SOL_MAX_RT and keeps to it from then on, though the answer gives nothing else', () => {
    const { router } = house();
    router.advance(3000);
    router.inject('wan', advertisement({ flags: 0xc0 }));
    const times: number[] = [];
    for (let t = 0; t < 900_000; t += 500) {
      router.advance(500);
      for (const message of router.take('wan').flatMap((frame) => messageOf(frame) ?? [])) {
        expect(message.request).toContain(C.OPT_SOL_MAX_RT);
        times.push(router.now);
        if (times.length !== 2) continue;
        const answer = newMessage(C.ADVERTISE, message.xid);
        answer.clientId = message.clientId;
        answer.serverId = B.hex('0003000102000000 00fe');
        answer.status = { code: C.NO_ADDRS_AVAIL, text: '' };
        answer.solMaxRt = 60;
        const payload = B.udp({ sport: 547, dport: 546 }, emitMessage(answer));
        router.inject(
          'wan',
          B.ethernet({ src: GATE, dst: WAN_MAC }, B.ipv6({ src: GATE_LINK_LOCAL, dst: WAN_LINK_LOCAL }, payload)),
        );
      }
    }
    const waits = times.slice(1).map((at, n) => at - times[n]);
    expect(Math.max(...waits)).toBeLessThanOrEqual(66_500);
    expect(Math.max(...waits)).toBeGreaterThan(50_000);
  });

  it('WAA-9: what it sends itself has an address of another port, when that of the WAN has none that goes so far', () => {
    const { router } = make({
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: '2001:db8:55::1/64' },
        wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, 'accept-ra': { identifier: 'none' } },
      },
      zones: { lan: {}, wan: { forward: 'drop', input: 'drop' } },
      neighbors: [{ port: 'wan', ip: GATE_LINK_LOCAL, mac: GATE }],
      dns: { servers: '2001:db8:99::53' },
    });
    router.advance(3000);
    router.inject('wan', advertisement({}));
    router.take('wan');
    const question = B.hex('1234 0100 0001 0000 0000 0000 07 6578616d706c65 00 001c 0001');
    const packet = B.ipv6(
      { src: '2001:db8:55::a', dst: '2001:db8:55::1' },
      B.udp({ sport: 4000, dport: 53 }, question),
    );
    router.inject('lan', B.ethernet({ src: HOST, dst: LAN_MAC }, packet));
    router.advance(100);
    const [out] = router.take('wan').filter((f) => f[20] === 17 && B.get16(f, 56) === 53);
    expect([B.ipText(out.subarray(22, 38)), B.ipText(out.subarray(38, 54))]).toEqual([
      '2001:db8:55::1',
      '2001:db8:99::53',
    ]);
  });
});

describe('§4.2 prefix delegation', () => {
  it('WPD-2: the hint has its length; one without a /64 for each LAN port is refused', () => {
    const w = online(isp(), house({ 'prefix-hint': '::/56' }));
    const hint = asked(w)[0].ias.find(({ kind }) => kind === 'pd')!.prefixes;
    expect(hint.map(({ words, prefixLength }) => [words, prefixLength])).toEqual([[[0, 0, 0, 0], 56]]);
    expect(() => house({ 'prefix-hint': '::/62' })).toThrow(
      /gateway\.prefix-hint: expected a prefix of IPv6 of at most 60 bits/,
    );
    expect(() => house({ 'prefix-hint': '::/64', lan: 'lan' })).not.toThrow();
  });

  it.each([
    [48, true],
    [64, false],
  ])('WPD-3: takes a /%i that was not asked for, and says so when it is too small', (length, enough) => {
    const w = online(isp(undefined, undefined, { length }), house({ 'prefix-hint': '::/56' }));
    expect(states(w.home.router).v6).toBe('online');
    expect(globalOf(announced(w))).toMatch(/^2001:db8:1.*\/64$/);
    expect(globalOf(announced(w, 'guest')) !== undefined).toBe(enough);
    expect(w.home.logs.some((line) => line.includes('has no subnet for port guest'))).toBe(!enough);
  });

  it('WPD-5: what is delegated and on no LAN ends here: the host hears of it, and nothing goes back to the provider', () => {
    const w = online(isp(), house());
    const prefix = delegated(w);
    expect(routesOf(w.home.router)).toMatch(new RegExp(`^unreachable ${prefix} `, 'm'));
    const nowhere = within(subnetOf(prefix, 0x55), '::5');
    const host = within(globalOf(announced(w)), '::a');
    fromHost(w, datagram(host, nowhere));
    // RFC 4443 §3.1: Destination Unreachable.
    const [error] = icmpv6OfType(hears(w), 1);
    expect(B.ipText(error.subarray(38, 54))).toBe(host);
    fromProvider(w, datagram(SERVER, nowhere));
    w.wire.advance(3000);
    expect(sent(w).filter(isDatagram)).toEqual([]);
    expect(w.home.router.counters.dropped.IP_PROHIBIT).toBe(2);
  });

  it('WPD-7: in ten minutes the WAN hears ARP, neighbour discovery and DHCP, and no routing protocol', () => {
    const w = online(isp(), house());
    w.wire.advance(600_000, 500);
    const speaks = (f: Uint8Array): string => {
      const type = B.get16(f, 12);
      if (type === 0x0806) return 'arp';
      if (type === 0x0800) return `ipv4 ${f[23]} to ${B.get16(f, 36)}`;
      return f[20] === 17 ? `udp to ${B.get16(f, 56)}` : `ipv6 ${f[20]} type ${f[54]}`;
    };
    const heard = [...new Set(sent(w).map(speaks))].sort();
    const known = ['arp', 'ipv4 17 to 67', 'ipv6 58 type 133', 'ipv6 58 type 135', 'ipv6 58 type 136', 'udp to 547'];
    expect(heard.filter((what) => !known.includes(what))).toEqual([]);
    expect(heard).toContain('udp to 547');
  });
});

describe('§4.3 unique local addresses', () => {
  const started = (gateway = {}, wan = {}) => {
    const own = house(gateway, { wan });
    own.router.advance(10_000);
    return LANS.map((port) => localOf(announced({ home: own }, port)));
  };

  it('ULA-1, ULA-2, ULA-3: a /48 of its own (RFC 4193), the same at every start, or the configured one', () => {
    const [lan, guest] = started();
    expect(B.ip(lan.split('/')[0])[0]).toBe(0xfd);
    expect(B.ip(lan.split('/')[0]).subarray(0, 6)).toEqual(B.ip(guest.split('/')[0]).subarray(0, 6));
    expect(lan).not.toBe(guest);
    expect(started()).toEqual([lan, guest]);
    expect(started({}, { mac: '02:00:00:00:01:99' })[0]).not.toBe(lan);
    expect(started({ ula: 'fd12:3456:789a::/48' })).toEqual(['fd12:3456:789a::/64', 'fd12:3456:789a:1::/64']);
  });

  it('ULA-4: they cross the border in neither direction, as source or as destination', () => {
    const w = online(isp(), house());
    const ra = announced(w);
    const [local, global] = [within(localOf(ra), '::a'), within(globalOf(ra), '::a')];
    fromHost(w, datagram(local, SERVER));
    fromHost(w, datagram(global, 'fd99::9'));
    fromProvider(w, datagram(SERVER, local));
    fromProvider(w, datagram('fd99::9', global));
    w.wire.advance(5000);
    expect([...sent(w), ...hears(w)].filter(isDatagram)).toEqual([]);
    expect(w.home.router.counters.dropped.FILTER_DROP).toBe(4);
  });

  it('ULA-5, L-4: with no other prefix it is no default router, though it has one itself; but where NPTv6 translates, it is', () => {
    const w = online(deaf(), house());
    expect(w.home.router.tables.hasDefault(6)).toBe(true);
    for (const port of LANS) expect(announced(w, port)).toMatchObject({ lifetime: 0, prefixes: [{ valid: 5400 }] });
    const nptv6 = [{ out: 'wan', internal: 'fd12:3456:789a::/48', external: '2001:db8:2::/48' }];
    const translated = online(deaf(), house({ ula: 'fd12:3456:789a::/48' }, {}, { nat: { nptv6 } }));
    expect(announced(translated).lifetime).toBe(300);
  });
});

describe('§4.3 LAN side', () => {
  it('L-1: answers solicitations of routers and of neighbours, as a router', () => {
    const w = online(isp(), house());
    const { router } = w.home;
    // Right behind an advertisement, when the next one is far.
    w.wire.advance(60_000, 50);
    router.take('lan');
    while (advertisements(router.take('lan')).length === 0) router.advance(1000);
    router.advance(5000);
    const from = { src: 'fe80::a', hop: 255 };
    const solicit = B.icmpv6({ type: 133 }, B.concat(Uint8Array.of(1, 1), B.mac(HOST)));
    const packet = B.ipv6({ ...from, dst: 'ff02::2' }, solicit);
    router.inject('lan', B.ethernet({ src: HOST, dst: '33:33:00:00:00:02' }, packet));
    router.advance(500);
    expect(advertisements(router.take('lan')).length).toBe(1);
    const own = 'fe80::ff:fe00:101';
    const question = B.icmpv6({ type: 135 }, B.concat(B.ip(own), Uint8Array.of(1, 1), B.mac(HOST)));
    fromHost(w, B.ipv6({ ...from, dst: own }, question));
    router.advance(10);
    // Flag R.
    expect(icmpv6OfType(router.take('lan'), 136).map((f) => f[58] & 0x80)).toEqual([0x80]);
  });

  it('L-2, L-5, L-6, L-9: each LAN announces a /64 of its own of each prefix, for hosts to make addresses of, O alone', () => {
    const w = online(isp(), house());
    const said = LANS.map((port) => announced(w, port));
    for (const ra of said) {
      expect(ra.flags & 0xc0).toBe(0x40);
      expect(ra.prefixes.length).toBe(2);
      for (const { prefix, flags } of ra.prefixes) {
        expect(prefix).toMatch(/\/64$/);
        expect(flags).toBe(0xc0);
      }
    }
    expect(new Set(said.flatMap(prefixesOf)).size).toBe(4);
    expect(said.map(globalOf)).toEqual([0, 1].map((n) => subnetOf(delegated(w), n)));
  });

  it('L-3: is a router to all that was delegated and to its unique local prefix, with the provider or without', () => {
    const alone = house();
    alone.router.advance(10_000);
    const local = `${announced({ home: alone }).prefixes[0].prefix.split('/')[0]}/48`;
    const w = online(isp(), house());
    const prefix = delegated(w);
    const { routes } = announced(w);
    expect(routes.map((route) => route.prefix).sort()).toEqual([prefix, local].sort());
    for (const { lifetime } of routes) expect(lifetime).toBeGreaterThan(500);
    w.home.router.setLink('wan', false);
    w.home.router.advance(20_000);
    expect(announced(w).routes.find((route) => route.prefix === prefix)!.lifetime).toBeGreaterThan(400);
    // The lease is over: hosts are told, as long as they may remember.
    w.home.router.setLink('wan', true);
    w.home.router.advance(640_000);
    expect(announced(w).routes).toEqual([
      { prefix: local, lifetime: 1800 },
      { prefix, lifetime: 0 },
    ]);
  });

  it('L-7, L-11: flags A and L, resolvers and search list are the user’s to set; by default the router is the resolver', () => {
    const ra = { autonomous: false, 'on-link': false, rdnss: '2001:db8::53', dnssl: 'home.example' };
    const own = house({}, { lan: { ra } });
    own.router.advance(10_000);
    const set = announced({ home: own });
    expect(set.prefixes.map(({ flags }) => flags)).toEqual([0]);
    expect(set.resolvers).toEqual(['2001:db8::53']);
    expect(set.options.filter(({ type }) => type === 31).length).toBe(1);
    const guest = announced({ home: own }, 'guest');
    expect(guest.resolvers).toEqual([within(guest.prefixes[0].prefix, '::1')]);
  });

  it('L-8, L-10: a stateless DHCPv6 server tells resolvers, and a search list where there is one', () => {
    const lan = { dhcp6: { server: { dns: '2001:db8::53', domains: 'home.example' } } };
    for (const [own, domains] of [
      [house(), []],
      [house({}, { lan }), ['home.example']],
    ] as const) {
      own.router.advance(10_000);
      const local = localOf(announced({ home: own }));
      const request = newMessage(C.INFORMATION_REQUEST, 7);
      request.clientId = B.hex('00030001 02000000000a');
      request.request = [C.OPT_DNS_SERVERS, C.OPT_DOMAIN_LIST];
      const payload = B.udp({ sport: 546, dport: 547 }, emitMessage(request));
      const packet = B.ipv6({ src: 'fe80::a', dst: 'ff02::1:2' }, payload);
      own.router.inject('lan', B.ethernet({ src: HOST, dst: '33:33:00:01:00:02' }, packet));
      own.router.advance(100);
      const [reply] = own.router.take('lan').flatMap((frame) => messageOf(frame) ?? []);
      expect([C.MESSAGE_NAMES[reply.type], reply.xid, reply.domains]).toEqual(['REPLY', 7, domains]);
      const dns = reply.dns.map((words) => formatAddress(6, ...words));
      expect(dns).toEqual([domains.length > 0 ? '2001:db8::53' : within(local, '::1')]);
    }
  });
});

describe('§4.3 a prefix that is gone', () => {
  it('L-14: a host that still uses it hears so, on its own link, and nothing of it leaves', () => {
    const w = online(isp(), house());
    const { router } = w.home;
    const old = within(globalOf(announced(w)), '::a');
    fromHost(w, datagram(old, SERVER));
    w.wire.advance(3000);
    expect(sent(w).filter(isDatagram).length).toBe(1);
    // Nobody renews the lease; the connection ends, too.
    router.advance(640_000);
    router.inject('wan', advertisement({ from: ISP_LINK_LOCAL, mac: ISP_MAC }));
    expect(router.tables.hasDefault(6)).toBe(true);
    router.take('lan');
    router.take('wan');
    fromHost(w, datagram(old, SERVER));
    router.advance(10);
    const [error, ...more] = icmpv6OfType(router.take('lan'), 1);
    expect(more).toEqual([]);
    expect(B.verify(error)).toEqual([]);
    expect([error[55], B.macText(error.subarray(0, 6)), B.ipText(error.subarray(38, 54))]).toEqual([5, HOST, old]);
    expect(error.subarray(62)).toEqual(datagram(old, SERVER));
    expect(router.take('wan').filter((f) => isDatagram(f) || icmpv6OfType([f], 1).length > 0)).toEqual([]);
    expect(router.counters.dropped.FILTER_REJECT).toBe(1);
  });
});

describe('§4.5 security', () => {
  it('S-2: from the LANs leaves only what has a source of the LANs (BCP 38)', () => {
    const w = online(isp(), house());
    const own = within(globalOf(announced(w)), '::a');
    for (const src of ['2001:db8:77::a', '2001:db8:0:1::77', own]) fromHost(w, datagram(src, SERVER));
    w.wire.advance(5000);
    const left = sent(w).filter(isDatagram);
    expect(left.map((f) => B.ipText(f.subarray(22, 38)))).toEqual([own]);
  });
});
