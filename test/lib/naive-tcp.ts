/**
 * naive-tcp: the simplest TCP that can be right, as the other side of the router's own. It keeps every byte by its number,
 * in whatever order it comes, sends all that is not acknowledged again every half second, and never measures anything.
 * Active and passive; no options but the segment size it is told to send.
 */
import * as B from './build.ts';

export interface Packet {
  /** An IP packet from this peer. */
  bytes: Uint8Array;
}

export interface NaiveEnds {
  us: string;
  them: string;
  ourPort: number;
  theirPort: number;
}

const AGAIN = 500;

export class NaiveTcp {
  readonly ends: NaiveEnds;
  /** In order and without gaps. */
  received: Uint8Array = new Uint8Array(0);
  /** The other side has sent FIN, and everything before it is here. */
  over = false;
  reset = false;
  open = false;
  /** Largest payload of a segment it sends. */
  size = 1000;
  /** What it says it has room for. */
  window = 65535;
  private readonly iss: number;
  private theirs = -1;
  private readonly bytes = new Map<number, number>();
  private finAt = -1;
  private data: Uint8Array = new Uint8Array(0);
  private acked = 0;
  private sentSyn = false;
  private ending = false;
  private again = 0;
  private readonly emit: (packet: Uint8Array) => void;

  constructor(ends: NaiveEnds, iss: number, emit: (packet: Uint8Array) => void) {
    this.ends = ends;
    this.iss = iss;
    this.emit = emit;
  }

  connect(now: number): void {
    this.sentSyn = true;
    this.again = now + AGAIN;
    this.send('S', this.iss, 0, new Uint8Array(0), { mss: 1400 });
  }

  write(bytes: Uint8Array): void {
    this.data = B.concat(this.data, bytes);
    if (this.open) this.all();
  }

  end(): void {
    this.ending = true;
    if (this.open) this.all();
  }

  /** All that it has written is acknowledged. */
  get settled(): boolean {
    return this.acked >= this.data.length + (this.ending ? 1 : 0);
  }

  tick(now: number): void {
    if (now < this.again || this.reset) return;
    this.again = now + AGAIN;
    if (this.open) this.all();
    else if (this.sentSyn) this.connect(now);
  }

  /** TCP header and payload of a packet to it. */
  segment(now: number, l4: Uint8Array): void {
    const [seq, ack, flags, at] = [B.get32(l4, 4), B.get32(l4, 8), l4[13], (l4[12] >> 4) * 4];
    const payload = l4.subarray(at);
    if ((flags & 4) !== 0) {
      this.reset = true;
      return;
    }
    if ((flags & 2) !== 0) {
      this.theirs = (seq + 1) >>> 0;
      const first = !this.open;
      if (this.sentSyn) this.open = true;
      else {
        // Passive: the answer is the same whenever the SYN comes again.
        this.send('SA', this.iss, this.theirs, new Uint8Array(0), { mss: 1400 });
        this.open = true;
      }
      if (first && this.sentSyn) this.all(true);
      return;
    }
    if (this.theirs < 0) return;
    if ((flags & 16) !== 0) {
      const got = (ack - this.iss - 1) | 0;
      if (got >= 0 && got <= this.data.length + 1) this.acked = Math.max(this.acked, got);
    }
    const from = (seq - this.theirs) | 0;
    payload.forEach((byte, n) => {
      if (from + n >= 0) this.bytes.set(from + n, byte);
    });
    if ((flags & 1) !== 0) this.finAt = from + payload.length;
    const more: number[] = [];
    for (let n = this.received.length; this.bytes.has(n); n++) {
      more.push(this.bytes.get(n) as number);
      this.bytes.delete(n);
    }
    this.received = B.concat(this.received, Uint8Array.from(more));
    this.over = this.finAt >= 0 && this.received.length >= this.finAt;
    this.again = Math.min(this.again, now + AGAIN);
    if (payload.length > 0 || (flags & 1) !== 0) this.send('A', this.nextSeq(), this.nextAck(), new Uint8Array(0));
  }

  private nextSeq(): number {
    return (this.iss + 1 + this.acked) >>> 0;
  }

  private nextAck(): number {
    return (this.theirs + this.received.length + (this.over ? 1 : 0)) >>> 0;
  }

  /** Everything that is not acknowledged, and the FIN. */
  private all(greet = false): void {
    if (greet && this.data.length === 0) this.send('A', (this.iss + 1) >>> 0, this.nextAck(), new Uint8Array(0));
    for (let at = this.acked; at < this.data.length; at += this.size) {
      const part = this.data.subarray(at, at + this.size);
      this.send('PA', (this.iss + 1 + at) >>> 0, this.nextAck(), part);
    }
    if (this.ending && this.acked <= this.data.length)
      this.send('FA', (this.iss + 1 + this.data.length) >>> 0, this.nextAck(), new Uint8Array(0));
  }

  send(flags: string, seq: number, ack: number, payload: Uint8Array, options: B.TcpOptions = {}): void {
    const { us, them, ourPort, theirPort } = this.ends;
    const tcp = B.tcp({ sport: ourPort, dport: theirPort, seq, ack, flags, win: this.window, options }, payload);
    this.emit(us.includes(':') ? B.ipv6({ src: us, dst: them }, tcp) : B.ipv4({ src: us, dst: them }, tcp));
  }
}
