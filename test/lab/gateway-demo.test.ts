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
      show: Record<'gateway' | 'leases' | 'ra' | 'dhcp6' | 'dns', unknown>;
    };
    expect(summary.checks.filter((check) => !check.passed)).toEqual([]);
    expect(summary.checks.length).toBe(9);
    expect(done.status).toBe(0);
    // Asked of a running router: each view waits for the answers of the families' own threads.
    expect(summary.show.gateway).toMatchObject({ mode: 'dual', states: { v4: 'online', v6: 'online' } });
    const leases = summary.show.leases as { ipv4: { address: string; dev: string; state: string }[] }[];
    expect(leases.flatMap(({ ipv4 }) => ipv4).filter(({ state }) => state === 'bound')).not.toEqual([]);
    expect(summary.show.ra).toMatchObject({ senders: [{ dev: 'lan' }], routers: [{ dev: 'wan', prefix: '::/0' }] });
    // It renews every few seconds: its state is that of the moment.
    expect(summary.show.dhcp6).toMatchObject({ clients: [{ port: 'wan' }], servers: ['lan'] });
    const dns = summary.show.dns as { servers: string[]; counters: { queries: number; answers: number } };
    expect(dns.servers).not.toEqual([]);
    expect(Math.min(dns.counters.queries, dns.counters.answers)).toBeGreaterThan(0);
    const order = [...done.stderr.matchAll(/gateway: IPv6 (\w+) → (\w+)/g)].map((m) => m[2]);
    expect(order.join()).toMatch(/soliciting,requesting,numbering,online.*numbering,online$/);
    expect(spawnSync('ip', ['netns'], { encoding: 'utf8' }).stdout).not.toContain(`sluice-${done.pid}-`);
  });
});
