/**
 * Live lab: `sluice run` in a namespace of its own between hosts in theirs, for tests with real programs.
 *
 *   const live = await startLive(YAML, [{ label: 'client', device: 'sl-lan', addresses: ['192.168.1.10/24'], via: ['192.168.1.1'] }, …]);
 *   await live.lab.run(live.ns('client'), 'ping', …);
 *   live.close();
 *
 * The router makes its TAP devices where it runs; then their kernel ends are moved to the hosts, so that nothing collides
 * with another lab. The configuration needs no `control`: the socket is in a folder of this lab's own.
 * `{ child: true }` runs live-child.ts in place of the command: its workers can be killed, and it applies configurations.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { askShow } from '../../controlplane/api/client.ts';
import type { Change } from '../../controlplane/apply/index.ts';
import { commandFile } from '../../controlplane/demo/lab.ts';
import { Lab, type LabProcess, type RunResult, waitFor } from '../../controlplane/lab/namespace.ts';
import { packageRoot } from '../../controlplane/package-root.ts';
import type { IoBackend } from '../../dataplane/ports/uring.ts';

/** A host at the other end of one of the router's TAP devices; one with two devices is given twice. */
export interface Host {
  label: string;
  /** `ifname` of the router's port. */
  device: string;
  /** With prefix lengths. */
  addresses: readonly string[];
  /** Default routers, one for each family. */
  via: readonly string[];
  /** Addresses that must answer an echo request before the lab is ready. Default: the default routers. */
  awaits?: readonly string[];
  mtu?: number;
}

export interface LiveOptions {
  /** The router is live-child.ts, with the signals that it knows. */
  child?: boolean;
  /** How TAP queues are read (`--io`). */
  io?: IoBackend;
}

export interface LiveLab {
  readonly lab: Lab;
  /** The one that runs now: `start` makes another. */
  router: LabProcess;
  /** The router's namespace. */
  readonly where: string;
  /** The control socket. */
  readonly socket: string;
  /** A temporary folder that disappears with the lab. */
  readonly folder: string;
  /** Namespace of a host by its label. */
  ns(label: string): string;
  /** Runs `sluice` with these arguments in the router's namespace, to its end, whatever that is. */
  command(...args: string[]): RunResult;
  /** A view of `sluice show`, as JSON. */
  show(what: string, filters?: Record<string, string>): Promise<unknown>;
  /** `child` only: puts another configuration in force. What it says: its lines, and why it refused. */
  apply(yaml: string): Promise<Change>;
  /** Starts the router once more, where another has ended; the hosts' devices are gone with that one. */
  start(): Promise<void>;
  /** Takes everything down; may be called again. */
  close(): void;
}

const CHILD = join(packageRoot(), 'dist', 'test', 'lab', 'live-child.js');

/**
 * Starts the router with this configuration and connects the hosts. Resolves when every host gets the echo replies that
 * it awaits. Nothing is left behind when it fails.
 */
export async function startLive(yaml: string, hosts: readonly Host[], options: LiveOptions = {}): Promise<LiveLab> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-lab-'));
  const socket = join(folder, 'control.sock');
  const [file, next] = [join(folder, 'router.yaml'), join(folder, 'next.yaml')];
  const write = (to: string, text: string): void =>
    writeFileSync(to, `${text}\ncontrol: { socket: ${JSON.stringify(socket)} }\n`);
  write(file, yaml);
  const lab = new Lab();
  const close = (): void => {
    lab.close();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const where = lab.namespace('router');
    const names = new Map([...new Set(hosts.map((host) => host.label))].map((label) => [label, lab.namespace(label)]));
    const ns = (label: string): string => {
      const name = names.get(label);
      if (name === undefined) throw new Error(`lab: expected a host of this lab, got "${label}"`);
      return name;
    };
    lab.apply();
    const launch = async (): Promise<LabProcess> => {
      const { child, io = 'auto' } = options;
      const args = child ? [CHILD, file, next, io] : [commandFile(), 'run', '--io', io, file];
      const router = lab.spawn(where, process.execPath, args);
      const said = () => router.stdout() + router.stderr();
      await waitFor('the router to run', () => /^(sluice: )?running/m.test(said()) || !router.running(), {
        timeout: 60_000,
        detail: said,
      });
      if (!router.running()) throw new Error(`router: expected it to run, got its end: ${router.stderr()}`);
      return router;
    };
    const live: LiveLab = {
      lab,
      router: await launch(),
      where,
      socket,
      folder,
      ns,
      command: (...args) => lab.runSync(where, process.execPath, [commandFile(), ...args], { check: false }),
      show: async (what, filters = {}) => (await askShow(socket, what, filters)).json,
      apply: async (text) => {
        write(next, text);
        const before = answers(live.router).length;
        process.kill(live.router.pid, 'SIGIO');
        await waitFor('the configuration to be applied', () => answers(live.router).length > before, {
          timeout: 30_000,
          detail: () => live.router.stderr(),
        });
        return answers(live.router)[before];
      },
      start: async () => {
        live.router = await launch();
      },
      close,
    };
    for (const { label, device, addresses, via, mtu } of hosts) {
      lab.runSync(where, 'ip', ['link', 'set', device, 'netns', ns(label)]);
      lab.device({ ns: ns(label), name: device, addresses, mtu });
      for (const gateway of via) lab.route(ns(label), 'default', gateway);
    }
    lab.apply();
    // The router's own IPv6 addresses are tentative for a second (RFC 4862 §5.4).
    for (const { label, via, awaits } of hosts)
      for (const target of awaits ?? via)
        await waitFor(
          `${target} to answer ${label}`,
          async () => (await lab.run(ns(label), 'ping', ['-n', '-c1', '-W1', target], { check: false })).status === 0,
          { timeout: 30_000, detail: () => live.router.stderr() },
        );
    return live;
  } catch (error) {
    close();
    throw error;
  }
}

/** What live-child.ts said about configurations, in order. */
function answers(router: LabProcess): Change[] {
  return [...router.stdout().matchAll(/^applied (.*)$/gm)].map(([, json]) => JSON.parse(json) as Change);
}
