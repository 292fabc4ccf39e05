/**
 * iperf3 through the demo's lab: TCP with super-frames (GSO) and checksums left to the device, both directions, IPv4 with
 * NAT and IPv6. It asserts that bytes flow, that super-frames were used, and that no sound packet was dropped; no rate.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { buildWorld, SERVER4, SERVER6, type World } from '../../controlplane/demo/world.ts';
import type { LinkJson } from '../../controlplane/show/link.ts';
import { labReady } from './need.ts';

/** Reasons that a bulk transfer between two sound hosts must never meet. */
const DEFECTS = /CSUM|INHDR|TOO_SMALL|TOO_BIG|CT_INVALID|GSO|CHAIN|NAT_EXHAUSTED/;

describe.skipIf(!labReady(['ping', 'iperf3'], { tun: true }))('iperf3 through the TAP lab', () => {
  let world: World | null = null;

  afterEach(() => world?.close());

  for (const [family, host] of [
    ['IPv4 NAT', SERVER4],
    ['IPv6', SERVER6],
  ])
    it(`${family}: bytes in both directions, in super-frames, nothing sound dropped`, async () => {
      world = await buildWorld();
      const { lab, client, server } = world;
      lab.spawn(server, 'iperf3', ['-s', '--forceflush']);
      await lab.listening(server, 5201);
      const bytes: Record<string, number> = {};
      for (const direction of ['up', 'down']) {
        const args = ['-c', host, '-t', '2', '-J', ...(direction === 'down' ? ['-R'] : [])];
        const done = await lab.run(client, 'iperf3', args, { timeout: 30_000 });
        const report = JSON.parse(done.stdout);
        expect(report.error, `iperf3, ${direction}`).toBeUndefined();
        bytes[direction] = report.end.sum_received.bytes;
      }
      expect(bytes.up).toBeGreaterThan(1_000_000);
      expect(bytes.down).toBeGreaterThan(1_000_000);
      const links = (await world.show('link')).json as LinkJson[];
      for (const { ifname, stats64 } of links) {
        const { rx } = stats64;
        // Frames of at most 1514 bytes on average would mean that no segmentation was left to the device; ACKs count too.
        expect(rx.bytes / rx.packets, `bytes per frame received on ${ifname}`).toBeGreaterThan(1514);
        expect([rx.errors, stats64.tx.errors]).toEqual([0, 0]);
      }
      const drops = (await world.show('drops')).json as { reason: string; count: number }[];
      expect(drops.filter(({ reason, count }) => count > 0 && DEFECTS.test(reason))).toEqual([]);
      expect((await world.show('conntrack', { proto: 'tcp' })).text.split('\n').length).toBeGreaterThanOrEqual(4);
    });
});
