/**
 * A TCP connection through a router under test whose two ends follow what really reaches them: addresses, ports, numbers
 * that an edit has moved, lengths that it has changed. So a scenario need not know beforehand what either router makes of it.
 */
import { get16, get32, ipText, type Payload, tcp, toBytes } from '../../lib/build.ts';
import { fromLan, fromWan, packet } from './frames.ts';
import { type Host, type Played, type ScenarioFrame, WAN4 } from './scenario.ts';

export type Side = 'lan' | 'wan';

/** A frame of one side, possibly made from what has left. */
export function frameOf(side: Side, host: Host, make: (past: readonly Played[]) => Uint8Array): ScenarioFrame {
  const one = (past: readonly Played[]) =>
    (side === 'lan' ? fromLan(host, make(past)) : fromWan(make(past))).frame as Uint8Array;
  return { port: side, frame: one };
}

interface Segment {
  src: string;
  dst: string;
  sport: number;
  dport: number;
  seq: number;
  next: number;
  text: string;
}

/** The TCP segment in a frame, or null. */
function segmentOf(frame: Uint8Array): Segment | null {
  const six = get16(frame, 12) === 0x86dd;
  const l3 = frame.subarray(14);
  if ((six ? l3[6] : l3[9]) !== 6) return null;
  const l4 = l3.subarray(six ? 40 : (l3[0] & 15) * 4, six ? 40 + get16(l3, 4) : get16(l3, 2));
  const data = l4.subarray((l4[12] >> 4) * 4);
  const seq = get32(l4, 4);
  return {
    src: ipText(six ? l3.subarray(8, 24) : l3.subarray(12, 16)),
    dst: ipText(six ? l3.subarray(24, 40) : l3.subarray(16, 20)),
    sport: get16(l4, 0),
    dport: get16(l4, 2),
    seq,
    next: (seq + data.length + (l4[13] & 1) + ((l4[13] >> 1) & 1)) >>> 0,
    text: String.fromCharCode(...data),
  };
}

let streams = 0;

/** A TCP connection whose two ends follow what reaches them. The opener is `client`, on `side`. */
export class Stream {
  readonly frames: ScenarioFrame[] = [];
  private readonly side: Side;
  private readonly host: Host;
  private readonly client: readonly [string, number];
  private readonly server: readonly [string, number];
  private readonly toward: readonly [string, number];
  /** The client's first number, by which the server knows its own client's SYN. */
  private readonly isn: number;
  private seq: { client: number; server: number };

  /** @param toward what the client connects to, default the server itself   @param isn the client's first number */
  constructor(
    side: Side,
    host: Host,
    client: readonly [string, number],
    server: readonly [string, number],
    toward = server,
    isn = 1000 + 1_000_000 * streams++,
  ) {
    this.isn = isn;
    this.seq = { client: isn, server: 5000 };
    this.side = side;
    this.host = host;
    this.client = client;
    this.server = server;
    this.toward = toward;
    this.send('client', { flags: 'S' });
    this.send('server', { flags: 'SA' });
    this.send('client', {});
  }

  /** What has reached an end of this connection, in order. */
  private reached(past: readonly Played[], end: 'client' | 'server'): Segment[] {
    const [address, port] = end === 'client' ? this.client : this.server;
    const on = (end === 'client') === (this.side === 'lan') ? 'lan' : 'wan';
    const all = past
      .filter((p) => p.port === on)
      .map((p) => segmentOf(p.frame))
      .filter((s): s is Segment => s !== null && s.dst === address && s.dport === port);
    if (end === 'client') return all.filter((s) => s.sport === this.toward[1]);
    const syn = all.find((s) => s.seq === this.isn);
    return all.filter((s) => s.src === syn?.src && s.sport === syn.sport);
  }

  send(
    from: 'client' | 'server',
    o: { flags?: string; data?: Payload; seq?: number; ack?: number; sack?: [number, number] },
  ): this {
    const flags = o.flags ?? (o.data === undefined ? 'A' : 'PA');
    const seq = o.seq ?? this.seq[from];
    if (o.seq === undefined) this.seq[from] += toBytes(o.data ?? '').length + (/[SF]/.test(flags) ? 1 : 0);
    const side = (from === 'client') === (this.side === 'lan') ? 'lan' : 'wan';
    this.frames.push(
      frameOf(side, this.host, (past) => {
        const reached = this.reached(past, from);
        const mine = from === 'client' ? this.client : this.server;
        const first = reached[0];
        const to = from === 'client' ? this.toward : first ? ([first.src, first.sport] as const) : ([WAN4, 1] as const);
        const got = reached.reduce((top, s) => (((s.next - top) | 0) > 0 ? s.next : top), first?.next ?? 0);
        const options = flags.includes('S')
          ? { mss: 1460, wscale: 7, sackPermitted: true }
          : o.sack
            ? { sack: [[(got + o.sack[0]) >>> 0, (got + o.sack[1]) >>> 0]] as [number, number][] }
            : {};
        const ack = flags.includes('A') ? (got + (o.ack ?? 0)) >>> 0 : 0;
        return packet(
          mine[0],
          to[0],
          tcp(
            { sport: mine[1], dport: to[1], flags, seq, ack, win: flags.includes('S') ? 64240 : 502, options },
            o.data,
          ),
        );
      }),
    );
    return this;
  }

  say(from: 'client' | 'server', data: Payload): this {
    return this.send(from, { data });
  }

  /** Both ends acknowledge. */
  settle(): this {
    return this.send('client', {}).send('server', {});
  }

  get sequence(): { client: number; server: number } {
    return this.seq;
  }
}
