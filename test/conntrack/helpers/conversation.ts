/**
 * A conversation with a helper: payloads go in with the right addresses, direction and sequence numbers, findings come
 * out as plain objects; `rewrite` applies them as the mangler does, naively. Every payload stands somewhere inside a larger
 * buffer whose other bytes would be noticed if a helper read or reported them.
 */

import { expect } from 'vitest';
import {
  FIND_CLOSE,
  FIND_LENGTH,
  type Helper,
  type HelperContext,
  MAX_FINDINGS,
  newHelperContext,
  STATE_WORDS,
} from '../../../conntrack/helpers/helper.ts';
import { formatAddress, parseAddress } from '../../../dataplane/wire/address.ts';
import { Random } from '../../lib/build.ts';

export interface Found {
  kind: number;
  /** The bytes that stand for the endpoint, as text; '' when nothing is to be rewritten. */
  text: string;
  from: number;
  to: number;
  endpoint: string;
  address: string;
  port: number;
  proto: number;
  count: number;
  even: number;
  who: number;
  peer: string | null;
  class: number;
  timeout: number;
  permanent: number;
  helper: number;
  reverse: number;
  bodyFrom: number;
  bodyTo: number;
}

export interface Ends {
  client: [string, number];
  server: [string, number];
  /** What the server knows the client as; default: not translated. */
  clientTranslated?: [string, number];
  /** What the client knows the server as. */
  serverTranslated?: [string, number];
}

const MARGIN = 64;

export function setWords(to: Int32Array, text: string): void {
  const parsed = parseAddress(text);
  if (parsed === null) throw new Error(`setWords: expected an address, got "${text}"`);
  to.set(parsed.words);
}

export function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

export class Conversation {
  readonly helper: Helper;
  readonly ends: Ends;
  readonly context: HelperContext;
  readonly memory: Uint8Array;
  /** Next sequence number of each direction. */
  readonly seq: [number, number] = [0x7ffffff0, -12]; // both wrap soon
  result = 0;

  constructor(helper: Helper, ends: Ends, proto = helper.protocols[0], size = 70_000) {
    this.helper = helper;
    this.ends = ends;
    this.memory = new Uint8Array(size);
    this.context = newHelperContext(this.memory);
    this.context.proto = proto;
    // The words of other connections stand on both sides.
    this.context.state = new Int32Array(STATE_WORDS * 3).fill(0x5a5a5a5a);
    this.context.stateAt = STATE_WORDS;
    this.context.state.fill(0, STATE_WORDS, STATE_WORDS * 2);
  }

  /** Sends a payload from the client (0) or the server (1); `at` repeats an earlier sequence number. */
  send(dir: 0 | 1, payload: string | Uint8Array, at?: number): Found[] {
    const c = this.context;
    const bytes = typeof payload === 'string' ? latin1(payload) : payload;
    const { client, server } = this.ends;
    const clientSeen = this.ends.clientTranslated ?? client;
    const serverSeen = this.ends.serverTranslated ?? server;
    // The sender sees itself as it is, and the other end as that is shown to it.
    const src = dir === 0 ? client : server;
    const dst = dir === 0 ? serverSeen : clientSeen;
    const shown = dir === 0 ? clientSeen : serverSeen;
    this.memory.fill(0x2c); // commas: a number that ran on would run into one
    this.memory.set(bytes, MARGIN);
    c.from = MARGIN;
    c.to = MARGIN + bytes.length;
    c.dir = dir;
    c.family = client[0].includes(':') ? 6 : 4;
    setWords(c.src, src[0]);
    setWords(c.dst, dst[0]);
    setWords(c.srcTranslated, shown[0]);
    c.sport = src[1];
    c.dport = dst[1];
    c.sportTranslated = shown[1];
    c.nat = this.ends.clientTranslated !== undefined || this.ends.serverTranslated !== undefined;
    c.seq = c.proto === 6 ? (at ?? this.seq[dir]) : 0;
    if (at === undefined) this.seq[dir] = (this.seq[dir] + bytes.length) | 0;
    c.count = 0;
    this.result = this.helper.inspect(c);
    for (const n of [...c.state.slice(0, STATE_WORDS), ...c.state.slice(STATE_WORDS * 2)]) expect(n).toBe(0x5a5a5a5a);
    return this.found();
  }

  found(): Found[] {
    const c = this.context;
    expect(c.count).toBeLessThanOrEqual(MAX_FINDINGS);
    const found: Found[] = [];
    let last = c.from;
    for (let n = 0; n < c.count; n++) {
      const f = c.findings[n];
      // In order of place, inside the payload, not one over another.
      expect(f.from).toBeGreaterThanOrEqual(last);
      expect(f.to).toBeGreaterThanOrEqual(f.from);
      expect(f.to).toBeLessThanOrEqual(c.to);
      last = f.to;
      const address = formatAddress(f.family, f.address[0], f.address[1], f.address[2], f.address[3]);
      found.push({
        kind: f.kind,
        text: String.fromCharCode(...this.memory.slice(f.from, f.to)),
        from: f.from - c.from,
        to: f.to - c.from,
        endpoint: `${address} ${f.port}`,
        address,
        port: f.port,
        proto: f.proto,
        count: f.count,
        even: f.even,
        who: f.who,
        peer: f.peerGiven ? formatAddress(f.family, f.peer[0], f.peer[1], f.peer[2], f.peer[3]) : null,
        class: f.class,
        timeout: f.timeout,
        permanent: f.permanent,
        helper: f.helper,
        reverse: f.reverse,
        bodyFrom: f.bodyFrom - c.from,
        bodyTo: f.bodyTo - c.from,
      });
    }
    return found;
  }

  /** What `write` makes of finding `n` of the last payload for an endpoint. */
  written(n: number, address: string, port: number): string {
    const words = new Int32Array(4);
    setWords(words, address);
    const out = new Uint8Array(1 + 128 + 1);
    const f = this.context.findings[n];
    const length = this.helper.write(f, address.includes(':') ? 6 : 4, words, port, out, 1);
    expect(length).toBeLessThanOrEqual(128);
    for (let at = 1 + length; at < out.length; at++) expect(out[at]).toBe(0);
    expect(out[0]).toBe(0);
    return String.fromCharCode(...out.slice(1, 1 + length));
  }

  /** The last payload with every finding replaced; `choose` gives the endpoint for each. */
  rewrite(choose: (found: Found) => [string, number]): string {
    const c = this.context;
    const parts: { from: number; to: number; text: string }[] = [];
    const found = this.found();
    found.forEach((f, n) => {
      if (f.kind === FIND_LENGTH || f.kind === FIND_CLOSE || f.from === f.to) return;
      const [address, port] = choose(f);
      parts.push({ from: f.from, to: f.to, text: this.written(n, address, port) });
    });
    found.forEach((f, n) => {
      if (f.kind !== FIND_LENGTH) return;
      let length = f.bodyTo - f.bodyFrom;
      for (const p of parts) if (p.from >= f.bodyFrom && p.to <= f.bodyTo) length += p.text.length - (p.to - p.from);
      parts.push({ from: f.from, to: f.to, text: this.written(n, '0.0.0.0', length) });
    });
    parts.sort((a, b) => a.from - b.from);
    const text = String.fromCharCode(...this.memory.slice(c.from, c.to));
    let out = '';
    let at = 0;
    for (const p of parts) {
      out += text.slice(at, p.from) + p.text;
      at = p.to;
    }
    return out + text.slice(at);
  }
}

/** Small seeded generator (mulberry32): the same numbers on every run. */
export function random(seed: number): (below: number) => number {
  const numbers = new Random(seed);
  return (below) => numbers.int(0, below - 1);
}

/** A message with some bytes changed, removed, doubled or cut off. */
export function mutate(message: Uint8Array, next: (below: number) => number): Uint8Array {
  const interesting = latin1(' \r\n,.:;|/=()[]<>"09@\0\x01\xff');
  let bytes = [...message];
  for (let n = next(6); n >= 0; n--) {
    const at = next(bytes.length + 1);
    switch (next(6)) {
      case 0:
        bytes[at] = next(256);
        break;
      case 1:
        bytes[at] = interesting[next(interesting.length)];
        break;
      case 2:
        bytes.splice(at, next(8));
        break;
      case 3:
        bytes.splice(at, 0, ...bytes.slice(at, at + next(40)));
        break;
      case 4:
        bytes.splice(at, 0, ...latin1('9'.repeat(next(30))));
        break;
      default:
        if (next(4) === 0) bytes = bytes.slice(0, at);
    }
  }
  return Uint8Array.from(bytes, (b) => b ?? 0);
}
