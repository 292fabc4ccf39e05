/**
 * The gateway profiles in examples/: each is read without a fault, and does to a call what its head comment says.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../controlplane/config/index.ts';
import { World } from '../conntrack/nat-world.ts';

const S1 = '198.51.100.1:3478';
const S2 = '198.51.100.2:3478';

function text(name: string): string {
  return readFileSync(fileURLToPath(new URL(`../../examples/${name}.yaml`, import.meta.url)), 'utf8');
}

/** The example's `nat` section between the ports of the test's own world. */
function world(name: string): World {
  const nat = (parse(text(name)) as { nat: Record<string, unknown> }).nat;
  const masquerade = (nat.masquerade as Record<string, unknown>[]).map((entry) => ({ ...entry, out: 'wan' }));
  return new World({ ...nat, masquerade, log: undefined });
}

describe('examples', () => {
  it.each(['home', 'home-gateway', 'carrier-nat', 'enterprise-firewall', 'hotel'])('%s.yaml is right', (name) => {
    expect(parseConfig(text(name), `${name}.yaml`, { memory: 2 ** 34 }).warnings).toEqual([]);
  });

  it('home-gateway: one port for all, only known senders, the forward from inside as well, the trigger', () => {
    const w = world('home-gateway');
    const seen = w.out('192.168.1.10:4000', S1)!;
    expect(w.out('192.168.1.10:4000', S2)).toBe(seen);
    expect(w.in('192.0.2.9:9', seen)).toBeNull();
    expect(w.tcpIn('192.0.2.9:9', '203.0.113.1:8443')).toBe('192.168.1.10:443');
    w.out('192.168.1.20:3074', '198.51.100.9:3074');
    expect(w.in('192.0.2.9:9', '203.0.113.1:3076')).toBe('192.168.1.20:3076');
  });

  it('carrier-nat: open to all, a block of one address', () => {
    const w = world('carrier-nat');
    const seen = w.out('100.64.3.7:4000', S1)!;
    expect(seen).toMatch(/^198\.51\.100\.(6[4-9]|7\d):/);
    expect(w.in('192.0.2.9:9', seen)).toBe('100.64.3.7:4000');
    w.router.control.blockLog.drain();
    expect(w.router.control.blockLog.events).toHaveLength(1);
  });

  it('enterprise-firewall: a new port for every destination; hotel: too, and no more than 500 sessions', () => {
    const firewall = world('enterprise-firewall');
    expect(firewall.out('10.0.0.9:4000', S1)).not.toBe(firewall.out('10.0.0.9:4000', S2));
    const hotel = world('hotel');
    const host = '10.20.1.1:4000';
    expect(hotel.out(host, S1)).not.toBe(hotel.out(host, S2));
    for (let n = 0; n < 498; n++) expect(hotel.out(host, `198.51.${n >> 7}.${n & 127}:443`)).not.toBeNull();
    expect(hotel.out(host, '192.0.2.200:443')).toBeNull();
    expect(hotel.dropped('CT_LIMIT')).toBe(1);
  });
});
