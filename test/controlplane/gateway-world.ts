/**
 * gateway-world: a home that provisions itself, and a provider that is this router too, joined by a cable: DHCP, DHCPv6 with
 * prefix delegation and router advertisements. `told` are the gateway's events, in order, `logs` what was said to people.
 */
import { type Message, parseMessage } from '../../controlplane/dhcp6/message.ts';
import type { Gateway } from '../../controlplane/gateway/gateway.ts';
import type { State } from '../../controlplane/gateway/table.ts';
import type { Event } from '../../controlplane/protocol.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { showRoute } from '../../controlplane/show/route.ts';
import { formatCidr } from '../../dataplane/wire/address.ts';
import { get16 } from '../lib/build.ts';
import { type Heard, Wire } from '../lib/wire.ts';

export const LAN_MAC = '02:00:00:00:01:01';
export const WAN_MAC = '02:00:00:00:01:02';
export const WAN_LINK_LOCAL = 'fe80::ff:fe00:102';
export const ISP_MAC = '02:00:00:00:09:01';
export const ISP_LINK_LOCAL = 'fe80::ff:fe00:901';

type Section = Record<string, unknown>;

export function make(config: Section): { router: Router; told: string[]; logs: string[] } {
  const logs: string[] = [];
  const router = createRouter(
    { offload: { mode: 'off' }, conntrack: { max: 1024 }, ...config },
    { unasked: true, slots: { small: 256, large: 4 }, log: (_level, message) => void logs.push(message) },
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
  return { router, told, logs };
}

/** The provider; `ra` and `server` are written over its own, `server: null`: nobody answers DHCPv6, `length`: what it delegates. */
export const isp = (
  prefix = '2001:db8:100::/40',
  addresses: string | null = '2001:db8:0:1::1000-2001:db8:0:1::1fff',
  { ra = {}, server = {}, length = 56 }: { ra?: Section; server?: Section | null; length?: number } = {},
) =>
  make({
    ports: {
      access: {
        kind: 'memory',
        mac: ISP_MAC,
        addresses: ['203.0.113.1/24', '2001:db8:0:1::1/64'],
        ra: { managed: true, default: 'always', autonomous: false, ...ra },
        dhcp4: { server: { range: '203.0.113.100-203.0.113.199', dns: '203.0.113.53', lease: 600 } },
        ...(server === null
          ? {}
          : {
              dhcp6: {
                server: {
                  ...(addresses === null ? {} : { addresses }),
                  delegate: 'home',
                  dns: '2001:db8:0:1::53',
                  preferred: 300,
                  valid: 600,
                  ...server,
                },
              },
            }),
      },
    },
    delegation: { pools: { home: { prefix, length } } },
  });

export const home = (gateway: Section = {}) =>
  make({
    ports: {
      lan: { kind: 'memory', mac: LAN_MAC, addresses: '192.168.1.1/24' },
      guest: { kind: 'memory', mac: '02:00:00:00:01:03', addresses: '192.168.2.1/24' },
      wan: { kind: 'memory', mac: WAN_MAC },
    },
    gateway: { wan: 'wan', lan: ['lan', 'guest'], 'prefix-hint': '::/56', ...gateway },
    nat: { masquerade: [{ out: 'wan', from: '192.168.0.0/16' }] },
  });

/** A home as docs/gateway.md writes it, with zones, so that the built-in rules of IPv6 stand. `ports` is written over each port. */
export const house = (gateway: Section = {}, ports: Record<string, Section> = {}, more: Section = {}) =>
  make({
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: '192.168.1.1/24', ...ports.lan },
      guest: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:03', addresses: '192.168.2.1/24', ...ports.guest },
      wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, ...ports.wan },
    },
    zones: { lan: {}, wan: { forward: 'drop', input: 'drop' } },
    gateway: { wan: 'wan', lan: ['lan', 'guest'], ...gateway },
    nat: { masquerade: [{ out: 'wan', from: '192.168.0.0/16' }] },
    ...more,
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

/** A cable between a provider and a home; `heard` is what goes over it. */
export function connect(provider: ReturnType<typeof make>, own: ReturnType<typeof make>) {
  const wire = new Wire();
  const heard: Heard[] = wire.join({ router: provider.router, port: 'access' }, { router: own.router, port: 'wan' });
  return { isp: provider, home: own, wire, heard };
}

export type World = ReturnType<typeof connect>;

/** A home that has had the time to provision itself. */
export function online(provider = isp(), own = home()): World {
  const made = connect(provider, own);
  made.wire.advance(14_000, 20);
  return made;
}

/** The DHCPv6 message in a frame of UDP to 546 or 547; null: it is something else. */
export function messageOf(frame: Uint8Array): Message | null {
  const isDhcp6 = get16(frame, 12) === 0x86dd && frame[20] === 17 && (get16(frame, 56) & ~1) === 546;
  return isDhcp6 ? parseMessage(frame.slice(62)) : null;
}

/** What the home has said by DHCPv6, in order. */
export function asked({ home: own, heard }: World): Message[] {
  return heard.filter(({ from }) => from === own.router).flatMap(({ frame }) => messageOf(frame) ?? []);
}

/** The prefix that the home has, as text. */
export function delegated({ home: own }: World): string {
  const held = own.router.control.domains.dhcp6!.clients[0].held.find(({ kind }) => kind === 'pd')!;
  return formatCidr(6, held.words, held.prefixLength);
}

/** All routes, as `show route` prints them. */
export function routesOf({ tables, config, control }: Router): string {
  return showRoute({ tables, config, control } as never, {}).text;
}

/** A home without zones on its cable, before anything has been said. */
export const world = (provider = isp(), gateway: Section = {}) => connect(provider, home(gateway));
