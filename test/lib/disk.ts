/** Disk: a little tmpfs for tests of what happens when there is no room. Needs root, and to be allowed to mount. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Mounts a file system of this size (as tmpfs takes it: `64k`, `5m`) and returns its folder. */
export function mountDisk(size: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'sluice-test', folder], { stdio: 'pipe' });
  } catch (error) {
    rmSync(folder, { recursive: true });
    throw error;
  }
  return folder;
}

/** Takes it down, with all that is in it; '' is none. */
export function unmountDisk(folder: string): void {
  if (folder === '') return;
  execFileSync('umount', ['-l', folder], { stdio: 'pipe' });
  rmSync(folder, { recursive: true });
}

/** False: there can be no such disk here, which is said. */
export function diskReady(): boolean {
  try {
    unmountDisk(mountDisk('64k'));
    return true;
  } catch (error) {
    console.warn(`SKIPPED: tests of full disks: expected to mount a tmpfs (as root), got ${(error as Error).message}`);
    return false;
  }
}
