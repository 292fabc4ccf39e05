/** Packets that wait for a neighbour: order, bounds, and everything about them kept. */
import { describe, expect, it } from 'vitest';
import { CAPACITY, Hold, holdBucket, PER_NEIGHBOUR, QUESTION_BURST } from '../../dataplane/hold.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import { ip, Random } from '../lib/build.ts';

const memory = new Int32Array(4096);

function packet(slot: number, neighbour: number): Packet {
  const p = new Packet();
  p.slot = slot;
  p.family = 4;
  p.outPort = 1;
  p.n0 = neighbour;
  return p;
}

/** Slots in the order in which they are looked at. */
function order(hold: Hold): number[] {
  const p = new Packet();
  const out: number[] = [];
  const positions = new Int32Array(CAPACITY);
  const count = hold.positions(positions);
  for (const n of positions.subarray(0, count)) {
    hold.restore(n, p, memory);
    out.push(p.slot);
  }
  return out;
}

describe('hold', () => {
  it('keeps the order of arrival, whatever places came free in between', () => {
    const hold = new Hold();
    for (let slot = 0; slot < 10; slot++) expect(hold.keep(packet(slot, slot), 0)).toBe(-1);
    hold.forget(3);
    hold.forget(0);
    hold.keep(packet(20, 1), 0);
    hold.keep(packet(21, 1), 0);
    expect(order(hold)).toEqual([1, 2, 4, 5, 6, 7, 8, 9, 20, 21]);
    expect(hold.count).toBe(10);
  });

  it(`one next hop has at most ${PER_NEIGHBOUR} packets; its own oldest goes first, and nobody else's`, () => {
    const hold = new Hold();
    hold.keep(packet(1000, 2), 0);
    for (let slot = 0; slot < PER_NEIGHBOUR; slot++) expect(hold.keep(packet(slot, 1), 0)).toBe(-1);
    expect(hold.keep(packet(500, 1), 0)).toBe(0);
    expect(hold.keep(packet(501, 1), 0)).toBe(1);
    expect(hold.count).toBe(PER_NEIGHBOUR + 1);
    expect(order(hold).slice(0, 3)).toEqual([1000, 2, 3]);
  });

  it('full: a next hop that waits already gives up its own oldest, a new one the oldest of all', () => {
    const hold = new Hold();
    for (let slot = 0; slot < CAPACITY; slot++) expect(hold.keep(packet(slot, slot >> 3), 0)).toBe(-1);
    expect(hold.keep(packet(9999, 5), 0)).toBe(40);
    expect(hold.keep(packet(9998, 999_999), 0)).toBe(0);
    expect(hold.count).toBe(CAPACITY);
    expect(order(hold).slice(-2)).toEqual([9999, 9998]);
    expect([hold.isAsked(packet(0, 999_999), 99), hold.isAsked(packet(0, 777), 99)]).toEqual([true, false]);
    expect(hold.isAsked(packet(0, 999_999), 100)).toBe(false);
  });

  it('ten thousand arrivals and departures: the same as a plain list', () => {
    const random = new Random(3);
    const hold = new Hold();
    let model: { slot: number; hop: number }[] = [];
    const positions = new Int32Array(CAPACITY);
    for (let slot = 0; slot < 10_000; slot++) {
      if (random.chance(0.4) && model.length > 0) {
        // Those of one next hop go in their order.
        const { hop } = random.pick(model);
        const at = model.findIndex((m) => m.hop === hop);
        hold.positions(positions);
        hold.forget(positions[at]);
        model = model.toSpliced(at, 1);
      }
      // Mostly few next hops, so that their own bound is met; sometimes many, so that all places are.
      const hop = random.chance(0.5) ? random.int(0, 3) : slot;
      const same = model.filter((m) => m.hop === hop);
      const gone = same.length >= PER_NEIGHBOUR ? same[0] : model.length < CAPACITY ? undefined : (same[0] ?? model[0]);
      expect(hold.keep(packet(slot, hop), 0)).toBe(gone?.slot ?? -1);
      model = [...model.filter((m) => m !== gone), { slot, hop }];
      if (slot % 500 === 0) expect(order(hold)).toEqual(model.map((m) => m.slot));
    }
    expect(order(hold)).toEqual(model.map((m) => m.slot));
  });

  it(`asks for ${QUESTION_BURST} unknown next hops of a port at once, then for one a millisecond, whatever other ports do`, () => {
    const hold = new Hold();
    // Clocks wrap: the second start is just before.
    for (const start of [5, 0x7ffffff0]) {
      const count = (port: number, now: number) => {
        let n = 0;
        while (hold.mayAsk(port, now | 0, true)) n++;
        return n;
      };
      expect(count(1, start)).toBe(QUESTION_BURST);
      expect(count(1, start + 10)).toBe(10);
      expect(count(2, start + 10)).toBe(QUESTION_BURST);
      expect(count(1, start + 100_000)).toBe(QUESTION_BURST);
      expect(hold.mayAsk(1, (start + 100_001) | 0, false)).toBe(true);
      expect(count(1, start + 100_001)).toBe(1);
    }
  });

  it('the hosts of an IPv4 subnet all shared one bucket: now they spread, and so do those of a /64', () => {
    const fullest = (address: (n: number) => string) => {
      const load = new Int32Array(256);
      for (let n = 1; n < 255; n++) {
        const raw = new Int32Array(4);
        new Uint8Array(raw.buffer).set(ip(address(n)));
        load[holdBucket(1, raw[0], raw[1], raw[2], raw[3])]++;
      }
      return Math.max(...load);
    };
    expect(fullest((n) => `203.0.113.${n}`)).toBeLessThan(8);
    expect(fullest((n) => `10.0.${n}.1`)).toBeLessThan(8);
    expect(fullest((n) => `2001:db8::${n.toString(16)}`)).toBeLessThan(8);
    expect(fullest((n) => `2001:db8::${n.toString(16)}:0:0:1`)).toBeLessThan(8);
  });

  it('gives back every field that the rest of the walk needs', () => {
    const hold = new Hold();
    const p = packet(7, 9);
    let value = 100;
    const fields = [
      'off',
      'len',
      'port',
      'l4',
      'end',
      'proto',
      's0',
      'd0',
      'ports',
      'rports',
      'nexthop',
      'n1',
      'n2',
      'n3',
      'ct',
      'dir',
      'ctinfo',
      'ttl',
      'tos',
      'flags',
      'gsoType',
      'gsoSize',
      'innerL3',
      'innerL4',
      'innerProto',
      'innerDir',
      'fragOffset',
      'own',
      'mtu',
      'dontFragment',
      'hasOptions',
      'groupMac',
    ] as const;
    for (const field of fields) p[field] = ++value;
    p.gsoSize = 65535;
    p.family = 6;
    p.l3 = 160;
    memory.set([1, 2, 3, 4, 5, 6, 7, 8], (160 >> 2) + 2);
    hold.keep(p, 4711);
    const back = new Packet();
    hold.restore(0, back, memory);
    for (const field of fields) expect([field, back[field]]).toEqual([field, p[field]]);
    expect([back.slot, back.outPort, back.n0, back.l3]).toEqual([7, 1, 9, 160]);
    expect([back.rs0, back.rs1, back.rs2, back.rs3, back.rd0, back.rd1, back.rd2, back.rd3]).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    expect(hold.since(0)).toBe(4711);
  });
});
