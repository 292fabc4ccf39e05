/**
 * World: the demo's lab. Three network namespaces, a router of its own process between two hosts.
 *
 *   namespace client            namespace router             namespace server
 *   sl-lan 192.168.1.10   ═TAP═ lan  sluice run  wan   ═TAP═ sl-wan 203.0.113.10
 *          2001:db8:1::10                                           2001:db8:2::10
 *
 * The router makes both TAP devices in its own namespace and holds their descriptors; then their kernel ends are moved to
 * the hosts (lab.ts). So the only way from client to server is
 * through the router's process. With the kernel engine the cables are veth pairs instead, whose near ends stay in the
 * router's namespace: its programs sit on them. Who frees what: the lab kills processes and deletes namespaces (also on a signal and at
 * exit, see lab/namespace.ts); the folder with configuration and control socket is lab.ts's.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { askShow } from '../api/client.ts';
import { loadConfig } from '../config/index.ts';
import { type Lab, LabError, type LabProcess, waitFor } from '../lab/namespace.ts';
import { packageRoot } from '../package-root.ts';
import { type DemoLab, openLab, plug, startRouter, writeConfig } from './lab.ts';

export const CLIENT4 = '192.168.1.10';
export const CLIENT6 = '2001:db8:1::10';
export const SERVER4 = '203.0.113.10';
export const SERVER6 = '2001:db8:2::10';
export const ROUTER_LAN4 = '192.168.1.1';
export const ROUTER_LAN6 = '2001:db8:1::1';
export const ROUTER_WAN4 = '203.0.113.1';
const ROUTER_WAN6 = '2001:db8:2::1';

export interface World {
  readonly lab: Lab;
  /** Namespaces. */
  readonly client: string;
  readonly router: string;
  readonly server: string;
  /** The router's process, `sluice run`. */
  readonly process: LabProcess;
  readonly engine: 'emulated' | 'kernel';
  /** Its control socket. */
  readonly socket: string;
  /** A view of `sluice show`, as text and JSON. Errors: ApiError. */
  show(what: string, filters?: Record<string, string>): Promise<{ text: string; json: unknown }>;
  /** Takes everything down; may be called again. */
  close(): void;
}

export interface WorldOptions {
  /** Configuration to run; its ports must be lan on sl-lan and wan on sl-wan. Default: examples/demo.yaml or kernel.yaml. */
  config?: string;
  /** `kernel`: veth pairs and ports of kind packet; else TAP devices. */
  engine?: 'emulated' | 'kernel';
  /** What is being done, for people. */
  say?: (step: string) => void;
  /** True once nobody wants it any more: ends the waiting. */
  cancelled?: () => boolean;
}

/** Builds the lab and resolves once client and server can talk. Nothing is left behind when it fails. Errors: LabError. */
export function buildWorld(options: WorldOptions = {}): Promise<World> {
  return openLab((opened) => build(opened, options));
}

async function build(opened: DemoLab, options: WorldOptions): Promise<World> {
  const { lab, close } = opened;
  const inKernel = options.engine === 'kernel';
  const source = options.config ?? join(packageRoot(), 'examples', inKernel ? 'kernel.yaml' : 'demo.yaml');
  const say = options.say ?? (() => {});
  const { file, socket } = writeConfig(opened, readFileSync(source, 'utf8'));
  const client = lab.namespace('client');
  const router = lab.namespace('router');
  const server = lab.namespace('server');
  sketchRouter(lab, router, file);
  const ends = [
    { ns: client, name: 'sl-lan', addresses: [`${CLIENT4}/24`, `${CLIENT6}/64`] },
    { ns: server, name: 'sl-wan', addresses: [`${SERVER4}/24`, `${SERVER6}/64`] },
  ];
  if (inKernel) for (const end of ends) wire(lab, router, end);
  lab.apply();
  say('three network namespaces');

  const running = await startRouter(opened, router, file);
  say(`the router, process ${running.pid}`);

  if (!inKernel) {
    lab.linked(client, router);
    lab.linked(router, server);
    for (const end of ends) plug(lab, router, end);
  }
  lab.route(client, 'default', ROUTER_LAN4);
  lab.route(client, 'default', ROUTER_LAN6);
  // The server could reach the client's private address if the router let it: that is what one check tries.
  lab.route(server, 'default', ROUTER_WAN4);
  lab.route(server, 'default', ROUTER_WAN6);
  lab.apply();
  // Over IPv6 it takes longest: the router makes sure that its addresses are nobody else's (RFC 4862 section 5.4).
  for (const [ns, target] of [
    [client, SERVER6],
    [client, SERVER4],
  ])
    await waitFor(
      `${target} to answer the client`,
      async () => {
        if (options.cancelled?.()) throw new LabError('lab', 'to be built', 'cancelled', '');
        return (await lab.run(ns, 'ping', ['-n', '-c1', '-W1', target], { check: false })).status === 0;
      },
      { timeout: 30_000, detail: () => `no answer; the router said: ${running.stderr().trim()}` },
    );
  say('both hosts reach each other');
  return {
    lab,
    client,
    router,
    server,
    process: running,
    engine: options.engine ?? 'emulated',
    socket,
    show: (what, filters = {}) => askShow(socket, what, filters),
    close,
  };
}

/** A veth pair from a host to the router's namespace, where the host's own stack shall not speak on it. */
function wire(lab: Lab, router: string, end: { ns: string; name: string; addresses: readonly string[] }): void {
  lab.sysctl(router, { [`net/ipv6/conf/${end.name}/disable_ipv6`]: 1 });
  lab.veth(end, { ns: router, name: end.name });
  // The drawing shows the router's ports, not the devices below them.
  lab.sketch.nodes.get(router)?.devices.pop();
}

/** The router's ports are in no namespace: the drawing takes them from the configuration. */
function sketchRouter(lab: Lab, router: string, file: string): void {
  const node = lab.sketch.nodes.get(router);
  if (node === undefined) return;
  node.title = 'router (sluice)';
  for (const port of loadConfig(file).ports)
    node.devices.push({ name: port.name, addresses: port.addresses.map((address) => address.text) });
}
