/**
 * World of the engine tests: the same router three times, with the engine off, on and in verify mode, fed the same
 * frames at the same times. Whatever leaves must be the same bytes on the same ports in the same order. With SLUICE_ENGINE=kernel
 * in the environment (vitest project `kernel`), the one that is on has the kernel engine behind it, and so has the one in
 * verify mode, which is shown every hit.
 *
 *   hosts .10 .11 .20 --- lan 192.168.1.1 | wan 203.0.113.1 --- gateway .254 (and the Internet behind it)
 *                                         | alt 198.18.0.1  --- gateway .254 (another way to the same Internet)
 *                                         | dmz 10.9.0.1    --- hosts .20 .21, routed without NAT
 */
import { createRouter, type Router, type RouterOptions } from '../../controlplane/router.ts';
import type { FrameMeta, MemoryFrame } from '../../dataplane/ports/memory.ts';
import * as T from '../../dataplane/tables.ts';
import { EX_TEXT } from '../../offload/engine.ts';
import { ethernet, ip, mac } from '../lib/build.ts';
import { KernelBench, WITH_KERNEL } from './kernel-port.ts';

export const PORTS = ['lan', 'wan', 'alt', 'dmz'] as const;
export type PortName = (typeof PORTS)[number];
export const MACS: Record<PortName, string> = {
  lan: '02:00:00:00:01:01',
  wan: '02:00:00:00:01:02',
  alt: '02:00:00:00:01:03',
  dmz: '02:00:00:00:01:04',
};
export const HOST = '192.168.1.10';
export const HOST2 = '192.168.1.11';
export const DMZ = '192.168.1.20';
export const SERVER = '198.51.100.7';
export const WAN = '203.0.113.1';
export const HOST6 = '2001:db8:1::10';
export const SERVER6 = '2001:db8:7::7';

/** The MAC of a host on a port, from its address. */
export function macOf(address: string): string {
  const bytes = ip(address);
  return `02:00:00:00:00:${bytes[bytes.length - 1].toString(16).padStart(2, '0')}`;
}
export const GATE_MAC = '02:00:00:00:00:fe';

export function worldConfig(extra: Record<string, unknown> = {}): Record<string, unknown> {
  const hosts = ['192.168.1.10', '192.168.1.11', '192.168.1.20', '2001:db8:1::10', '2001:db8:1::11', '2001:db8:1::20'];
  const dmz = ['10.9.0.20', '10.9.0.21', '2001:db8:9::20', '2001:db8:9::21'];
  return {
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: MACS.lan, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
      wan: { kind: 'memory', zone: 'wan', mac: MACS.wan, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
      alt: { kind: 'memory', zone: 'wan', mac: MACS.alt, addresses: ['198.18.0.1/24', '2001:db8:fffe::1/64'] },
      dmz: { kind: 'memory', zone: 'dmz', mac: MACS.dmz, addresses: ['10.9.0.1/24', '2001:db8:9::1/64'] },
    },
    routes: [
      { to: '0.0.0.0/0', via: '203.0.113.254' },
      { to: '::/0', via: '2001:db8:ffff::fe' },
    ],
    neighbors: [
      { port: 'wan', ip: '203.0.113.254', mac: GATE_MAC },
      { port: 'wan', ip: '2001:db8:ffff::fe', mac: GATE_MAC },
      { port: 'alt', ip: '198.18.0.254', mac: '02:00:00:00:00:fd' },
      { port: 'alt', ip: '2001:db8:fffe::fe', mac: '02:00:00:00:00:fd' },
      ...hosts.map((address) => ({ port: 'lan', ip: address, mac: macOf(address) })),
      ...dmz.map((address) => ({ port: 'dmz', ip: address, mac: macOf(address) })),
    ],
    zones: {
      lan: { forward: 'accept', input: 'accept' },
      wan: { forward: 'drop', input: 'drop' },
      dmz: { forward: 'accept', input: 'drop' },
    },
    nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24' }], dmz: { in: 'wan', to: DMZ } },
    conntrack: { max: 4096 },
    ...extra,
  };
}

/** A frame from a host (or the gateway) to the router's port. */
export function to(port: PortName, packet: Uint8Array, from: string = GATE_MAC): Uint8Array {
  return ethernet({ src: mac(from), dst: mac(MACS[port]) }, packet);
}

/** One counter of the engine, by its name. */
export function engineCounter(router: Router, name: (typeof EX_TEXT)[number]): number {
  return router.tables.total(T.C_ENGINE + EX_TEXT.indexOf(name));
}

/** Hits of both levels. */
export function hits(router: Router): number {
  return router.counters.offload.hits;
}

export interface Left {
  port: PortName;
  frame: MemoryFrame;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Everything that an observer on the wire can see of a frame that left. */
function described({ port, frame }: Left): string {
  return `${port} ${frame.flags} ${frame.gso} ${frame.csum} ${hexOf(frame.frame)}`;
}

function same(a: Left, b: Left): boolean {
  const x = a.frame.frame;
  const y = b.frame.frame;
  return (
    a.port === b.port &&
    a.frame.flags === b.frame.flags &&
    a.frame.gso === b.frame.gso &&
    a.frame.csum === b.frame.csum &&
    Buffer.compare(x, y) === 0
  );
}

export class World {
  readonly off: Router;
  readonly on: Router;
  readonly verify: Router;
  readonly routers: readonly Router[];
  readonly mismatches: string[] = [];
  /** Frames that left so far (of the router whose engine is off). */
  left = 0;
  entered = 0;
  /** The kernel engine of the router that is on; null: the emulated one. */
  readonly kernel: KernelBench | null;
  /** That of the router in verify mode. */
  readonly judged: KernelBench | null;

  constructor(extra: Record<string, unknown> = {}, engine: Record<string, unknown> = {}, options: RouterOptions = {}) {
    const make = (mode: string, ports: RouterOptions = {}) =>
      createRouter(worldConfig({ ...extra, offload: { mode, entries: 1024, ...engine } }), {
        slots: { small: 512, large: 16 },
        ...options,
        ...ports,
        mismatch: ({ what, engine: fast, slow }) =>
          this.mismatches.push(`${what}\n engine ${hexOf(fast)}\n slow   ${slow === null ? '-' : hexOf(slow)}`),
      });
    this.off = make('off');
    // A test with ports of its own has no place for the kernel's.
    const emulated = !WITH_KERNEL || options.port;
    this.kernel = emulated ? null : new KernelBench(false, options.engineFault);
    this.on = make('on', this.kernel?.options());
    this.kernel?.attach(this.on);
    this.judged = emulated ? null : new KernelBench(true, options.engineFault);
    this.verify = make('verify', this.judged?.options());
    this.judged?.attach(this.verify);
    this.routers = [this.off, this.on, this.verify];
  }

  /** Does something to all three. */
  all(action: (router: Router) => void): void {
    for (const router of this.routers) action(router);
  }

  advance(milliseconds: number): void {
    this.all((router) => router.advance(milliseconds));
  }

  /** Puts frames on ports, in their order, and returns what left; throws when the three differ. */
  send(frames: readonly { port: PortName; frame: Uint8Array; meta?: Partial<FrameMeta> }[]): Left[] {
    const results = this.routers.map((router) => {
      for (const { port, frame, meta } of frames.slice(0, -1)) router.port(port).push(frame, 0, 0, meta);
      // What enters one port in a row is one burst; ports are served in their order, so a change of port ends it.
      for (const [n, { port, frame, meta }] of frames.entries()) {
        const ends = frames[n + 1]?.port !== port;
        if (ends && meta === undefined) router.inject(port, frame);
        else router.port(port).push(frame, 0, 0, meta);
        if (ends && meta !== undefined) router.inject(port, NOTHING);
      }
      return PORTS.flatMap((port) =>
        router
          .port(port)
          .takeWithMeta()
          .map((frame) => ({ port, frame })),
      );
    });
    this.entered += frames.length;
    const [off, on, verify] = results;
    this.left += off.length;
    for (const [name, other] of [
      ['on', on],
      ['verify', verify],
    ] as const)
      for (let n = 0; n < Math.max(off.length, other.length); n++) {
        if (off[n] !== undefined && other[n] !== undefined && same(off[n], other[n])) continue;
        const a = off[n] === undefined ? 'nothing' : described(off[n]);
        const b = other[n] === undefined ? 'nothing' : described(other[n]);
        if (a !== b)
          throw new Error(
            `frame ${n} with the engine ${name}: expected\n ${a}\ngot\n ${b}\nfor\n${frames.map((f) => `${f.port} ${hexOf(f.frame)}`).join('\n')}`,
          );
      }
    return off;
  }

  /** One frame. */
  frame(port: PortName, packet: Uint8Array, from?: string): Left[] {
    return this.send([{ port, frame: to(port, packet, from) }]);
  }

  /** Lines of `conntrack -L`, without what only the engine has ([OFFLOAD] hides state and timeout). */
  connections(): string[][] {
    return this.routers.map((router) => router.conntrack.lines().sort());
  }
}

/** A frame that is too short for anything: it only makes the router take a turn. */
const NOTHING = new Uint8Array(14);

/** Packets, bytes and remaining time of every connection: what must be equal whatever the engine does. */
export function accounts(router: Router): Map<string, string> {
  router.conntrack.list(); // harvests
  const { conntrack } = router.tables;
  const out = new Map<string, string>();
  for (let index = 0; index < conntrack.highWater; index++) {
    if (!conntrack.inUse(index, router.now)) continue;
    const w = conntrack.words;
    const c = index * 48;
    const key = keyOf(router, index);
    const d = conntrack.doubles;
    const f = index * 24 + 16;
    const deadline = (w[c + 7] & 0xff) === 6 ? 0 : (w[c + 12] - router.now) | 0;
    out.set(key, `${d[f]} ${d[f + 1]} packets, ${d[f + 2]} ${d[f + 3]} bytes, ${deadline} ms`);
  }
  return out;
}

/** A connection's tuples in words: the same in every router. */
export function keyOf(router: Router, index: number): string {
  const { words: w, words6 } = router.tables.conntrack;
  const c = index * 48;
  const six = ((w[c + 7] >> 8) & 15) === 6 ? Array.from(words6.subarray(index * 16, index * 16 + 16)) : [];
  return [w[c + 7], ...[4, 5, 6, 8, 9, 10].map((n) => w[c + n]), ...six].join(' ');
}
