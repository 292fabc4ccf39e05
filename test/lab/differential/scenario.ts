/**
 * Scenarios: what is played into the kernel and into Sluice alike. A scenario is data: a topology described by a few
 * options, and frames for its ports. `configOf` turns the options into the one configuration that both routers get.
 *
 *      lan hosts 192.168.1.10.. / 2001:db8:1::10..                     far hosts 198.51.100.x / 2001:db8:f::x
 *            │                                                              │ behind the gateway
 *          [lan] 192.168.1.1/24, 2001:db8:1::1/64    ROUTER    203.0.113.1/24, 2001:db8:ffff::1/64 [wan]
 */
import type { RouterConfig, Verdict } from '../kernel/ruleset.ts';

/** A frame that left a router: `after` is the index of the input frame after which it appeared. */
export interface Played {
  port: string;
  frame: Uint8Array;
  after: number;
}

export interface ScenarioFrame {
  port: string;
  /** Milliseconds since the scenario's start, never falling; the kernel ignores it. */
  at?: number;
  /** The frame, or a function of what has come out so far (an answer to a port that NAT chose). */
  frame: Uint8Array | ((past: readonly Played[]) => Uint8Array);
}

export interface TopologyOptions {
  /** Masquerade IPv4 of the LAN out of the WAN port; default true. A string gives the port range. */
  masquerade?: boolean | string;
  /** Port forwards on the WAN address. */
  forwards?: { proto: string; port: number | string; to: string }[];
  /** The host that gets what nobody else gets. */
  dmz?: string;
  /** What the WAN zone's new connections into the LAN meet; default drop. */
  wanForward?: Verdict;
  rules?: RouterConfig['rules'];
  /** Helpers by name: `{ ftp: { ports: [21] } }`. */
  alg?: RouterConfig['alg'];
  tcpLiberal?: boolean;
  /** MTU of the WAN port; default 1500. */
  wanMtu?: number;
}

export interface Scenario {
  name: string;
  topology: TopologyOptions;
  frames: readonly ScenarioFrame[];
  /** Normalisations (compare.ts) that this scenario needs; none by default. */
  normalise?: readonly string[];
  /** What it is for, and the RFC or the trap that it belongs to. */
  notes?: string;
}

export const LAN_MAC = '02:00:00:00:01:01';
export const WAN_MAC = '02:00:00:00:01:02';
export const GATEWAY_MAC = '02:00:00:00:00:fe';
export const LAN4 = '192.168.1.1';
export const LAN6 = '2001:db8:1::1';
export const WAN4 = '203.0.113.1';
export const WAN6 = '2001:db8:ffff::1';
export const GATEWAY4 = '203.0.113.254';
export const GATEWAY6 = '2001:db8:ffff::fe';

export interface Host {
  mac: string;
  v4: string;
  v6: string;
}

/** LAN hosts with static neighbour entries on both routers. */
export const HOSTS: readonly Host[] = [10, 11, 12, 20].map((n) => ({
  mac: `02:00:00:00:0a:${n.toString(16).padStart(2, '0')}`,
  v4: `192.168.1.${n}`,
  v6: `2001:db8:1::${n}`,
}));

/** A host of the Internet, behind the gateway. */
export function far(n: number): { v4: string; v6: string } {
  return { v4: `198.51.100.${n}`, v6: `2001:db8:f::${n.toString(16)}` };
}

/** The configuration of a topology, the same for Sluice and for the kernel. */
export function configOf(options: TopologyOptions): RouterConfig {
  const config: RouterConfig = {
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: [`${LAN4}/24`, `${LAN6}/64`] },
      wan: {
        kind: 'memory',
        zone: 'wan',
        mac: WAN_MAC,
        addresses: [`${WAN4}/24`, `${WAN6}/64`],
        mtu: options.wanMtu ?? 1500,
      },
    },
    routes: [
      { to: '0.0.0.0/0', via: GATEWAY4 },
      { to: '::/0', via: GATEWAY6 },
    ],
    neighbors: [
      ...HOSTS.flatMap((h) => [
        { port: 'lan', ip: h.v4, mac: h.mac },
        { port: 'lan', ip: h.v6, mac: h.mac },
      ]),
      { port: 'wan', ip: GATEWAY4, mac: GATEWAY_MAC },
      { port: 'wan', ip: GATEWAY6, mac: GATEWAY_MAC },
    ],
    zones: {
      lan: { forward: 'accept', input: 'accept' },
      wan: { forward: options.wanForward ?? 'drop', input: 'drop' },
    },
    // The kernel has no such built-in rules.
    firewall: { ipv6: 'zones', icmpv6: false },
    nat: {},
    // The engine does not look at TCP windows (nor does the kernel's flow table): the slow path is what is judged here.
    offload: { mode: 'off' },
  };
  const nat = config.nat ?? {};
  if (options.masquerade !== false) {
    const ports = typeof options.masquerade === 'string' ? { ports: options.masquerade } : {};
    nat.masquerade = [{ out: 'wan', from: '192.168.1.0/24', ...ports }];
  }
  if (options.forwards) nat.forward = options.forwards.map((f) => ({ in: 'wan', ...f }));
  if (options.dmz) nat.dmz = { in: 'wan', to: options.dmz };
  if (options.rules) config.rules = options.rules;
  if (options.alg) config.alg = options.alg;
  if (options.tcpLiberal) config.conntrack = { 'tcp-liberal': true };
  return config;
}

/** What compare needs of Sluice: the router that `createRouter(configOf(options))` returns has it. */
export interface InlineRouter {
  inject(port: string, frame: Uint8Array): void;
  advance(milliseconds: number): void;
  take(port: string): Uint8Array[];
}

/**
 * Plays a scenario's frames into an inline router under its virtual clock: the counterpart of KernelPlayer.play. The
 * clock ends `linger` ms (0) after the last frame.
 */
export function playInline(
  router: InlineRouter,
  ports: readonly string[],
  frames: readonly ScenarioFrame[],
  options: { linger?: number } = {},
): Played[] {
  const out: Played[] = [];
  const collect = (after: number) => {
    for (const port of ports) for (const frame of router.take(port)) out.push({ port, frame: frame.slice(), after });
  };
  let now = 0;
  frames.forEach((f, n) => {
    const at = Math.max(now, f.at ?? now);
    if (at > now) router.advance(at - now);
    now = at;
    collect(n - 1);
    router.inject(f.port, typeof f.frame === 'function' ? f.frame(out) : f.frame);
    router.advance(0);
    collect(n);
  });
  if (options.linger) {
    router.advance(options.linger);
    collect(frames.length - 1);
  }
  return out;
}
