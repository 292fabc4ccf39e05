/**
 * Trap 12: an IPv6 connection inside IPv4 (protocol 41) towards the DMZ host. The third packet, an ACK of 72 bytes, was
 * lost by a real gateway whose engine keyed such flows by what it took for ports. Ours keys protocol 41 by its addresses.
 */
import { describe, expect, test } from 'vitest';
import { FAULT_CHECKSUM, FAULT_MAC, FAULT_PROTO41 } from '../../dataplane/shadow.ts';
import { ipv4, ipv6, tcp, udp, verify } from '../lib/build.ts';
import { WITH_KERNEL } from './kernel-port.ts';
import { DMZ, HOST, hits, macOf, SERVER, to, WAN, World } from './world.ts';

const INNER_A = '2001:db8:41::a';
const INNER_B = '2001:db8:41::b';

function inbound(segment: Parameters<typeof ipv6>[1]): Uint8Array {
  return ipv4({ src: SERVER, dst: WAN, proto: 41, id: 7 }, ipv6({ src: INNER_A, dst: INNER_B }, segment));
}
function outbound(segment: Parameters<typeof ipv6>[1]): Uint8Array {
  return ipv4({ src: DMZ, dst: SERVER, proto: 41, id: 8 }, ipv6({ src: INNER_B, dst: INNER_A }, segment));
}

function play(world: World): number {
  const c = { sport: 40000, dport: 80 };
  const s = { sport: 80, dport: 40000 };
  const timestamps: [number, number] = [1, 2];
  const options = { timestamps };
  let left = 0;
  const count = (frames: { frame: { frame: Uint8Array } }[]) => {
    for (const { frame } of frames) expect(verify(frame.frame)).toEqual([]);
    left += frames.length;
  };
  count(world.frame('wan', inbound(tcp({ ...c, seq: 100, flags: 'S', options: { mss: 1220 } }))));
  count(
    world.frame('lan', outbound(tcp({ ...s, seq: 900, ack: 101, flags: 'SA', options: { mss: 1220 } })), macOf(DMZ)),
  );
  // 20 + 40 + 32 bytes would be 92: without the link header and the outer one, the ACK is the 72 bytes of the report.
  const ack = inbound(tcp({ ...c, seq: 101, ack: 901, flags: 'A', options }));
  expect(ack.length - 20).toBe(72);
  count(world.frame('wan', ack));
  for (let n = 0; n < 20; n++) {
    count(world.frame('wan', inbound(tcp({ ...c, seq: 101 + 10 * n, ack: 901, flags: 'PA', options }, '0123456789'))));
    count(world.frame('lan', outbound(tcp({ ...s, seq: 901, ack: 111 + 10 * n, flags: 'A', options })), macOf(DMZ)));
  }
  count(world.frame('wan', inbound(tcp({ ...c, seq: 301, ack: 901, flags: 'FA', options }))));
  count(world.frame('lan', outbound(tcp({ ...s, seq: 901, ack: 302, flags: 'FA', options })), macOf(DMZ)));
  count(world.frame('wan', inbound(tcp({ ...c, seq: 302, ack: 902, flags: 'A', options }))));
  return left;
}

describe('6in4 through the DMZ', () => {
  test('SYN, SYN/ACK, ACK of 72 bytes, data, FIN: the same bytes with the engine off, on and in verify mode', () => {
    const world = new World();
    expect(play(world)).toBe(46);
    expect(world.mismatches).toEqual([]);
    expect(hits(world.off)).toBe(0);
    expect(hits(world.on)).toBeGreaterThanOrEqual(42);
    expect(hits(world.verify)).toBe(hits(world.on));
  });

  test('an engine that mangles protocol 41 is noticed, on every packet', () => {
    const world = new World({}, {}, { engineFault: FAULT_PROTO41 });
    expect(() => play(world)).toThrow(/with the engine on/);
    world.mismatches.length = 0;
    const c = { sport: 1, dport: 2 };
    const before = world.verify.counters.offload.mismatches;
    for (let n = 0; n < 10; n++) {
      world.verify.inject('wan', frameFromWan(inbound(udp(c, 'x'))));
      world.verify.inject('lan', frameFromLan(outbound(udp(c, 'x'))));
    }
    expect(world.verify.counters.offload.mismatches - before).toBeGreaterThan(15);
    expect(world.mismatches[0]).toMatch(/^byte \d+\n engine/);
    // The emulated engine works on a copy; what the kernel has mangled has left.
    expect(world.verify.take('wan').every((frame) => verify(frame).length === 0)).toBe(!WITH_KERNEL);
  });
});

describe('faults that verify must notice', () => {
  const flow = (world: World) => {
    for (let n = 0; n < 10; n++) {
      world.verify.inject(
        'lan',
        frameFromLan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 5000, dport: 53 }, `q${n}`)), HOST),
      );
      world.verify.inject(
        'wan',
        frameFromWan(ipv4({ src: SERVER, dst: WAN }, udp({ sport: 53, dport: 5000 }, `a${n}`))),
      );
    }
    return world.verify.counters.offload.mismatches;
  };

  test.each([
    ['forgets a checksum', FAULT_CHECKSUM],
    ['keeps a stale MAC', FAULT_MAC],
  ])('an engine that %s', (_, engineFault) => {
    const world = new World({}, {}, { engineFault });
    expect(flow(world)).toBeGreaterThan(15);
    expect(world.mismatches.length).toBe(world.verify.counters.offload.mismatches);
  });

  test('and none without a fault', () => {
    const world = new World();
    expect(flow(world)).toBe(0);
    expect(hits(world.verify)).toBeGreaterThan(15);
  });
});

function frameFromWan(packet: Uint8Array): Uint8Array {
  return to('wan', packet);
}
function frameFromLan(packet: Uint8Array, host = DMZ): Uint8Array {
  return to('lan', packet, macOf(host));
}
