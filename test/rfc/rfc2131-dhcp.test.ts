/**
 * RFC 2131 (DHCP), RFC 3046 (option 82), RFC 3442 (classless routes), RFC 5227 (probe): client, relay and server of the
 * router against each other over cables, and against scripted messages.
 */
import { describe, expect, it } from 'vitest';
import type { Dhcp4Client } from '../../controlplane/dhcp4/client.ts';
import * as M from '../../controlplane/dhcp4/message.ts';
import type { Dhcp4Server } from '../../controlplane/dhcp4/server.ts';
import type { Event } from '../../controlplane/protocol.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import * as B from '../lib/build.ts';
import { Wire } from '../lib/wire.ts';

const NAMES = ['', 'DISCOVER', 'OFFER', 'REQUEST', 'DECLINE', 'ACK', 'NAK', 'RELEASE', 'INFORM'];
const HOST = '02:00:00:00:00:0a';
const LAN_MAC = '02:00:00:00:01:01';

function make(ports: Record<string, unknown>, extra: Record<string, unknown> = {}): Router {
  return createRouter(
    { ports, offload: { mode: 'off' }, conntrack: { max: 1024 }, ...extra },
    { unasked: true, slots: { small: 256, large: 4 } },
  );
}

/** A provider's server; `more` adds keys, or replaces them. */
const server = (
  more: Record<string, unknown> = {},
  addresses: string | string[] = '192.0.2.1/24',
  extra: Record<string, unknown> = {},
) =>
  make(
    {
      lan: {
        kind: 'memory',
        mac: LAN_MAC,
        addresses,
        dhcp4: {
          server: {
            range: '192.0.2.100-192.0.2.102',
            lease: 600,
            dns: '192.0.2.53',
            domain: 'isp.example',
            probe: false,
            ...more,
          },
        },
      },
    },
    extra,
  );
/** The same for clients behind a relay too, with this reservation. */
const serverForRelay = (reservation: Record<string, string>, extra: Record<string, unknown> = {}) =>
  server(
    {
      range: '192.0.2.100-192.0.2.110',
      relayed: [{ subnet: '10.1.0.0/24', range: '10.1.0.50-10.1.0.60' }],
      reservations: [reservation],
    },
    '192.0.2.1/24',
    extra,
  );
const client = (more: Record<string, unknown> = {}) =>
  make({ wan: { kind: 'memory', mac: '02:00:00:00:01:02', dhcp4: { client: { 'host-name': 'home', ...more } } } });

const protocol = <T>(router: Router, name: string): T =>
  router.control.protocols.find((p) => p.name === name) as unknown as T;
const stateOf = (router: Router) => protocol<Dhcp4Client>(router, 'dhcp4-client').stateOf(0)!;
const clientOf = (router: Router) => protocol<Dhcp4Client>(router, 'dhcp4-client');
const serverOf = (router: Router) => protocol<Dhcp4Server>(router, 'dhcp4-server');

/** `DISCOVER 0.0.0.0 > 255.255.255.255` of every DHCP message among the frames, read from the bytes. */
function talk(frames: readonly Uint8Array[]): string[] {
  return frames
    .filter((f) => B.get16(f, 12) === 0x0800 && f[23] === 17 && [67, 68].includes(B.get16(f, 36)))
    .map((f) => {
      const type = f.indexOf(53, 42 + 240);
      return `${NAMES[f[type + 2]]} ${B.ipText(f.subarray(26, 30))} > ${B.ipText(f.subarray(30, 34))}`;
    });
}

function events(router: Router): string[] {
  const list: string[] = [];
  router.control.protocols.push({
    name: 'ear',
    next: () => -1,
    step: (_now: number, event: Event) => {
      if (event.kind === 'event') list.push(`${event.name} ${JSON.stringify(event.data)}`);
      return [];
    },
  });
  return list;
}

/** A message from a scripted client. */
function message(
  o: Partial<M.Dhcp4Message> & { type: number; mac?: string; opts?: [number, Uint8Array][] },
): Uint8Array {
  return M.writeMessage({
    op: 1,
    htype: 1,
    hops: 0,
    xid: 7,
    secs: 0,
    flags: 0x8000,
    ciaddr: 0,
    yiaddr: 0,
    siaddr: 0,
    giaddr: 0,
    chaddr: B.mac(o.mac ?? HOST),
    ...o,
    options: new Map(o.opts ?? []),
  });
}
const fromClient = (payload: Uint8Array, mac = HOST, src = '0.0.0.0') =>
  B.ethernet(
    { src: mac, dst: 'ff:ff:ff:ff:ff:ff' },
    B.ipv4({ src, dst: '255.255.255.255' }, B.udp({ sport: 68, dport: 67 }, payload)),
  );
const answers = (router: Router, port = 'lan') =>
  router
    .take(port)
    .filter((f) => B.get16(f, 12) === 0x0800 && f[23] === 17)
    .map((f) => {
      expect(B.verify(f)).toEqual([]);
      return { frame: f, message: M.readMessage(f.subarray(42))! };
    });
const ipWord = (text: string) => {
  const b = B.ip(text);
  return b[0] | (b[1] << 8) | (b[2] << 16) | (b[3] << 24);
};

describe('a client and a server on one cable', () => {
  it('four messages, a probe, an address, a default route; the events tell all of it', () => {
    const [isp, home] = [server(), client()];
    const told = events(home);
    const wire = new Wire();
    const heard = wire.join({ router: isp, port: 'lan' }, { router: home, port: 'wan' });
    wire.advance(4000);
    expect(talk(heard.map((h) => h.frame))).toEqual([
      'DISCOVER 0.0.0.0 > 255.255.255.255',
      'OFFER 192.0.2.1 > 255.255.255.255',
      'REQUEST 0.0.0.0 > 255.255.255.255',
      'ACK 192.0.2.1 > 255.255.255.255',
    ]);
    expect(stateOf(home)).toEqual({ state: 'bound', address: '192.0.2.100' });
    expect(told[0]).toMatch(
      /^dhcp4.bound .*"address":"192.0.2.100","prefixLength":24,"router":"192.0.2.1","servers":\["192.0.2.53"\],"domain":"isp.example"/,
    );
    expect(home.control.routes.get(4, [0, 0, 0, 0], 0)).toBeGreaterThan(0);
    expect(serverOf(isp).leases(isp.now, 0)).toMatchObject([{ address: '192.0.2.100', hostName: 'home' }]);
  });

  it('§4.4.5: renews at half of the lease by unicast, and keeps its address as long as somebody answers', () => {
    const [isp, home] = [server(), client()];
    const wire = new Wire();
    const heard = wire.join({ router: isp, port: 'lan' }, { router: home, port: 'wan' });
    wire.advance(4000);
    heard.length = 0;
    wire.advance(310_000, 100);
    expect(talk(heard.map((h) => h.frame))).toEqual(['REQUEST 192.0.2.100 > 192.0.2.1', 'ACK 192.0.2.1 > 192.0.2.100']);
    expect(stateOf(home).state).toBe('bound');
  });

  it('rebinds by broadcast at seven eighths, and gives the address up at the end', () => {
    const [isp, home] = [server(), client()];
    const told = events(home);
    const wire = new Wire();
    wire.join({ router: isp, port: 'lan' }, { router: home, port: 'wan' });
    wire.advance(4000);
    // From here on nobody answers.
    const seen: { at: number; line: string }[] = [];
    for (let t = 0; t < 620; t++) {
      home.advance(1000);
      for (const line of talk(home.take('wan'))) seen.push({ at: home.now, line });
    }
    const first = (line: string) => seen.find((one) => one.line.startsWith(line))!.at;
    expect(first('REQUEST 192.0.2.100 > 255.255.255.255') / 1000).toBeGreaterThanOrEqual(525);
    expect(first('DISCOVER') / 1000).toBeGreaterThanOrEqual(600);
    // The first renewal asks for the server's MAC, which nobody tells; it is broadcast that is seen.
    expect(told.at(-1)).toBe('dhcp4.lost {"port":"wan"}');
    expect(home.control.routes.get(4, [0, 0, 0, 0], 0)).toBe(0);
    expect(home.control.addresses.ofPort(0)).toEqual([]);
  });

  it('RFC 5227 §2.1: declines an address that somebody else answers for, and gets another one ten seconds later', () => {
    const [isp, home] = [server(), client()];
    const wire = new Wire();
    const heard = wire.join({ router: isp, port: 'lan' }, { router: home, port: 'wan' });
    while (stateOf(home).state !== 'checking') wire.advance(10);
    home.inject(
      'wan',
      B.ethernet(
        { src: HOST, dst: '02:00:00:00:01:02', type: 0x806 },
        B.arp({ op: 'reply', sha: HOST, spa: '192.0.2.100', tpa: '0.0.0.0' }),
      ),
    );
    expect(clientOf(home).counters.declined).toBe(1);
    wire.advance(15_000);
    expect(talk(heard.map((h) => h.frame)).filter((line) => line.startsWith('DECLINE')).length).toBe(1);
    expect(stateOf(home)).toEqual({ state: 'bound', address: '192.0.2.101' });
  });

  it('a link that goes takes address and route with it, and the next one begins anew', () => {
    const [isp, home] = [server(), client()];
    const wire = new Wire();
    wire.join({ router: isp, port: 'lan' }, { router: home, port: 'wan' });
    wire.advance(4000);
    home.setLink('wan', false);
    expect(stateOf(home)).toEqual({ state: 'init', address: '' });
    expect(home.control.addresses.ofPort(0)).toEqual([]);
    home.setLink('wan', true);
    wire.advance(4000);
    // The same address again: the server remembers its client.
    expect(stateOf(home).address).toBe('192.0.2.100');
  });

  it('ten thousand hostile answers leave no address and no exception', () => {
    const home = client();
    home.advance(1500);
    const random = new B.Random(4);
    for (let n = 0; n < 10_000; n++) {
      const discover = home.take('wan').find((f) => B.get16(f, 12) === 0x0800);
      const xid = discover === undefined ? random.next() | 0 : B.get32(discover, 46) | 0;
      const payload = message({ type: random.pick([2, 5, 6]), op: 2, xid, mac: '02:00:00:00:01:02' } as never);
      for (let k = 0; k < 4; k++) payload[random.int(0, payload.length - 1)] = random.int(0, 255);
      const packet = B.ipv4(
        { src: '192.0.2.66', dst: '255.255.255.255' },
        B.udp({ sport: 67, dport: 68 }, payload.subarray(0, random.int(0, payload.length))),
      );
      home.inject('wan', B.ethernet({ src: HOST, dst: 'ff:ff:ff:ff:ff:ff' }, packet));
    }
    expect(stateOf(home).address).toBe('');
    expect(clientOf(home).counters.malformed).toBeGreaterThan(1000);
  });
});

describe('a server that says strange times', () => {
  it.each([
    ['a lease of a second', 1, undefined, undefined],
    ['a renewal at once', 3600, 0, 1],
    ['a rebinding before the renewal', 3600, 900, 20],
  ])('%s does not make the client ask without pause', (_what, lease, t1, t2) => {
    const home = client();
    let requests = 0;
    for (let t = 0; t < 3000; t++) {
      home.advance(20);
      for (const frame of home.take('wan')) {
        const asked = B.get16(frame, 12) === 0x0800 ? M.readMessage(frame.subarray(42)) : null;
        if (asked === null) continue;
        if (asked.type === M.REQUEST) requests++;
        const options = new Map<number, Uint8Array>([
          [M.OPT_SERVER, B.ip('192.0.2.1')],
          [M.OPT_MASK, B.ip('255.255.255.0')],
          [M.OPT_LEASE, M.numberBytes(lease)],
        ]);
        if (t1 !== undefined) options.set(M.OPT_T1, M.numberBytes(t1));
        if (t2 !== undefined) options.set(M.OPT_T2, M.numberBytes(t2));
        const type = asked.type === M.DISCOVER ? M.OFFER : M.ACK;
        const answer = { ...asked, op: 2, type, yiaddr: ipWord('192.0.2.100'), options };
        const udp = B.udp({ sport: 67, dport: 68 }, M.writeMessage(answer));
        const packet = B.ipv4({ src: '192.0.2.1', dst: '255.255.255.255' }, udp);
        home.inject('wan', B.ethernet({ src: HOST, dst: 'ff:ff:ff:ff:ff:ff' }, packet));
      }
    }
    // A minute has passed.
    expect(stateOf(home).address).toBe('192.0.2.100');
    expect(requests).toBeLessThan(15);
  });
});

describe('a router without a client', () => {
  it('judges what comes to the ports of DHCP and DHCPv6 clients by its zone, as everything else', () => {
    const router = make(
      { wan: { kind: 'memory', zone: 'wan', mac: LAN_MAC, addresses: ['192.0.2.1/24', '2001:db8::1/64'] } },
      { zones: { wan: { forward: 'drop', input: 'drop' } } },
    );
    router.advance(3000);
    router.take('wan');
    for (const dport of [68, 69])
      router.inject(
        'wan',
        B.ethernet(
          { src: HOST, dst: LAN_MAC },
          B.ipv4({ src: '198.51.100.7', dst: '192.0.2.1' }, B.udp({ sport: 67, dport }, new Uint8Array(8))),
        ),
      );
    for (const dport of [546, 548])
      router.inject(
        'wan',
        B.ethernet(
          { src: HOST, dst: LAN_MAC },
          B.ipv6({ src: '2001:db8:9::7', dst: '2001:db8::1' }, B.udp({ sport: 547, dport }, new Uint8Array(8))),
        ),
      );
    expect(router.counters.dropped).toMatchObject({ INPUT_DROP: 4 });
    router.advance(3000);
    expect(
      router.take('wan').filter((f) => [1, 58].includes(f[B.get16(f, 12) === 0x0800 ? 23 : 20]) && f[54] < 128),
    ).toEqual([]);
  });
});

describe('the server', () => {
  const request = (address: string, more: Partial<M.Dhcp4Message> & { mac?: string } = {}) =>
    fromClient(message({ type: M.REQUEST, opts: [[M.OPT_REQUESTED, B.ip(address)]], ...more }), more.mac ?? HOST);

  it('§4.3.2: INIT-REBOOT gets its address back, one of another subnet is refused by broadcast', () => {
    const isp = server();
    isp.inject('lan', request('192.0.2.101'));
    expect(answers(isp)[0].message).toMatchObject({ type: M.ACK, yiaddr: ipWord('192.0.2.101') });
    isp.inject('lan', request('10.0.0.5', { mac: '02:00:00:00:00:0b' }));
    const [nak] = answers(isp);
    expect(nak.message.type).toBe(M.NAK);
    expect(B.ipText(nak.frame.subarray(30, 34))).toBe('255.255.255.255');
    expect(nak.message.options.has(M.OPT_ROUTER)).toBe(false);
  });

  it('an address that another client has is refused; a chosen other server is not answered', () => {
    const isp = server();
    isp.inject('lan', request('192.0.2.101'));
    isp.inject('lan', request('192.0.2.101', { mac: '02:00:00:00:00:0b' }));
    expect(answers(isp).map((a) => a.message.type)).toEqual([M.ACK, M.NAK]);
    const opts: [number, Uint8Array][] = [
      [M.OPT_REQUESTED, B.ip('192.0.2.102')],
      [M.OPT_SERVER, B.ip('192.0.2.2')],
    ];
    isp.inject('lan', fromClient(message({ type: M.REQUEST, opts }), HOST));
    expect(answers(isp)).toEqual([]);
  });

  it('an exhausted pool: silence, counted; a released address is given again', () => {
    const isp = server();
    const macs = [1, 2, 3, 4].map((n) => `02:00:00:00:00:0${n}`);
    for (const mac of macs) isp.inject('lan', fromClient(message({ type: M.DISCOVER, mac }), mac));
    expect(answers(isp).map((a) => a.message.type)).toEqual([M.OFFER, M.OFFER, M.OFFER]);
    expect(serverOf(isp).counters.exhausted).toBe(1);
    isp.inject('lan', request('192.0.2.100', { mac: macs[0] }));
    const opts: [number, Uint8Array][] = [[M.OPT_SERVER, B.ip('192.0.2.1')]];
    isp.inject(
      'lan',
      fromClient(message({ type: M.RELEASE, mac: macs[0], ciaddr: ipWord('192.0.2.100'), opts }), macs[0]),
    );
    answers(isp);
    isp.inject('lan', fromClient(message({ type: M.DISCOVER, mac: macs[3] }), macs[3]));
    expect(answers(isp)[0].message.yiaddr).toBe(ipWord('192.0.2.100'));
  });

  it('a flood of DISCOVERs from invented MACs: no more answers than the rate, no more offers than addresses', () => {
    const isp = server({ rate: 100 });
    for (let n = 0; n < 5000; n++) {
      const mac = `02:aa:00:00:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`;
      isp.inject('lan', fromClient(message({ type: M.DISCOVER, mac }), mac));
    }
    expect(serverOf(isp).counters).toMatchObject({ received: 100, limited: 4900, offers: 3, exhausted: 97 });
    // Offers that nobody took are over after a minute.
    isp.advance(61_000);
    answers(isp);
    isp.inject('lan', fromClient(message({ type: M.DISCOVER })));
    expect(answers(isp).length).toBe(1);
  });

  it('a client that takes another address than it was offered does not use up the first', () => {
    const isp = server();
    const offered = (mac: string) => {
      isp.inject('lan', fromClient(message({ type: M.DISCOVER, mac }), mac));
      return answers(isp).map(({ frame }) => B.ipText(frame.subarray(58, 62)));
    };
    const [thief, guest, late] = ['02:00:00:00:00:0b', '02:00:00:00:00:0c', '02:00:00:00:00:0d'];
    isp.inject('lan', request('192.0.2.100'));
    answers(isp);
    expect([offered(thief), offered(guest)]).toEqual([['192.0.2.101'], ['192.0.2.102']]);
    // Both offers are over when the first takes the second.
    isp.advance(61_000);
    isp.inject('lan', request('192.0.2.102', { mac: thief }));
    expect(answers(isp)[0].message.type).toBe(M.ACK);
    expect(offered(late)).toEqual(['192.0.2.101']);
  });

  it('a lease that is over stays over when the clock wraps', () => {
    const isp = server();
    const other = '02:00:00:00:00:0b';
    isp.inject('lan', request('192.0.2.100'));
    isp.inject('lan', request('192.0.2.101', { mac: '02:00:00:00:00:0c' }));
    expect(serverOf(isp).leases(isp.now, 0).length).toBe(2);
    // 2^31 ms are 24 days and 21 hours. It asks for the ticks itself: nothing else may happen for so long.
    const dhcp = serverOf(isp);
    let now = isp.now;
    for (let day = 0; day < 30; day++) {
      expect(dhcp.next(now)).toBeLessThanOrEqual(86_400_000);
      now = (now + 86_400_000) | 0;
      dhcp.step(now, { kind: 'tick' });
      expect(dhcp.leases(now, 0)).toEqual([]);
    }
    const ask = (type: number, mac: string, address: string) => {
      const opts: [number, Uint8Array][] = address === '' ? [] : [[M.OPT_REQUESTED, B.ip(address)]];
      const frame = fromClient(message({ type, mac, opts }), mac);
      const actions = dhcp.step(now, { kind: 'frame', port: 0, frame, etherType: 0x0800, l3: 14 });
      return actions.flatMap((one) => (one.kind === 'send' ? [B.ipText(one.frame.subarray(58, 62))] : []));
    };
    expect(ask(M.REQUEST, other, '192.0.2.100')).toEqual(['192.0.2.100']);
    // Who had an address before has it again when nobody else took it.
    expect(ask(M.DISCOVER, '02:00:00:00:00:0c', '')).toEqual(['192.0.2.101']);
  });

  it('reservations by MAC and by remote-id; nobody else gets them', () => {
    const isp = server({
      reservations: [
        { mac: HOST, address: '192.0.2.100' },
        { 'remote-id': 'line 7', address: '192.0.2.101' },
      ],
    });
    const other = '02:00:00:00:00:0b';
    const line = B.concat(Uint8Array.of(2, 6), B.toBytes('line 7'));
    isp.inject('lan', fromClient(message({ type: M.DISCOVER, mac: other }), other));
    isp.inject('lan', fromClient(message({ type: M.DISCOVER })));
    isp.inject('lan', fromClient(message({ type: M.DISCOVER, mac: other, opts: [[M.OPT_RELAY, line]] }), other));
    const got = answers(isp).map((a) => B.ipText(a.frame.subarray(58, 62)));
    expect(got).toEqual(['192.0.2.102', '192.0.2.100', '192.0.2.101']);
  });

  it('clients: known: who has no reservation, by MAC or by line, hears nothing, whatever it asks', () => {
    const isp = server({
      clients: 'known',
      reservations: [
        { mac: HOST, address: '192.0.2.100' },
        { 'remote-id': '02:00:00:00:00:0c', address: '192.0.2.101' },
      ],
    });
    const other = '02:00:00:00:00:0b';
    const ask = (type: number, mac: string, ...opts: [number, Uint8Array][]) =>
      isp.inject('lan', fromClient(message({ type, mac, opts }), mac));
    const wanted: [number, Uint8Array] = [M.OPT_REQUESTED, B.ip('192.0.2.102')];
    ask(M.DISCOVER, other);
    ask(M.REQUEST, other, wanted);
    // An address of elsewhere, which a client of ours would be refused.
    ask(M.REQUEST, other, [M.OPT_REQUESTED, B.ip('10.9.9.9')]);
    ask(M.INFORM, other);
    ask(M.DISCOVER, other, [M.OPT_CLIENT, B.hex('01 02000000000a')]);
    ask(M.DISCOVER, other, [M.OPT_RELAY, B.concat(Uint8Array.of(2, 6), B.toBytes('line 7'))]);
    expect(answers(isp)).toEqual([]);
    expect(serverOf(isp).counters).toMatchObject({ unknown: 6, naks: 0, offers: 0 });
    ask(M.DISCOVER, HOST);
    ask(M.DISCOVER, other, [M.OPT_RELAY, B.hex('02 06 02000000000c')]);
    expect(answers(isp).map(({ frame }) => B.ipText(frame.subarray(58, 62)))).toEqual(['192.0.2.100', '192.0.2.101']);
  });
});

describe('RFC 3046: the relay agent', () => {
  /** client ═ relay(lan 10.1.0.1, up 192.0.2.9) ═ server(192.0.2.1, subnet 10.1.0.0/24 relayed). */
  const world = () => {
    const isp = serverForRelay(
      { 'remote-id': 'box 12', address: '10.1.0.77' },
      { routes: [{ to: '10.1.0.0/24', via: '192.0.2.9' }] },
    );
    const relay = make({
      lan: {
        kind: 'memory',
        mac: '02:00:00:00:02:01',
        addresses: '10.1.0.1/24',
        dhcp4: { relay: { to: '192.0.2.1', 'circuit-id': 'eth 0/1', 'remote-id': 'box 12' } },
      },
      up: { kind: 'memory', mac: '02:00:00:00:02:02', addresses: '192.0.2.9/24' },
    });
    const home = client();
    const wire = new Wire();
    const upper = wire.join({ router: isp, port: 'lan' }, { router: relay, port: 'up' });
    const lower = wire.join({ router: relay, port: 'lan' }, { router: home, port: 'wan' });
    return { isp, relay, home, wire, upper, lower };
  };

  it('a client behind it is served from its subnet, by its line; option 82 is on the upper cable only', () => {
    const { home, wire, upper, lower } = world();
    wire.advance(8000);
    expect(stateOf(home)).toEqual({ state: 'bound', address: '10.1.0.77' });
    const relayed = talk(upper.map((h) => h.frame));
    expect(relayed.slice(0, 2)).toEqual(['DISCOVER 10.1.0.1 > 192.0.2.1', 'OFFER 192.0.2.1 > 10.1.0.1']);
    const option = B.toHex(
      B.concat(Uint8Array.of(82, 17, 1, 7), B.toBytes('eth 0/1'), Uint8Array.of(2, 6), B.toBytes('box 12')),
    );
    expect(upper.filter((h) => B.toHex(h.frame).includes(option)).length).toBe(4);
    expect(lower.filter((h) => B.toHex(h.frame).includes(option))).toEqual([]);
  });

  it('RFC 1542 §4: server name and boot file pass both ways; a server sends back none of what a client wrote there', () => {
    const { isp, relay } = world();
    relay.advance(10);
    const boot = new Uint8Array(192);
    boot.set(B.toBytes('tftp.example'));
    boot.set(B.toBytes('pxelinux.0'), 64);
    relay.inject('lan', fromClient(message({ type: M.DISCOVER, boot })));
    const reply = {
      op: 2,
      type: M.OFFER,
      giaddr: ipWord('10.1.0.1'),
      siaddr: ipWord('192.0.2.9'),
      yiaddr: ipWord('10.1.0.60'),
    };
    const udp = B.udp({ sport: 67, dport: 67 }, message({ ...reply, boot }));
    relay.inject(
      'up',
      B.ethernet({ src: LAN_MAC, dst: '02:00:00:00:02:02' }, B.ipv4({ src: '192.0.2.1', dst: '10.1.0.1' }, udp)),
    );
    const [offer] = answers(relay);
    expect(offer.message).toMatchObject({ type: M.OFFER, siaddr: ipWord('192.0.2.9') });
    expect(B.toHex(offer.frame.subarray(42 + 44, 42 + 236))).toBe(B.toHex(boot));
    isp.inject('lan', fromClient(message({ type: M.INFORM, ciaddr: ipWord('192.0.2.7'), boot }), HOST, '192.0.2.7'));
    isp.inject('lan', fromClient(message({ type: M.REQUEST, boot, opts: [[M.OPT_REQUESTED, B.ip('192.0.2.101')]] })));
    const acks = answers(isp);
    expect(acks.length).toBeGreaterThan(0);
    for (const { frame } of acks) expect(frame.subarray(42 + 44, 42 + 236).some((byte) => byte !== 0)).toBe(false);
  });

  it('what is reserved for a client in one subnet is not offered to it in another', () => {
    const isp = serverForRelay({ mac: HOST, address: '10.1.0.77' });
    isp.inject('lan', fromClient(message({ type: M.DISCOVER })));
    expect(B.ipText(answers(isp)[0].frame.subarray(58, 62))).toBe('192.0.2.100');
  });

  it('a reservation in a further subnet of the port is given with that subnet, and confirmed', () => {
    const reservations = [{ mac: HOST, address: '10.9.0.77' }];
    const isp = server({ router: '192.0.2.2', reservations }, ['192.0.2.1/24', '10.9.0.1/25']);
    const said = () =>
      answers(isp).map(({ frame, message: { type, options } }) => [
        NAMES[type],
        B.ipText(frame.subarray(58, 62)),
        B.ipText(options.get(M.OPT_MASK) ?? new Uint8Array(4)),
        B.ipText(options.get(M.OPT_ROUTER) ?? new Uint8Array(4)),
      ]);
    const asked: [number, Uint8Array][] = [[M.OPT_REQUESTED, B.ip('10.9.0.77')]];
    isp.inject('lan', fromClient(message({ type: M.DISCOVER })));
    isp.inject('lan', fromClient(message({ type: M.REQUEST, opts: [...asked, [M.OPT_SERVER, B.ip('192.0.2.1')]] })));
    isp.inject('lan', fromClient(message({ type: M.REQUEST, opts: asked })));
    expect(said()).toEqual(['OFFER', 'ACK', 'ACK'].map((type) => [type, '10.9.0.77', '255.255.255.128', '10.9.0.1']));
    // Nobody else has an address there, and who has the range's has its subnet and its router.
    const other = '02:00:00:00:00:0b';
    isp.inject('lan', fromClient(message({ type: M.REQUEST, mac: other, opts: asked }), other));
    isp.inject('lan', fromClient(message({ type: M.DISCOVER, mac: other }), other));
    expect(said()).toEqual([
      ['NAK', '0.0.0.0', '0.0.0.0', '0.0.0.0'],
      ['OFFER', '192.0.2.100', '255.255.255.0', '192.0.2.2'],
    ]);
  });

  it('§2.1: drops what claims to have come through it, loops, and options that a client brings', () => {
    const { relay } = world();
    relay.advance(10);
    const inject = (o: Partial<M.Dhcp4Message> & { opts?: [number, Uint8Array][] }) =>
      relay.inject('lan', fromClient(message({ type: M.DISCOVER, ...o })));
    inject({ giaddr: ipWord('10.1.0.1') });
    inject({ hops: 16 });
    inject({ opts: [[M.OPT_RELAY, Uint8Array.of(1, 1, 65)]] });
    const { counters } = protocol<{ counters: Record<string, number> }>(relay, 'dhcp4-relay');
    expect(counters).toMatchObject({ loops: 2, untrusted: 1, requests: 0 });
  });
});

describe('the codec', () => {
  it('RFC 3396: options longer than 255 bytes come back whole; RFC 2131 §4.1: overloaded fields are read', () => {
    const long = B.toBytes('x'.repeat(600));
    const back = M.readMessage(message({ type: M.ACK, opts: [[M.OPT_MESSAGE, long]] }))!;
    expect(back.options.get(M.OPT_MESSAGE)).toEqual(long);
    const plain = message({ type: M.ACK });
    plain.set([52, 1, 3, 255], 240 + 3);
    plain.set([12, 4, ...B.toBytes('file'), 255], 108);
    plain.set([15, 5, ...B.toBytes('sname'), 255], 44);
    const read = M.readMessage(plain)!;
    expect(M.textOption(read, M.OPT_HOST_NAME)).toBe('file');
    expect(M.textOption(read, M.OPT_DOMAIN)).toBe('sname');
  });

  it('refuses what is cut, and never throws on noise', () => {
    const good = message({ type: M.DISCOVER, opts: [[M.OPT_HOST_NAME, B.toBytes('a name')]] });
    const cut = good.slice(0, 247);
    expect(M.readMessage(good)).not.toBeNull();
    expect(M.readMessage(cut)).toBeNull();
    const random = new B.Random(2);
    for (let n = 0; n < 20_000; n++) {
      const noise = good.slice(0, random.int(0, good.length));
      for (let k = random.int(0, 8); k > 0 && noise.length > 0; k--)
        noise[random.int(0, noise.length - 1)] = random.int(0, 255);
      const read = M.readMessage(noise);
      if (read !== null) expect(M.readMessage(M.writeMessage(read))).not.toBeNull();
    }
  });
});
