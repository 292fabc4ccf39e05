/**
 * Capture cut: what captures leave on a disk that fills can be read to its end, and holds what they say that it does. The full disk is
 * a little tmpfs, which needs root.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CaptureTarget } from '../../../controlplane/cli/capture-target.ts';
import { CaptureReader } from '../../../dataplane/ports/capture-reader.ts';
import { CaptureWriter } from '../../../dataplane/ports/capture-writer.ts';
import { diskReady, mountDisk, unmountDisk } from '../../lib/disk.ts';

const FRAMES = 4000;
const FRAME = new Uint8Array(1500);

function fill(writer: CaptureWriter): void {
  for (let n = 0; n < FRAMES; n++) writer.write(FRAME, 0, 60 + (n % 1400), 1500, n, 0, 0, 1, n, 'said');
}

/** Whole frames of a capture, and whether it is sound to its end. */
function read(bytes: Uint8Array): [frames: number, sound: boolean] {
  const reader = CaptureReader.fromBytes('capture', bytes);
  while (reader.next());
  return [reader.frames, reader.error === null];
}

describe.skipIf(!diskReady())('a capture on a full disk', () => {
  let disk = '';
  beforeEach(() => {
    disk = mountDisk('1m');
  });
  afterEach(() => unmountDisk(disk));

  it('ends behind a whole block: its file could not be read to its end', () => {
    const file = join(disk, 'c.pcapng');
    const target = new CaptureTarget(file);
    target.open();
    const memory = new CaptureWriter(null, { format: 'pcapng', interfaces: ['lan'] });
    fill(memory);
    expect(target.write(memory.toBytes())).toBe('ENOSPC');
    const missing = target.close();
    const [frames, sound] = read(readFileSync(file));
    expect([frames + missing, sound, frames > 500]).toEqual([FRAMES, true, true]);
  });

  it.each(['pcap', 'pcapng'] as const)(
    'and so does what a replay writes (%s), which counts what is in it',
    (format) => {
      const file = join(disk, 'out');
      const writer = new CaptureWriter(file, { format, interfaces: ['lan'] });
      const frame = new Uint8Array(1500);
      for (let n = 0; n < FRAMES; n++) writer.write(frame, 0, 60 + (n % 1400), 1500, n, 0);
      writer.close();
      expect(writer.error?.message).toMatch(/expected room to write, got ENOSPC/);
      expect(read(readFileSync(file))).toEqual([writer.frames, true]);
      expect([writer.frames + writer.dropped, writer.frames > 500]).toEqual([FRAMES, true]);
    },
  );
});
