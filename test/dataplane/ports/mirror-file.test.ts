/**
 * Mirror file: a disk that fills, files that others move and empty, pipes whose readers are slow or gone. What is in the file is
 * always a capture that can be read to its end, and what is not in it is counted: read + lost = written.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CaptureReader } from '../../../dataplane/ports/capture-reader.ts';
import { CaptureWriter } from '../../../dataplane/ports/capture-writer.ts';
import { diskReady, mountDisk, unmountDisk } from '../../lib/disk.ts';
import { random } from './lab.ts';

const live = process.platform === 'linux';
if (!live) console.warn('SKIPPED: mirror files (not Linux)');

const ENOENT = 2;
const ENXIO = 6;
const ENOSPC = 28;

describe.skipIf(!live)('mirror file', async () => {
  const { MirrorFile } = await import('../../../dataplane/ports/mirror-file.ts');
  type Mirror = InstanceType<typeof MirrorFile>;
  let folder = '';
  let path = '';
  let next: () => number;
  const bytes = new Uint8Array(2048);

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-mirror-'));
    path = join(folder, 'lan.pcapng');
    next = random(7);
    for (let i = 0; i < bytes.length; i++) bytes[i] = i;
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** Offers `count` frames of random lengths in this second, numbered from where the last ones ended. */
  function offer(mirror: Mirror, count: number, second: number): void {
    for (let n = 0; n < count; n++) {
      const length = 60 + (next() % 1400);
      mirror.write(bytes, 0, length, length, second, n * 1000, 0, 1, mirror.nextPacketId++, '');
    }
  }

  /** Numbers of the frames of a capture, which must be sound to its end. */
  function numbers(data: Uint8Array): number[] {
    const reader = CaptureReader.fromBytes('mirror', data);
    const ids: number[] = [];
    while (reader.next()) ids.push(reader.packetIdLow);
    expect(reader.error).toBeNull();
    return ids;
  }

  /** isb_ifdrop of the last statistics block. */
  function saidLost(data: Uint8Array): number {
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    let lost = 0;
    for (let at = 0; at < data.length; at += view.getUint32(at + 4, true))
      if (view.getUint32(at, true) === 5) lost = view.getUint32(at + 24, true);
    return lost;
  }

  const sections = (data: Uint8Array): number =>
    Buffer.from(data).toString('latin1').split('\x0a\x0d\x0d\x0a').length - 1;

  it('is what a CaptureWriter would have written', () => {
    const mirror = new MirrorFile(path);
    expect(mirror.addInterface('lan')).toBe(0);
    const writer = new CaptureWriter(null, { format: 'pcapng', interfaces: ['lan'] });
    for (let n = 1; n < 600; n++) {
      const length = 60 + (next() % 1400);
      mirror.write(bytes, 0, length, length, n, 5, 0, 2, n, 'said');
      writer.write(bytes, 0, length, length, n, 5, 0, 2, n, 'said');
    }
    mirror.close();
    expect(Buffer.compare(readFileSync(path), writer.toBytes())).toBe(0);
    expect([mirror.frames, mirror.lost, mirror.trouble, statSync(path).mode & 0o777]).toEqual([599, 0, 0, 0o600]);
  });

  it('a file is emptied at the start, and gets a further section after a worker’s death', () => {
    writeFileSync(path, 'of yesterday');
    for (const append of [false, true]) {
      const mirror = new MirrorFile(path, { append });
      mirror.addInterface('lan');
      offer(mirror, 3, 1);
      mirror.close();
    }
    expect([numbers(readFileSync(path)), sections(readFileSync(path))]).toEqual([[1, 2, 3, 1, 2, 3], 2]);
  });

  it('a file that cannot be made is tried again, and killed nobody', () => {
    const below = join(folder, 'later', 'lan.pcapng');
    const mirror = new MirrorFile(below);
    mirror.addInterface('lan');
    expect(mirror.trouble).toBe(ENOENT);
    offer(mirror, 5, 1);
    execFileSync('mkdir', [join(folder, 'later')]);
    offer(mirror, 5, 200);
    mirror.close();
    expect([mirror.trouble, mirror.lost, numbers(readFileSync(below))]).toEqual([0, 5, [6, 7, 8, 9, 10]]);
    expect(saidLost(readFileSync(below))).toBe(5);
  });

  it('what waits is written when it is time, though no frame comes', () => {
    const mirror = new MirrorFile(path);
    mirror.addInterface('lan');
    offer(mirror, 2, 1);
    mirror.tick(1, 300_000_000);
    expect(numbers(readFileSync(path))).toEqual([1, 2]);
    mirror.close();
  });

  it('a file that was renamed or deleted is made anew, each with a section of its own', () => {
    const mirror = new MirrorFile(path);
    mirror.addInterface('lan');
    offer(mirror, 3, 1);
    renameSync(path, `${path}.1`);
    offer(mirror, 3, 2);
    mirror.tick(2, 500_000_000);
    expect([numbers(readFileSync(`${path}.1`)), numbers(readFileSync(path))]).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    rmSync(path);
    offer(mirror, 1, 3);
    mirror.close();
    expect([numbers(readFileSync(path)), mirror.lost]).toEqual([[7], 0]);
  });

  it('a file that was emptied goes on with a section header: what followed could not be read', () => {
    const mirror = new MirrorFile(path);
    mirror.addInterface('lan');
    offer(mirror, 3, 1);
    mirror.tick(1, 300_000_000);
    truncateSync(path);
    offer(mirror, 3, 1);
    mirror.tick(1, 500_000_000);
    expect([numbers(readFileSync(path)), mirror.lost]).toEqual([[4, 5, 6], 0]);
    mirror.close();
  });

  it('a device that is always full is tried ever more rarely, and a file in its place is taken', () => {
    symlinkSync('/dev/full', path);
    const mirror = new MirrorFile(path);
    mirror.addInterface('lan');
    expect(mirror.trouble).toBe(ENOSPC);
    for (let second = 1; second < 300; second++) offer(mirror, 2, second);
    expect([mirror.trouble, mirror.lost, mirror.frames]).toEqual([ENOSPC, 598, 0]);
    rmSync(path);
    for (let second = 300; second < 365; second++) offer(mirror, 1, second);
    mirror.close();
    const ids = numbers(readFileSync(path));
    expect([ids.length > 0, ids.length + mirror.lost, mirror.trouble]).toEqual([true, 663, 0]);
  });

  describe.skipIf(!diskReady())('on a full disk', () => {
    let disk = '';
    beforeEach(() => {
      disk = mountDisk('5m');
      path = join(disk, 'lan.pcapng');
    });
    afterEach(() => unmountDisk(disk));

    it('ends behind a whole block, says why, and goes on as a further section when there is room again', () => {
      const ballast = join(disk, 'ballast');
      writeFileSync(ballast, new Uint8Array(3_000_000));
      const mirror = new MirrorFile(path);
      mirror.addInterface('lan');
      let second = 1;
      for (; mirror.trouble === 0 && second < 100; second++) offer(mirror, 100, second);
      expect(mirror.trouble).toBe(ENOSPC);
      const before = numbers(readFileSync(path));
      expect(before.length).toBeGreaterThan(1000);
      expect(before).toEqual(before.map((_, n) => n + 1));
      expect(before.length + mirror.lost).toBe(mirror.nextPacketId - 1);
      // No room: nothing changes, not even by a header.
      const { size } = statSync(path);
      for (const end = second + 200; second < end; second++) offer(mirror, 1, second);
      expect([mirror.trouble, statSync(path).size]).toEqual([ENOSPC, size]);

      rmSync(ballast);
      for (const end = second + 65; second < end; second++) offer(mirror, 1, second);
      expect(mirror.trouble).toBe(0);
      offer(mirror, 100, second);
      mirror.close();
      const whole = readFileSync(path);
      const after = numbers(whole);
      expect(after.slice(0, before.length)).toEqual(before);
      expect(after.length + mirror.lost).toBe(mirror.nextPacketId - 1);
      expect([after.length > before.length, sections(whole), saidLost(whole)]).toEqual([true, 2, mirror.lost]);
    });

    it('a mirror that filled the disk itself gives the room back when it is deleted', () => {
      const mirror = new MirrorFile(path);
      mirror.addInterface('lan');
      let second = 1;
      for (; mirror.trouble === 0 && second < 200; second++) offer(mirror, 100, second);
      expect(mirror.trouble).toBe(ENOSPC);
      rmSync(path);
      for (const end = second + 65; second < end; second++) offer(mirror, 1, second);
      mirror.close();
      expect([mirror.trouble, numbers(readFileSync(path)).at(-1)]).toEqual([0, mirror.nextPacketId - 1]);
    });
  });

  describe('into a pipe', () => {
    beforeEach(() => {
      execFileSync('mkfifo', [path]);
    });
    const reader = (): number => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);

    /** What is in the pipe now. */
    function drain(fd: number): Buffer {
      const parts: Buffer[] = [];
      const part = Buffer.alloc(65536);
      try {
        for (let got = 1; got > 0; ) {
          got = readSync(fd, part);
          parts.push(Buffer.from(part.subarray(0, got)));
        }
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN');
      }
      return Buffer.concat(parts);
    }

    it('waits for nobody: without a reader frames are counted, and each reader begins with a section', () => {
      const mirror = new MirrorFile(path);
      mirror.addInterface('lan');
      expect(mirror.trouble).toBe(ENXIO);
      offer(mirror, 10, 1);
      expect(mirror.lost).toBe(10);

      const first = reader();
      mirror.tick(2, 0);
      expect(mirror.trouble).toBe(0);
      // Who opens a pipe waits for the header before anything else.
      expect(numbers(drain(first))).toEqual([]);
      offer(mirror, 3, 2);
      mirror.tick(2, 200_000_000);
      closeSync(first); // its three frames are in the pipe
      mirror.tick(3, 0);
      expect(mirror.trouble).toBe(ENXIO);
      offer(mirror, 4, 3);

      const second = reader();
      offer(mirror, 5, 4);
      mirror.close();
      const data = drain(second);
      closeSync(second);
      expect([numbers(data), saidLost(data), sections(data)]).toEqual([[18, 19, 20, 21, 22], mirror.lost, 1]);
      expect(mirror.lost).toBe(14);
    });

    it('a slow reader loses whole frames, and what it gets can be read to its end', () => {
      const slow = reader();
      const mirror = new MirrorFile(path);
      mirror.addInterface('lan');
      const parts: Buffer[] = [];
      const one = Buffer.alloc(100_000);
      for (let second = 1; second < 40; second++) {
        offer(mirror, 400, second);
        mirror.tick(second, 900_000_000);
        parts.push(Buffer.from(one.subarray(0, readSync(slow, one))));
      }
      expect(mirror.trouble).toBe(0);
      expect(mirror.lost).toBeGreaterThan(1000);
      // Now it reads all that there is.
      for (let second = 40; second < 60; second++) {
        mirror.tick(second, 500_000_000);
        parts.push(drain(slow));
      }
      offer(mirror, 1, 60);
      mirror.close();
      parts.push(drain(slow));
      closeSync(slow);
      const data = Buffer.concat(parts);
      const ids = numbers(data);
      expect(ids.at(-1)).toBe(mirror.nextPacketId - 1);
      expect([ids.length + mirror.lost, saidLost(data)]).toEqual([mirror.nextPacketId - 1, mirror.lost]);
      expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
    });

    it('a reader that goes in the middle of a block: the block is lost, and the next reader gets none of its rest', () => {
      const first = reader();
      const mirror = new MirrorFile(path);
      mirror.addInterface('lan');
      offer(mirror, 3000, 1);
      mirror.tick(2, 0);
      readSync(first, Buffer.alloc(1000));
      closeSync(first);
      offer(mirror, 1, 3);
      expect(mirror.trouble).toBe(ENXIO);
      expect(mirror.lost).toBeGreaterThan(1000);
      const second = reader();
      offer(mirror, 2, 4);
      mirror.close();
      expect(numbers(drain(second))).toEqual([3002, 3003]);
      closeSync(second);
    });
  });
});
