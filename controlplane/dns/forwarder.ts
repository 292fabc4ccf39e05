/**
 * DNS forwarder: answers the hosts of the LAN from its cache, its own names, or a server of the provider (RFC 5625).
 *
 * What RFC 5625 asks of such a proxy: it passes on what it does not understand, types and flags included; answers from
 * the address that was asked; speaks EDNS0; says TC instead of cutting. Against forged answers (RFC 5452): every question
 * goes out with an identifier and a source port of its own, and an answer counts only from the server asked, to that
 * port, with that identifier and that question. Equal questions wait for one answer.
 *
 * Servers come from the configuration, else from whoever learned them: the events of DHCP, DHCPv6 and router discovery. IPv4
 * servers may tell of AAAA and IPv6 ones of A: the family of the transport says nothing.
 *
 * Own names: the configuration's hosts, and hosts that told the DHCP server their name. Reverse zones of private addresses
 * never leave the house (RFC 6303).
 *
 * Not here: TCP (a stream needs a socket: controlplane/live/dns-tcp.ts), DNSSEC validation, DNS64.
 */
import { encode } from 'dns-packet';
import { type Address, formatAddress, parseAddress, type Words } from '../../dataplane/wire/address.ts';
import { be16 } from '../../dataplane/wire/bytes.ts';
import { readUdp, udpPacket } from '../datagram.ts';
import type { Addresses } from '../neighbour/addresses.ts';
import type { Action, Event, Protocol, Told } from '../protocol.ts';
import { type RandomSource, uniform } from '../random.ts';
import { selectSource } from '../select-source.ts';
import { DnsCache } from './cache.ts';
import { isPrivateReverse, LocalNames } from './names.ts';
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

export const DNS_PORT = 53;
/** Source ports of questions: the dynamic range (RFC 6335 §6). */
const FIRST_PORT = 49152;
const LAST_PORT = 65535;
const MAX_PENDING = 1024;
/** Askers that wait for one answer. */
const MAX_WAITING = 64;
const TIMEOUT = 2_000;
const ATTEMPTS = 4;
/** RFC 9520 §3.2: a failure is remembered, so that a broken name does not become a flood. */
const FAILURE_TTL = 5;
/** RFC 2308 §5. */
const MAX_NEGATIVE_TTL = 10_800;

/** Events that name resolvers, or take them back. */
const LEARNED: readonly string[] = [
  'dhcp4.bound',
  'dhcp4.lost',
  'dhcp6.bound',
  'dhcp6.information',
  'ra.dns',
  'ra.lost',
];

/** Where an answer goes. */
interface Asker {
  query: W.Query;
  original: Uint8Array;
  /** Null: by event, to `tag`. */
  to: { port: number; family: 4 | 6; us: Words; them: Words; sport: number } | null;
  tag: string;
}

interface Pending {
  key: string;
  query: W.Query;
  original: Uint8Array;
  askers: Asker[];
  id: number;
  sport: number;
  server: Address;
  deadline: number;
  attempts: number;
}

export interface DnsWays {
  random: RandomSource;
  /** Says whether answers to a port of the router come here. */
  listen: (port: number, on: boolean) => void;
  /** Port that a destination is reached by; −1: there is no route. */
  routeTo: (address: Address) => number;
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
  };
  readonly cache: DnsCache;
  private readonly addresses: Addresses;
  private readonly config: DnsConfig;
  private readonly ways: DnsWays;
  private readonly names: LocalNames;
  private readonly pending = new Map<string, Pending>();
  private readonly bySport = new Map<number, Pending>();
  /** Servers by who told of them. */
  private readonly learned = new Map<string, Address[]>();
  /** Which server is asked first. */
  private first = 0;

  constructor(addresses: Addresses, config: DnsConfig, ways: DnsWays) {
    this.addresses = addresses;
    this.config = config;
    this.ways = ways;
    this.cache = new DnsCache(config.cache);
    this.names = new LocalNames(config.domain, config.hosts);
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    if (event.kind === 'frame') this.receive(now, event, out);
    else if (event.kind === 'event') this.hear(now, event, out);
    this.expire(now, out);
    return out;
  }

  next(now: number): number {
    let next = -1;
    for (const { deadline } of this.pending.values()) {
      const wait = Math.max(0, (deadline - now) | 0);
      if (next < 0 || wait < next) next = wait;
    }
    return next;
  }

  /** The servers asked now. */
  servers(): Address[] {
    if (this.config.servers.length > 0) return [...this.config.servers];
    const seen = new Map<string, Address>();
    for (const list of this.learned.values())
      for (const server of list) seen.set(formatAddress(server.family, ...server.words), server);
    return [...seen.values()];
  }

  private hear(now: number, told: Told, out: Action[]): void {
    const { name, data } = told;
    if (name === 'dhcp4.lease')
      this.names.lease(now, String(data.hostName), String(data.address), Number(data.seconds));
    else if (name === 'dns.query') {
      const original = Uint8Array.from(Buffer.from(String(data.query), 'hex'));
      this.ask(now, original, null, String(data.tag), out);
    } else if (LEARNED.includes(name)) this.learn(name, data);
  }

  /** `dhcp4.bound` and `dhcp4.lost` of one port speak of the same servers. */
  private learn(name: string, data: Record<string, unknown>): void {
    const source = `${name.split('.')[0]} ${String(data.port)}`;
    const list = data.servers ?? data.dns;
    const servers = (Array.isArray(list) ? list : [])
      .map((text) => parseAddress(String(text)))
      .filter((address) => address !== null);
    const before = this.servers().map(({ words }) => words.join());
    if (servers.length === 0) this.learned.delete(source);
    else this.learned.set(source, servers);
    if (this.servers().some(({ words }) => !before.includes(words.join()))) this.cache.clear();
  }

  private receive(now: number, event: Extract<Event, { kind: 'frame' }>, out: Action[]): void {
    const datagram = readUdp(event.frame, event.etherType, event.l3);
    if (datagram === null) return;
    if (datagram.sport === DNS_PORT && this.bySport.has(datagram.dport)) {
      this.answered(now, { family: datagram.family, words: datagram.src }, datagram.dport, datagram.payload, out);
      return;
    }
    if (datagram.dport !== DNS_PORT) return;
    if (!this.config.ports.includes(event.port)) {
      // RFC 5358: no answers to strangers. Silence, so that nobody else is hit by what we would say.
      this.counters.refused++;
      return;
    }
    const { family, src, dst, sport } = datagram;
    const to = {
      port: event.port,
      family,
      us: [...dst] as unknown as Words,
      them: [...src] as unknown as Words,
      sport,
    };
    this.ask(now, datagram.payload.slice(), to, '', out);
  }

  private ask(now: number, original: Uint8Array, to: Asker['to'], tag: string, out: Action[]): void {
    this.counters.queries++;
    const query = W.readQuery(original);
    if (query === null) {
      this.counters.malformed++;
      this.refuseMalformed(original, to, tag, out);
      return;
    }
    const asker: Asker = { query, original, to, tag };
    const { question } = query;
    if ((query.flags & W.OPCODE) !== 0) this.reply(asker, W.writeEmpty(query, original, W.NOTIMP), out);
    else if (!this.answerLocally(now, asker, out)) {
      const key = `${question.name} ${question.type} ${question.class} ${query.dnssecOk ? 'do' : ''}${query.flags & W.CD}`;
      const cached = this.cache.get(now, key);
      if (cached !== undefined) {
        this.counters.hits++;
        const age = Math.floor(((now - cached.since) | 0) / 1000);
        this.reply(asker, W.adapt(cached.message, query, original, age, this.limit(asker)), out);
      } else this.forward(now, key, asker, out);
    }
  }

  private refuseMalformed(original: Uint8Array, to: Asker['to'], tag: string, out: Action[]): void {
    // Without a header there is nobody to answer; to an answer there is nothing to say.
    if (original.length < W.HEADER || (be16(original, 2) & W.QR) !== 0) return;
    const empty = new Uint8Array(W.HEADER);
    empty.set(original.subarray(0, 2));
    empty[2] = W.QR >> 8;
    empty[3] = W.FORMERR;
    this.send(empty, to, tag, out);
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
      this.reply(asker, W.writeEmpty(query, original, W.NXDOMAIN), out);
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
    this.reply(asker, whole.length > this.limit(asker) ? W.writeEmpty(query, original, W.NOERROR, W.TC) : whole, out);
    return true;
  }

  private forward(now: number, key: string, asker: Asker, out: Action[]): void {
    const waiting = this.pending.get(key);
    if (waiting !== undefined) {
      if (waiting.askers.length < MAX_WAITING) waiting.askers.push(asker);
      else this.counters.overload++;
      return;
    }
    const servers = this.servers();
    if (servers.length === 0 || this.pending.size >= MAX_PENDING) {
      if (servers.length > 0) this.counters.overload++;
      this.reply(asker, W.writeEmpty(asker.query, asker.original, W.SERVFAIL), out);
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
      deadline: now,
      attempts: 0,
    };
    this.pending.set(key, pending);
    this.counters.forwarded++;
    this.attempt(now, pending, out);
  }

  /** Sends the question to the next server, with a fresh identifier from a fresh port. */
  private attempt(now: number, pending: Pending, out: Action[]): void {
    const servers = this.servers();
    this.close(pending);
    if (pending.attempts >= ATTEMPTS || servers.length === 0) {
      this.fail(now, pending, out);
      return;
    }
    const server = servers[(this.first + pending.attempts) % servers.length];
    pending.attempts++;
    pending.deadline = (now + TIMEOUT) | 0;
    pending.server = server;
    const port = this.ways.routeTo(server);
    const source = port < 0 ? undefined : selectSource(this.addresses, port, server.family, server.words);
    if (source === undefined) {
      // No way there now: the next one, without waiting.
      pending.deadline = now;
      return;
    }
    pending.id = this.ways.random() & 0xffff;
    do pending.sport = uniform(this.ways.random, FIRST_PORT, LAST_PORT);
    while (this.bySport.has(pending.sport));
    this.bySport.set(pending.sport, pending);
    this.ways.listen(pending.sport, true);
    const payload = W.writeQuery(pending.id, pending.query, pending.original);
    const packet = udpPacket(server.family, source.words, server.words, pending.sport, DNS_PORT, payload);
    out.push({ kind: 'output', packet, port });
  }

  private close(pending: Pending): void {
    if (pending.sport === 0) return;
    this.bySport.delete(pending.sport);
    this.ways.listen(pending.sport, false);
    pending.sport = 0;
  }

  private answered(now: number, from: Address, dport: number, message: Uint8Array, out: Action[]): void {
    const pending = this.bySport.get(dport);
    const question = W.readQuestion(message);
    const isRight =
      pending !== undefined &&
      question !== null &&
      be16(message, 0) === pending.id &&
      (be16(message, 2) & W.QR) !== 0 &&
      from.family === pending.server.family &&
      from.words.every((word, n) => word === pending.server.words[n]) &&
      question.name === pending.query.question.name &&
      question.type === pending.query.question.type &&
      question.class === pending.query.question.class;
    if (!isRight || pending === undefined || question === null || !W.records(message, question.end, () => {})) {
      this.counters.forged++;
      return;
    }
    const rcode = be16(message, 2) & 15;
    if ((rcode === W.SERVFAIL || rcode === W.REFUSED) && pending.attempts < this.servers().length) {
      // Another server may know better.
      this.attempt(now, pending, out);
      return;
    }
    this.close(pending);
    this.pending.delete(pending.key);
    this.counters.answers++;
    const stored = message.slice();
    const isCut = (be16(message, 2) & W.TC) !== 0;
    if (isCut) this.counters.truncated++;
    else {
      const negative = rcode === W.NXDOMAIN || be16(message, 6) === 0;
      const seconds = Math.min(
        W.lifetime(stored, question.end),
        this.config.maxTtl,
        negative ? MAX_NEGATIVE_TTL : 604_800,
      );
      this.cache.put(now, pending.key, stored, seconds);
    }
    const at = this.servers().findIndex(({ words }) => words.join() === from.words.join());
    if (at >= 0) this.first = at;
    for (const asker of pending.askers)
      this.reply(asker, W.adapt(stored, asker.query, asker.original, 0, this.limit(asker)), out);
  }

  private expire(now: number, out: Action[]): void {
    for (const pending of [...this.pending.values()]) {
      // A server that cannot be reached is passed over at once; each attempt counts, so that this ends.
      while (this.pending.get(pending.key) === pending && ((pending.deadline - now) | 0) <= 0) {
        if (pending.sport !== 0) this.counters.timeouts++;
        this.attempt(now, pending, out);
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
    for (const asker of pending.askers) this.reply(asker, W.writeEmpty(asker.query, asker.original, W.SERVFAIL), out);
  }

  /** Longest answer that the asker can take (RFC 1035 §4.2.1, RFC 6891 §6.2.5; a stream takes all). */
  private limit(asker: Asker): number {
    if (asker.to === null) return 65535;
    return Math.min(W.UDP_SIZE, Math.max(512, asker.query.size));
  }

  private reply(asker: Asker, message: Uint8Array, out: Action[]): void {
    this.send(message, asker.to, asker.tag, out);
  }

  private send(message: Uint8Array, to: Asker['to'], tag: string, out: Action[]): void {
    if (to === null) {
      out.push({ kind: 'event', name: 'dns.answer', data: { tag, answer: Buffer.from(message).toString('hex') } });
      return;
    }
    // RFC 5625 §6: from the address and port that were asked.
    const packet = udpPacket(to.family, to.us, to.them, DNS_PORT, to.sport, message);
    out.push({ kind: 'output', packet, port: to.port });
  }
}
