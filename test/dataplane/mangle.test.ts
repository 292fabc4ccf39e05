/**
 * Mangle and sequence adjustment, apart from the router around them (test/alg has that): TCP segments against a naive
 * rewriter, and what a fulfilled expectation does to its connection, for every way in which the master is translated.
 */
import { describe, expect, it } from 'vitest';
import { EXP_KEYMAP, EXP_PERMANENT, type ExpectSpec } from '../../conntrack/expect.ts';
import { HELPER_PPTP, HELPER_TFTP } from '../../conntrack/helpers/index.ts';
import * as R from '../../conntrack/record.ts';
import { FRAME_NEEDS_CSUM, Frames, META_FLAGS, META_LEN, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { ALG_ENABLED, ALG_OPTIONS, ALG_PASS, Mangler } from '../../dataplane/mangle.ts';
import { parseIp } from '../../dataplane/parse.ts';
import { createTables, DEFAULT_SIZES, Tables } from '../../dataplane/tables.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import { ethernet, get16, get32, ip, ipv4, ipv6, put16, Random, tcp, toHex, u32, verify } from '../lib/build.ts';

const TCP = 6;
const GRE = 47;
const FTP = 1;
const LINK = { src: '02:00:00:00:00:01', dst: '02:00:00:00:00:02' };

class Bench {
  readonly tables = new Tables(createTables({ ...DEFAULT_SIZES, connections: 64, flows: 0, extensions: 16 }, 1), 0);
  readonly frames = new Frames(16, 2);
  readonly mangler = new Mangler(this.tables, this.frames);
  readonly p = new Packet();

  /** A connection record with these tuples: source, destination, ports of ORIGINAL, then of REPLY. */
  connection(proto: number, o: number[], r: number[], status = 0): number {
    const { conntrack } = this.tables;
    const index = conntrack.alloc(0, 0);
    const c = index * R.CT_WORDS;
    const w = conntrack.words;
    w[c + R.CT_KEY] = proto | (4 << 8);
    w.set(o, c + R.CT_O_SRC);
    w.set(r, c + R.CT_R_SRC);
    w[c + R.CT_STATUS] = status;
    w[c + R.CT_DEADLINE] = 1_000_000;
    return index;
  }

  publish(index: number): void {
    const { conntrack } = this.tables;
    expect(conntrack.insert(index, conntrack.hashOf(index, 0), conntrack.hashOf(index, 1), 0)).toBe(true);
  }

  /** Puts a frame into a slot and parses it as a packet of connection `index`. */
  load(frame: Uint8Array, index: number, dir: number, flags = 0): Packet {
    const { frames, p } = this;
    const slot = frames.alloc(frame.length + 200);
    const m = slot * META_WORDS;
    frames.u8.set(frame, frames.meta[m + META_OFF]);
    frames.meta[m + META_LEN] = frame.length;
    frames.meta[m + META_FLAGS] = flags;
    p.slot = slot;
    p.off = frames.meta[m + META_OFF];
    p.len = frame.length;
    p.l3 = p.off + 14;
    p.flags = flags;
    p.gsoType = 0;
    p.family = frame[12] === 8 ? 4 : 6;
    expect(parseIp(p, frames, p.off + p.len)).toBe(0);
    p.ct = index;
    p.dir = dir;
    p.ctinfo = R.CT_ESTABLISHED;
    return p;
  }

  bytes(): Uint8Array {
    const { frames, p } = this;
    const done = frames.u8.slice(p.off, p.off + p.len);
    frames.free(p.slot);
    return done;
  }
}

/** One of the options that TCP has, or something that looks like one. */
function option(random: Random): number[] {
  const edge = () => [...u32(random.next())];
  switch (random.int(0, 5)) {
    case 0:
      return [1];
    case 1:
      return [5, 10, ...edge(), ...edge()];
    case 2:
      return [5, 18, ...edge(), ...edge(), ...edge(), ...edge()];
    case 3:
      return [8, 10, ...edge(), ...edge()];
    case 4:
      return [random.int(6, 250), 4, random.int(0, 255), random.int(0, 255)];
    default:
      return [random.int(2, 8), random.int(0, 40)]; // a length that may lead anywhere
  }
}

/** What the adjustment must make of a segment: found by reading it as RFC 9293 §3.1 has it. */
function adjusted(segment: Uint8Array, at: number, seqBy: number, ackBy: (ack: number) => number): Uint8Array {
  const out = segment.slice();
  const view = new DataView(out.buffer);
  view.setInt32(at + 4, (view.getInt32(at + 4) + seqBy) | 0);
  if ((out[at + 13] & 16) !== 0) view.setInt32(at + 8, ackBy(view.getInt32(at + 8)));
  const end = at + (out[at + 12] >> 4) * 4;
  for (let k = at + 20; k < end && out[k] !== 0; ) {
    if (out[k] === 1) {
      k++;
      continue;
    }
    if (k + 1 >= end || out[k + 1] < 2 || k + out[k + 1] > end) break;
    if (out[k] === 5)
      for (let edge = k + 2; edge + 4 <= k + out[k + 1]; edge += 4) view.setInt32(edge, ackBy(view.getInt32(edge)));
    k += out[k + 1];
  }
  return out;
}

describe('sequence adjustment of a segment', () => {
  it('numbers, SACK edges at any alignment and the checksum, whatever options there are (property, both families)', () => {
    const random = new Random(2018);
    const b = new Bench();
    const index = b.connection(TCP, [1, 2, 3], [2, 1, 3]);
    const { extensions, sequence } = b.mangler;
    let sacks = 0;
    for (let round = 0; round < 1500; round++) {
      extensions.release(index);
      const place = random.next() | 0;
      extensions.record(index, 0, place, random.int(-50, 50));
      extensions.record(index, 1, random.next() | 0, random.int(-50, 50));
      const e = extensions.existing(index);
      const options: number[] = [];
      while (options.length < 30 && random.chance(0.7)) options.push(...option(random));
      options.length = Math.min(options.length, 40);
      if (options.includes(5)) sacks++;
      const seq = random.next();
      const ack = random.next();
      const segment = tcp(
        { sport: 1, dport: 2, flags: random.pick(['A', 'PA', 'S', 'R']), seq, ack, options: Uint8Array.from(options) },
        random.bytes(random.int(0, 40)),
      );
      const six = random.chance(0.3);
      const l4 = six ? 54 : 34;
      const frame = ethernet(
        LINK,
        six
          ? ipv6({ src: '2001:db8::1', dst: '2001:db8::2' }, segment)
          : ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, segment),
      );
      const dir = random.int(0, 1);
      const p = b.load(frame, index, dir);
      expect(sequence.ackOffset(index, dir, p)).toBe(extensions.ackOffset(e, dir ^ 1, get32(frame, l4 + 8) | 0));
      sequence.adjust(p);
      const out = b.bytes();
      expect(verify(out)).toEqual([]);
      const expected = adjusted(
        frame,
        l4,
        extensions.offset(e, dir, seq | 0),
        (n) => (n - extensions.ackOffset(e, dir ^ 1, n)) | 0,
      );
      put16(expected, l4 + 16, get16(out, l4 + 16));
      expect(toHex(out)).toBe(toHex(expected));
    }
    expect(sacks).toBeGreaterThan(300);
  });

  it('a partial checksum, which covers no sequence number yet, is left alone', () => {
    const b = new Bench();
    const index = b.connection(TCP, [1, 2, 3], [2, 1, 3]);
    b.mangler.extensions.record(index, 0, 100, 7);
    const frame = ethernet(
      LINK,
      ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, tcp({ sport: 1, dport: 2, flags: 'A', seq: 500 }, 'x')),
    );
    put16(frame, 34 + 16, 0xbeef);
    b.mangler.sequence.adjust(b.load(frame, index, 0, FRAME_NEEDS_CSUM));
    const out = b.bytes();
    expect([get32(out, 38), get16(out, 50)]).toEqual([507, 0xbeef]);
  });

  it('a connection without edits is not concerned, and the stage changes nothing of it', () => {
    const b = new Bench();
    const index = b.connection(TCP, [1, 2, 3], [2, 1, 3]);
    expect(b.mangler.concerns(index)).toBe(false);
    const frame = ethernet(
      LINK,
      ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, tcp({ sport: 1, dport: 2, flags: 'A', seq: 5 }, 'x')),
    );
    const p = b.load(frame, index, 0);
    expect(b.mangler.sequence.ackOffset(index, 0, p)).toBe(0);
    expect(b.mangler.stage(p, 0)).toBe(ALG_PASS);
    expect(toHex(b.bytes())).toBe(toHex(frame));
    b.mangler.extensions.record(index, 1, 0, 1);
    expect(b.mangler.concerns(index)).toBe(true);
  });
});

const raw = (address: string) => new DataView(ip(address).buffer).getInt32(0, true);
const HOST = raw('192.168.1.10');
const WAN = raw('203.0.113.1');
const SERVER = raw('198.51.100.7');
const swap = (port: number) => ((port & 255) << 8) | (port >> 8);
const word = (source: number, destination: number) => swap(source) | (swap(destination) << 16);

describe('a connection that somebody expected', () => {
  /** The master, seen from its client: to where it goes, and how it is translated. */
  function setup(translated: boolean, inside: 'client' | 'server') {
    const b = new Bench();
    // Client inside: source translated. Server inside: destination translated (a port forward).
    const original = inside === 'client' ? [HOST, SERVER, word(40000, 21)] : [SERVER, WAN, word(50000, 21)];
    const reply =
      inside === 'client'
        ? [SERVER, translated ? WAN : HOST, word(21, 40000)]
        : [translated ? HOST : WAN, SERVER, word(21, 50000)];
    const status = translated ? (inside === 'client' ? R.IPS_SRC_NAT : R.IPS_DST_NAT) : 0;
    const master = b.connection(TCP, original, reply, status);
    b.publish(master);
    return { b, master };
  }

  function announce(b: Bench, master: number, o: Partial<ExpectSpec>): number {
    return b.mangler.expectations.add(
      {
        key: TCP | (4 << 8),
        flags: 0,
        src: new Int32Array(4),
        dst: new Int32Array(4),
        ports: 0,
        master,
        helper: 0,
        dir: 1,
        savedPort: 0,
        class: 0,
        timeout: 300,
        replyPorts: 0,
        wanted: 1,
        ...o,
      },
      0,
      0,
    );
  }

  /** The first packet of a connection from `src` to `dst`, and its private record. */
  function first(b: Bench, src: number, dst: number, ports: number): { index: number; matched: boolean } {
    const index = b.connection(TCP, [src, dst, ports], [dst, src, (ports >>> 16) | (ports << 16)]);
    const p = b.p;
    p.proto = TCP;
    p.family = 4;
    p.s0 = src;
    p.d0 = dst;
    p.ports = ports;
    return { index, matched: b.mangler.expected(p, index, 0) };
  }

  function reply(b: Bench, index: number): number[] {
    const c = index * R.CT_WORDS + R.CT_R_SRC;
    return [...b.tables.conntrack.words.subarray(c, c + 3)];
  }
  const statusOf = (b: Bench, index: number) =>
    b.tables.conntrack.words[index * R.CT_WORDS + R.CT_STATUS] & (R.IPS_EXPECTED | R.IPS_SRC_NAT | R.IPS_DST_NAT);

  it('client inside (active FTP): what comes to the outside port goes to the announcer’s real one', () => {
    const { b, master } = setup(true, 'client');
    announce(b, master, {
      dst: Int32Array.of(WAN, 0, 0, 0),
      ports: word(0, 5001),
      savedPort: swap(5000) << 16,
      helper: 4,
    });
    const { index, matched } = first(b, SERVER, WAN, word(20, 5001));
    expect(matched).toBe(true);
    expect(reply(b, index)).toEqual([HOST, SERVER, word(5000, 20)]);
    expect(statusOf(b, index)).toBe(R.IPS_EXPECTED | R.IPS_DST_NAT);
    const c = index * R.CT_WORDS;
    const w = b.tables.conntrack.words;
    expect([w[c + R.CT_MASTER], w[c + R.CT_MASTER_GEN], w[c + R.CT_HELPER]]).toEqual([
      master + 1,
      w[master * R.CT_WORDS + R.CT_GEN],
      4,
    ]);
    expect(b.mangler.expectations.count).toBe(0);
  });

  it('server inside (passive FTP behind a forward): outbound data of the server appears as who was reached', () => {
    const { b, master } = setup(true, 'server');
    announce(b, master, {
      dst: Int32Array.of(SERVER, 0, 0, 0),
      ports: word(0, 6000),
      savedPort: swap(6000) << 16,
      dir: 1,
    });
    const { index } = first(b, HOST, SERVER, word(20, 6000));
    expect(reply(b, index)).toEqual([SERVER, WAN, word(6000, 20)]);
    expect(statusOf(b, index)).toBe(R.IPS_EXPECTED | R.IPS_SRC_NAT);
  });

  it('a master that is not translated: the expected one is not either', () => {
    const { b, master } = setup(false, 'client');
    announce(b, master, { dst: Int32Array.of(HOST, 0, 0, 0), ports: word(0, 5000), savedPort: swap(5000) << 16 });
    const { index } = first(b, SERVER, HOST, word(20, 5000));
    expect(reply(b, index)).toEqual([HOST, SERVER, word(5000, 20)]);
    expect(statusOf(b, index)).toBe(R.IPS_EXPECTED);
  });

  it('a permanent one stays for the next, others are used up; a stranger’s packet is nobody’s', () => {
    const { b, master } = setup(true, 'client');
    const open = { dst: Int32Array.of(WAN, 0, 0, 0), ports: word(0, 5001), savedPort: swap(5000) << 16 };
    announce(b, master, { ...open, flags: EXP_PERMANENT });
    expect(first(b, SERVER, WAN, word(20, 5002)).matched).toBe(false);
    expect([20, 21, 22].map((port) => first(b, SERVER, WAN, word(port, 5001)).matched)).toEqual([true, true, true]);
    b.mangler.expectations.removeOf(master, -1);
    announce(b, master, open);
    expect([20, 21].map((port) => first(b, SERVER, WAN, word(port, 5001)).matched)).toEqual([true, false]);
  });

  it('the end of a master takes its expectations and its extension along', () => {
    const { b, master } = setup(true, 'client');
    b.tables.conntrack.words[master * R.CT_WORDS + R.CT_HELPER] = FTP;
    announce(b, master, { dst: Int32Array.of(WAN, 0, 0, 0), ports: word(0, 5001) });
    b.mangler.extensions.of(master);
    expect([b.mangler.expectations.count, b.mangler.extensions.count]).toEqual([1, 1]);
    b.mangler.released(master);
    expect([b.mangler.expectations.count, b.mangler.extensions.count]).toEqual([0, 0]);
  });

  it('PPTP’s packets get the source’s key of their call; without one they are refused, unless the helper is off', () => {
    const { b, master } = setup(true, 'client');
    const key = GRE | (4 << 8);
    announce(b, master, {
      key,
      flags: EXP_KEYMAP,
      src: Int32Array.of(SERVER, 0, 0, 0),
      dst: Int32Array.of(WAN, 0, 0, 0),
      ports: word(300, 7),
    });
    const p = b.p;
    p.s0 = SERVER;
    p.d0 = WAN;
    const asks = (callId: number) => {
      p.ports = p.rports = swap(callId) << 16;
      return [b.mangler.greKey(p, key, 0), p.ports & 0xffff];
    };
    b.tables.helperPorts[ALG_OPTIONS + HELPER_PPTP] = ALG_ENABLED;
    expect(asks(7)).toEqual([true, swap(300)]);
    expect(asks(8)).toEqual([false, 0]);
    b.tables.helperPorts[ALG_OPTIONS + HELPER_PPTP] = 0;
    expect(asks(8)).toEqual([true, 0]);
  });
});

describe('which helper a connection gets', () => {
  it('by the destination port behind NAT, by a rule before that, and never a second one', () => {
    const b = new Bench();
    b.tables.helperPorts[65536 + 2121] = FTP;
    const helperOf = (reply: number[], byRule: number, before = 0) => {
      const index = b.connection(TCP, [HOST, SERVER, word(40000, 21)], reply);
      const c = index * R.CT_WORDS;
      b.tables.conntrack.words[c + R.CT_HELPER] = before;
      b.p.ct = index;
      b.p.proto = TCP;
      b.mangler.assign(b.p, byRule);
      return [
        b.tables.conntrack.words[c + R.CT_HELPER] & 255,
        b.tables.conntrack.words[c + R.CT_STATUS] & R.IPS_HELPER,
      ];
    };
    const forwardedTo2121 = [HOST, SERVER, word(2121, 40000)];
    expect(helperOf(forwardedTo2121, 0)).toEqual([FTP, 0]);
    expect(helperOf([SERVER, WAN, word(21, 40000)], 0)).toEqual([0, 0]);
    // A rule's counts while it is on, and for its own protocols.
    expect(helperOf(forwardedTo2121, HELPER_PPTP)).toEqual([FTP, 0]);
    b.tables.helperPorts[ALG_OPTIONS + HELPER_PPTP] = ALG_ENABLED;
    expect(helperOf(forwardedTo2121, HELPER_PPTP)).toEqual([HELPER_PPTP, R.IPS_HELPER]);
    expect(helperOf(forwardedTo2121, HELPER_PPTP, 3)).toEqual([3, 0]);
    b.tables.helperPorts[ALG_OPTIONS + HELPER_TFTP] = ALG_ENABLED;
    expect(helperOf(forwardedTo2121, HELPER_TFTP)).toEqual([FTP, 0]);
  });
});
