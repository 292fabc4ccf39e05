/** The poller: a worker that sleeps is woken by a port, by the bell, or by the bound of its sleep. */
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addNetns, deleteNetns, ifindex, ip, whyNotLive } from './lab.ts';

const skipped = whyNotLive();
if (skipped !== '') console.warn(`SKIPPED: poller and link tests (${skipped})`);

describe.skipIf(skipped !== '')('Poller', async () => {
  const poller = await import('../../../dataplane/ports/poller.ts');
  const { openTap, TapPort } = await import('../../../dataplane/ports/tap.ts');
  const { liveArena } = await import('../../../dataplane/ports/arena.ts');
  const { PeerSocket } = await import('./peer.ts');

  let netns = '';
  beforeAll(() => {
    netns = addNetns();
  });
  afterAll(() => deleteNetns(netns));

  function tapPort(name: string): InstanceType<typeof TapPort> {
    const tap = openTap({ name, queues: 1, vnetHeader: true, offloads: 0x6f, mtu: 1500, netns });
    return new TapPort({ name, number: 0, fd: tap.fds[0], vnetHeader: true, offloads: tap.offloads });
  }

  it('tells a frame, a wake-up and a timeout apart', () => {
    const waker = poller.openWaker();
    const a = tapPort('p0');
    const b = tapPort('p1');
    const peer = new PeerSocket(netns, ifindex(netns, 'p1'));
    const sleeper = new poller.Poller([a, b], waker);
    expect(sleeper.wait(0)).toBe(poller.WOKE_TIMEOUT);
    peer.send(new Uint8Array(60).fill(2));
    expect(sleeper.wait(10_000)).toBe(poller.WOKE_PORT);
    poller.wake(waker);
    poller.wake(waker);
    expect(sleeper.wait(10_000)).toBe(poller.WOKE_PORT | poller.WOKE_EVENT);
    const frames = liveArena(8, 1);
    const slots = new Int32Array(8);
    expect(a.rxBurst(frames, slots, 8)).toBe(0);
    expect(b.rxBurst(frames, slots, 8)).toBe(1);
    expect(sleeper.wait(1)).toBe(poller.WOKE_TIMEOUT);
    ip(netns, 'link', 'delete', 'p1');
    expect(sleeper.wait(10_000) & poller.WOKE_GONE).toBe(poller.WOKE_GONE);
    expect(b.linkUp).toBe(false);
    // A device that is gone does not keep the worker awake.
    expect(sleeper.wait(1)).toBe(poller.WOKE_TIMEOUT);
    expect(sleeper.timeouts).toBe(3);
    a.close();
    b.close();
    peer.close();
    poller.closeWaker(waker);
  });

  it('spins before it sleeps, and anew after work', () => {
    const sleeper = new poller.Poller([], -1);
    for (let i = 0; i < poller.SPINS; i++) expect(sleeper.shouldSleep(0)).toBe(false);
    expect(sleeper.shouldSleep(0)).toBe(true);
    expect(sleeper.shouldSleep(3)).toBe(false);
    expect(sleeper.shouldSleep(0)).toBe(false);
  });

  it('is woken from another thread', async () => {
    const waker = poller.openWaker();
    const thread = new Worker(
      `const koffi = require('koffi');
       const write = koffi.load(null).func('int64_t write(int, void *, size_t)');
       const { workerData } = require('node:worker_threads');
       setTimeout(() => write(workerData, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), 8), 20);`,
      { eval: true, workerData: waker },
    );
    const sleeper = new poller.Poller([], waker);
    let why = 0;
    // The thread needs time to start; each sleep of this one is bounded.
    for (let i = 0; i < 40 && why === 0; i++) why = sleeper.wait(10_000);
    expect(why).toBe(poller.WOKE_EVENT);
    await thread.terminate();
    poller.closeWaker(waker);
  });
});

describe.skipIf(skipped !== '')('links', async () => {
  const links = await import('../../../dataplane/ports/links.ts');
  const { inNetns } = await import('../../../dataplane/ports/netns.ts');

  it('configures a device, and tells its state and that it is gone', () => {
    const netns = addNetns();
    const other = addNetns();
    try {
      ip(netns, 'link', 'add', 'l0', 'type', 'veth', 'peer', 'name', 'l1');
      const state = () => links.linkState('l0', netns);
      expect(state().up).toBe(false);
      expect(links.linkState('none', netns)).toEqual(links.NO_LINK);
      links.setMac('l0', '02:00:00:00:0a:0b', netns);
      links.setMtu('l0', 1400, netns);
      links.setQueueLength('l0', 77, netns);
      links.setUp('l0', true, netns);
      const known = { ifindex: ifindex(netns, 'l0'), mtu: 1400, mac: '02:00:00:00:0a:0b' };
      expect(state()).toEqual({ ...known, up: false });
      links.setUp('l1', true, netns);
      expect(state()).toEqual({ ...known, up: true });
      links.addAddress('l0', '192.0.2.1/24', netns);
      links.addAddress('l0', '192.0.2.1/24', netns);
      links.addAddress('l0', '192.0.2.2/32', netns);
      expect(ip(netns, 'address', 'show', 'dev', 'l0')).toMatch(/qlen 77[\s\S]*192\.0\.2\.1\/24/);
      links.deleteAddress('l0', '192.0.2.1/24', netns);
      links.moveToNetns('l1', other, netns);
      expect(links.linkState('l1', other).ifindex).toBeGreaterThan(0);
      expect(state()).toEqual({ ...known, up: false });
      links.deleteLink('l0', netns);
      expect(state()).toEqual(links.NO_LINK);
      expect(() => links.setUp('l0', true, netns)).toThrow(
        /^ip -n sl-test-\S+ link set dev l0 up: expected success, got .*l0/,
      );
    } finally {
      deleteNetns(netns);
      deleteNetns(other);
    }
  });

  it('reads the own namespace from sysfs', () => {
    const lo = links.linkState('lo');
    expect(lo.ifindex).toBeGreaterThan(0);
    expect(lo.mtu).toBeGreaterThanOrEqual(16384);
    expect(links.linkState('sl-nothere')).toEqual(links.NO_LINK);
  });

  it('returns to the own namespace, also when the function throws', async () => {
    const { readlinkSync } = await import('node:fs');
    const where = (): string => readlinkSync('/proc/thread-self/ns/net');
    const netns = addNetns();
    try {
      const home = where();
      const there = inNetns(netns, where);
      expect(there).not.toBe(home);
      expect(where()).toBe(home);
      expect(() =>
        inNetns(netns, () => {
          throw new Error('inside');
        }),
      ).toThrow('inside');
      expect(where()).toBe(home);
      expect(inNetns('', where)).toBe(home);
    } finally {
      deleteNetns(netns);
    }
  });
});
