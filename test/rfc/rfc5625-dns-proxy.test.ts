/**
 * RFC 5625 (DNS proxies), RFC 5452 (forged answers), RFC 2308 (negative caching), RFC 6303 (local zones), RFC 6891 (EDNS0):
 * the forwarder between a scripted host and a scripted server. Messages are made and read by dns-packet.
 */
import { decode, encode, type Packet } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import { DnsCache } from '../../controlplane/dns/cache.ts';
import type { DnsForwarder } from '../../controlplane/dns/forwarder.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const SERVER = H.GATE;

function make(dns: Record<string, unknown> = { servers: SERVER, ports: ['lan'] }): Router {
  return createRouter(H.homeConfig({ dns }), { unasked: true, slots: { small: 512, large: 4 } });
}
const forwarder = (r: Router) => r.control.protocols.find((p) => p.name === 'dns') as DnsForwarder;

const query = (name: string, type = 'A', more: Partial<Packet> = {}) =>
  encode({ type: 'query', id: 77, flags: 0x0100, questions: [{ name, type: type as 'A', class: 'IN' }], ...more });
const edns = (size: number) => ({ additionals: [{ type: 'OPT', name: '.', udpPayloadSize: size, flags: 0 } as never] });
const ask = (r: Router, payload: Uint8Array, sport = 4000, src = H.HOST) =>
  r.inject(
    'lan',
    B.ethernet(
      { src: H.HOST_MAC, dst: H.LAN_MAC },
      B.ipv4({ src, dst: H.ROUTER_LAN }, B.udp({ sport, dport: 53 }, payload)),
    ),
  );

interface Dns {
  src: string;
  dst: string;
  sport: number;
  dport: number;
  message: ReturnType<typeof decode>;
  bytes: Uint8Array;
}
/** DNS messages that left a port. */
function left(r: Router, port: string): Dns[] {
  return r
    .take(port)
    .filter((f) => B.get16(f, 12) === 0x0800 && f[23] === 17)
    .map((f) => {
      expect(B.verify(f)).toEqual([]);
      const bytes = f.subarray(42);
      const at = (n: number) => B.ipText(f.subarray(n, n + 4));
      const ports = { sport: B.get16(f, 34), dport: B.get16(f, 36) };
      return { src: at(26), dst: at(30), ...ports, message: decode(Buffer.from(bytes)), bytes };
    });
}

/** The server's answer to a forwarded question. */
function answer(r: Router, asked: Dns, packet: Partial<Packet>, o: { id?: number; src?: string; dport?: number } = {}) {
  const message = encode({
    type: 'response',
    id: o.id ?? asked.message.id,
    flags: 0x0180,
    questions: asked.message.questions,
    ...packet,
  });
  r.inject(
    'wan',
    B.ethernet(
      { src: H.GATE_MAC, dst: H.WAN_MAC },
      B.ipv4({ src: o.src ?? SERVER, dst: asked.src }, B.udp({ sport: 53, dport: o.dport ?? asked.sport }, message)),
    ),
  );
}
const a = (name: string, data: string, ttl = 300) => ({ type: 'A' as const, name, data, ttl });

describe('the forwarder', () => {
  it('asks the server from a port and with an identifier of its own, answers from the address that was asked', () => {
    const r = make();
    ask(r, query('Www.Example'));
    const [asked] = left(r, 'wan');
    expect(asked).toMatchObject({ src: H.ROUTER_WAN, dst: SERVER, dport: 53 });
    expect(asked.sport).toBeGreaterThanOrEqual(49152);
    expect(asked.message.id).not.toBe(77);
    expect(asked.message.additionals).toMatchObject([{ udpPayloadSize: 1232 }]);
    answer(r, asked, { answers: [a('www.example', '198.51.100.9')], ...edns(1232) });
    const [got] = left(r, 'lan');
    expect(got).toMatchObject({ src: H.ROUTER_LAN, dst: H.HOST, sport: 53, dport: 4000 });
    expect(got.message.id).toBe(77);
    // The asker's spelling, and no EDNS0 for who did not speak it.
    expect(got.message.questions?.[0].name).toBe('Www.Example');
    expect(got.message.additionals).toEqual([]);
    expect(got.message.answers).toMatchObject([{ data: '198.51.100.9', ttl: 300 }]);
  });

  it('answers again from its cache with a smaller TTL, and asks again when that has ended', () => {
    const r = make();
    ask(r, query('www.example'));
    answer(r, left(r, 'wan')[0], { answers: [a('www.example', '198.51.100.9', 60)] });
    left(r, 'lan');
    r.advance(45_000);
    ask(r, query('WWW.example'), 4001);
    expect(left(r, 'wan')).toEqual([]);
    expect(left(r, 'lan')[0].message.answers).toMatchObject([{ ttl: 15 }]);
    r.advance(16_000);
    ask(r, query('www.example'), 4002);
    expect(left(r, 'wan').length).toBe(1);
  });

  it('RFC 2308: "no such name" is kept as long as the SOA says', () => {
    const r = make();
    ask(r, query('nobody.example'));
    const soa = {
      type: 'SOA' as const,
      name: 'example',
      ttl: 3600,
      data: { mname: 'ns.example', rname: 'root.example', serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 30 },
    };
    answer(r, left(r, 'wan')[0], { flags: 0x0183, authorities: [soa] });
    expect((left(r, 'lan')[0].message as { rcode?: string }).rcode).toBe('NXDOMAIN');
    r.advance(29_000);
    ask(r, query('nobody.example'), 4001);
    expect(left(r, 'wan')).toEqual([]);
    r.advance(2000);
    ask(r, query('nobody.example'), 4002);
    expect(left(r, 'wan').length).toBe(1);
  });

  it.each([
    ['no such name', 0x0183],
    ['nothing of this type', 0x0180],
  ])('RFC 2308 §2: %s at the end of an alias is kept as long as the SOA says, not the alias', (_what, flags) => {
    const r = make();
    ask(r, query('www.example'));
    const data = {
      mname: 'ns.example',
      rname: 'root.example',
      serial: 1,
      refresh: 1,
      retry: 1,
      expire: 1,
      minimum: 30,
    };
    answer(r, left(r, 'wan')[0], {
      flags,
      answers: [{ type: 'CNAME', name: 'www.example', data: 'gone.example', ttl: 86_400 }],
      authorities: [{ type: 'SOA', name: 'example', ttl: 3600, data }],
    });
    left(r, 'lan');
    r.advance(31_000);
    ask(r, query('www.example'), 4001);
    expect(left(r, 'wan').length).toBe(1);
  });

  it.each([
    ['FORMERR', 1, 1],
    ['FORMERR of a header alone', 1, 0],
    ['NOTIMP', 4, 1],
    ['NOTIMP of a header alone', 4, 0],
  ])(
    'RFC 6891 §7: a server that answers %s is asked again without EDNS0, and for a while from the start',
    (_what, rcode, kept) => {
      const r = make();
      ask(r, query('www.example'));
      const [first] = left(r, 'wan');
      expect(first.message.additionals?.length).toBe(1);
      answer(r, first, { flags: 0x0180 | rcode, ...(kept === 0 ? { questions: [] } : {}) });
      expect(left(r, 'lan')).toEqual([]);
      const [second] = left(r, 'wan');
      expect(second).toMatchObject({ dst: SERVER, message: { additionals: [] } });
      expect([second.sport, second.message.id]).not.toEqual([first.sport, first.message.id]);
      answer(r, second, { answers: [a('www.example', '198.51.100.9')] });
      expect(left(r, 'lan')[0].message.answers).toMatchObject([{ data: '198.51.100.9' }]);
      const asked = (name: string) => {
        ask(r, query(name));
        const [one] = left(r, 'wan');
        answer(r, one, { answers: [a(name, '198.51.100.9')] });
        left(r, 'lan');
        return one.message.additionals?.length;
      };
      expect(asked('b.example')).toBe(0);
      r.advance(900_000);
      expect(asked('c.example')).toBe(1);
    },
  );

  it('RFC 6891 §6.2.2: a refusal of who speaks EDNS0, of a question without it, or for signatures, is the answer', () => {
    const r = make();
    const rcodes = () => left(r, 'lan').map(({ message }) => (message as { rcode?: string }).rcode);
    ask(r, query('a.example'));
    answer(r, left(r, 'wan')[0], { flags: 0x0181, ...edns(1232) });
    expect([rcodes(), left(r, 'wan')]).toEqual([['FORMERR'], []]);
    const signed = { additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0x8000 } as never] };
    ask(r, query('b.example', 'A', signed), 4001);
    answer(r, left(r, 'wan')[0], { flags: 0x0181, questions: [] });
    expect([rcodes(), left(r, 'wan')]).toEqual([['FORMERR'], []]);
    ask(r, query('c.example'), 4002);
    answer(r, left(r, 'wan')[0], { flags: 0x0184 });
    answer(r, left(r, 'wan')[0], { flags: 0x0184 });
    expect([rcodes(), left(r, 'wan')]).toEqual([['NOTIMP'], []]);
    // It was not EDNS0 that it did not like.
    ask(r, query('d.example'), 4003);
    expect(left(r, 'wan')[0].message.additionals?.length).toBe(1);
  });

  it('RFC 1035 §2.3.4: a name of 255 bytes is asked for, a longer one is an error of its asker', () => {
    const r = make();
    const name = (last: number) => [63, 63, 63, last].map((length) => 'a'.repeat(length)).join('.');
    ask(r, query(name(61)));
    expect(left(r, 'wan').length).toBe(1);
    ask(r, query(name(62)), 4001);
    expect(left(r, 'wan')).toEqual([]);
    expect(left(r, 'lan').map(({ message }) => (message as { rcode?: string }).rcode)).toEqual(['FORMERR']);
  });

  it('RFC 5452: an answer from elsewhere, to another port, with another identifier or question is none', () => {
    const r = make();
    ask(r, query('bank.example'));
    const [asked] = left(r, 'wan');
    const poison = { answers: [a('bank.example', '203.0.113.66')] };
    answer(r, asked, poison, { id: (asked.message.id ?? 0) ^ 1 });
    answer(r, asked, poison, { src: '203.0.113.253' });
    answer(r, asked, poison, { dport: asked.sport ^ 1 });
    answer(r, asked, { ...poison, questions: [{ name: 'other.example', type: 'A', class: 'IN' }] });
    expect(left(r, 'lan')).toEqual([]);
    answer(r, asked, { answers: [a('bank.example', '198.51.100.9')] });
    expect(left(r, 'lan')[0].message.answers).toMatchObject([{ data: '198.51.100.9' }]);
    // Two came to the right port and are counted; the others the path refused, or nobody waits there.
    expect(forwarder(r).counters.forged).toBeGreaterThanOrEqual(2);
    answer(r, asked, poison);
    expect(left(r, 'lan')).toEqual([]);
  });

  it('equal questions wait for one answer; every asker gets its own', () => {
    const r = make();
    for (let n = 0; n < 5; n++) ask(r, query('www.example', 'A', { id: n }), 4000 + n);
    const asked = left(r, 'wan');
    expect(asked.length).toBe(1);
    answer(r, asked[0], { answers: [a('www.example', '198.51.100.9')] });
    expect(left(r, 'lan').map((d) => [d.dport, d.message.id])).toEqual([0, 1, 2, 3, 4].map((n) => [4000 + n, n]));
  });

  it('tries the next server after two seconds, says SERVFAIL when none answers, and remembers that for a moment', () => {
    const r = make({ servers: [SERVER, '203.0.113.253'], ports: ['lan'] });
    r.control.setNeighbour(1, 4, [0xfd7100cb | 0, 0, 0, 0], 0x00000002, 0xfe00);
    ask(r, query('slow.example'));
    const asked: string[] = [];
    for (let t = 0; t < 90; t++) {
      for (const { dst } of left(r, 'wan')) asked.push(`${Math.round(r.now / 1000)} ${dst}`);
      r.advance(100);
    }
    expect(asked).toEqual([`0 ${SERVER}`, '2 203.0.113.253', `4 ${SERVER}`, '6 203.0.113.253']);
    expect((left(r, 'lan')[0].message as { rcode?: string }).rcode).toBe('SERVFAIL');
    ask(r, query('slow.example'), 4001);
    expect(left(r, 'wan')).toEqual([]);
    expect(left(r, 'lan').length).toBe(1);
  });

  it('RFC 5625 §4.3, RFC 6891: what is too long for the asker is truncated, with EDNS0 it is not', () => {
    const answers = Array.from({ length: 60 }, (_, n) => a('many.example', `198.51.100.${n}`));
    const r = make();
    ask(r, query('many.example'));
    answer(r, left(r, 'wan')[0], { answers: answers.slice(0, 30) });
    const [short] = left(r, 'lan');
    expect((short.message as { flag_tc?: boolean }).flag_tc).toBe(true);
    expect(short.message.answers).toEqual([]);
    ask(r, query('many.example', 'A', edns(4096)), 4001);
    expect(left(r, 'lan')[0].message.answers?.length).toBe(30);
  });

  it('records of unknown types pass unharmed (RFC 3597)', () => {
    const r = make();
    const payload = Buffer.from(query('odd.example'));
    payload.writeUInt16BE(65280, payload.length - 4);
    ask(r, payload);
    const [asked] = left(r, 'wan');
    const raw = B.concat(
      asked.bytes.subarray(0, 2),
      B.hex('8180 0001 0001 0000 0000'),
      asked.bytes.subarray(12, asked.bytes.length - 11),
      B.hex('c00c ff00 0001 0000003c 0003 a1b2c3'),
    );
    r.inject(
      'wan',
      B.ethernet(
        { src: H.GATE_MAC, dst: H.WAN_MAC },
        B.ipv4({ src: SERVER, dst: asked.src }, B.udp({ sport: 53, dport: asked.sport }, raw)),
      ),
    );
    expect(B.toHex(left(r, 'lan')[0].bytes)).toContain('c00cff0000010000003c0003a1b2c3');
  });
});

describe('names of the house', () => {
  it('configured hosts, forward and reverse, and hosts that DHCP knows', () => {
    const r = make({ ports: ['lan'], domain: 'home.arpa', hosts: { 'nas.home.arpa': ['192.168.1.20', 'fd00:1::20'] } });
    const told = { kind: 'event' as const, name: 'dhcp4.lease' };
    r.control.handle({ ...told, data: { hostName: 'Printer', address: '192.168.1.33', seconds: 60 } });
    const get = (name: string, type = 'A') => {
      ask(r, query(name, type));
      const [got] = left(r, 'lan');
      return [
        (got.message as { rcode?: string }).rcode,
        ...(got.message.answers ?? []).map((x) => String((x as { data: unknown }).data)),
      ];
    };
    expect(get('NAS.home.arpa')).toEqual(['NOERROR', '192.168.1.20']);
    expect(get('nas.home.arpa', 'AAAA')).toEqual(['NOERROR', 'fd00:1::20']);
    expect(get('nas.home.arpa', 'MX')).toEqual(['NOERROR']);
    expect(get('20.1.168.192.in-addr.arpa', 'PTR')).toEqual(['NOERROR', 'nas.home.arpa']);
    expect(get('printer.home.arpa')).toEqual(['NOERROR', '192.168.1.33']);
    // RFC 6303: private reverse zones stay here.
    expect(get('9.9.168.192.in-addr.arpa', 'PTR')).toEqual(['NXDOMAIN']);
    r.advance(61_000);
    expect(get('printer.home.arpa')).toEqual(['SERVFAIL']);
    expect(left(r, 'wan')).toEqual([]);
  });
});

describe('names that DHCP tells', () => {
  const leased = (r: Router, address: string, hostName: string, seconds = 600) =>
    r.control.handle({
      kind: 'event',
      name: 'dhcp4.lease',
      data: { port: 'lan', address, mac: '', hostName, seconds },
    });
  const lookup = (r: Router, name: string, type = 'A') => {
    ask(r, query(name, type));
    return left(r, 'lan').flatMap(({ message }) =>
      (message.answers ?? []).map((one) => String((one as { data: unknown }).data)),
    );
  };

  it('a host has one name: the one that it told last; it goes when the lease is given back', () => {
    const r = make({ servers: SERVER, ports: ['lan'], domain: 'home' });
    leased(r, '192.168.1.50', 'tv');
    leased(r, '192.168.1.50', 'nas');
    expect(lookup(r, 'tv.home')).toEqual([]);
    expect(lookup(r, 'nas.home')).toEqual(['192.168.1.50']);
    // Somebody else calls himself so: the last who said it.
    leased(r, '192.168.1.51', 'nas');
    expect(lookup(r, 'nas.home')).toEqual(['192.168.1.51']);
    // The one before says it again, by another name.
    leased(r, '192.168.1.50', 'tv');
    expect(lookup(r, 'nas.home')).toEqual(['192.168.1.51']);
    r.control.handle({
      kind: 'event',
      name: 'dhcp4.released',
      data: { port: 'lan', address: '192.168.1.51', mac: '' },
    });
    expect(lookup(r, 'nas.home')).toEqual([]);
    expect(lookup(r, '51.1.168.192.in-addr.arpa', 'PTR')).toEqual([]);
    expect(lookup(r, '50.1.168.192.in-addr.arpa', 'PTR')).toEqual(['tv.home']);
  });

  it('an address of the configuration keeps its name, whoever has it; a name that went to another leaves none behind', () => {
    const r = make({ servers: SERVER, ports: ['lan'], domain: 'home', hosts: { 'printer.home': '192.168.1.60' } });
    leased(r, '192.168.1.60', 'tv');
    expect(lookup(r, 'tv.home')).toEqual(['192.168.1.60']);
    expect(lookup(r, '60.1.168.192.in-addr.arpa', 'PTR')).toEqual(['printer.home']);
    r.advance(601_000);
    expect(lookup(r, '60.1.168.192.in-addr.arpa', 'PTR')).toEqual(['printer.home']);
    leased(r, '192.168.1.50', 'nas');
    leased(r, '192.168.1.51', 'nas');
    expect(lookup(r, '50.1.168.192.in-addr.arpa', 'PTR')).toEqual([]);
    expect(lookup(r, '51.1.168.192.in-addr.arpa', 'PTR')).toEqual(['nas.home']);
  });

  it('a client that invents names with every renewal takes none from the others', () => {
    const r = make({ servers: SERVER, ports: ['lan'], domain: 'home' });
    for (let n = 0; n < 5000; n++) leased(r, '192.168.1.66', `name-${n}`);
    leased(r, '192.168.1.50', 'nas');
    expect(lookup(r, 'nas.home')).toEqual(['192.168.1.50']);
  });

  it('a name whose lease is over is not fresh again when the clock wraps', () => {
    const r = make({ servers: SERVER, ports: ['lan'], domain: 'home' });
    leased(r, '192.168.1.50', 'nas');
    const out = forwarder(r).step((r.now + 86_400_000) | 0, { kind: 'tick' });
    expect(out).toEqual([{ kind: 'keep', key: 'dns-name nas', value: null }]);
    expect(lookup(r, 'nas.home')).toEqual([]);
    expect(lookup(r, '50.1.168.192.in-addr.arpa', 'PTR')).toEqual([]);
  });
});

describe('servers that were learned', () => {
  it('come from DHCP and router advertisements, go with them, and a change empties the cache', () => {
    const r = make({ ports: ['lan'] });
    const tell = (name: string, data: Record<string, unknown>) => r.control.handle({ kind: 'event', name, data });
    ask(r, query('www.example'));
    expect((left(r, 'lan')[0].message as { rcode?: string }).rcode).toBe('SERVFAIL');
    tell('dhcp4.bound', { port: 'wan', servers: [SERVER] });
    r.advance(6000);
    ask(r, query('www.example'));
    answer(r, left(r, 'wan')[0], { answers: [a('www.example', '198.51.100.9')] });
    expect(forwarder(r).cache.size).toBe(1);
    tell('ra.dns', { port: 'wan', servers: ['2001:db8:ffff::fe'] });
    expect(forwarder(r).cache.size).toBe(0);
    tell('dhcp4.lost', { port: 'wan' });
    expect(
      forwarder(r)
        .servers()
        .map(({ family }) => family),
    ).toEqual([6]);
  });
});

describe('what was learned of advertisements', () => {
  it('RFC 8106 §5.1: resolvers live as long as they say, whether or not their router is a default router', () => {
    const r = make({ ports: ['lan'] });
    const tell = (name: string, data: Record<string, unknown>) => r.control.handle({ kind: 'event', name, data });
    tell('ra.dns', { port: 'wan', servers: ['2001:db8::53'], domains: [] });
    tell('ra.lost', { port: 'wan' });
    expect(forwarder(r).servers().length).toBe(1);
    tell('ra.dns', { port: 'wan', servers: [], domains: [] });
    expect(forwarder(r).servers()).toEqual([]);
  });
});

describe('what is kept', () => {
  it('an answer that nobody has asked for since is not fresh again when the clock wraps', () => {
    const r = make();
    ask(r, query('www.example'));
    answer(r, left(r, 'wan')[0], { answers: [a('www.example', '198.51.100.9')] });
    expect(forwarder(r).cache.size).toBe(1);
    // It asks for the tick itself: nothing else may happen for so long.
    expect(forwarder(r).next(r.now)).toBeLessThanOrEqual(86_400_000);
    forwarder(r).step((r.now + 86_400_000) | 0, { kind: 'tick' });
    expect(forwarder(r).cache.size).toBe(0);
  });

  it('is bounded in bytes: what a server makes very long takes the place of many', () => {
    const cache = new DnsCache(64);
    const bytes = (n: number) => new Uint8Array(n);
    for (let n = 0; n < 64; n++) cache.put(0, `short ${n}`, bytes(100), 300);
    expect(cache.size).toBe(64);
    for (let n = 0; n < 10; n++) cache.put(0, `long ${n}`, bytes(20_000), 300);
    expect(cache.size).toBe(3);
    expect(cache.get(1, 'long 9')).toBeDefined();
    cache.put(0, 'longer than all of it', bytes(65_535), 300);
    expect(cache.get(1, 'longer than all of it')).toBeDefined();
    cache.clear();
    for (let n = 0; n < 64; n++) cache.put(0, `short ${n}`, bytes(100), 300);
    expect(cache.size).toBe(64);
  });
});

describe('a forwarder that is made anew', () => {
  it('knows the servers and the hosts that the one before had learned, as long as these are true', () => {
    const r = make({ ports: ['lan'], domain: 'home.arpa' });
    const tell = (name: string, data: Record<string, unknown>) => r.control.handle({ kind: 'event', name, data });
    tell('dhcp4.bound', { port: 'wan', servers: [SERVER] });
    tell('ra.dns', { port: 'wan', servers: ['2001:db8:ffff::fe'] });
    tell('ra.dns', { port: 'wan', servers: [] });
    tell('dhcp4.lease', { hostName: 'Printer', address: '192.168.1.33', seconds: 60 });
    r.advance(10_000);
    const before = forwarder(r);
    r.restart('management');
    expect(forwarder(r)).not.toBe(before);
    expect(forwarder(r).servers()).toEqual(before.servers());
    ask(r, query('www.example'));
    expect(left(r, 'wan').map(({ dst }) => dst)).toEqual([SERVER]);
    ask(r, query('printer.home.arpa'));
    expect(left(r, 'lan').at(-1)?.message.answers).toMatchObject([{ data: '192.168.1.33' }]);
    r.advance(51_000);
    left(r, 'wan');
    ask(r, query('printer.home.arpa'), 4001);
    expect(left(r, 'wan').length).toBe(1);
    tell('dhcp4.lost', { port: 'wan' });
    r.restart('management');
    expect(forwarder(r).servers()).toEqual([]);
  });
});

describe('bad input', () => {
  it('strangers get nothing; noise gets FORMERR or nothing; nothing throws', () => {
    const r = createRouter(H.homeConfig({ zones: {}, dns: { servers: SERVER, ports: ['lan'] } }), { unasked: true });
    r.inject(
      'wan',
      B.ethernet(
        { src: H.GATE_MAC, dst: H.WAN_MAC },
        B.ipv4({ src: H.GATE, dst: H.ROUTER_WAN }, B.udp({ sport: 9, dport: 53 }, query('x'))),
      ),
    );
    expect(forwarder(r).counters.refused).toBe(1);
    const random = new B.Random(6);
    for (let n = 0; n < 3000; n++) {
      const noise = Buffer.from(query('www.example'));
      for (let k = random.int(1, 6); k > 0; k--) noise[random.int(0, noise.length - 1)] = random.int(0, 255);
      ask(r, noise.subarray(0, random.int(0, noise.length)), 1024 + n);
    }
    r.advance(20_000);
    const { queries, malformed } = forwarder(r).counters;
    expect(queries).toBeGreaterThan(2000);
    expect(malformed).toBeGreaterThan(500);
    // Nobody is waited for: it wants to be woken to forget what is over, once a day.
    expect(forwarder(r).next(r.now)).toBeGreaterThan(60_000);
  });
});
