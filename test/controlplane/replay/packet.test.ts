/** Editing captured packets: right checksums stay right and wrong ones wrong, in packets, fragments and quotes alike. */
import { describe, expect, test } from 'vitest';
import { PacketEdit, repairChecksums, viewPacket } from '../../../controlplane/replay/packet.ts';
import { SequenceMap } from '../../../controlplane/replay/sequence.ts';
import { cut, isSuperFrame } from '../../../controlplane/replay/super-frame.ts';
import * as B from '../../lib/build.ts';

const wire = { src: '02:00:00:00:00:01', dst: '02:00:00:00:00:02' };
const random = new B.Random(20_240_611);

function anyTransport(payload: Uint8Array): B.Segment {
  const ports = { sport: random.int(0, 65535), dport: random.int(0, 65535) };
  return random.pick([
    () => B.udp(ports, payload),
    () => B.tcp({ ...ports, seq: random.next(), ack: random.next(), options: { sack: [[1, random.next()]] } }, payload),
    () => B.sctp({ ...ports, tag: random.next() }, B.sctpChunk(0, 3, payload)),
    () => B.udpLite({ ...ports, coverage: 8 }, payload),
  ])();
}

describe('PacketEdit (seed 20240611)', () => {
  test('2000 random packets of both families, with addresses, ports and numbers set: a naive checker accepts each', () => {
    for (let n = 0; n < 2000; n++) {
      const six = random.chance(0.5);
      const size = six ? 16 : 4;
      const segment = anyTransport(random.bytes(random.int(0, 80)));
      const addresses = { src: random.bytes(size), dst: random.bytes(size) };
      const frame = B.ethernet(wire, six ? B.ipv6(addresses, segment) : B.ipv4(addresses, segment));
      if (B.verify(frame).length > 0) continue; // an address that the checker's rules refuse
      const view = viewPacket(frame, 14, frame.length)!;
      expect(view).toMatchObject({ proto: segment.proto, whole: true, fragment: 'none' });
      const edit = new PacketEdit(frame, view);
      edit.setSource(random.bytes(size));
      edit.setDestination(random.bytes(size));
      edit.set16(view.l4, random.int(0, 65535));
      edit.set16(view.l4 + 2, random.int(0, 65535));
      if (segment.proto === B.PROTO_TCP) {
        edit.set32(view.l4 + 8, random.next());
        edit.set32(view.l4 + 22, random.next()); // a SACK edge, wherever it stands
      }
      edit.finish();
      expect(B.verify(frame)).toEqual([]);
    }
  });

  test('a wrong checksum stays wrong by as much, and none stays none', () => {
    for (let n = 0; n < 200; n++) {
      const wrong = random.int(1, 65535);
      const segment = B.udp({ sport: 1, dport: 2, checksum: n === 0 ? 0 : wrong }, random.bytes(20));
      const frame = B.ethernet(wire, B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2' }, segment));
      const before = B.verify(frame).length;
      const view = viewPacket(frame, 14, frame.length)!;
      const edit = new PacketEdit(frame, view);
      edit.setDestination(B.ip('203.0.113.77'));
      edit.set16(view.l4 + 2, random.int(0, 65535));
      edit.finish();
      expect(B.verify(frame).length).toBe(before);
      if (n === 0) expect(B.get16(frame, view.l4 + 6)).toBe(0);
    }
  });

  test('a quote inside an ICMP error: inner header, inner transport and outer checksum', () => {
    for (const six of [false, true]) {
      const inner = six
        ? B.ipv6({ src: '2001:db8::5', dst: '2001:db8::9' }, B.udp({ sport: 5, dport: 6 }, 'quoted!'))
        : B.ipv4({ src: '10.0.0.5', dst: '10.0.0.9' }, B.tcp({ sport: 5, dport: 6, seq: 77 }, 'quoted!'));
      const error = six ? B.icmpv6({ type: 1, code: 4 }, inner) : B.icmp({ type: 3, code: 1 }, inner);
      const frame = B.ethernet(
        wire,
        six
          ? B.ipv6({ src: '2001:db8::9', dst: '2001:db8::5' }, error)
          : B.ipv4({ src: '10.0.0.9', dst: '10.0.0.5' }, error),
      );
      expect(B.verify(frame)).toEqual([]);
      const view = viewPacket(frame, 14, frame.length)!;
      const quote = viewPacket(frame, view.l4 + 8, view.end)!;
      const outer = new PacketEdit(frame, view);
      const edit = new PacketEdit(frame, quote, outer);
      edit.setSource(B.ip(six ? '2001:db8:ffff::1' : '203.0.113.1'));
      edit.set16(quote.l4, 60_001);
      edit.finish();
      outer.setDestination(B.ip(six ? '2001:db8:ffff::1' : '203.0.113.1'));
      outer.finish();
      expect(B.verify(frame)).toEqual([]);
    }
  });

  test('the first fragment of a datagram keeps the checksum of the whole', () => {
    const addresses = { src: '10.0.0.1', dst: '10.0.0.2', id: 9 };
    const parts = B.fragment4(B.ipv4(addresses, B.udp({ sport: 1, dport: 2 }, random.bytes(2000))), 1000);
    const moved = parts.map((part) => {
      const frame = B.ethernet(wire, part);
      const view = viewPacket(frame, 14, frame.length)!;
      const edit = new PacketEdit(frame, view);
      edit.setDestination(B.ip('203.0.113.1'));
      edit.set16(view.l4 + 2, 4242); // refused where the header is not
      edit.finish();
      return frame.slice(14);
    });
    const payload = B.concat(...moved.map((part) => part.slice(20)));
    const whole = B.ipv4({ ...addresses, dst: '203.0.113.1', proto: 17 }, payload);
    expect(B.verify(B.ethernet(wire, whole))).toEqual([]);
    expect(B.get16(whole, 22)).toBe(4242);
  });
});

describe('repairChecksums', () => {
  test('TCP, UDP, SCTP and an empty IPv4 header checksum; the result is right, and a second look finds nothing', () => {
    const segments = [
      B.tcp({ sport: 1, dport: 2, checksum: 1 }, 'odd'),
      B.udp({ sport: 1, dport: 2, checksum: 1 }, 'even'),
      B.sctp({ sport: 1, dport: 2, tag: 3, checksum: 1 }, B.sctpChunk(0, 3, 'data')),
    ];
    for (const segment of segments)
      for (const six of [false, true]) {
        const frame = B.ethernet(
          wire,
          six
            ? B.ipv6({ src: '2001:db8::1', dst: '2001:db8::2' }, segment)
            : B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2', checksum: 0 }, segment),
        );
        expect(B.verify(frame)).not.toEqual([]);
        const view = viewPacket(frame, 14, frame.length)!;
        expect(repairChecksums(frame, view)).toBe(true);
        expect(B.verify(frame)).toEqual([]);
        expect(repairChecksums(frame, view)).toBe(false);
      }
  });

  test('UDP without a checksum, fragments and cut packets are left alone', () => {
    const addresses = { src: '10.0.0.1', dst: '10.0.0.2' };
    const none = B.ipv4(addresses, B.udp({ sport: 1, dport: 2, checksum: 0 }, 'x'));
    const fragment = B.ipv4({ ...addresses, more: true }, B.udp({ sport: 1, dport: 2, checksum: 1 }, '12345678'));
    const short = B.ipv4(addresses, B.udp({ sport: 1, dport: 2, checksum: 1 }, 'abcdef')).slice(0, 30);
    for (const packet of [none, fragment, short]) {
      const frame = B.ethernet({ ...wire, type: 0x0800 }, packet);
      const before = frame.slice();
      expect(repairChecksums(frame, viewPacket(frame, 14, frame.length)!)).toBe(false);
      expect(frame).toEqual(before);
    }
  });
});

describe('viewPacket', () => {
  test('no bytes of any kind make it throw or point outside', () => {
    for (let n = 0; n < 20_000; n++) {
      const bytes = random.bytes(random.int(0, 90));
      if (bytes.length > 14) bytes[14] = (random.pick([4, 6]) << 4) | random.int(0, 15);
      const view = viewPacket(bytes, 14, bytes.length);
      if (view === null) continue;
      expect(view.end).toBeLessThanOrEqual(bytes.length);
      expect(view.l4).toBeLessThanOrEqual(view.end);
      const before = bytes.length;
      repairChecksums(bytes, view);
      const edit = new PacketEdit(bytes, view);
      edit.set16(view.l4 + 2, 1);
      edit.finish();
      expect(bytes.length).toBe(before);
    }
  });
});

describe('super-frames', () => {
  test.each([4, 6])('IPv%d: the segments carry the same bytes in order, flags where they belong', (family) => {
    const payload = random.bytes(5000);
    const segment = B.tcp(
      { sport: 1, dport: 2, seq: 0xfffffc00, flags: 'FPAC', options: { timestamps: [1, 2] } },
      payload,
    );
    const frame = B.ethernet(
      wire,
      family === 4
        ? B.ipv4({ src: '10.0.0.1', dst: '10.0.0.2', id: 0xffff, df: true }, segment)
        : B.ipv6({ src: '2001:db8::1', dst: '2001:db8::2', ext: [B.destinationOptions()] }, segment),
    );
    const view = viewPacket(frame, 14, frame.length)!;
    expect(isSuperFrame(view, 1500)).toBe(true);
    expect(isSuperFrame(view, 6000)).toBe(false);
    const pieces = cut(frame, view, 1500);
    expect(pieces).toHaveLength(4);
    let next = 0xfffffc00;
    const parts: Uint8Array[] = [];
    pieces.forEach((piece, n) => {
      expect(B.verify(piece)).toEqual([]);
      expect(piece.length).toBeLessThanOrEqual(1514);
      const part = viewPacket(piece, 14, piece.length)!;
      expect(B.get32(piece, part.l4 + 4)).toBe(next >>> 0);
      const flags = piece[part.l4 + 13];
      expect([(flags & B.FIN) !== 0, (flags & B.PSH) !== 0]).toEqual([n === 3, n === 3]);
      expect((flags & 0x80) !== 0).toBe(n === 0);
      if (family === 4) expect(B.get16(piece, 18)).toBe((0xffff + n) & 0xffff);
      const body = piece.slice(part.l4 + (piece[part.l4 + 12] >> 4) * 4);
      parts.push(body);
      next += body.length;
    });
    expect(B.concat(...parts)).toEqual(payload);
  });
});

describe('SequenceMap', () => {
  test('random edits of a stream, over the wrap of sequence numbers: as a byte-by-byte reference has it', () => {
    for (let round = 0; round < 50; round++) {
      const map = new SequenceMap();
      const base = 0xfffff000;
      let captured = base;
      let real = (base + random.int(0, 1) * random.next()) >>> 0;
      map.note(captured | 0, real | 0);
      const ends = new Map<number, number>([[captured, real]]);
      for (let n = 0; n < 40; n++) {
        const length = random.int(1, 300);
        const left = random.chance(0.3) ? Math.max(1, length + random.int(-20, 20)) : length;
        map.note(captured | 0, real | 0);
        captured += length;
        real += left;
        map.note(captured | 0, real | 0);
        ends.set(captured, real);
        if (random.chance(0.2)) map.note((captured - length) | 0, (real - left) | 0); // a retransmission
      }
      for (const [position, where] of ends) expect(map.map(position | 0)).toBe(where | 0);
    }
  });

  test('in the middle of what became shorter, never beyond its end; before the first note, nothing', () => {
    const map = new SequenceMap();
    expect(map.map(5)).toBe(5);
    map.note(100, 100);
    map.note(150, 120);
    expect([map.map(90), map.map(100), map.map(110), map.map(140), map.map(150), map.map(160)]).toEqual([
      90, 100, 110, 120, 120, 130,
    ]);
    map.reset();
    expect(map.map(150)).toBe(150);
  });
});
