/**
 * Supervisor without a device: what the main thread makes of what its threads say. It runs the built files, as the router
 * does.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { type Config, normalizeConfig } from '../../../controlplane/config/index.ts';
import { lostRecords, Supervisor } from '../../../controlplane/live/supervisor.ts';
import { createRing, PUNT_USED, RingWriter } from '../../../dataplane/rings.ts';
import { until } from '../../lib/until.ts';

/** A router needs a port; without one it needs no device. */
function portless(more: object = {}): Config {
  const ports = { lan: { kind: 'memory', mac: '02:00:00:00:01:01', addresses: '192.168.1.1/24' } };
  const rest = { workers: 1, conntrack: { max: 1024 }, offload: { mode: 'off' } };
  return { ...normalizeConfig({ ports, ...rest, ...more }), ports: [] };
}

describe('supervisor', () => {
  const ipv4 = (router: Supervisor) => router.control.domains.health.find(({ domain }) => domain === 'ipv4')!;

  it('a defect in what a domain has to do costs this, not the router', async () => {
    const warnings: string[] = [];
    let defects = 1;
    const log = (_level: string, message: string): void => {
      if (message.startsWith('the ipv4 domain has failed') && defects-- > 0) throw new Error('a defect');
      warnings.push(message);
    };
    const router = await Supervisor.start(portless(), { log, hostPort: false });
    try {
      router.failDomain(4, 'throw');
      await until('its return', () => ipv4(router).failures === 1 && ipv4(router).state === 'running');
      expect(warnings).toContainEqual(
        expect.stringMatching(/^the control plane failed on what a domain said: Error: a defect/),
      );
    } finally {
      await router.stop();
    }
  });

  it('a worker that keeps dying held the stop up for as long as it would have rested', async () => {
    const router = await Supervisor.start(portless(), { hostPort: false });
    const { setTimeout: real } = globalThis;
    let rests = 0;
    // The rest after the second death, 40 ms, never ends by itself here.
    const endless = (work: () => void, milliseconds?: number): NodeJS.Timeout => {
      if (milliseconds === 40) rests++;
      return real(work, milliseconds === 40 ? 0x7fffffff : milliseconds);
    };
    const spy = vi.spyOn(globalThis, 'setTimeout').mockImplementation(endless as typeof setTimeout);
    try {
      for (const deaths of [1, 2]) {
        router.failWorker(0);
        await until(`death ${deaths}`, () => router.restarts(0) === deaths);
      }
      expect(rests).toBe(1);
    } finally {
      await router.stop();
      spy.mockRestore();
    }
  });

  it('apply resolves when the domains that it makes anew run', async () => {
    const router = await Supervisor.start(portless(), { hostPort: false });
    try {
      const { refused } = await router.apply(portless({ dns: { hosts: { 'nas.home.arpa': '192.168.1.20' } } }));
      expect(refused).toEqual([]);
      expect(ipv4(router)).toMatchObject({ state: 'running', restarts: 1 });
      // It is there to be asked.
      expect(await router.control.domains.ask('ipv4', 'dhcp6')).toBeNull();
    } finally {
      await router.stop();
    }
  });

  it('what the rings of the domains had no room for is counted with what was lost on the way to the main thread', () => {
    const full = (lost: number): SharedArrayBuffer => {
      const ring = createRing(256);
      const writer = new RingWriter(ring);
      for (let n = 0; n < 8; n++) expect(writer.event(PUNT_USED, 0, n)).toBe(true);
      for (let n = 0; n < lost; n++) expect(writer.event(PUNT_USED, 0, n)).toBe(false);
      return ring;
    };
    const domains = [
      { family: 4, punt: full(10), inject: full(20) },
      { family: 6, punt: full(100), inject: full(200) },
    ] as const;
    expect(lostRecords({ punt: full(1), inject: full(2), domains: [...domains] })).toEqual([111, 222]);
  });

  it('a block log that cannot be written is refused at the start, not told when the first block is given', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-log-'));
    try {
      const log = join(folder, 'missing', 'nat.log');
      const ports = { lan: { kind: 'tap', ifname: 'sl-never', mac: '02:00:00:00:01:01' } };
      const started = Supervisor.start(normalizeConfig({ ports, workers: 1, nat: { log } }), { hostPort: false });
      await expect(started).rejects.toThrow(
        `nat.log ${log}: expected a file that can be written, got ENOENT; choose another file, or make its folder`,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('a mirror that cannot be written is refused before anything is opened: each worker died of it, again and again', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-mirror-'));
    try {
      const mirror = join(folder, 'missing', 'lan.pcapng');
      const ports = { lan: { kind: 'tap', ifname: 'sl-never', mac: '02:00:00:00:01:01', mirror } };
      const started = Supervisor.start(normalizeConfig({ ports, workers: 1 }), { hostPort: false });
      await expect(started).rejects.toThrow(
        `ports.lan.mirror ${mirror}: expected a file that can be written, got ENOENT; choose another file, or make its folder`,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
