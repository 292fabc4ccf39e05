/**
 * RFC 7766 (DNS over TCP) and RFC 9293 (TCP) of the router's own endpoint: hosts that ask by TCP, servers that are asked by TCP
 * when their answer was truncated; both families, against a naive TCP, and over links that lose, repeat and reorder.
 */
import { decode, encode } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import type { DnsForwarder } from '../../controlplane/dns/forwarder.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { EARLY, SynCookies } from '../../controlplane/tcp/cookies.ts';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';
import { NaiveTcp } from '../lib/naive-tcp.ts';

const HOSTS = Object.fromEntries(
  Array.from({ length: 400 }, (_, n) => [`h${n}.home.arpa`, [`10.0.${n >> 8}.${n & 255}`]]),
);

function make(dns: Record<string, unknown> = {}, extra: Record<string, unknown> = {}): Router {
  const section = { servers: H.GATE, ports: ['lan'], domain: 'home.arpa', hosts: HOSTS, ...dns };
  const config = H.homeConfig({ dns: section, ...extra });
  return createRouter(config, { unasked: true, slots: { small: 1024, large: 4 } });
}
const forwarder = (r: Router) => r.control.protocols.find((p) => p.name === 'dns') as DnsForwarder;

const query = (name: string, id = 77) =>
  encode({ type: 'query', id, flags: 0x0100, questions: [{ name, type: 'A', class: 'IN' }] });
const framed = (message: Uint8Array) => B.concat(Uint8Array.of(message.length >> 8, message.length & 255), message);

/** Whole messages of a stream. */
function messages(bytes: Uint8Array): ReturnType<typeof decode>[] {
  const list: ReturnType<typeof decode>[] = [];
  for (let at = 0; at + 2 <= bytes.length && at + 2 + B.get16(bytes, at) <= bytes.length; at += 2 + B.get16(bytes, at))
    list.push(decode(Buffer.from(bytes.subarray(at + 2))));
  return list;
}

interface Faults {
  random: B.Random;
  lose: number;
  repeat: number;
  delay: number;
}

/** Peers on the router's two links, which may be bad; time goes in steps of 10 ms. */
class World {
  readonly router: Router;
  readonly peers: { peer: NaiveTcp; port: 'lan' | 'wan' }[] = [];
  readonly faults: Faults | null;
  /** UDP questions that left the WAN. */
  asked: { src: string; sport: number; message: ReturnType<typeof decode> }[] = [];
  /** A SYN to a server's port 53: makes its peer. */
  accept: ((seen: H.Seen) => NaiveTcp) | null = null;
  segments = 0;
  private readonly queue: { at: number; run: () => void }[] = [];

  constructor(router: Router, faults: Faults | null = null) {
    this.router = router;
    this.faults = faults;
  }

  private carry(run: () => void): void {
    const f = this.faults;
    if (f === null) {
      this.queue.push({ at: this.router.now, run });
      return;
    }
    const copies = f.random.int(0, 99) < f.repeat ? 2 : 1;
    for (let n = 0; n < copies; n++)
      if (f.random.int(0, 99) >= f.lose) this.queue.push({ at: this.router.now + f.random.int(0, f.delay), run });
  }

  emit(port: 'lan' | 'wan'): (packet: Uint8Array) => void {
    const macs = port === 'lan' ? { src: H.HOST_MAC, dst: H.LAN_MAC } : { src: H.GATE_MAC, dst: H.WAN_MAC };
    return (packet) => this.carry(() => this.router.inject(port, B.ethernet(macs, packet)));
  }

  host(ourPort: number, family: 4 | 6 = 4, us = family === 4 ? H.HOST : H.HOST6): NaiveTcp {
    const them = family === 4 ? H.ROUTER_LAN : H.ROUTER_LAN6;
    const peer = new NaiveTcp({ us, them, ourPort, theirPort: 53 }, 1000 * ourPort, this.emit('lan'));
    this.peers.push({ peer, port: 'lan' });
    return peer;
  }

  server(seen: H.Seen): NaiveTcp {
    const ends = { us: seen.dst, them: seen.src, ourPort: 53, theirPort: seen.sport };
    const peer = new NaiveTcp(ends, 0xfffffff0, this.emit('wan'));
    this.peers.push({ peer, port: 'wan' });
    return peer;
  }

  run(milliseconds: number, until: () => boolean = () => false): void {
    for (let t = 0; t < milliseconds && !until(); t += 10) {
      for (let rounds = 0; rounds < 50; rounds++) {
        const due = this.queue.filter(({ at }) => at <= this.router.now);
        for (const item of due) this.queue.splice(this.queue.indexOf(item), 1);
        for (const item of due) item.run();
        if (!this.deliver() && due.length === 0) break;
      }
      for (const { peer } of this.peers) peer.tick(this.router.now);
      this.router.advance(10);
    }
  }

  private deliver(): boolean {
    let any = false;
    for (const port of ['lan', 'wan'] as const)
      for (const frame of this.router.take(port)) {
        const problems = B.verify(frame);
        if (problems.length > 0) throw new Error(problems.join());
        const seen = H.see(frame);
        any = true;
        if (seen.proto === 6) this.segments++;
        if (seen.proto === 17 && port === 'wan')
          this.asked.push({ src: seen.src, sport: seen.sport, message: decode(Buffer.from(seen.l4.subarray(8))) });
        if (seen.proto !== 6) continue;
        let found = this.peers.find(
          (p) =>
            p.peer.ends.ourPort === seen.dport &&
            p.peer.ends.them === seen.src &&
            p.peer.ends.us === seen.dst &&
            p.peer.ends.theirPort === seen.sport,
        );
        if (found === undefined && port === 'wan' && this.accept !== null && (seen.l4[13] & 2) !== 0) {
          this.accept(seen);
          found = this.peers.at(-1);
        }
        const peer = found?.peer;
        if (peer !== undefined) this.carry(() => peer.segment(this.router.now, seen.l4));
      }
    return any;
  }
}

const MANY = Array.from({ length: 200 }, (_, n) => ({
  type: 'A' as const,
  name: 'big.example',
  data: `198.51.100.${n}`,
  ttl: 300,
}));

/** The server answers by UDP that it is truncated. */
function answerTruncated(w: World): void {
  const { src, sport, message } = w.asked.shift() as World['asked'][0];
  const reply = encode({ type: 'response', id: message.id, flags: 0x0380, questions: message.questions });
  const udp = B.udp({ sport: 53, dport: sport }, reply);
  w.emit('wan')(src.includes(':') ? B.ipv6({ src: H.GATE6, dst: src }, udp) : B.ipv4({ src: H.GATE, dst: src }, udp));
}

/** And the whole by TCP, to every question that has come and is not answered. */
function answerStream(peer: NaiveTcp): void {
  for (const { id, questions } of messages(peer.received).slice(answered.get(peer) ?? 0)) {
    answered.set(peer, (answered.get(peer) ?? 0) + 1);
    peer.write(framed(encode({ type: 'response', id, flags: 0x0180, questions, answers: MANY })));
  }
}
const answered = new Map<NaiveTcp, number>();

describe('hosts that ask by TCP', () => {
  for (const family of [4, 6] as const)
    it(`IPv${family}: pipelined questions are all answered on the connection, which ends when the host has said all`, () => {
      const w = new World(make());
      const host = w.host(4000, family);
      host.connect(0);
      for (let n = 0; n < 300; n++) host.write(framed(query(`h${n}.home.arpa`, n)));
      host.end();
      w.run(20_000, () => host.over);
      const got = messages(host.received);
      expect(got.map(({ id }) => id)).toEqual(Array.from({ length: 300 }, (_, n) => n));
      expect(got[299].answers).toMatchObject([{ data: '10.0.1.43' }]);
      expect([host.over, host.reset]).toEqual([true, false]);
      w.run(100);
      // last-ack → closed: nothing is kept.
      expect(forwarder(w.router).streams.endpoint.size).toBe(0);
      expect(forwarder(w.router).streams.counters.queries).toBe(300);
    });

  it('what comes byte by byte is one question; §8: the length may come in a segment of its own', () => {
    const w = new World(make());
    const host = w.host(4000);
    host.size = 1;
    host.connect(0);
    host.write(framed(query('h7.home.arpa')));
    w.run(2000, () => host.received.length > 0);
    expect(messages(host.received)).toMatchObject([{ id: 77, answers: [{ data: '10.0.0.7' }] }]);
  });

  it('an answer of a server that is not truncated reaches a host on TCP too; answers come as they are known', () => {
    const w = new World(make());
    const host = w.host(4000);
    host.connect(0);
    host.write(framed(query('far.example', 1)));
    host.write(framed(query('h1.home.arpa', 2)));
    w.run(300);
    expect(messages(host.received).map(({ id }) => id)).toEqual([2]);
    const { src, sport, message } = w.asked[0];
    const reply = encode({
      type: 'response',
      id: message.id,
      flags: 0x0180,
      questions: message.questions,
      answers: [{ ...MANY[0], name: 'far.example' }],
    });
    w.emit('wan')(B.ipv4({ src: H.GATE, dst: src }, B.udp({ sport: 53, dport: sport }, reply)));
    w.run(300);
    expect(messages(host.received).map(({ id }) => id)).toEqual([2, 1]);
  });

  it('§6.2.3: a connection that asks nothing for 10 s is closed, and forgotten after its time', () => {
    const w = new World(make());
    const host = w.host(4000);
    host.connect(0);
    host.write(framed(query('h1.home.arpa')));
    w.run(9500);
    expect(host.over).toBe(false);
    w.run(1000);
    expect(host.over).toBe(true);
    host.end();
    w.run(100);
    const { endpoint, counters } = forwarder(w.router).streams;
    expect([counters.idle, [...endpoint.connections()].map(({ state }) => state)]).toEqual([1, ['time-wait']]);
    w.run(61_000);
    expect(endpoint.size).toBe(0);
    // What is left to wait for is the daily forgetting of what is over.
    expect(forwarder(w.router).next(w.router.now)).toBeGreaterThan(60_000);
  });

  it('a host that takes no answers is probed and then dropped; it does not make the router keep more than it should', () => {
    const w = new World(make());
    const host = w.host(4000);
    host.window = 0;
    host.connect(0);
    for (let n = 0; n < 2000; n++) host.write(framed(query(`h${n % 400}.home.arpa`, n)));
    let most = 0;
    for (let t = 0; t < 60 && !host.reset; t++) {
      w.run(1000);
      for (const one of forwarder(w.router).streams.endpoint.connections()) most = Math.max(most, one.unsent);
    }
    expect(host.reset).toBe(true);
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThan(140_000);
    expect(forwarder(w.router).streams.endpoint.size).toBe(0);
  });

  it('a window that opens again is used: nothing is lost of what waited', () => {
    const w = new World(make());
    const host = w.host(4000);
    host.window = 0;
    host.connect(0);
    for (let n = 0; n < 20; n++) host.write(framed(query(`h${n}.home.arpa`, n)));
    w.run(4000);
    // Only the one byte of each probe.
    expect(host.received.length).toBeLessThan(6);
    host.window = 65535;
    w.run(10_000, () => messages(host.received).length === 20);
    expect(messages(host.received).map(({ id }) => id)).toEqual(Array.from({ length: 20 }, (_, n) => n));
  });
});

describe('servers that are asked by TCP', () => {
  it('§5: a truncated answer is asked for again by TCP, once for all who wait, and the whole is kept', () => {
    const w = new World(make());
    w.accept = (seen) => w.server(seen);
    const first = w.host(4000);
    const second = w.host(4001);
    for (const host of [first, second]) {
      host.connect(0);
      host.write(framed(query('big.example', host.ends.ourPort)));
    }
    w.run(100);
    expect(w.asked.length).toBe(1);
    answerTruncated(w);
    w.run(100);
    const server = w.peers.find(({ port }) => port === 'wan')?.peer as NaiveTcp;
    answerStream(server);
    w.run(1000);
    for (const host of [first, second]) expect(messages(host.received)[0].answers?.length).toBe(200);
    const third = w.host(4002);
    third.connect(w.router.now);
    third.write(framed(query('big.example', 9)));
    w.run(1000);
    expect(messages(third.received)[0].answers?.length).toBe(200);
    expect(w.asked).toEqual([]);
    expect(forwarder(w.router).counters).toMatchObject({ truncated: 1, streamed: 1, forwarded: 1, hits: 1 });
    // The router has closed the connection to the server once nothing was asked on it any more, and its port with it.
    w.run(3000);
    expect(server.over).toBe(true);
    server.end();
    w.run(61_000);
    expect(w.router.tables.hasService(6, server.ends.theirPort)).toBe(false);
  });

  it('§6.2.1: questions at one time share one connection', () => {
    const w = new World(make());
    w.accept = (seen) => w.server(seen);
    const host = w.host(4000);
    host.connect(0);
    for (let n = 0; n < 5; n++) host.write(framed(query(`b${n}.example`, n)));
    w.run(100);
    for (let n = 0; n < 5; n++) answerTruncated(w);
    w.run(100);
    const servers = w.peers.filter(({ port }) => port === 'wan');
    expect(servers.length).toBe(1);
    expect(messages(servers[0].peer.received).length).toBe(5);
  });

  it('is asked by TCP from the address that the policy table chooses, as by UDP', () => {
    const own = '2001:db8:ffff::2';
    const { ports } = H.homeConfig() as { ports: Record<string, Record<string, unknown>> };
    const policy = [own, H.GATE6].map((address) => ({ prefix: `${address}/128`, precedence: 40, label: 99 }));
    const router = make(
      { servers: H.GATE6 },
      {
        ports: {
          ...ports,
          wan: { ...ports.wan, addresses: [`${H.ROUTER_WAN}/24`, `${H.ROUTER_WAN6}/64`, `${own}/64`] },
        },
        'address-selection': { policy },
      },
    );
    const w = new World(router);
    w.accept = (seen) => w.server(seen);
    w.run(3000);
    w.emit('lan')(B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, B.udp({ sport: 9, dport: 53 }, query('big.example'))));
    w.run(100);
    expect(w.asked.map(({ src }) => src)).toEqual([own]);
    answerTruncated(w);
    w.run(100);
    expect(w.peers.map(({ peer }) => peer.ends.them)).toEqual([own]);
  });

  it('where NAT gives the router’s own connections another address, the server’s segments were nobody’s', () => {
    const w = new World(make({}, { nat: { masquerade: [{ out: 'wan', to: '203.0.113.5' }] } }));
    w.accept = (seen) => w.server(seen);
    const host = w.host(4000);
    host.connect(0);
    host.write(framed(query('big.example', 5)));
    w.run(100);
    expect(w.asked.map(({ src }) => src)).toEqual(['203.0.113.5']);
    answerTruncated(w);
    w.run(100);
    const server = w.peers.find(({ port }) => port === 'wan')?.peer as NaiveTcp;
    expect(server.ends.them).toBe('203.0.113.5');
    answerStream(server);
    w.run(1000);
    expect(messages(host.received)[0].answers?.length).toBe(200);
  });

  it('a forwarder that is made anew leaves no port of its questions open', () => {
    const w = new World(make());
    w.accept = (seen) => w.server(seen);
    for (const name of ['a.example', 'b.example'])
      w.emit('lan')(B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, B.udp({ sport: 9, dport: 53 }, query(name))));
    w.run(100);
    answerTruncated(w);
    w.run(100);
    const [udp, tcp] = [w.asked[0].sport, w.peers[0].peer.ends.theirPort];
    const open = () => [w.router.tables.hasService(17, udp), w.router.tables.hasService(6, tcp)];
    expect(open()).toEqual([true, true]);
    w.router.restart('management');
    expect(open()).toEqual([false, false]);
    expect([6, 17].map((proto) => w.router.tables.hasService(proto, 53))).toEqual([true, true]);
  });

  it('a server without TCP: a host on UDP hears that it is truncated, one on TCP that it failed', () => {
    for (const refusal of ['reset', 'silence']) {
      const w = new World(make());
      w.accept = (seen) => {
        const peer = w.server(seen);
        peer.segment = () => {};
        if (refusal === 'reset') peer.send('RA', 0, (B.get32(seen.l4, 4) + 1) >>> 0, new Uint8Array(0));
        return peer;
      };
      const host = w.host(4000);
      host.connect(0);
      host.write(framed(query('big.example', 5)));
      w.emit('lan')(
        B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, B.udp({ sport: 9, dport: 53 }, query('big.example', 6))),
      );
      w.run(100);
      answerTruncated(w);
      w.run(refusal === 'reset' ? 200 : 6000);
      expect(messages(host.received).map((m) => (m as { rcode?: string }).rcode)).toEqual(['SERVFAIL']);
      expect(forwarder(w.router).counters.streamed).toBe(0);
      w.run(70_000);
      // What is left to wait for is the daily forgetting of what is over.
      expect(forwarder(w.router).next(w.router.now)).toBeGreaterThan(60_000);
    }
  });
});

describe('bad links and bad peers', () => {
  for (const [seed, family] of [
    [1, 4],
    [2, 6],
    [3, 4],
    [4, 6],
  ] as const)
    it(`one in ten lost, some repeated, all reordered (seed ${seed}, IPv${family}): every answer is there, each once`, () => {
      const random = new B.Random(seed);
      const w = new World(make(), { random, lose: 10, repeat: 5, delay: 60 });
      w.accept = (seen) => w.server(seen);
      const host = w.host(4000 + seed, family);
      host.size = 400;
      host.connect(0);
      const names = Array.from({ length: 120 }, (_, n) =>
        n === 60 ? 'big.example' : `h${random.int(0, 399)}.home.arpa`,
      );
      for (const [n, name] of names.entries()) host.write(framed(query(name, n)));
      for (let t = 0; t < 300 && messages(host.received).length < 120; t++) {
        w.run(200);
        // The server says the same to every repetition of the question.
        if (w.asked.length > 0) answerTruncated(w);
        for (const { peer, port } of w.peers) if (port === 'wan') answerStream(peer);
      }
      const got = messages(host.received);
      expect(got.map(({ id }) => id).sort((a, b) => (a ?? 0) - (b ?? 0))).toEqual(
        Array.from({ length: 120 }, (_, n) => n),
      );
      for (const { id, answers } of got) {
        const name = names[id ?? 0];
        if (name !== 'big.example') expect(answers).toMatchObject([{ data: HOSTS[name][0] }]);
      }
      host.end();
      w.run(80_000, () => forwarder(w.router).streams.endpoint.size === 0);
      expect(forwarder(w.router).streams.endpoint.size).toBe(0);
    });

  it('RFC 4987: a flood of SYNs takes no memory, and hosts are served meanwhile', () => {
    const w = new World(make());
    const random = new B.Random(5);
    for (let n = 0; n < 3000; n++) {
      const src = `192.168.1.${random.int(20, 250)}`;
      const syn = B.tcp({ sport: random.int(1024, 65535), dport: 53, seq: random.next(), flags: 'S' });
      w.emit('lan')(B.ipv4({ src, dst: H.ROUTER_LAN }, syn));
    }
    const host = w.host(4000);
    host.connect(0);
    host.write(framed(query('h3.home.arpa')));
    w.run(1000);
    expect(messages(host.received).length).toBe(1);
    expect(forwarder(w.router).streams.endpoint.size).toBe(1);
    expect(forwarder(w.router).streams.endpoint.counters.syns).toBeGreaterThan(2000);
  });

  it('one host may have 16 connections; the next is refused, those of others are not', () => {
    const w = new World(make());
    const hosts = Array.from({ length: 18 }, (_, n) => w.host(4000 + n));
    for (const host of hosts) {
      host.connect(0);
      host.write(framed(query('h1.home.arpa')));
    }
    w.run(500);
    expect(hosts.filter(({ reset }) => reset).length).toBe(2);
    const other = w.host(5000, 4, H.HOST2);
    other.connect(w.router.now);
    other.write(framed(query('h2.home.arpa')));
    w.run(500);
    expect(messages(other.received).length).toBe(1);
    expect(forwarder(w.router).streams.endpoint.counters.refused).toBeGreaterThanOrEqual(2);
  });

  it('RFC 5961: a reset or SYN that is not exactly right ends nothing', () => {
    const w = new World(make());
    const host = w.host(4000);
    host.connect(0);
    host.write(framed(query('h1.home.arpa', 1)));
    w.run(300);
    const seq = (4_000_000 + 1 + host.received.length * 0 + framed(query('h1.home.arpa', 1)).length) >>> 0;
    host.send('R', seq + 100, 0, new Uint8Array(0));
    host.send('S', seq + 50, 0, new Uint8Array(0));
    w.run(300);
    host.write(framed(query('h2.home.arpa', 2)));
    w.run(1500);
    expect(messages(host.received).map(({ id }) => id)).toEqual([1, 2]);
    expect(forwarder(w.router).streams.endpoint.counters.resets).toBe(0);
    host.send('R', (seq + framed(query('h2.home.arpa', 2)).length) >>> 0, 0, new Uint8Array(0));
    w.run(300);
    expect(forwarder(w.router).streams.endpoint.counters.resets).toBe(1);
    expect(forwarder(w.router).streams.endpoint.size).toBe(0);
  });

  it('a message too short to be one, an answer, and noise end the connection or get FORMERR; nothing throws', () => {
    const random = new B.Random(9);
    const w = new World(make());
    for (const bad of [Uint8Array.of(0, 3, 1, 2, 3), framed(encode({ type: 'response', id: 1, questions: [] }))]) {
      const host = w.host(random.int(2000, 60000));
      host.connect(w.router.now);
      host.write(bad);
      w.run(300);
      expect(host.reset).toBe(true);
    }
    for (let n = 0; n < 150; n++) {
      const host = w.host(2000 + n);
      host.connect(w.router.now);
      const noise = Buffer.from(framed(query('h1.home.arpa')));
      for (let k = random.int(1, 6); k > 0; k--) noise[random.int(0, noise.length - 1)] = random.int(0, 255);
      host.write(noise);
      w.run(30);
      if (n % 16 === 15) w.run(11_000);
    }
    w.run(30_000);
    // Segments of any flags and numbers to the port, without a connection and in the middle of one.
    const host = w.host(3999);
    host.connect(w.router.now);
    w.run(50);
    for (let n = 0; n < 1000; n++) {
      const flags = random.int(0, 255) & ~4;
      const tcp = B.tcp(
        {
          sport: n % 2 === 0 ? 3999 : random.int(1024, 65535),
          dport: 53,
          seq: random.next(),
          ack: random.next(),
          flags,
        },
        new Uint8Array(random.int(0, 40)),
      );
      w.emit('lan')(B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, tcp));
    }
    w.run(1000);
    host.write(framed(query('h9.home.arpa')));
    w.run(3000);
    expect(messages(host.received).length).toBe(1);
    w.run(90_000);
    expect(forwarder(w.router).streams.endpoint.size).toBe(0);
  });

  it('who may not ask by UDP may not by TCP: not even a SYN is answered', () => {
    const config = H.homeConfig({ zones: {}, dns: { servers: H.GATE, ports: ['lan'] } });
    const w = new World(createRouter(config, { unasked: true, slots: { small: 256, large: 4 } }));
    w.emit('wan')(B.ipv4({ src: H.GATE, dst: H.ROUTER_WAN }, B.tcp({ sport: 9, dport: 53, flags: 'S' })));
    w.run(100);
    expect(w.segments).toBe(0);
  });
});

describe('SYN cookies', () => {
  const ends = {
    family: 4 as const,
    us: [1, 0, 0, 0] as const,
    them: [2, 0, 0, 0] as const,
    ourPort: 53,
    theirPort: 4000,
  };

  it('come back with the segment size, for one to two minutes, and for nobody else', () => {
    const cookies = new SynCookies();
    for (const [mss, kept] of [
      [0, 536],
      [536, 536],
      [1219, 1024],
      [1440, 1440],
      [9000, 1460],
    ]) {
      const cookie = cookies.make(0, ends, 5, mss);
      expect(cookies.check(65_000, ends, 5, cookie)).toBe(kept);
      expect(cookies.check(140_000, ends, 5, cookie)).toBe(0);
      expect(cookies.check(0, ends, 6, cookie)).toBe(EARLY);
      expect(cookies.check(0, { ...ends, theirPort: 4001 }, 5, cookie)).toBe(0);
      expect(cookies.check(0, { ...ends, them: [3, 0, 0, 0] }, 5, cookie)).toBe(0);
      expect(new SynCookies().check(0, ends, 5, cookie)).toBe(0);
    }
  });

  it('a guess is right once in 2^24', () => {
    const cookies = new SynCookies();
    const random = new B.Random(1);
    let right = 0;
    for (let n = 0; n < 5000; n++) if (cookies.check(0, ends, 5, random.next() | 0) > 0) right++;
    expect(right).toBe(0);
  });
});
