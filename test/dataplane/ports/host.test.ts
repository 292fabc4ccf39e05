/** Ports of kind host: cap and raw-socket between namespaces, where the packages are installed. */
import { createRequire } from 'node:module';
import { isMainThread } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { META_LEN, META_OFF, META_WORDS } from '../../../dataplane/frames.ts';
import { addNetns, deleteNetns, ifindex, ip, random, whyNotLive } from './lab.ts';

/** Whether a package with a native part loads here. Not in a worker: the addons cannot be loaded twice. */
function loads(name: string): boolean {
  if (!isMainThread) return false;
  try {
    createRequire(import.meta.url)(name);
    return true;
  } catch {
    return false;
  }
}

const skipped =
  whyNotLive() || (isMainThread ? '' : 'tests run in worker threads') || (loads('cap') ? '' : 'package cap is missing');
if (skipped !== '') console.warn(`SKIPPED: host port tests (${skipped})`);
const rawSkipped = skipped || (loads('raw-socket') ? '' : 'package raw-socket is missing');
if (rawSkipped !== '') console.warn(`SKIPPED: raw-socket test (${rawSkipped})`);

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

describe.skipIf(skipped !== '')('host port', async () => {
  const { HostPort } = await import('../../../dataplane/ports/host.ts');
  const { Frames } = await import('../../../dataplane/frames.ts');
  const { PeerSocket } = await import('./peer.ts');

  /** Lets the event loop run until `done`, for twenty seconds at most. */
  async function until(done: () => boolean): Promise<void> {
    const end = Date.now() + 20_000;
    while (!done() && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  it('carries frames both ways unchanged', async () => {
    const netns = addNetns();
    const far = addNetns();
    try {
      ip(netns, 'link', 'add', 'h0', 'type', 'veth', 'peer', 'name', 'h1', 'netns', far);
      ip(netns, 'link', 'set', 'h0', 'up');
      ip(far, 'link', 'set', 'h1', 'up');
      const port = new HostPort({ name: 'h0', number: 2, device: 'h0', send: 'inject', netns });
      const peer = new PeerSocket(far, ifindex(far, 'h1'));
      const frames = new Frames(64, 2);
      const slots = new Int32Array(64);
      const next = random(6);
      const sent: string[] = [];
      const seen: string[] = [];
      // The first frame after opening is lost (see the head of host.ts); this one is nobody's.
      peer.send(new Uint8Array(60).fill(4));
      for (let n = 0; n < 30; n++) {
        const frame = new Uint8Array(60 + (next() % 1400));
        for (let at = 0; at < frame.length; at++) frame[at] = next();
        frame.set([2, 0, 0, 0, 0, 1], 0);
        frame.set([0x88, 0xb5], 12);
        sent.push(hex(frame));
        peer.send(frame);
      }
      const back: string[] = [];
      await until(() => {
        const got = port.rxBurst(frames, slots, 64);
        for (let i = 0; i < got; i++) {
          const m = slots[i] * META_WORDS;
          const off = frames.meta[m + META_OFF];
          seen.push(hex(frames.u8.subarray(off, off + frames.meta[m + META_LEN])));
        }
        port.txBurst(frames, slots, got);
        for (let frame = peer.receive(); frame !== null; frame = peer.receive()) back.push(hex(frame));
        return back.length === 30;
      });
      expect(seen).toEqual(sent);
      expect(back).toEqual(sent);
      expect(frames.freeSmallCount).toBe(64);
      port.close();
      peer.close();
    } finally {
      deleteNetns(netns);
      deleteNetns(far);
    }
  });

  it.skipIf(rawSkipped !== '')('sends unicast IPv4 through the host: its route, its neighbour', async () => {
    const netns = addNetns();
    const far = addNetns();
    try {
      ip(netns, 'link', 'add', 'h2', 'type', 'veth', 'peer', 'name', 'h3', 'netns', far);
      ip(netns, 'link', 'set', 'h2', 'up');
      ip(far, 'link', 'set', 'h3', 'up');
      ip(netns, 'address', 'add', '192.0.2.1/24', 'dev', 'h2');
      ip(netns, 'neighbour', 'add', '192.0.2.9', 'lladdr', '02:00:00:00:00:99', 'dev', 'h2');
      const port = new HostPort({ name: 'h2', number: 2, device: 'h2', send: 'raw', netns });
      const peer = new PeerSocket(far, ifindex(far, 'h3'));
      const frames = new Frames(8, 1);
      const slots = new Int32Array(8);
      const frame = new Uint8Array(14 + 20 + 8 + 20);
      frame.set([2, 0, 0, 0, 0, 0x77, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 48, 0, 9, 0, 0, 64, 17, 0, 0], 0);
      frame.set([198, 51, 100, 7, 192, 0, 2, 9, 0x10, 0, 0x20, 0, 0, 28, 0, 0], 26);
      slots[0] = frames.alloc(frame.length);
      frames.u8.set(frame, frames.meta[slots[0] * META_WORDS + META_OFF]);
      frames.meta[slots[0] * META_WORDS + META_LEN] = frame.length;
      port.txBurst(frames, slots, 1);
      let got: Uint8Array | null = null;
      await until(() => {
        for (let one = peer.receive(); one !== null; one = peer.receive())
          if (one[12] === 8 && one[13] === 0) got = one;
        return got !== null;
      });
      expect(hex(got!.slice(0, 6))).toBe('020000000099');
      expect(hex(got!.slice(26, 62))).toBe(hex(frame.slice(26)));
      expect(port.counters.txPackets).toBe(1);
      port.close();
      peer.close();
    } finally {
      deleteNetns(netns);
      deleteNetns(far);
    }
  });

  it('says what is wrong with a device that does not exist', () => {
    expect(() => new HostPort({ name: 'wan', number: 0, device: 'sl-none', send: 'inject' })).toThrow(
      /port wan \(host\): expected a device sl-none, got none of that name; see "ip link"/,
    );
  });
});
