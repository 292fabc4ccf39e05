/** Ports of kind tap: frames cross byte for byte by both back ends, super-frames with their metadata. */
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type Frames,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../../../dataplane/frames.ts';
import { until } from '../../lib/until.ts';
import { addNetns, deleteNetns, ifindex, ip, random, whyNotLive } from './lab.ts';

const skipped = whyNotLive();
if (skipped !== '') console.warn(`SKIPPED: live TAP tests (${skipped})`);

/** A frame of `bytes` random bytes with an EtherType that the kernel does not touch. */
function randomFrame(next: () => number, bytes: number): Uint8Array {
  const frame = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) frame[i] = next();
  frame[0] = 0x02;
  frame[12] = 0x88;
  frame[13] = 0xb5; // local experimental EtherType 1
  return frame;
}

/** Short enough to print when a test fails. */
function digest(frame: Uint8Array): string {
  return `${frame.length} ${createHash('sha256').update(frame).digest('hex').slice(0, 16)}`;
}

function bytesOf(frames: Frames, slot: number): Uint8Array {
  const off = frames.meta[slot * META_WORDS + META_OFF];
  return frames.u8.slice(off, off + frames.meta[slot * META_WORDS + META_LEN]);
}

describe.skipIf(skipped !== '')('TAP', async () => {
  const { openTap, TapPort } = await import('../../../dataplane/ports/tap.ts');
  const { liveArena } = await import('../../../dataplane/ports/arena.ts');
  const { inNetns } = await import('../../../dataplane/ports/netns.ts');
  const ffi = await import('../../../dataplane/ports/ffi.ts');
  const { Poller } = await import('../../../dataplane/ports/poller.ts');
  const { PeerSocket } = await import('./peer.ts');
  const { linkState } = await import('../../../dataplane/ports/links.ts');
  const { UringGroup, UringTapPort } = await import('../../../dataplane/ports/uring.ts');

  let netns = '';
  beforeAll(() => {
    netns = addNetns();
  });
  afterAll(() => deleteNetns(netns));
  let devices = 0;

  for (const backend of ['readwrite', 'uring'] as const)
    for (const vnetHeader of [true, false]) {
      it(`carries frames both ways unchanged (${backend}, ${vnetHeader ? 'with' : 'without'} virtio header)`, (context) => {
        const group = backend === 'uring' ? UringGroup.open() : null;
        if (backend === 'uring' && group === null) {
          console.warn('SKIPPED: io_uring is not usable here');
          context.skip();
        }
        const name = `t${devices++}`;
        const tap = openTap({ name, queues: 1, vnetHeader, offloads: 0x6f, mtu: 9000, netns });
        const options = { name, number: 3, fd: tap.fds[0], vnetHeader, offloads: tap.offloads };
        const port = group === null ? new TapPort(options) : new UringTapPort(options, group);
        const peer = new PeerSocket(netns, ifindex(netns, name));
        // Few slots, so that the run passes through every one of them several times.
        const frames = liveArena(96, 40);
        const next = random(1);
        const slots = new Int32Array(64);
        try {
          expect(port.rxBurst(frames, slots, 64)).toBe(0);
          for (let round = 0; round < 20; round++) {
            const sent: Uint8Array[] = [];
            for (let i = 0; i < 30; i++) sent.push(randomFrame(next, 14 + (next() % (round < 10 ? 1500 : 9000))));
            for (const frame of sent) peer.send(frame);
            const seen: Uint8Array[] = [];
            for (let turn = 0; turn < 100 && seen.length < sent.length; turn++) {
              const got = port.rxBurst(frames, slots, 7);
              for (let i = 0; i < got; i++) {
                const m = slots[i] * META_WORDS;
                const off = frames.meta[m + META_OFF];
                expect(frames.meta[m + META_PORT]).toBe(3);
                expect(off & 3).toBe(2);
                expect(frames.meta[m + META_GSO]).toBe(0);
                seen.push(frames.u8.slice(off, off + frames.meta[m + META_LEN]));
                // A small frame must not take one of the few large slots.
                expect(slots[i] < frames.small).toBe(frames.meta[m + META_LEN] <= 1982);
              }
              // Send the same slots back.
              port.txBurst(frames, slots, got);
            }
            expect(seen.map((frame) => digest(frame))).toEqual(sent.map((frame) => digest(frame)));
            port.rxBurst(frames, slots, 0); // writes that wait for the next turn
            port.rxBurst(frames, slots, 64);
            for (const frame of sent) expect(Buffer.compare(peer.receive() ?? new Uint8Array(0), frame)).toBe(0);
            expect(peer.receive()).toBe(null);
          }
          expect(port.counters.rxPackets).toBe(600);
          expect(port.counters.txPackets).toBe(600);
          expect(port.counters.rxErrors + port.counters.txErrors).toBe(0);
          if (group !== null) expect(port.counters.syscalls).toBeLessThan(600);
        } finally {
          port.close();
          peer.close();
        }
        expect(frames.freeSmallCount).toBe(frames.small);
        expect(frames.freeLargeCount).toBe(frames.large);
      });

      it(`notices that its device is gone (${backend}, ${vnetHeader})`, (context) => {
        const group = backend === 'uring' ? UringGroup.open() : null;
        if (backend === 'uring' && group === null) context.skip();
        const name = `t${devices++}`;
        const tap = openTap({ name, queues: 1, vnetHeader, offloads: 0x6f, mtu: 1500, netns });
        const options = { name, number: 3, fd: tap.fds[0], vnetHeader, offloads: tap.offloads };
        const port = group === null ? new TapPort(options) : new UringTapPort(options, group);
        const frames = liveArena(64, 4);
        const slots = new Int32Array(64);
        port.rxBurst(frames, slots, 64);
        expect(port.linkUp).toBe(true);
        ip(netns, 'link', 'delete', name);
        port.rxBurst(frames, slots, 64);
        expect(port.linkUp).toBe(false);
        slots[0] = frames.alloc(60);
        frames.meta[slots[0] * META_WORDS + META_LEN] = 60;
        port.txBurst(frames, slots, 1);
        port.rxBurst(frames, slots, 64);
        expect(port.counters.txErrors).toBe(1);
        port.close();
        expect(frames.freeSmallCount).toBe(64);
        expect(frames.freeLargeCount).toBe(4);
      });

      it(`goes on with another device in place of a deleted one (${backend}, ${vnetHeader})`, (context) => {
        const group = backend === 'uring' ? UringGroup.open() : null;
        if (backend === 'uring' && group === null) context.skip();
        const name = `t${devices++}`;
        const make = () => openTap({ name, queues: 1, vnetHeader, offloads: 0x6f, mtu: 1500, netns });
        const tap = make();
        const options = { name, number: 3, fd: tap.fds[0], vnetHeader, offloads: tap.offloads };
        const port = group === null ? new TapPort(options) : new UringTapPort(options, group);
        const frames = liveArena(64, 4);
        const slots = new Int32Array(64);
        for (const fill of [1, 2, 3]) {
          const peer = new PeerSocket(netns, ifindex(netns, name));
          const sleeper = new Poller([port], -1);
          const sent = new Uint8Array(60).fill(fill);
          sent.set([0x88, 0xb5], 12);
          peer.send(sent);
          let got = port.rxBurst(frames, slots, 64);
          for (let turn = 0; turn < 4 && got === 0; turn++) {
            sleeper.wait(10_000);
            got = port.rxBurst(frames, slots, 64);
          }
          expect(got).toBe(1);
          expect(bytesOf(frames, slots[0])).toEqual(sent);
          port.txBurst(frames, slots, 1);
          port.rxBurst(frames, slots, 64);
          expect(peer.await()).toEqual(sent);
          peer.close();
          ip(netns, 'link', 'delete', name);
          port.rxBurst(frames, slots, 64);
          expect(port.linkUp).toBe(false);
          ffi.replaceDescriptor(tap.fds[0], make().fds[0], name);
          port.renew();
          expect(port.linkUp).toBe(true);
        }
        port.close();
        expect([frames.freeSmallCount, frames.freeLargeCount]).toEqual([64, 4]);
      });

      it(`counts frames that find no slot, and goes on (${backend}, ${vnetHeader})`, (context) => {
        const group = backend === 'uring' ? UringGroup.open() : null;
        if (backend === 'uring' && group === null) context.skip();
        const name = `t${devices++}`;
        const tap = openTap({ name, queues: 1, vnetHeader, offloads: 0x6f, mtu: 9000, netns });
        const options = { name, number: 3, fd: tap.fds[0], vnetHeader, offloads: tap.offloads };
        const port = group === null ? new TapPort(options) : new UringTapPort(options, group);
        const peer = new PeerSocket(netns, ifindex(netns, name));
        const frames = liveArena(8, 1);
        const slots = new Int32Array(64);
        const next = random(2);
        const sizes = [5000, 6000, 100];
        const sent = sizes.map((size) => randomFrame(next, size));
        for (const frame of sent) peer.send(frame);
        let seen = 0;
        let last = 0;
        for (let turn = 0; turn < 8; turn++) {
          const got = port.rxBurst(frames, slots.subarray(seen), 64 - seen);
          for (let i = 0; i < got; i++) last = frames.meta[slots[seen + i] * META_WORDS + META_LEN];
          seen += got;
        }
        expect(seen).toBe(2);
        expect(last).toBe(100);
        expect(port.counters.rxErrors).toBe(1);
        port.txBurst(frames, slots, seen);
        port.rxBurst(frames, slots, 64);
        expect(Buffer.compare(peer.receive()!, sent[0])).toBe(0);
        port.close();
        peer.close();
        expect(frames.freeSmallCount).toBe(8);
        expect(frames.freeLargeCount).toBe(1);
      });
    }

  it('receives with io_uring whatever slots are left', (context) => {
    const group = UringGroup.open();
    if (group === null) {
      console.warn('SKIPPED: io_uring is not usable here');
      context.skip();
      return;
    }
    const name = `t${devices++}`;
    const tap = openTap({ name, queues: 1, vnetHeader: true, offloads: 0x6f, mtu: 9000, netns });
    const port = new UringTapPort({ name, number: 3, fd: tap.fds[0], vnetHeader: true, offloads: tap.offloads }, group);
    const peer = new PeerSocket(netns, ifindex(netns, name));
    const frames = liveArena(16, 6);
    const next = random(3);
    const slots = new Int32Array(64);
    const exchange = (sizes: number[], large: (size: number) => boolean): void => {
      const sent = sizes.map((size) => randomFrame(next, size));
      for (const frame of sent) peer.send(frame);
      const seen: string[] = [];
      for (let turn = 0; turn < 20 && seen.length < sent.length; turn++) {
        const got = port.rxBurst(frames, slots, 64);
        for (let i = 0; i < got; i++) {
          const off = frames.meta[slots[i] * META_WORDS + META_OFF];
          const length = frames.meta[slots[i] * META_WORDS + META_LEN];
          seen.push(digest(frames.u8.slice(off, off + length)));
          expect(slots[i] >= frames.small).toBe(large(length));
          frames.free(slots[i]);
        }
      }
      expect(seen).toEqual(sent.map((frame) => digest(frame)));
    };
    const hold = (count: number, bytes: number): number[] => Array.from({ length: count }, () => frames.alloc(bytes));
    try {
      const sizes = [60, 5000, 181, 182, 183, 1982, 1983, 9014, 61];
      exchange(sizes, (size) => size > 1982);
      // Half of the large slots in use: frames come in two pieces.
      const parked = frames.large - frames.freeLargeCount;
      const large = hold(5 - parked, 9000);
      exchange(sizes, (size) => size > 1982);
      exchange(sizes, (size) => size > 1982);
      for (const slot of large) frames.free(slot);
      // No small slot: the large one that was read to is handed over.
      const small = hold(frames.freeSmallCount, 60);
      exchange([60], () => true);
      for (const slot of small) frames.free(slot);
      exchange(sizes, (size) => size > 1982);
      expect(port.counters.rxErrors).toBe(0);
    } finally {
      port.close();
      peer.close();
      group.close();
    }
    expect(frames.freeSmallCount).toBe(frames.small);
    expect(frames.freeLargeCount).toBe(frames.large);
  });

  it('a closed ring holds no device: the kernel takes it down later, and until then the name was taken', async (context) => {
    const group = UringGroup.open();
    if (group === null) {
      context.skip();
      return;
    }
    const name = `t${devices++}`;
    const tap = openTap({ name, queues: 1, vnetHeader: true, offloads: 0x6f, mtu: 1500, netns });
    const port = new UringTapPort({ name, number: 3, fd: tap.fds[0], vnetHeader: true, offloads: 0 }, group);
    expect(port.rxBurst(liveArena(8, 2), new Int32Array(8), 8)).toBe(0);
    // As if the kernel had not come to it yet: F_DUPFD.
    const late = ffi.fcntl((group as unknown as { fd: number }).fd, 0, 0);
    expect(late).toBeGreaterThan(0);
    try {
      group.close();
      ffi.close(tap.fds[0]);
      await until('the device to go', () => linkState(name, netns).ifindex === 0);
    } finally {
      ffi.close(late);
    }
  });

  it('hands over a UDP datagram with a partial checksum, which completeChecksum finishes', async () => {
    const { completeChecksum } = await import('../../../dataplane/ports/segment.ts');
    const name = `t${devices++}`;
    const tap = openTap({ name, queues: 1, vnetHeader: true, offloads: 0x6f, mtu: 1500, netns });
    expect(tap.offloads & 7).toBe(7);
    const port = new TapPort({ name, number: 1, fd: tap.fds[0], vnetHeader: true, offloads: tap.offloads });
    ip(netns, 'address', 'add', '192.0.2.1/24', 'dev', name);
    ip(netns, 'neighbour', 'add', '192.0.2.2', 'lladdr', '02:00:00:00:00:02', 'dev', name);
    // Opened inside, used outside: a UDP socket of the kernel whose datagrams leave through the TAP.
    const fd = inNetns(netns, () => ffi.socket(2, 2, 0));
    const to = new Uint8Array([2, 0, 0x10, 0, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(ffi.connect(fd, to, 16)).toBe(0);
    const memory = ffi.mapMemory(4096);
    new Uint8Array(memory.buffer).fill(0x5a);
    expect(ffi.send(fd, memory.base, 301, 0)).toBe(301);
    ffi.close(fd);
    const frames: Frames = liveArena(16, 2);
    const slots = new Int32Array(16);
    expect(port.rxBurst(frames, slots, 16)).toBe(1);
    const m = slots[0] * META_WORDS;
    expect(frames.meta[m + META_FLAGS]).toBe(1);
    expect(frames.meta[m + META_CSUM]).toBe(34 | (6 << 16));
    const off = frames.meta[m + META_OFF];
    const before = frames.u8[off + 40] | (frames.u8[off + 41] << 8);
    expect(completeChecksum(frames, slots[0])).toBe(true);
    expect(frames.u8[off + 40] | (frames.u8[off + 41] << 8)).not.toBe(before);
    // Reference: sum of pseudo-header and datagram, big-endian, is 0xffff.
    let total = 17 + 309;
    const view = new DataView(frames.buffer, off, 343);
    for (let at = 26; at < 34; at += 2) total += view.getUint16(at);
    for (let at = 34; at < 342; at += 2) total += view.getUint16(at);
    total += view.getUint8(342) << 8;
    while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
    expect(total).toBe(0xffff);
    frames.free(slots[0]);
    port.close();
  });

  it('opens several queues of one device, and says why a second router cannot have it', () => {
    const name = `t${devices++}`;
    const tap = openTap({
      name,
      queues: 3,
      vnetHeader: true,
      offloads: 0x6f,
      mtu: 1400,
      mac: '02:00:00:00:07:07',
      netns,
    });
    expect(new Set(tap.fds).size).toBe(3);
    const link = JSON.parse(ip(netns, '-j', '-d', 'link', 'show', 'dev', name))[0];
    expect(link.address).toBe('02:00:00:00:07:07');
    expect(link.mtu).toBe(1400);
    expect(link.linkinfo.info_data.numqueues).toBe(3);
    expect(link.flags).toContain('UP');
    expect(() => openTap({ name, queues: 1, vnetHeader: true, offloads: 0, mtu: 1500, netns })).toThrow(
      /port t\d+ \(tap\): expected the device to be created, got E[A-Z]+ .*ifname/,
    );
    for (const fd of tap.fds) ffi.close(fd);
    expect(() => openTap({ name, queues: 1, vnetHeader: true, offloads: 0, mtu: 1500, netns: 'sl-none' })).toThrow(
      /namespace sl-none: expected .* to exist, got ENOENT .*ip netns add sl-none/,
    );
  });
});
