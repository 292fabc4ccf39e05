/**
 * gateway-world: a home that provisions itself, and a provider that is this router too, joined by a cable: DHCP, DHCPv6 with
 * prefix delegation and router advertisements. `told` are the gateway's events, in order.
 */
import type { Gateway } from '../../controlplane/gateway/gateway.ts';
import type { State } from '../../controlplane/gateway/table.ts';
import type { Event } from '../../controlplane/protocol.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { formatCidr } from '../../dataplane/wire/address.ts';
import { type Heard, Wire } from '../lib/wire.ts';

export function make(config: Record<string, unknown>): { router: Router; told: string[] } {
  const router = createRouter(
    { offload: { mode: 'off' }, conntrack: { max: 1024 }, ...config },
    { unasked: true, slots: { small: 256, large: 4 } },
  );
  const told: string[] = [];
  router.control.protocols.push({
    name: 'ear',
    next: () => -1,
    step: (_now: number, event: Event) => {
      if (event.kind !== 'event') return [];
      const { name, data } = event;
      if (name === 'gateway.state') told.push(`${data.family} ${data.from} → ${data.to}`);
      if (name === 'gateway.lan') told.push(`${data.port} ${data.op} ${data.address}/${data.prefixLength}`);
      return [];
    },
  });
  return { router, told };
}

export const isp = (prefix = '2001:db8:100::/40', addresses: string | null = '2001:db8:0:1::1000-2001:db8:0:1::1fff') =>
  make({
    ports: {
      access: {
        kind: 'memory',
        mac: '02:00:00:00:09:01',
        addresses: ['203.0.113.1/24', '2001:db8:0:1::1/64'],
        ra: { managed: true, default: 'always', autonomous: false },
        dhcp4: { server: { range: '203.0.113.100-203.0.113.199', dns: '203.0.113.53', lease: 600 } },
        dhcp6: {
          server: {
            ...(addresses === null ? {} : { addresses }),
            delegate: 'home',
            dns: '2001:db8:0:1::53',
            preferred: 300,
            valid: 600,
          },
        },
      },
    },
    delegation: { pools: { home: { prefix, length: 56 } } },
  });

export const home = (gateway: Record<string, unknown> = {}) =>
  make({
    ports: {
      lan: { kind: 'memory', mac: '02:00:00:00:01:01', addresses: '192.168.1.1/24' },
      guest: { kind: 'memory', mac: '02:00:00:00:01:03', addresses: '192.168.2.1/24' },
      wan: { kind: 'memory', mac: '02:00:00:00:01:02' },
    },
    gateway: { wan: 'wan', lan: ['lan', 'guest'], 'prefix-hint': '::/56', ...gateway },
    nat: { masquerade: [{ out: 'wan', from: '192.168.0.0/16' }] },
  });

export function addresses(router: Router, port: number): string[] {
  return router.control.addresses
    .ofPort(port)
    .filter((a) => a.family === 4 || (a.words[0] & 0xc0ff) !== 0x80fe)
    .map((a) => `${formatCidr(a.family, a.words, a.prefixLength)} ${a.state}`);
}
/** Each family's half is in the domain of its own. */
export function states(router: Router): { v4: State; v6: State } {
  const halves = router.control.protocols.filter((p) => p.name === 'gateway') as Gateway[];
  const of = (family: 'v4' | 'v6') =>
    halves.map((half) => half.states[family]).find((state) => state !== 'down') ?? 'down';
  return { v4: of('v4'), v6: of('v6') };
}

export function world(provider = isp(), gateway: Record<string, unknown> = {}) {
  const own = home(gateway);
  const wire = new Wire();
  const heard: Heard[] = wire.join({ router: provider.router, port: 'access' }, { router: own.router, port: 'wan' });
  return { isp: provider, home: own, wire, heard };
}
