/**
 * DNS over TCP (RFC 1035 §4.2.2, RFC 7766): messages with two bytes of length before each, from hosts and to servers.
 *
 * Hosts: questions may be pipelined, answers go out as they are known, in any order (§6.2.1.1). A host may have so many
 * open; then nothing more is read, and TCP's window makes it wait. A connection that asks nothing for IDLE is closed
 * (§6.2.3); so is one that does not take its answers. What is no message ends the connection.
 *
 * Servers: one connection each, used for all questions at that time (§6.2.1) and closed soon after the last.
 *
 * Not here: TLS, TCP keep-alive option (RFC 7828), TCP Fast Open.
 */
import type { Address, Words } from '../../dataplane/wire/address.ts';
import { be16, setBe16 } from '../../dataplane/wire/bytes.ts';
import type { Action, Event } from '../protocol.ts';
import { type RandomSource, uniform } from '../random.ts';
import { MSS, type TcpConnection } from '../tcp/connection.ts';
import { TcpEndpoint, type TcpUser } from '../tcp/endpoint.ts';
import { readSegment } from '../tcp/segment.ts';
import { DNS_PORT, FIRST_PORT, HEADER, LAST_PORT } from './wire.ts';

/** What streams tell their forwarder. */
export interface StreamUser {
  /** A host has asked; answered by `reply`, exactly once. */
  asked(now: number, message: Uint8Array, connection: TcpConnection, out: Action[]): void;
  answered(now: number, server: Address, message: Uint8Array, out: Action[]): void;
  /** No answer will come to the question with this identifier. */
  lost(now: number, server: Address, id: number, out: Action[]): void;
}

const LENGTH = 2;
const IDLE = 10_000;
const SERVER_IDLE = 2_000;
/** Questions of one connection that wait for answers. */
const MAX_OPEN = 32;
/** Bytes of answers that a host has not yet taken, above which nothing more is read from it. */
const MAX_UNSENT = 131_072;

interface Stream {
  connection: TcpConnection;
  /** What has come and is not yet a whole message. */
  buffer: Uint8Array;
  /** Host: questions without an answer. */
  open: number;
  /** Clock at which it has been idle for too long; null: it ends already. */
  until: number | null;
  /** What waited to be taken at the last look; Infinity: nobody has looked since the last answer. */
  unsent: number;
  /** Server: who it is, and the questions under way. */
  server: Address | null;
  waiting: Set<number>;
  busy: boolean;
}

export class DnsStreams implements TcpUser {
  readonly counters = { queries: 0, malformed: 0, idle: 0 };
  readonly endpoint: TcpEndpoint;
  private readonly user: StreamUser;
  private readonly random: RandomSource;
  private readonly streams = new Map<TcpConnection, Stream>();

  /** @param listen says whether segments to a port of the router come here */
  constructor(user: StreamUser, random: RandomSource, listen: (port: number, on: boolean) => void) {
    this.user = user;
    this.random = random;
    this.endpoint = new TcpEndpoint(DNS_PORT, this, random, listen);
  }

  /** A punted frame; false when it is no segment of ours. `admits`: who is on this port may ask. */
  receive(now: number, event: Extract<Event, { kind: 'frame' }>, admits: boolean, out: Action[]): boolean {
    const segment = readSegment(event.frame, event.etherType, event.l3);
    return segment !== null && this.endpoint.receive(now, segment, event.port, admits, out);
  }

  tick(now: number, out: Action[]): void {
    this.endpoint.tick(now, out);
    for (const stream of [...this.streams.values()])
      if (stream.until !== null && ((stream.until - now) | 0) <= 0) this.idle(now, stream, out);
  }

  next(now: number): number {
    let next = this.endpoint.next(now);
    for (const { until } of this.streams.values()) {
      if (until === null) continue;
      const wait = Math.max(0, (until - now) | 0);
      if (next < 0 || wait < next) next = wait;
    }
    return next;
  }

  /** Segments of its connections to servers do not come here any more. */
  close(): void {
    this.endpoint.close();
  }

  /** The answer to a question that was `asked`. */
  reply(now: number, connection: TcpConnection, message: Uint8Array, out: Action[]): void {
    const stream = this.streams.get(connection);
    if (stream === undefined) return;
    stream.open--;
    stream.until = (now + IDLE) | 0;
    stream.unsent = Number.POSITIVE_INFINITY;
    connection.write(framed(message));
    if (stream.busy) return;
    this.pump(now, stream, out);
    this.endpoint.flush(now, connection, out);
  }

  /** Asks a server, which `answered` or `lost` follows; false when no connection can be had. `port`: where it leaves. */
  ask(now: number, server: Address, us: Words, port: number, message: Uint8Array, out: Action[]): boolean {
    const id = be16(message, 0);
    let stream = this.streamTo(server, id);
    if (stream === undefined) {
      const ourPort = uniform(this.random, FIRST_PORT, LAST_PORT);
      const ends = { family: server.family, us, them: server.words, ourPort, theirPort: DNS_PORT };
      const connection = this.endpoint.connect(now, ends, port, out);
      if (connection === null) return false;
      stream = this.open(now, connection, server);
    }
    stream.waiting.add(id);
    stream.until = (now + IDLE) | 0;
    stream.connection.write(framed(message));
    this.endpoint.flush(now, stream.connection, out);
    return true;
  }

  private streamTo(server: Address, id: number): Stream | undefined {
    for (const stream of this.streams.values()) {
      const { state, finished } = stream.connection;
      if (stream.server === null || finished || (state !== 'syn-sent' && state !== 'established')) continue;
      if (stream.server.words.join() === server.words.join() && !stream.waiting.has(id)) return stream;
    }
    return undefined;
  }

  private open(now: number, connection: TcpConnection, server: Address | null): Stream {
    const stream: Stream = {
      connection,
      buffer: new Uint8Array(0),
      open: 0,
      until: (now + IDLE) | 0,
      unsent: Number.POSITIVE_INFINITY,
      server,
      waiting: new Set(),
      busy: false,
    };
    this.streams.set(connection, stream);
    return stream;
  }

  // --- what the endpoint tells -------------------------------------------------------------------------------------------

  ready(now: number, connection: TcpConnection, out: Action[]): void {
    this.pump(now, this.streams.get(connection) ?? this.open(now, connection, null), out);
  }

  closed(now: number, connection: TcpConnection, out: Action[]): void {
    const stream = this.streams.get(connection);
    this.streams.delete(connection);
    if (stream === undefined || stream.server === null) return;
    for (const id of stream.waiting) this.user.lost(now, stream.server, id, out);
  }

  /** Takes whole messages out of what has come, as long as there may be more of them. */
  private pump(now: number, stream: Stream, out: Action[]): void {
    const { connection } = stream;
    stream.busy = true;
    while (stream.open < MAX_OPEN && connection.unsent < MAX_UNSENT) {
      const { buffer } = stream;
      const length = buffer.length < LENGTH ? -1 : be16(buffer, 0);
      if (length >= 0 && length < HEADER) {
        this.counters.malformed++;
        connection.abort(out);
        break;
      }
      if (length < 0 || buffer.length < LENGTH + length) {
        if (connection.readable === 0) break;
        stream.buffer = joined(buffer, connection.read());
        continue;
      }
      stream.buffer = buffer.slice(LENGTH + length);
      this.take(now, stream, buffer.slice(LENGTH, LENGTH + length), out);
      if (connection.state === 'closed') break;
    }
    stream.busy = false;
    // RFC 7766 §6.2.4: who has said all is still answered.
    if (connection.finished && stream.open === 0) connection.end();
  }

  private take(now: number, stream: Stream, message: Uint8Array, out: Action[]): void {
    if (stream.server === null) {
      this.counters.queries++;
      stream.open++;
      stream.until = (now + IDLE) | 0;
      this.user.asked(now, message, stream.connection, out);
      return;
    }
    stream.waiting.delete(be16(message, 0));
    if (stream.waiting.size === 0) stream.until = (now + SERVER_IDLE) | 0;
    this.user.answered(now, stream.server, message, out);
  }

  /** Nothing was asked for too long, or nothing is taken. */
  private idle(now: number, stream: Stream, out: Action[]): void {
    const { connection } = stream;
    stream.until = null;
    if (stream.open > 0) {
      // The forwarder gives an answer in any case; that begins a new time.
      return;
    }
    if (connection.unsent > 0 && connection.unsent + MSS <= stream.unsent) {
      // Slow, but it takes what it gets; a byte at a time, as of probes, is not enough.
      stream.unsent = connection.unsent;
      stream.until = (now + IDLE) | 0;
      return;
    }
    if (stream.server === null) this.counters.idle++;
    if (connection.unsent > 0) connection.abort(out);
    else connection.end();
    this.endpoint.flush(now, connection, out);
  }
}

function framed(message: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(LENGTH + message.length);
  setBe16(bytes, 0, message.length);
  bytes.set(message, LENGTH);
  return bytes;
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}
