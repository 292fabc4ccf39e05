/**
 * Hostile frames: whatever a mutated ARP, ND or ping frame looks like, nothing throws, nothing malformed makes an entry
 * or gets an answer, and all that is sent is well formed (World checks every frame).
 */
import { describe, expect, test } from 'vitest';
import * as build from '../../lib/build.ts';
import { advertisement, arpFrame, HOST, MACS, ndFrame, solicitation, World } from './world.ts';

const seeds = [
  arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.1' }),
  arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' }),
  solicitation(),
  solicitation({ src: '::', option: null }),
  solicitation({ ext: [build.hopByHop(), build.destinationOptions()] }),
  advertisement(),
  ndFrame({ type: 133, dst: 'ff02::2' }),
  ndFrame({ type: 134, dst: 'ff02::1' }),
  build.ethernet(
    { src: HOST, dst: MACS[0] },
    build.ipv4(
      { src: '10.0.0.10', dst: '10.0.0.1', options: build.hex('94040000') },
      build.icmp({ type: 8, id: 1 }, 'x'),
    ),
  ),
  build.ethernet(
    { src: HOST, dst: MACS[0] },
    build.ipv6({ src: '2001:db8::a', dst: '2001:db8::1' }, build.icmpv6({ type: 128, id: 1 }, 'x')),
  ),
];

function mutate(random: build.Random, frame: Uint8Array): Uint8Array {
  let out: Uint8Array = frame.slice();
  for (let edits = random.int(1, 4); edits > 0; edits--) {
    const at = random.int(12, Math.max(12, out.length - 1));
    switch (random.int(0, 4)) {
      case 0:
        if (at < out.length) out[at] ^= 1 << random.int(0, 7);
        break;
      case 1:
        if (at < out.length) out[at] = random.pick([0, 1, 2, 0x7f, 0x80, 0xff]);
        break;
      case 2:
        out = out.slice(0, random.int(0, out.length));
        break;
      case 3:
        out = build.concat(out, random.bytes(random.int(1, 40)));
        break;
      default:
        out = build.concat(out.subarray(0, at), random.bytes(random.int(1, 9)), out.subarray(at));
    }
  }
  return out;
}

/** Fills in the checksum again, so that the mutation reaches what is behind it. */
function repair(frame: Uint8Array): void {
  if (frame.length < 62 || build.get16(frame, 12) !== 0x86dd || frame[20] !== 58) return;
  const end = 54 + build.get16(frame, 18);
  if (end > frame.length || end < 58) return;
  build.put16(frame, 56, 0);
  const sum = build.checksum(
    build.pseudoHeader(frame.subarray(22, 38), frame.subarray(38, 54), 58, end - 54),
    frame.subarray(54, end),
  );
  build.put16(frame, 56, sum);
}

/** True when the frame may rightly teach a neighbour: judged anew, field by field, without the code under test. */
function mayTeach(frame: Uint8Array): boolean {
  if (build.verify(frame).length > 0) return false;
  const type = build.get16(frame, 12);
  if (type === 0x0806) return frame.length >= 42 && build.get16(frame, 20) === 1 && (frame[22] & 1) === 0;
  if (type !== 0x86dd || frame[21] !== 255) return false;
  const end = 54 + build.get16(frame, 18);
  let next = frame[20];
  let at = 54;
  while ((next === 0 || next === 60 || next === 43 || next === 135) && at + 8 <= end) {
    next = frame[at];
    at += (frame[at + 1] + 1) * 8;
  }
  if (next !== 58 || at + 8 > end || frame[at + 1] !== 0) return false;
  const header = { 133: 8, 134: 16, 135: 24 }[frame[at]];
  if (header === undefined) return false;
  for (at += header; at < end; at += frame[at + 1] * 8) if (at + 2 > end || frame[at + 1] === 0) return false;
  return at === end;
}

describe('mutated frames', () => {
  test.each([1, 2, 3])('seed %d', (seed) => {
    const random = new build.Random(seed);
    let taught = 0;
    let refused = 0;
    for (let round = 0; round < 2500; round++) {
      const world = new World({ capacity: 32 });
      const frame = mutate(random, random.pick(seeds));
      if (random.chance(0.7)) repair(frame);
      world.frame(0, frame);
      if (world.neighbours.count > 0) {
        taught++;
        expect(mayTeach(frame), build.toHex(frame)).toBe(true);
      } else refused++;
      // A claim of our own address teaches nothing, but is defended (RFC 5227); it must be well formed nevertheless.
      const claim = build.get16(frame, 12) === 0x0806 && build.verify(frame).length === 0;
      if (world.sent.length > 0) expect(claim || mayTeach(frame), build.toHex(frame)).toBe(true);
      if (world.output.length > 0) expect(build.verify(frame)).toEqual([]);
    }
    // The mutations are neither all harmless nor all fatal: both sides were put to the test.
    expect(taught).toBeGreaterThan(100);
    expect(refused).toBeGreaterThan(500);
  });

  test('random bytes behind every EtherType, at every place of the network header', () => {
    const random = new build.Random(4);
    const world = new World();
    for (let round = 0; round < 5000; round++) {
      const frame = random.bytes(random.int(0, 120));
      const etherType = random.pick([0x0800, 0x0806, 0x86dd]);
      world.step({ kind: 'frame', port: random.int(0, 80), frame, etherType, l3: random.int(0, 30) });
    }
    expect(world.neighbours.count).toBe(0);
    expect(world.sent).toEqual([]);
  });
});
