/**
 * DNS forwarder: answers the hosts of the LAN from its cache, its own names, or a server of the provider (RFC 5625).
 *
 * What RFC 5625 asks of such a proxy: it passes on what it does not understand, types and flags included; answers from
 * the address that was asked; speaks EDNS0; says TC instead of cutting. Against forged answers (RFC 5452): every question
 * goes out with an identifier and a source port of its own, and an answer counts only from the server asked, to that
 * port, with that identifier and that question. Equal questions wait for one answer. Servers without EDNS0 are asked
 * without it (edns.ts).
 *
 * Servers come from the configuration, else from whoever learned them: the events of DHCP, DHCPv6 and router discovery. IPv4
 * servers may tell of AAAA and IPv6 ones of A: the family of the transport says nothing.
 *
 * Own names: the configuration's hosts, and hosts that told the DHCP server their name. Reverse zones of private addresses
 * never leave the house (RFC 6303).
 *
 * What was learned of servers and hosts outlives the domain (action `keep`): nobody would tell it again for hours.
 *
 * By TCP too (streams.ts): hosts may ask so (RFC 7766), and an answer that a server has truncated is asked for again so, once
 * for all who wait for it; what fits the asker's datagram then goes whole.
 *
 * Not here: DNSSEC validation, DNS64.
 */
import { encode } from 'dns-packet';
import { type Address, formatAddress, parseAddress, type Words } from '../../dataplane/wire/address.ts';
import { be16 } from '../../dataplane/wire/bytes.ts';
import { readUdp, udpPacket } from '../datagram.ts';
import type { Addresses, OwnAddress } from '../neighbour/addresses.ts';
import type { Action, Event, KeptValues, Protocol, Told } from '../protocol.ts';
import { type RandomSource, uniform } from '../random.ts';
import { orderDestinations, type PolicyRow, selectSource } from '../select-source.ts';
import { TcpConnection } from '../tcp/connection.ts';
import { TCP } from '../tcp/segment.ts';
import { DnsCache } from './cache.ts';
import { PlainServers } from './edns.ts';
import { isPrivateReverse, LocalNames } from './names.ts';
import { DnsStreams } from './streams.ts';
import * as W from './wire.ts';

export interface DnsConfig {
  /** Ports (numbers) whose hosts are answered. */
  ports: readonly number[];
  /** Servers; empty: those that were learned. */
  servers: readonly Address[];
  /** Answers kept; 0: none. */
  cache: number;
  /** Longest time that an answer is kept, seconds. */
  maxTtl: number;
  /** Domain of the hosts that DHCP knows. */
  domain: string;
  hosts: ReadonlyMap<string, readonly Address[]>;
}

const UDP = 17;
const MAX_PENDING = 1024;
/** Askers that wait for one answer. */
const MAX_WAITING = 64;
const TIMEOUT = 2_000;
/** A whole answer by TCP, from the SYN on. */
const STREAM_TIMEOUT = 5_000;
const ATTEMPTS = 4;
/** RFC 9520 §3.2: a failure is remembered, so that a broken name does not become a flood. */
const FAILURE_TTL = 5;
/** RFC 2308 §5. */
const MAX_NEGATIVE_TTL = 10_800;

/** Events that name resolvers, or take them back. Those of advertisements live as long as they say, not as a router does (RFC 8106 §5.1). */
const LEARNED: readonly string[] = ['dhcp4.bound', 'dhcp4.lost', 'dhcp6.bound', 'dhcp6.information', 'ra.dns'];
/** How often what is over is forgotten, milliseconds. */
const SWEEP_TIME = 86_400_000;

/** Keys of what is kept: servers by who told of them, hosts by their names. */
const KEPT_SERVERS = 'dns-servers ';
const KEPT_NAME = 'dns-name ';

/** A host that told the DHCP server its name: as it is kept. */
interface KeptName {
  address: string;
  seconds: number;
}

/** Who asks by a datagram, or by which connection. */
type From = { port: number; family: 4 | 6; us: Words; them: Words; sport: number } | TcpConnection;

/** Where an answer goes. */
interface Asker {
  query: W.Query;
  original: Uint8Array;
  from: From;
}

interface Pending {
  key: string;
  query: W.Query;
  original: Uint8Array;
  askers: Asker[];
  id: number;
  sport: number;
  server: Address;
  /** It was asked with EDNS0; it has refused that, and is asked without now. */
  edns: boolean;
  refused: boolean;
  deadline: number;
  attempts: number;
  /** The answer that its server has truncated, while the whole one is asked for by TCP; null: none. */
  cut: Uint8Array | null;
}

export interface DnsWays {
  random: RandomSource;
  /** Says whether what comes to a port of the router (6 TCP, 17 UDP) comes here. */
  listen: (proto: typeof TCP | typeof UDP, port: number, on: boolean) => void;
  /** Port that a destination is reached by; −1: there is no route. */
  routeTo: (address: Address) => number;
  /** The policy table of address selection. */
  policy: () => readonly PolicyRow[];
  /** The router's clock now. */
  now: number;
  kept: KeptValues;
}

export class DnsForwarder implements Protocol {
  readonly name = 'dns';
  readonly counters = {
    queries: 0,
    malformed: 0,
    refused: 0,
    hits: 0,
    local: 0,
    forwarded: 0,
    answers: 0,
    forged: 0,
    timeouts: 0,
    failures: 0,
    overload: 0,
    truncated: 0,
    streamed: 0,
  };
  readonly streams: DnsStreams;
  readonly cache: DnsCache;
  private readonly addresses: Addresses;
  private readonly config: DnsConfig;
  private readonly ways: DnsWays;
  private readonly names: LocalNames;
  private readonly plain = new PlainServers();
  private readonly pending = new Map<string, Pending>();
  private readonly bySport = new Map<number, Pending>();
  /** Servers by who told of them. */
  private readonly learned = new Map<string, Address[]>();
  /** Which server is asked first. */
  private first = 0;
  private sweptAt: number;

  constructor(addresses: Addresses, config: DnsConfig, ways: DnsWays) {
    this.addresses = addresses;
    this.config = config;
    this.ways = ways;
    this.sweptAt = ways.now;
    this.cache = new DnsCache(config.cache);
    this.names = new LocalNames(config.domain, config.hosts);
    this.streams = new DnsStreams(
      {
        asked: (now, message, connection, out) => this.ask(now, message, connection, out),
        answered: (now, server, message, out) => this.answeredByStream(now, server, message, out),
        lost: (now, server, id, out) => this.streamLost(now, server, id, out),
      },
      ways.random,
      (port, on) => ways.listen(TCP, port, on),
    );
    this.resume();
  }

  /** Takes up what the forwarder before had learned. */
  private resume(): void {
    for (const [key, { value, age }] of this.ways.kept)
      if (key.startsWith(KEPT_SERVERS)) this.learned.set(key.slice(KEPT_SERVERS.length), addressesOf(value));
      else if (key.startsWith(KEPT_NAME)) {
        const { address, seconds } = value as KeptName;
        const left = seconds - Math.floor(age / 1000);
        if (left > 0) this.names.lease(this.ways.now, key.slice(KEPT_NAME.length), address, left);
      }
  }

  /** Gives back the ports that questions were asked from; who waited for an answer asks again. */
  close(): void {
    for (const pending of this.pending.values()) this.closeSport(pending);
    this.streams.close();
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    if (event.kind === 'frame') this.receive(now, event, out);
    else if (event.kind === 'event') this.hear(now, event, out);
    this.expire(now, out);
    this.streams.tick(now, out);
    if (((now - this.sweptAt) | 0) >= SWEEP_TIME) this.sweep(now, out);
    return out;
  }

  next(now: number): number {
    let next = Math.max(0, SWEEP_TIME - ((now - this.sweptAt) | 0));
    const stream = this.streams.next(now);
    if (stream >= 0) next = Math.min(next, stream);
    for (const { deadline } of this.pending.values()) next = Math.min(next, Math.max(0, (deadline - now) | 0));
    return next;
  }

  /** The servers asked now: those of the configuration as written, learned ones by RFC 6724 §6. */
  servers(): Address[] {
    if (this.config.servers.length > 0) return [...this.config.servers];
    const seen = new Map<string, Address>();
    for (const list of this.learned.values())
      for (const server of list) seen.set(formatAddress(server.family, ...server.words), server);
    const table = this.ways.policy();
    return orderDestinations(
      [...seen.values()].map((server) => ({ ...server, source: this.sourceTowards(server, table) })),
      table,
    );
  }

  private sourceTowards(server: Address, table: readonly PolicyRow[]): OwnAddress | undefined {
    const port = this.ways.routeTo(server);
    return port < 0 ? undefined : selectSource(this.addresses, port, server.family, server.words, table);
  }

  private hear(now: number, told: Told, out: Action[]): void {
    const { name, data } = told;
    if (LEARNED.includes(name)) this.learn(name, data, out);
    else if (name === 'dhcp4.released') keepName(this.names.release(String(data.address)), null, out);
    else if (name === 'dhcp4.lease') {
      const value: KeptName = { address: String(data.address), seconds: Number(data.seconds) };
      const { taken, gone } = this.names.lease(now, String(data.hostName), value.address, value.seconds);
      keepName(gone, null, out);
      keepName(taken, value, out);
    }
  }

  private sweep(now: number, out: Action[]): void {
    this.sweptAt = now;
    this.cache.sweep(now);
    this.plain.sweep(now);
    for (const name of this.names.sweep(now)) keepName(name, null, out);
  }

  /** `dhcp4.bound` and `dhcp4.lost` of one port speak of the same servers. */
  private learn(name: string, data: Record<string, unknown>, out: Action[]): void {
    const source = `${name.split('.')[0]} ${String(data.port)}`;
    const list = data.servers ?? data.dns;
    const servers = addressesOf(list);
    out.push({ kind: 'keep', key: `${KEPT_SERVERS}${source}`, value: servers.length === 0 ? null : list });
    const before = this.servers().map(({ words }) => words.join());
    if (servers.length === 0) this.learned.delete(source);
    else this.learned.set(source, servers);
    if (this.servers().some(({ words }) => !before.includes(words.join()))) this.cache.clear();
  }

  private receive(now: number, event: Extract<Event, { kind: 'frame' }>, out: Action[]): void {
    const isAsker = this.config.ports.includes(event.port);
    if (this.streams.receive(now, event, isAsker, out)) return;
    const datagram = readUdp(event.frame, event.etherType, event.l3);
    if (datagram === null) return;
    if (datagram.sport === W.DNS_PORT && this.bySport.has(datagram.dport)) {
      this.answered(now, { family: datagram.family, words: datagram.src }, datagram.dport, datagram.payload, out);
      return;
    }
    if (datagram.dport !== W.DNS_PORT) return;
    if (!isAsker) {
      // RFC 5358: no answers to strangers. Silence, so that nobody else is hit by what we would say.
      this.counters.refused++;
      return;
    }
    const { family, src, dst, sport } = datagram;
    this.ask(now, datagram.payload.slice(), { port: event.port, family, us: dst, them: src, sport }, out);
  }

  private ask(now: number, original: Uint8Array, from: From, out: Action[]): void {
    this.counters.queries++;
    const query = W.readQuery(original);
    if (query === null) {
      this.counters.malformed++;
      this.refuseMalformed(now, original, from, out);
      return;
    }
    const asker: Asker = { query, original, from };
    const { question } = query;
    if ((query.flags & W.OPCODE) !== 0) this.reply(now, asker, W.writeEmpty(query, original, W.NOTIMP), out);
    else if (!this.answerLocally(now, asker, out)) {
      const key = `${question.name} ${question.type} ${question.class} ${query.dnssecOk ? 'do' : ''}${query.flags & W.CD}`;
      const cached = this.cache.get(now, key);
      if (cached !== undefined) {
        this.counters.hits++;
        const age = Math.floor(((now - cached.since) | 0) / 1000);
        this.reply(now, asker, W.adapt(cached.message, query, original, age, this.limit(asker)), out);
      } else this.forward(now, key, asker, out);
    }
  }

  private refuseMalformed(now: number, original: Uint8Array, from: From, out: Action[]): void {
    // Without a header there is nobody to answer; to an answer there is nothing to say. A stream with such a thing ends.
    if (original.length < W.HEADER || (be16(original, 2) & W.QR) !== 0) {
      if (from instanceof TcpConnection) from.abort(out);
      return;
    }
    const empty = new Uint8Array(W.HEADER);
    empty.set(original.subarray(0, 2));
    empty[2] = W.QR >> 8;
    empty[3] = W.FORMERR;
    this.deliver(now, empty, from, out);
  }

  /** Names of the house, and reverse zones that belong into it. */
  private answerLocally(now: number, asker: Asker, out: Action[]): boolean {
    const { query, original } = asker;
    const { name, type } = query.question;
    if (query.question.class !== W.CLASS_IN) return false;
    const answers = this.names.find(now, name, type);
    if (answers === null) {
      if (!isPrivateReverse(name)) return false;
      this.counters.local++;
      this.reply(now, asker, W.writeEmpty(query, original, W.NXDOMAIN), out);
      return true;
    }
    this.counters.local++;
    const message = encode({
      type: 'response',
      id: query.id,
      flags: W.RA | 0x0400 | (query.flags & W.RD),
      answers: answers.map((answer) => ({ ...answer, name, class: 'IN' as const })),
    });
    // The question as it was spelt, then the records that were made for it.
    const head = W.writeEmpty(query, original, W.NOERROR, 0x0400);
    const end = query.question.end;
    const body = message.subarray(W.HEADER);
    const whole = new Uint8Array(head.length + body.length);
    whole.set(head.subarray(0, end));
    whole.set(body, end);
    whole.set(head.subarray(end), end + body.length);
    whole[7] = answers.length;
    this.reply(
      now,
      asker,
      whole.length > this.limit(asker) ? W.writeEmpty(query, original, W.NOERROR, W.TC) : whole,
      out,
    );
    return true;
  }

  private forward(now: number, key: string, asker: Asker, out: Action[]): void {
    const waiting = this.pending.get(key);
    if (waiting !== undefined) {
      if (waiting.askers.length < MAX_WAITING) waiting.askers.push(asker);
      else {
        this.counters.overload++;
        // On a stream an answer is owed to each question; a datagram is asked again.
        if (asker.from instanceof TcpConnection)
          this.reply(now, asker, W.writeEmpty(asker.query, asker.original, W.SERVFAIL), out);
      }
      return;
    }
    const servers = this.servers();
    if (servers.length === 0 || this.pending.size >= MAX_PENDING) {
      if (servers.length > 0) this.counters.overload++;
      this.reply(now, asker, W.writeEmpty(asker.query, asker.original, W.SERVFAIL), out);
      return;
    }
    const pending: Pending = {
      key,
      query: asker.query,
      original: asker.original,
      askers: [asker],
      id: 0,
      sport: 0,
      server: servers[this.first % servers.length],
      edns: true,
      refused: false,
      deadline: now,
      attempts: 0,
      cut: null,
    };
    this.pending.set(key, pending);
    this.counters.forwarded++;
    this.attempt(now, pending, out);
  }

  /** Asks the next server. */
  private attempt(now: number, pending: Pending, out: Action[]): void {
    const servers = this.servers();
    this.closeSport(pending);
    if (pending.attempts >= ATTEMPTS || servers.length === 0) {
      this.fail(now, pending, out);
      return;
    }
    const server = servers[(this.first + pending.attempts) % servers.length];
    pending.attempts++;
    pending.server = server;
    // RFC 6891 §6.2.2: who wants signatures is not asked for without: it would not learn that there are none.
    pending.edns = pending.query.dnssecOk || !this.plain.has(now, server);
    pending.refused = false;
    this.send(now, pending, out);
  }

  /** Sends a question to its server, with a fresh identifier from a fresh port. */
  private send(now: number, pending: Pending, out: Action[]): void {
    const { server } = pending;
    pending.deadline = (now + TIMEOUT) | 0;
    const port = this.ways.routeTo(server);
    const source = this.sourceTowards(server, this.ways.policy());
    if (source === undefined) {
      // No way there now: the next one, without waiting.
      pending.deadline = now;
      return;
    }
    pending.id = this.ways.random() & 0xffff;
    do pending.sport = uniform(this.ways.random, W.FIRST_PORT, W.LAST_PORT);
    while (this.bySport.has(pending.sport));
    this.bySport.set(pending.sport, pending);
    this.ways.listen(UDP, pending.sport, true);
    const payload = W.writeQuery(pending.id, pending.query, pending.original, pending.edns);
    const packet = udpPacket(server.family, source.words, server.words, pending.sport, W.DNS_PORT, payload);
    out.push({ kind: 'output', packet, port });
  }

  private closeSport(pending: Pending): void {
    if (pending.sport === 0) return;
    this.bySport.delete(pending.sport);
    this.ways.listen(UDP, pending.sport, false);
    pending.sport = 0;
  }

  private answered(now: number, from: Address, dport: number, received: Uint8Array, out: Action[]): void {
    const pending = this.bySport.get(dport);
    const isTheirs =
      pending !== undefined &&
      received.length >= W.HEADER &&
      be16(received, 0) === pending.id &&
      isAnswer(received) &&
      from.family === pending.server.family &&
      from.words.every((word, n) => word === pending.server.words[n]);
    const message = isTheirs ? W.withQuestion(received, pending.query, pending.original) : received;
    const question = isTheirs ? W.readQuestion(message) : null;
    if (
      !isTheirs ||
      question === null ||
      !isSameQuestion(question, pending.query.question) ||
      !W.records(message, question.end, () => {})
    ) {
      this.counters.forged++;
      return;
    }
    const rcode = be16(message, 2) & 15;
    if (pending.edns && !pending.query.dnssecOk && W.isRefusal(rcode) && !W.hasOpt(message, question.end)) {
      pending.edns = false;
      pending.refused = true;
      this.closeSport(pending);
      this.send(now, pending, out);
      return;
    }
    // Who understands it without has refused EDNS0, not the question.
    if (pending.refused && !W.isRefusal(rcode)) this.plain.add(now, from);
    if ((rcode === W.SERVFAIL || rcode === W.REFUSED) && pending.attempts < this.servers().length) {
      // Another server may know better.
      this.attempt(now, pending, out);
      return;
    }
    this.closeSport(pending);
    const at = this.servers().findIndex(({ words }) => words.join() === from.words.join());
    if (at >= 0) this.first = at;
    if ((be16(message, 2) & W.TC) === 0) this.complete(now, pending, message.slice(), out);
    else {
      this.counters.truncated++;
      pending.cut = message.slice();
      this.askByStream(now, pending, out);
    }
  }

  /** RFC 7766 §5: what was truncated is asked for again by TCP, of the same server. */
  private askByStream(now: number, pending: Pending, out: Action[]): void {
    const { server } = pending;
    const port = this.ways.routeTo(server);
    const source = this.sourceTowards(server, this.ways.policy());
    pending.id = this.ways.random() & 0xffff;
    pending.deadline = (now + STREAM_TIMEOUT) | 0;
    const message = W.writeQuery(pending.id, pending.query, pending.original, pending.edns);
    if (source === undefined || !this.streams.ask(now, server, source.words, port, message, out))
      this.complete(now, pending, pending.cut as Uint8Array, out);
  }

  private pendingOfStream(server: Address, id: number): Pending | undefined {
    for (const pending of this.pending.values())
      if (pending.cut !== null && pending.id === id && pending.server.words.join() === server.words.join())
        return pending;
    return undefined;
  }

  private answeredByStream(now: number, server: Address, message: Uint8Array, out: Action[]): void {
    const pending = this.pendingOfStream(server, be16(message, 0));
    const question = W.readQuestion(message);
    const isRight =
      pending !== undefined &&
      question !== null &&
      isSameQuestion(question, pending.query.question) &&
      isAnswer(message);
    if (!isRight || !W.records(message, question.end, () => {})) {
      this.counters.forged++;
      return;
    }
    this.counters.streamed++;
    this.complete(now, pending, message, out);
  }

  private streamLost(now: number, server: Address, id: number, out: Action[]): void {
    const pending = this.pendingOfStream(server, id);
    if (pending?.cut) this.complete(now, pending, pending.cut, out);
  }

  /** Keeps an answer, and gives it to all who wait for it. */
  private complete(now: number, pending: Pending, stored: Uint8Array, out: Action[]): void {
    this.pending.delete(pending.key);
    this.counters.answers++;
    const rcode = be16(stored, 2) & 15;
    const isCut = (be16(stored, 2) & W.TC) !== 0;
    if (!isCut) {
      const negative = rcode === W.NXDOMAIN || be16(stored, 6) === 0;
      const seconds = Math.min(
        W.lifetime(stored, pending.query.question.end),
        this.config.maxTtl,
        negative ? MAX_NEGATIVE_TTL : 604_800,
      );
      this.cache.put(now, pending.key, stored, seconds);
    }
    for (const asker of pending.askers) {
      // "Truncated" says "ask by TCP": to who did so it would say nothing.
      const useless = isCut && asker.from instanceof TcpConnection;
      const answer = useless
        ? W.writeEmpty(asker.query, asker.original, W.SERVFAIL)
        : W.adapt(stored, asker.query, asker.original, 0, this.limit(asker));
      this.reply(now, asker, answer, out);
    }
  }

  private expire(now: number, out: Action[]): void {
    for (const pending of [...this.pending.values()]) {
      // A server that cannot be reached is passed over at once; each attempt counts, so that this ends.
      while (this.pending.get(pending.key) === pending && ((pending.deadline - now) | 0) <= 0) {
        if (pending.sport !== 0 || pending.cut !== null) this.counters.timeouts++;
        if (pending.cut !== null) this.complete(now, pending, pending.cut, out);
        else this.attempt(now, pending, out);
      }
    }
  }

  private fail(now: number, pending: Pending, out: Action[]): void {
    this.pending.delete(pending.key);
    this.counters.failures++;
    // Whoever was asked first has had its chance.
    this.first++;
    const { question } = pending.query;
    const failure = W.writeEmpty({ ...pending.query, size: 0 }, pending.original, W.SERVFAIL);
    this.cache.put(now, pending.key, failure.subarray(0, question.end), FAILURE_TTL);
    for (const asker of pending.askers)
      this.reply(now, asker, W.writeEmpty(asker.query, asker.original, W.SERVFAIL), out);
  }

  /** Longest answer that the asker can take (RFC 1035 §4.2.1 and §4.2.2, RFC 6891 §6.2.5). */
  private limit(asker: Asker): number {
    if (asker.from instanceof TcpConnection) return 65535;
    return Math.min(W.UDP_SIZE, Math.max(512, asker.query.size));
  }

  private reply(now: number, asker: Asker, message: Uint8Array, out: Action[]): void {
    this.deliver(now, message, asker.from, out);
  }

  private deliver(now: number, message: Uint8Array, to: From, out: Action[]): void {
    if (to instanceof TcpConnection) {
      this.streams.reply(now, to, message, out);
      return;
    }
    // RFC 5625 §6: from the address and port that were asked.
    const packet = udpPacket(to.family, to.us, to.them, W.DNS_PORT, to.sport, message);
    out.push({ kind: 'output', packet, port: to.port });
  }
}

function keepName(name: string, value: KeptName | null, out: Action[]): void {
  if (name !== '') out.push({ kind: 'keep', key: `${KEPT_NAME}${name}`, value });
}

/** The addresses in a list of texts. */
function addressesOf(list: unknown): Address[] {
  return (Array.isArray(list) ? list : [])
    .map((text) => parseAddress(String(text)))
    .filter((address) => address !== null);
}

function isAnswer(message: Uint8Array): boolean {
  return (be16(message, 2) & W.QR) !== 0;
}

function isSameQuestion(a: W.Question, b: W.Question): boolean {
  return a.name === b.name && a.type === b.type && a.class === b.class;
}
