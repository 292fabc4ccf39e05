/**
 * A lease file on a disk that is full for a while: nothing that was promised before or after is lost, and no descriptor stays open.
 * The disk is this test: it takes so many bytes of what is written, then none.
 */
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Journal, parseRecords } from '../../controlplane/journal.ts';

vi.mock('node:fs', { spy: true });

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-journal-'));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

/** The next record finds room for so many bytes only. */
const roomFor = (bytes: number) =>
  vi.mocked(writeSync).mockImplementationOnce(((fd: number, line: Buffer, ...where: [number?, number?, number?]) => {
    const at = where[2];
    return at === undefined ? writeSync(fd, line.subarray(0, bytes)) : writeSync(fd, line, 0, bytes, at);
  }) as typeof writeSync);

it('a record that was cut for want of room hides none of those behind it', () => {
  const file = join(folder, 'leases');
  const { journal } = Journal.open(file);
  journal.append({ n: 1 });
  for (const bytes of [3, 12]) {
    roomFor(bytes);
    expect(() => journal.append({ n: 'a record that is longer than the next one' })).toThrow(
      /expected room.*make room/,
    );
  }
  journal.append({ n: 2 });
  journal.append({ n: 3 });
  journal.sync();
  expect(parseRecords(readFileSync(file)).records).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
  journal.close();
  const again = Journal.open(file);
  expect(again.recovered.records).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
  again.journal.close();
});

it('a file whose folder cannot be opened is not written anew by half: what is appended later is in it', async () => {
  const file = join(folder, 'leases');
  const { journal } = Journal.open(file);
  journal.append({ n: 1 });
  const real = await vi.importActual<typeof import('node:fs')>('node:fs');
  vi.mocked(openSync).mockImplementation((path, ...how) => {
    if (path === folder) throw new Error('EMFILE: too many open files, open');
    return real.openSync(path, ...how);
  });
  expect(() => journal.rewrite([{ n: 1 }])).toThrow('EMFILE');
  vi.mocked(openSync).mockRestore();
  journal.append({ n: 2 });
  journal.close();
  expect(parseRecords(readFileSync(file)).records).toEqual([{ n: 1 }, { n: 2 }]);
  expect(readdirSync(folder)).toEqual(['leases']);
});

it('a file that cannot be written anew costs no descriptor and leaves no piece of it', () => {
  const file = join(folder, 'leases');
  const { journal } = Journal.open(file);
  journal.append({ n: 1 });
  const open = () => vi.mocked(openSync).mock.calls.length - vi.mocked(closeSync).mock.calls.length;
  const before = open();
  for (let n = 0; n < 5; n++) {
    vi.mocked(writeSync).mockImplementationOnce(() => {
      throw new Error('ENOSPC: no space left on device, write');
    });
    expect(() => journal.rewrite([{ n: 1 }])).toThrow('ENOSPC');
  }
  expect(open()).toBe(before);
  expect(readdirSync(folder).sort()).toEqual(['leases', 'leases.lock']);
  journal.append({ n: 2 });
  journal.close();
  expect(parseRecords(readFileSync(file)).records).toEqual([{ n: 1 }, { n: 2 }]);
});
