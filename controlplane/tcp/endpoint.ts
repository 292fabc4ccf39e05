/**
 * Endpoint: the TCP connections of one protocol of the router, those to its port and those that it opens itself.
 *
 * Bounded: SYNs take no memory (cookies.ts), connections are at most MAX_CONNECTIONS in all and PER_HOST of one address;
 * what is beyond is refused with a RST and counted. A connection that waits out its end makes room for a new one.
 * The user, a protocol, is told when there is something to read and when a connection has ended; what it writes leaves
 * with `flush`.
 */
import type { Words } from '../../dataplane/wire/address.ts';
import { ACK, FIN, RST, SYN } from '../../dataplane/wire/tcp.ts';
import type { Action } from '../protocol.ts';
import type { RandomSource } from '../random.ts';
import { MSS, TcpConnection } from './connection.ts';
import { EARLY, SynCookies } from './cookies.ts';
import { type Ends, lengthOf, type Segment, writeSegment } from './segment.ts';

export interface TcpUser {
  /** Bytes have come, or the peer has said all; or a connection that was opened is there. */
  ready(now: number, connection: TcpConnection, out: Action[]): void;
  /** It is over: `connection.why`. */
  closed(now: number, connection: TcpConnection, out: Action[]): void;
}

const MAX_CONNECTIONS = 256;
/** RFC 7766 §6.2.2: a few are enough for one client. */
const PER_HOST = 16;
/** What an answer to a SYN tells as the window (connection.ts has the real one). */
const FIRST_WINDOW = 16_384;
const NOTHING = new Uint8Array(0);

export class TcpEndpoint {
  readonly counters = {
    syns: 0,
    accepted: 0,
    opened: 0,
    refused: 0,
    strays: 0,
    resets: 0,
    timeouts: 0,
    retransmissions: 0,
  };
  private readonly table = new Map<string, TcpConnection>();
  private readonly listening: number;
  private readonly listen: (port: number, on: boolean) => void;
  private readonly user: TcpUser;
  private readonly random: RandomSource;
  private readonly cookies: SynCookies;

  /**
   * @param listening our port (host order) that anybody may connect to
   * @param listen says whether segments to a port of the router come here
   */
  constructor(listening: number, user: TcpUser, random: RandomSource, listen: (port: number, on: boolean) => void) {
    this.listening = listening;
    this.listen = listen;
    this.user = user;
    this.random = random;
    this.cookies = new SynCookies(random);
  }

  get size(): number {
    return this.table.size;
  }

  connections(): IterableIterator<TcpConnection> {
    return this.table.values();
  }

  /** Opens a connection out of a port of the router; null: there are too many. */
  connect(now: number, ends: Ends, port: number, out: Action[]): TcpConnection | null {
    const key = keyOf(ends);
    if (this.table.has(key) || !this.makeRoom(now, out)) return null;
    this.listen(ends.ourPort, true);
    const connection = TcpConnection.connect(now, ends, port, this.random(), out);
    this.table.set(key, connection);
    this.counters.opened++;
    return connection;
  }

  /**
   * A segment to the router. False: it belongs to none of our connections, nor to our port.
   *
   * @param port of the router that it came in by
   * @param admits whether a new connection may come from there
   */
  receive(now: number, segment: Segment, port: number, admits: boolean, out: Action[]): boolean {
    const key = keyOf(segment);
    let connection = this.table.get(key);
    // RFC 9293 §3.10.7.4: a new incarnation may follow one that only waits.
    if (connection?.state === 'time-wait' && (segment.flags & (SYN | ACK | RST)) === SYN) {
      this.forget(now, connection, out);
      connection = undefined;
    }
    if (connection === undefined) {
      if (segment.ourPort !== this.listening) return false;
      if (!admits) return true;
      connection = this.greet(now, key, segment, port, out);
      if (connection === undefined) return true;
    }
    connection.receive(now, segment, out);
    if (connection.state !== 'closed') this.user.ready(now, connection, out);
    this.flush(now, connection, out);
    return true;
  }

  /** §3.10.7.1 and §3.10.7.2, without states: a SYN is answered by a cookie, and a good cookie opens the connection. */
  private greet(now: number, key: string, segment: Segment, port: number, out: Action[]): TcpConnection | undefined {
    const { flags, seq, ack } = segment;
    if ((flags & RST) !== 0) return undefined;
    if ((flags & (SYN | ACK | FIN)) === SYN) {
      this.counters.syns++;
      const cookie = this.cookies.make(now, segment, seq, segment.mss);
      const packet = writeSegment(segment, cookie, (seq + 1) | 0, SYN | ACK, FIRST_WINDOW, NOTHING, MSS);
      out.push({ kind: 'output', packet, port });
      return undefined;
    }
    const mss = (flags & (SYN | ACK)) === ACK ? this.cookies.check(now, segment, (seq - 1) | 0, (ack - 1) | 0) : 0;
    if (mss === EARLY) return undefined;
    if (mss === 0) this.counters.strays++;
    else if (this.countOf(segment.them) >= PER_HOST || !this.makeRoom(now, out)) this.counters.refused++;
    else {
      this.counters.accepted++;
      const connection = TcpConnection.accept(segment, port, mss);
      this.table.set(key, connection);
      return connection;
    }
    const isAck = (flags & ACK) !== 0;
    const end = (seq + lengthOf(segment)) | 0;
    const packet = writeSegment(segment, isAck ? ack : 0, isAck ? 0 : end, isAck ? RST : RST | ACK, 0, NOTHING);
    out.push({ kind: 'output', packet, port });
    return undefined;
  }

  /** Connections of a host to our port, without those that only wait out their end. */
  private countOf(host: Words): number {
    let count = 0;
    for (const { ends, state } of this.table.values())
      if (ends.ourPort === this.listening && state !== 'time-wait' && ends.them.every((word, n) => word === host[n]))
        count++;
    return count;
  }

  /** True when one more may be there; the one that has waited longest to end may go for it. */
  private makeRoom(now: number, out: Action[]): boolean {
    if (this.table.size < MAX_CONNECTIONS) return true;
    for (const connection of this.table.values())
      if (connection.state === 'time-wait') {
        this.forget(now, connection, out);
        return true;
      }
    return false;
  }

  /** Sends what was written; forgets a connection that has ended. */
  flush(now: number, connection: TcpConnection, out: Action[]): void {
    connection.flush(now, out);
    if (connection.state === 'closed') this.forget(now, connection, out);
  }

  private forget(now: number, connection: TcpConnection, out: Action[]): void {
    const { ends, why } = connection;
    if (!this.table.delete(keyOf(ends))) return;
    this.counters.retransmissions += connection.retransmissions;
    if (why === 'timed out') this.counters.timeouts++;
    else if (why !== '') this.counters.resets++;
    if (ends.ourPort !== this.listening) this.listen(ends.ourPort, false);
    this.user.closed(now, connection, out);
  }

  /** Gives back the ports of connections that it has opened; what peers still send is refused by whoever comes next. */
  close(): void {
    for (const { ends } of this.table.values()) if (ends.ourPort !== this.listening) this.listen(ends.ourPort, false);
    this.table.clear();
  }

  tick(now: number, out: Action[]): void {
    for (const connection of [...this.table.values()])
      if (connection.wait(now) === 0) {
        connection.tick(now, out);
        this.flush(now, connection, out);
      }
  }

  /** Milliseconds until `tick` has something to do; −1: nothing. */
  next(now: number): number {
    let next = -1;
    for (const connection of this.table.values()) {
      const wait = connection.wait(now);
      if (wait >= 0 && (next < 0 || wait < next)) next = wait;
    }
    return next;
  }
}

function keyOf({ family, us, them, ourPort, theirPort }: Ends): string {
  return `${family} ${us.join()} ${ourPort} ${them.join()} ${theirPort}`;
}
