/** Software segmentation and completed checksums against a naive reference. */
import { describe, expect, it } from 'vitest';
import {
  Frames,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_HDRLEN,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../../../dataplane/frames.ts';
import { completeChecksum, segment } from '../../../dataplane/ports/segment.ts';
import { random } from './lab.ts';

interface Shape {
  family: 4 | 6;
  tcp: boolean;
  vlans: number;
  /** IPv4 option bytes, or IPv6 hop-by-hop header bytes. */
  extra: number;
  tcpOptions: number;
  payload: number;
}

/** Big-endian one's complement sum (RFC 1071), the slow way. */
function naiveSum(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    total += (bytes[i] << 8) + (i + 1 < bytes.length ? bytes[i + 1] : 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

interface Parsed {
  l3: number;
  l4: number;
  header: number;
  payload: Uint8Array;
}

function parse(frame: Uint8Array, shape: Shape): Parsed {
  const l3 = 14 + 4 * shape.vlans;
  const l4 = l3 + (shape.family === 4 ? 20 : 40) + shape.extra;
  const header = l4 + (shape.tcp ? 20 + shape.tcpOptions : 8);
  return { l3, l4, header, payload: frame.slice(header) };
}

function pseudoHeader(frame: Uint8Array, shape: Shape): Uint8Array {
  const { l3, l4 } = parse(frame, shape);
  const addresses = shape.family === 4 ? frame.slice(l3 + 12, l3 + 20) : frame.slice(l3 + 8, l3 + 40);
  const length = frame.length - l4;
  return new Uint8Array([...addresses, 0, shape.tcp ? 6 : 17, length >> 8, length & 255]);
}

/** A super-frame with a partial checksum, as a kernel with TSO or USO hands it over. */
function build(shape: Shape, next: () => number): Uint8Array {
  const { l3, l4, header } = parse(new Uint8Array(0), shape);
  const frame = new Uint8Array(header + shape.payload);
  for (let i = 0; i < frame.length; i++) frame[i] = next();
  const view = new DataView(frame.buffer);
  for (let v = 0; v < shape.vlans; v++) view.setUint16(12 + 4 * v, v === 0 && shape.vlans > 1 ? 0x88a8 : 0x8100);
  view.setUint16(l3 - 2, shape.family === 4 ? 0x0800 : 0x86dd);
  const proto = shape.tcp ? 6 : 17;
  if (shape.family === 4) {
    frame[l3] = 0x40 | ((20 + shape.extra) / 4);
    view.setUint16(l3 + 2, frame.length - l3);
    view.setUint16(l3 + 6, 0x4000);
    frame[l3 + 9] = proto;
  } else {
    frame[l3] = 0x60;
    view.setUint16(l3 + 4, frame.length - l3 - 40);
    frame[l3 + 6] = shape.extra === 0 ? proto : 0;
    if (shape.extra > 0) {
      frame[l3 + 40] = proto;
      frame[l3 + 41] = shape.extra / 8 - 1;
    }
  }
  if (shape.tcp) frame[l4 + 12] = ((20 + shape.tcpOptions) / 4) << 4;
  else view.setUint16(l4 + 4, frame.length - l4);
  view.setUint16(l4 + (shape.tcp ? 16 : 6), naiveSum(pseudoHeader(frame, shape)));
  return frame;
}

function put(frames: Frames, frame: Uint8Array, shape: Shape): number {
  const slot = frames.alloc(frame.length);
  const m = slot * META_WORDS;
  const { l4, header } = parse(frame, shape);
  frames.u8.set(frame, frames.meta[m + META_OFF]);
  frames.meta[m + META_LEN] = frame.length;
  frames.meta[m + META_PORT] = 5;
  frames.meta[m + META_FLAGS] = 1;
  frames.meta[m + META_CSUM] = l4 | ((shape.tcp ? 16 : 6) << 16);
  frames.meta[m + META_GSO] = (shape.tcp ? (shape.family === 4 ? 1 : 4) : 5) | (1000 << 16);
  frames.meta[m + META_HDRLEN] = header;
  return slot;
}

function get(frames: Frames, slot: number): Uint8Array {
  const off = frames.meta[slot * META_WORDS + META_OFF];
  return frames.u8.slice(off, off + frames.meta[slot * META_WORDS + META_LEN]);
}

/** What RFC 9293, RFC 768, RFC 791 and RFC 8200 ask of one piece, written down byte by byte. */
function expected(frame: Uint8Array, shape: Shape, size: number, n: number, count: number): Uint8Array {
  const { l3, l4, header, payload } = parse(frame, shape);
  const part = payload.slice(n * size, (n + 1) * size);
  const piece = new Uint8Array([...frame.slice(0, header), ...part]);
  const view = new DataView(piece.buffer);
  if (shape.family === 4) {
    view.setUint16(l3 + 2, piece.length - l3);
    view.setUint16(l3 + 4, (view.getUint16(l3 + 4) + n) & 0xffff);
    view.setUint16(l3 + 10, 0);
    view.setUint16(l3 + 10, 0xffff - naiveSum(piece.slice(l3, l3 + 20 + shape.extra)));
  } else view.setUint16(l3 + 4, piece.length - l3 - 40);
  if (shape.tcp) {
    view.setUint32(l4 + 4, view.getUint32(l4 + 4) + n * size);
    if (n < count - 1) piece[l4 + 13] &= 0xff - 0x09; // FIN and PSH belong to the last byte
    if (n > 0) piece[l4 + 13] &= 0x7f; // CWR to the first piece
  } else view.setUint16(l4 + 4, piece.length - l4);
  const field = l4 + (shape.tcp ? 16 : 6);
  view.setUint16(field, 0);
  const check = 0xffff - naiveSum(new Uint8Array([...pseudoHeader(piece, shape), ...piece.slice(l4)]));
  view.setUint16(field, check === 0 ? 0xffff : check);
  return piece;
}

describe('segment', () => {
  it('cuts super-frames as the naive reference does (300 random shapes)', () => {
    const next = random(7);
    const frames = new Frames(512, 300);
    const out = new Int32Array(1024);
    for (let run = 0; run < 300; run++) {
      const family = next() & 1 ? 6 : 4;
      const shape: Shape = {
        family,
        tcp: (next() & 1) === 0,
        vlans: next() % 3,
        extra: next() & 1 ? 0 : family === 4 ? 4 * (next() % 11) : 8 * (next() % 4),
        tcpOptions: 4 * (next() % 11),
        payload: run % 20 === 0 ? next() % 3 : 1 + (next() % 60000),
      };
      const size = 200 + (next() % 1400) + (run % 7 === 0 ? 3000 : 0);
      const frame = build(shape, next);
      const slot = put(frames, frame, shape);
      const count = segment(frames, slot, size, out);
      const wanted = Math.max(1, Math.ceil(shape.payload / size));
      expect(count).toBe(wanted);
      for (let n = 0; n < count; n++) {
        expect(
          Buffer.compare(get(frames, out[n]), expected(frame, shape, size, n, count)),
          `run ${run} piece ${n}`,
        ).toBe(0);
        const m = out[n] * META_WORDS;
        expect([frames.meta[m + META_PORT], frames.meta[m + META_FLAGS], frames.meta[m + META_GSO]]).toEqual([5, 0, 0]);
        frames.free(out[n]);
      }
      // The original is not touched: the caller may still trace or mirror it.
      expect(Buffer.compare(get(frames, slot), frame)).toBe(0);
      frames.free(slot);
    }
    expect([frames.freeSmallCount, frames.freeLargeCount]).toEqual([512, 300]);
  });

  const plain: Shape = { family: 4, tcp: true, vlans: 0, extra: 0, tcpOptions: 12, payload: 9000 };

  it('gives everything back when slots run out', () => {
    const frames = new Frames(5, 1);
    const slot = put(frames, build(plain, random(1)), plain);
    expect(segment(frames, slot, 1000, new Int32Array(64))).toBe(-1);
    expect([frames.freeSmallCount, frames.freeLargeCount]).toEqual([5, 0]);
  });

  it("refuses fragments, frames shorter than their headers say, and a GSO type that is not the packet's", () => {
    const frames = new Frames(64, 4);
    const out = new Int32Array(64);
    const frame = build(plain, random(1));
    const cases: ((copy: Uint8Array, slot: number) => void)[] = [
      (copy) => void (copy[20] = 0x20),
      (copy) => void (copy[21] = 1),
      (copy) => void (copy[9 + 14] = 47),
      (copy) => void (copy[2 + 14] = 0xff),
      (copy) => void (copy[14] = 0x44),
      (copy) => void (copy[46] = 0x10),
      (copy) => void (copy[12] = 0x88),
      (_, slot) => void (frames.meta[slot * META_WORDS + META_GSO] = 5 | (1000 << 16)),
      (_, slot) => void (frames.meta[slot * META_WORDS + META_LEN] = 40),
    ];
    for (const [n, spoil] of cases.entries()) {
      const copy = frame.slice();
      const slot = put(frames, copy, plain);
      spoil(copy, slot);
      frames.u8.set(copy, frames.meta[slot * META_WORDS + META_OFF]);
      expect(segment(frames, slot, 1000, out), `case ${n}`).toBe(-1);
      frames.free(slot);
      expect([frames.freeSmallCount, frames.freeLargeCount]).toEqual([64, 4]);
    }
    const slot = put(frames, frame, plain);
    expect(segment(frames, slot, 0, out)).toBe(-1);
  });
});

describe('completeChecksum', () => {
  it('turns the partial sum into the checksum of the naive reference', () => {
    const next = random(3);
    const frames = new Frames(8, 2);
    for (let run = 0; run < 200; run++) {
      const shape: Shape = {
        family: next() & 1 ? 6 : 4,
        tcp: (next() & 1) === 0,
        vlans: next() % 3,
        extra: 0,
        tcpOptions: 0,
        payload: next() % 1400,
      };
      const frame = build(shape, next);
      const slot = put(frames, frame, shape);
      expect(completeChecksum(frames, slot)).toBe(true);
      const got = get(frames, slot);
      const { l4 } = parse(got, shape);
      // A correct checksum makes the whole sum all ones.
      expect(naiveSum(new Uint8Array([...pseudoHeader(got, shape), ...got.slice(l4)]))).toBe(0xffff);
      expect(frames.meta[slot * META_WORDS + META_FLAGS]).toBe(0);
      frames.free(slot);
    }
  });

  it('works from an odd start, and never writes a zero', () => {
    const frames = new Frames(2, 0);
    const slot = frames.alloc(60);
    const m = slot * META_WORDS;
    const off = ++frames.meta[m + META_OFF];
    frames.meta[m + META_LEN] = 25;
    frames.meta[m + META_FLAGS] = 1;
    frames.meta[m + META_CSUM] = 14 | (6 << 16);
    const bytes = [0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frames.u8.set(bytes, off + 14);
    expect(completeChecksum(frames, slot)).toBe(true);
    expect([...frames.u8.slice(off + 20, off + 22)]).toEqual([0xff, 0xff]);
    frames.u8.set([0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0x01], off + 14);
    completeChecksum(frames, slot);
    // 0x1234 + 0x0100 (odd last byte), complemented.
    expect([...frames.u8.slice(off + 20, off + 22)]).toEqual([0xec, 0xcb]);
  });

  it('leaves a frame alone whose checksum would lie outside of it', () => {
    const frames = new Frames(2, 0);
    const slot = frames.alloc(60);
    const m = slot * META_WORDS;
    frames.meta[m + META_LEN] = 40;
    frames.meta[m + META_FLAGS] = 1;
    frames.meta[m + META_CSUM] = 34 | (6 << 16);
    expect(completeChecksum(frames, slot)).toBe(false);
  });
});
