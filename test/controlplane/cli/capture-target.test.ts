/** Where `sluice capture` writes: nobody who does not read holds it up, and what it leaves ends behind a whole block. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CaptureTarget } from '../../../controlplane/cli/capture-target.ts';
import { CaptureReader } from '../../../dataplane/ports/capture-reader.ts';
import { CaptureWriter } from '../../../dataplane/ports/capture-writer.ts';

const FRAMES = 4000;

/** More than any pipe takes by itself. */
function blocks(): Uint8Array {
  const writer = new CaptureWriter(null, { format: 'pcapng', interfaces: ['lan'] });
  const frame = new Uint8Array(1500);
  for (let n = 0; n < FRAMES; n++) writer.write(frame, 0, 60 + (n % 1400), 1500, n, 0, 0, 1, n, 'said');
  return writer.toBytes();
}

/** Whole frames of a capture, and whether it is sound to its end. */
function read(bytes: Uint8Array): [frames: number, sound: boolean] {
  const reader = CaptureReader.fromBytes('capture', bytes);
  while (reader.next());
  return [reader.frames, reader.error === null];
}

describe('capture target', () => {
  let folder = '';
  let path = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-capture-'));
    path = join(folder, 'pipe');
    execFileSync('mkfifo', [path]);
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const listen = (): number => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  function drain(fd: number): Buffer {
    const parts: Buffer[] = [];
    try {
      for (let got = 1; got > 0; ) {
        const part = Buffer.alloc(65536);
        got = readSync(fd, part);
        parts.push(part.subarray(0, got));
      }
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN');
    }
    return Buffer.concat(parts);
  }

  it('a pipe that nobody reads held the command up, deaf to Ctrl-C: it is opened when there is a reader', () => {
    const target = new CaptureTarget(path);
    expect([target.open(), target.close()]).toEqual([false, 0]);
    const reader = listen();
    expect(target.open()).toBe(true);
    expect(target.close()).toBe(0);
    closeSync(reader);
  });

  it('a slow reader gets everything in the end', () => {
    const reader = listen();
    const target = new CaptureTarget(path);
    target.open();
    expect([target.write(blocks()), target.waiting]).toEqual(['', true]);
    const parts: Buffer[] = [];
    while (target.waiting) {
      parts.push(drain(reader));
      expect(target.push()).toBe('');
    }
    expect(target.close()).toBe(0);
    parts.push(drain(reader));
    closeSync(reader);
    expect(read(Buffer.concat(parts))).toEqual([FRAMES, true]);
  });

  it('who ends it while the reader sleeps: the block that has begun is finished if there is time, and the rest counted', () => {
    for (const patient of [true, false]) {
      const reader = listen();
      const target = new CaptureTarget(path);
      target.open();
      target.write(blocks());
      let missing = target.trim();
      const parts: Buffer[] = [];
      if (patient) {
        parts.push(drain(reader));
        expect([target.push(), target.waiting]).toEqual(['', false]);
      }
      missing += target.close();
      parts.push(drain(reader));
      closeSync(reader);
      const [frames, sound] = read(Buffer.concat(parts));
      expect([frames + missing, missing > 1000]).toEqual([FRAMES, true]);
      if (patient) expect(sound).toBe(true);
    }
  });

  it('a reader that has gone is told as EPIPE', () => {
    const reader = listen();
    const target = new CaptureTarget(path);
    target.open();
    closeSync(reader);
    expect(target.write(blocks())).toBe('EPIPE');
    expect(target.close()).toBe(FRAMES);
  });
});
