/**
 * The mirror of a running router on a disk that fills: packets go on, the router says so once, and the mirror goes on when
 * there is room again.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import type { LinkJson } from '../../controlplane/show/link.ts';
import { CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { diskReady, mountDisk, unmountDisk } from '../lib/disk.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

describe.skipIf(!labReady(['ping'], { tun: true }) || !diskReady())('a mirror on a full disk', () => {
  let disk = '';
  let live: LiveLab | undefined;

  beforeEach(() => {
    disk = mountDisk('4m');
  });
  afterEach(() => {
    live?.close();
    unmountDisk(disk);
  });

  it('packets go on; the router says once that it is full, and once that frames are recorded again', async () => {
    const mirror = join(disk, 'lan.pcapng');
    const ballast = join(disk, 'ballast');
    const yaml = `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mirror: ${mirror}, addresses: [10.78.1.1/24] }
zones: { lan: { forward: accept, input: accept } }
workers: 1
`;
    const host = { label: 'client', device: 'sl-lan', addresses: ['10.78.1.10/24'], via: ['10.78.1.1'] };
    live = await startLive(yaml, [host]);
    const { lab, router, ns, socket, show, command } = live;
    const ping = (): number =>
      lab.runSync(ns('client'), 'ping', ['-n', '-c1', '-W5', '-s', '1400', '10.78.1.1'], { check: false }).status ?? -1;
    const lan = async (): Promise<LinkJson> => ((await show('link')) as LinkJson[])[0];
    const said = (what: RegExp): number => [...router.stderr().matchAll(what)].length;
    const full = /ports\.lan\.mirror \S+lan\.pcapng: expected a file that can be written, got ENOSPC \(No space left/g;
    const again = /ports\.lan\.mirror \S+lan\.pcapng: frames are recorded again; \d+ are missing/g;
    const detail = () => router.stderr();
    expect((await lan()).mirror).toEqual({ file: mirror, stopped: false, lost: 0 });

    // All that there is, to the last page.
    try {
      writeFileSync(ballast, new Uint8Array(8_000_000));
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
    }
    await waitFor('the mirror to stop', async () => ping() === 0 && (await lan()).mirror?.stopped === true, {
      timeout: 60_000,
      detail,
    });
    const before = readAll(readFileSync(mirror));
    expect(before).toBeGreaterThan(0);
    await waitFor('frames to be missing', async () => ping() === 0 && ((await lan()).mirror?.lost ?? 0) > 3, {
      timeout: 60_000,
      detail,
    });
    await waitFor('it to be said', () => said(full) === 1, { detail });
    expect(said(again)).toBe(0);
    expect(command('show', 'link', '--socket', socket).stdout).toMatch(/^ {4}mirror \S+ stopped lost \d+$/m);

    rmSync(ballast);
    await waitFor('the mirror to go on', async () => ping() === 0 && (await lan()).mirror?.stopped === false, {
      timeout: 120_000,
      detail,
    });
    await waitFor('it to be said', () => said(again) === 1, { detail });
    await waitFor('packets to go on', () => ping() === 0, { timeout: 60_000, detail });
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toEqual({ code: 0, signal: null });
    expect(readAll(readFileSync(mirror))).toBeGreaterThan(before);
    expect([said(full), said(again)]).toEqual([1, 1]);
  });
});

/** Frames of a capture, which must be sound to its end. */
function readAll(bytes: Uint8Array): number {
  const reader = CaptureReader.fromBytes('mirror', bytes);
  while (reader.next());
  expect(reader.error).toBeNull();
  return reader.frames;
}
