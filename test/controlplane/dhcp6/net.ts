/**
 * Routers joined by wires under one virtual clock, for the tests in this folder. Every frame on a wire is checked by the
 * tests' own parser (test/lib/verify.ts) and, when it is DHCPv6, written down: when, on which wire, which message.
 */
import { expect } from 'vitest';
import { MESSAGE_NAMES } from '../../../controlplane/dhcp6/constants.ts';
import { type Message, parseMessage } from '../../../controlplane/dhcp6/message.ts';
import { type RelayMessage, unwrap } from '../../../controlplane/dhcp6/relay-message.ts';
import { createRouter, type Router, type RouterOptions } from '../../../controlplane/router.ts';
import { showRoute } from '../../../controlplane/show/route.ts';
import * as build from '../../lib/build.ts';

export interface Said {
  at: number;
  /** `from>to` by router names. */
  wire: string;
  /** `SOLICIT`, or `RELAY-FORW(SOLICIT)`. */
  name: string;
  relays: RelayMessage[];
  message: Message;
  frame: Uint8Array;
}

interface End {
  router: string;
  port: string;
}

export class Net {
  readonly routers: Record<string, Router> = {};
  readonly said: Said[] = [];
  /** What routers logged for people, `router: message`. */
  readonly logs: string[] = [];
  /** Drops a frame when it says so. */
  lose: (said: Said) => boolean = () => false;
  now = 0;
  private readonly wires: End[][] = [];

  add(name: string, config: Record<string, unknown>, options: RouterOptions = {}): Router {
    const log = (_level: string, message: string) => void this.logs.push(`${name}: ${message}`);
    this.routers[name] = createRouter(
      { offload: { mode: 'off' }, conntrack: { max: 1024 }, ...config },
      { unasked: true, seed: this.wires.length + 3, log, ...options },
    );
    return this.routers[name];
  }

  /** `a.wan`, `b.lan`; more than two are on a hub. */
  wire(...ends: string[]): void {
    this.wires.push(ends.map((end) => ({ router: end.split('.')[0], port: end.split('.')[1] })));
  }

  /** Lets time pass on all routers; what they say arrives at once. */
  advance(milliseconds: number, step = 20): void {
    for (let left = milliseconds; left > 0; left -= step) {
      const part = Math.min(step, left);
      this.now += part;
      for (const router of Object.values(this.routers)) router.advance(part);
      this.settle();
    }
  }

  settle(): void {
    for (let rounds = 0; rounds < 50; rounds++) {
      let moved = 0;
      for (const ends of this.wires)
        for (const end of ends)
          moved += this.carry(
            end,
            ends.filter((other) => other !== end),
          );
      if (moved === 0) return;
    }
    throw new Error('expected the wires to fall silent, got frames without end');
  }

  /** Says something to a port in another's name; it is written down as `name>router`. */
  speak(name: string, to: string, frame: Uint8Array): void {
    const [router, port] = to.split('.');
    const said = this.read(frame, `${name}>${router}`);
    if (said !== null) this.said.push(said);
    this.routers[router].inject(port, frame);
  }

  private carry(from: End, others: End[]): number {
    const frames = this.routers[from.router].take(from.port);
    for (const frame of frames) {
      expect(build.verify(frame)).toEqual([]);
      const said = this.read(frame, `${from.router}>${others.map((end) => end.router).join('+')}`);
      if (said !== null) {
        this.said.push(said);
        if (this.lose(said)) continue;
      }
      for (const to of others) this.routers[to.router].inject(to.port, frame);
    }
    return frames.length;
  }

  private read(frame: Uint8Array, wire: string): Said | null {
    if (build.get16(frame, 12) !== 0x86dd || frame[20] !== 17) return null;
    const to = build.get16(frame, 56);
    if (to !== 546 && to !== 547) return null;
    const found = unwrap(frame.slice(62), 32);
    const message = found === null ? null : parseMessage(found.message);
    expect(message).not.toBeNull();
    const { relays } = found!;
    const inner = MESSAGE_NAMES[message!.type];
    const name = relays.reduceRight((text, relay) => `${MESSAGE_NAMES[relay.type]}(${text})`, inner);
    return { at: this.now, wire, name, relays, message: message!, frame };
  }

  /** Names of what was said since the last call. */
  take(): string[] {
    return this.said.splice(0).map(({ wire, name }) => `${wire} ${name}`);
  }

  /** Routes of a router that DHCP brought. */
  routes(name: string): string[] {
    const { tables, config, control } = this.routers[name];
    return showRoute({ tables, config, control } as never, {})
      .text.split('\n')
      .filter((line) => line.includes('proto dhcp'));
  }

  dhcp6(name: string) {
    return this.routers[name].control.domains.dhcp6!;
  }
}

/** A customer's router. */
export function customer(client: Record<string, unknown>, mac = '02:00:00:00:0c:01'): Record<string, unknown> {
  return { ports: { wan: { kind: 'memory', mac, dhcp6: { client } } } };
}

/** A provider's router that answers on the link itself. */
export function provider(
  server: Record<string, unknown>,
  delegation: Record<string, unknown> = {},
  n = 1,
): Record<string, unknown> {
  return {
    ports: {
      lan: { kind: 'memory', mac: `02:00:00:00:0a:0${n}`, addresses: `2001:db8:0:1::${n}/64`, dhcp6: { server } },
    },
    delegation: { pools: { customers: { prefix: '2001:db8:100::/40', length: 56 } }, ...delegation },
  };
}

/** A customer behind a provider's relay: cpe ── lan [relay] dc ── lan [isp]. The options add keys, or replace them. */
export function relayedNet(
  options: {
    client?: object;
    clientMac?: string;
    relay?: object;
    relayLan?: object;
    server?: object;
    delegation?: object;
  } = {},
): Net {
  const n = new Net();
  const delegation = { pools: { customers: { prefix: '2001:db8:100::/40', length: 60 } }, ...options.delegation };
  n.add('isp', {
    ports: {
      lan: {
        kind: 'memory',
        mac: '02:00:00:00:0a:01',
        addresses: '2001:db8:0:2::547/64',
        dhcp6: {
          server: {
            addresses: '2001:db8:0:1::1000-2001:db8:0:1::1fff',
            delegate: 'customers',
            relays: '2001:db8:0:1::/64',
            ...options.server,
          },
        },
      },
    },
    routes: [{ to: '2001:db8:0:1::/64', via: '2001:db8:0:2::1' }],
    delegation,
  });
  n.add('relay', {
    ports: {
      lan: {
        kind: 'memory',
        mac: '02:00:00:00:0b:01',
        addresses: '2001:db8:0:1::1/64',
        dhcp6: { relay: { to: '2001:db8:0:2::547', ...options.relay } },
        ...options.relayLan,
      },
      dc: { kind: 'memory', mac: '02:00:00:00:0b:02', addresses: '2001:db8:0:2::1/64' },
    },
  });
  n.add('cpe', customer({ 'ia-pd': [{}], ...options.client }, options.clientMac));
  n.wire('cpe.wan', 'relay.lan');
  n.wire('relay.dc', 'isp.lan');
  return n;
}
