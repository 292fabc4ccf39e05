/**
 * `sluice demo --gateway` itself: dnsmasq, kea-dhcp6 and radvd as the provider, the kernel's SLAAC and dhcpcd as hosts; from
 * nothing to both families, and through a renumbering.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { GATEWAY_PROGRAMS } from '../../controlplane/demo/gateway.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));

describe.skipIf(!labReady(GATEWAY_PROGRAMS, { tun: true }))('sluice demo --gateway', () => {
  it('every check passes, in the order of the procedure, and nothing is left', { timeout: 180_000 }, () => {
    const done = spawnSync(process.execPath, [join(MAIN), 'demo', '--gateway', '--json'], {
      encoding: 'utf8',
      timeout: 180_000,
    });
    const summary = JSON.parse(done.stdout) as {
      passed: boolean;
      checks: { name: string; passed: boolean; seen: string }[];
    };
    expect(summary.checks.filter((check) => !check.passed)).toEqual([]);
    expect(summary.checks.length).toBe(9);
    expect(done.status).toBe(0);
    const order = [...done.stderr.matchAll(/gateway: IPv6 (\w+) → (\w+)/g)].map((m) => m[2]);
    expect(order.join()).toMatch(/soliciting,requesting,numbering,online.*numbering,online$/);
    expect(spawnSync('ip', ['netns'], { encoding: 'utf8' }).stdout).not.toContain(`sluice-${done.pid}-`);
  });
});
