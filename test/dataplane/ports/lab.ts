/**
 * Lab helpers of the live port tests: an own network namespace, and a packet socket as the far end of a device.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { Random } from '../../lib/build.ts';

/** Why live tests cannot run here, or ''. */
export function whyNotLive(): string {
  if (process.platform !== 'linux') return 'not Linux';
  if (process.getuid?.() !== 0) return 'not root';
  if (!existsSync('/dev/net/tun')) return '/dev/net/tun is missing';
  try {
    execFileSync('ip', ['-V'], { stdio: 'ignore' });
  } catch {
    return 'the ip command is missing';
  }
  return '';
}

let namespaces = 0;

/** Makes a namespace with a name of this process; the caller deletes it. */
export function addNetns(): string {
  const name = `sl-test-${process.pid}-${namespaces++}`;
  execFileSync('ip', ['netns', 'add', name]);
  // Without IPv6 the kernel sends nothing of its own: every frame seen is one that a test sent.
  execFileSync('ip', ['netns', 'exec', name, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6']);
  return name;
}

export function deleteNetns(name: string): void {
  execFileSync('ip', ['netns', 'delete', name]);
}

export function ip(netns: string, ...args: string[]): string {
  return execFileSync('ip', ['-n', netns, ...args], { encoding: 'utf8' });
}

/** Interface index of a device in a namespace. */
export function ifindex(netns: string, device: string): number {
  return JSON.parse(ip(netns, '-j', 'link', 'show', 'dev', device))[0].ifindex;
}

/** Seeded generator of 32-bit numbers (mulberry32). */
export function random(seed: number): () => number {
  const numbers = new Random(seed);
  return () => numbers.next();
}

/** True when the kernel is at least MAJOR.MINOR. */
export function kernelAtLeast(major: number, minor: number): boolean {
  const [a, b] = readFileSync('/proc/sys/kernel/osrelease', 'utf8').split('.').map(Number);
  return a > major || (a === major && b >= minor);
}
