/**
 * Talks: protocols of the control plane between routers on a wire, with a hand on it that changes what some of them hear.
 * So a changed answer still has the transaction, port and name that was asked for, and comes deep. Captured frames of the
 * same protocols are thrown in.
 *
 * A router that hears changed frames must not throw, must send nothing malformed, must fall silent again, and must not keep
 * more than its bounds. Its state goes on from input to input: what one input began the next ones find.
 */
import { decode, encode } from 'dns-packet';
import { createRouter, type Router } from '../../controlplane/router.ts';
import * as B from '../lib/build.ts';
import { capturedSamples } from '../property/corpus.ts';
import { mutateBytes, type Target } from './fuzz.ts';

interface End {
  router: Router;
  port: string;
  mac: string;
}

interface World {
  routers: Router[];
  cables: [End, End][];
  /** Who hears changed frames. */
  hit: End[];
  /** Makes them talk, now and then. */
  stir(random: B.Random): void;
  /** Throws when somebody keeps more than he may. */
  check(): void;
}

/** Inputs until everything begins anew. */
const LIFE = 500;
/** Payloads remembered, for pieces of one in another. */
const MEMORY = 64;
/** Frames that routers may exchange before they fall silent, for one input. */
const MAX_FRAMES = 3000;

let read: Uint8Array[] | null = null;
/** Frames of the public captures, read once. */
function captures(): Uint8Array[] {
  read ??= capturedSamples(8).map(({ frame }) => frame);
  return read;
}

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;

/** Where the message of a UDP or ICMPv6 packet without extension headers begins; -1: something else. */
function messageAt(frame: Uint8Array): number {
  const type = frame.length > 62 ? B.get16(frame, 12) : 0;
  if (type === ETHERTYPE_IPV4 && frame[14] === 0x45 && frame[23] === B.PROTO_UDP) return 42;
  if (type !== ETHERTYPE_IPV6) return -1;
  return frame[20] === B.PROTO_UDP ? 62 : frame[20] === B.PROTO_ICMPV6 ? 54 : -1;
}

/** True unless a router has forwarded it. */
function isFresh(frame: Uint8Array): boolean {
  const type = B.get16(frame, 12);
  return type === ETHERTYPE_IPV4 ? frame[22] === 64 : type !== ETHERTYPE_IPV6 || frame[21] === 64 || frame[21] === 255;
}

/** The frame with another message in it, lengths and checksums right. */
function withMessage(frame: Uint8Array, message: Uint8Array): Uint8Array {
  const link = { dst: frame.slice(0, 6), src: frame.slice(6, 12) };
  const v4 = B.get16(frame, 12) === ETHERTYPE_IPV4;
  const l4 = v4 ? 34 : 54;
  const udp = frame[v4 ? 23 : 20] === B.PROTO_UDP;
  // An ICMPv6 message has its checksum in it.
  const icmp = {
    proto: B.PROTO_ICMPV6,
    bytes: B.concat(message, new Uint8Array(Math.max(0, 4 - message.length))),
    sumAt: 2,
  };
  const segment = udp ? B.udp({ sport: B.get16(frame, l4), dport: B.get16(frame, l4 + 2) }, message) : icmp;
  const packet = v4
    ? B.ipv4({ src: frame.slice(26, 30), dst: frame.slice(30, 34) }, segment)
    : B.ipv6({ src: frame.slice(22, 38), dst: frame.slice(38, 54), hop: frame[21] }, segment);
  return B.ethernet(link, packet);
}

/**
 * @param wanted tells the frames that belong to the protocol
 * @param heads bytes at the beginning of a message that stay as they are, one of these: type, transaction, fixed fields
 */
function talk(
  name: string,
  make: () => World,
  wanted: (frame: Uint8Array) => boolean,
  heads: readonly number[],
): Target {
  const captured = captures()
    .filter((frame) => messageAt(frame) >= 0 && wanted(frame))
    .map((frame) => frame.slice(messageAt(frame)));
  let world: World | null = null;
  let inputs = 0;
  /** What each of those that are hit heard last: a captured message comes the same way. */
  const ways = new Map<End, Uint8Array>();
  const heard: Uint8Array[] = [];

  function changed(random: B.Random, frame: Uint8Array): Uint8Array {
    const at = messageAt(frame);
    if (at < 0 || random.chance(0.1)) return mutateBytes(random, [frame], 1514);
    const message = frame.slice(at);
    if (heard.length < MEMORY) heard.push(message);
    else heard[random.int(0, MEMORY - 1)] = message;
    const head = random.pick(heads);
    // What is changed is most often this very message; pieces come from the others.
    const rest = [message, message, ...(random.chance(0.3) ? heard : [])].map((one) => one.slice(head));
    return withMessage(frame, B.concat(message.subarray(0, head), mutateBytes(random, rest, 1400)));
  }

  function carry(random: B.Random, { cables, hit }: World): void {
    let frames = 0;
    for (let moved = 1; moved > 0; ) {
      moved = 0;
      for (const cable of cables)
        for (const side of [0, 1] as const) {
          const [from, to] = [cable[side], cable[1 - side]];
          for (const frame of from.router.take(from.port)) {
            // What has no checksum over IPv6 came so: it is forwarded and quoted as it is.
            const faults = B.verify(frame, { zeroUdp6: true });
            if (faults.length > 0) throw new Error(`${from.port} sent ${B.toHex(frame)}: ${faults.join('; ')}`);
            moved++;
            if (++frames > MAX_FRAMES) throw new Error(`the routers do not fall silent: ${frames} frames`);
            // What goes round until its hop limit ends it must not become more at every turn.
            const hits = hit.includes(to) && isFresh(frame);
            if (hits && messageAt(frame) >= 0 && wanted(frame)) ways.set(to, frame);
            if (hits && random.chance(0.4)) to.router.inject(to.port, changed(random, frame));
            if (!hits || random.chance(0.8)) to.router.inject(to.port, frame);
          }
        }
    }
  }

  return {
    name,
    run(random) {
      if (world === null || inputs++ % LIFE === 0) {
        world = make();
        ways.clear();
      }
      if (random.chance(0.3)) world.stir(random);
      const end = random.pick(world.hit);
      const way = ways.get(end);
      if (way !== undefined && captured.length > 0 && random.chance(0.3))
        end.router.inject(end.port, changed(random, withMessage(way, random.pick(captured))));
      const wait = random.pick([0, 10, 10, 50, 200, 1000, 5000, 20_000]);
      for (let left = wait; left >= 0; left -= 500) {
        for (const router of world.routers) router.advance(Math.min(500, left));
        carry(random, world);
      }
      world.check();
    },
  };
}

let seed = 0;
/** A router whose ports have the MACs 02:00:00:00:NN:01, :02 ... */
function node(n: number, ports: Record<string, object>, more: object = {}): { router: Router; end(port: string): End } {
  const names = Object.keys(ports);
  const macs = names.map((_, k) => `02:00:00:00:0${n}:0${k + 1}`);
  const made = Object.fromEntries(names.map((name, k) => [name, { kind: 'memory', mac: macs[k], ...ports[name] }]));
  const router = createRouter(
    { ports: made, offload: { mode: 'off' }, conntrack: { max: 1024 }, ...more },
    { unasked: true, seed: ++seed, slots: { small: 256, large: 4 } },
  );
  return { router, end: (port) => ({ router, port, mac: macs[names.indexOf(port)] }) };
}

function atMost(what: string, count: number, limit: number): void {
  if (count > limit) throw new Error(`${what}: expected ${limit} at most, got ${count}`);
}

const isUdp =
  (...ports: number[]) =>
  (frame: Uint8Array) => {
    const at = messageAt(frame);
    return at === 42 || at === 62 ? ports.includes(B.get16(frame, at - 6)) : false;
  };
const isIcmp6 =
  (...types: number[]) =>
  (frame: Uint8Array) =>
    messageAt(frame) === 54 && types.includes(frame[54]);

/** The link goes and comes, or so much time passes that leases are renewed or end. */
function shake(random: B.Random, ends: readonly End[], also: () => void): void {
  const { router, port } = random.pick(ends);
  switch (random.int(0, 2)) {
    case 0:
      router.setLink(port, false);
      router.setLink(port, true);
      break;
    case 1:
      for (let left = random.pick([60_000, 110_000, 240_000]); left > 0; left -= 5000)
        for (const one of new Set(ends.map((end) => end.router))) one.advance(5000);
      break;
    default:
      also();
  }
}

// --- DHCPv6 -----------------------------------------------------------------------------------------------------------

/** cpe ── lan [relay] dc ── lan [isp], or with an LDRA in the relay's place, or with nothing between them. */
function dhcp6(between: 'nothing' | 'relay' | 'ldra', hits: (ends: Record<string, End>) => End[]): () => World {
  return () => {
    const server = {
      addresses: '2001:db8:0:1::1000-2001:db8:0:1::10ff',
      delegate: 'customers',
      dns: '2001:db8::53',
      domains: 'isp.example',
      preferred: 100,
      valid: 200,
      'rapid-commit': true,
      relays: ['2001:db8:0:1::/64', 'fe80::/10'],
    };
    const direct = between !== 'relay';
    const isp = node(
      1,
      { lan: { addresses: direct ? '2001:db8:0:1::1/64' : '2001:db8:0:2::547/64', dhcp6: { server } } },
      {
        routes: direct ? [] : [{ to: '2001:db8:0:1::/64', via: '2001:db8:0:2::1' }],
        delegation: { pools: { customers: { prefix: '2001:db8:100::/48', length: 60 } } },
      },
    );
    const client = { 'ia-pd': [{}, { hint: '::/60' }], 'rapid-commit': seed % 2 === 0, 'reconfigure-accept': true };
    const cpe = node(3, { wan: { dhcp6: { client } } });
    const middle =
      between === 'relay'
        ? node(2, {
            lan: { addresses: '2001:db8:0:1::1/64', dhcp6: { relay: { to: '2001:db8:0:2::547', relays: true } } },
            dc: { addresses: '2001:db8:0:2::1/64' },
          })
        : node(2, {
            lan: { dhcp6: { ldra: { to: 'dc', trusted: true } } },
            dc: { addresses: '2001:db8:0:1::d/64' },
          });
    const ends = { isp: isp.end('lan'), cpe: cpe.end('wan'), lan: middle.end('lan'), dc: middle.end('dc') };
    const routers = between === 'nothing' ? [isp.router, cpe.router] : [isp.router, cpe.router, middle.router];
    return {
      routers,
      cables:
        between === 'nothing'
          ? [[ends.cpe, ends.isp]]
          : [
              [ends.cpe, ends.lan],
              [ends.dc, ends.isp],
            ],
      hit: hits(ends),
      stir: (random) =>
        shake(random, [ends.cpe, ends.isp], () => {
          const name = random.pick(['dhcp6.stop', 'dhcp6.start']);
          cpe.router.control.handle({ kind: 'event', name, data: { port: 'wan' } });
        }),
      check: () => {
        atMost('leases of a client', cpe.router.control.domains.dhcp6!.clients[0].held.length, 64);
        // Every input may be another client; none has more than its share, and all end in 200 s.
        atMost('leases of the server', isp.router.control.domains.dhcp6!.delegation.leases.size, 4 * 8 * LIFE);
        for (const relay of middle.router.control.domains.dhcp6!.relays)
          atMost('routes of a relay', relay.routes.size, 8 * LIFE);
      },
    };
  };
}

// --- DHCPv4 -----------------------------------------------------------------------------------------------------------

/** home ── lan [relay] up ── lan [isp], or with nothing between them. */
function dhcp4(relayed: boolean, hits: (ends: Record<string, End>) => End[]): () => World {
  return () => {
    const server = {
      range: '192.0.2.100-192.0.2.110',
      lease: 60,
      dns: '192.0.2.53',
      domain: 'isp.example',
      relayed: [{ subnet: '10.1.0.0/24', range: '10.1.0.50-10.1.0.60' }],
    };
    const isp = node(
      1,
      { lan: { addresses: '192.0.2.1/24', dhcp4: { server } } },
      { routes: [{ to: '10.1.0.0/24', via: '192.0.2.9' }] },
    );
    const home = node(3, { wan: { dhcp4: { client: { 'host-name': 'home' } } } });
    const relay = node(2, {
      lan: { addresses: '10.1.0.1/24', dhcp4: { relay: { to: '192.0.2.1', 'circuit-id': 'eth 0/1' } } },
      up: { addresses: '192.0.2.9/24' },
    });
    const ends = { isp: isp.end('lan'), home: home.end('wan'), lan: relay.end('lan'), up: relay.end('up') };
    return {
      routers: relayed ? [isp.router, home.router, relay.router] : [isp.router, home.router],
      cables: relayed
        ? [
            [ends.home, ends.lan],
            [ends.up, ends.isp],
          ]
        : [[ends.home, ends.isp]],
      hit: hits(ends),
      stir: (random) => shake(random, [ends.home, ends.isp], () => {}),
      check: () => atMost('addresses of a client', [...home.router.control.addresses].length, 8),
    };
  };
}

// --- router discovery, neighbours -------------------------------------------------------------------------------------

/** gate ── host: a router that announces itself, and one that listens; `lookFor` is asked for by pings through the host. */
function discovery(hits: (ends: Record<string, End>) => End[]): () => World {
  return () => {
    const ra = {
      default: 'always',
      'min-interval': 3,
      'max-interval': 4,
      rdnss: 'router',
      dnssl: 'home.example',
      routes: [{ to: '2001:db8:77::/48' }],
    };
    const gate = node(1, { lan: { addresses: ['2001:db8:1::1/64', '2001:db8:2::1/64'], ra } });
    const host = node(3, {
      wan: { 'accept-ra': { temporary: true } },
      lan: { addresses: '2001:db8:3::1/64' },
    });
    const ends = { gate: gate.end('lan'), host: host.end('wan') };
    return {
      routers: [gate.router, host.router],
      cables: [[ends.gate, ends.host]],
      hit: hits(ends),
      stir: (random) =>
        shake(random, [ends.gate, ends.host], () => {
          // Somebody behind the host asks for a neighbour that is there, and for one that is not.
          const dst = random.pick(['2001:db8:1::1', `2001:db8:1::${random.int(2, 9999)}`]);
          const ping = B.ipv6({ src: '2001:db8:3::9', dst }, B.icmpv6({ type: 128, id: 1, seq: 1 }, 'ping'));
          host.router.inject('lan', B.ethernet({ src: '02:00:00:00:00:09', dst: '02:00:00:00:03:02' }, ping));
          host.router.take('lan');
        }),
      check: () => {
        // Sixteen prefixes, each with an address and up to a few temporary ones.
        atMost('addresses of a host', [...host.router.control.addresses].length, 160);
        host.router.take('lan');
      },
    };
  };
}

// --- names ------------------------------------------------------------------------------------------------------------

const SERVER = '192.0.2.53';
const HOST = '192.168.1.10';

/** A scripted host asks the forwarder, a scripted server answers it; both say what they say changed, or not. */
function dns(): Target {
  const lan = { mac: '02:00:00:00:01:01', peer: '02:00:00:00:00:10' };
  const wan = { mac: '02:00:00:00:01:02', peer: '02:00:00:00:00:fe' };
  const make = () =>
    node(
      1,
      { lan: { addresses: '192.168.1.1/24' }, wan: { addresses: '192.0.2.1/24' } },
      {
        dns: { servers: SERVER, ports: ['lan'] },
        neighbors: [
          { port: 'lan', ip: HOST, mac: lan.peer },
          { port: 'wan', ip: SERVER, mac: wan.peer },
        ],
      },
    ).router;
  let router: Router | null = null;
  let inputs = 0;
  const captured = captures()
    .filter(isUdp(53))
    .map((frame) => frame.slice(messageAt(frame)));
  const types = ['A', 'AAAA', 'PTR', 'TXT', 'SOA', 'MX', 'SRV', 'CNAME'] as const;
  const udpOf = (frame: Uint8Array, dport: number) =>
    B.get16(frame, 12) === ETHERTYPE_IPV4 && frame[23] === B.PROTO_UDP && B.get16(frame, dport === 53 ? 36 : 34) === 53;
  return {
    name: 'dns',
    run(random) {
      if (router === null || inputs++ % LIFE === 0) router = make();
      const name = random.pick([
        'a.example',
        'b.example',
        `${random.next()}.example`,
        '10.1.168.192.in-addr.arpa',
        '.',
      ]);
      const asked = encode({
        type: 'query',
        id: random.int(0, 65535),
        flags: 0x0100,
        questions: [{ name, type: random.pick(types) as 'A', class: 'IN' }],
        additionals: random.chance(0.5) ? [{ type: 'OPT', name: '.', udpPayloadSize: 1400, flags: 0 } as never] : [],
      });
      const question = random.chance(0.6) ? asked : mutateBytes(random, [asked, ...captured], 1200);
      const ports = { sport: random.int(1024, 65535), dport: 53 };
      const ask = B.ipv4({ src: HOST, dst: '192.168.1.1' }, B.udp(ports, question));
      router.inject('lan', B.ethernet({ src: lan.peer, dst: lan.mac }, ask));
      for (const frame of router.take('wan').filter((one) => udpOf(one, 53))) {
        const faults = B.verify(frame);
        if (faults.length > 0) throw new Error(`a question: ${faults.join('; ')}`);
        const query = decode(Buffer.from(frame.subarray(42)));
        const ttl = random.pick([0, 1, 300, 0xffffffff]);
        const owner = query.questions?.[0]?.name ?? name;
        const answers = [
          { type: 'CNAME' as const, name: owner, data: 'c.example', ttl },
          { type: 'A' as const, name: 'c.example', data: '198.51.100.7', ttl },
        ];
        const authorities = [
          {
            type: 'SOA' as const,
            name: 'example',
            ttl,
            data: { mname: 'a', rname: 'b', serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 60 },
          },
        ];
        const more = random.chance(0.5) ? { answers } : { authorities };
        const flags = random.pick([0x0180, 0x0380, 0x0183, 0x0182]);
        const right = encode({ type: 'response', id: query.id, flags, questions: query.questions, ...more });
        const said = random.chance(0.3) ? right : mutateBytes(random, [right, right, ...captured], 1400);
        const answer = B.udp({ sport: 53, dport: B.get16(frame, 34) }, said);
        router.inject(
          'wan',
          B.ethernet({ src: wan.peer, dst: wan.mac }, B.ipv4({ src: SERVER, dst: '192.0.2.1' }, answer)),
        );
      }
      router.advance(random.pick([0, 10, 100, 1000, 10_000]));
      const answers = router.take('lan').filter((one) => udpOf(one, 0));
      // One for this question; and for those that waited until now, a failure or what came for another.
      atMost('answers', answers.length, 64);
      for (const frame of answers) {
        const faults = B.verify(frame);
        if (faults.length > 0) throw new Error(`an answer: ${faults.join('; ')}`);
        if ((frame[44] & 0x80) === 0) throw new Error('an answer without QR');
      }
      router.take('wan');
    },
  };
}

const DHCP6 = [isUdp(546, 547), [0, 4, 4, 34]] as const;
const DHCP4 = [isUdp(67, 68), [0, 8, 240, 240]] as const;
const RA = [isIcmp6(133, 134), [0, 4, 16]] as const;
const ND = [isIcmp6(133, 134, 135, 136, 137), [0, 4, 8, 24]] as const;

export const TALKS: Readonly<Record<string, () => Target>> = {
  'dhcp6-client': () =>
    talk(
      'dhcp6-client',
      dhcp6('nothing', ({ cpe }) => [cpe]),
      ...DHCP6,
    ),
  'dhcp6-server': () =>
    talk(
      'dhcp6-server',
      dhcp6('nothing', ({ isp }) => [isp]),
      ...DHCP6,
    ),
  'dhcp6-relay': () =>
    talk(
      'dhcp6-relay',
      dhcp6('relay', ({ lan, dc, isp }) => [lan, dc, isp]),
      ...DHCP6,
    ),
  'dhcp6-ldra': () =>
    talk(
      'dhcp6-ldra',
      dhcp6('ldra', ({ lan, dc }) => [lan, dc]),
      ...DHCP6,
    ),
  'dhcp4-client': () =>
    talk(
      'dhcp4-client',
      dhcp4(false, ({ home }) => [home]),
      ...DHCP4,
    ),
  'dhcp4-server': () =>
    talk(
      'dhcp4-server',
      dhcp4(false, ({ isp }) => [isp]),
      ...DHCP4,
    ),
  'dhcp4-relay': () =>
    talk(
      'dhcp4-relay',
      dhcp4(true, ({ lan, up, isp }) => [lan, up, isp]),
      ...DHCP4,
    ),
  'ra-receiver': () =>
    talk(
      'ra-receiver',
      discovery(({ host }) => [host]),
      ...RA,
    ),
  'ra-sender': () =>
    talk(
      'ra-sender',
      discovery(({ gate }) => [gate]),
      ...RA,
    ),
  nd: () =>
    talk(
      'nd',
      discovery(({ gate, host }) => [gate, host]),
      ...ND,
    ),
  dns,
};
