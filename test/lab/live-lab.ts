/**
 * Live lab: `sluice run` in a namespace of its own between hosts in theirs, for tests with real programs.
 *
 *   const live = await startLive(YAML, [{ label: 'client', device: 'sl-lan', addresses: ['192.168.1.10/24'], via: ['192.168.1.1'] }, …]);
 *   await live.lab.run(live.ns('client'), 'ping', …);
 *   live.close();
 *
 * The router makes its TAP devices where it runs; then their kernel ends are moved to the hosts, so that nothing collides
 * with another lab. The configuration needs no `control`: the socket is in a folder of this lab's own.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { askShow } from '../../controlplane/api/client.ts';
import { commandFile } from '../../controlplane/demo/world.ts';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';

/** A host at the other end of one of the router's TAP devices. */
export interface Host {
  label: string;
  /** `ifname` of the router's port. */
  device: string;
  /** With prefix lengths. */
  addresses: readonly string[];
  /** Default routers, one for each family. */
  via: readonly string[];
  mtu?: number;
}

export interface LiveLab {
  readonly lab: Lab;
  readonly router: LabProcess;
  /** The router's namespace. */
  readonly where: string;
  /** The control socket. */
  readonly socket: string;
  /** A temporary folder that disappears with the lab. */
  readonly folder: string;
  /** Namespace of a host by its label. */
  ns(label: string): string;
  /** A view of `sluice show`, as JSON. */
  show(what: string, filters?: Record<string, string>): Promise<unknown>;
  /** Takes everything down; may be called again. */
  close(): void;
}

/**
 * Starts the router with this configuration and connects the hosts. Resolves when every host gets an echo reply from its
 * default routers. Nothing is left behind when it fails.
 */
export async function startLive(yaml: string, hosts: readonly Host[]): Promise<LiveLab> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-lab-'));
  const socket = join(folder, 'control.sock');
  const file = join(folder, 'router.yaml');
  writeFileSync(file, `${yaml}\ncontrol: { socket: ${JSON.stringify(socket)} }\n`);
  const lab = new Lab();
  const close = (): void => {
    lab.close();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const where = lab.namespace('router');
    const names = new Map(hosts.map((host) => [host.label, lab.namespace(host.label)]));
    const ns = (label: string): string => {
      const name = names.get(label);
      if (name === undefined) throw new Error(`lab: expected a host of this lab, got "${label}"`);
      return name;
    };
    lab.apply();
    const router = lab.spawn(where, process.execPath, [commandFile(), 'run', file]);
    await waitFor('the router to run', () => router.stderr().includes('sluice: running') || !router.running(), {
      timeout: 20_000,
      detail: () => router.stderr(),
    });
    if (!router.running()) throw new Error(`router: expected it to run, got its end: ${router.stderr()}`);
    for (const { label, device, addresses, via, mtu } of hosts) {
      lab.runSync(where, 'ip', ['link', 'set', device, 'netns', ns(label)]);
      lab.device({ ns: ns(label), name: device, addresses, mtu });
      for (const gateway of via) lab.route(ns(label), 'default', gateway);
    }
    lab.apply();
    // The router's own IPv6 addresses are tentative for a second (RFC 4862 §5.4).
    for (const { label, via } of hosts)
      for (const gateway of via)
        await waitFor(
          `${gateway} to answer ${label}`,
          async () => (await lab.run(ns(label), 'ping', ['-n', '-c1', '-W1', gateway], { check: false })).status === 0,
          { timeout: 10_000, detail: () => router.stderr() },
        );
    const show = async (what: string, filters: Record<string, string> = {}): Promise<unknown> =>
      (await askShow(socket, what, filters)).json;
    return { lab, router, where, socket, folder, ns, show, close };
  } catch (error) {
    close();
    throw error;
  }
}
