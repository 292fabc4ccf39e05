/** Ports of kind packet: AF_PACKET rings over a veth pair, tags and super-frames included. */
import { createHash } from 'node:crypto';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  Frames,
  LARGE_ROOM,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_HDRLEN,
  META_LEN,
  META_OFF,
  META_PORT,
  META_WORDS,
} from '../../../dataplane/frames.ts';
import { addNetns, deleteNetns, ifindex, ip, random, whyNotLive } from './lab.ts';

const skipped = whyNotLive();
if (skipped !== '') console.warn(`SKIPPED: AF_PACKET tests (${skipped})`);

function digest(frame: Uint8Array): string {
  return `${frame.length} ${createHash('sha256').update(frame).digest('hex').slice(0, 16)}`;
}

function bytesOf(frames: Frames, slot: number): Uint8Array {
  const off = frames.meta[slot * META_WORDS + META_OFF];
  return frames.u8.slice(off, off + frames.meta[slot * META_WORDS + META_LEN]);
}

describe.skipIf(skipped !== '')('AF_PACKET', async () => {
  const { boundDevice, isBoundElsewhere, openPacket, PacketPort, PLACE_BYTES } = await import(
    '../../../dataplane/ports/packet.ts'
  );
  const { replaceDescriptor } = await import('../../../dataplane/ports/ffi.ts');
  const { liveArena } = await import('../../../dataplane/ports/arena.ts');
  const { Poller, WOKE_PORT } = await import('../../../dataplane/ports/poller.ts');
  const { PeerSocket } = await import('./peer.ts');

  let netns = '';
  let far = '';
  let pairs = 0;
  beforeAll(() => {
    netns = addNetns();
    far = addNetns();
  });
  afterAll(() => {
    deleteNetns(netns);
    deleteNetns(far);
  });

  /** A veth pair: `near` for the port, `far` in the other namespace. */
  function pair(): { near: string; other: string } {
    const near = `v${pairs}`;
    const other = `w${pairs++}`;
    ip(netns, 'link', 'add', near, 'mtu', '9000', 'type', 'veth', 'peer', 'name', other, 'mtu', '9000', 'netns', far);
    ip(netns, 'link', 'set', near, 'up');
    ip(far, 'link', 'set', other, 'up');
    return { near, other };
  }

  function open(device: string, mode: 'latency' | 'bulk', superFrames = true): InstanceType<typeof PacketPort> {
    const opened = openPacket({ device, queues: 1, mode, superFrames, promiscuous: true, ringBytes: 4 << 20, netns });
    return new PacketPort({ name: device, number: 9, fd: opened.fds[0], offloads: opened.offloads, ring: opened.ring });
  }

  for (const mode of ['latency', 'bulk'] as const)
    it(`carries frames both ways unchanged (${mode})`, () => {
      const { near, other } = pair();
      const port = open(near, mode);
      const peer = new PeerSocket(far, ifindex(far, other));
      const frames = liveArena(128, 40);
      const slots = new Int32Array(64);
      const next = random(4);
      const sleeper = new Poller([port], -1);
      for (let round = 0; round < 40; round++) {
        const sent: Uint8Array[] = [];
        for (let i = 0; i < 20; i++) {
          const frame = new Uint8Array(60 + (next() % (round & 1 ? 8000 : 1400)));
          for (let at = 0; at < frame.length; at++) frame[at] = next();
          frame.set([2, 0, 0, 0, 0, 1], 0);
          // Tagged ones too: the kernel takes the tag off, and the port puts it back.
          if (i % 5 === 3) frame.set([i & 4 ? 0x81 : 0x88, i & 4 ? 0x00 : 0xa8, 0x20, 7, 0x88, 0xb5], 12);
          else frame.set([0x88, 0xb5], 12);
          sent.push(frame);
        }
        // All at once: in bulk mode each millisecond of a slow sender costs a block.
        for (const frame of sent) peer.send(frame);
        const seen: string[] = [];
        for (let turn = 0; turn < 40 && seen.length < sent.length; turn++) {
          const got = port.rxBurst(frames, slots, 13);
          if (got === 0) {
            expect(sleeper.wait(10_000)).toBe(WOKE_PORT);
            continue;
          }
          for (let i = 0; i < got; i++) {
            expect(frames.meta[slots[i] * META_WORDS + META_PORT]).toBe(9);
            expect(frames.meta[slots[i] * META_WORDS + META_OFF] & 3).toBe(2);
            seen.push(digest(bytesOf(frames, slots[i])));
          }
          port.txBurst(frames, slots, got);
        }
        expect(seen).toEqual(sent.map(digest));
        for (const [n, frame] of sent.entries()) {
          // The peer's plain socket does not put tags back.
          const bare = n % 5 === 3 ? new Uint8Array([...frame.slice(0, 12), ...frame.slice(16)]) : frame;
          expect(digest(peer.await() ?? new Uint8Array(0))).toBe(digest(bare));
        }
        // The port must not receive what it has sent itself.
        expect(port.rxBurst(frames, slots, 64)).toBe(0);
      }
      expect(port.counters.rxPackets).toBe(800);
      expect(port.counters.txPackets).toBe(800);
      expect([frames.freeSmallCount, frames.freeLargeCount]).toEqual([128, 40]);
      port.close();
      peer.close();
    });

  for (const mode of ['latency', 'bulk'] as const)
    it(`a ring that another took over stood still until the kernel had gone round it (${mode})`, () => {
      const { near, other } = pair();
      const opened = openPacket({ device: near, queues: 1, mode, superFrames: true, promiscuous: true, netns });
      const ring = { ...opened.ring!, place: new SharedArrayBuffer(PLACE_BYTES) };
      const take = () => new PacketPort({ name: near, number: 9, fd: opened.fds[0], offloads: opened.offloads, ring });
      const peer = new PeerSocket(far, ifindex(far, other));
      const frames = liveArena(16, 4);
      const slots = new Int32Array(8);
      let port = take();
      for (let n = 0; n < 6; n++) {
        const frame = new Uint8Array(60).fill(n + 1);
        frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
        peer.send(frame);
        peer.send(frame);
        // One of the two is read before the reader dies, the other by who comes after it.
        for (let read = 0; read < 2; read++) {
          if (read === 1) port = take();
          const sleeper = new Poller([port], -1);
          let got = port.rxBurst(frames, slots, 1);
          for (let turn = 0; turn < 4 && got === 0; turn++) {
            sleeper.wait(10_000);
            got = port.rxBurst(frames, slots, 1);
          }
          expect([n, read, got]).toEqual([n, read, 1]);
          expect(bytesOf(frames, slots[0])).toEqual(frame);
          frames.free(slots[0]);
        }
      }
      port.close();
      peer.close();
    });

  for (const mode of ['latency', 'bulk'] as const)
    it(`goes on with another device of its name, and keeps nothing of the one before (${mode})`, () => {
      const { near, other } = pair();
      const options = { device: near, queues: 1, mode, superFrames: true, promiscuous: true, netns } as const;
      const opened = openPacket(options);
      const [fd] = opened.fds;
      const ring = { ...opened.ring!, place: new SharedArrayBuffer(PLACE_BYTES) };
      const take = () => new PacketPort({ name: near, number: 9, fd, offloads: opened.offloads, ring });
      const mapped = () => readFileSync('/proc/self/maps', 'latin1').split('socket:[').length;
      let port = take();
      const rings = mapped();
      const frames = liveArena(16, 4);
      const slots = new Int32Array(8);
      for (let made = 0; made < 3; made++) {
        expect(boundDevice(fd)).toBe(ifindex(netns, near));
        expect(isBoundElsewhere(fd, near)).toBe(false);
        const peer = new PeerSocket(far, ifindex(far, other));
        const sleeper = new Poller([port], -1);
        // Another number of frames each time: the next ring begins at its beginning all the same.
        for (let n = 0; n <= made; n++) {
          const frame = new Uint8Array(60).fill(16 * made + n);
          frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
          peer.send(frame);
          for (let turn = 0; turn < 4 && port.rxBurst(frames, slots, 8) === 0; turn++) sleeper.wait(10_000);
          expect(bytesOf(frames, slots[0])).toEqual(frame);
          port.txBurst(frames, slots, 1);
          expect(peer.await()).toEqual(frame);
        }
        peer.close();
        ip(netns, 'link', 'delete', near);
        expect([boundDevice(fd), isBoundElsewhere(fd, near)]).toEqual([-1, false]);
        ip(netns, 'link', 'add', near, 'type', 'veth', 'peer', 'name', other, 'netns', far);
        ip(netns, 'link', 'set', near, 'up');
        ip(far, 'link', 'set', other, 'up');
        expect(isBoundElsewhere(fd, near)).toBe(true);
        replaceDescriptor(fd, openPacket(options).fds[0], near);
        // A worker that has died meanwhile finds it so; one that lives is told.
        if (made === 1) port = take();
        else port.renew();
      }
      // What the dead worker had mapped.
      expect(mapped() - rings).toBe(1);
      port.close();
    });

  for (const mode of ['latency', 'bulk'] as const)
    it(`hands on partial checksums and super-frames, with and without a VLAN tag (${mode})`, () => {
      const { near, other } = pair();
      const port = open(near, mode);
      const opened = openPacket({ device: other, queues: 1, mode, superFrames: true, promiscuous: true, netns: far });
      const { offloads, ring } = opened;
      const sender = new PacketPort({ name: other, number: 1, fd: opened.fds[0], offloads, ring });
      const frames = liveArena(16, 8);
      const slots = new Int32Array(8);
      for (const tagged of [false, true])
        for (const payload of [100, 20000]) {
          const l3 = tagged ? 18 : 14;
          const frame = new Uint8Array(l3 + 40 + payload).fill(0x31);
          const view = new DataView(frame.buffer);
          frame.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], 0);
          if (tagged) frame.set([0x81, 0, 0, 7], 12);
          frame.set([8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2], l3 - 2);
          view.setUint16(l3 + 2, frame.length - l3);
          frame[l3 + 32] = 0x50;
          frame[l3 + 33] = 0x10;
          slots[0] = frames.alloc(frame.length);
          const m = slots[0] * META_WORDS;
          frames.u8.set(frame, frames.meta[m + META_OFF]);
          frames.meta[m + META_LEN] = frame.length;
          frames.meta[m + META_FLAGS] = 1;
          const csum = (l3 + 20) | (16 << 16);
          const gso = payload > 9000 ? 1 | (1400 << 16) : 0;
          frames.meta[m + META_CSUM] = csum;
          frames.meta[m + META_GSO] = gso;
          frames.meta[m + META_HDRLEN] = gso === 0 ? 0 : l3 + 40;
          sender.txBurst(frames, slots, 1);
          expect(sender.counters.txErrors).toBe(0);
          new Poller([port], -1).wait(10_000);
          expect(port.rxBurst(frames, slots, 8)).toBe(1);
          const n = slots[0] * META_WORDS;
          expect(digest(bytesOf(frames, slots[0]))).toBe(digest(frame));
          expect(frames.meta[n + META_OFF] & 3).toBe(2);
          expect(frames.meta[n + META_FLAGS] & 1).toBe(1);
          expect(frames.meta[n + META_CSUM]).toBe(csum);
          expect(frames.meta[n + META_GSO]).toBe(gso);
          frames.free(slots[0]);
        }
      port.close();
      sender.close();
    });

  it('keeps frames in the ring while the arena is empty, and counts those that a small ring cut off', () => {
    const { near, other } = pair();
    const witness = new PeerSocket(netns, ifindex(netns, near));
    const port = open(near, 'latency', false);
    const peer = new PeerSocket(far, ifindex(far, other));
    const frames = liveArena(2, 0);
    const slots = new Int32Array(8);
    for (const size of [100, 200, 300, 5000, 400]) {
      peer.send(new Uint8Array(size).fill(2));
      // A device shows a frame to the socket that was there first at last: then it is in the port's ring.
      expect(witness.await()?.length).toBe(size);
    }
    expect(port.rxBurst(frames, slots, 8)).toBe(2);
    expect(port.rxBurst(frames, slots.subarray(2), 8)).toBe(0);
    frames.free(slots[0]);
    frames.free(slots[1]);
    expect(port.rxBurst(frames, slots, 8)).toBe(2);
    expect(bytesOf(frames, slots[0]).length).toBe(300);
    expect(bytesOf(frames, slots[1]).length).toBe(400);
    expect(port.counters.rxErrors).toBe(1);
    port.close();
    peer.close();
    witness.close();
  });

  it('shares flows between the sockets of one port, and says which device is missing', () => {
    const { near, other } = pair();
    const witness = new PeerSocket(netns, ifindex(netns, near));
    const opened = openPacket({
      device: near,
      queues: 2,
      mode: 'latency',
      superFrames: false,
      promiscuous: true,
      ringBytes: 1 << 20,
      netns,
    });
    const { offloads, ring } = opened;
    const ports = opened.fds.map((fd, n) => new PacketPort({ name: near, number: n, fd, offloads, ring }));
    const peer = new PeerSocket(far, ifindex(far, other));
    const frame = new Uint8Array(60);
    frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    frame.set([192, 0, 2, 1, 192, 0, 2, 2, 0, 0, 0, 9, 0, 26], 26);
    for (let n = 0; n < 100; n++) {
      frame[34] = 16;
      frame[35] = n >> 1; // two frames of each flow
      peer.send(frame);
    }
    for (let n = 0; n < 100; n++) expect(witness.await()).not.toBeNull();
    const frames = liveArena(128, 0);
    const slots = new Int32Array(128);
    const flows = ports.map((port) => {
      const got = port.rxBurst(frames, slots, 128);
      return Array.from(slots.slice(0, got), (slot) => bytesOf(frames, slot)[35]);
    });
    expect(flows[0].length + flows[1].length).toBe(100);
    expect(Math.min(flows[0].length, flows[1].length)).toBeGreaterThan(0);
    for (const flow of flows[0]) expect(flows[1]).not.toContain(flow);
    for (const port of ports) port.close();
    peer.close();
    witness.close();
    expect(() => open('none', 'bulk')).toThrow(/port none \(packet\): expected a device none, got ENODEV/);
  });
});

describe.skipIf(process.platform !== 'linux')('a receive ring', async () => {
  const { PacketPort } = await import('../../../dataplane/ports/packet.ts');

  it('goes on behind a frame that is too long for any slot: it waited for one for ever', () => {
    const slotBytes = 67584;
    const mac = 96;
    const file = join(mkdtempSync(join(tmpdir(), 'sluice-ring-')), 'ring');
    // What the kernel writes, TPACKET_V2: status, length, captured, place of the frame.
    const memory = Buffer.alloc(1 << 20);
    for (const [slot, length] of [LARGE_ROOM - 3, LARGE_ROOM - 4, 60].entries()) {
      for (const [word, value] of [1, length, length, mac].entries())
        memory.writeUInt32LE(value, slot * slotBytes + word * 4);
      memory.fill(slot + 1, slot * slotBytes + mac, slot * slotBytes + mac + length);
    }
    writeFileSync(file, memory);
    const fd = openSync(file, 'r+');
    rmSync(dirname(file), { recursive: true });
    const ring = { version: 1, blocks: 1, slotBytes };
    const port = new PacketPort({ name: 'p', number: 3, fd, offloads: 0, ring });
    const frames = new Frames(4, 1);
    const slots = new Int32Array(8);
    expect(port.rxBurst(frames, slots, 8)).toBe(2);
    expect([0, 1].map((n) => frames.meta[slots[n] * META_WORDS + META_LEN])).toEqual([LARGE_ROOM - 4, 60]);
    expect(bytesOf(frames, slots[1])).toEqual(new Uint8Array(60).fill(3));
    expect(port.counters).toMatchObject({ rxPackets: 2, rxErrors: 1, rxBytes: LARGE_ROOM - 4 + 60 });
    port.close();
  });
});
