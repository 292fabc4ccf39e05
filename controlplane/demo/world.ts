/**
 * World: the demo's lab. Three network namespaces, a router of its own process between two hosts.
 *
 *   namespace client            namespace router             namespace server
 *   sl-lan 192.168.1.10   ═TAP═ lan  sluice run  wan   ═TAP═ sl-wan 203.0.113.10
 *          2001:db8:1::10                                           2001:db8:2::10
 *
 * The router makes both TAP devices in its own namespace and holds their descriptors; then their kernel ends are moved to
 * the hosts: a TAP stays attached to its descriptor wherever the device goes. So the only way from client to server is
 * through the router's process. With the kernel engine the cables are veth pairs instead, whose near ends stay in the
 * router's namespace: its programs sit on them. Who frees what: the lab kills processes and deletes namespaces (also on a signal and at
 * exit, see lab/namespace.ts); the folder with configuration and control socket is this file's.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { askShow } from '../api/client.ts';
import { loadConfig } from '../config/index.ts';
import { Lab, LabError, type LabProcess, waitFor } from '../lab/namespace.ts';

export const CLIENT4 = '192.168.1.10';
export const CLIENT6 = '2001:db8:1::10';
export const SERVER4 = '203.0.113.10';
export const SERVER6 = '2001:db8:2::10';
export const ROUTER_LAN4 = '192.168.1.1';
export const ROUTER_LAN6 = '2001:db8:1::1';
export const ROUTER_WAN4 = '203.0.113.1';
const ROUTER_WAN6 = '2001:db8:2::1';

/** The package's folder: this file runs from controlplane/demo/ and from dist/controlplane/demo/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

/** The built command: workers and child processes need compiled files. */
export function commandFile(): string {
  const file = join(packageRoot(), 'dist', 'controlplane', 'cli', 'main.js');
  if (!existsSync(file)) throw new LabError(file, 'the built package', 'nothing', 'run "npm run build"');
  return file;
}

/** A new folder of temporary files, and what removes it; at the process's exit it goes too. Throws LabError. */
export function temporaryFolder(): { folder: string; sweep: () => void } {
  let folder: string;
  try {
    folder = mkdtempSync(join(tmpdir(), 'sluice-demo-'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new LabError(tmpdir(), 'to make a folder there', `${code}`, 'set TMPDIR to a folder that you may write');
  }
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once('exit', remove);
  const sweep = (): void => {
    remove();
    process.off('exit', remove);
  };
  return { folder, sweep };
}

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
export async function buildWorld(options: WorldOptions = {}): Promise<World> {
  const command = commandFile();
  const inKernel = options.engine === 'kernel';
  const source = options.config ?? join(packageRoot(), 'examples', inKernel ? 'kernel.yaml' : 'demo.yaml');
  const say = options.say ?? (() => {});
  const { folder, sweep } = temporaryFolder();
  let lab: Lab;
  try {
    lab = new Lab();
  } catch (error) {
    sweep();
    throw error;
  }
  const close = (): void => {
    lab.close();
    sweep();
  };
  try {
    // A socket of its own, so that a router which runs on this machine already is not in the way.
    const socket = join(folder, 'control.sock');
    const file = join(folder, 'demo.yaml');
    writeFileSync(file, `${readFileSync(source, 'utf8')}\ncontrol: { socket: ${JSON.stringify(socket)} }\n`);
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

    const running = lab.spawn(router, process.execPath, [command, 'run', file]);
    await waitFor('the router to run', () => running.stderr().includes('sluice: running') || !running.running(), {
      timeout: 20_000,
      detail: () => running.stderr(),
    });
    if (!running.running()) throw new LabError('router', 'it to run', 'its end', running.stderr().trim());
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
        { timeout: 10_000, detail: () => `no answer; the router said: ${running.stderr().trim()}` },
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
  } catch (error) {
    close();
    throw error;
  }
}

/** A veth pair from a host to the router's namespace, where the host's own stack shall not speak on it. */
function wire(lab: Lab, router: string, end: { ns: string; name: string; addresses: readonly string[] }): void {
  lab.sysctl(router, { [`net/ipv6/conf/${end.name}/disable_ipv6`]: 1 });
  lab.veth(end, { ns: router, name: end.name });
  // The drawing shows the router's ports, not the devices below them.
  lab.sketch.nodes.get(router)?.devices.pop();
}

/** Moves the kernel's end of a TAP from the router's namespace to where the cable leads, and configures it there. */
function plug(lab: Lab, router: string, end: { ns: string; name: string; addresses: readonly string[] }): void {
  lab.runSync(router, 'ip', ['link', 'set', end.name, 'netns', end.ns]);
  lab.device(end);
}

/** The router's ports are in no namespace: the drawing takes them from the configuration. */
function sketchRouter(lab: Lab, router: string, file: string): void {
  const node = lab.sketch.nodes.get(router);
  if (node === undefined) return;
  node.title = 'router (sluice)';
  for (const port of loadConfig(file).ports)
    node.devices.push({ name: port.name, addresses: port.addresses.map((address) => address.text) });
}
