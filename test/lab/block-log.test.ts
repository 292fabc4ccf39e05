/** The block log (nat.log) on a disk that fills: said once, and every line written later is a line. Needs root for a little tmpfs. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Subscribers } from '../../conntrack/subscribers.ts';
import { BlockLog, holderOf, readLog } from '../../controlplane/carrier/log.ts';
import { diskReady, mountDisk, unmountDisk } from '../lib/disk.ts';

describe.skipIf(!diskReady())('nat.log on a full disk', () => {
  let disk = '';
  beforeEach(() => {
    disk = mountDisk('64k');
  });
  afterEach(() => unmountDisk(disk));

  it('the first line after a full disk was glued to the half of another, and nobody had had its block', () => {
    const file = join(disk, 'nat.log');
    const ballast = join(disk, 'ballast');
    const assigned: { time: number; assigned: boolean; outside: number; low: number; high: number; inside: number }[] =
      [];
    const subscribers = { read: () => assigned.shift() ?? null } as unknown as Subscribers;
    const warnings: string[] = [];
    const log = new BlockLog(
      subscribers,
      file,
      (clock) => clock,
      (text) => warnings.push(text),
    );
    const assign = (n: number): void => {
      assigned.push({ time: n * 1000, assigned: true, outside: 0x01020304, low: n, high: n, inside: 0x0a000001 });
    };
    writeFileSync(ballast, new Uint8Array(32768));
    for (let n = 1; n <= 2000; n++) assign(n);
    log.drain();
    expect(warnings).toEqual([expect.stringMatching(/^nat\.log: expected a file that can be written, got ENOSPC/)]);
    assign(2001);
    log.drain();
    expect(warnings.length).toBe(1);
    rmSync(ballast);
    assign(2002);
    log.drain();
    const events = readLog(file);
    expect(events.length).toBeGreaterThan(100);
    expect(events.at(-1)?.low).toBe(2002);
    expect(holderOf(events, events[0].outside, 2002, 3_000_000)).not.toBeNull();
  });
});
